/**
 * What if somebody on the way does not hear an answer that comes while we speak?
 *
 * Door over a kernel connection. jupyter-server-documents 0.3 waits for a kernel's answers on a socket that it also writes
 * to, and it writes past the one that wakes it: an answer that arrives within a write is not noticed, nor any later one.
 * Through such a server nothing is said between a question and its answer.
 */

import { type CommLike, type FutureLike, isAnswered, type KernelLike } from "./comm.ts";

/** So long an answer is waited for; then it may have been lost. Seconds. */
const TURN_S = 2;

/** A kernel connection whose comms say one thing at a time, all of them together. */
export function inTurn(kernel: KernelLike): KernelLike {
  const turns = new Turns();
  return { createComm: (target) => new TurnComm(kernel.createComm(target), turns) };
}

/** Sends something; the promise is fulfilled when it is answered, null: it is not answered. */
type Send = () => Promise<void> | null;

class Turns {
  private readonly waiting: Send[] = [];
  private isTaken = false;

  take(send: Send): void {
    if (this.isTaken) this.waiting.push(send);
    else this.go(send);
  }

  private go(send: Send): void {
    const answered = send();
    if (answered === null) return;
    this.isTaken = true;
    void answered.then(() => this.next());
  }

  private next(): void {
    this.isTaken = false;
    for (let send; !this.isTaken && (send = this.waiting.shift()); ) {
      try {
        this.go(send);
      } catch {
        // the kernel's connection is gone: who uses the comm sees that it is disposed, or that there is no answer
      }
    }
  }
}

class TurnComm implements CommLike {
  private readonly comm: CommLike;
  private readonly turns: Turns;

  constructor(comm: CommLike, turns: Turns) {
    this.comm = comm;
    this.turns = turns;
  }

  get isDisposed(): boolean {
    return this.comm.isDisposed === true;
  }

  set commsOverSubshells(policy: unknown) {
    this.comm.commsOverSubshells = policy;
  }

  set onMsg(receive: CommLike["onMsg"]) {
    this.comm.onMsg = receive;
  }

  set onClose(receive: CommLike["onClose"]) {
    this.comm.onClose = receive;
  }

  open(...sent: Parameters<CommLike["open"]>): TurnFuture {
    return this.take(() => this.comm.open(...sent), false);
  }

  send(...sent: Parameters<CommLike["send"]>): TurnFuture {
    const [data, , buffers = []] = sent;
    return this.take(() => this.comm.send(...sent), isAnswered(data as object, buffers));
  }

  close(): void {
    this.turns.take(() => {
      if (!this.isDisposed) this.comm.close();
      return null;
    });
  }

  private take(send: () => FutureLike, answered: boolean): TurnFuture {
    const future = new TurnFuture();
    this.turns.take(() => future.begin(send(), answered));
    return future;
  }
}

/** Of a message that may not have been sent yet. */
class TurnFuture implements FutureLike {
  onReply: FutureLike["onReply"] = () => undefined;
  /** As in JupyterLab: the kernel has seen to it. */
  readonly done: Promise<unknown>;
  private finish: (done: unknown) => void = () => undefined;
  private future: FutureLike | null = null;
  private isAwaited = true;
  private isDisposed = false;

  constructor() {
    this.done = new Promise((resolve) => (this.finish = resolve));
  }

  begin(future: FutureLike & { done?: Promise<unknown> }, answered: boolean): Promise<void> | null {
    this.future = future;
    future.done?.then(this.finish, () => undefined);
    if (!answered) {
      this.end();
      return null;
    }
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.end();
        resolve();
      };
      const timer = setTimeout(end, TURN_S * 1000);
      future.onReply = (message) => {
        if (!this.isDisposed) void this.onReply(message);
        end();
      };
    });
  }

  /** What was asked is still waited for: its answer must not come while something else is said. */
  dispose(): void {
    this.isDisposed = true;
    if (!this.isAwaited) this.future?.dispose?.();
  }

  private end(): void {
    this.isAwaited = false;
    if (this.isDisposed) this.future?.dispose?.();
  }
}
