// One Hocuspocus instance for RTC kernels. With --redis any number of them are one relay.
//
//   node server.mjs --tokens FILE [--port N] [--address IP] [--redis HOST:PORT]

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Redis } from "@hocuspocus/extension-redis";
import { Server } from "@hocuspocus/server";
import { Tokens } from "./roles.mjs";

const { values } = parseArgs({
  options: {
    tokens: { type: "string" },
    port: { type: "string", default: "8900" },
    address: { type: "string", default: "127.0.0.1" },
    redis: { type: "string" },
  },
});
if (!values.tokens) {
  console.error("--tokens FILE is missing: it says who may do what");
  process.exit(2);
}
const tokens = new Tokens(JSON.parse(readFileSync(values.tokens, "utf8")));

const extensions = [];
if (values.redis) {
  const [host, port] = values.redis.split(":");
  extensions.push(new Redis({ host, port: Number(port || 6379) }));
}

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

  /** What somebody says of itself has the name of its token. */
  async beforeHandleAwareness({ states, context }) {
    if (!context) return; // from another instance, which has done it
    for (const state of states.values()) state.user = { ...state.user, name: context.name };
  },
});

await server.listen();
console.log(`relay ws://${values.address}:${server.address.port}`);
