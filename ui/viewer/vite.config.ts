/**
 * How do the page, its frames and its licences become rtc_kernel/web?
 *
 * The result is committed, so it must be the same bytes wherever it is built: no source maps, names by content.
 */

import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { defaultClientConditions, defaultServerConditions, defineConfig, type Plugin } from "vite";
import { withoutIcons, withoutRequires, woff2Only } from "./plugins.ts";

const here = import.meta.dirname;
const out = `${here}/../../rtc_kernel/web`;
const pages = ["index.html", "room.html", "widgets.html"].filter((name) => existsSync(`${here}/${name}`));

/** The sandboxed frame has its script in it, because its origin may load nothing: it is copied as it is. */
function copyFrame(): Plugin {
  return {
    name: "copy-frame",
    apply: "build",
    writeBundle({ dir }) {
      if (dir && existsSync(`${here}/frame.html`)) copyFileSync(`${here}/frame.html`, `${dir}/frame.html`);
    },
  };
}

const LICENCES = "assets/licences.txt";

/**
 * Packages whose archive has no licence's text get that of the licence they name. Only for the one that we have the
 * text of ourselves (Jupyter's packages); any other fails the build, so that somebody looks.
 */
function completeLicences(): Plugin {
  const text = readFileSync(`${here}/../../LICENSE`, "utf8");
  const terms = text.slice(text.indexOf("Redistribution and use"));
  const complete = (entry: string): string => {
    const [, head = "", name = "", licence = ""] = /^((\S+) - \S+ \((.*)\))\n/.exec(entry) ?? [];
    if (head === "" || entry.slice(head.length).trim() !== "") return entry;
    if (licence !== "BSD-3-Clause") throw new Error(`${name} is under ${licence} and has no text of it`);
    const { author } = JSON.parse(readFileSync(`${here}/../node_modules/${name}/package.json`, "utf8")) as {
      author?: unknown;
    };
    const holder = typeof author === "string" ? author.replace(/\s*[<(].*/, "") : "its authors";
    return `${head}\n\nBSD 3-Clause License\n\nCopyright (c) ${holder}\n\n${terms}`;
  };
  return {
    name: "complete-licences",
    apply: "build",
    writeBundle({ dir }) {
      const path = `${dir ?? out}/${LICENCES}`;
      const [head = "", ...entries] = readFileSync(path, "utf8").split("\n## ");
      writeFileSync(path, [head, ...entries.map(complete)].join("\n## "));
    },
  };
}

export default defineConfig({
  root: here,
  base: "./",
  publicDir: false,
  resolve: { conditions: ["rtc-source", ...defaultClientConditions] },
  ssr: { resolve: { conditions: ["rtc-source", ...defaultServerConditions] } }, // of the tests
  clearScreen: false,
  build: {
    outDir: out,
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1500,
    license: { fileName: LICENCES },
    rolldownOptions: { input: pages.map((name) => `${here}/${name}`) },
  },
  plugins: [woff2Only(), withoutRequires(), withoutIcons(), copyFrame(), completeLicences()],
});
