/** Search and filters. */

import type { ExecutionState } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { latestOfCells, STATES, STATE_WORDS, whoAsked } from "./executions.ts";
import { NO_FILTER, NOBODY } from "./filters.ts";
import { firstLine } from "./format.ts";
import { countShown } from "./HistoryView.tsx";
import { Icon } from "./icons.tsx";
import type { Session } from "./session.ts";

const PAUSE_MS = 200;
const CELLS = 100;

export function Filters({ session }: { session: Session }): JSX.Element {
  const { filter, history } = session;
  const chosen = filter.value;
  history.revision.value;
  const rows = session.rows();
  const kernels = session.isMany ? (session.room?.kernels.value ?? []) : [];
  const whos = [...new Set(rows.map((row) => whoAsked(row) ?? NOBODY))].sort();
  // Cells of several kernels may have the same ids.
  const hasCells = kernels.length === 0 || chosen.kernel !== null;
  const cells = hasCells ? [...latestOfCells(rows).values()].slice(-CELLS) : [];
  const [text, setText] = useState(chosen.text);
  const [open, setOpen] = useState(false);
  const timer = useRef<number>(0);
  useEffect(() => setText(chosen.text), [chosen.text]);
  const search = (value: string): void => {
    setText(value);
    window.clearTimeout(timer.current);
    timer.current = window.setTimeout(() => session.setFilter({ text: value }), PAUSE_MS);
  };
  return (
    <search class="filters">
      <label class="search">
        <Icon name="search" />
        <span class="unseen">Search in code and outputs</span>
        <input
          ref={(box) => {
            session.searchBox = box;
          }}
          type="search"
          placeholder="Search"
          value={text}
          onInput={(event) => search(event.currentTarget.value)}
        />
      </label>
      <button type="button" class="filters-toggle" aria-expanded={open} onClick={() => setOpen(!open)}>
        Filters
      </button>
      <div class="filters-more" data-open={open || session.isSearched}>
        {kernels.length > 0 ? (
          <label>
            <span class="unseen">Kernel</span>
            <select
              value={chosen.kernel ?? ""}
              onChange={(event) => session.setFilter({ kernel: event.currentTarget.value || null })}
            >
              <option value="">All kernels</option>
              {kernels.map((one) => (
                <option key={one.id} value={one.id}>
                  {one.name} {one.short}
                </option>
              ))}
            </select>
          </label>
        ) : null}
        <label>
          <span class="unseen">State</span>
          <select
            value={chosen.state ?? ""}
            onChange={(event) =>
              session.setFilter({ state: (event.currentTarget.value || null) as ExecutionState | null })
            }
          >
            <option value="">Any state</option>
            {STATES.map((state) => (
              <option key={state} value={state}>
                {STATE_WORDS[state].word}
              </option>
            ))}
          </select>
        </label>
        {whos.length > 1 || chosen.who !== null ? (
          <label>
            <span class="unseen">Who</span>
            <select
              value={chosen.who ?? ""}
              onChange={(event) => session.setFilter({ who: event.currentTarget.value || null })}
            >
              <option value="">Anybody</option>
              {whos.map((who) => (
                <option key={who} value={who}>
                  {who}
                </option>
              ))}
            </select>
          </label>
        ) : null}
        {cells.length > 1 || chosen.cell !== null ? (
          <label>
            <span class="unseen">Cell</span>
            <select
              value={chosen.cell ?? ""}
              onChange={(event) => session.setFilter({ cell: event.currentTarget.value || null })}
            >
              <option value="">Any cell</option>
              {cells.map((row) => (
                <option key={row.id} value={row.cell ?? ""}>
                  {[session.cellNumbers.value.get(row.cell ?? ""), firstLine(row.code, 40) || "empty"]
                    .filter(Boolean)
                    .join(": ")}
                </option>
              ))}
            </select>
          </label>
        ) : null}
        {session.isFiltered ? (
          <button
            type="button"
            class="tool worded"
            onClick={() => {
              session.filter.value = NO_FILTER;
            }}
          >
            <Icon name="close" />
            Clear
          </button>
        ) : null}
      </div>
      <span class="counted" role="status">
        {countShown(session)}
      </span>
    </search>
  );
}
