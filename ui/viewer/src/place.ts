/**
 * What is the history shown in: a page of its own, or a part of another one?
 *
 * Pure types: all that sessions and cards ask of what is around them.
 */

import type { Execution, ExecutionChange } from "@rtc-kernel/client";

/** The outputs of one execution, inside an element. */
export interface DrawnOutputs {
  /** Show an execution; of one that is shown already, what is other. */
  show(execution: Execution): void;
  /** Take over a change. `segments`: the texts of a live stream by its index in `outputs`. */
  update(
    execution: Execution,
    change: ExecutionChange,
    segments: (position: number) => readonly string[] | null,
  ): void;
  destroy(): void;
}

export interface Place {
  drawOutputs(host: HTMLElement): DrawnOutputs;
  /** The reader has opened this execution. */
  note(id: string): void;
}
