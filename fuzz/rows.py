"""Any row is a request with checked columns or a refused one with a reason, and any update of the requests gives rows
or RemoteError, nothing else."""

from __future__ import annotations

import json
from contextlib import suppress

from pycrdt import Doc, Map

from rtc_kernel.agent.act.rows import RowLimits, read_row
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.errors import RemoteError
from rtc_kernel.tables import RequestState

from .messages import UPDATE
from .values import WORDS, Bytes

_LIMITS = RowLimits(code_bytes=100, value_bytes=100)


def _row(*words: str) -> bytes:
    """The bytes of which :meth:`Bytes.mapping` makes a row: names and texts in turn."""
    out = bytes([len(words) // 2])
    for name, value in zip(words[::2], words[1::2], strict=True):
        out += bytes([WORDS.index(name), 11, WORDS.index(value)])
    return b"\0" + out


PANICS = bytes.fromhex(
    "01060700210108726571756573747302723101000003000b010a0b280b4b247302723201270007060161000800070701"
    "7c3f800000870708010107010006"
)
"""An update on which pycrdt 0.14 panics (a division by zero)."""

SEEDS = [
    _row("action", "execute", "code", "é😀", "cell", "r1"),
    _row("action", "query", "target", "x" * 5000),
    _row("action", "input", "execution", "r1", "value", "\ud800"),
    _row("action", "annotate", "execution", "r1", "key", "rtc_x", "value", "\0"),
    b"\1" + len(UPDATE).to_bytes(2, "big") + UPDATE + b"\0\2\0\0",
    b"\1" + len(PANICS).to_bytes(2, "big") + PANICS,
    b"\2" + _row("action", "restart")[1:] + _row("action", "restart", "by", "r1")[1:],
]


def run(data: bytes) -> None:
    """By the first byte: read one row; or apply updates; or write rows as a stock peer does."""
    cursor = Bytes(data)
    match cursor.byte() % 3:
        case 0:
            _check(cursor.text() if cursor.byte() & 1 else "r1", cursor.value() if cursor.byte() & 1 else None)
            cursor = Bytes(data[1:])
            _check("r1", cursor.mapping())
        case 1:
            document = RequestsDocument("k")
            while cursor.left > 0:
                update, by = cursor.take(cursor.number()), "ada" if cursor.byte() & 1 else "bob"
                with suppress(RemoteError):
                    for row in document.receive(update, by).rows:
                        _check(row.id, row.value)
                if document.worn:
                    return  # the agent makes a new one
            document.take_update()
            document.diff(b"\x00")
        case _:
            document, doc = RequestsDocument("k"), Doc[object]()
            rows = doc.get("requests", type=Map)
            while cursor.left > 0:
                value, key = cursor.mapping(), cursor.text()
                try:
                    rows[key] = Map(value) if cursor.byte() & 1 else value
                except BaseException as exc:  # what pycrdt cannot write no stock peer can send; some of it is a panic
                    if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
                        return
                    raise
                with suppress(RemoteError):
                    received = document.receive(doc.get_update(document.state_vector()), "ada")
                    document.put(_check(row.id, row.value) for row in received.rows)
                if document.worn:
                    return
                document.take_update()


def _check(key: str, row: object):  # type: ignore[no-untyped-def]
    reading = read_row(key, row, by="ada", role="own", ordinal=1, now=1.0, limits=_LIMITS)
    request = reading.request
    if request.state is RequestState.REFUSED:
        assert request.reason
        assert not request.columns
        request.reason.encode()
    else:
        assert request.state is RequestState.REQUESTED
        json.dumps(request.columns, allow_nan=False).encode()
        assert "value" not in request.columns or request.action == "annotate"
    return request
