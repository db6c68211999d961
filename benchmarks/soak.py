"""Does it stay as it is, for as long as it runs? ``python -m benchmarks.soak --minutes 60``, from the root of the
repository. Linux only (``/proc``).

One kernel, one agent, and rounds of everything that happens to them: cells that print, flood, show pictures and bars,
fail; watchers, runners, comm peers, peers that stall and peers that vanish; restarts, pages of history, blobs,
retention and new epochs (their limits are set low, so that all of it happens within minutes). After each round it
samples memory, file descriptors, threads and tasks of relay and agent, and the lag of a printed line.

The first third is for warming up. The medians of the second and of the last third are held against each other: memory
within 10 %, the rest within what one more peer costs. Exit code 1 where something grows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

import rtc_kernel
from rtc_kernel.client import Address, call
from rtc_kernel.errors import RTCError

from .crowd import STEP1, Peer
from .crowding import TICKS
from .figures import percentile
from .kernels import LOG, RTC, Kernel, private_home, running
from .observers import room

SETTINGS = {
    "WINDOW_EXECUTIONS": "40",
    "KEEP_EXECUTIONS": "200",
    "KEEP_BYTES": str(16 << 20),
    "EPOCH_BYTES": str(64 << 10),
    "STREAM_BYTES": str(64 << 10),
    "INLINE_BYTES": "4096",
    "SPOOL_BYTES": str(8 << 20),
}
"""So low that every limit is reached within a minute."""

PICTURE = """
import base64, os
from IPython.display import display
display({'image/png': base64.b64encode(os.urandom(60_000)).decode()}, raw=True)
"""
UPDATES = """
from IPython.display import display
shown = display('0', display_id=True)
for n in range(200): shown.update(str(n))
"""
WIDGET = """
import comm
one = comm.create_comm('soak', data={'n': 1})
one.send({'n': 2})
one.close()
"""
CELLS = (
    "print('a line')",
    "for n in range(3000): print('line', n)",
    PICTURE,
    "import sys\nfor n in range(2000): sys.stdout.write(f'\\r{n / 20:.0f} %')",
    UPDATES,
    WIDGET,
    "x = [n for n in range(1000)]\nx",
    "%rtc status",
)
RESTART_EVERY, STALL_EVERY, LINES = 12, 5, 20
QUIET_S = 0.3
"""Pause before a sample, so that what a round left behind is written."""

BLOCKED_S = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What a round left: of each process ``rss`` (MiB), ``fds``, ``threads``; of the agent ``tasks``; ``lag`` (ms)."""

    values: dict[str, float]


ALLOWED = {"rss": (1.1, 0.0), "fds": (1.0, 3.0), "threads": (1.0, 2.0), "tasks": (1.0, 3.0), "lag": (1.5, 2.0)}
"""By how much the last third may be above the second: a factor, and so much more."""


class Life:
    """One kernel and what happens to it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        live = kernel.live()
        self._pids = {"relay": live.relay_pid, "agent": live.agent_pid}
        self._url, self._token = room(kernel)
        self._address = Address.of(live)
        self._numbers = itertools.count()
        self._stalled: list[Peer] = []
        self.agents = 1

    def live(self, number: int) -> None:
        """One round."""
        for code in CELLS:
            self._kernel.execute(code)
        self._follow_by_comm(vanish=number % 2 == 0)
        asyncio.run(asyncio.wait_for(self._follow(number), BLOCKED_S))
        if number % STALL_EVERY == 0:
            for peer in self._stalled:
                peer.socket.close()
            self._stalled = [Peer(self._url, self._token, stalls=True)]

    def sample(self) -> Sample:
        """How things are after it."""
        values = {"lag": self._lag_ms()}
        time.sleep(QUIET_S)
        for who, pid in self._pids.items():
            here = Path(f"/proc/{pid}")
            values[f"{who} rss"] = int((here / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
            values[f"{who} fds"] = len(list((here / "fd").iterdir()))
            values[f"{who} threads"] = len(list((here / "task").iterdir()))
        values["agent tasks"] = asyncio.run(call(self._address, "GET", "/api/health"))["tasks"]
        return Sample(values)

    def _follow_by_comm(self, *, vanish: bool) -> None:
        """A frontend that has nothing but the kernel's channels."""
        client, comm = self._kernel.client, f"soak-{next(self._numbers)}"

        def send(kind: str, content: dict[str, object], *buffers: bytes) -> None:
            message = client.session.msg(kind, {"comm_id": comm, **content})
            client.session.send(client.shell_channel.socket, message, buffers=list(buffers))

        send("comm_open", {"target_name": "rtc.sync.v1", "data": {}}, STEP1[-4:])
        self._kernel.execute("print('for the comm')")
        send("comm_msg", {"data": {"op": "history", "limit": 5}})
        if not vanish:
            send("comm_close", {"data": {}})

    async def _follow(self, number: int) -> None:
        """Watchers and a runner that come, read, ask and go; one of them without a word."""
        addresses = [self._address] * 3
        async with contextlib.AsyncExitStack() as stack:
            docs = [await stack.enter_async_context(rtc_kernel.connect(one.url, token=one.token)) for one in addresses]
            run = await docs[0].run(f"print({number})")
            await run.result()
            with contextlib.suppress(RTCError):
                await (await docs[0].run("1 / 0")).result()
            page = await docs[1].history(limit=20)
            for output in (shown for row in page for shown in row.outputs):
                for value in (output.data or {}).values():
                    if isinstance(value, dict) and value.get("blob"):
                        with contextlib.suppress(RTCError):  # retention may have taken it
                            await docs[1].blob(value["blob"])
            if number % RESTART_EVERY == RESTART_EVERY - 1:
                generation = docs[2].kernel.generation
                await docs[0].restart()
                await docs[2].wait_for(
                    lambda doc: doc.kernel.generation > generation and doc.kernel.state == "idle", BLOCKED_S
                )

    def _lag_ms(self) -> float:
        """Of lines that are printed one by one, at a peer that has just come; the median."""
        peer, ended = Peer(self._url, self._token), threading.Event()

        def read() -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set() and (data := peer.socket.recv(1 << 20)):
                    peer.came.append((time.monotonic_ns(), data))

        reader = threading.Thread(target=read, name="soak-peer")
        peer.socket.settimeout(BLOCKED_S)
        reader.start()
        time.sleep(QUIET_S)
        peer.lags_ns()  # what the document has of earlier rounds
        self._kernel.execute(TICKS.format(LINES, 0.01))
        time.sleep(QUIET_S)
        ended.set()
        with contextlib.suppress(OSError):
            peer.socket.shutdown(2)
        reader.join()
        peer.socket.close()
        return percentile(peer.lags_ns(), 50) / 1e6


def soak(seconds: float) -> list[Sample]:
    """The samples of all rounds."""
    samples: list[Sample] = []
    say = Console(stderr=True, width=200)
    with running(RTC) as kernel:
        life, deadline = Life(kernel), time.monotonic() + seconds
        for number in itertools.count():
            life.live(number)
            samples.append(life.sample())
            if number % 10 == 0:
                say.print(f"{number}: {_words(samples[-1].values)}", highlight=False)
            if time.monotonic() > deadline and len(samples) >= 6:
                break
    return samples


def grown(samples: Sequence[Sample], allowed: Mapping[str, tuple[float, float]] = ALLOWED) -> dict[str, str]:
    """What the last third has more of than the second, by more than is allowed."""
    out = {}
    for name, (before, after) in thirds(samples).items():
        factor, more = allowed[name.rpartition(" ")[2]]
        if not after <= before * factor + more:
            out[name] = f"{before:.1f} → {after:.1f}"
    return out


def thirds(samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """Of each figure the medians of the second and of the last third."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return {
        name: (median(one.values[name] for one in middle), median(one.values[name] for one in last))
        for name in samples[0].values
    }


def show(samples: Sequence[Sample], growing: Mapping[str, str]) -> None:
    """Print what was sampled, as a table."""
    table = Table(box=box.SIMPLE, title=f"{len(samples)} rounds")
    for column in ("", "first", "second third", "last third", "least", "most", ""):
        table.add_column(column, justify="left" if not column else "right")
    for name, (before, after) in thirds(samples).items():
        every = [one.values[name] for one in samples]
        figures = [every[0], before, after, min(every), max(every)]
        table.add_row(name, *(f"{figure:.1f}" for figure in figures), "GROWS" if name in growing else "flat")
    Console(width=120).print(table)


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in values.items())


def main() -> int:
    """0: all is flat; 1: something grows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rss-factor", type=float, default=ALLOWED["rss"][0], help="1.1: memory within 10 %%")
    parser.add_argument("--lag-ms", type=float, default=ALLOWED["lag"][1], help="by how much the lag may grow")
    options = parser.parse_args()
    allowed = {**ALLOWED, "rss": (options.rss_factor, 0.0), "lag": (ALLOWED["lag"][0], options.lag_ms)}
    with private_home() as home:
        os.environ |= {f"RTC_KERNEL_{name}": value for name, value in SETTINGS.items()}
        samples = soak(60 * options.minutes)
        complaints = [line for line in (home / LOG).read_text().splitlines() if line.startswith("rtc_kernel")]
    growing = grown(samples, allowed)
    show(samples, growing)
    for line in complaints[-20:]:
        print(line, file=sys.stderr)
    return 1 if growing else 0


if __name__ == "__main__":
    sys.exit(main())
