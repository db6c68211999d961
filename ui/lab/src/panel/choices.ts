/** What of the panel has the user chosen? It is drawn anew when that changes. */

import { useEffect, useState } from "preact/hooks";

import type { PanelChoices } from "../settings.ts";
import type { PanelEnv } from "./env.ts";

export function useChoices({ settings }: PanelEnv): PanelChoices {
  const [values, setValues] = useState(settings.values);
  useEffect(() => {
    setValues(settings.values);
    return settings.onChange(() => setValues(settings.values));
  }, [settings]);
  return values;
}
