"""A side socket over a small real backend, and clients for it."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from conftest import say_not
from pycrdt import Doc
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rtc_kernel import yproto
from rtc_kernel.agent.act.answers import Grant, Link, Peer
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve import Blob, HistoryQuery, Page, PruneQuery
from rtc_kernel.agent.serve.access import Role, Tokens
from rtc_kernel.agent.serve.passage import Passage
from rtc_kernel.agent.serve.websocket import Server
from rtc_kernel.config import RTCKernel
from rtc_kernel.dialing import hang_up
from rtc_kernel.errors import MissingError
from rtc_kernel.moments import Growth
from rtc_kernel.notebook import to_notebook
from rtc_kernel.pieces import write_json
from rtc_kernel.tables import (
    AddOutput,
    Cell,
    Execution,
    ExecutionState,
    Json,
    Kernel,
    KernelState,
    Output,
    PutExecution,
    WriteText,
)

KERNEL = "k-1"


class SmallBackend:
    """The agent's part for the doors, in memory."""

    def __init__(self) -> None:
        self.rows: list[Execution] = []
        self.grown: dict[str, Growth] = {}
        self.blobs: dict[str, tuple[bytes, str]] = {}
        self.cells: tuple[str, tuple[Cell, ...]] | None = None
        self.cleared = 0
        self.tokens = Tokens()
        self.tokens_changed_count = 0
        self.document = self.new_document()
        self.requests = RequestsDocument(KERNEL)
        self.written: list[tuple[str, str, Any]] = []
        self.introduced: list[tuple[str, str]] = []
        self.waiting: list[str] = []
        self.decided: list[tuple[str, str]] = []

    def receive_update(self, update: bytes, *, by: str, role: Role) -> int:
        received = self.requests.receive(update, by)
        self.written += [(by, row.id, row.value) for row in received.rows]
        return received.undone_count

    def new_document(self) -> StateDocument:
        document = StateDocument(KERNEL)
        document.load(
            kernels=[Kernel(id=KERNEL, name="python3", display_name="Python 3", state=KernelState.IDLE)],
            executions=self.rows,
        )
        return document

    def health(self) -> Json:
        return {"status": "ok", "reason": None, "coverage": "full"}

    def history(self, query: HistoryQuery) -> Page:
        rows = [
            row
            for row in sorted(self.rows, key=lambda row: -row.seq)
            if (query.before is None or row.seq < query.before) and (query.grep or query.text or "") in row.code
        ]
        page = rows[: query.limit]
        return Page(page, page[-1].seq if len(rows) > len(page) else None)

    def execution(self, execution: str) -> Execution | None:
        return next((row for row in self.rows if row.id == execution), None)

    def segments(self, execution: str, position: int, segment: int) -> list[str]:
        row = self.execution(execution)
        text = row.outputs[position].text or "" if row is not None else ""
        return [text[4 * segment : 4 * segment + 4]] if len(text) > 4 * segment else []

    def notebook(self) -> Iterator[str]:
        return write_json(to_notebook(self.rows, kernel=None, blob=lambda _: None))

    async def complete(self, code: str, cursor_pos: int) -> Json:
        matches = [word for word in ("print", "property") if word.startswith(code[:cursor_pos])]
        return {"status": "ok", "matches": matches, "cursor_start": 0, "cursor_end": cursor_pos, "metadata": {}}

    def growth(self, execution: str) -> Growth:
        return self.grown.get(execution, {})

    def blob(self, digest: str) -> Blob | None:
        found = self.blobs.get(digest)
        return None if found is None else Blob(len(found[0]), found[1])

    def blob_piece(self, digest: str, start: int, count: int) -> bytes:
        return self.blobs[digest][0][start : start + count] if digest in self.blobs else b""

    def tokens_changed(self) -> None:
        self.tokens_changed_count += 1

    def revoked(self, name: str) -> None:
        pass

    def share(self, role: Role, name: str, expires_s: float | None) -> Link:
        secret, token = self.tokens.mint(name, role, now=time.time(), expires_s=expires_s)
        url = f"http://127.0.0.1:9/?token={secret}"
        return Link(name=token.name, role=token.role.value, url=url, expires_at=token.expires_at)

    def links(self) -> list[Grant]:
        return [
            Grant(name=one.name, role=one.role.value, created_at=one.created_at, expires_at=one.expires_at)
            for one in self.tokens
        ]

    def unshare(self, name: str) -> None:
        if self.tokens.revoke(name) is None:
            raise MissingError(f"there is no link named {name!r}", "no link is in force")

    def introduce(self, client: str, name: str) -> None:
        self.introduced.append((client, name))

    def decide(self, action: str, request: str) -> None:
        if request not in self.waiting:
            raise MissingError("that request does not wait any more", "it was sent or taken back")
        self.decided.append((action, request))

    def peers(self) -> list[Peer]:
        return [Peer(name="ada", role="run", way="comm", since=1.0)]

    async def prune(self, query: PruneQuery) -> Json:
        return {"executions": 0, "bytes": 0, "executions_left": len(self.rows)}

    def put_cells(self, notebook: str, cells: tuple[Cell, ...]) -> None:
        self.cells = (notebook, cells)

    def clear(self) -> None:
        self.cleared += 1


class Socket:
    """A server with one token of each role."""

    def __init__(self, backend: SmallBackend, server: Server) -> None:
        self.backend = backend
        self.server = server
        self.port = server.port
        self.tokens = {role.value: server.share(role, role.value)["token"] for role in Role}
        self.connections: list[WebSocketClientConnection] = []
        self._seq = 0
        self._streams: dict[str, int] = {}

    def run_cell(self, state: str = "running", **columns: Any) -> str:
        """A new execution with an empty stream; returns its id."""
        self._seq += 1
        row = f"e{self._seq}"
        columns = {"seq": self._seq, "state": ExecutionState(state), "code": "f()", **columns}
        stream = Output(output_type="stream", at=1.0, name="stdout", text="")
        self.push(PutExecution(row, columns), AddOutput(row, 0, stream))
        return row

    def print_text(self, row: str, text: str) -> None:
        """Append to the stream of an execution, a segment per call."""
        segment = self._streams.get(row, 0)
        self._streams[row] = segment + 1
        self.push(WriteText(row, 0, segment, None, text))

    def push(self, *changes: Any) -> None:
        update = self.backend.document.apply(list(changes))
        if update is not None:
            self.server.push(update)

    async def fetch(
        self, path: str, token: str | None = "own", method: str = "GET", body: Any = None, **headers: str
    ) -> HTTPResponse:
        """An HTTP request; ``token``: a role's, or null."""
        if token is not None:
            headers["Authorization"] = f"Bearer {self.tokens[token]}"
        request = HTTPRequest(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            body=None if body is None else json.dumps(body),
            follow_redirects=False,
            allow_nonstandard_methods=True,
            request_timeout=30,
        )
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    async def connect(
        self, token: str | None = "view", path: str = f"/rooms/{KERNEL}/state", **headers: str
    ) -> WebSocketClientConnection:
        """A WebSocket; ``token``: a role's, a secret, or null."""
        if token is not None:
            headers["Authorization"] = f"Bearer {self.tokens.get(token, token)}"
        request = HTTPRequest(f"ws://127.0.0.1:{self.port}{path}", headers=headers)
        connection = await websocket_connect(request, max_message_size=1 << 28)
        self.connections.append(connection)
        return connection

    async def follow(self, token: str = "view", room: str = "state") -> Follower:
        """A peer that has synced."""
        follower = Follower(await self.connect(token, f"/rooms/{KERNEL}/{room}"))
        await follower.send(yproto.step1(b"\x00"))
        await follower.until(lambda: follower.synced, "synced")
        return follower


class Follower:
    """A minimal peer: a replica, and everything that was received."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection
        self.doc: Doc[Any] = Doc()
        self.messages: list[yproto.Message] = []
        self.synced = False

    async def send(self, data: bytes) -> None:
        await self.connection.write_message(data, binary=True)

    async def receive(self) -> bool:
        """One message; false: the connection is closed."""
        data = await asyncio.wait_for(self.connection.read_message(), 60)
        if data is None:
            return False
        message = yproto.read_message(data)
        self.messages.append(message)
        match message:
            case yproto.Step2(update) | yproto.Update(update):
                self.doc.apply_update(update)
                self.synced = True
        return True

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Receive until a condition holds."""
        while not condition():
            assert await self.receive(), f"closed {self.connection.close_code} before: {what}"

    async def closed(self) -> int | None:
        """Receive until the connection is closed; its close code."""
        while await self.receive():
            pass
        return self.connection.close_code


@asynccontextmanager
async def serving(
    backend: SmallBackend | None = None, *, passage: Passage | None = None, **settings: Any
) -> AsyncIterator[Socket]:
    """A listening server, stopped at the end."""
    backend = backend or SmallBackend()
    server = Server(backend, RTCKernel(**settings), kernel=KERNEL, passage=passage)
    server.listen()
    served = Socket(backend, server)
    try:
        yield served
    finally:
        for connection in served.connections:
            hang_up(connection)
        await server.stop()
        AsyncHTTPClient().close()


async def eventually(
    condition: Callable[[], object | Awaitable[object]], what: str | Callable[[], object], timeout_s: float = 30.0
) -> None:
    """Let the loop run until a condition holds, which may be one to wait for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if await value if inspect.isawaitable(value) else value:
            return
        if time.monotonic() >= deadline:
            raise AssertionError(say_not(what, timeout_s))
        await asyncio.sleep(0.005)  # the pause between two looks
