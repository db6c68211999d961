"""How soon is a kernel followed that runs already, and what does it cost whoever runs a cell there?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import rtc_kernel
from rtc_kernel.client import Document

from .figures import Compare, Line, Plan, Rounds
from .kernels import ARMS, BARE, RTC, TIMEOUT_S, Kernel, running, settle

COMMAND = (sys.executable, "-m", "rtc_kernel.cli", "attach", "--json")
TICKS = """
import time
try:
    for _ in range(3000): print("tick", flush=True); time.sleep(0.01)
except KeyboardInterrupt: pass
"""


def attach(plan: Plan) -> list[Line]:
    """A kernel that prints is attached to: until a peer has its whole row, and the first output; then ``pass`` on a
    kernel that is attached to, against one that is not, in turns; which one that is changes with the rounds."""
    mirrored, command, trips = Rounds(), Rounds(), Rounds()
    with running(BARE) as one, running(BARE) as two:
        for index in range(plan.rounds_or(6)):
            kernel, other = (one, two) if index % 2 == 0 else (two, one)  # no two processes are equally fast
            plan.tell(f"round {index + 1}, coming")
            kernel.client.execute(TICKS)
            began = time.time()
            with attached(kernel):
                since, seen = asyncio.run(_first_seen(kernel))
                mirrored.add(RTC, index, (seen - since) * 1e3)
                command.add(RTC, index, (seen - began) * 1e3)
                kernel.manager.interrupt_kernel()
                kernel.drain()
                plan.tell(f"round {index + 1}, round trips")
                for sample in range(plan.size(60)):
                    pair = {BARE: other, RTC: kernel}
                    for arm in ARMS if sample % 2 == 0 else ARMS[::-1]:
                        settle()
                        trips.add(arm, index, pair[arm].execute("pass").took_ms)
    seen_in = mirrored.each(RTC)
    bare, rtc = trips.each(BARE), trips.each(RTC)
    return [
        Line(name="attach: row and output seen", unit="ms", rtc=seen_in, compare=Compare.VALUE, target=500.0),
        Line(name="… from the command on", unit="ms", rtc=command.each(RTC), compare=Compare.VALUE),
        Line(name="… execute round trip, p50", unit="ms", bare=bare, rtc=rtc, target=1.02),
    ]


@contextlib.contextmanager
def attached(kernel: Kernel) -> Iterator[None]:
    """Follow a kernel for a while."""
    with subprocess.Popen([*COMMAND, kernel.connection_file], stdout=subprocess.PIPE, text=True) as process:
        try:
            told = json.loads(process.stdout.readline() if process.stdout is not None else "")
            if told["event"] != "attached":
                raise RuntimeError(f"it was not attached to: {told}")
            yield
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


async def _first_seen(kernel: Kernel) -> tuple[float, float]:
    """When mirroring began, and when a peer had the kernel's row and an output. POSIX seconds."""

    def is_there(document: Document) -> bool:
        row = document.kernel
        return bool(row.language and row.display_name and any(run.outputs for run in document.executions.values()))

    async with asyncio.timeout(TIMEOUT_S), rtc_kernel.connect(kernel.live().kernel_id) as document:
        await document.wait_for(is_there)
        seen = time.time()
        return float(document.kernel.last_activity_at or seen), seen
