"""What does it cost when a kernel shows far too much? Linux only (``/proc``).

The kernel's slowing is timed beside a bare one; memory is the most that a process held meanwhile, above what it held
before; a replica is what a first sync carries afterwards. ``… CPU`` is the processor time of relay and agent: where
kernel, client, relay and agent share two cores it is what slows the kernel.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from .figures import Compare, Line, Plan, Rounds
from .kernels import ARMS, BARE, RTC, TIMEOUT_S, Kernel, both, running, settle
from .observe import update_of
from .observers import peer, room

MIB = 1 << 20

QUIET_S = 0.3
"""A process that used no processor for so long has done all that it had to."""

LINES = "line = 'x' * 99\nfor i in range({}): print(line)"
MESSAGE = "print('x' * {})"
IMAGES = """
import base64, os
from IPython.display import display
head = base64.b64decode({head!r})
for i in range({count}):
    data = head + os.urandom({size} - len(head))
    display({{'image/png': base64.b64encode(data).decode(), 'text/plain': '<Figure>'}}, raw=True)
"""
BAR = """
import sys
for i in range({}):
    sys.stdout.write('\\r%6d it |%s|' % (i, '#' * (i * 60 // {})))
    sys.stdout.flush()
"""
SMALL = "print({})"


def lines(plan: Plan) -> list[Line]:
    """200 MB in lines."""
    return _shown(plan, f"{plan.size(200)} MB in lines", LINES.format(plan.size(200) * 10_000), replica_mib=2.0)


def message(plan: Plan) -> list[Line]:
    """200 MB in one message."""
    return _shown(
        plan, f"{plan.size(200)} MB in one message", MESSAGE.format(plan.size(200) * 1_000_000), replica_mib=2.0
    )


def images(plan: Plan) -> list[Line]:
    """1000 images of 100 kB, no two the same."""
    count = plan.size(1000)
    head = base64.b64encode(png_head()).decode()
    code = IMAGES.format(head=head, count=count, size=100_000)
    return _shown(plan, f"{count} images of 100 kB", code, replica_mib=5.0)


def _shown(plan: Plan, name: str, code: str, *, replica_mib: float) -> list[Line]:
    times, spent, grown, replica = Rounds(), Rounds(), Rounds(), Rounds()
    for index in range(plan.rounds_or(3)):
        with both() as kernels:
            pids = _processes(kernels[RTC])
            for kernel in kernels.values():
                kernel.execute("import base64, os\nfrom IPython.display import display\nprint(1)")
            for arm in ARMS if index % 2 == 0 else ARMS[::-1]:
                plan.tell(f"round {index + 1}, {arm}")
                settle()
                if arm == BARE:
                    times.add(arm, index, kernels[arm].execute(code).took_ns / 1e9)
                    continue
                before = {who: _rss_mib(pid) for who, pid in pids.items()}
                cpu = {who: _cpu_s(pid) for who, pid in pids.items()}
                for pid in pids.values():
                    _forget_peak(pid)
                times.add(arm, index, kernels[arm].execute(code).took_ns / 1e9)
                _catch_up(pids.values())
                for who, pid in pids.items():
                    grown.add(who, index, _peak_mib(pid) - before[who])
                    spent.add(who, index, _cpu_s(pid) - cpu[who])
            replica.add(RTC, index, _replica_bytes(kernels[RTC]) / MIB)
    value = Compare.VALUE
    return [
        Line(name=name, unit="s", bare=times.each(BARE), rtc=times.each(RTC), target=1.1),
        *(Line(name=f"… CPU of the {who}", unit="s", rtc=spent.each(who), compare=value) for who in ("relay", "agent")),
        Line(name="… agent's memory", unit="MiB", rtc=grown.each("agent"), compare=value, target=64.0),
        Line(name="… relay's memory", unit="MiB", rtc=grown.each("relay"), compare=value),
        Line(name="… a replica", unit="MiB", rtc=replica.each(RTC), compare=value, target=replica_mib),
    ]


def bar(plan: Plan) -> list[Line]:
    """A progress bar of 100 000 updates: its row, and what a peer got for it."""
    wire, row = Rounds(), Rounds()
    count = plan.size(100_000)
    for index in range(plan.rounds_or(3)):
        plan.tell(f"round {index + 1}")
        with running(RTC) as kernel, peer(kernel) as observer:
            settle()
            before = _replica_bytes(kernel)
            observer.watch()
            _, report = observer.watch(BAR.format(count, count) + "print()")
            wire.add(RTC, index, report.wire_bytes / MIB)
            row.add(RTC, index, (_replica_bytes(kernel) - before) / 1024)
    name = f"a bar of {count} updates"
    value = Compare.VALUE
    return [
        Line(name=f"{name}, its row", unit="KiB", rtc=row.each(RTC), compare=value, target=4.0),
        Line(name="… on the wire", unit="MiB", rtc=wire.each(RTC), compare=value, target=1.0),
    ]


def small(plan: Plan) -> list[Line]:
    """100 000 small executions: the agent's memory, the document, the store."""
    few, many = plan.size(1000), plan.size(100_000)
    memory, replica, store = Rounds(), Rounds(), Rounds()
    for index in range(plan.rounds_or(1)):
        with running(RTC) as kernel:
            live = kernel.live()
            text_bytes = 0
            for number in range(many):
                code = SMALL.format(number)
                kernel.execute(code)
                text_bytes += len(code) + len(str(number)) + 1
                if number + 1 == few:
                    _catch_up([live.agent_pid])
                    memory.add(BARE, index, _rss_mib(live.agent_pid))
                if number % 1000 == 0:
                    plan.tell(f"{number} of {many}")
            _catch_up([live.agent_pid])
            memory.add(RTC, index, _rss_mib(live.agent_pid))
            replica.add(RTC, index, _replica_bytes(kernel) / MIB)
            store.add(RTC, index, _store_bytes(Path(live.store or "")) / MIB)
            store.add(BARE, index, text_bytes / MIB)
    return [
        Line(
            name=f"agent's memory after {many} executions",
            unit="MiB",
            bare=memory.each(BARE),
            rtc=memory.each(RTC),
            target=1.3,
            note=f"against after {few}",
        ),
        Line(name="… a replica", unit="MiB", rtc=replica.each(RTC), compare=Compare.VALUE, target=33.0),
        Line(
            name="… the store",
            unit="MiB",
            bare=store.each(BARE),
            rtc=store.each(RTC),
            note="against code and outputs",
        ),
    ]


def text_store(plan: Plan) -> list[Line]:
    """Cells as in a notebook, 400 bytes of code and 2 kB of output: the store against that text."""
    store = Rounds()
    count = plan.size(1000)
    code = (
        "rows = [f'{i:6} {i * 0.731:12.6f} {hash(i):20}' for i in range(50)]\n"
        + "# what it is for\n" * 20
        + "print('\\n'.join(rows))"
    )
    for index in range(plan.rounds_or(1)):
        with running(RTC) as kernel:
            for _ in range(count):
                kernel.execute(code)
            live = kernel.live()
            _catch_up([live.agent_pid])
            store.add(RTC, index, _store_bytes(Path(live.store or "")) / MIB)
            store.add(BARE, index, count * (len(code) + 2050) / MIB)
    return [
        Line(
            name=f"the store after {count} cells of 2 kB",
            unit="MiB",
            bare=store.each(BARE),
            rtc=store.each(RTC),
            target=2.0,
            note="against code and outputs",
        )
    ]


def bounds(plan: Plan) -> list[Line]:
    """All of them."""
    return [line for measure in (lines, message, images, bar, small, text_store) for line in measure(plan)]


def png_head() -> bytes:
    """Signature and ``IHDR`` of a PNG of 640 x 480 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 640, 480, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def _catch_up(pids: Iterable[int]) -> None:
    """Until these processes have nothing to do."""
    seen = -1.0
    while seen != (seen := sum(map(_cpu_s, pids))):
        time.sleep(QUIET_S)


async def _fetch_update(url: str, token: str) -> bytes:
    """What a first sync carries."""
    request = HTTPRequest(url, headers={"Authorization": f"Bearer {token}"})
    socket = await websocket_connect(request, max_message_size=1 << 30)
    await socket.write_message(b"\x00\x00\x01\x00", binary=True)
    while True:
        data = await socket.read_message()
        if data is None:
            raise ConnectionError(f"closed: {socket.close_code} {socket.close_reason}")
        if isinstance(data, bytes) and (update := update_of(data)):
            socket.close()
            return update


def _replica_bytes(kernel: Kernel) -> int:
    return len(asyncio.run(asyncio.wait_for(_fetch_update(*room(kernel)), TIMEOUT_S)))


def _processes(kernel: Kernel) -> dict[str, int]:
    live = kernel.live()
    return {"relay": live.relay_pid, "agent": live.agent_pid}


def _status_mib(pid: int, name: str) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields[name].split()[0]) / 1024


def _rss_mib(pid: int) -> float:
    return _status_mib(pid, "VmRSS")


def _peak_mib(pid: int) -> float:
    return _status_mib(pid, "VmHWM")


def _forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _store_bytes(path: Path) -> int:
    """Of the file with its journal written back."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (pages,), (size,) = (
            connection.execute("PRAGMA page_count").fetchone(),
            connection.execute("PRAGMA page_size").fetchone(),
        )
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return (pages - free) * size
