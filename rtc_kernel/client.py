"""How does a Python program follow a kernel's document?

A follower holds a replica of ``<kernel_id>/state`` and reads it as frozen records; it never writes there, not even an
empty update. What it asks of the kernel goes through another document (``requesting``). The replica belongs to one
epoch: when the document begins a new life, the replica is dropped and synced anew, and every reader is told to start
over (``reset``). docs/protocol.md has the wire.

::

    async with rtc_kernel.connect("http://127.0.0.1:PORT/?token=…") as doc:
        async for change in doc.changes():
            print(change.kind, change.table, change.record)

Two halves: :class:`Replica` (bytes in, names of changed rows out; no I/O) and :class:`Document` (the connection,
its reconnects, and the readers that wait).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import re
import ssl
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from pycrdt import ArrayEvent, Doc, Map, MapEvent, Subscription
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, WebSocketError

from . import discovery, rooms, schema, yproto
from .dialing import answer_of, dial, hang_up
from .errors import CLOSE_CODES, LocalError, MissingError, Reason, RefusedError, RemoteError, SetupError
from .excerpts import new_outputs
from .requesting import Requester, Socket, Ticket
from .tables import (
    ANSWER_AGE_S,
    END_STATES,
    REQUEST_END_STATES,
    SCHEMA_VERSION,
    Cell,
    Comm,
    Execution,
    ExecutionState,
    Json,
    Kernel,
    Output,
    Query,
    QueryState,
    Request,
    execution_from_json,
)

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0
REQUEST_S = 30.0
"""Seconds that one HTTP request may take."""
ANSWER_READ_S = 30.0
"""Seconds that an answer which was given may take to come with the document."""
PING_S = 20.0
"""Seconds between two signs of life to the server; without an answer in between the connection is given up."""
MAX_MESSAGE_BYTES = 1 << 31
"""The first sync is one message and may be as large as the window (tornado's own limit is 10 MiB)."""
MAX_PENDING = 4096
"""Changed rows that wait for one slow reader; beyond, it is told to start over."""

Table = Literal["executions", "kernels", "comms", "cells", "queries", "meta"]
Record = Execution | Kernel | Comm | Cell | Query | Mapping[str, Any]
Kind = Literal["added", "updated", "removed", "reset"]

_FINAL = {
    Reason.UNAUTHORIZED: "ask for a new link with `%rtc share`, or leave the token out for a kernel of your own",
    Reason.READ_ONLY: "this is a bug of the client: it never writes what is not its own; please report it",
    Reason.FORBIDDEN: "ask for another link: `%rtc share --role run`",
    Reason.NO_SUCH_ROOM: "look with `jupyter rtc list` which kernels live",
    Reason.REVOKED: "ask for a new link with `%rtc share`",
}
"""Close reasons that no reconnecting heals, with what to do."""
_BY_CODE = {code: reason for reason, (code, _) in CLOSE_CODES.items()}


@dataclass(frozen=True, slots=True)
class Change:
    """What became different in the document.

    Attributes:
        kind: ``added`` | ``updated`` | ``removed`` | ``reset``. Several changes of one row between two looks are
            one. ``reset``: the document began a new life, or this reader was too slow: read it all again.
        table: ``executions`` | ``kernels`` | ``comms`` | ``cells`` | ``queries`` | ``meta``; null for a reset.
        id: the row's key; empty for a reset.
        record: the row as it is now; null when removed and for a reset.
    """

    kind: Kind
    table: Table | None
    id: str
    record: Record | None


@dataclass(frozen=True, slots=True)
class BlobPiece:
    """Some of a blob's bytes.

    Attributes:
        media_type: of the blob, as it is served: what a browser would run is ``text/plain``.
        size_bytes: of the whole blob.
        start: where ``data`` begins in it.
    """

    media_type: str
    size_bytes: int
    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Address:
    """Where a document is. ``url`` has no token and no slash at its end. ``certfile``: the certificate that is trusted,
    of a kernel of this machine that speaks TLS; any other needs one that the system trusts (``SSL_CERT_FILE``)."""

    url: str
    token: str | None = None
    certfile: str | None = None

    @classmethod
    def resolve(cls, target: str, token: str | None = None) -> Address:
        """From what a user has: a link, a kernel id or its prefix, or the path of a connection file.

        Raises:
            SetupError: no such kernel on this machine.
        """
        if not target.startswith(("http://", "https://")):
            return cls.of(discovery.find(target), token)
        parts = urlsplit(target)
        in_url = parse_qs(parts.query).get("token", [None])[0]
        return cls(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", token or in_url)

    @classmethod
    def of(cls, kernel: discovery.LiveKernel, token: str | None = None) -> Address:
        """Of a kernel of this machine's user."""
        return cls(kernel.url.rstrip("/"), token or kernel.token, kernel.certfile)

    def trust(self) -> ssl.SSLContext | None:
        """What to trust; null: what the system does."""
        if self.certfile is None:
            return None
        context = ssl.create_default_context(cafile=self.certfile)
        context.check_hostname = False  # it is this very certificate that is trusted, whatever name it was made for
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def headers(self) -> dict[str, str]:
        """The token's header; nothing where there is no token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


async def call(address: Address, method: str, path: str, body: Json | None = None) -> Json:
    """One request to the side socket's HTTP API.

    Args:
        path: with its query, e.g. ``/api/health``.

    Raises:
        SetupError: nobody answers, or the answer is an error: with what the server says is to be done.
    """
    value: Json = json.loads(await fetch(address, method, path, body))
    return value


async def fetch(address: Address, method: str, path: str, body: Json | None = None) -> bytes:
    """The same as :func:`call`, for an answer that is not JSON."""
    return (await _fetch(address, method, path, body)).body


async def _fetch(
    address: Address,
    method: str,
    path: str,
    body: Json | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> HTTPResponse:
    http = AsyncHTTPClient(force_instance=True, max_body_size=MAX_MESSAGE_BYTES)
    try:
        request = HTTPRequest(
            address.url + path,
            method,
            headers={**address.headers(), **headers},
            ssl_options=address.trust(),
            body=json.dumps(body or {}) if method in ("POST", "PUT") else None,
            connect_timeout=REQUEST_S,
            request_timeout=REQUEST_S,
        )
        answer = await answer_of(http.fetch(request, raise_error=False))
    except (HTTPClientError, OSError) as exc:  # no answer is an error in any case
        raise _nobody(address, exc) from exc
    finally:
        http.close()
    if answer.error is None:
        return answer
    raise _refused(answer)


def _nobody(address: Address, error: BaseException) -> SetupError:
    return SetupError(f"nobody answers at {address.url} ({error})", "`jupyter rtc list` shows the kernels that live")


def _refused(answer: HTTPResponse) -> SetupError:
    try:
        value = json.loads(answer.body)
        kind = MissingError if answer.code == 404 else SetupError
        return kind(str(value["error"]), str(value["remedy"]))
    except (ValueError, KeyError, TypeError):
        reason = {401: Reason.UNAUTHORIZED, 404: Reason.NO_SUCH_ROOM}.get(answer.code, Reason.READ_ONLY)
        what = f"the server answered {answer.code} {answer.reason}"
        return SetupError(what, _FINAL[reason] if answer.code != 403 else "ask for a link with a higher role")


def _versions_problem(health: Json) -> SetupError | None:
    """Who does not know the tables or the wire stops (docs/protocol.md, "Versions")."""
    version, protocol = health.get("schema", SCHEMA_VERSION), health.get("protocol", yproto.PROTOCOL)
    if (version, protocol) == (SCHEMA_VERSION, yproto.PROTOCOL):
        return None
    known = f"this rtc_kernel knows {SCHEMA_VERSION} and {yproto.PROTOCOL}"
    return SetupError(f"the agent has schema {version} and speaks {protocol}, {known}", "upgrade rtc_kernel here")


# --- the replica: bytes in, names of changed rows out --------------------------------------------------------

R = TypeVar("R", Execution, Kernel, Comm, Cell, Query)
RowChange = tuple[Kind, Table, str]


class Rows(Generic[R]):
    """One table of the replica, as records.

    A record is read when somebody asks for it, and after a change only what changed of it: a flood of output
    costs its reader what was added, not what was there.

    Args:
        root: the table's root map.
        read: a row as a record; given the record as it was and the positions of its outputs that changed since,
            it need not read the other outputs again.
        order: the sort key of the records.
    """

    def __init__(
        self,
        table: Table,
        root: Map[Any],
        read: Callable[[str, Map[Any], R | None, frozenset[int]], R],
        order: Callable[[R], Any],
    ) -> None:
        self.table: Table = table
        self._root = root
        self._read: Callable[[str, Map[Any], R | None, frozenset[int]], R] = read
        self._order: Callable[[R], Any] = order
        self._records: dict[str, R] = {}
        self._stale: dict[str, set[int] | None] = dict.fromkeys(root.keys())  # null: the whole row
        self._snapshot: Mapping[str, R] | None = None

    def __repr__(self) -> str:
        return f"<Rows {self.table}: {len(self._root)} rows, {len(self._stale)} stale>"

    def get(self, key: str) -> R | None:
        """The row as it is now, without reading the others; null where there is none."""
        if key in self._stale:
            positions = self._stale.pop(key)
            known = None if positions is None else self._records.get(key)
            self._records[key] = self._read(key, self._root[key], known, frozenset(positions or ()))
        return self._records.get(key)

    def snapshot(self) -> Mapping[str, R]:
        """All rows as they are now, in order; never changed afterwards."""
        if self._snapshot is None:
            for key in list(self._stale):
                self.get(key)
            self._records = dict(sorted(self._records.items(), key=lambda item: self._order(item[1])))
            self._snapshot = MappingProxyType(dict(self._records))
        return self._snapshot

    def receive_event(self, event: Event) -> Iterator[RowChange]:
        """Which rows this event is about."""
        self._snapshot = None
        if not event.path:
            for key, action in event.keys.items():
                yield self._receive_row(key, action)
            return
        key = str(event.path[0])
        if key not in self._root:  # removed in the same transaction
            return
        stale = self._stale.setdefault(key, set())
        match event.path[1:]:
            case ["outputs", int(position), *_] if stale is not None:
                stale.add(position)
            case ["outputs"] if event.appends:
                pass  # what stands behind the outputs that were known is read anyway
            case []:
                pass  # columns are always read
            case _:
                self._stale[key] = None
        yield "updated", self.table, key

    def _receive_row(self, key: str, action: str) -> RowChange:
        if action == "delete":
            self._stale.pop(key, None)
            self._records.pop(key, None)
            return "removed", self.table, key
        self._stale[key] = None
        return ("added" if action == "add" else "updated"), self.table, key


@dataclass(frozen=True, slots=True)
class Event:
    """What a Y observer said, without the Y types.

    Attributes:
        path: within the table: row, column, position, …; empty for the table itself.
        keys: of a map: key → ``add`` | ``update`` | ``delete``.
        appends: of an array: items were added at its end, and that is all.
    """

    path: tuple[str | int, ...]
    keys: dict[str, str]
    appends: bool


def _to_event(event: Any) -> Event:
    is_map, is_array = isinstance(event, MapEvent), isinstance(event, ArrayEvent)
    keys = {key: str(change["action"]) for key, change in event.keys.items()} if is_map else {}
    return Event(tuple(event.path), keys, is_array and _appends(event.delta, len(event.target)))


def _appends(delta: list[dict[str, Any]], length: int) -> bool:
    """Whether an array's delta, after which it has this length, did nothing but add at its end."""
    if not delta or set(delta[-1]) != {"insert"} or any(set(change) != {"retain"} for change in delta[:-1]):
        return False
    kept = sum(int(change["retain"]) for change in delta[:-1])
    return kept + len(delta[-1]["insert"]) == length


class Replica:
    """A copy of one epoch of a document.

    The state: the Y document, whether the first sync has come, one :class:`Rows` per table, and the events that
    observers have queued since the last look (observers only append, and never raise).
    """

    def __init__(self, kernel_id: str, epoch: str) -> None:
        self.kernel_id = kernel_id
        self.epoch = epoch
        self.answered = 0  # how often our state vector was answered; the first time the replica is whole
        self._doc: Doc[Any] = Doc()
        self._roots: dict[Table, Map[Any]] = {
            table: self._doc.get(table, type=Map)
            for table in ("meta", "kernels", "executions", "comms", "cells", "queries")
        }
        self._events: list[tuple[Table, Event]] = []
        self._subscriptions: list[Subscription] = []
        self._read_tables()

    def __repr__(self) -> str:
        return f"<Replica {self.kernel_id} epoch {self.epoch} answered={self.answered} {self.executions!r}>"

    def _read_tables(self) -> None:
        roots = self._roots
        self.executions = Rows("executions", roots["executions"], _read_execution, lambda row: (row.seq, row.id))
        self.kernels = Rows("kernels", roots["kernels"], _reader(schema.read_kernel), lambda row: row.id)
        self.comms = Rows(
            "comms", roots["comms"], _reader(schema.read_comm), lambda row: (row.opened_at or 0.0, row.id)
        )
        self.cells = Rows("cells", roots["cells"], _reader(schema.read_cell), lambda row: (row.index, row.id))
        self.queries = Rows(
            "queries", roots["queries"], _reader(schema.read_query), lambda row: (row.asked_at or 0.0, row.id)
        )

    def meta(self) -> Mapping[str, Any]:
        """The one row ``meta``."""
        return MappingProxyType(schema.read_meta(self._doc))

    def record(self, table: Table, key: str) -> Record | None:
        """One row as it is now; null where there is none."""
        match table:
            case "executions":
                return self.executions.get(key)
            case "kernels":
                return self.kernels.get(key)
            case "comms":
                return self.comms.get(key)
            case "cells":
                return self.cells.get(key)
            case "queries":
                return self.queries.get(key)
            case "meta":
                return self.meta()

    def writers(self) -> frozenset[int]:
        """The Yjs client ids of all who wrote something of what is here."""
        return frozenset(yproto.read_state_vector(self._doc.get_state()))

    def request(self) -> bytes:
        """What to send first: our state vector, so that only what is missing comes."""
        return yproto.step1(self._doc.get_state())

    def receive_bytes(self, data: bytes) -> list[RowChange]:
        """Apply one message of the server.

        Returns:
            The rows that changed, each once; empty for the first sync, after which everything is new.

        Raises:
            RemoteError: it is no y-protocols message; drop the replica.
        """
        match yproto.read_message(data):
            case yproto.Step2(update):
                self._apply(update)
                self.answered += 1
            case yproto.Update(update):
                self._apply(update)
            case _:
                pass  # awareness is of no use to a follower, and it has nothing of its own to tell
        if self.answered and not self._subscriptions:
            self._read_tables()
            self._subscriptions = [root.observe_deep(self._observer(table)) for table, root in self._roots.items()]
        return self._drain()

    def _apply(self, update: bytes) -> None:
        if update == yproto.EMPTY_UPDATE:
            return
        schema.guard(lambda: self._doc.apply_update(update))

    def _observer(self, table: Table) -> Callable[[list[Any]], None]:
        found = weakref.ref(self)  # as in schema.weakly

        def observe(events: list[Any]) -> None:
            if (alive := found()) is not None:
                alive._events.extend((table, _to_event(event)) for event in events)

        return observe

    def _drain(self) -> list[RowChange]:
        events, self._events = self._events, []
        changes: dict[tuple[Table, str], Kind] = {}
        for table, event in events:
            for kind, _, key in self._receive_event(table, event):
                changes[table, key] = merge_kinds(changes.get((table, key)), kind) or "updated"
        return [(kind, table, key) for (table, key), kind in changes.items()]

    def _receive_event(self, table: Table, event: Event) -> Iterable[RowChange]:
        match table:
            case "executions":
                return self.executions.receive_event(event)
            case "kernels":
                return self.kernels.receive_event(event)
            case "comms":
                return self.comms.receive_event(event)
            case "cells":
                return self.cells.receive_event(event)
            case "queries":
                return self.queries.receive_event(event)
            case "meta":
                return [("updated", "meta", "meta")]


def _read_execution(key: str, row: Map[Any], known: Execution | None, changed: frozenset[int]) -> Execution:
    return schema.read_execution(key, row, known=known, changed=changed)


def _reader(read: Callable[[str, Map[Any]], R]) -> Callable[[str, Map[Any], R | None, frozenset[int]], R]:
    return lambda key, row, _known, _changed: read(key, row)


def merge_kinds(earlier: Kind | None, later: Kind) -> Kind | None:
    """Two changes of one row as one; null: the row came and went, and there is nothing to say."""
    match earlier, later:
        case "added", "removed":
            return None
        case "added", _:
            return "added"
        case "removed", "added":
            return "updated"
        case _:
            return later


# --- the document: the connection, and who waits for it --------------------------------------------------------


class Changes(AsyncIterator[Change]):
    """One reader's view of what changes; :meth:`Document.changes` makes it.

    It ends when the document is closed, and raises the document's error when the server will have us no more.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._pending: dict[tuple[Table, str], Kind] = {}
        self._reset = False
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Changes {len(self._pending)} rows waiting, reset={self._reset}>"

    def push(self, changes: Iterable[RowChange]) -> None:
        """Remember that rows changed; what they are now is read when the reader comes."""
        for kind, table, key in changes:
            merged = merge_kinds(self._pending.pop((table, key), None), kind)
            if merged is not None and not self._reset:
                self._pending[table, key] = merged
        if len(self._pending) > MAX_PENDING:
            self.push_reset()
        self._news.set()

    def push_reset(self) -> None:
        """Everything is different now."""
        self._pending.clear()
        self._reset = True
        self._news.set()

    def wake(self) -> None:
        """Look again: the document was closed, or its connection came or went."""
        self._news.set()

    async def wait(self) -> None:
        """Until something is different."""
        await self._news.wait()
        self._news.clear()

    def discard(self) -> None:
        """Forget what is waiting: the reader looks at the document itself."""
        self._pending.clear()
        self._reset = False

    async def __anext__(self) -> Change:
        while True:
            if self._reset:
                self._reset = False
                return Change("reset", None, "", None)
            if self._pending:
                (table, key), kind = next(iter(self._pending.items()))
                del self._pending[table, key]
                record = None if kind == "removed" else self._document.record(table, key)
                if record is None and kind != "removed":
                    continue
                return Change(kind, table, key, record)
            self._document.raise_if_refused()
            if self._document.closed:
                raise StopAsyncIteration
            await self.wait()


class _RefusedForGoodError(Exception):
    """The server will have us no more, whatever we try."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


_TROUBLE = (SetupError, RemoteError, WebSocketError, OSError, TimeoutError)
"""What a connection may end with, so that another one is tried."""


class Backoff:
    """Pauses between attempts to connect: each about twice the one before, until one has worked."""

    def __init__(self) -> None:
        self._delay_s = BACKOFF_FIRST_S

    async def wait(self, *, worked: bool) -> None:
        """Pause. ``worked``: the last attempt was one that succeeded."""
        if worked:
            self._delay_s = BACKOFF_FIRST_S
        await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.0))
        self._delay_s = min(self._delay_s * 2, BACKOFF_MOST_S)


class Run:
    """A run that was asked for; :meth:`Document.run` makes it.

    It is followed in the document: what another client does to it (interrupt, answer) is seen here too.
    """

    def __init__(self, document: Document, ticket: Ticket) -> None:
        self._document = document
        self._ticket = ticket

    def __repr__(self) -> str:
        return f"<Run {self._ticket!r}>"

    @property
    def id(self) -> str:
        """The request's id."""
        return self._ticket.id

    @property
    def request(self) -> Request:
        """The request as the agent has it: ``requested``, ``held``, ``accepted`` or ``done``."""
        if self._ticket.request is None:
            raise LocalError("a run is made of a request that was acknowledged")
        return self._ticket.request

    async def execution(self) -> str:
        """The id of the execution it became, or was joined to; waits until it has one.

        Raises:
            RefusedError: it ended without one: dropped, or refused.
        """
        request = await self._ticket.until(lambda one: one.execution is not None or self._ticket.ended)
        if request.execution is None:
            raise RefusedError(request.reason or "it ended without an execution")
        return request.execution

    async def outputs(self) -> AsyncIterator[Output]:
        """Outputs as they come: of a stream what is new of its text (a line that is overwritten comes again behind a
        carriage return), of others each when it is shown or updated; ends when the run has ended. Of a flood that is
        faster than this reader the document keeps head and tail: then ``omitted_bytes`` says how much of the new text
        is missing at its ``omitted_index``, and outputs may be missing between two."""
        async for before, now in self._states():
            for _, output in new_outputs(before, now):
                yield output

    async def changes(self) -> AsyncIterator[Execution]:
        """The execution's record whenever it is different, its end last."""
        async for _, now in self._states():
            yield now

    async def result(self) -> Execution:
        """The execution at its end: its ``state``, ``outputs`` and ``error``; one that failed is a value too.

        Raises:
            RefusedError: it ended without an execution.
        """
        async for _, now in self._states():
            if now.state in END_STATES:
                return now
        raise LocalError("a run's states ended before the run did")

    async def ended(self) -> Request:
        """The request at its end: its ``reason`` says why it did not end ``ok``."""
        return await self._ticket.until(_has_ended)

    async def interrupt(self) -> None:
        """Interrupt it, if it runs."""
        await self._document.interrupt(await self.execution())

    async def cancel(self) -> None:
        """Take it back, if it was not sent yet."""
        await self._document.cancel(self.id)

    async def _states(self) -> AsyncIterator[tuple[Execution | None, Execution]]:
        """The record before and now, whenever it is different."""
        key = await self.execution()
        document, before = self._document, None
        changes = document.changes()
        ended = asyncio.ensure_future(self._ticket.until(lambda _: self._ticket.ended))
        ended.add_done_callback(lambda _: changes.wake())
        try:
            while True:
                record = document.record("executions", key)
                now = record if isinstance(record, Execution) else None
                if now is None and ended.done():
                    ended.result()
                    now = await self._fetch(key)
                if now is not None and now != before:
                    yield before, now
                    before = now
                if now is not None and now.state in END_STATES:
                    return
                document.raise_if_refused()
                await changes.wait()
                changes.discard()
        finally:
            ended.cancel()

    async def _fetch(self, key: str) -> Execution:
        """An execution that has left the window, or that never had a row: a silent one."""
        if self._ticket.row.get("silent") or self.request.columns.get("silent"):
            state = ExecutionState.ERROR if self.request.reason else ExecutionState.OK
            return Execution(id=key, request=self.id, state=state)
        return await self._document.execution(key)


def _has_ended(request: Request) -> bool:
    return request.state in REQUEST_END_STATES


def _answers(record: Record | None, since: float) -> bool:
    """Whether it is an answer of then or later: one that was given before may still be shown when we are told that
    there is a new one, because that comes over another connection."""
    return isinstance(record, Query) and record.state is QueryState.DONE and (record.answered_at or 0.0) >= since


class Document:
    """A followed document; :func:`connect` makes it.

    The state: where it is, the replica that is shown (of the last epoch that was synced whole), the readers, and
    the error that ended it, if any. Everything happens on the loop that made it.
    """

    def __init__(self, target: str, token: str | None = None) -> None:
        self._target = target
        self._token = token
        self._address: Address | None = None
        self._replica: Replica | None = None
        self._health: Json = {}
        self._readers: weakref.WeakSet[Changes] = weakref.WeakSet()
        self._error: Exception | None = None
        self._requester: Requester | None = None
        self._requesting: asyncio.Task[None] | None = None
        self.trouble = ""  # why the last connection ended, or could not be made
        self.remedy = "`jupyter rtc list` shows the kernels that live"
        self.connected = False
        self.closed = False

    def __repr__(self) -> str:
        return f"<Document {self._target.partition('?')[0]} connected={self.connected} {self._replica!r}>"

    # what is in it

    @property
    def kernel(self) -> Kernel:
        """The kernel's row."""
        kernel = self._shown.kernels.get(self._shown.kernel_id)
        return kernel if kernel is not None else Kernel(id=self._shown.kernel_id)

    @property
    def executions(self) -> Mapping[str, Execution]:
        """The executions of the window by id, in the order of ``seq``: a snapshot that does not change."""
        return self._shown.executions.snapshot()

    @property
    def comms(self) -> Mapping[str, Comm]:
        """The comms by id, in the order in which they were opened: a snapshot."""
        return self._shown.comms.snapshot()

    @property
    def cells(self) -> Mapping[str, Cell]:
        """The cells of a headless run's notebook by id, in order: a snapshot; empty where there is none."""
        return self._shown.cells.snapshot()

    @property
    def queries(self) -> Mapping[str, Query]:
        """The questions that were put to the kernel, by id, in the order in which they were asked: a snapshot."""
        return self._shown.queries.snapshot()

    @property
    def meta(self) -> Mapping[str, Any]:
        """The row ``meta``: schema, server, health, gap, coverage."""
        return self._shown.meta()

    @property
    def epoch(self) -> str:
        """The life of the document that is shown."""
        return self._shown.epoch

    @property
    def role(self) -> str:
        """What our token may do: ``view`` | ``run`` | ``own``."""
        return str(self._health.get("role", "view"))

    @property
    def name(self) -> str:
        """Of our link: what others see as ``by`` and ``submitted_by`` of what we ask for."""
        return str(self._health.get("name", ""))

    @property
    def where(self) -> str:
        """Where the document is, for people; without a token."""
        return self.address.url

    @property
    def address(self) -> Address:
        """Where the document is, as of the last connection."""
        if self._address is None:
            raise LocalError("the document was never connected")
        return self._address

    @property
    def _shown(self) -> Replica:
        if self._replica is None:
            raise LocalError("the document is read before its first sync")
        return self._replica

    def record(self, table: Table, key: str) -> Record | None:
        """One row as it is now; null where there is none."""
        return self._shown.record(table, key)

    # to wait for something

    def changes(self) -> Changes:
        """What changes from now on. Each reader has its own, and none can hold up another."""
        reader = Changes(self)
        self._readers.add(reader)
        return reader

    async def wait_for(self, predicate: Callable[[Document], bool], timeout_s: float | None = None) -> None:
        """Until ``predicate(document)`` is true; it is asked again whenever something is different, ``connected``
        included.

        Raises:
            TimeoutError: not within ``timeout_s``.
            SetupError: the server will have us no more.
        """
        reader = self.changes()
        async with asyncio.timeout(timeout_s):
            while not predicate(self):
                self.raise_if_refused()
                if self.closed:
                    raise LocalError("the document was closed while somebody waited for it")
                await reader.wait()
                reader.discard()

    def raise_if_refused(self) -> None:
        """Raise what ended the document, if it was not us."""
        if self._error is not None:
            raise self._error

    # what is not in the window

    async def history(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        grep: str | None = None,
        text: str | None = None,
        state: str | None = None,
        cell: str | None = None,
        limit: int = 50,
    ) -> list[Execution]:
        """Executions from the store, newest first; of long ones the ends (:meth:`execution` gives the whole). A page
        that would be large has fewer than ``limit``.

        Args:
            before, after: only those whose ``seq`` is less, or greater: the last one's ``seq`` gives the next page.
            grep: a regular expression, searched in code and text; needs a token with the role ``run`` or ``own``.
            text: the same as plain text, for everybody.
        """
        asked = {
            "before": before,
            "after": after,
            "grep": grep,
            "text": text,
            "state": state,
            "cell": cell,
            "limit": limit,
        }
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        answer = await call(self.address, "GET", f"/api/history?{query}")
        return [execution_from_json(value) for value in answer["executions"]]

    async def execution(self, key: str) -> Execution:
        """One execution of the history, whole: of a long one the document and a page have only the ends.

        Args:
            key: its id, a beginning of it that no other id has, or ``#`` and its ``seq``.

        Raises:
            MissingError: there is none.
        """
        return execution_from_json(await call(self.address, "GET", f"/api/executions/{quote(key, safe='')}"))

    async def blob(self, digest: str) -> bytes:
        """The bytes behind ``{"blob": "sha256:…"}``.

        Raises:
            SetupError: there is no such blob here.
            RemoteError: the bytes that came are others.
        """
        name = digest.removeprefix("sha256:")
        data = await fetch(self.address, "GET", f"/blobs/{quote(name, safe='')}")
        if hashlib.sha256(data).hexdigest() != name:
            raise RemoteError(Reason.MALFORMED, "the blob's bytes do not have its digest")
        return data

    async def blob_piece(self, digest: str, start: int, count: int) -> BlobPiece:
        """Some of the bytes behind ``{"blob": "sha256:…"}``: at most ``count`` (from 1) of them, from ``start`` on. A
        piece is not compared with the digest, which is that of the whole.

        Raises:
            MissingError: there is no such blob here.
            SetupError: it ends before ``start``.
        """
        path = f"/blobs/{quote(digest.removeprefix('sha256:'), safe='')}"
        asked = {"Range": f"bytes={start}-{start + count - 1}"}
        answer = await _fetch(self.address, "GET", path, headers=asked)
        media_type = answer.headers.get("Content-Type", "application/octet-stream").partition(";")[0]
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if told is None:  # a server may answer with the whole
            return BlobPiece(media_type, len(answer.body), start, answer.body[start : start + count])
        return BlobPiece(media_type, int(told[2]), int(told[1]), answer.body)

    # to act: everything by a row of the requests; needs a token with the role run

    async def run(
        self,
        code: str,
        *,
        cell: str | None = None,
        notebook: str | None = None,
        after: Run | str | None = None,
        on_duplicate: Literal["coalesce", "queue"] = "coalesce",
        stop_on_error: bool = True,
        allow_stdin: bool = True,
        silent: bool = False,
        user_expressions: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Run:
        """Ask the kernel to run code; returns when the request is acknowledged, which is before it runs.

        Args:
            cell, notebook: what the run belongs to. Two requests for the same cell with the same code, while the
                first waits or runs, are one run, unless ``on_duplicate`` is ``queue``.
            after: a request that has to end before.
            stop_on_error: when the run fails, what we have asked for meanwhile and was not sent is aborted.
            silent: it leaves no execution behind, and cannot be followed.
            request_id: ours, if somebody has to know it beforehand; at most 128 characters.

        Raises:
            RefusedError: the agent refused it; ``reason`` names the column.
            SetupError: the token's role does not cover it.
        """
        ticket = self._send(
            "execute",
            code=code,
            cell=cell,
            notebook=notebook,
            after=after.id if isinstance(after, Run) else after,
            on_duplicate=on_duplicate,
            stop_on_error=stop_on_error,
            allow_stdin=allow_stdin,
            silent=silent,
            user_expressions=dict(user_expressions or {}),
            request_id=request_id,
        )
        await ticket.until(lambda _: True)
        return Run(self, ticket)

    async def interrupt(self, execution: str | None = None) -> None:
        """Interrupt what runs; with ``execution``, only if that is what runs.

        Raises:
            RefusedError: that execution does not run now.
        """
        await self._ask("interrupt", execution=execution)

    async def restart(self) -> None:
        """Restart the kernel; what was waiting is held."""
        await self._ask("restart")

    async def answer(self, execution: str, text: str, *, since: float | None = None) -> None:
        """Answer an execution that asks for input (``execution.input`` says what it asks).

        Args:
            since: of the question, so that the answer is never taken for one to the next question; the one that is
                shown now, unless given.

        Raises:
            RefusedError: it is not asking, or somebody else has answered.
        """
        if since is None and isinstance(record := self.record("executions", execution), Execution):
            since = (record.input or {}).get("since")
        await self._ask("input", execution=execution, value=text, since=since)

    async def cancel(self, request: str) -> None:
        """Take back a request that was not sent yet.

        Raises:
            RefusedError: it was sent, or it is not ours to cancel.
        """
        await self._ask("cancel", request=request)

    async def release(self, request: str | None = None) -> None:
        """Let a held request run; all of our own (for the owner: all there are) when none is named."""
        await self._ask("release", request=request)

    async def annotate(self, execution: str, key: str, value: Any) -> None:
        """Put a JSON value into the ``metadata`` of an execution."""
        await self._ask("annotate", execution=execution, key=key, value=value)

    async def clear(self, before: float | None = None) -> None:
        """Forget what has finished (before a time, POSIX seconds). For the owner."""
        await self._ask("clear", before=before)

    async def query(self, target: str, value: Any = None, *, fresh: bool = False) -> Any:
        """Ask the kernel over a comm target, without running code in anybody's cells; the answer's value.

        Args:
            target: of the comm; in a Python kernel :func:`rtc_kernel.answering.answer` makes one.
            value: what to ask it with, any JSON value.
            fresh: ask again, although the answer is known.

        Raises:
            RefusedError: the kernel has no such target, its handler failed, or it did not answer.
        """
        request = await self._send("query", target=target, input=value, fresh=fresh).until(_has_ended)
        if request.reason is not None:
            raise RefusedError(request.reason)
        key, since = str(request.columns.get("query")), request.received_at - (0.0 if fresh else ANSWER_AGE_S)
        with suppress(TimeoutError):
            await self.wait_for(lambda doc: _answers(doc.record("queries", key), since), ANSWER_READ_S)
        record = self.record("queries", key)
        if not isinstance(record, Query) or not _answers(record, since):  # many asked since, or the kernel began anew
            raise RefusedError("the answer is gone, ask again")
        return record.result

    async def requests(self) -> Mapping[str, Request]:
        """What everybody asks for now, by id, in order: what waits, what is held, and what ended just now."""
        requester = self._open_requests()
        await requester.wait_synced()
        return requester.rows()

    async def _ask(self, action: str, **columns: Any) -> None:
        await self._send(action, **columns).until(_has_ended)

    def _send(self, action: str, **columns: Any) -> Ticket:
        return self._open_requests().send(action, **columns)

    def _open_requests(self) -> Requester:
        self.raise_if_refused()
        if self.closed:
            raise LocalError("the document is closed")
        if self._requester is None:
            self._requester = requester = Requester()
            self._requesting = asyncio.create_task(self._keep_requesting(requester), name="rtc-requests")
            self._requesting.add_done_callback(lambda done: _tell_failure(self, done))
        return self._requester

    async def _keep_requesting(self, requester: Requester) -> None:
        """A connection to the requests, and another one when it is lost, until cancelled or refused for good."""
        backoff = Backoff()
        while self._error is None:
            worked = False
            try:
                worked = await self._request_once(requester)
            except _TROUBLE as exc:
                log.debug("%r: %s", requester, exc)
            if self._error is None:
                await backoff.wait(worked=worked)
        requester.fail(self._error)

    async def _request_once(self, requester: Requester) -> bool:
        """One connection to the requests, from its beginning to its end; whether it ever was in sync."""
        address, worked = self.address, False
        try:
            health = await call(address, "GET", "/api/health")
            room, epoch = f"{self._shown.kernel_id}/requests", str(health.get("requests_epoch", ""))
            socket = await self._dial(address, room, epoch)
            try:
                worked = await requester.run(socket, epoch)
            finally:
                hang_up(socket)
            reason = _BY_CODE.get(socket.close_code or 0)
            if reason in _FINAL:
                raise _RefusedForGoodError(reason)
        except _RefusedForGoodError as exc:
            self._refuse(address, exc.reason)
        return worked

    # the connection

    async def follow(self) -> None:
        """Connect, and connect again, until cancelled or refused for good."""
        backoff = Backoff()
        while self._error is None:
            again = False
            try:
                again = await self._follow_once()
            except _TROUBLE as exc:
                self.trouble = str(exc)
                log.debug("%r: %s", self, exc)
            worked = self.connected
            if worked:
                self._set_connected(False)
            if self._error is None and not again:
                await backoff.wait(worked=worked)

    async def _follow_once(self) -> bool:
        """One connection, from its beginning to its end; whether to try again at once."""
        self._address = address = Address.resolve(self._target, self._token)
        health = await call(address, "GET", "/api/health")
        if "epoch" not in health:  # what everybody may know, and no more
            return self._refuse(address, Reason.UNAUTHORIZED)
        if problem := _versions_problem(health):
            self.fail(problem)
            return False
        kernel_id, epoch = str(health["room"]).partition("/")[0], str(health["epoch"])
        if self._replica is not None and self._replica.kernel_id != kernel_id:
            raise SetupError(f"another kernel answers at {address.url} now", "start the earlier one again")
        self._health = health
        replica = self._replica
        if replica is None or replica.epoch != epoch:
            replica = Replica(kernel_id, epoch)
        try:
            socket = await self._dial(address, str(health["room"]), epoch)
            try:
                await self._read(socket, replica)
            finally:
                hang_up(socket)
            reason = _BY_CODE.get(socket.close_code or 0)
            self.trouble = f"the connection was closed: {reason or socket.close_code or 'no reason given'}"
            if reason in _FINAL:
                raise _RefusedForGoodError(reason)
        except _RefusedForGoodError as exc:
            return self._refuse(address, exc.reason)
        return reason is Reason.WRONG_EPOCH and replica is self._replica

    async def _dial(self, address: Address, room: str, epoch: str) -> WebSocketClientConnection:
        path = "/".join(quote(part, safe="") for part in room.split("/"))
        url = f"ws{address.url.removeprefix('http')}/rooms/{path}?{urlencode({'epoch': epoch})}"
        request = HTTPRequest(
            url,
            headers=address.headers(),
            ssl_options=address.trust(),
            connect_timeout=REQUEST_S,
            request_timeout=REQUEST_S,
        )
        try:
            return await dial(request, max_message_bytes=MAX_MESSAGE_BYTES, ping_s=PING_S)
        except HTTPClientError as exc:
            reason = {401: Reason.UNAUTHORIZED, 403: Reason.UNAUTHORIZED, 404: Reason.NO_SUCH_ROOM}.get(exc.code)
            if reason is None:
                raise RemoteError(Reason.MALFORMED, f"the WebSocket was answered with {exc.code}") from exc
            raise _RefusedForGoodError(reason) from exc

    async def _read(self, socket: Socket, replica: Replica) -> None:
        with suppress(WebSocketClosedError):  # a server that will not have us has closed already, and says why
            await socket.write_message(replica.request(), binary=True)
        answered = replica.answered
        while (data := await socket.read_message()) is not None:
            if isinstance(data, str):
                raise RemoteError(Reason.MALFORMED, "a text message from the server")
            changes = replica.receive_bytes(data)
            self._check(replica)
            if replica.answered == answered + 1:
                answered += 1
                self._show(replica)
            for reader in list(self._readers):
                reader.push(changes)

    def _check(self, replica: Replica) -> None:
        """Look at what came before anybody is shown it; RemoteError: it cannot be of the agent. (The agent's own
        server passes on nobody else's.)"""

    def _show(self, replica: Replica) -> None:
        """The first answer is here: from now on this replica is the document."""
        earlier, self._replica = self._replica, replica
        if earlier is not None and earlier is not replica:
            for reader in list(self._readers):
                reader.push_reset()
        self._set_connected(True)

    def _set_connected(self, connected: bool) -> None:
        self.connected = connected
        for reader in list(self._readers):
            reader.wake()

    def _refuse(self, address: Address, reason: Reason) -> bool:
        """The server will not have us; whether to try again at once. A kernel of our own may have another token and
        another place after it was started again, and its file says so sooner or later."""
        is_own = self._token is None and not self._target.startswith(("http://", "https://"))
        if is_own and reason in (Reason.UNAUTHORIZED, Reason.NO_SUCH_ROOM):
            with suppress(SetupError):
                return Address.resolve(self._target) != address
            return False
        self.fail(SetupError(CLOSE_CODES[reason][1].rstrip(".").lower(), _FINAL[reason]))
        return False

    def fail(self, error: Exception) -> None:
        """End the document with an error that every reader gets."""
        self._error = error
        self._set_connected(False)
        if self._requester is not None:
            self._requester.fail(error)

    def close(self) -> None:
        """End the document; its readers end too."""
        self.closed = True
        if self._requesting is not None:
            self._requesting.cancel()
        if self._requester is not None:
            self._requester.fail(LocalError("the document was closed while a request waited"))
        self._set_connected(False)


def _make(target: str, token: str | None) -> Document:
    """The document that a target names; a name that means nothing is told at once."""
    if rooms.is_link(target):
        from .relayed import RelayedDocument  # which is a Document

        return RelayedDocument(target, token)
    Address.resolve(target, token)
    return Document(target, token)


@asynccontextmanager
async def connect(target: str, token: str | None = None, *, timeout_s: float = 10.0) -> AsyncIterator[Document]:
    """Follow a kernel's document.

    Args:
        target: a link (``http://HOST:PORT/?token=…``, as ``%rtc share`` shows it), or the id, a unique prefix of
            the id, or the connection file of an RTC kernel that lives on this machine; or a room at a relay
            (``ws://HOST:PORT/ROOM``, as ``%rtc share --relay`` shows it, where several kernels are there with
            ``?kernel=ID``).
        token: instead of the link's own; a kernel of this machine's user needs none.
        timeout_s: how long the first sync may take. Afterwards the connection is renewed for ever.

    Yields:
        The document, synced.

    Raises:
        SetupError: no such kernel, nobody answers, or the token is refused; says what to do.
    """
    document = _make(target, token)
    task = asyncio.create_task(document.follow(), name=f"rtc-follow {target.partition('?')[0]}")
    task.add_done_callback(lambda done: _tell_failure(document, done))
    try:
        try:
            await document.wait_for(lambda doc: doc.connected, timeout_s)
        except TimeoutError:
            raise SetupError(
                f"no document within {timeout_s:g} s ({document.trouble or 'no answer'})", document.remedy
            ) from None
        yield document
    finally:
        document.close()
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


def _tell_failure(document: Document, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        document.fail(error if isinstance(error, Exception) else LocalError(repr(error)))
