// The page of a room: what a browser that opens http://RELAY/ROOM gets. It is the viewer of rtc_kernel, as it was built, and
// holds no data: the documents come over the WebSocket, to those whose token opens them.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const PAGE_CSP =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; " +
  "font-src 'self'; media-src 'self' data: blob:; connect-src 'self'; frame-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
// The frames in which outputs run their scripts, and widgets are drawn: no origin, and nobody to talk to.
const FRAME_CSP =
  "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; " +
  "img-src data: blob:; font-src data:; media-src data: blob:; connect-src 'none'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'self'";
const WIDGETS_CSP =
  "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; " +
  "img-src data: blob:; font-src 'self' data:; media-src data: blob:; connect-src 'none'; base-uri 'none'; " +
  "form-action 'none'; frame-ancestors 'self'";

const TYPES = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  woff2: "font/woff2",
  txt: "text/plain; charset=utf-8",
};
const ASSET = /^\/assets\/[\w-][\w.-]*$/;
const ROOM = /^\/[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The file that a path means, and the policy that goes with it; null: none. Pure. */
export function find(path) {
  if (ASSET.test(path)) return { file: path.slice(1), csp: PAGE_CSP, isAsset: true };
  if (path === "/frame.html") return { file: "frame.html", csp: FRAME_CSP, isAsset: false };
  if (path === "/widgets.html") return { file: "widgets.html", csp: WIDGETS_CSP, isAsset: false };
  return ROOM.test(path) ? { file: "room.html", csp: PAGE_CSP, isAsset: false } : null;
}

/** The viewer in a directory; null where there is none. */
export function openPage(directory) {
  return existsSync(join(directory, "room.html")) ? new Page(directory) : null;
}

class Page {
  #directory;
  #files = new Map();

  constructor(directory) {
    this.#directory = directory;
  }

  /** Answer a request over HTTP. */
  answer(request, response) {
    const found = find(new URL(request.url, "http://relay").pathname);
    const data = found && (request.method === "GET" || request.method === "HEAD") ? this.#read(found.file) : null;
    if (data === null) {
      response.writeHead(404, { "Content-Type": TYPES.txt, "X-Content-Type-Options": "nosniff" });
      response.end("There is nothing here. A room is http://THIS-ADDRESS/ROOM#token=TOKEN\n");
      return;
    }
    response.writeHead(200, {
      "Content-Type": TYPES[found.file.split(".").at(-1)] ?? "application/octet-stream",
      "Content-Length": data.length,
      "Content-Security-Policy": found.csp,
      "X-Content-Type-Options": "nosniff",
      "Referrer-Policy": "no-referrer",
      // An asset's name has a digest of it; frames have no origin, and load theirs from here.
      "Cache-Control": found.isAsset ? "public, max-age=31536000, immutable" : "no-cache",
      ...(found.isAsset ? { "Access-Control-Allow-Origin": "*" } : {}),
    });
    response.end(request.method === "HEAD" ? undefined : data);
  }

  #read(file) {
    if (!this.#files.has(file)) {
      const path = join(this.#directory, file);
      if (!existsSync(path)) return null;
      this.#files.set(file, readFileSync(path));
    }
    return this.#files.get(file);
  }
}
