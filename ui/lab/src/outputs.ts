/**
 * What does a cell show of an execution, and what is to be done to show what came since?
 *
 * Pure. Records become nbformat's outputs; two lists of them become the steps from one to the other, which are those
 * of a live execution wherever that is possible, because a browser draws them without drawing all anew.
 */

import {
  type BlobReference,
  type Display,
  type Execution,
  type Json,
  type JsonObject,
  type Output,
  sameValue,
  type Stream,
} from "@rtc-kernel/client";

import type { LabOutput } from "./jupyterlab.ts";

/** The value of a blob, of this media type; undefined: it is not here yet; null: it is not kept. */
export type BlobValue = (digest: string, mediaType: string) => Json | undefined;

/** Digests that are missing, with the media type that they are wanted for. */
export type Missing = Map<string, string>;

export type Step =
  | { do: "add"; output: LabOutput }
  | { do: "set"; index: number; output: LabOutput }
  | { do: "all"; outputs: LabOutput[] };

/** What became of displays: a record's output stays the same object for as long as it says the same. */
export type Made = WeakMap<Output, LabOutput>;

/**
 * Outputs as nbformat has them. Streams of one name that follow each other are one, as a frontend draws them. Ends
 * before the first one of which something is missing.
 */
export function toOutputs(
  outputs: readonly Output[],
  value: BlobValue,
  missing: Missing,
  known: Made = new WeakMap(),
): LabOutput[] {
  const made: LabOutput[] = [];
  for (const output of outputs) {
    const last = made.at(-1);
    if (output.output_type === "stream" && last?.["output_type"] === "stream" && last["name"] === output.name) {
      made[made.length - 1] = { ...last, text: String(last["text"]) + output.text };
      continue;
    }
    const one = known.get(output) ?? toOutput(output, value, missing);
    if (one === null) break;
    if (output.output_type !== "stream") known.set(output, one);
    made.push(one);
  }
  return made;
}

function toOutput(output: Output, value: BlobValue, missing: Missing): LabOutput | null {
  switch (output.output_type) {
    case "stream":
      return { output_type: "stream", name: output.name, text: output.text };
    case "error": {
      const { ename, evalue, traceback } = output;
      return { output_type: "error", ename, evalue, traceback };
    }
    default: {
      const data = toData(output, value, missing);
      if (data === null) return null;
      const { output_type, metadata, execution_count } = output;
      return output_type === "execute_result"
        ? { output_type, data, metadata, execution_count }
        : { output_type, data, metadata };
    }
  }
}

function toData({ data }: Display, value: BlobValue, missing: Missing): JsonObject | null {
  const made: JsonObject = {};
  const lost: string[] = [];
  let whole = true;
  for (const [mediaType, item] of Object.entries(data)) {
    if (!isReference(item)) {
      made[mediaType] = item;
      continue;
    }
    const found = item.blob === null ? null : value(item.blob, mediaType);
    if (found === undefined) {
      if (item.blob !== null) missing.set(item.blob, mediaType);
      whole = false;
    } else if (found === null) lost.push(describe(mediaType, item));
    else made[mediaType] = found;
  }
  if (lost.length > 0 && !("text/plain" in made)) made["text/plain"] = lost.join("\n");
  return whole ? made : null;
}

function isReference(value: Json | BlobReference): value is BlobReference {
  return typeof value === "object" && value !== null && "blob" in value && "bytes" in value && "preview" in value;
}

function describe(mediaType: string, { bytes, preview }: BlobReference): string {
  const size = `[${mediaType}, ${(bytes / 1024).toFixed(1)} KiB: not kept]`;
  return typeof preview === "string" && preview ? `${preview}…\n${size}` : size;
}

/** From what is shown to what is to be shown. */
export function stepsTo(shown: readonly LabOutput[], wanted: readonly LabOutput[]): Step[] {
  const steps: Step[] = [];
  const common = Math.min(shown.length, wanted.length);
  for (let index = 0; index < common; index++) {
    const [before, after] = [shown[index] as LabOutput, wanted[index] as LabOutput];
    if (sameValue(before, after, isSameText)) continue;
    const isLast = index === shown.length - 1;
    const more = isLast && before["name"] === after["name"] ? grown(before["text"], after["text"]) : null;
    if (more !== null) steps.push({ do: "add", output: { ...after, text: more } });
    else if (before["output_type"] !== "stream" && after["output_type"] !== "stream") {
      steps.push({ do: "set", index, output: after });
    } else return [{ do: "all", outputs: [...wanted] }];
  }
  if (shown.length > wanted.length) return [{ do: "all", outputs: [...wanted] }];
  for (const output of wanted.slice(common)) steps.push({ do: "add", output });
  return steps;
}

/**
 * What a stream must say to become another text; null where it cannot. Of the last line what is written over it comes
 * behind a carriage return.
 */
function grown(before: Json | undefined, after: Json | undefined): string | null {
  if (typeof before !== "string" || typeof after !== "string") return null;
  if (after.startsWith(before)) return after.slice(before.length);
  const line = before.lastIndexOf("\n") + 1;
  const isKept = after.length >= before.length && after.startsWith(before.slice(0, line));
  return isKept ? `\r${after.slice(line)}` : null;
}

/** Texts are the same but for the space at their ends, in which encoders of images differ. */
const isSameText = (a: string, b: string): boolean => a.length > 1e3 && a.trimEnd() === b.trimEnd();

/** The part of outputs behind what a user has cleared away while it ran. */
export function behind(outputs: readonly LabOutput[], cleared: readonly LabOutput[]): LabOutput[] {
  const last = cleared.at(-1);
  if (last === undefined) return [...outputs];
  const rest = outputs.slice(cleared.length);
  const at = outputs[cleared.length - 1];
  if (at?.["output_type"] !== "stream" || last["output_type"] !== "stream") return rest;
  const text = String(at["text"]).slice(String(last["text"]).length);
  return text === "" ? rest : [{ ...at, text }, ...rest];
}

/** Whether the document has left something out of it. */
export function isCut(execution: Execution): boolean {
  return execution.omitted_outputs !== null || execution.outputs.some(isCutStream);
}

const isCutStream = (output: Output): output is Stream => output.output_type === "stream" && output.omitted_bytes !== null;

/**
 * All outputs of an execution of which the document has the beginning and the end, from an earlier whole record.
 *
 * @returns null where too much has come since: a newer record is needed.
 */
export function fillIn(whole: readonly Output[], execution: Execution): Output[] | null {
  const { outputs, omitted_outputs: omitted } = execution;
  const split = omitted === null ? outputs.length : Math.floor(outputs.length / 2);
  const gap = omitted ?? 0;
  if (whole.length < split + gap) return null;
  const filled = whole.slice(0, split + gap);
  for (const [position, output] of outputs.entries()) {
    const index = position < split ? position : position + gap;
    const known = whole[index];
    const one = isCutStream(output) ? fillStream(known, output) : output;
    if (one === null) return null;
    filled[index] = one;
  }
  return filled;
}

function fillStream(known: Output | undefined, stream: Stream): Stream | null {
  if (known?.output_type !== "stream") return null;
  const index = codeUnits(stream.text, stream.omitted_index ?? 0);
  const head = stream.text.slice(0, index);
  // Up to here the whole text is what it was: it is all that the tail is not.
  const end = unitsOf(known.text, byteLength(head) + (stream.omitted_bytes ?? 0));
  return end === null ? null : { ...stream, text: known.text.slice(0, end) + stream.text.slice(index) };
}

const byteLength = (text: string): number => new TextEncoder().encode(text).length;

/** The index in code units behind so many code points. */
function codeUnits(text: string, points: number): number {
  let at = 0;
  for (let left = points; left > 0 && at < text.length; left--) at += isPair(text, at) ? 2 : 1;
  return at;
}

/** The index in code units behind so many bytes of UTF-8; null where the text has less. */
function unitsOf(text: string, bytes: number): number | null {
  let at = 0;
  let left = bytes;
  while (left > 0 && at < text.length) {
    const code = text.charCodeAt(at);
    const pair = isPair(text, at);
    left -= code < 0x80 ? 1 : code < 0x800 ? 2 : pair ? 4 : 3;
    at += pair ? 2 : 1;
  }
  return left > 0 ? null : at;
}

const isPair = (text: string, at: number): boolean =>
  (text.charCodeAt(at) & 0xfc00) === 0xd800 && (text.charCodeAt(at + 1) & 0xfc00) === 0xdc00;
