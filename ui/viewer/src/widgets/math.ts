/** Formulas in widgets, in a part of its own. */

import "katex/dist/katex.min.css";
import renderMathInElement from "katex/contrib/auto-render";

export function setFormulas(element: HTMLElement): void {
  const delimiters = [
    { left: "$$", right: "$$", display: true },
    { left: "\\[", right: "\\]", display: true },
    { left: "$", right: "$", display: false },
    { left: "\\(", right: "\\)", display: false },
  ];
  renderMathInElement(element, { delimiters, throwOnError: false, trust: false, maxSize: 30, maxExpand: 500 });
}
