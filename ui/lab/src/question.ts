/**
 * How is a question of `input()` answered that was not asked of this page?
 *
 * Owns one line below a cell, that of JupyterLab's own questions by its looks. What is typed goes to the kernel and is
 * kept nowhere.
 */

import type { Question } from "@rtc-kernel/client";

import type { CodeCell } from "./jupyterlab.ts";
import type { Trans } from "./panel/env.ts";

export class QuestionLine {
  /** Of the question: each has its own. */
  readonly since: number;
  private readonly line: HTMLElement;
  private readonly box: HTMLInputElement;
  private readonly answer: (value: string) => Promise<void>;
  private isGone = false;

  constructor(
    cell: CodeCell,
    { prompt, password, since }: Question,
    answer: (value: string) => Promise<void>,
    trans: Trans,
  ) {
    const page = cell.node.ownerDocument;
    this.since = since;
    this.answer = answer;
    this.line = page.createElement("div");
    this.line.className = "rtc-Question jp-Stdin";
    this.line.style.marginLeft = "calc(var(--jp-cell-prompt-width, 64px) + 15px)";
    const words = page.createElement("pre");
    words.className = "jp-Stdin-prompt";
    words.textContent = prompt;
    this.box = page.createElement("input");
    this.box.className = "jp-Stdin-input";
    this.box.type = password ? "password" : "text";
    this.box.setAttribute("aria-label", prompt || trans.__("The kernel asks"));
    this.box.addEventListener("keydown", (event) => {
      event.stopPropagation(); // the notebook has shortcuts for letters
      if (event.key === "Enter") void this.send();
    });
    this.line.append(words, this.box);
    void cell.ready.then(() => {
      if (!this.isGone && !cell.isDisposed) cell.node.append(this.line);
    });
  }

  remove(): void {
    this.isGone = true;
    this.line.remove();
  }

  private async send(): Promise<void> {
    this.box.disabled = true;
    try {
      await this.answer(this.box.value);
    } catch (error) {
      this.box.disabled = false;
      this.box.setCustomValidity(error instanceof Error ? error.message : String(error));
      this.box.reportValidity();
    }
  }
}
