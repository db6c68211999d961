"""The hallway of the relay: one loop, in the main thread, that wires channels, intercept, child and supervisor.

What happens is read here, decided in :mod:`intercept`, and done here. iopub, stdin and heartbeat do not pass this
loop at all; their copies do. The loop never waits for the agent, for a frontend, or for a disk.

Order of a start: the child first (:mod:`launch`), then everything else, so that our imports run while the kernel's do.
Order of an end: the child is gone; what it said last leaves for the frontends; the agent stores and goes; we end as
the child ended.
Order of a start over ipc: what passes in threads waits until the child has opened its sockets. One that does not, or
ends, is started once more over loopback TCP; nobody has noticed yet, and nothing that was sent is lost.
Order of a restart: the gate closes, so that what frontends send waits in their sockets; the child is asked to go, and
killed if it does not; what it said last leaves; what it has not answered is answered in its place; another one is
started on the same ports; the gate opens as at the start.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import selectors
import signal
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from .. import __version__, link
from ..errors import RemoteError, SetupError
from ..link import Channel, Way
from . import child as child_room
from . import connection as connections
from .child import GROUP_SIGNALS, leave_as
from .connection import Connection
from .launch import Launch, load_settings

if TYPE_CHECKING:
    import zmq

    from ..config import RTCKernel
    from .channels import Channels
    from .intercept import Command, Intercept
    from .supervisor import Supervisor

FLOOD_COUNT, FLOOD_S = 30, 0.02
"""So many iopub messages in such a time are a flood: then their copies are fetched once in that time, because waking
this loop and the agent for each of them costs more than all else that is done with it. Seconds."""

TAP_DELAY_S = 0.001
"""Copies that show no output yet (requests, replies, states) may wait so long for what comes behind them. Seconds."""

GATE_S = 0.1
"""A kernel that says nothing by itself gets its first request this long after its iopub is connected. Seconds."""

GREETED_S = 2.0
"""The same for another child of a kernel that has said welcome before: until it does so, what it publishes may be
lost (xeus can be connected to before it hears who has subscribed). Seconds."""

SIGNAL_GRACE_S = 0.5
"""How long after a signal we wait to learn whether the whole group got it. Seconds."""

PARENT_POLL_S = 1.0
"""How often we look whether who started us still lives, as ipykernel does. Seconds."""

AGENT_AFTER_S, AGENT_LATEST_S = 0.03, 2.0
"""The agent is started so long after the kernel is there, and at the latest so long after us: its imports would slow
the kernel's own. What passes meanwhile is in the spool. Seconds."""

DRAIN_QUIET_S, DRAIN_MAX_S = 0.03, 0.5
"""After the child's end: frames still on their way are awaited until this quiet, at most this long. Seconds."""

AGENT_END_S = 3.0
"""How long the agent may take to store what it has at the end. Seconds."""

RESTART_GRACE_S = 2.0
"""How long a child that is asked to make room for another one may take. Seconds."""

_NO_OUTPUT = (b"status", b"execute_input")
"""How topics end that ipykernel gives to messages without output; another kernel's copies are simply never delayed."""

ENDING_SIGNALS = frozenset({signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)})

_ENDED = frozenset(-number for number in (*GROUP_SIGNALS, getattr(signal, "SIGKILL", 9)))
"""Exit codes of a child that somebody has ended."""

END_GRACE_S = 2.0
"""After SIGTERM to the child, before SIGKILL, when its parent has gone. Seconds."""


def run(launch: Launch) -> None:
    """Relay for a child that was just started; ends the process as the child ends.

    A :class:`SetupError` is one line on stderr and its exit code.
    """
    relay = Relay(launch)
    try:
        relay.start()
    except SetupError as exc:
        print(f"rtc_kernel: {exc}", file=sys.stderr)
        sys.exit(exc.exit_code)
    relay.run()


@dataclass(slots=True)
class _Restart:
    """A child that makes room for another one.

    Attributes:
        kill_at: when it is killed, if it is still there.
        gone_at: since when it is gone.
        quiet_at: when nothing more is expected of what was on its way; moves on while something comes.
        answered: what it has not answered was answered in its place.
        cancelled: the kernel is to end: no other child follows.
    """

    kill_at: float | None
    gone_at: float | None = None
    quiet_at: float | None = None
    answered: bool = False
    cancelled: bool = False

    @property
    def deadline(self) -> float | None:
        """When something is to be done next; null: when the child is gone."""
        return self.kill_at if self.quiet_at is None else self.quiet_at


class Relay:
    """One kernel's relay.

    ``start`` opens the channels, ``run`` is the loop.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.relay_id = uuid.uuid4().hex
        self.front: Connection = launch.front
        self.back: Connection = launch.back
        self.child = launch.child
        self._wakeup = launch.wakeup
        self._parent_pid = os.getppid() if os.environ.get("JPY_PARENT_PID", "1") not in ("", "0", "1") else 0
        self._gate_at: float | None = None  # when to open the gate although nothing proved the link
        self._gate_open = False
        self._to_write = False  # the connection file, when the child is there
        self._agent_at = time.monotonic() + AGENT_LATEST_S  # not before: the kernel's start has the processors
        self._ipc_until: float | None = None  # the child must have opened its ipc sockets by then; null: it has
        self._ipc_over = False  # it had not
        self._child_at = time.monotonic()  # when the child was started last
        self._ending = False  # a signal came that is meant to end the child
        self._restart: _Restart | None = None
        self._exit_code: int | None = None  # ours, where no child could be started instead of the one before
        self._former_session: str | None = None  # of the child before, while it may still be heard of
        self._submitted: deque[tuple[Channel, list[bytes]]] = deque()  # of the agent's, waiting for the gate
        self._welcomed = False  # the child's own welcome has passed, or it sends none
        self._greets = False  # it has sent one, or another one before it has
        self._subscribers: list[bytes] = []  # topics that wait for a welcome
        self._write_at: float | None = None  # when what was tapped goes to the agent at the latest
        self._seen_at: dict[int, float] = {}  # signal -> when the agent told of it before we had it ourselves
        self._forward_at: dict[int, float] = {}  # signal -> when to forward it, unless the group got it
        self._poller: zmq.Poller
        self.settings: RTCKernel
        self.channels: Channels
        self.intercept: Intercept
        self.supervisor: Supervisor

    # --- start -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open everything beside the child, which starts meanwhile."""
        from ..wire import Codec
        from .channels import Channels
        from .cutting import recorder
        from .intercept import Intercept
        from .spool import Spool
        from .supervisor import Supervisor

        try:
            self.channels = Channels(self.front, self.back, lambda *said: self.intercept.address(*said))
            self.channels.open()
            self._to_write = self.channels.front.info != self.front.info  # ports that we chose
            self.front = self.channels.front
            self.settings = self.launch.configured or load_settings(self.launch.options)
            codec = Codec(self.front.key, self.front.scheme)
        except (SetupError, RemoteError) as exc:
            self.child.end(END_GRACE_S)
            connections.discard(self.back)
            raise exc if isinstance(exc, SetupError) else SetupError(str(exc), "use hmac-sha256") from exc
        self.intercept = Intercept(
            codec,
            agent=self.settings.agent,
            magics=self.settings.magics,
            take_interrupt=self.launch.spec.interrupt_mode == "signal" and child_room.leads_group(),
            magic_timeout_s=self.settings.magic_timeout_s,
            language=self.launch.spec.language,
        )
        self.codec = codec
        self._has_agent = self.settings.agent  # read for every message: a trait would cost more than all else
        settings = self.settings
        self.spool = Spool(settings.spool_bytes, recorder(settings.recorded_bytes, settings.blob_bytes, codec.sign))
        self.supervisor = Supervisor(self.spool, self._hello, self.launch.options.settings)
        if self.launch.ipc:
            self._ipc_until = time.monotonic() + settings.ipc_wait_s
        else:
            self._reached()

    def _reached(self) -> None:
        """It is known how the child is reached: what it says may pass, and that it runs may be told."""
        self._ipc_until = None
        self.channels.start()
        self.spool.turn(time.time(), "started", self.child.pid)

    def _hello(self) -> dict[str, Any]:
        notebook = os.environ.get("JPY_SESSION_NAME") or self.front.info.get("jupyter_session") or None
        return {
            "version": __version__,
            "relay_id": self.relay_id,
            "relay_pid": os.getpid(),
            "kernel_id": self.front.kernel_id,
            "connection_file": str(self.front.path),
            "key": self.front.key.decode(),
            "signature_scheme": self.front.scheme,
            "kernel_name": self.front.info.get("kernel_name") or "rtc-python",
            "display_name": self.launch.display_name,
            "language": self.launch.spec.language,
            "notebook": notebook,
            "host": platform.node(),
            "child_pid": self.child.pid,
            "started_at": self.launch.started_at,
            "session": self.intercept.session,
            "username": self.intercept.username,
            "back_directory": str(self.back.path.parent),
            "not_ipc": self.launch.instead,
            "spool_seq": self.spool.seq,
            "acknowledged_seq": self.spool.acknowledged_seq,
        }

    # --- the loop ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Relay until the child is gone; does not return."""
        import zmq

        channels = self.channels
        poller = self._poller = zmq.Poller()
        for _, back in channels.routes.values():
            poller.register(back, zmq.POLLIN)
        for polled in (channels.capture, channels.stdin_tap, channels.iopub_link):
            poller.register(polled, zmq.POLLIN)
        poller.register(self._wakeup, zmq.POLLIN)
        agent: socket.socket | None = None
        agent_flags = 0
        flood_since, flood_count, paused_until = 0.0, 0, 0.0
        from .channels import receive

        while True:
            now = time.monotonic()
            if paused_until and paused_until <= now:
                copies = receive(channels.capture)
                self._captured(copies, now)
                if len(copies) >= FLOOD_COUNT:
                    paused_until = now + FLOOD_S
                else:
                    paused_until = 0.0
                    poller.register(channels.capture, zmq.POLLIN)
            if self._write_at is not None and self._write_at <= time.monotonic():
                self._write_at = None
                self.supervisor.write(now)
            if self.supervisor.end is not agent or agent_flags != self._agent_flags():
                if agent is not None:
                    poller.unregister(agent)
                agent, agent_flags = self.supervisor.end, self._agent_flags()
                if agent is not None:
                    poller.register(agent, agent_flags)
            ready = dict(poller.poll(self._timeout_ms(now, paused_until)))
            now = time.monotonic()
            if self._wakeup.fileno() in ready and self._signalled(now):
                break
            if self._restart is not None and self._go_on_restarting(ready, now):
                break
            for channel, (front, back) in channels.routes.items():
                if back in ready:
                    for said in receive(back):
                        frames = self.intercept.address(channel, said)
                        front.send_multipart(frames)  # what the child says always passes: first of all
                        self._do(self.intercept.receive_child(channel, frames, now))
                if front in ready:
                    for frames in receive(front):
                        self._receive_front(back, channel, frames, now)
            if channels.capture in ready:
                copies = receive(channels.capture)
                self._captured(copies, now)
                if now - flood_since > FLOOD_S:
                    flood_since, flood_count = now, 0
                flood_count += len(copies)
                if flood_count >= FLOOD_COUNT:
                    paused_until = now + FLOOD_S
                    poller.unregister(channels.capture)
            if channels.stdin_tap in ready:
                for frames in receive(channels.stdin_tap):
                    self.spool.tap(time.time(), Channel.STDIN, Way.TO_FRONT, frames)
                    self._write_soon(0.0)
                receive(channels.answers)  # what the agent is asked: it has the copy
            if self._ipc_until is not None and channels.iopub_link in ready:
                self._reached()
            if not self._gate_open and self._restart is None and self._ipc_until is None:
                if channels.iopub_link in ready and receive(channels.iopub_link):
                    self._gate_at = self._gate_at or now + (GREETED_S if self._greets else GATE_S)
                if self._welcomed or self.intercept.session or (self._gate_at is not None and self._gate_at <= now):
                    self._open_gate(now)
            if agent is not None and agent.fileno() in ready:
                for record in self.supervisor.read(now):
                    self._agent_said(record, now)
                if self.supervisor.pending and self._write_at is None:
                    self._write_at = now  # it has just become ready, or takes more
            # Last, with the time at which we looked: what was there by then has been read, however late we were.
            self._do_what_is_due(now)
        self._end()

    def _receive_front(self, back: zmq.Socket[bytes], channel: Channel, frames: list[bytes], now: float) -> None:
        passes = self.intercept.passes(channel, frames)
        if passes:
            back.send_multipart(frames)
        self._do(self.intercept.receive_front(channel, frames, now, sent=passes))

    def _open_gate(self, now: float) -> None:
        """The child is there: what waits for it may go."""
        import zmq

        if self._ipc_over:  # else it may have ended for another reason
            self._ipc_over = False
            self.launch.note_fallen_back()
        if self._to_write:  # who finds the file finds a kernel, and a heart that beats
            self._to_write = False
            self.front.write()
        self._gate_open = True
        self._former_session = None
        self._agent_at = min(self._agent_at, now + AGENT_AFTER_S)
        self._poller.unregister(self.channels.iopub_link)
        for front, _ in self.channels.routes.values():
            self._poller.register(front, zmq.POLLIN)
        while self._submitted:
            self._submit(*self._submitted.popleft(), now)

    def _close_gate(self) -> None:
        """There will be another child: what frontends send waits in their sockets."""
        self._gate_open, self._gate_at = False, None
        for front, _ in self.channels.routes.values():
            self._poller.unregister(front)

    def _agent_flags(self) -> int:
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.supervisor.blocked else 0)

    def _timeout_ms(self, now: float, paused_until: float) -> int | None:
        times = [
            paused_until or None,
            self._write_at,
            self.intercept.deadline,
            self._gate_at if not self._gate_open else None,
            self._ipc_until,
            None if self._restart is None else self._restart.deadline,
            *self._forward_at.values(),
        ]
        if self._has_agent and self._ipc_until is None:
            due = self.supervisor.deadline
            times.append(None if due is None else max(due, self._agent_at))
        if self._parent_pid:
            times.append(now + PARENT_POLL_S)
        known = [at for at in times if at is not None]
        return max(0, math.ceil((min(known) - now) * 1000)) if known else None

    def _do_what_is_due(self, now: float) -> None:
        deadline = self.intercept.deadline
        if deadline is not None and deadline <= now:
            self._do(self.intercept.receive_time(now))
            self.supervisor.give_up_since(now - self.settings.magic_timeout_s, now)
        for number in [number for number, at in self._forward_at.items() if at <= now]:
            del self._forward_at[number]
            self.child.signal(number)
        if self._ipc_until is not None and self._ipc_until <= now:
            self._ipc_until, self._ipc_over = now + self.settings.ipc_wait_s, True
            self.child.kill()  # what follows is that of its end
        reached = self._ipc_until is None
        if self._has_agent and reached and now >= self._agent_at and self.supervisor.keep(now):
            self._write_at = now  # it waits for our hello
            self._submitted.clear()  # of the agent before: its hello says that they were not sent
            if self.supervisor.starts_count > 1:
                self._do(self.intercept.receive_comms_lost())
        if self._parent_pid and os.getppid() != self._parent_pid:  # as ipykernel: nobody is there any more
            if self._restart is not None:
                self._restart.cancelled = True
            self._ending = True
            self.child.end(END_GRACE_S)
            self._parent_pid = 0

    def _do(self, commands: Iterable[Command]) -> None:
        from . import intercept as room

        for command in commands:
            match command:
                case room.ToChild(channel, frames):
                    self.channels.send_child(channel, frames)
                case room.ToFront(channel, frames):
                    self.channels.send_front(channel, frames)
                case room.Publish(frames):
                    self.channels.publish(frames)
                case room.Tap(channel, way, frames):
                    if self._has_agent:
                        self.spool.tap(time.time(), channel, way, frames)
                        # a request goes at once: its row is made while the kernel works
                        self._write_soon(0.0 if way is Way.TO_CHILD else TAP_DELAY_S)
                case room.AskAgent(ask_id, info, deadline):
                    self.supervisor.say(link.Ask(ask_id, info), deadline)
                    self._write_soon(0.0)
                case room.TakeComm(frames):
                    self.supervisor.say(link.Taken(tuple(frames)))
                    self._write_soon(0.0)
                case room.Interrupt():
                    self._interrupt()
                case _:
                    assert_never(command)

    def _captured(self, messages: list[list[bytes]], now: float) -> None:
        """Copies of what passed on iopub, both ways, in the order in which it passed."""
        at = time.time()
        for frames in messages:
            if len(frames) == 1:
                if frames[0][:1] == b"\x01":
                    self._subscribed(frames[0][1:])
                continue
            if self._has_agent:
                self.spool.tap(at, Channel.IOPUB, Way.TO_FRONT, frames)
                self._write_soon(TAP_DELAY_S if frames[0].endswith(_NO_OUTPUT) else 0.0)
            room = self.intercept
            unknown = not room.session or room.is_ipykernel is None
            if unknown or room.holding or (not self._welcomed and self._subscribers):
                self._look_at(frames, now)

    def _write_soon(self, delay_s: float) -> None:
        at = time.monotonic() + delay_s
        if self._write_at is None or at < self._write_at:
            self._write_at = at

    def _look_at(self, frames: list[bytes], now: float) -> None:
        """What the relay itself must know of the child's iopub: its session, its welcome, an idle."""
        from ..wire import parse, split

        try:
            parts = split(frames)
            header = parse(parts.header)
            if self._former_session and header.get("session") == self._former_session:
                return  # late, of the child before this one; or ours, in its name
            if not self.intercept.session:
                self._do(self.intercept.receive_session(header, now))
            if header.get("msg_type") == "status":
                self.intercept.receive_status_topic(parts.idents[0] if parts.idents else b"")
            if header.get("msg_type") == "iopub_welcome":
                self._greets = self._greets or not self._welcomed  # ours come when it is
                self._welcomed = True  # it went to everybody who had subscribed before
                self._subscribers.clear()
            elif not self._welcomed:
                self._welcomed = True  # a kernel that sends none
                self._welcome(self._subscribers)
                self._subscribers = []
            if self.intercept.holding and b'"idle"' in parts.content:
                self._do(self.intercept.receive_idle(str(parse(parts.parent).get("msg_id")), now))
        except RemoteError:
            return

    def _subscribed(self, topic: bytes) -> None:
        if self._welcomed:
            self._welcome([topic])
        else:
            self._subscribers.append(topic)

    def _welcome(self, topics: Iterable[bytes]) -> None:
        """Send ``iopub_welcome`` (JEP 65): the child's own went out when we subscribed."""
        from ..wire import new_header

        for topic in topics:
            header = new_header("iopub_welcome", session=self.intercept.session, username=self.intercept.username)
            content = {"subscription": topic.decode("utf-8", "replace")}
            self.channels.publish(self.codec.write(header, content, idents=[topic]))

    def _agent_said(self, record: link.Record, now: float) -> None:
        match record:
            case link.Answer(ask_id, info):
                self._do(self.intercept.receive_answer(ask_id, info, now))
            case link.Emit(Channel.IOPUB, frames):
                self.channels.publish(frames)
            case link.Emit(channel, frames):
                self.channels.send_front(channel, frames)
            case link.Act({"action": "signal-seen", "signal": int(number)}):
                # the group got it, so the child did; the agent may be quicker than our own handler
                # (between fork and exec a child only looks as if it did)
                fresh = number in ENDING_SIGNALS and now - self._child_at < SIGNAL_GRACE_S
                if not fresh and self._forward_at.pop(number, None) is None:
                    self._seen_at[number] = now
            case link.Submit(Channel.SHELL | Channel.CONTROL as channel, frames):
                if self._gate_open:
                    self._submit(channel, list(frames), now)
                else:
                    self._submitted.append((channel, list(frames)))
            case link.Submit(Channel.STDIN, (link.AGENT_IDENT, *frames)):
                if self._gate_open:  # else who has asked is gone
                    self.channels.answer(frames)
            case link.Act({"action": "interrupt"}):
                if self._gate_open:  # else nothing runs, and what is starting would die of it
                    self._interrupt()
            case link.Act({"action": "restart"}):
                if self._gate_open:  # else it is under way
                    self._begin_restart(now)
            case _:
                print(f"rtc_kernel: the agent sent a {type(record).__name__}", file=sys.stderr)

    def _submit(self, channel: Channel, frames: list[bytes], now: float) -> None:
        """A message of the agent's, in order with those of the frontends."""
        self._receive_front(self.channels.routes[channel][1], channel, frames, now)

    def _interrupt(self) -> None:
        if self.launch.spec.interrupt_mode == "message":
            self._do([self.intercept.request("interrupt_request", {})])
            return
        if child_room.leads_group():
            self._seen_at[signal.SIGINT] = time.monotonic()  # the group gets it from us: nobody has to tell
        self.child.interrupt()

    # --- restart -----------------------------------------------------------------------------------------------

    def _begin_restart(self, now: float) -> None:
        self._close_gate()
        self._restart = _Restart(now + RESTART_GRACE_S)
        self._do(self.intercept.receive_restart())

    def _go_on_restarting(self, ready: dict[Any, int], now: float) -> bool:
        """Do what is next; whether we must end, because no other child will follow."""
        from .channels import receive

        restart = self._restart
        if restart is None:
            return False
        if restart.gone_at is None or restart.quiet_at is None:
            if restart.kill_at is not None and restart.kill_at <= now:
                restart.kill_at = None
                self.child.kill()
            return False
        said = self.channels.capture in ready or any(back in ready for _, back in self.channels.routes.values())
        if not said and restart.quiet_at <= now:  # a flood is fetched now and then only
            copies = receive(self.channels.capture)
            self._captured(copies, now)
            said = bool(copies)
        if said:
            restart.quiet_at = min(now + DRAIN_QUIET_S, restart.gone_at + DRAIN_MAX_S)
        if now < restart.quiet_at:
            return False
        if restart.cancelled:
            return True
        if not restart.answered:
            restart.answered = True
            restart.gone_at, restart.quiet_at = now, now + DRAIN_QUIET_S  # until these, too, have passed
            self.spool.turn(time.time(), "restarting", self.child.pid, self.child.exit_code)
            self._former_session, self._welcomed = self.intercept.session or None, False
            self._do(self.intercept.receive_exit())
            self.supervisor.recall()  # what waits to be asked was answered so
            self._write_soon(0.0)
            return False
        return not self._start_again()

    def _start_again(self) -> bool:
        """Start another child where the one before was; whether it could be started."""
        import zmq

        from .channels import receive

        self._restart = None
        for _, back in self.channels.routes.values():
            self._poller.unregister(back)
        self.channels.renew()
        for _, back in self.channels.routes.values():
            self._poller.register(back, zmq.POLLIN)
        receive(self.channels.iopub_link)  # what was before does not open the gate
        self._poller.register(self.channels.iopub_link, zmq.POLLIN)
        self._forward_at.clear()
        if not self._start_child():
            return False
        self.spool.turn(time.time(), "started", self.child.pid)
        self._write_soon(0.0)
        return True

    def _start_child(self) -> bool:
        """Start a child in the place of the one before; whether it could be started."""
        try:
            self.child.start()
        except SetupError as exc:
            print(f"rtc_kernel: {exc}", file=sys.stderr)
            self._exit_code = exc.exit_code
            return False
        self._child_at = time.monotonic()
        return True

    # --- signals and the end -----------------------------------------------------------------------------------

    def _signalled(self, now: float) -> bool:
        """Deal with the signals that came; whether the child is gone."""
        try:
            numbers = set(self._wakeup.recv(4096))
        except BlockingIOError:
            numbers = set()
        for number in numbers & GROUP_SIGNALS:
            if now - self._seen_at.pop(number, -math.inf) < SIGNAL_GRACE_S:
                continue  # the agent has told already
            # A signal to the group reached the child too; one to our pid alone did not. The agent, in the same
            # group, tells which it was; while it starts, a signal twice is better than none. Where there is no
            # agent, and we lead a group, it was the group: only what ends a kernel is sent on all the same.
            ends = number in ENDING_SIGNALS
            self._ending = self._ending or ends
            if ends and self._restart is not None:
                self._restart.cancelled = True
            if self._has_agent or ends or not child_room.leads_group():
                self._forward_at[number] = now + SIGNAL_GRACE_S
        self.supervisor.reap(now)
        if self.child.exit_code is None:
            return False
        if self._restart is not None and self._restart.gone_at is None:
            self._restart.gone_at, self._restart.quiet_at = now, now + DRAIN_QUIET_S
        if self._ipc_until is not None and not self._ending:
            meant = self._ipc_over or self.child.exit_code not in _ENDED
            return not (meant and self._fall_back())
        return self._restart is None

    def _fall_back(self) -> bool:
        """The child has ended, and had not opened its ipc sockets: start it over TCP; whether it could be started."""
        import zmq

        if self._ipc_over:
            why = f"did not open its ipc sockets within {self.settings.ipc_wait_s:g} s"
        else:
            why = f"ended (code {self.child.exit_code}) without opening its ipc sockets"
        self._ipc_over = True
        for polled in (self.channels.iopub_link, *(back for _, back in self.channels.routes.values())):
            self._poller.unregister(polled)
        self.launch.fall_back(why)
        self.back = self.launch.back
        self.channels.reach_instead(self.back)
        for polled in (self.channels.iopub_link, *(back for _, back in self.channels.routes.values())):
            self._poller.register(polled, zmq.POLLIN)
        if not self._start_child():
            return False
        self._reached()
        return True

    def _end(self) -> None:
        from .channels import receive

        exit_code = self.child.exit_code if self._exit_code is None else self._exit_code
        exit_code = 1 if exit_code is None else exit_code
        started = quiet_since = time.monotonic()
        while (now := time.monotonic()) - quiet_since < DRAIN_QUIET_S and now - started < DRAIN_MAX_S:
            seen = False
            for channel, (front, back) in self.channels.routes.items():
                for said in receive(back):
                    frames = self.intercept.address(channel, said)
                    front.send_multipart(frames)
                    self._do(self.intercept.receive_child(channel, frames, now))
                    seen = True
            if messages := receive(self.channels.capture, 10_000):
                self._captured(messages, now)
                seen = True
            if seen:
                quiet_since = now
            self.channels.capture.poll(5)
        if self._ipc_until is not None:
            self.spool.turn(time.time(), "started", self.child.pid)
        self.spool.turn(time.time(), "exited", self.child.pid, exit_code)
        if self._has_agent:
            self.supervisor.close(AGENT_END_S)
        self.channels.close()
        with contextlib.suppress(OSError):
            connections.discard(self.back)
        leave_as(exit_code)
