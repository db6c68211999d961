"""``rerun``: a recorded history on a fresh kernel, and which outputs differ.

The progress goes to stderr; stdout has the report, or one JSON value.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from .. import rerun as room
from ..comparing import comparable, differences
from ..config import RTCKernel
from ..errors import SetupError
from ..notebook import to_output
from ..tables import Execution, ExecutionState, Json
from .histories import Filter, History, choose
from .terminal import clean, cut, duration, emit, first_line, out, took

DIFF_LINES = 20
"""Lines of one execution's differences that are shown; JSON has all."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one execution. ``word``: ``same``, ``differs``, ``not compared`` or ``not run``."""

    ran: room.Rerun
    word: str
    notes: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """As ``--json`` tells it."""
        recorded = self.ran.recorded
        return {
            "execution": recorded.id,
            "number": recorded.seq,
            "verdict": self.word,
            "notes": list(self.notes),
            "recorded_state": recorded.state.value,
            "state": None if self.ran.state is None else self.ran.state.value,
            "recorded_duration_s": took(recorded),
            "duration_s": self.ran.duration_s,
            "diff": list(self.lines),
        }


def rerun(args: argparse.Namespace, settings: RTCKernel) -> int:
    """``jupyter rtc rerun``: exit code 0 when nothing differs and all was run, else 1."""
    source = choose(args.kernel, settings)
    runs, left_out = room.choose(_between(source, args.first, args.last))
    if not runs:
        raise SetupError(f"the history of {source.kernel_id} has nothing to run", "`jupyter rtc history` shows it", 2)
    kernel = source.kernel()
    name = args.spec or (kernel.name if kernel is not None else "")
    if not name:
        raise SetupError("it is not recorded which kernel it ran on", "--kernel NAME says it", 2)
    plan = room.Plan(
        runs=runs,
        kernel=name,
        directory=_directory(source.notebook),
        timeout_s=args.timeout,
        stop_on_error=args.stop_on_error,
        settings=settings,
    )
    progress = _Progress(len(runs))
    try:
        done = room.rerun(plan, progress.show)
    finally:
        progress.close()
    verdicts = [judge(one, source) for one in done]
    if args.json:
        emit({"kernel": name, "left_out": dict(left_out), "executions": [one.to_json() for one in verdicts]})
    else:
        _print(verdicts, {why: count for why, count in left_out.items() if count})
    return 0 if all(one.word in ("same", "not compared") for one in verdicts) else 1


def judge(ran: room.Rerun, source: History) -> Verdict:
    """Compare what was recorded with what came now."""
    recorded, notes = ran.recorded, (ran.note,) if ran.note else ()
    if ran.state is None:
        return Verdict(ran, "not run", notes)
    if (why := room.incomplete(recorded)) and ran.state is not ExecutionState.LOST:
        return Verdict(ran, "not compared", (*notes, why))
    before = comparable(to_output(output, source.blob) for output in recorded.outputs)
    lines = differences(before, comparable(ran.outputs))
    if ran.state is not recorded.state:
        notes = (f"it ended {ran.state.value}, was {recorded.state.value}", *notes)
    is_same = not lines and ran.state is recorded.state
    return Verdict(ran, "same" if is_same else "differs", notes, tuple(lines))


def _between(source: History, first: str | None, last: str | None) -> list[Execution]:
    runs = source.newest(1_000_000, Filter())
    low, high = (None if key is None else _seq(source, key) for key in (first, last))
    return [run for run in runs if (low is None or run.seq >= low) and (high is None or run.seq <= high)]


def _seq(source: History, key: str) -> int:
    found = source.find(key)
    if found is None:
        raise SetupError(f"no execution {key!r}, or more than one", "`jupyter rtc history` has the numbers", 2)
    return found.seq


def _directory(notebook: str | None) -> str | None:
    """Where a frontend would have started the kernel: beside its notebook, where that is a path of this machine."""
    path = None if notebook is None else Path(notebook).parent
    return str(path) if path is not None and path.is_absolute() and path.is_dir() else None


def _print(verdicts: list[Verdict], left_out: dict[str, int]) -> None:
    console = out()
    for one in verdicts:
        run = one.ran.recorded
        times = f"{duration(one.ran.duration_s) or '-':>8}"
        line = f"#{run.seq:<4} {one.word:<12} {times}  {cut(clean(first_line(run.code)), 50)}"
        console.print(line.rstrip(), style="bold" if one.word in ("differs", "not run") else None)
        for note in one.notes:
            console.print(f"      {clean(note)}")
        lines = [line for line in one.lines if not line.startswith("@@")]
        for text in lines[:DIFF_LINES]:
            console.print(f"      {cut(clean(text), 200)}")
        if len(lines) > DIFF_LINES:
            console.print(f"      … {len(lines) - DIFF_LINES} more lines; --json has them")
    counts = {
        word: sum(one.word == word for one in verdicts) for word in ("same", "differs", "not compared", "not run")
    }
    told = [f"{count} {word}" for word, count in counts.items() if count]
    told += [f"left out: {count} {why}" for why, count in left_out.items()]
    console.print(f"{len(verdicts)} {'execution' if len(verdicts) == 1 else 'executions'}: {', '.join(told)}.")


class _Progress:
    """Which one runs, on stderr: one line that changes in a terminal, nothing elsewhere."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._shown = False

    def show(self, place: int, run: Execution) -> None:
        """An execution begins."""
        if sys.stderr.isatty():
            line = cut(f"[{place + 1}/{self._count}] #{run.seq} {clean(first_line(run.code))}", 70)
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._shown = True

    def close(self) -> None:
        """Leave no trace."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
