/** Settings: the user's values, live, and the defaults where there are none. */

import { readFileSync } from "node:fs";
import { expect, test, vi } from "vitest";

import { OUTPUTS, PANEL, Settings } from "../src/settings.ts";

/** JupyterLab's registry, of one plugin. */
function registry(composite: { [name: string]: unknown }) {
  const slots: (() => void)[] = [];
  const set = (name: string, value: unknown): Promise<void> => {
    loaded.composite = { ...loaded.composite, [name]: value };
    for (const slot of slots) slot();
    return Promise.resolve();
  };
  const loaded = { composite, set, changed: { connect: (slot: () => void) => slots.push(slot) > 0 } };
  return { load: () => Promise.resolve(loaded), set };
}

test("values are the user's once they are loaded, and change live", async () => {
  const lab = registry({ ...OUTPUTS, outputsComeBack: false });
  const settings = new Settings(lab, "@rtc-kernel/lab:outputs", OUTPUTS);
  await settings.ready;
  expect(settings.values).toEqual({ ...OUTPUTS, outputsComeBack: false });
  const seen = vi.fn();
  const stop = settings.onChange(seen);
  await lab.set("outputsComeBack", false);
  expect(seen).not.toHaveBeenCalled();
  await lab.set("showWhoRan", false);
  expect(seen).toHaveBeenCalledOnce();
  expect(settings.values.showWhoRan).toBe(false);
  settings.set("showOthersRuns", false);
  expect(settings.values).toEqual({ outputsComeBack: false, showOthersRuns: false, showWhoRan: false });
  stop();
  await lab.set("showWhoRan", true);
  expect(seen).toHaveBeenCalledTimes(2);
});

test("without settings, or without ours, or with values of another kind, the defaults count", async () => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
  const without = { load: () => Promise.reject(new Error("no schema")) };
  for (const lab of [null, registry({ outputsComeBack: "no" }), without]) {
    const settings = new Settings(lab, "@rtc-kernel/lab:outputs", OUTPUTS);
    await settings.ready;
    expect(settings.values).toEqual(OUTPUTS);
  }
  const alone = new Settings(null, "@rtc-kernel/lab:panel", PANEL);
  alone.set("showTimeline", true);
  expect(alone.values.showTimeline).toBe(true);
  expect(warn).toHaveBeenCalledOnce();
  warn.mockRestore();
});

test.each([
  ["outputs", OUTPUTS],
  ["panel", PANEL],
])("the schema of %s has the same names and defaults", (name, defaults) => {
  const file = new URL(`../schema/${name}.json`, import.meta.url);
  const { properties } = JSON.parse(readFileSync(file, "utf8")) as {
    properties: { [name: string]: { default: unknown } };
  };
  const found = Object.entries(properties).map(([key, { default: value }]) => [key, value]);
  expect(Object.fromEntries(found)).toEqual(defaults);
});
