"""The real side socket over the real document, without a kernel: for the tests of those who talk to one.

Tests can take it away, begin a new epoch and refuse peers, which a real agent does only when it is ill.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from serving import SmallBackend

from rtc_kernel import config, schema
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.agent.serve.websocket import Peer, Server
from rtc_kernel.errors import Reason
from rtc_kernel.tables import Cell, Change, Kernel, PutCells

KERNEL = "0a1b2c3d-0000-4000-8000-000000000001"


class StandIn(SmallBackend):
    """A backend, and the server over it."""

    def __init__(self) -> None:
        super().__init__()
        self.document = StateDocument(KERNEL)
        kernel = Kernel(id=KERNEL, name="rtc-python", display_name="RTC Python", language="python")
        self.document.load(kernels=[kernel])
        self.requests = RequestsDocument(KERNEL)
        self.tokens.mint("viewer", Role.VIEW, now=time.time(), secret="view-token")
        self.tokens.mint("owner", Role.OWN, now=time.time(), secret="own-token")
        self.received: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.server = self._server()

    # what the server asks for

    def put_cells(self, notebook: str, cells: tuple[Cell, ...]) -> None:
        self.cells = (notebook, cells)
        self.apply(PutCells(notebook, cells))

    def clear(self) -> None:
        self.rows.clear()

    # what a test does

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def keep(self, data: bytes, digest: str | None = None) -> str:
        digest = digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = (data, "image/png")
        return digest

    def listen(self) -> None:
        self.port = self.server.listen(self.port).port

    async def stop(self) -> None:
        await self.server.stop()
        self.server = self._server()

    def apply(self, *changes: Change) -> None:
        update = self.document.apply(changes)
        if update is not None:
            self.server.push(update)

    def close(self, reason: Reason) -> None:
        for peer in tuple(self.server.peers):
            peer.close(reason)

    def drop(self) -> None:
        for peer in tuple(self.server.peers):
            peer.abort()

    def new_epoch(self) -> None:
        """As after a crash of the agent: the same rows in a new life."""
        executions = schema.read_executions(self.document.doc)
        kernels = schema.read_kernels(self.document.doc)
        self.document = StateDocument(KERNEL)
        self.document.load(kernels=kernels, executions=executions)

    def _server(self) -> Server:
        return Server(self, config.load(path=[], environ={}), kernel=KERNEL)


@asynccontextmanager
async def standin() -> AsyncIterator[StandIn]:
    """A server that listens; what its peers send is in ``received``."""
    made = StandIn()
    receive, begin = Peer.receive, Peer.__init__

    def note(peer: Peer, data: bytes) -> None:
        made.received.append(data)
        receive(peer, data)

    def count(peer: Peer, *args: Any, **options: Any) -> None:
        made.connections += 1
        begin(peer, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Peer, "receive", note)
        patch.setattr(Peer, "__init__", count)
        made.listen()
        try:
            yield made
        finally:
            await made.server.stop()
            await asyncio.sleep(0)
