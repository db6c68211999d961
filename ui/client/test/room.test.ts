// A room of hundreds, at a relay that is the test.

import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { afterEach, expect, test } from "vitest";
import * as Y from "yjs";

import { Room } from "../src/index.ts";

const index = new Y.Doc();
const rooms: Room[] = [];
const sockets: Socket[] = [];

/** The relay's end too: it lets in to the index, and remembers who asks for what. */
class Socket {
  binaryType = "";
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((event: unknown) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  readonly asked: string[] = [];

  constructor() {
    sockets.push(this);
    queueMicrotask(() => this.onopen?.({}));
  }

  send(data: Uint8Array): void {
    const decoder = decoding.createDecoder(data);
    const name = decoding.readVarString(decoder);
    const kind = decoding.readVarUint(decoder);
    if (kind === 2 && name !== "crowd/index") this.asked.push(name);
    else if (kind === 2) this.grant(name);
    else if (kind === 0) {
      this.say(name, (encoder) => {
        encoding.writeVarUint(encoder, 0);
        encoding.writeVarUint(encoder, 1);
        encoding.writeVarUint8Array(encoder, Y.encodeStateAsUpdate(name === "crowd/index" ? index : new Y.Doc()));
      });
    }
  }

  grant(name: string): void {
    this.say(name, (encoder) => {
      encoding.writeVarUint(encoder, 2);
      encoding.writeVarUint(encoder, 2);
      encoding.writeVarString(encoder, "readonly");
    });
  }

  close(): void {
    this.onclose?.({});
  }

  private say(name: string, body: (encoder: encoding.Encoder) => void): void {
    const encoder = encoding.createEncoder();
    encoding.writeVarString(encoder, name);
    body(encoder);
    const data = encoding.toUint8Array(encoder).slice().buffer;
    queueMicrotask(() => this.onmessage?.({ data }));
  }
}

function put(kernel: string): void {
  index.getMap("kernels").set(kernel, { state: `crowd/${kernel}/state/e`, requests: null, client: 5, schema: 1 });
}

function open(limit?: number): Room {
  const options = { url: "ws://h/crowd", token: "t", WebSocket: Socket };
  const room = new Room(limit === undefined ? options : { ...options, limit });
  rooms.push(room);
  return room;
}

afterEach(() => {
  for (const room of rooms.splice(0)) room.close();
  sockets.length = 0;
});

test("all documents come over one connection, and no more than some are asked for at a time", async () => {
  for (let number = 0; number < 250; number++) put(`k-${number}`);
  const room = open();
  await expect.poll(() => room.members.size).toBe(250);
  const [socket] = sockets;
  if (!socket) throw new Error("there is no connection");
  await expect.poll(() => socket.asked.length).toBe(32); // Hocuspocus closes on who waits for a hundred
  for (let granted = 0; granted < 250; granted++) {
    await expect.poll(() => socket.asked.length).toBeGreaterThan(granted);
    expect(socket.asked.length).toBeLessThanOrEqual(granted + 32);
    socket.grant(socket.asked[granted] ?? "");
  }
  await expect.poll(() => [...room.members.values()].every(({ doc }) => doc.status === "live")).toBe(true);
  expect(sockets.length).toBe(1);
});

test("who is too many is counted, and who leaves keeps the last picture", async () => {
  const room = open(2);
  await expect.poll(() => room.members.size).toBe(2);
  expect(room.omittedCount).toBe(index.getMap("kernels").size - 2);
  const [member] = room.members.values();
  index.getMap("kernels").delete(member?.id ?? "");
  sockets[0]?.close();
  await expect.poll(() => room.members.get(member?.id ?? "")?.hasLeft, { timeout: 30_000 }).toBe(true);
  expect([room.status, member?.doc.status, sockets.length]).toEqual(["live", "closed", 2]);
});
