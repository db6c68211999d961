import type { Json } from "@rtc-kernel/client";
import { expect, test } from "vitest";

import type { LabOutput } from "../src/jupyterlab.ts";
import { behind, fillIn, isCut, type Missing, stepsTo, toOutputs } from "../src/outputs.ts";
import { display, execution, stream } from "../../client/test/records.ts";

const none = (): undefined => undefined;
const text = (value: string): LabOutput => ({ output_type: "stream", name: "stdout", text: value });
const shown = (value: Json): LabOutput => ({ output_type: "display_data", data: { "text/plain": value }, metadata: {} });
const utf8 = (value: string): number => new TextEncoder().encode(value).length;

test("records become what nbformat has, and streams that follow each other one", () => {
  const outputs = [
    stream("a"),
    stream("b"),
    stream("c", { name: "stderr" }),
    display({ "text/plain": "1" }, { output_type: "execute_result", execution_count: 3, display_id: "d" }),
    { output_type: "error" as const, at: 0, ename: "E", evalue: "v", traceback: ["t"] },
  ];
  expect(toOutputs(outputs, none, new Map())).toEqual([
    text("ab"),
    { output_type: "stream", name: "stderr", text: "c" },
    { output_type: "execute_result", data: { "text/plain": "1" }, metadata: {}, execution_count: 3 },
    { output_type: "error", ename: "E", evalue: "v", traceback: ["t"] },
  ]);
});

test("outputs end before the first of which a blob is missing, and one that is not kept says so", () => {
  const blob = { blob: "sha256:1", bytes: 2048, preview: null };
  const outputs = [stream("a"), display({ "image/png": blob }), stream("b")];
  const missing: Missing = new Map();
  expect(toOutputs(outputs, none, missing)).toEqual([text("a")]);
  expect(missing).toEqual(new Map([["sha256:1", "image/png"]]));
  const [, image] = toOutputs(outputs, () => "base64", new Map());
  expect(image?.["data"]).toEqual({ "image/png": "base64" });
  const [, lost] = toOutputs(outputs, () => null, new Map());
  expect(lost?.["data"]).toEqual({ "text/plain": "[image/png, 2.0 KiB: not kept]" });
});

/** What a model shows after these steps, which does with text what JupyterLab does. */
function follow(before: LabOutput[], wanted: LabOutput[]): LabOutput[] {
  let model = [...before];
  for (const step of stepsTo(before, wanted)) {
    if (step.do === "all") model = [...step.outputs];
    else if (step.do === "set") model[step.index] = step.output;
    else {
      const last = model.at(-1);
      const { name } = step.output;
      if (name === undefined || last?.["name"] !== name) model.push(step.output);
      else {
        const [front, over] = `${String(last["text"])}${String(step.output["text"])}`.split("\r");
        const line = (front ?? "").lastIndexOf("\n") + 1;
        model[model.length - 1] = { ...last, text: over === undefined ? front ?? "" : (front ?? "").slice(0, line) + over };
      }
    }
  }
  return model;
}

test("text that grows is added to, a line that is overwritten is written over, and all else is drawn anew", () => {
  expect(stepsTo([text("a")], [text("ab"), shown("x")])).toEqual([
    { do: "add", output: text("b") },
    { do: "add", output: shown("x") },
  ]);
  expect(stepsTo([text("a\n10%")], [text("a\n20% done")])).toEqual([{ do: "add", output: text("\r20% done") }]);
  expect(stepsTo([shown("x"), text("a")], [shown("y"), text("a")])).toEqual([{ do: "set", index: 0, output: shown("y") }]);
  expect(stepsTo([text("a"), shown("x")], [text("ab"), shown("x")])[0]?.do).toBe("all");
  expect(stepsTo([text("ab")], [text("a")])[0]?.do).toBe("all");
  expect(stepsTo([text("a")], [text("a")])).toEqual([]);
  expect(stepsTo([text("a")], [])).toEqual([{ do: "all", outputs: [] }]);
});

test("from any outputs to any others the steps lead there", () => {
  const some = [[], [text("a")], [text("ab\n")], [text("ab\nc")], [text("xb\nc")], [shown("1")], [shown("2"), text("a")]];
  for (const before of some) for (const wanted of some) expect(follow(before, wanted)).toEqual(wanted);
});

test("what a user has cleared while it ran does not come back", () => {
  expect(behind([text("one\ntwo\n"), shown("x")], [text("one\n")])).toEqual([text("two\n"), shown("x")]);
  expect(behind([text("one\n"), shown("x")], [text("one\n")])).toEqual([shown("x")]);
  expect(behind([text("one\n")], [])).toEqual([text("one\n")]);
});

test("the middle that the document has left out is taken from an earlier whole record", () => {
  const all = "é0\né1\n😀2\né3\né4\n";
  const whole = [stream(all)];
  const grown = `${all}é5\né6\n`;
  const cut = execution({
    outputs: [stream("é0\né5\né6\n", { omitted_bytes: utf8("é1\n😀2\né3\né4\n"), omitted_index: 3, omitted_segment: 1 })],
  });
  expect(isCut(cut)).toBe(true);
  expect((fillIn(whole, cut) ?? [])[0]).toMatchObject({ text: grown });
  const later = execution({
    outputs: [stream("é0\né9\n", { omitted_bytes: utf8(`${grown.slice(3)}é7\né8\n`), omitted_index: 3, omitted_segment: 1 })],
  });
  expect(fillIn(whole, later), "too much has come since").toBeNull();
});

test("outputs that the document has left out are taken from an earlier whole record, while they last", () => {
  const six = Array.from({ length: 6 }, (_, at) => display({ "text/plain": String(at) }));
  const cut = (first: number, last: number, omitted: number) =>
    execution({ outputs: [...six.slice(0, first), ...six.slice(6 - last)], omitted_outputs: omitted });
  expect(fillIn(six.slice(0, 5), cut(2, 2, 2))).toEqual(six);
  expect(fillIn(six.slice(0, 3), cut(2, 2, 2))).toBeNull();
});
