// Real kernels with their agents, started by a Python process; and clients of them.

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { connect, type LiveDocument, type Presence, type Role, WebSocketTransport } from "../src/index.ts";

const PYTHON = process.env["RTC_TEST_PYTHON"] ?? "python3";

/** How long to wait for what must come. Milliseconds. */
export const LONG = 60_000;

/** A Python script that is told what to do by lines of JSON, and answers each with one. */
export class Script {
  /** What it said first. */
  readonly hello: { [name: string]: string };
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;

  private constructor(child: ChildProcess, lines: AsyncIterator<string>, hello: { [name: string]: string }) {
    this.child = child;
    this.lines = lines;
    this.hello = hello;
  }

  static async start(name: string, ...args: string[]): Promise<Script> {
    const path = fileURLToPath(new URL(name, import.meta.url));
    const child = spawn(PYTHON, [path, ...args], { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return new Script(child, lines, await read(lines));
  }

  async tell(op: string, rest: { [name: string]: unknown } = {}): Promise<{ [name: string]: string }> {
    this.child.stdin?.write(`${JSON.stringify({ op, ...rest })}\n`);
    return read(this.lines);
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    if (this.child.exitCode !== null) return;
    this.child.stdin?.end();
    await ended;
  }
}

async function read(lines: AsyncIterator<string>): Promise<{ [name: string]: string }> {
  const line = await lines.next();
  if (line.done) throw new Error("the Python script ended");
  return JSON.parse(line.value) as { [name: string]: string };
}

/** A kernel that is followed. */
export class Scene {
  readonly script: Script;
  readonly url: string;
  readonly token: string;
  private readonly open: LiveDocument[] = [];

  constructor(script: Script) {
    this.script = script;
    this.url = script.hello["url"] ?? "";
    this.token = script.hello["token"] ?? "";
  }

  static async start(kernel = "rtc-python"): Promise<Scene> {
    return new Scene(await Script.start("agent.py", kernel));
  }

  /** A document, as the owner unless another token is given; closed by {@link leave}. */
  connect(token = this.token, user?: Partial<Presence>): LiveDocument {
    const transport = new WebSocketTransport({ url: `${this.url}/?token=${token}`, WebSocket });
    const doc = connect(transport, user ? { user } : {});
    this.open.push(doc);
    return doc;
  }

  async live(token = this.token, user?: Partial<Presence>): Promise<LiveDocument> {
    const doc = this.connect(token, user);
    await until(doc, () => doc.status === "live");
    return doc;
  }

  /** A frontend executes code, and does not wait for it; the execution's id. */
  async execute(code: string): Promise<string> {
    return (await this.script.tell("execute", { code }))["id"] ?? "";
  }

  async share(role: Role, name: string): Promise<string> {
    return String((await this.api("POST", "share", { role, name }))["token"]);
  }

  async revoke(name: string): Promise<void> {
    await this.api("DELETE", `share/${name}`);
  }

  leave(): void {
    for (const doc of this.open.splice(0)) doc.close();
  }

  async stop(): Promise<void> {
    this.leave();
    await this.script.stop();
  }

  private async api(method: string, path: string, body?: unknown): Promise<{ [name: string]: unknown }> {
    const headers = { Authorization: `Bearer ${this.token}` };
    const init = { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) };
    const answer = await fetch(`${this.url}/api/${path}`, init);
    if (!answer.ok) throw new Error(await answer.text());
    return (await answer.json()) as { [name: string]: unknown };
  }
}

/** Until a condition holds, which is looked at whenever the document or its status changes. */
export async function until<Found>(doc: LiveDocument, find: () => Found | undefined | null | false): Promise<Found> {
  return new Promise((resolve, reject) => {
    const finish = (): void => {
      clearTimeout(timer);
      for (const stop of stops) stop();
    };
    const look = (): void => {
      const found = find();
      if (found === undefined || found === null || found === false) return;
      finish();
      resolve(found);
    };
    const timer = setTimeout(() => {
      finish();
      reject(new Error(`not within ${LONG} ms: ${find.toString()} (${doc.status}, ${doc.trouble?.message})`));
    }, LONG);
    const stops = [doc.onChange(look), doc.onStatus(look)];
    look();
  });
}
