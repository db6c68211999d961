"""Which part of a decoded message may enter a row, and what becomes a blob?

Pure. A message of a kernel or a frontend may hold anything that JSON can say, in any place; every reader here
answers with a value of the type asked for and never raises. What goes into a change went through :func:`clean`
(or :func:`clean_text`): neither UTF-8 nor a Yjs string can hold a lone surrogate, SQLite's text ends at NUL, and
JSON has no NaN.
"""

from __future__ import annotations

import hashlib
import json
import re
from binascii import a2b_base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from ...tables import Change, Json, PutBlob

MAX_DEPTH = 64
"""JSON nested more deeply than this is null: document, store and browsers read it recursively."""

PREVIEW_BYTES = 1024
"""How much of a text stays in the document when the text itself is a blob."""

SMALL_BYTES = 1024
"""A value up to this stays in its row in any case."""

_HEADER_BYTES = 1 << 16
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_INT = (1 << 63) - 1
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one value may weigh.

    Attributes:
        inline_bytes: a value above it is a blob.
        blob_bytes: a blob above it is only named, with its size.
        execution_bytes: of the values in the outputs of one execution; once they are more, a value above
            ``SMALL_BYTES`` is a blob.
        comms: open comms that are followed; beyond, the one that was silent for longest is taken as closed.
    """

    inline_bytes: int = 64 << 10
    blob_bytes: int = 100 << 20
    execution_bytes: int = 1 << 20
    comms: int = 5000

    def within(self, used_bytes: int) -> Limits:
        """The limits of a value of an execution whose outputs have so many bytes already."""
        if used_bytes < self.execution_bytes or self.inline_bytes <= SMALL_BYTES:
            return self
        return replace(self, inline_bytes=SMALL_BYTES)


def clean_text(text: str) -> str:
    """The text with U+FFFD in place of each lone surrogate and each NUL."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def clean(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A copy of a JSON value that document, store and browsers can hold: texts by :func:`clean_text`, numbers
    finite and within 64 bits (a larger integer is a float), nothing deeper than ``depth``. ``bytes`` stay."""
    match value:
        case str():
            return clean_text(value)
        case None | bool() | bytes():
            return value
        case int():
            if -_MAX_INT <= value <= _MAX_INT:
                return value
            return float(value) if value.bit_length() < 1024 else None
        case float():
            return value if isfinite(value) else None
        case dict() if depth > 0:
            return {clean_text(str(key)): clean(item, depth - 1) for key, item in value.items()}
        case list() | tuple() if depth > 0:
            return [clean(item, depth - 1) for item in value]
        case _:
            return None


def get_text(obj: Mapping[str, Any], key: str) -> str:
    """A text, cleaned; the empty string where there is none."""
    value = obj.get(key)
    return clean_text(value) if isinstance(value, str) else ""


def get_object(obj: Mapping[str, Any], key: str) -> Json:
    """An object, as it is; an empty one where there is none."""
    value = obj.get(key)
    return value if isinstance(value, dict) else {}


def get_list(obj: Mapping[str, Any], key: str) -> list[Any]:
    """A list, as it is; an empty one where there is none."""
    value = obj.get(key)
    return value if isinstance(value, list) else []


def get_count(obj: Mapping[str, Any], key: str) -> int | None:
    """An ``execution_count``: a number from 0, else null."""
    value = obj.get(key)
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_INT
    return value if fits else None


def size_of(text: str) -> int:
    """Bytes of a clean text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def cut(text: str, size_bytes: int) -> str:
    """The first ``size_bytes`` of a clean text, whole code points."""
    if 4 * len(text) <= size_bytes:
        return text
    return text.encode()[:size_bytes].decode(errors="ignore")


def dump(value: Any) -> str:
    """A clean value without ``bytes`` as JSON text."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def bound(value: Any, limits: Limits) -> Any:
    """A clean copy of a JSON value, or ``{"bytes": n}`` in its place when it is above the inline limit."""
    value = clean(value)
    size = size_of(dump(value))
    return value if size <= limits.inline_bytes else {"bytes": size}


def refer(data: bytes, media_type: str, preview: str | Json | None, limits: Limits, changes: list[Change]) -> Json:
    """The reference that stands in a row for a value above the inline limit.

    Args:
        preview: the beginning of a text; of an image ``{"width", "height"}``; null for what is binary otherwise.
        changes: gets the :class:`~rtc_kernel.tables.PutBlob`, in front of the change that refers to it.

    Returns:
        ``{"blob": "sha256:<64 hex>" | null, "bytes": n, "preview": …}``; null where the blob limit is passed too.
    """
    digest = None
    if len(data) <= limits.blob_bytes:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        changes.append(PutBlob(digest, data, media_type))
    return {"blob": digest, "bytes": len(data), "preview": preview}


def read_bundle(data: Json, limits: Limits, changes: list[Change]) -> Json:
    """A MIME bundle, each value inline or as a reference.

    Args:
        data: ``{media type: text | JSON}``; what is binary is base64 text there.
        changes: gets the blobs.
    """
    return {
        clean_text(str(media_type)): _read_value(clean_text(str(media_type)), value, limits, changes)
        for media_type, value in data.items()
    }


def _read_value(media_type: str, value: Any, limits: Limits, changes: list[Change]) -> Any:
    value = clean(value)
    text = value if isinstance(value, str) else dump(value)
    if 4 * len(text) <= limits.inline_bytes or size_of(text) <= limits.inline_bytes:
        return value
    raw = _decode(text) if isinstance(value, str) and is_binary(media_type) else None
    if raw is not None:
        return refer(raw, media_type, read_image_size(media_type, raw), limits, changes)
    return refer(text.encode(), media_type, cut(text, PREVIEW_BYTES), limits, changes)


def is_binary(media_type: str) -> bool:
    """Whether a bundle holds this type as base64 (messaging spec, "display_data": images other than SVG, PDF)."""
    if media_type.startswith("image/svg"):
        return False
    return media_type.startswith(("image/", "audio/", "video/")) or media_type == "application/pdf"


def read_image_size(media_type: str, data: bytes) -> Json | None:
    """``{"width", "height"}`` in pixels, from the header of a PNG or a JPEG; null for any other bytes.

    Source: PNG specification 11.2.2 (``IHDR`` is the first chunk); ITU T.81 B.2.2 (the frame header, ``SOFn``).
    """
    size = None
    if media_type == "image/png" and data.startswith(_PNG) and data[12:16] == b"IHDR" and len(data) >= 24:
        size = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    elif media_type == "image/jpeg" and data.startswith(b"\xff\xd8"):
        size = _read_jpeg_size(data[:_HEADER_BYTES])
    return {"width": size[0], "height": size[1]} if size is not None and min(size) > 0 else None


def _read_jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _decode(text: str) -> bytes | None:
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    try:
        return a2b_base64("".join(text.split()), strict_mode=True)  # a pattern takes 15 times as long
    except ValueError:
        return None
