/**
 * What is written beside a cell that shows what it did not run itself?
 *
 * Owns one line of a cell: who ran it and when, or that the kernel ran other code here, with a click to see both.
 */

import type { Execution } from "@rtc-kernel/client";

import type { CodeCell, LabOutput, OutputAreaPackage } from "./jupyterlab.ts";
import type { Trans } from "./panel/env.ts";

const STYLE = `
.rtc-Note { display: flex; gap: 8px; align-items: baseline; padding: 1px 0 1px calc(var(--jp-cell-prompt-width, 64px) + 15px);
  color: var(--jp-ui-font-color2); font: var(--jp-ui-font-size0, 11px) var(--jp-ui-font-family, sans-serif); }
.rtc-Note button { border: 1px solid var(--jp-warn-color1, #b26a00); border-radius: 3px; background: none; padding: 0 6px;
  color: var(--jp-ui-font-color1); font: inherit; cursor: pointer; }
.rtc-Note button:focus-visible { outline: 2px solid var(--jp-brand-color1); outline-offset: 1px; }
.rtc-Other { margin: 2px 0 6px calc(var(--jp-cell-prompt-width, 64px) + 15px); padding: 4px 8px;
  border-left: 3px solid var(--jp-warn-color1, #b26a00); background: var(--jp-layout-color2); }
.rtc-Other pre.rtc-Code { margin: 0 0 4px; color: var(--jp-content-font-color1); white-space: pre-wrap; overflow-wrap: anywhere;
  font: var(--jp-code-font-size, 13px)/var(--jp-code-line-height, 1.3) var(--jp-code-font-family, monospace); }
`;

/** Who ran an execution, as far as it says so. JupyterLab's own clients have no name. */
export function whoRan({ submitted_by: by }: Execution, trans: Trans): string {
  return by === "" || by === "username" ? trans.__("another client") : by;
}

/** `Ada · 2:03:05 PM · 2.3 s`. */
export function describeRun(execution: Execution, trans: Trans): string {
  const { queued_at, started_at, finished_at, state } = execution;
  const at = started_at ?? queued_at ?? finished_at;
  const words = [whoRan(execution, trans)];
  if (at !== null) words.push(clock(at));
  if (state === "queued") words.push(trans.__("waits"));
  else if (started_at !== null && finished_at !== null) words.push(duration(finished_at - started_at, trans));
  const end = endWord(state, trans);
  if (end) words.push(end);
  return words.join(" · ");
}

/** How it ended, where that is worth a word. */
function endWord(state: Execution["state"], trans: Trans): string {
  switch (state) {
    case "error":
      return trans.__("failed");
    case "aborted":
      return trans.__("aborted");
    case "lost":
      return trans.__("lost");
    case "cancelled":
      return trans.__("cancelled");
    default:
      return "";
  }
}

function duration(seconds: number, trans: Trans): string {
  return seconds < 1 ? trans.__("%1 ms", Math.round(seconds * 1000)) : trans.__("%1 s", seconds.toFixed(1));
}

function clock(at: number): string {
  const date = new Date(at * 1000);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? date.toLocaleTimeString() : date.toLocaleString();
}

export type OutputsOf = (execution: Execution) => Promise<LabOutput[]>;

/** The line of one cell. */
export class Note {
  private readonly cell: CodeCell;
  private readonly trans: Trans;
  private readonly line: HTMLElement;
  private other: { node: HTMLElement; dispose: () => void } | null = null;
  private isGone = false;

  constructor(cell: CodeCell, trans: Trans) {
    this.cell = cell;
    this.trans = trans;
    this.line = element(cell.node.ownerDocument, "div", "rtc-Note");
    void cell.ready.then(() => this.place());
  }

  /** Whose run it is that the cell shows. */
  showRun(execution: Execution): void {
    this.closeOther();
    this.line.textContent = describeRun(execution, this.trans);
  }

  /** That the kernel ran other code under this cell. */
  showOther(execution: Execution, outputsOf: OutputsOf, draw: () => Promise<OutputAreaPackage>): void {
    const { trans } = this;
    const page = this.line.ownerDocument;
    const button = element(page, "button");
    button.textContent = trans.__("ran with different code");
    button.title = trans.__("Show the code that ran, and what it gave");
    button.setAttribute("aria-expanded", String(this.other !== null));
    button.addEventListener("click", () => {
      if (this.other !== null) this.closeOther();
      else void this.openOther(execution, outputsOf, draw);
      button.setAttribute("aria-expanded", String(this.other !== null));
    });
    const words = element(page, "span");
    words.textContent = describeRun(execution, trans);
    this.line.replaceChildren(button, words);
  }

  remove(): void {
    this.isGone = true;
    this.closeOther();
    this.line.remove();
  }

  private place(): void {
    const { node } = this.cell;
    if (this.isGone || this.cell.isDisposed) return;
    putStyle(node.ownerDocument);
    const input = node.querySelector(":scope > .jp-Cell-inputWrapper");
    if (input) input.after(this.line);
    else node.append(this.line);
  }

  private async openOther(
    execution: Execution,
    outputsOf: OutputsOf,
    draw: () => Promise<OutputAreaPackage>,
  ): Promise<void> {
    const page = this.line.ownerDocument;
    const node = element(page, "div", "rtc-Other");
    const code = element(page, "pre", "rtc-Code");
    code.textContent = execution.code;
    node.append(code);
    const other = { node, dispose: () => undefined as void };
    this.other = other;
    this.line.after(node);
    const [values, { OutputAreaModel, SimplifiedOutputArea }] = await Promise.all([outputsOf(execution), draw()]);
    if (this.other !== other || this.cell.isDisposed) return;
    // Never trusted: it is not what stands in the cell.
    const model = new OutputAreaModel({ values, trusted: false });
    const area = new SimplifiedOutputArea({ model, rendermime: this.cell.outputArea.rendermime });
    other.dispose = () => area.dispose();
    node.append(area.node);
  }

  private closeOther(): void {
    this.other?.dispose();
    this.other?.node.remove();
    this.other = null;
  }
}

function putStyle(page: Document): void {
  if (page.getElementById("rtc-kernel-lab-style")) return;
  const style = element(page, "style");
  style.id = "rtc-kernel-lab-style";
  style.textContent = STYLE;
  page.head.append(style);
}

function element<Name extends keyof HTMLElementTagNameMap>(
  page: Document,
  name: Name,
  className = "",
): HTMLElementTagNameMap[Name] {
  const made = page.createElement(name);
  if (className) made.className = className;
  return made;
}
