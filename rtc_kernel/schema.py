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
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import Any, assert_never

from pycrdt import Array, Doc, Map, Text

from .errors import LocalError
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

_SEGMENT_CHARS = 4096
_SURROGATES = re.compile("[\ud800-\udfff]")

YMap = Map[Any]
YArray = Array[Any]
YDoc = Doc[Any]


# --- writing -----------------------------------------------------------------------------------------------


class _Stream:
    """Handles on one stream: its segments, the last of them, and how many bytes that has."""

    __slots__ = ("count", "last", "last_bytes", "segments")

    def __init__(self, segments: YArray) -> None:
        self.segments = segments
        self.count = len(segments)
        self.last: Text | None = segments[self.count - 1] if self.count else None
        self.last_bytes = 0 if self.last is None else len(self.last)

    def write(self, segment: int, keep: int | None, text: str) -> None:
        """See :class:`rtc_kernel.tables.WriteText`."""
        if segment > self.count:
            raise LocalError(f"segment {segment} of a stream that has {self.count}")
        if segment < self.count - 1:
            del self.segments[segment + 1 :]
            self.count = segment + 1
            self.last = self.segments[segment]
            self.last_bytes = len(self.last)
        if segment == self.count or self.last is None:
            self.segments.append(Text(text))
            self.last = self.segments[self.count]
            self.last_bytes = _size(text)
            self.count += 1
            return
        if keep is not None:
            # Offsets of a Text are UTF-8 bytes; one inside a character would panic.
            kept = _size(str(self.last)[:keep])
            if kept < self.last_bytes:
                del self.last[kept : self.last_bytes]
                self.last_bytes = kept
        if text:
            self.last.insert(self.last_bytes, text)
            self.last_bytes += _size(text)


class _Row:
    """Handles on one execution: its row, its outputs, its streams by position."""

    __slots__ = ("outputs", "row", "streams")

    def __init__(self, row: YMap) -> None:
        self.row = row
        self.outputs: YArray = row["outputs"]
        self.streams: dict[int, _Stream] = {}


class Writer:
    """Writes changes into one document, of which it is the only writer.

    It owns handles on the rows that were last written; whoever takes a row away must say so through
    :meth:`remove_execution`.
    """

    def __init__(self, doc: YDoc) -> None:
        self.meta, self.kernels, self.executions, self.comms, self.queries, self.cells = roots(doc)
        self._rows: OrderedDict[str, _Row] = OrderedDict()

    def __repr__(self) -> str:
        return f"<schema.Writer {len(self._rows)} rows at hand>"

    def apply(self, changes: Iterable[Change]) -> None:
        """Write changes, in order, inside the caller's transaction.

        A change of a row that is not there (it left the window) is passed over.

        Raises:
            LocalError: a position or a segment that cannot be; the document must be rebuilt.
        """
        for change in changes:
            match change:
                case WriteText(execution, position, segment, keep, text):
                    if row := self._row(execution):
                        self._stream(row, position).write(segment, keep, clean_text(text))
                case PutExecution(execution, columns):
                    self._put_execution(execution, columns)
                case AddOutput(execution, position, output):
                    if row := self._row(execution):
                        if position != len(row.outputs):
                            raise LocalError(f"output {position} of a row that has {len(row.outputs)}")
                        row.outputs.append(_output(output))
                case SetOutput(execution, position, output):
                    if row := self._row(execution):
                        if position >= len(row.outputs):
                            raise LocalError(f"output {position} of a row that has {len(row.outputs)}")
                        row.streams.pop(position, None)
                        row.outputs[position] = _output(output)
                case ClearOutputs(execution):
                    if row := self._row(execution):
                        row.streams.clear()
                        row.outputs.clear()
                case PutKernel(kernel, columns):
                    _put(self.kernels, kernel, columns)
                case PutMeta(columns):
                    for name, value in columns.items():
                        self.meta[name] = clean(value)
                case PutComm(comm, columns):
                    self._put_comm(comm, columns)
                case MergeCommState(comm, state):
                    if comm in self.comms:
                        merged: YMap = self.comms[comm]["state"]
                        for name, value in state.items():
                            merged[clean_text(name)] = clean(value)
                case AddCommMessage(comm, message):
                    if comm in self.comms:
                        messages: YArray = self.comms[comm]["messages"]
                        messages.append(clean(message))
                        if len(messages) > COMM_MESSAGES_KEPT:
                            del messages[: len(messages) - COMM_MESSAGES_KEPT]
                case PutCells(notebook, cells):
                    self._put_cells(notebook, cells)
                case PutQuery(query, columns):
                    _put(self.queries, query, columns)
                case DropQuery(query):
                    if query in self.queries:
                        del self.queries[query]
                case PutBlob():
                    pass  # the document has only the reference
                case _:
                    assert_never(change)

    def insert_execution(self, execution: Execution, segments: Mapping[int, Iterable[str]] | None = None) -> None:
        """Write a whole record as one new row.

        Args:
            segments: the segments of its streams by position, where a cursor of the mirror refers to them;
                any other stream's text is cut into segments here.
        """
        row = _columns(_to_columns(execution, ("outputs", "metadata")))
        row["metadata"] = Map(clean(execution.metadata))
        row["outputs"] = Array(
            [_output(output, (segments or {}).get(at)) for at, output in enumerate(execution.outputs)]
        )
        self._rows.pop(execution.id, None)
        self.executions[execution.id] = Map(row)

    def insert_kernel(self, kernel: Kernel) -> None:
        """Write a whole record as one new row."""
        self.kernels[kernel.id] = Map(_columns(_to_columns(kernel)))

    def insert_comm(self, comm: Comm) -> None:
        """Write a whole record as one new row."""
        row = _columns(_to_columns(comm, ("state", "messages")))
        row["state"] = Map(clean(comm.state))
        row["messages"] = Array(clean(list(comm.messages[-COMM_MESSAGES_KEPT:])))
        self.comms[comm.id] = Map(row)

    def remove_execution(self, execution: str) -> None:
        """Take a row away."""
        self._rows.pop(execution, None)
        if execution in self.executions:
            del self.executions[execution]

    def remove_comm(self, comm: str) -> None:
        """Take a row away."""
        if comm in self.comms:
            del self.comms[comm]

    def _row(self, execution: str) -> _Row | None:
        if row := self._rows.get(execution):
            return row
        if execution not in self.executions:
            return None
        row = self._rows[execution] = _Row(self.executions[execution])
        if len(self._rows) > HANDLES_KEPT:
            self._rows.popitem(last=False)
        return row

    def _stream(self, row: _Row, position: int) -> _Stream:
        if stream := row.streams.get(position):
            return stream
        if position >= len(row.outputs):
            raise LocalError(f"text for output {position} of a row that has {len(row.outputs)}")
        segments = row.outputs[position].get("text")
        if not isinstance(segments, Array):
            raise LocalError(f"text for output {position}, which is no stream")
        stream = row.streams[position] = _Stream(segments)
        return stream

    def _put_execution(self, execution: str, columns: Json) -> None:
        row = self._row(execution)
        if row is None:
            if "seq" in columns:  # a row that left the window has no seq in what is said of it later
                others = {name: value for name, value in columns.items() if name != "metadata"}
                new = _columns({**_EXECUTION_DEFAULTS, **others})
                new["metadata"] = Map(clean(columns.get("metadata") or {}))
                new["outputs"] = Array()
                self.executions[execution] = Map(new)
            return
        for name, value in columns.items():
            if name == "metadata":
                metadata: YMap = row.row["metadata"]
                for key, item in (value or {}).items():
                    metadata[clean_text(key)] = clean(item)
            else:
                row.row[name] = clean(value)

    def _put_comm(self, comm: str, columns: Json) -> None:
        if comm in self.comms:
            _put(self.comms, comm, columns)
        elif "target" in columns:
            row = _columns({"kernel": "", "opened_by": "kernel", **columns})
            row["state"], row["messages"] = Map(), Array()
            self.comms[comm] = Map(row)

    def _put_cells(self, notebook: str, cells: tuple[Cell, ...]) -> None:
        for gone in set(self.cells.keys()) - {cell.id for cell in cells}:
            del self.cells[gone]
        for cell in cells:
            _put(self.cells, cell.id, {**_to_columns(cell), "notebook": notebook})


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


def _put(table: YMap, key: str, columns: Json) -> None:
    if key not in table:
        table[key] = Map(_columns(columns))
        return
    row: YMap = table[key]
    for name, value in columns.items():
        row[name] = clean(value)


def _output(output: Output, segments: Iterable[str] | None = None) -> YMap:
    row = _columns({f.name: getattr(output, f.name) for f in fields(output) if f.name not in ("text", "traceback")})
    if output.traceback is not None:
        row["traceback"] = clean(list(output.traceback))
    if output.output_type == "stream":
        if segments is None:
            text = output.text or ""
            segments = [text[at : at + _SEGMENT_CHARS] for at in range(0, len(text), _SEGMENT_CHARS)]
        row["text"] = Array([Text(clean_text(segment)) for segment in segments])
    return Map(row)


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

_INTS = frozenset({"seq", "generation", "execution_count", "exit_code", "index", "schema"})
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
    if isinstance(values.get("text"), list):
        values["text"] = "".join(values["text"])
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


def read_request(request: str, columns: Mapping[str, Any]) -> Request:
    """A row of ``requests`` that the agent has taken, as plain values, as a record (the document has no ``digest``)."""
    plain: Json = _plain(dict(columns))
    ours = _REQUEST_COLUMNS | ({"execution"} if plain.get("action") == "execute" else set())
    own = {name: value for name, value in plain.items() if name not in ours}
    return Request(
        id=request,
        action=str(plain.get("action") or ""),
        by=str(plain.get("by") or ""),
        columns=own,
        ordinal=int(plain.get("ordinal") or 0),
        received_at=float(plain.get("received_at") or 0.0),
        state=RequestState(plain.get("state", "requested")),
        execution=plain.get("execution"),
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
