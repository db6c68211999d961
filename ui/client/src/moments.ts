/**
 * How was an execution at a time?
 *
 * Pure: a record as it is now, and when the text of its streams had grown to where, become the record as it was. The
 * same as `rtc_kernel/moments.py`, which has the theory, and what is not kept: docs/document.md, "Time".
 */

import type { Display, Execution, Mark, Output } from "./records.ts";
import { countCodePoints, hasEnded } from "./schema.ts";

/** `text/plain` of a display whose value at a time is not known. */
export const UNKNOWN = "[updated later; what it showed at this time is not kept]";

/** Keys of `metadata` that come with the reply. */
const OF_THE_END = new Set(["user_expressions"]);

/** When an execution was there for the first time; infinity where no time of it is known. */
export function beganAt(run: Execution): number {
  const known = [run.queued_at, run.started_at, ...run.outputs.map((output) => output.at)].filter(isTime);
  if (known.length === 0 && run.finished_at !== null) return run.finished_at;
  return least(known);
}

/**
 * When its end was known; of one that ended at a time that is not known, its last sign of life; infinity while it has
 * not ended.
 */
export function endedAt(run: Execution, marks: readonly Mark[] = []): number {
  if (!hasEnded(run)) return Infinity;
  if (run.finished_at !== null) return run.finished_at;
  const signs = [run.queued_at, run.started_at].filter(isTime);
  for (const output of run.outputs) signs.push(output.at);
  for (const [, , at] of marks) signs.push(at);
  return signs.length === 0 ? Infinity : -least(signs.map((at) => -at));
}

/** By which time each of its outputs was there, never downwards. */
export function arrivals(run: Execution): number[] {
  let earliest = Infinity;
  return run.outputs
    .map((output) => {
      const isBefore = isUpdated(output) && run.finished_at !== null;
      return isBefore ? Math.min(output.at, run.finished_at ?? Infinity) : output.at;
    })
    .reverse()
    .map((at) => (earliest = Math.min(earliest, at)))
    .reverse();
}

/**
 * The record as it was.
 *
 * @param execution as it is now, from the history: a live one may have its middle left out.
 * @param marks of its streams (`Transport.marks`), upwards in time.
 * @param at POSIX seconds; infinity gives the record as it is.
 * @returns the record with the outputs of that time; null: it was not there yet. Annotations have no time and stay.
 */
export function executionAt(execution: Execution, marks: readonly Mark[], at: number): Execution | null {
  if (at === Infinity) return execution;
  if (at < beganAt(execution)) return null;
  const there = arrivals(execution);
  const outputs = execution.outputs
    .map((output, position) => (there[position] ?? Infinity) <= at && outputAt(output, position, marks, at))
    .filter((output): output is Output => output !== false);
  if (at >= endedAt(execution, marks)) return { ...execution, outputs };
  const metadata = Object.fromEntries(Object.entries(execution.metadata).filter(([key]) => !OF_THE_END.has(key)));
  const before: Execution = { ...execution, finished_at: null, error: null, metadata, outputs };
  if (before.input !== null && at < before.input.since) before.input = null;
  const isStarted = execution.started_at !== null && execution.started_at <= at;
  if (isStarted || outputs.length > 0) return { ...before, state: "running" };
  return { ...before, state: "queued", started_at: null, execution_count: null };
}

/** When the record changed, upwards: all the times at which {@link executionAt} gives another one than before. */
export function times(execution: Execution, marks: readonly Mark[] = []): number[] {
  const first = beganAt(execution);
  const found = new Set([first, endedAt(execution, marks), ...arrivals(execution)]);
  for (const at of [execution.queued_at, execution.started_at, execution.input?.since]) if (isTime(at)) found.add(at);
  for (const output of execution.outputs) found.add(output.at);
  for (const [, , at] of marks) found.add(at);
  return [...found].filter((at) => at >= first && at < Infinity).sort((a, b) => a - b);
}

function outputAt(output: Output, position: number, marks: readonly Mark[], at: number): Output {
  if (output.output_type === "stream") {
    const chars = charsAt(output.at, marks, position, at);
    return chars === Infinity || chars >= countCodePoints(output.text)
      ? output
      : { ...output, text: cut(output.text, chars) };
  }
  if (at < output.at && isUpdated(output)) return { ...output, data: { "text/plain": UNKNOWN }, metadata: {} };
  return output;
}

/** How many code points of a stream's text were there; infinity: all of it. */
function charsAt(began: number, marks: readonly Mark[], position: number, at: number): number {
  if (at < began) return 0;
  let chars = 0;
  for (const [of, grown, when] of marks) {
    if (of !== position) continue;
    if (when > at) return chars;
    chars = grown;
  }
  return Infinity;
}

/** The first so many code points of a text. */
function cut(text: string, chars: number): string {
  let at = 0;
  for (let count = 0; count < chars && at < text.length; count++) at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
  return text.slice(0, at);
}

/** Whether it may have been updated since it came. */
const isUpdated = (output: Output): output is Display =>
  output.output_type === "display_data" && output.display_id !== null;

const isTime = (at: number | null | undefined): at is number => typeof at === "number";

/** The least of them; infinity of none. (`Math.min(...)` fails for very many.) */
const least = (values: readonly number[]): number => values.reduce((a, b) => Math.min(a, b), Infinity);
