/**
 * What did a batch of Y events change?
 *
 * Pure: what observers saw within one transaction becomes one {@link Change}, and the positions whose outputs are to
 * be read again. Positions are those after the transaction.
 */

import * as Y from "yjs";

/** What became different, per transaction. `reset`: the document began a new life; read all of it again. */
export type Change =
  | { reset: true }
  | {
      reset: false;
      meta: boolean;
      kernels: boolean;
      cells: boolean;
      /** Ids of rows that came, went or changed. */
      comms: ReadonlySet<string>;
      queries: ReadonlySet<string>;
      requests: ReadonlySet<string>;
      executions: ReadonlyMap<string, ExecutionChange>;
    };

export type ExecutionChange =
  | { kind: "added" }
  | { kind: "removed" }
  | {
      kind: "changed";
      /** Anything of the row but its outputs. */
      columns: boolean;
      /** The list: items came, went or were replaced. */
      outputs: boolean;
      /**
       * Streams whose text changed: in one segment, which may be a new one at the end; null: segments went, or came in
       * the middle, or what is omitted changed. (Nothing of this for streams that came with `outputs`.)
       */
      streams: readonly { position: number; segment: number | null }[];
    };

export const NOTHING: ReadonlySet<string> = new Set();

/** A change in which nothing changed, to be spread. */
export const UNCHANGED = {
  reset: false,
  meta: false,
  kernels: false,
  cells: false,
  comms: NOTHING,
  queries: NOTHING,
  requests: NOTHING,
  executions: new Map<string, ExecutionChange>(),
} as const satisfies Change;

type Events = readonly Y.YEvent<Y.AbstractType<unknown>>[];

/** The keys of a root map whose rows these events are about. */
export function changedKeys(events: Events): Set<string> {
  const keys = new Set<string>();
  for (const event of events) {
    if (event.path.length > 0) keys.add(String(event.path[0]));
    else for (const key of event.keys.keys()) keys.add(key);
  }
  return keys;
}

/** What must be read again of one row: `null`: all of it; else its columns, and its outputs at these positions. */
export type Stale = Set<number> | null;

/** What happened to one row within a transaction. */
class Draft {
  kind: "added" | "removed" | "changed" = "changed";
  columns = false;
  outputs = false;
  stale: Stale = new Set();
  private readonly segments = new Map<number, Set<number> | null>();

  /** The text of a stream changed; see {@link ExecutionChange}. */
  addSegment(position: number, segment: number | null): void {
    this.stale?.add(position);
    if (segment === null) {
      this.segments.set(position, null);
      return;
    }
    const known = this.segments.get(position);
    if (known) known.add(segment);
    else if (known === undefined) this.segments.set(position, new Set([segment]));
  }

  finish(): ExecutionChange {
    if (this.kind !== "changed") return { kind: this.kind };
    const streams: { position: number; segment: number | null }[] = [];
    for (const [position, segments] of this.segments) {
      for (const segment of segments === null ? [null] : [...segments].sort((a, b) => a - b)) {
        streams.push({ position, segment });
      }
    }
    return { kind: "changed", columns: this.columns, outputs: this.outputs, streams };
  }
}

/** What happened in `executions`, and what is to be read again. */
export interface ExecutionsChange {
  changes: Map<string, ExecutionChange>;
  stale: Map<string, Stale>;
}

/** `has`: whether the row is there now. */
export function changedExecutions(events: Events, has: (id: string) => boolean): ExecutionsChange {
  const drafts = new Map<string, Draft>();
  const draft = (id: string): Draft => {
    const known = drafts.get(id);
    if (known) return known;
    const made = new Draft();
    drafts.set(id, made);
    return made;
  };
  for (const event of events) {
    if (event.path.length === 0) {
      for (const [key, { action }] of event.keys) noteRow(draft(key), action);
    } else if (has(String(event.path[0]))) {
      noteInside(draft(String(event.path[0])), event);
    }
  }
  const changes = new Map([...drafts].map(([id, one]) => [id, one.finish()] as const));
  const stale = new Map([...drafts].map(([id, one]) => [id, one.stale] as const));
  return { changes, stale };
}

function noteRow(row: Draft, action: "add" | "update" | "delete"): void {
  row.kind = action === "add" ? "added" : action === "delete" ? "removed" : "changed";
  row.columns = row.outputs = true;
  row.stale = null;
}

function noteInside(row: Draft, event: Y.YEvent<Y.AbstractType<unknown>>): void {
  const [, column, position, part, segment] = event.path;
  if (column === undefined) {
    for (const key of event.keys.keys()) {
      if (key === "outputs") {
        row.outputs = true;
        row.stale = null;
      } else row.columns = true;
    }
  } else if (column !== "outputs") {
    row.columns = true;
  } else if (typeof position !== "number") {
    row.outputs = true;
    if (appendedFrom(event) === null) row.stale = null;
  } else if (part === "text") {
    noteText(row, position, typeof segment === "number" ? segment : null, event);
  } else if (part === undefined && [...event.keys.keys()].every(isGap)) {
    row.addSegment(position, null);
  } else {
    row.outputs = true;
    row.stale?.add(position);
  }
}

const isGap = (column: string): boolean => column.startsWith("omitted_");

function noteText(
  row: Draft,
  position: number,
  segment: number | null,
  event: Y.YEvent<Y.AbstractType<unknown>>,
): void {
  const first = segment === null ? appendedFrom(event) : null;
  if (first === null) {
    row.addSegment(position, segment);
    return;
  }
  const { length } = event.target as Y.Array<unknown>;
  for (let at = first; at < length; at++) row.addSegment(position, at);
}

/** The index from which items were added at the end of an array; null where that is not all that happened to it. */
function appendedFrom(event: Y.YEvent<Y.AbstractType<unknown>>): number | null {
  const { delta } = event;
  const [first, second] = delta;
  const kept = delta.length === 2 ? first?.retain : 0;
  const added = (delta.length === 2 ? second : first)?.insert;
  if (delta.length < 1 || delta.length > 2 || typeof kept !== "number" || !Array.isArray(added)) return null;
  return kept + added.length === (event.target as Y.Array<unknown>).length ? kept : null;
}
