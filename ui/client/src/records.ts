/**
 * What is in the document, as plain values.
 *
 * Pure types. The names of the fields are the columns of docs/document.md, so that a record is the same in every
 * language. Times are POSIX seconds. A column that is null in the document, or absent, is null here.
 */

export type ExecutionState = "queued" | "running" | "ok" | "error" | "aborted" | "lost" | "cancelled";
export type KernelState = "starting" | "idle" | "busy" | "restarting" | "dead";
export type QueryState = "to_process" | "in_progress" | "done" | "failed";
export type RequestState = "requested" | "held" | "accepted" | "done" | "refused";
export type Role = "view" | "run" | "own";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** A large value that stands elsewhere: `digest` is `sha256:<64 hex>`; null above the largest blob. */
export interface BlobReference {
  blob: string | null;
  bytes: number;
  preview: string | { width: number; height: number } | null;
  media_type?: string;
}

export interface Stream {
  output_type: "stream";
  at: number;
  name: "stdout" | "stderr";
  /** The segments, joined. Of a live stream they are joined when it is read for the first time. */
  text: string;
  omitted_bytes: number | null;
  /** The omitted bytes stood before this segment of a live stream (`LiveDocument.segments`). */
  omitted_segment: number | null;
  /** In code points: the omitted bytes stood before this index of `text`. */
  omitted_index: number | null;
}

export interface Display {
  output_type: "display_data" | "execute_result";
  at: number;
  data: { [mediaType: string]: Json | BlobReference };
  metadata: JsonObject;
  execution_count: number | null;
  display_id: string | null;
}

export interface Failure {
  output_type: "error";
  at: number;
  ename: string;
  evalue: string;
  traceback: string[];
}

export type Output = Stream | Display | Failure;

export interface Question {
  prompt: string;
  password: boolean;
  since: number;
}

export interface Execution {
  id: string;
  seq: number;
  kernel: string;
  generation: number;
  cell: string | null;
  notebook: string | null;
  request: string | null;
  code: string;
  execution_count: number | null;
  submitted_by: string;
  client: string;
  queued_at: number | null;
  started_at: number | null;
  finished_at: number | null;
  state: ExecutionState;
  error: { ename: string; evalue: string } | null;
  input: Question | null;
  private: boolean;
  metadata: JsonObject;
  outputs: readonly Output[];
  omitted_code_bytes: number | null;
  omitted_outputs: number | null;
}

export interface Kernel {
  id: string;
  name: string;
  display_name: string;
  language: string;
  state: KernelState;
  generation: number;
  notebook: string | null;
  host: string;
  started_at: number | null;
  ended_at: number | null;
  exit_code: number | null;
  last_activity_at: number | null;
}

export interface Gap {
  since: number | null;
  until: number | null;
  message_count: number;
  size_bytes: number;
}

export interface Meta {
  schema: number;
  epoch: string;
  room: string;
  created_at: number;
  server: { name: string; version: string };
  health: { status: "ok" | "degraded"; reason: string | null };
  coverage: "full" | "iopub-only";
  gap: Gap[];
}

export interface Cell {
  id: string;
  index: number;
  cell_type: "code" | "markdown" | "raw";
  source: string;
  notebook: string;
}

export interface Comm {
  id: string;
  target: string;
  kernel: string;
  execution: string | null;
  opened_by: "kernel" | "front";
  opened_at: number;
  closed_at: number | null;
  /** Binary buffers stand at their places as Uint8Array. */
  state: { [key: string]: unknown };
  messages: { way: "kernel" | "front"; at: number; data: Json }[];
}

export interface Query {
  id: string;
  target: string;
  input: Json;
  state: QueryState;
  result: Json;
  error: string | null;
  comm: string | null;
  asked_by: string;
  asked_at: number | null;
  answered_at: number | null;
}

export interface Request {
  id: string;
  action: string;
  by: string | null;
  state: RequestState | null;
  ordinal: number | null;
  received_at: number | null;
  execution: string | null;
  query: string | null;
  reason: string | null;
  /** The columns that its peer wrote: `code`, `cell`, `after`, … */
  columns: JsonObject;
}

/** At `at` the text of the stream at `position` had grown to `chars` code points. Those of a stream go upwards. */
export type Mark = readonly [position: number, chars: number, at: number];
