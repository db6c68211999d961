"""How is a history's file made, checked, and moved out of the way?

Everything here happens once, when a store is opened; nothing here knows what the tables mean.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from ...errors import SetupError
from . import rows

BUSY_S = 5.0
"""Time that a statement waits for another process's lock."""

WAL_BYTES = 16 << 20
"""A write-ahead log that has grown larger is cut to this when it begins anew."""

WAL_LOAD_BYTES = 128 << 20
"""So much may wait in the write-ahead log while no moment is quiet: what is moved from there into the tables is written
a second time, and that was half of what a flood of images cost."""

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smbfs", "smb3", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"}
    | {"vboxsf", "prl_fs", "virtiofs", "drvfs", "fakeowner", "ocfs2", "gfs2"}
)
"""Types of mounts that several machines (or a machine and its host) may see. What a program serves (``fuse``,
``fuse.sshfs``, ``fuseblk``) counts, too: nobody knows what it makes of shared memory."""

_PASSING = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "ENFILE", "EMFILE", "ENOMEM", "ESTALE")
    if hasattr(errno, name)
)
"""Errors of a disk that may be another one a moment later."""


class UnavailableError(SetupError):
    """The disk is full or fails, so the history cannot be had now. Later it may."""


class Damaged(Exception):  # noqa: N818 - says what is the case; never leaves this package
    """Not a database, or not a sound one."""


def make_file(path: Path) -> None:
    """Make the file (mode 0600) where there is none, and its directory (0700).

    Raises:
        UnavailableError: not now.
        SetupError: it cannot be made, or not be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)  # -wal and -shm take the mode of the file
    except OSError as exc:
        kind = UnavailableError if exc.errno in _PASSING else SetupError
        remedy = "choose another history_dir, or history = memory"
        raise kind(f"the history {path} cannot be made ({exc.strerror})", remedy) from exc


def open_beside(path: Path) -> sqlite3.Connection:
    """A further connection to a file that :func:`connect` found sound."""
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def connect(path: Path, journal_mode: str = "auto") -> sqlite3.Connection:
    """The writer's connection, on tables that can be used.

    Raises:
        UnavailableError: it cannot be opened or written now.
        SetupError: a newer version, or another program's file.
        Damaged: not a database, or not a sound one.
    """
    connection = open_beside(path)
    try:
        prepare(connection, path, journal_mode)
    except BaseException as exc:
        connection.close()
        if isinstance(exc, UnicodeDecodeError):  # SQLite's own message, which repeats what is in the file
            raise Damaged("its tables are not described in UTF-8") from exc
        if not isinstance(exc, sqlite3.DatabaseError):
            raise
        if isinstance(exc, sqlite3.OperationalError):
            raise UnavailableError(f"the history {path} cannot be opened ({exc})", "free or repair the disk") from exc
        raise Damaged(str(exc)) from exc
    return connection


def prepare(connection: sqlite3.Connection, path: Path | None, journal_mode: str = "auto") -> None:
    """Make the tables where there are none, bring those of an earlier version up to this one, look at all.

    Args:
        path: None: the connection is to memory.
        journal_mode: ``wal`` | ``delete`` | ``auto``: by the file system.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version > rows.FILE_VERSION:
        known = f"version {version}, this rtc_kernel reads up to {rows.FILE_VERSION}"
        raise SetupError(f"the history {path} is of a newer rtc_kernel ({known})", "upgrade rtc_kernel, or move it")
    if version < 1 and tables:
        raise SetupError(f"{path} is not a history of rtc_kernel", "move it, or choose another history_dir")
    if version < 1:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if path is not None:
        if journal_mode == "auto":
            journal_mode = "delete" if on_network(path) else "wal"
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_LOAD_BYTES // page_bytes}")
        if version > 0 and path.stat().st_size <= 32 << 20:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict.replace("\n", " "))
    steps = [rows.SCHEMA] if version < 1 else [rows.MIGRATIONS[at] for at in range(version, rows.FILE_VERSION)]
    for script in steps:
        connection.executescript(f"BEGIN IMMEDIATE;{script}COMMIT;")
    for table in ("executions", "outputs", "segments", "comms", "blobs", "parts", "uses", "feed", "requests"):
        connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()  # noqa: S608 - our names


def move_aside(path: Path) -> Path:
    """Rename a damaged file to ``<name>.damaged-<time>``; returns the new path."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    moved = path.with_name(f"{path.name}.damaged-{stamp}")
    try:
        path.replace(moved)
        for suffix in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as exc:
        raise SetupError(f"the damaged history {path} cannot be moved ({exc.strerror})", "move it by hand") from exc
    return moved


def on_network(path: Path, mounts: str | None = None) -> bool:
    """Whether a file lies on a file system where the shared memory of a WAL does not work. False where nobody
    can tell: then SQLite's own answer counts.

    Args:
        mounts: the text of ``/proc/mounts`` (read unless given).
    """
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
    types: Mapping[str, str] = {
        parts[1].replace("\\040", " "): parts[2] for line in mounts.splitlines() if len(parts := line.split()) > 2
    }
    place = path.absolute().parent.resolve()
    found = next((types[str(at)] for at in (place, *place.parents) if str(at) in types), "")
    return found in _NETWORK or found.startswith("fuse")
