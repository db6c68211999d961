"""Two implementations read the same: our vectors are what the code writes today, and what Yjs wrote is read by us."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Array, Doc, XmlElement
from vectors import files
from vectors.common import KERNEL, READERS, replica, say_message
from vectors.sessions import Play

from rtc_kernel import moments, yproto
from rtc_kernel.agent.act.rows import RowLimits, read_row
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.agent.serve.session import Board, Close, Session
from rtc_kernel.errors import CLOSE_CODES, RemoteError
from rtc_kernel.tables import Json, Output, RequestState, execution_from_json, to_json
from rtc_kernel.wire import finite

HERE = Path(__file__).parent / "vectors"


@cache
def read(name: str) -> list[Json]:
    cases: list[Json] = json.loads((HERE / name).read_text(encoding="utf-8"))
    return cases


def each(*names: str) -> Any:
    """Every case of these files, by its name."""
    cases = [case for name in names for case in read(name)]
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def bare(value: Any) -> Any:
    """A value without the columns that are null: null and absent are the same."""
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if item is not None}
    return [bare(item) for item in value] if isinstance(value, list | tuple) else value


def bytes_of(hexes: list[str]) -> list[bytes]:
    return [bytes.fromhex(one) for one in hexes]


def records_of(case: Json, updates: list[str] | None = None) -> Any:
    doc = replica(bytes_of(case["updates"] if updates is None else updates))
    return bare(READERS[case["room"]](doc))


# --- ours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", files.FILES)
def test_what_is_committed_is_what_the_code_writes_today(name: str) -> None:
    made = json.loads(files.dump(files.FILES[name]()))
    assert [case["name"] for case in made] == [case["name"] for case in read(name)], "run `python -m vectors` in tests"
    for committed, case in zip(read(name), made, strict=True):
        assert files.same(committed, case), f"{case['name']}: run `python -m vectors` in tests"


def test_a_vector_that_says_something_else_is_noticed() -> None:
    case = read("python/documents.json")[1]
    for part in ("updates", "vector", "records"):
        other = json.loads(json.dumps(case).replace("01", "02")) if part == "updates" else {**case, part: []}
        assert not files.same(case, other)


@each("python/documents.json")
def test_the_updates_of_a_document_give_its_records(case: Json) -> None:
    assert records_of(case) == bare(case["records"])


def test_every_close_code_is_in_some_session() -> None:
    assert {case["close"] for case in read("python/sessions.json")} >= {code for code, _ in CLOSE_CODES.values()}


@each("python/sessions.json")
def test_all_that_is_said_in_a_session_is_a_message_except_what_it_is_closed_for(case: Json) -> None:
    for step in case["steps"][:-1]:
        yproto.read_message(bytes.fromhex(step["hex"]))
    if case["close"] is None:
        yproto.read_message(bytes.fromhex(case["steps"][-1]["hex"]))


@each("python/moments.json")
def test_a_record_of_the_history_was_so_at_those_times(case: Json) -> None:
    growth: dict[int, list[moments.Step]] = {}
    for position, chars, at in case["marks"]:
        growth.setdefault(position, []).append(moments.Step(chars, at))
    run = execution_from_json(case["execution"])
    assert moments.times(run, growth) == case["times"]
    for moment in case["moments"]:
        was = moments.execution_at(run, growth, moment["at"])
        assert (None if was is None else to_json(was)) == moment["execution"], moment["at"]


# --- of both ---------------------------------------------------------------------------------------------------

FRAMES = [*read("frames.json"), *read("typescript/frames.json")]


@pytest.mark.parametrize("case", FRAMES, ids=[case["name"] for case in FRAMES])
def test_a_frame_means_what_it_should_or_closes_its_sender(case: Json) -> None:
    data = bytes.fromhex(case["hex"])
    if "message" in case:
        assert say_message(yproto.read_message(data)) == case["message"]
        return
    document = StateDocument("k")
    document.load()
    commands = Session(document, Board(), name="eve", role=Role.VIEW, now=0.0).receive_bytes(data, 0.0)
    assert isinstance(commands[-1], Close)
    assert commands[-1].code == case["close"]


@each("typescript/frames.json")
def test_what_we_encode_is_what_y_protocols_encodes(case: Json) -> None:
    message = yproto.read_message(bytes.fromhex(case["hex"]))
    match message:
        case yproto.Step1(clocks):
            ours = yproto.step1(yproto.write_state_vector(clocks))
        case yproto.Step2(update):
            ours = yproto.step2(update)
        case yproto.Update(update):
            ours = yproto.update(update)
        case yproto.Awareness(entries):
            ours = yproto.awareness(entries)
        case yproto.Denied(reason):
            ours = yproto.denied(reason)
        case _:
            ours = b"\x03"
    assert ours.hex() == case["hex"]


# --- theirs ----------------------------------------------------------------------------------------------------


@each("typescript/documents.json")
def test_a_document_that_yjs_wrote_is_read_as_what_it_means(case: Json) -> None:
    assert records_of(case) == bare(case["records"])
    assert records_of(case, case["updates"][::-1]) == bare(case["records"]), "in any order"


@each("typescript/requests.json")
def test_rows_that_a_yjs_client_wrote_are_taken_as_what_they_mean(case: Json) -> None:
    document = RequestsDocument("k")
    received = [row for update in bytes_of(case["updates"]) for row in document.receive(update, "ada").rows]
    values = {row.id: row.value for row in received}
    assert list(values) == list(case["rows"]), "in the order in which they were written"
    assert bare({key: plain(value) for key, value in values.items()}) == bare(case["rows"])
    refused = {}
    for row in received:
        reading = read_row(row.id, row.value, by="ada", role="run", ordinal=1, now=1.0, limits=RowLimits())
        if reading.request.state is RequestState.REFUSED:
            refused[row.id] = (reading.request.reason or "").partition(":")[0]
    assert refused == case["refused"]


def plain(value: Any) -> Any:
    """As JSON has it; null for a Yjs type that is no row."""
    if isinstance(value, Array | XmlElement):
        return None
    cell = Output(output_type="display_data", at=0.0, data={"value": value})
    return bare(finite(to_json(cell))["data"]).get("value")


@each("typescript/sessions.json")
def test_a_client_made_of_y_protocols_is_understood(case: Json) -> None:
    if case["room"] == "state":
        document: StateDocument | RequestsDocument = StateDocument("k")
        document.load()
    else:
        document = RequestsDocument("k")
        document.take_update()
    play = Play(case["name"], document, role=Role.RUN)
    for step in case["steps"]:
        play.say(bytes.fromhex(step["hex"]), step["note"])
    heard = [bytes.fromhex(step["hex"]) for step in play.steps if step["from"] == "server"]
    assert [say_message(yproto.read_message(data))["type"] for data in heard] == case["answers"]
    assert play.code is None


@each("typescript/echoes.json")
def test_what_a_stock_replica_says_of_our_updates_is_nothing_new_and_gives_the_same_records(case: Json) -> None:
    of = next(one for one in read("python/documents.json") if one["name"] == case["of"])
    assert case["vector"] == of["vector"]
    assert records_of(of, case["echoes"]) == bare(of["records"])
    assert records_of(of, [case["whole"]]) == bare(of["records"])
    (agent, *others) = [client for client, _ in case["vector"]]
    if of["room"] == "state" and not others:
        document = StateDocument("k")
        document._doc = Doc(client_id=agent)
        for update in bytes_of(of["updates"]):
            document._doc.apply_update(update)
        assert all(document.contains(echo) for echo in bytes_of([*case["echoes"], case["whole"]]))
        document._doc = Doc(client_id=agent)
        assert not document.contains(bytes.fromhex(case["whole"]))
    elif of["room"] == "requests":
        requests = RequestsDocument(KERNEL)
        with pytest.raises(RemoteError):  # rows of a former life of the agent, in its name
            requests.receive(bytes.fromhex(case["whole"]), "ada")
