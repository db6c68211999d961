"""What do the bytes of y-protocols and of a Yjs update mean?

Pure: bytes in, values out; any bytes give values or :class:`RemoteError`, nothing else. This is the one decoder
in front of whatever a peer sends, so that a peer's bytes never reach a CRDT library before they were understood.

Grammar (lib0 encoding; source: yjs/y-protocols PROTOCOL.md, y-websocket, yjs ``src/utils/encoding.js``)::

    varuint    7 bits per byte, least significant first; at most 53 bits, as JavaScript has no more
    varbytes   varuint length, bytes          varstring   varbytes, UTF-8
    message    0 sync: (0 varbytes state vector | 1 varbytes update | 2 varbytes update)
               1 awareness: varbytes (varuint n, n * (varuint client, varuint clock, varstring JSON))
               2 auth: 0 varstring reason     3 query awareness
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .errors import Reason, RemoteError

PROTOCOL = "y-protocols/1"
"""What is spoken on the wire, as ``/api/health`` says it: docs/protocol.md."""

MAX_UINT = (1 << 53) - 1
"""The largest number that a Yjs peer can write."""

EMPTY_UPDATE = b"\x00\x00"
"""An update without structs and without deletions: what a peer sends that has nothing to say."""

MAX_DEPTH = 200
"""How deep a plain value inside an update may be nested."""


# --- writing -----------------------------------------------------------------------------------------------


def write_uint(number: int) -> bytes:
    """A number as varuint."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def write_bytes(data: bytes) -> bytes:
    """Bytes as varbytes."""
    return write_uint(len(data)) + data


def write_string(text: str) -> bytes:
    """Text as varstring; its length counts UTF-8 bytes."""
    return write_bytes(text.encode("utf-8", "replace"))


def write_state_vector(clocks: Mapping[int, int]) -> bytes:
    """``{client: clock}`` as a state vector."""
    return write_uint(len(clocks)) + b"".join(write_uint(c) + write_uint(n) for c, n in clocks.items())


def step1(state_vector: bytes) -> bytes:
    """The message that asks for everything beyond a state vector."""
    return b"\x00\x00" + write_bytes(state_vector)


def step2(update: bytes) -> bytes:
    """The message that answers a step 1."""
    return b"\x00\x01" + write_bytes(update)


def update(data: bytes) -> bytes:
    """The message that carries one update."""
    return b"\x00\x02" + write_bytes(data)


def denied(reason: str) -> bytes:
    """The message *permission denied*."""
    return b"\x02\x00" + write_string(reason)


def awareness(entries: Iterable[Entry]) -> bytes:
    """The message that carries awareness entries; without entries it is a sign of life."""
    entries = list(entries)
    body = write_uint(len(entries)) + b"".join(
        write_uint(e.client) + write_uint(e.clock) + write_string(e.state) for e in entries
    )
    return b"\x01" + write_bytes(body)


# --- values ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step1:
    """The peer asks for everything beyond ``clocks`` (``{client: clock}``)."""

    clocks: dict[int, int]


@dataclass(frozen=True, slots=True)
class Step2:
    """The answer to a step 1."""

    update: bytes


@dataclass(frozen=True, slots=True)
class Update:
    """A change of the document."""

    update: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """Awareness of one client. ``state``: JSON text; ``null`` says that it is gone."""

    client: int
    clock: int
    state: str


@dataclass(frozen=True, slots=True)
class Awareness:
    """Who is there."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Denied:
    """Permission denied, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Query:
    """The peer asks who is there."""


Message = Step1 | Step2 | Update | Awareness | Denied | Query


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an update speaks of, without what it says.

    Attributes:
        structs: ``(client, first clock, clock behind the last)`` of every run of structs.
        deletes: ``(client, clock, length)`` of every deleted range.
        keys: ``(root, key)`` of what it puts under new keys of root maps, in the order in which each client did.
            (An item that replaces another of the same key names no parent.)
    """

    structs: tuple[tuple[int, int, int], ...]
    deletes: tuple[tuple[int, int, int], ...]
    keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What one client wrote, of an update that may have been written by many.

    Attributes:
        update: its structs alone, as an update without deletions.
        needs: ``{client: clock}`` of others: what is there must reach beyond that, or it cannot be read.
    """

    client: int
    update: bytes
    needs: Mapping[int, int]


# --- reading -----------------------------------------------------------------------------------------------


class Reader:
    """A cursor over bytes; every method raises :class:`RemoteError` past the end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __repr__(self) -> str:
        return f"<yproto.Reader {self._at} of {len(self._data)} bytes>"

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    @property
    def at(self) -> int:
        """How many bytes were read."""
        return self._at

    def byte(self) -> int:
        """One byte."""
        if self._at >= len(self._data):
            raise RemoteError(Reason.MALFORMED, "the message ends too early")
        self._at += 1
        return self._data[self._at - 1]

    def uint(self) -> int:
        """A varuint."""
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 127) << shift
            if number > MAX_UINT or shift > 49:
                raise RemoteError(Reason.MALFORMED, "a number beyond 53 bits")
            if byte < 128:
                return number
            shift += 7

    def take(self, count: int) -> bytes:
        """So many bytes."""
        if count > self.left:
            raise RemoteError(Reason.MALFORMED, "a length beyond the end of the message")
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def bytes(self) -> bytes:
        """A varbytes."""
        return self.take(self.uint())

    def string(self) -> str:
        """A varstring."""
        try:
            return self.bytes().decode()
        except UnicodeDecodeError as exc:
            raise RemoteError(Reason.MALFORMED, "a string that is not UTF-8") from exc

    def finish(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise RemoteError(Reason.MALFORMED, f"{self.left} bytes behind the message")


def read_message(data: bytes) -> Message:
    """One message of y-protocols.

    Raises:
        RemoteError: anything else than exactly one message of a known type.
    """
    reader = Reader(data)
    message = _message(reader)
    reader.finish()
    return message


def _message(reader: Reader) -> Message:
    match reader.uint():
        case 0:
            kind, body = reader.uint(), reader.bytes()
            match kind:
                case 0:
                    return Step1(read_state_vector(body))
                case 1:
                    return Step2(body)
                case 2:
                    return Update(body)
            raise RemoteError(Reason.MALFORMED, f"unknown sync message {kind}")
        case 1:
            return Awareness(read_awareness(reader.bytes()))
        case 2:
            if reader.uint() != 0:
                raise RemoteError(Reason.MALFORMED, "unknown auth message")
            return Denied(reader.string())
        case 3:
            return Query()
        case kind:
            raise RemoteError(Reason.MALFORMED, f"unknown message type {kind}")


def read_awareness(data: bytes) -> tuple[Entry, ...]:
    """The entries of an awareness message's body."""
    reader = Reader(data)
    entries = tuple(Entry(reader.uint(), reader.uint(), reader.string()) for _ in range(_count(reader, 3)))
    reader.finish()
    return entries


def read_state_vector(data: bytes) -> dict[int, int]:
    """``{client: clock}``.

    Raises:
        RemoteError: also when a client is named twice or something follows.
    """
    reader = Reader(data)
    clocks: dict[int, int] = {}
    for _ in range(_count(reader, 2)):
        client = reader.uint()
        if client in clocks:
            raise RemoteError(Reason.MALFORMED, "a client twice in a state vector")
        clocks[client] = reader.uint()
    reader.finish()
    return clocks


def _count(reader: Reader, item_bytes: int) -> int:
    count = reader.uint()
    if count * item_bytes > reader.left:
        raise RemoteError(Reason.MALFORMED, "a count beyond the end of the message")
    return count


def read_coverage(data: bytes) -> Coverage:
    """Which structs and deletions an update (version 1 encoding) speaks of.

    Raises:
        RemoteError: the bytes are not an update.
    """
    reader = Reader(data)
    structs: list[tuple[int, int, int]] = []
    keys: list[tuple[str, str]] = []
    for _ in range(_count(reader, 3)):
        count = _count(reader, 1)
        client, first = reader.uint(), reader.uint()
        clock = first
        for _ in range(count):
            info = reader.byte()
            if info & 31 == 10:  # a hole: what is behind it starts a new run
                structs.append((client, first, clock))
                first = clock = clock + reader.uint()
            else:
                clock += _struct_length(reader, info, keys)
        structs.append((client, first, clock))
    deletes = [
        (client, reader.uint(), reader.uint())
        for _ in range(_count(reader, 2))
        for client in (reader.uint(),)
        for _ in range(_count(reader, 2))
    ]
    reader.finish()
    return Coverage(tuple(run for run in structs if run[1] != run[2]), tuple(deletes), tuple(keys))


def split_update(data: bytes) -> list[Piece]:
    """What each client wrote in an update (version 1 encoding); its deletions, of which nobody knows whose they are,
    are left out.

    Raises:
        RemoteError: the bytes are not an update.
    """
    read_coverage(data)
    reader = Reader(data)
    pieces: list[Piece] = []
    for _ in range(_count(reader, 3)):
        start = reader.at
        count = _count(reader, 1)
        client = reader.uint()
        reader.uint()
        needs: list[tuple[int, int]] = []
        for _ in range(count):
            info = reader.byte()
            if info & 31 == 10:
                reader.uint()
            else:
                _struct_length(reader, info, [], needs)
        furthest: dict[int, int] = {}
        for other, clock in needs:
            if other != client:
                furthest[other] = max(clock, furthest.get(other, 0))
        pieces.append(Piece(client, b"\x01" + data[start : reader.at] + b"\x00", furthest))
    return pieces


def cut_update(data: bytes, most_bytes: int) -> list[bytes]:
    """An update (version 1 encoding) as several that say the same together, applied in this order; the last has the
    deletions alone.

    Args:
        most_bytes: of the structs of each; a struct that is larger is not cut.

    Raises:
        RemoteError: the bytes are not an update.
    """
    reader = Reader(data)
    pieces: list[bytes] = []
    for _ in range(_count(reader, 3)):
        count, client, first = _count(reader, 1), reader.uint(), reader.uint()
        clock, taken, start = first, 0, reader.at
        for _ in range(count):
            at, info = reader.at, reader.byte()
            length = reader.uint() if info & 31 == 10 else _struct_length(reader, info, [])
            if taken and reader.at - start > most_bytes:
                pieces.append(_structs(taken, client, first) + data[start:at] + b"\x00")
                first, taken, start = clock, 0, at
            clock, taken = clock + length, taken + 1
        if taken:
            pieces.append(_structs(taken, client, first) + data[start : reader.at] + b"\x00")
    return [*pieces, b"\x00" + data[reader.at :]]


def _structs(count: int, client: int, clock: int) -> bytes:
    """How an update of one client's structs begins."""
    return b"\x01" + write_uint(count) + write_uint(client) + write_uint(clock)


def _struct_length(
    reader: Reader, info: int, keys: list[tuple[str, str]], needs: list[tuple[int, int]] | None = None
) -> int:
    kind = info & 31
    if kind == 0:  # GC
        return reader.uint()
    items: list[tuple[int, int]] = [] if needs is None else needs
    if info & 128:  # left origin
        items.append((reader.uint(), reader.uint()))
    if info & 64:  # right origin
        items.append((reader.uint(), reader.uint()))
    if not info & 192:  # the parent: a root by its name, or an item by its id
        root = None
        if reader.uint() == 1:
            root = reader.string()
        else:
            items.append((reader.uint(), reader.uint()))
        if info & 32:  # the key in the parent
            key = reader.string()
            if root is not None:
                keys.append((root, key))
    match kind:
        case 1:  # deleted
            return reader.uint()
        case 2:  # JSON
            count = _count(reader, 1)
            for _ in range(count):
                reader.bytes()
            return count
        case 3 | 5:  # binary, embed
            reader.bytes()
            return 1
        case 4:  # text: a clock tick per UTF-16 code unit
            return len(reader.string().encode("utf-16-le")) // 2
        case 6:  # format
            reader.bytes(), reader.bytes()
            return 1
        case 7:  # a shared type; XML elements and hooks have a name
            if reader.uint() in (3, 5):
                reader.bytes()
            return 1
        case 8:  # plain values
            count = _count(reader, 1)
            for _ in range(count):
                _skip_value(reader, 0)
            return count
        case 9:  # a subdocument
            reader.bytes()
            _skip_value(reader, 0)
            return 1
    raise RemoteError(Reason.MALFORMED, f"unknown content {kind} in an update")


_VALUE_BYTES = {127: 0, 126: 0, 124: 4, 123: 8, 122: 8, 121: 0, 120: 0}


def _skip_value(reader: Reader, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RemoteError(Reason.MALFORMED, "a value nested too deeply")
    match reader.byte():
        case 125:  # integer: a sign bit more than a varuint
            while reader.byte() > 127:
                pass
        case 119 | 116:  # text, bytes
            reader.bytes()
        case 118:  # object
            for _ in range(_count(reader, 2)):
                reader.bytes()
                _skip_value(reader, depth + 1)
        case 117:  # array
            for _ in range(_count(reader, 1)):
                _skip_value(reader, depth + 1)
        case kind if kind in _VALUE_BYTES:
            reader.take(_VALUE_BYTES[kind])
        case kind:
            raise RemoteError(Reason.MALFORMED, f"unknown value type {kind}")
