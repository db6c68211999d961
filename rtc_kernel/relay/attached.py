"""How is a kernel followed that somebody else has started?

Door (zmq, processes, signals). Stands where the relay stands for a kernel of ours, but nothing passes it: it is one
more client of the kernel. What the kernel publishes, and what the agent asks and is answered, goes into the same spool,
to the same agent; what other clients ask, are answered and are asked (``input()``) it cannot see. It owns the sockets,
and the lock that keeps others from following the same kernel. It must never be in the kernel's way: it asks who is
there when it comes, and when the connection was lost, and nothing else by itself.

Whoever starts it (``jupyter rtc attach``) reads one JSON object per line from its stdout: ``{"event": "attached"}``
when the agent serves, ``{"event": "ended", "reason"}``; or ``{"event": "failed", "what", "remedy", "exit_code"}``.

Facts this stands on (libzmq 4.3, ipykernel 7.4, measured): a process that ends closes its connections at once, and a
socket's monitor says so; a kernel that drops a message with a wrong signature says nothing at all; a DEALER keeps what
it could not send for whoever binds its endpoint next, so it is made anew when the connection is lost.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import selectors
import signal
import socket
import struct
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import assert_never

import zmq

from .. import __version__, discovery, link
from ..config import RTCKernel
from ..errors import RemoteError, SetupError
from ..link import AGENT_IDENT, Channel, Way
from ..wire import Codec, Json, Message, Parts, new_header, parse, split
from . import connection as connections
from . import pulse
from .channels import receive
from .connection import Connection
from .cutting import recorder
from .launch import load_settings, parse_argv
from .pulse import Life, Pulse, number_of
from .spool import Spool
from .supervisor import Supervisor

FIND_S = 5.0
"""How long a kernel may take to answer when we come. Seconds."""

CONNECT_S = 1.0
"""How long it may take until somebody speaks ZMTP at its ports. Seconds."""

NEW_S = 15.0
"""A connection file that is so new is of a kernel that starts, and may have to be awaited. Seconds."""

SHELL_S = 0.1
"""A kernel that has answered on control and has not on shell after this time is busy. Seconds."""

HEARD_S = 1.0
"""A kernel that publishes, and so has the right key, may take so long to answer on control, too. Seconds."""

GATHER_S = 0.01
"""What is published is fetched so long after the first of it has come: kernel and clients go on meanwhile, and we wake
once. Seconds. (A follower that wakes for each message costs a round trip of 4 ms twice as much.)"""

FLOOD_COUNT, FLOOD_S = 30, 0.02
"""So many messages in one go are a flood; then they are fetched once in that time. Seconds."""

RECONNECT_MS = 10
"""A kernel that is restarted is to find us connected before it says anything, as its frontends are soon."""

KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 30, zmq.TCP_KEEPALIVE_INTVL: 10, zmq.TCP_KEEPALIVE_CNT: 3}
"""A machine that is gone without a word is noticed after a minute. Seconds; probes."""

HELD_COUNT = 10_000
"""Messages that are held while nobody knows whose they are; more than a kernel says before it answers."""

PARENT_POLL_S = 1.0
"""How often we look whether who started us still lives. Seconds."""

LOOKS_COUNT = 20
"""So many times we look at that whether somebody else follows the kernel; later nobody comes any more."""

AGENT_END_S = 3.0
"""How long the agent may take to store what it has at the end. Seconds."""


def main(argv: Sequence[str]) -> None:
    """Follow a kernel until it is gone, or we are told to stop. ``argv``: ``-f FILE``, ``--detached``,
    ``--display-name NAME``, ``--language NAME``, ``--timeout S`` and settings."""
    options = parse_argv(argv)
    rest = iter(options.child_arguments)
    given = {name: True if name == "--detached" else next(rest, "") for name in rest}
    try:
        settings = load_settings(options)
        connection = connections.read(Path(options.connection_file))
        timeout_s = float(given.get("--timeout") or FIND_S)
        with only_one(connection), Attached(connection, settings, options.settings) as attached:
            attached.parent_pid = 0 if "--detached" in given else os.getppid()
            attached.find(timeout_s, str(given.get("--display-name") or ""), str(given.get("--language") or ""))
            attached.run()
        say({"event": "ended", "reason": attached.reason})
    except SetupError as exc:
        say({"event": "failed", "what": exc.what, "remedy": exc.remedy, "exit_code": exc.exit_code})
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def say(value: Json) -> None:
    """Tell who started us; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(value).encode() + b"\n")


@contextlib.contextmanager
def only_one(connection: Connection) -> Iterator[None]:
    """Keep others from following the same kernel.

    Raises:
        SetupError: one does.
    """
    held = discovery.hold(connection.kernel_id)
    if held is None:
        raise SetupError(f"{connection.kernel_id} is followed already", "see `jupyter rtc list`")
    yield
    discovery.let_go(held)


@dataclass(slots=True)
class _Asked:
    """A question who is there. ``control``, ``shell``: the ids of its two messages; ``answers``: what came."""

    control: str
    shell: str
    answers: dict[Channel, Message] = field(default_factory=dict)
    answered_at: float = 0.0

    @property
    def session(self) -> str:
        """Of the process that has answered."""
        return next((message.session for message in self.answers.values()), "")


class Attached:
    """One kernel that we are attached to.

    ``find`` learns who is there, ``run`` is the loop.
    """

    def __init__(self, connection: Connection, settings: RTCKernel, argv: Sequence[str]) -> None:
        self.connection = connection
        self.settings = settings
        self.parent_pid = 0
        self.reason = ""
        self.relay_id = f"{lineage_of(connection)}{uuid.uuid4().hex}"
        try:
            self.codec = Codec(connection.key, connection.scheme)
        except RemoteError as exc:
            raise SetupError(f"{connection.path}: {exc.detail}", "give another connection file", 2) from exc
        self.spool = Spool(
            settings.spool_bytes, recorder(settings.recorded_bytes, settings.blob_bytes, self.codec.sign)
        )
        self.supervisor = Supervisor(self.spool, self._hello, argv)
        self.info: Json = {}
        self._session = uuid.uuid4().hex
        self._context = zmq.Context()
        self._identity = os.urandom(8).hex().encode()
        self._poller = zmq.Poller()
        self._asked = _Asked("", "")
        self._held: list[list[bytes]] = []
        self._submitted: list[tuple[Channel, list[bytes]]] = []
        self._life: Life
        self._connected = False
        self._bad_count = 0  # messages with a signature that is not this key's
        self._announced = False
        self._look_at, self._looks_count = 0.0, 0  # when, and how often, the list was looked at
        self._was_busy = False  # when it was found, and it has not been through with that
        self._wakeup, self._waker = socket.socketpair()
        self._written_ns = connection.path.stat().st_mtime_ns
        self._dealers: dict[Channel, zmq.Socket[bytes]] = {}
        self._iopub: zmq.Socket[bytes]
        self._monitor: zmq.Socket[bytes]
        self._listen()
        self._renew()

    def __enter__(self) -> Attached:
        for end in (self._wakeup, self._waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._context.destroy(linger=0)
        self._wakeup.close()
        self._waker.close()

    # --- sockets

    def _make(self, kind: int) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = self._context.socket(kind)
        made.linger = 0
        made.set_hwm(0)
        made.reconnect_ivl = RECONNECT_MS
        for option, value in KEEPALIVE.items():
            made.setsockopt(option, value)
        if kind == zmq.DEALER:
            made.routing_id = self._identity
        if self.connection.curve is not None:  # every client has the kernel's own pair (jupyter_client 8.9)
            public, secret = self.connection.curve
            made.curve_serverkey, made.curve_publickey, made.curve_secretkey = public, public, secret
        return made

    def _listen(self) -> None:
        """Connect with what the kernel publishes, and watch the connection."""
        self._iopub = self._make(zmq.SUB)
        self._monitor = self._iopub.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._iopub.connect(self.connection.url("iopub_port"))  # behind the monitor, which else may miss it
        self._iopub.subscribe(b"")
        self._poller.register(self._iopub, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def _move(self) -> None:
        """Follow the kernel to other ports, where it was started again with some (a server does so when a kernel died
        as soon as it was started)."""
        with contextlib.suppress(OSError, SetupError):
            written_ns = self.connection.path.stat().st_mtime_ns
            if written_ns == self._written_ns:
                return
            self._written_ns = written_ns
            before, read = self.connection, connections.read(self.connection.path)
            if read.key != before.key or all(read.url(name) == before.url(name) for name in connections.PORT_NAMES):
                return
            self.connection = read
            for one in (self._iopub, self._monitor):
                with contextlib.suppress(KeyError):
                    self._poller.unregister(one)
            self._iopub.disable_monitor()
            self._iopub.close()
            self._listen()
            self._renew()

    def _renew(self) -> None:
        """Other sockets for our requests: what waits in these is for a kernel that may be gone."""
        for dealer in self._dealers.values():
            with contextlib.suppress(KeyError):
                self._poller.unregister(dealer)
            dealer.close()
        names = ((Channel.CONTROL, "control_port"), (Channel.SHELL, "shell_port"), (Channel.STDIN, "stdin_port"))
        for channel, name in names:
            self._dealers[channel] = self._make(zmq.DEALER)
            self._dealers[channel].connect(self.connection.url(name))
            self._poller.register(self._dealers[channel], zmq.POLLIN)

    # --- who is there

    def find(self, timeout_s: float, display_name: str = "", language: str = "") -> None:
        """Learn who is there, and begin to follow.

        Args:
            display_name, language: of its kernelspec, as far as they are known.

        Raises:
            SetupError: nobody answers, or somebody with another key.
        """
        began = time.monotonic()
        poller = self._poller
        poller.register(self._wakeup, zmq.POLLIN)
        self._ask()
        heard: list[list[bytes]] = []
        while True:
            left_s = self._find_until(began, bool(heard), timeout_s) - time.monotonic()
            ready = dict(poller.poll(max(0, math.ceil(left_s * 1000))))  # the last look: we may have had no processor
            if self._wakeup.fileno() in ready:
                raise KeyboardInterrupt
            for channel, dealer in self._dealers.items():
                if dealer in ready:
                    for frames in receive(dealer):
                        self._answered(channel, frames)
            if self._iopub in ready:
                heard += [
                    frames
                    for frames in receive(self._iopub)
                    if (parts := self._read(frames)) and not _says(parts, b"starting")
                ]
            if self._monitor in ready:
                self._watch()
            if left_s <= 0 and self._find_until(began, bool(heard), timeout_s) <= time.monotonic():
                break
        if not self._asked.answers and not heard:
            raise self._nobody()
        self._begin(heard, display_name, language)

    def _find_until(self, began: float, heard: bool, timeout_s: float) -> float:
        """How long we wait, as things are (monotonic seconds); ``began``: when we asked."""
        latest = began + timeout_s
        if not self._connected:
            is_new = time.time() - self.connection.path.stat().st_mtime < NEW_S
            return latest if is_new else min(began + CONNECT_S, latest)
        if Channel.SHELL in self._asked.answers:
            return began
        if self._asked.answers:
            return min(self._asked.answered_at + SHELL_S, latest)
        return min(began + HEARD_S, latest) if heard else latest

    def _nobody(self) -> SetupError:
        path, where = self.connection.path, self.connection.url("iopub_port")
        if not self._connected:
            return SetupError(f"nobody answers at {where} of {path}", "the kernel has ended, or is on another machine")
        if self._bad_count:
            return SetupError(f"the key in {path} is not that of the kernel at {where}", "give its own connection file")
        what = f"the kernel at {where} does not answer what is signed with the key in {path}"
        return SetupError(what, "give its own connection file, or --timeout S if it is busy")

    def _begin(self, heard: list[list[bytes]], display_name: str, language: str) -> None:
        message = next(iter(self._asked.answers.values()), None)
        info = message.content if message else {}
        told = info.get("language_info")
        name = str(told.get("name") or language) if isinstance(told, dict) else language
        file = self.connection
        kernel_name = str(file.info.get("kernel_name") or name or "kernel")
        session = self._asked.session if message else self._session_of(heard)
        session = "" if session == self._session else session
        number = number_of(session or file.key.decode("ascii", "replace"))
        self._life = Life(number, told=bool(session))
        busy = Channel.SHELL not in self._asked.answers
        self.info = {
            "kernel_name": kernel_name,
            "display_name": display_name or kernel_name,
            "language": name,
            "notebook": file.info.get("jupyter_session") or None,
            "started_at": min(file.path.stat().st_mtime, time.time()),
            "session": self._asked.session or session,
            "username": message.username if message else "",
        }
        self._turn(number, busy=busy)
        for frames in heard:
            self._tap(Channel.IOPUB, Way.TO_FRONT, frames)

    def _session_of(self, heard: list[list[bytes]]) -> str:
        """Of the process, by what it has published about nobody's request (a welcome); empty where it has not."""
        for frames in heard:
            with contextlib.suppress(RemoteError):
                message = self.codec.read(frames)
                if not message.parent and message.session:
                    return message.session
        return ""

    def _turn(self, number: int, *, busy: bool) -> None:
        self._was_busy = busy
        self.spool.turn(time.time(), "busy" if busy else "idle", number)

    def _ask(self) -> None:
        """Ask who is there: on control, which is answered while code runs, and on shell, which is not."""
        ids: dict[Channel, str] = {}
        for channel in (Channel.CONTROL, Channel.SHELL):
            header = new_header("kernel_info_request", session=self._session, username="rtc")
            ids[channel] = str(header["msg_id"])
            self._dealers[channel].send_multipart(self.codec.write(header, {}))
        self._asked = _Asked(ids[Channel.CONTROL], ids[Channel.SHELL])

    def _answered(self, channel: Channel, frames: list[bytes]) -> bool:
        """Whether it is an answer to a question of ours."""
        parent = frames[3] if len(frames) > 3 else b""  # no routing frame stands before the delimiter
        if self._asked.control.encode() not in parent and self._asked.shell.encode() not in parent:
            return False
        with contextlib.suppress(RemoteError):
            message = self.codec.read(frames)
            if message.type == "kernel_info_reply":
                self._asked.answers[channel] = message
                self._asked.answered_at = self._asked.answered_at or time.monotonic()
        return True

    def _read(self, frames: list[bytes]) -> Parts | None:
        """A message on iopub, if it is the kernel's, and not about our own question."""
        try:
            parts = split(frames)
        except RemoteError:
            return None
        if not self.codec.verify(parts):
            self._bad_count += 1
            return None
        return None if self._asked.control.encode() in parts.parent else parts

    def _watch(self) -> bool:
        """What the monitor says; whether the connection was lost."""
        lost = False
        for frames in receive(self._monitor):
            (event,) = struct.unpack_from("=H", frames[0])  # zmq.utils.monitor loads asyncio for this
            self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            lost = lost or event == zmq.EVENT_DISCONNECTED
        return lost

    def _hello(self) -> Json:
        return {
            "version": __version__,
            "relay_id": self.relay_id,
            "lineage": lineage_of(self.connection),
            "attached": True,
            "relay_pid": os.getpid(),
            "kernel_id": self.connection.kernel_id,
            "connection_file": str(self.connection.path),
            "key": self.connection.key.decode(),
            "signature_scheme": self.connection.scheme,
            "host": platform.node(),
            "child_pid": 0,
            "back_directory": "",
            "spool_seq": self.spool.seq,
            "acknowledged_seq": self.spool.acknowledged_seq,
            **self.info,
        }

    # --- the loop

    def run(self) -> None:
        """Follow until the kernel is gone or a signal comes; then everything is stored."""
        fetch_at, pause_s = 0.0, GATHER_S
        agent: socket.socket | None = None
        agent_flags = 0
        while not self.reason:
            now = time.monotonic()
            if fetch_at and fetch_at <= now:
                fetch_at = 0.0
                pause_s = FLOOD_S if self._receive_iopub() >= FLOOD_COUNT else GATHER_S
                self._poller.register(self._iopub, zmq.POLLIN)  # again, or as it is
            self.supervisor.keep(now)
            self.supervisor.write(now)
            flags = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.supervisor.blocked else 0)
            if self.supervisor.end is not agent or agent_flags != flags:
                if agent is not None:
                    self._poller.unregister(agent)
                agent, agent_flags = self.supervisor.end, flags
                if agent is not None:
                    self._poller.register(agent, agent_flags)
            ready = dict(self._poller.poll(self._timeout_ms(now, fetch_at)))
            replies = [channel for channel, dealer in self._dealers.items() if dealer in ready]
            if self._monitor in ready or replies:
                self._receive_iopub()  # it came before
            if self._monitor in ready or self._life.holds:
                self._follow_life()
            for channel in replies:
                self._receive(channel)
            if self._iopub in ready:
                fetch_at = time.monotonic() + pause_s
                self._poller.unregister(self._iopub)
            if agent is not None and agent.fileno() in ready:
                for record in self.supervisor.read(now):
                    self._agent_said(record)
                self._announce()
            if self._wakeup.fileno() in ready and self._signalled():
                self.reason = "stopped"
            if self.parent_pid and os.getppid() != self.parent_pid:
                self.reason = "stopped"
            if self._announced and not self._is_listed():
                self.reason = "it is an RTC kernel, which had only just been started"
        self._end()

    def _timeout_ms(self, now: float, fetch_at: float) -> int:
        times = [now + PARENT_POLL_S]
        times += [at for at in (self.supervisor.deadline, fetch_at or None) if at is not None]
        if (due := self._life.deadline) is not None:
            times.append(now + due - time.time())
        return max(0, math.ceil((min(times) - now) * 1000))

    def _is_listed(self) -> bool:
        """Whether it is we who follow this kernel. The agent of an RTC kernel, which comes some time after its relay,
        takes our place in the list, and in the history."""
        if time.monotonic() < self._look_at or self._looks_count >= LOOKS_COUNT:
            return True
        self._look_at, self._looks_count = time.monotonic() + PARENT_POLL_S, self._looks_count + 1
        return self.connection.kernel_id not in [
            kernel.kernel_id for kernel in discovery.live() if kernel.relay_pid != os.getpid()
        ]

    def _announce(self) -> None:
        if self.supervisor.ready and not self._announced:
            self._announced = True
            say({"event": "attached"})

    def _signalled(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            return bool(self._wakeup.recv(4096))
        return False

    def _end(self) -> None:
        if self._life.pulse is Pulse.LIVE:
            self._receive_iopub()
        self.supervisor.close(AGENT_END_S)

    # --- in: the kernel

    def _tap(self, channel: Channel, way: Way, frames: list[bytes], ago_s: float = 0.0) -> None:
        self.spool.tap(time.time() - ago_s, channel, way, frames)

    def _receive_iopub(self) -> int:
        messages = receive(self._iopub)
        read = [(frames, parts) for frames in messages if (parts := self._read(frames)) is not None]
        # By the kernel's own clock, whatever it shows: how much earlier than the last of these was each?
        dates = [_date_of(parts) for _, parts in read] if len(read) < FLOOD_COUNT else [0.0] * len(read)
        newest = max(dates, default=0.0)
        for (frames, parts), date in zip(read, dates, strict=True):
            if _says(parts, b"starting"):
                self._do(self._life.receive_starting(time.time()))
                continue  # what follows of it we say ourselves
            if self._life.holds:
                self._held.append(frames)
                if len(self._held) >= HELD_COUNT:
                    self._do(self._life.receive_much(time.time()))
                continue
            self._tap(Channel.IOPUB, Way.TO_FRONT, frames, min(newest - date, FLOOD_S) if date else 0.0)
            if self._was_busy and self._asked.shell.encode() in parts.parent and _says(parts, b"idle"):
                self._was_busy = False
                self.spool.turn(time.time(), "idle", self._life.number)  # it is through with what ran when we came
        return len(messages)

    def _receive(self, channel: Channel) -> None:
        """Answers: to the agent, or to ourselves."""
        for frames in receive(self._dealers[channel]):
            if self._answered(channel, frames):
                continue
            if channel is not Channel.CONTROL and not self._life.holds:
                self._tap(channel, Way.TO_FRONT, [AGENT_IDENT, *frames])

    def _follow_life(self) -> None:
        now = time.time()
        if self._watch():
            self._life.receive_lost(now)
            self._renew()
        awaited = self.connection.path.exists()
        self._do(self._life.receive_time(now, awaited=awaited, heard=bool(self._held)))
        if self._life.pulse is Pulse.GONE:
            self.reason = "the kernel has ended"
            return
        if self._connected:
            self._do(self._life.receive_back(now))
        elif self._life.holds:
            self._move()
        answers = self._asked.answers
        waited = time.monotonic() - self._asked.answered_at
        if self._life.pulse is Pulse.ASKED and (Channel.SHELL in answers or (answers and waited >= SHELL_S)):
            session = self._asked.session
            session = "" if session == self._session else session
            self._do(self._life.receive_answer(session, now, busy=Channel.SHELL not in answers))

    def _do(self, commands: Sequence[pulse.Command]) -> None:
        for command in commands:
            match command:
                case pulse.Ask():
                    self._ask()
                case pulse.Died(number, at):
                    self.spool.turn(at, "exited", number)
                case pulse.Found(number, busy):
                    self.info["session"] = self._asked.session
                    self._turn(number, busy=busy)
                case pulse.Missed(since, until):
                    self.spool.miss(since, until)
                case _:
                    assert_never(command)
        if not self._life.holds:
            held, self._held = self._held, []
            for frames in held:
                self._tap(Channel.IOPUB, Way.TO_FRONT, frames)
            submitted, self._submitted = self._submitted, []
            for channel, frames in submitted:
                self._submit(channel, frames)

    # --- in: the agent

    def _agent_said(self, record: link.Record) -> None:
        match record:
            case link.Submit(channel, (link.AGENT_IDENT, *frames)):
                if self._life.holds:
                    self._submitted.append((channel, frames))
                else:
                    self._submit(channel, frames)
            case link.Act({"action": "interrupt"}) if self._life.holds:
                pass  # what ran is gone
            case link.Act({"action": "interrupt"}):
                header = new_header("interrupt_request", session=self._session, username="rtc")
                self._dealers[Channel.CONTROL].send_multipart(self.codec.write(header, {}))
            case link.Act({"action": "signal-seen"}):
                pass  # we are no kernel: it was meant for us, too
            case _:
                print(f"rtc_kernel: the agent sent a {type(record).__name__}", file=sys.stderr)

    def _submit(self, channel: Channel, frames: list[bytes]) -> None:
        if channel is not Channel.STDIN:  # what was typed is in no copy
            self._tap(channel, Way.TO_CHILD, [AGENT_IDENT, *frames])
        self._dealers[channel].send_multipart(frames)


def lineage_of(connection: Connection) -> str:
    """What begins the ids of all that ever followed this kernel, over its restarts."""
    return f"attached-{sha256(connection.key).hexdigest()[:16]}-"


def _date_of(parts: Parts) -> float:
    """When the kernel says that it made a message, POSIX seconds; 0 where it does not."""
    try:
        return datetime.fromisoformat(str(parse(parts.header).get("date"))).timestamp()
    except (RemoteError, ValueError, OverflowError):
        return 0.0


def _says(parts: Parts, state: bytes) -> bool:
    """Whether it is a ``status`` of this state; a glance is enough."""
    return b'"' + state + b'"' in parts.content and b'"status"' in parts.header


if __name__ == "__main__":
    main(sys.argv[1:])
