/**
 * Which kernel is looked at?
 *
 * Door. That of the notebook or console that had the focus last; while it is elsewhere (a terminal, a file) it stays the
 * same, and so does a kernel that has ended, for its history.
 */

import type { Found } from "../documents.ts";
import type { ConsolePanel, DocumentWidget, KernelConnection, NotebookPanel, Tracker } from "../jupyterlab.ts";
import type { Lab } from "../sidebar.ts";

export interface Subject {
  readonly widget: DocumentWidget;
  readonly kernel: KernelConnection;
  readonly found: Found;
  /** The widget is connected with this kernel no longer. */
  readonly hasLeft: boolean;
}

type Tell = (subject: Subject | null) => void;

export class Watcher {
  private readonly lab: Lab;
  private readonly consoles: Tracker<ConsolePanel> | null;
  private readonly tell: Tell;
  private widget: DocumentWidget | null = null;
  private subject: Subject | null = null;
  private stop: () => void = () => undefined;

  constructor(lab: Lab, consoles: Tracker<ConsolePanel> | null, tell: Tell) {
    this.lab = lab;
    this.consoles = consoles;
    this.tell = tell;
    lab.app.shell.currentChanged?.connect(this.look);
    lab.notebooks.currentChanged.connect(this.look);
    consoles?.currentChanged.connect(this.look);
    this.look();
  }

  private readonly look = (): void => {
    const { notebooks } = this.lab;
    const current = this.lab.app.shell.currentWidget;
    const isOurs = current !== null && (notebooks.has(current) || (this.consoles?.has(current) ?? false));
    const kept = this.widget?.isDisposed ? null : this.widget;
    const widget = isOurs
      ? (current as NotebookPanel | ConsolePanel)
      : (kept ?? notebooks.currentWidget ?? this.consoles?.currentWidget ?? null);
    if (widget === this.widget) return;
    this.widget?.sessionContext.kernelChanged.disconnect(this.lookAtKernel);
    this.widget?.disposed.disconnect(this.look);
    this.widget = widget;
    widget?.sessionContext.kernelChanged.connect(this.lookAtKernel);
    widget?.disposed.connect(this.look);
    if (widget === null || this.subject?.widget !== widget) this.leave();
    this.lookAtKernel();
  };

  private readonly lookAtKernel = (): void => {
    const { widget } = this;
    const kernel = widget?.sessionContext.session?.kernel ?? null;
    if (widget !== null && kernel !== null && kernel === this.subject?.kernel) return;
    if (widget === null || (kernel === null && this.subject === null)) {
      this.leave();
      this.tell(null);
      return;
    }
    if (kernel === null) {
      this.set({ ...(this.subject as Subject), hasLeft: true });
      return;
    }
    const before = this.stop;
    this.stop = this.lab.followDocument(kernel, (found) => this.set({ widget, kernel, found, hasLeft: false }));
    before(); // afterwards, so that a document that both have in common goes on
  };

  private set(subject: Subject): void {
    this.subject = subject;
    this.tell(subject);
  }

  private leave(): void {
    this.stop();
    this.stop = () => undefined;
    this.subject = null;
  }
}
