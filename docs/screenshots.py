"""Takes the pictures for README and docs: ``python docs/screenshots.py [DIRECTORY]``.

A real headless run, a real shared kernel, and a real JupyterLab, in Debian's Chromium. It needs the extras ``browser``
and ``test``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import BlockingKernelClient, KernelManager
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import Browser, Page, expect, sync_playwright

IMAGES = Path(__file__).parent / "images"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
SIZES = {"wide": WIDE, "phone": PHONE}
MOST_BYTES = 250_000
READY_S = 30.0

LOAD = """\
import random

random.seed(7)
readings = [round(20 + 3 * random.random() + 0.02 * hour, 2) for hour in range(24 * 14)]
print(f"{len(readings)} readings, from {min(readings)} to {max(readings)} degrees")
"""
FIT = """\
import time

slope = 0.0
for step in range(1, 101):
    error = sum((20 + 1.5 + slope * hour - value) * hour for hour, value in enumerate(readings))
    slope -= 2e-8 * error
    print(f"step {step:3d}  slope {slope:+.5f}  error {abs(error):10.1f}")
    time.sleep(0.15)
"""
PLOT = """\
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 2.4), layout="constrained")
axes.plot(readings, linewidth=0.8)
axes.set_ylabel("degrees")
axes.set_xlabel("hour");
"""
TABLE = """\
from IPython.display import HTML

days = [readings[24 * day : 24 * day + 24] for day in range(14)]
rows = "".join(
    f"<tr><td>{day + 1}</td><td>{min(d):.2f}</td><td>{sum(d) / 24:.2f}</td><td>{max(d):.2f}</td></tr>"
    for day, d in enumerate(days[:4])
)
HTML(f"<table><tr><th>day</th><th>least</th><th>mean</th><th>most</th></tr>{rows}</table>")
"""
FAILS = """\
calibration = {"north": 0.12, "south": -0.08}
offset = calibration["west"]
"""


# --- what is to be seen


def write_notebook(path: Path) -> None:
    cells = [
        new_markdown_cell("# Two weeks of the greenhouse\n\nIs it getting warmer? A line is fitted to readings:\n"
                          "$T(h) = T_0 + s \\cdot h$, by hand, to see it happen."),
        new_code_cell(LOAD),
        new_code_cell(PLOT),
        new_markdown_cell("## The fit\n\nOne hundred small steps. The *error* should go down in each."),
        new_code_cell(FIT),
        new_markdown_cell("## By day"),
        new_code_cell(TABLE),
        new_code_cell(FAILS),
        new_code_cell("print('never reached')"),
    ]  # fmt: skip
    notebook = new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "rtc-python", "display_name": "RTC Python", "language": "python"}
    nbformat.write(notebook, path)


@contextlib.contextmanager
def headless_run(notebook: Path) -> Iterator[str]:
    """``jupyter rtc run``; gives its link."""
    argv = [
        sys.executable,
        "-m",
        "jupyter",
        "rtc",
        "run",
        str(notebook),
        "-o",
        str(notebook.with_suffix(".out.ipynb")),
        "--json",
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            for line in process.stdout or ():
                found = find_link(line)
                if found is not None:
                    yield found
                    return
            raise RuntimeError("the run has given no link")
        finally:
            process.terminate()


def find_link(text: str) -> str | None:
    return next((word for word in text.replace('"', " ").split() if word.startswith("http") and "token=" in word), None)


class Frontend:
    """A client that runs cells as somebody."""

    def __init__(self, manager: KernelManager, name: str) -> None:
        self.client: BlockingKernelClient = manager.blocking_client()
        self.client.session.username = name
        self.client.start_channels()
        self.client.wait_for_ready(timeout=READY_S)

    def start(self, code: str, cell: str | None = None) -> str:
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        content["stop_on_error"] = True
        metadata = {} if cell is None else {"cellId": cell}
        message = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def finish(self, asked: str, until: str = "idle") -> str:
        """Wait for the end, or for the beginning (``busy``); the plain text of what it displayed."""
        shown = ""
        while True:
            message = self.client.get_iopub_msg(timeout=READY_S)
            if message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "display_data":
                shown += message["content"]["data"].get("text/plain", "")
            if message["msg_type"] == "status" and message["content"]["execution_state"] == until:
                return shown


@contextlib.contextmanager
def shared_kernel() -> Iterator[tuple[str, Callable[[], None]]]:
    """A kernel in which two people have worked, and one still does; its link, and how to end what runs."""
    manager = KernelManager(kernel_name="rtc-python")
    manager.start_kernel(env={**os.environ, "JPY_SESSION_NAME": "work/greenhouse.ipynb"})
    try:
        ada, grace = Frontend(manager, "ada"), Frontend(manager, "grace")
        link = find_link(ada.finish(ada.start("%rtc share --role run --name workshop")))
        if link is None:
            raise RuntimeError("%rtc share has given no link")
        for who, code, cell in (
            (ada, LOAD, "cell-1"),
            (ada, PLOT, "cell-2"),
            (grace, "len(readings)", None),
            (ada, "import time; time.sleep(1.5)\nprint('saved')", "cell-3"),
            (grace, FAILS, "cell-4"),
            (grace, "calibration['west'] = 0.0", "cell-4"),
            (ada, TABLE, "cell-5"),
        ):
            who.finish(who.start(code, cell))
            time.sleep(0.4)
        ada.finish(ada.start(FIT, "cell-6"), "busy")
        waiting = grace.start("slope * 24", None)
        yield link, lambda: grace.finish(waiting) and None
    finally:
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@contextlib.contextmanager
def room(home: Path) -> Iterator[str]:
    """A relay at which a headless run and the kernels of two people are in one room; the page's link."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from relays import PUBLISH, VIEW, hocuspocus_relay

    with hocuspocus_relay(home) as relay, contextlib.ExitStack() as kernels:
        os.environ["RTC_KERNEL_RELAY_TOKEN"] = PUBLISH
        published = {"RTC_KERNEL_RELAYS": relay.url, "RTC_KERNEL_RELAY_ROOM": "workshop"}
        people = []
        for who in ("ada", "grace"):
            manager = KernelManager(kernel_name="rtc-python")
            manager.start_kernel(env={**os.environ, **published, "JPY_SESSION_NAME": f"{who}/greenhouse-{who}.ipynb"})
            kernels.callback(manager.shutdown_kernel, now=True)
            people.append(Frontend(manager, who))
        ada, grace = people
        for one, code, cell in ((ada, LOAD, "1"), (grace, LOAD, "1"), (grace, FAILS, "2"), (ada, TABLE, "2")):
            one.finish(one.start(code, cell))
            time.sleep(0.8)
        os.environ.update(published)
        try:
            with headless_run(home / "greenhouse.ipynb"):
                grace.finish(grace.start(FIT, "3"), "busy")
                yield f"http{relay.url.removeprefix('ws')}/workshop#token={VIEW}"
        finally:
            for name in published:
                del os.environ[name]


# --- pictures


def take(page: Page, name: str, directory: Path) -> None:
    path = directory / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    size = path.stat().st_size
    print(f"{path.name}: {size / 1000:.0f} kB")
    if size >= MOST_BYTES:
        raise RuntimeError(f"{path} is too large for a README")


def show(browser: Browser, link: str, name: str, directory: Path, ready: Callable[[Page], Any]) -> None:
    """One link at each width, light and dark. All are open before any is waited for: a run's page goes with it."""
    pages = {size_name: browser.new_context(viewport=size).new_page() for size_name, size in SIZES.items()}
    for page in pages.values():
        page.goto(link)
    for size_name, page in pages.items():
        ready(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.mouse.move(0, 0)
            take(page, f"{name}-{size_name}-{scheme}", directory)
        page.context.close()


def is_fitting(page: Page) -> None:
    expect(page.locator(".out-stream", has_text="step  1")).to_be_visible()
    expect(page.locator(".head .state[data-state=running]")).to_be_in_viewport()


def has_failed(page: Page) -> None:
    link = page.locator(".progress a")
    expect(link).to_be_visible()
    link.click()
    expect(page.locator(".cell:focus", has_text="KeyError")).to_be_in_viewport()


def has_all(page: Page) -> None:
    expect(page.locator(".lane-name")).to_have_count(3)
    expect(page.locator(".lane-about [data-state=running]")).to_have_count(2)
    expect(page.locator(".out-stream", has_text="step  1").first).to_be_visible()


def goes_back(page: Page) -> None:
    slider = page.get_by_role("slider")
    slider.evaluate(
        "(s) => { s.value = +s.min + 0.55 * (s.max - s.min); s.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    expect(page.locator(".banner.past")).to_be_visible()


def show_lab(home: Path, directory: Path) -> None:
    """JupyterLab: a tab is closed while the fit runs, and opened again in another browser, with the panel beside it."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from frontends import LAB
    from jupyterlab_page import NotebookPage, another, chromium, jupyter_lab, lab_page

    with jupyter_lab(home, LAB, "--expose-app-in-browser") as lab, chromium() as first, another(first) as second:
        write_notebook(lab.root / "greenhouse.ipynb")
        address = "lab/tree/greenhouse.ipynb"
        with lab_page(lab, first, address) as page:
            notebook = NotebookPage(page)
            notebook.wait_ready()
            for count, cell in ((1, 1), (2, 2)):
                notebook.run(cell, count)
            notebook.start(4)
            expect(notebook.outputs(4)).to_contain_text("step   3")
        with lab_page(lab, second, address) as page:
            notebook = NotebookPage(page)
            page.keyboard.press("Control+b")  # the file browser is not what this is about
            expect(notebook.outputs(4)).to_contain_text("step  20")
            page.keyboard.press("Control+Shift+y")
            expect(page.locator(".rtc-Panel, #rtc-kernel-panel").first).to_be_visible()
            notebook.cell(4).scroll_into_view_if_needed()
            for scheme in ("Light", "Dark"):
                page.evaluate(
                    "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
                    f"JupyterLab {scheme}",
                )
                expect(page.locator("body")).to_have_attribute("data-jp-theme-name", f"JupyterLab {scheme}")
                take(page, f"lab-{scheme.lower()}", directory)
            notebook.interrupt()


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        for name in ("RUNTIME", "DATA", "CONFIG"):
            os.environ[f"JUPYTER_{name}_DIR"] = str(Path(home) / name.lower())
        expect.set_options(timeout=READY_S * 1000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        notebook = Path(home) / "greenhouse.ipynb"
        write_notebook(notebook)
        with headless_run(notebook) as link:
            show(browser, link, "run", directory, is_fitting)
        with headless_run(notebook) as link:
            show(browser, link, "failed", directory, has_failed)
        with shared_kernel() as (link, end):
            show(browser, link, "shared", directory, is_fitting)
            end()
            show(browser, link, "past", directory, goes_back)
        with room(Path(home)) as link:
            show(browser, link, "room", directory, has_all)
        browser.close()
    with tempfile.TemporaryDirectory() as home:
        show_lab(Path(home), directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
