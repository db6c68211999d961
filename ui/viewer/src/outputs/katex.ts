/** KaTeX, in a part of its own. */

import katex from "katex";
import "katex/dist/katex.min.css";

export function setFormula(element: HTMLElement, tex: string, display: boolean): void {
  try {
    // not trusted: no links, no pictures, no classes or styles of theirs; sizes and expansion within limits
    katex.render(tex, element, { displayMode: display, throwOnError: true, trust: false, strict: "ignore", maxSize: 30, maxExpand: 500 });
  } catch (error) {
    element.textContent = tex;
    element.classList.add("out-failed");
    element.title = error instanceof Error ? error.message.slice(0, 300) : "";
  }
}
