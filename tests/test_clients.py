"""Clients that know nothing of us do with RTC Python what they do with ipykernel, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clients
import nbformat
import pytest
from clients import LINK, NAMES, Terminal, Window, followed, live, processes, served, terminal, until_it_hears, window
from conftest import wait_until
from frontends import CLIENTS
from kernels import FOREVER, gone
from nbformat.v4 import new_code_cell
from servers import JupyterServer, jupyter_server
from serving import eventually
from test_notebooks import made
from test_server import call, discovered, front_of, history, on_loop
from tools import missing, qt_lacks

from rtc_kernel import discovery

MISSING = missing("ipywidgets", "playwright")
in_browser = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

pytestmark = [
    pytest.mark.skipif(bool(CLIENTS.lacks), reason=CLIENTS.lacks),
    pytest.mark.timeout(300),
]

if TYPE_CHECKING or not MISSING:
    from jupyterlab_page import LABEXTENSION, READY_S, Browser, end_kernels, is_done, write_notebook
    from nbclassic_page import classic_tab
    from playwright.sync_api import expect

Until = Callable[..., Any]

SLEEP = f"print('as' + 'leep'); {FOREVER}"
SLIDER = (
    "import ipywidgets\nslider, label = ipywidgets.IntSlider(value=3), ipywidgets.Label('is 3')\n"
    "slider.observe(lambda change: setattr(label, 'value', f'is {change.new}'), 'value')\ndisplay(slider, label)"
)


@pytest.fixture(autouse=True)
def furnished(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of another environment find our kernelspecs, and those before theirs."""
    clients.furnish(home / "data")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")


# --- in a terminal


def converse(console: Terminal) -> str:
    """Output, an error, a question, a value, an interrupt; all that was shown."""
    console.until(r"In \[1\]: ")
    until_it_hears(console)
    console.enter("print('naïve ☃')")
    console.until(r"In \[2\]: ")
    console.enter("1/0")
    console.until(r"In \[3\]: ")
    console.enter("name = input('who' + '? ')")
    console.until(r"\nwho\? ")
    console.enter("Ada")
    console.until(r"In \[4\]: ")
    console.enter("name")
    console.until(r"In \[5\]: ")
    console.enter(SLEEP)
    console.until("asleep\n")
    console.press("\x03")
    console.until(r"In \[6\]: ")
    return console.text.partition("In [1]: ")[2].replace("^C", "")


def test_jupyter_console_shows_the_same_and_ends_its_kernel(until: Until) -> None:
    with terminal("console", "--kernel", NAMES[1]) as console:
        bare = converse(console)
        console.enter("exit")
        assert console.end() == 0
    with terminal("console", "--kernel", NAMES[0]) as console:
        ours = converse(console)
        (kernel,) = live(until)
        started = processes(kernel)
        console.enter("%rtc share")
        (link,) = LINK.findall(console.until(r"In \[\d\]: "))
        codes = followed(link, 6)
        console.enter("exit")
        assert console.end() == 0
    assert "naïve ☃\n" in ours
    assert "ZeroDivisionError" in ours
    assert "Out[4]: 'Ada'" in ours
    assert "KeyboardInterrupt" in ours
    assert ours == bare
    assert codes == ["print('naïve ☃')", "1/0", "name = input('who' + '? ')", "name", SLEEP, "%rtc share"]
    until(gone(started), "nothing of it runs any more", 30)
    assert discovery.live() == []


def test_jupyter_console_completes_and_another_finds_its_kernel_and_leaves_it_there(until: Until) -> None:
    patient = ("--ZMQTerminalInteractiveShell.kernel_is_complete_timeout=60", "--ZMQCompleter.timeout=60")
    with terminal("console", "--kernel", NAMES[0], *patient, plain=False) as first:
        first.until(r"In \[1\]: ")
        until_it_hears(first)
        first.enter("zebra_crossing = 7")
        first.until(r"In \[2\]: ")
        first.press("zebra_")
        first.until("zebra_")
        first.press("\t")
        first.until("crossing")
        first.enter(" * 6")
        first.until(r"Out\[2\]: 42")
        first.until(r"In \[3\]: ")
        (kernel,) = live(until)
        first.press("%rtc hist")
        first.until("%rtc hist")
        first.press("\t")
        first.until("ory")
        first.enter("")
        first.until("%rtc show ID")
        started = processes(kernel)
        others = "--ZMQTerminalInteractiveShell.include_other_output=True"
        with terminal("console", "--existing", others, *patient, plain=False) as second:
            second.until(r"In \[\d+\]: ")
            until_it_hears(second)
            first.until(r"In \[3\]: ")
            first.enter("print('from ' + 'elsewhere')")
            second.until("from elsewhere\n")
            first.until(r"In \[4\]: ")
            second.enter("zebra_crossing")
            second.until(r"Out\[4\]: 7\n")
            second.enter("exit")
            assert second.end() == 0
        assert all(process.is_running() for process in started), "this console has not started it"
        assert followed(kernel.kernel_id, 5)[1:5] == [
            "zebra_crossing * 6",
            "%rtc history",
            "print('from ' + 'elsewhere')",
            "zebra_crossing",
        ]
        first.press("\x04")
        first.until("exit")
        first.enter("y")
        assert first.end() == 0
    until(gone(started), "nothing of it runs any more", 30)


# --- in a window


def work(console: Window) -> str:
    """The same in Qt Console; it types ASCII."""
    console.until(r"In \[1\]: $")
    until_it_hears(console)
    console.enter("print('na\\xefve')")
    console.until(r"In \[2\]: $")
    console.enter("1/0")
    console.until(r"In \[3\]: $")
    console.enter("name = input('who' + '? ')")
    console.until(r"\nwho\? $")
    console.enter("Ada")
    console.until(r"In \[4\]: $")
    console.press("nam")
    console.press("Tab")
    console.until(r"In \[4\]: name$")
    console.press("Enter")
    console.until(r"In \[5\]: $")
    console.enter(SLEEP)
    console.until("asleep\n$")
    console.press("Control+C")
    return console.until(r"In \[6\]: $").partition("In [1]: ")[2]


@pytest.mark.skipif(bool(qt_lacks()), reason=f"run `apt-get install {' '.join(qt_lacks())}`")
def test_qtconsole_shows_the_same_restarts_and_ends_its_kernel(home: Path, until: Until) -> None:
    with window(home, "--kernel", NAMES[1]) as console:
        bare = work(console)
        assert console.close() == 0
    with window(home, "--kernel", NAMES[0]) as console:
        ours = work(console)
        (kernel,) = live(until)
        started = processes(kernel)
        console.press("%rtc shar")
        console.press("Tab")
        console.until(r"%rtc share$")
        console.press("Enter")
        (link,) = LINK.findall(console.until(r"withdraw it.*\s+In \[\d\]: $"))
        assert followed(link, 6)[-1] == "%rtc share"
        with window(home, "--existing", "--ConsoleWidget.include_other_output=True") as other:
            other.until(r"In \[\d\]: $")
            until_it_hears(other)
            console.enter("print('from ' + 'elsewhere')")
            console.until(r"In \[7\]: $")
            other.until("from elsewhere")
            other.enter("name")
            other.until(r"Out\[7\]: 'Ada'")
            assert other.close() == 0
        console.press("Control+.")
        console.until("Restarting kernel")
        console.enter("'name' in globals()")
        console.until(r"Out\[1\]: False\s+In \[\d\]: $")
        until(gone(started), "the one before has ended", 30)
        started = processes(*live(until))
        assert followed(link, 9)[-2:] == ["name", "'name' in globals()"]
        assert console.close() == 0
    assert "na\xefve\n" in ours
    assert "ZeroDivisionError" in ours
    assert "Out[4]: 'Ada'" in ours
    assert "KeyboardInterrupt" in ours
    assert ours == bare
    until(gone(started), "nothing of it runs any more", 30)
    assert discovery.live() == []


# --- over the net (before a browser takes this thread's loop)


@on_loop
async def test_a_kernel_gateways_kernel_runs_is_interrupted_restarted_shared_and_ended(home: Path) -> None:
    options = ("--KernelGatewayApp.ip=127.0.0.1", "--KernelGatewayApp.auth_token=secret")
    with served(home, "kernel_gateway", *options, says="is available at", token="secret") as server:
        kernel = str((await call(server, "POST", "api/kernels", {"name": NAMES[0]}))["id"])
        async with front_of(server, kernel) as front:
            codes = ("print('naïve ☃')", "input('who? ')")
            reply, text = await front.execute(codes[0])
            assert (reply["status"], text) == ("ok", "naïve ☃\n")
            asking = await front.start(codes[1])
            while not any(message["type"] == "input_request" for message in front.messages):
                await front.receive()  # it comes on a channel of its own, before execute_input or behind it
            await front.send("stdin", "input_reply", {"value": "Ada"})
            assert (await front.finish(asking))["status"] == "ok"
            await front.send("shell", "complete_request", {"code": "%rtc shar", "cursor_pos": 9})
            completed = await front.wait_for(lambda message: message["type"] == "complete_reply")
            assert completed["content"]["matches"] == ["share"]
            sleeping = await front.start(SLEEP)
            await front.wait_for(lambda message: "asleep" in message["content"].get("text", ""))
            await call(server, "POST", f"api/kernels/{kernel}/interrupt")
            assert (await front.finish(sleeping))["ename"] == "KeyboardInterrupt"
            await call(server, "POST", f"api/kernels/{kernel}/restart")
        async with front_of(server, kernel) as front:
            await front.execute("%rtc share")
            (shown,) = [message["content"]["data"] for message in front.messages if message["type"] == "display_data"]
            live = await discovered(kernel)
            await history(live, "ok", "ok", "error", "ok")
            (link,) = LINK.findall(shown["text/plain"])
            assert await asyncio.to_thread(followed, link, 4) == [*codes, SLEEP, "%rtc share"]
        started = processes(live)
        await call(server, "DELETE", f"api/kernels/{kernel}")
        await eventually(gone(started), "nothing of it runs any more", 30)
        assert discovery.live() == []


# --- in a browser


def spend_an_hour(server: JupyterServer, browser: Browser, kernel: str) -> list[object]:
    """What a user does in nbclassic; what the page showed before and after a restart."""
    ask = "name = input('who? ')\nprint('hello', name)"
    name = write_notebook(server, kernel, "print('naïve ☃')\nname = 6 * 7\nname", "1/0", SLIDER, ask, SLEEP, "nam")
    with classic_tab(server, browser, name) as notebook:
        for cell in range(3):
            notebook.run(cell)
        handle = notebook.cell(2).locator(".noUi-handle")
        handle.press("ArrowRight")
        expect(notebook.outputs(2).locator(".widget-label", has_text="is 4")).to_be_visible()
        notebook.start(3)
        notebook.cell(3).locator(".raw_input").fill("Ada")
        notebook.cell(3).locator(".raw_input").press("Enter")
        expect(notebook.outputs(3).last).to_contain_text("hello Ada")
        notebook.start(4)
        expect(notebook.outputs(4)).to_have_text(re.compile(r"asleep\n"))
        expect(notebook.prompt(4)).to_have_text(re.compile(r"\[\*\]"))
        notebook.press("interrupt-kernel")
        expect(notebook.outputs(4).last).to_contain_text("KeyboardInterrupt")
        notebook.enter(5)

        def is_completed() -> bool:  # an answer that comes late is not taken
            notebook.page.keyboard.press("End")
            notebook.page.keyboard.press("Tab")
            return is_done(notebook.cell(5).locator(".CodeMirror-code", has_text="name").wait_for)

        wait_until(is_completed, "the name is completed", READY_S)
        expect(notebook.cell(5).locator(".CodeMirror-code")).to_have_text("name")
        notebook.run(5)
        before = notebook.seen()
        notebook.restart()
        notebook.run(5)
        expect(notebook.outputs(5).last).to_contain_text("NameError")
        expect(notebook.prompt(5)).to_have_text(re.compile(r"\[1\]"))
        return [before, notebook.seen()]


@pytest.mark.browser
@in_browser
def test_nbclassic_shows_the_same_and_its_kernels_end(home: Path, browser: Browser, until: Until) -> None:
    with jupyter_server("nbclassic", home, os.environ, python=CLIENTS.python) as server:
        bare = spend_an_hour(server, browser, NAMES[1])
        ours = spend_an_hour(server, browser, NAMES[0])
        assert ours == bare
        (kernel,) = live(until)
        started = processes(kernel)
        name = write_notebook(server, NAMES[0], "%rtc share")
        page = browser.context.new_page()
        with classic_tab(server, browser, name) as notebook:
            notebook.run(0)
            link = notebook.outputs(0).locator("a").first
            assert followed(str(link.get_attribute("href")), 1) == ["%rtc share"]
        assert [run.split("\n")[0] for run in followed(kernel.kernel_id, 7)][-2:] == ["name", "name"]
        started += processes(live(until, 2)[1])
        end_kernels(server, page)
        until(gone(started), "nothing of them runs any more", 30)
        page.close()


@pytest.mark.browser
@in_browser
def test_voila_shows_a_notebook_whose_kernel_can_be_watched_and_ends_with_the_page(
    home: Path, browser: Browser, until: Until
) -> None:
    """Its kernels are made in advance, one beyond those that are used."""
    root = home / "notebooks"
    root.mkdir()
    shutil.copytree(LABEXTENSION, home / "data" / "labextensions" / "@rtc-kernel" / "lab")  # it loads all there are
    cells = ("print('naïve ☃')", "from IPython.display import HTML; HTML('<b>bold</b>')", SLIDER)
    nbformat.write(made(*map(new_code_cell, cells), kernel=NAMES[0]), root / "dashboard.ipynb")
    options = ("--no-browser", "--Voila.ip=127.0.0.1", "--preheat_kernel=True", "--pool_size=1", str(root))
    with served(home, "voila", *options, says="is running at:") as server:
        (kernel,) = live(until)
        _, *run = followed(kernel.kernel_id, 4)  # the first is Voila's own
        assert run == list(cells), "before anybody looks"
        started = processes(kernel)
        page = browser.context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(server.url)  # the list of notebooks brings the cookie without which Voila lets no page end a kernel
        page.goto(f"{server.url}voila/render/dashboard.ipynb")
        expect(page.locator("b", has_text="bold")).to_be_visible()
        expect(page.get_by_text("naïve ☃")).to_be_visible()
        page.locator(".noUi-handle").press("ArrowRight")
        expect(page.get_by_text("is 4")).to_be_visible()
        assert [text for text in said if "rtc" in text.lower()] == [], "our extension is quiet in it"
        _, spare = live(until, 2)
        page.close(run_before_unload=True)
        until(gone(started), "its kernel has ended", 30)
        assert [kernel.kernel_id for kernel in discovery.live()] == [spare.kernel_id]
        assert followed(spare.kernel_id, 4)[1:] == run
        started = processes(spare)
    until(gone(started), "the other one ends with the server", 30)
