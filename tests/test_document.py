"""The live document: one transaction per batch, the window, epochs, what a follower is sent."""

import gc
import weakref
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Map

from rtc_kernel import schema, yproto
from rtc_kernel.agent.document import CLOSED_COMMS_KEPT, StateDocument
from rtc_kernel.bounds import Bounds
from rtc_kernel.errors import LocalError, Reason, RemoteError
from rtc_kernel.tables import (
    AddCommMessage,
    AddOutput,
    Cell,
    ClearOutputs,
    Comm,
    Execution,
    ExecutionState,
    Kernel,
    MergeCommState,
    Output,
    PutComm,
    PutExecution,
    PutMeta,
    PutQuery,
    QueryState,
    SetOutput,
    WriteText,
)

STREAM = Output(output_type="stream", at=1.0, name="stdout", text="")


def put(seq, state="ok", cell=None):
    return PutExecution(f"e{seq}", {"seq": seq, "state": ExecutionState(state), "cell": cell})


def seqs(document):
    return [row.seq for row in schema.read_executions(document.doc)]


@pytest.fixture
def document():
    document = StateDocument("k", window_executions=3)
    document.load(meta={"server": "test"}, kernels=[Kernel(id="k", name="python3")])
    return document


def test_a_new_document_says_who_it_is(document):
    assert document.room == "k/state"
    meta = schema.read_meta(document.doc)
    assert meta == {"server": "test", "schema": 1, "epoch": document.epoch, "room": "k/state"}
    assert len(document.epoch) == 16
    assert document.epoch != StateDocument("k").epoch


def test_one_batch_is_one_update_and_the_updates_give_the_document(document):
    replica = Doc()
    replica.apply_update(document.diff(b"\x00"))
    for changes in ([put(1, "running"), AddOutput("e1", 0, STREAM)], [WriteText("e1", 0, 0, None, "é😀")]):
        replica.apply_update(document.apply(changes))
    assert schema.read_executions(replica) == schema.read_executions(document.doc)
    assert schema.read_executions(replica)[0].outputs[0].text == "é😀"


def test_a_batch_that_changes_nothing_has_no_update(document):
    assert document.apply([]) is None
    assert document.apply([WriteText("gone", 0, 0, None, "x")]) is None


def test_the_window_drops_the_oldest_finished_rows(document):
    for seq in range(1, 7):
        document.apply([put(seq)])
    assert seqs(document) == [4, 5, 6]


def test_the_window_never_drops_an_unfinished_row(document):
    for seq in range(1, 6):
        document.apply([put(seq, "running")])
    document.apply([put(6)])
    assert seqs(document) == [1, 2, 3, 4, 5]  # the one that may leave left at once
    document.apply([PutExecution("e2", {"state": ExecutionState.OK})])
    assert seqs(document) == [1, 3, 4, 5]


def test_the_window_never_drops_the_latest_of_a_cell(document):
    for seq in range(1, 6):
        document.apply([put(seq, cell=f"c{seq}")])
    assert seqs(document) == [1, 2, 3, 4, 5]
    document.apply([put(6, cell="c2")])
    assert seqs(document) == [1, 3, 4, 5, 6]


def test_the_same_cell_id_in_two_notebooks_is_two_cells(document):
    for seq in range(1, 5):
        document.apply([PutExecution(f"e{seq}", {"seq": seq, "state": "ok", "cell": "c", "notebook": f"n{seq}"})])
    assert seqs(document) == [1, 2, 3, 4]


def test_what_is_said_of_a_row_that_left_does_not_bring_it_back(document):
    for seq in range(1, 5):
        document.apply([put(seq)])
    document.apply([PutExecution("e1", {"metadata": {"note": 1}})])
    assert seqs(document) == [2, 3, 4]


def test_closed_comms_leave_oldest_first(document):
    for at in range(CLOSED_COMMS_KEPT + 2):
        document.apply([PutComm(f"c{at}", {"target": "t", "opened_at": float(at), "closed_at": float(at)})])
    assert [comm.id for comm in schema.read_comms(document.doc)][:1] == ["c2"]


def test_load_builds_the_window_of_records():
    document = StateDocument("k", window_executions=2)
    rows = [Execution(id=f"e{seq}", seq=seq, state=ExecutionState.OK) for seq in (3, 1, 2)]
    stream = Execution(id="open", seq=4, state=ExecutionState.RUNNING, outputs=(STREAM,))
    document.load(
        executions=[*rows, stream],
        comms=[Comm(id="c", target="t", closed_at=1.0)],
        cells=[Cell(id="x", index=0, cell_type="code", source="1")],
        notebook="n.ipynb",
        segments={("open", 0): ["ab", "cd"]},
    )
    assert seqs(document) == [3, 4]
    document.apply([WriteText("open", 0, 1, 1, "!")])
    assert schema.read_executions(document.doc)[1].outputs[0].text == "abc!"
    assert [cell.id for cell in schema.read_cells(document.doc)] == ["x"]


def test_a_change_that_does_not_fit_is_our_bug(document):
    document.apply([put(1, "running")])
    with pytest.raises(LocalError):
        document.apply([AddOutput("e1", 5, STREAM)])


# --- bytes in the window


def of_bytes(window_bytes, **more):
    document = StateDocument("k", window_bytes=window_bytes, **more)
    document.load()
    return document


def large(seq, size=20_000, state="ok", cell=None):
    return PutExecution(f"e{seq}", {"seq": seq, "state": ExecutionState(state), "cell": cell, "code": "x" * size})


def test_the_oldest_finished_rows_leave_a_window_that_is_too_large():
    document = of_bytes(100_000)
    for seq in range(1, 10):
        document.apply([large(seq)])
    assert seqs(document) == [6, 7, 8, 9]
    assert 80_000 < document.size_bytes <= 100_000


def test_outputs_count_and_what_goes_does_not():
    document = of_bytes(100_000)
    document.apply([put(1), put(2)])
    shown = Output(output_type="display_data", at=1.0, data={"text/plain": "x" * 60_000}, metadata={})
    document.apply([AddOutput("e1", 0, shown), SetOutput("e1", 0, shown)])
    assert 60_000 < document.size_bytes < 63_000
    document.apply([ClearOutputs("e1")])
    assert document.size_bytes < 2000
    document.apply([AddOutput("e1", 0, shown), AddOutput("e2", 0, STREAM)])
    document.apply([WriteText("e2", 0, 0, None, "y" * 50_000)])
    assert seqs(document) == [2]


def test_unfinished_rows_and_the_newest_stay_whatever_they_weigh():
    document = of_bytes(30_000)
    for seq in range(1, 5):
        document.apply([large(seq, state="running")])
    document.apply([large(5)])
    assert seqs(document) == [1, 2, 3, 4, 5]
    document.apply([PutExecution("e2", {"state": ExecutionState.OK})])
    assert seqs(document) == [1, 3, 4, 5]
    document.apply([large(6)])
    assert seqs(document) == [1, 3, 4, 6]


def test_the_latest_of_a_cell_leaves_only_when_those_alone_are_too_large():
    document = of_bytes(100_000)
    document.apply([large(1, cell="a"), large(2, cell="b"), large(3, cell="b"), large(4), large(5)])
    assert seqs(document) == [1, 3, 4, 5]
    document.apply([large(6, cell="c")])
    assert seqs(document) == [1, 3, 5, 6]
    for seq in range(7, 12):
        document.apply([large(seq, cell=f"c{seq}")])
    assert seqs(document) == [8, 9, 10, 11]
    document.apply([large(12, cell="a")])
    assert seqs(document) == [9, 10, 11, 12]


def test_what_is_remembered_of_a_cell_does_not_grow_with_its_runs():
    document = StateDocument("k", window_executions=2)
    document.load()
    for seq in range(1, 200):
        document.apply([put(seq, cell="c")])
    assert len(document._finished) < 10
    assert seqs(document) == [198, 199]


def test_load_leaves_out_what_is_beyond_the_bytes_of_the_window():
    rows = [Execution(id=f"e{seq}", seq=seq, state=ExecutionState.OK, code="x" * 20_000) for seq in range(1, 10)]
    document = StateDocument("k", window_bytes=100_000)
    document.load(executions=rows)
    assert seqs(document) == [6, 7, 8, 9]
    assert document.dead_bytes == 0
    document.apply([large(10)])
    assert seqs(document) == [7, 8, 9, 10]


# --- bounds of an execution


SMALL = Bounds(stream_bytes=64, outputs=4)


def line(number):
    return f"{number:015}\n"


def test_a_stream_that_is_loaded_is_as_one_that_was_followed():
    live = StateDocument("k", bounds=SMALL)
    live.load()
    live.apply([put(1, "running"), AddOutput("e1", 0, STREAM)])
    for at in range(20):
        live.apply([WriteText("e1", 0, at, None, line(at))])
    parts = [line(at) for at in range(20)]
    output = Output(output_type="stream", at=1.0, name="stdout", text="".join(parts))
    loaded = StateDocument("k", bounds=SMALL)
    loaded.load(
        executions=[Execution(id="e1", seq=1, state=ExecutionState.RUNNING, outputs=(output,))],
        segments={("e1", 0): parts},
    )
    for document in (live, loaded):
        document.apply([WriteText("e1", 0, 20, None, line(20)), WriteText("e1", 0, 20, 3, "end")])
    assert schema.read_executions(live.doc) == schema.read_executions(loaded.doc)
    for document in (live, loaded):
        assert document.doc["executions"]["e1"]["outputs"][0]["omitted_bytes"] == 17 * 16


WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.integers(1, 9), st.booleans()),
        st.tuples(st.just("show"), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("clear"), st.just(0), st.booleans()),
        st.tuples(st.just("epoch"), st.just(0), st.booleans()),
    ),
    max_size=60,
)


@given(WRITES, st.integers(2, 6), st.sampled_from([0, 64, 200]))
def test_what_a_replica_shows_is_head_and_tail_of_what_was_said(writes, outputs, stream_bytes):
    document = StateDocument("k", bounds=Bounds(stream_bytes=stream_bytes, outputs=outputs))
    document.load()
    replica = Doc()
    replica.apply_update(document.diff(b"\x00"))
    said, batch = [], [put(1, "running")]
    segments = 0
    for word, number, at_once in writes:
        match word:
            case "text":
                if not said or not isinstance(said[-1], list):
                    batch.append(AddOutput("e1", len(said), STREAM))
                    said.append([])
                    segments = 0
                for _ in range(number):
                    said[-1].append(line(segments))
                    batch.append(WriteText("e1", len(said) - 1, segments, None, line(segments)))
                    segments += 1
            case "show":
                output = Output(output_type="display_data", at=1.0, data={"text/plain": str(number)}, metadata={})
                if number < len(said) and isinstance(said[number], Output):
                    said[number] = output
                    batch.append(SetOutput("e1", number, output))
                else:
                    said.append(output)
                    batch.append(AddOutput("e1", len(said) - 1, output))
            case "clear":
                said.clear()
                batch.append(ClearOutputs("e1"))
            case "epoch":
                document.begin_epoch()
                replica = Doc()
                replica.apply_update(document.diff(b"\x00"))
        if at_once:
            if (update := document.apply(batch)) is not None:
                replica.apply_update(update)
            batch = []
    if (update := document.apply(batch)) is not None:
        replica.apply_update(update)
    (found,) = schema.read_executions(replica)
    kept = said if len(said) <= outputs else said[: outputs // 2] + said[outputs // 2 - outputs :]
    raw = replica.get("executions", type=Map)["e1"].to_py()
    assert (raw.get("omitted_outputs") or 0) == max(0, len(said) - outputs)
    assert len(found.outputs) == len(kept)
    for output, columns, expected in zip(found.outputs, raw["outputs"], kept, strict=True):
        if isinstance(expected, Output):
            assert output == expected
            continue
        whole = "".join(expected)
        lines = len(output.text) // 16
        gap = columns.get("omitted_segment")
        head = lines if gap is None else int(gap)
        assert output.text == whole[: head * 16] + whole[len(whole) - (lines - head) * 16 :]
        assert len(whole) == len(output.text) + (columns.get("omitted_bytes") or 0)


# --- epochs


def test_a_new_epoch_has_all_that_was_there_and_nothing_dead():
    document = StateDocument("k", window_executions=3, bounds=SMALL)
    document.load(meta={"server": "test"}, kernels=[Kernel(id="k", name="python3")], comms=[Comm(id="c", target="t")])
    document.apply([PutQuery("q", {"target": "t", "input": [1], "state": QueryState.TO_PROCESS})])
    document.apply([put(1, "running"), AddOutput("e1", 0, STREAM)])
    for at in range(100):
        document.apply([WriteText("e1", 0, at, None, line(at)), put(at + 2)])
    before, epoch, old = schema.read_executions(document.doc), document.epoch, document.doc
    assert document.dead_bytes > 1000
    late = Doc()
    late.apply_update(document.diff(b"\x00"))
    document.begin_epoch()
    assert document.epoch != epoch
    assert document.doc is not old
    assert document.dead_bytes == 0
    assert schema.read_executions(document.doc) == before
    assert schema.read_meta(document.doc) == {**schema.read_meta(old), "epoch": document.epoch}
    for read in (schema.read_kernels, schema.read_comms, schema.read_queries, schema.read_cells):
        assert read(document.doc) == read(old)
    with pytest.raises(RemoteError) as error:
        document.diff(late.get_state())
    assert error.value.reason is Reason.WRONG_EPOCH


def test_after_a_new_epoch_work_goes_on_and_the_window_holds():
    document = StateDocument("k", window_executions=3, bounds=SMALL)
    document.load()
    document.apply([put(1, "running"), AddOutput("e1", 0, STREAM), put(2), put(3)])
    document.apply([WriteText("e1", 0, at, None, line(at)) for at in range(100)])
    document.begin_epoch()
    replica = Doc()
    replica.apply_update(document.diff(b"\x00"))
    update = document.apply([WriteText("e1", 0, 100, None, line(100)), WriteText("e1", 0, 99, 0, "x"), put(4)])
    assert document.is_recent(update)
    replica.apply_update(update)
    assert schema.read_executions(replica) == schema.read_executions(document.doc)
    assert seqs(document) == [1, 3, 4]
    output = schema.read_executions(replica)[0].outputs[0]
    assert output.text == line(0) + line(1) + line(98) + "x"
    assert replica["executions"]["e1"]["outputs"][0]["omitted_bytes"] == 96 * 16


# --- what a follower is sent


def test_diff_gives_what_a_replica_lacks_and_nothing_to_who_has_all(document):
    replica = Doc()
    replica.apply_update(document.diff(replica.get_state()))
    document.apply([put(1), AddOutput("e1", 0, STREAM), WriteText("e1", 0, 0, None, "x" * 1000)])
    assert len(document.diff(replica.get_state())) < len(document.diff(b"\x00"))
    replica.apply_update(document.diff(replica.get_state()))
    assert schema.read_executions(replica) == schema.read_executions(document.doc)
    assert document.diff(replica.get_state())[:1] == b"\x00"  # no structs


def test_a_replica_of_an_earlier_epoch_is_refused(document):
    earlier = StateDocument("k")
    earlier.load()
    with pytest.raises(RemoteError) as error:
        document.diff(earlier.doc.get_state())
    assert error.value.reason is Reason.WRONG_EPOCH
    assert error.value.close_code == 4409


def test_a_replica_with_edits_of_its_own_is_refused(document):
    replica = Doc()
    replica.apply_update(document.diff(b"\x00"))
    replica.get("meta", type=Map)["mine"] = 1
    with pytest.raises(RemoteError) as error:
        document.diff(replica.get_state())
    assert error.value.reason is Reason.WRONG_EPOCH


def test_a_client_id_with_clock_zero_is_harmless(document):
    assert document.diff(yproto.write_state_vector({1234: 0})) == document.diff(b"\x00")


def test_a_clock_beyond_ours_is_malformed(document):
    own = document.doc.client_id
    with pytest.raises(RemoteError) as error:
        document.diff(yproto.write_state_vector({own: 1 << 40}))
    assert error.value.reason is Reason.MALFORMED


def test_a_clock_inside_a_character_gives_an_update_or_an_error_and_the_document_goes_on(document):
    document.apply(
        [PutMeta({"x": "y"}), put(1, "running"), AddOutput("e1", 0, STREAM), WriteText("e1", 0, 0, None, "😀" * 9)]
    )
    own = document.doc.client_id
    top = yproto.read_state_vector(document.doc.get_state())[own]
    for clock in range(top + 1):
        assert isinstance(document.diff({own: clock}), bytes)
    assert document.apply([PutMeta({"x": "z"})])


def test_an_echo_is_known_and_anything_else_is_not(document):
    echoed = Doc()
    heard = []
    subscription = echoed.observe(lambda event: heard.append(event.update))
    for turn in range(4):
        document.apply([put(turn + 1, "running"), AddOutput(f"e{turn + 1}", 0, STREAM)])
    echoed.apply_update(document.diff(b"\x00"))
    update = document.apply([WriteText("e1", 0, 0, None, "é😀"), put(5), put(6), PutExecution("e2", {"state": "ok"})])
    assert document.is_recent(update)
    echoed.apply_update(update)
    assert all(document.contains(echo) for echo in heard)
    heard.clear()
    echoed.get("meta", type=Map)["mine"] = 1
    assert not document.contains(heard.pop())
    del echoed.get("executions", type=Map)["e1"]
    assert not document.contains(heard.pop())
    echoed.unobserve(subscription)


@given(st.binary(max_size=64))
def test_any_bytes_as_state_vector_or_update_give_a_value_or_a_remote_error(data):
    for call in (DOCUMENT.diff, DOCUMENT.contains):
        with suppress(RemoteError):
            call(data)


DOCUMENT = StateDocument("fuzz")
DOCUMENT.load()


@given(st.lists(st.tuples(st.integers(0, 30), st.text(max_size=9)), max_size=20), st.randoms())
def test_updates_in_any_order_and_twice_converge(writes, random):
    document, replica = StateDocument("k", window_executions=4), Doc()
    document.load()
    updates = [document.diff(b"\x00")]
    for seq, (number, text) in enumerate(writes, 1):
        changes = [put(seq, "ok" if number % 3 else "running", cell=f"c{number % 5}")]
        changes += [AddOutput(f"e{seq}", 0, STREAM), WriteText(f"e{seq}", 0, 0, None, text)]
        updates.append(document.apply(changes))
    updates += updates[:3]
    random.shuffle(updates)
    for update in updates:
        replica.apply_update(update)
    assert schema.read_executions(replica) == schema.read_executions(document.doc)


def test_a_document_that_is_replaced_leaves_the_memory():
    document = StateDocument("k")
    document.load()
    document.begin_epoch()
    gone = weakref.ref(document)
    del document
    gc.collect()
    assert gone() is None


def test_comms_beyond_their_bytes_leave_the_one_first_that_was_not_written_to_for_longest():
    document = StateDocument("k", comms_bytes=5200)
    document.load(comms=[Comm(id="old", target="t", state={"x": "y" * 900})])
    for number in range(3):
        document.apply([PutComm(f"c{number}", {"target": "t"}), MergeCommState(f"c{number}", {"x": "y" * 900})])
    assert {comm.id for comm in schema.read_comms(document.doc)} == {"old", "c0", "c1", "c2"}
    document.apply([MergeCommState("old", {"x": "z" * 1000})])
    document.apply([PutComm("c3", {"target": "t"}), AddCommMessage("c3", {"data": "y" * 900})])
    assert {comm.id for comm in schema.read_comms(document.doc)} == {"old", "c1", "c2", "c3"}
    document.apply([MergeCommState("c0", {"x": 1})])
    assert {comm.id for comm in schema.read_comms(document.doc)} == {"old", "c1", "c2", "c3"}


def test_thousands_of_comms_do_not_grow_the_document():
    document = StateDocument("k", comms_bytes=1 << 16)
    document.load()
    for start in range(0, 4000, 500):
        document.apply(
            change
            for number in range(start, start + 500)
            for change in (PutComm(f"c{number}", {"target": "t"}), MergeCommState(f"c{number}", {"value": number}))
        )
    assert len(schema.read_comms(document.doc)) < 200


def test_a_key_that_is_set_again_is_counted_once():
    document = StateDocument("k", comms_bytes=5000)
    document.load(comms=[Comm(id="c", target="t")])
    for _ in range(100):
        document.apply([MergeCommState("c", {"x": "y" * 900}), AddCommMessage("c", {"data": 1})])
    assert [comm.id for comm in schema.read_comms(document.doc)] == ["c"]
