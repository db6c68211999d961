"""Who writes request rows from a process of their own, and when were they taken?"""

from __future__ import annotations

import contextlib
import itertools
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .kernels import TIMEOUT_S, Kernel, Run
from .observers import Process, room

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """A batch of rows that have ended; see :mod:`write`."""

    batch: int
    written_ns: int
    taken_ns: int
    ended_ns: int
    refused: list[str]


class Writers(Process):
    """A process of peers with the role ``run``."""

    def __init__(self, url: str, tokens: list[str]) -> None:
        super().__init__("benchmarks.write", url, *tokens)
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Wait until all are synced."""
        self.hear("batch", 0)

    def write(self, *rows: list[Row], at_once: bool = False) -> int:
        """Have rows written, one list per peer; the number of the batch."""
        batch = next(self._numbers)
        self.tell({"batch": batch, "rows": rows, "at_once": at_once})
        return batch

    def wait(self, batch: int, timeout_s: float = TIMEOUT_S) -> Written:
        """Until all rows of a batch have ended.

        Raises:
            RuntimeError: some were refused.
            TimeoutError: they did not end.
        """
        written = Written(**self.hear("batch", batch, timeout_s))
        if written.refused:
            raise RuntimeError(f"{len(written.refused)} rows were refused: {written.refused[0]}")
        return written

    def do(self, **columns: Any) -> Written:
        """Have the first peer write one row, and wait until it has ended."""
        return self.wait(self.write([columns]))

    def run(self, code: str) -> Run:
        """Have the first peer run a cell; submitted when its row was about to be written."""
        written = self.do(action="execute", code=code)
        return Run(written.written_ns, written.ended_ns - written.written_ns, 0)


@contextlib.contextmanager
def writers(kernel: Kernel, count: int = 1) -> Iterator[Writers]:
    """Peers of a kernel's requests, each with a link of its own, synced; at the end they are gone."""
    url, _ = room(kernel, "requests")
    process = Writers(url, [share(kernel, f"writer-{number}") for number in range(count)])
    try:
        process.start()
        yield process
    finally:
        process.close()


def share(kernel: Kernel, name: str) -> str:
    """Mint a link of the role ``run``; its token."""
    live = kernel.live()
    body = json.dumps({"role": "run", "name": name}).encode()
    headers = {"Authorization": f"Bearer {live.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{live.url}/api/share", body, headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        return str(json.load(answer)["token"])
