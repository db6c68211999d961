"""When is what sent to the kernel?

Pure. Rows, what the mirror saw, and the time come in; :mod:`.commands` go out. State: the requests (``ledger``), the
executions that are open (``runs``), and whether the kernel may be given anything at all. It must not know documents,
stores or messages.

Theory. A row waits for three things only: for rows of its own peer that came before it, for the row it names in
``after``, and for the kernel. All rows of the first two kinds were taken before it, so there is no circle, and the one
of the lowest ordinal waits for the kernel alone. Two rows that ask for the same are brought together when the turn
of the later one has come, never before: no row overtakes another of its peer, and none waits behind another peer's
rows. What is sent is accepted, and stored so, first; its end is what the mirror says of its execution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from ...errors import LocalError
from ...tables import (
    END_STATES,
    REQUEST_END_STATES,
    Change,
    ExecutionState,
    Json,
    KernelState,
    PutExecution,
    PutKernel,
    Request,
    RequestState,
)
from .commands import Annotate, Answer, Ask, Clear, Close, Command, Interrupt, Put, Record, Restart, Submit
from .ledger import Ledger
from .runs import Run, Runs
from .turns import Row

__all__ = [
    "Annotate", "Answer", "Ask", "Clear", "Close", "Command", "Interrupt", "Put", "Record", "Restart", "Scheduler",
    "Submit",
]  # fmt: skip

RESTART_S = 30.0
"""How long nothing is sent after a restart was asked for and the kernel does not say that it restarts. Seconds."""

AfterCrash = Literal["hold", "resume", "drop"]
"""What becomes of rows that waited when the agent ended."""

_OWN = "own"
_GONE = (KernelState.RESTARTING, KernelState.DEAD)
_ALIVE = (KernelState.IDLE, KernelState.BUSY)
_ENDS: Mapping[ExecutionState, str] = {
    ExecutionState.ABORTED: "the kernel did not begin it",
    ExecutionState.LOST: "it is not known how it ended",
}
_REPLIES: Mapping[str, ExecutionState] = {
    "ok": ExecutionState.OK,
    "aborted": ExecutionState.ABORTED,
    "abort": ExecutionState.ABORTED,
}


class Scheduler:
    """What is sent to one kernel.

    Args:
        make_id: gives a new execution id.
        rows_per_peer: open rows one peer may have.
        lookahead, fast_s: as of :class:`~.runs.Runs`.
    """

    def __init__(
        self, *, make_id: Callable[[], str], rows_per_peer: int = 1000, lookahead: int = 8, fast_s: float = 0.05
    ) -> None:
        self._make_id = make_id
        self._rows_per_peer = rows_per_peer
        self._ledger = Ledger(make_id)
        self._runs = Runs(lookahead, fast_s)
        self._after_crash: AfterCrash = "hold"
        self._caught_up = False
        self._kernel: KernelState | None = None
        self._restart_until: float | None = None

    def __repr__(self) -> str:
        return f"<Scheduler {'sends' if self._may_send else 'sends nothing'}; {self._ledger!r} {self._runs!r}>"

    @property
    def waiting(self) -> tuple[Request, ...]:
        """The rows that will be sent, in the order in which they came."""
        return self._ledger.select(RequestState.REQUESTED)

    @property
    def held(self) -> tuple[Request, ...]:
        """The rows that somebody has to release or cancel, in the order in which they came."""
        return self._ledger.select(RequestState.HELD)

    @property
    def in_flight(self) -> tuple[Request, ...]:
        """The rows whose execution has not ended, in the order in which they came."""
        return self._ledger.select(RequestState.ACCEPTED)

    def known(self, request_id: str) -> Request | None:
        """The request of this id, open or lately ended; of one that has ended without its columns."""
        return self._ledger.known(request_id)

    # --- in: the start

    def load(
        self,
        requests: Sequence[Request],
        executions: Mapping[str, ExecutionState],
        *,
        after_crash: AfterCrash,
        same_relay: bool,
        now: float,
    ) -> list[Command]:
        """Go on with what an earlier agent left. Nothing is sent before :meth:`receive_caught_up`.

        Args:
            requests: those that have not ended; ended ones are remembered, for rows that name them.
            executions: what the store knows of the executions that these requests name. Open executions, of anybody,
                are given to :meth:`receive_execution` besides, with all columns.
            after_crash: for rows that waited, or provably never reached the kernel.
            same_relay: the feed goes on where the store ends, so what was sent will be seen.
        """
        self._after_crash = after_crash
        ledger = self._ledger
        waited: list[Row] = []
        sent: dict[str, list[Row]] = {}
        for request in sorted(requests, key=lambda request: request.ordinal):
            if request.state in REQUEST_END_STATES:
                ledger.remember(request, executions.get(request.execution or ""))
                continue
            row = ledger.enter(request)
            ledger.link(row, request.columns.get("after"))
            if request.action != "execute":
                ledger.finish(row, ExecutionState.LOST, "the agent was restarted before it ended, ask again")
            elif request.execution is not None:
                sent.setdefault(request.execution, []).append(row)
            elif request.state is RequestState.HELD:
                ledger.held[request.id] = row
            else:
                waited.append(row)
        self._go_on(waited)
        for execution, rows in sent.items():
            self._load_sent(execution, rows, executions.get(execution), same_relay, now)
        return self._settle(now)

    def _load_sent(
        self, execution: str, rows: Sequence[Row], state: ExecutionState | None, same_relay: bool, now: float
    ) -> None:
        run = self._runs.send(execution, rows[0], rows[0].request.received_at)
        for row in rows:
            self._start(row, run)
        if state in END_STATES:
            stops = state is not ExecutionState.LOST or self._after_crash != "resume"
            self._end(execution, state, now, stops=stops)
        elif state is not None:
            run.state, run.seen = state, True
        elif not same_relay:
            self._end(execution, ExecutionState.LOST, now, stops=self._after_crash != "resume")
            if not rows[0].silent:
                self._ledger.add(Record(execution, rows[0].request, ExecutionState.LOST))

    def receive_caught_up(self, now: float) -> list[Command]:
        """All that an earlier agent has sent has been seen: what is accepted and has no execution was never sent. A
        silent run has none in any case, so of that nobody knows."""
        if self._caught_up:
            return []
        self._caught_up = True
        unsent: list[Row] = []
        for run in [run for run in self._runs.sent if not run.seen]:
            if run.rows[0].silent:
                self._end(run.id, ExecutionState.LOST, now, stops=self._after_crash != "resume")
                continue
            self._runs.drop(run.id)
            for row in run.rows:
                self._ledger.turns.stop(row)
            unsent += run.rows
        self._go_on(unsent)
        self._ledger.change_all()
        return self._settle(now)

    def _go_on(self, rows: Sequence[Row]) -> None:
        """Rows that waited when an earlier agent ended."""
        if self._after_crash == "resume":
            self._ledger.wait(rows)
            return
        for row in rows:
            if self._after_crash == "hold":
                self._ledger.hold(row, "the agent was restarted")
            else:
                self._ledger.end_unsent(row, ExecutionState.CANCELLED, "dropped, the agent was restarted")

    # --- in: rows

    def receive_row(
        self,
        request: Request,
        *,
        role: str,
        now: float,
        secret: str | None = None,
        known: Request | None = None,
        after: tuple[Request, ExecutionState | None] | None = None,
    ) -> list[Command]:
        """A row that a peer wrote.

        Args:
            request: from ``rows.read_row``.
            role: of the peer: ``run`` | ``own``.
            secret: what was typed, for ``input``.
            known: the request that the store has under this id, where :meth:`known` has none.
            after: likewise the ended one that the row is to run after, and the state of its execution.
        """
        known = self.known(request.id) or known
        if known is not None:
            self._show_known(request, known)
        elif request.state is RequestState.REFUSED:
            self._ledger.refuse(request, request.reason or "")
        else:
            if after is not None and self.known(after[0].id) is None:
                self._ledger.remember(*after)
            self._receive(request, role, secret or "", now)
        return self._settle(now)

    def receive_revoked(self, by: str, now: float) -> list[Command]:
        """The link of a peer was withdrawn: what it asked for and was not sent is cancelled."""
        ledger = self._ledger
        held = [row for row in ledger.held.values() if row.request.by == by]
        for row in [*held, *ledger.turns.take_all(by)]:
            ledger.end_unsent(row, ExecutionState.CANCELLED, f"the link of {by} was withdrawn")
        return self._settle(now)

    # --- in: what happened

    def receive_changes(self, changes: Iterable[Change], now: float) -> list[Command]:
        """What the mirror says of one moment. The kernel comes first: its runs end with it, and what then has its
        turn must not be sent to a kernel that is gone."""
        changes = list(changes)
        for change in changes:
            if isinstance(change, PutKernel) and "state" in change.columns:
                self._see_kernel(KernelState(change.columns["state"]), now)
        for change in changes:
            if isinstance(change, PutExecution):
                self._see_execution(change.execution, change.columns, now)
        return self._settle(now)

    def receive_execution(self, execution: str, columns: Json, now: float) -> list[Command]:
        """A change of an execution's row, of anybody, in order.

        Args:
            columns: as in ``tables.Execution``; all that it has the first time, ``seq`` among them.
        """
        self._see_execution(execution, columns, now)
        return self._settle(now)

    def receive_kernel(self, state: KernelState, now: float) -> list[Command]:
        """The kernel's state. Of one moment it has to come before the executions that end with the kernel, as
        :meth:`receive_changes` sees to."""
        self._see_kernel(state, now)
        return self._settle(now)

    def receive_reply(self, execution: str, status: str, now: float) -> list[Command]:
        """An ``execute_reply``: the end of a silent run, which has no row. ``status``: as the kernel gave it."""
        run = self._runs.get(execution)
        if run is not None and run.rows and run.rows[0].silent:
            self._end(execution, _REPLIES.get(status, ExecutionState.ERROR), now)
        return self._settle(now)

    def receive_query(self, request_id: str, ok: bool, reason: str | None, now: float) -> list[Command]:
        """A question was answered, or will not be."""
        row = self._ledger.open.get(request_id)
        if row is not None and row.request.action == "query":
            self._ledger.finish(row, ExecutionState.OK if ok else ExecutionState.ERROR, reason)
        return self._settle(now)

    def _see_execution(self, execution: str, columns: Json, now: float) -> None:
        run = self._runs.receive(execution, columns)
        if run is not None:
            self._change_joining(run)
        if (state := columns.get("state")) in END_STATES:
            self._end(execution, ExecutionState(state), now)

    def _see_kernel(self, state: KernelState, now: float) -> None:
        before, self._kernel = self._kernel, state
        if state is before:
            return
        if state in _GONE or (state is KernelState.STARTING and before in _ALIVE):
            why = "the kernel died" if state is KernelState.DEAD else "the kernel was restarted"
            for run in self._runs.sent:
                if run.rows[0].silent:
                    self._end(run.id, ExecutionState.LOST, now, why)
            # What came after a restart was asked for is meant for the new kernel.
            if self._restart_until is None or state is KernelState.DEAD:
                self._ledger.hold_all(why)
        if state not in _ALIVE:
            self._restart_until = None
        if before not in _ALIVE:
            self._ledger.change_all()

    # --- rows, by action

    def _receive(self, request: Request, role: str, secret: str, now: float) -> None:
        match request.action:
            case "execute":
                self._receive_execute(request)
            case "query":
                if not self._is_over_quota(request):
                    row = self._ledger.enter(request)
                    self._ledger.step(row, RequestState.ACCEPTED, execution=None, reason=None)
                    self._ledger.add(Ask(row.request))
            case "cancel":
                self._receive_cancel(request, role)
            case "release":
                self._receive_release(request, role)
            case "input":
                self._receive_input(request, secret)
            case "interrupt":
                self._receive_interrupt(request)
            case "restart":
                self._ledger.hold_all("the kernel was restarted")
                self._restart_until = now + RESTART_S
                self._ledger.add(Restart(self._ledger.end_at_once(request)))
            case "annotate":
                self._ledger.add(Annotate(self._ledger.end_at_once(request)))
            case "clear":
                self._ledger.add(Clear(self._ledger.end_at_once(request)))
            case _:
                raise LocalError(f"a request of action {request.action!r} was not refused")

    def _receive_execute(self, request: Request) -> None:
        if self._is_over_quota(request):
            return
        after = request.columns["after"]
        if after is not None and self.known(after) is None:
            self._ledger.refuse(request, "after: there is no such request yet, write that one first")
            return
        row = self._ledger.enter(request)
        self._ledger.link(row, after)
        self._ledger.show(request, stored=True)
        if self._kernel is KernelState.DEAD:
            self._ledger.hold(row, "the kernel is dead")
        else:
            self._ledger.wait([row])

    def _receive_cancel(self, request: Request, role: str) -> None:
        row = self._find(request, role)
        if row is None:
            return
        if row.request.state is RequestState.ACCEPTED:
            self._ledger.refuse(request, "request: it was sent already, interrupt it")
            return
        self._ledger.end_at_once(request)
        self._ledger.end_unsent(row, ExecutionState.CANCELLED, f"cancelled by {request.by}")

    def _receive_release(self, request: Request, role: str) -> None:
        if self._kernel is KernelState.DEAD:
            self._ledger.refuse(request, "request: the kernel is dead, restart it first")
            return
        if request.columns["request"] is None:
            rows = [row for row in self._ledger.held.values() if role == _OWN or row.request.by == request.by]
        else:
            row = self._find(request, role)
            if row is None:
                return
            if row.request.state is not RequestState.HELD:
                self._ledger.refuse(request, "request: it is not held")
                return
            rows = [row]
        self._ledger.end_at_once(request)
        self._ledger.wait(rows)

    def _receive_input(self, request: Request, secret: str) -> None:
        execution, since = request.columns["execution"], request.columns["since"]
        run = self._runs.get(execution)
        if run is None:
            self._ledger.refuse(request, "execution: it is not running, so it asks nothing")
        elif since is not None and run.asks and run.asks_since != since:
            self._ledger.refuse(request, "since: that question was answered, this is another one")
        elif run.answered_by is not None:
            self._ledger.refuse(request, f"execution: it was answered by {run.answered_by}")
        elif not run.asks:
            self._ledger.refuse(request, "execution: it asks nothing now")
        else:
            run.answered_by = request.by
            self._ledger.add(Answer(self._ledger.end_at_once(request), execution, secret))

    def _receive_interrupt(self, request: Request) -> None:
        execution = request.columns["execution"]
        run = self._runs.get(execution) if execution is not None else None
        if execution is None or (run is not None and run.state is ExecutionState.RUNNING):
            self._ledger.add(Interrupt(self._ledger.end_at_once(request)))
        else:
            self._ledger.refuse(request, "execution: it is not running now, give the one that is, or null")

    def _find(self, request: Request, role: str) -> Row | None:
        """The open row that a request names and its peer may act on; refuses the request where there is none."""
        row = self._ledger.open.get(request.columns["request"])
        if row is None:
            self._ledger.refuse(request, "request: there is none of this id that has not ended")
        elif role != _OWN and row.request.by != request.by:
            self._ledger.refuse(request, "request: it is another peer's, only the role own may do that")
        else:
            return row
        return None

    def _is_over_quota(self, request: Request) -> bool:
        peer = self._ledger.turns.get(request.by)
        if peer is None or peer.open_count < self._rows_per_peer:
            return False
        self._ledger.refuse(request, f"quota: {peer.open_count} rows have not ended, wait or cancel some", stored=False)
        self._ledger.add(Close(request.by))
        return True

    def _show_known(self, request: Request, known: Request) -> None:
        """The id was used before: that row stays as it is, and runs once."""
        is_open = known.state not in REQUEST_END_STATES
        if is_open or (known.digest == request.digest and known.by == request.by):
            self._ledger.show(known, stored=is_open)
        else:
            self._ledger.refuse(request, "request_id: used before, give a new one", stored=False)

    # --- act

    @property
    def _may_send(self) -> bool:
        return self._caught_up and self._kernel not in _GONE and self._restart_until is None

    def _settle(self, now: float) -> list[Command]:
        """Send what may be sent now; returns all that is to be done."""
        if self._restart_until is not None and now >= self._restart_until:
            self._restart_until = None
            self._ledger.change_all()
        changed = self._ledger.changed
        while True:
            while changed:
                by = next(iter(changed))
                del changed[by]
                self._look_at(by)
            turns = self._ledger.turns
            waits = self._runs.is_full(now) or self._runs.must_wait(offers=turns.offers)
            row = None if waits else turns.serve()
            if row is None:
                return self._ledger.take_commands()
            self._submit(row, now)

    def _look_at(self, by: str) -> None:
        """What a peer's first row waits for, if for anything."""
        turns = self._ledger.turns
        while (peer := turns.get(by)) is not None and (row := peer.first) is not None and row.after is None:
            if row.stopped is not None:
                self._ledger.end_unsent(row, ExecutionState.ABORTED, row.stopped)
            elif not self._may_send:
                break
            elif (run := self._runs.find(row)) is not None and all(other == run.id for other in peer.runs.values()):
                self._ledger.step(row, RequestState.ACCEPTED, execution=run.id, reason=None)
                self._start(row, run)
            elif peer.stoppers:
                break
            else:
                turns.offer(row)
                return
        turns.withdraw(by)

    def _submit(self, row: Row, now: float) -> None:
        execution = self._make_id()
        self._ledger.step(row, RequestState.ACCEPTED, execution=execution, reason=None)
        run = self._runs.send(execution, row, now)
        self._start(row, run)
        self._ledger.add(Submit(row.request, execution))
        self._ledger.changed[row.request.by] = None
        self._change_joining(run)

    def _start(self, row: Row, run: Run) -> None:
        self._ledger.turns.start(row, run.id)
        run.rows.append(row)

    def _end(
        self, execution: str, state: ExecutionState, now: float, reason: str | None = None, *, stops: bool = True
    ) -> None:
        """An execution has ended, and with it the rows it stands for. ``stops``: as of :meth:`.Ledger.finish`."""
        run = self._runs.end(execution, now)
        # What waits while the kernel is on its way out came after that was known, and is meant for the next one.
        gone = self._kernel is not None and self._kernel not in _ALIVE
        leaves = self._restart_until is not None or (gone and state in _ENDS)
        for row in run.rows if run is not None else ():
            self._ledger.turns.stop(row)
            failed = "it failed" if state is ExecutionState.ERROR and row.silent else None  # no row says it
            self._ledger.finish(row, state, reason or _ENDS.get(state) or failed, stops=stops and not leaves)

    def _change_joining(self, run: Run) -> None:
        if run.key is not None:
            self._ledger.changed.update(dict.fromkeys(self._ledger.turns.find_joining(run.key)))
