"""What does a relay engine say, and what follows from it?

Pure: bytes and the time in, commands out. An :class:`Outward` is one connection to a Hocuspocus relay, and has a
:class:`Lane` for each document that is published over it. The door is ``publish``; the wire is
:mod:`rtc_kernel.hocuspocus`.

Theory of a lane. We ask to be let in, then for what the relay has (a step 1; it answers with one of its own). What it
lacks is sent, and from that very step on every update is. The relay acknowledges each. Where too much is not
acknowledged, updates are not sent any more, so what waits is bounded; when all of it is acknowledged the lane asks
again, and one sync stands for whatever was left out. So is every doubt settled: we ask now and then in any case.

Theory of the one writer. A document that says what it :class:`Owns` is ours alone. Nothing that the relay sends of it
is applied. The relay echoes what we sent; what is neither that nor in the document already was written by somebody
else, with the relay's leave: then its copy cannot be trusted any more (:class:`Foreign`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, assert_never, runtime_checkable

from ... import hocuspocus, yproto
from ...errors import LocalError, RemoteError
from .session import Quota

ANSWER_S = 10.0
"""How long a relay may take to let us in, and to say what it has. Seconds."""

ASK_S = 20.0
"""How often the relay is asked what it has, at least: it gives up who says nothing for a minute. Seconds."""

SLOWEST_BYTES_PER_S = 32 << 10
"""What is on its way may take this long more, however slow the line."""

CHECKED_BYTES = 64 << 10
"""A longer update that the relay sends of our own document is not read at once; what it has is asked for anyway."""

CHECKS_PER_S, CHECKS_BURST = 5.0, 50
"""How many updates of our own documents are read: per second for long, and at once."""

MESSAGES_PER_S, MESSAGES_BURST = 2000.0, 20_000
"""How many messages a relay may send: per second for long, and at once. It echoes what we send."""

BYTES_PER_S, BYTES_BURST = 16 << 20, 128 << 20
"""The same of bytes."""

LEFT_KEPT = 16
"""How many documents that we closed are remembered: the relay still speaks of them for a moment."""


class LaneState(StrEnum):
    """The life of one document on one connection."""

    ASKED = "asked"
    OPEN = "open"
    LIVE = "live"
    BEHIND = "behind"
    CLOSED = "closed"


_S = LaneState

LANE_TRANSITIONS: Mapping[LaneState, frozenset[LaneState]] = {
    _S.ASKED: frozenset({_S.OPEN, _S.CLOSED}),
    _S.OPEN: frozenset({_S.LIVE, _S.CLOSED}),
    _S.LIVE: frozenset({_S.BEHIND, _S.CLOSED}),
    _S.BEHIND: frozenset({_S.OPEN, _S.CLOSED}),
    _S.CLOSED: frozenset(),
}


# --- what a lane carries, and what follows --------------------------------------------------------------------


class Published(Protocol):
    """What is needed of a document that is published."""

    def clocks(self) -> dict[int, int]:
        """What it has of whom."""

    def diff(self, state_vector: Mapping[int, int]) -> bytes:
        """The update that brings a replica up to date; RemoteError when it cannot be."""


@runtime_checkable
class Owns(Protocol):
    """A document with one writer: see :class:`rtc_kernel.agent.document.StateDocument`."""

    def is_recent(self, update: bytes) -> bool:
        """Whether an update is one of the last of this document."""

    def contains(self, update: bytes) -> bool:
        """Whether an update says nothing new; RemoteError when it is none."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send bytes to the relay."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Live:
    """The relay has all of this document now."""

    name: str


@dataclass(frozen=True, slots=True)
class Take:
    """Somebody wrote into a document that others may write."""

    name: str
    update: bytes


@dataclass(frozen=True, slots=True)
class Tell:
    """The relay itself says something of a document that others may write."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """The relay's copy of our own document has what we did not write."""

    name: str


@dataclass(frozen=True, slots=True)
class Denied:
    """The relay does not let us publish this document. ``why``: its words."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Hang:
    """End the connection. ``why``: one clause for the user."""

    why: str


Command = Send | Live | Take | Tell | Foreign | Denied | Hang


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The settings that bound one relay; names and units as in :mod:`rtc_kernel.config`."""

    ping_s: float = 20.0
    outbox_messages: int = 1000
    outbox_bytes: int = 8 << 20


@dataclass(slots=True)
class Sent:
    """What is not acknowledged yet. ``counted``: it counts against the outbox (a sync does not)."""

    at: float
    size: int
    counted: bool


@dataclass(slots=True)
class Lane:
    """One document on one connection. ``since``: of its state; ``wanted``: how many of our step 1 are unanswered."""

    name: str
    document: Published
    since: float
    state: LaneState = LaneState.ASKED
    waiting: deque[Sent] = field(default_factory=deque)
    waiting_bytes: int = 0
    counted_messages: int = 0
    counted_bytes: int = 0
    wanted: int = 0
    checks: Quota = field(default_factory=lambda: Quota(CHECKS_PER_S, CHECKS_BURST))

    def step(self, to: LaneState, now: float) -> None:
        """Go on to another state."""
        if to not in LANE_TRANSITIONS[self.state]:
            raise LocalError(f"a lane cannot go from {self.state} to {to}")
        self.state, self.since = to, now


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a relay has not acknowledged. ``since``: when the oldest of it was sent; null: nothing waits."""

    messages: int
    bytes: int
    since: float | None


class Outward:
    """One connection to a relay.

    Args:
        secret: the token that the relay's authentication hook is shown.
        now: seconds of any clock that does not go back; every later ``now`` is of the same clock.
    """

    def __init__(self, *, secret: str, now: float, bounds: Bounds = Bounds()) -> None:
        self.ignored_count = 0
        self.lanes: dict[str, Lane] = {}
        self._secret = secret
        self._bounds = bounds
        self._left: deque[str] = deque(maxlen=LEFT_KEPT)
        self._ask_s = min(bounds.ping_s, ASK_S)
        self._next_ping = now + self._ask_s
        self._messages = Quota(MESSAGES_PER_S, MESSAGES_BURST)
        self._bytes = Quota(BYTES_PER_S, BYTES_BURST)

    def __repr__(self) -> str:
        return f"<Outward {', '.join(f'{lane.name} {lane.state.value}' for lane in self.lanes.values()) or 'empty'}>"

    @property
    def backlog(self) -> Backlog:
        """What is not acknowledged, of all lanes."""
        lanes = self.lanes.values()
        return Backlog(
            sum(len(lane.waiting) for lane in lanes),
            sum(lane.waiting_bytes for lane in lanes),
            min((lane.waiting[0].at for lane in lanes if lane.waiting), default=None),
        )

    # --- act

    def open(self, name: str, document: Published, now: float) -> list[Command]:
        """Publish a document."""
        self.lanes[name] = Lane(name, document, now)
        return [Send(hocuspocus.token(name, self._secret))]

    def close(self, name: str) -> list[Command]:
        """Publish it no more."""
        lane = self.lanes.pop(name, None)
        self._left.append(name)
        return [Send(hocuspocus.close(name))] if lane is not None and lane.state is not LaneState.CLOSED else []

    def push_update(self, name: str, update: bytes, now: float) -> list[Command]:
        """The document changed. What is not sent here is in the sync that follows."""
        lane = self.lanes.get(name)
        if lane is None or lane.state is not LaneState.LIVE:
            return []
        bounds = self._bounds
        if lane.counted_messages >= bounds.outbox_messages or lane.counted_bytes + len(update) > bounds.outbox_bytes:
            lane.step(LaneState.BEHIND, now)
            return [] if lane.waiting else self._ask(lane, now)
        return [self._send(lane, yproto.update(update), now, counted=True)]

    # --- in

    def receive_bytes(self, data: bytes, now: float) -> list[Command]:
        """One message from the relay. Any bytes give commands; nothing raises."""
        if not (self._messages.take(now) and self._bytes.take(now, len(data))):
            return [Hang("it floods us")]
        try:
            name, message = hocuspocus.read_frame(data)
            return self._receive(name, message, now)
        except RemoteError as exc:
            return [Hang(f"what it says cannot be read: {exc.detail}")]

    def receive_time(self, now: float) -> list[Command]:
        """The time is :attr:`due` or later."""
        if any(deadline <= now for deadline in self._deadlines()):
            slow = any(lane.state in (LaneState.ASKED, LaneState.OPEN) for lane in self.lanes.values())
            return [Hang("it does not answer" if slow else "it acknowledges nothing")]
        if now < self._next_ping:
            return []
        self._next_ping = now + self._ask_s
        idle = [lane for lane in self.lanes.values() if lane.state is LaneState.LIVE and not lane.waiting]
        return [self._want(lane) for lane in idle]

    @property
    def due(self) -> float:
        """When :meth:`receive_time` is to be called next."""
        return min((self._next_ping, *self._deadlines()))

    # ---

    def _deadlines(self) -> Iterator[float]:
        """When the relay should have answered what it was asked, and acknowledged what it was sent."""
        for lane in self.lanes.values():
            extra_s = lane.waiting_bytes / SLOWEST_BYTES_PER_S
            if lane.state in (LaneState.ASKED, LaneState.OPEN):
                yield lane.since + ANSWER_S + extra_s
            if lane.waiting:
                yield lane.waiting[0].at + 2 * self._bounds.ping_s + extra_s

    def _receive(self, name: str, message: hocuspocus.Message, now: float) -> list[Command]:
        lane = self.lanes.get(name)
        if isinstance(message, hocuspocus.Ping):
            return [Send(hocuspocus.pong(name))] if message.asks else []
        if lane is None or lane.state is LaneState.CLOSED:
            self.ignored_count += name not in self._left and lane is None
            return []
        match message:
            case hocuspocus.Granted(writes):
                return self._receive_grant(lane, writes, now)
            case hocuspocus.Refused(reason):
                return self._deny(lane, reason, now)
            case hocuspocus.Asked():
                return [Send(hocuspocus.token(name, self._secret))]
            case yproto.Step1(clocks):
                return self._receive_clocks(lane, clocks, now)
            case yproto.Step2(update):
                wanted, lane.wanted = lane.wanted, max(0, lane.wanted - 1)
                return self._receive_update(lane, update, now, is_asked=wanted > 0)
            case yproto.Update(update):
                return self._receive_update(lane, update, now, is_asked=False)
            case hocuspocus.Status(applied):
                return self._receive_status(lane, applied, now)
            case hocuspocus.Told(text):
                return [] if isinstance(lane.document, Owns) else [Tell(name, text)]
            case hocuspocus.Closed(reason):
                lane.step(LaneState.CLOSED, now)
                return [Hang(f"it closed {name} ({reason})")]
            case yproto.Awareness() | yproto.Query():
                return []
            case hocuspocus.Unknown():
                self.ignored_count += 1
                return []
            case _:
                assert_never(message)

    def _receive_grant(self, lane: Lane, writes: bool, now: float) -> list[Command]:
        if lane.state is not LaneState.ASKED:
            return []
        if not writes:
            return self._deny(lane, "the token may only read", now)
        lane.step(LaneState.OPEN, now)
        return [self._want(lane)]

    def _receive_clocks(self, lane: Lane, clocks: dict[int, int], now: float) -> list[Command]:
        """The relay says what it has."""
        settled = lane.state is LaneState.LIVE and (bool(lane.waiting) or clocks == lane.document.clocks())
        if settled or lane.state not in (LaneState.OPEN, LaneState.LIVE):
            return []
        try:
            update = lane.document.diff(clocks)
        except RemoteError:
            return [Foreign(lane.name)]
        sent = self._send(lane, yproto.step2(update), now, counted=False)
        if lane.state is LaneState.LIVE:
            return [sent]
        lane.step(LaneState.LIVE, now)
        return [sent, Live(lane.name)]

    def _receive_update(self, lane: Lane, update: bytes, now: float, *, is_asked: bool) -> list[Command]:
        document = lane.document
        if update == yproto.EMPTY_UPDATE:
            return []
        if not isinstance(document, Owns):
            return [Take(lane.name, update)]
        if document.is_recent(update):
            return []
        if not is_asked and (len(update) > CHECKED_BYTES or not lane.checks.take(now)):
            return []
        return [] if document.contains(update) else [Foreign(lane.name)]

    def _receive_status(self, lane: Lane, applied: bool, now: float) -> list[Command]:
        if not lane.waiting:
            self.ignored_count += 1
            return []
        sent = lane.waiting.popleft()
        lane.waiting_bytes -= sent.size
        if sent.counted:
            lane.counted_messages -= 1
            lane.counted_bytes -= sent.size
        if not applied:
            return self._deny(lane, "it takes no updates of ours", now)
        if lane.state is LaneState.BEHIND and not lane.waiting:
            return self._ask(lane, now)
        return []

    def _ask(self, lane: Lane, now: float) -> list[Command]:
        lane.step(LaneState.OPEN, now)
        return [self._want(lane)]

    def _want(self, lane: Lane) -> Send:
        lane.wanted += 1
        return Send(hocuspocus.frame(lane.name, yproto.step1(yproto.write_state_vector(lane.document.clocks()))))

    def _send(self, lane: Lane, message: bytes, now: float, *, counted: bool) -> Send:
        size = len(message)
        lane.waiting.append(Sent(now, size, counted))
        lane.waiting_bytes += size
        if counted:
            lane.counted_messages += 1
            lane.counted_bytes += size
        return Send(hocuspocus.frame(lane.name, message))

    def _deny(self, lane: Lane, why: str, now: float) -> list[Command]:
        lane.step(LaneState.CLOSED, now)
        return [Denied(lane.name, why)]
