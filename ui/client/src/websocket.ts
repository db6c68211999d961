/**
 * How is the side socket of a kernel's agent reached: WebSocket for the documents, HTTP for the rest?
 *
 * Door, for browsers and Node.js. y-websocket's provider is not used: when it gives up, and when it tries again, is
 * not what the agent's close codes mean.
 */

import { RTCError } from "./errors.ts";
import type { Execution, Json, Mark } from "./records.ts";
import { executionFromJson, kernelFromJson } from "./schema.ts";
import {
  asObject,
  type Channel,
  type ChannelEvents,
  checkDigest,
  type Completion,
  type Health,
  type HistoryPage,
  type HistoryQuery,
  readCompletion,
  type RoomName,
  type Transport,
} from "./transport.ts";

/** A connection that was silent for so long is dead: the agent says something every 20 s. */
export const SILENCE_S = 45;

/** How long one answer over HTTP may take to begin, and a blob to come. */
const REQUEST_S = 30;
const BLOB_S = 600;

/** What may stand in a header and in the name of a subprotocol. */
const TOKEN = /^[\w.~-]+$/;

/** What is used of a WebSocket: the browser's, or `ws` in Node.js. */
export interface WebSocketLike {
  binaryType: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: Uint8Array): void;
  close(): void;
}

export type WebSocketClass = new (url: string, protocols?: string[]) => WebSocketLike;

export interface WebSocketOptions {
  /**
   * Where the agent's page is: absolute, or relative to the page. A link as `%rtc share` shows it does, its `?token=`
   * is used.
   */
  url: string;
  /** Unless given, and unless the link has one, the cookie of the page. */
  token?: string;
  /** Unless given, the global one. Node.js before 22 has none: `import { WebSocket } from "ws"`. */
  WebSocket?: unknown;
}

export class WebSocketTransport implements Transport {
  private readonly base: URL;
  private readonly token: string | null;
  private readonly WebSocket: WebSocketClass;
  private kernelId = "";

  /** @throws RTCError: there is no WebSocket here, or the URL or the token is none. */
  constructor(options: WebSocketOptions) {
    const url = readUrl(options.url);
    this.token = options.token ?? url.searchParams.get("token");
    if (this.token !== null && !TOKEN.test(this.token)) {
      throw new RTCError("the token is not one of ours", "give the link as %rtc share shows it");
    }
    this.base = new URL(".", url);
    const found: unknown = options.WebSocket ?? (globalThis as { WebSocket?: unknown }).WebSocket;
    if (typeof found !== "function") {
      throw new RTCError("there is no WebSocket here", 'give one: `import { WebSocket } from "ws"`');
    }
    this.WebSocket = found as WebSocketClass;
  }

  connect(room: RoomName, epoch: string | null, events: ChannelEvents): Channel {
    const url = new URL(`rooms/${encodeURIComponent(this.kernelId)}/${room}`, this.base);
    url.protocol = this.base.protocol === "https:" ? "wss:" : "ws:";
    if (epoch !== null) url.searchParams.set("epoch", epoch);
    const protocols = this.token === null ? [] : [`rtc.token.${this.token}`];
    return new SocketChannel(new this.WebSocket(url.href, protocols), events);
  }

  async health(): Promise<Health> {
    const value = asObject(await this.json("api/health"));
    if (typeof value["role"] !== "string") {
      if (typeof value["status"] !== "string") throw this.stranger();
      throw new RTCError("the token is missing, wrong or expired", "ask for a new link with %rtc share", 401, true);
    }
    const kernel = value["kernel"] ? kernelFromJson(value["kernel"]) : null;
    const health = { ...value, kernel } as unknown as Health;
    this.kernelId = health.room.split("/")[0] ?? "";
    return health;
  }

  async history(query: HistoryQuery): Promise<HistoryPage> {
    const asked = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== false) asked.set(name, value === true ? "1" : String(value));
    }
    const page = asObject(await this.json(`api/history?${asked}`));
    const rows = page["executions"];
    const next = page["next"];
    return {
      executions: Array.isArray(rows) ? rows.map(executionFromJson) : [],
      next: typeof next === "number" ? next : null,
    };
  }

  async execution(id: string): Promise<Execution> {
    return executionFromJson(await this.json(`api/executions/${encodeURIComponent(id)}`));
  }

  async marks(id: string): Promise<Mark[]> {
    const value = asObject(await this.json(`api/executions/${encodeURIComponent(id)}/marks`));
    return (value["marks"] ?? []) as unknown as Mark[];
  }

  async blob(digest: string, start = 0, end?: number): Promise<Uint8Array> {
    const path = blobPath(digest);
    if (path === null) throw new RTCError("this is no digest of a blob", "give sha256: and 64 hexadecimal digits");
    const isPart = start > 0 || end !== undefined;
    const headers = isPart ? { Range: `bytes=${start}-${end === undefined ? "" : end - 1}` } : {};
    const read = async (answer: Response): Promise<Uint8Array> => new Uint8Array(await answer.arrayBuffer());
    const bytes = await this.fetch(path, { headers }, BLOB_S, read);
    if (!isPart) await checkDigest(digest, bytes);
    return bytes;
  }

  blobUrl(digest: string): string | null {
    const path = blobPath(digest);
    return path === null || this.token !== null ? null : new URL(path, this.base).href;
  }

  async complete(code: string, cursor: number): Promise<Completion> {
    const body = JSON.stringify({ code, cursor_pos: cursor });
    const headers = { "Content-Type": "application/json" };
    const answer = await this.json("api/complete", { method: "POST", headers, body });
    return readCompletion(answer, cursor);
  }

  close(): void {
    // it holds nothing open
  }

  private json(path: string, init: RequestInit = {}): Promise<Json> {
    return this.fetch(path, init, REQUEST_S, async (answer) => (await answer.json()) as Json);
  }

  private async fetch<Value>(
    path: string,
    init: RequestInit,
    timeoutS: number,
    read: (answer: Response) => Promise<Value>,
  ): Promise<Value> {
    const headers = new Headers(init.headers);
    if (this.token !== null) headers.set("Authorization", `Bearer ${this.token}`);
    const signal = AbortSignal.timeout(timeoutS * 1000);
    let answer: Response;
    try {
      answer = await fetch(new URL(path, this.base), { ...init, headers, signal });
    } catch (error) {
      throw withCause(new RTCError("the kernel's agent does not answer", "look whether the kernel still runs"), error);
    }
    if (!answer.ok) throw await refused(answer);
    try {
      return await read(answer);
    } catch (error) {
      throw withCause(this.stranger(), error);
    }
  }

  private stranger(): RTCError {
    return new RTCError("what answers at this address is no kernel's agent", "look at the link");
  }
}

class SocketChannel implements Channel {
  private readonly socket: WebSocketLike;
  private readonly events: ChannelEvents;
  private readonly watch: ReturnType<typeof setInterval>;
  private heardAt = Date.now();
  private over = false;

  constructor(socket: WebSocketLike, events: ChannelEvents) {
    this.socket = socket;
    this.events = events;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.heardAt = Date.now();
      if (!this.over) events.onOpen();
    };
    socket.onmessage = (event: { data: unknown }) => this.receive(event.data);
    socket.onclose = (event: { code: number }) => this.finish(event.code);
    socket.onerror = () => undefined; // a close follows
    this.watch = setInterval(() => this.look(), (SILENCE_S * 1000) / 9);
  }

  send(data: Uint8Array): void {
    if (!this.over) this.socket.send(data);
  }

  close(): void {
    if (this.over) return;
    this.over = true;
    clearInterval(this.watch);
    this.socket.close();
  }

  private receive(data: unknown): void {
    this.heardAt = Date.now();
    if (!this.over && data instanceof ArrayBuffer) this.events.onMessage(new Uint8Array(data));
  }

  /** A machine that slept, or a network that went, leaves sockets that nobody closes. */
  private look(): void {
    if (Date.now() - this.heardAt < SILENCE_S * 1000) return;
    this.socket.close();
    this.finish(null);
  }

  private finish(code: number | null): void {
    if (this.over) return;
    this.over = true;
    clearInterval(this.watch);
    this.events.onClose(code === 1005 || code === 1006 ? null : code);
  }
}

function blobPath(digest: string): string | null {
  const hex = /^sha256:([0-9a-f]{64})$/.exec(digest)?.[1];
  return hex === undefined ? null : `blobs/${hex}`;
}

function readUrl(url: string): URL {
  const page = (globalThis as { document?: { baseURI?: string } }).document?.baseURI;
  try {
    const found = new URL(url, page);
    if (found.protocol === "http:" || found.protocol === "https:") return found;
  } catch {
    // told below
  }
  throw new RTCError("this is no address of a kernel's agent", "give a link as %rtc share shows it");
}

async function refused(answer: Response): Promise<RTCError> {
  const final = answer.status === 401 || answer.status === 403;
  try {
    const value = asObject(await answer.json());
    if (typeof value["error"] === "string" && typeof value["remedy"] === "string") {
      return new RTCError(value["error"], value["remedy"], answer.status, final);
    }
  } catch {
    // a proxy's page
  }
  const what = `the server answered ${answer.status}${answer.statusText ? ` ${answer.statusText}` : ""}`;
  return new RTCError(what, final ? "log in again, or ask for a new link" : "try again", answer.status, final);
}

function withCause(error: RTCError, cause: unknown): RTCError {
  error.cause = cause;
  return error;
}
