"""Questions to the kernel, by transcript: questions, comm messages and the time in, commands out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel import schema
from rtc_kernel.agent.act.queries import (
    ERROR_CHARS,
    READ_S,
    Answered,
    CloseComm,
    Command,
    OpenComm,
    Queries,
    QueryLimits,
    query_id,
)
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.errors import LocalError
from rtc_kernel.link import QUERY_COMM_PREFIX
from rtc_kernel.tables import QUERY_TRANSITIONS, DropQuery, PutQuery, QueryState

ID = query_id("columns", "df")
RESTARTED = "the kernel was restarted"


def comm(name: object) -> str:
    return f"{QUERY_COMM_PREFIX}{name}"


class Kernel:
    """A room and what its commands came to, as document, kernel and peers would have it."""

    def __init__(self, **limits: Any) -> None:
        self.queries = Queries(QueryLimits(**limits))
        self.rows: dict[str, dict[str, Any]] = {}
        self.open: dict[str, tuple[str, Any]] = {}
        self.told: dict[str, Answered] = {}
        self.asked = 0

    def do(self, commands: list[Command]) -> list[Command]:
        for command in commands:
            match command:
                case PutQuery(query, columns):
                    self.rows.setdefault(query, {}).update(columns)
                case DropQuery(query):
                    del self.rows[query]
                case OpenComm(comm, target, data):
                    assert comm not in self.open
                    self.open[comm] = (target, data["input"])
                case CloseComm(comm):
                    del self.open[comm]
                case Answered(request_ids):
                    for request_id in request_ids:
                        assert request_id not in self.told
                        self.told[request_id] = command
        return commands

    def ask(
        self, request_id: str, value: Any = "df", now: float = 0.0, *, target: str = "columns", fresh: bool = False
    ) -> list[Command]:
        self.asked += 1
        return self.do(
            self.queries.ask(request_id, target, value, by="ada", fresh=fresh, now=now, comm=comm(self.asked))
        )

    def answer(self, name: int, data: Any, now: float = 0.0) -> list[Command]:
        return self.do(self.queries.receive_comm(comm(name), "comm_msg", data, now))

    def close(self, name: int, now: float = 0.0) -> list[Command]:
        self.open.pop(comm(name), None)
        return self.do(self.queries.receive_comm(comm(name), "comm_close", {}, now))

    def pass_time(self, now: float) -> list[Command]:
        return self.do(self.queries.receive_time(now))

    def restart(self, now: float) -> list[Command]:
        self.open.clear()
        return self.do(self.queries.receive_restart(now))

    def outcome(self, request_id: str) -> tuple[bool, str | None]:
        told = self.told[request_id]
        return told.ok, told.reason


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_a_question_goes_over_a_comm_of_its_own_and_its_answer_into_its_row(kernel: Kernel) -> None:
    assert kernel.ask("r1", now=1.0) == [
        PutQuery(ID, {"target": "columns", "input": "df", "state": QueryState.TO_PROCESS, "asked_by": "ada"}),
        PutQuery(ID, {"state": QueryState.IN_PROGRESS, "comm": comm(1), "asked_at": 1.0}),
        OpenComm(comm(1), "columns", {"input": "df"}),
    ]
    assert kernel.answer(1, {"result": ["a", "é"]}, 1.5) == [
        PutQuery(ID, {"state": QueryState.DONE, "result": ["a", "é"], "answered_at": 1.5}),
        Answered(("r1",), ID, True, None),
        CloseComm(comm(1)),
    ]


def test_the_rows_stand_in_the_document_as_records(kernel: Kernel) -> None:
    document = StateDocument("k")
    document.load()
    document.apply(kernel.ask("r1", {"name": "df", "n": 3}, 1.0)[:2])
    document.apply(kernel.answer(1, {"result": {"rows": [1, None, 2.5]}}, 2.0)[:1])
    document.apply(kernel.ask("r2", "gone", 3.0)[:2])
    document.apply(kernel.close(2, 4.0)[:1])
    done, failed = schema.read_queries(document.doc)
    assert (done.state, done.input, done.result) == (QueryState.DONE, {"name": "df", "n": 3}, {"rows": [1, None, 2.5]})
    assert (done.asked_by, done.asked_at, done.answered_at, done.comm) == ("ada", 1.0, 2.0, comm(1))
    assert (failed.state, failed.result) == (QueryState.FAILED, None)
    assert failed.error == "the kernel has no target columns, or its handler failed"


def test_a_known_answer_is_given_again_and_nothing_is_sent(kernel: Kernel) -> None:
    kernel.ask("r1", {"a": 1, "b": 2})
    kernel.answer(1, {"result": 7}, 1.0)
    query = query_id("columns", {"b": 2, "a": 1})
    assert kernel.ask("r2", {"b": 2, "a": 1}, 61.0) == [Answered(("r2",), query, True, None)]


@pytest.mark.parametrize("other", [("columns", "dg"), ("rows", "df"), ("columns", ["df"]), ("columns", None)])
def test_another_target_or_input_is_another_question(kernel: Kernel, other: tuple[str, Any]) -> None:
    kernel.ask("r1")
    assert kernel.ask("r2", other[1], target=other[0])[-1] == OpenComm(comm(2), other[0], {"input": other[1]})


@pytest.mark.parametrize(("fresh", "now"), [(True, 2.0), (False, 61.1)], ids=["fresh", "too old"])
def test_the_kernel_is_asked_again_for_a_fresh_answer_or_when_the_known_one_is_too_old(
    kernel: Kernel, fresh: bool, now: float
) -> None:
    kernel.ask("r1")
    kernel.answer(1, {"result": 7}, 1.0)
    nothing = {"result": None, "error": None, "comm": None, "asked_at": None, "answered_at": None}
    assert kernel.ask("r2", now=now, fresh=fresh) == [
        PutQuery(ID, {"state": QueryState.TO_PROCESS, "asked_by": "ada", **nothing}),
        PutQuery(ID, {"state": QueryState.IN_PROGRESS, "comm": comm(2), "asked_at": now}),
        OpenComm(comm(2), "columns", {"input": "df"}),
    ]
    kernel.answer(2, {"result": 8}, now)
    assert (kernel.rows[ID]["result"], kernel.outcome("r2")) == (8, (True, None))


def test_a_failure_is_not_kept_as_an_answer(kernel: Kernel) -> None:
    kernel.ask("r1")
    kernel.close(1)
    assert OpenComm(comm(2), "columns", {"input": "df"}) in kernel.ask("r2")
    kernel.answer(2, {"result": 1})
    assert kernel.outcome("r2") == (True, None)
    assert (kernel.rows[ID]["state"], kernel.rows[ID]["error"]) == (QueryState.DONE, None)


@pytest.mark.parametrize("fresh", [False, True])
def test_the_same_question_while_it_is_under_way_is_one_question(kernel: Kernel, fresh: bool) -> None:
    kernel.ask("r1")
    assert kernel.ask("r2", fresh=fresh) == []
    assert Answered(("r1", "r2"), ID, True, None) in kernel.answer(1, {"result": 1})


def test_the_others_wait_in_order_for_a_free_place() -> None:
    kernel = Kernel(in_progress=2)
    for n in range(1, 5):
        kernel.ask(f"r{n}", n)
    assert list(kernel.open) == [comm(1), comm(2)]
    assert kernel.rows[query_id("columns", 3)]["state"] is QueryState.TO_PROCESS
    assert kernel.ask("r5", 3) == []  # joins one that waits
    assert kernel.answer(2, {"result": 0}, 7.0)[-2:] == [
        PutQuery(query_id("columns", 3), {"state": QueryState.IN_PROGRESS, "comm": comm(3), "asked_at": 7.0}),
        OpenComm(comm(3), "columns", {"input": 3}),
    ]
    assert kernel.close(1)[-1] == OpenComm(comm(4), "columns", {"input": 4})
    kernel.answer(3, {"result": 0})
    assert kernel.told["r3"].request_ids == ("r3", "r5")


@pytest.mark.parametrize(
    ("data", "result"),
    [
        ({"result": None}, None),
        ({"result": {"error": 1}}, {"error": 1}),
        ({"result": 1, "more": 2}, {"result": 1, "more": 2}),
        ({"result": 1, "error": None}, {"result": 1, "error": None}),
        ({}, {}),
        (["a"], ["a"]),
        ("text", "text"),
        (None, None),
        ({"result": "a\ud800\0"}, "a\ufffd\ufffd"),
        ({"result": float("nan")}, None),
    ],
)
def test_the_first_message_is_the_answer_whoever_wrote_the_target(kernel: Kernel, data: Any, result: Any) -> None:
    kernel.ask("r1")
    kernel.answer(1, data)
    assert (kernel.rows[ID]["result"], kernel.outcome("r1")) == (result, (True, None))
    assert kernel.answer(1, {"result": "a second message"}) == []
    assert kernel.close(1) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [("KeyError: 'dg'", "KeyError: 'dg'"), ({"code": 3}, '{"code":3}'), ("é" * 9999, "é" * ERROR_CHARS), ("", "")],
)
def test_an_error_of_the_kernel_is_told_with_its_text(kernel: Kernel, error: Any, reason: str) -> None:
    kernel.ask("r1")
    assert kernel.answer(1, {"error": error, "traceback": []}, 2.0) == [
        PutQuery(ID, {"state": QueryState.FAILED, "error": reason, "answered_at": 2.0}),
        Answered(("r1",), ID, False, reason),
        CloseComm(comm(1)),
    ]


def test_a_comm_that_the_kernel_closes_is_not_closed_by_us(kernel: Kernel) -> None:
    kernel.ask("r1")
    reason = "the kernel has no target columns, or its handler failed"
    assert kernel.close(1, 1.0)[1:] == [Answered(("r1",), ID, False, reason)]


def test_an_answer_above_the_limit_is_a_failure() -> None:
    kernel = Kernel(result_bytes=10)
    kernel.ask("r1")
    kernel.answer(1, {"result": "éééé"})
    assert kernel.outcome("r1") == (True, None)
    kernel.ask("r2", fresh=True)
    assert kernel.answer(2, {"result": "ééééé"})[-1] == CloseComm(comm(2))
    assert kernel.outcome("r2") == (False, "the answer has 12 bytes, and 10 are the limit")
    assert kernel.rows[ID]["result"] is None


@pytest.mark.parametrize("name", [comm("stranger"), "c", ""])
@pytest.mark.parametrize("kind", ["comm_msg", "comm_close"])
def test_a_comm_that_is_not_ours_changes_nothing(kernel: Kernel, name: str, kind: Any) -> None:
    kernel.ask("r1")
    assert kernel.queries.receive_comm(name, kind, {"result": 1}, 0.0) == []


@pytest.mark.parametrize("name", ["1", comm(1), comm(2)])
def test_an_id_that_is_no_new_one_of_ours_is_our_bug(name: str) -> None:
    kernel = Kernel(in_progress=1)
    kernel.ask("r1")
    kernel.ask("r2", "dg")
    with pytest.raises(LocalError):
        kernel.queries.ask("r3", "columns", "dh", by="ada", fresh=False, now=0.0, comm=name)
    assert "1 waiting, 1 open, 0 ended" in repr(kernel.queries)


# --- time ----------------------------------------------------------------------------------------------------


def test_a_kernel_that_does_not_answer_is_given_up_whether_it_was_sent_or_not() -> None:
    kernel = Kernel(in_progress=1, timeout_s=10.0)
    assert kernel.queries.due is None
    kernel.ask("r1", now=1.0)
    kernel.ask("r2", "waits", now=2.0)
    assert kernel.queries.due == 11.0
    assert kernel.pass_time(10.9) == []
    reason = "the kernel did not answer within 10 s; a cell that runs may block its queue"
    assert kernel.pass_time(11.0)[:3] == [
        PutQuery(ID, {"state": QueryState.FAILED, "error": reason, "answered_at": 11.0}),
        Answered(("r1",), ID, False, reason),
        CloseComm(comm(1)),
    ]
    assert list(kernel.open) == [comm(2)]
    kernel.ask("r3", "next", now=11.0)
    assert kernel.queries.due == 12.0
    kernel.pass_time(22.0)
    assert kernel.outcome("r2") == kernel.outcome("r3") == (False, reason)
    assert not kernel.open
    assert kernel.answer(1, {"result": "too late"}) == []


def test_answers_leave_the_document_when_they_are_too_old_since_they_were_given_last(kernel: Kernel) -> None:
    kernel.ask("r1", "a")
    kernel.answer(1, {"result": 1}, 1.0)
    kernel.ask("r2", "b")
    kernel.answer(2, {"result": 1}, 2.0)
    kernel.ask("r3", "a", 10.0)
    assert kernel.queries.due == 62.0
    assert kernel.pass_time(62.0) == [DropQuery(query_id("columns", "b"))]
    assert kernel.pass_time(70.0) == [DropQuery(query_id("columns", "a"))]
    assert kernel.queries.due is None


def test_with_an_age_of_zero_nothing_is_given_again_and_there_is_time_to_read() -> None:
    kernel = Kernel(age_s=0.0)
    kernel.ask("r1")
    kernel.answer(1, {"result": 1}, 1.0)
    assert kernel.pass_time(1.1) == []
    kernel.ask("r2", now=1.1)
    assert kernel.open
    kernel.answer(2, {"result": 1}, 2.0)
    assert kernel.pass_time(2.0 + READ_S) == [DropQuery(ID)]


def test_a_restart_clears_everything_and_tells_whoever_waits() -> None:
    kernel = Kernel(in_progress=1)
    kernel.ask("r1", "ended")
    kernel.answer(1, {"result": 1})
    kernel.ask("r2", "open")
    kernel.ask("r3", "waits")
    kernel.ask("r4", "waits")
    kernel.restart(5.0)
    assert not kernel.rows
    assert kernel.outcome("r2") == kernel.outcome("r3") == kernel.outcome("r4") == (False, RESTARTED)
    assert kernel.queries.due is None
    assert kernel.answer(2, {"result": "of the kernel before"}) == []
    assert OpenComm(comm(5), "columns", {"input": "ended"}) in kernel.ask("r5", "ended", 6.0)


# --- bounds --------------------------------------------------------------------------------------------------


def test_the_oldest_answers_go_beyond_the_count() -> None:
    kernel = Kernel(count=2)
    for n in range(1, 3):
        kernel.ask(f"r{n}", n)
        kernel.answer(n, {"result": n}, n)
    kernel.ask("again", 1, 3.0)
    kernel.ask("r3", 3)
    assert kernel.answer(4, {"result": 3}, 4.0)[-1] == DropQuery(query_id("columns", 2))


def test_the_oldest_answers_go_beyond_the_bytes_but_never_the_one_that_was_just_given() -> None:
    kernel = Kernel(bytes=1000)
    for n in range(1, 4):
        kernel.ask(f"r{n}", n)
        kernel.answer(n, {"result": "x" * 400}, n)
    assert list(kernel.rows) == [query_id("columns", 2), query_id("columns", 3)]
    kernel.ask("r4", 4)
    kernel.answer(4, {"result": "x" * 2000}, 5.0)
    assert list(kernel.rows) == [query_id("columns", 4)]


@pytest.mark.parametrize("limits", [{"count": 2}, {"bytes": 1100}], ids=["count", "bytes"])
def test_more_questions_under_way_than_the_limit_are_refused_and_make_no_row(limits: dict[str, int]) -> None:
    kernel = Kernel(in_progress=1, **limits)
    for n in range(2):
        kernel.ask(f"r{n}", f"{n}" * 500)
    (refused,) = kernel.ask("r2", "2" * 500)
    assert isinstance(refused, Answered)
    assert not refused.ok
    assert "under way" in str(refused.reason)
    assert len(kernel.rows) == 2
    assert kernel.ask("r3", "1" * 500) == []


# --- properties ----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda items: (
        st.lists(items, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), items, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_any_input_and_any_answer_can_be_written_to_the_document(value: Any, data: Any) -> None:
    kernel = Kernel()
    document = StateDocument("k")
    document.load()
    commands = [*kernel.ask("r1", value), *kernel.answer(1, data)]
    document.apply([command for command in commands if isinstance(command, PutQuery | DropQuery)])
    (row,) = schema.read_queries(document.doc)
    assert row.state in (QueryState.DONE, QueryState.FAILED)
    json.dumps([row.input, row.result], allow_nan=False).encode()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "fresh", "answer", "answer", "error", "close", "due", "time", "restart"]),
        st.integers(0, 6),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 3), st.integers(1, 4))
def test_whatever_happens_each_request_is_told_once_and_all_bounds_hold(
    steps: list[tuple[str, int]], in_progress: int, count: int
) -> None:
    kernel = Kernel(in_progress=in_progress, count=count, timeout_s=10.0, age_s=20.0)
    now, requests = 1000.1, 0
    for step, n in steps:
        before = {query: row["state"] for query, row in kernel.rows.items()}
        open_names = [int(name.removeprefix(QUERY_COMM_PREFIX)) for name in kernel.open]
        name = open_names[n % len(open_names)] if open_names else 0
        commands: list[Command] = []
        match step:
            case "ask" | "fresh":
                requests += 1
                commands = kernel.ask(f"r{requests}", n, now, fresh=step == "fresh")
            case "answer":
                commands = kernel.answer(name, {"result": n}, now)
            case "error":
                commands = kernel.answer(name, {"error": "e"}, now)
            case "close":
                commands = kernel.close(name, now)
            case "restart":
                commands = kernel.restart(now)
            case "due" if kernel.queries.due is not None:
                now = max(now, kernel.queries.due)
                commands = kernel.pass_time(now)
            case _:
                now += n
                commands = kernel.pass_time(now)
                assert kernel.queries.due is None or kernel.queries.due > now
        for command in commands:
            if isinstance(command, PutQuery) and "state" in command.columns:
                state, to = before.get(command.query), command.columns["state"]
                assert to is QueryState.TO_PROCESS if state is None else to in QUERY_TRANSITIONS[state]
                before[command.query] = to
        states = [row["state"] for row in kernel.rows.values()]
        ended = [state for state in states if state in (QueryState.DONE, QueryState.FAILED)]
        assert len(ended) <= count
        assert len(states) - len(ended) <= count
        assert len(kernel.open) == states.count(QueryState.IN_PROGRESS) <= in_progress
        assert QueryState.TO_PROCESS not in states or len(kernel.open) == in_progress
    kernel.pass_time(now + 10.0)
    kernel.pass_time(now + 20.0)
    assert not kernel.open
    assert set(kernel.told) == {f"r{n}" for n in range(1, requests + 1)}
    kernel.pass_time(now + 100.0)
    assert not kernel.rows
    assert kernel.queries.due is None
