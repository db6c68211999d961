r"""What does the text of a stream look like after ``\r``, ``\b`` and more text, and where is it written?

Pure. One :class:`Stream` is the end of one stream output: its last line, the cursor in it, and in which segments
of the output that line lies. What stands before that line is settled and not kept here, so the cost of a message
does not grow with the output.

The rules are those of JupyterLab 4 (``packages/outputarea/src/model.ts``, ``processText``; jupyterlab#16999 and
#17043), so that a reader sees here what a frontend shows:

* text overwrites from the cursor on, character by character, and what it does not reach stays: ``abc\rx`` is
  ``xbc``; the cursor survives from one message to the next;
* ``\n`` goes to the end of the line, wherever the cursor stands, and ends it for good: ``\r\n`` is a newline;
* ``\r`` goes back to the start of the line;
* ``\b`` takes away the character in front of the cursor, and with it the one under the cursor, if there is one;
  at the start of the line it does nothing.

Characters are code points (UTF-16 units in JupyterLab: the difference is seen only where astral characters are
overwritten). A line is held up to ``2 * LINE_CHARS``; then its first ``LINE_CHARS`` are settled as if it had
begun behind them.
"""

from __future__ import annotations

import re
from itertools import accumulate

from ...tables import SEGMENT_BYTES, SEGMENT_MAX_BYTES, Json
from .values import size_of

LINE_CHARS = 32768
"""Code points at the front of a line that are settled once the line is twice as long."""

_CONTROL = re.compile("[\r\b\n]")

Edit = tuple[int, int | None, str]
"""``(segment, keep, text)``, as in :class:`~rtc_kernel.tables.WriteText`."""


class Stream:
    """The end of one stream output's text.

    The line lies in the segments ``first``, ``first + 1``, …: ``counts`` says how many of its code points are in
    each, the last one being the segment that is open for more. ``offset`` code points (``offset_bytes`` bytes) of
    the segment ``first`` stand before the line. ``size`` is the bytes of the open segment.
    """

    __slots__ = ("counts", "cursor", "first", "length", "offset", "offset_bytes", "parts", "size")

    def __init__(self) -> None:
        self.first = 0
        self.offset = 0
        self.offset_bytes = 0
        self.counts = [0]
        self.size = 0
        self.parts: list[str] = []
        self.length = 0
        self.cursor = 0

    def __repr__(self) -> str:
        return f"<Stream segment {self.first + len(self.counts) - 1}, cursor {self.cursor} of {self.length}>"

    def write(self, text: str) -> list[Edit]:
        """Write clean text at the cursor; returns the edits of the segments, in order."""
        if self.cursor != self.length or "\r" in text or "\b" in text:
            return self._write_controls(text)
        size = size_of(text)
        if not size:
            return []
        if self.size >= SEGMENT_BYTES or self.size + size > SEGMENT_MAX_BYTES:
            line = self._line()
            return self._splice(line, len(line), line + text)
        counts = self.counts
        segment = self.first + len(counts) - 1
        start = text.rfind("\n") + 1
        if start:
            count = counts[-1] + (self.offset if len(counts) == 1 else 0)
            rest = text[start:]
            self.first, self.offset = segment, count + start
            self.offset_bytes = self.size + size - size_of(rest)
            self.counts, self.parts = [len(rest)], [rest]
            self.length = self.cursor = len(rest)
        else:
            counts[-1] += len(text)
            self.parts.append(text)
            self.length += len(text)
            self.cursor = self.length
        self.size += size
        if self.length > 2 * LINE_CHARS:
            self._settle(_surplus(self.length))
        return [(segment, None, text)]

    def _line(self) -> str:
        if len(self.parts) != 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0]

    def _write_controls(self, text: str) -> list[Edit]:
        before = self._line()
        settled: list[str] = []
        line, cursor, at = list(before), self.cursor, 0
        while True:
            found = _CONTROL.search(text, at)
            run = text[at : found.start() if found else len(text)]
            line[cursor : cursor + len(run)] = run
            cursor += len(run)
            if surplus := _surplus(len(line)):
                settled.append("".join(line[:surplus]))
                del line[:surplus]
                cursor = max(0, cursor - surplus)
            if found is None:
                break
            at = found.end()
            match found[0]:
                case "\n":
                    settled.append("".join(line) + "\n")
                    line, cursor = [], 0
                case "\r":
                    cursor = 0
                case _ if cursor:
                    del line[cursor - 1 : cursor + 1]
                    cursor -= 1
        front = "".join(settled)
        after = front + "".join(line)
        edits = self._splice(before, _common(before, after), after, len(front))
        self.cursor = cursor
        return edits

    def _splice(self, before: str, same: int, after: str, front: int | None = None) -> list[Edit]:
        """Replace the line by a text that may hold line ends.

        Args:
            same: how many code points at the front of both are the same.
            front: how many code points of ``after`` are settled; null: by its line ends and its length.
        """
        edits: list[Edit] = []
        keep = None if same == len(before) else self._truncate(before, same)
        at = same
        while at < len(after) or keep is not None:
            if self.size >= SEGMENT_BYTES:
                if keep is not None:
                    edits.append((self.first + len(self.counts) - 1, keep, ""))
                    keep = None
                if at == len(after):
                    break
                self.counts.append(0)
                self.size = 0
            piece = _piece(after, at, SEGMENT_MAX_BYTES - self.size)
            edits.append((self.first + len(self.counts) - 1, keep, piece))
            keep = None
            self.counts[-1] += len(piece)
            self.size += size_of(piece)
            at += len(piece)
        self.parts = [after]
        self.length = self.cursor = len(after)
        if front is None:
            front = after.rfind("\n") + 1
            front += _surplus(len(after) - front)
        self._settle(front)
        return edits

    def _truncate(self, line: str, to: int) -> int:
        """Close the line behind ``to`` of its code points; returns how many stay of the then open segment."""
        ends = list(accumulate(self.counts))
        index = next(i for i, end in enumerate(ends) if to < end)
        start = ends[index] - self.counts[index]
        self.counts[index:] = [to - start]
        self.size = size_of(line[start:to]) + (0 if index else self.offset_bytes)
        return to - start + (0 if index else self.offset)

    def _settle(self, count: int) -> None:
        """Let the line begin ``count`` code points later."""
        if not count:
            return
        line = self._line()
        at = 0
        while len(self.counts) > 1 and count - at >= self.counts[0]:
            at += self.counts.pop(0)
            self.first += 1
            self.offset = self.offset_bytes = 0
        self.counts[0] -= count - at
        self.offset += count - at
        self.offset_bytes += size_of(line[at:count])
        self.parts = [line[count:]]
        self.length -= count
        self.cursor = max(0, self.cursor - count)

    def state(self) -> Json:
        """JSON-ready; the inverse is :meth:`restore`."""
        return {
            "at": [self.first, self.offset, self.offset_bytes, self.size, self.cursor],
            "counts": list(self.counts),
            "line": self._line(),
        }

    @classmethod
    def restore(cls, state: Json) -> Stream:
        """The stream as it was when ``state`` was taken."""
        stream = cls()
        stream.first, stream.offset, stream.offset_bytes, stream.size, stream.cursor = state["at"]
        stream.counts = list(state["counts"])
        stream.parts = [state["line"]]
        stream.length = len(state["line"])
        return stream


def _surplus(length: int) -> int:
    """How much of a line of this length is settled: the same whether it came at once or piece by piece."""
    return 0 if length <= 2 * LINE_CHARS else -(-(length - 2 * LINE_CHARS) // LINE_CHARS) * LINE_CHARS


def _piece(text: str, at: int, room_bytes: int) -> str:
    """What of ``text[at:]`` goes into ``room_bytes``: whole code points."""
    piece = text[at : at + room_bytes]
    return piece if piece.isascii() else piece.encode()[:room_bytes].decode(errors="ignore")


def _common(a: str, b: str) -> int:
    """The length of the common front of two texts."""
    if b.startswith(a):
        return len(a)
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
