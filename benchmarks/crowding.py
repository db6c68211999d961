"""What do many peers on one document cost, and does one that stalls cost the others?"""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from .figures import Compare, Line, Plan, Rounds, p95, percentile
from .kernels import RTC, TICK, TIMEOUT_S, Kernel, running
from .observers import Process, room

PEERS = 500
RATE = 20
TICKS = f"import time\nfor _ in range({{}}):\n    {TICK}\n    time.sleep({{}})"
SOME_TEXT = "print('some text to ask for ' * 15_000)"
"""Twenty times as much is more than sockets take for a peer that does not read, and less than its outbox."""

WARM = 3
"""So many lines before those that count."""
REST_S = 0.5
"""Pause after a cell, and between two looks at whether what was printed last has reached everybody."""

CALM, STALLED = "calm", "stalled"


class Crowd(Process):
    """Many peers in one process; see :mod:`crowd`."""

    def __init__(self, url: str, token: str, count: int, *document: str) -> None:
        super().__init__("benchmarks.crowd", url, token, str(count), *document)
        self._reports = 0
        self.hear("ready", count)

    def lags_ms(self) -> list[list[float]]:
        """Of each peer, the lag of each line since this was asked last."""
        self._reports += 1
        self.tell({"report": self._reports})
        lags = self.hear("report", self._reports)["lags_ns"]
        return [[lag / 1e6 for lag in one] for one in lags]

    def all_lags_ms(self, count: int) -> list[list[float]]:
        """The same, when everybody has so many lines, or it is no use to wait."""
        lags, deadline = self.lags_ms(), time.monotonic() + TIMEOUT_S
        while any(len(one) < count for one in lags) and time.monotonic() < deadline:
            time.sleep(REST_S)
            for one, more in zip(lags, self.lags_ms(), strict=True):
                one += more
        return lags

    def stall(self, count: int) -> None:
        """So many peers, and not those from before, do not read any more."""
        self.tell({"stalled": count})
        self.hear("stalled", count)


@contextlib.contextmanager
def crowded(url: str, token: str, count: int, *document: str) -> Iterator[Crowd]:
    """Many peers that follow; at the end they are gone. ``document``: its name, at a relay."""
    crowd = Crowd(url, token, count, *document)
    try:
        yield crowd
    finally:
        crowd.close()


def peers(plan: Plan) -> list[Line]:
    """A cell that prints every 50 ms, and the lag of each line at each peer, by the cell's own clock."""
    slowest, p50s, pooled, cores = Rounds(), Rounds(), Rounds(), Rounds()
    count, ticks = plan.size(PEERS), plan.size(10 * RATE)
    with running(RTC) as kernel:
        agent = kernel.live().agent_pid
        kernel.execute(SOME_TEXT)
        with crowded(*room(kernel), count) as crowd:
            for index, arm in plan.turns("peers", 4, (CALM, STALLED)):
                plan.tell(f"round {index + 1}, {arm}")
                crowd.stall(1 if arm == STALLED else 0)
                kernel.execute(TICKS.format(WARM, 1 / RATE))
                crowd.all_lags_ms(WARM)
                began, used = time.monotonic(), cpu_s(agent)
                kernel.execute(TICKS.format(ticks, 1 / RATE))
                core = (cpu_s(agent) - used) / (time.monotonic() - began)
                time.sleep(REST_S)
                if (arm == STALLED) != bool(stalled_count(kernel)):
                    raise RuntimeError(f"{stalled_count(kernel)} peers have messages waiting for them, while {arm}")
                lags = crowd.all_lags_ms(ticks)
                if short := [len(one) for one in lags if len(one) != ticks]:
                    raise RuntimeError(f"{len(short)} peers have not all {ticks} lines, one has {short[0]}")
                everybody = [lag for one in lags for lag in one]
                pooled.add(arm, index, p95(everybody))
                if arm == CALM:
                    slowest.add(arm, index, max(p95(one) for one in lags))
                    p50s.add(arm, index, percentile(everybody, 50))
                    cores.add(arm, index, 100 * core)
    value = Compare.VALUE
    return [
        Line(
            name=f"{count} peers, {RATE} updates/s: slowest peer, lag p95",
            unit="ms",
            rtc=slowest.each(CALM),
            compare=value,
            target=100.0,
        ),
        Line(name="… all peers, lag p50", unit="ms", rtc=p50s.each(CALM), compare=value),
        Line(name="… agent, of one core", unit="%", rtc=cores.each(CALM), compare=value, target=60.0),
        Line(
            name="… with one stalled peer: the others' lag p95",
            unit="ms",
            bare=pooled.each(CALM),
            rtc=pooled.each(STALLED),
            target=1.1,
            note="against none stalled",
        ),
    ]


def stalled_count(kernel: Kernel) -> int:
    """For how many peers messages wait in the agent."""
    live = kernel.live()
    request = urllib.request.Request(f"{live.url}/api/peers", headers={"Authorization": f"Bearer {live.token}"})
    with urllib.request.urlopen(request) as answer:
        return sum(peer["waiting_messages"] > 0 for peer in json.load(answer)["peers"])


def cpu_s(pid: int) -> float:
    """Processor time of a process and its threads, so far. Linux only (``/proc``)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
