"""What of a message that is very large is the agent given?

Pure. Frontends have got the message as it was; this is about its copy. Reading 200 MB of JSON at once would cost the
agent several times its memory. So a long text of a stream becomes several messages with the same header, each with a
piece of it; and of one beyond a limit (of code likewise) the copy has the first and the last half of that, with a line
between that says how much is left out. Both are done at whole characters in the bytes as they are: it is JSON as
before, and nothing is parsed. A value that is larger than any blob is only named, with its size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..link import Way
from ..wire import DELIMITER, pack

Sign = Callable[[Sequence[bytes]], bytes]
"""Signs the four JSON frames of a message."""

Record = Callable[[Way, Sequence[bytes]], Iterable[Sequence[bytes]]]
"""What of a message is recorded, as one or several; none: it is a gap."""

PIECE_BYTES = 1 << 20
"""A text up to this is one message."""

_HEAD_BYTES = 512
_END_BYTES = 256
_RUN_BYTES = 1 << 16
_TEXT = re.compile(rb'"(?:text|code)"\s*:\s*"')
_END = re.compile(rb'"\s*(?:,\s*"name"\s*:\s*"[^"\\\\]*"\s*)?\}\s*$')
_MEDIA_TYPE = re.compile(rb'"data"\s*:\s*\{\s*"([\w.+-]{1,64}/[\w.+-]{1,64})"\s*:')
_TYPE = re.compile(rb'"msg_type"\s*:\s*"(\w+)"')
_TEXT_TYPES = frozenset({b"stream", b"execute_request", b"execute_input"})
_VALUE_TYPES = frozenset({b"display_data", b"execute_result", b"update_display_data"})


def recorder(
    text_bytes: int, blob_bytes: int, sign: Sign
) -> Callable[[Way, Sequence[bytes]], Iterable[Sequence[bytes]]]:
    """What of a message goes into the spool: nothing, itself, or pieces of it.

    Args:
        text_bytes: as of :func:`cut`.
        blob_bytes: of the largest value that is kept.
    """
    # a blob travels as base64, and its message holds some more
    value_bytes = max(text_bytes, blob_bytes * 4 // 3 + (1 << 20))

    def record(way: Way, frames: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
        left = cut(frames, text_bytes, value_bytes, sign)
        if left is None:
            return ()
        return split(left) if way is Way.TO_FRONT else (left,)

    return record


def cut(frames: Sequence[bytes], text_bytes: int, value_bytes: int, sign: Sign) -> Sequence[bytes] | None:
    """A message as it may be recorded.

    Args:
        frames: ``[ident*, DELIM, hmac, header, parent, metadata, content, buffer*]``.
        text_bytes: of a longer text or code the first and the last half of so much stay.
        value_bytes: a display with more is only named.

    Returns:
        The frames themselves where they are small enough; null where nothing sensible can be left of them.
    """
    if max(map(len, frames)) <= text_bytes:
        return frames
    try:
        at = frames.index(DELIMITER)
        head, (header, parent, metadata, content) = list(frames[: at + 1]), frames[at + 2 : at + 6]
    except ValueError:
        return None
    found = _TYPE.search(header)
    kind = found[1] if found else b""
    buffers_bytes = sum(map(len, frames[at + 6 :]))
    if kind in _TEXT_TYPES:
        shorter = _cut_text(content, text_bytes)
    elif sum(map(len, frames)) <= value_bytes:
        return frames
    else:
        shorter = _name(content, buffers_bytes) if kind in _VALUE_TYPES else None
    if shorter is None:
        return None
    parts = [header, parent, metadata, shorter]
    return [*head, sign(parts), *parts]


def split(frames: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """A message of the child as several, each with a piece of its text, where it is a stream with a long one. They are
    not signed: nobody else can send on the child's sockets."""
    at = frames.index(DELIMITER) if DELIMITER in frames else len(frames)
    content = frames[at + 5] if len(frames) == at + 6 else b""
    found = _TYPE.search(frames[at + 2]) if len(content) > PIECE_BYTES else None
    text = _TEXT.search(content, 0, _HEAD_BYTES)
    end = _END.search(content, max(0, len(content) - _END_BYTES))
    is_stream = found is not None and found[1] == b"stream"
    if not is_stream or text is None or end is None or end.start() <= text.end() or _backslashes(content, end.start()):
        yield frames
        return
    before, behind = content[: text.end()], content[end.start() :]
    start = text.end()
    while start < end.start():
        stop = end.start()
        if stop - start > PIECE_BYTES:
            whole = _whole(content, start + PIECE_BYTES)
            stop = stop if whole is None else min(whole, stop)
        yield [*frames[: at + 5], before + content[start:stop] + behind]
        start = stop


def _cut_text(content: bytes, limit: int) -> bytes | None:
    found = _TEXT.search(content, 0, _HEAD_BYTES)
    half = max(1024, limit // 2)
    if found is None or len(content) - found.end() <= 2 * half:
        return content if len(content) <= limit else None
    end, start = _whole(content, found.end() + half), _whole(content, len(content) - half)
    if end is None or start is None:
        return None
    notice = f"\\n… {start - end} bytes of one message are left out here: it is larger than recorded_bytes …\\n"
    return content[:end] + notice.encode() + content[start:]


def _whole(content: bytes, at: int) -> int | None:
    """The first place from about ``at`` on at which a character of a JSON text begins; null where none is found."""
    last = at + 3
    while at < min(last, len(content)) and content[at] & 0xC0 == 0x80:  # inside a character of UTF-8
        at += 1
    run = _backslashes(content, at)
    if run is None:
        return None
    if run % 2:
        at -= 1
    else:
        backslash = content.rfind(b"\\u", max(0, at - 5), at)  # inside the digits of an escape?
        before = _backslashes(content, backslash) if backslash >= 0 else None
        if before is not None and before % 2 == 0:
            at = backslash + 6
    low = content[at : at + 6].lower()  # the second half of a pair of surrogates goes with the first
    if low.startswith((b"\\udc", b"\\udd", b"\\ude", b"\\udf")) and content[at - 6 : at - 3].lower() == b"\\ud":
        at += 6
    return at


def _backslashes(content: bytes, at: int) -> int | None:
    """How many there are right in front of ``at``; null where they are too many to be counted."""
    window = content[max(0, at - _RUN_BYTES) : at]
    run = len(window) - len(window.rstrip(b"\\"))
    return run if run < _RUN_BYTES else None


def _name(content: bytes, buffers_bytes: int) -> bytes:
    found = _MEDIA_TYPE.search(content, 0, _HEAD_BYTES)
    media_type = found[1].decode("ascii", "replace") if found else "application/octet-stream"
    value = {"blob": None, "bytes": len(content) + buffers_bytes, "preview": None}
    return pack({"data": {media_type: value}, "metadata": {}, "transient": {}})
