"""How does the live document reach followers beyond this machine?

Door (tornado). The agent connects out, to a relay engine (Hocuspocus), and publishes there; so it works from behind a
NAT, with no open port. What a message means is in ``outward``; here are the socket, the pauses between two attempts,
and the room's index. Nobody waits for a relay: what it does not take is left out and made good by one sync.

A :class:`Publisher` is one room at one relay, :class:`Publishers` are those of this kernel. The kernel's documents
have a name for each of their lives there (:mod:`rtc_kernel.rooms`); the index says which ones are in force, and is
written once the relay has all of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from pycrdt import Doc, Map
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError

from ... import rooms, schema, yproto
from ...config import RTCKernel
from ...dialing import dial, hang_up
from ...errors import Reason, RemoteError, SetupError
from ...tables import Json, Kernel, Request
from ..document import StateDocument
from ..requests import RequestsDocument
from .access import NAME_CHARS_MAX, RELAYED_PREFIX, Action, Role
from .outward import Backlog, Bounds, Command, Denied, Foreign, Hang, LaneState, Live, Outward, Send, Take, Tell
from .session import UNDONE_BURST, UNDONE_PER_S, Quota

log = logging.getLogger("rtc_kernel.serve")

PAUSE_FIRST_S, PAUSE_MOST_S = 0.25, 30.0
"""Between two attempts to connect: the first pause, and the longest; each is about twice the one before."""

STEADY_S = 10.0
"""A connection that lasted this long has earned a fresh start of the pauses."""

PATIENCE_S = 10.0
"""A relay that has not had all for this long is a problem that health names. Seconds."""

CONNECT_S = 10.0

GOODBYE_S = 0.7
"""How long the relay has to take what is said last. Seconds."""

WRITERS = 100_000
"""Of so many Yjs client ids it is known at most whose they are."""

INDEX_TAKEN_BYTES = 64 << 20
"""So is one that took in so much, of which something may rest on what never comes."""


@dataclass(frozen=True, slots=True)
class Relay:
    """Where to publish, and what peers there may do: ``view`` | ``run``. ``name``: how the user calls it."""

    name: str
    place: rooms.Place
    role: Role = Role.VIEW


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How it stands with one relay.

    Attributes:
        state: ``live`` (it has all), ``behind`` (something waits to be acknowledged for long, or is left out),
            ``connecting`` or ``waiting`` (for the next attempt).
        since: of the connection, where there is one; POSIX seconds.
        behind_s: how long the oldest update waits for its acknowledgement.
        trouble: why the last connection ended or could not be made; empty: there was none.
        ignored_count: messages that were not understood.
        tampered_count: how often the relay's copy of the document had what the agent did not write.
    """

    name: str
    url: str
    room: str
    role: str
    state: str
    since: float | None
    behind_messages: int
    behind_bytes: int
    behind_s: float
    trouble: str
    ignored_count: int
    tampered_count: int

    def to_json(self) -> Json:
        """What ``/api/health`` says of it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class House(Protocol):
    """What is needed of the agent."""

    @property
    def document(self) -> StateDocument:
        """The live document, of the epoch in force."""

    @property
    def requests(self) -> RequestsDocument:
        """What peers ask for, in the epoch in force."""

    @property
    def kernel(self) -> Kernel:
        """The kernel's row."""

    def receive_update(self, update: bytes, *, by: str, role: Role) -> int:
        """A peer's update of :attr:`requests`; how many changes of what is not its own were taken back. RemoteError:
        nothing of it holds."""

    def waiting(self) -> Sequence[Request]:
        """The requests that were not sent."""

    def revoked(self, name: str) -> None:
        """A peer may ask for nothing any more: what was not sent is taken back."""

    def relays_changed(self) -> None:
        """It stands otherwise with a relay."""


class Index:
    """Our replica of a room's index. Every agent of the room writes its own row."""

    def __init__(self) -> None:
        self._doc: schema.YDoc = Doc()
        self._rows: schema.YMap = self._doc.get(rooms.INDEX_ROOT, type=Map)
        self._taken_bytes = 0

    def __repr__(self) -> str:
        return f"<Index {len(self._rows)} kernels>"

    def clocks(self) -> dict[int, int]:
        """What there is of whom."""
        return yproto.read_state_vector(self._doc.get_state())

    def diff(self, state_vector: Mapping[int, int]) -> bytes:
        """The update that brings a replica up to date."""
        return schema.guard(lambda: self._doc.get_update(yproto.write_state_vector(state_vector)))

    def receive(self, update: bytes) -> None:
        """Apply what the relay has. RemoteError: it cannot be read, or is too large."""
        self._taken_bytes += len(update)
        if len(update) > rooms.INDEX_BYTES or self._taken_bytes > INDEX_TAKEN_BYTES:
            raise RemoteError(Reason.TOO_LARGE, "the room's index is too large")
        yproto.read_coverage(update)
        schema.guard(lambda: self._doc.apply_update(update))
        if len(self._doc.get_update()) > rooms.INDEX_BYTES:
            raise RemoteError(Reason.TOO_LARGE, "the room's index is too large")

    def put(self, kernel: str, value: Json | None) -> bytes | None:
        """Write or delete (null) a row; the update, or null where nothing is different."""
        held = self._rows.get(kernel) if kernel in self._rows else None
        if held == value:
            return None
        before = self._doc.get_state()
        with self._doc.transaction():
            if value is None:
                del self._rows[kernel]
            else:
                self._rows[kernel] = value
        return self._doc.get_update(before)


class Publisher:
    """One room at one relay: the connection, and another one when it is lost, until it is closed.

    Args:
        secret: the token for the relay; it is sent to it and said nowhere.
    """

    def __init__(self, house: House, settings: RTCKernel, relay: Relay, *, kernel: str, secret: str) -> None:
        self.relay = relay
        self.tampered_count = 0
        self._house = house
        self._settings = settings
        self._kernel = kernel
        self._secret = secret
        self._index = Index()
        self._outward: Outward | None = None
        self._socket: WebSocketClientConnection | None = None
        self._names: dict[str, str] = {}  # of the documents in force, by kind
        self._turn = 0  # how often a document had to take another name in this life
        self._ignored_count = 0  # by the connections before this one
        self._connected_at: float | None = None  # POSIX seconds
        self._trouble = ""
        self._is_connecting = False
        self._is_denied = False
        self._news = asyncio.Event()  # something came of the relay, or it has gone
        self._was_live = False
        self._live_until = time.monotonic()  # when the relay last had all
        self._listed: Kernel | None = None  # the kernel's row as the index has it
        # Yjs client ids of who writes requests there, and what we call them; null: two have claimed it
        self._writers: dict[int, str | None] = {}
        self._undone: dict[str, Quota] = {}  # what of theirs had to be refused or taken back
        self._barred: set[str] = set()  # of whom nothing is taken any more
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name=f"rtc-publish {relay.name}")
        self._task.add_done_callback(self._tell_fault)
        self._be_patient()

    def __repr__(self) -> str:
        return f"<Publisher {self.relay.name} {self.standing.state} {self._outward!r}>"

    # --- how it stands

    @property
    def is_live(self) -> bool:
        """Whether the relay gets every update."""
        return self._is_live("state")

    @property
    def _kinds(self) -> tuple[str, ...]:
        """The documents that are published."""
        return ("index", "state", "requests") if self.relay.role.may(Action.REQUEST) else ("index", "state")

    def _is_live(self, kind: str) -> bool:
        lane = self._outward.lanes.get(self._names.get(kind, "")) if self._outward else None
        return lane is not None and lane.state is LaneState.LIVE

    @property
    def standing(self) -> Standing:
        """How it stands now."""
        backlog = self._outward.backlog if self._outward else Backlog(0, 0, None)
        behind_s = self._loop.time() - backlog.since if backlog.since is not None else 0.0
        state = "waiting"
        if self._is_connecting:
            state = "connecting"
        elif self._outward is not None:
            state = "live" if self.is_live and behind_s < PATIENCE_S else "behind"
        return Standing(
            name=self.relay.name,
            url=self.relay.place.url,
            room=self.relay.place.room,
            role=self.relay.role.value,
            state=state,
            since=self._connected_at,
            behind_messages=backlog.messages,
            behind_bytes=backlog.bytes,
            behind_s=round(behind_s, 3),
            trouble=self._trouble,
            ignored_count=self._ignored_count + (self._outward.ignored_count if self._outward else 0),
            tampered_count=self.tampered_count,
        )

    @property
    def problem(self) -> str:
        """What the user should know; empty: nothing. It does not change while nothing else does."""
        if self.tampered_count:
            return (
                f"relay {self.relay.name}: somebody else wrote to this kernel's document there; its authentication "
                "hook must refuse that"
            )
        if not self.is_live and time.monotonic() - self._live_until >= PATIENCE_S:
            return f"relay {self.relay.name} does not get what happens here: {self._trouble or 'it does not answer'}"
        if self.relay.place.is_open:
            return f"relay {self.relay.name} is reached without TLS: its token can be read on the way; use wss://"
        return ""

    # --- act

    def push(self, update: bytes, kind: str) -> None:
        """A document changed."""
        if self._outward is not None and (name := self._names.get(kind)) is not None:
            self._do(self._outward.push_update(name, update, self._loop.time()))
            if self._listed is not None and self._listed is not self._house.kernel:
                self._list()

    def begin_epoch(self, kind: str) -> None:
        """A document began a new life."""
        if kind == "state":
            self._turn = 0
        else:
            self._writers.clear()
        if self._outward is not None and (name := self._names.pop(kind, None)) is not None:
            self._do(self._outward.close(name))
            self._open(kind)

    def bar(self, name: str) -> None:
        """Take nothing of a peer any more."""
        if name in self._undone:
            self._barred.add(name)

    async def close(self) -> None:
        """Take the kernel out of the room, and end."""
        if self._patience is not None:
            self._patience.cancel()
        outward = self._outward
        index = rooms.index_name(self.relay.place.room)
        if outward is not None and index in outward.lanes:
            if (update := self._index.put(self._kernel, None)) is not None:
                self._do(outward.push_update(index, update, self._loop.time()))
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._until_idle()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _until_idle(self) -> None:
        """Until the relay has acknowledged all, or has gone."""
        while self._outward is not None and self._outward.backlog.messages:
            self._news.clear()
            await self._news.wait()

    def _tell_fault(self, task: asyncio.Task[None]) -> None:
        """A fault of ours ends this publisher and nothing else; health says it."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("publishing at %s has ended", self.relay.name, exc_info=error)
            self._end(f"a fault of rtc_kernel ({type(error).__name__}); %rtc unshare and share it again")

    # --- the connection

    async def _run(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            began = self._loop.time()
            self._is_denied = False
            try:
                await self._connect()
            except (WebSocketError, HTTPClientError, OSError, TimeoutError) as exc:
                self._end(_say(exc))
            except ValueError as exc:  # tornado's word for an answer that is no HTTP
                self._end(f"what it says cannot be read: {exc}")
            if self._is_denied:
                pause_s = PAUSE_MOST_S
            elif self._loop.time() - began >= STEADY_S:
                pause_s = PAUSE_FIRST_S
            self._house.relays_changed()
            log.info("relay %s: %s", self.relay.name, self._trouble)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, PAUSE_MOST_S)

    async def _connect(self) -> None:
        """One connection, from its beginning to its end."""
        settings = self._settings
        request = HTTPRequest(self.relay.place.url, connect_timeout=CONNECT_S, request_timeout=CONNECT_S)
        self._is_connecting = True
        try:
            async with asyncio.timeout(2 * CONNECT_S):
                socket = await dial(
                    request,
                    max_message_bytes=2 * settings.written_bytes,
                    ping_s=settings.ping_s,
                    ping_timeout_s=settings.ping_s,
                )
        finally:
            self._is_connecting = False
        bounds = Bounds(
            ping_s=settings.ping_s,
            outbox_messages=settings.outbox_messages,
            outbox_bytes=settings.outbox_bytes,
        )
        self._socket, self._connected_at = socket, time.time()
        outward = self._outward = Outward(secret=self._secret, now=self._loop.time(), bounds=bounds)
        try:
            index = rooms.index_name(self.relay.place.room)
            self._do(outward.open(index, self._index, self._loop.time()))
            self._names = {"index": index}
            for kind in self._kinds[1:]:
                self._open(kind)
            while self._outward is outward and (data := await socket.read_message()) is not None:
                if isinstance(data, str):
                    self._end("what it says cannot be read: a text message")
                elif self._outward is outward:
                    self._do(outward.receive_bytes(data, self._loop.time()))
            if self._outward is outward:
                code, reason = socket.close_code, socket.close_reason
                self._end(f"it closed the connection ({code or 'no code'}{f', {reason}' if reason else ''})")
        finally:
            self._drop(outward, socket)

    def _open(self, kind: str) -> None:
        """Publish a document under the name of this life."""
        if self._outward is None:
            return
        document: StateDocument | RequestsDocument = self._house.document
        if kind == "requests":
            document = self._house.requests
        life = document.epoch + (f".{self._turn}" if kind == "state" and self._turn else "")
        name = self._names[kind] = rooms.document_name(self.relay.place.room, self._kernel, kind, life)
        self._do(self._outward.open(name, document, self._loop.time()))

    def _do(self, commands: Iterable[Command]) -> None:
        for command in commands:
            if self._outward is None:  # an earlier one has ended the connection
                return
            match command:
                case Send(data):
                    self._send(data)
                case Live(name):
                    self._receive_live(name)
                case Take(name, update):
                    self._take(name, update)
                case Tell(name, text):
                    self._outward.ignored_count += not self._tell(name, text)
                case Foreign(name):
                    self.tampered_count += 1
                    self._turn += 1
                    self._end(f"somebody else wrote to {name}")
                case Denied(name, why):
                    self._is_denied = True
                    self._end(f"it does not let us publish {name} ({why})")
                case Hang(why):
                    self._end(why)
                case _:
                    assert_never(command)
        self._look()

    def _send(self, data: bytes) -> None:
        """Write one message; what the socket does not take at once waits in it, and is bounded by the outbox."""
        if self._socket is None:
            return
        with suppress(WebSocketError):  # the loop of :meth:`_connect` learns it, too
            sent = self._socket.write_message(data, binary=True)
            sent.add_done_callback(_look_at)

    def _receive_live(self, name: str) -> None:
        """The relay has all of a document."""
        if name == self._names.get("state"):
            self._trouble = ""
        self._list()

    def _list(self) -> None:
        """Say in the index where our documents are, once they are there."""
        if self._outward is None or not all(self._is_live(kind) for kind in self._kinds):
            return
        index = self._names["index"]
        row, (client, *_) = self._house.kernel, (*self._house.document.clocks(), 0)
        entry = rooms.Entry(
            kernel=self._kernel,
            state=self._names["state"],
            requests=self._names.get("requests"),
            client=client,
            name=row.name,
            display_name=row.display_name,
            language=row.language,
            notebook=row.notebook,
            host=row.host,
            started_at=row.started_at,
        )
        self._listed = row
        if (update := self._index.put(self._kernel, entry.to_json())) is not None:
            self._do(self._outward.push_update(index, update, self._loop.time()))

    def _take(self, name: str, update: bytes) -> None:
        """Somebody else's update."""
        if name == self._names.get("requests"):
            return self._take_requests(update)
        try:
            self._index.receive(update)
        except RemoteError as exc:
            self._index = Index()
            self._is_denied = True
            self._end(exc.detail)
        return None

    def _take_requests(self, update: bytes) -> None:
        """What peers ask for, each in its own name, and what rests on something that is not here only when it is: a
        relay sends it again. Deletions have no name and are left out; ended rows are popped by us."""
        try:
            pieces = yproto.split_update(update)
        except RemoteError as exc:
            return self._end(f"what it says cannot be read: {exc.detail}")
        while pieces:
            clocks = self._house.requests.clocks()
            ready = [one for one in pieces if all(clocks.get(who, 0) > clock for who, clock in one.needs.items())]
            if not ready:
                return None
            for piece in ready:
                self._take_piece(piece)
            pieces = [piece for piece in pieces if piece not in ready]
        return None

    def _take_piece(self, piece: yproto.Piece) -> None:
        requests = self._house.requests
        if requests.is_ours(piece.client) or not self.relay.role.may(Action.REQUEST):
            return  # the echo of our own
        by = self._writers.setdefault(piece.client, self.call(""))
        if by is None or by in self._barred:
            return
        undone = self._undone.setdefault(by, Quota(UNDONE_PER_S, UNDONE_BURST))
        try:
            count = self._house.receive_update(piece.update, by=by, role=self.relay.role)
        except RemoteError as exc:
            log.info("%s: %s", by, exc)
            count = 1
        if not all(undone.take(self._loop.time()) for _ in range(min(count, UNDONE_BURST + 1))):
            log.warning("%s is not listened to any more: it changes what is not its own", by)
            self._barred.add(by)

    def _tell(self, name: str, text: str) -> bool:
        """The relay says who writes: whose a Yjs client id is, it knows from its authentication. False: it says
        something else."""
        try:
            value = json.loads(text)
            writers = value["rtc_kernel"]["writers"]
            found = {int(client): str(who) for client, who in writers.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False
        if name == self._names.get("requests") and len(self._writers) + len(found) <= WRITERS:
            for client, who in found.items():
                by = self.call(who)
                if self._writers.setdefault(client, by) != by:
                    self._writers[client] = None
        return True

    def call(self, who: str) -> str:
        """What a peer at this relay is called; no link has such a name. Empty: somebody."""
        clean = "".join(char for char in who if char.isprintable())[:NAME_CHARS_MAX]
        return f"{RELAYED_PREFIX}{self.relay.name}{f'/{clean}' if clean else ''}"

    def _end(self, trouble: str) -> None:
        """The connection has ended, or is to end."""
        self._trouble = trouble
        if self._outward is not None and self._socket is not None:
            self._drop(self._outward, self._socket)

    def _drop(self, outward: Outward, socket: WebSocketClientConnection) -> None:
        if self._outward is outward:
            self._ignored_count += outward.ignored_count
            self._outward = self._socket = self._connected_at = self._listed = None
            self._look()
        hang_up(socket)

    def _look(self) -> None:
        """Wake when something is due; say when the relay has all now, or has not any more."""
        self._news.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._outward is not None:
            self._timer = self._loop.call_at(self._outward.due, self._time)
        if self._was_live == self.is_live:
            return
        self._was_live = not self._was_live
        if self._was_live:
            self._house.relays_changed()
        else:
            self._live_until = time.monotonic()
            self._be_patient()

    def _time(self) -> None:
        self._timer = None
        if self._outward is not None:
            self._do(self._outward.receive_time(self._loop.time()))

    def _be_patient(self) -> None:
        """What heals soon is no problem."""
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self._loop.call_later(PATIENCE_S + 0.05, self._house.relays_changed)


class Publishers:
    """Where this kernel is published.

    Args:
        kernel: the kernel's id.
    """

    def __init__(self, house: House, settings: RTCKernel, *, kernel: str) -> None:
        self._house = house
        self._settings = settings
        self._kernel = kernel
        self._publishers: dict[str, Publisher] = {}

    def __repr__(self) -> str:
        return f"<Publishers {', '.join(self._publishers) or 'none'}>"

    @property
    def relays(self) -> tuple[Relay, ...]:
        """Where it is published, in the order in which that began."""
        return tuple(publisher.relay for publisher in self._publishers.values())

    @property
    def standings(self) -> tuple[Standing, ...]:
        """How it stands with each."""
        return tuple(publisher.standing for publisher in self._publishers.values())

    @property
    def problems(self) -> list[str]:
        """What the user should know."""
        return [problem for publisher in self._publishers.values() if (problem := publisher.problem)]

    def add(self, url: str, *, room: str = "", role: Role = Role.VIEW, name: str = "", taken: Iterable[str]) -> Relay:
        """Publish at a relay from now on.

        Args:
            room: the kernel's id, unless given.
            name: how the user calls it; the relay's host, unless given.
            taken: names that are in use elsewhere.

        Raises:
            SetupError: the address or a name cannot be used, or it is published there already.
        """
        place = rooms.place(url, room or self._kernel)
        if any(relay.place == place for relay in self.relays):
            raise SetupError(f"this kernel is published at {place.link} already", "%rtc unshare ends that")
        names = {*taken, *self._publishers}
        free = next(one for one in (place.host, f"{place.host}/{place.room}", place.link) if one not in names)
        name = name.strip() or free
        if name in names or len(name) > NAME_CHARS_MAX or not name.isprintable():
            raise SetupError(f"the name {name!r} is taken or cannot be used", "choose another one with --name")
        relay = Relay(name, place, role)
        self._publishers[name] = Publisher(
            self._house, self._settings, relay, kernel=self._kernel, secret=self._settings.relay_token
        )
        return relay

    async def remove(self, name: str) -> bool:
        """Publish there no more; what was asked for there and was not sent is taken back. False: there is none of
        that name."""
        publisher = self._publishers.pop(name, None)
        if publisher is None:
            return False
        await publisher.close()
        here = publisher.call("")
        for by in {row.by for row in self._house.waiting() if row.by == here or row.by.startswith(f"{here}/")}:
            self._house.revoked(by)
        return True

    def push(self, update: bytes, kind: str = "state") -> None:
        """A document changed."""
        for publisher in self._publishers.values():
            publisher.push(update, kind)

    def begin_epoch(self, kind: str = "state") -> None:
        """A document began a new life."""
        for publisher in self._publishers.values():
            publisher.begin_epoch(kind)

    def bar(self, name: str) -> None:
        """Take nothing of a peer any more."""
        for publisher in self._publishers.values():
            publisher.bar(name)

    async def stop(self) -> None:
        """End with all of them."""
        publishers, self._publishers = list(self._publishers.values()), {}
        await asyncio.gather(*(publisher.close() for publisher in publishers), return_exceptions=True)


def _say(error: BaseException) -> str:
    """Why a connection could not be made, in one clause."""
    match error:
        case TimeoutError():
            return f"no connection within {CONNECT_S:g} s"
        case HTTPClientError():
            return f"it answered {error.code} to a WebSocket" if error.code < 599 else f"no connection ({error})"
        case OSError():
            return f"no connection ({error.strerror or error})"
        case _:
            return f"the connection broke ({error or type(error).__name__})"


def _look_at(sent: asyncio.Future[Any]) -> None:
    if not sent.cancelled() and sent.exception() is not None:
        log.debug("a relay did not take a message: %s", sent.exception())
