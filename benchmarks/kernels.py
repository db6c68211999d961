"""How is a kernel started, run and taken away again, without touching the user's Jupyter?"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_client import BlockingKernelClient, KernelManager

from rtc_kernel import discovery

BARE, RTC = "bare", "rtc"
ARMS = (BARE, RTC)
SPECS = {BARE: "python3", RTC: "rtc-python"}

SETTLE_S = 0.05
"""Pause between two samples, so that what one kernel does afterwards is not paid by the other one's sample. Longer
than ``store_delay_s``: the rows of the sample before are on disk by then."""

DRAIN_MS = 100
"""What has not come after such a pause does not come."""

TIMEOUT_S = 120.0

TICK = "print('at ' + str(time.monotonic_ns()) + '\\n', end='', flush=True)"
"""Code that prints a line with its time, in one piece: what is written in several, a busy machine may cut."""

LOG = "kernels.log"
"""What kernels write to stderr, in the private home."""


@contextlib.contextmanager
def private_home() -> Iterator[Path]:
    """A Jupyter home of our own, for us and every process that we start; removed at the end."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="rtc-benchmarks-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        for name, place in {
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_CONFIG_DIR": "config",
            "IPYTHONDIR": "ipython",
        }.items():
            (home / place).mkdir()
            os.environ[name] = str(home / place)
        for name in [name for name in os.environ if name.startswith("RTC_KERNEL_")]:
            del os.environ[name]
        # pip compiles what it installs; a checkout must be allowed to, or each start compiles it anew
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
        try:
            yield home
        finally:
            os.environ.clear()
            os.environ.update(before)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution as its client saw it.

    Attributes:
        submitted_ns: monotonic, just before the request was made.
        took_ns: until both its reply and its idle were there.
        lines: how many lines it printed.
    """

    submitted_ns: int
    took_ns: int
    lines: int

    @property
    def took_ms(self) -> float:
        return self.took_ns / 1e6


class Kernel:
    """A running kernel with one blocking client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    @property
    def connection_file(self) -> str:
        return str(self.manager.connection_file)

    @property
    def iopub_url(self) -> str:
        return f"tcp://{self.manager.ip}:{self.manager.iopub_port}"

    def execute(self, code: str) -> Run:
        """Run a cell until reply and idle.

        Raises:
            RuntimeError: the cell failed.
        """
        client = self.client
        submitted_ns = time.monotonic_ns()
        msg_id = client.execute(code)
        lines = 0
        while True:
            message = client.get_iopub_msg(timeout=TIMEOUT_S)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "stream":
                lines += message["content"]["text"].count("\n")
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while True:
            reply = client.get_shell_msg(timeout=TIMEOUT_S)
            if reply["parent_header"].get("msg_id") == msg_id:
                break
        took_ns = time.monotonic_ns() - submitted_ns
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"the cell failed: {reply['content']}")
        return Run(submitted_ns, took_ns, lines)

    def drain(self) -> None:
        """Read what came for its client by somebody else's runs, or by runs that were not waited for, and wait until
        it runs nothing."""
        for channel in (self.client.iopub_channel, self.client.shell_channel):
            while channel.socket.poll(DRAIN_MS):
                channel.get_msg(timeout=0)
        self.execute("pass")

    def live(self) -> discovery.LiveKernel:
        """Where its document is; waits until the agent has said so."""
        return wait_until(self._live, "the agent's discovery file")

    def _live(self) -> discovery.LiveKernel | None:
        return next((one for one in discovery.live() if one.connection_file == self.connection_file), None)


@contextlib.contextmanager
def running(arm: str) -> Iterator[Kernel]:
    """A kernel that is ready; at the end all its processes are gone."""
    manager = KernelManager(kernel_name=SPECS[arm])
    with launched(manager):
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=TIMEOUT_S)
            kernel = Kernel(manager, client)
            kernel.execute("pass")
            yield kernel
        finally:
            client.stop_channels()


@contextlib.contextmanager
def launched(manager: KernelManager) -> Iterator[None]:
    """Start the kernel of a manager; at the end it, and its relay and agent, are gone."""
    with (Path(os.environ["JUPYTER_DATA_DIR"]).parent / LOG).open("ab") as log:
        manager.start_kernel(stderr=log)
    try:
        yield
    finally:
        ours = [one for one in discovery.live() if one.connection_file == str(manager.connection_file)]
        manager.shutdown_kernel(now=not manager.is_alive())
        manager.cleanup_resources()
        manager.context.destroy(linger=0)
        for one in ours:  # it stores what it has; the next sample is not to pay for that
            with contextlib.suppress(TimeoutError):
                wait_until(lambda pid=one.agent_pid: not discovery.is_alive(pid), "the agent's end", 5.0)


@contextlib.contextmanager
def both() -> Iterator[dict[str, Kernel]]:
    """One kernel of each arm, alive at the same time."""
    with running(BARE) as bare, running(RTC) as rtc:
        rtc.live()
        yield {BARE: bare, RTC: rtc}


def settle() -> None:
    """The pause between two samples."""
    time.sleep(SETTLE_S)


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> Any:
    """Poll until the condition gives something true; returns it.

    Raises:
        TimeoutError: it never did.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise TimeoutError(f"after {timeout_s:g} s still not: {what}")
