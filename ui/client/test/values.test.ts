// Values of bundles: which one some bytes stand for, and when two are the same.

import { expect, test } from "vitest";

import { decodeBlob, sameValue } from "../src/index.ts";

test("a blob stands in a bundle as its type does: base64, JSON, text", () => {
  const bytes = new TextEncoder().encode('{"é":1}');
  expect(decodeBlob(bytes, "image/png")).toBe(btoa('{"Ã©":1}'));
  expect(decodeBlob(bytes, "application/vnd.plotly.v1+json")).toEqual({ é: 1 });
  expect(decodeBlob(bytes, "image/svg+xml")).toBe('{"é":1}');
  expect(decodeBlob(new TextEncoder().encode("{"), "application/json")).toBe("{");
});

test("values are the same when all that they hold is", () => {
  const value = (): unknown => ({ a: [1, null, { b: new Uint8Array([1, 2]) }], c: "x", d: undefined });
  expect(sameValue(value(), value())).toBe(true);
  for (const other of [
    { ...(value() as object), c: "y" },
    { ...(value() as object), a: [1, null, { b: new Uint8Array([1, 3]) }] },
    { a: [1, null, { b: new Uint8Array([1, 2]) }], c: "x", e: undefined },
    { a: { 0: 1, 1: null, 2: { b: new Uint8Array([1, 2]) } }, c: "x", d: undefined },
    null,
    "x",
  ]) {
    expect(sameValue(value(), other)).toBe(false);
  }
  const sameText = (one: string, other: string): boolean => one.trimEnd() === other.trimEnd();
  expect([sameValue(["a "], ["a"]), sameValue(["a "], ["a"], sameText)]).toEqual([false, true]);
});
