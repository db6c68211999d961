"""Who follows, and what may they ask for?

* ``access``     tokens and roles                                     (pure)
* ``session``    one peer: bytes -> what to send, relay or close      (pure)
* ``websocket``  HTTP and WebSocket: the sockets, the rooms, an outbox for each peer   (door)
* ``handlers``   what each HTTP address answers: page, API, blobs       (door)
* ``ranges``     which bytes of a blob a ``Range`` header asks for       (pure)
* ``comm``       the same session over a Jupyter comm                 (door)

Here stands what both doors need: of the rest of the agent (:class:`Backend`), and to read a query.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ... import __version__, schema, yproto
from ...errors import SetupError
from ...moments import Growth
from ...tables import SCHEMA_VERSION, Cell, Execution, ExecutionState, Json, to_json
from ..act.answers import Grant, Link, Peer
from ..document import StateDocument
from ..requests import RequestsDocument
from .access import Role, Tokens

ROOMS = ("state", "requests")
"""The documents of a kernel: what happened, and what is asked for."""

HISTORY_LIMIT = 1000
"""How many executions one page of the history holds at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """What to look for in the history. Newest first, unless ``after`` is given without ``before``: oldest first.

    Attributes:
        limit: 1 to :data:`HISTORY_LIMIT`.
        before, after: only executions with a smaller, a greater ``seq``.
        grep: a regular expression (valid: :func:`parse_history` compiled it), searched in code and text outputs.
        text: the same as plain text.
        state, cell, kernel: equal to these.
        brief: without outputs, and of the code the beginning.
    """

    limit: int = 50
    before: int | None = None
    after: int | None = None
    grep: str | None = None
    text: str | None = None
    state: str | None = None
    cell: str | None = None
    kernel: str | None = None
    brief: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneQuery:
    """What may stay of the history; null: what the settings say, 0: no limit.

    Attributes:
        older_than_s: what finished so many seconds ago or earlier goes.
        keep: so many executions stay.
        max_bytes: so large the history may be.
        dry_run: only say what would go.
    """

    older_than_s: float | None = None
    keep: int | None = None
    max_bytes: int | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the history. ``next``: the ``seq`` to give as ``before`` (``after``) for the next one, or null."""

    executions: Sequence[Execution]
    next: int | None


@dataclass(frozen=True, slots=True)
class Blob:
    """What is kept under a digest; its bytes are read in pieces. ``size_bytes``: of all of it."""

    size_bytes: int
    media_type: str


class Backend(Protocol):
    """What the doors of this room need. Methods marked *any thread* run in an executor, so that the loop never
    blocks on the store; all others run on the loop's thread and must be quick."""

    @property
    def document(self) -> StateDocument:
        """The live document, of the epoch in force."""

    @property
    def requests(self) -> RequestsDocument:
        """What peers ask for, in the epoch in force."""

    def receive_update(self, update: bytes, *, by: str, role: Role) -> int:
        """A peer's update of :attr:`requests`; how many changes of what is not its own were taken back. RemoteError:
        close the peer."""

    @property
    def tokens(self) -> Tokens:
        """The tokens in force."""

    def health(self) -> Json:
        """``status`` (``ok`` | ``degraded``), ``reason`` (null when ok), ``coverage``, and whatever else
        ``/api/health`` is to say; the door adds version, schema, protocol, kernel, room, epoch, peers, role."""

    def history(self, query: HistoryQuery) -> Page:
        """A page of the history. *Any thread.*"""

    def execution(self, execution: str) -> Execution | None:
        """One execution of the history, without the text of its streams. *Any thread.*"""

    def segments(self, execution: str, position: int, segment: int) -> Sequence[str]:
        """Some segments of a stream from one on; none behind its end. *Any thread.*

        Args:
            execution: its whole id.
        """

    def notebook(self) -> Iterator[str]:
        """The history as a notebook: JSON text in pieces. *Any thread*, each piece for itself."""

    async def complete(self, code: str, cursor_pos: int) -> Json:
        """The ``content`` of the kernel's ``complete_reply``; without matches where it does not answer in time."""

    def growth(self, execution: str) -> Growth:
        """How the streams of one execution grew, by its whole id. *Any thread.*"""

    def blob(self, digest: str) -> Blob | None:
        """What is kept under ``sha256:`` and 64 hex digits. *Any thread.*"""

    def blob_piece(self, digest: str, start: int, count: int) -> bytes:
        """Bytes of it from ``start`` on, at most ``count``; fewer where it ends or has gone. *Any thread.*"""

    def tokens_changed(self) -> None:
        """Tokens were minted or revoked: keep them."""

    def revoked(self, name: str) -> None:
        """A link was withdrawn, and its connections are closed."""

    def share(self, role: Role, name: str, expires_s: float | None) -> Link:
        """Make a link for who asks by the kernel's own channels. SetupError: it cannot be, or not from there."""

    def links(self) -> Sequence[Grant]:
        """The links in force; the owner's token is none."""

    def unshare(self, name: str) -> None:
        """Withdraw a link. SetupError: there is none of that name."""

    def decide(self, action: str, request: str) -> None:
        """``release`` or ``cancel`` a request, whoever asked. SetupError: it does not wait, or not from there."""

    def peers(self) -> Sequence[Peer]:
        """Who follows now."""

    def introduce(self, client: str, name: str) -> None:
        """The user of a frontend says what to be called. ``client``: ``header.session`` of it."""

    def put_cells(self, notebook: str, cells: tuple[Cell, ...]) -> None:
        """The cells of the notebook that a headless run works through."""

    def clear(self) -> None:
        """Forget the finished executions, in the document and in the store."""

    async def prune(self, query: PruneQuery) -> Json:
        """Bring the history within limits: ``executions``, ``bytes``, ``executions_left``. SetupError: it cannot be
        written."""


CODE_CHARS = 1 << 20
"""Of code in which something is to be completed."""


def describe(backend: Backend, kernel: str) -> Json:
    """What ``/api/health`` says to everybody with a token."""
    document = backend.document
    rows = schema.read_kernels(document.doc)
    return {
        "status": "ok",
        "reason": None,
        "coverage": "full",
        **backend.health(),
        "version": __version__,
        "schema": SCHEMA_VERSION,
        "protocol": yproto.PROTOCOL,
        "kernel": next((to_json(row) for row in rows if row.id == kernel), None),
        "room": document.room,
        "epoch": document.epoch,
        "requests_epoch": backend.requests.epoch,
    }


def read_text(backend: Backend, execution: str, position: int) -> Iterator[str]:
    """The text of a stream, in pieces; each is a question of its own. *Any thread.*"""
    segment = 0
    while piece := backend.segments(execution, position, segment):
        segment += len(piece)
        yield "".join(piece)


def marks_of(backend: Backend, execution: str) -> list[tuple[int, int, float]]:
    """When the text of an execution's streams had grown to where: position, code points, time. *Any thread.*

    Args:
        execution: its whole id.
    """
    grown = backend.growth(execution)
    return [(position, *step) for position, steps in sorted(grown.items()) for step in steps]


async def read_completion(backend: Backend, arguments: Mapping[str, Any]) -> Json:
    """A question of ``/api/complete``.

    Raises:
        SetupError: the argument that does not fit.
    """
    code, cursor = arguments.get("code"), arguments.get("cursor_pos")
    if not isinstance(code, str) or len(code) > CODE_CHARS:
        raise SetupError("code is missing or too long", f"send up to {CODE_CHARS} characters")
    if type(cursor) is not int or not 0 <= cursor <= len(code):
        raise SetupError("cursor_pos is not in the code", "give the code points before the cursor")
    return await backend.complete(code, cursor)


_NUMBERS = ("limit", "before", "after")
_FLAGS = {"1": True, "true": True, "0": False, "false": False}
_WORDS = ("grep", "text", "state", "cell", "kernel")


def parse_history(arguments: Mapping[str, Any]) -> HistoryQuery:
    """A query of the history.

    Args:
        arguments: names as in :class:`HistoryQuery`; numbers as digits (a URL) or integers (JSON), ``brief`` as 1 or
            0, true or false.

    Raises:
        SetupError: the argument that does not fit.
    """
    values: Json = {}
    for name, given in arguments.items():
        if name in _NUMBERS:
            if isinstance(given, bool) or not re.fullmatch(r"[0-9]{1,15}", str(given), re.ASCII):
                raise SetupError(f"{name} is not a whole number", f"give {name} as digits")
            values[name] = int(given)
        elif name == "brief" and str(given).lower() in _FLAGS:
            values[name] = _FLAGS[str(given).lower()]
        elif name in _WORDS and (given is None or isinstance(given, str)):
            values[name] = given or None
        else:
            raise SetupError(f"there is no argument {name!r} of this kind", " ".join((*_NUMBERS, *_WORDS, "brief")))
    if not 1 <= values.get("limit", 1) <= HISTORY_LIMIT:
        raise SetupError("limit is out of its bounds", f"give 1 to {HISTORY_LIMIT}")
    if values.get("state") and values["state"] not in list(ExecutionState):
        raise SetupError("there is no such state", " ".join(ExecutionState))
    if values.get("grep"):
        try:
            re.compile(values["grep"])
        except (re.error, RecursionError, OverflowError) as exc:
            raise SetupError(f"grep is no regular expression: {exc}", "mend it, or use text") from exc
    return HistoryQuery(**values)
