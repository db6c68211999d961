// Bundles src/container.ts into rtc_kernel/labextension: one script, its name made of what is in it, so that a browser
// never takes an old one for it. What JupyterLab has already (yjs) is taken from it when the script starts.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "vite";

const here = new URL(".", import.meta.url);
const out = new URL("../../rtc_kernel/labextension/", here);
const { name, version, description, license } = JSON.parse(readFileSync(new URL("package.json", here), "utf8"));

const [{ output }] = await build({
  root: here.pathname,
  configFile: false,
  logLevel: "warn",
  resolve: {
    conditions: ["rtc-source", "module", "browser", "production"],
    alias: { yjs: new URL("src/yjs.ts", here).pathname },
  },
  build: {
    write: false,
    target: "es2022",
    lib: { entry: new URL("src/container.ts", here).pathname, formats: ["iife"], name: "rtcKernelLab" },
  },
});
const parts = [...new Set(output[0].moduleIds.map((id) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(id)?.[1]))]
  .filter((part) => part && part !== "@rtc-kernel/client")
  .sort();
const read = (path) => readFileSync(new URL(`../node_modules/${path}`, here), "utf8");
const credits = parts.map((part) => {
  const { version: of, license: under } = JSON.parse(read(`${part}/package.json`));
  if (under !== "MIT") throw new Error(`${part} is under ${under}: say so in the banner`);
  const [, copyright] = /(Copyright[^]*?)\n\s*Permission is hereby granted/.exec(read(`${part}/LICENSE`));
  return `${part} ${of}: ${copyright.replace(/\s+/g, " ").trim()}`;
});
const licence = read("lib0/LICENSE");
const terms = licence.slice(licence.indexOf("Permission is hereby granted")).trim();
const about = `${name} (${license}). It contains these parts under the MIT License:`;
const script = `/*! ${about}\n\n${credits.join("\n")}\n\n${terms}\n*/\n${output[0].code}`;

const entry = `static/remoteEntry.${createHash("sha256").update(script).digest("hex").slice(0, 20)}.js`;
const manifest = {
  name,
  version,
  description,
  license,
  jupyterlab: { extension: true, _build: { load: entry, extension: "./extension" } },
};
const install = {
  packageManager: "python",
  packageName: "rtc_kernel",
  uninstallInstructions: "Remove it with the Python package rtc_kernel.",
};
rmSync(out, { recursive: true, force: true });
mkdirSync(new URL("static/", out), { recursive: true });
writeFileSync(new URL(entry, out), script);
writeFileSync(new URL("package.json", out), `${JSON.stringify(manifest, null, 2)}\n`);
writeFileSync(new URL("install.json", out), `${JSON.stringify(install, null, 2)}\n`);
