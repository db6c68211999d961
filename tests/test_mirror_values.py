"""What of a decoded message may enter a row."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.agent.mirror.values import (
    MAX_DEPTH,
    Limits,
    bound,
    clean,
    clean_text,
    cut,
    get_count,
    get_list,
    get_object,
    get_text,
    read_bundle,
    read_image_size,
)
from rtc_kernel.tables import Change, PutBlob

ANY_TEXT = st.text(st.characters(codec=None))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
LIMITS = Limits(inline_bytes=100, blob_bytes=1000)


@given(ANY_TEXT)
def test_clean_text_is_utf8_without_nul_and_as_long(text: str) -> None:
    clean = clean_text(text)
    assert clean.encode().decode() == clean
    assert "\0" not in clean
    assert len(clean) == len(text)


@given(ANY_JSON)
def test_a_clean_value_is_json_and_clean_already(value: Any) -> None:
    once = clean(value)
    assert json.loads(json.dumps(once, allow_nan=False)) == once == clean(once)


def test_numbers_fit_into_64_bits_or_are_floats() -> None:
    assert clean([2**63 - 1, 2**63, 10**4000, math.nan, -math.inf, True]) == [
        2**63 - 1,
        2.0**63,
        None,
        None,
        None,
        True,
    ]


def test_what_is_nested_too_deeply_is_null() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    value, depth = clean(deep), 0
    while value is not None:
        value, depth = value[0], depth + 1
    assert depth == MAX_DEPTH


@given(ANY_JSON)
def test_a_reader_answers_with_its_type(value: Any) -> None:
    obj = {"x": value}
    assert isinstance(get_text(obj, "x"), str)
    assert isinstance(get_object(obj, "x"), dict)
    assert isinstance(get_list(obj, "x"), list)
    assert get_count(obj, "x") is None or 0 <= (get_count(obj, "x") or 0) < 2**63


@given(st.text(), st.integers(0, 50))
def test_cut_keeps_whole_code_points(text: str, size: int) -> None:
    short = cut(text, size)
    assert text.startswith(short)
    assert size - 3 <= len(short.encode()) <= size or short == text


def bundle(**data: Any) -> tuple[dict[str, Any], list[Change]]:
    changes: list[Change] = []
    return read_bundle({name.replace("_", "/"): value for name, value in data.items()}, LIMITS, changes), changes


def test_a_value_up_to_the_limit_stays_inline() -> None:
    data, changes = bundle(text_plain="é" * 50, application_json={"a": [1, "x"]})
    assert data == {"text/plain": "é" * 50, "application/json": {"a": [1, "x"]}}
    assert changes == []


def test_a_text_above_the_limit_is_a_blob_with_a_preview() -> None:
    data, changes = bundle(text_plain="é" * 51)
    raw = ("é" * 51).encode()
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    assert data["text/plain"] == {"blob": digest, "bytes": 102, "preview": "é" * 51}
    assert changes == [PutBlob(digest, raw, "text/plain")]


def test_a_preview_is_about_a_kibibyte() -> None:
    changes: list[Change] = []
    read = read_bundle({"text/html": "é" * 5000}, Limits(inline_bytes=2000), changes)
    assert read["text/html"]["preview"] == "é" * 512


@pytest.mark.parametrize("media_type", ["image/png", "application/pdf", "audio/wav", "video/mp4"])
def test_base64_above_the_limit_is_decoded(media_type: str) -> None:
    raw = bytes(range(200))
    changes: list[Change] = []
    data = read_bundle({media_type: base64.encodebytes(raw).decode()}, LIMITS, changes)
    assert (data[media_type]["bytes"], data[media_type]["preview"]) == (200, None)
    assert changes == [PutBlob(data[media_type]["blob"], raw, media_type)]


@pytest.mark.parametrize(
    ("media_type", "text"), [("image/svg+xml", "<svg>" + " " * 200), ("image/png", "no base64! " * 20)]
)
def test_svg_and_what_is_no_base64_are_text(media_type: str, text: str) -> None:
    changes: list[Change] = []
    data = read_bundle({media_type: text}, LIMITS, changes)
    assert data[media_type]["preview"] == text
    assert changes == [PutBlob(data[media_type]["blob"], text.encode(), media_type)]


def test_json_above_the_limit_is_dumped() -> None:
    data, changes = bundle(application_json=list(range(100)))
    assert isinstance(changes[0], PutBlob)
    assert json.loads(changes[0].data) == list(range(100))
    assert data["application/json"]["bytes"] == len(changes[0].data)


def test_above_the_blob_limit_only_the_size_is_named() -> None:
    data, changes = bundle(text_plain="x" * 1001)
    assert data["text/plain"] == {"blob": None, "bytes": 1001, "preview": "x" * 1001}
    assert changes == []


def test_bound_names_the_size_of_what_is_too_large() -> None:
    assert bound({"a": "x"}, LIMITS) == {"a": "x"}
    assert bound({"a": "x" * 100}, LIMITS) == {"bytes": 108}


# --- the size of an image


def png(width: int, height: int) -> bytes:
    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + b"IHDR" + header + bytes(200)


def jpeg(width: int, height: int, frame: int = 0xC0) -> bytes:
    application = b"\xff\xe0" + (16).to_bytes(2) + b"JFIF" + bytes(10)
    table = b"\xff\xc4" + (5).to_bytes(2) + bytes(3)
    start = b"\xff\xff" + bytes([frame]) + (17).to_bytes(2) + b"\x08" + height.to_bytes(2) + width.to_bytes(2)
    return b"\xff\xd8" + application + table + start + bytes(200)


@pytest.mark.parametrize(
    ("media_type", "data"),
    [("image/png", png(640, 480)), ("image/jpeg", jpeg(640, 480)), ("image/jpeg", jpeg(640, 480, frame=0xC2))],
)
def test_an_image_that_is_a_blob_says_how_large_it_is_shown(media_type: str, data: bytes) -> None:
    changes: list[Change] = []
    read = read_bundle({media_type: base64.b64encode(data).decode()}, LIMITS, changes)
    assert read[media_type]["preview"] == {"width": 640, "height": 480}
    assert changes == [PutBlob(read[media_type]["blob"], data, media_type)]


@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/gif"])
@pytest.mark.parametrize(
    "data", [b"", png(0, 5), png(1, 1)[:20], jpeg(9, 9)[:30], b"\xff\xd8" + b"\xff" * 99, b"GIF89a"]
)
def test_of_a_header_that_is_none_nothing_is_said(media_type: str, data: bytes) -> None:
    assert read_image_size(media_type, data) is None


@given(
    st.sampled_from(["image/png", "image/jpeg"]), st.sampled_from([b"", png(1, 1)[:16], jpeg(1, 1)[:20]]), st.binary()
)
def test_any_bytes_give_a_size_or_none(media_type: str, front: bytes, rest: bytes) -> None:
    size = read_image_size(media_type, front + rest)
    assert size is None or (0 < size["width"] < 1 << 32 and 0 < size["height"] < 1 << 32)


def test_an_execution_that_has_used_its_bytes_keeps_only_small_values_inline() -> None:
    limits = Limits(inline_bytes=5000, execution_bytes=10_000)
    assert limits.within(9_999) is limits
    assert limits.within(10_000).inline_bytes == 1024
    assert Limits(inline_bytes=300, execution_bytes=1).within(5).inline_bytes == 300
