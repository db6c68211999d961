// How an execution was at a time, where the vectors have no case of it.

import { expect, test } from "vitest";

import { executionAt, UNKNOWN } from "../src/moments.ts";
import { executionFromJson } from "../src/schema.ts";

const run = executionFromJson({
  id: "e1",
  queued_at: 1,
  started_at: 2,
  finished_at: 5,
  state: "ok",
  execution_count: 7,
  outputs: [
    { output_type: "stream", name: "stdout", at: 3, text: "é😀z" },
    { output_type: "display_data", at: 9, display_id: "d", data: { "text/plain": "new" }, metadata: {} },
  ],
});

test("a display that was updated after the end was there at the end, and what it showed is not known", () => {
  expect(executionAt(run, [], 4)?.outputs).toHaveLength(1);
  const atEnd = executionAt(run, [], 5);
  expect(atEnd).toMatchObject({ state: "ok", finished_at: 5 });
  expect(atEnd?.outputs[1]).toMatchObject({ data: { "text/plain": UNKNOWN } });
  expect(executionAt(run, [], 9)?.outputs[1]).toEqual(run.outputs[1]);
  expect(executionAt(run, [], Infinity)).toBe(run);
});

test("text is cut at code points", () => {
  const marks = [
    [0, 2, 3],
    [0, 3, 3.5],
  ] as const;
  expect(executionAt(run, marks, 3.2)?.outputs[0]).toMatchObject({ text: "é😀" });
  expect(executionAt(run, marks, 3.5)?.outputs[0]).toBe(run.outputs[0]);
  expect(executionAt(run, [], 2)).toMatchObject({ state: "running", outputs: [], execution_count: 7 });
  expect(executionAt(run, [], 1)).toMatchObject({ state: "queued", started_at: null, execution_count: null });
  expect(executionAt(run, [], 0.9)).toBeNull();
});
