/** How is code typed? CodeMirror with the kernel's language, its completion and what ran before. */

import {
  acceptCompletion,
  autocompletion,
  closeBrackets,
  closeBracketsKeymap,
  completionKeymap,
  startCompletion,
  type CompletionContext,
  type CompletionResult,
} from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentMore, indentWithTab } from "@codemirror/commands";
import { bracketMatching, indentOnInput, StreamLanguage, syntaxHighlighting } from "@codemirror/language";
import { Compartment, EditorState, Prec, type Extension } from "@codemirror/state";
import { drawSelection, EditorView, keymap, placeholder } from "@codemirror/view";
import { classHighlighter } from "@lezer/highlight";
import type { Past } from "./past.ts";

export interface EditorOptions {
  host: HTMLElement;
  label: string;
  past: Past;
  run: (code: string) => void;
  complete: (
    code: string,
    cursor: number,
  ) => Promise<{ matches: readonly string[]; cursor_start: number; cursor_end: number }>;
}

export interface Editor {
  focus(): void;
  code(): string;
  clear(): void;
  /** Code that was cleared too early stands here again, before what was typed since. */
  putBack(code: string): void;
  /** What is typed stays. */
  setLanguage(name: string): void;
  destroy(): void;
}

const LANGUAGES: Record<string, () => Promise<Extension>> = {
  python: async () => (await import("@codemirror/lang-python")).python(),
  r: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/r")).r),
  julia: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/julia")).julia),
  bash: async () => StreamLanguage.define((await import("@codemirror/legacy-modes/mode/shell")).shell),
};

export function createEditor(options: EditorOptions): Editor {
  const { host, past } = options;
  const language = new Compartment();
  const replace = (view: EditorView, code: string | null, atEnd: boolean): boolean => {
    if (code === null) return false;
    view.dispatch({
      changes: { from: 0, to: view.state.doc.length, insert: code },
      selection: { anchor: atEnd ? code.length : 0 },
    });
    return true;
  };
  const run = (view: EditorView): boolean => {
    const code = view.state.doc.toString();
    if (code.trim() !== "") options.run(code);
    return true;
  };
  const older = (view: EditorView): boolean => {
    const { main } = view.state.selection;
    if (!main.empty || view.state.doc.lineAt(main.head).number > 1) return false;
    return replace(view, past.older(view.state.doc.toString()), true);
  };
  const newer = (view: EditorView): boolean => {
    const { main } = view.state.selection;
    if (!main.empty || view.state.doc.lineAt(main.head).number < view.state.doc.lines) return false;
    return replace(view, past.newer(view.state.doc.toString()), true);
  };
  const completeOrIndent = (view: EditorView): boolean => {
    if (acceptCompletion(view)) return true;
    const { main } = view.state.selection;
    if (!main.empty) return indentMore(view);
    const before = view.state.doc.lineAt(main.head).text.slice(0, main.head - view.state.doc.lineAt(main.head).from);
    if (before.trim() === "") return view.state.doc.length === 0 ? false : (indentWithTab.run?.(view) ?? false);
    return startCompletion(view);
  };
  const view = new EditorView({
    parent: host,
    state: EditorState.create({
      extensions: [
        Prec.highest(
          keymap.of([
            { key: "Shift-Enter", run },
            { key: "Mod-Enter", run },
            { key: "Ctrl-Enter", run },
            { key: "Tab", run: completeOrIndent },
          ]),
        ),
        autocompletion({ override: [(context) => completions(context, options)], activateOnTyping: false }),
        keymap.of([
          { key: "ArrowUp", run: older },
          { key: "ArrowDown", run: newer },
        ]),
        history(),
        drawSelection(),
        bracketMatching(),
        closeBrackets(),
        indentOnInput(),
        EditorView.lineWrapping,
        placeholder("Code to run"),
        EditorView.contentAttributes.of({ "aria-label": options.label }),
        syntaxHighlighting(classHighlighter),
        language.of([]),
        keymap.of([...closeBracketsKeymap, ...completionKeymap, ...defaultKeymap, ...historyKeymap]),
      ],
    }),
  });
  return {
    focus: () => view.focus(),
    code: () => view.state.doc.toString(),
    clear: () => {
      past.reset();
      replace(view, "", true);
    },
    putBack: (code) => {
      if (view.state.doc.length === 0) replace(view, code, true);
      else view.dispatch({ changes: { from: 0, insert: `${code}\n` } });
    },
    setLanguage: (name) => {
      void LANGUAGES[name.toLowerCase()]?.().then((extension) => {
        view.dispatch({ effects: language.reconfigure(extension) });
      });
    },
    destroy: () => view.destroy(),
  };
}

/** The kernel's own completion. Its cursors count code points, the editor's UTF-16 units. */
async function completions(context: CompletionContext, { complete }: EditorOptions): Promise<CompletionResult | null> {
  const code = context.state.doc.toString();
  const points = [...code.slice(0, context.pos)].length;
  try {
    const found = await complete(code, points);
    if (context.aborted || found.matches.length === 0) return null;
    const from = [...code].slice(0, found.cursor_start).join("").length;
    return { from, to: context.pos, options: found.matches.map((label) => ({ label })), validFor: /^[\w.]*$/ };
  } catch {
    return null; // the kernel is busy or gone: there is nothing to offer
  }
}
