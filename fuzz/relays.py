"""Any bytes of a relay give commands, never change a document that has one writer, and what waits stays bounded."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

from rtc_kernel import hocuspocus, rooms, yproto
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve.outward import Outward, Send, Take
from rtc_kernel.errors import RemoteError
from rtc_kernel.tables import ExecutionState, PutExecution

from .messages import UPDATE
from .values import Bytes

STATE, REQUESTS = "r/k/state/e", "r/k/requests/e"


def _packed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


GRANTED = b"\x02\x02" + yproto.write_string("read-write")
STEP1 = yproto.step1(b"\0")
SEEDS = [
    _packed(*(hocuspocus.frame(STATE, one) for one in (GRANTED, STEP1, b"\x08\x01", STEP1))),
    _packed(*(hocuspocus.frame(REQUESTS, one) for one in (GRANTED, yproto.step2(UPDATE), yproto.update(UPDATE)))),
    _packed(*(hocuspocus.frame(STATE, one) for one in (GRANTED, b"\x04" + yproto.update(UPDATE)[1:], b"\x07\x01x"))),
    _packed(hocuspocus.frame(STATE, b"\x02\x01\x02no"), hocuspocus.frame(REQUESTS, b"\x05\x02{}"), b"\x00\x09"),
]


@cache
def _document() -> StateDocument:
    document = StateDocument("k")
    document.load()
    document.apply([PutExecution("e", {"seq": 1, "state": ExecutionState.RUNNING})])
    return document


def run(data: bytes) -> None:
    """Let a relay send frames, each with its length in two bytes before it."""
    document, requests = _document(), RequestsDocument("k")
    before = document.doc.get_state()
    outward, now = Outward(secret="s", now=0.0), 0.0
    outward.open(STATE, document, now)
    outward.open(REQUESTS, requests, now)
    cursor = Bytes(data)
    while cursor.left > 0:
        message = cursor.take(cursor.number())
        now += 0.01
        for command in outward.receive_bytes(message, now):
            match command:
                case Send(bytes(sent)):
                    hocuspocus.read_frame(sent)
                case Take(_, update):
                    _take(requests, update)
                case _:
                    assert repr(command)
        outward.push_update(STATE, yproto.EMPTY_UPDATE, now)
        outward.receive_time(now)
        rooms.Entry.read("k", {"state": message.decode(errors="replace"), "client": 1})
    assert outward.backlog.bytes <= (8 << 20) + (1 << 16)
    assert document.doc.get_state() == before


def _take(requests: RequestsDocument, update: bytes) -> None:
    with suppress(RemoteError):
        for piece in yproto.split_update(update):
            with suppress(RemoteError):
                requests.receive(piece.update, "eve")
