"""Which outputs and segments of an execution are in the document: a head and a tail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.bounds import OUTPUT_BYTES, ROW_BYTES, SEGMENT_BYTES, Bounds, Cut, Extent, Stream, weigh
from rtc_kernel.errors import LocalError


def extent(stream_bytes: int = 100, outputs: int = 4) -> Extent:
    return Extent(Bounds(stream_bytes=stream_bytes, outputs=outputs))


def write(extent: Extent, index: int, *sizes: int) -> Stream:
    stream = extent.stream(index)
    before, count = stream.size, len(stream.sizes)
    for size in sizes:
        stream.append(size)
    extent.count_text(stream, before, count)
    return stream


def test_up_to_the_bounds_nothing_is_left_out() -> None:
    row = extent()
    for _ in range(4):
        row.add_output(0, is_stream=True)
    write(row, 3, 50, 50)
    assert not row.is_beyond
    assert row.settle() == Cut(None, [])


def test_the_first_half_of_the_text_and_the_newest_stay() -> None:
    row = extent()
    row.add_output(0, is_stream=True)
    stream = write(row, 0, *[20] * 10)
    assert row.settle() == Cut(None, [(0, 2, 5)])
    assert (stream.sizes, stream.gap, stream.omitted_bytes, stream.count) == ([20] * 5, 2, 100, 10)
    assert [stream.index(at) for at in range(11)] == [0, 1, None, None, None, None, None, 2, 3, 4, 5]


def test_a_gap_grows_by_what_stands_behind_it() -> None:
    row = extent()
    row.add_output(0, is_stream=True)
    stream = write(row, 0, *[20] * 6)
    row.settle()
    write(row, 0, 20)
    assert row.settle() == Cut(None, [(0, 2, 1)])
    assert (stream.gap, stream.omitted_bytes) == (2, 40)


def test_the_text_of_all_streams_of_an_execution_is_bounded_together() -> None:
    row = extent(outputs=10)
    for at in range(4):
        row.add_output(0, is_stream=at != 2)
        if at != 2:
            write(row, at, 30, 30)
    assert row.settle() == Cut(None, [(0, 1, 1), (1, 0, 2)])
    assert [(index, stream.gap, stream.omitted_bytes) for index, stream in row.changed_streams()] == [
        (0, 1, 30),
        (1, 0, 60),
    ]
    assert list(row.changed_streams()) == []


def test_the_segment_that_may_still_grow_stays_however_large_it_is() -> None:
    row = extent()
    row.add_output(0, is_stream=True)
    stream = write(row, 0, 10, 500)
    row.settle()
    assert stream.sizes[-1] == 500


def test_rewriting_what_is_left_out_ends_the_gap_there_and_brings_nothing_back() -> None:
    row = extent()
    row.add_output(0, is_stream=True)
    stream = write(row, 0, *[20] * 10)
    row.settle()
    assert stream.truncate(4) == 2
    assert (stream.sizes, stream.count, stream.omitted_bytes) == ([20, 20], 4, 40)
    assert stream.truncate(1) == 1
    assert (stream.sizes, stream.count, stream.omitted_bytes, stream.gap) == ([20], 1, 0, None)


def test_outputs_beyond_the_bound_leave_the_middle() -> None:
    row = extent()
    for _ in range(9):
        row.add_output(10, is_stream=False)
    assert row.settle() == Cut((2, 5), [])
    assert (row.omitted_outputs, row.count) == (5, 9)
    assert [row.index(at) for at in range(9)] == [0, 1, None, None, None, None, None, 2, 3]
    with pytest.raises(LocalError):
        row.index(9)


def test_text_of_what_is_no_stream_is_our_own_bug() -> None:
    row = extent()
    row.add_output(0, is_stream=False)
    with pytest.raises(LocalError):
        row.stream(0)


def test_a_cleared_row_begins_anew() -> None:
    row = extent()
    for _ in range(6):
        row.add_output(10, is_stream=True)
    write(row, 5, *[30] * 9)
    row.settle()
    row.clear()
    assert (row.size, row.count, row.omitted_outputs) == (ROW_BYTES, 0, 0)
    row.add_output(0, is_stream=True)
    assert write(row, 0, 100).head is None
    assert not row.is_beyond


def test_a_column_counts_once() -> None:
    row = extent()
    assert not row.put_column("code", 10)
    assert row.put_column("code", 30)
    assert row.size == ROW_BYTES + 30


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_plain_value_has_a_weight(value: object) -> None:
    assert weigh(value) >= 0


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("output"), st.booleans()),
        st.tuples(st.just("text"), st.lists(st.integers(0, 60), min_size=1, max_size=5)),
        st.tuples(st.just("rewrite"), st.integers(0, 40)),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=60,
)


@given(OPERATIONS, st.integers(2, 6), st.integers(0, 200))
def test_within_its_bounds_after_any_work_and_every_number_is_where_it_was_put(
    operations: list[tuple[str, object]], outputs: int, stream_bytes: int
) -> None:
    """The oracle: outputs and segments by name, in lists from which the cuts are taken."""
    row = Extent(Bounds(stream_bytes, outputs))
    said: list[list[str] | None] = []  # all outputs, with all their segments
    held: list[tuple[int, list[str]]] = []  # those in the document
    names = iter(range(10**6))
    for word, value in operations:
        last = said[-1] if said else None
        match word, value:
            case "output", bool(is_stream):
                row.add_output(5, is_stream=is_stream)
                said.append([] if is_stream else None)
                held.append((len(said) - 1, []))
            case "text", list(sizes) if last is not None:
                index = row.index(len(said) - 1)
                assert index is not None
                for size in sizes:
                    name = f"{next(names)}:{size}"
                    last.append(name)
                    held[index][1].append(name)
                    write(row, index, size)
            case "rewrite", int(segment) if last is not None and segment < len(last):
                index = row.index(len(said) - 1)
                assert index is not None
                stream = row.stream(index)
                before, count = stream.size, len(stream.sizes)
                del held[index][1][stream.truncate(segment) :]
                row.count_text(stream, before, count)
                del last[segment:]
            case "clear", _:
                row.clear()
                said.clear()
                held.clear()
        cut = row.settle()
        if cut.outputs is not None:
            at, count = cut.outputs
            del held[at : at + count]
        for at, first, count in cut.segments:
            del held[at][1][first : first + count]
    assert row.count == len(said)
    assert len(held) == min(len(said), outputs)
    total = 0
    for position, segments in enumerate(said):
        index = row.index(position)
        if index is None:
            continue
        assert held[index][0] == position
        for number, name in enumerate(segments or ()):
            there = row.stream(index).index(number)
            assert there is None or held[index][1][there] == name
        if segments is not None:
            stream = row.stream(index)
            sizes = [int(name.partition(":")[2]) for name in held[index][1]]
            assert stream.sizes == sizes
            assert stream.count == len(segments)
            left = sum(int(name.partition(":")[2]) for name in segments if name not in held[index][1])
            assert stream.omitted_bytes == left
            total += sum(sizes)
    newest = [int(name.partition(":")[2]) for _, names in held[-1:] for name in names[-1:]]
    assert total <= stream_bytes or total <= stream_bytes // 2 + sum(newest)
    streams = [row.stream(index) for index, (position, _) in enumerate(held) if said[position] is not None]
    segments_held = sum(len(stream.sizes) for stream in streams)
    assert row.size == ROW_BYTES + len(held) * (OUTPUT_BYTES + 5) + total + SEGMENT_BYTES * segments_held
