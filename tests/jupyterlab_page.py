"""JupyterLab as a user has it: the real server, started from the command line, and its page in a real browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import psutil
from conftest import wait_until
from frontends import LAB, Frontend
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from servers import JupyterServer, jupyter_server
from tools import CHROMIUM, QUIET

import rtc_kernel
from rtc_kernel import discovery
from rtc_kernel.discovery import LiveKernel

KERNELSPEC = Path(__file__).parent.parent / "kernelspec" / "kernel.json"
LABEXTENSION = Path(rtc_kernel.__file__).parent / "labextension"

READY_S = 60.0
"""Until a page or a kernel must be there; a busy machine takes its time."""


@contextlib.contextmanager
def jupyter_lab(home: Path, frontend: Frontend = LAB, *options: str) -> Iterator[JupyterServer]:
    """``jupyter lab``, or ``jupyter notebook``, in a home of its own, or again in that; it asks nobody for news.

    The extension and RTC Python are this tree's, whichever are installed where the server runs.
    """
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RTC_KERNEL_")}
    for name in ("runtime", "data", "config"):
        environ[f"JUPYTER_{name.upper()}_DIR"] = str(home / name)
    environ |= {"IPYTHONDIR": str(home / "ipython"), "MPLCONFIGDIR": str(home / "matplotlib")}
    environ["RTC_KERNEL_MAGIC_TIMEOUT_S"] = "60"  # the agent may be late
    environ["JUPYTER_PREFER_ENV_PATH"] = "0"  # what is in this home goes before what is installed
    if not (home / "config").exists():
        furnish(home)
    with jupyter_server(frontend.command, home, environ, *options, python=frontend.python) as server:
        yield server


def furnish(home: Path) -> None:
    """The files of a user's Jupyter: settings, this tree's extension and kernelspec."""
    for name in ("runtime", "data/kernels/rtc-python", "data/labextensions/@rtc-kernel", "config/labconfig"):
        (home / name).mkdir(parents=True)
    page_config = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (home / "config" / "labconfig" / "page_config.json").write_text(json.dumps(page_config))
    manager = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "docmanager-extension"
    manager.mkdir(parents=True)
    (manager / "plugin.jupyterlab-settings").write_text(
        '{"autosave": false}'
    )  # after two minutes, which a test may take
    (home / "data" / "labextensions" / "@rtc-kernel" / "lab").symlink_to(LABEXTENSION)
    spec = json.loads(KERNELSPEC.read_text())
    spec["argv"][0] = sys.executable
    (home / "data" / "kernels" / "rtc-python" / "kernel.json").write_text(json.dumps(spec))
    # Notebook 7 takes these from no command line.
    options = {"extension_manager": "readonly", "check_for_updates_class": "jupyterlab.NeverCheckForUpdate"}
    options |= {"news_url": "", "expose_app_in_browser": True}
    config = {"LabApp": options, "JupyterNotebookApp": {"expose_app_in_browser": True}}
    (home / "config" / "jupyter_server_config.json").write_text(json.dumps(config))


@dataclass
class Browser:
    """A browser; ``strangers``: requests of its pages to other hosts than this machine."""

    context: BrowserContext
    strangers: list[str] = field(default_factory=list)


@contextlib.contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """Headless Chromium, as installed on this machine."""
    with sync_playwright() as playwright:
        process = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *options])
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
        self.folded = self.panel.locator(".jp-Toolbar-responsive-opener:visible")
        page.add_locator_handler(self.folded, self.unfold, no_wait_after=True, times=1)
        self.status = page.locator("#jp-bottom-panel .jp-StatusBar-TextItem", has_text=" | ")

    def wait_ready(self) -> None:
        """Until the kernel is connected and idle: the status line says so, the indicator is idle from the start."""
        expect(self.status).to_have_text(re.compile(r" \| Idle$"))
        expect(self.indicator).to_have_attribute("data-status", "idle")

    def unfold(self) -> None:
        """JupyterLab 4.0, on a busy machine, may measure its toolbar before the page has its style: all is too wide
        then and goes into the toolbar's menu for good, or until the window is so wide."""
        size = self.page.viewport_size
        assert size is not None
        self.page.set_viewport_size({"width": 20_000, "height": size["height"]})
        self.folded.wait_for(state="hidden")
        self.page.set_viewport_size(size)

    def cell(self, index: int) -> Locator:
        return self.panel.locator(".jp-Notebook .jp-Cell").nth(index)

    def prompt(self, index: int) -> Locator:
        """``[ ]:`` not run, ``[*]:`` running, ``[3]:`` run."""
        return self.cell(index).locator(".jp-InputPrompt")

    def outputs(self, index: int) -> Locator:
        return self.cell(index).locator(".jp-OutputArea-output")

    def model(self, index: int) -> list[dict[str, Any]]:
        """The outputs of a cell as the notebook has them."""
        widgets = "window.jupyterapp.shell.currentWidget.content.widgets"
        made: list[dict[str, Any]] = self.page.evaluate(f"{widgets}[{index}].model.outputs.toJSON()")
        return made

    def metadata(self, index: int) -> dict[str, Any]:
        """Of a cell."""
        widgets = "window.jupyterapp.shell.currentWidget.content.widgets"
        made: dict[str, Any] = self.page.evaluate(f"{widgets}[{index}].model.metadata")
        return made

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

    def complete(self, index: int, choice: str) -> None:
        """Tab at the end of a cell, and a choice of what is offered. JupyterLab gives up on a kernel that takes longer
        than a second, as it may do the first time; then one presses it again."""
        offered = self.page.locator(".jp-Completer-item", has_text=choice)

        def is_offered() -> bool:
            if not offered.is_visible():
                self.cell(index).locator(".cm-content").click()
                self.page.keyboard.press("Control+End")
                self.page.keyboard.press("Tab")
            return is_done(offered.wait_for)

        wait_until(is_offered, f"{choice} is offered", READY_S)
        offered.click()

    def interrupt(self) -> None:
        """The button with the square."""
        self.panel.locator('[data-jp-item-name="interrupt"] jp-button').click()

    def restart(self) -> None:
        """The button with the arrow, and yes; until the new kernel is idle."""
        with self.page.expect_response(re.compile(r"/api/kernels/[^/]+/restart")):
            self.panel.locator('[data-jp-item-name="restart"] jp-button').click()
            self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.wait_ready()

    def press(self, index: int, *keys: str) -> None:
        """Keys of the notebook's command mode, with this cell as the active one."""
        self.prompt(index).click()
        for key in keys:
            self.page.keyboard.press(key)

    def press_twice(self, index: int, key: str) -> None:
        """A command of two keys of the notebook's command mode, with this cell as the active one."""
        self.prompt(index).click()
        press_twice(self.page, key)

    def command(self, label: str) -> None:
        """One of the command palette."""
        search_commands(self.page, label)
        self.page.locator(".lm-CommandPalette-item.lm-mod-active", has_text=label).first.wait_for()
        self.page.keyboard.press("Enter")

    def open_history(self) -> Locator:
        """The panel in the right sidebar; the cards of its executions, the newest last."""
        tab = self.page.locator('.jp-SideBar.jp-mod-right [data-id="rtc-kernel-panel"]')
        panel = self.page.locator("#rtc-kernel-panel")

        def opened() -> bool:  # a page that is restored may yet close it
            if not panel.is_visible():
                tab.click()
            return is_done(panel.wait_for)

        wait_until(opened, "the panel is open", READY_S)
        return panel.locator("article.card")

    @property
    def user(self) -> str:
        """What the server calls who sits at this page: somebody else in each browser."""
        return str(self.page.evaluate("fetch('/api/me').then(answer => answer.json())")["identity"]["display_name"])

    @property
    def is_dirty(self) -> bool:
        """Whether something is not saved."""
        return bool(self.page.evaluate("window.jupyterapp.shell.currentWidget.content.model.dirty"))

    def save(self, lab: JupyterServer, name: str) -> nbformat.NotebookNode:
        """Save it, as its user does; what is in the file then."""
        with self.page.expect_response(lambda answer: answer.request.method == "PUT" and name in answer.url):
            self.page.keyboard.press("Control+s")
        made = nbformat.read(lab.root / name, as_version=4)
        nbformat.validate(made)
        return made


class SoleNotebookPage(NotebookPage):
    """The same in Notebook 7: one notebook fills the page, and there is no status line."""

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.heard: list[str] = []
        page.on("websocket", lambda socket: socket.on("framereceived", lambda _: self.heard.append(socket.url)))

    def wait_ready(self) -> None:
        """Until the kernel is connected and idle. The indicator is idle before there is a kernel."""
        wait_on(self.page, lambda: any("/channels" in url for url in self.heard), "the kernel says something")
        expect(self.indicator).to_have_attribute("data-status", "idle")

    def open_history(self) -> Locator:
        """The same by the menu, because its sidebars have no tabs."""
        choose(self.page, "View", "Right Sidebar", "Show Kernel History")
        return self.page.locator("#rtc-kernel-panel article.card")


CHORD = """(key) => {
    const said = { key, keyCode: key.toUpperCase().charCodeAt(0), bubbles: true, cancelable: true };
    for (const type of ["keydown", "keyup", "keydown", "keyup"])
        document.activeElement.dispatchEvent(new KeyboardEvent(type, said));
}"""


def press_twice(page: Page, key: str) -> None:
    """A command of two keys (d d). JupyterLab forgets the first after a second, so they come in one go."""
    page.evaluate(CHORD, key)


def wait_on(page: Page, condition: Callable[[], object], what: str) -> None:
    """Until something holds that comes of what the page sends or receives: that is told while it is waited on."""
    wait_until(lambda: page.wait_for_timeout(10) or condition(), what, READY_S)


def is_done(act: Callable[..., None]) -> bool:
    """Whether it could be done within some seconds: a click, waiting for an element."""
    with contextlib.suppress(PlaywrightTimeoutError):
        act(timeout=3000)
        return True
    return False


def search_commands(page: Page, label: str) -> None:
    """Open the command palette, and search. What has the focus may be about to lose it, and take the keys with it: then
    they are pressed again."""
    search = page.locator(".lm-CommandPalette-input").last

    def opened() -> bool:
        page.keyboard.press("Control+Shift+c")
        return is_done(search.wait_for)

    wait_until(opened, "the command palette is open", READY_S)
    search.fill(label)


def choose(page: Page, menu: str, submenu: str, command: str) -> None:
    """A command by the menus. They show what there was when they were opened, and an extension's commands may come
    later: then they are opened again."""

    def label(text: str) -> Locator:
        return page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{text}$"))

    def found() -> bool:
        page.get_by_role("menuitem", name=menu).click()
        label(submenu).hover()
        if is_done(label(command).wait_for):
            return True
        for _ in (submenu, menu):
            page.keyboard.press("Escape")
        return False

    wait_until(found, f"{command} is in the menu", READY_S)
    label(command).click()


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


@contextlib.contextmanager
def tab(lab: JupyterServer, browser: Browser, name: str) -> Iterator[NotebookPage]:
    """A notebook in a tab of its own, which is closed at the end. Its kernel goes on."""
    if lab.command == "lab":
        with lab_page(lab, browser, f"lab/tree/{name}") as page:
            notebook = NotebookPage(page)
            notebook.cell(0).locator(".cm-content").wait_for()
            yield notebook
        return
    page = browser.context.new_page()
    try:
        notebook = SoleNotebookPage(page)
        page.goto(f"{lab.url}notebooks/{name}?token={lab.token}")
        notebook.cell(0).locator(".cm-content").wait_for()
        yield notebook
    finally:
        page.close()


def agent_of(lab: JupyterServer) -> psutil.Process:
    """The agent of the only kernel that has one."""
    (agent,) = [p for p in lab.process.children(recursive=True) if "rtc_kernel.agent" in p.cmdline()]
    return agent


def kernel_of(lab: JupyterServer) -> LiveKernel:
    """The only kernel with a live document."""
    where = lab.root.parent / "runtime" / "rtc_kernel"
    wait_until(lambda: discovery.live(where), "the kernel's agent says where it is", READY_S)
    return discovery.only(discovery.live(where))


def history(lab: JupyterServer) -> list[dict[str, Any]]:
    """What the only kernel with a live document has run, the newest first."""
    kernel = kernel_of(lab)
    request = urllib.request.Request(f"{kernel.url}/api/history", headers={"Authorization": f"Bearer {kernel.token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["executions"]
    return found


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


def start_kernel(lab: JupyterServer, browser: Browser, name: str) -> None:
    """RTC Python for a notebook that is not open yet, ready. jupyter-server-documents 0.3 fails to make the session
    of a page whose kernel takes long to start, and makes two where two pages open one notebook at once."""
    request, headers = browser.context.request, {"Authorization": f"token {lab.token}"}
    kernel = request.post(f"{lab.url}api/kernels", data={"name": "rtc-python"}, headers=headers).json()
    where = lab.root.parent / "runtime" / "rtc_kernel"
    wait_until(lambda: any(one.kernel_id == kernel["id"] for one in discovery.live(where)), "its agent serves", READY_S)
    session = {"path": name, "name": name, "type": "notebook", "kernel": {"id": kernel["id"]}}
    assert request.post(f"{lab.url}api/sessions", data=session, headers=headers).ok


def end_kernels(lab: JupyterServer, page: Page) -> None:
    """End every session through the server's API."""
    headers = {"Authorization": f"token {lab.token}"}
    for session in page.request.get(f"{lab.url}api/sessions", headers=headers).json():
        page.request.delete(f"{lab.url}api/sessions/{session['id']}", headers=headers)
