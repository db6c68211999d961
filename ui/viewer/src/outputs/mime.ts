/** Which of the media types that an output comes in is shown, and how? Pure. */

import type { BlobReference, Display, Json } from "@rtc-kernel/client";

export type Kind = "widget" | "html" | "markdown" | "latex" | "svg" | "image" | "json" | "javascript" | "text" | "unknown";
export type Value = Json | BlobReference;

export interface Choice {
  type: string;
  kind: Kind;
  value: Value;
}

/** Richest first, as JupyterLab ranks them. */
const RANKED: readonly (readonly [RegExp, Kind])[] = [
  [/^application\/vnd\.jupyter\.widget-view\+json$/, "widget"],
  [/^text\/html$/, "html"],
  [/^text\/markdown$/, "markdown"],
  [/^text\/latex$/, "latex"],
  [/^image\/svg\+xml$/, "svg"],
  [/^image\/(png|jpeg|gif|webp|avif|bmp)$/, "image"],
  [/^application\/(geo\+|ld\+)?json$/, "json"],
  [/^(application|text)\/(x-)?(java|ecma)script$/, "javascript"],
  [/^text\/plain$/, "text"],
  [/^text\/[\w.+-]+$/, "text"],
  [/^[\w.+-]+\/[\w.+-]+\+json$/, "json"],
];

const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function isReference(value: unknown): value is BlobReference {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const { blob, bytes } = value as { blob?: unknown; bytes?: unknown };
  return typeof bytes === "number" && "preview" in value && (blob === null || (typeof blob === "string" && DIGEST.test(blob)));
}

/** All types that can be shown, richest first; what is too large to be kept comes last. Never empty. */
export function rankTypes(data: Display["data"]): Choice[] {
  const found: (Choice & { rank: number })[] = [];
  for (const [type, value] of Object.entries(data)) {
    const at = RANKED.findIndex(([pattern]) => pattern.test(type));
    const rank = (at < 0 ? RANKED.length : at) + (isReference(value) && value.blob === null ? 100 : 0);
    found.push({ type, kind: RANKED[at]?.[1] ?? "unknown", value, rank });
  }
  found.sort((one, other) => one.rank - other.rank);
  return found.length > 0 ? found : [{ type: "", kind: "unknown", value: null }];
}

/** A value as text: nbformat keeps some as a list of lines. */
export function asText(value: Json): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((line) => typeof line === "string")) return value.join("");
  return value === null ? "" : JSON.stringify(value, null, 2);
}
