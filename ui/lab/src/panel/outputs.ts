/**
 * How do the outputs of an execution come into the panel?
 *
 * Door to JupyterLab's renderers, the same as of a notebook's cells. Nothing is trusted here: it is not what stands in a
 * cell. What is drawn stands in the light of the page (JupyterLab's styles are there), in a slot of the panel's shadow.
 */

import { decodeBlob, type Execution, type Json, type LiveDocument } from "@rtc-kernel/client";
import { isOpen } from "@rtc-kernel/viewer/executions.ts";
import type { DrawnOutputs } from "@rtc-kernel/viewer/place.ts";
import type { LabOutput, OutputAreaPackage, OutputsModel, WidgetPackage } from "../jupyterlab.ts";
import { isCut, type Made, type Missing, stepsTo, toOutputs } from "../outputs.ts";
import type { Trans } from "./env.ts";
import { shorten } from "./shorten.ts";

export interface Renderers {
  readonly outputArea: OutputAreaPackage;
  readonly widgets: WidgetPackage;
  /** Of the notebook or console that is looked at. */
  readonly rendermime: () => unknown;
}

let made = 0;

export class LabOutputs implements DrawnOutputs {
  private readonly renderers: Renderers;
  private readonly doc: LiveDocument;
  private readonly slot: HTMLSlotElement;
  private readonly light: HTMLElement;
  private readonly more: HTMLButtonElement;
  private readonly trans: Trans;
  private area: { readonly node: HTMLElement; dispose(): void } | null = null;
  private model: (OutputsModel & { dispose(): void }) | null = null;
  private shown: LabOutput[] = [];
  private execution: Execution | null = null;
  /** All of it, once the reader has asked for what is left out. */
  private whole: Execution | null = null;
  private readonly values = new Map<string, Json>();
  private readonly made: Made = new WeakMap();
  private isLoading = false;

  /** @param root of the panel, outside of its shadow; `host`: an element inside. */
  constructor(root: HTMLElement, host: HTMLElement, doc: LiveDocument, trans: Trans, renderers: Renderers) {
    this.doc = doc;
    this.trans = trans;
    this.renderers = renderers;
    const name = `outputs-${++made}`;
    this.slot = document.createElement("slot");
    this.slot.name = name;
    this.light = document.createElement("div");
    this.light.slot = name;
    this.light.className = "rtc-Sidebar-outputs";
    this.more = document.createElement("button");
    this.more.type = "button";
    this.more.className = "fold";
    this.more.addEventListener("click", () => void this.loadWhole());
    root.append(this.light);
    host.append(this.slot);
  }

  show(execution: Execution): void {
    if (this.execution?.id !== execution.id) this.whole = null;
    this.execution = execution;
    this.draw();
  }

  update(execution: Execution): void {
    this.show(execution);
  }

  destroy(): void {
    this.execution = null;
    this.area?.dispose();
    this.model?.dispose();
    this.light.remove();
    this.slot.remove();
    this.more.remove();
  }

  private draw(): void {
    const execution = this.whole ?? this.execution;
    if (execution === null) return;
    const shown = this.whole === null ? shorten(execution) : execution.outputs;
    const missing: Missing = new Map();
    const value = (digest: string, mediaType: string): Json | undefined => this.values.get(`${digest} ${mediaType}`);
    const wanted = toOutputs(shown, value, missing, this.made);
    if (missing.size > 0) void this.load(missing);
    this.model ??= new this.renderers.outputArea.OutputAreaModel({ values: [], trusted: false });
    for (const step of stepsTo(this.shown, wanted)) {
      if (step.do === "add") this.model.add(step.output);
      else if (step.do === "set") this.model.set(step.index, step.output);
      else this.model.fromJSON(step.outputs);
    }
    this.shown = wanted;
    this.attach();
    this.offerWhole(shown !== execution.outputs && !isOpen(execution));
  }

  private attach(): void {
    if (this.area !== null || this.model === null) return;
    const { outputArea, widgets, rendermime } = this.renderers;
    this.area = new outputArea.SimplifiedOutputArea({ model: this.model, rendermime: rendermime() });
    if (this.light.isConnected) widgets.Widget.attach(this.area, this.light);
    else this.light.append(this.area.node);
  }

  private offerWhole(isOffered: boolean): void {
    if (isOffered === this.more.isConnected) return;
    if (!isOffered) {
      this.more.remove();
      return;
    }
    this.more.disabled = false;
    this.more.textContent = this.trans.__("Show all of it");
    this.slot.after(this.more);
  }

  private async loadWhole(): Promise<void> {
    const { execution, more, trans } = this;
    if (execution === null) return;
    more.disabled = true;
    try {
      const whole = isCut(execution) ? await this.doc.transport.execution(execution.id) : execution;
      if (this.execution?.id !== execution.id) return;
      this.whole = whole;
      this.draw();
    } catch (error) {
      more.disabled = false;
      const why = error instanceof Error ? error.message : String(error);
      more.textContent = trans.__("It could not be read (%1); try again", why);
    }
  }

  private async load(missing: Missing): Promise<void> {
    if (this.isLoading) return;
    this.isLoading = true;
    const read = async ([digest, mediaType]: [string, string]): Promise<void> => {
      const bytes = await this.doc.transport.blob(digest).catch(() => null);
      this.values.set(`${digest} ${mediaType}`, bytes ? decodeBlob(bytes, mediaType) : null);
    };
    await Promise.all([...missing].map(read));
    this.isLoading = false;
    this.draw();
  }
}
