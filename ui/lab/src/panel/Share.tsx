/** How is a link given to somebody? */

import type { PanelEnv } from "./env.ts";

export function openShare(_: PanelEnv): void {
  // its dialog comes with the links of the comm
}
