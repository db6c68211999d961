"""Changes in fewer pieces: the last word stands, nothing that anybody needs goes."""

from __future__ import annotations

import pytest

from rtc_kernel.tables import (
    SEGMENT_MAX_BYTES,
    AddOutput,
    Change,
    ClearOutputs,
    MergeCommState,
    Output,
    PutBlob,
    PutExecution,
    PutKernel,
    SetOutput,
    WriteText,
    coalesce,
)


def shown(value: object, position: int = 0) -> SetOutput:
    return SetOutput("e", position, Output(output_type="display_data", at=1.0, data={"image/png": value}))


def blob(name: str) -> PutBlob:
    return PutBlob(name, name.encode(), "image/png")


def test_of_an_output_that_is_replaced_many_times_the_last_is_left_in_its_place() -> None:
    between: list[Change] = [PutExecution("f", {"state": "ok"}), shown(7, position=1)]
    assert coalesce([shown(1), shown(2), *between, shown(3)]) == [*between, shown(3)]


def test_a_replacement_stays_behind_the_output_that_it_replaces() -> None:
    added = AddOutput("e", 0, shown(0).output)
    assert coalesce([shown(1), ClearOutputs("e"), added, shown(2)]) == [ClearOutputs("e"), added, shown(2)]


def test_of_a_key_of_a_comm_that_is_set_many_times_the_last_is_left() -> None:
    changes: list[Change] = [
        MergeCommState("a", {"value": 1, "max": 9}),
        MergeCommState("b", {"value": 1}),
        MergeCommState("a", {"value": 2}),
        MergeCommState("b", {"value": 3}),
    ]
    assert coalesce(changes) == [
        MergeCommState("a", {"max": 9, "value": 2}),
        MergeCommState("b", {"value": 3}),
    ]


def test_a_blob_that_only_a_replaced_output_named_is_left_out() -> None:
    one, two = {"blob": "one"}, {"blob": "two"}
    assert coalesce([blob("one"), shown(one), blob("two"), shown(two)]) == [blob("two"), shown(two)]


def test_a_blob_that_somebody_else_names_stays() -> None:
    one, two = {"blob": "one"}, {"blob": "two"}
    changes: list[Change] = [
        blob("one"),
        MergeCommState("c", {"deep": [{"x": one}]}),
        blob("one"),
        shown(one),
        blob("two"),
        shown(two),
    ]
    assert [change.digest for change in coalesce(changes) if isinstance(change, PutBlob)] == ["one", "one", "two"]


@pytest.mark.parametrize(
    ("writes", "joined"),
    [
        ([(None, "ab"), (None, "cd")], [(None, "abcd")]),
        ([(2, "ab"), (None, "cd")], [(2, "abcd")]),
        ([(2, "abc"), (4, "xy")], [(2, "abxy")]),
        ([(2, "abc"), (1, "xy")], [(1, "xy")]),
        ([(None, "abc"), (1, "xy")], [(None, "abc"), (1, "xy")]),
    ],
)
def test_writes_to_one_segment_are_one_where_that_can_be_said(
    writes: list[tuple[int | None, str]], joined: list[tuple[int | None, str]]
) -> None:
    assert coalesce([WriteText("e", 0, 5, *write) for write in writes]) == [
        WriteText("e", 0, 5, *write) for write in joined
    ]


def test_writes_to_different_segments_or_too_long_ones_stay_apart() -> None:
    long = "x" * (SEGMENT_MAX_BYTES // 4)
    for changes in (
        [WriteText("e", 0, 5, None, "a"), WriteText("e", 0, 6, None, "b")],
        [WriteText("e", 0, 5, None, long), WriteText("e", 0, 5, None, "b")],
    ):
        assert coalesce(list(changes)) == changes


def test_columns_set_one_after_another_are_merged() -> None:
    changes: list[Change] = [
        PutExecution("e", {"state": "running", "metadata": {"a": 1}}),
        PutExecution("e", {"state": "ok", "metadata": {"b": 2}}),
        PutKernel("k", {"state": "busy"}),
        PutKernel("k", {"state": "idle"}),
    ]
    assert coalesce(changes) == [
        PutExecution("e", {"state": "ok", "metadata": {"a": 1, "b": 2}}),
        PutKernel("k", {"state": "idle"}),
    ]


def test_a_progress_bar_of_many_steps_is_few_changes() -> None:
    steps: list[Change] = []
    for at in range(1000):
        steps += [
            MergeCommState("bar", {"value": at}),
            MergeCommState("label", {"value": f"{at}/1000"}),
            shown(at),
            WriteText("e", 1, 0, 0, f"\r{at}"),
        ]
    assert len(coalesce(steps)) <= 5
