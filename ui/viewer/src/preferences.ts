/**
 * What did this reader choose? Kept in localStorage, where the browser lets us; otherwise for the life of the page.
 */

import { signal, type Signal } from "@preact/signals";

/** A choice of these values, under a name of its own. */
export function keep<T extends string>(key: string, values: readonly T[], initial: T): Signal<T> {
  const name = `rtc-kernel.${key}`;
  let found: string | null = null;
  try {
    found = localStorage.getItem(name);
  } catch {
    // Storage is closed to us: the choice lasts as long as the page.
  }
  const chosen = signal(values.find((value) => value === found) ?? initial);
  chosen.subscribe((value) => {
    try {
      if (value === initial) localStorage.removeItem(name);
      else localStorage.setItem(name, value);
    } catch {
      // as above
    }
  });
  return chosen;
}

/** Single letters as commands (WCAG 2.1.4 asks that one can turn them off). */
export const letterKeys = keep("letter-keys", ["on", "off"], "on");
export const timelineShown = keep("timeline", ["shown", "hidden"], "shown");

/** Moves whenever other colours are in force, for what does not take them from the style sheet by itself. */
export const colours = signal(0);

export function changeColours(): void {
  colours.value = colours.peek() + 1;
}
