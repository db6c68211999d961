/** Code in colours, by class (`tok-keyword`, …). Python at once; other languages when their grammar has come. */

import { classHighlighter, highlightCode } from "@lezer/highlight";
import { parser as python } from "@lezer/python";
import type { Parser } from "@lezer/common";

/** What stands behind so many characters is shown without colours. */
const MOST_CHARS = 50_000;

const parsers = new Map<string, Parser>(["python", "ipython", "python3", "py", "py3"].map((name) => [name, python]));

/** Code as nodes. Where the grammar has still to come, the nodes are coloured in their place later. */
export function highlight(code: string, language: string): DocumentFragment {
  const fragment = document.createDocumentFragment();
  const name = language.toLowerCase();
  const parser = parsers.get(name);
  if (parser) appendCode(fragment, code, parser);
  else {
    const place = document.createElement("span");
    place.textContent = code;
    fragment.append(place);
    if (name !== "" && name !== "text") void recolour(place, code, name);
  }
  return fragment;
}

async function recolour(place: HTMLElement, code: string, name: string): Promise<void> {
  const grammars = await import("./grammars.ts").catch(() => null);
  const parser = await grammars?.loadGrammar(name).catch(() => null);
  if (!parser) return;
  parsers.set(name, parser);
  const fragment = document.createDocumentFragment();
  appendCode(fragment, code, parser);
  place.replaceChildren(fragment);
}

function appendCode(parent: Node, code: string, parser: Parser): void {
  const coloured = code.slice(0, MOST_CHARS);
  highlightCode(
    coloured,
    parser.parse(coloured),
    classHighlighter,
    (text, classes) => {
      if (classes === "") {
        parent.appendChild(document.createTextNode(text));
        return;
      }
      const span = document.createElement("span");
      span.className = classes;
      span.textContent = text;
      parent.appendChild(span);
    },
    () => parent.appendChild(document.createTextNode("\n")),
  );
  if (coloured.length < code.length) parent.appendChild(document.createTextNode(code.slice(MOST_CHARS)));
}
