/** What does one execution look like on the page? */

import type { Execution } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { originOf, STATE_WORDS, whoAsked } from "./executions.ts";
import type { CardProps } from "./HistoryView.tsx";
import { Icon } from "./icons.tsx";
import { addressOf } from "./page.ts";
import { act, Asked, CardCode, copy, Count, Details, Outputs, Took, useRecord, When } from "./parts.tsx";
import { StateMark } from "./shapes.tsx";
import type { Session } from "./session.ts";
import { failure } from "./summary.ts";

interface Props extends CardProps {
  /** Inside a cell of the notebook, which shows the code and has the focus. */
  plain?: boolean;
}

export function Card({ session, id, position, total, plain = false }: Props): JSX.Element | null {
  const { history, list } = session;
  const execution = useRecord(session, id);
  const travelling = session.travel.at.value !== null;
  if (!execution) return null;
  const isFocused = list.focused.value === id;
  const isTarget = session.target.value === id;
  const word = STATE_WORDS[execution.state].word;
  const who = whoAsked(execution);
  const where = session.whereOf(execution);
  const of = `${where && `, of ${where}`}${who === null ? "" : `, by ${who}`}`;
  const label = `Execution ${execution.execution_count ?? ""} ${word}${of}`;
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

function Head({ session, execution, plain }: { session: Session; execution: Execution; plain: boolean }): JSX.Element {
  const [open, setOpen] = useState(false);
  const origin = originOf(execution, session.cellNumbers.value);
  const who = whoAsked(execution);
  const at = execution.started_at ?? execution.queued_at;
  const mayAct = session.mayAct(execution) && session.travel.at.value === null;
  const where = session.filter.value.kernel === null ? session.whereOf(execution) : "";
  return (
    <header class="head">
      <StateMark state={execution.state} asks={execution.input !== null} />
      {where ? (
        <button
          type="button"
          class="tool of-kernel"
          title={`Show ${where} alone`}
          onClick={() => session.setFilter({ kernel: execution.kernel })}
        >
          {where}
        </button>
      ) : null}
      <Count execution={execution} title="The number that the kernel gave it" />
      <Took session={session} execution={execution} />
      <When at={at} />
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
          href={addressOf(execution.id)}
          aria-label="Link to this execution"
          title="Link to this execution"
          onClick={() =>
            void copy(
              new URL(addressOf(execution.id), location.href).href,
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
