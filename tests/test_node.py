"""A stock y-websocket peer under Node.js follows, and its replica is ours."""

import asyncio
import functools
import json
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from serving import KERNEL, serving
from tools import node_lacks

from rtc_kernel.tables import (
    AddCommMessage,
    AddOutput,
    Cell,
    MergeCommState,
    Output,
    PutCells,
    PutComm,
    PutExecution,
    WriteText,
    to_json,
)

HERE = Path(__file__).parent / "node"
NODE = shutil.which("node")
LACKS = node_lacks("node", HERE, "y-websocket")
pytestmark = [pytest.mark.node, pytest.mark.skipif(bool(LACKS), reason=LACKS or "all is there")]


def on_loop(test):
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


class Peer:
    """The Node process, by lines."""

    def __init__(self, process):
        self._process = process

    def say(self, word):
        self._process.stdin.write(f"{word}\n".encode())

    async def hear(self, event):
        while True:
            line = await asyncio.wait_for(self._process.stdout.readline(), 60)
            assert line, f"the peer ended before it said {event!r}"
            message = json.loads(line)
            if message["event"] == event:
                return message

    async def dump_until(self, condition):
        """Its replica, when a condition holds of it."""
        for _ in range(1000):
            self.say("dump")
            roots = (await self.hear("dump"))["roots"]
            if condition(roots):
                return roots
        raise AssertionError("its replica never came there")


@asynccontextmanager
async def node_peer(server, token="view"):
    process = await asyncio.create_subprocess_exec(
        NODE,
        "peer.mjs",
        f"ws://127.0.0.1:{server.port}/rooms",
        f"{KERNEL}/state",
        server.tokens.get(token, token),
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Peer(process)
    finally:
        process.stdin.close()
        await process.wait()


def ours(server):
    """Our document as JSON, with bytes as the peer prints them."""
    doc = server.backend.document.doc
    names = ("meta", "kernels", "executions", "comms", "queries", "cells")
    return json.loads(json.dumps({name: doc[name].to_py() for name in names}, default=in_base64))


def in_base64(value):
    return to_json(Output(output_type="x", at=0.0, data={"v": bytes(value)}))["data"]["v"]


@on_loop
async def test_a_stock_y_websocket_peer_follows_and_its_replica_is_ours():
    async with serving() as server, node_peer(server) as peer:
        row = server.run_cell(code="print('é😀')")
        await peer.hear("synced")
        data = {"text/plain": "ü", "application/json": {"n": 2**40, "f": 0.5, "deep": [None, True, {"k": "😀"}]}}
        server.push(AddOutput(row, 1, Output(output_type="display_data", at=1.5, data=data, metadata={"big": 2**70})))
        for n in range(50):
            server.push(WriteText(row, 0, n // 10, None, f"é😀 {n}\n"))
        server.push(WriteText(row, 0, 2, 3, "cut"), PutExecution(row, {"metadata": {"a": {"b": 1}}}))
        server.push(PutComm("c", {"target": "jupyter.widget"}), MergeCommState("c", {"value": b"\x00\xff", "n": -1}))
        server.push(AddCommMessage("c", {"way": "out", "data": {"x": b"\x01"}}))
        server.push(PutCells("n.ipynb", (Cell(id="a", index=0, cell_type="code", source="1"),)))
        server.push(PutExecution(row, {"state": "ok", "execution_count": 3}))
        roots = await peer.dump_until(lambda roots: roots["executions"][row]["state"] == "ok")
        assert roots == ours(server)
        assert roots["comms"]["c"]["state"]["value"] == {"base64": "AP8="}
        assert roots["executions"][row]["execution_count"] == 3


@on_loop
async def test_a_stock_peer_that_writes_stops_for_good_and_another_goes_on():
    async with serving() as server, node_peer(server) as good, node_peer(server, "own") as bad:
        await good.hear("synced")
        await bad.hear("synced")
        bad.say("write")
        assert (await bad.hear("closed"))["code"] == 4403
        row = server.run_cell()
        roots = await good.dump_until(lambda roots: row in roots["executions"])
        assert "mine" not in roots["executions"]
        assert roots == ours(server)


@on_loop
async def test_a_stock_peer_with_a_wrong_token_stops_for_good():
    async with serving() as server, node_peer(server, "wrong") as peer:
        assert (await peer.hear("closed"))["code"] == 4401


@on_loop
async def test_a_stock_peer_of_an_earlier_epoch_stops_for_good():
    async with serving() as server, node_peer(server) as peer:
        server.run_cell()
        await peer.hear("synced")
        server.backend.document = server.backend.new_document()
        server.server.begin_epoch()
        assert (await peer.hear("closed"))["code"] == 4409
