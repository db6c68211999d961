/**
 * A text of a terminal on the page: long ones folded to head and tail, and drawn only as far as they changed.
 *
 * While it is folded, what an update costs does not depend on how long the text is: the lines that are seen are drawn
 * anew. Unfolded, each piece is a block of its own; blocks are filled a few milliseconds at a time.
 */

import { PLAIN, readAnsi } from "./ansi.ts";
import { formatBytes } from "../format.ts";
import { appendRuns, formatCount, make, makeButton } from "./dom.ts";
import {
  headEnd,
  leadOf,
  LINE_CHARS,
  makePiece,
  type Piece,
  refreshStates,
  replacePieces,
  stateAt,
  tailStart,
  textBetween,
} from "./pieces.ts";

/** So long may filling blocks take before others have their turn. Milliseconds. */
const SLICE_MS = 8;
/** Fewer blocks than this are laid out whether they are seen or not. */
const MANY_PIECES = 4;

export interface Gap {
  /** It stands before this piece. */
  before: number;
  bytes: number;
}

interface Block extends Piece {
  element: HTMLElement | null;
  stale: boolean;
}

export class TextView {
  readonly element: HTMLElement;
  private readonly pieces: Block[] = [];
  private gap: Gap | null = null;
  private unfolded = false;
  private scheduled = 0;
  private headText: string | null = null;
  private readonly head = make("div", "out-head");
  private readonly tail = make("div", "out-tail");
  private readonly bar = make("div", "out-bar");
  private readonly all = make("div", "out-all");
  private readonly foldButton = makeButton("", () => this.toggle());
  private readonly gapNote = make("div", "out-gap");

  /** `loadGap`: the button that brings what the gap left out; null: there is none. */
  constructor(
    className: string,
    private readonly foldLines: number,
    loadGap: ((bytes: number) => HTMLElement | null) | null = null,
  ) {
    this.element = make("div", `out-text ${className}`);
    this.loadGap = loadGap;
    this.all.id = `out-all-${++made}`;
    this.foldButton.setAttribute("aria-controls", this.all.id);
  }

  private readonly loadGap: ((bytes: number) => HTMLElement | null) | null;

  /** Show these texts, which together are the whole. Pieces that are the same as before are not touched. */
  show(texts: readonly string[], gap: Gap | null = null): void {
    const oldGap = this.gap?.before ?? null;
    this.showGap(gap);
    const { from, to, removed } = replacePieces(this.pieces, texts, (text) => ({
      ...makePiece(text),
      element: null,
      stale: true,
    }));
    for (const piece of removed) piece.element?.remove();
    const end = refreshStates(this.pieces, from, to, gap?.before ?? null);
    const moved = oldGap !== (gap?.before ?? null);
    for (let at = Math.max(0, from - 1); at <= end && at < this.pieces.length; at++) this.touch(at);
    if (moved && gap) for (const at of [gap.before - 1, gap.before]) this.touch(at);
    this.draw();
  }

  destroy(): void {
    clearTimeout(this.scheduled);
  }

  private touch(index: number): void {
    const piece = this.pieces[index];
    if (piece) piece.stale = true;
  }

  private showGap(gap: Gap | null): void {
    if (gap && gap.bytes !== this.gap?.bytes) {
      this.gapNote.replaceChildren(`… ${formatBytes(gap.bytes)} left out here `);
      const button = this.loadGap?.(gap.bytes);
      if (button) this.gapNote.append(button);
    }
    this.gap = gap;
  }

  private draw(): void {
    const last = this.pieces.at(-1);
    let lines = last && !last.text.endsWith("\n") ? 1 : 0;
    let chars = 0;
    for (const piece of this.pieces) {
      lines += piece.newlines;
      chars += piece.text.length;
    }
    // a button in place of three lines would save nothing
    const fits = lines <= this.foldLines + 3 && chars <= (this.foldLines + 3) * LINE_CHARS;
    if (fits || this.unfolded) this.drawAll(fits);
    else this.drawFolded();
    const count = formatCount(lines);
    const text = this.unfolded ? "Show less" : this.gap ? `Show the ${count} lines that are here` : `Show all ${count} lines`;
    if (this.foldButton.textContent !== text) this.foldButton.textContent = text;
    this.foldButton.setAttribute("aria-expanded", String(this.unfolded));
  }

  private toggle(): void {
    this.unfolded = !this.unfolded;
    this.headText = null;
    this.draw();
    this.foldButton.focus({ preventScroll: true });
    if (!this.unfolded) this.element.scrollIntoView({ block: "nearest" });
  }

  private drawFolded(): void {
    const gap = this.gap?.before ?? null;
    const headLines = Math.max(1, Math.floor(this.foldLines / 3));
    const head = headEnd(this.pieces, headLines, gap ?? this.pieces.length);
    const tail = tailStart(this.pieces, Math.max(1, this.foldLines - headLines), Math.max(gap ?? 0, head.piece));
    if (tail.piece === head.piece && tail.index < head.index) tail.index = head.index;
    const headText = textBetween(this.pieces, { piece: 0, index: 0 }, head);
    if (headText !== this.headText) {
      this.headText = headText;
      this.head.replaceChildren();
      appendRuns(this.head, readAnsi(headText, PLAIN).runs);
    }
    const end = { piece: this.pieces.length, index: 0 };
    const looks = stateAt(this.pieces, tail, gap);
    const nodes = document.createDocumentFragment();
    appendRuns(nodes, readAnsi(textBetween(this.pieces, tail, end), looks).runs);
    this.tail.replaceChildren(nodes);
    this.bar.replaceChildren(this.foldButton);
    if (this.gap) this.bar.append(this.gapNote);
    this.put(this.head, this.bar, this.tail);
    // the blocks are made anew when they are wanted again
    if (this.all.firstChild) {
      this.all.replaceChildren();
      for (const piece of this.pieces) [piece.element, piece.stale] = [null, true];
    }
  }

  private drawAll(fits: boolean): void {
    this.all.classList.toggle("out-many", this.pieces.length > MANY_PIECES);
    let next: Node | null = this.all.firstChild;
    const place = (element: Node): void => {
      if (element === next) next = next.nextSibling;
      else this.all.insertBefore(element, next);
    };
    this.pieces.forEach((piece, at) => {
      if (this.gap?.before === at) place(this.gapNote);
      if (!piece.element) {
        piece.element = make("div", "out-piece");
        piece.element.style.setProperty("contain-intrinsic-block-size", `auto ${piece.newlines}lh`);
      }
      place(piece.element);
    });
    if (this.gap && this.gap.before >= this.pieces.length) place(this.gapNote);
    while (next) {
      const node: ChildNode = next as ChildNode;
      next = node.nextSibling;
      node.remove();
    }
    this.bar.replaceChildren(this.foldButton);
    if (fits) this.put(this.all);
    else this.put(this.all, this.bar);
    this.fill();
  }

  /** Fill the blocks that are not as they should be; go on later when it takes long. */
  private fill(): void {
    clearTimeout(this.scheduled);
    const start = performance.now();
    for (let at = 0; at < this.pieces.length; at++) {
      const piece = this.pieces[at] as Block;
      if (!piece.stale || !piece.element) continue;
      this.fillPiece(at, piece, piece.element);
      if (performance.now() - start > SLICE_MS) {
        this.scheduled = window.setTimeout(() => this.fill(), 0);
        return;
      }
    }
  }

  private fillPiece(at: number, piece: Block, element: HTMLElement): void {
    const gap = this.gap?.before ?? null;
    const lead = leadOf(this.pieces, at, gap);
    const state = stateAt(this.pieces, { piece: at, index: lead }, gap);
    const own = piece.text.slice(lead) + (this.pieces[at + 1]?.text.slice(0, leadOf(this.pieces, at + 1, gap)) ?? "");
    // the end of the block is the end of the line; an empty last line needs its own
    const text = own.endsWith("\n") && own !== "\n" && !own.endsWith("\n\n") ? own.slice(0, -1) : own;
    const nodes = document.createDocumentFragment();
    appendRuns(nodes, readAnsi(text, state).runs);
    element.replaceChildren(nodes);
    element.hidden = text === "";
    piece.stale = false;
  }

  private put(...children: HTMLElement[]): void {
    const same = children.length === this.element.children.length && children.every((child, at) => child === this.element.children[at]);
    if (!same) this.element.replaceChildren(...children);
  }
}

let made = 0;
