"""What is the live state of one kernel, and what must a follower be sent?

Owns the ``state`` document: a window over the history (unfinished executions, the latest of each cell, the last N)
in which each execution has its bounds (:mod:`rtc_kernel.bounds`). It is written in one transaction per batch and
only here; nothing that a peer sends is ever applied. It knows no peers, no sockets and no clock.

Theory of the epoch. Every epoch is a new life with a new client id, so a replica of an earlier life names a client
that this document does not know. Such a replica is refused and not merged: merged, every row would be there twice in
the history of the document and deletions of one life would not hold in the other. What is deleted leaves an empty
item behind in its epoch, in every replica and in every first sync; a new epoch is a copy of what is alive.

Theory of the window. A row may leave once it is finished and no longer the latest of its cell. Both are
for ever, so the rows that may leave wait in a heap by ``seq``, and the oldest leaves first. Where all that is in the
window is too large and none of those is left, the oldest finished row leaves although it is the latest of its cell;
what is unfinished, and the newest row, stay in any case.
"""

from __future__ import annotations

import heapq
import secrets
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pycrdt import Doc, TransactionEvent

from .. import schema, yproto
from ..bounds import Bounds
from ..errors import Reason, RemoteError
from ..tables import (
    END_STATES,
    SCHEMA_VERSION,
    AddOutput,
    Cell,
    Change,
    ClearOutputs,
    Comm,
    Execution,
    Json,
    Kernel,
    PutCells,
    PutComm,
    PutExecution,
    PutMeta,
    SetOutput,
    WriteText,
)

RECENT_UPDATES = 1024
"""How many of the last updates are remembered, to know their echo (a pycrdt ``Provider`` echoes every update)."""

CLOSED_COMMS_KEPT = 200
"""How many closed comms stay in the live document; the oldest leave first."""

CellKey = tuple[str | None, str]
"""Notebook and cell: copies of a notebook may share cell ids."""


@dataclass(slots=True)
class _Row:
    """What the window must know of an execution. ``size``: its bytes in the document, an estimate."""

    seq: int
    cell: CellKey | None
    done: bool
    size: int = 0


class StateDocument:
    """The ``state`` document of one kernel.

    Args:
        kernel: the kernel's id; ``room`` is ``<kernel>/state``.
        window_executions: how many executions stay, unless more are unfinished or latest of their cell.
        window_bytes: how many bytes of executions stay, unless the unfinished ones and the newest have more.
        comms_bytes: how many bytes of comms stay; beyond, those leave that were not written to for longest.
        bounds: what of one execution stays.
    """

    def __init__(
        self,
        kernel: str,
        *,
        window_executions: int = 500,
        window_bytes: int = 32 << 20,
        comms_bytes: int = 16 << 20,
        bounds: Bounds | None = None,
    ) -> None:
        self.room = f"{kernel}/state"
        self.window_executions = window_executions
        self.window_bytes = window_bytes
        self.comms_bytes = comms_bytes
        self._begin()
        with self._doc.transaction():
            self._writer = schema.Writer(self._doc, bounds)
        self._rows: dict[str, _Row] = {}
        self._newest = -1
        self._size = 0
        self._latest: dict[CellKey, str] = {}
        self._leaving: list[tuple[int, str]] = []
        self._finished: list[tuple[int, str]] = []  # those that are the latest of their cells, and some that were
        self._closed_comms: deque[str] = deque()

    def _begin(self) -> None:
        self.epoch = secrets.token_hex(8)
        self._doc: schema.YDoc = Doc()
        self._updates: list[bytes] = []
        self._subscription = self._doc.observe(schema.weakly(self._note))
        self._recent: deque[int] = deque(maxlen=RECENT_UPDATES)
        self._recent_set: set[int] = set()

    def __repr__(self) -> str:
        return f"<StateDocument {self.room} epoch {self.epoch}: {len(self._rows)} executions, {self._size} bytes>"

    @property
    def doc(self) -> schema.YDoc:
        """The Yjs document, for readers. Whoever writes to it breaks the window and the followers."""
        return self._doc

    @property
    def size_bytes(self) -> int:
        """Bytes of the executions in the window, an estimate of what is alive."""
        return self._size

    @property
    def dead_bytes(self) -> int:
        """What a first sync carries of things that are not there any more, about; 0 at the beginning of an epoch."""
        return self._writer.dead_bytes

    def begin_epoch(self) -> None:
        """Begin a new life with all that is there and nothing dead: every replica must be dropped."""
        before = self._subscription
        old = self._doc
        self._begin()
        old.unobserve(before)
        with old.transaction(), self._doc.transaction():  # one of the old one, too: else each look at it is one
            self._writer.move(self._doc)
            self._writer.apply([PutMeta({"epoch": self.epoch})])
        self._writer.dead_bytes = 0
        self._updates.clear()

    def has_execution(self, execution: str) -> bool:
        """Whether this row is in the window."""
        return execution in self._rows

    def load(
        self,
        *,
        meta: Json | None = None,
        kernels: Iterable[Kernel] = (),
        executions: Iterable[Execution] = (),
        comms: Iterable[Comm] = (),
        cells: Iterable[Cell] = (),
        notebook: str = "",
        segments: Mapping[tuple[str, int], Iterable[str | int]] | None = None,
    ) -> None:
        """Build the window of this epoch from the store's records, in one transaction. Call it once, first.

        Args:
            meta: further columns of ``meta``; ``schema``, ``epoch`` and ``room`` are ours.
            segments: by execution and position, the segments of streams that a cursor of the mirror refers to. A
                number stands for a segment of so many bytes in the middle, which need not be read.
        """
        by_row: dict[str, dict[int, Iterable[str | int]]] = {}
        for (execution, position), parts in (segments or {}).items():
            by_row.setdefault(execution, {})[position] = parts
        own = {"schema": SCHEMA_VERSION, "epoch": self.epoch, "room": self.room}
        with self._doc.transaction():
            self._writer.apply([PutMeta({**(meta or {}), **own})])
            for kernel in kernels:
                self._writer.insert_kernel(kernel)
            prepared: dict[str, schema.Prepared] = {}
            for row in sorted(executions, key=lambda row: row.seq):
                prepared[row.id] = self._writer.prepare(row, by_row.get(row.id))
                self._track(row.id, row.seq, _cell(row.notebook, row.cell), row.state in END_STATES)
                self._resize(row.id, prepared[row.id].extent.size)
                for left in self._leave():
                    del prepared[left]
            for found in prepared.values():
                self._writer.insert_execution(found)
            for comm in comms:
                self._writer.insert_comm(comm)
                if comm.closed_at is not None:
                    self._closed_comms.append(comm.id)
            if cells := tuple(cells):
                self._writer.apply([PutCells(notebook, cells)])
            self._trim()
        self._updates.clear()

    def apply(self, changes: Iterable[Change]) -> bytes | None:
        """Write changes in one transaction, and let rows leave that are beyond the window.

        Returns:
            The update for the followers, or null when nothing changed.

        Raises:
            LocalError: the changes do not fit the rows; build a new document.
        """
        changes = list(changes)
        with self._doc.transaction():
            self._writer.apply(changes)
            touched: dict[str, None] = {}
            for change in changes:
                match change:
                    case PutExecution(execution):
                        self._follow(change)
                        touched[execution] = None
                    case AddOutput(execution) | WriteText(execution) | SetOutput(execution) | ClearOutputs(execution):
                        touched[execution] = None
                    case PutComm(comm, columns) if columns.get("closed_at") is not None:
                        self._closed_comms.append(comm)
                    case _:
                        pass
            for execution in touched:
                self._resize(execution, self._writer.size_of(execution))
            self._trim()
        if not self._updates:
            return None
        update = self._updates.pop()
        self._remember(update)
        return update

    def diff(self, state_vector: bytes | Mapping[int, int]) -> bytes:
        """The update that brings a replica up to date (the payload of a step 2).

        Args:
            state_vector: of the replica, as bytes or decoded.

        Raises:
            RemoteError: ``WRONG_EPOCH`` when the replica has structs of a client that this document does not
                know (drop the replica and sync again); ``MALFORMED`` when it is no state vector, or ahead of us.
        """
        clocks = yproto.read_state_vector(state_vector) if isinstance(state_vector, bytes) else dict(state_vector)
        own, clock = self._doc.client_id, self._clock()
        if any(count for client, count in clocks.items() if client != own):
            raise RemoteError(Reason.WRONG_EPOCH, "the replica has structs that this epoch does not know")
        if clocks.get(own, 0) > clock:
            raise RemoteError(Reason.MALFORMED, "the replica is ahead of its only writer")
        known = {own: clocks[own]} if clocks.get(own) else {}
        return schema.guard(lambda: self._doc.get_update(yproto.write_state_vector(known)))

    def clocks(self) -> dict[int, int]:
        """What there is of whom: of one client, us."""
        return {self._doc.client_id: clock} if (clock := self._clock()) else {}

    def is_recent(self, update: bytes) -> bool:
        """Whether an update is, byte for byte, one of the last that :meth:`apply` returned."""
        return hash(update) in self._recent_set

    def contains(self, update: bytes) -> bool:
        """Whether an update says nothing that is not in this document already, as an echo does.

        It is read by our own decoder and never applied. Takes time linear in its length.

        Raises:
            RemoteError: it is no update.
        """
        coverage = yproto.read_coverage(update)
        own, clock = self._doc.client_id, self._clock()
        if any(client != own or end > clock for client, _, end in coverage.structs):
            return False
        return not coverage.deletes or self._deleted(coverage.deletes)

    def _note(self, event: TransactionEvent) -> None:
        self._updates.append(event.update)

    def _clock(self) -> int:
        return yproto.read_state_vector(self._doc.get_state()).get(self._doc.client_id, 0)

    def _deleted(self, ranges: Iterable[tuple[int, int, int]]) -> bool:
        own = self._doc.client_id
        held = sorted(
            (clock, clock + length)
            for _, clock, length in yproto.read_coverage(self._doc.get_update(self._doc.get_state())).deletes
        )
        starts = [start for start, _ in held]
        for client, clock, length in ranges:
            at = bisect_right(starts, clock) - 1
            if client != own or at < 0 or clock + length > held[at][1]:
                return False
        return True

    def _remember(self, update: bytes) -> None:
        if len(self._recent) == RECENT_UPDATES:
            self._recent_set.discard(self._recent[0])
        self._recent.append(hash(update))
        self._recent_set.add(self._recent[-1])

    # --- the window

    def _follow(self, change: PutExecution) -> None:
        columns = change.columns
        row = self._rows.get(change.execution)
        if row is None:
            if "seq" in columns:
                cell = _cell(columns.get("notebook"), columns.get("cell"))
                done = columns.get("state") in END_STATES
                self._track(change.execution, int(columns["seq"]), cell, done)
        elif not row.done and columns.get("state") in END_STATES:
            row.done = True
            self._offer(change.execution, row)

    def _track(self, execution: str, seq: int, cell: CellKey | None, done: bool) -> None:
        row = self._rows[execution] = _Row(seq, cell, done)
        self._newest = max(self._newest, seq)
        if cell is not None:
            before = self._latest.get(cell)
            if before is None or self._rows[before].seq <= seq:
                self._latest[cell] = execution
                if before is not None:
                    self._offer(before, self._rows[before])
        self._offer(execution, row)

    def _resize(self, execution: str, size: int) -> None:
        if row := self._rows.get(execution):
            self._size += size - row.size
            row.size = size

    def _offer(self, execution: str, row: _Row) -> None:
        if not row.done:
            return
        if row.cell is None or self._latest[row.cell] != execution:
            heapq.heappush(self._leaving, (row.seq, execution))
            return
        heapq.heappush(self._finished, (row.seq, execution))
        if len(self._finished) > 2 * len(self._rows):  # most of them are not the latest any more
            latest = set(self._latest.values())
            self._finished = [entry for entry in self._finished if entry[1] in latest]
            heapq.heapify(self._finished)

    def _leave(self) -> Iterator[str]:
        """The rows that leave the window now; only the document knows of them any more."""
        while heap := self._heap():
            _, execution = heapq.heappop(heap)
            row = self._rows.pop(execution, None)
            if row is not None:
                self._size -= row.size
                if row.cell is not None and self._latest[row.cell] == execution:
                    del self._latest[row.cell]
                yield execution

    def _heap(self) -> list[tuple[int, str]] | None:
        """From where the next row is to leave; null where none is."""
        if self._size > self.window_bytes:
            heaps = (self._leaving, self._finished)
            return next((heap for heap in heaps if heap and heap[0][0] != self._newest), None)
        return self._leaving if len(self._rows) > self.window_executions else None

    def _trim(self) -> None:
        for execution in self._leave():
            self._writer.remove_execution(execution)
        while len(self._closed_comms) > CLOSED_COMMS_KEPT:
            self._writer.remove_comm(self._closed_comms.popleft())
        while self._writer.comm_bytes > self.comms_bytes and (comm := self._writer.oldest_comm()) is not None:
            self._writer.remove_comm(comm)


def _cell(notebook: str | None, cell: str | None) -> CellKey | None:
    return None if cell is None else (notebook, cell)
