/** The page. */

import type { JSX } from "preact";
import { lazy, Suspense } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import { announceStates } from "./announce.ts";
import { Banners } from "./Banners.tsx";
import { Card } from "./Card.tsx";
import { Filters } from "./Filters.tsx";
import { Header } from "./Header.tsx";
import { HistoryView } from "./HistoryView.tsx";
import { Icon } from "./icons.tsx";
import { Keys } from "./Keys.tsx";
import type { ListController } from "./list.tsx";
import { NotebookView } from "./NotebookView.tsx";
import { Said } from "./parts.tsx";
import { listDeeds, press } from "./press.ts";
import { timelineShown } from "./preferences.ts";
import type { Session, View } from "./session.ts";
import { Timeline } from "./timeline/Timeline.tsx";

const Prompt = lazy(() => import("./prompt/Prompt.tsx"));

export function App({ session }: { session: Session }): JSX.Element {
  const [keys, setKeys] = useState(false);
  const isHeadless = session.cells.value.length > 0;
  const view = isHeadless ? session.view.value : "history";
  const list = view === "notebook" ? session.notebookList : session.list;
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => pressOnPage(session, event, () => setKeys(true));
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [session]);
  useEffect(() => announceStates(session.doc, (row) => session.whereOf(row)), [session]);
  // What was typed stays while another kernel is looked at, where nothing may be asked for.
  const hasPrompt = useRef(false);
  hasPrompt.current ||= session.mayRun.value;
  return (
    <div class={`page ${session.travel.at.value === null ? "" : "past"}`}>
      <a
        class="skip"
        href="#list"
        onClick={(event) => {
          event.preventDefault();
          list.element?.focus();
        }}
      >
        Skip to the executions
      </a>
      <Header session={session} onKeys={() => setKeys(true)} />
      <Banners session={session} />
      {timelineShown.value === "shown" ? <Timeline session={session} /> : null}
      <main id="list">
        <div class="bar">
          {isHeadless ? <Tabs session={session} view={view} /> : null}
          {view === "history" ? <Filters session={session} /> : null}
        </div>
        <div class="port">
          {view === "notebook" ? <NotebookView session={session} /> : <HistoryView session={session} card={Card} />}
          <FollowButton session={session} list={list} />
        </div>
      </main>
      {hasPrompt.current ? (
        <Suspense fallback={<div class="prompt" />}>
          <Prompt session={session} />
        </Suspense>
      ) : null}
      <Keys open={keys} onClose={() => setKeys(false)} />
      <Said />
    </div>
  );
}

function Tabs({ session, view }: { session: Session; view: View }): JSX.Element {
  const tabs: [View, string][] = [
    ["notebook", "Notebook"],
    ["history", "History"],
  ];
  return (
    <div class="tabs" role="group" aria-label="What is shown">
      {tabs.map(([name, label]) => (
        <button
          key={name}
          type="button"
          aria-pressed={view === name}
          onClick={() => {
            session.view.value = name;
          }}
        >
          {label}
        </button>
      ))}
    </div>
  );
}

function FollowButton({ session, list }: { session: Session; list: ListController }): JSX.Element | null {
  if (list.following.value || session.shown.value.length === 0) return null;
  const running = list.target.value !== null;
  if (list === session.notebookList && !running) return null;
  return (
    <button type="button" class="follow" onClick={() => list.follow()}>
      <Icon name="down" />
      {running ? "Follow what runs" : "To the newest"}
    </button>
  );
}

/** Keys of the whole page. */
function pressOnPage(session: Session, event: KeyboardEvent, onKeys: () => void): void {
  const isNotebook = session.cells.peek().length > 0 && session.view.peek() === "notebook";
  press(session, event, {
    ...listDeeds(isNotebook ? session.notebookList : session.list),
    n: () => {
      if (session.cells.peek().length > 0) session.view.value = isNotebook ? "history" : "notebook";
    },
    t: () => {
      timelineShown.value = timelineShown.peek() === "shown" ? "hidden" : "shown";
    },
    "/": () => session.searchBox?.focus(),
    "?": onKeys,
  });
}
