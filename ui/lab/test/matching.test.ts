import { expect, test } from "vitest";

import { counts, isCodeOf, latestOf } from "../src/matching.ts";
import { execution } from "../../client/test/records.ts";

const CELLS = [
  { id: "a", source: "x = 1" },
  { id: "b", source: "x" },
  { id: "c", source: "plot()" },
  { id: "d", source: "plot()" },
];

test("a cell has its latest execution, by its id", () => {
  const runs = [execution({ cell: "a" }), execution({ cell: "a" }), execution({ cell: "b", code: "x = 1" })];
  expect(latestOf(CELLS, [...runs].reverse())).toEqual(new Map([["a", runs[1]], ["b", runs[2]]]));
});

test("one without a cell, or with an id of another frontend's, belongs to the only cell with its code", () => {
  const console = execution({ code: "x = 1" });
  const code = execution({ code: "x", cell: "vscode-notebook-cell:/x.ipynb#W0" });
  expect(latestOf(CELLS, [console, code])).toEqual(new Map([["a", console], ["b", code]]));
  expect(latestOf(CELLS, [execution({ code: "plot()" }), execution({ code: "y" }), execution({ code: "" })]).size).toBe(0);
});

test("one that ended before it began leaves to a cell what it has, and a private one is no cell's by its code", () => {
  const ran = execution({ cell: "a" });
  const aborted = execution({ cell: "a", state: "aborted", started_at: null });
  expect(latestOf(CELLS, [ran, aborted]).get("a")).toBe(ran);
  expect(counts(execution({ state: "queued", started_at: null, finished_at: null }))).toBe(true);
  expect(latestOf([{ id: "e", source: "" }], [execution({ code: "", private: true })]).size).toBe(0);
});

test("of very long code the beginning is compared", () => {
  expect(isCodeOf(execution({ code: "x = " }), "x = 1")).toBe(false);
  expect(isCodeOf(execution({ code: "x = ", omitted_code_bytes: 1 }), "x = 1")).toBe(true);
});
