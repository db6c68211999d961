"""ranges: which bytes a Range header asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.agent.serve.ranges import Range, read_range


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-4", Range(0, 5, 10)),
        ("Bytes = 8 - ", Range(8, 10, 10)),
        ("bytes=-3", Range(7, 10, 10)),
        ("bytes=-99", Range(0, 10, 10)),
        ("bytes=9-99", Range(9, 10, 10)),
        ("bytes=-0", Range(10, 10, 10)),
        ("bytes=10-", Range(10, 10, 10)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("bytes=１-2", None),
        ("", None),
        (None, None),
    ],
)
def test_one_range_is_understood_and_anything_else_gives_the_whole(header, found):
    assert read_range(header, 10) == found


@given(st.text() | st.from_regex(r"bytes=[0-9]{0,4}-[0-9]{0,4}", fullmatch=True), st.integers(0, 5000))
def test_any_header_gives_bytes_that_are_there_or_nothing(header, size):
    found = read_range(header, size)
    assert found is None or 0 <= found.start <= found.stop <= found.size == size


@given(st.binary(max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_that_is_within_the_bytes_is_that_slice(data, first, length):
    found = read_range(f"bytes={first}-{first + length}", len(data))
    assert data[found.start : found.stop] == data[first : first + length + 1]
