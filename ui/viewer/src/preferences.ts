/**
 * What did this reader choose? Kept in localStorage, where the browser lets us; otherwise for the life of the page.
 */

import { signal, type Signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

function kept<T extends string>(key: string, values: readonly T[], initial: T): Signal<T> {
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

export const theme = kept<Theme>("theme", ["system", "light", "dark"], "system");
/** Single letters as commands (WCAG 2.1.4 asks that one can turn them off). */
export const letterKeys = kept("letter-keys", ["on", "off"], "on");
export const timelineShown = kept("timeline", ["shown", "hidden"], "shown");

theme.subscribe((value) => {
  if (value === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = value;
});

/** Moves whenever other colours are in force, for what does not take them from the style sheet by itself. */
export const colours = signal(0);
theme.subscribe(() => {
  colours.value = colours.peek() + 1;
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  colours.value = colours.peek() + 1;
});
