"""The sockets: how do five channels reach the child and come back, and where can we listen and speak?

Door (zmq). Owns the sockets of the relay and the threads that move frames inside libzmq.

::

    front                                         back
    XPUB  ◄── zmq.proxy, C ──────────────────── XSUB ◄─ child's iopub
                    │ capture (PAIR) ─► loop      ▲ inject (PUB) ◄─ loop
    ROUTER ◄─ a thread ───────────────────────► DEALER  stdin      (what the child asks is copied; what is
      ▲ answers (DEALER) ◄─ loop                                    typed never leaves that thread)
    ROUTER ◄─ zmq.proxy, C ───────────────────► DEALER  heartbeat
    ROUTER ◄─ loop ───────────────────────────► DEALER  shell, control

Facts this stands on (libzmq 4.3, measured):

* the back XSUB subscribes to everything before any frontend does, or the mirror would see nothing until one
  attaches. It reaches the inject socket too, which so becomes part of the one iopub stream;
* shell, control and stdin toward the child share one routing id: a kernel sends an input_request on stdin to the
  identity that asked on shell;
* a capture socket with a high-water mark stalls the whole proxy (PAIR, PUSH) or drops (PUB): it has none;
* inside the process there is no CurveZMQ: the agent's answers reach an encrypted front's stdin as they are;
* a DEALER keeps what it could not send for whoever binds its endpoint next. A child that replaces another one gets
  new sockets on shell and control, so that nothing meant for the old one reaches it; the others connect again by
  themselves, and an XSUB subscribes again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import chain

import zmq

from ..errors import SetupError
from ..link import AGENT_IDENT, Channel
from ..wire import DELIMITER
from .connection import PORT_NAMES, Connection

RECONNECT_MS = 5
"""The child binds late; a client that retries every 100 ms would make every start slower."""

LINGER_MS = 1000
"""How long what was sent may still leave after closing, as in ipykernel."""

FRONT_IOPUB_HWM = 100_000
"""Messages kept for a frontend that does not read; libzmq drops what comes beyond. (A kernel keeps 1000.)"""

BIND_TRIES_S = 5.0
"""A restarted kernel gets the ports of one that may still be closing them."""

NOTED_S = 0.05
"""A kernel's question may be quicker than the loop's note of whose code it is. Seconds."""

_BATCH = 500

Route = tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]
"""The two sockets of a channel: front, back."""

Address = Callable[[Channel, list[bytes]], list[bytes]]
"""The frames of a message from the child, with those in front that name the client, whoever has put them there."""


class Channels:
    """The sockets between frontends and child.

    Args:
        front: where to bind. Ports that are 0 are chosen here; :attr:`front` then has them.
        back: the child's endpoints, to connect to.
        address: says whom the child asks on stdin; called in a thread, and not before the child can have been sent
            anything.
    """

    def __init__(self, front: Connection, back: Connection, address: Address = lambda _, frames: frames) -> None:
        self.front = front
        self.back = back
        self._address = address
        self.context = zmq.Context()
        self._threads: list[threading.Thread] = []
        self._identity = os.urandom(8).hex().encode()
        self._front: dict[str, zmq.Socket[bytes]] = {}
        self._back: dict[str, zmq.Socket[bytes]] = {}  # of the channels that have a thread
        self._capture: zmq.Socket[bytes]  # the thread's end
        self._stdin_copy: zmq.Socket[bytes]
        self.routes: dict[Channel, Route] = {}  # what the loop moves, the urgent first
        self.capture: zmq.Socket[bytes]
        self.stdin_tap: zmq.Socket[bytes]
        self.answers: zmq.Socket[bytes]
        self.inject: zmq.Socket[bytes]
        self.iopub_link: zmq.Socket[bytes]

    def open(self) -> None:
        """Bind the front, connect the back; :meth:`start` comes next.

        Raises:
            SetupError: a port of the connection file is taken.
        """
        ports: dict[str, int] = {}
        kinds = dict.fromkeys(PORT_NAMES, zmq.ROUTER) | {"iopub_port": zmq.XPUB}
        for name in PORT_NAMES:
            self._front[name], ports[name] = self._bind(kinds[name], name)
        self.front = self.front.with_ports(ports)

        self._capture, self.capture = self._pair("capture")
        self.inject = self._make(zmq.PUB)
        self.inject.bind("inproc://inject")
        self._stdin_copy = self._make(zmq.PUB)
        self._stdin_copy.bind("inproc://stdin")
        self.stdin_tap = self._make(zmq.SUB)
        self.stdin_tap.connect("inproc://stdin")
        self.stdin_tap.subscribe(b"")
        self._front["stdin_port"].bind("inproc://answers")
        self.answers = self._make(zmq.DEALER, AGENT_IDENT)
        self.answers.connect("inproc://answers")
        self._reach()

    def _reach(self) -> None:
        """Connect the back."""
        iopub = self._back["iopub_port"] = self._make(zmq.XSUB)
        self.iopub_link = iopub.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CONNECTED)
        iopub.connect("inproc://inject")
        iopub.connect(self.back.url("iopub_port"))
        iopub.send(b"\x01")
        self._back["stdin_port"] = self._connect("stdin_port")
        self._back["hb_port"] = self._make(zmq.DEALER)
        self._back["hb_port"].connect(self.back.url("hb_port"))
        for channel, name in ((Channel.CONTROL, "control_port"), (Channel.SHELL, "shell_port")):
            self.routes[channel] = (self._front[name], self._connect(name))

    def reach_instead(self, back: Connection) -> None:
        """The child is to be found elsewhere. Only before :meth:`start`: what was sent to the front stays there."""
        self._back["iopub_port"].disable_monitor()
        self.iopub_link.close()
        for socket in (*self._back.values(), *(back for _, back in self.routes.values())):
            socket.close()
        self.back = back
        self._reach()

    def start(self) -> None:
        """Start the threads: from now on what is said on iopub, stdin and heartbeat passes."""
        front, back = self._front, self._back
        self._run("iopub", zmq.proxy, front["iopub_port"], back["iopub_port"], self._capture)
        self._run("stdin", self._pass_stdin, front["stdin_port"], back["stdin_port"], self._stdin_copy)
        self._run("heartbeat", zmq.proxy, front["hb_port"], back["hb_port"])

    def renew(self) -> None:
        """Another child follows: what still waits on shell and control for the one before it is dropped."""
        for channel, (front, back) in self.routes.items():
            back.close()
            self.routes[channel] = (front, self._connect(f"{channel.name.lower()}_port"))

    def send_front(self, channel: Channel, frames: Sequence[bytes]) -> None:
        """Send on shell or control. A client that is gone is dropped by the ROUTER, as by a kernel's."""
        self.routes[channel][0].send_multipart(frames)

    def send_child(self, channel: Channel, frames: Sequence[bytes]) -> None:
        """Send on shell or control."""
        self.routes[channel][1].send_multipart(frames)

    def publish(self, frames: Sequence[bytes]) -> None:
        """Put a message into the iopub stream, in order with the child's."""
        self.inject.send_multipart(frames)

    def answer(self, frames: Sequence[bytes]) -> None:
        """Give the child an ``input_reply`` of the agent's: ``[DELIM, …]``."""
        self.answers.send_multipart(frames)

    def close(self) -> None:
        """Let what was sent leave (at most LINGER_MS), then end the threads and free the ports."""
        ours = [self.inject, self.capture, self.stdin_tap, self.answers, self.iopub_link]
        if not self._threads:
            ours += [*self._front.values(), *self._back.values(), self._capture, self._stdin_copy]
        for socket in chain(*self.routes.values(), ours):
            socket.close()
        self.context.term()  # wakes the threads, which close their sockets; waits for the last frames
        for thread in self._threads:
            thread.join()

    # --- making ------------------------------------------------------------------------------------------------

    def _make(self, kind: int, identity: bytes = b"") -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self.context.socket(kind)
        socket.linger = 0  # toward a child that is gone; the front's sockets linger
        socket.set_hwm(0)
        socket.reconnect_ivl = RECONNECT_MS
        if identity:
            socket.routing_id = identity
        return socket

    def _connect(self, name: str) -> zmq.Socket[bytes]:
        socket = self._make(zmq.DEALER, self._identity)
        socket.connect(self.back.url(name))
        return socket

    def _pair(self, name: str) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        one, other = self._make(zmq.PAIR), self._make(zmq.PAIR)
        one.bind(f"inproc://{name}")
        other.connect(f"inproc://{name}")
        return one, other

    def _bind(self, kind: int, name: str) -> tuple[zmq.Socket[bytes], int]:
        socket = self._make(kind)
        socket.linger = LINGER_MS
        if kind == zmq.ROUTER:
            socket.router_handover = 1
        else:
            socket.xpub_verbose = 1  # every subscriber is seen, so that each gets its welcome
            socket.sndhwm = FRONT_IOPUB_HWM
        if self.front.curve is not None:
            public, secret = self.front.curve
            socket.curve_server, socket.curve_publickey, socket.curve_secretkey = 1, public, secret
        url = self.front.url(name)
        if url.startswith("ipc:") or not url.endswith(":0"):
            self._bind_until(socket, url)
            return socket, int(self.front.info.get(name) or 0)
        return socket, socket.bind_to_random_port(url.removesuffix(":0"))

    def _bind_until(self, socket: zmq.Socket[bytes], url: str) -> None:
        pause = threading.Event()
        for _ in range(int(BIND_TRIES_S / 0.05)):
            try:
                socket.bind(url)
            except zmq.ZMQError as exc:
                if exc.errno != zmq.EADDRINUSE:
                    raise SetupError(f"{url} cannot be bound ({exc})", "start the kernel again") from exc
                pause.wait(0.05)
            else:
                return
        raise SetupError(f"{url} is taken by another process", "start the kernel again: it gets other ports")

    def _run(self, name: str, device: Callable[..., object], *sockets: zmq.Socket[bytes]) -> None:
        def run() -> None:
            try:
                device(*sockets)
            except zmq.ContextTerminated:
                pass
            finally:
                for socket in sockets:
                    socket.close()

        thread = threading.Thread(target=run, name=f"rtc-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _pass_stdin(self, front: zmq.Socket[bytes], back: zmq.Socket[bytes], copy: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(front, zmq.POLLIN)
        poller.register(back, zmq.POLLIN)
        pause = threading.Event()
        while True:
            ready = dict(poller.poll())
            if back in ready:
                for frames in receive(back):
                    asked = self._address(Channel.STDIN, frames)
                    if asked[0] == DELIMITER:
                        pause.wait(NOTED_S)
                        asked = self._address(Channel.STDIN, frames)
                    front.send_multipart(asked)
                    copy.send_multipart(asked)
            if front in ready:
                for frames in receive(front):
                    back.send_multipart(frames)


def receive(socket: zmq.Socket[bytes], limit: int = _BATCH) -> list[list[bytes]]:
    """What has arrived on a socket, without waiting, at most ``limit`` messages.

    A third cheaper than ``recv_multipart``, which asks the socket after each frame whether there are more.
    """
    messages: list[list[bytes]] = []
    receive_frame = socket.recv
    try:
        while len(messages) < limit:
            frame = receive_frame(zmq.NOBLOCK, copy=False)
            frames = [frame.bytes]
            while frame.more:
                frame = receive_frame(zmq.NOBLOCK, copy=False)
                frames.append(frame.bytes)
            messages.append(frames)
    except zmq.Again:
        pass
    return messages
