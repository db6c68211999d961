"""``python -m benchmarks [NAME …] [--rounds N] [--json FILE]``, from the root of the repository."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import zmq
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import rtc_kernel

from . import (
    acting,
    attaching,
    bounding,
    crowding,
    executing,
    following,
    joining,
    notebooks,
    publishing,
    resting,
    starting,
    viewing,
)
from .figures import Line, Plan
from .kernels import LOG, private_home
from .peers import ADAPTERS

BENCHMARKS: dict[str, Callable[[Plan], list[Line]]] = {
    "execute": executing.round_trips,
    "flood": executing.flood,
    "ready": starting.ready,
    "attach": attaching.attach,
    "visible": following.visible,
    "flood-peer": following.flood,
    "ticks": following.ticks,
    "join": joining.late,
    "join-full": joining.full,
    "peers": crowding.peers,
    "act": acting.visible,
    "rows": acting.rows,
    "interrupt": acting.interrupt,
    "memory": resting.memory,
    "bounds": bounding.bounds,
    "paint": viewing.paint,
    "pixels": viewing.pixels,
    "page-flood": viewing.responsive,
    "lab-attach": notebooks.attach,
    "lab-others": notebooks.others,
    "lab-flood": notebooks.flood,
    "lab-start": notebooks.start,
    "relay": publishing.follow,
    "relay-flood": publishing.flood,
}
PEERS = {adapter.name: acting.beside(adapter) for adapter in ADAPTERS}
"""Other systems beside ours: only with ``--peers``, or by name; one that is not to be had here is no failure."""

COLUMNS = ("", "bare", "rtc", "compared", "rounds from … to", "target", "")
PACKAGES = ("ipykernel", "jupyter_client", "pyzmq", "pycrdt", "tornado")


def main() -> int:
    """Measure, print the table; 1 when something could not be measured, else 0, whatever the targets say."""
    options = parse()
    say = Console(stderr=True)
    machine = describe_machine()
    lines: list[Line] = []
    failures: dict[str, str] = {}
    notes: dict[str, str] = {}
    names = options.names or [*BENCHMARKS, *(PEERS if options.peers else ())]
    with private_home() as home:
        for name in names:
            with say.status(name) as status:

                def tell(words: str, name: str = name) -> None:
                    status.update(f"{name}: {words}")

                try:
                    measure = {**BENCHMARKS, **PEERS}[name]
                    found = measure(Plan(rounds=options.rounds, scale=options.scale, tell=tell))
                except Exception as exc:  # the other benchmarks can still be measured
                    (notes if name in PEERS else failures)[name] = f"{type(exc).__name__}: {exc}"
                    if name in failures:
                        say.print_exception()
                    continue
            lines += found
            for line in found:
                words = "  ".join(cell for cell in line.cells() if cell)
                say.print(words, markup=False, highlight=False, soft_wrap=True)
        complaints = read_complaints(home / LOG, everything=bool(failures or notes))
        say.print("\n".join(complaints), markup=False, highlight=False, soft_wrap=True, end="\n" if complaints else "")
    machine["load_after"] = load()
    show(lines, failures, notes, machine, markdown=options.markdown)
    if options.json:
        found_lines = [line.to_json() for line in lines]
        value = {"machine": machine, "lines": found_lines, "failures": failures, "notes": notes}
        Path(options.json).write_text(json.dumps(value, indent=1), encoding="utf-8")
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {' '.join([*BENCHMARKS, *PEERS])}")
    parser.add_argument("--peers", action="store_true", help="other systems too, each installed in a venv of its own")
    parser.add_argument("--rounds", type=int, help="instead of each benchmark's own number")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply all sizes, e.g. 0.01 for a trial")
    parser.add_argument("--json", metavar="FILE", help="write everything, with the rounds, to a file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    if unknown := set(options.names) - {*BENCHMARKS, *PEERS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {' '.join([*BENCHMARKS, *PEERS])}")
    return options


def describe_machine() -> dict[str, str]:
    """What the numbers belong to."""
    cpu = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].strip() if names else cpu
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(
            [
                f"rtc_kernel {rtc_kernel.__version__}",
                f"Python {platform.python_version()}",
                *(f"{name} {version(name)}" for name in PACKAGES),
                f"libzmq {zmq.zmq_version()}",
            ]
        ),
        "load_before": load(),
    }


def read_complaints(log: Path, *, everything: bool) -> list[str]:
    """What relay and agent wrote to stderr; the end of what anybody wrote, where something went wrong."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-50:] if everything else [line for line in lines if line.startswith("rtc_kernel")]


def load() -> str:
    """The load average of the last minute; empty where the system has none."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""


def show(
    lines: list[Line], failures: dict[str, str], notes: dict[str, str], machine: dict[str, str], *, markdown: bool
) -> None:
    """Print the table and what it belongs to."""
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE)
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0)
    for line in lines:
        style = "bold red" if line.met is False else None
        table.add_row(*map(escape, line.cells()), style=style)
    for name, reason in failures.items():
        table.add_row(name, *[""] * (len(COLUMNS) - 2), f"not measured: {escape(reason)}", style="bold red")
    wide = Console(width=160) if not sys.stdout.isatty() else Console()
    wide.print(table)
    for name, reason in notes.items():
        wide.print(f"{name}: not measured: {reason}", markup=False, highlight=False, soft_wrap=True)
    for key, value in machine.items():
        wide.print(f"{key.replace('_', ' ')}: {value}", markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
