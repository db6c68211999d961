"""``watch`` of a room at a relay: all its kernels at once, until Ctrl-C.

Each line says whose it is; lines of different kernels stand in the order in which they came, and never within each
other. A kernel that comes, ends or goes is a line of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePath

from rich.console import Console
from rich.text import Text

from ..relayed import Member, News, Room, follow_room
from ..rooms import Entry
from ..tables import END_STATES, Execution, ExecutionState, Kernel, KernelState, to_json
from .terminal import clean, cut, emit, out
from .watching import LOOK_S, Printer, change_json, print_line, status_line, status_of

NAME_COLUMNS = 16
"""Of a kernel's name before its lines; its id stands behind it."""

ID_COLUMNS = 4
"""Of a kernel's id, unless another one begins with the same."""

RECENT = 10
"""Of a kernel that comes while one watches, so many executions are told that had ended before its document was here: a
short run may have had all of its life before."""

COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red")
"""Whose line it is, where it is a terminal; red as such is for errors."""


async def watch_room(target: str, token: str | None, *, once: bool, as_json: bool) -> None:
    """Follow all kernels of a room, until cancelled; ``once``: show what there is."""
    async with follow_room(target, token) as room:
        if once:
            _show_once(room, as_json=as_json)
        elif as_json:
            await _follow_json(room)
        else:
            await _follow(room)


# --- once, and as JSON


def _show_once(room: Room, *, as_json: bool) -> None:
    members = _shown(room)
    rows = [row for member in members for row in member.executions.values()]
    rows.sort(key=lambda row: (row.started_at or row.queued_at or 0.0, row.seq))
    if as_json:
        for row in rows:
            emit(to_json(row))
        return
    board = Board(out(), room)
    board.say_room()
    for member in members:
        board.come(member)
    owners = {row.id: member for member in members for row in member.executions.values()}
    for row in rows:
        board.show(owners[row.id], row)
        board.show_rest(owners[row.id], row)


async def _follow_json(room: Room) -> None:
    while True:
        news = await room.news()
        kernel = news.member.entry.kernel
        if news.change is not None:
            emit(change_json(news.change, kernel))
            continue
        entry = {"id": kernel, **news.member.entry.to_json()} if news.kind == "came" else None
        why = {"why": news.why} if news.why else {}
        emit({"kind": news.kind, "table": None, "id": kernel, "record": entry, "kernel": kernel, **why})
        if news.kind == "came":
            for row in news.member.executions.values():
                emit({"kind": "added", "table": "executions", "id": row.id, "record": to_json(row), "kernel": kernel})


# --- live


async def _follow(room: Room) -> None:
    console = out()
    board = Board(console, room)
    board.say_room()
    with status_of(console) as status:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    board.take(await room.news())
            room.raise_if_refused()
            if status is not None:
                status.update(board.status_line())


def _shown(room: Room) -> list[Member]:
    return [member for member in room.members.values() if member.connected]


class Board:
    """What is printed of a room's kernels: of each its label, its lines so far, and how it was."""

    def __init__(self, console: Console, room: Room) -> None:
        self._console = console
        self._room = room
        self._labels = Labels()
        self._first = set(room.members)
        self._printers: dict[str, Printer] = {}
        self._states: dict[str, tuple[KernelState, int]] = {}

    def __repr__(self) -> str:
        return f"<Board {len(self._printers)} kernels>"

    def say_room(self) -> None:
        """The headline."""
        place, count = self._room.place, len(self._room.members)
        kernels = {0: "no kernel yet", 1: "1 kernel"}.get(count, f"{count} kernels")
        self._console.print(clean(f"{place.room} · {kernels} · {place.link}"), style="bold")

    def take(self, news: News) -> None:
        """Print what is new."""
        member = news.member
        match news.kind:
            case "came":
                self.come(member)
                self._show_first(member)
            case "left":
                state, _ = self._states.pop(member.entry.kernel, (None, 0))
                if state is not KernelState.DEAD:  # which was told
                    self._say(member, "is not published here any more")
            case "failed":
                self._say(member, f"cannot be followed: {news.why}")
            case "changed" if news.change is not None:
                record = news.change.record
                if isinstance(record, Execution):
                    self.show(member, record)
                elif isinstance(record, Kernel):
                    self._note_state(member)
                elif news.change.kind == "reset":
                    self._note_state(member)
                    self._show_all(member)

    def come(self, member: Member) -> None:
        """Say who it is."""
        self._states[member.entry.kernel] = _state_of(member.kernel)
        self._say(member, "+ " + describe(member.entry, member.kernel))

    def show(self, member: Member, row: Execution) -> None:
        """Print what is new of an execution."""
        for line in self._printer(member).lines(row):
            self._print(member, line)

    def show_rest(self, member: Member, row: Execution) -> None:
        """Print its last line as far as it is there."""
        if rest := self._printer(member).rest(row):
            self._print(member, rest)

    def status_line(self) -> Text:
        """How the room is, in a line; of what runs the last that began."""
        room, width = self._room, self._console.width - 1
        if not room.connected:
            return Text(cut(f"not connected, trying again ({room.trouble})", width), style="yellow")
        members = _shown(room)
        running = [
            (row.started_at or 0.0, row.id, member)
            for member in members
            for row in member.executions.values()
            if row.state is ExecutionState.RUNNING
        ]
        counted = f"{len(members)} kernel{'' if len(members) == 1 else 's'}, {len(running)} running"
        if not running:
            return Text(cut(counted, width), style="dim")
        member = max(running, key=lambda one: one[:2])[2]
        said = status_line(member, self._printer(member), self._console.width).plain
        return Text(cut(f"{counted} · {self._labels.of(member.entry)} {said}", width))

    def _show_first(self, member: Member) -> None:
        """Of what had ended before anybody looked, say nothing; of a kernel that came since, the last of it."""
        is_new = member.entry.kernel not in self._first
        ended = [row for row in member.executions.values() if row.state in END_STATES]
        told = ended[-RECENT:] if is_new else []
        before = len(ended) - len(told)
        for row in ended[:before]:
            self._printer(member).skip(row)
        if is_new and before:
            self._say(member, f"({before} execution{'' if before == 1 else 's'} before)")
        self._show_all(member)

    def _show_all(self, member: Member) -> None:
        for row in member.executions.values():
            self.show(member, row)

    def _note_state(self, member: Member) -> None:
        """Say that it ended, or was restarted."""
        kernel, now = member.kernel, _state_of(member.kernel)
        before = self._states.get(kernel.id, now)
        self._states[kernel.id] = now
        if now[0] is KernelState.DEAD and before[0] is not KernelState.DEAD:
            code = "" if kernel.exit_code is None else f" (exit code {kernel.exit_code})"
            self._say(member, f"the kernel has ended{code}")
        elif now[1] > before[1]:
            self._say(member, "the kernel was restarted")

    def _printer(self, member: Member) -> Printer:
        """Of a kernel, whatever the lives of its document: its executions keep their ids."""
        return self._printers.setdefault(member.entry.kernel, Printer(colours=self._console.is_terminal))

    def _say(self, member: Member, line: str) -> None:
        self._print(member, line, style="bold")

    def _print(self, member: Member, line: str, style: str = "") -> None:
        label = self._labels.of(member.entry)
        if not self._console.is_terminal:
            print_line(self._console, f"{label} | {line}")
            return
        colour = COLOURS[self._labels.number(member.entry.kernel) % len(COLOURS)]
        width = max(20, self._console.width - len(label) - 3)
        text = Text.from_ansi(clean(line, colours=True))
        text.expand_tabs(8)
        text.stylize(style)
        for row, part in enumerate(text.wrap(self._console, width)):
            head = label if row == 0 else " " * len(label)
            self._console.print(Text.assemble((head, colour), (" │ ", "dim"), part), soft_wrap=True)


class Labels:
    """How are kernels called before their lines?

    Pure. A label is never another one later, and no two are the same.
    """

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}

    def of(self, entry: Entry) -> str:
        """Its name, in so many columns for all, and the beginning of its id."""
        if entry.kernel not in self._labels:
            name = cut(clean(name_of(entry)), NAME_COLUMNS)
            start = short(entry.kernel, self._labels)
            self._labels[entry.kernel] = f"{name:<{NAME_COLUMNS}} {start:<{ID_COLUMNS}}"
        return self._labels[entry.kernel]

    def number(self, kernel: str) -> int:
        """The how manieth it is."""
        return list(self._labels).index(kernel)


def short(kernel: str, others: Iterable[str]) -> str:
    """The beginning of an id by which it is told from others."""
    others = list(others)
    for length in range(ID_COLUMNS, len(kernel)):
        if not any(other.startswith(kernel[:length]) for other in others):
            return clean(kernel[:length])
    return clean(kernel)


def name_of(entry: Entry) -> str:
    """What a kernel is called in a few words: its notebook, or else its kind."""
    if entry.notebook:
        return PurePath(entry.notebook).stem
    return entry.display_name or entry.name or "kernel"


def describe(entry: Entry, kernel: Kernel) -> str:
    """Who it is, and how it is."""
    name = kernel.display_name or entry.display_name or kernel.name or "kernel"
    notebook = kernel.notebook or entry.notebook
    where = " on ".join(part for part in (PurePath(notebook).name if notebook else "", entry.host) if part)
    return clean(" · ".join(part for part in (name, kernel.state.value, where) if part))


def _state_of(kernel: Kernel) -> tuple[KernelState, int]:
    return kernel.state, kernel.generation
