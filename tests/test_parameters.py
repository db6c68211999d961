"""Facts about ``-p NAME VALUE``: what a value is, where its cell stands, and in which language."""

from __future__ import annotations

import math
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rtc_kernel import parameters
from rtc_kernel.errors import SetupError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("True", True),
        ("None", None),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ('"1"', "1"),
        ("plain text", "plain text"),
        ("2024-01-01", "2024-01-01"),
        ("[1,", "[1,"),
        ("", ""),
    ],
)
def test_a_value_is_json_or_text(text: str, value: Any) -> None:
    assert parameters.parse_value(text) == value
    assert type(parameters.parse_value(text)) is type(value)


@given(VALUES)
def test_what_is_written_in_python_is_read_as_the_same_value(value: Any) -> None:
    scope: dict[str, Any] = {}
    exec(parameters.translate({"x": value}, language="python", kernel="python3"), scope)
    assert scope["x"] == value


def test_a_number_beyond_the_finite_is_a_float() -> None:
    scope: dict[str, Any] = {}
    code = parameters.translate({"a": math.inf, "b": [math.nan]}, language="python", kernel="python3")
    exec(code, scope)
    assert scope["a"] == math.inf
    assert math.isnan(scope["b"][0])


def notebook(*cells: Any, minor: int = 5) -> nbformat.NotebookNode:
    made = new_notebook(cells=list(cells))
    made.nbformat_minor = minor
    return made


def tagged(source: str, tag: str) -> nbformat.NotebookNode:
    return new_code_cell(source, metadata={"tags": [tag]})


def sources(made: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in made.cells]


def test_the_cell_stands_behind_the_one_that_is_tagged() -> None:
    made = notebook(new_markdown_cell("#"), tagged("x = 1", "parameters"), new_code_cell("x"))
    parameters.inject(made, {"x": 2}, language="python", kernel="python3")
    assert sources(made) == ["#", "x = 1", "# Parameters\nx = 2\n", "x"]
    assert made.cells[2].metadata.tags == ["injected-parameters"]
    nbformat.validate(made)


def test_an_earlier_injected_cell_is_replaced() -> None:
    made = notebook(tagged("x = 1", "parameters"), tagged("x = 9", "injected-parameters"))
    parameters.inject(made, {"x": 2}, language="python", kernel="python3")
    assert sources(made) == ["x = 1", "# Parameters\nx = 2\n"]


def test_without_a_tag_the_cell_stands_at_the_top() -> None:
    made = notebook(new_code_cell("x"))
    parameters.inject(made, {"x": 2}, language="python", kernel="python3")
    assert sources(made)[1:] == ["x"]


def test_an_older_notebook_gets_no_cell_id() -> None:
    made = notebook(minor=4)
    parameters.inject(made, {"x": 2}, language="python", kernel="python3")
    nbformat.validate(made)


def test_other_languages_are_papermill_s() -> None:
    assert "n=3" in parameters.translate({"n": 3}, language="bash", kernel="bash")
    assert 'x = "a"' in parameters.translate({"x": "a"}, language="julia", kernel="julia-1.11")
    assert 'x = "a"' in parameters.translate({"x": "a"}, language="R", kernel="ir")


@pytest.mark.parametrize(
    ("given_parameters", "language", "says"),
    [
        ({"a b": 1}, "python", "is no name"),
        ({"class": 1}, "python", "a word of Python"),
        ({"x": 1}, "brainfuck", "cannot be written in brainfuck"),
        ({"x": {"a": 1}}, "bash", "cannot be written in bash"),
    ],
)
def test_what_cannot_be_written_is_told(given_parameters: dict[str, Any], language: str, says: str) -> None:
    with pytest.raises(SetupError, match=says):
        parameters.translate(given_parameters, language=language, kernel="x")


def test_without_papermill_other_languages_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "papermill.translators", None)
    with pytest.raises(SetupError, match="pip install papermill"):
        parameters.translate({"x": 1}, language="bash", kernel="bash")
