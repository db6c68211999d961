/**
 * Who else looks at this document?
 *
 * Owns the awareness of the room `state`. A name there is what somebody says of himself, never an identity: nothing
 * may follow from it but what is drawn.
 */

import { applyAwarenessUpdate, Awareness, encodeAwarenessUpdate, removeAwarenessStates } from "y-protocols/awareness";
import * as Y from "yjs";

import { malformed } from "./errors.ts";
import { writeAwareness } from "./messages.ts";

/** Somebody who looks at the document. */
export interface Presence {
  clientId: number;
  name: string;
  role?: string;
  /** A CSS colour, `#rrggbb`. */
  color?: string;
  /** The execution that is looked at. */
  viewing?: string | null;
  /** It is us. */
  self: boolean;
}

const NAME_CHARS = 100;
const COLOR = /^#[0-9a-f]{6}$/i;

export class Board {
  private readonly awareness: Awareness;
  private readonly changed: () => void;
  private send: ((data: Uint8Array) => void) | null = null;
  private shown: readonly Presence[] = [];

  constructor(changed: () => void) {
    this.changed = changed;
    this.awareness = new Awareness(new Y.Doc());
    this.awareness.setLocalState(null); // nobody is announced until he says who he is
    this.awareness.on("change", () => {
      this.shown = this.read();
      this.changed();
    });
    this.awareness.on("update", (_: unknown, origin: unknown) => {
      if (origin === "local") this.announce();
    });
  }

  get peers(): readonly Presence[] {
    return this.shown;
  }

  /** Say who we are; what is not given stays as it was. */
  set(presence: Partial<Presence>): void {
    const { clientId: _clientId, self: _self, ...said } = presence;
    const user = { ...(this.awareness.getLocalState()?.["user"] as object | undefined), ...said };
    this.awareness.setLocalState({ user });
  }

  open(send: (data: Uint8Array) => void): void {
    this.send = send;
    const own = this.awareness.getLocalState();
    if (own) this.awareness.setLocalState(own); // with the next clock: the last one left with the connection
  }

  receive(update: Uint8Array): void {
    try {
      applyAwarenessUpdate(this.awareness, update, "agent");
    } catch (error) {
      throw malformed("awareness that cannot be read", error);
    }
  }

  /** The connection is gone, and with it what we know of others. */
  lose(): void {
    this.send = null;
    const others = [...this.awareness.getStates().keys()].filter((id) => id !== this.awareness.clientID);
    removeAwarenessStates(this.awareness, others, "lost");
    for (const id of others) this.awareness.meta.delete(id); // else they would not be shown until they next move
  }

  destroy(): void {
    this.awareness.destroy();
  }

  private announce(): void {
    this.send?.(writeAwareness(encodeAwarenessUpdate(this.awareness, [this.awareness.clientID])));
  }

  private read(): Presence[] {
    const found: Presence[] = [];
    for (const [clientId, state] of this.awareness.getStates()) {
      const user: unknown = (state as { user?: unknown }).user;
      if (typeof user === "object" && user !== null) {
        found.push(readPresence(clientId, user, clientId === this.awareness.clientID));
      }
    }
    return found.sort((a, b) => a.clientId - b.clientId);
  }
}

/** What somebody says of himself, as far as it has the right form. */
function readPresence(clientId: number, user: object, self: boolean): Presence {
  const said = user as { [name: string]: unknown };
  const presence: Presence = { clientId, name: String(said["name"] ?? "").slice(0, NAME_CHARS), self };
  if (typeof said["role"] === "string") presence.role = said["role"].slice(0, NAME_CHARS);
  if (typeof said["color"] === "string" && COLOR.test(said["color"])) presence.color = said["color"];
  if (typeof said["viewing"] === "string") presence.viewing = said["viewing"];
  else if (said["viewing"] === null) presence.viewing = null;
  return presence;
}
