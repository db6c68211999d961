"""The live document: one transaction per batch, the window, epochs, what a follower is sent."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Map

from rtc_kernel import schema, yproto
from rtc_kernel.agent.document import CLOSED_COMMS_KEPT, StateDocument
from rtc_kernel.errors import LocalError, Reason, RemoteError
from rtc_kernel.tables import (
    AddOutput,
    Cell,
    Comm,
    Execution,
    ExecutionState,
    Kernel,
    Output,
    PutComm,
    PutExecution,
    PutMeta,
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
