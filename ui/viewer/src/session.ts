/**
 * What does this page show of which kernel, or of which room's kernels?
 *
 * The state that components share: the document, the history, the moment, the filter, what is looked at. It knows no
 * element.
 */

import { computed, effect, signal } from "@preact/signals";
import type { Cell, Execution } from "@rtc-kernel/client";
import { noteTime, setTicking } from "./clock.ts";
import { hasEndedWell, isOpen, numberCells } from "./executions.ts";
import { isActive, NO_FILTER, type Filter } from "./filters.ts";
import type { Followed } from "./followed.ts";
import { byTime, Gathering } from "./gathering.ts";
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
    const { kernel } = this.doc;
    return kernel !== null && hasEndedWell(kernel, this.window(), this.cells.value.length > 0);
  });

  /** The room, where there is one. */
  readonly room: Gathering | null;

  constructor(
    readonly doc: Followed,
    readonly place: Place,
  ) {
    this.room = doc instanceof Gathering ? doc : null;
    this.history = this.room ? new History(doc, byTime) : new History(doc);
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
      effect(() => this.room?.choose(this.filter.value.kernel)),
      () => setTicking(false),
      () => this.travel.pause(),
    ];
  }

  /** Follow the document no longer; the document itself goes on. */
  dispose(): void {
    for (const end of this.ends) end();
  }

  /** Several kernels are shown, and each card says whose it is. */
  get isMany(): boolean {
    this.status.value;
    return this.room?.isMany ?? false;
  }

  /** There is something to be shown. */
  get isThere(): boolean {
    this.status.value;
    return this.room ? this.room.isSettled : this.doc.meta !== null;
  }

  /** The live executions of the kernel that is looked at; of a room of which none is, of all. */
  window(): Iterable<Execution> {
    const focus = this.room?.focus;
    return focus ? focus.doc.executions.values() : this.doc.executions.values();
  }

  /** All that is known of them. */
  rows(): Execution[] {
    this.status.value;
    const focus = this.room?.focus;
    const rows = this.history.executions();
    return focus ? rows.filter((row) => row.kernel === focus.id) : rows;
  }

  /** Of which kernel an execution is, in words; empty where there is but one. */
  whereOf(execution: Execution): string {
    return this.room && this.isMany ? this.room.label(execution.kernel) : "";
  }

  /** In which language it is. */
  languageOf(execution: Execution): string {
    const kernel = this.room ? this.room.attendee(execution.kernel)?.kernel : this.doc.kernel;
    return kernel?.language ?? "";
  }

  /** Whether something may be done about it. */
  mayAct(execution: Execution): boolean {
    return this.mayRun.value && (!this.room || this.room.focus?.id === execution.kernel);
  }

  get isFiltered(): boolean {
    return isActive(this.filter.value);
  }

  /** By more than by the kernel that is looked at. */
  get isSearched(): boolean {
    return isActive({ ...this.filter.value, kernel: null });
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
    if (!this.shown.peek().includes(row.id)) this.filter.value = { ...NO_FILTER, kernel: this.kernelFor(row) };
    this.list.reveal(row.id, options.focus ?? true);
  }

  /** The kernel that is looked at, if this is one of its. */
  private kernelFor(execution: Execution): string | null {
    const { kernel } = this.filter.peek();
    return kernel === execution.kernel ? kernel : null;
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
