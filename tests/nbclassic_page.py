"""A notebook in nbclassic, the page of Notebook 6, in a real browser."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from jupyterlab_page import READY_S, Browser
from playwright.sync_api import Locator, Page, expect
from servers import JupyterServer


class ClassicPage:
    """One notebook, its kernel ready. Cells count from 0."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.idle = page.locator("#kernel_indicator_icon.kernel_idle_icon")

    def wait_ready(self) -> None:
        """Until the kernel is connected and idle."""
        self.page.wait_for_function("window.Jupyter?.notebook?.kernel?.is_connected()", timeout=READY_S * 1000)
        expect(self.idle).to_be_visible()

    def cell(self, index: int) -> Locator:
        return self.page.locator("#notebook-container .cell").nth(index)

    def prompt(self, index: int) -> Locator:
        """``In [ ]:`` not run, ``In [*]:`` running, ``In [3]:`` run."""
        return self.cell(index).locator(".input_prompt")

    def outputs(self, index: int) -> Locator:
        return self.cell(index).locator(".output_area")

    def enter(self, index: int) -> None:
        """Into a cell, to type."""
        self.cell(index).locator(".CodeMirror").click()

    def start(self, index: int) -> None:
        """Run a cell, and do not wait."""
        self.enter(index)
        self.page.keyboard.press("Control+Enter")

    def run(self, index: int) -> None:
        """Run a cell to its end."""
        self.start(index)
        expect(self.prompt(index)).to_have_text(re.compile(r"\[\d+\]"))
        expect(self.idle).to_be_visible()

    def press(self, action: str) -> None:
        """A button of the toolbar."""
        self.page.locator(f'[data-jupyter-action="jupyter-notebook:{action}"]').click()

    def restart(self) -> None:
        """The button with the arrow, and yes; until the new kernel is idle."""
        with self.page.expect_response(re.compile(r"/api/kernels/[^/]+/restart")):
            self.press("confirm-restart-kernel")
            self.page.locator(".modal-footer .btn-danger").click()
        self.wait_ready()

    def seen(self) -> list[tuple[str, list[str]]]:
        """Every cell's prompt and texts."""
        return [
            (self.prompt(cell).inner_text(), self.outputs(cell).all_inner_texts())
            for cell in range(self.page.locator("#notebook-container .cell").count())
        ]


@contextlib.contextmanager
def classic_tab(server: JupyterServer, browser: Browser, name: str) -> Iterator[ClassicPage]:
    """A notebook in a tab of its own, which is closed at the end. Its kernel goes on."""
    page = browser.context.new_page()
    try:
        page.goto(f"{server.url}notebooks/{name}?token={server.token}")
        notebook = ClassicPage(page)
        notebook.wait_ready()
        yield notebook
    finally:
        page.close()
