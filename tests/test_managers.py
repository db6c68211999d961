"""Managers that start kernels in ways of their own: one that requires CurveZMQ, and VS Code."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from conftest import wait_until
from driven import write_spec
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import jupyter_runtime_dir
from kernels import FOREVER, Run, Running, ask, finish, gone, patient_relay, reply_to, start
from test_attach import ended, follow
from test_cli_acting import rtc

from rtc_kernel import discovery
from rtc_kernel.agent.keep.archive import histories, open_readonly
from rtc_kernel.tables import Execution, ExecutionState

Until = Callable[..., Any]

PATIENCE_S = 60.0

GRACE_S = 6.0
"""How long the relay waits here for its agent's word on who got a signal."""


# --- a manager that requires CurveZMQ

REQUIRED = {"transport_encryption": "required"}
"""What an administrator sets where people share a machine: ``c.KernelManager.transport_encryption``."""
SILENCE_MS = 300
"""How long nothing comes to who is to get nothing, while a kernel answers others."""


def keys_of(kernel: Running) -> tuple[str, str]:
    info = json.loads(Path(kernel.manager.connection_file).read_text())
    return info["curve_publickey"], info["curve_secretkey"]


def child_transport(kernel: Running) -> str:
    """How the relay speaks to the real kernel."""
    file = Path(kernel.execute("import ipykernel; print(ipykernel.get_connection_file())").text.strip())
    told = json.loads(file.read_text())
    assert not [name for name in told if name.startswith("curve")], "the keys are for the front"
    return str(told["transport"])


def channels_heard(
    kernel: Running, server: str | None, own: tuple[str, str] | None, wait_ms: int = SILENCE_MS
) -> set[str]:
    """On which channels a client hears something of a kernel that answers.

    Args:
        server: the public key that it takes the kernel to have; null: it does not encrypt.
        own: its own pair.
    """
    info, session = kernel.manager.get_connection_info(), kernel.client.session
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        sockets = {}
        for name, kind in {"shell": zmq.DEALER, "control": zmq.DEALER, "iopub": zmq.SUB, "hb": zmq.REQ}.items():
            made = stack.enter_context(context.socket(kind))
            made.linger, made.sndtimeo = 0, SILENCE_MS
            if server is not None and own is not None:
                made.curve_serverkey, (made.curve_publickey, made.curve_secretkey) = (
                    server.encode(),
                    (each.encode() for each in own),
                )
            made.connect(f"tcp://{info['ip']}:{info[f'{name}_port']}")
            sockets[name] = made
        sockets["iopub"].subscribe(b"")
        heard = set()
        for name, made in sockets.items():
            with contextlib.suppress(zmq.Again):  # libzmq takes the pipe from a socket whose handshake was refused
                if name == "hb":
                    made.send(b"ping")
                elif name != "iopub":
                    made.send_multipart(session.serialize(session.msg("kernel_info_request")))
            kernel.execute("1")  # it is there, and what it publishes goes out
            if made.poll(wait_ms):
                heard.add(name)
        return heard


def test_a_manager_that_requires_curve_has_it_with_rtc_python_over_restarts_and_gets_no_other_kernel(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_spec(home, "plain", [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    with pytest.raises(RuntimeError, match="supported_encryption"), start("plain", manager=REQUIRED):
        pass
    with start("rtc-python", manager=REQUIRED) as kernel:
        public, secret = keys_of(kernel)
        assert child_transport(kernel) == "ipc"
        assert channels_heard(kernel, public, (public, secret), 30_000) == {"shell", "control", "iopub", "hb"}
        other_public, other_secret = (each.decode() for each in zmq.curve_keypair())
        assert channels_heard(kernel, None, None) == set(), "a client without keys gets nothing"
        assert channels_heard(kernel, other_public, (public, secret)) == set(), "nor one that expects another kernel"
        assert channels_heard(kernel, other_public, (other_public, other_secret)) == set()
        kernel.execute("left_over = 1")
        assert completed(kernel.client, "left_") == ["left_over"]
        assert (
            answered(kernel.client, kernel.client.execute("print(input('Name? '), allowed := 1)"), "Ada") == "Ada 1\n"
        )
        last = kernel.client.execute(f"print('begun', flush=True); {FOREVER}")
        shown(kernel.client, "begun")
        kernel.manager.interrupt_kernel()
        assert finish(kernel.client, last).reply["content"]["ename"] == "KeyboardInterrupt"
        monkeypatch.setenv("RTC_KERNEL_TRANSPORT", "tcp")
        kernel.manager.restart_kernel(env=dict(os.environ))
        kernel.client.wait_for_ready(timeout=PATIENCE_S)
        assert kernel.execute("left_over").reply["content"]["ename"] == "NameError"
        assert child_transport(kernel) == "tcp", "as a kernel that does no ipc is reached"
        assert channels_heard(kernel, None, None) == set()
        wait_until(discovery.live, "its agent is there", PATIENCE_S)
        done = rtc("exec", kernel.kernel_id, "print('asked', 'outside')")
        assert done.stdout == "asked outside\n", done.stderr
        rows = {(row.generation, row.code): row.state for row in stored(kernel.kernel_id)}
        assert rows[0, "left_over = 1"] is ExecutionState.OK
        assert rows[1, "left_over"] is ExecutionState.ERROR
        assert not [row for row in stored(kernel.kernel_id) if secret in row.code]


def test_attach_follows_a_kernel_of_such_a_manager_over_a_restart(home: Path, until: Until) -> None:
    with start("python3", manager=REQUIRED) as kernel, follow(kernel) as following:
        before = kernel.client.execute("'before'")
        until(ended(following, before), "it is recorded", PATIENCE_S)
        kernel.manager.restart_kernel()
        kernel.client.wait_for_ready(timeout=PATIENCE_S)
        until(lambda: following.health()["kernel"]["generation"] == 1, "it hears the next life", PATIENCE_S)
        after = kernel.client.execute("'after'")
        rows = until(ended(following, after), "the next life is followed", PATIENCE_S)
        assert [(row["code"], row["generation"]) for row in rows] == [("'before'", 0), ("'after'", 1)]
        assert rtc("exec", kernel.kernel_id, "print(2)").stdout == "2\n"


def shown(client: BlockingKernelClient, text: str) -> None:
    """Until this line has been printed."""
    printed = ""
    while f"{text}\n" not in printed:
        message = client.get_iopub_msg(timeout=PATIENCE_S)
        if message["msg_type"] == "stream":
            printed += message["content"]["text"]


def answered(client: BlockingKernelClient, msg_id: str, value: str) -> str:
    """What an execution shows whose question gets this answer."""
    client.get_stdin_msg(timeout=PATIENCE_S)
    client.input(value)
    return finish(client, msg_id).text


def completed(client: BlockingKernelClient, code: str) -> list[str]:
    return list(reply_to(client, client.complete(code), PATIENCE_S)["content"]["matches"])


def stored(kernel_id: str) -> list[Execution]:
    """The history as it is on the disk, oldest first."""
    with open_readonly(Path(os.environ["JUPYTER_DATA_DIR"]) / "rtc_kernel" / f"{kernel_id}.sqlite3") as archive:
        return list(reversed(archive.history(limit=500)[0]))


# --- VS Code: no group of their own, signals to the pids, never a shutdown_request, the connection file taken away


class Window:
    """A window of VS Code with a kernel of its own, as vscode-jupyter starts and ends it."""

    def __init__(self, notebook: Path, log: Path, file: Path | None = None) -> None:
        self.notebook = notebook
        self.file = file or Path(jupyter_runtime_dir()) / f"kernel-v3{secrets.token_hex(20)}.json"
        write_connection_file(str(self.file), key=secrets.token_hex(16).encode(), kernel_name="rtc-python")
        spec = KernelSpecManager().get_kernel_spec("rtc-python")
        assert spec.argv[1:] == ["-m", "rtc_kernel", "-f", "{connection_file}"]
        argv = [*patient_relay(f"app.SIGNAL_GRACE_S = {GRACE_S}"), "-f", str(self.file)]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("JPY_")} | spec.env
        with log.open("a") as output:
            self.process = subprocess.Popen(
                argv, cwd=notebook.parent, env=environ, stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        self.client = BlockingKernelClient()
        self.client.load_connection_file(str(self.file))
        self.client.start_channels(hb=False)  # else it takes a kernel that is not there yet for a dead one

    @property
    def kernel_id(self) -> str:
        return self.file.stem.removeprefix("kernel-")

    def cell(self, number: int) -> str:
        """A cell's URI."""
        return f"vscode-notebook-cell:{str(self.notebook).replace(' ', '%20')}#W{number}sZmlsZQ%3D%3D"

    def send(self, number: int, code: str) -> str:
        """Run a cell, and do not wait."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": True, "stop_on_error": False}
        content["user_expressions"] = {}
        metadata = {"cellId": self.cell(number), "jupyter": {"source_hidden": False}}
        message = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def run(self, number: int, code: str) -> Run:
        return finish(self.client, self.send(number, code))

    def tree(self) -> list[psutil.Process]:
        """The descendants, and last the process itself: so VS Code goes through them."""
        root = psutil.Process(self.process.pid)
        return [*root.children(recursive=True), root]

    def signal(self, number: int) -> list[psutil.Process]:
        processes = self.tree()
        for each in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)
        return processes

    def kill(self) -> None:
        """As its user closes the window, or restarts the kernel; until all has ended."""
        processes = self.signal(signal.SIGTERM)
        self.file.unlink(missing_ok=True)
        self.client.stop_channels()
        self.process.wait(PATIENCE_S)
        wait_until(gone(processes), "no process is left behind", PATIENCE_S)

    def close(self) -> None:
        """Whatever state it is in."""
        self.client.stop_channels()
        if self.process.poll() is None:
            for each in self.tree():
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def open_window(home: Path, tmp_path: Path) -> Iterator[Callable[..., Window]]:
    """``open_window(file=None, listed=True)``: one more window with the same notebook, when its kernel answers, and
    its agent has said where it is."""
    notebook = tmp_path / "a dir" / "né.ipynb"
    notebook.parent.mkdir()
    windows: list[Window] = []

    def make(file: Path | None = None, *, listed: bool = True) -> Window:
        window = Window(notebook, tmp_path / "output.log", file)
        windows.append(window)
        window.client.wait_for_ready(timeout=PATIENCE_S)
        if listed:
            wait_until(
                lambda: any(each.kernel_id == window.kernel_id for each in discovery.live()), "it is", PATIENCE_S
            )
        return window

    yield make
    for window in windows:
        window.close()


COUNTING = f"""
import signal, time
caught, until = [], time.monotonic() + 120
def catch(number, frame):
    global until
    caught.append(number)
    until = min(until, time.monotonic() + {GRACE_S + 1})
signal.signal(signal.SIGINT, catch)
print("begun", flush=True)
while time.monotonic() < until:
    time.sleep(0.01)
print("caught", len(caught))
"""


WAITING = "import subprocess; one = subprocess.Popen(['sleep', '1000']); print('begun', flush=True); one.wait()"


def test_vscode_interrupts_every_process_and_the_cell_is_interrupted_once(open_window: Callable[..., Window]) -> None:
    window = open_window()
    before = {each.pid for each in window.tree()}
    window.signal(signal.SIGINT)  # nothing runs
    last = window.send(1, COUNTING)
    shown(window.client, "begun")
    window.signal(signal.SIGINT)
    assert finish(window.client, last).text == "caught 1\n"
    last = window.send(2, WAITING)
    shown(window.client, "begun")
    window.signal(signal.SIGINT)
    assert finish(window.client, last).reply["content"]["ename"] == "KeyboardInterrupt"
    assert answered(window.client, window.send(3, "print(one_answer := input('Name? '))"), "Ada") == "Ada\n"
    assert completed(window.client, "one_a") == ["one_answer"]
    living = [each for each in window.tree() if each.status() != psutil.STATUS_ZOMBIE]  # whom nobody has waited for
    assert {each.pid for each in living} == before, "relay, agent and kernel are the same"
    wait_until(lambda: [row.state.value for row in stored(window.kernel_id)] == ["ok", "error", "ok"], "it is stored")


def test_vscode_kills_the_tree_and_nothing_that_was_seen_is_lost(open_window: Callable[..., Window]) -> None:
    window = open_window()
    assert window.run(1, "import ipykernel, subprocess; print(kept := ipykernel.get_connection_file())").text
    behind = Path(window.run(2, "print(kept)").text.strip())
    assert behind.exists()
    for number in range(50):
        window.run(3, f"print('line', {number}); {number}")
    window.send(4, f"subprocess.Popen(['sleep', '1000']); print('it runs', flush=True); {FOREVER}")
    window.send(5, "print('never')")
    shown(window.client, "it runs")
    wait_until(lambda: len(ask(window.kernel_id, "/api/history?limit=100")["executions"]) == 54, "the relay has all")
    window.kill()
    assert window.process.returncode == -signal.SIGTERM
    rows = stored(window.kernel_id)
    assert [row.state.value for row in rows] == ["ok"] * 52 + ["lost"] * 2
    assert [row.cell for row in rows] == [window.cell(n) for n in (1, 2, *[3] * 50, 4, 5)]
    assert {row.notebook for row in rows} == {str(window.notebook)}
    for number, row in enumerate(rows[2:52]):
        assert [output.text for output in row.outputs if output.text] == [f"line {number}\n"]
        assert row.outputs[-1].data["text/plain"] == str(number)
    assert rows[52].outputs[0].text == "it runs\n"
    assert discovery.live() == []
    assert not behind.exists(), "the file with the kernel's key"


def test_vscode_kills_a_kernel_whose_agent_is_not_there_yet(open_window: Callable[..., Window]) -> None:
    window = open_window(listed=False)
    assert window.run(1, "print('seen')").text == "seen\n"
    window.kill()
    assert [(row.state.value, row.outputs[0].text) for row in stored(window.kernel_id)] == [("ok", "seen\n")]


def test_vscodes_connection_file_is_taken_away_while_the_kernel_runs(
    open_window: Callable[..., Window], until: Until
) -> None:
    window = open_window()
    window.run(1, "a = 1")
    window.file.unlink()
    assert window.run(2, "print(a + 1)").text == "2\n"
    until(lambda: discovery.find(window.kernel_id).notebook == str(window.notebook), "it is of its notebook")
    (listed,) = json.loads(rtc("list", "--json").stdout)
    assert (listed["kernel_id"], listed["notebook"]) == (window.kernel_id, str(window.notebook))
    assert rtc("exec", window.kernel_id, "print(a + 2)").stdout == "3\n"
    agent = discovery.find(window.kernel_id).agent_pid
    os.kill(agent, signal.SIGKILL)
    until(lambda: discovery.find(window.kernel_id).agent_pid != agent, "there is another agent", PATIENCE_S)
    assert "Whoever has this link" in str(window.run(3, "%rtc share").contents("display_data"))
    last = window.send(4, WAITING)
    shown(window.client, "begun")
    window.signal(signal.SIGINT)
    assert finish(window.client, last).reply["content"]["ename"] == "KeyboardInterrupt"
    window.kill()
    codes = [(row.code, row.state.value) for row in stored(window.kernel_id)]
    assert [state for _, state in codes] == ["ok"] * 4 + ["error"]
    assert codes[2][0] == "print(a + 2)"


def test_vscode_restarts_with_a_new_process_and_two_windows_have_a_history_each(
    home: Path, open_window: Callable[..., Window]
) -> None:
    first, second = open_window(), open_window()
    first.run(1, "mine = 'first'")
    second.run(1, "mine = 'second'")
    assert first.run(2, "print(mine)").text == "first\n"
    assert second.run(2, "print(mine)").text == "second\n"
    assert {each.kernel_id for each in discovery.live()} == {first.kernel_id, second.kernel_id}
    first.kill()
    again = open_window()  # VS Code takes another connection file at each start
    assert again.run(2, "mine").reply["content"]["ename"] == "NameError"
    assert second.run(3, "print(mine)").text == "second\n"
    third = again.file
    again.kill()
    same = open_window(third)  # who takes the same one has the same history
    same.run(1, "mine = 'same'")
    for window in (second, same):
        window.kill()
    assert [row.code for row in stored(first.kernel_id)] == ["mine = 'first'", "print(mine)"]
    assert [row.code for row in stored(second.kernel_id)] == ["mine = 'second'", "print(mine)", "print(mine)"]
    assert [(row.generation, row.code) for row in stored(same.kernel_id)] == [(0, "mine"), (1, "mine = 'same'")]
    found = histories(home / "data" / "rtc_kernel", notebook=str(first.notebook))
    assert {file.kernel_id for file in found} == {first.kernel_id, second.kernel_id, same.kernel_id}
    shown = rtc("history", "--notebook", str(first.notebook))
    assert shown.stdout.count("print(mine)") == 3, shown.stderr
