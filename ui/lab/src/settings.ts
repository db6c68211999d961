/**
 * What has the user chosen?
 *
 * Door to JupyterLab's settings. Owns the values of one plugin's schema, which are the defaults where JupyterLab brings
 * no settings, and tells when they change: everything follows them without a reload.
 */

/** What is used of JupyterLab's `ISettingRegistry`. */
export interface SettingRegistry {
  load(plugin: string): Promise<LoadedSettings>;
}

interface LoadedSettings {
  /** What the user has set, and the schema's defaults for the rest. */
  readonly composite: { readonly [name: string]: unknown };
  readonly changed: { connect(slot: () => void): boolean };
  set(name: string, value: boolean): Promise<void>;
}

/** Of schema/outputs.json. */
export interface OutputChoices {
  outputsComeBack: boolean;
  showOthersRuns: boolean;
  showWhoRan: boolean;
}

/** Of schema/panel.json. */
export interface PanelChoices {
  foldOutputs: boolean;
  showTimeline: boolean;
}

export const OUTPUTS: OutputChoices = { outputsComeBack: true, showOthersRuns: true, showWhoRan: true };
export const PANEL: PanelChoices = { foldOutputs: true, showTimeline: false };

export class Settings<Choices extends { [Name in keyof Choices]: boolean }> {
  /** Resolves when the values are the user's. */
  readonly ready: Promise<void>;
  private readonly defaults: Choices;
  private current: Choices;
  private readonly listeners = new Set<() => void>();
  private loaded: LoadedSettings | null = null;

  /** @param plugin of the schema, `@rtc-kernel/lab:outputs`. */
  constructor(registry: SettingRegistry | null, plugin: string, defaults: Choices) {
    this.defaults = this.current = defaults;
    this.ready = registry === null ? Promise.resolve() : this.load(registry, plugin);
  }

  get values(): Readonly<Choices> {
    return this.current;
  }

  /** Called when a value has changed; returns how to end it. */
  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The user has chosen; it is so in every page, and stays. */
  set(name: keyof Choices & string, value: boolean): void {
    if (this.loaded === null) {
      this.take({ ...this.current, [name]: value });
      return;
    }
    this.loaded.set(name, value).catch((error: unknown) => {
      console.warn("rtc_kernel: the choice could not be stored:", error);
    });
  }

  private async load(registry: SettingRegistry, plugin: string): Promise<void> {
    try {
      const loaded = await registry.load(plugin);
      this.loaded = loaded;
      loaded.changed.connect(() => this.read(loaded));
      this.read(loaded);
    } catch (error) {
      console.warn(`rtc_kernel: the settings of ${plugin} are not there, so the defaults count:`, error);
    }
  }

  private read({ composite }: LoadedSettings): void {
    const found = { ...this.defaults };
    for (const name of Object.keys(found) as (keyof Choices)[]) {
      const value = composite[name as string];
      if (typeof value === "boolean") found[name] = value as Choices[keyof Choices];
    }
    this.take(found);
  }

  private take(values: Choices): void {
    if ((Object.keys(values) as (keyof Choices)[]).every((name) => values[name] === this.current[name])) return;
    this.current = values;
    for (const listener of [...this.listeners]) listener();
  }
}
