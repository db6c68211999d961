/** JSON as a tree that opens and closes, by keyboard too. Children are made when they are first seen. */

import type { Json } from "@rtc-kernel/client";
import { formatCount, make, makeButton } from "./dom.ts";

/** So many children at once. */
const PAGE = 100;
const STRING_CHARS = 2000;

export function makeTree(value: Json, expanded: boolean): HTMLElement {
  const tree = make("div", "out-json");
  tree.append(makeNode(null, value, expanded ? 2 : 1));
  return tree;
}

/** `depth`: so many levels are open. */
function makeNode(key: string | null, value: Json, depth: number): HTMLElement {
  if (value === null || typeof value !== "object") {
    const leaf = make("div", "out-leaf");
    appendKey(leaf, key);
    leaf.append(makeScalar(value));
    return leaf;
  }
  const entries: readonly (readonly [string, Json])[] = Array.isArray(value)
    ? value.map((item, at) => [String(at), item] as const)
    : Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)); // the document keeps no order
  const count = `${formatCount(entries.length)} ${Array.isArray(value) ? "item" : "key"}${entries.length === 1 ? "" : "s"}`;
  const node = make("details", "out-node");
  const head = make("summary");
  appendKey(head, key);
  head.append(make("span", "out-count", Array.isArray(value) ? `[${count}]` : `{${count}}`));
  node.append(head);
  const body = make("div", "out-children");
  const fill = (): void => {
    if (!body.parentNode) {
      node.append(body);
      addPage(body, entries, 0, depth - 1);
    }
  };
  node.addEventListener("toggle", () => node.open && fill());
  if (depth > 0 && entries.length > 0) {
    node.open = true;
    fill();
  }
  return node;
}

function addPage(body: HTMLElement, entries: readonly (readonly [string, Json])[], from: number, depth: number): void {
  const to = Math.min(entries.length, from + PAGE);
  for (const [key, item] of entries.slice(from, to)) body.append(makeNode(key, item, depth));
  if (to === entries.length) return;
  const more = makeButton(`${formatCount(entries.length - to)} more`, () => {
    more.remove();
    addPage(body, entries, to, depth);
    (body.children[to] as HTMLElement | undefined)?.querySelector("summary")?.focus();
  });
  body.append(more);
}

function appendKey(parent: HTMLElement, key: string | null): void {
  if (key !== null) parent.append(make("span", "out-key", key), ": ");
}

function makeScalar(value: string | number | boolean | null): HTMLElement {
  if (typeof value === "string") {
    const shown = value.length > STRING_CHARS ? `${value.slice(0, STRING_CHARS)}…` : value;
    return make("span", "out-string", JSON.stringify(shown));
  }
  return make("span", value === null ? "out-null" : `out-${typeof value}`, String(value));
}
