"""What do the outputs of one execution, or of one ``Output`` widget, look like after one more message?

Pure. State: for each list its length, the stream that may still grow, a clear that waits; and the index of
display ids over all executions. The outputs themselves are not kept: they went out as changes (those of a widget
are, because a widget's state is replaced key by key).

Source: messaging spec, "stream", "display_data", "update_display_data", "clear_output"; nbformat 4.5 for the shape.
Where the spec is silent the list behaves as JupyterLab's (``packages/outputarea``): consecutive streams of one name
are one output; ``clear_output(wait=True)`` clears at the next output and an update is none; an updated output is a
``display_data`` from then on; a ``display_data`` whose id is known updates the earlier ones too.
"""

from __future__ import annotations

from typing import Any

from ...bounds import weigh
from ...tables import AddOutput, Change, ClearOutputs, Json, Output, SetOutput, WriteText
from .streams import Stream
from .values import Limits, bound, clean, cut, get_count, get_list, get_object, get_text, read_bundle, size_of

OUTPUT_TYPES = frozenset({"stream", "display_data", "execute_result", "error"})
"""Message types that append an output."""

DISPLAY_PLACES_KEPT = 10_000
"""Outputs with a display id that can still be updated; the oldest are forgotten."""

CAPTURED_KEPT = 1000
"""Outputs that an ``Output`` widget holds; the oldest go."""


def read_stream(content: Json) -> tuple[str, str]:
    """``(name, text)`` of a ``stream`` message, clean; ``stdout`` where there is no name."""
    text = content.get("text")
    if isinstance(text, list):
        text = "".join(part for part in text if isinstance(part, str))
    return get_text(content, "name") or "stdout", get_text({"text": text}, "text")


def read_output(kind: str, content: Json, at: float, limits: Limits, changes: list[Change]) -> Output:
    """An output from the content of its message.

    Args:
        kind: the message's type: ``error``, ``execute_result``; anything else is a ``display_data``.
        changes: gets the blobs of its data.
    """
    if kind == "error":
        return Output(
            output_type="error",
            at=at,
            ename=cut(get_text(content, "ename"), limits.inline_bytes),
            evalue=cut(get_text(content, "evalue"), limits.inline_bytes),
            traceback=_read_traceback(get_list(content, "traceback"), limits.inline_bytes),
        )
    result = kind == "execute_result"
    return Output(
        output_type="execute_result" if result else "display_data",
        at=at,
        data=read_bundle(get_object(content, "data"), limits, changes),
        metadata=bound(get_object(content, "metadata"), limits),
        execution_count=get_count(content, "execution_count") if result else None,
        display_id=read_display_id(content),
    )


def size_of_output(output: Output) -> int:
    """Bytes of the values that stand in the row of an output."""
    return weigh([output.data, output.metadata, output.ename, output.evalue, output.traceback])


def read_display_id(content: Json) -> str | None:
    """``transient.display_id``, clean; null where there is none."""
    return get_text(get_object(content, "transient"), "display_id") or None


def _read_traceback(lines: list[Any], size_bytes: int) -> tuple[str, ...]:
    """The traceback's last lines that fit: the end of a traceback is what says where it happened."""
    kept: list[str] = []
    texts = [clean(line) for line in lines if isinstance(line, str)]
    for index, line in enumerate(reversed(texts)):
        size_bytes -= size_of(line)
        if size_bytes < 0:
            kept.append(f"[… {len(texts) - index} lines are left out …]")
            break
        kept.append(line)
    return tuple(reversed(kept))


class Displays:
    """Where the outputs with a display id are, ``(execution, position)``, oldest first, and how large each is."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str, int], int] = {}
        self._bytes: dict[str, int] = {}  # by execution
        self._by_id: dict[str, dict[tuple[str, str, int], None]] = {}
        self._by_execution: dict[str, dict[tuple[str, str, int], None]] = {}

    def __repr__(self) -> str:
        return f"<Displays {len(self._by_id)} ids, {len(self._places)} outputs>"

    def add(self, display_id: str, execution: str, position: int, size: int = 0) -> None:
        """An output with this id and of so many bytes was appended; forgets the oldest beyond
        ``DISPLAY_PLACES_KEPT``."""
        place = (display_id, execution, position)
        self._places[place] = 0
        self._resize(place, size)
        self._by_id.setdefault(display_id, {})[place] = None
        self._by_execution.setdefault(execution, {})[place] = None
        if len(self._places) > DISPLAY_PLACES_KEPT:
            self._drop(next(iter(self._places)))

    def forget(self, execution: str) -> None:
        """The outputs of this execution were cleared."""
        for place in list(self._by_execution.get(execution, ())):
            self._drop(place)

    def update(self, display_id: str, output: Output) -> list[Change]:
        """Replace every output that carries the id."""
        places = self._by_id.get(display_id, {})
        size = size_of_output(output)
        for place in places:
            self._resize(place, size)
        return [SetOutput(execution, position, output) for _, execution, position in places]

    def used_bytes(self, execution: str) -> int:
        """Bytes of the outputs with a display id in this execution."""
        return self._bytes.get(execution, 0)

    def used_beside(self, display_id: str) -> int:
        """The same beside the outputs with this id, of the execution that has most."""
        used: dict[str, int] = {}
        for place in self._by_id.get(display_id, ()):
            used[place[1]] = used.get(place[1], self._bytes.get(place[1], 0)) - self._places[place]
        return max(used.values(), default=0)

    def __contains__(self, display_id: object) -> bool:
        return display_id in self._by_id

    def _resize(self, place: tuple[str, str, int], size: int) -> None:
        execution = place[1]
        self._bytes[execution] = self._bytes.get(execution, 0) + size - self._places[place]
        self._places[place] = size

    def _drop(self, place: tuple[str, str, int]) -> None:
        self._resize(place, 0)
        if not self._bytes[place[1]]:
            del self._bytes[place[1]]
        del self._places[place]
        for table, key in ((self._by_id, place[0]), (self._by_execution, place[1])):
            del table[key][place]
            if not table[key]:
                del table[key]


class Outputs:
    """The outputs of one execution: how many, the bytes of their values (those with a display id aside), the stream at
    their end, whether a clear waits."""

    __slots__ = ("clear_waits", "count", "execution", "name", "stream", "used_bytes")

    def __init__(self, execution: str) -> None:
        self.execution = execution
        self.count = 0
        self.used_bytes = 0
        self.name = ""
        self.stream: Stream | None = None
        self.clear_waits = False

    def __repr__(self) -> str:
        return f"<Outputs {self.count} of {self.execution}{', a clear waits' if self.clear_waits else ''}>"

    def write(self, name: str, text: str, at: float, displays: Displays) -> list[Change]:
        """Text for a stream: into the last output if that is the stream, else into a new one."""
        changes: list[Change] = []
        stream = self.stream
        if stream is None or name != self.name:
            changes = self._append(Output(output_type="stream", at=at, name=name, text=""), displays)
            self.stream = stream = Stream()
            self.name = name
        execution, position = self.execution, self.count - 1
        edits = stream.write(text)
        changes += [WriteText(execution, position, segment, keep, part, at) for segment, keep, part in edits]
        return changes

    def add(self, output: Output, displays: Displays) -> list[Change]:
        """Append an output that is no stream; update the others that carry its display id."""
        changes: list[Change] = []
        if output.display_id is not None:
            changes += displays.update(output.display_id, to_display(output))
        changes += self._append(output, displays)
        if output.display_id is not None:
            displays.add(output.display_id, self.execution, self.count - 1, size_of_output(output))
        else:
            self.used_bytes += size_of_output(output)
        return changes

    def limits(self, limits: Limits, displays: Displays) -> Limits:
        """What the next value may weigh."""
        if self.clear_waits:
            return limits
        return limits.within(self.used_bytes + displays.used_bytes(self.execution))

    def clear(self, wait: bool, displays: Displays) -> list[Change]:
        """Take all outputs away, now or at the next one."""
        self.stream = None
        self.clear_waits = wait
        if wait or not self.count:
            return []
        self.count = self.used_bytes = 0
        displays.forget(self.execution)
        return [ClearOutputs(self.execution)]

    def _append(self, output: Output, displays: Displays) -> list[Change]:
        changes = self.clear(wait=False, displays=displays) if self.clear_waits else []
        self.stream = None
        changes.append(AddOutput(self.execution, self.count, output))
        self.count += 1
        return changes

    def state(self) -> Json:
        """JSON-ready; the inverse is :meth:`restore`."""
        state: Json = {"count": self.count}
        if self.used_bytes:
            state["used_bytes"] = self.used_bytes
        if self.clear_waits:
            state["clear_waits"] = True
        if self.stream is not None:
            state |= {"name": self.name, "stream": self.stream.state()}
        return state

    @classmethod
    def restore(cls, execution: str, state: Json) -> Outputs:
        """The outputs as they were when ``state`` was taken."""
        outputs = cls(execution)
        outputs.count = state["count"]
        outputs.used_bytes = state.get("used_bytes", 0)
        outputs.clear_waits = state.get("clear_waits", False)
        if "stream" in state:
            outputs.name, outputs.stream = state["name"], Stream.restore(state["stream"])
        return outputs


def to_display(output: Output) -> Output:
    """What an output with a display id becomes when a later one updates it."""
    return Output(
        output_type="display_data",
        at=output.at,
        data=output.data,
        metadata=output.metadata,
        display_id=output.display_id,
    )


class Capture:
    """The outputs of one ``Output`` widget, as nbformat has them.

    A stream keeps its last segments up to the inline limit, the list its last ``CAPTURED_KEPT`` outputs up to
    ``execution_bytes``: each message sends the list anew. Display ids are not followed here (JupyterLab's ``Output``
    does not either).
    """

    __slots__ = ("_clear_waits", "_limits", "_outputs", "_segments", "_sizes", "_skipped", "_stream")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._outputs: list[Json] = []
        self._sizes: list[int] = []  # of each output, in bytes
        self._stream: Stream | None = None
        self._segments: list[str] = []
        self._skipped = 0
        self._clear_waits = False

    def __repr__(self) -> str:
        return f"<Capture {len(self._outputs)} outputs>"

    def outputs(self) -> list[Json]:
        """The widget's ``outputs``: a list of its own, its items never changed later."""
        return list(self._outputs)

    def set(self, outputs: list[Json]) -> None:
        """The kernel set ``outputs`` itself."""
        self._stream, self._clear_waits = None, False
        self._put(outputs)

    def write(self, name: str, text: str) -> None:
        """As :meth:`Outputs.write`."""
        if self._stream is None or self._outputs[-1]["name"] != name:
            self.add({"output_type": "stream", "name": name, "text": ""})
            self._stream, self._segments, self._skipped = Stream(), [], 0
        for segment, keep, part in self._stream.write(text):
            if segment < self._skipped:
                self._segments, self._skipped, keep = [], segment, None
            index = segment - self._skipped
            held = self._segments[index] if index < len(self._segments) else ""
            self._segments[index:] = [(held if keep is None else held[:keep]) + part]
        sizes = [size_of(segment) for segment in self._segments]
        while len(sizes) > 1 and sum(sizes) > self._limits.inline_bytes:
            del sizes[0], self._segments[0]
            self._skipped += 1
        self._outputs[-1] = {"output_type": "stream", "name": name, "text": "".join(self._segments)}
        self._sizes[-1] = sum(sizes)
        self._trim()

    def add(self, output: Json) -> None:
        """As :meth:`Outputs.add`, with an output in nbformat's shape."""
        if self._clear_waits:
            self.clear(wait=False)
        self._stream = None
        self._outputs.append(output)
        self._sizes.append(weigh(output))
        self._trim()

    def clear(self, wait: bool) -> None:
        """As :meth:`Outputs.clear`."""
        self._stream, self._clear_waits = None, wait
        if not wait:
            self._put([])

    def _put(self, outputs: list[Json]) -> None:
        self._outputs = list(outputs)
        self._sizes = [weigh(output) for output in outputs]
        self._trim()

    def _trim(self) -> None:
        beyond = len(self._outputs) - CAPTURED_KEPT
        over_bytes = sum(self._sizes) - self._limits.execution_bytes
        count = 0
        while count < len(self._sizes) - 1 and (count < beyond or over_bytes > 0):
            over_bytes -= self._sizes[count]
            count += 1
        del self._outputs[:count], self._sizes[:count]

    def state(self) -> Json:
        """JSON-ready; the inverse is :meth:`restore`."""
        state: Json = {"outputs": list(self._outputs), "clear_waits": self._clear_waits}
        if self._stream is not None:
            name = state["outputs"].pop()["name"]
            state |= {"name": name, "stream": self._stream.state()}
            state |= {"segments": list(self._segments), "skipped": self._skipped}
        return state

    @classmethod
    def restore(cls, state: Json, limits: Limits) -> Capture:
        """The capture as it was when ``state`` was taken."""
        capture = cls(limits)
        capture._put(state["outputs"])
        capture._clear_waits = state["clear_waits"]
        if "stream" in state:
            capture._stream = Stream.restore(state["stream"])
            capture._segments, capture._skipped = list(state["segments"]), state["skipped"]
            text = "".join(capture._segments)
            capture._outputs.append({"output_type": "stream", "name": state["name"], "text": text})
            capture._sizes.append(size_of(text))
        return capture
