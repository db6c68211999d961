"""The plain page in a real browser: what is in the document is on the page, as text and never as HTML."""

import asyncio
import base64
import functools
import json
import re
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serving import SmallBackend, Socket, eventually, serving
from tornado.websocket import websocket_connect

import rtc_kernel
from rtc_kernel.agent.serve.websocket import Server
from rtc_kernel.config import RTCKernel
from rtc_kernel.tables import AddOutput, ExecutionState, Output, PutExecution, PutKernel, PutMeta, WriteText

WEB = Path(rtc_kernel.__file__).parent / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

in_browser = pytest.mark.browser
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def on_loop(test):
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 90))

    return run


class Tab:
    """One page of a browser, over the DevTools protocol."""

    def __init__(self, connection):
        self._connection = connection
        self._id = 0
        self.log = []

    async def call(self, method, **params):
        self._id += 1
        await self._connection.write_message(json.dumps({"id": self._id, "method": method, "params": params}))
        while True:
            answer = json.loads(await asyncio.wait_for(self._connection.read_message(), 20))
            if answer.get("id") == self._id:
                return answer["result"]
            self.log.append(answer)

    async def js(self, expression):
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, expression, what):
        deadline = asyncio.get_running_loop().time() + 15
        while not (value := await self.js(expression)):
            assert asyncio.get_running_loop().time() < deadline, f"still not: {what}"
            await asyncio.sleep(0.02)
        return value

    async def screenshot(self, width, height, scheme="light"):
        """The page as PNG bytes, for the eyes of a developer."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        shot = await self.call("Page.captureScreenshot")
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def browsing(url):
    """A browser with one tab at ``url``."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        port_file, connection = Path(profile) / "DevToolsActivePort", None
        try:
            await eventually(lambda: port_file.exists() and port_file.read_text().count("\n"), "Chromium is up", 30)
            port, path = port_file.read_text().split()
            connection = await websocket_connect(f"ws://127.0.0.1:{port}{path}", max_message_size=1 << 27)
            browser = Tab(connection)
            target = await browser.call("Target.createTarget", url="about:blank")
            connection.close()
            address = f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
            connection = await websocket_connect(address, max_message_size=1 << 27)
            tab = Tab(connection)
            for domain in ("Page", "Runtime", "Log"):
                await tab.call(f"{domain}.enable")
            await tab.call("Page.navigate", url=url)
            yield tab
        finally:
            if connection is not None:
                connection.close()
            process.terminate()
            await process.wait()


def text_of(selector):
    return f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent).join('|')"


def fill(server: Socket):
    """One execution of each kind of output; returns the running one."""
    server.push(PutKernel("k-1", {"state": "busy", "notebook": "n.ipynb"}))
    row = server.run_cell("ok", code="<b>x</b>", submitted_by="ada <script>", execution_count=1)
    html = {"text/html": "<img src=x onerror='document.title=1'>", "text/plain": "<script>plain</script>"}
    outputs = [
        Output(output_type="display_data", at=1.0, data={"image/png": PIXEL}, metadata={}),
        Output(output_type="display_data", at=1.0, data=html, metadata={}),
        Output(output_type="error", at=1.0, ename="E", evalue="v", traceback=("\x1b[31mred\x1b[0m",)),
    ]
    server.push(*(AddOutput(row, at, output) for at, output in enumerate(outputs, 1)))
    running = server.run_cell("running", code="while True: pass", execution_count=2)
    server.print_text(running, "\x1b[32mtick\x1b[0m é😀\n")
    return running


@in_browser
@needs_chromium
@on_loop
async def test_the_page_shows_what_happens_as_it_happens():
    async with serving() as server:
        running = fill(server)
        async with browsing(f"{server.server.url}/?token={server.tokens['view']}") as tab:
            await tab.until("document.querySelectorAll('article').length === 2", "both executions are there")
            assert await tab.js(text_of("article .state")) == "running|ok"  # newest first
            assert await tab.js(text_of("pre.code")) == "while True: pass|<b>x</b>"
            assert "ada <script>" in await tab.js(text_of(".who"))
            assert await tab.js(text_of(".stream")) == "tick é😀\n|"
            assert "<script>plain</script>" in await tab.js(text_of(".output"))
            assert await tab.js(text_of(".output.error")) == "red"
            await tab.until("document.querySelector('img').naturalWidth === 1", "the image is decoded")
            assert await tab.js(text_of("#kernel-state")) == "busy"
            assert "token" not in await tab.js("location.href + document.cookie")
            server.print_text(running, "tock\n")
            await tab.until(f"{text_of('.stream')}.includes('tock')", "the stream goes on")
            server.push(
                PutExecution(running, {"state": ExecutionState.ERROR}),
                PutMeta({"health": "degraded", "reason": "disk"}),
            )
            server.push(
                PutMeta({"gap": {"since": 1.0, "until": 2.0}}), PutKernel("k-1", {"state": "dead", "exit_code": -9})
            )
            await tab.until(f"{text_of('article .state')} === 'error|ok'", "the end state")
            notes = await tab.js(text_of("#notes p"))
            assert "degraded: disk" in notes
            assert "gap" in notes
            assert "exit code -9" in notes
            for width in (1200, 390):
                await tab.call(
                    "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
                )
                assert await tab.js("document.documentElement.scrollWidth <= window.innerWidth"), f"{width} px"
            assert not [entry for entry in tab.log if entry["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]


@in_browser
@needs_chromium
@on_loop
async def test_the_page_says_where_and_how_much_of_a_long_text_is_left_out():
    async with serving() as server:
        running = server.run_cell("running", code="flood", execution_count=1)
        async with browsing(f"{server.server.url}/?token={server.tokens['view']}") as tab:
            await tab.until("document.querySelectorAll('article').length === 1", "the execution is there")
            for segment in range(20):
                server.push(WriteText(running, 0, segment, None, f"<{segment}>" + "x" * 100_000))
            await tab.until(f"{text_of('.stream .gap')}.includes('left out here')", "the gap is named")
            await tab.until(f"{text_of('.stream')}.includes('<19>')", "the end is there")
            lines = (await tab.js(text_of(".stream"))).split("\n")
            assert [line.startswith(start) for line, start in zip(lines, ("<0>", "…", "<"), strict=True)] == [True] * 3
            assert not [entry for entry in tab.log if entry["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]


@in_browser
@needs_chromium
@on_loop
async def test_the_page_says_when_the_connection_is_gone_and_follows_the_next_epoch():
    async with serving() as server:
        fill(server)
        port, backend = server.port, server.backend
        async with browsing(f"{server.server.url}/?token={server.tokens['view']}") as tab:
            await tab.until("document.querySelectorAll('article').length === 2", "the executions are there")
            await server.server.stop()
            await tab.until("!document.getElementById('banner').hidden", "the banner is there")
            backend.document = SmallBackend().document
            again = Server(backend, RTCKernel(), kernel="k-1")
            assert not again.listen(port).moved
            again.push(backend.document.apply([PutExecution("new", {"seq": 9, "state": "ok", "code": "again"})]) or b"")
            await tab.until(f"{text_of('pre.code')} === 'again'", "the new life is followed")
            assert await tab.js("document.getElementById('banner').hidden")
            await again.stop()


@in_browser
@needs_chromium
@on_loop
async def test_the_page_without_a_token_says_what_to_do():
    async with serving() as server, browsing(f"{server.server.url}/?token=wrong") as tab:
        await tab.until(f"{text_of('#banner')}.includes('%rtc share')", "the remedy is there")


def test_the_page_fits_its_policy_and_never_parses_data_as_html():
    page = (WEB / "index.html").read_text()
    assert not re.search(r"<script>|<style|\son\w+=|style=|https?://|src=\"/|href=\"/", page)
    source = Path(rtc_kernel.__file__).parent.parent / "ui" / "page" / "main.ts"
    if source.exists():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(", source.read_text()
        )


def test_the_bundle_names_the_licences_of_its_parts():
    head = (WEB / "page.js").read_text()[:3000]
    for part in ("yjs", "lib0", "y-protocols", "y-websocket", "Permission is hereby granted", "WITHOUT WARRANTY"):
        assert part in head
