"""The relay in front of a real ipykernel: what a frontend sees is what it would see without us."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import zmq
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.session import Session
from kernels import FOREVER, Gate, Running, ask, control, finish, gone, joined, reply_to, start

from rtc_kernel import discovery

Until = Callable[..., object]

SCENARIOS = {
    "print": "print('hello'); 6 * 7",
    "error": "1/0",
    "display": "from IPython.display import display, HTML\ndisplay(HTML('<b>x</b>'), display_id='d')",
    "clear": "from IPython.display import clear_output\nprint(1)\nclear_output(wait=True)\nprint(2)",
    "empty": "",
    "expressions": "x = 3",
    "stderr": "import sys; print('e', file=sys.stderr)",
    "rewritten": "print('%rtc is not at the start')",
}


def shape(running: Running, code: str) -> list[object]:
    """A run without what may differ: ids, times, versions, where a stream is cut into messages."""
    run = running.execute(code, user_expressions={"y": "1+1"})
    volatile = {"traceback", "engine_info"}
    messages = joined(
        (
            m["msg_type"],
            {k: v for k, v in m["content"].items() if k not in volatile} | {"parent": sorted(m["parent_header"])},
        )
        for m in run.iopub
    )
    reply = {k: v for k, v in run.reply["content"].items() if k not in volatile}
    return [messages, reply, sorted(run.reply["metadata"])]


def test_message_by_message_as_a_bare_ipykernel(kernel: Running) -> None:
    with start("python3") as bare:
        for name, code in SCENARIOS.items():
            assert shape(kernel, code) == shape(bare, code), name
        for request in ("kernel_info", "comm_info", "history"):
            replies = []
            for running in (kernel, bare):
                reply = reply_to(running.client, getattr(running.client, request)())
                replies.append(reply["content"] | {"banner": "has a random tip"})
            assert replies[0] == replies[1], request
        assert kernel.client.kernel_info(reply=True)["content"]["supported_features"]


def test_what_lies_in_the_notebooks_directory_is_not_ours(tmp_path: Path, until: Until) -> None:
    for name in ("json", "socket", "asyncio", "sqlite3"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the notebook')")
    with start("rtc-python", cwd=str(tmp_path)) as running:
        assert running.execute("import os; print(os.getcwd())").text == f"{tmp_path}\n"
        until(discovery.live, "the agent serves", 30)


def test_nothing_of_a_flood_is_lost(kernel: Running) -> None:
    run = kernel.execute("for i in range(5000): print(i, flush=True)", timeout=60)
    assert run.text == "".join(f"{i}\n" for i in range(5000))


def test_two_clients_each_get_their_own_input(kernel: Running) -> None:
    other = kernel.connect()
    try:
        for client, text in ((kernel.client, "one"), (other, "two"), (kernel.client, "three")):
            msg_id = client.execute("print(input('who? '))", allow_stdin=True)
            request = client.get_stdin_msg(timeout=30)
            assert request["content"] == {"prompt": "who? ", "password": False}
            client.input(text)
            assert finish(client, msg_id).text == f"{text}\n"
        for client in (kernel.client, other):
            with pytest.raises(queue.Empty):
                client.get_stdin_msg(timeout=0)
    finally:
        other.stop_channels()


def test_each_subscriber_gets_a_welcome(kernel: Running) -> None:
    info = kernel.manager.get_connection_info()
    session = Session(key=info["key"])
    with zmq.Context() as context:
        for topic in (b"", b"only-this"):
            with context.socket(zmq.SUB) as socket:
                socket.linger = 0
                socket.subscribe(topic)
                socket.connect(f"tcp://127.0.0.1:{info['iopub_port']}")
                assert socket.poll(30_000)
                _, frames = session.feed_identities(socket.recv_multipart())
                message = session.deserialize(frames)
                assert message["msg_type"] == "iopub_welcome"
                assert message["content"] == {"subscription": topic.decode()}


def test_comms_carry_buffers_both_ways(kernel: Running) -> None:
    kernel.execute(
        "def opened(comm, message):\n"
        "    @comm.on_msg\n"
        "    def got(m): comm.send({'n': len(m['buffers'])}, buffers=[bytes(b)[::-1] for b in m['buffers']])\n"
        "get_ipython().kernel.comm_manager.register_target('echo', opened)"
    )
    client = kernel.client
    client.shell_channel.send(client.session.msg("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}}))
    message = client.session.msg("comm_msg", {"comm_id": "c", "data": {}})
    client.session.send(client.shell_channel.socket, message, buffers=[b"abc", b"\x00\xff"])
    while True:
        got = client.get_iopub_msg(timeout=30)
        if got["msg_type"] == "comm_msg":
            break
    assert [bytes(buffer) for buffer in got["buffers"]] == [b"cba", b"\xff\x00"]


def test_subshells_run_beside_the_main_shell(kernel: Running) -> None:
    client = kernel.client
    subshell = control(client, "create_subshell_request")["content"]["subshell_id"]
    kernel.execute("import threading; e = threading.Event()")  # there before what comes to the subshell can set it
    slow = client.execute("print(e.wait(20))")
    message = client.session.msg("execute_request", {"code": "e.set(); print('sub')", "silent": False})
    message["header"]["subshell_id"] = subshell
    while client.get_iopub_msg(timeout=30)["msg_type"] != "execute_input":
        pass
    client.shell_channel.send(message)
    assert finish(client, slow).text.replace("sub\n", "") == "True\n"


def test_the_debugger_answers_on_control(kernel: Running) -> None:
    client = kernel.client
    info = {"type": "request", "seq": 1, "command": "debugInfo", "arguments": {}}
    reply = control(client, "debug_request", info)
    assert reply["msg_type"] == "debug_reply"
    assert reply["content"]["success"]


def test_kernel_info_is_answered_on_control_while_a_cell_runs(kernel: Running, gate: Gate) -> None:
    client = kernel.client
    msg_id = client.execute(gate.code)
    assert control(client, "kernel_info_request")["content"]["implementation"] == "ipython"
    gate.open()
    assert finish(client, msg_id).reply["content"]["status"] == "ok"


def test_a_client_that_connects_while_a_cell_runs_is_ready_at_once_and_sees_busy(kernel: Running, gate: Gate) -> None:
    msg_id = kernel.client.execute(gate.code)
    other = kernel.connect()  # waits until it is ready
    try:
        opened = other.session.msg("comm_open", {"comm_id": "c", "target_name": "rtc.sync.v1", "data": {}})
        other.shell_channel.send(opened)
        while True:
            message = other.get_iopub_msg(timeout=30)
            parent, state = message["parent_header"].get("msg_id"), message["content"].get("execution_state")
            if parent == msg_id:
                assert state == "busy"
                break
            assert parent != opened["header"]["msg_id"] or state in ("busy", "idle")
        gate.open()
        assert finish(kernel.client, msg_id).reply["content"]["status"] == "ok"
    finally:
        other.stop_channels()


def test_what_follows_an_error_is_aborted(kernel: Running, gate: Gate, until: Until) -> None:
    until(discovery.live, "the agent serves", 30)
    client = kernel.client
    ids = [client.execute(code) for code in (gate.code + "1/0", "print('never')", "print('never')")]
    until(lambda: len(ask(kernel.kernel_id, "/api/history")["executions"]) == 3, "all are on their way to the kernel")
    gate.open()
    assert [finish(client, msg_id).reply["content"]["status"] for msg_id in ids] == ["error", "aborted", "aborted"]


def interrupt_by_signal(kernel: Running) -> None:
    kernel.manager.interrupt_kernel()


def interrupt_by_message(kernel: Running) -> None:
    reply = control(kernel.client, "interrupt_request")
    assert reply["msg_type"] == "interrupt_reply"
    assert reply["content"] == {"status": "ok"}


def names(kernel: Running) -> set[str]:
    """Of the programs that run."""
    found = set()
    for process in kernel.processes():
        with contextlib.suppress(psutil.Error):
            found.add(process.name())
    return found


def interrupt_by_pid(kernel: Running) -> None:
    """Only the launched process is signalled, as some servers do."""
    os.kill(kernel.pid, signal.SIGINT)


SLEEP = f"print('on', flush=True); {FOREVER}"
SUBPROCESS = "import os; print('on', flush=True); os.system('sleep 300')"


@pytest.mark.parametrize(
    ("interrupt", "code"),
    [
        (interrupt_by_signal, SLEEP),
        (interrupt_by_message, SLEEP),
        (interrupt_by_pid, SLEEP),
        (interrupt_by_signal, SUBPROCESS),
        (interrupt_by_message, SUBPROCESS),  # a signal to one pid reaches no subprocess of a bare kernel either
    ],
)
def test_an_interrupt_reaches_the_cell_and_what_it_has_started(
    kernel: Running, interrupt: Callable[[Running], None], code: str, until: Until
) -> None:
    msg_id = kernel.client.execute(code)
    while kernel.client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
        pass  # before the cell's own code runs, an interrupt finds ipykernel between two things
    if code is SUBPROCESS:
        until(lambda: "sleep" in names(kernel), "the subprocess runs")  # before, nobody takes the signal
    interrupt(kernel)
    run = finish(kernel.client, msg_id)
    assert run.reply["content"].get("ename", "KeyboardInterrupt") == "KeyboardInterrupt"
    assert kernel.execute("1").reply["content"]["status"] == "ok"


def test_shutdown_ends_every_process_and_leaves_nothing_behind(kernel: Running, until: Until) -> None:
    processes = kernel.processes()
    child_file = Path(kernel.execute("import ipykernel; print(ipykernel.get_connection_file())").text.strip())
    assert child_file.name == os.path.basename(kernel.manager.connection_file)
    kernel.manager.shutdown_kernel()
    until(gone(processes), "all processes ended")
    until(lambda: not child_file.parent.exists(), "its files are gone")


def test_restart_keeps_the_connection_file_and_the_ports(kernel: Running) -> None:
    before = kernel.manager.get_connection_info()
    kernel.execute("x = 1")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=60)
    assert kernel.manager.get_connection_info() == before
    assert kernel.execute("x").reply["content"]["ename"] == "NameError"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 15)", -15),
        ("import ctypes; ctypes.string_at(0)", -11),
    ],
)
def test_we_end_as_the_child_ends(kernel: Running, code: str, exit_code: int, until: Until) -> None:
    processes = kernel.processes()
    kernel.client.execute(code)
    until(lambda: kernel.manager.provisioner.process.poll() is not None, "the relay ended", 20)
    assert kernel.manager.provisioner.process.returncode == exit_code
    until(gone(processes), "all processes ended")


@pytest.mark.parametrize("whom", ["relay", "group"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_way_of_dying_leaves_an_orphan(kernel: Running, whom: str, number: int, until: Until) -> None:
    until(lambda: len(kernel.processes()) == 3, "the agent runs")
    processes = kernel.processes()
    (os.kill if whom == "relay" else os.killpg)(kernel.pid, number)
    until(lambda: kernel.manager.provisioner.process.poll() is not None, "the relay ended", 20)
    assert kernel.manager.provisioner.process.returncode == -number
    until(gone(processes), "all processes ended")


def test_a_kernel_whose_parent_is_gone_ends(home: Path, until: Until) -> None:
    """As ipykernel does: a server that was killed leaves no kernel behind."""
    code = (
        "import sys, time; from jupyter_client import KernelManager\n"
        "km = KernelManager(kernel_name='rtc-python'); km.start_kernel()\n"
        "kc = km.blocking_client(); kc.start_channels(); kc.wait_for_ready(timeout=60)\n"
        f"print(km.provisioner.process.pid, flush=True); {FOREVER}"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    relay = psutil.Process(int(parent.stdout.readline()))
    processes = [relay, *relay.children(recursive=True)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(gone(processes), "all processes ended", 30)


def test_a_signal_that_the_kernel_handles_reaches_it_and_kills_nobody(kernel: Running, until: Until) -> None:
    until(discovery.live, "the agent serves", 30)  # while it starts, a signal may come twice
    kernel.execute("import signal; got = []; signal.signal(signal.SIGUSR1, lambda *a: got.append(1))")
    kernel.manager.signal_kernel(signal.SIGUSR1)
    until(lambda: kernel.execute("print(got)").text == "[1]\n", "the kernel's handler ran once")
    assert len(kernel.processes()) == 3


def test_frames_that_a_kernel_drops_are_dropped_and_nothing_breaks(kernel: Running) -> None:
    info = kernel.manager.get_connection_info()
    good = Session(key=info["key"])
    header = good.serialize(good.msg("execute_request", {"code": "1"}))
    bad_key = Session(key=b"wrong")
    broken = [
        bad_key.serialize(bad_key.msg("execute_request", {"code": "print('never')"})),
        header[:4],
        [b"<IDS|MSG>"],
        [b"no delimiter"],
        [*header[:2], b"not json", *header[3:]],
        good.serialize(good.msg("no_such_request", {})),
        good.serialize(good.msg("execute_request", {"no": "code"})),
        good.serialize(good.msg("comm_msg", {"comm_id": "unknown", "data": {}})),
    ]
    with zmq.Context() as context:
        for port in ("shell_port", "control_port", "stdin_port"):
            with context.socket(zmq.DEALER) as socket:
                socket.linger = 1000
                socket.connect(f"tcp://127.0.0.1:{info[port]}")
                for frames in broken:
                    socket.send_multipart(frames)
    run = kernel.execute("print('alive')")
    assert run.text == "alive\n"


def test_curve_encrypts_the_front(home: Path) -> None:
    """A manager that requires CurveZMQ gets it, and a client without the key gets nothing."""
    with start("rtc-python", manager={"transport_encryption": "required"}) as kernel:
        assert "curve_publickey" in json.loads(Path(kernel.manager.connection_file).read_text())
        assert child_transport(kernel) == "ipc", "what is encrypted in front is not readable behind"
        info = {k: v for k, v in kernel.manager.get_connection_info().items() if not k.startswith("curve")}
        stranger = BlockingKernelClient()
        stranger.load_connection_info(info)
        stranger.start_channels(stdin=False, hb=False)
        # libzmq takes the pipe away from a socket whose handshake was refused: sending then waits, without end if let.
        stranger.shell_channel.socket.sndtimeo = 1000
        try:
            with contextlib.suppress(zmq.Again):
                stranger.kernel_info()
            with pytest.raises(queue.Empty):
                stranger.get_shell_msg(timeout=1)
        finally:
            stranger.stop_channels()


@pytest.mark.parametrize("transport", ["tcp", "ipc", "auto"])
def test_the_child_is_spoken_to_as_the_setting_says(
    transport: str, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """By default as the frontends come: over TCP, whose buffers hold more of a flood than a Unix socket's."""
    monkeypatch.setenv("RTC_KERNEL_TRANSPORT", transport)
    with start("rtc-python") as kernel:
        assert child_transport(kernel) == transport.replace("auto", "tcp")


def child_transport(kernel: Running) -> str:
    file = Path(kernel.execute("import ipykernel; print(ipykernel.get_connection_file())").text.strip())
    return str(json.loads(file.read_text())["transport"])


def test_unknown_arguments_are_the_childs(home: Path) -> None:
    with start("rtc-python", extra_arguments=["--InteractiveShell.ast_node_interactivity=all"]) as kernel:
        assert kernel.execute("print(get_ipython().ast_node_interactivity)").text == "all\n"


def test_the_child_knows_its_notebook_and_its_parent(home: Path) -> None:
    with start("rtc-python", env={**os.environ, "JPY_SESSION_NAME": "/a/b.ipynb"}) as kernel:
        code = "import os; print(os.environ['JPY_SESSION_NAME'], os.environ['JPY_PARENT_PID'] == str(os.getppid()))"
        assert kernel.execute(code).text == "/a/b.ipynb True\n"


def run_module(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rtc_kernel", *argv], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--kernel", "no-such-kernel"], "there is no kernelspec 'no-such-kernel': choose one of: "),
        (["--kernel", "rtc-python"], "is an RTC kernel itself"),
    ],
)
def test_what_cannot_be_started_is_one_line_that_says_what_to_do(argv: list[str], words: str, tmp_path: Path) -> None:
    result = run_module(*argv, "-f", str(tmp_path / "kernel-x.json"))
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1
    assert words in lines[0]


def test_a_taken_port_is_one_line_and_no_process_stays(tmp_path: Path) -> None:
    manager = KernelManager(kernel_name="rtc-python", connection_file=str(tmp_path / "kernel-taken.json"))
    manager.write_connection_file()
    info = manager.get_connection_info()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as holder:
        holder.bind(f"tcp://127.0.0.1:{info['control_port']}")
        result = run_module("-f", manager.connection_file)
    assert result.returncode == 1
    assert "is taken by another process" in result.stderr
    assert "Traceback" not in result.stderr
    manager.cleanup_resources()


def test_without_a_connection_file_one_is_written_and_named(home: Path, until: Until) -> None:
    relay = subprocess.Popen([sys.executable, "-m", "rtc_kernel"], stdout=subprocess.PIPE, text=True)
    assert relay.stdout is not None
    try:
        lines = [relay.stdout.readline(), relay.stdout.readline()]
        assert lines[0].startswith("To connect another client")
        path = home / "runtime" / lines[1].split()[-1]
        until(path.exists, "the connection file is written")
        client = BlockingKernelClient(connection_file=str(path))
        client.load_connection_file()
        client.start_channels(hb=False)
        client.wait_for_ready(timeout=30)
        client.stop_channels()
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        relay.terminate()
        relay.wait()
        relay.stdout.close()
