"""Does a page of JupyterLab stay as it is that is open all day? ``python -m benchmarks.sitting --minutes 60``, from the
root of the repository. Needs what the other benchmarks of JupyterLab need.

One notebook, open in two browsers. One runs all of it, round by round; the other one looks on, so that all that it
shows comes through us. Every few rounds the latter's connection is cut, or the runner clears all outputs. A third
browser runs the same on a bare kernel, in a JupyterLab without us. After each round all collect garbage, and the
memory, elements and listeners of their pages are sampled: ``watching``, ``running`` and ``bare``.

The first third is for warming up; the medians of the second and of the last third are held against each other.
JupyterLab itself grows: it keeps something of every output that ever was. So exit code 1 where the page that looks on
grows by more than is allowed, and by more than the bare one.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from typing import Any

from rich.console import Console

from .kernels import BARE, private_home
from .notebooks import Lab, opened, run_all, serving, settle
from .soak import Sample, grown, show, thirds
from .viewing import browser, wait

CELLS = (
    "print('a line')",
    "for n in range(2000): print('line', n)",
    "import sys\nfor n in range(500): sys.stdout.write(f'\\r{n / 5:.0f} %')",
    "shown = display('0', display_id=True)\nfor n in range(100): shown.update(str(n))",
    "import base64, os\ndisplay({'image/png': base64.b64encode(os.urandom(60_000)).decode()}, raw=True)",
    "from IPython.display import HTML\nHTML('<table>' + '<tr><td>1</td></tr>' * 200 + '</table>')",
    "[n for n in range(1000)]",
    *(f"print('cell', {n})" for n in range(20)),
    "print('over')",
)
CUT_EVERY, CLEAR_EVERY, TELL_EVERY = 7, 5, 10

ALLOWED = {"heap": (1.1, 1.0), "nodes": (1.1, 500.0), "listeners": (1.1, 200.0)}
"""By how much the last third may be above the second: a factor, and so much more (MiB, or how many)."""


def sit(lab: Lab, without: Lab, chromium: Any, seconds: float) -> list[Sample]:
    """The samples of all rounds. ``without``: the JupyterLab without us."""
    samples: list[Sample] = []
    say = Console(stderr=True, width=200)
    name = lab.write(*CELLS)
    deadline = time.monotonic() + seconds
    with (
        opened(chromium, lab, name) as watching,
        opened(chromium, lab, name) as running,
        opened(chromium, without, without.write(*CELLS, arm=BARE)) as bare,
    ):
        pages = {"watching": watching, "running": running, "bare": bare}
        runners = (running, bare)
        for number in itertools.count():
            if number % CUT_EVERY == CUT_EVERY - 1:
                watching.evaluate(
                    "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect()"
                )
            if number % CLEAR_EVERY == CLEAR_EVERY - 1:
                for page in runners:
                    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
            for page in runners:
                run_all(page)
            for page in pages.values():
                wait(page, f"window.cells().at(-1).executionCount === {len(CELLS) * (number + 1)}")
            settle()
            samples.append(Sample({f"{who} {k}": v for who, page in pages.items() for k, v in weigh(page).items()}))
            if number % TELL_EVERY == 0:
                say.print(number, samples[-1].values, highlight=False)
            if time.monotonic() > deadline and len(samples) >= 6:
                return samples
    raise AssertionError("rounds have an end")


def weigh(page: Any) -> dict[str, float]:
    """Of a page without its garbage: ``heap`` (MiB), ``nodes`` and ``listeners``."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    session.send("HeapProfiler.collectGarbage")
    figures = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    session.detach()
    return {
        "heap": figures["JSHeapUsedSize"] / (1 << 20),
        "nodes": figures["Nodes"],
        "listeners": figures["JSEventListeners"],
    }


def main() -> int:
    """0: the page that looks on is flat, or grows no more than the bare one; 1: it grows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sitting", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    with private_home(), serving() as lab, serving(disabled=True) as without, browser() as chromium:
        samples = sit(lab, without, chromium, 60 * options.minutes)
    growing = grown(samples, ALLOWED)
    show(samples, growing)
    growth = {name: after - before for name, (before, after) in thirds(samples).items()}
    return int(
        any(f"watching {one}" in growing and growth[f"watching {one}"] > growth[f"bare {one}"] for one in ALLOWED)
    )


if __name__ == "__main__":
    sys.exit(main())
