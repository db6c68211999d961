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
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from pycrdt import Doc, Map
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError

from . import client, hocuspocus, rooms, schema, yproto
from .client import Address, Backoff, Change, Document, Replica
from .dialing import dial, hang_up
from .errors import LocalError, Reason, RemoteError, SetupError
from .requesting import Requester
from .tables import SCHEMA_VERSION

log = logging.getLogger(__name__)

KEEP_S = 20.0
"""How often the relay is asked what it has: it gives up who says nothing for a minute, and pings do not count."""

WAITING = 256
"""Messages of one document that wait to be read; then the relay waits, too."""

ASKING = 32
"""So many documents are asked for at a time: Hocuspocus closes on who waits for more than 100."""


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
        self._asking = asyncio.Semaphore(ASKING)
        self._leaving: Counter[str] = Counter()  # of what we closed the relay says so once more, later

    def __repr__(self) -> str:
        return f"<Line {', '.join(self._channels)}>"

    async def open(self, name: str, secret: str, *, writes: bool = False) -> Channel:
        """A document.

        Raises:
            DeniedError: the relay does not let us have it, or not write it.
        """
        channel = self._channels[name] = Channel(self, name)
        async with self._asking:
            may_write = await channel.enter(secret)
        if writes and not may_write:
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

    def close(self) -> None:
        """End the connection, now; who reads is told."""
        hang_up(self._socket)

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
                if len(update) > rooms.INDEX_BYTES:
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
        self._name = ""  # of the document that is followed
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
        try:
            async with _dial(self._place.place) as line:
                self._line = line
                await self._follow_line(line)
        except DeniedError as exc:
            self.fail(_denied(exc))
        finally:
            self._line = None
        return False

    async def _follow_line(self, line: Line) -> None:
        followed: asyncio.Task[None] | None = None
        try:
            async with aclosing(read_index(line, self._place.place.room, self._secret)) as indexes:
                async for index in indexes:
                    entry = self._choose(index)
                    if self._error is not None:
                        return
                    if await self._take_entry(entry):
                        continue
                    await _end(followed)
                    followed = None
                    if entry is None:
                        self._set_connected(False)
                        continue
                    followed = asyncio.create_task(self._follow_entry(line, entry), name="rtc-relay-state")
                    followed.add_done_callback(lambda done: None if done.cancelled() else line.close())
            self.trouble = "the relay closed the connection"
            if followed is not None and followed.done():
                followed.result()
        finally:
            await _end(followed)
            self._name = ""

    def _choose(self, index: Index) -> rooms.Entry | None:
        """The kernel that is to be followed, if it is in the room."""
        if not index.synced:
            return None
        entries = index.entries
        wanted = self._place.kernel or (self._entry.kernel if self._entry else None)
        found = [entries[wanted]] if wanted in entries else []
        found = found or [entry for key, entry in entries.items() if wanted is None or key.startswith(wanted)]
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
            self.fail(_schema_problem(entry))
            return None
        return entry

    async def _take_entry(self, entry: rooms.Entry | None) -> bool:
        """This is what the index says now. Whether the document that is followed is the same as before."""
        if entry is not None:
            self._entry = entry
            self._health = {"role": "run" if entry.requests else "view"}
            if self._requests is not None and self._requests.name != entry.requests:
                await self._requests.end()  # it is opened again, under its new name
        before, self._name = self._name, entry.state if entry else ""
        return self._name == before

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


class Member(RelayedDocument):
    """One of a room's kernels; the room has the connection, and says which document it is."""

    def __init__(self, place: rooms.Place, kernel: str, token: str) -> None:
        super().__init__(f"{place.link}?kernel={kernel}", token)
        self._following: asyncio.Task[None] | None = None

    @property
    def entry(self) -> rooms.Entry:
        """What the index says of it, or said last."""
        if self._entry is None:
            raise LocalError("a member is made of an entry")
        return self._entry

    async def attend(self, line: Line, entry: rooms.Entry) -> None:
        """The index says this of it now, on this connection."""
        is_same = await self._take_entry(entry)
        if (is_same and self._line is line) or self._error is not None:
            return
        if entry.schema != SCHEMA_VERSION:
            self.fail(_schema_problem(entry))
            return
        await _end(self._following)
        self._line = line
        self._following = asyncio.create_task(self._keep_following(line, entry), name="rtc-relay-member")

    async def leave(self) -> None:
        """The connection is gone, or it is not in the index any more."""
        self._line, self._name = None, ""
        await _end(self._following)
        self._following = None
        if self.connected:
            self._set_connected(False)

    async def _keep_following(self, line: Line, entry: rooms.Entry) -> None:
        """Until cancelled: that one of its documents cannot be read is no fault of the others."""
        backoff = Backoff()
        while True:
            try:
                await self._follow_entry(line, entry)
                self.trouble = "the relay closed the document"
            except DeniedError as exc:
                return self.fail(_denied(exc))
            except (RemoteError, WebSocketError) as exc:
                self.trouble = str(exc)
            worked = self.connected
            if worked:
                self._set_connected(False)
            await backoff.wait(worked=worked)


@dataclass(frozen=True, slots=True)
class News:
    """What happened in a room.

    Attributes:
        kind: ``came``: the kernel's document is here; ``changed``: ``change`` of it; ``left``: it is not published in
            the room any more; ``failed``: it cannot be followed, ``why`` says the reason.
    """

    kind: Literal["came", "changed", "left", "failed"]
    member: Member
    change: Change | None = None
    why: str = ""


class Room:
    """All kernels of a room, over one connection; :func:`follow_room` makes it.

    The state: who is in the index now (or was, while there is no connection), and the news that wait for their reader.
    A member that has left and comes back is another one.
    """

    def __init__(self, target: str, token: str | None = None) -> None:
        found = rooms.parse_link(target)
        self.place = found.place
        self.members: dict[str, Member] = {}
        self.connected = False
        self.trouble = ""
        self._secret = token or found.token or ""
        self._error: SetupError | None = None
        self._news: asyncio.Queue[News] = asyncio.Queue(WAITING)
        self._readers: set[asyncio.Task[None]] = set()
        self._shown: asyncio.Event = asyncio.Event()  # set again and again: look who is here now

    def __repr__(self) -> str:
        return f"<Room {self.place.link} {len(self.members)} kernels, connected={self.connected}>"

    async def news(self) -> News:
        """What happened next. For one reader, for whom the documents gather what it does not take."""
        return await self._news.get()

    async def wait_shown(self, timeout_s: float) -> None:
        """Until all who are in the index now are here, or so long.

        Raises:
            SetupError: the relay does not let us in, or does not answer.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.connected or any(not member.connected for member in self.members.values()):
                    await self._shown.wait()
                    self._shown.clear()
                    self.raise_if_refused()
        self.raise_if_refused()
        if not self.connected:
            raise SetupError(
                f"no room within {timeout_s:g} s ({self.trouble or 'no answer'})", "look whether the relay still runs"
            )

    def raise_if_refused(self) -> None:
        """Raise what ended it."""
        if self._error is not None:
            raise self._error

    async def follow(self) -> None:
        """Connect, and connect again, until cancelled or refused for good."""
        backoff = Backoff()
        try:
            while self._error is None:
                try:
                    async with _dial(self.place) as line:
                        await self._follow_line(line)
                except DeniedError as exc:
                    self._error = _denied(exc)
                except (RemoteError, WebSocketError, OSError, TimeoutError) as exc:
                    self.trouble = str(exc)
                worked, self.connected = self.connected, False
                self._shown.set()
                for member in self.members.values():
                    await member.leave()
                if self._error is None:
                    await backoff.wait(worked=worked)
        finally:
            for member in self.members.values():
                await member.leave()
            for reading in list(self._readers):
                await _end(reading)

    async def _follow_line(self, line: Line) -> None:
        async with aclosing(read_index(line, self.place.room, self._secret)) as indexes:
            async for index in indexes:
                if not index.synced:
                    continue
                entries = index.entries
                for kernel in [one for one in self.members if one not in entries]:
                    member = self.members.pop(kernel)
                    await member.leave()
                    member.close()  # its reader takes what is left, and says so
                for kernel, entry in entries.items():
                    known = self.members.get(kernel)
                    member = self.members[kernel] = known or Member(self.place, kernel, self._secret)
                    await member.attend(line, entry)
                    if known is None:
                        reading = asyncio.create_task(self._read(member), name="rtc-room-member")
                        self._readers.add(reading)
                        reading.add_done_callback(self._readers.discard)
                self.connected = True
                self._shown.set()
        self.trouble = "the relay closed the connection"

    async def _read(self, member: Member) -> None:
        """Put what happens to a member with the news, at its reader's speed."""
        changes = member.changes()
        try:
            try:
                await member.wait_for(lambda document: document.connected)
            except LocalError:
                return  # it left before it came
            finally:
                self._shown.set()
            await self._news.put(News("came", member))
            async for change in changes:
                await self._news.put(News("changed", member, change))
            await self._news.put(News("left", member))
        except SetupError as exc:
            await self._news.put(News("failed", member, why=str(exc)))


@asynccontextmanager
async def follow_room(target: str, token: str | None = None, *, timeout_s: float = 10.0) -> AsyncIterator[Room]:
    """Follow all kernels of a room at a relay.

    Args:
        target: ``ws[s]://HOST/ROOM``.
        timeout_s: how long it may take until the index is here, and the documents that it names; those that are not
            there then come later. A room without kernels is one, too.

    Raises:
        SetupError: nobody answers, or the token is refused; says what to do.
    """
    room = Room(target, token)
    following = asyncio.create_task(room.follow(), name="rtc-follow-room")
    try:
        await room.wait_shown(timeout_s)
        yield room
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


def _denied(error: DeniedError) -> SetupError:
    return SetupError(f"the relay refuses: {error}", "give a token for this room that may view")


def _schema_problem(entry: rooms.Entry) -> SetupError:
    what = f"the agent has schema {entry.schema}, this rtc_kernel knows {SCHEMA_VERSION}"
    return SetupError(what, "upgrade rtc_kernel here")


@asynccontextmanager
async def _dial(place: rooms.Place) -> AsyncIterator[Line]:
    """A connection to a relay, which is read.

    Raises:
        RemoteError: what answers speaks something else, or stopped making sense.
    """
    request = HTTPRequest(place.url, connect_timeout=client.REQUEST_S, request_timeout=client.REQUEST_S)
    try:
        socket = await dial(request, max_message_bytes=client.MAX_MESSAGE_BYTES, ping_s=client.PING_S)
    except HTTPClientError as exc:
        raise RemoteError(Reason.MALFORMED, f"the relay answered {exc.code} to a WebSocket") from exc
    line = Line(socket)
    reading = asyncio.create_task(line.run(), name="rtc-relay-line")
    try:
        yield line
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError, RemoteError):
            await reading
        hang_up(socket)


async def read_index(line: Line, room: str, secret: str) -> AsyncGenerator[Index, None]:
    """A room's index, whenever something of it came, until the connection is over.

    Raises:
        DeniedError: the relay does not let us have it.
        RemoteError: it cannot be read.
    """
    index, channel = Index(), await line.open(rooms.index_name(room), secret)
    await channel.write_message(index.request())
    keeping = asyncio.create_task(_keep(channel, index), name="rtc-relay-keep")
    try:
        while (data := await channel.read_message()) is not None:
            index.receive_bytes(data)
            yield index
    finally:
        await _end(keeping)


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
