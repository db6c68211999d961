"""Faults and what they must not cost: frontends that keep a record of their own, random cells, deaths, full disks.

The record is independent: it is made of what came over the kernel's channels, by a reducer that shares nothing with the
mirror's. What a cell prints is known from the cell, too, so that a frontend that lost something is found out.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import queue
import random
import resource
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import zmq
from conftest import wait_until
from driven import write_spec
from jupyter_client import BlockingKernelClient
from kernels import Running, ask, patient_relay, start

from rtc_kernel import discovery
from rtc_kernel.errors import SetupError

PATIENCE_S = 60.0
"""How long anything that must happen may take; the machine may be busy."""

KERNEL = "rtc-faulty"
IMPATIENT = "supervisor.PAUSES_S = (0.0,)"
"""No pause before an agent is started again: hundreds of agents die here."""

ENDED = ("ok", "error", "aborted", "lost", "cancelled")
AWAY = (OSError, SetupError, urllib.error.URLError, http.client.HTTPException, json.JSONDecodeError, KeyError)
"""What becomes of a question to an agent that is away."""

Json = dict[str, Any]
Shown = tuple[Any, ...]
"""An output: its type first, then what it shows."""


# --- a frontend, and what it saw ------------------------------------------------------------------------------


@dataclass
class Seen:
    """One execution as the frontends saw it.

    ``raw``: all text of each stream, whatever was cleared later. ``versions``: what its outputs looked like, after each
    message.
    """

    code: str = ""
    sent_at: float = 0.0
    done_at: float = 0.0
    replies: list[Json] = field(default_factory=list)
    inputs_count: int = 0
    idles_count: int = 0
    outputs: list[Shown] = field(default_factory=list)
    versions: list[list[Shown]] = field(default_factory=list)
    clear_waits: bool = False
    raw: dict[str, str] = field(default_factory=lambda: {"stdout": "", "stderr": ""})

    @property
    def is_done(self) -> bool:
        return bool(self.replies) and self.idles_count > 0

    @property
    def is_unseen(self) -> bool:
        """Nobody got anything of it."""
        return not (self.replies or self.idles_count or self.inputs_count or self.versions)


class Frontend:
    """A client of the kernel with a thread that reads everything at once; it answers every question."""

    def __init__(self, connection_file: str, name: str) -> None:
        self.name = name
        self.heard: list[tuple[str, Json]] = []  # channel and message, in order
        self._client = BlockingKernelClient()
        self._client.load_connection_file(connection_file)
        self._client.session.username = name
        self._client.allow_stdin = True
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._context = zmq.Context()
        self._thread = threading.Thread(target=self._run, name=f"frontend-{name}")
        self._thread.start()

    def execute(self, code: str, subshell: str | None = None) -> str:
        """Ask for an execution; its id."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": True, "stop_on_error": True}
        message = self._client.session.msg("execute_request", content | {"user_expressions": {}})
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self._send("shell", message)
        return str(message["header"]["msg_id"])

    def ask(self, channel: str, msg_type: str) -> Json:
        """Ask the kernel something and wait for its reply, also if it has only just been started again."""
        asked: set[str] = set()
        asked_at = 0.0

        def answered() -> Json | None:
            nonlocal asked_at
            if time.monotonic() - asked_at > 1.0:
                asked_at = time.monotonic()
                message = self._client.session.msg(msg_type, {})
                asked.add(message["header"]["msg_id"])
                self._send(channel, message)
            heard = [(where, message) for where, message in self.heard[-50:] if message["parent"] in asked]
            idle = any(message["content"].get("execution_state") == "idle" for _, message in heard)
            return next((message for where, message in heard if where == channel and idle), None)

        return dict(wait_until(answered, f"the kernel answers {self.name}", PATIENCE_S))["content"]  # type: ignore[call-overload, no-any-return]

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _send(self, channel: str, message: Json) -> None:
        self._commands.put(lambda: self._client.session.send(self._sockets[channel], message))

    def reconnect(self) -> None:
        """Forget what did not leave for a kernel that has died: the next one is not to run it."""
        done = threading.Event()

        def renew() -> None:
            while self._receive(200):  # what has come was seen
                pass
            for sock in self._sockets.values():
                sock.close(linger=0)
            self._connect()
            done.set()

        self._commands.put(renew)
        assert done.wait(PATIENCE_S)

    def _connect(self) -> None:
        client, self._poller = self._client, zmq.Poller()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        kinds = {"shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER, "iopub": zmq.SUB}
        for channel, kind in kinds.items():
            sock = self._sockets[channel] = self._context.socket(kind)
            sock.set_hwm(0)  # a record with a hole would accuse the innocent
            if kind == zmq.SUB:
                sock.subscribe(b"")
            else:
                sock.identity = client.session.bsession
            sock.connect(client._make_url(channel))
            self._poller.register(sock, zmq.POLLIN)

    def _run(self) -> None:
        self._connect()
        while not self._ended.is_set():
            while not self._commands.empty():
                self._commands.get()()
            self._receive(5)

    def _receive(self, wait_ms: int) -> bool:
        """Hear what has come; whether anything has."""
        ready = dict(self._poller.poll(wait_ms))
        for channel, sock in self._sockets.items():
            while sock in ready and (message := self._client.session.recv(sock, mode=zmq.NOBLOCK)[1]) is not None:
                self._hear(channel, message)
        return bool(ready)

    def _hear(self, channel: str, message: Json) -> None:
        kept = {
            "type": message["msg_type"],
            "parent": message["parent_header"].get("msg_id", ""),
            "content": message["content"],
            "at": time.time(),
        }
        if channel == "stdin" and kept["type"] == "input_request":
            reply = self._client.session.msg("input_reply", {"value": "yes", "status": "ok"}, parent=message)
            self._client.session.send(self._sockets["stdin"], reply)
        self.heard.append((channel, kept))


class Tape:
    """What several frontends saw: outputs of all, as the first one heard them, and each one's own replies."""

    def __init__(self, frontends: list[Frontend]) -> None:
        self.frontends = frontends
        self.runs: dict[str, Seen] = {}
        self.comms: dict[str, list[Any]] = {}
        self.closed: set[str] = set()
        self.news: set[str] = set()  # comms of which something was heard since somebody looked
        self._read = [0] * len(frontends)
        self._displays: dict[str, list[tuple[Seen, int]]] = {}

    def expect(self, msg_id: str, code: str) -> None:
        self.runs[msg_id] = Seen(code, time.time())

    def read(self) -> None:
        """Take in what was heard since."""
        for index, frontend in enumerate(self.frontends):
            heard = frontend.heard[self._read[index] :]
            self._read[index] += len(heard)
            for channel, message in heard:
                run = self.runs.get(message["parent"])
                if channel == "shell" and run is not None:
                    run.replies.append(message["content"])
                    run.done_at = message["at"]
                elif channel == "iopub" and index == 0 and run is not None:
                    self._see(run, message)

    def forget_displays(self) -> None:
        """The kernel has begun another life."""
        self._displays.clear()

    def _see(self, run: Seen, message: Json) -> None:
        kind, content = message["type"], message["content"]
        match kind:
            case "execute_input":
                run.inputs_count += 1
            case "status" if content["execution_state"] == "idle":
                run.idles_count += 1
                run.done_at = message["at"]
                run.clear_waits = False
            case "stream":
                run.raw[content["name"]] += content["text"]
                self._add(run, ("stream", content["name"], content["text"]))
            case "display_data":
                display_id = content.get("transient", {}).get("display_id")
                place = self._add(run, ("display_data", content["data"], display_id))
                if display_id is not None:
                    self._displays.setdefault(display_id, []).append((run, place))
            case "update_display_data":
                display_id = content["transient"]["display_id"]
                for other, place in self._displays.get(display_id, []):
                    other.outputs[place] = ("display_data", content["data"], display_id)
                    other.versions.append(list(other.outputs))
            case "execute_result":
                self._add(run, ("execute_result", content["data"], content["execution_count"]))
            case "error":
                self._add(run, ("error", content["ename"], content["evalue"], tuple(content["traceback"])))
            case "clear_output" if content.get("wait"):
                run.clear_waits = True
            case "clear_output":
                self._clear(run)
            case "comm_open":
                self.comms[content["comm_id"]] = [content["data"]]
                self.news.add(content["comm_id"])
            case "comm_msg":
                self.comms[content["comm_id"]].append(content["data"])
                self.news.add(content["comm_id"])
            case "comm_close":
                self.closed.add(content["comm_id"])
                self.news.add(content["comm_id"])

    def _add(self, run: Seen, output: Shown) -> int:
        if run.clear_waits:
            self._clear(run)
        last = run.outputs[-1] if run.outputs else ("",)
        if output[0] == "stream" and last[:2] == output[:2]:
            run.outputs[-1] = (*output[:2], overwrite(last[2] + output[2]))
        else:
            run.outputs.append((*output[:2], overwrite(output[2])) if output[0] == "stream" else output)
        run.versions.append(list(run.outputs))
        return len(run.outputs) - 1

    def _clear(self, run: Seen) -> None:
        run.outputs, run.clear_waits = [], False
        run.versions.append([])
        for places in self._displays.values():
            places[:] = [(other, place) for other, place in places if other is not run]


def overwrite(text: str) -> str:
    """A text whose lines were written anew from their start, each time at least as far as before."""
    if "\r" not in text:
        return text
    return "\n".join(line.rpartition("\r")[2] or line for line in text.split("\n"))


# --- what is run ----------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """Code, and what it shows: the text of both streams, and whether it ends in an error."""

    code: str = ""
    stdout: str = ""
    stderr: str = ""
    fails: bool = False


PREPARE = """
import base64, random, sys, time
from comm import create_comm
from IPython.display import clear_output, display, publish_display_data, update_display
def show(data, display_id=None):
    publish_display_data(data, transient={'display_id': display_id} if display_id else {})
def noise(seed, size):
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()
"""


class Author:
    """Writes random cells.

    ``displays``: ids that a later cell may update; of this life of the kernel.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.displays: list[str] = []
        self._count = 0

    def write(self, *, alone: bool = True) -> Cell:
        """A cell. ``alone``: nothing else runs meanwhile, so it may fail, and ask."""
        dice, cell = self.dice, Cell()
        steps = (
            (self._say, 6),
            (self._say_much, 2),
            (self._complain, 3),
            (self._flood, 1),
            (self._bar, 1),
            (self._sleep, 4),
            (self._show, 3),
            (self._show_large, 1),
            (self._update, 2),
            (self._clear, 1),
            (self._comm, 1),
            (self._ask, alone),
        )
        for step in dice.choices([step for step, _ in steps], [weight for _, weight in steps], k=dice.randint(1, 6)):
            step(cell)
        match dice.randrange(8):
            case 0 if alone:
                cell.code += "1/0\n"
                cell.fails = True
            case 1:
                cell.code += f"{self._next()!r}\n"
        return cell

    def _next(self) -> str:
        self._count += 1
        return f"<{self._count}>"

    def _say(self, cell: Cell) -> None:
        text = f"{self._next()} grüße 🌍"
        cell.code += f"print({text!r})\n"
        cell.stdout += text + "\n"
        if self.dice.random() < 0.5:
            cell.code += "sys.stdout.flush()\n"

    def _say_much(self, cell: Cell) -> None:
        word, count = self._next(), self.dice.randint(100, 8000)
        cell.code += f"print({word!r} * {count})\n"
        cell.stdout += word * count + "\n"

    def _complain(self, cell: Cell) -> None:
        text = self._next()
        cell.code += f"print({text!r}, file=sys.stderr)\n"
        cell.stderr += text + "\n"

    def _flood(self, cell: Cell) -> None:
        word, count = self._next(), self.dice.randint(20, 300)
        cell.code += f"for i in range({count}): print({word!r}, i, flush=True)\n"
        cell.stdout += "".join(f"{word} {i}\n" for i in range(count))

    def _bar(self, cell: Cell) -> None:
        word, count = self._next(), self.dice.randint(5, 50)
        cell.code += f"for i in range({count}): print(f'\\r{word} {{i:04}}', end='', flush=True)\nprint()\n"
        cell.stdout += "".join(f"\r{word} {i:04}" for i in range(count)) + "\n"

    def _sleep(self, cell: Cell) -> None:
        cell.code += f"time.sleep({self.dice.uniform(0.0, 0.03):.4f})\n"

    def _show(self, cell: Cell) -> None:
        name = self._next()
        display_id = name if self.dice.random() < 0.7 else None
        cell.code += f"show({{'text/plain': {name!r}}}, {display_id!r})\n"
        if display_id is not None:
            self.displays = [*self.displays[-20:], display_id]

    def _show_large(self, cell: Cell) -> None:
        name, size = self._next(), self.dice.randint(60_000, 150_000)
        kind = self.dice.choice(["image/png", "text/plain"])
        cell.code += f"show({{{kind!r}: noise({name!r}, {size}), 'text/html': {name!r}}})\n"

    def _update(self, cell: Cell) -> None:
        if self.displays:
            display_id, value = self.dice.choice(self.displays), self._next()
            cell.code += f"update_display({{'text/plain': {value!r}}}, display_id={display_id!r}, raw=True)\n"

    def _clear(self, cell: Cell) -> None:
        cell.code += f"clear_output(wait={self.dice.random() < 0.5})\n"

    def _comm(self, cell: Cell) -> None:
        name = self._next()
        cell.code += f"c = create_comm(target_name='test', data={{'name': {name!r}}})\n"
        cell.code += f"for i in range({self.dice.randint(0, 30)}): c.send({{'i': i}})\n"
        if self.dice.random() < 0.5:
            cell.code += "c.close()\n"

    def _ask(self, cell: Cell) -> None:
        word = self._next()
        cell.code += f"print({word!r}, input('? '))\n"
        cell.stdout += f"{word} yes\n"


# --- the kernel, and what may happen to it --------------------------------------------------------------------


class Victim:
    """A kernel with frontends, whose processes and whose disk are at the test's mercy."""

    def __init__(self, kernel: Running, store: Path) -> None:
        self.kernel = kernel
        self.directory = store
        self.frontends = [Frontend(kernel.manager.connection_file, name) for name in ("ann", "bob")]

    @property
    def path(self) -> Path:
        return self.directory / f"{self.kernel.kernel_id}.sqlite3"

    @property
    def relay(self) -> psutil.Process:
        return psutil.Process(self.kernel.pid)

    def agents(self) -> list[psutil.Process]:
        """The agent, where there is one, or what is about to be it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            relay = self.relay
            before = relay.cmdline()
            return [child for child in relay.children() if is_agent(child, before)]
        return []

    def ask(self, path: str) -> Any:
        """A question to the side socket."""
        return ask(self.kernel.kernel_id, path)

    def history(self, after: int) -> list[Json]:
        """Every execution behind this number, oldest first, whole."""
        rows: list[Json] = []
        while True:
            last = rows[-1]["seq"] if rows else after
            page = self.ask(f"/api/history?limit=200&after={last}")["executions"]
            if not page:
                return rows
            rows += sorted(page, key=lambda row: int(row["seq"]))

    def health(self) -> Json:
        return dict(self.ask("/api/health"))

    # --- deaths

    def kill_agent(self) -> None:
        for agent in self.agents():
            with contextlib.suppress(psutil.NoSuchProcess):
                agent.kill()

    def stop_agent(self) -> None:
        for agent in self.agents():
            with contextlib.suppress(psutil.NoSuchProcess):
                agent.suspend()

    def go_on(self) -> None:
        for agent in self.agents():
            with contextlib.suppress(psutil.NoSuchProcess):
                agent.resume()

    def kill_child(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            agents = self.agents()
            for child in self.relay.children():
                if child not in agents:
                    child.kill()

    def kill_relay(self) -> None:
        self.relay.kill()

    def kill_machine(self) -> None:
        os.killpg(self.kernel.pid, signal.SIGKILL)

    def restart(self) -> None:
        """What a server does with a kernel that died."""
        wait_until(lambda: self.kernel.manager.provisioner.process.poll() is not None, "the relay ended", PATIENCE_S)
        for frontend in self.frontends:
            frontend.reconnect()
        self.kernel.manager.restart_kernel(now=True)
        self.ready()

    def ready(self) -> None:
        for frontend in self.frontends:
            frontend.ask("shell", "kernel_info_request")

    @contextlib.contextmanager
    def without_agent(self) -> Iterator[None]:
        """While this lasts there is no agent; then there is a new one."""
        relay = self.relay
        relay.suspend()
        try:
            wait_until(lambda: [agent.kill() for agent in self.agents()] == [], "the agent is dead", PATIENCE_S)
            yield
        finally:
            relay.resume()

    # --- the disk

    def limit_files(self, size: int | None) -> None:
        """No file of the agent's, nor of the next one's, grows beyond this (null: there is room again)."""
        limits = (resource.RLIM_INFINITY if size is None else size, resource.RLIM_INFINITY)
        resource.prlimit(
            self.relay.pid, resource.RLIMIT_FSIZE, limits
        )  # first: an agent that it starts now inherits it
        for agent in self.agents():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, limits)

    @contextlib.contextmanager
    def file(self) -> Iterator[sqlite3.Connection]:
        """The store's file, as anybody may read it beside its agent."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            yield connection

    def close(self) -> None:
        for frontend in self.frontends:
            frontend.close()


def is_agent(process: psutil.Process, before: list[str]) -> bool:
    """Whether it is an agent, or is about to be one. ``before``: the command line that it has until then."""
    try:
        line = process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False
    return line == before or "rtc_kernel.agent" in line


@contextlib.contextmanager
def victim(home: Path, store: Path, **settings: str) -> Iterator[Victim]:
    """Start a kernel whose history is in ``store``."""
    write_spec(home, KERNEL, [*patient_relay(IMPATIENT), "-f", "{connection_file}"])
    env = {
        **os.environ,
        "RTC_KERNEL_HISTORY_DIR": str(store),
        "RTC_KERNEL_WINDOW_EXECUTIONS": "20",
        **{f"RTC_KERNEL_{name}": value for name, value in settings.items()},
    }
    with start(KERNEL, env=env) as kernel:
        made = Victim(kernel, store)
        try:
            made.ready()
            wait_until(discovery.live, "the agent serves", PATIENCE_S)
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path | None]:
    """A file system of so much room; null where none can be mounted."""
    with tempfile.TemporaryDirectory() as place:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        try:
            yield Path(place) if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", "-l", place], check=True)


def can_mount() -> bool:
    with small_disk("1m") as place:
        return place is not None


CAN_MOUNT = can_mount()


def digest_of(kind: str, value: str) -> tuple[str, bytes]:
    """What a value is called as a blob, and its bytes."""
    data = base64.b64decode(value) if kind.startswith("image/") else value.encode()
    return "sha256:" + hashlib.sha256(data).hexdigest(), data
