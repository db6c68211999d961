/**
 * What is said to those who listen, and in a line at the bottom to those who look?
 *
 * States that change are said at most once in two seconds, and many at once as a number: a flood says nothing new.
 */

import { signal } from "@preact/signals";

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
