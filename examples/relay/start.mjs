// The whole relay with one command: npm start
//
//   npm start                two instances and a Redis (needs redis-server, e.g. apt install redis-server)
//   npm start -- --single    one instance, no Redis
//   npm start -- --port 9000 --address 0.0.0.0
//
// Tokens are made at the first start and kept in tokens.json, which only you can read.

import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    single: { type: "boolean", default: false },
    port: { type: "string", default: "8900" },
    address: { type: "string", default: "127.0.0.1" },
    tokens: { type: "string", default: fileURLToPath(new URL("tokens.json", import.meta.url)) },
  },
});
const serverFile = fileURLToPath(new URL("server.mjs", import.meta.url));
const children = new Map();
let ending = false;

if (!existsSync(values.tokens)) {
  const made = {};
  for (const role of ["publish", "run", "view"]) {
    made[randomBytes(24).toString("base64url")] = { name: role, role, rooms: ["*"] };
  }
  writeFileSync(values.tokens, `${JSON.stringify(made, null, 2)}\n`, { mode: 0o600 });
}

/** The instances first: one that lives without its Redis complains. */
function end(code) {
  if (ending) return;
  ending = true;
  process.exitCode = code;
  setTimeout(endRedis, 3000).unref();
  for (const [child, name] of children) if (name !== "redis") child.kill("SIGTERM");
  endRedis(true);
}

function endRedis(isPatient = false) {
  const names = [...children.values()];
  if (isPatient && names.some((name) => name !== "redis")) return;
  for (const child of children.keys()) child.kill("SIGTERM");
}

/** Keep a program running; an instance that dies takes nobody along, and comes back. */
function keep(name, command, args, ready) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  children.set(child, name);
  child.stdout.on("data", (text) => ready(String(text)));
  child.on("error", (error) => {
    console.error(`${name}: ${error.message}`);
    end(1);
  });
  child.on("exit", (code, signal) => {
    children.delete(child);
    if (ending) return endRedis(true);
    console.error(`${name} ended (${signal ?? code}); it is started again`);
    setTimeout(() => ending || keep(name, command, args, ready), 1000);
  });
}

/** A free port of this machine. */
function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

const redis = [];
if (!values.single) {
  if (spawnSync("redis-server", ["--version"]).error) {
    console.error("redis-server is not installed: apt install redis-server, or npm start -- --single");
    process.exit(1);
  }
  const port = await freePort();
  keep("redis", "redis-server", ["--port", `${port}`, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], () => {});
  redis.push("--redis", `127.0.0.1:${port}`);
}

const first = Number(values.port);
for (const port of values.single ? [first] : [first, first + 1]) {
  const args = [serverFile, "--tokens", values.tokens, "--port", `${port}`, "--address", values.address, ...redis];
  keep(`instance ${port}`, process.execPath, args, (text) => process.stdout.write(text));
}
console.log(`tokens ${values.tokens}`);
for (const [token, { role }] of Object.entries(JSON.parse(readFileSync(values.tokens, "utf8")))) {
  console.log(`  ${role.padEnd(8)} ${token}`);
}
process.on("SIGINT", () => end(0));
process.on("SIGTERM", () => end(0));
