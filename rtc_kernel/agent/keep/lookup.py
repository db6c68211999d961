"""What does the history say?

Pure: over any connection; the caller holds one transaction around a question, so that an execution and its
outputs are of the same moment. Patterns are matched here and not in SQL: a match may cross the border between
two segments of a stream, and SQL's ``lower`` knows ASCII only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ...errors import SetupError
from ...moments import Step
from ...tables import Cell, Comm, Execution, ExecutionState, Json, Kernel, Request
from . import rows
from .records import (
    CHUNK,
    WHOLE,
    Ends,
    Layout,
    Omission,
    Segments,
    execution_key,
    layout_of,
    leaving,
    read_cells,
    read_comms,
    read_excerpts,
    read_executions,
    read_kernels,
    read_meta,
    read_outlines,
    read_segments,
    sizes_of,
)
from .rows import EXECUTION_COLUMNS, REQUEST_COLUMNS, TEXT_LIMIT_CHARS, Connection, run

PAGE_EXECUTIONS = 1000
"""Executions in one answer, at most."""

PREFIX_CHARS = 4
"""An execution may be named by the beginning of its id, if that is at least so long and names no other."""

SEARCHED = Ends(stream_bytes=16 << 20, together=True)
"""What is read of an execution to search in it: of longer text its beginning and its end."""

OUTLINE_CHARS = 200
"""So much code has an execution whose outputs are not asked for."""

PIECE_BYTES = 256 << 10
"""So much of a text is read in one question."""

_BATCH_BYTES = 8 << 20
"""About so much is in memory at a time while many executions are looked at."""

_SELECT_REQUEST = f"SELECT {', '.join(f'requests.{name}' for name in REQUEST_COLUMNS)} FROM requests"  # noqa: S608


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
                left = leaving(connection, [row[0] for row in found], stream_bytes, 2 * window_bytes)
                found = [row for row in found if row[0] not in left]
            segments: Segments = {}
            omissions: dict[tuple[str, int], Omission] = {}
            ends = Ends(stream_bytes=stream_bytes, outputs=outputs)
            notebook = connection.execute("SELECT notebook FROM cells LIMIT 1").fetchone()
            return Window(
                meta=read_meta(connection),
                kernels=read_kernels(connection),
                executions=tuple(read_executions(connection, found, segments, omissions, ends)),
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
        brief: bool = False,
        ends: Ends = WHOLE,
        page_bytes: int = 0,
    ) -> tuple[list[Execution], int | None]:
        """A page of the history: newest first; oldest first where ``after`` is given without ``before``.

        Args:
            before, after: only executions with a lower, a higher ``seq``.
            limit: at most so many, from 1 to 1000.
            grep: a regular expression of Python, searched in the code, in streams (of one beyond :data:`SEARCHED` in
                its beginning and its end), in ``text/*`` values other than HTML, and in errors. One that backtracks
                without end cannot be stopped: take it from people who may run code, and offer ``text`` to others.
            text: a plain substring, whatever its case, searched in the same places.
            state, cell, kernel, generation: only executions with this value.
            brief: without outputs, and of the code the first :data:`OUTLINE_CHARS`.
            ends: how much of each is read; the records say what is left out.
            page_bytes: the page ends before the execution with which it would have more text than that; the first one
                is there anyway. 0: no limit.

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
        size = limit + 1 if matches is None else CHUNK
        chosen: list[Any] = []
        total, following = 0, None
        with self._reading() as connection:
            layout = layout_of(connection)
            where, values = [layout.equals(column) for column in wanted], list[Any](wanted.values())
            if after is not None and not upwards:
                where.append("seq > ?")
                values.append(after)
            select = f"{layout.select} WHERE {' AND '.join(where or ['1'])}"
            start = after if upwards else before
            for row, row_bytes in _matching(
                connection,
                layout,
                _pages(connection, select, values, start, size, upwards=upwards),
                matches,
                weigh=bool(page_bytes) and not brief,
            ):
                row_bytes = min(row_bytes, ends.stream_bytes or row_bytes)
                if len(chosen) == limit or (chosen and page_bytes and total + row_bytes > page_bytes):
                    following = chosen[-1][_SEQ]
                    break
                chosen.append(row)
                total += row_bytes
            if brief:
                return read_outlines(chosen, OUTLINE_CHARS), following
            return read_excerpts(connection, chosen, ends), following

    def execution(self, key: str, ends: Ends = WHOLE) -> Execution | None:
        """One execution.

        Args:
            ends: how much of it is read; the record says what is left out.
            key: its id, a beginning of it that no other id has (4 characters or more), or its ``seq``, with
                or without ``#``.

        Returns:
            The execution; None where nothing, or more than one, has this name (:meth:`matches` tells which).
        """
        with self._reading() as connection:
            row = _row_of(connection, layout_of(connection).select, key)
            return None if row is None else read_excerpts(connection, [row], ends)[0]

    def outline(self, key: str) -> Execution | None:
        """As :meth:`execution`, but the streams have no text: :meth:`text_piece` reads it."""
        with self._reading() as connection:
            row = _row_of(connection, layout_of(connection).select, key)
            return None if row is None else read_executions(connection, [row], texts=False)[0]

    def text_piece(self, execution: str, position: int, segment: int, size_bytes: int) -> list[str]:
        """Segments of a stream from one on, at least so many bytes, or up to its end; none behind it.

        Args:
            execution: its whole id.
        """
        with self._reading() as connection:
            found = run(
                connection,
                f"SELECT text FROM segments WHERE execution = {execution_key(connection)} AND position = ?"  # noqa: S608
                " AND segment >= ? ORDER BY segment",
                (execution, position, segment),
            )
            out: list[str] = []
            for (text,) in found:
                out.append(text)
                size_bytes -= len(text)
                if size_bytes <= 0:
                    break
            return out

    def text(self, execution: str, position: int) -> Iterator[str]:
        """The text of a stream, in pieces; each is a question of its own."""
        segment = 0
        while piece := self.text_piece(execution, position, segment, PIECE_BYTES):
            segment += len(piece)
            yield "".join(piece)

    def segments(self, execution: str) -> dict[int, list[str]]:
        """The segments of each stream of one execution, by position: what :class:`Mark` counts in."""
        with self._reading() as connection:
            found = run(connection, f"{layout_of(connection).select} WHERE id = ?", (execution,)).fetchall()
            texts = read_segments(connection, [row[0] for row in found])
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
            for at in range(0, len(ids), CHUNK):
                chunk = ids[at : at + CHUNK]
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
        at = found[-1][_SEQ]


_SEQ = 1 + EXECUTION_COLUMNS.index("seq")
"""Where a row of a layout's ``select`` has its ``seq``."""


def _matching(
    connection: Connection,
    layout: Layout,
    pages: Iterator[list[Any]],
    matches: Callable[[Execution], bool] | None,
    *,
    weigh: bool,
) -> Iterator[tuple[Any, int]]:
    """The rows that match; little of what is looked at is in memory at a time.

    Args:
        weigh: give the bytes of their outputs with them, else 0.
    """
    for found in pages:
        sizes = sizes_of(connection, found, layout.version) if weigh or matches is not None else {}
        batch: list[Any] = []
        batch_bytes = 0
        for row in (*found, None):
            if batch and (row is None or batch_bytes >= _BATCH_BYTES or matches is None):
                read = [None] * len(batch) if matches is None else read_executions(connection, batch, ends=SEARCHED)
                for one, execution in zip(batch, read, strict=True):
                    if matches is None or (execution is not None and matches(execution)):
                        yield one, sizes.get(one[0], 0) if weigh else 0
                batch, batch_bytes = [], 0
            if row is not None:
                batch.append(row)
                batch_bytes += min(sizes.get(row[0], 0), SEARCHED.stream_bytes)


def _row_of(connection: Connection, select: str, key: str) -> Any | None:
    for condition, value in _readings(key):
        found = connection.execute(f"{select} WHERE {condition} LIMIT 2", value).fetchall()
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _readings(key: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield "id = ?", (key,)
    number = key.removeprefix("#")
    if number.isascii() and number.isdigit() and len(number) < 18:
        yield "seq = ?", (int(number),)
    if len(key) >= PREFIX_CHARS:
        yield "id >= ? AND id < ?", (key, key + "\U0010ffff")
