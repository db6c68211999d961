/** The history: a card per execution, the newest at the bottom, older ones as the reader scrolls up. */

import type { ComponentType, JSX } from "preact";
import { useEffect, useLayoutEffect } from "preact/hooks";
import { countOf, formatCount } from "./format.ts";
import { VirtualList } from "./list.tsx";
import type { Session } from "./session.ts";

const HEAD_PX = 46;
const LINE_PX = 20;
const GAP_PX = 12;
const CODE_LINES = 16;
const OUTPUT_LINES = 24;

export interface CardProps {
  session: Session;
  id: string;
  position: number;
  total: number;
}

interface HistoryProps {
  session: Session;
  card: ComponentType<CardProps>;
  /** How high a card will be; it is measured when it comes near. Pixels. */
  estimate?: (session: Session, id: string) => number;
}

export function HistoryView({ session, card: Card, estimate = estimateCard }: HistoryProps): JSX.Element {
  const { history, list } = session;
  history.revision.value; // which one runs changes without another list
  const ids = session.shown.value;
  const pager = history.pagerOf(session.filter.value);
  const state = pager.state.value;
  // Of several kernels no one's run is what is followed.
  const isFollowed = session.travel.at.value === null && (!session.isMany || session.filter.value.kernel !== null);
  const running = isFollowed ? ids.findLast((id) => history.get(id)?.state === "running") : undefined;
  useLayoutEffect(() => {
    list.target.value = running ?? null;
    list.stick();
  }, [running]);
  useEffect(() => {
    // A search goes on in the store without being asked: what it finds may all be there.
    if (session.isFiltered && ids.length < 20 && state === "idle") void pager.load();
  }, [session.filter.value, ids.length, state]);
  const before =
    state === "complete" ? null : state === "failed" ? (
      <>
        Older executions could not be read: {pager.problem}{" "}
        <button type="button" class="tool worded" onClick={() => void pager.load()}>
          Try again
        </button>
      </>
    ) : state === "loading" ? (
      "Older executions are being read…"
    ) : (
      <button type="button" class="tool worded" onClick={() => void pager.load()}>
        Show older executions
      </button>
    );
  return (
    <VirtualList
      controller={list}
      keys={ids}
      label="Executions, the newest at the bottom"
      estimate={(index) => estimate(session, ids[index] ?? "")}
      onTop={() => {
        if (pager.state.peek() === "idle") void pager.load();
      }}
      before={before}
      empty={<Empty session={session} searching={state === "loading" || state === "idle"} />}
      render={(id, index) => <Card key={id} session={session} id={id} position={index + 1} total={ids.length} />}
    />
  );
}

const NOBODY_HERE =
  "No kernel is published in this room yet. Those that are, by “%rtc share --relay” or “jupyter rtc run --relay”, show up " +
  "here by themselves.";

function Empty({ session, searching }: { session: Session; searching: boolean }): JSX.Element {
  session.status.value;
  if (session.isFiltered) return <p class="empty">{searching ? "Searching…" : "No execution fits the filter."}</p>;
  if (session.travel.at.value !== null) return <p class="empty">Nothing had run yet at that moment.</p>;
  if (session.doc.status !== "live" && session.doc.liveAt === 0) return <p class="empty">The history is on its way…</p>;
  if (session.room && session.room.kernels.value.length !== 1) {
    const isEmpty = session.room.kernels.value.length === 0;
    return <p class="empty">{isEmpty ? NOBODY_HERE : "Nothing has run in these kernels yet."}</p>;
  }
  return (
    <p class="empty">
      Nothing has run in this kernel yet. What runs, in a notebook, a console or a script, shows up here by itself.
    </p>
  );
}

function estimateCard(session: Session, id: string): number {
  const row = session.history.get(id);
  if (!row) return HEAD_PX + LINE_PX;
  let lines = Math.min(CODE_LINES, row.code.split("\n").length) + 1;
  for (const output of row.outputs) {
    if (output.output_type === "stream") lines += Math.min(OUTPUT_LINES, output.text.length / 80 + 1);
    else lines += output.output_type === "error" ? 12 : 6;
  }
  return HEAD_PX + GAP_PX + Math.round(Math.min(80, lines) * LINE_PX);
}

export function countShown(session: Session): string {
  const count = session.shown.value.length;
  const { pager } = session.history;
  pager.state.value;
  const all = countOf(count, "execution");
  if (session.doc.transport.isLiveOnly && !session.isSearched) return all;
  return session.isFiltered ? `${formatCount(count)} found` : pager.isComplete ? all : `${all}, older ones above`;
}
