"""``replay``: recorded executions again, in the time that they took.

What is shown is what the history kept: a stream's text as it grew (to 50 ms), displays and errors when they came. A
line that was rewritten, such as a progress bar, has its last state only, and comes when that came; a display that was
updated comes with its last update. Between two executions, while nothing ran, at most ``IDLE_S`` pass.
"""

from __future__ import annotations

import argparse
import heapq
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..config import RTCKernel
from ..errors import SetupError
from ..moments import Piece, began_at, ended_at, pieces
from ..tables import END_STATES, Execution, Output
from .histories import Filter, History, choose
from .terminal import clean, cut, duration, first_line, moment, out, output_text, tell, took

IDLE_S = 1.0
"""Seconds that pass, at most, while nothing runs."""

_RANGE = re.compile(r"#?(\d{1,9})-#?(\d{0,9})", re.ASCII)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RESET = re.compile(r"\x1b\[0*m")
_BEGUN_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*)?$")


def replay(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc replay``."""
    source = choose(args.kernel, _settings)
    runs = select(source, args.id)
    console = out()
    screen = Screen(sys.stdout, colours=console.is_terminal and not console.no_color)
    try:
        for event in paced(timeline(source, runs), speed=args.speed, max_pause_s=args.max_pause):
            screen.show(event)
    finally:
        screen.close()
    running = [f"#{run.seq}" for run in runs if run.state not in END_STATES]
    if running:
        tell(f"{', '.join(running)} {'has' if len(running) == 1 else 'have'} not ended; this is how far it is recorded")
    return 0


def select(source: History, key: str) -> list[Execution]:
    """The executions that were named, in their order.

    Args:
        key: an id, the beginning of one, a number; numbers such as ``3-12`` or ``3-``; ``all``.

    Raises:
        SetupError: there are none.
    """
    wide = _RANGE.fullmatch(key)
    if key == "all" or wide:
        first, last = (int(wide[1]), int(wide[2]) if wide[2] else math.inf) if wide else (0, math.inf)
        found = [run for run in source.newest(1_000_000, Filter()) if first <= run.seq <= last]
    else:
        one = source.find(key)
        found = [] if one is None else [one]
    if not found:
        raise SetupError(f"no execution {key!r}, or more than one", "`jupyter rtc history` has the numbers", 2)
    return sorted(found, key=lambda run: run.seq)


# --- what happened when


class Event(NamedTuple):
    """Something that is shown. ``piece``: null where the execution begins or ends."""

    at: float
    run: Execution
    what: str  # begin, output, end
    piece: Piece | None = None


def timeline(source: History, runs: Iterable[Execution]) -> Iterator[Event]:
    """The events of all executions, in the order of their times."""
    return heapq.merge(*(_events(source, run) for run in runs), key=lambda event: event.at)


def _events(source: History, run: Execution) -> Iterator[Event]:
    """The events of one execution. Its growth is asked for when it begins: it may be long."""
    start = began_at(run) if run.started_at is None else run.started_at
    if math.isinf(start):
        return
    yield Event(start, run, "begin")
    (growth,) = source.growths([run])
    end, ended = ended_at(run, growth), False
    for piece in pieces(run, growth):
        if not ended and piece.at > end:
            ended = True
            yield Event(max(start, end), run, "end")
        yield Event(max(start, piece.at), run, "output", piece)
    if not ended and end < math.inf:
        yield Event(max(start, end), run, "end")


def paced(
    events: Iterable[Event],
    *,
    speed: float,
    max_pause_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """The same events, each when its time has come.

    Args:
        speed: so many times as fast as they were; infinity: at once.
        max_pause_s: no longer than this between two of them; null: any time.
    """
    due, last, open_runs = clock(), None, set[str]()
    for event in events:
        if last is not None:
            pause_s = max(0.0, event.at - last)
            pause_s = (pause_s if open_runs else min(pause_s, IDLE_S * speed)) / speed
            due += pause_s if max_pause_s is None else min(pause_s, max_pause_s)
            if due > clock():
                wait(due - clock())
        last = event.at
        yield event
        (open_runs.discard if event.what == "end" else open_runs.add)(event.run.id)


# --- on the screen


class Writable(Protocol):
    """Where text goes."""

    def write(self, text: str, /) -> object:
        """Write."""

    def flush(self) -> object:
        """Let it be seen."""


@dataclass(slots=True)
class _Voice:
    """One stream on its way out. ``held``: an escape sequence of which more may come; ``colour``: what is in force."""

    held: str = ""
    colour: str = ""

    def read(self, text: str) -> str:
        """What can be written, with the colours that it begins with."""
        text, self.held = self.held + text, ""
        if begun := _BEGUN_ESCAPE.search(text):
            text, self.held = text[: begun.start()], begun[0]
        text = self.colour + text
        resets = [reset.end() for reset in _RESET.finditer(text)]
        self.colour = "".join(_COLOUR.findall(text, resets[-1] if resets else 0))[-256:]
        return text


@dataclass(slots=True)
class Screen:
    """What was written, and who wrote the row in which the cursor is. Each stream begins in a row of its own."""

    target: Writable
    colours: bool = False
    _owner: tuple[str, int] | None = None
    _midline: bool = False
    _voices: dict[tuple[str, int], _Voice] = field(default_factory=dict)

    def show(self, event: Event) -> None:
        """Show one event, at once."""
        match event.what, event.piece:
            case "begin", _:
                self._block(_head(event.run), bold=True)
                self._block(_code(event.run))
            case "end", _:
                self._block(_tail(event.run), bold=True)
                self._voices = {key: voice for key, voice in self._voices.items() if key[0] != event.run.id}
            case _, Piece() as piece:
                output = event.run.outputs[piece.position]
                if output.output_type == "stream":
                    self._stream((event.run.id, piece.position), output, piece)
                else:
                    self._block(output_text(output, colours=self.colours))
            case _:
                pass
        self.target.flush()

    def close(self) -> None:
        """Leave the cursor at the start of a row."""
        self._leave_row()
        self.target.flush()

    def _stream(self, key: tuple[str, int], output: Output, piece: Piece) -> None:
        text = (output.text or "")[piece.start : piece.end]
        text = clean(self._voices.setdefault(key, _Voice()).read(text), colours=self.colours)
        if not text:
            return
        if self._owner != key:
            self._leave_row()
        self.target.write(text)
        self._owner, self._midline = key, not clean(text).endswith("\n")

    def _block(self, text: str, *, bold: bool = False) -> None:
        if not text:
            return
        self._leave_row()
        text = text.removesuffix("\n")
        self.target.write(f"\x1b[1m{text}\x1b[0m\n" if bold and self.colours else f"{text}\n")

    def _leave_row(self) -> None:
        if self._midline:
            self.target.write("\n")
        self._owner, self._midline = None, False


def _head(run: Execution) -> str:
    facts = [f"#{run.seq}", run.submitted_by, moment(run.started_at or run.queued_at)]
    return " · ".join(clean(fact) for fact in facts if fact)


def _code(run: Execution) -> str:
    lines = clean("(private)" if run.private else run.code).rstrip("\n").split("\n")
    return "\n".join(f"{'  ' if number else '▶ '}{line}" for number, line in enumerate(lines))


def _tail(run: Execution) -> str:
    facts = [f"#{run.seq} {run.state.value}", duration(took(run))]
    if run.error:
        facts.append(cut(first_line(f"{run.error.get('ename', '')}: {run.error.get('evalue', '')}"), 100))
    return " · ".join(clean(fact) for fact in facts if fact)
