"""How long until somebody who comes late has everything?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pycrdt import Doc, Map
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from .figures import Compare, Line, Plan, Rounds
from .kernels import BARE, RTC, TIMEOUT_S, running, settle
from .observe import update_of
from .observers import room

SAMPLES = 10


def late(plan: Plan) -> list[Line]:
    """From connecting to having all rows, against pycrdt applying the same update to an empty document."""
    rounds = Rounds()
    count = plan.size(500)
    with running(RTC) as kernel:
        where = room(kernel)
        for number in range(count):
            kernel.execute(f"print({number})")
        size_bytes = _measure(plan, rounds, where, count, SAMPLES)
    return [
        Line(
            name=f"joining late on {count} executions",
            unit="ms",
            bare=rounds.each(BARE),
            rtc=rounds.each(RTC),
            target=2.0,
            note=f"against pycrdt applying the {size_bytes / 1024:.0f} KiB",
        )
    ]


def full(plan: Plan) -> list[Line]:
    """The same with a window as full as the default limits let it be: 500 executions, 32 MiB."""
    rounds = Rounds()
    count, line = plan.size(500), "x" * 79
    with running(RTC) as kernel:
        where = room(kernel)
        for number in range(count):
            kernel.execute(f"print('\\n'.join(f'{{n:06}} {line[7:]}' for n in range({number}, {number + 780})))")
        size_bytes = _measure(plan, rounds, where, count, 1)
    return [
        Line(
            name=f"joining late on {count} executions, {size_bytes / 1048576:.0f} MiB",
            unit="ms",
            bare=rounds.each(BARE),
            rtc=rounds.each(RTC),
            compare=Compare.VALUE,
            target=1000.0,
            note="bare: pycrdt applying it",
        )
    ]


def _measure(plan: Plan, rounds: Rounds, where: tuple[str, str], count: int, samples: int) -> int:
    """So many joins a round, each with what pycrdt takes for it alone; how large the update is."""
    size_bytes = 0
    for index in range(plan.rounds_or(5)):
        plan.tell(f"round {index + 1}")
        for _ in range(samples):
            settle()
            took_ms, update = asyncio.run(asyncio.wait_for(_join(*where, count), TIMEOUT_S))
            size_bytes = len(update)
            rounds.add(RTC, index, took_ms)
            settle()
            rounds.add(BARE, index, _apply(update, count))
    return size_bytes


async def _join(url: str, token: str, count: int) -> tuple[float, bytes]:
    """Milliseconds from connecting until all rows are there, and the update that brought them."""
    started_ns = time.monotonic_ns()
    doc: Doc[Any] = Doc()
    executions = doc.get("executions", type=Map)
    request = HTTPRequest(url, headers={"Authorization": f"Bearer {token}"})
    socket = await websocket_connect(request, max_message_size=1 << 30)
    await socket.write_message(b"\x00\x00\x01\x00", binary=True)
    while True:
        data = await socket.read_message()
        if data is None:
            raise ConnectionError(f"closed: {socket.close_code} {socket.close_reason}")
        if isinstance(data, bytes) and (update := update_of(data)):
            doc.apply_update(update)
            if len(executions) >= count:
                break
    took_ms = (time.monotonic_ns() - started_ns) / 1e6
    socket.close()
    return took_ms, update


def _apply(update: bytes, count: int) -> float:
    """Milliseconds that pycrdt takes for it alone."""
    started_ns = time.monotonic_ns()
    doc: Doc[Any] = Doc()
    executions = doc.get("executions", type=Map)
    doc.apply_update(update)
    if len(executions) < count:
        raise RuntimeError(f"{len(executions)} rows instead of {count}")
    return (time.monotonic_ns() - started_ns) / 1e6
