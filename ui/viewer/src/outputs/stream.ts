/** A stream, or a traceback, on the page. */

import type { Execution, Failure, Stream } from "@rtc-kernel/client";
import { ELSEWHERE, failureText, type OutputContext, type View } from "./context.ts";
import { formatBytes } from "../format.ts";
import { make, makeButton } from "./dom.ts";
import { codePointCount, cutText, indexOfCodePoint } from "./pieces.ts";
import { type Gap, TextView } from "./text.ts";

const PIECE_CHARS = 16_384;
/** A longer text is not brought into a page. Bytes. */
const MOST_BYTES = 32 << 20;

export class StreamView implements View {
  readonly element: HTMLElement;
  private readonly text: TextView;
  /** The whole text in UTF-8, once its reader asked for it. */
  private whole: Uint8Array | null = null;
  private middle: { start: number; end: number; texts: string[] } | null = null;
  private headBytes: { texts: number; bytes: number } | null = null;

  constructor(
    stream: Stream,
    private readonly context: OutputContext,
    private readonly load: () => void,
  ) {
    this.text = new TextView(`out-stream out-${stream.name}`, context.fold.lines, (bytes) => this.makeLoad(bytes));
    this.element = this.text.element;
    if (stream.name === "stderr") {
      this.element.setAttribute("role", "group");
      this.element.setAttribute("aria-label", "standard error");
    }
  }

  /** `segments`: the texts that the document has of it; null: it is not live. */
  show(stream: Stream, segments: readonly string[] | null): void {
    const bytes = stream.omitted_bytes ?? 0;
    if (bytes <= 0) {
      this.text.show(segments ?? cutText(stream.text, PIECE_CHARS));
      return;
    }
    const { texts, before } = this.split(stream, segments);
    if (!this.whole) {
      this.text.show(texts, { before, bytes });
      return;
    }
    const head = this.bytesBefore(texts, before);
    const middle = this.between(this.whole, head, head + bytes);
    const left = bytes - (Math.min(this.whole.length, head + bytes) - head);
    const gap: Gap | null = left > 0 ? { before: before + middle.length, bytes: left } : null;
    this.text.show([...texts.slice(0, before), ...middle, ...texts.slice(before)], gap);
  }

  /** From now on what was left out comes from here. */
  fillGap(text: string): void {
    this.whole = new TextEncoder().encode(text);
    this.middle = null;
  }

  destroy(): void {
    this.text.destroy();
  }

  private makeLoad(bytes: number): HTMLElement | null {
    if (this.context.isLiveOnly) return make("span", "", `(${ELSEWHERE})`);
    if (bytes > MOST_BYTES) return make("span", "", "(too much for a page; the history has it)");
    return makeButton(`Load all (${formatBytes(bytes)})`, this.load);
  }

  /** The texts, and which of them stands behind the gap. */
  private split(stream: Stream, segments: readonly string[] | null): { texts: readonly string[]; before: number } {
    const index = stream.omitted_index ?? 0;
    if (segments === null) {
      const at = indexOfCodePoint(stream.text, index);
      const head = cutText(stream.text.slice(0, at), PIECE_CHARS);
      return { texts: [...head, ...cutText(stream.text.slice(at), PIECE_CHARS)], before: head.length };
    }
    let before = 0;
    for (let left = index; before < segments.length && left > 0; before++) left -= codePointCount(segments[before] ?? "");
    return { texts: segments, before };
  }

  private bytesBefore(texts: readonly string[], before: number): number {
    if (this.headBytes?.texts !== before) {
      const bytes = texts.slice(0, before).reduce((sum, text) => sum + new TextEncoder().encode(text).length, 0);
      this.headBytes = { texts: before, bytes };
    }
    return this.headBytes.bytes;
  }

  private between(whole: Uint8Array, start: number, wanted: number): string[] {
    const end = Math.min(whole.length, wanted);
    if (this.middle?.start !== start || this.middle.end !== end) {
      const texts = cutText(new TextDecoder().decode(whole.subarray(start, end)), PIECE_CHARS);
      this.middle = { start, end, texts };
    }
    return this.middle.texts;
  }
}

export class FailureView implements View {
  readonly element: HTMLElement;
  private readonly text: TextView;

  constructor(failure: Failure, context: OutputContext) {
    this.text = new TextView("out-error", context.fold.lines);
    this.element = this.text.element;
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", `error: ${failure.ename}`);
    const traceback = failure.traceback.join("\n");
    this.text.show(cutText(traceback || `${failure.ename}: ${failure.evalue}`, PIECE_CHARS));
  }

  destroy(): void {
    this.text.destroy();
  }
}

/** The whole of an execution, asked for once at a time. */
export async function loadWhole(
  context: OutputContext,
  execution: string,
  button: Element | null,
): Promise<Execution | null> {
  if (button instanceof HTMLButtonElement) button.disabled = true;
  try {
    return await context.whole(execution);
  } catch (error) {
    if (button instanceof HTMLButtonElement) button.disabled = false;
    button?.after(make("span", "out-failure", ` ${failureText(error)}`));
    return null;
  }
}
