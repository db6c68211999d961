"""JupyterLab as a user has it: the real server, started from the command line, and its page in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from jupyter_core.paths import jupyter_path
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright
from servers import JupyterServer, jupyter_server
from tools import CHROMIUM, QUIET

import rtc_kernel

READY_S = 60.0
"""Until a page or a kernel must be there; a busy machine takes its time."""


@contextlib.contextmanager
def jupyter_lab(home: Path, command: str = "lab") -> Iterator[JupyterServer]:
    """``jupyter lab``, or ``jupyter notebook``, in a home of its own; it asks nobody for news."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RTC_KERNEL_")}
    for name in ("runtime", "data", "config"):
        (home / name).mkdir(parents=True)
        environ[f"JUPYTER_{name.upper()}_DIR"] = str(home / name)
    environ |= {"IPYTHONDIR": str(home / "ipython"), "MPLCONFIGDIR": str(home / "matplotlib")}
    page_config = home / "config" / "labconfig" / "page_config.json"
    page_config.parent.mkdir()
    page_config.write_text(json.dumps({"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}))
    extension = home / "data" / "labextensions" / "@rtc-kernel" / "lab"
    extension.parent.mkdir(parents=True)
    extension.symlink_to(Path(rtc_kernel.__file__).parent / "labextension")
    app = {"lab": "LabApp", "notebook": "JupyterNotebookApp"}[command]
    quiet = ["--LabApp.news_url=", f"--{app}.extension_manager=readonly"]
    if command == "lab":  # this tree's, before one that was installed
        extensions = [str(home / "data" / "labextensions"), *jupyter_path("labextensions")]
        quiet += [f"--LabApp.labextensions_path={path}" for path in extensions]
    quiet.append(f"--{app}.check_for_updates_class=jupyterlab.NeverCheckForUpdate")
    with jupyter_server(command, home, environ, *quiet) as server:
        yield server


@dataclass
class Browser:
    """A browser; ``strangers``: requests of its pages to other hosts than this machine."""

    context: BrowserContext
    strangers: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium, as installed on this machine."""
    with sync_playwright() as playwright:
        process = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        context = process.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(READY_S * 1000)
        expect.set_options(timeout=READY_S * 1000)
        browser = Browser(context)

        def note(url: str) -> None:
            if urlsplit(url).hostname not in ("127.0.0.1", "localhost", None):
                browser.strangers.append(url)

        context.on("request", lambda request: note(request.url))
        try:
            yield browser
        finally:
            context.close()
            process.close()


@contextlib.contextmanager
def another(browser: Browser) -> Iterator[Browser]:
    """A browser that shares nothing with this one."""
    process = browser.context.browser
    assert process is not None
    context = process.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(READY_S * 1000)
    try:
        yield Browser(context, browser.strangers)
    finally:
        context.close()


class NotebookPage:
    """One notebook, open in JupyterLab, its kernel ready. Cells count from 0."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        self.indicator = self.panel.locator(".jp-Notebook-ExecutionIndicator")
        self.status = page.locator("#jp-bottom-panel .jp-StatusBar-TextItem", has_text=" | ")

    def wait_ready(self) -> None:
        """Until the kernel is connected and idle: the status line says so, the indicator is idle from the start."""
        expect(self.status).to_have_text(re.compile(r" \| Idle$"))
        expect(self.indicator).to_have_attribute("data-status", "idle")

    def cell(self, index: int) -> Locator:
        return self.panel.locator(".jp-Notebook .jp-Cell").nth(index)

    def prompt(self, index: int) -> Locator:
        """``[ ]:`` not run, ``[*]:`` running, ``[3]:`` run."""
        return self.cell(index).locator(".jp-InputPrompt")

    def outputs(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-OutputArea-output")

    def write(self, index: int, source: str) -> None:
        """Type code into a cell."""
        self.cell(index).locator(".cm-content").fill(source)

    def start(self, index: int) -> None:
        """Run a cell, as its user does, and do not wait."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def run(self, index: int, count: int | None = None) -> None:
        """Run a cell to its end. ``count``: what the prompt says then."""
        self.start(index)
        expect(self.prompt(index)).to_have_text(re.compile(r"\[\d+\]:") if count is None else f"[{count}]:")
        expect(self.indicator).to_have_attribute("data-status", "idle")

    def interrupt(self) -> None:
        """The button with the square."""
        self.panel.locator('[data-jp-item-name="interrupt"] jp-button').click()

    def restart(self) -> None:
        """The button with the arrow, and yes; until the new kernel is idle."""
        with self.page.expect_response(re.compile(r"/api/kernels/[^/]+/restart")):
            self.panel.locator('[data-jp-item-name="restart"] jp-button').click()
            self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.wait_ready()


@contextlib.contextmanager
def lab_page(lab: JupyterServer, browser: Browser, path: str = "lab") -> Iterator[Page]:
    """A tab with JupyterLab, logged in by the link that the server prints, in a workspace of its own."""
    page = browser.context.new_page()
    try:
        page.goto(f"{lab.url}{path}?token={lab.token}&reset")
        page.locator("#jp-main-dock-panel").wait_for()
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        yield page
    finally:
        page.close()


def write_notebook(lab: JupyterServer, kernel: str, *sources: str) -> str:
    """A notebook with these cells, made for this kernel; its name."""
    made = new_notebook(cells=[new_code_cell(source) for source in sources])
    made.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    name = f"{kernel}-{len(list(lab.root.iterdir()))}.ipynb"
    nbformat.write(made, lab.root / name)
    return name


@contextlib.contextmanager
def open_notebook(lab: JupyterServer, browser: Browser, kernel: str, *sources: str) -> Iterator[NotebookPage]:
    """A notebook with these cells, made for this kernel, open in a tab; its kernel is ended at the end."""
    name = write_notebook(lab, kernel, *sources)
    with lab_page(lab, browser, f"lab/tree/{name}") as page:
        notebook = NotebookPage(page)
        notebook.wait_ready()
        try:
            yield notebook
        finally:
            end_kernels(lab, page)


def end_kernels(lab: JupyterServer, page: Page) -> None:
    """End every session through the server's API."""
    headers = {"Authorization": f"token {lab.token}"}
    for session in page.request.get(f"{lab.url}api/sessions", headers=headers).json():
        page.request.delete(f"{lab.url}api/sessions/{session['id']}", headers=headers)
