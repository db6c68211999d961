/**
 * What is in the right sidebar before anybody looks at it?
 *
 * A tab, and an empty widget. What is drawn in it is a script of its own, which is loaded when the panel is shown for
 * the first time: JupyterLab's start waits for nothing of it.
 */

import type {
  App,
  ApplicationPackage,
  IconPackage,
  LayoutRestorer,
  LuminoWidget,
  NotebookPackage,
  NotebookTracker,
  Plugin,
  Share,
  WidgetPackage,
} from "./jupyterlab.ts";
import { addCommands, type Palette } from "./commands.ts";
import { type Found, followDocument, peekDocument } from "./documents.ts";
import type { DocumentWidget, KernelConnection, Tokens, Translator } from "./jupyterlab.ts";
import type { Trans } from "./panel/env.ts";
import { PANEL, type PanelChoices, type SettingRegistry, Settings } from "./settings.ts";
import { bindTrans, DOMAIN } from "./translation.ts";

declare const __PANEL__: string;

/** The panel's script, beside ours. */
const SCRIPT = new URL(__PANEL__, (document.currentScript as HTMLScriptElement | null)?.src ?? location.href).href;

const RANK = 850;

/** The pages of Notebook 7 in which something runs; JupyterLab has one page, without a name. */
const PAGES: readonly (string | undefined)[] = [undefined, "notebooks", "consoles"];

const ICON = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
<g class="jp-icon3" fill="#616161"><path d="M13 3a9 9 0 0 0-9 9H1l3.9 3.9.1.1L9 12H6a7 7 0 1 1 2.05 4.95l-1.42 1.42A9 9 0 1 0 13 3z"/>
<path d="M12 8v5l4.25 2.52.77-1.28-3.52-2.09V8z"/></g></svg>`;

/** What the panel gets of JupyterLab. */
export interface Lab {
  readonly app: App;
  readonly notebooks: NotebookTracker;
  readonly share: Share;
  readonly trans: Trans;
  readonly settings: Settings<PanelChoices>;
  readonly followDocument: (kernel: KernelConnection, tell: (found: Found) => void) => () => void;
}

/** The panel's script. */
export interface PanelScript {
  start(widget: LuminoWidget, lab: Lab): Promise<Sidebar>;
}

/** The panel, once it is there. */
export interface Sidebar {
  show(): void;
  hide(): void;
  focus(): void;
  /** Ask what is to be shared of the kernel that is looked at. */
  openShare(): void;
}

export interface PanelPackages {
  readonly notebook: NotebookPackage;
  readonly application: ApplicationPackage;
  readonly widgets: WidgetPackage;
  readonly icons: IconPackage;
  readonly tokens: Tokens;
  readonly share: Share;
}

const ID = "@rtc-kernel/lab:panel";

export function makePanelPlugin({ notebook, application, widgets, icons, tokens, share }: PanelPackages): Plugin {
  return {
    id: ID,
    description: "The history of the current kernel, in the right sidebar.",
    autoStart: true,
    requires: [notebook.INotebookTracker],
    optional: [application.ILayoutRestorer, tokens.ICommandPalette, tokens.ISettingRegistry, tokens.ITranslator],
    activate: (
      app,
      notebooks,
      restorer?: LayoutRestorer | null,
      palette?: Palette | null,
      registry?: SettingRegistry | null,
      translator?: Translator | null,
    ) => {
      if (!PAGES.includes(pageName())) return;
      const trans = bindTrans(translator?.load(DOMAIN));
      const settings = new Settings(registry ?? null, ID, PANEL);
      const widget = new widgets.Widget();
      widget.id = "rtc-kernel-panel";
      widget.addClass("rtc-Sidebar");
      widget.title.caption = trans.__("Kernel History");
      widget.title.icon = new icons.LabIcon({ name: "rtc-kernel:history", svgstr: ICON });
      const whenThere = fill(widget, { app, notebooks, share, trans, settings, followDocument });
      app.shell.add(widget, "right", { rank: RANK });
      restorer?.add(widget, widget.id);
      addCommands(app, palette ?? null, trans, {
        openPanel: () => app.shell.activateById(widget.id),
        share: () => whenThere((panel) => panel.openShare()),
        mayShare: () => hasDocument((app.shell.currentWidget ?? notebooks.currentWidget) as DocumentWidget | null),
        mark: () => notebooks.currentWidget?.content.activeCell?.node.querySelector(".rtc-Note button") ?? null,
      });
    },
  };
}

function pageName(): string | undefined {
  const text = document.getElementById("jupyter-config-data")?.textContent ?? "{}";
  return (JSON.parse(text) as { notebookPage?: string }).notebookPage;
}

/** Where nobody has asked its kernel yet, it may have one: the panel says so then. */
function hasDocument(widget: DocumentWidget | null): boolean {
  const kernel = widget?.sessionContext?.session?.kernel;
  return kernel != null && !["asking", "none"].includes(peekDocument(kernel) as string);
}

/** Load the panel when it is seen for the first time; returns what does something with it once it is there. */
function fill(widget: LuminoWidget, lab: Lab): (deed: (panel: Sidebar) => void) => void {
  let panel: Promise<Sidebar> | null = null;
  const load = async (): Promise<Sidebar> => {
    const script = (await import(/* @vite-ignore */ SCRIPT)) as PanelScript;
    widget.node.replaceChildren();
    return script.start(widget, lab);
  };
  const whenThere = (deed: (panel: Sidebar) => void): void => {
    panel ??= load();
    panel.then(deed, (error: unknown) => {
      panel = null;
      const { trans } = lab;
      widget.node.textContent = trans.__("The panel could not be loaded (%1); close it and open it again.", error);
      lab.app.shell.activateById(widget.id);
    });
  };
  const show = (): void => whenThere((made) => widget.isVisible && made.show());
  widget.onAfterShow = show;
  widget.onAfterAttach = () => widget.isVisible && show();
  widget.onAfterHide = () => void panel?.then((made) => made.hide()).catch(() => undefined);
  widget.onActivateRequest = () => void panel?.then((made) => made.focus()).catch(() => undefined);
  return whenThere;
}
