// Records as the document gives them, with what a test says of them.

import type { Display, Execution, Stream } from "../src/index.ts";

let seq = 0;

export function execution(columns: Partial<Execution> = {}): Execution {
  seq++;
  return {
    id: `e${seq}`,
    seq,
    kernel: "k",
    generation: 0,
    cell: null,
    notebook: null,
    request: null,
    code: "1",
    execution_count: seq,
    submitted_by: "",
    client: "c",
    queued_at: 1,
    started_at: 2,
    finished_at: 3,
    state: "ok",
    error: null,
    input: null,
    private: false,
    metadata: {},
    outputs: [],
    omitted_code_bytes: null,
    omitted_outputs: null,
    ...columns,
  };
}

export function stream(text: string, columns: Partial<Stream> = {}): Stream {
  const omitted = { omitted_bytes: null, omitted_segment: null, omitted_index: null };
  return { output_type: "stream", at: 0, name: "stdout", text, ...omitted, ...columns };
}

export function display(data: Display["data"], columns: Partial<Display> = {}): Display {
  const rest = { metadata: {}, execution_count: null, display_id: null };
  return { output_type: "display_data", at: 0, data, ...rest, ...columns };
}
