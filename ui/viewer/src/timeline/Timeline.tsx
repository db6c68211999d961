/** When did what run? A chart that can be zoomed, and a slider that goes to a moment and plays from there. */

import { axisBottom } from "d3-axis";
import { scaleTime, type ScaleTime } from "d3-scale";
import { select } from "d3-selection";
import { zoom, zoomIdentity, zoomTransform, type D3ZoomEvent, type ZoomBehavior, type ZoomTransform } from "d3-zoom";
import type { ExecutionState } from "@rtc-kernel/client";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { now, readNow } from "../clock.ts";
import { STATE_WORDS } from "../executions.ts";
import { formatDay, formatDuration, formatTime } from "../format.ts";
import { colours } from "../preferences.ts";
import { Icon } from "../icons.tsx";
import type { Session } from "../session.ts";
import { Shape, SHAPES } from "../shapes.tsx";
import { SPEEDS } from "../travel.ts";
import { Lanes } from "./Lanes.tsx";
import { extentOf, findBar, layOut, tickFormat, type Bar, type Chart } from "./lanes.ts";

const LANE_PX = 38;
/** Of more lanes, so many are seen at a time. */
const LANES_SEEN = 6;
const BAR_PX = 16;
const BAR_TOP_PX = 6;
const QUEUE_TOP_PX = BAR_TOP_PX + BAR_PX + 4;
const QUEUE_PX = 3;
const AXIS_PX = 22;
const PAD_PX = 14;
const NEAR_PX = 8;
/** So near to an edge the words of a tick would be cut. */
const EDGE_PX = 28;
/** Bars narrower than this have no shape in them. */
const SHAPE_PX = 14;
const ZOOM_STEP = 1.6;
const PAN_PX = 80;
const LEGEND: readonly ExecutionState[] = ["queued", "running", "ok", "error", "aborted", "lost", "cancelled"];

type Scale = ScaleTime<number, number>;

export function Timeline({ session }: { session: Session }): JSX.Element {
  const { history, travel } = session;
  colours.value;
  const at = travel.at.value;
  const time = at ?? now.value;
  history.revision.value;
  const kernels = session.isMany ? (session.room?.kernels.value ?? []) : [];
  const ids = useMemo(() => kernels.map((one) => one.id), [kernels]);
  const chart = layOut(history.executions(), time, ids);
  const states = new Set(chart.bars.map((bar) => bar.state));
  const all = useMemo(
    () => (at === null ? chart : layOut(history.executions(), readNow(), ids)),
    [history.revision.value, at === null ? chart : null],
  );
  const [width, setWidth] = useState(0);
  const [transform, setTransform] = useState<ZoomTransform>(zoomIdentity);
  const [hover, setHover] = useState<{ bar: Bar; x: number } | null>(null);
  const frozen = useRef<[number, number] | null>(null);
  const [top, setTop] = useState(0);
  const canvas = useRef<HTMLCanvasElement>(null);
  const axis = useRef<SVGGElement>(null);
  const zooming = useRef<ZoomBehavior<HTMLCanvasElement, unknown> | null>(null);

  // While it is zoomed or shows another moment, what is new does not move what is looked at.
  const isFree = transform.k === 1 && at === null;
  const base = isFree || !frozen.current ? extentOf(all.bars, Math.max(readNow(), time)) : frozen.current;
  frozen.current = base;
  const scale = transform.rescaleX(
    scaleTime()
      .domain(base.map((seconds) => new Date(seconds * 1000)))
      .range([PAD_PX, Math.max(PAD_PX + 1, width - PAD_PX)]),
  );
  const [from, to] = scale.domain().map((date) => date.getTime() / 1000) as [number, number];
  const whole = Math.max(1, chart.lanes.length) * LANE_PX;
  const isMany = kernels.length > 0;
  const height = isMany ? Math.min(whole, LANES_SEEN * LANE_PX) : whole;
  const offset = Math.max(0, Math.min(top, whole - height));
  const current = useRef({ scale, chart, offset, scrolls: false });
  current.current = { scale, chart, offset, scrolls: whole > height };

  useLayoutEffect(() => {
    const element = canvas.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  useEffect(() => {
    const element = canvas.current;
    if (!element || width === 0) return;
    const behaviour = (zooming.current ??= zoom<HTMLCanvasElement, unknown>());
    behaviour
      .scaleExtent([1, 1e6])
      .extent([
        [0, 0],
        [width, height],
      ])
      .translateExtent([
        [0, 0],
        [width, height],
      ])
      .filter(
        (event: Event) =>
          !(event instanceof WheelEvent && (isSideways(event) || (current.current.scrolls && !event.ctrlKey))) &&
          !(event instanceof MouseEvent && event.button > 0),
      )
      .on("zoom", (event: D3ZoomEvent<HTMLCanvasElement, unknown>) => setTransform(event.transform));
    select(element).call(behaviour).on("dblclick.zoom", null);
  }, [width, height]);

  // A trackpad's move to the side is a move in time.
  useEffect(() => {
    const element = canvas.current;
    const pan = (event: WheelEvent): void => {
      if (!isSideways(event) || !zooming.current || !element) return;
      event.preventDefault();
      select(element).call(
        zooming.current.translateBy,
        -(event.shiftKey ? event.deltaY || event.deltaX : event.deltaX) / zoomTransform(element).k,
        0,
      );
    };
    element?.addEventListener("wheel", pan, { passive: false });
    return () => element?.removeEventListener("wheel", pan);
  }, []);

  // Older rows are read as far as the reader looks back.
  useEffect(() => {
    const first = all.bars[0]?.queued;
    if (
      !history.pager.isComplete &&
      (transform.k === 1 ? transform !== zoomIdentity : first !== undefined && from < first)
    )
      void history.pager.load();
  }, [from, transform, history.revision.value]);

  useLayoutEffect(() => {
    if (!canvas.current || width === 0) return;
    draw(canvas.current, chart, scale, {
      width,
      height,
      offset,
      chosen: session.filter.value.kernel,
      at,
      focused: session.list.focused.value,
      gaps: gapsOf(session),
    });
    if (axis.current) drawAxis(axis.current, scale, width);
  });

  const zoomBy = (factor: number): void => {
    if (canvas.current && zooming.current) select(canvas.current).call(zooming.current.scaleBy, factor);
  };
  const panBy = (pixels: number): void => {
    if (canvas.current && zooming.current)
      select(canvas.current).call(zooming.current.translateBy, -pixels / transform.k, 0);
  };
  const fit = (): void => {
    if (canvas.current && zooming.current) select(canvas.current).call(zooming.current.transform, zoomIdentity);
    frozen.current = null;
    setTransform(zoomIdentity);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const deeds: Record<string, () => void> = {
      "+": () => zoomBy(ZOOM_STEP),
      "=": () => zoomBy(ZOOM_STEP),
      "-": () => zoomBy(1 / ZOOM_STEP),
      "0": fit,
      ArrowLeft: () => panBy(-PAN_PX),
      ArrowRight: () => panBy(PAN_PX),
    };
    const deed = event.ctrlKey || event.metaKey || event.altKey ? undefined : deeds[event.key];
    if (!deed) return;
    event.preventDefault();
    event.stopPropagation();
    deed();
  };
  const barAt = (event: MouseEvent): Bar | null => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box) return null;
    const { scale, chart, offset } = current.current;
    const lane = Math.floor((event.clientY - box.top + offset) / LANE_PX);
    return findBar(chart.bars, event.clientX - box.left, lane, NEAR_PX, (seconds) => scale(seconds * 1000));
  };

  const shown = Math.min(to, Math.max(from, at ?? readNow()));
  return (
    <section class="timeline" aria-label="Timeline">
      <div class={isMany ? "chart many" : "chart"}>
        <div
          class="lanes"
          style={isMany ? { height: `${height}px` } : {}}
          onScroll={isMany ? (event) => setTop(event.currentTarget.scrollTop) : undefined}
        >
          <div class="lanes-all" style={isMany ? { height: `${whole}px` } : {}}>
            {isMany ? <Lanes session={session} kernels={kernels} lanePx={LANE_PX} top={offset} height={height} /> : null}
            <canvas
              ref={canvas}
              tabIndex={0}
              role="img"
              aria-label={
                `${chart.bars.length} executions${isMany ? ` of ${kernels.length} kernels` : ""} from ${formatDay(from)} ${formatTime(from, from)} ` +
                `to ${formatTime(to, from)}. Plus and minus zoom, arrows move, 0 shows all.`
              }
              aria-keyshortcuts="+ - 0 ArrowLeft ArrowRight"
              style={{ height: `${height}px` }}
              onKeyDown={onKeyDown}
              onClick={(event) => {
                const bar = barAt(event);
                if (bar) void session.open(bar.id);
              }}
              onMouseMove={(event) => {
                const bar = barAt(event);
                setHover(bar ? { bar, x: event.offsetX } : null);
              }}
              onMouseLeave={() => setHover(null)}
            />
          </div>
        </div>
        {hover ? (
          <Tip
            bar={hover.bar}
            x={Math.min(hover.x, width - 200)}
            where={session.room && isMany ? session.room.label(chart.lanes[hover.bar.lane] ?? "") : ""}
          />
        ) : null}
        <svg class="axis" height={AXIS_PX} width={width} aria-hidden="true">
          <g ref={axis} />
        </svg>
        <input
          class="slider"
          type="range"
          aria-label="Moment that is shown"
          aria-valuetext={at === null ? "now" : `${formatDay(at)} ${formatTime(at)}`}
          min={from}
          max={to}
          step={Math.max(0.001, (to - from) / 2000)}
          value={shown}
          style={{ marginInline: `${PAD_PX - 8}px`, inlineSize: `${Math.max(0, width - 2 * PAD_PX + 16)}px` }}
          onInput={(event) => {
            travel.pause();
            travel.go(Number(event.currentTarget.value));
          }}
        />
      </div>
      <div class="controls">
        <div class="group">
          <button
            type="button"
            class="tool worded"
            aria-pressed={travel.playing.value}
            disabled={chart.bars.length === 0}
            onClick={() => {
              if (travel.playing.value) travel.pause();
              else {
                if (at === null) travel.go(all.bars[0]?.queued ?? readNow());
                travel.play();
              }
            }}
          >
            <Icon name={travel.playing.value ? "pause" : "play"} />
            {travel.playing.value ? "Pause" : "Replay"}
          </button>
          <div class="speeds" role="group" aria-label="Speed">
            {SPEEDS.map((speed) => (
              <button
                type="button"
                key={speed}
                class="tool"
                aria-pressed={travel.speed.value === speed}
                onClick={() => {
                  travel.speed.value = speed;
                }}
              >
                {speed}×
              </button>
            ))}
          </div>
        </div>
        <ul class="legend" aria-label="What the shapes mean">
          {LEGEND.filter((state) => states.has(state)).map((state) => (
            <li key={state} data-state={state} class="state">
              <Shape state={state} />
              {STATE_WORDS[state].word}
            </li>
          ))}
        </ul>
        <div class="group zooms">
          <button
            type="button"
            class="tool"
            aria-label="Zoom out"
            title="Zoom out (-)"
            onClick={() => zoomBy(1 / ZOOM_STEP)}
          >
            <Icon name="minus" />
          </button>
          <button type="button" class="tool" aria-label="Zoom in" title="Zoom in (+)" onClick={() => zoomBy(ZOOM_STEP)}>
            <Icon name="plus" />
          </button>
          <button type="button" class="tool" aria-label="Show all" title="Show all (0)" onClick={fit}>
            <Icon name="fit" />
          </button>
        </div>
      </div>
    </section>
  );
}

const isSideways = (event: WheelEvent): boolean => event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);

function Tip({ bar, x, where }: { bar: Bar; x: number; where: string }): JSX.Element {
  const ran = bar.started === null ? null : bar.ended - bar.started;
  return (
    <div class="tip" style={{ left: `${Math.max(0, x)}px` }}>
      <span class="state" data-state={bar.state}>
        <Shape state={bar.state} />
        {STATE_WORDS[bar.state].word}
      </span>{" "}
      [{bar.count ?? " "}] {formatTime(bar.started ?? bar.queued)}
      {ran === null ? "" : `, ${formatDuration(ran)}`}
      {where ? `, ${where}` : ""}
    </div>
  );
}

function gapsOf(session: Session): [number, number][] {
  return (session.doc.meta?.gap ?? [])
    .filter((gap) => gap.since !== null)
    .map((gap) => [gap.since ?? 0, gap.until ?? readNow()]);
}

interface Drawing {
  width: number;
  height: number;
  /** How far the lanes are scrolled. Pixels. */
  offset: number;
  /** The kernel that is looked at alone. */
  chosen: string | null;
  at: number | null;
  focused: string | null;
  gaps: [number, number][];
}

function draw(
  canvas: HTMLCanvasElement,
  chart: Chart,
  scale: Scale,
  { width, height, offset, chosen, at, focused, gaps }: Drawing,
): void {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  const context = canvas.getContext("2d");
  if (!context) return;
  const style = getComputedStyle(canvas);
  const colour = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const fills = Object.fromEntries(LEGEND.map((state) => [state, colour(`state-${state}`)])) as Record<
    ExecutionState,
    string
  >;
  const [ground, line, text] = [colour("card"), colour("line"), colour("text")];
  const toX = (seconds: number): number => scale(seconds * 1000);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const alone = chosen === null ? -1 : chart.lanes.indexOf(chosen);
  if (alone !== -1) {
    context.fillStyle = colour("code");
    context.fillRect(0, alone * LANE_PX - offset, width, LANE_PX);
  }
  context.fillStyle = line;
  for (let lane = 0; lane < Math.max(1, chart.lanes.length); lane++) {
    context.fillRect(0, lane * LANE_PX - offset + BAR_TOP_PX + BAR_PX, width, 1);
  }
  // Gaps are of the kernel that is looked at.
  const [gapTop, gapHeight] = alone === -1 ? [0, height] : [alone * LANE_PX - offset, LANE_PX];
  for (const [since, until] of gaps) {
    context.globalAlpha = 0.5;
    context.fillRect(toX(since), gapTop, Math.max(2, toX(until) - toX(since)), gapHeight);
    context.globalAlpha = 1;
  }
  for (const bar of chart.bars) {
    const top = bar.lane * LANE_PX - offset;
    if (top + LANE_PX < 0 || top > height) continue;
    const end = toX(bar.ended);
    if (end < -20 || toX(bar.queued) > width + 20) continue;
    const start = toX(bar.started ?? bar.ended);
    const waited = start - toX(bar.queued);
    if (waited > 1) {
      context.fillStyle = fills.queued;
      context.globalAlpha = 0.55;
      context.fillRect(toX(bar.queued), top + QUEUE_TOP_PX, waited, QUEUE_PX);
      context.globalAlpha = 1;
    }
    context.fillStyle = fills[bar.state];
    const long = Math.max(bar.started === null ? 0 : 2, end - start);
    const drawn = long > 3 ? long - 1 : long; // a line of air to the next
    if (bar.started !== null) context.fillRect(start, top + BAR_TOP_PX, drawn, BAR_PX);
    if (long >= SHAPE_PX || bar.started === null) {
      const middle = bar.started === null ? end : end - SHAPE_PX / 2;
      drawShape(
        context,
        bar.state,
        middle,
        top + BAR_TOP_PX + BAR_PX / 2,
        bar.started === null ? fills[bar.state] : ground,
      );
    } else if (bar.state !== "ok" && bar.state !== "running") {
      // A notch below says it of bars too narrow for their shape.
      context.fillRect(start - 1, top + BAR_TOP_PX - 4, Math.max(4, long + 2), 3);
    }
    if (bar.id === focused) {
      context.strokeStyle = text;
      context.lineWidth = 2;
      context.strokeRect(start - 1, top + BAR_TOP_PX - 1, long + 2, BAR_PX + 2);
    }
  }
  if (at !== null) {
    context.fillStyle = colour("travel");
    context.fillRect(toX(at) - 1, 0, 2, height);
  }
}

function drawShape(
  context: CanvasRenderingContext2D,
  state: ExecutionState,
  x: number,
  y: number,
  colour: string,
): void {
  const { path, fill } = SHAPES[state];
  const shape = paths.get(state) ?? new Path2D(path);
  paths.set(state, shape);
  context.save();
  context.translate(x - 5, y - 5);
  context.scale(10 / 12, 10 / 12);
  context.lineWidth = 2;
  context.lineCap = "round";
  context.lineJoin = "round";
  if (fill) {
    context.fillStyle = colour;
    context.fill(shape);
  } else {
    context.strokeStyle = colour;
    context.stroke(shape);
  }
  context.restore();
}

const paths = new Map<ExecutionState, Path2D>();

function drawAxis(group: SVGGElement, scale: Scale, width: number): void {
  const count = Math.max(2, Math.floor(width / 90));
  const ticks = scale.ticks(count).filter((tick) => scale(tick) > EDGE_PX && scale(tick) < width - EDGE_PX);
  const step = ticks.length > 1 ? ((ticks[1]?.getTime() ?? 0) - (ticks[0]?.getTime() ?? 0)) / 1000 : 1;
  const format = tickFormat(step);
  select(group).call(
    axisBottom<Date>(scale as never)
      .tickValues(ticks)
      .tickFormat((date) => format(date))
      .tickSizeOuter(0),
  );
}
