/**
 * What did an execution give, in a line?
 *
 * Pure: what stands on the fold of its outputs.
 */

import type { Execution, Output, Stream } from "@rtc-kernel/client";

/** `kinds` in their order, with how many there are; `first`: the beginning of its text. */
export interface Excerpt {
  readonly kinds: readonly (readonly [Kind, number])[];
  readonly first: string;
}

export type Kind = "lines" | "error" | "image" | "html" | "table" | "markdown" | "widget" | "plot" | "output";

const LENGTH = 60;

/** By the richest type that it has, as a frontend would draw it. */
const TYPES: readonly (readonly [RegExp, Kind])[] = [
  [/^application\/vnd\.jupyter\.widget-view\+json$/, "widget"],
  [/^application\/vnd\.(plotly|vega|vegalite|bokehjs|holoviews)/, "plot"],
  [/^(image|video|audio)\//, "image"],
  [/^text\/html$/, "html"],
  [/^text\/(markdown|latex)$/, "markdown"],
];

export function excerptOf({ outputs, omitted_outputs: omitted }: Execution): Excerpt {
  const kinds = new Map<Kind, number>();
  const add = (kind: Kind, count: number): void => void kinds.set(kind, (kinds.get(kind) ?? 0) + count);
  for (const output of outputs) {
    if (output.output_type === "stream") add("lines", countLines(output));
    else add(kindOf(output), output.output_type === "error" || !isText(output) ? 1 : countOf(textOf(output)));
  }
  if (omitted) add("output", omitted);
  const first = outputs.map(textOf).find((text) => /\S/.test(text)) ?? "";
  return { kinds: [...kinds], first: firstLine(first) };
}

function kindOf(output: Exclude<Output, Stream>): Kind {
  if (output.output_type === "error") return "error";
  if (/<table\b/i.test(String(output.data["text/html"] ?? ""))) return "table";
  const types = Object.keys(output.data);
  const known = TYPES.find(([pattern]) => types.some((type) => pattern.test(type)));
  return known?.[1] ?? (isText(output) ? "lines" : "output");
}

const isText = (output: Exclude<Output, Stream>): boolean =>
  output.output_type !== "error" && Object.keys(output.data).every((type) => type === "text/plain");

function textOf(output: Output): string {
  if (output.output_type === "stream") return output.text;
  if (output.output_type === "error") return "";
  const text = output.data["text/plain"];
  return isText(output) && typeof text === "string" ? text : "";
}

/** What is left out has lines, too: about as long as those that are here. */
function countLines({ text, omitted_bytes: omitted }: Stream): number {
  const count = countOf(text);
  return count + (omitted ? Math.round((omitted * count) / Math.max(1, text.length)) : 0);
}

/** Lines; without making any of a long text. */
function countOf(text: string): number {
  let count = text === "" || text.endsWith("\n") ? 0 : 1;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) count++;
  return count;
}

/** Without colours; of a line that was written over, what stood last. */
function firstLine(text: string): string {
  const lines = text.slice(0, 4000).replace(/\u001b\[[0-9;?]*[ -/]*[@-~]/g, "").split("\n");
  const line = lines.map((each) => each.split("\r").findLast((part) => part.trim() !== "")?.trim() ?? "").find(Boolean);
  return line === undefined ? "" : line.length > LENGTH ? `${line.slice(0, LENGTH - 1)}…` : line;
}
