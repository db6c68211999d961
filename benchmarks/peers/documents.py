"""jupyter-server-documents: the request names a cell of the shared notebook, and a hash of the source it is to have."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from .server import CELL, NOTEBOOK, Adapter, Server

CODE = "code.py"
SOURCE = f"exec(open({CODE!r}).read())"
"""What runs is the cell's source, so that another code for each run would take an edit of the notebook first; with this
source the run itself is what is measured, and some 30 µs to read a file."""


def _open(server: Server) -> tuple[Callable[[str], Any], str]:
    file = server.call("POST", f"/api/fileid/index?path={NOTEBOOK}")["id"]
    room = f"json:notebook:{file}"
    wanted = {"path": NOTEBOOK, "name": NOTEBOOK, "type": "notebook", "kernel": {"name": "python3"}}
    kernel = server.call("POST", "/api/sessions", wanted)["kernel"]["id"]
    cells = [{"cell_id": CELL, "source_hash": str(murmur2(SOURCE.encode()))}]

    def ask(code: str) -> None:
        (server.root / CODE).write_text(code, encoding="utf-8")
        server.call("POST", f"/api/kernels/{kernel}/execute", {"document_id": room, "cells": cells})

    return ask, f"/api/collaboration/room/{room}"


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, seed 0 (https://github.com/aappleby/smhasher): what the server holds the source against."""
    factor, mask = 0x5BD1E995, 0xFFFFFFFF
    found = len(data)
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        word = word * factor & mask
        word = (word ^ word >> 24) * factor & mask
        found = found * factor & mask ^ word
    if rest := data[whole:]:
        found = (found ^ int.from_bytes(rest, "little")) * factor & mask
    found = (found ^ found >> 13) * factor & mask
    return found ^ found >> 15


ADAPTER = Adapter(
    name="jupyter-server-documents",
    packages=("jupyter-server-documents", "ipykernel"),
    source=SOURCE,
    open=_open,
)
