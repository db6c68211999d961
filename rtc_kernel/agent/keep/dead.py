"""What may be done to the file of a kernel that is dead?

Door. A file is written only by whoever holds it alone: a file that another process has open is left as it is, so that
no history vanishes under an agent that nobody can see.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ...errors import SetupError
from . import upkeep
from .archive import open_readonly
from .edit import Editor
from .files import prepare
from .retention import Limits
from .upkeep import Pruned

ALONE_S = 0.5
"""Seconds to wait for others to close a file."""


def survey(path: Path, limits: Limits, *, now: float) -> Pruned:
    """What :func:`prune` would take away; nothing is written.

    Raises:
        SetupError: it cannot be read.
    """
    with open_readonly(path) as archive:
        return upkeep.survey(archive, replace(limits, newest=0), now=now, is_alive=False)


def prune(path: Path, limits: Limits, *, now: float) -> Pruned:
    """Bring the file within its limits; none of its executions is too new to go. A file that is left without
    executions is removed. One of an earlier version is brought up to this one.

    Raises:
        SetupError: it cannot be read or written, or another process has it open.
    """
    found = survey(path, limits, now=now)
    if not found.executions_count and found.executions_left:
        return found
    with _alone(path) as connection:
        if not found.executions_left:
            _remove(path)
            return found
        prepare(connection, path)
        steps = upkeep.prune(
            connection,
            replace(limits, newest=0),
            now=now,
            is_alive=False,
            editor=Editor(connection),
            clock=time.monotonic,
        )
        while True:
            try:
                next(steps)
            except StopIteration as end:
                pruned: Pruned = end.value
                break
        connection.executescript("PRAGMA incremental_vacuum")
        if not pruned.executions_left:
            _remove(path)
        return pruned


@contextmanager
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that nobody else has one beside. In WAL whoever has a file open holds a shared lock on it, which
    the exclusive mode waits for; without WAL nobody can tell, but then a lock is held only while it is written."""
    connection = sqlite3.connect(path, timeout=ALONE_S, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        yield connection
    except sqlite3.Error as exc:
        if "locked" in str(exc):
            what = f"the history {path} is open in another process"
            raise SetupError(what, "try again when it is closed") from exc
        raise SetupError(f"the history {path} cannot be written ({exc})", "free or repair the disk") from exc
    finally:
        connection.close()


def _remove(path: Path) -> None:
    try:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as exc:
        raise SetupError(f"the history {path} cannot be removed ({exc.strerror})", "remove it by hand") from exc


def size_bytes(path: Path) -> int:
    """What a history takes on the disk."""
    total = 0
    for suffix in ("", "-wal"):
        try:
            total += path.with_name(path.name + suffix).stat().st_size
        except OSError:
            continue
    return total
