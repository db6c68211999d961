/**
 * How are the documents reached by one who has nothing but the kernel's channels?
 *
 * Door, over the comm target `rtc.sync.v1` (docs/protocol.md, "Comm"). It needs of a kernel connection what
 * {@link KernelLike} has, which is JupyterLab's. Each room has a comm of its own, and reads go over one more.
 *
 * Theory of the lease. Pages vanish without a word, so the agent closes a comm that it did not hear for 180 s, and says
 * nothing unasked. While the page is visible we ask for what is missing every 20 s: the question is the sign of our
 * life, the answer that of the agent's, and it heals whatever got lost on iopub (a server drops what comes too fast).
 * A page that nobody looks at asks for nothing, and looks again when it is seen.
 */

import { CLOSE_CODES, type CloseReason, RTCError } from "./errors.ts";
import type { Execution, Json, JsonObject, Mark, Role } from "./records.ts";
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

const TARGET = "rtc.sync.v1";

/** How often a visible page asks for what is missing. */
const PULSE_S = 20;

/** A question to the agent that has no answer for so long says that the connection is dead. */
const SILENCE_S = 45;

/** The least time between two questions for what is missing: the agent counts them. */
const ASK_S = 2;

const OP_S = 30;

/** How many reads are under way at once; the agent refuses more than 8 of one comm. */
const READS = 6;

const OPENINGS = 3;

/** Of a name the agent takes no more. */
const NAME_CHARS = 64;

/** What is used of a Jupyter kernel connection. */
export interface KernelLike {
  createComm(target: string): CommLike;
}

/** What is used of its comms. */
export interface CommLike {
  readonly isDisposed?: boolean;
  /** Set to `disabled`: the relay answers while a cell runs, and needs no subshell for that. */
  commsOverSubshells?: unknown;
  onMsg: (message: never) => void | PromiseLike<void>;
  onClose: (message: never) => void | PromiseLike<void>;
  open(data?: never, metadata?: never, buffers?: ArrayBufferView[]): FutureLike;
  send(data: never, metadata?: never, buffers?: ArrayBufferView[], disposeOnDone?: boolean): FutureLike;
  close(): unknown;
}

/** What is used of the future of a message that was sent. */
export interface FutureLike {
  onReply: (message: never) => void | PromiseLike<void>;
  dispose?(): void;
}

/** What a link is to be. */
export interface ShareOptions {
  /** `view` unless given. */
  role?: "view" | "run";
  /** A free one unless given. */
  name?: string;
  /** Seconds until it ends, at most those of 366 days; null, or not given: until it is withdrawn. */
  expiresS?: number | null;
}

/** A link that was just made. */
export interface Shared {
  name: string;
  role: Role;
  /** POSIX seconds; null: it holds until it is withdrawn. */
  expires_at: number | null;
  /** With the token. */
  url: string;
  /** The same by way of the frontend's server: an address, or a path there; null where that passes nothing on. */
  proxied_url: string | null;
}

/** A link in force. */
export interface Link {
  name: string;
  role: Role;
  /** POSIX seconds. */
  created_at: number;
  expires_at: number | null;
}

/** Somebody who follows. `name`: of its link; over a comm what it says of itself. */
export interface Peer {
  name: string;
  role: Role;
  way: "websocket" | "comm";
  /** POSIX seconds. */
  since: number;
}

export interface Links {
  links: Link[];
  peers: Peer[];
}

export interface CommOptions {
  /** What the user is called, for who looks at what this connection runs; asked whenever a comm is opened. */
  name?: () => string;
  /** Whether somebody looks at the page; of the global document, unless given. */
  isVisible?: () => boolean;
  /** Call back when the page is looked at again; returns how to end that. */
  onVisible?: (callback: () => void) => () => void;
}

/** A message of the kernel's. */
interface KernelMessage {
  content: { data?: unknown };
  buffers?: (ArrayBuffer | ArrayBufferView)[];
}

interface Reply {
  data: { [key: string]: Json };
  buffers: Uint8Array[];
}

export class CommTransport implements Transport {
  private readonly kernel: KernelLike;
  private readonly options: Required<CommOptions>;
  private reader: Reader | null = null;
  private reads = 0;
  private readonly queue: (() => void)[] = [];

  constructor(kernel: KernelLike, options: CommOptions = {}) {
    this.kernel = kernel;
    this.options = { isVisible, onVisible, name: () => "", ...options };
  }

  connect(room: RoomName, epoch: string | null, events: ChannelEvents): Channel {
    return new CommChannel(this.kernel, room, epoch, events, this.options);
  }

  async health(): Promise<Health> {
    return healthFromJson((await this.op({ op: "health" })).data);
  }

  async history(query: HistoryQuery): Promise<HistoryPage> {
    const { data } = await this.op({ op: "history", ...(query as JsonObject) });
    const { executions: rows, next } = data;
    return {
      executions: Array.isArray(rows) ? rows.map(executionFromJson) : [],
      next: typeof next === "number" ? next : null,
    };
  }

  async execution(id: string): Promise<Execution> {
    const { data } = await this.op({ op: "execution", id });
    const { outputs, more } = data;
    // Text beyond what fits into one message comes in further ones.
    for (const [position, segment] of (more ?? []) as [number, number][]) {
      const output = asObject((outputs as Json[])[position]);
      output["text"] = String(output["text"] ?? "") + (await this.text(String(data["id"]), position, segment));
    }
    return executionFromJson(data);
  }

  async marks(id: string): Promise<Mark[]> {
    return ((await this.op({ op: "marks", id })).data["marks"] ?? []) as unknown as Mark[];
  }

  async blob(digest: string, start = 0, end = Infinity): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let at = start;
    for (;;) {
      const { data, buffers } = await this.op({ op: "blob", digest, start: at });
      const piece = buffers[0] ?? new Uint8Array();
      pieces.push(piece.subarray(0, Math.max(0, end - at)));
      at += piece.byteLength;
      if (piece.byteLength === 0 || at >= Math.min(end, Number(data["bytes"]))) break;
    }
    const bytes = joinBytes(pieces);
    if (start === 0 && end === Infinity) await checkDigest(digest, bytes);
    return bytes;
  }

  blobUrl(): null {
    return null;
  }

  async complete(code: string, cursor: number): Promise<Completion> {
    return readCompletion((await this.op({ op: "complete", code, cursor_pos: cursor })).data, cursor);
  }

  /** Make a link, as `%rtc share` does. Its address carries the token: show it, and keep it nowhere. */
  async share(options: ShareOptions = {}): Promise<Shared> {
    const { role, name, expiresS } = options;
    const asked = { ...(role && { role }), ...(name && { name }), ...(expiresS != null && { expires_s: expiresS }) };
    const { link, url, proxied_url: proxied } = (await this.op({ op: "share", ...asked })).data;
    const made = { ...asObject(link), url, proxied_url: proxied ?? null };
    return made as unknown as Shared;
  }

  /** The links in force, and who follows now. */
  async links(): Promise<Links> {
    return readLinks(await this.op({ op: "links" }));
  }

  /** Withdraw a link; whoever follows by it is cut off. What is left. */
  async unshare(name: string): Promise<Links> {
    return readLinks(await this.op({ op: "unshare", name }));
  }

  /**
   * Say what the user of this kernel connection is called: what it runs without a username of its own has that name. It
   * is a label, no identity. Of a longer one the first 64 characters count; an empty one takes it back.
   */
  async introduce(name: string): Promise<void> {
    await this.op(introduction(name));
  }

  /** Let a request run that is held, whoever asked; what becomes of it, its row says. */
  async release(request: string): Promise<void> {
    await this.op({ op: "release", request });
  }

  /** Take a request back that was not sent, whoever asked. */
  async cancel(request: string): Promise<void> {
    await this.op({ op: "cancel", request });
  }

  close(): void {
    this.reader?.close();
    this.reader = null;
  }

  /** The text of a stream of the history from a segment on. */
  private async text(id: string, position: number, segment: number): Promise<string> {
    const pieces: string[] = [];
    for (let next: Json | undefined = segment; typeof next === "number"; ) {
      const { data }: Reply = await this.op({ op: "text", id, position, segment: next });
      pieces.push((data["segments"] as string[]).join(""));
      next = data["next"];
    }
    return pieces.join("");
  }

  /** @throws RTCError: it cannot be, or nobody answers. */
  private async op(data: JsonObject): Promise<Reply> {
    if (this.reads >= READS) await new Promise<void>((resolve) => this.queue.push(resolve));
    this.reads++;
    try {
      return await this.ask(data);
    } finally {
      this.reads--;
      this.queue.shift()?.();
    }
  }

  private async ask(data: JsonObject): Promise<Reply> {
    for (let opening = 0; opening < OPENINGS; opening++) {
      const reply = await this.openReader().ask(data);
      if (reply === null) continue; // closed meanwhile: the agent started again, or began a new epoch
      const { error, remedy } = reply.data;
      if (typeof error === "string" && typeof remedy === "string") throw new RTCError(error, remedy);
      return reply;
    }
    throw new RTCError("the kernel's agent closes what we open", "look at the log of the agent");
  }

  private openReader(): Reader {
    if (this.reader !== null && !this.reader.isOver) return this.reader;
    try {
      return (this.reader = new Reader(this.kernel));
    } catch (error) {
      const gone = new RTCError("the connection to the kernel is gone", "it is tried again by itself");
      gone.cause = error;
      throw gone;
    }
  }
}

/** The comm over which reads go. It follows no document, so the agent sends it nothing unasked. */
class Reader {
  private readonly comm: CommLike;
  private readonly pending = new Set<(closed: KernelMessage | null) => void>();
  private over = false;

  constructor(kernel: KernelLike) {
    this.comm = makeComm(kernel);
    this.comm.onClose = (message: KernelMessage) => this.finish(message);
    this.comm.open({ room: "state" } as never).dispose?.();
  }

  get isOver(): boolean {
    return this.over || this.comm.isDisposed === true;
  }

  /** Null: the comm was closed before an answer came. */
  ask(data: JsonObject): Promise<Reply | null> {
    return new Promise((resolve, reject) => {
      const future = this.comm.send(data as never, {} as never, [], false);
      const timer = setTimeout(() => {
        done();
        reject(new RTCError("the kernel's agent does not answer", "look whether the kernel still runs"));
        this.close();
      }, OP_S * 1000);
      const done = (): void => {
        clearTimeout(timer);
        this.pending.delete(closed);
        future.dispose?.();
      };
      const closed = (message: KernelMessage | null): void => {
        done();
        if (message === null || "reason" in asObject(message.content.data)) resolve(null);
        else reject(new RTCError("this kernel has no live document", "choose a kernel of rtc_kernel", null, true));
      };
      this.pending.add(closed);
      future.onReply = (message: KernelMessage) => {
        done();
        resolve(readReply(message));
      };
    });
  }

  close(): void {
    if (this.over) return;
    closeComm(this.comm);
    this.finish(null);
  }

  private finish(message: KernelMessage | null): void {
    this.over = true;
    for (const tell of [...this.pending]) tell(message);
  }
}

/** One room over one comm. */
class CommChannel implements Channel {
  private readonly kernel: KernelLike;
  private readonly hello: JsonObject;
  private readonly events: ChannelEvents;
  private readonly options: Required<CommOptions>;
  private readonly stopLooking: () => void;
  private readonly watch: ReturnType<typeof setInterval>;
  private comm: CommLike | null = null;
  /** The number of the last message on iopub that is known to be here, by itself or within an answer. */
  private seq = 0;
  private gap = false;
  private question: FutureLike | null = null;
  private askedAt = 0;
  private over = false;

  constructor(
    kernel: KernelLike,
    room: RoomName,
    epoch: string | null,
    events: ChannelEvents,
    options: Required<CommOptions>,
  ) {
    this.kernel = kernel;
    this.hello = epoch === null ? { room } : { room, epoch };
    this.events = events;
    this.options = options;
    this.stopLooking = options.onVisible(() => this.wake());
    this.watch = setInterval(() => this.look(), 1000);
    queueMicrotask(() => this.open()); // so that whoever connects has the channel when it opens
  }

  send(data: Uint8Array): void {
    if (this.over || this.comm === null) return;
    let future: FutureLike;
    try {
      future = this.comm.send({} as never, {} as never, [data], false);
    } catch {
      this.finish(null); // it was disposed: the kernel was restarted, or its connection closed
      return;
    }
    if (!isQuestion(data)) {
      future.dispose?.(); // there is no answer, and no idle that would end the future
      return;
    }
    this.question?.dispose?.();
    this.question = future;
    this.askedAt = Date.now();
    this.gap = false;
    future.onReply = (message: KernelMessage) => {
      if (this.question === future) this.question = null;
      future.dispose?.();
      this.receiveReply(readReply(message));
    };
  }

  close(): void {
    if (this.over) return;
    this.end();
    if (this.comm) closeComm(this.comm);
  }

  private open(): void {
    if (this.over || this.comm !== null || !this.options.isVisible()) return;
    let comm: CommLike;
    try {
      comm = makeComm(this.kernel);
      comm.onMsg = (message: KernelMessage) => this.receive(readReply(message));
      comm.onClose = (message: KernelMessage) => this.finish(closeCode(message));
      comm.open(this.hello as never).dispose?.();
      const name = this.hello["room"] === "state" ? this.options.name() : "";
      if (name) comm.send(introduction(name) as never, {} as never, [], false).dispose?.();
    } catch {
      this.finish(null); // the kernel's connection is disposed
      return;
    }
    this.comm = comm;
    this.events.onOpen();
  }

  private receive({ data, buffers }: Reply): void {
    const seq = Number(data["seq"]);
    if (seq > this.seq + 1) this.gap = true;
    this.seq = Math.max(this.seq, seq);
    this.deliver(buffers);
    if (this.gap) this.look();
  }

  private receiveReply({ data, buffers }: Reply): void {
    this.seq = Math.max(this.seq, Number(data["seq"] ?? 0));
    this.deliver(buffers);
  }

  private deliver(buffers: Uint8Array[]): void {
    for (const buffer of buffers) if (!this.over) this.events.onMessage(buffer);
  }

  private wake(): void {
    if (this.comm === null) this.open();
    else if (!this.over) this.events.onGap();
  }

  private look(): void {
    if (this.comm?.isDisposed) this.finish(null);
    if (this.over || this.comm === null || !this.options.isVisible()) return;
    const agoS = (Date.now() - this.askedAt) / 1000;
    if (this.question !== null) {
      if (agoS > SILENCE_S) this.finish(null);
    } else if (agoS > PULSE_S || (this.gap && agoS > ASK_S)) this.events.onGap();
  }

  private finish(code: number | null): void {
    if (this.over) return;
    this.end();
    this.events.onClose(code);
  }

  private end(): void {
    this.over = true;
    clearInterval(this.watch);
    this.stopLooking();
    this.question?.dispose?.();
  }
}

/** One for a room of the agent's documents, not opened yet. */
export function makeComm(kernel: KernelLike): CommLike {
  const comm = kernel.createComm(TARGET);
  if ("commsOverSubshells" in comm) comm.commsOverSubshells = "disabled";
  return comm;
}

/** Whether the agent says something to this on the shell channel. */
export function isAnswered(data: object, [buffer]: ArrayBufferView[]): boolean {
  return "op" in data || (buffer instanceof Uint8Array && isQuestion(buffer));
}

/** Whether it asks for what is missing (a SyncStep1). */
function isQuestion(message: Uint8Array): boolean {
  return message[0] === 0 && message[1] === 0;
}

function closeComm(comm: CommLike): void {
  comm.onClose = () => undefined;
  if (comm.isDisposed) return;
  try {
    comm.close();
  } catch {
    // the kernel's connection is gone, and the comm with it
  }
}

/** An agent that was started again closes with a word alone; one that does not know the comm lost it, not the room. */
function closeCode(message: KernelMessage): number | null {
  const { code, reason } = asObject(message.content.data);
  const known = typeof code === "number" ? code : (CLOSE_CODES[String(reason) as CloseReason] ?? null);
  return known === CLOSE_CODES["no-such-room"] ? null : known;
}

function introduction(name: string): JsonObject {
  return { op: "introduce", name: [...name.trim()].slice(0, NAME_CHARS).join("") };
}

/** What the agent answers to a comm's `health`. */
export function healthFromJson(data: { [key: string]: Json }): Health {
  return { ...data, kernel: data["kernel"] ? kernelFromJson(data["kernel"]) : null } as unknown as Health;
}

function readLinks({ data: { links, peers } }: Reply): Links {
  return { links: (links ?? []) as unknown as Link[], peers: (peers ?? []) as unknown as Peer[] };
}

function readReply({ content, buffers = [] }: KernelMessage): Reply {
  const bytes = buffers.map((buffer) =>
    buffer instanceof ArrayBuffer
      ? new Uint8Array(buffer)
      : new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength),
  );
  // JupyterLab 4.0 puts an empty one behind those that came.
  return { data: asObject(content.data), buffers: bytes.filter(({ byteLength }) => byteLength > 0) };
}

function joinBytes(pieces: readonly Uint8Array[]): Uint8Array {
  if (pieces.length === 1 && pieces[0]) return pieces[0];
  const joined = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.byteLength, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.byteLength;
  }
  return joined;
}

const page = (): Document | undefined => globalThis.document as Document | undefined;

const isVisible = (): boolean => page()?.visibilityState !== "hidden";

function onVisible(callback: () => void): () => void {
  const look = (): void => {
    if (isVisible()) callback();
  };
  page()?.addEventListener("visibilitychange", look);
  return () => page()?.removeEventListener("visibilitychange", look);
}
