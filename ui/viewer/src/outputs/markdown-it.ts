/** The Markdown parser, in a part of its own. */

import { tex } from "@mdit/plugin-tex";
import MarkdownIt from "markdown-it";
import { highlight } from "./highlight.ts";
import { sanitizeForPage } from "./sanitize.ts";

const parser = new MarkdownIt({ html: true, linkify: true });
const escape = parser.utils.escapeHtml;
parser.use(tex, {
  delimiters: "all",
  render: (content: string, display: boolean) =>
    display ? `<span class="out-formula out-display">${escape(content)}</span>` : `<span class="out-formula">${escape(content)}</span>`,
});
parser.block.ruler.before("paragraph", "environment", (state, startLine, endLine, silent) => {
  const line = (at: number): string => state.src.slice((state.bMarks[at] ?? 0) + (state.tShift[at] ?? 0), state.eMarks[at]);
  const name = /^\\begin\{([a-z]+\*?)\}/.exec(line(startLine))?.[1];
  if (name === undefined) return false;
  for (let at = startLine; at < endLine; at++) {
    if (!line(at).trimEnd().endsWith(`\\end{${name}}`)) continue;
    if (silent) return true;
    const token = state.push("html_block", "", 0);
    const content = state.getLines(startLine, at + 1, state.blkIndent, false);
    token.content = `<p><span class="out-formula out-display">${escape(content)}</span></p>`;
    token.map = [startLine, at + 1];
    state.line = at + 1;
    return true;
  }
  return false;
});

const KEPT_CLASSES = /^(?:out-formula|out-display|alert|alert-\w+|language-[\w+#.-]+)$/;

export function parseMarkdown(source: string): DocumentFragment {
  const body = sanitizeForPage(parser.render(source), KEPT_CLASSES);
  for (const code of body.querySelectorAll("pre > code[class]")) {
    const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
    code.replaceChildren(highlight(code.textContent ?? "", language));
  }
  for (const wide of body.querySelectorAll("table")) {
    const box = document.createElement("div");
    box.className = "out-scroll";
    wide.replaceWith(box);
    box.append(wide);
  }
  return body;
}
