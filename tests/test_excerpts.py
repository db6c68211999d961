"""A reader of a document that keeps head and tail sees everything once, and each gap with its size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc

from rtc_kernel import schema
from rtc_kernel.bounds import Bounds
from rtc_kernel.excerpts import Reading, new_outputs, new_text, parts_of, say_gap, to_text
from rtc_kernel.tables import AddOutput, Execution, Output, PutExecution, WriteText


def stream(text: str, omitted_bytes: int | None = None, index: int | None = None) -> Output:
    at = None if index is None else 1
    return Output(
        output_type="stream",
        at=1.0,
        name="stdout",
        text=text,
        omitted_bytes=omitted_bytes,
        omitted_segment=at,
        omitted_index=index,
    )


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ("a", "ab", "b"),
        ("10%", "20%", "\r20%"),
        ("a\n10%", "a\n20%", "\r20%"),
        ("a\n10%\nx", "a\n20%\nx", "\n20%\nx"),
        ("a\nbcd", "a\nb", "\rb"),
        ("größe", "größer", "r"),
    ],
)
def test_a_terminal_gets_the_rest_or_the_line_again(before: str, after: str, new: str) -> None:
    assert new_text(stream(before), stream(after)).text == new


def test_text_between_what_was_seen_and_the_tail_is_a_gap_with_its_size() -> None:
    new = new_text(stream("head"), stream("headtail", 100, 4))
    assert (new.text, new.omitted_bytes, new.omitted_index) == ("tail", 100, 0)
    new = new_text(stream("he"), stream("headtail", 100, 4))
    assert (new.text, new.omitted_bytes, new.omitted_index) == ("adtail", 100, 2)
    new = new_text(stream("headtail", 100, 4), stream("headil, more", 102, 4))
    assert (new.text, new.omitted_bytes, new.omitted_index) == (", more", None, None)


def test_a_line_of_the_tail_that_was_overwritten_comes_again() -> None:
    new = new_text(stream("head\n10%", 7, 5), stream("head\n20%", 7, 5))
    assert (new.text, new.omitted_bytes) == ("\r20%", None)


def test_a_gap_is_a_line_of_its_own() -> None:
    assert to_text(parts_of(stream("a\nbc", 5, 2)), "x") == f"a\n{say_gap(5, 'x')}\nbc"
    assert to_text(parts_of(stream("abc", 5, 1)), "x") == f"a\n{say_gap(5, 'x')}\nbc"


def test_what_ended_in_the_past_is_read_again_when_it_changes() -> None:
    reading = Reading()
    assert reading.read(stream("a\nb\n")) == (["a\nb\n"], False)
    reading.settle()
    assert reading.read(stream("a\nB\nc")) == (["B\nc"], True)
    reading.settle("c")
    assert reading.read(stream("a\nB\ncd")) == (["cd"], False)


class Flood:
    """An execution in a document with small bounds."""

    def __init__(self, *, stream_bytes: int = 64, outputs: int = 6) -> None:
        self.doc: Doc[Any] = Doc()
        self.writer = schema.Writer(self.doc, Bounds(stream_bytes=stream_bytes, outputs=outputs))
        self.apply([PutExecution("e", {"seq": 1, "state": "running"})])

    def apply(self, changes: list[Any]) -> None:
        with self.doc.transaction():
            self.writer.apply(changes)

    def read(self) -> Execution:
        return schema.read_execution("e", self.doc["executions"]["e"])


@given(st.lists(st.tuples(st.text("aö\n", min_size=1, max_size=20), st.booleans()), max_size=40))
def test_a_reader_that_looks_now_and_then_gets_every_byte_or_its_place_in_a_gap(steps: list[tuple[str, bool]]) -> None:
    flood = Flood()
    flood.apply([AddOutput("e", 0, stream(""))])
    whole, shown, at = "", b"", 0
    before: Execution | None = None
    for segment, (text, look) in enumerate([*steps, ("z", True)]):
        flood.apply([WriteText("e", 0, segment, None, text)])
        whole += text
        if not look:
            continue
        now = flood.read()
        for position, output in new_outputs(before, now):
            assert position == 0
            index = output.omitted_index if output.omitted_index is not None else len(output.text or "")
            encoded = whole.encode()
            for part in ((output.text or "")[:index], output.omitted_bytes or 0, (output.text or "")[index:]):
                if isinstance(part, str):
                    assert encoded[at : at + len(part.encode())].decode() == part
                    shown += part.encode()
                at += part if isinstance(part, int) else len(part.encode())
        assert at == len(whole.encode())
        before = now
    if len(whole.encode()) <= 64:
        assert shown == whole.encode()


@given(st.lists(st.tuples(st.text("ab\n", min_size=1, max_size=20), st.booleans()), max_size=40))
def test_lines_are_read_once_whatever_was_left_out(steps: list[tuple[str, bool]]) -> None:
    flood, reading = Flood(), Reading()
    flood.apply([AddOutput("e", 0, stream(""))])
    whole, at = "", 0
    for segment, (text, look) in enumerate([*steps, ("z\n", True)]):
        flood.apply([WriteText("e", 0, segment, None, text)])
        whole += text
        if not look:
            continue
        parts, changed = reading.read(flood.read().outputs[0])
        assert not changed
        for part in parts:
            if isinstance(part, str):
                assert whole[at : at + len(part)] == part
            at += part if isinstance(part, int) else len(part)
        assert at == len(whole)
        last = parts[-1] if parts and isinstance(parts[-1], str) else ""
        left = last[last.rfind("\n") + 1 :]
        reading.settle(left)
        at -= len(left)


def test_outputs_that_came_and_went_between_two_looks_leave_a_hole_in_the_positions() -> None:
    flood = Flood(outputs=4)
    seen: list[int] = []
    before: Execution | None = None
    for position in range(12):
        data = {"text/plain": str(position)}
        flood.apply([AddOutput("e", position, Output(output_type="display_data", at=1.0, data=data, metadata={}))])
        if position % 3 == 2:
            now = flood.read()
            assert now.output_count == position + 1
            for at, output in new_outputs(before, now):
                assert output.data == {"text/plain": str(at)}
                seen.append(at)
            before = now
    assert seen == [0, 1, 2, 4, 5, 7, 8, 10, 11]


def test_a_record_says_where_in_its_text_the_gap_is() -> None:
    flood = Flood(stream_bytes=8)
    flood.apply([AddOutput("e", 0, stream("")), *[WriteText("e", 0, at, None, "ö") for at in range(10)]])
    output = flood.read().outputs[0]
    assert (output.text, output.omitted_bytes, output.omitted_segment, output.omitted_index) == ("öööö", 12, 2, 2)
    assert replace(output, text="").omitted_bytes == 12
