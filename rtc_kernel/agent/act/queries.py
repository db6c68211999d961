"""Which questions are put to the kernel, and what has it answered?

Pure: questions, comm messages and the time in, commands out. State: each question is in one of three places, as in
the first design's *toProcess / inProgress / results*: ``waiting`` for a free place, ``open`` over a comm of its own,
``ended`` with its answer. What has ended is the cache, bounded in count, bytes and age, and cleared by a restart.
It knows nothing of requests but their ids, and it never runs code: the kernel has a comm target or it has none.

A comm is one question. ``comm_open`` carries ``{"input": input}``, the first ``comm_msg`` is the answer, and the comm
is closed: ``{"result": value}`` is that value, ``{"error": text, …}`` a failure, anything else is itself the answer, so
that a target which knows nothing of us can be asked too. A ``comm_close`` in its place is what a kernel says when it
has no such target. ``rtc_kernel.answering`` is the kernel's side.

Source: messaging spec, "Custom messages" (a kernel closes a comm whose target it does not know).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal, assert_never

from ...errors import LocalError
from ...link import QUERY_COMM_PREFIX
from ...tables import ANSWER_AGE_S, DropQuery, Json, PutQuery, Query, QueryState, advance
from ..mirror.values import clean, clean_text, dump, size_of

ERROR_CHARS = 4096
"""How much is kept of what the kernel says went wrong."""

READ_S = 5.0
"""Whoever was told of an answer has this long to read it, however short answers are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """The bounds of questions and answers.

    Attributes:
        count, bytes: so many answers are kept, and as many questions may be under way; ``bytes`` counts target, input
            and answer as JSON text.
        age_s: an older answer is not given again.
        timeout_s: from the asking on; waiting for a free place counts.
        in_progress: how many the kernel is asked at a time.
        result_bytes: a larger answer, as JSON text, is a failure.
    """

    count: int = 100
    bytes: int = 4 << 20
    age_s: float = ANSWER_AGE_S
    timeout_s: float = 60.0
    in_progress: int = 8
    result_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenComm:
    """Send the kernel a ``comm_open``."""

    comm: str
    target: str
    data: Json


@dataclass(frozen=True, slots=True)
class CloseComm:
    """Send the kernel a ``comm_close``."""

    comm: str


@dataclass(frozen=True, slots=True)
class Answered:
    """These requests have ended. ``query``: the row that has the answer; ``reason``: why there is none, else null."""

    request_ids: tuple[str, ...]
    query: str
    ok: bool
    reason: str | None


Command = PutQuery | DropQuery | OpenComm | CloseComm | Answered


@dataclass(slots=True)
class _Question:
    """``at``: when it was asked and, once it has ended, when its answer was last given. ``comm``: what it goes over,
    or went."""

    row: Query
    requests: list[str]
    comm: str
    at: float
    size_bytes: int

    def step(self, to: QueryState, **columns: Any) -> PutQuery:
        self.row = replace(self.row, state=advance(self.row.state, to), **columns)
        return PutQuery(self.row.id, {"state": to, **columns})


class Queries:
    """The questions to one kernel and its answers."""

    def __init__(self, limits: QueryLimits = QueryLimits()) -> None:
        self._limits = limits
        self._waiting: dict[str, _Question] = {}  # by id of the query, in the order in which they were asked
        self._open: dict[str, _Question] = {}  # by comm
        self._ended: dict[str, _Question] = {}  # by id of the query; whose answer was given last is last

    def __repr__(self) -> str:
        return f"<Queries {len(self._waiting)} waiting, {len(self._open)} open, {len(self._ended)} ended>"

    @property
    def due(self) -> float | None:
        """When :meth:`receive_time` has something to do; null: never."""
        times = [self._times_out_at(question) for question in self._under_way()]
        times += [self._leaves_at(question) for question in self._ended.values()]
        return min(times, default=None)

    def ask(
        self, request_id: str, target: str, value: Any, *, by: str, fresh: bool, now: float, comm: str
    ) -> list[Command]:
        """Put a question, unless its answer is known or on its way.

        Args:
            request_id: who is to be told, by :class:`Answered`.
            value: the input, any JSON value.
            by: name of the peer.
            fresh: a known answer will not do. One that is on its way will: the kernel answers in order, so it is
                later than all that the peer can have seen in the document.
            now: POSIX seconds.
            comm: a new id that begins with ``QUERY_COMM_PREFIX``, for the case that the kernel has to be asked.

        Raises:
            LocalError: ``comm`` is no such id, or in use.
        """
        if not comm.startswith(QUERY_COMM_PREFIX) or any(comm == question.comm for question in self._under_way()):
            raise LocalError(f"{comm!r} is no id for a new comm")
        target, value = clean_text(target), clean(value)
        query, size = query_id(target, value), size_of(dump([target, value]))
        known = self._ended.get(query)
        if known is not None and not fresh and self._is_current(known, now):
            known.at = now
            self._ended[query] = self._ended.pop(query)
            return [Answered((request_id,), query, True, None)]
        for question in self._under_way():
            if question.row.id == query:
                question.requests.append(request_id)
                return []
        if refusal := self._refusal(size):
            return [Answered((request_id,), query, False, refusal)]
        if known is None:
            row = Query(id=query, target=target, input=value, asked_by=by)
            put = PutQuery(query, {"target": target, "input": value, "state": row.state, "asked_by": by})
        else:
            none = dict.fromkeys(("result", "error", "comm", "asked_at", "answered_at"))
            put = known.step(QueryState.TO_PROCESS, asked_by=by, **none)
            row = known.row
            del self._ended[query]
        self._waiting[query] = _Question(row, [request_id], comm, now, size)
        return [put, *self._open_next(now)]

    def receive_comm(self, comm: str, kind: Literal["comm_msg", "comm_close"], data: Any, now: float) -> list[Command]:
        """What the kernel said over a comm; nothing follows where the comm is not one of ours that waits.

        Args:
            data: ``content.data`` of the message, whatever it is.
        """
        question = self._open.pop(comm, None)
        if question is None:
            return []
        commands: list[Command]
        match kind:
            case "comm_msg":
                commands = [*self._receive_answer(question, data, now), CloseComm(comm)]
            case "comm_close":
                target = question.row.target
                commands = self._fail(question, f"the kernel has no target {target}, or its handler failed", now)
            case _:
                assert_never(kind)
        return [*commands, *self._open_next(now), *self._evict(now)]

    def receive_time(self, now: float) -> list[Command]:
        """Give up what took too long, and let old answers go."""
        commands: list[Command] = []
        for question in self._under_way():
            if now >= self._times_out_at(question):
                self._waiting.pop(question.row.id, None)
                is_open = self._open.pop(question.comm, None) is not None
                limit = f"{self._limits.timeout_s:g} s"
                reason = f"the kernel did not answer within {limit}; a cell that runs may block its queue"
                commands += self._fail(question, reason, now)
                if is_open:
                    commands.append(CloseComm(question.comm))
        return [*commands, *self._open_next(now), *self._evict(now)]

    def receive_restart(self, now: float) -> list[Command]:
        """The kernel began anew: what it had answered is no longer true, and what it was asked is forgotten."""
        rows = [question.row.id for question in [*self._under_way(), *self._ended.values()]]
        commands: list[Command] = [DropQuery(query) for query in rows]
        for question in self._under_way():
            reason = "the kernel was restarted"
            commands.append(Answered(tuple(question.requests), question.row.id, False, reason))
        self._waiting.clear()
        self._open.clear()
        self._ended.clear()
        return commands

    # --- what is under way

    def _under_way(self) -> list[_Question]:
        return [*self._open.values(), *self._waiting.values()]

    def _times_out_at(self, question: _Question) -> float:
        return question.at + self._limits.timeout_s

    def _refusal(self, size_bytes: int) -> str | None:
        under_way = self._under_way()
        if len(under_way) >= self._limits.count:
            return f"{len(under_way)} questions to the kernel are under way, and no more may be"
        if sum(question.size_bytes for question in under_way) + size_bytes > self._limits.bytes:
            return f"questions of {self._limits.bytes} bytes may be under way, and with this one they would be more"
        return None

    def _open_next(self, now: float) -> Iterator[Command]:
        while self._waiting and len(self._open) < self._limits.in_progress:
            question = self._waiting.pop(next(iter(self._waiting)))
            self._open[question.comm] = question
            yield question.step(QueryState.IN_PROGRESS, comm=question.comm, asked_at=now)
            yield OpenComm(question.comm, question.row.target, {"input": question.row.input})

    # --- what has ended

    def _receive_answer(self, question: _Question, data: Any, now: float) -> list[Command]:
        match data:
            case {"error": error} if error is not None:
                text = clean_text(error) if isinstance(error, str) else dump(clean(error))
                return self._fail(question, text[:ERROR_CHARS], now)
            case {"result": value} if len(data) == 1:
                result = clean(value)
            case _:
                result = clean(data)
        size = size_of(dump(result))
        if size > self._limits.result_bytes:
            reason = f"the answer has {size} bytes, and {self._limits.result_bytes} are the limit"
            return self._fail(question, reason, now)
        question.size_bytes += size
        return self._end(question, question.step(QueryState.DONE, result=result, answered_at=now), now)

    def _fail(self, question: _Question, reason: str, now: float) -> list[Command]:
        return self._end(question, question.step(QueryState.FAILED, error=reason, answered_at=now), now)

    def _end(self, question: _Question, put: PutQuery, now: float) -> list[Command]:
        requests, question.requests = tuple(question.requests), []
        question.at = now
        self._ended[question.row.id] = question
        row = question.row
        return [put, Answered(requests, row.id, row.error is None, row.error)]

    def _is_current(self, question: _Question, now: float) -> bool:
        row = question.row
        return row.state is QueryState.DONE and now <= (row.answered_at or 0.0) + self._limits.age_s

    def _leaves_at(self, question: _Question) -> float:
        return question.at + max(self._limits.age_s, READ_S)

    def _evict(self, now: float) -> Iterator[Command]:
        size = sum(question.size_bytes for question in self._ended.values())
        for query, question in list(self._ended.items()):
            is_last = len(self._ended) == 1  # somebody was told of it just now
            too_many = len(self._ended) > self._limits.count or size > self._limits.bytes
            if now >= self._leaves_at(question) or (too_many and not is_last):
                size -= question.size_bytes
                del self._ended[query]
                yield DropQuery(query)


def query_id(target: str, value: Any) -> str:
    """The key of a question's row: 32 hex digits of the target and the input, in whatever order its keys are."""
    text = json.dumps([clean_text(target), clean(value)], ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()[:32]
