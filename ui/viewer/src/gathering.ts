/**
 * How are the documents of a room's kernels one?
 *
 * Rows of all kernels by their ids, and one stream of what changed in any of them. What is about one kernel (its notebook,
 * gaps, role, requests) is that of the kernel in focus: the one that the reader has chosen, or the only one. It draws
 * nothing.
 */

import { signal, type Signal } from "@preact/signals";
import {
  type Cell,
  type Change,
  type Comm,
  type Execution,
  type ExecutionChange,
  type Kernel,
  type LiveDocument,
  type Member,
  type Meta,
  type Presence,
  type Request,
  type Role,
  type Room,
  RTCError,
  type Run,
  type RunOptions,
  type Status,
  type Transport,
} from "@rtc-kernel/client";
import { beganAt, KERNEL_WORDS } from "./executions.ts";
import { baseName } from "./format.ts";
import type { Followed } from "./followed.ts";
import { mergeChanges } from "./pace.ts";

/** Documents that come are taken together, and of so many kernels all that changes. Milliseconds. */
const GATHER_MS = 100;
const MANY = 10;

/** Of a kernel's id, unless another one begins with the same. */
const ID_CHARS = 4;

const notHere = (): Promise<never> =>
  Promise.reject(new RTCError("a relay has only the live document", "ask for the kernel's own link"));

/** What a relay does not have, for all kernels. */
const LIVE_ONLY: Transport = {
  isLiveOnly: true,
  connect: () => ({ send: () => undefined, close: () => undefined }),
  health: notHere,
  history: notHere,
  execution: notHere,
  marks: notHere,
  blob: notHere,
  blobUrl: () => null,
  complete: notHere,
  close: () => undefined,
};

/** What is needed of a {@link Room}. */
export type RoomLike = Pick<Room, "name" | "status" | "failure" | "members" | "omittedCount" | "onChange" | "ask">;

/** A kernel of the room, as it is called here. */
export interface Attendee {
  readonly id: string;
  /** Its notebook, or what kind of kernel it is. */
  readonly name: string;
  /** As much of its id as tells it from others. */
  readonly short: string;
  readonly kernel: Kernel;
  readonly doc: LiveDocument;
  readonly hasLeft: boolean;
}

export class Gathering implements Followed {
  readonly name = "";
  readonly peers: readonly Presence[] = [];
  readonly transport = LIVE_ONLY;
  /** All that were seen, by name. */
  readonly kernels: Signal<readonly Attendee[]> = signal([]);
  readonly executions: ReadonlyMap<string, Execution>;
  readonly comms: ReadonlyMap<string, Comm>;
  private readonly owners = new Map<string, string>();
  private readonly renamed = new WeakMap<Execution, Execution>();
  private readonly ends = new Map<string, { member: Member; stop: () => void; rows: Set<string> }>();
  private readonly shorts = new Map<string, string>();
  private readonly changeListeners = new Set<(change: Change) => void>();
  private readonly statusListeners = new Set<() => void>();
  private readonly anew = new Set<string>();
  private draft: Draft = makeDraft();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private chosen: string | null = null;

  constructor(readonly room: RoomLike) {
    this.executions = new Union(
      (id) => this.row(id),
      () => this.owners.keys(),
    );
    const commOf = (id: string): Comm | undefined => {
      for (const { member } of this.ends.values()) {
        const found = member.doc.comms.get(id);
        if (found) return found;
      }
      return undefined;
    };
    this.comms = new Union(commOf, () => this.commIds());
    room.onChange(() => this.take());
    this.take();
  }

  // --- of all kernels

  get status(): Status {
    return this.room.status;
  }

  get failure(): RTCError | null {
    return this.room.failure;
  }

  get liveAt(): number {
    let latest = 0;
    for (const { member } of this.ends.values()) latest = Math.max(latest, member.doc.liveAt);
    return latest;
  }

  /** There is, or was, more than one kernel. */
  get isMany(): boolean {
    return this.ends.size > 1;
  }

  /** The documents of all who are in the room are here. */
  get isSettled(): boolean {
    if (this.room.status === "connecting") return false;
    return [...this.ends.values()].every(({ member }) => member.doc.status !== "connecting");
  }

  attendee(kernel: string): Attendee | undefined {
    return this.kernels.peek().find((one) => one.id === kernel);
  }

  /** How a kernel is called in a line: `train 5f0c`. */
  label(kernel: string): string {
    const found = this.attendee(kernel);
    return found ? `${found.name} ${found.short}` : kernel.slice(0, ID_CHARS);
  }

  segments(execution: string, position: number): readonly string[] | null {
    return this.owner(execution)?.segments(execution, position) ?? null;
  }

  onChange(listener: (change: Change) => void): () => void {
    this.changeListeners.add(listener);
    return () => this.changeListeners.delete(listener);
  }

  onStatus(listener: () => void): () => void {
    this.statusListeners.add(listener);
    return () => this.statusListeners.delete(listener);
  }

  setPresence(): void {
    // a relay would send it to everybody
  }

  // --- of the kernel in focus

  /** The reader looks at this kernel alone; null: at all. */
  choose(kernel: string | null): void {
    if (kernel === this.chosen) return;
    this.chosen = kernel;
    this.tellFocus();
  }

  get focus(): Attendee | null {
    const all = this.kernels.peek();
    return (this.chosen === null ? (all.length === 1 ? all[0] : null) : this.attendee(this.chosen)) ?? null;
  }

  get kernel(): Kernel | null {
    return this.focus?.kernel ?? null;
  }

  get meta(): Meta | null {
    return this.focus?.doc.meta ?? null;
  }

  get cells(): readonly Cell[] {
    return this.focus?.doc.cells ?? [];
  }

  get role(): Role {
    const { focus } = this;
    return focus === null || focus.hasLeft ? "view" : focus.doc.role;
  }

  get requests(): ReadonlyMap<string, Request> {
    return this.focus?.doc.requests ?? new Map<string, never>();
  }

  run(code: string, options?: RunOptions): Promise<Run> {
    return this.asked().then((doc) => doc.run(code, options));
  }

  interrupt(execution?: string): Promise<void> {
    return this.asked().then((doc) => doc.interrupt(execution));
  }

  restart(): Promise<void> {
    return this.asked().then((doc) => doc.restart());
  }

  cancel(request: string): Promise<void> {
    return this.asked().then((doc) => doc.cancel(request));
  }

  release(request?: string): Promise<void> {
    return this.asked().then((doc) => doc.release(request));
  }

  answer(execution: string, value: string, since?: number): Promise<void> {
    return this.asked().then((doc) => doc.answer(execution, value, since));
  }

  // ---

  private asked(): Promise<LiveDocument> {
    const { focus } = this;
    if (focus !== null) return Promise.resolve(focus.doc);
    return Promise.reject(new RTCError("no kernel is chosen", "choose the one that is meant"));
  }

  private row(id: string): Execution | undefined {
    const owner = this.owners.get(id);
    const row = owner === undefined ? undefined : this.ends.get(owner)?.member.doc.executions.get(id);
    if (row === undefined || owner === undefined || row.kernel === owner) return row;
    // Whose it is, its document says, whatever stands in it.
    const known = this.renamed.get(row);
    if (known) return known;
    const own = { ...row, kernel: owner };
    this.renamed.set(row, own);
    return own;
  }

  private owner(execution: string): LiveDocument | undefined {
    const owner = this.owners.get(execution);
    return owner === undefined ? undefined : this.ends.get(owner)?.member.doc;
  }

  private *commIds(): IterableIterator<string> {
    for (const { member } of this.ends.values()) yield* member.doc.comms.keys();
  }

  /** Who is in the room now? */
  private take(): void {
    for (const member of this.room.members.values()) {
      const known = this.ends.get(member.id);
      if (known?.member.doc === member.doc) known.member = member;
      else {
        known?.stop();
        this.ends.set(member.id, { member, stop: this.listen(member), rows: known?.rows ?? new Set() });
        this.begin(member.id);
      }
    }
    for (const [id, { stop, rows }] of this.ends) {
      if (this.room.members.has(id)) continue;
      stop();
      for (const row of rows) this.drop(row);
      this.ends.delete(id);
      this.shorts.delete(id);
      this.flushSoon();
    }
    this.note();
  }

  private listen(member: Member): () => void {
    const stops = [
      member.doc.onChange((change) => this.receive(member.id, change)),
      member.doc.onStatus(() => {
        if (this.ends.size > MANY) {
          this.draft.kernels = true;
          this.flushSoon();
        } else this.note();
      }),
    ];
    return () => {
      for (const stop of stops) stop();
    };
  }

  private receive(id: string, change: Change): void {
    if (this.anew.has(id)) return; // all of it is to be read
    if (change.reset) {
      this.begin(id);
      return;
    }
    const known = this.ends.get(id);
    if (!known) return;
    for (const [row, how] of change.executions) {
      if (how.kind === "removed") {
        if (known.rows.delete(row)) this.drop(row);
      } else if (this.claim(row, id)) this.put(row, how);
    }
    for (const comm of change.comms) this.draft.comms.add(comm);
    this.draft.kernels ||= change.kernels || change.meta;
    if (this.focus?.id === id) {
      this.draft.meta ||= change.meta;
      this.draft.cells ||= change.cells;
      for (const request of change.requests) this.draft.requests.add(request);
    }
    if (this.ends.size > MANY) this.flushSoon();
    else this.flush();
  }

  /** All of a document is to be read, soon: documents come in numbers. */
  private begin(id: string): void {
    this.anew.add(id);
    this.flushSoon();
  }

  private flushSoon(): void {
    this.timer ??= setTimeout(() => this.flush(), GATHER_MS);
  }

  private flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    for (const id of this.anew) this.readAll(id);
    this.anew.clear();
    const { draft } = this;
    this.draft = makeDraft();
    if (draft.kernels) this.note();
    for (const listener of [...this.changeListeners]) listener({ reset: false, ...draft });
  }

  private readAll(id: string): void {
    const known = this.ends.get(id);
    if (!known) return;
    const { doc } = known.member;
    for (const row of known.rows) {
      if (doc.executions.has(row)) continue;
      known.rows.delete(row);
      this.drop(row);
    }
    for (const row of doc.executions.keys()) if (this.claim(row, id)) this.put(row, { kind: "added" });
    for (const comm of doc.comms.keys()) this.draft.comms.add(comm);
    this.draft.kernels = true;
    if (this.focus?.id === id) this.draft.meta = this.draft.cells = true;
  }

  /** An id is that of the first document in which it was seen. */
  private claim(row: string, id: string): boolean {
    const owner = this.owners.get(row);
    if (owner !== undefined) return owner === id;
    this.owners.set(row, id);
    this.ends.get(id)?.rows.add(row);
    return true;
  }

  private drop(row: string): void {
    this.owners.delete(row);
    this.put(row, { kind: "removed" });
  }

  private put(row: string, how: ExecutionChange): void {
    const known = this.draft.executions.get(row) ?? null;
    // One that came, and changed since, came.
    this.draft.executions.set(row, known?.kind === "added" && how.kind === "changed" ? known : mergeChanges(known, how));
  }

  /** What is said of the kernels themselves may be other. */
  private note(): void {
    const focus = this.focus?.id;
    const all = [...this.ends.values()].map(({ member }) => this.describe(member));
    all.sort((one, other) => collator.compare(one.name, other.name) || (one.id < other.id ? -1 : 1));
    this.kernels.value = all;
    if (this.focus?.id !== focus) this.tellFocus();
    else this.tellStatus();
  }

  private describe({ id, row, doc, hasLeft }: Member): Attendee {
    const kernel = doc.kernel ?? row;
    const short = this.shorts.get(id) ?? shorten(id, this.shorts.keys());
    this.shorts.set(id, short);
    const notebook = kernel.notebook ?? row.notebook ?? doc.cells[0]?.notebook;
    const name = notebook ? baseName(notebook).replace(/\.ipynb$/, "") : kernel.display_name || kernel.name || "Kernel";
    return { id, name, short, kernel, doc, hasLeft };
  }

  private tellFocus(): void {
    const { focus } = this;
    if (focus !== null && !focus.hasLeft) this.room.ask(focus.id);
    this.draft.kernels = this.draft.meta = this.draft.cells = true;
    for (const request of this.requests.keys()) this.draft.requests.add(request);
    this.flushSoon();
    this.tellStatus();
  }

  private tellStatus(): void {
    for (const listener of [...this.statusListeners]) listener();
  }
}

const collator = new Intl.Collator(undefined, { numeric: true });

/** The order of a history of several kernels: by the time at which they were asked for. */
export function byTime(one: Execution, other: Execution): number {
  const [first, second] = [beganAt(one) ?? Infinity, beganAt(other) ?? Infinity];
  if (first !== second) return first - second;
  if (one.kernel !== other.kernel) return one.kernel < other.kernel ? -1 : 1;
  return one.seq - other.seq;
}

/** The beginning of an id by which it is told from others. */
export function shorten(id: string, others: Iterable<string>): string {
  const all = [...others].filter((other) => other !== id);
  let length = ID_CHARS;
  while (length < id.length && all.some((other) => other.startsWith(id.slice(0, length)))) length++;
  return id.slice(0, length);
}

/** How a kernel of the room is: a word, and the shape that goes with it. */
export function standing({ kernel, doc, hasLeft }: Attendee): { word: string; state: Kernel["state"]; isOver: boolean } {
  const isDead = kernel.state === "dead";
  if (hasLeft) return { word: isDead ? "ended" : "gone", state: "dead", isOver: !isDead || (kernel.exit_code ?? 0) === 0 };
  if (doc.status === "closed") return { word: doc.failure?.what ?? "closed", state: "dead", isOver: false };
  if (doc.status === "connecting") return { word: "on its way", state: "starting", isOver: false };
  const health = doc.meta?.health.status ?? "ok";
  const word = isDead ? "ended" : KERNEL_WORDS[kernel.state].word;
  const isOver = isDead && kernel.exit_code === 0;
  return { word: health === "ok" ? word : `${word}, ${health}`, state: kernel.state, isOver };
}

interface Draft {
  meta: boolean;
  kernels: boolean;
  cells: boolean;
  comms: Set<string>;
  queries: Set<string>;
  requests: Set<string>;
  executions: Map<string, ExecutionChange>;
}

const makeDraft = (): Draft => ({
  meta: false,
  kernels: false,
  cells: false,
  comms: new Set(),
  queries: new Set(),
  requests: new Set(),
  executions: new Map(),
});

/** Rows of several tables as those of one. */
class Union<Row> implements ReadonlyMap<string, Row> {
  constructor(
    private readonly find: (id: string) => Row | undefined,
    private readonly ids: () => IterableIterator<string>,
  ) {}

  get(id: string): Row | undefined {
    return this.find(id);
  }

  has(id: string): boolean {
    return this.find(id) !== undefined;
  }

  get size(): number {
    return [...this.ids()].length;
  }

  *entries(): MapIterator<[string, Row]> {
    for (const id of this.ids()) {
      const row = this.find(id);
      if (row !== undefined) yield [id, row];
    }
    return undefined;
  }

  *keys(): MapIterator<string> {
    for (const [id] of this.entries()) yield id;
    return undefined;
  }

  *values(): MapIterator<Row> {
    for (const [, row] of this.entries()) yield row;
    return undefined;
  }

  [Symbol.iterator](): MapIterator<[string, Row]> {
    return this.entries();
  }

  forEach(callback: (value: Row, key: string, map: ReadonlyMap<string, Row>) => void): void {
    for (const [id, row] of this.entries()) callback(row, id, this);
  }
}
