/** A room's documents as one: whose rows, in which order, and what is of one kernel alone. */

import type { Change, Execution, ExecutionChange, Kernel, LiveDocument, Member, Status } from "@rtc-kernel/client";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { execution } from "../../client/test/records.ts";
import { readAddress } from "../src/address.ts";
import { byTime, Gathering, type RoomLike, shorten, standing } from "../src/gathering.ts";
import { History } from "../src/history.ts";
import { describeRoom } from "../src/summary.ts";
import { layOut } from "../src/timeline/lanes.ts";
import { QUIET } from "./quiet.ts";

/** A document that says what it is told to. */
class Doc {
  status: Status = "live";
  role = "view";
  kernel: Kernel;
  readonly executions = new Map<string, Execution>();
  readonly comms = new Map();
  readonly cells: unknown[] = [];
  readonly requests = new Map();
  readonly meta = { health: { status: "ok" } };
  readonly liveAt = 1;
  readonly asked: string[] = [];
  private readonly listeners = new Set<(change: Change) => void>();

  constructor(
    readonly id: string,
    notebook: string,
  ) {
    this.kernel = { id, state: "idle", notebook, display_name: "Python 3", name: "python3", language: "python" } as Kernel;
  }

  onChange(listener: (change: Change) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  onStatus(): () => void {
    return () => undefined;
  }

  put(seq: number, at: number, columns: Partial<Execution> = {}): void {
    const id = columns.id ?? `${this.id}-${seq}`;
    const how: ExecutionChange = this.executions.has(id)
      ? { kind: "changed", columns: true, outputs: false, streams: [] }
      : { kind: "added" };
    const times = { queued_at: at, started_at: at, finished_at: at + 1 };
    this.executions.set(id, execution({ id, seq, kernel: this.id, ...times, ...columns }));
    this.tell({ ...QUIET, executions: new Map([[id, how]]) });
  }

  tell(change: Change): void {
    for (const listener of this.listeners) listener(change);
  }

  run(code: string): Promise<void> {
    this.asked.push(code);
    return Promise.resolve();
  }
}

class FakeRoom {
  readonly name = "team";
  status: Status = "live";
  readonly failure = null;
  readonly omittedCount = 0;
  readonly members = new Map<string, Member>();
  readonly asked: string[] = [];
  private tell: () => void = () => undefined;

  onChange(listener: () => void): () => void {
    this.tell = listener;
    return () => undefined;
  }

  ask(kernel: string): void {
    this.asked.push(kernel);
  }

  add(doc: Doc, hasLeft = false): Doc {
    this.members.set(doc.id, { id: doc.id, row: doc.kernel, doc: doc as unknown as LiveDocument, hasLeft });
    this.tell();
    return doc;
  }

  remove(id: string): void {
    this.members.delete(id);
    this.tell();
  }
}

function gather(): { room: FakeRoom; gathering: Gathering; history: History } {
  const room = new FakeRoom();
  const gathering = new Gathering(room as unknown as RoomLike);
  return { room, gathering, history: new History(gathering, byTime) };
}

const settle = (): void => void vi.advanceTimersByTime(1000);

describe("a room", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("has the rows of all kernels in the order of time, also those that come later and go on", () => {
    const { room, history } = gather();
    const one = room.add(new Doc("aaaa-1", "w/ten.ipynb"));
    const two = room.add(new Doc("bbbb-1", "w/nine.ipynb"));
    one.put(1, 10);
    two.put(1, 5);
    one.put(2, 3); // its clock was set
    settle();
    expect(history.order.value).toEqual(["aaaa-1-2", "bbbb-1-1", "aaaa-1-1"]);
    two.put(2, 20, { state: "running", finished_at: null });
    two.put(2, 20, { state: "ok" });
    expect(history.get("bbbb-1-2")?.state).toBe("ok");
    room.add(new Doc("cccc-1", "w/c.ipynb")).put(1, 4);
    settle();
    expect(history.order.value).toEqual(["aaaa-1-2", "cccc-1-1", "bbbb-1-1", "aaaa-1-1", "bbbb-1-2"]);
    expect(history.pager.isComplete).toBe(true);
  });

  it("follows a document into its next life, and forgets who went long ago", () => {
    const { room, gathering, history } = gather();
    const one = room.add(new Doc("aaaa", "a.ipynb"));
    one.put(1, 1);
    one.put(2, 2);
    settle();
    one.executions.delete("aaaa-1");
    one.tell({ reset: true });
    settle();
    expect([...gathering.executions.keys()]).toEqual(["aaaa-2"]);
    room.remove("aaaa");
    settle();
    expect([...gathering.executions.keys()]).toEqual([]);
    expect(history.get("aaaa-2")?.seq).toBe(2); // the page has what it has shown
  });

  it("takes an id from the document in which it was first, and whose it is from the document", () => {
    const { room, gathering } = gather();
    const one = room.add(new Doc("aaaa", "a.ipynb"));
    const two = room.add(new Doc("bbbb", "b.ipynb"));
    one.put(1, 1, { id: "same" });
    settle();
    two.put(1, 9, { id: "same", code: "mine" });
    two.put(2, 9, { id: "other", kernel: "aaaa" });
    expect(gathering.executions.get("same")?.code).not.toBe("mine");
    const other = gathering.executions.get("other");
    expect(other?.kernel).toBe("bbbb");
    expect(gathering.executions.get("other")).toBe(other); // the same record as long as it is the same
  });

  it("asks the kernel that is chosen, and nobody where none is", async () => {
    const { room, gathering } = gather();
    const one = room.add(new Doc("aaaa", "a.ipynb"));
    settle();
    expect([gathering.focus?.id, room.asked]).toEqual(["aaaa", ["aaaa"]]); // the only one
    const two = room.add(new Doc("bbbb", "b.ipynb"));
    settle();
    expect([gathering.focus, gathering.role, gathering.kernel]).toEqual([null, "view", null]);
    await expect(gathering.run("x")).rejects.toThrow("no kernel is chosen");
    gathering.choose("bbbb");
    two.role = "run";
    await gathering.run("x");
    expect([two.asked, one.asked, gathering.role, room.asked]).toEqual([["x"], [], "run", ["aaaa", "bbbb"]]);
    room.add(two, true);
    expect(gathering.role).toBe("view");
  });

  it("calls kernels by their notebook and as much of the id as tells them apart", () => {
    const { room, gathering } = gather();
    for (const [id, notebook] of [["abcd-2", "n/n10.ipynb"], ["abcd-1", "n/n9.ipynb"], ["ffff", ""]] as const) {
      room.add(new Doc(id, notebook));
    }
    const named = gathering.kernels.value.map((one) => `${one.name} ${one.short}`);
    expect(named).toEqual(["n9 abcd-1", "n10 abcd", "Python 3 ffff"]);
    expect(shorten("aa", ["aab"])).toBe("aa");
    const [first] = gathering.kernels.value;
    if (!first) throw new Error("nobody");
    expect(standing({ ...first, hasLeft: true }).word).toBe("gone");
    expect(standing({ ...first, hasLeft: true, kernel: { ...first.kernel, state: "dead" } }).word).toBe("ended");
    const failed = execution({ kernel: "ffff", state: "error" });
    expect(describeRoom(gathering.kernels.value, [failed]).text).toBe("3 kernels: 3 idle; the last run failed in 1");
  });

  it("has a lane for each kernel, whether it has run anything or not", () => {
    const rows = [execution({ kernel: "b" }), execution({ kernel: "stranger" })];
    const { lanes, bars } = layOut(rows, 99, ["a", "b"]);
    expect(lanes).toEqual(["a", "b", "stranger"]);
    expect(bars.map((bar) => bar.lane)).toEqual([1, 2]);
  });
});

describe("the address of a room's page", () => {
  it("is that of the room, and what is secret stands behind the #", () => {
    expect(readAddress("https://h:1/collab/team?x=1#token=t%2B&kernel=5f0c")).toEqual({
      url: "wss://h:1/collab/team",
      token: "t+",
      kernel: "5f0c",
      rest: "",
    });
    const local = readAddress("http://127.0.0.1/team#relay=wss%3A%2F%2Fh%2Fteam&execution=a%20b");
    expect([local.url, local.token, local.rest]).toEqual(["wss://h/team", null, "#execution=a%20b"]);
  });
});
