/** Where a reader who may run code does so: the prompt, and what waits. */

import type { Request } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { announce } from "../announce.ts";
import { countOf, firstLine } from "../format.ts";
import { Icon } from "../icons.tsx";
import { act } from "../parts.tsx";
import type { Session } from "../session.ts";
import { createEditor, type Editor } from "./editor.ts";
import { Past, pastOf } from "./past.ts";

const PAST = 200;

/** Code that was sent. `problem`: why it does not run; null: the agent has not said yet that it took it. */
interface Sent {
  code: string;
  problem: string | null;
}

export default function Prompt({ session }: { session: Session }): JSX.Element {
  const { doc, list } = session;
  session.status.value;
  const host = useRef<HTMLDivElement>(null);
  const editor = useRef<Editor | null>(null);
  const [problem, setProblem] = useState("");
  const [sent, setSent] = useState<readonly Sent[]>([]);
  const drop = (one: Sent): void => setSent((all) => all.filter((other) => other !== one));
  const run = (code: string): void => {
    if (code.trim() === "") return;
    setProblem("");
    session.travel.live();
    session.view.value = "history";
    list.follow();
    const one: Sent = { code, problem: null };
    setSent((all) => [...all, one]);
    doc.run(code).then(
      () => {
        announce("Sent");
        drop(one);
      },
      (error: unknown) => {
        const why = error instanceof Error ? error.message : String(error);
        drop(one);
        if (editor.current?.code() === "") {
          editor.current.putBack(code);
          setProblem(why);
        } else setSent((all) => [...all, { code, problem: why }]);
      },
    );
    editor.current?.clear();
  };
  const language = doc.kernel?.language ?? "";
  useEffect(() => {
    if (!host.current) return undefined;
    const past = new Past(() =>
      pastOf(
        session
          .rows()
          .slice(-PAST)
          .filter((row) => !row.private)
          .map((row) => row.code),
      ),
    );
    const made = createEditor({
      host: host.current,
      label: "Code to run",
      past,
      run,
      complete: (code, cursor) => doc.transport.complete(code, cursor),
    });
    editor.current = made;
    return () => made.destroy();
  }, [doc]);
  useEffect(() => editor.current?.setLanguage(language), [doc, language]);
  const isBusy = doc.kernel?.state === "busy";
  const isDead = doc.kernel?.state === "dead";
  return (
    <section class="prompt" aria-label="Run code" hidden={!session.mayRun.value}>
      {session.isMany && session.room?.focus ? (
        <p class="dim">Runs in {session.room.label(session.room.focus.id)}</p>
      ) : null}
      <Queue session={session} />
      {problem ? (
        <p class="problem" role="alert">
          {problem}
        </p>
      ) : null}
      {sent.map((one, index) => (
        <Unsent
          key={index}
          sent={one}
          isAway={doc.status !== "live"}
          onBack={() => {
            editor.current?.putBack(one.code);
            drop(one);
          }}
        />
      ))}
      <div class="line">
        <div class="editor" ref={host} id="prompt" />
        <div class="buttons">
          <button
            type="button"
            class="primary"
            disabled={isDead}
            title="Run (Shift+Enter)"
            onClick={() => run(editor.current?.code() ?? "")}
          >
            <Icon name="play" />
            <span class="wide-word">Run</span>
          </button>
          <button
            type="button"
            disabled={!isBusy}
            title="Interrupt what runs"
            onClick={() => void act(doc.interrupt(), "Interrupted")}
          >
            <Icon name="stop" />
            <span class="wide-word">Interrupt</span>
          </button>
          <RestartButton session={session} />
        </div>
      </div>
    </section>
  );
}

/** What was sent and does not run, or waits for somebody to send it to: nothing that was typed is lost. */
function Unsent({ sent, isAway, onBack }: { sent: Sent; isAway: boolean; onBack: () => void }): JSX.Element | null {
  const code = <code>{firstLine(sent.code, 60)}</code>;
  if (sent.problem === null) return isAway ? <p class="dim">Waits for the connection: {code}</p> : null;
  return (
    <p class="problem" role="alert">
      {sent.problem}: {code}{" "}
      <button type="button" class="worded" onClick={onBack}>
        Put it back
      </button>
    </p>
  );
}

const codeOf = (request: Request): string => {
  const code = request.columns["code"];
  return typeof code === "string" ? code : "";
};

/** What waits, in its order; held rows run only when somebody releases them. */
function Queue({ session }: { session: Session }): JSX.Element | null {
  session.requests.value;
  const { doc } = session;
  const rows = [...doc.requests.values()]
    .filter(
      (row) => row.action === "execute" && (row.state === "held" || row.state === "requested" || row.state === null),
    )
    .sort((one, other) => (one.ordinal ?? Infinity) - (other.ordinal ?? Infinity));
  if (rows.length === 0) return null;
  const held = rows.filter((row) => row.state === "held");
  const mine = (row: Request): boolean => doc.role === "own" || row.by === doc.name;
  return (
    <details class="queue" open={held.length > 0}>
      <summary>
        {countOf(rows.length, "request")} waiting{held.length ? `, ${held.length} of them held` : ""}
      </summary>
      {held.length > 0 ? (
        <p>
          Held rows do not run by themselves: the kernel or its agent ended before their turn came.{" "}
          <button
            type="button"
            class="worded"
            disabled={!held.some(mine)}
            onClick={() => void act(doc.release(), "Released")}
          >
            Release all
          </button>{" "}
          <button
            type="button"
            class="worded"
            disabled={!held.some(mine)}
            onClick={() => void act(Promise.all(held.filter(mine).map((row) => doc.cancel(row.id))), "Dropped")}
          >
            Drop all
          </button>
        </p>
      ) : null}
      <ol>
        {rows.map((row) => (
          <li key={row.id} data-state={row.state}>
            <code>{firstLine(codeOf(row), 60)}</code>
            <span class="dim">
              {row.state === "held" ? "held" : "waits"}
              {row.by ? `, by ${row.by}` : ""}
            </span>
            {mine(row) ? (
              <>
                {row.state === "held" ? (
                  <button type="button" class="worded" onClick={() => void act(doc.release(row.id), "Released")}>
                    Release
                  </button>
                ) : null}
                <button type="button" class="worded" onClick={() => void act(doc.cancel(row.id), "Dropped")}>
                  {row.state === "held" ? "Drop" : "Cancel"}
                </button>
              </>
            ) : null}
          </li>
        ))}
      </ol>
    </details>
  );
}

function RestartButton({ session }: { session: Session }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  return (
    <>
      <button type="button" title="Restart the kernel" onClick={() => dialog.current?.showModal()}>
        <Icon name="restart" />
        <span class="wide-word">Restart</span>
      </button>
      <dialog ref={dialog} aria-labelledby="restart-title" class="dialog">
        <h2 id="restart-title">Restart the kernel?</h2>
        <p>All variables are lost, and what runs now is lost too. What waits is held until somebody releases it.</p>
        <form method="dialog" class="buttons">
          <button type="submit">Keep it</button>
          <button
            type="submit"
            class="danger"
            onClick={() => void act(session.doc.restart(), "The kernel is restarted")}
          >
            Restart
          </button>
        </form>
      </dialog>
    </>
  );
}
