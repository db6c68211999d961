"""A room at a relay in a real browser: all its kernels on one timeline, whoever comes, ends and begins anew."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import Running, start
from relays import LACKS, PUBLISH, RUN, VIEW, HeadlessRun, Relay, hocuspocus_relay
from test_viewer import AXE, PHONE, WIDE, Tab, chromium, expect, lost_connections, tab
from tools import CHROMIUM

from rtc_kernel import page as viewer

__all__ = ["chromium", "tab"]  # fixtures

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(bool(LACKS), reason=LACKS or "all is there"),
]
COMES_S = 60
"""Until a kernel of ours is started, and published."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with hocuspocus_relay(tmp_path_factory.mktemp("relay")) as found:
        yield found


def page_of(relay: Relay, room: str) -> str:
    return f"http{relay.url.removeprefix('ws')}/{room}"


def published(relay: Relay, room: str, name: str, role: str = "view") -> Any:
    """A kernel that is in the room from its start, under the name of a notebook."""
    env = {
        **os.environ,
        "JPY_SESSION_NAME": f"{name}.ipynb",
        "RTC_KERNEL_RELAY_TOKEN": PUBLISH,
        "RTC_KERNEL_RELAYS": relay.url,
        "RTC_KERNEL_RELAY_ROOM": room,
        "RTC_KERNEL_RELAY_ROLE": role,
    }
    return start("rtc-python", env=env)


def lane(view: Tab, name: str) -> Any:
    return view.page.locator(".lane-names li", has=view.page.get_by_text(name, exact=True))


def test_three_kernels_are_on_one_timeline_and_are_followed_wherever_they_go(
    tab: Callable[..., Tab], relay: Relay, tmp_path: Path
) -> None:
    link = f"{relay.url}/team"
    with published(relay, "team", "ada", "run") as ada, published(relay, "team", "bob", "run") as bob:
        ada.execute("print('by ' + 'ada')")
        bob.execute("print('by ' + 'bob')")
        view = tab(f"{page_of(relay, 'team')}#token={RUN}")
        expect(view.cards).to_have_count(2)
        run = HeadlessRun(tmp_path, "nightly", link, "print('by ' + 'night')")
        try:
            _all_are_there(view)
            _one_is_chosen_and_asked(view, ada, bob)
            _a_new_life_is_followed(view, bob)
            run.finish()
            expect(lane(view, "nightly").locator(".kernel-state")).to_have_text("ended", timeout=COMES_S * 1000)
            expect(view.cards.filter(has_text="nightly ends")).to_have_count(1)
            bob.manager.shutdown_kernel()
            expect(lane(view, "bob").locator(".kernel-state")).to_have_text("ended")
            expect(lane(view, "ada").locator(".kernel-state")).to_have_text("idle")
        finally:
            run.end()


def _all_are_there(view: Tab) -> None:
    """Names, states, cards in the order of time, one axis, and nothing of one kernel alone."""
    expect(view.page.locator(".lane-name")).to_have_text(["ada", "bob", "nightly"], timeout=COMES_S * 1000)
    expect(lane(view, "nightly").locator(".kernel-state")).to_have_text("busy", timeout=COMES_S * 1000)
    expect(lane(view, "ada").locator(".kernel-state")).to_have_text("idle")
    expect(view.page.locator("h1")).to_have_text("team")
    expect(view.page.locator(".now")).to_contain_text("3 kernels")
    expect(view.cards).to_have_count(4)
    assert [re.sub(" .*", "", text) for text in view.page.locator(".of-kernel").all_inner_texts()] == [
        "ada", "bob", "nightly", "nightly"
    ]  # fmt: skip
    assert "of 3 kernels" in view.page.locator(".timeline canvas").get_attribute("aria-label")
    expect(view.page.get_by_role("textbox", name="Code to run")).to_have_count(0)
    expect(view.page.get_by_label("Download as a notebook")).to_have_count(0)
    assert "token" not in view.page.url
    assert RUN not in view.page.content()


def _one_is_chosen_and_asked(view: Tab, ada: Running, bob: Running) -> None:
    """By a press on its name; what is typed runs there, and nowhere else."""
    page = view.page
    lane(view, "bob").get_by_role("button").press("ArrowUp")
    expect(lane(view, "ada").get_by_role("button")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("ada.ipynb")
    expect(view.cards).to_have_count(1)
    expect(page.get_by_role("combobox", name="Kernel")).to_have_value(ada.kernel_id)
    prompt = page.get_by_role("textbox", name="Code to run")
    expect(page.locator(".prompt")).to_contain_text("Runs in ada")
    prompt.fill("print('only ' + 'here')")
    prompt.press("Shift+Enter")
    expect(view.cards.last.locator(".outputs")).to_have_text("only here\n")
    expect(view.cards.last.locator(".who")).to_contain_text("relay:")
    prompt.fill("kept = 1")
    page.get_by_role("combobox", name="Kernel").select_option(bob.kernel_id)
    expect(view.cards).to_have_count(1)
    expect(page.locator(".prompt")).to_contain_text("Runs in bob")
    expect(prompt).to_have_text("kept = 1")
    page.get_by_role("button", name="team", exact=True).click()
    expect(view.cards).to_have_count(5)
    expect(prompt).not_to_be_visible()


def _a_new_life_is_followed(view: Tab, bob: Running) -> None:
    """Its document has another name then."""
    bob.execute("%rtc clear")
    bob.execute("print('in a new ' + 'life')")
    expect(view.cards.filter(has_text="in a new life")).to_have_count(1)
    expect(view.page.locator(".lane-name")).to_have_text(["ada", "bob", "nightly"])
    bob.execute("display({'text/html': 'x' * 3_000_000, 'text/plain': 'in a few words'}, raw=True)")
    large = view.cards.filter(has_text="in a few words").locator(".out-reference")
    expect(large).to_contain_text("it is with the kernel, and not at the relay")
    expect(large.get_by_role("button")).to_have_count(0)


def test_a_room_with_one_kernel_looks_like_the_kernels_own_page_until_another_one_comes(
    tab: Callable[..., Tab], relay: Relay, tmp_path: Path
) -> None:
    stranger = tab(f"{page_of(relay, 'job')}#token=wrong-0123456789abcdef")
    expect(stranger.page.get_by_role("alert")).to_contain_text("the relay refuses")
    expect(stranger.page.get_by_role("heading")).to_have_text("job")
    stranger.page.get_by_label("Token").fill(VIEW)
    stranger.page.get_by_role("button", name="Follow").click()
    expect(stranger.page.locator(".empty")).to_contain_text("No kernel is published in this room yet")
    run = HeadlessRun(tmp_path, "only", f"{relay.url}/job", "print('it goes')")
    try:
        expect(stranger.page.locator("h1")).to_have_text("only.ipynb", timeout=COMES_S * 1000)
        expect(stranger.page.get_by_role("progressbar", name="Cells that have run")).to_be_visible()
        expect(stranger.page.get_by_role("button", name="Notebook")).to_have_attribute("aria-pressed", "true")
        expect(stranger.page.locator(".lane-names, .of-kernel")).to_have_count(0)
        stranger.page.reload()
        expect(stranger.page.locator("h1")).to_have_text("only.ipynb")  # the tab has kept the token
        with published(relay, "job", "other"):
            expect(stranger.page.locator(".lane-name")).to_have_text(["only", "other"], timeout=COMES_S * 1000)
            expect(stranger.page.locator("h1")).to_have_text("job")
            relay.kill()
            expect(stranger.page.locator(".banner")).to_contain_text("The connection is gone")
            relay.start()
            expect(stranger.page.locator(".banner")).to_have_count(0)
            lost_connections(stranger)
            phone = tab(f"{page_of(relay, 'job')}#token={VIEW}", PHONE)
            expect(phone.page.locator(".lane-name")).to_have_text(["only", "other"])
            assert not phone.is_wider_than_it_shows()
            if AXE.exists():
                assert phone.complaints_of_axe() == []
                dark = tab(f"{page_of(relay, 'job')}#token={VIEW}", WIDE, color_scheme="dark")
                expect(dark.page.locator(".lane-name")).to_have_text(["only", "other"])
                lane(dark, "only").get_by_role("button").click()
                expect(dark.page.locator("h1")).to_have_text("only.ipynb")
                expect(dark.cards).to_have_count(2)
                assert dark.complaints_of_axe() == []
    finally:
        run.end()


def test_a_room_is_opened_with_a_page_from_here_that_lets_in_once(tab: Callable[..., Tab], relay: Relay) -> None:
    argv = [sys.executable, "-m", "rtc_kernel.cli", "view", f"{relay.url}/empty", "--no-browser", "--json"]
    env = {**os.environ, "RTC_KERNEL_RELAY_TOKEN": VIEW}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            link = json.loads(process.stdout.readline())["url"]
            assert VIEW not in link
            view = tab(link)
            expect(view.page.locator(".empty")).to_contain_text("No kernel is published in this room yet")
            assert view.page.url.endswith("/empty")
            view.page.reload()
            expect(view.page.locator(".empty")).to_contain_text("No kernel is published in this room yet")
            home = link.partition("/?")[0]
            for path, host in (
                ("/?once=", ""),
                (link.removeprefix(home), ""),
                ("/empty", "evil:1"),
                ("/..%2fpage.py", ""),
            ):
                asked = urllib.request.Request(home + path, headers={"Host": host} if host else {})
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(asked, timeout=30)
                refused.value.close()
                assert refused.value.code in (403, 404)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_the_example_relay_serves_the_page_under_the_policy_of_the_kernels_own(relay: Relay) -> None:
    source = (Path(__file__).parent.parent / "examples" / "relay" / "page.mjs").read_text()
    joined = re.sub(r'" \+\s*"', "", source)
    for policy in (viewer.PAGE_CSP, viewer.FRAME_CSP, viewer.WIDGETS_CSP):
        assert f'"{policy}"' in joined
