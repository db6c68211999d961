"""How are executions, with their outputs, and the other records read from the tables?

Pure: over any connection, within the caller's transaction. What is too long is read by its ends only, if that is asked
for: the history has the whole of it, and a reader may have little room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import Any

from ...tables import Cell, Comm, Execution, Json, Kernel, Output
from . import rows
from .rows import COMM_COLUMNS, EXECUTION_COLUMNS, KERNEL_COLUMNS, OUTPUT_COLUMNS, WORD_COLUMNS, Connection

CHUNK = 250
"""So many executions are asked for in one statement."""

Segments = dict[tuple[str, int], list[str]]
"""By execution and position, the segments of a stream."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the executions of a file are asked for. Up to version 2 a column held its word, and outputs named an
    execution by its id; an archive reads such files as they are.

    ``select``: gives what outputs name an execution by, and then ``EXECUTION_COLUMNS``.
    """

    version: int
    select: str

    def equals(self, column: str) -> str:
        """The condition that a column has a value."""
        is_word = column in WORD_COLUMNS and self.version > 2
        return f"{column} = (SELECT row FROM words WHERE word = ?)" if is_word else f"{column} = ?"  # noqa: S608


def _words(column: str) -> str:
    if column not in WORD_COLUMNS:
        return column
    word = f"(SELECT word FROM words WHERE words.row = executions.{column})"  # noqa: S608 - our names
    return word if column in ("notebook", "cell") else f"coalesce({word}, '')"


_OLD_SELECT = f"SELECT id, {', '.join(EXECUTION_COLUMNS)} FROM executions"  # noqa: S608
_NEW_SELECT = f"SELECT row, {', '.join(map(_words, EXECUTION_COLUMNS))} FROM executions"  # noqa: S608


def layout_of(connection: Connection) -> Layout:
    """The layout of the file as it is in this transaction: an agent may just have brought it up to date."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    return Layout(version, _NEW_SELECT if version > 2 else _OLD_SELECT)


def execution_key(connection: Connection) -> str:
    """What outputs name an execution by whose id is to be put in."""
    return "?" if layout_of(connection).version < 3 else "(SELECT row FROM executions WHERE id = ?)"


@dataclass(frozen=True, slots=True)
class Omission:
    """The middle of a stream that was not read: ``count`` segments from ``segment`` on, of ``bytes`` in all."""

    segment: int
    count: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """How much of each execution is read; 0: all of it.

    Attributes:
        stream_bytes: of a stream with more text, the first and the last half of so much, in whole segments.
        together: that is the limit of all streams of an execution together, as it is in the live document.
        outputs: of an execution with more of them, the first and the last half.
        code_bytes: the beginning of longer code.
    """

    stream_bytes: int = 0
    together: bool = False
    outputs: int = 0
    code_bytes: int = 0


WHOLE = Ends()


def read_executions(
    connection: Connection,
    found: Sequence[Any],
    segments: Segments | None = None,
    omissions: dict[tuple[str, int], Omission] | None = None,
    ends: Ends = WHOLE,
    *,
    texts: bool = True,
) -> list[Execution]:
    """What a layout's ``select`` gave as records with their outputs, in the same order.

    Args:
        texts: whether their streams have their text.
        segments: gets the segments of their streams.
        omissions: gets what was left out of them.
    """
    out = []
    for at in range(0, len(found), CHUNK):
        chunk = found[at : at + CHUNK]
        names = {row[0]: row[1] for row in chunk}
        omitted = _omitted_outputs(connection, list(names), ends.outputs)
        long = _long_streams(connection, list(names), ends, omitted)
        read = read_segments(connection, list(names), {key for key, _ in long}, omitted) if texts else {}
        for key, position in long:
            parts, omission = _read_ends(connection, key, position, *long[key, position])
            if parts:
                read[key, position] = parts
            if omissions is not None and omission is not None:
                omissions[names[key], position] = omission
        outputs = _read_outputs(connection, list(names), read, omitted)
        for row in chunk:
            one = rows.execution(row[1:], outputs.get(row[0], ()))
            out.append(replace(one, omitted_outputs=len(omitted[row[0]])) if row[0] in omitted else one)
        if segments is not None:
            segments.update(((names[key], position), parts) for (key, position), parts in read.items())
    return out


def read_excerpts(connection: Connection, found: Sequence[Any], ends: Ends) -> list[Execution]:
    """As :func:`read_executions`; the records say what is left out of them, as those of the live document do."""
    segments: Segments = {}
    omissions: dict[tuple[str, int], Omission] = {}
    executions = read_executions(connection, found, segments, omissions, ends)
    return [_say_omitted(run, segments, omissions, ends) for run in executions]


def read_outlines(found: Sequence[Any], code_chars: int) -> list[Execution]:
    """What a layout's ``select`` gave as records without outputs, with the beginning of the code."""
    return [_cut_code(rows.execution(row[1:], ()), code_chars) for row in found]


def _say_omitted(
    run: Execution, segments: Segments, omissions: Mapping[tuple[str, int], Omission], ends: Ends
) -> Execution:
    if ends.code_bytes and len(run.code.encode()) > ends.code_bytes:
        run = _cut_code(run, len(run.code.encode()[: ends.code_bytes].decode(errors="ignore")))
    outputs = list(run.outputs)
    for index, position in enumerate(run.positions()):
        omission = omissions.get((run.id, position))
        if omission is not None:
            head = segments.get((run.id, position), [])[: omission.segment]
            outputs[index] = replace(
                outputs[index], omitted_bytes=omission.bytes, omitted_index=sum(len(text) for text in head)
            )
    return replace(run, outputs=tuple(outputs))


def _cut_code(run: Execution, chars: int) -> Execution:
    left = run.code[chars:]
    return replace(run, code=run.code[:chars], omitted_code_bytes=len(left.encode())) if left else run


def sizes_of(connection: Connection, found: Sequence[Any], version: int) -> dict[Any, int]:
    """The bytes of executions, by the first column of what a layout's ``select`` gave; none of files before version
    3, which do not say."""
    out: dict[Any, int] = {}
    for at in range(0, len(found) if version > 2 else 0, CHUNK):
        keys = [row[0] for row in found[at : at + CHUNK]]
        marks = ", ".join("?" * len(keys))
        out.update(connection.execute(f"SELECT row, bytes FROM executions WHERE row IN ({marks})", keys))  # noqa: S608
    return out


def leaving(connection: Connection, keys: list[Any], stream_bytes: int, limit_bytes: int) -> set[Any]:
    """Which of these executions a document with so many bytes would let go of: the oldest finished that are not the
    latest of their cells, then the oldest finished."""
    found = []
    for at in range(0, len(keys), CHUNK):
        chunk = keys[at : at + CHUNK]
        found += connection.execute(
            "SELECT row, seq, notebook, cell, state IN ('queued', 'running'), bytes FROM executions"  # noqa: S608
            f" WHERE row IN ({', '.join('?' * len(chunk))})",
            chunk,
        ).fetchall()
    found.sort(key=lambda row: row[1])
    newest = found[-1][0] if found else None
    latest = {(notebook, cell): row for row, _, notebook, cell, _, _ in found if cell is not None}
    sizes = {row: min(size, stream_bytes or size) for row, _, _, _, _, size in found}
    left, out = sum(sizes.values()), set[Any]()
    for of_latest in (False, True):
        for row, _, notebook, cell, is_open, _ in found:
            is_latest = cell is not None and latest[notebook, cell] == row
            if left > limit_bytes and not is_open and is_latest is of_latest and row != newest:
                out.add(row)
                left -= sizes[row]
    return out


def _omitted_outputs(connection: Connection, keys: list[Any], outputs_count: int) -> dict[Any, range]:
    """The positions in the middle of those executions that have more outputs than that."""
    if not outputs_count:
        return {}
    found = connection.execute(
        f"SELECT execution, max(position) + 1 FROM outputs WHERE execution IN ({', '.join('?' * len(keys))})"  # noqa: S608
        " GROUP BY execution HAVING max(position) >= ?",
        (*keys, outputs_count),
    )
    head = outputs_count // 2
    return {key: range(head, count - (outputs_count - head)) for key, count in found}


def _long_streams(
    connection: Connection, keys: list[Any], ends: Ends, omitted: Mapping[Any, range]
) -> dict[tuple[Any, int], tuple[int, int, int]]:
    """All streams of those executions that have too much text: the bytes of each, and how many of them are read from
    its beginning and from its end."""
    if not ends.stream_bytes:
        return {}
    much = "sum(bytes)" if ends.together else "max(bytes)"
    found = connection.execute(
        "SELECT execution, position, bytes FROM outputs WHERE output_type = 'stream' AND execution IN ("  # noqa: S608
        f"SELECT execution FROM outputs WHERE output_type = 'stream' AND execution IN ({', '.join('?' * len(keys))})"
        f" GROUP BY execution HAVING {much} > ?) ORDER BY execution, position",
        (*keys, ends.stream_bytes),
    )
    out: dict[tuple[Any, int], tuple[int, int, int]] = {}
    half = ends.stream_bytes // 2
    for key, group in groupby(found, key=lambda row: row[0]):
        streams = [(position, size) for _, position, size in group if position not in omitted.get(key, ())]
        left = sum(size for _, size in streams)
        before = 0
        for position, size in streams:
            left -= size
            head, tail = (half - before, half - left) if ends.together else (max(1, half),) * 2
            whole = size <= ends.stream_bytes and not ends.together
            out[key, position] = (size, size, 0) if whole else (size, max(0, head), max(0, tail))
            before += size
    return out


def _read_ends(
    connection: Connection, key: Any, position: int, size: int, head_bytes: int, tail_bytes: int
) -> tuple[list[str], Omission | None]:
    """A stream's segments, without the middle where it has more than ``head_bytes`` and ``tail_bytes``."""
    select = "SELECT segment, text FROM segments WHERE execution = ? AND position = ? ORDER BY segment"
    head: list[str] = []
    left = head_bytes
    for _, text in connection.execute(select, (key, position)) if left > 0 or head_bytes >= size else ():
        head.append(text)
        left -= len(text.encode())
        if left <= 0 and head_bytes < size:
            break
    tail: list[str] = []
    count = connection.execute(
        "SELECT coalesce(max(segment) + 1, 0) FROM segments WHERE execution = ? AND position = ?", (key, position)
    ).fetchone()[0]
    left, first = tail_bytes, count
    for segment, text in connection.execute(f"{select} DESC", (key, position)) if left > 0 else ():
        if segment < len(head) or left <= 0:
            break
        first = segment
        tail.append(text)
        left -= len(text.encode())
    missing = first - len(head)
    if missing <= 0:
        return head + tail[::-1], None
    gap = size - sum(len(text.encode()) for text in (*head, *tail))
    return head + tail[::-1], Omission(len(head), missing, gap)


def read_segments(
    connection: Connection,
    keys: list[Any],
    without: AbstractSet[Any] = frozenset(),
    omitted: Mapping[Any, range] = MappingProxyType({}),
) -> Segments:
    """The segments of executions' streams, but for those executions and those positions."""
    texts: Segments = {}
    keys = [key for key in keys if key not in without]
    for execution, position, text in connection.execute(
        "SELECT execution, position, text FROM segments"  # noqa: S608 - question marks
        f" WHERE execution IN ({', '.join('?' * len(keys))}) ORDER BY execution, position, segment",
        keys,
    ):
        if position not in omitted.get(execution, ()):
            texts.setdefault((execution, position), []).append(text)
    return texts


def _read_outputs(
    connection: Connection, ids: list[Any], texts: Segments, omitted: Mapping[Any, range]
) -> dict[Any, tuple[Output, ...]]:
    found = connection.execute(
        f"SELECT execution, position, {', '.join(OUTPUT_COLUMNS)} FROM outputs"  # noqa: S608 - our names
        f" WHERE execution IN ({', '.join('?' * len(ids))}) ORDER BY execution, position",
        ids,
    )
    return {
        execution: tuple(
            rows.output(row[2:], "".join(texts.get((execution, row[1]), ())))
            for row in group
            if row[1] not in omitted.get(execution, ())
        )
        for execution, group in groupby(found, key=lambda row: row[0])
    }


def read_kernels(connection: Connection) -> tuple[Kernel, ...]:
    """The kernels' rows."""
    found = connection.execute(f"SELECT {', '.join(KERNEL_COLUMNS)} FROM kernels ORDER BY id")  # noqa: S608
    return tuple(rows.kernel(row) for row in found)


def read_comms(connection: Connection) -> tuple[Comm, ...]:
    """The open comms, with their state and their log, as they were opened."""
    found = connection.execute(
        f"SELECT {', '.join(COMM_COLUMNS)} FROM comms WHERE closed_at IS NULL ORDER BY opened_at, id"  # noqa: S608
    ).fetchall()
    states: dict[Any, Json] = {row[0]: {} for row in found}
    logs: dict[Any, list[Json]] = {row[0]: [] for row in found}
    open_comms = "comm IN (SELECT id FROM comms WHERE closed_at IS NULL)"
    for comm, key, value in connection.execute(
        f"SELECT comm, key, value FROM comm_state WHERE {open_comms} ORDER BY rowid"  # noqa: S608
    ):
        states[comm][key] = rows.load(value)
    for comm, value in connection.execute(
        f"SELECT comm, value FROM comm_messages WHERE {open_comms} ORDER BY row"  # noqa: S608
    ):
        logs[comm].append(rows.load(value))
    return tuple(rows.comm(row, states[row[0]], tuple(logs[row[0]])) for row in found)


def read_cells(connection: Connection) -> tuple[Cell, ...]:
    """The cells, in order."""
    found = connection.execute('SELECT id, "index", cell_type, source FROM cells ORDER BY "index"')
    return tuple(Cell(id=key, index=index, cell_type=kind, source=source) for key, index, kind, source in found)


def read_meta(connection: Connection) -> Json:
    """The columns of ``meta``."""
    return {key: rows.load(value) for key, value in connection.execute("SELECT key, value FROM meta")}


def read_displays(connection: Connection, generation: int, limit: int) -> list[tuple[str, str, int]]:
    """``(display_id, execution, position)`` of one generation's displays, as they came; the newest ``limit``."""
    found = connection.execute(
        "SELECT display_id, e.id, o.position FROM outputs o JOIN executions e ON e.row = o.execution"
        " WHERE display_id IS NOT NULL AND e.generation = ? ORDER BY e.seq DESC, o.position DESC LIMIT ?",
        (generation, limit),
    ).fetchall()
    return [(display, execution, position) for display, execution, position in reversed(found)]
