"""Records of the history, and how they were at a time: ``python/moments.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtc_kernel import moments
from rtc_kernel.moments import Step
from rtc_kernel.tables import Execution, ExecutionState, Json, Output, to_json

from .common import KERNEL


def _run(**columns: Any) -> Execution:
    base = {
        "id": "e1",
        "seq": 1,
        "kernel": KERNEL,
        "code": "…",
        "submitted_by": "ada",
        "client": "session-1",
        "queued_at": 1.0,
        "started_at": 2.0,
        "finished_at": 9.0,
        "execution_count": 3,
        "state": ExecutionState.OK,
    }
    return Execution(**{**base, **columns})


def _stream(text: str, at: float, name: str = "stdout") -> Output:
    return Output(output_type="stream", at=at, name=name, text=text)


MOMENTS: Mapping[str, tuple[Execution, moments.Growth]] = {
    "a run with streams that grow, a display that is updated later, a result": (
        _run(
            outputs=(
                _stream("é😀\n👩‍👧!", 3.0),
                Output(output_type="display_data", at=8.0, data={"text/plain": "2"}, metadata={}, display_id="d"),
                _stream("err", 5.0, "stderr"),
                Output(output_type="execute_result", at=8.5, data={"text/plain": "42"}, metadata={}, execution_count=3),
            ),
            metadata={"stars": 5, "user_expressions": {"x": {"status": "ok"}}},
        ),
        {0: (Step(1, 3.0), Step(3, 4.0), Step(6, 4.5)), 2: (Step(2, 5.5),)},
    ),
    "a display that was updated after the end": (
        _run(
            outputs=(
                Output(output_type="display_data", at=20.0, data={"text/plain": "late"}, metadata={}, display_id="d"),
                Output(output_type="display_data", at=7.0, data={"text/plain": "ü"}, metadata={"k": 1}),
            )
        ),
        {},
    ),
    "an error": (
        _run(
            state=ExecutionState.ERROR,
            error={"ename": "E", "evalue": "no"},
            outputs=(
                _stream("before\n", 3.0),
                Output(output_type="error", at=8.0, ename="E", evalue="no", traceback=("a", "b")),
            ),
        ),
        {},
    ),
    "one that waits for an answer": (
        _run(
            state=ExecutionState.RUNNING,
            finished_at=None,
            input={"prompt": "? ", "password": True, "since": 4.0},
            outputs=(_stream("one\ntwo\n", 3.0),),
        ),
        {0: (Step(4, 3.0), Step(8, 6.0))},
    ),
    "one that was taken back": (
        _run(state=ExecutionState.CANCELLED, started_at=None, execution_count=None, finished_at=5.0),
        {},
    ),
    "one that is queued": (
        _run(state=ExecutionState.QUEUED, started_at=None, finished_at=None, execution_count=None),
        {},
    ),
    "one whose request nobody saw": (_run(queued_at=None, outputs=(_stream("x", 3.0),)), {}),
    "one that is lost, at a time that is not known": (
        _run(state=ExecutionState.LOST, finished_at=None, outputs=(_stream("abc", 3.0),)),
        {0: (Step(1, 3.0), Step(2, 6.0))},
    ),
    "one of which no time is known": (
        _run(state=ExecutionState.LOST, queued_at=None, started_at=None, finished_at=None),
        {},
    ),
    "marks that say more than there is, and an output behind its end": (
        _run(outputs=(_stream("abc", 3.0), _stream("late", 12.0))),
        {0: (Step(2, 3.5), Step(90, 4.0)), 7: (Step(1, 1.0),)},
    ),
    "a clock that was set back": (
        _run(queued_at=5.0, started_at=4.0, finished_at=6.0, outputs=(_stream("a", 5.5), _stream("b", 3.0))),
        {0: (Step(1, 5.5),)},
    ),
}


def make_moments() -> list[Json]:
    """``python/moments.json``."""
    out: list[Json] = []
    for name, (run, growth) in MOMENTS.items():
        times = moments.times(run, growth)
        looks = sorted({0.0, 1e10, *times, *(at - 0.25 for at in times)})
        was = [(at, moments.execution_at(run, growth, at)) for at in looks]
        out.append(
            {
                "name": name,
                "execution": to_json(run),
                "marks": [[position, *step] for position, steps in sorted(growth.items()) for step in steps],
                "times": times,
                "moments": [{"at": at, "execution": None if row is None else to_json(row)} for at, row in was],
            }
        )
    return out
