"""Any bytes of a peer give commands, nothing else, and never change the document that has one writer."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from pycrdt import Array, Doc, Map, Text

from rtc_kernel import yproto
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.agent.serve.session import Board, Close, Relay, Send, Session, Write
from rtc_kernel.errors import RemoteError
from rtc_kernel.tables import AddOutput, ExecutionState, Output, PutExecution, WriteText

from .values import Bytes


def _update() -> bytes:
    doc = Doc[object](client_id=7)
    rows = doc.get("requests", type=Map)
    with doc.transaction():
        rows["r1"] = Map({"action": "execute", "code": "é😀", "x": [1, 2.5, None, True, b"\0"], "y": Text("t")})
        rows["r2"] = Map({"a": Array([1, Map({})])})
    del rows["r1"]
    return doc.get_update()


def _packed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


UPDATE = _update()
SEEDS = [
    _packed(yproto.step1(b"\x00"), yproto.step1(b"\x01\x07\x05")),
    _packed(yproto.step1(b"\x00"), yproto.update(UPDATE), yproto.step2(UPDATE), yproto.update(b"\x00\x00")),
    _packed(yproto.awareness([yproto.Entry(1, 1, '{"user":{"name":"é"}}'), yproto.Entry(2, 1, "null")]), b"\x03"),
    _packed(yproto.denied("no"), yproto.awareness([yproto.Entry(1, 1, "NaN")])),
]


@cache
def _document() -> StateDocument:
    document = StateDocument("k")
    document.load()
    shown = Output(output_type="stream", at=1.0, name="stdout", text="")
    document.apply([PutExecution("e", {"seq": 1, "state": ExecutionState.RUNNING}), AddOutput("e", 0, shown)])
    document.apply([WriteText("e", 0, 0, None, "text")])
    return document


def run(data: bytes) -> None:
    """Let a peer of either document send messages, each with its length in two bytes before it."""
    document, requests = _document(), RequestsDocument("k")
    before = document.doc.get_state()
    for followed, role in ((document, Role.VIEW), (requests, Role.RUN)):
        session = Session(followed, Board(), name="eve", role=role, now=0.0)  # type: ignore[arg-type]
        cursor, now = Bytes(data), 1.0
        while cursor.left > 0:
            message = cursor.take(cursor.number())
            for read in (yproto.read_message, yproto.read_state_vector, yproto.read_awareness, yproto.read_coverage):
                with suppress(RemoteError):
                    read(message)
            now += 1.0
            for command in session.receive_bytes(message, now):
                match command:
                    case Send(bytes(sent)) | Relay(bytes(sent)):
                        yproto.read_message(sent)
                    case Write(update):
                        with suppress(RemoteError):
                            requests.receive(update, "eve")
                    case Close():
                        assert command.sentence
            session.receive_time(now)
    assert document.doc.get_state() == before
