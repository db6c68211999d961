"""How does the history come into one SQLite file without the loop ever waiting for the disk?

One thread writes, everybody reads. :meth:`Store.write` only appends to a queue; the writer commits many writes
together: at once after a quiet moment, else after at most ``delay_s``. Each transaction carries the feed's
position and the mirror's state with the rows, so that the file is at all times the exact result of the records
up to one ``seq``.

When the disk is full or locked, the transaction is rolled back as a whole, every write in it hears of it, and the
writes stay in the queue, in order, to be tried again. The queue is bounded: once it is full, the store takes no
more records until it is opened again (``Health.replay_after``), because a history with a hole in it would look
like a whole one; the relay's spool has them.

Requests (:meth:`Store.put_requests`) go through the same queue, but a transaction with requests in it is synced to the
disk: what is acknowledged to a peer outlasts a power cut. Of the rest a power cut may take the last moments.

What a history has too much of goes in small steps (:meth:`Store.retain`), which the writer takes when nothing waits,
and once in ``STEP_EVERY_S`` when something always does.

In a file, reads go over connections of their own beside the writer (WAL lets them; in DELETE mode, on network
file systems, a reader and a commit wait for each other for up to ``files.BUSY_S``). In memory there is one connection
and one lock: SQLite's shared cache locks whole tables and answers SQLITE_LOCKED at once, whatever the timeout.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...errors import LocalError, SetupError
from ...tables import REQUEST_END_STATES, Change, Json, Request
from . import edit, records, rows, upkeep
from .files import Damaged, UnavailableError, connect, make_file, move_aside, open_beside, prepare
from .lookup import Lookup
from .retention import Limits
from .upkeep import Pruned

_log = logging.getLogger(__name__)

DELAY_S = 0.02
"""Time that a write may wait so that many are committed at once (the setting ``store_delay_s``)."""

BACKLOG_BYTES = 256 << 20
"""Bytes that may wait for the disk; about twice the relay's spool."""

BATCH_BYTES = 16 << 20
"""Bytes in one transaction, about; one write is never split."""

RETRY_S = (0.2, 5.0)
"""First and longest pause before a failed transaction is tried again; each is twice the one before."""

DISPLAYS = 10_000
"""Displays that a resumed mirror is told of; an update to an older one is not seen."""

REQUESTS_KEPT = 100_000
"""Ended requests whose ids are known, so that none runs twice."""

PRUNE_EVERY = 1000
"""Requests between two looks for those that are not kept any more: a look costs milliseconds."""

CHECKPOINT_BYTES = 4 << 20
"""When so much was written, it is moved from the write-ahead log into the tables once nothing was for a moment."""

CHECKPOINT_QUIET_S = 1.0
"""That moment. Under load that leaves none, SQLite does it (``files.WAL_LOAD_BYTES``)."""

STEP_EVERY_S = 1.0
"""Under load that leaves no pause, a step of retention is taken in so many seconds: the file must not grow for ever."""

_SYNC = (
    ("PRAGMA synchronous = EXTRA", "PRAGMA synchronous = NORMAL"),
    ("PRAGMA fullfsync = ON", "PRAGMA fullfsync = OFF"),
)
"""Set for a commit that outlasts a power cut, and set back. EXTRA is FULL that, without WAL, syncs the directory too:
else the journal might come back and undo the commit (https://sqlite.org/pragma.html#pragma_synchronous). On macOS
a plain fsync leaves the data in the drive's cache."""

_WIPE = ("PRAGMA secure_delete = ON", "PRAGMA secure_delete = OFF")
"""What a request no longer says is overwritten where it stood. A copy in the WAL stays until that is overwritten, and
for :meth:`Store.clear` and :meth:`Store.close` at the latest."""

Done = Callable[[Exception | None], None]


@dataclass(frozen=True, slots=True)
class Resume:
    """From where the feed goes on.

    Attributes:
        generation: of the kernel's process.
        next_seq: of the next execution.
        feed_seq: the last record of the relay that is stored; 0 where there is none.
        mirror_state: as it was written with that record; None for a relay that is new here.
        displays: ``(display_id, execution, position)`` of this generation, as they came.
        port: the side socket's port of the last time; None the first time.
        resumed: the same relay as before: only the agent was away.
    """

    generation: int
    next_seq: int
    feed_seq: int
    mirror_state: Json | None
    displays: tuple[tuple[str, str, int], ...]
    port: int | None
    resumed: bool


@dataclass(frozen=True, slots=True)
class Health:
    """``status``: ``ok`` | ``degraded``; ``reason``: one sentence. ``replay_after``: the queue was full, and records
    after this ``seq`` are not taken until the store is opened again."""

    status: str = "ok"
    reason: str = ""
    replay_after: int | None = None


class TokenRow(Protocol):
    """The columns of a token, whoever's type it is (``agent.serve.access.Token`` fits)."""

    @property
    def name(self) -> str: ...  # noqa: D102 - named by its column
    @property
    def role(self) -> str: ...  # noqa: D102
    @property
    def hash(self) -> str: ...  # noqa: D102
    @property
    def created_at(self) -> float: ...  # noqa: D102
    @property
    def expires_at(self) -> float | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token as the store keeps it: ``hash`` only, never the token."""

    name: str
    role: str
    hash: str
    created_at: float
    expires_at: float | None = None


class _SupersededError(Exception):
    """The file is another agent's now."""


@dataclass(slots=True)
class _Write:
    """Something that waits to be committed: changes of one feed position, an edit of ours, or both.

    ``requests``: the edit is of requests, so its transaction wipes, and is synced unless they come with a feed.
    ``refused``: why the edit could not be in the transaction of its neighbours.
    """

    changes: Sequence[Change] = ()
    feed: tuple[str, int, Json | None] | None = None
    edit: edit.Edit | None = None
    requests: bool = False
    done: Done | None = None
    size: int = 0
    told: bool = False
    refused: LocalError | None = None


@dataclass(slots=True)
class _Job:
    """Something to do alone on the writer's connection; the answer goes to the future."""

    work: Callable[[sqlite3.Connection], Any]
    future: Future[Any] = field(default_factory=Future)


@dataclass(slots=True)
class _Pass:
    """A pass of retention that is under way."""

    limits: Limits
    steps: Generator[None, None, Pruned]
    future: Future[Pruned] = field(default_factory=Future)


class Store(Lookup):
    """The history of one kernel. Open it with :meth:`open`, end it with :meth:`close`.

    The writer's thread owns ``_connection``, ``_editor``, ``_retry_s``, ``_committed_at`` and ``_unmoved_bytes``; the
    rest is shared under ``_wake``'s lock.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path | None,
        *,
        delay_s: float,
        backlog_bytes: int,
        sync_requests: bool,
        execution_bytes: int,
        note: str,
        takes_requests: bool,
    ) -> None:
        self.path = path
        self._delay_s = delay_s
        self._backlog_bytes = backlog_bytes
        self._sync = _SYNC if sync_requests else ()
        self._note = note
        self._takes_requests = takes_requests
        self._connection = connection
        self._editor = edit.Editor(connection, execution_bytes=execution_bytes)
        self._passes: deque[_Pass] = deque()
        self._written_bytes = 0
        self._truncated: dict[str, Json | None] = {}
        self._stepped_at = 0.0
        self._memory_lock = threading.RLock()
        self._readers: deque[sqlite3.Connection] = deque()
        self._wake = threading.Condition()
        self._queue: deque[_Write | _Job] = deque()
        self._waiting_bytes = 0
        self._jobs = 0
        self._idle = False
        self._closing = False
        self._tried_last = False
        self._error: Exception | None = None
        self._refused: str = ""
        self._last_feed_seq = 0
        self._relay_id: str | None = None
        self._full_after: int | None = None
        self._retry_s = 0.0
        self._committed_at = 0.0
        self._unmoved_bytes = 0  # in the write-ahead log, about
        self._tokens = {row[0]: StoredToken(*row) for row in connection.execute("SELECT * FROM tokens")}
        self._facts = {name: rows.load(value) for name, value in connection.execute("SELECT * FROM facts")}
        self._thread = threading.Thread(target=self._run, name="rtc-store", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        state = "closing" if self._closing else self.health.status
        return f"<Store {self.path or 'in memory'} {state}, {len(self._queue)} waiting, {self._waiting_bytes} bytes>"

    @classmethod
    def open(
        cls,
        path: Path | None,
        *,
        delay_s: float = DELAY_S,
        backlog_bytes: int = BACKLOG_BYTES,
        sync_requests: bool = True,
        execution_bytes: int = 0,
        journal_mode: str = "auto",
        takes_requests: bool = True,
    ) -> Store:
        """Open or begin a history.

        Args:
            path: the file; missing directories are made (mode 0700), the file has mode 0600. A damaged file is
                renamed to ``<name>.damaged-<time>`` and a new one begun (``health`` says so). None: in memory.
            delay_s: seconds that a write may wait.
            backlog_bytes: bytes that may wait for the disk.
            sync_requests: whether stored requests outlast a power cut, and not only the death of every process.
            execution_bytes: bytes that are stored of one execution; text beyond is left out, and the row's
                ``metadata`` says how much (``rtc_truncated``). 0: no limit.
            journal_mode: ``wal`` | ``delete`` | ``auto``: by the file system.
            takes_requests: False: none is ever stored, so none is acknowledged.

        Raises:
            UnavailableError: the disk is full or fails.
            SetupError: the file cannot be made, is of a newer version, or is something else's.
        """
        note = ""
        if path is None:
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            prepare(connection, None)
        else:
            make_file(path)
            try:
                connection = connect(path, journal_mode)
            except Damaged as exc:
                moved = move_aside(path)
                note = f"the history was damaged ({exc}) and is now {moved.name}; a new one was begun"
                _log.warning("%s: %s", path, note)
                make_file(path)
                try:
                    connection = connect(path, journal_mode)
                except Damaged as again:
                    raise SetupError(f"{path} cannot be written ({again})", "choose another history_dir") from again
        return cls(
            connection,
            path,
            delay_s=delay_s,
            backlog_bytes=backlog_bytes,
            sync_requests=sync_requests,
            execution_bytes=execution_bytes,
            note=note,
            takes_requests=takes_requests,
        )

    # --- in -------------------------------------------------------------------------------------------------

    def begin(self, *, relay_id: str, kernel: Json, now: float, lineage: str = "") -> Resume:
        """Say which relay's records come now; waits for the disk (at start only).

        A relay that the file knows: the agent was away, nothing else changed. A relay that it does not know:
        the kernel was started anew, so open executions are lost, open comms closed, and a generation begins.

        Args:
            kernel: columns of the kernel's row; ``id`` is required.
            lineage: a relay whose id begins so was at the same kernel, which lived on meanwhile (it is attached to):
                the mirror's state goes on, with records of other numbers.

        Raises:
            UnavailableError: the file cannot be written.
        """
        try:
            resume: Resume = self._do(partial(self._begin, relay_id, lineage, dict(kernel), now)).result()
        except sqlite3.Error as exc:
            raise UnavailableError(f"{self.path} cannot be written ({exc})", "free or repair the disk") from exc
        with self._wake:
            self._last_feed_seq = resume.feed_seq
            self._relay_id = relay_id
        return resume

    def write(
        self,
        changes: Sequence[Change],
        *,
        relay_id: str,
        seq: int,
        mirror_state: Json | None,
        requests: Sequence[Request] = (),
        now: float = 0.0,
        done: Done | None = None,
    ) -> None:
        """Store the changes that came of the relay's records up to ``seq``; never waits.

        Args:
            changes: in order; they and ``mirror_state`` belong to the store from here on.
            mirror_state: the mirror's state after ``seq``; None: the same as in the write before.
            requests: what has ended with these changes, at ``now``: there after a crash if they are, and else not.
            done: called on the writer's thread: with None when the changes are stored; with an error when that
                failed, once, and then with None when it went well after all. When the queue is full or the store
                closed it is called at once, with an error, and the changes are not taken.
        """
        size = 256 + sum(map(edit.size_of, changes)) + sum(map(edit.size_of_request, requests))
        put = partial(_put_requests, requests, now) if requests else None
        feed = (relay_id, seq, mirror_state)
        write = _Write(changes, feed=feed, edit=put, requests=bool(requests), done=done, size=size)
        with self._wake:
            refusal = self._refusal(size, of_feed=True)
            if refusal is None:
                self._last_feed_seq = seq
                self._put(write)
        if refusal is not None:
            _tell(write, refusal)

    def put_requests(self, requests: Sequence[Request], *, now: float, done: Done | None = None) -> None:
        """Keep requests, each in the place of one of the same id; all of one call or none; never waits.

        What was asked for (``columns``) goes when a request has ended.

        Args:
            requests: in order with everything else that the store is given; they belong to it from here on.
            now: when those that have ended did so.
            done: called as that of :meth:`write`; None says that the requests outlast a power cut
                (``sync_requests``). A ``LocalError`` or ``SetupError`` is the last word: they are not taken (no
                column can hold them, the queue is full, the store is closed). After any other they wait on.
        """
        size = 256 + sum(map(edit.size_of_request, requests))
        change = partial(_put_requests, requests, now)
        write = _Write(edit=change, requests=True, done=done, size=size)
        if not self._takes_requests:
            _tell(write, sqlite3.OperationalError("there is no file to keep them in"))
            return
        with self._wake:
            refusal = self._refusal(size, of_feed=False)
            if refusal is None:
                self._put(write)
        if refusal is not None:
            _tell(write, refusal)

    def put_token(self, token: TokenRow) -> None:
        """Keep a token, in the place of one of the same name."""
        values = (token.name, str(token.role), token.hash, token.created_at, token.expires_at)
        self._tokens[token.name] = StoredToken(*values)
        self._put_edit(lambda connection: edit.put_token(connection, values))

    def drop_token(self, name: str) -> bool:
        """Forget a token. Returns whether there was one."""
        self._put_edit(lambda connection: edit.drop_token(connection, name))
        return self._tokens.pop(name, None) is not None

    def put_tokens(self, tokens: Iterable[TokenRow]) -> None:
        """Keep these tokens and no other."""
        new = {token.name: token for token in tokens}
        for name in self._tokens.keys() - new.keys():
            self.drop_token(name)
        for token in new.values():
            self.put_token(token)

    def put_fact(self, name: str, value: Any) -> None:
        """Keep a JSON value of the agent's own from one start to the next, e.g. ``port``."""
        self._facts[name] = value
        self._put_edit(lambda connection: edit.put_fact(connection, name, value))

    def clear(self, before: float | None = None) -> Future[int]:
        """Delete what is finished, so that it cannot be found in the file either.

        Args:
            before: only what finished earlier; None: all that is finished.

        Returns:
            A future of the number of executions that went; it fails where the disk does.
        """
        return self._do(partial(_clear, before))

    def retain(self, limits: Limits, now: float) -> Future[Pruned]:
        """Bring the history within its limits, step by step, when nothing waits; never waits itself.

        Rows that leave here stay in the live document; what is said of them later is passed over.

        Args:
            now: POSIX seconds, from which age counts.

        Returns:
            A future of what went; that of a pass with the same limits, if one is under way. It fails with a SetupError
            while the history cannot be written: what is full is not made fuller, and the next pass does it.
        """
        steps = upkeep.prune(
            self._connection, limits, now=now, is_alive=True, editor=self._editor, clock=time.monotonic
        )
        made = _Pass(limits, steps)
        made.future.set_running_or_notify_cancel()  # whoever waits may go; the pass is taken all the same
        with self._wake:
            for known in self._passes:
                if known.limits == limits:
                    return known.future
            if self._closing:
                made.future.set_exception(LocalError("the store is closed"))
            else:
                self._stepped_at = time.monotonic()
                self._passes.append(made)
                self._wake.notify()
        return made.future

    def flush(self) -> None:
        """Wait until all that was given is stored.

        Raises:
            sqlite3.Error: it cannot be stored now; it stays in the queue.
        """
        self._do(lambda connection: None).result()

    def close(self) -> None:
        """Store what waits (one try), end the thread, close the file. Twice is once."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        while self._readers:
            self._readers.pop().close()

    # --- out ------------------------------------------------------------------------------------------------

    @property
    def health(self) -> Health:
        """Whether all is stored; else one sentence."""
        if self._full_after is not None:
            reason = (
                f"more waits for the history than may ({_words(self._error)}): nothing after record"
                f" {self._full_after} is stored until the agent starts again"
            )
            return Health("degraded", reason, self._full_after)
        if self._error is not None:
            count = len(self._queue)
            return Health("degraded", f"the history cannot be written ({_words(self._error)}); {count} writes wait")
        if self._refused or self._note:
            return Health("degraded", self._refused or self._note)
        return Health()

    @property
    def written_bytes(self) -> int:
        """About how much was stored since the store was opened."""
        return self._written_bytes

    def take_truncated(self) -> dict[str, Json | None]:
        """What the live document is to say of executions whose text is left out (``rtc_truncated``): news since the
        last call. The history has the exact figure."""
        with self._wake:
            taken, self._truncated = self._truncated, {}
        return taken

    @property
    def tokens(self) -> tuple[StoredToken, ...]:
        """The tokens, in the order in which they were put."""
        return tuple(self._tokens.values())

    def fact(self, name: str, default: Any = None) -> Any:
        """A value that :meth:`put_fact` kept."""
        return self._facts.get(name, default)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self.path is None:
            with self._memory_lock:
                yield self._connection
            return
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = open_beside(self.path)
            connection.execute("PRAGMA query_only = ON")
        try:
            connection.execute("BEGIN")
            yield connection
        except BaseException as exc:
            connection.close()
            # the others than sqlite3's: a value that we did not write
            if isinstance(exc, sqlite3.Error | ValueError | TypeError | LookupError):
                raise SetupError(f"the history {self.path} cannot be read ({exc})", "free or repair the disk") from exc
            raise
        connection.execute("COMMIT")
        if self._closing or len(self._readers) >= 4:
            connection.close()
        else:
            self._readers.append(connection)

    # --- the queue ------------------------------------------------------------------------------------------

    def _refusal(self, size: int, *, of_feed: bool) -> Exception | None:
        if self._closing:
            return LocalError("the store is closed")
        is_full = bool(self._queue) and self._waiting_bytes + size > self._backlog_bytes
        if is_full and of_feed and self._full_after is None:
            self._full_after = self._last_feed_seq
            _log.error("the store's queue is full; records after %d are not taken", self._full_after)
        if self._full_after is not None:
            return SetupError(f"the history is not written after record {self._full_after}", "restart the agent")
        return SetupError("more waits for the history than may", "free or repair the disk") if is_full else None

    def _put(self, item: _Write | _Job) -> None:
        self._queue.append(item)
        if isinstance(item, _Job):
            self._jobs += 1
        else:
            self._waiting_bytes += item.size
        if self._idle or self._jobs:  # a writer that gathers is not to be woken by each write
            self._wake.notify()

    def _put_edit(self, change: edit.Edit) -> None:
        with self._wake:
            if not self._closing:
                self._put(_Write(edit=change, size=256))

    def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Future[Any]:
        job = _Job(work)
        with self._wake:
            if self._closing:
                job.future.set_exception(LocalError("the store is closed"))
            else:
                self._put(job)
        return job.future

    # --- the writer's thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch = self._take()
            if batch is None:
                if self._passes:
                    self._step(self._passes[0])
                else:
                    self._move()
            elif not batch:
                break
            elif isinstance(batch[0], _Job):
                self._run_job(batch[0])
            else:
                self._commit([item for item in batch if isinstance(item, _Write)])
        while self._passes:
            self._end_pass(LocalError("the store is closed"))
        with self._memory_lock, contextlib.suppress(sqlite3.Error):
            if self.path is not None:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def _take(self) -> list[_Write | _Job] | None:
        """The next transaction: a job, or the writes before the next job. Empty: the end. None: something of our own,
        a step of retention or a checkpoint."""
        with self._wake:
            self._idle = True
            while not self._queue and not self._closing and not self._passes:
                is_much = self._unmoved_bytes >= CHECKPOINT_BYTES
                if not self._wake.wait(CHECKPOINT_QUIET_S if is_much else None):
                    return None
            self._idle = False
            is_due = not self._queue or self._error or time.monotonic() - self._stepped_at >= STEP_EVERY_S
            if self._passes and is_due and not self._closing:
                return None
            pause_s = self._retry_s or self._delay_s
            until = self._committed_at + pause_s
            while not self._closing and not self._jobs and (left_s := until - time.monotonic()) > 0:
                self._wake.wait(left_s)
            if self._closing and self._error is not None:
                if self._tried_last:
                    self._give_up()
                self._tried_last = True
            batch: list[_Write | _Job] = []
            size = 0
            for item in self._queue:
                if batch and (isinstance(item, _Job) or size > BATCH_BYTES):
                    break
                batch.append(item)
                if isinstance(item, _Job):
                    break
                size += item.size
            return batch

    def _commit(self, batch: list[_Write]) -> None:
        requests = [write for write in batch if write.requests]
        synced = self._sync if any(write.feed is None for write in requests) else ()
        pragmas = (_WIPE, *synced) if requests else ()
        try:
            with self._memory_lock, _switched(self._connection, pragmas):
                try:
                    self._transact(lambda connection: self._apply(connection, batch))
                except sqlite3.DatabaseError as exc:
                    if not _is_value_error(exc):
                        raise
                    self._transact(lambda connection: self._apply_singly(connection, batch))
                except (ValueError, TypeError, OverflowError, RecursionError, AttributeError, LocalError):
                    self._transact(lambda connection: self._apply_singly(connection, batch))
        except _SupersededError:
            for write in batch:
                write.refused = LocalError("a later agent goes on with this history")
        except Exception as exc:  # whatever it is: nothing of the batch is stored, and all of it waits
            self._failed(exc, batch)
            return
        with self._wake:
            if self._error is not None:
                _log.warning("the history is written again")
            self._error, self._retry_s = None, 0.0
            for _ in batch:
                self._queue.popleft()
            size = sum(write.size for write in batch)
            self._waiting_bytes -= size
            self._written_bytes += size
            self._unmoved_bytes += size
            self._truncated |= self._editor.take_truncated()
        self._committed_at = time.monotonic()
        for write in batch:
            _tell(write, write.refused)

    def _failed(self, exc: Exception, batch: list[_Write]) -> None:
        with self._wake:
            if self._error is None:
                _log.error("the history cannot be written", exc_info=exc)
            self._error = exc
            first_s, longest_s = RETRY_S
            self._retry_s = min(longest_s, self._retry_s * 2 or first_s)
            jobs = [item for item in self._queue if isinstance(item, _Job)]
            self._queue = deque(item for item in self._queue if isinstance(item, _Write))
            self._jobs = 0
        self._committed_at = time.monotonic()
        self._move()  # where the disk is full, it has room for what stands there twice
        for write in batch:
            if not write.told:
                write.told = True
                _tell(write, exc)
        for job in jobs:
            job.future.set_exception(exc)

    def _give_up(self) -> None:
        if self._queue:
            _log.error("closed with %d writes that could not be stored (%s)", len(self._queue), self._error)
        self._queue.clear()

    def _move(self) -> None:
        """Move what was written from the write-ahead log into the tables, as far as no reader needs it there."""
        self._unmoved_bytes = 0
        with self._memory_lock, contextlib.suppress(sqlite3.Error):  # the next commit tells what is wrong
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _run_job(self, job: _Job) -> None:
        with self._wake:
            self._queue.popleft()
            self._jobs -= 1
        try:
            with self._memory_lock:
                result = job.work(self._connection)
                self._editor.forget()
        except Exception as exc:
            self._roll_back()
            job.future.set_exception(exc)
        else:
            job.future.set_result(result)

    def _step(self, current: _Pass) -> None:
        """One step of retention. Whatever fails ends the pass: the next one goes on where this one was."""
        try:
            if self._error is not None:
                raise SetupError(
                    f"the history cannot be written ({_words(self._error)}), so nothing of it is taken away",
                    "free or repair the disk",
                )
            with self._memory_lock:
                next(current.steps)
        except StopIteration as end:
            with self._wake:
                self._passes.popleft()
            self._move()  # only then does the file shrink
            current.future.set_result(end.value)
        except Exception as exc:
            self._roll_back()
            self._end_pass(exc)
        self._stepped_at = time.monotonic()

    def _end_pass(self, exc: Exception) -> None:
        with self._wake:
            current = self._passes.popleft()
        current.steps.close()
        current.future.set_exception(exc)

    def _transact(self, work: Callable[[sqlite3.Connection], object]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            work(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        self._editor.forget()
        if self._connection.in_transaction:  # SQLITE_FULL and SQLITE_IOERR may have done it already
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _apply(self, connection: sqlite3.Connection, batch: list[_Write]) -> None:
        self._look_for_successor(connection)
        for write in batch:
            self._editor.apply(write.changes)
            if write.edit is not None:
                write.edit(connection)
        self._editor.finish()
        _put_feed(connection, batch)

    def _apply_singly(self, connection: sqlite3.Connection, batch: list[_Write]) -> None:
        """Change by change, so that a value that no column can hold costs itself only, and is told."""
        self._look_for_successor(connection)
        for write in batch:
            for change in write.changes:
                refused = _try(connection, type(change).__name__, partial(self._apply_one, change))
                if refused is not None:
                    self._editor.forget()
                    self._refused = str(refused)
            if write.edit is not None:
                write.refused = _try(connection, "request" if write.requests else "token or fact", write.edit)
                if write.done is None:
                    self._refused = str(write.refused or self._refused)
        _put_feed(connection, batch)

    def _look_for_successor(self, connection: sqlite3.Connection) -> None:
        """Whose relay was killed lives a moment longer, when the kernel's next relay and agent may be there."""
        owner = connection.execute("SELECT relay_id FROM feed").fetchone()
        if self._relay_id is not None and owner is not None and owner[0] != self._relay_id:
            raise _SupersededError

    def _apply_one(self, change: Change, connection: sqlite3.Connection) -> None:
        self._editor.apply_one(change)
        self._editor.finish()

    def _begin(self, relay_id: str, lineage: str, kernel: Json, now: float, connection: sqlite3.Connection) -> Resume:
        key = str(kernel["id"])
        feed = connection.execute("SELECT relay_id, seq, mirror_state FROM feed").fetchone()
        known = connection.execute("SELECT generation FROM kernels WHERE id = ?", (key,)).fetchone()
        resumed = feed is not None and feed[0] == relay_id and known is not None
        follows = feed is not None and known is not None and lineage != "" and feed[0].startswith(lineage)
        if follows and not resumed:
            feed = (relay_id, 0, feed[2])
            self._transact(lambda c: edit.put_feed(c, relay_id, 0, None))
        if resumed or follows:
            kept = ("name", "display_name", "language", "notebook", "host")
            columns = {name: kernel[name] for name in kept if name in kernel}
            self._transact(lambda c: edit.put_kernel(c, key, columns))
            generation = int(known[0])
        else:
            feed = (relay_id, 0, None)
            self._transact(lambda c: edit.begin_generation(c, relay_id, key, kernel, now))
            row = connection.execute("SELECT generation FROM kernels WHERE id = ?", (key,)).fetchone()
            generation = int(row[0])
        return Resume(
            generation=generation,
            next_seq=edit.last_seq(connection) + 1,
            feed_seq=feed[1],
            mirror_state=None if feed[2] is None else rows.load(feed[2]),
            displays=tuple(records.read_displays(connection, generation, DISPLAYS)),
            port=self.fact("port"),
            resumed=resumed,
        )


def _try(connection: sqlite3.Connection, name: str, work: edit.Edit) -> LocalError | None:
    """Make one change; where its value is at fault, nothing of it stays. Returns what was at fault."""
    refused = None
    connection.execute("SAVEPOINT one")
    try:
        work(connection)
    except Exception as exc:
        if isinstance(exc, sqlite3.Error) and not _is_value_error(exc):
            raise
        connection.execute("ROLLBACK TO one")
        refused = LocalError(f"a {name} could not be stored ({_words(exc)})")
        _log.exception("a %s could not be stored", name)
    connection.execute("RELEASE one")
    return refused


def _put_requests(requests: Sequence[Request], now: float, connection: sqlite3.Connection) -> None:
    for request in requests:
        edit.put_request(connection, request, now)
    if any(request.ordinal % PRUNE_EVERY == 0 and request.state in REQUEST_END_STATES for request in requests):
        edit.prune_requests(connection, REQUESTS_KEPT)


@contextmanager
def _switched(connection: sqlite3.Connection, pragmas: Sequence[tuple[str, str]]) -> Iterator[None]:
    for during, _ in pragmas:
        connection.execute(during)
    try:
        yield
    finally:
        with contextlib.suppress(sqlite3.Error):  # what cannot be put back is the safer setting
            for _, after in pragmas:
                connection.execute(after)


def _put_feed(connection: sqlite3.Connection, batch: list[_Write]) -> None:
    """Only the last position and the last state of a transaction can ever be read."""
    feeds = [write.feed for write in batch if write.feed is not None]
    if feeds:
        relay_id, seq, _ = feeds[-1]
        state = next((state for _, _, state in reversed(feeds) if state is not None), None)
        edit.put_feed(connection, relay_id, seq, state)


def _clear(before: float | None, connection: sqlite3.Connection) -> int:
    connection.execute("PRAGMA secure_delete = ON")
    try:
        connection.execute("BEGIN IMMEDIATE")
        count = edit.clear(connection, before)
        connection.execute("COMMIT")
        with contextlib.suppress(sqlite3.OperationalError):  # a reader holds it: the next commits do it
            connection.executescript("PRAGMA incremental_vacuum")  # execute() would give back one page
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute("PRAGMA secure_delete = OFF")
    return count


def is_writable(path: Path, journal_mode: str = "auto") -> bool:
    """Whether a store could be opened and written now (one that is damaged can: it is moved aside)."""
    try:
        make_file(path)
        with contextlib.closing(connect(path, journal_mode)) as connection:
            edit.put_fact(connection, "tried_at", time.time())
    except Damaged:
        return True
    except (SetupError, sqlite3.Error):
        return False
    return True


def _tell(write: _Write, exc: Exception | None) -> None:
    if write.done is not None:
        try:
            write.done(exc)
        except Exception:  # somebody else's code on our thread: it must not end the thread
            _log.exception("a callback of the store failed")


def _words(exc: Exception | None) -> str:
    return "the disk is slow" if exc is None else str(exc) or type(exc).__name__


def _is_value_error(exc: sqlite3.Error) -> bool:
    """Whether the value is at fault (too big, of no SQL type, against a constraint) and not the disk."""
    return isinstance(exc, sqlite3.DataError | sqlite3.IntegrityError | sqlite3.ProgrammingError)
