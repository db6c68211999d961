/**
 * How are a kernel's documents and its history reached?
 *
 * The seam between the document, which knows no sockets, and the doors: `WebSocketTransport` and `CommTransport`.
 * A door judges by itself whether its connection lives, and says `onClose` once when it does not.
 */

import { malformed, RTCError } from "./errors.ts";
import type { Execution, Json, JsonObject, Kernel, Mark, Role } from "./records.ts";

/** Of the tables (docs/document.md). */
const SCHEMA = 1;

/** Of the wire (docs/protocol.md). */
const PROTOCOL = "y-protocols/1";

export type RoomName = "state" | "requests";

/** What a channel says of itself. After `onClose` it says nothing more. */
export interface ChannelEvents {
  /** Messages may be sent from now on. */
  onOpen(): void;
  /** One message of y-protocols. */
  onMessage(data: Uint8Array): void;
  /** Something may have been lost, or a sign of life is due: send step 1 again. */
  onGap(): void;
  /** It is over. `code`: as in the table of close codes; null when it went without a word. */
  onClose(code: number | null): void;
}

/** One connection to one room. */
export interface Channel {
  /** Send one message of y-protocols. On a channel that is over this does nothing. */
  send(data: Uint8Array): void;
  /** End it; `onClose` is not called. */
  close(): void;
}

/** `/api/health`, as one with a token sees it. */
export interface Health {
  status: string;
  reason: string | null;
  coverage: string;
  /** Of the package. */
  version: string;
  schema: number;
  protocol: string;
  kernel: Kernel | null;
  /** `<kernel_id>/state`. */
  room: string;
  epoch: string;
  requests_epoch: string;
  /** How many are connected. */
  peers: number;
  /** Of our token. */
  name: string;
  role: Role;
}

export interface HistoryQuery {
  /** 1 to 1000; 50 unless given. */
  limit?: number;
  /** Only executions whose `seq` is less. */
  before?: number;
  /** Only executions whose `seq` is greater. Without `before`, oldest first. */
  after?: number;
  /** Plain text, in code and outputs. */
  text?: string;
  /** A regular expression; for the roles run and own. */
  grep?: string;
  state?: string;
  cell?: string;
  kernel?: string;
  /** Without outputs, and the code cut to 200 characters. */
  brief?: boolean;
}

export interface HistoryPage {
  executions: Execution[];
  /** The `before` (`after`) of the next page; null: this is the last. */
  next: number | null;
}

/** The kernel's answer to a `complete_request`. Cursors are in code points. */
export interface Completion {
  matches: string[];
  cursor_start: number;
  cursor_end: number;
  metadata: JsonObject;
}

/** Every promise rejects with RTCError. */
export interface Transport {
  /** There is the live document and nothing else: no history, no blobs, no completion. */
  readonly isLiveOnly?: boolean;
  connect(room: RoomName, epoch: string | null, events: ChannelEvents): Channel;
  health(): Promise<Health>;
  history(query: HistoryQuery): Promise<HistoryPage>;
  /** The whole record from the store, by id. */
  execution(id: string): Promise<Execution>;
  /** When the streams of an execution had grown to where: see `executionAt`. */
  marks(id: string): Promise<Mark[]>;
  /**
   * Bytes `start` (inclusive) to `end` (exclusive; all that are behind, unless given) of `sha256:<64 hex>`. All of them
   * are held against the digest, a part is not.
   */
  blob(digest: string, start?: number, end?: number): Promise<Uint8Array>;
  /** Where a browser finds a blob by itself; null where only `blob` reaches it: a comm, a token that is no cookie. */
  blobUrl(digest: string): string | null;
  /** `cursor`: in code points. */
  complete(code: string, cursor: number): Promise<Completion>;
  /** End what the transport itself holds open; the channels are closed by those who opened them. */
  close(): void;
}

/** Why we must not read what this agent has (docs/protocol.md, "Versions"); null: we may. */
export function versionsProblem({ schema = SCHEMA, protocol = PROTOCOL }: Partial<Health>): RTCError | null {
  if (schema === SCHEMA && protocol === PROTOCOL) return null;
  const what = `the agent has schema ${schema} and speaks ${protocol}, this client knows ${SCHEMA} and ${PROTOCOL}`;
  return new RTCError(what, "reload the page; if it comes again, upgrade rtc_kernel where the page comes from", null, true);
}

/**
 * Look whether these are the bytes of a digest. Pages that came by plain HTTP from another host cannot tell: browsers
 * give them no `crypto.subtle`.
 *
 * @throws RTCError: they are not.
 */
export async function checkDigest(digest: string, bytes: Uint8Array): Promise<void> {
  const { subtle } = (globalThis as { crypto?: { subtle?: SubtleCrypto } }).crypto ?? {};
  if (subtle === undefined) return;
  const hash = new Uint8Array(await subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
  const hex = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (digest !== `sha256:${hex}`) throw malformed("a blob whose bytes are not those of its digest");
}

/** A value that came as JSON, as an object; empty where it is none. */
export function asObject(value: unknown): { [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as { [key: string]: Json }) : {};
}

/** A `complete_reply`, as both transports give it. */
export function readCompletion(value: Json, cursor: number): Completion {
  const found = asObject(value);
  const { matches, cursor_start: start, cursor_end: end } = found;
  return {
    matches: Array.isArray(matches) ? matches.map(String) : [],
    cursor_start: typeof start === "number" ? start : cursor,
    cursor_end: typeof end === "number" ? end : cursor,
    metadata: asObject(found["metadata"]) as JsonObject,
  };
}
