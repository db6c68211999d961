"""A process with peers that write rows and say when: the other end of :mod:`writers`.

``URL TOKEN…``: one peer of the ``requests`` at the WebSocket per token, each with a pycrdt document, without code of
ours. As y-websocket does, a peer sends what it wrote itself and nothing that it was sent. All read what they are sent,
but once they are synced only the first applies it: it sees everybody's rows, and the replicas of peers that would be on
machines of their own are not to take this one's processors from what is measured. What to write stands on stdin, one
object per line::

    {"batch": NUMBER, "rows": [[{"action", …}, …], …], "at_once": BOOL}

``rows`` are one list per peer, each row a transaction and a message of its own, or all of a peer's in one
(``at_once``). When all rows of a batch have ended, it says so on stdout::

    {"batch", "written_ns", "taken_ns", "ended_ns", "refused": [reason, …]}

``written_ns`` is the moment before the first transaction, ``taken_ns`` when the last row was acknowledged, ``ended_ns``
when the last one was ``done`` or ``refused``, each as the first peer's replica shows it (CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from pycrdt import Doc, Map, create_sync_message, create_update_message, handle_sync_message
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

SYNC, STEP2 = 0, 1
Row = dict[str, Any]


@dataclass(slots=True)
class Batch:
    """What was written together and has not ended. ``fresh``: not acknowledged; ``waiting``: not ended."""

    number: int
    written_ns: int = 0
    fresh: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    taken_ns: int = 0

    def see(self, key: str, row: Any, at_ns: int) -> None:
        """One of its rows has changed."""
        state = row.get("state")
        if state is not None and key in self.fresh:
            self.fresh.discard(key)
            self.taken_ns = at_ns
        if state in ("done", "refused") and key in self.waiting:
            self.waiting.discard(key)
            if state == "refused":
                self.refused.append(str(row.get("reason")))
            if not self.waiting:
                self._report(at_ns)

    def _report(self, at_ns: int) -> None:
        report = {
            "batch": self.number,
            "written_ns": self.written_ns,
            "taken_ns": self.taken_ns,
            "ended_ns": at_ns,
            "refused": self.refused,
        }
        print(json.dumps(report), flush=True)


class Peer:
    """One writer.

    Args:
        batches: of every row that was written, shared by all writers; null: it watches none.
    """

    def __init__(self, batches: dict[str, Batch] | None) -> None:
        self._doc: Doc[Any] = Doc()
        self._rows = self._doc.get("requests", type=Map)
        self._batches = batches
        self._changed: set[str] = set()
        self._updates: list[bytes] = []
        self._writes = False
        self._socket: WebSocketClientConnection
        self._subscriptions = [self._doc.observe(self._note_update)]
        if batches is not None:
            self._subscriptions.append(self._rows.observe_deep(self._note))

    async def follow(self, url: str, token: str, synced: asyncio.Event) -> None:
        """Connect, and read until the connection is closed."""
        request = HTTPRequest(url, headers={"Authorization": f"Bearer {token}"})
        self._socket = socket = await websocket_connect(request, max_message_size=1 << 30)
        assert socket.protocol is not None
        socket.protocol.set_nodelay(True)
        await socket.write_message(create_sync_message(self._doc), binary=True)
        while isinstance(data := await socket.read_message(), bytes):
            if data[0] != SYNC or (self._batches is None and synced.is_set()):
                continue
            if reply := handle_sync_message(data[1:], self._doc):
                await socket.write_message(reply, binary=True)
            if self._batches is not None and self._changed:
                self._see(self._batches, time.monotonic_ns())
            if data[1] == STEP2:
                synced.set()
        raise ConnectionError(f"closed: {socket.close_code} {socket.close_reason}")

    async def write(self, rows: list[tuple[str, Row]], *, at_once: bool) -> None:
        """Write rows, as fast as the socket takes them."""
        for part in [rows] if at_once else [[row] for row in rows]:
            self._writes = True
            with self._doc.transaction():
                for key, columns in part:
                    self._rows[key] = Map(columns)
            self._writes = False
            updates, self._updates = self._updates, []
            for update in updates:
                await self._socket.write_message(create_update_message(update), binary=True)

    def _note_update(self, event: Any) -> None:
        if self._writes:
            self._updates.append(event.update)

    def _note(self, events: list[Any]) -> None:
        if not self._writes:
            for event in events:
                self._changed.update(event.path[:1] or event.keys)

    def _see(self, batches: dict[str, Batch], at_ns: int) -> None:
        changed, self._changed = self._changed, set()
        for key in changed:
            if (batch := batches.get(key)) is None:
                continue
            if isinstance(row := self._rows.get(key), Map):
                batch.see(key, row, at_ns)
            else:  # popped
                del batches[key]


async def main(url: str, tokens: list[str]) -> None:
    """Write what stdin says, until it is closed."""
    batches: dict[str, Batch] = {}
    peers = [Peer(batches if number == 0 else None) for number in range(len(tokens))]
    events = [asyncio.Event() for _ in tokens]
    async with asyncio.TaskGroup() as group:
        for peer, token, synced in zip(peers, tokens, events, strict=True):
            group.create_task(peer.follow(url, token, synced))
        for synced in events:
            await synced.wait()
        print(json.dumps({"batch": 0}), flush=True)
        reader = asyncio.StreamReader(limit=1 << 30)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            told = json.loads(line)
            batch = Batch(told["batch"])
            named = [[(uuid.uuid4().hex, row) for row in rows] for rows in told["rows"]]
            for key in (key for rows in named for key, _ in rows):
                batches[key] = batch
                batch.fresh.add(key)
                batch.waiting.add(key)
            batch.written_ns = time.monotonic_ns()
            for peer, rows in zip(peers, named, strict=False):
                group.create_task(peer.write(rows, at_once=told["at_once"]))
        sys.exit()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
