"""JupyterHub: a notebook at a user's server, and a link that goes through it, in real browsers."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import nbformat
import pytest
from conftest import wait_until
from kernels import FOREVER, gone
from nbformat.v4 import new_code_cell, new_notebook
from tools import missing

MISSING = missing("playwright")

pytestmark = [pytest.mark.browser, pytest.mark.node, pytest.mark.timeout(300)]

if MISSING:
    pytest.skip(f"not installed: {', '.join(MISSING)}", allow_module_level=True)

import hubs  # noqa: E402
from hubs import COLLEAGUE, OWNER, PASSWORD, STRANGER, Hub, jupyter_hub  # noqa: E402
from jupyterlab_page import Browser, NotebookPage, another, chromium  # noqa: E402
from playwright.sync_api import Page, expect  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Locator

if hubs.LACKS:
    pytest.skip(hubs.LACKS, allow_module_level=True)

SHARE = f"%rtc share --role run --name {COLLEAGUE}"
PICTURE = """
import os, struct, zlib
from IPython.display import Image
def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
rows = b"".join(b"\\0" + os.urandom(900) for _ in range(200))
head = struct.pack(">IIBBBBB", 300, 200, 8, 2, 0, 0, 0)
Image(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
"""
"""Of 180 kB, which is a blob of its own."""
ASKING = "zebra_crossing = input('Name? '); print('Hello', zebra_crossing)"
WAITING = f"print('begun', flush=True); {FOREVER}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with jupyter_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(f"--host-resolver-rules=MAP {hubs.NAME} 127.0.0.1") as running:
        yield running


@pytest.fixture(scope="module")
def owner(hub: Hub, browser: Browser) -> Owner:
    """At a notebook whose kernel is RTC Python and has shown a picture."""
    cells = (PICTURE, SHARE, "%rtc unshare --all", WAITING, ASKING, "zebra_")
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "rtc-python", "display_name": "RTC Python", "language": "python"}
    nbformat.write(notebook, hub.root(OWNER) / "work.ipynb")
    page = browser.context.new_page()
    passed: list[str] = []
    page.on("request", lambda request: passed.append(request.url))
    page.on("websocket", lambda socket: passed.append(socket.url))
    page.goto(f"{hub.url}hub/spawn/{OWNER}?next=/user/{OWNER}/lab/tree/work.ipynb%3Freset")
    log_in(page, OWNER)
    made = Owner(page, passed)
    made.wait_ready()
    made.run(0, 1)
    return made


class Owner(NotebookPage):
    """Who has the server and the notebook. ``passed``: the addresses that the page has asked."""

    def __init__(self, page: Page, passed: list[str]) -> None:
        super().__init__(page)
        self.passed = passed

    def link(self) -> str:
        """A new link to run code, as its cell shows it; the one before is withdrawn."""
        if self.outputs(1).count():
            self.run(2)
        self.run(1)
        expect(self.outputs(1)).to_contain_text("withdraw it")
        return str(self.outputs(1).locator("a").first.get_attribute("href"))


@contextlib.contextmanager
def visit(browser: Browser, link: str, user: str) -> Iterator[Page]:
    """A link opened in a browser of its own by a user of the hub who was not logged in yet."""
    with another(browser) as theirs:
        page = theirs.context.new_page()
        page.goto(link)
        log_in(page, user)
        if user == COLLEAGUE:
            asked, viewer = page.get_by_role("button", name="Authorize"), page.locator("#page .page")
            expect(asked.or_(viewer)).to_be_visible()
            if asked.count():  # the hub asks whether that server may know who comes; once
                asked.click()
            viewer.wait_for()
        yield page


def log_in(page: Page, user: str) -> None:
    page.locator("#username_input").fill(user)
    page.locator("#password_input").fill(PASSWORD)
    page.locator("#login_submit").click()


def asked(url: str, headers: dict[str, str], port: int | None = None) -> tuple[int, str | None]:
    """What is answered to a program: the status, and the error where it is one. ``port``: of this machine, instead of
    the one in the address."""
    parts = urlsplit(url)
    request = urllib.request.Request(f"http://127.0.0.1:{port or parts.port}{parts.path}")
    for name, value in {"Host": parts.netloc, **headers}.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            json.loads(answer.read())
            return answer.status, None
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.loads(exc.read())["error"]


def cards(page: Page) -> Locator:
    return page.locator("article.card")


def test_a_notebook_at_a_users_server_has_its_history_without_any_proxied_port(hub: Hub, owner: Owner) -> None:
    expect(owner.outputs(0).locator("img")).to_be_visible()
    shown = owner.open_history()
    expect(shown.last).to_contain_text("from IPython.display import Image")
    expect(shown.last).to_contain_text(OWNER)
    owner.start(3)
    expect(owner.outputs(3)).to_have_text("begun\n")
    owner.interrupt()
    expect(owner.outputs(3).last).to_contain_text("KeyboardInterrupt")
    expect(owner.prompt(3)).to_have_text(re.compile(r"\[\d+\]:"))
    owner.start(4)
    owner.panel.locator(".jp-Stdin-input").fill("Ada")
    owner.page.keyboard.press("Enter")
    expect(owner.outputs(4).last).to_have_text("Hello Ada\n")
    owner.complete(5, "zebra_crossing")
    expect(owner.cell(5).locator(".cm-content")).to_have_text("zebra_crossing")
    owner.restart()
    expect(shown).to_have_count(3)
    channels = [url for url in owner.passed if "/channels" in url]
    assert channels
    assert all(url.startswith(f"ws://{urlsplit(hub.url).netloc}/user/{OWNER}/api/kernels/") for url in channels)
    assert not [url for url in owner.passed if "/proxy/" in url], "the comm is enough"


def test_the_link_is_the_hubs_and_a_colleague_watches_and_runs_behind_it(
    hub: Hub, browser: Browser, owner: Owner
) -> None:
    link = owner.link()
    assert re.fullmatch(re.escape(hub.server(OWNER)) + r"proxy/\d+/\?token=[\w-]+", link)
    expect(owner.outputs(1)).to_contain_text("Whoever has this link and may use this server can watch, run code")
    sockets: list[str] = []
    with visit(browser, link, COLLEAGUE) as page:
        page.on("websocket", lambda socket: sockets.append(socket.url))
        assert page.url == link.partition("?")[0], "the token has left the address"
        expect(cards(page).first.locator(".outputs img")).to_be_visible()
        (cookie,) = [one for one in page.context.cookies() if one["name"].startswith("rtc-token-")]
        assert (cookie["path"], cookie["httpOnly"]) == (urlsplit(page.url).path.rstrip("/"), True)
        prompt = page.get_by_role("textbox", name="Code to run")
        prompt.fill("print('from', 'afar')")
        prompt.press("Shift+Enter")
        expect(cards(page).last.locator(".outputs")).to_contain_text("from afar")
        expect(owner.page.locator("#rtc-kernel-panel article.card").last).to_contain_text(COLLEAGUE)
        page.reload()
        expect(cards(page).last.locator(".outputs")).to_contain_text("from afar")
        assert {url.partition("/rooms/")[0] for url in sockets} == {page.url.rstrip("/").replace("http", "ws", 1)}
        owner.run(2)
        expect(owner.outputs(2)).to_contain_text(f"Withdrawn: {COLLEAGUE}")
        expect(page.get_by_role("alert")).to_contain_text("%rtc share")


def test_the_hub_says_who_gets_as_far_as_the_link_and_the_token_who_gets_in(
    hub: Hub, browser: Browser, owner: Owner
) -> None:
    link = owner.link()
    bare = link.partition("?")[0]
    with visit(browser, link, STRANGER) as page:
        expect(page.locator("body")).to_contain_text("403")
        assert cards(page).count() == 0
    with visit(browser, bare, COLLEAGUE) as page:
        expect(page.get_by_role("alert")).to_contain_text("%rtc share")
        cookies = {"Cookie": "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())}
        token = {"Authorization": "Bearer " + link.partition("token=")[2]}
        assert asked(f"{bare}api/history", cookies) == (401, "the token is missing, wrong or expired")
        assert asked(f"{bare}api/history", cookies | token) == (200, None)
        foreign = {"Origin": "http://hub.example.org.evil.example"}
        assert asked(f"{bare}api/history", cookies | token | foreign) == (403, "this Origin may not connect")


def test_the_side_socket_knows_the_hubs_name_and_no_other(hub: Hub, owner: Owner) -> None:
    port = re.search(r"/proxy/(\d+)/", owner.link())
    assert port is not None
    for host, answer in (
        (urlsplit(hub.url).netloc, (200, None)),
        (f"localhost:{port[1]}", (200, None)),
        ("other.example.org", (403, "this Host is not ours")),
    ):
        assert asked(f"http://{host}/api/health", {}, int(port[1])) == answer


def test_a_users_server_that_is_stopped_leaves_nothing_behind(hub: Hub, owner: Owner) -> None:
    """The last test of the module."""
    (server,) = [one for one in hub.process.children() if "jupyterhub.singleuser" in one.cmdline()]
    left = [server, *server.children(recursive=True)]
    assert sum("rtc_kernel.agent" in one.cmdline() for one in left) == 1
    owner.page.goto(f"{hub.url}hub/home")
    owner.page.locator("#stop").click()
    wait_until(gone(left), "server, relay, agent and kernel have ended", 60)
