"""The history's file: by which journal it is kept, and which errors of a disk may pass."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rtc_kernel.agent.keep import files, rows
from rtc_kernel.agent.keep.store import Store, is_writable
from rtc_kernel.errors import SetupError
from rtc_kernel.tables import Request, RequestState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history" / f"k1{rows.SUFFIX}"


FULL_DISK = """
import resource, sys
from pathlib import Path
from rtc_kernel.agent.keep import files
from rtc_kernel.agent.keep.store import Store, is_writable

resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
try:
    Store.open(path)
except files.UnavailableError:
    sys.exit(3 if is_writable(path) else 0)
sys.exit(2)
"""
"""For a process of its own, that may not write a byte into files: this one has its own to write."""


def journal(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


@pytest.mark.parametrize(
    ("kind", "is_network"),
    [
        ("ext4", False),
        ("xfs", False),
        ("overlay", False),
        ("tmpfs", False),
        ("nfs", True),
        ("nfs4", True),
        ("cifs", True),
        ("9p", True),
        ("virtiofs", True),
        ("fuse", True),
        ("fuse.sshfs", True),
        ("fuse.anything", True),
        ("fuseblk", True),
    ],
)
def test_file_systems_that_others_serve_are_known(kind: str, is_network: bool) -> None:
    mounts = f"/dev/a / ext4 rw 0 0\nx /home {kind} rw 0 0\n"
    assert files.on_network(Path("/home/ann/k.sqlite3"), mounts) is is_network
    assert not files.on_network(Path("/elsewhere/k.sqlite3"), mounts)


@pytest.mark.parametrize(
    ("setting", "is_network", "mode"),
    [
        ("auto", False, "wal"),
        ("auto", True, "delete"),
        ("wal", True, "wal"),
        ("delete", False, "delete"),
    ],
)
def test_the_journal_is_chosen_by_the_file_system_unless_it_is_set(
    path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, is_network: bool, mode: str
) -> None:
    monkeypatch.setattr(files, "on_network", lambda path: is_network)
    for _ in range(2):  # a file that has been in another mode changes to it, too
        Store.open(path, journal_mode=setting).close()
        assert journal(path) == mode
        Store.open(path, journal_mode="wal" if mode == "delete" else "delete").close()


def test_a_disk_that_is_full_may_have_room_later(path: Path) -> None:
    pytest.importorskip("resource", reason="POSIX only")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], check=False)
    assert done.returncode == 0
    assert is_writable(path)


def test_where_there_is_room_it_is_writable(path: Path) -> None:
    assert is_writable(path)
    assert is_writable(path)
    path.write_bytes(b"garbage " * 1000)
    assert is_writable(path), "it is moved aside when it is opened"


def test_a_file_of_a_newer_version_does_not_become_an_older_one(path: Path) -> None:
    Store.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {rows.FILE_VERSION + 1}")
    with pytest.raises(SetupError) as raised:
        Store.open(path)
    assert not isinstance(raised.value, files.UnavailableError)
    assert not is_writable(path)


@pytest.mark.parametrize(("number", "passes"), [(errno.ENOSPC, True), (errno.EROFS, True), (errno.ENOTDIR, False)])
def test_an_error_of_the_disk_may_pass_and_one_of_the_setting_does_not(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    def fail(*arguments: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(SetupError) as raised:
        files.make_file(path)
    assert isinstance(raised.value, files.UnavailableError) is passes


def test_what_takes_no_requests_acknowledges_none() -> None:
    told: list[Exception | None] = []
    with closing(Store.open(None, takes_requests=False)) as store:
        store.begin(relay_id="r", kernel={"id": "k1"}, now=1.0)
        request = Request(id="q", ordinal=1, action="interrupt", state=RequestState.REQUESTED, by="ann")
        store.put_requests([request], now=1.0, done=told.append)
        store.flush()
        assert store.requests(open_only=False) == []
    assert len(told) == 1
    assert isinstance(told[0], sqlite3.Error)
