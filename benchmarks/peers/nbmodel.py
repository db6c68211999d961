"""jupyter-server-nbmodel, with jupyter-collaboration: the request has the code, the outputs go to the notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .server import CELL, NOTEBOOK, Adapter, Server


def _open(server: Server) -> tuple[Callable[[str], Any], str]:
    kernel = server.call("POST", "/api/kernels", {"name": "python3"})["id"]
    kind = {"format": "json", "type": "notebook"}
    session = server.call("PUT", f"/api/collaboration/session/{NOTEBOOK}", kind)
    room = f"json:notebook:{session['fileId']}"

    def ask(code: str) -> None:
        metadata = {"cell_id": CELL, "document_id": room}
        server.call("POST", f"/api/kernels/{kernel}/execute", {"code": code, "metadata": metadata})

    return ask, f"/api/collaboration/room/{room}?sessionId={session['sessionId']}"


ADAPTER = Adapter(
    name="jupyter-server-nbmodel",
    packages=("jupyter-server-nbmodel", "jupyter-server-ydoc", "ipykernel"),
    source="",
    open=_open,
)
