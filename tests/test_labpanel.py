"""The panel of JupyterLab's and Notebook's right sidebar, in a real browser, with real kernels."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from frontends import NOTEBOOK
from jupyter_client import BlockingKernelClient
from kernels import Gate
from servers import JupyterServer
from tools import in_lab, missing

MISSING = missing("playwright", "jupyterlab")

pytestmark = in_lab(MISSING)

if TYPE_CHECKING or not MISSING:
    from jupyterlab_page import (
        Browser,
        NotebookPage,
        choose,
        end_kernels,
        jupyter_lab,
        lab_page,
        press_twice,
        write_notebook,
    )
    from playwright.sync_api import Locator, Page, expect

AXE = Path(__file__).parent.parent / "ui" / "node_modules" / "axe-core" / "axe.min.js"


class Panel:
    """The panel of a page. ``problems``: what the page complained of since it is looked at."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.node = page.locator("#rtc-kernel-panel")
        self.tab = page.locator('.jp-SideBar.jp-mod-right [data-id="rtc-kernel-panel"]')
        self.cards = self.node.locator("article.card")
        self.told = self.node.locator("[aria-live=polite]")  # as in a toast, which goes after 4 s
        self.search = self.node.get_by_label("Search in code and outputs")
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def open(self) -> None:
        self.tab.click()
        expect(self.node).to_be_visible()

    def card(self, code: str) -> Locator:
        """Those whose code or outputs' fold has a text; who ran it has a name that may have it, too."""
        return self.cards.filter(has=self.page.locator(".code, .outputs-fold", has_text=code))

    def outputs(self) -> Locator:
        """Of cards that are open: they stand in the light of the page."""
        return self.node.locator(".rtc-Sidebar-outputs .jp-OutputArea-output")

    def complaints_of_axe(self) -> list[str]:
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate(
            "axe.run('#rtc-kernel-panel', { resultTypes: ['violations'] }).then((found) => found.violations)"
        )
        return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]


@contextlib.contextmanager
def notebook_page(lab: JupyterServer, browser: Browser, name: str) -> Iterator[tuple[NotebookPage, Panel]]:
    """A notebook whose kernel is ready; its kernels are ended with it."""
    with lab_page(lab, browser, f"lab/tree/{name}") as page:
        panel = Panel(page)
        notebook = NotebookPage(page)
        notebook.wait_ready()
        try:
            yield notebook, panel
        finally:
            end_kernels(lab, page)
        assert panel.problems == []


@contextlib.contextmanager
def client_of(lab: JupyterServer) -> Iterator[BlockingKernelClient]:
    """A console of the only kernel, which names no cell."""
    (path,) = (lab.root.parent / "runtime").glob("kernel-*.json")
    client = BlockingKernelClient(connection_file=str(path))
    client.load_connection_file()
    client.session.username = "ada"
    client.start_channels(hb=False)
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()


def active_cell(notebook: NotebookPage) -> Locator:
    return notebook.panel.locator(".jp-Notebook .jp-Cell.jp-mod-active")


def test_what_any_client_runs_is_in_the_panel_and_a_click_goes_to_the_cell(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    filler = "\n".join(f"# line {number}" for number in range(60))
    name = write_notebook(
        lab, "rtc-python", "print('first of all')", filler, f"print('so far')\n{gate.code}print('opened')", "1"
    )
    with notebook_page(lab, browser, name) as (notebook, panel):
        page = notebook.page
        expect(panel.node).to_be_hidden()
        loaded = "performance.getEntriesByType('resource').filter((one) => /panel[.-]/.test(one.name)).length"
        assert page.evaluate(loaded) == 0, "nothing of the panel is loaded before it is looked at"
        panel.open()
        expect(panel.node.locator(".empty")).to_contain_text("Nothing has run")
        notebook.run(0, 1)
        expect(panel.card("first of all")).to_have_attribute("data-state", "ok")
        notebook.start(2)
        running = panel.card("gate_until")
        expect(running).to_have_attribute("data-state", "running")
        expect(panel.node.locator(".now")).to_contain_text("Running for")
        expect(running.locator(".outputs-fold")).to_have_text("1 lineso far")
        gate.open()
        expect(running).to_have_attribute("data-state", "ok")
        expect(running.locator(".count")).to_have_text("[2]")
        expect(running.locator(".outputs-fold")).to_contain_text("2 lines")

        with client_of(lab) as console:
            console.execute("print('from ' + 'a console')")
            mine = panel.card("'a console'")
            expect(mine).to_have_attribute("data-state", "ok")
            expect(mine.locator(".facts")).to_contain_text("ada")
            expect(mine.locator(".facts")).to_contain_text("no cell")
            expect(panel.outputs()).to_have_text("from a console\n")
            mine.locator(".code").click()
            expect(panel.told).to_contain_text("This ran without a cell: in a console or a script")

        panel.card("first of all").locator(".code").click()
        expect(active_cell(notebook)).to_contain_text("first of all")
        expect(notebook.cell(0)).to_be_in_viewport()
        panel.card("gate_until").get_by_label("Go to the cell").click()
        expect(active_cell(notebook)).to_contain_text("gate_until")
        expect(active_cell(notebook)).to_be_in_viewport()
        page.keyboard.press("Escape")
        press_twice(page, "d")
        expect(notebook.panel.locator(".jp-Notebook .jp-Cell")).to_have_count(3)
        panel.card("gate_until").get_by_label("Go to the cell").click()
        expect(panel.told).to_contain_text("Its cell is in nothing that is open here")

        panel.search.fill("A CONSOLE")
        expect(panel.cards).to_have_count(1)
        expect(panel.node.locator(".counted")).to_have_text("1 found")
        panel.node.get_by_role("button", name="Filters").click()
        panel.node.get_by_role("button", name="Clear").click()
        expect(panel.cards).to_have_count(3)
        panel.node.locator("select").first.select_option("error")
        expect(panel.node.locator(".empty")).to_have_text("No execution fits the filter.")

        panel.node.get_by_role("button", name="Clear").click()
        panel.cards.last.focus()
        page.keyboard.press("f")
        queue = Gate(tmp_path / "queue")
        with client_of(lab) as console:  # what runs is followed from the first to the last of those that wait
            console.execute(queue.code)
            for number in range(40):
                console.execute(f"print('run', {number})")
            expect(panel.node.locator(".now")).to_contain_text("40 waiting")
            queue.open()
            expect(panel.card("'run', 39")).to_have_attribute("data-state", "ok")
            expect(panel.card("'run', 39")).to_be_in_viewport()


PICTURE = """\
import base64
from IPython.display import HTML, Image, display
display(HTML("<b>bold</b><script>window.ran = 'in the panel'</script>"))
display(Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==')))
"""


def test_outputs_are_there_again_and_the_timeline_shows_how_it_was(lab: JupyterServer, browser: Browser) -> None:
    long = "for i in range(30000): print('line', i, '.' * 40)"
    name = write_notebook(lab, "rtc-python", PICTURE, "1/0", long)
    with notebook_page(lab, browser, name) as (notebook, panel):
        page = notebook.page
        for index in range(3):
            notebook.run(index, index + 1)
        page.evaluate("window.ran = null")
        panel.open()
        fold = panel.card("bold").locator(".outputs-fold")
        expect(fold).to_have_text("HTML, image")
        fold.click()
        expect(panel.outputs().locator("b")).to_have_text("bold")
        expect(panel.outputs().locator("img")).to_be_visible()
        assert page.evaluate("window.ran") is None, "what is in no cell is not trusted"
        expect(panel.card("1/0").locator(".why")).to_have_text("ZeroDivisionError: division by zero")
        fold.click()
        expect(panel.outputs()).to_have_count(0)
        panel.card("1/0").locator(".outputs-fold").click()
        expect(panel.outputs()).to_contain_text("Traceback")
        panel.card("1/0").locator(".outputs-fold").click()

        panel.card("range(30000)").locator(".outputs-fold").click()
        expect(panel.outputs()).to_contain_text("left out here")
        panel.node.get_by_role("button", name="Show all of it").click()
        expect(panel.outputs()).to_contain_text("line 15000 .")
        panel.card("range(30000)").locator(".outputs-fold").click()

        panel.node.get_by_role("button", name="Timeline").click()
        chart = panel.node.get_by_role("img", name=re.compile("^3 executions"))
        expect(chart).to_be_visible()
        panel.node.get_by_label("Moment that is shown").focus()
        page.keyboard.press("Home")
        expect(panel.cards).to_have_count(0)
        expect(panel.node.locator(".banner.past")).to_contain_text("not live")
        panel.node.get_by_role("button", name="Back to live").click()
        expect(panel.cards).to_have_count(3)


def test_it_is_used_by_keys_and_fits_light_and_dark(lab: JupyterServer, browser: Browser) -> None:
    name = write_notebook(lab, "rtc-python", "print('one')", "1/0", "print('three')")
    with notebook_page(lab, browser, name) as (notebook, panel):
        page = notebook.page
        for index in range(3):
            notebook.run(index, index + 1)
        panel.open()
        expect(panel.cards).to_have_count(3)
        list_ = panel.node.get_by_role("region", name=re.compile("^Executions"))
        list_.focus()
        page.keyboard.press("g")
        expect(panel.cards.first).to_be_focused()
        page.keyboard.press("j")
        expect(panel.cards.nth(1)).to_be_focused()
        page.keyboard.press("k")
        expect(panel.cards.first).to_be_focused()
        page.keyboard.press("Tab")
        expect(panel.cards.first.get_by_label("Go to the cell")).to_be_focused()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("/")
        expect(panel.search).to_be_focused()
        page.keyboard.type("jdd")
        expect(panel.search).to_have_value("jdd")
        expect(panel.node.locator(".empty")).to_be_visible()
        panel.search.fill("")
        expect(panel.cards).to_have_count(3)
        panel.cards.nth(1).focus()
        page.keyboard.press("Enter")
        expect(active_cell(notebook)).to_contain_text("1/0")
        page.keyboard.press("Escape")
        page.keyboard.press("k")
        expect(active_cell(notebook)).to_contain_text("one")
        expect(notebook.panel.locator(".jp-Notebook .jp-Cell")).to_have_count(3)

        panel.node.get_by_role("button", name="Timeline").click()
        panel.node.get_by_role("button", name="Filters").click()
        for fold in panel.node.locator(".outputs-fold").all():
            fold.click()
        panel.cards.first.get_by_label("Details").click()
        light = page.evaluate("getComputedStyle(document.querySelector('#rtc-kernel-panel')).backgroundColor")
        complaints = [f"light: {one}" for one in panel.complaints_of_axe()] if AXE.exists() else []
        choose(page, "Settings", "Theme", "JupyterLab Dark")
        expect(panel.node).to_have_attribute("data-light", "false")
        expect(panel.node).not_to_have_css("background-color", light)
        if AXE.exists():
            complaints += [f"dark: {one}" for one in panel.complaints_of_axe()]
        assert complaints == []

        with page.expect_response(
            lambda one: (
                "/api/workspaces/" in one.url and '"current":"rtc-kernel-panel"' in (one.request.post_data or "")
            )
        ):
            panel.tab.click()
            panel.open()
        page.reload()
        expect(panel.node.get_by_role("button", name="Timeline")).to_be_visible()  # where its user has left it open
        expect(panel.card("three")).to_be_visible()


def test_other_kernels_other_documents_and_kernels_that_end(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_notebook(lab, "rtc-python", "print('before')", f"{gate.code}os._exit(1)", "print('after')")
    plain = write_notebook(lab, "python3", "print('unseen')")
    with notebook_page(lab, browser, name) as (notebook, panel):
        page = notebook.page
        notebook.run(0, 1)
        panel.open()
        expect(panel.card("before")).to_have_attribute("data-state", "ok")
        page.locator(".jp-DirListing-item", has_text=plain).dblclick()
        expect(panel.node.locator(".empty")).to_contain_text("has no live document")
        expect(panel.node.locator(".empty")).to_contain_text("jupyter rtc install")
        page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text=name).click()
        expect(panel.card("before")).to_be_visible()
        page.locator(".lm-DockPanel-tabBar .lm-TabBar-addButton").first.click()
        page.locator(".jp-Launcher:not(.lm-mod-hidden)").wait_for()
        expect(panel.card("before")).to_be_visible()  # a launcher has no kernel: what was looked at stays
        page.locator(".jp-LauncherCard[data-category='Console']", has_text="RTC Python").click()
        expect(panel.node.locator("h2")).to_contain_text("Console")
        expect(panel.node.locator(".empty")).to_contain_text("Nothing has run")
        page.locator(".jp-CodeConsole-promptCell .cm-content").fill("print('in a ' + 'console')")
        page.keyboard.press("Shift+Enter")
        mine = panel.card("in a ")
        expect(mine).to_have_attribute("data-state", "ok")
        page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text=plain).click()
        page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text="Console").click()
        mine.locator(".code").click()
        expect(page.locator(".jp-CodeConsole-content .jp-Cell", has_text="in a")).to_be_in_viewport()

        page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text=name).click()
        expect(panel.card("before")).to_be_visible()
        notebook.start(1)
        expect(panel.card("os._exit")).to_have_attribute("data-state", "running")
        gate.open()
        expect(panel.card("os._exit")).to_have_attribute("data-state", "lost")
        page.locator(".jp-Dialog .jp-mod-accept").click()  # JupyterLab says that the kernel has restarted
        notebook.wait_ready()
        notebook.run(2, 1)
        expect(panel.card("after")).to_have_attribute("data-state", "ok")
        expect(panel.card("before")).to_be_visible()

        page.get_by_role("menuitem", name="Kernel").click()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Shut Down Kernel$")).click()
        expect(panel.node.locator(".banner")).to_have_text("The kernel was shut down. This is its history.")
        expect(panel.card("before")).to_be_visible()
        expect(panel.node.locator(".title .state")).to_have_text("ended")


@pytest.mark.skipif(bool(missing("notebook")), reason="not installed: notebook")
def test_in_notebook_it_is_in_the_right_sidebar(browser: Browser, tmp_path: Path) -> None:
    with jupyter_lab(tmp_path / "notebook", NOTEBOOK) as server:
        name = write_notebook(server, "rtc-python", "print('one')", "print('two')")
        page = browser.context.new_page()
        panel = Panel(page)
        page.goto(f"{server.url}notebooks/{name}?token={server.token}")
        code = page.locator(".jp-Notebook .jp-Cell .cm-content")
        code.first.wait_for()
        expect(panel.node).to_be_hidden()
        choose(page, "View", "Right Sidebar", "Show Kernel History")
        expect(panel.node.locator(".empty")).to_contain_text("Nothing has run")
        code.first.click()
        page.keyboard.press("Shift+Enter")
        page.keyboard.press("Shift+Enter")
        expect(panel.card("two")).to_have_attribute("data-state", "ok")
        panel.card("one").locator(".code").click()
        expect(page.locator(".jp-Notebook .jp-Cell.jp-mod-active")).to_contain_text("one")
        end_kernels(server, page)
        page.close()
