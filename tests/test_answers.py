"""What %rtc lines show: text that lines up, HTML that is escaped, outputs as they were."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from rtc_kernel.agent.act import answers
from rtc_kernel.agent.act.answers import Grant, Link, Peer, StatusFacts
from rtc_kernel.agent.act.magics import UsageError, usage
from rtc_kernel.tables import Execution, ExecutionState, Kernel, KernelState, Output

NOW = 1_000_000.0
EVIL = '<img src=x onerror="alert(1)">'


def bundle(published: list[answers.Published]) -> dict[str, Any]:
    ((msg_type, content),) = published
    assert msg_type == "display_data"
    data: dict[str, Any] = content["data"]
    return data


def run(seq: int, **columns: Any) -> Execution:
    values = {"state": ExecutionState.OK, "started_at": NOW - 90, "finished_at": NOW - 87.5, **columns}
    return Execution(**{"id": f"{seq:04}abcdef", "seq": seq, "code": "print(1)", **values})


def no_blob(digest: str) -> None:
    return None


def test_a_link_can_be_clicked_copied_and_withdrawn() -> None:
    link = Link(name="link-1", role="view", url="http://127.0.0.1:9/?token=T&a=b", proxied_url="https://hub/x?token=T")
    data = bundle(answers.render_share(link, NOW))
    assert 'href="http://127.0.0.1:9/?token=T&amp;a=b"' in data["text/html"]
    assert 'href="https://hub/x?token=T"' in data["text/html"]
    assert "%rtc unshare link-1" in data["text/plain"]
    assert "can watch, until it is withdrawn" in data["text/plain"]
    lines = data["text/plain"].splitlines()
    assert lines[0].startswith("Whoever has this link and may use this server can watch")
    assert lines[1:3] == ["https://hub/x?token=T", "directly: http://127.0.0.1:9/?token=T&a=b"]
    ends = Link(name="a b", role="run", url="javascript:alert(1)", expires_at=NOW + 7200)
    data = bundle(answers.render_share(ends, NOW))
    assert "run code, interrupt and restart, for 2 h." in data["text/plain"]
    assert '%rtc unshare "a b"' in data["text/plain"]
    assert "href" not in data["text/html"]


def test_a_way_that_may_not_be_there_is_not_the_first() -> None:
    direct = "http://127.0.0.1:9/?token=T"
    link = Link(name="a", role="view", url=direct, proxied_url="/user/ada/proxy/9/?token=T")
    for one, second in (
        (link, "through the server: /user/ada/proxy/9/?token=T"),
        (
            replace(link, proxied_url="https://hub/proxy/9/?token=T", is_proxy_sure=False),
            "through the server, if it has jupyter-server-proxy: https://hub/proxy/9/?token=T",
        ),
    ):
        lines = bundle(answers.render_share(one, NOW))["text/plain"].splitlines()
        assert lines[0] == "Whoever has this link can watch, until it is withdrawn."
        assert lines[1:3] == [direct, second]


def test_nothing_of_others_is_markup() -> None:
    kernel = Kernel(id="k", display_name=EVIL, state=KernelState.IDLE, started_at=NOW - 60)
    facts = StatusFacts(
        kernel=kernel, version="1", health="degraded", reason=EVIL, url=EVIL, store=EVIL, executions_count=1,
        running_count=0, queued_count=0, peers_count=0, links_count=0,
    )  # fmt: skip
    row = run(1, id=EVIL, code=EVIL, submitted_by=EVIL)
    pages = [
        answers.render_status(facts, NOW),
        answers.render_share(Link(name=EVIL, role=EVIL, url=EVIL, proxied_url="https://" + EVIL), NOW),
        answers.render_share(Link(name=EVIL, role=EVIL, url=EVIL, proxied_url="/" + EVIL), NOW),
        answers.render_who(
            [Peer(name=EVIL, role=EVIL, way=EVIL, since=0)], [Grant(name=EVIL, role=EVIL, created_at=0)], NOW
        ),
        answers.render_history([row], NOW),
        answers.render_show(row, no_blob, NOW)[:1],
    ]
    for page in pages:
        html = bundle(page)["text/html"]
        assert "&lt;img" in html
        assert "<img" not in html
        assert not re.search(r'<[^>]*onerror="', html)


def test_status_says_what_is_recorded_and_who_may_follow() -> None:
    kernel = Kernel(id="k", display_name="RTC Python", state=KernelState.BUSY, started_at=NOW - 3700, generation=2)
    facts = StatusFacts(
        kernel=kernel, version="1.2", health="ok", reason="", url="http://127.0.0.1:9", store=None,
        executions_count=3, running_count=1, queued_count=2, peers_count=1, links_count=1,
    )  # fmt: skip
    assert bundle(answers.render_status(facts, NOW))["text/plain"].splitlines() == [
        "kernel   RTC Python: busy, for 1 h 1 min, restarted 2 times",
        "health   ok",
        "history  3 executions, 1 running, 2 queued; kept in memory only",
        "sharing  1 link, 1 peer; http://127.0.0.1:9",
        "version  rtc_kernel 1.2",
    ]


def test_history_is_an_aligned_table_newest_last() -> None:
    rows = [
        run(12, execution_count=3, submitted_by="ann", code="import os\nos.getpid()"),
        run(2, state=ExecutionState.RUNNING, finished_at=None, code="\n  while True: pass"),
        run(3, private=True, code="", id="0012abcdXYZ"),
    ]
    lines = bundle(answers.render_history(rows, NOW, more=True))["text/plain"].splitlines()
    assert lines == [
        "seq  id        count  state    when       took        by   code",
        "#2   0002abcd         running  1 min ago  1 min 30 s       while True: pass",
        "#3                    ok       1 min ago  2.5 s            (private)",
        "#12            [3]    ok       1 min ago  2.5 s       ann  import os …",
        "older ones: -n N shows more",
    ]
    assert answers.render_history([], NOW)[0][1]["text"] == "No execution matches.\n"


def test_who_names_followers_and_links() -> None:
    peers = [
        Peer(name="link-1", role="view", way="websocket", since=NOW - 5),
        Peer(name="b", role="run", way="comm", since=NOW - 6),
    ]
    grants = [
        Grant(name="link-1", role="view", created_at=0),
        Grant(name="b", role="run", created_at=0, expires_at=NOW + 60),
    ]
    assert bundle(answers.render_who(peers, grants, NOW))["text/plain"].splitlines() == [
        "Following now:",
        "  link-1  view  websocket  for 5.0 s",
        "  b       run   comm       for 6.0 s",
        "Links:",
        "  link-1  view  never ends     1 peer",
        "  b       run   ends in 1 min  0 peers",
    ]
    assert "  nobody" in bundle(answers.render_who([], [], NOW))["text/plain"]


def test_show_gives_the_recorded_outputs_again_in_order() -> None:
    digest = "sha256:" + "0" * 64
    outputs = (
        Output(output_type="stream", at=1, name="stderr", text="warned\n"),
        Output(output_type="display_data", at=2, data={"image/png": {"blob": digest, "bytes": 3, "preview": None}}),
        Output(output_type="execute_result", at=3, execution_count=7, data={"text/plain": "42"}, metadata={"a": 1}),
        Output(output_type="error", at=4, ename="E", evalue="v", traceback=("t",)),
    )
    shown = answers.render_show(run(1, outputs=outputs), {digest: b"\x89PN"}.get, NOW)
    assert shown[1:] == [
        ("stream", {"name": "stderr", "text": "warned\n"}),
        ("display_data", {"data": {"image/png": "iVBO"}, "metadata": {}, "transient": {}}),
        ("display_data", {"data": {"text/plain": "42"}, "metadata": {"a": 1}, "transient": {}}),
        ("error", {"ename": "E", "evalue": "v", "traceback": ["t"]}),
    ]
    assert bundle(shown[:1])["text/plain"] == "#1  ok  1 min ago  took 2.5 s  print(1)"
    assert answers.render_show(run(1, outputs=outputs), no_blob, NOW, header=False) != shown[1:]
    assert "has no outputs)" in answers.render_show(run(1), no_blob, NOW)[-1][1]["text"]
    assert "was private" in answers.render_show(run(1, private=True), no_blob, NOW)[-1][1]["text"]
    ((msg_type, content),) = answers.render_show(None, no_blob, NOW, key="ab")
    assert (msg_type, content["ename"]) == ("error", "UsageError")
    assert "'ab'" in content["evalue"]


def test_short_answers_are_streams() -> None:
    texts = [
        answers.render_unshare(["a", "b"], 1),
        answers.render_unshare([], 0),
        answers.render_export("x.ipynb", 1, 2048),
        answers.render_clear(2),
        answers.render_help("share"),
    ]
    assert [published[0][1]["text"] for published in texts] == [
        "Withdrawn: a, b. 1 peer cut off.\n",
        "No link is in force.\n",
        "Wrote x.ipynb: 1 execution, 2.0 KiB.\n",
        "Forgot 2 finished executions. What runs or waits stays.\n",
        usage("share") + "\n",
    ]
    assert answers.render_private() == []
    assert answers.error_content(UsageError("no"))["traceback"] == ["%rtc: no"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.00 s"),
        (0.123, "0.12 s"),
        (3.44, "3.4 s"),
        (59.96, "1 min"),
        (306, "5 min 6 s"),
        (28080, "7 h 48 min"),
        (813600, "9 d 10 h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert answers.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("ago", "text"),
    [(-5, "0 s ago"), (12, "12 s ago"), (300, "5 min ago"), (7300, "2 h ago"), (1e6, "1970-01-01 00:00 UTC")],
)
def test_times_are_relative_within_a_day(ago: float, text: str) -> None:
    assert answers.when_text(NOW - ago, NOW) == text
    assert answers.when_text(None, NOW) == ""


def test_the_first_line_that_says_something_stands_for_the_code() -> None:
    assert answers.first_line("\n\n  a\tb") == "a b"
    assert answers.first_line("x" * 100) == "x" * 59 + "…"
    assert answers.first_line("  \n") == ""
