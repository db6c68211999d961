"""How does a Python program ask a kernel for something through its document?

Everything is asked for by a row of ``<kernel_id>/requests``, which the agent reads, answers and takes away
(docs/requests.md). :class:`Requester` owns a replica of that document, its connection, and a
:class:`Ticket` for each row of ours that has not ended. It does not follow what runs: that is in ``state``.

Theory of sending once. A row has an id that we make. When a connection was lost, or the agent began a new epoch, every
row that has not ended is written again under the same id: the agent knows the ids that it has acknowledged, shows how
far that request is, and runs nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from pycrdt import Doc, Map
from tornado.websocket import WebSocketClosedError

from . import schema, yproto
from .errors import Reason, RefusedError, RemoteError
from .tables import REQUEST_END_STATES, Json, Request, RequestState

log = logging.getLogger(__name__)


class Socket(Protocol):
    """A WebSocket that is open."""

    def write_message(self, message: bytes, binary: bool) -> Any:
        """Send one message."""

    def read_message(self) -> Awaitable[str | bytes | None]:
        """The next message; null at the end."""


USED_BEFORE = "request_id: used before, give a new one"


class Ticket:
    """A request of ours, until it has ended.

    Attributes:
        id: the row's key.
        request: the row as the agent has it; null until it is acknowledged.
    """

    def __init__(self, request_id: str, row: Json) -> None:
        self.id = request_id
        self.row = row
        self.request: Request | None = None
        self._news = asyncio.Event()
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Ticket {self.row.get('action')} {self.id} {self.request.state.value if self.request else 'unsent'}>"

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said of it."""
        return self.request is not None and self.request.state in REQUEST_END_STATES

    def tell(self, request: Request | None = None, error: Exception | None = None) -> None:
        """Something is different."""
        self.request, self._error = request or self.request, error or self._error
        self._news.set()

    async def until(self, condition: Callable[[Request], bool]) -> Request:
        """Wait until the request is so; it is looked at whenever the agent says something of it.

        Raises:
            RefusedError: it was refused; the message says which column is wrong.
            SetupError: the server will have us no more.
        """
        while True:
            self._news.clear()
            if self.request is not None:
                if self.request.state is RequestState.REFUSED:
                    raise RefusedError(self.request.reason or "refused")
                if condition(self.request):
                    return self.request
            if self._error is not None:
                raise self._error
            await self._news.wait()


class Requester:
    """Writes rows, and learns what became of them. Whoever makes it gives it connections, one after another."""

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}
        self._socket: Socket | None = None
        self._changed: set[str] = set()
        self._begin("")
        self._synced = asyncio.Event()
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Requester epoch {self._epoch} {len(self._tickets)} open, {'synced' if self.synced else 'away'}>"

    @property
    def synced(self) -> bool:
        """Whether a connection stands and the replica is whole."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Until :attr:`synced`.

        Raises:
            SetupError: the server will have us no more.
        """
        await self._synced.wait()
        if self._error is not None:
            raise self._error

    def rows(self) -> Mapping[str, Request]:
        """What everybody asks for now, in the order in which the agent took it; rows that it has not taken are left
        out."""
        read = [request for key in list(self._rows.keys()) if (request := self._read(key)) is not None]
        return {request.id: request for request in sorted(read, key=lambda one: one.ordinal)}

    def send(self, action: str, **columns: Any) -> Ticket:
        """Write a row, unless it is there and has not ended. Columns that are null are left out.

        Raises:
            RefusedError: one with this ``request_id`` and other columns is there and has not ended.
        """
        request_id = columns.pop("request_id", None) or uuid.uuid4().hex
        given = {name: value for name, value in columns.items() if value is not None}
        row = schema.clean({"action": action, **given})
        if (known := self._tickets.get(request_id)) is not None:
            if known.row != {**row, "created_at": known.row["created_at"]}:
                raise RefusedError(USED_BEFORE)
            return known
        ticket = Ticket(request_id, {**row, "created_at": time.time()})
        self._tickets[request_id] = ticket
        if self.synced:
            self._write([ticket])
        return ticket

    async def run(self, socket: Socket, epoch: str) -> bool:
        """One connection, from its beginning to its end; whether it ever was in sync.

        Raises:
            RemoteError: the server said what is no y-protocols message; the next connection begins anew.
        """
        synced = False
        if epoch != self._epoch:
            self._begin(epoch)
        self._socket = socket
        try:
            self._send(yproto.step1(self._doc.get_state()))
            while (data := await socket.read_message()) is not None:
                if isinstance(data, str):
                    raise RemoteError(Reason.MALFORMED, "a text message from the server")
                self._receive(data)
                synced = synced or self.synced
        finally:
            self._synced.clear()
            self._socket = None
        return synced

    def fail(self, error: Exception) -> None:
        """The server will have us no more: everybody who waits is told."""
        self._error = error
        self._synced.set()
        for ticket in self._tickets.values():
            ticket.tell(error=error)

    # ---

    def _begin(self, epoch: str) -> None:
        self._epoch = epoch
        self._doc: Doc[Any] = Doc()
        self._rows: Map[Any] = self._doc.get("requests", type=Map)
        self._subscription = self._rows.observe_deep(schema.weakly(self._note))
        self._changed.clear()

    def _receive(self, data: bytes) -> None:
        match yproto.read_message(data):
            case yproto.Step1(clocks):  # behind the answer to ours: what we wrote and it lacks got lost on its way
                self._send(yproto.step2(self._doc.get_update(yproto.write_state_vector(clocks))))
                self._synced.set()
                self._write([ticket for ticket in self._tickets.values() if ticket.id not in self._rows])
                self._changed.update(self._tickets)
            case yproto.Step2(update) | yproto.Update(update):
                self._apply(update)
            case _:
                pass
        self._look()

    def _apply(self, update: bytes) -> None:
        if update != yproto.EMPTY_UPDATE:
            try:
                self._doc.apply_update(update)
            except ValueError as exc:
                raise RemoteError(Reason.MALFORMED, "an update that pycrdt cannot read") from exc

    def _write(self, tickets: list[Ticket]) -> None:
        """Put rows into the replica, and send what that changed: one update, in the order of the tickets."""
        if not tickets:
            return
        state = self._doc.get_state()
        with self._doc.transaction():
            for ticket in tickets:
                self._rows[ticket.id] = Map(ticket.row)
        self._send(yproto.update(self._doc.get_update(state)))

    def _send(self, message: bytes) -> None:
        """Send a message; where the connection has broken, the next one makes up for it."""
        if self._socket is None:
            return
        with suppress(WebSocketClosedError):
            sent = self._socket.write_message(message, binary=True)
            if isinstance(sent, asyncio.Future):
                sent.add_done_callback(_look_at)

    def _note(self, events: list[Any]) -> None:
        for event in events:
            if event.path:
                self._changed.add(str(event.path[0]))
            else:
                self._changed.update(event.keys)

    def _look(self) -> None:
        changed, self._changed = self._changed, set()
        for key in changed:
            ticket = self._tickets.get(key)
            if ticket is not None and (request := self._read(key)) is not None:
                code = ticket.row.get("code")
                if request.columns.get("code", code) != code:  # another client's, which has not ended: so it stays
                    del self._tickets[key]
                    ticket.tell(error=RefusedError(USED_BEFORE))
                    continue
                ticket.tell(request)
                if ticket.ended:
                    ticket.row = {"action": ticket.row["action"]}  # what was typed is not kept
                    del self._tickets[key]

    def _read(self, key: str) -> Request | None:
        """A row as the agent has it; null where it has not taken it."""
        row = self._rows.get(key)
        columns = row.to_py() if isinstance(row, Map) else None
        return schema.read_request(key, columns) if columns and "by" in columns else None


def _look_at(sent: asyncio.Future[Any]) -> None:
    if not sent.cancelled() and sent.exception() is not None:
        log.debug("a request could not be sent: %s", sent.exception())
