/**
 * HTML that others wrote, without anything that runs, leaves this page, or asks anything of any host.
 *
 * DOMPurify takes out what runs. Its hooks take out every address but links that a reader may follow and data that are
 * there already: not even our own host is asked, because a GET with the reader's cookie is not theirs to make.
 */

import createDOMPurify, { type Config } from "dompurify";
import { makeLink } from "./dom.ts";

const purifier = createDOMPurify(window);
/** Elements whose picture stands elsewhere, while one text is read. */
let remote = new Map<Element, string>();

const LINK = /^(?:https?:\/\/|mailto:)/i;
const INLINE_DATA = /^data:(?:image|audio|video)\/[\w.+-]+[;,]/i;
const DROPPED = new Set(
  ("srcset poster background ping action formaction cite data longdesc usemap manifest lowsrc dynsrc code codebase archive " +
    "profile imagesrcset tabindex accesskey autofocus contenteditable popover popovertarget is slot part for form target rel " +
    "download autoplay").split(" "),
);
const FORBIDDEN = "form input button textarea select option optgroup datalist dialog fieldset link meta base object embed template slot".split(" ");

const COMMON: Config = {
  RETURN_DOM_FRAGMENT: true,
  FORCE_BODY: true, // a style sheet in front stays
  ALLOW_DATA_ATTR: false,
  FORBID_TAGS: FORBIDDEN,
};
const IN_SHADOW: Config = { ...COMMON };
const IN_PAGE: Config = { ...COMMON, FORBID_TAGS: [...FORBIDDEN, "style"], FORBID_ATTR: ["id", "name"], ALLOW_ARIA_ATTR: false };

purifier.addHook("uponSanitizeAttribute", (element, attribute) => {
  const { attrName: name, attrValue: value } = attribute;
  if (DROPPED.has(name)) attribute.keepAttr = false;
  else if (name === "href" || name === "xlink:href") {
    const isLink = element.localName === "a" || element.localName === "area";
    attribute.keepAttr = isLink ? LINK.test(value.trim()) : value.startsWith("#") || INLINE_DATA.test(value);
  } else if (name === "src") {
    attribute.keepAttr = INLINE_DATA.test(value);
    if (!attribute.keepAttr && LINK.test(value)) remote.set(element, value);
  } else if (name === "style") attribute.attrValue = cleanDeclarations((element as HTMLElement).style?.cssText ?? "");
  else if (/url\s*\(/i.test(value) && !/^\s*url\(\s*["']?#[\w:.-]+["']?\s*\)\s*$/i.test(value)) attribute.keepAttr = false;
});
purifier.addHook("afterSanitizeAttributes", (element) => {
  if (element.localName !== "a" || !element.hasAttribute("href")) return;
  element.setAttribute("target", "_blank");
  element.setAttribute("rel", "noopener noreferrer");
});

/** For a shadow root: style sheets, ids and classes stay. */
export function sanitizeHtml(source: string): { body: DocumentFragment; css: string } {
  const body = purify(source, IN_SHADOW);
  const sheets = [...body.querySelectorAll("style")];
  const css = sheets.map((sheet) => cleanSheet(sheet.textContent ?? "")).join("\n");
  for (const sheet of sheets) sheet.remove();
  return { body, css };
}

/** For the page itself: nothing that could take part in the page's own looks, ids or roles. */
export function sanitizeForPage(source: string, keptClasses: RegExp): DocumentFragment {
  const body = purify(source, IN_PAGE);
  for (const element of body.querySelectorAll("[class]")) {
    const kept = [...element.classList].filter((name) => keptClasses.test(name));
    if (kept.length > 0) element.setAttribute("class", kept.join(" "));
    else element.removeAttribute("class");
  }
  for (const element of body.querySelectorAll("[role]")) element.removeAttribute("role");
  return body;
}

function purify(source: string, config: Config): DocumentFragment {
  remote = new Map();
  const body = purifier.sanitize(source, config) as unknown as DocumentFragment;
  for (const [element, address] of remote) {
    const words = element.getAttribute("alt") || element.localName;
    if (element.isConnected || body.contains(element)) element.replaceWith(makeLink(address, `${words} (${address})`));
  }
  return body;
}

/** Whether a text of HTML wants to run something. Parsed inertly. Frames of other hosts become links. */
export function readHtml(source: string): { runs: boolean; source: string } {
  if (!/<\s*(?:script|iframe|object|embed)|\son\w+\s*=|javascript:/i.test(source)) return { runs: false, source };
  const parsed = new DOMParser().parseFromString(source, "text/html");
  let linked = false;
  for (const frame of parsed.querySelectorAll("iframe[src]")) {
    const address = frame.getAttribute("src") ?? "";
    if (!LINK.test(address)) continue;
    const link = parsed.createElement("a");
    link.setAttribute("href", address);
    link.textContent = `frame (${address})`;
    frame.replaceWith(link);
    linked = true;
  }
  const runs = [...parsed.querySelectorAll("*")].some(isActive);
  return { runs, source: linked ? parsed.documentElement.innerHTML : source };
}

const SCRIPT_TYPE = /^\s*(?:|module|importmap|(?:text|application)\/(?:x-)?(?:java|ecma)script\b.*)\s*$/i;

function isActive(element: Element): boolean {
  if (element.localName === "script") return SCRIPT_TYPE.test(element.getAttribute("type") ?? "");
  if (element.localName === "iframe") return element.hasAttribute("srcdoc");
  return [...element.attributes].some(
    ({ name, value }) => name.startsWith("on") || (name.endsWith("href") && /^\s*javascript:/i.test(value)),
  );
}

/** The rules of a style sheet that ask for nothing. */
function cleanSheet(source: string): string {
  const sheet = new CSSStyleSheet();
  try {
    sheet.replaceSync(source); // leaves @import out
  } catch {
    return "";
  }
  return cleanRules(sheet.cssRules);
}

function cleanRules(rules: CSSRuleList): string {
  const kept: string[] = [];
  for (const rule of rules) {
    if (rule instanceof CSSStyleRule) kept.push(`${rule.selectorText} { ${cleanDeclarations(rule.style.cssText)} }`);
    else if (rule instanceof CSSMediaRule) kept.push(`@media ${rule.conditionText} { ${cleanRules(rule.cssRules)} }`);
    else if (rule instanceof CSSSupportsRule) kept.push(`@supports ${rule.conditionText} { ${cleanRules(rule.cssRules)} }`);
    else if (rule instanceof CSSKeyframesRule && cleanDeclarations(rule.cssText) === rule.cssText) kept.push(rule.cssText);
  }
  return kept.join("\n");
}

/** Declarations as the browser wrote them down, without addresses. What could hide one (an escape) is not kept. */
function cleanDeclarations(text: string): string {
  if (!/url\(|image-set\(|src\(|\\/i.test(text)) return text;
  if (/image-set\(|\bsrc\(|\\/i.test(text)) return "";
  return text.replace(/url\((?:"(?:[^"\\]|\\.)*"|[^)]*)\)/gi, (found) => (/^url\("?(?:data:image\/|#)/i.test(found) ? found : "none"));
}
