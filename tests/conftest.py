"""What every test may use: real kernels, a private Jupyter home, and waiting for a condition."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from kernels import Gate, Running, ask, start

if TYPE_CHECKING:
    from jupyterlab_page import Browser
    from servers import JupyterServer

# A test proves no speed, and the machine may be busy
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background; the programs that we start inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure() -> None:
    """Tests that run side by side have ports of their own, and so have their kernels: a manager gives a port free again
    until its kernel binds it, and of some thousand kernels a few would find it taken by another one's."""
    from jupyter_client.connect import LocalPortCache

    from benchmarks import ports  # not for the programs that tests start, which may import this file, too

    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    ports.PORTS = ports.PORTS[worker * len(ports.PORTS) // 8 : (worker + 1) * len(ports.PORTS) // 8]

    def find_port(cache: LocalPortCache, ip: str) -> int:
        while True:
            (port,) = ports.free_ports(1)
            if port not in cache.currently_used_ports:
                cache.currently_used_ports.add(port)
                return port

    LocalPortCache.find_available_port = find_port


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Jupyter home of this test's own: no file of the user's is read or written."""
    home = tmp_path_factory.mktemp("home")
    for name, value in {
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_CONFIG_DIR": home / "config",
        "IPYTHONDIR": home / "ipython",
    }.items():
        value.mkdir()
        monkeypatch.setenv(name, str(value))
    for name in [name for name in os.environ if name.startswith("RTC_KERNEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RTC_KERNEL_MAGIC_TIMEOUT_S", "60")  # the agent may be late
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    return home


@pytest.fixture
def kernel(home: Path) -> Iterator[Running]:
    """A running RTC Python, ready, with a connected client."""
    with start("rtc-python") as running:
        yield running


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """JupyterLab, for the tests of a module."""
    from jupyterlab_page import jupyter_lab  # Playwright may be missing

    with jupyter_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of a module."""
    from jupyterlab_page import chromium

    with chromium() as running:
        yield running


@pytest.fixture
def kernels_end(lab: JupyterServer, browser: Browser) -> Iterator[None]:
    """No kernel of JupyterLab's outlives the test."""
    from jupyterlab_page import end_kernels

    yield
    page = browser.context.new_page()
    end_kernels(lab, page)
    page.close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """What cells of this test may wait for."""
    return Gate(tmp_path / "gate")


@pytest.fixture
def until() -> Callable[..., object]:
    """``until(condition, what, timeout_s=30)``: poll until the condition gives something true; returns it."""
    return wait_until


def wait_until(condition: Callable[[], object], what: str | Callable[[], object], timeout_s: float = 30.0) -> object:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)  # the pause between two looks, not a wait for something
    pytest.fail(say_not(what, timeout_s))


def recorded(kernel_id: str, *states: str) -> list[dict[str, Any]]:
    """The history, oldest first, once it is in these states and has no more: a frontend may know of an end before the
    agent does."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = reversed(ask(kernel_id, "/api/history?limit=1000")["executions"])
        return [row["state"] for row in found] == list(states)

    wait_until(is_there, lambda: f"{states} in {[row['state'] for row in found]}", 30)
    return found


def say_not(what: str | Callable[[], object], timeout_s: float) -> str:
    return f"after {timeout_s:g} s still not: {what if isinstance(what, str) else what()}"
