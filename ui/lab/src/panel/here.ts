/**
 * Who of those that are connected is one person?
 *
 * Pure. A page has several connections, and one who looks in two pages is one person.
 */

import type { Peer } from "@rtc-kernel/client";

export interface Here {
  readonly key: string;
  readonly name: string;
  readonly role: string;
  /** POSIX seconds: of the connection that is there for longest. */
  readonly since: number;
  /** How many connections. */
  readonly count: number;
  /** Follows over the kernel's own channels, as JupyterLab does. */
  readonly isPage: boolean;
}

/** Who is here, in the order in which they came. */
export function whoIsHere(peers: readonly Peer[]): Here[] {
  const found = new Map<string, Here>();
  for (const { name, role, since, way } of peers) {
    const isPage = way === "comm";
    const key = JSON.stringify([isPage, name, role]);
    const known = found.get(key);
    const earliest = Math.min(since, known?.since ?? since);
    found.set(key, { key, name, role, since: earliest, count: (known?.count ?? 0) + 1, isPage });
  }
  return [...found.values()].sort((one, other) => one.since - other.since);
}
