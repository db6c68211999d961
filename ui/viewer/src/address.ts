/**
 * What does the address of a room's page say?
 *
 * Pure. The room is the last part of the path, beside the relay's own address; what nobody else is to see stands behind the
 * "#", which browsers send to no server.
 */

export interface RoomAddress {
  /** Of the room at the relay: `ws[s]://HOST/ROOM`. */
  url: string;
  /** Null: it is not there. */
  token: string | null;
  /** The kernel that is to be shown alone, or the beginning of its id. */
  kernel: string | null;
  /** What is left for the address, once token and relay are read: an execution, or nothing. */
  rest: string;
}

/**
 * `relay` behind the "#" names another place than that of the page.
 *
 * @param known the room that this page followed before it was loaded again.
 */
export function readAddress(href: string, known: string | null = null): RoomAddress {
  const page = new URL(href);
  const given = new URLSearchParams(page.hash.slice(1));
  const own = new URL(page.pathname, page);
  own.protocol = page.protocol === "https:" ? "wss:" : "ws:";
  const execution = given.get("execution");
  return {
    url: given.get("relay") || known || own.href,
    token: given.get("token") || null,
    kernel: given.get("kernel") || null,
    rest: execution === null ? "" : `#execution=${encodeURIComponent(execution)}`,
  };
}
