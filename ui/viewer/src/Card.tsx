/** What does one execution look like? */

import type { Execution, ExecutionChange, Question } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { memo } from "preact/compat";
import { useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";
import { announce } from "./announce.ts";
import { now } from "./clock.ts";
import { Code } from "./Code.tsx";
import { isOpen, originOf, ranFor, STATE_WORDS, waitedFor, whoAsked } from "./executions.ts";
import { formatBytes, formatDuration, formatExact, formatMachine, formatTicking, formatTime } from "./format.ts";
import { Icon } from "./icons.tsx";
import { OutputsView } from "./outputs/index.ts";
import { countChars, mergeChanges, Pace } from "./pace.ts";
import { StateMark } from "./shapes.tsx";
import type { Session } from "./session.ts";
import { failure } from "./summary.ts";

interface CardProps {
  session: Session;
  id: string;
  position: number;
  total: number;
  /** Inside a cell of the notebook, which shows the code and has the focus. */
  plain?: boolean;
}

/** The record that is to be shown now, and how the card hears of the next one. */
function useRecord(session: Session, id: string, again: () => void): Execution | null {
  const at = session.travel.at.value;
  if (at !== null) return session.travel.record(id, at, again);
  return session.history.get(id) ?? null;
}

export function Card({ session, id, position, total, plain = false }: CardProps): JSX.Element | null {
  const { history, list } = session;
  const [, again] = useReducer((count: number) => count + 1, 0);
  const execution = useRecord(session, id, () => again(null));
  const travelling = session.travel.at.value !== null;
  const rendered = useRef<Execution | null>(null);
  rendered.current = execution;
  useLayoutEffect(() => {
    const stop = history.onRow(id, (_, change) => {
      if (change === null || change.kind !== "changed" || change.columns) again(null);
    });
    history.want(id);
    if (history.get(id) !== rendered.current) again(null); // it changed before we listened
    return stop;
  }, [history, id]);
  if (!execution) return null;
  const isFocused = list.focused.value === id;
  const isTarget = session.target.value === id;
  const word = STATE_WORDS[execution.state].word;
  const who = whoAsked(execution);
  const label = `Execution ${execution.execution_count ?? ""} ${word}${who === null ? "" : `, by ${who}`}`;
  const common = {
    class: `card ${isTarget ? "target" : ""} ${plain ? "plain" : ""}`,
    "data-state": execution.state,
    "data-execution": id,
  };
  const content = (
    <>
      <Head session={session} execution={execution} plain={plain} />
      {plain ? null : <CardCode session={session} execution={execution} />}
      {execution.error && !execution.outputs.some((output) => output.output_type === "error") ? (
        <p class="why">{failure(execution)}</p>
      ) : null}
      {execution.state === "aborted" || execution.state === "lost" ? (
        <p class="why">{STATE_WORDS[execution.state].says}</p>
      ) : null}
      {history.isWhole(id) || travelling ? (
        <Outputs session={session} execution={execution} />
      ) : (
        <p class="pending">
          {history.isMissing(id) ? "Its outputs are not in the history any more." : "Outputs are being read…"}
        </p>
      )}
      {execution.input ? <Asked session={session} execution={execution} question={execution.input} /> : null}
    </>
  );
  if (plain) return <div {...common}>{content}</div>;
  return (
    <article
      {...common}
      data-row-focus
      tabIndex={isFocused || (list.focused.value === null && position === total) ? 0 : -1}
      aria-label={label}
      aria-posinset={position}
      aria-setsize={total}
      onFocus={() => {
        list.focused.value = id;
      }}
    >
      {content}
    </article>
  );
}

function CardCode({ session, execution }: { session: Session; execution: Execution }): JSX.Element {
  if (execution.private) return <p class="private">Private: neither code nor outputs are recorded.</p>;
  const language = session.doc.kernel?.language ?? "";
  return (
    <>
      <Code code={execution.code} language={language} label="Code" />
      {execution.omitted_code_bytes ? (
        <p class="pending">{formatBytes(execution.omitted_code_bytes)} of code are left out here.</p>
      ) : null}
    </>
  );
}

function Head({ session, execution, plain }: { session: Session; execution: Execution; plain: boolean }): JSX.Element {
  const [open, setOpen] = useState(false);
  const origin = originOf(execution, session.cellNumbers.value);
  const who = whoAsked(execution);
  const at = execution.started_at ?? execution.queued_at;
  const mayAct = session.mayRun.value && session.travel.at.value === null;
  return (
    <header class="head">
      <StateMark state={execution.state} asks={execution.input !== null} />
      <span class="count" title="The number that the kernel gave it">
        [{execution.execution_count ?? (isOpen(execution) ? "*" : " ")}]
      </span>
      <Took session={session} execution={execution} />
      {at === null ? null : (
        <time class="when" dateTime={formatMachine(at)} title={formatExact(at)}>
          {formatTime(at)}
        </time>
      )}
      <span class="who">
        {who === null ? null : (
          <>
            <span class="dim">by </span>
            {who}{" "}
          </>
        )}
        {plain ? null : (
          <span class="dim" title={origin.title}>
            from {origin.text}
          </span>
        )}
      </span>
      <span class="tools">
        {mayAct && execution.state === "running" ? (
          <button
            type="button"
            class="tool worded"
            onClick={() => void act(session.doc.interrupt(execution.id), "Interrupted")}
          >
            <Icon name="stop" />
            <span class="wide-word">Interrupt</span>
          </button>
        ) : null}
        {mayAct && execution.state === "queued" && execution.request ? (
          <button
            type="button"
            class="tool worded"
            onClick={() => void act(session.doc.cancel(execution.request ?? ""), "Cancelled")}
          >
            <Icon name="close" />
            <span class="wide-word">Cancel</span>
          </button>
        ) : null}
        <button
          type="button"
          class="tool"
          aria-label="Copy the code"
          title="Copy the code"
          disabled={execution.private}
          onClick={() => void copy(execution.code, "The code is copied")}
        >
          <Icon name="copy" />
        </button>
        <a
          class="tool"
          href={`#execution=${encodeURIComponent(execution.id)}`}
          aria-label="Link to this execution"
          title="Link to this execution"
          onClick={() =>
            void copy(
              new URL(`#execution=${encodeURIComponent(execution.id)}`, location.href).href,
              "The address is copied",
            )
          }
        >
          <Icon name="link" />
        </a>
        <button
          type="button"
          class="tool"
          aria-label="Details"
          title="Details"
          aria-expanded={open}
          onClick={() => setOpen(!open)}
        >
          <Icon name="more" />
        </button>
      </span>
      {open ? <Details execution={execution} title={origin.title} /> : null}
    </header>
  );
}

function Details({ execution, title }: { execution: Execution; title: string }): JSX.Element {
  const rows: [string, string | null][] = [
    ["Asked at", execution.queued_at === null ? null : formatExact(execution.queued_at)],
    ["Waited", durationOf(waitedFor(execution, now.value))],
    ["Started at", execution.started_at === null ? null : formatExact(execution.started_at)],
    ["Ended at", execution.finished_at === null ? null : formatExact(execution.finished_at)],
    ["From", title],
    ["Id", execution.id],
  ];
  return (
    <dl class="details">
      {rows.map(([name, value]) =>
        value === null ? null : (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ),
      )}
    </dl>
  );
}

const durationOf = (seconds: number | null): string | null => (seconds === null ? null : formatDuration(seconds));

/** How long it ran; it ticks by itself, without its card. */
function Took({ session, execution }: { session: Session; execution: Execution }): JSX.Element | null {
  const time = isOpen(execution) ? (session.travel.at.value ?? now.value) : 0;
  const ran = ranFor(execution, time);
  if (ran !== null)
    return <span class="took">{execution.state === "running" ? formatTicking(ran) : formatDuration(ran)}</span>;
  const waited = execution.state === "queued" ? waitedFor(execution, time) : null;
  return waited === null ? null : <span class="took dim">{formatTicking(waited)}</span>;
}

/** The outputs are not Preact's: they grow by segments, thousands a second. */
const Outputs = memo(
  function Outputs({ session, execution }: { session: Session; execution: Execution }): JSX.Element {
    const host = useRef<HTMLDivElement>(null);
    const view = useRef<OutputsView | null>(null);
    const shown = useRef<Execution | null>(null);
    const { id } = execution;
    useLayoutEffect(() => {
      if (!host.current) return undefined;
      const outputs = new OutputsView(host.current, session.outputs);
      view.current = outputs;
      const segments = (position: number): readonly string[] | null => session.doc.segments(id, position);
      const pace = new Pace();
      let waiting: { row: Execution; change: ExecutionChange } | null = null;
      let timer: number | undefined;
      const draw = (): void => {
        window.clearTimeout(timer);
        timer = undefined;
        if (waiting === null || session.travel.at.peek() !== null) return;
        const { row, change } = waiting;
        waiting = null;
        outputs.update(row, change, segments);
        pace.drew(performance.now(), countChars(row, segments));
      };
      const stop = session.history.onRow(id, (row, change) => {
        if (session.travel.at.peek() !== null) return;
        shown.current = row;
        if (change === null || change.kind !== "changed") {
          waiting = null;
          outputs.show(row);
          return;
        }
        if (!change.outputs && change.streams.length === 0 && waiting === null) return;
        waiting = { row, change: mergeChanges(waiting?.change ?? null, change) };
        const isBulk = !change.outputs && !change.columns;
        const wait = isBulk ? pace.wait(performance.now(), countChars(row, segments)) : 0;
        if (wait === 0) draw();
        else timer ??= window.setTimeout(draw, wait);
      });
      return () => {
        stop();
        window.clearTimeout(timer);
        outputs.destroy();
        view.current = null;
        shown.current = null;
      };
    }, [session, id]);
    useLayoutEffect(() => {
      if (shown.current === execution) return;
      shown.current = execution;
      view.current?.show(execution);
    });
    return <div class="outputs" ref={host} />;
  },
  (before, after) => before.session === after.session && before.execution === after.execution,
);

function Asked({
  session,
  execution,
  question,
}: {
  session: Session;
  execution: Execution;
  question: Question;
}): JSX.Element {
  const [value, setValue] = useState("");
  const [problem, setProblem] = useState("");
  const prompt = question.prompt.trim() || "The code asks for a line of text";
  if (!session.mayRun.value || session.travel.at.value !== null) {
    return (
      <p class="asked">
        The code waits for somebody to type{question.password ? " a password" : ""}: <strong>{prompt}</strong>
      </p>
    );
  }
  const send = (event: Event): void => {
    event.preventDefault();
    session.doc.answer(execution.id, value, question.since).then(
      () => {
        setValue("");
        announce("Answered");
      },
      (error: unknown) => setProblem(error instanceof Error ? error.message : String(error)),
    );
  };
  return (
    <form class="asked" onSubmit={send}>
      <label>
        <span>{prompt}</span>
        <input
          type={question.password ? "password" : "text"}
          autoComplete="off"
          value={value}
          onInput={(event) => setValue(event.currentTarget.value)}
        />
      </label>
      <button type="submit">Answer</button>
      {problem ? (
        <p class="problem" role="alert">
          {problem}
        </p>
      ) : null}
    </form>
  );
}

async function copy(text: string, said: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    announce(said, true);
  } catch {
    announce("The browser does not let this page copy; select the text instead", true);
  }
}

/** Do what may fail, and say so. */
export async function act(deed: Promise<unknown>, done: string): Promise<void> {
  try {
    await deed;
    announce(done, true);
  } catch (error) {
    announce(error instanceof Error ? error.message : String(error), true);
  }
}
