/**
 * How does JupyterLab load us?
 *
 * As a remote of module federation: a script that puts a container of two functions under our name, which is all that
 * JupyterLab needs of one. `init` gets what the page shares, by package and version; `get` gives the plugins.
 */

import type {
  ApplicationPackage,
  IconPackage,
  NotebookPackage,
  OutputAreaPackage,
  Tokens,
  WidgetPackage,
} from "./jupyterlab.ts";
import { makePlugin } from "./plugin.ts";
import { makePanelPlugin } from "./sidebar.ts";
import { useYjs } from "./yjs.ts";

interface Shared {
  readonly get: () => Promise<() => unknown>;
  readonly loaded?: unknown;
}

type ShareScope = { readonly [name: string]: { readonly [version: string]: Shared } };

let scope: ShareScope = {};

const container = {
  init(shared: ShareScope): void {
    scope = shared;
  },

  async get(module: string): Promise<() => unknown> {
    if (module !== "./extension") throw new Error(`@rtc-kernel/lab has no module ${module}`);
    if (!("yjs" in scope)) return () => ({ __esModule: true, default: [] }); // a dashboard (Voila): no notebook to fill
    const [yjs, notebook, application, icons, widgets, ...services] = await Promise.all(
      [
        "yjs",
        "@jupyterlab/notebook",
        "@jupyterlab/application",
        "@jupyterlab/ui-components",
        "@lumino/widgets",
        "@jupyterlab/apputils",
        "@jupyterlab/settingregistry",
        "@jupyterlab/translation",
      ].map(share),
    );
    useYjs(yjs as Parameters<typeof useYjs>[0]);
    const [{ ICommandPalette }, { ISettingRegistry }, { ITranslator }] = services as [Tokens, Tokens, Tokens];
    const tokens = { ICommandPalette, ISettingRegistry, ITranslator };
    const outputArea = async (): Promise<OutputAreaPackage> =>
      (await share("@jupyterlab/outputarea")) as OutputAreaPackage;
    const plugin = makePlugin(notebook as NotebookPackage, tokens, outputArea);
    const panel = makePanelPlugin({
      notebook: notebook as NotebookPackage,
      application: application as ApplicationPackage,
      icons: icons as IconPackage,
      widgets: widgets as WidgetPackage,
      tokens,
      share,
    });
    return () => ({ __esModule: true, default: [plugin, panel] });
  },
};

/** The one that is loaded already, else the newest: what everybody in the page gets. */
async function share(name: string): Promise<unknown> {
  const versions = Object.entries(scope[name] ?? {});
  versions.sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
  const found = versions.find(([, shared]) => shared.loaded) ?? versions.at(-1);
  if (found === undefined) throw new Error(`this page shares no ${name}`);
  return (await found[1].get())();
}

const page = globalThis as { _JUPYTERLAB?: { [name: string]: typeof container } };
(page._JUPYTERLAB ??= {})["@rtc-kernel/lab"] = container;
