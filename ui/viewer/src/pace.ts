/**
 * When is it time to draw what came?
 *
 * Pure. A line is drawn at once. What comes as a flood is drawn some times a second and not with every update: nobody
 * reads it faster, and each frame costs the processors that the kernel needs.
 */

import type { Execution, ExecutionChange } from "@rtc-kernel/client";

/** So much text between two frames is a flood. Characters. */
const FLOOD_CHARS = 2000;
/** The least time between two frames of a flood. Milliseconds. */
const FLOOD_MS = 200;

export class Pace {
  private drawnAt = -Infinity;
  private drawnChars = 0;

  /** How long to wait. Milliseconds; 0: draw. `chars`: what all streams have, with what is left out of them. */
  wait(now: number, chars: number): number {
    if (Math.abs(chars - this.drawnChars) < FLOOD_CHARS) return 0;
    return Math.max(0, this.drawnAt + FLOOD_MS - now);
  }

  drew(now: number, chars: number): void {
    this.drawnAt = now;
    this.drawnChars = chars;
  }
}

/** How much text an execution has printed. */
export function countChars(
  { outputs }: Execution,
  segments: (position: number) => readonly string[] | null,
): number {
  let chars = 0;
  for (const [position, output] of outputs.entries()) {
    if (output.output_type !== "stream") continue;
    chars += output.omitted_bytes ?? 0;
    for (const segment of segments(position) ?? []) chars += segment.length;
  }
  return chars;
}

/** Two changes of one row as one. Positions are those after the later one. */
export function mergeChanges(one: ExecutionChange | null, other: ExecutionChange): ExecutionChange {
  if (one === null || one.kind !== "changed" || other.kind !== "changed") return other;
  return {
    kind: "changed",
    columns: one.columns || other.columns,
    outputs: one.outputs || other.outputs,
    streams: [...one.streams, ...other.streams],
  };
}
