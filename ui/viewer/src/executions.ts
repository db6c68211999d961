/**
 * What does an execution's record say to a reader?
 *
 * Pure: states and what they mean, how long it took, where it came from.
 */

import type { Cell, Execution, ExecutionState, Kernel, KernelState } from "@rtc-kernel/client";
import { baseName } from "./format.ts";

export const STATES: readonly ExecutionState[] = ["queued", "running", "ok", "error", "aborted", "lost", "cancelled"];

const OPEN: ReadonlySet<ExecutionState> = new Set<ExecutionState>(["queued", "running"]);

export const isOpen = (execution: Execution): boolean => OPEN.has(execution.state);

/** The word on the card, and the sentence behind it. */
export const STATE_WORDS: Record<ExecutionState, { word: string; says: string }> = {
  queued: { word: "waiting", says: "It waits for its turn." },
  running: { word: "running", says: "The kernel runs it now." },
  ok: { word: "ok", says: "It ran to its end." },
  error: { word: "failed", says: "It ended with an error." },
  aborted: {
    word: "aborted",
    says: "The kernel did not begin it, because something before it failed or it was restarted.",
  },
  lost: { word: "lost", says: "The kernel or its agent ended while it ran, so nobody knows how it would have ended." },
  cancelled: { word: "cancelled", says: "It was taken back before it was sent to the kernel." },
};

/**
 * It ended as it should: nothing says that it failed, or its run was over and nothing was lost (how a process ends that
 * is told to end is its own affair).
 */
export function hasEndedWell(kernel: Kernel, executions: Iterable<Execution>, isHeadless: boolean): boolean {
  if (kernel.state !== "dead") return false;
  if (kernel.exit_code === 0 || !isHeadless) return kernel.exit_code === 0;
  for (const row of executions) if (row.state === "lost" || isOpen(row)) return false;
  return true;
}

export const KERNEL_WORDS: Record<KernelState, { word: string; says: string }> = {
  starting: { word: "starting", says: "The kernel starts." },
  idle: { word: "idle", says: "The kernel waits for something to do." },
  busy: { word: "busy", says: "The kernel runs code." },
  restarting: { word: "restarting", says: "The kernel is being restarted." },
  dead: { word: "dead", says: "The kernel has ended." },
};

/** When it was there for the first time; null where no time is known. */
export function beganAt(execution: Execution): number | null {
  return execution.queued_at ?? execution.started_at ?? execution.finished_at ?? execution.outputs[0]?.at ?? null;
}

/** How long it ran up to its end, or up to `now` while it runs; null where it did not begin. Seconds. */
export function ranFor(execution: Execution, now: number): number | null {
  if (execution.started_at === null) return null;
  if (execution.finished_at !== null) return Math.max(0, execution.finished_at - execution.started_at);
  return execution.state === "running" ? Math.max(0, now - execution.started_at) : null;
}

/** How long it waited before the kernel began it. Seconds. */
export function waitedFor(execution: Execution, now: number): number | null {
  if (execution.queued_at === null) return null;
  const until = execution.started_at ?? (execution.state === "queued" ? now : execution.finished_at);
  return until === null ? null : Math.max(0, until - execution.queued_at);
}

/** What clients of Jupyter say of themselves that were told no name. */
const NAMELESS = new Set(["", "username"]);

/** Null where nobody said it. */
export const whoAsked = (execution: Execution): string | null =>
  NAMELESS.has(execution.submitted_by) ? null : execution.submitted_by;

/** `text` names it in a few words, `title` exactly. */
export interface Origin {
  kind: "job" | "cell" | "link" | "console";
  text: string;
  title: string;
}

/** Code cells of a notebook, counted from 1 as a reader counts them; empty ones are not run and not counted. */
export function numberCells(cells: readonly Cell[]): Map<string, number> {
  const code = cells.filter((cell) => cell.cell_type === "code" && cell.source.trim() !== "");
  return new Map(code.map((cell, at) => [cell.id, at + 1]));
}

/** Where did it come from? `numbers`: of the cells of a headless run, empty otherwise. */
export function originOf(execution: Execution, numbers: ReadonlyMap<string, number>): Origin {
  const number = execution.cell === null ? undefined : numbers.get(execution.cell);
  const { notebook } = execution;
  const inNotebook = notebook ? ` of ${baseName(notebook)}` : "";
  const exact = [
    execution.cell && `cell ${execution.cell}`,
    notebook,
    execution.request && `request ${execution.request}`,
    execution.client && `session ${execution.client}`,
  ]
    .filter(Boolean)
    .join(" · ");
  if (number !== undefined)
    return { kind: "job", text: `cell ${number}${inNotebook}`, title: `Headless run · ${exact}` };
  if (execution.cell !== null) return { kind: "cell", text: `a cell${inNotebook}`, title: `Notebook cell · ${exact}` };
  if (execution.request !== null) return { kind: "link", text: "a link", title: `Asked through a link · ${exact}` };
  return { kind: "console", text: "a console", title: `Console or script, no cell · ${exact}` };
}

/** The last execution of each cell, by the cell's id. */
export function latestOfCells(executions: Iterable<Execution>): Map<string, Execution> {
  const found = new Map<string, Execution>();
  for (const execution of executions) {
    if (execution.cell === null) continue;
    const known = found.get(execution.cell);
    if (!known || known.seq < execution.seq) found.set(execution.cell, execution);
  }
  return found;
}
