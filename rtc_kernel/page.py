"""Of which files is the page made, and what may each of them do in a browser?

They are built (``ui/viewer``), lie in ``web`` and hold no data. Whoever serves them sends these headers.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self'; media-src 'self' data: blob:; connect-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the page. Styles may be inline, because outputs are styled (a table of pandas, a formula); scripts never."""
FRAME_CSP = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; media-src data: blob:; connect-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""Of the frame in which an output's own scripts run: an origin of its own, and nobody to talk to."""
WIDGETS_CSP = (
    "sandbox allow-scripts; default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data: blob:; font-src 'self' data:; media-src data: blob:; connect-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""Of the frame in which widgets are drawn: likewise, with our own scripts."""
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "svg": "image/svg+xml",
    "woff2": "font/woff2",
}
"""By the end of a file's name; a file of another kind is not served."""
_CSPS = {"frame.html": FRAME_CSP, "widgets.html": WIDGETS_CSP}
_NAME = re.compile(r"(assets/)?[\w-][\w.-]*", re.ASCII)
"""Whatever else an address may say, it leads nowhere else."""
_SHRINKING = frozenset(_TYPES.values()) - {"font/woff2"}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One of them, as it is sent."""

    data: bytes
    headers: dict[str, str]


def find(name: str, *, shrink: bool = False) -> PageFile | None:
    """A file by its path, as in an address; null: there is none. ``shrink``: compressed, where it pays."""
    data = _read(name) if _NAME.fullmatch(name) else None
    media_type = _TYPES.get(name.rpartition(".")[2])
    if data is None or media_type is None:
        return None
    headers = {"Content-Type": media_type, "Content-Security-Policy": _CSPS.get(name, PAGE_CSP)}
    headers["Cache-Control"] = "no-cache"
    if name.startswith("assets/"):  # the name has a digest of the file; a frame of an opaque origin loads it too
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
        headers["Access-Control-Allow-Origin"] = "*"
    if shrink and media_type in _SHRINKING:
        headers["Content-Encoding"], headers["Vary"] = "gzip", "Accept-Encoding"
        data = _read_gzip(name)
    return PageFile(data, headers)


def _read(name: str) -> bytes | None:
    path = files("rtc_kernel") / "web" / name
    return path.read_bytes() if path.is_file() else None


@cache
def _read_gzip(name: str) -> bytes:
    return gzip.compress(_read(name) or b"", mtime=0)
