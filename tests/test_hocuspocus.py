"""Frames of a Hocuspocus relay: what is written is read back, and any bytes give values or one error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtc_kernel import hocuspocus, yproto
from rtc_kernel.errors import Reason, RemoteError

NAME = "räum/k-1/state/0f"


def read(tail: str) -> hocuspocus.Message:
    name, message = hocuspocus.read_frame(yproto.write_string(NAME) + bytes.fromhex(tail))
    assert name == NAME
    return message


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("00 00 01 00", yproto.Step1({})),
        ("00 01 02 00 00", yproto.Step2(b"\0\0")),
        ("00 02 02 00 00", yproto.Update(b"\0\0")),
        ("04 00 01 00", yproto.Step1({})),
        ("04 01 02 00 00", yproto.Step2(b"\0\0")),
        ("01 01 00", yproto.Awareness(())),
        ("03", yproto.Query()),
        ("02 02 08 72 65 61 64 6f 6e 6c 79", hocuspocus.Granted(False)),
        ("02 02 0a 72 65 61 64 2d 77 72 69 74 65", hocuspocus.Granted(True)),
        ("02 01 02 6e 6f", hocuspocus.Refused("no")),
        ("02 00", hocuspocus.Asked()),
        ("05 02 c3 a9", hocuspocus.Told("é")),
        ("07 02 62 79", hocuspocus.Closed("by")),
        ("08 01", hocuspocus.Status(True)),
        ("08 00", hocuspocus.Status(False)),
        ("08 01 ff", hocuspocus.Status(True)),  # a later version may say more
        ("09", hocuspocus.Ping(True)),
        ("0a", hocuspocus.Ping(False)),
        ("06 01 78", hocuspocus.Unknown(6)),
        ("63 00 00", hocuspocus.Unknown(99)),
    ],
)
def test_messages_are_read(tail: str, message: hocuspocus.Message) -> None:
    assert read(tail) == message


@pytest.mark.parametrize("tail", ["", "00", "00 03 00", "00 00 01 00 00", "01 05", "02", "02 07", "05 09 61", "08"])
def test_messages_of_a_known_kind_that_cannot_be_read_are_an_error(tail: str) -> None:
    with pytest.raises(RemoteError) as caught:
        read(tail)
    assert caught.value.reason is Reason.MALFORMED


def test_a_name_beyond_its_limit_is_not_read() -> None:
    with pytest.raises(RemoteError):
        hocuspocus.read_frame(hocuspocus.frame("x" * (hocuspocus.NAME_BYTES + 1), b"\x03"))


def test_what_is_asked_is_as_hocuspocus_reads_it() -> None:
    """The bytes that its provider sends (measured with 4.7)."""
    assert hocuspocus.token("d", "sé") == bytes.fromhex("01 64 02 00 03 73 c3 a9")
    assert hocuspocus.close("d") == bytes.fromhex("01 64 07 04 64 6f 6e 65")


@given(st.text(max_size=60), st.binary(max_size=40))
def test_frames_are_read_back(name: str, update: bytes) -> None:
    name = name.encode("utf-8", "replace").decode()
    assert hocuspocus.read_frame(hocuspocus.frame(name, yproto.update(update))) == (name, yproto.Update(update))


@given(st.binary(max_size=80))
@example(b"\x00\x02\x02" + b"\xff" * 9)
def test_any_bytes_give_a_frame_or_a_remote_error(data: bytes) -> None:
    with contextlib.suppress(RemoteError):
        name, message = hocuspocus.read_frame(data)
        assert isinstance(name, str)
        assert repr(message)
