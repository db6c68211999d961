r"""The text of a stream: ``\r``, ``\b``, and the segments it is written into."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.agent.mirror import streams
from rtc_kernel.agent.mirror.streams import Stream
from rtc_kernel.tables import SEGMENT_BYTES, SEGMENT_MAX_BYTES


class Page:
    """The segments that edits make; they are checked as they come."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.segments: list[str] = []

    def write(self, *texts: str) -> str:
        for text in texts:
            for segment, keep, part in self.stream.write(text):
                assert segment <= len(self.segments)
                held = self.segments[segment] if segment < len(self.segments) else ""
                assert keep is None or keep < len(held)
                kept = held[:keep]
                assert not part or len(kept.encode()) < SEGMENT_BYTES, "a closed segment was appended to"
                self.segments[segment:] = [kept + part]
                assert len(self.segments[segment].encode()) <= SEGMENT_MAX_BYTES
        return "".join(self.segments)


def jupyterlab(text: str) -> str:
    """The rules, said as plainly as can be: one text, one cursor, one character at a time."""
    shown, cursor = "", 0
    for char in text:
        start = shown.rfind("\n") + 1
        match char:
            case "\n":
                shown += char
                cursor = len(shown)
            case "\r":
                cursor = start
            case "\b":
                if cursor > start:
                    shown = shown[: cursor - 1] + shown[cursor + 1 :]
                    cursor -= 1
            case _:
                shown = shown[:cursor] + char + shown[cursor + 1 :]
                cursor += 1
    return shown


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["abc\rx"], "xbc"),
        (["abc\r", "x"], "xbc"),
        (["abc\r", "xyz1"], "xyz1"),
        (["abc\r\ndef"], "abc\ndef"),
        (["abc\r", "\ndef"], "abc\ndef"),
        (["abcdef\rxy\nz"], "xycdef\nz"),
        (["\r\r\njupyter"], "\njupyter"),
        (["Jupyter\rj"], "jupyter"),
        (["\njj\bupyter"], "\njupyter"),
        (["ab\b\b\b\bc"], "c"),
        (["a\n\b\bb"], "a\nb"),
        (["abcd\rx\b"], "cd"),
        (["abc", "\b", "\b", "d"], "ad"),
        (["\b", "\r"], ""),
        (["ünï\r∑"], "∑nï"),
        (["", "a", ""], "a"),
    ],
)
def test_text_is_what_jupyterlab_shows(texts: list[str], shown: str) -> None:
    assert Page().write(*texts) == jupyterlab("".join(texts)) == shown


def test_a_progress_bar_stays_one_line() -> None:
    page = Page()
    for i in range(10_000):
        shown = page.write(f"\r{i / 100:3.0f}%|{'█' * (i // 200):<50}| {i}/10000")
    assert shown == f"100%|{'█' * 49:<50}| 9999/10000"
    assert len(page.segments) == 1


PIECES = st.lists(st.text(st.sampled_from("ab\r\b\né😀"), max_size=12), max_size=30)


@given(PIECES)
def test_any_pieces_give_what_their_whole_gives(pieces: list[str]) -> None:
    assert Page().write(*pieces) == jupyterlab("".join(pieces))


@given(PIECES)
def test_lines_are_overwritten_over_many_segments(pieces: list[str]) -> None:
    """The same with segments of a few bytes, so that lines lie in many."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (streams, sys.modules[__name__]):
            patch.setattr(module, "SEGMENT_BYTES", 8)
            patch.setattr(module, "SEGMENT_MAX_BYTES", 16)
        assert Page().write(*pieces) == jupyterlab("".join(pieces))


@given(PIECES, st.integers(0, 30))
def test_a_restored_stream_goes_on_as_if_nothing_had_happened(pieces: list[str], cut: int) -> None:
    page = Page()
    page.write(*pieces[:cut])
    page.stream = Stream.restore(json.loads(json.dumps(page.stream.state())))
    assert page.write(*pieces[cut:]) == jupyterlab("".join(pieces))


def test_segments_are_closed_and_split_at_their_limits() -> None:
    page = Page()
    page.write("x" * (SEGMENT_BYTES - 1), "y", "z")
    assert [len(segment) for segment in page.segments] == [SEGMENT_BYTES, 1]
    page = Page()
    text = "a" + "😀" * SEGMENT_MAX_BYTES
    assert page.write(text) == text
    assert [len(segment.encode()) for segment in page.segments] == [16381, 16384, 16384, 16384, 4]


def test_overwriting_reaches_back_over_segments_and_stops_there() -> None:
    page = Page()
    page.write("first\n" + "x" * 40_000)
    assert len(page.segments) == 3
    assert page.write("\rABC") == "first\nABC" + "x" * 39_997
    assert page.write("\b" * 3 + "\n!") == "first\n" + "x" * 39_994 + "\n!"


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_a_line_beyond_the_limit_settles_the_same_in_any_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LINE_CHARS", 100)
    text = "x" * 205 + "\r" + "y" * 10 + "\n" + "z" * 250 + "\rA"
    page = Page()
    shown = page.write(*(text[at : at + size] for at in range(0, len(text), size)))
    assert shown == "x" * 100 + "y" * 10 + "x" * 95 + "\n" + "z" * 100 + "A" + "z" * 149
    assert page.stream.length <= 200


def test_only_the_line_is_kept() -> None:
    page = Page()
    for _ in range(1000):
        page.write("a line of text\n" * 10, "and ")
    assert page.stream.state()["line"] == "and "
    assert "cursor 4 of 4" in repr(page.stream)


def test_a_line_that_grows_by_single_characters_is_bounded() -> None:
    stream = Stream()
    for _ in range(3 * streams.LINE_CHARS):
        stream.write(".")
    assert stream.length <= 2 * streams.LINE_CHARS
    assert len(stream.state()["line"]) == stream.length
