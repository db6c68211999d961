/** What does one execution look like in the panel? */

import { announce } from "@rtc-kernel/viewer/announce.ts";
import { originOf, STATE_WORDS, whoAsked } from "@rtc-kernel/viewer/executions.ts";
import type { CardProps } from "@rtc-kernel/viewer/HistoryView.tsx";
import { Icon, type IconName } from "@rtc-kernel/viewer/icons.tsx";
import { act, Asked, CardCode, copy, Count, Details, Outputs, Took, useRecord, When } from "@rtc-kernel/viewer/parts.tsx";
import type { Session } from "@rtc-kernel/viewer/session.ts";
import { StateMark } from "@rtc-kernel/viewer/shapes.tsx";
import { failure } from "@rtc-kernel/viewer/summary.ts";
import type { Execution, ExecutionState } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { useLayoutEffect, useReducer, useState } from "preact/hooks";
import { useChoices } from "./choices.ts";
import type { PanelEnv, Trans } from "./env.ts";
import { type Excerpt, excerptOf, type Kind } from "./excerpt.ts";

/** Their shape says it, and what stands below it. */
const PLAIN_STATES: ReadonlySet<ExecutionState> = new Set<ExecutionState>(["ok", "error", "running"]);

/** How often the line on a fold is said anew. Milliseconds. */
const FOLD_MS = 300;

/** Go to the cell of an execution, and say so where there is none. */
export function reveal(env: PanelEnv, execution: Execution): void {
  if (env.reveal(execution)) return;
  const { trans } = env;
  announce(
    execution.cell === null
      ? trans.__("This ran without a cell: in a console or a script")
      : trans.__("Its cell is in nothing that is open here"),
    true,
  );
}

export function RunCard({ env, session, id, position, total }: CardProps & { env: PanelEnv }): JSX.Element | null {
  const { history, list } = session;
  const { trans } = env;
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
        <LiveFold env={env} session={session} execution={execution} isLatest={position === total} />
      ) : (
        <p class="pending">
          {history.isMissing(id)
            ? trans.__("Its outputs are not in the history any more.")
            : trans.__("Outputs are being read…")}
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
  const { trans } = env;
  const [open, setOpen] = useState(false);
  const origin = originOf(execution, session.cellNumbers.value);
  const who = whoAsked(execution);
  const at = execution.started_at ?? execution.queued_at;
  const mayAct = session.mayRun.value && session.travel.at.value === null;
  return (
    <header class="head" data-open={open}>
      <span class="facts">
        <StateMark
          state={execution.state}
          asks={execution.input !== null}
          isShort={execution.input === null && PLAIN_STATES.has(execution.state)}
        />
        <Count execution={execution} title={trans.__("The number that the kernel gave it")} />
        <Took session={session} execution={execution} />
        <When at={at} />
        {who === null ? null : <span class="who">{who}</span>}
        {execution.cell === null ? (
          <span class="dim" title={origin.title}>
            {trans.__("no cell, from %1", origin.text)}
          </span>
        ) : null}
      </span>
      <span class="tools">
        {mayAct && execution.state === "running" ? (
          <Tool
            icon="stop"
            label={trans.__("Interrupt")}
            onClick={() => void act(session.doc.interrupt(execution.id), trans.__("Interrupted"))}
          />
        ) : null}
        {mayAct && execution.state === "queued" && execution.request ? (
          <Tool
            icon="close"
            label={trans.__("Take it back")}
            onClick={() => void act(session.doc.cancel(execution.request ?? ""), trans.__("Taken back"))}
          />
        ) : null}
        {execution.cell === null ? null : (
          <Tool icon="go" label={trans.__("Go to the cell")} onClick={() => reveal(env, execution)} />
        )}
        {execution.private ? null : (
          <Tool
            icon="copy"
            label={trans.__("Copy the code")}
            onClick={() => void copy(execution.code, trans.__("The code is copied"))}
          />
        )}
        <Tool icon="more" label={trans.__("Details")} expanded={open} onClick={() => setOpen(!open)} />
      </span>
      {open ? <Details execution={execution} title={origin.title} /> : null}
    </header>
  );
}

interface ToolProps {
  icon: IconName;
  label: string;
  expanded?: boolean;
  onClick: () => void;
}

function Tool({ icon, label, expanded, onClick }: ToolProps): JSX.Element {
  return (
    <button type="button" class="tool" aria-label={label} title={label} aria-expanded={expanded} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}

interface FoldProps {
  env: PanelEnv;
  session: Session;
  execution: Execution;
  isLatest: boolean;
}

/** A fold that says what is behind it while that grows, without its card. */
function LiveFold(props: FoldProps): JSX.Element {
  const { session, execution } = props;
  const { history } = session;
  const { id } = execution;
  const [, again] = useReducer((count: number) => count + 1, 0);
  useLayoutEffect(() => {
    let timer: number | undefined;
    let hasAny = false;
    const stop = history.onRow(id, (row, change) => {
      if (change?.kind !== "changed" || change.columns) return; // the card is drawn anew
      const wait = hasAny ? FOLD_MS : 0;
      hasAny ||= row.outputs.length > 0;
      timer ??= window.setTimeout(() => {
        timer = undefined;
        again(null);
      }, wait);
    });
    return () => {
      stop();
      window.clearTimeout(timer);
    };
  }, [history, id]);
  const row = session.travel.at.value === null ? (history.get(id) ?? execution) : execution;
  return <Fold {...props} execution={row} />;
}

const folds = new WeakMap<Session, Map<string, boolean>>();

/** What the reader has opened and closed, which outlasts a card that is scrolled away. */
function openedIn(session: Session): Map<string, boolean> {
  let opened = folds.get(session);
  if (opened === undefined) folds.set(session, (opened = new Map()));
  return opened;
}

/** The outputs, which are in the notebook already: folded, except for the latest that is not. */
function Fold({ env, session, execution, isLatest }: FoldProps): JSX.Element | null {
  const { foldOutputs } = useChoices(env);
  const [, again] = useReducer((count: number) => count + 1, 0);
  if (execution.private || (execution.outputs.length === 0 && !execution.omitted_outputs)) return null;
  const opened = openedIn(session);
  const isShown = opened.get(execution.id) ?? (!foldOutputs || (isLatest && execution.cell === null));
  const toggle = (): void => {
    opened.set(execution.id, !isShown);
    again(null);
  };
  const excerpt = excerptOf(execution);
  return (
    <>
      <button type="button" class="fold outputs-fold" aria-expanded={isShown} onClick={toggle}>
        <Icon name={isShown ? "open" : "folded"} />
        <span class="kinds">{kindsOf(excerpt, env.trans)}</span>
        {isShown ? null : <code>{excerpt.first}</code>}
      </button>
      {isShown ? <Outputs session={session} execution={execution} /> : null}
    </>
  );
}

function kindsOf({ kinds }: Excerpt, trans: Trans): string {
  const words: Record<Kind, (count: number) => string> = {
    lines: (count) => trans._n("%1 line", "%1 lines", count, count),
    error: () => trans.__("traceback"),
    image: (count) => trans._n("image", "%1 images", count, count),
    html: () => trans.__("HTML"),
    table: (count) => trans._n("table", "%1 tables", count, count),
    markdown: () => trans.__("text"),
    widget: (count) => trans._n("widget", "%1 widgets", count, count),
    plot: (count) => trans._n("plot", "%1 plots", count, count),
    output: (count) => trans._n("%1 output", "%1 outputs", count, count),
  };
  return kinds.map(([kind, count]) => words[kind](count)).join(", ");
}
