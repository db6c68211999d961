"""Peers that act, for tests with real kernels: a journal of what ran, lines that can be cut, stock Yjs writers."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pycrdt import Doc, Map, create_sync_message, create_update_message, handle_sync_message
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from rtc_kernel.client import Address, Document, call
from rtc_kernel.errors import CLOSE_CODES, Reason, RefusedError, SetupError
from rtc_kernel.tables import Json

TROUBLE = (SetupError, HTTPClientError, WebSocketError, OSError, TimeoutError, KeyError)
"""What becomes of a connection to an agent that is away, or over a line that is cut."""

SYNC, STEP2 = 0, 1
WRONG_EPOCH = CLOSE_CODES[Reason.WRONG_EPOCH][0]
HEALED = {None, 1000, 1001, 1006, CLOSE_CODES[Reason.STOPPING][0], WRONG_EPOCH}
"""Close codes after which a peer that did nothing wrong may come again."""

RETRY_S = 0.05


class Journal:
    """What ran, and in which order: each run appends its key to a file that nothing of ours knows of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def code(self, key: str, then: str = "") -> str:
        """Code that leaves the key, by one write of the operating system's, and goes on with ``then``."""
        opened = f"os.open({os.fspath(self.path)!r}, os.O_WRONLY | os.O_APPEND)"
        return f"import os\n_file = {opened}\nos.write(_file, {f'{key} '.encode()!r})\nos.close(_file)\n{then}"

    def read(self) -> list[str]:
        """The keys of all runs, in order."""
        return self.path.read_text().split()


class Line:
    """A TCP line to a port that may move. It can be cut, and what a peer says can get lost before that."""

    def __init__(self, port_of: Callable[[], int]) -> None:
        self._port_of = port_of
        self._writers: set[asyncio.StreamWriter] = set()
        self._loses = False
        self.lost_bytes = 0  # of what was sent to the kernel
        self._server: asyncio.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @asynccontextmanager
    async def stand(self) -> AsyncIterator[Line]:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._server.close()
            self.cut()
            await self._server.wait_closed()

    def lose(self) -> None:
        """What is sent to the kernel from now on does not arrive, until the line is cut."""
        self._loses, self.lost_bytes = True, 0

    def cut(self) -> None:
        """Every connection ends here and now; the next one works."""
        self._loses = False
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        self._writers.add(near_out)
        far_out = None
        try:
            with contextlib.suppress(*TROUBLE):
                far_in, far_out = await asyncio.open_connection("127.0.0.1", self._port_of())
                self._writers.add(far_out)
                await asyncio.gather(self._pump(near_in, far_out, up=True), self._pump(far_in, near_out, up=False))
        finally:
            for writer in (near_out, far_out):
                if writer is not None:
                    self._writers.discard(writer)
                    writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if up and self._loses:
                    self.lost_bytes += len(data)
                else:
                    sink.write(data)
                    await sink.drain()
        sink.close()  # what was written still arrives


async def dial(address: Address, room: str, epoch: str | None = None) -> WebSocketClientConnection:
    """A WebSocket to a room."""
    url = f"ws{address.url.removeprefix('http')}/rooms/{room}{f'?epoch={epoch}' if epoch else ''}"
    request = HTTPRequest(url, headers=address.headers(), connect_timeout=30, request_timeout=30)
    connecting = websocket_connect(request, max_message_size=1 << 28)
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(lambda done: done.exception() or hang_up(done.result()))
        await asyncio.wait((connecting,), timeout=1)  # else a loop that ends now leaves its socket open
        raise


def hang_up(connection: WebSocketClientConnection) -> None:
    """Close without waiting for an answer."""
    stream = getattr(connection.protocol, "stream", None)
    connection.close()
    if stream is not None:
        stream.close()


async def fetch_replica(address: Address, room: str) -> Doc[Any]:
    """A fresh replica of a room."""
    doc: Doc[Any] = Doc()
    connection = await dial(address, room)
    try:
        await connection.write_message(create_sync_message(doc), binary=True)
        while isinstance(data := await connection.read_message(), bytes):
            if data[0] == SYNC:
                handle_sync_message(data[1:], doc)
                if data[1] == STEP2:
                    return doc
    finally:
        hang_up(connection)
    raise OSError(f"closed with {connection.close_code} before it was synced")


class StockPeer:
    """A stock Yjs client of the requests: pycrdt's document and pycrdt's protocol, which echoes every update.

    Of ours it knows what docs/protocol.md asks of a peer: a replica belongs to one epoch, and a row that was not
    acknowledged when an epoch ended is written again, under its id.

    Attributes:
        written: its rows, in order.
        seen: of every row, anybody's, what the agent last said.
        held: how often each row was seen to become held.
        begun: called when it learns of a new epoch.
        closed: close codes that no peer should get that keeps to the rules.
    """

    def __init__(self, address: Address, kernel: str) -> None:
        self.address = address
        self.room = f"{kernel}/requests"
        self.written: dict[str, Json] = {}
        self.seen: dict[str, Json] = {}
        self.held: Counter[str] = Counter()
        self.begun: Callable[[], None] = lambda: None
        self.closed: list[int | None] = []
        self.epoch = ""
        self.former: tuple[str, Doc[Any]] | None = None
        self.online = asyncio.Event()
        self._connection: WebSocketClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._begin("")

    def join(self) -> None:
        """Connect, and connect again whenever the connection is lost."""
        if self._task is None:
            self._task = asyncio.create_task(self._keep())

    async def leave(self) -> None:
        """Disconnect; the replica stays."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def write(self, rows: Mapping[str, Json]) -> None:
        """Write rows in one transaction; while it is not connected, into the replica."""
        self.written |= rows
        if self._rewritten:
            self._write(rows)

    @property
    def unacknowledged(self) -> list[str]:
        """Rows of its own of which the agent has said nothing."""
        return [key for key in self.written if key not in self.seen]

    def current(self) -> dict[str, Json]:
        """All rows of its replica."""
        return {key: self.rows[key].to_py() for key in list(self.rows)}

    async def rejoin_former(self, *, named: bool) -> int | None:
        """Connect with the replica of the epoch before, which is ``named`` in the URL or found in the state vector;
        the close code, 0 where there was no such epoch, or null where the line broke."""
        if self.former is None:
            return 0
        epoch, doc = self.former
        connection = await dial(self.address, self.room, epoch if named else None)
        try:
            await connection.write_message(create_sync_message(doc), binary=True)
            while await asyncio.wait_for(connection.read_message(), 10) is not None:
                pass
        finally:
            hang_up(connection)
        return connection.close_code

    # ---

    def _begin(self, epoch: str) -> None:
        if self.epoch:
            self.former = self.epoch, self.doc
        self.epoch = epoch
        self.doc: Doc[Any] = Doc()
        self.rows = self.doc.get("requests", type=Map)
        self._rewritten = False
        self._subscriptions = (self.rows.observe_deep(self._note), self.doc.observe(self._send_update))

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(*TROUBLE):
                await self._follow()
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        health = await call(self.address, "GET", "/api/health")
        if health["requests_epoch"] != self.epoch:
            self._begin(health["requests_epoch"])
            self.begun()
        connection = self._connection = await dial(self.address, self.room, self.epoch)
        try:
            await connection.write_message(create_sync_message(self.doc), binary=True)
            while isinstance(data := await connection.read_message(), bytes):
                if data[0] != SYNC:
                    continue
                if reply := handle_sync_message(data[1:], self.doc):
                    await connection.write_message(reply, binary=True)
                if data[1] == STEP2:
                    if not self._rewritten:  # only now it is known which ones the agent has
                        self._rewritten = True
                        self._write({key: self.written[key] for key in self.unacknowledged})
                    self.online.set()
            if connection.close_code not in HEALED:
                self.closed.append(connection.close_code)
        finally:
            self.online.clear()
            self._connection = None
            hang_up(connection)

    def _write(self, rows: Mapping[str, Json]) -> None:
        with self.doc.transaction():
            for key, columns in rows.items():
                self.rows[key] = Map(columns)

    def _note(self, events: list[Any]) -> None:
        keys = {str(event.path[0]) if event.path else None for event in events}
        for event in events:
            keys |= set() if event.path else set(event.keys)
        for key in keys - {None}:
            row = self.rows.get(key)
            columns = row.to_py() if isinstance(row, Map) else None
            if columns and "ordinal" in columns:
                before = self.seen.get(key, {}).get("state")
                self.held[key] += columns["state"] == "held" != before
                self.seen[key] = columns

    def _send_update(self, event: Any) -> None:
        if self._connection is not None:
            with contextlib.suppress(WebSocketError):
                sent = self._connection.write_message(create_update_message(event.update), binary=True)
                sent.add_done_callback(lambda done: done.cancelled() or done.exception())


class ClientPeer:
    """A Python program with our client, as far as it writes rows. Its connections come again by themselves.

    Attributes:
        written: its rows to execute, in order.
        acknowledged: those of them of which it was told.
        refused: why the others were not taken.
    """

    def __init__(self, doc: Document) -> None:
        self.doc = doc
        self.written: dict[str, Json] = {}
        self.acknowledged: set[str] = set()
        self.refused: dict[str, str] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def write(self, rows: Mapping[str, Json]) -> None:
        """Write rows; only those to execute keep their id."""
        for key, columns in rows.items():
            if columns["action"] == "execute":
                self.written[key] = columns
            task = asyncio.create_task(self._ask(key, columns), name=f"rtc-test-{key}")
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    @property
    def unacknowledged(self) -> list[str]:
        """Rows of its own of which it was told nothing."""
        return [key for key in self.written if key not in self.acknowledged and key not in self.refused]

    async def _ask(self, key: str, given: Json) -> None:
        columns = dict(given)
        action = columns.pop("action")
        try:
            match action:
                case "execute":
                    await self.doc.run(columns.pop("code"), request_id=key, **columns)
                    self.acknowledged.add(key)
                case "input":
                    await self.doc.answer(columns["execution"], columns["value"])
                case "query":
                    await self.doc.query(columns["target"], columns["input"])
                case _:
                    await getattr(self.doc, action)(**columns)
        except RefusedError as exc:
            self.refused[key] = exc.reason
