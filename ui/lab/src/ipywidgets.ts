/**
 * What is used of the packages that draw Jupyter widgets in JupyterLab (jupyterlab_widgets 3).
 *
 * Pure types, as in jupyterlab.ts: what is public there, but for {@link WidgetRenderer}'s manager, which nothing else
 * leads to. They may not be installed at all.
 */

import type { OutputsModel, Signal } from "./jupyterlab.ts";

export type WidgetState = { [key: string]: unknown };

/** A model: Backbone's, with what ipywidgets adds. */
export interface WidgetModel {
  /** What comes from the kernel is done behind it, in order. */
  state_change: Promise<unknown>;
  readonly constructor: {
    _deserialize_state?(state: WidgetState, manager: WidgetManager): Promise<WidgetState>;
  };
  changedAttributes(): WidgetState | false;
  on(event: string, listener: () => void): void;
  /** Sets without sending it to the kernel. */
  set_state(state: WidgetState): void;
  set(key: string, value: unknown, options: { [name: string]: unknown }): void;
}

/** Of the widget `Output`. */
export interface OutputModel extends WidgetModel {
  readonly outputs: OutputsModel;
}

/** One notebook's. */
export interface WidgetManager {
  has_model(id: string): boolean;
  get_model(id: string): Promise<WidgetModel>;
  /** For a comm that the kernel has open already. */
  _create_comm(target: string, id: string): Promise<unknown>;
  new_model(
    options: { model_name: string; model_module: string; model_module_version: string; model_id: string; comm: unknown },
    state: WidgetState,
  ): Promise<WidgetModel>;
  /** Models may be there that were not: whoever waits for one looks again. */
  readonly restored: Signal<unknown, void> & { emit?(): void };
  /** It has all that the kernel and the file know of; what is not there now never will be. */
  readonly restoredStatus: boolean;
}

/** Draws an output of {@link VIEW}. */
export interface WidgetRenderer {
  readonly _manager?: { readonly promise: Promise<WidgetManager> };
  readonly mimeType: string;
  /** The views in it. */
  readonly widgets: readonly unknown[];
  renderModel(output: unknown): Promise<void>;
  dispose(): void;
}

/** The media type of a view in an output. */
export const VIEW = "application/vnd.jupyter.widget-view+json";

/** The comm target of models. */
export const TARGET = "jupyter.widget";
