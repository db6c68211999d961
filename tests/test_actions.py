"""Actions: what a peer writes at once is kept at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from pycrdt import Doc, Map
from serving import KERNEL, eventually

from rtc_kernel import link
from rtc_kernel.agent import actions
from rtc_kernel.agent.actions import Actions
from rtc_kernel.agent.keep.store import Store
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.config import RTCKernel
from rtc_kernel.tables import Json, KernelState, PutKernel, Request
from rtc_kernel.wire import Codec, Message, new_header


class House:
    """The agent's part: a real store, and who writes down what is said."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.codec = Codec(key=b"")
        self.said: list[link.Record] = []

    def say(self, record: link.Record) -> None:
        self.said.append(record)

    def push_requests(self, update: bytes) -> None:
        pass

    def keep_with(self, requests: Sequence[Request], stored: Callable[[], None]) -> None:
        self.store.put_requests(requests, now=1.0)
        stored()

    def open_executions(self) -> Sequence[Any]:
        return []


def update_of(rows: dict[str, Json]) -> bytes:
    """What a stock peer sends that writes rows in one transaction."""
    doc: Doc[Any] = Doc()
    with doc.transaction():
        for key, columns in rows.items():
            doc.get("requests", type=Map)[key] = Map(columns)
    return doc.get_update()


def play(tmp_path: Path, scene: Callable[[Actions, House], Any]) -> None:
    async def run() -> None:
        with closing(Store.open(tmp_path / f"{KERNEL}.sqlite3")) as store:
            store.begin(relay_id="r1", kernel={"id": KERNEL, "name": "python"}, now=1.0)
            house = House(store)
            played = Actions(cast(actions.House, house), kernel=KERNEL, settings=RTCKernel())
            played.load(same_relay=True, catch_up_seq=0)
            played.receive_seq(0)
            played.receive_changes([PutKernel(KERNEL, {"state": KernelState.IDLE})])
            await scene(played, house)

    asyncio.run(run())


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The requests of each write to the store, by id."""
    found: list[list[str]] = []
    original = Store.put_requests

    def put_requests(self: Store, requests: Sequence[Request], **more: Any) -> None:
        found.append([request.id for request in requests])
        original(self, requests, **more)

    monkeypatch.setattr(Store, "put_requests", put_requests)
    return found


def test_the_rows_of_one_update_are_in_the_store_together_or_not_at_all(
    tmp_path: Path, writes: list[list[str]]
) -> None:
    keys = [f"q{number}" for number in range(20)]

    async def scene(played: Actions, house: House) -> None:
        update = update_of({key: {"action": "execute", "code": key} for key in keys})
        played.receive_update(update, by="ann", role=Role.RUN)
        await eventually(lambda: house.said, "the first is sent")
        (first,) = writes
        assert list(dict.fromkeys(first)) == keys
        assert [request.id for request in house.store.requests(open_only=True)] == keys

    play(tmp_path, scene)


def test_what_stops_the_kernel_does_not_wait_for_the_disk_with_the_rows_beside_it(
    tmp_path: Path, writes: list[list[str]]
) -> None:
    async def scene(played: Actions, house: House) -> None:
        rows: dict[str, Json] = {key: {"action": "execute", "code": key} for key in ("a", "b")}
        rows |= {"stop": {"action": "interrupt"}, "c": {"action": "execute", "code": "c"}}
        played.receive_update(update_of(rows), by="ann", role=Role.RUN)
        await eventually(lambda: link.Act({"action": "interrupt"}) in house.said, "it is interrupted")
        assert [list(dict.fromkeys(write)) for write in writes] == [["a", "b"], ["stop"], ["c"]]

    play(tmp_path, scene)


@pytest.mark.parametrize("is_late", [True, False])
def test_a_silent_run_without_a_reply_ends_when_the_kernel_has_answered_something_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    monkeypatch.setattr(actions, "REPLY_S", 0.0)

    async def scene(played: Actions, house: House) -> None:
        def submitted() -> list[Message]:
            return [house.codec.read(record.frames) for record in house.said if isinstance(record, link.Submit)]

        def answer(kind: str, asked: Message, content: Json, channel: link.Channel = link.Channel.SHELL) -> None:
            header = new_header(kind, session="kernel", username="")
            played.receive_message(channel, link.Way.TO_FRONT, Message(header, asked.header, {}, content))

        row = {"action": "execute", "code": "x", "silent": True}
        played.receive_update(update_of({"quiet": row}), by="ann", role=Role.RUN)
        await eventually(submitted, "it is sent")
        answer("status", submitted()[0], {"execution_state": "idle"}, link.Channel.IOPUB)
        await eventually(lambda: len(submitted()) == 2, "the kernel is asked whether it is through with it")
        run, question = submitted()
        assert question.type == "kernel_info_request"
        assert house.store.requests(open_only=True), "it may have an end yet"
        if is_late:
            answer("execute_reply", run, {"status": "ok"})
        answer("kernel_info_reply", question, {"status": "ok"})
        await eventually(lambda: not house.store.requests(open_only=True), "it has ended")
        (ended,) = house.store.requests(open_only=False)
        assert (ended.state.value, ended.reason is None) == ("done", is_late)

    play(tmp_path, scene)
