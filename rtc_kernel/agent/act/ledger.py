"""What has become of each request?

Pure. State: the rows that have not ended, by id, and in ``turns`` while they wait; those that are held; the last that
ended; which waits for which; and the commands that say what has changed since somebody took them. Every step of a
request is made here, by the table of :mod:`rtc_kernel.tables`. It must not decide when a row is sent, nor look at runs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...tables import ExecutionState, Request, RequestState, advance
from .commands import Command, Put, Record
from .rows import is_request_id
from .turns import Row, Turns

ENDED_KEPT = 2000
"""Ended requests that are remembered here; the store knows older ones."""

_STOPPING = (ExecutionState.ERROR, ExecutionState.ABORTED, ExecutionState.LOST)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A request that has ended, without columns. ``failed``: what comes ``after`` it is not to run."""

    request: Request
    failed: bool


class Ledger:
    """The requests of one kernel.

    Args:
        make_id: gives a new execution id.

    Attributes:
        open: the rows that have not ended, by id.
        held: those of them that somebody has to release or cancel.
        turns: those of them that wait, by peer.
        changed: the peers whose first row is to be looked at.
    """

    def __init__(self, make_id: Callable[[], str]) -> None:
        self.open: dict[str, Row] = {}
        self.held: dict[str, Row] = {}
        self.turns = Turns()
        self.changed: dict[str, None] = {}
        self._make_id = make_id
        self._ended: OrderedDict[str, _Ended] = OrderedDict()
        self._dependents: dict[str, list[Row]] = {}
        self._puts: dict[str, Put] = {}
        self._deeds: list[Command] = []

    def __repr__(self) -> str:
        return f"<Ledger {len(self.open)} open, {len(self.held)} held, {len(self._ended)} ended; {self.turns!r}>"

    def known(self, request_id: str) -> Request | None:
        """The request of this id, open or lately ended; of one that has ended without its columns."""
        if (row := self.open.get(request_id)) is not None:
            return row.request
        ended = self._ended.get(request_id)
        return ended.request if ended else None

    def select(self, state: RequestState) -> tuple[Request, ...]:
        """The runs that were asked for and are in this state, in the order in which they came."""
        found = [row.request for row in self.open.values() if row.request.state is state]
        return tuple(sorted((one for one in found if one.action == "execute"), key=lambda one: one.ordinal))

    # --- what is to be done

    def add(self, command: Command) -> None:
        """Something is to be done, behind all that was added before."""
        self._deeds.append(command)

    def show(self, request: Request, *, stored: bool) -> None:
        """This version of a row is to be shown, in place of one that was not shown yet."""
        self._puts[request.id] = Put(request, stored)

    def take_commands(self) -> list[Command]:
        """What is to be done since the last time; each row stands there once, as it is now."""
        commands: list[Command] = [*self._puts.values(), *self._deeds]
        self._puts.clear()
        self._deeds.clear()
        return commands

    # --- rows that end where they begin

    def end_at_once(self, request: Request) -> Request:
        """A row is done with what is added next; returns it so."""
        done = replace(request, state=advance(request.state, RequestState.DONE))
        self.show(done, stored=True)
        self.remember(done, None)
        return done

    def refuse(self, request: Request, reason: str, *, stored: bool = True) -> None:
        """A row is not what may be asked for. ``stored``: false where it is only shown, and may come again."""
        if request.state is not RequestState.REFUSED:
            request = replace(request, state=advance(request.state, RequestState.REFUSED))
        refused = replace(request, reason=reason)
        stored = stored and is_request_id(request.id)
        self.show(refused, stored=stored)
        if stored:
            self.remember(refused, None)

    def remember(self, request: Request, state: ExecutionState | None) -> None:
        """A request has ended, lately or long ago; ``state``: of its execution, where it had one."""
        # Of one that ended long ago the columns are gone: it counts as one that stops.
        stops = request.columns.get("stop_on_error", True) is True
        refused = request.state is RequestState.REFUSED
        failed = refused or (stops and state not in (None, ExecutionState.OK))
        self._ended[request.id] = _Ended(replace(request, columns={}), failed and request.action == "execute")
        if len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    # --- rows that stay

    def enter(self, request: Request) -> Row:
        """A request is new here."""
        row = self.open[request.id] = Row(request)
        self.turns.enter(row)
        return row

    def link(self, row: Row, after: str | None) -> None:
        """Make a row wait until the one it comes after has ended."""
        if after is None:
            return
        if after in self.open:
            row.after = after
            self._dependents.setdefault(after, []).append(row)
        elif (ended := self._ended.get(after)) is not None and ended.failed:
            row.stopped = _stopped_behind(after)

    def step(self, row: Row, to: RequestState, *, execution: str | None, reason: str | None) -> None:
        """A row takes a step.

        Raises:
            LocalError: there is no such step; nothing has changed.
        """
        state = advance(row.request.state, to)
        row.request = replace(row.request, state=state, execution=execution, reason=reason)
        self.show(row.request, stored=True)

    def wait(self, rows: Sequence[Row]) -> None:
        """These rows wait for their turn; what was held or accepted is requested again."""
        for row in rows:
            if row.request.state is not RequestState.REQUESTED:
                self.step(row, RequestState.REQUESTED, execution=None, reason=None)
            self.held.pop(row.request.id, None)
        self.turns.wait(rows)
        self.changed.update((row.request.by, None) for row in rows)

    def change_all(self) -> None:
        """Every peer is to be looked at: who has waited longest is first."""
        firsts = [row for by in self.turns.peers if (peer := self.turns.get(by)) and (row := peer.first)]
        firsts.sort(key=lambda row: row.request.ordinal)
        self.changed.clear()
        self.changed.update((row.request.by, None) for row in firsts)

    def hold(self, row: Row, why: str) -> None:
        """A row waits until somebody releases it."""
        self.step(row, RequestState.HELD, execution=None, reason=f"{why}, release or cancel it")
        self.held[row.request.id] = row

    def hold_all(self, why: str) -> None:
        """Every row that waits is held."""
        for by in self.turns.peers:
            for row in self.turns.take_all(by):
                self.hold(row, why)

    def finish(
        self,
        row: Row,
        state: ExecutionState,
        reason: str | None,
        *,
        execution: str | None = None,
        stops: bool = True,
    ) -> None:
        """A row has ended.

        Args:
            state: of its execution, ``execution`` where that is new.
            stops: whether its peer's rows that wait are aborted when it failed and says so.
        """
        self.step(row, RequestState.DONE, execution=execution or row.request.execution, reason=reason)
        request = row.request
        del self.open[request.id]
        self.held.pop(request.id, None)
        self.remember(request, state)
        self.changed[request.by] = None
        for dependent in self._dependents.pop(request.id, ()):
            dependent.after = None
            dependent.stopped = _stopped_behind(request.id) if self._ended[request.id].failed else None
            self.changed[dependent.request.by] = None
        if stops and row.stops and state in _STOPPING:
            # All are taken before the first of them ends, so none finds others to stop.
            for other in self.turns.take_all(request.by):
                self.end_unsent(other, ExecutionState.ABORTED, f"not run, {request.id} before it ended in {state}")
        self.turns.leave(row)

    def end_unsent(self, row: Row, state: ExecutionState, reason: str) -> None:
        """A row ends without a run. Its execution says so, unless it is silent and has none."""
        self.turns.take(row)
        if row.silent:
            self.finish(row, state, reason)
            return
        execution = self._make_id()
        self.finish(row, state, reason, execution=execution)
        self.add(Record(execution, row.request, state))


def _stopped_behind(after: str) -> str:
    return f"not run, {after}, after which it was to run, did not end ok"
