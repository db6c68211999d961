"""What does the way through the relay cost whoever runs a cell?"""

from __future__ import annotations

from .figures import Compare, Line, Plan, Rounds
from .kernels import ARMS, BARE, RTC, both, settle

FLOOD = "for i in range({}): print('line', i, flush=True)"


def round_trips(plan: Plan) -> list[Line]:
    """``pass``, from submission to reply and idle: one at a time with a pause, and back to back in blocks."""
    apart, blocks = Rounds(), Rounds()
    count = plan.size(60)
    with both() as kernels:
        for kernel in kernels.values():
            for _ in range(plan.size(30)):
                kernel.execute("pass")
        for index in range(plan.rounds_or(6)):
            plan.tell(f"round {index + 1}")
            for sample in range(count):
                for arm in ARMS if sample % 2 == 0 else ARMS[::-1]:
                    settle()
                    apart.add(arm, index, kernels[arm].execute("pass").took_ms)
            for arm in ARMS if index % 2 == 0 else ARMS[::-1]:
                settle()
                for _ in range(count):
                    blocks.add(arm, index, kernels[arm].execute("pass").took_ms)
    bare, rtc = apart.each(BARE), apart.each(RTC)
    name = "execute round trip, p50"
    return [
        Line(name=name, unit="ms", bare=bare, rtc=rtc, target=1.05),
        Line(name="… added", unit="ms", bare=bare, rtc=rtc, compare=Compare.DIFFERENCE, target=0.3),
        Line(name="… back to back", unit="ms", bare=blocks.each(BARE), rtc=blocks.each(RTC), target=1.05),
    ]


def flood(plan: Plan) -> list[Line]:
    """20 000 flushed prints, until reply and idle; and whether they all come."""
    times, lost = Rounds(), Rounds()
    count = plan.size(20_000)
    with both() as kernels:
        for kernel in kernels.values():
            kernel.execute(FLOOD.format(plan.size(1000)))
        for index, arm in plan.turns("flood", 5, ARMS):
            plan.tell(f"round {index + 1}, {arm}")
            settle()
            run = kernels[arm].execute(FLOOD.format(count))
            times.add(arm, index, run.took_ns / 1e9)
            lost.add(arm, index, count - run.lines)
    return [
        Line(name=f"{count} flushed prints", unit="s", bare=times.each(BARE), rtc=times.each(RTC), target=1.05),
        Line(
            name="… lost",
            unit="lines",
            bare=lost.each(BARE, max),
            rtc=lost.each(RTC, max),
            compare=Compare.VALUE,
            target=0,
        ),
    ]
