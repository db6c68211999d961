"""The store: what was committed is there, whatever happens to the agent, the disk or the file."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import Rows

from rtc_kernel.agent.keep import dead, edit, upkeep
from rtc_kernel.agent.keep import rows as layout
from rtc_kernel.agent.keep import store as stores
from rtc_kernel.agent.keep.archive import HistoryFile, histories, open_readonly
from rtc_kernel.agent.keep.files import on_network
from rtc_kernel.agent.keep.lookup import Mark
from rtc_kernel.agent.keep.records import Ends
from rtc_kernel.agent.keep.retention import Limits
from rtc_kernel.agent.keep.store import Health, Store, StoredToken
from rtc_kernel.errors import LocalError, SetupError
from rtc_kernel.tables import (
    COMM_MESSAGES_KEPT,
    END_STATES,
    EXECUTION_TRANSITIONS,
    KERNEL_TRANSITIONS,
    ONLY_IN_DOCUMENT,
    REQUEST_END_STATES,
    AddCommMessage,
    AddOutput,
    Cell,
    Change,
    ClearOutputs,
    Execution,
    ExecutionState,
    KernelState,
    MergeCommState,
    Output,
    PutBlob,
    PutCells,
    PutComm,
    PutExecution,
    PutKernel,
    PutMeta,
    Request,
    RequestState,
    SetOutput,
    WriteText,
    coalesce,
)

Until = Callable[..., object]
DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history" / f"k1{layout.SUFFIX}"


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    with closing(Store.open(path if request.param == "file" else None)) as store:
        begin(store)
        yield store


def begin(store: Store, relay_id: str = "r1", now: float = 100.0, **columns: Any) -> Any:
    return store.begin(relay_id=relay_id, kernel={"id": "k1", "name": "python", **columns}, now=now)


def write(
    store: Store,
    *changes: Change,
    seq: int = 1,
    state: Any = None,
    requests: Sequence[Request] = (),
    relay_id: str = "r1",
) -> list[Exception | None]:
    told: list[Exception | None] = []
    store.write(
        changes, relay_id=relay_id, seq=seq, mirror_state=state, requests=requests, now=60.0, done=told.append
    )  # fmt: skip
    return told


def ran(seq: int, code: str = "print(1)", text: str = "", **columns: Any) -> list[Change]:
    """The changes of one finished execution that printed ``text``."""
    key = columns.pop("id", f"id-{seq:03}")
    stream = Output(output_type="stream", at=1.0, name="stdout", text="")
    values = {"seq": seq, "kernel": "k1", "code": code, "state": ExecutionState.OK, "finished_at": 50.0 + seq}
    return [PutExecution(key, values | columns), AddOutput(key, 0, stream), WriteText(key, 0, 0, None, text)]


def full(store: Store, pages: int | None) -> None:
    """Let the disk be full (None: let it have room again)."""
    limit = 1 << 30 if pages is None else pages
    with store._memory_lock:
        store._connection.execute(f"PRAGMA max_page_count = {limit}").fetchall()


# --- what is written is read ------------------------------------------------------------------------------


def test_a_write_is_read_back_as_the_same_records(store: Store) -> None:
    outputs = (
        Output(output_type="stream", at=1.0, name="stdout", text="a\0b é"),
        Output(output_type="display_data", at=2.0, data={"text/plain": "x"}, metadata={}, display_id="d"),
        Output(output_type="error", at=3.0, ename="E", evalue="v", traceback=("t", "u")),
    )
    execution = Execution(
        id="e1", seq=1, kernel="k1", generation=0, cell="c", notebook="n.ipynb", request="q", code="x = 'é'",
        execution_count=3, submitted_by="ann", client="s", queued_at=1.0, started_at=2.0, finished_at=3.0,
        state=ExecutionState.ERROR, error={"ename": "E", "evalue": "v"}, input=None, private=False,
        metadata={"a": [1]}, outputs=outputs,
    )  # fmt: skip
    elsewhere = ONLY_IN_DOCUMENT | {"id", "outputs"}
    columns = {f.name: getattr(execution, f.name) for f in fields(Execution) if f.name not in elsewhere}
    changes: list[Change] = [PutExecution("e1", columns)]
    changes += [AddOutput("e1", at, replace(o, text="") if o.text else o) for at, o in enumerate(outputs)]
    told = write(store, *changes, WriteText("e1", 0, 0, None, "a\0b"), WriteText("e1", 0, 1, None, " é"))
    store.flush()
    assert told == [None]
    assert store.execution("e1") == execution
    assert store.window(5).executions == (execution,)
    assert store.window(5).segments == {("e1", 0): ["a\0b", " é"]}
    assert store.history() == ([execution], None)


def test_text_that_is_not_utf8_is_stored_as_the_document_has_it(store: Store) -> None:
    write(store, *ran(1, code="'\ud800'", text="x\udfff"), PutMeta({"a": "\ud800"}))
    store.flush()
    found = store.execution("#1")
    assert found is not None
    assert (found.code, found.outputs[0].text) == ("'\ufffd'", "x\ufffd")
    assert store.health == Health()


def test_metadata_of_several_parties_is_merged(store: Store) -> None:
    write(store, PutExecution("e", {"seq": 1, "metadata": {"a": 1, "b": 1}}), PutExecution("e", {"metadata": {"b": 2}}))
    write(store, PutExecution("e", {"metadata": {}}))
    store.flush()
    found = store.execution("e")
    assert found is not None
    assert found.metadata == {"a": 1, "b": 2}


def test_widget_state_keeps_its_buffers_and_the_log_its_bound(store: Store) -> None:
    state = {"value": {"$bytes": "no", "deep": [b"\0\xff", None]}, "plain": {"$bytes": "AA=="}, "none": None}
    write(store, PutComm("c", {"target": "jupyter.widget", "opened_at": 1.0}), MergeCommState("c", {"value": 1}))
    write(store, MergeCommState("c", state), *(AddCommMessage("c", {"n": n}) for n in range(COMM_MESSAGES_KEPT + 5)))
    write(store, PutComm("gone", {"closed_at": 5.0}))
    store.flush()
    (comm,) = store.comms()
    assert comm.state == state
    assert [message["n"] for message in comm.messages] == list(range(5, COMM_MESSAGES_KEPT + 5))


def test_a_blob_is_stored_once(store: Store) -> None:
    write(store, PutBlob(DIGEST, b"\0\1", "image/png"), PutBlob(DIGEST, b"other", "text/plain"))
    store.flush()
    assert store.blob(DIGEST) == (b"\0\1", "image/png")
    assert store.blob("sha256:" + "1" * 64) is None


def test_a_blob_is_read_in_pieces(store: Store) -> None:
    data = random.Random(1).randbytes(2 * edit.PART_BYTES + 7)
    write(store, PutBlob(DIGEST, data, "image/png"))
    store.flush()
    assert store.blob_size(DIGEST) == (len(data), "image/png")
    for start, count in ((0, 10), (edit.PART_BYTES - 3, 6), (5, len(data)), (len(data) - 2, 9), (len(data), 1), (0, 0)):
        assert store.blob_piece(DIGEST, start, count) == data[start : start + count]
    other = "sha256:" + "1" * 64
    assert (store.blob_size(other), store.blob_piece(other, 0, 9)) == (None, b"")


def test_tokens_and_facts_are_there_at_once_and_after_a_restart(path: Path) -> None:
    token = StoredToken("link-1", "view", "hash", 1.0)
    with closing(Store.open(path)) as store:
        begin(store)
        store.put_tokens([token, replace(token, name="b", expires_at=9.0)])
        store.put_fact("port", 4321)
        assert store.drop_token("b")
        assert not store.drop_token("b")
        assert (store.tokens, store.fact("port"), store.fact("x", 7)) == ((token,), 4321, 7)
    with closing(Store.open(path)) as store:
        assert (store.tokens, begin(store).port) == ((token,), 4321)
        store.put_tokens([])
        assert store.tokens == ()


# --- a random history equals its oracle -------------------------------------------------------------------

IDS = st.sampled_from(["e1", "e2"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
JSON = st.dictionaries(TEXT, st.none() | st.integers(-9, 9) | TEXT | st.lists(TEXT, max_size=2), max_size=2)
COLUMNS = st.fixed_dictionaries(
    {},
    optional={
        "code": TEXT,
        "state": st.sampled_from(ExecutionState),
        "execution_count": st.none() | st.integers(0, 9),
        "error": st.none() | JSON,
        "input": st.none() | JSON,
        "private": st.booleans(),
        "metadata": JSON,
        "cell": st.none() | TEXT,
        "started_at": st.none() | st.floats(0, 9),
    },
)
STEPS = st.one_of(
    st.tuples(st.just("put"), IDS, COLUMNS),
    st.tuples(st.just("stream"), IDS, TEXT),
    st.tuples(st.just("display"), IDS, JSON),
    st.tuples(st.just("set"), IDS, JSON),
    st.tuples(st.just("text"), IDS, st.tuples(st.integers(0, 9), st.none() | st.integers(0, 5), TEXT)),
    st.tuples(st.just("clear"), IDS, st.none()),
    st.tuples(st.just("comm"), st.sampled_from(["c1", "c2"]), JSON),
    st.tuples(st.just("message"), st.sampled_from(["c1", "c2"]), JSON),
    st.tuples(st.just("kernel"), st.sampled_from(KernelState), st.integers(0, 3)),
    st.tuples(st.just("cells"), st.integers(0, 3), TEXT),
    st.tuples(st.just("meta"), TEXT, JSON),
)


def change_of(kind: str, key: Any, value: Any, rows: Rows) -> Change | None:
    """The change that a step is on these rows; None where it cannot be."""
    outputs = rows.executions[key].outputs if key in rows.executions else ()
    streams = [at for at, output in enumerate(outputs) if output.output_type == "stream"]
    displays = [at for at, output in enumerate(outputs) if output.output_type != "stream"]
    match kind:
        case "put":
            state = value.get("state", ExecutionState.QUEUED)
            if state not in EXECUTION_TRANSITIONS[rows.executions[key].state]:
                value = {name: column for name, column in value.items() if name != "state"}
            return PutExecution(key, value)
        case "stream":
            made = Output(output_type="stream", at=1.0, name="stdout", text="")
            return AddOutput(key, len(outputs), made)
        case "display":
            made = Output(output_type="display_data", at=2.0, data=value, metadata={}, display_id="d")
            return AddOutput(key, len(outputs), made)
        case "set" if displays:
            return SetOutput(key, displays[-1], replace(outputs[displays[-1]], data=value))
        case "text" if streams:
            segments = rows.segments.get((key, streams[-1]), [])
            segment = value[0] % (len(segments) + 1)
            kept = len(segments[segment]) if segment < len(segments) else 0
            return WriteText(key, streams[-1], segment, None if value[1] is None else min(value[1], kept), value[2])
        case "clear":
            return ClearOutputs(key)
        case "comm":
            return MergeCommState(key, value)
        case "message":
            return AddCommMessage(key, value)
        case "kernel":
            fits = key in KERNEL_TRANSITIONS[rows.kernels["k1"].state]
            return PutKernel("k1", {"state": key} if fits else {"generation": value})
        case "cells":
            return PutCells("n", tuple(Cell(id=f"c{n}", index=n, cell_type="code", source=value) for n in range(key)))
        case "meta":
            return PutMeta({key: value})
    return None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.lists(STEPS, max_size=12), max_size=4))
def test_any_changes_read_back_as_the_oracle_has_them(batches: list[list[tuple[str, Any, Any]]]) -> None:
    first: list[Change] = [PutKernel("k1", {"name": "python", "started_at": 100.0})]
    first += [PutExecution(key, {"seq": seq}) for seq, key in enumerate(("e1", "e2"), 1)]
    first += [PutComm(key, {"opened_at": 0.0}) for key in ("c1", "c2")]
    oracle = Rows().apply(first)
    with closing(Store.open(None)) as store:
        begin(store)
        write(store, *first)
        for seq, batch in enumerate(batches):
            changes = []
            for step in batch:
                if (change := change_of(*step, oracle)) is not None:
                    oracle.apply([change])
                    changes.append(change)
            write(store, *changes, seq=seq)
        store.flush()
        window = store.window(500)
        assert window.executions == tuple(oracle.executions.values())
        assert window.comms == tuple(oracle.comms.values())
        assert window.kernels == tuple(oracle.kernels.values())
        assert (window.cells, window.meta) == (oracle.cells, oracle.meta)
        assert window.segments == {key: segments for key, segments in oracle.segments.items() if segments}
        assert store.health == Health()


JSON_OR_BYTES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$bytes", "$plain", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON_OR_BYTES)
def test_any_json_with_bytes_round_trips(value: Any) -> None:
    assert layout.load(layout.dump(value)) == value


# --- beginning and going on ---------------------------------------------------------------------------------


def test_the_same_relay_goes_on_where_it_was(path: Path) -> None:
    with closing(Store.open(path)) as store:
        first = begin(store)
        assert (first.generation, first.next_seq, first.feed_seq, first.resumed) == (0, 1, 0, False)
        display = Output(output_type="display_data", at=1.0, data={}, metadata={}, display_id="d")
        write(
            store,
            PutExecution("e", {"seq": 4, "state": "running"}),
            AddOutput("e", 0, display),
            seq=6,
            state={"a": [1]},
        )
        write(store, seq=7)
        write(store, PutComm("c", {"target": "t"}), seq=8)
    with closing(Store.open(path)) as store:
        resume = begin(store, notebook="n.ipynb")
        assert (resume.generation, resume.next_seq, resume.feed_seq, resume.resumed) == (0, 5, 8, True)
        assert resume.mirror_state == {"a": [1]}
        assert resume.displays == (("d", "e", 0),)
        (running,) = store.window(1).executions
        assert running.state is ExecutionState.RUNNING
        assert len(store.comms()) == 1
        assert store.kernels()[0].notebook == "n.ipynb"


def test_another_relay_begins_a_generation_and_what_was_open_is_lost(path: Path) -> None:
    with closing(Store.open(path)) as store:
        begin(store, now=100.0)
        asked = {"seq": 1, "state": "running", "input": {"prompt": "?"}}
        write(
            store,
            PutExecution("run", asked),
            PutExecution("wait", {"seq": 2}),
            *ran(3),
            PutComm("c", {"opened_at": 1.0}),
        )
        write(store, PutKernel("k1", {"last_activity_at": 150.0, "state": "busy"}), seq=9, state={"x": 1})
    with closing(Store.open(path)) as store:
        resume = begin(store, relay_id="r2", now=200.0)
        assert (resume.generation, resume.next_seq, resume.feed_seq, resume.mirror_state) == (1, 4, 0, None)
        run, wait, done = store.window(9).executions
        assert [row.state.value for row in (run, wait, done)] == ["lost", "lost", "ok"]
        assert (run.finished_at, run.input, done.finished_at) == (200.0, None, 53.0)
        assert store.comms() == ()
        assert [(g.generation, g.started_at, g.ended_at) for g in store.generations()] == [
            (0, 100.0, 150.0),
            (1, 200.0, None),
        ]
        (kernel,) = store.kernels()
        assert (kernel.generation, kernel.state, kernel.ended_at) == (1, KernelState.STARTING, None)
        write(store, PutKernel("k1", {"ended_at": 210.0, "exit_code": -9, "state": "dead"}))
        store.flush()
        assert store.generations()[1].exit_code == -9
        assert begin(store, relay_id="r3", now=300.0).generation == 2
        assert store.generations()[1].ended_at == 210.0


def test_another_relay_at_the_same_kernel_goes_on_with_records_of_its_own(path: Path) -> None:
    """One that is attached to: the kernel has lived on meanwhile."""

    def attach(store: Store, relay_id: str, lineage: str) -> Any:
        return store.begin(relay_id=relay_id, kernel={"id": "k1", "notebook": "n.ipynb"}, now=200.0, lineage=lineage)

    with closing(Store.open(path)) as store:
        assert attach(store, "at-k1-1", "at-k1-").resumed is False
        running = PutExecution("run", {"seq": 1, "state": "running"})
        write(store, running, *ran(2), seq=9, state={"x": 1}, relay_id="at-k1-1")
    with closing(Store.open(path)) as store:
        resume = attach(store, "at-k1-2", "at-k1-")
        assert (resume.generation, resume.next_seq, resume.feed_seq, resume.resumed) == (0, 3, 0, False)
        assert resume.mirror_state == {"x": 1}
        assert [row.state.value for row in store.window(9).executions] == ["running", "ok"]
        write(store, *ran(3), seq=1, state={"x": 2}, relay_id="at-k1-2")
        store.flush()
        resume = attach(store, "at-k1-2", "at-k1-")
        assert (resume.feed_seq, resume.resumed, resume.mirror_state) == (1, True, {"x": 2})
        assert attach(store, "at-k2-1", "at-k2-").generation == 1  # another kernel of the same name
        assert begin(store, relay_id="r2").generation == 2


def test_the_window_has_the_newest_and_all_that_is_unfinished(store: Store) -> None:
    write(store, PutExecution("old", {"seq": 1, "state": "running"}), *(c for seq in range(2, 9) for c in ran(seq)))
    write(
        store,
        PutMeta({"gap": {"since": 1.0}}),
        PutCells("n.ipynb", (Cell(id="c", index=0, cell_type="code", source="x"),)),
    )
    store.flush()
    window = store.window(2)
    assert [row.seq for row in window.executions] == [1, 7, 8]
    assert window.meta == {"gap": {"since": 1.0}}
    assert (window.notebook, window.cells[0].id) == ("n.ipynb", "c")
    assert [row.seq for row in store.window(50).executions] == [1, *range(2, 9)]


@settings(max_examples=80)
@given(st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=3), st.integers(1, 60))
def test_of_a_long_stream_the_window_has_the_ends_and_says_what_lacks(streams: list[list[int]], limit: int) -> None:
    with closing(Store.open(None)) as store:
        begin(store)
        write(store, PutExecution("e", {"seq": 1}), *ran(2, text="short"))
        for position, sizes in enumerate(streams):
            write(store, AddOutput("e", position, stream()))
            for segment, size in enumerate(sizes):
                write(store, WriteText("e", position, segment, None, "é" * size))
        store.flush()
        whole, window = store.window(9), store.window(9, stream_bytes=limit)
        assert whole.omissions == {}
        assert whole.segments.keys() == window.segments.keys()
        for key, segments in whole.segments.items():
            size = sum(len(text.encode()) for text in segments)
            omission = window.omissions.get(key)
            if omission is None:
                assert window.segments[key] == segments
                continue
            assert size > limit
            head, tail = segments[: omission.segment], segments[omission.segment + omission.count :]
            assert window.segments[key] == head + tail
            assert omission.bytes == size - sum(len(text.encode()) for text in head + tail)
            assert all(sum(len(text.encode()) for text in part) >= limit // 2 for part in (head, tail))
            assert sum(len(text.encode()) for text in head[:-1] + tail[1:]) <= limit
        for row in window.executions:
            for position, output in enumerate(row.outputs):
                assert output.text == "".join(window.segments.get((row.id, position), ()))


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_of_many_outputs_the_window_has_the_first_and_the_last_and_says_how_many_lack(count: int) -> None:
    with closing(Store.open(None)) as store:
        begin(store)
        write(store, PutExecution("e", {"seq": 1}), *ran(2, text="short"))
        for position in range(count):
            write(store, AddOutput("e", position, stream()), WriteText("e", position, 0, None, str(position)))
        store.flush()
        row, other = store.window(9, outputs=4).executions
        kept = [position for position in range(count) if position < 2 or position >= count - 2]
        assert [output.text for output in row.outputs] == [str(position) for position in kept]
        assert list(row.positions()) == kept
        assert row.omitted_outputs == (count - 4 if count > 4 else None)
        assert other.omitted_outputs is None


def test_the_window_leaves_out_what_a_document_of_its_size_would_not_keep() -> None:
    with closing(Store.open(None)) as store:
        begin(store)
        for seq, cell in enumerate(["a", None, "b", None, "c", "b", None], 1):
            changes = ran(seq, text="x" * 1000)
            write(store, *changes, PutExecution(changes[0].execution, {"cell": cell}))
        store.flush()
        assert [row.seq for row in store.window(50, window_bytes=4000).executions] == [1, 2, 3, 4, 5, 6, 7]
        assert [row.seq for row in store.window(50, window_bytes=2200).executions] == [1, 5, 6, 7]
        assert [row.seq for row in store.window(50, window_bytes=1).executions] == [7]


# --- requests -----------------------------------------------------------------------------------------------


def asked(ordinal: int, **columns: Any) -> Request:
    """A request for ``print(1)``."""
    values = {"action": "execute", "by": "ann", "columns": {"code": "print(1)"}, "received_at": 5.0, "digest": "d"}
    return replace(Request(id=f"q-{ordinal:03}", ordinal=ordinal, **values), **columns)


def put(store: Store, *requests: Request, now: float = 60.0) -> list[Exception | None]:
    told: list[Exception | None] = []
    store.put_requests(requests, now=now, done=told.append)
    return told


def finished_at(store: Store, key: str) -> float | None:
    with store._reading() as connection:
        row: tuple[float | None] = connection.execute(
            "SELECT finished_at FROM requests WHERE id = ?", (key,)
        ).fetchone()
    return row[0]


def test_a_request_is_read_back_as_it_was_put(store: Store) -> None:
    assert (store.requests(open_only=False), store.request("q"), store.last_ordinal()) == ([], None, 0)
    columns = {
        "code": "x = 'é\0\U0001f600'\r\n", "cell": None, "stop_on_error": True, "n": [1.5],
        "user_expressions": {"ä": "1"},
    }  # fmt: skip
    first = Request(
        id="ä/1", action="execute", by="Änn", columns=columns, digest="sha", ordinal=7, received_at=3.5,
        state=RequestState.ACCEPTED, execution="e", reason="später",
    )  # fmt: skip
    told = put(store, first, second := asked(9))
    store.flush()
    assert told == [None]
    assert store.requests(open_only=True) == store.requests(open_only=False) == [first, second]
    assert (store.request("ä/1"), store.request("ä"), store.last_ordinal()) == (first, None, 9)
    assert store.health == Health()


def test_a_request_with_a_lone_surrogate_is_stored_as_the_document_has_it(store: Store) -> None:
    put(store, asked(1, id="\ud800", by="\udfff", columns={"code": "'\ud800'"}))
    store.flush()
    found = store.request("\ud800")
    assert found is not None
    assert (found.id, found.by, found.columns) == ("\ufffd", "\ufffd", {"code": "'\ud800'"})


def test_requests_come_in_the_order_of_their_ordinals_and_the_last_word_counts(store: Store) -> None:
    held = asked(2, state=RequestState.HELD, reason="the agent stopped")
    put(store, asked(3), asked(2), asked(1))
    put(store, held, asked(3, state=RequestState.ACCEPTED, execution="e3"))
    told = put(store)
    store.flush()
    assert told == [None]
    assert store.requests(open_only=True) == [asked(1), held, asked(3, state=RequestState.ACCEPTED, execution="e3")]


@pytest.mark.parametrize("state", sorted(REQUEST_END_STATES))
def test_an_ended_request_keeps_its_id_and_how_it_ended_and_nothing_that_was_asked(
    store: Store, state: RequestState
) -> None:
    ended = asked(1, state=state, execution="e1", reason="because")
    put(store, asked(1), asked(2))
    put(store, ended, now=77.0)
    store.flush()
    assert store.requests(open_only=False) == [replace(ended, columns={}), asked(2)]
    assert store.requests(open_only=True) == [asked(2)]
    assert [finished_at(store, key) for key in ("q-001", "q-002")] == [77.0, None]


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 5), st.sampled_from(RequestState), JSON, TEXT), max_size=4), max_size=6)
)
def test_any_requests_read_back_as_they_were_put_last(calls: list[list[tuple[int, RequestState, Any, str]]]) -> None:
    oracle: dict[int, Request] = {}
    with closing(Store.open(None)) as store:
        for call in calls:
            made = [asked(n, state=state, columns=columns, by=by) for n, state, columns, by in call]
            put(store, *made)
            for request in made:
                ended = request.state in REQUEST_END_STATES
                oracle[request.ordinal] = replace(request, columns={}) if ended else request
        store.flush()
        assert store.requests(open_only=False) == [oracle[key] for key in sorted(oracle)]
        assert store.requests(open_only=True) == [
            oracle[key] for key in sorted(oracle) if oracle[key].state not in REQUEST_END_STATES
        ]
        assert store.last_ordinal() == max(oracle, default=0)


def test_what_is_acknowledged_is_there_for_everybody(path: Path, until: Until) -> None:
    """Inside the callback another connection reads the request, and what was written before it."""
    seen: list[Any] = []

    def look(exc: Exception | None) -> None:
        with closing(sqlite3.connect(path)) as other:
            seen.append((exc, other.execute("SELECT id, (SELECT id FROM executions) FROM requests").fetchall()))

    with closing(Store.open(path, delay_s=0.0)) as store:
        begin(store)
        write(store, *ran(1))
        store.put_requests([asked(1)], now=1.0, done=look)
        until(lambda: seen, "the acknowledgement")
    assert seen == [(None, [("q-001", "id-001")])]


def test_the_store_can_be_read_and_written_inside_the_callback(store: Store, until: Until) -> None:
    seen: list[Any] = []

    def look(exc: Exception | None) -> None:
        seen.append((exc, store.request("q-001")))
        store.put_requests([asked(2)], now=1.0, done=seen.append)

    store.put_requests([asked(1)], now=1.0, done=look)
    until(lambda: len(seen) == 2, "both to be told")
    assert seen == [(None, asked(1)), None]


def commits(store: Store, work: Callable[[], object]) -> list[str]:
    """Under which ``synchronous`` each transaction was committed."""
    statements: list[str] = []
    store._do(lambda c: c.set_trace_callback(statements.append)).result()
    work()
    store.flush()
    store._do(lambda c: c.set_trace_callback(None)).result()
    found, level = [], "NORMAL"
    for statement in statements:
        if statement.startswith("PRAGMA synchronous = "):
            level = statement.rpartition(" ")[2]
        elif statement == "COMMIT":
            found.append(level)
    return found


def test_what_an_agent_writes_when_a_later_one_has_begun_is_refused(path: Path) -> None:
    with closing(Store.open(path)) as old, closing(Store.open(path)) as new:
        begin(old)
        write(old, *ran(1))
        old.flush()
        begin(new, relay_id="r2")
        changes, requests = write(old, *ran(2), seq=2), put(old, asked(1))
        old.flush()
        write(new, *ran(3), relay_id="r2")
        new.flush()
        assert [str(error) for error in changes + requests] == ["a later agent goes on with this history"] * 2
        assert [row.code for row in new.history()[0]] == ["print(1)"] * 2
        assert new.requests(open_only=False) == []


def test_requests_are_synced_and_nothing_else_is(path: Path, tmp_path: Path) -> None:
    with closing(Store.open(path)) as store:
        begin(store)
        assert commits(store, lambda: put(store, asked(1))) == ["EXTRA"]
        assert commits(store, lambda: write(store, *ran(1))) == ["NORMAL"]
        done = asked(1, state=RequestState.DONE, execution="id-001")
        assert commits(store, lambda: write(store, *ran(2), requests=[done])) == ["NORMAL"]
        assert store.request("q-001") == replace(done, columns={})
        assert commits(store, lambda: store.clear().result()) == ["NORMAL"]
        pragmas = [f"PRAGMA {name}" for name in ("synchronous", "fullfsync", "secure_delete")]
        assert store._do(lambda c: [c.execute(pragma).fetchone()[0] for pragma in pragmas]).result() == [1, 0, 0]
    with closing(Store.open(tmp_path / "b.sqlite3", sync_requests=False)) as store:
        assert commits(store, lambda: put(store, asked(1))) == ["NORMAL"]


def test_requests_that_come_together_share_a_transaction_and_a_call_is_never_split(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both() -> None:
        with store._wake:
            put(store, asked(1), asked(2))
            put(store, asked(3), asked(4))

    with closing(Store.open(path)) as store:
        assert commits(store, both) == ["EXTRA"]
        monkeypatch.setattr(stores, "BATCH_BYTES", 1)
        assert commits(store, both) == ["EXTRA", "EXTRA"]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_what_an_ended_request_had_asked_is_not_in_the_file(
    path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtc_kernel.agent.keep.files.on_network", lambda path: journal == "delete")
    with closing(Store.open(path)) as store:
        begin(store)
        store._do(lambda c: c.execute("PRAGMA secure_delete = OFF")).result()  # some builds begin with ON
        for size in (1, 30, 3000):  # inside a page, and over several
            for at in range(20):
                put(store, asked(at, columns={"code": "secret " * size}))
                put(store, asked(at, columns={"code": "secret " * size}, state=RequestState.ACCEPTED, execution="e"))
                write(store, *ran(at))
                store.flush()
            put(store, *(asked(at, columns={"code": "secret"}, state=RequestState.DONE) for at in range(20)))
        store.flush()
        store._do(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()).result()
        assert b"secret" not in path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_only_the_newest_ended_requests_are_kept_and_all_open_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "REQUESTS_KEPT", 5)
    monkeypatch.setattr(stores, "PRUNE_EVERY", 10)
    put(store, *(asked(at) for at in range(1, 30)))

    def end(*ordinals: int) -> list[int]:
        put(store, *(asked(at, state=RequestState.DONE) for at in ordinals))
        store.flush()
        return [request.ordinal for request in store.requests(open_only=False)]

    assert end(*range(1, 10), *range(12, 20)) == [*range(1, 30)]  # the tenth has not ended: nobody looks
    assert end(20) == [10, 11, *range(16, 30)]
    assert end(10) == [11, *range(16, 30)]
    assert store.last_ordinal() == 29


def test_beginning_and_clearing_leave_the_requests_alone(path: Path) -> None:
    expected = [
        asked(1, state=RequestState.DONE, execution="id-001", columns={}),
        asked(2, state=RequestState.ACCEPTED, execution="e2"),
        asked(3, state=RequestState.HELD),
        asked(4),
    ]
    with closing(Store.open(path)) as store:
        begin(store)
        write(store, *ran(1, request="q-001"))
        put(store, *expected)
    with closing(Store.open(path)) as store:
        assert begin(store).resumed
        assert store.requests(open_only=False) == expected
        assert begin(store, relay_id="r2").generation == 1
        assert store.clear().result() == 1
        assert store.requests(open_only=False) == expected
        assert store.last_ordinal() == 4


def test_the_states_of_executions_are_told_by_their_ids(store: Store) -> None:
    write(store, PutExecution("on", {"seq": 900, "state": "running"}), *(c for seq in range(1, 600) for c in ran(seq)))
    store.flush()
    ids = [f"id-{seq:03}" for seq in range(1, 600)]
    states = store.execution_states([*ids, "on", "none", "\ud800"])
    assert states == dict.fromkeys(ids, ExecutionState.OK) | {"on": ExecutionState.RUNNING}
    assert store.execution_states([]) == {}
    begin(store, relay_id="r2")
    assert store.execution_states(["on", "none"]) == {"on": ExecutionState.LOST}


def test_requests_and_writes_of_many_threads_are_all_stored_in_each_threads_order(store: Store) -> None:
    wrong: list[Any] = []

    def work(thread: int) -> None:
        for at in range(1, 41):
            ordinal = thread * 100 + at
            write(store, *ran(ordinal, id=f"e{ordinal}"))

            def look(exc: Exception | None, ordinal: int = ordinal) -> None:
                if exc is not None or f"e{ordinal}" not in store.execution_states([f"e{ordinal}"]):
                    wrong.append((ordinal, exc))

            store.put_requests([asked(ordinal)], now=1.0, done=look)
            done = asked(ordinal, state=RequestState.DONE, execution=f"e{ordinal}")
            put(store, done)
            wrong.extend(request for request in store.requests(open_only=True) if request.columns == {})

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert not wrong
    assert len(store.requests(open_only=False)) == store.count() == 160
    assert store.requests(open_only=True) == []


# --- questions ----------------------------------------------------------------------------------------------


def test_history_is_paged_newest_first_and_forward_from_after(store: Store) -> None:
    write(store, *(change for seq in range(1, 8) for change in ran(seq)))
    store.flush()

    def seqs(**query: Any) -> tuple[list[int], int | None]:
        found, following = store.history(**query)
        return [row.seq for row in found], following

    assert seqs(limit=3) == ([7, 6, 5], 5)
    assert seqs(limit=3, before=5) == ([4, 3, 2], 2)
    assert seqs(limit=3, before=2) == ([1], None)
    assert seqs(limit=3, after=2) == ([3, 4, 5], 5)
    assert seqs(limit=3, after=5) == ([6, 7], None)
    assert seqs(after=2, before=5) == ([4, 3], None)
    assert seqs(limit=7) == ([7, 6, 5, 4, 3, 2, 1], None)


def test_a_brief_page_has_the_beginning_of_the_code_and_no_outputs(store: Store) -> None:
    write(store, *ran(1, code="é" * 300), *ran(2, text="needle"))
    store.flush()
    (second, first), _ = store.history(brief=True)
    assert (first.code, first.omitted_code_bytes, first.outputs) == ("é" * 200, 200, ())
    assert (second.omitted_code_bytes, second.state, second.outputs) == (None, ExecutionState.OK, ())
    assert [row.seq for row in store.history(brief=True, text="needle")[0]] == [2]


def test_a_page_of_excerpts_says_what_is_left_out(store: Store) -> None:
    write(store, *ran(1, code="x" * 100, text="head"))
    for segment in range(1, 10):
        write(store, WriteText("id-001", 0, segment, None, str(segment) * 10))
    write(store, AddOutput("id-001", 1, stream()), WriteText("id-001", 1, 0, None, "tail"))
    store.flush()
    (row,), _ = store.history(ends=Ends(stream_bytes=20, together=True, code_bytes=30))
    assert (row.code, row.omitted_code_bytes) == ("x" * 30, 70)
    first, last = row.outputs
    assert (first.text, first.omitted_index, first.omitted_bytes) == ("head" + "1" * 10 + "9" * 10, 14, 70)
    assert (last.text, last.omitted_bytes) == ("tail", None)
    (row,), _ = store.history(ends=Ends(outputs=1))
    assert (len(row.outputs), row.omitted_outputs) == (1, 1)
    whole = store.execution("id-001")
    assert whole is not None
    assert [output.omitted_bytes for output in whole.outputs] == [None, None]


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=4), st.integers(1, 40))
def test_ends_together_are_of_the_limit_and_what_lacks_is_named(streams: list[list[int]], limit: int) -> None:
    with closing(Store.open(None)) as store:
        begin(store)
        write(store, PutExecution("e", {"seq": 1}))
        texts = []
        for position, sizes in enumerate(streams):
            write(store, AddOutput("e", position, stream()))
            for segment, size in enumerate(sizes):
                write(store, WriteText("e", position, segment, None, "é" * size))
            texts.append("é" * sum(sizes))
        store.flush()
        (row,), _ = store.history(ends=Ends(stream_bytes=limit, together=True))
        total = sum(len(text.encode()) for text in texts)
        here = sum(len((output.text or "").encode()) for output in row.outputs)
        assert here + sum(output.omitted_bytes or 0 for output in row.outputs) == total
        assert here <= limit + 2 * 18, "whole segments"
        assert total > limit or here == total
        assert all(0 <= (output.omitted_index or 0) <= len(output.text or "") for output in row.outputs)


def test_a_page_ends_where_it_would_be_large(store: Store) -> None:
    write(store, *(change for seq in range(1, 6) for change in ran(seq, text="x" * 100)))
    store.flush()

    def seqs(**query: Any) -> tuple[list[int], int | None]:
        found, following = store.history(**query)
        return [row.seq for row in found], following

    assert seqs(page_bytes=250) == ([5, 4], 4)
    assert seqs(page_bytes=250, before=4) == ([3, 2], 2)
    assert seqs(page_bytes=250, before=2) == ([1], None)
    assert seqs(page_bytes=50) == ([5], 5), "one is there anyway"
    assert seqs(page_bytes=250, ends=Ends(stream_bytes=60)) == ([5, 4, 3, 2], 2)
    assert seqs(page_bytes=250, brief=True) == ([5, 4, 3, 2, 1], None)
    assert seqs(page_bytes=250, after=0) == ([1, 2], 2)


def test_an_outline_and_the_pieces_of_its_texts_are_the_whole(store: Store) -> None:
    write(store, *ran(1, text="0"))
    for segment in range(1, 30):
        write(store, WriteText("id-001", 0, segment, None, str(segment)))
    store.flush()
    outline = store.outline("id-001")
    assert outline is not None
    assert [output.text for output in outline.outputs] == [""]
    whole = "".join(map(str, range(30)))
    assert "".join(store.text("id-001", 0)) == whole
    assert store.text_piece("id-001", 0, 10, 3) == ["10", "11"]
    assert store.text_piece("id-001", 0, 30, 3) == []
    assert store.outline("nothing") is None


def test_history_is_searched_in_code_and_outputs(store: Store) -> None:
    write(store, *ran(1, code="Straße = 1"), *ran(2, text="loss: 0.25\nacc: 1"), *ran(3, state="error", cell="c"))
    write(
        store, WriteText("id-002", 0, 1, None, "23 across"), PutExecution("id-001", {"generation": 1, "kernel": "k2"})
    )
    plot = Output(output_type="display_data", at=1.0, data={"text/plain": "<Figure 7>", "text/html": "<b>bold</b>"})
    write(
        store,
        AddOutput("id-003", 1, plot),
        AddOutput("id-003", 2, Output(output_type="error", at=1.0, ename="KeyError", evalue="'k'")),
    )
    store.flush()

    def seqs(**query: Any) -> list[int]:
        return [row.seq for row in store.history(**query)[0]]

    assert seqs(text="STRASSE") == [1]
    assert seqs(grep=r"^acc: 123") == [2]  # across two segments
    assert seqs(grep=r"loss: 0\.\d+$") == [2]
    assert seqs(grep="KeyError: 'k'") == [3]
    assert seqs(text="figure 7") == [3]
    assert seqs(text="bold") == []
    assert seqs(text="print", grep="Fig") == [3]
    assert seqs(state="error") == [3]
    assert seqs(state=ExecutionState.OK, text="1") == [2, 1]
    assert seqs(cell="c") == [3]
    assert seqs(generation=1) == [1]
    assert seqs(kernel="k1") == [3, 2]


def test_a_search_goes_on_until_its_page_is_full(store: Store) -> None:
    write(store, *(c for seq in range(1, 601) for c in ran(seq, code="even" if seq % 2 == 0 else "odd")))
    store.flush()
    found, following = store.history(grep="even", limit=290)
    assert (len(found), found[0].seq, following) == (290, 600, 22)
    found, following = store.history(grep="even", limit=290, before=following)
    assert ([row.seq for row in found], following) == ([20, 18, 16, 14, 12, 10, 8, 6, 4, 2], None)


@pytest.mark.parametrize("query", [{"grep": "("}, {"state": "done"}, {"text": "x" * 1001}, {"grep": "x" * 1001}])
def test_a_wrong_question_is_told(store: Store, query: dict[str, str]) -> None:
    with pytest.raises(SetupError):
        store.history(**query)  # type: ignore[arg-type]


def test_an_execution_is_found_by_id_prefix_and_number(store: Store) -> None:
    write(store, *ran(1, id="abcd1"), *ran(2, id="abcd2"), *ran(3, id="12345678"), *ran(12, id="zz"))
    store.flush()
    found = {key: row.seq if (row := store.execution(key)) else None for key in
             ("abcd1", "abcd", "1234", "12", "#12", "3", "zz", "z", "none", "", "#", "9" * 30)}  # fmt: skip
    assert found == {
        "abcd1": 1, "abcd": None, "1234": 3, "12": 12, "#12": 12, "3": 3, "zz": 12, "z": None, "none": None, "": None,
        "#": None, "9" * 30: None,
    }  # fmt: skip
    assert store.matches("abcd") == ["abcd2", "abcd1"]


def test_clear_forgets_what_is_finished_and_what_nothing_names(store: Store) -> None:
    kept = "sha256:" + "1" * 64
    shown = Output(output_type="display_data", at=1.0, data={"image/png": {"blob": DIGEST, "bytes": 1}})
    write(store, *ran(1, text="secret"), AddOutput("id-001", 1, shown), PutBlob(DIGEST, b"x", "image/png"), *ran(2))
    write(store, PutExecution("on", {"seq": 3, "state": "running"}), PutBlob(kept, b"y", "image/png"))
    write(store, PutComm("c", {"opened_at": 1.0}), MergeCommState("c", {"v": {"blob": kept, "b": b"\0"}}))
    assert store.clear(before=52.0).result() == 1
    assert [row.seq for row in store.history()[0]] == [3, 2]
    assert (store.blob(DIGEST), store.blob(kept)) == (None, (b"y", "image/png"))
    assert store.clear().result() == 1
    assert [row.seq for row in store.history()[0]] == [3]
    write(store, PutExecution("on", {"state": "ok", "finished_at": 90.0}))
    assert store.clear().result() == 1
    assert begin(store).next_seq == 4
    if store.path is not None:
        assert b"secret" not in store.path.read_bytes() + store.path.with_name(store.path.name + "-wal").read_bytes()


def test_reads_are_safe_from_any_thread_while_it_is_written(store: Store) -> None:
    """A reader never sees half of a transaction: an execution comes with its output and its text."""
    wrong: list[str] = []

    def read() -> None:
        for _ in range(30):
            wrong.extend(row.id for row in store.window(500).executions if row.outputs[0].text != f"text {row.seq}")

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for seq in range(1, 101):
        write(store, *ran(seq, text=f"text {seq}"), seq=seq)
    for reader in readers:
        reader.join()
    store.flush()
    assert not wrong
    assert len(store.window(500).executions) == 100


def test_clear_gives_the_disk_back(path: Path) -> None:
    """``PRAGMA incremental_vacuum`` gives back one page for each row fetched, and ``execute`` fetches one."""
    with closing(Store.open(path)) as store:
        begin(store)
        empty = store._do(lambda c: c.execute("PRAGMA page_count").fetchone()[0]).result()
        write(store, *ran(1, text="x" * 3_000_000))
        store.clear().result()
        assert path.stat().st_size <= (empty + 5) * 4096


# --- what is said of executions that have left --------------------------------------------------------------


def test_what_is_said_of_an_execution_that_has_left_makes_no_row(store: Store) -> None:
    display = Output(output_type="display_data", at=1.0, data={}, metadata={})
    write(
        store,
        PutExecution("gone", {"state": "ok", "metadata": {"a": 1}}),
        AddOutput("gone", 0, display),
        SetOutput("gone", 0, display),
        WriteText("gone", 0, 0, None, "x", 5.0),
        ClearOutputs("gone"),
    )
    store.flush()
    assert store.count() == 0
    assert strays(store) == []
    assert store.health == Health()


def strays(store: Store) -> list[str]:
    """Tables with rows that belong to nothing, after a pass of retention: there are never any."""
    executions, comms = "SELECT row FROM executions", "SELECT id FROM comms"
    named = "SELECT digest FROM uses UNION SELECT digest FROM comm_uses"
    length = "SELECT sum(length(CAST(text AS BLOB))) FROM segments s WHERE s.execution = o.execution"
    wrong = {
        **{table: f"{table} WHERE execution NOT IN ({executions})" for table in edit.OF_EXECUTIONS},
        **{table: f"{table} WHERE comm NOT IN ({comms})" for table in edit.OF_COMMS},
        "blobs": f"blobs WHERE digest NOT IN ({named})",
        "parts": "parts WHERE blob NOT IN (SELECT row FROM blobs)",
        "places": "marks LEFT JOIN segments USING (execution, position, segment) WHERE text IS NULL",
        "bytes": "outputs o WHERE output_type = 'stream' AND bytes !="
        f" coalesce(({length} AND s.position = o.position), 0)",
        "loose": "loose",
        "trash": "trash",
    }
    with store._reading() as connection:
        return [name for name, rest in wrong.items() if connection.execute(f"SELECT 1 FROM {rest}").fetchone()]


def bytes_of(store: Store) -> dict[str, int]:
    with store._reading() as connection:
        return dict(connection.execute("SELECT id, bytes FROM executions").fetchall())


# --- the text of one execution has a limit ------------------------------------------------------------------


def test_text_beyond_the_limit_of_an_execution_is_left_out_and_the_row_says_how_much(path: Path) -> None:
    with closing(Store.open(path, execution_bytes=100)) as store:
        begin(store)
        write(store, *ran(1, code="", text="a" * 60), *ran(2, text="b" * 30))
        write(store, WriteText("id-001", 0, 0, None, "é" * 25))  # 20 of them fit
        write(store, WriteText("id-001", 0, 1, None, "c" * 7), PutExecution("id-001", {"metadata": {"mine": 1}}))
        store.flush()
        assert store.take_truncated() == {"id-001": {"bytes": 17}}
        write(store, WriteText("id-001", 0, 2, None, "d" * 7), AddOutput("id-001", 1, stream()))
        write(store, WriteText("id-001", 1, 0, None, "e"))
        store.flush()
        found = store.execution("#1")
        assert found is not None
        assert [output.text for output in found.outputs] == ["a" * 60 + "é" * 20, ""]
        assert found.metadata == {"mine": 1, "rtc_truncated": {"bytes": 25}}
        assert store.take_truncated() == {}  # it has not doubled
        other = store.execution("#2")
        assert other is not None
        assert other.metadata == {}
    with closing(Store.open(path, execution_bytes=100)) as store:
        write(store, WriteText("id-001", 0, 3, None, "f" * 5))
        store.flush()
        found = store.execution("#1")
        assert found is not None
        assert found.metadata["rtc_truncated"] == {"bytes": 30}
        write(store, ClearOutputs("id-001"), AddOutput("id-001", 0, stream()), WriteText("id-001", 0, 0, None, "new"))
        store.flush()
        found = store.execution("#1")
        assert found is not None
        assert (found.outputs[0].text, found.metadata) == ("new", {"mine": 1})
        assert store.take_truncated() == {"id-001": None}


def stream(name: str = "stdout", at: float = 1.0) -> Output:
    return Output(output_type="stream", at=at, name=name, text="")


def test_a_line_that_is_rewritten_at_the_limit_stays_within_it(path: Path) -> None:
    with closing(Store.open(path, execution_bytes=100)) as store:
        begin(store)
        write(store, *ran(1, code="", text="line\n" * 19), WriteText("id-001", 0, 1, None, "0 %"))
        for at in range(100):
            write(store, WriteText("id-001", 0, 1, 0, f"{at} % and more"), WriteText("id-001", 0, 1, None, "!"))
        store.flush()
        found = store.execution("#1")
        assert found is not None
        assert found.outputs[0].text is not None
        assert len(found.outputs[0].text) <= 100
        assert found.outputs[0].text.startswith("line\n" * 19)


# --- marks --------------------------------------------------------------------------------------------------


def written(*steps: tuple[int, int | None, str, float], at: float = 1.0) -> list[Change]:
    """A stream that began at ``at`` and was written so."""
    first: list[Change] = [PutExecution("e", {"seq": 1}), AddOutput("e", 0, stream(at=at))]
    return first + [WriteText("e", 0, segment, keep, text, when) for segment, keep, text, when in steps]


def marks(store: Store) -> list[tuple[int, int, float]]:
    store.flush()
    return [(mark.segment, mark.chars, mark.at) for mark in store.marks("e")]


def test_text_that_comes_later_has_its_mark(store: Store) -> None:
    write(store, *written((0, None, "one\n", 1.0), (0, None, "two\n", 3.0), (1, None, "é\0", 4.0)))
    write(store, WriteText("e", 0, 1, None, "!", 9.0), AddOutput("e", 1, stream("stderr", at=9.5)))
    write(store, WriteText("e", 1, 0, None, "x", 9.5), WriteText("e", 1, 0, None, "y", 11.0))
    store.flush()
    assert store.marks("e") == [
        Mark(0, 0, 4, 1.0), Mark(0, 0, 8, 3.0), Mark(0, 1, 2, 4.0), Mark(0, 1, 3, 9.0),
        Mark(1, 0, 1, 9.5), Mark(1, 0, 2, 11.0),
    ]  # fmt: skip
    assert store.growth("e") == {0: [(4, 1.0), (8, 3.0), (10, 4.0), (11, 9.0)], 1: [(1, 9.5), (2, 11.0)]}
    assert store.segments("e") == {0: ["one\ntwo\n", "é\0!"], 1: ["xy"]}
    assert (store.marks("none"), store.segments("none")) == ([], {})


def test_text_that_comes_at_once_or_at_an_unknown_time_needs_no_mark(store: Store) -> None:
    write(store, *written((0, None, "a", 1.0), (0, None, "b", 1.049), (0, None, "c", 1.02)))
    write(store, WriteText("e", 0, 0, None, "d"))
    assert marks(store) == []


def test_text_is_told_apart_from_what_came_behind_a_pause(store: Store) -> None:
    """Lines within 50 ms share a mark, at the time of the last; text that is rewritten has none of its own."""
    write(store, *written((0, None, "a", 1.0), (0, None, "b", 1.03), (0, None, "c", 2.0), (0, 2, "d", 3.0)))
    assert marks(store) == [(0, 2, 1.03), (0, 3, 3.0)]
    write(store, WriteText("e", 0, 0, None, "e", 3.01), WriteText("e", 0, 0, 1, "f", 4.0))
    assert marks(store) == [(0, 2, 4.0)]


def test_a_flood_has_few_marks(store: Store) -> None:
    """200 bytes in each of 20 000 milliseconds; what marks take is told by SQLite where it can."""
    text, changes = "x" * 199 + "\n", written()
    for at in range(20_000):
        changes.append(WriteText("e", 0, at // 25, None, text, 1.0 + at / 1000))
    write(store, *coalesce(changes))
    found = marks(store)
    assert 100 < len(found) <= 4000
    assert all(later[2] - mark[2] >= edit.MARK_S - 1e-6 for mark, later in itertools.pairwise(found))
    with store._reading() as connection:
        values = connection.execute("SELECT sum(8 + length(hex(segment)) / 2 + 2 + 8 + 4) FROM marks").fetchone()
    assert values[0] <= 0.05 * 200 * 20_000


def test_a_bar_that_is_rewritten_for_hours_leaves_no_trail_of_marks(store: Store) -> None:
    changes = written()
    for at in range(5000):
        changes.append(WriteText("e", 0, 0, 0, f"{at:5} |{'#' * (at // 100)}", 1.0 + at))
    write(store, *changes)
    assert len(marks(store)) == 1
    write(store, WriteText("e", 0, 0, 3, "end", 9000.0))
    assert marks(store) == [(0, 6, 9000.0)]


STEPS_OF_TEXT = st.lists(
    st.tuples(st.integers(0, 4), st.none() | st.integers(0, 12), TEXT, st.floats(0.0, 0.3)), max_size=20
)


@settings(max_examples=80)
@given(st.lists(STEPS_OF_TEXT, max_size=3), st.sampled_from([0, 20]))
def test_marks_go_forward_inside_the_text_and_all_later_text_has_one(batches: list[Any], limit: int) -> None:
    now, count, last = 1.0, 0, 1.0
    with closing(Store.open(None, execution_bytes=limit)) as store:
        begin(store)
        write(store, *written())
        for batch in batches:
            for segment, keep, text, pause in batch:
                now += pause
                segment %= count + 1
                count = segment + 1
                write(store, WriteText("e", 0, segment, keep, text, now))
                last = now
            store.flush()
        found, texts = marks(store), store.segments("e").get(0, [])
        assert all(segment < len(texts) and chars <= len(texts[segment]) for segment, chars, _ in found)
        assert sorted(found) == found
        assert [at for *_, at in found] == sorted(at for *_, at in found)
        assert strays(store) == []
        if limit:
            assert sum(len(text.encode()) for text in texts) <= limit
        elif texts and found and found[-1][:2] != (len(texts) - 1, len(texts[-1])):
            assert last - found[-1][2] <= sum(pause for batch in batches for *_, pause in batch)


# --- retention ----------------------------------------------------------------------------------------------


def shown(seq: int, digest: str, data: bytes = b"", **columns: Any) -> list[Change]:
    """An execution that showed a picture, which is a blob."""
    picture = Output(output_type="display_data", at=1.0, data={"image/png": {"blob": digest, "bytes": len(data)}})
    return [*ran(seq, **columns), PutBlob(digest, data, "image/png"), AddOutput(f"id-{seq:03}", 1, picture)]


def digest_of(number: int) -> str:
    return f"sha256:{number:064x}"


def retain(store: Store, now: float = 100.0, **limits: Any) -> upkeep.Pruned:
    return store.retain(Limits(**{"newest": 0, **limits}), now).result()


def test_the_oldest_go_with_all_that_was_theirs(store: Store) -> None:
    for seq in range(1, 31):
        write(store, *ran(seq, text="x" * 9000, cell=f"c{seq}"), WriteText(f"id-{seq:03}", 0, 1, None, "y", 70.0))
    write(store, PutExecution("on", {"seq": 0, "state": "running"}))
    store.flush()
    before = store.history(limit=10)[0]
    pruned = retain(store, executions=11)
    assert (pruned.executions_count, pruned.executions_left) == (20, 11)
    assert [row.seq for row in store.history()[0]] == [*range(30, 20, -1), 0]
    assert store.history(limit=10)[0] == before
    assert strays(store) == []
    assert retain(store, executions=11).executions_count == 0
    assert store.execution("id-001") is None


def test_the_newest_50_stay_whatever_the_limits_say(store: Store) -> None:
    write(store, *(change for seq in range(1, 61) for change in ran(seq)))
    assert store.retain(Limits(days=1, executions=1, bytes=1), now=1e9).result().executions_count == 10
    assert store.count() == 50


def test_blobs_go_with_the_last_who_names_them(store: Store) -> None:
    big, shared, stated = digest_of(1), digest_of(2), digest_of(3)
    write(store, *shown(1, big, b"b" * (3 * edit.PART_BYTES + 1)), *shown(2, shared, b"s"), *shown(3, shared, b"s"))
    write(store, PutBlob(stated, b"t", "x/y"), PutComm("c", {"opened_at": 1.0}))
    write(store, MergeCommState("c", {"v": {"deep": [{"blob": stated}]}, "w": 1}))
    write(store, PutBlob(digest_of(4), b"named by nobody", "x/y"))
    store.flush()
    assert store.blob(big) == (b"b" * (3 * edit.PART_BYTES + 1), "image/png")
    retain(store, executions=2)
    assert [store.blob(key) is None for key in (big, shared, stated, digest_of(4))] == [True, False, False, True]
    assert strays(store) == []
    write(store, MergeCommState("c", {"v": None}))
    retain(store, executions=1)
    assert [store.blob(key) is None for key in (shared, stated)] == [False, True]
    retain(store, days=1, now=1e9)
    assert store.blob(shared) is None
    assert strays(store) == []


def test_a_picture_that_was_replaced_is_freed_and_one_that_came_back_is_kept(store: Store) -> None:
    first, second = digest_of(1), digest_of(2)
    write(store, *shown(1, first, b"1"))
    new = Output(output_type="display_data", at=2.0, data={"image/png": {"blob": second}})
    write(store, PutBlob(second, b"2", "image/png"), SetOutput("id-001", 1, new))
    retain(store)
    assert (store.blob(first), store.blob(second)) == (None, (b"2", "image/png"))
    write(store, *shown(2, first, b"1"), ClearOutputs("id-001"))
    retain(store)
    assert (store.blob(first), store.blob(second)) == ((b"1", "image/png"), None)


def test_of_closed_comms_the_newest_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "COMMS_KEPT", 3)
    for at in range(60):
        comm, blob = f"c{at}", digest_of(at)
        write(
            store, PutComm(comm, {"opened_at": 1.0, "closed_at": float(at) if at else None}), PutBlob(blob, b"x", "x")
        )
        write(store, MergeCommState(comm, {"v": {"blob": blob}}), AddCommMessage(comm, {"n": at}))
    retain(store)
    with store._reading() as connection:
        kept = {row[0] for row in connection.execute("SELECT id FROM comms")}
        for table in edit.OF_COMMS:
            assert {row[0] for row in connection.execute(f"SELECT comm FROM {table}")} == kept
    assert kept == {"c0", "c57", "c58", "c59"}
    assert [at for at in range(60) if store.blob(digest_of(at))] == [0, 57, 58, 59]


def test_words_go_with_the_last_who_says_them(store: Store) -> None:
    write(store, *ran(1, cell="old", client="s1"), *ran(2, cell="new", client="s1"), *ran(3, cell="", client="s2"))
    retain(store, executions=2)
    with store._reading() as connection:
        assert {row[0] for row in connection.execute("SELECT word FROM words")} == {"k1", "new", "s1", "", "s2"}
    write(store, *ran(4, cell="old", client="s1"))
    store.flush()
    assert [(row.cell, row.client) for row in store.history()[0]] == [("old", "s1"), ("", "s2"), ("new", "s1")]


def test_a_word_that_is_said_while_words_are_swept_stays(path: Path) -> None:
    """Only an old row says it when the pass begins; between two of its steps that row goes and a new one says it."""
    with closing(Store.open(path)) as store:
        begin(store)
        write(store, *ran(1, cell="seldom"), *ran(2), *ran(3))
        store.flush()
        connection = store._connection
        steps = upkeep._sweep_words(connection, store._editor)
        store._do(lambda c: c.execute("DELETE FROM executions WHERE seq = 1")).result()
        store._do(lambda c: next(steps)).result()
        write(store, PutExecution("id-002", {"cell": "seldom"}))
        store.flush()
        store._do(lambda c: list(steps)).result()
        found = store.execution("#2")
        assert found is not None
        assert found.cell == "seldom"


def test_the_file_shrinks_when_a_tenth_of_it_is_free(path: Path) -> None:
    with closing(Store.open(path)) as store:
        begin(store)
        for seq in range(1, 41):
            write(store, *ran(seq, text="x" * 300_000), seq=seq)
            store.flush()
        store._do(lambda c: c.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()).result()
        before = path.stat().st_size
        retain(store, executions=39)
        assert path.stat().st_size >= before  # few pages are free, and needed again soon
        retain(store, executions=4)
        assert path.stat().st_size < before / 5
        assert path.with_name(path.name + "-wal").stat().st_size <= 20 << 20
        assert store._do(lambda c: c.execute("PRAGMA integrity_check").fetchall()).result() == [("ok",)]


def test_a_history_comes_within_its_bytes_even_where_blobs_are_shared(path: Path) -> None:
    data = b"x" * 1_000_000
    with closing(Store.open(path)) as store:
        begin(store)
        for seq in range(1, 41):
            write(store, *shown(seq, digest_of(seq // 2), data), seq=seq)
        pruned = retain(store, bytes=6_000_000)
        assert 5 <= pruned.executions_left <= 12
        assert strays(store) == []
        assert path.stat().st_size <= 6_000_000 + 4096 * 1100


def test_every_step_leaves_whole_executions_and_takes_little(path: Path) -> None:
    """The clock goes forward with each look at it, so a step takes the least that it can."""
    with closing(Store.open(path)) as store:
        begin(store)
        for seq in range(1, 301):
            write(store, *ran(seq, text=f"text {seq}"))
        write(store, *ran(301, text="x" * 16_000), *ran(302), PutBlob(DIGEST, bytes(20 << 20), "x/y"))
        write(store, *(WriteText("id-301", 0, at, None, "x" * 16_000, float(at)) for at in range(1, 1000)))
        store.flush()
        texts = {row.seq: row.outputs[0].text for row in store.history(limit=1000)[0]}
        steps = upkeep.prune(
            store._connection,
            Limits(executions=1, newest=0),
            now=1.0,
            is_alive=True,
            editor=store._editor,
            clock=itertools.count(step=upkeep.STEP_S / 2).__next__,
        )
        count, left = 0, 302
        pages = store._do(lambda c: c.execute("PRAGMA page_count").fetchone()[0]).result()
        while store._do(lambda c: next(steps, "end")).result() is None:
            count += 1
            newest = store.history(limit=3)[0]
            assert {row.seq: row.outputs[0].text for row in newest}.items() <= texts.items()
            assert left - store.count() <= upkeep.PAGE_ROWS
            left = store.count()
            left_pages = store._do(lambda c: c.execute("PRAGMA page_count").fetchone()[0]).result()
            assert pages - left_pages < 1000
            pages = left_pages
        assert (left, count > 300) == (1, True)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.lists(STEPS, max_size=12), max_size=4),
    st.integers(0, 3),
    st.booleans(),
)
def test_whatever_was_written_a_pass_leaves_what_stays_as_it_was(
    batches: list[list[tuple[str, Any, Any]]], kept: int, ended: bool
) -> None:
    first: list[Change] = [PutKernel("k1", {"name": "python"})]
    first += [PutExecution(key, {"seq": seq}) for seq, key in enumerate(("e1", "e2"), 1)]
    first += [PutComm(key, {"opened_at": 0.0}) for key in ("c1", "c2")]
    oracle = Rows().apply(first)
    with closing(Store.open(None)) as store:
        begin(store)
        write(store, *first)
        for batch in batches:
            changes = []
            for step in batch:
                if (change := change_of(*step, oracle)) is not None:
                    oracle.apply([change])
                    changes.append(change)
            write(store, *changes)
            store.flush()
            pruned = store.retain(Limits(executions=kept, newest=int(not ended)), now=9.0).result()
            for row in list(oracle.executions.values()):
                if store.execution(row.id) is None:
                    assert row.state in END_STATES
                    assert kept
            assert pruned.executions_left == store.count()
            assert strays(store) == []
            stored = {row.id: row for row in store.history()[0]}
            assert all(stored[key] == oracle.executions[key] for key in stored)
            if len(stored) < 2:
                return


def test_a_pass_waits_for_no_write_and_no_write_for_a_pass(path: Path, until: Until) -> None:
    """Writes that come while a pass is under way are stored before its next step."""
    with closing(Store.open(path, delay_s=0.0)) as store:
        begin(store)
        for seq in range(1, 2001):
            write(store, *ran(seq, text="x" * 5000))
        store.flush()
        was_done: list[bool] = []
        with store._wake:  # all of it is there before the pass can end, however late this thread is
            future = store.retain(Limits(executions=50), now=1.0)
            assert store.retain(Limits(executions=50), now=2.0) is future
            for seq in range(3001, 3021):
                done = lambda _: was_done.append(future.done())  # noqa: E731 - on the writer's thread
                store.write(ran(seq), relay_id="r1", seq=seq, mirror_state=None, now=60.0, done=done)
        until(lambda: len(was_done) == 20, "the writes to be stored")
        assert not any(was_done)
        assert future.result().executions_left >= 50
        assert strays(store) == []


def test_under_load_without_a_pause_a_pass_goes_on_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "STEP_EVERY_S", 0.0)
    with closing(Store.open(path, delay_s=0.0)) as store:
        begin(store)
        write(store, *(change for seq in range(1, 200) for change in ran(seq)))
        store.flush()
        future, seq = store.retain(Limits(executions=1), now=1.0), 200
        while not future.done():
            with store._wake:  # there is always something that waits
                write(store, *ran(seq), seq=seq)
            seq += 1
        assert future.result().executions_count >= 149


def test_nothing_is_taken_away_while_the_history_cannot_be_written(store: Store, until: Until) -> None:
    write(store, *(change for seq in range(1, 100) for change in ran(seq)))
    store.flush()
    full(store, 1)
    told = write(store, *ran(100, text="x" * 400_000))
    until(lambda: told, "the failure to be told")
    with pytest.raises(SetupError, match="cannot be written"):
        store.retain(Limits(executions=1), now=1.0).result()
    assert store.count() == 99
    full(store, None)
    until(lambda: told[-1] is None, "it to be stored after all")
    assert retain(store, executions=1).executions_left == 1


def test_a_pass_that_finds_the_disk_full_ends_and_hurts_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, *(change for seq in range(1, 300) for change in ran(seq)))
    store.flush()

    def fail(*args: Any, **kwargs: Any) -> Any:
        store._connection.execute("BEGIN IMMEDIATE")
        store._connection.execute("DELETE FROM outputs")
        raise sqlite3.OperationalError("database or disk is full")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(upkeep, "_empty_trash", fail)
        with pytest.raises(sqlite3.OperationalError):
            retain(store, executions=1)
    assert store.health == Health()
    assert len(store.history()[0][0].outputs) == 1
    assert retain(store, executions=1).executions_left == 1
    assert strays(store) == []


def test_closing_ends_a_pass_and_the_next_one_goes_on(path: Path) -> None:
    with closing(Store.open(path)) as store:
        begin(store)
        write(store, *(change for seq in range(1, 1001) for change in ran(seq, text="x" * 5000)))
        store.flush()
        future = store.retain(Limits(executions=1, newest=0), now=1.0)
    with contextlib.suppress(LocalError):
        future.result()
    with pytest.raises(LocalError):
        store.retain(Limits(), now=1.0).result()
    with closing(Store.open(path)) as store:
        assert retain(store, executions=1).executions_left == 1
        assert strays(store) == []


KILLED_WHILE_PRUNING = """
import os
import sys
from pathlib import Path
from rtc_kernel.agent.keep.retention import Limits
from rtc_kernel.agent.keep.store import Store
from rtc_kernel.tables import AddOutput, Output, PutBlob, PutExecution, WriteText

left, step = int(sys.argv[2]), Store._step

def kill(self, current):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), 9)
    step(self, current)

Store._step = kill
store = Store.open(Path(sys.argv[1]), delay_s=0.0)
store.begin(relay_id="r1", kernel={"id": "k1"}, now=1.0)
at = 0
while True:
    for _ in range(100):
        at += 1
        digest = f"sha256:{at // 3:064x}"
        data = {"image/png": {"blob": digest}}
        store.write([
            PutExecution(f"e{at}", {"seq": at, "state": "ok", "finished_at": 1.0, "cell": f"c{at % 7}"}),
            PutBlob(digest, bytes(200_000), "image/png"),
            AddOutput(f"e{at}", 0, Output(output_type="display_data", at=1.0, data=data, metadata={})),
            AddOutput(f"e{at}", 1, Output(output_type="stream", at=1.0, name="stdout", text="")),
            *(WriteText(f"e{at}", 1, n, None, "x" * 5000, 2.0 + n) for n in range(20)),
        ], relay_id="r1", seq=at, mirror_state=None)
    store.flush()
    store.retain(Limits(executions=60), now=1.0).result()
"""


@pytest.mark.parametrize("after", [3, 5, 8, 15, 40])
def test_kill_9_in_a_pass_leaves_a_sound_file_and_the_next_pass_goes_on(path: Path, after: int) -> None:
    child = subprocess.run([sys.executable, "-c", KILLED_WHILE_PRUNING, str(path), str(after)], check=False)
    assert child.returncode == -signal.SIGKILL
    with closing(Store.open(path)) as store:
        assert store._do(lambda c: c.execute("PRAGMA integrity_check").fetchall()).result() == [("ok",)]
        assert all(len(row.outputs) == 2 for row in store.history()[0])
        store.retain(Limits(executions=60), now=1.0).result()
        assert store.count() <= 60
        assert strays(store) == []


# --- files of kernels that are dead -------------------------------------------------------------------------


def finished(path: Path, count: int = 20) -> Path:
    with closing(Store.open(path)) as store:
        begin(store)
        for seq in range(1, count + 1):
            write(store, *ran(seq, text="x" * 100_000))
        write(store, PutExecution("open", {"seq": count + 1, "state": "running", "queued_at": 60.0}))
    return path


def test_a_dead_kernels_file_comes_within_its_limits_and_nobody_is_spared(path: Path) -> None:
    finished(path)
    before = path.stat().st_size
    limits = Limits(executions=2)
    expected = dead.survey(path, limits, now=100.0)
    assert path.stat().st_size == before
    assert dead.prune(path, limits, now=100.0) == expected
    assert (expected.executions_count, expected.executions_left) == (19, 2)
    assert path.stat().st_size < before / 3
    with open_readonly(path) as archive:
        assert [row.seq for row in archive.history()[0]] == [21, 20]
    with closing(Store.open(path)) as store:
        assert begin(store, relay_id="r2").next_seq == 22


def test_a_dead_kernels_file_that_is_left_without_executions_is_removed(path: Path) -> None:
    finished(path)
    assert dead.prune(path, Limits(days=1), now=1e9).executions_left == 0
    assert list(path.parent.iterdir()) == []
    Store.open(path).close()
    assert dead.prune(path, Limits(), now=1.0).executions_count == 0
    assert list(path.parent.iterdir()) == []


def test_a_file_that_another_process_has_open_is_left_alone(path: Path) -> None:
    finished(path)
    code = (
        "import sys, sqlite3; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM kernels').fetchall(); print()"
    )
    code += "; sys.stdout.flush(); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdout.readline()
    for limits in (Limits(executions=1), Limits(days=1)):
        with pytest.raises(SetupError, match="open in another process"):
            dead.prune(path, limits, now=1e9)
    other.communicate("")
    assert dead.prune(path, Limits(days=1), now=1e9).executions_left == 0


def test_a_dead_kernels_file_of_an_earlier_version_is_pruned_too(old: Path) -> None:
    assert dead.survey(old, Limits(executions=1), now=1e9).executions_count == 1
    assert dead.prune(old, Limits(executions=1), now=1e9).executions_left == 1
    with open_readonly(old) as archive:
        assert [row.id for row in archive.history()[0]] == ["e2"]
        assert archive.blob(SHOWN) is None


# --- when things go wrong -----------------------------------------------------------------------------------


def test_a_full_disk_delays_but_loses_nothing(store: Store, until: Until) -> None:
    """What fails is told once, nothing of it is stored, later writes queue behind it; then all is there, in order."""
    full(store, 1)
    first = write(store, *ran(1, text="x" * 400_000), seq=1, state={"n": 1})
    until(lambda: first, "the failure to be told")
    assert isinstance(first[0], sqlite3.Error)
    assert store.health.status == "degraded"
    assert "full" in store.health.reason
    second = write(store, *ran(2), seq=2)
    until(lambda: second, "the second failure to be told")
    with pytest.raises(sqlite3.Error):
        store.flush()
    assert store.history() == ([], None)
    assert feed_of(store) == ("r1", 0)
    full(store, None)
    until(lambda: first[-1] is None and second[-1] is None, "both to be stored after all")
    assert (len(first), len(second)) == (2, 2)
    assert [row.seq for row in store.history()[0]] == [2, 1]
    assert feed_of(store) == ("r1", 2)
    assert store.health == Health()


def test_a_full_disk_delays_requests_in_order_with_all_else(store: Store, until: Until) -> None:
    full(store, 1)
    first = put(store, asked(1, columns={"code": "x" * 400_000}))
    until(lambda: first, "the failure to be told")
    assert isinstance(first[0], sqlite3.Error)
    assert store.health.status == "degraded"
    second = write(store, *ran(2))
    third = put(store, done := asked(1, state=RequestState.DONE, columns={}))
    until(lambda: second and third, "the other failures to be told")
    assert store.requests(open_only=False) == []
    full(store, None)
    until(lambda: first[-1] is second[-1] is third[-1] is None, "all to be stored after all")
    assert [len(told) for told in (first, second, third)] == [2, 2, 2]
    assert store.requests(open_only=False) == [done]
    assert store.health == Health()


def test_requests_that_find_the_queue_full_are_refused_and_make_no_hole_in_the_history(
    path: Path, until: Until
) -> None:
    with closing(Store.open(path, backlog_bytes=100_000)) as store:
        begin(store)
        full(store, 1)
        kept = write(store, *ran(1, text="x" * 90_000), seq=5)
        until(lambda: kept, "the failure to be told")
        (refusal,) = put(store, asked(1, columns={"user_expressions": {"a": ["x" * 20_000]}}))
        assert isinstance(refusal, SetupError)
        taken = put(store, asked(2))
        assert store.health.replay_after is None
        full(store, None)
        until(lambda: kept[-1] is None and taken and taken[-1] is None, "what was taken to be stored")
        assert write(store, *ran(2), seq=6) == []
        store.flush()
        assert (store.requests(open_only=False), feed_of(store)) == ([asked(2)], ("r1", 6))


def deep() -> Any:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "columns",
    [{"ordinal": 1 << 70}, {"columns": {"a": object()}}, {"execution": object()}, {"columns": {"input": deep()}}],
    ids=["too-big", "no-json", "no-sql", "too-deep"],
)
def test_requests_that_no_column_holds_are_refused_as_a_whole_and_cost_nobody_else(
    store: Store, columns: dict[str, Any]
) -> None:
    with store._wake:
        before = write(store, *ran(1))
        told = put(store, asked(1), replace(asked(2), **columns))
        after = put(store, asked(3))
    store.flush()
    assert isinstance(told[0], LocalError)
    assert (len(told), before, after) == (1, [None], [None])
    assert (store.requests(open_only=False), store.count()) == ([asked(3)], 1)
    assert store.health == Health()


def test_a_fact_that_no_column_holds_does_not_stop_the_writer(store: Store) -> None:
    store.put_fact("port", object())
    write(store, *ran(1))
    store.flush()
    assert store.count() == 1
    assert "fact" in store.health.reason


def feed_of(store: Store) -> tuple[str, int]:
    with store._reading() as connection:
        row: tuple[str, int] = connection.execute("SELECT relay_id, seq FROM feed").fetchone()
    return row


def test_a_full_queue_refuses_what_comes_later_and_says_from_where_to_replay(path: Path, until: Until) -> None:
    with closing(Store.open(path, backlog_bytes=100_000)) as store:
        begin(store)
        full(store, 1)
        kept = write(store, *ran(1, text="x" * 90_000), seq=5)
        until(lambda: kept, "the failure to be told")
        refused = write(store, *ran(2, text="x" * 90_000), seq=6)
        assert isinstance(refused[0], SetupError)
        assert store.health.replay_after == 5
        full(store, None)
        until(lambda: kept[-1] is None, "the kept write to be stored")
        assert isinstance(write(store, *ran(3), seq=7)[0], SetupError)
        assert store.health.status == "degraded"
    with closing(Store.open(path)) as store:
        assert begin(store).feed_seq == 5
        assert [row.seq for row in store.history()[0]] == [1]


@pytest.mark.parametrize(
    "change",
    [
        PutExecution("e", {"seq": 9, "nonsense": 1}),
        PutExecution("e", {"nonsense": 1}),
        PutExecution("id-001", {"execution_count": 1 << 70}),
        PutExecution("e", {"seq": 9, "code": object()}),
        PutMeta({"a": object()}),
    ],
)
def test_a_value_that_no_column_holds_costs_itself_only_and_is_told(store: Store, change: Change) -> None:
    told = write(store, *ran(1), change, *ran(2), seq=3)
    store.flush()
    assert told == [None]
    assert [row.seq for row in store.history()[0] if row.seq] == [2, 1]
    assert store.health.status == "degraded"
    assert type(change).__name__ in store.health.reason


def test_a_callback_that_raises_does_not_end_the_writer(store: Store) -> None:
    def fail(exc: Exception | None) -> None:
        raise RuntimeError("mine")

    store.write(ran(1), relay_id="r1", seq=1, mirror_state=None, done=fail)
    store.flush()
    write(store, *ran(2))
    store.flush()
    assert len(store.history()[0]) == 2


def test_close_stores_what_waits_and_ends_its_thread(path: Path) -> None:
    before = threading.active_count()
    store = Store.open(path, delay_s=5.0)
    begin(store)
    for seq in range(1, 51):
        write(store, *ran(seq), seq=seq)
    store.close()
    store.close()
    assert threading.active_count() == before
    assert isinstance(write(store, seq=51)[0], LocalError)
    assert isinstance(put(store, asked(1))[0], LocalError)
    with pytest.raises(LocalError):
        store.flush()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with open_readonly(path) as archive:
        assert archive.count() == 50


def test_closing_on_a_full_disk_ends_after_one_try(path: Path, until: Until) -> None:
    store = Store.open(path)
    begin(store)
    full(store, 1)
    told = write(store, *ran(1, text="x" * 100_000))
    until(lambda: told, "the failure to be told")
    store.close()
    assert "closing" in repr(store)
    with open_readonly(path) as archive:
        assert archive.count() == 0


def test_no_thread_and_no_file_is_left_over_50_stores(path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    counts = []
    for _ in range(50):
        with closing(Store.open(path)) as store:
            begin(store)
            store.window(5)
        counts.append((descriptors(), threading.active_count()))
    assert counts[0] == counts[-1]


KILLED = """
import sys
from pathlib import Path
from rtc_kernel.agent.keep.store import Store
from rtc_kernel.tables import AddOutput, Output, PutExecution, WriteText

store = Store.open(Path(sys.argv[1]))
store.begin(relay_id="r1", kernel={"id": "k1"}, now=1.0)
stream = Output(output_type="stream", at=1.0, name="stdout", text="")
seq = 0
while True:
    seq += 1
    key = f"e{seq}"
    changes = [PutExecution(key, {"seq": seq}), AddOutput(key, 0, stream), WriteText(key, 0, 0, None, "x" * 500)]
    told = (lambda seq: lambda exc: print(seq, flush=True))(seq)
    store.write(changes, relay_id="r1", seq=seq, mirror_state={"seq": seq}, done=told)
    if seq % 20 == 0:
        store.flush()
"""


def kill_9(program: str, path: Path) -> int:
    """Start a program that prints the number of each commit, kill it in the middle; the last number that it said."""
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = 0
    while told < 300:
        told = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n"))])
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return told


def test_kill_9_keeps_every_committed_row(path: Path) -> None:
    told = kill_9(KILLED, path)
    with closing(Store.open(path)) as store:
        resume = begin(store)
        assert resume.resumed
        assert resume.feed_seq >= told
        assert resume.mirror_state == {"seq": resume.feed_seq}
        assert store.count() == resume.feed_seq == resume.next_seq - 1
        assert store._do(lambda c: c.execute("PRAGMA integrity_check").fetchall()).result() == [("ok",)]


KILLED_WITH_REQUESTS = """
import sys
from pathlib import Path
from rtc_kernel.agent.keep.store import Store
from rtc_kernel.tables import PutExecution, Request, RequestState

store = Store.open(Path(sys.argv[1]), delay_s=0.0)
store.begin(relay_id="r1", kernel={"id": "k1"}, now=1.0)
at = 0
while True:
    at += 1
    state = RequestState.DONE if at % 3 == 0 else RequestState.ACCEPTED
    request = Request(id=f"q{at}", action="execute", by="ann", columns={"code": "x" * 100}, ordinal=at, state=state)
    store.write([PutExecution(f"e{at}", {"seq": at})], relay_id="r1", seq=at, mirror_state=None)
    store.put_requests([request], now=2.0, done=(lambda at: lambda exc: print(at, flush=True))(at))
    if at % 20 == 0:
        store.flush()
"""


def test_kill_9_keeps_every_acknowledged_request(path: Path) -> None:
    told = kill_9(KILLED_WITH_REQUESTS, path)
    with closing(Store.open(path)) as store:
        found = store.requests(open_only=False)
        assert [request.ordinal for request in found] == list(range(1, store.last_ordinal() + 1))
        assert store.last_ordinal() >= told
        assert store.count() >= len(found)
        assert all((request.columns == {}) == (request.state is RequestState.DONE) for request in found)


# --- files --------------------------------------------------------------------------------------------------


def test_nobody_else_could_ever_read_the_history_not_even_one_that_was_copied_here(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "chmod", lambda *args: None)
            with closing(Store.open(path)):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        with closing(Store.open(path)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_only_the_owner_can_read_the_history(path: Path) -> None:
    with closing(Store.open(path)) as store:
        begin(store)
        write(store, *ran(1))
        store.flush()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(files.values()) == {0o600}
    assert f"{path.name}-wal" in files


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    Store.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {layout.FILE_VERSION + 1}")
    for opening in (Store.open, open_readonly):
        with pytest.raises(SetupError, match="newer"):
            opening(path)
    assert [file.name for file in path.parent.iterdir() if file.suffix == layout.SUFFIX] == [path.name]


VERSION_1 = """
CREATE TABLE kernels (
  id TEXT PRIMARY KEY, name TEXT NOT NULL DEFAULT '', display_name TEXT NOT NULL DEFAULT '',
  language TEXT NOT NULL DEFAULT '', state TEXT NOT NULL DEFAULT 'starting', generation INTEGER NOT NULL DEFAULT 0,
  notebook TEXT, host TEXT NOT NULL DEFAULT '', started_at REAL, ended_at REAL, exit_code INTEGER,
  last_activity_at REAL);
CREATE TABLE generations (
  kernel TEXT NOT NULL, generation INTEGER NOT NULL, started_at REAL, ended_at REAL, exit_code INTEGER,
  PRIMARY KEY (kernel, generation));
CREATE TABLE executions (
  id TEXT PRIMARY KEY, seq INTEGER NOT NULL DEFAULT 0, kernel TEXT NOT NULL DEFAULT '',
  generation INTEGER NOT NULL DEFAULT 0, cell TEXT, notebook TEXT, request TEXT, code TEXT NOT NULL DEFAULT '',
  execution_count INTEGER, submitted_by TEXT NOT NULL DEFAULT '', client TEXT NOT NULL DEFAULT '',
  queued_at REAL, started_at REAL, finished_at REAL, state TEXT NOT NULL DEFAULT 'queued', error TEXT, input TEXT,
  private INTEGER NOT NULL DEFAULT 0, metadata TEXT NOT NULL DEFAULT '{}');
CREATE INDEX executions_seq ON executions (seq);
CREATE INDEX executions_cell ON executions (cell, seq) WHERE cell IS NOT NULL;
CREATE INDEX executions_open ON executions (state) WHERE state IN ('queued', 'running');
CREATE TABLE outputs (
  execution TEXT NOT NULL, position INTEGER NOT NULL, output_type TEXT NOT NULL, at REAL NOT NULL, name TEXT,
  data TEXT, metadata TEXT, execution_count INTEGER, ename TEXT, evalue TEXT, traceback TEXT, display_id TEXT,
  PRIMARY KEY (execution, position));
CREATE INDEX outputs_display ON outputs (display_id) WHERE display_id IS NOT NULL;
CREATE TABLE segments (
  execution TEXT NOT NULL, position INTEGER NOT NULL, segment INTEGER NOT NULL, text TEXT NOT NULL,
  PRIMARY KEY (execution, position, segment));
CREATE TABLE comms (
  id TEXT PRIMARY KEY, target TEXT NOT NULL DEFAULT '', kernel TEXT NOT NULL DEFAULT '', execution TEXT,
  opened_by TEXT NOT NULL DEFAULT 'kernel', opened_at REAL, closed_at REAL);
CREATE TABLE comm_state (
  comm TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (comm, key));
CREATE TABLE comm_messages (row INTEGER PRIMARY KEY AUTOINCREMENT, comm TEXT NOT NULL, value TEXT NOT NULL);
CREATE INDEX comm_messages_comm ON comm_messages (comm, row);
CREATE TABLE blobs (digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, data BLOB NOT NULL);
CREATE TABLE cells (
  "index" INTEGER PRIMARY KEY, id TEXT NOT NULL, cell_type TEXT NOT NULL, source TEXT NOT NULL,
  notebook TEXT NOT NULL);
CREATE TABLE tokens (
  name TEXT PRIMARY KEY, role TEXT NOT NULL, hash TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE feed (
  one INTEGER PRIMARY KEY CHECK (one = 1), relay_id TEXT NOT NULL, seq INTEGER NOT NULL, mirror_state TEXT);
PRAGMA user_version = 1;
"""
"""The tables of rtc_kernel 0.1, as that version made them."""


SHOWN = "sha256:" + "a" * 64
STATED = "sha256:" + "b" * 64
LOST = "sha256:" + "c" * 64


@pytest.fixture(params=[1, 2])
def old(path: Path, request: pytest.FixtureRequest) -> Path:
    """A file of an earlier version: one execution that had ended and one that ran, a display and a widget with blobs,
    and a blob that nothing names."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        connection.executescript("""
            INSERT INTO kernels (id, name, started_at) VALUES ('k1', 'python', 5.0);
            INSERT INTO generations VALUES ('k1', 0, 5.0, NULL, NULL);
            INSERT INTO executions (id, seq, kernel, code, state, finished_at) VALUES ('e1', 1, 'k1', 'é', 'ok', 7.0);
            INSERT INTO executions (id, seq, kernel, state, cell, notebook, client, submitted_by)
              VALUES ('e2', 2, 'k1', 'running', 'c', 'n.ipynb', 's', 'ann');
            INSERT INTO outputs (execution, position, output_type, at, name) VALUES ('e1', 0, 'stream', 6.0, 'stdout');
            INSERT INTO segments VALUES ('e1', 0, 0, 'out');
            INSERT INTO tokens VALUES ('ann', 'view', 'hash', 1.0, NULL);
            INSERT INTO facts VALUES ('port', '4321');
            INSERT INTO feed VALUES (1, 'r1', 17, '{"a":1}');
            INSERT INTO comms (id, target, opened_at) VALUES ('w', 'jupyter.widget', 6.0);
        """)
        data = (
            f'{{"image/png":{{"blob":"{SHOWN}"}},"image/gif":{{"blob":"{SHOWN}"}},"text/plain":"sha256: {LOST[:70]}"}}'
        )
        connection.execute(
            "INSERT INTO outputs (execution, position, output_type, at, data, metadata, display_id)"
            " VALUES ('e1', 1, 'display_data', 6.5, ?, '{}', 'd')",
            (data,),
        )
        connection.execute("INSERT INTO comm_state VALUES ('w', 'value', ?)", (f'{{"blob":"{STATED}"}}'.encode(),))
        for digest in (SHOWN, STATED, LOST):
            connection.execute("INSERT INTO blobs VALUES (?, 'image/png', ?)", (digest, digest.encode()))
        if request.param > 1:
            connection.executescript(layout.MIGRATIONS[1])
    return path


def tables_of(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(connection.execute("SELECT name, sql FROM sqlite_master"))


def test_a_file_of_an_earlier_version_is_taken_over_with_all_that_it_has(old: Path, tmp_path: Path) -> None:
    with closing(Store.open(old)) as store:
        resume = begin(store)
        assert (resume.resumed, resume.feed_seq, resume.mirror_state, resume.port) == (True, 17, {"a": 1}, 4321)
        assert [(row.id, row.code, row.state.value) for row in store.history()[0]] == [
            ("e2", "", "running"),
            ("e1", "é", "ok"),
        ]
        run, done = store.history()[0]
        assert (run.cell, run.notebook, run.client, run.submitted_by, run.kernel) == ("c", "n.ipynb", "s", "ann", "k1")
        assert (done.cell, done.notebook, done.client, done.submitted_by) == (None, None, "", "")
        assert done.outputs[0].text == "out"
        assert resume.displays == (("d", "e1", 1),)
        assert [store.blob(digest) is None for digest in (SHOWN, STATED, LOST)] == [False, False, False]
        store.retain(Limits(), now=10.0).result()
        assert store.blob(SHOWN) == (SHOWN.encode(), "image/png")
        assert store.blob(STATED) == (STATED.encode(), "image/png")
        assert store.blob(LOST) is None
        assert bytes_of(store) == {
            "e1": len("é".encode()) + 3 + len(layout.dump(done.outputs[1].data)),
            "e2": 0,
        }
        assert [token.name for token in store.tokens] == ["ann"]
        put(store, asked(1))
    with closing(Store.open(old)) as store:
        assert store.requests(open_only=True) == [asked(1)]
        assert store.execution_states(["e1", "e2"]) == {"e1": ExecutionState.OK, "e2": ExecutionState.RUNNING}
    Store.open(fresh := tmp_path / "fresh.sqlite3").close()
    assert tables_of(old) == tables_of(fresh)


def test_a_file_of_an_earlier_version_is_read_as_it_is_without_an_agent(old: Path) -> None:
    with open_readonly(old) as archive:
        assert [row.id for row in archive.history(kernel="k1")[0]] == ["e2", "e1"]
        assert [row.id for row in archive.history(cell="c", limit=1)[0]] == ["e2"]
        found = archive.execution("#1")
        assert found is not None
        assert (found.outputs[0].text, archive.blob(SHOWN)) == ("out", (SHOWN.encode(), "image/png"))
        assert archive.blob_piece(SHOWN, 1, 3) == SHOWN[1:4].encode()
        assert (archive.marks("e1"), archive.segments("e1")) == ([], {0: ["out"]})
        assert archive.execution_states(["e1"]) == {"e1": ExecutionState.OK}
        assert (archive.requests(open_only=False), archive.request("q"), archive.last_ordinal()) == ([], None, 0)
        with closing(Store.open(old)) as store:
            put(store, asked(1))
        assert archive.requests(open_only=True) == [archive.request("q-001")] == [asked(1)]
        assert archive.last_ordinal() == 1
        assert [row.id for row in archive.history(cell="c")[0]] == ["e2"]
        assert (archive.execution("#1"), archive.blob(SHOWN)) == (found, (SHOWN.encode(), "image/png"))
        assert archive.blob_size(SHOWN) == (len(SHOWN), "image/png")
        assert archive.blob_piece(SHOWN, 1, 3) == SHOWN[1:4].encode()


def test_a_file_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    for opening in (Store.open, open_readonly):
        with pytest.raises(SetupError, match="not a history"):
            opening(path)


@pytest.mark.parametrize("damage", ["text", "page", "short"])
def test_a_damaged_file_is_moved_aside_and_the_kernel_runs_on(path: Path, damage: str) -> None:
    with closing(Store.open(path)) as store:
        begin(store)
        write(store, *(change for seq in range(1, 200) for change in ran(seq, text="x" * 500)))
    raw = path.read_bytes()
    bad = {
        "text": b"this is no database " * 500,
        "page": raw[:4096] + b"\xff" * 40_960 + raw[45_056:],
        "short": raw[: len(raw) // 2],
    }[damage]
    path.write_bytes(bad)
    with closing(Store.open(path)) as store:
        assert begin(store).generation == 0
        assert store.health.status == "degraded"
        (moved,) = path.parent.glob(f"{path.name}.damaged-*")
        assert moved.name in store.health.reason
        assert moved.read_bytes() == bad
        write(store, *ran(1))
        store.flush()
        assert len(store.history()[0]) == 1


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="history"):
        Store.open(tmp_path / "file" / "k.sqlite3")
    with pytest.raises(SetupError):
        Store.open(tmp_path)


def test_a_network_file_system_is_known_by_its_mount(tmp_path: Path) -> None:
    mounts = "/dev/a / ext4 rw 0 0\nserver:/home /nfs\\040home nfs4 rw 0 0\nhost /mnt/s fuse.sshfs rw 0 0\nbad\n"
    places = ["/nfs home/ann/k.sqlite3", "/mnt/s/k.sqlite3", "/mnt/k.sqlite3", "/nfs/k.sqlite3"]
    assert [on_network(Path(place), mounts) for place in places] == [True, True, False, False]
    assert not on_network(tmp_path / "k", "")


def test_without_wal_it_works_as_well(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(path).close()
    monkeypatch.setattr("rtc_kernel.agent.keep.files.on_network", lambda path: True)
    with closing(Store.open(path)) as store:
        begin(store)
        write(store, *ran(1))
        store.flush()
        assert not path.with_name(path.name + "-wal").exists()
        with open_readonly(path) as archive:
            assert archive.count() == store.count() == 1


# --- without an agent ---------------------------------------------------------------------------------------


def test_the_history_of_a_living_kernel_is_read_beside_its_agent(path: Path) -> None:
    with closing(Store.open(path)) as store, open_readonly_after_begin(store, path) as archive:
        assert archive.history() == ([], None)
        write(store, *ran(1, text="é"), PutBlob(DIGEST, b"x", "t/t"))
        store.flush()
        assert archive.history() == store.history()
        assert archive.blob(DIGEST) == (b"x", "t/t")
        with pytest.raises(sqlite3.OperationalError):
            archive._connection.execute("DELETE FROM executions")


def open_readonly_after_begin(store: Store, path: Path) -> Any:
    begin(store)
    return open_readonly(path)


def test_histories_lists_the_files_and_names_the_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for key, notebook, now in (("a", "n.ipynb", 1.0), ("b", "n.ipynb", 2.0), ("c", None, 3.0)):
        with closing(Store.open(tmp_path / f"{key}.sqlite3")) as store:
            begin(store, id=key, notebook=notebook, display_name="RTC Python", now=now)
            write(store, *ran(1))
            write(store, PutKernel(key, {"ended_at": now + 1}))
    (tmp_path / "d.sqlite3").write_bytes(b"no database" * 100)
    Store.open(tmp_path / "e.sqlite3").close()
    damaged: list[SetupError] = []
    found = list(histories(tmp_path, on_damaged=damaged.append))
    assert [file.kernel_id for file in found] == ["c", "b", "a", "e"]
    assert found[1] == HistoryFile(
        path=tmp_path / "b.sqlite3", kernel_id="b", display_name="RTC Python", notebook="n.ipynb", started_at=2.0,
        ended_at=3.0, executions_count=1,
    )  # fmt: skip
    assert "d.sqlite3" in str(damaged[0])
    assert [file.kernel_id for file in histories(tmp_path, notebook="n.ipynb")] == ["b", "a"]
    assert "d.sqlite3" in caplog.text
    assert list(histories(tmp_path / "nowhere")) == []


def test_there_is_no_history_where_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no history"):
        open_readonly(tmp_path / "k.sqlite3")
