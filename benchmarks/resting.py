"""How much memory do relay and agent hold while nothing happens? Linux only (``/proc``)."""

from __future__ import annotations

import time
from pathlib import Path

from .figures import Compare, Line, Plan, Rounds
from .kernels import RTC, running

REST_S = 5.0
LIMITS_MIB = {"relay": 45.0, "agent": 80.0}


def memory(plan: Plan) -> list[Line]:
    """Resident (RSS) and proportional (PSS) memory, 5 s after the start and 5 s after 500 executions."""
    rounds = Rounds()
    count = plan.size(500)
    rest_s = REST_S * min(1.0, plan.scale)
    for index in range(plan.rounds_or(2)):
        plan.tell(f"round {index + 1}")
        with running(RTC) as kernel:
            live = kernel.live()
            pids = {"relay": live.relay_pid, "agent": live.agent_pid}
            for when in ("start", "end"):
                if when == "end":
                    for number in range(count):
                        kernel.execute(f"print({number})")
                time.sleep(rest_s)
                for who, pid in pids.items():
                    for what, mib in read(pid).items():
                        rounds.add(f"{who} {what} {when}", index, mib)
    return [
        Line(
            name=f"{who} {what}, {'after the start' if when == 'start' else f'after {count} executions'}",
            unit="MiB",
            rtc=rounds.each(f"{who} {what} {when}"),
            compare=Compare.VALUE,
            target=limit if what == "RSS" else None,
        )
        for who, limit in LIMITS_MIB.items()
        for when in ("start", "end")
        for what in ("RSS", "PSS")
    ]


def read(pid: int) -> dict[str, float]:
    """RSS and PSS of a process, in MiB."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {name.upper(): int(fields[name].split()[0]) / 1024 for name in ("Rss", "Pss")}
