"""Connections, message by message: ``python/sessions.json``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pycrdt import Doc, Map

from rtc_kernel import yproto
from rtc_kernel.agent import requests as requests_documents
from rtc_kernel.agent.act.rows import RowLimits, read_row
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.agent.serve.session import (
    AWARENESS_STATE_CHARS,
    ECHOES_BURST,
    SYNCS_BURST,
    Board,
    Close,
    Command,
    Limits,
    PeerState,
    Relay,
    Send,
    Session,
    Write,
)
from rtc_kernel.errors import CLOSE_CODES, Reason, RemoteError
from rtc_kernel.tables import AddOutput, ExecutionState, Json, PutExecution, RequestState, WriteText

from .common import AGENT, FRONT, KERNEL, NOW, READERS, STEP1, entry, fixed, replica
from .documents import ended, execution, new_state, stream


class Play:
    """One connection, and what is said on it."""

    def __init__(
        self,
        name: str,
        document: StateDocument | RequestsDocument,
        *,
        role: Role = Role.VIEW,
        board: Board | None = None,
        expires: float | None = None,
        **limits: Any,
    ) -> None:
        self.name = name
        self.role = role
        self.room = document.room.partition("/")[2]
        self.document = document
        self.board = board or Board()
        self.limits = limits
        self.session = Session(
            document, self.board, name="ada", role=role, now=0.0, limits=Limits(**limits), expires=expires
        )
        self.steps: list[Json] = []
        self.at = 0.0
        self.code: int | None = None

    def say(self, data: bytes, note: str, *answers: str, at: float | None = None) -> list[Command]:
        """The client sends a message. ``answers``: what the agent's are."""
        self.at = self.at if at is None else at
        self.steps.append({"from": "client", "at": self.at, "hex": data.hex(), "note": note})
        return self.hear(self.session.receive_bytes(data, self.at), *answers)

    def wait(self, at: float, *notes: str) -> None:
        """The time goes on."""
        self.at = at
        self.hear(self.session.receive_time(at), *notes)

    def hear(self, commands: Iterable[Command], *notes: str) -> list[Command]:
        """What the agent sends to this client, and what each of it is."""
        commands, left = list(commands), list(notes)
        for command in commands:
            match command:
                case Relay() if self.session.state is PeerState.CLOSED:
                    pass  # for the others
                case Send(data) | Relay(data):
                    note = left.pop(0) if left else type(yproto.read_message(data)).__name__.lower()
                    self.steps.append({"from": "server", "at": self.at, "hex": data.hex(), "note": note})
                case Close():
                    self.code = command.code
                case Write(update):
                    self._write(update)
        return commands

    def push(self, update: bytes | None, note: str) -> None:
        """The document changed."""
        assert update is not None
        command = self.session.push_update(yproto.update(update))
        assert command is not None
        self.hear([command], note)

    def close(self, reason: Reason, *notes: str) -> None:
        """The agent ends it."""
        self.hear(self.session.close(reason), *notes)

    def to_json(self) -> Json:
        """The transcript."""
        heard = [yproto.read_message(bytes.fromhex(step["hex"])) for step in self.steps if step["from"] == "server"]
        updates = [message.update for message in heard if isinstance(message, yproto.Step2 | yproto.Update)]
        return {
            "name": self.name,
            "room": self.room,
            "role": self.role.value,
            "limits": self.limits,
            "steps": self.steps,
            "close": self.code,
            "records": READERS[self.room](replica(updates)) if updates else None,
        }

    def _write(self, update: bytes) -> None:
        assert isinstance(self.document, RequestsDocument)
        try:
            received = self.document.receive(update, "ada")
        except RemoteError as exc:
            self.hear(self.session.close(exc.reason, exc.detail))
            return
        if (left := self.document.take_update()) is not None:
            self.push(left, "what was written, to all peers of the room")
        taken = [
            read_row(row.id, row.value, by="ada", role="run", ordinal=n, now=NOW + self.at, limits=RowLimits())
            for n, row in enumerate(received.rows, 1)
        ]
        self.document.put(reading.request for reading in taken)
        if (said := self.document.take_update()) is not None:
            self.push(said, "the acknowledgement: by, ordinal, received_at, state")


def make_sessions() -> list[Json]:
    """``python/sessions.json``."""
    with fixed():
        plays = [*_short_sessions(), *_state_sessions(), *_refused_sessions(), *_requests_sessions()]
        return [play.to_json() for play in plays]


def _short_sessions() -> Iterator[Play]:
    """What docs/protocol.md shows byte by byte: small documents."""
    document = StateDocument("k1")
    document.load()
    play = Play("short: following one execution", document)
    play.say(STEP1, "step 1: I have nothing", "step 2: all there is")
    play.say(yproto.awareness([entry(FRONT, 1, {"name": "é"})]), "who I am", "passed on to all of the room")
    run = {"seq": 1, "code": "1", "state": ExecutionState.RUNNING, "started_at": 1.5}
    play.push(document.apply([PutExecution("e1", run)]), "an execution began")
    play.push(document.apply([AddOutput("e1", 0, stream(at=2.0)), WriteText("e1", 0, 0, None, "é")]), "it said é")
    play.push(document.apply([WriteText("e1", 0, 0, None, "\n")]), "and a new line")
    play.push(document.apply([PutExecution("e1", {"state": ExecutionState.OK, "finished_at": 2.5})]), "its end")
    play.wait(20.0, "a sign of life: nobody is announced")
    play.close(Reason.REVOKED, "permission denied; the close frame with 4431 follows")
    yield play
    requests = RequestsDocument("k1")
    requests.take_update()
    play = Play("short: asking for a run", requests, role=Role.RUN)
    play.say(STEP1, "step 1: I have nothing", "step 2: all there is", "step 1: what have you?")
    play.say(yproto.step2(yproto.EMPTY_UPDATE), "step 2: I have nothing that you lack")
    front: Doc[Any] = Doc(client_id=FRONT)
    with front.transaction():
        front.get("requests", type=Map)["r1"] = Map({"action": "execute", "code": "1"})
    play.say(yproto.update(front.get_update()), "a row: run this", at=2.0)
    requests.put([replace(requests.shown["r1"], state=RequestState.ACCEPTED, execution="e1")])
    play.push(requests.take_update(), "it is accepted, as the execution e1")
    requests.put([replace(requests.shown["r1"], state=RequestState.DONE)])
    play.push(requests.take_update(), "it is done")
    requests.drop(["r1"])
    play.push(requests.take_update(), "the row is popped")
    yield play


def _running() -> StateDocument:
    document, _ = new_state()
    document.apply([execution("e1", 1, code="print('é')")])
    return document


def _state_sessions() -> Iterator[Play]:
    document = _running()
    play = Play("a follower from its first message on", document)
    play.say(STEP1, "step 1 with an empty state vector", "step 2: the whole window")
    play.at = 1.0
    play.push(document.apply([AddOutput("e1", 0, stream())]), "an output")
    play.push(document.apply([WriteText("e1", 0, 0, None, "é\n")]), "its text")
    play.push(document.apply([ended("e1")]), "the end")
    play.wait(20.0, "a sign of life: awareness without entries")
    yield play
    document = _running()
    replica_before = replica([document.diff(b"\x00")])
    document.apply([ended("e1")])
    play = Play("one that comes again with what it has", document)
    play.say(yproto.step1(replica_before.get_state()), "step 1 with its state vector", "step 2: what it has not")
    play.say(yproto.step2(yproto.EMPTY_UPDATE), "an empty step 2 says nothing and is passed over")
    play.say(b"\x03", "query awareness", "nobody is there")
    play.say(STEP1, "step 1 again", "step 2 again", at=2.0)
    yield play
    document = _running()
    play = Play("a stock client that echoes what it hears", document)
    play.say(STEP1, "step 1", "step 2")
    whole = document.diff(b"\x00")
    play.say(yproto.update(whole), "the echo of the first sync, which is read")
    update = document.apply([ended("e1")])
    play.push(update, "an update")
    play.say(yproto.update(update or b""), "its echo, which is known")
    yield play
    document, board = _running(), Board()
    other = Session(document, board, name="bob", role=Role.VIEW, now=0.0)
    other.receive_bytes(yproto.awareness([entry(7, 1, {"user": {"name": "Bob"}})]), 0.0)
    play = Play("awareness", document, board=board)
    play.say(STEP1, "step 1", "step 2", "who is there")
    mine = yproto.awareness([entry(FRONT, 1, {"user": {"name": "Ada é😀"}})])
    play.say(mine, "it announces itself", "passed on to all, to itself too")
    play.say(yproto.awareness([entry(7, 9, None)]), "what it says of another's client id is passed over")
    play.say(yproto.awareness([entry(FRONT, 2, {"viewing": "e1"})]), "it says more", "passed on")
    play.hear(other.leave(), "the other one went")
    play.say(b"\x03", "query awareness", "itself alone")
    play.say(yproto.awareness([entry(FRONT, 3, None)]), "it goes", "passed on")
    yield play


def _refused_sessions() -> Iterator[Play]:
    for reason, note in (
        (Reason.UNAUTHORIZED, "no token, or none in force"),
        (Reason.NO_SUCH_ROOM, "another kernel's id"),
        (Reason.FORBIDDEN, "the role view in requests"),
        (Reason.WRONG_EPOCH, "?epoch= of an earlier life"),
        (Reason.TOO_MANY_PEERS, "as many as allowed are connected"),
    ):
        play = Play(f"not let in: {reason.value}", _running())
        play.hear([Send(yproto.denied(CLOSE_CODES[reason][1])), Close(reason)], f"permission denied: {note}")
        yield play
    play = Play("silent: handshake-timeout", _running())
    play.wait(5.0)
    yield play
    play = Play("a replica of an earlier life: wrong-epoch", _running())
    play.say(yproto.step1(yproto.write_state_vector({AGENT - 1: 5})), "its state vector names an earlier writer")
    yield play
    document = _running()
    play = Play("a replica that is ahead of its writer: malformed", document)
    play.say(yproto.step1(yproto.write_state_vector({document.doc.client_id: 10_000})), "more than there is")
    yield play
    document = _running()
    play = Play("an update of one's own: read-only", document, role=Role.OWN)
    play.say(STEP1, "step 1", "step 2")
    own: Doc[Any] = Doc(client_id=FRONT)
    own.get("executions", type=Map)["mine"] = 1
    play.say(yproto.update(own.get_update()), "an update with content of its own", "permission denied")
    yield play
    document = _running()
    play = Play("an update in the writer's name: read-only", document)
    play.say(STEP1, "step 1", "step 2")
    forged: Doc[Any] = Doc(client_id=document.doc.client_id)
    forged.get("executions", type=Map)["x" * 2000] = "y" * 2000
    forged.get("executions", type=Map)["z"] = [1] * 500
    for n in range(100):
        forged.get("executions", type=Map)[str(n)] = n
    play.say(yproto.update(forged.get_update()), "structs beyond the writer's clock", "permission denied")
    yield play
    play = Play("echoes that must be read, without end: read-only", document := _running())
    play.say(STEP1, "step 1", "step 2")
    for n in range(ECHOES_BURST + 1):
        play.say(yproto.update(document.diff(b"\x00")), f"the whole document, time {n + 1}")
    yield play
    play = Play("not a message: malformed", _running())
    play.say(STEP1, "step 1", "step 2")
    play.say(b"\x09", "an unknown message type")
    yield play
    play = Play("not an update: malformed", _running())
    play.say(yproto.update(b"\x01\x02\x03"), "bytes that are no update")
    yield play
    play = Play("a text message: malformed", _running())
    play.close(Reason.MALFORMED)
    yield play
    play = Play("a message beyond the limit: too-large", _running(), message_bytes=64)
    play.say(yproto.update(bytes(64)), "67 bytes where 64 are allowed")
    yield play
    play = Play("an awareness state beyond the limit: too-large", _running())
    play.say(yproto.awareness([entry(FRONT, 1, "x" * AWARENESS_STATE_CHARS)]), "a state of 8194 characters")
    yield play
    play = Play("awareness that is not JSON: malformed", _running())
    play.say(yproto.awareness([yproto.Entry(FRONT, 1, "{")]), "a state that no browser could parse")
    yield play
    document = StateDocument(KERNEL)
    document.load()
    play = Play("asking for the document again and again: quota", document)
    for n in range(SYNCS_BURST + 1):
        play.say(STEP1, f"step 1, time {n + 1}")
    yield play
    for reason in (Reason.REVOKED, Reason.SLOW, Reason.STOPPING, Reason.WRONG_EPOCH):
        play = Play(f"ended by the agent: {reason.value}", _running())
        play.say(STEP1, "step 1", "step 2")
        play.at = 3.0
        play.close(reason, "permission denied")
        yield play
    play = Play("a token that expires: unauthorized", _running(), expires=7.0)
    play.say(STEP1, "step 1", "step 2")
    play.wait(7.0, "permission denied")
    yield play


def _requests_sessions() -> Iterator[Play]:
    document = RequestsDocument(KERNEL)
    document.take_update()
    play = Play("a run is asked for", document, role=Role.RUN)
    front: Doc[Any] = Doc(client_id=FRONT)
    play.say(yproto.step1(front.get_state()), "step 1")
    _apply(front, play)
    play.say(yproto.step2(front.get_update(document.state_vector())), "step 2: it has nothing that the agent lacks")
    before = front.get_state()
    front.get("requests", type=Map)["r1"] = Map({"action": "execute"})
    front.get("requests", type=Map)["r1"]["code"] = "1 + 1"
    play.say(yproto.update(front.get_update(before)), "a row, in one update", at=1.0)
    _apply(front, play)
    row = document.shown["r1"]
    document.put([replace(row, state=RequestState.ACCEPTED, execution="e1")])
    play.push(document.take_update(), "it is sent")
    document.put([replace(row, state=RequestState.DONE, execution="e1")])
    play.push(document.take_update(), "it has ended")
    document.drop(["r1"])
    play.push(document.take_update(), "it is popped")
    yield play
    document = RequestsDocument(KERNEL)
    document.take_update()
    front = Doc(client_id=FRONT)
    front.get("requests", type=Map)["r1"] = Map({"action": "restart"})
    play = Play("a row that was written while away", document, role=Role.RUN)
    play.say(yproto.step1(front.get_state()), "step 1: its state vector names only itself")
    play.say(yproto.step2(front.get_update(document.state_vector())), "step 2: the row")
    yield play
    document = RequestsDocument(KERNEL)
    document.take_update()
    play = Play("a row in the agent's name: read-only", document, role=Role.RUN)
    play.say(STEP1, "step 1")
    (agent,) = yproto.read_state_vector(document.state_vector())
    forged: Doc[Any] = Doc(client_id=agent)
    forged.apply_update(document.diff(b"\x00"))
    forged.get("requests", type=Map)["r1"] = Map({"action": "restart"})
    play.say(yproto.update(forged.get_update()), "structs under the agent's client id", "permission denied")
    yield play
    document = RequestsDocument(KERNEL)
    document.take_update()
    earlier = requests_documents.make_client_id(KERNEL)
    play = Play("requests of an earlier life: wrong-epoch", document, role=Role.RUN)
    play.say(yproto.step1(yproto.write_state_vector({FRONT: 3, earlier: 9})), "it names the agent of an earlier life")
    yield play
    play = Play("not an update of requests: malformed", RequestsDocument(KERNEL), role=Role.RUN)
    play.say(STEP1, "step 1")
    play.say(yproto.update(b"\x01\x02\x03"), "bytes that are no update")
    yield play


def _apply(doc: Doc[Any], play: Play) -> None:
    """What the server has said so far."""
    for step in play.steps:
        message = yproto.read_message(bytes.fromhex(step["hex"]))
        if step["from"] == "server" and isinstance(message, yproto.Step2 | yproto.Update):
            doc.apply_update(message.update)
