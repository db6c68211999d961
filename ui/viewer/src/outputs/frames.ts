/**
 * A frame of its own for what runs: without our origin, without network, spoken to over a port.
 *
 * What it says is not trusted: a height is a number within limits, a text is shown as text.
 */

import { make } from "./dom.ts";
import { groundOf, isDark, onScheme } from "./scheme.ts";

/** Higher contents scroll within the frame. Pixels. */
const MOST_HEIGHT = 800;
/** It is loaded when it comes so near to what is seen. */
const NEAR = "400px";
const NOTE_CHARS = 500;
const SILENCE_MS = 3000;

export class SandboxFrame {
  readonly element = make("div", "out-frame");
  private readonly frame = make("iframe");
  private readonly note = make("p", "out-note");
  private port: MessagePort | null = null;
  private silence = 0;
  private readonly seen: IntersectionObserver;
  private readonly stop: () => void;

  /**
   * @param page of ours, beside the page's own address.
   * @param begin the first message, asked for when the frame is there.
   * @param receive what it says that is not of every frame.
   */
  constructor(
    page: "frame.html" | "widgets.html",
    title: string,
    private readonly begin: () => { [key: string]: unknown },
    private readonly receive: (message: { [key: string]: unknown }) => void = () => undefined,
  ) {
    this.frame.title = title;
    this.frame.setAttribute("sandbox", "allow-scripts");
    this.frame.setAttribute("referrerpolicy", "no-referrer");
    this.frame.addEventListener("load", () => this.open());
    this.note.hidden = true;
    this.element.append(this.frame, this.note);
    this.seen = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        this.seen.disconnect();
        this.frame.src = new URL(page, document.baseURI).href;
      },
      { rootMargin: NEAR },
    );
    this.seen.observe(this.element);
    this.stop = onScheme(() => this.send(this.looks()));
  }

  send(message: { [key: string]: unknown }, transfer: Transferable[] = []): void {
    this.port?.postMessage(message, transfer);
  }

  get isOpen(): boolean {
    return this.port !== null;
  }

  say(text: string): void {
    this.note.textContent = text.slice(0, NOTE_CHARS);
    this.note.hidden = text === "";
  }

  destroy(): void {
    this.seen.disconnect();
    this.stop();
    clearTimeout(this.silence);
    this.port?.close();
    this.element.remove();
  }

  /**
   * A frame is loaded again when its card was moved. One that says nothing then has turned itself into something else, as
   * far as the page's policy let it, and is taken away.
   */
  private open(): void {
    if (!this.frame.src) return;
    if (this.port) {
      this.port.close();
      this.silence = window.setTimeout(() => {
        this.frame.remove();
        this.say("This output tried to leave for another page, so it is not shown.");
      }, SILENCE_MS);
    }
    const channel = new MessageChannel();
    this.port = channel.port1;
    this.port.onmessage = (event: MessageEvent<unknown>) => this.take(event.data);
    this.frame.contentWindow?.postMessage({ ...this.begin(), ...this.looks() }, "*", [channel.port2]);
  }

  /** A frame is not seen through: what is behind it is told to it. */
  private looks(): { dark: boolean; ground: string } {
    return { dark: isDark(this.element), ground: groundOf(this.element) };
  }

  private take(message: unknown): void {
    if (typeof message !== "object" || message === null) return;
    const said = message as { [key: string]: unknown };
    clearTimeout(this.silence);
    if (typeof said["height"] === "number" && Number.isFinite(said["height"])) {
      const height = `${Math.min(MOST_HEIGHT, Math.max(0, Math.ceil(said["height"])))}px`;
      if (this.frame.style.height !== height) this.frame.style.height = height;
    }
    if (typeof said["note"] === "string") this.say(said["note"]);
    this.receive(said);
  }
}
