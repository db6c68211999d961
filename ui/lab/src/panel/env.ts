/**
 * What do the parts of the panel know of where they are?
 *
 * Pure types. One of these is made for each live document that is looked at, and given to all that is drawn of it.
 */

import type { Execution, LiveDocument } from "@rtc-kernel/client";
import type { PanelChoices, Settings } from "../settings.ts";

/** JupyterLab's words in the user's language: `%1` stands for the first of `values`. */
export interface Trans {
  __(text: string, ...values: unknown[]): string;
  _n(one: string, many: string, count: number, ...values: unknown[]): string;
}

export interface PanelEnv {
  /** Of the kernel that is looked at; its transport is a CommTransport. */
  readonly doc: LiveDocument;
  readonly trans: Trans;
  /** What the user of this page is called; empty where nobody knows. */
  readonly userName: () => string;
  /** What the user has chosen of the panel. */
  readonly settings: Settings<PanelChoices>;
  /** Draw the outputs into an element, by JupyterLab's own renderers and not trusted; returns how to end it. */
  readonly renderOutputs: (host: HTMLElement, execution: Execution) => () => void;
  /** Go to its cell; false: there is none. */
  readonly reveal: (execution: Execution) => boolean;
  /** Called when this document is not looked at any more. */
  readonly onDispose: (end: () => void) => void;
}
