"""``run``: a notebook, headless, with its progress in the terminal.

The live link and the progress go to stderr; stdout has the notebook (``-o -``) or one JSON object per event.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, assert_never

import nbformat
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .. import rooms, run
from ..config import RTCKernel
from ..errors import SetupError
from ..parameters import parse_value
from .terminal import clean, cut, duration, emit, first_line, tell


def run_notebook(args: argparse.Namespace, settings: RTCKernel) -> int:
    """``jupyter rtc run``."""
    if args.json and args.output == "-":
        raise SetupError("--json and -o - both want stdout", "give -o a file", 2)
    if args.relay is not None:
        settings.relays = [*settings.relays, args.relay]
    if args.room is not None:
        settings.relay_room = args.room
    for url in settings.relays:  # what cannot be used is told before anything runs
        rooms.place(url, settings.relay_room or "run")
    wanted = run.Run(
        notebook=args.notebook,
        kernel=args.kernel,
        timeout_s=args.timeout,
        allow_errors=args.allow_errors,
        parameters={name: parse_value(value) for name, value in args.parameter},
        share=args.share,
        linger_s=args.linger,
        settings=settings,
    )
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    view: View = JsonView() if args.json else BarView(console) if console.is_terminal else LineView()
    told: list[run.Outcome] = []

    def tell_outcome(outcome: run.Outcome) -> None:
        told.append(outcome)
        view.close()
        if args.output == "-":
            _print_notebook(outcome.notebook)
        elif args.output is not None:
            run.write(outcome.notebook, Path(args.output))
        if outcome.traceback:
            sys.stderr.write(clean(outcome.traceback, colours=console.is_terminal) + "\n")
        view.end(outcome, args.output)

    def show(progress: run.Progress) -> None:
        if isinstance(progress, run.Lingering):  # what there is to have is had at once, not when the link has gone
            tell_outcome(progress.outcome)
        view.show(progress)

    try:
        outcome = asyncio.run(run.run_notebook(wanted, show))
    finally:
        view.close()
    if not told:
        tell_outcome(outcome)
    return outcome.exit_code


def _print_notebook(notebook: nbformat.NotebookNode) -> None:
    text = io.StringIO()
    nbformat.write(notebook, text)  # type: ignore[no-untyped-call]
    sys.stdout.write(text.getvalue())


class View(Protocol):
    """How a run is shown."""

    def show(self, progress: run.Progress) -> None:
        """Something happened."""

    def close(self) -> None:
        """Nothing more will happen."""

    def end(self, outcome: run.Outcome, output: str | None) -> None:
        """How it ended; ``output``: where the notebook was written."""


class JsonView:
    """One JSON object per event."""

    def show(self, progress: run.Progress) -> None:
        """See :class:`View`."""
        if isinstance(progress, run.Lingering):
            emit({"event": "linger", "seconds": progress.seconds})
            return
        names = {run.Linked: "link", run.Unlinked: "no link", run.CellStarted: "cell", run.CellEnded: "cell"}
        value = {"event": names[type(progress)], **asdict(progress)}
        if isinstance(progress, run.CellStarted | run.CellEnded):
            value["line"] = first_line(value.pop("code"))
            value.setdefault("state", "running")
        emit(value)

    def close(self) -> None:
        """See :class:`View`."""

    def end(self, outcome: run.Outcome, output: str | None) -> None:
        """See :class:`View`."""
        emit(
            {
                "event": "end",
                "state": outcome.state,
                "message": outcome.message,
                "kernel_id": outcome.kernel_id,
                "duration_s": outcome.duration_s,
                "output": output,
                "exit_code": outcome.exit_code,
            }
        )


class LineView:
    """Plain lines, for logs."""

    def __init__(self) -> None:
        self._linked: run.Linked | None = None

    def show(self, progress: run.Progress) -> None:
        """See :class:`View`."""
        match progress:
            case run.Linked(_, url, proxied_url, _, relays):
                self._linked = progress
                self.line(f"Live: {url}")
                if proxied_url:
                    self.line(f"Behind this machine's Jupyter server: {proxied_url}")
                for relay in relays:
                    self.line(f"Published at: {relay}")
            case run.Unlinked(why):
                self.line(f"No live link: {why}. The run goes on.")
            case run.CellStarted(number, count, _, code):
                self.started(number, count, cut(clean(first_line(code)), 60))
            case run.CellEnded(number, count, _, code, state, duration_s):
                self.ended(number, count, cut(clean(first_line(code)), 60), state, duration_s)
            case run.Lingering(_, seconds):
                self.line(f"The link stays for {duration(seconds)}; Ctrl-C ends it.")
            case _:
                assert_never(progress)

    def line(self, text: str) -> None:
        """Show one line."""
        tell(text)

    def started(self, number: int, count: int, line: str) -> None:
        """A cell begins."""
        self.line(f"[{number:>{len(str(count))}}/{count}] running      {line}")

    def ended(self, number: int, count: int, line: str, state: str, duration_s: float) -> None:
        """A cell has ended."""
        self.line(f"[{number:>{len(str(count))}}/{count}] {state:<11} {duration(duration_s):>8}  {line}")

    def close(self) -> None:
        """See :class:`View`."""

    def end(self, outcome: run.Outcome, output: str | None) -> None:
        """See :class:`View`."""
        if outcome.message:
            tell(f"jupyter rtc: {outcome.message}")
        else:
            tell(f"Done in {duration(outcome.duration_s)}.")
        if output not in (None, "-"):
            tell(f"Notebook: {output}")
        if self._linked is not None and self._linked.store is not None:
            tell(f"History: {self._linked.store} (`jupyter rtc history {outcome.kernel_id[:8]}`)")
        elif output is None:
            tell("Nothing was written (-o OUT writes the notebook).")


class BarView(LineView):
    """A progress bar: cell, time, state and the first line of the code that runs."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}"),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    def line(self, text: str) -> None:
        """See :class:`LineView`."""
        self._console.print(text, soft_wrap=True)

    def started(self, number: int, count: int, line: str) -> None:
        """See :class:`LineView`."""
        line = cut(line, max(10, self._console.width - 50))
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(line, total=count, state="running")
        self._bar.update(self._task, description=line, completed=number - 1, state="running")

    def ended(self, number: int, count: int, line: str, state: str, duration_s: float) -> None:
        """See :class:`LineView`."""
        if self._task is not None:
            self._bar.update(self._task, completed=number, state=state)
        if state != "ok":
            super().ended(number, count, line, state, duration_s)

    def close(self) -> None:
        """See :class:`LineView`."""
        self._bar.stop()
