"""What is each byte of a message of y-protocols? For the session that docs/protocol.md shows.

Pure: bytes in, lines out: the bytes of one field after another, and what they say. Reads what this package and Yjs
write today, and no more: any other content is a KeyError.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from rtc_kernel.yproto import Reader

WIDTH = 44
"""Characters of hex in front of what it says; what is longer is broken."""

SYNC = ("step 1", "step 2", "update")
TYPES = {0: "Array", 1: "Map", 2: "Text"}
SHOWN_CHARS = 60


class _Fields:
    """The bytes of one line, field by field."""

    def __init__(self, reader: Reader, data: bytes) -> None:
        self._reader = reader
        self._data = data
        self._start = len(data) - reader.left
        self._hex: list[str] = []

    def read(self, read: Callable[[], Any]) -> Any:
        """One field; its value."""
        value = read()
        end = len(self._data) - self._reader.left
        self._hex.append(self._data[self._start : end].hex())
        self._start = end
        return value

    def line(self, note: str) -> Iterator[str]:
        """What was read since the last line, and what it says."""
        rows: list[str] = [""]
        for field in self._hex:
            for piece in [field[at : at + WIDTH] for at in range(0, len(field), WIDTH)]:
                if len(rows[-1]) + 1 + len(piece) > WIDTH and rows[-1]:
                    rows.append("")
                rows[-1] += f"{' ' if rows[-1] else ''}{piece}"
        self._hex.clear()
        yield from rows[:-1]
        yield f"{rows[-1]:{WIDTH}}  {note}"


def annotate(data: bytes) -> list[str]:
    """The lines of one message."""
    reader = Reader(data)
    return list(_message(reader, _Fields(reader, data)))


def _message(reader: Reader, fields: _Fields) -> Iterator[str]:
    match fields.read(reader.uint):
        case 0:
            kind = fields.read(reader.uint)
            length = fields.read(reader.uint)
            yield from fields.line(f"sync, {SYNC[kind]}, {_many(length, 'byte')}")
            yield from _state_vector(reader, fields) if kind == 0 else _update(reader, fields)
        case 1:
            length = fields.read(reader.uint)
            count = fields.read(reader.uint)
            yield from fields.line(f"awareness, {_many(length, 'byte')}, {_many(count, 'client')}")
            for _ in range(count):
                client, clock, state = (fields.read(read) for read in (reader.uint, reader.uint, reader.string))
                yield from fields.line(f"client {client}, clock {clock}: {state}")
        case 2:
            fields.read(reader.uint)
            text = fields.read(reader.string)
            yield from fields.line(f"auth, permission denied: {text}")
        case _:
            yield from fields.line("query awareness")


def _state_vector(reader: Reader, fields: _Fields) -> Iterator[str]:
    count = fields.read(reader.uint)
    yield from fields.line(f"state vector of {_many(count, 'client')}")
    for _ in range(count):
        client, clock = fields.read(reader.uint), fields.read(reader.uint)
        yield from fields.line(f"of client {client} all before clock {clock}")


def _update(reader: Reader, fields: _Fields) -> Iterator[str]:
    count = fields.read(reader.uint)
    yield from fields.line(f"structs of {_many(count, 'client')}")
    for _ in range(count):
        structs, client, clock = (fields.read(reader.uint) for _ in range(3))
        yield from fields.line(f"{_many(structs, 'struct')} of client {client}, from clock {clock} on")
        for _ in range(structs):
            length, note = _struct(reader, fields, client, clock)
            yield from fields.line(note)
            clock += length
    count = fields.read(reader.uint)
    yield from fields.line(f"deletions of {_many(count, 'client')}")
    for _ in range(count):
        client, ranges = fields.read(reader.uint), fields.read(reader.uint)
        yield from fields.line(f"{_many(ranges, 'range')} of client {client}")
        for _ in range(ranges):
            clock, length = fields.read(reader.uint), fields.read(reader.uint)
            yield from fields.line(f"#{clock}" if length == 1 else f"#{clock} to #{clock + length - 1}")


def _struct(reader: Reader, fields: _Fields, client: int, clock: int) -> tuple[int, str]:
    def read_id() -> str:
        of, at = fields.read(lambda: (reader.uint(), reader.uint()))
        return f"#{at}" if of == client else f"{of}#{at}"

    info = fields.read(reader.byte)
    if info & 31 == 0:
        length = fields.read(reader.uint)
        return length, f"#{clock} and on: {length} that are gone"
    place = [f"{word} {read_id()}" for bit, word in ((128, "behind"), (64, "before")) if info & bit]
    if not info & 192:
        place.append(f"in {fields.read(reader.string) if fields.read(reader.uint) else read_id()}")
        if info & 32:
            place.append(f"at {fields.read(reader.string)}")
    length, what = _content(reader, fields, info & 31)
    return length, f"#{clock} {' '.join(place)}: {what}"


def _content(reader: Reader, fields: _Fields, kind: int) -> tuple[int, str]:
    match kind:
        case 1:
            length = fields.read(reader.uint)
            return length, "deleted"
        case 4:
            text = fields.read(reader.string)
            return len(text.encode("utf-16-le")) // 2, f"text {_shown(text)}"
        case 7:
            return 1, f"a new {TYPES[fields.read(reader.uint)]}"
        case 8:
            values = fields.read(lambda: [_value(reader) for _ in range(reader.uint())])
            return len(values), ", ".join(_shown(value) for value in values)
    raise KeyError(kind)


def _value(reader: Reader) -> Any:
    match reader.byte():
        case 126:
            return None
        case 120:
            return True
        case 121:
            return False
        case 124:
            return struct.unpack(">f", reader.take(4))[0]
        case 123:
            return struct.unpack(">d", reader.take(8))[0]
        case 119:
            return reader.string()
        case 118:
            return {reader.string(): _value(reader) for _ in range(reader.uint())}
        case 117:
            return [_value(reader) for _ in range(reader.uint())]
    raise KeyError("a value of another type")


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
