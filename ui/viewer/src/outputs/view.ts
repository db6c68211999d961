/**
 * The outputs of one execution, inside an element of the page.
 *
 * Owns everything in it. An output that is the same as before keeps its nodes; a stream that grows costs what is seen.
 */

import { type Execution, type ExecutionChange, type Output, sameValue, type Stream } from "@rtc-kernel/client";
import { ELSEWHERE, type OutputContext, type View } from "./context.ts";
import { makeDisplay } from "./displays.ts";
import { formatCount, make, makeButton } from "./dom.ts";
import { FailureView, loadWhole, StreamView } from "./stream.ts";

type Segments = (position: number) => readonly string[] | null;

/** Something to be shown: an output, or a gap of `count` outputs. `position`: in the document; null: from the history. */
type Entry = { output: Output; position: number | null; index: number } | { count: number };

interface Item {
  entry: Entry;
  view: View;
}

export class OutputsView {
  private items: Item[] = [];
  private execution: Execution | null = null;
  /** The record of the history, once the reader asked for what is left out. */
  private whole: Execution | null = null;
  private segments: Segments = () => null;

  constructor(
    private readonly host: HTMLElement,
    private readonly context: OutputContext,
  ) {
    host.classList.add("outputs");
  }

  /** Show an execution; of one that is shown already, what is other. */
  show(execution: Execution): void {
    if (this.execution?.id !== execution.id) this.clear();
    this.execution = execution;
    this.segments = () => null;
    this.sync();
  }

  /** Take over a change. `segments`: the texts of a live stream by its index in `outputs`. */
  update(execution: Execution, change: ExecutionChange, segments: Segments): void {
    const known = this.execution?.id === execution.id;
    if (!known) this.clear();
    this.execution = execution;
    this.segments = segments;
    if (!known || change.kind !== "changed" || change.outputs || change.columns) {
      this.sync();
      return;
    }
    const positions = new Set(change.streams.map(({ position }) => position));
    for (const item of this.items) {
      if (!("output" in item.entry) || item.entry.position === null || !positions.has(item.entry.position)) continue;
      const { position } = item.entry;
      const output = execution.outputs[position];
      if (output?.output_type !== "stream" || !(item.view instanceof StreamView)) {
        this.sync();
        return;
      }
      item.entry = { ...item.entry, output };
      item.view.show(output, segments(position));
    }
  }

  destroy(): void {
    this.clear();
    this.host.replaceChildren();
  }

  private clear(): void {
    for (const { view } of this.items) view.destroy();
    this.items = [];
    this.whole = null;
    this.execution = null;
  }

  private sync(): void {
    const entries = this.entries();
    const old = this.items;
    let from = 0;
    while (from < old.length && from < entries.length && keeps(old[from] as Item, entries[from] as Entry)) from++;
    let oldEnd = old.length;
    let end = entries.length;
    while (oldEnd > from && end > from && keeps(old[oldEnd - 1] as Item, entries[end - 1] as Entry)) [oldEnd, end] = [oldEnd - 1, end - 1];
    const items = entries.map((entry, at): Item => {
      const kept = at < from ? old[at] : at >= end ? old[oldEnd + at - end] : undefined;
      if (!kept) return { entry, view: this.makeView(entry) };
      const before = kept.entry;
      kept.entry = entry;
      if ("output" in entry && "output" in before && entry.output !== before.output) this.showStream(kept);
      return kept;
    });
    for (const { view } of old.slice(from, oldEnd)) {
      view.destroy();
      view.element.remove();
    }
    this.items = items;
    let next: ChildNode | null = this.host.firstChild;
    for (const { view } of items) {
      if (view.element === next) next = next.nextSibling;
      else this.host.insertBefore(view.element, next);
    }
  }

  /** What is in the document, and what the history has of the gap in it. */
  private entries(): Entry[] {
    const { outputs, omitted_outputs: omitted } = this.execution as Execution;
    const entries: Entry[] = outputs.map((output, position) => ({ output, position, index: position }));
    if (!omitted) return entries;
    const half = Math.floor(outputs.length / 2);
    const tail = entries.splice(half).map((entry) => ("index" in entry ? { ...entry, index: entry.index + omitted } : entry));
    const known = this.whole?.outputs.slice(half, half + omitted) ?? [];
    for (const [at, output] of known.entries()) entries.push({ output, position: null, index: half + at });
    if (known.length < omitted) entries.push({ count: omitted - known.length });
    return [...entries, ...tail];
  }

  private makeView(entry: Entry): View {
    if (!("output" in entry)) return this.makeGap(entry.count);
    const { output } = entry;
    if (output.output_type === "error") return label(new FailureView(output, this.context), "error");
    if (output.output_type !== "stream") return label(makeDisplay(output, this.context), output.output_type);
    const view = new StreamView(output, this.context, () => void this.load(view.element.querySelector(".out-gap button")));
    const item: Item = { entry, view };
    this.fill(item);
    this.showStream(item);
    return view;
  }

  private makeGap(count: number): View {
    const element = make("p", "out-gap", `… ${formatCount(count)} outputs left out here `);
    if (this.context.isLiveOnly) element.append(`(${ELSEWHERE})`);
    else element.append(makeButton("Load all", () => void this.load(element.querySelector("button"))));
    return { element, destroy: () => element.remove() };
  }

  private showStream({ entry, view }: Item): void {
    if (!("output" in entry) || !(view instanceof StreamView)) return;
    const stream = entry.output as Stream;
    view.show(stream, entry.position === null ? null : this.segments(entry.position));
  }

  /** Give a stream its whole text, where the history was asked. */
  private fill({ entry, view }: Item): void {
    if (!("output" in entry) || !(view instanceof StreamView)) return;
    const whole = this.whole?.outputs[entry.index];
    if (whole?.output_type === "stream") view.fillGap(whole.text);
  }

  private async load(button: Element | null): Promise<void> {
    const execution = this.execution;
    if (!execution) return;
    const whole = await loadWhole(this.context, execution.id, button);
    if (!whole || this.execution?.id !== execution.id) return;
    this.whole = whole;
    for (const item of this.items) {
      this.fill(item);
      this.showStream(item);
    }
    this.sync();
  }
}

function label(view: View, type: string): View {
  view.element.dataset["output"] = type;
  return view;
}

/** Whether an item may go on as another entry: the same output, or the same stream with other text. */
function keeps({ entry, view }: Item, other: Entry): boolean {
  if (!("output" in entry) || !("output" in other)) return "count" in entry && "count" in other && entry.count === other.count;
  const [one, two] = [entry.output, other.output];
  if (one === two) return true;
  if (one.output_type !== two.output_type || one.at !== two.at) return false;
  if (one.output_type === "stream") return view instanceof StreamView && one.name === (two as Stream).name;
  return sameValue(one, two);
}
