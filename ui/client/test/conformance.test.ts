// What the Python side wrote, read by us: tests/vectors/README.md has the shapes.

import { readFileSync } from "node:fs";

import { describe, expect, test } from "vitest";
import * as Y from "yjs";

import { Connection } from "../src/connection.ts";
import { Desk } from "../src/desk.ts";
import { closeError, RTCError } from "../src/errors.ts";
import { type Execution, executionAt, type Health, LiveDocument, type Mark, times } from "../src/index.ts";
import { readMessage, writeStep1 } from "../src/messages.ts";
import { Replica } from "../src/replica.ts";
import { executionFromJson } from "../src/schema.ts";
import type { Channel, ChannelEvents, Transport } from "../src/transport.ts";

type Case = { [key: string]: unknown; name: string };

function read<Shape extends Case>(name: string): Shape[] {
  return JSON.parse(readFileSync(new URL(`../../../tests/vectors/${name}`, import.meta.url), "utf-8")) as Shape[];
}

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));
const hex = (data: Uint8Array): string => Buffer.from(data).toString("hex");

/** Without columns that are null: null and absent are the same. Bytes as the vectors have them. */
function bare(value: unknown): unknown {
  if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(bare);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, item]) => item !== null && item !== undefined);
  return Object.fromEntries(entries.map(([key, item]) => [key, bare(item)]));
}

type Records = { [table: string]: unknown };

interface DocumentCase extends Case {
  room: "state" | "requests";
  updates: string[];
  records: Records;
}

const by = (...keys: string[]): ((a: unknown, b: unknown) => number) => {
  return (a, b) => {
    for (const key of keys) {
      const [one, other] = [a, b].map((row) => (row as { [key: string]: string | number | null })[key] ?? Infinity);
      if (one !== undefined && other !== undefined && one !== other) return one < other ? -1 : 1;
    }
    return 0;
  };
};

/** What is in a `state` document, as the vectors have it. */
function stateRecords(replica: Replica | LiveDocument): Records {
  const kernels = replica instanceof Replica ? [...replica.kernels.values()] : [replica.kernel].filter(Boolean);
  const { gap, ...meta } = replica.meta ?? { gap: [] };
  return {
    meta: gap.length > 0 ? { ...meta, gap } : meta,
    kernels,
    executions: [...replica.executions.values()].sort(by("seq", "id")),
    comms: [...replica.comms.values()].sort(by("opened_at", "id")),
    cells: [...replica.cells],
    queries: [...replica.queries.values()].sort(by("asked_at", "id")),
  };
}

const requestRecords = (desk: Desk): unknown[] => [...desk.requests.values()].sort(by("ordinal", "id"));

describe("documents", () => {
  for (const { name, room, updates, records } of [
    ...read<DocumentCase>("python/documents.json"),
    ...read<DocumentCase>("typescript/documents.json"),
  ]) {
    test(name, () => {
      if (room === "requests") {
        const desk = new Desk(() => undefined);
        desk.open("e", () => undefined);
        for (const update of updates) desk.receive({ type: "update", update: bytes(update) });
        expect(bare(requestRecords(desk))).toEqual(bare(records["requests"]));
        return;
      }
      const once = new Replica("e");
      for (const update of updates) once.receive({ type: "update", update: bytes(update) });
      expect(bare(stateRecords(once))).toEqual(bare(records));
      // one that was shown before each update, so that every record is read again where it changed and only there
      const live = new Replica("e");
      live.receive({ type: "step2", update: bytes("0000") });
      for (const update of updates) {
        live.receive({ type: "update", update: bytes(update) });
        stateRecords(live);
      }
      expect(bare(stateRecords(live))).toEqual(bare(records));
    });
  }
});

interface Frame extends Case {
  hex: string;
  message?: { type: string; update?: string; clocks?: [number, number][]; reason?: string };
  close?: number;
}

describe("frames", () => {
  for (const frame of [...read<Frame>("frames.json"), ...read<Frame>("typescript/frames.json")]) {
    test(frame.name, () => {
      if (frame.message) {
        const message = readMessage(bytes(frame.hex));
        expect(message.type).toBe(frame.message.type);
        if (message.type === "step1") {
          const clocks = [...Y.decodeStateVector(message.vector)].sort(([a], [b]) => a - b);
          expect(clocks).toEqual([...(frame.message.clocks ?? [])].sort(([a], [b]) => a - b));
          expect(hex(writeStep1(message.vector))).toBe(frame.hex);
        }
        if ("update" in message && frame.message.update) expect(hex(message.update)).toBe(frame.message.update);
        if (message.type === "denied") expect(message.reason).toBe(frame.message.reason);
      }
    });
  }

  test("any bytes are a message or an error of ours", () => {
    for (const { hex: frame } of read<Frame>("frames.json")) {
      for (let end = 0; end < frame.length; end += 2) {
        try {
          readMessage(bytes(frame.slice(0, end)));
        } catch (error) {
          expect(error).toBeInstanceOf(RTCError);
        }
      }
    }
  });
});

interface MomentCase extends Case {
  execution: never;
  marks: Mark[];
  times: number[];
  moments: { at: number; execution: never }[];
}

describe("moments", () => {
  for (const { name, execution, marks, times: known, moments } of read<MomentCase>("python/moments.json")) {
    test(name, () => {
      const run = executionFromJson(execution);
      expect(times(run, marks)).toEqual(known);
      for (const { at, execution: was } of moments) {
        const found: Execution | null = executionAt(run, marks, at);
        expect(found, `at ${at}`).toEqual(was === null ? null : executionFromJson(was));
      }
    });
  }
});

interface SessionCase extends Case {
  room: "state" | "requests";
  role: "view" | "run" | "own";
  steps: { from: "client" | "server"; hex: string }[];
  close: number | null;
  records: Records | null;
}

/** A transport whose agent says what a session's server said. */
function replay({ room, role, steps, close, records }: SessionCase): { transport: Transport; sent: string[] } {
  const sent: string[] = [];
  const connectTo = (asked: string, epoch: string | null, events: ChannelEvents): Channel => {
    queueMicrotask(() => {
      if (asked !== room || epoch === null) return;
      events.onOpen();
      for (const step of steps) if (step.from === "server") events.onMessage(bytes(step.hex));
      if (close !== null) events.onClose(close);
    });
    return { send: (data) => sent.push(hex(data)), close: () => undefined };
  };
  let asked = 0;
  const stateRoom = (records?.["meta"] as { room?: string } | undefined)?.room ?? "k/state";
  const health = { room: stateRoom, epoch: "e", requests_epoch: "e", role, name: "ada" } as Health;
  const never = new Promise<never>(() => undefined);
  const transport = {
    connect: connectTo,
    health: () => (asked++ < 2 ? Promise.resolve(health) : never), // the first attempt of each room, and no other
    close: () => undefined,
  };
  return { transport: transport as unknown as Transport, sent };
}

describe("sessions", () => {
  for (const session of read<SessionCase>("python/sessions.json")) {
    test(session.name, async () => {
      const { transport, sent } = replay(session);
      if (session.room === "requests") {
        let ended: RTCError | null = null;
        const desk = new Desk(() => undefined);
        const room = Object.assign(Object.create(desk) as Desk, {
          lose: (error: RTCError) => (ended = error),
          fail: (error: RTCError) => (ended = error),
        });
        const connection = new Connection(transport, room);
        connection.start();
        await settle();
        connection.close();
        expect(ended).toEqual(session.close === null ? null : closeError(session.close));
        if (session.records) expect(bare(requestRecords(room))).toEqual(bare(session.records["requests"]));
        return;
      }
      const doc = new LiveDocument(transport, null);
      await settle();
      expect(sent[0]).toBe("00000100"); // step 1 of an empty replica
      const error = session.close === null ? null : closeError(session.close);
      expect([doc.failure ?? doc.trouble, doc.status === "closed"]).toEqual([error, error?.final ?? false]);
      if (session.records) {
        const { meta, ...tables } = stateRecords(doc);
        const { meta: known, ...others } = session.records;
        expect(bare(tables)).toEqual(bare(others));
        expect(meta).toMatchObject(known as object); // theirs has but some of the columns
      }
      doc.close();
    });
  }
});

/** Until all that follows by itself has happened. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
