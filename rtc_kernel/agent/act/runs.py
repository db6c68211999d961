"""Which executions are open, and what may be done to each?

Pure. State: a :class:`Run` per execution that has not ended, whoever sent it: a request or a frontend. It answers what
a row may join, whether an interrupt or an answer finds whom it is for, and whether the kernel may be given more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...tables import ExecutionState, Json
from .turns import Key, Row


@dataclass(slots=True, eq=False)
class Run:
    """One execution that has not ended.

    Attributes:
        key, notebook: what a row may join it by.
        sent_at: when a request of ours was sent; null: it is a frontend's.
        seen: the kernel's side knows of it: its row is there.
        rows: the requests that it is the execution of.
        asks: somebody is asked now; ``asks_since``: the question's ``since``.
        answered_by: who has answered the last question.
    """

    id: str
    key: Key | None = None
    notebook: str | None = None
    state: ExecutionState = ExecutionState.QUEUED
    sent_at: float | None = None
    seen: bool = False
    rows: list[Row] = field(default_factory=list)
    asks: bool = False
    asks_since: float | None = None
    answered_by: str | None = None


class Runs:
    """The open executions of one kernel.

    Args:
        lookahead: how many of our runs the kernel may have at a time, while they are quick; else it is one, so that
            what waits can still be taken back.
        fast_s: runs are quick when the last that ended took less, from sent to ended, and the first that the kernel has
            was sent less long ago. Seconds.
    """

    def __init__(self, lookahead: int, fast_s: float) -> None:
        self._lookahead = lookahead
        self._fast_s = fast_s
        self._runs: dict[str, Run] = {}
        self._same: dict[Key, dict[str, Run]] = {}
        self._sent: dict[str, Run] = {}  # those of requests, in the order in which they were sent
        self._fronts: dict[str, int] = {}  # those of frontends, and the how manieth each was
        self._fronts_count = 0
        self._barrier: int | None = None  # the last that was there when it was our turn
        self._fast = False

    def __repr__(self) -> str:
        return f"<Runs {len(self._runs)} open, {len(self._sent)} of requests, {'fast' if self._fast else 'slow'}>"

    def is_full(self, now: float) -> bool:
        """Whether the kernel has as many runs of ours as it may have."""
        first = next(iter(self._sent.values()), None)
        if first is None:
            return False
        quick = self._fast and first.sent_at is not None and now - first.sent_at < self._fast_s
        return len(self._sent) >= (self._lookahead if quick else 1)

    def must_wait(self, *, offers: bool) -> bool:
        """Whether a row whose turn it is waits for a frontend's execution that was there before: sent now, it would run
        no sooner, could not be taken back, and would be aborted by the kernel if that one fails. What frontends send
        later does not keep it back.

        Args:
            offers: there is such a row.
        """
        if not offers:
            self._barrier = None
            return False
        if self._barrier is None:
            self._barrier = self._fronts_count
        return next(iter(self._fronts.values()), self._barrier + 1) <= self._barrier

    @property
    def sent(self) -> list[Run]:
        """Those that come from requests."""
        return list(self._sent.values())

    def get(self, execution: str) -> Run | None:
        """An open execution."""
        return self._runs.get(execution)

    def find(self, row: Row) -> Run | None:
        """The run that a row may join: same cell and code, and no other notebook. The latest, where there are
        several: it has seen most."""
        key = row.joins
        if key is None:
            return None
        notebook = row.request.columns["notebook"]
        for run in reversed(self._same.get(key, {}).values()):
            if notebook is None or run.notebook is None or notebook == run.notebook:
                return run
        return None

    # --- in

    def send(self, execution: str, row: Row, now: float) -> Run:
        """A row is sent."""
        run = Run(execution, sent_at=now)
        self._runs[execution] = self._sent[execution] = run
        self._barrier = None
        self._name(run, row.key, row.request.columns["notebook"])
        return run

    def receive(self, execution: str, columns: Json) -> Run | None:
        """What the mirror says of an execution: columns as in ``tables.Execution``, with ``seq`` the first time.

        Returns:
            The run, where it is new or may be joined only now; else null.
        """
        state = columns.get("state")
        run = self._runs.get(execution)
        new = run is None
        if run is None:
            # The later columns of a row that has ended begin no run.
            if state is None and not columns.get("input"):
                return None
            run = self._runs[execution] = Run(execution)
            self._fronts_count += 1
            self._fronts[execution] = self._fronts_count
        if state is not None:
            run.state = ExecutionState(state)
        if "input" in columns:
            asked = columns["input"]
            run.asks = asked is not None
            if asked is not None:
                run.asks_since, run.answered_by = asked.get("since"), None
        if "seq" in columns:
            run.seen = True
            cell, code = columns.get("cell"), columns.get("code", "")
            if cell and run.key is None and not columns.get("private"):
                self._name(run, (cell, code), columns.get("notebook"))
                new = True
        return run if new else None

    def end(self, execution: str, now: float) -> Run | None:
        """An execution has ended; null where it was not open."""
        run = self.drop(execution)
        if run is not None and run.sent_at is not None:
            self._fast = now - run.sent_at < self._fast_s
        return run

    def drop(self, execution: str) -> Run | None:
        """An execution never was; null where it was not open."""
        run = self._runs.pop(execution, None)
        if run is None:
            return None
        self._sent.pop(execution, None)
        self._fronts.pop(execution, None)
        if run.key is not None:
            same = self._same[run.key]
            del same[execution]
            if not same:
                del self._same[run.key]
        return run

    def _name(self, run: Run, key: Key | None, notebook: str | None) -> None:
        run.key, run.notebook = key, notebook
        if key is not None:
            self._same.setdefault(key, {})[run.id] = run
