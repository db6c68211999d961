/** Markdown, as Jupyter writes it: CommonMark with tables, HTML (made safe) and formulas. Its parser comes on demand. */

import { make } from "./dom.ts";
import { typeset } from "./math.ts";

export function renderMarkdown(source: string): HTMLElement {
  const element = make("div", "out-markdown");
  element.textContent = source;
  void fill(element, source);
  return element;
}

async function fill(element: HTMLElement, source: string): Promise<void> {
  const parser = await import("./markdown-it.ts").catch(() => null);
  if (!parser) return; // its source stands there
  element.replaceChildren(parser.parseMarkdown(source));
  element.dataset["ready"] = "";
  await typeset(element);
}
