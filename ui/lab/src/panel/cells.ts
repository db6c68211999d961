/**
 * Where is the cell of an execution, and how does one get there?
 *
 * Door to the notebooks and consoles that are open at one kernel.
 */

import type { Execution } from "@rtc-kernel/client";
import type { App, CodeCellModel, ConsolePanel, NotebookPanel } from "../jupyterlab.ts";
import { Places } from "../matching.ts";

/** How to bring its cell into view; null: nothing that is open at its kernel has it. */
export function findCell(
  app: App,
  open: readonly (NotebookPanel | ConsolePanel)[],
  execution: Execution,
): (() => void) | null {
  for (const panel of open) {
    const show = "console" in panel ? inConsole(panel, execution) : inNotebook(panel, execution);
    if (show === null) continue;
    return () => {
      app.shell.activateById(panel.id);
      show();
    };
  }
  return null;
}

function inNotebook({ content }: NotebookPanel, execution: Execution): (() => void) | null {
  const cells = content.widgets.map(({ model }) => model as CodeCellModel);
  const keys = cells
    .filter(({ type }) => type === "code")
    .map(({ sharedModel }) => ({ id: sharedModel.getId(), source: sharedModel.getSource() }));
  const id = new Places(keys).of(execution);
  const index = id === null ? -1 : cells.findIndex(({ sharedModel }) => sharedModel.getId() === id);
  if (index === -1) return null;
  return () => {
    content.deselectAll();
    content.activeCellIndex = index;
    void content.scrollToItem(index, "smart");
  };
}

function inConsole({ console: { cells } }: ConsolePanel, { cell: id }: Execution): (() => void) | null {
  for (let index = cells.length - 1; index >= 0; index--) {
    const { node, model } = cells.get(index);
    if (id !== null && model.sharedModel.getId() === id) return () => node.scrollIntoView({ block: "nearest" });
  }
  return null;
}
