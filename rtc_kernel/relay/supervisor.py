"""The agent's life: is it there, and what do we say to each other?

Door (subprocess, sockets). Owns the agent's process and our end of the link. If the agent dies it is started again:
at once the first time, then with growing pauses; meanwhile the :class:`Spool` keeps what passes. The agent gets
SIGINT and its like with the group and ignores them; at our end it sees the link close, stores what it has, and goes.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .. import link
from ..errors import RemoteError
from .child import GROUP_SIGNALS
from .spool import Spool

CHUNK_BYTES = 1 << 18
"""How much goes to the agent in one call."""

PAUSES_S = (0.0, 0.2, 1.0, 5.0, 30.0)
"""Pauses before the agent is started again; the last one repeats."""

RETURN_S = 3.0
"""How long the end of the kernel waits for an agent that is away while records are not stored. Seconds."""

PROGRAM = (sys.executable, *(("-P",) if sys.flags.safe_path else ()), "-m", "rtc_kernel.agent")
"""How the agent is started: of the same package as we."""

START_S = 60.0
"""How long an agent may take to come up: it has the lowest rank on a machine that is full. Seconds."""

STEADY_S = 30.0
"""An agent that lived this long has earned a fresh start of the pauses."""

_Waiting = tuple[float, bytes]
"""A record, and until when it waits for an agent (monotonic seconds); 0: for the one that there is."""


class Supervisor:
    """Keeps the agent alive and the link to it full.

    Args:
        spool: what the agent must get.
        hello: makes :class:`link.Hello`'s ``info`` for a new agent.
        argv: the agent's arguments (settings).
    """

    def __init__(self, spool: Spool, hello: Callable[[], dict[str, Any]], argv: Sequence[str]) -> None:
        self.spool = spool
        self.starts_count = 0
        self.heard_at = 0.0  # when the agent last said something (monotonic seconds)
        self.ready = False  # the agent has said what it has; the spool may flow
        self._hello = hello
        self._argv = list(argv)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._decoder = link.Decoder()
        self._unnumbered: deque[_Waiting] = deque()  # behind what was tapped before them
        self._leaving: list[_Waiting] = []  # those of them in ``_partial`` while nothing of that was sent
        self._partial = memoryview(b"")
        self._start_at: float | None = 0.0  # when to start the next agent (monotonic seconds)
        self._started_at = 0.0
        self._pause = 0

    def __repr__(self) -> str:
        state = "ready" if self.ready else "starting" if self._process else "away"
        return f"<Supervisor {state}, {self.starts_count} starts, {self.spool!r}>"

    @property
    def end(self) -> socket.socket | None:
        """Our end of the link, to be polled; None while the agent is away."""
        return self._socket

    @property
    def blocked(self) -> bool:
        """Whether the agent does not take more now, so that the socket is to be polled for writing too."""
        return bool(self._partial)

    @property
    def pending(self) -> bool:
        """Whether there is something to write."""
        return bool(self._partial or (self.ready and (self._unnumbered or self.spool.pending)))

    @property
    def deadline(self) -> float | None:
        """When :meth:`keep` wants to be called (monotonic seconds); None while the agent lives."""
        return self._start_at

    def keep(self, now: float) -> bool:
        """Start the agent if it is time. Returns whether one was started."""
        if self._start_at is None or now < self._start_at:
            return False
        self._start_at = None
        self._started_at = now
        self._start()
        return True

    def say(self, record: link.Record, until: float = 0.0) -> None:
        """Send a record that is not part of the history, behind what was tapped before. It is dropped without an agent,
        and lost with it; one with ``until`` (monotonic seconds) waits so long for an agent to whom it can be sent."""
        if self._socket is not None or until:
            self._unnumbered.append((until, link.encode(record)))

    def recall(self) -> None:
        """What waits for an agent to whom it can be sent is not to be sent any more."""
        self._unnumbered = deque(one for one in self._unnumbered if not one[0])

    def write(self, now: float) -> None:
        """Send as much as the agent takes, without waiting. Before it is ready that is our hello alone: who asks it
        something asks of what was tapped before."""
        while self._socket is not None:
            if not self._partial:
                if not self.ready:
                    return
                data = self.spool.read(CHUNK_BYTES)
                if not self.spool.pending:
                    self._leaving = [(until, record) for until, record in self._unnumbered if not 0 < until <= now]
                    data += b"".join(record for _, record in self._leaving)
                    self._unnumbered.clear()
                if not data:
                    return
                self._partial = memoryview(data)
            try:
                sent = self._socket.send(self._partial)
            except BlockingIOError:
                return
            except OSError:
                self._lost(now)
                return
            self._partial = self._partial[sent:]
            self._leaving.clear()  # who gets a part of it may have got all

    def read(self, now: float) -> list[link.Record]:
        """What the agent has said, without waiting. Readiness and acknowledgements are dealt with here."""
        records: list[link.Record] = []
        while self._socket is not None:
            try:
                data = self._socket.recv(CHUNK_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._lost(now)
                break
            self.heard_at = now
            try:
                records += [record for record in self._decoder.feed(data) if not self._dealt_with(record)]
            except RemoteError as exc:
                print(f"rtc_kernel: the agent sent {exc}; it is restarted", file=sys.stderr)
                self._lost(now)
        return records

    def give_up_since(self, asked_at: float, now: float) -> None:
        """Nothing was heard since ``asked_at``, although something was asked: end the agent, and start another. One
        that has not come up yet is no reason to begin anew, before :data:`START_S`."""
        hangs = self.heard_at < asked_at if self.ready else now - self._started_at >= START_S
        if self._process is not None and hangs:
            self._lost(now)

    def reap(self, now: float) -> None:
        """Notice that the agent's process ended (its socket usually says so first)."""
        if self._process is not None and self._process.poll() is not None:
            self._lost(now)

    def close(self, timeout_s: float) -> None:
        """Let the agent have everything, and wait until it has stored it and gone; at most ``timeout_s``. One that is
        away or has only just been started gets ``RETURN_S`` to be ready, and one that dies of it a successor."""
        for _ in range(2):
            self._return()
            self._start_at = None
            if self._process is None or self._socket is None or self._hand_over(timeout_s):
                return
            self._lost(time.monotonic())

    def _return(self) -> None:
        """Have an agent that is ready, where there is something that none has stored."""
        deadline, starts = time.monotonic() + RETURN_S, self.starts_count
        while not self.ready and self.spool.size_bytes and (left_s := deadline - time.monotonic()) > 0:
            if self._socket is None and self.starts_count < starts + 2:
                self._start()
            self.write(time.monotonic())
            if self._socket is None:
                return
            select.select([self._socket], [], [], left_s)
            self.read(time.monotonic())

    def _hand_over(self, timeout_s: float) -> bool:
        """Say all that is left to say, and wait; False: the agent died."""
        process, end = self._process, self._socket
        if process is None or end is None:
            return False
        with contextlib.suppress(OSError):
            end.setblocking(True)
            end.settimeout(timeout_s)
            rest = self.spool.read(1 << 62) + b"".join(record for _, record in self._unnumbered) if self.ready else b""
            end.sendall(bytes(self._partial) + rest)
            end.shutdown(socket.SHUT_WR)
        try:
            has_died = process.wait(timeout_s) != 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            has_died = False
        if not has_died:
            end.close()
            self._socket = self._process = None
        return not has_died

    def _dealt_with(self, record: link.Record) -> bool:
        match record:
            case link.Ready(relay_id, seq):
                self.spool.rewind()
                if relay_id:
                    self.spool.acknowledge(seq)
                self.ready = True
            case link.Ack(seq):
                self.spool.acknowledge(seq)
            case _:
                return False
        return True

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = self._spawn(theirs)
        except OSError as exc:
            print(f"rtc_kernel: the agent cannot be started ({exc}); the kernel runs on", file=sys.stderr)
            ours.close()
            self._after_loss(self._started_at)
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours
        self._decoder = link.Decoder()
        self.starts_count += 1
        self._partial = memoryview(link.encode(link.Hello(self._hello())))

    def _spawn(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        argv = [*PROGRAM, "--link"]
        if sys.platform == "win32":  # untested here: a socket travels as bytes on stdin
            process = subprocess.Popen([*argv, "-", *self._argv], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            if process.stdin is not None:
                process.stdin.write(theirs.share(process.pid))
                process.stdin.close()
            return process
        number = theirs.fileno()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)  # until the agent deals with them
        try:
            return subprocess.Popen(
                [*argv, str(number), *self._argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[number],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _lost(self, now: float) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            self._process = None
        self._unnumbered = deque(one for one in (*self._leaving, *self._unnumbered) if one[0])
        self._leaving = []
        self._partial = memoryview(b"")
        self._after_loss(now)

    def _after_loss(self, now: float) -> None:
        self.ready = False
        if now - self._started_at >= STEADY_S:
            self._pause = 0
        self._start_at = now + PAUSES_S[min(self._pause, len(PAUSES_S) - 1)]
        self._pause += 1
