/**
 * What is used of JupyterLab.
 *
 * Pure types, of the least that JupyterLab 4.0 to 4.6 and Notebook 7 have in common, written down here because the
 * packages that declare them are hundreds. The browser tests hold them true.
 */

import type { JsonObject, KernelLike } from "@rtc-kernel/client";

import type { Trans } from "./panel/env.ts";

export interface Signal<Sender, Args> {
  connect(slot: (sender: Sender, args: Args) => void): boolean;
  disconnect(slot: (sender: Sender, args: Args) => void): boolean;
}

export interface KernelConnection extends KernelLike {
  readonly id: string;
  /** `header.session` of what it sends. */
  readonly clientId: string;
  readonly isDisposed: boolean;
  readonly disposed: Signal<unknown, unknown>;
  readonly status: string;
  readonly statusChanged: Signal<unknown, string>;
  readonly connectionStatusChanged: Signal<unknown, string>;
  readonly iopubMessage: Signal<unknown, KernelMessage>;
  hasComm(id: string): boolean;
}

export interface KernelMessage {
  readonly header: { readonly session: string; readonly msg_type: string };
  readonly parent_header: { readonly session?: string } | Record<string, never>;
  readonly content: unknown;
}

export interface SessionContext {
  readonly session: { readonly kernel: KernelConnection | null } | null;
  readonly kernelChanged: Signal<unknown, { newValue: KernelConnection | null }>;
}

/** nbformat's output. */
export type LabOutput = JsonObject;

/**
 * Outputs of a cell. Only this way of changing them is used: mixed with that of the shared model, text gets lost.
 * `set` of a stream is never followed by `add`, which would go on with the text that was there before.
 */
export interface OutputsModel {
  readonly length: number;
  add(output: LabOutput): number;
  set(index: number, output: LabOutput): void;
  clear(): void;
  fromJSON(outputs: LabOutput[]): void;
  /** `data`: of a display, by media type. */
  get(index: number): { readonly data?: unknown } | undefined;
  toJSON(): LabOutput[];
}

export interface CodeCellModel {
  readonly type: string;
  readonly isDisposed: boolean;
  readonly outputs: OutputsModel;
  executionCount: number | null;
  /** From JupyterLab 4.1 on. */
  executionState?: string;
  readonly trusted: boolean;
  readonly sharedModel: {
    getId(): string;
    getSource(): string;
    transact(change: () => void, undoable?: boolean): void;
  };
  getMetadata(key: string): unknown;
  setMetadata(key: string, value: unknown): void;
}

export interface OutputArea {
  /** Of the execution that JupyterLab itself draws here; whatever its types say, undefined before the first. */
  readonly future?: {
    readonly msg: { readonly header: { readonly msg_id: string; readonly session: string } };
    dispose(): void;
  } | null;
  readonly rendermime: unknown;
  /** One for each output, the renderer among its children. */
  readonly widgets: readonly { children(): Iterable<unknown> }[];
}

export interface CodeCell {
  readonly model: CodeCellModel;
  readonly node: HTMLElement;
  readonly outputArea: OutputArea;
  readonly isDisposed: boolean;
  /** The cell's parts are made when it is seen for the first time. */
  readonly ready: Promise<void>;
  setPrompt(value: string): void;
}

export interface NotebookModel {
  dirty: boolean;
  /** There is a server that writes the notebook itself, as jupyter-collaboration does. */
  readonly collaborative?: boolean;
  readonly cells: { readonly changed: Signal<unknown, unknown> };
}

export interface Notebook {
  readonly model: NotebookModel | null;
  readonly widgets: readonly { readonly model: { readonly type: string } }[];
  readonly notebookConfig: { readonly recordTiming?: boolean };
  readonly rendermime: { createRenderer(mediaType: string): unknown };
  activeCellIndex: number;
  readonly activeCell: { readonly node: HTMLElement } | null;
  deselectAll(): void;
  scrollToItem(index: number, align?: string): Promise<void>;
}

/** A notebook or a console, in the main area. */
export interface DocumentWidget {
  readonly id: string;
  readonly title: { readonly label: string; readonly changed: Signal<unknown, unknown> };
  readonly sessionContext: SessionContext;
  readonly isDisposed: boolean;
  readonly disposed: Signal<unknown, unknown>;
}

export interface NotebookPanel extends DocumentWidget {
  readonly content: Notebook;
  readonly context: { readonly ready: Promise<void> };
}

/** Who sits at the page. */
export interface User {
  /** Null until it is known. */
  readonly identity: { readonly display_name?: string } | null;
  readonly userChanged: Signal<unknown, unknown>;
}

export interface ConsolePanel extends DocumentWidget {
  readonly console: {
    readonly rendermime: unknown;
    /** What was run there; each of its cells is new. */
    readonly cells: {
      readonly length: number;
      get(index: number): { readonly node: HTMLElement; readonly model: { readonly sharedModel: { getId(): string } } };
    };
  };
}

export interface Tracker<Widget> {
  forEach(each: (widget: Widget) => void): void;
  has(widget: unknown): boolean;
  readonly currentWidget: Widget | null;
  readonly currentChanged: Signal<unknown, Widget | null>;
  readonly widgetAdded: Signal<unknown, Widget>;
}

export type NotebookTracker = Tracker<NotebookPanel>;

export interface App {
  readonly serviceManager?: { readonly user?: User };
  readonly commands: {
    readonly commandExecuted: Signal<unknown, { readonly id: string; readonly result: Promise<unknown> }>;
    addCommand(id: string, options: CommandOptions): unknown;
  };
  readonly shell: {
    readonly currentWidget: unknown;
    readonly currentChanged?: Signal<unknown, unknown>;
    add(widget: LuminoWidget, area: string, options: { rank: number }): void;
    activateById(id: string): void;
  };
  listPlugins?(): Iterable<string>;
  /** Null: nobody in this page gives it. */
  resolveOptionalService(token: unknown): Promise<unknown>;
}

export interface CommandOptions {
  readonly label: string;
  readonly caption: string;
  readonly execute: () => void;
  readonly isEnabled?: () => boolean;
}

export interface Plugin {
  readonly id: string;
  readonly description: string;
  readonly autoStart: boolean;
  readonly requires: readonly unknown[];
  readonly optional?: readonly unknown[];
  activate(app: App, tracker: NotebookTracker, ...optional: never[]): void;
}

/** Lumino's widget. What begins with `on` is called by Lumino. */
export interface LuminoWidget {
  id: string;
  readonly node: HTMLElement;
  readonly title: { caption: string; icon: unknown };
  readonly isVisible: boolean;
  addClass(name: string): void;
  dispose(): void;
  onAfterAttach: () => void;
  onAfterShow: () => void;
  onAfterHide: () => void;
  onActivateRequest: () => void;
}

export interface LayoutRestorer {
  add(widget: LuminoWidget, name: string): void;
}

/** Gives a package of the page. */
export type Share = (name: string) => Promise<unknown>;

/** What is used of the package `@lumino/widgets`. */
export interface WidgetPackage {
  readonly Widget: (new () => LuminoWidget) & { attach(widget: unknown, host: HTMLElement): void };
}

/** What is used of the package `@jupyterlab/ui-components`. */
export interface IconPackage {
  readonly LabIcon: new (options: { name: string; svgstr: string }) => unknown;
}

/** What is used of the package `@jupyterlab/application`. */
export interface ApplicationPackage {
  readonly ILayoutRestorer: unknown;
}

/** What we ask JupyterLab for where it is there. */
export interface Tokens {
  readonly ICommandPalette: unknown;
  readonly ISettingRegistry: unknown;
  readonly ITranslator: unknown;
}

/** `ITranslator`. */
export interface Translator {
  load(domain: string): Trans;
}

/** What is used of the package `@jupyterlab/notebook`. */
export interface NotebookPackage {
  readonly INotebookTracker: unknown;
  readonly NotebookActions: {
    /** Not in JupyterLab 4.0. */
    readonly outputCleared?: Signal<unknown, { notebook: Notebook; cell: CodeCell }>;
  };
}

/** What is used of the package `@jupyterlab/outputarea`. */
export interface OutputAreaPackage {
  readonly OutputAreaModel: new (options: { values: LabOutput[]; trusted: boolean }) => OutputsModel & { dispose(): void };
  readonly SimplifiedOutputArea: new (options: { model: unknown; rendermime: unknown }) => {
    readonly node: HTMLElement;
    dispose(): void;
  };
}

