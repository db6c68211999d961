/**
 * What of an execution's outputs is shown until somebody asks for more?
 *
 * Pure. A panel is no place for what a notebook shows already, and a flood must not cost the page its breath twice.
 */

import type { Execution, Output, Stream } from "@rtc-kernel/client";
import { formatBytes, formatCount } from "@rtc-kernel/viewer/format.ts";

/** Of longer text so much of its beginning and its end is shown. Characters. */
const HEAD_CHARS = 8_000;
const TAIL_CHARS = 24_000;

/** Of long text the beginning and the end, and where something is left out; the same list where nothing is. */
export function shorten({ outputs, omitted_outputs: omitted }: Execution): readonly Output[] {
  const isLong = (output: Output): boolean =>
    output.output_type === "stream" && (output.omitted_bytes !== null || output.text.length > HEAD_CHARS + TAIL_CHARS);
  if (!omitted && !outputs.some(isLong)) return outputs;
  const shown = outputs.map((output) => (isLong(output) ? shortenStream(output as Stream) : output));
  if (omitted) {
    const text = `… ${formatCount(omitted)} outputs left out here …\n`;
    shown.splice(Math.floor(shown.length / 2), 0, { ...GAP, text });
  }
  return shown;
}

const GAP: Stream = {
  output_type: "stream",
  at: 0,
  name: "stdout",
  text: "",
  omitted_bytes: null,
  omitted_segment: null,
  omitted_index: null,
};

function shortenStream(stream: Stream): Stream {
  const { text, omitted_bytes, omitted_index } = stream;
  const gap = omitted_bytes === null ? text.length : Math.min(text.length, omitted_index ?? 0);
  const head = text.slice(0, Math.min(gap, HEAD_CHARS));
  const tail = text.slice(Math.max(omitted_bytes === null ? head.length : gap, text.length - TAIL_CHARS));
  const left = (omitted_bytes ?? 0) + text.length - head.length - tail.length;
  return { ...stream, text: `${head}\n… ${formatBytes(left)} left out here …\n${tail}` };
}
