"""Which statements does a change mean?

Pure: over any connection, inside the caller's transaction. Appending to a stream is one statement on one segment.
A change of an execution that is not there (it has left the history) is passed over, as in the document; only one
that gives its ``seq`` makes a row.

Of each execution at most ``execution_bytes`` are stored: text beyond is left out, and the row says how much. Text
that came before stays as it is, so what is stored is the beginning.

Theory of the marks. A mark says: at this time the text of this stream had grown to here. A stream's first text is at
its output's ``at``; a further mark is written only when time or text has gone on (``MARK_S``, ``MARK_BYTES``), so text
behind the last mark came within ``PAUSE_S`` after it. Text that comes behind a pause gets one before it too, where what
was there has none: else nobody could tell the two apart. What takes text back takes the marks in it back.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from ...errors import LocalError
from ...tables import (
    COMM_MESSAGES_KEPT,
    END_STATES,
    REQUEST_END_STATES,
    AddCommMessage,
    AddOutput,
    Change,
    ClearOutputs,
    DropQuery,
    ExecutionState,
    Json,
    MergeCommState,
    Output,
    PutBlob,
    PutCells,
    PutComm,
    PutExecution,
    PutKernel,
    PutMeta,
    PutQuery,
    Request,
    SetOutput,
    WriteText,
)
from .rows import (
    COMM_COLUMNS,
    EXECUTION_COLUMNS,
    KERNEL_COLUMNS,
    OUTPUT_COLUMNS,
    REQUEST_COLUMNS,
    TRUNCATED,
    WORD_COLUMNS,
    Connection,
    column_value,
    dump,
    load,
    run,
    values_of,
)

PART_BYTES = 1 << 20
"""Bytes of one part of a blob."""

MARK_S = 0.005
"""Seconds between two marks of one stream, at least."""

MARK_BYTES = 512
"""Bytes of text between two marks that are less than ``PAUSE_S`` apart: a mark takes 24, so they stay below 5 % of the
text of a flood."""

PAUSE_S = 0.05
"""Seconds after which any text gets its mark."""

RUNS_KEPT = 256
"""Executions of which the editor knows by heart where their text ends."""

STREAMS_KEPT = 8
"""Streams of one execution, likewise."""

WORDS_KEPT = 10_000
"""Words whose rows the editor knows by heart."""

_ENDED = ", ".join(f"'{state.value}'" for state in sorted(END_STATES))
_LIVED = frozenset({"generation", "started_at", "ended_at", "exit_code"})
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

_PUT_OUTPUT = (
    f"INSERT OR REPLACE INTO outputs (execution, position, bytes, {', '.join(OUTPUT_COLUMNS)})"  # noqa: S608 - our names
    f" VALUES (?, ?, ?{', ?' * len(OUTPUT_COLUMNS)})"
)
_AT_SEGMENT = "execution = ? AND position = ? AND segment = ?"
_KEPT_OF_REQUEST = [f'"{name}"' for name in (*REQUEST_COLUMNS, "finished_at")]  # BY is a word of SQL's
_PUT_REQUEST = (
    f"INSERT INTO requests ({', '.join(_KEPT_OF_REQUEST)}) VALUES (?{', ?' * len(REQUEST_COLUMNS)})"  # noqa: S608
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _KEPT_OF_REQUEST)}"
)


@dataclass(slots=True)
class _Stream:
    """The end of one stream. ``grown_bytes``: of text behind its last mark; ``grown_at``: when the last of it came."""

    bytes: int
    marked_at: float
    segment: int = -1
    chars: int = 0
    grown_bytes: int = 0
    grown_at: float = 0.0


@dataclass(slots=True)
class _Run:
    """What is known of one execution. ``left_out_bytes``: of its text, not stored; null: all of it is.
    ``told_bytes``: of them, when somebody was told."""

    row: int
    bytes: int
    left_out_bytes: int | None
    told_bytes: int = 0
    streams: dict[int, _Stream] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)
    is_changed: bool = False
    is_cut: bool = False


class Editor:
    """Makes changes over one connection, of which it is the only writer.

    It knows by heart where the text of the last executions ends and which rows words have. Whoever rolls back, or
    writes without it, calls :meth:`forget`.

    Args:
        execution_bytes: of one execution at most so much is stored; 0: no limit.
    """

    def __init__(self, connection: Connection, *, execution_bytes: int = 0) -> None:
        self._connection = connection
        self._execution_bytes = execution_bytes
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._words: dict[str, int] = {}
        self._truncated: dict[str, Json | None] = {}
        self.words_used: set[int] | None = None
        """Gets the row of each word that is used, while it is a set."""

    def __repr__(self) -> str:
        return f"<Editor {len(self._runs)} executions, {len(self._words)} words at hand>"

    def forget(self) -> None:
        """What was known by heart may not be so any more."""
        self._runs.clear()
        self._words.clear()
        self._truncated.clear()

    def take_truncated(self) -> dict[str, Json | None]:
        """``{"bytes": n}`` of each execution of which text is left out, null where none is any more: when that begins
        or ends, and whenever it has doubled."""
        taken, self._truncated = self._truncated, {}
        return taken

    def apply(self, changes: Iterable[Change]) -> None:
        """Make the changes, in order. :meth:`finish` belongs to it, before the commit.

        Raises:
            LocalError: a column that the tables do not have.
            OverflowError, TypeError, ValueError: a value that does not fit its column.
        """
        for change in changes:
            self.apply_one(change)

    def apply_one(self, change: Change) -> None:
        """Make one change."""
        connection = self._connection
        match change:
            case WriteText():
                if known := self._run(change.execution):
                    self._write_text(known, change)
            case PutExecution(execution, columns):
                self._put_execution(execution, columns)
            case AddOutput(execution, position, output):
                if known := self._run(execution):
                    self._put_output(known, position, output)
            case SetOutput(execution, position, output):
                if known := self._run(execution):
                    self._take_output(known, position)
                    self._put_output(known, position, output)
            case PutKernel(kernel, columns):
                put_kernel(connection, kernel, columns)
            case PutMeta(columns):
                for key, value in columns.items():
                    run(connection, "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, dump(value)))
            case ClearOutputs(execution):
                if known := self._run(execution):
                    self._clear(known)
            case PutComm(comm, columns):
                _upsert(connection, "comms", COMM_COLUMNS, comm, columns)
            case MergeCommState(comm, state):
                for key, value in state.items():
                    _put_comm_value(connection, comm, key, value)
            case AddCommMessage(comm, message):
                _add_message(connection, comm, message)
            case PutBlob(digest, data, media_type):
                _put_blob(connection, digest, data, media_type)
            case PutCells(notebook, cells):
                run(connection, "DELETE FROM cells", ())
                for cell in cells:
                    values = (cell.index, cell.id, cell.cell_type, cell.source, notebook)
                    run(connection, "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", values)
            case PutQuery() | DropQuery():
                pass  # an answer is worth as long as the kernel that gave it
            case _:
                assert_never(change)

    def finish(self) -> None:
        """Write what was counted while the changes were made."""
        for execution, known in self._runs.items():
            if not known.is_changed:
                continue
            for position in known.written:
                values = (known.streams[position].bytes, known.row, position)
                run(self._connection, "UPDATE outputs SET bytes = ? WHERE execution = ? AND position = ?", values)
            run(self._connection, "UPDATE executions SET bytes = ? WHERE row = ?", (known.bytes, known.row))
            if known.is_cut:
                self._tell_cut(execution, known)
            known.written.clear()
            known.is_changed = known.is_cut = False
            while len(known.streams) > STREAMS_KEPT:
                del known.streams[next(iter(known.streams))]
        while len(self._runs) > RUNS_KEPT:
            self._runs.popitem(last=False)

    def _tell_cut(self, execution: str, known: _Run) -> None:
        row = run(self._connection, "SELECT metadata FROM executions WHERE row = ?", (known.row,)).fetchone()
        metadata = load(row[0])
        metadata.pop(TRUNCATED, None)
        cut = None if known.left_out_bytes is None else {"bytes": known.left_out_bytes}
        if cut is not None:
            metadata[TRUNCATED] = cut
        if cut is None or cut["bytes"] >= 2 * known.told_bytes:
            self._truncated[execution] = cut
            known.told_bytes = known.left_out_bytes or 0
        run(self._connection, "UPDATE executions SET metadata = ? WHERE row = ?", (dump(metadata), known.row))

    # --- executions

    def _run(self, execution: str) -> _Run | None:
        known = self._runs.get(execution)
        if known is not None:
            return known
        found = run(
            self._connection, "SELECT row, bytes, metadata FROM executions WHERE id = ?", (execution,)
        ).fetchone()
        if found is None:
            return None
        left_out = load(found[2]).get(TRUNCATED, {}).get("bytes") if TRUNCATED in found[2] else None
        known = self._runs[execution] = _Run(found[0], found[1], left_out, told_bytes=left_out or 0)
        return known

    def _put_execution(self, execution: str, columns: Json) -> None:
        known = self._run(execution)
        if known is None and "seq" not in columns:
            if unknown := [name for name in columns if name not in EXECUTION_COLUMNS]:
                raise LocalError(f"executions has no column {unknown[0]!r}")
            return
        if known is not None and "metadata" in columns:
            columns = dict(columns)
            if added := columns.pop("metadata"):
                row = run(self._connection, "SELECT metadata FROM executions WHERE row = ?", (known.row,)).fetchone()
                columns["metadata"] = {**load(row[0]), **added}
        names = tuple(name for name in columns if name != "id")
        if known is not None and not names:
            return
        sql = _statement("executions", EXECUTION_COLUMNS, names, is_new=known is None)
        values = [
            self._word(columns[name]) if name in WORD_COLUMNS else column_value(name, columns[name]) for name in names
        ]
        code_bytes = size_of_text(columns["code"]) if columns.get("code") else 0
        if known is not None:
            run(self._connection, sql, (*values, known.row))
        else:
            row = run(self._connection, sql, (execution, *values)).lastrowid
            known = self._runs[execution] = _Run(row or 0, 0, None)
        known.bytes += code_bytes
        known.is_changed = known.is_changed or code_bytes > 0

    def _word(self, word: str | None) -> int | None:
        if word is None:
            return None
        row = self._words.get(word)
        if row is None:
            found = run(self._connection, "SELECT row FROM words WHERE word = ?", (word,)).fetchone()
            if found is None:
                row = int(run(self._connection, "INSERT INTO words (word) VALUES (?)", (word,)).lastrowid or 0)
            else:
                row = int(found[0])
            if len(self._words) >= WORDS_KEPT:
                self._words.clear()
            self._words[word] = row
        if self.words_used is not None:
            self.words_used.add(row)
        return row

    # --- outputs

    def _put_output(self, known: _Run, position: int, output: Output) -> None:
        is_stream, values = output.output_type == "stream", values_of(output)
        size = sum(len(value) for value in values if isinstance(value, str | bytes))
        run(self._connection, _PUT_OUTPUT, (known.row, position, 0 if is_stream else size, *values))
        if is_stream:
            known.streams[position] = _Stream(0, output.at)
            if output.text:
                self._write_text(known, WriteText("", position, 0, None, output.text))
            return
        known.bytes += size
        known.is_changed = True
        for digest in _digests(values):
            run(self._connection, "INSERT OR IGNORE INTO uses VALUES (?, ?, ?)", (known.row, position, digest))

    def _take_output(self, known: _Run, position: int) -> None:
        where, values = "execution = ? AND position = ?", (known.row, position)
        found = run(self._connection, f"SELECT bytes FROM outputs WHERE {where}", values).fetchone()  # noqa: S608
        known.bytes -= found[0] if found else 0
        if stream := known.streams.pop(position, None):
            known.written.discard(position)
            known.bytes -= stream.bytes - (found[0] if found else 0)
        for table in ("segments", "marks"):
            run(self._connection, f"DELETE FROM {table} WHERE {where}", values)  # noqa: S608 - our names
        loosen(self._connection, "uses", where, values)

    def _clear(self, known: _Run) -> None:
        found = run(self._connection, "SELECT length(code) FROM executions WHERE row = ?", (known.row,)).fetchone()
        known.bytes = found[0]
        known.streams.clear()
        known.written.clear()
        for table in ("segments", "marks", "outputs"):
            run(self._connection, f"DELETE FROM {table} WHERE execution = ?", (known.row,))  # noqa: S608 - our names
        loosen(self._connection, "uses", "execution = ?", (known.row,))
        known.is_changed, known.is_cut = True, known.left_out_bytes is not None
        known.left_out_bytes = None

    # --- the text of a stream

    def _stream(self, known: _Run, position: int) -> _Stream:
        stream = known.streams.get(position)
        if stream is not None:
            return stream
        at = (known.row, position)
        output = run(
            self._connection, "SELECT bytes, at FROM outputs WHERE execution = ? AND position = ?", at
        ).fetchone()
        end = run(
            self._connection,
            "SELECT segment, text FROM segments WHERE execution = ? AND position = ? ORDER BY segment DESC LIMIT 1",
            at,
        ).fetchone()
        mark = run(
            self._connection,
            "SELECT at FROM marks WHERE execution = ? AND position = ? ORDER BY segment DESC, chars DESC LIMIT 1",
            at,
        ).fetchone()
        stream = known.streams[position] = _Stream(*(output or (0, 0.0)))
        if end is not None:
            stream.segment, stream.chars = end[0], len(end[1])
        if mark is not None:
            stream.marked_at = mark[0]
        return stream

    def _write_text(self, known: _Run, change: WriteText) -> None:
        position, segment, keep, text = change.position, change.segment, change.keep, change.text
        stream = self._stream(known, position)
        known.is_changed = True
        known.written.add(position)
        if known.left_out_bytes is not None and (keep is None or segment > stream.segment):
            self._leave_out(known, size_of_text(text))
            return
        if segment < stream.segment:
            self._drop_behind(known, position, segment)
        where = (known.row, position, segment)
        if keep is None and segment > stream.segment:
            kept, before = "", 0
        else:
            row = run(self._connection, f"SELECT text FROM segments WHERE {_AT_SEGMENT}", where).fetchone()  # noqa: S608
            held = row[0] if row else ""
            kept = held if keep is None else held[:keep]  # code points; SQL's substr stops at NUL
            before = size_of_text(held)
            if len(kept) < len(held):
                self._drop_marks(known, position, segment, len(kept))
        size = size_of_text(kept) + size_of_text(text) - before
        room = self._execution_bytes - known.bytes
        if self._execution_bytes and size > room:
            left = max(0, size_of_text(text) - (size - room))
            stored = text.encode("utf-8", "replace")[:left].decode("utf-8", "ignore")
            self._leave_out(known, size_of_text(text) - size_of_text(stored))
            size -= size_of_text(text) - size_of_text(stored)
            text = stored
        run(self._connection, "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?)", (*where, kept + text))
        if segment > stream.segment or (segment == stream.segment and len(kept) >= stream.chars):
            self._mark_before(known, position, stream, change.at)
        known.bytes += size
        stream.bytes += size
        stream.segment, stream.chars = segment, len(kept) + len(text)
        stream.grown_bytes += max(0, size)
        self._mark(known, position, stream, change.at)

    def _leave_out(self, known: _Run, size: int) -> None:
        known.left_out_bytes = (known.left_out_bytes or 0) + size
        known.is_cut = True

    def _drop_behind(self, known: _Run, position: int, segment: int) -> None:
        stream, where = known.streams[position], (known.row, position, segment)
        behind = "execution = ? AND position = ? AND segment > ?"
        found = run(self._connection, f"SELECT text FROM segments WHERE {behind}", where)  # noqa: S608
        size = sum(size_of_text(text) for (text,) in found)
        known.bytes -= size
        stream.bytes -= size
        for table in ("segments", "marks"):
            run(self._connection, f"DELETE FROM {table} WHERE {behind}", where)  # noqa: S608

    def _drop_marks(self, known: _Run, position: int, segment: int, chars: int) -> None:
        run(
            self._connection,
            f"DELETE FROM marks WHERE {_AT_SEGMENT} AND chars > ?",  # noqa: S608
            (known.row, position, segment, chars),
        )

    def _mark_before(self, known: _Run, position: int, stream: _Stream, at: float | None) -> None:
        """Mark the text that is there, when more comes behind a pause."""
        if at is not None and stream.grown_bytes and at - stream.grown_at >= PAUSE_S:
            self._put_mark(known, position, stream, stream.grown_at)

    def _mark(self, known: _Run, position: int, stream: _Stream, at: float | None) -> None:
        if at is None:
            return
        stream.grown_at = at
        pause_s = at - stream.marked_at
        if pause_s >= PAUSE_S or (pause_s >= MARK_S and stream.grown_bytes >= MARK_BYTES):
            self._put_mark(known, position, stream, at)

    def _put_mark(self, known: _Run, position: int, stream: _Stream, at: float) -> None:
        values = (known.row, position, stream.segment, stream.chars, at)
        run(self._connection, "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)", values)
        stream.marked_at, stream.grown_bytes = at, 0


# --- blobs, comms, the kernel -------------------------------------------------------------------------------


def _put_blob(connection: Connection, digest: str, data: bytes, media_type: str) -> None:
    if run(connection, "SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone():
        return
    values = (digest, media_type, len(data))
    row = run(connection, "INSERT INTO blobs (digest, media_type, bytes) VALUES (?, ?, ?)", values).lastrowid
    view = memoryview(data)
    for part, at in enumerate(range(0, len(data), PART_BYTES)):
        run(connection, "INSERT INTO parts VALUES (?, ?, ?)", (row, part, view[at : at + PART_BYTES]))
    run(connection, "INSERT OR IGNORE INTO loose VALUES (?)", (digest,))  # until a look finds who names it


def _digests(values: Iterable[Any]) -> set[str]:
    """What is named in dumped values."""
    out: set[str] = set()
    for value in values:
        if isinstance(value, bytes) and b"sha256:" in value:
            value = value.decode("ascii", "replace")
        if isinstance(value, str) and "sha256:" in value:
            out.update(_DIGEST.findall(value))
    return out


def loosen(connection: Connection, table: str, where: str, values: Sequence[Any]) -> None:
    """Take away what was said to name blobs, and note that somebody should look for who else does."""
    run(connection, f"INSERT OR IGNORE INTO loose SELECT digest FROM {table} WHERE {where}", values)  # noqa: S608
    run(connection, f"DELETE FROM {table} WHERE {where}", values)  # noqa: S608 - our names


def _put_comm_value(connection: Connection, comm: str, key: str, value: Any) -> None:
    dumped = dump(value)
    run(connection, "INSERT OR REPLACE INTO comm_state VALUES (?, ?, ?)", (comm, key, dumped))
    loosen(connection, "comm_uses", "comm = ? AND key = ?", (comm, key))
    for digest in _digests([dumped]):
        run(connection, "INSERT OR IGNORE INTO comm_uses VALUES (?, ?, ?)", (comm, key, digest))


def put_kernel(connection: Connection, kernel: str, columns: Json) -> None:
    """Set columns of the kernel's row; its generations follow from it."""
    _upsert(connection, "kernels", KERNEL_COLUMNS, kernel, columns)
    if columns.keys() & _LIVED:
        run(
            connection,
            "INSERT OR REPLACE INTO generations"
            " SELECT id, generation, started_at, ended_at, exit_code FROM kernels WHERE id = ?",
            (kernel,),
        )


def _add_message(connection: Connection, comm: str, message: Json) -> None:
    run(connection, "INSERT INTO comm_messages (comm, value) VALUES (?, ?)", (comm, dump(message)))
    run(
        connection,
        "DELETE FROM comm_messages WHERE comm = ?1 AND row <="
        " (SELECT row FROM comm_messages WHERE comm = ?1 ORDER BY row DESC LIMIT 1 OFFSET ?2)",
        (comm, COMM_MESSAGES_KEPT),
    )


_STATEMENTS: dict[tuple[str | bool, ...], str] = {}


def _statement(table: str, known: Sequence[str], names: tuple[str, ...], *, is_new: bool) -> str:
    """INSERT of ``(id, *names)``, or UPDATE of ``names`` where ``row`` is the last parameter."""
    key: tuple[str | bool, ...] = (table, is_new, *names)
    sql = _STATEMENTS.get(key)
    if sql is None:
        if unknown := [name for name in names if name not in known]:
            raise LocalError(f"{table} has no column {unknown[0]!r}")
        if is_new:
            sql = f"INSERT INTO {table} ({', '.join(['id', *names])}) VALUES (?{', ?' * len(names)})"  # noqa: S608
        else:
            sql = f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in names)} WHERE row = ?"  # noqa: S608
        if len(_STATEMENTS) < 1000:
            _STATEMENTS[key] = sql
    return sql


def _upsert(connection: Connection, table: str, known: Sequence[str], key: str, columns: Json) -> None:
    listed = [name for name in columns if name != "id"]
    if unknown := [name for name in listed if name not in known]:
        raise LocalError(f"{table} has no column {unknown[0]!r}")
    sql = f"INSERT INTO {table} ({', '.join(['id', *listed])}) VALUES (?{', ?' * len(listed)}) ON CONFLICT (id) DO "  # noqa: S608
    sql += f"UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in listed)}" if listed else "NOTHING"
    run(connection, sql, (key, *(column_value(name, columns[name]) for name in listed)))


# --- the feed, and what begins with it ----------------------------------------------------------------------


def put_feed(connection: Connection, relay_id: str, seq: int, mirror_state: Json | None) -> None:
    """How far the records of this relay are stored; ``mirror_state`` None: it stays as it is."""
    if mirror_state is None:
        run(
            connection,
            "INSERT INTO feed VALUES (1, ?, ?, NULL)"
            " ON CONFLICT (one) DO UPDATE SET relay_id = excluded.relay_id, seq = excluded.seq",
            (relay_id, seq),
        )
    else:
        run(connection, "INSERT OR REPLACE INTO feed VALUES (1, ?, ?, ?)", (relay_id, seq, dump(mirror_state)))


def begin_generation(connection: Connection, relay_id: str, kernel: str, columns: Json, now: float) -> int:
    """A relay that the file does not know: what was open is lost, and the kernel has a new generation.

    Returns:
        The new generation: 0 in a fresh file.
    """
    row = run(connection, "SELECT max(generation) FROM generations WHERE kernel = ?", (kernel,)).fetchone()
    generation = 0 if row[0] is None else int(row[0]) + 1
    run(
        connection,
        "UPDATE executions SET state = ?, finished_at = ?, input = NULL WHERE state IN ('queued', 'running')",
        (ExecutionState.LOST.value, now),
    )
    run(connection, "UPDATE comms SET closed_at = ? WHERE closed_at IS NULL", (now,))
    run(
        connection,
        "UPDATE generations SET ended_at ="
        " coalesce((SELECT last_activity_at FROM kernels WHERE id = ?1), ?2) WHERE kernel = ?1 AND ended_at IS NULL",
        (kernel, now),
    )
    fresh = {"started_at": now, "ended_at": None, "exit_code": None, "state": "starting", **columns}
    put_kernel(connection, kernel, {**fresh, "generation": generation})
    run(connection, "INSERT OR REPLACE INTO feed VALUES (1, ?, 0, NULL)", (relay_id,))
    return generation


# --- requests -----------------------------------------------------------------------------------------------


def put_request(connection: Connection, request: Request, now: float) -> None:
    """Keep a request, in the place of one of the same id. One that has ended keeps nothing of what was asked:
    its columns are emptied.

    Args:
        now: when it ended, if it has.
    """
    ended = request.state in REQUEST_END_STATES
    kept = replace(request, columns={}) if ended else request
    values = [column_value(name, getattr(kept, name)) for name in REQUEST_COLUMNS]
    run(connection, _PUT_REQUEST, (*values, now if ended else None))


def prune_requests(connection: Connection, kept_count: int) -> None:
    """Forget the ended requests before the newest ``kept_count`` ended ones."""
    run(
        connection,
        "DELETE FROM requests WHERE finished_at IS NOT NULL AND ordinal <= (SELECT ordinal FROM requests"
        " WHERE finished_at IS NOT NULL ORDER BY ordinal DESC LIMIT 1 OFFSET ?)",
        (kept_count,),
    )


# --- tokens, facts ------------------------------------------------------------------------------------------


def put_token(connection: Connection, values: tuple[str, str, str, float, float | None]) -> None:
    """``values``: name, role, hash, created_at, expires_at."""
    run(connection, "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?)", values)


def drop_token(connection: Connection, name: str) -> None:
    """Forget a token."""
    run(connection, "DELETE FROM tokens WHERE name = ?", (name,))


def put_fact(connection: Connection, name: str, value: Any) -> None:
    """Keep a fact of the agent's own."""
    run(connection, "INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, dump(value)))


# --- clearing -----------------------------------------------------------------------------------------------


def clear(connection: Connection, before: float | None) -> int:
    """Delete finished executions with their outputs, closed comms, and blobs that nothing names any more.

    Args:
        before: only what finished earlier than this; None: all that is finished.

    Returns:
        How many executions went. Their ``seq`` is never used again.
    """
    limit = float("inf") if before is None else before
    put_fact(connection, "last_seq", last_seq(connection))
    gone = f"state IN ({_ENDED}) AND coalesce(finished_at, queued_at, 0) < ?"
    for table in OF_EXECUTIONS:
        run(
            connection,
            f"DELETE FROM {table} WHERE execution IN (SELECT row FROM executions WHERE {gone})",  # noqa: S608
            (limit,),
        )
        run(connection, f"DELETE FROM {table} WHERE execution IN (SELECT row FROM trash WHERE kind = 'execution')", ())  # noqa: S608
    count = run(connection, f"DELETE FROM executions WHERE {gone}", (limit,)).rowcount  # noqa: S608
    for table in OF_COMMS:
        run(
            connection,
            f"DELETE FROM {table} WHERE comm IN (SELECT id FROM comms WHERE closed_at < ?)",  # noqa: S608
            (limit,),
        )
    run(connection, "DELETE FROM comms WHERE closed_at < ?", (limit,))
    run(
        connection,
        "DELETE FROM blobs WHERE digest NOT IN (SELECT digest FROM uses UNION SELECT digest FROM comm_uses)",
        (),
    )
    run(connection, "DELETE FROM parts WHERE blob NOT IN (SELECT row FROM blobs)", ())
    used = " UNION ".join(f"SELECT {name} FROM executions WHERE {name} IS NOT NULL" for name in WORD_COLUMNS)  # noqa: S608
    run(connection, f"DELETE FROM words WHERE row NOT IN ({used})", ())  # noqa: S608
    for table in ("loose", "trash"):
        run(connection, f"DELETE FROM {table}", ())  # noqa: S608
    return count


OF_EXECUTIONS = ("segments", "marks", "uses", "outputs")
"""Tables whose rows belong to an execution."""

OF_COMMS = ("comm_state", "comm_messages", "comm_uses")
"""Tables whose rows belong to a comm."""


def last_seq(connection: Connection) -> int:
    """The highest ``seq`` that any execution ever had here; 0 when there was none."""
    row = run(connection, "SELECT max(seq) FROM executions", ()).fetchone()
    kept = run(connection, "SELECT value FROM facts WHERE name = 'last_seq'", ()).fetchone()
    return max(row[0] or 0, load(kept[0]) if kept else 0)


def size_of_text(text: str) -> int:
    """Bytes of a text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def size_of(change: Change) -> int:
    """About how many bytes a change holds while it waits."""
    match change:
        case WriteText():
            return 128 + len(change.text)
        case PutBlob():
            return 128 + len(change.data)
        case AddOutput() | SetOutput():
            data = change.output.data or {}
            return 512 + sum(len(value) for value in data.values() if isinstance(value, str))
        case PutExecution():
            return 512 + sum(len(value) for value in change.columns.values() if isinstance(value, str))
        case _:
            return 512


def size_of_request(request: Request) -> int:
    """About how many bytes a request holds while it waits."""
    size, parts = 512, list[Any]([request.columns])
    while parts:
        match parts.pop():
            case str(text):
                size += 64 + len(text)
            case dict(inner):
                parts += inner.keys()
                parts += inner.values()
            case list() | tuple() as inner:
                parts += inner
            case _:
                size += 32
    return size


Edit = Callable[[Connection], Any]
"""Something to do inside a transaction."""
