"""Facts about ``jupyter rtc attach``: a kernel that somebody else has started is followed, and does not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from conftest import recorded
from faults import PREPARE, Cell, Victim
from kernels import FOREVER, Gate, Running, ask, finish, gone, start
from test_cli_acting import COMMAND, rtc
from test_faults import Play

import rtc_kernel
from rtc_kernel import discovery
from rtc_kernel.errors import SetupError
from rtc_kernel.relay.connection import PORT_NAMES
from rtc_kernel.tables import END_STATES, Execution, ExecutionState

Until = Callable[..., Any]
Json = dict[str, Any]

PATIENCE_S = 60.0


@dataclass
class Following:
    """``jupyter rtc attach``, and the kernel that it follows."""

    command: subprocess.Popen[str]
    kernel: Running
    told: Json

    @property
    def live(self) -> discovery.LiveKernel:
        return discovery.find(self.kernel.kernel_id)

    @property
    def tap(self) -> psutil.Process:
        return psutil.Process(self.live.relay_pid)

    def rows(self) -> list[Json]:
        """The history, oldest first; nothing while no agent serves it."""
        try:
            return list(reversed(ask(self.kernel.kernel_id, "/api/history?limit=500")["executions"]))
        except (SetupError, OSError):
            return []

    def health(self) -> Json:
        return dict(ask(self.kernel.kernel_id, "/api/health"))

    def event(self) -> Json | None:
        """What the command says next."""
        assert self.command.stdout is not None
        line = self.command.stdout.readline()
        return dict(json.loads(line)) if line else None


@contextlib.contextmanager
def follow(kernel: Running, *arguments: str, name: str | None = None) -> Iterator[Following]:
    """Attach to a kernel for a while."""
    argv = [*COMMAND, "attach", "--json", *arguments, name or kernel.manager.connection_file]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as command:
        following = Following(command, kernel, {})
        try:
            following.told = following.event() or {}
            assert following.told.get("event") == "attached", following.told
            yield following
        finally:
            command.send_signal(signal.SIGINT)
            command.wait(PATIENCE_S)


@pytest.fixture
def bare(home: Path) -> Iterator[Running]:
    """An ipykernel that nobody of us has started."""
    with start("python3") as running:
        yield running


def ended(following: Following, *ids: str) -> Callable[[], list[Json] | None]:
    """A condition: these executions are in the history, and have ended; gives all rows."""

    def look() -> list[Json] | None:
        rows = following.rows()
        states = {row["id"]: row["state"] for row in rows}
        return rows if all(states.get(key) in END_STATES for key in ids) else None

    return look


class Watched(Victim):
    """A kernel with frontends of its own; only the agent that follows it is at the test's mercy."""

    def __init__(self, following: Following, store: Path) -> None:
        super().__init__(following.kernel, store)
        self.following = following

    def agents(self) -> list[psutil.Process]:
        return [one for one in self.following.tap.children() if "rtc_kernel.agent" in one.cmdline()]


class Watching(Play):
    """Rounds on a kernel that is only watched: what it has aborted it does not publish."""

    def settle(self, cells: dict[str, Cell], lost: str) -> None:
        aborted = {key for key in cells if self.tape.runs[key].replies[0]["status"] == "aborted"}
        super().settle({key: cell for key, cell in cells.items() if key not in aborted}, lost)


def test_what_frontends_saw_is_in_the_history(bare: Running, home: Path) -> None:
    """Also what came while there was no agent; the frontends' own record is made from the kernel's channels."""
    with follow(bare) as following:
        watched = Watched(following, home / "data" / "rtc_kernel")
        try:
            play = Watching(watched, "attached", int(os.environ.get("RTC_TEST_SEED", "1")))
            watched.ready()
            play.author.write = one_shell(play)  # type: ignore[method-assign]
            first = play.send(Cell(PREPARE), 0)
            play.finish({first: Cell(PREPARE)})
            play.settle({first: Cell(PREPARE)}, "nothing")
            for _ in range(8):
                play.round(lambda: None, lambda: None, "nothing")
            for _ in range(3):
                play.round(watched.kill_agent, lambda: None, "nothing")
        finally:
            watched.close()
        assert following.health()["coverage"] == "iopub-only"


def test_what_is_fetched_together_has_the_kernels_own_times(bare: Running, until: Until) -> None:
    """Unless the machine was busy in between, so of many runs one is enough."""
    with follow(bare) as following:
        runs = [bare.execute("import time; time.sleep(0.002)") for _ in range(20)]
        took = {}
        for run in runs:
            dates = {message["msg_type"]: message["header"]["date"].timestamp() for message in run.iopub}
            took[run.reply["parent_header"]["msg_id"]] = dates["status"] - dates["execute_input"]  # its last status
        rows = until(ended(following, *took), "the history has them", 20)
        assert isinstance(rows, list)
        off = [abs(row["finished_at"] - row["started_at"] - took[row["id"]]) for row in rows if row["id"] in took]
        assert min(off) < 0.001


def one_shell(play: Play) -> Callable[..., Cell]:
    """Cells of a play without subshells: an attached kernel's are recorded as well, but the play made none."""
    write = type(play.author).write
    return lambda **_: write(play.author, alone=True)


def test_what_is_asked_through_the_document_is_seen_in_full_and_runs_once(bare: Running, until: Until) -> None:
    with follow(bare, "--share", "--role", "run") as following:
        assert following.told["link"]["role"] == "run"

        async def ask_for() -> list[Execution]:
            async with rtc_kernel.connect(following.told["link"]["url"]) as doc:
                assert doc.meta["coverage"] == "iopub-only"
                first = await doc.run("count = globals().get('count', 0) + 1; print(count)", cell="c-1")
                assert (await first.result()).state is ExecutionState.OK
                asking = await doc.run("print(input('who? '))")
                key = await asking.execution()
                await doc.wait_for(lambda doc: key in doc.executions and doc.executions[key].input is not None)
                await doc.answer(key, "ada")
                done = [await asking.result(), await (await doc.run("1/0")).result()]
                running = await doc.run(f"print('asleep'); {FOREVER}")
                async for now in running.changes():
                    if now.outputs:  # a kernel that has only just begun a cell may not feel a signal
                        break
                await doc.interrupt()
                done.append(await running.result())
                with pytest.raises(SetupError, match="started by somebody else"):
                    await doc.restart()
                return done

        asking, failed, stopped = asyncio.run(asyncio.wait_for(ask_for(), PATIENCE_S))
        assert asking.outputs[0].text == "ada\n"
        assert failed.error == {"ename": "ZeroDivisionError", "evalue": "division by zero"}
        assert stopped.error is not None
        assert stopped.error["ename"] == "KeyboardInterrupt"
        assert bare.execute("print(count)").text == "1\n"
        rows = recorded(bare.kernel_id, "ok", "ok", "error", "error", "ok")
        assert rows[0]["cell"] == "c-1"
        assert [row["queued_at"] is not None for row in rows] == [True] * 4 + [False]


def test_a_kernel_that_is_busy_is_found_busy_and_its_execution_ends(bare: Running, gate: Gate, until: Until) -> None:
    msg_id = bare.client.execute(gate.code + "print('out')\n7")
    until(lambda: finish_of(bare, msg_id, "execute_input"), "it runs", 30)
    with follow(bare) as following:
        until(lambda: following.health()["kernel"]["state"] == "busy", "it is busy", 30)
        assert (following.told["display_name"], following.live.kernel_name) == ("Python 3 (ipykernel)", "python3")
        gate.open()
        (row,) = until(ended(following, msg_id), "it has ended", 30)
        assert (row["code"], row["state"], len(row["outputs"])) == ("", "ok", 2)
        until(lambda: following.health()["kernel"]["state"] == "idle", "it is idle", 30)


def finish_of(running: Running, msg_id: str, kind: str) -> bool:
    message = running.client.get_iopub_msg(timeout=30)
    return message["msg_type"] == kind and message["parent_header"].get("msg_id") == msg_id


def test_a_silent_request_leaves_no_row_and_everybody_has_one(bare: Running, until: Until) -> None:
    """Whoever is connected, by ``%connect_info`` too, is one client among others."""
    other = bare.connect()
    try:
        with follow(bare) as following:
            finish(other, other.execute("1"))
            finish(bare.client, bare.client.execute("hidden = 1", silent=True))
            bare.client.session.username = "ann"
            last = bare.client.execute("2")
            rows = until(ended(following, last), "the last has ended", 30)
            assert [row["code"] for row in rows] == ["1", "2"]
            assert [row["client"] for row in rows] == [other.session.session, bare.client.session.session]
            assert rows[1]["submitted_by"] == "ann"
            assert [row["execution_count"] for row in rows] == [1, 2]
    finally:
        other.stop_channels()


def test_the_kernel_does_not_notice_that_who_follows_it_dies(bare: Running, gate: Gate, until: Until) -> None:
    bare.execute("kept = 1")
    with follow(bare) as following:
        first = bare.client.execute("1")
        until(ended(following, first), "it is recorded", 30)
        running = bare.client.execute(gate.code)
        until(lambda: len(following.rows()) == 2, "it runs", 30)
        tap, agent = following.tap, psutil.Process(following.live.agent_pid)
        agent.kill()
        tap.kill()
        assert (following.event() or {})["reason"] == "what followed it has died"
        assert following.command.wait(PATIENCE_S) == 1
    with follow(bare) as following:  # the history goes on, in the same life of the kernel
        assert following.health()["kernel"]["generation"] == 0
        rows = following.rows()
        assert [(row["id"], row["state"]) for row in rows] == [(first, "ok"), (running, "lost")]
        gate.open()
        last = bare.client.execute("print(kept)")
        rows = until(ended(following, last), "it is recorded", 30)
        assert [row["seq"] for row in rows] == [1, 2, 3]
        assert rows[2]["outputs"][0]["text"] == "1\n"
    assert finish(bare.client, last).text == "1\n"


def test_ctrl_c_ends_who_follows_and_not_the_kernel(bare: Running, until: Until) -> None:
    with follow(bare) as following:
        processes = [following.tap, *following.tap.children()]
        os.killpg(following.command.pid, signal.SIGINT)  # as a terminal does it
        assert following.event() == {"event": "ended", "reason": "stopped"}
        assert following.command.wait(PATIENCE_S) == 0
        assert psutil.wait_procs(processes, PATIENCE_S)[1] == []
    assert discovery.live() == []
    assert bare.execute("print(1)").text == "1\n"


def test_who_follows_goes_with_the_command_that_started_it(bare: Running) -> None:
    with follow(bare) as following:
        tap = following.tap
        following.command.kill()
        tap.wait(PATIENCE_S)
    assert bare.execute("print(1)").text == "1\n"


def test_restarts_and_the_end_are_seen(bare: Running, until: Until) -> None:
    with contextlib.ExitStack() as stack, follow(bare) as following:
        running = bare.client.execute(FOREVER)
        until(lambda: [row["state"] for row in following.rows()] == ["running"], "it runs", 30)
        bare.manager.restart_kernel(now=True)
        bare.client.wait_for_ready(timeout=PATIENCE_S)
        until(lambda: following.health()["kernel"]["generation"] == 1, "it hears the next life", 30)
        first = bare.client.execute("1")
        rows = until(ended(following, running, first), "the next life is followed", 30)
        assert [(row["state"], row["generation"]) for row in rows] == [("lost", 0), ("ok", 1)]
        until(lambda: following.health()["kernel"]["state"] == "idle", "it is idle", 30)
        bare.manager.restart_kernel(newports=True)  # as a server does where a kernel died at its start
        stack.callback((client := bare.manager.blocking_client()).stop_channels)
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE_S)
        until(lambda: following.health()["kernel"]["generation"] == 2, "it hears the third life", 30)
        second = client.execute("2")
        rows = until(ended(following, second), "the third life is followed", 30)
        assert [row["generation"] for row in rows] == [0, 1, 2]
        psutil.Process(bare.pid).kill()  # and whoever has started it does not care yet
        until(lambda: following.health()["kernel"]["state"] == "dead", "its death is seen", 30)
        bare.manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=PATIENCE_S)
        until(lambda: following.health()["kernel"]["generation"] == 3, "it hears the fourth life", 30)
        third = client.execute("3")
        rows = until(ended(following, third), "the fourth life is followed", 30)
        assert rows[-1]["generation"] == 3
        bare.manager.shutdown_kernel()
        assert following.event() == {"event": "ended", "reason": "the kernel has ended"}
        assert following.command.wait(PATIENCE_S) == 0
    told = json.loads(rtc("history", bare.kernel_id, "--json").stdout)
    assert [row["code"] for row in told][::-1] == [FOREVER, "1", "2", "3"]


def test_another_kernel_at_its_ports_is_not_taken_for_it(bare: Running, tmp_path: Path, until: Until) -> None:
    """A port that a kernel has left may be given to anybody, of another user too."""
    with follow(bare) as following:
        psutil.Process(bare.pid).kill()
        until(lambda: not bare.manager.is_alive(), "it is gone", 30)
        ports = {name: getattr(bare.manager, name) for name in PORT_NAMES}
        with start("python3", manager={"connection_file": str(tmp_path / "kernel-b.json"), **ports}) as other:
            assert other.execute("print('not yours')").text == "not yours\n"
            until(lambda: following.health()["kernel"]["state"] == "dead", "its death is seen", 30)
            other.execute("print('nor this')")
            assert following.rows() == []
        bare.manager.restart_kernel(now=True)
        bare.client.wait_for_ready(timeout=PATIENCE_S)
        until(lambda: following.health()["kernel"]["generation"] == 1, "it is heard again", 30)
        last = bare.client.execute("1")
        (row,) = until(ended(following, last), "it is followed again", 30)
        assert row["generation"] == 1


def test_a_restart_while_nobody_follows_begins_a_generation(bare: Running, until: Until) -> None:
    for generation in range(2):
        with follow(bare) as following:
            last = bare.client.execute("1")
            rows = until(ended(following, last), "it is recorded", 30)
            assert [row["generation"] for row in rows] == list(range(generation + 1))
        bare.manager.restart_kernel()
        bare.client.wait_for_ready(timeout=PATIENCE_S)


def test_a_kernel_has_one_writer(bare: Running, kernel: Running, until: Until) -> None:
    until(discovery.live, "the agent of the RTC kernel serves", 30)
    done = rtc("attach", kernel.kernel_id)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
    assert "is an RTC kernel already" in done.stderr
    assert done.stdout.startswith(discovery.find(kernel.kernel_id).url)
    inside = kernel.execute("import ipykernel; print(ipykernel.get_connection_file())").text.strip()
    assert "is an RTC kernel already" in rtc("attach", inside).stderr
    with follow(bare) as following:
        again = rtc("attach", "--json", bare.manager.connection_file)
        told = json.loads(again.stdout)
        assert (again.returncode, told["event"], told["attached"]) == (0, "already", True)
        assert told["link"]["url"].startswith(following.live.url)
        argv = [sys.executable, "-m", "rtc_kernel.relay.attached", "-f", bare.manager.connection_file]
        late = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S)  # both had looked before
        assert json.loads(late.stdout)["what"].endswith("is followed already")
        assert {row["kernel_id"] for row in json.loads(rtc("list", "--json").stdout)} == {
            bare.kernel_id,
            kernel.kernel_id,
        }


def test_an_rtc_kernel_whose_agent_is_not_there_yet_stays_its_agents(bare: Running, until: Until) -> None:
    """Its relay is a kernel like any other until then. The stand-in for its agent does what one does first."""
    argv = [sys.executable, "-m", "rtc_kernel.relay.attached", "-f", bare.manager.connection_file]
    held = discovery.hold(bare.kernel_id)
    assert held is not None
    assert discovery.hold(bare.kernel_id) is None
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S)
    assert json.loads(done.stdout)["what"].endswith("is followed already")
    discovery.let_go(held)
    with follow(bare) as following:
        listed = replace(following.live, relay_pid=os.getpid(), agent_pid=os.getpid(), attached=False)
        discovery.write(listed)
        assert (following.event() or {})["reason"] == "it is an RTC kernel, which had only just been started"
        assert following.command.wait(PATIENCE_S) == 0
        assert discovery.live() == [listed]
        discovery.remove(listed.kernel_id)


def test_in_the_background_until_it_is_told_to_stop(home: Path, until: Until) -> None:
    """Named by nothing: it is the only kernel that runs."""
    file = home / "runtime" / "kernel-only.json"
    with start("python3", manager={"connection_file": str(file)}) as running:
        done = rtc("attach", "--detach")
        assert done.returncode == 0, done.stderr
        assert "`jupyter rtc detach` ends that" in done.stderr
        assert rtc("exec", "only", "print(6 * 7)").stdout == "42\n"
        assert "is attached to already" in rtc("attach").stderr
        tap = psutil.Process(discovery.find("only").relay_pid)
        assert rtc("detach").returncode == 0
        assert gone([tap])()
        assert rtc("detach").returncode == 2
        assert running.execute("print(1)").text == "1\n"
    assert rtc("detach", "only").returncode == 2


@pytest.mark.parametrize("how", ["curve", "ipc"])
def test_other_transports(home: Path, tmp_path: Path, until: Until, how: str) -> None:
    directory = tmp_path if len(str(tmp_path)) < 70 else Path("/tmp")
    manager = (
        {"transport_encryption": "required"}
        if how == "curve"
        else {"transport": "ipc", "ip": f"{directory}/k{os.getpid()}"}
    )
    with start("python3", manager=manager) as running, follow(running) as following:
        last = running.client.execute("print(1)")
        rows = until(ended(following, last), "it is recorded", 30)
        assert rows[0]["outputs"][0]["text"] == "1\n"
        assert rtc("exec", running.kernel_id, "print(2)").stdout == "2\n"


@pytest.mark.filterwarnings("ignore:Passing unrecognized arguments to super.KernelSpec:DeprecationWarning")
def test_a_kernel_of_another_language(home: Path, until: Until) -> None:
    subprocess.run([sys.executable, "-m", "bash_kernel.install", "--user"], check=True, capture_output=True)
    with start("bash") as running, follow(running) as following:
        assert following.told["display_name"] == "Bash"
        last = running.client.execute("echo $((6 * 7))")
        (row,) = until(ended(following, last), "it is recorded", 30)
        assert row["outputs"][0]["text"] == "42\n"
        assert following.health()["kernel"]["language"] == "bash"


def test_a_kernel_that_copies_the_clients_session_is_followed(home: Path, until: Until) -> None:
    """As IRkernel does it: its messages say nothing of the process."""
    from driven import write_spec

    code = """
from ipykernel import kernelapp, kernelbase
from jupyter_client.session import Session
class Copying(Session):
    def msg(self, msg_type, content=None, parent=None, header=None, metadata=None):
        made = super().msg(msg_type, content, parent, header, metadata)
        if made["parent_header"]:
            made["header"]["session"] = made["parent_header"]["session"]
        return made
app = kernelapp.IPKernelApp.instance(session=Copying())
app.session.key = b""
app.initialize()
app.start()
"""
    write_spec(home, "copying", [sys.executable, "-c", code, "-f", "{connection_file}"])
    with start("copying") as running, follow(running) as following:
        other = running.connect()
        finish(other, other.execute("1"))
        last = running.client.execute("2")
        rows = until(ended(following, last), "it is recorded", 30)
        assert [(row["code"], row["generation"]) for row in rows] == [("1", 0), ("2", 0)]
        other.stop_channels()
        running.manager.restart_kernel()
        running.client.wait_for_ready(timeout=PATIENCE_S)
        # By the loss of the connection alone: what had run before that was seen would be taken for the former life's
        until(lambda: following.health()["kernel"]["generation"] == 1, "the next life is followed", 30)
        last = running.client.execute("3")
        rows = until(ended(following, last), "it is recorded, too", 30)
        assert rows[-1]["generation"] == 1


# --- what cannot be attached to


def refused(*arguments: str) -> tuple[int, str]:
    """The exit code, and the one line that says why."""
    done = rtc("attach", *arguments)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return done.returncode, line.removeprefix("jupyter rtc: ")


def test_nobody_answers(home: Path, tmp_path: Path) -> None:
    with start("python3") as running:
        info = Path(running.manager.connection_file).read_text()
    file = tmp_path / "kernel-dead.json"
    file.write_text(info)
    os.utime(file, (1, 1))  # or it might be on its way
    code, line = refused(str(file))
    assert (code, line.startswith("nobody answers at tcp://127.0.0.1:")) == (1, True)
    assert line.endswith("the kernel has ended, or is on another machine")
    assert refused("nothing-of-this-name")[0] == 2
    assert refused()[0] == 2


def test_somebody_answers_who_is_no_kernel_or_has_another_key(bare: Running, tmp_path: Path, until: Until) -> None:
    info = json.loads(Path(bare.manager.connection_file).read_text())
    file = tmp_path / "kernel-wrong.json"
    file.write_text(json.dumps(info | {"key": "another"}))
    code, line = refused(str(file), "--timeout", "6")
    assert (code, f"the key in {file}" in line) == (1, True)  # what it has published lately may have told already
    began, enough = tmp_path / "began", tmp_path / "enough"
    talk = f"import pathlib, time\npathlib.Path({str(began)!r}).touch()\n"
    talk += "for _ in range(6000):\n    print('x', flush=True); time.sleep(0.02)\n"
    talk += f"    if pathlib.Path({str(enough)!r}).exists(): break"
    talking = bare.client.execute(talk)
    until(began.exists, "it talks", 30)
    code, line = refused(str(file), "--timeout", "5")
    enough.touch()
    assert code == 1
    assert f"the key in {file} is not that of the kernel" in line
    finish(bare.client, talking)
    assert bare.execute("print(1)").text == "1\n"

    with contextlib.ExitStack() as stack:
        doors = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(5)]
        names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        ports = {name: door.getsockname()[1] for name, door in zip(names, doors, strict=True)}
        file.write_text(json.dumps(info | ports))
        os.utime(file, (1, 1))
        code, line = refused(str(file))
        assert (code, line.startswith("nobody answers at")) == (1, True)


def test_a_kernel_that_says_nothing_may_be_given_more_time(tmp_path: Path, until: Until) -> None:
    """One that has no control channel of its own is silent while code runs."""
    context, ended = zmq.Context(), threading.Event()
    sockets = {name: context.socket(zmq.ROUTER) for name in ("shell_port", "stdin_port", "control_port", "hb_port")}
    sockets["iopub_port"] = context.socket(zmq.PUB)
    ports = {name: sock.bind_to_random_port("tcp://127.0.0.1") for name, sock in sockets.items()}
    file = tmp_path / "kernel-mute.json"
    file.write_text(json.dumps({"ip": "127.0.0.1", "transport": "tcp", "key": "k", **ports}))
    try:
        code, line = refused(str(file), "--timeout", "6")
        assert (code, "--timeout S if it is busy" in line) == (1, True)
    finally:
        ended.set()
        context.destroy(linger=0)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "kernel-bad.json"
    file.write_text("{}")
    assert refused(str(file)) == (
        2,
        f"{file} has no five ports, so it is no connection file: give a kernel's connection file",
    )
    info = dict.fromkeys(("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port"), 1)
    file.write_text(json.dumps(info | {"key": "k", "signature_scheme": "hmac-nothing"}))
    code, line = refused(str(file))
    assert code in (1, 2)
    assert str(file) in line
