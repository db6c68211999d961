"""What is promised to those who act, whatever dies: at most once, in order, nothing lost, no two replicas differ.

The random test makes up a scene from a seed: peers that write, cancel, answer, interrupt, lose their connections and
come back, while agent, kernel and machine are killed. All is real: kernel, processes, sockets. What ran is told by
the code itself (:class:`peers.Journal`); what was promised is read at the end, from the history and from replicas.
A seed gives the same steps but not the same timing, so a failure may need more than one run to show again.

Not a state machine of hypothesis: an example costs seconds, and shrinking hundreds of them would cost hours. The
seeds are few and fixed by default; ``RTC_TEST_SEED=N`` plays one of them, ``RTC_TEST_ROUNDS=N`` so many, from 1 on,
and ``RTC_TEST_STEPS=N`` says how long a scene is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import pytest
from conftest import wait_until
from kernels import FOREVER, Gate, Running, start
from peers import TROUBLE, WRONG_EPOCH, ClientPeer, Journal, Line, StockPeer, fetch_replica
from pycrdt import Map
from serving import eventually

import rtc_kernel
from rtc_kernel import discovery, schema
from rtc_kernel.agent.keep.archive import open_readonly
from rtc_kernel.client import Address, Document, call
from rtc_kernel.errors import RefusedError
from rtc_kernel.tables import (
    END_STATES,
    Execution,
    ExecutionState,
    Json,
    KernelState,
    Request,
    RequestState,
    execution_from_json,
)

T = TypeVar("T")

SEEDS = (
    [int(os.environ["RTC_TEST_SEED"])]
    if "RTC_TEST_SEED" in os.environ
    else range(1, 1 + int(os.environ.get("RTC_TEST_ROUNDS", "6")))
)
STEPS = int(os.environ.get("RTC_TEST_STEPS", "120"))
PATIENCE_S = 60.0
"""How long anything that must happen may take; the machine may be busy."""

OPEN = ("requested", "accepted")
RESTING = (KernelState.IDLE, KernelState.STARTING)
"""A kernel that nobody has asked anything yet has not said that it is idle."""


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
            stage.keeper = asyncio.create_task(stage._keep_kernel())
            stack.callback(stage.keeper.cancel)
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
        if not self._restarting.locked():  # else it is dead
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
        return {key: str(row.get("state", "new")) for key, row in self.watcher.current().items()}

    def stored(self) -> dict[str, Request]:
        """All requests that were ever taken, from the file."""
        path = discovery.find(self.kernel.manager.connection_file).store
        with open_readonly(Path(str(path))) as archive:
            return {row.id: row for row in archive.requests(open_only=False)}

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
        wait_until(lambda: discovery.live(), "the agent serves", PATIENCE_S)
        asyncio.run(asyncio.wait_for(run(kernel), 8 * PATIENCE_S))


def execute(code: str, **columns: Any) -> Json:
    return {"action": "execute", "code": code, **columns}


# --- one death at a time -------------------------------------------------------------------------------------


async def blocked(stage: Stage) -> str:
    """A run of the owner's keeps the kernel busy; its execution."""
    run = await stage.owner.run(stage.journal.code("blocks", FOREVER))
    key = await run.execution()
    await stage.owner.wait_for(lambda doc: state_of(doc, key) == "running", PATIENCE_S)
    await eventually(lambda: "blocks" in stage.journal.read(), "its code runs", PATIENCE_S)
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
    def is_so(key: str) -> bool:  # what has ended leaves after a while
        said = stage.watcher.seen.get(key, {}).get("state") if state == "done" else None
        return state in (stage.states().get(key), said)

    await eventually(lambda: all(map(is_so, keys)), f"{keys} are {state}", PATIENCE_S)


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
            await until_states(stage, "held", *keys)
            assert "restarted" in stage.watcher.seen["w0"]["reason"]
        await stage.owner.interrupt(blocking)
        await stage.owner.wait_for(lambda doc: state_of(doc, blocking) == "error", PATIENCE_S)
        if after_crash == "hold":
            assert stage.journal.read() == ["blocks"]
            peer.write({"r": {"action": "release"}})
        await until_states(stage, "done", *keys)
        rows = {row.request: row for row in (await stage.history()).values() if row.request in keys}
        assert [rows[key].submitted_by for key in keys] == ["ann"] * 3
        if after_crash == "drop":
            assert stage.journal.read() == ["blocks"]
            assert {row.state for row in rows.values()} == {ExecutionState.CANCELLED}
        else:
            assert stage.journal.read() == ["blocks", *keys]
            assert {row.state for row in rows.values()} == {ExecutionState.OK}

    play(tmp_path, scene)


def test_a_run_that_the_agent_does_not_live_to_see_ends_once(tmp_path: Path, gate: Gate) -> None:
    async def scene(stage: Stage) -> None:
        peer = await stage.stock("ann")
        peer.write({"long": execute(stage.journal.code("long", gate.code + "print('through')"))})
        await eventually(lambda: stage.journal.read(), "it runs", PATIENCE_S)
        await until_states(stage, "accepted", "long")
        stage.kill_agent()
        gate.open()
        await new_agent(stage)
        await until_states(stage, "done", "long")
        (row,) = [row for row in (await stage.history()).values() if row.request == "long"]
        assert (row.state, [output.text for output in row.outputs]) == (ExecutionState.OK, ["through\n"])
        assert stage.journal.read() == ["long"]

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
        key = stage.kernel.client.execute(FOREVER)
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
            ran = stage.journal.read().count(key)
            states = [row.state for row in (await stage.history()).values() if row.request == key]
            assert (ran, states) == ((1, [ExecutionState.OK]) if stage.states()[key] == "done" else (0, []))

    play(tmp_path, scene)


def test_when_the_kernel_dies_what_ran_is_lost_and_what_waited_is_held(tmp_path: Path, gate: Gate) -> None:
    async def scene(stage: Stage) -> None:
        ann, bob = await stage.stock("ann"), await stage.stock("bob")
        ann.write({"dies": execute(stage.journal.code("dies", gate.code + "os.kill(os.getpid(), 9)"))})
        await until_states(stage, "accepted", "dies")
        keys = ["a1", "a2", "b1"]
        ann.write({key: execute(stage.journal.code(key)) for key in keys[:2]})
        bob.write({"b1": execute(stage.journal.code("b1"))})
        await until_states(stage, "requested", *keys)
        gate.open()
        await new_agent(stage)
        await until_states(stage, "held", *keys)
        await stage.owner.wait_for(lambda doc: doc.connected and doc.kernel.generation == 1, PATIENCE_S)
        (row,) = [row for row in (await stage.history()).values() if row.request == "dies"]
        assert (row.state, stage.stored()["dies"].state) == (ExecutionState.LOST, RequestState.DONE)
        await stage.owner.release()
        await until_states(stage, "done", *keys)
        ran = stage.journal.read()
        assert (ran[0], sorted(ran)) == ("dies", sorted(["dies", *keys]))
        assert ran.index("a1") < ran.index("a2")

    play(tmp_path, scene)


def test_after_the_death_of_the_machine_nothing_runs_by_itself_and_nothing_is_lost(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        ann = await stage.stock("ann")
        ann.write({"done": execute(stage.journal.code("done"))})
        await until_states(stage, "done", "done")
        ann.write({"runs": execute(stage.journal.code("runs", FOREVER))})
        await eventually(lambda: "runs" in stage.journal.read(), "it runs", PATIENCE_S)
        ann.write({key: execute(stage.journal.code(key)) for key in ("w1", "w2")})
        await until_states(stage, "requested", "w1", "w2")
        stage.kill_machine()
        await new_agent(stage)
        await until_states(stage, "held", "w1", "w2")
        assert stage.journal.read() == ["done", "runs"]
        states = {row.request: row.state.value for row in (await stage.history()).values()}
        assert states == {"done": "ok", "runs": "lost"}
        ann.write({"c": {"action": "cancel", "request": "w1"}, "r": {"action": "release", "request": "w2"}})
        await until_states(stage, "done", "w1", "w2")
        assert stage.journal.read() == ["done", "runs", "w2"]
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
            for line in lines if lost else ():
                await eventually(lambda line=line: line.lost_bytes, "what was sent is lost", PATIENCE_S)  # type: ignore[misc]
                line.cut()
            await eventually(lambda: not dot.unacknowledged and not ann.unacknowledged, "all are taken", PATIENCE_S)
        assert ann.closed == []
        await until_states(stage, "done", *dot.written, *ann.written)
        assert sorted(stage.journal.read()) == sorted([*dot.written, *ann.written])

    play(tmp_path, scene)


def test_what_runs_when_the_kernel_is_killed_is_lost_whether_or_not_its_beginning_was_heard_of(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        ann = await stage.stock("ann")
        for number in range(3):
            key = f"dies-{number}"
            ann.write({key: execute(stage.journal.code(key, "os.kill(os.getpid(), 9)"))})
            await new_agent(stage)
            await eventually(lambda key=key: stage.stored()[key].state is RequestState.DONE, "it has ended", PATIENCE_S)
            assert stage.journal.read().count(key) == 1
            assert [r.state.value for r in (await stage.history()).values() if r.request == key] == ["lost"]

    play(tmp_path, scene)


def test_what_ends_in_the_moment_in_which_the_machine_dies_is_in_the_history(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        ann = await stage.stock("ann")
        for number in range(4):
            await eventually(ann.online.is_set, "ann is there", PATIENCE_S)
            keys = [f"{number}-{at}" for at in range(20)]
            ann.write({key: execute(stage.journal.code(key)) for key in keys})
            some = keys[number]
            await eventually(lambda some=some: some in stage.journal.read(), "some ran", PATIENCE_S)
            stage.kill_machine()
            await new_agent(stage)
            await eventually(lambda: ann.online.is_set() and not ann.unacknowledged, "all are taken", PATIENCE_S)
            await eventually(lambda: not {*OPEN} & {*stage.states().values()}, "nothing is open", PATIENCE_S)
            rows = {row.request: row.state.value for row in (await stage.history()).values()}
            ran = [key for key in stage.journal.read() if key in keys]
            assert ran == keys[: len(ran)]
            for key, request in stage.stored().items():
                if request.action == "execute":
                    assert (request.state is RequestState.HELD) == (key not in rows), (key, request)
                    assert key not in ran or rows[key] in ("ok", "lost"), (key, rows.get(key))

    play(tmp_path, scene)


def test_a_silent_run_that_is_interrupted_at_any_moment_ends(tmp_path: Path) -> None:
    """The kernel may be interrupted before it runs the code; then it sends no reply, and nothing else would run."""

    async def scene(stage: Stage) -> None:
        chance = random.Random(1)
        for _ in range(40):
            run = await stage.owner.run("x = 1", silent=True)
            await asyncio.sleep(0.01 * chance.random())
            await stage.owner.interrupt()
            await asyncio.wait_for(run.result(), PATIENCE_S)
        assert (await (await stage.owner.run("1")).result()).state in END_STATES

    play(tmp_path, scene)


# --- scenes of chance ----------------------------------------------------------------------------------------

WEIGHTS = {
    "write": 30,
    "burst": 8,
    "silent": 2,
    "fails": 4,
    "asks": 3,
    "after": 5,
    "same cell": 6,
    "again": 2,
    "steal": 2,
    "bad": 4,
    "cancel": 6,
    "interrupt": 4,
    "answer": 5,
    "annotate": 2,
    "query": 2,
    "release": 5,
    "release one": 3,
    "frontend": 8,
    "cut": 4,
    "lose": 3,
    "leave": 3,
    "join": 6,
    "rejoin": 4,
}
"""What a step may be, and how often."""

DEATHS = ("agent", "agent", "kernel", "restart", "machine", "frontend restarts")
"""What may die in a scene; three of these do."""

BAD_ROWS: tuple[tuple[str, Json], ...] = (
    ("action", {"action": "explode"}),
    ("action", {"action": 5, "code": "1"}),
    ("code", {"action": "execute"}),
    ("code", {"action": "execute", "code": 5}),
    ("by", {"by": "owner"}),
    ("state", {"state": "done"}),
    ("stop_on_error", {"stop_on_error": "yes"}),
    ("after", {"after": "nobody-wrote-this"}),
    ("colour", {"colour": "red"}),
    ("action", {"action": "clear"}),
)
"""Columns that make a row bad, and the one that the reason has to name."""


class Scene:
    """A scene of chance: makes the steps of a seed, plays them, and finds what was not as promised."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.chance = random.Random(seed)
        self.lines: dict[str, Line] = {}
        self.peers: dict[str, StockPeer | ClientPeer] = {}
        self.keys: dict[str, str] = {}  # of each request to execute: what its code leaves in the journal
        self.bad: dict[str, str] = {}  # of each bad row: the column that is wrong
        self.after: dict[str, str] = {}
        self.front: list[str] = []
        self.stolen: set[str] = set()
        self.unordered: set[str] = set()  # requests that may have been held, so that others passed them
        self.checker: ClientPeer
        self.groups: dict[str, tuple[int, int]] = {}  # of those: which release let them run, after how many holds
        self.singled: set[str] = set()  # released one by one
        self.wrong: list[str] = []
        self._numbers = itertools.count(1)
        stage.watcher.begun = self._note_epoch

    async def play(self) -> None:
        """Everything: the steps, the end of all troubles, and the checks."""
        for name in ("ann", "bob", "cyd"):
            self.lines[name] = await self.stage.line()
            self.peers[name] = await self.stage.stock(name, line=self.lines[name])
        self.lines["dot"] = await self.stage.line()
        self.peers["dot"] = await self.stage.client("dot", self.lines["dot"])
        self.peers["owner"] = ClientPeer(self.stage.owner)
        self.checker = await self.stage.client("checker", await self.stage.line())
        steps = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS)
        for death in self.chance.sample(DEATHS, 3):
            steps[self.chance.randrange(STEPS // 10, STEPS)] = death
        for step in steps:
            name = self.chance.choice(list(self.peers))
            fraction, pause_s = self.chance.random(), self.chance.choice((0, 0, 0, 0.01, 0.03, 0.1))
            self.stage.note(f"{step} ({name})")
            await self._step(step, name, self.peers[name], fraction)
            await asyncio.sleep(pause_s)
        await self._settle()
        for round_ in range(self.chance.randrange(3)):
            self.stage.note(f"release all, {round_}")
            self._group(self.keys)
            with contextlib.suppress(RefusedError):
                await self.stage.owner.release()
            await self._settle()
        await self._check()

    # --- steps

    async def _step(self, step: str, name: str, peer: StockPeer | ClientPeer, fraction: float) -> None:
        stage, code, stock = self.stage, self.stage.journal.code, isinstance(peer, StockPeer)
        key = self._key(name)
        match step:
            case "write":
                then = "" if fraction < 0.7 else f"import time\ntime.sleep({(fraction - 0.7):.3f})"
                self._execute(peer, {key: code(key, then)})
            case "burst":
                self._execute(peer, {one: code(one) for one in (f"{key}.{n}" for n in range(2 + int(6 * fraction)))})
            case "silent":
                self._execute(peer, {key: code(key)}, silent=True)
            case "fails":
                self._execute(peer, {key: code(key, "1 / 0")}, stop_on_error=fraction < 0.6)
            case "asks":
                self._execute(peer, {key: code(key, "input('? ')")})
            case "after":
                known = [
                    one for one in self.keys if stage.watcher.seen.get(one, {}).get("state", "refused") != "refused"
                ]
                if known:
                    self.after[key] = pick(known[-20:], fraction)
                    self._execute(peer, {key: code(key)}, after=self.after[key])
            case "same cell":
                mode = "coalesce" if fraction < 0.7 else "queue"
                for number, other in enumerate(self.chance.sample(list(self.peers.values()), 2)):
                    self._execute(other, {f"{key}.{number}": code(key)}, shared=key, cell=key, on_duplicate=mode)
            case "again" if stock and peer.written:
                one = pick(list(peer.written), fraction)
                peer.write({one: peer.written[one]})
            case "steal" if stock:
                others = [one for one in self.keys if one not in peer.written and one in stage.watcher.seen]
                if others:
                    self.stolen.add(one := pick(others, fraction))
                    before = dict(peer.written)
                    peer.write({one: execute(code(f"stolen-{one}"))})
                    peer.written = before
            case "bad" if stock:
                column, columns = pick(BAD_ROWS, fraction)
                self.bad[key] = column
                row = execute(code(key)) | columns if "action" not in columns else columns
                peer.write({key: row})
            case "cancel":
                states = stage.states()
                waiting = [one for one in peer.written if states.get(one) in ("requested", "held", "new")]
                if waiting:
                    peer.write({key: {"action": "cancel", "request": pick(waiting, fraction)}})
            case "interrupt":
                running = [one for one, row in stage.owner.executions.items() if row.state is ExecutionState.RUNNING]
                given = {"execution": pick(running, fraction)} if running and fraction < 0.7 else {}
                peer.write({key: {"action": "interrupt", **given}})
            case "answer":
                rows = {f"{key}.{n}": answer(one) for n, one in enumerate(asking(stage.owner))}
                peer.write(rows)
            case "annotate":
                if known := list(stage.owner.executions):
                    row = {"execution": pick(known, fraction), "key": key, "value": [fraction]}
                    peer.write({key: {"action": "annotate", **row}})
            case "query":
                peer.write({key: {"action": "query", "target": "nobody", "input": fraction}})
            case "release":
                self._group(self.keys if name == "owner" else peer.written)
                peer.write({key: {"action": "release"}})
            case "release one":
                states = stage.states()
                held = [one for one in peer.written if states.get(one) == "held"]
                if held:
                    self.singled.add(one := pick(held, fraction))
                    peer.write({key: {"action": "release", "request": one}})
            case "frontend":
                self.front.append(key)
                stage.kernel.client.execute(code(key))
            case "cut" | "lose" if name in self.lines:
                getattr(self.lines[name], step)()
                if step == "lose":
                    asyncio.get_running_loop().call_later(0.3 * fraction, self.lines[name].cut)
            case "leave" if stock:
                await peer.leave()
            case "join" if stock:
                peer.join()
            case "rejoin" if stock:
                with contextlib.suppress(*TROUBLE):
                    closed = await peer.rejoin_former(named=fraction < 0.5)
                    if closed not in (0, None, 1006, 1012, WRONG_EPOCH):
                        self.wrong.append(f"a replica of another epoch was closed with {closed}")
            case "agent":
                stage.kill_agent()
            case "machine":
                stage.kill_machine()
            case "kernel":
                self._execute(peer, {key: code(key, "os.kill(os.getpid(), 9)")})
            case "restart":
                peer.write({key: {"action": "restart"}})
            case "frontend restarts":
                await stage.restart_as_frontend()

    def _key(self, name: str) -> str:
        return f"{name}-{next(self._numbers)}"

    def _execute(
        self, peer: StockPeer | ClientPeer, codes: dict[str, str], shared: str | None = None, **columns: Any
    ) -> None:
        self.keys |= {key: shared or key for key in codes}
        peer.write({key: execute(code, **columns) for key, code in codes.items()})

    def _ended(self, key: str) -> bool:
        return self.stage.watcher.seen.get(key, {}).get("state") in ("done", "refused")

    def _note_epoch(self) -> None:
        """What has not ended may be held now, and released before the watcher is back."""
        self.stage.note(f"epoch {self.stage.watcher.epoch}")
        open_ = {key for key in self.keys if not self._ended(key)}
        self.unordered |= open_
        for key in open_:
            self.groups.pop(key, None)

    def _group(self, keys: Iterable[str]) -> None:
        """All of these that are held are going to be released together."""
        states, number = self.stage.states(), next(self._numbers)
        for key in keys:
            if states.get(key) == "held":
                self.groups[key] = number, self.stage.watcher.held[key]

    # --- the end

    async def _settle(self) -> None:
        """Everybody is there, and nothing is open any more but what is held."""
        self.stage.note("settle")
        for peer in self.peers.values():
            if isinstance(peer, StockPeer):
                peer.join()
        for line in self.lines.values():
            line.cut()
        answering = asyncio.create_task(self._answer_all())
        try:
            await eventually(self._is_at_rest, self._open, 2 * PATIENCE_S)  # a question may wait for a minute
        finally:
            answering.cancel()

    async def _answer_all(self) -> None:
        while True:
            for key in asking(self.stage.owner):
                with contextlib.suppress(RefusedError):
                    await self.stage.owner.answer(key, "at the end")
            await asyncio.sleep(0.02)

    def _open(self) -> dict[str, Any]:
        """What is not as it is at rest; falsy values are."""
        stage, blocked = self.stage, self._blocked()
        return {
            "requests": {
                key: state for key, state in stage.states().items() if state in ("new", *OPEN) and key not in blocked
            },
            "executions": [key for key, row in stage.owner.executions.items() if row.state not in END_STATES],
            "unacknowledged": {name: peer.unacknowledged for name, peer in self.peers.items() if peer.unacknowledged},
            "away": [name for name, peer in self.peers.items() if not is_online(peer)],
            "watcher": not stage.watcher.online.is_set(),
            "owner": not stage.owner.connected,
            "kernel": "" if stage.owner.kernel.state in RESTING else stage.owner.kernel.state.value,
        }

    def _blocked(self) -> set[str]:
        """What waits for a row that is held, by its ``after`` or behind one that does."""
        rows = {
            key: row for key, row in self.stage.watcher.current().items() if row.get("state") in ("requested", "held")
        }
        blocked = {key for key, row in rows.items() if row["state"] == "held"}
        writers = set[str]()
        for key, row in sorted(rows.items(), key=lambda item: item[1]["ordinal"]):
            if row["state"] == "requested" and (row["by"] in writers or row.get("after") in blocked):
                writers.add(row["by"])
                blocked.add(key)
        return blocked

    def _is_settled(self) -> bool:
        return not any(self._open().values())

    async def _is_at_rest(self) -> bool:
        return self._is_settled() and await self._works()

    async def _works(self) -> bool:
        """A request of somebody who has no others, and a frontend's cell, get through: nothing stands before them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S / 4):
                run = await self.checker.doc.run("'at rest'")
                if (await run.result()).state is not ExecutionState.OK:
                    return False
                cell = self.stage.kernel.client.execute("'at rest'")
                await self.stage.owner.wait_for(lambda doc: state_of(doc, cell) in END_STATES)
                return state_of(self.stage.owner, cell) == "ok" and self._is_settled()
        return False

    async def _check(self) -> None:
        stage, wrong = self.stage, self.wrong
        stored, history, ran = stage.stored(), await stage.history(), stage.journal.read()
        blocked = self._blocked()
        counts = Counter(ran)
        executions: dict[str, set[str]] = {}
        for key, mark in self.keys.items():
            row = stored.get(key)
            if row is None:
                wrong.append(f"{key} was acknowledged and is not in the history")
                continue
            executions.setdefault(mark, set())
            writer = next(name for name, peer in self.peers.items() if key in peer.written)
            if row.by != writer:
                wrong.append(f"{key} of {writer} is by {row.by}")
            if row.state == "done" and row.execution:
                executions[mark].add(row.execution)
            elif row.state not in ("held", "done") and key not in blocked:
                wrong.append(f"{key} is {row.state}: {row.reason}")
        silent = {key for key in self.keys if self._is_silent(key)}
        for mark, ids in executions.items():
            if mark in silent:
                least = int(stored[mark].state == "done" and stored[mark].reason is None)
                spans = [(least, int(stored[mark].state == "done"))]
            else:
                missing = [one for one in ids if one not in history]
                wrong += [f"{mark} is done, and its execution {one} is not in the history" for one in missing]
                spans = [(0, 1) if one in missing else span(history[one]) for one in ids]
            least, most = sum(low for low, _ in spans), sum(high for _, high in spans)
            if not least <= counts[mark] <= most:
                ends = [f"{history[one].state}: {history[one].error}" for one in ids if one in history]
                wrong.append(f"{mark} ran {counts[mark]} times, not {least} to {most}: {ends}")
        wrong += [f"{key} of a frontend ran {counts[key]} times" for key in self.front if counts[key] > 1]
        ours = {*self.keys.values(), *self.front}
        wrong += [f"{key} ran" for key in counts if key not in ours]
        runs = Counter(row.request for row in history.values() if row.request)
        wrong += [f"{key} has {count} executions" for key, count in runs.items() if count > 1]
        wrong += [f"{row.id} is {row.state}" for row in history.values() if row.state not in END_STATES]
        for key, column in self.bad.items():
            row = stored.get(key)
            if row is None or row.state != "refused" or not row.reason.startswith(f"{column}: "):
                wrong.append(f"the bad row {key} ({column}) is {row}")
        self._check_order({key: at for at, key in enumerate(ran)})
        await self._check_replicas()
        for name, peer in self.peers.items():
            if isinstance(peer, StockPeer) and peer.closed:
                wrong.append(f"{name} was closed with {peer.closed}")
        states = Counter(row.state.value for row in stored.values())
        stage.note(f"{len(ran)} runs, requests: {dict(states)}")

    def _is_silent(self, key: str) -> bool:
        return any(peer.written[key].get("silent") for peer in self.peers.values() if key in peer.written)

    def _check_order(self, places: dict[str, int]) -> None:
        """Of one peer, what was never held ran in the order in which it was written; so did what was released
        together; and what runs after another one ran after it."""
        watcher, groups = self.stage.watcher, dict[str, int]()
        for key in self.keys:
            if key not in self.unordered and not watcher.held[key]:
                groups[key] = 0
            elif key in self.groups and key not in self.singled and self.groups[key][1] == watcher.held[key]:
                groups[key] = self.groups[key][0]
        for name, peer in self.peers.items():
            mine = [key for key in peer.written if key in places and key in groups]
            for group in {groups[key] for key in mine}:
                order = [key for key in mine if groups[key] == group]
                if order != sorted(order, key=places.__getitem__):
                    self.wrong.append(f"{name} wrote {order}, which ran as {sorted(order, key=places.__getitem__)}")
        front = [key for key in self.front if key in places]
        if front != sorted(front, key=places.__getitem__):
            self.wrong.append("the frontend's cells ran in another order")
        for key, earlier in self.after.items():
            mark = self.keys[earlier]
            alone = mark == earlier and self.keys[key] == key
            if alone and key in places and mark in places and places[key] < places[mark]:
                self.wrong.append(f"{key} ran before {earlier}")

    async def _check_replicas(self) -> None:
        stage, room = self.stage, f"{self.stage.kernel.kernel_id}/state"
        one, two = await fetch_replica(stage.address, room), await fetch_replica(stage.address, room)
        tables: dict[str, list[Any]] = {
            "executions": [
                schema.read_executions(one),
                schema.read_executions(two),
                [*stage.owner.executions.values()],
            ],
            "kernels": [schema.read_kernels(one), schema.read_kernels(two), [stage.owner.kernel]],
            "comms": [schema.read_comms(one), schema.read_comms(two), [*stage.owner.comms.values()]],
            "meta": [schema.read_meta(one), schema.read_meta(two), dict(stage.owner.meta)],
        }
        self.wrong += [
            f"replicas differ in {name}: {rows}" for name, rows in tables.items() if any(row != rows[0] for row in rows)
        ]

        async def is_one() -> bool:  # what has ended leaves one replica before the other
            requests = (await fetch_replica(stage.address, stage.watcher.room)).get("requests", type=Map)
            states = {key: requests[key].to_py().get("state") for key in list(requests)}
            blocked = self._blocked()
            is_open = any(state in OPEN and key not in blocked for key, state in states.items())
            return states == stage.states() and not is_open

        try:
            await eventually(is_one, "replicas of the requests are the same, and nothing is open", PATIENCE_S)
        except AssertionError as exc:
            self.wrong.append(str(exc))


def pick(things: Sequence[T], fraction: float) -> T:
    return things[int(fraction * len(things))]


def answer(execution: str) -> Json:
    return {"action": "input", "execution": execution, "value": "yes"}


def asking(doc: Document) -> list[str]:
    return [key for key, row in doc.executions.items() if row.input is not None]


def is_online(peer: StockPeer | ClientPeer) -> bool:
    return peer.online.is_set() if isinstance(peer, StockPeer) else peer.doc.connected


def span(row: Execution) -> tuple[int, int]:
    """How often the code of such an execution has run, at least and at most."""
    match row.state:
        case ExecutionState.OK:
            return 1, 1
        case ExecutionState.ERROR:
            return int(row.error is not None and row.error["ename"] == "ZeroDivisionError"), 1
        case ExecutionState.LOST:
            return 0, 1
        case _:
            return 0, 0


@pytest.mark.timeout(10 * PATIENCE_S)
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_peers_do_and_whatever_dies_the_promises_hold(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_crash = ("resume", "hold", "drop", "hold")[seed % 4]
    monkeypatch.setenv("RTC_KERNEL_REQUESTS_AFTER_CRASH", after_crash)

    async def scene(stage: Stage) -> None:
        made = Scene(stage, seed)
        try:
            await made.play()
            assert not made.wrong
            print(stage.notes[-1])
        except BaseException:
            print(f"seed {seed}, {after_crash}:", *stage.notes, "wrong:", *made.wrong, sep="\n  ")
            raise

    play(tmp_path, scene)
