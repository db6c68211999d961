"""intercept: transcripts of what passes, what is taken, and in which order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.link import AGENT_IDENT, Channel, Way
from rtc_kernel.relay import intercept
from rtc_kernel.relay.intercept import (
    REPLY_GRACE_S,
    AskAgent,
    Command,
    Intercept,
    Interrupt,
    Publish,
    TakeComm,
    Tap,
    ToChild,
    ToFront,
    error_answer,
    split_cell,
)
from rtc_kernel.wire import DELIMITER, Codec, new_header

CODEC = Codec(b"key")


class Transcript:
    """An intercept, fed with messages by name; what it commands, in short words."""

    def __init__(self, **options: Any) -> None:
        settings: dict[str, Any] = {"magics": True, "take_interrupt": True, "magic_timeout_s": 10.0, **options}
        self.room = Intercept(CODEC, **settings)
        self.room.receive_session({"session": "child", "username": "kernel"}, 0.0)
        self.headers: dict[str, dict[str, Any]] = {}

    def front(
        self, name: str, msg_type: str = "execute_request", channel: Channel = Channel.SHELL, **content: Any
    ) -> list[str]:
        header = new_header(msg_type, session="front", username="ana") | {"msg_id": name} | content.pop("header", {})
        self.headers[name] = header
        frames = CODEC.write(header, content, idents=[b"front-id"])
        passes = self.room.passes(channel, frames)
        commands = self.room.receive_front(channel, frames, 0.0, sent=passes)
        return self.words([ToChild(channel, frames), *commands] if passes else commands)

    def child(self, name: str, msg_type: str = "execute_reply", **content: Any) -> list[str]:
        header = new_header(msg_type, session="child", username="kernel")
        frames = CODEC.write(header, {"status": "ok", **content}, parent=self.headers[name], idents=[b"front-id"])
        return self.words([ToFront(Channel.SHELL, frames), *self.room.receive_child(Channel.SHELL, frames, 0.0)])

    def answer(self, ask_id: int, **info: Any) -> list[str]:
        return self.words(self.room.receive_answer(ask_id, {"status": "ok", "outputs": [], **info}, 0.0))

    def idle(self, msg_id: str, now: float = 0.0) -> list[str]:
        """The child's idle behind this request has passed."""
        return self.words(self.room.receive_idle(msg_id, now))

    def words(self, commands: list[Command]) -> list[str]:
        return [word for command in commands if (word := self.word(command))]

    def word(self, command: Command) -> str:
        match command:
            case ToChild(_, frames):
                message = CODEC.read(frames)
                return f"child {message.id}" + (f" {message.content['code']!r}" if message.content.get("code") else "")
            case ToFront(_, frames):
                message = CODEC.read(frames)
                assert message.idents == (b"front-id",)
                return f"front {message.parent_id} {message.type} {message.content.get('status')}"
            case Publish(frames):
                message = CODEC.read(frames)
                assert message.session == "child", "JupyterLab drops kernel messages when the session changes"
                state = (
                    message.content.get("execution_state") or message.content.get("text") or message.content.get("code")
                )
                return f"iopub {message.parent_id} {message.type}" + (f" {state}" if state else "")
            case Tap():
                return ""
            case AskAgent(ask_id, info, _):
                return f"ask {ask_id} {info['kind']} {info.get('lines', '')}".rstrip()
            case TakeComm(frames):
                return f"comm {CODEC.read(frames).id}"
            case Interrupt():
                return "interrupt"
        raise AssertionError(command)


@pytest.mark.parametrize(
    ("code", "lines", "rest"),
    [
        ("print(1)", [], "print(1)"),
        ("%rtc", ["%rtc"], ""),
        ("%rtc?", ["%rtc?"], ""),
        ("?%rtc", ["?%rtc"], ""),
        ("\n  %rtc share --role run  \n", ["%rtc share --role run"], ""),
        ("%rtc who\n\n%rtc status\nx = 1\n%rtc no", ["%rtc who", "%rtc status"], "\n\n\nx = 1\n%rtc no"),
        ("%rtcx", [], "%rtcx"),
        ("x = 1\n%rtc", [], "x = 1\n%rtc"),
        ("", [], ""),
    ],
)
def test_a_cell_is_its_rtc_lines_and_a_rest_with_its_line_numbers_kept(code: str, lines: list[str], rest: str) -> None:
    assert split_cell(code) == (lines, rest)


def test_lines_taken_away_become_comments_where_the_language_is_known_and_no_cell_magic_follows() -> None:
    """IPython drops empty lines at the top of a cell, and wants a cell magic to be the first line."""
    assert split_cell("%rtc\n\n1/0", "#") == (["%rtc"], "#\n\n1/0")
    assert split_cell("%rtc\n%%time\n1/0", "#") == (["%rtc"], "\n%%time\n1/0")


@given(st.text(alphabet="%rtc \n\tx?"))
def test_the_rest_of_any_cell_keeps_its_line_numbers(code: str) -> None:
    lines, rest = split_cell(code)
    if rest:
        assert rest.count("\n") == code.count("\n")
        kept = [(a, b) for a, b in zip(code.split("\n"), rest.split("\n"), strict=True) if a != b]
        assert all(b == "" and (not a.strip() or "%rtc" in a) for a, b in kept)
    if not lines:
        assert rest == (code if code.strip() else "")


def test_an_ordinary_request_and_its_reply_pass_as_the_same_frames() -> None:
    room = Transcript().room
    frames = CODEC.write(new_header("execute_request", session="f", username=""), {"code": "1"}, idents=[b"i"])
    to_child, tap = room.receive_front(Channel.SHELL, frames, 0.0)
    assert isinstance(to_child, ToChild)
    assert to_child.frames is frames
    assert tap == Tap(Channel.SHELL, Way.TO_CHILD, frames)
    assert room.passes(Channel.SHELL, frames), "so it is sent before it is looked at"
    assert room.receive_front(Channel.SHELL, frames, 0.0, sent=True) == [tap]
    assert room.receive_child(Channel.SHELL, frames, 0.0) == [Tap(Channel.SHELL, Way.TO_FRONT, frames)]


@given(st.lists(st.binary(max_size=20), max_size=8), st.sampled_from([Channel.SHELL, Channel.CONTROL]))
def test_any_frames_go_on_to_the_child(frames: list[bytes], channel: Channel) -> None:
    """What a bare kernel would get and drop, ours gets and drops."""
    room = Transcript().room
    passes = room.passes(channel, frames)
    commands = room.receive_front(channel, frames, 0.0, sent=passes)
    assert (ToChild(channel, frames) in commands) is not passes


def test_a_magic_on_a_free_kernel_is_asked_at_once_and_answered_as_by_a_kernel() -> None:
    t = Transcript()
    assert t.front("m", code="%rtc who") == [
        "iopub m status busy",
        "iopub m execute_input %rtc who",
        "ask 1 execute ['%rtc who']",
    ]
    assert t.answer(1, outputs=[["stream", {"name": "stdout", "text": "nobody"}]]) == [
        "iopub m stream nobody",
        "front m execute_reply ok",
        "iopub m status idle",
    ]


def test_a_magic_waits_for_the_cells_before_it_and_holds_those_behind_it() -> None:
    t = Transcript()
    assert t.front("a", code="slow()") == ["child a 'slow()'"]
    assert t.front("m", code="%rtc who") == []
    assert t.front("b", code="after()") == []
    assert t.front("c", "complete_request", code="aft", cursor_pos=3) == []
    assert t.child("a") == ["front a execute_reply ok"]
    assert t.idle("a") == ["iopub m status busy", "iopub m execute_input %rtc who", "ask 1 execute ['%rtc who']"]
    assert t.answer(1)[-2:] == ["child b 'after()'", "child c 'aft'"]


def test_the_rest_of_a_magic_cell_runs_with_its_line_numbers_and_the_child_answers() -> None:
    t = Transcript()
    assert t.front("m", code="%rtc private\nx = 1") == ["iopub m status busy", "ask 1 execute ['%rtc private']"]
    assert t.front("b", code="after()") == []
    assert t.answer(1) == ["child m '\\nx = 1'", "child b 'after()'"]
    assert t.child("m") == ["front m execute_reply ok"]


def test_a_failed_magic_fails_its_cell_and_aborts_what_was_held() -> None:
    t = Transcript()
    t.front("m", code="%rtc wat\nx = 1")
    t.front("b", code="after()")
    t.front("c", "complete_request", code="a", cursor_pos=1)
    assert t.answer(1, **error_answer("UsageError", "no such command")) == [
        "iopub m error",
        "front m execute_reply error",
        "iopub m status idle",
        "iopub b status busy",
        "front b execute_reply aborted",
        "iopub b status idle",
        "child c 'a'",
    ]


def test_a_failed_magic_without_stop_on_error_lets_the_next_run() -> None:
    t = Transcript()
    t.front("m", code="%rtc wat", stop_on_error=False)
    t.front("b", code="after()")
    assert t.answer(1, **error_answer("UsageError", "x"))[-1] == "child b 'after()'"


def test_a_cell_that_fails_aborts_the_magic_that_waits_behind_it() -> None:
    t = Transcript()
    t.front("a", code="1/0")
    t.front("m", code="%rtc who")
    t.front("b", code="after()")
    assert t.child("a", status="error") == ["front a execute_reply error"]
    assert t.idle("a") == [
        "iopub m status busy",
        "front m execute_reply aborted",
        "iopub m status idle",
        "iopub b status busy",
        "front b execute_reply aborted",
        "iopub b status idle",
    ]


def test_a_cell_that_may_fail_does_not_abort_the_magic() -> None:
    t = Transcript()
    t.front("a", code="1/0", stop_on_error=False)
    t.front("m", code="%rtc who")
    assert t.child("a", status="error") == ["front a execute_reply error"]
    assert "ask 1 execute ['%rtc who']" in t.idle("a")


def test_a_magic_comes_behind_the_idle_of_the_cell_before_it_and_waits_for_it_only_so_long() -> None:
    for late in (False, True):
        t = Transcript()
        t.front("a", code="1")
        t.front("m", code="%rtc who")
        if late:
            assert t.idle("a") == []
            assert "ask 1 execute ['%rtc who']" in t.child("a")
        else:
            t.child("a")
            assert t.room.deadline == REPLY_GRACE_S
            assert t.words(t.room.receive_time(REPLY_GRACE_S - 0.1)) == []
            assert "ask 1 execute ['%rtc who']" in t.words(t.room.receive_time(REPLY_GRACE_S))
            assert t.idle("a") == []


def test_an_agent_that_does_not_answer_costs_one_line_and_nothing_more() -> None:
    t = Transcript(magic_timeout_s=3.0)
    t.front("m", code="%rtc who", stop_on_error=False)
    t.front("b", code="after()")
    assert t.room.deadline == 3.0
    assert t.words(t.room.receive_time(2.9)) == []
    assert t.words(t.room.receive_time(3.0)) == [
        "iopub m error",
        "front m execute_reply error",
        "iopub m status idle",
        "child b 'after()'",
    ]
    assert t.answer(1) == [], "an answer that comes too late is dropped"


def test_a_request_that_the_child_never_answers_does_not_hold_a_magic_for_ever() -> None:
    """ipykernel logs a request without code and sends no reply, only idle."""
    t = Transcript()
    t.front("bad")
    t.front("m", code="%rtc who")
    t.room.receive_idle("bad", 5.0)
    assert t.words(t.room.receive_time(5.0 + REPLY_GRACE_S - 0.1)) == []
    assert "ask 1 execute ['%rtc who']" in t.words(t.room.receive_time(5.0 + REPLY_GRACE_S))


def test_a_request_with_a_bad_signature_holds_nothing() -> None:
    t = Transcript()
    frames = Codec(b"other").write(new_header("execute_request", session="f", username=""), {"code": "1"})
    assert t.room.receive_front(Channel.SHELL, frames, 0.0)[0] == ToChild(Channel.SHELL, frames)
    assert "ask 1 execute ['%rtc who']" in t.front("m", code="%rtc who")


def test_a_magic_with_a_bad_signature_is_not_ours_to_answer() -> None:
    t = Transcript()
    frames = Codec(b"other").write(new_header("execute_request", session="f", username=""), {"code": "%rtc share"})
    assert t.room.receive_front(Channel.SHELL, frames, 0.0)[0] == ToChild(Channel.SHELL, frames)


def test_kernel_info_and_subshells_are_not_held() -> None:
    t = Transcript()
    t.front("m", code="%rtc who")
    assert t.front("k", "kernel_info_request") == ["child k"]
    assert t.front("s", code="1", header={"subshell_id": "s1"}) == ["child s '1'"]


def test_kernel_info_is_answered_for_the_child_while_its_main_shell_is_busy_and_passes_while_it_is_not() -> None:
    t = Transcript()
    t.front("a", code="slow()")
    assert t.front("k", "kernel_info_request") == ["child k"], "nothing is known yet"
    assert t.child("k", "kernel_info_reply", banner="é") == ["front k kernel_info_reply ok"]
    assert t.front("l", "kernel_info_request") == [
        "iopub l status busy",
        "front l kernel_info_reply ok",
        "iopub l status idle",
        "iopub a status busy",
    ]
    t.child("a")
    assert t.front("m", "kernel_info_request") == ["child m"]


def test_the_answer_about_the_child_is_what_it_said_last_and_the_mirror_hears_nothing_of_it() -> None:
    t = Transcript()
    for banner in ("old", "new"):
        t.front(banner, "kernel_info_request")
        t.child(banner, "kernel_info_reply", banner=banner)
    t.front("a", code="slow()")
    header = new_header("kernel_info_request", session="front", username="ana")
    frames = CODEC.write(header, {}, idents=[b"one", b"two"])
    assert not t.room.passes(Channel.SHELL, frames)
    commands = t.room.receive_front(Channel.SHELL, frames, 0.0)
    (reply,) = [CODEC.read(command.frames) for command in commands if isinstance(command, ToFront)]
    assert reply.content == {"status": "ok", "banner": "new"}
    assert (reply.session, reply.parent, reply.idents) == ("child", header, (b"one", b"two"))
    assert not any(isinstance(command, Tap) for command in commands), "it would be taken for the child's"


def test_kernel_info_of_a_subshell_of_the_agent_and_badly_signed_is_the_childs() -> None:
    t = Transcript()
    t.front("k", "kernel_info_request")
    t.child("k", "kernel_info_reply")
    t.front("a", code="slow()")
    assert t.front("s", "kernel_info_request", header={"subshell_id": "s1"}) == ["child s"]
    assert t.front("c", "kernel_info_request", channel=Channel.CONTROL) == ["child c"]
    header = new_header("kernel_info_request", session="rtc", username="rtc")
    for codec, idents in ((CODEC, [AGENT_IDENT]), (Codec(b"other"), [b"front-id"])):
        frames = codec.write(header, {}, idents=idents)
        assert ToChild(Channel.SHELL, frames) in t.room.receive_front(Channel.SHELL, frames, 0.0)


def test_what_a_child_said_of_itself_is_forgotten_with_it() -> None:
    t = Transcript()
    t.front("k", "kernel_info_request")
    t.child("k", "kernel_info_reply")
    t.room.receive_exit()
    t.room.receive_session({"session": "child"}, 0.0)
    t.front("a", code="slow()")
    assert t.front("l", "kernel_info_request") == ["child l"]


def test_a_silent_magic_shows_nothing() -> None:
    t = Transcript()
    assert t.front("m", code="%rtc who", silent=True) == ["iopub m status busy", "ask 1 execute ['%rtc who']"]
    assert t.answer(1, outputs=[["stream", {"text": "x"}]]) == ["front m execute_reply ok", "iopub m status idle"]


def test_without_magics_rtc_lines_are_code() -> None:
    t = Transcript(magics=False)
    assert t.front("m", code="%rtc who") == ["child m '%rtc who'"]


def test_completion_on_a_magic_line_is_answered_beside_the_order() -> None:
    t = Transcript()
    t.front("a", code="slow()")
    assert t.front("c", "complete_request", code="%rtc sh\nx", cursor_pos=7) == ["ask 1 complete"]
    words = t.answer(1, reply={"status": "ok", "matches": ["share"], "cursor_start": 5, "cursor_end": 7})
    assert words == ["iopub c status busy", "front c complete_reply ok", "iopub c status idle", "iopub a status busy"]


def test_completion_behind_the_magic_lines_is_the_childs() -> None:
    t = Transcript()
    assert t.front("c", "complete_request", code="%rtc who\nx", cursor_pos=10) == ["child c '%rtc who\\nx'"]


def test_is_complete_knows_magic_lines() -> None:
    t = Transcript()
    assert t.front("i", "is_complete_request", code="%rtc who")[1] == "front i is_complete_reply complete"
    assert t.front("j", "is_complete_request", code="%rtc who\nfor x in y:") == ["child j '\\nfor x in y:'"]


def test_an_interrupt_request_interrupts_by_signal_and_is_answered() -> None:
    t = Transcript()
    assert t.front("i", "interrupt_request", Channel.CONTROL) == [
        "interrupt",
        "iopub i status busy",
        "front i interrupt_reply ok",
        "iopub i status idle",
    ]
    assert Transcript(take_interrupt=False).front("i", "interrupt_request", Channel.CONTROL) == ["child i"]


@pytest.mark.parametrize(
    ("topic", "taken"),
    [(b"kernel.16bb3aad-6f44-4852-85c6-db88889df71b.status", True), (b"kernel_core.d5e2.status", False), (b"", False)],
)
def test_an_interrupt_request_is_left_to_a_kernel_that_is_none_of_ipykernels(topic: bytes, taken: bool) -> None:
    t = Transcript()
    t.room.receive_status_topic(b"rtc.status")  # our own: says nothing
    t.room.receive_status_topic(topic)
    words = t.front("i", "interrupt_request", Channel.CONTROL)
    assert words[0] == ("interrupt" if taken else "child i")


def test_a_reply_without_the_clients_address_gets_it_back() -> None:
    """Deno 2.9 answers the connection, which is ours, and leaves away whom we were asked by."""
    t = Transcript()
    requests = {"a": Channel.SHELL, "b": Channel.CONTROL, "c": Channel.SHELL}
    for name, channel in requests.items():
        t.front(name, "kernel_info_request", channel)
    asked = CODEC.write(new_header("input_request", session="child", username=""), {}, parent=t.headers["c"])
    for _ in range(2):  # an execution may ask more than once
        assert t.room.address(Channel.STDIN, asked) == [b"front-id", *asked]
    for name, channel in requests.items():
        bare = CODEC.write(new_header("reply", session="child", username=""), {}, parent=t.headers[name])
        assert t.room.address(channel, bare) == [b"front-id", *bare]
        assert t.room.address(channel, bare) == bare, "it is answered once"
    assert t.room.address(Channel.SHELL, [DELIMITER, b"x"]) == [DELIMITER, b"x"]


def test_of_a_child_that_says_whom_it_answers_nothing_is_kept_in_mind() -> None:
    t = Transcript()
    t.front("a")
    frames = CODEC.write(new_header("reply", session="child", username=""), {}, parent=t.headers["a"], idents=[b"i"])
    assert t.room.address(Channel.SHELL, frames) == frames
    t.front("b")
    bare = CODEC.write(new_header("reply", session="child", username=""), {}, parent=t.headers["b"])
    assert t.room.address(Channel.SHELL, bare) == bare


def test_who_has_sent_is_kept_in_mind_of_a_bounded_number_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intercept, "ENVELOPES_COUNT", 3)
    t = Transcript()
    for name in "abcd":
        t.front(name)
    bare = {n: CODEC.write(new_header("reply", session="c", username=""), {}, parent=t.headers[n]) for n in "abcd"}
    assert [len(t.room.address(Channel.SHELL, bare[name])) - len(bare[name]) for name in "abcd"] == [0, 1, 1, 1]


def test_our_comm_is_taken_whatever_its_subshell_and_others_pass() -> None:
    t = Transcript()
    header = {"subshell_id": "s1"}
    words = t.front("o", "comm_open", comm_id="c1", target_name="rtc.sync.v1", data={}, header=header)
    assert words == ["iopub o status busy", "comm o", "iopub o status idle"]
    assert t.front("x", "comm_open", comm_id="c2", target_name="jupyter.widget", data={}) == ["child x"]
    assert "comm p" in t.front("p", "comm_msg", comm_id="c1", data={})
    assert t.front("q", "comm_msg", comm_id="c2", data={}) == ["child q"]
    assert "comm r" in t.front("r", "comm_close", comm_id="c1", data={})
    assert t.front("s", "comm_msg", comm_id="c1", data={}) == ["child s"]


def test_a_comm_message_while_a_cell_runs_leaves_the_indicator_busy() -> None:
    t = Transcript()
    t.front("a", code="slow()")
    words = t.front("o", "comm_open", comm_id="c1", target_name="rtc.sync.v1", data={})
    assert words == ["iopub o status busy", "comm o", "iopub o status idle", "iopub a status busy"]


def test_a_new_agent_closes_the_comms_of_the_old_one() -> None:
    t = Transcript()
    t.front("o", "comm_open", comm_id="c1", target_name="rtc.sync.v1", data={})
    assert t.words(t.room.receive_comms_lost()) == ["iopub  comm_close"]
    assert t.room.comms == set()


def test_before_the_child_has_spoken_a_magic_waits() -> None:
    room = Intercept(CODEC, magics=True, take_interrupt=True, magic_timeout_s=1.0)
    frames = CODEC.write(new_header("execute_request", session="f", username=""), {"code": "%rtc"})
    assert room.receive_front(Channel.SHELL, frames, 0.0) == [Tap(Channel.SHELL, Way.TO_CHILD, frames)]
    commands = room.receive_session({"session": "child"}, 0.0)
    assert any(isinstance(command, AskAgent) for command in commands)


def test_a_restart_is_told_to_everybody_and_the_child_is_asked_to_go() -> None:
    room = Transcript().room
    told, asked = room.receive_restart()
    assert isinstance(told, Publish)
    assert isinstance(asked, ToChild)
    state, request = CODEC.read(told.frames), CODEC.read(asked.frames)
    assert (state.type, state.parent, state.session) == ("status", {}, "child")
    assert state.content == {"execution_state": "restarting"}
    assert asked.channel is Channel.CONTROL
    assert (request.type, request.content, request.idents) == ("shutdown_request", {"restart": True}, (AGENT_IDENT,))


def test_what_a_child_that_is_replaced_has_not_answered_is_aborted_in_order() -> None:
    t = Transcript()
    t.front("done", code="1")
    t.child("done")
    t.front("a", code="slow()")
    t.front("b", code="after()")
    t.front("m", code="%rtc who")
    t.front("c", "complete_request", code="aft", cursor_pos=3)
    t.front("d", code="last()")
    assert t.words(t.room.receive_exit()) == [
        word
        for name in ("a", "b", "m", "d")
        for word in (f"iopub {name} status busy", f"front {name} execute_reply aborted", f"iopub {name} status idle")
    ]
    assert t.words(t.room.receive_exit()) == [], "once"
    assert not t.room.holding
    assert t.room.deadline is None


def test_a_magic_that_is_asked_when_the_child_is_replaced_is_aborted_with_what_is_behind_it() -> None:
    t = Transcript()
    t.front("m", code="%rtc who")
    t.front("b", code="after()")
    words = t.words(t.room.receive_exit())
    assert [word for word in words if word.startswith("front")] == [
        "front m execute_reply aborted",
        "front b execute_reply aborted",
    ]
    assert t.answer(1) == []


def test_a_completion_that_is_asked_when_the_child_is_replaced_is_answered_with_nothing() -> None:
    t = Transcript()
    t.front("c", "complete_request", code="%rtc sh", cursor_pos=7)
    assert "front c complete_reply ok" in t.words(t.room.receive_exit())
    assert t.answer(1) == []


def test_the_next_child_speaks_with_its_own_session_and_our_comms_stay_open() -> None:
    t = Transcript()
    t.front("o", "comm_open", comm_id="c1", target_name="rtc.sync.v1", data={})
    t.room.execution_count = 7
    t.room.receive_exit()
    assert t.room.session == ""
    assert t.room.execution_count == 0
    assert t.front("m", code="%rtc who") == [], "nobody can be answered before it has spoken"
    commands = t.room.receive_session({"session": "next"}, 0.0)
    assert any(isinstance(command, AskAgent) for command in commands)
    assert {CODEC.read(command.frames).session for command in commands if isinstance(command, Publish)} == {"next"}
    assert t.room.comms == {"c1"}


def test_without_magics_what_is_not_answered_is_known_and_without_an_agent_it_is_not() -> None:
    t = Transcript(magics=False)
    t.front("a", code="%rtc who")
    assert "front a execute_reply aborted" in t.words(t.room.receive_exit())
    t = Transcript(agent=False)
    t.front("a", code="%rtc who")
    assert t.room.receive_exit() == []


@given(st.lists(st.sampled_from(["code", "magic", "both", "reply", "error", "answer", "refuse", "exit"]), max_size=30))
def test_whatever_happens_each_request_is_answered_once_and_in_order(steps: list[str]) -> None:
    """The order in which requests are answered is the order in which they came."""
    t = Transcript()
    names, at_child, asked, answered = itertools.count(), [], [], []
    codes = {"code": "x", "magic": "%rtc", "both": "%rtc\nx"}
    sent: list[str] = []

    def note(words: list[str]) -> None:
        for word in words:
            kind, *rest = word.split()
            if kind == "child":
                at_child.append(rest[0])
            elif kind == "ask":
                asked.append(int(rest[0]))
            elif kind == "front":
                answered.append(rest[0])

    for step in [*steps, *["answer", "reply"] * 40]:
        if step in codes:
            name = f"r{next(names)}"
            sent.append(name)
            note(t.front(name, code=codes[step]))
        elif step == "exit":
            note(t.words(t.room.receive_exit()))
            at_child.clear()
            t.room.receive_session({"session": "child"}, 0.0)
        elif step in ("reply", "error") and at_child:
            ran = at_child.pop(0)
            note(t.child(ran, status="ok" if step == "reply" else "error"))
            note(t.idle(ran))
        elif step in ("answer", "refuse") and asked:
            ask = asked.pop(0)
            note(t.answer(ask) if step == "answer" else t.answer(ask, **error_answer("E", "m")))
    assert answered == sent
    assert not t.room.holding
