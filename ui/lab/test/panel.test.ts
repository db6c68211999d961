/** The panel's pure rooms: what stands on a fold, and words. */

import type { Output } from "@rtc-kernel/client";
import { describe, expect, it } from "vitest";
import { excerptOf } from "../src/panel/excerpt.ts";
import { shorten } from "../src/panel/shorten.ts";
import { bindTrans, PLAIN } from "../src/translation.ts";
import { display, execution, stream } from "../../client/test/records.ts";

const of = (...outputs: Output[]): ReturnType<typeof excerptOf> => excerptOf(execution({ outputs }));

describe("the line on a fold", () => {
  it("counts lines of streams and of plain results together", () => {
    expect(of(stream("a\nb\n"), display({ "text/plain": "c" }))).toEqual({ kinds: [["lines", 3]], first: "a" });
  });

  it("names what is richer than its text, in the order in which it came", () => {
    const html = display({ "text/html": "<b>x</b>", "text/plain": "x" });
    const table = display({ "text/html": "<TABLE><tr></TABLE>", "text/plain": "y" });
    const picture = display({ "image/png": "AA==", "text/plain": "<Figure>" });
    const widget = display({ "application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider()" });
    expect(of(html, picture, table, picture, widget).kinds).toEqual([
      ["html", 1],
      ["image", 2],
      ["table", 1],
      ["widget", 1],
    ]);
    expect(of(picture).first).toBe("");
  });

  it("says what a line said last, without colours", () => {
    expect(of(stream("\n\u001b[31m10 %\r100 %\u001b[0m\nend")).first).toBe("100 %");
  });

  it("guesses how many lines are left out", () => {
    expect(of(stream("12345678\n12345678\n", { omitted_bytes: 180 })).kinds).toEqual([["lines", 22]]);
    expect(excerptOf(execution({ outputs: [stream("a\n")], omitted_outputs: 7 })).kinds).toEqual([
      ["lines", 1],
      ["output", 7],
    ]);
  });

  it("is empty for nothing", () => {
    expect(of()).toEqual({ kinds: [], first: "" });
    const error: Output = { output_type: "error", at: 1, ename: "E", evalue: "", traceback: ["line"] };
    expect(of(error)).toEqual({ kinds: [["error", 1]], first: "" });
  });
});

describe("what is shown of outputs", () => {
  const texts = (run: ReturnType<typeof execution>): string[] =>
    shorten(run).map((output) => (output.output_type === "stream" ? output.text : output.output_type));

  it("is all of them, unless they are long", () => {
    const run = execution({ outputs: [stream("a\n"), display({ "text/plain": "x".repeat(100_000) })] });
    expect(shorten(run)).toBe(run.outputs);
  });

  it("is of long text the beginning and the end", () => {
    const [text = ""] = texts(execution({ outputs: [stream(`${"a".repeat(50_000)}${"z".repeat(50_000)}`)] }));
    expect(text).toBe(`${"a".repeat(8_000)}\n… 66.4 KiB left out here …\n${"z".repeat(24_000)}`);
  });

  it("says what the document has left out, in its place", () => {
    const cut = stream("headtail", { omitted_bytes: 2048, omitted_index: 4 });
    expect(texts(execution({ outputs: [cut] }))).toEqual(["head\n… 2.0 KiB left out here …\ntail"]);
    const [one, two] = [stream("1"), display({ "text/plain": "2" })];
    expect(texts(execution({ outputs: [one, two], omitted_outputs: 3 }))).toEqual([
      "1",
      "… 3 outputs left out here …\n",
      "display_data",
    ]);
  });
});

describe("words", () => {
  it("stand in their places without a translator", () => {
    expect(PLAIN.__("%2 before %1", "a", 1)).toBe("1 before a");
    expect(PLAIN._n("%1 line", "%1 lines", 1, 1)).toBe("1 line");
    expect(PLAIN._n("%1 line", "%1 lines", 0, 0)).toBe("0 lines");
    expect(bindTrans(null)).toBe(PLAIN);
  });

  it("are the translator's where there is one, whoever calls it", () => {
    class Bundle {
      private readonly mark = "!";
      __(text: string): string {
        return text + this.mark;
      }
      _n(one: string): string {
        return one + this.mark;
      }
    }
    const { __, _n } = bindTrans(new Bundle());
    expect([__("a"), _n("b", "c", 1)]).toEqual(["a!", "b!"]);
  });
});
