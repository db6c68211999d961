/** In which colours is the page? Owns `data-theme` of the document. */

import { changeColours, keep } from "./preferences.ts";

export type Theme = "system" | "light" | "dark";

export const theme = keep<Theme>("theme", ["system", "light", "dark"], "system");

theme.subscribe((value) => {
  if (value === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = value;
  changeColours();
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changeColours);
