"""Rows are sent in each peer's order, in turn, at most once; and each ends or is held."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduled import Scheduled, answered, recorded, sent, shown

from rtc_kernel.agent.act.commands import Annotate, Ask, Clear, Close, Command, Interrupt, Put, Record, Restart, Submit
from rtc_kernel.agent.act.ledger import ENDED_KEPT
from rtc_kernel.agent.act.scheduler import RESTART_S, Scheduler
from rtc_kernel.errors import LocalError
from rtc_kernel.tables import (
    END_STATES,
    REQUEST_END_STATES,
    REQUEST_TRANSITIONS,
    ExecutionState,
    KernelState,
    PutExecution,
    PutKernel,
    Request,
    RequestState,
)

IDLE, BUSY, DEAD = KernelState.IDLE, KernelState.BUSY, KernelState.DEAD
STARTING, RESTARTING = KernelState.STARTING, KernelState.RESTARTING


# --- the life of a row ---------------------------------------------------------------------------------------


def test_a_row_is_accepted_and_stored_so_before_it_is_sent_and_done_with_its_execution() -> None:
    s = Scheduled()
    commands = s.row("a")
    assert [type(command) for command in commands] == [Put, Submit]
    assert shown(commands) == [("a", "accepted")]
    assert s.execution("a") == "e1"
    assert [one.id for one in s.scheduler.in_flight] == ["a"]
    s.front("e1", "a")
    s.begin("e1")
    assert shown(s.end("e1")) == [("a", "done")]
    assert s.rows["a"].reason is None
    assert s.scheduler.in_flight == ()


def test_what_the_kernel_did_not_finish_is_said_in_the_reason() -> None:
    s = Scheduled()
    s.row("a")
    s.end("e1", "aborted")
    s.row("b")
    s.end("e2", "lost")
    assert (s.reason("a"), s.reason("b")) == ("the kernel did not begin it", "it is not known how it ended")


def test_a_row_waits_while_the_kernel_has_one_that_is_not_quick() -> None:
    s = Scheduled()
    s.row("a")
    assert shown(s.row("b", "bob")) == [("b", "requested")]
    s.now = 1.0
    assert sent(s.end("e1")) == ["b"]
    assert sent(s.row("c", "cid")) == []


def test_quick_runs_of_several_peers_are_in_flight_together() -> None:
    s = Scheduled(lookahead=3)
    s.warm()
    assert [sent(s.row(f"r{i}", f"p{i}")) for i in range(5)] == [["r0"], ["r1"], ["r2"], [], []]
    s.now = 10.0
    assert sent(s.end(s.execution("r0"))) == [], "that one was slow: one at a time"
    assert sent(s.end(s.execution("r1"))) == []
    assert sent(s.end(s.execution("r2"))) == ["r3"]


def test_a_peer_has_one_run_in_flight_unless_its_rows_stop_nothing() -> None:
    s = Scheduled()
    s.warm()
    s.row("a")
    assert sent(s.row("b")) == []
    assert sent(s.end(s.execution("a"))) == ["b"]
    s.end(s.execution("b"))
    assert [sent(s.row(f"r{i}", stop_on_error=False)) for i in range(9)] == [[f"r{i}"] for i in range(8)] + [[]]


def test_a_row_waits_for_what_frontends_had_asked_for_before_its_turn() -> None:
    """It would run no sooner, could not be taken back, and would be aborted with them if one of them fails."""
    s = Scheduled()
    s.front("f1")
    s.front("f2")
    assert sent(s.row("a")) == []
    s.front("later")
    assert sent(s.row("b", "bob")) == []
    assert sent(s.end("f2", "error")) == []
    assert sent(s.end("f1")) == ["a"]
    s.front("later still")
    assert sent(s.end(s.execution("a"))) == [], "now it is bob's turn"
    assert sent(s.end("later")) == []
    assert sent(s.end("later still")) == ["b"]


def test_a_row_that_waits_for_a_frontend_can_be_taken_back() -> None:
    s = Scheduled()
    s.front("f")
    s.row("a")
    s.row("c", action="cancel", request="a")
    s.front("g")
    assert s.state("a") == "done"
    assert sent(s.end("f")) == []
    assert sent(s.row("b")) == []
    assert sent(s.end("g")) == ["b"]


def test_peers_take_turns() -> None:
    s = Scheduled()
    for i in range(1000):
        s.row(f"a{i}", "ada")
    s.row("b0", "bob")
    s.row("b1", "bob")
    s.row("c0", "cid")
    order = [s.execution("a0")]
    while s.scheduler.waiting and len(order) < 8:
        s.now += 1
        (execution,) = [s.execution(one.id) for one in s.scheduler.in_flight]
        order += sent(s.end(execution))
    assert order[1:] == ["b0", "c0", "a1", "b1", "a2", "a3", "a4"]


def test_an_illegal_step_raises_and_changes_nothing() -> None:
    s = Scheduled()
    s.row("a")
    before = (repr(s.scheduler), s.scheduler.in_flight)
    with pytest.raises(LocalError):
        s.scheduler.receive_row(Request(id="b", action="interrupt", by="ada", columns={"execution": None},
                                        state=RequestState.DONE), role="run", now=0.0)  # fmt: skip
    with pytest.raises(LocalError):
        s.scheduler.receive_row(Request(id="b", action="dance", by="ada"), role="run", now=0.0)
    assert (repr(s.scheduler), s.scheduler.in_flight) == before


def test_repr_has_the_counts() -> None:
    s = Scheduled()
    s.row("a")
    s.row("b", "bob")
    text = repr(s.scheduler)
    assert "2 open, 0 held" in text
    assert "1 of requests" in text


# --- stop_on_error and after ---------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["error", "aborted", "lost"])
def test_a_failed_run_aborts_the_rows_of_its_peer_that_wait_then(state: str) -> None:
    s = Scheduled()
    s.row("a0")
    s.row("a1", stop_on_error=False)
    s.row("a2")
    s.row("b0", "bob")
    commands = s.end("e1", state)
    assert recorded(commands) == [("a1", "aborted"), ("a2", "aborted")]
    assert [s.state(one) for one in ("a0", "a1", "a2")] == ["done"] * 3
    assert s.reason("a1") == f"not run, a0 before it ended in {state}"
    assert sent(commands) == ["b0"]
    s.end(s.execution("b0"))
    assert sent(s.row("a3")) == ["a3"], "what comes later runs"


def test_a_failed_run_that_stops_nothing_aborts_nothing() -> None:
    s = Scheduled()
    s.row("a0", stop_on_error=False)
    s.now = 1.0
    s.row("a1")
    assert sent(s.end("e1", "error")) == ["a1"]


def test_after_makes_a_row_wait_for_another_peers() -> None:
    s = Scheduled()
    s.warm()
    s.row("a0")
    s.row("a1")
    assert sent(s.row("b0", "bob", after="a1")) == []
    assert sent(s.row("b1", "bob")) == [], "its peer's order holds"
    assert sent(s.end(s.execution("a0"))) == ["a1"]
    assert sent(s.end(s.execution("a1"))) == ["b0"]


def test_after_an_ended_row_is_at_once() -> None:
    s = Scheduled()
    s.row("a")
    s.end("e1")
    assert sent(s.row("b", "bob", after="a")) == ["b"]


def test_after_a_failed_row_is_aborted_and_so_is_what_follows() -> None:
    s = Scheduled()
    s.row("a")
    s.row("b0", "bob", after="a")
    s.row("b1", "bob")
    s.row("c0", "cid", after="b1")
    s.row("d0", "dan", after="a")
    commands = s.end("e1", "error")
    assert sorted(recorded(commands)) == [(one, "aborted") for one in ("b0", "b1", "c0", "d0")]
    assert s.reason("b0") == "not run, a, after which it was to run, did not end ok"
    assert s.reason("b1") == "not run, b0 before it ended in aborted"
    assert recorded(s.row("e0", "eve", after="a")) == [("e0", "aborted")], "also when it had failed before"
    s.row("f0", "fay", stop_on_error=False)
    s.end(s.execution("f0"), "error")
    assert sent(s.row("f1", "gus", after="f0")) == ["f1"], "which stopped nothing"


def test_after_a_row_that_was_taken_back_or_refused_is_aborted() -> None:
    s = Scheduled()
    s.row("a0")
    s.row("a1")
    s.row("b0", "bob", after="a1")
    assert recorded(s.row("x", action="cancel", request="a1")) == [("a1", "cancelled"), ("b0", "aborted")]
    s.row("bad", nonsense=1)
    assert recorded(s.row("c0", "cid", after="bad")) == [("c0", "aborted")]


def test_after_what_does_not_exist_or_comes_later_is_refused() -> None:
    """So there are no circles: each row of one would have to be written before the other."""
    s = Scheduled()
    s.row("a", after="b")
    s.row("b", "bob", after="a")
    s.row("c", after="c")
    assert [s.state(one) for one in "abc"] == ["refused", "done", "refused"]
    assert s.reason("a").startswith("after: there is no such request yet")


def test_after_a_request_of_long_ago_is_what_the_store_says_of_it() -> None:
    def after(state: ExecutionState | None, request_state: RequestState = RequestState.DONE) -> str:
        s = Scheduled()
        old = Request(id="old", action="execute", by="ada", execution="e0", state=request_state)
        reading = Request(id="new", action="execute", by="ada", ordinal=9, columns={
            "code": "1", "cell": None, "notebook": None, "after": "old", "on_duplicate": "coalesce",
            "stop_on_error": True, "allow_stdin": True, "silent": False, "user_expressions": {},
        })  # fmt: skip
        s.do(s.scheduler.receive_row(reading, role="run", now=0.0, after=(old, state)))
        return s.state("new")

    assert after(ExecutionState.OK) == "accepted"
    assert after(ExecutionState.ERROR) == "done"
    assert after(None) == "accepted"
    assert after(None, RequestState.REFUSED) == "done"


def test_two_peers_cannot_wait_for_each_other() -> None:
    s = Scheduled()
    s.warm()
    s.row("k", "kim")  # so that all others wait
    s.row("a0", after="k")
    s.row("b0", "bob", after="a0")
    s.row("a1", after="b0")
    s.row("b1", "bob", after="a1")
    order: list[str] = []
    for one in ("k", "a0", "b0", "a1", "b1"):
        order += sent(s.end(s.execution(one)))
    assert order == ["a0", "b0", "a1", "b1"]


# --- on_duplicate --------------------------------------------------------------------------------------------


def test_two_peers_who_ask_for_the_same_get_one_run() -> None:
    s = Scheduled()
    s.row("k", "kim")
    s.row("a", code="x += 1", cell="c")
    s.row("b", "bob", code="x += 1", cell="c")
    assert [s.state("a"), s.state("b")] == ["requested", "requested"]
    commands = s.end("e1")
    assert sent(commands) == ["a"]
    assert s.execution("a") == s.execution("b")
    s.row("d", "dan", code="x += 1", cell="c")
    assert s.execution("d") == s.execution("a")
    assert sorted(shown(s.end(s.execution("a")))) == [("a", "done"), ("b", "done"), ("d", "done")]
    assert sent(s.row("e", "eve", code="x += 1", cell="c")) == ["e"], "that run has ended"


def test_with_queue_there_are_two_runs_in_the_order_of_the_rows() -> None:
    s = Scheduled()
    s.row("a", code="x += 1", cell="c")
    s.row("b", "bob", code="x += 1", cell="c", on_duplicate="queue")
    assert sent(s.end(s.execution("a"))) == ["b"]
    assert s.execution("a") != s.execution("b")


@pytest.mark.parametrize(
    "columns",
    [{"cell": None}, {"silent": True}, {"user_expressions": {"a": "x"}}, {"code": "y"}, {"cell": "d"},
     {"notebook": "other.ipynb"}],
)  # fmt: skip
def test_what_is_not_the_same_runs_again(columns: dict[str, Any]) -> None:
    s = Scheduled()
    s.warm()
    base = {"code": "x", "cell": "c", "notebook": "own.ipynb"}
    s.row("a", **base)
    assert sent(s.row("b", "bob", **{**base, **columns})) == ["b"]


def test_a_row_joins_what_a_frontend_runs() -> None:
    s = Scheduled()
    s.front("f", "x", "c", notebook="own.ipynb")
    s.begin("f")
    assert shown(s.row("a", code="x", cell="c")) == [("a", "accepted")]
    assert s.execution("a") == "f"
    assert shown(s.row("b", "bob", code="x", cell="d")) == [("b", "requested")]
    assert shown(s.end("f", "error")) == [("a", "done"), ("b", "accepted")]


def test_a_waiting_row_joins_what_a_frontend_then_asks_for() -> None:
    s = Scheduled()
    s.row("k", "kim")
    s.row("a", code="x", cell="c")
    assert shown(s.front("f", "x", "c")) == [("a", "accepted")]


def test_a_private_run_is_not_joined() -> None:
    s = Scheduled()
    s.front("f", "", "c", private=True)
    assert shown(s.row("a", code="", cell="c")) == [("a", "requested")]
    assert sent(s.end("f")) == ["a"]


def test_a_row_does_not_overtake_its_peers_to_join() -> None:
    """Run a cell, another, and the first again: that is three runs."""
    s = Scheduled()
    s.row("a0", code="x", cell="c")
    s.row("a1", code="y", cell="d")
    s.row("a2", code="x", cell="c")
    assert sent(s.end(s.execution("a0"))) == ["a1"]
    assert sent(s.end(s.execution("a1"))) == ["a2"]


def test_the_same_row_twice_in_a_row_is_one_run() -> None:
    s = Scheduled()
    s.row("a0", code="x", cell="c")
    s.row("a1", code="x", cell="c")
    s.row("a2", code="y", cell="d")
    assert s.execution("a1") == s.execution("a0")
    assert sent(s.end(s.execution("a0"))) == ["a2"]


def test_a_row_behind_another_of_its_peer_joins_when_its_turn_comes() -> None:
    s = Scheduled()
    s.row("a", code="x", cell="c")
    s.row("b0", "bob")
    s.row("b1", "bob", code="z", cell="c")
    s.end(s.execution("a"))
    s.front("f", "z", "c")
    s.row("b2", "bob")
    assert s.state("b1") == "requested"
    assert shown(s.end(s.execution("b0"))) == [("b0", "done"), ("b1", "accepted")]
    assert s.execution("b1") == "f"


def test_cancelling_the_first_lets_the_other_take_its_place() -> None:
    s = Scheduled()
    s.row("k", "kim")
    s.row("a", code="x", cell="c")
    s.row("b", "bob", code="x", cell="c")
    s.row("x", action="cancel", request="a")
    assert sent(s.end("e1")) == ["b"]


def test_who_joined_a_run_that_fails_has_its_own_rows_aborted() -> None:
    s = Scheduled()
    s.row("a", code="x", cell="c")
    s.row("b0", "bob", code="x", cell="c")
    s.row("b1", "bob")
    assert recorded(s.end(s.execution("a"), "error")) == [("b1", "aborted")]


# --- cancel, release, interrupt, restart ----------------------------------------------------------------------


def test_cancel_takes_back_what_was_not_sent() -> None:
    s = Scheduled()
    s.row("a0")
    s.row("a1")
    commands = s.row("x", action="cancel", request="a1")
    assert shown(commands) == [("x", "done"), ("a1", "done")]
    assert recorded(commands) == [("a1", "cancelled")]
    assert s.reason("a1") == "cancelled by ada"
    assert s.execution("a1")
    for request_id, reason in {
        "a0": "request: it was sent already, interrupt it",
        "a1": "request: there is none of this id that has not ended",
        "none": "request: there is none of this id that has not ended",
    }.items():
        s.row(f"x-{request_id}", action="cancel", request=request_id)
        assert (s.state(f"x-{request_id}"), s.reason(f"x-{request_id}")) == ("refused", reason)


def test_only_own_cancels_and_releases_rows_of_others() -> None:
    s = Scheduled()
    s.row("k", "kim")
    s.row("a")
    s.row("x1", "bob", "cancel", request="a")
    assert s.reason("x1") == "request: it is another peer's, only the role own may do that"
    s.row("x2", "bob", "cancel", role="own", request="a")
    assert s.reason("a") == "cancelled by bob"
    s.row("b")
    s.reload({"e1": ExecutionState.RUNNING})
    s.row("x3", "bob", "release", request="b")
    assert s.state("x3") == "refused"
    s.row("x4", "bob", "release")
    assert (s.state("x4"), s.state("b")) == ("done", "held"), "null: all of one's own"
    s.row("x5", "bob", "release", role="own")
    assert s.state("b") == "requested"


def test_released_rows_go_on_in_the_order_in_which_they_came() -> None:
    s = Scheduled()
    s.row("k", "kim")
    for i in range(4):
        s.row(f"a{i}")
    s.reload({"e1": ExecutionState.RUNNING})
    assert [one.id for one in s.scheduler.held] == ["a0", "a1", "a2", "a3"]
    assert s.reason("a0") == "the agent was restarted, release or cancel it"
    s.row("a4")
    s.row("r1", action="release", request="a2")
    s.row("x", action="cancel", request="a1")
    s.row("r2", action="release")
    assert [one.id for one in s.scheduler.waiting] == ["a0", "a2", "a3", "a4"]
    assert s.rows["a0"].reason is None
    order: list[str] = []
    for one in ("k", "a0", "a2", "a3"):
        order += sent(s.end(s.execution(one)))
    assert order == ["a0", "a2", "a3", "a4"]


def test_a_row_is_released_once() -> None:
    s = Scheduled()
    s.row("a")
    s.reload()
    assert sent(s.row("r1", action="release")) == ["a"]
    assert shown(s.row("r2", action="release")) == [("r2", "done")]


def test_release_of_what_is_not_held_is_refused() -> None:
    s = Scheduled()
    s.row("a")
    s.row("r1", action="release", request="a")
    s.row("r2", action="release", request="none")
    assert (s.reason("r1"), s.state("r2")) == ("request: it is not held", "refused")


def test_interrupt_hits_what_runs_and_nothing_that_came_after_it() -> None:
    s = Scheduled()
    s.row("a")
    commands = s.row("i0", "bob", "interrupt")
    assert [type(command) for command in commands] == [Put, Interrupt]
    assert s.state("i0") == "done"
    s.row("i1", "bob", "interrupt", execution="e1")
    assert s.state("i1") == "refused", "it has not begun"
    s.begin("e1")
    assert any(isinstance(one, Interrupt) for one in s.row("i2", "bob", "interrupt", execution="e1"))
    s.end("e1")
    s.row("i3", "bob", "interrupt", execution="e1")
    assert s.reason("i3").startswith("execution: it is not running now")


def test_interrupt_waits_behind_nothing() -> None:
    s = Scheduled()
    for i in range(100):
        s.row(f"a{i}")
    assert any(isinstance(one, Interrupt) for one in s.row("i", action="interrupt"))


def test_restart_holds_what_waits_and_what_comes_then_is_for_the_new_kernel() -> None:
    s = Scheduled()
    s.kernel(BUSY)
    s.row("a0")
    s.row("a1")
    commands = s.row("r", action="restart")
    assert any(isinstance(one, Restart) for one in commands)
    assert (s.state("r"), s.state("a1"), s.reason("a1")) == (
        "done", "held", "the kernel was restarted, release or cancel it",
    )  # fmt: skip
    s.row("a2")
    s.now = 1.0
    assert sent(s.kernel(IDLE)) == [], "the old one is through with something"
    assert sent(s.kernel(RESTARTING)) == []
    assert shown(s.end("e1", "lost")) == [("a0", "done")]
    assert s.state("a2") == "requested"
    assert sent(s.kernel(STARTING)) == ["a2"]


def test_a_run_that_a_restart_ends_stops_nothing_that_is_for_the_new_kernel() -> None:
    s = Scheduled()
    s.kernel(BUSY)
    s.row("a0")
    s.row("r", action="restart")
    s.row("a1")
    s.end("e1", "error")
    s.kernel(RESTARTING)
    assert sent(s.kernel(STARTING)) == ["a1"]


def test_who_has_waited_longest_is_first_when_the_kernel_is_back() -> None:
    s = Scheduled()
    s.row("q", action="query", target="t")
    s.kernel(RESTARTING)
    s.row("b", "bob")
    s.row("a")
    assert sent(s.kernel(STARTING)) == ["b"]


def test_a_restart_that_never_comes_is_not_waited_for_for_ever() -> None:
    s = Scheduled()
    s.row("r", action="restart")
    assert sent(s.row("a")) == []
    s.now = RESTART_S
    assert sent(s.row("b", "bob")) == ["a"]


def test_a_kernel_that_died_is_sent_nothing() -> None:
    s = Scheduled()
    s.kernel(BUSY)
    s.row("a0")
    s.row("a1")
    s.row("b0", "bob")
    ended = {"state": ExecutionState.LOST}
    commands = s.do(
        s.scheduler.receive_changes([PutExecution("e1", ended), PutKernel("k", {"state": DEAD}), PutKernel("k", {})], 1)
    )
    assert sent(commands) == []
    assert [s.state(one) for one in ("a0", "a1", "b0")] == ["done", "held", "held"]
    assert s.reason("b0") == "the kernel died, release or cancel it"
    s.row("a2")
    assert s.reason("a2") == "the kernel is dead, release or cancel it"
    s.row("r1", action="release")
    assert s.reason("r1") == "request: the kernel is dead, restart it first"
    s.kernel(RESTARTING)
    s.kernel(STARTING)
    assert sent(s.row("r2", action="release")) == ["a1"]


def test_a_restart_brings_a_dead_kernel_back() -> None:
    s = Scheduled()
    s.kernel(DEAD)
    s.row("r", action="restart")
    assert sent(s.kernel(STARTING)) == []
    assert sent(s.row("a")) == ["a"]


def test_a_kernel_that_was_replaced_unseen_holds_what_waits() -> None:
    s = Scheduled()
    s.kernel(STARTING)
    s.row("a")
    s.row("b")
    s.kernel(IDLE)
    assert s.state("b") == "requested"
    s.kernel(STARTING)
    assert s.state("b") == "held"


# --- silent, input, queries, the rest --------------------------------------------------------------------------


def test_a_silent_run_ends_with_its_reply() -> None:
    s = Scheduled()
    s.row("a", silent=True)
    s.row("b")
    s.do(s.scheduler.receive_reply("none", "ok", 0.0))
    assert sent(s.do(s.scheduler.receive_reply("e1", "ok", 0.0))) == ["b"]
    s.do(s.scheduler.receive_reply("e2", "ok", 0.0))
    assert (s.state("a"), s.state("b")) == ("done", "accepted"), "the other one has a row that says how it ended"


def test_a_silent_run_that_fails_stops_its_peers_rows_and_leaves_no_record() -> None:
    s = Scheduled()
    s.row("a", silent=True)
    s.row("b", silent=True)
    s.row("c")
    commands = s.do(s.scheduler.receive_reply("e1", "error", 0.0))
    assert recorded(commands) == [("c", "aborted")]
    assert (s.state("b"), s.rows["b"].execution) == ("done", None)


def test_a_silent_run_ends_with_its_kernel() -> None:
    s = Scheduled()
    s.kernel(BUSY)
    s.row("a", silent=True)
    s.kernel(RESTARTING)
    assert (s.state("a"), s.reason("a")) == ("done", "the kernel was restarted")


def test_the_first_answer_wins() -> None:
    s = Scheduled()
    s.row("a")
    s.front("e1", "a")
    s.begin("e1")
    s.row("i0", "bob", "input", execution="e1", value="early")
    assert s.reason("i0") == "execution: it asks nothing now"
    s.see("e1", input={"prompt": "?", "password": True, "since": 1.0})
    assert answered(s.row("i1", "bob", "input", execution="e1", value="hunter2")) == [("e1", "hunter2")]
    s.row("i2", "cid", "input", execution="e1", value="other")
    assert (s.state("i2"), s.reason("i2")) == ("refused", "execution: it was answered by bob")
    s.see("e1", input=None)
    s.row("i3", "cid", "input", execution="e1", value="other")
    assert s.reason("i3") == "execution: it was answered by bob"
    s.see("e1", input={"prompt": "again?", "password": False, "since": 2.0})
    s.row("i7", "cid", "input", execution="e1", value="other", since=1.0)
    assert s.reason("i7") == "since: that question was answered, this is another one"
    assert answered(s.row("i4", "cid", "input", execution="e1", value="yes", since=2.0)) == [("e1", "yes")]
    s.see("e1", input={"prompt": "and?", "password": False, "since": 3.0})
    s.see("e1", input=None)
    s.row("i5", "cid", "input", execution="e1", value="late")
    assert s.reason("i5") == "execution: it asks nothing now", "a frontend answered that one"
    s.end("e1")
    s.row("i6", "cid", "input", execution="e1", value="late")
    assert s.reason("i6") == "execution: it is not running, so it asks nothing"
    assert "hunter2" not in repr((s.log, s.rows, s.scheduler))


def test_a_query_is_open_until_it_is_answered() -> None:
    s = Scheduled()
    commands = s.row("q", action="query", target="t", input={"a": 1})
    assert [type(command) for command in commands] == [Put, Ask]
    assert (s.state("q"), s.scheduler.in_flight) == ("accepted", ())
    s.row("x", action="cancel", request="q")
    assert s.state("x") == "refused"
    s.do(s.scheduler.receive_query("q", False, "the kernel has no such target", 0.0))
    assert (s.state("q"), s.reason("q")) == ("done", "the kernel has no such target")
    assert s.do(s.scheduler.receive_query("q", True, None, 0.0)) == []


def test_annotate_and_clear_are_done_at_once() -> None:
    s = Scheduled()
    assert isinstance(s.row("a", action="annotate", execution="e", key="k", value=1)[1], Annotate)
    assert isinstance(s.row("c", action="clear", role="own", before=5.0)[1], Clear)
    assert s.state("a") == s.state("c") == "done"


def test_rows_of_a_link_that_was_withdrawn_are_cancelled() -> None:
    s = Scheduled()
    s.row("k", "kim")
    s.row("a0")
    s.reload({"e1": ExecutionState.RUNNING})
    s.row("a1")
    s.row("b", "bob")
    commands = s.do(s.scheduler.receive_revoked("ada", 0.0))
    assert recorded(commands) == [("a0", "cancelled"), ("a1", "cancelled")]
    assert s.reason("a0") == "the link of ada was withdrawn"
    assert sent(s.end("e1")) == ["b"]


# --- ids and quota ---------------------------------------------------------------------------------------------


def test_the_same_row_again_is_shown_as_it_is_and_runs_once() -> None:
    s = Scheduled()
    s.row("a")
    assert shown(s.row("a")) == [("a", "accepted")]
    s.end("e1")
    assert s.row("a") == [Put(s.scheduler.known("a"), stored=False)]  # type: ignore[arg-type]
    assert s.state("a") == "done"
    s.row("i", action="interrupt")
    assert shown(s.row("i", action="interrupt")) == [("i", "done")]
    assert sum(isinstance(one, Interrupt) for one in s.log) == 1


def test_an_id_that_was_used_before_is_not_another_row() -> None:
    s = Scheduled()
    s.row("a")
    assert shown(s.row("a", code="other")) == [("a", "accepted")], "the row that is there stays"
    assert shown(s.row("a", "bob", code="a")) == [("a", "accepted")]
    s.end("e1")
    for commands in (s.row("a", code="other"), s.row("a", "bob", code="a"), s.row("a", code=5)):
        (put,) = commands
        assert isinstance(put, Put)
        assert (put.request.state, put.stored) == (RequestState.REFUSED, False)
        assert put.request.reason == "request_id: used before, give a new one"
    assert s.state("a") == "done"


def test_an_id_of_long_ago_is_what_the_store_says() -> None:
    s = Scheduled()
    s.row("a")
    s.end("e1")
    again = s.rows["a"]
    fresh = Scheduled()
    request = Request(id="a", action="execute", by="ada", digest=again.digest, columns={"code": "a"})
    assert fresh.do(fresh.scheduler.receive_row(request, role="run", now=0.0, known=again)) == [Put(again, False)]


def test_ended_rows_are_remembered_up_to_a_number() -> None:
    s = Scheduled()
    for i in range(ENDED_KEPT + 1):
        s.row(f"i{i}", action="interrupt")
    assert s.scheduler.known("i0") is None
    known = s.scheduler.known("i1")
    assert known is not None
    assert known.columns == {}


def test_a_refused_row_is_stored_unless_its_id_cannot_be() -> None:
    s = Scheduled()
    assert s.row("a", nonsense=1) == [Put(s.rows["a"])]
    assert shown(s.row("a", nonsense=1)) == [("a", "refused")]
    (put,) = s.row("a\n")
    assert isinstance(put, Put)
    assert (put.stored, s.scheduler.known("a\n")) == (False, None)


def test_a_peer_over_its_quota_is_refused_and_closed() -> None:
    s = Scheduled(rows_per_peer=3)
    for i in range(3):
        s.row(f"a{i}")
    put, close = s.row("a3")
    assert isinstance(put, Put)
    assert (put.request.state, put.stored, close) == (RequestState.REFUSED, False, Close("ada"))
    assert put.request.reason == "quota: 3 rows have not ended, wait or cancel some"
    assert s.row("q", action="query", target="t")[1:] == [Close("ada")]
    assert sent(s.row("b", "bob")) == []
    s.row("x", action="cancel", request="a2")
    assert shown(s.row("a3")) == [("a3", "requested")], "it may come again"


# --- after a crash ----------------------------------------------------------------------------------------------


def test_after_a_crash_nothing_is_sent_before_the_feed_has_caught_up() -> None:
    s = Scheduled()
    s.row("a0")
    s.row("a1")
    assert sent(s.reload(after_crash="resume", caught_up=False)) == []
    assert sent(s.row("b", "bob")) == []
    assert s.state("a0") == "accepted"
    commands = s.do(s.scheduler.receive_caught_up(0.0))
    assert sent(commands) == ["a0"], "which never reached the kernel"
    assert s.execution("a0") == "e2"
    assert s.scheduler.receive_caught_up(0.0) == []
    assert [one.id for one in s.scheduler.waiting] == ["a1", "b"]


@pytest.mark.parametrize(("after_crash", "states"), [("hold", ["held", "held"]), ("drop", ["done", "done"])])
def test_what_never_reached_the_kernel_is_treated_as_what_waited(after_crash: str, states: list[str]) -> None:
    s = Scheduled()
    s.row("a0")
    s.row("a1")
    commands = s.reload(after_crash=after_crash)
    assert [s.state(one) for one in ("a0", "a1")] == states
    if after_crash == "drop":
        assert sorted(recorded(commands)) == [("a0", "cancelled"), ("a1", "cancelled")]
        assert s.reason("a0") == "dropped, the agent was restarted"


def test_what_the_replay_shows_was_sent_goes_on() -> None:
    s = Scheduled()
    s.row("a0", code="x", cell="c")
    s.row("b0", "bob", code="x", cell="c")
    s.reload(caught_up=False)
    s.front("e1", "x", "c")
    s.do(s.scheduler.receive_caught_up(0.0))
    assert [s.state(one) for one in ("a0", "b0")] == ["accepted", "accepted"]
    s.end("e1")
    assert [s.state(one) for one in ("a0", "b0")] == ["done", "done"]


def test_what_the_store_knows_of_executions_is_taken_up() -> None:
    s = Scheduled()
    s.warm()
    s.row("a")
    s.row("b", "bob")
    s.row("c", "cid")
    a, b = s.execution("a"), s.execution("b")
    s.reload({a: ExecutionState.OK, b: ExecutionState.RUNNING}, same_relay=False)
    assert [s.state(one) for one in "abc"] == ["done", "accepted", "done"]
    assert any(isinstance(one, Interrupt) for one in s.row("i", action="interrupt", execution=b))


def test_what_ended_while_the_agent_was_away_was_not_quick() -> None:
    s = Scheduled()
    s.row("a")
    s.now = 5.0
    s.reload({"e1": ExecutionState.OK})
    assert sent(s.row("b", "bob")) + sent(s.row("c", "cid")) == ["b"]


def test_with_a_new_relay_nobody_knows_whether_it_ran() -> None:
    s = Scheduled()
    s.row("a0", code="x", cell="c")
    s.row("b0", "bob", code="x", cell="c")
    s.row("s", "sue", silent=True)
    s.row("a1")
    commands = s.reload(same_relay=False)
    assert recorded(commands) == [("a0", "lost")], "one row for the one execution"
    assert [s.state(one) for one in ("a0", "b0", "a1", "s")] == ["done", "done", "held", "held"]
    assert s.reason("b0") == "it is not known how it ended"


@pytest.mark.parametrize("same_relay", [True, False])
def test_of_a_silent_run_nobody_knows(same_relay: bool) -> None:
    s = Scheduled()
    s.row("a", silent=True)
    commands = s.reload(same_relay=same_relay, after_crash="resume")
    assert (s.state("a"), recorded(commands), sent(commands)) == ("done", [], [])


def test_rows_that_were_held_stay_so_and_ended_ones_are_known() -> None:
    s = Scheduled()
    s.row("a")
    s.end("e1")
    s.row("k", "kim")
    s.row("b")
    s.row("c", "cid", after="b")
    s.reload({"e2": ExecutionState.RUNNING})
    s.reload({"e2": ExecutionState.RUNNING}, after_crash="resume")
    assert [one.id for one in s.scheduler.held] == ["b", "c"]
    scheduler = Scheduler(make_id=s.make_id)
    scheduler.load(list(s.rows.values()), {"e1": ExecutionState.OK}, after_crash="drop", same_relay=True, now=0.0)
    assert scheduler.known("a") is not None
    s.row("r", "cid", "release")
    assert sent(s.end("e2")) == [], "c waits for b, which is held"
    assert sent(s.row("rb", action="release")) == ["b"]
    assert sent(s.end(s.execution("b"))) == ["c"]


def test_a_question_that_was_open_has_to_be_asked_again() -> None:
    s = Scheduled()
    s.row("q", action="query", target="t")
    s.reload()
    assert (s.state("q"), s.reason("q")) == ("done", "the agent was restarted before it ended, ask again")


def test_a_run_that_failed_while_the_agent_was_away_stops_what_is_resumed() -> None:
    s = Scheduled()
    s.row("a0")
    s.row("a1")
    commands = s.reload({"e1": ExecutionState.ERROR}, after_crash="resume")
    assert recorded(commands) == [("a1", "aborted")]


@pytest.mark.parametrize("executions", [{}, {"e1": ExecutionState.LOST}], ids=["never seen", "stored as lost"])
def test_a_run_that_was_lost_with_the_kernel_does_not_stop_what_is_resumed(
    executions: dict[str, ExecutionState],
) -> None:
    s = Scheduled()
    s.row("a0")
    s.row("a1")
    commands = s.reload(executions, same_relay=False, after_crash="resume")
    assert (s.state("a0"), sent(commands), s.state("a1")) == ("done", ["a1"], "accepted")


# --- properties ---------------------------------------------------------------------------------------------------


PEERS = ("ada", "bob", "cid")
NUMBER = st.integers(0, 30)
EXECUTE = st.tuples(
    st.just("execute"),
    st.sampled_from(PEERS),
    st.none() | NUMBER,
    st.fixed_dictionaries(
        {},
        optional={
            "stop_on_error": st.booleans(),
            "silent": st.booleans(),
            "cell": st.sampled_from(["c", "d"]),
            "code": st.sampled_from(["x", "y"]),
            "on_duplicate": st.sampled_from(["coalesce", "queue"]),
        },
    ),
)
WORK = st.tuples(st.just("work"), st.sampled_from(["ok", "ok", "ok", "error", "aborted"]))
CRASH = st.tuples(st.just("crash"), st.sampled_from(["hold", "resume", "drop"]), st.booleans(), st.booleans())
OPERATIONS = st.one_of(
    *(EXECUTE, EXECUTE, EXECUTE, WORK, WORK, WORK, WORK, CRASH),
    st.tuples(st.just("again"), NUMBER),
    st.tuples(st.just("cancel"), st.sampled_from(PEERS), NUMBER),
    st.tuples(st.just("release"), st.sampled_from(PEERS)),
    st.tuples(st.just("front"), st.sampled_from(["c", "d"]), st.sampled_from(["x", "y"])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 1.0])),
    st.tuples(st.just("revoke"), st.sampled_from(PEERS)),
    st.tuples(st.just("restart"), st.booleans()),
    st.tuples(st.just("die")),
)


class World(Scheduled):
    """A scheduler, a kernel that runs one thing after another, a store, and all that must always hold."""

    def __init__(self) -> None:
        super().__init__(lookahead=3, rows_per_peer=8)
        self.queue: deque[str] = deque()  # what the kernel has, the first one running
        self.silent: set[str] = set()
        self.executions: dict[str, ExecutionState] = {}  # as the mirror has told the store
        self.ran: dict[str, int] = {}
        self.written: list[tuple[str, str, dict[str, Any]]] = []
        self.was_held: set[str] = set()
        self.last_sent: dict[str, int] = {}
        self.lossy = False

    def do(self, commands: list[Command]) -> list[Command]:
        for command in commands:
            if isinstance(command, Put) and command.stored:
                self.check_step(command.request)
        kept = [command for command in commands if isinstance(command, Put) or not self.lossy]
        super().do(kept)
        for command in kept:
            match command:
                case Submit(request, execution):
                    self.check_submit(request)
                    self.queue.append(execution)
                    if request.columns["silent"]:
                        self.silent.add(execution)
                case Record(execution, _, state):
                    assert execution not in self.executions
                    self.executions[execution] = state
                    super().do(self.scheduler.receive_execution(execution, {"seq": 1, "state": state}, self.now))
        return commands

    def check_step(self, request: Request) -> None:
        before = self.rows.get(request.id)
        if before is None:
            assert request.state is not RequestState.DONE or request.action != "execute" or request.reason
        elif before != request and before.state is not request.state:
            steps = REQUEST_TRANSITIONS
            direct = request.state in steps[before.state]
            assert direct or any(request.state in steps[between] for between in steps[before.state])
        if request.state is RequestState.HELD:
            self.was_held.add(request.id)

    def check_submit(self, request: Request) -> None:
        self.ran[request.id] = self.ran.get(request.id, 0) + 1
        assert self.ran[request.id] == 1, "at most once"
        if request.id not in self.was_held:
            assert request.ordinal > self.last_sent.get(request.by, 0), "in its peer's order"
            self.last_sent[request.by] = request.ordinal
        others = [
            self.rows[one.id] for one in self.scheduler.in_flight if one.by == request.by and one.id != request.id
        ]
        for other in others:
            later = other.ordinal > request.ordinal
            assert later or not other.columns["stop_on_error"], "one at a time, where an error would stop the next"

    def check(self) -> None:
        executions = {str(one.execution) for one in self.scheduler.in_flight}
        assert sum(not one.startswith("f") for one in executions) <= 3, "no more than the lookahead"
        open_rows = {one.id for one in self.rows.values() if one.state not in REQUEST_END_STATES}
        known = (*self.scheduler.waiting, *self.scheduler.held, *self.scheduler.in_flight)
        assert open_rows == {one.id for one in known}, "no row is lost"
        for one in known:
            assert self.rows[one.id] == one, "what is shown is what is so"

    # --- what may happen

    def work(self, end: str) -> None:
        """The kernel ends what it runs, or begins what is first."""
        if not self.queue:
            return
        execution = self.queue[0]
        if execution in self.silent:
            self.queue.popleft()
            self.do(self.scheduler.receive_reply(execution, end, self.now))
        elif execution not in self.executions:
            row = next((one for one in self.rows.values() if one.execution == execution), None)
            columns = row.columns if row else {}
            self.executions[execution] = ExecutionState.RUNNING
            self.see(execution, seq=1, state=ExecutionState.QUEUED, code=columns.get("code"), cell=columns.get("cell"))
            self.begin(execution)
        else:
            self.queue.popleft()
            self.executions[execution] = ExecutionState(end)
            self.end(execution, end)

    def lose_kernel(self, state: KernelState) -> None:
        """The kernel's life is over, with all that it had."""
        lost = [one for one in self.executions if self.executions[one] not in END_STATES]
        lost += [one for one in self.queue if one not in self.executions and one not in self.silent]
        self.queue.clear()
        self.executions.update(dict.fromkeys(lost, ExecutionState.LOST))
        ends = [PutExecution(one, {"state": ExecutionState.LOST}) for one in lost]
        self.do(self.scheduler.receive_changes([*ends, PutKernel("k", {"state": state})], self.now))

    def crash(self, after_crash: str, same_relay: bool, in_between: bool) -> None:
        """The agent dies; perhaps what it last stored was never done."""
        if in_between:
            self.lossy = True
            self.now += 1
            self.work("ok")
            self.lossy = False
        if not same_relay:
            lost = {one: ExecutionState.LOST for one, state in self.executions.items() if state not in END_STATES}
            self.executions.update(lost)
            self.queue.clear()
        self.reload(dict(self.executions), after_crash=after_crash, same_relay=same_relay, caught_up=False)
        for execution in list(self.queue) if same_relay else ():
            if execution not in self.executions and execution not in self.silent:
                self.executions[execution] = ExecutionState.QUEUED
                self.see(execution, seq=1, state=ExecutionState.QUEUED)
        self.do(self.scheduler.receive_caught_up(self.now))
        self.do(self.scheduler.receive_kernel(IDLE, self.now))

    def recent(self, number: int) -> str:
        """One of the last rows, or one that does not exist."""
        return f"r{len(self.written) - number % 6}"

    def happen(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case "execute", by, after, columns:
                request_id = f"r{len(self.written)}"
                if after is not None:
                    columns = {**columns, "after": self.recent(after)}
                self.written.append((request_id, by, columns))
                self.row(request_id, by, **columns)
            case "again", number if self.written:
                request_id, by, columns = self.written[number % len(self.written)]
                if (known := self.rows.get(request_id)) is not None and self.scheduler.known(request_id) is None:
                    return  # the store would know it
                self.row(request_id, by, **columns)
                assert known is None or self.rows[request_id].ordinal == known.ordinal
            case "cancel", by, number:
                self.row(f"x{self.ordinal}", by, "cancel", request=self.recent(number))
            case "release", by:
                self.row(f"x{self.ordinal}", by, "release")
            case "front", cell, code:
                execution = f"f{len(self.executions)}"
                self.queue.append(execution)
                self.executions[execution] = ExecutionState.QUEUED
                self.front(execution, code, cell)
            case "work", end:
                self.work(end)
            case "wait", seconds:
                self.now += seconds
            case "revoke", by:
                self.do(self.scheduler.receive_revoked(by, self.now))
            case "restart", asked:
                if asked:
                    self.row(f"x{self.ordinal}", action="restart")
                self.lose_kernel(RESTARTING)
                self.kernel(STARTING)
                self.kernel(IDLE)
            case ("die",):
                self.lose_kernel(DEAD)
                self.kernel(STARTING)
                self.kernel(IDLE)
            case "crash", after_crash, same_relay, in_between:
                self.crash(after_crash, same_relay, in_between)

    def drain(self) -> None:
        while self.queue:
            self.work("ok")


@settings(max_examples=300)
@given(operations=st.lists(OPERATIONS, min_size=20, max_size=80))
def test_whatever_happens_each_row_runs_at_most_once_in_order_and_ends_or_is_held(
    operations: list[tuple[Any, ...]],
) -> None:
    world = World()
    world.kernel(IDLE)
    for operation in operations:
        world.happen(operation)
        world.check()
    world.drain()
    held = {one.id for one in world.scheduler.held}
    assert held or not world.scheduler.waiting, "with nothing held, nothing waits for a kernel that is idle"
    world.row("all", action="release", role="own")
    world.drain()
    world.check()
    assert (world.scheduler.waiting, world.scheduler.held, world.scheduler.in_flight) == ((), (), ())
    assert "0 open, 0 held" in repr(world.scheduler)


@given(peers=st.lists(st.integers(0, 6), min_size=1, max_size=80), lookahead=st.integers(1, 8))
def test_a_first_row_waits_for_one_row_of_each_other_peer_and_for_the_lookahead(
    peers: list[int], lookahead: int
) -> None:
    s = Scheduled(lookahead=lookahead)
    s.warm()
    sends: list[str] = []
    entered: dict[str, int] = {}
    for number, peer in enumerate(peers):
        sends += sent(s.row(f"r{number}", f"p{peer}"))
        entered.setdefault(f"p{peer}", len(sends))
    while s.scheduler.in_flight:
        sends += sent(s.end(s.execution(s.scheduler.in_flight[0].id)))
    assert len(sends) == len(peers)
    first = {by: next(at for at, one in enumerate(sends) if s.rows[one].by == by) for by in entered}
    for by, at in first.items():
        assert at - entered[by] <= len(entered) - 1 + lookahead


def test_ten_thousand_rows_cost_what_they_should() -> None:
    """10 peers with 1000 waiting rows each, through to the end; the work per event does not grow with what waits."""
    s = Scheduled()
    began = time.process_time()
    for number in range(10_000):
        s.row(f"r{number}", f"p{number % 10}", cell=f"c{number}")
    flying = deque(one.execution for one in s.scheduler.in_flight)
    ended = 0
    while flying:
        commands = s.end(str(flying.popleft()))
        flying.extend(command.execution for command in commands if isinstance(command, Submit))
        ended += 1
    assert ended == 10_000
    assert time.process_time() - began < 10, "it takes about half a second"
