// The client at a real relay, where a real agent publishes.

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";

import { connect, hasEnded, type LiveDocument, RelayTransport, Room, RTCError } from "../src/index.ts";
import { LONG, Scene, until } from "./agent.ts";

const RELAY = fileURLToPath(new URL("../../../examples/relay", import.meta.url));
const NODE = join(RELAY, "node_modules", ".bin", "node");
const TOKENS = {
  "publish-0123456789abcdef": { name: "kernels", role: "publish", rooms: "*" },
  "run-0123456789abcdef": { name: "ada", role: "run", rooms: "*" },
  "view-0123456789abcdef": { name: "viewers", role: "view", rooms: "*" },
};
const isThere = existsSync(NODE) && existsSync(join(RELAY, "node_modules", "@hocuspocus", "server"));

describe.skipIf(!isThere)("at a relay", { timeout: LONG }, () => {
  let relay: ChildProcess;
  let scene: Scene;
  let url: string;
  const open: LiveDocument[] = [];

  beforeAll(async () => {
    const tokens = join(mkdtempSync(join(tmpdir(), "rtc-relay-")), "tokens.json");
    writeFileSync(tokens, JSON.stringify(TOKENS));
    relay = spawn(NODE, [join(RELAY, "server.mjs"), "--tokens", tokens, "--port", "0"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    url = await new Promise((resolve) => {
      relay.stdout?.on("data", (data) => resolve(String(data).replace("relay", "").trim()));
    });
    process.env["RTC_KERNEL_RELAY_TOKEN"] = "publish-0123456789abcdef";
    process.env["RTC_KERNEL_RELAYS"] = url;
    process.env["RTC_KERNEL_RELAY_ROOM"] = "typed";
    process.env["RTC_KERNEL_RELAY_ROLE"] = "run";
    scene = await Scene.start();
  }, LONG);
  afterEach(() => {
    for (const doc of open.splice(0)) {
      doc.close();
      doc.transport.close();
    }
  });
  afterAll(async () => {
    await scene.stop();
    relay.kill();
  }, LONG);

  function follow(token: string, link = `${url}/typed`): LiveDocument {
    const doc = connect(new RelayTransport({ url: link, token, WebSocket }));
    open.push(doc);
    return doc;
  }

  test("what runs is seen as it goes on, in a new life of the document too", async () => {
    const doc = follow("view-0123456789abcdef");
    await until(doc, () => doc.status === "live");
    expect(doc.role).toBe("view");
    expect(doc.kernel).toMatchObject({ id: doc.kernelId, language: "python" });
    const id = await scene.execute("print('far'); 6 * 7");
    const row = await until(doc, () => {
      const found = doc.executions.get(id);
      return found && hasEnded(found) && found;
    });
    expect(row.outputs).toMatchObject([{ text: "far\n" }, { data: { "text/plain": "42" } }]);
    const epoch = doc.health?.epoch;
    await scene.execute("%rtc clear");
    await until(doc, () => doc.status === "live" && doc.health?.epoch !== epoch && !doc.executions.has(id));
    await expect(doc.transport.history({})).rejects.toThrow("only the live document");
  });

  test("who may run code does so in the name that the relay knows", async () => {
    const doc = follow("run-0123456789abcdef");
    await until(doc, () => doc.status === "live");
    expect(doc.role).toBe("run");
    const ended = await (await doc.run("6 * 7")).ended();
    expect(ended).toMatchObject({ state: "ok", outputs: [{ data: { "text/plain": "42" } }] });
    expect(ended.submitted_by).toMatch(/^relay:.+\/ada$/);
  });

  test("a room has all its kernels over one connection, and asks where it is told to", async () => {
    const room = new Room({ url: `${url}/typed`, token: "run-0123456789abcdef", WebSocket });
    try {
      await expect.poll(() => room.members.size, { timeout: LONG }).toBe(1);
      const [member] = room.members.values();
      const doc = member?.doc as LiveDocument;
      await until(doc, () => doc.status === "live");
      expect([room.status, member?.row.language, member?.hasLeft, doc.role]).toEqual(["live", "python", false, "view"]);
      room.ask(doc.kernelId);
      await until(doc, () => doc.status === "live" && doc.role === "run");
      expect(await (await doc.run("2 * 3")).ended()).toMatchObject({ state: "ok" });
    } finally {
      room.close();
    }
    const stranger = new Room({ url: `${url}/typed`, token: "nobody", WebSocket });
    await expect.poll(() => stranger.status, { timeout: LONG }).toBe("closed");
    expect(stranger.failure?.what).toContain("the relay refuses");
  });

  test("who has no token for the room is told, and so is who asks for what is not there", async () => {
    const stranger = follow("nobody");
    await until(stranger, () => stranger.status === "closed");
    expect(stranger.failure?.what).toContain("the relay refuses");
    const empty = follow("view-0123456789abcdef", `${url}/empty`);
    await until(empty, () => empty.trouble?.what.includes("no kernel is published"));
    expect(() => new RelayTransport({ url: "http://h/r", WebSocket })).toThrow(RTCError);
    expect(() => new RelayTransport({ url, WebSocket })).toThrow("names no room");
  });
});
