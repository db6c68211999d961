/** The kernels of a room, each beside its lane: which it is, how it is, and a press shows it alone. */

import type { JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { standing, type Attendee } from "../gathering.ts";
import type { Session } from "../session.ts";
import { KernelMark } from "../shapes.tsx";

/** So many more than are seen, at either end. */
const BESIDE = 4;

interface LanesProps {
  session: Session;
  kernels: readonly Attendee[];
  lanePx: number;
  /** What is seen of the lanes. Pixels. */
  top: number;
  height: number;
}

export function Lanes({ session, kernels, lanePx, top, height }: LanesProps): JSX.Element {
  const { filter } = session;
  const list = useRef<HTMLUListElement>(null);
  /** The one that Tab goes to. */
  const [current, setCurrent] = useState<string | null>(null);
  const [isMoved, setMoved] = useState(0);
  const chosen = filter.value.kernel;
  const known = current ?? chosen;
  const at = Math.max(
    0,
    kernels.findIndex((one) => one.id === known),
  );
  const first = Math.max(0, Math.floor(top / lanePx) - BESIDE);
  const last = Math.min(kernels.length - 1, Math.ceil((top + height) / lanePx) + BESIDE);
  const shown = [...Array(Math.max(0, last - first + 1)).keys()].map((index) => first + index);
  if (kernels.length > 0 && !shown.includes(at)) shown.push(at);
  useLayoutEffect(() => {
    if (isMoved === 0) return;
    const button = list.current?.querySelector<HTMLElement>('[tabindex="0"]');
    button?.focus({ preventScroll: true });
    button?.scrollIntoView({ block: "nearest" });
  }, [isMoved]);
  const onKeyDown = (event: KeyboardEvent): void => {
    const page = Math.max(1, Math.floor(height / lanePx));
    const steps: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: kernels.length - 1,
    };
    const next = kernels[Math.min(kernels.length - 1, Math.max(0, steps[event.key] ?? -1))];
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey || !next) return;
    event.preventDefault();
    event.stopPropagation();
    setCurrent(next.id);
    setMoved(isMoved + 1);
  };
  return (
    <ul class="lane-names" aria-label="Kernels of the room" ref={list} onKeyDown={onKeyDown}>
      {shown
        .sort((one, other) => one - other)
        .map((index) => {
          const one = kernels[index];
          if (!one) return null;
          const { word, state, isOver } = standing(one);
          const { host } = one.kernel;
          return (
            <li
              key={one.id}
              aria-posinset={index + 1}
              aria-setsize={kernels.length}
              style={{ top: `${index * lanePx}px`, height: `${lanePx}px` }}
            >
              <button
                type="button"
                data-kernel={one.id}
                tabIndex={index === at ? 0 : -1}
                aria-pressed={one.id === chosen}
                title={[one.kernel.notebook ?? one.kernel.display_name, one.id, host && `on ${host}`, word]
                  .filter(Boolean)
                  .join("\n")}
                onFocus={() => setCurrent(one.id)}
                onClick={() => session.setFilter({ kernel: one.id === chosen ? null : one.id })}
              >
                <span class="lane-name">{one.name}</span>
                <span class="lane-about">
                  <KernelMark state={state} isOver={isOver} word={word} />
                  <span class="lane-where">
                    {one.short}
                    {host ? ` on ${host}` : ""}
                  </span>
                </span>
              </button>
            </li>
          );
        })}
    </ul>
  );
}
