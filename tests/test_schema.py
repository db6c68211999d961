"""The tables in Yjs types: what is written is what every reader reads."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from rtc_kernel import schema
from rtc_kernel.errors import LocalError
from rtc_kernel.tables import (
    COMM_MESSAGES_KEPT,
    AddCommMessage,
    AddOutput,
    Cell,
    ClearOutputs,
    Comm,
    Execution,
    ExecutionState,
    Kernel,
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

STREAM = Output(output_type="stream", at=2.5, name="stdout", text="")


def write(doc, *changes):
    with doc.transaction():
        schema.apply(doc, changes)


@pytest.fixture
def doc():
    doc = Doc()
    write(doc, PutExecution("e1", {"seq": 1, "code": "f()", "state": ExecutionState.RUNNING}))
    return doc


def row(doc, key="e1"):
    return schema.read_execution(key, doc["executions"][key])


def test_a_new_row_has_every_column_that_is_not_null(doc):
    columns = doc["executions"]["e1"].to_py()
    assert columns["generation"] == 0
    assert columns["private"] is False
    assert "execution_count" not in columns
    assert row(doc) == Execution(id="e1", seq=1, code="f()", state=ExecutionState.RUNNING)


def test_the_state_is_written_as_its_word(doc):
    assert type(doc["executions"]["e1"]["state"]) is str
    write(doc, PutExecution("e1", {"state": ExecutionState.OK, "execution_count": 7}))
    assert row(doc).state is ExecutionState.OK
    assert row(doc).execution_count == 7
    assert type(row(doc).execution_count) is int


def test_a_column_can_go_back_to_null(doc):
    write(doc, PutExecution("e1", {"input": {"prompt": "? ", "password": True, "since": 3.0}}))
    assert row(doc).input == {"prompt": "? ", "password": True, "since": 3}
    write(doc, PutExecution("e1", {"input": None}))
    assert row(doc).input is None


def test_metadata_keys_are_merged_and_not_replaced(doc):
    write(doc, PutExecution("e1", {"metadata": {"mine": {"a": 1}}}))
    write(doc, PutExecution("e1", {"metadata": {"yours": [2]}}))
    assert row(doc).metadata == {"mine": {"a": 1}, "yours": [2]}


def test_stream_text_is_an_array_of_text_segments(doc):
    write(doc, AddOutput("e1", 0, STREAM), WriteText("e1", 0, 0, None, "héllo "), WriteText("e1", 0, 1, None, "wörld"))
    segments = doc["executions"]["e1"]["outputs"][0]["text"]
    assert isinstance(segments, Array)
    assert [type(segment) for segment in segments] == [Text, Text]
    assert row(doc).outputs == (Output(output_type="stream", at=2.5, name="stdout", text="héllo wörld"),)


def test_keep_counts_code_points_and_not_bytes(doc):
    write(doc, AddOutput("e1", 0, STREAM), WriteText("e1", 0, 0, None, "é😀x"), WriteText("e1", 0, 0, 2, "ß"))
    assert row(doc).outputs[0].text == "é😀ß"


def test_segments_behind_the_written_one_are_dropped(doc):
    write(doc, AddOutput("e1", 0, STREAM), *(WriteText("e1", 0, at, None, str(at)) for at in range(4)))
    write(doc, WriteText("e1", 0, 1, 0, "one"))
    assert row(doc).outputs[0].text == "0one"


def test_a_segment_or_position_that_cannot_be_is_our_own_bug(doc):
    write(doc, AddOutput("e1", 0, STREAM), AddOutput("e1", 1, Output(output_type="display_data", at=1.0, data={})))
    for change in (
        WriteText("e1", 0, 1, None, "x"),
        WriteText("e1", 1, 0, None, "x"),
        WriteText("e1", 2, 0, None, "x"),
        AddOutput("e1", 3, STREAM),
        SetOutput("e1", 2, STREAM),
    ):
        with pytest.raises(LocalError):
            write(doc, change)


def test_outputs_are_replaced_and_cleared(doc):
    before, after = (Output(output_type="display_data", at=1.0, data={"text/plain": t}, metadata={}) for t in "ab")
    write(doc, AddOutput("e1", 0, before), SetOutput("e1", 0, after))
    assert row(doc).outputs == (after,)
    write(doc, ClearOutputs("e1"), AddOutput("e1", 0, STREAM), WriteText("e1", 0, 0, None, "x"))
    assert [output.text for output in row(doc).outputs] == ["x"]


def test_every_kind_of_output_reads_back_as_it_was(doc):
    outputs = (
        Output(output_type="error", at=1.25, ename="E", evalue="v", traceback=("a", "b")),
        Output(output_type="execute_result", at=1.5, data={"a/b": {"n": 1, "f": 0.5}}, metadata={}, execution_count=3),
        Output(output_type="display_data", at=2.0, data={"image/png": {"blob": "sha256:0", "bytes": 9}}, metadata={}),
        Output(output_type="display_data", at=2.0, data={}, metadata={"k": [1]}, display_id="d"),
    )
    write(doc, *(AddOutput("e1", at, output) for at, output in enumerate(outputs)))
    assert row(doc).outputs == outputs


def test_changes_of_a_row_that_is_gone_are_passed_over(doc):
    write(
        doc,
        PutExecution("gone", {"state": ExecutionState.OK}),
        AddOutput("gone", 0, STREAM),
        WriteText("gone", 3, 9, 2, "x"),
        SetOutput("gone", 0, STREAM),
        ClearOutputs("gone"),
        MergeCommState("gone", {"a": 1}),
        AddCommMessage("gone", {}),
        PutComm("gone", {"closed_at": 1.0}),
    )
    assert list(doc["executions"].keys()) == ["e1"]
    assert not schema.read_comms(doc)


def test_a_writer_remembers_rows_only_as_long_as_they_are_there():
    doc = Doc()
    with doc.transaction():
        writer = schema.Writer(doc)
        writer.apply([PutExecution("e", {"seq": 1}), AddOutput("e", 0, STREAM), WriteText("e", 0, 0, None, "a")])
    with doc.transaction():
        writer.remove_execution("e")
        writer.apply([WriteText("e", 0, 0, None, "b"), PutExecution("e", {"seq": 2})])
        writer.apply([AddOutput("e", 0, STREAM), WriteText("e", 0, 0, None, "c")])
    assert row(doc, "e").outputs[0].text == "c"


def test_more_streams_than_handles_are_written_right():
    doc = Doc()
    with doc.transaction():
        writer = schema.Writer(doc)
        many = range(schema.HANDLES_KEPT + 5)
        for at in many:
            writer.apply([PutExecution(f"e{at}", {"seq": at + 1}), AddOutput(f"e{at}", 0, STREAM)])
        for turn in "ab":
            for at in many:
                writer.apply([WriteText(f"e{at}", 0, 0, None, turn)])
    assert {r.outputs[0].text for r in schema.read_executions(doc)} == {"ab"}


def test_comms_merge_state_key_by_key_and_keep_the_last_messages(doc):
    write(doc, PutComm("c", {"target": "jupyter.widget", "opened_at": 1.0}))
    write(doc, MergeCommState("c", {"value": 1, "view": b"\x00\xff"}), MergeCommState("c", {"value": 2}))
    write(doc, *(AddCommMessage("c", {"n": at}) for at in range(COMM_MESSAGES_KEPT + 3)))
    (comm,) = schema.read_comms(doc)
    assert comm.state == {"value": 2, "view": b"\x00\xff"}
    assert type(comm.state["view"]) is bytes
    assert [message["n"] for message in comm.messages] == list(range(3, COMM_MESSAGES_KEPT + 3))


def test_kernels_meta_and_cells_read_back(doc):
    cells = (
        Cell(id="b", index=0, cell_type="code", source="1"),
        Cell(id="a", index=1, cell_type="markdown", source="ü"),
    )
    write(
        doc,
        PutKernel("k", {"name": "python3", "state": KernelState.BUSY}),
        PutKernel("k", {"state": KernelState.DEAD, "exit_code": -9}),
        PutMeta({"schema": 1, "gap": {"since": 1.5, "messages": 3}}),
        PutCells("old.ipynb", (Cell(id="z", index=0, cell_type="code", source=""),)),
        PutCells("n.ipynb", cells),
        PutBlob("sha256:00", b"x", "image/png"),
    )
    assert schema.read_kernels(doc) == [Kernel(id="k", name="python3", state=KernelState.DEAD, exit_code=-9)]
    assert schema.read_meta(doc) == {"schema": 1, "gap": {"since": 1.5, "messages": 3}}
    assert schema.read_cells(doc) == list(cells)
    assert doc["cells"]["a"]["notebook"] == "n.ipynb"


def test_whole_records_are_inserted_and_read_back():
    doc = Doc()
    long = Output(output_type="stream", at=1.0, name="stderr", text="é" * 10_000)
    execution = Execution(id="e", seq=3, code="x", metadata={"a": 1}, outputs=(long, STREAM), started_at=1.5)
    comm = Comm(id="c", target="t", state={"a": b"1"}, messages=({"way": "out", "at": 1, "data": {}},))
    kernel = Kernel(id="k", state=KernelState.IDLE, started_at=2.5)
    with doc.transaction():
        writer = schema.Writer(doc)
        writer.insert_execution(execution, {1: ["ab", "c"]})
        writer.insert_comm(comm)
        writer.insert_kernel(kernel)
        writer.apply([WriteText("e", 1, 1, None, "d")])
    assert row(doc, "e").outputs[0] == long
    assert row(doc, "e").outputs[1].text == "abcd"
    assert schema.read_comms(doc) == [comm]
    assert schema.read_kernels(doc) == [kernel]


def test_what_no_yjs_peer_could_hold_is_made_holdable():
    assert schema.clean("a\ud800b") == "a\ufffdb"
    assert schema.clean({1: (2**70, True, None, 1.5)}) == {"1": [float(2**70), True, None, 1.5]}
    assert schema.clean(10**400) == math.inf
    assert schema.clean(bytearray(b"x")) == b"x"
    deep = []
    for _ in range(500):
        deep = [deep]
    assert "nested too deeply" in str(schema.clean(deep))
    doc = Doc()
    write(doc, PutMeta({"x": {"deep": deep, "big": -(2**63), "text": "\udfff"}}))
    assert schema.read_meta(doc)["x"]["text"] == "\ufffd"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), plain, max_size=4))
def test_plain_values_round_trip_with_any_text(state):
    doc = Doc()
    write(doc, PutComm("c", {"target": "t"}), MergeCommState("c", state))
    (comm,) = schema.read_comms(doc)
    assert comm.state == state


@given(st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 6), st.text(max_size=6)), max_size=30))
def test_any_sequence_of_writes_gives_the_text_of_a_list_of_segments(writes):
    doc, model = Doc(), []
    write(doc, PutExecution("e", {"seq": 1}), AddOutput("e", 0, STREAM))
    with doc.transaction():
        writer = schema.Writer(doc)
        for segment, keep, text in writes:
            segment = min(segment, len(model))
            del model[segment + 1 :]
            if segment == len(model):
                model.append(text)
            else:
                model[segment] = (model[segment] if keep is None else model[segment][:keep]) + text
            writer.apply([WriteText("e", 0, segment, keep, text)])
    assert row(doc, "e").outputs[0].text == "".join(model)
    assert [str(segment) for segment in doc["executions"]["e"]["outputs"][0]["text"]] == model
    assert isinstance(doc["executions"]["e"]["metadata"], Map)
