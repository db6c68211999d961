/**
 * The page of the frame that widgets are drawn in. It has no origin and no network, and its state comes over a port.
 *
 * Read-only: there are no comms, and what would change a control is stopped before the control hears of it.
 */

import "@fortawesome/fontawesome-free/css/fontawesome.css";
import "@fortawesome/fontawesome-free/css/solid.css";
import "@lumino/widgets/style/index.css";
import "@jupyter-widgets/controls/css/labvariables.css";
import "@jupyter-widgets/controls/css/widgets-base.css";
import "./widgets.css";
import * as base from "@jupyter-widgets/base";
import * as controls from "@jupyter-widgets/controls";
import { HTMLManager } from "@jupyter-widgets/html-manager/lib/htmlmanager";
import * as output from "@jupyter-widgets/html-manager/lib/output";

type State = { [key: string]: unknown };
interface Model {
  id: string;
  state: State;
  closed: boolean;
}

/** Finds views and models in the packages of ipywidgets 8; they draw the state of ipywidgets 7 too. */
class Manager extends HTMLManager {
  /** Where controls look for one who sets formulas. */
  readonly _rendermime = {
    latexTypesetter: {
      typeset: (element: HTMLElement): void => {
        if (/[$\\]/.test(element.textContent ?? "")) void import("./math.ts").then(({ setFormulas }) => setFormulas(element));
      },
    },
  };

  protected override async loadClass(className: string, moduleName: string, moduleVersion: string): Promise<never> {
    const module = MODULES[moduleName];
    if (!module) throw new Error(`${moduleName} is shown only where it is installed`);
    const found = module[className];
    if (!found) throw new Error(`${moduleName} ${moduleVersion} has no ${className}`);
    return found as never;
  }
}

const MODULES: { readonly [name: string]: { readonly [name: string]: unknown } } = {
  "@jupyter-widgets/base": base as never,
  "@jupyter-widgets/controls": controls as never,
  "@jupyter-widgets/output": output as never,
};

const manager = new Manager();
let queue: Promise<void> = Promise.resolve();

window.addEventListener("message", function begin(event: MessageEvent<State>) {
  const [port] = event.ports;
  if (event.source !== window.parent || !port) return;
  window.removeEventListener("message", begin);
  const view = String(event.data["view"]);
  setLooks(event.data);
  let shown = false;
  port.onmessage = ({ data }: MessageEvent<State>) => {
    if ("dark" in data) setLooks(data);
    const models = data["models"] as Model[] | undefined;
    if (!models) return;
    queue = queue.then(async () => {
      await take(models);
      if (shown) return;
      shown = true;
      await show(view).catch((error: unknown) => {
        console.error(error);
        port.postMessage({ failed: true });
      });
    });
  };
  const report = (): void => port.postMessage({ height: document.documentElement.getBoundingClientRect().height });
  new ResizeObserver(report).observe(document.documentElement);
});

function setLooks({ dark, ground }: State): void {
  document.documentElement.dataset["theme"] = dark === true ? "dark" : "light";
  document.documentElement.style.background = String(ground);
}

/** New models all at once, because they refer to each other; of known ones what changed. */
async function take(models: readonly Model[]): Promise<void> {
  const fresh: { [id: string]: unknown } = {};
  for (const { id, state } of models) {
    putViews(state);
    if (!manager.has_model(id)) {
      fresh[id] = {
        model_name: state["_model_name"],
        model_module: state["_model_module"],
        model_module_version: state["_model_module_version"],
        state,
      };
    }
  }
  if (Object.keys(fresh).length > 0) {
    await manager.set_state({ version_major: 2, version_minor: 0, state: fresh } as never).catch(console.error);
  }
  for (const { id, state } of models) {
    if (id in fresh || !manager.has_model(id)) continue;
    try {
      const model = await manager.get_model(id);
      const read = await (model.constructor as typeof base.WidgetModel)._deserialize_state(state as never, manager);
      model.set_state(read);
    } catch (error) {
      console.error(error);
    }
  }
}

async function show(id: string): Promise<void> {
  const model = await manager.get_model(id);
  const place = document.getElementById("view") as HTMLElement;
  await manager.display_view(manager.create_view(model), place);
}

/** Buffers are read as DataViews. */
function putViews(value: unknown): unknown {
  if (value instanceof Uint8Array) return new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (typeof value !== "object" || value === null) return value;
  const holder = value as State;
  for (const key of Object.keys(holder)) holder[key] = putViews(holder[key]);
  return value;
}

const CONTROLS = "input, select, textarea, button, label, [contenteditable], [role], .noUi-target, .lm-TabBar-tab, .jupyter-widget-Collapse-header, .lm-AccordionPanel-title";
const ACTS = "pointerdown mousedown touchstart click dblclick beforeinput input change drop paste wheel contextmenu";

function isControl(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest(CONTROLS) !== null;
}

function refuse(event: Event): void {
  if (event.cancelable) event.preventDefault();
  event.stopImmediatePropagation();
}

for (const name of ACTS.split(" ")) {
  // a wheel over anything but a number scrolls
  const concerns = (event: Event): boolean =>
    name === "wheel" ? event.target === document.activeElement && isControl(event.target) : isControl(event.target);
  window.addEventListener(name, (event) => concerns(event) && refuse(event), { capture: true, passive: false });
}
window.addEventListener("keydown", (event) => !["Tab", "Escape"].includes(event.key) && isControl(event.target) && refuse(event), true);
