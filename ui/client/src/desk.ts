/**
 * What have we asked for, and what became of it?
 *
 * Owns a replica of `<kernel_id>/requests` and a {@link Ticket} for each row of ours that has not ended. It does not
 * follow what runs: that is in `state`.
 *
 * Theory of sending once. A row has an id that we make. When a connection was lost, or the agent began a new epoch,
 * every row that has not ended is written again under the same id: the agent knows the ids that it has acknowledged,
 * shows how far that request is, and runs nothing twice.
 */

import * as Y from "yjs";

import { changedKeys } from "./changes.ts";
import type { Room } from "./connection.ts";
import { malformed, refusal, RTCError } from "./errors.ts";
import { type Message, writeStep1, writeStep2, writeUpdate } from "./messages.ts";
import type { JsonObject, Request } from "./records.ts";
import { clean, readRequest } from "./schema.ts";
import type { Health } from "./transport.ts";

/**
 * How long a row may be, as JSON text: with it every message is below the agent's `written_bytes` (16 MiB). One that is
 * longer would close each connection anew.
 */
const ROW_CHARS = 5 << 20;

/** A request of ours, until it has ended. */
export class Ticket {
  readonly id: string;
  readonly action: string;
  /** What is written, and written again; null once it has ended, so that what was typed is not kept. */
  row: JsonObject | null;
  /** The row as the agent has it; null until it is acknowledged. */
  request: Request | null = null;
  private error: RTCError | null = null;
  private waiting: (() => void)[] = [];

  constructor(id: string, row: JsonObject) {
    this.id = id;
    this.action = String(row.action);
    this.row = row;
  }

  get ended(): boolean {
    return this.request !== null && (this.request.state === "done" || this.request.state === "refused");
  }

  /** The agent says something of it, or nothing will be said any more. */
  tell(news: Request | RTCError): void {
    if (news instanceof RTCError) this.error ??= news;
    else this.request = news;
    if (this.ended || this.error) this.row = null;
    for (const look of this.waiting.splice(0)) look();
  }

  /**
   * Wait until the request is so; it is looked at whenever the agent says something of it.
   *
   * @throws RTCError: it was refused, or the document was closed.
   */
  async until(condition: (request: Request) => boolean): Promise<Request> {
    for (;;) {
      if (this.request?.state === "refused") throw refusal(this.request.reason);
      if (this.request && condition(this.request)) return this.request;
      if (this.error) throw this.error;
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
  }
}

/** Our end of the room. `changed`: rows of these ids came, went or changed. */
export class Desk implements Room {
  readonly name = "requests";
  private readonly changed: (ids: ReadonlySet<string>) => void;
  private readonly tickets = new Map<string, Ticket>();
  private epoch = "";
  private doc = new Y.Doc();
  private rows: Y.Map<unknown> = this.doc.getMap("requests");
  private records = new Map<string, Request>();
  private send: ((data: Uint8Array) => void) | null = null;
  private synced = false;
  private error: RTCError | null = null;

  constructor(changed: (ids: ReadonlySet<string>) => void) {
    this.changed = changed;
  }

  /** What everybody asks for now. */
  get requests(): ReadonlyMap<string, Request> {
    return this.records;
  }

  /**
   * Write a row; columns that are undefined are left out.
   *
   * @throws RTCError: it is larger than any message may be.
   */
  ask(action: string, columns: { [name: string]: unknown }, id: string = makeId()): Ticket {
    const row = clean({ action, created_at: Date.now() / 1000, ...columns }) as JsonObject;
    if (JSON.stringify(row).length > ROW_CHARS) throw refusal("it is larger than a message may be");
    const ticket = new Ticket(id, row);
    if (this.error) {
      ticket.tell(this.error);
      return ticket;
    }
    this.tickets.set(id, ticket);
    if (this.synced) this.write([ticket]);
    return ticket;
  }

  // --- a room

  find(health: Health): string | null {
    return health.requests_epoch;
  }

  open(epoch: string, send: (data: Uint8Array) => void): void {
    if (epoch !== this.epoch) this.begin(epoch);
    this.send = send;
    this.resync();
  }

  receive(message: Message): boolean {
    switch (message.type) {
      case "step1": // behind the answer to ours: what we wrote and it lacks got lost on its way
        this.send?.(writeStep2(Y.encodeStateAsUpdate(this.doc, message.vector)));
        this.catchUp();
        break;
      case "step2":
      case "update":
        this.apply(message.update);
        break;
    }
    return this.synced;
  }

  resync(): void {
    this.send?.(writeStep1(Y.encodeStateVector(this.doc)));
  }

  lose(_trouble: RTCError): void {
    this.synced = false;
    this.send = null;
  }

  fail(error: RTCError): void {
    this.lose(error);
    this.error = error;
    for (const ticket of this.tickets.values()) ticket.tell(error);
    this.tickets.clear();
    this.doc.destroy();
  }

  // ---

  private begin(epoch: string): void {
    const before = new Set(this.records.keys());
    this.doc.destroy();
    this.epoch = epoch;
    this.doc = new Y.Doc();
    this.rows = this.doc.getMap("requests");
    this.records = new Map();
    this.rows.observeDeep((events) => this.note(changedKeys(events)));
    if (before.size > 0) this.changed(before);
  }

  /** The replica is whole: write what it lacks, and look at what became of the rest meanwhile. */
  private catchUp(): void {
    if (this.synced) return;
    this.synced = true;
    this.write([...this.tickets.values()].filter((ticket) => !this.rows.has(ticket.id)));
    for (const id of [...this.tickets.keys()]) this.look(id);
  }

  private apply(update: Uint8Array): void {
    try {
      Y.applyUpdate(this.doc, update);
    } catch (error) {
      this.epoch = ""; // whatever of it was applied is dropped with the replica
      throw malformed("an update that cannot be read", error);
    }
  }

  /** Put rows into the replica, and send what that changed: one update, in the order of the tickets. */
  private write(tickets: readonly Ticket[]): void {
    if (tickets.length === 0) return;
    const before = Y.encodeStateVector(this.doc);
    this.doc.transact(() => {
      for (const { id, row } of tickets) if (row) this.rows.set(id, new Y.Map(Object.entries(row)));
    });
    this.send?.(writeUpdate(Y.encodeStateAsUpdate(this.doc, before)));
  }

  private note(ids: Set<string>): void {
    for (const id of ids) {
      const row = this.rows.get(id);
      if (row === undefined) this.records.delete(id);
      else this.records.set(id, readRequest(id, row));
      this.look(id);
    }
    this.changed(ids);
  }

  private look(id: string): void {
    const ticket = this.tickets.get(id);
    const request = this.records.get(id);
    if (!ticket || !request || request.by === null) return;
    ticket.tell(request);
    if (ticket.ended) this.tickets.delete(id);
  }
}

/** A fresh id of a row. (`crypto.randomUUID` is missing in pages that came over plain HTTP from another host.) */
function makeId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
