/**
 * What begins with JupyterLab?
 *
 * Every notebook gets a follower for each kernel that it is connected to; one whose server writes the notebook itself
 * gets none, because then that writer's outputs are the notebook's.
 */

import { beginWith, hasServerDocuments } from "./documents.ts";
import { NotebookFollower, type Surroundings } from "./follower.ts";
import type {
  App,
  KernelConnection,
  NotebookPackage,
  NotebookPanel,
  NotebookTracker,
  OutputAreaPackage,
  Plugin,
  Tokens,
  Translator,
} from "./jupyterlab.ts";
import { OUTPUTS, type SettingRegistry, Settings } from "./settings.ts";
import { bindTrans, DOMAIN } from "./translation.ts";

const ID = "@rtc-kernel/lab:outputs";

export function makePlugin(
  notebook: NotebookPackage,
  tokens: Tokens,
  outputArea: () => Promise<OutputAreaPackage>,
): Plugin {
  return {
    id: ID,
    description: "Shows in a notebook what its kernel gave, whoever ran it, and while nobody looked.",
    autoStart: true,
    requires: [notebook.INotebookTracker],
    optional: [tokens.ISettingRegistry, tokens.ITranslator],
    activate: (app, tracker: NotebookTracker, registry: SettingRegistry | null, translator: Translator | null) => {
      const settings = new Settings(registry, ID, OUTPUTS);
      const around = { outputArea, settings, trans: bindTrans(translator?.load(DOMAIN)) };
      const followers = new Map<NotebookPanel["content"], PanelFollower>();
      beginWith(app);
      const follow = (panel: NotebookPanel): void => {
        const follower = new PanelFollower(panel, () => isWritten(app, panel), around);
        followers.set(panel.content, follower);
        panel.disposed.connect(() => {
          followers.delete(panel.content);
          follower.dispose();
        });
      };
      tracker.forEach(follow);
      tracker.widgetAdded.connect((_, panel) => follow(panel));
      const { outputCleared } = notebook.NotebookActions;
      outputCleared?.connect((_, { notebook: content, cell }) => followers.get(content)?.receiveCleared(cell));
      if (outputCleared) return;
      app.commands.commandExecuted.connect((_, { id, result }) => {
        const look = (): void => followers.forEach((follower) => follower.lookForCleared());
        if (/^notebook:.*clear.*output/.test(id)) result.then(look, () => undefined);
      });
    },
  };
}

/** Whether a server writes this notebook itself. jupyter-server-documents' notebooks do not say so. */
function isWritten(app: App, panel: NotebookPanel): boolean {
  return panel.content.model?.collaborative === true || hasServerDocuments(app);
}

/** One notebook, over its kernels. */
class PanelFollower {
  private readonly panel: NotebookPanel;
  private readonly isWritten: () => boolean;
  private readonly around: Surroundings;
  private follower: NotebookFollower | null = null;
  private kernels = 0;

  constructor(panel: NotebookPanel, isWritten: () => boolean, around: Surroundings) {
    this.panel = panel;
    this.isWritten = isWritten;
    this.around = around;
    panel.sessionContext.kernelChanged.connect((_, { newValue }) => void this.connect(newValue));
    void this.connect(panel.sessionContext.session?.kernel ?? null);
  }

  receiveCleared(cell: Parameters<NotebookFollower["receiveCleared"]>[0]): void {
    this.follower?.receiveCleared(cell);
  }

  lookForCleared(): void {
    this.follower?.lookForCleared();
  }

  dispose(): void {
    this.follower?.dispose();
    this.follower = null;
  }

  private async connect(kernel: KernelConnection | null): Promise<void> {
    this.dispose();
    if (kernel === null) return;
    const isFirst = this.kernels++ === 0;
    await Promise.all([this.panel.context.ready, this.around.settings.ready]);
    const current = this.panel.sessionContext.session?.kernel;
    if (this.panel.isDisposed || current !== kernel || kernel.isDisposed || this.isWritten()) return;
    this.dispose();
    this.follower = new NotebookFollower(this.panel, kernel, isFirst, this.around);
  }
}
