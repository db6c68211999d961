// What README.md shows is a program, and it does what it says.

import { readFileSync } from "node:fs";

import { expect, test, vi } from "vitest";

import { Scene } from "./agent.ts";

const read = (name: string): string => readFileSync(new URL(name, import.meta.url), "utf-8");

test("the example of the README follows a kernel and runs code in it", async () => {
  expect(read("../README.md")).toContain(`\`\`\`ts\n${read("example.ts")}\`\`\``);
  const scene = await Scene.start();
  try {
    vi.stubEnv("RTC_LINK", `${scene.url}/?token=${await scene.share("run", "reader")}`);
    const lines: unknown[][] = [];
    vi.spyOn(console, "log").mockImplementation((...said) => void lines.push(said));
    await import("./example.ts");
    vi.restoreAllMocks();
    const [[count, what] = []] = lines;
    expect([0, 1]).toContain(count);
    expect(what).toBe("executions");
    // A run that is over before the first look is no change.
    if (count === 0) expect(lines.map((said) => said[1])).toContain("ok");
    expect(lines.at(-1)?.[0]).toMatchObject([{ text: "hello\n" }, { data: { "text/plain": "42" } }]);
  } finally {
    await scene.stop();
  }
});
