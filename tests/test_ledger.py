"""Each step of a request is one of the table's, and what is to be done says each row once, as it is."""

from __future__ import annotations

from itertools import count

import pytest

from rtc_kernel.agent.act.commands import Put, Record
from rtc_kernel.agent.act.ledger import ENDED_KEPT, Ledger
from rtc_kernel.errors import LocalError
from rtc_kernel.tables import ExecutionState, Request, RequestState


def make() -> Ledger:
    numbers = count(1)
    return Ledger(lambda: f"e{next(numbers)}")


def request(request_id: str, ordinal: int = 1, **columns: object) -> Request:
    base = {"code": "x", "cell": None, "on_duplicate": "coalesce", "user_expressions": {}, "stop_on_error": True}
    return Request(id=request_id, action="execute", by="ada", ordinal=ordinal, columns={**base, **columns})


def test_a_row_that_takes_several_steps_is_shown_once_as_it_is_then() -> None:
    ledger = make()
    row = ledger.enter(request("a"))
    ledger.hold(row, "why")
    ledger.wait([row])
    ledger.step(row, RequestState.ACCEPTED, execution="e", reason=None)
    assert ledger.take_commands() == [Put(row.request)]
    assert (row.request.state, row.request.execution) == (RequestState.ACCEPTED, "e")
    assert (ledger.take_commands(), ledger.held) == ([], {})


def test_an_illegal_step_changes_nothing() -> None:
    ledger = make()
    row = ledger.enter(request("a"))
    ledger.hold(row, "why")
    ledger.take_commands()
    before = (repr(ledger), row.request)
    with pytest.raises(LocalError, match="no step from held to accepted"):
        ledger.step(row, RequestState.ACCEPTED, execution="e", reason=None)
    assert (repr(ledger), row.request, ledger.take_commands()) == (*before, [])


def test_what_ends_without_a_run_has_an_execution_that_says_so_unless_it_is_silent() -> None:
    ledger = make()
    loud, silent = ledger.enter(request("a")), ledger.enter(request("b", silent=True))
    for row in (loud, silent):
        ledger.end_unsent(row, ExecutionState.CANCELLED, "why")
    records = [command for command in ledger.take_commands() if isinstance(command, Record)]
    assert records == [Record("e1", loud.request, ExecutionState.CANCELLED)]
    assert (loud.request.execution, silent.request.execution) == ("e1", None)


def test_ended_requests_are_known_without_columns_and_not_for_ever() -> None:
    ledger = make()
    for number in range(ENDED_KEPT + 1):
        ledger.remember(Request(id=f"r{number}", action="cancel", by="ada", columns={"request": "x"}), None)
    assert ledger.known("r0") is None
    known = ledger.known("r1")
    assert known is not None
    assert (known.id, known.columns) == ("r1", {})


def test_a_long_chain_of_rows_that_fall_with_the_first_is_no_matter_of_depth() -> None:
    ledger = make()
    rows = [ledger.enter(request(f"r{number}", number)) for number in range(5000)]
    ledger.wait(rows)
    ledger.turns.start(rows[0], "e")
    ledger.turns.stop(rows[0])
    ledger.finish(rows[0], ExecutionState.ERROR, None)
    assert (ledger.open, ledger.turns.peers) == ({}, [])
    assert sum(isinstance(command, Record) for command in ledger.take_commands()) == 4999
