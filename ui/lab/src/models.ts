/**
 * Which widgets does the document have, and which of them does an output show?
 *
 * Pure. A model is a row of `comms`; it refers to others by `IPY_MODEL_<id>`.
 */

import { type Comm, type Json, type JsonObject, sameValue } from "@rtc-kernel/client";

import { TARGET, VIEW, type WidgetState } from "./ipywidgets.ts";
import type { LabOutput } from "./jupyterlab.ts";

const REFERENCE = "IPY_MODEL_";

/** Whether it is a widget's, and the kernel has it. */
export const isLive = (comm: Comm | undefined): comm is Comm => comm?.target === TARGET && comm.closed_at === null;

/** Whether it captures outputs. */
export const isOutput = ({ state }: Comm): boolean =>
  state["_model_name"] === "OutputModel" && state["_model_module"] === "@jupyter-widgets/output";

/** The model that an output shows; empty where it has none, or one that was closed. */
export function viewOf({ data }: { data?: unknown }): string {
  const view = (data as JsonObject | undefined)?.[VIEW];
  const id = (view as JsonObject | null | undefined)?.["model_id"];
  return typeof id === "string" ? id : "";
}

/** What becomes of an output whose model is gone: `hide`: as the page does that sees it close; `text`: its text. */
export type Fate = "keep" | "hide" | "text";

/** The outputs, those with the view of a widget as its fate is. What stays as it is stays the same object. */
export function withFates(outputs: readonly LabOutput[], fate: (model: string) => Fate): LabOutput[] {
  return outputs.map((output) => {
    const id = viewOf(output);
    const what = id === "" ? "keep" : fate(id);
    if (what === "keep") return output;
    const { [VIEW]: view, ...data } = output["data"] as JsonObject;
    if (what === "hide") return { ...output, data: { ...data, [VIEW]: { ...(view as JsonObject), model_id: "" } } };
    return "text/plain" in data ? { ...output, data } : output;
  });
}

/** Those of these models that can be made: all that they refer to is there, or made with them. */
export function makeable(comms: readonly Comm[], isThere: (id: string) => boolean): Comm[] {
  let left = [...comms];
  for (;;) {
    const ids = new Set(left.map(({ id }) => id));
    const next = left.filter(({ state }) => references(state).every((id) => ids.has(id) || isThere(id)));
    if (next.length === left.length) return left;
    left = next;
  }
}

function references(value: unknown): string[] {
  if (typeof value === "string") return value.startsWith(REFERENCE) ? [value.slice(REFERENCE.length)] : [];
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return [];
  return Object.values(value).flatMap(references);
}

/** The part of a state that is other than it was. */
export function changed(before: WidgetState, after: WidgetState): WidgetState {
  return Object.fromEntries(Object.entries(after).filter(([key, value]) => !sameValue(before[key], value)));
}

/** A value as ipywidgets takes it from a message: buffers are views of buffers of their own. `blob`: fetches one. */
export async function toMessage(value: unknown, blob: (digest: string) => Promise<Uint8Array | null>): Promise<unknown> {
  if (value instanceof Uint8Array) return new DataView(value.slice().buffer);
  if (Array.isArray(value)) return Promise.all(value.map((item) => toMessage(item, blob)));
  if (typeof value !== "object" || value === null) return value;
  if (isReference(value)) {
    const bytes = value.blob === null ? null : await blob(value.blob);
    if (bytes === null) return undefined;
    if (value.media_type === "application/octet-stream") return new DataView(bytes.slice().buffer);
    return JSON.parse(new TextDecoder().decode(bytes)) as Json;
  }
  const entries = Object.entries(value).map(async ([key, item]) => [key, await toMessage(item, blob)] as const);
  return Object.fromEntries((await Promise.all(entries)).filter(([, item]) => item !== undefined));
}

function isReference(value: object): value is { blob: string | null; media_type: string } {
  return "blob" in value && "bytes" in value && "media_type" in value;
}
