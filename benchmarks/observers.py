"""Who watches from a process of their own, and what did they see?"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .kernels import TIMEOUT_S, Kernel, Run

ROOT = Path(__file__).parent.parent

INTERRUPTED = "KeyboardInterrupt"
"""The token of a report on a cell that was interrupted: an error ends what an observer gathers."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an observer saw up to an ``end TOKEN`` line; see :mod:`observe`."""

    token: str
    at_ns: int
    lines: int
    lags_ns: list[int]
    wire_bytes: int
    ended_rows: int
    ended_at_ns: int


class Process:
    """A process of ours that writes a JSON object per line.

    Args:
        arguments: module and arguments.
    """

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, name=arguments[0], daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))

    @property
    def exit_code(self) -> int | None:
        """Null while it runs."""
        return self._process.poll()

    def tell(self, value: Any) -> None:
        """Write it a line of JSON."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def hear(self, key: str, value: Any, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """What it says next with this value under the key; what it said before that is passed over.

        Raises:
            TimeoutError: it did not.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                said = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"not after {timeout_s:g} s: {key} {value}") from None
            if said.get(key) == value:
                return said

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Observer(Process):
    """One watching process.

    Args:
        run: has a cell run in the kernel that is watched.
        arguments: of :mod:`observe`.
    """

    _numbers = itertools.count()

    def __init__(self, run: Callable[[str], Run], *arguments: str) -> None:
        super().__init__("benchmarks.observe", *arguments)
        self._run = run

    def watch(self, code: str = "", timeout_s: float = TIMEOUT_S) -> tuple[Run, Report]:
        """Run a cell whose last line prints the end, and get what the observer saw of it.

        Raises:
            TimeoutError: the observer did not see its end.
        """
        token = self.make_token()
        run = self._run(f"{code}\nprint('end {token}', flush=True)" if code else f"print('end {token}')")
        return run, self.report(token, timeout_s)

    def make_token(self) -> str:
        """A token for an ``end`` that is to be seen once."""
        return str(next(self._numbers))

    def report(self, token: str, timeout_s: float = TIMEOUT_S) -> Report:
        """What it saw up to this end.

        Raises:
            TimeoutError: it did not see it.
        """
        try:
            return Report(**self.hear("token", token, timeout_s))
        except TimeoutError:
            raise TimeoutError(f"the observer did not see the end {token} within {timeout_s:g} s") from None

    def wait(self) -> None:
        """Until it sees what the kernel prints."""
        for _ in range(40):
            with contextlib.suppress(TimeoutError):
                self.watch(timeout_s=0.5)
                return
            if self.exit_code is not None:
                raise RuntimeError(f"the observer ended with {self.exit_code}")
        raise TimeoutError("the observer sees nothing")


@contextlib.contextmanager
def subscriber(kernel: Kernel) -> Iterator[Observer]:
    """A plain iopub subscriber."""
    with observing(kernel.execute, "subscriber", kernel.iopub_url) as observer:
        yield observer


@contextlib.contextmanager
def peer(kernel: Kernel, run: Callable[[str], Run] | None = None) -> Iterator[Observer]:
    """A replica of the kernel's document, over WebSocket. ``run``: how its cells come to run, if not over the
    kernel's channel."""
    with observing(run or kernel.execute, "peer", *room(kernel)) as observer:
        yield observer


def room(kernel: Kernel, name: str = "state") -> tuple[str, str]:
    """``(URL, token)`` of a document's WebSocket."""
    live = kernel.live()
    return f"ws{live.url.rstrip('/').removeprefix('http')}/rooms/{live.kernel_id}/{name}", live.token


@contextlib.contextmanager
def observing(run: Callable[[str], Run], *arguments: str) -> Iterator[Observer]:
    """An observer that sees; at the end it is gone."""
    observer = Observer(run, *arguments)
    try:
        observer.wait()
        yield observer
    finally:
        observer.close()
