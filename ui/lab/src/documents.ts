/**
 * Which live document belongs to a kernel connection?
 *
 * Door. Owns one document for each connection that somebody in the page looks at: a notebook and the panel share it. A
 * kernel is asked once whether it has one, and again when it was restarted, or when the connection went before it said so.
 */

import { CommTransport, connect, type Health, inTurn, type KernelLike, type LiveDocument } from "@rtc-kernel/client";

import type { App, KernelConnection } from "./jupyterlab.ts";
import { probe } from "./probe.ts";

/** `asking`: the kernel has not said yet whether it has one, which may take as long as its cell; `none`: it has not. */
export type Found = LiveDocument | "asking" | "none";

type Tell = (found: Found) => void;

const sources = new Map<KernelConnection, Source>();

/** What the user of this page is called: what their kernels run has that name. */
let userName = (): string => "";

/** Whether the server in between may miss answers. */
let speaksInTurn = (): boolean => false;

/** jupyter-server-documents 0.3. */
export function hasServerDocuments(app: App): boolean {
  return [...(app.listPlugins?.() ?? [])].some((id) => id.startsWith("@jupyter-ai-contrib/server-documents:"));
}

/** Speak with kernels as this page's server bears it, and say in every document who sits here, also when that changes. */
export function beginWith(app: App): void {
  speaksInTurn = () => hasServerDocuments(app);
  const user = app.serviceManager?.user;
  userName = () => user?.identity?.display_name ?? "";
  let known = userName();
  user?.userChanged.connect(() => {
    if (userName() === known) return;
    known = userName();
    for (const source of sources.values()) source.introduce(known);
  });
}

/** Tell of the kernel's document, now and whenever it is another one. @returns how to end that. */
export function followDocument(kernel: KernelConnection, tell: Tell): () => void {
  let source = sources.get(kernel);
  if (source === undefined) sources.set(kernel, (source = new Source(kernel)));
  const { listeners } = source;
  listeners.add(tell);
  tell(source.found);
  return () => {
    if (!listeners.delete(tell) || listeners.size > 0) return;
    source.dispose();
    sources.delete(kernel);
  };
}

/** What is known of the kernel's document now; null: nobody in the page looks at it. */
export const peekDocument = (kernel: KernelConnection): Found | null => sources.get(kernel)?.found ?? null;

class Source {
  readonly listeners = new Set<Tell>();
  found: Found = "asking";
  private readonly kernel: KernelConnection;
  private readonly way: KernelLike;
  private readonly sessions = new Set<string>();
  private stopAsking: () => void = () => undefined;
  private isAway = false;

  constructor(kernel: KernelConnection) {
    this.kernel = kernel;
    this.way = speaksInTurn() ? inTurn(kernel) : kernel;
    kernel.iopubMessage.connect(this.receiveMessage);
    kernel.connectionStatusChanged.connect(this.receiveStatus);
    kernel.disposed.connect(this.close);
    this.ask();
  }

  dispose(): void {
    this.kernel.iopubMessage.disconnect(this.receiveMessage);
    this.kernel.connectionStatusChanged.disconnect(this.receiveStatus);
    this.kernel.disposed.disconnect(this.close);
    this.close();
  }

  introduce(name: string): void {
    const transport = typeof this.found === "string" ? null : this.found.transport;
    if (transport instanceof CommTransport) transport.introduce(name).catch(() => undefined);
  }

  private ask(): void {
    this.stopAsking = probe(this.way, (has, health) => this.set(has ? this.open(health) : "none"));
  }

  private open(health?: Health): LiveDocument {
    const onVisible = (callback: () => void): (() => void) => onReturn(this.kernel, callback);
    const transport = new CommTransport(this.way, { onVisible, name: userName });
    return connect(transport, health && { health });
  }

  private set(found: Found): void {
    this.found = found;
    for (const tell of [...this.listeners]) tell(found);
  }

  private readonly close = (): void => {
    this.stopAsking();
    if (typeof this.found !== "string") this.found.close();
  };

  /** Its answer may have been lost with the connection. */
  private readonly receiveStatus = (_: unknown, status: string): void => {
    const isBack = this.isAway && status === "connected";
    this.isAway = status !== "connected";
    if (!isBack || this.found !== "asking") return;
    this.stopAsking();
    this.ask();
  };

  /** Another process answers for the kernel now: somebody has restarted it, and it knows nothing of our comms. */
  private readonly receiveMessage = (_: unknown, { header }: { header: { session: string } }): void => {
    const isAnother = this.sessions.size > 0 && !this.sessions.has(header.session);
    this.sessions.add(header.session);
    if (!isAnother) return;
    this.close();
    this.set("asking");
    this.ask();
  };
}

/** Call when the page is looked at again, or its connection to the kernel is back: something may have been lost. */
function onReturn(kernel: KernelConnection, callback: () => void): () => void {
  const look = (): void => {
    if (document.visibilityState !== "hidden") callback();
  };
  const connected = (_: unknown, status: string): void => {
    if (status === "connected") look();
  };
  document.addEventListener("visibilitychange", look);
  kernel.connectionStatusChanged.connect(connected);
  return () => {
    document.removeEventListener("visibilitychange", look);
    kernel.connectionStatusChanged.disconnect(connected);
  };
}
