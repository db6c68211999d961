/** Does one who speaks in turn say nothing while an answer is to come, and lose nothing? */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { type CommLike, CommTransport, type FutureLike, inTurn } from "../src/index.ts";

/** A kernel connection that the test plays. */
class Kernel {
  readonly said: string[] = [];
  readonly futures: (FutureLike & { isDisposed: boolean })[] = [];
  readonly comms: CommLike[] = [];
  isGone = false;

  createComm = (): CommLike => {
    const say = (words: string): FutureLike => {
      if (this.isGone) throw new Error("Canceled");
      this.said.push(words);
      const future = { onReply: () => undefined, isDisposed: false, dispose: () => void (future.isDisposed = true) };
      this.futures.push(future);
      return future;
    };
    const comm: CommLike = {
      onMsg: () => undefined,
      onClose: () => undefined,
      open: (data?: { room: string }) => say(`open ${data?.room}`),
      send: (data: { op?: string }, _: unknown, buffers: ArrayBufferView[] = []) =>
        say(data.op ?? `bytes ${String(buffers[0])}`),
      close: () => say("close"),
    };
    this.comms.push(comm);
    return comm;
  };

  /** Answer what was said last. */
  async answer(data: object = {}): Promise<void> {
    void this.futures.at(-1)?.onReply({ content: { data } } as never);
    await vi.advanceTimersByTimeAsync(0);
  }
}

const question = new Uint8Array([0, 0, 1, 0]);
const update = new Uint8Array([0, 2, 1, 0]);

describe("in turn", () => {
  let kernel: Kernel;
  beforeEach(() => {
    vi.useFakeTimers();
    kernel = new Kernel();
  });
  afterEach(() => void vi.useRealTimers());

  const open = (): CommLike => inTurn(kernel).createComm("rtc.sync.v1");
  const send = (comm: CommLike, data: object, ...buffers: Uint8Array[]): FutureLike =>
    comm.send(data as never, {} as never, buffers, false);

  test("what is not answered is said at once", () => {
    const comm = open();
    comm.open({ room: "state" } as never);
    send(comm, {}, update);
    send(comm, {}, update);
    comm.close();
    expect(kernel.said).toEqual(["open state", "bytes 0,2,1,0", "bytes 0,2,1,0", "close"]);
  });

  test("all comms of a kernel wait for an answer, and then go on in their order", async () => {
    const way = inTurn(kernel);
    const [one, other] = [way.createComm("t"), way.createComm("t")];
    const answers: unknown[] = [];
    send(one, {}, question).onReply = (message) => void answers.push(message);
    send(one, {}, update);
    other.open({ room: "requests" } as never);
    send(other, { op: "health" }).onReply = (message) => void answers.push(message);
    send(one, { op: "links" });
    expect(kernel.said).toEqual(["bytes 0,0,1,0"]);
    await kernel.answer({ seq: 1 });
    expect(kernel.said.slice(1)).toEqual(["bytes 0,2,1,0", "open requests", "health"]);
    await kernel.answer({ seq: 2 });
    expect(kernel.said.slice(4)).toEqual(["links"]);
    expect(answers).toEqual([{ content: { data: { seq: 1 } } }, { content: { data: { seq: 2 } } }]);
  });

  test("an answer that nobody wants is waited for all the same", async () => {
    const comm = open();
    send(comm, { op: "introduce" }).dispose?.();
    send(comm, {}, question).dispose?.();
    expect(kernel.said).toEqual(["introduce"]);
    expect(kernel.futures[0]?.isDisposed).toBe(false);
    await kernel.answer();
    expect(kernel.said).toEqual(["introduce", "bytes 0,0,1,0"]);
    expect(kernel.futures.map(({ isDisposed }) => isDisposed)).toEqual([true, false]);
  });

  test("one that does not come is given up, and taken if it comes yet", async () => {
    const comm = open();
    const answers: unknown[] = [];
    const asked = send(comm, { op: "health" });
    asked.onReply = (message) => void answers.push(message);
    send(comm, {}, update).dispose?.();
    await vi.advanceTimersByTimeAsync(1900);
    expect(kernel.said).toEqual(["health"]);
    await vi.advanceTimersByTimeAsync(200);
    expect(kernel.said).toEqual(["health", "bytes 0,2,1,0"]);
    expect(kernel.futures.map(({ isDisposed }) => isDisposed)).toEqual([false, true]);
    void kernel.futures[0]?.onReply({ late: true } as never);
    expect(answers).toEqual([{ late: true }]);
    asked.dispose?.();
    expect(kernel.futures[0]?.isDisposed).toBe(true);
  });

  test("a connection that is gone is said at once, and keeps nobody waiting", async () => {
    const comm = open();
    send(comm, { op: "health" });
    send(comm, {}, update);
    kernel.isGone = true;
    await kernel.answer();
    expect(() => send(comm, {}, update)).toThrow("Canceled");
    kernel.isGone = false;
    send(comm, {}, update);
    expect(kernel.said).toEqual(["health", "bytes 0,2,1,0"]);
  });

  test("a transport reads over it", async () => {
    const transport = new CommTransport(inTurn(kernel));
    const health = transport.health();
    const links = transport.links();
    await vi.advanceTimersByTimeAsync(0);
    expect(kernel.said).toEqual(["open state", "health"]);
    await kernel.answer({ room: "state" });
    expect(await health).toMatchObject({ room: "state" });
    await kernel.answer({ links: [], peers: [] });
    expect(await links).toEqual({ links: [], peers: [] });
    transport.close();
    expect(kernel.said).toEqual(["open state", "health", "links", "close"]);
  });
});
