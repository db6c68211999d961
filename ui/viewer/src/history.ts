/**
 * Which executions are known, in which order, and what is their record?
 *
 * It joins the live window of the document and pages of the store, without a hole: a row of the window that is older
 * than what was read from the store (the last run of an old cell) waits until the pages reach it. Records of the store
 * are read brief, a page at a time, and whole for what is looked at. Where there is no store (at a relay) it has what is in
 * the window, and the last of what has left it. It draws nothing and filters nothing.
 */

import { signal, type ReadonlySignal, type Signal } from "@preact/signals";
import type { Change, Execution, ExecutionChange, HistoryQuery } from "@rtc-kernel/client";
import { isActive, matches, type Filter } from "./filters.ts";
import { isOpen } from "./executions.ts";
import type { Followed } from "./followed.ts";

const PAGE_ROWS = 200;
/** Whole records that stay in memory although they are not in the window. */
const WHOLE_ROWS = 300;
const READERS = 3;

export type RowListener = (execution: Execution, change: ExecutionChange | null) => void;

/** Pages of the store, newest first. */
export class Pager {
  readonly ids: string[] = [];
  readonly state: Signal<"idle" | "loading" | "complete" | "failed"> = signal("idle");
  problem = "";
  private reading: Promise<void> | null = null;

  constructor(
    private readonly history: History,
    private readonly query: HistoryQuery,
    private before: number | null,
  ) {}

  /** The seq down to which the store was read. */
  get frontier(): number {
    return this.state.peek() === "complete" ? 0 : (this.before ?? Number.POSITIVE_INFINITY);
  }

  get isComplete(): boolean {
    return this.state.peek() === "complete";
  }

  /** Read the next page, unless all is read. Never rejects. */
  load(rows = PAGE_ROWS): Promise<void> {
    if (this.isComplete) return Promise.resolve();
    this.reading ??= this.read(rows).finally(() => {
      this.reading = null;
    });
    return this.reading;
  }

  complete(): void {
    this.state.value = "complete";
  }

  private async read(rows: number): Promise<void> {
    this.state.value = "loading";
    try {
      const before = this.before === null ? {} : { before: this.before };
      const page = await this.history.doc.transport.history({ ...this.query, ...before, limit: rows, brief: true });
      for (const row of page.executions) {
        this.ids.push(row.id);
        this.history.keepBrief(row);
      }
      this.before = page.next;
      this.state.value = page.next === null ? "complete" : "idle";
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
      this.state.value = "failed";
    }
    this.history.changed();
  }
}

const bySeq = (one: Execution, other: Execution): number => one.seq - other.seq;

export class History {
  /** Ids in their order, oldest first, without a hole up to the newest. */
  readonly order: ReadonlySignal<readonly string[]>;
  /** Moves when a row came or went, or a column of one changed; not for output. */
  readonly revision: ReadonlySignal<number>;
  pager: Pager;
  /** Follow the document no longer. */
  readonly dispose: () => void;

  private readonly _order = signal<readonly string[]>([]);
  private readonly _revision = signal(0);
  private epoch: string | null = null;
  private readonly window = new Map<string, Execution>();
  private readonly briefs = new Map<string, Execution>();
  private readonly wholes = new Map<string, Execution>();
  private readonly listeners = new Map<string, Set<RowListener>>();
  private readonly wanted: string[] = [];
  private readonly reading = new Set<string>();
  private readonly missing = new Set<string>();
  private found: { filter: Filter; pager: Pager } | null = null;

  /** `compare`: the order of rows; of one kernel's that of seq. */
  constructor(
    readonly doc: Followed,
    private readonly compare: (one: Execution, other: Execution) => number = bySeq,
  ) {
    this.order = this._order;
    this.revision = this._revision;
    this.pager = new Pager(this, {}, null);
    this.dispose = doc.onChange((change) => this.receive(change));
    this.receive({ reset: true });
  }

  get(id: string): Execution | undefined {
    return this.window.get(id) ?? this.wholes.get(id) ?? this.briefs.get(id);
  }

  /** The record has its outputs and all of its code. */
  isWhole(id: string): boolean {
    return this.window.has(id) || this.wholes.has(id);
  }

  isLive(id: string): boolean {
    return this.window.has(id);
  }

  isMissing(id: string): boolean {
    return this.missing.has(id);
  }

  /** All that are known, in their order. */
  executions(): Execution[] {
    return this._order
      .peek()
      .map((id) => this.get(id))
      .filter((row) => row !== undefined);
  }

  /** Told of every change of one row, and with null where its record was replaced. */
  onRow(id: string, listener: RowListener): () => void {
    const listeners = this.listeners.get(id) ?? new Set();
    this.listeners.set(id, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.listeners.delete(id);
    };
  }

  /** Read the whole record of a row that only the store has. */
  want(id: string): void {
    if (this.isWhole(id) || this.reading.has(id) || this.missing.has(id) || this.wanted.includes(id)) return;
    this.wanted.push(id);
    this.readNext();
  }

  /** The whole record, from the window or the store; null: there is none. */
  async find(id: string): Promise<Execution | null> {
    const known = this.window.get(id) ?? this.wholes.get(id);
    if (known) return known;
    try {
      const found = await this.doc.transport.execution(id);
      this.keepWhole(found);
      return found;
    } catch {
      return null;
    }
  }

  /** Read pages until a row of this seq is in the list. */
  async reach(seq: number): Promise<void> {
    while (this.pager.frontier > seq && !this.pager.isComplete) {
      await this.pager.load(Math.min(1000, Math.max(PAGE_ROWS, this.pager.frontier - seq)));
      if (this.pager.state.peek() === "failed") return;
    }
  }

  /** The pages that a filter is answered from. */
  pagerOf(filter: Filter): Pager {
    if (!isActive(filter)) return this.pager;
    const query: HistoryQuery = {};
    if (filter.text.trim()) query.text = filter.text.trim();
    if (filter.state) query.state = filter.state;
    if (filter.cell) query.cell = filter.cell;
    if (this.found?.filter !== filter) {
      this.found = { filter, pager: new Pager(this, query, null) };
      if (this.doc.transport.isLiveOnly) this.found.pager.complete();
    }
    return this.found.pager;
  }

  /** Ids that a filter lets through, in their order. */
  select(filter: Filter): readonly string[] {
    const order = this._order.value;
    this._revision.value;
    if (!isActive(filter)) return order;
    const fromStore = new Set(this.pagerOf(filter).ids);
    const ids = new Set([...order, ...this.window.keys(), ...fromStore]);
    return [...ids]
      .map((id) => this.get(id))
      .filter((row) => row !== undefined)
      .filter((row) => matches(filter, row, fromStore.has(row.id)))
      .sort(this.compare)
      .map((row) => row.id);
  }

  keepBrief(row: Execution): void {
    if (!this.wholes.has(row.id)) this.briefs.set(row.id, row);
  }

  /** Rows came in by a page. */
  changed(): void {
    this.sort();
    this._revision.value++;
  }

  private receive(change: Change): void {
    if (change.reset) {
      this.reset();
      return;
    }
    let hasOrder = false;
    let hasColumns = change.kernels || change.meta || change.cells || change.requests.size > 0;
    for (const [id, how] of change.executions) {
      const row = this.doc.executions.get(id);
      if (how.kind === "removed" || !row) {
        // It left the window and is the store's alone now.
        const last = this.window.get(id);
        this.window.delete(id);
        if (last) this.keepWhole(last);
        hasOrder = true;
        continue;
      }
      this.window.set(id, row);
      if (how.kind === "added") hasOrder = true;
      else if (how.columns) hasColumns = true;
      this.tell(id, row, how);
    }
    if (hasOrder) this.sort();
    if (hasOrder || hasColumns) this._revision.value++;
  }

  private reset(): void {
    const epoch = this.doc.meta?.epoch ?? null;
    if (epoch !== this.epoch) {
      this.epoch = epoch;
      this.briefs.clear();
      this.wholes.clear();
      this.missing.clear();
      this.found = null;
      this.pager = new Pager(this, {}, null);
    }
    this.window.clear();
    for (const [id, row] of this.doc.executions) this.window.set(id, row);
    if (this.pager.ids.length === 0) this.pager = this.pagerBehind();
    this.sort();
    this._revision.value++;
    for (const id of this.listeners.keys()) {
      const row = this.get(id);
      if (row) this.tell(id, row, null);
    }
  }

  /** Pages from the first hole of the window on; none where the window has all. */
  private pagerBehind(): Pager {
    const seqs = [...this.window.values()].map((row) => row.seq).sort((one, other) => other - one);
    let at = 0;
    while (at + 1 < seqs.length && seqs[at + 1] === (seqs[at] ?? 0) - 1) at++;
    const lowest = seqs[at] ?? null;
    const pager = new Pager(this, {}, lowest);
    const isAll = lowest === 1 || lowest === null; // a window without rows: the store has none either
    if (isAll || this.doc.transport.isLiveOnly) pager.complete();
    return pager;
  }

  private sort(): void {
    const frontier = this.pager.frontier;
    const rows = [...this.window.values()].filter((row) => row.seq >= frontier || isOpen(row));
    const seen = new Set(rows.map((row) => row.id));
    for (const known of [this.wholes, this.briefs]) {
      for (const row of known.values()) {
        if (row.seq < frontier || seen.has(row.id) || this.window.has(row.id)) continue;
        seen.add(row.id);
        rows.push(row);
      }
    }
    rows.sort(this.compare);
    const ids = rows.map((row) => row.id);
    const known = this._order.peek();
    if (ids.length !== known.length || ids.some((id, at) => id !== known[at])) this._order.value = ids;
  }

  private keepWhole(row: Execution): void {
    this.wholes.set(row.id, row);
    if (this.wholes.size > WHOLE_ROWS) {
      for (const [id, old] of this.wholes) {
        if (this.listeners.has(id)) continue;
        this.wholes.delete(id);
        if (!this.briefs.has(id) && !this.doc.transport.isLiveOnly) this.briefs.set(id, { ...old, outputs: [] });
        break;
      }
    }
  }

  private readNext(): void {
    while (this.reading.size < READERS) {
      const id = this.wanted.pop(); // what was asked for last is what is looked at
      if (id === undefined) return;
      if (!this.listeners.has(id)) continue; // it was scrolled past
      this.reading.add(id);
      void this.find(id).then((row) => {
        this.reading.delete(id);
        if (row === null) this.missing.add(id);
        const record = row ?? this.get(id);
        if (record && !this.window.has(id)) this.tell(id, record, null);
        this.readNext();
      });
    }
  }

  private tell(id: string, row: Execution, change: ExecutionChange | null): void {
    for (const listener of this.listeners.get(id) ?? []) listener(row, change);
  }
}
