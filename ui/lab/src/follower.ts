/**
 * How does one notebook follow one kernel?
 *
 * Door between JupyterLab's notebook and the kernel's live document. A cell shows its latest execution, whoever asked for
 * it; what JupyterLab draws itself, because this page has run it, is left to it for as long as it does.
 */

import {
  decodeBlob,
  type Execution,
  hasEnded,
  type HistoryPage,
  type Json,
  type LiveDocument,
  type Output,
} from "@rtc-kernel/client";

import { followDocument, type Found } from "./documents.ts";
import type { CodeCell, KernelConnection, LabOutput, NotebookPanel, OutputAreaPackage } from "./jupyterlab.ts";
import { CLEARED, counts, isCodeOf, latestOf, Places } from "./matching.ts";
import { Note } from "./notes.ts";
import { fillIn, isCut, type Made, type Missing, toOutputs } from "./outputs.ts";
import type { Trans } from "./panel/env.ts";
import { Screen } from "./screen.ts";
import type { OutputChoices, Settings } from "./settings.ts";
import { Widgets } from "./widgets.ts";

/** So long after an execution's end JupyterLab may still be drawing it; then what it waits for was lost. Seconds. */
const GRACE_S = 3;

/** So long cells are filled at a stretch: the page has to answer its user in between. Milliseconds. */
const STRETCH_MS = 20;

/** So many pages of the history, of up to 1000 executions each, are looked through for what the document has not. */
const PAGES = 5;

/** The least time between two requests for a whole record that still grows. Seconds. */
const WHOLE_S = 2;

/** What a follower has of the page around it. */
export interface Surroundings {
  readonly outputArea: () => Promise<OutputAreaPackage>;
  readonly settings: Settings<OutputChoices>;
  readonly trans: Trans;
}

export class NotebookFollower {
  private readonly panel: NotebookPanel;
  private readonly kernel: KernelConnection;
  private readonly isFirst: boolean;
  private readonly around: Surroundings;
  private readonly stopChoosing: () => void;
  private readonly widgets: Widgets;
  private readonly stopFollowing: () => void;
  private stopListening: () => void = () => undefined;
  private doc: LiveDocument | null = null;
  private readonly screens = new WeakMap<CodeCell["model"], Screen>();
  /** The newest execution when a cell came into the notebook: of earlier ones its code says nothing. */
  private readonly births = new WeakMap<CodeCell["model"], number>();
  private readonly values = new Map<string, Json>();
  private readonly made: Made = new WeakMap();
  private readonly wholes = new Map<string, { outputs: readonly Output[]; ended: boolean }>();
  private readonly fetching = new Map<string, number>();
  /** Executions that are no longer in the document, of cells that show them. */
  private readonly past = new Map<string, Execution>();
  /** Of executions whose end JupyterLab did not come to know. */
  private readonly givenUp = new WeakSet<object>();
  /** The `seq` of what JupyterLab draws, or what it will be at least. */
  private readonly runs = new WeakMap<object, number>();
  /** Runs of this page's own in whose midst the connection was lost. */
  private readonly torn = new Set<string>();
  /** Runs of this page's own that were cleared before the document knew of their end. */
  private readonly clearedEarly = new Set<string>();
  private readonly grace = new Map<string, ReturnType<typeof setTimeout>>();
  /** Executions up to this `seq` are of the time before this kernel was chosen; null until that is known. */
  private baseline: number | null = null;
  /** The last `seq` that was there when this kernel was chosen. */
  private newest = Infinity;
  private isFilling = false;
  private areCellsDue = false;
  private hasRecalled = false;
  private isDisposed = false;

  /** `isFirst`: the notebook was just opened, so it shows what its cells gave; else they keep what they show. */
  constructor(panel: NotebookPanel, kernel: KernelConnection, isFirst: boolean, around: Surroundings) {
    this.panel = panel;
    this.kernel = kernel;
    this.isFirst = isFirst;
    this.around = around;
    this.stopChoosing = around.settings.onChange(() => this.choose());
    this.widgets = new Widgets(panel, kernel, () => this.cells(), () => this.redrawAll());
    this.stopFollowing = followDocument(kernel, (found) => this.follow(found));
    panel.content.model?.cells.changed.connect(this.receiveCells);
    kernel.connectionStatusChanged.connect(this.receiveStatus);
  }

  dispose(): void {
    this.isDisposed = true;
    this.panel.content.model?.cells.changed.disconnect(this.receiveCells);
    this.kernel.connectionStatusChanged.disconnect(this.receiveStatus);
    this.stopChoosing();
    this.stopListening();
    this.widgets.dispose();
    this.stopFollowing();
    for (const timer of this.grace.values()) clearTimeout(timer);
    for (const cell of this.cells()) this.screens.get(cell.model)?.leave();
  }

  /** The user has cleared this cell's outputs: they do not come back. */
  receiveCleared(cell: CodeCell): void {
    const { doc } = this;
    if (doc === null || cell.model.type !== "code") return;
    const screen = this.screens.get(cell.model);
    if (screen?.isOther) return; // what was cleared is not what the kernel gave
    screen?.clear();
    this.setNote(cell, null);
    const header = cell.outputArea.future?.msg.header;
    if (header?.session === this.kernel.clientId && !isStarred(cell)) {
      const own = doc.executions.get(header.msg_id);
      if (own === undefined || !hasEnded(own)) {
        this.clearedEarly.add(header.msg_id);
        return;
      }
    }
    const inDocument = latestOf(this.keys(), this.executions()).get(cell.model.sharedModel.getId());
    const latest = inDocument ?? this.past.get(screen?.execution ?? "");
    if (latest !== undefined && hasEnded(latest)) this.noteCleared(latest);
  }

  private noteCleared({ id, metadata }: Execution): void {
    if (metadata[CLEARED]) return;
    this.doc?.annotate(id, CLEARED, true).catch((error: unknown) => {
      console.warn("rtc_kernel: that the cell was cleared could not be noted:", error);
    });
  }

  private noteClearedEarly(): void {
    for (const id of this.clearedEarly) {
      const execution = this.doc?.executions.get(id);
      if (execution === undefined || !hasEnded(execution)) continue;
      this.clearedEarly.delete(id);
      this.noteCleared(execution);
    }
  }

  /** Some cells were cleared, and nobody says which. */
  lookForCleared(): void {
    for (const cell of this.cells()) {
      const { outputs, executionCount } = cell.model;
      const hasShown = this.screens.has(cell.model) || cell.outputArea.future;
      if (hasShown && outputs.length === 0 && executionCount === null && !isStarred(cell)) this.receiveCleared(cell);
    }
  }

  /** Cells came or went: those that came again, by undo or paste, missed what was said of them meanwhile. */
  private readonly receiveCells = (): void => {
    if (this.areCellsDue) return;
    this.areCellsDue = true;
    setTimeout(() => {
      this.areCellsDue = false;
      if (this.hasFilled && !this.isDisposed) this.fillNew();
    });
  };

  /** What the kernel says while nobody is connected, JupyterLab never hears. */
  private readonly receiveStatus = (_: unknown, status: string): void => {
    if (status === "connected") return;
    for (const { outputArea } of this.cells()) {
      const id = outputArea.future?.msg.header.msg_id ?? "";
      const execution = this.doc?.executions.get(id);
      if (execution && !hasEnded(execution)) this.torn.add(id);
    }
  };

  private follow(doc: Found): void {
    if (typeof doc === "string") return; // what is shown stays
    this.stopListening();
    this.doc = doc;
    this.widgets.follow(doc);
    this.stopListening = doc.onChange((change) => {
      this.noteClearedEarly();
      if (change.reset) void this.fill();
      else if (change.executions.size > 0) this.receive(change.executions.keys());
    });
    if (doc.meta !== null) void this.fill();
  }

  // --- which cell, which execution

  private cells(): CodeCell[] {
    if (this.panel.isDisposed) return [];
    return this.panel.content.widgets.filter(({ model }) => model.type === "code") as unknown as CodeCell[];
  }

  private keys(): { id: string; source: string; cell: CodeCell }[] {
    return this.cells().map((cell) => {
      const { sharedModel } = cell.model;
      return { id: sharedModel.getId(), source: sharedModel.getSource(), cell };
    });
  }

  /** All of the document is there, or is there anew. */
  private async fill(): Promise<void> {
    if (this.isFilling) return; // it reads the document as it goes
    this.isFilling = true;
    try {
      const keys = this.keys();
      const latest = latestOf(keys, this.executions());
      if (this.baseline === null) {
        this.newest = newestOf(this.executions());
        this.baseline = this.comesBack ? 0 : newestOf([...this.executions()].filter(hasEnded));
        for (const { cell } of keys) this.births.set(cell.model, 0);
      }
      // What runs now, and what the user looks at, first.
      const order = keys.filter(({ id }) => latest.has(id));
      const rank = ({ id, cell }: (typeof order)[number]): number =>
        Number(hasEnded(latest.get(id) as Execution)) * 2 + Number(!cell.node.isConnected);
      order.sort((a, b) => rank(a) - rank(b));
      let until = performance.now() + STRETCH_MS;
      for (const { id, cell } of order) {
        if (performance.now() > until) {
          await pause();
          until = performance.now() + STRETCH_MS;
        }
        if (this.isDisposed) return;
        const execution = this.doc?.executions.get((latest.get(id) as Execution).id);
        if (execution && !cell.isDisposed) this.show(cell, execution);
      }
      performance.mark("rtc_kernel:filled"); // for the benchmark
    } finally {
      this.isFilling = false;
    }
    if (this.comesBack && !this.hasRecalled) await this.recall();
  }

  /** Of cells that the document has no run of, the history may have one. */
  private async recall(): Promise<void> {
    this.hasRecalled = true;
    const there = new Set([...this.executions()].map(({ seq }) => seq));
    let before: number | null = newestOf(this.executions()) + 1;
    while (there.has(before - 1)) before--;
    if (before === 1) return; // all that ever ran is in the document
    try {
      for (let page = 0; page < PAGES && before !== null; page++) {
        const { doc } = this;
        const open = this.openCells();
        if (doc === null || this.isDisposed || open.length === 0) return;
        const found: HistoryPage = await doc.transport.history({ limit: 1000, before, brief: true });
        before = found.next;
        const rows = latestOf(this.keys(), found.executions);
        for (const { id, cell } of open) {
          const row = rows.get(id);
          if (row && hasEnded(row)) this.showPast(cell, await doc.transport.execution(row.id));
        }
      }
    } catch (error) {
      console.warn(`rtc_kernel: of some cells the history could not be read: ${String(error)}`);
    }
  }

  private openCells(): { id: string; cell: CodeCell }[] {
    const latest = latestOf(this.keys(), this.executions());
    return this.keys().filter(({ id, cell }) => !latest.has(id) && !this.screens.has(cell.model));
  }

  private showPast(cell: CodeCell, execution: Execution): void {
    if (this.isDisposed || cell.isDisposed || cell.outputArea.future || this.screens.has(cell.model)) return;
    this.past.set(execution.id, execution);
    this.show(cell, execution, { isPast: true });
  }

  private fillNew(): void {
    const newest = newestOf(this.executions());
    for (const { model } of this.cells()) if (!this.births.has(model)) this.births.set(model, newest);
    const keys = this.keys().filter(({ cell }) => !this.screens.has(cell.model) && !cell.outputArea.future);
    const latest = keys.length > 0 ? latestOf(keys, this.executions()) : new Map<string, Execution>();
    for (const { id, cell } of keys) {
      const execution = latest.get(id);
      if (execution) this.show(cell, execution);
      else if (isStarred(cell)) showIdle(cell);
    }
  }

  /** Whether cells show what they gave before this page was there. */
  private get comesBack(): boolean {
    return this.isFirst && this.around.settings.values.outputsComeBack;
  }

  /** The user has chosen otherwise. What is shown already stays. */
  private choose(): void {
    if (this.baseline === null) return;
    if (this.comesBack) this.baseline = 0;
    for (const cell of this.cells()) {
      const execution = this.doc?.executions.get(this.screens.get(cell.model)?.execution ?? "");
      if (execution) this.noteRun(cell, execution);
    }
    void this.fill();
  }

  private executions(): Iterable<Execution> {
    return this.doc?.executions.values() ?? [];
  }

  private receive(ids: Iterable<string>): void {
    const keys = this.keys();
    const cells = new Map(keys.map(({ id, cell }) => [id, cell]));
    const places = new Places(keys);
    for (const id of ids) {
      const execution = this.doc?.executions.get(id);
      const cell = execution && cells.get(places.of(execution) ?? "");
      if (cell) this.show(cell, execution);
    }
  }

  // --- one cell

  private show(cell: CodeCell, execution: Execution, { isPast = false } = {}): void {
    if (this.hasRunSince(cell, execution)) return;
    const known = this.screens.get(cell.model);
    if (known?.execution !== execution.id && !this.isNews(cell, execution, known)) return;
    if (this.isDrawnByLab(cell, execution)) {
      if (known && known.execution !== execution.id) {
        known.leave();
        this.screens.delete(cell.model);
      }
      if (hasEnded(execution)) this.expectEnd(cell, execution.id);
      return;
    }
    const { model } = this.panel.content;
    const wasDirty = model?.dirty ?? true;
    this.draw(cell, execution, { isPast });
    // Another page has run it and will save it: two pages that save one notebook get into each other's way.
    const isOfAPage = execution.cell !== null && execution.request === null;
    const isWatched = isOfAPage && execution.client !== this.kernel.clientId;
    if (model && !wasDirty && isWatched && !this.screens.get(cell.model)?.isRestored) model.dirty = false;
  }

  /** Whether a cell is to turn to this execution. */
  private isNews(cell: CodeCell, execution: Execution, known: Screen | undefined): boolean {
    const { seq, metadata } = execution;
    if (execution.private || metadata[CLEARED] || !counts(execution)) return false;
    const isItsOwn = execution.cell === cell.model.sharedModel.getId();
    const since = isItsOwn ? this.baseline : Math.max(this.baseline ?? 0, this.births.get(cell.model) ?? 0);
    if (hasEnded(execution) && seq <= (since ?? 0)) return false;
    const { outputsComeBack, showOthersRuns } = this.around.settings.values;
    if (seq <= this.newest ? !outputsComeBack : !showOthersRuns && execution.client !== this.kernel.clientId) return false;
    const shown = known && this.doc?.executions.get(known.execution);
    return !shown || shown.seq <= seq;
  }

  /** Whether this page has run the cell after that. Of what it runs just now the document does not know yet. */
  private hasRunSince({ outputArea: { future } }: CodeCell, { seq }: Execution): boolean {
    if (!future || this.givenUp.has(future)) return false;
    const { msg_id: id, session } = future.msg.header;
    if (session !== this.kernel.clientId) return false; // of a kernel that the notebook had before
    const run = this.doc?.executions.get(id);
    if (run) this.runs.set(future, run.seq);
    else if (!this.runs.has(future)) this.runs.set(future, newestOf(this.executions()) + 1);
    return seq < (this.runs.get(future) ?? 0);
  }

  private isDrawnByLab({ outputArea: { future } }: CodeCell, { id, client }: Execution): boolean {
    return client === this.kernel.clientId && future?.msg.header.msg_id === id && !this.givenUp.has(future);
  }

  private get hasFilled(): boolean {
    return !this.isFilling && this.baseline !== null;
  }

  private draw(cell: CodeCell, execution: Execution, { isPast = false } = {}): void {
    let screen = this.screens.get(cell.model);
    if (screen?.execution !== execution.id) {
      const isOther = !isCodeOf(execution, cell.model.sharedModel.getSource());
      screen?.question?.remove();
      const note = screen?.note ?? null;
      screen = new Screen(cell, execution, { isOther, isRestored: isPast || !this.hasFilled });
      screen.note = note;
      this.screens.set(cell.model, screen);
    }
    if (!screen.isOther && execution.state !== "queued" && counts(execution)) {
      const outputs = this.outputsOf(cell, execution);
      if (outputs) screen.showOutputs(outputs);
      if (this.panel.content.notebookConfig.recordTiming) screen.showTimes(execution);
    }
    screen.showPrompt(execution);
    const answer = async (value: string, since: number): Promise<void> => this.doc?.answer(execution.id, value, since);
    screen.showQuestion(execution, answer, this.around.trans);
    this.noteRun(cell, execution);
  }

  /** Say whose run it is, where that is not what was to be expected. */
  private noteRun(cell: CodeCell, execution: Execution): void {
    const screen = this.screens.get(cell.model);
    const isSaid = screen?.isOther || (!screen?.isRestored && this.around.settings.values.showWhoRan);
    this.setNote(cell, isSaid ? execution : null);
  }

  private setNote(cell: CodeCell, execution: Execution | null): void {
    const screen = this.screens.get(cell.model);
    if (screen === undefined) return;
    if (execution === null) {
      screen.note?.remove();
      screen.note = null;
      return;
    }
    screen.note ??= new Note(cell, this.around.trans);
    if (screen.isOther) screen.note.showOther(execution, (run) => this.wholeOutputs(run), this.around.outputArea);
    else screen.note.showRun(execution);
  }

  /**
   * JupyterLab draws it, and it has ended: if JupyterLab does not come to know that, or cannot have heard all of it, the
   * document's word counts.
   */
  private expectEnd(cell: CodeCell, id: string): void {
    const isWanting = (): boolean => isStarred(cell) || this.torn.has(id);
    if (this.grace.has(id) || !isWanting()) return;
    const timer = setTimeout(() => {
      this.grace.delete(id);
      const execution = this.doc?.executions.get(id);
      if (!execution || this.isDisposed || cell.isDisposed || !isWanting()) return;
      this.torn.delete(id);
      const { future } = cell.outputArea;
      if (!future || !this.isDrawnByLab(cell, execution)) return;
      this.givenUp.add(future);
      future.dispose();
      // JupyterLab hears of that in between, and 4.0 then takes the prompt's number away.
      setTimeout(() => this.redrawLost(cell, id));
    }, GRACE_S * 1000);
    this.grace.set(id, timer);
  }

  private redrawLost(cell: CodeCell, id: string): void {
    const execution = this.doc?.executions.get(id);
    if (execution && !this.isDisposed && !cell.isDisposed) this.draw(cell, execution);
  }

  // --- outputs, whole

  /** What is to be shown now; null: nothing is known yet. What is missing is fetched, and shown when it is there. */
  private outputsOf(cell: CodeCell, execution: Execution): LabOutput[] | null {
    const missing: Missing = new Map();
    let outputs: readonly Output[] | null = execution.outputs;
    if (isCut(execution)) {
      const whole = this.wholes.get(execution.id);
      outputs = whole ? fillIn(whole.outputs, execution) : null;
      const isFinal = hasEnded(execution);
      if (outputs === null || (isFinal && !whole?.ended)) this.fetchWhole(cell, execution, isFinal);
      if (outputs === null) return null;
    }
    const value = (digest: string, mediaType: string): Json | undefined => this.values.get(`${digest} ${mediaType}`);
    const made = toOutputs(outputs, value, missing, this.made);
    if (missing.size > 0) this.fetchValues(cell, execution.id, missing);
    return this.widgets.adapt(made, execution);
  }

  /** All outputs of an execution, fetched as far as they are not here. */
  private async wholeOutputs(execution: Execution): Promise<LabOutput[]> {
    const { doc } = this;
    if (doc === null) return [];
    const outputs = isCut(execution) ? (await doc.transport.execution(execution.id)).outputs : execution.outputs;
    const missing: Missing = new Map();
    const value = (digest: string, mediaType: string): Json | undefined => this.values.get(`${digest} ${mediaType}`);
    toOutputs(outputs, value, missing);
    for (;;) {
      await this.loadValues(missing);
      missing.clear();
      const made = toOutputs(outputs, value, missing);
      if (missing.size === 0) return made;
    }
  }

  private fetchWhole(cell: CodeCell, { id }: Execution, ended: boolean): void {
    const last = this.fetching.get(id);
    if (last === Infinity || this.doc === null) return;
    const wait = ended || last === undefined ? 0 : Math.max(0, last + WHOLE_S * 1000 - Date.now());
    this.fetching.set(id, Infinity);
    const load = async (): Promise<void> => {
      await new Promise((resolve) => setTimeout(resolve, wait));
      const record = await this.doc?.transport.execution(id);
      if (record) this.wholes.set(id, { outputs: record.outputs, ended: hasEnded(record) });
    };
    load()
      .catch((error: unknown) => console.warn(`rtc_kernel: the outputs of a cell are not all here: ${String(error)}`))
      .finally(() => {
        this.fetching.set(id, Date.now());
        this.redraw(cell, id);
      });
  }

  private fetchValues(cell: CodeCell, id: string, missing: Missing): void {
    const key = `values of ${id}`;
    if (this.fetching.has(key)) return;
    this.fetching.set(key, Infinity);
    void this.loadValues(missing).then(() => {
      this.fetching.delete(key);
      this.redraw(cell, id);
      for (const [digest, mediaType] of missing) this.values.delete(`${digest} ${mediaType}`); // it is drawn
    });
  }

  private async loadValues(missing: Missing): Promise<void> {
    const load = async ([digest, mediaType]: [string, string]): Promise<void> => {
      const bytes = await this.doc?.transport.blob(digest).catch(() => null);
      const value = bytes ? decodeBlob(bytes, mediaType) : null;
      this.values.set(`${digest} ${mediaType}`, value);
    };
    await Promise.all([...missing].map(load));
  }

  private redrawAll(): void {
    for (const cell of this.cells()) {
      const screen = this.screens.get(cell.model);
      if (screen) this.redraw(cell, screen.execution);
    }
  }

  private redraw(cell: CodeCell, id: string): void {
    const execution = this.doc?.executions.get(id) ?? this.past.get(id);
    if (!execution || this.isDisposed || cell.isDisposed) return;
    if (this.screens.get(cell.model)?.execution === id) this.show(cell, execution);
  }
}

function newestOf(executions: Iterable<Execution>): number {
  let newest = 0;
  for (const { seq } of executions) newest = Math.max(newest, seq);
  return newest;
}

/** Let the page answer its user, and go on before it begins with other work, where the browser knows how. */
function pause(): Promise<void> {
  const { scheduler } = globalThis as { scheduler?: { yield?: () => Promise<void> } };
  return scheduler?.yield?.() ?? new Promise((resolve) => setTimeout(resolve));
}

/** Whether the prompt says that it runs. */
function isStarred(cell: CodeCell): boolean {
  const { executionState } = cell.model;
  if (executionState !== undefined) return executionState === "running";
  return cell.node.querySelector(".jp-InputPrompt")?.textContent?.includes("*") ?? false;
}

/** It was copied from one that ran. */
function showIdle(cell: CodeCell): void {
  const { model } = cell;
  if (model.executionState === undefined) cell.setPrompt(String(model.executionCount ?? ""));
  else model.executionState = "idle";
}
