/**
 * What can be done by name: from the command palette, by a shortcut, in a menu?
 *
 * What JupyterLab does already (interrupt, restart, clear outputs) has no second name here.
 */

import type { App, CommandOptions } from "./jupyterlab.ts";
import type { Trans } from "./panel/env.ts";

/** What is used of JupyterLab's `ICommandPalette`. */
export interface Palette {
  addItem(item: { command: string; category: string }): unknown;
}

export interface Deeds {
  openPanel(): void;
  share(): void;
  /** Whether there is a live document to share. */
  mayShare(): boolean;
  /** The mark of the chosen cell that it ran with different code; null: it has none. */
  mark(): HTMLElement | null;
}

export function addCommands(app: App, palette: Palette | null, trans: Trans, deeds: Deeds): void {
  const add = (id: string, options: CommandOptions): void => {
    app.commands.addCommand(id, options);
    palette?.addItem({ command: id, category: trans.__("RTC") });
  };
  add("rtc-kernel:open-panel", {
    label: trans.__("Show the Kernel's History"),
    caption: trans.__("What the kernel ran, who is here, and what waits"),
    execute: () => deeds.openPanel(),
  });
  add("rtc-kernel:share", {
    label: trans.__("Share the Kernel…"),
    caption: trans.__("Make a link by which others watch or use this kernel"),
    isEnabled: () => deeds.mayShare(),
    execute: () => deeds.share(),
  });
  add("rtc-kernel:show-other-code", {
    label: trans.__("Show the Code That Ran"),
    caption: trans.__("Of the chosen cell, where it ran with different code; again to hide it"),
    isEnabled: () => deeds.mark() !== null,
    execute: () => deeds.mark()?.click(),
  });
}
