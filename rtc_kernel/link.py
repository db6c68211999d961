"""What do relay and agent say to each other, and how is it laid out as bytes?

Pure: bytes in, records out. The link is one stream socket pair. A frame is ``u32 length, u8 kind, body``
(little endian; ``length`` counts kind and body). Records that belong to the history carry a sequence number
(``seq``, from 1, without holes, per relay); the agent acknowledges what is in the store, and a new agent
says from where to go on, so a crash of the agent loses nothing that the relay's spool still holds.

relay → agent                                   agent → relay
``Hello``    once, first                        ``Ready``   the last seq in the store; replay from there
``Tapped``   seq: one message that passed       ``Ack``     stored up to this seq
``Gap``      seq: the spool was full            ``Emit``    publish on iopub, or reply to one client
``Child``    seq: the child's life              ``Answer``  to an ``Ask``
``Ask``      a %rtc line, wants an ``Answer``   ``Act``     interrupt or restart the child
``Taken``    a message for our own comm          ``Submit``  a message to the child, as of one more client
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, assert_never

from .errors import LocalError, Reason, RemoteError

MAX_FRAME_BYTES = 1 << 31
"""A frame larger than this is no frame: the stream is out of step."""


AGENT_IDENT = b"rtc-agent"
"""The routing id under which the agent is a client of the kernel: replies to it reach nobody but the tap."""


QUERY_COMM_PREFIX = "rtc-query-"
"""What the ids of the comms begin with over which the agent asks the kernel; they are no part of the history."""


class Channel(IntEnum):
    """Where a message passed."""

    IOPUB = 0
    SHELL = 1
    CONTROL = 2
    STDIN = 3


class Way(IntEnum):
    """In which direction it passed."""

    TO_CHILD = 0
    TO_FRONT = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """Who the relay is. ``info`` (JSON): ``version``, ``relay_id``, ``kernel_id``, ``connection_file``,
    ``key`` (text), ``signature_scheme``, ``kernel_name``, ``display_name``, ``language``, ``notebook``
    (path or null), ``host``, ``child_pid``, ``argv`` (settings for the agent), ``started_at``,
    ``comms`` (ids of our comms that frontends still hold open), ``not_ipc`` (why the child is not spoken to over ipc,
    where that was wanted), ``session`` (the child's, or empty), ``attached`` (true
    where nothing passes us: the kernel was started by somebody else, and we see its iopub and our own requests only),
    ``spool_seq`` (the last record that was numbered before this agent was started: once the agent has had it, it
    knows of everything that an agent before it has sent), ``acknowledged_seq`` (the last record that was acknowledged:
    up to it nothing is in the spool any more)."""

    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tapped:
    """One message that passed the relay, as it was. ``at``: POSIX seconds when the relay saw it."""

    seq: int
    at: float
    channel: Channel
    way: Way
    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """What the spool could not hold. Times are POSIX seconds."""

    seq: int
    since: float
    until: float
    message_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Child:
    """A turn in the child's life: ``started``, ``exited``, ``restarting``. Of a kernel that we are attached to:
    ``idle`` and ``busy``, it was found so; ``exited``; ``detached``, we follow it no more.

    ``pid``: of the process; of a kernel that we are attached to any number that no other process has.
    ``exit_code``: the process's code, negative for a signal; null unless exited, and where nobody told."""

    seq: int
    at: float
    event: str
    pid: int
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that the agent answers in place of the child.

    ``info`` (JSON): ``kind`` (``execute``, ``complete``, ``inspect``), ``lines`` (the %rtc lines, for
    execute), ``code`` and ``cursor_pos`` (complete, inspect), ``rest`` (true when code follows),
    ``msg_id``, ``username``, ``session``."""

    ask_id: int
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Taken:
    """A message of our own comm, as it came on shell; the child never sees it."""

    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """The agent is up. ``relay_id``/``seq``: the last record in its store, and of which relay it was."""

    relay_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Every record up to ``seq`` is in the store."""

    seq: int


@dataclass(frozen=True, slots=True)
class Emit:
    """Send these signed frames to the front: iopub (``frames[0]`` is the topic) or shell (idents first)."""

    channel: Channel
    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an :class:`Ask`.

    ``info`` (JSON): ``status`` (``ok`` | ``error``), ``outputs`` (list of ``[msg_type, content]``, published in
    order), ``reply`` (content of the reply, for complete and inspect; for execute: ``payload`` and the
    error's fields)."""

    ask_id: int
    info: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Submit:
    """Send these signed frames to the child on shell, control or stdin, as if a client had sent them:
    ``[AGENT_IDENT, DELIM, …]``."""

    channel: Channel
    frames: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Act:
    """Something to do to the child. ``info`` (JSON): ``action`` (``interrupt`` | ``restart``)."""

    info: dict[str, Any]


Record = Hello | Tapped | Gap | Child | Ask | Taken | Ready | Ack | Emit | Answer | Act | Submit

_CHANNELS = dict(enumerate(Channel))
_WAYS = dict(enumerate(Way))
_HEAD = struct.Struct("<IB")
_TAPPED = struct.Struct("<QdBBH")
_GAP = struct.Struct("<QddQQ")
_CHILD = struct.Struct("<QdqB")
_SEQ = struct.Struct("<Q")
_EMIT = struct.Struct("<BH")
_COUNT = struct.Struct("<H")


def encode(record: Record) -> bytes:
    """One record as a frame of the link."""
    match record:
        case Tapped(seq, at, channel, way, frames):
            return encode_tapped(seq, at, channel, way, frames)
        case Gap(seq, since, until, count, size):
            kind, body = 2, _GAP.pack(seq, since, until, count, size)
        case Child(seq, at, event, pid, exit_code):
            flag = 0 if exit_code is None else 1
            body = _CHILD.pack(seq, at, pid, flag) + struct.pack("<q", exit_code or 0) + event.encode()
            kind = 3
        case Ask(ask_id, info):
            kind, body = 4, _SEQ.pack(ask_id) + _json(info)
        case Taken(frames):
            kind, body = 5, _COUNT.pack(len(frames)) + _join(frames)
        case Hello(info):
            kind, body = 6, _json(info)
        case Ready(relay_id, seq):
            kind, body = 7, _SEQ.pack(seq) + relay_id.encode()
        case Ack(seq):
            kind, body = 8, _SEQ.pack(seq)
        case Emit(channel, frames):
            kind, body = 9, _EMIT.pack(channel, len(frames)) + _join(frames)
        case Answer(ask_id, info):
            kind, body = 10, _SEQ.pack(ask_id) + _json(info)
        case Act(info):
            kind, body = 11, _json(info)
        case Submit(channel, frames):
            kind, body = 12, _EMIT.pack(channel, len(frames)) + _join(frames)
        case _:
            assert_never(record)
    size = len(body) + 1
    if size > MAX_FRAME_BYTES:
        raise LocalError(f"a {type(record).__name__} of {size} bytes does not fit the link")
    return _HEAD.pack(size, kind) + body


def encode_tapped(seq: int, at: float, channel: Channel, way: Way, frames: Sequence[bytes]) -> bytes:
    """``encode(Tapped(…))`` without making the record: the relay does this for every message that passes."""
    sizes = [len(frame) for frame in frames]
    count = len(sizes)
    size = 1 + _TAPPED.size + 4 * count + sum(sizes)
    if size > MAX_FRAME_BYTES:
        raise LocalError(f"a message of {size} bytes does not fit the link")
    head = _HEAD.pack(size, 1) + _TAPPED.pack(seq, at, channel, way, count)
    return b"".join((head, struct.pack(f"<{count}I", *sizes), *frames))


def _json(info: dict[str, Any]) -> bytes:
    return json.dumps(info, separators=(",", ":"), default=str).encode()


def _join(frames: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(frames)}I", *map(len, frames)) + b"".join(frames)


def _frames(body: memoryview, at: int, count: int) -> tuple[bytes, ...]:
    sizes = struct.unpack_from(f"<{count}I", body, at)
    at += 4 * count
    out = []
    for size in sizes:
        if at + size > len(body):
            raise RemoteError(Reason.MALFORMED, "a frame runs past its record")
        out.append(bytes(body[at : at + size]))
        at += size
    return tuple(out)


def decode(kind: int, body: memoryview) -> Record:
    """One frame's body as a record.

    Raises:
        RemoteError: unknown kind, or a body that is too short or not JSON.
    """
    try:
        return _decode(kind, body)
    except (struct.error, ValueError, KeyError) as exc:
        raise RemoteError(Reason.MALFORMED, f"link record of kind {kind}: {exc}") from exc


def _decode(kind: int, body: memoryview) -> Record:
    match kind:
        case 1:
            seq, at, channel, way, count = _TAPPED.unpack_from(body)
            return Tapped(seq, at, _CHANNELS[channel], _WAYS[way], _frames(body, _TAPPED.size, count))
        case 2:
            return Gap(*_GAP.unpack(body))
        case 3:
            seq, at, pid, flag = _CHILD.unpack_from(body)
            (code,) = struct.unpack_from("<q", body, _CHILD.size)
            return Child(seq, at, bytes(body[_CHILD.size + 8 :]).decode(), pid, code if flag else None)
        case 4:
            return Ask(_SEQ.unpack_from(body)[0], _object(body[_SEQ.size :]))
        case 5:
            return Taken(_frames(body, _COUNT.size, _COUNT.unpack_from(body)[0]))
        case 6:
            return Hello(_object(body))
        case 7:
            return Ready(bytes(body[_SEQ.size :]).decode(), _SEQ.unpack_from(body)[0])
        case 8:
            return Ack(_SEQ.unpack(body)[0])
        case 9:
            channel, count = _EMIT.unpack_from(body)
            return Emit(_CHANNELS[channel], _frames(body, _EMIT.size, count))
        case 10:
            return Answer(_SEQ.unpack_from(body)[0], _object(body[_SEQ.size :]))
        case 11:
            return Act(_object(body))
        case 12:
            channel, count = _EMIT.unpack_from(body)
            return Submit(_CHANNELS[channel], _frames(body, _EMIT.size, count))
        case _:
            raise RemoteError(Reason.MALFORMED, f"unknown link record {kind}")


def _object(body: memoryview) -> dict[str, Any]:
    value = json.loads(bytes(body))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


class Decoder:
    """Bytes of the stream, in pieces of any size, to records, in order.

    ``__init__`` is the inventory: one buffer, holding at most one unfinished frame.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __repr__(self) -> str:
        return f"<link.Decoder {len(self._buffer)} bytes waiting>"

    def feed(self, data: bytes | memoryview) -> Iterator[Record]:
        """Give the bytes that arrived; iterate over the records that are now whole.

        Raises:
            RemoteError: the stream is out of step; close it.
        """
        self._buffer += data
        at = 0
        view = memoryview(self._buffer)
        records: list[Record] = []
        try:
            while len(view) - at >= _HEAD.size:
                size, kind = _HEAD.unpack_from(view, at)
                if not 1 <= size <= MAX_FRAME_BYTES:
                    raise RemoteError(Reason.MALFORMED, f"a link frame of {size} bytes")
                if len(view) - at < 4 + size:
                    break
                records.append(decode(kind, view[at + _HEAD.size : at + 4 + size]))
                at += 4 + size
        finally:
            view.release()
            del self._buffer[:at]
        return iter(records)
