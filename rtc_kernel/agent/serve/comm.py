"""How does a frontend follow that has nothing but the kernel's channels?

Door (the link to the relay, the asyncio loop). Owns the open comms of target ``rtc.sync.v1``; what their messages
mean is in ``session``. The role is *run*: who can reach the kernel can run code.

::

    front → kernel   comm_open   data {"room": "<kernel>/state" | "state" | … "requests", "epoch": … (optional)}
                     comm_msg    buffers: one message of y-protocols each; or
                                 data {"op": "history", …}, {"op": "blob", "digest": "sha256:…", "start": 0}, {"op":
                                 "execution" | "marks", "id"}, {"op": "text", "id", "position", "segment"},
                                 {"op": "complete", "code", "cursor_pos"}, {"op": "health"},
                                 {"op": "share", "role", "name", "expires_s"}, {"op": "links"},
                                 {"op": "unshare", "name"}, {"op": "introduce", "name"},
                                 {"op": "release" | "cancel", "request"}
                     comm_close
    kernel → front   comm_msg_reply on shell, to the asker alone: data {"seq", "epoch"} and buffers, or the answer
                                 to an op, or {"error", "remedy"}
                     comm_msg on iopub: data {"seq": n, "epoch"}, buffers: the updates since n-1
                     comm_close on iopub: data {"code", "reason"}

A reply's ``seq`` is that of the last comm_msg before it; a client that misses a number sends its step 1 again.
Nothing is sent that was not asked for: a comm that is not open gets nothing, awareness and signs of life stay on
the WebSocket, updates go at once after a pause and then at most 20 times a second. Browsers vanish without a
comm_close, so a comm that said nothing for :data:`LEASE_S` is closed instead of sent to; an empty update
(``00 02 02 00 00``) is enough to say something.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from typing import Any, assert_never

from ... import yproto
from ...errors import CLOSE_CODES, Reason, RemoteError, SetupError
from ...link import Channel, Emit
from ...tables import Execution, Json, to_json
from ...wire import Codec, Message, finite, new_header
from . import ROOMS, Backend, describe, marks_of, parse_history, read_completion
from .access import NAME_CHARS_MAX, Role, parse_share
from .session import Board, Close, Command, Limits, PeerState, Relay, Send, Session, Write

TARGET = "rtc.sync.v1"

FLUSH_S = 0.05
"""The least time between two messages of updates: jupyter_server drops what comes too fast, silently."""

LEASE_S = 180.0
"""A comm that was not heard for so long gets no more updates: its page is gone."""

COMMS = 200
"""How many comms may be open; the one that was silent longest goes first."""

READS = 8
"""How many reads of the history and of blobs may be under way for one comm."""


PIECE_BYTES = 4 << 20
"""Bytes of a blob in one answer; who wants more asks again, from where it ended."""

OPS = "history, execution, text, marks, blob, complete, health, share, links, unshare, introduce, release, cancel"
"""What can be asked for over a comm."""

log = logging.getLogger("rtc_kernel.serve")


class _Comm:
    """One open comm."""

    __slots__ = ("client", "epoch", "heard_at", "id", "pending", "reads", "room", "seq", "session", "since")

    def __init__(self, comm: str, client: str, room: str, epoch: str, session: Session, now: float) -> None:
        self.id = comm
        self.client = client
        self.room = room
        self.epoch = epoch
        self.session = session
        self.since = time.time()
        self.heard_at = now
        self.seq = 0
        self.pending: list[bytes] = []
        self.reads = 0


class CommServer:
    """The open comms of one kernel.

    Args:
        backend: where data come from.
        kernel: the kernel's id.
        codec: signs with the kernel's key.
        identity: gives ``(session, username)`` as the child uses them in its headers now; everything that goes
            to frontends must carry the child's session.
        emit: hands frames to the relay.
        executor: for reads of the history; whoever made it shuts it down.

    Use: :meth:`receive_message` for every taken message, :meth:`push` after every change, :meth:`stop`.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        kernel: str,
        codec: Codec,
        identity: Callable[[], tuple[str, str]],
        emit: Callable[[Emit], None],
        executor: Executor,
        limits: Limits,
    ) -> None:
        self._backend = backend
        self._kernel = kernel
        self._codec = codec
        self._identity = identity
        self._emit = emit
        self._executor = executor
        self._limits = limits
        self._boards = {room: Board() for room in ROOMS}
        self._comms: dict[str, _Comm] = {}
        self._flushed_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<CommServer {len(self._comms)} comms>"

    @property
    def open(self) -> tuple[str, ...]:
        """The ids of the open comms."""
        return tuple(self._comms)

    @property
    def peers(self) -> list[tuple[str, str, float]]:
        """``header.session``, name, and since when (POSIX seconds), of every frontend with an open comm, however many
        it has; the role of all is *run*."""
        first: dict[str, _Comm] = {}
        for comm in self._comms.values():
            first.setdefault(comm.client or comm.id, comm)
        return [(comm.client, comm.session.name, comm.since) for comm in first.values()]

    # --- in

    def receive_message(self, message: Message) -> None:
        """A message that the relay took off shell: ``comm_open``, ``comm_msg`` or ``comm_close``; any other, and
        one without an id, is passed over."""
        comm_id, data = message.content.get("comm_id"), message.content.get("data")
        if not isinstance(comm_id, str) or not comm_id:
            return
        match message.type:
            case "comm_open":
                self._open(comm_id, data if isinstance(data, dict) else {}, message)
            case "comm_msg":
                self._receive(comm_id, data if isinstance(data, dict) else {}, message)
            case "comm_close":
                if comm := self._comms.pop(comm_id, None):
                    comm.session.leave()

    # --- act

    def push(self, update: bytes, room: str = "state") -> None:
        """A room's document changed: tell the comms that follow, at once or with what else comes soon."""
        message = yproto.update(update)
        following = False
        for comm in self._comms.values():
            if comm.room == room and comm.session.push_update(message) is not None:
                comm.pending.append(message)
                following = True
        if following and self._timer is None:
            loop = asyncio.get_running_loop()
            wait = self._flushed_at + FLUSH_S - loop.time()
            if wait <= 0:
                self._flush()
            else:
                self._timer = loop.call_later(wait, self._flush)

    def begin_epoch(self, room: str = "state") -> None:
        """The backend has a new document: every replica is of another life now."""
        self._close_all(Reason.WRONG_EPOCH, room)

    def close_peers(self, name: str, reason: Reason) -> None:
        """Close the comms of a name in which requests are written."""
        for comm in tuple(self._comms.values()):
            if comm.session.name == name and comm.room == "requests":
                self._close(comm, reason)

    def disown(self, comms: Sequence[str]) -> None:
        """Close comms that frontends hold open since an earlier life of the agent."""
        for comm in comms:
            if comm not in self._comms:
                self._publish_close(comm, Reason.STOPPING)

    async def stop(self) -> None:
        """Close every comm; wait for reads that are under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._close_all(Reason.STOPPING)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---

    def _open(self, comm_id: str, data: Json, message: Message) -> None:
        now = asyncio.get_running_loop().time()
        room = str(data.get("room") or "state").removeprefix(f"{self._kernel}/")
        if room not in ROOMS:
            return self._publish_close(comm_id, Reason.NO_SUCH_ROOM)
        document = self._backend.requests if room == "requests" else self._backend.document
        if data.get("epoch") not in (None, document.epoch):
            return self._publish_close(comm_id, Reason.WRONG_EPOCH)
        if earlier := self._comms.pop(comm_id, None):
            earlier.session.leave()
        if len(self._comms) >= COMMS:
            self._close(min(self._comms.values(), key=lambda comm: comm.heard_at), Reason.TOO_MANY_PEERS)
        session = Session(
            document, self._boards[room], name=message.username, role=Role.RUN, now=now, limits=self._limits
        )
        self._comms[comm_id] = _Comm(comm_id, message.session, room, document.epoch, session, now)
        if message.buffers:
            self._receive(comm_id, {}, message)
        return None

    def _receive(self, comm_id: str, data: Json, message: Message) -> None:
        comm = self._comms.get(comm_id)
        if comm is None:
            return self._publish_close(comm_id, Reason.NO_SUCH_ROOM)
        comm.heard_at = now = asyncio.get_running_loop().time()
        if "op" in data:
            self._start_read(comm, data, message)
        answers: list[bytes] = []
        closes: list[Close] = []
        for buffer in message.buffers:
            if buffer[:1] in (b"\x01", b"\x03"):
                continue  # awareness stays on the WebSocket
            self._run(comm, comm.session.receive_bytes(bytes(buffer), now), answers, closes)
        if answers:
            self._reply(comm, {"seq": comm.seq, "epoch": comm.epoch}, message, answers)
        for close in closes:
            self._comms.pop(comm_id, None)
            self._publish_close(comm_id, close.reason)
        return None

    def _run(self, comm: _Comm, commands: list[Command], answers: list[bytes], closes: list[Close]) -> None:
        for command in commands:
            match command:
                case Send(data):
                    answers.append(data)
                case Close():
                    closes.append(command)
                case Relay():
                    pass
                case Write(update):
                    self._run(comm, self._write(comm.session, update), answers, closes)
                case _:
                    assert_never(command)

    def _write(self, session: Session, update: bytes) -> list[Command]:
        """A peer's update of the requests."""
        try:
            undone_count = self._backend.receive_update(update, by=session.name, role=session.role)
        except RemoteError as exc:
            return session.close(exc.reason, exc.detail)
        return session.receive_undone(undone_count, asyncio.get_running_loop().time())

    def _flush(self) -> None:
        self._timer = None
        self._flushed_at = now = asyncio.get_running_loop().time()
        for comm in tuple(self._comms.values()):
            if not comm.pending:
                continue
            if now - comm.heard_at > LEASE_S:
                self._close(comm, Reason.SLOW)
                continue
            buffers, comm.pending = comm.pending, []
            comm.seq += 1
            self._publish("comm_msg", comm.id, {"seq": comm.seq, "epoch": comm.epoch}, buffers)

    def _close_all(self, reason: Reason, room: str | None = None) -> None:
        for comm in tuple(self._comms.values()):
            if room in (None, comm.room):
                self._close(comm, reason)

    def _close(self, comm: _Comm, reason: Reason) -> None:
        if comm.session.state is not PeerState.CLOSED:
            comm.session.close(reason)
        self._comms.pop(comm.id, None)
        self._publish_close(comm.id, reason)

    # --- reads

    def _start_read(self, comm: _Comm, data: Json, message: Message) -> None:
        if comm.reads >= READS:
            self._reply(comm, _problem("too many reads are under way", "wait for their answers"), message)
            return
        comm.reads += 1
        task = asyncio.get_running_loop().create_task(self._read(comm, data, message), name="comm-read")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, comm: _Comm, data: Json, message: Message) -> None:
        try:
            buffers: list[bytes] = []
            match data.get("op"):
                case "complete":
                    answer = await read_completion(self._backend, data)
                case "health":
                    answer = {
                        **describe(self._backend, self._kernel),
                        "peers": len(self._comms),
                        "name": comm.session.name,
                        "role": comm.session.role.value,
                    }
                case "share":
                    answer = self._share(data)
                case "links":
                    answer = self._links()
                case "unshare":
                    answer = self._unshare(data.get("name"))
                case "introduce":
                    self._introduce(message.session, data.get("name"))
                    answer = {}
                case "release" | "cancel" as action:
                    answer = self._decide(action, data.get("request"))
                case _:
                    loop = asyncio.get_running_loop()
                    answer, buffers = await loop.run_in_executor(self._executor, self._answer, data)
        except SetupError as exc:
            answer, buffers = _problem(exc.what, exc.remedy), []
        except Exception:  # whatever the agent raised: the asker is told, and the comm goes on
            log.exception("an op of comm %s failed", comm.id)
            answer, buffers = _problem("this could not be answered", "try again; see the log of the agent"), []
        finally:
            comm.reads -= 1
        self._reply(comm, answer, message, buffers)

    def _share(self, data: Json) -> Json:
        """A link that was just made; its addresses have the token, nothing else that we say ever has."""
        link = self._backend.share(*parse_share(data, (Role.VIEW, Role.RUN)))
        about = {"name": link.name, "role": link.role, "expires_at": link.expires_at}
        return {"link": about, "url": link.url, "proxied_url": link.proxied_url}

    def _links(self) -> Json:
        links = [asdict(link) for link in self._backend.links()]
        return {"links": links, "peers": [asdict(peer) for peer in self._backend.peers()]}

    def _unshare(self, name: Any) -> Json:
        if not isinstance(name, str):
            raise SetupError("name is missing or of the wrong type", "give the name of a link")
        self._backend.unshare(name)
        return self._links()

    def _introduce(self, client: str, name: Any) -> None:
        """A label for what this session runs, as its own username is one: nothing is decided by it."""
        if not isinstance(name, str) or len(name := name.strip()) > NAME_CHARS_MAX or not name.isprintable():
            raise SetupError("the name cannot be used", f"give at most {NAME_CHARS_MAX} printable characters")
        if not client:
            raise SetupError("the message has no session", "send header.session")
        self._backend.introduce(client, name)

    def _decide(self, action: str, request: Any) -> Json:
        if not isinstance(request, str):
            raise SetupError("request is missing or of the wrong type", "give the whole id of a request that waits")
        self._backend.decide(action, request)
        return {"request": request}

    def _answer(self, data: Json) -> tuple[Json, list[bytes]]:
        """The answer to an op. Runs in a thread."""
        match data.get("op"):
            case "history":
                page = self._backend.history(
                    parse_history({name: value for name, value in data.items() if name != "op"})
                )
                rows = [finite(to_json(row)) for row in page.executions]
                return {"executions": rows, "next": page.next}, []
            case "blob":
                digest, start = data.get("digest"), data.get("start", 0)
                if type(start) is not int or not 0 <= start < 1 << 53:
                    raise SetupError("start is not a whole number", "give the byte to begin with, from 0 on")
                blob = self._backend.blob(digest) if isinstance(digest, str) else None
                if blob is None:
                    raise SetupError("there is no such blob", "it may have left the history with its execution")
                piece = self._backend.blob_piece(str(digest), start, PIECE_BYTES)
                about = {"media_type": blob.media_type, "bytes": blob.size_bytes, "start": start}
                return {"digest": digest, **about}, [piece]
            case "execution":
                return self._execution(data.get("id")), []
            case "text":
                execution, position, segment = data.get("id"), data.get("position"), data.get("segment", 0)
                if not isinstance(execution, str) or type(position) is not int or type(segment) is not int:
                    raise SetupError("id, position or segment is not of its kind", "give the whole id and two numbers")
                segments, following = self._text(execution, position, segment, PIECE_BYTES)
                return {"segments": segments, "next": following}, []
            case "marks":
                row = self._find(data.get("id"))
                return {"execution": row.id, "marks": marks_of(self._backend, row.id)}, []
            case op:
                raise SetupError(f"there is no op {op!r}", OPS)

    def _find(self, key: Any) -> Execution:
        row = self._backend.execution(key) if isinstance(key, str) else None
        if row is None:
            raise SetupError("there is no such execution", "it may have left the history")
        return row

    def _execution(self, key: Any) -> Json:
        """One record; ``more`` says from which segment on the text of a stream has to be asked for."""
        row = self._find(key)
        value: Json = finite(to_json(row))
        more, left = [], PIECE_BYTES
        for position, output in enumerate(value["outputs"]):
            if output["output_type"] == "stream":
                segments, following = self._text(row.id, position, 0, left)
                output["text"] = "".join(segments)
                left = max(0, left - len(output["text"]))
                if following is not None:
                    more.append([position, following])
        return {**value, "more": more}

    def _text(self, execution: str, position: int, segment: int, size: int) -> tuple[list[str], int | None]:
        """Segments of a stream from one on, about so many characters, and from where on there may be more."""
        out: list[str] = []
        while size > 0:
            piece = self._backend.segments(execution, position, segment)
            if not piece:
                return out, None
            out += piece
            segment += len(piece)
            size -= sum(map(len, piece))
        return out, segment

    # --- out

    def _reply(self, comm: _Comm, data: Json, to: Message, buffers: Sequence[bytes] = ()) -> None:
        self._send("comm_msg_reply", comm.id, data, buffers, Channel.SHELL, to.idents, to.header)

    def _publish(self, kind: str, comm_id: str, data: Json, buffers: Sequence[bytes] = ()) -> None:
        self._send(kind, comm_id, data, buffers, Channel.IOPUB, (f"comm-{comm_id}".encode(),), {})

    def _publish_close(self, comm_id: str, reason: Reason) -> None:
        code, sentence = CLOSE_CODES[reason]
        self._publish("comm_close", comm_id, {"code": code, "reason": reason.value, "detail": sentence})

    def _send(
        self,
        kind: str,
        comm_id: str,
        data: Json,
        buffers: Sequence[bytes],
        channel: Channel,
        idents: Sequence[bytes],
        parent: dict[str, Any],
    ) -> None:
        session, username = self._identity()
        header = new_header(kind, session=session, username=username)
        content = {"comm_id": comm_id, "data": data}
        frames = self._codec.write(header, content, parent=parent, idents=idents, buffers=buffers)
        self._emit(Emit(channel, tuple(frames)))


def _problem(error: str, remedy: str) -> Json:
    return {"error": error, "remedy": remedy}
