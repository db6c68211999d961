"""``prune``: take the oldest executions out of histories.

The file of a dead kernel is brought within the limits here; a live kernel's agent is asked to do it, because a file
has one writer.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .. import discovery
from ..agent.keep import dead
from ..agent.keep.archive import HistoryFile
from ..agent.keep.retention import DAY_S, Limits
from ..client import call
from ..config import RTCKernel, history_directory
from ..errors import SetupError
from ..notebook import size_text
from ..tables import Json
from .histories import kept
from .kernels import address_of
from .terminal import emit, out, table, tell


def prune(args: argparse.Namespace, settings: RTCKernel) -> int:
    """``jupyter rtc prune``: exit code 1 where a history could not be brought within the limits."""
    limits = _limits(args, settings)
    live, files = _choose(args, settings)
    rows: list[Json] = []
    failed = 0
    for work in (
        *(partial(_of_live, kernel, limits, args) for kernel in live),
        *(partial(_of_dead, file, limits, args) for file in files),
    ):
        try:
            rows.append(work())
        except SetupError as exc:
            tell(f"jupyter rtc: {exc}")
            failed += 1
    if args.json:
        emit(rows)
    else:
        for line in _lines(rows, dry_run=args.dry_run):
            out().print(line)
    return 1 if failed else 0


def _limits(args: argparse.Namespace, settings: RTCKernel) -> Limits:
    """What the command says; where it says nothing, what the settings say."""
    if args.older_than is None and args.keep is None and args.max_size is None:
        return Limits(days=settings.keep_days, executions=settings.keep_executions, bytes=settings.keep_bytes)
    return Limits(days=(args.older_than or 0) / DAY_S, executions=args.keep or 0, bytes=args.max_size or 0)


def _choose(args: argparse.Namespace, settings: RTCKernel) -> tuple[list[discovery.LiveKernel], list[HistoryFile]]:
    live = discovery.live()
    ids = {kernel.kernel_id for kernel in live}
    files = [file for file in kept(settings) if file.kernel_id not in ids]
    if args.kernel is None:
        return live if args.all else [], list(_of_this_host(files))
    try:
        return [discovery.find(args.kernel, live)], []
    except SetupError:
        if any(key.startswith(args.kernel) for key in ids):
            raise  # several of them
    matches = [file for file in files if file.kernel_id.startswith(args.kernel)]
    if len(matches) == 1:
        return [], matches
    if matches:
        names = ", ".join(file.kernel_id for file in matches)
        raise SetupError(f"{args.kernel!r} begins the ids of {len(matches)} kernels", f"give one of: {names}", 2)
    where = history_directory(settings) or "memory"
    raise SetupError(
        f"no kernel {args.kernel!r} lives or has left a history in {where}",
        "`jupyter rtc history --all` shows what is kept",
        2,
    )


def _of_this_host(files: list[HistoryFile]) -> Iterator[HistoryFile]:
    """A directory may be shared by several machines: only a kernel's own knows whether it lives."""
    for file in files:
        if file.host in ("", socket.gethostname()) or file.ended_at is not None:
            yield file
        else:
            tell(f"jupyter rtc: {file.kernel_id} may live on {file.host}: prune it there, or give its id")


def _of_live(kernel: discovery.LiveKernel, limits: Limits, args: argparse.Namespace) -> Json:
    body = {
        "older_than_s": limits.days * DAY_S,
        "keep": limits.executions,
        "max_bytes": limits.bytes,
        "dry_run": args.dry_run,
    }
    done = asyncio.run(call(address_of(kernel), "POST", "/api/prune", body))
    row: Json = {"kernel_id": kernel.kernel_id, "notebook": kernel.notebook, "path": kernel.store, "alive": True}
    return row | {name: done[name] for name in ("executions", "bytes", "executions_left")} | {"removed": False}


def _of_dead(file: HistoryFile, limits: Limits, args: argparse.Namespace) -> Json:
    now, before = time.time(), dead.size_bytes(file.path)
    row: Json = {"kernel_id": file.kernel_id, "notebook": file.notebook, "path": str(file.path), "alive": False}
    if args.dry_run:
        found = dead.survey(file.path, limits, now=now)
        size = found.bytes if found.executions_left else before
    else:
        found = dead.prune(file.path, limits, now=now)
        size = max(0, before - dead.size_bytes(file.path))
    return row | {
        "executions": found.executions_count,
        "bytes": size,
        "executions_left": found.executions_left,
        "removed": not found.executions_left,
    }


def _lines(rows: list[Json], *, dry_run: bool) -> Iterator[object]:
    shown = [row for row in rows if row["executions"] or row["removed"]]
    if not shown:
        yield f"Nothing to take away: {_count(len(rows), 'history', 'histories')} within the limits."
        return
    cells = [
        (
            row["kernel_id"][:8],
            Path(row["notebook"]).name if row["notebook"] else "-",
            str(row["executions"]),
            "removed" if row["removed"] else str(row["executions_left"]),
            size_text(row["bytes"]),
        )
        for row in shown
    ]
    yield table(("KERNEL", "NOTEBOOK", "EXECUTIONS", "LEFT", "FREES" if dry_run else "FREED"), cells)
    count = sum(row["executions"] for row in shown)
    size = size_text(sum(row["bytes"] for row in shown))
    what = f"{_count(count, 'execution', 'executions')} of {_count(len(shown), 'history', 'histories')}, {size}"
    yield f"Would go: {what}. Nothing was taken away." if dry_run else f"Gone: {what}."


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
