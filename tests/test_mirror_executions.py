"""The life of a row, from request to end."""

from __future__ import annotations

import pytest
from mirrored import (
    Mirrored,
    begun,
    error,
    front,
    header,
    iopub,
    question,
    reply,
    request,
    status,
    stream,
    whole,
)

from rtc_kernel.agent.mirror.executions import (
    COLUMN_BYTES,
    ENDED_KEPT,
    MARKS_KEPT,
    NAMES_KEPT,
    REPLY_S,
    is_private,
    notebook_of,
)
from rtc_kernel.link import Channel, Way
from rtc_kernel.tables import ExecutionState as State
from rtc_kernel.tables import PutExecution, PutKernel
from rtc_kernel.wire import Message


def test_a_request_makes_a_queued_row_with_what_it_says() -> None:
    m = Mirrored()
    m.feed(request("a", "x = 1", metadata={"cellId": "c1", "rtc_request": "r1"}))
    row = m.row("a")
    assert (row.seq, row.kernel, row.cell, row.notebook) == (1, "k", "c1", "own.ipynb")
    assert (row.code, row.request, row.submitted_by, row.client) == ("x = 1", "r1", "ada", "client")
    assert (row.state, row.queued_at, row.started_at) == (State.QUEUED, 1.0, None)


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ("vscode-notebook-cell:/home/ada/my%20nb.ipynb#W0sZmlsZQ%3D%3D", "/home/ada/my nb.ipynb"),
        ("vscode-notebook-cell://ssh-remote%2Bbox/home/nb.ipynb#X1", "/home/nb.ipynb"),
        ("vscode-notebook-cell:", None),
        ("8d1a7f0e", None),
    ],
)
def test_a_vs_code_cell_names_its_notebook(cell: str, path: str | None) -> None:
    assert notebook_of(cell) == path
    m = Mirrored()
    m.feed(request("a", metadata={"cellId": cell}))
    assert (m.row("a").cell, m.row("a").notebook) == (cell, path or "own.ipynb")


def test_a_kernel_that_was_started_for_no_notebook_is_of_the_one_that_its_cells_name() -> None:
    m = Mirrored(notebook=None)
    m.feed(request("a", metadata={"cellId": "8d1a7f0e"}))
    assert m.row("a").notebook is None
    m.feed(request("b", metadata={"cellId": "vscode-notebook-cell:Untitled-1.ipynb#W0"}))
    m.crash()
    m.feed(request("c"))
    assert (m.kernel.notebook, m.row("c").notebook) == ("Untitled-1.ipynb", "Untitled-1.ipynb")
    told = m.feed(request("d", metadata={"cellId": "vscode-notebook-cell:/home/saved.ipynb#W0"}))
    assert PutKernel("k", {"notebook": "/home/saved.ipynb"}) in told
    told = m.feed(request("e", metadata={"cellId": "vscode-notebook-cell:/home/saved.ipynb#W1"}), request("f"))
    assert not [change for change in told if isinstance(change, PutKernel) and "notebook" in change.columns]
    m.feed(request("g", metadata={"cellId": "vscode-notebook-cell:/other.ipynb#W0", "rtc_request": "of-a-row"}))
    assert (m.kernel.notebook, m.row("f").notebook) == ("/home/saved.ipynb", "/home/saved.ipynb")
    given = Mirrored().feed(request("a", metadata={"cellId": "vscode-notebook-cell:/other.ipynb#W0"}))
    assert not [change for change in given if isinstance(change, PutKernel)], "what the server says stands"


def test_running_begins_with_execute_input_and_the_end_needs_reply_and_idle() -> None:
    m = Mirrored()
    m.feed(request("a"), status("a", "busy"))
    assert m.row("a").state is State.QUEUED
    m.feed(begun("a", 7))
    assert (m.row("a").state, m.row("a").started_at, m.row("a").execution_count) == (State.RUNNING, 3.0, 7)
    m.feed(reply("a", execution_count=7))
    assert m.row("a").state is State.RUNNING
    m.feed(stream("a", "late"), status("a", "idle"))
    assert (m.row("a").state, m.row("a").finished_at, m.texts("a")) == (State.OK, 6.0, ["late"])


def test_idle_may_come_before_the_reply() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), status("a", "idle"))
    assert m.row("a").state is State.RUNNING
    last = m.feed(reply("a", execution_count=2))
    assert m.row("a").state is State.OK
    assert m.row("a").execution_count == 2, "the reply has the last word on the count"
    assert last[-1] == PutExecution("a", {"finished_at": 4.0, "state": State.OK})


def test_the_end_state_is_the_last_change_of_the_row() -> None:
    m = Mirrored()
    m.feed(*whole("a", stream("a", "x"), error("a")))
    assert m.changes[-2:] != []
    rows = [change for change in m.changes if getattr(change, "execution", None) == "a"]
    assert isinstance(rows[-1], PutExecution)
    assert rows[-1].columns["state"] is State.OK


def test_an_error_reply_ends_in_error_and_says_which() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), error("a", "KeyError", "'x'"))
    m.feed(reply("a", "error", ename="KeyError", evalue="'x'"), status("a", "idle"))
    assert (m.row("a").state, m.row("a").error) == (State.ERROR, {"ename": "KeyError", "evalue": "'x'"})


def test_an_error_in_the_row_is_short() -> None:
    m = Mirrored()
    m.feed(request("a"), reply("a", "error", ename="E", evalue="v" * 10**6), status("a", "idle"))
    assert m.row("a").error == {"ename": "E", "evalue": "v" * COLUMN_BYTES}


@pytest.mark.parametrize("word", ["aborted", "abort"])
def test_an_aborted_request_is_never_running(word: str) -> None:
    m = Mirrored()
    m.feed(request("a"), status("a", "busy"), reply("a", word), status("a", "idle"))
    row = m.row("a")
    assert (row.state, row.started_at, row.execution_count) == (State.ABORTED, None, None)


def test_a_refused_request_goes_from_queued_to_error() -> None:
    """ipykernel answers an unknown subshell with busy, an error reply and idle."""
    m = Mirrored()
    m.feed(request("a", subshell_id="gone"), reply("a", "error", ename="E", evalue="no subshell"), status("a", "idle"))
    assert (m.row("a").state, m.row("a").started_at) == (State.ERROR, None)


def test_a_kernel_without_execute_input_runs_from_its_first_output() -> None:
    m = Mirrored()
    m.feed(request("a"), stream("a", "x"))
    assert (m.row("a").state, m.row("a").started_at) == (State.RUNNING, 2.0)


def test_a_silent_request_leaves_no_trace() -> None:
    m = Mirrored()
    steps = request("s", "secret", content={"silent": True}), status("s", "busy"), stream("s", "x")
    m.feed(*steps, begun("s"), reply("s"), status("s", "idle"), stream("s", "later"))
    assert m.rows.executions == {}


def test_the_same_request_twice_is_one_row() -> None:
    m = Mirrored()
    m.feed(request("a", "1"))
    assert m.feed(request("a", "2")) == []


def test_code_is_kept_without_what_utf8_cannot_hold() -> None:
    m = Mirrored()
    m.feed(request("a", "x = '\ud800\0é'"))
    assert m.row("a").code == "x = '\ufffd\ufffdé'"


def test_a_request_without_an_id_is_ignored() -> None:
    m = Mirrored()
    assert m.feed(request("")) == []


def test_only_the_last_silent_requests_are_remembered() -> None:
    m = Mirrored()
    m.feed(*(request(f"s{i}", content={"silent": True}) for i in range(MARKS_KEPT + 1)))
    assert len(m.mirror.state()["executions"]["silent"]) == MARKS_KEPT


def test_it_is_known_whether_an_earlier_run_is_open() -> None:
    m = Mirrored()
    m.feed(request("a"), request("b"))
    assert m.mirror.open_before("b")
    assert m.mirror.open_before("unknown")
    assert not m.mirror.open_before("a")


# --- names that clients say of themselves


def named(m: Mirrored, session: str, name: str) -> None:
    m.took(m.mirror.receive_name(session, name))


def test_a_session_without_a_username_has_the_name_it_was_introduced_as() -> None:
    m = Mirrored()
    m.feed(*whole("early"), request("before", username=""), request("other", username="", session="elsewhere"))
    named(m, "client", "Ada")
    m.feed(request("after", username="username"), request("own", username="eve"))
    assert [m.row(one).submitted_by for one in ("early", "before", "other")] == ["ada", "Ada", ""]
    assert [m.row(one).submitted_by for one in ("after", "own")] == ["Ada", "eve"]
    m.crash()
    assert m.mirror.name_of("client") == "Ada"
    m.feed(iopub("execute_input", header("execute_request", "bypass", username=""), {"code": "1"}))
    assert m.row("bypass").submitted_by == "Ada"
    named(m, "client", "")
    m.feed(request("last", username=""))
    assert m.row("last").submitted_by == ""


def test_a_row_of_requests_has_the_name_of_its_link_whatever_its_session_was_introduced_as() -> None:
    m = Mirrored()
    named(m, "client", "Ada")
    m.feed(request("r", username="", metadata={"rtc_request": "r1"}))
    named(m, "client", "Eve")
    assert m.row("r").submitted_by == ""


def test_the_names_that_are_remembered_are_those_that_were_used_last() -> None:
    m = Mirrored()
    named(m, "first", "Ada")
    named(m, "second", "Bob")
    for n in range(NAMES_KEPT - 2):
        named(m, f"s{n}", "x")
    m.feed(request("a", username="", session="first"))
    named(m, "one more", "x")
    assert [m.mirror.name_of(session) for session in ("first", "second", "one more")] == ["Ada", "", "x"]
    assert len(m.mirror.state()["executions"]["names"]) == NAMES_KEPT
    for n in range(MARKS_KEPT + 1):
        m.feed(request(f"r{n}", username="", session="late"))
    named(m, "late", "Cy")
    assert [m.row(f"r{n}").submitted_by for n in (0, 1, MARKS_KEPT)] == ["", "Cy", "Cy"]


# --- clients that bypass the relay


def test_an_unseen_request_begins_with_execute_input_and_ends_with_idle() -> None:
    m = Mirrored()
    parent = header("execute_request", "b", username="bob", session="elsewhere")
    m.feed(iopub("execute_input", parent, {"code": "1+1", "execution_count": 4}))
    row = m.row("b")
    assert (row.state, row.code, row.execution_count, row.submitted_by) == (State.RUNNING, "1+1", 4, "bob")
    assert (row.queued_at, row.started_at, row.notebook) == (None, 1.0, "own.ipynb")
    m.feed(stream("b", "x"), status("b", "idle"))
    assert m.row("b").state is State.OK


def test_an_unseen_request_with_an_error_output_ends_in_error() -> None:
    m = Mirrored()
    m.feed(begun("b"), error("b", "OSError", "5"), status("b", "idle"))
    assert (m.row("b").state, m.row("b").error) == (State.ERROR, {"ename": "OSError", "evalue": "5"})


def test_attached_in_the_middle_an_output_begins_the_row() -> None:
    m = Mirrored()
    m.feed(stream("b", "x"))
    assert (m.row("b").state, m.texts("b")) == (State.RUNNING, ["x"])


def test_an_output_of_no_execution_is_ignored() -> None:
    m = Mirrored()
    assert (
        m.feed(stream({}, "x"), stream(header("comm_msg", "m"), "y"), stream(header("execute_request", ""), "z")) == []
    )


def test_a_request_that_is_seen_after_its_first_output_fills_the_row() -> None:
    m = Mirrored()
    m.feed(begun("a", 3), request("a", "code", metadata={"cellId": "c"}), status("a", "idle"))
    assert (m.row("a").code, m.row("a").cell, m.row("a").state) == ("code", "c", State.RUNNING)
    m.feed(reply("a"))
    assert m.row("a").state is State.OK


def test_an_output_of_a_forgotten_row_does_not_begin_it_anew() -> None:
    """A thread of an execution that ended long ago prints again: its row stands."""
    m = Mirrored()
    for i in range(ENDED_KEPT + 1):
        m.feed(*whole(f"x{i}"))
    before = m.row("x0")
    assert m.feed(stream("x0", "boo")) == []
    assert m.row("x0") == before


def test_a_row_that_keeps_printing_is_not_forgotten() -> None:
    m = Mirrored()
    m.feed(*whole("thread"))
    for i in range(ENDED_KEPT + 10):
        m.feed(*whole(f"x{i}"), stream("thread", "."))
    assert m.texts("thread") == ["." * (ENDED_KEPT + 10)]


# --- private


@pytest.mark.parametrize("code", ["%rtc private\nx", "\n \n  %rtc   private  \nx", "%rtc private", "%rtc private\r\nx"])
def test_the_private_line_is_known(code: str) -> None:
    assert is_private(code)


@pytest.mark.parametrize("code", ["x\n%rtc private", "%rtc privately", "%rtc share", "", "# %rtc private"])
def test_other_code_is_not_private(code: str) -> None:
    assert not is_private(code)


def test_a_private_row_has_neither_code_nor_outputs_nor_error() -> None:
    m = Mirrored()
    m.feed(
        request("p", "%rtc private\nsecret"), begun("p", 5, "secret"), stream("p", "secret"), question("p", "secret")
    )
    m.feed(error("p", "secret"), reply("p", "error", ename="secret", evalue="secret"), status("p", "idle"))
    row = m.row("p")
    assert "secret" not in repr(m.rows)
    assert (row.private, row.code, row.outputs, row.error, row.input) == (True, "", (), None, None)
    assert (row.state, row.execution_count, row.finished_at is not None) == (State.ERROR, 5, True)


def test_a_private_execution_changes_no_display_and_opens_no_comm() -> None:
    m = Mirrored()
    shown = {"data": {"text/plain": "secret"}, "transient": {"display_id": "d"}}
    m.feed(*whole("a", iopub("display_data", "a", shown | {"data": {"text/plain": "open"}})))
    m.feed(request("p", "%rtc private"), begun("p"), iopub("update_display_data", "p", shown))
    m.feed(iopub("comm_open", "p", {"comm_id": "w", "target_name": "t", "data": {"x": "secret"}}))
    assert "secret" not in repr(m.rows)
    assert m.rows.comms == {}


def test_a_mark_makes_private_before_and_after() -> None:
    m = Mirrored()
    m.took(m.mirror.mark_private("a"))
    m.feed(request("a", "secret"), begun("a"), stream("a", "secret"))
    m.feed(request("b", "secret"), begun("b"), stream("b", "secret"))
    m.took(m.mirror.mark_private("b"))
    m.feed(stream("b", "secret"))
    assert m.took(m.mirror.mark_private("b")) == []
    for row in (m.row("a"), m.row("b")):
        assert (row.private, row.code, row.outputs) == (True, "", ())


# --- somebody is asked


def test_a_question_stands_until_the_next_sign_of_its_execution() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), question("a"))
    assert m.row("a").input == {"prompt": "name? ", "password": False, "since": 3.0}
    m.feed(stream("a", "hello"))
    assert m.row("a").input is None


@pytest.mark.parametrize(
    "end", [reply("a"), (Channel.STDIN, Way.TO_CHILD, Message(header("input_reply", "i"), {}, {}, {"value": "secret"}))]
)
def test_a_reply_of_either_kind_takes_the_question_back(end: object) -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), question("a"), end)  # type: ignore[arg-type]
    assert m.row("a").input is None
    assert "secret" not in repr(m.changes)


def test_output_from_before_the_question_does_not_take_it_back() -> None:
    """iopub and stdin are two channels: what was printed before the question may arrive behind it."""
    m = Mirrored()
    m.feed(request("a"), begun("a"), question("a", date="2026-01-01T00:00:02.5Z"))
    m.feed(iopub("stream", "a", {"name": "stdout", "text": "x"}, date="2026-01-01T00:00:02.4Z"))
    assert m.row("a").input is not None
    m.feed(iopub("stream", "a", {"name": "stdout", "text": "x"}, date="2026-01-01T00:00:02.6Z"))
    assert m.row("a").input is None


def test_a_busy_that_is_published_again_does_not_take_the_question_back() -> None:
    """The relay says what runs to every frontend that attaches."""
    m = Mirrored()
    m.feed(request("a"), begun("a"), question("a"), status("a", "busy"))
    assert m.row("a").input is not None


def test_the_end_takes_the_question_back() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), question("a"))
    m.child("exited", exit_code=-9)
    assert (m.row("a").input, m.row("a").state) == (None, State.LOST)


# --- what was lost


def test_a_gap_is_named_and_open_rows_say_so() -> None:
    m = Mirrored()
    m.feed(*whole("done"), request("a"), begun("a"))
    for _ in range(30):
        m.gap()
    assert len(m.rows.meta["gap"]) == 20
    last = m.rows.meta["gap"][-1]
    assert last == {"since": m.at - 0.5, "until": m.at, "message_count": 3, "size_bytes": 100}
    assert m.row("a").metadata == {"rtc_gap": {"since": m.at - 0.5, "until": m.at}}
    assert m.row("done").metadata == {}
    m.feed(reply("a"), status("a", "idle"))
    assert m.row("a").state is State.OK, "a gap ends nothing by itself"


def test_a_row_whose_reply_was_lost_ends_with_the_next_reply() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"))
    m.gap()
    m.feed(status("a", "idle"), request("b"), begun("b", 2))
    assert m.row("a").state is State.RUNNING, "its reply may still be on its way"
    m.feed(reply("b"))
    assert m.row("a").state is State.LOST


def test_a_row_whose_idle_was_lost_ends_when_the_next_begins() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), request("b"))
    m.gap()
    m.feed(reply("a"), begun("b", 2))
    assert (m.row("a").state, m.row("b").state) == (State.LOST, State.RUNNING)


def test_a_row_of_which_all_was_lost_ends_when_a_later_one_begins() -> None:
    m = Mirrored()
    m.feed(request("a"), request("b"), request("c"))
    m.gap()
    m.feed(begun("b"))
    assert [m.row(i).state for i in "abc"] == [State.LOST, State.RUNNING, State.QUEUED]


def test_an_aborted_row_whose_idle_was_lost_is_aborted() -> None:
    m = Mirrored()
    m.feed(request("a"), reply("a", "aborted"), request("b"), begun("b"))
    assert m.row("a").state is State.ABORTED


def other(msg_id: str, **fields: str) -> tuple[Channel, Way, Message]:
    return Channel.SHELL, Way.TO_CHILD, Message(header("kernel_info_request", msg_id, **fields), {}, {}, {})


def other_reply(parent: str) -> tuple[Channel, Way, Message]:
    parts = header("kernel_info_reply", f"{parent}-reply"), header("kernel_info_request", parent)
    return Channel.SHELL, Way.TO_FRONT, Message(*parts, {}, {"status": "ok"})


def test_a_row_whose_end_was_lost_ends_when_the_kernel_has_answered_something_else() -> None:
    m = Mirrored()
    m.feed(other("early"), request("a"), begun("a"), request("b"))
    assert not m.mirror.doubts
    m.gap()
    assert m.mirror.doubts
    m.feed(other("k"), other_reply("early"), request("c"))
    assert [m.row(i).state for i in "ab"] == [State.RUNNING, State.QUEUED], "it was asked before the gap"
    m.feed(other_reply("k"))
    assert [m.row(i).state for i in "abc"] == [State.LOST, State.LOST, State.QUEUED]
    assert not m.mirror.doubts


def test_a_row_whose_idle_was_lost_ends_with_the_idle_of_something_else() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), reply("a"), request("b"), reply("b", "aborted"))
    m.gap()
    m.feed(other("k"), other_reply("k"))
    assert [m.row(i).state for i in "ab"] == [State.RUNNING, State.QUEUED], "their idle may still be on its way"
    m.feed(status(header("kernel_info_request", "k"), "idle"))
    assert [m.row(i).state for i in "ab"] == [State.LOST, State.ABORTED]


def test_a_subshells_answer_says_nothing_of_the_main_shell() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), request("b", subshell_id="s"), begun("b"))
    m.gap()
    assert m.mirror.doubts == {"", "s"}
    m.feed(other("k", subshell_id="s"), other_reply("k"))
    assert [m.row(i).state for i in "ab"] == [State.RUNNING, State.LOST]


def test_a_subshell_overtakes_nothing() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), request("b", subshell_id="s"))
    m.gap()
    m.feed(begun("b"), reply("b"), status("b", "idle"))
    assert (m.row("a").state, m.row("b").state) == (State.RUNNING, State.OK)


def test_without_a_loss_no_row_is_overtaken() -> None:
    """Whatever begins beside it: a running row whose reply will come is not given up."""
    m = Mirrored()
    m.feed(request("a"), begun("a"), request("b"), begun("b"), reply("b"), status("b", "idle"))
    assert (m.row("a").state, m.row("b").state) == (State.RUNNING, State.OK)


def test_an_unseen_row_without_idle_is_lost_when_the_next_begins() -> None:
    m = Mirrored()
    m.feed(begun("a"), begun("b"))
    assert (m.row("a").state, m.row("b").state) == (State.LOST, State.RUNNING)


def test_of_what_a_killed_kernel_may_have_begun_nobody_knows() -> None:
    """Its last messages die with it, so the next in line may have begun; so may what was sent for rows, being quick."""
    m = Mirrored()
    m.feed(request("a"), begun("a"), request("b"), request("c"), request("d", metadata={"rtc_request": "r1"}))
    m.child("exited", exit_code=-9)
    assert [m.row(i).state for i in "abcd"] == [State.LOST, State.LOST, State.ABORTED, State.LOST]


def test_what_a_kernel_broke_off_is_aborted() -> None:
    """So IRkernel and bash_kernel answer what was interrupted."""
    m = Mirrored()
    m.feed(request("a"), begun("a"), stream("a", "on\n"), reply("a", "abort"), status("a", "idle"))
    assert m.row("a").state is State.ABORTED
    assert m.texts("a") == ["on\n"]


def test_what_ran_when_the_kernel_went_is_lost_whatever_is_said_to_its_client() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), reply("a", "aborted"), status("a", "idle"))
    assert m.row("a").state is State.LOST


def test_the_kernels_end_ends_every_row() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), request("b"), *whole("c"))
    m.child("exited", exit_code=1)
    assert [m.row(i).state for i in "abc"] == [State.LOST, State.ABORTED, State.OK]
    assert m.row("a").finished_at == m.row("b").finished_at == m.at
    assert m.feed(reply("a"), status("a", "idle")) == [], "an end state is never left"


def test_a_late_output_is_appended_even_after_a_restart() -> None:
    m = Mirrored()
    m.feed(*whole("a", stream("a", "1")))
    m.child("exited", exit_code=0)
    m.child("started", pid=2)
    m.feed(stream("a", "2"))
    assert (m.texts("a"), m.row("a").state) == (["12"], State.OK)


def test_the_generation_is_the_kernels_at_the_request() -> None:
    m = Mirrored()
    m.feed(*whole("a"))
    m.child("restarting")
    m.child("exited", exit_code=0)
    m.child("started", pid=2)
    m.feed(request("b"))
    assert (m.row("a").generation, m.row("b").generation) == (0, 1)
    assert m.row("b").seq == 2


def test_messages_of_no_interest_change_nothing() -> None:
    m = Mirrored()
    for channel in Channel:
        for way in Way:
            assert m.feed((channel, way, Message(header("debug_event", "x"), {}, {}, {}))) == []
    assert m.feed(front("comm_msg", "unknown", {}), reply("unknown")) == []
    assert "1 open" not in repr(m.mirror)


def test_a_row_that_went_idle_and_gets_no_reply_ends_when_the_kernel_has_answered_something_later() -> None:
    """ipykernel answers nothing when an interrupt comes between execute_input and the code."""
    m = Mirrored()
    m.feed(request("a", "x"), begun("a"), status("a", "idle"))
    idle_at = m.at
    assert m.mirror.waits_for_reply
    assert m.mirror.receive_time(idle_at + REPLY_S - 0.1) == []
    assert not m.mirror.doubts
    assert m.mirror.receive_time(idle_at + REPLY_S) == []
    assert m.mirror.doubts == {""}
    m.feed(other("k"), status(header("kernel_info_request", "k"), "idle"))
    assert m.row("a").state is State.RUNNING, "its reply is before that of what was asked later, not before its idle"
    m.feed(other_reply("k"))
    assert m.row("a").state is State.LOST
    assert not m.mirror.waits_for_reply
    assert not m.mirror.doubts


def test_a_reply_that_comes_late_ends_its_row() -> None:
    """A machine that stood still between the two signs, or code that kept the interpreter to itself."""
    m = Mirrored()
    m.feed(*whole("a")[:-2], status("a", "idle"))
    assert m.mirror.receive_time(m.at + 10 * REPLY_S) == []
    m.feed(other("k"), reply("a"), other_reply("k"))
    assert m.row("a").state is State.OK
    assert not m.mirror.doubts


def test_a_row_without_a_reply_ends_in_time_where_the_kernel_runs_another() -> None:
    m = Mirrored()
    m.feed(request("a"), begun("a"), error("a"), status("a", "idle"), request("b"))
    assert m.mirror.receive_time(m.at + REPLY_S) == [], "the next one waits: its reply may be behind this one's"
    m.feed(begun("b"))
    m.took(m.mirror.receive_time(m.at + REPLY_S))
    assert (m.row("a").state, m.row("b").state) == (State.ERROR, State.RUNNING)
    assert not m.mirror.doubts


def test_user_expressions_stand_in_the_row_and_large_ones_only_with_their_size() -> None:
    m = Mirrored(inline_bytes=100)
    m.feed(*whole("a")[:-2], reply("a", user_expressions={"x": {"status": "ok"}}))
    assert m.row("a").metadata == {"user_expressions": {"x": {"status": "ok"}}}
    m.feed(*whole("b")[:-2], reply("b", user_expressions={"x": "y" * 100}))
    assert m.row("b").metadata == {"user_expressions": {"bytes": 108}}
