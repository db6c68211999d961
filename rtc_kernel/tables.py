"""What are the rows of the shared document, and what may happen to them?

Pure: records, states and changes; no Yjs types (those are in ``schema``), no SQL (``agent.keep.store``).
The words are those of the Jupyter messaging spec and nbformat 4.5. Times are POSIX seconds, UTC, as floats.

Theory of the states. An execution moves forward only. It is *queued* when its request was seen, *running* when
the kernel said so, and ends in exactly one end state. ``ok`` and ``error`` need both the reply and idle, because
either may come first and outputs may stand between them. ``aborted`` is the kernel's word for a request that it
did not begin. ``cancelled`` is ours: taken back before it was sent. ``lost`` says that nobody knows: the kernel
or the agent died. An end state is never left, so a reader that saw one may forget the row.
A kernel may restart from any state, and from ``dead`` too: the same kernel id gets a new generation.

A request is *requested* once the agent has stored it: that is its acknowledgement. It is *accepted* when the agent has
decided to send it and has stored that too, under the id of the execution that it becomes; only then it is sent, so
whoever dies in between leaves either a row that was never sent or one that is known by its execution. *held*: what
was waiting when the agent or the kernel stopped; somebody has to release or drop it. It ends *done* (its execution
says how it went; one that was taken back has a ``cancelled`` one) or *refused*, with the reason. Only a row whose
message provably never reached the kernel steps back from *accepted* to *held* or *requested*.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

from .errors import LocalError

SCHEMA_VERSION = 1
"""Version of the document's tables; columns are only ever added within it."""

Json = dict[str, Any]


class ExecutionState(StrEnum):
    """The life of one execution."""

    QUEUED = "queued"
    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    ABORTED = "aborted"
    LOST = "lost"
    CANCELLED = "cancelled"


class KernelState(StrEnum):
    """The life of the kernel."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    RESTARTING = "restarting"
    DEAD = "dead"


class RequestState(StrEnum):
    """The life of one request."""

    REQUESTED = "requested"
    HELD = "held"
    ACCEPTED = "accepted"
    DONE = "done"
    REFUSED = "refused"


class QueryState(StrEnum):
    """The life of one question to the kernel."""

    TO_PROCESS = "to_process"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    FAILED = "failed"


_E, _K, _R, _Q = ExecutionState, KernelState, RequestState, QueryState

EXECUTION_TRANSITIONS: Mapping[ExecutionState, frozenset[ExecutionState]] = {
    _E.QUEUED: frozenset({_E.RUNNING, _E.OK, _E.ERROR, _E.ABORTED, _E.CANCELLED, _E.LOST}),
    _E.RUNNING: frozenset({_E.OK, _E.ERROR, _E.ABORTED, _E.LOST}),
    _E.OK: frozenset(),
    _E.ERROR: frozenset(),
    _E.ABORTED: frozenset(),
    _E.LOST: frozenset(),
    _E.CANCELLED: frozenset(),
}

KERNEL_TRANSITIONS: Mapping[KernelState, frozenset[KernelState]] = {
    _K.STARTING: frozenset({_K.IDLE, _K.BUSY, _K.RESTARTING, _K.DEAD}),
    _K.IDLE: frozenset({_K.BUSY, _K.RESTARTING, _K.DEAD, _K.STARTING}),
    _K.BUSY: frozenset({_K.IDLE, _K.RESTARTING, _K.DEAD, _K.STARTING}),
    _K.RESTARTING: frozenset({_K.STARTING, _K.IDLE, _K.BUSY, _K.DEAD}),
    _K.DEAD: frozenset({_K.STARTING, _K.RESTARTING}),
}

REQUEST_TRANSITIONS: Mapping[RequestState, frozenset[RequestState]] = {
    _R.REQUESTED: frozenset({_R.HELD, _R.ACCEPTED, _R.DONE, _R.REFUSED}),
    _R.HELD: frozenset({_R.REQUESTED, _R.DONE, _R.REFUSED}),
    _R.ACCEPTED: frozenset({_R.DONE, _R.HELD, _R.REQUESTED}),
    _R.DONE: frozenset(),
    _R.REFUSED: frozenset(),
}

QUERY_TRANSITIONS: Mapping[QueryState, frozenset[QueryState]] = {
    _Q.TO_PROCESS: frozenset({_Q.IN_PROGRESS, _Q.FAILED}),
    _Q.IN_PROGRESS: frozenset({_Q.DONE, _Q.FAILED}),
    _Q.DONE: frozenset({_Q.TO_PROCESS}),
    _Q.FAILED: frozenset({_Q.TO_PROCESS}),
}

END_STATES = frozenset(state for state, after in EXECUTION_TRANSITIONS.items() if not after)
REQUEST_END_STATES = frozenset(state for state, after in REQUEST_TRANSITIONS.items() if not after)

_TRANSITIONS: Mapping[type[StrEnum], Mapping[Any, frozenset[Any]]] = {
    ExecutionState: EXECUTION_TRANSITIONS,
    KernelState: KERNEL_TRANSITIONS,
    RequestState: REQUEST_TRANSITIONS,
    QueryState: QUERY_TRANSITIONS,
}

State = TypeVar("State", ExecutionState, KernelState, RequestState, QueryState)


def advance(state: State, to: State) -> State:
    """The state after a step.

    Raises:
        LocalError: the table does not have this step; nothing has changed.
    """
    if to not in _TRANSITIONS[type(state)][state]:
        raise LocalError(f"no step from {state.value} to {to.value}")
    return to


# --- records -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of an execution: an nbformat 4.5 output, with when it came.

    Attributes:
        output_type: ``stream`` | ``display_data`` | ``execute_result`` | ``error``.
        at: when its first byte arrived.
        name, text: of a stream; ``text`` with ``\\r`` and ``\\b`` applied.
        data, metadata, execution_count: of a display or a result. A value of ``data`` above the inline limit is
            ``{"blob": "sha256:…", "bytes": n, "preview": …}``.
        ename, evalue, traceback: of an error.
        display_id: ``transient.display_id``, where there was one.
        omitted_bytes: of a stream in the live document: how much of its text is left out there (UTF-8); null where
            nothing is, and in the history.
        omitted_segment: likewise, the index in the document's ``text`` before which that stood.
        omitted_index: likewise, how many code points of ``text`` stand before that. Only of records: the document has
            the segments.
    """

    output_type: str
    at: float
    name: str | None = None
    text: str | None = None
    data: Json | None = None
    metadata: Json | None = None
    execution_count: int | None = None
    ename: str | None = None
    evalue: str | None = None
    traceback: tuple[str, ...] | None = None
    display_id: str | None = None
    omitted_bytes: int | None = None
    omitted_segment: int | None = None
    omitted_index: int | None = None

    def to_nbformat(self) -> Json:
        """The output as a notebook stores it (``at`` and ``display_id`` are ours and stay out)."""
        match self.output_type:
            case "stream":
                return {"output_type": "stream", "name": self.name or "stdout", "text": self.text or ""}
            case "error":
                return {
                    "output_type": "error",
                    "ename": self.ename or "",
                    "evalue": self.evalue or "",
                    "traceback": list(self.traceback or ()),
                }
            case "execute_result":
                return {
                    "output_type": "execute_result",
                    "execution_count": self.execution_count,
                    "data": dict(self.data or {}),
                    "metadata": dict(self.metadata or {}),
                }
            case _:
                return {
                    "output_type": "display_data",
                    "data": dict(self.data or {}),
                    "metadata": dict(self.metadata or {}),
                }


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A row of ``executions``. The key ``id`` is the ``msg_id`` of its ``execute_request``.

    Attributes:
        seq: total order within the kernel, over all its generations, from 1.
        generation: how often the kernel had been restarted.
        cell: the frontend's id of the cell, opaque; null for consoles and nbclient.
        request: the row of ``requests`` it came from; null when it came by the kernel channel.
        code: as it was executed.
        submitted_by: of a row of ``requests`` the name of its link; else what the client says of itself:
            ``header.username`` of the request or, where that is none, what it was introduced as.
        client: ``header.session`` of the request, so that a frontend knows its own runs.
        error: ``{"ename": …, "evalue": …}`` | null.
        input: ``{"prompt": …, "password": bool, "since": …}`` while somebody is asked, else null.
        private: recorded without code and outputs, at the user's wish.
        metadata: a map in which each party may keep its own keys.
        omitted_code_bytes: in the live document: how much of the code's end is left out there; null where nothing
            is, and in the history.
        omitted_outputs: in the live document: how many outputs stood before index ``len(outputs) // 2`` of those that
            are there; null where none are left out, and in the history.
    """

    id: str
    seq: int = 0
    kernel: str = ""
    generation: int = 0
    cell: str | None = None
    notebook: str | None = None
    request: str | None = None
    code: str = ""
    execution_count: int | None = None
    submitted_by: str = ""
    client: str = ""
    queued_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    state: ExecutionState = ExecutionState.QUEUED
    error: Json | None = None
    input: Json | None = None
    private: bool = False
    metadata: Json = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    omitted_code_bytes: int | None = None
    omitted_outputs: int | None = None

    @property
    def output_count(self) -> int:
        """How many outputs it has, those that are left out here too."""
        return len(self.outputs) + (self.omitted_outputs or 0)

    def positions(self) -> range | list[int]:
        """Of each output that is here, which one of all it is, from 0."""
        count, left = len(self.outputs), self.omitted_outputs or 0
        if not left:
            return range(count)
        return [index if index < count // 2 else index + left for index in range(count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A row of ``kernels``. ``exit_code``: negative for a signal, null while it lives."""

    id: str
    name: str = ""
    display_name: str = ""
    language: str = ""
    state: KernelState = KernelState.STARTING
    generation: int = 0
    notebook: str | None = None
    host: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    last_activity_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comm:
    """A row of ``comms``.

    Attributes:
        opened_by: ``kernel`` | ``front``.
        execution: the execution that opened it; null where none did.
        state: for ``jupyter.widget`` the merged state; a binary buffer stands at its place as ``bytes``.
        messages: the last few messages of any other target: ``{"way": …, "at": …, "data": …}``.
    """

    id: str
    target: str = ""
    kernel: str = ""
    execution: str | None = None
    opened_by: str = "kernel"
    opened_at: float | None = None
    closed_at: float | None = None
    state: Json = field(default_factory=dict)
    messages: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A row of ``cells``: the notebook of a headless run, as it was given. ``index``: from 0."""

    id: str
    index: int
    cell_type: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A row of ``requests``, once the agent has taken it.

    Attributes:
        id: the key, made by the peer.
        action: ``execute`` | ``interrupt`` | ``restart`` | ``cancel`` | ``release`` | ``input`` | ``query`` |
            ``clear`` | ``annotate``.
        by: name of the peer, from its connection.
        columns: the action's own, checked, with defaults filled in (docs/requests.md lists them). What was typed for
            an ``input`` is not among them.
        digest: SHA-256 of action and columns as they came, so that the same row is known when it comes again.
        ordinal: order in which the agent took the rows, from 1.
        received_at: when.
        execution: what it became, or what it was joined to; null before.
        reason: why it was refused, held, or ended without a run.
    """

    id: str
    action: str
    by: str
    columns: Json = field(default_factory=dict)
    digest: str = ""
    ordinal: int = 0
    received_at: float = 0.0
    state: RequestState = RequestState.REQUESTED
    execution: str | None = None
    reason: str | None = None


ANSWER_AGE_S = 60.0
"""An answer that is older is not given to who asks the same again. Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A row of ``queries``: a question that was put to the kernel, and the answer.

    Attributes:
        id: hash of target and input.
        input: what was asked, any JSON value.
        result: what the kernel answered, any JSON value; null before and when it failed.
        error: why it failed; null otherwise.
        comm: the comm it went over.
        asked_at, answered_at: when the kernel was asked, and when it answered.
    """

    id: str
    target: str = ""
    input: Any = None
    state: QueryState = QueryState.TO_PROCESS
    result: Any = None
    error: str | None = None
    comm: str | None = None
    asked_by: str = ""
    asked_at: float | None = None
    answered_at: float | None = None

    def columns(self) -> Json:
        """All of them but the key."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "id"}


Record = Execution | Kernel | Comm | Cell | Output | Request | Query


def to_json(record: Record) -> Json:
    """A record as JSON-ready values, as the HTTP API and ``--json`` give it: columns as named, states as words,
    outputs as objects, ``bytes`` as ``{"base64": …}``."""
    value: Json = _plain(asdict(record))
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    return value.value if isinstance(value, StrEnum) else value


def execution_from_json(value: Mapping[str, Any]) -> Execution:
    """The inverse of :func:`to_json` for an execution; unknown columns are ignored (a later version has more)."""
    known = {name: value[name] for name in Execution.__dataclass_fields__ if name in value}
    known["state"] = ExecutionState(known.get("state", "queued"))
    known["outputs"] = tuple(output_from_json(output) for output in value.get("outputs", ()))
    return Execution(**known)


def output_from_json(value: Mapping[str, Any]) -> Output:
    """The inverse of :func:`to_json` for an output; unknown columns are ignored."""
    known = {name: value[name] for name in Output.__dataclass_fields__ if name in value}
    if known.get("traceback") is not None:
        known["traceback"] = tuple(known["traceback"])
    return Output(**known)


ONLY_IN_DOCUMENT = frozenset(
    {"omitted_code_bytes", "omitted_outputs", "omitted_bytes", "omitted_segment", "omitted_index"}
)
"""Columns that no history has."""

# --- changes: what the mirror says, what document and store do -----------------------------------------------


@dataclass(frozen=True, slots=True)
class PutMeta:
    """Set columns of the one row ``meta``."""

    columns: Json


@dataclass(frozen=True, slots=True)
class PutKernel:
    """Insert the kernel's row, or set some of its columns (names as in :class:`Kernel`)."""

    kernel: str
    columns: Json


@dataclass(frozen=True, slots=True)
class PutExecution:
    """Insert an execution's row, or set some of its columns (names as in :class:`Execution`, without
    ``outputs``). A new row gives all columns that are not at their default. The keys of ``metadata`` are set one
    by one: those that are not named stay."""

    execution: str
    columns: Json


@dataclass(frozen=True, slots=True)
class AddOutput:
    """Append an output. ``position`` is its index, from 0. A stream comes with ``text=""``: its text follows
    as :class:`WriteText`."""

    execution: str
    position: int
    output: Output


@dataclass(frozen=True, slots=True)
class WriteText:
    """Write into the text of a stream output, which is a list of segments.

    ``segment``: its index; one past the last makes a new segment. All segments behind it are dropped.
    ``keep``: how many code points of that segment stay; ``None``: all. ``text`` is appended to what stays.
    ``at``: when its last byte arrived, POSIX seconds; null where that is not known. Two writes of the same text are
    equal whenever they came.
    """

    execution: str
    position: int
    segment: int
    keep: int | None
    text: str
    at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SetOutput:
    """Replace an output (never a stream), e.g. by ``update_display_data``."""

    execution: str
    position: int
    output: Output


@dataclass(frozen=True, slots=True)
class ClearOutputs:
    """Take away all outputs of an execution."""

    execution: str


@dataclass(frozen=True, slots=True)
class PutComm:
    """Insert a comm's row, or set some of its columns (names as in :class:`Comm`, without ``state`` and
    ``messages``)."""

    comm: str
    columns: Json


@dataclass(frozen=True, slots=True)
class MergeCommState:
    """Set keys of a comm's state; each key's value is replaced whole."""

    comm: str
    state: Json


@dataclass(frozen=True, slots=True)
class AddCommMessage:
    """Append to a comm's bounded log; the oldest go."""

    comm: str
    message: Json


@dataclass(frozen=True, slots=True)
class PutBlob:
    """Keep bytes under their digest (``sha256:`` and 64 hex digits). The document has only the reference."""

    digest: str
    data: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class PutCells:
    """The cells of the notebook that a headless run works through, in order; replaces earlier ones."""

    notebook: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class PutQuery:
    """Insert a query's row, or set some of its columns (names as in :class:`Query`). Only in the document."""

    query: str
    columns: Json


@dataclass(frozen=True, slots=True)
class DropQuery:
    """Take a query's row away."""

    query: str


Change = (
    PutMeta
    | PutKernel
    | PutExecution
    | AddOutput
    | WriteText
    | SetOutput
    | ClearOutputs
    | PutComm
    | MergeCommState
    | AddCommMessage
    | PutBlob
    | PutCells
    | PutQuery
    | DropQuery
)

SEGMENT_BYTES = 4096
"""A segment that has reached this many UTF-8 bytes is not appended to any more."""

SEGMENT_MAX_BYTES = 16384
"""One piece of text longer than this is written as several segments."""

COMM_MESSAGES_KEPT = 20
"""How many messages of a comm's log stay in its row."""


def coalesce(changes: list[Change]) -> list[Change]:
    """The same changes in fewer pieces: text written to the same segment is joined, columns of the same row set one
    after another are merged, and of an output that is replaced, or a key of a comm's state that is set, more than once
    only the last is left (without the blobs that only the others named). Applying either list gives the same rows."""
    out: list[Change] = []
    for change in _last_only(changes):
        if out:
            match out[-1], change:
                case WriteText() as a, WriteText() as b if _is_same_segment(a, b):
                    if (joined := _join(a, b)) is not None:
                        out[-1] = joined
                        continue
                case PutExecution(a_id, a_cols), PutExecution(b_id, b_cols) if a_id == b_id:
                    columns = {**a_cols, **b_cols}
                    if a_cols.get("metadata") and b_cols.get("metadata"):
                        columns["metadata"] = {**a_cols["metadata"], **b_cols["metadata"]}
                    out[-1] = PutExecution(a_id, columns)
                    continue
                case PutKernel(a_id, a_cols), PutKernel(b_id, b_cols) if a_id == b_id:
                    out[-1] = PutKernel(a_id, {**a_cols, **b_cols})
                    continue
                case MergeCommState(a_id, a_cols), MergeCommState(b_id, b_cols) if a_id == b_id:
                    out[-1] = MergeCommState(a_id, {**a_cols, **b_cols})
                    continue
                case _:
                    pass
        out.append(change)
    return out


def _is_same_segment(a: WriteText, b: WriteText) -> bool:
    return (a.execution, a.position, a.segment) == (b.execution, b.position, b.segment)


def _join(a: WriteText, b: WriteText) -> WriteText | None:
    """Two writes to one segment as one; null where that cannot be said, or would be too long."""
    at = a.at if b.at is None else b.at
    if b.keep is None:
        if len(a.text) + len(b.text) > SEGMENT_MAX_BYTES // 4:
            return None
        return replace(a, text=a.text + b.text, at=at)
    if a.keep is None:
        return None  # what stood before is not known here, so neither is what of it stays
    if b.keep < a.keep:
        return b
    return replace(a, text=a.text[: b.keep - a.keep] + b.text, at=at)


def _last_only(changes: list[Change]) -> list[Change]:
    """Without outputs that are replaced again, and without keys of comms that are set again."""
    shown: set[tuple[str, int]] = set()
    keys: dict[str, set[str]] = {}
    kept: list[Change] = []
    dropped: set[str] = set()
    for change in reversed(changes):
        match change:
            case SetOutput(execution, position, output):
                if (execution, position) in shown:
                    dropped |= _digests(output.data)
                    continue
                shown.add((execution, position))
            case MergeCommState(comm, state):
                later = keys.setdefault(comm, set())
                if not later.isdisjoint(state):
                    dropped |= _digests([value for key, value in state.items() if key in later])
                    state = {key: value for key, value in state.items() if key not in later}
                    if not state:
                        continue
                    change = MergeCommState(comm, state)
                later.update(state)
            case _:
                pass
        kept.append(change)
    kept.reverse()
    if dropped:
        for change in kept:
            match change:
                case AddOutput(_, _, output) | SetOutput(_, _, output):
                    dropped -= _digests(output.data)
                case MergeCommState(_, state):
                    dropped -= _digests(state)
                case _:
                    pass
        kept = [change for change in kept if not (isinstance(change, PutBlob) and change.digest in dropped)]
    return kept


def _digests(value: Any) -> set[str]:
    """The blobs that a value names."""
    found: set[str] = set()
    match value:
        case {"blob": str(digest)}:
            found.add(digest)
        case dict():
            for item in value.values():
                found |= _digests(item)
        case list() | tuple():
            for item in value:
                found |= _digests(item)
        case _:
            pass
    return found
