"""The JupyterLab extension and what it is not made for: odd notebooks, odd outputs, cells that go, what breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import nbformat
import pytest
from conftest import wait_until
from frontends import LAB
from kernels import FOREVER, Gate, gone
from servers import JupyterServer
from tools import in_lab, missing

from rtc_kernel import client

MISSING = missing("playwright", "jupyterlab")

pytestmark = in_lab(MISSING)

if TYPE_CHECKING or not MISSING:
    from jupyterlab_page import (
        READY_S,
        Browser,
        NotebookPage,
        agent_of,
        another,
        history,
        jupyter_lab,
        kernel_of,
        lab_page,
        tab,
        wait_on,
        write_notebook,
    )
    from playwright.sync_api import Route, WebSocketRoute, expect


ends = pytest.mark.usefixtures("kernels_end")


@ends
def test_a_notebook_that_cannot_be_written_shows_what_runs_and_is_not_saved(
    lab: JupyterServer, browser: Browser
) -> None:
    name = write_notebook(lab, "rtc-python", "print('one')", "print('two')")
    (lab.root / name).chmod(0o444)
    before = (lab.root / name).read_bytes()
    written: list[str] = []

    def deny(route: Route) -> None:  # whoever runs the tests may write every file
        if route.request.method != "GET":
            written.append(route.request.url)
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "writable": False})

    with another(browser) as elsewhere, tab(lab, browser, name) as theirs:
        elsewhere.context.route(re.compile(rf"/api/contents/{name}\?"), deny)
        theirs.wait_ready()
        with tab(lab, elsewhere, name) as mine:
            mine.wait_ready()
            theirs.run(0, 1)
            expect(mine.outputs(0)).to_have_text("one\n")
            expect(mine.prompt(0)).to_have_text("[1]:")
            theirs.run(1, 2)
        with tab(lab, elsewhere, name) as mine:
            expect(mine.outputs(0)).to_have_text("one\n")
            expect(mine.outputs(1)).to_have_text("two\n")
            expect(mine.page.locator(".jp-Dialog")).to_have_count(0)
    assert (written, (lab.root / name).read_bytes()) == ([], before)


@ends
def test_a_new_notebook_is_followed_when_it_is_saved_and_under_its_new_name(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    with another(browser) as elsewhere, lab_page(lab, browser) as page:
        page.locator('.jp-LauncherCard[data-category="Notebook"]', has_text="RTC Python").click()
        theirs = NotebookPage(page)
        theirs.wait_ready()
        theirs.write(0, f"print('one')\n{first.code}print('two')\n{second.code}print('three')")
        theirs.start(0)
        expect(theirs.outputs(0)).to_have_text("one\n")
        with tab(lab, elsewhere, "Untitled.ipynb") as mine:
            expect(mine.indicator).to_have_attribute("data-status", "busy")
            expect(mine.prompt(0)).to_have_text("[ ]:")
            expect(mine.outputs(0)).to_have_count(0)
        page.keyboard.press("Control+s")  # asks for a name
        page.locator(".jp-Dialog input").first.fill("renamed.ipynb")
        with page.expect_response(lambda one: one.request.method == "PUT" and "/api/contents/" in one.url):
            page.locator(".jp-Dialog .jp-mod-accept").click()
        first.open()
        expect(theirs.outputs(0)).to_have_text("one\ntwo\n")
        with tab(lab, elsewhere, "renamed.ipynb") as mine:
            expect(mine.outputs(0)).to_have_text("one\ntwo\n")
            expect(mine.prompt(0)).to_have_text("[*]:")
            second.open()
            for notebook in (mine, theirs):
                expect(notebook.outputs(0)).to_have_text("one\ntwo\nthree\n")
                expect(notebook.prompt(0)).to_have_text("[1]:")


@ends
def test_a_copy_of_a_notebook_shows_what_its_own_kernel_ran(lab: JupyterServer, browser: Browser) -> None:
    name = write_notebook(lab, "rtc-python", "print('one')", "print('two')")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(0, 1)
        (session,) = notebook.page.request.get(f"{lab.url}api/sessions").json()
        for copy in ("own.ipynb", "same.ipynb"):
            shutil.copy(lab.root / name, lab.root / copy)
        made = nbformat.read(lab.root / "same.ipynb", as_version=4)
        made.cells[1].source = "print('other')"
        nbformat.write(made, lab.root / "same.ipynb")
        notebook.run(1, 2)
        with tab(lab, browser, "own.ipynb") as copied:
            copied.wait_ready()
            copied.run(1, 1)
            expect(copied.outputs(0)).to_have_count(0)
            expect(copied.prompt(0)).to_have_text("[ ]:")
        body = {"path": "same.ipynb", "name": "", "type": "notebook", "kernel": {"id": session["kernel"]["id"]}}
        headers = {"Authorization": f"token {lab.token}"}
        assert notebook.page.request.post(f"{lab.url}api/sessions", data=body, headers=headers).ok
        with tab(lab, browser, "same.ipynb") as copied:
            expect(copied.outputs(0)).to_have_text("one\n")
            expect(copied.outputs(1)).to_have_count(0)
            expect(copied.cell(1).locator(".rtc-Note button")).to_have_text("ran with different code")


@ends
def test_cells_that_are_deleted_cut_split_and_merged_while_they_run(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    codes = (f"{first.code}print('one')", "'deleted'", f"print('three')\n{second.code}print('four')")
    name = write_notebook(lab, "rtc-python", *codes, "'split'\n'here'", "'merged'", "'tail'", "'end'")
    with another(browser) as elsewhere, tab(lab, browser, name) as mine, tab(lab, elsewhere, name) as theirs:
        mine.wait_ready()
        theirs.wait_ready()
        for index in range(7):
            theirs.start(index)
        expect(mine.prompt(6)).to_have_text("[*]:")
        for notebook in (mine, theirs):
            notebook.press_twice(1, "d")
            expect(notebook.cell(1).locator(".cm-content")).to_contain_text("three")
        first.open()
        for notebook in (mine, theirs):
            expect(notebook.outputs(1)).to_have_text("three\n")  # so what was deleted has ended
            notebook.press(0, "z")
            expect(notebook.outputs(1)).to_have_text("'deleted'")
            expect(notebook.prompt(1)).to_have_text("[2]:")
        mine.press(2, "x")
        expect(mine.cell(2).locator(".cm-content")).to_contain_text("split")
        mine.press(5, "v")
        expect(mine.cell(6).locator(".cm-content")).to_contain_text("three")
        mine.press(3, "Shift+ArrowDown", "Shift+M")
        expect(mine.cell(3).locator(".cm-content")).to_contain_text("tail")
        mine.cell(2).locator(".cm-content").click()
        mine.page.keyboard.press("Control+Home")
        mine.page.keyboard.press("End")
        mine.page.keyboard.press("Control+Shift+-")
        expect(mine.cell(3).locator(".cm-content")).to_contain_text("here")
        second.open()  # now they are: one, deleted, split, here, merged with tail, end, three and four
        expect(mine.outputs(6)).to_have_text("three\nfour\n")
        expect(mine.prompt(6)).to_have_text("[3]:")
        expect(mine.outputs(5)).to_have_text("'end'")
        expect(mine.prompt(5)).to_have_text("[7]:")
        for index in (2, 4):
            expect(mine.outputs(index)).to_have_count(0)
        expect(mine.outputs(3)).to_have_text("'here'")  # of what is split JupyterLab takes the last part for the cell
        for notebook in (mine, theirs):
            expect(notebook.panel.locator(".jp-InputPrompt", has_text="*")).to_have_count(0)


@ends
def test_a_notebook_without_ids_of_cells_is_matched_by_its_code(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_notebook(lab, "rtc-python", "print('one')", "'twice'", "'twice'", f"{gate.code}print('four')")
    made = json.loads((lab.root / name).read_text())
    made["nbformat_minor"] = 4
    for cell in made["cells"]:
        del cell["id"]
    (lab.root / name).write_text(json.dumps(made))
    timed = {"raw": '{"recordTiming": true}'}
    headers = {"Authorization": f"token {lab.token}"}
    settings = f"{lab.url}lab/api/settings/@jupyterlab/notebook-extension:tracker"
    assert browser.context.request.put(settings, data=timed, headers=headers).ok
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(0, 1)
        notebook.run(1, 2)
        own = notebook.metadata(0)["execution"]
        notebook.start(3)
        wait_until(lambda: len(history(lab)) == 3, "it has left the page", 30)
    with tab(lab, browser, name) as notebook:
        expect(notebook.outputs(0)).to_have_text("one\n")
        expect(notebook.prompt(0)).to_have_text("[1]:")
        expect(notebook.prompt(3)).to_have_text("[*]:")
        gate.open()
        expect(notebook.outputs(3)).to_have_text("four\n")
        expect(notebook.prompt(3)).to_have_text("[3]:")
        for index in (1, 2):
            expect(notebook.outputs(index)).to_have_count(0)
        assert notebook.metadata(0)["execution"].keys() == own.keys()
    assert browser.context.request.put(settings, data={"raw": "{}"}, headers=headers).ok


@ends
def test_what_the_python_client_asks_for_with_a_cell_is_in_that_cell(lab: JupyterServer, browser: Browser) -> None:
    name = write_notebook(lab, "rtc-python", "print('asked')", "'second'")
    cells = nbformat.read(lab.root / name, as_version=4).cells

    def ask(code: str, cell: int | None) -> None:
        async def run() -> None:
            kernel = kernel_of(lab)
            async with client.connect(kernel.url, token=kernel.token, timeout_s=60) as doc, asyncio.timeout(60):
                asked = await doc.run(code, **({} if cell is None else {"cell": cells[cell].id, "notebook": name}))
                await asked.result()

        with ThreadPoolExecutor(1) as pool:  # here Playwright's loop runs
            pool.submit(asyncio.run, run()).result()

    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.save(lab, name)
        ask("print('asked')", 0)
        expect(notebook.outputs(0)).to_have_text("asked\n")
        expect(notebook.prompt(0)).to_have_text("[1]:")
        expect(notebook.cell(0).locator(".rtc-Note")).to_contain_text("owner")
        assert notebook.is_dirty, "no page has run it, so none will save it"
        ask("print('other')", 1)
        expect(notebook.cell(1).locator(".rtc-Note button")).to_have_text("ran with different code")
        expect(notebook.outputs(1)).to_have_count(0)
        ask("print('of no cell')", None)
        ask("print('asked')", 0)
        expect(notebook.prompt(0)).to_have_text("[4]:")  # so the page knows of the run before, too
        notebook.press(1, "b")
        notebook.write(2, "print('of no cell')")
        agent_of(lab).kill()  # all of the document comes anew
        ask("print('asked again')\n", 0)
        expect(notebook.cell(0).locator(".rtc-Note button")).to_have_text("ran with different code")
        expect(notebook.outputs(0)).to_have_text("asked\n")
        expect(notebook.outputs(2)).to_have_count(0)
        ask("print('of no cell')", None)
        expect(notebook.outputs(2)).to_have_text("of no cell\n")
        notebook.save(lab, name)
    with tab(lab, browser, name) as notebook:
        expect(notebook.outputs(0)).to_have_text("asked\n")
        expect(notebook.cell(1).locator(".rtc-Note button")).to_have_text("ran with different code")


PROGRESS = (
    "for i in range(4):\n    print(f'\\r{i} of 4', end='', flush=True)\nGATEprint('\\rdone ')",
    "from tqdm import tqdm\nfor i in tqdm(range(30)):\n    pass\nprint('all')",
    "from IPython.display import clear_output as clear\nprint(9)\nGATEfor i in '012':\n    clear(True)\n    print(i)",
    "from IPython.display import display, HTML\nshown = display(HTML('<i>first</i>'), display_id=True)\n'more'",
    "shown.update(HTML('<b>second</b>'))",
    "import sys\nprint('a\\bb\\x1b[31mred\\x1b[0m')\nprint('é\\x1b[1A🙂')\nprint('err', file=sys.stderr)\nprint(1)",
)


@ends
def test_progress_bars_and_displays_that_change_are_the_same_live_restored_and_where_they_ran(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_notebook(lab, "rtc-python", *(code.replace("GATE", gate.code) for code in PROGRESS))
    with another(browser) as elsewhere, tab(lab, browser, name) as theirs, tab(lab, elsewhere, name) as mine:
        theirs.wait_ready()
        mine.wait_ready()
        for index in range(len(PROGRESS)):
            theirs.start(index)
        expect(mine.outputs(0)).to_have_text("3 of 4")
        gate.open()
        for notebook in (theirs, mine):
            expect(notebook.prompt(5)).to_have_text("[6]:")
            expect(notebook.outputs(0)).to_have_text("done 4\n")
            expect(notebook.outputs(2)).to_have_text("2\n")
            expect(notebook.outputs(3).first).to_have_text("second")
        with tab(lab, elsewhere, name) as restored:
            expect(restored.prompt(5)).to_have_text("[6]:")
            for index in range(len(PROGRESS)):
                drawn = theirs.model(index)
                assert mine.model(index) == drawn
                assert restored.model(index) == drawn
                assert mine.outputs(index).all_inner_texts() == theirs.outputs(index).all_inner_texts()
                assert restored.outputs(index).all_inner_texts() == theirs.outputs(index).all_inner_texts()


HOSTILE = """
from IPython.display import display, HTML, Javascript, SVG
run = "window.ran = 'RAN'"
display(HTML(f'<img src=x onerror="{run}"><a href="javascript:{run}" id="link">link</a><script>{run}</script>'))
display(Javascript(run))
display({"text/markdown": f'<img src=x onerror="{run}"> [a](javascript:{run}) **bold**'}, raw=True)
display({"image/svg+xml": f'<svg xmlns="http://www.w3.org/2000/svg"><script>{run}</script></svg>'}, raw=True)
display({"text/latex": "$\\\\href{javascript:window.ran=1}{x}$"}, raw=True)
display({"__proto__": "x", "text/plain": "proto"}, metadata={"__proto__": {"trusted": True}}, raw=True)
display({"application/vnd.jupyter.widget-view+json": {"model_id": "x", "version_major": 2}}, raw=True)
display({"application/json": {"a": [1, None, {"b": "c"}]}, "text/plain": ["a list"]}, raw=True)
display({"text/html": ["<em>", "parts", "</em>"]}, raw=True)
display({"application/vnd.nobody+x": "?"}, raw=True)
display({}, raw=True)
print("\\x00 nul \\u202e turned", "x" * 100_000)
raise type("<b>E</b>", (Exception,), {})(f"<img src=x onerror={run!r}>")
"""


@ends
def test_hostile_outputs_that_come_back_do_nothing_and_take_nothing_along(lab: JupyterServer, browser: Browser) -> None:
    name = write_notebook(lab, "rtc-python", HOSTILE, "'behind'")
    with another(browser) as elsewhere, tab(lab, browser, name) as theirs, tab(lab, elsewhere, name) as mine:
        mine.wait_ready()
        theirs.wait_ready()
        theirs.run(0, 1)
        theirs.run(1, 2)
        with tab(lab, elsewhere, name) as restored:
            for notebook in (mine, restored):
                expect(notebook.outputs(1)).to_have_text("'behind'")
                expect(notebook.outputs(0).last).to_contain_text("onerror")
                expect(notebook.outputs(0).locator("strong")).to_have_text("bold")
                assert notebook.page.evaluate("window.ran") is None
                assert notebook.page.evaluate("Object.prototype.trusted") is None
            assert [sorted(output) for output in mine.model(0)] == [sorted(output) for output in restored.model(0)]
            assert len(restored.model(0)) == len(theirs.model(0))
            restored.save(lab, name)


@ends
def test_a_run_that_has_left_the_document_comes_back_from_the_history(lab: JupyterServer, browser: Browser) -> None:
    kernels = lab.root.parent / "data" / "kernels"
    spec = json.loads((kernels / "rtc-python" / "kernel.json").read_text())
    spec["env"] = {"RTC_KERNEL_WINDOW_BYTES": str(1 << 20)}
    (kernels / "rtc-small").mkdir()
    (kernels / "rtc-small" / "kernel.json").write_text(json.dumps(spec))
    picture = "from IPython.display import display, HTML\ndisplay(HTML('<i>old</i>' + ' ' * 100_000))"  # a blob
    flood = "for i in range(30_000): print('line', i, '.' * 20)"
    name = write_notebook(lab, "rtc-small", "print('first')", picture, "'never'", "'cleared'", flood, flood + " # 2")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        for index in (0, 1, 3):
            notebook.run(index)
        for index in (4, 5, 4, 5):
            notebook.start(index)
        expect(notebook.prompt(5)).to_have_text("[7]:")
        expect(notebook.prompt(4)).to_have_text("[6]:")
    with tab(lab, browser, name) as notebook:
        expect(notebook.prompt(5)).to_have_text("[7]:")
        expect(notebook.outputs(0)).to_have_text("first\n")
        expect(notebook.prompt(0)).to_have_text("[1]:")
        expect(notebook.outputs(1).locator("i")).to_have_text("old")
        expect(notebook.outputs(3)).to_have_text("'cleared'")
        expect(notebook.prompt(2)).to_have_text("[ ]:")
        expect(notebook.cell(0).locator(".rtc-Note")).to_have_count(0)
        notebook.prompt(3).click()
        notebook.command("Clear Cell Output")
        wait_until(lambda: any(run["metadata"] for run in history(lab)), "that it was cleared is noted", 30)
    with tab(lab, browser, name) as notebook:
        expect(notebook.outputs(0)).to_have_text("first\n")
        expect(notebook.outputs(3)).to_have_count(0)


@ends
def test_a_page_that_lost_messages_or_begins_a_new_epoch_shows_all_once(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gates = [Gate(tmp_path / str(number)) for number in range(4)]
    loop = "print(0)\n" + "".join(f"{gate.code}print({number})\n" for number, gate in enumerate(gates, 1))
    name = write_notebook(lab, "rtc-python", "'kept'", loop)
    is_lossy, lost = False, 0

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def receive(message: str | bytes) -> None:
            nonlocal lost
            if is_lossy and isinstance(message, bytes) and b'"comm_msg"' in message:
                lost += 1
            else:
                socket.send(message)

        server.on_message(receive)

    with another(browser) as elsewhere, tab(lab, browser, name) as theirs:
        elsewhere.context.route_web_socket(re.compile("/channels"), relay)
        with tab(lab, elsewhere, name) as mine:
            theirs.wait_ready()
            mine.wait_ready()
            theirs.run(0, 1)
            theirs.start(1)
            expect(mine.outputs(1)).to_have_text("0\n")
            is_lossy = True
            gates[0].open()
            expect(theirs.outputs(1)).to_have_text("0\n1\n")
            wait_on(mine.page, lambda: lost, "something is lost")
            is_lossy = False
            expect(mine.outputs(1)).to_have_text("0\n")
            gates[1].open()
            expect(mine.outputs(1)).to_have_text("0\n1\n2\n")
            kernel = kernel_of(lab)
            headers = {"Authorization": f"Bearer {kernel.token}"}
            assert mine.page.request.post(f"{kernel.url}/api/clear", headers=headers).ok
            gates[2].open()
            expect(mine.outputs(1)).to_have_text("0\n1\n2\n3\n")
            expect(mine.outputs(0)).to_have_text("'kept'")
            assert [run["cell"] for run in history(lab)] == [mine.page.evaluate(CELL_ID)]
            gates[3].open()
            expect(mine.outputs(1)).to_have_text("0\n1\n2\n3\n4\n")
            expect(mine.prompt(1)).to_have_text("[2]:")
            expect(mine.prompt(0)).to_have_text("[1]:")


CELL_ID = "window.jupyterapp.shell.currentWidget.content.widgets[1].model.id"


class Updates:
    """Those of the document on their way to a browser's pages, which may be held back."""

    def __init__(self, browser: Browser) -> None:
        self.is_holding = False
        self.held: list[tuple[WebSocketRoute, str | bytes]] = []
        browser.context.route_web_socket(re.compile("/channels"), self._relay)

    def release(self) -> None:
        self.is_holding = False
        for socket, message in self.held:
            socket.send(message)

    def _relay(self, socket: WebSocketRoute) -> None:
        def receive(message: str | bytes) -> None:
            if self.is_holding and isinstance(message, bytes) and message[0] == 7:  # with a buffer, as updates are
                self.held.append((socket, message))
            else:
                socket.send(message)

        socket.connect_to_server().on_message(receive)


@ends
def test_a_cell_that_is_run_in_the_moment_its_outputs_come_back_shows_the_new_ones_alone(
    lab: JupyterServer, browser: Browser
) -> None:
    name = write_notebook(lab, "rtc-python", "n = globals().get('n', 0) + 1; print('run', n); n")
    with tab(lab, browser, name) as theirs:
        theirs.wait_ready()
        theirs.run(0, 1)
    with another(browser) as elsewhere:
        updates = Updates(elsewhere)
        updates.is_holding = True
        with tab(lab, elsewhere, name) as mine:
            mine.wait_ready()
            wait_on(mine.page, lambda: updates.held, "the history has come")
            mine.run(0, 2)
            wanted = ["run 2\n", "2"]
            expect(mine.outputs(0)).to_have_text(wanted)
            asked = mine.model(0)
            updates.release()
            filled = "performance.getEntriesByName('rtc_kernel:filled').length"
            wait_until(lambda: mine.page.evaluate(filled), "the notebook is filled", READY_S)
            assert mine.model(0) == asked
            expect(mine.open_history()).to_have_count(2)
            assert mine.model(0) == asked
            expect(mine.outputs(0)).to_have_text(wanted)
            mine.run(0, 3)
            expect(mine.outputs(0)).to_have_text(["run 3\n", "3"])


@ends
def test_a_cell_that_is_cleared_before_the_document_knows_of_its_end_stays_cleared(
    lab: JupyterServer, browser: Browser
) -> None:
    """An agent, and what it says, may be late on a busy machine."""
    name = write_notebook(lab, "rtc-python", "print('first')", "print('cleared')")
    with another(browser) as elsewhere:
        updates = Updates(elsewhere)
        with tab(lab, elsewhere, name) as mine:
            mine.wait_ready()
            mine.run(0, 1)
            mine.run(1, 2)
            expect(mine.open_history()).to_have_count(2)
            updates.is_holding = True
            mine.run(1, 3)
            wait_on(mine.page, lambda: updates.held, "the document's news have come")
            mine.prompt(1).click()
            mine.command("Clear Cell Output")
            expect(mine.outputs(1)).to_have_count(0)
            updates.release()
            wait_on(mine.page, lambda: history(lab)[0]["metadata"], "that it was cleared is noted")
            assert not history(lab)[1]["metadata"], "of the run before nothing was"
    with tab(lab, browser, name) as again:
        expect(again.outputs(0)).to_have_text("first\n")
        expect(again.outputs(1)).to_have_count(0)


@ends
def test_fifty_cells_and_twenty_thousand_lines_that_another_browser_runs_are_complete(
    lab: JupyterServer, browser: Browser
) -> None:
    codes = [f"print({number})\n{number} * 2" for number in range(50)]
    name = write_notebook(lab, "rtc-python", *codes, "for i in range(20_000): print('line', i)\n'end'")
    with another(browser) as elsewhere, tab(lab, browser, name) as theirs, tab(lab, elsewhere, name) as mine:
        theirs.wait_ready()
        mine.wait_ready()
        theirs.prompt(0).click()
        theirs.command("Run All Cells")
        count = "window.jupyterapp.shell.currentWidget.content.widgets[50].model.executionCount"
        mine.page.wait_for_function(f"{count} === 51", timeout=READY_S * 1000)
        for number in range(50):
            stream, result = mine.model(number)
            assert (stream["text"], result["data"]) == (f"{number}\n", {"text/plain": str(number * 2)})
        stream, result = mine.model(50)
        assert stream["text"] == "".join(f"line {i}\n" for i in range(20_000))
        assert result["data"] == {"text/plain": "'end'"}


def test_a_server_that_is_started_again_takes_nothing_from_the_page_and_adds_nothing(
    browser: Browser, tmp_path: Path
) -> None:
    """Its kernels end with it, however it ends."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(jupyter_lab(tmp_path / "home"))
        name = write_notebook(lab, "rtc-python", "print('kept')", f"print('begun')\n{FOREVER}")
        mine = stack.enter_context(tab(lab, browser, name))
        mine.wait_ready()
        mine.run(0, 1)
        mine.start(1)
        expect(mine.outputs(1)).to_have_text("begun\n")
        kernels = lab.process.children(recursive=True)
        lab.process.kill()
        wait_until(gone([lab.process, *kernels]), "server and kernels have ended", 60)
        options = (f"--ServerApp.port={urlsplit(lab.url).port}", f"--IdentityProvider.token={lab.token}")
        stack.enter_context(jupyter_lab(tmp_path / "home", LAB, *options))
        gone_from = re.compile(r"RTC Python \| Disconnected|No Kernel \| Unknown")
        expect(mine.status).to_have_text(gone_from, timeout=150_000)  # it tries at growing intervals
        expect(mine.prompt(1)).to_have_text("[ ]:", timeout=150_000)
        mine.page.add_locator_handler(mine.page.locator(".jp-Dialog"), lambda: mine.page.keyboard.press("Escape"))
        mine.cell(0).locator(".cm-content").click()  # so dialogs that say that the server was away are closed
        expect(mine.outputs(0)).to_have_text("kept\n")
        expect(mine.outputs(1)).to_have_text("begun\n")
        mine.save(lab, name)
        mine.page.close()
        again = stack.enter_context(tab(lab, browser, name))
        again.wait_ready()
        again.run(0, 1)
        expect(again.outputs(0)).to_have_text("kept\n")
        expect(again.outputs(1)).to_have_text("begun\n")


@pytest.fixture(params=["wrapped", "provisioned"])
def own_kernel(request: pytest.FixtureRequest, lab: JupyterServer) -> str:
    """A kernelspec that the user has written, put behind the relay in either way; the name to start it by."""
    data, name = lab.root.parent / "data", f"own-{request.param}"
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec: dict[str, Any] = {"argv": argv, "display_name": "Mine", "language": "python", "env": {"OF_MINE": "yes"}}
    if request.param == "provisioned":
        spec["metadata"] = {"kernel_provisioner": {"provisioner_name": "rtc-provisioner"}}
    (data / "kernels" / name).mkdir()
    (data / "kernels" / name / "kernel.json").write_text(json.dumps(spec))
    if request.param == "provisioned":
        return name
    install = [sys.executable, "-m", "rtc_kernel.cli", "install", "--kernel", name, "--user"]
    subprocess.run(install, env={**os.environ, "JUPYTER_DATA_DIR": str(data)}, check=True, capture_output=True)
    return f"rtc-{name}"


@ends
def test_a_kernel_of_the_users_own_shows_what_it_ran_while_the_tab_was_closed(
    lab: JupyterServer, browser: Browser, tmp_path: Path, own_kernel: str
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_notebook(lab, own_kernel, f"import os\nprint(os.environ['OF_MINE'])\n{gate.code}print('two')")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.start(0)
        expect(notebook.outputs(0)).to_have_text("yes\n")
    with tab(lab, browser, name) as notebook:
        expect(notebook.outputs(0)).to_have_text("yes\n")
        expect(notebook.status).to_have_text(re.compile(r"Mine \| Busy$"))
        gate.open()
        expect(notebook.outputs(0)).to_have_text("yes\ntwo\n")
        expect(notebook.prompt(0)).to_have_text("[1]:")
