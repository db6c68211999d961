/**
 * What is said to those who listen, and in a line at the bottom to those who look?
 *
 * States that change are said at most once in two seconds, and many at once as a number: a flood says nothing new.
 */

import { signal } from "@preact/signals";
import type { Execution } from "@rtc-kernel/client";
import { STATE_WORDS } from "./executions.ts";
import type { Followed } from "./followed.ts";

const PAUSE_MS = 2000;
const TOAST_MS = 4000;

/** For aria-live. */
export const spoken = signal("");
/** For the eyes; what the reader's own deed led to. */
export const toast = signal("");

const waiting: string[] = [];
let timer: number | undefined;
let toastTimer: number | undefined;

export function announce(text: string, isSeen = false): void {
  waiting.push(text);
  if (timer === undefined) say();
  if (!isSeen) return;
  toast.value = text;
  window.clearTimeout(toastTimer);
  toastTimer = window.setTimeout(() => {
    toast.value = "";
  }, TOAST_MS);
}

function say(): void {
  const [first, ...others] = waiting.splice(0);
  timer = undefined;
  if (first === undefined) return;
  spoken.value =
    others.length === 0
      ? first
      : others.length < 3
        ? [first, ...others].join(". ")
        : `${others.at(-1)}, and ${others.length} more changes before`;
  timer = window.setTimeout(say, PAUSE_MS);
}

/**
 * Says ends and questions; what was there at the first look is not news, nor is what a document brings that comes later.
 *
 * @param whereOf of which kernel an execution is, in words; empty where there is but one.
 */
export function announceStates(doc: Followed, whereOf: (row: Execution) => string = () => ""): () => void {
  const known = new Map<string, string>();
  const note = (): void => {
    for (const row of doc.executions.values()) known.set(row.id, row.input ? "asks" : row.state);
  };
  note();
  return doc.onChange((change) => {
    if (change.reset) {
      note();
      return;
    }
    for (const [id, how] of change.executions) {
      const row = doc.executions.get(id);
      if (!row || (how.kind === "changed" && !how.columns)) continue;
      const state = row.input ? "asks" : row.state;
      if (known.get(id) === state) continue;
      const isFirst = !known.has(id);
      known.set(id, state);
      const where = whereOf(row);
      if (isFirst && where) continue;
      const what = row.execution_count === null ? "An execution" : `Execution ${row.execution_count}`;
      const name = where ? `${where}: ${what}` : what;
      if (state === "asks") announce(`${name} waits for an answer: ${row.input?.prompt ?? ""}`);
      else if (row.state !== "queued" && row.state !== "running")
        announce(`${name} ${STATE_WORDS[row.state].word}${row.error ? `: ${row.error.ename}` : ""}`);
    }
  });
}
