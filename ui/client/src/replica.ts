/**
 * What does our copy of one epoch of `state` say?
 *
 * Owns a Y document, which nobody but the agent writes: bytes in, what changed out, no I/O. Rows are read as records
 * when somebody asks for them, and after a change only what changed of them, so that a flood of output costs what was
 * added. An epoch is never merged with another: a new life is a new replica.
 */

import * as Y from "yjs";

import {
  type Change,
  changedExecutions,
  changedKeys,
  type ExecutionChange,
  type ExecutionsChange,
  type Stale,
  UNCHANGED,
} from "./changes.ts";
import { malformed } from "./errors.ts";
import { type Message, writeStep1 } from "./messages.ts";
import type { Cell, Comm, Execution, Kernel, Meta, Query } from "./records.ts";
import {
  readCell,
  readComm,
  readExecution,
  readKernel,
  readMeta,
  readQuery,
  type Row,
  segmentsOf,
} from "./schema.ts";

/**
 * One table as records: a new object whenever a row changed, the same object as long as it did not.
 *
 * @param read a row as a record; given the record as it was, only its columns and its outputs at the positions in the
 *   set need be read.
 */
class Rows<Record> implements ReadonlyMap<string, Record> {
  private readonly root: Y.Map<Row>;
  private readonly read: (id: string, row: Row, known: Record | null, changed: Set<number> | null) => Record;
  private readonly records = new Map<string, Record>();
  private readonly stale = new Map<string, Stale>();

  constructor(
    root: Y.Map<Row>,
    read: (id: string, row: Row, known: Record | null, changed: Set<number> | null) => Record,
  ) {
    this.root = root;
    this.read = read;
  }

  /** These rows changed. */
  invalidate(id: string, stale: Stale): void {
    if (!this.root.has(id)) {
      this.records.delete(id);
      this.stale.delete(id);
      return;
    }
    const known = this.stale.get(id);
    if (known === undefined || stale === null) this.stale.set(id, stale);
    else if (known !== null) for (const position of stale) known.add(position);
  }

  get(id: string): Record | undefined {
    const known = this.records.get(id);
    const stale = this.stale.get(id);
    if (known !== undefined && stale === undefined) return known;
    const row = this.root.get(id);
    if (!(row instanceof Y.Map)) return undefined;
    const record = this.read(id, row, stale ? (known ?? null) : null, stale ?? null);
    this.records.set(id, record);
    this.stale.delete(id);
    return record;
  }

  has(id: string): boolean {
    return this.root.has(id);
  }

  get size(): number {
    return this.root.size;
  }

  *entries(): MapIterator<[string, Record]> {
    for (const id of this.root.keys()) {
      const record = this.get(id);
      if (record !== undefined) yield [id, record];
    }
    return undefined;
  }

  *keys(): MapIterator<string> {
    for (const [id] of this.entries()) yield id;
    return undefined;
  }

  *values(): MapIterator<Record> {
    for (const [, record] of this.entries()) yield record;
    return undefined;
  }

  [Symbol.iterator](): MapIterator<[string, Record]> {
    return this.entries();
  }

  forEach(callback: (value: Record, key: string, map: ReadonlyMap<string, Record>) => void): void {
    for (const [id, record] of this.entries()) callback(record, id, this);
  }
}

/** What one message of the agent did. */
export interface Received {
  /** It was the answer to our step 1: what is shown is current. */
  answered: boolean;
  /** What it changed; null: nothing. Always null until the first answer has come, after which everything is new. */
  change: Change | null;
}

const QUIET: Received = { answered: false, change: null };

export class Replica {
  readonly epoch: string;
  readonly executions: Rows<Execution>;
  readonly comms: Rows<Comm>;
  readonly queries: Rows<Query>;
  readonly kernels: Rows<Kernel>;
  private readonly doc = new Y.Doc();
  private readonly metaRoot: Row;
  private readonly cellRoot: Y.Map<Row>;
  private metaRecord: Meta | null | undefined;
  private cellRecords: readonly Cell[] | undefined;
  private draft: Draft = {};
  private whole = false;

  constructor(epoch: string) {
    this.epoch = epoch;
    this.metaRoot = this.doc.getMap("meta");
    this.cellRoot = this.doc.getMap("cells");
    this.executions = new Rows(this.doc.getMap<Row>("executions"), readExecution);
    this.comms = new Rows(this.doc.getMap<Row>("comms"), readComm);
    this.queries = new Rows(this.doc.getMap<Row>("queries"), readQuery);
    this.kernels = new Rows(this.doc.getMap<Row>("kernels"), readKernel);
  }

  /** Whether the first answer has come. */
  get isWhole(): boolean {
    return this.whole;
  }

  get meta(): Meta | null {
    return (this.metaRecord ??= readMeta(this.metaRoot));
  }

  /** In the order of `index`. */
  get cells(): readonly Cell[] {
    return (this.cellRecords ??= [...this.cellRoot]
      .map(([id, row]) => readCell(id, row))
      .sort((a, b) => a.index - b.index));
  }

  /** See `LiveDocument.segments`. */
  segments(execution: string, position: number): readonly string[] | null {
    return segmentsOf(this.executions.get(execution)?.outputs[position]);
  }

  /** What to send first, and whenever something may be missing: our state vector. */
  request(): Uint8Array {
    return writeStep1(Y.encodeStateVector(this.doc));
  }

  /**
   * Apply one message of the agent.
   *
   * @throws RTCError (4400): an update that cannot be read; drop the replica.
   */
  receive(message: Message): Received {
    if (message.type !== "step2" && message.type !== "update") return QUIET;
    try {
      Y.applyUpdate(this.doc, message.update);
    } catch (error) {
      throw malformed("an update that cannot be read", error);
    }
    const answered = message.type === "step2";
    if (answered && !this.whole) {
      this.whole = true;
      this.observe();
    }
    return { answered, change: this.takeChange() };
  }

  /** Free what the document holds. Records that were read stay as they are. */
  destroy(): void {
    this.doc.destroy();
  }

  private observe(): void {
    this.metaRoot.observeDeep(() => {
      this.metaRecord = undefined;
      this.draft.meta = true;
    });
    this.cellRoot.observeDeep(() => {
      this.cellRecords = undefined;
      this.draft.cells = true;
    });
    this.doc.getMap<Row>("kernels").observeDeep((events) => {
      for (const id of changedKeys(events)) this.kernels.invalidate(id, null);
      this.draft.kernels = true;
    });
    this.doc.getMap<Row>("comms").observeDeep((events) => {
      this.draft.comms = changedKeys(events);
      for (const id of this.draft.comms) this.comms.invalidate(id, null);
    });
    this.doc.getMap<Row>("queries").observeDeep((events) => {
      this.draft.queries = changedKeys(events);
      for (const id of this.draft.queries) this.queries.invalidate(id, null);
    });
    const executions = this.doc.getMap<Row>("executions");
    executions.observeDeep((events) => {
      const seen: ExecutionsChange = changedExecutions(events, (id) => executions.has(id));
      for (const [id, stale] of seen.stale) this.executions.invalidate(id, stale);
      this.draft.executions = seen.changes;
    });
  }

  private takeChange(): Change | null {
    const { draft } = this;
    this.draft = {};
    return Object.keys(draft).length > 0 ? { ...UNCHANGED, ...draft } : null;
  }
}

/** What observers saw within one transaction. */
interface Draft {
  meta?: true;
  cells?: true;
  kernels?: true;
  comms?: Set<string>;
  queries?: Set<string>;
  executions?: Map<string, ExecutionChange>;
}
