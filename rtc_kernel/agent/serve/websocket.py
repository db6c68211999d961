"""How do peers reach the live document over HTTP and WebSocket?

Door (tornado, on the asyncio loop that runs). Owns the sockets, the peers and their outboxes; what a message means
is in ``session``, who may do what in ``access``, and all data come from the :class:`Backend`.

* ``GET  /``                        the plain page; ``?token=`` becomes a cookie
* ``GET  /api/health``              status and version; with a token the kernel's row, room, epoch, peers
* ``GET  /api/history``             a page of executions, newest first
* ``GET  /api/executions/ID``       one execution
* ``GET  /blobs/<64 hex>``          bytes by their digest
* ``GET  /api/peers``               own: who is connected
* ``GET  /api/share``, ``POST``, ``DELETE /api/share/NAME``   own: tokens in force, mint, revoke
* ``PUT  /api/notebook``            own: the cells of a headless run
* ``POST /api/clear``               own: forget finished executions
* ``WS   /rooms/<kernel>/state``    y-protocols; ``?epoch=`` refuses a replica of another life at once
* ``WS   /rooms/<kernel>/requests`` the same, for the role run: what peers ask for

A token is taken from, in this order: ``Authorization: Bearer``, the subprotocol ``rtc.token.<token>``, the cookie
``rtc-token-<port>``, ``?token=``. None is ever logged.

Every update is encoded once and written to all sockets in the same iteration of the loop. A peer that reads too
slowly is closed and syncs again from its state vector; nobody waits for it and no update is dropped.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.resources import files
from types import TracebackType
from typing import Any, TypeVar, assert_never
from urllib.parse import quote, urlsplit

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body
from tornado.websocket import WebSocketHandler

from ... import __version__, schema, yproto
from ...config import RTCKernel
from ...errors import CLOSE_CODES, Reason, RemoteError, SetupError
from ...tables import SCHEMA_VERSION, Cell, Json, to_json
from . import ROOMS, Backend, finite, parse_history
from .access import Action, Role, Token
from .session import Board, Close, Command, Limits, PeerState, Relay, Send, Session, Write

PROTOCOL = "y-protocols/1"
NOTEBOOK_BYTES = 64 << 20
"""How large the cells of a headless run may be."""

STOP_S = 1.0
"""How long peers have to answer the close when the agent stops."""

PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
BLOB_CSP = "sandbox; default-src 'none'"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (compared with, not bound to)

log = logging.getLogger("rtc_kernel.serve")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bound:
    """Where the server listens. ``moved``: the wanted port was taken, this is another one."""

    port: int
    moved: bool


class ProblemError(HTTPError):
    """An answer that is not what was asked for: a status, what happened, and what to do."""

    def __init__(self, status: int, error: str, remedy: str) -> None:
        super().__init__(status, reason=None)
        self.error = error
        self.remedy = remedy


class Server:
    """The side socket of one kernel.

    Args:
        backend: where data come from.
        settings: ``ip``, ``port``, ``allow_origins``, ``peers`` and the limits of peers.
        kernel: the kernel's id.
        proxy_prefix: the path under which jupyter-server-proxy stands, for ``proxied_url``.

    Use: ``server.listen()`` on the loop's thread, :meth:`push` after every change, ``await server.stop()``.
    """

    def __init__(self, backend: Backend, settings: RTCKernel, *, kernel: str, proxy_prefix: str = "/") -> None:
        self.backend = backend
        self.settings = settings
        self.kernel = kernel
        self.port = 0
        self.boards = {room: Board() for room in ROOMS}
        self.peers: dict[Peer, None] = {}
        self.executor = ThreadPoolExecutor(2, "rtc-serve-read")
        self.limits = Limits(
            auth_s=settings.auth_s,
            ping_s=settings.ping_s,
            message_bytes=settings.message_bytes,
            written_bytes=settings.written_bytes,
        )
        self._proxy_prefix = proxy_prefix.rstrip("/") + "/"
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.allow_origins)
        self._hosts = LOOPBACK | {settings.ip.lower()} | {_host_of(urlsplit(o).netloc) for o in self._origins}
        self._hosts -= WILDCARDS
        self._http: HTTPServer | None = None

    def __repr__(self) -> str:
        return f"<Server of {self.kernel} on port {self.port}: {len(self.peers)} peers>"

    # --- life

    def listen(self, port: int | None = None) -> Bound:
        """Bind and serve, on the running loop.

        Args:
            port: the wanted port; the setting unless given. 0: the system chooses.

        Raises:
            SetupError: the address cannot be bound at all.
        """
        wanted, moved = self.settings.port if port is None else port, False
        try:
            listener = _bind(self.settings.ip, wanted)
        except OSError as exc:
            if not wanted or exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise SetupError(
                    f"{self.settings.ip} port {wanted} cannot be bound ({exc.strerror})", "set ip and port"
                ) from exc
            listener, moved = _bind(self.settings.ip, 0), True
        self.port = listener.getsockname()[1]
        application = Application(
            _routes(self),
            log_function=_log_request,
            websocket_ping_interval=self.settings.ping_s,
            websocket_ping_timeout=self.settings.ping_s,
        )
        self._http = HTTPServer(
            application,
            max_header_size=self.settings.auth_bytes,
            max_body_size=self.settings.auth_bytes,
            idle_connection_timeout=self.settings.auth_s,
            body_timeout=self.settings.auth_s,
        )
        self._http.add_socket(listener)
        return Bound(self.port, moved)

    async def stop(self) -> None:
        """Tell every peer, wait at most :data:`STOP_S` for their answers, close everything."""
        if self._http is not None:
            self._http.stop()
        peers = tuple(self.peers)
        for peer in peers:
            peer.close(Reason.STOPPING)
        if gone := [peer.gone for peer in peers]:
            await asyncio.wait(gone, timeout=STOP_S)
        for peer in peers:
            peer.abort()
        if self._http is not None:
            await self._http.close_all_connections()
        self.executor.shutdown(wait=False, cancel_futures=True)

    # --- act

    def push(self, update: bytes, room: str = "state") -> None:
        """Send an update of a room's document to every follower, now."""
        message = yproto.update(update)
        frame: bytes | None = None
        for peer in tuple(self.peers):
            if peer.room == room and peer.session.push_update(message) is not None:
                frame = frame or _frame(message)
                peer.write(frame)

    def relay(self, message: bytes, room: str) -> None:
        """Send a message to every peer of the room that has shown itself."""
        frame = _frame(message)
        for peer in tuple(self.peers):
            if peer.room == room and peer.session.state in (PeerState.HEARD, PeerState.FOLLOWING):
                peer.write(frame)

    def begin_epoch(self, room: str = "state") -> None:
        """The backend has a new document: every replica is of another life now."""
        for peer in tuple(self.peers):
            if peer.room == room:
                peer.close(Reason.WRONG_EPOCH)
        self.boards[room] = Board()

    def close_peers(self, name: str, reason: Reason, *, room: str | None = None) -> int:
        """Close every connection of a name (in one room); how many there were."""
        found = [peer for peer in self.peers if peer.session.name == name and room in (None, peer.room)]
        for peer in found:
            peer.close(reason)
        return len(found)

    def share(self, role: Role, name: str = "", expires_s: float | None = None) -> Json:
        """Mint a token: ``name``, ``role``, ``token``, ``url``, ``proxied_url``, ``expires_at``.

        Raises:
            SetupError: the name is taken, or the time is not in the future.
        """
        secret, token = self.backend.tokens.mint(name, role, now=time.time(), expires_s=expires_s)
        self.backend.tokens_changed()
        return {
            "name": token.name,
            "role": token.role.value,
            "token": secret,
            "url": f"{self.url}/?token={quote(secret)}",
            "proxied_url": f"{self._proxy_prefix}proxy/{self.port}/?token={quote(secret)}",
            "expires_at": token.expires_at,
        }

    def revoke(self, name: str) -> bool:
        """Take a token out of force and close its connections, now. False: there is none of that name."""
        if self.backend.tokens.revoke(name) is None:
            return False
        self.backend.tokens_changed()
        self.close_peers(name, Reason.REVOKED)
        self.backend.revoked(name)
        return True

    @property
    def url(self) -> str:
        """Where the page is, without a slash at the end."""
        host = socket.gethostname() if self.settings.ip in WILDCARDS else self.settings.ip
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def cookie(self) -> str:
        """The name of our cookie: kernels of one host differ by port."""
        return f"rtc-token-{self.port}"

    # --- who may

    def allows_host(self, host: str) -> bool:
        """Whether a ``Host`` header is one of ours. Any other may be a rebound name of a foreign page."""
        return _host_of(host) in self._hosts

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this ``Origin`` may ask: our own page, or one that the settings name."""
        return origin.lower() in self._origins or urlsplit(origin).netloc.lower() == host.lower()

    def names_origin(self, origin: str) -> bool:
        """Whether the settings name this ``Origin``."""
        return origin.lower() in self._origins

    def verify(self, secret: str | None) -> Token | None:
        """The token in force that a secret belongs to."""
        return self.backend.tokens.verify(secret, time.time()) if secret else None


def _bind(ip: str, port: int) -> socket.socket:
    """A listening socket. (``tornado.netutil.bind_sockets`` leaks its socket when the port is taken.)"""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    listener = socket.create_server((ip, port), family=family, backlog=128)
    listener.setblocking(False)
    return listener


# --- peers -------------------------------------------------------------------------------------------------


class Peer:
    """One connection: its session, its outbox, its timer."""

    def __init__(self, server: Server, handler: RoomHandler, session: Session, room: str, address: str) -> None:
        self.session = session
        self.room = room
        self.address = address
        self.since = time.time()
        self.waiting_messages = 0
        self.waiting_bytes = 0
        self._server = server
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._timer = self._loop.call_at(session.due, self._time)

    def __repr__(self) -> str:
        return f"<Peer {self.session!r} {self.waiting_messages} waiting, {self.waiting_bytes} bytes>"

    def receive(self, data: bytes) -> None:
        """A message came."""
        self.run(self.session.receive_bytes(data, self._loop.time()))

    def run(self, commands: list[Command]) -> None:
        """Do what the session says."""
        for command in commands:
            match command:
                case Send(data, counted):
                    self.write(_frame(data), counted=counted)
                case Relay(data):
                    self._server.relay(data, self.room)
                case Write(update):
                    self._write(update)
                case Close():
                    log.info("%s closed: %s %s", self.session.name, command.reason.value, command.detail)
                    self._timer.cancel()
                    self._server.peers.pop(self, None)
                    self._handler.close(command.code, command.sentence)
                case _:
                    assert_never(command)

    def _write(self, update: bytes) -> None:
        """The peer's update of the requests."""
        session = self.session
        try:
            undone_count = self._server.backend.receive_update(update, by=session.name, role=session.role)
        except RemoteError as exc:
            return self.run(session.close(exc.reason, exc.detail))
        return self.run(session.receive_undone(undone_count, self._loop.time()))

    def write(self, frame: bytes, *, counted: bool = True) -> None:
        """Write one frame; what the socket does not take at once waits in the outbox."""
        connection = self._handler.ws_connection
        if connection is None or connection.stream is None or connection.is_closing():
            return
        try:
            written = connection.stream.write(frame)
        except StreamClosedError:
            return  # on_close follows
        if not counted or written.done():
            return
        size = len(frame)
        self.waiting_messages += 1
        self.waiting_bytes += size

        def done(_: object) -> None:
            self.waiting_messages -= 1
            self.waiting_bytes -= size

        written.add_done_callback(done)
        settings = self._server.settings
        if self.waiting_messages > settings.outbox_messages or self.waiting_bytes > settings.outbox_bytes:
            self.close(Reason.SLOW)

    def close(self, reason: Reason) -> None:
        """Close the connection for a reason."""
        self.run(self.session.close(reason))

    def left(self) -> None:
        """The connection is gone."""
        self._timer.cancel()
        self._server.peers.pop(self, None)
        self.run(self.session.leave())
        if not self.gone.done():
            self.gone.set_result(None)

    def abort(self) -> None:
        """Cut the connection without a word."""
        self._timer.cancel()
        connection = self._handler.ws_connection
        if connection is not None and connection.stream is not None:
            connection.stream.close()

    def to_json(self) -> Json:
        """What ``/api/peers`` says of it."""
        return {
            "name": self.session.name,
            "role": self.session.role.value,
            "room": self.room,
            "state": self.session.state.value,
            "since": self.since,
            "address": self.address,
            "waiting_messages": self.waiting_messages,
            "waiting_bytes": self.waiting_bytes,
        }

    def _time(self) -> None:
        self.run(self.session.receive_time(self._loop.time()))
        if self.session.state is not PeerState.CLOSED:
            self._timer = self._loop.call_at(self.session.due, self._time)


def _frame(message: bytes) -> bytes:
    """A binary WebSocket frame, final and unmasked (RFC 6455, 5.2)."""
    size = len(message)
    if size < 126:
        return bytes((0x82, size)) + message
    if size < 1 << 16:
        return b"\x82\x7e" + size.to_bytes(2, "big") + message
    return b"\x82\x7f" + size.to_bytes(8, "big") + message


# --- handlers ----------------------------------------------------------------------------------------------


class Handler(RequestHandler):
    """What all handlers have in common: headers, who asks, how errors are told."""

    server: Server
    csp = "default-src 'none'; frame-ancestors 'none'"

    def initialize(self, server: Server) -> None:
        """Called by tornado."""
        self.server = server

    def set_default_headers(self) -> None:
        """Called by tornado for every response."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", self.csp)

    def prepare(self) -> None:
        """Called by tornado before every method."""
        host, origin = self.request.headers.get("Host", ""), self.request.headers.get("Origin")
        if not self.server.allows_host(host):
            raise ProblemError(403, "this Host is not ours", "use the address of the link, or set allow_origins")
        if origin is not None:
            if not self.server.allows_origin(origin, host):
                raise ProblemError(403, "this Origin may not connect", "name it in the setting allow_origins")
            if self.server.names_origin(origin):
                self.set_header("Access-Control-Allow-Origin", origin)
                self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
                self.set_header("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE")
                self.set_header("Vary", "Origin")

    def options(self, *_: str) -> None:
        """A browser asks whether a page of another Origin may ask."""
        self.set_status(204)

    def token(self) -> Token | None:
        """Who asks; null: nobody in force."""
        kind, _, secret = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and secret:
            return self.server.verify(secret.strip())
        for protocol in self.request.headers.get("Sec-WebSocket-Protocol", "").split(","):
            if protocol.strip().startswith("rtc.token."):
                return self.server.verify(protocol.strip().removeprefix("rtc.token."))
        return self.server.verify(self.get_cookie(self.server.cookie)) or self.server.verify(
            self.get_query_argument("token", None)
        )

    def need(self, action: Action) -> Token:
        """Who asks, when that may be done.

        Raises:
            ProblemError: 401 without a token in force, 403 when its role does not cover it.
        """
        token = self.token()
        if token is None:
            raise ProblemError(401, "the token is missing, wrong or expired", "ask for a new link with %rtc share")
        if not token.role.may(action):
            raise ProblemError(403, f"the role {token.role.value} may not {action.value}", "ask for another link")
        return token

    def body(self) -> Json:
        """The body as a JSON object."""
        try:
            value = json.loads(self.request.body or b"{}")
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ProblemError(400, "the body is not a JSON object", "send one")
        return value

    def answer(self, value: Json) -> None:
        """Answer with JSON."""
        self.answer_text(_dumps(value))

    def answer_text(self, text: str) -> None:
        """Answer with JSON that is text already."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(text.encode("utf-8", "replace"))

    async def read(self, call: Callable[[], T]) -> T:
        """Read from the backend in a thread, so that the loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self.server.executor, call)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Called by tornado for every error."""
        _, problem, _ = kwargs.get("exc_info", (None, None, None))
        if isinstance(problem, ProblemError):
            self.answer({"error": problem.error, "remedy": problem.remedy})
        else:
            self.answer({"error": self._reason, "remedy": "docs/document.md lists what can be asked for"})

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Called by tornado. The path is logged, the query never: it may hold a token."""
        if not isinstance(value, HTTPError) and typ is not None and value is not None:
            log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))


class PageHandler(Handler):
    """The plain page. It holds no data; what it shows it asks for with the cookie."""

    csp = PAGE_CSP

    def get(self, name: str) -> None:
        """Serve a file of the page, or turn ``?token=`` into a cookie."""
        secret = self.get_query_argument("token", None)
        if secret is not None:
            if self.server.verify(secret) is not None:
                secure = self.request.headers.get("X-Forwarded-Proto") == "https"
                self.set_cookie(self.server.cookie, secret, path="", httponly=True, samesite="Strict", secure=secure)
            self.redirect("./")
            return
        media_type, data = _page_file(name or "index.html")
        self.set_header("Content-Type", media_type)
        self.set_header("Cache-Control", "no-cache")
        self.finish(data)


class HealthHandler(Handler):
    """Is all well?"""

    def get(self) -> None:
        """Status and version; the rest for those who have a token."""
        health = self.server.backend.health()
        token = self.token()
        if token is None:
            self.answer({"status": health.get("status", "ok"), "version": __version__})
            return
        document = self.server.backend.document
        kernels = schema.read_kernels(document.doc)
        own = {
            "version": __version__,
            "schema": SCHEMA_VERSION,
            "protocol": PROTOCOL,
            "kernel": next((to_json(row) for row in kernels if row.id == self.server.kernel), None),
            "room": document.room,
            "epoch": document.epoch,
            "requests_epoch": self.server.backend.requests.epoch,
            "peers": len(self.server.peers),
            "name": token.name,
            "role": token.role.value,
        }
        self.answer({"status": "ok", "reason": None, "coverage": "full", **health, **own})


class HistoryHandler(Handler):
    """What ran?"""

    async def get(self) -> None:
        """A page of executions."""
        token = self.need(Action.READ_HISTORY)
        arguments = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        arguments.pop("token", None)
        try:
            query = parse_history(arguments)
        except SetupError as exc:
            raise ProblemError(400, exc.what, exc.remedy) from exc
        if query.grep is not None and not token.role.may(Action.SEARCH_REGEX):
            raise ProblemError(403, f"the role {token.role.value} may not search by regular expression", "use text=")

        def read() -> str:
            page = self.server.backend.history(query)
            return _dumps({"executions": [to_json(row) for row in page.executions], "next": page.next})

        self.answer_text(await self.read(read))


class ExecutionHandler(Handler):
    """What was that execution?"""

    async def get(self, execution: str) -> None:
        """One record."""
        self.need(Action.READ_HISTORY)

        def read() -> str | None:
            row = self.server.backend.execution(execution)
            return None if row is None else _dumps(to_json(row))

        text = await self.read(read)
        if text is None:
            raise ProblemError(404, "there is no such execution", "/api/history lists those that are kept")
        self.answer_text(text)


class BlobHandler(Handler):
    """What are these bytes?"""

    csp = BLOB_CSP

    async def get(self, digest: str) -> None:
        """Bytes by their digest; they never change."""
        self.need(Action.READ_BLOB)
        blob = await self.read(lambda: self.server.backend.blob(f"sha256:{digest}"))
        if blob is None:
            raise ProblemError(404, "there is no such blob", "it may have left the history with its execution")
        plain = re.fullmatch(r"[\w.+-]+/[\w.+-]+", blob.media_type)
        self.set_header("Content-Type", blob.media_type if plain else "application/octet-stream")
        self.set_header("Cache-Control", "private, max-age=31536000, immutable")
        self.finish(blob.data)


class PeersHandler(Handler):
    """Who is connected?"""

    def get(self) -> None:
        """All peers."""
        self.need(Action.LIST_PEERS)
        self.answer({"peers": [peer.to_json() for peer in self.server.peers]})


class ShareHandler(Handler):
    """Who has a link?"""

    def get(self) -> None:
        """The tokens in force, without their hashes."""
        self.need(Action.SHARE)
        now = time.time()
        tokens = [
            {name: value for name, value in asdict(token).items() if name != "hash"}
            for token in self.server.backend.tokens
            if token.expires_at is None or token.expires_at > now
        ]
        self.answer({"tokens": tokens})

    def post(self) -> None:
        """Mint one: ``{"role": "view"|"run"|"own", "name": "", "expires_s": null}``."""
        self.need(Action.SHARE)
        body = self.body()
        name, expires_s = body.get("name") or "", body.get("expires_s")
        try:
            role = Role(body.get("role", "view"))
        except ValueError:
            raise ProblemError(400, "there is no such role", "role is view, run or own") from None
        number = isinstance(expires_s, int | float) and not isinstance(expires_s, bool)
        if not isinstance(name, str) or not (expires_s is None or (number and math.isfinite(expires_s))):
            raise ProblemError(400, "name or expires_s is of the wrong type", "name is text, expires_s seconds")
        try:
            self.answer(self.server.share(role, name, expires_s))
        except SetupError as exc:
            raise ProblemError(400, exc.what, exc.remedy) from exc


class ShareNameHandler(Handler):
    """One link."""

    def delete(self, name: str) -> None:
        """Withdraw it; its connections are closed at once."""
        self.need(Action.SHARE)
        if not self.server.revoke(name):
            raise ProblemError(404, "there is no token of that name", "/api/share lists those in force")
        self.answer({"revoked": name})


@stream_request_body
class NotebookHandler(Handler):
    """What will run? The body is read only after the token was seen."""

    def prepare(self) -> None:
        """Called by tornado before the body."""
        super().prepare()
        self._chunks: list[bytes] = []
        if self.request.method == "PUT":
            self.need(Action.PUT_NOTEBOOK)
            connection: Any = self.request.connection
            connection.set_max_body_size(NOTEBOOK_BYTES)

    def data_received(self, chunk: bytes) -> None:
        """Called by tornado."""
        self._chunks.append(chunk)

    def put(self) -> None:
        """``{"path": …, "cells": [{"id", "cell_type", "source"}]}``."""
        self.request.body = b"".join(self._chunks)
        body = self.body()
        path, cells = body.get("path"), body.get("cells")
        if not isinstance(path, str) or not isinstance(cells, list):
            raise ProblemError(400, "path or cells is missing", "send {path, cells: [{id, cell_type, source}]}")
        rows = []
        for index, cell in enumerate(cells):
            given = cell if isinstance(cell, dict) else {}
            columns = {name: given[name] for name in _CELL_COLUMNS if isinstance(given.get(name), str)}
            if len(columns) != len(_CELL_COLUMNS):
                raise ProblemError(400, f"cell {index} is not complete", "each has id, cell_type and source as text")
            rows.append(Cell(index=index, **columns))
        self.server.backend.put_cells(path, tuple(rows))
        self.answer({"cells": len(rows)})


_CELL_COLUMNS = ("id", "cell_type", "source")


class ClearHandler(Handler):
    """Forget what is finished."""

    def post(self) -> None:
        """Clear the history."""
        self.need(Action.CLEAR)
        self.server.backend.clear()
        self.answer({"cleared": True})


class LostHandler(Handler):
    """Everything else."""

    def prepare(self) -> None:
        """Called by tornado before every method."""
        super().prepare()
        raise ProblemError(404, "there is nothing here", "docs/document.md lists what can be asked for")


class RoomHandler(Handler, WebSocketHandler):
    """One peer's connection to a room."""

    peer: Peer | None = None

    @property
    def max_message_size(self) -> int:
        """Called by tornado. The session refuses what is above its limit with its own code; beyond this tornado cuts
        the connection."""
        return 2 * (
            self.server.limits.written_bytes if self.path_args[1] == "requests" else self.server.limits.message_bytes
        )

    def check_origin(self, origin: str) -> bool:
        """Called by tornado; :meth:`prepare` has checked it."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Called by tornado: a browser wants one of those that it offered."""
        return next((name for name in subprotocols if name.startswith("rtc.token.")), None)

    def open(self, kernel: str, room: str) -> None:
        """Called by tornado when the connection stands."""
        self.set_nodelay(True)
        server, token = self.server, self.token()
        if token is None or not token.role.may(Action.FOLLOW):
            return self._refuse(Reason.UNAUTHORIZED)
        if kernel != server.kernel or room not in ROOMS:
            return self._refuse(Reason.NO_SUCH_ROOM)
        if room == "requests" and not token.role.may(Action.REQUEST):
            return self._refuse(Reason.FORBIDDEN)
        document = server.backend.requests if room == "requests" else server.backend.document
        if self.get_query_argument("epoch", document.epoch) != document.epoch:
            return self._refuse(Reason.WRONG_EPOCH)
        if len(server.peers) >= server.settings.peers:
            return self._refuse(Reason.TOO_MANY_PEERS)
        now = asyncio.get_running_loop().time()
        session = Session(
            document,
            server.boards[room],
            name=token.name,
            role=token.role,
            now=now,
            limits=server.limits,
            expires=None if token.expires_at is None else now + token.expires_at - time.time(),
        )
        self.peer = Peer(server, self, session, room, self.request.remote_ip or "")
        server.peers[self.peer] = None
        log.info("%s connected (%s)", token.name, token.role.value)
        return None

    def on_message(self, message: str | bytes) -> None:
        """Called by tornado."""
        if self.peer is None:
            return
        if isinstance(message, str):
            self.peer.close(Reason.MALFORMED)
        else:
            self.peer.receive(message)

    def on_close(self) -> None:
        """Called by tornado, once."""
        if self.peer is not None:
            self.peer.left()

    def _refuse(self, reason: Reason) -> None:
        """Accept, say why, and close: y-websocket 3.1 and later then stops, where a refused upgrade makes it
        try for ever."""
        code, sentence = CLOSE_CODES[reason]
        if self.ws_connection is not None and self.ws_connection.stream is not None:
            self.ws_connection.stream.write(_frame(yproto.denied(sentence)))
        self.close(code, sentence)


def _routes(server: Server) -> list[tuple[str, type[RequestHandler], dict[str, Server]]]:
    own = {"server": server}
    return [
        (r"/(|index\.html|page\.js|page\.css)", PageHandler, own),
        (r"/api/health", HealthHandler, own),
        (r"/api/history", HistoryHandler, own),
        (r"/api/executions/([^/]{1,256})", ExecutionHandler, own),
        (r"/blobs/([0-9a-f]{64})", BlobHandler, own),
        (r"/api/peers", PeersHandler, own),
        (r"/api/share", ShareHandler, own),
        (r"/api/share/([^/]{1,256})", ShareNameHandler, own),
        (r"/api/notebook", NotebookHandler, own),
        (r"/api/clear", ClearHandler, own),
        (r"/rooms/([^/]{1,256})/([^/]{1,64})", RoomHandler, own),
        (r".*", LostHandler, own),
    ]


_PAGE_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
}


def _page_file(name: str) -> tuple[str, bytes]:
    return _PAGE_TYPES[name], (files("rtc_kernel") / "web" / name).read_bytes()


def _host_of(netloc: str) -> str:
    """The host of ``host[:port]``, in lower case and without brackets; empty when it is none."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _log_request(handler: RequestHandler) -> None:
    log.debug("%s %s %d", handler.request.method, handler.request.path, handler.get_status())


def _dumps(value: Json) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:  # NaN and Infinity are no JSON
        return json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
