/**
 * What does a row say?
 *
 * Pure: Y types or JSON in, records out. It is the one place that knows how columns are encoded: integers that came as
 * floats, columns that are absent instead of null, text that lies in segments. Unknown columns are ignored, and what
 * is of a wrong type counts as absent: a later agent may know more than we do.
 */

import * as Y from "yjs";

import type {
  Cell,
  Comm,
  Display,
  Execution,
  ExecutionState,
  Failure,
  Gap,
  Json,
  JsonObject,
  Kernel,
  Meta,
  Output,
  Query,
  Question,
  Request,
  Stream,
} from "./records.ts";

export type Row = Y.Map<unknown>;

/** The columns of a row by their names, whatever they lie in. */
type Columns = (name: string) => unknown;

const SEGMENTS = new WeakMap<Output, readonly string[]>();

/** The segments of a stream that was read from a live document; null of any other output. */
export function segmentsOf(output: Output | undefined): readonly string[] | null {
  return (output && SEGMENTS.get(output)) ?? null;
}

// --- rows of `state`

/**
 * A row of `executions`.
 *
 * @param known the row as it was read before: its outputs stand, except those at the positions in `changed` and those
 *   that came behind them since.
 */
export function readExecution(
  id: string,
  row: Row,
  known: Execution | null = null,
  changed: ReadonlySet<number> | null = null,
): Execution {
  const items = row.get("outputs");
  const outputs: Output[] = [];
  if (items instanceof Y.Array) {
    items.forEach((item: unknown, position: number) => {
      const before = changed?.has(position) ? undefined : known?.outputs[position];
      outputs.push(before ?? readOutput(item));
    });
  }
  return execution(id, of(row), outputs);
}

function readOutput(item: unknown): Output {
  const columns = item instanceof Y.Map ? of(item as Row) : ofObject(item);
  const segments = columns("text");
  return output(columns, segments instanceof Y.Array ? segments.toArray().map(String) : [text(segments)], true);
}

export function readKernel(id: string, row: Row): Kernel {
  return kernel(id, of(row));
}

export function readMeta(root: Row): Meta | null {
  if (root.size === 0) return null;
  const columns = of(root);
  const server = ofObject(columns("server"));
  const health = ofObject(columns("health"));
  const gap = columns("gap");
  return {
    schema: int(columns("schema")) ?? 0,
    epoch: text(columns("epoch")),
    room: text(columns("room")),
    created_at: number(columns("created_at")) ?? 0,
    server: { name: text(server("name")), version: text(server("version")) },
    health: { status: word(health("status"), "ok"), reason: optionalText(health("reason")) },
    coverage: word(columns("coverage"), "full"),
    gap: Array.isArray(gap) ? gap.map(readGap) : [],
  };
}

function readGap(value: unknown): Gap {
  const columns = ofObject(value);
  return {
    since: number(columns("since")),
    until: number(columns("until")),
    message_count: int(columns("message_count")) ?? 0,
    size_bytes: int(columns("size_bytes")) ?? 0,
  };
}

export function readCell(id: string, row: Row): Cell {
  const columns = of(row);
  return {
    id,
    index: int(columns("index")) ?? 0,
    cell_type: word(columns("cell_type"), "code"),
    source: text(columns("source")),
    notebook: text(columns("notebook")),
  };
}

export function readComm(id: string, row: Row): Comm {
  const columns = of(row);
  const messages = plain(columns("messages"));
  return {
    id,
    target: text(columns("target")),
    kernel: text(columns("kernel")),
    execution: optionalText(columns("execution")),
    opened_by: word(columns("opened_by"), "kernel"),
    opened_at: number(columns("opened_at")) ?? 0,
    closed_at: number(columns("closed_at")),
    state: object(columns("state")),
    messages: Array.isArray(messages) ? (messages as Comm["messages"]) : [],
  };
}

export function readQuery(id: string, row: Row): Query {
  const columns = of(row);
  return {
    id,
    target: text(columns("target")),
    input: plain(columns("input")),
    state: word(columns("state"), "to_process"),
    result: plain(columns("result")),
    error: optionalText(columns("error")),
    comm: optionalText(columns("comm")),
    asked_by: text(columns("asked_by")),
    asked_at: number(columns("asked_at")),
    answered_at: number(columns("answered_at")),
  };
}

// --- rows of `requests`

const AGENTS = new Set(["action", "by", "ordinal", "received_at", "state", "reason", "created_at", "query"]);

/** A row of `requests`; `by` and `state` are null until the agent has taken it. What was typed is never read. */
export function readRequest(id: string, row: unknown): Request {
  const columns = row instanceof Y.Map ? of(row as Row) : ofObject(row);
  const action = text(columns("action"));
  const own: JsonObject = {};
  for (const [name, value] of row instanceof Y.Map ? (row as Row).entries() : []) {
    const isAgents = AGENTS.has(name) || (name === "execution" && action === "execute");
    if (!isAgents && !(name === "value" && action === "input")) own[name] = plain(value);
  }
  return {
    id,
    action,
    by: optionalText(columns("by")),
    state: columns("by") === undefined ? null : word(columns("state"), "requested"),
    ordinal: int(columns("ordinal")),
    received_at: number(columns("received_at")),
    execution: action === "execute" ? optionalText(columns("execution")) : null,
    query: optionalText(columns("query")),
    reason: optionalText(columns("reason")),
    columns: own,
  };
}

// --- records of the HTTP API

/** An execution as `/api/history` and `/api/executions/ID` give it. */
export function executionFromJson(value: Json): Execution {
  const columns = ofObject(value);
  const outputs = columns("outputs");
  const read = Array.isArray(outputs) ? outputs.map((one) => outputFromJson(one)) : [];
  return execution(text(columns("id")), columns, read);
}

function outputFromJson(value: Json): Output {
  const columns = ofObject(value);
  return output(columns, [text(columns("text"))], false);
}

/** The kernel's row as `/api/health` gives it. */
export function kernelFromJson(value: Json): Kernel {
  const columns = ofObject(value);
  return kernel(text(columns("id")), columns);
}

// --- columns to records

function execution(id: string, columns: Columns, outputs: readonly Output[]): Execution {
  return {
    id,
    seq: int(columns("seq")) ?? 0,
    kernel: text(columns("kernel")),
    generation: int(columns("generation")) ?? 0,
    cell: optionalText(columns("cell")),
    notebook: optionalText(columns("notebook")),
    request: optionalText(columns("request")),
    code: text(columns("code")),
    execution_count: int(columns("execution_count")),
    submitted_by: text(columns("submitted_by")),
    client: text(columns("client")),
    queued_at: number(columns("queued_at")),
    started_at: number(columns("started_at")),
    finished_at: number(columns("finished_at")),
    state: word(columns("state"), "queued"),
    error: readError(plain(columns("error"))),
    input: readQuestion(plain(columns("input"))),
    private: columns("private") === true,
    metadata: object(columns("metadata")),
    outputs,
    omitted_code_bytes: int(columns("omitted_code_bytes")),
    omitted_outputs: int(columns("omitted_outputs")),
  };
}

function kernel(id: string, columns: Columns): Kernel {
  return {
    id,
    name: text(columns("name")),
    display_name: text(columns("display_name")),
    language: text(columns("language")),
    state: word(columns("state"), "starting"),
    generation: int(columns("generation")) ?? 0,
    notebook: optionalText(columns("notebook")),
    host: text(columns("host")),
    started_at: number(columns("started_at")),
    ended_at: number(columns("ended_at")),
    exit_code: int(columns("exit_code")),
    last_activity_at: number(columns("last_activity_at")),
  };
}

function readError(value: Json): Execution["error"] {
  if (value === null) return null;
  const columns = ofObject(value);
  return { ename: text(columns("ename")), evalue: text(columns("evalue")) };
}

function readQuestion(value: Json): Question | null {
  if (value === null) return null;
  const columns = ofObject(value);
  return {
    prompt: text(columns("prompt")),
    password: columns("password") === true,
    since: number(columns("since")) ?? 0,
  };
}

function output(columns: Columns, segments: readonly string[], isLive: boolean): Output {
  switch (columns("output_type")) {
    case "stream":
      return stream(columns, segments, isLive);
    case "error":
      return failure(columns);
    default:
      return display(columns);
  }
}

function stream(columns: Columns, segments: readonly string[], isLive: boolean): Stream {
  const omitted = isLive ? int(columns("omitted_segment")) : null;
  let joined: string | null = null;
  let index: number | null = null;
  const found: Stream = {
    output_type: "stream",
    at: number(columns("at")) ?? 0,
    name: word(columns("name"), "stdout"),
    // Of a flood nobody may ever ask for the text: it is drawn segment by segment.
    get text() {
      return (joined ??= segments.join(""));
    },
    omitted_bytes: int(columns("omitted_bytes")),
    omitted_segment: omitted,
    get omitted_index() {
      if (omitted === null) return int(columns("omitted_index"));
      return (index ??= segments.slice(0, omitted).reduce((sum, segment) => sum + countCodePoints(segment), 0));
    },
  };
  if (isLive) SEGMENTS.set(found, segments);
  return found;
}

function display(columns: Columns): Display {
  return {
    output_type: columns("output_type") === "execute_result" ? "execute_result" : "display_data",
    at: number(columns("at")) ?? 0,
    data: object(columns("data")) as Display["data"],
    metadata: object(columns("metadata")),
    execution_count: int(columns("execution_count")),
    display_id: optionalText(columns("display_id")),
  };
}

function failure(columns: Columns): Failure {
  const traceback = plain(columns("traceback"));
  return {
    output_type: "error",
    at: number(columns("at")) ?? 0,
    ename: text(columns("ename")),
    evalue: text(columns("evalue")),
    traceback: Array.isArray(traceback) ? traceback.map(String) : [],
  };
}

// --- values

const END_STATES: ReadonlySet<ExecutionState> = new Set(["ok", "error", "aborted", "lost", "cancelled"]);

/** Whether an execution in this state will not change it any more. */
export const hasEnded = (execution: Execution): boolean => END_STATES.has(execution.state);

/** How many code points a text has, which is what Python counts. */
export function countCodePoints(value: string): number {
  let pairs = 0;
  for (let at = 0; at < value.length - 1; at++) {
    if ((value.charCodeAt(at) & 0xfc00) === 0xd800 && (value.charCodeAt(at + 1) & 0xfc00) === 0xdc00) {
      pairs++;
      at++;
    }
  }
  return value.length - pairs;
}

/** A value for a row, as every Yjs port reads it back: valid UTF-8 without NUL, no `undefined`. */
export function clean(value: unknown): Json {
  if (typeof value === "string") return cleanText(value);
  if (Array.isArray(value)) return value.map(clean);
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (typeof value === "bigint") return Number(value);
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    return Object.fromEntries(entries.map(([key, item]) => [cleanText(key), clean(item)]));
  }
  return typeof value === "boolean" ? value : null;
}

const BAD_TEXT = /[\0\ud800-\udfff]/gu; // with `u` a pair of surrogates is one code point, and only lone ones match

const cleanText = (value: string): string => value.replace(BAD_TEXT, "\ufffd");

const of =
  (row: Row): Columns =>
  (name) =>
    row.get(name);

function ofObject(value: unknown): Columns {
  const found = typeof value === "object" && value !== null ? (value as { [key: string]: unknown }) : {};
  return (name) => (Object.hasOwn(found, name) ? found[name] : undefined);
}

function plain(value: unknown): Json {
  if (value === undefined) return null;
  if (typeof value === "bigint") return Number(value);
  return (value instanceof Y.AbstractType ? value.toJSON() : value) as Json;
}

function object(value: unknown): JsonObject {
  const found = plain(value);
  return typeof found === "object" && found !== null && !Array.isArray(found) ? found : {};
}

function number(value: unknown): number | null {
  const found = plain(value);
  return typeof found === "number" ? found : null;
}

function int(value: unknown): number | null {
  const found = number(value);
  return found === null ? null : Math.trunc(found);
}

function optionalText(value: unknown): string | null {
  const found = plain(value);
  return typeof found === "string" ? found : null;
}

const text = (value: unknown): string => optionalText(value) ?? "";

/** A word of a closed set. One that we do not know is of a later agent, and is shown as it is. */
const word = <Word extends string>(value: unknown, otherwise: Word): Word =>
  (optionalText(value) as Word | null) ?? otherwise;
