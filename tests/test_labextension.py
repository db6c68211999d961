"""The JupyterLab extension, in a real browser: outputs come back, and every page shows every run."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import random
import re
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import psutil
import pytest
from kernels import Gate
from servers import JupyterServer
from tools import missing

MISSING = missing("playwright", "jupyterlab")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.timeout(300),
]

if TYPE_CHECKING or not MISSING:
    from jupyterlab_page import (
        READY_S,
        Browser,
        NotebookPage,
        another,
        chromium,
        end_kernels,
        jupyter_lab,
        lab_page,
        write_notebook,
    )
    from playwright.sync_api import WebSocketRoute, expect


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    with jupyter_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@contextlib.contextmanager
def tab(lab: JupyterServer, browser: Browser, name: str) -> Iterator[NotebookPage]:
    """A notebook in a tab of its own, which is closed at the end. Its kernel goes on."""
    with lab_page(lab, browser, f"lab/tree/{name}") as page:
        notebook = NotebookPage(page)
        notebook.cell(0).locator(".cm-content").wait_for()
        yield notebook


@pytest.fixture
def kernels_end(lab: JupyterServer, browser: Browser) -> Iterator[None]:
    yield
    page = browser.context.new_page()
    end_kernels(lab, page)
    page.close()


pytestmark.append(pytest.mark.usefixtures("kernels_end"))


def test_a_tab_that_is_closed_in_mid_run_and_opened_again_shows_all_and_goes_on(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    loop = f"print('é0')\n{first.code}print('é1')\n{second.code}print('é2')"
    name = write_notebook(lab, "rtc-python", "'before'", loop)
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(0, 1)
        notebook.start(1)
        expect(notebook.outputs(1)).to_have_text("é0\n")
    first.open()
    with tab(lab, browser, name) as notebook:
        expect(notebook.outputs(0)).to_have_text("'before'")
        expect(notebook.prompt(0)).to_have_text("[1]:")
        expect(notebook.outputs(1)).to_have_text("é0\né1\n")
        expect(notebook.prompt(1)).to_have_text("[*]:")
        expect(notebook.indicator).to_have_attribute("data-status", "busy")
        second.open()
        expect(notebook.outputs(1)).to_have_text("é0\né1\né2\n")
        expect(notebook.prompt(1)).to_have_text("[2]:")
        expect(notebook.indicator).to_have_attribute("data-status", "idle")
        notebook.run(0, 3)
        expect(notebook.outputs(0)).to_have_text("'before'")


def png_of(side: int) -> bytes:
    """A picture of random points, too large to stand in the document."""
    rng = random.Random(side)
    rows = b"".join(b"\x00" + rng.randbytes(3 * side) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def is_dirty(notebook: NotebookPage) -> bool:
    return notebook.page.locator(".lm-DockPanel-tabBar .lm-mod-current.jp-mod-dirty").count() > 0


def name_of_user(notebook: NotebookPage) -> str:
    """What the server calls who sits at this page: somebody else in each browser."""
    return str(notebook.page.evaluate("fetch('/api/me').then(answer => answer.json())")["identity"]["display_name"])


def agent_of(lab: JupyterServer) -> psutil.Process:
    """The agent of the only kernel that has one."""
    (agent,) = [p for p in lab.process.children(recursive=True) if "rtc_kernel.agent" in p.cmdline()]
    return agent


def command(notebook: NotebookPage, label: str) -> None:
    """One of the command palette."""
    page = notebook.page
    page.keyboard.press("Control+Shift+c")
    page.locator(".lm-CommandPalette-input").last.fill(label)
    page.locator(".lm-CommandPalette-item.lm-mod-active", has_text=label).first.wait_for()
    page.keyboard.press("Enter")


SCRIPT = "from IPython.display import display, HTML\ndisplay(HTML('<b>bold</b><script>window.ran = true</script>'))"


def saved(lab: JupyterServer, notebook: NotebookPage, name: str) -> nbformat.NotebookNode:
    """Save the notebook as its user does; what is in the file then."""
    with notebook.page.expect_response(lambda answer: answer.request.method == "PUT" and name in answer.url):
        notebook.page.keyboard.press("Control+s")
    made = nbformat.read(lab.root / name, as_version=4)
    nbformat.validate(made)
    return made


def test_what_came_while_nobody_looked_is_in_the_saved_notebook_in_full(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    flood = f"{gate.code}for i in range(150_000): print('line', i)\n'end'"  # more than the document has of one run
    picture = "import base64\nfrom IPython.display import Image, display\ndisplay(Image(base64.b64decode(png)))"
    png = f"png = {base64.b64encode(png_of(200)).decode()!r}"
    name = write_notebook(lab, "rtc-python", png, flood, picture, "1/0")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        for cell in range(4):
            notebook.start(cell)
        expect(notebook.prompt(3)).to_have_text("[*]:")
    gate.open()
    with tab(lab, browser, name) as notebook:
        expect(notebook.prompt(3)).to_have_text("[4]:")
        expect(notebook.outputs(1).last).to_have_text("'end'")
        image = notebook.outputs(2).locator("img")
        expect(image).to_be_visible()
        assert image.evaluate("image => image.naturalWidth") == 200
        expect(notebook.outputs(3)).to_contain_text("ZeroDivisionError")
        made = saved(lab, notebook, name)
        stream, result = made.cells[1].outputs
        assert stream.text == "".join(f"line {i}\n" for i in range(150_000))
        assert (result.output_type, result.execution_count) == ("execute_result", 2)
        assert base64.b64decode(made.cells[2].outputs[0].data["image/png"]) == png_of(200)
        assert [cell.execution_count for cell in made.cells] == [1, 2, 3, 4]
        assert all("execution" not in cell.metadata for cell in made.cells), "nobody asked for them"


def test_what_another_browser_runs_appears_live_and_leaves_the_notebook_clean(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_notebook(lab, "rtc-python", f"print('one')\n{gate.code}print('two')", "3", "print('x')")
    with another(browser) as elsewhere, tab(lab, browser, name) as mine, tab(lab, elsewhere, name) as theirs:
        mine.wait_ready()
        theirs.wait_ready()
        saved(lab, mine, name)  # JupyterLab itself has written the kernel's name into it
        theirs.start(0)
        theirs.start(1)
        expect(mine.outputs(0)).to_have_text("one\n")
        expect(mine.prompt(0)).to_have_text("[*]:")
        expect(mine.prompt(1)).to_have_text("[*]:")
        expect(mine.cell(0).locator(".rtc-Note")).to_contain_text(f"{name_of_user(theirs)} · ")
        gate.open()
        expect(mine.outputs(0)).to_have_text("one\ntwo\n")
        expect(mine.prompt(0)).to_have_text("[1]:")
        expect(mine.outputs(1)).to_have_text("3")
        expect(mine.prompt(1)).to_have_text("[2]:")
        assert not is_dirty(mine), "the other page saves it"
        assert is_dirty(theirs)
        mine.run(2, 3)
        expect(theirs.outputs(2)).to_have_text("x\n")
        expect(mine.outputs(2)).to_have_text("x\n")
        expect(theirs.cell(2).locator(".rtc-Note")).to_contain_text(f"{name_of_user(mine)} · ")
        expect(mine.cell(2).locator(".rtc-Note")).to_have_count(0)


def test_a_cell_with_other_code_keeps_what_it_shows_and_says_so_and_one_click_shows_both(
    lab: JupyterServer, browser: Browser
) -> None:
    name = write_notebook(lab, "rtc-python", "print('then')")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(0, 1)
        notebook.write(0, "print('now')")
        saved(lab, notebook, name)
        notebook.write(0, "print('<b>ran</b>')")
        notebook.run(0, 2)
    with tab(lab, browser, name) as notebook:
        mark = notebook.cell(0).locator(".rtc-Note button")
        expect(mark).to_have_text("ran with different code")
        expect(notebook.outputs(0)).to_have_text("then\n")
        mark.click()
        other = notebook.cell(0).locator(".rtc-Other")
        expect(other.locator(".rtc-Code")).to_have_text("print('<b>ran</b>')")
        expect(other.locator(".jp-OutputArea-output")).to_have_text("<b>ran</b>\n")
        mark.click()
        expect(other).to_have_count(0)
        assert notebook.cell(0).locator(".cm-content").inner_text() == "print('now')"
        notebook.run(0, 3)
        expect(notebook.outputs(0)).to_have_text("now\n")
        expect(mark).to_have_count(0)


def test_a_script_in_an_output_that_came_back_runs_only_where_the_notebook_is_trusted(
    lab: JupyterServer, browser: Browser
) -> None:
    name = write_notebook(lab, "rtc-python", SCRIPT)
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(0, 1)
        expect(notebook.outputs(0).locator("b")).to_be_visible()
        assert notebook.page.evaluate("window.ran") is True, "its user has run it"
    with tab(lab, browser, name) as notebook:
        expect(notebook.outputs(0).locator("b")).to_be_visible()
        assert notebook.page.evaluate("window.ran") is None, "the file is nobody's whom we know"
        notebook.page.wait_for_function("!document.querySelector('.jp-OutputArea-output script')")
        notebook.run(0, 2)
        saved(lab, notebook, name)
        expect(notebook.prompt(0)).to_have_text("[2]:")
    with tab(lab, browser, name) as notebook:
        expect(notebook.outputs(0).locator("b")).to_be_visible()
        assert notebook.page.evaluate("window.ran") is True


def test_a_kernel_without_a_document_is_left_alone(lab: JupyterServer, browser: Browser) -> None:
    name = write_notebook(lab, "python3", "print('mine')", "2")
    with another(browser) as elsewhere, tab(lab, browser, name) as mine, tab(lab, elsewhere, name) as theirs:
        mine.wait_ready()
        theirs.wait_ready()
        theirs.run(0, 1)
        mine.run(1, 2)
        expect(mine.outputs(0)).to_have_count(0)
        expect(mine.prompt(0)).to_have_text("[ ]:")
    assert "rtc.sync.v1" not in lab.log.read_text()


def test_an_agent_that_is_killed_while_a_cell_runs_costs_the_watching_page_nothing(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate, ends = Gate(tmp_path / "gate"), Gate(tmp_path / "ends")
    name = write_notebook(lab, "rtc-python", f"print('one')\n{gate.code}print('two')\n{ends.code}print('three')")
    with another(browser) as elsewhere, tab(lab, browser, name) as mine, tab(lab, elsewhere, name) as theirs:
        mine.wait_ready()
        theirs.wait_ready()
        theirs.start(0)
        expect(mine.outputs(0)).to_have_text("one\n")
        agent_of(lab).kill()
        gate.open()
        expect(mine.outputs(0)).to_have_text("one\ntwo\n")
        expect(mine.prompt(0)).to_have_text("[*]:")
        ends.open()
        expect(mine.outputs(0)).to_have_text("one\ntwo\nthree\n")
        expect(mine.prompt(0)).to_have_text("[1]:")
        expect(theirs.outputs(0)).to_have_text("one\ntwo\nthree\n")


def test_a_question_that_was_asked_of_a_page_that_is_gone_is_answered_in_another(
    lab: JupyterServer, browser: Browser
) -> None:
    name = write_notebook(lab, "rtc-python", "who = input('who? ')\nprint('hello', who)")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.start(0)
        expect(notebook.cell(0).locator(".jp-Stdin-prompt")).to_have_text("who? ")
    with tab(lab, browser, name) as notebook:
        question = notebook.cell(0).locator(".rtc-Question")
        expect(question.locator(".jp-Stdin-prompt")).to_have_text("who? ")
        question.locator("input").fill("Ada")
        question.locator("input").press("Enter")
        expect(notebook.outputs(0)).to_have_text("hello Ada\n")
        expect(question).to_have_count(0)
        expect(notebook.prompt(0)).to_have_text("[1]:")


def test_what_is_lost_with_a_connection_is_completed_when_it_is_back(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    """Of a run of the page's own: JupyterLab alone would wait for its end for ever."""
    gate, sockets, lossy = Gate(tmp_path / "gate"), [], False
    name = write_notebook(lab, "rtc-python", f"print('one')\n{gate.code}print('two')\n'end'")

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: None if lossy else socket.send(message))
        sockets.append(socket)

    with another(browser) as elsewhere:
        elsewhere.context.route_web_socket(re.compile("/channels"), relay)
        with tab(lab, elsewhere, name) as notebook:
            notebook.wait_ready()
            notebook.start(0)
            expect(notebook.outputs(0)).to_have_text("one\n")
            lossy = True
            gate.open()
            with tab(lab, browser, name) as watching:
                expect(watching.outputs(0)).to_have_text(["one\ntwo\n", "'end'"])
            expect(notebook.outputs(0)).to_have_text("one\n")
            lossy = False
            sockets[-1].close(code=4000)
            expect(notebook.outputs(0)).to_have_text(["one\ntwo\n", "'end'"])
            expect(notebook.prompt(0)).to_have_text("[1]:")
            notebook.start(0)
            expect(notebook.prompt(0)).to_have_text("[2]:")
            expect(notebook.outputs(0)).to_have_text(["one\ntwo\n", "'end'"])


def test_cells_moved_and_deleted_while_another_page_runs_them_and_a_restart(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate, never = Gate(tmp_path / "gate"), Gate(tmp_path / "never")
    code = f"print('one')\n{gate.code}print('two')"
    name = write_notebook(lab, "rtc-python", code, "'second'", f"print('begun')\n{never.code}")
    with another(browser) as elsewhere, tab(lab, browser, name) as mine, tab(lab, elsewhere, name) as theirs:
        mine.wait_ready()
        theirs.wait_ready()
        for cell in range(3):
            theirs.start(cell)
        expect(mine.outputs(0)).to_have_text("one\n")
        mine.cell(0).locator(".jp-InputPrompt").click()
        mine.page.keyboard.press("Control+Shift+ArrowDown")
        expect(mine.cell(1).locator(".cm-content")).to_contain_text("two")
        mine.cell(0).locator(".jp-InputPrompt").click()
        mine.page.keyboard.press("d")
        mine.page.keyboard.press("d")
        gate.open()
        expect(mine.outputs(0)).to_have_text("one\ntwo\n")
        expect(mine.prompt(0)).to_have_text("[1]:")
        expect(mine.outputs(1)).to_have_text("begun\n")
        expect(mine.prompt(1)).to_have_text("[*]:")
        theirs.restart()
        expect(mine.prompt(1)).to_have_text("[3]:")
        expect(mine.outputs(1).first).to_have_text("begun\n")
        theirs.run(1, 1)
        theirs.write(0, "print('anew')")
        theirs.run(0, 2)
        expect(mine.cell(0).locator(".rtc-Note button")).to_have_text("ran with different code")


def test_what_a_user_has_cleared_stays_cleared_and_undo_undoes_what_he_wrote(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_notebook(lab, "rtc-python", "'gone'", f"{gate.code}'back'")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(0, 1)
        notebook.start(1)
        expect(notebook.prompt(1)).to_have_text("[*]:")
        notebook.cell(0).locator(".jp-InputPrompt").click()
        command(notebook, "Clear Cell Output")
        expect(notebook.outputs(0)).to_have_count(0)
    with tab(lab, browser, name) as notebook:
        notebook.write(0, "'written'")
        gate.open()
        expect(notebook.outputs(1)).to_have_text("'back'")
        expect(notebook.outputs(0)).to_have_count(0)
        notebook.cell(0).locator(".cm-content").click()
        notebook.page.keyboard.press("Control+z")
        expect(notebook.cell(0).locator(".cm-content")).to_have_text("'gone'")
        expect(notebook.outputs(1)).to_have_text("'back'")


@pytest.mark.skipif(importlib.util.find_spec("notebook") is None, reason="not installed: notebook")
def test_in_notebook_7_outputs_come_back_and_go_on_too(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    with jupyter_lab(tmp_path_factory.mktemp("notebook"), "notebook") as server:
        name = write_notebook(server, "rtc-python", f"print('one')\n{gate.code}print('two')", "3")
        for is_again in (False, True):
            page = browser.context.new_page()
            heard: list[str] = []
            page.on("websocket", lambda socket: socket.on("framereceived", lambda _: heard.append(socket.url)))  # noqa: B023
            page.goto(f"{server.url}notebooks/{name}?token={server.token}")
            prompts, outputs = page.locator(".jp-InputPrompt"), page.locator(".jp-OutputArea-output")
            if not is_again:
                deadline = time.monotonic() + READY_S
                while not any("/channels" in url for url in heard):  # its indicator is idle before there is a kernel
                    assert time.monotonic() < deadline, "the kernel says nothing"
                    page.wait_for_timeout(20)
                page.locator(".cm-content").first.click()
                page.keyboard.press("Shift+Enter")
                page.keyboard.press("Control+Enter")
            expect(prompts).to_have_text(["[*]:", "[*]:"])
            expect(outputs.first).to_have_text("one\n")
            if not is_again:
                page.close()
        gate.open()
        expect(outputs).to_have_text(["one\ntwo\n", "3"])
        expect(prompts).to_have_text(["[1]:", "[2]:"])
        page.close()
        end_kernels(server, browser.context.new_page())
