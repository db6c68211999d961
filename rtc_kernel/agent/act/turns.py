"""Whose row is next?

Pure. State: of each peer, the rows that wait, in the order in which the agent took them, and its runs that have not
ended; and a ring of the peers whose first row may be sent. Peers take turns: who was served, or may be served again,
goes to the end of the ring, so a first row waits for at most one row of every other peer. It must not decide what
may be sent, that is the scheduler's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from ...tables import Request

Key = tuple[str, str]
"""Cell and code: two runs that have them in common are the same run."""


@dataclass(slots=True, eq=False)
class Row:
    """A request that has not ended.

    Attributes:
        after: id of the request it waits for, while that has not ended.
        stopped: why it will not run when its turn comes; null: it will.
    """

    request: Request
    after: str | None = None
    stopped: str | None = None

    @property
    def stops(self) -> bool:
        """Whether what follows it is aborted when it fails."""
        return self.request.columns.get("stop_on_error") is True

    @property
    def silent(self) -> bool:
        """Whether its run leaves no row."""
        return self.request.columns.get("silent") is True

    @property
    def key(self) -> Key | None:
        """What others may join its run by."""
        cell = self.request.columns.get("cell")
        return None if cell is None or self.silent else (cell, self.request.columns["code"])

    @property
    def joins(self) -> Key | None:
        """What it may join another's run by."""
        columns = self.request.columns
        return self.key if columns["on_duplicate"] == "coalesce" and not columns["user_expressions"] else None


@dataclass(slots=True, eq=False)
class Peer:
    """What one peer has asked for and has not ended.

    Attributes:
        waiting: its rows that were not sent, by id, in order.
        runs: the execution of each row that was sent or joined, by the row's id.
        stoppers: how many of these rows must have ended before the next is sent.
        open_count: all its rows that have not ended.
    """

    name: str
    waiting: OrderedDict[str, Row] = field(default_factory=OrderedDict)
    runs: dict[str, str] = field(default_factory=dict)
    stoppers: int = 0
    open_count: int = 0

    @property
    def first(self) -> Row | None:
        """The row that is to be sent before its others."""
        return next(iter(self.waiting.values()), None)


class Turns:
    """The rows that wait, by peer."""

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}
        self._ring: OrderedDict[str, Row] = OrderedDict()
        self._joining: dict[Key, dict[str, None]] = {}

    def __repr__(self) -> str:
        return f"<Turns {len(self._peers)} peers, {len(self._ring)} may be served>"

    @property
    def peers(self) -> list[str]:
        """Who has rows that have not ended."""
        return list(self._peers)

    def get(self, by: str) -> Peer | None:
        """A peer that has rows which have not ended."""
        return self._peers.get(by)

    def find_joining(self, key: Key) -> list[str]:
        """The peers in the ring whose first row would join a run of this key."""
        return list(self._joining.get(key, ()))

    # --- in

    def enter(self, row: Row) -> None:
        """A row is new."""
        by = row.request.by
        self._peers.setdefault(by, Peer(by)).open_count += 1

    def leave(self, row: Row) -> None:
        """A row has ended."""
        peer = self._peers[row.request.by]
        peer.open_count -= 1
        if not peer.open_count:
            del self._peers[peer.name]

    def wait(self, rows: Iterable[Row]) -> None:
        """These rows wait, each in its place among those of its peer."""
        mixed: dict[str, Peer] = {}
        for row in rows:
            peer = self._peers[row.request.by]
            if peer.waiting and next(reversed(peer.waiting.values())).request.ordinal > row.request.ordinal:
                mixed[peer.name] = peer
            peer.waiting[row.request.id] = row
        for peer in mixed.values():
            peer.waiting = OrderedDict(sorted(peer.waiting.items(), key=lambda item: item[1].request.ordinal))

    def take(self, row: Row) -> None:
        """A row does not wait any more, if it did."""
        self._peers[row.request.by].waiting.pop(row.request.id, None)

    def take_all(self, by: str) -> list[Row]:
        """None of a peer's rows wait any more; returns them in order."""
        peer = self._peers.get(by)
        if peer is None:
            return []
        rows = list(peer.waiting.values())
        peer.waiting.clear()
        self.withdraw(by)
        return rows

    def start(self, row: Row, execution: str) -> None:
        """A row was sent, or joined to a run."""
        peer = self._peers[row.request.by]
        peer.waiting.pop(row.request.id, None)
        peer.runs[row.request.id] = execution
        peer.stoppers += row.stops

    def stop(self, row: Row) -> None:
        """The run of a row has ended, or never was."""
        peer = self._peers[row.request.by]
        del peer.runs[row.request.id]
        peer.stoppers -= row.stops

    # --- the ring

    def offer(self, row: Row) -> None:
        """The first row of a peer may be sent; a peer that is in the ring keeps its place."""
        by = row.request.by
        if self._ring.get(by) is row:
            return
        self._forget(self._ring.get(by))
        self._ring[by] = row
        if (key := row.joins) is not None:
            self._joining.setdefault(key, {})[by] = None

    def withdraw(self, by: str) -> None:
        """Nothing of a peer may be sent now."""
        self._forget(self._ring.pop(by, None))

    @property
    def offers(self) -> bool:
        """Whether there is a row whose turn it is."""
        return bool(self._ring)

    def serve(self) -> Row | None:
        """The row whose turn it is; its peer leaves the ring."""
        if not self._ring:
            return None
        _, row = self._ring.popitem(last=False)
        self._forget(row)
        return row

    def _forget(self, row: Row | None) -> None:
        key = row.joins if row is not None else None
        if row is None or key is None:
            return
        peers = self._joining[key]
        del peers[row.request.by]
        if not peers:
            del self._joining[key]
