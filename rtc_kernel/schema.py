"""How do the tables lie in a Yjs document?

The only room that knows Y types. It writes changes into a document and reads records out of one; it owns no
document, keeps no time and opens no transaction of its own (:func:`apply` runs inside the caller's).

Layout, version 1 (docs/document.md has it for clients of other languages)::

    meta        Map: the one row
    kernels     Map of id -> Map of columns
    executions  Map of id -> Map of columns, with
                outputs   Array of Map: an nbformat output, ``at`` and ``display_id``;
                          a stream's ``text`` is an Array of Text segments, joined they are the text
                metadata  Map: each party keeps its own keys
    comms       Map of id -> Map of columns, with ``state`` (Map) and ``messages`` (Array)
    queries     Map of id -> Map of columns
    cells       Map of id -> Map of columns

A column that is null is absent until it is set for the first time. Numbers come back from Yjs as floats and
bytes as bytearrays: the readers here normalise them.
Why segments: an append to a Text costs time linear in its length in pycrdt; a segment stays small.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar, assert_never
from weakref import WeakMethod

from pycrdt import Array, Doc, Map, Text

from . import bounds
from .bounds import ROW_BYTES, SEGMENT_BYTES, Bounds, Extent, weigh
from .errors import LocalError, Reason, RemoteError
from .tables import (
    COMM_MESSAGES_KEPT,
    AddCommMessage,
    AddOutput,
    Cell,
    Change,
    ClearOutputs,
    Comm,
    DropQuery,
    Execution,
    ExecutionState,
    Json,
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
    PutQuery,
    Query,
    QueryState,
    Request,
    RequestState,
    SetOutput,
    WriteText,
)

ROOTS = ("meta", "kernels", "executions", "comms", "queries", "cells")
"""The root maps of a ``state`` document."""

MAX_DEPTH = 100
"""How deep a plain value may be nested; what is deeper is cut and says so."""

MAX_INT = (1 << 53) - 1
"""The largest integer that every Yjs peer reads exactly; larger ones become floats, as in JavaScript."""

HANDLES_KEPT = 64
"""For how many executions the handles of rows and streams are kept, so that an append costs no look-up."""

DEAD_ITEM_BYTES = 15
"""What a first sync carries of a value, an output or a segment that is not there any more. Measured with pycrdt 0.14:
13 to 17 bytes (and 200 to 350 bytes of memory). Of text that was overwritten in place, and of what stood inside a row
that went, nothing stays."""

_SEGMENT_CHARS = 4096
_SURROGATES = re.compile("[\ud800-\udfff]")

YMap = Map[Any]
YArray = Array[Any]
YDoc = Doc[Any]


# --- writing -----------------------------------------------------------------------------------------------


class _Text:
    """The text of one stream: handles on its segments and the last of them, and what is not in the document yet.

    New segments wait until the end of the batch: of a flood most are beyond the bounds by then, and never written.
    """

    __slots__ = ("last", "new", "segments")

    def __init__(self, segments: YArray) -> None:
        self.segments = segments
        self.last: Text | None = segments[len(segments) - 1] if len(segments) else None
        self.new: list[str] = []

    def write(self, stream: bounds.Stream, segment: int, keep: int | None, text: str) -> int:
        """See :class:`rtc_kernel.tables.WriteText`. Returns how many segments went from the document."""
        gone = 0
        if segment > stream.count:
            if not stream.is_loaded:
                raise LocalError(f"segment {segment} of a stream that has {stream.count}")
            held = len(stream.sizes)
            first = stream.skip(segment)
            gone = self.remove(first, held - first, held)
        index = stream.index(segment)
        if index is None or segment < stream.count - 1:
            held = len(stream.sizes)
            first = stream.truncate(segment if index is None else segment + 1)
            gone = self.remove(first, held - first, held)
        if segment == stream.count:
            self.new.append(text)
            stream.append(_size(text))
        elif self.new:
            self.new[-1] = (self.new[-1] if keep is None else self.new[-1][:keep]) + text
            stream.resize(_size(self.new[-1]))
        elif self.last is not None:
            size = stream.sizes[-1]
            if keep is not None:
                # Offsets of a Text are UTF-8 bytes; one inside a character would panic.
                kept = _size(str(self.last)[:keep])
                if kept < size:
                    del self.last[kept:size]
                    size = kept
            if text:
                self.last.insert(size, text)
            stream.resize(size + _size(text))
        return gone

    def remove(self, index: int, count: int, held: int) -> int:
        """Take segments away, of ``held`` that there are. Returns how many of them were in the document."""
        written = held - len(self.new)
        gone = max(0, min(count, written - index))
        del self.new[max(0, index - written) : max(0, index + count - written)]
        if gone:
            del self.segments[index : index + gone]
            if index + gone == written:
                self.last = self.segments[index - 1] if index else None
        return gone

    def finish(self) -> None:
        """Write the new segments."""
        if self.new:
            self.segments.extend([Text(text) for text in self.new])
            self.last = self.segments[len(self.segments) - 1]
            self.new.clear()


class _Row:
    """Handles on one execution: its row, its outputs, the text of its streams by index."""

    __slots__ = ("outputs", "row", "texts")

    def __init__(self, row: YMap) -> None:
        self.row = row
        self.outputs: YArray = row["outputs"]
        self.texts: dict[int, _Text] = {}

    def text(self, index: int) -> _Text:
        """Of the stream at this index."""
        text = self.texts.get(index)
        if text is None:
            text = self.texts[index] = _Text(self.outputs[index]["text"])
        return text

    def leave_out(self, index: int, count: int) -> None:
        """So many outputs went from there on."""
        before = {at: text for at, text in self.texts.items() if at < index}
        behind = {at - count: text for at, text in self.texts.items() if at >= index + count}
        self.texts = before | behind

    def finish(self) -> None:
        """Write the text that waits; only the last stream will be written to again."""
        for text in self.texts.values():
            text.finish()
        if len(self.texts) > 1:
            last = max(self.texts)
            self.texts = {last: self.texts[last]}


class _CommExtent:
    """The bytes of one comm: of each key of its state, and of its last messages."""

    __slots__ = ("_keys", "_messages", "size")

    def __init__(self) -> None:
        self._keys: dict[str, int] = {}
        self._messages: deque[int] = deque()
        self.size = ROW_BYTES

    def add(self, state: Json, messages: Iterable[Json]) -> None:
        """These keys were set, and these messages came."""
        for key, value in state.items():
            size = len(key) + SEGMENT_BYTES + weigh(value)
            self.size += size - self._keys.get(key, 0)
            self._keys[key] = size
        for message in messages:
            self._messages.append(weigh(message))
            self.size += self._messages[-1]
            if len(self._messages) > COMM_MESSAGES_KEPT:
                self.size -= self._messages.popleft()


class Prepared:
    """A whole execution as it is to lie in the document: what is beyond the bounds is left out already.

    Args:
        segments: the segments of its streams by position, where a cursor of the mirror refers to them; any other
            stream's text is cut into segments here. A number stands for a segment of so many bytes that was not read,
            because it is left out in any case. Outputs that were not read (``omitted_outputs``) are those that the
            bounds leave out.
    """

    __slots__ = ("execution", "extent", "gaps", "outputs")

    def __init__(
        self, execution: Execution, segments: Mapping[int, Iterable[str | int]] | None, limits: Bounds
    ) -> None:
        code = _bound_code(execution.code, limits)
        self.execution = execution = replace(execution, **code) if code else execution
        extent = self.extent = Extent(limits)
        for name, value in _to_columns(execution, ("outputs", "metadata")).items():
            if value is not None:
                extent.put_column(name, weigh(value))
        for name, value in execution.metadata.items():
            extent.put_column(f"metadata.{name}", weigh(value))
        self.outputs: list[tuple[Output, list[str | int]]] = []
        for index, (position, output) in enumerate(zip(execution.positions(), execution.outputs, strict=True)):
            parts = _segments(output, (segments or {}).get(position))
            self.outputs.append((output, parts))
            extent.add_output(_weigh_output(output), is_stream=output.output_type == "stream")
            if output.output_type == "stream":
                stream = extent.stream(index)
                for part in parts:
                    stream.append(part if isinstance(part, int) else _size(part))
                stream.is_loaded = True
                extent.count_text(stream, 0, 0)
        extent.omitted_outputs = execution.omitted_outputs or 0
        self._settle()

    def __repr__(self) -> str:
        return f"<Prepared {self.execution.id}: {self.extent!r}>"

    def _settle(self) -> None:
        cut = self.extent.settle()
        if cut.outputs is not None:
            index, count = cut.outputs
            del self.outputs[index : index + count]
        for at, index, count in cut.segments:
            del self.outputs[at][1][index : index + count]
        self.gaps = {at: _gap(stream) for at, stream in self.extent.changed_streams()}

    def to_map(self) -> YMap:
        """The row."""
        columns = _to_columns(self.execution, ("outputs", "metadata"))
        row = _columns({**columns, "omitted_outputs": self.extent.omitted_outputs or None})
        row["metadata"] = Map(clean(self.execution.metadata))
        row["outputs"] = Array(
            [_output(output, parts, self.gaps.get(at)) for at, (output, parts) in enumerate(self.outputs)]
        )
        return Map(row)


class Writer:
    """Writes changes into one document, of which it is the only writer, and keeps each execution within its bounds.

    It owns the numbers of what is in the document (an :class:`~rtc_kernel.bounds.Extent` per execution) and handles
    on the rows that were last written; whoever takes a row away must say so through :meth:`remove_execution`.

    Attributes:
        comm_bytes: bytes of the comms in the document, an estimate of what is alive.
        dead_bytes: what a first sync carries of things that are not there any more, about. The garbage collection
            of Yjs keeps of each an empty item, and joins items that were written one after another.
    """

    def __init__(self, doc: YDoc, limits: Bounds | None = None) -> None:
        self.limits = limits or Bounds()
        self._extents: dict[str, Extent] = {}
        self._rows: OrderedDict[str, _Row] = OrderedDict()
        self._dead: dict[str, int] = {}  # by execution: all of it goes when the row goes
        self._comms: OrderedDict[str, _CommExtent] = OrderedDict()  # the one that was written to last is the last
        self.comm_bytes = 0
        self._last_written: object = None
        self._open(doc)

    def __repr__(self) -> str:
        return f"<schema.Writer {len(self._extents)} rows, {len(self._rows)} at hand, {self.dead_bytes} bytes dead>"

    def _open(self, doc: YDoc) -> None:
        self.meta, self.kernels, self.executions, self.comms, self.queries, self.cells = roots(doc)
        self.dead_bytes = 0
        self._rows.clear()
        self._dead.clear()

    def move(self, doc: YDoc) -> None:
        """Go on in another document, which gets a copy of everything, without anything dead. Inside a transaction
        of the other one."""
        before = (self.meta, self.kernels, self.executions, self.comms, self.queries, self.cells)
        self._open(doc)
        for source, target in zip(before, roots(doc), strict=True):
            for key in list(source.keys()):
                target[key] = _copy(source[key])

    def size_of(self, execution: str) -> int:
        """Bytes of a row in the document, an estimate; 0 where there is none."""
        extent = self._extents.get(execution)
        return 0 if extent is None else extent.size

    def apply(self, changes: Iterable[Change]) -> None:
        """Write changes, in order, inside the caller's transaction; then leave out what is beyond the bounds.

        A change of a row that is not there (it left the window), or of an output that is left out, is passed over.

        Raises:
            LocalError: a position or a segment that cannot be; the document must be rebuilt.
        """
        beyond: dict[str, None] = {}
        for change in changes:
            match change:
                case WriteText(execution, position, segment, keep, text):
                    if row := self._row(execution):
                        self._write_text(execution, row, position, segment, keep, clean_text(text))
                        beyond[execution] = None
                case PutExecution(execution, columns):
                    self._put_execution(execution, columns)
                case AddOutput(execution, position, output):
                    if row := self._row(execution):
                        self._add_output(execution, row, position, output)
                        beyond[execution] = None
                case SetOutput(execution, position, output):
                    if row := self._row(execution):
                        self._set_output(execution, row, position, output)
                case ClearOutputs(execution):
                    if row := self._row(execution):
                        self._clear_outputs(execution, row)
                        beyond.pop(execution, None)
                case PutKernel(kernel, columns):
                    self._put(self.kernels, kernel, columns)
                case PutMeta(columns):
                    self._set_columns(self.meta, "meta", columns)
                case PutComm(comm, columns):
                    self._put_comm(comm, columns)
                case MergeCommState(comm, state):
                    if comm in self.comms:
                        self._set_columns(self.comms[comm]["state"], comm, state)
                        self._weigh_comm(comm, state)
                case AddCommMessage(comm, message):
                    if comm in self.comms:
                        messages: YArray = self.comms[comm]["messages"]
                        messages.append(clean(message))
                        self._weigh_comm(comm, {}, message)
                        if len(messages) > COMM_MESSAGES_KEPT:
                            del messages[: len(messages) - COMM_MESSAGES_KEPT]
                            self._kill(None)
                case PutCells(notebook, cells):
                    self._put_cells(notebook, cells)
                case PutQuery(query, columns):
                    self._put(self.queries, query, columns)
                case DropQuery(query):
                    if query in self.queries:
                        del self.queries[query]
                        self._kill(None, len(query))
                case PutBlob():
                    pass  # the document has only the reference
                case _:
                    assert_never(change)
        for execution in beyond:
            self._settle(execution)
        while len(self._rows) > HANDLES_KEPT:
            self._rows.popitem(last=False)

    def prepare(self, execution: Execution, segments: Mapping[int, Iterable[str | int]] | None = None) -> Prepared:
        """What :meth:`insert_execution` is to write of a whole record, and how large that is."""
        return Prepared(execution, segments, self.limits)

    def insert_execution(self, prepared: Prepared) -> None:
        """Write a whole record as one new row."""
        execution = prepared.execution.id
        self._rows.pop(execution, None)
        self._extents[execution] = prepared.extent
        self.executions[execution] = prepared.to_map()

    def insert_kernel(self, kernel: Kernel) -> None:
        """Write a whole record as one new row."""
        self.kernels[kernel.id] = Map(_columns(_to_columns(kernel)))

    def insert_comm(self, comm: Comm) -> None:
        """Write a whole record as one new row."""
        row = _columns(_to_columns(comm, ("state", "messages")))
        row["state"] = Map(clean(comm.state))
        row["messages"] = Array(clean(list(comm.messages[-COMM_MESSAGES_KEPT:])))
        self.comms[comm.id] = Map(row)
        self._weigh_comm(comm.id, comm.state, *comm.messages)

    def remove_execution(self, execution: str) -> None:
        """Take a row away."""
        self._rows.pop(execution, None)
        self._extents.pop(execution, None)
        if execution in self.executions:
            del self.executions[execution]
            self.dead_bytes -= self._dead.pop(execution, 0)
            self._kill(None, _size(execution))

    def remove_comm(self, comm: str) -> None:
        """Take a row away."""
        extent = self._comms.pop(comm, None)
        self.comm_bytes -= extent.size if extent is not None else 0
        if comm in self.comms:
            del self.comms[comm]
            self._kill(None, _size(comm))

    def oldest_comm(self) -> str | None:
        """The comm that was not written to for longest."""
        return next(iter(self._comms), None)

    def _weigh_comm(self, comm: str, state: Json, *messages: Json) -> None:
        """These keys and messages were written."""
        extent = self._comms.get(comm)
        before = 0 if extent is None else extent.size
        extent = self._comms[comm] = extent or _CommExtent()
        self._comms.move_to_end(comm)
        extent.add(state, messages)
        self.comm_bytes += extent.size - before

    # --- what is dead

    def _kill(self, place: object, key_bytes: int = 0, *, of: str | None = None, count: int = 1) -> None:
        """What stood at a place is dead. The same place twice in a row is one item.

        Args:
            key_bytes: of the key, where it was the last at its key and not overwritten.
            of: the execution that it goes with.
        """
        if place is None or place != self._last_written:
            size = DEAD_ITEM_BYTES * count + key_bytes
            self.dead_bytes += size
            if of is not None:
                self._dead[of] = self._dead.get(of, 0) + size
        self._last_written = place

    # --- executions

    def _row(self, execution: str) -> _Row | None:
        if row := self._rows.get(execution):
            return row
        if execution not in self.executions:
            return None
        row = self._rows[execution] = _Row(self.executions[execution])
        if execution not in self._extents:
            self._extents[execution] = _read_extent(row, self.limits)
        return row

    def _put_execution(self, execution: str, columns: Json) -> None:
        row = self._row(execution)
        if "code" in columns:
            columns = {**columns, **_bound_code(columns["code"], self.limits)}
            if row is not None and row.row.get("omitted_code_bytes"):
                columns = {"omitted_code_bytes": None, **columns}
        if row is None:
            if "seq" in columns:  # a row that left the window has no seq in what is said of it later
                others = {name: value for name, value in columns.items() if name != "metadata"}
                new = _columns({**_EXECUTION_DEFAULTS, **others})
                metadata = clean(columns.get("metadata") or {})
                extent = self._extents[execution] = Extent(self.limits)
                for name, value in new.items():
                    extent.put_column(name, weigh(value))
                for name, value in metadata.items():
                    extent.put_column(f"metadata.{name}", weigh(value))
                self.executions[execution] = Map({**new, "metadata": Map(metadata), "outputs": Array()})
                self._last_written = None
            return
        for name, value in columns.items():
            if name == "metadata":
                metadata_row: YMap = row.row["metadata"]
                for key, item in (value or {}).items():
                    self._put_column(execution, metadata_row, clean_text(key), item, f"metadata.{key}")
            else:
                self._put_column(execution, row.row, name, value, name)

    def _put_column(self, execution: str, row: YMap, key: str, value: Any, name: str) -> None:
        row[key] = clean(value)
        if self._extents[execution].put_column(name, weigh(value)):
            self._kill((execution, name), of=execution)
        else:
            self._last_written = (execution, name)

    def _add_output(self, execution: str, row: _Row, position: int, output: Output) -> None:
        extent = self._extents[execution]
        if position != extent.count:
            raise LocalError(f"output {position} of a row that has {extent.count}")
        is_stream = output.output_type == "stream"
        parts = _segments(output, None)
        row.outputs.append(_output(output, parts))
        extent.add_output(_weigh_output(output), is_stream=is_stream)
        if is_stream and parts:
            stream = extent.stream(extent.index(position) or 0)
            for part in parts:
                stream.append(_size(str(part)))
            extent.count_text(stream, 0, 0)
        self._last_written = None

    def _set_output(self, execution: str, row: _Row, position: int, output: Output) -> None:
        extent = self._extents[execution]
        index = extent.index(position)
        if index is None:
            return
        extent.set_output(index, _weigh_output(output))
        row.texts.pop(index, None)
        new = _output_columns(output)
        item: YMap = row.outputs[index]
        # Columns are set instead of the item replaced: of an item pycrdt keeps an empty one for ever, and passes by
        # all of them whenever it looks for an index.
        for name in list(item.keys()):
            if name not in new:
                del item[name]
                self._kill(None, len(name), of=execution)
        for name, value in new.items():
            before = item.get(name)
            if before is None:
                item[name] = value
                self._last_written = None
            elif before != value:
                item[name] = value
                self._kill((execution, position, name), of=execution)

    def _clear_outputs(self, execution: str, row: _Row) -> None:
        extent = self._extents[execution]
        count = extent.count - extent.omitted_outputs
        if extent.omitted_outputs:
            row.row["omitted_outputs"] = None
            self._kill(None, of=execution)
        extent.clear()
        row.texts.clear()
        row.outputs.clear()
        self._kill(None, of=execution, count=count)

    def _write_text(self, execution: str, row: _Row, position: int, segment: int, keep: int | None, text: str) -> None:
        extent = self._extents[execution]
        index = extent.index(position)
        if index is None:
            return
        stream = extent.stream(index)
        before, count = stream.size, len(stream.sizes)
        gone = row.text(index).write(stream, segment, keep, text)
        extent.count_text(stream, before, count)
        if gone:
            self._kill(None, of=execution, count=gone)
        elif keep is not None:
            self._kill((execution, position, segment), of=execution)
        self._last_written = (execution, position, segment)

    def _settle(self, execution: str) -> None:
        """Leave out what is beyond the bounds, and say so in the row."""
        extent = self._extents[execution]
        row = self._row(execution)
        if row is None:
            return
        if extent.is_beyond:
            cut = extent.settle()
            if cut.outputs is not None:
                index, count = cut.outputs
                del row.outputs[index : index + count]
                row.leave_out(index, count)
                row.row["omitted_outputs"] = extent.omitted_outputs
                self._kill(None, of=execution, count=count + 1)
            for at, index, count in cut.segments:
                text = row.text(at)
                gone = text.remove(index, count, len(extent.stream(at).sizes) + count)
                self._kill(None, of=execution, count=gone)
        row.finish()
        for at, stream in extent.changed_streams():
            output: YMap = row.outputs[at]
            for name, value in _gap(stream).items():
                if output.get(name) != value:
                    output[name] = value
                    self._kill(None, of=execution)

    # --- the other tables

    def _put(self, table: YMap, key: str, columns: Json) -> None:
        if key in table:
            self._set_columns(table[key], key, columns)
        else:
            table[key] = Map(_columns(columns))
            self._last_written = None

    def _set_columns(self, row: YMap, key: str, columns: Json) -> None:
        for name, value in columns.items():
            name = clean_text(name)
            was_there = name in row
            row[name] = clean(value)
            if was_there:
                self._kill((key, name))
            else:
                self._last_written = (key, name)

    def _put_comm(self, comm: str, columns: Json) -> None:
        if comm in self.comms:
            self._put(self.comms, comm, columns)
        elif "target" in columns:
            row = _columns({"kernel": "", "opened_by": "kernel", **columns})
            row["state"], row["messages"] = Map(), Array()
            self.comms[comm] = Map(row)
            self._weigh_comm(comm, {})

    def _put_cells(self, notebook: str, cells: tuple[Cell, ...]) -> None:
        for gone in set(self.cells.keys()) - {cell.id for cell in cells}:
            del self.cells[gone]
            self._kill(None, _size(gone))
        for cell in cells:
            self._put(self.cells, cell.id, {**_to_columns(cell), "notebook": notebook})


def apply(doc: YDoc, changes: Iterable[Change]) -> None:
    """Write changes into a document, in order, inside the caller's transaction.

    Whoever writes often keeps a :class:`Writer`, which remembers where it wrote last.
    """
    Writer(doc).apply(changes)


def roots(doc: YDoc) -> list[YMap]:
    """The root maps, in the order of :data:`ROOTS`; made where they are missing."""
    return [doc.get(name, type=Map) for name in ROOTS]


def _to_columns(record: Execution | Kernel | Comm | Cell, leave: tuple[str, ...] = ()) -> Json:
    names = (field.name for field in fields(record) if field.name != "id" and field.name not in leave)
    return {name: getattr(record, name) for name in names}


def _columns(columns: Json) -> Json:
    return {name: clean(value) for name, value in columns.items() if value is not None}


def _segments(output: Output, segments: Iterable[str | int] | None) -> list[str | int]:
    """The segments of a stream: as they are given, or cut here."""
    if output.output_type != "stream":
        return []
    if segments is not None:
        return [segment if isinstance(segment, int) else clean_text(segment) for segment in segments]
    text = clean_text(output.text or "")
    return [text[at : at + _SEGMENT_CHARS] for at in range(0, len(text), _SEGMENT_CHARS)]


def _output_columns(output: Output) -> Json:
    row = _columns({f.name: getattr(output, f.name) for f in fields(output) if f.name not in ("text", "traceback")})
    if output.traceback is not None:
        row["traceback"] = clean(list(output.traceback))
    return row


def _output(output: Output, segments: Iterable[str | int], gap: Json | None = None) -> YMap:
    row = _output_columns(output) | (gap or {})
    if output.output_type == "stream":
        row["text"] = Array([Text("" if isinstance(segment, int) else segment) for segment in segments])
    return Map(row)


def _weigh_output(output: Output) -> int:
    return sum(weigh(getattr(output, f.name)) for f in fields(output) if f.name != "text")


def _gap(stream: bounds.Stream) -> Json:
    """The columns of an output that say what of its text is left out."""
    gap = stream.gap
    return {"omitted_bytes": None if gap is None else stream.omitted_bytes, "omitted_segment": gap}


def _bound_code(code: str, limits: Bounds) -> Json:
    """The columns of code that is beyond the bounds; empty where it is not."""
    if 4 * len(code) <= limits.code_bytes or _size(code := clean_text(code)) <= limits.code_bytes:
        return {}
    front = code.encode()[: limits.code_bytes].decode(errors="ignore")
    return {"code": front, "omitted_code_bytes": _size(code) - _size(front)}


def _read_extent(row: _Row, limits: Bounds) -> Extent:
    """Of a row that another writer made."""
    extent = Extent(limits)
    for name in list(row.row.keys()):
        if name not in ("outputs", "metadata"):
            extent.put_column(name, weigh(row.row[name]))
    for name, value in (row.row["metadata"].to_py() or {}).items():
        extent.put_column(f"metadata.{name}", weigh(value))
    for index in range(len(row.outputs)):
        output: YMap = row.outputs[index]
        if output.get("omitted_bytes") or row.row.get("omitted_outputs"):
            raise LocalError("only its own writer knows which segments a row with a gap has")
        is_stream = "text" in output
        extent.add_output(
            sum(weigh(output[name]) for name in list(output.keys()) if name != "text"), is_stream=is_stream
        )
        if is_stream:
            stream = extent.stream(index)
            for segment in output["text"]:
                stream.append(len(segment))
            extent.count_text(stream, 0, 0)
    return extent


def _copy(value: Any) -> Any:
    """A Y type, or a plain value, to be put into another document."""
    match value:
        case Map():
            return Map({key: _copy(value[key]) for key in list(value.keys())})
        case Array():
            return Array([_copy(item) for item in value])
        case Text():
            return Text(str(value))
        case _:
            return clean(value)


def clean(value: Any) -> Any:
    """A plain value as every Yjs peer can hold it: text is UTF-8, keys are text, integers fit 53 bits,
    enums are words, nothing is nested deeper than :data:`MAX_DEPTH`."""
    return _clean(value, 0)


def _clean(value: Any, depth: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        if -MAX_INT <= value <= MAX_INT:
            return int(value)
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    if isinstance(value, float | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if depth > MAX_DEPTH:
        return "(nested too deeply)"
    if isinstance(value, Mapping):
        return {clean_text(str(key)): _clean(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    return clean_text(str(value))


def clean_text(text: str) -> str:
    """Text that is valid UTF-8: a lone surrogate becomes U+FFFD, so the count of code points stays."""
    if text.isascii():
        return str(text)
    return _SURROGATES.sub("\ufffd", text)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


# --- reading -----------------------------------------------------------------------------------------------

_INTS = frozenset(
    {
        "seq",
        "generation",
        "execution_count",
        "exit_code",
        "index",
        "schema",
        "omitted_code_bytes",
        "omitted_outputs",
        "omitted_bytes",
        "omitted_segment",
        "omitted_index",
    }
)
_PLAIN = frozenset({"data", "metadata", "error", "input", "state", "messages", "result"})
_EXECUTION_DEFAULTS: Json = {
    field.name: getattr(Execution(id=""), field.name)
    for field in fields(Execution)
    if field.name not in ("id", "outputs", "metadata")
}


def read_execution(
    execution: str, row: YMap, *, known: Execution | None = None, changed: Collection[int] = ()
) -> Execution:
    """A row of ``executions`` as a record. Unknown columns are ignored.

    Args:
        known: the row as it was read before; its outputs stand, except those at the positions in ``changed`` and
            those that came since.
    """
    values = _known(Execution, {name: _to_py(row[name]) for name in list(row.keys()) if name != "outputs"})
    before = known.outputs if known is not None else ()
    items: YArray | None = row.get("outputs")
    outputs = tuple(
        before[at] if at < len(before) and at not in changed else read_output(_to_py(items[at]))
        for at in range(len(items) if items is not None else 0)
        if items is not None
    )
    if "state" in values:
        values["state"] = ExecutionState(values["state"])
    return Execution(id=execution, outputs=outputs, **values)


def _to_py(value: Any) -> Any:
    return value.to_py() if isinstance(value, Map | Array | Text) else value


def read_output(value: Mapping[str, Any]) -> Output:
    """An item of ``outputs``, as plain values, as a record. Unknown columns are ignored."""
    values = _known(Output, value)
    if isinstance(segments := values.get("text"), list):
        values["text"] = "".join(segments)
        if (gap := values.get("omitted_segment")) is not None:
            values["omitted_index"] = sum(map(len, segments[:gap]))
    if values.get("traceback") is not None:
        values["traceback"] = tuple(values["traceback"])
    return Output(**{"output_type": "display_data", "at": 0.0, **values})


def read_executions(doc: YDoc) -> list[Execution]:
    """All executions of the window, in the order of ``seq``."""
    table: YMap = doc.get("executions", type=Map)
    return sorted((read_execution(key, table[key]) for key in list(table.keys())), key=lambda row: row.seq)


def read_kernel(kernel: str, row: YMap) -> Kernel:
    """A row of ``kernels`` as a record."""
    return _kernel(kernel, row.to_py() or {})


def read_kernels(doc: YDoc) -> list[Kernel]:
    """All kernels."""
    return [_kernel(key, value) for key, value in _table(doc, "kernels")]


def _kernel(key: str, value: Json) -> Kernel:
    values = _known(Kernel, value)
    if "state" in values:
        values["state"] = KernelState(values["state"])
    return Kernel(id=key, **values)


def read_comm(comm: str, row: YMap) -> Comm:
    """A row of ``comms`` as a record."""
    return _comm(comm, row.to_py() or {})


def read_comms(doc: YDoc) -> list[Comm]:
    """All comms, in the order in which they were opened."""
    rows = [_comm(key, value) for key, value in _table(doc, "comms")]
    return sorted(rows, key=lambda row: (row.opened_at or 0.0, row.id))


def _comm(key: str, value: Json) -> Comm:
    values = _known(Comm, value)
    values["messages"] = tuple(values.get("messages") or ())
    return Comm(id=key, **values)


def read_meta(doc: YDoc) -> Json:
    """The one row ``meta``."""
    return {name: _plain(value) for name, value in (doc.get("meta", type=Map).to_py() or {}).items()}


def read_query(query: str, row: YMap) -> Query:
    """A row of ``queries`` as a record."""
    return _query(query, row.to_py() or {})


def weakly(method: Callable[[Any], None]) -> Callable[[Any], None]:
    """An observer that does not keep the method's object alive: Python does not see the cycle through pycrdt, so that a
    document of an earlier epoch would stay for ever."""
    found = WeakMethod(method)

    def observe(events: Any) -> None:
        if (alive := found()) is not None:
            alive(events)

    return observe


def read_request(request: str, columns: Mapping[str, Any]) -> Request:
    """A row of ``requests`` that the agent has taken, as plain values, as a record (the document has no ``digest``)."""
    plain: Json = _plain(dict(columns))
    is_run = plain.get("action") == "execute"  # in other rows the column is the peer's: what is interrupted, …
    ours = _REQUEST_COLUMNS | ({"execution"} if is_run else set())
    own = {name: value for name, value in plain.items() if name not in ours}
    return Request(
        id=request,
        action=str(plain.get("action") or ""),
        by=str(plain.get("by") or ""),
        columns=own,
        ordinal=int(plain.get("ordinal") or 0),
        received_at=float(plain.get("received_at") or 0.0),
        state=RequestState(plain.get("state", "requested")),
        execution=plain.get("execution") if is_run else None,
        reason=plain.get("reason"),
    )


_REQUEST_COLUMNS = frozenset({"action", "by", "ordinal", "received_at", "state", "reason", "created_at"})


def read_queries(doc: YDoc) -> list[Query]:
    """All queries, in the order in which they were asked."""
    rows = [_query(key, value) for key, value in _table(doc, "queries")]
    return sorted(rows, key=lambda row: (row.asked_at or 0.0, row.id))


def _query(key: str, value: Json) -> Query:
    values = _known(Query, value)
    if "state" in values:
        values["state"] = QueryState(values["state"])
    return Query(id=key, **values)


def read_cell(cell: str, row: YMap) -> Cell:
    """A row of ``cells`` as a record."""
    return Cell(id=cell, **_known(Cell, row.to_py() or {}))


def read_cells(doc: YDoc) -> list[Cell]:
    """The cells of a headless run, in order."""
    rows = [Cell(id=key, **_known(Cell, value)) for key, value in _table(doc, "cells")]
    return sorted(rows, key=lambda row: row.index)


def _table(doc: YDoc, name: str) -> list[tuple[str, Json]]:
    return list((doc.get(name, type=Map).to_py() or {}).items())


def _known(record: type[Execution | Kernel | Comm | Cell | Output | Query], row: Mapping[str, Any]) -> Json:
    values: Json = {}
    for field in fields(record):
        if field.name in row and field.name != "id":
            value = row[field.name]
            if field.name in _INTS and value is not None:
                value = int(value)
            elif field.name in _PLAIN:
                value = _plain(value)
            values[field.name] = value
    return values


def _plain(value: Any) -> Any:
    """A plain value as JSON gives it: whole numbers are integers, bytes are ``bytes``."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= MAX_INT else value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


T = TypeVar("T")


def guard(call: Callable[[], T]) -> T:
    """The one place where foreign bytes and numbers reach pycrdt, which panics with a ``BaseException``."""
    try:
        return call()
    except (ValueError, RuntimeError) as exc:
        raise RemoteError(Reason.MALFORMED, "pycrdt could not read it") from exc
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":
            raise
        raise RemoteError(Reason.MALFORMED, "pycrdt panicked on it") from exc
