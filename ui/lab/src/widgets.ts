/**
 * How do widgets come back, and stay as the kernel has them?
 *
 * Door between the document's `comms` and the notebook's widget manager, which is jupyterlab_widgets'. That one asks
 * the kernel for its models, which has no time while code runs; and what an `Output` widget captures is known to nobody
 * but the page that ran it. Both are in the document. Nothing is done before it has a widget, or an output shows one.
 *
 * Theory of the two streams. A model that is made from the document hears the kernel from then on. What the kernel said
 * between the document's word and that moment it did not hear: it comes with a later change of the document. So a key
 * is set from the document until the model itself changes it, because the kernel or the user did; from then on what the
 * document says of it is older. A connection that was lost begins this anew, for every model.
 */

import {
  type Change,
  type Comm,
  decodeBlob,
  type Execution,
  type Json,
  type LiveDocument,
  type Output,
} from "@rtc-kernel/client";

import {
  type OutputModel,
  TARGET,
  VIEW,
  type WidgetManager,
  type WidgetModel,
  type WidgetRenderer,
  type WidgetState,
} from "./ipywidgets.ts";
import type { CodeCell, KernelConnection, KernelMessage, LabOutput, NotebookPanel } from "./jupyterlab.ts";
import { changed, type Fate, isLive, isOutput, makeable, toMessage, viewOf, withFates } from "./models.ts";
import { type Missing, stepsTo, toOutputs } from "./outputs.ts";

/** A notebook's manager is there soon after its kernel; where none comes, none is installed. */
const LOOK_MS = 200;
const LOOKS = 50;

/** What an `Output` widget hears directly may be older than the document, or newer by less than this. */
const SETTLE_MS = 200;

/** So long after a connection is back the document has what it missed. */
const CAUGHT_UP_MS = 2000;

/** So long for the code of a package of widgets; then the others are shown without it. */
const MADE_MS = 3000;

interface Followed {
  readonly model: Promise<WidgetModel>;
  /** The keys that the model has changed itself. */
  readonly touched: Set<string>;
  /** What the document said of it last. */
  seen: Comm["state"];
}

/** An `Output` widget, with the values that what it shows has elsewhere. */
interface Capture {
  readonly model: OutputModel;
  values: Map<string, Json>;
}

export class Widgets {
  private readonly panel: NotebookPanel;
  private readonly kernel: KernelConnection;
  private readonly cells: () => CodeCell[];
  private readonly redraw: () => void;
  private doc: LiveDocument | null = null;
  private stopFollowing: () => void = () => undefined;
  private manager: WidgetManager | null = null;
  private search: Promise<void> | null = null;
  /** Widgets that have changed in the document, and those without a model. */
  private readonly news = new Set<string>();
  /** Models that are JupyterLab's alone: what the document says of them is not even read. */
  private readonly left = new Set<string>();
  private readonly followed = new Map<string, Followed>();
  private readonly watched = new WeakSet<WidgetModel>();
  private readonly captures = new Map<string, Capture>();
  /** `Output` widgets that capture what this page runs: JupyterLab fills them. */
  private readonly own = new Set<string>();
  private readonly drawn = new WeakMap<WidgetRenderer, string>();
  private setting: WidgetModel | null = null;
  private isWorking = false;
  private isAskedFor = false;
  private isDisposed = false;

  /** `redraw`: what `adapt` gives for the cells' outputs has become other. */
  constructor(panel: NotebookPanel, kernel: KernelConnection, cells: () => CodeCell[], redraw: () => void) {
    this.panel = panel;
    this.kernel = kernel;
    this.cells = cells;
    this.redraw = redraw;
    kernel.connectionStatusChanged.connect(this.receiveStatus);
    kernel.iopubMessage.connect(this.receiveMessage);
  }

  dispose(): void {
    this.isDisposed = true;
    this.stopFollowing();
    this.kernel.connectionStatusChanged.disconnect(this.receiveStatus);
    this.kernel.iopubMessage.disconnect(this.receiveMessage);
    this.manager?.restored.disconnect(this.receiveRestored);
  }

  follow(doc: LiveDocument): void {
    this.stopFollowing();
    this.doc = doc;
    this.stopFollowing = doc.onChange((change) => this.receive(change));
    if (doc.meta !== null) this.receive({ reset: true });
  }

  /**
   * The outputs of an execution as they can be shown: one whose widget was closed is hidden, as in a page that sees it
   * close; one whose widget is gone with its kernel is its text.
   */
  adapt(outputs: LabOutput[], { generation }: Execution): LabOutput[] {
    if (this.manager === null && this.search === null && outputs.some((output) => viewOf(output) !== "")) this.look();
    return this.manager === null ? outputs : withFates(outputs, (id) => this.fateOf(id, generation));
  }

  private fateOf(id: string, generation: number): Fate {
    const { manager, doc } = this;
    const comm = doc?.comms.get(id);
    const now = doc?.kernel?.generation;
    if (manager === null || now === undefined || manager.has_model(id) || isLive(comm)) return "keep";
    if (generation !== now) return "text";
    if (comm) return "hide";
    return manager.restoredStatus ? "text" : "keep"; // the kernel may have it
  }

  // --- in

  private receive(change: Change): void {
    const comms = this.doc?.comms;
    if (change.reset) this.left.clear();
    for (const id of change.reset ? (comms?.keys() ?? []) : change.comms) {
      if (!this.left.has(id) && comms?.get(id)?.target === TARGET) this.news.add(id);
    }
    if (change.reset || change.kernels || change.comms.size > 0) this.look();
  }

  /** Whose an `Output` widget's capture is: that of the request in answer to which it began. */
  private readonly receiveMessage = (_: unknown, { header, parent_header, content }: KernelMessage): void => {
    if (header.msg_type !== "comm_msg") return;
    const { comm_id: id, data } = content as { comm_id: string; data?: { state?: { msg_id?: unknown } } };
    if (!data?.state?.msg_id) return;
    if (parent_header.session === this.kernel.clientId) this.own.add(id);
    else this.own.delete(id);
  };

  private readonly receiveRestored = (): void => {
    if (!this.manager?.restoredStatus || this.isDisposed) return;
    this.left.clear();
    for (const [id, comm] of this.doc?.comms ?? []) if (isLive(comm)) this.news.add(id);
    this.look();
    this.redraw();
  };

  /** What the kernel said while there was no connection, or just before, was not heard; the document has it. */
  private readonly receiveStatus = (_: unknown, status: string): void => {
    const { manager } = this;
    if (manager === null) return;
    if (status === "connected") {
      setTimeout(() => {
        for (const id of this.followed.keys()) this.news.add(id);
        this.look();
      }, CAUGHT_UP_MS);
      return;
    }
    this.own.clear();
    for (const [id, comm] of this.doc?.comms ?? []) {
      if (isLive(comm) && manager.has_model(id)) this.begin(id, manager.get_model(id), {});
    }
  };

  // --- the manager

  private look(): void {
    if (this.manager !== null) void this.work();
    else if (this.search === null) this.search = this.find();
  }

  private async find(): Promise<void> {
    for (let looks = 0; looks < LOOKS && !this.isDisposed; looks++) {
      const manager = await this.ask();
      if (manager === undefined) continue;
      if (manager === null || typeof manager.has_model !== "function") return; // ipywidgets 7 has other ways
      this.manager = manager;
      manager.restored.connect(this.receiveRestored);
      if (manager.restoredStatus) this.receiveRestored();
      else {
        this.look();
        this.redraw();
      }
      return;
    }
  }

  /** Null: there is none, and none will come; undefined: not yet. */
  private async ask(): Promise<WidgetManager | null | undefined> {
    let renderer: WidgetRenderer;
    try {
      renderer = this.panel.content.rendermime.createRenderer(VIEW) as WidgetRenderer;
    } catch {
      return null;
    }
    const later = new Promise<undefined>((resolve) => setTimeout(resolve, LOOK_MS));
    const manager = await Promise.race([renderer._manager?.promise ?? null, later]);
    renderer.dispose();
    return manager;
  }

  // --- models

  /** Everything in `news`, one after another: a model is made once. */
  private async work(): Promise<void> {
    this.isAskedFor = true;
    if (this.isWorking) return;
    this.isWorking = true;
    try {
      while (this.isAskedFor && !this.isDisposed) {
        this.isAskedFor = false;
        const { manager, doc } = this;
        if (manager === null || doc === null) return;
        const lacking: Comm[] = [];
        for (const id of [...this.news]) {
          const comm = doc.comms.get(id);
          if (isLive(comm) && !manager.has_model(id)) lacking.push(comm);
          else {
            this.news.delete(id);
            if (isLive(comm)) this.update(id, comm, manager);
            else this.forget(id);
          }
        }
        await this.bring(lacking, manager);
      }
    } catch (error) {
      console.warn("rtc_kernel: widgets did not come back:", error);
    } finally {
      this.isWorking = false;
    }
  }

  /**
   * Make models that the kernel has, and this page has not, of what the document has. A kernel that is idle is left to
   * tell of them itself.
   */
  private async bring(lacking: readonly Comm[], manager: WidgetManager): Promise<void> {
    if (this.doc?.kernel?.state !== "busy" && !manager.restoredStatus) return;
    const comms = makeable(lacking, (id) => manager.has_model(id));
    const states = await Promise.all(comms.map((comm) => this.stateOf(comm)));
    // JupyterLab may be doing the same; who has opened the comm makes the model.
    const ours = comms.flatMap((comm, index) => {
      if (manager.has_model(comm.id) || this.kernel.hasComm(comm.id)) return [];
      return [{ comm, state: states[index] ?? {}, opened: manager._create_comm(TARGET, comm.id) }];
    });
    if (ours.length === 0 || this.isDisposed) return;
    const opened = await Promise.all(ours.map((one) => one.opened));
    // All are known before the first is made of its state, which may refer to any.
    const models = ours.map(({ comm, state }, index) => {
      const model = manager.new_model({ ...modelOf(state), model_id: comm.id, comm: opened[index] }, state);
      this.begin(comm.id, model, comm.state);
      return model;
    });
    const ids = new Set(ours.map(({ comm }) => comm.id));
    const late = new Promise((resolve) => setTimeout(resolve, MADE_MS));
    void Promise.race([Promise.allSettled(models), late]).then(() => this.show(ids, manager));
  }

  /** What captures has its outputs not from here: they are drawn one by one. */
  private async stateOf(comm: Comm, state: Comm["state"] = comm.state): Promise<Comm["state"]> {
    const { outputs: _, ...rest } = state;
    const blob = (digest: string): Promise<Uint8Array | null> =>
      this.doc?.transport.blob(digest).catch(() => null) ?? Promise.resolve(null);
    return (await toMessage(isOutput(comm) ? rest : state, blob)) as Comm["state"];
  }

  /** From here on the document is heard for what the model does not hear. `seen`: what the model has of it. */
  private begin(id: string, model: Promise<WidgetModel>, seen: Comm["state"]): void {
    this.left.delete(id);
    this.followed.set(id, { model, touched: new Set(), seen });
    const watch = (made: WidgetModel): void => {
      if (this.watched.has(made)) return;
      this.watched.add(made);
      made.on("change", () => {
        if (this.setting === made) return;
        for (const key of Object.keys(made.changedAttributes() || {})) this.followed.get(id)?.touched.add(key);
      });
    };
    model.then(watch, () => this.followed.delete(id));
  }

  private forget(id: string): void {
    this.followed.delete(id);
    this.captures.delete(id);
    this.own.delete(id);
  }

  private update(id: string, comm: Comm, manager: WidgetManager): void {
    if (isOutput(comm)) void manager.get_model(id).then((model) => this.capture(id, model as OutputModel));
    const known = this.followed.get(id);
    if (known === undefined) {
      if (!isOutput(comm)) this.left.add(id);
      return;
    }
    const part = changed(known.seen, comm.state);
    known.seen = comm.state;
    if (Object.keys(part).length === 0) return;
    const set = async (model: WidgetModel): Promise<void> => {
      const read = model.constructor._deserialize_state;
      if (read === undefined) return;
      const state = await read.call(model.constructor, await this.stateOf(comm, part), manager);
      const free = Object.entries(state).filter(([key]) => !known.touched.has(key));
      this.change(model, () => model.set_state(Object.fromEntries(free)));
    };
    known.model
      .then((model) => (model.state_change = model.state_change.then(() => set(model)).catch(warn)))
      .catch(() => undefined);
  }

  /** A change that is ours. */
  private change(model: WidgetModel, make: () => void): void {
    this.setting = model;
    try {
      make();
    } finally {
      this.setting = null;
    }
  }

  /** Models have come: outputs that wait for them are drawn, and those that gave them up. */
  private show(ids: ReadonlySet<string>, manager: WidgetManager): void {
    if (this.isDisposed) return;
    if (!manager.restoredStatus) manager.restored.emit?.();
    for (const cell of manager.restoredStatus ? this.cells() : []) {
      for (const [index, item] of cell.outputArea.widgets.entries()) {
        const output = cell.model.outputs.get(index);
        const id = output && viewOf(output);
        if (!id || !ids.has(id)) continue;
        for (const child of item.children()) {
          const renderer = child as Partial<WidgetRenderer> as WidgetRenderer;
          if (renderer.mimeType !== VIEW || renderer.widgets.length > 0 || this.drawn.get(renderer) === id) continue;
          this.drawn.set(renderer, id);
          void renderer.renderModel(output);
        }
      }
    }
  }

  // --- what Output widgets have captured

  private capture(id: string, model: OutputModel): void {
    let capture = this.captures.get(id);
    if (capture?.model !== model) {
      this.captures.set(id, (capture = { model, values: new Map() }));
      let timer: ReturnType<typeof setTimeout> | undefined;
      model.on("change:outputs", () => {
        if (this.setting === model) return;
        clearTimeout(timer);
        timer = setTimeout(() => this.showCaptured(id), SETTLE_MS);
      });
    }
    this.showCaptured(id);
  }

  private showCaptured(id: string): void {
    const [comm, capture] = [this.doc?.comms.get(id), this.captures.get(id)];
    const captured = comm?.state["outputs"];
    if (this.isDisposed || !capture || !isLive(comm) || this.own.has(id) || !Array.isArray(captured)) return;
    const missing: Missing = new Map();
    const used = new Map<string, Json>();
    const wanted = toOutputs(
      captured as Output[],
      (digest, mediaType) => {
        const key = `${digest} ${mediaType}`;
        const value = capture.values.get(key);
        if (value !== undefined) used.set(key, value);
        return value;
      },
      missing,
    );
    capture.values = used;
    if (missing.size > 0) void this.load(capture, missing).then(() => this.showCaptured(id));
    const { model } = capture;
    const steps = stepsTo(model.outputs.toJSON(), wanted);
    if (steps.length === 0) return;
    this.change(model, () => {
      for (const step of steps) {
        if (step.do === "add") model.outputs.add(step.output);
        else if (step.do === "set") model.outputs.set(step.index, step.output);
        else model.outputs.fromJSON(step.outputs);
      }
      model.set("outputs", model.outputs.toJSON(), { newMessage: true }); // its own word for: it is drawn already
    });
  }

  private async load(capture: Capture, missing: Missing): Promise<void> {
    const fetch = async ([digest, mediaType]: [string, string]): Promise<void> => {
      const bytes = await this.doc?.transport.blob(digest).catch(() => null);
      capture.values.set(`${digest} ${mediaType}`, bytes ? decodeBlob(bytes, mediaType) : null);
    };
    await Promise.all([...missing].map(fetch));
  }
}

const modelOf = (state: WidgetState): { model_name: string; model_module: string; model_module_version: string } => ({
  model_name: String(state["_model_name"]),
  model_module: String(state["_model_module"]),
  model_module_version: String(state["_model_module_version"]),
});

const warn = (error: unknown): void => console.warn("rtc_kernel: a widget could not follow the document:", error);
