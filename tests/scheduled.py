"""A scheduler with a clock that is set by hand, short ways to write rows, and a kernel that does as it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from rtc_kernel.agent.act.commands import Answer, Command, Put, Record, Submit
from rtc_kernel.agent.act.rows import RowLimits, read_row
from rtc_kernel.agent.act.scheduler import Scheduler
from rtc_kernel.agent.act.turns import Row
from rtc_kernel.tables import ExecutionState, KernelState, Request, RequestState


class Scheduled:
    """A scheduler, all that it has asked for, and the rows as the store would have them."""

    def __init__(self, *, caught_up: bool = True, **settings: Any) -> None:
        numbers = count(1)
        self.make_id: Callable[[], str] = lambda: f"e{next(numbers)}"
        self.settings = settings
        self.scheduler = Scheduler(make_id=self.make_id, **settings)
        self.now = 0.0
        self.ordinal = 0
        self.seq = 0
        self.rows: dict[str, Request] = {}
        self.log: list[Command] = []
        if caught_up:
            self.do(self.scheduler.receive_caught_up(self.now))

    def do(self, commands: list[Command]) -> list[Command]:
        """Take note of commands; returns them."""
        kinds = [isinstance(command, Put) for command in commands]
        assert kinds == sorted(kinds, reverse=True), "the rows to be stored stand in front"
        for command in commands:
            if isinstance(command, Put) and command.stored:
                self.rows[command.request.id] = command.request
            if isinstance(command, Submit):
                stored = self.rows[command.request.id]
                assert (stored.state, stored.execution) == (RequestState.ACCEPTED, command.execution)
        self.log += commands
        return commands

    def row(
        self, request_id: str, by: str = "ada", action: str = "execute", *, role: str = "run", **columns: Any
    ) -> list[Command]:
        """A row of a peer; an ``execute`` without ``code`` runs its own id."""
        if action == "execute":
            columns.setdefault("code", request_id)
        self.ordinal += 1
        reading = read_row(
            request_id, {"action": action, **columns}, by=by, role=role, ordinal=self.ordinal, now=self.now,
            limits=RowLimits(),
        )  # fmt: skip
        return self.do(self.scheduler.receive_row(reading.request, role=role, secret=reading.secret, now=self.now))

    def see(self, execution: str, **columns: Any) -> list[Command]:
        """Something happened to an execution's row."""
        return self.do(self.scheduler.receive_execution(execution, columns, self.now))

    def front(self, execution: str, code: str = "1", cell: str | None = None, **columns: Any) -> list[Command]:
        """A frontend asked the kernel to run something."""
        self.seq += 1
        state = ExecutionState.QUEUED
        return self.see(execution, seq=self.seq, state=state, **{"cell": cell, "code": code, **columns})

    def begin(self, *executions: str) -> None:
        """The kernel runs these."""
        for execution in executions:
            self.see(execution, state=ExecutionState.RUNNING)

    def end(self, execution: str, state: str = "ok") -> list[Command]:
        """An execution ended."""
        return self.see(execution, state=ExecutionState(state), finished_at=self.now)

    def kernel(self, state: KernelState) -> list[Command]:
        """The kernel said how it is."""
        return self.do(self.scheduler.receive_kernel(state, self.now))

    def warm(self) -> None:
        """A quick run: from now on the kernel may have several."""
        self.row("warm", "warm")
        self.end(self.execution("warm"))

    def reload(
        self,
        executions: dict[str, ExecutionState] | None = None,
        *,
        after_crash: Any = "hold",
        same_relay: bool = True,
        caught_up: bool = True,
    ) -> list[Command]:
        """The agent died and another goes on from the store."""
        self.scheduler = Scheduler(make_id=self.make_id, **self.settings)
        kept = [row for row in self.rows.values() if row.state not in (RequestState.DONE, RequestState.REFUSED)]
        commands = self.do(
            self.scheduler.load(
                kept, executions or {}, after_crash=after_crash, same_relay=same_relay, now=self.now
            )
        )  # fmt: skip
        return commands + (self.do(self.scheduler.receive_caught_up(self.now)) if caught_up else [])

    def state(self, request_id: str) -> str:
        return self.rows[request_id].state.value

    def reason(self, request_id: str) -> str:
        return self.rows[request_id].reason or ""

    def execution(self, request_id: str) -> str:
        execution = self.rows[request_id].execution
        assert execution is not None
        return execution


def sent(commands: Sequence[Command]) -> list[str]:
    """The rows that are sent, in order."""
    return [command.request.id for command in commands if isinstance(command, Submit)]


def recorded(commands: Sequence[Command]) -> list[tuple[str, str]]:
    """The rows whose execution never was, and how it is called."""
    return [(command.request.id, command.state.value) for command in commands if isinstance(command, Record)]


def shown(commands: Sequence[Command]) -> list[tuple[str, str]]:
    """The rows that are shown, and in which state."""
    return [(command.request.id, command.request.state.value) for command in commands if isinstance(command, Put)]


def answered(commands: Sequence[Command]) -> list[tuple[str, str]]:
    """Which executions are answered, and with what."""
    return [(command.execution, command.secret) for command in commands if isinstance(command, Answer)]


def waiting_row(by: str, ordinal: int, **columns: Any) -> Row:
    """A row that asks for a run of ``x``."""
    base = {
        "code": "x",
        "cell": None,
        "notebook": None,
        "on_duplicate": "coalesce",
        "user_expressions": {},
        "stop_on_error": True,
    }
    return Row(Request(id=f"{by}{ordinal}", action="execute", by=by, ordinal=ordinal, columns={**base, **columns}))
