"""Comms, the state of widgets, and ``Output`` widgets that capture."""

from __future__ import annotations

import json
from typing import Any

from mirrored import Mirrored, Step, begun, clear, comm, display, error, front, header, reply, request, status, stream

from rtc_kernel.agent.mirror import outputs
from rtc_kernel.tables import COMM_MESSAGES_KEPT

WIDGET = "jupyter.widget"


def widget(comm_id: str, parent: str = "a", buffers: tuple[bytes, ...] = (), paths: Any = (), **state: Any) -> Step:
    data = {"state": state, "buffer_paths": list(paths)}
    return comm("comm_open", comm_id, data, parent=parent, buffers=buffers, target_name=WIDGET)


def update(comm_id: str, method: str = "update", **state: Any) -> Step:
    return comm("comm_msg", comm_id, {"method": method, "state": state, "buffer_paths": []})


def out(comm_id: str) -> Step:
    return widget(comm_id, _model_name="OutputModel", msg_id="", outputs=[])


def running(**limits: int) -> Mirrored:
    m = Mirrored(**limits)
    m.feed(request("a"), begun("a"))
    return m


def shown(m: Mirrored, comm_id: str) -> list[Any]:
    """The outputs of an Output widget, in short."""
    found = m.rows.comms[comm_id].state["outputs"]
    return [item.get("text") or item.get("ename") or item["data"]["text/plain"] for item in found]


def test_an_opened_comm_is_a_row() -> None:
    m = running()
    m.feed(comm("comm_open", "c", {}, parent="a", target_name="plot"), front("comm_open", "f", {}, target_name="ask"))
    kernel, ours = m.rows.comms["c"], m.rows.comms["f"]
    assert (kernel.target, kernel.kernel, kernel.execution, kernel.opened_by) == ("plot", "k", "a", "kernel")
    assert (ours.target, ours.execution, ours.opened_by, ours.opened_at) == ("ask", None, "front", 4.0)


def test_of_too_many_comms_the_one_that_was_silent_for_longest_is_taken_as_closed() -> None:
    m = running(comms=3)
    m.feed(*(widget(f"c{number}", value=number) for number in range(3)), update("c0", value=9), widget("c3"))
    assert {key: row.closed_at is None for key, row in m.rows.comms.items()} == {
        "c0": True,
        "c1": False,
        "c2": True,
        "c3": True,
    }
    m.feed(update("c1", value=5))
    assert m.rows.comms["c1"].state == {"value": 1}


def test_messages_of_other_targets_are_logged_with_their_way() -> None:
    m = running(inline_bytes=100)
    m.feed(comm("comm_open", "c", {"hello": 1}, target_name="plot"), front("comm_msg", "c", [1]))
    m.feed(comm("comm_msg", "c", "x" * 101), comm("comm_close", "c", {"bye": 1}))
    assert m.rows.comms["c"].messages == (
        {"way": "kernel", "at": 3.0, "data": {"hello": 1}},
        {"way": "front", "at": 4.0, "data": [1]},
        {"way": "kernel", "at": 5.0, "data": {"bytes": 103}},
        {"way": "kernel", "at": 6.0, "data": {"bye": 1}},
    )
    assert m.rows.comms["c"].closed_at == 6.0


def test_the_log_is_bounded_and_ends_with_the_comm() -> None:
    m = running()
    m.feed(comm("comm_open", "c", {}, target_name="plot"), *(comm("comm_msg", "c", i) for i in range(50)))
    assert len(m.rows.comms["c"].messages) == COMM_MESSAGES_KEPT
    m.feed(front("comm_close", "c", {}))
    assert m.feed(comm("comm_msg", "c", 51)) == []


def test_our_own_comm_and_unknown_ids_are_ignored() -> None:
    m = running()
    own = front("comm_open", "o", {"x": 1}, target_name="rtc.sync.v1")
    assert m.feed(own, front("comm_msg", "o", 1), comm("comm_msg", "o", 1), comm("comm_close", "o", {})) == []
    assert m.feed(comm("comm_msg", "u", 1), comm("comm_close", "u", {}), comm("comm_open", "", {})) == []


def test_a_comm_that_is_opened_again_begins_anew() -> None:
    m = running()
    m.feed(out("o"), update("o", msg_id="a"), out("o"), stream("a", "cell"))
    assert m.texts("a") == ["cell"]


def test_the_kernels_end_closes_all_comms() -> None:
    m = running()
    m.feed(widget("w"), out("o"), update("o", msg_id="a"))
    m.child("exited", exit_code=0)
    assert {row.closed_at for row in m.rows.comms.values()} == {m.at}
    assert m.feed(update("w", value=1)) == []


# --- widget state


def test_the_state_of_a_widget_is_merged_key_by_key() -> None:
    m = running()
    m.feed(widget("w", value=1, description="d"), update("w", value=2), update("w", "echo_update", style="s"))
    m.feed(front("comm_msg", "w", {"method": "update", "state": {"value": 3}}))
    m.feed(update("w", "custom", value=9), comm("comm_msg", "w", {"method": "custom", "content": {}}))
    assert m.rows.comms["w"].state == {"value": 3, "description": "d", "style": "s"}
    assert m.rows.comms["w"].messages == ()


def test_buffers_stand_at_their_paths() -> None:
    m = running()
    buffers = b"\0\1", b"2", b"3", *[b"lost"] * 4
    paths = [["value"], ["list", 1], ["map", "x"], ["no", "where"], ["list", 2], ["value", 0], []]
    m.feed(widget("w", buffers=buffers, paths=paths, list=[0, None], map={}))
    assert m.rows.comms["w"].state == {"value": b"\0\1", "list": [0, b"2"], "map": {"x": b"3"}}


def test_large_values_of_a_widget_are_blobs_that_name_their_type() -> None:
    m = running(inline_bytes=100)
    m.feed(widget("w", buffers=(b"\xff" * 101,), paths=[["raw"]], text="x" * 101, small="y", many=list(range(99))))
    state = m.rows.comms["w"].state
    assert state["small"] == "y"
    assert m.rows.blobs[state["raw"]["blob"]] == b"\xff" * 101
    assert state["raw"]["media_type"] == "application/octet-stream"
    assert json.loads(m.rows.blobs[state["text"]["blob"]]) == "x" * 101
    assert (state["many"]["media_type"], state["many"]["preview"][:6]) == ("application/json", "[0,1,2")


# --- Output widgets


def test_an_output_widget_captures_what_its_msg_id_says() -> None:
    m = running()
    m.feed(out("o"), stream("a", "before"), update("o", msg_id="a"))
    m.feed(stream("a", "1\r"), stream("a", "2"), display("a", "d"), error("a", "E"), update("o", msg_id=""))
    m.feed(stream("a", "after"))
    assert m.texts("a") == ["beforeafter"]
    assert shown(m, "o") == ["2", "d", "E"]
    assert m.rows.comms["o"].state["outputs"][0] == {"output_type": "stream", "name": "stdout", "text": "2"}


def test_a_captured_stream_goes_on_where_it_ended() -> None:
    m = running()
    m.feed(out("o"), update("o", msg_id="a"), stream("a", "1"), update("o", msg_id=""))
    m.feed(update("o", msg_id="a"), stream("a", "2"), stream("a", "e", "stderr"))
    assert shown(m, "o") == ["12", "e"]


def test_the_latest_widget_wins_and_the_earlier_is_restored() -> None:
    m = running()
    m.feed(out("o"), out("p"), update("o", msg_id="a"), stream("a", "o1"), update("p", msg_id="a"), stream("a", "p"))
    m.feed(update("p", msg_id=""), stream("a", "o2"), update("o", msg_id=""), stream("a", "cell"))
    assert (shown(m, "o"), shown(m, "p"), m.texts("a")) == (["o1o2"], ["p"], ["cell"])


def test_closing_the_widget_lets_go() -> None:
    m = running()
    m.feed(out("o"), update("o", msg_id="a"), comm("comm_close", "o", {}), stream("a", "cell"))
    assert m.texts("a") == ["cell"]


def test_a_widget_may_capture_what_a_comm_message_prints() -> None:
    """``@out.capture()`` on a callback: the parent is no execution."""
    m = running()
    m.feed(out("o"), update("o", msg_id="click"), stream(header("comm_msg", "click"), "clicked"))
    assert shown(m, "o") == ["clicked"]


def test_a_front_may_set_the_msg_id_but_not_the_outputs() -> None:
    """JupyterLab writes back the outputs that it has captured: they are here already, and newer."""
    m = running()
    m.feed(out("o"), front("comm_msg", "o", {"method": "update", "state": {"msg_id": "a"}}), stream("a", "12"))
    stale = {"outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}
    m.feed(front("comm_msg", "o", {"method": "update", "state": stale}), update("o", "echo_update", **stale))
    assert shown(m, "o") == ["12"]


def test_the_kernel_may_set_the_outputs() -> None:
    m = running(inline_bytes=100)
    large = {"output_type": "display_data", "data": {"text/plain": "x" * 101}, "metadata": {}}
    m.feed(out("o"), update("o", msg_id="a"), stream("a", "1"), update("o", outputs=[large, 5]), stream("a", "2"))
    found = m.rows.comms["o"].state["outputs"]
    assert found[0]["data"]["text/plain"]["bytes"] == 101
    assert found[1:] == [{"output_type": "stream", "name": "stdout", "text": "2"}]


def test_clear_output_reaches_the_widget() -> None:
    m = running()
    m.feed(out("o"), update("o", msg_id="a"), stream("a", "1"), clear("a", wait=True))
    assert shown(m, "o") == ["1"]
    m.feed(stream("a", "2"))
    assert shown(m, "o") == ["2"]
    m.feed(clear("a"))
    assert shown(m, "o") == []
    m.feed(stream("a", "3"))
    assert shown(m, "o") == ["3"]


def test_what_a_private_execution_shows_is_not_captured() -> None:
    m = running()
    m.feed(out("o"), request("p", "%rtc private"), update("o", msg_id="p"), stream("p", "secret"))
    assert "secret" not in repr(m.changes)


def test_a_widget_keeps_the_end_of_what_it_captures(monkeypatch: Any) -> None:
    monkeypatch.setattr(outputs, "CAPTURED_KEPT", 3)
    m = running(inline_bytes=10_000)
    m.feed(out("o"), update("o", msg_id="a"))
    for i in range(5000):
        m.feed(stream("a", f"{i:05}\n"))
    text = m.rows.comms["o"].state["outputs"][0]["text"]
    assert len(text) <= 10_000 + 4096
    assert text.endswith("04998\n04999\n")
    m.feed(*(display("a", str(i)) for i in range(5)))
    assert shown(m, "o") == ["2", "3", "4"]


def test_a_capture_goes_on_after_a_crash() -> None:
    m = running()
    m.feed(out("o"), update("o", msg_id="a"), stream("a", "12\r"))
    m.crash()
    m.feed(stream("a", "x"), reply("a"), status("a", "idle"))
    assert shown(m, "o") == ["x2"]
    m.feed(update("o", msg_id=""), stream("a", "late"))
    assert m.texts("a") == ["late"]


def test_what_an_output_widget_holds_is_bounded_in_bytes() -> None:
    m = running(execution_bytes=1000)
    m.feed(out("o"), update("o", msg_id="a"), *(display("a", f"{at:0300}") for at in range(9)))
    assert [int(text) for text in shown(m, "o")] == [7, 8] or [int(text) for text in shown(m, "o")] == [6, 7, 8]
    m.crash()
    m.feed(stream("a", "x" * 5000))
    assert shown(m, "o") == ["x" * 5000], "the last one stays, whatever it weighs"
