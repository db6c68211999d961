"""What of an execution's outputs has a reader not seen yet, where the document has only their beginning and their end?

Pure. Of a stream past ``stream_bytes`` the document has a head and a tail, and what lies between grows while it is
followed. So a reader counts the bytes of the whole text, and is given what came since, with the size of a gap where the
document has let go of something before the reader saw it. State: of each stream how far it was read
(:class:`Reading`), with the text as it was seen then, so that a line that was overwritten is told from one that came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .tables import Execution, Output

Part = str | int
"""A text, or how many bytes are left out."""


def say_gap(size_bytes: int, execution: str = "ID") -> str:
    """The line that stands for text that is left out."""
    return f"… {size_bytes} bytes left out here; `jupyter rtc show {execution}` has them"


def say_missing(count: int, execution: str = "ID") -> str:
    """The line that stands for outputs that are left out."""
    return f"… {count} outputs left out here; `jupyter rtc show {execution}` has them"


def to_text(parts: Sequence[Part], execution: str = "ID") -> str:
    """Parts as one text, with a line of its own for each gap."""
    out = ""
    for part in parts:
        if isinstance(part, str):
            out += part
        else:
            out += f"{'' if not out or out.endswith(chr(10)) else chr(10)}{say_gap(part, execution)}\n"
    return out


def parts_of(output: Output) -> list[Part]:
    """The text of a stream, all that is there."""
    return list(_Excerpt.of(output).parts(0))


@dataclass(frozen=True, slots=True)
class _Excerpt:
    """A text by bytes: its head from 0 on, and its tail from ``start`` on. Without a gap the tail is empty."""

    head: bytes
    start: int
    tail: bytes

    @classmethod
    def of(cls, output: Output) -> _Excerpt:
        text = output.text or ""
        if not output.omitted_bytes:
            head, tail = text, ""
        else:
            at = output.omitted_index or 0
            head, tail = text[:at], text[at:]
        encoded = head.encode("utf-8", "replace")
        return cls(encoded, len(encoded) + (output.omitted_bytes or 0), tail.encode("utf-8", "replace"))

    @property
    def end(self) -> int:
        """The length of the whole text."""
        return self.start + len(self.tail)

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """What is there, with where it begins."""
        yield 0, self.head
        if self.tail or self.start > len(self.head):
            yield self.start, self.tail

    def parts(self, since: int) -> Iterator[Part]:
        """What stands behind so many bytes."""
        at = since
        for start, piece in self.pieces():
            if at < start:
                yield start - at
                at = start
            if text := piece[at - start :].decode("utf-8", "replace"):
                yield text
                at = start + len(piece)

    def line_start(self, at: int) -> int:
        """Where the line begins in which ``at`` is, or what is there of it."""
        begin = 0
        for start, piece in self.pieces():
            if start <= at:
                begin = start + piece.rfind(b"\n", 0, at - start) + 1
        return begin

    def has_line_end(self, since: int) -> bool:
        """Whether a line ends behind so many bytes."""
        return any(piece.find(b"\n", max(0, since - start)) >= 0 for start, piece in self.pieces())

    def difference(self, other: _Excerpt, until: int) -> int | None:
        """The first byte before ``until`` that is not the same in what both have; null where there is none."""
        both = min(until, other.end)
        for start, piece in self.pieces():
            for other_start, other_piece in other.pieces():
                low = max(start, other_start)
                high = min(start + len(piece), other_start + len(other_piece), both)
                if low >= high:
                    continue
                one, two = piece[low - start : high - start], other_piece[low - other_start : high - other_start]
                if one != two:
                    return low + _same(one, two)
        return both if both < until else None


def _same(one: bytes, two: bytes) -> int:
    """How long two different texts of one length are the same."""
    low, high = 0, len(one)
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle
    return low


class Reading:
    """How far somebody who prints a stream line by line has come with it."""

    __slots__ = ("_seen", "settled")

    def __init__(self) -> None:
        self.settled = 0  # bytes of the whole text that are done with: whole lines
        self._seen = _Excerpt(b"", 0, b"")

    def __repr__(self) -> str:
        return f"<Reading {self.settled} of {self._seen.end} bytes>"

    def read(self, output: Output) -> tuple[list[Part], bool]:
        """The text behind what is done with, as it is now.

        Returns:
            The parts, and whether something that was done with has changed: then they begin with its first line.
        """
        now = _Excerpt.of(output)
        changed = self._seen.difference(now, self.settled)
        if changed is not None:
            self.settled = now.line_start(changed)
        self._seen = now
        return list(now.parts(self.settled)), changed is not None

    def settle(self, left: str = "") -> None:
        """All that was read is done with, but for this end of it."""
        self.settled = self._seen.end - len(left.encode("utf-8", "replace"))


def new_text(before: Output, after: Output) -> Output:
    """What of a stream is new, as an output whose ``text`` is what a terminal must print so that it shows ``after``
    where it shows ``before``: the rest; or, where the last line was overwritten as progress bars do, that line again
    behind a carriage return. ``omitted_bytes`` of it are left out at its ``omitted_index``."""
    one, two = _Excerpt.of(before), _Excerpt.of(after)
    since, lead = one.end, ""
    changed = one.difference(two, since)
    if changed is not None:
        since = two.line_start(changed)
        lead = "\n" if one.has_line_end(since) else "\r"
    index, gap, text = None, None, lead
    for part in two.parts(since):
        if isinstance(part, int):
            index, gap = len(text), part
        else:
            text += part
    return replace(after, text=text, omitted_bytes=gap, omitted_index=index, omitted_segment=None)


def new_outputs(before: Execution | None, after: Execution) -> Iterator[tuple[int, Output]]:
    """What is new in the outputs of an execution, each with its position among all: of a stream the new text
    (:func:`new_text`), of others what was not there or is another one. Positions that are passed over are left out."""
    known = dict(zip(before.positions(), before.outputs, strict=True)) if before is not None else {}
    for position, output in zip(after.positions(), after.outputs, strict=True):
        earlier = known.get(position)
        if earlier is None or earlier.output_type != output.output_type or output.output_type != "stream":
            if earlier != output:
                yield position, output
        elif earlier != output:
            new = new_text(earlier, output)
            if new.text or new.omitted_bytes:
                yield position, new
