import type { Comm } from "@rtc-kernel/client";
import { expect, test } from "vitest";

import { VIEW } from "../src/ipywidgets.ts";
import { changed, isLive, makeable, toMessage, viewOf, withFates } from "../src/models.ts";

const comm = (id: string, state: Comm["state"] = {}, columns: Partial<Comm> = {}): Comm => ({
  id,
  target: "jupyter.widget",
  kernel: "k",
  execution: null,
  opened_by: "kernel",
  opened_at: 1,
  closed_at: null,
  state,
  messages: [],
  ...columns,
});

const view = (id: string) => ({
  output_type: "display_data",
  data: { "text/plain": "IntSlider(value=5)", [VIEW]: { version_major: 2, model_id: id } },
  metadata: {},
});

test("a widget lives while its comm is open", () => {
  expect(isLive(comm("a"))).toBe(true);
  expect(isLive(comm("a", {}, { closed_at: 2 }))).toBe(false);
  expect(isLive(comm("a", {}, { target: "other" }))).toBe(false);
  expect(isLive(undefined)).toBe(false);
});

test("an output of a widget is kept, hidden, or its text; what is kept stays the same object", () => {
  const outputs = [view("kept"), view("closed"), view("gone"), { output_type: "stream", name: "stdout", text: "x" }];
  const fates = { kept: "keep", closed: "hide", gone: "text" } as const;
  const made = withFates(outputs, (id) => fates[id as keyof typeof fates]);
  expect(made.map(viewOf)).toEqual(["kept", "", "", ""]);
  expect(made[0]).toBe(outputs[0]);
  expect(made[1]).toEqual({ ...view(""), data: { ...view("").data } });
  expect(made[2]?.["data"]).toEqual({ "text/plain": "IntSlider(value=5)" });
  expect(made[3]).toBe(outputs[3]);
  const bare = { output_type: "display_data", data: { [VIEW]: { model_id: "gone" } }, metadata: {} };
  expect(withFates([bare], () => "text")).toEqual([bare]);
});

test("a model is made only with all that it refers to, over any number of steps", () => {
  const box = comm("box", { children: ["IPY_MODEL_slider", "IPY_MODEL_there"], layout: "IPY_MODEL_layout" });
  const slider = comm("slider", { layout: "IPY_MODEL_layout", value: 5 });
  const outer = comm("outer", { deep: { children: ["IPY_MODEL_broken"] } });
  const broken = comm("broken", { layout: "IPY_MODEL_nobody" });
  const all = [outer, broken, box, slider, comm("layout")];
  const isThere = (id: string) => id === "there";
  expect(makeable(all, isThere).map(({ id }) => id)).toEqual(["box", "slider", "layout"]);
});

test("of a state that was read again only what is other counts, and buffers are compared by their bytes", () => {
  const before = { value: 5, children: ["a"], data: new Uint8Array([1, 2]), same: new Uint8Array([3]) };
  const after = { value: 6, children: ["a"], data: new Uint8Array([1, 3]), same: new Uint8Array([3]), more: null };
  expect(Object.keys(changed(before, after))).toEqual(["value", "data", "more"]);
});

test("values are what a message would have: buffers of their own, and what stands elsewhere fetched", async () => {
  const bytes = new Uint8Array([0, 1, 2, 3]).subarray(1, 3);
  const reference = { blob: "sha256:1", bytes: 2, preview: null, media_type: "application/octet-stream" };
  const blobs: { [digest: string]: Uint8Array } = {
    "sha256:1": bytes,
    "sha256:2": new TextEncoder().encode('{"é":1}'),
  };
  const state = {
    inline: bytes,
    fetched: reference,
    json: { ...reference, blob: "sha256:2", media_type: "application/json" },
    nested: [{ deep: reference }],
    lost: { ...reference, blob: "sha256:3" },
    tooLarge: { ...reference, blob: null },
    plain: null,
  };
  const made = (await toMessage(state, async (digest) => blobs[digest] ?? null)) as { [key: string]: unknown };
  expect(Object.keys(made)).toEqual(["inline", "fetched", "json", "nested", "plain"]);
  const { inline, fetched, json, nested } = made as { [key: string]: DataView };
  expect([inline?.byteLength, inline?.buffer.byteLength, inline?.getUint8(0)]).toEqual([2, 2, 1]);
  expect([fetched?.buffer.byteLength, fetched?.getUint8(1)]).toEqual([2, 2]);
  expect(json).toEqual({ é: 1 });
  expect((nested as unknown as { deep: DataView }[])[0]?.deep.byteLength).toBe(2);
});
