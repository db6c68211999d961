"""Which executions leave a history, and which stay?

Pure: facts about rows and the time in, a choice out; it knows no SQL and no clock. :class:`Plan` owns the count of
what has gone and of what is left.

Theory. Age is a promise: what finished earlier than ``days`` ago goes, whatever it is. Count and bytes are a budget:
the oldest go first, but what is the latest run of its cell, or was annotated, only when all else that may go has gone.
What has not finished stays, and so do the newest ``newest`` executions.

The rows come oldest first and in pages, because a history may have a million of them; whoever brings them goes
through the history once (``is_spared`` true), and once more from the oldest on (false) where a budget is still passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NEWEST_KEPT = 50
"""Newest executions of a live kernel that no limit takes away."""

ROW_BYTES = 256
"""About what an execution takes beside its code and its outputs."""

DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may stay of one kernel's history; 0: no limit.

    Attributes:
        days: an execution that finished earlier goes.
        executions: so many stay.
        bytes: so much of the file may be in use.
        newest: so many newest executions stay in any case.
    """

    days: float = 0.0
    executions: int = 0
    bytes: int = 0
    newest: int = NEWEST_KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Facts about one execution.

    Attributes:
        row: what the file names it by.
        finished_at: when it ended; of one that nobody saw end, when it was asked for; null: it is not known.
        bytes: of code, outputs and the blobs that they name.
        is_finished: it has ended, or nobody is there to end it.
        is_latest: no later execution is of the same cell.
        is_annotated: somebody wrote into its ``metadata``.
    """

    row: int
    seq: int
    finished_at: float | None
    bytes: int
    is_finished: bool
    is_latest: bool = False
    is_annotated: bool = False


class Plan:
    """One pass over a history.

    Args:
        executions_count, used_bytes: of the whole history, as it is.
        newest_seq: executions from this ``seq`` on stay in any case; null: all may go.
    """

    def __init__(
        self, limits: Limits, *, now: float, executions_count: int, used_bytes: int, newest_seq: int | None
    ) -> None:
        self._limits = limits
        self._before = now - limits.days * DAY_S if limits.days else None
        self._newest_seq = newest_seq
        self.executions_count = executions_count
        self.used_bytes = used_bytes
        self.chosen_count = 0
        self.chosen_bytes = 0

    def __repr__(self) -> str:
        return f"<Plan {self.chosen_count} go, {self.executions_count} stay in {self.used_bytes} bytes>"

    @property
    def is_over(self) -> bool:
        """Whether more is left than a budget allows."""
        limits = self._limits
        return bool(
            (limits.executions and self.executions_count > limits.executions)
            or (limits.bytes and self.used_bytes > limits.bytes)
        )

    @property
    def has_limit(self) -> bool:
        """Whether there is anything to choose by."""
        return bool(self._limits.days or self._limits.executions or self._limits.bytes)

    def choose(self, rows: Iterable[Row], *, is_spared: bool) -> list[Row]:
        """Those of the next rows that go.

        Args:
            rows: oldest first.
            is_spared: latest runs and annotated ones stay unless they are too old.
        """
        chosen = []
        for row in rows:
            if not row.is_finished or (self._newest_seq is not None and row.seq >= self._newest_seq):
                continue
            if self._is_too_old(row) or (self.is_over and not (is_spared and (row.is_latest or row.is_annotated))):
                chosen.append(row)
                self.chosen_count += 1
                self.chosen_bytes += row.bytes + ROW_BYTES
                self.executions_count -= 1
                self.used_bytes -= row.bytes + ROW_BYTES
        return chosen

    def is_done(self, rows: Iterable[Row]) -> bool:
        """Whether nothing behind this page has to be looked at: no budget is passed, and nothing in the page is too old
        (so nothing that began later will be, but for what overtook a whole page)."""
        return not self.is_over and not any(map(self._is_too_old, rows))

    def _is_too_old(self, row: Row) -> bool:
        return self._before is not None and row.finished_at is not None and row.finished_at < self._before
