/** Who is here, and by which links? */

import type { JSX } from "preact";
import type { PanelEnv } from "./env.ts";

export function People(_: { env: PanelEnv }): JSX.Element | null {
  return null;
}
