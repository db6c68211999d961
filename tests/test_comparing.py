"""What two runs of the same code cannot have in common is no difference; everything else is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtc_kernel.comparing import comparable, differences


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def result(text: str, count: int = 1, **more: Any) -> dict[str, Any]:
    data = {"text/plain": text, **more}
    return {"output_type": "execute_result", "execution_count": count, "data": data, "metadata": {}}


def error(*traceback: str, evalue: str = "no") -> dict[str, Any]:
    return {"output_type": "error", "ename": "ValueError", "evalue": evalue, "traceback": list(traceback)}


def differ(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[str]:
    return differences(comparable(one), comparable(other))


WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([result("1", 3)], [result("1", 30)]),
        ([result("<A at 0x7f9e6b352d90>")], [result("<A at 0x55d1c0ffee>")]),
        ([stream("<A at 0x7f9e6b352d90>\n")], [stream("<A at 0x55d1c0ffee>\n")]),
        ([stream("a\n"), stream("w\n", "stderr"), stream("b\n")], [stream("a\nb\n"), stream("w\n", "stderr")]),
        ([stream("w\n", "stderr"), stream("a\n")], [stream("a\n"), stream("w\n", "stderr")]),
        ([stream("")], []),
        ([stream("/tmp/ipykernel_12/34.py:1: Warning\n")], [stream("/var/x/ipykernel_99/1.py:1: Warning\n")]),
        ([error("\x1b[31mValueError\x1b[0m: no")], [error("ValueError: no")]),
        ([error("Cell In[3], line 1", "x")], [error("Cell In[12], line 1\nx")]),
        ([error("File /a/b c/x.py:12, in f")], [error("File /a/b c/x.py:12, in f")]),
        ([error("File ~/env/lib/x.py:12, in f")], [error("File /opt/lib/x.py:12, in f")]),
        ([error(r"File C:\env\x.py:12")], [error("File /opt/x.py:12")]),
        ([error("<ipython-input-3-abc123> in f")], [error("<ipython-input-9-def456> in f")]),
        ([error("", evalue="<object at 0x7f9e6b352d90>")], [error("", evalue="<object at 0x55d1c0ffee>")]),
        ([result("W", **{WIDGET: {"model_id": "a", "v": 2}})], [result("W", **{WIDGET: {"model_id": "b", "v": 2}})]),
        ([result("P", **{"image/png": "aGk\n=\n"})], [result("P", **{"image/png": "aGk="})]),
    ],
)
def test_what_cannot_be_the_same_is_no_difference(one: list[Any], other: list[Any]) -> None:
    assert differ(one, other) == []


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ([stream("0.12\n")], [stream("0.13\n")], ["-stdout: 0.12", "+stdout: 0.13"]),
        ([stream("a\n")], [stream("a")], ["+stdout: (no line end)"]),
        ([stream("a\n")], [stream("a\n", "stderr")], ["-stdout: a", "+stderr: a"]),
        ([stream("a\n")], [], ["-stdout: a"]),
        ([], [result("1")], ["+execute_result text/plain: 1"]),
        ([result("1")], [result("1", **{"text/html": "<b>1</b>"})], ["+execute_result text/html: <b>1</b>"]),
        ([error("x:1")], [error("x:2")], ["-  x:1", "+  x:2"]),
        ([error("x")], [error("x", evalue="yes")], ["-error: ValueError: no", "+error: ValueError: yes"]),
        ([result("0x7f")], [result("0x80")], ["-execute_result text/plain: 0x7f", "+execute_result text/plain: 0x80"]),
        (
            [result("P", **{"image/png": "aGk="})],
            [result("P", **{"image/png": "aGo="})],
            ["-execute_result image/png: aGk=", "+execute_result image/png: aGo="],
        ),
    ],
)
def test_everything_else_is_and_says_what(one: list[Any], other: list[Any], says: list[str]) -> None:
    lines = differ(one, other)
    assert set(says) <= set(lines)
    assert all(line[0] in "@ -+" for line in lines)


def test_a_display_between_two_streams_keeps_them_apart() -> None:
    assert differ([stream("a\n"), result("1"), stream("b\n")], [stream("a\nb\n"), result("1")])


def test_a_line_of_millions_of_characters_is_compared() -> None:
    text = "x" * 3_000_000 + "ipykernel_1"
    assert differ([stream(text)], [stream(text)]) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from(["text/plain", "text/html", "image/png", "application/json", WIDGET])
OUTPUTS = st.lists(
    st.one_of(
        st.builds(stream, st.text(max_size=10), st.sampled_from(["stdout", "stderr"])),
        st.builds(error, st.text(max_size=10), evalue=st.text(max_size=5)),
        st.builds(lambda data: result("x") | {"data": data}, st.dictionaries(KINDS, JSON, max_size=2)),
    ),
    max_size=4,
)


@settings(max_examples=200)
@given(OUTPUTS, OUTPUTS)
def test_any_outputs_are_compared_and_equal_ones_are_the_same(one: list[Any], other: list[Any]) -> None:
    assert differ(one, copy.deepcopy(one)) == []
    assert bool(differ(one, other)) == bool(differ(other, one))
    assert comparable(one) == comparable(copy.deepcopy(one))
