"""How was an execution at a time?

Pure: a record as it is now, and when the text of its streams had grown to where, become the record as it was. It is
the model of whatever shows time: ``jupyter rtc replay``, ``jupyter rtc export --at``, a viewer's slider.

What the history keeps is what was left at the end, with times. So it is known when a row was queued, began and ended,
when an output came, and (to 50 ms) when a stream's text had grown to where. Not known is what was taken back: what
``clear_output`` took away, what ``\\r`` or ``\\b`` overwrote, and what a display showed before it was updated. A
display that was updated later stands in its place as :data:`UNKNOWN`, because a frontend showed something there.

Theory of the arrival. Outputs come one behind the other, so an output was there when a later one came, whatever its
own ``at`` says (an update sets it anew, a clock may be set back). A display that is updated after the end of its
execution was there at that end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .tables import END_STATES, Execution, ExecutionState, Json, Output

UNKNOWN = "[updated later; what it showed at this time is not kept]"
"""``text/plain`` of a display whose value at a time is not known."""


class Step(NamedTuple):
    """At ``at`` the text of a stream had grown to ``chars`` code points."""

    chars: int
    at: float


Growth = Mapping[int, Sequence[Step]]
"""Of an execution's streams, by position, how each grew: steps upwards. A stream without any came all at once."""

NONE: Growth = {}


def began_at(run: Execution) -> float:
    """When an execution was there for the first time; infinity where no time of it is known."""
    known = [at for at in (run.queued_at, run.started_at) if at is not None]
    known += [output.at for output in run.outputs]
    if not known and run.finished_at is not None:
        return run.finished_at
    return min(known, default=math.inf)


def ended_at(run: Execution, growth: Growth = NONE) -> float:
    """When its end was known; of one that ended at a time that is not known, its last sign of life; infinity while it
    has not ended."""
    if run.state not in END_STATES:
        return math.inf
    if run.finished_at is not None:
        return run.finished_at
    signs = [output.at for output in run.outputs] + [step.at for steps in growth.values() for step in steps]
    signs += [at for at in (run.queued_at, run.started_at) if at is not None]
    return max(signs, default=math.inf)


def arrivals(run: Execution) -> list[float]:
    """By which time each of its outputs was there, never downwards."""
    found: list[float] = []
    earliest = math.inf
    for output in reversed(run.outputs):
        was_there = output.at
        if _is_updated(output) and run.finished_at is not None:
            was_there = min(was_there, run.finished_at)
        earliest = min(earliest, was_there)
        found.append(earliest)
    return found[::-1]


def chars_at(output: Output, steps: Sequence[Step], at: float) -> int:
    """How many code points of a stream's text were there, to 50 ms: what came without a step of its own came
    right behind the last one."""
    text = output.text or ""
    if at < output.at:
        return 0
    chars = 0
    for step in steps:
        if step.at > at:
            return min(chars, len(text))
        chars = step.chars
    return len(text)


class Piece(NamedTuple):
    """At ``at`` the output at ``position`` came, or was updated to what it is now; of a stream, the code points from
    ``start`` to ``end`` of its text (0 and 0 where it is none)."""

    at: float
    position: int
    start: int = 0
    end: int = 0


def pieces(run: Execution, growth: Growth = NONE) -> list[Piece]:
    """What came of an execution's outputs and when, in that order; the pieces of a stream are its text."""
    found: list[Piece] = []
    for position, (output, arrival) in enumerate(zip(run.outputs, arrivals(run), strict=True)):
        if output.output_type != "stream":
            found.append(Piece(output.at if _is_updated(output) else arrival, position))
            continue
        at, start, length = output.at, 0, len(output.text or "")
        for step in growth.get(position, ()):
            at, end = max(at, step.at), min(step.chars, length)
            if end > start:
                found.append(Piece(at, position, start, end))
                start = end
        if start == length:
            continue
        if start:
            _, _, start, _ = found.pop()  # what is behind the last step came with it
        found.append(Piece(at, position, start, length))
    return sorted(found, key=lambda piece: piece.at)


def execution_at(run: Execution, growth: Growth, at: float) -> Execution | None:
    """The record as it was.

    Args:
        run: as it is now.
        growth: of its streams.
        at: POSIX seconds; infinity gives the record as it is.

    Returns:
        The record with the outputs of that time; null: it was not there yet. Annotations have no time and stay.
    """
    if at == math.inf:
        return run
    if at < began_at(run):
        return None
    outputs = tuple(
        _output_at(output, growth.get(position, ()), at)
        for position, (output, arrival) in enumerate(zip(run.outputs, arrivals(run), strict=True))
        if arrival <= at
    )
    if at >= ended_at(run, growth):
        return replace(run, outputs=outputs)
    columns: dict[str, Any] = {"finished_at": None, "error": None, "outputs": outputs}
    columns["metadata"] = {key: value for key, value in run.metadata.items() if key not in _OF_THE_END}
    if run.input is not None and at < (run.input.get("since") or -math.inf):
        columns["input"] = None
    started = run.started_at is not None and run.started_at <= at
    if not (started or outputs):
        return replace(run, **columns, state=ExecutionState.QUEUED, started_at=None, execution_count=None)
    return replace(run, **columns, state=ExecutionState.RUNNING)


_OF_THE_END = frozenset({"user_expressions"})
"""Keys of ``metadata`` that come with the reply."""


def unknown_count(run: Execution) -> int:
    """How many outputs of a record that :func:`execution_at` gave are not known."""
    return sum(output.data == _UNKNOWN_DATA for output in run.outputs)


_UNKNOWN_DATA: Json = {"text/plain": UNKNOWN}


def times(run: Execution, growth: Growth = NONE) -> list[float]:
    """When the record changed, upwards: all the times at which :func:`execution_at` gives another one than before."""
    found = {began_at(run), ended_at(run, growth), *arrivals(run)}
    found.update(at for at in (run.queued_at, run.started_at) if at is not None)
    found.update(output.at for output in run.outputs)
    found.update(step.at for steps in growth.values() for step in steps)
    if run.input is not None and isinstance(run.input.get("since"), int | float):
        found.add(run.input["since"])
    first = began_at(run)
    return sorted(at for at in found if first <= at < math.inf)


def _output_at(output: Output, steps: Sequence[Step], at: float) -> Output:
    if output.output_type == "stream":
        text = output.text or ""
        chars = chars_at(output, steps, at)
        return output if chars == len(text) else replace(output, text=text[:chars])
    if at < output.at and _is_updated(output):
        return replace(output, data=dict(_UNKNOWN_DATA), metadata={})
    return output


def _is_updated(output: Output) -> bool:
    """Whether it may have been updated since it came."""
    return output.display_id is not None and output.output_type == "display_data"
