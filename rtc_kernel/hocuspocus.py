"""What do the bytes between us and a Hocuspocus relay mean?

Pure: bytes in, values out; any bytes give values or :class:`RemoteError`, nothing else. A frame is the name of a
document and one message about it, so that one socket carries several documents. The messages are those of
y-protocols (:mod:`rtc_kernel.yproto`) and some more; of those that are not known here only the number is read.

Grammar (lib0 encoding; source: ueberdosis/hocuspocus 4.7, ``packages/server/src/MessageReceiver.ts`` and
``packages/common/src/auth.ts``)::

    frame      varstring name, message
    message    0 sync: as in y-protocols           4 sync reply: the same; does not want a step 1 back
               1 awareness, 3 query awareness: as in y-protocols
               2 auth: 0 varstring token (client) | 0 nothing (server asks for it)
                       1 varstring reason: denied  | 2 varstring scope: "readonly" or "read-write"
               5 stateless: varstring              7 close: varstring reason (of this document, not of the socket)
               8 sync status: varuint 1: applied, 0: refused; one for every step 2 and update of the client
               9 ping, 10 pong
"""

from __future__ import annotations

from dataclasses import dataclass

from . import yproto
from .errors import Reason, RemoteError

NAME_BYTES = 1024
"""A longer name of a document is none of ours and is not read."""

READ_WRITE, READ_ONLY = "read-write", "readonly"
"""What a relay grants (``scope``)."""

_SYNC, _AWARENESS, _AUTH, _QUERY, _SYNC_REPLY, _STATELESS, _CLOSE, _STATUS, _PING, _PONG = 0, 1, 2, 3, 4, 5, 7, 8, 9, 10


# --- writing -----------------------------------------------------------------------------------------------


def frame(name: str, message: bytes) -> bytes:
    """A message of y-protocols about a document."""
    return yproto.write_string(name) + message


def token(name: str, secret: str) -> bytes:
    """Ask to be let in to a document. It goes before everything else about it."""
    return frame(name, bytes((_AUTH, 0)) + yproto.write_string(secret))


def close(name: str) -> bytes:
    """Say that we are done with a document."""
    return frame(name, bytes((_CLOSE,)) + yproto.write_string("done"))


def pong(name: str) -> bytes:
    """Answer a ping."""
    return frame(name, bytes((_PONG,)))


# --- values ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Granted:
    """We are let in. ``writes``: our updates are taken."""

    writes: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """We are not let in, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The relay wants the token again."""


@dataclass(frozen=True, slots=True)
class Status:
    """The relay has handled one step 2 or update of ours; ``applied``: and has taken it."""

    applied: bool


@dataclass(frozen=True, slots=True)
class Told:
    """A text of the relay itself (stateless); clients cannot send one to each other."""

    text: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The relay has closed this document."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life. ``asks``: for one in return."""

    asks: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a kind that is not known here."""

    kind: int


Message = (
    yproto.Step1
    | yproto.Step2
    | yproto.Update
    | yproto.Awareness
    | yproto.Query
    | Granted
    | Refused
    | Asked
    | Status
    | Told
    | Closed
    | Ping
    | Unknown
)


# --- reading -----------------------------------------------------------------------------------------------


def read_frame(data: bytes) -> tuple[str, Message]:
    """One frame of a relay: the document's name, and the message.

    Raises:
        RemoteError: it is no frame, or a message of a known kind that cannot be read. What stands behind a message
            that is no sync and no awareness is passed over: later versions may say more there.
    """
    name, reader = _name(data)
    return name, _message(reader)


def read_plain(data: bytes) -> bytes:
    """Of a frame with a message of y-protocols, that message as y-protocols has it.

    Raises:
        RemoteError: it is no frame.
    """
    _, reader = _name(data)
    kind = reader.uint()
    return bytes((_SYNC if kind == _SYNC_REPLY else kind & 127,)) + reader.take(reader.left)


def _name(data: bytes) -> tuple[str, yproto.Reader]:
    reader = yproto.Reader(data)
    size = reader.uint()
    if size > NAME_BYTES:
        raise RemoteError(Reason.MALFORMED, "a document's name beyond its limit")
    try:
        return reader.take(size).decode(), reader
    except UnicodeDecodeError as exc:
        raise RemoteError(Reason.MALFORMED, "a name that is not UTF-8") from exc


def _message(reader: yproto.Reader) -> Message:
    match reader.uint():
        case kind if kind in (_SYNC, _SYNC_REPLY):
            return _plain(bytes((_SYNC,)), reader)
        case kind if kind in (_AWARENESS, _QUERY):
            return _plain(bytes((kind,)), reader)
        case kind if kind == _AUTH:
            return _auth(reader)
        case kind if kind == _STATELESS:
            return Told(reader.string())
        case kind if kind == _CLOSE:
            return Closed(reader.string())
        case kind if kind == _STATUS:
            return Status(reader.uint() == 1)
        case kind if kind in (_PING, _PONG):
            return Ping(kind == _PING)
        case kind:
            return Unknown(kind)


def _plain(head: bytes, reader: yproto.Reader) -> Message:
    message = yproto.read_message(head + reader.take(reader.left))
    if isinstance(message, yproto.Denied):  # auth has a grammar of its own here
        raise RemoteError(Reason.MALFORMED, "a denial of y-protocols")
    return message


def _auth(reader: yproto.Reader) -> Message:
    match reader.uint():
        case 0:
            return Asked()
        case 1:
            return Refused(reader.string())
        case 2:
            return Granted(reader.string() == READ_WRITE)
        case kind:
            raise RemoteError(Reason.MALFORMED, f"unknown auth message {kind}")
