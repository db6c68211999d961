/** Links: what is drawn is what a camera reads, where a link reaches, who is here, what waits. */

import type { Peer, Request } from "@rtc-kernel/client";
import jsQR from "jsqr";
import { describe, expect, test } from "vitest";

import { whoIsHere } from "../src/panel/here.ts";
import { isLocal, untilWhen, usualExpiry, waysTo } from "../src/panel/links.ts";
import { drawQr } from "../src/panel/qr.ts";
import { firstLine, whatWaits } from "../src/panel/requests.ts";
import { PLAIN } from "../src/translation.ts";

const TOKEN = "kX3_9-aZ0bQ4rT7yU1iO5pL8mN2vC6wE";

/** Draw the path of an SVG, `scale` pixels to a module, and read the picture as a camera does. */
function readPicture({ size, path }: { size: number; path: string }, scale = 4): string | null {
  const side = size * scale;
  const pixels = new Uint8ClampedArray(side * side * 4).fill(255);
  for (const [, x, y, wide] of path.matchAll(/M(\d+) (\d+)h(\d+)v1h-\d+z/g)) {
    for (let row = Number(y) * scale; row < (Number(y) + 1) * scale; row++) {
      for (let column = Number(x) * scale; column < (Number(x) + Number(wide)) * scale; column++) {
        pixels.set([0, 0, 0], (row * side + column) * 4);
      }
    }
  }
  return jsQR(pixels, side, side, { inversionAttempts: "dontInvert" })?.data ?? null;
}

describe("a QR code", () => {
  test.each([
    `http://127.0.0.1:37919/?token=${TOKEN}`,
    `https://hub.example.org/user/ada%40example.org/proxy/37919/?token=${TOKEN}`,
    `http://bücher.example:8000/?token=${TOKEN}`,
    `https://hub.example.org/${"long/".repeat(60)}?token=${TOKEN}`,
  ])("reads as what it was made of: %s", (url) => {
    expect(readPicture(drawQr(url))).toBe(url);
  });

  test("has four light modules around it", () => {
    const { size, path } = drawQr("x");
    const runs = [...path.matchAll(/M(\d+) (\d+)h(\d+)/g)].map(([, x, y, wide]) => [Number(x), Number(y), Number(wide)]);
    expect(Math.min(...runs.map(([x = 0]) => x))).toBe(4);
    expect(Math.min(...runs.map(([, y = 0]) => y))).toBe(4);
    expect(Math.max(...runs.map(([x = 0, , wide = 0]) => x + wide))).toBe(size - 4);
  });
});

describe("the ways to a link", () => {
  const made = { url: `http://127.0.0.1:37919/?token=${TOKEN}`, proxied_url: `/proxy/37919/?token=${TOKEN}` };

  test("the Jupyter server's comes first where the kernel's machine is not reached from elsewhere", () => {
    const ways = waysTo(made, "https://lab.example.org/some/base/");
    expect(ways.map(({ url }) => url)).toEqual([
      `https://lab.example.org/some/base/proxy/37919/?token=${TOKEN}`,
      made.url,
    ]);
    expect(ways.map(({ isLocal: local }) => local)).toEqual([false, true]);
  });

  test("JupyterHub's prefix is not there twice", () => {
    const hub = { ...made, proxied_url: `/user/ada/proxy/37919/?token=${TOKEN}` };
    expect(waysTo(hub, "https://hub.example.org/user/ada")[0]?.url).toBe(
      `https://hub.example.org/user/ada/proxy/37919/?token=${TOKEN}`,
    );
  });

  test("where the agent knows the server's address, the one of this page is taken all the same", () => {
    const hub = { ...made, proxied_url: `https://hub.example.org/user/ada/proxy/37919/?token=${TOKEN}` };
    expect(waysTo(hub, "https://hub.campus.example.org/user/ada/").map(({ url }) => url)).toEqual([
      `https://hub.campus.example.org/user/ada/proxy/37919/?token=${TOKEN}`,
      made.url,
    ]);
  });

  test("without a proxy there is one", () => {
    expect(waysTo({ url: made.url, proxied_url: null }, "http://localhost:8888/")).toEqual([
      { kind: "direct", url: made.url, isLocal: true },
    ]);
  });

  test.each([
    ["http://127.0.0.1:1/", true],
    ["http://127.1.2.3/", true],
    ["http://localhost:8888/", true],
    ["http://[::1]:8888/", true],
    ["http://192.168.1.5:8888/", false],
    ["https://127.example.org/", false],
    ["https://localhost.example.org/", false],
  ])("%s is of this machine alone: %s", (url, expected) => expect(isLocal(url)).toBe(expected));
});

describe("how long", () => {
  const now = new Date(2026, 10, 21, 12, 0).getTime() / 1000;

  test("is said with the day where that is another one", () => {
    expect(untilWhen(now + 3600, PLAIN, now)).toMatch(/^until 0?1(:|3:)00/);
    expect(untilWhen(now + 86400, PLAIN, now)).toContain("22");
    expect(untilWhen(null, PLAIN, now)).toBe("until withdrawn");
  });

  test("ends by itself unless somebody chooses otherwise, sooner for who may run code", () => {
    expect(usualExpiry("view")).toBe(86400);
    expect(usualExpiry("run")).toBe(3600);
  });
});

test("who is here: several connections of one are one, in the order in which they came", () => {
  const ada = { name: "ada", role: "view", way: "websocket" } as const;
  const page = { name: "username", role: "run", way: "comm" } as const;
  const peers: Peer[] = [{ ...page, since: 5 }, { ...ada, since: 3 }, { ...ada, since: 2 }, { ...page, since: 4 }];
  const here = whoIsHere(peers);
  expect(here.map(({ name, since, count, isPage }) => [name, since, count, isPage])).toEqual([
    ["ada", 2, 2, false],
    ["username", 4, 2, true],
  ]);
});

test("what waits is in its order, with what was refused; what is done or is no code is not there", () => {
  const request = (id: string, state: Request["state"], ordinal: number | null, action = "execute"): Request => ({
    ...{ id, state, ordinal, action, by: "ada", received_at: 1, execution: null, query: null, reason: null },
    columns: { code: "x" },
  });
  const rows = [
    request("late", "requested", 9),
    request("held", "held", 3),
    request("sent", "accepted", 1),
    request("done", "done", 2),
    request("no", "refused", 4, "release"),
    request("asked", "requested", 5, "interrupt"),
  ];
  expect(whatWaits(rows).map(({ id }) => id)).toEqual(["held", "no", "late"]);
});

test("the first line of code that says something, cut", () => {
  expect(firstLine("\n\n  x = 1\ny", 10)).toBe("x = 1");
  expect(firstLine("x".repeat(11), 10)).toBe(`${"x".repeat(9)}…`);
  expect(firstLine("", 10)).toBe("");
});
