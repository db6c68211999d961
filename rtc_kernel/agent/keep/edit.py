"""Which statements does a change mean?

Pure: over any connection, inside the caller's transaction. Appending to a stream is one statement on one segment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
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
    Connection,
    column_value,
    dump,
    load,
    run,
    values_of,
)

_ENDED = ", ".join(f"'{state.value}'" for state in sorted(END_STATES))
_LIVED = frozenset({"generation", "started_at", "ended_at", "exit_code"})
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

_PUT_OUTPUT = (
    f"INSERT OR REPLACE INTO outputs (execution, position, {', '.join(OUTPUT_COLUMNS)})"  # noqa: S608 - our names
    f" VALUES (?, ?{', ?' * len(OUTPUT_COLUMNS)})"
)
_APPEND = (
    "INSERT INTO segments VALUES (?, ?, ?, ?)"
    " ON CONFLICT (execution, position, segment) DO UPDATE SET text = text || excluded.text"
)
_KEPT_OF_REQUEST = [f'"{name}"' for name in (*REQUEST_COLUMNS, "finished_at")]  # BY is a word of SQL's
_PUT_REQUEST = (
    f"INSERT INTO requests ({', '.join(_KEPT_OF_REQUEST)}) VALUES (?{', ?' * len(REQUEST_COLUMNS)})"  # noqa: S608
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _KEPT_OF_REQUEST)}"
)


def apply(connection: Connection, changes: Iterable[Change]) -> None:
    """Make the changes, in order.

    Raises:
        LocalError: a column that the tables do not have.
        OverflowError, TypeError, ValueError: a value that does not fit its column.
    """
    for change in changes:
        apply_one(connection, change)


def apply_one(connection: Connection, change: Change) -> None:
    """Make one change."""
    match change:
        case WriteText(execution, position, segment, keep, text):
            _write_text(connection, execution, position, segment, keep, text)
        case PutExecution(execution, columns):
            _put_execution(connection, execution, columns)
        case AddOutput(execution, position, output) | SetOutput(execution, position, output):
            _put_output(connection, execution, position, output)
        case PutKernel(kernel, columns):
            put_kernel(connection, kernel, columns)
        case PutMeta(columns):
            for key, value in columns.items():
                run(connection, "INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, dump(value)))
        case ClearOutputs(execution):
            run(connection, "DELETE FROM segments WHERE execution = ?", (execution,))
            run(connection, "DELETE FROM outputs WHERE execution = ?", (execution,))
        case PutComm(comm, columns):
            _upsert(connection, "comms", COMM_COLUMNS, comm, columns)
        case MergeCommState(comm, state):
            for key, value in state.items():
                run(connection, "INSERT OR REPLACE INTO comm_state VALUES (?, ?, ?)", (comm, key, dump(value)))
        case AddCommMessage(comm, message):
            _add_message(connection, comm, message)
        case PutBlob(digest, data, media_type):
            run(connection, "INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", (digest, media_type, data))
        case PutCells(notebook, cells):
            run(connection, "DELETE FROM cells", ())
            for cell in cells:
                values = (cell.index, cell.id, cell.cell_type, cell.source, notebook)
                run(connection, "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", values)
        case PutQuery() | DropQuery():
            pass  # an answer is worth as long as the kernel that gave it
        case _:
            assert_never(change)


def _write_text(
    connection: Connection, execution: str, position: int, segment: int, keep: int | None, text: str
) -> None:
    where = (execution, position, segment)
    run(connection, "DELETE FROM segments WHERE execution = ? AND position = ? AND segment > ?", where)
    if keep is None:
        run(connection, _APPEND, (*where, text))
        return
    row = run(
        connection, "SELECT text FROM segments WHERE execution = ? AND position = ? AND segment = ?", where
    ).fetchone()
    kept = row[0][:keep] if row else ""  # code points; SQL's substr stops at NUL
    run(connection, "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?)", (*where, kept + text))


def _put_output(connection: Connection, execution: str, position: int, output: Output) -> None:
    run(connection, _PUT_OUTPUT, (execution, position, *values_of(output)))
    if output.output_type == "stream":
        run(connection, "DELETE FROM segments WHERE execution = ? AND position = ?", (execution, position))
        if output.text:
            run(connection, _APPEND, (execution, position, 0, output.text))


def _put_execution(connection: Connection, execution: str, columns: Json) -> None:
    if columns.get("metadata"):
        row = run(connection, "SELECT metadata FROM executions WHERE id = ?", (execution,)).fetchone()
        if row is not None:
            columns = {**columns, "metadata": {**load(row[0]), **columns["metadata"]}}
    elif "metadata" in columns:
        columns = {name: value for name, value in columns.items() if name != "metadata"}
    _upsert(connection, "executions", EXECUTION_COLUMNS, execution, columns)


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


_STATEMENTS: dict[tuple[str, ...], str] = {}


def _upsert(connection: Connection, table: str, known: Sequence[str], key: str, columns: Json) -> None:
    names = (table, *columns)
    sql = _STATEMENTS.get(names)
    if sql is None:
        unknown = [name for name in columns if name not in known]
        if unknown:
            raise LocalError(f"{table} has no column {unknown[0]!r}")
        listed = [name for name in columns if name != "id"]
        places = ", ".join(["?"] * (1 + len(listed)))
        sql = f"INSERT INTO {table} ({', '.join(['id', *listed])}) VALUES ({places}) ON CONFLICT (id) DO "  # noqa: S608
        sql += f"UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in listed)}" if listed else "NOTHING"
        if len(_STATEMENTS) < 1000:
            _STATEMENTS[names] = sql
    values = [column_value(name, value) for name, value in columns.items() if name != "id"]
    run(connection, sql, (key, *values))


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
    for table in ("segments", "outputs"):
        run(
            connection,
            f"DELETE FROM {table} WHERE execution IN (SELECT id FROM executions WHERE {gone})",  # noqa: S608
            (limit,),
        )
    count = run(connection, f"DELETE FROM executions WHERE {gone}", (limit,)).rowcount  # noqa: S608
    for table in ("comm_state", "comm_messages"):
        run(
            connection,
            f"DELETE FROM {table} WHERE comm IN (SELECT id FROM comms WHERE closed_at < ?)",  # noqa: S608
            (limit,),
        )
    run(connection, "DELETE FROM comms WHERE closed_at < ?", (limit,))
    _sweep_blobs(connection)
    return count


def _sweep_blobs(connection: Connection) -> None:
    named: set[str] = set()
    for table, column in (("outputs", "data"), ("comm_state", "value"), ("comm_messages", "value")):
        rows = run(connection, f"SELECT {column} FROM {table} WHERE instr({column}, 'sha256:')", ())  # noqa: S608
        for (value,) in rows:
            text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
            named.update(_DIGEST.findall(text))
    stored = [digest for (digest,) in run(connection, "SELECT digest FROM blobs", ()).fetchall()]
    for digest in stored:
        if digest not in named:
            run(connection, "DELETE FROM blobs WHERE digest = ?", (digest,))


def last_seq(connection: Connection) -> int:
    """The highest ``seq`` that any execution ever had here; 0 when there was none."""
    row = run(connection, "SELECT max(seq) FROM executions", ()).fetchone()
    kept = run(connection, "SELECT value FROM facts WHERE name = 'last_seq'", ()).fetchone()
    return max(row[0] or 0, load(kept[0]) if kept else 0)


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
