/** The pure parts of outputs: looks of terminals, where a text is folded, which type is shown. */

import { describe, expect, test } from "vitest";
import { BOLD, INVERSE, PLAIN, plainText, readAnsi, type Run, UNDERLINE } from "../src/outputs/ansi.ts";
import { asText, isReference, rankTypes } from "../src/outputs/mime.ts";
import {
  codePointCount,
  cutText,
  headEnd,
  indexOfCodePoint,
  leadOf,
  makePiece,
  refreshStates,
  replacePieces,
  stateAt,
  tailStart,
  textBetween,
} from "../src/outputs/pieces.ts";

const ESC = "\u001b";
/** Runs that look the same are one. */
function merge(runs: readonly Run[]): Run[] {
  const merged: Run[] = [];
  for (const { text, looks: { fg, bg, flags, link } } of runs) {
    const last = merged.at(-1);
    const looks = { fg, bg, flags, link };
    if (last && JSON.stringify(last.looks) === JSON.stringify(looks)) last.text += text;
    else merged.push({ text, looks });
  }
  return merged;
}

const pieces = (...texts: string[]) => texts.map(makePiece);

describe("text of terminals", () => {
  test("is the same however it is cut", () => {
    const text = `a${ESC}[1;31mb${ESC}[38;5;200mc${ESC}[48:2::1:2:3md${ESC}]8;;https://x.org/é${ESC}\\link${ESC}]8;;\u0007${ESC}[2Ke${ESC}(Bf${ESC}[mg`;
    const whole = readAnsi(text, PLAIN);
    for (let cut = 0; cut <= text.length; cut++) {
      const first = readAnsi(text.slice(0, cut), PLAIN);
      const second = readAnsi(text.slice(cut), first.after);
      expect(merge([...first.runs, ...second.runs])).toEqual(merge(whole.runs));
      expect(second.after).toEqual(whole.after);
    }
    expect(plainText(text)).toBe("abcdlinkefg");
  });

  test.each([
    ["1;4;7", { fg: null, bg: null, flags: BOLD | UNDERLINE | INVERSE }],
    ["31;42;22", { fg: 1, bg: 2, flags: 0 }],
    ["97;100", { fg: 15, bg: 8, flags: 0 }],
    ["38;5;300;1", { fg: null, bg: null, flags: BOLD }],
    ["38;2;255;0;16;4", { fg: "#ff0010", bg: null, flags: UNDERLINE }],
    ["38:2:1:2:3;48:5:7", { fg: "#010203", bg: 7, flags: 0 }],
    ["1;0;38;5", { fg: null, bg: null, flags: 0 }],
    ["4:3", { fg: null, bg: null, flags: UNDERLINE }],
  ])("%s", (parameters, looks) => {
    expect(readAnsi(`${ESC}[${parameters}mx`, PLAIN).runs[0]?.looks).toMatchObject(looks);
  });

  test.each(["javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x", "file:///etc/passwd", "//host", "https://a b"])(
    "%s is no link",
    (address) => {
      expect(readAnsi(`${ESC}]8;;${address}${ESC}\\x`, PLAIN).runs).toEqual([{ text: "x", looks: expect.objectContaining({ link: null }) as unknown }]);
    },
  );

  test("a sequence without end keeps at most some text back", () => {
    const long = `${ESC}]8;;${"x".repeat(100_000)}`;
    expect(readAnsi(long, PLAIN).after.rest.length).toBeLessThan(5000);
  });
});

describe("pieces", () => {
  test("head and tail are whole lines, and of a long line a part", () => {
    const some = pieces("a\nb\n", "c\nd", "d\ne\nf\n");
    expect(textBetween(some, { piece: 0, index: 0 }, headEnd(some, 3, 3))).toBe("a\nb\nc\n");
    expect(textBetween(some, tailStart(some, 2, 0), { piece: 3, index: 0 })).toBe("e\nf\n");
    expect(textBetween(some, tailStart(some, 3, 0), { piece: 3, index: 0 })).toBe("dd\ne\nf\n");
    const long = pieces("😀".repeat(5000));
    expect(textBetween(long, { piece: 0, index: 0 }, headEnd(long, 1, 1))).toBe("😀".repeat(100));
    expect(textBetween(long, tailStart(long, 1, 0), { piece: 1, index: 0 })).toBe("😀".repeat(100));
    expect(tailStart(some, 100, 0)).toEqual({ piece: 0, index: 0 });
    expect(headEnd(some, 100, 3)).toEqual({ piece: 3, index: 0 });
  });

  test("those that are the same stay the same", () => {
    const some = pieces("a", "b", "c", "d");
    const [a, , , d] = some;
    const { from, to, removed } = replacePieces(some, ["a", "x", "y", "z", "d"], makePiece);
    expect([from, to, removed.map(({ text }) => text)]).toEqual([1, 4, ["b", "c"]]);
    expect([some[0], some[4]]).toEqual([a, d]);
    expect(some[0]).toBe(a);
    expect(some[4]).toBe(d);
  });

  test("a colour goes on over pieces, is read anew behind a change, and ends at a gap", () => {
    const some = pieces(`${ESC}[31ma`, "b", "c");
    expect(stateAt(some, { piece: 2, index: 1 }, null).fg).toBe(1);
    expect(stateAt(pieces(`${ESC}[31ma`, "b"), { piece: 1, index: 0 }, 1).fg).toBe(null);
    replacePieces(some, [`${ESC}[32ma`, "b", "c"], makePiece);
    refreshStates(some, 0, 1, null);
    expect(stateAt(some, { piece: 2, index: 0 }, null).fg).toBe(2);
  });

  test("the end of a line belongs to the piece that began it", () => {
    const some = pieces("a\nb", "c\nd", "e");
    expect([leadOf(some, 0, null), leadOf(some, 1, null), leadOf(some, 2, null), leadOf(some, 1, 1)]).toEqual([0, 2, 0, 0]);
  });

  test("a text is cut at lines, and never within a character", () => {
    expect(cutText("ab\ncd\nef", 4)).toEqual(["ab\n", "cd\n", "ef"]);
    expect(cutText("😀😀😀", 3).join("")).toBe("😀😀😀");
    expect(cutText("😀😀😀", 3)).toEqual(["😀", "😀", "😀"]);
    expect(cutText("", 4)).toEqual([]);
  });

  test("code points", () => {
    expect(indexOfCodePoint("a😀b", 2)).toBe(3);
    expect(codePointCount("a😀b")).toBe(3);
  });
});

describe("types", () => {
  test("the richest first, what is too large last", () => {
    const html = { blob: null, bytes: 9e9, preview: null };
    const types = rankTypes({ "text/plain": "x", "image/png": "x", "text/html": html, "application/x": 1, "a/b+json": {} }).map(({ type }) => type);
    expect(types).toEqual(["image/png", "text/plain", "a/b+json", "application/x", "text/html"]);
    expect(rankTypes({})[0]?.kind).toBe("unknown");
  });

  test("a reference names a digest, and nothing else is one", () => {
    const good = { blob: `sha256:${"0".repeat(64)}`, bytes: 1, preview: null };
    expect(isReference(good)).toBe(true);
    for (const bad of [null, [], "x", { ...good, blob: "sha256:../x" }, { ...good, bytes: "1" }, { blob: null, bytes: 1 }]) expect(isReference(bad)).toBe(false);
  });

  test("lines are joined", () => {
    expect(asText(["a\n", "b"])).toBe("a\nb");
    expect(asText({ a: 1 })).toBe('{\n  "a": 1\n}');
  });
});
