/**
 * Which rows of a long list are in the page, and where does it stand?
 *
 * Only what is near the viewport has elements; heights are measured as they come. It also keeps two things of the
 * reader: whether the list is followed (until the reader scrolls), and which row has the focus.
 */

import { signal } from "@preact/signals";
import {
  elementScroll,
  observeElementOffset,
  observeElementRect,
  Virtualizer,
  type VirtualizerOptions,
} from "@tanstack/virtual-core";
import type { ComponentChildren, JSX } from "preact";
import { useCallback, useLayoutEffect, useRef } from "preact/hooks";

/** Pixels from the end that still count as the end. */
const END_PX = 4;
/** Scroll events so soon after a wheel, a key or a finger are the reader's. */
const HAND_MS = 700;
/** Less than this of a row is not seen. */
const HEAD_PX = 80;

export class ListController {
  readonly following = signal(true);
  readonly focused = signal<string | null>(null);
  readonly version = signal(0);
  keys: readonly string[] = [];
  element: HTMLElement | null = null;
  virtualizer: Virtualizer<HTMLElement, HTMLElement> | null = null;
  /** What is followed; null: the last row. */
  readonly target = signal<string | null>(null);
  private pending: { key: string; focus: boolean } | null = null;
  /** Where it stood when we last scrolled or looked, and how far it could be scrolled then. */
  private stood = -1;
  private extent = 0;
  private handUntil = 0;

  constructor(readonly anchor: "start" | "end") {}

  /** Scroll to a row; as soon as it is in the list, if it is not yet. */
  reveal(key: string, focus: boolean): void {
    this.following.value = false;
    this.pending = { key, focus };
    this.focused.value = key;
    this.version.value++;
  }

  follow(): void {
    this.following.value = true;
    this.stick();
  }

  unfollow(): void {
    this.following.value = false;
  }

  move(step: number): void {
    const at = this.focused.peek() === null ? -1 : this.keys.indexOf(this.focused.peek() ?? "");
    const from = at === -1 ? (step > 0 ? this.firstVisible() - 1 : this.firstVisible() + 1) : at;
    const key = this.keys[Math.min(this.keys.length - 1, Math.max(0, from + step))];
    if (key !== undefined) this.reveal(key, true);
  }

  moveTo(end: "first" | "last"): void {
    const key = end === "first" ? this.keys[0] : this.keys.at(-1);
    if (key !== undefined) this.reveal(key, true);
  }

  mount(element: HTMLElement | null): void {
    this.element = element;
    this.stood = -1;
  }

  /** We have scrolled, or looked. */
  note(): void {
    const element = this.element;
    this.stood = element?.scrollTop ?? -1;
    this.extent = element ? element.scrollHeight - element.clientHeight : 0;
  }

  /** The reader's hand is on it. Milliseconds; infinity: until further notice. */
  touch(for_ms: number): void {
    this.handUntil = performance.now() + for_ms;
  }

  /**
   * Was it the reader who scrolled? By a wheel, a finger or a key; or by other means (the focus moved, a search of the
   * browser) where it stands elsewhere although nothing has grown or shrunk.
   */
  scrolled(): void {
    const element = this.element;
    if (!element || this.stood === -1 || Math.abs(element.scrollTop - this.stood) <= 2) return;
    const isReader = performance.now() < this.handUntil || element.scrollHeight - element.clientHeight === this.extent;
    this.note();
    if (!isReader) return;
    const target = this.target.peek();
    this.following.value = this.isAtEnd() && (target === null || target === this.keys.at(-1));
  }

  isAtEnd(): boolean {
    const element = this.element;
    return element !== null && element.scrollHeight - element.scrollTop - element.clientHeight <= END_PX;
  }

  /** Where it is followed, bring what is followed into view. */
  stick(): void {
    this.bring();
    this.note();
  }

  private bring(): void {
    const { element, virtualizer } = this;
    if (!element || !virtualizer) return;
    if (this.pending) {
      this.settle();
      return;
    }
    this.scrolled(); // its event may not have come yet
    if (!this.following.peek()) return;
    const target = this.target.peek();
    const index = target === null ? -1 : this.keys.indexOf(target);
    if (index === -1 || index === this.keys.length - 1) {
      if (this.anchor === "end" && !this.isAtEnd()) this.scrollTo(element.scrollHeight);
      return;
    }
    const item = virtualizer.measurementsCache[index];
    if (!item) return;
    const wanted = Math.max(0, item.end - element.clientHeight + 12);
    const isSeen = item.end <= element.scrollTop + element.clientHeight && item.end > element.scrollTop + HEAD_PX;
    if (!isSeen && Math.abs(element.scrollTop - wanted) > 1) this.scrollTo(wanted);
  }

  private scrollTo(top: number): void {
    if (!this.element) return;
    this.element.scrollTop = top;
    this.note();
  }

  private settle(): void {
    const pending = this.pending;
    const index = pending ? this.keys.indexOf(pending.key) : -1;
    if (!pending || index === -1 || !this.virtualizer || !this.element) return;
    const row = this.element.querySelector<HTMLElement>(`[data-key="${CSS.escape(pending.key)}"]`);
    if (!row) {
      this.virtualizer.scrollToIndex(index, { align: "center" });
      return;
    }
    this.pending = null;
    const [box, port] = [row.getBoundingClientRect(), this.element.getBoundingClientRect()];
    const fits = box.top >= port.top && box.bottom <= port.bottom;
    if (!fits)
      this.virtualizer.scrollToIndex(index, {
        align: box.height > port.height || box.top < port.top ? "start" : "end",
      });
    if (pending.focus) row.querySelector<HTMLElement>("[data-row-focus]")?.focus({ preventScroll: true });
  }

  private firstVisible(): number {
    return this.virtualizer?.range?.startIndex ?? 0;
  }
}

export interface VirtualListProps {
  controller: ListController;
  keys: readonly string[];
  label: string;
  estimate: (index: number) => number;
  render: (key: string, index: number) => ComponentChildren;
  /** The reader nears the top. */
  onTop?: () => void;
  before?: ComponentChildren;
  empty?: ComponentChildren;
}

export function VirtualList(props: VirtualListProps): JSX.Element {
  const { controller, keys, estimate } = props;
  const scroller = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  controller.version.value;
  controller.keys = keys;
  const kept = controller.focused.value;

  const options: VirtualizerOptions<HTMLElement, HTMLElement> = {
    count: keys.length,
    getScrollElement: () => scroller.current,
    estimateSize: estimate,
    getItemKey: (index) => keys[index] ?? index,
    scrollToFn: (offset, options, instance) => {
      elementScroll(offset, options, instance);
      controller.note();
    },
    observeElementRect,
    observeElementOffset,
    overscan: 3,
    anchorTo: controller.anchor,
    scrollEndThreshold: END_PX,
    paddingStart: props.before ? 44 : 8,
    paddingEnd: 16,
    rangeExtractor: ({ startIndex, endIndex, overscan, count }) => {
      const from = Math.max(0, startIndex - overscan);
      const to = Math.min(count - 1, endIndex + overscan);
      const indexes = Array.from({ length: Math.max(0, to - from + 1) }, (_, at) => from + at);
      // The row with the focus stays, or the focus would be lost.
      const focused = kept === null ? -1 : keys.indexOf(kept);
      return focused === -1 || (focused >= from && focused <= to)
        ? indexes
        : [...indexes, focused].sort((a, b) => a - b);
    },
    onChange: () => {
      controller.version.value++;
    },
  };
  const virtualizer = (controller.virtualizer ??= new Virtualizer(options));
  virtualizer.setOptions(options);

  useLayoutEffect(() => {
    const element = scroller.current;
    controller.mount(element);
    const unmount = virtualizer._didMount();
    const wheel = (event: WheelEvent): void => {
      controller.touch(HAND_MS);
      if (event.deltaY < 0) controller.unfollow();
    };
    const hold = (): void => controller.touch(Number.POSITIVE_INFINITY);
    const touch = (): void => controller.touch(HAND_MS);
    const scroll = (): void => controller.scrolled();
    element?.addEventListener("wheel", wheel, { passive: true });
    element?.addEventListener("scroll", scroll, { passive: true });
    element?.addEventListener("pointerdown", hold, { passive: true });
    element?.addEventListener("keydown", touch, { passive: true });
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, touch, { passive: true });
    return () => {
      unmount();
      element?.removeEventListener("wheel", wheel);
      element?.removeEventListener("scroll", scroll);
      element?.removeEventListener("pointerdown", hold);
      element?.removeEventListener("keydown", touch);
      for (const name of ["pointerup", "pointercancel"]) window.removeEventListener(name, touch);
      controller.mount(null);
      controller.virtualizer = null;
    };
  }, [controller, virtualizer]);

  useLayoutEffect(() => {
    virtualizer._willUpdate();
    controller.stick();
    const { onTop } = latest.current;
    if (onTop && scroller.current && scroller.current.scrollTop < 1500 && !controller.following.peek()) onTop();
  });

  const measure = useCallback((element: HTMLElement | null) => virtualizer.measureElement(element), [virtualizer]);
  const items = virtualizer.getVirtualItems();
  const feed = { role: "feed", "aria-label": props.label, "aria-busy": false } as const;
  return (
    <div class="scroller" ref={scroller} tabIndex={0} role="region" aria-label={props.label}>
      {props.before ? <div class="before">{props.before}</div> : null}
      {keys.length === 0 ? props.empty : null}
      <div
        class="rows"
        {...(keys.length > 0 ? feed : {})} // without articles it is none
        style={{ height: `${virtualizer.getTotalSize()}px` }}
      >
        {items.map((item) => (
          <div
            key={item.key}
            class="row"
            data-index={item.index}
            data-key={item.key}
            ref={measure}
            style={{ top: `${item.start}px` }} // not by a transform, which position: sticky inside would not know of
          >
            {props.render(String(item.key), item.index)}
          </div>
        ))}
      </div>
    </div>
  );
}
