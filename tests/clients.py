"""Programs that start or find kernels, as their users start them: in a terminal, in a window, as a server."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pexpect
import psutil
from conftest import wait_until
from frontends import CLIENTS
from servers import JupyterServer, environment_of

import rtc_kernel
from benchmarks.ports import free_ports
from rtc_kernel import discovery

KERNELSPEC = Path(__file__).parent.parent / "kernelspec" / "kernel.json"
NAMES = ("rtc-python", "python3")
"""RTC Python, and the bare kernel of the same Python."""

READY_S = 60.0
"""Until something must be there; a busy machine takes its time."""

ESCAPED = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LINK = re.compile(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+")
WINDOW = Path(__file__).parent / "qtconsole_window.py"


def furnish(data: Path) -> None:
    """Both kernelspecs, of the Python of the tests, in a Jupyter's data directory."""
    rtc = json.loads(KERNELSPEC.read_text())
    rtc["argv"][0] = sys.executable
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    bare = {"argv": argv, "display_name": "Python 3", "language": "python", "metadata": {"debugger": True}}
    for name, spec in zip(NAMES, (rtc, bare), strict=True):
        directory = data / "kernels" / name
        directory.mkdir(parents=True)
        (directory / "kernel.json").write_text(json.dumps(spec))


class Terminal:
    """A program in a terminal, and who sits at it. ``plain``: a terminal that can do nothing but lines."""

    def __init__(self, command: str, *options: str, plain: bool) -> None:
        argv = ["-m", "jupyter", command, *options, *(("--simple-prompt",) if plain else ())]
        environ = environment_of(CLIENTS.python, os.environ) | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = pexpect.spawn(
            str(CLIENTS.python), argv, env=environ, encoding="utf-8", timeout=READY_S, dimensions=(50, 160)
        )
        self._raw = ""
        self._seen = 0

    @property
    def text(self) -> str:
        """All that it has shown, without colours."""
        return ESCAPED.sub("", self._raw).replace("\r", "")

    def press(self, keys: str) -> None:
        self.process.send(keys)

    def enter(self, line: str) -> None:
        self.press(f"{line}\r")

    def until(self, pattern: str) -> str:
        """Until it shows what matches, behind what matched before; what it has shown in between, and that."""
        while (found := re.search(pattern, self.text[self._seen :])) is None:
            try:
                self._raw += self.process.read_nonblocking(1 << 16, READY_S)
            except pexpect.ExceptionPexpect as exc:
                raise AssertionError(f"still not {pattern!r}:\n{self.text}") from exc
        self._seen += found.end()
        return found.string[: found.end()]

    def end(self) -> int | None:
        """Until it has ended; its exit code."""
        self.process.expect(pexpect.EOF)
        self.process.close()
        return self.process.exitstatus


@contextlib.contextmanager
def terminal(command: str, *options: str, plain: bool = True) -> Iterator[Terminal]:
    """``jupyter <command>`` in a terminal."""
    opened = Terminal(command, *options, plain=plain)
    try:
        yield opened
    finally:
        opened.process.close(force=True)


class Window:
    """Qt Console, and who sits at it."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    def press(self, keys: str) -> None:
        """``Tab``, ``Enter``, ``Control+C``, or text in ASCII."""
        self._ask(press=keys)

    def enter(self, line: str) -> None:
        self.press(line)
        self.press("Enter")

    def until(self, pattern: str) -> str:
        """Until what it shows matches; all that it shows."""
        return str(self._ask(until=pattern))

    def close(self) -> int:
        """Close the window; the exit code."""
        self._ask(close=None)
        return self.process.wait(READY_S)

    def _ask(self, **what: str | None) -> Any:
        asked, answered = self.process.stdin, self.process.stdout
        assert asked is not None
        assert answered is not None
        asked.write(json.dumps(what) + "\n")
        asked.flush()
        answer = answered.readline()
        assert answer, self._log.read_text()
        return json.loads(answer)


@contextlib.contextmanager
def window(home: Path, *options: str) -> Iterator[Window]:
    """``jupyter qtconsole``, its window unseen."""
    argv = [str(CLIENTS.python), str(WINDOW), "--no-confirm-exit", *options]
    log = home / f"qtconsole-{len(list(home.glob('qtconsole-*')))}.log"
    environ = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with log.open("w") as errors, subprocess.Popen(argv, env=environ, text=True, stderr=errors, **pipes) as process:
        try:
            yield Window(process, log)
        finally:
            process.terminate()


def until_it_hears(console: Terminal | Window) -> None:
    """Until it is connected where its kernel publishes: what was published before, a console never gets, and it may
    wait for the end of what it has run for ever."""
    process = psutil.Process(console.process.pid)

    def is_connected() -> bool:
        there = {at.raddr.port for at in process.net_connections("tcp") if at.status == psutil.CONN_ESTABLISHED}
        files = Path(os.environ["JUPYTER_RUNTIME_DIR"]).glob("kernel-*.json")
        return any(json.loads(file.read_text())["iopub_port"] in there for file in files)

    wait_until(is_connected, "the console hears its kernel", READY_S)


@contextlib.contextmanager
def served(home: Path, module: str, *options: str, says: str, token: str = "") -> Iterator[JupyterServer]:
    """``python -m <module> --port=…``, a server that lists itself nowhere, in the environment of clients.

    Args:
        says: what it writes to its log before its URL.
    """
    log = home / "served.log"
    with log.open("w") as output, _serving(module, options, output) as process:

        def found() -> str | None:
            assert process.poll() is None, log.read_text()
            said = re.search(rf"{says}\s*(http://127\.0\.0\.1:\d+)", log.read_text())
            return None if said is None else f"{said[1]}/"

        try:
            url = wait_until(found, "the server has started", READY_S)
            assert isinstance(url, str)
            yield JupyterServer(module, url, token, home, log, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(READY_S)


def _serving(module: str, options: tuple[str, ...], output: IO[str]) -> subprocess.Popen[bytes]:
    (port,) = free_ports(1)
    command = [str(CLIENTS.python), "-m", module, *options, f"--port={port}"]
    return subprocess.Popen(command, stdout=output, stderr=output)


# --- kernels that clients have started ----------------------------------------------------------------------------


def live(until: Callable[..., Any], count: int = 1) -> list[discovery.LiveKernel]:
    """The kernels with a live document, oldest first, when there are so many."""
    found: list[discovery.LiveKernel] = until(
        lambda: len(kernels := discovery.live()) == count and kernels, "agents say where they are", READY_S
    )
    return found


def processes(kernel: discovery.LiveKernel) -> list[psutil.Process]:
    """Relay, kernel and agent."""
    relay = psutil.Process(kernel.relay_pid)
    found = [relay, *relay.children(recursive=True)]
    assert len(found) == 3
    return found


def followed(target: str, count: int) -> list[str]:
    """The codes that a follower of this link has, when so many executions have ended."""

    async def follow() -> list[str]:
        async with rtc_kernel.connect(target, timeout_s=READY_S) as doc:
            await doc.wait_for(lambda doc: sum(run.finished_at is not None for run in doc.executions.values()) >= count)
            return [run.code for run in doc.executions.values()]

    with concurrent.futures.ThreadPoolExecutor(1) as thread:  # Playwright has a loop in this one
        return thread.submit(lambda: asyncio.run(asyncio.wait_for(follow(), READY_S))).result()
