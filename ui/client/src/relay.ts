/**
 * How is a kernel's document reached at a relay engine (Hocuspocus), where only the live document is?
 *
 * Door. One WebSocket carries the room's index and the documents that the index names; docs/protocol.md, "Relays", has
 * the names and the frames. A document has another name in each of its lives, so its name is the epoch here.
 */

import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import * as Y from "yjs";

import { CLOSE_CODES, RTCError } from "./errors.ts";
import { readMessage, writeStep1 } from "./messages.ts";
import type { Execution, Kernel, Mark } from "./records.ts";
import { kernelFromJson } from "./schema.ts";
import {
  asObject,
  type Channel,
  type ChannelEvents,
  type Completion,
  type Health,
  type HistoryPage,
  type RoomName,
  type Transport,
} from "./transport.ts";
import type { WebSocketClass, WebSocketLike } from "./websocket.ts";

/** How often the relay is asked what it has: it gives up who says nothing for a minute. */
const KEEP_S = 20;

/** A relay that was silent for so long is gone. */
const SILENCE_S = 45;

/** How long it may take to let us in, and to have a kernel's row. */
const ANSWER_S = 10;

/** What this client knows: `meta.schema`. */
const SCHEMA = 1;

/** So many documents are asked for at a time: Hocuspocus closes on who waits for more than 100. */
const ASKING = 32;

const SYNC = 0;
const AUTH = 2;
const SYNC_REPLY = 4;
const CLOSE = 7;
const PING = 9;
const PONG = 10;

export interface RelayOptions {
  /** `ws[s]://HOST/ROOM`, as `%rtc share --relay` shows it; with `?kernel=ID` where several kernels are in the room. */
  url: string;
  /** Of the relay. Unless given, `token` of the URL. */
  token?: string;
  /** Unless given, the global one. Node.js before 22 has none: `import { WebSocket } from "ws"`. */
  WebSocket?: unknown;
}

/** A row of a room's index. */
interface Entry {
  kernel: string;
  state: string;
  requests: string | null;
  client: number;
  row: Kernel;
}

/** What one document says of itself. */
interface Listener {
  onGrant(writes: boolean): void;
  /** One message of y-protocols. */
  onMessage(data: Uint8Array): void;
  /** It is over: with the relay's words where it was refused. */
  onEnd(refused: string | null): void;
}

/** A room at a relay: one connection, which is opened again when somebody needs it, and the room's index. */
export class Relay {
  readonly room: string;
  /** The kernel that the link names. */
  readonly wanted: string | null;
  private readonly address: string;
  private readonly token: string;
  private readonly WebSocket: WebSocketClass;
  private readonly listeners = new Set<() => void>();
  private index: Index | null = null;

  /** @throws RTCError: there is no WebSocket here, or the URL is none of a room. */
  constructor(options: RelayOptions) {
    const url = readUrl(options.url);
    const cut = url.pathname.replace(/\/+$/, "").lastIndexOf("/");
    this.room = decodeURIComponent(url.pathname.replace(/\/+$/, "").slice(cut + 1));
    if (this.room === "") throw new RTCError("this link names no room", "put its name behind the last slash");
    this.address = `${url.protocol}//${url.host}${url.pathname.slice(0, Math.max(cut, 0))}`;
    this.wanted = url.searchParams.get("kernel");
    this.token = options.token ?? url.searchParams.get("token") ?? "";
    const found: unknown = options.WebSocket ?? (globalThis as { WebSocket?: unknown }).WebSocket;
    if (typeof found !== "function") {
      throw new RTCError("there is no WebSocket here", 'give one: `import { WebSocket } from "ws"`');
    }
    this.WebSocket = found as WebSocketClass;
  }

  /** The index over a connection that is not over. */
  open(): Index {
    const { current } = this;
    if (current !== null) return current;
    const line = new Line(new this.WebSocket(this.address), this.token);
    this.index = new Index(line, `${this.room}/index`, () => {
      for (const listener of [...this.listeners]) listener();
    });
    return this.index;
  }

  /** The index over the connection that there is; null: there is none. */
  get current(): Index | null {
    return this.index?.line.isOver === false ? this.index : null;
  }

  /** Called when a row of the index is different, or the connection is over; returns how to end it. */
  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  close(): void {
    this.index?.line.close();
    this.index = null;
  }
}

/** One kernel of a room. */
export class RelayTransport implements Transport {
  readonly isLiveOnly = true;
  private readonly relay: Relay;
  private readonly isShared: boolean;
  private wanted: string | null;
  private asks: boolean;
  private readonly channels = new Set<DocumentChannel>();
  private readonly stop: () => void;

  /**
   * @param options of a room; or a connection that others use, too, and the id of a kernel. Such a one may only look until
   *   {@link ask}.
   * @throws RTCError: there is no WebSocket here, or the URL is none of a room.
   */
  constructor(options: RelayOptions | { relay: Relay; kernel: string }) {
    this.isShared = "relay" in options;
    this.relay = "relay" in options ? options.relay : new Relay(options);
    this.wanted = "relay" in options ? options.kernel : this.relay.wanted;
    this.asks = !this.isShared;
    this.stop = this.relay.onChange(() => {
      for (const channel of [...this.channels]) channel.look();
    });
  }

  /** From now on also what the kernel may be asked for is opened, where the token lets us. */
  ask(): void {
    if (this.asks) return;
    this.asks = true;
    for (const channel of [...this.channels]) channel.renew();
  }

  async health(): Promise<Health> {
    const index = this.relay.open();
    const entry = await index.find(this.wanted);
    this.wanted = entry.kernel; // it is the one from then on, whoever else comes
    const { requests } = entry;
    const role = this.asks && requests !== null && (await index.line.mayWrite(requests)) ? "run" : "view";
    return {
      status: "ok",
      reason: null,
      coverage: "full",
      version: "",
      schema: SCHEMA,
      protocol: "y-protocols/1",
      kernel: entry.row,
      room: `${entry.kernel}/state`,
      epoch: entry.state,
      requests_epoch: entry.requests ?? "",
      peers: 0,
      name: "",
      role,
    };
  }

  connect(room: RoomName, epoch: string | null, events: ChannelEvents): Channel {
    const gone = (): void => void this.channels.delete(channel);
    const channel = new DocumentChannel(this.relay.open(), this.wanted ?? "", room, epoch ?? "", events, gone);
    this.channels.add(channel);
    channel.start();
    return channel;
  }

  history(): Promise<HistoryPage> {
    return notHere();
  }

  execution(): Promise<Execution> {
    return notHere();
  }

  marks(): Promise<Mark[]> {
    return notHere();
  }

  blob(): Promise<Uint8Array> {
    return notHere();
  }

  blobUrl(): string | null {
    return null;
  }

  complete(): Promise<Completion> {
    return notHere();
  }

  close(): void {
    this.stop();
    if (!this.isShared) this.relay.close();
  }
}

/** One WebSocket, several documents. */
class Line {
  isOver = false;
  private isOpen = false;
  private readonly socket: WebSocketLike;
  private readonly token: string;
  private readonly listeners = new Map<string, Listener>();
  private readonly early: Uint8Array[] = [];
  /** Documents that were asked for, and whose answer is to come; and those that wait until it has. */
  private readonly asking = new Set<string>();
  private readonly queue: string[] = [];
  /** Documents that we may write and that nobody has taken over yet. */
  private readonly parked = new Set<string>();
  /** How often the relay still has to say of a document that it is closed, which we closed. */
  private readonly leaving = new Map<string, number>();
  private readonly watch: ReturnType<typeof setInterval>;
  private heardAt = Date.now();

  constructor(socket: WebSocketLike, token: string) {
    this.socket = socket;
    this.token = token;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.isOpen = true;
      for (const data of this.early.splice(0)) socket.send(data);
    };
    socket.onmessage = (event: { data: unknown }) => this.receive(event.data);
    socket.onclose = () => this.finish();
    socket.onerror = () => undefined; // a close follows
    this.watch = setInterval(() => {
      if (Date.now() - this.heardAt > SILENCE_S * 1000) this.close();
    }, 5000);
  }

  /** Ask to be let in to a document. */
  open(name: string, listener: Listener): void {
    this.listeners.set(name, listener);
    if (this.parked.delete(name)) return queueMicrotask(() => listener.onGrant(true));
    if (!this.queue.includes(name)) this.queue.push(name);
    this.askNext();
  }

  private askNext(): void {
    while (this.asking.size < ASKING) {
      const name = this.queue.shift();
      if (name === undefined) return;
      if (!this.listeners.has(name)) continue;
      this.asking.add(name);
      this.sendToken(name);
    }
  }

  private sendToken(name: string): void {
    this.say(name, AUTH, (encoder) => {
      encoding.writeVarUint(encoder, 0);
      encoding.writeVarString(encoder, this.token);
    });
  }

  /** The relay has said whether it lets us in. */
  private answered(name: string): void {
    if (this.asking.delete(name)) this.askNext();
  }

  /** Be done with a document. */
  leave(name: string, listener: Listener): void {
    if (this.listeners.get(name) !== listener) return;
    this.listeners.delete(name);
    const waits = this.queue.indexOf(name);
    if (waits !== -1) {
      this.queue.splice(waits, 1);
      return; // it was never asked for
    }
    this.leaving.set(name, (this.leaving.get(name) ?? 0) + 1);
    this.say(name, CLOSE, (encoder) => encoding.writeVarString(encoder, "done"));
  }

  /** Send a message of y-protocols. */
  send(name: string, message: Uint8Array): void {
    const encoder = encoding.createEncoder();
    encoding.writeVarString(encoder, name);
    encoding.writeUint8Array(encoder, message);
    this.write(encoding.toUint8Array(encoder));
  }

  /** Whether our token may write a document; one that it may is open then. */
  mayWrite(name: string): Promise<boolean> {
    if (this.listeners.has(name)) return Promise.resolve(true);
    return new Promise((resolve) => {
      const listener: Listener = {
        onGrant: (writes) => {
          if (writes) this.parked.add(name);
          else this.leave(name, listener);
          resolve(writes);
        },
        onMessage: () => undefined, // whoever takes it over asks for all
        onEnd: () => {
          this.parked.delete(name);
          resolve(false);
        },
      };
      this.open(name, listener);
    });
  }

  close(): void {
    this.socket.close();
    this.finish();
  }

  private say(name: string, kind: number, body: (encoder: encoding.Encoder) => void): void {
    const encoder = encoding.createEncoder();
    encoding.writeVarString(encoder, name);
    encoding.writeVarUint(encoder, kind);
    body(encoder);
    this.write(encoding.toUint8Array(encoder));
  }

  private write(data: Uint8Array): void {
    if (this.isOver) return;
    if (this.isOpen) this.socket.send(data);
    else this.early.push(data);
  }

  private receive(data: unknown): void {
    this.heardAt = Date.now();
    if (this.isOver) return;
    if (!(data instanceof ArrayBuffer)) return this.close();
    try {
      this.read(new Uint8Array(data));
    } catch {
      this.close(); // it speaks something else
    }
  }

  private read(data: Uint8Array): void {
    const decoder = decoding.createDecoder(data);
    const name = decoding.readVarString(decoder);
    const listener = this.listeners.get(name);
    const start = decoder.pos;
    const kind = decoding.readVarUint(decoder);
    if (kind === PING) return this.say(name, PONG, () => undefined);
    if (kind === CLOSE || (kind === AUTH && decoding.peekVarUint(decoder) !== 0)) this.answered(name);
    const left = this.leaving.get(name) ?? 0;
    if (kind === CLOSE && left > 0) {
      this.leaving.set(name, left - 1);
      return;
    }
    if (listener === undefined) return;
    switch (kind) {
      case AUTH:
        return this.readAuth(decoder, name, listener);
      case CLOSE:
        this.listeners.delete(name);
        return listener.onEnd(null);
      case SYNC:
      case SYNC_REPLY: {
        const message = data.slice(start);
        message[0] = SYNC;
        return listener.onMessage(message);
      }
    }
  }

  private readAuth(decoder: decoding.Decoder, name: string, listener: Listener): void {
    switch (decoding.readVarUint(decoder)) {
      case 0:
        return this.sendToken(name); // it wants the token again
      case 1:
        this.listeners.delete(name);
        return listener.onEnd(decoding.readVarString(decoder));
      case 2:
        return listener.onGrant(decoding.readVarString(decoder) === "read-write");
    }
  }

  private finish(): void {
    if (this.isOver) return;
    this.isOver = true;
    clearInterval(this.watch);
    const listeners = [...this.listeners.values()];
    this.listeners.clear();
    for (const listener of listeners) listener.onEnd(null);
  }
}

/** A replica of the room's index, for reading. `changed`: some row is different, or the line is over. */
export class Index implements Listener {
  readonly line: Line;
  private readonly name: string;
  private readonly changed: () => void;
  private readonly doc = new Y.Doc();
  private readonly rows = this.doc.getMap("kernels");
  private readonly keep: ReturnType<typeof setInterval>;
  private isSynced = false;
  private refused: string | null = null;
  private waiting: (() => void)[] = [];

  constructor(line: Line, name: string, changed: () => void) {
    this.line = line;
    this.name = name;
    this.changed = changed;
    this.keep = setInterval(() => this.ask(), KEEP_S * 1000);
    line.open(name, this);
  }

  /** The row of a kernel; null: it is not there now, or is none that is known here. */
  entry(kernel: string): Entry | null {
    return readEntry(kernel, this.rows.get(kernel));
  }

  /** The ids of all kernels in the room. */
  get kernels(): string[] {
    return [...this.rows.keys()];
  }

  get isWhole(): boolean {
    return this.isSynced;
  }

  /**
   * Wait until the index is here.
   *
   * @throws RTCError: the relay refuses, or does not answer.
   */
  async ready(): Promise<void> {
    const until = Date.now() + ANSWER_S * 1000;
    while (!this.isSynced && !this.line.isOver && this.refused === null && Date.now() < until) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, until - Date.now());
        this.waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    if (this.refused !== null) {
      throw new RTCError(`the relay refuses: ${this.refused}`, "give a token for this room that may view", 4401, true);
    }
    if (!this.isSynced) throw new RTCError("the relay does not answer", "look whether it still runs");
  }

  /**
   * Wait for the row of a kernel.
   *
   * @param wanted its id, or the beginning of it; null: the only one.
   * @throws RTCError: as {@link ready}, or there is no such kernel, or several.
   */
  async find(wanted: string | null): Promise<Entry> {
    await this.ready();
    const all = this.kernels;
    const keys = wanted !== null && all.includes(wanted) ? [wanted] : all.filter((key) => key.startsWith(wanted ?? ""));
    const [key] = keys;
    if (key === undefined) throw new RTCError("no kernel is published in this room", "it is tried again by itself");
    if (keys.length > 1) {
      const remedy = `name one, ?kernel=ID: ${keys.join(", ")}`;
      throw new RTCError(`there are ${keys.length} kernels in the room`, remedy, null, true);
    }
    const entry = this.entry(key);
    if (entry === null) {
      throw new RTCError("the index has a row that is not known here", "upgrade the client", null, true);
    }
    return entry;
  }

  onGrant(): void {
    this.ask();
  }

  onMessage(data: Uint8Array): void {
    const message = readMessage(data);
    if (message.type !== "step2" && message.type !== "update") return;
    Y.applyUpdate(this.doc, message.update);
    this.isSynced ||= message.type === "step2";
    this.tell();
  }

  onEnd(refused: string | null): void {
    this.refused = refused;
    clearInterval(this.keep);
    this.line.close();
    this.tell();
  }

  private ask(): void {
    this.line.send(this.name, writeStep1(Y.encodeStateVector(this.doc)));
  }

  private tell(): void {
    for (const wake of this.waiting.splice(0)) wake();
    this.changed();
  }
}

/** One document over the line. */
class DocumentChannel implements Channel, Listener {
  private readonly index: Index;
  private readonly kernel: string;
  private readonly room: RoomName;
  private readonly name: string;
  private readonly events: ChannelEvents;
  private readonly gone: () => void;
  /** The relay's step 1, which it sends before its answer to ours. */
  private asked: Uint8Array | null = null;
  private isAnswered = false;
  private isOver = false;

  constructor(
    index: Index,
    kernel: string,
    room: RoomName,
    name: string,
    events: ChannelEvents,
    gone: () => void,
  ) {
    this.index = index;
    this.kernel = kernel;
    this.room = room;
    this.name = name;
    this.events = events;
    this.gone = gone;
  }

  start(): void {
    if (this.index.line.isOver) queueMicrotask(() => this.finish(null));
    else this.index.line.open(this.name, this);
  }

  send(data: Uint8Array): void {
    // Presence is for rooms of some; at a relay it would be sent to everybody.
    if (!this.isOver && data[0] === SYNC) this.index.line.send(this.name, data);
  }

  close(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.gone();
    this.index.line.leave(this.name, this);
  }

  /** The index is different: is this still the document? */
  look(): void {
    const entry = this.index.entry(this.kernel);
    if (entry === null) this.finish(CLOSE_CODES.stopping);
    else if (entry[this.room] !== this.name) this.renew();
  }

  /** Let it be opened again, at once. */
  renew(): void {
    this.finish(CLOSE_CODES["wrong-epoch"]);
  }

  onGrant(writes: boolean): void {
    if (this.room === "requests" && !writes) this.finish(CLOSE_CODES.forbidden);
    else if (!this.isOver) this.events.onOpen();
  }

  onMessage(data: Uint8Array): void {
    if (this.isOver) return;
    const message = readMessage(data);
    if (message.type === "step1" && !this.isAnswered) {
      this.asked = data;
      return;
    }
    if (this.room === "state") {
      if (message.type === "step1") return; // it has nothing of ours
      if ((message.type === "step2" || message.type === "update") && !this.isOfTheAgent(message.update)) {
        return this.finish(null);
      }
    }
    this.events.onMessage(data);
    if (message.type !== "step2" || this.isAnswered) return;
    this.isAnswered = true;
    if (this.asked !== null && this.room === "requests") this.events.onMessage(this.asked);
  }

  onEnd(refused: string | null): void {
    const code = this.room === "requests" ? CLOSE_CODES.forbidden : CLOSE_CODES.unauthorized;
    this.finish(refused === null ? null : code);
  }

  /** The agent is the only writer, whatever the relay let pass. */
  private isOfTheAgent(update: Uint8Array): boolean {
    const writer = this.index.entry(this.kernel)?.client;
    for (const client of Y.parseUpdateMeta(update).to.keys()) if (client !== writer) return false;
    return true;
  }

  private finish(code: number | null): void {
    if (this.isOver) return;
    this.isOver = true;
    this.gone();
    this.index.line.leave(this.name, this);
    this.events.onClose(code);
  }
}

function readEntry(kernel: string, value: unknown): Entry | null {
  const row = asObject(value);
  const { state, requests, client, schema } = row;
  if (typeof state !== "string" || typeof client !== "number" || schema !== SCHEMA) return null;
  const name = typeof requests === "string" ? requests : null;
  return { kernel, state, requests: name, client, row: kernelFromJson({ ...row, id: kernel, state: "idle" }) };
}

function readUrl(url: string): URL {
  try {
    const found = new URL(url);
    if (found.protocol === "ws:" || found.protocol === "wss:") return found;
  } catch {
    // told below
  }
  throw new RTCError("this is no room at a relay", "give ws://HOST/ROOM or wss://HOST/ROOM");
}

function notHere(): Promise<never> {
  return Promise.reject(new RTCError("a relay has only the live document", "ask for the kernel's own link"));
}
