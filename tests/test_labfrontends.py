"""The JupyterLab extension in each frontend for which it is made, the oldest and the newest: the core."""

from __future__ import annotations

import contextlib
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import wait_until
from frontends import READERS, SERVER_DOCUMENTS, WRITERS, Frontend
from kernels import FOREVER, Gate
from servers import JupyterServer
from tools import in_lab, missing

MISSING = missing("playwright")

pytestmark = in_lab(MISSING)

if TYPE_CHECKING or not MISSING:
    from jupyterlab_page import (
        Browser,
        NotebookPage,
        agent_of,
        another,
        end_kernels,
        history,
        jupyter_lab,
        start_kernel,
        tab,
        wait_on,
        write_notebook,
    )
    from playwright.sync_api import Error as PlaywrightError
    from playwright.sync_api import WebSocketRoute, expect


@pytest.fixture(scope="module", params=READERS, ids=str)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    yield from serve(request.param, tmp_path_factory)


def serve(frontend: Frontend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    if frontend.lacks:
        pytest.skip(frontend.lacks)
    with jupyter_lab(tmp_path_factory.mktemp(frontend.name), frontend) as running:
        yield running


@pytest.fixture(scope="module", params=WRITERS, ids=str)
def writer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    yield from serve(request.param, tmp_path_factory)


@pytest.fixture(autouse=True)
def kernels_end(request: pytest.FixtureRequest, browser: Browser) -> Iterator[None]:
    server = request.getfixturevalue("lab" if "lab" in request.fixturenames else "writer")
    yield
    page = browser.context.new_page()
    end_kernels(server, page)
    page.close()


def test_a_run_comes_back_goes_on_without_its_agent_and_other_pages_see_the_next_ones(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    first, second, third = (Gate(tmp_path / name) for name in ("first", "second", "third"))
    loop = f"print('é0')\n{first.code}print('é1')\n{second.code}print('é2')"
    name = write_notebook(lab, "rtc-python", "'before'", loop, f"print('one')\n{third.code}print('two')", "print('x')")
    with tab(lab, browser, name) as theirs:
        theirs.wait_ready()
        theirs.run(0, 1)
        theirs.start(1)
        expect(theirs.outputs(1)).to_have_text("é0\n")
    first.open()
    with tab(lab, browser, name) as theirs, another(browser) as elsewhere, tab(lab, elsewhere, name) as mine:
        for notebook in (theirs, mine):
            expect(notebook.outputs(0)).to_have_text("'before'")
            expect(notebook.prompt(0)).to_have_text("[1]:")
            expect(notebook.outputs(1)).to_have_text("é0\né1\n")
            expect(notebook.prompt(1)).to_have_text("[*]:")
            expect(notebook.indicator).to_have_attribute("data-status", "busy")
        agent_of(lab).kill()
        second.open()
        for notebook in (theirs, mine):
            expect(notebook.outputs(1)).to_have_text("é0\né1\né2\n")
            expect(notebook.prompt(1)).to_have_text("[2]:")
            expect(notebook.indicator).to_have_attribute("data-status", "idle")
        mine.save(lab, name)
        theirs.start(2)
        theirs.start(0)
        expect(mine.outputs(2)).to_have_text("one\n")
        expect(mine.prompt(2)).to_have_text("[*]:")
        expect(mine.prompt(0)).to_have_text("[*]:")
        expect(mine.cell(2).locator(".rtc-Note")).to_contain_text(f"{theirs.user} · ")
        third.open()
        expect(mine.outputs(2)).to_have_text("one\ntwo\n")
        expect(mine.prompt(2)).to_have_text("[3]:")
        expect(mine.outputs(0)).to_have_text("'before'")
        expect(mine.prompt(0)).to_have_text("[4]:")
        assert not mine.is_dirty, "the other page saves it"
        assert theirs.is_dirty
        mine.run(3, 5)
        expect(theirs.outputs(3)).to_have_text("x\n")
        expect(mine.outputs(3)).to_have_text("x\n")
        expect(theirs.cell(3).locator(".rtc-Note")).to_contain_text(f"{mine.user} · ")
        expect(mine.cell(3).locator(".rtc-Note")).to_have_count(0)
        cards = mine.open_history()
        expect(cards).to_have_count(5)
        expect(cards.last).to_contain_text("print('x')")


def test_a_cell_with_other_code_says_so_and_what_a_user_has_cleared_stays_cleared(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_notebook(lab, "rtc-python", "print('then')", "'gone'", f"{gate.code}'back'")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(0, 1)
        notebook.write(0, "print('now')")
        notebook.save(lab, name)
        notebook.write(0, "print('<b>ran</b>')")
        notebook.run(0, 2)
        notebook.run(1, 3)
        notebook.start(2)
        expect(notebook.prompt(2)).to_have_text("[*]:")
        notebook.prompt(1).click()
        notebook.command("Clear Cell Output")
        expect(notebook.outputs(1)).to_have_count(0)
        wait_until(lambda: history(lab)[1]["metadata"], "that it was cleared is noted")
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
        notebook.write(1, "'written'")
        gate.open()
        expect(notebook.outputs(2)).to_have_text("'back'")
        expect(notebook.outputs(1)).to_have_count(0)
        notebook.cell(1).locator(".cm-content").click()
        notebook.page.keyboard.press("Control+z")
        expect(notebook.cell(1).locator(".cm-content")).to_have_text("'gone'")
        expect(notebook.outputs(2)).to_have_text("'back'")
        notebook.run(0, 5)
        expect(notebook.outputs(0)).to_have_text("now\n")
        expect(mark).to_have_count(0)


def test_what_is_lost_with_a_connection_is_completed_when_it_is_back(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    """Of a run of the page's own: JupyterLab alone would wait for its end for ever."""
    gate, second, third = (Gate(tmp_path / name) for name in ("gate", "second", "third"))
    sockets, lossy = [], False
    large = "from IPython.display import HTML, display\ndisplay(HTML('<i>large</i>' + ' ' * 100_000))"  # a blob
    torn = f"print('a')\n{second.code}print('b')\n{third.code}print('c')"
    name = write_notebook(lab, "rtc-python", f"print('one')\n{gate.code}print('two')\n{large}\n'end'", torn)
    whole = ["one\ntwo\n", "large", "'end'"]

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: None if lossy else socket.send(message))
        sockets.append(socket)

    def cut() -> None:
        for socket in list(sockets):  # a page may have made more than one
            with contextlib.suppress(PlaywrightError):
                socket.close(code=4000)

    with another(browser) as elsewhere:
        elsewhere.context.route_web_socket(re.compile("/channels"), relay)
        with tab(lab, elsewhere, name) as notebook:
            notebook.wait_ready()
            notebook.start(0)
            expect(notebook.outputs(0)).to_have_text("one\n")
            lossy = True
            gate.open()
            with tab(lab, browser, name) as watching:
                expect(watching.outputs(0)).to_have_text(whole)
            expect(notebook.outputs(0)).to_have_text("one\n")
            lossy = False
            cut()
            expect(notebook.outputs(0)).to_have_text(whole)
            expect(notebook.prompt(0)).to_have_text("[1]:")
            notebook.start(0)
            expect(notebook.prompt(0)).to_have_text("[2]:")
            expect(notebook.outputs(0)).to_have_text(whole)
            notebook.start(1)
            expect(notebook.outputs(1)).to_have_text("a\n")
            lossy = True
            second.open()
            with tab(lab, browser, name) as watching:
                expect(watching.outputs(1)).to_have_text("a\nb\n")
            lossy, before = False, len(sockets)
            cut()
            wait_on(notebook.page, lambda: len(sockets) > before, "it is connected again")
            third.open()  # JupyterLab hears the end, and nothing of what is missing in between
            expect(notebook.prompt(1)).to_have_text("[3]:")
            expect(notebook.outputs(1)).to_have_text("a\nb\nc\n")


def spend_an_hour(server: JupyterServer, browser: Browser, *, is_asked: bool) -> None:
    """What a user does with a kernel, whatever its page is. ``is_asked``: the page has answers for ``input()``."""
    ask = "zebra_crossing = 7\nname = input('who? ')\nprint('hello', name)"
    sleep = f"print('asleep')\n{FOREVER}"
    name = write_notebook(server, "rtc-python", ask, sleep, "zebra_", "%rtc share", "1/0")
    start_kernel(server, browser, name)
    with tab(server, browser, name) as notebook:
        notebook.wait_ready()
        notebook.start(0)
        if is_asked:
            notebook.cell(0).locator(".jp-Stdin-input").fill("Ada")
            notebook.cell(0).locator(".jp-Stdin-input").press("Enter")
            expect(notebook.outputs(0).last).to_have_text("hello Ada\n")
        else:
            expect(notebook.outputs(0)).to_contain_text("StdinNotImplementedError")
        expect(notebook.prompt(0)).to_have_text(re.compile(r"\[\d+\]:"))
        notebook.start(1)
        expect(notebook.outputs(1)).to_have_text(re.compile(r"asleep\n"))
        notebook.press_twice(1, "i")
        expect(notebook.outputs(1).last).to_contain_text("KeyboardInterrupt")
        notebook.complete(2, "zebra_crossing")
        expect(notebook.cell(2).locator(".cm-content")).to_have_text("zebra_crossing")
        notebook.run(2, 3)
        expect(notebook.outputs(2)).to_have_text("7")
        notebook.run(3)
        link = str(notebook.outputs(3).locator("a").first.get_attribute("href"))
        with urllib.request.urlopen(link, timeout=30) as page:
            assert page.status == 200
        notebook.run(4, 4)
        expect(notebook.outputs(4)).to_contain_text("ZeroDivisionError")
        with notebook.page.expect_response(re.compile(r"/api/kernels/[^/]+/restart")):
            notebook.press_twice(2, "0")
            notebook.page.locator(".jp-Dialog .jp-mod-accept").click()
        notebook.wait_ready()
        notebook.start(2)
        expect(notebook.outputs(2)).to_contain_text("NameError")
        ended = ["ok" if is_asked else "error", "error", "ok", "ok", "error", "error"]
        wait_until(lambda: [run["state"] for run in reversed(history(server))] == ended, "all is in the history", 60)


def test_a_kernel_asks_completes_is_interrupted_shared_and_restarted(lab: JupyterServer, browser: Browser) -> None:
    spend_an_hour(lab, browser, is_asked=True)


def test_so_it_does_where_a_server_shares_the_notebook(
    writer: JupyterServer, browser: Browser, request: pytest.FixtureRequest
) -> None:
    """jupyter-server-documents 0.3 asks nobody, whatever the kernel."""
    spend_an_hour(writer, browser, is_asked=request.node.callspec.params["writer"] is not SERVER_DOCUMENTS)


def test_where_a_server_shares_the_notebook_nothing_is_filled_and_nothing_is_there_twice(
    writer: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_notebook(writer, "rtc-python", f"print('one')\n{gate.code}print('two')", "2", "print('three')")
    start_kernel(writer, browser, name)
    wanted = [["one\ntwo\n"], ["2"], ["three\n"]]

    def settle(notebook: NotebookPage) -> None:
        for index, texts in enumerate(wanted):
            expect(notebook.outputs(index)).to_have_text(texts)
            expect(notebook.prompt(index)).to_have_text(f"[{index + 1}]:")
            expect(notebook.cell(index).locator(".rtc-Note")).to_have_count(0)

    with another(browser) as elsewhere, tab(writer, browser, name) as theirs, tab(writer, elsewhere, name) as mine:
        theirs.wait_ready()
        mine.wait_ready()
        theirs.start(0)
        theirs.start(1)
        for notebook in (theirs, mine):
            expect(notebook.outputs(0)).to_have_text(["one\n"])
            expect(notebook.prompt(0)).to_have_text("[*]:")
        gate.open()
        expect(mine.prompt(1)).to_have_text("[2]:")
        mine.start(2)
        for notebook in (theirs, mine):
            settle(notebook)
        with tab(writer, elsewhere, name) as again:
            again.wait_ready()
            settle(again)
            again.run(0, 4)
            for notebook in (theirs, mine, again):
                expect(notebook.prompt(0)).to_have_text("[4]:")
                expect(notebook.outputs(0)).to_have_text(wanted[0])
            expect(again.open_history()).to_have_count(4)
    wait_until(lambda: [run["state"] for run in history(writer)] == ["ok"] * 4, "its kernel has a live document", 60)
