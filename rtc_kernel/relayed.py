"""How does a Python program follow a kernel's document through a relay engine?

The same replica, records and readers as with the agent itself (``client``); only the way there is another: one
WebSocket to a Hocuspocus relay carries the room's index and the document that the index names
(:mod:`rtc_kernel.rooms`). What is not in the document is not at the relay: no history and no blobs.

Theory of trust. The agent is the only writer of the document, and the index says under which Yjs client id. A replica
in which anybody else wrote is dropped, whatever the relay let pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from pycrdt import Doc, Map
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from . import client, hocuspocus, rooms, schema, yproto
from .client import Address, Document, Replica
from .errors import Reason, RemoteError, SetupError
from .requesting import Requester
from .tables import SCHEMA_VERSION

log = logging.getLogger(__name__)

KEEP_S = 20.0
"""How often the relay is asked what it has: it gives up who says nothing for a minute, and pings do not count."""

WAITING = 256
"""Messages of one document that wait to be read; then the relay waits, too."""

INDEX_BYTES = 1 << 20
"""A room's index may have so many bytes."""


class DeniedError(Exception):
    """The relay does not let us have a document."""


class Channel:
    """One document over a :class:`Line`: y-protocols messages, as over a WebSocket of its own."""

    def __init__(self, line: Line, name: str) -> None:
        self.name = name
        self._line = line
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING)
        self._granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answered = False
        self._asked: bytes | None = None  # the relay's step 1, which it sends before its answer to ours

    def __repr__(self) -> str:
        return f"<Channel {self.name} {self._messages.qsize()} waiting>"

    async def enter(self, secret: str) -> bool:
        """Ask to be let in; whether we may write."""
        await self._line.write(hocuspocus.token(self.name, secret))
        return await self._granted

    def write_message(self, message: bytes, binary: bool = True) -> Awaitable[None]:
        """Send one message."""
        return self._line.write(hocuspocus.frame(self.name, message))

    async def read_message(self) -> bytes | None:
        """The next message; null at the end."""
        return await self._messages.get()

    async def receive(self, message: hocuspocus.Message, data: bytes) -> None:
        """A frame about this document came."""
        match message:
            case hocuspocus.Granted(writes) if not self._granted.done():
                self._granted.set_result(writes)
            case hocuspocus.Refused(reason) if not self._granted.done():
                self._granted.set_exception(DeniedError(reason))
            case hocuspocus.Closed():
                await self.end()
            case yproto.Step1() if not self._answered:
                self._asked = hocuspocus.read_plain(data)
            case yproto.Step1() | yproto.Step2() | yproto.Update() | yproto.Awareness():
                await self._messages.put(hocuspocus.read_plain(data))
                self._answered = self._answered or isinstance(message, yproto.Step2)
                if self._answered and self._asked is not None:
                    asked, self._asked = self._asked, None
                    await self._messages.put(asked)
            case _:
                pass

    async def end(self) -> None:
        """Nothing more will come."""
        if not self._granted.done():
            self._granted.set_exception(RemoteError(Reason.STOPPING, "the relay closed the connection"))
            self._granted.exception()  # nobody may have asked
        await self._messages.put(None)

    def close(self) -> None:
        """Say that we are done with it."""
        self._line.leave(self)


class Line:
    """One WebSocket to a relay, with several documents."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket
        self._channels: dict[str, Channel] = {}
        self._leaving: Counter[str] = Counter()  # of what we closed the relay says so once more, later

    def __repr__(self) -> str:
        return f"<Line {', '.join(self._channels)}>"

    async def open(self, name: str, secret: str, *, writes: bool = False) -> Channel:
        """A document.

        Raises:
            DeniedError: the relay does not let us have it, or not write it.
        """
        channel = self._channels[name] = Channel(self, name)
        if not await channel.enter(secret) and writes:
            raise DeniedError("the token may only view")
        return channel

    def leave(self, channel: Channel) -> None:
        """Say that we are done with a document."""
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            self._leaving[channel.name] += 1
            with suppress(WebSocketError):
                self.write(hocuspocus.close(channel.name)).add_done_callback(_look_at)

    def write(self, frame: bytes) -> asyncio.Future[None]:
        """Send one frame."""
        return self._socket.write_message(frame, binary=True)

    async def run(self) -> None:
        """Read frames until the relay ends the connection.

        Raises:
            RemoteError: what it says cannot be read.
        """
        try:
            while (data := await self._socket.read_message()) is not None:
                if isinstance(data, str):
                    raise RemoteError(Reason.MALFORMED, "a text message from the relay")
                name, message = hocuspocus.read_frame(data)
                if isinstance(message, hocuspocus.Ping) and message.asks:
                    await self.write(hocuspocus.pong(name))
                elif isinstance(message, hocuspocus.Closed) and self._leaving[name] > 0:
                    self._leaving[name] -= 1
                elif (channel := self._channels.get(name)) is not None:
                    await channel.receive(message, data)
        finally:
            for channel in list(self._channels.values()):
                await channel.end()


class Index:
    """A replica of a room's index, for reading."""

    def __init__(self) -> None:
        self._doc: Doc[Any] = Doc()
        self._rows: Map[Any] = self._doc.get(rooms.INDEX_ROOT, type=Map)
        self.synced = False

    def __repr__(self) -> str:
        return f"<Index {len(self._rows)} kernels>"

    def request(self) -> bytes:
        """What to send first."""
        return yproto.step1(self._doc.get_state())

    def receive_bytes(self, data: bytes) -> None:
        """Apply one message.

        Raises:
            RemoteError: it cannot be, or the index is too large.
        """
        match yproto.read_message(data):
            case yproto.Step2(update) | yproto.Update(update) as message:
                if len(update) > INDEX_BYTES:
                    raise RemoteError(Reason.TOO_LARGE, "the room's index is too large")
                if update != yproto.EMPTY_UPDATE:
                    schema.guard(lambda: self._doc.apply_update(update))
                self.synced = self.synced or isinstance(message, yproto.Step2)
            case _:
                pass

    @property
    def entries(self) -> dict[str, rooms.Entry]:
        """The kernels of the room, by id."""
        rows = {key: schema.clean(self._rows[key]) for key in list(self._rows.keys())}
        found = (rooms.Entry.read(key, row) for key, row in rows.items())
        return {entry.kernel: entry for entry in found if entry is not None}


class RelayedDocument(Document):
    """A document that is followed through a relay; :func:`rtc_kernel.connect` makes it of a link to a room."""

    def __init__(self, target: str, token: str | None = None) -> None:
        super().__init__(target, token)
        self._place = rooms.parse_link(target)
        self._secret = token or self._place.token or ""
        self._entry: rooms.Entry | None = None
        self._spoiled: Replica | None = None  # somebody else wrote in it
        self._line: Line | None = None
        self._requests: Channel | None = None
        self.remedy = "see in %rtc status where the kernel is published"

    @property
    def where(self) -> str:
        """The link to the room."""
        return self._place.place.link

    @property
    def address(self) -> Address:
        """A relay has the document and nothing else."""
        raise SetupError("a relay has only the live document", "ask for the kernel's own link")

    async def _follow_once(self) -> bool:
        """One connection, from its beginning to its end; whether to try again at once."""
        socket = await self._dial_relay()
        line = self._line = Line(socket)
        reading = asyncio.create_task(line.run(), name="rtc-relay-line")
        try:
            return await self._follow_line(line)
        except DeniedError as exc:
            self.fail(SetupError(f"the relay refuses: {exc}", "give a token for this room that may view"))
            return False
        finally:
            self._line = None
            reading.cancel()
            with suppress(asyncio.CancelledError, RemoteError):
                await reading
            client.hang_up(socket)

    async def _follow_line(self, line: Line) -> bool:
        index, channel = Index(), await line.open(rooms.index_name(self._place.place.room), self._secret)
        await channel.write_message(index.request())
        followed: asyncio.Task[None] | None = None
        name = ""
        listening = asyncio.create_task(channel.read_message())
        keeping = asyncio.create_task(_keep(channel, index), name="rtc-relay-keep")
        try:
            while True:
                await asyncio.wait(
                    {listening} | ({followed} if followed else set()), return_when=asyncio.FIRST_COMPLETED
                )
                if followed is not None and followed.done():
                    followed.result()
                    self.trouble = "the connection was closed"
                    return False
                if not listening.done():
                    continue
                data = listening.result()
                if data is None:
                    self.trouble = "the relay closed the connection"
                    return False
                index.receive_bytes(data)
                listening = asyncio.create_task(channel.read_message())
                entry = self._choose(index)
                if self._error is not None:
                    return False
                if entry is not None and self._requests is not None and self._requests.name != entry.requests:
                    self._entry = entry
                    await self._requests.end()  # it is opened again, under its new name
                if (entry.state if entry else "") == name:
                    self._take_entry(entry)
                    continue
                await _end(followed)
                followed, name = None, ""
                if entry is None:
                    self._set_connected(False)
                    continue
                self._take_entry(entry)
                name = entry.state
                followed = asyncio.create_task(self._follow_entry(line, entry), name="rtc-relay-state")
        finally:
            listening.cancel()
            await _end(keeping)
            await _end(followed)

    def _choose(self, index: Index) -> rooms.Entry | None:
        """The kernel that is to be followed, if it is in the room."""
        if not index.synced:
            return None
        entries = index.entries
        wanted = self._place.kernel or (self._entry.kernel if self._entry else None)
        found = [entry for key, entry in entries.items() if wanted is None or key.startswith(wanted)]
        if len(found) > 1:
            link = self._place.place.link
            names = ", ".join(entry.kernel for entry in found)
            self.fail(SetupError(f"there are {len(found)} kernels in the room: {names}", f"name one: {link}?kernel=ID"))
            return None
        if not found:
            self.trouble = "no kernel is published in this room"
            return None
        entry = found[0]
        if entry.schema != SCHEMA_VERSION:
            what = f"the agent has schema {entry.schema}, this rtc_kernel knows {SCHEMA_VERSION}"
            self.fail(SetupError(what, "upgrade rtc_kernel here"))
            return None
        return entry

    def _take_entry(self, entry: rooms.Entry | None) -> None:
        if entry is not None:
            self._entry = entry
            self._health = {"role": "run" if entry.requests else "view"}

    async def _follow_entry(self, line: Line, entry: rooms.Entry) -> None:
        replica = self._replica
        if replica is None or replica.epoch != entry.state or replica is self._spoiled:
            replica = Replica(entry.kernel, entry.state)
        channel = await line.open(entry.state, self._secret)
        try:
            await self._read(channel, replica)
        except RemoteError:
            self._spoiled = replica  # what of it was applied cannot be told
            raise
        finally:
            channel.close()

    async def _request_once(self, requester: Requester) -> bool:
        """The requests, over the same connection; from when they are opened until it ends, or they have another
        name."""
        line, entry = self._line, self._entry
        if line is None or entry is None:
            return False
        if entry.requests is None:
            requester.fail(
                SetupError("nothing can be asked for at this relay", "%rtc share --relay URL --role run allows it")
            )
            return False
        try:
            channel = await line.open(entry.requests, self._secret, writes=True)
        except DeniedError as exc:
            requester.fail(SetupError(f"the relay refuses: {exc}", "give a token for this room with the role run"))
            return False
        self._requests = channel
        try:
            return await requester.run(channel, entry.requests)
        finally:
            self._requests = None
            channel.close()

    def _check(self, replica: Replica) -> None:
        """Only the agent may have written what is shown."""
        if self._entry is not None and not replica.writers() <= {self._entry.client}:
            raise RemoteError(Reason.READ_ONLY, "somebody else wrote to this document at the relay")

    async def _dial_relay(self) -> WebSocketClientConnection:
        request = HTTPRequest(self._place.place.url, connect_timeout=client.REQUEST_S, request_timeout=client.REQUEST_S)
        connecting = asyncio.ensure_future(
            websocket_connect(request, max_message_size=client.MAX_MESSAGE_BYTES, ping_interval=client.PING_S)
        )
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(client.hang_up_late)
            raise
        except HTTPClientError as exc:
            raise RemoteError(Reason.MALFORMED, f"the relay answered {exc.code} to a WebSocket") from exc


def _look_at(sent: asyncio.Future[None]) -> None:
    if not sent.cancelled() and sent.exception() is not None:
        log.debug("a relay was not told that we are done: %s", sent.exception())


async def _keep(channel: Channel, index: Index) -> None:
    while True:
        await asyncio.sleep(KEEP_S)
        await channel.write_message(index.request())


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
