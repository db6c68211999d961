/**
 * Where is the cell of an execution, and how does one get there?
 *
 * Door to the notebooks that are open at one kernel.
 */

import type { Execution } from "@rtc-kernel/client";
import type { CodeCellModel, KernelConnection, NotebookPanel } from "../jupyterlab.ts";
import { Places } from "../matching.ts";
import type { Lab } from "../sidebar.ts";

interface Found {
  readonly panel: NotebookPanel;
  readonly index: number;
}

/** Null: no open notebook of this kernel has it. */
export function findCell(lab: Lab, kernel: KernelConnection, execution: Execution): Found | null {
  const panels: NotebookPanel[] = [];
  lab.notebooks.forEach((panel) => {
    if (!panel.isDisposed && panel.sessionContext.session?.kernel?.id === kernel.id) panels.push(panel);
  });
  for (const panel of panels) {
    const cells = panel.content.widgets.map(({ model }) => model as CodeCellModel);
    const keys = cells
      .filter(({ type }) => type === "code")
      .map(({ sharedModel }) => ({ id: sharedModel.getId(), source: sharedModel.getSource() }));
    const id = new Places(keys).of(execution);
    const index = id === null ? -1 : cells.findIndex(({ sharedModel }) => sharedModel.getId() === id);
    if (index !== -1) return { panel, index };
  }
  return null;
}

/** Bring it into view, chosen. */
export function goToCell(lab: Lab, { panel, index }: Found): void {
  lab.app.shell.activateById(panel.id);
  panel.content.deselectAll();
  panel.content.activeCellIndex = index;
  void panel.content.scrollToItem(index, "smart");
}
