/** A headless run: its notebook as it was given, each code cell with what it did, and how far the run is. */

import type { Cell } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Card } from "./Card.tsx";
import { now } from "./clock.ts";
import { Code } from "./Code.tsx";
import { beganAt, latestOfCells } from "./executions.ts";
import { VirtualList } from "./list.tsx";
import { addressOf } from "./page.ts";
import { renderMarkdown } from "./outputs/index.ts";
import type { Session } from "./session.ts";
import { describeProgress, progressOf } from "./summary.ts";

const LINE_PX = 22;

export function NotebookView({ session }: { session: Session }): JSX.Element {
  const { history, notebookList, travel } = session;
  history.revision.value;
  const cells = session.cells.value;
  const at = travel.at.value;
  const executions = session.rows().filter((row) => at === null || (beganAt(row) ?? Infinity) <= at);
  const latest = latestOfCells([...executions, ...(at === null ? session.window() : [])]);
  const running = cells.find((cell) => latest.get(cell.id)?.state === "running");
  useLayoutEffect(() => {
    notebookList.target.value = running?.id ?? null;
    notebookList.stick();
  }, [running?.id]);
  const byId = session.cellsById.value;
  return (
    <VirtualList
      controller={notebookList}
      keys={cells.map((cell) => cell.id)}
      label="Cells of the notebook"
      estimate={(index) => {
        const cell = cells[index];
        return cell
          ? 30 + (cell.source.split("\n").length + (latest.get(cell.id)?.outputs.length ?? 0) * 4) * LINE_PX
          : LINE_PX;
      }}
      empty={<p class="empty">The notebook has no cells.</p>}
      render={(id, index) => {
        const cell = byId.get(id);
        const execution = latest.get(id);
        return cell ? (
          <NotebookCell
            session={session}
            cell={cell}
            execution={execution?.id ?? null}
            position={index + 1}
            total={cells.length}
          />
        ) : null;
      }}
    />
  );
}

interface CellProps {
  session: Session;
  cell: Cell;
  execution: string | null;
  position: number;
  total: number;
}

function NotebookCell({ session, cell, execution, position, total }: CellProps): JSX.Element {
  const { notebookList } = session;
  const isFocused = notebookList.focused.value === cell.id;
  const common = {
    "data-row-focus": true,
    "data-cell": cell.id,
    tabIndex: isFocused || (notebookList.focused.value === null && position === 1) ? 0 : -1,
    "aria-posinset": position,
    "aria-setsize": total,
    onFocus: () => {
      notebookList.focused.value = cell.id;
    },
  };
  if (cell.cell_type === "markdown") {
    return (
      <article class="cell prose" aria-label={`Text ${position}`} {...common}>
        <Markdown source={cell.source} />
      </article>
    );
  }
  if (cell.cell_type === "raw") {
    return (
      <article class="cell" aria-label={`Raw cell ${position}`} {...common}>
        <Code code={cell.source} language="" label="Raw text" />
      </article>
    );
  }
  const number = session.cellNumbers.value.get(cell.id);
  return (
    <article class="cell" aria-label={`Code cell ${number ?? ""}`} {...common}>
      {number === undefined ? null : <p class="cell-number">Cell {number}</p>}
      <Code code={cell.source} language={session.doc.kernel?.language ?? ""} label={`Code of cell ${number ?? ""}`} />
      {execution ? (
        <Card key={execution} session={session} id={execution} position={position} total={total} plain />
      ) : (
        <p class="pending">{cell.source.trim() === "" ? "Empty: it is not run." : "It has not run."}</p>
      )}
    </article>
  );
}

function Markdown({ source }: { source: string }): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => host.current?.replaceChildren(renderMarkdown(source)), [source]);
  return <div class="markdown" ref={host} />;
}

/** Where a run is, for a notebook that is run from its first to its last cell. */
export function ProgressBar({ session }: { session: Session }): JSX.Element {
  session.history.revision.value;
  session.status.value;
  const at = session.travel.at.value;
  const progress = progressOf(session.cells.value, session.window(), session.doc.kernel);
  const said = describeProgress(progress, progress.endedAt === null ? now.value : 0);
  return (
    <div class="progress" data-tone={said.tone} hidden={at !== null}>
      <div
        class="meter"
        role="progressbar"
        aria-label="Cells that have run"
        aria-valuemin={0}
        aria-valuemax={progress.cells}
        aria-valuenow={progress.ended}
        aria-valuetext={said.text}
      >
        <div
          class="meter-done"
          style={{ inlineSize: `${progress.cells ? (100 * progress.ended) / progress.cells : 0}%` }}
        />
      </div>
      <p>{said.target ? <a href={addressOf(said.target)}>{said.text}</a> : said.text}</p>
    </div>
  );
}
