"""How does the history lie in SQL tables, and how does a value lie in a column?

Pure: text of statements and conversions; no ``sqlite3``, no clock. The tables are those of :mod:`rtc_kernel.tables`,
with outputs, the segments of their text, and the state of comms as tables of their own, so that appending to a
stream touches one segment and nothing else.

A lone surrogate in a text (legal in JSON, not in UTF-8) becomes U+FFFD, as in the document. JSON is stored as
text; where it holds ``bytes`` (buffers of widgets) it is a blob of JSON, in which ``{"$bytes": base64}`` stands
for them.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ...tables import (
    ONLY_IN_DOCUMENT,
    Comm,
    Execution,
    ExecutionState,
    Json,
    Kernel,
    KernelState,
    Output,
    Request,
    RequestState,
)

FILE_VERSION = 3
"""``PRAGMA user_version`` of the files that this version writes and the newest that it reads."""

SUFFIX = ".sqlite3"

WORD_COLUMNS = ("kernel", "notebook", "cell", "client", "submitted_by")
"""Columns of ``executions`` that say the same over and over: a row has the number of a row of ``words``."""

_REQUESTS = """
CREATE TABLE requests (
  id TEXT PRIMARY KEY, action TEXT NOT NULL, "by" TEXT NOT NULL, columns TEXT NOT NULL, digest TEXT NOT NULL,
  ordinal INTEGER NOT NULL, received_at REAL NOT NULL, state TEXT NOT NULL, execution TEXT, reason TEXT,
  finished_at REAL);
CREATE INDEX requests_ordinal ON requests (ordinal, finished_at);
CREATE INDEX requests_open ON requests (ordinal) WHERE finished_at IS NULL;
"""

_EXECUTIONS = """
CREATE TABLE words (row INTEGER PRIMARY KEY AUTOINCREMENT, word TEXT NOT NULL UNIQUE);
CREATE TABLE executions (
  row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, seq INTEGER NOT NULL DEFAULT 0, kernel INTEGER,
  generation INTEGER NOT NULL DEFAULT 0, notebook INTEGER, cell INTEGER, client INTEGER, submitted_by INTEGER,
  execution_count INTEGER, queued_at REAL, started_at REAL, finished_at REAL, state TEXT NOT NULL DEFAULT 'queued',
  private INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, request TEXT, code TEXT NOT NULL DEFAULT '',
  error TEXT, input TEXT, metadata TEXT NOT NULL DEFAULT '{}');
CREATE INDEX executions_seq ON executions (seq);
CREATE INDEX executions_cell ON executions (cell, seq) WHERE cell IS NOT NULL;
CREATE INDEX executions_open ON executions (state) WHERE state IN ('queued', 'running');
CREATE TABLE outputs (
  execution INTEGER NOT NULL, position INTEGER NOT NULL, output_type TEXT NOT NULL, at REAL NOT NULL, name TEXT,
  bytes INTEGER NOT NULL DEFAULT 0, data TEXT, metadata TEXT, execution_count INTEGER, ename TEXT, evalue TEXT,
  traceback TEXT, display_id TEXT, PRIMARY KEY (execution, position));
CREATE INDEX outputs_display ON outputs (display_id) WHERE display_id IS NOT NULL;
CREATE TABLE segments (
  execution INTEGER NOT NULL, position INTEGER NOT NULL, segment INTEGER NOT NULL, text TEXT NOT NULL,
  PRIMARY KEY (execution, position, segment));
CREATE TABLE marks (
  execution INTEGER NOT NULL, position INTEGER NOT NULL, segment INTEGER NOT NULL, chars INTEGER NOT NULL,
  at REAL NOT NULL, PRIMARY KEY (execution, position, segment, chars)) WITHOUT ROWID;
"""

_BLOBS = """
CREATE TABLE blobs (
  row INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE, media_type TEXT NOT NULL,
  bytes INTEGER NOT NULL);
CREATE TABLE parts (blob INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (blob, part));
CREATE TABLE uses (
  execution INTEGER NOT NULL, position INTEGER NOT NULL, digest TEXT NOT NULL,
  PRIMARY KEY (execution, position, digest)) WITHOUT ROWID;
CREATE INDEX uses_digest ON uses (digest);
CREATE TABLE comm_uses (
  comm TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (comm, key, digest)) WITHOUT ROWID;
CREATE INDEX comm_uses_digest ON comm_uses (digest);
CREATE TABLE loose (digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE trash (kind TEXT NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (kind, row)) WITHOUT ROWID;
CREATE INDEX comms_closed ON comms (closed_at) WHERE closed_at IS NOT NULL;
"""

SCHEMA = f"""
CREATE TABLE kernels (
  id TEXT PRIMARY KEY, name TEXT NOT NULL DEFAULT '', display_name TEXT NOT NULL DEFAULT '',
  language TEXT NOT NULL DEFAULT '', state TEXT NOT NULL DEFAULT 'starting', generation INTEGER NOT NULL DEFAULT 0,
  notebook TEXT, host TEXT NOT NULL DEFAULT '', started_at REAL, ended_at REAL, exit_code INTEGER,
  last_activity_at REAL);
CREATE TABLE generations (
  kernel TEXT NOT NULL, generation INTEGER NOT NULL, started_at REAL, ended_at REAL, exit_code INTEGER,
  PRIMARY KEY (kernel, generation));
CREATE TABLE comms (
  id TEXT PRIMARY KEY, target TEXT NOT NULL DEFAULT '', kernel TEXT NOT NULL DEFAULT '', execution TEXT,
  opened_by TEXT NOT NULL DEFAULT 'kernel', opened_at REAL, closed_at REAL);
CREATE TABLE comm_state (
  comm TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (comm, key));
CREATE TABLE comm_messages (row INTEGER PRIMARY KEY AUTOINCREMENT, comm TEXT NOT NULL, value TEXT NOT NULL);
CREATE INDEX comm_messages_comm ON comm_messages (comm, row);
CREATE TABLE cells (
  "index" INTEGER PRIMARY KEY, id TEXT NOT NULL, cell_type TEXT NOT NULL, source TEXT NOT NULL,
  notebook TEXT NOT NULL);
CREATE TABLE tokens (
  name TEXT PRIMARY KEY, role TEXT NOT NULL, hash TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE feed (
  one INTEGER PRIMARY KEY CHECK (one = 1), relay_id TEXT NOT NULL, seq INTEGER NOT NULL, mirror_state TEXT);
{_REQUESTS}{_EXECUTIONS}{_BLOBS}
PRAGMA user_version = {FILE_VERSION};
"""
"""``meta`` is the document's row; ``facts`` is what the agent keeps for itself (its port); ``feed`` has one row:
how far which relay's records are in the other tables. A request is open until it has ``finished_at``.

``outputs``, ``segments``, ``marks`` and ``uses`` name an execution by its ``row``: an id there would be half of what a
small execution takes. The tables of text are not WITHOUT ROWID: there SQLite puts what is longer than a quarter of a
page on a page of its own, which costs texts of 1 to 3 kB two to four times their size. ``bytes``: of an execution
about what its code and its outputs take, of an output its own part of that. A blob lies in ``parts``, so that a large
one goes in small steps. ``uses`` and ``comm_uses`` say who names it; ``loose`` are the digests that lost somebody who
named them (or have nobody yet); ``trash`` are rows that have left and whose outputs or parts are still there."""


def _word(column: str) -> str:
    return f"(SELECT row FROM words WHERE word = old_executions.{column})"  # noqa: S608 - our names


_SAID = " UNION ".join(f"SELECT {name} FROM old_executions WHERE {name} IS NOT NULL" for name in WORD_COLUMNS)  # noqa: S608


_FOUND = """
WITH RECURSIVE found (one, two, rest) AS (
  SELECT {one}, {two}, substr({value}, instr({value}, 'sha256:')) FROM {table} WHERE instr({value}, 'sha256:')
  UNION ALL
  SELECT one, two, substr(rest, 7 + instr(substr(rest, 8), 'sha256:')) FROM found
  WHERE instr(substr(rest, 8), 'sha256:'))
SELECT one, two, substr(rest, 1, 71) FROM found WHERE substr(rest, 1, 71) IN (SELECT digest FROM blobs)
"""

_TO_3 = f"""
DROP INDEX executions_seq;
DROP INDEX executions_cell;
DROP INDEX executions_open;
DROP INDEX outputs_display;
ALTER TABLE executions RENAME TO old_executions;
ALTER TABLE outputs RENAME TO old_outputs;
ALTER TABLE segments RENAME TO old_segments;
ALTER TABLE blobs RENAME TO old_blobs;
{_EXECUTIONS}{_BLOBS}
INSERT INTO words (word) {_SAID};
INSERT INTO executions (
    id, seq, kernel, generation, notebook, cell, client, submitted_by, execution_count, queued_at, started_at,
    finished_at, state, private, request, code, error, input, metadata)
  SELECT id, seq, {_word("kernel")}, generation, {_word("notebook")}, {_word("cell")}, {_word("client")},
    {_word("submitted_by")}, execution_count, queued_at, started_at, finished_at, state, private, request, code, error,
    input, metadata FROM old_executions ORDER BY seq, rowid;
INSERT INTO segments
  SELECT e.row, s.position, s.segment, s.text FROM old_segments s JOIN executions e ON e.id = s.execution;
INSERT INTO outputs (
    execution, position, output_type, at, name, bytes, data, metadata, execution_count, ename, evalue, traceback,
    display_id)
  SELECT e.row, position, output_type, at, name,
    coalesce(length(CAST(data AS BLOB)), 0) + coalesce(length(CAST(traceback AS BLOB)), 0) + coalesce((
      SELECT sum(length(CAST(text AS BLOB))) FROM segments
      WHERE segments.execution = e.row AND segments.position = o.position), 0),
    data, o.metadata, o.execution_count, ename, evalue, traceback, display_id
  FROM old_outputs o JOIN executions e ON e.id = o.execution;
UPDATE executions SET bytes = length(CAST(code AS BLOB))
  + coalesce((SELECT sum(bytes) FROM outputs WHERE execution = executions.row), 0);
INSERT INTO blobs (row, digest, media_type, bytes) SELECT rowid, digest, media_type, length(data) FROM old_blobs;
INSERT INTO parts SELECT rowid, 0, data FROM old_blobs;
INSERT OR IGNORE INTO uses {_FOUND.format(one="execution", two="position", value="data", table="outputs")};
INSERT OR IGNORE INTO comm_uses
  {_FOUND.format(one="comm", two="key", value="CAST(value AS TEXT)", table="comm_state")};
INSERT INTO loose SELECT digest FROM blobs;
DROP TABLE old_executions;
DROP TABLE old_outputs;
DROP TABLE old_segments;
DROP TABLE old_blobs;
PRAGMA user_version = 3;
"""  # noqa: S608 - our names

MIGRATIONS: Mapping[int, str] = {1: f"{_REQUESTS} PRAGMA user_version = 2;", 2: _TO_3}
"""The statements that make a file of one version into one of the next."""

TRUNCATED = "rtc_truncated"
"""Key of an execution's ``metadata``: ``{"bytes": n}``, how much of its text is not stored."""

_ELSEWHERE = ONLY_IN_DOCUMENT | {"outputs", "text"}
EXECUTION_COLUMNS = tuple(name for name in Execution.__dataclass_fields__ if name not in _ELSEWHERE)
KERNEL_COLUMNS = tuple(Kernel.__dataclass_fields__)
COMM_COLUMNS = tuple(name for name in Comm.__dataclass_fields__ if name not in ("state", "messages"))
OUTPUT_COLUMNS = tuple(name for name in Output.__dataclass_fields__ if name not in _ELSEWHERE)
REQUEST_COLUMNS = tuple(Request.__dataclass_fields__)
JSON_COLUMNS = frozenset({"error", "input", "metadata", "data", "traceback", "columns"})

TEXT_LIMIT_CHARS = 1000
"""A pattern to search for that is longer than this is a mistake."""


_SURROGATES = re.compile("[\ud800-\udfff]")


class Rows(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int:
        """Rows that the statement changed."""

    @property
    def lastrowid(self) -> int | None:
        """The row that the last INSERT made."""

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows."""

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """What the pure modules need of a connection."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Rows:
        """Run one statement."""

    def blobopen(self, table: str, column: str, row: int, /, *, readonly: bool) -> Any:
        """The bytes of one column, to be read in pieces."""


def run(connection: Connection, sql: str, parameters: Sequence[Any]) -> Rows:
    """Run one statement; lone surrogates in its texts become U+FFFD."""
    try:
        return connection.execute(sql, parameters)
    except UnicodeEncodeError:
        return connection.execute(
            sql, [_SURROGATES.sub("\ufffd", value) if isinstance(value, str) else value for value in parameters]
        )


def dump(value: Any) -> str | bytes:
    """A value as JSON: text, or bytes where it holds ``bytes``."""
    try:
        return json.dumps(value, separators=(",", ":"))
    except TypeError:
        return json.dumps(_mark(value), separators=(",", ":")).encode()


def load(value: str | bytes) -> Any:
    """The inverse of :func:`dump` (tuples come back as lists, buffers of any kind as ``bytes``)."""
    return _unmark(json.loads(value)) if isinstance(value, bytes) else json.loads(value)


def _mark(value: Any) -> Any:
    if isinstance(value, dict):
        marked = {str(key): _mark(item) for key, item in value.items()}
        return {"$plain": marked} if marked.keys() & {"$bytes", "$plain"} else marked
    if isinstance(value, list | tuple):
        return [_mark(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    return value


def _unmark(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmark(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$bytes": str(text)} if len(value) == 1:
            return base64.b64decode(text)
        case {"$plain": dict(inner)} if len(value) == 1:
            value = inner
        case _:
            pass
    return {key: _unmark(item) for key, item in value.items()}


def execution(row: Sequence[Any], outputs: tuple[Output, ...]) -> Execution:
    """A row of ``EXECUTION_COLUMNS``, with its outputs."""
    values = _values(EXECUTION_COLUMNS, row)
    values["state"] = ExecutionState(values["state"])
    values["private"] = bool(values["private"])
    return Execution(**values, outputs=outputs)


def kernel(row: Sequence[Any]) -> Kernel:
    """A row of ``KERNEL_COLUMNS``."""
    values = _values(KERNEL_COLUMNS, row)
    values["state"] = KernelState(values["state"])
    return Kernel(**values)


def comm(row: Sequence[Any], state: Json, messages: tuple[Json, ...]) -> Comm:
    """A row of ``COMM_COLUMNS``, with its state and its log."""
    return Comm(**_values(COMM_COLUMNS, row), state=state, messages=messages)


def output(row: Sequence[Any], text: str) -> Output:
    """A row of ``OUTPUT_COLUMNS``; ``text`` is its segments joined, and counts for a stream only."""
    values = _values(OUTPUT_COLUMNS, row)
    if values["traceback"] is not None:
        values["traceback"] = tuple(values["traceback"])
    return Output(**values, text=text if values["output_type"] == "stream" else None)


def request(row: Sequence[Any]) -> Request:
    """A row of ``REQUEST_COLUMNS``."""
    values = _values(REQUEST_COLUMNS, row)
    values["state"] = RequestState(values["state"])
    return Request(**values)


def _values(columns: Sequence[str], row: Sequence[Any]) -> Json:
    values = dict(zip(columns, row, strict=True))
    for name in JSON_COLUMNS & values.keys():
        if values[name] is not None:
            values[name] = load(values[name])
    return values


def values_of(record: Output) -> list[Any]:
    """An output as parameters, in the order of ``OUTPUT_COLUMNS``."""
    return [column_value(name, getattr(record, name)) for name in OUTPUT_COLUMNS]


def column_value(name: str, value: Any) -> Any:
    """One column's value as a parameter."""
    if value is None:
        return None
    return dump(value) if name in JSON_COLUMNS else value
