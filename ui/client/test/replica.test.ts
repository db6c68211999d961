// What changed, transaction by transaction, in a document that is written here as the agent would.

import { expect, test } from "vitest";
import * as Y from "yjs";

import type { Change, ExecutionChange } from "../src/changes.ts";
import type { Stream } from "../src/records.ts";
import { Replica } from "../src/replica.ts";

type Row = Y.Map<unknown>;

/** A document, and a replica of it that takes each transaction as one update. */
class Pair {
  readonly doc = new Y.Doc();
  readonly replica = new Replica("e");
  readonly executions = this.doc.getMap<Row>("executions");
  private updates: Uint8Array[] = [];

  constructor(write: () => void = () => undefined) {
    this.doc.transact(write.bind(this));
    this.replica.receive({ type: "step2", update: Y.encodeStateAsUpdate(this.doc) });
    this.doc.on("update", (update: Uint8Array) => this.updates.push(update));
  }

  write(change: () => void): Change | null {
    this.doc.transact(change);
    const [update, ...others] = this.updates.splice(0);
    expect(others).toEqual([]);
    return update ? this.replica.receive({ type: "update", update }).change : null;
  }

  execution(id: string, change: () => void): ExecutionChange | undefined {
    const found = this.write(change);
    return found && !found.reset ? found.executions.get(id) : undefined;
  }
}

const map = (columns: { [name: string]: unknown }): Row => new Y.Map(Object.entries(columns));

function stream(...segments: string[]): Row {
  const text = Y.Array.from(segments.map((segment) => new Y.Text(segment)));
  return map({ output_type: "stream", at: 1, name: "stdout", text });
}

function addRow(pair: Pair, id: string, ...outputs: Row[]): void {
  pair.executions.set(id, map({ seq: 1, state: "running", outputs: Y.Array.from(outputs), metadata: new Y.Map() }));
}

const outputs = (pair: Pair, id: string): Y.Array<Row> => pair.executions.get(id)?.get("outputs") as Y.Array<Row>;
const segments = (pair: Pair, id: string, at: number): Y.Array<Y.Text> =>
  outputs(pair, id).get(at).get("text") as Y.Array<Y.Text>;
const nothing = { kind: "changed", columns: false, outputs: false, streams: [] };

test("rows come and go", () => {
  const pair = new Pair();
  expect(pair.execution("e1", () => addRow(pair, "e1"))).toEqual({ kind: "added" });
  expect(pair.replica.executions.get("e1")).toMatchObject({ id: "e1", state: "running", outputs: [] });
  expect(pair.execution("e1", () => pair.executions.delete("e1"))).toEqual({ kind: "removed" });
  expect(pair.replica.executions.get("e1")).toBeUndefined();
  expect([pair.replica.executions.size, [...pair.replica.executions]]).toEqual([0, []]);
});

test("a row that is replaced is read anew", () => {
  const pair = new Pair();
  pair.write(() => addRow(pair, "e1", stream("a")));
  expect(pair.replica.executions.get("e1")?.outputs).toHaveLength(1);
  const change = pair.execution("e1", () => addRow(pair, "e1"));
  expect(change).toEqual({ ...nothing, columns: true, outputs: true });
  expect(pair.replica.executions.get("e1")?.outputs).toEqual([]);
});

test("columns, metadata and questions are columns", () => {
  const pair = new Pair();
  pair.write(() => addRow(pair, "e1"));
  const change = { ...nothing, columns: true };
  expect(pair.execution("e1", () => pair.executions.get("e1")?.set("state", "ok"))).toEqual(change);
  const metadata = pair.executions.get("e1")?.get("metadata") as Row;
  expect(pair.execution("e1", () => metadata.set("stars", 5))).toEqual(change);
  expect(pair.replica.executions.get("e1")).toMatchObject({ state: "ok", metadata: { stars: 5 } });
});

test("text that grows names its segment, and only that output is read again", () => {
  const pair = new Pair();
  pair.write(() => addRow(pair, "e1", stream("a"), stream("x")));
  const before = pair.replica.executions.get("e1");
  const grown = pair.execution("e1", () => segments(pair, "e1", 1).get(0).insert(1, "y"));
  expect(grown).toEqual({ ...nothing, streams: [{ position: 1, segment: 0 }] });
  const after = pair.replica.executions.get("e1");
  expect(after?.outputs[0]).toBe(before?.outputs[0]);
  expect((after?.outputs[1] as Stream).text).toBe("xy");
  expect((before?.outputs[1] as Stream).text).toBe("x");
});

test("new segments at the end are named; what comes or goes elsewhere is not", () => {
  const pair = new Pair();
  pair.write(() => addRow(pair, "e1", stream("a")));
  const text = segments(pair, "e1", 0);
  const appended = pair.execution("e1", () => {
    text.get(0).insert(1, "b");
    text.push([new Y.Text("c"), new Y.Text("d")]);
  });
  expect(appended).toEqual({ ...nothing, streams: [0, 1, 2].map((segment) => ({ position: 0, segment })) });
  const cut = pair.execution("e1", () => {
    text.delete(1, 1);
    outputs(pair, "e1").get(0).set("omitted_bytes", 1);
    outputs(pair, "e1").get(0).set("omitted_segment", 1);
    text.get(0).insert(0, "é😀");
  });
  expect(cut).toEqual({ ...nothing, streams: [{ position: 0, segment: null }] });
  const row = pair.replica.executions.get("e1")?.outputs[0];
  expect(row).toMatchObject({ text: "é😀abd", omitted_bytes: 1, omitted_segment: 1, omitted_index: 4 });
  expect(pair.replica.segments("e1", 0)).toEqual(["é😀ab", "d"]);
});

test("outputs that come at the end leave the others as they were", () => {
  const pair = new Pair();
  pair.write(() => addRow(pair, "e1", stream("a")));
  const before = pair.replica.executions.get("e1");
  const shown = { output_type: "display_data", at: 2, data: { "text/plain": "1" }, metadata: {}, display_id: "d" };
  const display = map(shown);
  expect(pair.execution("e1", () => outputs(pair, "e1").push([display]))).toEqual({ ...nothing, outputs: true });
  const after = pair.replica.executions.get("e1");
  expect(after?.outputs[0]).toBe(before?.outputs[0]);
  const updated = pair.execution("e1", () => outputs(pair, "e1").get(1).set("data", { "text/plain": "2" }));
  expect(updated).toEqual({ ...nothing, outputs: true });
  expect(pair.replica.executions.get("e1")?.outputs[1]).toMatchObject({ data: { "text/plain": "2" }, display_id: "d" });
  expect(pair.execution("e1", () => outputs(pair, "e1").delete(0, 1))).toEqual({ ...nothing, outputs: true });
  expect(pair.replica.executions.get("e1")?.outputs.map((output) => output.at)).toEqual([2]);
});

test("a record that nobody asked for between two changes has both", () => {
  const pair = new Pair();
  pair.write(() => addRow(pair, "e1", stream("a"), stream("b")));
  pair.replica.executions.get("e1");
  pair.write(() => segments(pair, "e1", 0).get(0).insert(1, "1"));
  pair.write(() => segments(pair, "e1", 1).get(0).insert(1, "2"));
  pair.write(() => outputs(pair, "e1").insert(0, [stream("first")]));
  const texts = pair.replica.executions.get("e1")?.outputs.map((output) => (output as Stream).text);
  expect(texts).toEqual(["first", "a1", "b2"]);
});

test("the other tables say which rows changed", () => {
  const pair = new Pair();
  const meta = pair.doc.getMap("meta");
  const [comms, queries, cells] = ["comms", "queries", "cells"].map((name) => pair.doc.getMap<Row>(name)) as [
    Y.Map<Row>,
    Y.Map<Row>,
    Y.Map<Row>,
  ];
  const change = pair.write(() => {
    meta.set("schema", 1);
    comms.set("c1", map({ target: "jupyter.widget", state: map({ value: 1, blob: new Uint8Array([1, 2]) }) }));
    queries.set("q1", map({ target: "t", state: "done", result: { n: 1 } }));
    for (const [index, id] of ["b", "a"].entries()) cells.set(id, map({ index: 1 - index, source: id }));
  });
  expect(change).toMatchObject({ reset: false, meta: true, cells: true, kernels: false });
  expect(change && !change.reset && [[...change.comms], [...change.queries]]).toEqual([["c1"], ["q1"]]);
  expect(pair.replica.comms.get("c1")?.state).toEqual({ value: 1, blob: new Uint8Array([1, 2]) });
  expect(pair.replica.queries.get("q1")).toMatchObject({ result: { n: 1 }, input: null });
  expect(pair.replica.cells.map((cell) => cell.id)).toEqual(["a", "b"]);
  pair.write(() => (comms.get("c1")?.get("state") as Row).set("value", 2));
  expect(pair.replica.comms.get("c1")?.state["value"]).toBe(2);
});

test("before the first answer nothing is told, and afterwards everything is there", () => {
  const doc = new Y.Doc();
  const replica = new Replica("e");
  doc.getMap("meta").set("schema", 1);
  const update = Y.encodeStateAsUpdate(doc);
  expect(replica.receive({ type: "update", update })).toEqual({ answered: false, change: null });
  expect(replica.isWhole).toBe(false);
  expect(replica.receive({ type: "step2", update: new Uint8Array([0, 0]) })).toEqual({ answered: true, change: null });
  expect(replica.meta?.schema).toBe(1);
});

test("an update that cannot be read is an error of ours", () => {
  const replica = new Replica("e");
  expect(() => replica.receive({ type: "update", update: new Uint8Array([1, 9, 9, 9]) })).toThrow(/cannot be read/);
});
