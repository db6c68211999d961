/**
 * What does a Yjs client write? The TypeScript half of tests/vectors, made with Yjs, lib0 and y-protocols alone.
 *
 * Pure but for the awareness timer of y-protocols. Shapes: tests/vectors/README.md. Client ids and times are fixed, so
 * the same versions of the packages always give the same bytes.
 */

import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import { Awareness, encodeAwarenessUpdate } from "y-protocols/awareness";
import { writePermissionDenied } from "y-protocols/auth";
import { writeSyncStep1, writeSyncStep2, writeUpdate } from "y-protocols/sync";
import * as Y from "yjs";

type Value = null | boolean | number | string | Value[] | { [key: string]: Value };
type Row = { [column: string]: Value };

/** A document and the updates that a replica of it needs, as `python/documents.json` has them. */
export interface DocumentCase {
  name: string;
  room: string;
  updates: string[];
  records: { [table: string]: Value };
}

export interface RequestsCase {
  name: string;
  updates: string[];
  rows: { [id: string]: Value };
  refused: { [id: string]: string };
}

export interface FrameCase {
  name: string;
  hex: string;
  message: Row;
}

export interface SessionCase {
  name: string;
  room: string;
  steps: { hex: string; note: string }[];
  answers: string[];
}

export interface EchoCase {
  name: string;
  of: string;
  echoes: string[];
  whole: string;
  vector: [number, number][];
}

const AGENT = 1001;
const FRONT = 2002;
const READER = 4004;
const KERNEL = "5f0c2f1e-6d1c-4b0c-9d52-000000000001";
const NOW = 1_700_000_000;
const WIDE = "a\u0301 ÿ ﷽ 漢 👩‍👩‍👧‍👦 \u{10ffff} \ufeff\u2028";

const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const fromHex = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"));

function newDoc(clientID: number): Y.Doc {
  const doc = new Y.Doc();
  doc.clientID = clientID;
  return doc;
}

/** A document, and its updates as they come. */
function record(clientID: number): { doc: Y.Doc; updates: string[] } {
  const doc = newDoc(clientID);
  const updates: string[] = [];
  doc.on("update", (update: Uint8Array) => updates.push(toHex(update)));
  return { doc, updates };
}

// --- requests ------------------------------------------------------------------------------------------------

type Written = unknown;

function requestsCase(
  name: string,
  written: { [id: string]: Written }[],
  rows: { [id: string]: Value },
  refused: { [id: string]: string } = {},
): RequestsCase {
  const { doc, updates } = record(FRONT);
  const table = doc.getMap("requests");
  for (const batch of written) {
    doc.transact(() => {
      for (const [id, row] of Object.entries(batch)) table.set(id, row);
    });
  }
  return { name, updates, rows, refused };
}

const row = (columns: { [column: string]: Written }): Y.Map<Written> => new Y.Map(Object.entries(columns));
const xml = (): Y.XmlElement => new Y.XmlElement("p");

/** `typescript/requests.json` */
export function makeRequests(): RequestsCase[] {
  const plain: { [id: string]: Row } = {
    "r-execute": { action: "execute", code: `print("é😀")\n${WIDE}`, cell: "c/ü", notebook: null, created_at: NOW + 0.5 },
    "r-all": {
      action: "execute", code: "", cell: "c", notebook: "a/ü.ipynb", after: "r-execute", on_duplicate: "queue",
      stop_on_error: false, allow_stdin: false, silent: true, user_expressions: { x: "x", ü: "ü" },
    },
    "r-interrupt": { action: "interrupt", execution: "e1" },
    "r-restart": { action: "restart" },
    "r-cancel": { action: "cancel", request: "r-execute" },
    "r-release": { action: "release" },
    "r-query": { action: "query", target: "columns", input: { name: "df", n: [1, -1, 0.5, 2 ** 31, 2 ** 53 - 1, null] } },
    "r-annotate": { action: "annotate", execution: "e1", key: "stars", value: { n: 5, ü: [true, false, "", WIDE] } },
    "r-input": { action: "input", execution: "e1", value: "hunter2", since: NOW + 0.25 },
  };
  const maps = Object.fromEntries(Object.entries(plain).map(([id, columns]) => [id, row(columns)]));
  const expressions = new Y.Map(Object.entries({ x: "x" }));
  return [
    requestsCase("a row of each action", [maps], plain),
    requestsCase(
      "rows in several updates keep their order",
      [{ "r-b": row({ action: "restart" }), "r-a": row({ action: "interrupt" }) }, { "r-c": row({ action: "release" }) }],
      { "r-b": { action: "restart" }, "r-a": { action: "interrupt" }, "r-c": { action: "release" } },
    ),
    requestsCase(
      "values that are Yjs types, plain objects, undefined or big",
      [
        {
          "r-text": row({ action: "execute", code: new Y.Text("1 + é😀"), user_expressions: expressions }),
          "r-array": row({ action: "query", target: "t", input: Y.Array.from([1, "é"]) }),
          "r-object": { action: "execute", code: "1" },
          "r-undefined": row({ action: "execute", code: "1", cell: undefined }),
          "r-big": row({ action: "query", target: "t", input: [5n, -7n] }),
        },
      ],
      {
        "r-text": { action: "execute", code: "1 + é😀", user_expressions: { x: "x" } },
        "r-array": { action: "query", target: "t", input: [1, "é"] },
        "r-object": { action: "execute", code: "1" },
        "r-undefined": { action: "execute", code: "1" },
        "r-big": { action: "query", target: "t", input: [5, -7] },
      },
    ),
    requestsCase(
      "a lone surrogate has become U+FFFD on the way",
      [{ "r-1": row({ action: "execute", code: "lone \ud83d." }) }],
      { "r-1": { action: "execute", code: "lone \ufffd." } },
    ),
    requestsCase(
      "rows that must be refused, and the column that is named",
      [
        {
          "r-none": row({}),
          "r-unknown": row({ action: "explode" }),
          "r-missing": row({ action: "execute" }),
          "r-type": row({ action: "execute", code: 5 }),
          "r-nul": row({ action: "execute", code: "a\0b" }),
          "r-extra": row({ action: "restart", speed: 1 }),
          "r-ours": row({ action: "restart", by: "root" }),
          "r-state": row({ action: "execute", code: "1", state: "done" }),
          "r-word": row({ action: "execute", code: "1", on_duplicate: "twice" }),
          "r-flag": row({ action: "execute", code: "1", silent: 0 }),
          "r-bytes": row({ action: "annotate", execution: "e", key: "k", value: new Uint8Array([0, 255]) }),
          "r-nan": row({ action: "annotate", execution: "e", key: "k", value: [Number.NaN] }),
          "r-own": row({ action: "annotate", execution: "e", key: "rtc_gap", value: 1 }),
          "r-clear": row({ action: "clear" }),
          "r-number": 5,
          "r-list": Y.Array.from(["execute"]),
          "r-xml": xml(),
          [`r-${"x".repeat(127)}`]: row({ action: "restart" }),
        },
      ],
      {
        "r-none": {}, "r-unknown": { action: "explode" }, "r-missing": { action: "execute" },
        "r-type": { action: "execute", code: 5 }, "r-nul": { action: "execute", code: "a\0b" },
        "r-extra": { action: "restart", speed: 1 }, "r-ours": { action: "restart", by: "root" },
        "r-state": { action: "execute", code: "1", state: "done" },
        "r-word": { action: "execute", code: "1", on_duplicate: "twice" },
        "r-flag": { action: "execute", code: "1", silent: 0 },
        "r-bytes": { action: "annotate", execution: "e", key: "k", value: { base64: "AP8=" } },
        "r-nan": { action: "annotate", execution: "e", key: "k", value: [null] },
        "r-own": { action: "annotate", execution: "e", key: "rtc_gap", value: 1 },
        "r-clear": { action: "clear" }, "r-number": 5, "r-list": null, "r-xml": null,
        [`r-${"x".repeat(127)}`]: { action: "restart" },
      },
      {
        "r-none": "action", "r-unknown": "action", "r-missing": "code", "r-type": "code", "r-nul": "code",
        "r-extra": "speed", "r-ours": "by", "r-state": "state", "r-word": "on_duplicate", "r-flag": "silent",
        "r-bytes": "value", "r-nan": "value", "r-own": "key", "r-clear": "action", "r-number": "row", "r-list": "row",
        "r-xml": "row", [`r-${"x".repeat(127)}`]: "request_id",
      },
    ),
  ];
}

// --- documents -----------------------------------------------------------------------------------------------

const META: Row = {
  schema: 1, epoch: "0000000000000001", room: `${KERNEL}/state`, created_at: NOW,
  server: { name: "rtc_kernel", version: "0.1.0" }, health: { status: "ok", reason: null }, coverage: "full",
};
const KERNEL_ROW: Row = {
  name: "rtc-python", display_name: "RTC Python", language: "python", state: "busy", generation: 0, host: "machine",
  started_at: NOW, last_activity_at: NOW + 0.5,
};
const EXECUTION: Row = {
  seq: 1, kernel: KERNEL, generation: 0, code: "…", submitted_by: "ada", client: "s", queued_at: NOW,
  started_at: NOW + 0.25, state: "running", private: false,
};

/** A row of `executions` as it lies in the document, with its outputs and metadata. */
function executionMap(columns: Row, outputs: Y.Map<unknown>[], metadata: Row = {}): Y.Map<unknown> {
  return row({ ...columns, metadata: row(metadata), outputs: Y.Array.from(outputs) });
}

function streamMap(segments: string[], columns: Row = {}): Y.Map<unknown> {
  const text = Y.Array.from(segments.map((segment) => new Y.Text(segment)));
  return row({ output_type: "stream", at: NOW + 1, name: "stdout", ...columns, text });
}

function stateCase(name: string, write: (doc: Y.Doc, step: (change: () => void) => void) => { [table: string]: Value }): DocumentCase {
  const { doc, updates } = record(AGENT);
  const step = (change: () => void): void => doc.transact(change);
  step(() => {
    for (const [column, value] of Object.entries(META)) doc.getMap("meta").set(column, value);
    doc.getMap("kernels").set(KERNEL, row(KERNEL_ROW));
  });
  const records = write(doc, step);
  const empty = { executions: [], comms: [], cells: [], queries: [] };
  return {
    name,
    room: "state",
    updates,
    records: { meta: META, kernels: [{ id: KERNEL, ...KERNEL_ROW }], ...empty, ...records },
  };
}

/** `typescript/documents.json` */
export function makeDocuments(): DocumentCase[] {
  return [
    stateCase("every type of output, and integers as integers", (doc, step) => {
      const data = {
        "text/plain": WIDE,
        "application/json": { n: [0, 1, -1, 63, 64, 2 ** 31, -(2 ** 31), 2 ** 53 - 1, 0.5, 1e300], ü: { deep: [null, true, {}] } },
      };
      const result: Row = { output_type: "execute_result", at: NOW + 3, data: { "text/plain": "42" }, metadata: {}, execution_count: 7 };
      const failure: Row = { output_type: "error", at: NOW + 4, ename: "E", evalue: "é", traceback: ["\u001b[31ma", ""] };
      const display: Row = { output_type: "display_data", at: NOW + 2, data, metadata: { isolated: true }, display_id: "d" };
      step(() => {
        const outputs = [streamMap(["out\n", "é😀\n"]), row(display), row(result), row(failure)];
        doc.getMap("executions").set("e1", executionMap({ ...EXECUTION, cell: "c-1", execution_count: 7 }, outputs, { stars: 5 }));
      });
      const stream = { output_type: "stream", at: NOW + 1, name: "stdout", text: "out\né😀\n" };
      return {
        executions: [
          { id: "e1", ...EXECUTION, cell: "c-1", execution_count: 7, metadata: { stars: 5 }, outputs: [stream, display, result, failure] },
        ],
      };
    }),
    stateCase("text that is inserted and deleted in the middle, between characters of several code units", (doc, step) => {
      step(() => doc.getMap("executions").set("e1", executionMap(EXECUTION, [streamMap(["a😀b😀c"])])));
      const outputs = (doc.getMap("executions").get("e1") as Y.Map<unknown>).get("outputs") as Y.Array<Y.Map<unknown>>;
      const segments = outputs.get(0).get("text") as Y.Array<Y.Text>;
      step(() => segments.get(0).insert(3, "é漢"));
      step(() => segments.get(0).delete(5, 1));
      step(() => segments.push([new Y.Text("zwei"), new Y.Text("drei")]));
      step(() => segments.delete(1, 1));
      step(() => segments.get(1).applyDelta([{ retain: 4 }, { insert: "!" }]));
      const text = "a😀é漢😀cdrei!";
      return { executions: [{ id: "e1", ...EXECUTION, metadata: {}, outputs: [{ output_type: "stream", at: NOW + 1, name: "stdout", text }] }] };
    }),
    stateCase("what is left out, with its index in code points", (doc, step) => {
      const gap = { omitted_bytes: 1000, omitted_segment: 2 };
      const columns = { ...EXECUTION, omitted_outputs: 10, omitted_code_bytes: 3 };
      const late: Row = { output_type: "display_data", at: NOW + 2, data: { "text/plain": "late" }, metadata: {} };
      step(() => {
        doc.getMap("executions").set("e1", executionMap(columns, [streamMap(["😀é\n", "👩‍👧", "tail"], gap), row(late)]));
      });
      const head = "😀é\n👩‍👧";
      const stream = { output_type: "stream", at: NOW + 1, name: "stdout", text: `${head}tail`, ...gap, omitted_index: [...head].length };
      return { executions: [{ id: "e1", ...columns, metadata: {}, outputs: [stream, late] }] };
    }),
    stateCase("comms with bytes, cells and questions", (doc, step) => {
      const widget: Row = { target: "jupyter.widget", kernel: KERNEL, execution: "e1", opened_by: "kernel", opened_at: NOW };
      const other: Row = { target: "t", kernel: KERNEL, opened_by: "front", opened_at: NOW + 1, closed_at: NOW + 2 };
      const message = { way: "kernel", at: NOW + 1.5, data: { é: [1, null] } };
      const cells: Row[] = [
        { id: "b", index: 0, cell_type: "markdown", source: "# é", notebook: "n.ipynb" },
        { id: "a", index: 1, cell_type: "code", source: "", notebook: "n.ipynb" },
      ];
      const query: Row = {
        target: "columns", input: "df", state: "done", result: ["a", { b: null }], comm: "k", asked_by: "ada",
        asked_at: NOW, answered_at: NOW + 1,
      };
      step(() => {
        const state = { value: new Uint8Array([0, 255]), nested: { b: [new Uint8Array(0)] }, n: 1 };
        doc.getMap("comms").set("w", row({ ...widget, state: row(state), messages: new Y.Array() }));
        doc.getMap("comms").set("t", row({ ...other, state: new Y.Map(), messages: Y.Array.from([message]) }));
        for (const { id, ...cell } of cells) doc.getMap("cells").set(id as string, row(cell));
        doc.getMap("queries").set("q", row(query));
      });
      const state = { value: { base64: "AP8=" }, nested: { b: [{ base64: "" }] }, n: 1 };
      return {
        comms: [
          { id: "w", ...widget, state, messages: [] },
          { id: "t", ...other, state: {}, messages: [message] },
        ],
        cells,
        queries: [{ id: "q", ...query }],
      };
    }),
    stateCase("columns that are null, absent, set again, or of a later version", (doc, step) => {
      const { metadata: _, ...columns } = { ...EXECUTION, metadata: 0 };
      step(() => {
        const display = row({ output_type: "display_data", at: NOW, data: {}, metadata: {}, display_id: undefined, mood: 1 });
        doc.getMap("executions").set("e1", executionMap({ ...columns, cell: null }, [display]));
        doc.getMap("galaxies").set("milky way", row({ stars: 1e11 }));
      });
      const execution = doc.getMap("executions").get("e1") as Y.Map<unknown>;
      step(() => execution.set("mood", { good: true }));
      step(() => execution.set("state", "ok"));
      step(() => execution.set("finished_at", NOW + 9));
      step(() => execution.set("state", "ok"));
      const display = { output_type: "display_data", at: NOW, data: {}, metadata: {} };
      return { executions: [{ id: "e1", ...columns, state: "ok", finished_at: NOW + 9, metadata: {}, outputs: [display] }] };
    }),
  ];
}

// --- frames --------------------------------------------------------------------------------------------------

const SYNC = 0;
const AWARENESS = 1;
const AUTH = 2;
const QUERY_AWARENESS = 3;

/** One message, as y-websocket frames it. */
function frame(type: number, write: (encoder: encoding.Encoder) => void): string {
  const encoder = encoding.createEncoder();
  encoding.writeVarUint(encoder, type);
  write(encoder);
  return toHex(encoding.toUint8Array(encoder));
}

/** The awareness of these clients, as y-protocols says it: `[client, clock, state]`. */
function awarenessFrame(entries: [number, number, Value][]): string {
  const awareness = new Awareness(newDoc(1));
  awareness.setLocalState(null);
  for (const [client, clock, state] of entries) {
    awareness.meta.set(client, { clock, lastUpdated: 0 });
    if (state !== null) awareness.states.set(client, state as { [key: string]: unknown });
  }
  const update = encodeAwarenessUpdate(awareness, entries.map(([client]) => client));
  awareness.destroy();
  return frame(AWARENESS, (encoder) => encoding.writeVarUint8Array(encoder, update));
}

/** A document of several clients, some of them with ids of 53 bits. */
function severalClients(): Y.Doc {
  const doc = newDoc(FRONT);
  for (const client of [1, 127, 128, 2 ** 32 - 1, 2 ** 53 - 1]) {
    const other = newDoc(client);
    other.getMap("requests").set(`r-${client}`, "é😀");
    Y.applyUpdate(doc, Y.encodeStateAsUpdate(other));
  }
  return doc;
}

function clocksOf(doc: Y.Doc): [number, number][] {
  const decoder = decoding.createDecoder(Y.encodeStateVector(doc));
  const count = decoding.readVarUint(decoder);
  return Array.from({ length: count }, () => [decoding.readVarUint(decoder), decoding.readVarUint(decoder)]);
}

/** `typescript/frames.json` */
export function makeFrames(): FrameCase[] {
  const empty = newDoc(FRONT);
  const several = severalClients();
  const whole = Y.encodeStateAsUpdate(several);
  const people: [number, number, Value][] = [[FRONT, 1, { user: { name: "Ada é😀" }, viewing: null }], [2 ** 53 - 1, 300, {}]];
  const entries = people.map(([client, clock, state]) => [client, clock, JSON.stringify(state)]);
  return [
    { name: "step 1, empty", hex: frame(SYNC, (e) => writeSyncStep1(e, empty)), message: { type: "step1", clocks: [] } },
    { name: "step 1, several clients", hex: frame(SYNC, (e) => writeSyncStep1(e, several)), message: { type: "step1", clocks: clocksOf(several) } },
    { name: "step 2, empty", hex: frame(SYNC, (e) => writeSyncStep2(e, empty)), message: { type: "step2", update: "0000" } },
    { name: "step 2", hex: frame(SYNC, (e) => writeSyncStep2(e, several)), message: { type: "step2", update: toHex(whole) } },
    { name: "update", hex: frame(SYNC, (e) => writeUpdate(e, whole)), message: { type: "update", update: toHex(whole) } },
    { name: "awareness", hex: awarenessFrame(people), message: { type: "awareness", entries } },
    { name: "awareness of one that goes", hex: awarenessFrame([[FRONT, 2, null]]), message: { type: "awareness", entries: [[FRONT, 2, "null"]] } },
    { name: "awareness without entries", hex: awarenessFrame([]), message: { type: "awareness", entries: [] } },
    { name: "permission denied", hex: frame(AUTH, (e) => writePermissionDenied(e, "nö 😀")), message: { type: "denied", reason: "nö 😀" } },
    { name: "query awareness", hex: frame(QUERY_AWARENESS, () => undefined), message: { type: "query" } },
  ];
}

// --- sessions ------------------------------------------------------------------------------------------------

/** `typescript/sessions.json` */
export function makeSessions(): SessionCase[] {
  const empty = newDoc(FRONT);
  const hello = { hex: frame(SYNC, (e) => writeSyncStep1(e, empty)), note: "step 1" };
  const nothing = { hex: frame(SYNC, (e) => writeSyncStep2(e, empty)), note: "step 2 with nothing" };
  const there = { hex: awarenessFrame([[FRONT, 1, { user: { name: "Ada é😀" } }]]), note: "it announces itself" };
  const gone = { hex: awarenessFrame([[FRONT, 2, null]]), note: "it goes" };
  const who = { hex: frame(QUERY_AWARENESS, () => undefined), note: "query awareness" };
  const { doc, updates } = record(FRONT);
  doc.getMap("requests").set("r-1", row({ action: "execute", code: "1 + é😀" }));
  doc.getMap("requests").set("r-2", row({ action: "restart" }));
  const [first, second] = updates.map((update) => ({ hex: frame(SYNC, (e) => writeUpdate(e, fromHex(update))), note: "a row" }));
  if (first === undefined || second === undefined) throw new Error("two updates were written");
  const knowing = { hex: frame(SYNC, (e) => writeSyncStep1(e, doc)), note: "step 1 with what it wrote" };
  const all = { hex: frame(SYNC, (e) => writeSyncStep2(e, doc)), note: "step 2 with what it wrote" };
  return [
    {
      name: "y-websocket in state: step 1 and awareness, then a question, then it leaves",
      room: "state",
      steps: [hello, there, nothing, who, gone],
      answers: ["step2", "awareness", "awareness", "awareness"],
    },
    {
      name: "y-websocket in requests: rows while it is connected",
      room: "requests",
      steps: [hello, nothing, there, first, second, second],
      answers: ["step2", "step1", "awareness", "update", "update", "update", "update"],
    },
    {
      name: "y-websocket in requests: rows that were written while it was away",
      room: "requests",
      steps: [knowing, all],
      answers: ["step2", "step1", "update", "update"],
    },
    {
      name: "an update that came before the one that it rests on is passed over; step 2 has both",
      room: "requests",
      steps: [hello, second, all],
      answers: ["step2", "step1", "update", "update"],
    },
  ];
}

// --- echoes --------------------------------------------------------------------------------------------------

/** `typescript/echoes.json`, of `python/documents.json`. */
export function makeEchoes(documents: readonly { name: string; updates: string[] }[]): EchoCase[] {
  return documents.map(({ name, updates }) => {
    const { doc, updates: echoes } = record(READER);
    for (const update of updates) Y.applyUpdate(doc, fromHex(update));
    const vector = clocksOf(doc).sort(([one], [other]) => one - other);
    return { name: `what Yjs says of: ${name}`, of: name, echoes, whole: toHex(Y.encodeStateAsUpdate(doc)), vector };
  });
}
