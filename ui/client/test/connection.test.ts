// When is another connection tried, and when not? Time and the agent are played here.

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Awareness, encodeAwarenessUpdate } from "y-protocols/awareness";
import * as Y from "yjs";

import { Backoff } from "../src/backoff.ts";
import { CLOSE_CODES, closeError } from "../src/errors.ts";
import {
  type Channel,
  type ChannelEvents,
  CommTransport,
  connect,
  type FutureLike,
  type Health,
  type LiveDocument,
  type RoomName,
  RTCError,
  type Transport,
  type WebSocketLike,
  WebSocketTransport,
} from "../src/index.ts";
import { readMessage, writeAwareness, writeStep1, writeStep2, writeUpdate } from "../src/messages.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const EMPTY = writeStep2(new Uint8Array([0, 0]));

test("pauses double, with jitter, up to 5 s, and begin anew after a success", () => {
  const whole = new Backoff(() => 1);
  expect([1, 2, 3, 4, 5, 6, 7, 8].map(() => whole.pauseS(false))).toEqual([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]);
  expect([whole.pauseS(true), whole.pauseS(false)]).toEqual([0.1, 0.2]);
  expect(new Backoff(() => 0).pauseS(false)).toBe(0.05);
});

interface Played {
  room: RoomName;
  epoch: string | null;
  events: ChannelEvents;
  sent: Uint8Array[];
  closed: boolean;
}

/** An agent whose connections are played by the test. */
class Agent implements Partial<Transport> {
  health_: Partial<Health> = { room: "k/state", epoch: "e1", requests_epoch: "r1", role: "view", name: "ada" };
  asked = 0;
  failure: RTCError | null = null;
  readonly channels: Played[] = [];

  health(): Promise<Health> {
    this.asked++;
    return this.failure ? Promise.reject(this.failure) : Promise.resolve(this.health_ as Health);
  }

  connect(room: RoomName, epoch: string | null, events: ChannelEvents): Channel {
    const channel: Played = { room, epoch, events, sent: [], closed: false };
    this.channels.push(channel);
    return { send: (data) => channel.sent.push(data), close: () => void (channel.closed = true) };
  }

  close(): void {
    // nothing is open
  }

  get last(): ChannelEvents {
    const found = this.channels.at(-1);
    if (!found) throw new Error("nobody has connected");
    return found.events;
  }

  async follow(): Promise<LiveDocument> {
    const doc = connect(this as unknown as Transport);
    await vi.advanceTimersByTimeAsync(0);
    this.last.onOpen();
    this.last.onMessage(EMPTY);
    return doc;
  }
}

describe("a document", () => {
  for (const [reason, code] of Object.entries(CLOSE_CODES)) {
    const what = closeError(code).final ? "stays closed, and says why" : "is connected again";
    test(`closed as ${reason} ${what}`, async () => {
      const agent = new Agent();
      const doc = await agent.follow();
      expect(doc.status).toBe("live");
      agent.last.onClose(code);
      await vi.advanceTimersByTimeAsync(60_000);
      if (closeError(code).final) {
        expect([doc.status, doc.failure?.code, agent.channels.length]).toEqual(["closed", code, 1]);
      } else {
        expect([doc.status, doc.failure, agent.channels.length]).toEqual(["away", null, 2]);
        agent.last.onOpen();
        agent.last.onMessage(EMPTY);
        expect([doc.status, doc.trouble]).toEqual(["live", null]);
      }
      doc.close();
    });
  }

  test("of a new life is synced from nothing, and replaces the old one when it is whole", async () => {
    const agent = new Agent();
    const doc = await agent.follow();
    const changes: boolean[] = [];
    doc.onChange((change) => changes.push(change.reset));
    agent.health_ = { ...agent.health_, epoch: "e2" };
    agent.last.onClose(CLOSE_CODES["wrong-epoch"]);
    await vi.advanceTimersByTimeAsync(0); // at once
    expect(agent.channels.at(-1)).toMatchObject({ epoch: "e2" });
    agent.last.onOpen();
    expect(agent.channels.at(-1)?.sent[0]).toEqual(new Uint8Array([0, 0, 1, 0]));
    expect([doc.status, changes]).toEqual(["away", []]);
    agent.last.onMessage(EMPTY);
    expect([doc.status, changes]).toEqual(["live", [true]]);
    doc.close();
  });

  test("of the same life asks for what it has missed alone, and tells no reset", async () => {
    const agent = new Agent();
    const doc = await agent.follow();
    const source = new Y.Doc();
    source.getMap("meta").set("schema", 1);
    agent.last.onMessage(writeStep2(Y.encodeStateAsUpdate(source)));
    const changes: boolean[] = [];
    doc.onChange((change) => changes.push(change.reset));
    agent.last.onClose(null);
    await vi.advanceTimersByTimeAsync(1000);
    agent.last.onOpen();
    expect(agent.channels.at(-1)?.sent[0]?.length).toBeGreaterThan(4);
    source.getMap("meta").set("coverage", "full");
    agent.last.onMessage(writeStep2(Y.encodeStateAsUpdate(source)));
    expect([changes, doc.meta?.coverage]).toEqual([[false], "full"]);
    doc.close();
  });

  test("is tried for ever while nobody answers, and not after the agent said no", async () => {
    const agent = new Agent();
    agent.failure = new RTCError("nobody answers", "wait");
    const doc = connect(agent as unknown as Transport);
    await vi.advanceTimersByTimeAsync(120_000);
    expect([doc.status, doc.trouble?.what]).toEqual(["connecting", "nobody answers"]);
    expect(agent.asked).toBeGreaterThan(20);
    agent.failure = new RTCError("no", "ask for a link", 401, true);
    await vi.advanceTimersByTimeAsync(10_000);
    expect([doc.status, doc.failure?.what]).toEqual(["closed", "no"]);
    const { asked } = agent;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(agent.asked).toBe(asked);
  });

  test("drops a connection that says what cannot be read, and begins with nothing", async () => {
    const agent = new Agent();
    const doc = await agent.follow();
    const source = new Y.Doc();
    source.getMap("meta").set("schema", 1);
    agent.last.onMessage(writeStep2(Y.encodeStateAsUpdate(source)));
    agent.last.onMessage(new Uint8Array([0, 2, 4, 1, 9, 9, 9]));
    expect(doc.meta?.schema).toBe(1); // the picture stays
    expect(agent.channels[0]?.closed).toBe(true);
    await vi.advanceTimersByTimeAsync(1000);
    agent.last.onOpen();
    expect(agent.channels.at(-1)?.sent[0]).toEqual(new Uint8Array([0, 0, 1, 0]));
    doc.close();
  });

  test("shows others again when the connection is back, and itself with a later clock", async () => {
    const other = new Awareness(new Y.Doc());
    other.setLocalState({ user: { name: "bob", color: "red", viewing: 7 } });
    const agent = new Agent();
    const doc = await agent.follow();
    doc.setPresence({ name: "ada" });
    doc.setPresence({ viewing: "e1" });
    const present = writeAwareness(encodeAwarenessUpdate(other, [other.clientID]));
    agent.last.onMessage(present);
    const bob = { clientId: other.clientID, name: "bob", self: false };
    expect(doc.peers).toContainEqual(bob); // what has a wrong form is left out
    expect(doc.peers).toContainEqual(expect.objectContaining({ name: "ada", viewing: "e1", self: true }));
    const said = agent.channels[0]?.sent.at(-1);
    agent.last.onClose(null);
    await vi.advanceTimersByTimeAsync(0);
    expect(doc.peers.map((peer) => peer.name)).toEqual(["ada"]);
    await vi.advanceTimersByTimeAsync(1000);
    agent.last.onOpen();
    agent.last.onMessage(present);
    expect(doc.peers).toContainEqual(bob);
    const again = agent.channels[1]?.sent.at(-1);
    expect([again?.[0], again?.length]).toEqual([1, said?.length]);
    expect(again).not.toEqual(said);
    expect(() => agent.last.onMessage(new Uint8Array([1, 1, 9]))).not.toThrow();
    expect(agent.channels[1]?.closed).toBe(true);
    other.destroy();
    doc.close();
  });

  test("does not take another kernel at the same address for its own", async () => {
    const agent = new Agent();
    const doc = await agent.follow();
    agent.health_ = { ...agent.health_, room: "other/state" };
    agent.last.onClose(null);
    await vi.advanceTimersByTimeAsync(10_000);
    expect([doc.status, doc.kernelId, agent.channels.length]).toEqual(["away", "k", 1]);
    expect(doc.trouble?.what).toMatch(/another kernel/);
    doc.close();
  });

  test("tells the other listeners when one throws", async () => {
    const agent = new Agent();
    const doc = connect(agent as unknown as Transport);
    const thrown: unknown[] = [];
    vi.stubGlobal("queueMicrotask", (task: () => void) => {
      try {
        task();
      } catch (error) {
        thrown.push(error);
      }
    });
    let told = 0;
    const stop = doc.onStatus(() => {
      throw new Error("a listener's fault");
    });
    doc.onStatus(() => void told++);
    await vi.advanceTimersByTimeAsync(0);
    stop();
    vi.unstubAllGlobals();
    expect(told).toBeGreaterThan(0);
    expect(thrown).toHaveLength(told);
    doc.close();
  });
});

test("a row that no message can carry is refused at once", async () => {
  const agent = new Agent();
  agent.health_ = { ...agent.health_, role: "run" };
  const doc = connect(agent as unknown as Transport);
  await vi.advanceTimersByTimeAsync(0);
  await expect(doc.run("x".repeat(6 << 20))).rejects.toThrow(/larger than a message/);
  doc.close();
});

test("who has asked for health already is connected without asking again, and asks where that was too old", async () => {
  const agent = new Agent();
  const health = { ...agent.health_, role: "run" } as Health;
  const doc = connect(agent as unknown as Transport, { health });
  expect(agent.channels.map(({ room, epoch }) => [room, epoch])).toEqual([
    ["requests", "r1"],
    ["state", "e1"],
  ]);
  expect([agent.asked, doc.role]).toEqual([0, "run"]);
  agent.health_ = { ...health, epoch: "e2" };
  agent.last.onOpen();
  agent.last.onClose(CLOSE_CODES["wrong-epoch"]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect([agent.asked, agent.channels.at(-1)?.epoch]).toEqual([1, "e2"]);
  doc.close();
});

/** A WebSocket that the test plays. */
class Socket implements WebSocketLike {
  static last: Socket;
  binaryType = "blob";
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onerror: (() => void) | null = null;
  closed = false;
  constructor(
    readonly url: string,
    readonly protocols: string[] = [],
  ) {
    Socket.last = this;
  }
  send(): void {
    // nobody listens
  }
  close(): void {
    this.closed = true;
  }
}

describe("a document of another version", () => {
  for (const [name, versions] of [
    ["schema", { schema: 2, protocol: "y-protocols/1" }],
    ["protocol", { schema: 1, protocol: "y-protocols/2" }],
  ] as const) {
    test(`is not read: ${name}`, async () => {
      const agent = new Agent();
      Object.assign(agent.health_, versions);
      const doc = connect(agent as unknown as Transport);
      await vi.advanceTimersByTimeAsync(60_000);
      expect([doc.status, agent.asked, agent.channels.length]).toEqual(["closed", 1, 0]);
      expect(doc.failure?.what).toContain(`schema ${versions.schema} and speaks ${versions.protocol}`);
      expect(doc.failure?.remedy).toContain("upgrade rtc_kernel");
    });
  }

  test("that begins while it is followed ends it for good", async () => {
    const agent = new Agent();
    Object.assign(agent.health_, { schema: 1, protocol: "y-protocols/1" });
    const doc = await agent.follow();
    expect(doc.status).toBe("live");
    Object.assign(agent.health_, { schema: 2 });
    agent.last.onClose(1012);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([doc.status, agent.channels.length]).toEqual(["closed", 1]);
  });
});

describe("the bytes of a blob", () => {
  const bytes = new TextEncoder().encode("abc");
  const digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  const other = `sha256:${"0".repeat(64)}`;
  const serve = (): void => void vi.stubGlobal("fetch", () => Promise.resolve(new Response(bytes)));
  afterEach(() => void vi.unstubAllGlobals());

  test("are held against its digest, whole", async () => {
    serve();
    const transport = new WebSocketTransport({ url: "http://h/", WebSocket: class {} });
    expect(await transport.blob(digest)).toEqual(bytes);
    await expect(transport.blob(other)).rejects.toThrow(/not those of its digest/);
    expect(await transport.blob(other, 0, 3)).toEqual(bytes);
    const reply = { content: { data: { bytes: 3, start: 0 } }, buffers: [bytes] } as never;
    const comm = {
      onMsg: () => undefined,
      onClose: () => undefined,
      open: () => ({ onReply: () => undefined }),
      send: () => {
        const future: FutureLike = { onReply: () => undefined };
        queueMicrotask(() => void future.onReply(reply));
        return future;
      },
      close: () => undefined,
    };
    const overComm = new CommTransport({ createComm: () => comm });
    expect(await overComm.blob(digest)).toEqual(bytes);
    await expect(overComm.blob(other)).rejects.toThrow(/not those of its digest/);
    expect(await overComm.blob(other, 0, 3)).toEqual(bytes);
  });

  test("are taken as they come on a page that has no way to tell", async () => {
    serve();
    vi.stubGlobal("crypto", {});
    const transport = new WebSocketTransport({ url: "http://h/", WebSocket: class {} });
    expect(await transport.blob(other)).toEqual(bytes);
  });
});

describe("a WebSocket", () => {
  const events = (): ChannelEvents & { closes: (number | null)[]; messages: number } => {
    const seen = { closes: [] as (number | null)[], messages: 0 };
    return Object.assign(seen, {
      onOpen: () => undefined,
      onMessage: () => void seen.messages++,
      onGap: () => undefined,
      onClose: (code: number | null) => void seen.closes.push(code),
    });
  };

  test("that says nothing for 45 s is dead; any message is a sign of life", () => {
    const seen = events();
    const transport = new WebSocketTransport({ url: "http://127.0.0.1:1/proxy/8/?token=t0k-en", WebSocket: Socket });
    transport.connect("state", "e 1", seen);
    expect(Socket.last.url).toBe("ws://127.0.0.1:1/proxy/8/rooms//state?epoch=e+1");
    expect(Socket.last.protocols).toEqual(["rtc.token.t0k-en"]);
    for (let second = 0; second < 200; second += 20) {
      vi.advanceTimersByTime(20_000);
      Socket.last.onmessage?.({ data: new Uint8Array([1, 1, 0]).buffer });
    }
    expect([seen.closes, seen.messages]).toEqual([[], 10]);
    vi.advanceTimersByTime(51_000);
    expect([seen.closes, Socket.last.closed]).toEqual([[null], true]);
    Socket.last.onclose?.({ code: 4401 }); // late
    expect(seen.closes).toEqual([null]);
  });

  test("that is closed by us says nothing more", () => {
    const seen = events();
    const transport = new WebSocketTransport({ url: "http://127.0.0.1:1", WebSocket: Socket });
    const channel = transport.connect("state", null, seen);
    channel.close();
    Socket.last.onmessage?.({ data: new ArrayBuffer(1) });
    Socket.last.onclose?.({ code: 1000 });
    expect([seen.closes, seen.messages, Socket.last.protocols]).toEqual([[], 0, []]);
  });

  test("needs an address, a token and a class that are such", () => {
    for (const options of [
      { url: "nothing" },
      { url: "ftp://host/" },
      { url: "http://h/", token: "no token" },
      { url: "http://h/", WebSocket: 1 },
    ]) {
      expect(() => new WebSocketTransport({ WebSocket: Socket, ...options })).toThrow(RTCError);
    }
  });
});

describe("a comm", () => {
  /** A kernel connection that the test plays. */
  class Kernel {
    visible = true;
    sent: Uint8Array[] = [];
    future: FutureLike = { onReply: () => undefined };
    comm: { onMsg: (message: never) => void; onClose: (message: never) => void } = null as never;
    closes: (number | null)[] = [];
    messages: Uint8Array[] = [];
    gaps = 0;

    connect(): Channel {
      const makeFuture = (): FutureLike => (this.future = { onReply: () => undefined });
      const comm = {
        onMsg: () => undefined,
        onClose: () => undefined,
        open: () => makeFuture(),
        send: (_data: never, _metadata: never, buffers?: ArrayBufferView[]) => {
          this.sent.push(...((buffers ?? []) as Uint8Array[]));
          return makeFuture();
        },
        close: () => undefined,
      };
      this.comm = comm;
      const isVisible = (): boolean => this.visible;
      const transport = new CommTransport({ createComm: () => comm }, { isVisible, onVisible: () => () => undefined });
      const channel = transport.connect("state", "e", {
        onOpen: () => channel.send(new Uint8Array([0, 0, 1, 0])),
        onMessage: (message) => void this.messages.push(message),
        onGap: () => {
          this.gaps++;
          channel.send(new Uint8Array([0, 0, 1, 0]));
        },
        onClose: (code) => void this.closes.push(code),
      });
      return channel;
    }

    reply(seq: number): void {
      void this.future.onReply({ content: { data: { seq, epoch: "e" } }, buffers: [] } as never);
    }

    publish(seq: number, ...buffers: ArrayBufferView[]): void {
      this.comm.onMsg({ content: { data: { seq, epoch: "e" } }, buffers } as never);
    }
  }

  test("takes an empty buffer, which JupyterLab 4.0 puts behind those that came, for none", async () => {
    const kernel = new Kernel();
    kernel.connect();
    await vi.advanceTimersByTimeAsync(0);
    kernel.publish(1, new DataView(Uint8Array.of(9, 0, 2, 7).buffer, 1), new DataView(new ArrayBuffer(0)));
    expect(kernel.messages).toEqual([Uint8Array.of(0, 2, 7)]);
  });

  test("asks every 20 s while the page is visible, and gives up where there is no answer", async () => {
    const kernel = new Kernel();
    kernel.connect();
    await vi.advanceTimersByTimeAsync(0);
    for (let n = 0; n < 8; n++) {
      kernel.reply(0);
      await vi.advanceTimersByTimeAsync(22_000);
    }
    expect([kernel.gaps, kernel.closes]).toEqual([8, []]);
    kernel.reply(0);
    kernel.visible = false;
    await vi.advanceTimersByTimeAsync(300_000);
    expect([kernel.gaps, kernel.closes]).toEqual([8, []]);
    kernel.visible = true;
    await vi.advanceTimersByTimeAsync(50_000);
    expect([kernel.gaps, kernel.closes]).toEqual([9, [null]]);
  });

  test("asks for what it has missed, and not more often than every 2 s", async () => {
    const kernel = new Kernel();
    kernel.connect();
    await vi.advanceTimersByTimeAsync(0);
    kernel.reply(3); // the answer overtook the three before it
    for (const seq of [1, 2, 3, 4]) kernel.publish(seq);
    await vi.advanceTimersByTimeAsync(5000);
    expect(kernel.gaps).toBe(0);
    for (let seq = 6; seq < 66; seq += 2) {
      kernel.publish(seq);
      await vi.advanceTimersByTimeAsync(100);
      kernel.reply(seq);
    }
    expect(kernel.gaps).toBeGreaterThan(0);
    expect(kernel.gaps).toBeLessThanOrEqual(2);
  });

  test("says what its user is called whenever it opens the document, as it is known then", async () => {
    const sent: unknown[] = [];
    const comm = {
      onMsg: () => undefined,
      onClose: () => undefined,
      open: () => ({ onReply: () => undefined }),
      send: (data: never) => {
        sent.push(data);
        return { onReply: () => undefined };
      },
      close: () => undefined,
    };
    let name = "";
    const transport = new CommTransport({ createComm: () => comm }, { name: () => name });
    const events = { onOpen: () => undefined, onMessage: () => undefined, onGap: () => undefined, onClose: () => undefined };
    for (name of ["", " Ada ", "é".repeat(70)]) {
      for (const room of ["state", "requests"] as const) transport.connect(room, "e", events);
      await vi.advanceTimersByTimeAsync(0);
    }
    expect(sent).toEqual(["Ada", "é".repeat(64)].map((said) => ({ op: "introduce", name: said })));
  });

  test("a link is asked for with what was given alone, and a refusal says what to do", async () => {
    const asked: unknown[] = [];
    const answers: unknown[] = [
      { link: { name: "a", role: "run", expires_at: 9 }, url: "http://h/?token=t", proxied_url: null },
      { link: { name: "view-1", role: "view", expires_at: null }, url: "u", proxied_url: "/proxy/9/?token=t" },
      { error: "there is no link named 'x'", remedy: "no link is in force" },
      { links: [], peers: [{ name: "", role: "run", way: "comm", since: 1 }] },
      { request: "r1" },
      { request: "r2" },
    ];
    const comm = {
      onMsg: () => undefined,
      onClose: () => undefined,
      open: () => ({ onReply: () => undefined }),
      send: (data: never) => {
        asked.push(data);
        const future: FutureLike = { onReply: () => undefined };
        queueMicrotask(() => void future.onReply({ content: { data: answers.shift() } } as never));
        return future;
      },
      close: () => undefined,
    };
    const transport = new CommTransport({ createComm: () => comm });
    expect(await transport.share({ role: "run", name: "a", expiresS: 9 })).toEqual({
      ...{ name: "a", role: "run", expires_at: 9, url: "http://h/?token=t", proxied_url: null },
    });
    expect(await transport.share({ name: "", expiresS: null })).toMatchObject({ proxied_url: "/proxy/9/?token=t" });
    await expect(transport.unshare("x")).rejects.toThrow("there is no link named 'x': no link is in force");
    expect((await transport.links()).peers).toHaveLength(1);
    await transport.release("r1");
    await transport.cancel("r2");
    expect(asked).toEqual([
      { op: "share", role: "run", name: "a", expires_s: 9 },
      { op: "share" },
      { op: "unshare", name: "x" },
      { op: "links" },
      { op: "release", request: "r1" },
      { op: "cancel", request: "r2" },
    ]);
    transport.close();
  });

  test("is closed with a code or a word alone; one that the agent does not know is opened again", async () => {
    for (const [data, code] of [
      [{ code: 4409, reason: "wrong-epoch" }, 4409],
      [{ reason: "stopping" }, 1012],
      [{ code: 4404, reason: "no-such-room" }, null],
      [{}, null],
    ] as const) {
      const kernel = new Kernel();
      kernel.connect();
      await vi.advanceTimersByTimeAsync(0);
      kernel.comm.onClose({ content: { data } } as never);
      expect(kernel.closes).toEqual([code]);
    }
  });
});

describe("the answer to a question", () => {
  /** Ask, and be told that it was answered; the document of the runs has an answer of 10 s before. */
  async function asked(columns: { fresh?: boolean; reason?: string }) {
    const agent = new Agent();
    agent.health_.role = "run";
    const channel = (room: RoomName): Played => {
      const found = agent.channels.find((one) => one.room === room);
      if (!found) throw new Error(`nobody has connected to ${room}`);
      return found;
    };
    const doc = connect(agent as unknown as Transport);
    await vi.advanceTimersByTimeAsync(0);
    const state = channel("state").events;
    const runs = new Y.Doc();
    const give = (result: number, answeredAt: number): void => {
      const row = { target: "t", input: null, state: "done", result, answered_at: answeredAt };
      runs.getMap("queries").set("q", new Y.Map(Object.entries(row)));
      state.onMessage(writeStep2(Y.encodeStateAsUpdate(runs)));
    };
    state.onOpen();
    give(1, 90);
    const answer = doc.query("t", null, { fresh: columns.fresh === true });
    const settled = vi.fn();
    void answer.then(settled, settled);
    await vi.advanceTimersByTimeAsync(0);
    const requests = channel("requests").events;
    requests.onOpen();
    requests.onMessage(EMPTY);
    requests.onMessage(writeStep1(new Uint8Array([0])));
    const rows = new Y.Doc();
    for (const data of channel("requests").sent) {
      const message = readMessage(data);
      if (message.type === "update") Y.applyUpdate(rows, message.update);
    }
    const [row] = rows.getMap<Y.Map<unknown>>("requests").values();
    const ours = { by: "ada", ordinal: 1, received_at: 100, state: "done", query: "q", reason: columns.reason };
    rows.transact(() => {
      for (const [name, value] of Object.entries(ours)) if (value !== undefined) row?.set(name, value);
    });
    requests.onMessage(writeUpdate(Y.encodeStateAsUpdate(rows)));
    await vi.advanceTimersByTimeAsync(0);
    return { answer, settled, give };
  }

  test("is the one that is shown, where that is not old", async () => {
    await expect((await asked({})).answer).resolves.toBe(1);
  });

  test("is waited for where it is to be fresh", async () => {
    const { answer, settled, give } = await asked({ fresh: true });
    expect(settled).not.toHaveBeenCalled();
    give(2, 101);
    await expect(answer).resolves.toBe(2);
  });

  test("is gone when it does not come", async () => {
    const { settled } = await asked({ fresh: true });
    await vi.advanceTimersByTimeAsync(30_000);
    expect(settled).toHaveBeenCalledWith(expect.objectContaining({ remedy: "the answer is gone, ask again" }));
  });

  test("is the reason why there is none, whatever is shown", async () => {
    await expect((await asked({ reason: "no such target" })).answer).rejects.toMatchObject({ remedy: "no such target" });
  });
});
