// Whose is a Yjs client id? A row of `requests` is written under one, and nothing in it says who wrote it. The first
// who writes under it has it, in this document, at whatever instance; the agent is told, and nobody else may use it.

import * as Y from "yjs";

const KEPT_S = 7 * 24 * 3600;

/** The client ids under which an update says what a document does not have yet. */
export function writtenBy(update, document) {
  const known = Y.decodeStateVector(Y.encodeStateVector(document));
  const clients = new Set();
  for (const struct of Y.decodeUpdate(update).structs) {
    if (struct.id.clock + struct.length > (known.get(struct.id.client) ?? 0)) clients.add(struct.id.client);
  }
  return clients;
}

export class Writers {
  #redis;
  #names = new Map(); // document -> client -> name

  /** `redis`: of all instances; without it this is the only one. */
  constructor(redis = null) {
    this.#redis = redis;
  }

  /** Who has a client id, after this name has asked for it. */
  async claim(documentName, client, name) {
    const known = this.#of(documentName);
    const held = known.get(client);
    if (held !== undefined) return { name: held, isNew: false };
    let isNew = true;
    if (this.#redis) {
      const key = `rtc-writers:${documentName}`;
      isNew = (await this.#redis.hsetnx(key, `${client}`, name)) === 1;
      if (!isNew) name = await this.#redis.hget(key, `${client}`);
      await this.#redis.expire(key, KEPT_S);
    }
    known.set(client, name);
    return { name, isNew };
  }

  /** Everybody: `{client: name}`. */
  async all(documentName) {
    if (this.#redis) return this.#redis.hgetall(`rtc-writers:${documentName}`);
    return Object.fromEntries(this.#of(documentName));
  }

  /** Nobody has the document open here. */
  forget(documentName) {
    this.#names.delete(documentName);
  }

  #of(documentName) {
    if (!this.#names.has(documentName)) this.#names.set(documentName, new Map());
    return this.#names.get(documentName);
  }
}
