"""How much later than at the side socket is a kernel's output at the far end of a relay, with many who follow there?

The relay is that of ``examples/relay``: two Hocuspocus instances and a Redis, all on this machine. The kernel publishes
at the one, everybody follows at the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rtc_kernel import rooms

from .crowding import RATE, TICKS, WARM, crowded
from .executing import FLOOD
from .figures import Compare, Line, Plan, Rounds, p95, percentile
from .kernels import RTC, Kernel, running, settle, wait_until
from .observers import observing, peer, room
from .ports import free_ports

FOLLOWERS = 200
LOCAL, FAR = "local", "far"
RELAY = Path(__file__).parent.parent / "examples" / "relay"
NODE = RELAY / "node_modules" / ".bin" / "node"
ROOM = "benchmark"


@dataclass(frozen=True, slots=True)
class Relay:
    """Two instances, and the tokens to publish and to view."""

    here: str
    there: str
    publish: str
    view: str


def lacks() -> str:
    """What is missing on this machine; empty: nothing."""
    if not NODE.exists():
        return "run `npm ci` in examples/relay"
    return "" if shutil.which("redis-server") else "redis-server is not installed"


@contextlib.contextmanager
def relaying() -> Iterator[Relay]:
    """A relay that listens."""
    if missing := lacks():
        raise RuntimeError(missing)
    publish, view = secrets.token_urlsafe(), secrets.token_urlsafe()
    tokens = {
        one: {"name": one[:4], "role": role, "rooms": ROOM} for one, role in ((publish, "publish"), (view, "view"))
    }
    port, _ = free_ports(2)
    with TemporaryDirectory() as home:
        path = Path(home) / "tokens.json"
        path.write_text(json.dumps(tokens))
        argv = [NODE, RELAY / "start.mjs", "--port", str(port), "--tokens", path]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=RELAY) as process:
            try:
                wait_until(lambda: is_up(port) and is_up(port + 1), "the relay listens", 30)
                yield Relay(f"ws://127.0.0.1:{port}", f"ws://127.0.0.1:{port + 1}", publish, view)
            finally:
                process.terminate()


@contextlib.contextmanager
def published(relay: Relay) -> Iterator[tuple[Kernel, tuple[str, str, str]]]:
    """A kernel that is published; with it URL, token and document's name at the far end."""
    environment = {
        "RTC_KERNEL_RELAYS": relay.here,
        "RTC_KERNEL_RELAY_ROOM": ROOM,
        "RTC_KERNEL_RELAY_TOKEN": relay.publish,
    }
    with set_for_now(environment), running(RTC) as kernel:
        wait_until(lambda: health(kernel)["relays"][0]["state"] == "live", "the relay has the document", 30)
        name = rooms.document_name(ROOM, kernel.live().kernel_id, "state", health(kernel)["epoch"])
        yield kernel, (f"{relay.there}/", relay.view, name)


def follow(plan: Plan) -> list[Line]:
    """A cell that prints every 50 ms: the lag of each line at one peer of the side socket, and at each at the relay."""
    p50s, p95s = Rounds(), Rounds()
    count, ticks = plan.size(FOLLOWERS), plan.size(10 * RATE)
    with (
        relaying() as relay,
        published(relay) as (kernel, far),
        crowded(*room(kernel), 1) as local,
        crowded(far[0], far[1], count, far[2]) as followers,
    ):
        crowds = {LOCAL: local, FAR: followers}
        for index in range(plan.rounds_or(4)):
            plan.tell(f"round {index + 1}")
            kernel.execute(TICKS.format(WARM, 1 / RATE))
            for crowd in crowds.values():
                crowd.all_lags_ms(WARM)
            kernel.execute(TICKS.format(ticks, 1 / RATE))
            for arm, crowd in crowds.items():
                lags = crowd.all_lags_ms(ticks)
                if short := [len(one) for one in lags if len(one) != ticks]:
                    raise RuntimeError(f"{len(short)} followers have not all {ticks} lines, one has {short[0]}")
                everybody = [lag for one in lags for lag in one]
                p50s.add(arm, index, percentile(everybody, 50))
                p95s.add(arm, index, p95(everybody))
    difference = Compare.DIFFERENCE
    name = f"{count} followers at a relay of two, {RATE} updates/s: lag above the side socket's"
    return [
        Line(
            name=f"{name}, p50", unit="ms", bare=p50s.each(LOCAL), rtc=p50s.each(FAR), compare=difference, target=15.0
        ),
        Line(name="… p95", unit="ms", bare=p95s.each(LOCAL), rtc=p95s.each(FAR), compare=difference, target=50.0),
    ]


def flood(plan: Plan) -> list[Line]:
    """20 000 flushed prints: when a replica has them all."""
    times, lost = Rounds(), Rounds()
    count = plan.size(20_000)
    with (
        relaying() as relay,
        published(relay) as (kernel, far),
        peer(kernel) as local,
        observing(kernel.execute, "peer", *far) as follower,
    ):
        for index in range(plan.rounds_or(5)):
            plan.tell(f"round {index + 1}")
            settle()
            run, report = local.watch(FLOOD.format(count))
            reports = {LOCAL: report, FAR: follower.report(report.token)}
            for arm, one in reports.items():
                times.add(arm, index, (one.at_ns - run.submitted_ns) / 1e9)
                lost.add(arm, index, count - one.lines)
    return [
        Line(
            name=f"{count} lines complete at a follower at a relay of two",
            unit="s",
            bare=times.each(LOCAL),
            rtc=times.each(FAR),
            target=1.5,
            note="against the side socket",
        ),
        Line(
            name="… lost",
            unit="lines",
            bare=lost.each(LOCAL, max),
            rtc=lost.each(FAR, max),
            compare=Compare.VALUE,
            target=0,
        ),
    ]


def health(kernel: Kernel) -> dict:
    """What the agent says of itself."""
    live = kernel.live()
    request = urllib.request.Request(f"{live.url}/api/health", headers={"Authorization": f"Bearer {live.token}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@contextlib.contextmanager
def set_for_now(environment: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that whatever is started meanwhile has."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def is_up(port: int) -> bool:
    """Whether somebody listens."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False
