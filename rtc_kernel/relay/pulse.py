"""Does the kernel that we are attached to live, and is it still the same one?

Pure. State: the :class:`Pulse`, the number of the process, and since when it is as it is. It must not know sockets.

Theory. Nobody tells us of the process: all we have is our connection to it, and what it answers. A process that ends
loses its connections at once; one that cannot be reached for a moment loses them too. Who is there afterwards is
told by the session in the header of its answer to a question of ours, which is one per process, in most kernels.
Until it has answered, what it publishes is held: it may be of the next process, and must not be taken for the last
one's. A kernel that writes our own session into its answers says nothing by it; then a lost connection is a new
process, because that is what it nearly always is. A kernel that says ``starting`` on a connection that stands (there
is another proxy between us) is asked as well.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from ..errors import LocalError

DEAD_S = 3.0
"""A kernel of which nothing is known for so long is dead; one that is restarted has answered before. Seconds."""

ANSWER_S = 30.0
"""Somebody who is there again may take so long to answer, because it starts. If what it said was signed with the
kernel's key, it is then taken for another process, else for a stranger. Seconds."""

LOOK_S = 0.2
"""How often it is looked at while it does not live. Seconds."""

GIVE_UP_S = 60.0
"""A kernel that is dead for so long, although its connection file is still there, is not awaited any more. Seconds."""


class Pulse(StrEnum):
    """``live``: it was asked and has answered. ``away``: the connection is lost. ``asked``: there is a connection
    again, and no answer yet. ``dead``: away for long. ``gone``: it is not awaited any more."""

    LIVE = "live"
    AWAY = "away"
    ASKED = "asked"
    DEAD = "dead"
    GONE = "gone"


TRANSITIONS: dict[Pulse, frozenset[Pulse]] = {
    Pulse.LIVE: frozenset({Pulse.AWAY, Pulse.ASKED}),
    Pulse.AWAY: frozenset({Pulse.ASKED, Pulse.DEAD}),
    Pulse.ASKED: frozenset({Pulse.LIVE, Pulse.AWAY, Pulse.DEAD}),
    Pulse.DEAD: frozenset({Pulse.ASKED, Pulse.GONE}),
    Pulse.GONE: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the kernel who it is."""


@dataclass(frozen=True, slots=True)
class Died:
    """The process ``number`` is gone, since ``at``."""

    number: int
    at: float


@dataclass(frozen=True, slots=True)
class Found:
    """A process is there; ``busy``: it has not answered on shell."""

    number: int
    busy: bool


@dataclass(frozen=True, slots=True)
class Missed:
    """The same process is there as before: what it said meanwhile is lost."""

    since: float
    until: float


Command = Ask | Died | Found | Missed


def number_of(session: str) -> int:
    """A number for the process of this session: from 1 to 2⁵³ - 1."""
    return 1 + int.from_bytes(hashlib.sha256(session.encode()).digest()[:6], "big")


class Life:
    """The life of one kernel that we are attached to.

    Args:
        number: of its process.
        told: whether its answers tell one process from another.
    """

    def __init__(self, number: int, *, told: bool) -> None:
        self.number = number
        self._told = told
        self.pulse = Pulse.LIVE
        self._since = 0.0  # of the pulse
        self._look_at = 0.0
        self._lost_at = 0.0  # when it was last heard
        self._died = False  # that was said
        self._broke = False  # the connection did, so something may have been missed

    def __repr__(self) -> str:
        return f"<Life {self.pulse.value} {self.number}>"

    @property
    def holds(self) -> bool:
        """Whether nobody knows whose messages these are."""
        return self.pulse is not Pulse.LIVE

    @property
    def deadline(self) -> float | None:
        """When :meth:`receive_time` wants to be called; null while it lives."""
        return None if self.pulse in (Pulse.LIVE, Pulse.GONE) else self._look_at

    # --- in

    def receive_lost(self, now: float) -> None:
        """The connection is lost."""
        if self.pulse is Pulse.LIVE:
            self._lost_at, self._died = now, False
        self._broke = True
        if Pulse.AWAY in TRANSITIONS[self.pulse]:
            self._step(Pulse.AWAY, now)

    def receive_back(self, now: float) -> list[Command]:
        """There is a connection again."""
        if self.pulse not in (Pulse.AWAY, Pulse.DEAD):
            return []
        self._step(Pulse.ASKED, now)
        return [Ask()]

    def receive_starting(self, now: float) -> list[Command]:
        """A kernel says that it starts."""
        if self.pulse is not Pulse.LIVE:
            return []
        self._lost_at, self._died, self._broke = now, False, False
        self._step(Pulse.ASKED, now)
        return [Ask()]

    def receive_answer(self, session: str, now: float, *, busy: bool) -> list[Command]:
        """The kernel has answered.

        Args:
            session: of its header; empty where that says nothing.
        """
        if self.pulse is not Pulse.ASKED:
            return []
        number = number_of(session) if session and self._told else self.number + 1
        return self._live(number, now, busy=busy)

    def receive_time(self, now: float, *, awaited: bool, heard: bool = False) -> list[Command]:
        """Time has passed.

        Args:
            awaited: whether somebody may start it again: its connection file is there.
            heard: whether what is held was signed with its key.
        """
        self._look_at = now + LOOK_S
        match self.pulse:
            case Pulse.AWAY if not awaited or now - self._since >= DEAD_S:
                self._step(Pulse.DEAD, now)
                return self._die()
            case Pulse.ASKED if now - self._since >= ANSWER_S and heard:
                return self._live(self.number + 1, now, busy=False)
            case Pulse.ASKED if now - self._since >= ANSWER_S:  # a stranger, at its ports
                self._step(Pulse.DEAD, now)
                return self._die()
            case Pulse.ASKED if now - self._lost_at >= DEAD_S:
                return self._die()
            case Pulse.DEAD if not awaited or now - self._lost_at >= GIVE_UP_S:
                self._step(Pulse.GONE, now)
                return []
            case _:
                return []

    def _die(self) -> list[Command]:
        if self._died:
            return []
        self._died = True
        return [Died(self.number, self._lost_at)]

    def receive_much(self, now: float) -> list[Command]:
        """More was said than is held: there is somebody, who does not answer."""
        return self._live(self.number + 1, now, busy=True) if self.pulse is Pulse.ASKED else []

    def _live(self, number: int, now: float, *, busy: bool) -> list[Command]:
        commands: list[Command] = []
        if number == self.number and self._broke:
            commands.append(Missed(self._lost_at, now))
        elif number != self.number:
            commands += self._die()
        if self._died or number != self.number:
            commands.append(Found(number, busy))
        self.number, self._died = number, False
        self._step(Pulse.LIVE, now)
        return commands

    def _step(self, to: Pulse, now: float) -> None:
        if to not in TRANSITIONS[self.pulse]:
            raise LocalError(f"a kernel that is {self.pulse.value} cannot be {to.value}")
        self.pulse, self._since, self._look_at = to, now, now + LOOK_S
