"""What every test may use: real kernels, a private Jupyter home, and waiting for a condition."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kernels import Gate, Running, start

if TYPE_CHECKING:
    from jupyterlab_page import Browser
    from servers import JupyterServer

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background; the programs that we start inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
    """``until(condition, what, timeout_s=10)``: poll until the condition gives something true; returns it."""
    return wait_until


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> object:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)  # the pause between two looks, not a wait for something
    pytest.fail(f"after {timeout_s:g} s still not: {what}")
