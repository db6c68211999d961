"""``history``, ``show``, ``export``: what ran, on kernels that live or are dead.

Read from the store's files, with or without an agent beside them; a live kernel that keeps its history in memory
only, or one elsewhere, is asked over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

from .. import discovery
from ..agent.keep.archive import HistoryFile, histories, open_readonly
from ..agent.keep.rows import SUFFIX
from ..client import Address, call, fetch
from ..config import RTCKernel, history_directory
from ..errors import MissingError, SetupError
from ..moments import UNKNOWN, Growth, Step, began_at, execution_at, unknown_count
from ..notebook import to_notebook
from ..tables import END_STATES, Cell, Execution, ExecutionState, Kernel, KernelState, execution_from_json, to_json
from .kernels import address_of
from .terminal import clean, cut, duration, emit, first_line, moment, out, output_text, table, tell, took

PAGE = 500


# --- where a history is


@dataclass(frozen=True, slots=True)
class Filter:
    """Which executions of a history; null: all."""

    grep: str | None = None
    state: str | None = None


class History(Protocol):
    """One kernel's history, wherever it is kept."""

    kernel_id: str
    notebook: str | None

    def newest(self, count: int, wanted: Filter) -> list[Execution]:
        """The last so many executions, newest first."""

    def find(self, key: str) -> Execution | None:
        """One execution by id, the beginning of its id, or number; null: none, or several."""

    def growths(self, executions: Iterable[Execution]) -> Iterator[Growth]:
        """How the streams of each of these grew."""

    def kernel(self) -> Kernel | None:
        """The kernel's row."""

    def cells(self) -> tuple[Cell, ...]:
        """The cells of a headless run."""

    def blob(self, digest: str) -> bytes | None:
        """Bytes by their digest; null: not kept."""


class Stored:
    """A history in a file. ``alive``: its kernel runs; else nobody is there to end what the file calls running."""

    def __init__(self, path: Path, kernel_id: str, notebook: str | None, *, alive: bool) -> None:
        self.path = path
        self.kernel_id = kernel_id
        self.notebook = notebook
        self._alive = alive

    def _as_it_is(self, run: Execution) -> Execution:
        return run if self._alive or run.state in END_STATES else replace(run, state=ExecutionState.LOST)

    def newest(self, count: int, wanted: Filter) -> list[Execution]:
        """See :class:`History`."""
        found: list[Execution] = []
        before: int | None = None
        with open_readonly(self.path) as archive:
            while len(found) < count:
                page, before = archive.history(
                    before=before, limit=min(PAGE, count - len(found)), grep=wanted.grep, state=wanted.state
                )
                found += map(self._as_it_is, page)
                if before is None:
                    break
        return found

    def find(self, key: str) -> Execution | None:
        """See :class:`History`."""
        with open_readonly(self.path) as archive:
            found = archive.execution(key)
        return None if found is None else self._as_it_is(found)

    def growths(self, executions: Iterable[Execution]) -> Iterator[Growth]:
        """See :class:`History`."""
        with open_readonly(self.path) as archive:
            for run in executions:
                yield archive.growth(run.id) if _has_stream(run) else {}

    def kernel(self) -> Kernel | None:
        """See :class:`History`."""
        with open_readonly(self.path) as archive:
            return next(iter(archive.kernels()), None)

    def cells(self) -> tuple[Cell, ...]:
        """See :class:`History`."""
        with open_readonly(self.path) as archive:
            return archive.cells()

    def blob(self, digest: str) -> bytes | None:
        """See :class:`History`."""
        with open_readonly(self.path) as archive:
            found = archive.blob(digest)
        return None if found is None else found[0]


class Remembered:
    """A history that a live agent has, in its memory or elsewhere."""

    def __init__(self, address: Address, kernel_id: str, notebook: str | None) -> None:
        self.address = address
        self.kernel_id = kernel_id
        self.notebook = notebook

    def newest(self, count: int, wanted: Filter) -> list[Execution]:
        """See :class:`History`."""
        found: list[Execution] = []
        before: int | None = None
        while len(found) < count:
            asked = {
                "limit": min(PAGE, count - len(found)),
                "before": before,
                "grep": wanted.grep,
                "state": wanted.state,
            }
            query = urlencode({name: value for name, value in asked.items() if value is not None})
            page = asyncio.run(call(self.address, "GET", f"/api/history?{query}"))
            found += [self._whole(execution_from_json(value)) for value in page["executions"]]
            before = page["next"]
            if before is None:
                break
        return found

    def _whole(self, run: Execution) -> Execution:
        """An execution of which a page had perhaps only the ends."""
        is_cut = run.omitted_code_bytes or run.omitted_outputs or any(one.omitted_bytes for one in run.outputs)
        return (self.find(run.id) or run) if is_cut else run

    def find(self, key: str) -> Execution | None:
        """See :class:`History`."""
        try:
            value = asyncio.run(call(self.address, "GET", f"/api/executions/{quote(key, safe='')}"))
        except MissingError:
            return None
        return execution_from_json(value)

    def growths(self, executions: Iterable[Execution]) -> Iterator[Growth]:
        """See :class:`History`."""
        for run in executions:
            grown: dict[int, list[Step]] = {}
            if _has_stream(run):
                path = f"/api/executions/{quote(run.id, safe='')}/marks"
                for position, chars, at in asyncio.run(call(self.address, "GET", path))["marks"]:
                    grown.setdefault(position, []).append(Step(chars, at))
            yield grown

    def kernel(self) -> Kernel | None:
        """See :class:`History`."""
        row = asyncio.run(call(self.address, "GET", "/api/health"))["kernel"]
        if row is None:
            return None
        known = {name: row[name] for name in Kernel.__dataclass_fields__ if name in row}
        return Kernel(**known | {"state": KernelState(row["state"])})

    def cells(self) -> tuple[Cell, ...]:
        """See :class:`History`."""
        return ()

    def blob(self, digest: str) -> bytes | None:
        """See :class:`History`."""
        try:
            return asyncio.run(fetch(self.address, "GET", f"/blobs/{digest.removeprefix('sha256:')}"))
        except SetupError:
            return None


def _has_stream(run: Execution) -> bool:
    return any(output.output_type == "stream" for output in run.outputs)


def kept(settings: RTCKernel) -> list[HistoryFile]:
    """The files that there are, the one that was last begun first."""
    directory = history_directory(settings)
    if directory is None:
        return []
    return list(histories(directory, on_damaged=lambda exc: tell(f"jupyter rtc: {exc}")))


def choose(name: str | None, settings: RTCKernel) -> History:
    """The history of the kernel that was named; without a name of the only one that lives, else of the last.

    Args:
        name: an id, the beginning of one, a connection file, a history's file, or a link.

    Raises:
        SetupError: none or several; lists them.
    """
    if name is not None and name.startswith(("http://", "https://")):
        return _of_link(Address.resolve(name))
    live = discovery.live()
    if name is not None and name.endswith(SUFFIX):
        return _of_file(Path(name).expanduser(), live)
    if name is None and live:
        return _of_live(discovery.only(live))
    if name is not None:
        try:
            return _of_live(discovery.find(name, live))
        except SetupError:
            if any(kernel.kernel_id.startswith(name) for kernel in live):
                raise  # several of them
    files = kept(settings)
    matches = [file for file in files if name is None or file.kernel_id.startswith(name)]
    if not matches:
        what = f"no kernel {name!r} lives or has left a history" if name else "no kernel has left a history"
        remedy = "`jupyter rtc history --all` shows what is kept" if files else "run something on an RTC kernel"
        raise SetupError(f"{what} in {history_directory(settings) or 'memory'}", remedy, 2)
    if name is not None and len(matches) > 1:
        names = ", ".join(file.kernel_id for file in matches)
        raise SetupError(f"{name!r} begins the ids of {len(matches)} kernels", f"give one of: {names}", 2)
    return Stored(matches[0].path, matches[0].kernel_id, matches[0].notebook, alive=False)


def _of_live(kernel: discovery.LiveKernel) -> History:
    if kernel.store is not None:
        return Stored(Path(kernel.store), kernel.kernel_id, kernel.notebook, alive=True)
    return Remembered(address_of(kernel), kernel.kernel_id, kernel.notebook)


def _of_link(address: Address) -> History:
    row = asyncio.run(call(address, "GET", "/api/health")).get("kernel")
    if row is None:
        raise SetupError(f"the link to {address.url} is not in force", "ask for a new link with %rtc share")
    return Remembered(address, row["id"], row.get("notebook"))


def _of_file(path: Path, live: list[discovery.LiveKernel]) -> History:
    with open_readonly(path) as archive:
        row = next(iter(archive.kernels()), None)
    alive = any(kernel.store is not None and Path(kernel.store).resolve() == path.resolve() for kernel in live)
    return Stored(path, row.id if row else path.name.removesuffix(SUFFIX), row.notebook if row else None, alive=alive)


def _several(args: argparse.Namespace, settings: RTCKernel) -> Iterator[History]:
    """Live ones first, then those that only left a file, the last begun first."""
    wanted = None if args.notebook is None else str(Path(args.notebook).expanduser().resolve())
    seen = set()
    for kernel in reversed(discovery.live()):
        seen.add(kernel.kernel_id)
        if wanted is None or kernel.notebook == wanted:
            yield _of_live(kernel)
    for file in kept(settings):
        if file.kernel_id not in seen and (wanted is None or file.notebook == wanted):
            yield Stored(file.path, file.kernel_id, file.notebook, alive=False)


# --- the commands


def show_history(args: argparse.Namespace, settings: RTCKernel) -> int:
    """``jupyter rtc history``."""
    several = args.all or args.notebook is not None
    sources = list(_several(args, settings)) if several else [choose(args.kernel, settings)]
    if several and not sources:
        what = f"no kernel of {args.notebook} has left a history" if args.notebook else "there is no history"
        raise SetupError(what, "run something on an RTC kernel", 2)
    wanted = Filter(args.grep, args.state)
    found = [(source, row) for source in sources for row in source.newest(args.n, wanted)]
    found.sort(key=lambda item: _when(item[1]), reverse=True)
    found = found[: args.n]
    if args.json:
        emit([to_json(row) for _, row in found])
        return 0
    console = out()
    shown = ("KERNEL",) if several else ()
    rows = []
    for source, row in reversed(found):  # the newest stands last, next to the prompt
        code = "(private)" if row.private else first_line(row.code)
        cells = [f"#{row.seq}", row.state.value, moment(_when(row)), duration(took(row)), row.submitted_by]
        rows.append([*([source.kernel_id[:8]] if several else []), *cells, cut(clean(code), 60)])
    if rows:
        console.print(table((*shown, "NUMBER", "STATE", "AT", "TOOK", "BY", "CODE"), rows))
    else:
        console.print("Nothing ran that fits.")
    return 0


def _when(row: Execution) -> float:
    return row.started_at or row.queued_at or 0.0


def show_execution(args: argparse.Namespace, settings: RTCKernel) -> int:
    """``jupyter rtc show``."""
    row = _find(args, settings)
    if args.json:
        emit(to_json(row))
        return 0
    console = out()
    facts = [f"#{row.seq}", row.state.value, moment(_when(row)), duration(took(row)), row.submitted_by]
    console.print(" · ".join(clean(fact) for fact in facts if fact), style="bold")
    console.print(clean("(private)" if row.private else row.code))
    for output in row.outputs:
        text = output_text(output, colours=console.is_terminal)
        console.file.write(text if text.endswith("\n") or not text else text + "\n")
    return 0


def _find(args: argparse.Namespace, settings: RTCKernel) -> Execution:
    is_number = args.id.removeprefix("#").isdigit() and len(args.id) < 8
    if args.kernel is not None or is_number:
        sources: list[History] = [choose(args.kernel, settings)]
    else:
        sources = list(_several(argparse.Namespace(notebook=None), settings))
    for source in sources:
        row = source.find(args.id)
        if row is not None:
            return row
    raise SetupError(f"no execution {args.id!r}, or more than one", "`jupyter rtc history --json` has the ids", 2)


def export(args: argparse.Namespace, settings: RTCKernel) -> int:
    """``jupyter rtc export``."""
    path = Path(args.file)
    if args.file != "-" and path.exists() and not args.force:
        raise SetupError(f"{path} exists", "choose another name, or --force", 2)
    source = choose(args.kernel, settings)
    executions, cells = source.newest(1_000_000, Filter()), source.cells()
    if args.at is not None:
        executions = _at(source, executions, args.at)
        cells = cells if executions else ()
    value = to_notebook(executions, kernel=source.kernel(), blob=source.blob, cells=cells)
    unknown = sum(map(unknown_count, executions)) if args.at is not None else 0
    if args.at is not None:
        value["metadata"]["rtc"] = {"at": _iso(args.at), "unknown_outputs": unknown, "note": AT_NOTE}
    if args.file == "-":
        out().file.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
        return 0
    import nbformat  # a second of its validator's imports that no other command here needs

    from ..run import write

    write(nbformat.from_dict(value), path)  # type: ignore[no-untyped-call]
    when = "" if args.at is None else f" at {_iso(args.at)}"
    count = f"{len(executions)} {'execution' if len(executions) == 1 else 'executions'}"
    tell(f"{count} of {source.kernel_id}{when} in {path}")
    if unknown:
        tell(f"{unknown} of their displays {'was' if unknown == 1 else 'were'} updated later: {UNKNOWN}")
    return 0


AT_NOTE = (
    "The history as it was at this time, as far as it is kept. Text is exact to 50 ms. What was cleared or overwritten "
    "later is not there; a display that was updated later is named in its place."
)
"""What an export of an earlier time says of itself."""


def _at(source: History, executions: list[Execution], at: float) -> list[Execution]:
    """Those that were there at a time, as they were."""
    then = [run for run in executions if began_at(run) <= at]
    found = (execution_at(run, growth, at) for run, growth in zip(then, source.growths(then), strict=True))
    return [run for run in found if run is not None]


def _iso(at: float) -> str:
    """A time as ISO 8601, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
