// Bundles src/container.ts into rtc_kernel/labextension: one script, its name made of what is in it, so that a browser
// never takes an old one for it. What JupyterLab has already (yjs) is taken from it when the script starts. The panel is
// a script of its own, which the first one loads when the panel is looked at for the first time.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "vite";

const here = new URL(".", import.meta.url);
const out = new URL("../../rtc_kernel/labextension/", here);
const { name, version, description, license } = JSON.parse(readFileSync(new URL("package.json", here), "utf8"));

const common = {
  root: here.pathname,
  configFile: false,
  logLevel: "warn",
  resolve: {
    conditions: ["rtc-source", "module", "browser", "production"],
    alias: { yjs: new URL("src/yjs.ts", here).pathname },
  },
};

const { output: panel } = await build({
  ...common,
  base: "./",
  build: {
    write: false,
    target: "es2022",
    modulePreload: false,
    rolldownOptions: {
      input: { panel: new URL("src/panel/main.tsx", here).pathname },
      preserveEntrySignatures: "strict",
      output: { format: "es", entryFileNames: "[name].[hash].js", chunkFileNames: "[name].[hash].js" },
    },
  },
});
const chunks = panel.filter(({ type }) => type === "chunk");
const others = panel.filter(({ type }) => type !== "chunk");
if (others.length > 0) throw new Error(`the panel would lose ${others.map(({ fileName }) => fileName)}: import it ?inline`);
const strays = chunks.flatMap(({ moduleIds }) => moduleIds).filter((id) => /\/(?:yjs|lib0)\/|\/src\/yjs\.ts$/.test(id));
if (strays.length > 0) throw new Error(`the panel has a Yjs of its own: ${strays}`);
const start = chunks.find(({ isEntry }) => isEntry).fileName;

const [{ output }] = await build({
  ...common,
  define: { __PANEL__: JSON.stringify(start) },
  build: {
    write: false,
    target: "es2022",
    lib: { entry: new URL("src/container.ts", here).pathname, formats: ["iife"], name: "rtcKernelLab" },
  },
});
const script = `/*! ${name} (${license}); third-party-licenses.json has the licences of its parts. */\n${output[0].code}`;
const entry = `remoteEntry.${createHash("sha256").update(script).digest("hex").slice(0, 20)}.js`;

// As JupyterLab's "Help > Licenses" reads it.
const parts = new Set(
  [...output, ...chunks]
    .flatMap(({ moduleIds = [] }) => moduleIds)
    .map((id) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(id)?.[1])
    .filter((part) => part && !part.startsWith("@rtc-kernel/")),
);
const read = (path) => readFileSync(new URL(`../node_modules/${path}`, here), "utf8");
const packages = [...parts].sort().map((part) => {
  const { version: versionInfo, license: licenseId } = JSON.parse(read(`${part}/package.json`));
  const file = ["LICENSE", "LICENSE.md", "LICENSE.txt"].find((each) => {
    try {
      return read(`${part}/${each}`);
    } catch {
      return false;
    }
  });
  if (!file) throw new Error(`${part} is under ${licenseId} and has no text of it`);
  return { name: part, versionInfo, licenseId, extractedText: read(`${part}/${file}`) };
});

const manifest = {
  name,
  version,
  description,
  license,
  jupyterlab: { extension: true, schemaDir: "schema", _build: { load: `static/${entry}`, extension: "./extension" } },
};
const install = {
  packageManager: "python",
  packageName: "rtc_kernel",
  uninstallInstructions: "Remove it with the Python package rtc_kernel.",
};
const write = (path, text) => writeFileSync(new URL(path, out), text);
rmSync(out, { recursive: true, force: true });
mkdirSync(new URL("static/", out), { recursive: true });
write(`static/${entry}`, script);
for (const { fileName, code } of chunks) write(`static/${fileName}`, code);
// Where Jupyter Server looks for the schemas of settings, and for the version of what they are of.
const schemas = `schemas/${name}`;
mkdirSync(new URL(schemas, out), { recursive: true });
for (const each of readdirSync(new URL("schema/", here)).sort()) {
  write(`${schemas}/${each}`, readFileSync(new URL(`schema/${each}`, here), "utf8"));
}
write(`${schemas}/package.json.orig`, `${JSON.stringify(manifest, null, 2)}\n`);
write("static/third-party-licenses.json", `${JSON.stringify({ packages }, null, 2)}\n`);
write("package.json", `${JSON.stringify(manifest, null, 2)}\n`);
write("install.json", `${JSON.stringify(install, null, 2)}\n`);
