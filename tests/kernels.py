"""Real kernels for tests: started through jupyter_client, spoken to message by message."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from jupyter_client import BlockingKernelClient, KernelManager

from rtc_kernel import discovery

Message = dict[str, Any]


FOREVER = "import time; any(time.sleep(0.05) for _ in range(20_000))"
"""A cell that runs until it is interrupted. One long sleep would not do: a signal that comes right before the system
call is looked at behind it."""

SHOWS = f"print('on', flush=True); {FOREVER}"
"""The same, which says when its code has begun: to an interrupt right before, ipykernel answers nothing."""


def joined(pieces: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Messages or outputs, each its type and what it says. Between two of other types there is each stream once, by its
    name: where a text is cut (within one `print` too), and which of two streams comes first, hangs on ipykernel's
    timer."""
    whole: list[tuple[str, dict[str, Any]]] = []
    for is_stream, group in itertools.groupby(pieces, lambda piece: piece[0] == "stream"):
        if not is_stream:
            whole += group
            continue
        streams: dict[str, dict[str, Any]] = {}
        for _, content in group:
            earlier = streams.get(content["name"], {"text": ""})
            streams[content["name"]] = {**content, "text": earlier["text"] + "".join(content["text"])}
        whole += (("stream", streams[name]) for name in sorted(streams))
    return whole


def printed(notebook: dict[str, Any]) -> list[str]:
    """What each code cell of a notebook has printed."""
    return [
        "".join(output.get("text", "") for output in cell["outputs"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def joined_outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs of a notebook's cell, with streams as :func:`joined` has them."""
    return [output for _, output in joined((output["output_type"], output) for output in cell.get("outputs", ()))]


@dataclass
class Run:
    """One execution as its client saw it."""

    reply: Message
    iopub: list[Message] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        return [message["msg_type"] for message in self.iopub]

    @property
    def text(self) -> str:
        return "".join(message["content"]["text"] for message in self.iopub if message["msg_type"] == "stream")

    def contents(self, msg_type: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.iopub if message["msg_type"] == msg_type]


@dataclass
class Running:
    """A kernel with one connected client."""

    manager: KernelManager
    client: BlockingKernelClient

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.process.pid)

    @property
    def kernel_id(self) -> str:
        return os.path.splitext(os.path.basename(self.manager.connection_file))[0].removeprefix("kernel-")

    def processes(self) -> list[psutil.Process]:
        """The relay and everything it has started."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def child(self) -> psutil.Process:
        """The real kernel behind the relay."""
        return next(p for p in self.processes()[1:] if "rtc_kernel.agent" not in p.cmdline())

    def agent(self) -> psutil.Process:
        return next(p for p in self.processes()[1:] if "rtc_kernel.agent" in p.cmdline())

    def execute(
        self, code: str, timeout: float = 30, client: BlockingKernelClient | None = None, **options: Any
    ) -> Run:
        client = client or self.client
        return finish(client, client.execute(code, **options), timeout)

    def connect(self) -> BlockingKernelClient:
        """One more client of the same kernel."""
        client = BlockingKernelClient()
        client.load_connection_file(self.manager.connection_file)
        client.start_channels(hb=False)  # it would take a kernel that is late for a second for a dead one
        client.wait_for_ready(timeout=30)
        return client


class Gate:
    """Something that cells wait for, so that a test says how long they run and no clock does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"<Gate {'open' if self._path.exists() else 'closed'}>"

    @property
    def code(self) -> str:
        """Lines that wait until it is opened; whatever a test forgets, they end with an error after two minutes."""
        return (
            f"import os, time\ngate_until = time.monotonic() + 120\nwhile not os.path.exists({str(self._path)!r}):\n"
            "    assert time.monotonic() < gate_until, 'nobody has opened the gate'\n    time.sleep(0.01)\n"
        )

    def open(self) -> None:
        """Let them go on, and all that come later."""
        self._path.touch()


def ask(kernel_id: str, path: str, token: str | None = None) -> Any:
    """A question to the side socket of a kernel, with the owner's token unless another is given."""
    return _answer(kernel_id, path, token, None)


def post(kernel_id: str, path: str, body: Any, token: str | None = None) -> Any:
    """The same, with a body."""
    return _answer(kernel_id, path, token, json.dumps(body).encode())


def _answer(kernel_id: str, path: str, token: str | None, body: bytes | None) -> Any:
    found = discovery.find(kernel_id)
    headers = {"Authorization": f"Bearer {token or found.token}"}
    request = urllib.request.Request(found.url + path, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        exc.close()
        raise


def finish(client: BlockingKernelClient, msg_id: str, timeout: float = 30) -> Run:
    """Collect an execution's reply and its iopub messages up to idle."""
    run = Run(reply={})
    deadline = time.monotonic() + timeout
    while True:
        message = client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
        if message["parent_header"].get("msg_id") != msg_id:
            continue
        run.iopub.append(message)
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
    run.reply = reply_to(client, msg_id, max(0.01, deadline - time.monotonic()))
    return run


def reply_to(client: BlockingKernelClient, msg_id: str, timeout: float = 30, channel: str = "shell") -> Message:
    """The reply to a request; others (of kernel_info while it started) are passed over."""
    deadline = time.monotonic() + timeout
    receive = client.get_shell_msg if channel == "shell" else client.get_control_msg
    while True:
        reply: Message = receive(timeout=max(0.01, deadline - time.monotonic()))
        if reply["parent_header"].get("msg_id") == msg_id:
            return reply


def control(client: BlockingKernelClient, msg_type: str, content: dict[str, Any] | None = None) -> Message:
    """Ask on the control channel; the reply."""
    message = client.session.msg(msg_type, content or {})
    client.control_channel.send(message)
    return reply_to(client, message["header"]["msg_id"], channel="control")


@contextlib.contextmanager
def start(kernel_name: str, *, ready: bool = True, **options: Any) -> Iterator[Running]:
    """Start a kernel; at the end it is shut down, whatever state it is in."""
    manager = KernelManager(kernel_name=kernel_name, **options.pop("manager", {}))
    manager.start_kernel(**options)
    client = manager.blocking_client()
    client.start_channels(hb=ready)  # its thread may begin when the context of one that is stopped at once has gone
    try:
        if ready:
            try:
                client.wait_for_ready(timeout=60)
            except RuntimeError as exc:
                exc.add_note(_standing(manager))
                raise
        yield Running(manager, client)
    finally:
        client.stop_channels()
        if manager.is_alive():
            manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        manager.context.destroy()


def _standing(manager: KernelManager) -> str:
    """What there is of a kernel that does not answer: its processes, and who is connected with whom."""
    told = [f"{manager.connection_file}: {manager.get_connection_info()}"]
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(int(manager.provisioner.process.pid))
        for process in (root, *root.children(recursive=True)):
            told.append(f"{process.pid} {process.status()} {process.cmdline()[:6]} {process.num_threads()} threads")
            told += [f"  {at.laddr} {at.raddr} {at.status}" for at in process.net_connections()]
    return "\n".join(told)


def gone(processes: list[psutil.Process]) -> Callable[[], bool]:
    """A condition: all of these have ended, and none is a zombie of ours."""

    def has_ended(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:  # in between
            return True

    return lambda: all(map(has_ended, processes))


def patient_relay(*lines: str) -> list[str]:
    """The command line of a relay that waits for its agent as long as it takes, at the end too: the machine may be
    busy, and where a person would go on without it, a test would miss what it had. ``lines``: what else differs."""
    agent = "import sys; from rtc_kernel.agent import app; app.END_S = 59.0; app.main(sys.argv[2:])"
    program = [
        "import sys",
        "from rtc_kernel.__main__ import main",
        "from rtc_kernel.relay import app, supervisor",
        "supervisor.RETURN_S = app.AGENT_END_S = 60.0",
        f"supervisor.PROGRAM = (sys.executable, '-c', {agent!r}, 'rtc_kernel.agent')",
        *lines,
        "main(sys.argv[1:])",
    ]
    return [sys.executable, "-c", "\n".join(program)]


def left_behind(home: Path) -> list[psutil.Process]:
    """What of ours runs for this Jupyter home: relays and agents. A kernel ends before its relay does."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "rtc_kernel" in " ".join(process.cmdline()) and process.environ().get("JUPYTER_RUNTIME_DIR") == str(
                home / "runtime"
            ):
                found.append(process)
    return found
