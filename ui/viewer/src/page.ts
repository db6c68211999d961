/**
 * What does a history have to do with the page that it has for itself?
 *
 * Door: the page's address names an execution, and its outputs are drawn by the page's own renderers.
 */

import { effect, untracked } from "@preact/signals";
import type { Followed } from "./followed.ts";
import { type OutputContext, OutputsView } from "./outputs/index.ts";
import type { Place } from "./place.ts";
import type { Session } from "./session.ts";

/** So many lines of an output are shown before it folds. */
const FOLD_LINES = 24;

/** In the page's address. */
export const addressOf = (id: string): string => `#execution=${encodeURIComponent(id)}`;

export function makePlace(doc: Followed): Place {
  const context: OutputContext = {
    blobUrl: (digest) => doc.transport.blobUrl(digest),
    blob: (digest) => doc.transport.blob(digest),
    comms: () => doc.comms,
    whole: (execution) => doc.transport.execution(execution),
    onComms: (listener) => doc.onChange((change) => listener(change.reset ? new Set(doc.comms.keys()) : change.comms)),
    isLiveOnly: doc.transport.isLiveOnly ?? false,
    fold: { lines: FOLD_LINES },
  };
  return {
    drawOutputs: (host) => new OutputsView(host, context),
    note: (id) => {
      if (location.hash !== addressOf(id)) history.replaceState(null, "", addressOf(id));
    },
  };
}

/** A headless run begins with its notebook, unless it turns out to be one of several. */
export function beginWithNotebook(session: Session): void {
  let isFirst = true;
  const stop = effect(() => {
    if (session.isMany) {
      if (!isFirst) session.view.value = "history";
      queueMicrotask(() => stop());
    } else if (session.cells.value.length > 0 && isFirst) {
      isFirst = false;
      session.view.value = "notebook";
    }
  });
}

/** Open what the address names, as soon as there is a picture and whenever it changes. */
export function followAddress(session: Session): void {
  const read = (): void => {
    const named = /[#&]execution=([^&]+)/.exec(location.hash)?.[1];
    if (named) void session.open(decodeURIComponent(named));
  };
  window.addEventListener("hashchange", read);
  const stop = effect(() => {
    if (!session.isThere) return;
    queueMicrotask(() => stop());
    untracked(read);
  });
}
