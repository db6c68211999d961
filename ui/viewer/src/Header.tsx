/** Which kernel is this, what does it do at the moment, who is here? */

import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import { now } from "./clock.ts";
import { baseName } from "./format.ts";
import { Icon, type IconName } from "./icons.tsx";
import { addressOf } from "./page.ts";
import { timelineShown } from "./preferences.ts";
import { KernelMark } from "./shapes.tsx";
import type { Session } from "./session.ts";
import { describe, describeRoom } from "./summary.ts";
import { theme, type Theme } from "./theme.ts";
import { ProgressBar } from "./NotebookView.tsx";

const THEMES: Record<Theme, { next: Theme; label: string; icon: IconName }> = {
  system: { next: "light", label: "Colours: as the system has them", icon: "system" },
  light: { next: "dark", label: "Colours: light", icon: "light" },
  dark: { next: "system", label: "Colours: dark", icon: "dark" },
};

export function Header({ session, onKeys }: { session: Session; onKeys: () => void }): JSX.Element {
  session.status.value;
  const { doc } = session;
  const kernel = doc.kernel;
  const notebook = kernel?.notebook ?? session.cells.value[0]?.notebook ?? null;
  const { room } = session;
  const name = kernel?.display_name || kernel?.name || room?.room.name || "Kernel";
  useEffect(() => {
    const parts = [kernel?.state, notebook ? baseName(notebook) : name, kernel && session.isMany && room?.room.name];
    document.title = parts.filter(Boolean).join(" · ");
  }, [kernel?.state, notebook, name, session.isMany]);
  const { next, label, icon } = THEMES[theme.value];
  return (
    <header class="top">
      <div class="title">
        {kernel && session.isMany && room ? (
          <button
            type="button"
            class="tool worded"
            title="Show all kernels of the room"
            onClick={() => session.setFilter({ kernel: null })}
          >
            <Icon name="close" />
            {room.room.name}
          </button>
        ) : null}
        <h1 title={notebook ?? name}>{notebook ? baseName(notebook) : name}</h1>
        {kernel ? <KernelMark state={kernel.state} isOver={session.isOver.value} /> : null}
        <span class="about">
          {notebook ? name : ""}
          {kernel?.host ? <span class="host"> on {kernel.host}</span> : null}
        </span>
        <Peers session={session} />
        <nav class="tools" aria-label="Page">
          <button
            type="button"
            class="tool"
            aria-pressed={timelineShown.value === "shown"}
            aria-label="Timeline"
            title="Timeline"
            onClick={() => {
              timelineShown.value = timelineShown.value === "shown" ? "hidden" : "shown";
            }}
          >
            <Icon name="chart" />
          </button>
          {doc.transport.isLiveOnly ? null : (
            <a
              class="tool"
              href="api/notebook"
              download
              aria-label="Download as a notebook"
              title="Download as a notebook"
            >
              <Icon name="save" />
            </a>
          )}
          <button
            type="button"
            class="tool"
            aria-label={label}
            title={label}
            onClick={() => {
              theme.value = next;
            }}
          >
            <Icon name={icon} />
          </button>
          <button type="button" class="tool wide" aria-label="Keys" title="Keys (?)" onClick={onKeys}>
            <Icon name="keys" />
          </button>
        </nav>
      </div>
      {session.cells.value.length > 0 ? <ProgressBar session={session} /> : <Now session={session} />}
    </header>
  );
}

/** One sentence of what goes on. */
function Now({ session }: { session: Session }): JSX.Element | null {
  session.history.revision.value;
  session.status.value;
  if (session.travel.at.value !== null) return null;
  const { room } = session;
  if (room && room.focus === null) {
    const { tone, text } = describeRoom(room.kernels.value, session.history.executions());
    return (
      <p class="now" data-tone={tone}>
        {text}
      </p>
    );
  }
  const rows = session.rows();
  const isTicking = rows.some((row) => row.state === "running");
  const { tone, text, code, behind, target } = describe(
    session.isOver.value ? null : session.doc.kernel,
    rows,
    isTicking ? now.value : 0,
  );
  const said = (
    <>
      {text} {code ? <code>{code}</code> : null}
    </>
  );
  return (
    <p class="now" data-tone={tone}>
      {target ? (
        <a href={addressOf(target)} onClick={() => void session.open(target)}>
          {said}
        </a>
      ) : (
        said
      )}
      {behind ? <span class="dim">{behind}</span> : null}
    </p>
  );
}

function Peers({ session }: { session: Session }): JSX.Element | null {
  session.status.value;
  const { peers } = session.doc;
  if (peers.length === 0) return null;
  const names = peers.map((peer) => `${peer.name || "somebody"}${peer.self ? " (you)" : ""}`);
  return (
    <ul class="peers" aria-label={`${peers.length === 1 ? "1 reader" : `${peers.length} readers`} here`}>
      {peers.slice(0, 4).map((peer, at) => (
        <li key={peer.clientId} title={names[at]} class={peer.self ? "self" : ""}>
          <span aria-hidden="true">{(peer.name || "?").slice(0, 2)}</span>
          <span class="unseen">{names[at]}</span>
        </li>
      ))}
      {peers.length > 4 ? <li title={names.slice(4).join(", ")}>+{peers.length - 4}</li> : null}
    </ul>
  );
}
