/** LaTeX. KaTeX and its fonts come when the first formula is there; until then, and where it fails, its source is shown. */

import { make } from "./dom.ts";

/** A longer formula, and more formulas in one text, stay as they were written. */
const FORMULA_CHARS = 20_000;
const FORMULAS = 2000;

const DELIMITED =
  /\$\$([\s\S]+?)\$\$|\$((?:\\[\s\S]|[^$\\])+?)\$|\\\[([\s\S]+?)\\\]|\\\(([\s\S]+?)\\\)|(\\begin\{([a-z]+\*?)\}[\s\S]+?\\end\{\6\})/g;

/** Text with formulas between `$`, `$$`, `\(`, `\[` or as environments. */
export function renderLatex(source: string): HTMLElement {
  const element = make("div", "out-latex");
  let at = 0;
  for (const found of source.matchAll(DELIMITED)) {
    element.append(source.slice(at, found.index));
    const inline = found[2] ?? found[4];
    element.append(makeFormula(inline ?? found[1] ?? found[3] ?? found[5] ?? "", inline === undefined));
    at = found.index + found[0].length;
  }
  element.append(source.slice(at));
  void typeset(element);
  return element;
}

export function makeFormula(tex: string, display: boolean): HTMLElement {
  return make("span", display ? "out-formula out-display" : "out-formula", tex);
}

/** Set the formulas in an element: those that {@link makeFormula} made. */
export async function typeset(element: HTMLElement): Promise<void> {
  const formulas = [...element.querySelectorAll<HTMLElement>(".out-formula")].slice(0, FORMULAS);
  if (formulas.length === 0) return;
  const { setFormula } = await import("./katex.ts").catch(() => ({ setFormula: null }));
  if (!setFormula) return; // the source stands there
  for (const formula of formulas) {
    const tex = formula.textContent ?? "";
    if (tex.length <= FORMULA_CHARS) setFormula(formula, tex, formula.classList.contains("out-display"));
  }
}
