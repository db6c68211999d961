"""A real Jupyter Server between us and the frontend: its REST API starts, interrupts and ends, its WebSocket speaks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import struct
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import recorded
from kernels import FOREVER, SHOWS, gone
from pycrdt import Doc
from servers import JupyterServer, jupyter_server
from serving import eventually
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rtc_kernel import discovery, schema, yproto
from rtc_kernel.dialing import hang_up
from rtc_kernel.tables import Execution, ExecutionState

Message = dict[str, Any]

PROTOCOL = "v1.kernel.websocket.jupyter.org"
"""The kernel's messages on a WebSocket: offsets, the channel's name, four JSON parts, buffers (jupyter_server)."""


def on_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 110))

    return run


@pytest.fixture
def server(home: Path) -> Iterator[JupyterServer]:
    with jupyter_server("server", home, os.environ) as running:
        yield running


async def call(server: JupyterServer, method: str, path: str, body: Message | None = None) -> Any:
    """One request to the server's REST API; fails on a status that is not one of success."""
    answer = await fetch(server.url + path, method, {"Authorization": f"token {server.token}"}, body)
    return json.loads(answer) if answer else None


async def fetch(url: str, method: str, headers: dict[str, str], body: Message | None = None) -> bytes:
    text = None if method in ("GET", "DELETE") else json.dumps(body or {})
    request = HTTPRequest(url, method, headers=headers, body=text, request_timeout=60)
    return (await AsyncHTTPClient().fetch(request)).body


class Front:
    """A frontend of one kernel: the server's WebSocket, and everything that came on it."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection
        self.session = uuid.uuid4().hex
        self.messages: list[Message] = []

    async def send(self, channel: str, msg_type: str, content: Message, *buffers: bytes) -> str:
        """Send a message; its id."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": msg_type, "session": self.session}
        header |= {"username": "ada", "version": "5.4", "date": "2026-01-01T00:00:00Z"}
        parts = [channel.encode(), *(json.dumps(part).encode() for part in (header, {}, {}, content)), *buffers]
        offsets = [8 * (len(parts) + 2)]
        for part in parts:
            offsets.append(offsets[-1] + len(part))
        data = struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)
        await self.connection.write_message(data, binary=True)
        return header["msg_id"]

    async def receive(self) -> Message:
        """The next message, whatever it is."""
        data = await asyncio.wait_for(self.connection.read_message(), 30)
        assert isinstance(data, bytes), f"closed: {self.connection.close_code}"
        (count,) = struct.unpack_from("<Q", data)
        offsets = struct.unpack_from(f"<{count}Q", data, 8)
        channel, header, parent, _, content, *buffers = (data[start:end] for start, end in itertools.pairwise(offsets))
        message = {"channel": channel.decode(), "header": json.loads(header), "parent": json.loads(parent)}
        message |= {"type": message["header"]["msg_type"], "content": json.loads(content), "buffers": buffers}
        self.messages.append(message)
        return message

    async def wait_for(self, condition: Callable[[Message], object]) -> Message:
        """The next message of which the condition holds."""
        while not condition(message := await self.receive()):
            pass
        return message

    async def start(self, code: str) -> str:
        """Ask for an execution; its id when it has begun."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        content |= {"allow_stdin": True, "stop_on_error": True}
        msg_id = await self.send("shell", "execute_request", content)
        await self.wait_for(lambda message: message["type"] == "execute_input" and is_child(message, msg_id))
        return msg_id

    async def begin(self, code: str) -> str:
        """Ask for an execution that prints; its id when it has: only then does an interrupt meet its code."""
        msg_id = await self.start(code)
        await self.wait_for(lambda message: message["type"] == "stream" and is_child(message, msg_id))
        return msg_id

    async def finish(self, msg_id: str, reply: str = "execute_reply") -> Message:
        """A request's reply, when it is idle too."""

        def mine(what: str) -> list[Message]:
            return [message for message in self.messages if is_child(message, msg_id) and message["type"] == what]

        while not (mine(reply) and any(m["content"]["execution_state"] == "idle" for m in mine("status"))):
            await self.receive()
        return dict(mine(reply)[0]["content"])

    async def execute(self, code: str) -> tuple[Message, str]:
        """Run code; its reply and its text."""
        msg_id = await self.start(code)
        reply = await self.finish(msg_id)
        mine = [message for message in self.messages if is_child(message, msg_id)]
        return reply, "".join(message["content"]["text"] for message in mine if message["type"] == "stream")


def is_child(message: Message, msg_id: str) -> bool:
    return message["parent"].get("msg_id") == msg_id


@contextlib.asynccontextmanager
async def front_of(server: JupyterServer, kernel: str) -> AsyncIterator[Front]:
    """A frontend, when its kernel has answered on both channels: a server does not see to it for a kernel that it takes
    for busy, and what is published before the server has subscribed never comes."""
    url = f"{server.url.replace('http', 'ws', 1)}api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
    headers = {"Authorization": f"token {server.token}"}
    request = HTTPRequest(url, headers=headers, request_timeout=60)
    connection = await websocket_connect(request, subprotocols=[PROTOCOL], max_message_size=1 << 28)
    assert connection.selected_subprotocol == PROTOCOL
    front = Front(connection)

    async def answers() -> bool:
        msg_id = await front.send("shell", "kernel_info_request", {})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(front.finish(msg_id, "kernel_info_reply"), 2)
            return True
        return False

    try:
        await eventually(answers, "the kernel answers on both channels", 60)
        yield front
    finally:
        hang_up(connection)


async def discovered(kernel: str) -> discovery.LiveKernel:
    """The kernel's discovery file, when its agent has written it."""
    await eventually(lambda: kernel in [live.kernel_id for live in discovery.live()], "the agent is there", 30)
    return discovery.find(kernel)


async def history(live: discovery.LiveKernel, *states: str) -> list[Message]:
    """What the agent has recorded, oldest first, when it is in these states."""
    return await asyncio.to_thread(recorded, live.kernel_id, *states)


@on_loop
async def test_a_kernel_of_the_server_is_started_interrupted_restarted_and_ended_by_its_api(
    server: JupyterServer,
) -> None:
    started = await call(server, "POST", "api/kernels", {"name": "rtc-python"})
    kernel = str(started["id"])
    async with front_of(server, kernel) as front:
        reply, text = await front.execute("print('naïve 😀')")
        assert (reply["status"], reply["execution_count"], text) == ("ok", 1, "naïve 😀\n")
        sleeping = await front.begin(SHOWS)
        await call(server, "POST", f"api/kernels/{kernel}/interrupt")
        reply = await front.finish(sleeping)
        assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
        while (await call(server, "GET", f"api/kernels/{kernel}"))["execution_state"] != "idle":
            pass  # the server hears of it on a socket of its own
        before = await discovered(kernel)
        assert before.kernel_name == "rtc-python"
        await call(server, "POST", f"api/kernels/{kernel}/restart")
    async with front_of(server, kernel) as front:
        reply, _ = await front.execute("1 + 1")
        assert (reply["status"], reply["execution_count"]) == ("ok", 1)
        live = await discovered(kernel)
        assert live.url == before.url
        assert live.relay_pid != before.relay_pid
        rows = await history(live, "ok", "error", "ok")
        assert [row["code"] for row in rows] == ["print('naïve 😀')", SHOWS, "1 + 1"]
        assert [row["generation"] for row in rows] == [0, 0, 1]
        assert [row["submitted_by"] for row in rows] == ["ada"] * 3
        assert rows[0]["outputs"][0]["text"] == "naïve 😀\n"
    relay = psutil.Process(live.relay_pid)
    processes = [relay, *relay.children(recursive=True)]
    assert len(processes) == 3
    await call(server, "DELETE", f"api/kernels/{kernel}")
    await eventually(gone(processes), "nothing of it runs any more")
    assert discovery.live() == []
    assert list((server.root.parent / "runtime").glob("kernel-*.json")) == []


@on_loop
async def test_a_process_that_dies_is_started_anew_by_the_server_with_its_history(server: JupyterServer) -> None:
    kernel = str((await call(server, "POST", "api/kernels", {"name": "rtc-python"}))["id"])
    async with front_of(server, kernel) as front:
        await front.execute("'before'")
        relay = psutil.Process((await discovered(kernel)).relay_pid)
        await front.start(FOREVER)
        next(process for process in relay.children() if "rtc_kernel.agent" not in process.cmdline()).kill()
        await front.wait_for(lambda message: message["content"].get("execution_state") == "restarting")
    async with front_of(server, kernel) as front:
        await front.execute("'after'")
        rows = await history(await discovered(kernel), "ok", "lost", "ok")
        assert [row["code"] for row in rows] == ["'before'", FOREVER, "'after'"]
    await call(server, "DELETE", f"api/kernels/{kernel}")


@on_loop
async def test_the_comm_gives_the_document_through_the_server(server: JupyterServer) -> None:
    kernel = str((await call(server, "POST", "api/kernels", {"name": "rtc-python"}))["id"])
    async with front_of(server, kernel) as front, front_of(server, kernel) as other:
        await front.execute("print('naïve 😀')")
        await history(await discovered(kernel), "ok")
        replica: Doc[Any] = Doc()

        def runs() -> list[Execution]:
            return schema.read_executions(replica)

        opening = {"comm_id": "c", "target_name": "rtc.sync.v1", "data": {"room": f"{kernel}/state"}}
        await front.send("shell", "comm_open", opening)
        asked = await front.send("shell", "comm_msg", {"comm_id": "c", "data": {}}, yproto.step1(b"\x00"))
        answer = await front.wait_for(lambda message: message["type"] == "comm_msg_reply")
        assert is_child(answer, asked)
        step2, *_ = (yproto.read_message(buffer) for buffer in answer["buffers"])
        assert isinstance(step2, yproto.Step2)
        replica.apply_update(step2.update)
        assert [run.outputs[0].text for run in runs()] == ["naïve 😀\n"]

        await other.execute("6 * 7")
        seq = answer["content"]["data"]["seq"]
        while not (len(runs()) == 2 and runs()[1].state is ExecutionState.OK):
            update = await front.wait_for(lambda message: message["type"] == "comm_msg")
            assert update["content"]["data"]["seq"] == (seq := seq + 1)
            for buffer in update["buffers"]:
                message = yproto.read_message(buffer)
                assert isinstance(message, yproto.Update)
                replica.apply_update(message.update)
        assert runs()[1].outputs[0].data == {"text/plain": "42"}
        assert not any(message["type"] == "comm_msg_reply" for message in other.messages)

        await front.send("shell", "comm_msg", {"comm_id": "c", "data": {"op": "history", "limit": 1}})
        page = await front.wait_for(lambda message: message["type"] == "comm_msg_reply")
        assert [row["code"] for row in page["content"]["data"]["executions"]] == ["6 * 7"]
    await call(server, "DELETE", f"api/kernels/{kernel}")


@on_loop
async def test_the_notebook_of_a_session_is_the_kernels(server: JupyterServer) -> None:
    (server.root / "dir").mkdir()
    body = {"path": "dir/ä.ipynb", "type": "notebook", "name": "ä.ipynb", "kernel": {"name": "rtc-python"}}
    session = await call(server, "POST", "api/sessions", body)
    live = await discovered(str(session["kernel"]["id"]))
    assert live.notebook == str(server.root / "dir" / "ä.ipynb")
    await call(server, "DELETE", f"api/sessions/{session['id']}")
    await eventually(lambda: discovery.live() == [], "the kernel has ended")
