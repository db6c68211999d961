/**
 * Where do executions stand in a chart over time?
 *
 * Pure: records in, bars in seconds and lanes out; what is drawn of them, and how, is the chart's.
 */

import type { Execution, ExecutionState } from "@rtc-kernel/client";
import { beganAt, isOpen } from "../executions.ts";

export interface Bar {
  id: string;
  seq: number;
  count: number | null;
  state: ExecutionState;
  lane: number;
  /** POSIX seconds; `started` null: it never began. */
  queued: number;
  started: number | null;
  ended: number;
}

export interface Chart {
  /** Upwards by the time at which they came. */
  bars: Bar[];
  /** One lane per kernel; the name is the kernel's id. */
  lanes: string[];
}

/**
 * `at`: the moment that is shown; what came later is not there, and what ended later runs. `kernels`: lanes that are there in
 * any case, in this order.
 */
export function layOut(executions: Iterable<Execution>, at: number, kernels: readonly string[] = []): Chart {
  const lanes = [...kernels];
  const places = new Map(lanes.map((kernel, lane) => [kernel, lane]));
  const bars: Bar[] = [];
  for (const row of executions) {
    const queued = beganAt(row);
    if (queued === null || queued > at) continue;
    let lane = places.get(row.kernel);
    if (lane === undefined) places.set(row.kernel, (lane = lanes.push(row.kernel) - 1));
    const started = row.started_at !== null && row.started_at <= at ? row.started_at : null;
    const hasEnded = !isOpen(row) && (row.finished_at ?? queued) <= at;
    const ended = hasEnded ? (row.finished_at ?? started ?? queued) : at;
    const state = hasEnded ? row.state : started === null ? "queued" : "running";
    bars.push({
      id: row.id,
      seq: row.seq,
      count: row.execution_count,
      state,
      lane,
      queued: Math.min(queued, started ?? queued),
      started,
      ended,
    });
  }
  bars.sort((one, other) => one.queued - other.queued);
  return { bars, lanes };
}

/** From the first to the last moment at which something was, with some room; at least ten seconds. */
export function extentOf(bars: readonly Bar[], at: number): [number, number] {
  const first = bars[0]?.queued ?? at - 60;
  const last = bars.length === 0 ? at : bars.reduce((latest, bar) => Math.max(latest, bar.ended), first);
  const span = Math.max(10, last - first);
  return [first - span * 0.02, first + span * 1.02];
}

/** Which bar is at a place; the nearest within `near` pixels, bars that are drawn later first. */
export function findBar(
  bars: readonly Bar[],
  x: number,
  lane: number,
  near: number,
  toX: (at: number) => number,
): Bar | null {
  let best: Bar | null = null;
  let distance = near;
  for (const bar of bars) {
    if (bar.lane !== lane) continue;
    const [from, to] = [toX(bar.started ?? bar.queued), toX(bar.ended)];
    const away = x < from ? from - x : x > to ? x - to : 0;
    if (away <= distance) {
      best = bar;
      distance = away;
    }
  }
  return best;
}

/** Parts of a time axis: `14:03`, `14:03:22`, `:22.5` are all of one kind, as fine as the step between ticks asks. */
export function tickFormat(step_s: number): (at: Date) => string {
  const two = (value: number): string => String(value).padStart(2, "0");
  return (at) => {
    const minutes = `${two(at.getHours())}:${two(at.getMinutes())}`;
    if (step_s >= 86400) return `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    if (step_s >= 60)
      return at.getHours() + at.getMinutes() === 0 ? `${two(at.getMonth() + 1)}-${two(at.getDate())}` : minutes;
    if (step_s >= 1) return `${minutes}:${two(at.getSeconds())}`;
    return `${minutes}:${two(at.getSeconds())}.${String(at.getMilliseconds())
      .padStart(3, "0")
      .slice(0, step_s >= 0.1 ? 1 : 3)}`;
  };
}
