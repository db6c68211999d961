"""What is promised to those who act, whatever dies: at most once, in order, nothing lost, no two replicas differ.

The random test makes up a scene from a seed: peers that write, cancel, answer, interrupt, lose their connections and
come back, while agent, kernel and machine are killed. All is real: kernel, processes, sockets. What ran is told by
the code itself (:class:`peers.Journal`); what was promised is read at the end, from the history and from replicas.
A seed gives the same steps but not the same timing, so a failure may need more than one run to show again.

Not a state machine of hypothesis: an example costs seconds, and shrinking hundreds of them would cost hours. The
seeds are few and fixed by default; ``RTC_TEST_SEED=N`` plays one of them, ``RTC_TEST_ROUNDS=N`` so many, from 1 on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from kernels import Running, start
from peers import TROUBLE, WRONG_EPOCH, ClientPeer, Journal, Line, StockPeer, fetch_replica
from serving import eventually

import rtc_kernel
from rtc_kernel import discovery, schema
from rtc_kernel.client import Address, Document, call
from rtc_kernel.tables import END_STATES, Execution, ExecutionState, Json, execution_from_json

SEEDS = (
    [int(os.environ["RTC_TEST_SEED"])]
    if "RTC_TEST_SEED" in os.environ
    else range(1, 1 + int(os.environ.get("RTC_TEST_ROUNDS", "4")))
)
STEPS = int(os.environ.get("RTC_TEST_STEPS", "120"))
PATIENCE_S = 60.0
"""How long anything that must happen may take; the machine may be busy."""

OPEN = ("requested", "accepted")


class Stage:
    """One kernel, which is started again when it dies as a server would; the peers at it; and what the owner sees."""

    def __init__(self, kernel: Running, journal: Journal, owner: Document, stack: contextlib.AsyncExitStack) -> None:
        self.kernel = kernel
        self.journal = journal
        self.owner = owner
        self.watcher: StockPeer
        self.notes: list[str] = []
        self._stack = stack
        self._began = time.monotonic()
        self._restarting = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, kernel: Running, path: Path) -> AsyncIterator[Stage]:
        async with contextlib.AsyncExitStack() as stack:
            owner = await stack.enter_async_context(rtc_kernel.connect(kernel.manager.connection_file))
            stage = cls(kernel, Journal(path), owner, stack)
            stage.watcher = await stage.stock("watcher", "own")
            await eventually(stage.watcher.online.is_set, "the watcher watches", PATIENCE_S)
            keeper = asyncio.create_task(stage._keep_kernel())
            stack.callback(keeper.cancel)
            yield stage

    def note(self, text: str) -> None:
        self.notes.append(f"{time.monotonic() - self._began:8.3f} {text}")

    # --- peers

    async def line(self) -> Line:
        return await self._stack.enter_async_context(Line(self._port).stand())

    async def token(self, name: str, role: str = "run") -> str:
        made = await call(self.owner.address, "POST", "/api/share", {"role": role, "name": name})
        return str(made["token"])

    async def stock(self, name: str, role: str = "run", line: Line | None = None) -> StockPeer:
        line = line or await self.line()
        peer = StockPeer(Address(line.url, await self.token(name, role)), self.kernel.kernel_id)
        peer.join()
        self._stack.push_async_callback(peer.leave)
        return peer

    async def client(self, name: str, line: Line) -> ClientPeer:
        doc = await self._stack.enter_async_context(rtc_kernel.connect(line.url, await self.token(name)))
        return ClientPeer(doc)

    @property
    def address(self) -> Address:
        """The owner's way in, as it is now."""
        return Address.resolve(self.kernel.manager.connection_file)

    def _port(self) -> int:
        return urlsplit(self.address.url).port or 0

    # --- deaths

    def kill_agent(self) -> None:
        with contextlib.suppress(rtc_kernel.errors.SetupError, ProcessLookupError):
            os.kill(discovery.find(self.kernel.manager.connection_file).agent_pid, signal.SIGKILL)

    def kill_machine(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.kernel.pid, signal.SIGKILL)

    async def restart_as_frontend(self) -> None:
        async with self._restarting:
            await asyncio.to_thread(self.kernel.manager.restart_kernel)

    async def _keep_kernel(self) -> None:
        while True:
            async with self._restarting:
                if self.kernel.manager.provisioner.process.poll() is not None:
                    self.note("the relay ended; started again")
                    await asyncio.to_thread(self.kernel.manager.restart_kernel, now=True)
            await asyncio.sleep(0.02)

    # --- what is there

    def states(self) -> dict[str, str]:
        """The requests that are there now and how far they are, as the watcher has it."""
        rows = {key: self.watcher.rows[key].to_py() for key in list(self.watcher.rows)}
        return {key: str(row.get("state", "new")) for key, row in rows.items()}

    def stored(self) -> dict[str, sqlite3.Row]:
        """All requests that were ever taken, from the file."""
        path = discovery.find(self.kernel.manager.connection_file).store
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return {row["id"]: row for row in connection.execute("SELECT * FROM requests ORDER BY ordinal")}

    async def history(self) -> dict[str, Execution]:
        """All executions, oldest first."""
        found: list[Execution] = []
        while True:
            before = f"&before={found[-1].seq}" if found else ""
            page = (await call(self.address, "GET", f"/api/history?limit=500{before}"))["executions"]
            if not page:
                return {row.id: row for row in reversed(found)}
            found += map(execution_from_json, page)


def play(path: Path, scene: Callable[[Stage], Awaitable[None]]) -> None:
    """Start a kernel, and run a scene around it."""

    async def run(kernel: Running) -> None:
        async with Stage.open(kernel, path / "journal") as stage:
            await scene(stage)

    with start("rtc-python") as kernel:
        asyncio.run(asyncio.wait_for(run(kernel), 4 * PATIENCE_S))


def execute(code: str, **columns: Any) -> Json:
    return {"action": "execute", "code": code, **columns}


# --- one death at a time -------------------------------------------------------------------------------------


async def blocked(stage: Stage, seconds: float = 60.0) -> str:
    """A run of the owner's keeps the kernel busy; its execution."""
    run = await stage.owner.run(stage.journal.code("blocks", f"import time\ntime.sleep({seconds})"))
    key = await run.execution()
    await stage.owner.wait_for(lambda doc: state_of(doc, key) == "running", PATIENCE_S)
    return key


def state_of(doc: Document, execution: str) -> str | None:
    row = doc.executions.get(execution)
    return None if row is None else row.state.value


async def new_agent(stage: Stage) -> None:
    """Wait until the watcher is at an agent that is not this one."""
    epoch = stage.watcher.epoch
    await eventually(
        lambda: stage.watcher.epoch != epoch and stage.watcher.online.is_set(), "a new agent serves", PATIENCE_S
    )


async def until_states(stage: Stage, state: str, *keys: str) -> None:
    await eventually(
        lambda: [stage.states().get(key) for key in keys] == [state] * len(keys), f"{keys} are {state}", PATIENCE_S
    )


@pytest.mark.parametrize("after_crash", ["hold", "resume", "drop"])
def test_what_was_acknowledged_and_not_sent_survives_the_agent(
    after_crash: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_KERNEL_REQUESTS_AFTER_CRASH", after_crash)

    async def scene(stage: Stage) -> None:
        blocking = await blocked(stage)
        peer = await stage.stock("ann")
        keys = [f"w{number}" for number in range(3)]
        peer.write({key: execute(stage.journal.code(key)) for key in keys})
        await until_states(stage, "requested", *keys)
        stage.kill_agent()
        await new_agent(stage)
        if after_crash == "hold":
            assert [stage.states()[key] for key in keys] == ["held"] * 3
            assert "restarted" in stage.watcher.seen["w0"]["reason"]
        await stage.owner.interrupt(blocking)
        await stage.owner.wait_for(lambda doc: state_of(doc, blocking) == "error", PATIENCE_S)
        if after_crash == "hold":
            assert stage.journal.keys() == ["blocks"]
            peer.write({"r": {"action": "release"}})
        await until_states(stage, "done", *keys)
        rows = {row.request: row for row in (await stage.history()).values() if row.request in keys}
        assert [rows[key].submitted_by for key in keys] == ["ann"] * 3
        if after_crash == "drop":
            assert stage.journal.keys() == ["blocks"]
            assert {row.state for row in rows.values()} == {ExecutionState.CANCELLED}
        else:
            assert stage.journal.keys() == ["blocks", *keys]
            assert {row.state for row in rows.values()} == {ExecutionState.OK}

    play(tmp_path, scene)


def test_a_run_that_the_agent_does_not_live_to_see_ends_once(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        peer = await stage.stock("ann")
        peer.write({"long": execute(stage.journal.code("long", "import time\ntime.sleep(1.5)\nprint('through')"))})
        await eventually(lambda: stage.journal.keys(), "it runs", PATIENCE_S)
        await until_states(stage, "accepted", "long")
        stage.kill_agent()
        await new_agent(stage)
        await until_states(stage, "done", "long")
        (row,) = [row for row in (await stage.history()).values() if row.request == "long"]
        assert (row.state, [output.text for output in row.outputs]) == (ExecutionState.OK, ["through\n"])
        assert stage.journal.keys() == ["long"]

    play(tmp_path, scene)


def test_a_question_outlives_the_agent(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        run = await stage.owner.run(stage.journal.code("asks", "print('got', input('? '))"))
        key = await run.execution()

        def asked(doc: Document) -> bool:
            row = doc.executions.get(key)
            return doc.connected and row is not None and row.input is not None

        await stage.owner.wait_for(asked, PATIENCE_S)
        assert (await stage.history())[key].input, "it is stored"
        stage.kill_agent()
        await new_agent(stage)
        await stage.owner.wait_for(asked, PATIENCE_S)
        await stage.owner.answer(key, "it")
        row = await run.result()
        assert [output.text for output in row.outputs if output.name == "stdout"] == ["got it\n"]

    play(tmp_path, scene)


def test_what_a_frontend_runs_can_be_interrupted_by_its_id_after_the_agent_has_died(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        key = stage.kernel.client.execute("import time\ntime.sleep(60)")
        await stage.owner.wait_for(lambda doc: state_of(doc, key) == "running", PATIENCE_S)
        assert (await stage.history())[key].state is ExecutionState.RUNNING, "it is stored"
        stage.kill_agent()
        await new_agent(stage)
        await stage.owner.interrupt(key)
        await stage.owner.wait_for(lambda doc: state_of(doc, key) == "error", PATIENCE_S)

    play(tmp_path, scene)


def test_what_is_between_agent_and_relay_when_the_agent_dies_runs_at_most_once(tmp_path: Path) -> None:
    """Its request is done and its run in the history, or it is held and did not run."""

    async def scene(stage: Stage) -> None:
        peer = await stage.stock("ann")
        await eventually(peer.online.is_set, "ann is there", PATIENCE_S)
        for number in range(3):
            key = f"k{number}"
            relay = psutil.Process(stage.kernel.pid)
            relay.suspend()
            try:
                peer.write({key: execute(stage.journal.code(key))})
                await until_states(stage, "accepted", key)
                stage.kill_agent()
            finally:
                relay.resume()
            await new_agent(stage)
            await eventually(lambda key=key: stage.states()[key] in ("held", "done"), f"{key} is safe", PATIENCE_S)
            ran = stage.journal.keys().count(key)
            states = [row.state for row in (await stage.history()).values() if row.request == key]
            assert (ran, states) == ((1, [ExecutionState.OK]) if stage.states()[key] == "done" else (0, []))

    play(tmp_path, scene)


def test_when_the_kernel_dies_what_ran_is_lost_and_what_waited_is_held(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        ann, bob = await stage.stock("ann"), await stage.stock("bob")
        ann.write({"dies": execute(stage.journal.code("dies", "import time\ntime.sleep(1)\nos.kill(os.getpid(), 9)"))})
        await until_states(stage, "accepted", "dies")
        keys = ["a1", "a2", "b1"]
        ann.write({key: execute(stage.journal.code(key)) for key in keys[:2]})
        bob.write({"b1": execute(stage.journal.code("b1"))})
        await until_states(stage, "requested", *keys)
        await new_agent(stage)
        await until_states(stage, "held", *keys)
        await stage.owner.wait_for(lambda doc: doc.connected and doc.kernel.generation == 1, PATIENCE_S)
        (row,) = [row for row in (await stage.history()).values() if row.request == "dies"]
        assert (row.state, stage.stored()["dies"]["state"]) == (ExecutionState.LOST, "done")
        await stage.owner.release()
        await until_states(stage, "done", *keys)
        ran = stage.journal.keys()
        assert (ran[0], sorted(ran)) == ("dies", sorted(["dies", *keys]))
        assert ran.index("a1") < ran.index("a2")

    play(tmp_path, scene)


def test_after_the_death_of_the_machine_nothing_runs_by_itself_and_nothing_is_lost(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        ann = await stage.stock("ann")
        ann.write({"done": execute(stage.journal.code("done"))})
        await until_states(stage, "done", "done")
        ann.write({"runs": execute(stage.journal.code("runs", "import time\ntime.sleep(60)"))})
        await eventually(lambda: "runs" in stage.journal.keys(), "it runs", PATIENCE_S)
        ann.write({key: execute(stage.journal.code(key)) for key in ("w1", "w2")})
        await until_states(stage, "requested", "w1", "w2")
        stage.kill_machine()
        await new_agent(stage)
        await until_states(stage, "held", "w1", "w2")
        assert stage.journal.keys() == ["done", "runs"]
        states = {row.request: row.state.value for row in (await stage.history()).values()}
        assert states == {"done": "ok", "runs": "lost"}
        ann.write({"c": {"action": "cancel", "request": "w1"}, "r": {"action": "release", "request": "w2"}})
        await until_states(stage, "done", "w1", "w2")
        assert stage.journal.keys() == ["done", "runs", "w2"]
        states = {row.request: row.state.value for row in (await stage.history()).values()}
        assert states == {"done": "ok", "runs": "lost", "w1": "cancelled", "w2": "ok"}

    play(tmp_path, scene)


def test_a_row_that_gets_lost_on_its_way_is_acknowledged_when_the_connection_is_back(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        lines = [await stage.line(), await stage.line()]
        dot, ann = await stage.client("dot", lines[0]), await stage.stock("ann", line=lines[1])
        for number, lost in enumerate((False, True, True, False)):
            for peer, line in zip((dot, ann), lines, strict=True):
                if lost:
                    line.lose()
                key = f"{number}-{type(peer).__name__}"
                peer.write({key: execute(stage.journal.code(key))})
            await asyncio.sleep(0.1 if lost else 0)  # what is sent meanwhile is lost
            for line in lines if lost else ():
                line.cut()
            await eventually(lambda: not dot.unacknowledged and not ann.unacknowledged, "all are taken", 20)
        assert ann.closed == []
        await until_states(stage, "done", *dot.written, *ann.written)
        assert sorted(stage.journal.keys()) == sorted([*dot.written, *ann.written])

    play(tmp_path, scene)
