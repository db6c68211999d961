"""Any row is a request or is refused with a reason that names the column."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.agent.act.rows import COLUMNS, REQUEST_ID_CHARS, Reading, RowLimits, is_request_id, read_row
from rtc_kernel.tables import RequestState

LIMITS = RowLimits(code_bytes=100, value_bytes=50)

LEAST: dict[str, dict[str, Any]] = {
    "execute": {"code": "1"},
    "interrupt": {},
    "restart": {},
    "cancel": {"request": "r0"},
    "release": {},
    "input": {"execution": "e", "value": "hunter2"},
    "query": {"target": "rtc.columns"},
    "clear": {},
    "annotate": {"execution": "e", "key": "stars", "value": 5.0},
}
"""The smallest row of each action."""


def read(row: Any, request_id: str = "r1", role: str = "own", limits: RowLimits = LIMITS) -> Reading:
    return read_row(request_id, row, by="ada", role=role, ordinal=7, now=5.0, limits=limits)


def refusal(row: Any, **how: Any) -> str:
    reading = read(row, **how)
    assert reading.request.state is RequestState.REFUSED
    assert reading.request.columns == {}, "nothing is kept of what is refused"
    assert reading.secret is None
    assert reading.request.reason is not None
    return reading.request.reason


def test_every_action_has_its_least_row() -> None:
    assert LEAST.keys() == COLUMNS.keys()
    for action, columns in LEAST.items():
        request = read({"action": action, "created_at": 1.5, **columns}).request
        assert (request.state, request.action, request.reason) == (RequestState.REQUESTED, action, None)
        assert (request.id, request.by, request.ordinal, request.received_at) == ("r1", "ada", 7, 5.0)
        assert request.columns.keys() == COLUMNS[action].keys() - ({"value"} if action == "input" else set())


def test_execute_has_its_defaults_filled_in() -> None:
    first, second = read({"action": "execute", "code": ""}), read({"action": "execute", "code": ""})
    assert first.request.columns == {
        "code": "", "cell": None, "notebook": None, "after": None, "on_duplicate": "coalesce", "stop_on_error": True,
        "allow_stdin": True, "silent": False, "user_expressions": {},
    }  # fmt: skip
    assert first.request.columns["user_expressions"] is not second.request.columns["user_expressions"]


def test_whole_numbers_come_from_yjs_as_floats_and_are_integers_again() -> None:
    request = read({"action": "annotate", "execution": "e", "key": "k", "value": {"n": [3.0, 1.5, True, -0.0]}}).request
    assert repr(request.columns["value"]) == repr({"n": [3, 1.5, True, 0]})
    assert read({"action": "clear", "before": 12.0}).request.columns == {"before": 12}


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({}, "action"),
        ({"action": "explode"}, "action"),
        ({"action": ["execute"]}, "action"),
        ({"action": 1.0}, "action"),
        ([], "row"),
        ("execute", "row"),
        (None, "row"),
        ({"action": "execute"}, "code"),
        ({"action": "execute", "code": 5.0}, "code"),
        ({"action": "execute", "code": bytearray(b"1")}, "code"),
        ({"action": "execute", "code": "a\0b"}, "code"),
        ({"action": "execute", "code": "\ud800"}, "code"),
        ({"action": "execute", "code": "x" * 101}, "code"),
        ({"action": "execute", "code": "é" * 51}, "code"),
        ({"action": "execute", "code": "1", "cell": 4.0}, "cell"),
        ({"action": "execute", "code": "1", "cell": ""}, "cell"),
        ({"action": "execute", "code": "1", "cell": "c" * 5000}, "cell"),
        ({"action": "execute", "code": "1", "notebook": []}, "notebook"),
        ({"action": "execute", "code": "1", "after": ["r0"]}, "after"),
        ({"action": "execute", "code": "1", "after": "\n"}, "after"),
        ({"action": "execute", "code": "1", "on_duplicate": "merge"}, "on_duplicate"),
        ({"action": "execute", "code": "1", "on_duplicate": {}}, "on_duplicate"),
        ({"action": "execute", "code": "1", "stop_on_error": 1.0}, "stop_on_error"),
        ({"action": "execute", "code": "1", "allow_stdin": None}, "allow_stdin"),
        ({"action": "execute", "code": "1", "silent": "no"}, "silent"),
        ({"action": "execute", "code": "1", "user_expressions": {"a": 1.0}}, "user_expressions"),
        ({"action": "execute", "code": "1", "user_expressions": ["a"]}, "user_expressions"),
        ({"action": "execute", "code": "1", "user_expressions": {"a": "b" * 50}}, "user_expressions"),
        ({"action": "execute", "code": "1", "created_at": "now"}, "created_at"),
        ({"action": "execute", "code": "1", "created_at": math.nan}, "created_at"),
        ({"action": "execute", "code": "1", "created_at": True}, "created_at"),
        ({"action": "execute", "code": "1", "kernel": "k"}, "kernel"),
        ({"action": "interrupt", "execution": 5.0}, "execution"),
        ({"action": "restart", "now": True}, "now"),
        ({"action": "cancel"}, "request"),
        ({"action": "cancel", "request": None}, "request"),
        ({"action": "release", "request": 1.0}, "request"),
        ({"action": "input", "value": "x"}, "execution"),
        ({"action": "input", "execution": "e"}, "value"),
        ({"action": "input", "execution": "e", "value": 5.0}, "value"),
        ({"action": "input", "execution": "e", "value": "x" * 51}, "value"),
        ({"action": "query"}, "target"),
        ({"action": "query", "target": ""}, "target"),
        ({"action": "query", "target": "t", "input": math.inf}, "input"),
        ({"action": "query", "target": "t", "input": ["x" * 50]}, "input"),
        ({"action": "query", "target": "t", "fresh": 0.0}, "fresh"),
        ({"action": "clear", "before": "noon"}, "before"),
        ({"action": "annotate", "execution": "e", "key": "rtc_gap", "value": 1.0}, "key"),
        ({"action": "annotate", "execution": "e", "key": "k" * 257, "value": 1.0}, "key"),
        ({"action": "annotate", "execution": "e", "key": "k"}, "value"),
        ({"action": "annotate", "execution": "e", "key": "k", "value": {"b": bytearray(b"x")}}, "value"),
        ({"action": "annotate", "execution": "e", "key": "k", "value": 1 << 70}, "value"),
        ({"action": "annotate", "execution": "e", "key": "k", "value": {"\ud800": 1.0}}, "value"),
    ],
)
def test_what_is_wrong_is_named_by_its_column(row: Any, column: str) -> None:
    name, colon, rest = refusal(row).partition(": ")
    assert (name, colon) == (column, ": ")
    assert rest


def test_a_value_may_be_nested_but_not_for_ever() -> None:
    def nested(levels: int) -> Any:
        return [nested(levels - 1)] if levels else 1.0

    limits = RowLimits()
    row = {"action": "annotate", "execution": "e", "key": "k"}
    assert read({**row, "value": nested(64)}, limits=limits).request.state is RequestState.REQUESTED
    assert refusal({**row, "value": nested(65)}, limits=limits).startswith("value: ")
    deep: Any = []
    deep.append(deep)
    assert refusal({**row, "value": deep}, limits=limits).startswith("value: ")


@pytest.mark.parametrize("column", ["by", "state", "reason", "execution"])
@pytest.mark.parametrize("value", [None, "ada", "done", 1.0])
def test_columns_of_the_agent_are_refused(column: str, value: Any) -> None:
    assert refusal({"action": "execute", "code": "1", column: value}) == (
        f"{column}: only the agent writes it, leave it out"
    )


def test_roles() -> None:
    assert refusal({"action": "clear"}, role="run") == "action: clear needs the role own"
    assert refusal({"action": "execute", "code": "1"}, role="view").startswith("action: a link of role view")
    assert read({"action": "execute", "code": "1"}, role="run").request.state is RequestState.REQUESTED


@pytest.mark.parametrize("request_id", ["", "a\nb", "x" * (REQUEST_ID_CHARS + 1), "\ud800", "\0"])
def test_an_id_that_cannot_be_kept_is_refused(request_id: str) -> None:
    assert not is_request_id(request_id)
    assert refusal({"action": "restart"}, request_id=request_id).startswith("request_id: ")
    assert is_request_id("é 2")


def test_what_is_typed_is_the_secret_and_stands_nowhere_else() -> None:
    reading = read({"action": "input", "execution": "e", "value": "hunter2"})
    assert reading.secret == "hunter2"
    assert reading.request.columns == {"execution": "e", "since": None}
    assert "hunter2" not in repr(reading)
    assert reading.request.digest == read({"action": "input", "execution": "e", "value": "other"}).request.digest


@pytest.mark.parametrize(
    "row",
    [
        {"action": "input", "value": "hunter2"},
        {"action": "input", "execution": "hunter2" * 1000, "value": "hunter2"},
        {"action": "inptu", "execution": "e", "value": "hunter2"},
        {"action": "hunter2"},
        {"action": "input", "execution": "e", "value": ["hunter2"]},
        "hunter2",
    ],
)
def test_a_refused_row_repeats_no_value(row: Any) -> None:
    reading = read(row)
    assert "hunter2" not in repr((reading, reading.request))


def test_a_digest_is_of_action_and_columns_and_not_of_the_time() -> None:
    def digest(**columns: Any) -> str:
        return read({"action": "execute", **columns}).request.digest

    first = digest(code="1", cell="c")
    assert len(first) == 64
    assert first == digest(cell="c", code="1", created_at=9.0)
    assert first != digest(code="1", cell=None)
    assert first != digest(code="2", cell="c")
    assert read({"action": "annotate", **LEAST["annotate"]}).request.digest != (
        read({"action": "annotate", **LEAST["annotate"], "value": 6.0}).request.digest
    )


def test_the_name_of_a_strange_column_is_cut() -> None:
    assert refusal({"action": "restart", "x" * 10_000: 1.0}) == f"{'x' * 64}: no column of restart, leave it out"
    assert refusal({"action": "restart", "a\nb": 1.0}).startswith("'a\\nb': ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary().map(bytearray),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
NAMES = sorted({name for columns in COLUMNS.values() for name in columns} | {"by", "state", "reason", "created_at"})
ROWS = JSON | st.builds(
    lambda action, least, more: {"action": action, **(LEAST[action] if least else {}), **more},
    st.sampled_from(sorted(COLUMNS)),
    st.booleans(),
    st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["r0", "coalesce"]), max_size=3),
)


@given(row=ROWS, request_id=st.text(st.characters(), max_size=140), role=st.sampled_from(["view", "run", "own"]))
def test_any_row_gives_a_reading(row: Any, request_id: str, role: str) -> None:
    reading = read(row, request_id, role)
    request = reading.request
    assert request.state in (RequestState.REQUESTED, RequestState.REFUSED)
    assert (request.reason is None) == (request.state is RequestState.REQUESTED)
    assert (reading.secret is not None) == (request.action == "input" and request.reason is None)
    assert "value" not in request.columns or request.action == "annotate"
    assert read(row, request_id, role) == reading, "the same row reads the same"
