/**
 * How does a cell come to show an execution?
 *
 * Owns what one cell was made to show. Writes outputs, prompt and times; never the source, and never trust: a cell
 * that is not trusted shows of an output what it would show of one in its file.
 */

import { type Execution, hasEnded } from "@rtc-kernel/client";

import type { CodeCell, LabOutput } from "./jupyterlab.ts";
import { counts } from "./matching.ts";
import type { Note } from "./notes.ts";
import { behind, stepsTo } from "./outputs.ts";
import type { Trans } from "./panel/env.ts";
import { QuestionLine } from "./question.ts";

export class Screen {
  /** Of the execution that it is about. */
  readonly execution: string;
  /** The cell has other code, so it keeps its outputs. */
  readonly isOther: boolean;
  /** It was there before us; else it is told whose it is. */
  readonly isRestored: boolean;
  note: Note | null = null;
  question: QuestionLine | null = null;
  private readonly cell: CodeCell;
  private shown: LabOutput[];
  private cleared: LabOutput[] = [];
  private wanted: LabOutput[] = [];
  private hasBegun = false;

  constructor(cell: CodeCell, execution: Execution, is: { isOther: boolean; isRestored: boolean }) {
    this.cell = cell;
    this.execution = execution.id;
    this.isOther = is.isOther;
    this.isRestored = is.isRestored;
    this.shown = cell.model.outputs.toJSON();
  }

  /** Show these outputs; only what is other is drawn anew. */
  showOutputs(outputs: readonly LabOutput[]): void {
    const { outputs: model } = this.cell.model;
    // Whatever changed there meanwhile was not us: the cell was moved, or somebody has written it.
    if (model.length !== this.shown.length) this.shown = model.toJSON();
    this.wanted = [...outputs];
    const wanted = behind(outputs, this.cleared);
    for (const step of stepsTo(this.shown, wanted)) {
      if (step.do === "add") model.add(step.output);
      else if (step.do === "set") model.set(step.index, step.output);
      else model.fromJSON(step.outputs);
    }
    this.shown = wanted;
  }

  /** The user has cleared the cell: what it shows from now on is what comes from now on. */
  clear(): void {
    this.cleared = this.wanted;
    this.shown = [];
  }

  showPrompt(execution: Execution): void {
    const { model } = this.cell;
    const isOver = hasEnded(execution);
    if (isOver && !this.isOther && counts(execution)) {
      if (model.executionCount !== execution.execution_count) model.executionCount = execution.execution_count;
    } else if (!this.hasBegun && !this.isOther && execution.state === "running") {
      this.hasBegun = true;
      model.executionCount = null;
    }
    const state = isOver ? "idle" : "running";
    if (model.executionState === undefined) {
      this.cell.setPrompt(isOver ? String(model.executionCount ?? "") : "*");
    } else if (model.executionState !== state) model.executionState = state;
  }

  /** What the kernel asks its user, if it does. */
  showQuestion(
    { input }: Execution,
    answer: (value: string, since: number) => Promise<void>,
    trans: Trans,
  ): void {
    if (this.question?.since === input?.since) return;
    this.question?.remove();
    this.question = input && new QuestionLine(this.cell, input, (value) => answer(value, input.since), trans);
  }

  /** Take away all that is beside the cell's own parts. */
  leave(): void {
    this.note?.remove();
    this.question?.remove();
    this.note = this.question = null;
  }

  /** The cell's `execution` metadata, with the keys that JupyterLab gives its own. Not a step to be undone. */
  showTimes({ started_at, finished_at }: Execution): void {
    const { model } = this.cell;
    const times: { [key: string]: string } = {};
    if (started_at !== null) {
      const began = isoTime(started_at);
      Object.assign(times, {
        "iopub.status.busy": began,
        "iopub.execute_input": began,
        "shell.execute_reply.started": began,
      });
    }
    if (finished_at !== null) {
      const ended = isoTime(finished_at);
      Object.assign(times, { "shell.execute_reply": ended, "iopub.status.idle": ended });
    }
    if (JSON.stringify(model.getMetadata("execution") ?? {}) === JSON.stringify(times)) return;
    model.sharedModel.transact(() => model.setMetadata("execution", times), false);
  }
}

const isoTime = (at: number): string => new Date(at * 1000).toISOString();
