"""What an execution has shown."""

from __future__ import annotations

import pytest
from mirrored import Mirrored, begun, clear, display, error, iopub, reply, request, status, stream, whole

from rtc_kernel.agent.mirror import outputs
from rtc_kernel.tables import ClearOutputs, PutBlob, WriteText


def running(**limits: int) -> Mirrored:
    m = Mirrored(**limits)
    m.feed(request("a"), begun("a"))
    return m


def test_consecutive_streams_of_one_name_are_one_output() -> None:
    m = running()
    m.feed(stream("a", "1"), stream("a", "2"), stream("a", "e", "stderr"), stream("a", "3"), display("a", "d"))
    m.feed(stream("a", "4"))
    assert m.texts("a") == ["12", "e", "3", "d", "4"]
    assert [output.name for output in m.row("a").outputs] == ["stdout", "stderr", "stdout", None, "stdout"]
    assert [output.at for output in m.row("a").outputs] == [3.0, 5.0, 6.0, 7.0, 8.0]


def test_a_small_piece_of_text_is_one_change() -> None:
    m = running()
    m.feed(stream("a", "1"))
    assert m.feed(stream("a", "2")) == [WriteText("a", 0, 0, None, "2")]


def test_the_cursor_survives_from_message_to_message() -> None:
    m = running()
    m.feed(stream("a", "abc\r"), stream("a", "x"))
    assert m.texts("a") == ["xbc"]


def test_each_kind_of_output_is_kept_as_nbformat_has_it() -> None:
    m = running()
    m.feed(iopub("execute_result", "a", {"data": {"text/plain": "2"}, "metadata": {"m": 1}, "execution_count": 1}))
    m.feed(display("a", "d"), error("a"), stream("a", "s"))
    assert [output.to_nbformat() for output in m.row("a").outputs] == [
        {"output_type": "execute_result", "execution_count": 1, "data": {"text/plain": "2"}, "metadata": {"m": 1}},
        {"output_type": "display_data", "data": {"text/plain": "d"}, "metadata": {}},
        {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["one", "two"]},
        {"output_type": "stream", "name": "stdout", "text": "s"},
    ]


def test_lone_surrogates_and_nul_are_replaced() -> None:
    m = running()
    m.feed(stream("a", "x\ud800\0"), display("a", "\udfff"))
    assert m.texts("a") == ["x\ufffd\ufffd", "\ufffd"]


def test_text_in_lines_is_joined() -> None:
    m = running()
    m.feed(iopub("stream", "a", {"name": "stdout", "text": ["a\n", "b"]}))
    assert m.texts("a") == ["a\nb"]


# --- clear_output


def test_clear_output_clears_at_once() -> None:
    m = running()
    m.feed(stream("a", "1"), display("a", "d"))
    assert m.feed(clear("a")) == [ClearOutputs("a")]
    assert m.feed(clear("a")) == [], "nothing to clear"
    m.feed(stream("a", "2"))
    assert m.texts("a") == ["2"]


def test_clear_output_with_wait_clears_at_the_next_output() -> None:
    m = running()
    m.feed(stream("a", "1"))
    assert m.feed(clear("a", wait=True)) == []
    assert m.texts("a") == ["1"]
    m.feed(stream("a", "2"))
    assert m.texts("a") == ["2"]
    m.feed(stream("a", "3"))
    assert m.texts("a") == ["23"]


def test_a_clear_at_once_takes_the_waiting_one_along() -> None:
    m = running()
    m.feed(stream("a", "1"), clear("a", wait=True), clear("a"), stream("a", "2"), stream("a", "3"))
    assert m.texts("a") == ["23"]


def test_a_waiting_clear_dies_quietly_at_the_end() -> None:
    m = running()
    m.feed(stream("a", "1"), clear("a", wait=True), status("a", "idle"), stream("a", "2"), reply("a"))
    assert m.texts("a") == ["1", "2"]


def test_an_update_is_no_output_to_a_waiting_clear() -> None:
    m = running()
    m.feed(display("a", "1", "d"), clear("a", wait=True), display("a", "2", "d", "update_display_data"))
    assert m.texts("a") == ["2"]


# --- display ids


def test_an_update_reaches_every_output_with_the_id_in_any_execution() -> None:
    m = Mirrored()
    m.feed(*whole("a", display("a", "1", "d"), display("a", "other")), *whole("b", display("b", "1", "d")))
    m.feed(request("c"), begun("c"), display("c", "2", "d", "update_display_data"))
    assert (m.texts("a"), m.texts("b"), m.texts("c")) == (["2", "other"], ["2"], [])
    assert m.row("a").outputs[0].display_id == "d"


def test_a_display_with_a_known_id_updates_the_earlier_ones_too() -> None:
    m = running()
    m.feed(display("a", "1", "d"), display("a", "2", "d"))
    assert m.texts("a") == ["2", "2"]


def test_an_update_may_come_from_a_comm_message() -> None:
    m = Mirrored()
    m.feed(*whole("a", display("a", "1", "d")))
    content = {"data": {"text/plain": "2"}, "transient": {"display_id": "d"}}
    m.feed(iopub("update_display_data", {"msg_type": "comm_msg", "msg_id": "x"}, content))
    assert m.texts("a") == ["2"]


def test_an_update_of_an_unknown_id_is_nothing() -> None:
    m = running()
    assert m.feed(display("a", "2", "d", "update_display_data"), display("a", "2", None, "update_display_data")) == []


def test_cleared_outputs_are_updated_no_more() -> None:
    m = running()
    m.feed(display("a", "1", "d"), clear("a"), stream("a", "s"))
    assert m.feed(display("a", "2", "d", "update_display_data")) == []


def test_the_oldest_display_ids_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "DISPLAY_PLACES_KEPT", 2)
    m = running()
    m.feed(*(display("a", "1", f"d{i}") for i in range(3)))
    m.feed(*(display("a", "2", f"d{i}", "update_display_data") for i in range(3)))
    assert m.texts("a") == ["1", "2", "2"]


def test_an_update_goes_on_after_a_crash() -> None:
    m = Mirrored()
    m.feed(*whole("a", display("a", "1", "d")))
    m.crash()
    m.feed(display("a", "2", "d", "update_display_data"))
    assert m.texts("a") == ["2"]


def test_what_is_held_says_so() -> None:
    m = running()
    m.feed(display("a", "1", "d"), clear("a", wait=True))
    assert "<Displays 1 ids, 1 outputs>" in repr(m.mirror)


# --- sizes


def test_a_large_value_is_a_blob_in_front_of_the_output() -> None:
    m = running(inline_bytes=100)
    changes = m.feed(display("a", "x" * 101))
    assert isinstance(changes[0], PutBlob)
    reference = (m.row("a").outputs[0].data or {})["text/plain"]
    assert m.rows.blobs[reference["blob"]] == b"x" * 101


def is_blob(m: Mirrored, position: int, msg_id: str = "a") -> bool:
    return isinstance((m.row(msg_id).outputs[position].data or {})["text/plain"], dict)


def test_once_an_execution_has_used_its_bytes_values_above_a_kibibyte_are_blobs() -> None:
    m = running(execution_bytes=5000)
    m.feed(*(display("a", "x" * 2000) for _ in range(5)), display("a", "small" * 200))
    assert [is_blob(m, at) for at in range(6)] == [False, False, False, True, True, False]
    m.feed(iopub("display_data", "a", {"data": {}, "metadata": {"x": "y" * 2000}}))
    assert m.row("a").outputs[6].metadata == {"bytes": 2008}
    m.feed(*whole("b", display("b", "x" * 2000)))
    assert not is_blob(m, 0, "b"), "each execution has its own"


def test_cleared_outputs_use_no_bytes() -> None:
    m = running(execution_bytes=5000)
    m.feed(*(display("a", "x" * 2000) for _ in range(4)), clear("a"), display("a", "x" * 2000))
    assert not is_blob(m, 0)
    m.feed(*(display("a", "x" * 2000, "d") for _ in range(4)), clear("a", wait=True), display("a", "x" * 2000))
    assert not is_blob(m, 0)


def test_a_display_that_is_updated_counts_as_it_is_now() -> None:
    m = running(execution_bytes=5000)
    m.feed(display("a", "x", "d"), *(display("a", "x" * 4900, "d", "update_display_data") for _ in range(100)))
    assert not is_blob(m, 0)
    m.feed(display("a", "y" * 2000), display("a", "y" * 2000))
    assert [is_blob(m, at) for at in (1, 2)] == [False, True]
    m.feed(display("a", "x", "d", "update_display_data"), display("a", "y" * 2000))
    assert not is_blob(m, 3)


def test_displays_that_are_updated_to_large_values_share_the_bytes_of_their_execution() -> None:
    m = running(execution_bytes=5000)
    m.feed(*(display("a", "x", f"d{at}") for at in range(5)))
    m.feed(*(display("a", "x" * 2000, f"d{at}", "update_display_data") for at in range(5)))
    assert [is_blob(m, at) for at in range(5)] == [False, False, False, True, True]


def test_what_an_execution_has_used_is_known_after_a_crash() -> None:
    m = running(execution_bytes=5000)
    m.feed(*(display("a", "x" * 2000) for _ in range(3)))
    m.crash()
    m.feed(display("a", "x" * 2000))
    assert is_blob(m, 3)


def test_a_large_error_keeps_its_end() -> None:
    m = running(inline_bytes=100)
    content = {"ename": "E", "evalue": "v" * 1000, "traceback": ["first " * 30, "x" * 60, 5, "last"]}
    m.feed(iopub("error", "a", content))
    output = m.row("a").outputs[0]
    assert (output.evalue, output.traceback) == ("v" * 100, ("[… 1 lines are left out …]", "x" * 60, "last"))


def test_large_metadata_is_only_named() -> None:
    m = running(inline_bytes=100)
    m.feed(iopub("display_data", "a", {"data": {}, "metadata": {"x": "y" * 100}}))
    assert m.row("a").outputs[0].metadata == {"bytes": 108}


def test_a_long_output_keeps_the_state_small() -> None:
    m = running()
    for _ in range(200):
        m.feed(stream("a", "a line of text\n" * 100))
    assert len(repr(m.mirror.state())) < 2000
    assert len(m.texts("a")[0]) == 15 * 100 * 200
