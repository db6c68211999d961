/** How does code stand in a card? Highlighted, and folded where it is long. */

import type { JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { countOf } from "./format.ts";
import { highlight } from "./outputs/highlight.ts";

const FOLD_LINES = 16;

export function Code({ code, language, label }: { code: string; language: string; label: string }): JSX.Element {
  const host = useRef<HTMLElement>(null);
  const [open, setOpen] = useState(false);
  const lines = code.split("\n");
  const folds = lines.length > FOLD_LINES + 4;
  const text = folds && !open ? lines.slice(0, FOLD_LINES).join("\n") : code;
  useLayoutEffect(() => host.current?.replaceChildren(highlight(text, language)), [text, language]);
  return (
    <div class="code">
      <pre tabIndex={0} role="group" aria-label={label}>
        <code ref={host} />
      </pre>
      {folds ? (
        <button type="button" class="fold" aria-expanded={open} onClick={() => setOpen(!open)}>
          {open ? "Fold the code" : `Show ${countOf(lines.length - FOLD_LINES, "more line")}`}
        </button>
      ) : null}
    </div>
  );
}
