// The client against a real agent beside a real kernel, over WebSocket.

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";

import { WebSocket } from "ws";

import {
  type Change,
  type Channel,
  type ChannelEvents,
  connect,
  type Execution,
  executionAt,
  hasEnded,
  type LiveDocument,
  type Mark,
  RTCError,
  type RoomName,
  type Stream,
  WebSocketTransport,
} from "../src/index.ts";
import { LONG, Scene, until } from "./agent.ts";

let scene: Scene;

beforeAll(async () => {
  scene = await Scene.start();
}, LONG);
afterEach(() => scene.leave());
afterAll(() => scene.stop(), LONG);

const text = (row: Execution): string =>
  row.outputs.map((output) => (output.output_type === "stream" ? output.text : "")).join("");

/** A cell that an interrupt meets: `running` is said before its code runs. */
const endless = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.01)";

describe("following", { timeout: LONG }, () => {
  test("a frontend's run is seen while it goes on", async () => {
    const doc = await scene.live();
    const seen: Change[] = [];
    doc.onChange((change) => seen.push(change));
    const id = await scene.execute("import time\nprint('one')\ninput_gate = 1\nprint('two'); 6 * 7");
    const row = await until(doc, () => {
      const found = doc.executions.get(id);
      return found && hasEnded(found) && found;
    });
    expect(row).toMatchObject({ state: "ok", cell: null, request: null, generation: 0 });
    expect(text(row)).toBe("one\ntwo\n");
    expect(row.outputs.at(-1)).toMatchObject({ output_type: "execute_result", data: { "text/plain": "42" } });
    const kinds = seen.flatMap((change) => (change.reset ? [] : [change.executions.get(id)?.kind ?? "none"]));
    expect(kinds).toContain("added");
    expect(doc.kernel).toMatchObject({ id: doc.kernelId, language: "python" });
    expect(doc.meta).toMatchObject({ schema: 1, epoch: doc.health?.epoch, coverage: "full" });
    expect(doc.role).toBe("own");
    expect(Date.now() / 1000 - doc.liveAt).toBeLessThan(LONG / 1000);
  });

  test("a record is the same object until its row changes", async () => {
    const doc = await scene.live();
    const first = await (await doc.run("1")).ended();
    const before = doc.executions.get(first.id);
    const second = await (await doc.run("2")).ended();
    expect(doc.executions.get(first.id)).toBe(before);
    await doc.annotate(first.id, "note", { stars: 3 });
    const after = await until(doc, () => {
      const row = doc.executions.get(first.id);
      return row?.metadata["note"] ? row : null;
    });
    expect(after).not.toBe(before);
    expect(after.metadata["note"]).toEqual({ stars: 3 });
    expect(after.outputs[0]).toBe(before?.outputs[0]);
    expect(doc.executions.get(second.id)).toEqual(second);
  });

  test("what changed of a stream is told by segments, and they make up the text", async () => {
    const doc = await scene.live();
    const drawn = new Map<string, string[]>();
    doc.onChange((change) => {
      if (change.reset) return;
      for (const [id, one] of change.executions) {
        const nodes = drawn.get(id) ?? [];
        drawn.set(id, nodes);
        const streams = one.kind === "changed" && !one.outputs ? one.streams : [{ position: 0, segment: null }];
        for (const { position, segment } of streams) {
          const segments = doc.segments(id, position) ?? [];
          if (segment === null) nodes.splice(0, nodes.length, ...segments);
          else nodes[segment] = segments[segment] ?? "";
        }
      }
    });
    const run = await doc.run("for n in range(20_000): print(n, 'x' * 80)");
    const row = await run.ended();
    const stream = row.outputs[0] as Stream;
    expect(drawn.get(row.id)?.join("")).toBe(stream.text);
    expect(stream.text).toMatch(/^0 x{80}\n1 x/);
    expect(stream.text).toMatch(/\n19999 x{80}\n$/);
    expect(doc.segments(row.id, 0)?.slice(0, stream.omitted_segment ?? 0).join("").length).toBe(stream.omitted_index);
    const whole = await doc.transport.execution(row.id);
    expect(new TextEncoder().encode(text(whole)).length).toBe(stream.text.length + (stream.omitted_bytes ?? 0));
    expect(doc.segments("nowhere", 0)).toBeNull();
  });

  test("who looks is seen by others, and goes with the connection", async () => {
    const ada = await scene.live(scene.token, { name: "ada", color: "#aa0000" });
    const bob = await scene.live(await scene.share("view", "bob-looks"), { name: "bob" });
    await until(ada, () => ada.peers.some((peer) => peer.name === "bob" && !peer.self));
    const one = await until(bob, () => bob.peers.find((peer) => peer.name === "ada"));
    expect(one).toMatchObject({ color: "#aa0000", self: false });
    expect(bob.peers.find((peer) => peer.self)?.name).toBe("bob");
    ada.setPresence({ viewing: "e-1" });
    await until(bob, () => bob.peers.some((peer) => peer.name === "ada" && peer.viewing === "e-1"));
    bob.close();
    await until(ada, () => ada.peers.every((peer) => peer.name !== "bob"));
  });

  test("a new life of the document replaces the earlier picture at once", async () => {
    const doc = await scene.live();
    const kept = await (await doc.run("'before the clear'")).ended();
    const epoch = doc.meta?.epoch;
    let resets = 0;
    let empty = 0;
    doc.onChange((change) => {
      if (change.reset) resets++;
      else if (doc.meta === null) empty++;
    });
    doc.onStatus(() => void (doc.meta ?? empty++));
    await doc.clear();
    await until(doc, () => doc.status === "live" && doc.meta?.epoch !== epoch);
    expect([resets, empty]).toEqual([1, 0]);
    expect(doc.executions.has(kept.id)).toBe(false);
    expect((await (await doc.run("1 + 1")).ended()).state).toBe("ok");
  });
});

describe("acting", { timeout: LONG }, () => {
  test("a run says what came of it", async () => {
    const doc = await scene.live(await scene.share("run", "carol"));
    const options = { cell: "c-1", notebook: "n.ipynb", userExpressions: { s: "3 + 4" } };
    const run = await doc.run("print('é'); 6 * 7", options);
    expect(doc.requests.get(run.request)).toMatchObject({ action: "execute", by: "carol" });
    const row = await run.ended();
    expect(row).toMatchObject({ state: "ok", submitted_by: "carol", request: run.request, cell: "c-1" });
    expect(row.id).toBe(await run.execution());
    expect(row.metadata["user_expressions"]).toMatchObject({ s: { data: { "text/plain": "7" } } });
  });

  test("a failing run is a value", async () => {
    const doc = await scene.live();
    const row = await (await doc.run("1 / 0")).ended();
    expect(row).toMatchObject({ state: "error", error: { ename: "ZeroDivisionError" } });
    expect(row.outputs[0]).toMatchObject({ output_type: "error", ename: "ZeroDivisionError" });
  });

  test("what the agent refuses says why", async () => {
    const doc = await scene.live();
    await expect(doc.interrupt("no-such-execution")).rejects.toThrow(/refused: execution/);
    await expect(doc.run("1", { onDuplicate: "never" as "queue" })).rejects.toThrow(RTCError);
  });

  test("a run is interrupted, and by its name only while it runs", async () => {
    const doc = await scene.live();
    const run = await doc.run(endless);
    const id = await run.execution();
    await until(doc, () => (doc.executions.get(id)?.outputs.length ?? 0) > 0);
    await run.interrupt();
    expect((await run.ended()).error?.ename).toBe("KeyboardInterrupt");
    await expect(doc.interrupt(id)).rejects.toThrow(/refused/);
  });

  test("a question is answered, and what was typed is kept nowhere", async () => {
    const doc = await scene.live();
    const run = await doc.run("import getpass; len(getpass.getpass('pin '))");
    const id = await run.execution();
    const question = await until(doc, () => doc.executions.get(id)?.input);
    expect(question).toMatchObject({ prompt: "pin ", password: true });
    const told: string[] = [];
    doc.onChange(() => told.push(JSON.stringify([...doc.requests.values()])));
    await doc.answer(id, "s3cret-pin");
    expect((await run.ended()).outputs.at(-1)).toMatchObject({ data: { "text/plain": "10" } });
    expect(told.join()).not.toContain("s3cret");
    expect(dump(doc)).not.toContain("s3cret");
    await expect(doc.answer(id, "again")).rejects.toThrow(/refused/);
  });

  test("a run that waits is taken back", async () => {
    const doc = await scene.live();
    const first = await doc.run(endless);
    await until(doc, () => [...doc.executions.values()].some((row) => row.state === "running" && row.outputs.length > 0));
    const second = await doc.run("1");
    await second.cancel();
    await first.interrupt();
    expect((await first.ended()).state).toBe("error");
    await expect(second.ended().then((row) => row.state)).resolves.toBe("cancelled");
  });

  test("the kernel is asked without running a cell", async () => {
    const doc = await scene.live();
    const code = "from rtc_kernel.answering import answer\n@answer('double')\ndef double(n): return {'twice': 2 * n}";
    await (await doc.run(code)).ended();
    expect(await doc.query("double", 21)).toEqual({ twice: 42 });
    await expect(doc.query("no-such-target", null)).rejects.toThrow(RTCError);
  });

  test("a silent run leaves no execution", async () => {
    const doc = await scene.live();
    const row = await (await doc.run("quiet = 1", { silent: true })).ended();
    expect(row.state).toBe("ok");
    expect(doc.executions.has(row.id)).toBe(false);
  });

  test("what is asked for before the connection stands waits for it", async () => {
    const doc = scene.connect();
    expect(doc.status).toBe("connecting");
    const row = await (await doc.run("'early'")).ended();
    expect(row.outputs[0]).toMatchObject({ data: { "text/plain": "'early'" } });
  });
});

describe("reading", { timeout: LONG }, () => {
  test("the history comes in pages, newest first", async () => {
    const doc = await scene.live();
    for (const n of [1, 2, 3]) await (await doc.run(`'page ${n}'`)).ended();
    const first = await doc.transport.history({ limit: 2 });
    expect(first.executions.map((row) => row.code)).toEqual(["'page 3'", "'page 2'"]);
    const second = await doc.transport.history({ limit: 1, before: first.next ?? 0 });
    expect(second.executions.map((row) => row.code)).toEqual(["'page 1'"]);
    expect(second.executions[0]).toEqual(doc.executions.get(second.executions[0]?.id ?? ""));
    const brief = await doc.transport.history({ limit: 1, brief: true, state: "ok", text: "page 1" });
    expect(brief.executions[0]).toMatchObject({ code: "'page 1'", outputs: [] });
    const complete = async (): Promise<unknown> => (await doc.transport.complete("prin", 4)).matches;
    await expect.poll(complete, { timeout: LONG }).toContain("print"); // a kernel is waited for for some seconds
    await expect(doc.transport.history({ limit: 0 })).rejects.toThrow(/limit/);
    await expect(doc.transport.execution("no-such")).rejects.toMatchObject({ code: 404, final: false });
  });

  test("a large value is a reference, and its bytes come whole or in part", async () => {
    const doc = await scene.live();
    const row = await (await doc.run("'y' * 200_000")).ended();
    const output = row.outputs[0];
    const value = output?.output_type === "execute_result" ? output.data["text/plain"] : null;
    expect(value).toMatchObject({ bytes: 200_002 });
    const { blob } = value as { blob: string };
    const bytes = await doc.transport.blob(blob);
    expect(new TextDecoder().decode(bytes)).toBe(`'${"y".repeat(200_000)}'`);
    expect(await doc.transport.blob(blob, 200_000)).toEqual(bytes.subarray(200_000));
    expect(await doc.transport.blob(blob, 0, 3)).toEqual(bytes.subarray(0, 3));
    expect(doc.transport.blobUrl(blob)).toBeNull(); // our token is no cookie
    await expect(doc.transport.blob("sha256:none")).rejects.toThrow(RTCError);
  });

  test("marks say when the text had grown to where", async () => {
    const doc = await scene.live();
    const code = "import time\nfor n in range(3):\n    print(n, flush=True); time.sleep(0.2)";
    const ran = async (): Promise<{ row: Execution; marks: Mark[] }> => {
      const row = await (await doc.run(code)).ended();
      return { row, marks: await doc.transport.marks(row.id) };
    };
    let { row, marks } = await ran();
    while (marks.length < 2) ({ row, marks } = await ran()); // what a busy machine says at once has one time
    const [, chars, at] = marks[0] ?? [0, 0, 0];
    const before = executionAt(await doc.transport.execution(row.id), marks, at);
    expect(before).toMatchObject({ state: "running", finished_at: null });
    expect(before && text(before)).toBe("0\n1\n2\n".slice(0, chars));
  });
});

describe("links", { timeout: LONG }, () => {
  test("who may only look sees everything and asks for nothing", async () => {
    const doc = await scene.live(await scene.share("view", "eve"));
    expect(doc.role).toBe("view");
    expect(doc.requests.size).toBe(0);
    await expect(doc.run("1")).rejects.toThrow(/may only look/);
    expect((await doc.transport.history({ limit: 1 })).executions.length).toBe(1);
    await expect(doc.transport.history({ grep: "a" })).rejects.toMatchObject({ code: 403 });
  });

  test("a link that is withdrawn closes the document for good", async () => {
    const doc = await scene.live(await scene.share("run", "mallory"));
    const waiting = doc.waitFor(() => doc.executions.get("never"));
    const told = expect(waiting).rejects.toThrow(/withdrawn/);
    await scene.revoke("mallory");
    await until(doc, () => doc.status === "closed");
    expect(doc.failure?.remedy).toMatch(/%rtc share/);
    await told;
    await expect(doc.run("1")).rejects.toThrow(/withdrawn/);
  });

  test("a wrong token closes the document for good", async () => {
    const doc = scene.connect("wrong");
    await until(doc, () => doc.status === "closed");
    expect(doc.failure).toMatchObject({ final: true });
    expect(doc.failure?.message).toMatch(/token is missing, wrong or expired/);
  });

  test("a document that we closed is closed, without a failure", async () => {
    const doc = await scene.live();
    doc.close();
    expect([doc.status, doc.failure]).toEqual(["closed", null]);
    await expect(doc.run("1")).rejects.toThrow(/was closed/);
  });
});

describe("a connection that breaks", { timeout: LONG }, () => {
  /** Breaks the first connection of `requests` once, after the first update of ours. */
  class Breaking extends WebSocketTransport {
    rows = 0;
    broken = false;
    constructor(
      private readonly delivers: boolean,
      private readonly reports: boolean,
    ) {
      super({ url: scene.url, token: scene.token, WebSocket });
    }

    override connect(room: RoomName, epoch: string | null, events: ChannelEvents): Channel {
      if (room !== "requests" || this.broken) return this.counted(super.connect(room, epoch, events));
      let wrote = false;
      const channel = super.connect(room, epoch, {
        ...events,
        onMessage: (data) => {
          if (!wrote) events.onMessage(data);
          else if (this.reports) events.onMessage(data);
          if (wrote) cut();
        },
      });
      const cut = (): void => {
        if (this.broken) return;
        this.broken = true;
        channel.close();
        events.onClose(null);
      };
      const send = (data: Uint8Array): void => {
        const isRow = data[1] === 2;
        wrote ||= isRow;
        if (!isRow || this.delivers) channel.send(data);
        if (isRow && !this.delivers) queueMicrotask(cut);
      };
      return { ...this.counted({ send, close: () => channel.close() }) };
    }

    /** How many updates of rows went out. */
    private counted(channel: Channel): Channel {
      const send = (data: Uint8Array): void => {
        if (data[1] === 2) this.rows++;
        channel.send(data);
      };
      return { send, close: () => channel.close() };
    }
  }

  /** Holds back what comes of `state` after a new life began. */
  class Holding extends WebSocketTransport {
    private readonly messages: (() => void)[] = [];
    private holds = false;
    private tell: () => void = () => undefined;
    /** Until there is something that is held back. */
    readonly held = new Promise<void>((resolve) => (this.tell = resolve));

    override connect(room: RoomName, epoch: string | null, events: ChannelEvents): Channel {
      const onMessage = (data: Uint8Array): void => {
        if (!this.holds || room !== "state") return events.onMessage(data);
        this.messages.push(() => events.onMessage(data));
        this.tell();
      };
      const onClose = (code: number | null): void => {
        this.holds ||= room === "state" && code === 4409;
        events.onClose(code);
      };
      return super.connect(room, epoch, { ...events, onMessage, onClose });
    }

    release(): void {
      this.holds = false;
      for (const deliver of this.messages.splice(0)) deliver();
    }
  }

  for (const [name, delivers, reports] of [
    ["before a row has arrived", false, false],
    ["before it is acknowledged", true, false],
    ["after it was acknowledged", true, true],
  ] as const) {
    test(`${name}: the row runs once`, async () => {
      const transport = new Breaking(delivers, reports);
      const doc = connect(transport);
      await until(doc, () => doc.status === "live");
      const counter = `once_${delivers}_${reports}`;
      const run = await doc.run(`${counter} = globals().get("${counter}", 0) + 1; ${counter}`);
      const row = await run.ended();
      expect(row.outputs[0]).toMatchObject({ data: { "text/plain": "1" } });
      expect(transport.broken).toBe(true);
      const shown = await (await doc.run(counter)).ended();
      expect(shown.outputs[0]).toMatchObject({ data: { "text/plain": "1" } });
      expect([...doc.executions.values()].filter((one) => one.request === run.request)).toHaveLength(1);
      doc.close();
    });
  }

  test("what an earlier picture had is there while another life is synced", async () => {
    const transport = new Holding({ url: scene.url, token: scene.token, WebSocket });
    const doc = connect(transport);
    await until(doc, () => doc.status === "live");
    const kept = await (await doc.run("'kept'")).ended();
    await doc.clear();
    await until(doc, () => doc.status === "away");
    expect(doc.executions.get(kept.id)).toEqual(kept);
    expect(doc.trouble?.what).toMatch(/new life/);
    await transport.held;
    expect(doc.executions.get(kept.id)).toEqual(kept);
    transport.release();
    expect(doc.status).toBe("live");
    expect(doc.executions.has(kept.id)).toBe(false);
    doc.close();
  });
});

describe("an agent that dies", { timeout: LONG }, () => {
  /** Loses what is written into `requests`, until the connection is lost. */
  class Losing extends WebSocketTransport {
    loses = true;
    lost = 0;

    override connect(room: RoomName, epoch: string | null, events: ChannelEvents): Channel {
      const onClose = (code: number | null): void => {
        this.loses = false;
        events.onClose(code);
      };
      const channel = super.connect(room, epoch, { ...events, onClose });
      const send = (data: Uint8Array): void => {
        if (this.loses && data[1] === 2) this.lost++;
        else channel.send(data);
      };
      return { send, close: () => channel.close() };
    }
  }

  const shows = async (doc: LiveDocument, code: string): Promise<unknown> => {
    const [output] = (await (await doc.run(code)).ended()).outputs;
    return output?.output_type === "execute_result" ? output.data["text/plain"] : null;
  };

  test("what was not acknowledged is written again in its next life, and runs once", async () => {
    const transport = new Losing({ url: scene.url, token: scene.token, WebSocket });
    const doc = connect(transport);
    await until(doc, () => doc.status === "live" && doc.role === "own");
    const epoch = doc.meta?.epoch;
    const statuses: string[] = [];
    doc.onStatus(() => statuses.push(doc.status));
    const asked = doc.run("lost_once = globals().get('lost_once', 0) + 1", { id: "lost-once" });
    await until(doc, () => doc.requests.get("lost-once")?.by === null);
    await new Promise((resolve) => setImmediate(resolve)); // it is sent right behind
    expect(transport.lost).toBe(1);
    await scene.script.tell("kill_agent");
    const row = await (await asked).ended();
    expect(row).toMatchObject({ request: "lost-once", state: "ok" });
    await until(doc, () => doc.status === "live");
    expect(await shows(doc, "lost_once")).toBe("1");
    expect([...doc.executions.values()].filter((one) => one.request === "lost-once")).toHaveLength(1);
    expect([statuses.includes("away"), doc.meta?.epoch === epoch]).toEqual([true, false]);
    doc.close();
  });

  test("what waited is held, and runs once when it is released", async () => {
    const doc = await scene.live();
    const epoch = doc.meta?.epoch;
    const busy = await scene.execute("import time\nwhile True: time.sleep(0.01)");
    await until(doc, () => doc.executions.get(busy)?.state === "running");
    const run = await doc.run("held_once = globals().get('held_once', 0) + 1");
    await scene.script.tell("kill_agent");
    await until(doc, () => doc.meta?.epoch !== epoch && doc.requests.get(run.request)?.state === "held");
    await doc.interrupt(busy);
    await doc.release();
    expect((await run.ended()).state).toBe("ok");
    expect(await shows(doc, "held_once")).toBe("1");
  });
});

/** Everything that a document holds, whatever it is called. */
function dump(root: unknown): string {
  const seen = new Set<unknown>();
  const found: string[] = [];
  const walk = (value: unknown): void => {
    if (typeof value === "string") found.push(value);
    if (typeof value !== "object" || value === null || seen.has(value)) return;
    seen.add(value);
    if (value instanceof Map || value instanceof Set) for (const one of value) walk(one);
    if (value instanceof Uint8Array) found.push(new TextDecoder().decode(value));
    else for (const one of Object.values(value)) walk(one);
  };
  walk(root);
  return found.join("\n");
}
