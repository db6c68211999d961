"""How an execution was at a time: what came by then, nothing of what came later, and nothing made up."""

from __future__ import annotations

import itertools
import math
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_kernel import moments
from rtc_kernel.agent.keep.store import Store
from rtc_kernel.moments import UNKNOWN, Growth, Step, execution_at, pieces, times
from rtc_kernel.tables import (
    END_STATES,
    AddOutput,
    Change,
    Execution,
    ExecutionState,
    Output,
    PutExecution,
    SetOutput,
    WriteText,
)


def stream(text: str, at: float, name: str = "stdout") -> Output:
    return Output(output_type="stream", at=at, name=name, text=text)


def display(text: str, at: float, display_id: str | None = None) -> Output:
    return Output(output_type="display_data", at=at, data={"text/plain": text}, metadata={}, display_id=display_id)


RUN = Execution(
    id="e",
    seq=1,
    code="f()",
    queued_at=1.0,
    started_at=2.0,
    finished_at=9.0,
    execution_count=7,
    state=ExecutionState.ERROR,
    error={"ename": "E", "evalue": "e"},
    metadata={"user_expressions": {"x": 1}, "note": "mine"},
    outputs=(
        stream("abcdef", 3.0),
        display("bar", 8.0, "d"),
        stream("x", 5.0, "stderr"),
        Output(output_type="error", at=8.5, ename="E", evalue="e", traceback=()),
    ),
)
GROWTH: Growth = {0: [Step(2, 3.0), Step(4, 4.0), Step(5, 4.5)]}


def at(when: float, run: Execution = RUN, growth: Growth = GROWTH) -> Execution:
    found = execution_at(run, growth, when)
    assert found is not None
    return found


def shown(run: Execution) -> list[str]:
    return [output.text or (output.data or {}).get("text/plain") or output.ename or "" for output in run.outputs]


def test_a_row_comes_with_its_request_begins_and_ends() -> None:
    assert execution_at(RUN, GROWTH, 0.9) is None
    queued = at(1.0)
    assert (queued.state, queued.started_at, queued.execution_count) == (ExecutionState.QUEUED, None, None)
    running = at(2.0)
    assert (running.state, running.started_at, running.execution_count) == (ExecutionState.RUNNING, 2.0, 7)
    assert (running.finished_at, running.error, running.metadata) == (None, None, {"note": "mine"})
    assert at(9.0) == at(math.inf) == RUN


@pytest.mark.parametrize(
    ("when", "text"), [(3.0, "ab"), (3.9, "ab"), (4.0, "abcd"), (4.5, "abcdef"), (100.0, "abcdef")]
)
def test_a_stream_has_what_had_come_of_it(when: float, text: str) -> None:
    """What has no step of its own came right behind the last one."""
    assert shown(at(when))[0] == text


def test_a_stream_without_steps_came_at_once() -> None:
    assert shown(at(3.0, growth={})) == ["abcdef"]


def test_a_display_that_was_updated_later_is_there_but_not_known() -> None:
    assert shown(at(4.9)) == ["abcdef"]
    assert shown(at(5.0)) == ["abcdef", UNKNOWN, "x"]
    assert moments.unknown_count(at(5.0)) == 1
    assert shown(at(8.0)) == ["abcdef", "bar", "x"]
    assert moments.unknown_count(at(8.0)) == 0


def test_a_display_that_another_execution_updated_was_there_at_the_end_of_its_own() -> None:
    run = replace(RUN, outputs=(display("late", 50.0, "d"),))
    assert (shown(at(8.9, run)), shown(at(9.0, run)), shown(at(50.0, run))) == ([], [UNKNOWN], ["late"])


def test_a_late_output_of_an_execution_that_has_ended_comes_late() -> None:
    run = replace(RUN, outputs=(stream("late", 20.0),))
    assert (shown(at(19.0, run)), shown(at(20.0, run))) == ([], ["late"])
    assert at(19.0, run).state is ExecutionState.ERROR


def test_what_was_lost_runs_up_to_its_last_sign_of_life() -> None:
    run = replace(RUN, state=ExecutionState.LOST, finished_at=None, outputs=RUN.outputs[:1])
    assert (at(4.4, run).state, at(4.5, run).state) == (ExecutionState.RUNNING, ExecutionState.LOST)


def test_a_question_is_asked_from_its_time_on() -> None:
    run = replace(RUN, state=ExecutionState.RUNNING, finished_at=None, input={"prompt": "?", "since": 6.0})
    assert (at(5.0, run).input, at(6.0, run).input) == (None, run.input)


def test_the_pieces_of_a_run_in_their_order() -> None:
    assert pieces(RUN, GROWTH) == [
        *[(3.0, 0, 0, 2), (4.0, 0, 2, 4), (4.5, 0, 4, 6)],
        *[(5.0, 2, 0, 1), (8.0, 1, 0, 0), (8.5, 3, 0, 0)],
    ]
    assert times(RUN, GROWTH) == [1.0, 2.0, 3.0, 4.0, 4.5, 5.0, 8.0, 8.5, 9.0]


# --- properties

TIMES = st.floats(0.0, 100.0)
MAYBE = st.none() | TIMES
OUTPUTS = st.lists(
    st.one_of(
        st.builds(stream, st.text(max_size=8), TIMES),
        st.builds(display, st.text(max_size=3), TIMES, st.none() | st.just("d")),
        st.builds(Output, output_type=st.just("error"), at=TIMES, ename=st.text(max_size=3)),
    ),
    max_size=5,
)


def sound(run: Execution) -> Execution:
    """With the columns that its state has."""
    if run.state in END_STATES:
        return replace(run, input=None)
    if run.state is ExecutionState.QUEUED:
        return replace(run, started_at=None, finished_at=None, outputs=(), input=None)
    return replace(run, started_at=1.0 if run.started_at is None else run.started_at, finished_at=None)


STEPS = st.lists(st.builds(Step, st.integers(0, 10), TIMES), max_size=4).map(sorted)
RUNS = st.builds(
    Execution,
    id=st.just("e"),
    queued_at=MAYBE,
    started_at=MAYBE,
    finished_at=MAYBE,
    state=st.sampled_from(ExecutionState),
    outputs=OUTPUTS.map(tuple),
    input=st.none() | st.just({"prompt": "?", "since": 5.0}),
).map(sound)
GROWTHS = st.dictionaries(st.integers(0, 5), STEPS, max_size=3)


@settings(max_examples=300)
@given(RUNS, GROWTHS, TIMES)
def test_at_no_time_there_was_nothing_and_at_the_end_there_is_all(run: Execution, growth: Growth, when: float) -> None:
    assert execution_at(run, growth, -math.inf) is None
    assert execution_at(run, growth, math.inf) == run
    last = max(times(run, growth), default=when)
    assert execution_at(run, growth, last) in (run, None)
    assert (execution_at(run, growth, last) is None) == (moments.began_at(run) == math.inf)


@settings(max_examples=300)
@given(RUNS, GROWTHS, TIMES, TIMES)
def test_what_was_there_stays_there(run: Execution, growth: Growth, one: float, other: float) -> None:
    """Any two times: states go on, outputs are added, text grows, and what stands there is what stands there now."""
    first, second = sorted((one, other))
    before, after = execution_at(run, growth, first), execution_at(run, growth, second)
    if before is None:
        return
    assert after is not None
    order = [ExecutionState.QUEUED, ExecutionState.RUNNING]
    rank = [order.index(row.state) if row.state in order else 2 for row in (before, after)]
    if run.state in END_STATES:
        assert rank == sorted(rank)
    assert len(before.outputs) <= len(after.outputs) <= len(run.outputs)
    for earlier, later, now in zip(before.outputs, after.outputs, run.outputs, strict=False):
        assert (now.text or "").startswith(later.text or "")
        assert (later.text or "").startswith(earlier.text or "")
        if earlier.output_type != "stream":
            assert earlier in (now, replace(earlier, data={"text/plain": UNKNOWN}))
            assert later in (now, earlier)


@settings(max_examples=200)
@given(RUNS, GROWTHS)
def test_times_are_when_something_changed(run: Execution, growth: Growth) -> None:
    found = times(run, growth)
    assert found == sorted(set(found))
    for first, second in itertools.pairwise(found):
        assert execution_at(run, growth, first) == execution_at(run, growth, math.nextafter(second, -math.inf))


@settings(max_examples=200)
@given(RUNS, GROWTHS)
def test_the_pieces_make_the_whole(run: Execution, growth: Growth) -> None:
    found = pieces(run, growth)
    assert found == sorted(found, key=lambda piece: piece.at)
    for position, output in enumerate(run.outputs):
        own = [piece for piece in found if piece.position == position]
        if output.output_type == "stream":
            assert "".join((output.text or "")[piece.start : piece.end] for piece in own) == (output.text or "")
            assert all(piece.end > piece.start for piece in own)
        else:
            assert len(own) == 1


# --- over what the store keeps

WRITES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]), st.text(max_size=30).filter(str.isprintable), st.floats(0.06, 3.0)
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(WRITES)
def test_what_came_behind_a_pause_is_told_apart_exactly(writes: list[Any]) -> None:
    """Any text in any streams with more than 50 ms between: at each time exactly what had come by then."""
    changes: list[Change] = [PutExecution("e", {"seq": 1, "queued_at": 0.5, "started_at": 0.5, "state": "running"})]
    now, position, segment, name = 1.0, -1, 0, ""
    seen: list[tuple[float, str]] = []
    whole = ""
    for stream_name, text, pause in writes:
        if not text:
            continue
        if stream_name != name:
            position, segment, name = position + 1, 0, stream_name
            changes.append(AddOutput("e", position, stream("", now, name)))
        changes.append(WriteText("e", position, segment, None, text, now))
        segment += len(whole) % 2
        whole += text
        seen.append((now, whole))
        now += pause
    with closing(Store.open(None)) as store:
        store.begin(relay_id="r", kernel={"id": "k"}, now=0.0)
        for number, change in enumerate(changes, 1):
            store.write([change], relay_id="r", seq=number, mirror_state=None)
        store.flush()
        run, growth = store.execution("#1"), store.growth("e")
    assert run is not None
    had = ""
    for when, text in seen:
        assert (told(run, growth, when - 0.005), told(run, growth, when)) == (had, text)
        had = text


def told(run: Execution, growth: Growth, when: float) -> str:
    return "".join(output.text or "" for output in at(when, run, growth).outputs)


def test_an_update_in_the_store_hides_what_was_there() -> None:
    with closing(Store.open(None)) as store:
        store.begin(relay_id="r", kernel={"id": "k"}, now=0.0)
        changes: list[Change] = [
            PutExecution("e", {"seq": 1, "queued_at": 1.0, "started_at": 1.0, "finished_at": 2.0, "state": "ok"}),
            AddOutput("e", 0, display("first", 1.5, "d")),
            SetOutput("e", 0, display("second", 7.0, "d")),
        ]
        store.write(changes, relay_id="r", seq=1, mirror_state=None)
        store.flush()
        run = store.execution("#1")
        assert store.growth("e") == store.growth("none") == {}
    assert run is not None
    assert [shown(at(when, run)) for when in (1.9, 2.0, 7.0)] == [[], [UNKNOWN], ["second"]]
