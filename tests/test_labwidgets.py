"""Widgets in JupyterLab, in a real browser: after a reload, in every page, and while code runs."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from kernels import Gate
from nbformat.sign import NotebookNotary
from servers import JupyterServer
from tools import in_lab, missing

MISSING = missing("playwright", "jupyterlab", "ipywidgets")

pytestmark = [*in_lab(MISSING), pytest.mark.usefixtures("kernels_end")]

if TYPE_CHECKING or not MISSING:
    from jupyterlab_page import (
        Browser,
        NotebookPage,
        another,
        tab,
        write_notebook,
    )
    from playwright.sync_api import Locator, WebSocketRoute, expect

SLIDER = """\
import ipywidgets as widgets
from IPython.display import display
slider = widgets.IntSlider(5)
out = widgets.Output()
widgets.VBox([slider, out])"""

TIMEOUT_S = 60.0


def write_trusted(lab: JupyterServer, *sources: str) -> str:
    """A notebook that its user has made: JupyterLab draws no widget in another's."""
    name = write_notebook(lab, "rtc-python", *sources)
    with contextlib.closing(NotebookNotary(data_dir=str(lab.root.parent / "data"))) as notary:
        notary.sign(nbformat.read(lab.root / name, as_version=4))
    return name


@contextlib.contextmanager
def headless(lab: JupyterServer) -> Iterator[BlockingKernelClient]:
    """A client of the only kernel, without a page."""
    (file,) = (lab.root.parent / "runtime").glob("kernel-*.json")
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels(hb=False)
    try:
        yield client
    finally:
        client.stop_channels()


def run_headless(lab: JupyterServer, code: str) -> None:
    with headless(lab) as client:
        reply = client.execute(code, reply=True, timeout=TIMEOUT_S)
        assert reply["content"]["status"] == "ok", reply["content"]


def moved_to(value: int) -> str:
    """Code that ends when the kernel has that value: a page's moves may take another way there than its runs."""
    return f"import time\nany(slider.value == {value} or time.sleep(0.01) for _ in range(12_000)) and 'moved'"


def readout(notebook: NotebookPage, cell: int = 0) -> Locator:
    """The number beside a slider."""
    return notebook.cell(cell).locator(".widget-readout")


def captured(notebook: NotebookPage, cell: int = 0) -> Locator:
    """What an ``Output`` widget shows."""
    return notebook.cell(cell).locator(".widget-output .jp-OutputArea-output")


def move(notebook: NotebookPage, cell: int = 0) -> None:
    """Move a slider by one, with the keyboard."""
    notebook.cell(cell).locator(".noUi-handle").focus()
    notebook.page.keyboard.press("ArrowRight")


def test_a_page_that_is_opened_in_mid_run_shows_widgets_as_they_are_and_follows_the_run(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    first, second, third = (Gate(tmp_path / name) for name in ("first", "second", "third"))
    run = f"""\
from tqdm.notebook import tqdm
slider.value = 7
for step in tqdm(range(3)):
    with out:
        print('step', step)
    slider.value += 1
    gate = {[str(tmp_path / name) for name in ("first", "second", "third")]!r}[step]
    {first.code.replace(repr(str(tmp_path / "first")), "gate").replace(chr(10), chr(10) + "    ")}
'end'"""
    name = write_trusted(lab, SLIDER, run)
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(0)
        notebook.start(1)
        expect(captured(notebook)).to_have_text("step 0\n")
    with tab(lab, browser, name) as notebook, another(browser) as elsewhere:
        expect(readout(notebook)).to_have_text("8")
        expect(captured(notebook)).to_have_text("step 0\n")
        first.open()
        with tab(lab, elsewhere, name) as other:
            for page in (notebook, other):
                expect(readout(page)).to_have_text("9")
                expect(captured(page)).to_have_text("step 0\nstep 1\n")
                expect(page.cell(1).locator(".widget-hbox")).to_contain_text("1/3")
                expect(page.prompt(1)).to_have_text("[*]:")
            second.open()
            for page in (notebook, other):
                expect(readout(page)).to_have_text("10")
                expect(captured(page)).to_have_text("step 0\nstep 1\nstep 2\n")
            third.open()
            for page in (notebook, other):
                expect(page.prompt(1)).to_have_text("[2]:")
                expect(page.cell(1).locator(".widget-hbox")).to_contain_text("3/3")
                expect(page.cell(1).locator(".widget-hbox")).to_have_count(1)
                expect(readout(page)).to_have_count(1)
            move(notebook)
            expect(readout(other)).to_have_text("11")
            move(other)
            expect(readout(notebook)).to_have_text("12")
            other.write(1, "slider.value")
            other.run(1)
            expect(other.outputs(1)).to_have_text("12")
            for page in (notebook, other):  # what the first page had heard comes to the kernel's ears only now
                expect(captured(page)).to_have_text("step 0\nstep 1\nstep 2\n")


INTERACT = """\
import ipywidgets as widgets
@widgets.interact(x=widgets.IntSlider(3))
def show(x):
    print('x is', x)"""


def test_two_browsers_move_together_also_what_interact_prints_and_while_code_runs(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    name = write_trusted(lab, INTERACT, f"{gate.code}'end'", "show.widget.children[0].value")
    with another(browser) as elsewhere, tab(lab, browser, name) as mine, tab(lab, elsewhere, name) as theirs:
        mine.wait_ready()
        theirs.wait_ready()
        mine.run(0)
        for page in (mine, theirs):
            expect(captured(page)).to_have_text("x is 3\n")
        move(theirs)
        for page in (mine, theirs):
            expect(readout(page)).to_have_text("4")
            expect(captured(page)).to_have_text("x is 4\n")
        mine.start(1)
        expect(theirs.prompt(1)).to_have_text("[*]:")
        with tab(lab, elsewhere, name) as late:
            expect(readout(late)).to_have_text("4")
            expect(captured(late)).to_have_text("x is 4\n")
            move(late)
            expect(readout(late)).to_have_text("5")
            gate.open()
            for page in (mine, theirs, late):
                expect(page.prompt(1)).to_have_text("[2]:")
                expect(readout(page)).to_have_text("5")
                expect(captured(page)).to_have_text("x is 5\n")
            late.run(2)
            expect(late.outputs(2)).to_have_text("5")


def test_widgets_that_were_made_and_moved_while_nobody_looked_are_there_and_go_on(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    made = f"{SLIDER}\nwith out: print('nobody')\ndisplay(widgets.VBox([slider, out]))"
    later = "widgets.Text('later')"
    name = write_trusted(lab, made, later, "1")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.run(2)  # the page and the kernel know each other
    run_headless(lab, made)
    run_headless(lab, "slider.value = 6")
    with tab(lab, browser, name) as notebook:
        expect(readout(notebook)).to_have_text("6")
        expect(captured(notebook)).to_have_text("nobody\n")
        run_headless(lab, "slider.value = 7\nwith out: print('somebody')")
        expect(readout(notebook)).to_have_text("7")
        expect(captured(notebook)).to_have_text("nobody\nsomebody\n")
        run_headless(lab, later)
        expect(notebook.cell(1).locator("input[type=text]")).to_have_value("later")
        move(notebook)
        notebook.write(2, moved_to(8))
        notebook.run(2)
        expect(notebook.outputs(2)).to_have_text("'moved'")
    with headless(lab) as client:
        client.execute(f"slider.value = 20\nout.clear_output()\n{gate.code}")
        with tab(lab, browser, name) as notebook:
            expect(readout(notebook)).to_have_text("20")
            expect(captured(notebook)).to_have_count(0)
            move(notebook)
            gate.open()
            notebook.write(2, moved_to(21))
            notebook.run(2)
            expect(notebook.outputs(2)).to_have_text("'moved'")


def test_a_widget_that_was_closed_is_not_there_and_one_of_an_earlier_kernel_is_its_text(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    picture = "import os\nimage = widgets.Image(value=os.urandom(200_000), format='png')\nimage"
    name = write_trusted(lab, SLIDER, "gone = widgets.Text('gone')\ngone", picture, f"gone.close()\n{gate.code}'end'")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        for cell in range(3):
            notebook.run(cell)
        expect(notebook.cell(1).locator("input")).to_have_value("gone")
        notebook.start(3)
        expect(notebook.cell(1).locator("input")).to_have_count(0)
    with tab(lab, browser, name) as notebook:
        expect(readout(notebook)).to_have_text("5")
        expect(notebook.cell(2).locator("img.widget-image")).to_have_attribute("src", re.compile("^blob:"))
        size = "async image => (await (await fetch(image.src)).blob()).size"
        assert notebook.cell(2).locator("img.widget-image").evaluate(size) == 200_000, "it stands beside the document"
        expect(notebook.cell(1).locator(".jp-OutputArea-output")).to_be_hidden()
        gate.open()
        expect(notebook.prompt(3)).to_have_text("[4]:")
        notebook.restart()
        expect(notebook.cell(0).locator(".jupyter-widgets-disconnected").first).to_be_visible()
    with tab(lab, browser, name) as notebook:
        expect(notebook.outputs(0)).to_have_text(re.compile(r"^VBox\(children="))
        expect(notebook.outputs(2)).to_have_text(re.compile(r"^Image\(value="))
        expect(notebook.panel).not_to_contain_text("model not found")
        notebook.wait_ready()
        notebook.run(0)
        expect(readout(notebook)).to_have_text("5")


def test_what_a_page_did_not_hear_while_its_connection_was_cut_is_shown_when_it_is_back(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    first, second = Gate(tmp_path / "first"), Gate(tmp_path / "second")
    run = f"slider.value = 6\n{first.code}slider.value = 7\nwith out: print('unheard')\nprint('said')\n{second.code}"
    name = write_trusted(lab, SLIDER, run)
    sockets: list[WebSocketRoute] = []
    lossy = False

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: None if lossy else socket.send(message))
        sockets.append(socket)

    with another(browser) as elsewhere:
        elsewhere.context.route_web_socket(re.compile("/channels"), relay)
        with tab(lab, elsewhere, name) as notebook:
            notebook.wait_ready()
            notebook.run(0)
            notebook.start(1)
            expect(readout(notebook)).to_have_text("6")
            lossy = True
            first.open()
            with tab(lab, browser, name) as watching:
                expect(watching.outputs(1)).to_have_text("said\n")
                expect(readout(watching)).to_have_text("7")
            expect(readout(notebook)).to_have_text("6")
            lossy = False
            for socket in list(sockets):
                socket.close(code=4000)
            expect(readout(notebook)).to_have_text("7")
            expect(captured(notebook)).to_have_text("unheard\n")
            second.open()
            expect(notebook.prompt(1)).to_have_text("[2]:")
            expect(readout(notebook)).to_have_count(1)


def test_without_ipywidgets_in_jupyterlab_there_is_their_text(lab: JupyterServer, browser: Browser) -> None:
    name = write_trusted(lab, SLIDER, "2")
    config = lab.root.parent / "config" / "labconfig" / "page_config.json"
    before = config.read_text()
    disabled = json.loads(before)["disabledExtensions"] | {"@jupyter-widgets/jupyterlab-manager": True}
    config.write_text(json.dumps({"disabledExtensions": disabled}))
    try:
        for is_first in (True, False):
            with tab(lab, browser, name) as notebook:
                notebook.wait_ready()
                if is_first:  # the second page has them from the history
                    notebook.run(0)
                expect(notebook.outputs(0)).to_have_text(re.compile(r"^VBox\(children="))
                notebook.run(1)
    finally:
        config.write_text(before)
