/** What have others asked for that the kernel does not have yet, and what is to become of it? */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Request } from "@rtc-kernel/client";

import { channel, message } from "./doors.ts";
import type { PanelEnv } from "./env.ts";
import { clock } from "./links.ts";
import { firstLine, whatWaits } from "./requests.ts";
import { putStyle } from "./style.ts";

const CODE_CHARS = 80;

export function Queue({ env }: { env: PanelEnv }): JSX.Element | null {
  const { doc, trans } = env;
  const [rows, setRows] = useState(() => whatWaits(doc.requests.values()));
  const [problem, setProblem] = useState("");
  const host = useRef<HTMLElement>(null);
  useEffect(() => {
    if (host.current) putStyle(host.current);
  });
  useEffect(() => {
    const look = (): void => setRows(whatWaits(doc.requests.values()));
    look();
    return doc.onChange((change) => {
      if (change.reset || change.requests.size > 0) look();
    });
  }, [doc]);
  if (rows.length === 0) return null;
  const act = (action: "release" | "cancel", ids: readonly string[]): void => {
    setProblem("");
    Promise.all(ids.map((id) => channel(env)[action](id))).catch((error: unknown) => setProblem(message(error)));
  };
  const held = rows.filter(({ state }) => state === "held").map(({ id }) => id);
  return (
    <section class="rtc-Lists rtc-Queue" ref={host} aria-label={trans.__("Requests")}>
      <h3>{trans._n("%1 request", "%1 requests", rows.length)}</h3>
      {held.length > 0 ? (
        <p>
          {trans.__("What is held runs when somebody releases it: the kernel or its agent ended before its turn came.")}{" "}
          {held.length > 1 ? (
            <>
              <button type="button" onClick={() => act("release", held)}>
                {trans.__("Release all")}
              </button>{" "}
              <button type="button" onClick={() => act("cancel", held)}>
                {trans.__("Take all back")}
              </button>
            </>
          ) : null}
        </p>
      ) : null}
      <ol>
        {rows.map((row) => (
          <Row key={row.id} row={row} env={env} act={act} />
        ))}
      </ol>
      {problem ? (
        <p class="rtc-problem" role="alert">
          {problem}
        </p>
      ) : null}
    </section>
  );
}

interface RowProps {
  row: Request;
  env: PanelEnv;
  act: (action: "release" | "cancel", ids: readonly string[]) => void;
}

function Row({ row, env: { trans }, act }: RowProps): JSX.Element {
  const { state, by, reason, received_at: at, columns, action } = row;
  const code = typeof columns["code"] === "string" ? columns["code"] : "";
  const isOpen = state === "held" || state === "requested";
  const word = state === "held" ? trans.__("held") : state === "refused" ? trans.__("refused") : trans.__("waits");
  const words = [word];
  if (by) words.push(trans.__("by %1", by));
  if (at !== null) words.push(clock(at));
  return (
    <li data-state={state ?? "requested"}>
      <code class="rtc-what" title={code}>
        {code ? firstLine(code, CODE_CHARS) : action}
      </code>
      <span class="rtc-dim">{words.join(" · ")}</span>
      <span class="rtc-deeds">
        {state === "held" ? (
          <button type="button" onClick={() => act("release", [row.id])}>
            {trans.__("Release")}
          </button>
        ) : null}
        {isOpen ? (
          <button type="button" onClick={() => act("cancel", [row.id])}>
            {trans.__("Take back")}
          </button>
        ) : null}
      </span>
      {reason && state !== "requested" ? <span class="rtc-dim rtc-why">{reason}</span> : null}
    </li>
  );
}
