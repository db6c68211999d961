"""What has passed the relay that the agent has not stored yet?

Pure. Owns the records from the last acknowledged one on, encoded, with their sequence numbers, bounded in bytes.
What does not fit is counted and becomes one :class:`link.Gap`, so that nothing is missing without being named.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .. import link
from ..link import Channel, Way
from .cutting import Record

SMALL_BYTES = 2048
"""Above the limit a record up to this size still fits, up to twice the limit: states outlive outputs."""


LARGE_BYTES = 64 << 10
"""A message with a larger frame is looked at before it is kept."""


class Spool:
    """A bounded queue of encoded records, acknowledged from the front, read from a cursor.

    Args:
        limit_bytes: see ``RTCKernel.spool_bytes``.
        record: what of a message that is not small is recorded.
    """

    def __init__(self, limit_bytes: int, record: Record | None = None) -> None:
        self.limit_bytes = limit_bytes
        self._record = record
        self.size_bytes = 0
        self.seq = 0  # of the last record given out
        self.acknowledged_seq = 0
        self._sent: deque[bytes] = deque()  # read, not yet acknowledged, oldest first
        self._waiting: deque[bytes] = deque()  # not read yet; follows on self._sent without a hole
        self._gap: list[float] | None = None  # since, until, message_count, size_bytes

    def __repr__(self) -> str:
        return f"<Spool {len(self._sent)} sent, {len(self._waiting)} waiting, {self.size_bytes} bytes, seq {self.seq}>"

    def tap(self, at: float, channel: Channel, way: Way, frames: Sequence[bytes]) -> None:
        """Keep one message that passed. ``at``: POSIX seconds."""
        if self._record is None or max(map(len, frames)) <= LARGE_BYTES:
            self._tap(at, channel, way, frames)
            return
        count = 0
        for piece in self._record(way, frames):
            self._tap(at, channel, way, piece)
            count += 1
        if not count:
            self._lose(at, sum(map(len, frames)))

    def _tap(self, at: float, channel: Channel, way: Way, frames: Sequence[bytes]) -> None:
        if self.size_bytes >= self.limit_bytes:
            size = sum(map(len, frames))
            large = size > SMALL_BYTES or self.size_bytes >= 2 * self.limit_bytes or _is_stream(frames)
            if large and not _is_agents(way, frames):
                self._lose(at, size)
                return
        if self._gap is not None:
            self._close_gap()
        self.seq += 1
        self._append(link.encode_tapped(self.seq, at, channel, way, frames))

    def turn(self, at: float, event: str, pid: int, exit_code: int | None = None) -> None:
        """Keep a turn in the child's life; always fits."""
        self._close_gap()
        self.seq += 1
        self._append(link.encode(link.Child(self.seq, at, event, pid, exit_code)))

    def miss(self, since: float, until: float) -> None:
        """Name a time in which nothing was seen: nobody knows how much passed. POSIX seconds; always fits."""
        self._close_gap()
        self.seq += 1
        self._append(link.encode(link.Gap(self.seq, since, until, 0, 0)))

    def acknowledge(self, seq: int) -> None:
        """Let go of every record up to ``seq``."""
        while self.acknowledged_seq < seq and (self._sent or self._waiting):
            record = self._sent.popleft() if self._sent else self._waiting.popleft()
            self.size_bytes -= len(record)
            self.acknowledged_seq += 1
        if self.size_bytes < self.limit_bytes:
            self._close_gap()

    def rewind(self) -> None:
        """A new agent: read again from the first record that is not acknowledged."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()

    def read(self, limit_bytes: int) -> bytes:
        """The next records, joined, about ``limit_bytes`` long (at least one record); empty when there is none."""
        out: list[bytes] = []
        size = 0
        while self._waiting and size < limit_bytes:
            record = self._waiting.popleft()
            self._sent.append(record)
            out.append(record)
            size += len(record)
        return b"".join(out)

    @property
    def pending(self) -> bool:
        """Whether there is something to read."""
        return bool(self._waiting)

    def _append(self, record: bytes) -> None:
        self._waiting.append(record)
        self.size_bytes += len(record)

    def _lose(self, at: float, size: int) -> None:
        if self._gap is None:
            self._gap = [at, at, 0, 0]
        self._gap[1] = at
        self._gap[2] += 1
        self._gap[3] += size

    def _close_gap(self) -> None:
        if self._gap is not None:
            since, until, count, size = self._gap
            self._gap = None
            self.seq += 1
            self._append(link.encode(link.Gap(self.seq, since, until, int(count), int(size))))


def _is_agents(way: Way, frames: Sequence[bytes]) -> bool:
    """Whether it is the agent's own request: by its copy alone a new agent knows that it was sent."""
    return way is Way.TO_CHILD and len(frames) > 0 and frames[0] == link.AGENT_IDENT


def _is_stream(frames: Sequence[bytes]) -> bool:
    """Whether an iopub message (``[topic, DELIMITER, signature, header, …]``) is a stream; a guess is enough."""
    return len(frames) > 3 and (b'"msg_type": "stream"' in frames[3] or b'"msg_type":"stream"' in frames[3])
