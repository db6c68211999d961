"""The store: what was committed is there, whatever happens to the agent, the disk or the file."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import Rows

from rtc_kernel.agent.keep import rows as layout
from rtc_kernel.agent.keep.archive import HistoryFile, histories, open_readonly
from rtc_kernel.agent.keep.files import on_network
from rtc_kernel.agent.keep.store import Health, Store, StoredToken
from rtc_kernel.errors import LocalError, SetupError
from rtc_kernel.tables import (
    COMM_MESSAGES_KEPT,
    EXECUTION_TRANSITIONS,
    KERNEL_TRANSITIONS,
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
    SetOutput,
    WriteText,
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


def write(store: Store, *changes: Change, seq: int = 1, state: Any = None) -> list[Exception | None]:
    told: list[Exception | None] = []
    store.write(changes, relay_id="r1", seq=seq, mirror_state=state, done=told.append)
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
    columns = {f.name: getattr(execution, f.name) for f in fields(Execution) if f.name not in ("id", "outputs")}
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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        PutExecution("e", {"nonsense": 1}),
        PutExecution("e", {"execution_count": 1 << 70}),
        PutExecution("e", {"code": object()}),
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


def test_kill_9_keeps_every_committed_row(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = 0
    while told < 300:
        told = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n"))])
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    with closing(Store.open(path)) as store:
        resume = begin(store)
        assert resume.resumed
        assert resume.feed_seq >= told
        assert resume.mirror_state == {"seq": resume.feed_seq}
        assert store.count() == resume.feed_seq == resume.next_seq - 1
        assert store._do(lambda c: c.execute("PRAGMA integrity_check").fetchall()).result() == [("ok",)]


# --- files --------------------------------------------------------------------------------------------------


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
