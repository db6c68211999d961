/** The vectors of the TypeScript side are what Yjs writes today. `VECTORS=write` writes them anew. */

import { readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { makeDocuments, makeEchoes, makeFrames, makeRequests, makeSessions } from "./vectors.ts";

const HERE = new URL("../../../tests/vectors/", import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, HERE), "utf-8");
/** One case a line, so that a change is seen where it is. */
const dump = (cases: readonly unknown[]): string => `[\n${cases.map((each) => JSON.stringify(each)).join(",\n")}\n]\n`;

const FILES: [string, () => readonly unknown[]][] = [
  ["typescript/requests.json", makeRequests],
  ["typescript/documents.json", makeDocuments],
  ["typescript/frames.json", makeFrames],
  ["typescript/sessions.json", makeSessions],
  ["typescript/echoes.json", () => makeEchoes(JSON.parse(read("python/documents.json")))],
];

test.each(FILES)("%s is what Yjs writes", (name, make) => {
  const made = dump(make());
  if (process.env["VECTORS"] === "write") writeFileSync(new URL(name, HERE), made);
  expect(made).toBe(read(name));
});
