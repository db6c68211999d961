"""The JupyterLab extension, in a real browser: outputs come back, and every page shows every run."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import wait_until
from kernels import Gate
from servers import JupyterServer
from tools import in_lab, missing

MISSING = missing("playwright", "jupyterlab")

pytestmark = [*in_lab(MISSING), pytest.mark.usefixtures("kernels_end")]

if TYPE_CHECKING or not MISSING:
    from jupyterlab_page import Browser, another, history, tab, write_notebook
    from playwright.sync_api import expect


def png_of(side: int) -> bytes:
    """A picture of random points, too large to stand in the document."""
    rng = random.Random(side)
    rows = b"".join(b"\x00" + rng.randbytes(3 * side) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


SCRIPT = "from IPython.display import display, HTML\ndisplay(HTML('<b>bold</b><script>window.ran = true</script>'))"


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
        wait_until(lambda: len(history(lab)) == 4, "all have left the page", 30)
    gate.open()
    with tab(lab, browser, name) as notebook:
        expect(notebook.prompt(3)).to_have_text("[4]:")
        expect(notebook.outputs(1).last).to_have_text("'end'")
        image = notebook.outputs(2).locator("img")
        expect(image).to_be_visible()
        assert image.evaluate("image => image.naturalWidth") == 200
        expect(notebook.outputs(3)).to_contain_text("ZeroDivisionError")
        made = notebook.save(lab, name)
        stream, result = made.cells[1].outputs
        assert stream.text == "".join(f"line {i}\n" for i in range(150_000))
        assert (result.output_type, result.execution_count) == ("execute_result", 2)
        assert base64.b64decode(made.cells[2].outputs[0].data["image/png"]) == png_of(200)
        assert [cell.execution_count for cell in made.cells] == [1, 2, 3, 4]
        assert all("execution" not in cell.metadata for cell in made.cells), "nobody asked for them"


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
        notebook.save(lab, name)
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
        mine.press_twice(0, "d")
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
