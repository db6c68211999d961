"""How fast is what a peer asks for with a row of the ``requests``?

Writers and observers are processes of their own, raw Yjs peers without code of ours (:mod:`write`, :mod:`observe`); the
clock is CLOCK_MONOTONIC, one for all of them. A time begins just before the transaction that writes the row, in the
writer, and ends when the replica of another peer has what is waited for, in the observer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from statistics import median

from .executing import FLOOD
from .figures import Compare, Line, Plan, Rounds, p95
from .kernels import ARMS, BARE, RTC, TIMEOUT_S, Kernel, Run, both, settle
from .observers import INTERRUPTED, Observer, observing, peer, subscriber
from .peers import Adapter, driving
from .writers import Writers, writers

SAMPLES = 50
PEERS = 10
RATE = 0.6
"""What part of the bare kernel's rate is asked for: times 1 / 0.6."""

TAKEN = "taken"
AT_ONCE = "at once"

SLEEP = "import time; time.sleep(60)"
INTERRUPT_AFTER_S = (0.05, 0.35)
"""How long after the cell's first output it is interrupted: anywhere in between, so that no phase is always hit."""


def visible(plan: Plan) -> list[Line]:
    """From a row that runs a ``print`` until another peer's replica of ``state`` has its text; beside it, from an
    ``execute_request`` to a bare kernel until a subscriber of its iopub has the stream message."""
    rounds, taken = Rounds(), Rounds()
    with both() as kernels, writers(kernels[RTC]) as writer:

        def run(code: str) -> Run:
            written = writer.do(action="execute", code=code)
            taken_ms.append((written.taken_ns - written.written_ns) / 1e6)
            return Run(written.written_ns, written.ended_ns - written.written_ns, 0)

        taken_ms: list[float] = []
        with subscriber(kernels[BARE]) as bare, peer(kernels[RTC], run) as rtc:

            def between(index: int) -> None:
                taken.add(TAKEN, index, *taken_ms[-plan.size(SAMPLES) :])  # without those of the start
                kernels[RTC].drain()

            _alternate(plan, rounds, {BARE: bare, RTC: rtc}, between)
    p50s, p95s = ({arm: rounds.each(arm, summary) for arm in ARMS} for summary in (median, p95))
    difference = Compare.DIFFERENCE
    name = "row written → another peer has print(1), p50"
    return [
        Line(name=name, unit="ms", bare=p50s[BARE], rtc=p50s[RTC], compare=difference, target=3.0),
        Line(name="… p95", unit="ms", bare=p95s[BARE], rtc=p95s[RTC], compare=difference, target=8.0),
        Line(name="… acknowledged, p50", unit="ms", rtc=taken.each(TAKEN), compare=Compare.VALUE),
        Line(name="… p95", unit="ms", rtc=taken.each(TAKEN, p95), compare=Compare.VALUE),
    ]


def beside(adapter: Adapter) -> Callable[[Plan], list[Line]]:
    """The benchmark that measures :func:`visible` of ours and of another system, in turns.

    There a client asks over that system's HTTP interface, and another follows the shared notebook over WebSocket,
    with the same observer. A time begins just before the request is sent.
    """
    return partial(_beside, adapter)


def _beside(adapter: Adapter, plan: Plan) -> list[Line]:
    rounds = Rounds()
    with (
        driving(adapter, plan.tell) as system,
        both() as kernels,
        writers(kernels[RTC]) as writer,
        subscriber(kernels[BARE]) as bare,
        peer(kernels[RTC], writer.run) as rtc,
        observing(system.run, "notebook", system.url, system.token) as theirs,
    ):
        observers = {BARE: bare, RTC: rtc, adapter.name: theirs}
        _alternate(plan, rounds, observers, lambda index: kernels[RTC].drain())
    lines = []
    for words, summary in (("asked → another peer has print(1), p50", median), ("… p95", p95)):
        bare_ms, ours, other = (rounds.each(arm, summary) for arm in (BARE, RTC, adapter.name))
        note = f"against {system.version}, itself {median(other) - median(bare_ms):+.2f} ms from bare"
        lines.append(Line(name=words, unit="ms", bare=other, rtc=ours, compare=Compare.DIFFERENCE, note=note))
    return lines


def _alternate(
    plan: Plan, rounds: Rounds, observers: dict[str, Observer], between: Callable[[int], None] | None = None
) -> None:
    """Sample how long each arm takes until its observer sees a ``print``: A B, B A, …"""
    arms = list(observers)
    for observer in observers.values():
        for _ in range(plan.size(20)):
            observer.watch()
    for index in range(plan.rounds_or(6)):
        plan.tell(f"round {index + 1}")
        for sample in range(plan.size(SAMPLES)):
            for arm in arms if sample % 2 == 0 else arms[::-1]:
                settle()
                run, report = observers[arm].watch()
                rounds.add(arm, index, (report.at_ns - run.submitted_ns) / 1e6)
        if between is not None:
            between(index)


def rows(plan: Plan) -> list[Line]:
    """1000 rows of ``pass``, 100 from each of 10 peers that write as fast as they can, until an observer's replica of
    ``state`` has the end of all their executions; beside it, 1000 requests that one client sends to a bare kernel
    without waiting, until it has all replies. All ten are sent everything, one applies it (:mod:`write` says why)."""
    rounds = Rounds()
    each = plan.size(1000 // PEERS)
    count = each * PEERS
    with both() as kernels, writers(kernels[RTC], PEERS) as writer, peer(kernels[RTC]) as observer:
        measures: dict[str, Callable[[], float]] = {
            BARE: lambda: _answer(kernels[BARE], count),
            RTC: lambda: _run_rows(writer, observer, each, at_once=False),
            AT_ONCE: lambda: _run_rows(writer, observer, each, at_once=True),
        }
        for measure in measures.values():  # once, so that what is slow the first time is over
            measure()
        for index, arm in plan.turns("rows", 4, list(measures)):
            plan.tell(f"round {index + 1}, {arm}")
            for kernel in kernels.values():
                kernel.drain()
            settle()
            rounds.add(arm, index, measures[arm]())
    bare, target = rounds.each(BARE), round(1 / RATE, 3)
    name, note = f"{count} rows of pass from {PEERS} peers", "against one client's at once; 60 % of its rate is 1.667"
    return [
        Line(name=name, unit="s", bare=bare, rtc=rounds.each(RTC), target=target, note=note),
        Line(name="… each peer's in one transaction", unit="s", bare=bare, rtc=rounds.each(AT_ONCE), target=target),
    ]


def _answer(kernel: Kernel, count: int) -> float:
    """Seconds that a kernel takes to answer so many requests."""
    client = kernel.client
    started_ns = time.monotonic_ns()
    waiting = {client.execute("pass") for _ in range(count)}
    while waiting:
        reply = client.get_shell_msg(timeout=TIMEOUT_S)
        waiting.discard(reply["parent_header"].get("msg_id"))
    return (time.monotonic_ns() - started_ns) / 1e9


def _run_rows(writer: Writers, observer: Observer, each: int, *, at_once: bool) -> float:
    """Seconds from the first row until the observer has all ends."""
    row = {"action": "execute", "code": "pass"}
    written = writer.wait(writer.write(*[[row] * each] * PEERS, at_once=at_once))
    _, report = observer.watch()
    if report.ended_rows != each * PEERS:
        raise RuntimeError(f"the observer saw {report.ended_rows} of {each * PEERS} executions end")
    return (report.ended_at_ns - written.written_ns) / 1e9


def interrupt(plan: Plan) -> list[Line]:
    """From an ``interrupt`` row until another peer's replica has the KeyboardInterrupt, of a cell that sleeps and of
    one that prints line after line; beside it, from the signal until a bare kernel's subscriber has it."""
    cells = {"asleep": SLEEP, "flood": FLOOD.format(2_000_000)}  # the flood has to outlast the wait for its interrupt
    found = {name: Rounds() for name in cells}
    with (
        both() as kernels,
        writers(kernels[RTC]) as writer,
        subscriber(kernels[BARE]) as bare,
        peer(kernels[RTC], writer.run) as rtc,
    ):
        measures: dict[str, Callable[[str], float]] = {
            BARE: partial(_signal, kernels[BARE], bare),
            RTC: partial(_interrupt, writer, rtc),
        }
        for name, samples in (("asleep", 10), ("flood", 4)):
            for index, arm in plan.turns(name, 5, ARMS):
                plan.tell(f"{name}, round {index + 1}, {arm}")
                for _ in range(plan.size(samples)):
                    settle()
                    found[name].add(arm, index, measures[arm](cells[name]))
                    kernels[arm].drain()
    value = Compare.VALUE
    asleep, flood = ({arm: found[name].each(arm, p95) for arm in ARMS} for name in cells)
    name = "interrupt row → another peer has the KeyboardInterrupt, p95"
    bare_note = "bare is the signal → iopub"
    return [
        Line(name=name, unit="ms", bare=asleep[BARE], rtc=asleep[RTC], compare=value, target=150.0, note=bare_note),
        Line(
            name="… during a flood of flushed prints, p95",
            unit="ms",
            bare=flood[BARE],
            rtc=flood[RTC],
            compare=value,
            target=150.0,
        ),
    ]


def _interrupt(writer: Writers, observer: Observer, code: str) -> float:
    """Milliseconds from the row until the observer has the error."""
    token = observer.make_token()
    batch = writer.write([{"action": "execute", "code": f"print('end {token}', flush=True)\n{code}"}])
    observer.report(token)
    time.sleep(random.uniform(*INTERRUPT_AFTER_S))
    written = writer.do(action="interrupt")
    report = observer.report(INTERRUPTED)
    writer.wait(batch)
    return (report.at_ns - written.written_ns) / 1e6


def _signal(kernel: Kernel, observer: Observer, code: str) -> float:
    """The same for a kernel that is signalled by whoever started it."""
    token = observer.make_token()
    kernel.client.execute(f"print('end {token}', flush=True)\n{code}")
    observer.report(token)
    time.sleep(random.uniform(*INTERRUPT_AFTER_S))
    signalled_ns = time.monotonic_ns()
    kernel.manager.interrupt_kernel()
    report = observer.report(INTERRUPTED)
    return (report.at_ns - signalled_ns) / 1e6
