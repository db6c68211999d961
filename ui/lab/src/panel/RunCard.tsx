/** What does one execution look like in the panel? */

import { announce } from "@rtc-kernel/viewer/announce.ts";
import { isOpen, originOf, STATE_WORDS, whoAsked } from "@rtc-kernel/viewer/executions.ts";
import { formatExact, formatMachine, formatTime } from "@rtc-kernel/viewer/format.ts";
import type { CardProps } from "@rtc-kernel/viewer/HistoryView.tsx";
import { Icon } from "@rtc-kernel/viewer/icons.tsx";
import { act, Asked, CardCode, copy, Details, Outputs, Took, useRecord } from "@rtc-kernel/viewer/parts.tsx";
import type { Session } from "@rtc-kernel/viewer/session.ts";
import { StateMark } from "@rtc-kernel/viewer/shapes.tsx";
import { failure } from "@rtc-kernel/viewer/summary.ts";
import type { Execution } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { PanelEnv, Trans } from "./env.ts";
import { type Excerpt, excerptOf, type Kind } from "./excerpt.ts";

/** Go to the cell of an execution, and say so where there is none. */
export function reveal(env: PanelEnv, execution: Execution): void {
  if (env.reveal(execution)) return;
  const { __ } = env.trans;
  announce(
    execution.cell === null
      ? __("This ran without a cell: in a console or a script")
      : __("Its cell is in no notebook that is open here"),
    true,
  );
}

export function RunCard({ env, session, id, position, total }: CardProps & { env: PanelEnv }): JSX.Element | null {
  const { history, list } = session;
  const execution = useRecord(session, id);
  if (!execution) return null;
  const isFocused = list.focused.value === id;
  const isTravelling = session.travel.at.value !== null;
  const who = whoAsked(execution);
  const word = STATE_WORDS[execution.state].word;
  const hasError = execution.error && execution.state === "error";
  return (
    <article
      class={`card ${session.target.value === id ? "target" : ""}`}
      data-state={execution.state}
      data-execution={id}
      data-row-focus
      tabIndex={isFocused || (list.focused.value === null && position === total) ? 0 : -1}
      aria-label={`Execution ${execution.execution_count ?? ""} ${word}${who === null ? "" : `, by ${who}`}`}
      aria-posinset={position}
      aria-setsize={total}
      onFocus={() => {
        list.focused.value = id;
      }}
      onKeyDown={(event) => {
        if (event.target !== event.currentTarget || event.key !== "Enter") return;
        event.preventDefault();
        reveal(env, execution);
      }}
    >
      <Head env={env} session={session} execution={execution} />
      <div class="goes" onClick={(event) => clickOnCode(event, () => reveal(env, execution))}>
        <CardCode session={session} execution={execution} />
      </div>
      {hasError ? <p class="why">{failure(execution)}</p> : null}
      {execution.state === "aborted" || execution.state === "lost" ? (
        <p class="why">{STATE_WORDS[execution.state].says}</p>
      ) : null}
      {history.isWhole(id) || isTravelling ? (
        <Fold env={env} session={session} execution={execution} isLatest={position === total} />
      ) : (
        <p class="pending">
          {history.isMissing(id)
            ? env.trans.__("Its outputs are not in the history any more.")
            : env.trans.__("Outputs are being read…")}
        </p>
      )}
      {execution.input ? <Asked session={session} execution={execution} question={execution.input} /> : null}
    </article>
  );
}

/** Who marks text, or folds and opens, does not mean to leave. */
function clickOnCode(event: MouseEvent, go: () => void): void {
  const target = event.target as HTMLElement;
  const root = target.getRootNode() as ShadowRoot & { getSelection?: () => Selection | null };
  const selection = root.getSelection?.() ?? document.getSelection();
  if (target.closest("button, a") === null && (selection?.isCollapsed ?? true)) go();
}

function Head({ env, session, execution }: { env: PanelEnv; session: Session; execution: Execution }): JSX.Element {
  const { __ } = env.trans;
  const [open, setOpen] = useState(false);
  const origin = originOf(execution, session.cellNumbers.value);
  const who = whoAsked(execution);
  const at = execution.started_at ?? execution.queued_at;
  const mayAct = session.mayRun.value && session.travel.at.value === null;
  return (
    <header class="head">
      <StateMark state={execution.state} asks={execution.input !== null} />
      <span class="count" title={__("The number that the kernel gave it")}>
        [{execution.execution_count ?? (isOpen(execution) ? "*" : " ")}]
      </span>
      <Took session={session} execution={execution} />
      {at === null ? null : (
        <time class="when" dateTime={formatMachine(at)} title={formatExact(at)}>
          {formatTime(at)}
        </time>
      )}
      <span class="tools">
        {mayAct && execution.state === "running" ? (
          <button
            type="button"
            class="tool"
            aria-label={__("Interrupt")}
            title={__("Interrupt")}
            onClick={() => void act(session.doc.interrupt(execution.id), __("Interrupted"))}
          >
            <Icon name="stop" />
          </button>
        ) : null}
        {mayAct && execution.state === "queued" && execution.request ? (
          <button
            type="button"
            class="tool"
            aria-label={__("Take it back")}
            title={__("Take it back")}
            onClick={() => void act(session.doc.cancel(execution.request ?? ""), __("Taken back"))}
          >
            <Icon name="close" />
          </button>
        ) : null}
        <button
          type="button"
          class="tool"
          aria-label={__("Copy the code")}
          title={__("Copy the code")}
          disabled={execution.private}
          onClick={() => void copy(execution.code, __("The code is copied"))}
        >
          <Icon name="copy" />
        </button>
        <button
          type="button"
          class="tool"
          aria-label={__("Details")}
          title={__("Details")}
          aria-expanded={open}
          onClick={() => setOpen(!open)}
        >
          <Icon name="more" />
        </button>
      </span>
      <span class="who">
        {who === null ? null : <>{who} · </>}
        {execution.cell === null ? (
          <span title={origin.title}>{__("no cell: %1", origin.text)}</span>
        ) : (
          <button type="button" class="go" title={origin.title} onClick={() => reveal(env, execution)}>
            {__("Go to the cell")}
          </button>
        )}
      </span>
      {open ? <Details execution={execution} title={origin.title} /> : null}
    </header>
  );
}

interface FoldProps {
  env: PanelEnv;
  session: Session;
  execution: Execution;
  isLatest: boolean;
}

/** The outputs, which are in the notebook already: folded, except for the latest that is not. */
function Fold({ env, session, execution, isLatest }: FoldProps): JSX.Element | null {
  const [chosen, choose] = useState<boolean | null>(null);
  if (execution.private || (execution.outputs.length === 0 && !execution.omitted_outputs)) return null;
  const isShown = chosen ?? (isLatest && execution.cell === null);
  const excerpt = excerptOf(execution);
  return (
    <>
      <button type="button" class="fold outputs-fold" aria-expanded={isShown} onClick={() => choose(!isShown)}>
        <Icon name={isShown ? "open" : "folded"} />
        <span class="kinds">{kindsOf(excerpt, env.trans)}</span>
        {isShown ? null : <code>{excerpt.first}</code>}
      </button>
      {isShown ? <Outputs session={session} execution={execution} /> : null}
    </>
  );
}

function kindsOf({ kinds }: Excerpt, { __, _n }: Trans): string {
  const words: Record<Kind, (count: number) => string> = {
    lines: (count) => _n("%1 line", "%1 lines", count, count),
    error: () => __("traceback"),
    image: (count) => _n("image", "%1 images", count, count),
    html: () => __("HTML"),
    table: (count) => _n("table", "%1 tables", count, count),
    markdown: () => __("text"),
    widget: (count) => _n("widget", "%1 widgets", count, count),
    plot: (count) => _n("plot", "%1 plots", count, count),
    output: (count) => _n("%1 output", "%1 outputs", count, count),
  };
  return kinds.map(([kind, count]) => words[kind](count)).join(", ");
}
