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
from rtc_kernel.agent.keep import store as stores
from rtc_kernel.agent.keep.archive import HistoryFile, histories, open_readonly
from rtc_kernel.agent.keep.files import on_network
from rtc_kernel.agent.keep.store import Health, Store, StoredToken
from rtc_kernel.errors import LocalError, SetupError
from rtc_kernel.tables import (
    COMM_MESSAGES_KEPT,
    EXECUTION_TRANSITIONS,
    KERNEL_TRANSITIONS,
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


@settings(max_examples=40, deadline=None)
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


def test_requests_are_synced_and_nothing_else_is(path: Path, tmp_path: Path) -> None:
    with closing(Store.open(path)) as store:
        begin(store)
        assert commits(store, lambda: put(store, asked(1))) == ["EXTRA"]
        assert commits(store, lambda: write(store, *ran(1))) == ["NORMAL"]
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
    child = subprocess.Popen([sys.executable, "-c", KILLED_WITH_REQUESTS, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = 0
    while told < 300:
        told = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n"))])
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    with closing(Store.open(path)) as store:
        found = store.requests(open_only=False)
        assert [request.ordinal for request in found] == list(range(1, store.last_ordinal() + 1))
        assert store.last_ordinal() >= told
        assert store.count() >= len(found)
        assert all((request.columns == {}) == (request.state is RequestState.DONE) for request in found)


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


@pytest.fixture
def old(path: Path) -> Path:
    """A file of version 1: one execution that had ended and one that ran."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        connection.executescript("""
            INSERT INTO kernels (id, name, started_at) VALUES ('k1', 'python', 5.0);
            INSERT INTO generations VALUES ('k1', 0, 5.0, NULL, NULL);
            INSERT INTO executions (id, seq, kernel, code, state, finished_at) VALUES ('e1', 1, 'k1', 'é', 'ok', 7.0);
            INSERT INTO executions (id, seq, kernel, state) VALUES ('e2', 2, 'k1', 'running');
            INSERT INTO outputs (execution, position, output_type, at, name) VALUES ('e1', 0, 'stream', 6.0, 'stdout');
            INSERT INTO segments VALUES ('e1', 0, 0, 'out');
            INSERT INTO tokens VALUES ('ann', 'view', 'hash', 1.0, NULL);
            INSERT INTO facts VALUES ('port', '4321');
            INSERT INTO feed VALUES (1, 'r1', 17, '{"a":1}');
        """)
    return path


def tables_of(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return dict(connection.execute("SELECT name, sql FROM sqlite_master"))


def test_a_file_of_version_1_is_taken_over_with_all_that_it_has(old: Path, tmp_path: Path) -> None:
    with closing(Store.open(old)) as store:
        resume = begin(store)
        assert (resume.resumed, resume.feed_seq, resume.mirror_state, resume.port) == (True, 17, {"a": 1}, 4321)
        assert [(row.id, row.code, row.state.value) for row in store.history()[0]] == [
            ("e2", "", "running"),
            ("e1", "é", "ok"),
        ]
        assert store.history()[0][1].outputs[0].text == "out"
        assert [token.name for token in store.tokens] == ["ann"]
        put(store, asked(1))
    with closing(Store.open(old)) as store:
        assert store.requests(open_only=True) == [asked(1)]
        assert store.execution_states(["e1", "e2"]) == {"e1": ExecutionState.OK, "e2": ExecutionState.RUNNING}
    Store.open(fresh := tmp_path / "fresh.sqlite3").close()
    assert tables_of(old) == tables_of(fresh)


def test_a_file_of_version_1_is_read_as_it_is_without_an_agent(old: Path) -> None:
    with open_readonly(old) as archive:
        assert archive.execution_states(["e1"]) == {"e1": ExecutionState.OK}
        assert (archive.requests(open_only=False), archive.request("q"), archive.last_ordinal()) == ([], None, 0)
        with closing(Store.open(old)) as store:
            put(store, asked(1))
        assert archive.requests(open_only=True) == [archive.request("q-001")] == [asked(1)]
        assert archive.last_ordinal() == 1


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
