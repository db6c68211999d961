"""Which executions are open, what may join them, and whether the kernel may have more."""

from __future__ import annotations

from typing import Any

import pytest
from scheduled import waiting_row as row

from rtc_kernel.agent.act.runs import Runs
from rtc_kernel.tables import ExecutionState

QUEUED, RUNNING = ExecutionState.QUEUED, ExecutionState.RUNNING


def seen(runs: Runs, execution: str, **columns: Any) -> None:
    runs.receive(execution, {"seq": 1, "state": QUEUED, "code": "x", "cell": "c", **columns})


def test_what_is_said_of_an_ended_execution_opens_no_run() -> None:
    runs = Runs(8, 0.05)
    runs.receive("e", {"metadata": {"a": 1}})
    runs.receive("e", {"input": None})
    assert runs.get("e") is None
    assert repr(runs) == "<Runs 0 open, 0 of requests, slow>"


def test_a_run_that_was_open_before_the_agent_is_known_by_what_happens_to_it() -> None:
    runs = Runs(8, 0.05)
    runs.receive("e", {"input": {"prompt": "?", "since": 5.0}})
    run = runs.get("e")
    assert run is not None
    assert (run.asks, run.key) == (True, None)
    seen(runs, "e", state=RUNNING)
    assert (run.state, run.key) == (RUNNING, ("c", "x"))


@pytest.mark.parametrize(
    ("asked", "runs_in", "joins"),
    [("n", "n", True), (None, "n", True), ("n", None, True), ("n", "m", False)],
)
def test_a_row_joins_a_run_of_no_other_notebook(asked: str | None, runs_in: str | None, joins: bool) -> None:
    runs = Runs(8, 0.05)
    seen(runs, "e", notebook=runs_in)
    assert (runs.find(row("a", 1, cell="c", notebook=asked)) is not None) is joins


def test_a_row_joins_the_latest_of_several() -> None:
    runs = Runs(8, 0.05)
    for execution in ("e1", "e2", "e3"):
        seen(runs, execution)
    wanted = row("a", 1, cell="c")
    assert runs.find(wanted) is runs.get("e3")
    runs.end("e3", 0.0)
    assert runs.find(wanted) is runs.get("e2")
    runs.end("e2", 0.0)
    runs.end("e1", 0.0)
    assert (runs.find(wanted), runs.end("e1", 0.0)) == (None, None)


def test_the_kernel_may_have_several_runs_of_ours_while_they_are_quick() -> None:
    runs = Runs(2, 0.05)
    silent = row("a", 1, silent=True)
    runs.send("e1", silent, 1.0)
    assert runs.is_full(1.0)
    runs.end("e1", 1.01)
    assert not runs.is_full(1.01)
    runs.send("e2", silent, 2.0)
    assert not runs.is_full(2.04)
    assert runs.is_full(2.06), "what is there now takes long, whatever the last one took"
    runs.send("e3", silent, 2.01)
    assert runs.is_full(2.01)
    runs.end("e2", 2.1)
    assert runs.is_full(2.1), "that one took long"
    runs.drop("e3")
    assert (runs.is_full(2.1), runs.sent) == (False, [])


def test_runs_of_frontends_say_nothing_of_quickness_and_take_no_place() -> None:
    runs = Runs(2, 0.05)
    seen(runs, "f")
    assert (runs.is_full(0.0), runs.sent) == (False, [])
    runs.end("f", 0.0)
    assert "slow" in repr(runs)
