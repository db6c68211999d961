// What happened in this kernel, live: follows the `state` document and shows its executions, newest first.
//
// Data reach the page only as text nodes and as the source of images; nothing is parsed as HTML.
// All URLs are relative to the page, so it works under /proxy/PORT/ too.

import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

type Row = Y.Map<unknown>;
type Level = "ok" | "warn" | "bad";

const base = new URL(".", location.href);
const rooms = new URL("rooms", base);
rooms.protocol = base.protocol === "https:" ? "wss:" : "ws:";

const END_STATES = new Set(["ok", "error", "aborted", "lost", "cancelled"]);
const ANSI = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;

// --- elements

function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  text = "",
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function find(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

const list = find("executions");
const empty = find("empty");
const banner = find("banner");
const notes = find("notes");

function showBanner(text: string, level: Level = "warn"): void {
  banner.textContent = text;
  banner.className = level;
  banner.hidden = text === "";
}

// --- values

const plain = (text: string): string => text.replace(ANSI, "");
const asText = (value: unknown): string => (value instanceof Y.Text ? value.toString() : String(value ?? ""));
const asNumber = (value: unknown): number | null => (typeof value === "number" ? value : null);
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function formatBytes(count: number): string {
  if (count < 1024) return `${count} B`;
  return count < 1 << 20 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / (1 << 20)).toFixed(1)} MiB`;
}

function formatDuration(seconds: number): string {
  if (seconds < 0) return "";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.floor(seconds);
  const pad = (value: number): string => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return hours
    ? `${hours}:${pad(Math.floor(whole / 60) % 60)}:${pad(whole % 60)} h`
    : `${Math.floor(whole / 60)}:${pad(whole % 60)} min`;
}

function formatTime(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString();
}

// --- outputs

/** The address of a value that was too large for its row. */
function blobUrl(value: unknown): string | null {
  const digest = isObject(value) && typeof value.blob === "string" ? /^sha256:([0-9a-f]{64})$/.exec(value.blob) : null;
  return digest ? new URL(`blobs/${digest[1]}`, base).href : null;
}

/** A stream: one text node per segment, so that an append touches one node. */
class StreamView {
  readonly element = make("pre", "output stream");
  private readonly nodes: Text[] = [];
  private readonly gap = make("span", "gap");

  constructor(private readonly row: Row) {
    if (row.get("name") === "stderr") this.element.classList.add("stderr");
    this.update(null);
  }

  update(segment: number | null): void {
    const segments = this.row.get("text");
    if (!(segments instanceof Y.Array)) return;
    while (this.nodes.length > segments.length) this.nodes.pop()?.remove();
    const from = segment ?? 0;
    const to = segment === null ? segments.length : segment + 1;
    for (let at = from; at < to && at < segments.length; at++) {
      let node = this.nodes[at];
      if (!node) {
        node = document.createTextNode("");
        this.nodes[at] = node;
        this.element.append(node);
      }
      const text = plain(asText(segments.get(at)));
      if (node.data !== text) node.data = text;
    }
    this.showGap();
  }

  /** What is left out in the middle of a long text, in its place. */
  private showGap(): void {
    const [count, at] = [asNumber(this.row.get("omitted_bytes")), asNumber(this.row.get("omitted_segment"))];
    if (!count || at === null) {
      this.gap.remove();
      return;
    }
    this.gap.textContent = `\n… ${formatBytes(count)} left out here; the history has them\n`;
    const next = this.nodes[at] ?? null;
    if (this.gap.parentNode !== this.element || this.gap.nextSibling !== next) this.element.insertBefore(this.gap, next);
  }
}

function viewImage(type: string, value: unknown): HTMLElement | null {
  const source = blobUrl(value) ?? (typeof value === "string" ? `data:${type};base64,${value.replace(/\s/g, "")}` : null);
  if (source === null) return null;
  const box = make("div", "output");
  const image = make("img");
  image.alt = type;
  image.src = source;
  box.append(image);
  return box;
}

function viewText(value: unknown): HTMLElement | null {
  const url = blobUrl(value);
  if (url !== null && isObject(value)) {
    const box = make("pre", "output", value.preview ? `${plain(String(value.preview))}…\n` : "");
    const link = make("a", "", `all of it (${formatBytes(asNumber(value.bytes) ?? 0)})`);
    link.href = url;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    box.append(link);
    return box;
  }
  return typeof value === "string" ? make("pre", "output", plain(value)) : null;
}

function viewOutput(row: Row): HTMLElement {
  if (row.get("output_type") === "error") {
    const traceback = row.get("traceback");
    const lines = Array.isArray(traceback) ? traceback.map(String) : [];
    const short = `${asText(row.get("ename"))}: ${asText(row.get("evalue"))}`;
    return make("pre", "output error", plain(lines.length ? lines.join("\n") : short));
  }
  const data = row.get("data");
  const values = isObject(data) ? data : {};
  for (const type of ["image/png", "image/jpeg"]) {
    const view = type in values ? viewImage(type, values[type]) : null;
    if (view) return view;
  }
  const text = viewText(values["text/plain"]) ?? viewText(values["text/markdown"]);
  return text ?? make("p", "output other", `output of type ${Object.keys(values).join(", ") || "none"}`);
}

// --- executions

class ExecutionView {
  readonly element = make("li");
  private readonly article = make("article");
  private readonly count = make("span", "count");
  private readonly state = make("span", "state");
  private readonly who = make("span", "who");
  private readonly time = make("span", "time");
  private readonly code = make("pre", "code");
  private readonly asked = make("p", "asked");
  private readonly outputs = make("div", "outputs");
  private streams: (StreamView | null)[] = [];

  constructor(private row: Row) {
    const head = make("header");
    head.append(this.count, this.state, this.who, this.time);
    this.article.append(head, this.code, this.asked, this.outputs);
    this.element.append(this.article);
    this.reset(row);
  }

  get seq(): number {
    return asNumber(this.row.get("seq")) ?? 0;
  }

  reset(row: Row): void {
    this.row = row;
    this.showColumns();
    this.showOutputs();
  }

  showColumns(): void {
    const state = asText(this.row.get("state"));
    const count = asNumber(this.row.get("execution_count"));
    this.count.textContent = `[${count ?? (END_STATES.has(state) ? " " : "*")}]`;
    this.state.textContent = state;
    this.article.dataset.state = state;
    this.who.textContent = asText(this.row.get("submitted_by"));
    this.code.textContent = this.row.get("private") ? "(private)" : asText(this.row.get("code"));
    const omitted = asNumber(this.row.get("omitted_code_bytes"));
    if (omitted) this.code.append(make("span", "gap", `\n… ${formatBytes(omitted)} left out here; the history has them`));
    this.code.classList.toggle("private", this.row.get("private") === true);
    const input = this.row.get("input");
    this.asked.hidden = !isObject(input);
    this.asked.textContent = isObject(input) ? `somebody is asked: ${asText(input.prompt)}` : "";
    this.tick(Date.now() / 1000);
  }

  tick(now: number): void {
    const queued = asNumber(this.row.get("queued_at"));
    const started = asNumber(this.row.get("started_at"));
    const finished = asNumber(this.row.get("finished_at"));
    const running = this.row.get("state") === "running";
    const parts: string[] = [];
    const first = started ?? queued;
    if (first !== null) parts.push(formatTime(first));
    if (started !== null && (finished !== null || running)) {
      parts.push(formatDuration(Math.max(0, (finished ?? now) - started)));
    }
    const text = parts.join(" · ");
    if (this.time.textContent !== text) this.time.textContent = text;
  }

  showOutputs(): void {
    const outputs = this.row.get("outputs");
    this.streams = [];
    const views: HTMLElement[] = [];
    for (const output of outputs instanceof Y.Array ? (outputs.toArray() as Row[]) : []) {
      const stream = output.get("output_type") === "stream" ? new StreamView(output) : null;
      this.streams.push(stream);
      views.push(stream ? stream.element : viewOutput(output));
    }
    const omitted = asNumber(this.row.get("omitted_outputs"));
    if (omitted) {
      const note = make("p", "output gap", `… ${omitted} outputs left out here; the history has them`);
      views.splice(Math.floor(views.length / 2), 0, note);
    }
    this.outputs.replaceChildren(...views);
  }

  /** Text of one stream changed. Segment null: segments came or went. */
  showStream(position: number, segment: number | null): void {
    this.streams[position]?.update(segment);
  }
}

// --- one life of the document

const isGap = (column: string): boolean => column.startsWith("omitted_");

/** What must be drawn anew of one execution: everything, its columns, its outputs, or segments of its streams. */
interface Dirty {
  columns: boolean;
  outputs: boolean;
  streams: Map<string, [number, number | null]>;
}

class Page {
  private readonly doc = new Y.Doc();
  private readonly executions = this.doc.getMap<Row>("executions");
  private readonly kernels = this.doc.getMap<Row>("kernels");
  private readonly meta = this.doc.getMap<unknown>("meta");
  private readonly views = new Map<string, ExecutionView>();
  private readonly dirty = new Map<string, Dirty | "row">();
  private readonly provider: WebsocketProvider;
  private readonly ticker: number;
  private frame = 0;

  constructor(
    room: string,
    epoch: string,
    private readonly kernel: string,
    again: () => void,
  ) {
    list.replaceChildren();
    this.executions.observeDeep((events) => this.note(events));
    for (const table of [this.kernels, this.meta]) table.observeDeep(() => this.schedule());
    this.ticker = window.setInterval(() => this.tick(), 500);
    this.provider = new WebsocketProvider(rooms.href, room, this.doc, { disableBc: true, params: { epoch } });
    this.provider.on("status", ({ status }) => {
      if (status === "disconnected" && this.provider.shouldConnect) {
        showBanner("The connection is gone. What you see may be old; trying again…");
      }
    });
    this.provider.on("sync", (synced: boolean) => {
      if (!synced) return;
      showBanner("");
      this.schedule();
    });
    this.provider.on("closed", ({ code, reason }) => {
      this.destroy();
      if (code === 4409) again();
      else showBanner(reason || `The connection was closed (${code}).`, "bad");
    });
    this.schedule();
  }

  private destroy(): void {
    this.provider.destroy();
    window.clearInterval(this.ticker);
    window.clearTimeout(this.frame);
  }

  private note(events: Y.YEvent<Y.AbstractType<unknown>>[]): void {
    for (const event of events) {
      const [id, , position, part, segment] = event.path;
      if (id === undefined) {
        for (const key of event.changes.keys.keys()) this.dirty.set(key, "row");
        continue;
      }
      const known = this.dirty.get(String(id));
      if (known === "row") continue;
      const dirty = known ?? { columns: false, outputs: false, streams: new Map() };
      this.dirty.set(String(id), dirty);
      if (event.path.length === 1) dirty.columns = true;
      else if (part === "text" && typeof position === "number") {
        const at = typeof segment === "number" ? segment : null;
        dirty.streams.set(`${position} ${at}`, [position, at]);
      } else if (typeof position === "number" && event.path.length === 3 && [...event.changes.keys.keys()].every(isGap)) {
        dirty.streams.set(`${position} null`, [position, null]);
      } else if (event.path[1] === "outputs") dirty.outputs = true;
    }
    this.schedule();
  }

  private schedule(): void {
    if (!this.frame) this.frame = window.setTimeout(() => this.draw(), 16);
  }

  private draw(): void {
    this.frame = 0;
    const follows = window.scrollY < 80;
    for (const [id, dirty] of this.dirty) this.drawExecution(id, dirty);
    this.dirty.clear();
    empty.hidden = this.views.size > 0 || !this.provider.synced;
    this.drawKernel();
    if (follows) window.scrollTo({ top: 0 });
  }

  private drawExecution(id: string, dirty: Dirty | "row"): void {
    const row = this.executions.get(id);
    let view = this.views.get(id);
    if (!row) {
      view?.element.remove();
      this.views.delete(id);
    } else if (!view) {
      view = new ExecutionView(row);
      this.views.set(id, view);
      this.place(view);
    } else if (dirty === "row") {
      view.reset(row);
    } else {
      if (dirty.columns) view.showColumns();
      if (dirty.outputs) view.showOutputs();
      else for (const [position, segment] of dirty.streams.values()) view.showStream(position, segment);
    }
  }

  /** Newest first; a new row nearly always goes to the top. */
  private place(view: ExecutionView): void {
    view.element.dataset.seq = String(view.seq);
    let before = list.firstElementChild as HTMLElement | null;
    while (before && Number(before.dataset.seq) > view.seq) before = before.nextElementSibling as HTMLElement | null;
    list.insertBefore(view.element, before);
  }

  private drawKernel(): void {
    const row = this.kernels.get(this.kernel);
    const state = row ? asText(row.get("state")) : "";
    const name = row ? asText(row.get("display_name") || row.get("name")) : "";
    find("kernel").textContent = name || "Kernel";
    find("kernel-state").textContent = state;
    find("kernel-state").dataset.state = state;
    find("notebook").textContent = row ? asText(row.get("notebook")) : "";
    document.title = `${state ? `${state} · ` : ""}${name || "Kernel"}`;
    const said: HTMLElement[] = [];
    const note = (text: string, level: Level): number => said.push(make("p", level, text));
    if (state === "dead") {
      const code = row ? asNumber(row.get("exit_code")) : null;
      note(code === null ? "The kernel is dead." : `The kernel is dead (exit code ${code}).`, "bad");
    }
    const health = this.meta.get("health");
    const status = isObject(health) ? asText(health.status) : asText(health);
    const reason = isObject(health) ? asText(health.reason) : asText(this.meta.get("reason"));
    if (status && status !== "ok") note(`The recording is ${status}${reason ? `: ${reason}` : "."}`, "warn");
    const gaps = this.meta.get("gap");
    const gap = Array.isArray(gaps) ? gaps[gaps.length - 1] : gaps;
    if (isObject(gap)) {
      const [since, until] = [asNumber(gap.since), asNumber(gap.until)];
      const when = since !== null ? ` from ${formatTime(since)}${until !== null ? ` to ${formatTime(until)}` : ""}` : "";
      note(`There is a gap in the recording${when}: some outputs may be missing.`, "warn");
    } else if (gap) note(`There is a gap in the recording: ${asText(gap)}`, "warn");
    if (this.meta.get("coverage") === "iopub-only") note("Only what the kernel broadcasts is recorded.", "warn");
    notes.replaceChildren(...said);
  }

  private tick(): void {
    const now = Date.now() / 1000;
    for (const view of this.views.values()) view.tick(now);
  }
}

// --- start

async function start(): Promise<void> {
  let health: Record<string, unknown>;
  try {
    const answer = await fetch(new URL("api/health", base));
    health = (await answer.json()) as Record<string, unknown>;
  } catch {
    showBanner("The kernel's agent does not answer; trying again…");
    window.setTimeout(() => void start(), 2000);
    return;
  }
  if (typeof health.room !== "string" || typeof health.epoch !== "string") {
    showBanner("The link is missing, wrong or expired: ask for a new one (%rtc share).", "bad");
    return;
  }
  new Page(health.room, health.epoch, health.room.replace(/\/state$/, ""), () => {
    showBanner("The recording began a new life; syncing again…");
    window.setTimeout(() => void start(), 300);
  });
}

void start();
