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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .kernels import TIMEOUT_S, Kernel, Run

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Report:
    """What an observer saw up to an ``end TOKEN`` line; see :mod:`observe`."""

    token: str
    at_ns: int
    lines: int
    lags_ns: list[int]
    wire_bytes: int


class Observer:
    """One watching process of one kernel."""

    _numbers = itertools.count()

    def __init__(self, kernel: Kernel, process: subprocess.Popen[str]) -> None:
        self.kernel = kernel
        self._process = process
        self._reports: queue.SimpleQueue[Report] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="observer", daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._reports.put(Report(**json.loads(line)))

    def watch(self, code: str = "", timeout_s: float = TIMEOUT_S) -> tuple[Run, Report]:
        """Run a cell whose last line prints the end, and get what the observer saw of it.

        Raises:
            TimeoutError: the observer did not see its end.
        """
        token = str(next(self._numbers))
        run = self.kernel.execute(f"{code}\nprint('end {token}', flush=True)" if code else f"print('end {token}')")
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                report = self._reports.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"the observer did not see the end of {code[:60]!r}") from None
            if report.token == token:
                return run, report

    def wait(self) -> None:
        """Until it sees what the kernel prints."""
        for _ in range(40):
            with contextlib.suppress(TimeoutError):
                self.watch(timeout_s=0.5)
                return
            if self._process.poll() is not None:
                raise RuntimeError(f"the observer ended with {self._process.returncode}")
        raise TimeoutError("the observer sees nothing")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextlib.contextmanager
def subscriber(kernel: Kernel) -> Iterator[Observer]:
    """A plain iopub subscriber."""
    with _observer(kernel, "subscriber", kernel.iopub_url) as observer:
        yield observer


@contextlib.contextmanager
def peer(kernel: Kernel) -> Iterator[Observer]:
    """A replica of the kernel's document, over WebSocket."""
    with _observer(kernel, "peer", *room(kernel)) as observer:
        yield observer


def room(kernel: Kernel) -> tuple[str, str]:
    """``(URL, token)`` of the document's WebSocket."""
    live = kernel.live()
    return f"ws{live.url.rstrip('/').removeprefix('http')}/rooms/{live.kernel_id}/state", live.token


@contextlib.contextmanager
def _observer(kernel: Kernel, *arguments: str) -> Iterator[Observer]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.observe", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    observer = Observer(kernel, process)
    try:
        observer.wait()
        yield observer
    finally:
        observer.close()
