/**
 * How does a state look?
 *
 * One shape per state, the same in cards, the timeline and its legend; colour comes on top and never alone.
 */

import type { ExecutionState, KernelState } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { KERNEL_WORDS, STATE_WORDS } from "./executions.ts";

/** Paths in a box of 12 by 12, around 6,6. `fill` shapes are filled, others stroked. */
export const SHAPES: Record<ExecutionState, { path: string; fill: boolean }> = {
  queued: { path: "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9M6 3.5V6l1.8 1.2", fill: false },
  running: { path: "M3 1.5L10.5 6L3 10.5Z", fill: true },
  ok: { path: "M1.8 6.4L4.8 9.4L10.4 2.8", fill: false },
  error: { path: "M2.2 2.2L9.8 9.8M9.8 2.2L2.2 9.8", fill: false },
  aborted: { path: "M2.2 2.2H9.8V9.8H2.2Z", fill: false },
  lost: { path: "M6 1L11 6L6 11L1 6Z", fill: false },
  cancelled: { path: "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9M2.9 9.1L9.1 2.9", fill: false },
};

const KERNEL_SHAPES: Record<KernelState, ExecutionState> = {
  starting: "queued",
  idle: "ok",
  busy: "running",
  restarting: "queued",
  dead: "error",
};

export function Shape({ state }: { state: ExecutionState }): JSX.Element {
  const { path, fill } = SHAPES[state];
  return (
    <svg
      class={`shape ${fill ? "filled" : "stroked"}`}
      viewBox="0 0 12 12"
      width="12"
      height="12"
      aria-hidden="true"
      focusable="false"
    >
      <path d={path} />
    </svg>
  );
}

interface StateMarkProps {
  state: ExecutionState;
  asks?: boolean;
  /** For a narrow place: the word is only for those who listen. */
  isShort?: boolean;
}

/** Shape and word. */
export function StateMark({ state, asks = false, isShort = false }: StateMarkProps): JSX.Element {
  const word = asks ? "asks" : STATE_WORDS[state].word;
  return (
    <span class="state" data-state={state} title={isShort ? word : STATE_WORDS[state].says}>
      <Shape state={state} />
      {isShort ? <span class="unseen">{word}</span> : word}
    </span>
  );
}

interface KernelMarkProps {
  state: KernelState;
  isOver: boolean;
  /** Unless given, that of the state. */
  word?: string;
}

export function KernelMark({ state, isOver, word }: KernelMarkProps): JSX.Element {
  const tone = isOver
    ? "cancelled"
    : { starting: "queued", idle: "idle", busy: "running", restarting: "queued", dead: "error" }[state];
  return (
    <span class="state kernel-state" data-state={tone} title={KERNEL_WORDS[state].says}>
      <Shape state={isOver ? "aborted" : KERNEL_SHAPES[state]} />
      {word ?? (isOver ? "ended" : KERNEL_WORDS[state].word)}
    </span>
  );
}
