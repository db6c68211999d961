// What may the bearer of a token do with a document? Pure: no sockets, no files.
//
// A room has an index, and two documents for each life of each kernel (docs/protocol.md, "Relays"):
//   <room>/index    <room>/<kernel>/state/<life>    <room>/<kernel>/requests/<life>
// The state has one writer, the kernel's agent. A relay that lets anybody else write it is no relay for this.

import { createHash } from "node:crypto";

const MAY = {
  view: { index: "read", state: "read" },
  run: { index: "read", state: "read", requests: "write" },
  publish: { index: "write", state: "write", requests: "write" },
};

/** Which document a name means; null: none of a room. */
export function parseName(name) {
  const parts = name.split("/");
  if (parts.some((part) => part === "")) return null;
  if (parts.length === 2 && parts[1] === "index") return { room: parts[0], kind: "index" };
  if (parts.length === 4 && (parts[2] === "state" || parts[2] === "requests")) {
    return { room: parts[0], kernel: parts[1], kind: parts[2] };
  }
  return null;
}

/** The tokens in force, by hash: finding one takes the same time whatever it is. */
export class Tokens {
  #byHash = new Map();

  /** `{token: {name, role, rooms}}`; rooms: names, or "*" for all. */
  constructor(tokens) {
    for (const [token, { name, role, rooms }] of Object.entries(tokens)) {
      if (!(role in MAY)) throw new Error(`the role of ${name} is none of ${Object.keys(MAY).join(", ")}`);
      if (token.length < 16) throw new Error(`the token of ${name} is too short to be secret`);
      this.#byHash.set(hash(token), { name, role, rooms: new Set([rooms].flat()) });
    }
  }

  /** What a token gives for a document: `{name, role, kind, writes}`; null: nothing. */
  grant(token, documentName) {
    const bearer = this.#byHash.get(hash(token));
    const place = parseName(documentName);
    if (!bearer || !place || !(bearer.rooms.has("*") || bearer.rooms.has(place.room))) return null;
    const may = MAY[bearer.role][place.kind];
    return may ? { name: bearer.name, role: bearer.role, kind: place.kind, writes: may === "write" } : null;
  }
}

function hash(token) {
  return createHash("sha256").update(token).digest("base64");
}
