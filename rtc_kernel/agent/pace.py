"""When is it time to write what has been gathered?

Pure. What comes after a quiet moment is written at once, and so is every change of a state; only outputs that keep
coming are gathered, for at most ``load_s`` or ``load_bytes``. So a follower of a cell that prints now and then is
never behind, and one of a flood gets few large updates instead of many small ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..tables import (
    AddCommMessage,
    AddOutput,
    Change,
    ClearOutputs,
    MergeCommState,
    PutBlob,
    SetOutput,
    WriteText,
)

_BULK = (WriteText, SetOutput, MergeCommState, AddCommMessage, ClearOutputs, PutBlob)

IDLE_S = 0.5
"""Records that changed nothing are acknowledged this late: no disk write per heartbeat of a frontend."""


class Pace:
    """Decides when to write.

    Args:
        quiet_s: seconds without output after which the next one is written at once.
        load_s: seconds that output may be gathered.
        load_bytes: bytes of text that may be gathered.
    """

    def __init__(self, quiet_s: float, load_s: float, load_bytes: int) -> None:
        self.quiet_s = quiet_s
        self.load_s = load_s
        self.load_bytes = load_bytes
        self.due: float | None = None
        self._bytes = 0
        self._last_output = float("-inf")
        self._written = float("-inf")

    def __repr__(self) -> str:
        return f"<Pace due {self.due} {self._bytes} bytes>"

    def receive(self, changes: Iterable[Change], now: float) -> None:
        """Take note of what was gathered; ``due`` then says when to write (seconds, on ``now``'s clock)."""
        bulk = urgent = False
        for change in changes:
            if isinstance(change, WriteText):
                self._bytes += len(change.text)
                bulk = True
            elif isinstance(change, _BULK) or (isinstance(change, AddOutput) and change.position > 0):
                bulk = True
            else:
                urgent = True
        if bulk:
            quiet = now - self._last_output >= self.quiet_s
            self._last_output = now
            urgent = urgent or quiet or self._bytes >= self.load_bytes
        if urgent:
            self.due = now
        elif bulk:
            self._due_at(max(now, self._written + self.load_s))
        else:
            self._due_at(now + IDLE_S)

    def wrote(self, now: float) -> None:
        """Everything gathered so far has been written."""
        self.due = None
        self._bytes = 0
        self._written = now

    def _due_at(self, at: float) -> None:
        self.due = at if self.due is None else min(self.due, at)
