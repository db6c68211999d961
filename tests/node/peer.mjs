// A stock y-websocket peer. Arguments: server URL, room, token. It prints one JSON object per line:
// {"event": "synced"}, {"event": "closed", "code"}, {"event": "dump", "roots"}; and takes words on stdin:
// "dump" prints the replica, "write" writes into it, "stop" ends.
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

const [url, room, token] = process.argv.slice(2);
const doc = new Y.Doc();
const roots = ["meta", "kernels", "executions", "comms", "queries", "cells"].map((name) => [name, doc.getMap(name)]);
const provider = new WebsocketProvider(url, room, doc, {
  WebSocketPolyfill: WebSocket,
  protocols: [`rtc.token.${token}`],
  disableBc: true,
});

const plain = (value) => {
  if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  }
  return value;
};
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

provider.on("sync", (synced) => synced && say({ event: "synced" }));
provider.on("closed", ({ code }) => say({ event: "closed", code }));

const stop = () => {
  provider.destroy();
  process.exit(0);
};
const words = {
  dump: () => say({ event: "dump", roots: Object.fromEntries(roots.map(([name, map]) => [name, plain(map.toJSON())])) }),
  write: () => doc.getMap("executions").set("mine", new Y.Map()),
  stop,
};
const lines = createInterface({ input: process.stdin });
lines.on("line", (word) => words[word]?.());
lines.on("close", stop);
