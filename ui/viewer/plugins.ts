/** What the build does to the styles and modules of others. */

import { readFileSync } from "node:fs";
import type { Plugin } from "vite";

const OTHER_FORMATS = /,?\s*url\([^)]*\.(?:woff|ttf|eot|svg)(?:[?#][^)]*)?["']?\)\s*format\([^)]*\)/g;
const ALONE = /src:\s*url\([^)]*\.eot"?\);/g;

/** Every browser that runs the page reads woff2; the other formats would be four fifths of the fonts. */
export function woff2Only(): Plugin {
  return {
    name: "woff2-only",
    enforce: "pre",
    load(id) {
      if (!/\/(?:katex|@fortawesome)\/.*\.css$/.test(id)) return null;
      const css = readFileSync(id, "utf8").replace(ALONE, "").replace(OTHER_FORMATS, "");
      return css.replace(/src:\s*,/g, "src:");
    },
  };
}

/**
 * The manager of widgets names its packages with `require`, those of ipywidgets 7 among them. Ours imports them itself, and
 * the packages of ipywidgets 8 draw the state of 7 as well.
 */
export function withoutRequires(): Plugin {
  return {
    name: "without-requires",
    enforce: "pre",
    transform(code, id) {
      if (!id.includes("/@jupyter-widgets/html-manager/lib/htmlmanager.js")) return null;
      return { code: code.replace(/require\('[^']*'\)/g, "undefined"), map: null };
    },
  };
}

/** Icons of JupyterLab's buttons, of which the frame of widgets shows none: 126 files. */
export function withoutIcons(): Plugin {
  return {
    name: "without-icons",
    enforce: "pre",
    load: (id) => (/\/@jupyterlab\/ui-components\/.*\.svg$/.test(id) ? 'export default "<svg></svg>";' : null),
  };
}
