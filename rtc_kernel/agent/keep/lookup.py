"""What does the history say?

Pure: over any connection; the caller holds one transaction around a question, so that an execution and its
outputs are of the same moment. Patterns are matched here and not in SQL: a match may cross the border between
two segments of a stream, and SQL's ``lower`` knows ASCII only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import Any

from ...errors import SetupError
from ...moments import Step
from ...tables import Cell, Comm, Execution, ExecutionState, Json, Kernel, Output, Request
from . import rows
from .rows import (
    COMM_COLUMNS,
    EXECUTION_COLUMNS,
    KERNEL_COLUMNS,
    OUTPUT_COLUMNS,
    REQUEST_COLUMNS,
    TEXT_LIMIT_CHARS,
    WORD_COLUMNS,
    Connection,
    run,
)

PAGE_EXECUTIONS = 1000
"""Executions in one answer, at most."""

PREFIX_CHARS = 4
"""An execution may be named by the beginning of its id, if that is at least so long and names no other."""

Segments = dict[tuple[str, int], list[str]]

_CHUNK = 250
_SELECT_REQUEST = f"SELECT {', '.join(f'requests.{name}' for name in REQUEST_COLUMNS)} FROM requests"  # noqa: S608


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


@dataclass(frozen=True, slots=True)
class Mark:
    """At ``at`` the text of the stream at ``position`` had grown up to ``chars`` code points of its ``segment``. Text
    up to a mark came after the one before it, or the output's ``at``; text behind the last one within 50 ms."""

    position: int
    segment: int
    chars: int
    at: float


@dataclass(frozen=True, slots=True)
class Generation:
    """One life of the kernel's process. ``exit_code``: negative for a signal; null where it is not known."""

    generation: int
    started_at: float | None
    ended_at: float | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Omission:
    """The middle of a stream that was not read: ``count`` segments from ``segment`` on, of ``bytes`` in all."""

    segment: int
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Window:
    """What the live document begins with: unfinished and newest executions (by ``seq``, upwards), open comms.

    ``segments``: by execution and position, the segments of each stream: the mirror's cursors count in them.
    ``omissions``: likewise, of streams of which only the ends were read; their ``segments`` lack the middle. Of outputs
    that were not read ``omitted_outputs`` says how many.
    ``notebook``: the one that the cells are of; empty where there are none.
    """

    meta: Json
    kernels: tuple[Kernel, ...]
    executions: tuple[Execution, ...]
    comms: tuple[Comm, ...]
    cells: tuple[Cell, ...]
    notebook: str
    segments: Segments
    omissions: dict[tuple[str, int], Omission]

    def parts(self) -> dict[tuple[str, int], list[str | int]]:
        """``segments``, with a number of bytes in the place of each that was not read; their sum is what they have."""
        out: dict[tuple[str, int], list[str | int]] = {key: [*texts] for key, texts in self.segments.items()}
        for key, omission in self.omissions.items():
            each, rest = divmod(omission.bytes, omission.count)
            at = omission.segment
            out[key][at:at] = [each + (1 if index < rest else 0) for index in range(omission.count)]
        return out


class Lookup:
    """The questions to a history. A door says with which connection (:meth:`_reading`)."""

    def _reading(self) -> AbstractContextManager[Connection]:
        raise NotImplementedError

    def window(self, limit: int, stream_bytes: int = 0, *, outputs: int = 0, window_bytes: int = 0) -> Window:
        """The records for a new document.

        Args:
            limit: the newest so many executions, and all unfinished ones.
            stream_bytes: of a stream with more text, its first and its last half of so much are read, whole
                segments; 0: all of it.
            outputs: of an execution with more of them, the first and the last half are read; 0: all of them.
            window_bytes: finished executions are left out, in the order in which a document lets go of them, until the
                others have about twice as much; 0: none are.
        """
        with self._reading() as connection:
            found = connection.execute(
                f"{layout_of(connection).select} WHERE state IN ('queued', 'running')"  # noqa: S608
                " OR seq > coalesce((SELECT seq FROM executions ORDER BY seq DESC LIMIT 1 OFFSET ?), -1)"
                " ORDER BY seq",
                (limit,),
            ).fetchall()
            if window_bytes:
                leaving = _leaving(connection, [row[0] for row in found], stream_bytes, 2 * window_bytes)
                found = [row for row in found if row[0] not in leaving]
            segments: Segments = {}
            omissions: dict[tuple[str, int], Omission] = {}
            notebook = connection.execute("SELECT notebook FROM cells LIMIT 1").fetchone()
            return Window(
                meta=read_meta(connection),
                kernels=read_kernels(connection),
                executions=tuple(read_executions(connection, found, segments, omissions, stream_bytes, outputs)),
                comms=read_comms(connection),
                cells=read_cells(connection),
                notebook=notebook[0] if notebook else "",
                segments=segments,
                omissions=omissions,
            )

    def history(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 50,
        grep: str | None = None,
        text: str | None = None,
        state: ExecutionState | str | None = None,
        cell: str | None = None,
        kernel: str | None = None,
        generation: int | None = None,
    ) -> tuple[list[Execution], int | None]:
        """A page of the history: newest first; oldest first where ``after`` is given without ``before``.

        Args:
            before, after: only executions with a lower, a higher ``seq``.
            limit: at most so many, from 1 to 1000.
            grep: a regular expression of Python, searched in the code, in streams, in ``text/*`` values other
                than HTML, and in errors. One that backtracks without end cannot be stopped: take it from
                people who may run code, and offer ``text`` to others.
            text: a plain substring, whatever its case, searched in the same places.
            state, cell, kernel, generation: only executions with this value.

        Returns:
            The executions, and the ``before`` (oldest first: the ``after``) of the next page; None: there is none.

        Raises:
            SetupError: ``grep`` is no regular expression, or ``state`` no state.
        """
        limit = max(1, min(limit, PAGE_EXECUTIONS))
        matches = _matcher(grep, text)
        asked = {"state": _state(state), "cell": cell, "kernel": kernel, "generation": generation}
        wanted = {column: value for column, value in asked.items() if value is not None}
        upwards = after is not None and before is None
        out: list[Execution] = []
        size = limit + 1 if matches is None else _CHUNK
        with self._reading() as connection:
            layout = layout_of(connection)
            where, values = [layout.equals(column) for column in wanted], list[Any](wanted.values())
            if after is not None and not upwards:
                where.append("seq > ?")
                values.append(after)
            select = f"{layout.select} WHERE {' AND '.join(where or ['1'])}"
            start = after if upwards else before
            for found in _pages(connection, select, values, start, size, upwards=upwards):
                executions = read_executions(connection, found)
                out += executions if matches is None else filter(matches, executions)
                if len(out) > limit:
                    return out[:limit], out[limit - 1].seq
        return out, None

    def execution(self, key: str) -> Execution | None:
        """One execution.

        Args:
            key: its id, a beginning of it that no other id has (4 characters or more), or its ``seq``, with
                or without ``#``.

        Returns:
            The execution; None where nothing, or more than one, has this name (:meth:`matches` tells which).
        """
        with self._reading() as connection:
            select = layout_of(connection).select
            for condition, value in _readings(key):
                found = connection.execute(f"{select} WHERE {condition} LIMIT 2", value).fetchall()
                if len(found) == 1:
                    return read_executions(connection, found)[0]
                if found:
                    return None
        return None

    def segments(self, execution: str) -> dict[int, list[str]]:
        """The segments of each stream of one execution, by position: what :class:`Mark` counts in."""
        with self._reading() as connection:
            found = run(connection, f"{layout_of(connection).select} WHERE id = ?", (execution,)).fetchall()
            texts = _read_segments(connection, [row[0] for row in found])
            return {position: parts for (_, position), parts in texts.items()}

    def marks(self, execution: str) -> list[Mark]:
        """When the text of one execution's streams had grown to where, by position and time; none of a file that was
        written before there were marks.

        Args:
            execution: its whole id.
        """
        with self._reading() as connection:
            if layout_of(connection).version < 3:
                return []
            found = run(
                connection,
                "SELECT position, segment, chars, at FROM marks WHERE execution ="
                " (SELECT row FROM executions WHERE id = ?) ORDER BY position, segment, chars",
                (execution,),
            )
            return [Mark(*row) for row in found]

    def growth(self, execution: str) -> dict[int, list[Step]]:
        """How the text of one execution's streams grew, by position: its marks, in code points of the whole text.

        Args:
            execution: its whole id.
        """
        with self._reading() as connection:
            if layout_of(connection).version < 3:
                return {}
            row = "(SELECT row FROM executions WHERE id = ?)"
            found = run(
                connection,
                f"SELECT position, segment, chars, at FROM marks WHERE execution = {row}"  # noqa: S608 - our names
                " ORDER BY position, segment, chars",
                (execution,),
            )
            grown = {position: list(steps) for position, steps in groupby(found, key=lambda mark: mark[0])}
            starts: dict[int, list[int]] = {position: [0] for position in grown}
            texts = run(
                connection,
                f"SELECT position, text FROM segments WHERE execution = {row} ORDER BY position, segment",  # noqa: S608
                (execution,),
            )
            for position, text in texts if grown else ():
                if position in starts:
                    starts[position].append(starts[position][-1] + len(text))
        return {
            position: [Step(starts[position][segment] + chars, at) for _, segment, chars, at in marks]
            for position, marks in grown.items()
        }

    def matches(self, prefix: str, limit: int = 20) -> list[str]:
        """The ids of executions that begin so, newest first."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT id FROM executions WHERE id >= ? AND id < ? ORDER BY seq DESC LIMIT ?",
                (prefix, prefix + "\U0010ffff", limit),
            )
            return [key for (key,) in found]

    def blob(self, digest: str) -> tuple[bytes, str] | None:
        """``(bytes, media type)`` under ``sha256:`` and 64 hex digits."""
        with self._reading() as connection:
            if layout_of(connection).version < 3:
                row = run(connection, "SELECT data, media_type FROM blobs WHERE digest = ?", (digest,)).fetchone()
                return None if row is None else (bytes(row[0]), row[1])
            row = run(connection, "SELECT row, media_type FROM blobs WHERE digest = ?", (digest,)).fetchone()
            if row is None:
                return None
            parts = connection.execute("SELECT data FROM parts WHERE blob = ? ORDER BY part", (row[0],))
            return b"".join(data for (data,) in parts), row[1]

    def blob_size(self, digest: str) -> tuple[int, str] | None:
        """``(bytes, media type)`` of what is under ``sha256:`` and 64 hex digits, without reading it."""
        with self._reading() as connection:
            size = "bytes" if layout_of(connection).version > 2 else "length(data)"
            row = run(connection, f"SELECT {size}, media_type FROM blobs WHERE digest = ?", (digest,)).fetchone()  # noqa: S608
            return None if row is None else (int(row[0]), str(row[1]))

    def blob_piece(self, digest: str, start: int, count: int) -> bytes:
        """Bytes of a blob from ``start`` on, at most ``count``; fewer where it ends, or has left the history."""
        with self._reading() as connection:
            table, of_blob = "blobs", "digest = ?"
            if layout_of(connection).version > 2:
                table, of_blob = "parts", "blob = (SELECT row FROM blobs WHERE digest = ?) ORDER BY part"
            pieces = []
            for row, size in run(connection, f"SELECT rowid, length(data) FROM {table} WHERE {of_blob}", (digest,)):  # noqa: S608
                if start < size and count > 0:
                    with connection.blobopen(table, "data", row, readonly=True) as data:
                        data.seek(start)
                        pieces.append(data.read(count))
                    count -= len(pieces[-1])
                start = max(0, start - size)
            return b"".join(pieces)

    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels' rows (one)."""
        with self._reading() as connection:
            return read_kernels(connection)

    def generations(self) -> tuple[Generation, ...]:
        """The lives of the kernel's process, in order."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT generation, started_at, ended_at, exit_code FROM generations ORDER BY generation"
            )
            return tuple(Generation(*row) for row in found)

    def comms(self) -> tuple[Comm, ...]:
        """The open comms."""
        with self._reading() as connection:
            return read_comms(connection)

    def cells(self) -> tuple[Cell, ...]:
        """The cells of the notebook that a headless run works through, in order."""
        with self._reading() as connection:
            return read_cells(connection)

    def meta(self) -> Json:
        """The columns of the document's ``meta`` that the mirror wrote."""
        with self._reading() as connection:
            return read_meta(connection)

    def execution_states(self, ids: Sequence[str]) -> dict[str, ExecutionState]:
        """Which of these executions the history has, by their whole ids, and their states."""
        out: dict[str, ExecutionState] = {}
        with self._reading() as connection:
            for at in range(0, len(ids), _CHUNK):
                chunk = ids[at : at + _CHUNK]
                marks = ", ".join("?" * len(chunk))
                found = run(connection, f"SELECT id, state FROM executions WHERE id IN ({marks})", chunk)  # noqa: S608
                out.update((key, ExecutionState(state)) for key, state in found)
        return out

    def requests(self, open_only: bool) -> list[Request]:
        """The requests, in the order in which they were taken; those that have ended without their columns.

        Args:
            open_only: only those that have not ended.
        """
        where = "finished_at IS NULL" if open_only else "1"
        with self._reading() as connection:
            if not _has_requests(connection):
                return []
            found = connection.execute(f"{_SELECT_REQUEST} WHERE {where} ORDER BY ordinal")
            return [rows.request(row) for row in found]

    def request(self, key: str) -> Request | None:
        """One request, by its whole id; None where it was never stored, or ended long ago."""
        with self._reading() as connection:
            if not _has_requests(connection):
                return None
            row = run(connection, f"{_SELECT_REQUEST} WHERE id = ?", (key,)).fetchone()
            return None if row is None else rows.request(row)

    def last_ordinal(self) -> int:
        """The highest ``ordinal`` that any request had; 0 where there was none."""
        with self._reading() as connection:
            if not _has_requests(connection):
                return 0
            return int(connection.execute("SELECT coalesce(max(ordinal), 0) FROM requests").fetchone()[0])

    def count(self) -> int:
        """How many executions there are."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM executions").fetchone()[0])


def _has_requests(connection: Connection) -> bool:
    """False in a file of version 1, which an archive reads as it is."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0]) > 1


def _state(state: ExecutionState | str | None) -> str | None:
    if state is None:
        return None
    try:
        return ExecutionState(state).value
    except ValueError:
        names = ", ".join(one.value for one in ExecutionState)
        raise SetupError(f"there is no state {state!r}", f"take one of {names}") from None


def _matcher(grep: str | None, text: str | None) -> Callable[[Execution], bool] | None:
    if not grep and not text:
        return None
    if len(grep or "") > TEXT_LIMIT_CHARS or len(text or "") > TEXT_LIMIT_CHARS:
        raise SetupError("the text to search for is too long", f"give at most {TEXT_LIMIT_CHARS} characters")
    needle = (text or "").casefold()
    try:
        pattern = re.compile(grep or "", re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as exc:
        raise SetupError(f"{grep!r} is not a regular expression ({exc})", "mend it, or search for plain text") from exc

    def matches(execution: Execution) -> bool:
        found_text, found_grep = not needle, not grep
        for part in texts_of(execution):
            found_text = found_text or needle in part.casefold()
            found_grep = found_grep or pattern.search(part) is not None
            if found_text and found_grep:
                return True
        return False

    return matches


def texts_of(execution: Execution) -> Iterator[str]:
    """The texts in which a search looks: code first, then what was printed, shown and raised."""
    yield execution.code
    for output in execution.outputs:
        if output.text:
            yield output.text
        if output.output_type == "error":
            yield f"{output.ename}: {output.evalue}"
        for media_type, value in (output.data or {}).items():
            if media_type.startswith("text/") and media_type != "text/html" and isinstance(value, str):
                yield value


def _pages(
    connection: Connection, select: str, values: list[Any], start: int | None, size: int, *, upwards: bool
) -> Iterator[list[Any]]:
    compare, order = (">", "ASC") if upwards else ("<", "DESC")
    at = 1 << 62 if start is None else start
    while True:
        found = connection.execute(
            f"{select} AND seq {compare} ? ORDER BY seq {order} LIMIT ?",
            (*values, at, size),
        ).fetchall()
        yield found
        if len(found) < size:
            return
        at = found[-1][1 + EXECUTION_COLUMNS.index("seq")]


def _readings(key: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield "id = ?", (key,)
    number = key.removeprefix("#")
    if number.isascii() and number.isdigit() and len(number) < 18:
        yield "seq = ?", (int(number),)
    if len(key) >= PREFIX_CHARS:
        yield "id >= ? AND id < ?", (key, key + "\U0010ffff")


# --- records ------------------------------------------------------------------------------------------------


def read_executions(
    connection: Connection,
    found: Sequence[Any],
    segments: Segments | None = None,
    omissions: dict[tuple[str, int], Omission] | None = None,
    stream_bytes: int = 0,
    outputs_count: int = 0,
) -> list[Execution]:
    """What a layout's ``select`` gave as records with their outputs, in the same order.

    Args:
        segments: gets the segments of their streams.
        omissions: gets what was left out of them.
        stream_bytes, outputs_count: as of :meth:`Lookup.window`.
    """
    out = []
    for at in range(0, len(found), _CHUNK):
        chunk = found[at : at + _CHUNK]
        names = {row[0]: row[1] for row in chunk}
        omitted = _omitted_outputs(connection, list(names), outputs_count)
        long = {
            (key, position): size
            for (key, position), size in _long_streams(connection, list(names), stream_bytes).items()
            if position not in omitted.get(key, ())
        }
        texts = _read_segments(connection, list(names), {key for key, _ in long}, omitted)
        for key, position in long:
            parts, omission = _read_ends(connection, key, position, long[key, position], stream_bytes)
            if parts:
                texts[key, position] = parts
            if omissions is not None and omission is not None:
                omissions[names[key], position] = omission
        outputs = _read_outputs(connection, list(names), texts, omitted)
        for row in chunk:
            read = rows.execution(row[1:], outputs.get(row[0], ()))
            out.append(replace(read, omitted_outputs=len(omitted[row[0]])) if row[0] in omitted else read)
        if segments is not None:
            segments.update(((names[key], position), parts) for (key, position), parts in texts.items())
    return out


def _leaving(connection: Connection, keys: list[Any], stream_bytes: int, limit_bytes: int) -> set[Any]:
    """Which of these executions a document with so many bytes would let go of: the oldest finished that are not the
    latest of their cells, then the oldest finished."""
    found = []
    for at in range(0, len(keys), _CHUNK):
        chunk = keys[at : at + _CHUNK]
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


def _long_streams(connection: Connection, keys: list[Any], stream_bytes: int) -> dict[tuple[Any, int], int]:
    """All streams, with their bytes, of those executions of which one has more than ``stream_bytes``."""
    if not stream_bytes:
        return {}
    found = connection.execute(
        "SELECT execution, position, bytes FROM outputs WHERE output_type = 'stream' AND execution IN ("  # noqa: S608
        f"SELECT execution FROM outputs WHERE output_type = 'stream' AND bytes > ? AND execution IN"
        f" ({', '.join('?' * len(keys))}))",
        (stream_bytes, *keys),
    )
    return {(key, position): size for key, position, size in found}


def _read_ends(
    connection: Connection, key: Any, position: int, size: int, stream_bytes: int
) -> tuple[list[str], Omission | None]:
    """A stream's segments, without the middle where it has more than ``stream_bytes``."""
    select = "SELECT segment, text FROM segments WHERE execution = ? AND position = ? ORDER BY segment"
    half = stream_bytes // 2 if size > stream_bytes else size
    head: list[str] = []
    for _, text in connection.execute(select, (key, position)):
        head.append(text)
        half -= len(text.encode())
        if half <= 0 < size - stream_bytes:
            break
    tail: list[str] = []
    half, first = stream_bytes // 2, len(head)
    for segment, text in connection.execute(f"{select} DESC", (key, position)):
        first = segment
        if segment < len(head) or half <= 0:
            first += 1
            break
        tail.append(text)
        half -= len(text.encode())
    count = first - len(head)
    left = size - sum(len(text.encode()) for text in (*head, *tail))
    return head + tail[::-1], Omission(len(head), count, left) if count > 0 else None


def _read_segments(
    connection: Connection,
    keys: list[Any],
    without: AbstractSet[Any] = frozenset(),
    omitted: Mapping[Any, range] = MappingProxyType({}),
) -> Segments:
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
