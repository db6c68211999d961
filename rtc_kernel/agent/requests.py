"""What do peers ask for, and what are they told of it?

Owns the ``requests`` document of one epoch. Other than ``state`` it has many writers, so what a peer sends is applied:
:meth:`RequestsDocument.receive` is the one place of the agent where foreign updates reach pycrdt. What they say is
read once, in that very step, and handed out as plain values; from then on the row is the agent's. A later change of
it by anybody is undone. It decides nothing (``act``), and knows no peers but by name.

Theory of the writers. A Yjs client id proves nothing: whoever can write can write under any id. So an id belongs to
the peer that used it first, and what another one sends under it is refused: with it one could use up the clocks of
somebody else, whose own rows would then be passed over as known. The agent's own ids can be told by anybody
(:func:`make_client_id`), so a replica of an earlier epoch is known by them, without a record of earlier epochs.

Theory of the secret. What is typed for an ``input`` lies in the column ``value``. It is taken out in the step that
read it; peers are sent what is left after that, never the bytes that came.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pycrdt import Doc, Map

from .. import schema, yproto
from ..errors import Reason, RemoteError
from ..tables import REQUEST_END_STATES, SCHEMA_VERSION, Request, RequestState

log = logging.getLogger("rtc_kernel.agent")

ROOT = "requests"

CLIENTS_PER_PEER = 256
"""Yjs client ids that one peer may use in one epoch: one for each connection or page."""

CODE_SHOWN_BYTES = 1 << 16
"""Longer code of a refused row is taken out of it."""

_SALT_BITS, _CHECK_BITS = 26, 27


@dataclass(frozen=True, slots=True)
class Row:
    """A row that a peer wrote: its key, and what it held, as plain values."""

    id: str
    value: Any


@dataclass(frozen=True, slots=True)
class Received:
    """What one update of a peer did. ``rows``: the new ones, in the order in which the peer wrote them.
    ``undone_count``: how many changes of what is not the peer's own were taken back."""

    rows: tuple[Row, ...]
    undone_count: int


class RequestsDocument:
    """The ``requests`` document of one kernel, in one epoch.

    Args:
        kernel: the kernel's id; ``room`` is ``<kernel>/requests``.
        document_bytes: what it may take in before :attr:`worn` says that a new epoch is due.
    """

    def __init__(self, kernel: str, *, document_bytes: int = 64 << 20) -> None:
        self.kernel = kernel
        self.epoch = secrets.token_hex(8)
        self.room = f"{kernel}/requests"
        self._limit_bytes = document_bytes
        self._taken_bytes = 0
        self._broken = False
        self._doc: schema.YDoc = Doc(client_id=make_client_id(kernel))
        self._rows: schema.YMap = self._doc.get(ROOT, type=Map)
        self._meta: schema.YMap = self._doc.get("meta", type=Map)
        with self._doc.transaction():
            self._write_meta()
        self._shown: dict[str, Request] = {}
        self._owners: dict[int, str] = {}
        self._owned: dict[str, int] = {}
        self._clocks = yproto.read_state_vector(self._doc.get_state())
        self._sent = self._doc.get_state()
        self._events: list[tuple[tuple[Any, ...], dict[str, str]]] = []
        self._meta_touched = False
        self._subscriptions = (
            self._rows.observe_deep(schema.weakly(self._note)),
            self._meta.observe_deep(schema.weakly(self._note_meta)),
        )

    def __repr__(self) -> str:
        return f"<RequestsDocument {self.room} epoch {self.epoch}: {len(self._shown)} rows, {self._taken_bytes} bytes>"

    @property
    def worn(self) -> bool:
        """Whether a new epoch is due: too much was taken in, or something that does not fit together."""
        crowded = max(self._owned.values(), default=0) >= CLIENTS_PER_PEER
        return self._broken or crowded or self._taken_bytes > self._limit_bytes

    @property
    def shown(self) -> Mapping[str, Request]:
        """The rows that peers see and that the agent has taken, by id."""
        return self._shown

    def is_ours(self, client: int) -> bool:
        """Whether a Yjs client id is that of an agent of this kernel, in whatever life."""
        return client == self._doc.client_id or is_client_id(self.kernel, client)

    # --- for sessions

    def state_vector(self) -> bytes:
        """Of this document: what a peer needs to know to send what is missing here."""
        return self._doc.get_state()

    def clocks(self) -> dict[int, int]:
        """What there is of whom."""
        return yproto.read_state_vector(self._doc.get_state())

    def diff(self, state_vector: bytes | Mapping[int, int]) -> bytes:
        """The update that brings a replica up to date.

        Raises:
            RemoteError: ``WRONG_EPOCH`` when the replica has structs of the agent in another epoch; ``MALFORMED`` when
                it is no state vector.
        """
        clocks = yproto.read_state_vector(state_vector) if isinstance(state_vector, bytes) else dict(state_vector)
        own = self._doc.client_id
        for client, clock in clocks.items():
            if clock and client != own and is_client_id(self.kernel, client):
                raise RemoteError(Reason.WRONG_EPOCH, "the replica is of an earlier life of this document")
        return schema.guard(lambda: self._doc.get_update(yproto.write_state_vector(clocks)))

    # --- in

    def receive(self, update: bytes, by: str) -> Received:
        """Apply what a peer sent.

        Args:
            by: name of the peer, from its connection.

        Returns:
            The new rows. They are not acknowledged yet: :meth:`put` does that.

        Raises:
            RemoteError: it is no update, or says something in the name of others; nothing of it was applied, except
                where :attr:`worn` is true afterwards.
        """
        coverage = yproto.read_coverage(update)
        own = self._doc.client_id
        if any(client == own and end > self._clocks[own] for client, _, end in coverage.structs):
            self._note_clock()  # the echo of what a peer got with its first sync, before the others
        if any(start > self._clocks.get(client, 0) for client, start, _ in coverage.structs):
            # What was before it got lost with an earlier connection. A stock client writes on before it has answered
            # what we lack; the answer has all of it.
            return Received((), 0)
        self._authorise(coverage, by)
        if not coverage.structs and not coverage.deletes:
            return Received((), 0)
        self._taken_bytes += len(update)
        try:
            schema.guard(lambda: self._doc.apply_update(update))
        except RemoteError:
            self._broken = True
            raise
        clocks = yproto.read_state_vector(self._doc.get_state())
        for client, _, end in coverage.structs:
            if clocks.get(client, 0) < end:  # it rests on something that nobody has
                self._broken = True
                raise RemoteError(Reason.MALFORMED, "an update that rests on others that did not come")
            self._clocks[client] = clocks[client]
        return self._read(coverage, by)

    def _authorise(self, coverage: yproto.Coverage, by: str) -> None:
        new: set[int] = set()
        for client, _, end in coverage.structs:
            if end <= self._clocks.get(client, 0):
                continue  # known: an echo, or what a reconnecting peer sends again
            if client != self._doc.client_id and is_client_id(self.kernel, client):
                raise RemoteError(Reason.WRONG_EPOCH, "an update of an earlier life of this document")
            if client == self._doc.client_id or self._owners.get(client, by) != by:
                raise RemoteError(Reason.READ_ONLY, "an update in the name of somebody else")
            if client not in self._owners:
                new.add(client)
        if self._owned.get(by, 0) + len(new) > CLIENTS_PER_PEER:
            raise RemoteError(Reason.QUOTA, "too many Yjs client ids")
        for client in new:
            self._owners[client] = by
        if new:
            self._owned[by] = self._owned.get(by, 0) + len(new)

    def _read(self, coverage: yproto.Coverage, by: str) -> Received:
        events, self._events = self._events, []
        added: dict[str, None] = {}
        touched: set[str] = set()
        for path, keys in events:
            if path:
                touched.add(str(path[0]))
            for key, action in keys.items() if not path else ():
                shown = self._shown.get(key)
                ended = shown is not None and shown.state in REQUEST_END_STATES
                if ended:  # a peer tidies up, or uses the id once more
                    del self._shown[key]
                if action != "delete" and (ended or (action == "add" and shown is None)):
                    added[key] = None
                elif not ended:
                    touched.add(key)
        written = dict.fromkeys(key for root, key in coverage.keys if root == ROOT and key in added)
        order = [*written, *sorted(added.keys() - written.keys())]
        rows: list[Row] = []
        with self._doc.transaction():
            for key in order:
                if key in self._rows:
                    rows.append(Row(key, self._take(key)))
            undone_count = int(self._meta_touched)
            for key in touched - added.keys():
                shown = self._shown.get(key)
                # Who writes a row of its own again, as after a lost connection, does what it should.
                undone_count += shown is not None and shown.by != by
                self._restore(key)
            if self._meta_touched:
                self._write_meta()
        self._events.clear()  # our own
        self._meta_touched = False
        return Received(tuple(rows), undone_count)

    def _take(self, key: str) -> Any:
        """Read a new row, and take out of the document what was typed."""
        row = self._rows[key]
        try:
            value = row.to_py() if isinstance(row, Map) else row
        except (RecursionError, ValueError):  # nested too deeply, or an XML type, which has no plain value
            value = None
        if not isinstance(row, Map) or value is None:
            plain = dict(value) if isinstance(value, dict) else {}
            if plain.get("action") != "annotate":
                plain.pop("value", None)
            self._rows[key] = Map(schema.clean(plain))
        elif value.get("action") != "annotate" and "value" in value:
            del row["value"]
        return value

    def _restore(self, key: str) -> None:
        request = self._shown.get(key)
        if request is not None:
            self._rows[key] = Map(_columns(request))
        elif key in self._rows:  # a row that is not taken yet, or was popped: what is behind its first version goes
            del self._rows[key]

    # --- act

    def put(self, requests: Iterable[Request]) -> None:
        """Show rows as the agent has them: :meth:`take_update` then has what peers are to be sent."""
        with self._doc.transaction():
            for request in requests:
                before = self._shown.get(request.id)
                if before is not None and "query" in before.columns:  # see name_query
                    request = replace(request, columns={"query": before.columns["query"], **request.columns})
                self._shown[request.id] = request
                row = self._rows.get(request.id)
                if not isinstance(row, Map):
                    self._rows[request.id] = Map(_columns(request))
                    continue
                said = _agent_columns(before) if before is not None else {}
                columns = _agent_columns(request)
                for name, value in columns.items():
                    if said.get(name) != value:
                        row[name] = value
                for name in said.keys() - columns.keys():
                    del row[name]
                code = row.get("code") if request.state is RequestState.REFUSED else None
                if isinstance(code, str) and len(code) > CODE_SHOWN_BYTES:
                    del row["code"]
        self._events.clear()

    def name_query(self, request: str, query: str) -> None:
        """Say in the row of a ``query`` which row of ``queries`` answers it."""
        if (shown := self._shown.get(request)) is not None:
            self.put([replace(shown, columns={**shown.columns, "query": query})])

    def drop(self, requests: Iterable[str]) -> None:
        """Pop rows."""
        with self._doc.transaction():
            for key in requests:
                self._shown.pop(key, None)
                if key in self._rows:
                    del self._rows[key]
        self._events.clear()

    def take_update(self) -> bytes | None:
        """What has changed since this was asked last, for all peers; null where nothing has."""
        state = self._doc.get_state()
        update = self._doc.get_update(self._sent)
        self._sent = state
        self._note_clock()
        return None if update == yproto.EMPTY_UPDATE else update

    # ---

    def _note_clock(self) -> None:
        own = self._doc.client_id
        self._clocks[own] = yproto.read_state_vector(self._doc.get_state()).get(own, 0)

    def _write_meta(self) -> None:
        for key in list(self._meta.keys()):
            if key not in ("schema", "epoch", "room"):
                del self._meta[key]
        self._meta["schema"], self._meta["epoch"], self._meta["room"] = SCHEMA_VERSION, self.epoch, self.room

    def _note(self, events: list[Any]) -> None:
        for event in events:
            keys = getattr(event, "keys", None)
            actions = {str(key): str(change["action"]) for key, change in keys.items()} if keys else {}
            self._events.append((tuple(event.path), actions))

    def _note_meta(self, events: list[Any]) -> None:
        self._meta_touched = True


def _agent_columns(request: Request) -> dict[str, Any]:
    values: dict[str, Any] = {
        "by": request.by,
        "ordinal": request.ordinal,
        "received_at": request.received_at,
        "state": request.state.value,
        "execution": request.execution,
        "reason": request.reason,
    }
    if request.action != "execute":
        del values["execution"]  # the peer's own column: what to interrupt, to answer, to annotate
    if request.action == "query":
        values["query"] = request.columns.get("query")
    return {name: value for name, value in values.items() if value is not None}


def _columns(request: Request) -> dict[str, Any]:
    own = {name: value for name, value in request.columns.items() if value is not None}
    columns: dict[str, Any] = schema.clean({"action": request.action, **own, **_agent_columns(request)})
    return columns


def make_client_id(kernel: str) -> int:
    """A fresh Yjs client id for the agent, 53 bits, that :func:`is_client_id` knows."""
    salt = secrets.randbits(_SALT_BITS)
    return salt << _CHECK_BITS | _check(kernel, salt)


def is_client_id(kernel: str, client: int) -> bool:
    """Whether a client id is one that the agent of this kernel made, in whatever life. Of others one in 134 million
    looks like it."""
    return client >> _CHECK_BITS < 1 << _SALT_BITS and client == (
        client >> _CHECK_BITS << _CHECK_BITS | _check(kernel, client >> _CHECK_BITS)
    )


def _check(kernel: str, salt: int) -> int:
    digest = hashlib.sha256(json.dumps([kernel, salt]).encode()).digest()
    return int.from_bytes(digest[:4], "big") & ((1 << _CHECK_BITS) - 1)
