/**
 * What goes on, in a sentence?
 *
 * Pure: what a reader is told at the top of the page who knows nothing of the kernel.
 */

import type { Cell, Execution, Kernel } from "@rtc-kernel/client";
import { type Attendee, standing } from "./gathering.ts";
import { latestOfCells, ranFor, STATE_WORDS } from "./executions.ts";
import { countOf, firstLine, formatDuration, formatTicking } from "./format.ts";

/** `code` names the execution, `behind` what waits; `target` is the execution that it speaks of. */
export interface Sentence {
  tone: "calm" | "busy" | "bad";
  text: string;
  code?: string;
  behind?: string;
  target: string | null;
}

/** Lines that say little of what a cell does. */
const PREAMBLE = /^\s*(import |from \S+ import |#|%|library\(|using )/;

function named(execution: Execution): string {
  if (execution.private) return "private code";
  const telling = execution.code
    .split("\n")
    .filter((line) => !PREAMBLE.test(line))
    .join("\n");
  return firstLine(telling, 60) || firstLine(execution.code, 60) || "empty code";
}

/** `executions` in the order of seq. */
export function describe(kernel: Kernel | null, executions: readonly Execution[], now: number): Sentence {
  if (kernel?.state === "dead") return { tone: "bad", text: "The kernel is dead", target: null };
  const running = executions.findLast((row) => row.state === "running");
  const waiting = executions.reduce((count, row) => count + (row.state === "queued" ? 1 : 0), 0);
  const behind = waiting ? { behind: `${waiting} waiting` } : {};
  if (running) {
    const text =
      running.input !== null ? "Waits for an answer" : `Running for ${formatTicking(ranFor(running, now) ?? 0)}`;
    return { tone: "busy", text, code: named(running), target: running.id, ...behind };
  }
  const last = executions.findLast((row) => row.state !== "queued");
  if (!last) return { tone: "calm", text: waiting ? `${waiting} waiting` : "Nothing has run yet", target: null };
  const took = ranFor(last, now);
  if (last.state === "error") {
    const after = took === null ? "" : ` after ${formatDuration(took)}`;
    return { tone: "bad", text: `The last run failed${after}: ${failure(last)}`, target: last.id, ...behind };
  }
  const { word } = STATE_WORDS[last.state];
  const text =
    last.state === "ok"
      ? `The last run was ok${took === null ? "" : `, in ${formatDuration(took)}`}`
      : `The last run was ${word}`;
  return { tone: last.state === "lost" ? "bad" : "calm", text, code: named(last), target: last.id, ...behind };
}

/** What goes on in a room: how many kernels, how they are, and whose last run failed. */
export function describeRoom(kernels: readonly Attendee[], executions: readonly Execution[]): Sentence {
  if (kernels.length === 0) return { tone: "calm", text: "No kernel is here yet", target: null };
  const counts = new Map<string, number>();
  for (const one of kernels) {
    const { word } = standing(one);
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const last = new Map<string, Execution>();
  for (const row of executions) if (row.state !== "queued") last.set(row.kernel, row);
  const failed = kernels.filter(({ id }) => last.get(id)?.state === "error").length;
  const said = [...counts].sort(([, one], [, other]) => other - one).map(([word, count]) => `${count} ${word}`);
  const tone = counts.has("busy") ? "busy" : "calm";
  const bad = failed > 0 ? `; the last run failed in ${failed}` : "";
  return { tone, text: `${countOf(kernels.length, "kernel")}: ${said.join(", ")}${bad}`, target: null };
}

/** `ValueError: the first line of what it said`. */
export function failure(execution: Execution): string {
  const error = execution.error;
  if (!error) return "an error";
  const said = firstLine(error.evalue, 90);
  return said ? `${error.ename}: ${said}` : error.ename;
}

export interface Progress {
  /** Code cells, and how many of them have ended. */
  cells: number;
  ended: number;
  failed: Execution | null;
  /** The code cell that runs, from 1. */
  current: number | null;
  startedAt: number | null;
  /** Null while it goes on. */
  endedAt: number | null;
  /** The run stopped before its last cell. */
  stopped: boolean;
}

/** How far is a headless run? Empty code cells are not run. */
export function progressOf(cells: readonly Cell[], executions: Iterable<Execution>, kernel: Kernel | null): Progress {
  const latest = latestOfCells(executions);
  const code = cells.filter((cell) => cell.cell_type === "code" && cell.source.trim() !== "");
  const runs = code.map((cell) => latest.get(cell.id)).filter((run) => run !== undefined);
  const ended = runs.filter((run) => run.state !== "queued" && run.state !== "running");
  const failed = runs.find((run) => run.state === "error" || run.state === "lost") ?? null;
  const current = code.find((cell) => latest.get(cell.id)?.state === "running");
  const began = runs.map((run) => run.started_at ?? run.queued_at).filter((at) => at !== null);
  const ends = ended.map((run) => run.finished_at).filter((at) => at !== null);
  const isOver =
    ended.length === code.length || kernel?.state === "dead" || (failed !== null && ended.length === runs.length);
  return {
    cells: code.length,
    ended: ended.length,
    failed,
    current: current ? code.indexOf(current) + 1 : null,
    startedAt: began.length ? Math.min(...began) : null,
    endedAt: isOver && ends.length ? Math.max(...ends) : null,
    stopped: isOver && ended.length < code.length,
  };
}

/** The progress as a sentence. */
export function describeProgress(progress: Progress, now: number): Sentence {
  const { cells, ended, failed, current, startedAt, endedAt } = progress;
  const time =
    startedAt === null ? "" : formatDuration(Math.floor((endedAt ?? now) - startedAt)).replace(/\.0 s$/, " s");
  if (failed && endedAt === null) {
    const at = current === null ? `${ended} of ${countOf(cells, "cell")} done` : `Running cell ${current} of ${cells}`;
    return { tone: "busy", text: `${at}, ${time} so far; a cell failed: ${failure(failed)}`, target: failed.id };
  }
  if (failed) {
    const rest = cells - ended;
    const not = progress.stopped && rest > 0 ? `; ${countOf(rest, "cell")} did not run` : "";
    return { tone: "bad", text: `Failed${time && ` after ${time}`}: ${failure(failed)}${not}`, target: failed.id };
  }
  if (endedAt !== null) {
    if (progress.stopped)
      return { tone: "bad", text: `Ended early: ${ended} of ${countOf(cells, "cell")} ran, in ${time}`, target: null };
    return { tone: "calm", text: `Finished: all ${countOf(cells, "cell")} ok in ${time}`, target: null };
  }
  if (startedAt === null)
    return { tone: "calm", text: `${countOf(cells, "cell")} to run, none has begun`, target: null };
  const at = current === null ? `${ended} of ${countOf(cells, "cell")} done` : `Running cell ${current} of ${cells}`;
  return { tone: "busy", text: `${at}, ${time} so far`, target: null };
}
