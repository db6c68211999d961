"""The mirror as a whole: any order that can be, any cut, any garbage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mirrored import (
    Mirrored,
    Step,
    begun,
    clear,
    comm,
    display,
    error,
    front,
    iopub,
    question,
    reply,
    request,
    status,
    stream,
    whole,
)
from rows import Rows

from rtc_kernel.agent.mirror import Limits, Mirror
from rtc_kernel.errors import LocalError
from rtc_kernel.link import Channel, Way
from rtc_kernel.tables import END_STATES, Execution, coalesce
from rtc_kernel.wire import Message

IDS = st.sampled_from(["a", "b", "c", "d"])
TEXTS = st.text(st.sampled_from("xy\r\b\né"), max_size=6)
NAMES = st.sampled_from(["stdout", "stderr"])


def shows(ids: st.SearchStrategy[str]) -> st.SearchStrategy[Step]:
    """Messages that show something."""
    return st.one_of(
        st.builds(stream, ids, TEXTS, NAMES),
        st.builds(display, ids, TEXTS, st.sampled_from([None, "d1", "d2"])),
        st.builds(lambda i, t: display(i, t, "d1", "update_display_data"), ids, TEXTS),
        st.builds(error, ids),
        st.builds(clear, ids, st.booleans()),
        st.builds(lambda i: comm("comm_msg", "o", {"method": "update", "state": {"msg_id": i}}), ids),
    )


STEP = st.one_of(
    st.builds(request, IDS, st.sampled_from(["1", "%rtc private"]), content=st.just({})),
    st.builds(request, IDS, content=st.just({"silent": True})),
    st.builds(begun, IDS, st.integers(1, 9)),
    st.builds(reply, IDS, st.sampled_from(["ok", "error", "aborted", "odd"]), ename=st.just("E")),
    st.builds(status, IDS, st.sampled_from(["busy", "idle", "starting"])),
    st.builds(question, IDS),
    shows(IDS),
    st.builds(
        lambda name: comm("comm_open", "o", {"state": {"_model_name": name}}, target_name="jupyter.widget"),
        st.sampled_from(["OutputModel", "SliderModel"]),
    ),
    st.builds(lambda: comm("comm_close", "o", {})),
    st.just("exited"),
    st.just("started"),
    st.just("gap"),
)
RUN = st.builds(
    lambda run, shown, word: [
        request(run),
        begun(run),
        *(show(run) for show in shown),
        reply(run, word),
        status(run, "idle"),
    ],
    st.sampled_from(["e", "f", "g"]),
    st.lists(
        st.sampled_from(
            [
                lambda run: stream(run, "x\ry"),
                lambda run: stream(run, "ab\r"),
                lambda run: display(run, "1", "d1"),
                lambda run: display(run, "2", "d1", "update_display_data"),
                lambda run: clear(run, wait=True),
                lambda run: comm("comm_msg", "o", {"method": "update", "state": {"msg_id": run}}),
            ]
        ),
        max_size=8,
    ),
    st.sampled_from(["ok", "error"]),
)
STEPS = st.lists(st.one_of(RUN, st.lists(STEP, min_size=1, max_size=8)), min_size=1, max_size=8).map(
    lambda blocks: [step for block in blocks for step in block]
)


def play(m: Mirrored, steps: Sequence[Step | str]) -> Mirrored:
    for step in steps:
        match step:
            case "gap":
                m.gap()
            case str():
                m.child(step)
            case _:
                m.feed(step)
    return m


@settings(max_examples=200)
@given(STEPS, st.integers(0, 60))
def test_a_crash_at_any_point_changes_no_row(steps: list[Step | str], cut: int) -> None:
    uncut, cut_one = play(Mirrored(), steps), play(Mirrored(), steps[:cut])
    state = cut_one.mirror.state()
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    cut_one.crash()
    assert cut_one.mirror.state() == state
    play(cut_one, steps[cut:])
    assert cut_one.rows == uncut.rows
    assert cut_one.mirror.state() == uncut.mirror.state()


@given(STEPS)
def test_coalesced_changes_make_the_same_rows(steps: list[Step | str]) -> None:
    m = play(Mirrored(), steps)
    found = Rows(coalesced=True).apply(coalesce(m.changes))
    assert (found.executions, found.comms, found.kernels, found.meta) == (
        m.rows.executions,
        m.rows.comms,
        m.rows.kernels,
        m.rows.meta,
    )


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Step], list[Step], list[Step]]:
    """What a serial kernel says of a few requests: requests and replies on shell, the rest on iopub."""
    requests, replies, published = [], [], []
    for i in range(draw(st.integers(1, 5))):
        run = f"r{i}"
        requests.append(request(run, draw(st.sampled_from(["1", "%rtc private"]))))
        published.append(status(run, "busy"))
        word = draw(st.sampled_from(["ok", "error", "aborted"]))
        if word == "aborted":
            replies.append(reply(run, word))
        else:
            published.append(begun(run, i + 1))
            published += draw(st.lists(shows(st.just(run)), max_size=6))
            replies.append(reply(run, word, execution_count=i + 1, ename="E", evalue="v"))
        published.append(status(run, "idle"))
    opening = comm("comm_open", "o", {"state": {"_model_name": "OutputModel"}}, target_name="jupyter.widget")
    return requests, replies, [opening, *published]


def timeless(rows: Rows) -> list[Execution]:
    """The executions without their times."""
    return [
        replace(
            row,
            queued_at=None,
            started_at=None,
            finished_at=None,
            outputs=tuple(replace(output, at=0.0) for output in row.outputs),
        )
        for row in sorted(rows.executions.values(), key=lambda row: row.seq)
    ]


def may_come(step: Step, asked: int) -> bool:
    """A kernel answers only what it was asked."""
    parent = step[2].parent_id
    return parent == "" or int(parent[1:]) < asked


@given(runs(), st.data())
def test_any_interleaving_of_shell_and_iopub_makes_the_same_rows(
    said: tuple[list[Step], list[Step], list[Step]], data: st.DataObject
) -> None:
    requests, replies, published = said
    plain = Mirrored()
    plain.feed(*requests, *replies, *published)
    assert all(row.state in END_STATES for row in plain.rows.executions.values())
    mixed, asked, left = Mirrored(), 0, {"ask": list(requests), "reply": list(replies), "publish": list(published)}
    while any(left.values()):
        ready = [name for name in left if left[name] and may_come(left[name][0], asked)]
        name = data.draw(st.sampled_from(ready))
        asked += name == "ask"
        mixed.feed(left[name].pop(0))
    assert timeless(mixed.rows) == timeless(plain.rows)
    assert {comm.id: comm.state for comm in mixed.rows.comms.values()} == {
        comm.id: comm.state for comm in plain.rows.comms.values()
    }


WORDS = st.sampled_from([
    "a", "b", "o", "idle", "busy", "starting", "ok", "error", "aborted", "stdout", "text/plain",
    "image/png", "update", "jupyter.widget", "OutputModel", "d1",
])  # fmt: skip
GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["\ud800", "\0", 10**400]) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=4,
)
FIELDS = [
    "msg_id", "msg_type", "session", "username", "date", "subshell_id", "code", "silent",
    "execution_count", "status", "ename", "evalue", "traceback", "data", "metadata", "transient",
    "display_id", "name", "text", "wait", "execution_state", "comm_id", "target_name", "state",
    "method", "buffer_paths", "_model_name", "outputs", "cellId", "rtc_request", "prompt", "password",
]  # fmt: skip
OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from(FIELDS), GARBAGE, max_size=6),
    lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=3,
)
KINDS = st.sampled_from([
    "execute_request", "execute_reply", "execute_input", "status", "stream", "display_data",
    "execute_result", "update_display_data", "error", "clear_output", "comm_open", "comm_msg",
    "comm_close", "input_request", "input_reply",
])  # fmt: skip
MESSAGES = st.builds(
    lambda kind, parent, header, parent_header, metadata, content, buffers: Message(
        {"msg_type": kind, "msg_id": "a", **header},
        {"msg_type": "execute_request", "msg_id": parent, **parent_header},
        metadata,
        content,
        tuple(buffers),
    ),
    KINDS,
    WORDS,
    OBJECTS,
    OBJECTS,
    OBJECTS,
    OBJECTS,
    st.lists(st.binary(max_size=4), max_size=2),
)


@given(st.lists(st.tuples(st.sampled_from(Channel), st.sampled_from(Way), MESSAGES), max_size=5))
def test_any_garbage_gives_changes_or_nothing(steps: list[Step]) -> None:
    """No message makes the mirror raise, and what comes out makes rows that are JSON and UTF-8."""
    m = Mirrored(inline_bytes=20, blob_bytes=60)
    opening = {"state": {"_model_name": "OutputModel", "msg_id": "b"}}
    m.feed(request("a"), begun("b"), comm("comm_open", "o", opening, target_name="jupyter.widget"), *steps)
    json.dumps(m.mirror.state(), allow_nan=False, ensure_ascii=False).encode()
    for row in m.rows.executions.values():
        repr(row).encode()
    m.crash()
    m.feed(*steps)


def test_a_mirror_names_where_it_stands() -> None:
    m = Mirrored()
    m.feed(*whole("a"), request("b"))
    assert (m.mirror.next_seq, m.mirror.generation) == (3, 0)
    assert "1 open, 1 ended" in repr(m.mirror)


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(LocalError):
        Mirror.restore({"version": 0}, limits=Limits(), displays=[])


def test_front_and_kernel_comm_messages_meet_in_one_row() -> None:
    m = Mirrored()
    data: dict[str, Any] = {"state": {"value": 1}}
    m.feed(front("comm_open", "w", data, target_name="jupyter.widget"))
    m.feed(iopub("comm_msg", {}, {"comm_id": "w", "data": {"method": "update", "state": {"value": 2}}}))
    assert m.rows.comms["w"].state == {"value": 2}
