/**
 * What of the requests is shown to whoever decides on them?
 *
 * Pure.
 */

import type { Request } from "@rtc-kernel/client";

/** What waits, is held or was just refused, in its order. What is not for the kernel's queue is over in no time. */
export function whatWaits(requests: Iterable<Request>): Request[] {
  const isShown = ({ action, state }: Request): boolean =>
    state === "refused" || (action === "execute" && (state === "held" || state === "requested"));
  return [...requests].filter(isShown).sort((one, other) => (one.ordinal ?? Infinity) - (other.ordinal ?? Infinity));
}

/** The first line that says something, cut. */
export function firstLine(text: string, chars: number): string {
  const line = text.split("\n").find((each) => each.trim() !== "") ?? "";
  const cut = line.trim();
  return cut.length > chars ? `${cut.slice(0, chars - 1)}…` : cut;
}
