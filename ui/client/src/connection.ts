/**
 * How is one room kept connected?
 *
 * Owns the attempts: asks where the document is, connects, and connects again with back-off until the agent says
 * that it will have us no more. It knows nothing of documents: what messages say is the {@link Room}'s.
 */

import { Backoff } from "./backoff.ts";
import { CLOSE_CODES, closeError, RTCError } from "./errors.ts";
import { type Message, readMessage } from "./messages.ts";
import type { Channel, Health, RoomName, Transport } from "./transport.ts";

/** What is at our end of a room. */
export interface Room {
  readonly name: RoomName;
  /** The agent answered. Throw what makes a connection senseless; null: there is nothing to connect to. */
  find(health: Health): string | null;
  /** A connection to this epoch stands: send what comes first. */
  open(epoch: string, send: (data: Uint8Array) => void): void;
  /** One message came. Whether the room is in sync now. */
  receive(message: Message): boolean;
  /** Something may be missing: ask again. */
  resync(): void;
  /** The connection is gone, and another is tried. */
  lose(trouble: RTCError): void;
  /** It is over. */
  fail(error: RTCError): void;
}

/** How one attempt ended. `worked`: it was in sync for a while. */
interface End {
  error: RTCError;
  worked: boolean;
}

export class Connection {
  private readonly transport: Transport;
  private readonly room: Room;
  private readonly backoff: Backoff;
  private channel: Channel | null = null;
  private closed = false;
  private stopWaiting: (() => void) | null = null;

  constructor(transport: Transport, room: Room, backoff = new Backoff()) {
    this.transport = transport;
    this.room = room;
    this.backoff = backoff;
  }

  /**
   * Begin; goes on until {@link close}, or until the agent will have us no more.
   *
   * @param health what the agent said just now, if it was asked: the first attempt does not ask again.
   */
  start(health: Health | null = null): void {
    void this.keep(health);
  }

  /** Do not wait for the next attempt: the network is back, or the page is looked at again. */
  hurry(): void {
    this.stopWaiting?.();
  }

  /** End it; the room is not told. */
  close(): void {
    this.closed = true;
    this.channel?.close();
    this.channel = null;
    this.stopWaiting?.();
  }

  private async keep(health: Health | null): Promise<void> {
    for (let known = health; !this.closed; known = null) {
      const end = await this.attempt(known);
      if (this.closed || end === null) return;
      if (end.error.final) {
        this.closed = true;
        this.room.fail(end.error);
        return;
      }
      this.room.lose(end.error);
      // A new life is there already when the old one is closed; one that was never in sync may be a fault.
      const isRenewed = end.worked && end.error.code === CLOSE_CODES["wrong-epoch"];
      const pauseS = this.backoff.pauseS(end.worked);
      if (!isRenewed) await this.wait(pauseS);
    }
  }

  private async attempt(known: Health | null): Promise<End | null> {
    try {
      const health = known ?? (await this.transport.health());
      if (this.closed) return null;
      const epoch = this.room.find(health);
      return epoch === null ? null : await this.connect(epoch);
    } catch (error) {
      return { error: asFailure(error), worked: false };
    }
  }

  private connect(epoch: string): Promise<End> {
    return new Promise((resolve) => {
      let worked = false;
      let over = false;
      const finish = (error: RTCError): void => {
        over = true;
        this.channel = null;
        resolve({ error, worked });
      };
      const channel = this.transport.connect(this.room.name, epoch, {
        onOpen: () => {
          if (!over) this.room.open(epoch, (data) => channel.send(data));
        },
        onMessage: (data) => {
          if (over) return;
          try {
            worked = this.room.receive(readMessage(data)) || worked;
          } catch (error) {
            channel.close();
            finish(asFailure(error));
          }
        },
        onGap: () => {
          if (!over) this.room.resync();
        },
        onClose: (code) => {
          if (!over) finish(closeError(code));
        },
      });
      if (!over) this.channel = channel;
    });
  }

  private wait(seconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.stopWaiting?.(), seconds * 1000);
      this.stopWaiting = () => {
        clearTimeout(timer);
        this.stopWaiting = null;
        resolve();
      };
    });
  }
}

/** An error that is none of ours is a fault of the client, and is not tried again. */
function asFailure(error: unknown): RTCError {
  if (error instanceof RTCError) return error;
  const bug = new RTCError("the client failed", "reload the page; if it comes again, report it", null, true);
  bug.cause = error;
  return bug;
}
