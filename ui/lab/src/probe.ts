/**
 * Does this kernel have a live document?
 *
 * Door. One comm is opened, once: a kernel without our target closes it, and hears nothing more of us. Its messages may
 * take as long as its cell does, so there is no time after which it is asked again.
 */

import { type CommLike, type FutureLike, type Health, healthFromJson, type KernelLike, makeComm } from "@rtc-kernel/client";

/**
 * @returns how to end the question. `tell` is called at most once, with whether it has one, and what its agent said of
 *   itself if that was there.
 */
export function probe(kernel: KernelLike, tell: (has: boolean, health?: Health) => void): () => void {
  let isOver = false;
  let comm: CommLike | null = null;
  const end = (): void => {
    isOver = true;
    if (comm === null || comm.isDisposed) return;
    comm.onClose = () => undefined;
    try {
      comm.close();
    } catch {
      // the kernel's connection is gone, and the comm with it
    }
  };
  try {
    comm = makeComm(kernel);
    comm.onClose = ({ content }: { content: { data?: unknown } }) => {
      if (isOver) return;
      isOver = true;
      // Ours says why: its agent was not there yet, or has many comms. Who follows tries it again.
      tell(content.data ? Object.keys(content.data).includes("reason") : false);
    };
    const opened = comm.open({ room: "state" } as never) as FutureLike & { done?: Promise<unknown> };
    const ask = (): void => {
      if (isOver || comm === null || comm.isDisposed) return;
      const future = comm.send({ op: "health" } as never, {} as never, [], false);
      future.onReply = ({ content }: { content: { data?: Parameters<typeof healthFromJson>[0] } }) => {
        future.dispose?.();
        if (isOver) return;
        end();
        const { data = {} } = content;
        if ("room" in data) tell(true, healthFromJson(data));
        else tell(true);
      };
    };
    // A kernel closes what it does not know before it is idle again.
    opened.done?.then(ask, () => undefined);
  } catch {
    // the kernel's connection is disposed: there will be another one
  }
  return end;
}
