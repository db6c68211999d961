/** What waits? */

import type { JSX } from "preact";
import type { PanelEnv } from "./env.ts";

export function Queue(_: { env: PanelEnv }): JSX.Element | null {
  return null;
}
