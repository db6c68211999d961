/** Elements, sizes in words, and looks of terminal text as nodes. */

import { BOLD, type Colour, CONCEALED, FAINT, INVERSE, ITALIC, type Looks, paletteColour, type Run, STRUCK, UNDERLINE } from "./ansi.ts";

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  text = "",
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

export function makeButton(text: string, act: () => void): HTMLButtonElement {
  const button = make("button", "out-button", text);
  button.type = "button";
  button.addEventListener("click", act);
  return button;
}

/** A link to another place: it opens beside the page and is told nothing of it. */
export function makeLink(href: string, text: string): HTMLAnchorElement {
  const link = make("a", "", text);
  link.href = href;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
}

export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

const FLAG_CLASSES: readonly (readonly [number, string])[] = [
  [BOLD, "ansi-bold"],
  [FAINT, "ansi-faint"],
  [ITALIC, "ansi-italic"],
  [UNDERLINE, "ansi-underline"],
  [CONCEALED, "ansi-concealed"],
  [STRUCK, "ansi-struck"],
  [INVERSE, "ansi-inverse"],
];

export function appendRuns(parent: Node, runs: readonly Run[]): void {
  for (const { text, looks } of runs) {
    if (looks.fg === null && looks.bg === null && looks.flags === 0 && looks.link === null) {
      parent.appendChild(document.createTextNode(text));
    } else parent.appendChild(makeRun(text, looks));
  }
}

function makeRun(text: string, looks: Looks): HTMLElement {
  const element = looks.link === null ? make("span", "", text) : makeLink(looks.link, text);
  if (looks.fg !== null) paint(element, "fg", looks.fg);
  if (looks.bg !== null) paint(element, "bg", looks.bg);
  for (const [flag, name] of FLAG_CLASSES) if (looks.flags & flag) element.classList.add(name);
  return element;
}

/** The style sheet knows the first 16; any other colour is told to it. */
function paint(element: HTMLElement, part: "fg" | "bg", colour: Colour): void {
  if (typeof colour === "number" && colour < 16) {
    element.classList.add(`ansi-${part}-${colour}`);
    return;
  }
  const value = typeof colour === "number" ? paletteColour(colour) : colour;
  element.classList.add(`ansi-${part}`);
  element.style.setProperty(`--${part}`, value);
  if (part === "bg" && !/\bansi-fg/.test(element.className)) element.style.setProperty("--fg", isPale(value) ? "#111" : "#fff");
}

function isPale(colour: string): boolean {
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16)) as [number, number, number];
  return red * 0.3 + green * 0.59 + blue * 0.11 > 140;
}
