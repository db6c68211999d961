/**
 * Which kernels are in a room, and what is in their documents?
 *
 * Follows all of them over one connection: a {@link LiveDocument} for each. One that has left stays as it was for as
 * long as there is room for it.
 */

import { Backoff } from "./backoff.ts";
import { connect, type LiveDocument, type Status } from "./document.ts";
import { RTCError } from "./errors.ts";
import type { Kernel } from "./records.ts";
import { type Index, Relay, type RelayOptions, RelayTransport } from "./relay.ts";

/** So many kernels of a room are followed. */
const FOLLOWED = 500;

/** So many that have left stay, the latest. */
const LEFT_KEPT = 50;

export interface RoomOptions extends RelayOptions {
  /** How many kernels are followed; 500 unless given. Of more, those whose ids come first. */
  limit?: number;
}

/** A kernel of a room. */
export interface Member {
  readonly id: string;
  /** What the room's index says of it; its document knows better as soon as it is here. */
  readonly row: Kernel;
  readonly doc: LiveDocument;
  /** It is not published in the room any more, and this is its last picture. */
  readonly hasLeft: boolean;
}

export class Room {
  readonly name: string;
  private readonly relay: Relay;
  private readonly limit: number;
  private readonly known = new Map<string, Member>();
  private readonly transports = new Map<string, RelayTransport>();
  private readonly listeners = new Set<() => void>();
  private readonly backoff = new Backoff();
  private currentStatus: Status = "connecting";
  private currentFailure: RTCError | null = null;
  private currentTrouble: RTCError | null = null;
  private left = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** @throws RTCError: there is no WebSocket here, or the URL is none of a room. */
  constructor(options: RoomOptions) {
    this.relay = new Relay(options);
    this.name = this.relay.room;
    this.limit = options.limit ?? FOLLOWED;
    this.relay.onChange(() => this.look());
    this.open();
  }

  /** `connecting`: the index was never here; `away`: the connection is gone, and tried again. */
  get status(): Status {
    return this.currentStatus;
  }

  /** Why it is closed; null while it is not, and when we closed it. */
  get failure(): RTCError | null {
    return this.currentFailure;
  }

  /** Why there is no connection now; null while there is one. */
  get trouble(): RTCError | null {
    return this.currentTrouble;
  }

  /** By id, in the order in which they were seen; a new object where one is different. */
  get members(): ReadonlyMap<string, Member> {
    return this.known;
  }

  /** How many kernels are in the room and not followed, because there are too many. */
  get omittedCount(): number {
    return this.left;
  }

  /** Called when somebody came or went, or the connection did; returns how to end it. */
  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** This kernel is to be asked for something: from now on its document has a role, where the token gives one. */
  ask(kernel: string): void {
    this.transports.get(kernel)?.ask();
  }

  /** End it, and all its documents. */
  close(): void {
    this.end(null);
  }

  private open(): void {
    this.relay
      .open()
      .ready()
      .then(
        () => this.look(),
        (error: unknown) => this.lose(error),
      );
  }

  /** The index is different, or the connection is over. */
  private look(): void {
    if (this.currentStatus === "closed") return;
    const index = this.relay.current;
    if (index === null || !index.isWhole) {
      if (this.currentStatus === "live") this.lose(null);
      return;
    }
    this.currentStatus = "live";
    this.currentTrouble = null;
    this.take(index);
    this.tell();
  }

  private take(index: Index): void {
    const all = index.kernels;
    const ids = new Set(all.length > this.limit ? all.sort().slice(0, this.limit) : all);
    this.left = all.length - ids.size;
    for (const member of [...this.known.values()]) {
      if (ids.has(member.id) || member.hasLeft) continue;
      member.doc.close();
      this.known.set(member.id, { ...member, hasLeft: true });
    }
    for (const id of ids) {
      const known = this.known.get(id);
      const row = index.entry(id)?.row;
      if (row === undefined || (known !== undefined && !known.hasLeft)) continue;
      const transport = new RelayTransport({ relay: this.relay, kernel: id });
      this.transports.set(id, transport);
      this.known.set(id, { id, row, doc: connect(transport), hasLeft: false });
    }
    const gone = [...this.known.values()].filter((member) => member.hasLeft);
    for (const member of gone.slice(0, Math.max(0, gone.length - LEFT_KEPT))) {
      this.known.delete(member.id);
      this.transports.delete(member.id);
    }
  }

  private lose(error: unknown): void {
    if (this.currentStatus === "closed") return;
    if (error instanceof RTCError && error.final) return this.end(error);
    const worked = this.currentStatus === "live";
    this.currentTrouble = error instanceof RTCError ? error : null;
    if (worked) this.currentStatus = "away";
    this.tell();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.backoff.pauseS(worked) * 1000);
  }

  private end(failure: RTCError | null): void {
    if (this.currentStatus === "closed") return;
    this.currentStatus = "closed";
    this.currentFailure = failure;
    clearTimeout(this.timer);
    for (const member of this.known.values()) member.doc.close();
    this.relay.close();
    this.tell();
  }

  private tell(): void {
    for (const listener of [...this.listeners]) listener();
  }
}
