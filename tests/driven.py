"""A relay whose agent is the test: the stand-in agent gives its end of the link to the test's process.

Run as a program, this file is the relay (``relay …``: the real one, told to start the stand-in) or the stand-in
(``agent …``: it hands the link over and stays, because a process that ends is an agent that has died).
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from conftest import wait_until
from kernels import Message, Run, Running, gone, start

from rtc_kernel import link
from rtc_kernel.link import AGENT_IDENT, Channel, Way
from rtc_kernel.wire import Codec, new_header, parse, split

PLACE = "RTC_TEST_LINK"
"""The environment variable that says where the stand-in finds the test."""


class Agent:
    """The agent's side of one relay: what it has heard, and what it may say."""

    def __init__(self, place: str) -> None:
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(place)
        self._door.listen()
        self._socket: socket.socket | None = None
        self.heard: list[link.Record] = []
        self.hello: dict[str, Any] = {}
        self.codec: Codec
        self.pid = 0

    def meet(self, *, relay_id: str = "", seq: int = 0, timeout_s: float = 30.0) -> None:
        """Wait for an agent to be started, and be it."""
        if self._socket is not None:
            self._socket.close()
        self._door.settimeout(timeout_s)
        connection, _ = self._door.accept()
        with connection:
            data, ancillary, _, _ = connection.recvmsg(16, socket.CMSG_SPACE(4))
            self.pid = int(data)
            numbers = array.array("i", ancillary[0][2])
        self._socket = socket.socket(fileno=numbers[0])
        self._decoder = link.Decoder()
        self.heard.clear()
        self.wait(lambda: next((r for r in self.heard if isinstance(r, link.Hello)), None), "hello")
        self.hello = next(r.info for r in self.heard if isinstance(r, link.Hello))
        self.codec = Codec(self.hello["key"].encode(), self.hello["signature_scheme"])
        self.say(link.Ready(relay_id, seq))

    def die(self) -> None:
        """With both copies of its end: what is sent from then on reaches nobody."""
        assert self._socket is not None
        process = psutil.Process(self.pid)
        process.kill()
        wait_until(gone([process]), "the stand-in is gone")
        self._socket.close()
        self._socket = None

    def say(self, record: link.Record) -> None:
        assert self._socket is not None
        self._socket.setblocking(True)
        self._socket.sendall(link.encode(record))

    def submit(self, code: str, **content: Any) -> str:
        """Ask for an execution; its id."""
        body = {"code": code, "silent": False, "store_history": True, "allow_stdin": True, "stop_on_error": True}
        return self.request("execute_request", body | content)

    def request(self, msg_type: str, content: dict[str, Any], channel: Channel = Channel.SHELL) -> str:
        header = new_header(msg_type, session="agent", username="peer")
        self.say(link.Submit(channel, tuple(self.codec.write(header, content, idents=[AGENT_IDENT]))))
        return str(header["msg_id"])

    def act(self, action: str) -> None:
        self.say(link.Act({"action": action}))

    def listen(self) -> None:
        """Read what has come, without waiting."""
        assert self._socket is not None
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := self._socket.recv(1 << 16):
                self.heard += self._decoder.feed(data)

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
        """Listen until the condition gives something true; returns it."""
        assert self._socket is not None
        deadline = time.monotonic() + timeout_s
        while True:
            self.listen()
            value = condition()
            if value:
                return value
            left = deadline - time.monotonic()
            assert left > 0, f"after {timeout_s:g} s still not: {what}"
            select.select([self._socket], [], [], min(left, 0.05))

    # what was heard

    def messages(self, channel: Channel, way: Way = Way.TO_FRONT) -> list[Message]:
        found = []
        for record in self.heard:
            if isinstance(record, link.Tapped) and record.channel is channel and record.way is way:
                parts = split(record.frames)
                header = parse(parts.header)
                found.append(
                    {
                        "msg_type": header["msg_type"],
                        "header": header,
                        "parent_header": parse(parts.parent),
                        "content": parse(parts.content),
                        "idents": parts.idents,
                    }
                )
        return found

    def turns(self) -> list[tuple[str, int, int | None]]:
        """Of the child's life: event, pid, exit code."""
        return [(r.event, r.pid, r.exit_code) for r in self.heard if isinstance(r, link.Child)]

    def reply(self, msg_id: str, channel: Channel = Channel.SHELL) -> Message | None:
        return next((m for m in self.messages(channel) if m["parent_header"].get("msg_id") == msg_id), None)

    def finish(self, msg_id: str, timeout_s: float = 30.0) -> Run:
        """An execution as the tap shows it, when it has ended."""

        def ended() -> bool:
            states = [m["content"].get("execution_state") for m in self.published(msg_id)]
            return "idle" in states and self.reply(msg_id) is not None

        self.wait(ended, f"{msg_id} ended", timeout_s)
        reply = self.reply(msg_id)
        assert reply is not None
        return Run(reply, self.published(msg_id))

    def published(self, msg_id: str) -> list[Message]:
        return [m for m in self.messages(Channel.IOPUB) if m["parent_header"].get("msg_id") == msg_id]

    def question(self, msg_id: str) -> Message:
        """The input_request of an execution."""
        asked = self.wait(
            lambda: [m for m in self.messages(Channel.STDIN) if m["parent_header"]["msg_id"] == msg_id], "asked"
        )
        return asked[-1]  # type: ignore[no-any-return]

    def answer(self, value: str) -> None:
        self.request("input_reply", {"value": value, "status": "ok"}, Channel.STDIN)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._door.close()


class Driven(Running):
    """A kernel with one connected client, and with the test as its agent."""

    agent_side: Agent

    def child(self) -> psutil.Process:
        """The real kernel that runs now."""
        started = [pid for event, pid, _ in self.agent_side.turns() if event == "started"]
        return psutil.Process(started[-1] if started else self.agent_side.hello["child_pid"])


@contextlib.contextmanager
def drive(home: Path, *, kernel: str = "", **options: Any) -> Iterator[Driven]:
    """Start a relay and be its agent.

    Args:
        home: the test's Jupyter home.
        kernel: the kernelspec behind the relay.
    """
    argv = [sys.executable, __file__, "relay", *(["--kernel", kernel] if kernel else []), "-f", "{connection_file}"]
    write_spec(home, "rtc-driven", argv, metadata={"supported_encryption": "curve"})
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a Unix socket's path must be
        agent = Agent(f"{short}/link")
        options["env"] = {**os.environ, PLACE: f"{short}/link", **options.get("env", {})}
        try:
            with start("rtc-driven", **options) as running:
                driven = Driven(running.manager, running.client)
                driven.agent_side = agent
                agent.meet()
                yield driven
        finally:
            agent.close()
            if agent.hello:  # of a relay that was killed; a real agent does the same
                shutil.rmtree(agent.hello["back_directory"], ignore_errors=True)


def write_spec(home: Path, name: str, argv: list[str], **more: Any) -> None:
    """Make a kernelspec."""
    directory = home / "data" / "kernels" / name
    directory.mkdir(parents=True, exist_ok=True)
    spec = {"argv": argv, "display_name": name, "language": "python", **more}
    (directory / "kernel.json").write_text(json.dumps(spec))


def relay(argv: list[str]) -> None:
    from rtc_kernel.__main__ import main
    from rtc_kernel.relay import app, supervisor

    app.RESTART_GRACE_S = float(os.environ.get("RTC_TEST_GRACE_S", app.RESTART_GRACE_S))
    supervisor.PROGRAM = (sys.executable, __file__, "agent")
    main(argv)


def agent(number: int) -> None:
    ours = socket.socket(fileno=number)

    def tell(signal_number: int, frame: object) -> None:
        with contextlib.suppress(OSError):
            ours.sendall(link.encode(link.Act({"action": "signal-seen", "signal": signal_number})))

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        signal.signal(getattr(signal, name), tell)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    with socket.socket(socket.AF_UNIX) as place:
        place.connect(os.environ[PLACE])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [number]))]
        place.sendmsg([str(os.getpid()).encode()], rights)
    poll = select.poll()
    poll.register(ours, select.POLLRDHUP)  # reads nothing: that is the test's
    while not any(event & (select.POLLRDHUP | select.POLLHUP) for _, event in poll.poll()):
        pass


if __name__ == "__main__":
    if sys.argv[1] == "relay":
        relay(sys.argv[2:])
    else:
        agent(int(sys.argv[sys.argv.index("--link") + 1]))
