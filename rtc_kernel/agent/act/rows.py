"""Is this row a request?

Pure. A row of the requests document was written by a peer and may hold anything that Yjs can; what comes out is a
:class:`~rtc_kernel.tables.Request` with checked columns and defaults, or a refused one whose reason names the column.
Nothing here raises on a row. It must not know what is open or has been: whether an id was used before, or an
``after`` exists, is the scheduler's.

A reason never repeats a value, and of a refused row no columns are kept: what was typed for an ``input`` may stand
in the wrong column, and the store is no place for 10 MB of refused code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from ...tables import Json, Request, RequestState, advance
from ..mirror.values import MAX_DEPTH, size_of

REQUEST_ID_CHARS = 128

ID_CHARS = 4096
"""Longest id of a cell or an execution, or path of a notebook: VS Code's cell ids are URIs."""

KEY_CHARS = 256
"""Longest key of an annotation, and longest target of a query."""

AGENT_COLUMNS = frozenset({"by", "state", "ordinal", "received_at", "reason", "execution"})
"""What only the agent writes into a row; ``execution`` is a peer's where the action asks for one."""

OWN_PREFIX = "rtc_"
"""Keys of an execution's metadata that begin so are ours."""

_SHOWN_CHARS = 64
_MAX_INT = (1 << 63) - 1
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_FOREIGN = object()
"""Stands for what JSON, UTF-8 or SQLite cannot hold."""

_REQUIRED = object()


@dataclass(frozen=True, slots=True)
class RowLimits:
    """What one row may weigh.

    Attributes:
        code_bytes: code to run, as UTF-8.
        value_bytes: what is typed, as UTF-8; or a JSON value, as JSON text.
    """

    code_bytes: int = 1 << 20
    value_bytes: int = 64 << 10


@dataclass(frozen=True, slots=True)
class Reading:
    """What a row says.

    Attributes:
        request: *requested*, or *refused* with the reason.
        secret: what was typed, for an accepted ``input``; it is nowhere else.
    """

    request: Request
    secret: str | None = field(default=None, repr=False)


Check = Callable[[Any, RowLimits], str | None]
"""What is wrong with a value, and what to give instead; null where nothing is."""


@dataclass(frozen=True, slots=True)
class _Column:
    check: Check
    default: Any = _REQUIRED


def _text(what: str, max_chars: int = ID_CHARS) -> Check:
    def check(value: Any, limits: RowLimits) -> str | None:
        if not isinstance(value, str) or not value:
            return f"not a text, give {what}"
        return None if len(value) <= max_chars else f"{len(value)} characters, give at most {max_chars}"

    return check


def _or_null(check: Check) -> _Column:
    def check_given(value: Any, limits: RowLimits) -> str | None:
        wrong = None if value is None else check(value, limits)
        return wrong and f"{wrong}, or null"

    return _Column(check_given, None)


def _check_code(value: Any, limits: RowLimits) -> str | None:
    if not isinstance(value, str):
        return "not a text (without NUL), give the code to run"
    return _check_size(value, limits.code_bytes)


def _check_typed(value: Any, limits: RowLimits) -> str | None:
    if not isinstance(value, str):
        return "not a text (without NUL), give what is typed"
    return _check_size(value, limits.value_bytes)


def _check_json(value: Any, limits: RowLimits) -> str | None:
    try:
        text = _dump(value)
    except TypeError:
        return f"holds what is not JSON, give JSON of at most {MAX_DEPTH} levels"
    return _check_size(text, limits.value_bytes)


def _check_expressions(value: Any, limits: RowLimits) -> str | None:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        return "not a map of texts, give an expression under each name"
    return _check_json(value, limits)


def _check_flag(value: Any, limits: RowLimits) -> str | None:
    return None if isinstance(value, bool) else "neither true nor false, give one of them"


def _check_duplicate(value: Any, limits: RowLimits) -> str | None:
    return None if value in ("coalesce", "queue") else "unknown, give coalesce or queue"


def _check_request(value: Any, limits: RowLimits) -> str | None:
    return None if isinstance(value, str) and is_request_id(value) else "not the id of a request, give one"


def _check_number(value: Any, limits: RowLimits) -> str | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    return None if fits else "not a number, give POSIX seconds"


def _check_key(value: Any, limits: RowLimits) -> str | None:
    if isinstance(value, str) and value.startswith(OWN_PREFIX):
        return f"keys with {OWN_PREFIX} in front are the agent's, give another"
    return _text("the key of the annotation", KEY_CHARS)(value, limits)


def _check_size(text: str, max_bytes: int) -> str | None:
    size = size_of(text)
    return None if size <= max_bytes else f"{size} bytes, give at most {max_bytes}"


_EXECUTION = _text("the id of an execution")

COLUMNS: Mapping[str, Mapping[str, _Column]] = {
    "execute": {
        "code": _Column(_check_code),
        "cell": _or_null(_text("the id of the cell")),
        "notebook": _or_null(_text("the path of the notebook")),
        "after": _or_null(_check_request),
        "on_duplicate": _Column(_check_duplicate, "coalesce"),
        "stop_on_error": _Column(_check_flag, True),
        "allow_stdin": _Column(_check_flag, True),
        "silent": _Column(_check_flag, False),
        "user_expressions": _Column(_check_expressions, {}),
    },
    "interrupt": {"execution": _or_null(_EXECUTION)},
    "restart": {},
    "cancel": {"request": _Column(_check_request)},
    "release": {"request": _or_null(_check_request)},
    "input": {"execution": _Column(_EXECUTION), "value": _Column(_check_typed), "since": _or_null(_check_number)},
    "query": {
        "target": _Column(_text("the comm target that answers", KEY_CHARS)),
        "input": _Column(_check_json, None),
        "fresh": _Column(_check_flag, False),
    },
    "clear": {"before": _or_null(_check_number)},
    "annotate": {
        "execution": _Column(_EXECUTION),
        "key": _Column(_check_key),
        "value": _Column(_check_json),
    },
}
"""What a peer may give, per action."""


def is_request_id(text: str) -> bool:
    """Whether a row may be kept under this key: 1 to 128 printable characters."""
    return 0 < len(text) <= REQUEST_ID_CHARS and text.isprintable()


def read_row(request_id: str, row: Any, *, by: str, role: str, ordinal: int, now: float, limits: RowLimits) -> Reading:
    """The request that a row makes.

    Args:
        request_id: the row's key.
        row: ``{column: value}`` as it came out of Yjs, or anything else.
        by: name of the peer, from its connection.
        role: of its connection: ``view`` | ``run`` | ``own``.
        ordinal: order in which the agent took the rows.
        now: POSIX seconds.
    """
    plain = _plain(row, MAX_DEPTH + 1)
    given: Json = plain if isinstance(plain, dict) else {}
    named = given.get("action")
    action = named if isinstance(named, str) and named in COLUMNS else ""
    request = Request(
        id=request_id, action=action, by=by, digest=_digest(given, action), ordinal=ordinal, received_at=now
    )
    wrong: str | None
    if not is_request_id(request_id):
        wrong = f"request_id: give 1 to {REQUEST_ID_CHARS} printable characters"
    elif given is not plain:
        wrong = "row: not a map, give one with the columns of an action"
    else:
        wrong = _check_row(given, action, role, limits)
    if wrong:
        return Reading(replace(request, state=advance(request.state, RequestState.REFUSED), reason=wrong))
    columns = {name: given[name] if name in given else copy(c.default) for name, c in COLUMNS[action].items()}
    secret = columns.pop("value") if action == "input" else None
    return Reading(replace(request, columns=columns), secret)


def _check_row(given: Json, action: str, role: str, limits: RowLimits) -> str | None:
    """The first thing that is wrong, as ``<column>: <what is wrong, what to give>``."""
    if not action:
        return f"action: unknown, give one of {', '.join(COLUMNS)}"
    if role not in ("run", "own"):
        return f"action: a link of role {role} may not ask for anything, use one of role run"
    if action == "clear" and role != "own":
        return "action: clear needs the role own"
    columns = COLUMNS[action]
    for name in sorted(given.keys() - columns.keys() - {"action", "created_at"}):
        if name in AGENT_COLUMNS:
            return f"{name}: only the agent writes it, leave it out"
        return f"{_shown(name)}: no column of {action}, leave it out"
    for name, column in columns.items():
        if name not in given and column.default is _REQUIRED:
            return f"{name}: missing, {action} needs it"
        if name in given and (wrong := column.check(given[name], limits)):
            return f"{name}: {wrong}"
    if "created_at" in given and (wrong := _check_number(given["created_at"], limits)):
        return f"created_at: {wrong}"
    return None


def _shown(name: str) -> str:
    short = name[:_SHOWN_CHARS]
    return short if short.isprintable() else ascii(short)


def _digest(given: Json, action: str) -> str:
    """SHA-256 of a row, 64 hex digits. A ``value`` counts for ``annotate`` only: elsewhere it may have been typed for
    an ``input``, and what is short can be guessed from its hash."""
    left_out = {"created_at"} if action == "annotate" else {"created_at", "value"}
    kept = {name: value for name, value in given.items() if name not in left_out}
    return hashlib.sha256(_dump(kept, default=lambda foreign: None).encode("utf-8", "replace")).hexdigest()


def _dump(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Canonical JSON text.

    Raises:
        TypeError: the value holds what is not JSON, and no ``default`` was given.
    """
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=default)


def _plain(value: Any, depth: int) -> Any:
    """A copy as JSON has it: whole numbers as integers, and :data:`_FOREIGN` in place of what JSON, UTF-8 or SQLite
    cannot hold, or what is nested more deeply than ``depth``."""
    match value:
        case None | bool():
            return value
        case str():
            return value if (value.isascii() and "\0" not in value) or not _NOT_TEXT.search(value) else _FOREIGN
        case int():
            return value if -_MAX_INT <= value <= _MAX_INT else _FOREIGN
        case float() if isfinite(value):
            return int(value) if value.is_integer() and abs(value) < _MAX_INT else value
        case Mapping() if depth > 0 and all(isinstance(key, str) and _is_text(key) for key in value):
            return {key: _plain(item, depth - 1) for key, item in value.items()}
        case list() | tuple() if depth > 0:
            return [_plain(item, depth - 1) for item in value]
        case _:
            return _FOREIGN


def _is_text(value: str) -> bool:
    return not _NOT_TEXT.search(value)
