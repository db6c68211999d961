"""Acting through the document, end to end: real kernels, real connections, our client and stock peers."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kernels import FOREVER, SHOWS, Gate, Running, start
from peers import StockPeer
from serving import eventually
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection

import rtc_kernel
from rtc_kernel import discovery
from rtc_kernel.client import Document, Run, call
from rtc_kernel.dialing import dial
from rtc_kernel.errors import RefusedError, SetupError
from rtc_kernel.requesting import Ticket
from rtc_kernel.tables import END_STATES, Execution, ExecutionState, KernelState, Request, RequestState


@dataclass
class Scene:
    """A kernel with a frontend, and how its document is reached."""

    running: Running
    url: str
    token: str
    store: Path

    def play(self, act: Callable[[Document], Awaitable[None]]) -> None:
        """Run a scene with one connected document, as the kernel's user."""

        async def run() -> None:
            async with rtc_kernel.connect(self.url, self.token) as doc:
                await act(doc)

        asyncio.run(asyncio.wait_for(run(), 60))


@contextmanager
def staged() -> Iterator[Scene]:
    with start("rtc-python") as running:
        running.execute("%rtc status")
        live = discovery.find(running.manager.connection_file)
        yield Scene(running, live.url, live.token, Path(str(live.store)))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One kernel for the scenes that leave it as it was."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("home")))
        patch.setenv("RTC_KERNEL_MAGIC_TIMEOUT_S", "60")
        with staged() as made:
            yield made


async def share(doc: Document, role: str, name: str) -> str:
    made = await call(doc.address, "POST", "/api/share", {"role": role, "name": name})
    return str(made["token"])


async def until_shown(run: Run) -> None:
    """Until its code has said something: before, an interrupt may find ipykernel between two things."""
    async for row in run.changes():
        if row.outputs:
            return
    raise AssertionError("it ended and showed nothing")


async def until_state(run: Run, state: str) -> Execution:
    async for row in run.changes():
        if row.state == state:
            return row
    raise AssertionError(f"it ended before it was {state}")


async def until_asked(run: Run, times: int = 1) -> Execution:
    seen: set[float] = set()
    async for row in run.changes():
        if row.input is not None:
            seen.add(row.input["since"])
            if len(seen) == times:
                return row
    raise AssertionError("it ended and asked nothing")


def texts(row: Execution) -> str:
    return "".join(output.text or "" for output in row.outputs)


def test_a_run_says_who_asked_and_what_came_out(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        run = await doc.run("print('é'); 6 * 7", cell="c-1", notebook="n.ipynb", user_expressions={"seven": "3 + 4"})
        row = await run.result()
        assert (row.state, row.submitted_by, row.request) == (ExecutionState.OK, "owner", run.id)
        assert (row.cell, row.notebook, row.code) == ("c-1", "n.ipynb", "print('é'); 6 * 7")
        assert [output.text or output.data for output in row.outputs] == ["é\n", {"text/plain": "42"}]
        assert row.metadata["user_expressions"]["seven"]["data"] == {"text/plain": "7"}

    scene.play(act)


def test_a_frontend_sees_the_run_of_a_request(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        run = await doc.run("print('from a row')")
        key = (await run.result()).id

        def seen() -> str:
            while True:
                message = scene.running.client.get_iopub_msg(timeout=30)
                if message["parent_header"].get("msg_id") == key and message["msg_type"] == "stream":
                    return str(message["content"]["text"])

        assert (await asyncio.to_thread(seen)).startswith("from a row")

    scene.play(act)


def test_requests_and_a_frontends_cells_share_the_kernels_order(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        await (await doc.run("order = []")).result()
        runs = []
        for number in range(5):
            runs.append(await doc.run(f"order.append('row {number}')"))
            await asyncio.to_thread(scene.running.execute, f"order.append('cell {number}')")
        rows = [await run.result() for run in runs]
        shown = await (await doc.run("print(*order, sep=',')")).result()
        names = texts(shown).strip().split(",")
        assert sorted(names) == sorted(f"{kind} {n}" for kind in ("row", "cell") for n in range(5))
        by_seq = sorted(doc.executions.values(), key=lambda row: row.seq)
        ran = [row.code[14:-2] for row in by_seq if row.code.startswith("order.append(")]
        assert [name for name in names if name.startswith("row")] == [f"row {n}" for n in range(5)]
        assert ran == names
        assert [row.execution_count for row in rows] == sorted(row.execution_count or 0 for row in rows)

    scene.play(act)


def test_the_counter_race_has_two_right_results(scene: Scene, tmp_path: Path) -> None:
    """Two peers run the same cell at once: `queue` counts twice, `coalesce` once, and both peers know their run."""

    async def act(doc: Document) -> None:
        bob_token = await share(doc, "run", "bob-counter")
        async with connected_by_link(doc, bob_token) as bob:
            for mode, counted in (("queue", "2"), ("coalesce", "1")):
                held, counts = Gate(tmp_path / f"held-{mode}"), Gate(tmp_path / f"counts-{mode}")
                await (await doc.run("n = 0")).result()
                hold = await doc.run(held.code)
                await until_state(hold, "running")
                one = await doc.run("n += 1\n" + counts.code, cell="counter", on_duplicate=mode)
                two = await bob.run("n += 1\n" + counts.code, cell="counter", on_duplicate=mode)
                held.open()
                if mode == "coalesce":
                    await asyncio.gather(one.execution(), two.execution())  # whichever is sent, the other joins it
                counts.open()
                rows = [await one.result(), await two.result()]
                assert (rows[0].id == rows[1].id) is (mode == "coalesce")
                assert texts(await (await doc.run("print(n)")).result()).strip() == counted

    scene.play(act)


@asynccontextmanager
async def connected_by_link(doc: Document, token: str) -> AsyncIterator[Document]:
    async with rtc_kernel.connect(doc.address.url, token) as other:
        yield other


def test_a_failing_run_aborts_what_its_peer_asked_for_behind_it_and_nobody_elses(scene: Scene, gate: Gate) -> None:
    async def act(doc: Document) -> None:
        token = await share(doc, "run", "bob-abort")
        async with connected_by_link(doc, token) as bob:
            failing = await doc.run(gate.code + "1 / 0")
            behind = [await doc.run(f"'behind {n}'") for n in range(3)]
            other = await bob.run("'not mine'")
            gate.open()
            assert (await failing.result()).error == {"ename": "ZeroDivisionError", "evalue": "division by zero"}
            assert [(await run.result()).state for run in behind] == [ExecutionState.ABORTED] * 3
            assert (await other.result()).state is ExecutionState.OK
            assert (await (await doc.run("'later'")).result()).state is ExecutionState.OK

    scene.play(act)


def test_after_waits_for_the_other_peers_run(scene: Scene, gate: Gate) -> None:
    async def act(doc: Document) -> None:
        token = await share(doc, "run", "bob-after")
        async with connected_by_link(doc, token) as bob:
            first = await doc.run(gate.code + "said = 'first'")
            second = await bob.run("print(said)", after=first)
            gate.open()
            assert texts(await second.result()) == "first\n"
            with pytest.raises(RefusedError, match="after: "):
                await bob.run("1", after="nobody-knows-this-one")

    scene.play(act)


def test_what_was_not_sent_can_be_taken_back(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        hold = await doc.run(SHOWS)
        await until_shown(hold)
        waiting = await doc.run("print('never')")
        assert waiting.request.state is RequestState.REQUESTED
        await waiting.cancel()
        row = await waiting.result()
        assert (row.state, row.outputs, row.request) == (ExecutionState.CANCELLED, (), waiting.id)
        with pytest.raises(RefusedError, match="request: "):
            await hold.cancel()
        await hold.interrupt()
        assert (await hold.result()).error == {"ename": "KeyboardInterrupt", "evalue": ""}

    scene.play(act)


def test_an_interrupt_is_for_the_run_that_it_names(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        done = await (await doc.run("1")).result()
        with pytest.raises(RefusedError, match="execution: "):
            await doc.interrupt(done.id)
        running = await doc.run(SHOWS)
        await until_shown(running)
        await doc.interrupt()
        assert (await running.result()).state is ExecutionState.ERROR

    scene.play(act)


def test_an_interrupt_gets_through_a_flood_of_output(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        run = await doc.run("while True: print('x' * 80, flush=True)")
        async for row in run.changes():
            if row.outputs and len(row.outputs[0].text or "") > 200_000:
                break
        await run.interrupt()
        assert (await run.result()).error == {"ename": "KeyboardInterrupt", "evalue": ""}

    scene.play(act)


def test_everybody_sees_the_question_and_the_first_answer_wins(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        token = await share(doc, "run", "bob-answers")
        async with connected_by_link(doc, token) as bob:
            run = await doc.run("a = input('name? '); print('hello', a); b = input('and? '); print(b)")
            row = await until_asked(run)
            assert row.input == {"prompt": "name? ", "password": False, "since": row.input["since"]}  # type: ignore[index]
            await bob.wait_for(lambda other: _asks(other, row.id))
            answers = await asyncio.gather(bob.answer(row.id, "Bob"), doc.answer(row.id, "Me"), return_exceptions=True)
            refused = [answer for answer in answers if answer is not None]
            assert len(refused) == 1
            assert isinstance(refused[0], RefusedError)
            while (second := await until_asked(run)).input == row.input:  # that the first has its answer may come later
                pass
            assert second.id == row.id
            await doc.answer(row.id, "more")
            assert texts(await run.result()) in ("hello Bob\nmore\n", "hello Me\nmore\n")

    scene.play(act)


def _asks(doc: Document, key: str) -> bool:
    row = doc.executions.get(key)
    return row is not None and row.input is not None


def test_a_frontends_question_is_answered_by_a_row_or_by_the_frontend(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        for answered_by in ("row", "front"):
            key = scene.running.client.execute("print('got', input('?'))", allow_stdin=True)
            await doc.wait_for(lambda seen, key=key: _asks(seen, key))  # type: ignore[misc]
            if answered_by == "row":
                await doc.answer(key, "it")
            else:
                await asyncio.to_thread(scene.running.client.get_stdin_msg, timeout=30)
                scene.running.client.input("it")
            await doc.wait_for(lambda seen, key=key: seen.executions[key].state in END_STATES)  # type: ignore[misc]
            assert texts(doc.executions[key]) == "got it\n"
            assert doc.executions[key].input is None
        while await asyncio.to_thread(scene.running.client.stdin_channel.msg_ready):
            await asyncio.to_thread(scene.running.client.get_stdin_msg, timeout=1)

    scene.play(act)


def test_what_is_typed_is_nowhere(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    secret = "correct-horse-battery-staple"

    async def act(doc: Document) -> None:
        run = await doc.run("import getpass; word = getpass.getpass(); print(len(word))")
        row = await until_asked(run)
        assert row.input is not None
        assert row.input["password"] is True
        await doc.answer(row.id, secret)
        assert texts(await run.result()) == f"{len(secret)}\n"
        with pytest.raises(RefusedError) as refused:
            await doc.answer(row.id, secret)
        assert secret not in str(refused.value)
        assert secret not in str(await doc.requests())
        assert secret not in json.dumps(await call(doc.address, "GET", "/api/history?limit=100"))

    scene.play(act)
    kept = b"".join(path.read_bytes() for path in scene.store.parent.glob(f"{scene.store.name}*"))
    assert secret.encode() not in kept
    assert secret not in "".join(capfd.readouterr())


def test_a_silent_run_leaves_no_row_and_ends(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        run = await doc.run("quiet = 5", silent=True)
        row = await run.result()
        assert row.state is ExecutionState.OK
        assert row.id not in doc.executions
        assert texts(await (await doc.run("print(quiet)")).result()) == "5\n"

    scene.play(act)


def test_rtc_lines_work_in_a_row(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        row = await (await doc.run("%rtc who\nprint('and the rest')")).result()
        assert row.state is ExecutionState.OK
        assert "owner" in json.dumps([output.data for output in row.outputs])
        assert texts(row) == "and the rest\n"

    scene.play(act)


def test_an_annotation_stands_in_the_row_and_in_the_history(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        row = await (await doc.run("1")).result()
        await doc.annotate(row.id, "review", {"by": "ada", "ok": True})
        await doc.wait_for(lambda seen: "review" in seen.executions[row.id].metadata)
        value = await call(doc.address, "GET", f"/api/executions/{row.id}")
        assert value["metadata"]["review"] == {"by": "ada", "ok": True}
        with pytest.raises(RefusedError, match="key: "):
            await doc.annotate(row.id, "rtc_gap", 1)
        with pytest.raises(RefusedError, match="execution: "):
            await doc.annotate("no-such-execution", "k", 1)

    scene.play(act)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"code": 5}, "code: "),
        ({"code": "x" * 2_000_000}, "code: "),
        ({"code": "1", "on_duplicate": "maybe"}, "on_duplicate: "),
        ({"code": "1", "by": "somebody"}, "by: "),
        ({"code": "1", "state": "done"}, "state: "),
        ({"code": "1", "no_such_column": 1}, "no_such_column: "),
    ],
    ids=["type", "size", "word", "forged-by", "forged-state", "unknown"],
)
def test_a_bad_row_is_refused_by_the_name_of_its_column(scene: Scene, columns: dict[str, Any], reason: str) -> None:
    async def act(doc: Document) -> None:
        with pytest.raises(RefusedError) as refused:
            await doc._ask("execute", **columns)
        assert refused.value.reason.startswith(reason)
        assert (await (await doc.run("1")).result()).state is ExecutionState.OK

    scene.play(act)


def test_ten_megabytes_of_code_are_refused_and_everybody_goes_on(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        with pytest.raises(RefusedError, match="code: "):
            await doc.run("x = 1\n" * 1_700_000)
        assert (await (await doc.run("1")).result()).state is ExecutionState.OK

    scene.play(act)


def test_an_id_that_was_used_runs_nothing_twice(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        await (await doc.run("ran = []")).result()
        first = await doc.run("ran.append(1)", request_id="mine-1")
        await first.result()
        again = await doc.run("ran.append(1)", request_id="mine-1")
        assert await again.execution() == await first.execution()
        with pytest.raises(RefusedError, match="used before"):
            await doc.run("ran.append('other')", request_id="mine-1")
        assert texts(await (await doc.run("print(ran)")).result()) == "[1]\n"

    scene.play(act)


def test_an_id_that_is_in_use_stays_what_it_is(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        first = await doc.run(SHOWS, request_id="mine-2")
        async with connected_by_link(doc, scene.token) as other:  # the same peer
            with pytest.raises(RefusedError, match="used before"):
                await other.run("1", request_id="mine-2")
            for one in (doc, other):
                again = await one.run(SHOWS, request_id="mine-2")
                assert await again.execution() == await first.execution()
                with pytest.raises(RefusedError, match="used before"):
                    await one.run("1", request_id="mine-2")
            await until_shown(first)
            await first.interrupt()
            assert (await again.result()).state is ExecutionState.ERROR
        assert [row.code for row in doc.executions.values()][-1] == SHOWS

    scene.play(act)


def test_what_was_put_back_is_shown_to_who_wrote_it_though_nothing_else_happens() -> None:
    async def act(doc: Document) -> None:
        run = await doc.run(FOREVER, request_id="mine")
        await until_state(run, "running")
        peer = StockPeer(doc.address, doc.kernel.id)
        peer.join()
        try:
            await asyncio.wait_for(peer.online.wait(), 60)
            peer.write({"mine": {"action": "execute", "code": "1"}})
            await eventually(lambda: peer.current()["mine"].get("code") == FOREVER, "its row is as it was", 20)
            assert peer.current()["mine"]["by"] == "owner"
        finally:
            await peer.leave()
        await run.interrupt()

    with staged() as scene:
        scene.play(act)


@pytest.mark.parametrize("told", ["when it wrote", "before it wrote"])
def test_a_view_link_cannot_act(told: str, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dial_and_hear(request: HTTPRequest, **more: Any) -> WebSocketClientConnection:
        socket = await dial(request, **more)
        if "/requests?" in request.url:
            await eventually(lambda: socket.close_code, "the server has closed")
        return socket

    async def act(doc: Document) -> None:
        token = await share(doc, "view", f"may only view, told {told}")
        async with connected_by_link(doc, token) as viewer:
            if told == "before it wrote":
                monkeypatch.setattr("rtc_kernel.client.dial", dial_and_hear)
            with pytest.raises(SetupError, match="may not write requests"):
                await asyncio.wait_for(viewer.run("1"), 60)

    scene.play(act)


def test_a_fresh_answer_is_waited_for_though_an_earlier_one_is_still_shown(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = asyncio.Event()

    async def dial_and_hold(request: HTTPRequest, **more: Any) -> WebSocketClientConnection:
        socket = await dial(request, **more)
        if "/state?" in request.url:
            read = socket.read_message

            async def read_later() -> Any:
                data = await read()
                await flows.wait()
                return data

            monkeypatch.setattr(socket, "read_message", read_later)
        return socket

    async def act(doc: Document) -> None:
        count = "answer('count')(lambda _, numbers=itertools.count(1): next(numbers))"
        code = f"import itertools\nfrom rtc_kernel.answering import answer\n{count}"
        await (await doc.run(code)).result()
        monkeypatch.setattr("rtc_kernel.client.dial", dial_and_hold)
        flows.set()
        async with rtc_kernel.connect(scene.url, scene.token) as peer:
            assert await peer.query("count") == 1
            flows.clear()
            ended: list[bool] = []
            until = Ticket.until

            async def until_noted(ticket: Ticket, condition: Callable[[Request], bool]) -> Request:
                request = await until(ticket, condition)
                ended.append(True)
                return request

            monkeypatch.setattr(Ticket, "until", until_noted)
            asking = asyncio.create_task(peer.query("count", fresh=True))
            await eventually(lambda: ended, "it is known that the question was answered")
            flows.set()
            assert await asking == 2
            assert await peer.query("count") == 2
            await (await doc.run("answer('count')(lambda _: 1 / 0)")).result()
            with pytest.raises(RefusedError, match="division"):
                await peer.query("count", fresh=True)

    scene.play(act)


def test_a_reader_that_the_server_has_closed_before_it_wrote_is_told_why(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its link was withdrawn between two steps of its way in."""

    async def act(doc: Document) -> None:
        token = await share(doc, "view", "withdrawn")

        async def dial_and_lose(request: HTTPRequest, **more: Any) -> WebSocketClientConnection:
            socket = await dial(request, **more)
            await call(doc.address, "DELETE", "/api/share/withdrawn")
            await eventually(lambda: socket.close_code, "the server has closed")
            return socket

        monkeypatch.setattr("rtc_kernel.client.dial", dial_and_lose)
        with pytest.raises(SetupError, match="withdrawn"):
            async with connected_by_link(doc, token):
                pass

    scene.play(act)


def test_a_withdrawn_link_is_cut_off_and_its_waiting_rows_are_taken_back(scene: Scene) -> None:
    async def act(doc: Document) -> None:
        token = await share(doc, "run", "phone")
        async with connected_by_link(doc, token) as phone:
            hold = await doc.run(FOREVER)
            await until_state(hold, "running")
            await phone.run("'perhaps sent while the other looked quick'")
            waiting = await phone.run("print('never')")
            await call(doc.address, "DELETE", "/api/share/phone")
            with pytest.raises(SetupError, match="withdrawn"):
                await phone.wait_for(lambda _: False)
            await doc.wait_for(lambda seen: any(row.request == waiting.id for row in seen.executions.values()))
            row = next(row for row in doc.executions.values() if row.request == waiting.id)
            assert (row.state, row.submitted_by) == (ExecutionState.CANCELLED, "phone")
            await hold.interrupt()
            await hold.result()

    scene.play(act)


def test_more_rows_than_the_quota_close_the_peer(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("RTC_KERNEL_REQUESTS_PER_PEER", "50")
    with staged() as scene:

        async def act(doc: Document) -> None:
            token = await share(doc, "run", "greedy")
            hold = await doc.run(FOREVER)
            await until_state(hold, "running")
            async with connected_by_link(doc, token) as greedy:
                requester = greedy._open_requests()
                await requester.wait_synced()
                tickets = [requester.send("execute", code=f"'{number}'") for number in range(60)]
                with pytest.raises(RefusedError, match="quota: "):
                    await tickets[50].until(lambda request: False)

            async def first_fifty_wait() -> bool:
                rows = (await doc.requests()).values()
                waiting = [row.columns["code"] for row in rows if row.state is RequestState.REQUESTED]
                return waiting == [f"'{number}'" for number in range(50)]

            await eventually(first_fifty_wait, "the first fifty wait", 30)
            await hold.interrupt()
            await hold.result()

        scene.play(act)


def test_a_restart_through_the_document_holds_what_waits(home: Path) -> None:
    with staged() as scene:

        async def act(doc: Document) -> None:
            await (await doc.run("kept = 1")).result()
            hold = await doc.run(FOREVER)
            await until_state(hold, "running")
            waiting = await doc.run("print('kept' in globals())")
            await doc.restart()
            assert (await hold.result()).state is ExecutionState.LOST
            await doc.wait_for(lambda seen: seen.kernel.generation == 1 and seen.kernel.state is KernelState.IDLE)
            assert waiting.request.state is RequestState.HELD
            listing = (await asyncio.to_thread(scene.running.execute, "%rtc queue")).contents("display_data")
            assert "kernel was restarted" in listing[0]["data"]["text/plain"]
            await doc.release(waiting.id)
            row = await waiting.result()
            assert (texts(row), row.generation) == ("False\n", 1)
            assert (await asyncio.to_thread(scene.running.execute, "print('the frontend goes on')")).text

        scene.play(act)


def test_rows_are_kept_readable_by_their_owner_only_and_end_empty(home: Path, until: Callable[..., object]) -> None:
    with staged() as scene:

        async def act(doc: Document) -> None:
            run = await doc.run("'some code'")
            await run.result()
            await run._ticket.until(lambda _: run._ticket.ended)

        scene.play(act)
    connection = sqlite3.connect(f"file:{scene.store}?mode=ro", uri=True)

    def is_ended() -> bool:  # the agent may live a moment longer than its kernel
        rows = connection.execute("SELECT action, by, state, columns FROM requests").fetchall()
        return rows == [("execute", "owner", "done", "{}")]

    with closing(connection):
        until(is_ended, "the row to be stored as done, without its code")
