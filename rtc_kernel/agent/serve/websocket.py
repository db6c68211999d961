"""How do peers reach the live document over HTTP and WebSocket?

Door (tornado, on the asyncio loop that runs). Owns the sockets, the peers and their outboxes; what a message means
is in ``session``, who may do what in ``access``, and all data come from the :class:`Backend`.

* ``GET  /``                        the viewer; ``?token=`` becomes a cookie
* ``GET  /api/health``              status and version; with a token the kernel's row, room, epoch, peers
* ``GET  /api/history``             a page of executions, newest first
* ``GET  /api/executions/ID``       one execution
* ``GET  /api/executions/ID/marks`` when the text of its streams had grown to where
* ``GET  /blobs/<64 hex>``          bytes by their digest
* ``GET  /api/peers``               own: who is connected
* ``GET  /api/share``, ``POST``, ``DELETE /api/share/NAME``   own: tokens in force, mint, revoke
* ``GET  /api/notebook``            the history as a notebook
* ``PUT  /api/notebook``            own: the cells of a headless run
* ``POST /api/complete``            run: how code goes on
* ``POST /api/clear``               own: forget finished executions
* ``POST /api/prune``               own: bring the history within limits
* ``WS   /rooms/<kernel>/state``    y-protocols; ``?epoch=`` refuses a replica of another life at once
* ``WS   /rooms/<kernel>/requests`` the same, for the role run: what peers ask for

Every update is encoded once and written to all sockets in the same iteration of the loop. A peer that reads too
slowly is closed and syncs again from its state vector; nobody waits for it and no update is dropped.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import assert_never
from urllib.parse import quote, urlsplit

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from ... import yproto
from ...config import RTCKernel
from ...errors import CLOSE_CODES, Reason, RemoteError, SetupError
from ...tables import Json
from . import ROOMS, Backend
from .access import Action, Role, Token
from .handlers import ROUTES, Handler, LostHandler
from .passage import Passage
from .session import Board, Close, Command, Limits, PeerState, Relay, Send, Session, Write

STOP_S = 1.0
"""How long peers have to answer the close when the agent stops."""

PROXIED_BYTES = 8 << 20
"""Of a message to a peer that came through something else: jupyter-server-proxy cuts the connection at one above 10 MiB
(tornado's bound), and a follower would try for ever."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (compared with, not bound to)

log = logging.getLogger("rtc_kernel.serve")


@dataclass(frozen=True, slots=True)
class Bound:
    """Where the server listens. ``moved``: the wanted port was taken, this is another one."""

    port: int
    moved: bool


class Server:
    """The side socket of one kernel.

    Args:
        backend: where data come from.
        settings: ``ip``, ``port``, ``allow_origins``, ``peers`` and the limits of peers.
        kernel: the kernel's id.
        passage: the Jupyter server that passes requests on to us, for ``proxied_url``; its name and its pages are ours.

    Use: ``server.listen()`` on the loop's thread, :meth:`push` after every change, ``await server.stop()``.
    """

    def __init__(self, backend: Backend, settings: RTCKernel, *, kernel: str, passage: Passage | None = None) -> None:
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
        self.passage = passage
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.allow_origins)
        self._ours = frozenset({passage.origin} if passage is not None and passage.origin else ())
        named = {_host_of(urlsplit(origin).netloc) for origin in self._origins | self._ours}
        self._hosts = LOOPBACK | {settings.ip.lower()} | named
        self._hosts -= WILDCARDS
        self._http: HTTPServer | None = None
        self.tls = bool(settings.certfile)

    def __repr__(self) -> str:
        return f"<Server of {self.kernel} on port {self.port}: {len(self.peers)} peers>"

    # --- life

    def listen(self, port: int | None = None) -> Bound:
        """Bind and serve, on the running loop.

        Args:
            port: the wanted port; the setting unless given. 0: the system chooses.

        Raises:
            SetupError: the address cannot be bound at all, or the certificate cannot be used, or others could reach
                the socket while there is no token that they would need.
        """
        if self.settings.ip.lower() not in LOOPBACK and not any(True for _ in self.backend.tokens):
            raise SetupError(f"{self.settings.ip} is not bound while there is no token", "share a link, or set ip")
        tls = _tls_context(self.settings.certfile, self.settings.keyfile) if self.tls else None
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
            routes(self),
            log_function=_log_request,
            websocket_ping_interval=self.settings.ping_s,
            websocket_ping_timeout=self.settings.ping_s,
        )
        self._http = HTTPServer(
            application,
            ssl_options=tls,
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
            "proxied_url": None if self.passage is None else self.passage.link(self.port, secret),
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
        return f"{'https' if self.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_exposed(self) -> bool:
        """Whether tokens may be read on their way: beyond loopback, and without TLS."""
        return not self.tls and self.settings.ip.lower() not in LOOPBACK

    @property
    def cookie(self) -> str:
        """The name of our cookie: kernels of one host differ by port."""
        return f"rtc-token-{self.port}"

    @property
    def stall_s(self) -> float:
        """How long one who asks may take no byte of an answer, as a peer that answers no ping. Seconds."""
        return 2 * self.settings.ping_s

    # --- who may

    def allows_host(self, host: str) -> bool:
        """Whether a ``Host`` header is one of ours. Any other may be a rebound name of a foreign page."""
        return _host_of(host) in self._hosts

    def is_at(self, host: str) -> bool:
        """Whether a ``Host`` header names our own port. Any other is that of something which passes requests on."""
        try:
            return urlsplit(f"//{host}").port == self.port
        except ValueError:
            return False

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this ``Origin`` may ask: our own page, or one that the settings name."""
        named = origin.lower() in self._origins or origin.lower() in self._ours
        return named or urlsplit(origin).netloc.lower() == host.lower()

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


def _tls_context(certfile: str, keyfile: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile or None, password=_no_password)
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        raise SetupError(f"the certificate {certfile} cannot be used ({exc})", "set certfile and keyfile") from exc
    return context


def _no_password() -> str:
    raise ValueError("its key has a password")  # else OpenSSL would ask for it on the terminal


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


class RoomHandler(Handler, WebSocketHandler):
    """One peer's connection to a room."""

    server: Server
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
            piece_bytes=None if server.is_at(self.request.host) else PROXIED_BYTES,
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


def routes(server: Server) -> list[tuple[str, type[RequestHandler], dict[str, Server]]]:
    """Every address of the side socket, for tornado."""
    table: list[tuple[str, type[RequestHandler]]] = [
        *ROUTES,
        (r"/rooms/([^/]{1,256})/([^/]{1,64})", RoomHandler),
        (r".*", LostHandler),
    ]
    return [(pattern, handler, {"server": server}) for pattern, handler in table]


def _host_of(netloc: str) -> str:
    """The host of ``host[:port]``, in lower case and without brackets; empty when it is none."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def _log_request(handler: RequestHandler) -> None:
    log.debug("%s %s %d", handler.request.method, handler.request.path, handler.get_status())
