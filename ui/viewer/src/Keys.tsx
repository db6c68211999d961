/** Which keys are there? */

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { letterKeys } from "./preferences.ts";

const KEYS: readonly [string, string][] = [
  ["j  k", "next, previous execution"],
  ["g  G", "first, last execution"],
  ["f", "follow what runs"],
  ["/", "search"],
  ["n", "notebook or history, in a headless run"],
  ["t", "show or hide the timeline"],
  ["+  −  0", "in the timeline: zoom in, out, show all"],
  ["←  →", "in the timeline: move; at the slider: go through time"],
  ["Shift Enter", "in the prompt: run"],
  ["↑  ↓", "in the prompt, at its edges: what ran before"],
  ["Tab", "in the prompt: complete; after Esc it leaves the prompt"],
  ["Esc", "back to live; out of a field"],
  ["?", "this list"],
];

export function Keys({ open, onClose }: { open: boolean; onClose: () => void }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open && !dialog.current?.open) dialog.current?.showModal();
  }, [open]);
  return (
    <dialog ref={dialog} class="dialog" aria-labelledby="keys-title" onClose={onClose}>
      <h2 id="keys-title">Keys</h2>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              {key.split("  ").map((one) => (
                <kbd key={one}>{one}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <label class="choice">
        <input
          type="checkbox"
          checked={letterKeys.value === "on"}
          onChange={(event) => {
            letterKeys.value = event.currentTarget.checked ? "on" : "off";
          }}
        />{" "}
        Single letters are commands
      </label>
      <form method="dialog" class="buttons">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
