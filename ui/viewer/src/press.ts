/**
 * Which keys are commands?
 *
 * Single letters, wherever nothing is typed; fields and dialogs keep theirs.
 */

import type { ListController } from "./list.tsx";
import { letterKeys } from "./preferences.ts";
import type { Session } from "./session.ts";

export type Deeds = { readonly [key: string]: () => void };

/** What they do to a list. */
export function listDeeds(list: ListController): Deeds {
  return {
    j: () => list.move(1),
    k: () => list.move(-1),
    g: () => list.moveTo("first"),
    G: () => list.moveTo("last"),
    f: () => list.follow(),
  };
}

/** Do what a key asks for, if it is one of these. Esc leaves a field, and the past. */
export function press(session: Session, event: KeyboardEvent, deeds: Deeds): void {
  const target = event.target as HTMLElement;
  const isField = target.closest("input, textarea, select, [contenteditable]") !== null;
  const root = target.getRootNode() as Document | ShadowRoot;
  if (event.ctrlKey || event.metaKey || event.altKey || root.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (isField) target.blur();
    else session.travel.live();
    return;
  }
  const deed = isField || letterKeys.peek() === "off" ? undefined : deeds[event.key];
  if (!deed) return;
  event.preventDefault();
  deed();
}
