/** What renderers of outputs need of the page. */

import type { Comm, Execution } from "@rtc-kernel/client";

export interface OutputContext {
  /** Where a blob can be had by a GET; null: only by `blob`. */
  blobUrl(digest: string): string | null;
  blob(digest: string): Promise<Uint8Array>;
  comms(): ReadonlyMap<string, Comm>;
  /** Calls back with the ids of comms whose state changed; returns how to stop that. */
  onComms(listener: (ids: ReadonlySet<string>) => void): () => void;
  /** The record of an execution as the history has it, nothing left out. */
  whole(execution: string): Promise<Execution>;
  /** There is nothing but what is in the document: `blob` and `whole` have no answer. */
  isLiveOnly?: boolean;
  /** Texts longer than `lines` are folded. */
  fold: { lines: number };
}

/** Behind what is left out, where nobody here has it. */
export const ELSEWHERE = "it is with the kernel, and not at the relay";

/** One output on the page. */
export interface View {
  readonly element: HTMLElement;
  destroy(): void;
}

export function failureText(error: unknown): string {
  return error instanceof Error && error.message ? error.message : "it could not be read; try again";
}
