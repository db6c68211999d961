"""The copy of a message that is far too large is JSON as before, with both ends, and says what lies between."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.notebook import is_reference
from rtc_kernel.relay import cutting
from rtc_kernel.relay.cutting import cut, split
from rtc_kernel.wire import Codec, new_header

CODEC = Codec(b"key")
LIMIT = 2048


def frames(kind: str, content: dict[str, Any], *buffers: bytes, ascii_only: bool = False) -> list[bytes]:
    written = CODEC.write(new_header(kind, session="s", username="u"), {}, idents=[b"topic"], buffers=buffers)
    parts = [*written[3:6], json.dumps(content, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")]
    return [*written[:2], CODEC.sign(parts), *parts, *buffers]


def shortened(message: list[bytes], value_bytes: int = 4 * LIMIT) -> list[bytes]:
    short = cut(message, LIMIT, value_bytes, CODEC.sign)
    assert short is not None
    return list(short)


def test_what_is_small_passes_as_it_is() -> None:
    message = frames("stream", {"name": "stdout", "text": "x" * 1000})
    assert cut(message, LIMIT, LIMIT, CODEC.sign) is message


@given(
    st.lists(st.sampled_from(["a", "\\", '"', "\n", "é", "😀", "\u2028", "\x01", "u00e9", "\\ud83d"]), min_size=1),
    st.integers(0, 30),
    st.booleans(),
)
def test_a_cut_text_is_json_with_both_ends_and_says_how_much_lacks(
    pieces: list[str], shift: int, ascii_only: bool
) -> None:
    text = "x" * shift + "".join(pieces) * (3 * LIMIT // len("".join(pieces)))
    message = frames("stream", {"name": "stdout", "text": text}, ascii_only=ascii_only)
    read = CODEC.read(shortened(message), verify=True)
    short = read.content["text"]
    head, _, rest = short.partition("\n… ")
    tail = rest.partition(" …\n")[2]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(json.dumps(head, ensure_ascii=ascii_only).encode()) >= LIMIT // 2 - 12
    assert len(json.dumps(tail, ensure_ascii=ascii_only).encode()) >= LIMIT // 2 - 40
    assert len(short.encode()) < 2 * LIMIT
    assert "bytes of one message are left out here" in rest


def test_code_is_cut_and_what_stands_behind_it_stays() -> None:
    content = {"code": "y" * 9000, "silent": False, "store_history": True}
    read = CODEC.read(shortened(frames("execute_request", content)), verify=True)
    assert read.content["store_history"] is True
    assert 0 < len(read.content["code"]) < 2 * LIMIT


@pytest.mark.parametrize("kind", ["display_data", "execute_result", "update_display_data"])
def test_a_value_that_is_too_large_for_any_blob_is_named_with_its_size(kind: str) -> None:
    message = frames(kind, {"data": {"image/png": "A" * 20_000}, "metadata": {}})
    read = CODEC.read(shortened(message), verify=True)
    value = read.content["data"]["image/png"]
    assert is_reference(value)
    assert value["bytes"] == len(message[6])
    assert cut(message, LIMIT, 30_000, CODEC.sign) is message


def test_of_any_other_message_nothing_is_left() -> None:
    assert cut(frames("comm_msg", {"data": {}}, b"x" * 20_000), LIMIT, LIMIT, CODEC.sign) is None
    assert cut([b"x" * 20_000], LIMIT, LIMIT, CODEC.sign) is None
    assert cut(frames("stream", {"name": "x" * 5000, "text": "y" * 9000}), LIMIT, LIMIT, CODEC.sign) is None


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=9), st.integers(0, 8))
def test_any_frames_give_frames_or_nothing(given_frames: list[bytes], large: int) -> None:
    given_frames[large % len(given_frames)] = b'{"text": "' + given_frames[0] * 400 + b"\\" * 3000
    cut(given_frames, LIMIT, LIMIT, CODEC.sign)


@pytest.mark.parametrize("byte", [b"\\", b"\x80", b'"'])
def test_a_text_that_is_no_text_is_looked_at_for_a_moment_only(byte: bytes) -> None:
    message = frames("stream", {"name": "stdout", "text": ""})
    message[6] = b'{"text": "' + byte * (1 << 20)
    short = cut(message, LIMIT, LIMIT, CODEC.sign)
    assert short is None or len(short[6]) < 2 * LIMIT


@given(
    st.lists(st.sampled_from(["a", "\\", '"', "\n", "é", "😀", "u00e9"]), min_size=1, max_size=300),
    st.booleans(),
    st.booleans(),
)
def test_the_pieces_of_a_long_text_are_messages_and_together_the_text(
    pieces: list[str], ascii_only: bool, name_last: bool
) -> None:
    text = "".join(pieces)
    content = {"text": text, "name": "stderr"} if name_last else {"name": "stderr", "text": text}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "PIECE_BYTES", 64)
        read = [
            CODEC.read(list(piece), verify=False) for piece in split(frames("stream", content, ascii_only=ascii_only))
        ]
    assert "".join(message.content["text"] for message in read) == text
    assert {message.content["name"] for message in read} == {"stderr"}
    assert len({message.id for message in read}) == 1
    assert all(len(json.dumps(message.content["text"])) < 64 * 6 for message in read)


def test_what_is_no_stream_is_not_split() -> None:
    large = "x" * (2 * cutting.PIECE_BYTES)
    for message in (frames("display_data", {"data": {"text/plain": large}}), frames("execute_input", {"code": large})):
        assert list(split(message)) == [message]
    assert list(split([b"x" * 10])) == [[b"x" * 10]]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=9))
def test_any_frames_of_a_child_give_frames(given_frames: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "PIECE_BYTES", 8)
        assert list(split(given_frames))
        header = b'{"msg_type": "stream"}'
        assert list(split([b"<IDS|MSG>", b"", header, b"{}", b"{}", b'{"text": "' + b"".join(given_frames) + b'"}']))
