/** Grammars of languages other than Python, each in a part of its own. */

import { StreamLanguage, type StreamParser } from "@codemirror/language";
import type { Parser } from "@lezer/common";

type Mode = StreamParser<unknown>;

const MODES: readonly (readonly [RegExp, () => Promise<Mode>])[] = [
  [/^r$/, async () => (await import("@codemirror/legacy-modes/mode/r")).r as Mode],
  [/^julia$/, async () => (await import("@codemirror/legacy-modes/mode/julia")).julia as Mode],
  [/^(bash|sh|shell|zsh|console)$/, async () => (await import("@codemirror/legacy-modes/mode/shell")).shell as Mode],
  [/^(javascript|js)$/, async () => (await import("@codemirror/legacy-modes/mode/javascript")).javascript as Mode],
  [/^(typescript|ts)$/, async () => (await import("@codemirror/legacy-modes/mode/javascript")).typescript as Mode],
  [/^json$/, async () => (await import("@codemirror/legacy-modes/mode/javascript")).json as Mode],
  [/^sql$/, async () => (await import("@codemirror/legacy-modes/mode/sql")).standardSQL as Mode],
  [/^(c\+\+|cpp|c\+\+\d\d)$/, async () => (await import("@codemirror/legacy-modes/mode/clike")).cpp as Mode],
  [/^c$/, async () => (await import("@codemirror/legacy-modes/mode/clike")).c as Mode],
  [/^java$/, async () => (await import("@codemirror/legacy-modes/mode/clike")).java as Mode],
  [/^scala$/, async () => (await import("@codemirror/legacy-modes/mode/clike")).scala as Mode],
  [/^kotlin$/, async () => (await import("@codemirror/legacy-modes/mode/clike")).kotlin as Mode],
  [/^(c#|csharp)$/, async () => (await import("@codemirror/legacy-modes/mode/clike")).csharp as Mode],
  [/^(f#|fsharp)$/, async () => (await import("@codemirror/legacy-modes/mode/mllike")).fSharp as Mode],
  [/^ocaml$/, async () => (await import("@codemirror/legacy-modes/mode/mllike")).oCaml as Mode],
  [/^rust$/, async () => (await import("@codemirror/legacy-modes/mode/rust")).rust as Mode],
  [/^go$/, async () => (await import("@codemirror/legacy-modes/mode/go")).go as Mode],
  [/^ruby$/, async () => (await import("@codemirror/legacy-modes/mode/ruby")).ruby as Mode],
  [/^lua$/, async () => (await import("@codemirror/legacy-modes/mode/lua")).lua as Mode],
  [/^haskell$/, async () => (await import("@codemirror/legacy-modes/mode/haskell")).haskell as Mode],
  [/^octave|matlab$/, async () => (await import("@codemirror/legacy-modes/mode/octave")).octave as Mode],
  [/^ya?ml$/, async () => (await import("@codemirror/legacy-modes/mode/yaml")).yaml as Mode],
  [/^(html|xml)$/, async () => (await import("@codemirror/legacy-modes/mode/xml")).xml as Mode],
  [/^css$/, async () => (await import("@codemirror/legacy-modes/mode/css")).css as Mode],
];

/** Null: there is none for this language. */
export async function loadGrammar(language: string): Promise<Parser | null> {
  const load = MODES.find(([pattern]) => pattern.test(language))?.[1];
  return load ? StreamLanguage.define(await load()).parser : null;
}
