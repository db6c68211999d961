/**
 * What does this page show of which kernel?
 *
 * The state that components share: the document, the history, the moment, the filter, what is looked at. It knows no
 * element.
 */

import { computed, effect, signal } from "@preact/signals";
import type { Cell, LiveDocument } from "@rtc-kernel/client";
import { noteTime, setTicking } from "./clock.ts";
import { hasEndedWell, isOpen, numberCells } from "./executions.ts";
import { isActive, NO_FILTER, type Filter } from "./filters.ts";
import { History } from "./history.ts";
import { ListController } from "./list.tsx";
import type { Place } from "./place.ts";
import { Travel } from "./travel.ts";

export type View = "history" | "notebook";

export class Session {
  readonly history: History;
  readonly travel: Travel;
  readonly filter = signal<Filter>(NO_FILTER);
  readonly view = signal<View>("history");
  /** Moves when the connection, the role or the health is other. */
  readonly status = signal(0);
  readonly requests = signal(0);
  /** The execution that the reader has opened. */
  readonly target = signal<string | null>(null);
  readonly problem = signal<string | null>(null);
  readonly list = new ListController("end");
  readonly notebookList = new ListController("start");
  /** Where text is searched for; null while it is not there. */
  searchBox: { focus(): void } | null = null;

  private introducedAs: string | null = null;
  private readonly ends: (() => void)[];

  /** Cells of a headless run in their order; empty otherwise. */
  readonly cells = signal<readonly Cell[]>([]);
  readonly cellsById = computed(() => new Map(this.cells.value.map((cell) => [cell.id, cell])));
  readonly cellNumbers = computed(() => numberCells(this.cells.value));
  /** Ids in the list: what the filter and the moment let through. */
  readonly shown = computed(() => {
    this.history.revision.value;
    const ids = this.history.select(this.filter.value);
    const at = this.travel.at.value;
    return at === null ? ids : this.travel.present(ids, at);
  });
  readonly mayRun = computed(() => {
    this.status.value;
    return this.doc.role !== "view";
  });

  /** The kernel is not there any more, and that is as it should be. */
  readonly isOver = computed(() => {
    this.status.value;
    this.history.revision.value;
    const { kernel, executions } = this.doc;
    return kernel !== null && hasEndedWell(kernel, executions.values(), this.cells.value.length > 0);
  });

  constructor(
    readonly doc: LiveDocument,
    readonly place: Place,
  ) {
    this.history = new History(doc);
    this.travel = new Travel(this.history);
    this.cells.value = doc.cells.toSorted((one, other) => one.index - other.index);
    this.ends = [
      () => this.history.dispose(),
      doc.onStatus(() => {
        this.status.value++;
        this.introduce();
      }),
      doc.onChange((change) => {
        if (change.reset || change.cells) {
          this.cells.value = doc.cells.toSorted((one, other) => one.index - other.index);
        }
        if (change.reset || change.kernels || change.meta) this.status.value++;
        if (change.reset || change.requests.size > 0) this.requests.value++;
        if (!change.reset) this.noteTimes(change.executions.keys());
      }),
      effect(() => {
        this.history.revision.value;
        this.status.value;
        setTicking(this.travel.at.value === null && [...doc.executions.values()].some(isOpen));
      }),
      () => setTicking(false),
      () => this.travel.pause(),
    ];
  }

  /** Follow the document no longer; the document itself goes on. */
  dispose(): void {
    for (const end of this.ends) end();
  }

  get isFiltered(): boolean {
    return isActive(this.filter.value);
  }

  setFilter(change: Partial<Filter>): void {
    this.filter.value = { ...this.filter.peek(), ...change };
  }

  /** Bring an execution into view. */
  async open(id: string, options: { focus?: boolean } = {}): Promise<void> {
    const row = await this.history.find(id);
    if (row === null) {
      this.problem.value =
        "The execution that was asked for is not in the history: it was removed, or its address is incomplete.";
      return;
    }
    this.problem.value = null;
    this.target.value = row.id;
    this.place.note(row.id);
    const inNotebook = this.view.peek() === "notebook" && row.cell !== null && this.cellsById.peek().has(row.cell);
    if (inNotebook && row.cell !== null) {
      this.notebookList.reveal(row.cell, options.focus ?? true);
      return;
    }
    this.view.value = "history";
    const at = this.travel.at.peek();
    if (at !== null && (row.queued_at ?? row.started_at ?? 0) > at) this.travel.live();
    await this.history.reach(row.seq);
    if (!this.shown.peek().includes(row.id)) this.filter.value = NO_FILTER;
    this.list.reveal(row.id, options.focus ?? true);
  }

  /** Others see that somebody with this link looks, and where. */
  private introduce(): void {
    const { name, role, status } = this.doc;
    if (status !== "live" || name === this.introducedAs) return;
    this.introducedAs = name;
    this.doc.setPresence({ name, role });
  }

  private noteTimes(ids: Iterable<string>): void {
    for (const id of ids) {
      const row = this.doc.executions.get(id);
      const at = row && (row.finished_at ?? row.started_at ?? row.queued_at);
      if (at) noteTime(at);
    }
  }
}
