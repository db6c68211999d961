// The client against a real agent over the comm: a real Jupyter server, and JupyterLab's own kernel connection.

import { type Kernel as Lab, KernelManager, ServerConnection } from "@jupyterlab/services";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";

import {
  CommTransport,
  connect,
  hasEnded,
  type KernelLike,
  type LiveDocument,
  type Stream,
  WebSocketTransport,
} from "../src/index.ts";
import { LONG, Script, until } from "./agent.ts";

let script: Script;
let manager: KernelManager;
let kernel: Lab.IKernelConnection;
const open: LiveDocument[] = [];

beforeAll(async () => {
  script = await Script.start("server.py");
  const baseUrl = script.hello["url"] ?? "";
  const serverSettings = ServerConnection.makeSettings({
    baseUrl,
    wsUrl: baseUrl.replace("http", "ws"),
    token: script.hello["token"] ?? "",
    WebSocket: WebSocket as typeof globalThis.WebSocket,
  });
  manager = new KernelManager({ serverSettings });
  await manager.ready;
  kernel = await manager.startNew({ name: "rtc-python" });
  await kernel.info;
}, LONG);
afterEach(() => {
  for (const doc of open.splice(0)) doc.close();
});
afterAll(async () => {
  await kernel?.shutdown();
  manager?.dispose();
  await script?.stop();
}, LONG);

async function live(over: KernelLike = kernel): Promise<LiveDocument> {
  const doc = connect(new CommTransport(over));
  open.push(doc);
  await until(doc, () => doc.status === "live");
  return doc;
}

describe("over the comm", { timeout: LONG }, () => {
  test("a frontend's run is followed, while the kernel is busy too", async () => {
    const doc = await live();
    const code = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)";
    const future = kernel.requestExecute({ code });
    const id = future.msg.header.msg_id;
    const row = await until(doc, () => {
      const found = doc.executions.get(id);
      return found?.outputs.length ? found : null;
    });
    expect((row.outputs[0] as Stream).text).toBe("begun\n");
    await doc.interrupt(id);
    const end = await until(doc, () => {
      const found = doc.executions.get(id);
      return found && hasEnded(found) ? found : null;
    });
    expect(end.error?.ename).toBe("KeyboardInterrupt");
    expect(doc.kernel).toMatchObject({ id: doc.kernelId, language: "python" });
    expect([doc.role, doc.peers.length]).toEqual(["run", 0]);
  });

  test("code is run and a question answered", async () => {
    const doc = await live();
    const run = await doc.run("name = input('who '); name[::-1]");
    const id = await run.execution();
    await until(doc, () => doc.executions.get(id)?.input);
    await doc.answer(id, "ada");
    expect((await run.ended()).outputs.at(-1)).toMatchObject({ data: { "text/plain": "'ada'" } });
    await expect(doc.interrupt(id)).rejects.toThrow(/refused/);
  });

  test("a flood arrives whole", async () => {
    const doc = await live();
    const row = await (await doc.run("for n in range(10_000): print(n)")).ended();
    const all = Array.from({ length: 10_000 }, (_, n) => `${n}\n`).join("");
    expect(row.outputs.map((output) => (output as Stream).text).join("")).toBe(all);
  });

  test("history, blobs and marks are read", async () => {
    const doc = await live();
    const run = await doc.run("print('m'); 'z' * 5_000_000");
    const row = await run.ended();
    const { transport } = doc;
    expect((await transport.history({ limit: 1 })).executions[0]?.id).toBe(row.id);
    const brief = await transport.history({ limit: 1, brief: true });
    expect(brief.executions[0]).toMatchObject({ id: row.id, outputs: [] });
    expect(await transport.execution(row.id)).toEqual(row);
    expect(Array.isArray(await transport.marks(row.id))).toBe(true); // of what came at once there may be none
    const long = await (await doc.run("for n in range(3): print(str(n) * 2_000_000)")).ended();
    const whole = await transport.execution(long.id);
    expect((whole.outputs[0] as Stream).text).toBe([0, 1, 2].map((n) => `${String(n).repeat(2_000_000)}\n`).join(""));
    await expect(transport.execution("no-such")).rejects.toThrow(/no such execution/);
    const output = row.outputs[1];
    const { blob } = (output?.output_type === "execute_result" ? output.data["text/plain"] : null) as { blob: string };
    expect(transport.blobUrl(blob)).toBeNull();
    const bytes = await transport.blob(blob);
    expect(bytes.length).toBe(5_000_002);
    expect(bytes.every((byte, at) => byte === (at === 0 || at === 5_000_001 ? 0x27 : 0x7a))).toBe(true);
    expect(await transport.blob(blob, 4_999_999, 5_000_001)).toEqual(bytes.subarray(4_999_999, 5_000_001));
    const many = await Promise.all(Array.from({ length: 20 }, () => transport.history({ limit: 1 })));
    expect(many).toHaveLength(20); // the agent takes 8 at a time
  });

  test("a link is made, listed and withdrawn", async () => {
    const transport = new CommTransport(kernel);
    const made = await transport.share({ role: "run", name: "phone", expiresS: 60 });
    expect(made).toMatchObject({ name: "phone", role: "run" });
    expect(made.expires_at).toBeGreaterThan(Date.now() / 1000);
    const guest = connect(new WebSocketTransport({ url: made.url, WebSocket }));
    open.push(guest);
    await until(guest, () => guest.status === "live" && guest.role === "run");
    const seen = await transport.links();
    expect(seen.links).toMatchObject([{ name: "phone", role: "run", expires_at: made.expires_at }]);
    expect(seen.peers.map(({ name, role, way }) => [name, role, way])).toContainEqual(["phone", "run", "websocket"]);
    expect(JSON.stringify(seen)).not.toContain(new URL(made.url).searchParams.get("token"));
    await expect(transport.share({ name: "phone" })).rejects.toThrow(/'phone' is in force/);
    expect((await transport.unshare("phone")).links).toEqual([]);
    await until(guest, () => guest.status === "closed");
    expect(await transport.share()).toMatchObject({ name: "view-1", role: "view", expires_at: null });
    await transport.unshare("view-1");
    transport.close();
  });

  test("what a page runs has the name of who sits there, what was just run too", async () => {
    const first = kernel.requestExecute({ code: "1" }).msg.header.msg_id;
    const transport = new CommTransport(kernel, { name: () => " Ada é " });
    const doc = connect(transport);
    open.push(doc);
    await until(doc, () => doc.executions.get(first)?.submitted_by === "Ada é");
    expect((await transport.links()).peers).toMatchObject([{ name: "Ada é", role: "run", way: "comm" }]);
    await transport.introduce("x".repeat(70));
    const second = kernel.requestExecute({ code: "2" }).msg.header.msg_id;
    await until(doc, () => doc.executions.get(second)?.submitted_by === "x".repeat(64));
    await expect(transport.introduce("a\nb")).rejects.toThrow(/printable/);
    await transport.introduce("");
    expect((await transport.links()).peers).toMatchObject([{ name: "" }]);
    const row = await (await doc.run("3")).ended();
    expect(row.submitted_by).toBe("");
  });

  test("the kernel completes a name", async () => {
    const doc = await live();
    await (await doc.run("completable = 1")).ended();
    let found = await doc.transport.complete("complet", 7);
    // The agent waits for some seconds, and what the kernel completes with has to be loaded first.
    while (found.matches.length === 0) found = await doc.transport.complete("complet", 7);
    expect(found.matches).toContain("completable");
    expect(found).toMatchObject({ cursor_start: 0, cursor_end: 7 });
  });

  test("what got lost on its way is asked for again", async () => {
    const dropped: unknown[] = [];
    const lossy: KernelLike = {
      createComm: (target) => {
        const comm = kernel.createComm(target);
        let count = 0;
        return new Proxy(comm, {
          set: (of, name, value: (message: never) => void) => {
            const drops = name === "onMsg";
            const wrapped = (message: never): void => {
              if (drops && ++count % 3 === 1) dropped.push(message);
              else value(message);
            };
            return Reflect.set(of, name, drops ? wrapped : value);
          },
          get: (of, name) => {
            const value: unknown = Reflect.get(of, name);
            return typeof value === "function" ? (value.bind(of) as unknown) : value;
          },
        });
      },
    };
    const doc = await live(lossy);
    const row = await (await doc.run("import time\nfor n in range(8): print(n, flush=True); time.sleep(0.1)")).ended();
    expect((row.outputs[0] as Stream).text).toBe("0\n1\n2\n3\n4\n5\n6\n7\n");
    expect(dropped.length).toBeGreaterThan(0);
  });

  test("a page that nobody looks at opens nothing until it is seen", async () => {
    let visible = false;
    let seen: () => void = () => undefined;
    const options = {
      isVisible: () => visible,
      onVisible: (callback: () => void) => {
        const before = seen;
        seen = () => {
          before();
          callback();
        };
        return () => undefined;
      },
    };
    const doc = connect(new CommTransport(kernel, options));
    open.push(doc);
    await until(doc, () => doc.health);
    expect(doc.status).toBe("connecting");
    visible = true;
    await new Promise((resolve) => setImmediate(resolve));
    seen();
    await until(doc, () => doc.status === "live");
  });

  test("the document comes back when the agent died, and when the kernel was restarted", async () => {
    const doc = await live();
    const epoch = doc.meta?.epoch;
    await script.tell("kill_agent", { kernel: kernel.id });
    await until(doc, () => doc.status === "live" && doc.meta?.epoch !== epoch);
    expect((await (await doc.run("6 * 7")).ended()).state).toBe("ok");
    await kernel.restart();
    const row = await (await doc.run("'again'")).ended();
    expect(row).toMatchObject({ state: "ok", generation: 1 });
  });

  test("a kernel without an agent is told as such", async () => {
    const plain = await manager.startNew({ name: "python3" });
    await plain.info;
    const doc = connect(new CommTransport(plain));
    await until(doc, () => doc.status === "closed");
    expect(doc.failure?.message).toMatch(/no live document/);
    await plain.shutdown();
  });
});
