"""JSON in pieces is the same JSON, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.pieces import Text, dumps, execution_json, gather, write_json
from rtc_kernel.tables import Execution, Output, to_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)


@given(VALUES, st.integers(0, 4))
def test_any_value_reads_back(value: Any, indent: int) -> None:
    assert json.loads("".join(write_json(value, indent=indent))) == value


@given(st.lists(TEXTS))
def test_a_text_that_is_read_in_pieces_is_one_text_and_an_iterator_is_a_list(pieces: list[str]) -> None:
    value = {"text": Text(lambda: iter(pieces)), "list": iter(pieces), "none": iter(())}
    assert json.loads("".join(write_json(value))) == {"text": "".join(pieces), "list": pieces, "none": []}


def test_compact_json_is_as_short_as_one_call_would_make_it_and_indented_json_is_as_notebooks_have_it() -> None:
    value = {"a": [1, {"b": "é\n"}], "c": {}, "d": [], "e": None}
    assert "".join(write_json(value)) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert "".join(write_json(value, indent=1)) == json.dumps(value, ensure_ascii=False, indent=1)


def test_what_is_no_number_in_json_is_null() -> None:
    assert "".join(write_json([float("nan"), 1.5, float("inf")])) == "[null,1.5,null]"
    assert dumps({"x": float("-inf")}) == '{"x":null}'


@given(st.lists(TEXTS), st.integers(1, 20))
def test_gathered_pieces_are_large_and_together_the_same(pieces: list[str], chars: int) -> None:
    gathered = list(gather(pieces, chars))
    assert "".join(gathered) == "".join(pieces)
    assert all(len(piece) >= chars for piece in gathered[:-1])


def test_an_outline_with_its_texts_is_the_whole_record() -> None:
    error = Output(output_type="error", at=2.0, ename="E", evalue="v", traceback=("t",))
    printed = Output(output_type="stream", at=1.0, name="stdout", text="one\ntwo\n")
    run = Execution(id="e", code="x", outputs=(printed, error))
    outline = Execution(id="e", code="x", outputs=(Output(output_type="stream", at=1.0, name="stdout", text=""), error))
    written = "".join(write_json(execution_json(outline, lambda position: ["one\n", "two\n"] if position == 0 else [])))
    assert json.loads(written) == json.loads(json.dumps(to_json(run)))
