"""What is done to a history while nobody writes, and how is it cut into small steps?

Pure: over any connection, with the clock as an argument. :func:`prune` is a generator; each step is one transaction of
about ``STEP_S``, and between two of them the file is sound: an execution leaves at once, as its row goes into
``trash``, and what belongs to it follows; so does a blob. A step that is never taken is taken by the next pass.

What goes: executions by :mod:`retention`; blobs that no output and no comm names; comms that were closed before the
newest ``COMMS_KEPT`` closed ones, of which nobody can ask any more; words that no execution uses. Free pages are used
again; given back to the file system when they are a tenth of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from ...tables import END_STATES
from . import edit
from .edit import OF_COMMS, Editor, loosen
from .lookup import Lookup
from .records import layout_of
from .retention import Limits, Plan, Row
from .rows import WORD_COLUMNS, Connection, load

STEP_S = 0.005
"""Seconds of work in one transaction; its commit comes on top."""

PAGE_ROWS = 100
"""Executions that are looked at in one step."""

COMMS_KEPT = 200
"""Closed comms that stay, as in the document."""

FREE_PAGES = 1024
"""Free pages that are never given back: they are needed again soon."""

ROUNDS = 20
"""How often a pass looks again whether the file is small enough: what a blob frees is known only when it has gone."""

_CHUNKS = (
    ("uses", ("position", "digest"), 500),
    ("segments", ("position", "segment"), 100),
    ("marks", ("position", "segment", "chars"), 2000),
    ("outputs", ("position",), 100),
)
"""What belongs to an execution: table, key within the execution, rows that go at a time."""

_INCREMENTAL = 2
_PARTS = 1
"""Parts of a blob that go at a time."""

_IS_LATEST = (
    "e.cell IS NOT NULL AND NOT EXISTS (SELECT 1 FROM executions n"
    " WHERE n.cell = e.cell AND n.seq > e.seq AND n.notebook IS e.notebook)"
)
_BLOBS = "(SELECT sum(b.bytes) FROM uses u JOIN blobs b ON b.digest = u.digest WHERE u.execution = e.row)"
_OLD_TEXT = "(SELECT sum(length(CAST(text AS BLOB))) FROM segments s WHERE s.execution = e.id)"
_FACTS = (
    "SELECT {row}, seq, coalesce(finished_at, started_at, queued_at), {bytes}, state, {latest}, metadata"
    " FROM executions e WHERE (seq, {row}) > (?, ?) ORDER BY seq, {row} LIMIT ?"
)
_NEW_FACTS = _FACTS.format(row="row", bytes=f"bytes + coalesce({_BLOBS}, 0)", latest=_IS_LATEST)
_OLD_FACTS = _FACTS.format(row="rowid", bytes=f"length(code) + coalesce({_OLD_TEXT}, 0)", latest=_IS_LATEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a pass took away, or would take away.

    Attributes:
        executions_count: that went.
        bytes: about how much they took.
        executions_left: that stay.
    """

    executions_count: int
    bytes: int
    executions_left: int


def survey(history: Lookup, limits: Limits, *, now: float, is_alive: bool) -> Pruned:
    """What :func:`prune` would take away (any thread). A file of an earlier version is read as it is."""
    with history._reading() as connection:
        plan = _plan(connection, limits, now)
        gone: set[int] = set()
        for is_spared in (True, False):
            if not plan.has_limit or not (is_spared or plan.is_over):
                break
            for page in _pages(connection, is_alive=is_alive):
                gone.update(row.row for row in plan.choose((r for r in page if r.row not in gone), is_spared=is_spared))
                if plan.is_done(page):
                    break
        return _result(plan)


def prune(
    connection: Connection,
    limits: Limits,
    *,
    now: float,
    is_alive: bool,
    editor: Editor,
    clock: Callable[[], float],
) -> Generator[None, None, Pruned]:
    """Bring a history within its limits, step by step; each step leaves no transaction open.

    Args:
        now: POSIX seconds.
        is_alive: somebody is there to end what has not ended.
        editor: writes over the same connection between the steps.
        clock: seconds, only forwards.
    """
    if not limits.newest:
        edit.put_fact(connection, "last_seq", edit.last_seq(connection))
    count = size = 0
    for _ in range(ROUNDS):
        plan = _plan(connection, limits, now)
        yield from _throw_away(connection, plan, editor, is_alive=is_alive)
        yield from _empty_trash(connection, clock)
        yield from _close_comms(connection, clock)
        yield from _free_blobs(connection, clock)
        yield from _empty_trash(connection, clock)
        count, size = count + plan.chosen_count, size + plan.chosen_bytes
        if not plan.chosen_count or not limits.bytes or _used_bytes(connection) <= limits.bytes:
            break
    if count:
        yield from _sweep_words(connection, editor)
    yield from _shrink(connection, clock)
    return Pruned(executions_count=count, bytes=size, executions_left=_count(connection))


def _result(plan: Plan) -> Pruned:
    return Pruned(executions_count=plan.chosen_count, bytes=plan.chosen_bytes, executions_left=plan.executions_count)


# --- executions ---------------------------------------------------------------------------------------------


def _plan(connection: Connection, limits: Limits, now: float) -> Plan:
    newest_seq = None
    if limits.newest:
        row = connection.execute(
            "SELECT seq FROM executions ORDER BY seq DESC LIMIT 1 OFFSET ?", (limits.newest - 1,)
        ).fetchone()
        newest_seq = row[0] if row else -1
    return Plan(
        limits,
        now=now,
        executions_count=_count(connection),
        used_bytes=_used_bytes(connection),
        newest_seq=newest_seq,
    )


def _pages(connection: Connection, *, is_alive: bool) -> Iterator[list[Row]]:
    """The executions, oldest first. What goes between two pages is not missed."""
    facts = _NEW_FACTS if layout_of(connection).version > 2 else _OLD_FACTS
    seq = key = -1
    while True:
        found = connection.execute(facts, (seq, key, PAGE_ROWS)).fetchall()
        if not found:
            return
        seq, key = found[-1][1], found[-1][0]
        yield [
            Row(
                row=row,
                seq=at,
                finished_at=finished_at,
                bytes=size,
                is_finished=not is_alive or state in END_STATES,
                is_latest=bool(is_latest),
                is_annotated=_is_annotated(metadata),
            )
            for row, at, finished_at, size, state, is_latest, metadata in found
        ]


def _is_annotated(metadata: str | bytes) -> bool:
    return metadata != "{}" and any(not key.startswith("rtc_") and key != "user_expressions" for key in load(metadata))


def _throw_away(connection: Connection, plan: Plan, editor: Editor, *, is_alive: bool) -> Iterator[None]:
    for is_spared in (True, False):
        if not plan.has_limit or not (is_spared or plan.is_over):
            return
        for page in _pages(connection, is_alive=is_alive):
            if chosen := plan.choose(page, is_spared=is_spared):
                connection.execute("BEGIN IMMEDIATE")
                for row in chosen:
                    connection.execute("INSERT OR IGNORE INTO trash VALUES ('execution', ?)", (row.row,))
                    connection.execute("DELETE FROM executions WHERE row = ?", (row.row,))
                connection.execute("COMMIT")
                editor.forget()
            yield
            if plan.is_done(page):
                break


# --- what belonged to them ----------------------------------------------------------------------------------


def _empty_trash(connection: Connection, clock: Callable[[], float]) -> Iterator[None]:
    while connection.execute("SELECT 1 FROM trash LIMIT 1").fetchone():
        until = clock() + STEP_S
        connection.execute("BEGIN IMMEDIATE")
        while clock() < until:
            item = connection.execute("SELECT kind, row FROM trash LIMIT 1").fetchone()
            if item is None:
                break
            kind, row = item
            if _empty_execution(connection, row) if kind == "execution" else _empty_blob(connection, row):
                connection.execute("DELETE FROM trash WHERE kind = ? AND row = ?", (kind, row))
        connection.execute("COMMIT")
        yield


def _empty_execution(connection: Connection, row: int) -> bool:
    """Take some of what belongs to it away; whether that was all."""
    for table, key, count in _CHUNKS:
        columns = ", ".join(key)
        end = connection.execute(
            f"SELECT {columns} FROM {table} WHERE execution = ? ORDER BY {columns} LIMIT 1 OFFSET ?",  # noqa: S608
            (row, count),
        ).fetchone()
        where, values = "execution = ?", [row]
        if end is not None:
            where += f" AND ({columns}) < ({', '.join('?' * len(key))})"
            values += end
        if table == "uses":
            loosen(connection, table, where, values)
        else:
            connection.execute(f"DELETE FROM {table} WHERE {where}", values)  # noqa: S608 - our names
        if end is not None:
            return False
    return True


def _empty_blob(connection: Connection, row: int) -> bool:
    connection.execute(
        "DELETE FROM parts WHERE blob = ?1 AND part IN (SELECT part FROM parts WHERE blob = ?1 ORDER BY part LIMIT ?2)",
        (row, _PARTS),
    )
    return connection.execute("SELECT 1 FROM parts WHERE blob = ?", (row,)).fetchone() is None


def _free_blobs(connection: Connection, clock: Callable[[], float]) -> Iterator[None]:
    while connection.execute("SELECT 1 FROM loose LIMIT 1").fetchone():
        until = clock() + STEP_S
        connection.execute("BEGIN IMMEDIATE")
        while clock() < until:
            found = connection.execute("SELECT digest FROM loose LIMIT 1").fetchone()
            if found is None:
                break
            named = "SELECT 1 FROM uses WHERE digest = ?1 UNION ALL SELECT 1 FROM comm_uses WHERE digest = ?1 LIMIT 1"
            if connection.execute(named, found).fetchone() is None:
                connection.execute("INSERT OR IGNORE INTO trash SELECT 'blob', row FROM blobs WHERE digest = ?", found)
                connection.execute("DELETE FROM blobs WHERE digest = ?", found)
            connection.execute("DELETE FROM loose WHERE digest = ?", found)
        connection.execute("COMMIT")
        yield


def _close_comms(connection: Connection, clock: Callable[[], float]) -> Iterator[None]:
    beyond = "SELECT id FROM comms WHERE closed_at IS NOT NULL ORDER BY closed_at DESC LIMIT 50 OFFSET ?"
    while found := connection.execute(beyond, (COMMS_KEPT,)).fetchall():
        until = clock() + STEP_S
        connection.execute("BEGIN IMMEDIATE")
        for comm in found:
            loosen(connection, "comm_uses", "comm = ?", comm)
            for table in OF_COMMS:
                connection.execute(f"DELETE FROM {table} WHERE comm = ?", comm)  # noqa: S608 - our names
            connection.execute("DELETE FROM comms WHERE id = ?", comm)
            if clock() >= until:
                break
        connection.execute("COMMIT")
        yield


def _sweep_words(connection: Connection, editor: Editor) -> Iterator[None]:
    """What is used is read page by page; what the editor uses meanwhile, it says itself."""
    editor.forget()
    editor.words_used = set()
    try:
        used: set[int | None] = set()
        row, last = 0, connection.execute("SELECT max(row) FROM words").fetchone()[0] or 0
        while found := connection.execute(
            f"SELECT row, {', '.join(WORD_COLUMNS)} FROM executions WHERE row > ? ORDER BY row LIMIT 1000",  # noqa: S608
            (row,),
        ).fetchall():
            row = found[-1][0]
            for _, *words in found:
                used.update(words)
            yield
        row = 0
        while found := connection.execute(
            "SELECT row FROM words WHERE row > ? AND row <= ? ORDER BY row LIMIT 500", (row, last)
        ).fetchall():
            row = found[-1][0]
            gone = [one for one in found if one[0] not in used and one[0] not in editor.words_used]
            if gone:
                connection.execute("BEGIN IMMEDIATE")
                for one in gone:
                    connection.execute("DELETE FROM words WHERE row = ?", one)
                connection.execute("COMMIT")
            yield
    finally:
        editor.words_used = None


# --- the file -----------------------------------------------------------------------------------------------


def _shrink(connection: Connection, clock: Callable[[], float]) -> Iterator[None]:
    """Give free pages back. A statement of ``incremental_vacuum`` gives back one page for each row that is fetched,
    and Python fetches one."""
    if _pragma(connection, "auto_vacuum") != _INCREMENTAL:
        return
    if _pragma(connection, "freelist_count") < max(FREE_PAGES, _pragma(connection, "page_count") // 10):
        return
    while _pragma(connection, "freelist_count"):
        until = clock() + STEP_S
        connection.execute("BEGIN IMMEDIATE")
        while clock() < until:
            connection.execute("PRAGMA incremental_vacuum(1)").fetchall()
        connection.execute("COMMIT")
        yield
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # a file is cut by a checkpoint only
    yield


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _used_bytes(connection: Connection) -> int:
    pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return pages * _pragma(connection, "page_size")


def _count(connection: Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM executions").fetchone()[0])
