/**
 * Where the panel begins: what JupyterLab loads when it is looked at for the first time.
 *
 * Everything stands in a shadow, so that neither the page's styles nor ours reach the other's.
 */

import { changeColours } from "@rtc-kernel/viewer/preferences.ts";
import parts from "@rtc-kernel/viewer/parts.css?inline";
import type { DrawnOutputs } from "@rtc-kernel/viewer/place.ts";
import { Session } from "@rtc-kernel/viewer/session.ts";
import { type ReadonlySignal, signal, type Signal } from "@preact/signals";
import type { Execution } from "@rtc-kernel/client";
import { type JSX, render } from "preact";
import type { ConsolePanel, LuminoWidget, NotebookPanel, OutputAreaPackage, Share, Tracker, WidgetPackage } from "../jupyterlab.ts";
import type { Lab, Sidebar } from "../sidebar.ts";
import { findCell } from "./cells.ts";
import type { PanelEnv, Trans } from "./env.ts";
import { openShare } from "./Share.tsx";
import { LabOutputs } from "./outputs.ts";
import { type Kernel, Panel } from "./Panel.tsx";
import { type Subject, Watcher } from "./subject.ts";
import sheet from "./panel.css?inline";

/** What only the panel itself knows of where it is. */
interface Place extends PanelEnv {
  readonly drawOutputs?: (host: HTMLElement) => DrawnOutputs;
  readonly kernel?: ReadonlySignal<Kernel>;
}

const UNKNOWN: Kernel = { name: "", note: null, isOver: false };

/** Draw the panel of one document into an element; returns how to end it. */
export function mount(host: HTMLElement, env: Place): () => void {
  const drawing = new Drawing(host, env);
  drawing.show();
  return () => drawing.dispose();
}

/** The panel of one document. */
class Drawing {
  private readonly host: HTMLElement;
  private readonly env: Place;
  private readonly session: Session;

  constructor(host: HTMLElement, env: Place) {
    this.host = host;
    this.env = env;
    this.session = new Session(env.doc, {
      drawOutputs: env.drawOutputs ?? ((element) => drawOnce(element, env)),
      note: () => undefined,
    });
  }

  show(): void {
    const kernel = this.env.kernel ?? signal(UNKNOWN);
    render(<Panel env={this.env} session={this.session} kernel={kernel} />, this.host);
  }

  hide(): void {
    render(null, this.host);
  }

  focus(): void {
    this.session.list.element?.focus({ preventScroll: true });
  }

  dispose(): void {
    this.hide();
    this.session.dispose();
  }
}

/** Outputs by what every part of the panel has: each record is drawn anew. */
function drawOnce(host: HTMLElement, env: PanelEnv): DrawnOutputs {
  let end: () => void = () => undefined;
  const show = (execution: Execution): void => {
    end();
    end = env.renderOutputs(host, execution);
  };
  return { show, update: show, destroy: () => end() };
}

/** Begin in the widget of the sidebar. */
export async function start(widget: LuminoWidget, lab: Lab): Promise<Sidebar> {
  const [consoles, renderers] = await Promise.all([loadConsoles(lab), loadRenderers(lab.share)]);
  const shadow = widget.node.attachShadow({ mode: "open" });
  const style = document.createElement("style");
  style.textContent = parts + sheet;
  const host = document.createElement("div");
  host.className = "host";
  shadow.append(style, host);
  followTheme(widget.node);
  return new Panels(widget, host, lab, consoles, renderers);
}

interface Renderers {
  readonly outputArea: OutputAreaPackage;
  readonly widgets: WidgetPackage;
}

/** The panel, over the kernels that are looked at. */
class Panels implements Sidebar {
  private readonly widget: LuminoWidget;
  private readonly host: HTMLElement;
  private readonly lab: Lab;
  private readonly trans: Trans;
  private readonly renderers: Renderers;
  private readonly consoles: Tracker<ConsolePanel> | null;
  private readonly kernel: Signal<Kernel> = signal(UNKNOWN);
  private subject: Subject | null = null;
  private drawing: Drawing | null = null;
  private ends: (() => void)[] = [];
  private isShown = false;
  private env: PanelEnv | null = null;
  private isToShare = false;

  constructor(
    widget: LuminoWidget,
    host: HTMLElement,
    lab: Lab,
    consoles: Tracker<ConsolePanel> | null,
    renderers: Renderers,
  ) {
    this.widget = widget;
    this.host = host;
    this.lab = lab;
    this.trans = lab.trans;
    this.renderers = renderers;
    this.consoles = consoles;
    new Watcher(lab, consoles, (subject) => this.look(subject));
  }

  show(): void {
    this.isShown = true;
    this.draw();
  }

  hide(): void {
    this.isShown = false;
    this.drawing?.hide();
  }

  focus(): void {
    if (this.drawing) this.drawing.focus();
    else this.host.querySelector<HTMLElement>("[tabindex]")?.focus();
  }

  /** Once its document is there, where it is being asked for. */
  openShare(): void {
    this.isToShare = this.env === null && this.subject?.found === "asking";
    if (this.env !== null) openShare(this.env);
  }

  private look(subject: Subject | null): void {
    const before = this.subject;
    this.subject = subject;
    const isAnother = subject?.kernel !== before?.kernel;
    // While a restarted kernel is asked for its new document, the picture of the old one stays.
    const doc = subject === null || typeof subject.found === "string" ? null : subject.found;
    if (isAnother || subject?.found === "none" || (doc !== null && doc !== before?.found)) this.end();
    if (subject !== null && doc !== null && this.drawing === null) this.begin(subject);
    this.note();
    this.draw();
  }

  private end(): void {
    this.drawing?.dispose();
    this.drawing = null;
    this.env = null;
    for (const end of this.ends.splice(0)) end();
  }

  private begin(subject: Subject): void {
    const { lab, renderers, trans, widget } = this;
    const { found: doc, kernel, widget: looked } = subject;
    if (typeof doc === "string") return;
    const rendermime = (): unknown => rendermimeOf(looked);
    const drawOutputs = (host: HTMLElement): DrawnOutputs =>
      new LabOutputs(widget.node, host, doc, trans, { ...renderers, rendermime });
    const note = (): void => this.note();
    kernel.statusChanged.connect(note);
    looked.title.changed.connect(note);
    this.ends = [() => kernel.statusChanged.disconnect(note), () => looked.title.changed.disconnect(note)];
    const env = {
      doc,
      trans,
      drawOutputs,
      kernel: this.kernel,
      settings: lab.settings,
      userName: () => lab.app.serviceManager?.user?.identity?.display_name ?? "",
      renderOutputs: (host: HTMLElement, execution: Execution) => {
        const drawn = drawOutputs(host);
        drawn.show(execution);
        return () => drawn.destroy();
      },
      reveal: (execution: Execution) => {
        const show = findCell(lab.app, this.openAt(kernel.id), execution);
        show?.();
        return show !== null;
      },
      onDispose: (end: () => void) => void this.ends.push(end),
    };
    this.env = env;
    this.drawing = new Drawing(this.host, env);
    if (this.isToShare) this.openShare();
  }

  /** What is open at a kernel, what is looked at first. */
  private openAt(kernel: string): (NotebookPanel | ConsolePanel)[] {
    const open: (NotebookPanel | ConsolePanel)[] = [];
    this.lab.notebooks.forEach((panel) => open.push(panel));
    this.consoles?.forEach((panel) => open.push(panel));
    const looked = this.subject?.widget;
    return open
      .filter((panel) => !panel.isDisposed && panel.sessionContext.session?.kernel?.id === kernel)
      .sort((one, other) => Number(other === looked) - Number(one === looked));
  }

  /** What is to be said of the kernel itself. */
  private note(): void {
    const { subject, trans } = this;
    if (subject === null) return;
    const { kernel, found, hasLeft, widget } = subject;
    const isDead = kernel.status === "dead" || kernel.status === "terminated";
    const note = hasLeft
      ? trans.__("The kernel was shut down. This is its history.")
      : isDead
        ? trans.__("The kernel is dead. This is its history; restart it to go on.")
        : found === "asking"
          ? trans.__("The kernel starts again; this is its history so far.")
          : null;
    const [name, isOver] = [widget.title.label, hasLeft || isDead];
    const known = this.kernel.peek();
    if (name !== known.name || note !== known.note) this.kernel.value = { name, note, isOver };
  }

  private draw(): void {
    if (!this.isShown) return;
    if (this.drawing) this.drawing.show();
    else render(<Nothing subject={this.subject} trans={this.trans} />, this.host);
  }
}

function Nothing({ subject, trans }: { subject: Subject | null; trans: Trans }): JSX.Element {
  const text =
    subject === null
      ? trans.__("Open a notebook or a console: what its kernel runs is shown here.")
      : subject.found === "asking"
        ? trans.__("The kernel is being asked for its history…")
        : trans.__(
            "%1 has no live document. Choose the kernel “RTC Python”, or run “jupyter rtc install” to give any kernel one.",
            subject.widget.title.label,
          );
  return (
    <div class="panel">
      <p class="empty" role="status" tabIndex={-1}>
        {text}
      </p>
    </div>
  );
}

function rendermimeOf(widget: unknown): unknown {
  const { content, console } = widget as { content?: { rendermime: unknown }; console?: { rendermime: unknown } };
  return (content ?? console)?.rendermime;
}

async function loadConsoles({ app, share }: Lab): Promise<Tracker<ConsolePanel> | null> {
  try {
    const { IConsoleTracker } = (await share("@jupyterlab/console")) as { IConsoleTracker: unknown };
    return (await app.resolveOptionalService(IConsoleTracker)) as Tracker<ConsolePanel> | null;
  } catch {
    return null; // a page without consoles
  }
}

async function loadRenderers(share: Share): Promise<Renderers> {
  const [outputArea, widgets] = await Promise.all([share("@jupyterlab/outputarea"), share("@lumino/widgets")]);
  return { outputArea: outputArea as OutputAreaPackage, widgets: widgets as WidgetPackage };
}

/** Say inside whether the page is light, which JupyterLab says on its body. */
function followTheme(node: HTMLElement): void {
  const read = (): void => {
    node.dataset["light"] = document.body.dataset["jpThemeLight"] ?? "true";
    changeColours();
  };
  read();
  const options = { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] };
  new MutationObserver(read).observe(document.body, options);
}
