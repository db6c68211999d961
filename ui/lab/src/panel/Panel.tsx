/** The panel of one kernel's document. */

import { announceStates } from "@rtc-kernel/viewer/announce.ts";
import { Banners } from "@rtc-kernel/viewer/Banners.tsx";
import { now } from "@rtc-kernel/viewer/clock.ts";
import { Filters } from "@rtc-kernel/viewer/Filters.tsx";
import { type CardProps, HistoryView } from "@rtc-kernel/viewer/HistoryView.tsx";
import { Icon } from "@rtc-kernel/viewer/icons.tsx";
import { Said } from "@rtc-kernel/viewer/parts.tsx";
import { listDeeds, press } from "@rtc-kernel/viewer/press.ts";
import type { Session } from "@rtc-kernel/viewer/session.ts";
import { KernelMark } from "@rtc-kernel/viewer/shapes.tsx";
import { describe } from "@rtc-kernel/viewer/summary.ts";
import { Timeline } from "@rtc-kernel/viewer/timeline/Timeline.tsx";
import type { ReadonlySignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo } from "preact/hooks";
import type { PanelEnv } from "./env.ts";
import { useChoices } from "./choices.ts";
import { People } from "./People.tsx";
import { Queue } from "./Queue.tsx";
import { RunCard } from "./RunCard.tsx";
import { openShare } from "./Share.tsx";

const HEAD_PX = 56;
const LINE_PX = 17;
const GAP_PX = 8;
const CODE_LINES = 16;
const FOLD_PX = 26;

/** What is known of the kernel beside its document. */
export interface Kernel {
  /** Of its notebook or console. */
  readonly name: string;
  /** What is to be known of it; null: the document says it all. */
  readonly note: string | null;
  /** There is nothing more to come. */
  readonly isOver: boolean;
}

interface PanelProps {
  env: PanelEnv;
  session: Session;
  kernel: ReadonlySignal<Kernel>;
}

export function Panel({ env, session, kernel }: PanelProps): JSX.Element {
  const { trans } = env;
  useEffect(() => announceStates(session.doc), [session]);
  const card = useMemo(
    () =>
      function BoundCard(props: CardProps): JSX.Element {
        return <RunCard env={env} {...props} />;
      },
    [env],
  );
  const isPast = session.travel.at.value !== null;
  const { note } = kernel.value;
  const { showTimeline } = useChoices(env);
  return (
    <div class={`panel ${isPast ? "past" : ""}`} onKeyDown={(event) => pressInPanel(env, session, event)}>
      <Header env={env} session={session} kernel={kernel} />
      {note === null ? (
        <Banners session={session} />
      ) : (
        <p class="banner" role="status">
          {note}
        </p>
      )}
      <People env={env} />
      <Queue env={env} />
      {showTimeline ? <Timeline session={session} /> : null}
      <div class="runs">
        <div class="bar" data-filtered={session.isFiltered}>
          <Filters session={session} />
        </div>
        <div class="port">
          <HistoryView session={session} card={card} estimate={estimate} />
          {session.list.following.value || session.shown.value.length === 0 ? null : (
            <button type="button" class="follow" onClick={() => session.list.follow()}>
              <Icon name="down" />
              {session.list.target.value === null ? trans.__("To the newest") : trans.__("Follow what runs")}
            </button>
          )}
        </div>
      </div>
      <Said />
    </div>
  );
}

function Header({ env, session, kernel }: PanelProps): JSX.Element {
  const { trans } = env;
  session.status.value;
  const state = session.doc.kernel;
  const { name, isOver } = kernel.value;
  return (
    <div class="top">
      <div class="title">
        <h2 title={state?.display_name ?? name}>{name}</h2>
        {state ? <KernelMark state={state.state} isOver={isOver || session.isOver.value} /> : null}
        <span class="tools">
          <button
            type="button"
            class="tool"
            aria-pressed={useChoices(env).showTimeline}
            aria-label={trans.__("Timeline")}
            title={trans.__("Timeline")}
            onClick={() => toggleTimeline(env)}
          >
            <Icon name="chart" />
          </button>
          <button
            type="button"
            class="tool"
            aria-label={trans.__("Share")}
            title={trans.__("Share")}
            onClick={() => openShare(env)}
          >
            <Icon name="share" />
          </button>
        </span>
      </div>
      <Now session={session} />
    </div>
  );
}

function toggleTimeline({ settings }: PanelEnv): void {
  settings.set("showTimeline", !settings.values.showTimeline);
}

/** One sentence of what goes on. */
function Now({ session }: { session: Session }): JSX.Element | null {
  session.history.revision.value;
  session.status.value;
  if (session.travel.at.value !== null || session.doc.meta === null) return null;
  const rows = session.history.executions();
  const isTicking = rows.some((row) => row.state === "running");
  const kernel = session.isOver.value ? null : session.doc.kernel;
  const { tone, text, behind, target } = describe(kernel, rows, isTicking ? now.value : 0);
  return (
    <p class="now" data-tone={tone}>
      {target ? (
        <button type="button" onClick={() => void session.open(target)}>
          {text}
        </button>
      ) : (
        text
      )}
      {behind ? <span class="dim">{behind}</span> : null}
    </p>
  );
}

/** Letters are commands only here, and only while nothing is typed; nothing of JupyterLab's hears of them. */
function pressInPanel(env: PanelEnv, session: Session, event: KeyboardEvent): void {
  const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
  const isSearch = event.target === session.searchBox;
  press(session, event, {
    ...listDeeds(session.list),
    t: () => toggleTimeline(env),
    "/": () => session.searchBox?.focus(),
  });
  if (event.key === "Escape" && isSearch) session.list.element?.focus({ preventScroll: true });
  if (isPlain && event.key.length === 1) event.stopPropagation();
}

/** How high a card will be. Pixels. */
function estimate(session: Session, id: string): number {
  const row = session.history.get(id);
  if (!row) return HEAD_PX + LINE_PX;
  const lines = Math.min(CODE_LINES, row.code.split("\n").length) + 1;
  return HEAD_PX + GAP_PX + lines * LINE_PX + (row.outputs.length > 0 ? FOLD_PX : 0);
}
