/** One display or result on the page: the richest of its types that is shown safely. */

import type { BlobReference, Display, Json } from "@rtc-kernel/client";
import { ClampView } from "./clamp.ts";
import { ELSEWHERE, failureText, type OutputContext, type View } from "./context.ts";
import { formatBytes } from "../format.ts";
import { make, makeButton } from "./dom.ts";
import { SandboxFrame } from "./frames.ts";
import { HtmlView } from "./html.ts";
import { makeTree } from "./json.ts";
import { renderMarkdown } from "./markdown.ts";
import { renderLatex } from "./math.ts";
import { asText, type Choice, isReference, rankTypes } from "./mime.ts";
import { cutText } from "./pieces.ts";
import { readHtml } from "./sanitize.ts";
import { TextView } from "./text.ts";
import { WidgetView } from "./widgets.ts";

const PIECE_CHARS = 16_384;
/** Larger texts are not laid out here, they can be saved. Bytes. */
const MOST_BYTES: Readonly<Record<string, number>> = { text: 32 << 20, unknown: 0 };
const MOST_RICH_BYTES = 8 << 20;
/** A picture is not laid out larger than this, whatever its metadata say. Pixels. */
const MOST_PIXELS = 20_000;

export function makeDisplay(output: Display, context: OutputContext): View {
  const choices = rankTypes(output.data);
  const plain = output.data["text/plain"];
  const words = typeof plain === "string" ? plain : isReference(plain) && typeof plain.preview === "string" ? plain.preview : "";
  return choose(choices, output, words, context);
}

function choose(choices: readonly Choice[], output: Display, words: string, context: OutputContext): View {
  const [choice, ...others] = choices as [Choice, ...Choice[]];
  if (choice.kind === "widget") {
    const model = modelOf(choice.value as Json);
    const other = (): View => (others.length > 0 ? choose(others, output, words, context) : sayUnknown(choice.type));
    return model === null ? other() : new WidgetView(model, context, other);
  }
  if (isReference(choice.value)) return showReference(choice, choice.value, output, words, context);
  if (choice.kind === "image" || choice.kind === "svg") {
    return new ImageView(choice.type, inlineImage(choice.type, choice.value), sizeOf(output, choice), words);
  }
  return showValue(choice, choice.value, output, context);
}

/** A value that is here, other than a picture. */
function showValue(choice: Choice, value: Json, output: Display, context: OutputContext): View {
  switch (choice.kind) {
    case "html": {
      const { runs, source } = readHtml(asText(value));
      return runs ? showRunning("html", source) : new ClampView(new HtmlView(source));
    }
    case "javascript":
      return showRunning("javascript", asText(value));
    case "markdown":
      return new ClampView(plainView(renderMarkdown(asText(value))));
    case "latex":
      return new ClampView(plainView(renderLatex(asText(value))));
    case "json": {
      const told = output.metadata[choice.type];
      const expanded = isObject(told) ? told["expanded"] === true : output.metadata["expanded"] === true;
      const tree = makeTree(typeof value === "string" ? parseJson(value) : value, expanded);
      if (/^application\/(geo\+|ld\+)?json$/.test(choice.type)) return new ClampView(plainView(tree));
      const box = make("div");
      box.append(make("p", "out-note", `shown as JSON: ${choice.type}`), tree);
      return new ClampView(plainView(box));
    }
    case "text":
      return showText(asText(value), context);
    default:
      return sayUnknown(choice.type);
  }
}

function showText(text: string, context: OutputContext): View {
  const view = new TextView("out-plain", context.fold.lines);
  view.show(cutText(text, PIECE_CHARS));
  return view;
}

function showRunning(kind: "html" | "javascript", source: string): View {
  return new SandboxFrame("frame.html", "output that runs scripts, in a frame of its own", () => ({ kind, source }));
}

export function plainView(element: HTMLElement): View {
  return { element, destroy: () => element.remove() };
}

function sayUnknown(type: string): View {
  return plainView(make("p", "out-note", type === "" ? "an output without data" : `an output of type ${type}; nothing here shows it`));
}

// --- values that stand elsewhere

function showReference(choice: Choice, reference: BlobReference, output: Display, words: string, context: OutputContext): View {
  const { blob, bytes } = reference;
  if (blob === null) {
    return plainView(make("p", "out-note", `${choice.type}, ${formatBytes(bytes)}: too large to be kept; only its size is known`));
  }
  if (context.isLiveOnly) return showElsewhere(choice, reference, words, context);
  const url = context.blobUrl(blob);
  if (choice.kind === "image") {
    const source = url ?? (() => context.blob(blob).then((data) => objectUrl(data, choice.type)));
    return new ImageView(choice.type, source, sizeOf(output, choice), words);
  }
  if (choice.kind === "svg") {
    return new ImageView(choice.type, () => context.blob(blob).then((data) => objectUrl(data, choice.type)), sizeOf(output, choice), words);
  }
  return new ReferenceView(choice, reference, url, output, words, context);
}

/** What of it is in the document, and that there is more. */
function showElsewhere(choice: Choice, { bytes, preview }: BlobReference, words: string, context: OutputContext): View {
  const element = make("div", "out-reference");
  const first = words || (typeof preview === "string" ? preview : "");
  const shown = first === "" ? null : showText(first, context);
  if (shown) element.append(shown.element);
  element.append(make("p", "out-note", `${choice.type}, ${formatBytes(bytes)}: ${ELSEWHERE}`));
  return {
    element,
    destroy: () => {
      shown?.destroy();
      element.remove();
    },
  };
}

class ReferenceView implements View {
  readonly element = make("div", "out-reference");
  private shown: View | null = null;
  private gone = false;

  constructor(
    private readonly choice: Choice,
    private readonly reference: BlobReference,
    url: string | null,
    private readonly output: Display,
    words: string,
    private readonly context: OutputContext,
  ) {
    const { preview, bytes } = reference;
    const first = words || (typeof preview === "string" ? preview : "");
    if (first !== "") {
      this.shown = showText(first, context);
      this.element.append(this.shown.element);
    }
    const bar = make("div", "out-bar");
    const size = formatBytes(bytes);
    if (bytes <= (MOST_BYTES[choice.kind] ?? MOST_RICH_BYTES)) {
      const button = makeButton(`Show all of it (${choice.type}, ${size})`, () => void this.load(button, bar));
      bar.append(button);
    } else bar.append(make("span", "out-note", `${choice.type}, ${size}: too large to be shown here`));
    if (url !== null) {
      const save = make("a", "out-save", "Save");
      save.href = url;
      save.download = "";
      save.setAttribute("aria-label", `Save this ${choice.type}, ${size}`);
      bar.append(save);
    }
    this.element.append(bar);
  }

  destroy(): void {
    this.gone = true;
    this.shown?.destroy();
  }

  private async load(button: HTMLButtonElement, bar: HTMLElement): Promise<void> {
    button.disabled = true;
    bar.querySelector(".out-failure")?.remove();
    try {
      const data = await this.context.blob(this.reference.blob ?? "");
      if (this.gone) return;
      const text = new TextDecoder().decode(data);
      const view = showValue(this.choice, text, this.output, this.context);
      this.shown?.destroy();
      this.shown = view;
      this.element.replaceChildren(view.element);
    } catch (error) {
      button.disabled = false;
      bar.append(make("span", "out-failure", failureText(error)));
    }
  }
}

// --- pictures

interface Size {
  width: number | null;
  height: number | null;
  background: "light" | "dark" | null;
}

class ImageView implements View {
  readonly element = make("div", "out-image");
  private owned: string | null = null;
  private gone = false;

  constructor(type: string, source: string | (() => Promise<string>) | null, size: Size, words: string) {
    if (source === null) {
      this.element.append(make("p", "out-note", `${type}: its data cannot be read`));
      return;
    }
    const image = make("img");
    image.alt = words.slice(0, 1000) || `output of type ${type}`;
    image.decoding = "async";
    image.loading = "lazy";
    if (size.width !== null) image.width = size.width;
    if (size.height !== null) image.height = size.height;
    if (size.background !== null) image.dataset["background"] = size.background;
    image.addEventListener("error", () => {
      image.replaceWith(make("p", "out-note", `${type}: the picture cannot be shown`));
    });
    this.element.append(image);
    if (typeof source === "string") {
      if (source.startsWith("blob:")) this.owned = source;
      image.src = source;
    } else void this.fetch(image, type, source);
  }

  destroy(): void {
    this.gone = true;
    if (this.owned !== null) URL.revokeObjectURL(this.owned);
    this.owned = null;
  }

  private async fetch(image: HTMLImageElement, type: string, source: () => Promise<string>): Promise<void> {
    try {
      const url = await source();
      if (this.gone) URL.revokeObjectURL(url);
      else [this.owned, image.src] = [url, url];
    } catch (error) {
      const again = makeButton("Try again", () => {
        box.replaceWith(image);
        void this.fetch(image, type, source);
      });
      const box = make("p", "out-note", `${type}: ${failureText(error)} `);
      box.append(again);
      image.replaceWith(box);
    }
  }
}

/** As a picture SVG runs nothing and asks for nothing. */
function inlineImage(type: string, value: Json): string | null {
  const text = asText(value);
  if (type === "image/svg+xml") return objectUrl(new TextEncoder().encode(text), type);
  const data = text.replace(/\s/g, "");
  return /^[A-Za-z0-9+/]+={0,2}$/.test(data) ? `data:${type};base64,${data}` : null;
}

function objectUrl(data: Uint8Array, type: string): string {
  return URL.createObjectURL(new Blob([data as Uint8Array<ArrayBuffer>], { type }));
}

function sizeOf(output: Display, choice: Choice): Size {
  const told = output.metadata[choice.type];
  const own = isObject(told) ? told : output.metadata;
  const preview = isReference(choice.value) && typeof choice.value.preview === "object" ? choice.value.preview : null;
  const [width, height] = [readPixels(own["width"]), readPixels(own["height"])];
  const background = own["needs_background"];
  return {
    // one of the two alone keeps the proportions; what the picture itself is keeps its place until it is there
    width: width ?? (height === null ? readPixels(preview?.width) : null),
    height: height ?? (width === null ? readPixels(preview?.height) : null),
    background: background === "light" || background === "dark" ? background : null,
  };
}

function readPixels(value: unknown): number | null {
  const number = typeof value === "string" && /^\d+(\.\d+)?(px)?$/.test(value) ? Number.parseFloat(value) : value;
  return typeof number === "number" && number >= 1 && number <= MOST_PIXELS ? Math.round(number) : null;
}

// --- values

function modelOf(value: Json): string | null {
  const model = isObject(value) ? value["model_id"] : null;
  return typeof model === "string" ? model : null;
}

function isObject(value: unknown): value is { [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseJson(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return text;
  }
}
