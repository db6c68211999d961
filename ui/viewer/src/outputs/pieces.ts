/**
 * Where in a long text are its first and its last lines?
 *
 * Pure. A text comes in pieces, which may be cut anywhere; positions are a piece and an index in it (UTF-16).
 */

import { type AnsiState, PLAIN, readAnsi, sameState } from "./ansi.ts";

/** A line that is longer than so many characters counts as several: it fills several on the screen. */
export const LINE_CHARS = 200;
/** What came more than so many pieces before is not read for its colours. */
const LOOK_BACK = 256;

export interface Piece {
  readonly text: string;
  readonly newlines: number;
  before: AnsiState | null;
  after: AnsiState | null;
}

export interface Position {
  piece: number;
  index: number;
}

export function makePiece(text: string): Piece {
  let newlines = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) newlines++;
  return { text, newlines, before: null, after: null };
}

/**
 * Take over new texts, keeping the pieces that are the same.
 *
 * @returns the changed range `[from, to)` of `pieces`, as it is afterwards.
 */
export function replacePieces<T extends Piece>(
  pieces: T[],
  texts: readonly string[],
  create: (text: string) => T,
): { from: number; to: number; removed: T[] } {
  let from = 0;
  while (from < pieces.length && from < texts.length && pieces[from]?.text === texts[from]) from++;
  let oldEnd = pieces.length;
  let to = texts.length;
  while (oldEnd > from && to > from && pieces[oldEnd - 1]?.text === texts[to - 1]) [oldEnd, to] = [oldEnd - 1, to - 1];
  const removed = pieces.splice(from, oldEnd - from, ...texts.slice(from, to).map(create));
  return { from, to, removed };
}

/** The state of the terminal before a piece. Nothing is known of what stood in a gap. */
export function stateBefore(pieces: readonly Piece[], index: number, gap: number | null): AnsiState {
  const known = pieces[index]?.before;
  if (known) return known;
  let start = index;
  while (start > 0 && start !== gap && index - start < LOOK_BACK && !pieces[start]?.before) start--;
  let state = pieces[start]?.before ?? PLAIN;
  for (let at = start; at < index; at++) {
    const piece = pieces[at] as Piece;
    piece.before = state;
    state = piece.after ??= readAnsi(piece.text, state).after;
  }
  const piece = pieces[index];
  if (piece) piece.before = state;
  return state;
}

/** Forget what was read of pieces behind a change, where it is other now. Returns how far that reaches. */
export function refreshStates(pieces: readonly Piece[], from: number, to: number, gap: number | null): number {
  for (let at = from; at < to; at++) Object.assign(pieces[at] as Piece, { before: null, after: null });
  if (to >= pieces.length || to === gap || to === from) return to;
  const next = pieces[to] as Piece;
  const known = next.before;
  if (!known) return to;
  next.before = null;
  if (sameState(stateBefore(pieces, to, gap), known)) return to;
  let end = to + 1;
  next.after = null;
  for (; end < pieces.length && end !== gap; end++) Object.assign(pieces[end] as Piece, { before: null, after: null });
  return end;
}

/** How many characters at the beginning of a piece end the line that began in the piece before. */
export function leadOf(pieces: readonly Piece[], index: number, gap: number | null): number {
  const piece = pieces[index];
  if (!piece || index === 0 || index === gap || pieces[index - 1]?.text.endsWith("\n")) return 0;
  return piece.text.indexOf("\n") + 1;
}

/** Where the first `lines` lines end. */
export function headEnd(pieces: readonly Piece[], lines: number, stop: number): Position {
  let room = lines * LINE_CHARS;
  let left = lines;
  for (let piece = 0; piece < stop; piece++) {
    const { text } = pieces[piece] as Piece;
    let index = 0;
    while (left > 0 && room > 0) {
      const newline = text.indexOf("\n", index);
      const end = newline < 0 ? text.length : newline + 1;
      if (end - index >= room) return { piece, index: whole(text, index + room) };
      room -= end - index;
      index = end;
      if (newline < 0) break;
      left--;
    }
    if (left <= 0 || room <= 0) return { piece, index };
  }
  return { piece: stop, index: 0 };
}

/** Where the last `lines` lines begin. */
export function tailStart(pieces: readonly Piece[], lines: number, stop: number): Position {
  let room = lines * LINE_CHARS;
  let left = lines;
  let last = true;
  for (let piece = pieces.length - 1; piece >= stop; piece--) {
    const { text } = pieces[piece] as Piece;
    let index = text.length;
    if (last && text.endsWith("\n")) [index, room] = [index - 1, room - 1];
    if (text !== "") last = false;
    while (index > 0) {
      const newline = text.lastIndexOf("\n", index - 1);
      const start = newline + 1;
      if (index - start >= room) return { piece, index: whole(text, index - room) };
      room -= index - start;
      if (newline >= 0) {
        if (--left <= 0) return { piece, index: start };
        room--;
      }
      index = newline < 0 ? 0 : newline;
    }
  }
  return { piece: stop, index: 0 };
}

export function textBetween(pieces: readonly Piece[], from: Position, to: Position): string {
  if (from.piece === to.piece) return pieces[from.piece]?.text.slice(from.index, to.index) ?? "";
  const parts = [pieces[from.piece]?.text.slice(from.index) ?? ""];
  for (let at = from.piece + 1; at < to.piece; at++) parts.push(pieces[at]?.text ?? "");
  parts.push(pieces[to.piece]?.text.slice(0, to.index) ?? "");
  return parts.join("");
}

/** The terminal's state at a position. */
export function stateAt(pieces: readonly Piece[], at: Position, gap: number | null): AnsiState {
  const before = stateBefore(pieces, Math.min(at.piece, pieces.length), gap);
  const text = pieces[at.piece]?.text.slice(0, at.index) ?? "";
  return text === "" ? before : readAnsi(text, before).after;
}

/** Cut a text into pieces of about `size`, at the ends of lines where there are any. */
export function cutText(text: string, size: number): string[] {
  const pieces: string[] = [];
  for (let at = 0; at < text.length; ) {
    let end = Math.min(text.length, at + size);
    if (end < text.length) {
      const newline = text.lastIndexOf("\n", end - 1);
      end = newline >= at ? newline + 1 : whole(text, end);
    }
    pieces.push(text.slice(at, end));
    at = end;
  }
  return pieces;
}

/** An index that does not stand between the halves of a character. */
function whole(text: string, index: number): number {
  const code = text.charCodeAt(index);
  return code >= 0xdc00 && code <= 0xdfff && index > 1 ? index - 1 : index;
}

/** The UTF-16 index of a code point. */
export function indexOfCodePoint(text: string, count: number): number {
  let index = 0;
  for (let left = count; left > 0 && index < text.length; left--) {
    const code = text.charCodeAt(index);
    index += code >= 0xd800 && code <= 0xdbff && index + 1 < text.length ? 2 : 1;
  }
  return index;
}

export function codePointCount(text: string): number {
  let count = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code < 0xdc00 || code > 0xdfff) count++;
  }
  return count;
}
