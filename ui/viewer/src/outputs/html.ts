/** HTML that runs nothing, in a shadow root: its style sheets end there. The box around it is ours, so nothing leaves it. */

import type { View } from "./context.ts";
import { make } from "./dom.ts";
import base from "./html.css?inline";
import { sanitizeHtml } from "./sanitize.ts";

/** Elements whose contrast is looked at. */
const MOST_PAINTED = 3000;

export class HtmlView implements View {
  readonly element = make("div", "out-html");

  constructor(source: string) {
    const host = make("div");
    const root = host.attachShadow({ mode: "open" });
    const { body, css } = sanitizeHtml(source);
    for (const rules of [base, css]) if (rules !== "") root.append(make("style", "", rules));
    const content = make("div", "content");
    content.append(body);
    root.append(content);
    this.element.append(host);
    if (/background|bgcolor/i.test(source)) requestAnimationFrame(() => makeReadable(content));
  }

  destroy(): void {
    this.element.remove();
  }
}

/** What painted its background and left its text to us gets a text that can be read there, in light and in dark. */
function makeReadable(content: HTMLElement): void {
  const painted: [HTMLElement, string][] = [];
  for (const element of [...content.querySelectorAll<HTMLElement>("*")].slice(0, MOST_PAINTED)) {
    const style = getComputedStyle(element);
    const back = readColour(style.backgroundColor);
    if (!back || back.alpha < 0.5 || !element.parentElement) continue;
    if (style.color !== getComputedStyle(element.parentElement).color) continue;
    painted.push([element, back.luminance > 0.3 ? "#111" : "#fff"]);
  }
  for (const [element, colour] of painted) element.style.color = colour;
}

function readColour(text: string): { luminance: number; alpha: number } | null {
  const found = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(text);
  if (!found) return null;
  const [red, green, blue] = [found[1], found[2], found[3]].map((value) => (Number(value) / 255) ** 2.2) as [number, number, number];
  return { luminance: 0.2126 * red + 0.7152 * green + 0.0722 * blue, alpha: found[4] === undefined ? 1 : Number(found[4]) };
}
