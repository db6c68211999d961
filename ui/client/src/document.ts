/**
 * What is in a kernel's live document, and how is the kernel acted upon through it?
 *
 * {@link LiveDocument} shows the replica of the last epoch that was synced whole, and owns who listens. While a new
 * life of the document is being synced the earlier picture stays.
 */

import { type Change, UNCHANGED } from "./changes.ts";
import { Connection, type Room } from "./connection.ts";
import { Desk, type Ticket } from "./desk.ts";
import { refusal, RTCError } from "./errors.ts";
import type { Message } from "./messages.ts";
import { Board, type Presence } from "./presence.ts";
import type { Cell, Comm, Execution, Json, Kernel, Meta, Query, Request, Role } from "./records.ts";
import { Replica } from "./replica.ts";
import { Run, type RunOptions } from "./run.ts";
import { type Health, type Transport, versionsProblem } from "./transport.ts";

export type Status = "connecting" | "live" | "away" | "closed";

const EMPTY = new Map<string, never>();

/** An answer that is older is not given to who asks the same again. Seconds. */
const ANSWER_AGE_S = 60;

/** How long an answer that was given may take to come with the document. */
const ANSWER_READ_MS = 30_000;

interface Waiter {
  look: () => boolean;
  reject: (error: unknown) => void;
}

/** A followed document; {@link connect} makes it. */
export class LiveDocument {
  readonly transport: Transport;
  private readonly board: Board;
  private readonly desk: Desk;
  private readonly follower: Connection;
  private requester: Connection | null = null;
  private shown: Replica | null = null;
  private next: Replica | null = null;
  /** What was applied of an update that could not be read cannot be told: the next connection begins with nothing. */
  private isSpoiled = false;
  private send: ((data: Uint8Array) => void) | null = null;
  private currentStatus: Status = "connecting";
  private currentHealth: Health | null = null;
  private currentFailure: RTCError | null = null;
  private currentTrouble: RTCError | null = null;
  private heardAt = 0;
  private readonly changeListeners = new Set<(change: Change) => void>();
  private readonly statusListeners = new Set<() => void>();
  private readonly waiters = new Set<Waiter>();
  private readonly stopListening: () => void;

  /** Made by {@link connect}. */
  constructor(transport: Transport, user: Partial<Presence> | null, health: Health | null = null) {
    this.transport = transport;
    this.board = new Board(() => this.tellStatus());
    if (user) this.board.set(user);
    this.desk = new Desk((requests) => this.tellChange({ ...UNCHANGED, requests }));
    this.follower = new Connection(transport, this.stateRoom());
    this.stopListening = onReturn(() => {
      this.follower.hurry();
      this.requester?.hurry();
    });
    this.follower.start(health);
  }

  // --- how it is

  /** `connecting`: there was no picture yet; `away`: the connection is gone, and tried again. */
  get status(): Status {
    return this.currentStatus;
  }

  /** POSIX seconds when the picture was last known to be current; 0: never. */
  get liveAt(): number {
    return this.heardAt;
  }

  /** Why it is closed; null while it is not, and when we closed it. */
  get failure(): RTCError | null {
    return this.currentFailure;
  }

  /** Why there is no connection now; null while there is one. */
  get trouble(): RTCError | null {
    return this.currentTrouble;
  }

  /** As of the last connection. */
  get health(): Health | null {
    return this.currentHealth;
  }

  /** What our link may do; `view` until that is known. */
  get role(): Role {
    return this.currentHealth?.role ?? "view";
  }

  /** Of our link; empty until that is known. */
  get name(): string {
    return this.currentHealth?.name ?? "";
  }

  /** Empty until it is known. */
  get kernelId(): string {
    return this.currentHealth?.room.split("/")[0] ?? "";
  }

  // --- what is in it

  get meta(): Meta | null {
    return this.shown?.meta ?? null;
  }

  get kernel(): Kernel | null {
    return this.shown?.kernels.get(this.kernelId) ?? null;
  }

  /** The window over the history, by id, in no order; a new object where a row changed, else the same as before. */
  get executions(): ReadonlyMap<string, Execution> {
    return this.shown?.executions ?? EMPTY;
  }

  /** The notebook of a headless run, in order; empty otherwise. */
  get cells(): readonly Cell[] {
    return this.shown?.cells ?? [];
  }

  get comms(): ReadonlyMap<string, Comm> {
    return this.shown?.comms ?? EMPTY;
  }

  get queries(): ReadonlyMap<string, Query> {
    return this.shown?.queries ?? EMPTY;
  }

  /** What everybody asks for now: what waits, what is held, what ended just now. Empty without the role run. */
  get requests(): ReadonlyMap<string, Request> {
    return this.desk.requests;
  }

  /** Who looks at it, as far as they say so; with us, if we do. Empty over a comm. */
  get peers(): readonly Presence[] {
    return this.board.peers;
  }

  /** Segments of a live stream, for incremental drawing; null when it is not in the window. Joined they are `text`. */
  segments(execution: string, position: number): readonly string[] | null {
    return this.shown?.segments(execution, position) ?? null;
  }

  // --- to wait for something

  /** Called once per transaction; returns how to end it. */
  onChange(listener: (change: Change) => void): () => void {
    this.changeListeners.add(listener);
    return () => this.changeListeners.delete(listener);
  }

  /** Called when `status`, `failure`, `trouble`, `health`, `role` or `peers` changed; returns how to end it. */
  onStatus(listener: () => void): () => void {
    this.statusListeners.add(listener);
    return () => this.statusListeners.delete(listener);
  }

  /**
   * Wait until `find` gives something else than undefined, null or false; it is asked at once, and again whenever
   * something changed.
   *
   * @throws RTCError: the document was closed. Whatever `find` throws. The signal's reason, when it is aborted.
   */
  waitFor<Found>(find: () => Found | undefined | null | false, signal?: AbortSignal): Promise<Found> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        look: () => {
          const found = find();
          if (found === undefined || found === null || found === false) return false;
          resolve(found);
          return true;
        },
        reject,
      };
      signal?.addEventListener("abort", () => {
        this.waiters.delete(waiter);
        reject(signal.reason);
      });
      this.waiters.add(waiter);
      this.lookAt(waiter);
      if (this.waiters.has(waiter) && this.currentStatus === "closed") {
        this.waiters.delete(waiter);
        reject(this.closedError());
      }
    });
  }

  // --- to act: everything by a row of the requests; needs the role run

  /**
   * Ask the kernel to run code; resolves when the request is acknowledged, which is before it runs. While the document
   * is away it waits.
   *
   * @throws RTCError: the agent refused it (`remedy` names the column), or the link may only look.
   */
  async run(code: string, options: RunOptions = {}): Promise<Run> {
    const { after, id } = options;
    const columns = {
      code,
      cell: options.cell ?? undefined,
      notebook: options.notebook ?? undefined,
      after: after instanceof Run ? after.request : (after ?? undefined),
      on_duplicate: options.onDuplicate,
      stop_on_error: options.stopOnError,
      allow_stdin: options.allowStdin,
      silent: options.silent,
      user_expressions: options.userExpressions,
    };
    const ticket = await this.ask("execute", columns, id);
    await ticket.until(() => true);
    return new Run(this, ticket, options.silent === true);
  }

  /** Interrupt what runs; with `execution`, only if that is what runs: else it is refused. */
  async interrupt(execution?: string): Promise<void> {
    await this.askAndWait("interrupt", { execution });
  }

  /** Restart the kernel; what was waiting is held. */
  async restart(): Promise<void> {
    await this.askAndWait("restart", {});
  }

  /** Take back a request that was not sent yet: one's own; the owner any. */
  async cancel(request: string): Promise<void> {
    await this.askAndWait("cancel", { request });
  }

  /** Let a held request run; all of one's own (for the owner: all) when none is named. */
  async release(request?: string): Promise<void> {
    await this.askAndWait("release", { request });
  }

  /**
   * Answer an execution that asks for input. What is typed goes to the agent, and is kept nowhere.
   *
   * @param since of the question, so that the answer is never taken for one to the next; of the one that is shown now,
   *   unless given.
   * @throws RTCError: it is not asking, or somebody else has answered.
   */
  async answer(execution: string, value: string, since?: number): Promise<void> {
    const asked = since ?? this.executions.get(execution)?.input?.since;
    await this.askAndWait("input", { execution, value, since: asked });
  }

  /**
   * Ask the kernel over a comm target, without running code in anybody's cells; the answer.
   *
   * @param options `fresh`: ask again, although the answer is known.
   * @throws RTCError: the kernel has no such target, its handler failed, or it did not answer.
   */
  async query(target: string, input: Json, options: { fresh?: boolean } = {}): Promise<Json> {
    const request = await this.askAndWait("query", { target, input, fresh: options.fresh });
    if (request.reason !== null) throw refusal(request.reason);
    const id = request.query ?? "";
    // An earlier answer may still be shown when we are told that there is one: that comes over another connection.
    const since = (request.received_at ?? 0) - (options.fresh ? 0 : ANSWER_AGE_S);
    const find = () => {
      const found = this.queries.get(id);
      return found?.state === "done" && (found.answered_at ?? 0) >= since ? found : undefined;
    };
    const gone = new AbortController();
    const timer = setTimeout(() => gone.abort(refusal("the answer is gone, ask again")), ANSWER_READ_MS);
    try {
      return (await this.waitFor(find, gone.signal)).result;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Set a key of the execution's `metadata`; keys that begin with `rtc_` are the agent's. */
  async annotate(execution: string, key: string, value: Json): Promise<void> {
    await this.askAndWait("annotate", { execution, key, value });
  }

  /** Forget what finished (before a time, POSIX seconds). For the owner. */
  async clear(before?: number): Promise<void> {
    await this.askAndWait("clear", { before });
  }

  /** Say who we are, to be drawn by others; what is not given stays as it was. */
  setPresence(presence: Partial<Presence>): void {
    if (this.currentStatus !== "closed") this.board.set(presence);
  }

  /** End it. What waits is rejected; requests that were acknowledged run on. */
  close(): void {
    if (this.currentStatus !== "closed") this.end(null);
  }

  /** Look whether what somebody waits for is there now. For {@link Run}. */
  look(): void {
    for (const waiter of [...this.waiters]) this.lookAt(waiter);
  }

  // --- our end of `state`

  private stateRoom(): Room {
    return {
      name: "state",
      find: (health) => this.find(health),
      open: (epoch, send) => this.open(epoch, send),
      receive: (message) => this.receive(message),
      resync: () => this.resync(),
      lose: (trouble) => this.lose(trouble),
      fail: (error) => this.end(error),
    };
  }

  private find(health: Health): string {
    const problem = versionsProblem(health);
    if (problem !== null) throw problem;
    const known = this.kernelId;
    if (known && !health.room.startsWith(`${known}/`)) {
      throw new RTCError("another kernel answers at this address now", "start the earlier one again");
    }
    this.currentHealth = health;
    if (health.role !== "view" && this.requester === null) {
      // From the start: what others wait for is part of the picture, and the first run waits for no handshake.
      this.requester = new Connection(this.transport, this.desk);
      this.requester.start(health);
    }
    this.tellStatus();
    this.look();
    return health.epoch;
  }

  private open(epoch: string, send: (data: Uint8Array) => void): void {
    this.send = send;
    if (this.next !== this.shown) this.next?.destroy();
    this.next = this.shown?.epoch === epoch && !this.isSpoiled ? this.shown : new Replica(epoch);
    this.isSpoiled = false;
    this.resync();
    this.board.open(send);
  }

  private receive(message: Message): boolean {
    this.heardAt = Date.now() / 1000;
    if (message.type === "awareness") {
      this.board.receive(message.update);
      return this.currentStatus === "live";
    }
    const replica = this.next;
    if (!replica) return false;
    const { answered, change } = this.apply(replica, message);
    if (answered && this.currentStatus !== "live") this.show(replica, change);
    else if (change) this.tellChange(change);
    return this.currentStatus === "live";
  }

  private apply(replica: Replica, message: Message): { answered: boolean; change: Change | null } {
    try {
      return replica.receive(message);
    } catch (error) {
      this.isSpoiled = true;
      throw error;
    }
  }

  /** The answer is here: from now on this replica is the document. */
  private show(replica: Replica, change: Change | null): void {
    const earlier = this.shown;
    this.shown = replica;
    this.currentStatus = "live";
    this.currentTrouble = null;
    if (earlier !== replica) {
      earlier?.destroy();
      this.tellChange({ reset: true });
    } else if (change) this.tellChange(change);
    this.tellStatus();
    this.look();
  }

  private resync(): void {
    if (this.next) this.send?.(this.next.request());
  }

  private lose(trouble: RTCError): void {
    this.send = null;
    this.board.lose();
    this.currentTrouble = trouble;
    if (this.currentStatus === "live") this.currentStatus = "away";
    this.tellStatus();
  }

  private end(failure: RTCError | null): void {
    this.currentStatus = "closed";
    this.currentFailure = failure;
    this.stopListening();
    this.follower.close();
    this.requester?.close();
    this.desk.fail(this.closedError());
    this.board.destroy();
    this.transport.close();
    this.tellStatus();
    for (const waiter of [...this.waiters]) {
      this.waiters.delete(waiter);
      waiter.reject(this.closedError());
    }
  }

  private closedError(): RTCError {
    return this.currentFailure ?? new RTCError("the document was closed", "connect to it again");
  }

  // --- to ask

  private async ask(action: string, columns: { [name: string]: unknown }, id?: string): Promise<Ticket> {
    await this.waitFor(() => this.currentHealth !== null);
    if (this.currentStatus === "closed") throw this.closedError();
    if (this.role === "view") {
      throw new RTCError("this link may only look", "ask for one that may run code: %rtc share --role run");
    }
    return this.desk.ask(action, columns, id);
  }

  private async askAndWait(action: string, columns: { [name: string]: unknown }): Promise<Request> {
    const ticket = await this.ask(action, columns);
    return ticket.until(() => ticket.ended);
  }

  // --- to tell

  private tellChange(change: Change): void {
    for (const listener of [...this.changeListeners]) guard(() => listener(change));
    this.look();
  }

  private tellStatus(): void {
    for (const listener of [...this.statusListeners]) guard(listener);
  }

  private lookAt(waiter: Waiter): void {
    try {
      if (waiter.look()) this.waiters.delete(waiter);
    } catch (error) {
      this.waiters.delete(waiter);
      waiter.reject(error);
    }
  }
}

/**
 * Follow a kernel's document. It starts at once, and reconnects for ever with back-off unless it is closed for good
 * (`failure` says why). Nothing is thrown.
 *
 * @param options `user`: who we are, to be drawn by others; nobody is announced without it. `health`: what the agent
 *   said just now, if it was asked, which saves asking again.
 */
export function connect(
  transport: Transport,
  options: { user?: Partial<Presence>; health?: Health } = {},
): LiveDocument {
  return new LiveDocument(transport, options.user ?? null, options.health ?? null);
}

/** A listener that throws is its own fault: it is reported, and the others are told. */
function guard(listener: () => void): void {
  try {
    listener();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Call when the network is back, or the page is looked at again; returns how to end it. Nothing outside a browser. */
function onReturn(callback: () => void): () => void {
  const target = globalThis as Partial<Pick<Window, "addEventListener" | "removeEventListener">>;
  const page = globalThis.document as Document | undefined;
  const look = (): void => {
    if (page?.visibilityState === "visible") callback();
  };
  target.addEventListener?.("online", callback);
  page?.addEventListener("visibilitychange", look);
  return () => {
    target.removeEventListener?.("online", callback);
    page?.removeEventListener("visibilitychange", look);
  };
}
