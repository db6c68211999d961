"""Which tools of others are on this machine, and what do tests lack where they are not?"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
"""Chromium asks nobody for anything by itself."""


def missing(*packages: str) -> list[str]:
    """Of these Python packages and Chromium those that are not installed."""
    found = [name for name in packages if importlib.util.find_spec(name) is None]
    return found if CHROMIUM else [*found, "Chromium"]


def node_lacks(tool: str, directory: Path, package: str) -> str:
    """What a test with a tool of Node.js lacks; empty where all is there."""
    if shutil.which(tool) is None:
        return f"{tool} is not installed"
    there = (directory / "node_modules" / package).is_dir()
    return "" if there else f"run `npm ci` in {directory.relative_to(Path(__file__).parent.parent)}"
