/**
 * What is there to say of a link: how long it holds, where it can be opened, who has it?
 *
 * Pure. Times are POSIX seconds.
 */

import type { Trans } from "./env.ts";

export type LinkRole = "view" | "run";

const HOUR_S = 3600;
const DAY_S = 24 * HOUR_S;

/** How long a link may hold; null: until it is withdrawn. */
export function expiries(trans: Trans): { seconds: number | null; label: string }[] {
  return [
    { seconds: HOUR_S, label: trans.__("1 hour") },
    { seconds: DAY_S, label: trans.__("1 day") },
    { seconds: 7 * DAY_S, label: trans.__("1 week") },
    { seconds: null, label: trans.__("until I withdraw it") },
  ];
}

/**
 * What is chosen for whoever chooses nothing: a link that is forgotten ends by itself. Who watches sees a run over
 * night to its end; who may run code may do all that its owner may do on that machine, so that ends sooner.
 */
export const usualExpiry = (role: LinkRole): number => (role === "run" ? HOUR_S : DAY_S);

/** What a role is, in a word or two. */
export const roleWord = (role: string, trans: Trans): string =>
  role === "view" ? trans.__("watches") : role === "own" ? trans.__("owner") : trans.__("may run code");

/** `until 15:03`, with the day where it is another one. */
export function untilWhen(expiresAt: number | null, trans: Trans, now = Date.now() / 1000): string {
  return expiresAt === null ? trans.__("until withdrawn") : trans.__("until %1", clock(expiresAt, now));
}

/** The time of the day, in the browser's language; with the day where that is not today. */
export function clock(at: number, now = Date.now() / 1000): string {
  const date = new Date(at * 1000);
  const time = date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  if (date.toDateString() === new Date(now * 1000).toDateString()) return time;
  return `${date.toLocaleDateString(undefined, { weekday: "short", day: "numeric", month: "short" })}, ${time}`;
}

/** A way to open a link. */
export interface Way {
  readonly kind: "direct" | "server";
  readonly url: string;
  /** Only the machine itself gets there. */
  readonly isLocal: boolean;
}

/**
 * The ways to open a link, the one that reaches farthest first.
 *
 * @param made as the agent says it: `proxied_url` is a path on the Jupyter server, or an address where JupyterHub or a
 *   setting has told the agent; this page knows one that works.
 * @param base of the Jupyter server of this page.
 */
export function waysTo(made: { url: string; proxied_url?: string | null }, base: string): Way[] {
  const direct: Way = { kind: "direct", url: made.url, isLocal: isLocal(made.url) };
  if (!made.proxied_url) return [direct];
  const path = made.proxied_url.slice(made.proxied_url.lastIndexOf("/proxy/") + 1);
  const url = new URL(path, base.endsWith("/") ? base : `${base}/`).href;
  const proxied: Way = { kind: "server", url, isLocal: isLocal(url) };
  return direct.isLocal && !proxied.isLocal ? [proxied, direct] : [direct, proxied];
}

/** Whether an address is one of the machine's own, which no other machine reaches. */
export function isLocal(url: string): boolean {
  const { hostname } = new URL(url);
  return /^(?:localhost|.+\.localhost|127(?:\.\d+){3}|\[::1\]|0\.0\.0\.0)$/.test(hostname);
}

/** The Jupyter server that this page came from. JupyterLab says it in the page. */
export function serverBase(page: Document): string {
  const config = page.getElementById("jupyter-config-data")?.textContent ?? "{}";
  const { baseUrl } = JSON.parse(config) as { baseUrl?: string };
  return new URL(baseUrl ?? "/", page.location.href).href;
}
