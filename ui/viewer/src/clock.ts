/**
 * What time is it, as the kernel's machine sees it?
 *
 * `now` moves only while somebody needs it and the page is visible, so an idle page does nothing. POSIX seconds.
 */

import { signal } from "@preact/signals";

const TICK_MS = 200;

export const now = signal(Date.now() / 1000);

let ahead_s = 0;
let timer: number | undefined;

/** A time that the kernel's machine has just written: clocks of two machines differ, often by more than a run takes. */
export function noteTime(at: number): void {
  const ahead = at - Date.now() / 1000;
  // What arrives is never from the future, so a later time than ours says how far ours is behind.
  if (ahead > ahead_s) ahead_s = ahead;
}

export const readNow = (): number => Date.now() / 1000 + ahead_s;

/** Whether something on the page ticks. */
export function setTicking(ticks: boolean): void {
  now.value = readNow();
  if (ticks === (timer !== undefined)) return;
  if (ticks) {
    timer = window.setInterval(() => {
      if (!document.hidden) now.value = readNow();
    }, TICK_MS);
  } else {
    window.clearInterval(timer);
    timer = undefined;
  }
}
