/**
 * Which executions does the reader want to see?
 *
 * Pure. Text is searched in code, names of errors and text outputs, without regard to case, as the store does.
 */

import type { Execution, ExecutionState } from "@rtc-kernel/client";
import { whoAsked } from "./executions.ts";

export interface Filter {
  /** Null: all. */
  state: ExecutionState | null;
  who: string | null;
  cell: string | null;
  /** Of a room. */
  kernel: string | null;
  text: string;
}

/** Stands for those who said no name. */
export const NOBODY = "somebody";

export const NO_FILTER: Filter = { state: null, who: null, cell: null, kernel: null, text: "" };

export const isActive = (filter: Filter): boolean =>
  filter.state !== null ||
  filter.who !== null ||
  filter.cell !== null ||
  filter.kernel !== null ||
  filter.text.trim() !== "";

export const sameFilter = (one: Filter, other: Filter): boolean =>
  one.state === other.state &&
  one.who === other.who &&
  one.cell === other.cell &&
  one.kernel === other.kernel &&
  one.text === other.text;

/** `textIsKnown`: the store has found its text already, in parts that the record here may lack. */
export function matches(filter: Filter, execution: Execution, textIsKnown = false): boolean {
  if (filter.state !== null && execution.state !== filter.state) return false;
  if (filter.who !== null && (whoAsked(execution) ?? NOBODY) !== filter.who) return false;
  if (filter.cell !== null && execution.cell !== filter.cell) return false;
  if (filter.kernel !== null && execution.kernel !== filter.kernel) return false;
  const wanted = filter.text.trim().toLowerCase();
  return wanted === "" || textIsKnown || hasText(execution, wanted);
}

function hasText(execution: Execution, wanted: string): boolean {
  const has = (text: unknown): boolean => typeof text === "string" && text.toLowerCase().includes(wanted);
  if (has(execution.code) || has(execution.error?.ename) || has(execution.error?.evalue)) return true;
  return execution.outputs.some((output) => {
    if (output.output_type === "stream") return has(output.text);
    if (output.output_type === "error") return has(output.ename) || has(output.evalue) || output.traceback.some(has);
    return Object.entries(output.data).some(([type, value]) => type.startsWith("text/") && has(value));
  });
}
