/**
 * What does a terminal's text look like?
 *
 * Pure: a text and the state before it give pieces of plain text, each with its looks, and the state after it. A text may
 * be cut anywhere, in the middle of an escape sequence too. Control sequences that are not about looks are left out.
 * (ECMA-48 SGR, ISO 8613-6 colours, and OSC 8 links.)
 */

/** 0 to 255 of the terminal's palette, or `#rrggbb`. */
export type Colour = number | string;

export interface Looks {
  readonly fg: Colour | null;
  readonly bg: Colour | null;
  /** See the constants below. */
  readonly flags: number;
  /** An http, https or mailto address; others are never given on. */
  readonly link: string | null;
}

export interface AnsiState extends Looks {
  /** The beginning of a sequence that the text ended in. */
  readonly rest: string;
}

export interface Run {
  text: string;
  looks: Looks;
}

export const BOLD = 1;
export const FAINT = 2;
export const ITALIC = 4;
export const UNDERLINE = 8;
export const INVERSE = 16;
export const CONCEALED = 32;
export const STRUCK = 64;

export const PLAIN: AnsiState = { fg: null, bg: null, flags: 0, link: null, rest: "" };

/** A sequence that goes on for longer than this is text. */
const REST_CHARS = 4096;
const LINK_CHARS = 2048;
const SAFE_LINK = /^(?:https?:\/\/|mailto:)[^\s\u0000-\u001f]+$/i;

/* eslint-disable no-control-regex */
const SEQUENCE =
  /\u001b(?:\[([0-?]*)[ -/]*([@-~])|\]([^\u0007\u001b]*)(?:\u0007|\u001b\\)|[PX^_][^\u001b]*\u001b\\|[ -/]*[0-~])|[\u0000-\u0008\u000b-\u001f\u007f]/g;
const UNFINISHED = /\u001b(?:\[[0-?]*[ -/]*|\][^\u0007\u001b]*\u001b?|[PX^_][^\u001b]*\u001b?|[ -/]*)$/;

/** Each flag: the codes that set it, and the one that takes it away. */
const SET: Readonly<Record<number, number>> = {
  1: BOLD, 2: FAINT, 3: ITALIC, 4: UNDERLINE, 7: INVERSE, 8: CONCEALED, 9: STRUCK, 21: UNDERLINE,
};
const UNSET: Readonly<Record<number, number>> = {
  22: BOLD | FAINT, 23: ITALIC, 24: UNDERLINE, 27: INVERSE, 28: CONCEALED, 29: STRUCK,
};

export function readAnsi(text: string, before: AnsiState): { runs: Run[]; after: AnsiState } {
  const source = before.rest + text;
  if (!source.includes("\u001b") && !/[\u0000-\u0008\u000b-\u001f\u007f]/.test(source)) {
    const after = before.rest === "" ? before : { ...before, rest: "" };
    return { runs: source === "" ? [] : [{ text: source, looks: before }], after };
  }
  const lastEscape = source.lastIndexOf("\u001b", source.length - 1);
  const tail = lastEscape < 0 ? null : unfinished(source, lastEscape);
  const whole = tail === null ? source : source.slice(0, source.length - tail.length);
  const runs: Run[] = [];
  let looks: Looks = before;
  let at = 0;
  const take = (end: number): void => {
    if (end > at) runs.push({ text: whole.slice(at, end), looks });
  };
  SEQUENCE.lastIndex = 0;
  for (let found = SEQUENCE.exec(whole); found; found = SEQUENCE.exec(whole)) {
    take(found.index);
    at = SEQUENCE.lastIndex;
    if (found[2] === "m" && !/[<-?]/.test(found[1] ?? "")) looks = applySgr(looks, found[1] ?? "");
    else if (found[3]?.startsWith("8;")) looks = { ...looks, link: readLink(found[3]) };
  }
  take(whole.length);
  return { runs, after: { fg: looks.fg, bg: looks.bg, flags: looks.flags, link: looks.link, rest: tail ?? "" } };
}

/** The text without any sequences. */
export function plainText(text: string): string {
  return readAnsi(text, PLAIN)
    .runs.map((run) => run.text)
    .join("");
}

export function sameState(one: AnsiState, other: AnsiState): boolean {
  return (
    one === other ||
    (one.fg === other.fg && one.bg === other.bg && one.flags === other.flags && one.link === other.link && one.rest === other.rest)
  );
}

/** The unfinished sequence at the end. An `ESC` that may end a string (`ESC \`) belongs to the one before it. */
function unfinished(source: string, lastEscape: number): string | null {
  const from = lastEscape === source.length - 1 ? source.lastIndexOf("\u001b", lastEscape - 1) : lastEscape;
  for (const start of from >= 0 && from !== lastEscape ? [from, lastEscape] : [lastEscape]) {
    if (source.length - start > REST_CHARS) continue;
    const found = UNFINISHED.exec(source.slice(start));
    if (found?.index === 0) return found[0];
  }
  return null;
}

function readLink(osc: string): string | null {
  const target = osc.slice(osc.indexOf(";", 2) + 1);
  return target.length <= LINK_CHARS && SAFE_LINK.test(target) ? target : null;
}

function applySgr(looks: Looks, parameters: string): Looks {
  let { fg, bg, flags } = looks;
  const codes = parameters.split(";");
  for (let at = 0; at < codes.length; at++) {
    const parts = (codes[at] ?? "").split(":");
    const code = Number(parts[0] || 0);
    if (code === 0) [fg, bg, flags] = [null, null, 0];
    else if (code === 4 && parts[1] === "0") flags &= ~UNDERLINE;
    else if (code in SET) flags |= SET[code] ?? 0;
    else if (code in UNSET) flags &= ~(UNSET[code] ?? 0);
    else if (code === 39) fg = null;
    else if (code === 49) bg = null;
    else if (code >= 30 && code <= 37) fg = code - 30;
    else if (code >= 40 && code <= 47) bg = code - 40;
    else if (code >= 90 && code <= 97) fg = code - 82;
    else if (code >= 100 && code <= 107) bg = code - 92;
    else if (code === 38 || code === 48 || code === 58) {
      // 38;5;n and 38;2;r;g;b take the codes behind them; 38:5:n and 38:2:[space]:r:g:b stand in one
      const inOne = parts.length > 1;
      const rest = inOne ? parts.slice(1) : codes.slice(at + 1, at + 5);
      const space = inOne && rest[0] === "2" && rest.length > 4 ? 1 : 0;
      const colour = readColour(rest[0], rest.slice(1 + space));
      if (!inOne) at += rest[0] === "5" ? 2 : rest[0] === "2" ? 4 : 1;
      if (code === 38) fg = colour ?? fg;
      else if (code === 48) bg = colour ?? bg;
    }
  }
  return { fg, bg, flags, link: looks.link };
}

function readColour(kind: string | undefined, values: readonly string[]): Colour | null {
  const wanted = kind === "5" ? 1 : kind === "2" ? 3 : 0;
  const numbers = values.slice(0, wanted).map((value) => Number(value || 0));
  if (wanted === 0 || numbers.length < wanted) return null;
  if (numbers.some((value) => !Number.isInteger(value) || value < 0 || value > 255)) return null;
  if (kind === "5") return numbers[0] ?? null;
  return `#${numbers.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** A colour of the palette above the 16 that the style sheet names, as `#rrggbb`. */
export function paletteColour(index: number): string {
  if (index >= 232) return `#${(8 + (index - 232) * 10).toString(16).padStart(2, "0").repeat(3)}`;
  const level = (step: number): string => (step === 0 ? 0 : 55 + step * 40).toString(16).padStart(2, "0");
  const cube = index - 16;
  return `#${level(Math.floor(cube / 36))}${level(Math.floor(cube / 6) % 6)}${level(cube % 6)}`;
}
