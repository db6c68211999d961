"""Beside the notebook, in a real browser: links, who is here, what waits, settings, commands, languages."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from conftest import wait_until
from kernels import Gate
from servers import JupyterServer
from tools import in_lab, missing, node_lacks

MISSING = missing("playwright", "jupyterlab")

pytestmark = in_lab(MISSING)

if TYPE_CHECKING or not MISSING:
    from babel.messages.catalog import Catalog
    from babel.messages.mofile import write_mo
    from jupyter_core.paths import jupyter_path
    from jupyterlab_page import (
        READY_S,
        Browser,
        NotebookPage,
        another,
        end_kernels,
        is_done,
        jupyter_lab,
        search_commands,
        tab,
        write_notebook,
    )
    from playwright.sync_api import Locator, Page, expect

UI = Path(__file__).parent.parent / "ui" / "lab"
SCHEMAS = UI / "schema"


# --- settings


class SettingsEditor:
    """JupyterLab's own, in a tab beside the notebook."""

    def __init__(self, page: Page, plugin: str, title: str) -> None:
        self.page = page
        self.plugin = plugin
        self.title = title

    def choose(self, name: str, value: bool) -> None:
        """Tick a box and go back to the notebook; until the choice is stored."""
        page = self.page
        entry = page.locator(".jp-PluginList-entry", has_text=self.title)
        box = page.locator(f'[id="jp-SettingsEditor-@rtc-kernel/lab:{self.plugin}_{name}"]')

        def chosen() -> bool:  # a page that is loaded again may yet turn to the tab that it had shown
            page.keyboard.press("Control+,")
            return is_done(entry.click) and is_done(partial(box.set_checked, value))

        with page.expect_response(lambda answer: answer.request.method == "PUT" and "/api/settings/" in answer.url):
            wait_until(chosen, "it is ticked", READY_S)
        page.locator(".lm-DockPanel-tabBar .lm-TabBar-tab", has_text=".ipynb").click()


@pytest.mark.usefixtures("kernels_end")
def test_what_the_cells_show_follows_the_settings_at_once(lab: JupyterServer, browser: Browser) -> None:
    name = write_notebook(lab, "rtc-python", "print('one')", "print('two')")
    with another(browser) as elsewhere, tab(lab, elsewhere, name) as theirs:
        theirs.wait_ready()
        theirs.run(0, 1)
        with tab(lab, browser, name) as mine:
            settings = SettingsEditor(mine.page, "outputs", "RTC: outputs in notebooks")
            note = mine.cell(0).locator(".rtc-Note")
            expect(mine.outputs(0)).to_have_text("one\n")
            settings.choose("showOthersRuns", False)
            theirs.run(0, 2)
            theirs.run(1, 3)
            mine.run(1, 4)
            expect(mine.prompt(0)).to_have_text("[1]:")
            settings.choose("showOthersRuns", True)
            expect(mine.prompt(0)).to_have_text("[2]:")
            theirs.run(0, 5)
            expect(note).to_contain_text("Anonymous ")
            settings.choose("showWhoRan", False)
            expect(note).to_have_count(0)
            theirs.run(0, 6)
            expect(mine.prompt(0)).to_have_text("[6]:")
            expect(note).to_have_count(0)
            settings.choose("showWhoRan", True)
            expect(note).to_contain_text("Anonymous ")
            settings.choose("outputsComeBack", False)
            expect(mine.outputs(0)).to_have_text("one\n")
        with tab(lab, browser, name) as mine:
            settings = SettingsEditor(mine.page, "outputs", "RTC: outputs in notebooks")
            mine.wait_ready()
            mine.run(1, 7)
            expect(mine.outputs(0)).to_have_count(0)
            expect(mine.prompt(0)).to_have_text("[ ]:")
            settings.choose("outputsComeBack", True)
            expect(mine.outputs(0)).to_have_text("one\n")
            expect(mine.prompt(0)).to_have_text("[6]:")


@pytest.mark.usefixtures("kernels_end")
def test_the_panel_follows_its_settings_and_its_button_is_one_of_them(lab: JupyterServer, browser: Browser) -> None:
    name = write_notebook(lab, "rtc-python", "print('one')")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        page, panel = notebook.page, open_panel(notebook)
        notebook.run(0, 1)
        settings = SettingsEditor(page, "panel", "RTC: panel")
        fold = panel.locator("article.card .fold")
        expect(fold).to_have_attribute("aria-expanded", "false")
        settings.choose("foldOutputs", False)
        expect(fold).to_have_attribute("aria-expanded", "true")
        settings.choose("showTimeline", True)
        expect(panel.locator(".timeline")).to_be_visible()
        with page.expect_response(lambda answer: answer.request.method == "PUT" and "/api/settings/" in answer.url):
            panel.get_by_role("button", name="Timeline").click()
        expect(panel.locator(".timeline")).to_have_count(0)
        page.reload()
        expect(panel.locator("article.card .fold")).to_have_attribute("aria-expanded", "true")
        expect(panel.locator(".timeline")).to_have_count(0)
        settings.choose("foldOutputs", True)


# --- links, who is here, what waits


def open_panel(notebook: NotebookPage) -> Locator:
    """By its shortcut."""
    notebook.cell(0).locator(".jp-InputPrompt").click()
    notebook.page.keyboard.press("Control+Shift+y")
    panel = notebook.page.locator("#rtc-kernel-panel")
    expect(panel.locator(".panel")).to_be_visible()
    return panel


def command(page: Page, label: str) -> Locator:
    """An item of the command palette, found by its label."""
    search_commands(page, label)
    return page.locator(".lm-CommandPalette-item", has_text=label).first


def read_qr(page: Page, picture: Locator) -> str | None:
    """What a camera reads from the screen."""
    page.evaluate((UI.parent / "node_modules" / "jsqr" / "dist" / "jsQR.js").read_text().replace("(this,", "(window,"))
    read = """async (bytes) => {
        const picture = await createImageBitmap(new Blob([Uint8Array.from(bytes)]));
        const { width, height } = picture;
        const drawing = new OffscreenCanvas(width, height).getContext("2d");
        drawing.drawImage(picture, 0, 0);
        const { data } = drawing.getImageData(0, 0, width, height);
        return (window.jsQR?.default ?? window.jsQR)(data, width, height)?.data;
    }"""
    found: str | None = page.evaluate(read, list(picture.screenshot()))
    return found


@pytest.mark.usefixtures("kernels_end")
def test_a_link_is_given_used_followed_and_withdrawn_and_what_it_asked_for_is_released(
    lab: JupyterServer, browser: Browser, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    # A server that restarts a kernel interrupts it first: what then ended would let the next one in.
    stubborn = f"while True:\n  try:\n{indent(gate.code, '    ')}    break\n  except KeyboardInterrupt: pass"
    name = write_notebook(lab, "rtc-python", "'before'", stubborn)
    browser.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with another(browser) as elsewhere, tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        page, panel = notebook.page, open_panel(notebook)
        notebook.run(0, 1)
        panel.locator(".rtc-People summary").click()
        expect(panel.locator(".rtc-here li")).to_have_count(1)
        command(page, "Share the Kernel").click()
        dialog = page.locator("dialog.rtc-Share")
        expect(dialog.get_by_label("may watch")).to_be_checked()
        expect(dialog.get_by_label("Holds")).to_have_value("86400")
        dialog.get_by_label("may run code").check()
        expect(dialog.get_by_label("Holds")).to_have_value("3600")
        dialog.get_by_label("Name").fill("phone")
        dialog.get_by_label("Name").press("Enter")
        url = dialog.get_by_label("Link", exact=True).input_value()
        assert urlsplit(url).hostname == "127.0.0.1"
        expect(dialog.locator(".rtc-hint")).to_contain_text("A phone does not reach 127.0.0.1")
        dialog.get_by_role("button", name="Copy").click()
        expect(dialog.get_by_role("status")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == url
        if not node_lacks("node", UI.parent, "jsqr"):
            assert read_qr(page, dialog.locator("svg")) == url
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        link = panel.locator(".rtc-links li", has_text="phone")
        expect(link).to_contain_text(re.compile("may run code · until .* · not here"))

        link.get_by_role("button", name="Withdraw").focus()
        page.keyboard.press("Enter")
        expect(panel.locator(".rtc-sure").get_by_role("button", name="Withdraw")).to_be_focused()
        page.keyboard.press("Escape")
        expect(link.get_by_role("button", name="Withdraw")).to_be_focused()

        view = elsewhere.context.new_page()
        view.goto(url)
        expect(view.locator("article.card")).to_have_count(1)
        expect(panel.locator(".rtc-here li", has_text="phone")).to_contain_text("may run code")
        expect(link).to_contain_text("1 here")
        notebook.start(1)
        expect(panel.locator("article.card").nth(1)).to_have_attribute("data-state", "running")
        prompt = view.get_by_role("textbox", name="Code to run")
        prompt.fill("'asked'")
        prompt.press("Shift+Enter")
        row = panel.locator(".rtc-Queue li")
        expect(row).to_contain_text(re.compile("'asked'.*waits · by phone"))
        notebook.restart()
        expect(row).to_have_attribute("data-state", "held")
        expect(row.locator(".rtc-why")).to_contain_text("release or cancel it")
        row.get_by_role("button", name="Release").click()
        expect(panel.locator(".rtc-Queue")).to_have_count(0)
        card = panel.locator("article.card", has_text="asked")
        expect(card).to_have_attribute("data-state", "ok")
        expect(card.locator(".who")).to_contain_text("phone")
        expect(view.locator("article.card", has_text="asked")).to_have_attribute("data-state", "ok")  # it is back, too

        expect(link).to_contain_text("1 here")
        link.get_by_role("button", name="Withdraw").click()
        sure = panel.locator(".rtc-sure")
        expect(sure).to_contain_text("Who follows by it now is cut off.")
        sure.get_by_role("button", name="Withdraw").click()
        expect(panel.locator(".rtc-links li")).to_have_count(0)
        expect(panel.locator(".rtc-here li", has_text="phone")).to_have_count(0)
        expect(view.locator("body")).to_contain_text(re.compile("link was withdrawn"))
        view.close()


# --- commands


@pytest.mark.usefixtures("kernels_end")
def test_commands_are_there_for_kernels_that_have_a_document_and_cells_that_have_a_mark(
    lab: JupyterServer, browser: Browser
) -> None:
    name = write_notebook(lab, "rtc-python", "print('then')")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        notebook.write(0, "print('ran')")
        notebook.run(0, 1)
    with tab(lab, browser, name) as notebook:
        page = notebook.page
        expect(notebook.cell(0).locator(".rtc-Note button")).to_be_visible()
        notebook.cell(0).locator(".jp-InputPrompt").click()
        command(page, "Show the Code That Ran").click()
        other = notebook.cell(0).locator(".rtc-Other .rtc-Code")
        expect(other).to_have_text("print('ran')")
        command(page, "Show the Code That Ran").click()
        expect(other).to_have_count(0)
    name = write_notebook(lab, "python3", "print('mine')")
    disabled = re.compile("lm-mod-disabled")
    with tab(lab, browser, name) as notebook:
        notebook.wait_ready()
        for label in ("Share the Kernel", "Show the Code That Ran"):
            expect(command(notebook.page, label)).to_have_class(disabled)
            notebook.page.keyboard.press("Escape")
        expect(command(notebook.page, "Show the Kernel's History")).not_to_have_class(disabled)
        notebook.page.keyboard.press("Enter")
        panel = notebook.page.locator("#rtc-kernel-panel")
        expect(panel.get_by_role("status")).to_contain_text("has no live document")


def test_no_shortcut_of_ours_is_one_of_jupyterlabs() -> None:
    ours, theirs = set(), set()
    roots = [Path(root) for name in ("lab", "labextensions") for root in jupyter_path(name)]
    for file in {*SCHEMAS.glob("*.json"), *(file for root in roots for file in root.rglob("schemas/**/*.json"))}:
        for shortcut in json.loads(file.read_text()).get("jupyter.lab.shortcuts", []):
            mine = shortcut["command"].startswith("rtc-kernel:")
            (ours if mine else theirs).add(" ".join(shortcut.get("keys", [])))
    assert len(theirs) > 50, "JupyterLab's schemas were found"
    assert ours
    assert not ours & theirs


# --- languages

SAID = re.compile(r'\btrans\.(?:__|_n)\(\s*("(?:[^"\\]|\\.)*")(?:,\s*("(?:[^"\\]|\\.)*"))?')
"""What the tools of language packs find: a call on ``trans``, with one text, or one and many."""


def shout(text: str) -> str:
    """What a language is that has only capitals."""
    return re.sub(r"%\d|\w+", lambda word: word[0] if word[0].startswith("%") else word[0].upper(), text)


def said() -> dict[str, list[str]]:
    """Everything that the extension says, and how it is said in capitals."""
    texts: dict[str, list[str]] = {}
    for file in sorted((UI / "src").rglob("*.ts*")):
        for one, many in SAID.findall(file.read_text()):
            words = [json.loads(text) for text in (one, many) if text]
            texts[words[0]] = [shout(word) for word in words]
    return texts


@pytest.fixture(scope="module")
def capitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A server with a language pack, as they are installed."""
    site = tmp_path_factory.mktemp("site")
    pack = site / "jupyterlab_language_pack_de_DE"
    messages = pack / "locale" / "de_DE" / "LC_MESSAGES"
    messages.mkdir(parents=True)
    (pack / "__init__.py").touch()
    about = {"domain": "rtc_kernel", "version": "1", "language": "de-DE"}
    about["plural_forms"] = "nplurals=2; plural=(n != 1);"
    (messages / "rtc_kernel.json").write_text(json.dumps({"": about, **said()}))
    catalog = Catalog(locale="de_DE", domain="rtc_kernel")
    for schema in SCHEMAS.glob("*.json"):
        for title in [json.loads(schema.read_text()), *json.loads(schema.read_text())["properties"].values()]:
            context = "settings" if "default" in title else "schema"
            catalog.add(title["title"], shout(title["title"]), context=context)
    with (messages / "rtc_kernel.mo").open("wb") as file:
        write_mo(file, catalog)
    info = site / "jupyterlab_language_pack_de_DE-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jupyterlab-language-pack-de-DE\nVersion: 1\n")
    entry = "[jupyterlab.languagepack]\nde_DE = jupyterlab_language_pack_de_DE\n"
    (info / "entry_points.txt").write_text(entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
        with jupyter_lab(tmp_path_factory.mktemp("lab")) as running:
            choice = running.root.parent / "config/lab/user-settings/@jupyterlab/translation-extension"
            choice.mkdir(parents=True)
            (choice / "plugin.jupyterlab-settings").write_text('{"locale": "de_DE"}')
            yield running


def lower(place: Locator) -> list[str]:
    """Words in small letters that stand there or are said of it."""
    read = """(element) => {
        const found = [];
        const read = (node) => {
            if (node.nodeType === Node.TEXT_NODE) found.push(node.data);
            if (node.nodeType !== Node.ELEMENT_NODE || ["STYLE", "CODE", "INPUT"].includes(node.tagName)) return;
            for (const name of ["title", "aria-label", "placeholder"]) found.push(node.getAttribute(name) ?? "");
            for (const child of (node.shadowRoot ?? node).childNodes) read(child);
        };
        read(element);
        return found;
    }"""
    texts: list[str] = place.evaluate(read)
    names = re.compile(r"Anonymous \w+")  # what JupyterLab calls its users
    return [text for text in texts if re.search(r"[a-z]{2}", names.sub("", text))]


def test_a_language_pack_says_it_all(capitals: JupyterServer, browser: Browser) -> None:
    name = write_notebook(capitals, "rtc-python", "1")
    with another(browser) as elsewhere, tab(capitals, browser, name) as notebook:
        page, panel = notebook.page, notebook.page.locator("#rtc-kernel-panel")
        with tab(capitals, elsewhere, name) as theirs:
            page.wait_for_function("performance.getEntriesByName('rtc_kernel:filled').length > 0")
            theirs.wait_ready()
            theirs.start(0)
            expect(notebook.cell(0).locator(".rtc-Note")).to_be_visible()
            expect(notebook.prompt(0)).to_have_text("[1]:")
        assert lower(notebook.cell(0).locator(".rtc-Note")) == []
        command(page, "SHARE THE KERNEL").click()
        dialog = page.locator("dialog.rtc-Share")
        expect(dialog).to_be_visible()
        assert lower(dialog) == [name]
        dialog.get_by_label("NAME").fill("TABLET")
        dialog.get_by_label("HOLDS").select_option("UNTIL I WITHDRAW IT")  # no name of a day
        dialog.get_by_role("button", name="CREATE LINK").click()
        expect(dialog.locator("svg")).to_be_visible()
        assert lower(dialog.locator(".rtc-buttons, .rtc-link, svg").first) == []
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        command(page, "SHOW THE KERNEL'S HISTORY").click()
        people = panel.locator(".rtc-People")
        people.locator("summary").click()
        expect(people.locator(".rtc-links li")).to_be_visible()
        assert lower(people) == []
        schema = page.request.get(f"{capitals.url}lab/api/settings/@rtc-kernel/lab:panel?token={capitals.token}").json()
        assert schema["schema"]["title"] == "RTC: PANEL"
        assert schema["schema"]["properties"]["showTimeline"]["title"] == "TIMELINE"
        end_kernels(capitals, page)
