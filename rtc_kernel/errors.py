"""Who is at fault, and what is to be done: the one error tree.

::

    RTCError
    ├── LocalError     our bug: the room fails, health says so
    ├── RemoteError    the other side broke the rules: that peer is closed, nobody else notices
    └── SetupError     the user can mend it: one line says what happened, one says what to do
        └── RefusedError   the agent refused a request: the reason names the column

Each error carries fields, never a string to be parsed. ``CLOSE_CODES`` is the single table from a reason
to the WebSocket close code; ``exit_code`` is what a command line returns.

Close codes 4400 to 4499 tell a y-websocket client (3.1 and later) to stop; all others make it reconnect, so
what heals by reconnecting stands outside that range.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a peer was closed. The value is the word used on the wire, in logs and in the docs."""

    MALFORMED = "malformed"
    UNAUTHORIZED = "unauthorized"
    READ_ONLY = "read-only"
    FORBIDDEN = "forbidden"
    NO_SUCH_ROOM = "no-such-room"
    HANDSHAKE_TIMEOUT = "handshake-timeout"
    WRONG_EPOCH = "wrong-epoch"
    TOO_LARGE = "too-large"
    QUOTA = "quota"
    TOO_MANY_PEERS = "too-many-peers"
    REVOKED = "revoked"
    SLOW = "slow"
    STOPPING = "stopping"


CLOSE_CODES: dict[Reason, tuple[int, str]] = {
    Reason.MALFORMED: (4400, "A message could not be read as y-protocols; mend the client."),
    Reason.UNAUTHORIZED: (
        4401,
        "The token is missing, wrong or expired; ask for a new link with %rtc share.",
    ),
    Reason.READ_ONLY: (4403, "This document has one writer, the agent; an update was refused."),
    Reason.FORBIDDEN: (4405, "The role of this link may not write requests; ask for one with --role run."),
    Reason.NO_SUCH_ROOM: (4404, "There is no such document here; /api/health names the ones there are."),
    Reason.HANDSHAKE_TIMEOUT: (4408, "Nothing was asked for within the time before authentication."),
    Reason.WRONG_EPOCH: (4409, "The document began a new life; drop the replica and sync again."),
    Reason.TOO_LARGE: (4413, "A message was larger than the limit for peers."),
    Reason.QUOTA: (4429, "More messages than a peer may send; slow down."),
    Reason.TOO_MANY_PEERS: (4430, "As many peers as allowed are connected."),
    Reason.REVOKED: (4431, "The link was withdrawn with %rtc unshare."),
    Reason.SLOW: (4508, "The peer read too slowly; reconnect and sync from the state vector."),
    Reason.STOPPING: (1012, "The agent stops or restarts; reconnect."),
}


class RTCError(Exception):
    """The root of every error of this package."""

    exit_code = 1


class LocalError(RTCError):
    """Our own bug: an invariant of this package does not hold. Report it; the room that raised it is rebuilt."""

    exit_code = 70  # EX_SOFTWARE


class RemoteError(RTCError):
    """The other side broke the rules.

    Args:
        reason: the named reason; ``close_code`` follows from it.
        detail: one line for a log, free of secrets and of the peer's data.
    """

    exit_code = 76  # EX_PROTOCOL

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    @property
    def close_code(self) -> int:
        """The WebSocket close code of the reason."""
        return CLOSE_CODES[self.reason][0]

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail or CLOSE_CODES[self.reason][1]}"


class SetupError(RTCError):
    """Something on this machine or in a command is not as it must be, and the user can mend it.

    Args:
        what: what happened, one clause without a full stop.
        remedy: what to do, one clause.
        exit_code: what a command line returns (1 unless told).
    """

    def __init__(self, what: str, remedy: str, exit_code: int = 1) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


class MissingError(SetupError):
    """What was asked for by its name is not there, or not any more."""


class RefusedError(SetupError):
    """The agent refused a request.

    Args:
        reason: as its row says it: ``<column>: what is wrong``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("the request was refused", reason)
        self.reason = reason
