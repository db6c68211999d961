/**
 * A widget as the kernel has it, to look at: drawn in a frame of its own from the state of the comms.
 *
 * The frame is given the models that the view needs and nothing else: what they refer to, over any number of steps. Later
 * only the keys that changed. Large values are fetched here; the frame has no network.
 */

import { type Comm, decodeBlob, isBinaryType, sameValue } from "@rtc-kernel/client";
import type { OutputContext, View } from "./context.ts";
import { make } from "./dom.ts";
import { SandboxFrame } from "./frames.ts";
import { isReference } from "./mime.ts";

type State = { [key: string]: unknown };

const TARGET = "jupyter.widget";
/** What the frame has views for; others come from packages that only the author's server has. */
const MODULES = new Set(["@jupyter-widgets/base", "@jupyter-widgets/controls", "@jupyter-widgets/output"]);
const REFERENCE = "IPY_MODEL_";
/** More models than this are not brought into one frame. */
const MOST_MODELS = 5000;

export class WidgetView implements View {
  readonly element = make("div", "out-widget");
  private frame: SandboxFrame | null = null;
  private other: View | null = null;
  private readonly sent = new Map<string, State>();
  private readonly dirty = new Set<string>();
  private busy = false;
  private gone = false;
  private readonly stop: () => void;

  /** `other`: how else this output can be shown. */
  constructor(
    private readonly model: string,
    private readonly context: OutputContext,
    private readonly makeOther: () => View,
  ) {
    this.stop = context.onComms((ids) => this.note(ids));
    this.begin();
  }

  destroy(): void {
    this.gone = true;
    this.stop();
    this.frame?.destroy();
    this.other?.destroy();
  }

  private begin(): void {
    const comm = this.context.comms().get(this.model);
    if (!comm || comm.target !== TARGET) {
      this.giveUp("This widget is not in the document: the kernel that had it is gone, or it was one of too many.");
      return;
    }
    const module = moduleOf(comm);
    if (!MODULES.has(module)) {
      this.giveUp(`This widget is of ${module || "an unknown package"}, which is shown only where it is installed.`);
      return;
    }
    this.other?.destroy();
    this.element.replaceChildren();
    this.other = null;
    const frame = new SandboxFrame(
      "widgets.html",
      "widget, read-only",
      () => {
        this.sent.clear();
        for (const id of reachable(this.context.comms(), this.model)) this.dirty.add(id);
        queueMicrotask(() => void this.flush());
        return { view: this.model };
      },
      (message) => {
        if (message["failed"] === true) this.giveUp("This widget could not be drawn.");
      },
    );
    this.frame = frame;
    this.element.append(frame.element);
  }

  private giveUp(reason: string): void {
    this.frame?.destroy();
    this.frame = null;
    this.sent.clear();
    if (this.other) return;
    this.other = this.makeOther();
    this.element.replaceChildren(this.other.element, make("p", "out-note", reason));
  }

  private note(ids: ReadonlySet<string>): void {
    if (!this.frame) {
      // its comm may come after its output
      if (this.other && ids.has(this.model) && this.sent.size === 0 && this.isKnown()) this.begin();
      return;
    }
    if (!this.frame.isOpen) return;
    for (const id of ids) if (this.sent.has(id)) this.dirty.add(id);
    if (this.dirty.size > 0) void this.flush();
  }

  private isKnown(): boolean {
    const comm = this.context.comms().get(this.model);
    return comm?.target === TARGET && MODULES.has(moduleOf(comm));
  }

  /** Send what changed, in order; what changes meanwhile goes with the next message. */
  private async flush(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.dirty.size > 0 && this.frame && !this.gone) {
        const comms = this.context.comms();
        const ids = new Set(this.dirty);
        this.dirty.clear(); // what changes from here on is for the next message
        for (const id of ids) for (const found of reachable(comms, id)) if (!this.sent.has(found)) ids.add(found);
        const models: { id: string; state: State; closed: boolean }[] = [];
        for (const id of ids) {
          const comm = comms.get(id);
          if (!comm) continue;
          const old = this.sent.get(id) ?? {};
          const changed = Object.entries(comm.state).filter(([key, value]) => !sameValue(old[key], value));
          this.sent.set(id, { ...comm.state });
          const state: State = {};
          for (const [key, value] of changed) state[key] = await resolve(value, key, this.context);
          if (changed.length > 0) models.push({ id, state, closed: comm.closed_at !== null });
        }
        if (models.length > 0) this.frame?.send({ models });
      }
    } finally {
      this.busy = false;
    }
  }
}

function moduleOf(comm: Comm): string {
  const name = comm.state["_view_module"] ?? comm.state["_model_module"];
  return typeof name === "string" ? name.slice(0, 200) : "";
}

/** A model and all that it refers to. */
export function reachable(comms: ReadonlyMap<string, Comm>, from: string): Set<string> {
  const found = new Set<string>();
  const waiting = [from];
  while (waiting.length > 0 && found.size < MOST_MODELS) {
    const id = waiting.pop() as string;
    const comm = comms.get(id);
    if (!comm || comm.target !== TARGET || found.has(id)) continue;
    found.add(id);
    collect(comm.state, waiting);
  }
  return found;
}

function collect(value: unknown, ids: string[]): void {
  if (typeof value === "string") {
    if (value.startsWith(REFERENCE)) ids.push(value.slice(REFERENCE.length));
  } else if (Array.isArray(value)) for (const item of value) collect(item, ids);
  else if (typeof value === "object" && value !== null && !ArrayBuffer.isView(value)) collect(Object.values(value), ids);
  const outputs = typeof value === "object" && value !== null ? (value as State)["application/vnd.jupyter.widget-view+json"] : null;
  const model = typeof outputs === "object" && outputs !== null ? (outputs as State)["model_id"] : null;
  if (typeof model === "string") ids.push(model); // captured by an Output widget
}

/** A value with what stands elsewhere in its place. `key`: in captured outputs, the media type. */
async function resolve(value: unknown, key: string, context: OutputContext): Promise<unknown> {
  if (value instanceof Uint8Array) return value.slice();
  if (isReference(value)) {
    const data = value.blob === null ? null : await context.blob(value.blob).catch(() => null);
    if (value.media_type === "application/octet-stream") return data?.slice() ?? new Uint8Array(0);
    if (data === null) return null;
    return decodeBlob(data, isBinaryType(key) ? key : (value.media_type ?? "text/plain"));
  }
  if (Array.isArray(value)) return Promise.all(value.map((item) => resolve(item, key, context)));
  if (typeof value !== "object" || value === null) return value;
  const pairs = Object.entries(value).map(async ([name, item]) => [name, await resolve(item, name, context)] as const);
  return Object.fromEntries(await Promise.all(pairs));
}
