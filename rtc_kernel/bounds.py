"""Which outputs and segments of an execution are in the document, where, and how many bytes do they have?

Pure; knows sizes and numbers, no values and no Y types. State: one :class:`Extent` per execution. Mirror and store
count outputs (``position``) and segments of text from 0 on and never leave one out; the document has the first and
the newest of them, and this room says at which index of the document's arrays a number is.

Theory. Both bounds are a head and a tail. Outputs: the first half of ``outputs`` of them stays for ever, and of the
rest the newest. Text: of all text of an execution, whatever stream it is in, the segments of the first half of
``stream_bytes`` stay, and of the rest the newest. Text only ever grows at its end and is rewritten near its end, so
what lies between head and tail is one gap per stream, and a number before the gap is an index, behind it one less
the number of what is left out. What was left out does not come back, not even when text behind it goes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import LocalError

ROW_BYTES = 350
"""What a row takes beside its values: names of columns, keys, clocks. Measured: 340 to 400."""

OUTPUT_BYTES = 100
"""The same for an output."""

SEGMENT_BYTES = 16
"""The same for a segment of text."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What of one execution stays in the document.

    Attributes:
        stream_bytes: UTF-8 bytes of all its text; the half at the front and the newest half stay.
        outputs: number of its outputs, from 2; the half at the front and the newest half stay.
        code_bytes: UTF-8 bytes of its code; the front stays.
    """

    stream_bytes: int = 1 << 20
    outputs: int = 1000
    code_bytes: int = 1 << 20


class Stream:
    """The segments of one stream.

    Attributes:
        sizes: UTF-8 bytes of each segment that is in the document.
        size: their sum.
        head: how many of those in the document stand before the gap; null while nothing may be left out.
        changed: the gap is another one than the document says.
        is_loaded: it comes from a history, which has a limit too: segments may be missing at its end.
    """

    __slots__ = ("_omitted", "changed", "head", "is_loaded", "omitted_bytes", "size", "sizes")

    def __init__(self, head: int | None = None) -> None:
        self.sizes: list[int] = []
        self.size = 0
        self.head = head
        self.changed = False
        self.is_loaded = False
        self.omitted_bytes = 0
        self._omitted = array("I")

    def __repr__(self) -> str:
        return f"<Stream {len(self.sizes)} segments, {self.size} bytes; {len(self._omitted)} left out>"

    @property
    def count(self) -> int:
        """How many segments the stream has, those that are left out too."""
        return len(self.sizes) + len(self._omitted)

    @property
    def gap(self) -> int | None:
        """The index before which segments are left out; null where none are."""
        return self.head if self._omitted else None

    def index(self, segment: int) -> int | None:
        """Where a segment is in the document; null where it is left out."""
        if not self._omitted or self.head is None or segment < self.head:
            return segment
        index = segment - len(self._omitted)
        return index if index >= self.head else None

    def append(self, size: int) -> None:
        """A segment came at the end."""
        self.sizes.append(size)
        self.size += size

    def resize(self, size: int) -> None:
        """The last segment has so many bytes now."""
        self.size += size - self.sizes[-1]
        self.sizes[-1] = size

    def truncate(self, segment: int) -> int:
        """This segment and all behind it go. Returns the index in the document from which on segments go."""
        index = self.index(segment)
        if index is None:  # it is left out already
            index = self.head or 0
            self._omitted = self._omitted[: segment - index]
            self.omitted_bytes = sum(self._omitted)
            self.changed = True
        elif self.head is not None and index < self.head:
            self.head = index
            self.changed = self.changed or bool(self._omitted)
            self._omitted, self.omitted_bytes = array("I"), 0
        self.size -= sum(self.sizes[index:])
        del self.sizes[index:]
        return index

    def skip(self, segment: int) -> int:
        """What comes next is this segment: those before it that never came are left out, and with them what stands
        behind the head, so that there is one gap. Returns the index in the document from which on segments go."""
        missing = segment - self.count
        if self.head is None or not self._omitted:
            self.head = len(self.sizes)
        self.drop(self.size + 1, keep=0)
        self._omitted.extend([0] * missing)
        self.changed = True
        return self.head

    def drop(self, size: int, keep: int) -> int:
        """Leave out segments behind the head, oldest first, until at least ``size`` bytes are or only the last
        ``keep`` segments are left. Returns how many."""
        head, count, dropped = self.head or 0, 0, 0
        last = len(self.sizes) - keep
        while head + count < last and dropped < size:
            dropped += self.sizes[head + count]
            count += 1
        if count:
            self._omitted.extend(self.sizes[head : head + count])
            del self.sizes[head : head + count]
            self.size -= dropped
            self.omitted_bytes += dropped
            self.changed = True
        return count


class _Output:
    """One output: its bytes without text, and its text where it is a stream."""

    __slots__ = ("size", "stream")

    def __init__(self, size: int, stream: Stream | None) -> None:
        self.size = size + OUTPUT_BYTES
        self.stream = stream


@dataclass(frozen=True, slots=True)
class Cut:
    """What goes from the document, in this order.

    Attributes:
        outputs: ``(index, count)`` of outputs; null where none do.
        segments: ``(index of the output, index of the segment, count)``, indexes as they are once those outputs went.
    """

    outputs: tuple[int, int] | None
    segments: list[tuple[int, int, int]]


class Extent:
    """One execution: which of its outputs and segments are in the document, and its bytes there."""

    __slots__ = (
        "_changed",
        "_columns",
        "_full",
        "_other_bytes",
        "_outputs",
        "_text_bytes",
        "bounds",
        "omitted_outputs",
    )

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.omitted_outputs = 0
        self._outputs: list[_Output] = []
        self._columns: dict[str, int] = {}
        self._other_bytes = ROW_BYTES
        self._text_bytes = 0
        self._changed = False  # the gap of a stream
        self._full = False  # the head of the text is complete: what comes is its tail

    def __repr__(self) -> str:
        return f"<Extent {len(self._outputs)} outputs, {self.omitted_outputs} left out, {self.size} bytes>"

    @property
    def size(self) -> int:
        """Bytes of the row in the document: an estimate, of what is alive."""
        return self._other_bytes + self._text_bytes

    @property
    def count(self) -> int:
        """How many outputs there are, those that are left out too."""
        return len(self._outputs) + self.omitted_outputs

    @property
    def is_beyond(self) -> bool:
        """Whether :meth:`settle` has something to do."""
        return len(self._outputs) > self.bounds.outputs or self._text_bytes > self.bounds.stream_bytes

    def index(self, position: int) -> int | None:
        """Where an output is in the document; null where it is left out.

        Raises:
            LocalError: there is no such output.
        """
        if position >= self.count:
            raise LocalError(f"output {position} of a row that has {self.count}")
        head = self.bounds.outputs // 2
        if not self.omitted_outputs or position < head:
            return position
        index = position - self.omitted_outputs
        return index if index >= head else None

    def put_column(self, name: str, size: int) -> bool:
        """A column has so many bytes now. Returns whether it was there before."""
        before = self._columns.get(name)
        self._columns[name] = size
        self._other_bytes += size - (before or 0)
        return before is not None

    def add_output(self, size: int, *, is_stream: bool) -> None:
        """An output came at the end; ``size`` without its text."""
        output = _Output(size, Stream(0 if self._full else None) if is_stream else None)
        self._outputs.append(output)
        self._other_bytes += output.size

    def set_output(self, index: int, size: int) -> None:
        """An output that is no stream was replaced."""
        output = _Output(size, None)
        self._other_bytes += output.size - self._outputs[index].size
        self._outputs[index] = output

    def clear(self) -> None:
        """All outputs went."""
        for output in self._outputs:
            self._forget(output)
        self._outputs.clear()
        self._full = False
        self.omitted_outputs = 0

    def stream(self, index: int) -> Stream:
        """The text of an output.

        Raises:
            LocalError: it is no stream.
        """
        stream = self._outputs[index].stream
        if stream is None:
            raise LocalError(f"text for output {index}, which is no stream")
        return stream

    def count_text(self, stream: Stream, before: int, segments: int) -> None:
        """A stream that had ``before`` bytes in so many segments was written to."""
        self._changed = self._changed or stream.changed
        self._text_bytes += stream.size - before
        self._other_bytes += SEGMENT_BYTES * (len(stream.sizes) - segments)

    def changed_streams(self) -> Iterator[tuple[int, Stream]]:
        """``(index of the output, stream)`` whose gap changed since the last time this was asked."""
        if not self._changed:
            return
        self._changed = False
        for index, output in enumerate(self._outputs):
            if output.stream is not None and output.stream.changed:
                output.stream.changed = False
                yield index, output.stream

    def settle(self) -> Cut:
        """Leave out what is beyond the bounds."""
        outputs = self._settle_outputs()
        segments: list[tuple[int, int, int]] = []
        beyond = self._text_bytes - self.bounds.stream_bytes
        if beyond > 0:
            if not self._full:
                self._end_head()
            for index, stream in self._streams():
                before, count = stream.size, len(stream.sizes)
                dropped = stream.drop(beyond, keep=1 if index == len(self._outputs) - 1 else 0)
                if dropped:
                    segments.append((index, stream.head or 0, dropped))
                    beyond -= before - stream.size
                    self.count_text(stream, before, count)
                if beyond <= 0:
                    break
        return Cut(outputs, segments)

    def _settle_outputs(self) -> tuple[int, int] | None:
        count = len(self._outputs) - self.bounds.outputs
        if count <= 0:
            return None
        head = self.bounds.outputs // 2
        for output in self._outputs[head : head + count]:
            self._forget(output)
        del self._outputs[head : head + count]
        self.omitted_outputs += count
        return head, count

    def _forget(self, output: _Output) -> None:
        self._other_bytes -= output.size
        if output.stream is not None:
            self._text_bytes -= output.stream.size
            self._other_bytes -= SEGMENT_BYTES * len(output.stream.sizes)

    def _streams(self) -> Iterator[tuple[int, Stream]]:
        for index, output in enumerate(self._outputs):
            if output.stream is not None:
                yield index, output.stream

    def _end_head(self) -> None:
        """The head is what the segments of the first half are; everything behind may go."""
        self._full = True
        left = self.bounds.stream_bytes // 2
        for _, stream in self._streams():
            stream.head = 0
            for size in stream.sizes:
                left -= size
                if left < 0:
                    break
                stream.head += 1


def weigh(value: Any) -> int:
    """Bytes of a plain value in the document, about."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(str(key)) + 2 + weigh(item) for key, item in value.items())
    if isinstance(value, Iterable):
        return sum(2 + weigh(item) for item in value)
    return 0 if value is None else 8
