/**
 * What has become of a run that was asked for?
 *
 * A {@link Run} owns nothing: how far its request is says the ticket, and what came of it the document.
 */

import type { Ticket } from "./desk.ts";
import type { LiveDocument } from "./document.ts";
import { refusal } from "./errors.ts";
import type { Execution, Request } from "./records.ts";
import { hasEnded } from "./schema.ts";

export interface RunOptions {
  /** What the run belongs to: the frontend's id of the cell, and the path of its notebook. */
  cell?: string | null;
  notebook?: string | null;
  /** A request that has to end before; when it fails, this one is aborted. */
  after?: Run | string | null;
  /** `coalesce` (unless given): the same cell with the same code that waits or runs is joined. */
  onDuplicate?: "coalesce" | "queue";
  /** When the run fails, what we have asked for meanwhile and was not sent is aborted. True unless given. */
  stopOnError?: boolean;
  /** Whether it may ask for input. True unless given. */
  allowStdin?: boolean;
  /** It leaves no execution behind, and cannot be followed. */
  silent?: boolean;
  userExpressions?: { [name: string]: string };
  /** The request's id, if somebody has to know it beforehand: 1 to 128 printable characters, used once. */
  id?: string;
}

/** A run that was asked for. What others do to it (interrupt, answer) is seen here too. */
export class Run {
  /** The request's id. */
  readonly request: string;
  private readonly document: LiveDocument;
  private readonly ticket: Ticket;
  private readonly isSilent: boolean;

  /** Made by {@link LiveDocument.run}. */
  constructor(document: LiveDocument, ticket: Ticket, isSilent: boolean) {
    this.document = document;
    this.ticket = ticket;
    this.request = ticket.id;
    this.isSilent = isSilent;
  }

  /**
   * The id of the execution that it became, or was joined to.
   *
   * @throws RTCError: it ended without one: it was dropped, or refused.
   */
  async execution(): Promise<string> {
    const waiting = new AbortController();
    try {
      return await Promise.race([this.fromRow(), this.fromTable(waiting.signal)]);
    } finally {
      waiting.abort();
    }
  }

  /**
   * The execution at its end; one that failed is a value too.
   *
   * @throws RTCError: it ended without an execution.
   */
  async ended(): Promise<Execution> {
    const id = await this.execution();
    let isOver = false;
    const over = this.ticket.until(() => this.ticket.ended).finally(() => {
      isOver = true;
      this.document.look();
    });
    over.catch(() => undefined); // told by waitFor
    const find = (): Execution | "gone" | undefined => {
      const row = this.document.executions.get(id);
      if (row) return hasEnded(row) ? row : undefined;
      return isOver && this.document.status === "live" ? "gone" : undefined;
    };
    const found = await this.document.waitFor(find);
    if (found !== "gone") return found;
    const request = await over;
    if (this.isSilent) return silentExecution(id, request);
    return this.document.transport.execution(id);
  }

  /** Take it back, if it was not sent yet. */
  async cancel(): Promise<void> {
    await this.document.cancel(this.request);
  }

  /** Interrupt it, if it runs. */
  async interrupt(): Promise<void> {
    await this.document.interrupt(await this.execution());
  }

  private async fromRow(): Promise<string> {
    const request = await this.ticket.until((one) => one.execution !== null || this.ticket.ended);
    if (request.execution === null) throw refusal(request.reason ?? "it ended without an execution");
    return request.execution;
  }

  /** A row that ended while we were away may be gone; the execution says whose it is. */
  private fromTable(signal: AbortSignal): Promise<string> {
    const find = (): string | undefined => {
      for (const row of this.document.executions.values()) if (row.request === this.request) return row.id;
      return undefined;
    };
    return this.document.waitFor(find, signal);
  }
}

/** A silent run has no row anywhere; its request says how it ended. */
function silentExecution(id: string, request: Request): Execution {
  return {
    id,
    seq: 0,
    kernel: "",
    generation: 0,
    cell: null,
    notebook: null,
    request: request.id,
    code: "",
    execution_count: null,
    submitted_by: request.by ?? "",
    client: "",
    queued_at: null,
    started_at: null,
    finished_at: null,
    state: request.reason ? "error" : "ok",
    error: null,
    input: null,
    private: false,
    metadata: {},
    outputs: [],
    omitted_code_bytes: null,
    omitted_outputs: null,
  };
}
