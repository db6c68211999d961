"""How far is a follower's replica behind a plain subscriber of a bare kernel?"""

from __future__ import annotations

from statistics import median

from .executing import FLOOD
from .figures import Compare, Line, Plan, Rounds, p95
from .kernels import ARMS, BARE, RTC, TICK, both, running, settle
from .observers import peer, subscriber

DIRECT = "rtc iopub"
"""A subscriber of another RTC kernel's iopub: what of the lag is the relay's."""

TICKS = f"import time\nfor _ in range({{}}): {TICK}; time.sleep(0.01)"


def visible(plan: Plan) -> list[Line]:
    """From the submission of a ``print`` until the observer has its text."""
    rounds, arms = Rounds(), (BARE, RTC, DIRECT)
    with (
        both() as kernels,
        running(RTC) as third,
        subscriber(kernels[BARE]) as bare,
        peer(kernels[RTC]) as rtc,
        subscriber(third) as direct,
    ):
        observers = {BARE: bare, RTC: rtc, DIRECT: direct}
        for observer in observers.values():
            for _ in range(plan.size(20)):
                observer.watch()
        for index in range(plan.rounds_or(6)):
            plan.tell(f"round {index + 1}")
            for sample in range(plan.size(50)):
                for arm in arms if sample % 2 == 0 else arms[::-1]:
                    settle()
                    run, report = observers[arm].watch()
                    rounds.add(arm, index, (report.at_ns - run.submitted_ns) / 1e6)
    p50s, p95s = ({arm: rounds.each(arm, summary) for arm in arms} for summary in (median, p95))
    difference = Compare.DIFFERENCE
    return [
        Line(
            name="print(1) → visible to a peer, p50",
            unit="ms",
            bare=p50s[BARE],
            rtc=p50s[RTC],
            compare=difference,
            target=1.5,
        ),
        Line(name="… p95", unit="ms", bare=p95s[BARE], rtc=p95s[RTC], compare=difference, target=4.0),
        Line(
            name="… against iopub of an RTC kernel, p50",
            unit="ms",
            bare=p50s[DIRECT],
            rtc=p50s[RTC],
            compare=difference,
        ),
        Line(name="… p95", unit="ms", bare=p95s[DIRECT], rtc=p95s[RTC], compare=difference),
    ]


def flood(plan: Plan) -> list[Line]:
    """20 000 flushed prints: when the observer has them all, and what went over the wire for it."""
    times, lost, wire = Rounds(), Rounds(), Rounds()
    count = plan.size(20_000)
    text_bytes = sum(len(f"line {number}\n") for number in range(count))
    with both() as kernels, subscriber(kernels[BARE]) as bare, peer(kernels[RTC]) as rtc:
        observers = {BARE: bare, RTC: rtc}
        for observer in observers.values():
            observer.watch(FLOOD.format(plan.size(1000)))
        for index, arm in plan.turns("flood", 5, ARMS):
            plan.tell(f"round {index + 1}, {arm}")
            settle()
            run, report = observers[arm].watch(FLOOD.format(count))
            times.add(arm, index, (report.at_ns - run.submitted_ns) / 1e9)
            lost.add(arm, index, count - report.lines)
            wire.add(arm, index, report.wire_bytes / 1024)
    return [
        Line(
            name=f"{count} lines complete at a peer", unit="s", bare=times.each(BARE), rtc=times.each(RTC), target=1.1
        ),
        Line(
            name="… lost",
            unit="lines",
            bare=lost.each(BARE, max),
            rtc=lost.each(RTC, max),
            compare=Compare.VALUE,
            target=0,
        ),
        Line(
            name="… bytes on the wire",
            unit="KiB",
            bare=tuple(text_bytes / 1024 for _ in wire.samples[RTC]),
            rtc=wire.each(RTC),
            target=1.5,
            note="against the text's",
        ),
    ]


def ticks(plan: Plan) -> list[Line]:
    """A cell that prints every 10 ms: the lag of each line, by the cell's own clock."""
    lags = Rounds()
    with both() as kernels, subscriber(kernels[BARE]) as bare, peer(kernels[RTC]) as rtc:
        observers = {BARE: bare, RTC: rtc}
        for index, arm in plan.turns("ticks", 4, ARMS):
            plan.tell(f"round {index + 1}, {arm}")
            settle()
            _, report = observers[arm].watch(TICKS.format(plan.size(300)))
            lags.add(arm, index, *(lag / 1e6 for lag in report.lags_ns))
    difference = Compare.DIFFERENCE
    return [
        Line(
            name="a line every 10 ms, lag p95",
            unit="ms",
            bare=lags.each(BARE, p95),
            rtc=lags.each(RTC, p95),
            compare=difference,
            target=3.0,
        ),
        Line(name="… p50", unit="ms", bare=lags.each(BARE), rtc=lags.each(RTC), compare=difference),
    ]
