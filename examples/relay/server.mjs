// One Hocuspocus instance for RTC kernels. With --redis any number of them are one relay.
//
//   node server.mjs --tokens FILE [--port N] [--address IP] [--redis HOST:PORT] [--page DIRECTORY]

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Redis } from "@hocuspocus/extension-redis";
import { Server } from "@hocuspocus/server";
import RedisClient from "ioredis";
import { openPage } from "./page.mjs";
import { Tokens } from "./roles.mjs";
import { Writers, writtenBy } from "./writers.mjs";

const { values } = parseArgs({
  options: {
    tokens: { type: "string" },
    port: { type: "string", default: "8900" },
    address: { type: "string", default: "127.0.0.1" },
    redis: { type: "string" },
    page: { type: "string", default: fileURLToPath(new URL("../../rtc_kernel/web", import.meta.url)) },
  },
});
if (!values.tokens) {
  console.error("--tokens FILE is missing: it says who may do what");
  process.exit(2);
}
const tokens = new Tokens(JSON.parse(readFileSync(values.tokens, "utf8")));

const page = openPage(values.page);
const extensions = [];
let writers = new Writers();
if (values.redis) {
  const [host, text] = values.redis.split(":");
  const port = Number(text || 6379);
  extensions.push(new Redis({ host, port }));
  writers = new Writers(new RedisClient(port, host));
}

const STEP1 = 0;
const REQUEST_BYTES = 1 << 20; // of what one client writes at once
const announce = (names) => JSON.stringify({ rtc_kernel: { writers: names } });

const server = new Server({
  port: Number(values.port),
  address: values.address,
  quiet: true,
  extensions,
  websocketOptions: { maxPayload: 64 << 20 },

  /** Who may do what. Whatever this returns is the connection's context. */
  async onAuthenticate({ token, documentName, connectionConfig }) {
    const grant = tokens.grant(token, documentName);
    if (!grant) throw Object.assign(new Error(), { reason: "the token does not open this document" });
    connectionConfig.readOnly = !grant.writes;
    return grant;
  },

  /** Who writes under a Yjs client id, the agent learns from us, before it gets what was written. */
  async beforeSync({ type, payload, document, documentName, connection, context }) {
    if (context.kind !== "requests") return;
    if (context.role === "publish") {
      if (type === STEP1) connection.sendStateless(announce(await writers.all(documentName)));
      return;
    }
    if (type === STEP1 || connection.readOnly) return;
    if (payload.byteLength > REQUEST_BYTES) throw { code: 1009, reason: "more than may be written at once" };
    for (const client of writtenBy(payload, document)) {
      const { name, isNew } = await writers.claim(documentName, client, context.name);
      if (name !== context.name) throw { code: 4403, reason: "written in the name of somebody else" };
      if (isNew) document.broadcastStateless(announce({ [client]: name }));
    }
  },

  /** A browser gets the page of a room; whatever throws nothing has answered. */
  async onRequest({ request, response }) {
    if (!page) return;
    page.answer(request, response);
    throw null;
  },

  async afterUnloadDocument({ documentName }) {
    writers.forget(documentName);
  },

  /** What somebody says of itself has the name of its token. */
  async beforeHandleAwareness({ states, context }) {
    if (!context) return; // from another instance, which has done it
    for (const state of states.values()) state.user = { ...state.user, name: context.name };
  },
});

await server.listen();
console.log(`relay ws://${values.address}:${server.address.port}`);
