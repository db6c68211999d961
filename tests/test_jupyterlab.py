"""A new user's way works: JupyterLab in a real browser, with plots, widgets, questions, interrupt, restart and %rtc."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from kernels import FOREVER
from servers import JupyterServer
from tools import in_lab, missing

MISSING = missing("playwright", "jupyterlab", "ipywidgets", "matplotlib")

pytestmark = in_lab(MISSING)

if TYPE_CHECKING or not MISSING:
    from jupyterlab_page import Browser, NotebookPage, end_kernels, lab_page, open_notebook
    from playwright.sync_api import expect

QUIET = "import logging; logging.getLogger('matplotlib.font_manager').setLevel('ERROR')"
"""It says when its first look at the fonts takes more than 5 s."""

PLOT = f"{QUIET}\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);"
SLIDER = "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider"
ASK = "name = input('who? ')\nprint('hello', name)"
SLEEP = f"print('asleep')\n{FOREVER}"


@pytest.fixture(autouse=True)
def no_strangers(browser: Browser) -> Iterator[None]:
    """Nothing is asked of any other machine."""
    yield
    assert browser.strangers == []


def test_the_launcher_offers_rtc_python_and_it_starts(lab: JupyterServer, browser: Browser) -> None:
    with lab_page(lab, browser) as page:
        page.locator('.jp-LauncherCard[data-category="Notebook"]', has_text="RTC Python").click()
        notebook = NotebookPage(page)
        notebook.wait_ready()
        expect(notebook.status).to_have_text("RTC Python | Idle")
        notebook.write(0, "6 * 7")
        notebook.run(0, 1)
        expect(notebook.outputs(0)).to_have_text("42")
        end_kernels(lab, page)


def plot(notebook: NotebookPage, cell: int) -> None:
    notebook.run(cell)
    image = notebook.outputs(cell).locator("img")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") > 100


def slide(notebook: NotebookPage, cell: int) -> None:
    """Render a slider, and move it from 3 to 4. Only by one: a second step stays in the page until the kernel has taken
    the first, so a cell that is run at once may overtake it."""
    notebook.run(cell)
    readout = notebook.outputs(cell).locator(".widget-readout")
    expect(readout).to_have_text("3")
    notebook.outputs(cell).locator(".noUi-handle").press("ArrowRight")
    expect(readout).to_have_text("4")


def answer(notebook: NotebookPage, cell: int, text: str) -> None:
    notebook.start(cell)
    box = notebook.cell(cell).locator(".jp-Stdin-input")
    expect(notebook.cell(cell).locator(".jp-Stdin-prompt")).to_have_text("who? ")
    expect(notebook.indicator).to_have_attribute("data-status", "busy")
    box.fill(text)
    box.press("Enter")
    expect(notebook.prompt(cell)).to_have_text(re.compile(r"\[\d+\]:"))


def stop(notebook: NotebookPage, cell: int) -> None:
    notebook.start(cell)
    expect(notebook.outputs(cell)).to_have_text(re.compile(r"asleep\n"))
    expect(notebook.prompt(cell)).to_have_text("[*]:")
    expect(notebook.indicator).to_have_attribute("data-status", "busy")
    notebook.interrupt()
    expect(notebook.outputs(cell).last).to_contain_text("KeyboardInterrupt")
    expect(notebook.prompt(cell)).to_have_text(re.compile(r"\[\d+\]:"))


def seen(notebook: NotebookPage) -> list[tuple[str, list[str]]]:
    """Every cell's prompt and texts."""
    return [
        (notebook.prompt(cell).inner_text(), notebook.outputs(cell).all_inner_texts())
        for cell in range(notebook.panel.locator(".jp-Notebook .jp-Cell").count())
    ]


def work(lab: JupyterServer, browser: Browser, kernel: str) -> list[object]:
    """What a user does in an afternoon; gives what the page showed before and after a restart."""
    cells = [PLOT, SLIDER, "slider.value", ASK, SLEEP, "'slider' in globals()"]
    with open_notebook(lab, browser, kernel, *cells) as notebook:
        plot(notebook, 0)
        slide(notebook, 1)
        notebook.run(2, 3)
        expect(notebook.outputs(2)).to_have_text("4")
        answer(notebook, 3, "Ada")
        expect(notebook.outputs(3).nth(1)).to_have_text("hello Ada\n")
        stop(notebook, 4)
        notebook.run(5, 6)
        expect(notebook.outputs(5)).to_have_text("True")
        before = seen(notebook)
        notebook.restart()
        notebook.run(5, 1)
        expect(notebook.outputs(5)).to_have_text("False")
        return [before, seen(notebook)]


def test_plots_widgets_questions_interrupt_and_restart_as_on_the_bare_kernel(
    lab: JupyterServer, browser: Browser
) -> None:
    assert work(lab, browser, "rtc-python") == work(lab, browser, "python3")


def test_the_shared_link_is_in_the_output_and_its_page_lists_the_executions_live(
    lab: JupyterServer, browser: Browser
) -> None:
    with open_notebook(lab, browser, "rtc-python", "print('é😀')", "%rtc share", PLOT, SLEEP) as notebook:
        notebook.run(0, 1)
        notebook.run(1)
        link = notebook.outputs(1).locator("a").first
        with notebook.page.expect_popup() as opened:
            link.click()
        page = opened.value
        cards = page.locator("article.card")
        states = cards.locator(".head .state")
        expect(states).to_have_text(["ok", "ok"])
        expect(cards.locator(".code code")).to_have_text(["print('é😀')", "%rtc share"])
        expect(cards.first.locator(".outputs")).to_contain_text("é😀")
        expect(page.locator(".kernel-state")).to_have_text("idle")
        assert "token" not in page.url
        plot(notebook, 2)
        expect(states).to_have_text(["ok", "ok", "ok"])
        expect(cards.last.locator(".outputs img")).to_be_visible()
        notebook.start(3)
        expect(cards.last.locator(".outputs")).to_contain_text("asleep")
        expect(states.last).to_have_text("running")
        expect(page.locator(".kernel-state")).to_have_text("busy")
        notebook.interrupt()
        expect(states.last).to_have_text("failed")
        expect(cards.last.locator(".outputs")).to_contain_text("KeyboardInterrupt")
        notebook.restart()
        notebook.run(0, 1)
        expect(page.locator(".counted")).to_have_text("5 executions")
        expect(cards.last.locator(".code code")).to_have_text("print('é😀')")
        page.close()


def test_the_history_is_a_table_that_outlives_a_restart(lab: JupyterServer, browser: Browser) -> None:
    with open_notebook(
        lab, browser, "rtc-python", "'first'", "%rtc history", "%rtc show #1", "%rtc nonsense"
    ) as notebook:
        notebook.run(0, 1)
        notebook.restart()
        notebook.run(1)
        codes = notebook.outputs(1).locator("tbody tr td:last-child")
        expect(codes).to_have_text(["'first'", "%rtc history"])
        notebook.run(2)
        expect(notebook.outputs(2).last).to_have_text("'first'")
        notebook.run(3)
        expect(notebook.outputs(3)).to_contain_text("nonsense")
        expect(notebook.indicator).to_have_attribute("data-status", "idle")
