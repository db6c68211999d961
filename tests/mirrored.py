"""A mirror that is fed message by message, with the rows that its changes make."""

from __future__ import annotations

from typing import Any

from rows import Rows

from rtc_kernel.agent.mirror import Limits, Mirror
from rtc_kernel.link import Channel, Child, Gap, Way
from rtc_kernel.tables import Change, Execution, Kernel
from rtc_kernel.wire import Message

Step = tuple[Channel, Way, Message]


def header(msg_type: str, msg_id: str, **fields: Any) -> dict[str, Any]:
    return {"msg_type": msg_type, "msg_id": msg_id, "session": "client", "username": "ada", **fields}


def request(msg_id: str, code: str = "", *, metadata: Any = None, content: Any = None, **fields: Any) -> Step:
    content = {"code": code, "silent": False} | (content or {})
    message = Message(header("execute_request", msg_id, **fields), {}, metadata or {}, content)
    return Channel.SHELL, Way.TO_CHILD, message


def reply(parent: str, status: str = "ok", **content: Any) -> Step:
    parts = header("execute_reply", f"{parent}-reply"), header("execute_request", parent)
    return Channel.SHELL, Way.TO_FRONT, Message(*parts, {}, {"status": status, **content})


def iopub(
    kind: str, parent: str | dict[str, Any], content: Any, *, buffers: tuple[bytes, ...] = (), **fields: Any
) -> Step:
    if isinstance(parent, str):
        parent = header("execute_request", parent)
    return Channel.IOPUB, Way.TO_FRONT, Message(header(kind, "", **fields), parent, {}, content, buffers)


def status(parent: str | dict[str, Any], word: str) -> Step:
    return iopub("status", parent, {"execution_state": word})


def begun(parent: str, count: int = 1, code: str = "") -> Step:
    return iopub("execute_input", parent, {"code": code, "execution_count": count})


def stream(parent: str | dict[str, Any], text: str, name: str = "stdout") -> Step:
    return iopub("stream", parent, {"name": name, "text": text})


def display(parent: str, text: str, display_id: str | None = None, kind: str = "display_data") -> Step:
    transient = {"display_id": display_id} if display_id else {}
    content = {"data": {"text/plain": text}, "metadata": {}, "transient": transient}
    return iopub(kind, parent, content)


def error(parent: str, ename: str = "ValueError", evalue: str = "no") -> Step:
    return iopub("error", parent, {"ename": ename, "evalue": evalue, "traceback": ["one", "two"]})


def clear(parent: str, wait: bool = False) -> Step:
    return iopub("clear_output", parent, {"wait": wait})


def question(parent: str, prompt: str = "name? ", **fields: Any) -> Step:
    parts = header("input_request", "question", **fields), header("execute_request", parent)
    return Channel.STDIN, Way.TO_FRONT, Message(*parts, {}, {"prompt": prompt, "password": False})


def comm(kind: str, comm_id: str, data: Any, *, parent: Any = "", buffers: tuple[bytes, ...] = (), **more: Any) -> Step:
    """From the kernel."""
    return iopub(kind, parent, {"comm_id": comm_id, "data": data, **more}, buffers=buffers)


def front(kind: str, comm_id: str, data: Any, *, buffers: tuple[bytes, ...] = (), **more: Any) -> Step:
    """The same from a frontend."""
    content = {"comm_id": comm_id, "data": data, **more}
    return Channel.SHELL, Way.TO_CHILD, Message(header(kind, "m"), {}, {}, content, buffers)


def whole(msg_id: str, *outputs: Step, code: str = "", count: int = 1) -> list[Step]:
    """One execution without trouble."""
    return [
        request(msg_id, code),
        status(msg_id, "busy"),
        begun(msg_id, count),
        *outputs,
        reply(msg_id, execution_count=count),
        status(msg_id, "idle"),
    ]


class Mirrored:
    """Feeds steps; ``at`` is the number of the step."""

    def __init__(self, notebook: str | None = "own.ipynb", **limits: int) -> None:
        self.limits = Limits(**limits)
        self.mirror = Mirror("k", notebook=notebook, generation=0, next_seq=1, limits=self.limits)
        self.rows = Rows()
        self.changes: list[Change] = []
        self.at = 0.0

    def feed(self, *steps: Step) -> list[Change]:
        out: list[Change] = []
        for step in steps:
            self.at += 1
            out += self.took(self.mirror.receive_message(*step, self.at))
        return out

    def child(self, event: str, pid: int = 1, exit_code: int | None = None) -> list[Change]:
        self.at += 1
        return self.took(self.mirror.receive_child(Child(0, self.at, event, pid, exit_code)))

    def gap(self) -> list[Change]:
        self.at += 1
        return self.took(self.mirror.receive_gap(Gap(0, self.at - 0.5, self.at, 3, 100)))

    def crash(self) -> None:
        """The agent dies and begins again from what is stored."""
        self.mirror = Mirror.restore(self.mirror.state(), limits=self.limits, displays=self.rows.displays())

    def took(self, changes: list[Change]) -> list[Change]:
        self.rows.apply(changes)
        self.changes += changes
        return changes

    def row(self, msg_id: str) -> Execution:
        return self.rows.executions[msg_id]

    def texts(self, msg_id: str) -> list[str]:
        """Each output in short: the text of a stream or of its text/plain."""
        return [
            output.text if output.text is not None else (output.data or {"text/plain": output.ename})["text/plain"]
            for output in self.row(msg_id).outputs
        ]

    @property
    def kernel(self) -> Kernel:
        return self.rows.kernels["k"]
