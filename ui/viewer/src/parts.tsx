/** Of what is the card of an execution made, wherever cards are? */

import type { Execution, ExecutionChange, Question } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { memo } from "preact/compat";
import { useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";
import { announce, spoken, toast } from "./announce.ts";
import { now } from "./clock.ts";
import { Code } from "./Code.tsx";
import { isOpen, ranFor, waitedFor } from "./executions.ts";
import { formatBytes, formatDuration, formatExact, formatMachine, formatTicking, formatTime } from "./format.ts";
import { countChars, mergeChanges, Pace } from "./pace.ts";
import type { DrawnOutputs } from "./place.ts";
import type { Session } from "./session.ts";

/** The record that is to be shown now; the card is drawn again when there is another one, but not for each output. */
export function useRecord(session: Session, id: string): Execution | null {
  const { history } = session;
  const [, again] = useReducer((count: number) => count + 1, 0);
  const at = session.travel.at.value;
  const execution =
    at === null ? (history.get(id) ?? null) : session.travel.record(id, at, () => again(null));
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
  return execution;
}

export function CardCode({ session, execution }: { session: Session; execution: Execution }): JSX.Element {
  if (execution.private) return <p class="private">Private: neither code nor outputs are recorded.</p>;
  const language = session.languageOf(execution);
  return (
    <>
      <Code code={execution.code} language={language} label="Code" />
      {execution.omitted_code_bytes ? (
        <p class="pending">{formatBytes(execution.omitted_code_bytes)} of code are left out here.</p>
      ) : null}
    </>
  );
}

export function Details({ execution, title }: { execution: Execution; title: string }): JSX.Element {
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

/** The number that the kernel gave it. */
export function Count({ execution, title }: { execution: Execution; title: string }): JSX.Element {
  return (
    <span class="count" title={title}>
      [{execution.execution_count ?? (isOpen(execution) ? "*" : " ")}]
    </span>
  );
}

/** When it began, or was asked for; nothing where that is not known. */
export function When({ at }: { at: number | null }): JSX.Element | null {
  if (at === null) return null;
  return (
    <time class="when" dateTime={formatMachine(at)} title={formatExact(at)}>
      {formatTime(at)}
    </time>
  );
}

/** What is said to who cannot see, and what is shown for a moment. */
export function Said(): JSX.Element {
  return (
    <>
      <p class="unseen" aria-live="polite">
        {spoken.value}
      </p>
      {toast.value ? (
        <p class="toast" aria-hidden="true">
          {toast.value}
        </p>
      ) : null}
    </>
  );
}

/** How long it ran; it ticks by itself, without its card. */
export function Took({ session, execution }: { session: Session; execution: Execution }): JSX.Element | null {
  const time = isOpen(execution) ? (session.travel.at.value ?? now.value) : 0;
  const ran = ranFor(execution, time);
  if (ran !== null)
    return <span class="took">{execution.state === "running" ? formatTicking(ran) : formatDuration(ran)}</span>;
  const waited = execution.state === "queued" ? waitedFor(execution, time) : null;
  return waited === null ? null : <span class="took dim">{formatTicking(waited)}</span>;
}

/** The outputs are not Preact's: they grow by segments, thousands a second. */
export const Outputs = memo(
  function Outputs({ session, execution }: { session: Session; execution: Execution }): JSX.Element {
    const host = useRef<HTMLDivElement>(null);
    const view = useRef<DrawnOutputs | null>(null);
    const shown = useRef<Execution | null>(null);
    const { id } = execution;
    useLayoutEffect(() => {
      if (!host.current) return undefined;
      const outputs = session.place.drawOutputs(host.current);
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

export function Asked({
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
  if (!session.mayAct(execution) || session.travel.at.value !== null) {
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

export async function copy(text: string, said: string): Promise<void> {
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
