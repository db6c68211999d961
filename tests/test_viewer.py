"""The viewer in a real browser: what is in the document is on the page, at once, on a laptop and on a phone."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import wait_until
from kernels import Gate, Running
from serving import KERNEL, SmallBackend, Socket, eventually, serving
from tools import CHROMIUM, QUIET

import rtc_kernel
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.serve import HistoryQuery, Page
from rtc_kernel.agent.serve.websocket import Server
from rtc_kernel.config import RTCKernel
from rtc_kernel.moments import Step
from rtc_kernel.tables import (
    AddOutput,
    Cell,
    Execution,
    ExecutionState,
    Kernel,
    KernelState,
    Output,
    PutCells,
    PutExecution,
    PutKernel,
    PutMeta,
    Request,
    RequestState,
    WriteText,
)

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

WEB = Path(rtc_kernel.__file__).parent / "web"
AXE = Path(__file__).parent.parent / "ui" / "node_modules" / "axe-core" / "axe.min.js"
READY_S = 60.0
"""Until something must be on the page; a busy machine takes its time."""
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
EAGER_BYTES = 300_000
"""Of the page without what it loads on demand, compressed."""

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

Until = Callable[..., object]


# --- a server in a thread, a browser, a page


class Served:
    """A side socket on a loop of its own; what :class:`Socket` can do is done there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Socket) -> None:
        self._loop = loop
        self.socket = socket

    def do(self, call: Callable[[], Any]) -> Any:
        """Call something on the server's loop."""

        async def run() -> Any:
            result = call()
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(READY_S)

    def push(self, *changes: Any) -> None:
        self.do(lambda: self.socket.push(*changes))

    def run_cell(self, state: str = "running", **columns: Any) -> str:
        row: str = self.do(lambda: self.socket.run_cell(state, **columns))
        return row

    def print_text(self, row: str, text: str) -> None:
        self.do(lambda: self.socket.print_text(row, text))

    def hold(self, request: Request) -> None:
        """A request of somebody's is held."""
        requests = self.socket.backend.requests

        def put() -> None:
            requests.put([replace(request, state=RequestState.HELD)])
            self.socket.server.push(requests.take_update() or b"", "requests")

        self.do(put)

    def refuse(self, code: str, reason: str) -> None:
        """The request for this code is refused, once it is there."""
        backend = self.socket.backend

        def find() -> tuple[str, str] | None:
            return next(((by, row) for by, row, value in backend.written if value["code"] == code), None)

        async def put() -> None:
            await eventually(find, "it was asked for", READY_S)
            by, row = find() or ("", "")
            request = Request(id=row, action="execute", by=by, reason=reason, state=RequestState.REFUSED)
            backend.requests.put([request])
            self.socket.server.push(backend.requests.take_update() or b"", "requests")

        self.do(put)

    def link(self, role: str = "view") -> str:
        return f"http://127.0.0.1:{self.socket.port}/?token={self.socket.tokens[role]}"


@contextlib.contextmanager
def served(backend: SmallBackend | None = None) -> Iterator[Served]:
    async def main(ready: Callable[[Served], None], ended: asyncio.Event) -> None:
        async with serving(backend) as socket:
            ready(Served(asyncio.get_running_loop(), socket))
            await ended.wait()

    with in_thread(main) as server:
        yield server


@contextlib.contextmanager
def in_thread(main: Callable[[Callable[[Any], None], asyncio.Event], Any]) -> Iterator[Any]:
    """Run a coroutine on a loop of its own; gives what it hands to ``ready``, and sets ``ended`` at the end."""
    given: list[Any] = []
    started = threading.Event()

    def ready(value: Any) -> None:
        given.append(value)
        started.set()

    async def run() -> None:
        ended = asyncio.Event()
        given.append(partial(asyncio.get_running_loop().call_soon_threadsafe, ended.set))
        await main(ready, ended)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert started.wait(READY_S), "it has not started"
        yield given[1]
    finally:
        if given:
            given[0]()
        thread.join(READY_S)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        expect.set_options(timeout=READY_S * 1000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@dataclass
class Tab:
    """One page. ``problems``: what its console, its scripts and its policy complain of, and requests to strangers."""

    page: Any
    problems: list[str] = field(default_factory=list)

    @property
    def cards(self) -> Any:
        return self.page.locator("article.card")

    def card(self, row: str) -> Any:
        return self.page.locator(f'.card[data-execution="{row}"]')

    def states(self) -> Any:
        return self.page.locator("article.card .head .state")

    def is_wider_than_it_shows(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def complaints_of_axe(self) -> list[str]:
        """What axe finds, once nothing moves."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] }).then((r) => r.violations)")
        return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found for node in one["nodes"]]


@pytest.fixture
def tab(chromium: Any) -> Iterator[Callable[..., Tab]]:
    """``tab(url, size, **options of the context)``; whatever the test says, no page may complain of anything."""
    contexts: list[Any] = []
    tabs: list[Tab] = []

    def open_tab(url: str, size: dict[str, int] = WIDE, **options: Any) -> Tab:
        context = chromium.new_context(viewport=size, **options)
        context.set_default_timeout(READY_S * 1000)
        contexts.append(context)
        page = context.new_page()
        made = Tab(page)
        page.on("pageerror", lambda error: made.problems.append(str(error)))
        page.on("console", lambda said: made.problems.append(said.text) if said.type == "error" else None)

        def note(request: Any) -> None:
            if urlsplit(request.url).hostname not in ("127.0.0.1", None):
                made.problems.append(f"asked a stranger: {request.url}")

        page.on("request", note)
        page.goto(url)
        tabs.append(made)
        return made

    yield open_tab
    problems = [problem for made in tabs for problem in made.problems]
    for context in contexts:
        context.close()
    assert not problems


def lost_connections(tab: Tab) -> None:
    """Where a test takes the server away the browser says so; that is not the page's fault."""
    tab.problems[:] = [
        problem for problem in tab.problems if not re.search("WebSocket|net::ERR|Failed to load", problem)
    ]


def fill(server: Served) -> str:
    """One execution of each end; returns the running one."""
    now = time.time()
    server.push(PutKernel(KERNEL, {"state": "busy", "notebook": "work/n.ipynb", "language": "python"}))
    times = {"queued_at": now - 100, "started_at": now - 99, "finished_at": now - 97.5}
    row = server.run_cell(
        "ok",
        code="<b>x</b> = 1",
        submitted_by="ada <script>",
        execution_count=1,
        cell="c-1",
        notebook="n.ipynb",
        **times,
    )
    html = {"text/html": "<table><tr><td>in a table</td></tr></table>", "text/plain": "plain"}
    server.push(AddOutput(row, 1, Output(output_type="display_data", at=now - 98, data=html, metadata={})))
    times = {"queued_at": now - 90, "started_at": now - 89, "finished_at": now - 80}
    failed = server.run_cell(
        "error", code="1 / 0", submitted_by="grace", execution_count=2, error={"ename": "E", "evalue": "v"}, **times
    )
    error = Output(output_type="error", at=now - 81, ename="E", evalue="v", traceback=("\x1b[31mred\x1b[0m trace",))
    server.push(AddOutput(failed, 1, error))
    server.run_cell("aborted", code="never()", submitted_by="grace", queued_at=now - 85, finished_at=now - 80)
    running = server.run_cell(
        "running", code="while True: pass", submitted_by="ada <script>", execution_count=3, queued_at=now - 10,
        started_at=now - 9, request="r-1",
    )  # fmt: skip
    server.print_text(running, "\x1b[32mtick\x1b[0m é😀\n")
    return running


class Shelf(SmallBackend):
    """A store with more rows than the document's window."""

    def __init__(self, count: int, window: int) -> None:
        self._count, self._window = count, window
        self._stored = {row.id: row for row in map(self._row, range(1, count + 1))}
        super().__init__()

    def _row(self, seq: int) -> Execution:
        at = 1_700_000_000 + 10 * seq
        text = f"output of {seq}\n" * (seq % 7)
        return Execution(
            id=f"row-{seq}", seq=seq, kernel=KERNEL, code=f"step_{seq}()", execution_count=seq,
            state=ExecutionState("error" if seq % 100 == 0 else "ok"), submitted_by="ada" if seq % 3 else "bob",
            queued_at=at, started_at=at + 1, finished_at=at + 6,
            outputs=(Output(output_type="stream", at=at + 2, name="stdout", text=text),),
        )  # fmt: skip

    def new_document(self) -> StateDocument:
        document = StateDocument(KERNEL)
        kernel = Kernel(id=KERNEL, name="python3", display_name="Python 3", language="python", state=KernelState.IDLE)
        document.load(kernels=[kernel], executions=list(self._stored.values())[-self._window :])
        return document

    def history(self, query: HistoryQuery) -> Page:
        rows = [
            row
            for row in reversed(self._stored.values())
            if (query.before is None or row.seq < query.before)
            and (query.state is None or row.state == query.state)
            and (not query.text or query.text in row.code or query.text in (row.outputs[0].text or ""))
        ]
        page = rows[: query.limit]
        if query.brief:
            page = [replace(row, outputs=()) for row in page]
        return Page(page, page[-1].seq if len(rows) > len(page) else None)

    def execution(self, execution: str) -> Execution | None:
        return self._stored.get(execution)


def press_until(tab: Tab, key: str, what: Any) -> None:
    tab.page.keyboard.press(key)
    expect(what).to_be_visible()


# --- the history


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_card_says_what_ran_who_asked_how_long_it_took_and_what_came_out(
    tab: Callable[..., Tab], size: dict[str, int]
) -> None:
    with served() as server:
        running = fill(server)
        view = tab(server.link(), size)
        expect(view.states()).to_have_text(["ok", "failed", "aborted", "running"])
        expect(view.page.locator("h1")).to_have_text("n.ipynb")
        expect(view.page.locator(".kernel-state")).to_have_text("busy")
        expect(view.page.locator(".now")).to_contain_text("Running for")
        first, failed = view.cards.nth(0), view.cards.nth(1)
        expect(first.locator(".code")).to_have_text("<b>x</b> = 1")
        expect(first.locator(".count")).to_have_text("[1]")
        expect(first.locator(".took")).to_have_text("1.5 s")
        expect(first.locator(".who")).to_have_text("by ada <script> from a cell of n.ipynb")
        expect(first.locator("td")).to_have_text("in a table")
        expect(failed.locator(".who")).to_have_text("by grace from a console")
        expect(failed.locator(".outputs")).to_contain_text("red trace")
        expect(view.card(running).locator(".who")).to_have_text("by ada <script> from a link")
        expect(view.card(running).locator(".outputs")).to_contain_text("tick é😀")
        server.print_text(running, "tock\n")
        expect(view.card(running).locator(".outputs")).to_contain_text("tock")
        assert "token" not in view.page.url
        assert view.page.evaluate("document.cookie") == ""
        assert not view.is_wider_than_it_shows()
        first.get_by_role("button", name="Details").click()
        expect(first.locator(".details")).to_contain_text(re.compile(r"Waited\s*1\.0 s"))
        expect(first.locator(".details")).to_contain_text(re.compile(r"\d\d:\d\d:\d\d\.\d{3} [+-]\d\d:\d\d"))
        server.push(PutExecution(running, {"state": ExecutionState.ERROR, "finished_at": time.time()}))
        expect(view.states()).to_have_text(["ok", "failed", "aborted", "failed"])


def test_a_state_is_told_by_word_and_shape_and_a_running_one_ticks(tab: Callable[..., Tab]) -> None:
    with served() as server:
        running = fill(server)
        for state in ("lost", "cancelled", "queued"):
            server.run_cell(state, queued_at=time.time())
        view = tab(server.link())
        expect(view.cards).to_have_count(7)
        shapes = view.page.locator("article.card .head .state path")
        assert len({shape.get_attribute("d") for shape in shapes.all()}) == 7
        took = view.card(running).locator(".took")
        before = took.text_content()
        expect(took).not_to_have_text(before)


def test_long_code_folds_and_code_is_copied(tab: Callable[..., Tab]) -> None:
    with served() as server:
        code = "\n".join(f"line_{number} = {number}" for number in range(60))
        row = server.run_cell("ok", code=code)
        view = tab(server.link(), permissions=["clipboard-read", "clipboard-write"])
        card = view.card(row)
        expect(card.locator(".code")).not_to_contain_text("line_59")
        card.get_by_role("button", name="Copy the code").click()
        expect(view.page.locator("[aria-live=polite]")).to_contain_text("The code is copied")
        assert view.page.evaluate("navigator.clipboard.readText()") == code
        card.get_by_role("button", name="Show 44 more lines").click()
        expect(card.locator(".code")).to_contain_text("line_59")


def test_what_is_left_out_of_a_long_text_is_said_in_its_place(tab: Callable[..., Tab]) -> None:
    with served() as server:
        running = server.run_cell("running", code="flood", execution_count=1)
        view = tab(server.link())
        expect(view.cards).to_have_count(1)
        for segment in range(20):
            server.push(WriteText(running, 0, segment, None, f"<{segment}>" + "x" * 100_000))
        expect(view.card(running).locator(".outputs")).to_contain_text(re.compile("left out"))


def test_private_code_is_named_as_such(tab: Callable[..., Tab]) -> None:
    with served() as server:
        row = server.run_cell("ok", code="", private=True)
        view = tab(server.link())
        expect(view.card(row)).to_contain_text("Private")


def test_ten_thousand_rows_are_a_few_elements_and_older_pages_come_as_one_scrolls(tab: Callable[..., Tab]) -> None:
    with served(Shelf(10_000, 300)) as server:
        view = tab(server.link())
        expect(view.card("row-10000")).to_be_visible()
        expect(view.page.locator(".counted")).to_have_text("300 executions, older ones above")
        view.page.locator(".scroller").hover()

        def older_ones() -> bool:
            view.page.mouse.wheel(0, -4000)
            return view.page.locator(".counted").text_content() != "300 executions, older ones above"

        wait_until(older_ones, "older ones are there", READY_S)
        view.page.evaluate("location.hash = '#execution=row-2'")
        expect(view.card("row-2")).to_be_visible()
        expect(view.card("row-2").locator(".outputs")).to_contain_text("output of 2")  # whole, from the store
        expect(view.card("row-2")).to_be_focused()
        assert view.cards.count() < 60
        view.page.keyboard.press("G")
        expect(view.card("row-10000")).to_be_focused()
        assert view.cards.count() < 60


# --- the timeline


def test_a_click_in_the_timeline_goes_to_the_card_and_keys_zoom_it(tab: Callable[..., Tab]) -> None:
    with served(Shelf(60, 60)) as server:
        view = tab(server.link())
        expect(view.card("row-60")).to_be_visible()
        chart = view.page.locator(".chart canvas")
        label = chart.get_attribute("aria-label")
        assert label.startswith("60 executions from 2023-11-1")
        chart.focus()
        for key in ("+", "+", "ArrowLeft"):

            def moved(key: str = key, label: str = label) -> bool:  # one that has no width yet does not zoom
                view.page.keyboard.press(key)
                return bool(chart.get_attribute("aria-label") != label)

            wait_until(moved, f"{key} moves it", READY_S)
            label = chart.get_attribute("aria-label")
        view.page.keyboard.press("0")
        chart.click(position={"x": 45, "y": 14})
        expect(view.page.locator(".card.target")).to_be_focused()
        assert "#execution=row-" in view.page.url
        view.page.mouse.wheel(0, -300)
        expect(view.page.locator(".card.target")).to_have_count(1)


def test_the_slider_shows_the_history_as_it_was_and_plays_it_back(tab: Callable[..., Tab]) -> None:
    with served() as server:
        now = time.time()
        times = {"queued_at": now - 100, "started_at": now - 90, "finished_at": now - 40}
        columns = {"seq": 1, "state": ExecutionState.OK, "code": "slow()", **times}
        stream = Output(output_type="stream", at=now - 80, name="stdout", text="first\nsecond\n")
        server.push(
            PutExecution("slow", columns),
            AddOutput("slow", 0, replace(stream, text="")),
            WriteText("slow", 0, 0, None, "first\nsecond\n"),
            PutExecution(
                "later", {**columns, "seq": 2, "queued_at": now - 5, "started_at": now - 5, "finished_at": now - 4}
            ),
        )
        backend = server.socket.backend
        backend.rows = [Execution(id="slow", seq=1, kernel=KERNEL, outputs=(stream,))]
        backend.grown = {"slow": {0: [Step(6, now - 80), Step(13, now - 50)]}}
        view = tab(server.link())
        expect(view.cards).to_have_count(2)
        slider = view.page.get_by_role("slider", name="Moment that is shown")

        def go(at: float) -> None:
            slider.evaluate(
                "(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input', { bubbles: true })); }",
                at,
            )

        go(now - 70)
        expect(view.page.locator(".banner.past")).to_contain_text("As it was at")
        expect(view.states()).to_have_text(["running"])
        expect(view.card("slow").locator(".outputs")).to_contain_text("first")
        expect(view.card("slow").locator(".outputs")).not_to_contain_text("second")
        go(now - 95)
        expect(view.states()).to_have_text(["waiting"])
        go(now - 45)
        view.page.get_by_role("button", name="16×").click()
        view.page.get_by_role("button", name="Replay").click()
        expect(view.states()).to_have_text(["ok", "ok"])  # it plays to its end, and is live again
        expect(view.page.locator(".banner.past")).to_have_count(0)
        go(now - 70)
        view.page.get_by_role("button", name="1×", exact=True).click()
        view.page.get_by_role("button", name="Replay").click()
        view.page.get_by_role("button", name="Pause").click()
        view.page.get_by_role("button", name="Back to live").click()
        expect(view.cards).to_have_count(2)


# --- following, finding

STANDING = """() => new Promise((resolve) => {
    const list = document.querySelector(".scroller");
    let [top, frames] = [list.scrollTop, 0];
    const look = () => {
        frames = list.scrollTop === top ? frames + 1 : 0;
        top = list.scrollTop;
        if (frames < 10) requestAnimationFrame(look); else resolve(top);
    };
    look();
})"""
"""Where the list stands, once it does."""


def test_the_page_follows_what_runs_until_the_reader_scrolls(tab: Callable[..., Tab]) -> None:
    with served() as server:
        for number in range(30):
            server.run_cell("ok", code=f"before_{number}()\n" * 5)
        running = server.run_cell("running", code="go()", started_at=time.time())
        view = tab(server.link())
        expect(view.card(running)).to_be_in_viewport()
        server.print_text(running, "".join(f"line {number}\n" for number in range(20)))
        expect(view.card(running).get_by_text("line 19")).to_be_in_viewport()
        follow = view.page.get_by_role("button", name="Follow what runs")
        expect(follow).to_have_count(0)
        view.page.locator(".scroller").hover()
        end = view.page.evaluate(STANDING)
        view.page.mouse.wheel(0, -1500)
        expect(follow).to_be_visible()
        view.page.wait_for_function("end => document.querySelector('.scroller').scrollTop < end - 1000", arg=end)
        top = view.page.evaluate(STANDING)
        later = server.run_cell("running", code="later()", started_at=time.time())
        server.print_text(later, "more\n" * 30)
        expect(view.page.locator(".counted")).to_have_text("32 executions")
        assert abs(view.page.evaluate("document.querySelector('.scroller').scrollTop") - top) < 5
        follow.click()
        expect(view.card(later)).to_be_in_viewport()
        expect(follow).to_have_count(0)


def test_filters_and_search_reach_into_the_store(tab: Callable[..., Tab]) -> None:
    with served(Shelf(1000, 50)) as server:
        view = tab(server.link())
        expect(view.card("row-1000")).to_be_visible()
        search = view.page.get_by_role("searchbox")
        search.fill("step_993(")  # in the window
        expect(view.cards).to_have_count(1)
        expect(view.card("row-993")).to_be_visible()
        search.fill("step_7()")  # in the store alone
        expect(view.card("row-7")).to_be_visible()
        expect(view.card("row-7").locator(".outputs")).to_have_count(1)
        expect(view.page.locator(".counted")).to_have_text("1 found")
        view.page.get_by_role("button", name="Clear").click()
        expect(view.card("row-1000")).to_be_visible()
        view.page.get_by_role("combobox", name="State").select_option("error")
        expect(view.page.locator(".counted")).to_have_text("10 found")
        view.page.get_by_role("combobox", name="Who").select_option("bob")
        expect(view.card("row-900")).to_be_visible()
        expect(view.page.locator(".counted")).to_have_text("3 found")
        search.fill("nothing has this")
        expect(view.page.get_by_text("No execution fits the filter.")).to_be_visible()


def test_a_filter_by_cell_shows_what_that_cell_did(tab: Callable[..., Tab]) -> None:
    with served() as server:
        for number in range(6):
            server.run_cell("ok", code=f"cell_{number % 2}()", cell=f"c-{number % 2}", notebook="n.ipynb")
        view = tab(server.link())
        expect(view.cards).to_have_count(6)
        view.page.get_by_role("combobox", name="Cell").select_option("c-1")
        expect(view.cards).to_have_count(3)


def test_a_permalink_opens_an_execution_that_only_the_store_has(tab: Callable[..., Tab]) -> None:
    with served(Shelf(2000, 50)) as server:
        tab_of_first = tab(server.link())
        expect(tab_of_first.card("row-2000")).to_be_visible()
        view = tab(f"{server.link()}#execution=row-3")
        expect(view.card("row-3")).to_be_in_viewport()
        expect(view.card("row-3")).to_have_class(re.compile("target"))
        view.page.evaluate("location.hash = '#execution=nobody'")
        expect(view.page.get_by_text("is not in the history")).to_be_visible()
        view.problems.clear()  # the browser reports the answer 404


def test_the_history_is_downloaded_as_a_notebook(tab: Callable[..., Tab]) -> None:
    with served() as server:
        server.socket.backend.rows = [Execution(id="e", seq=1, kernel=KERNEL, code="x = 1", state=ExecutionState.OK)]
        view = tab(server.link())
        with view.page.expect_download() as found:
            view.page.get_by_role("link", name="Download as a notebook").click()
        notebook = json.loads(Path(found.value.path()).read_text())
        assert "x = 1" in "".join("".join(cell["source"]) for cell in notebook["cells"])


# --- headless runs


def put_cells(server: Served) -> None:
    cells = (
        Cell(id="m", index=0, cell_type="markdown", source="# Report\n\nSome *words* first."),
        Cell(id="a", index=1, cell_type="code", source="x = 1"),
        Cell(id="b", index=2, cell_type="code", source="x / 0"),
        Cell(id="c", index=3, cell_type="code", source="print(x)"),
    )
    server.push(PutCells("report.ipynb", cells))


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_headless_run_is_the_notebook_with_its_progress(tab: Callable[..., Tab], size: dict[str, int]) -> None:
    with served() as server:
        put_cells(server)
        now = time.time()
        view = tab(server.link(), size)
        expect(view.page.locator("h1", has_text="Report").last).to_be_visible()
        expect(view.page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "0")
        expect(view.page.locator("article.cell")).to_have_count(4)
        done = {"queued_at": now - 9, "started_at": now - 9, "finished_at": now - 7}
        server.run_cell("ok", cell="a", notebook="report.ipynb", code="x = 1", **done)
        running = server.run_cell("running", cell="b", notebook="report.ipynb", code="x / 0", started_at=now - 6)
        expect(view.page.locator(".progress p")).to_contain_text("Running cell 2 of 3")
        expect(view.page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")
        expect(view.page.locator('[data-cell="b"] .state')).to_have_text("running")
        failed = {
            "state": ExecutionState.ERROR,
            "finished_at": now,
            "error": {"ename": "ZeroDivisionError", "evalue": "by zero"},
        }
        server.push(PutExecution(running, failed), PutKernel(KERNEL, {"state": "dead", "exit_code": -15}))
        progress = view.page.locator(".progress p")
        expect(progress).to_contain_text("ZeroDivisionError: by zero; 1 cell did not run")
        expect(view.page.locator(".kernel-state")).to_have_text("ended")  # as it should: nothing was lost
        progress.get_by_role("link").click()
        expect(view.page.locator('[data-cell="b"]')).to_be_focused()
        assert not view.is_wider_than_it_shows()
        view.page.get_by_role("button", name="History", exact=True).click()
        expect(view.states()).to_have_text(["ok", "failed"])


# --- roles


def test_with_the_role_view_nothing_that_acts_is_on_the_page(tab: Callable[..., Tab]) -> None:
    with served() as server:
        running = fill(server)
        server.push(PutExecution(running, {"input": {"prompt": "Name? ", "password": False, "since": 1.0}}))
        server.run_cell("queued", request="r-2", queued_at=time.time())
        view = tab(server.link("view"))
        expect(view.card(running)).to_contain_text("Name?")
        expect(view.cards).to_have_count(5)
        assert view.page.locator("form.asked, .prompt, .cm-editor, .queue").count() == 0
        for name in ("Run", "Interrupt", "Cancel", "Restart", "Answer"):
            expect(view.page.get_by_role("button", name=name, exact=True)).to_have_count(0)
        runs = tab(server.link("run"))
        expect(runs.card(running).get_by_label("Name?")).to_be_visible()
        expect(runs.page.get_by_role("textbox", name="Code to run")).to_be_visible()
        for name in ("Run", "Cancel", "Restart", "Answer"):
            expect(runs.page.get_by_role("button", name=name, exact=True)).to_have_count(1)
        assert not any("Prompt" in url for url in resources(view)), "what only runners need is not loaded"
        assert any("Prompt" in url for url in resources(runs))


def resources(tab: Tab) -> list[str]:
    found: list[str] = tab.page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    return found


def share(kernel: Running, role: str) -> str:
    text = kernel.execute(f"%rtc share --role {role}").contents("display_data")[0]["data"]["text/plain"]
    return next(word for word in text.split() if word.startswith("http"))


def test_a_real_kernel_is_watched_run_interrupted_and_answered(
    tab: Callable[..., Tab], kernel: Running, gate: Gate
) -> None:
    kernel.execute("import time")
    kernel.execute("print('é😀'); 1 / 0")
    watcher, runner = tab(share(kernel, "view")), tab(share(kernel, "run"))
    expect(watcher.states().nth(1)).to_have_text("failed")
    expect(watcher.cards.nth(1).locator(".outputs")).to_contain_text("ZeroDivisionError")
    prompt = runner.page.get_by_role("textbox", name="Code to run")

    prompt.fill("six = 6\nprint('seven', six + 1)")
    prompt.press("Shift+Enter")
    expect(watcher.cards.last.locator(".outputs")).to_contain_text("seven 7")
    expect(watcher.cards.last.locator(".who")).to_contain_text("from a link")
    expect(prompt).to_have_text("Code to run")
    expect(runner.cards.last.locator(".outputs")).to_contain_text("seven 7")

    prompt.press("ArrowUp")
    expect(prompt).to_contain_text("print('seven', six + 1)")
    prompt.press("ArrowUp")  # from the end of the last line of two
    prompt.press("ArrowUp")
    expect(prompt).to_have_text("%rtc share --role run")
    prompt.press("ControlOrMeta+a")
    prompt.press("Delete")

    prompt.press_sequentially("time.perf_counter_n")
    prompt.press("Tab")
    expect(runner.page.locator(".cm-tooltip-autocomplete")).to_contain_text("perf_counter_ns")
    prompt.press("Escape")
    prompt.press("ControlOrMeta+a")
    prompt.press("Delete")

    prompt.fill("name = input('Name? '); import getpass; word = getpass.getpass('Word: '); print(name, len(word))")
    runner.page.get_by_role("button", name="Run", exact=True).click()
    asked = runner.cards.last.locator("form.asked")
    expect(asked.get_by_label("Name?")).to_have_attribute("type", "text")
    asked.get_by_role("textbox").fill("Ada")
    asked.get_by_role("button", name="Answer").click()
    word = asked.get_by_label("Word:")
    expect(word).to_have_attribute("type", "password")
    word.fill("secret")
    word.press("Enter")
    expect(watcher.cards.last.locator(".outputs")).to_contain_text("Ada 6")

    prompt.fill("print('begun', flush=True)\n" + gate.code)
    prompt.press("ControlOrMeta+Enter")
    expect(watcher.cards.last.locator(".outputs")).to_contain_text("begun")
    prompt.fill("print('never')")
    prompt.press("Shift+Enter")
    runner.page.get_by_text("1 request waiting").click()
    runner.page.locator(".queue").get_by_role("button", name="Cancel").click()
    expect(runner.page.locator(".queue")).to_have_count(0)
    runner.page.locator(".prompt").get_by_role("button", name="Interrupt").click()
    expect(watcher.page.locator("article.card", has_text="begun").locator(".head .state")).to_have_text("failed")


def test_what_was_typed_comes_back_when_it_is_refused_or_nobody_takes_it(tab: Callable[..., Tab]) -> None:
    with served() as server:
        view = tab(server.link("run"))
        prompt = view.page.get_by_role("textbox", name="Code to run")
        alert = view.page.locator(".prompt").get_by_role("alert")
        for code in ("first()", "second()"):
            prompt.fill(code)
            prompt.press("Shift+Enter")
            expect(prompt).to_have_text("Code to run")
        prompt.fill("third()")
        server.refuse("first()", "code: too long")
        expect(alert).to_contain_text("too long: first()")
        expect(prompt).to_have_text("third()")
        alert.get_by_role("button", name="Put it back").click()
        expect(prompt.locator(".cm-line")).to_have_text(["first()", "third()"])
        expect(alert).to_have_count(0)
        prompt.press("Shift+Enter")
        expect(prompt).to_have_text("Code to run")
        server.refuse("second()", "quota: wait")
        expect(prompt).to_have_text("second()")
        expect(alert).to_contain_text("quota: wait")

        socket = server.socket
        server.do(socket.server.stop)
        expect(view.page.locator(".prompt")).to_contain_text("Waits for the connection: first()")
        prompt.fill("fourth()")
        socket.backend.tokens.revoke("run")
        other = Server(socket.backend, RTCKernel(), kernel=KERNEL)
        assert not server.do(lambda: other.listen(socket.port)).moved
        expect(view.page.locator(".banners")).to_contain_text("%rtc share")
        alert.get_by_role("button", name="Put it back").click()
        expect(prompt.locator(".cm-line")).to_have_text(["first()", "third()", "fourth()"])
        lost_connections(view)
        server.do(other.stop)


def test_held_rows_are_released_or_dropped(tab: Callable[..., Tab], kernel: Running, gate: Gate) -> None:
    runner = tab(share(kernel, "run"))
    prompt = runner.page.get_by_role("textbox", name="Code to run")
    for code in (gate.code, "print('re' + 'leased')", "print('drop' + 'ped')"):
        prompt.fill(code)
        prompt.press("Shift+Enter")
        expect(prompt).to_have_text("Code to run")
    expect(runner.page.locator(".queue")).to_contain_text("2 requests waiting")
    runner.page.get_by_role("button", name="Restart").click()
    runner.page.get_by_role("dialog").get_by_role("button", name="Restart").click()
    queue = runner.page.locator(".queue")
    expect(queue).to_contain_text("2 of them held")
    queue.get_by_role("listitem").filter(has_text="'leased'").get_by_role("button", name="Release", exact=True).click()
    expect(runner.page.locator("article.card .outputs", has_text="released")).to_be_visible()
    queue.get_by_role("listitem").filter(has_text="'ped'").get_by_role("button", name="Drop", exact=True).click()
    expect(queue).to_have_count(0)
    expect(runner.page.locator("article.card .outputs", has_text="dropped")).to_have_count(0)


# --- the picture itself


def test_the_page_says_when_the_connection_is_gone_and_follows_the_next_epoch(tab: Callable[..., Tab]) -> None:
    with served() as server:
        fill(server)
        view = tab(server.link())
        expect(view.cards).to_have_count(4)
        socket = server.socket
        port, backend = socket.port, socket.backend
        server.do(socket.server.stop)
        expect(view.page.locator(".banner")).to_contain_text("The connection is gone")
        expect(view.page.locator(".banner")).to_contain_text(re.compile(r"The picture is \d+ s old"))
        expect(view.cards).to_have_count(4)

        def again() -> Server:
            backend.document = SmallBackend().document
            other = Server(backend, RTCKernel(), kernel=KERNEL)
            assert not other.listen(port).moved
            new = PutExecution("new", {"seq": 9, "state": "ok", "code": "again"})
            other.push(backend.document.apply([new]) or b"")
            return other

        other = server.do(again)
        expect(view.cards.locator(".code")).to_have_text(["again"])
        expect(view.page.locator(".banner")).to_have_count(0)
        lost_connections(view)
        server.do(other.stop)
        lost_connections(view)


def test_a_dead_kernel_bad_health_and_gaps_are_told(tab: Callable[..., Tab]) -> None:
    with served() as server:
        fill(server)
        view = tab(server.link())
        gap = {"since": 1.0, "until": 2.0, "message_count": 3, "size_bytes": 4096}
        server.push(
            PutKernel(KERNEL, {"state": "dead", "exit_code": -9}),
            PutMeta({"health": {"status": "degraded", "reason": "disk"}, "gap": [gap]}),
        )
        banners = view.page.locator(".banners")
        expect(banners).to_contain_text("exit code -9, SIGKILL")
        expect(banners).to_contain_text("degraded: disk")
        expect(banners).to_contain_text("3 messages (4.0 KiB) passed unseen")
        expect(view.page.locator(".kernel-state")).to_have_text("dead")


def test_without_a_token_the_page_says_what_to_do(tab: Callable[..., Tab]) -> None:
    with served() as server:
        view = tab(f"http://127.0.0.1:{server.socket.port}/?token=wrong")
        expect(view.page.get_by_role("alert")).to_contain_text("%rtc share")
        view.problems.clear()


def test_readers_see_who_else_is_here(tab: Callable[..., Tab]) -> None:
    with served() as server:
        one, other = tab(server.link("view")), tab(server.link("run"))
        for view in (one, other):
            expect(view.page.locator(".peers li")).to_have_count(2)
        expect(one.page.locator(".peers")).to_contain_text("run")
        other.page.context.close()
        expect(one.page.locator(".peers li")).to_have_count(1)


# --- for everybody


def test_light_and_dark_follow_the_system_until_the_reader_chooses(tab: Callable[..., Tab]) -> None:
    with served() as server:
        view = tab(server.link(), color_scheme="dark", reduced_motion="reduce")
        ground = "getComputedStyle(document.body).backgroundColor"
        dark = view.page.evaluate(ground)
        view.page.get_by_role("button", name="Colours").click()
        light = view.page.evaluate(ground)
        assert dark != light
        view.page.reload()
        expect(view.page.get_by_role("button", name="Colours: light")).to_be_visible()
        assert view.page.evaluate(ground) == light
        view.page.get_by_role("button", name="Colours").click()
        assert view.page.evaluate(ground) == dark
        durations = "[...document.querySelectorAll('*')].map((e) => getComputedStyle(e).transitionDuration)"
        assert set(view.page.evaluate(durations)) == {"0s"}


def test_the_keyboard_is_enough(tab: Callable[..., Tab]) -> None:
    with served() as server:
        fill(server)
        view = tab(server.link())
        expect(view.cards).to_have_count(4)
        keyboard = view.page.keyboard
        keyboard.press("Tab")
        expect(view.page.get_by_role("link", name="Skip to the executions")).to_be_focused()
        keyboard.press("Enter")
        expect(view.page.locator(".scroller")).to_be_focused()
        keyboard.press("g")
        expect(view.cards.nth(0)).to_be_focused()
        keyboard.press("j")
        expect(view.cards.nth(1)).to_be_focused()
        keyboard.press("k")
        expect(view.cards.nth(0)).to_be_focused()
        keyboard.press("G")
        expect(view.cards.nth(3)).to_be_focused()
        keyboard.press("/")
        expect(view.page.get_by_role("searchbox")).to_be_focused()
        keyboard.type("j")
        expect(view.page.get_by_role("searchbox")).to_have_value("j")
        keyboard.press("ControlOrMeta+a")
        keyboard.press("Delete")
        keyboard.press("Escape")
        keyboard.press("?")
        dialog = view.page.get_by_role("dialog", name="Keys")
        expect(dialog).to_be_visible()
        dialog.get_by_role("checkbox").uncheck()
        keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        keyboard.press("?")
        expect(dialog).to_be_hidden()  # letters are no commands any more


def test_ends_are_said_to_those_who_listen_and_a_flood_is_not(tab: Callable[..., Tab]) -> None:
    with served() as server:
        running = fill(server)
        view = tab(server.link())
        expect(view.cards).to_have_count(4)
        live = view.page.locator("[aria-live=polite]")
        view.page.evaluate(
            "const live = document.querySelector('[aria-live=polite]'); window.said = [];"
            "new MutationObserver(() => said.push(live.textContent))"
            ".observe(live, { childList: true, characterData: true, subtree: true })"
        )
        server.print_text(running, "flood\n" * 1000)
        server.push(PutExecution(running, {"state": ExecutionState.OK, "finished_at": time.time()}))
        expect(live).to_have_text("Execution 3 ok")
        for _ in range(40):
            server.run_cell("ok", execution_count=9)
        expect(view.page.locator(".counted")).to_have_text("44 executions")
        expect(live).to_contain_text("Execution 9 ok")
        assert len(view.page.evaluate("said")) < 8


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: npm ci in ui")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_axe_finds_nothing(tab: Callable[..., Tab], size: dict[str, int], scheme: str) -> None:
    with served() as server:
        running = fill(server)
        for state in ("lost", "cancelled", "queued"):
            server.run_cell(state, request="r-9", queued_at=time.time(), code="x = 'text'  # note\n" * 30)
        server.push(PutExecution(running, {"input": {"prompt": "Name? ", "password": True, "since": 1.0}}))
        found: dict[str, list[str]] = {}
        view = tab(server.link("run"), size, color_scheme=scheme)
        expect(view.page.get_by_role("textbox", name="Code to run")).to_be_visible()
        expect(view.cards).to_have_count(7)
        server.hold(Request(id="q-1", action="execute", by="ada", columns={"code": "held()"}, reason="the agent ended"))
        expect(view.page.locator(".queue")).to_contain_text("held")
        view.cards.nth(5).get_by_role("button", name="Details").click()
        found["history"] = view.complaints_of_axe()
        view.page.get_by_role("searchbox").fill("never")
        expect(view.cards).to_have_count(1)
        found["filter"] = view.complaints_of_axe()
        view.page.get_by_role("searchbox").fill("")
        view.page.keyboard.press("Escape")
        expect(view.cards).to_have_count(7)
        view.page.keyboard.press("?")
        expect(view.page.get_by_role("dialog")).to_be_visible()
        found["keys"] = view.complaints_of_axe()
        view.page.keyboard.press("Escape")
        slider = view.page.get_by_role("slider")
        slider.evaluate(
            "(s) => { s.value = (+s.min + +s.max) / 2; s.dispatchEvent(new Event('input', { bubbles: true })); }"
        )
        expect(view.page.locator(".banner.past")).to_be_visible()
        found["past"] = view.complaints_of_axe()
        view.page.get_by_role("button", name="Back to live").click()
        put_cells(server)
        server.push(
            PutKernel(KERNEL, {"state": "dead", "exit_code": 1}),
            PutMeta({"health": {"status": "degraded", "reason": "disk"}, "gap": [{"since": 1.0, "until": 2.0}]}),
        )
        expect(view.page.locator("article.cell")).to_have_count(4)
        expect(view.page.locator(".banners")).to_contain_text("degraded: disk")
        found["notebook"] = view.complaints_of_axe()
        view.page.evaluate("document.body.textContent = 'axe can fail'; document.body.style.color = '#777'")
        assert {state: said for state, said in found.items() if said} == {}
        lost_connections(view)  # marks of rows that this store has not
        assert view.complaints_of_axe(), "a page without headings and contrast is complained of"


@contextlib.contextmanager
def below_a_prefix(port: int, prefix: str) -> Iterator[int]:
    """A proxy as a hub has it: what is asked for below a prefix is the server's, and nothing else is there."""

    connections: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, rest = head.split(b" ", 2)
        if not path.startswith(prefix.encode()):
            writer.write(b"HTTP/1.1 418 outside\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if b"upgrade: websocket" not in rest.lower():
            rest = re.sub(rb"(?i)connection: [^\r]*", b"Connection: close", rest)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            up_writer.write(b" ".join((method, path[len(prefix) - 1 :], rest)))
            await asyncio.gather(carry(reader, up_writer), carry(up_reader, writer))
        finally:
            up_writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
                await answer(reader, writer)
        finally:
            writer.close()
            connections.discard(task)

    async def main(ready: Callable[[int], None], ended: asyncio.Event) -> None:
        proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
        ready(proxy.sockets[0].getsockname()[1])
        await ended.wait()
        proxy.close()
        open_ones = list(connections)
        for connection in open_ones:
            connection.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    with in_thread(main) as own_port:
        yield own_port


def test_the_page_works_below_a_path_prefix(tab: Callable[..., Tab]) -> None:
    with served() as server, below_a_prefix(server.socket.port, "/user/ada/proxy/7/") as port:
        row = fill(server)
        query = urlsplit(server.link("run")).query
        view = tab(f"http://127.0.0.1:{port}/user/ada/proxy/7/?{query}")
        expect(view.card(row)).to_be_visible()
        expect(view.page.get_by_role("textbox", name="Code to run")).to_be_visible()
        server.print_text(row, "tock\n")
        expect(view.card(row).locator(".outputs")).to_contain_text("tock")
        with view.page.expect_download():
            view.page.get_by_role("link", name="Download as a notebook").click()


# --- the files


def test_the_page_fits_its_policy_and_its_budget() -> None:
    page = (WEB / "index.html").read_text()
    assert not re.search(r"<script>|<style|\son\w+=|style=|https?://|src=\"/|href=\"/", page)
    eager = [WEB / name for name in re.findall(r"(?:src|href)=\"\./([^\"]+)\"", page)]
    assert len(eager) >= 2
    assert sum(len(gzip.compress(path.read_bytes())) for path in eager) < EAGER_BYTES


def test_every_bundled_package_has_its_licence_with_the_page() -> None:
    licences = (WEB / "assets" / "licences.txt").read_text()
    for part in ("yjs", "lib0", "y-protocols", "preact", "@tanstack/virtual-core", "d3-zoom", "@codemirror/view"):
        assert f"## {part} - " in licences
    for part in licences.split("\n## ")[1:]:
        assert re.search("permission|redistribution|licen[sc]e", part, re.IGNORECASE), f"no text: {part[:80]}"


def test_what_is_built_maps_to_no_source_and_names_no_checkout() -> None:
    for path in WEB.rglob("*"):
        if path.suffix in (".js", ".css", ".html"):
            text = path.read_text()
            assert "//# sourceMappingURL=" not in text[-200:], path
            assert "node_modules/" not in text, path
    assert not list(WEB.rglob("*.map"))
