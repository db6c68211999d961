/** Outputs as Jupyter shows them; the rest of the page needs nothing else of this folder. */

import "./outputs.css";

export type { OutputContext } from "./context.ts";
export { highlight } from "./highlight.ts";
export { renderMarkdown } from "./markdown.ts";
export { OutputsView } from "./view.ts";
