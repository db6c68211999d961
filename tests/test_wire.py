"""wire: Jupyter frames, as jupyter_client writes and reads them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyter_client.session import Session

from rtc_kernel.errors import RemoteError
from rtc_kernel.wire import DELIMITER, Codec, new_header, pack, parse, split

KEY = b"a key"


@pytest.fixture
def codec() -> Codec:
    return Codec(KEY)


def test_reads_what_jupyter_client_writes(codec: Codec) -> None:
    session = Session(key=KEY)
    message = session.msg("execute_request", {"code": "print('é😀')"}, metadata={"cellId": "c1"})
    frames = session.serialize(message, ident=b"me")
    read = codec.read([*frames, b"buffer"])
    assert (read.type, read.content["code"], read.metadata["cellId"]) == ("execute_request", "print('é😀')", "c1")
    assert (read.session, read.idents, read.buffers) == (session.session, (b"me",), (b"buffer",))


def test_jupyter_client_reads_what_we_write(codec: Codec) -> None:
    session = Session(key=KEY)
    header = new_header("stream", session="s", username="u")
    frames = codec.write(header, {"name": "stdout", "text": "é"}, parent={"msg_id": "p"}, idents=[b"topic"])
    idents, rest = session.feed_identities(frames)
    message = session.deserialize(rest)
    assert idents == [b"topic"]
    assert (message["msg_type"], message["content"]["text"], message["parent_header"]["msg_id"]) == ("stream", "é", "p")
    assert message["header"]["date"].tzinfo is not None


def test_without_a_key_nothing_is_signed_and_everything_verifies() -> None:
    codec = Codec(b"")
    frames = codec.write(new_header("status", session="s", username="u"), {})
    assert split(frames).signature == b""
    assert codec.read(frames).type == "status"


def test_a_changed_frame_is_refused(codec: Codec) -> None:
    frames = codec.write(new_header("status", session="s", username="u"), {"execution_state": "busy"})
    frames[-1] = pack({"execution_state": "idle"})
    with pytest.raises(RemoteError, match="bad signature"):
        codec.read(frames)
    assert codec.read(frames, verify=False).content == {"execution_state": "idle"}


@given(st.lists(st.binary(max_size=30) | st.just(DELIMITER) | st.just(b"{}"), max_size=9))
def test_any_frames_give_a_message_or_a_remote_error(frames: list[bytes]) -> None:
    try:
        Codec(b"").read(frames)
    except RemoteError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_objects_round_trip_and_nothing_else_but_null_is_one(value: object) -> None:
    raw = json.dumps(value).encode()
    if value is None:
        assert parse(raw) == {}
    elif isinstance(value, dict):
        assert parse(raw) == value
        assert parse(pack(value)) == value
    else:
        with pytest.raises(RemoteError):
            parse(raw)


def test_a_deep_nest_is_a_remote_error() -> None:
    with pytest.raises(RemoteError):
        parse(b'{"a":' + b"[" * 100_000)


def test_what_json_does_not_have_is_written_as_null() -> None:
    assert pack({"a": [float("nan"), {"b": float("-inf")}], "c": 1.5}) == b'{"a":[null,{"b":null}],"c":1.5}'
