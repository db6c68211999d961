"""What does one peer say, and what follows from it?

Pure: bytes and the time in, commands out. A :class:`Session` is one connection, whatever carries it; a
:class:`Board` is the awareness of one room. The state document has one writer, so nothing that a peer sends there is
ever applied: its messages ask, announce, or are refused. The session of a :class:`Written` document hands updates on
(:class:`Write`); whoever owns that document says whether they hold.

Theory of the states. A peer is *silent* until its first valid message, which must come within ``auth_s``.
It *follows* from the very step in which its first state vector was answered: the answer and the subscription
happen in one call, so no update can fall between them. It is *closed* once, for one reason.

Theory of the awareness. A client id belongs to the connection that announced it first, and only that may change
it. Stock y-websocket peers repeat whatever they hear of others: such repetitions are passed over. When the
connection goes, so do its ids; a late repetition does not bring them back.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, assert_never, runtime_checkable

from ... import yproto
from ...errors import CLOSE_CODES, LocalError, Reason, RemoteError
from .access import Role

MESSAGES_PER_S, MESSAGES_BURST = 100.0, 500
"""How many messages a peer may send: per second for long, and at once."""

SYNCS_PER_S, SYNCS_BURST = 0.5, 20
"""How often a peer may ask for the document: each answer may be as large as the window."""

ECHOES_PER_S, ECHOES_BURST = 0.2, 5
"""How often a peer may send an update that is not one of the last ones, and must be read to know its content."""

AWARENESS_CLIENTS = 8
"""How many client ids one connection may announce; further ones are passed over."""

AWARENESS_STATE_CHARS = 8192
"""How long one client's awareness may be, as JSON text."""

UPDATES_PER_S, UPDATES_BURST = 500.0, 5000
"""How many updates a writer may send, per second for long and at once: some for each of its rows."""

UNDONE_PER_S, UNDONE_BURST = 0.2, 20
"""How often a writer may change what is not its own, before it is closed; each change is taken back."""

GONE_KEPT = 1000
"""How many client ids that went are remembered, so that repetitions of them are passed over."""


class PeerState(StrEnum):
    """The life of one connection."""

    SILENT = "silent"
    HEARD = "heard"
    FOLLOWING = "following"
    CLOSED = "closed"


_S = PeerState

PEER_TRANSITIONS: Mapping[PeerState, frozenset[PeerState]] = {
    _S.SILENT: frozenset({_S.HEARD, _S.CLOSED}),
    _S.HEARD: frozenset({_S.FOLLOWING, _S.CLOSED}),
    _S.FOLLOWING: frozenset({_S.CLOSED}),
    _S.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Send:
    """Send bytes to this peer. ``counted``: they count against its outbox (the first sync does not)."""

    data: bytes
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Relay:
    """Send bytes to every peer of the room that is awake, this one too."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close this peer. ``detail``: one line for a log, free of the peer's data."""

    reason: Reason
    detail: str = ""

    @property
    def code(self) -> int:
        """The WebSocket close code."""
        return CLOSE_CODES[self.reason][0]

    @property
    def sentence(self) -> str:
        """The sentence that goes with the code; short enough for a close frame (123 bytes)."""
        return CLOSE_CODES[self.reason][1]


@dataclass(frozen=True, slots=True)
class Write:
    """This peer's update of the document; say with :meth:`Session.receive_undone` what was taken back of it."""

    update: bytes


Command = Send | Relay | Close | Write


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The settings that bound one peer; names and units as in :mod:`rtc_kernel.config`."""

    auth_s: float = 5.0
    ping_s: float = 20.0
    message_bytes: int = 1 << 20
    written_bytes: int = 16 << 20


class Followed(Protocol):
    """What a session needs of the document: see :class:`rtc_kernel.agent.document.StateDocument`."""

    def diff(self, state_vector: Mapping[int, int]) -> bytes:
        """The update that brings a replica up to date; RemoteError when it cannot be."""

    def is_recent(self, update: bytes) -> bool:
        """Whether an update is one of the last of this document."""

    def contains(self, update: bytes) -> bool:
        """Whether an update says nothing new; RemoteError when it is none."""


@runtime_checkable
class Written(Protocol):
    """What a session needs of a document with many writers: see :class:`rtc_kernel.agent.requests.RequestsDocument`."""

    def diff(self, state_vector: Mapping[int, int]) -> bytes:
        """The update that brings a replica up to date; RemoteError when it cannot be."""

    def state_vector(self) -> bytes:
        """What the document has, so that the peer sends the rest."""


class Quota:
    """A bucket: ``burst`` at once, refilled with ``per_s`` each second."""

    __slots__ = ("_at", "_left", "burst", "per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self.per_s = per_s
        self.burst = burst
        self._left = float(burst)
        self._at: float | None = None

    def __repr__(self) -> str:
        return f"<Quota {self._left:.1f} of {self.burst}>"

    def take(self, now: float, count: float = 1) -> bool:
        """Take so many; false: there are not as many in the bucket."""
        if self._at is not None:
            self._left = min(float(self.burst), self._left + (now - self._at) * self.per_s)
        self._at = now
        if self._left < count:
            return False
        self._left -= count
        return True


class Board:
    """Who is there, in one room: the awareness of all its connections."""

    def __init__(self) -> None:
        self._entries: dict[int, yproto.Entry] = {}
        self._owners: dict[int, Session] = {}
        self._gone: OrderedDict[int, int] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Board {len(self._entries)} clients>"

    @property
    def entries(self) -> tuple[yproto.Entry, ...]:
        """What a newcomer is told."""
        return tuple(self._entries.values())

    def announce(self, owner: Session, entries: tuple[yproto.Entry, ...]) -> list[yproto.Entry]:
        """What a connection says of its clients; returns what is new and to be relayed."""
        return [entry for entry in entries if self._accept(owner, entry)]

    def leave(self, owner: Session) -> list[yproto.Entry]:
        """A connection went; returns the removal of its clients."""
        clients = [client for client, session in self._owners.items() if session is owner]
        return [self._remove(client) for client in clients]

    def _accept(self, owner: Session, entry: yproto.Entry) -> bool:
        held = self._entries.get(entry.client)
        if held is None:
            if (
                entry.state == "null"
                or entry.clock <= self._gone.get(entry.client, -1)
                or sum(session is owner for session in self._owners.values()) >= AWARENESS_CLIENTS
            ):
                return False
        elif self._owners[entry.client] is not owner or entry.clock < held.clock:
            return False
        elif entry.state == "null":
            self._remove(entry.client, entry.clock)
            return True
        self._entries[entry.client] = entry
        self._owners[entry.client] = owner
        return True

    def _remove(self, client: int, clock: int | None = None) -> yproto.Entry:
        held = self._entries.pop(client)
        del self._owners[client]
        clock = held.clock if clock is None else clock
        self._gone[client] = clock
        self._gone.move_to_end(client)
        if len(self._gone) > GONE_KEPT:
            self._gone.popitem(last=False)
        return yproto.Entry(client, clock, "null")


class Session:
    """One connection to one document.

    Args:
        document: what it follows; a :class:`Written` one takes updates.
        board: the awareness of the room.
        name: of its token; what others see.
        now: seconds of any clock that does not go back; every later ``now`` is of the same clock.
        expires: when, on that clock, its token ends; null: never.
        piece_bytes: what is on the way to it lets through no message that is much larger, so a larger answer comes in
            several; null: nothing is.
    """

    def __init__(
        self,
        document: Followed | Written,
        board: Board,
        *,
        name: str,
        role: Role,
        now: float,
        limits: Limits = Limits(),
        expires: float | None = None,
        piece_bytes: int | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.state = PeerState.SILENT
        self.expires = expires
        self._document: Followed | Written = document
        self._followed: Followed | None = None if isinstance(document, Written) else document
        self._board = board
        self._limits = limits
        self._piece_bytes = piece_bytes
        self._deadline = now + limits.auth_s
        self._next_ping = now + limits.ping_s
        writes = self._followed is None
        self._most_bytes = limits.written_bytes if writes else limits.message_bytes
        self._messages = Quota(UPDATES_PER_S, UPDATES_BURST) if writes else Quota(MESSAGES_PER_S, MESSAGES_BURST)
        self._undone = Quota(UNDONE_PER_S, UNDONE_BURST)
        self._syncs = Quota(SYNCS_PER_S, SYNCS_BURST)
        self._echoes = Quota(ECHOES_PER_S, ECHOES_BURST)

    def __repr__(self) -> str:
        return f"<Session {self.name!r} {self.role.value} {self.state.value}>"

    # --- in

    def receive_bytes(self, data: bytes, now: float) -> list[Command]:
        """One message from the peer. Any bytes give commands; nothing raises."""
        if self.state is PeerState.CLOSED:
            return []
        try:
            return self._receive(data, now)
        except RemoteError as exc:
            return self.close(exc.reason, exc.detail)

    def receive_undone(self, count: int, now: float) -> list[Command]:
        """So many changes of this peer were taken back, because they were of what is not its own."""
        if all(self._undone.take(now) for _ in range(min(count, UNDONE_BURST + 1))):
            return []
        return self.close(Reason.READ_ONLY, "changes of rows that are not its own")

    def receive_time(self, now: float) -> list[Command]:
        """The time is :attr:`due` or later."""
        if self.state is PeerState.CLOSED:
            return []
        if self.expires is not None and now >= self.expires:
            return self.close(Reason.UNAUTHORIZED, "its token expired")
        if self.state is PeerState.SILENT:
            return self.close(Reason.HANDSHAKE_TIMEOUT) if now >= self._deadline else []
        if now < self._next_ping:
            return []
        self._next_ping = now + self._limits.ping_s
        # y-websocket drops a connection after 30 s without a message; pings of the WebSocket do not count.
        return [Send(yproto.awareness(()))]

    @property
    def due(self) -> float:
        """When :meth:`receive_time` is to be called next."""
        due = self._deadline if self.state is PeerState.SILENT else self._next_ping
        return due if self.expires is None else min(due, self.expires)

    # --- act

    def push_update(self, frame: bytes) -> Send | None:
        """The document changed. ``frame``: the message made by :func:`rtc_kernel.yproto.update`, the same for
        all peers."""
        return Send(frame) if self.state is PeerState.FOLLOWING else None

    def close(self, reason: Reason, detail: str = "") -> list[Command]:
        """Close the connection for a reason; what it announced goes with it."""
        if self.state is PeerState.CLOSED:
            return []
        self._step(PeerState.CLOSED)
        out = self._left()
        if reason in (Reason.READ_ONLY, Reason.FORBIDDEN, Reason.UNAUTHORIZED, Reason.REVOKED):
            out.append(Send(yproto.denied(CLOSE_CODES[reason][1]), counted=False))
        return [*out, Close(reason, detail)]

    def leave(self) -> list[Command]:
        """The connection went by itself."""
        if self.state is PeerState.CLOSED:
            return []
        self._step(PeerState.CLOSED)
        return self._left()

    # ---

    def _step(self, to: PeerState) -> None:
        if to not in PEER_TRANSITIONS[self.state]:
            raise LocalError(f"no step from {self.state.value} to {to.value}")
        self.state = to

    def _left(self) -> list[Command]:
        gone = self._board.leave(self)
        return [Relay(yproto.awareness(gone))] if gone else []

    def _receive(self, data: bytes, now: float) -> list[Command]:
        if len(data) > self._most_bytes:
            raise RemoteError(Reason.TOO_LARGE, f"a message of {len(data)} bytes")
        if not self._messages.take(now):
            raise RemoteError(Reason.QUOTA, "too many messages")
        message = yproto.read_message(data)
        out: list[Command] = []
        match message:
            case yproto.Step1(clocks):
                out = self._answer(clocks, now)
            case yproto.Step2(update) | yproto.Update(update):
                if self._followed is None:
                    out = [Write(update)] if update != yproto.EMPTY_UPDATE else []
                else:
                    self._check_echo(self._followed, update, now)
            case yproto.Awareness(entries):
                out = self._announce(entries)
            case yproto.Query():
                out = [Send(yproto.awareness(self._board.entries))]
            case yproto.Denied():
                raise RemoteError(Reason.MALFORMED, "a peer cannot deny")
            case _:
                assert_never(message)
        if self.state is PeerState.SILENT:
            self._step(PeerState.HEARD)
        return out

    def _answer(self, clocks: dict[int, int], now: float) -> list[Command]:
        if not self._syncs.take(now):
            raise RemoteError(Reason.QUOTA, "the document was asked for too often")
        update, first = self._document.diff(clocks), list[bytes]()
        if self._piece_bytes is not None and len(update) > self._piece_bytes:
            *first, update = yproto.cut_update(update, self._piece_bytes)
        answer = [*map(yproto.update, first), yproto.step2(update)]  # the answer is whole with its step 2
        if self.state is PeerState.FOLLOWING:
            return [Send(message) for message in answer]
        if self.state is PeerState.SILENT:
            self._step(PeerState.HEARD)
        self._step(PeerState.FOLLOWING)
        out: list[Command] = [Send(message, counted=False) for message in answer]
        if isinstance(self._document, Written):
            out.append(Send(yproto.step1(self._document.state_vector())))
        if present := self._board.entries:
            out.append(Send(yproto.awareness(present)))
        return out

    def _check_echo(self, document: Followed, update: bytes, now: float) -> None:
        if update == yproto.EMPTY_UPDATE or document.is_recent(update):
            return
        if not self._echoes.take(now) or not document.contains(update):
            raise RemoteError(Reason.READ_ONLY, "an update with content of its own")

    def _announce(self, entries: tuple[yproto.Entry, ...]) -> list[Command]:
        accepted = self._board.announce(self, tuple(_check_entry(entry) for entry in entries))
        return [Relay(yproto.awareness(accepted))] if accepted else []


def _check_entry(entry: yproto.Entry) -> yproto.Entry:
    if len(entry.state) > AWARENESS_STATE_CHARS:
        raise RemoteError(Reason.TOO_LARGE, "an awareness state beyond its limit")
    try:
        value = json.loads(entry.state, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise RemoteError(Reason.MALFORMED, "an awareness state that is not JSON") from exc
    return entry if value is not None else yproto.Entry(entry.client, entry.clock, "null")


def _refuse(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are JSON to Python alone
