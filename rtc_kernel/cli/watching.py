"""``watch``: follow a kernel's document in the terminal, until Ctrl-C or until the kernel is gone for good.

What is printed is never taken back, so it can be piped and scrolled: a stream's finished lines are printed as they
come, its last unfinished line (a progress bar) stands in the status line of a terminal until it is finished.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress

from rich.console import Console
from rich.live import Live
from rich.text import Text

from .. import discovery, rooms
from ..client import Change, Document, connect
from ..config import RTCKernel
from ..excerpts import Reading, say_missing, to_text
from ..tables import END_STATES, Execution, ExecutionState, KernelState, Output, to_json
from .terminal import clean, cut, duration, emit, first_line, out, output_text, tell, took

GONE_S = 6.0
"""A kernel that was said to be dead, or has no discovery file any more, is gone for good after this time: a
restart takes about a second."""

RESTART_S = 30.0
"""The same where its connection file is still there: whoever started it means to start it again, and a busy machine
takes its time."""

UNREACHABLE_S = 60.0
"""A kernel elsewhere that just does not answer is given up after this time."""

LOOK_S = 0.5
"""How often the clock is looked at while nothing happens."""


def watch(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc watch``."""
    target = args.target or discovery.only().kernel_id
    with suppress(KeyboardInterrupt):
        asyncio.run(_watch(target, args))
    return 0


async def _watch(target: str, args: argparse.Namespace) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    with suppress(NotImplementedError, RuntimeError, ValueError):
        if task is not None:
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        if rooms.is_link(target) and rooms.parse_link(target).kernel is None:
            from .gathering import watch_room  # which needs what is here

            await watch_room(target, args.token, once=args.once, as_json=args.json)
            return
        async with connect(target, args.token) as doc:
            if args.once:
                _show_once(doc, as_json=args.json)
            elif args.json:
                await _follow_json(doc, target)
            else:
                await _follow(doc, target)
    except asyncio.CancelledError:
        if task is not None:
            task.uncancel()


# --- once, and as JSON


def _show_once(doc: Document, *, as_json: bool) -> None:
    if as_json:
        for row in doc.executions.values():
            emit(to_json(row))
        return
    console = out()
    printer = Printer(colours=console.is_terminal)
    console.print(_headline(doc), style="bold")
    for row in doc.executions.values():
        for line in printer.lines(row):
            print_line(console, line)
        rest = printer.rest(row)
        if rest:
            print_line(console, rest)


async def _follow_json(doc: Document, target: str) -> None:
    async for change in _changes(doc, target):
        if change is not None:
            emit(change_json(change, doc.kernel.id))
    emit({"kind": "gone", "table": None, "id": doc.kernel.id, "record": None, "kernel": doc.kernel.id})


def change_json(change: Change, kernel: str) -> dict[str, object]:
    """A change of a kernel's document, as JSON."""
    record = change.record
    match record:
        case None:
            plain = None
        case Mapping():
            plain = dict(record)
        case _:
            plain = to_json(record)
    return {"kind": change.kind, "table": change.table, "id": change.id, "record": plain, "kernel": kernel}


# --- live


async def _follow(doc: Document, target: str) -> None:
    console = out()
    printer = Printer(colours=console.is_terminal)
    console.print(_headline(doc), style="bold")
    for row in doc.executions.values():
        if row.state in END_STATES:
            printer.skip(row)
    with status_of(console) as status:
        async for change in _changes(doc, target):
            rows: list[Execution] = []
            if change is not None and isinstance(change.record, Execution):
                rows = [change.record]
            elif change is None or change.kind == "reset":
                rows = list(doc.executions.values())
            for row in rows:
                for line in printer.lines(row):
                    print_line(console, line)
            if status is not None:
                status.update(status_line(doc, printer, console.width))
    tell(f"The kernel {doc.kernel.id} is gone.")


def status_of(console: Console) -> Live | _NoStatus:
    """The line below all others, where it is a terminal."""
    return Live(console=console, transient=True, refresh_per_second=8) if console.is_terminal else _NoStatus()


class _NoStatus:
    """Where there is no terminal there is no status line."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


async def _changes(doc: Document, target: str) -> AsyncIterator[Change | None]:
    """The changes, with a null first and whenever nothing happened for a moment; ends when the kernel is gone."""
    changes, away_since = doc.changes(), None
    yield None
    while True:
        change: Change | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                change = await anext(changes, None)
        yield change
        now = time.monotonic()
        away_since = None if doc.connected else away_since or now
        if away_since is not None and now - away_since > patience_s(doc, target):
            return


def patience_s(doc: Document, target: str) -> float:
    """How long a kernel that is not connected may stay so before it is gone for good."""
    is_local = not target.startswith(("http://", "https://")) and not rooms.is_link(target)
    lives = is_local and any(kernel.kernel_id == doc.kernel.id for kernel in discovery.live())
    if is_local and not lives:
        return RESTART_S if (discovery.directory().parent / f"kernel-{doc.kernel.id}.json").exists() else GONE_S
    return GONE_S if doc.kernel.state is KernelState.DEAD else UNREACHABLE_S


def _headline(doc: Document) -> str:
    kernel = doc.kernel
    name = kernel.display_name or kernel.name or "kernel"
    where = f" · {kernel.notebook}" if kernel.notebook else ""
    return clean(f"{name} {kernel.id[:8]} · {kernel.state.value}{where} · {doc.where}")


def status_line(doc: Document, printer: Printer, width: int) -> Text:
    """What the kernel does now, in a line."""
    if not doc.connected:
        return Text(cut(f"not connected, trying again ({doc.trouble})", width - 1), style="yellow")
    running = [row for row in doc.executions.values() if row.state is ExecutionState.RUNNING]
    queued = sum(row.state is ExecutionState.QUEUED for row in doc.executions.values())
    waiting = f" · {queued} queued" if queued else ""
    if not running:
        return Text(cut(f"{doc.kernel.state.value}{waiting}", width - 1), style="dim")
    row = running[0]
    since = duration(max(0.0, time.time() - row.started_at)) if row.started_at else ""
    text = f"#{row.seq} running {since}{waiting}"
    if row.input is not None:
        text += f" · asks: {clean(str(row.input.get('prompt', '')))}"
    elif rest := printer.rest(row):
        text += f" · {rest}"
    return Text(cut(text, width - 1))


def print_line(console: Console, line: str) -> None:
    """One line, with its colours where it is a terminal."""
    console.print(Text.from_ansi(line) if console.is_terminal else line, soft_wrap=True)


class Printer:
    """Which lines of the executions were printed, and which are to be printed now?

    Pure. Of each execution: whether it was begun and ended, how many of its outputs came, and of each of those that are
    there how much was printed.
    """

    def __init__(self, *, colours: bool = False) -> None:
        self._colours = colours
        self._begun: set[str] = set()
        self._ended: set[str] = set()
        self._printed: dict[str, _Printed] = {}

    def __repr__(self) -> str:
        return f"<Printer {len(self._begun)} begun, {len(self._ended)} ended>"

    def skip(self, row: Execution) -> None:
        """It ended before anybody looked: say nothing of it."""
        self._begun.add(row.id)
        self._ended.add(row.id)

    def lines(self, row: Execution) -> Iterator[str]:
        """The lines that are new, given how an execution is now."""
        if row.id in self._ended or row.state is ExecutionState.QUEUED:
            return
        if row.id not in self._begun:
            self._begun.add(row.id)
            who = f" {row.submitted_by}" if row.submitted_by else ""
            yield clean(f"#{row.seq}{who} ▶ {'(private)' if row.private else first_line(row.code)}")
        ends = row.state in END_STATES
        printed = self._printed.setdefault(row.id, _Printed())
        if row.output_count < printed.count:
            printed = self._printed[row.id] = _Printed()
            yield "(output cleared)"
        for position, output in zip(row.positions(), row.outputs, strict=True):
            if position > printed.count:
                yield say_missing(position - printed.count, f"#{row.seq}")
            printed.count = max(printed.count, position + 1)
            if output.output_type == "stream":
                whole = ends or position < row.output_count - 1
                text = printed.read_stream(position, output, f"#{row.seq}", whole=whole)
                yield from _lines(clean(text, colours=self._colours))
            elif printed.others.get(position) != output:
                printed.others[position] = output
                yield from _lines(output_text(output, colours=self._colours))
        if ends:
            self._ended.add(row.id)
            self._printed.pop(row.id, None)
            spent = duration(took(row))
            why = f" · {row.error['ename']}: {row.error['evalue']}" if row.error else ""
            yield clean(f"#{row.seq} {row.state.value}{f' · {spent}' if spent else ''}{why}")

    def rest(self, row: Execution) -> str:
        """The last line of a stream that is not finished yet."""
        if not row.outputs or row.outputs[-1].output_type != "stream" or row.id in self._ended:
            return ""
        return clean((row.outputs[-1].text or "").rpartition("\n")[2])


class _Printed:
    """Of one execution: how many outputs came, how far its streams were printed, and which others were."""

    def __init__(self) -> None:
        self.count = 0
        self.streams: dict[int, Reading] = {}
        self.others: dict[int, Output] = {}

    def read_stream(self, position: int, output: Output, execution: str, *, whole: bool) -> str:
        """What is new of a stream, up to its last line end where more may follow."""
        self.others.pop(position, None)
        reading = self.streams.setdefault(position, Reading())
        text = to_text(reading.read(output)[0], execution)
        fixed = text if whole else text[: text.rfind("\n") + 1]
        reading.settle(text[len(fixed) :])
        return fixed


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []
