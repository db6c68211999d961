"""Facts about the client: what a follower sees, and what it does when the connection or the epoch ends."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import eventually
from standin import KERNEL, StandIn, standin

import rtc_kernel
from rtc_kernel import discovery, schema, yproto
from rtc_kernel.agent import serve
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.serve import handlers
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.client import (
    MAX_PENDING,
    Address,
    BlobPiece,
    Change,
    Changes,
    Document,
    Kind,
    Replica,
    connect,
    merge_kinds,
)
from rtc_kernel.errors import Reason, RemoteError, SetupError
from rtc_kernel.requesting import Requester
from rtc_kernel.tables import (
    AddOutput,
    Cell,
    ClearOutputs,
    Execution,
    ExecutionState,
    KernelState,
    MergeCommState,
    Output,
    PutCells,
    PutComm,
    PutExecution,
    PutKernel,
    PutMeta,
    SetOutput,
    WriteText,
)

DEADLINE_S = 60.0


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await coroutine

    asyncio.run(within())


def new(name: str, seq: int, **columns: Any) -> PutExecution:
    return PutExecution(name, {"seq": seq, "kernel": KERNEL, "code": f"cell {seq}", "state": "running"} | columns)


def stream(text: str = "") -> Output:
    return Output(output_type="stream", at=1.0, name="stdout", text=text)


async def take(changes: Changes, count: int) -> list[Change]:
    return [await anext(changes) for _ in range(count)]


async def alone(server: StandIn) -> None:
    """Until the server has no peer."""
    await eventually(lambda: not server.server.peers, "nobody is connected")


# --- what a follower sees


def test_a_follower_has_typed_records_of_everything_in_the_window() -> None:
    async def fact() -> None:
        async with standin() as server:
            server.apply(
                new("b", 2, state="ok", execution_count=7),
                new("a", 1, state="error", error={"ename": "E", "evalue": "é"}),
                AddOutput("a", 0, stream()),
                WriteText("a", 0, 0, None, "naïve ☃\n"),
                PutComm("c", {"target": "jupyter.widget", "kernel": KERNEL}),
                MergeCommState("c", {"value": 3}),
                PutCells("nb.ipynb", (Cell(id="y", index=1, cell_type="code", source="2"),)),
                PutMeta({"coverage": "full"}),
            )
            async with connect(server.url, "own-token") as doc:
                assert doc.connected
                assert doc.role == "own"
                assert doc.kernel.state is KernelState.STARTING
                assert list(doc.executions) == ["a", "b"]  # in the order of seq
                assert doc.executions["a"].outputs[0].text == "naïve ☃\n"
                assert doc.executions["b"].state is ExecutionState.OK
                assert doc.executions["b"].execution_count == 7
                assert doc.comms["c"].state == {"value": 3}
                assert doc.cells["y"].source == "2"
                assert doc.meta["coverage"] == "full"
                assert doc.epoch == server.document.epoch == doc.meta["epoch"]

    run(fact())


def test_records_and_snapshots_never_change() -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            server.apply(new("a", 1))
            await doc.wait_for(lambda d: "a" in d.executions)
            before, record = doc.executions, doc.executions["a"]
            server.apply(PutExecution("a", {"state": "ok"}), new("b", 2))
            await doc.wait_for(lambda d: "b" in d.executions)
            assert list(before) == ["a"]
            assert before["a"] is record
            assert record.state is ExecutionState.RUNNING
            assert doc.executions["a"].state is ExecutionState.OK
            with pytest.raises(dataclasses.FrozenInstanceError):
                record.state = ExecutionState.OK  # type: ignore[misc]
            with pytest.raises(TypeError):
                before["x"] = record  # type: ignore[index]

    run(fact())


def test_changes_name_the_row_and_carry_it() -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            changes = doc.changes()
            server.apply(new("a", 1))
            server.apply(PutKernel(KERNEL, {"state": "busy"}))
            added, kernel = await take(changes, 2)
            assert (added.kind, added.table, added.id) == ("added", "executions", "a")
            assert isinstance(added.record, Execution)
            assert added.record.code == "cell 1"
            assert (kernel.kind, kernel.table, kernel.id) == ("updated", "kernels", KERNEL)
            assert kernel.record == doc.kernel
            server.apply(AddOutput("a", 0, stream()), WriteText("a", 0, 0, None, "x"))
            (updated,) = await take(changes, 1)
            assert updated.kind == "updated"
            assert updated.record is not None
            assert updated.record == doc.executions["a"]

    run(fact())


def test_every_reader_has_its_own_changes() -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            one, two = doc.changes(), doc.changes()
            server.apply(new("a", 1))
            server.apply(new("b", 2))
            assert [change.id for change in await take(one, 2)] == ["a", "b"]
            late = doc.changes()
            assert [change.id for change in await take(two, 2)] == ["a", "b"]
            server.apply(new("c", 3))
            assert (await anext(late)).id == "c"

    run(fact())


def test_changes_of_one_row_that_nobody_looked_at_are_one() -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            changes = doc.changes()
            server.apply(new("a", 1), AddOutput("a", 0, stream()))
            for number in range(50):
                server.apply(WriteText("a", 0, 0, None, f"{number}\n"))
            server.apply(PutExecution("a", {"state": "ok"}))
            await doc.wait_for(lambda d: bool(d.executions) and d.executions["a"].state is ExecutionState.OK)
            (change,) = await take(changes, 1)
            assert change.kind == "added"
            assert isinstance(change.record, Execution)
            assert change.record.outputs[0].text == "".join(f"{number}\n" for number in range(50))

    run(fact())


def test_a_slow_reader_is_told_to_start_over_and_has_the_latest_state() -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            changes = doc.changes()
            changes.push([("added", "executions", str(number)) for number in range(MAX_PENDING + 1)])
            assert len(repr(changes)) < 80
            server.apply(new("a", 1))
            await doc.wait_for(lambda d: "a" in d.executions)
            assert (await anext(changes)).kind == "reset"
            server.apply(new("b", 2))
            assert [change.id for change in await take(changes, 1)] == ["b"]
            assert list(doc.executions) == ["a", "b"]

    run(fact())


def test_a_reader_ends_with_its_document() -> None:
    async def fact() -> None:
        async with standin() as server:
            async with connect(server.url, "view-token") as doc:
                changes = doc.changes()
                waiting = asyncio.create_task(anext(changes, None))
                await asyncio.sleep(0)
            assert await waiting is None
            assert [change async for change in changes] == []

    run(fact())


def test_waiting_has_a_deadline() -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            with pytest.raises(TimeoutError):
                await doc.wait_for(lambda d: False, timeout_s=0.05)

    run(fact())


def test_a_follower_sends_its_state_vector_and_never_anything_else() -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            for seq in range(1, 5):
                server.apply(new(str(seq), seq))
            await doc.wait_for(lambda d: len(d.executions) == 4)
            assert [type(yproto.read_message(data)) for data in server.received] == [yproto.Step1]

    run(fact())


def test_history_and_blobs_come_over_http() -> None:
    async def fact() -> None:
        async with standin() as server:
            server.rows = [Execution(id=str(seq), seq=seq, code=f"x = {seq}") for seq in range(1, 8)]
            data = b"\x89PNG" * 1000
            digest = server.keep(data)
            server.keep(b"other", f"sha256:{'0' * 64}")
            async with connect(server.url, "view-token") as doc:
                assert [row.seq for row in await doc.history(limit=3)] == [7, 6, 5]
                assert [row.seq for row in await doc.history(before=5, limit=2)] == [4, 3]
                assert [row.seq for row in await doc.history(text="= 2")] == [2]
                assert await doc.blob(digest) == data
                assert await doc.blob(digest.removeprefix("sha256:")) == data
                assert await doc.blob_piece(digest, 3998, 10) == BlobPiece("image/png", 4000, 3998, b"NG")
                assert await doc.blob_piece(digest, 0, 4) == BlobPiece("image/png", 4000, 0, b"\x89PNG")
                with pytest.raises(SetupError, match="no such bytes"):
                    await doc.blob_piece(digest, 4000, 1)
                assert doc.name == "viewer"
                with pytest.raises(SetupError, match="regular expression"):
                    await doc.history(grep="x")  # this token may only view
                with pytest.raises(SetupError, match="no such blob"):
                    await doc.blob("f" * 64)
                with pytest.raises(RemoteError, match="digest"):
                    await doc.blob("0" * 64)

    run(fact())


# --- when the connection or the epoch ends


def test_a_lost_connection_comes_back_and_nothing_is_missed() -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            server.apply(new("a", 1))
            await doc.wait_for(lambda d: "a" in d.executions)
            changes, epoch = doc.changes(), doc.epoch
            await server.stop()
            await doc.wait_for(lambda d: not d.connected)
            server.apply(new("b", 2), PutExecution("a", {"state": "ok"}))
            server.listen()
            await doc.wait_for(lambda d: d.connected)
            assert {(change.kind, change.id) for change in await take(changes, 2)} == {
                ("updated", "a"),
                ("added", "b"),
            }
            assert doc.epoch == epoch
            assert len(server.received[-1]) > len(server.received[0])  # asked only for what was missing

    run(fact())


@pytest.mark.parametrize("close", [True, False], ids=["closed with 4409", "while it was away"])
def test_epochs_are_never_merged(close: bool) -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            server.apply(new("a", 1), AddOutput("a", 0, stream()), WriteText("a", 0, 0, None, "once"))
            await doc.wait_for(lambda d: "a" in d.executions and d.executions["a"].outputs[0].text == "once")
            changes, epoch = doc.changes(), doc.epoch
            server.new_epoch()
            if close:
                server.close(Reason.WRONG_EPOCH)
            else:
                server.drop()
            assert (await anext(changes)).kind == "reset"
            assert doc.epoch == server.document.epoch != epoch
            assert doc.executions["a"].outputs[0].text == "once"
            server.apply(new("b", 2))
            assert (await anext(changes)).id == "b"

    run(fact())


@pytest.mark.parametrize("reason", [Reason.UNAUTHORIZED, Reason.READ_ONLY, Reason.NO_SUCH_ROOM, Reason.REVOKED])
def test_a_refusal_that_no_reconnecting_heals_ends_the_document_and_says_what_to_do(reason: Reason) -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            changes = doc.changes()
            server.close(reason)
            with pytest.raises(SetupError) as caught:
                await anext(changes)
            assert caught.value.remedy
            with pytest.raises(SetupError):
                await doc.wait_for(lambda d: False)
            assert server.connections == 1

    run(fact())


@pytest.mark.parametrize("reason", [Reason.SLOW, Reason.STOPPING, Reason.QUOTA, Reason.TOO_MANY_PEERS])
def test_a_refusal_that_time_heals_is_outlived(reason: Reason) -> None:
    async def fact() -> None:
        async with standin() as server, connect(server.url, "view-token") as doc:
            server.close(reason)
            await doc.wait_for(lambda d: not d.connected)
            assert reason.value in doc.trouble
            await doc.wait_for(lambda d: d.connected)
            assert server.connections == 2

    run(fact())


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_wrong_token_is_told_at_once(token: str | None) -> None:
    async def fact() -> None:
        async with standin() as server:
            with pytest.raises(SetupError, match="%rtc share"):
                async with connect(server.url, token):
                    pass
            assert server.connections == 0

    run(fact())


@pytest.mark.parametrize("other", [{"schema": 2}, {"protocol": "y-protocols/2"}])
def test_a_server_of_another_version_is_not_read(other: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "describe", lambda *args: {**serve.describe(*args), **other})

    async def fact() -> None:
        async with standin() as server:
            with pytest.raises(SetupError, match="upgrade rtc_kernel"):
                async with connect(f"{server.url}?token=view-token"):
                    pass

    run(fact())


def test_nobody_there_is_told_with_what_to_do() -> None:
    async def fact() -> None:
        async with standin() as server:
            url = server.url
        with pytest.raises(SetupError, match="jupyter rtc list"):
            async with connect(url, "t", timeout_s=0.3):
                pass

    run(fact())


def test_a_raise_inside_the_block_is_the_user_s_own() -> None:
    async def fact() -> None:
        async with standin() as server:
            with pytest.raises(ZeroDivisionError):
                async with connect(server.url, "view-token"):
                    raise ZeroDivisionError
            await alone(server)

    run(fact())


def test_fifty_followers_leave_no_task_behind() -> None:
    async def fact() -> None:
        async with standin() as server:
            before = len(asyncio.all_tasks())
            for _ in range(50):
                async with connect(server.url, "view-token"):
                    pass
            await alone(server)
            names = [task.get_name() for task in asyncio.all_tasks()]
            assert not [name for name in names if name.startswith("rtc-follow")]
            assert len(names) <= before, names

    run(fact())


def replicas() -> int:
    gc.collect()
    return sum(type(one) in (Replica, Requester) for one in gc.get_objects())


def test_what_was_followed_leaves_no_replica_behind() -> None:
    async def fact() -> None:
        async with standin() as server:
            server.tokens.mint("runner", Role.RUN, now=time.time(), secret="run-token")
            before = replicas()
            async with connect(server.url, "run-token") as doc:
                asking = asyncio.create_task(doc.run("1"))  # nobody takes rows here
                await eventually(lambda: server.written, "the row has come")
                asking.cancel()
                server.new_epoch()
                server.close(Reason.WRONG_EPOCH)
                await doc.wait_for(lambda doc: doc.epoch == server.document.epoch, 30)
            del doc, asking
            await alone(server)
            assert replicas() == before

    run(fact())


# --- where a document is


def test_a_link_gives_its_token_away_only_in_the_header() -> None:
    address = Address.resolve("http://host:1/user/me/proxy/80/?token=s%2Fecret")
    assert address == Address("http://host:1/user/me/proxy/80", "s/ecret")
    assert address.headers() == {"Authorization": "Bearer s/ecret"}
    assert Address.resolve("http://h:1/?token=a", "b").token == "b"
    assert "secret" not in repr(Document("http://h:1/?token=secret"))


def test_a_kernel_of_this_machine_is_known_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fact() -> None:
        async with standin() as server:
            kernel = discovery.LiveKernel(
                kernel_id=KERNEL, agent_pid=1, relay_pid=1, url=server.url + "/", token="own-token"
            )
            monkeypatch.setattr(discovery, "live", lambda where=None: [kernel])
            async with connect(KERNEL[:6]) as doc:
                assert doc.role == "own"
                assert doc.kernel.id == KERNEL
            with pytest.raises(SetupError, match="no live RTC kernel"):
                async with connect("ffff"):
                    pass

    run(fact())


def test_a_new_token_of_an_own_kernel_is_taken_from_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fact() -> None:
        async with standin() as server:
            entry = discovery.LiveKernel(kernel_id=KERNEL, agent_pid=1, relay_pid=1, url=server.url, token="own-token")
            files = [entry]
            monkeypatch.setattr(discovery, "live", lambda where=None: files)
            async with connect(KERNEL) as doc:
                server.tokens.revoke("owner")
                server.tokens.mint("owner", Role.OWN, now=time.time(), secret="newer")
                files[0] = dataclasses.replace(entry, token="newer")
                server.close(Reason.UNAUTHORIZED)
                await doc.wait_for(lambda d: not d.connected)
                await doc.wait_for(lambda d: d.connected)

    run(fact())


# --- the replica


class Pair:
    """A document and a replica of it, without a wire."""

    def __init__(self) -> None:
        self.document = StateDocument(KERNEL)
        self.document.load()
        self.replica = Replica(KERNEL, self.document.epoch)
        message = yproto.read_message(self.replica.request())
        assert isinstance(message, yproto.Step1)
        self.replica.receive_bytes(yproto.step2(self.document.diff(message.clocks)))

    def apply(self, *changes: Any) -> list[Any]:
        update = self.document.apply(changes)
        return self.replica.receive_bytes(yproto.update(update)) if update else []


def test_only_the_outputs_that_changed_are_read_again() -> None:
    pair = Pair()
    pair.apply(new("a", 1), *(AddOutput("a", at, stream(f"{at}")) for at in range(3)))
    before = pair.replica.executions.snapshot()["a"].outputs
    pair.apply(WriteText("a", 1, 0, None, "!"), AddOutput("a", 3, stream("new")))
    after = pair.replica.executions.snapshot()["a"].outputs
    assert [output.text for output in after] == ["0", "1!", "2", "new"]
    assert after[0] is before[0]
    assert after[2] is before[2]


def test_cleared_and_replaced_outputs_are_read_again() -> None:
    pair = Pair()
    picture = Output(output_type="display_data", at=1.0, data={"text/plain": "1"}, metadata={})
    pair.apply(new("a", 1), AddOutput("a", 0, picture), AddOutput("a", 1, stream("x")))
    assert len(pair.replica.executions.snapshot()["a"].outputs) == 2
    pair.apply(SetOutput("a", 0, dataclasses.replace(picture, data={"text/plain": "2"})))
    assert pair.replica.executions.snapshot()["a"].outputs[0].data == {"text/plain": "2"}
    pair.apply(ClearOutputs("a"), AddOutput("a", 0, stream("only")))
    assert [output.text for output in pair.replica.executions.snapshot()["a"].outputs] == ["only"]


def test_a_flood_costs_its_reader_what_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is looked at after each update is read where it changed, and not as a whole each time."""
    reads, real = 0, schema.read_output

    def read_output(value: Any) -> Output:
        nonlocal reads
        reads += 1
        return real(value)

    monkeypatch.setattr(schema, "read_output", read_output)
    pair, count = Pair(), 400
    pair.apply(new("a", 1))
    for at in range(count):
        pair.apply(AddOutput("a", at, Output(output_type="display_data", at=1.0, data={"text/plain": "x"})))
        assert len(pair.replica.executions.get("a").outputs) == at + 1
    assert count <= reads <= 2 * count


@given(st.binary(max_size=60))
def test_any_bytes_of_a_server_give_changes_or_remote_error(data: bytes) -> None:
    replica = Replica(KERNEL, "e")
    try:
        assert isinstance(replica.receive_bytes(data), list)
    except RemoteError:
        pass


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.sampled_from("abc")),
        st.tuples(st.just("text"), st.sampled_from("abc")),
        st.tuples(st.just("display"), st.sampled_from("abc")),
        st.tuples(st.just("clear"), st.sampled_from("abc")),
        st.tuples(st.just("end"), st.sampled_from("abc")),
        st.tuples(st.just("look"), st.just("")),
    ),
    max_size=25,
)


@given(CHANGES)
def test_a_replica_that_reads_little_reads_the_same_as_one_that_reads_all(steps: list[tuple[str, str]]) -> None:
    pair = Pair()
    for number, (step, key) in enumerate(steps):
        rows = {row.id: row for row in _read_all(pair)}
        at = len(rows[key].outputs) if key in rows else 0
        match step:
            case "new" if key not in rows:
                pair.apply(new(key, number + 1))
            case "text" if key in rows:
                pair.apply(AddOutput(key, at, stream()), WriteText(key, at, 0, None, f"é{number}"))
            case "display" if key in rows:
                pair.apply(AddOutput(key, at, Output(output_type="display_data", at=1.0, data={"n": number})))
            case "clear" if key in rows:
                pair.apply(ClearOutputs(key))
            case "end" if key in rows:
                pair.apply(PutExecution(key, {"metadata": {"n": number}, "execution_count": number}))
            case "look":
                assert list(pair.replica.executions.snapshot().values()) == _read_all(pair)
    assert list(pair.replica.executions.snapshot().values()) == _read_all(pair)


def _read_all(pair: Pair) -> list[Execution]:
    return schema.read_executions(pair.document.doc)


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        ("added", "updated", "added"),
        ("added", "removed", None),
        ("updated", "removed", "removed"),
        ("removed", "added", "updated"),
        (None, "added", "added"),
    ],
)
def test_two_changes_of_one_row_are_one(earlier: Kind | None, later: Kind, merged: Kind | None) -> None:
    assert merge_kinds(earlier, later) == merged


def test_the_package_gives_the_client_by_name() -> None:
    assert rtc_kernel.connect is connect
