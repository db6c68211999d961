/** Where the panel begins: what JupyterLab loads when it is looked at for the first time. */

import type { JSX } from "preact";
import { render } from "preact";
import type { PanelEnv } from "./env.ts";
import { People } from "./People.tsx";
import { Queue } from "./Queue.tsx";
import { openShare } from "./Share.tsx";

/** Draw the panel of one document into an element; returns how to end it. */
export function mount(host: HTMLElement, env: PanelEnv): () => void {
  render(<Panel env={env} />, host);
  return () => render(null, host);
}

function Panel({ env }: { env: PanelEnv }): JSX.Element {
  return (
    <div class="panel">
      <button type="button" onClick={() => openShare(env)}>
        {env.trans.__("Share")}
      </button>
      <People env={env} />
      <Queue env={env} />
    </div>
  );
}
