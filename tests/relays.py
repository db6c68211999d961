"""Relays for tests: the real one of ``examples/relay``, and a small one that behaves as badly as one wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import nbformat
from conftest import wait_until
from kernels import Gate
from tools import node_lacks
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from benchmarks.ports import free_ports
from rtc_kernel import hocuspocus, yproto

RELAY = Path(__file__).parent.parent / "examples" / "relay"
NODE = RELAY / "node_modules" / ".bin" / "node"
LACKS = node_lacks("npm", RELAY, "@hocuspocus/server") or ("" if NODE.exists() else f"{NODE} is missing")
LACKS_REDIS = LACKS or ("" if shutil.which("redis-server") else "redis-server is not installed")

PUBLISH, VIEW, RUN, BOB, OTHER = (f"{name}-0123456789abcdef" for name in ("publish", "view", "run", "bob", "other"))
TOKENS = {
    PUBLISH: {"name": "kernels", "role": "publish", "rooms": "*"},
    VIEW: {"name": "viewers", "role": "view", "rooms": "*"},
    RUN: {"name": "ada", "role": "run", "rooms": "*"},
    BOB: {"name": "bob", "role": "run", "rooms": "*"},
    OTHER: {"name": "elsewhere", "role": "publish", "rooms": ["another"]},
}


class Relay:
    """One instance of Hocuspocus, which may be killed and started again at the same place."""

    def __init__(self, home: Path, redis_port: int | None = None) -> None:
        (self.port,) = free_ports(1)
        self.url = f"ws://127.0.0.1:{self.port}"
        self._tokens = home / "tokens.json"
        self._tokens.write_text(json.dumps(TOKENS))
        self._log = home / f"relay-{self.port}.log"
        self._redis = [] if redis_port is None else ["--redis", f"127.0.0.1:{redis_port}"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [str(NODE), str(RELAY / "server.mjs"), "--tokens", str(self._tokens), "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*argv, *self._redis], stdout=log, stderr=log)
        wait_until(self._is_up, "the relay listens", 60)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None


@contextmanager
def hocuspocus_relay(home: Path, redis_port: int | None = None) -> Iterator[Relay]:
    """One instance, started."""
    relay = Relay(home, redis_port)
    try:
        relay.start()
        yield relay
    finally:
        relay.kill()


@contextmanager
def redis(home: Path) -> Iterator[int]:
    """A Redis of our own; its port."""
    (port,) = free_ports(1)
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (home / "redis.log").open("wb") as log, subprocess.Popen([*argv, "--dir", str(home)], stdout=log) as process:

        def is_up() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            return False

        try:
            wait_until(is_up, "redis listens", 30)
            yield port
        finally:
            process.terminate()


class HeadlessRun:
    """``jupyter rtc run`` of a notebook that is published in a room; its last cell waits for a file."""

    def __init__(self, home: Path, name: str, link: str, *codes: str) -> None:
        self.gate = Gate(home / f"{name}.gate")
        last = f"{self.gate.code}print({name!r}, 'ends')"
        cells = [nbformat.v4.new_code_cell(code) for code in (*codes, last)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), home / f"{name}.ipynb")
        url, _, room = link.rpartition("/")
        argv = [sys.executable, "-m", "rtc_kernel.cli", "run", f"{name}.ipynb", "--relay", url, "--room", room]
        env = {**os.environ, "RTC_KERNEL_RELAY_TOKEN": PUBLISH}
        self.process = subprocess.Popen(argv, cwd=home, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def finish(self) -> None:
        """Let it run to its end."""
        self.gate.open()
        assert self.process.wait(60) == 0

    def end(self) -> None:
        """Whatever it does. It is not interrupted where it may end by itself: between two things of ipykernel's, an
        interrupt takes its reply away, and it would be waited for."""
        self.gate.open()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


# --- a relay that behaves as it is told -------------------------------------------------------------------------

Behaviour = Callable[["Line", str, Any], None]


class Line:
    """One connection to the small relay."""

    def __init__(self, handler: WebSocketHandler, relay: SmallRelay) -> None:
        self._handler = handler
        self.relay = relay

    def say(self, name: str, message: bytes) -> None:
        self.say_bytes(hocuspocus.frame(name, message))

    def say_bytes(self, data: bytes) -> None:
        with contextlib.suppress(WebSocketClosedError):
            self._handler.write_message(data, binary=True)

    def grant(self, name: str, scope: str = "read-write") -> None:
        self.say(name, b"\x02\x02" + yproto.write_string(scope))

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._handler.close(code, reason)


def behave(line: Line, name: str, message: Any) -> None:
    """As a relay that keeps nothing: lets everybody in, asks for everything, acknowledges."""
    match message:
        case hocuspocus.Asked():  # a token
            line.grant(name)
        case yproto.Step1():
            line.say(name, yproto.step1(b"\x00"))
            line.say(name, yproto.step2(yproto.EMPTY_UPDATE))
        case yproto.Step2() | yproto.Update():
            line.say(name, b"\x08\x01")
        case _:
            pass


class SmallRelay:
    """What came, and what is done about it."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.url = ""
        self.heard: list[tuple[str, Any]] = []
        self.lines: list[Line] = []


@asynccontextmanager
async def small_relay(behaviour: Behaviour = behave) -> AsyncIterator[SmallRelay]:
    """A relay in this loop; ``behaviour(line, name, message)`` is called for each message."""
    relay = SmallRelay(behaviour)

    class Handler(WebSocketHandler):
        def open(self, *_: str) -> None:
            relay.lines.append(Line(self, relay))

        def on_message(self, data: str | bytes) -> None:
            assert isinstance(data, bytes)
            name, message = hocuspocus.read_frame(data)
            relay.heard.append((name, message))
            line = next(one for one in relay.lines if one._handler is self)
            relay.behaviour(line, name, message)

    listener, port = bind_unused_port()
    server = HTTPServer(Application([(r"/", Handler)]))
    server.add_socket(listener)
    relay.url = f"ws://127.0.0.1:{port}"
    try:
        yield relay
    finally:
        server.stop()
        for line in relay.lines:
            line.close()
        await server.close_all_connections()
        await asyncio.sleep(0)
