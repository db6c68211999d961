/** The page's pure rooms: words, filters, the chart, and a history without holes. */

import type { Cell, Change, Execution, ExecutionChange, HistoryQuery, Kernel, LiveDocument } from "@rtc-kernel/client";
import { describe, expect, it } from "vitest";
import { execution } from "../../client/test/records.ts";
import { latestOfCells, numberCells, originOf, ranFor, whoAsked } from "../src/executions.ts";
import { matches, NO_FILTER } from "../src/filters.ts";
import { countOf, firstLine, formatDuration, formatTicking } from "../src/format.ts";
import { History } from "../src/history.ts";
import { countChars, mergeChanges, Pace } from "../src/pace.ts";
import { Past, pastOf } from "../src/prompt/past.ts";
import { describe as say, describeProgress, progressOf } from "../src/summary.ts";
import { extentOf, findBar, layOut, tickFormat } from "../src/timeline/lanes.ts";
import { QUIET } from "./quiet.ts";

function row(seq: number, columns: Partial<Execution> = {}): Execution {
  const times = { queued_at: 10 * seq, started_at: 10 * seq + 1, finished_at: 10 * seq + 5 };
  const about = { id: `e${seq}`, seq, code: `f(${seq})`, execution_count: seq, submitted_by: "ada", client: "s" };
  return execution({ ...about, ...times, ...columns });
}

const cell = (id: string, index: number, source: string, cell_type: Cell["cell_type"] = "code"): Cell => ({
  id,
  index,
  cell_type,
  source,
  notebook: "d/n.ipynb",
});

describe("words", () => {
  it("says durations with the precision that a reader needs", () => {
    expect([0.0004, 0.85, 0.9996, 1.5, 59.96, 60, 3600, 93_784].map(formatDuration)).toEqual([
      "0 ms",
      "850 ms",
      "1.0 s",
      "1.5 s",
      "1 min 00 s",
      "1 min 00 s",
      "1 h 00 min",
      "1 d 2 h",
    ]);
    expect(formatDuration(-3)).toBe("0 ms"); // clocks of two machines
    expect([0.9, 3.97, 42.8].map(formatTicking)).toEqual(["0 s", "3.9 s", "42 s"]);
  });

  it("counts and cuts", () => {
    expect([countOf(1, "row"), countOf(12_000, "row")]).toEqual(["1 row", "12\u2009000 rows"]);
    expect(firstLine("\n  \n  abcdef", 4)).toBe("abc…");
  });

  it("tells cell, link and console apart, and nobody's name from a name", () => {
    const numbers = numberCells([cell("m", 0, "# T", "markdown"), cell("empty", 1, " "), cell("a", 2, "x")]);
    const run = row(1, { cell: "a", notebook: "d/n.ipynb" });
    expect(originOf(run, numbers).text).toBe("cell 1 of n.ipynb");
    expect(originOf(run, new Map()).kind).toBe("cell");
    expect(originOf(row(1, { request: "r" }), numbers).kind).toBe("link");
    expect(originOf(row(1), numbers).kind).toBe("console");
    expect([
      whoAsked(row(1)),
      whoAsked(row(1, { submitted_by: "username" })),
      whoAsked(row(1, { submitted_by: "" })),
    ]).toEqual(["ada", null, null]);
  });

  it("has a sentence for whatever goes on", () => {
    const running = row(2, { state: "running", finished_at: null, code: "import x\nx.go()" });
    const waiting = row(3, { state: "queued", started_at: null, finished_at: null });
    expect(say(null, [row(1), running, waiting], 63)).toMatchObject({
      tone: "busy",
      text: "Running for 42 s",
      code: "x.go()",
      behind: "1 waiting",
      target: "e2",
    });
    const failed = row(1, { state: "error", error: { ename: "E", evalue: "why\nnot" } });
    expect(say(null, [failed], 0)).toMatchObject({ tone: "bad", text: "The last run failed after 4.0 s: E: why" });
    expect(say({ state: "dead" } as Kernel, [failed], 0).tone).toBe("bad");
    expect(say(null, [], 0).text).toBe("Nothing has run yet");
    expect(ranFor(running, 20)).toBe(0); // it began in our future
  });

  it("knows how far a run is, and how it ended", () => {
    const cells = [cell("m", 0, "# T", "markdown"), cell("a", 1, "1"), cell("b", 2, "2"), cell("none", 3, "")];
    const a = row(1, { cell: "a" });
    const b = row(2, { cell: "b", state: "running", finished_at: null });
    const tell = (runs: Execution[], kernel: Kernel | null = null): string =>
      describeProgress(progressOf(cells, runs, kernel), 42).text;
    expect(tell([])).toBe("2 cells to run, none has begun");
    expect(tell([a, b])).toBe("Running cell 2 of 2, 31 s so far");
    expect(tell([a, row(2, { cell: "b" })])).toBe("Finished: all 2 cells ok in 14 s");
    expect(tell([row(1, { cell: "a", state: "error" })])).toBe("Failed after 4 s: an error; 1 cell did not run");
    expect(tell([a], { state: "dead" } as Kernel)).toBe("Ended early: 1 of 2 cells ran, in 4 s");
    expect(latestOfCells([row(5, { cell: "a" }), row(4, { cell: "a" })]).get("a")?.seq).toBe(5);
  });
});

describe("filters", () => {
  it("searches code, errors and text outputs, whatever the case", () => {
    const found = row(1, {
      outputs: [
        { output_type: "stream", at: 1, name: "stdout", text: "Loss É", omitted_bytes: null, omitted_index: null },
      ],
    });
    for (const text of ["F(1)", "loss é", " LOSS "]) expect(matches({ ...NO_FILTER, text }, found)).toBe(true);
    expect(matches({ ...NO_FILTER, text: "other" }, found)).toBe(false);
    expect(matches({ ...NO_FILTER, text: "other" }, found, true)).toBe(true);
    expect(matches({ ...NO_FILTER, state: "error" }, found)).toBe(false);
    expect(matches({ ...NO_FILTER, who: "somebody" }, row(1, { submitted_by: "" }))).toBe(true);
  });
});

describe("the chart", () => {
  it("has at a moment what was there then", () => {
    const { bars } = layOut([row(2), row(1), row(3)], 22.5);
    expect(bars.map((bar) => [bar.id, bar.state, bar.ended])).toEqual([
      ["e1", "ok", 15],
      ["e2", "running", 22.5],
    ]);
    expect(layOut([row(1, { started_at: null, state: "aborted" })], 99).bars[0]?.started).toBeNull();
    expect(extentOf([], 100)[0]).toBeLessThan(100);
  });

  it("finds the bar under the pointer, or near it", () => {
    const { bars } = layOut([row(1), row(2)], 100);
    const find = (x: number, lane = 0): string | undefined => findBar(bars, x, lane, 2, (at) => at)?.id;
    expect([find(13), find(20), find(17.5), find(13, 1)]).toEqual(["e1", "e2", undefined, undefined]);
    expect(tickFormat(60)(new Date(2026, 0, 2, 3, 4, 5))).toBe("03:04");
  });
});

describe("what was typed before", () => {
  it("goes back, and returns to what was being typed", () => {
    const past = new Past(() => pastOf(["a", "b", "a", " "]));
    expect([
      past.older("draft"),
      past.older("a"),
      past.older("b"),
      past.newer("b"),
      past.newer("a"),
      past.newer("draft"),
    ]).toEqual(["a", "b", null, "a", "draft", null]);
  });
});

/** A document whose window has some rows, and a store that has all. */
function makeHistory(
  window: number[],
  count: number,
): { history: History; asked: HistoryQuery[]; change: (change: Change) => void; rows: Map<string, Execution> } {
  const rows = new Map(window.map((seq) => [`e${seq}`, row(seq)]));
  const asked: HistoryQuery[] = [];
  let listener: (change: Change) => void = () => undefined;
  const doc = {
    executions: rows,
    meta: { epoch: "1" },
    onChange: (given: typeof listener) => {
      listener = given;
      return () => undefined;
    },
    transport: {
      history: (query: HistoryQuery) => {
        asked.push(query);
        const from = (query.before ?? count + 1) - 1;
        const seqs = Array.from({ length: Math.min(query.limit ?? 50, from) }, (_, at) => from - at);
        return Promise.resolve({
          executions: seqs.map((seq) => row(seq)),
          next: seqs.at(-1) === 1 ? null : (seqs.at(-1) ?? null),
        });
      },
      execution: (id: string) => Promise.resolve(row(Number(id.slice(1)), { code: "whole" })),
    },
  };
  return { history: new History(doc as unknown as LiveDocument), asked, change: (change) => listener(change), rows };
}

describe("the history", () => {
  it("shows no row on the other side of a hole before the pages have reached it", async () => {
    const { history, asked } = makeHistory([3, 900, 901, 902], 902);
    expect(history.order.value).toEqual(["e900", "e901", "e902"]);
    await history.pager.load();
    expect(asked[0]).toEqual({ before: 900, limit: 200, brief: true });
    expect(history.order.value.length).toBe(203);
    await history.reach(2);
    expect(history.order.value.slice(0, 2)).toEqual(["e2", "e3"]);
    expect(history.pager.isComplete).toBe(false);
    await history.pager.load();
    expect(history.order.value.length).toBe(902);
    expect(history.pager.isComplete).toBe(true);
  });

  it("asks nobody where the window has all", async () => {
    const { history, asked } = makeHistory([1, 2], 2);
    await history.pager.load();
    expect(asked).toEqual([]);
  });

  it("keeps a row that left the window, and reads only what is looked at", async () => {
    const { history, change, rows } = makeHistory([1, 2], 2);
    rows.delete("e1");
    rows.set("e3", row(3));
    change({
      ...QUIET,
      executions: new Map([
        ["e1", { kind: "removed" }],
        ["e3", { kind: "added" }],
      ] as const),
    });
    expect(history.order.value).toEqual(["e1", "e2", "e3"]);
    expect(history.isWhole("e1")).toBe(true);
    expect((await history.find("e77"))?.code).toBe("whole");
  });
});

describe("pace", () => {
  const run = (text: string, omitted: number | null = null): Execution =>
    ({ outputs: [{ output_type: "stream", text, omitted_bytes: omitted }, { output_type: "error" }] }) as never;

  it("a line is drawn at once, however soon it comes", () => {
    const pace = new Pace();
    pace.drew(1000, 500);
    expect(pace.wait(1001, 600)).toBe(0);
  });

  it("a flood waits for its next frame, and not longer", () => {
    const pace = new Pace();
    expect(pace.wait(1000, 1e6)).toBe(0);
    pace.drew(1000, 1e6);
    expect(pace.wait(1050, 1.1e6)).toBe(150);
    expect(pace.wait(1200, 1.1e6)).toBe(0);
    expect(pace.wait(1050, 1e5)).toBe(150); // it was cleared and began again
  });

  it("text that is left out counts as printed", () => {
    expect(countChars(run("", 1000), () => ["abc", "de"])).toBe(1005);
    expect(countChars(run("abc"), () => null)).toBe(0);
  });

  it("changes that wait are one change", () => {
    const text = (position: number): ExecutionChange => ({
      kind: "changed", columns: false, outputs: false, streams: [{ position, segment: 1 }],
    });
    const both = mergeChanges(text(0), text(2));
    expect(both).toMatchObject({ columns: false, outputs: false, streams: [{ position: 0 }, { position: 2 }] });
    expect(mergeChanges(both, { ...text(1), outputs: true } as ExecutionChange)).toMatchObject({ outputs: true });
    expect(mergeChanges(both, { kind: "removed" })).toEqual({ kind: "removed" });
    expect(mergeChanges(null, both)).toBe(both);
  });
});
