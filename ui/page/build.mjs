// Bundles main.ts into rtc_kernel/web/page.js, with the licences of what is bundled in front.
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const options = {
  absWorkingDir: new URL(".", import.meta.url).pathname,
  entryPoints: ["main.ts"],
  outfile: "../../rtc_kernel/web/page.js",
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2021",
  charset: "utf8",
  legalComments: "none",
  metafile: true,
};
const read = (path) => readFileSync(new URL(`node_modules/${path}`, import.meta.url), "utf8");

const { metafile } = await build({ ...options, write: false });
const names = Object.keys(metafile.inputs).map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]);
const parts = [...new Set(names.filter(Boolean))].sort().map((name) => {
  const { version, license } = JSON.parse(read(`${name}/package.json`));
  if (license !== "MIT") throw new Error(`${name} is under ${license}: say so in the banner`);
  const [, copyright] = /(Copyright[^]*?)\n\s*Permission is hereby granted/.exec(read(`${name}/LICENSE`));
  return `${name} ${version}: ${copyright.replace(/\s+/g, " ").trim()}`;
});
const licence = read("yjs/LICENSE");
const terms = licence.slice(licence.indexOf("Permission is hereby granted")).trim();
const about = "The plain page of rtc_kernel (BSD-3-Clause). It contains these parts under the MIT License:";

await build({ ...options, banner: { js: `/*! ${about}\n\n${parts.join("\n")}\n\n${terms}\n*/` } });
