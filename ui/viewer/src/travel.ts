/**
 * Which moment is shown?
 *
 * Null is now. It keeps the marks of what is looked at, plays, and gives records as they were; how a record was at a
 * moment is the client's `executionAt`.
 */

import { signal } from "@preact/signals";
import { executionAt, type Execution, type Mark } from "@rtc-kernel/client";
import { readNow } from "./clock.ts";
import { beganAt, isOpen } from "./executions.ts";
import type { History } from "./history.ts";

/** Frames a second while it plays: text comes in such steps at best (50 ms). */
const FRAME_MS = 50;

export const SPEEDS = [1, 4, 16] as const;
export type Speed = (typeof SPEEDS)[number];

export class Travel {
  /** POSIX seconds; null: now. */
  readonly at = signal<number | null>(null);
  readonly playing = signal(false);
  readonly speed = signal<Speed>(1);
  private readonly marks = new Map<string, { marks: readonly Mark[]; final: boolean }>();
  private readonly reading = new Set<string>();
  private timer: number | undefined;

  constructor(private readonly history: History) {}

  go(at: number): void {
    if (this.at.peek() === null) this.forgetOpen();
    if (at >= readNow()) this.live();
    else this.at.value = at;
  }

  live(): void {
    this.pause();
    this.at.value = null;
  }

  play(): void {
    if (this.at.peek() === null || this.timer !== undefined) return;
    this.playing.value = true;
    let last = performance.now();
    this.timer = window.setInterval(() => {
      const time = performance.now();
      const at = this.at.peek();
      if (at !== null) this.go(at + ((time - last) / 1000) * this.speed.peek());
      last = time;
    }, FRAME_MS);
  }

  pause(): void {
    window.clearInterval(this.timer);
    this.timer = undefined;
    this.playing.value = false;
  }

  /** Of these ids, in order, those that were there. */
  present(ids: readonly string[], at: number): readonly string[] {
    return ids.filter((id) => {
      const row = this.history.get(id);
      const began = row ? beganAt(row) : null;
      return began !== null && began <= at;
    });
  }

  /** The record as it was; it asks the store for what it lacks, and `again` is called when that has come. */
  record(id: string, at: number, again: () => void): Execution | null {
    const row = this.history.get(id);
    if (!row) return null;
    const known = this.marks.get(id);
    if (!known) this.read(row, again);
    return executionAt(row, known?.marks ?? [], at);
  }

  private read(row: Execution, again: () => void): void {
    if (this.reading.has(row.id) || !row.outputs.some((output) => output.output_type === "stream")) return;
    this.reading.add(row.id);
    this.history.doc.transport
      .marks(row.id)
      .then(
        (marks) => this.marks.set(row.id, { marks, final: !isOpen(row) }),
        () => this.marks.set(row.id, { marks: [], final: true }), // its text is shown all at once
      )
      .finally(() => {
        this.reading.delete(row.id);
        again();
      });
  }

  /** What ran when its marks were read has grown since. */
  private forgetOpen(): void {
    for (const [id, { final }] of this.marks) if (!final) this.marks.delete(id);
  }
}
