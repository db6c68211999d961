"""How long does a kernel need until it answers?"""

from __future__ import annotations

import time
from collections.abc import Callable

import zmq
from jupyter_client import KernelManager

from .figures import Line, Plan, Rounds
from .kernels import ARMS, BARE, RTC, SPECS, TIMEOUT_S, launched, settle

RECONNECT_MS = 2
"""A stock client tries to connect every 100 ms, which rounds up what it measures; ours tries more often."""


def ready(plan: Plan) -> list[Line]:
    """From ``start_kernel`` to the reply to ``kernel_info``, with fresh kernels each time."""
    eager, stock = Rounds(), Rounds()
    for arm in ARMS:  # once, so that every file was read and compiled before
        _start(arm, _ask_eagerly)
    for index, arm in plan.turns("ready", 10, ARMS):
        plan.tell(f"round {index + 1}, {arm}")
        for rounds, ask in ((eager, _ask_eagerly), (stock, _ask_as_frontends_do)):
            settle()
            rounds.add(arm, index, _start(arm, ask))
    return [
        Line(name="kernel ready", unit="ms", bare=eager.each(BARE), rtc=eager.each(RTC), target=1.15),
        Line(
            name="… as a stock client sees it",
            unit="ms",
            bare=stock.each(BARE),
            rtc=stock.each(RTC),
            note="which tries to connect every 100 ms",
        ),
    ]


def _start(arm: str, ask: Callable[[KernelManager], None]) -> float:
    """Milliseconds until the answer."""
    manager = KernelManager(kernel_name=SPECS[arm])
    started_ns = time.monotonic_ns()
    with launched(manager):
        ask(manager)
        return (time.monotonic_ns() - started_ns) / 1e6


def _ask_eagerly(manager: KernelManager) -> None:
    session = manager.session
    with zmq.Context() as context, context.socket(zmq.DEALER) as shell:
        shell.linger = 0
        shell.reconnect_ivl = RECONNECT_MS
        shell.routing_id = session.bsession
        shell.connect(f"tcp://{manager.ip}:{manager.shell_port}")
        session.send(shell, "kernel_info_request", {})
        if not shell.poll(TIMEOUT_S * 1000):
            raise TimeoutError("no reply to kernel_info_request")
        session.recv(shell)


def _ask_as_frontends_do(manager: KernelManager) -> None:
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.kernel_info()
        client.get_shell_msg(timeout=TIMEOUT_S)
    finally:
        client.stop_channels()
