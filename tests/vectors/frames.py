"""Single messages, good and bad: ``frames.json``."""

from __future__ import annotations

from collections.abc import Mapping

from rtc_kernel import yproto
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.agent.serve.session import Board, Close, Session
from rtc_kernel.errors import CLOSE_CODES, Reason
from rtc_kernel.tables import Json

from .common import AGENT, FRONT, KERNEL, STEP1, entry, say_message

GOOD_FRAMES: Mapping[str, bytes] = {
    "step 1, empty state vector": STEP1,
    "step 1, one client": yproto.step1(yproto.write_state_vector({AGENT: 7})),
    "step 1, several clients up to 53 bits": yproto.step1(
        yproto.write_state_vector({0: 0, 127: 1, 128: 127, 2**32: 128, yproto.MAX_UINT: yproto.MAX_UINT})
    ),
    "step 2, empty update": yproto.step2(yproto.EMPTY_UPDATE),
    "step 2, 200 bytes: its length takes two bytes": yproto.step2(bytes(range(200))),
    "update, empty: heard, says nothing": yproto.update(yproto.EMPTY_UPDATE),
    "update, some bytes": yproto.update(b"\x01\x02\x03"),
    "awareness without entries: a sign of life": yproto.awareness(()),
    "awareness, one client": yproto.awareness([entry(FRONT, 1, {"user": {"name": "Ada é😀"}})]),
    "awareness, one that goes": yproto.awareness([entry(FRONT, 2, None)]),
    "awareness, three clients": yproto.awareness([entry(client, client, {}) for client in (0, 300, yproto.MAX_UINT)]),
    "permission denied": yproto.denied(CLOSE_CODES[Reason.UNAUTHORIZED][1]),
    "permission denied, characters of several bytes": yproto.denied("Nö 😀"),
    "query awareness": b"\x03",
    "a number that is written longer than needed": b"\x00\x02\x82\x00\x00\x00",
}

BAD_FRAMES: Mapping[str, bytes] = {
    "nothing": b"",
    "an unknown message type": b"\x04",
    "sync without a kind": b"\x00",
    "an unknown kind of sync": b"\x00\x03\x00",
    "step 1 without a body": b"\x00\x00",
    "step 1 that ends in its state vector": b"\x00\x00\x02\x01\x05",
    "step 1 whose state vector has bytes behind it": b"\x00\x00\x04\x01\x05\x07\x00",
    "step 1 that counts more clients than there are": b"\x00\x00\x03\x02\x05\x07",
    "step 1 that names a client twice": b"\x00\x00\x05\x02\x05\x07\x05\x08",
    "an update shorter than its length": b"\x00\x02\x05ab",
    "bytes behind the message": STEP1 + b"\x00",
    "a number without end": b"\x80" * 20,
    "a number of 54 bits": b"\x00\x00\x0a\x01\x01" + b"\xff" * 7 + b"\x1f",
    "a length beyond all memory": b"\x00\x02" + yproto.write_uint(yproto.MAX_UINT),
    "awareness that counts more than there are": b"\x01\x01\x05",
    "awareness with bytes behind it": b"\x01\x02\x00\x00",
    "awareness whose state is no UTF-8": b"\x01\x05\x01\x05\x01\x01\xff",
    "awareness whose state is no JSON": yproto.awareness([yproto.Entry(5, 1, "{")]),
    "awareness whose state is NaN": yproto.awareness([yproto.Entry(5, 1, "NaN")]),
    "an unknown kind of auth": b"\x02\x01\x00",
    "permission denied, from a peer": yproto.denied("you"),
    "query awareness with a body": b"\x03\x00",
    "an update that is none": yproto.update(b"\x01\x02\x03"),
}


def make_frames() -> list[Json]:
    """``frames.json``."""
    good = [
        {"name": name, "hex": data.hex(), "message": say_message(yproto.read_message(data))}
        for name, data in GOOD_FRAMES.items()
    ]
    bad = [{"name": name, "hex": data.hex(), "close": _closing(data)} for name, data in BAD_FRAMES.items()]
    return [*good, *bad]


def _closing(data: bytes) -> int:
    document = StateDocument(KERNEL)
    document.load()
    commands = Session(document, Board(), name="eve", role=Role.VIEW, now=0.0).receive_bytes(data, 0.0)
    assert isinstance(commands[-1], Close), data
    return commands[-1].code
