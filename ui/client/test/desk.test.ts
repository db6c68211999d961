// What we have asked for, beside a document that is written here as the agent would.

import { expect, test } from "vitest";
import * as Y from "yjs";

import { Desk } from "../src/desk.ts";
import { RTCError } from "../src/errors.ts";
import { readMessage, writeStep1 } from "../src/messages.ts";

type Row = Y.Map<unknown>;

/** The agent's side of `requests`: what it was sent, and what it says. */
class Agent {
  readonly doc = new Y.Doc();
  readonly rows = this.doc.getMap<Row>("requests");
  readonly desk: Desk;
  readonly changed: string[][] = [];

  constructor(epoch = "r1") {
    this.desk = new Desk((ids) => this.changed.push([...ids]));
    this.open(epoch);
  }

  open(epoch: string): void {
    this.desk.open(epoch, (data) => {
      const message = readMessage(data);
      if ("update" in message) Y.applyUpdate(this.doc, message.update);
    });
    this.desk.receive({ type: "step2", update: Y.encodeStateAsUpdate(this.doc) });
    this.desk.receive(readMessage(writeStep1(Y.encodeStateVector(this.doc))));
  }

  say(change: () => void): void {
    const before = Y.encodeStateVector(this.doc);
    this.doc.transact(change);
    this.desk.receive({ type: "update", update: Y.encodeStateAsUpdate(this.doc, before) });
  }

  answer(id: string, columns: { [name: string]: unknown }): void {
    this.say(() => {
      const said = Object.entries({ by: "ada", ordinal: 1, ...columns });
      for (const [name, value] of said) this.rows.get(id)?.set(name, value);
    });
  }
}

test("a row is a wish until the agent says whose it is", async () => {
  const agent = new Agent();
  const ticket = agent.desk.ask("execute", { code: "1\u0000\ud800é", cell: undefined }, "a");
  expect(agent.rows.get("a")?.toJSON()).toMatchObject({ action: "execute", code: "1\ufffd\ufffdé" });
  expect(agent.rows.get("a")?.has("cell")).toBe(false);
  expect(agent.desk.requests.get("a")).toMatchObject({ by: null, state: null });
  expect(ticket.request).toBeNull();
  agent.answer("a", { state: "requested" });
  await expect(ticket.until(() => true)).resolves.toMatchObject({ by: "ada", state: "requested", execution: null });
  expect(agent.changed).toEqual([["a"], ["a"]]);
});

test("what was typed is held no longer than the row", async () => {
  const agent = new Agent();
  const ticket = agent.desk.ask("input", { execution: "e1", value: "s3cret" }, "a");
  expect(agent.rows.get("a")?.get("value")).toBe("s3cret");
  expect(agent.desk.requests.get("a")?.columns).toEqual({ execution: "e1" });
  agent.say(() => agent.rows.get("a")?.delete("value"));
  agent.answer("a", { state: "done" });
  await ticket.until(() => ticket.ended);
  expect(ticket.row).toBeNull();
  agent.say(() => agent.rows.delete("a"));
  expect(agent.desk.requests.size).toBe(0);
});

test("a refusal rejects with the reason, whenever it comes", async () => {
  const agent = new Agent();
  const ticket = agent.desk.ask("execute", { code: "1" }, "a");
  agent.answer("a", { state: "refused", reason: "code: too long" });
  await expect(ticket.until(() => true)).rejects.toThrow("the request was refused: code: too long");
});

test("a new epoch is written what has not ended, and nothing else", async () => {
  const agent = new Agent();
  agent.desk.ask("execute", { code: "1" }, "done");
  agent.desk.ask("execute", { code: "2" }, "waits");
  agent.answer("done", { state: "done", execution: "e1" });
  agent.answer("waits", { state: "requested" });
  agent.desk.lose(new RTCError("gone", "wait"));
  const late = agent.desk.ask("execute", { code: "3" }, "late");
  const next = new Y.Doc();
  const sent: Uint8Array[] = [];
  agent.desk.open("r2", (data) => sent.push(data));
  agent.desk.receive({ type: "step2", update: Y.encodeStateAsUpdate(next) });
  expect(agent.desk.requests.size).toBe(0);
  agent.desk.receive(readMessage(writeStep1(Y.encodeStateVector(next))));
  for (const data of sent) {
    const message = readMessage(data);
    if ("update" in message) Y.applyUpdate(next, message.update);
  }
  expect(Object.keys(next.getMap("requests").toJSON())).toEqual(["waits", "late"]);
  agent.desk.fail(new RTCError("over", "ask for a link", 4431, true));
  await expect(late.until(() => true)).rejects.toThrow("over");
  await expect(agent.desk.ask("restart", {}).until(() => true)).rejects.toThrow("over");
});
