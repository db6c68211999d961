"""Any bytes in the place of a history's open as a history, or are moved aside for a new one, or give SetupError; and
what can be opened can be read, or names what is damaged."""

from __future__ import annotations

import atexit
import sqlite3
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from rtc_kernel.agent.keep.store import Store
from rtc_kernel.errors import SetupError
from rtc_kernel.tables import (
    AddOutput,
    ExecutionState,
    MergeCommState,
    Output,
    PutBlob,
    PutComm,
    PutExecution,
    PutMeta,
    Request,
    WriteText,
)

from .values import Bytes

DIGEST = "sha256:" + "0123456789abcdef" * 4
KNOWN = (SetupError, sqlite3.Error)

SEEDS = [
    b"",
    b"\0\0\0\x12\x01\x07",
    b"\0\0\0\x64\x10" + b"\xff" * 16,
    b"\0\1\x80\0\x20" + b"{" * 32,
    bytes.fromhex("fb69ed0e0e0e0e0e0e0e0e0e0e0e0e0e0100fb"),  # a segment of an execution whose number is a blob
    *(at.to_bytes(4, "big") + b"\x04\xff\0\x80\x7f" for at in range(4096, 200_000, 9001)),
]
"""Patches: an offset in four bytes, a length in one, and bytes."""


@cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory(prefix="rtc-fuzz-")
    atexit.register(directory.cleanup)
    return directory


@cache
def _whole() -> bytes:
    """A file with something in every table."""
    path = Path(_directory().name) / "whole.sqlite3"
    store = Store.open(path)
    store.begin(relay_id="r", kernel={"id": "k", "name": "python3"}, now=1.0)
    shown = Output(output_type="display_data", at=1.0, data={"image/png": {"blob": DIGEST}}, display_id="d")
    stream = Output(output_type="stream", at=1.0, name="stdout", text="")
    changes: list[Any] = [PutBlob(DIGEST, b"x" * 5000, "image/png"), PutMeta({"gap": None})]
    for seq in range(1, 30):
        columns = {"seq": seq, "code": f"print({seq})", "cell": "c", "state": ExecutionState.OK, "submitted_by": "é"}
        changes += [PutExecution(f"e{seq}", columns), AddOutput(f"e{seq}", 0, stream), AddOutput(f"e{seq}", 1, shown)]
        changes.append(WriteText(f"e{seq}", 0, 0, None, "text\n" * 20, at=1.0))
    changes += [PutComm("c", {"opened_at": 1.0, "target": "jupyter.widget"}), MergeCommState("c", {"v": [1, b"\0"]})]
    store.write(changes, relay_id="r", seq=1, mirror_state={"a": 1})
    store.put_requests([Request(id="q", action="execute", by="ada", columns={"code": "1"})], now=1.0)
    store.put_fact("port", 1)
    store.close()
    return path.read_bytes()


def patched(data: bytes) -> bytes:
    """The whole file with patches."""
    out, cursor = bytearray(_whole()), Bytes(data)
    while cursor.left > 0:
        at = (cursor.number() << 16 | cursor.number()) % len(out)
        part = cursor.take(cursor.byte())
        out[at : at + len(part)] = part
    return bytes(out)


def run(data: bytes) -> None:
    """Open a changed file, ask it everything, write to it, close it."""
    path = Path(_directory().name) / "changed.sqlite3"
    for old in path.parent.glob("changed*"):
        old.unlink()
    path.write_bytes(patched(data))
    try:
        store = Store.open(path)
    except SetupError:
        return
    try:
        _ask(store)
    finally:
        store.close()


def _ask(store: Store) -> None:
    try:
        store.begin(relay_id="other", kernel={"id": "k"}, now=2.0)
    except SetupError:
        return
    for ask in (
        lambda: store.window(500, 1 << 16),
        lambda: store.history(limit=1000, text="1"),
        lambda: store.execution("e1"),
        lambda: store.marks("e1"),
        lambda: store.segments("e1"),
        lambda: store.blob(DIGEST),
        lambda: store.blob_size(DIGEST),
        lambda: store.blob_piece(DIGEST, 1, 100),
        lambda: store.requests(open_only=False),
        lambda: store.kernels(),
        lambda: store.generations(),
        lambda: store.comms(),
        lambda: store.meta(),
        lambda: store.count(),
        lambda: store.fact("port"),
    ):
        try:
            ask()
        except KNOWN:
            continue
    store.write([PutExecution("new", {"seq": 99, "code": "1"})], relay_id="other", seq=2, mirror_state=None)
