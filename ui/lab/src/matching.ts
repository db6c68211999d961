/**
 * Which execution belongs to which cell?
 *
 * Pure. By the cell's id, where the frontend that ran it said one; else by the code, where one cell alone has it:
 * consoles name no cell, others name theirs by ids of their own, and a notebook of nbformat 4.4 gets new ids whenever
 * it is opened.
 */

import { type Execution, hasEnded } from "@rtc-kernel/client";

/** What is to be known of a code cell. */
export interface CellKey {
  id: string;
  source: string;
}

/** The key of `Execution.metadata` that says that a user has cleared what it gave. */
export const CLEARED = "jupyterlab_cleared";

/** The latest execution of each cell that began, or that still may, by the cell's id. */
export function latestOf(cells: readonly CellKey[], executions: Iterable<Execution>): Map<string, Execution> {
  const places = new Places(cells);
  const latest = new Map<string, Execution>();
  for (const execution of executions) {
    const cell = places.of(execution);
    if (cell === null || !counts(execution)) continue;
    const known = latest.get(cell);
    if (known === undefined || known.seq < execution.seq) latest.set(cell, execution);
  }
  return latest;
}

/** Where executions belong, in one state of a notebook. */
export class Places {
  private readonly ids: ReadonlySet<string>;
  private readonly bySource = new Map<string, string | null>();

  constructor(cells: readonly CellKey[]) {
    this.ids = new Set(cells.map(({ id }) => id));
    for (const { id, source } of cells) this.bySource.set(source, this.bySource.has(source) ? null : id);
  }

  /** The id of its cell; null where there is none. */
  of({ cell, code, private: isPrivate }: Execution): string | null {
    if (cell !== null && this.ids.has(cell)) return cell;
    return isPrivate || code.trim() === "" ? null : (this.bySource.get(code) ?? null);
  }
}

/** Whether a cell shows it: one that ended before it began leaves what was there before. */
export function counts(execution: Execution): boolean {
  return !hasEnded(execution) || execution.started_at !== null || execution.outputs.length > 0;
}

/** Whether it ran what the cell says. Of very long code only the beginning is known. */
export function isCodeOf(execution: Execution, source: string): boolean {
  return execution.omitted_code_bytes === null ? execution.code === source : source.startsWith(execution.code);
}
