"""Which tools of others are on this machine, and what do tests lack where they are not?"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
"""Chromium asks nobody for anything by itself."""


def missing(*packages: str) -> list[str]:
    """Of these Python packages and Chromium those that are not installed."""
    found = [name for name in packages if importlib.util.find_spec(name) is None]
    return found if CHROMIUM else [*found, "Chromium"]


def in_lab(lacks: list[str]) -> list[pytest.MarkDecorator]:
    """Marks of tests that drive a page of JupyterLab's, where ``lacks`` is what is missing for it."""
    import pytest  # which who only asks what a machine lacks may not have

    lacking = pytest.mark.skipif(bool(lacks), reason=f"not installed: {', '.join(lacks)}")
    return [pytest.mark.browser, lacking, pytest.mark.timeout(300)]


def node_lacks(tool: str, directory: Path, package: str) -> str:
    """What a test with a tool of Node.js lacks; empty where all is there."""
    if shutil.which(tool) is None:
        return f"{tool} is not installed"
    there = (directory / "node_modules" / package).is_dir()
    return "" if there else f"run `npm ci` in {directory.relative_to(Path(__file__).parent.parent)}"


QT_LIBRARIES = {
    "libdbus-1.so.3": "libdbus-1-3",
    "libEGL.so.1": "libegl1",
    "libfontconfig.so.1": "libfontconfig1",
    "libGL.so.1": "libgl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxkbcommon.so.0": "libxkbcommon0",
}
"""What PyQt6 of PyPI takes from the system, also where nothing is shown; with Debian's packages."""


def qt_lacks() -> list[str]:
    """The Debian packages that a window of Qt still needs here."""
    lacking = []
    for library, package in QT_LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            lacking.append(package)
    return lacking
