"""What do the files of kernels that live or are dead say, without an agent?

Each file is opened read-only, and may be written by its agent at the same time. A file that cannot be read is
named and left as it is.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ...errors import SetupError
from . import rows
from .files import BUSY_S
from .lookup import Lookup

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFile:
    """One file of a directory. ``started_at``: of the first generation; ``ended_at``: of the last, null while it
    lives or when nobody saw its end. ``host``: the machine on which it ran last."""

    path: Path
    kernel_id: str
    display_name: str
    notebook: str | None
    started_at: float | None
    ended_at: float | None
    executions_count: int
    host: str = ""


class Archive(Lookup):
    """One history, read-only: a context manager, safe from any thread (one question at a time)."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Archive {self.path}>"

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Twice is once."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN")
                yield self._connection
            except (sqlite3.Error, ValueError, TypeError, LookupError) as exc:
                raise SetupError(f"the history {self.path} cannot be read ({exc})", "move or repair it") from exc
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")


def open_readonly(path: Path) -> Archive:
    """Open the history of a kernel, whether or not its agent writes to it now.

    Raises:
        SetupError: there is no such file, it is damaged, of a newer version or something else's.
    """
    if not path.is_file():
        raise SetupError(f"there is no history {path}", "`jupyter rtc history --all` names the ones there are")
    uri = path.absolute().as_uri() + "?mode=ro"
    try:
        connection = _open(uri)
    except sqlite3.OperationalError as exc:
        # WAL needs to make -shm beside the file. Where the directory cannot be written and nobody writes the
        # file (no -wal), it does not change while we read, and SQLite may be told so.
        if path.with_name(path.name + "-wal").exists():
            raise SetupError(f"the history {path} cannot be opened ({exc})", "try again as its owner") from exc
        connection = _checked(path, lambda: _open(uri + "&immutable=1"))
    except sqlite3.DatabaseError as exc:
        raise SetupError(f"the history {path} is damaged ({exc})", "move it away") from exc
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if 0 < version <= rows.FILE_VERSION:
        return Archive(path, connection)
    connection.close()
    if version == 0:
        raise SetupError(f"{path} is not a history of rtc_kernel", "name another file")
    raise SetupError(f"the history {path} is of a newer rtc_kernel (version {version})", "upgrade rtc_kernel")


def _checked(path: Path, work: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
    try:
        return work()
    except sqlite3.Error as exc:
        raise SetupError(f"the history {path} cannot be opened ({exc})", "try again as its owner") from exc


def _open(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def histories(
    directory: Path,
    *,
    notebook: str | None = None,
    on_damaged: Callable[[SetupError], None] | None = None,
) -> Iterator[HistoryFile]:
    """The histories of a directory, the one that was last begun first.

    Args:
        directory: one that is not there has no histories.
        notebook: only those of this notebook (its path as the kernel's row has it).
        on_damaged: told of each file that cannot be read (a warning in the log unless given).
    """
    found = []
    for path in sorted(directory.glob("*" + rows.SUFFIX)) if directory.is_dir() else ():
        try:
            with open_readonly(path) as archive:
                found.append(_describe(archive))
        except SetupError as exc:
            if on_damaged is None:
                _log.warning("%s", exc)
            else:
                on_damaged(exc)
    found.sort(key=lambda file: file.started_at or 0.0, reverse=True)
    yield from (file for file in found if notebook is None or file.notebook == notebook)


def _describe(archive: Archive) -> HistoryFile:
    kernels, generations = archive.kernels(), archive.generations()
    kernel = kernels[0] if kernels else None
    return HistoryFile(
        path=archive.path,
        kernel_id=kernel.id if kernel else archive.path.name.removesuffix(rows.SUFFIX),
        display_name=kernel.display_name if kernel else "",
        notebook=kernel.notebook if kernel else None,
        started_at=generations[0].started_at if generations else None,
        ended_at=generations[-1].ended_at if generations else None,
        executions_count=archive.count(),
        host=kernel.host if kernel else "",
    )
