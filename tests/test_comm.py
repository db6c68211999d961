"""The session over a Jupyter comm: what goes to the asker alone, what goes to all, and how often."""

import asyncio
import functools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Map
from serving import KERNEL, SmallBackend, eventually

from rtc_kernel import schema, yproto
from rtc_kernel.agent.act.magics import EXPIRES_S_MAX
from rtc_kernel.agent.serve import comm as door
from rtc_kernel.agent.serve.comm import CommServer
from rtc_kernel.agent.serve.session import Limits
from rtc_kernel.link import Channel
from rtc_kernel.moments import Step
from rtc_kernel.tables import Execution, ExecutionState, Output, PutExecution, PutMeta, Request, to_json
from rtc_kernel.wire import Codec, Message, new_header

STEP1 = yproto.step1(b"\x00")


def on_loop(test):
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


class Front:
    """A frontend: what it sends, and what came."""

    def __init__(self, server, codec):
        self.server = server
        self.codec = codec
        self.shell, self.iopub, self.raw = [], [], []

    def emit(self, emit):
        self.raw.append(emit)
        message = self.codec.read(emit.frames)
        (self.shell if emit.channel is Channel.SHELL else self.iopub).append(message)

    def send(self, kind, comm="c1", data=None, *buffers, **content):
        header = new_header(kind, session="front", username="ada")
        content = {"comm_id": comm, "data": {} if data is None else data, **content}
        self.server.receive_message(Message(header, {}, {}, content, buffers, (b"route",)))
        return header

    def push(self, *changes):
        update = self.server._backend.document.apply(list(changes))
        self.server.push(update)
        return update


@asynccontextmanager
async def fronting(backend=None):
    backend, codec = backend or SmallBackend(), Codec(b"key")
    with ThreadPoolExecutor(1) as executor:
        front = Front(None, codec)
        front.server = CommServer(
            backend,
            kernel=KERNEL,
            codec=codec,
            identity=lambda: ("child-session", "kernel"),
            emit=front.emit,
            executor=executor,
            limits=Limits(),
        )
        yield front
        await front.server.stop()


@on_loop
async def test_step_1_is_answered_to_the_asker_alone_with_the_childs_session():
    async with fronting() as front:
        front.send("comm_open", data={"room": "state"})
        assert front.raw == []
        front.send("comm_open", "c2", {"room": "requests"})
        assert [(client, name) for client, name, _ in front.server.peers] == [("front", "ada")]
        front.send("comm_close", "c2")
        header = front.send("comm_msg", "c1", {}, STEP1)
        (reply,) = front.shell
        assert front.iopub == []
        assert (reply.type, reply.idents, reply.parent) == ("comm_msg_reply", (b"route",), header)
        assert (reply.session, reply.username) == ("child-session", "kernel")
        assert reply.content["data"] == {"seq": 0, "epoch": front.server._backend.document.epoch}
        assert isinstance(yproto.read_message(reply.buffers[0]), yproto.Step2)


@on_loop
async def test_updates_go_on_iopub_the_first_at_once_and_then_in_batches():
    async with fronting() as front:
        front.send("comm_open", data={"room": f"{KERNEL}/state"})
        front.send("comm_msg", "c1", {}, STEP1)
        replica = Doc()
        replica.apply_update(yproto.read_message(front.shell[0].buffers[0]).update)
        front.push(PutExecution("e1", {"seq": 1, "code": "é"}))
        assert len(front.iopub) == 1
        for n in range(10):
            front.push(PutMeta({"n": n}))
        assert len(front.iopub) == 1
        await eventually(lambda: len(front.iopub) == 2, "the batch went")
        first, batch = front.iopub
        assert (first.type, first.idents, first.parent) == ("comm_msg", (b"comm-c1",), {})
        assert [message.content["data"]["seq"] for message in front.iopub] == [1, 2]
        assert len(batch.buffers) == 10
        for message in front.iopub:
            for buffer in message.buffers:
                replica.apply_update(yproto.read_message(buffer).update)
        assert schema.read_meta(replica) == schema.read_meta(front.server._backend.document.doc)


@on_loop
async def test_under_load_there_are_at_most_20_messages_a_second():
    async with fronting() as front:
        front.send("comm_open")
        front.send("comm_msg", "c1", {}, STEP1)
        loop = asyncio.get_running_loop()
        began, n = loop.time(), 0
        while n <= 50 or loop.time() - began < 0.5:
            front.push(PutMeta({"n": (n := n + 1)}))
            await asyncio.sleep(0)
        assert len(front.iopub) <= (loop.time() - began) / door.FLUSH_S + 1


@on_loop
async def test_a_comm_that_is_not_open_or_did_not_ask_gets_nothing():
    async with fronting() as front:
        front.push(PutMeta({"n": 1}))
        front.send("comm_open")
        front.push(PutMeta({"n": 2}))
        front.send("comm_msg", "c1", {}, STEP1)
        front.send("comm_close")
        front.push(PutMeta({"n": 3}))
        assert front.iopub == []
        assert front.server.open == ()


@on_loop
async def test_awareness_stays_away_from_the_comm():
    async with fronting() as front:
        front.send("comm_open")
        front.send("comm_msg", "c1", {}, yproto.awareness([yproto.Entry(1, 1, "{}")]), b"\x03")
        assert front.raw == []


@pytest.mark.parametrize(
    ("data", "code"), [({"room": "secrets"}, 4404), ({"room": "other/state"}, 4404), ({"epoch": "0" * 16}, 4409)]
)
@on_loop
async def test_a_comm_to_another_room_or_epoch_is_closed(data, code):
    async with fronting() as front:
        front.send("comm_open", data=data)
        (close,) = front.iopub
        assert (close.type, close.content["data"]["code"]) == ("comm_close", code)
        assert front.server.open == ()


@on_loop
async def test_a_message_of_an_unknown_comm_is_answered_with_its_close():
    async with fronting() as front:
        front.send("comm_msg", "never opened", {}, STEP1)
        (close,) = front.iopub
        assert (close.type, close.content["comm_id"]) == ("comm_close", "never opened")
        front.server.disown(["of an earlier life"])
        assert front.iopub[1].content["comm_id"] == "of an earlier life"


@on_loop
async def test_an_update_with_content_is_refused_and_changes_nothing():
    async with fronting() as front:
        replica = Doc()
        replica.get("meta", type=Map)["mine"] = 1
        before = front.server._backend.document.diff(b"\x00")
        front.send("comm_open")
        front.send("comm_msg", "c1", {}, yproto.update(replica.get_update()))
        assert isinstance(yproto.read_message(front.shell[0].buffers[0]), yproto.Denied)
        assert front.iopub[0].content["data"]["code"] == 4403
        assert front.server._backend.document.diff(b"\x00") == before


@on_loop
async def test_history_and_blobs_are_answered_to_the_asker():
    backend = SmallBackend()
    backend.rows = [Execution(id=f"e{n}", seq=n, state=ExecutionState.OK) for n in (1, 2, 3)]
    backend.rows[0].metadata["x"] = float("inf")
    backend.blobs["sha256:00"] = (b"\x00\xff", "image/png")
    async with fronting(backend) as front:
        front.send("comm_open")
        header = front.send("comm_msg", "c1", {"op": "history", "limit": 2})
        await eventually(lambda: front.shell, "the answer came")
        assert front.shell[0].parent == header
        assert front.shell[0].content["data"] == {
            "executions": [to_json(backend.rows[2]), to_json(backend.rows[1])],
            "next": 2,
        }
        front.send("comm_msg", "c1", {"op": "history", "limit": 3})
        front.send("comm_msg", "c1", {"op": "blob", "digest": "sha256:00"})
        await eventually(lambda: len(front.shell) == 3, "the answers came")
        assert front.shell[1].content["data"]["executions"][2]["metadata"] == {"x": None}
        assert front.shell[2].content["data"]["media_type"] == "image/png"
        assert front.shell[2].buffers == (b"\x00\xff",)
        assert front.iopub == []


@pytest.mark.parametrize(
    "data",
    [{"op": "history", "grep": "("}, {"op": "history", "limit": "x"}, {"op": "history", "cell": 3}, {"op": "blob"},
     {"op": "blob", "digest": "sha256:ff"}, {"op": "dance"}, {"op": None}, {"op": "history", "limit": True}],
)  # fmt: skip
@on_loop
async def test_an_op_that_cannot_be_is_answered_with_error_and_remedy(data):
    async with fronting() as front:
        front.send("comm_open")
        front.send("comm_msg", "c1", data)
        await eventually(lambda: front.shell, "the answer came")
        assert set(front.shell[0].content["data"]) == {"error", "remedy"}
        assert front.server.open == ("c1",)


@on_loop
async def test_a_link_is_made_listed_and_withdrawn_and_its_token_is_said_once(caplog):
    caplog.set_level("DEBUG")
    async with fronting() as front:
        front.send("comm_open")

        async def ask(**data):
            front.send("comm_msg", "c1", data)
            await eventually(lambda: front.shell, "the answer came")
            return front.shell.pop().content["data"]

        made = await ask(op="share", role="run", name="phone", expires_s=60)
        token = made.pop("url").partition("?token=")[2]
        ends = made["link"].pop("expires_at")
        assert (made, ends > time.time()) == ({"link": {"name": "phone", "role": "run"}, "proxied_url": None}, True)
        assert front.server._backend.tokens.verify(token, time.time()).name == "phone"
        seen = await ask(op="links")
        (link,) = seen["links"]
        assert (set(link), link["expires_at"]) == ({"name", "role", "created_at", "expires_at"}, ends)
        assert seen["peers"] == [{"name": "ada", "role": "run", "way": "comm", "since": 1.0}]
        again = await ask(op="share", name="phone")
        assert again["error"] == "a token named 'phone' is in force"
        assert token not in json.dumps([seen, again]) + caplog.text
        assert await ask(op="unshare", name="phone") == {**seen, "links": []}
        assert front.server._backend.tokens.verify(token, time.time()) is None
        assert front.iopub == []


@pytest.mark.parametrize(
    "data",
    [{"role": "own"}, {"role": ["view"]}, {"name": 3}, {"name": "x" * 65}, {"name": "a\nb"}, {"name": "\ud800"},
     {"expires_s": "60"}, {"expires_s": True}, {"expires_s": 0}, {"expires_s": -1}, {"expires_s": float("nan")},
     {"expires_s": float("inf")}, {"expires_s": EXPIRES_S_MAX + 1}, {"expires_s": 10**400},
     {"op": "unshare"}, {"op": "unshare", "name": ["a"]}, {"op": "unshare", "name": "nobody's"}],
)  # fmt: skip
@on_loop
async def test_a_link_that_cannot_be_is_refused_in_one_line(data):
    async with fronting() as front:
        front.send("comm_open")
        front.send("comm_msg", "c1", {"op": "share", **data})
        await eventually(lambda: front.shell, "the answer came")
        answer = front.shell[0].content["data"]
        assert set(answer) == {"error", "remedy"}
        assert "\n" not in "".join(answer.values())
        assert list(front.server._backend.tokens) == []


@pytest.mark.parametrize("action", ["release", "cancel"])
@on_loop
async def test_whoever_has_the_kernels_channels_decides_on_what_waits(action):
    async with fronting() as front:
        front.server._backend.waiting = ["r1"]
        front.send("comm_open")
        answers = []
        for request in ("r1", "r2", None):
            front.send("comm_msg", "c1", {"op": action, "request": request})
            await eventually(lambda: front.shell, "the answer came")
            answers.append(front.shell.pop().content["data"])
        assert answers[0] == {"request": "r1"}
        assert [set(answer) for answer in answers[1:]] == [{"error", "remedy"}] * 2
        assert front.server._backend.decided == [(action, "r1")]


@on_loop
async def test_a_frontend_says_what_its_user_is_called():
    async with fronting() as front:
        front.send("comm_open")
        front.send("comm_msg", "c1", {"op": "introduce", "name": " Ada é "})
        await eventually(lambda: front.shell, "the answer came")
        assert front.shell.pop().content["data"] == {}
        assert front.server._backend.introduced == [("front", "Ada é")]
        for wrong in (None, 3, "x" * 65, "a\nb", "\ud800"):
            front.send("comm_msg", "c1", {"op": "introduce", "name": wrong})
            await eventually(lambda: front.shell, "the answer came")
            assert set(front.shell.pop().content["data"]) == {"error", "remedy"}
        assert len(front.server._backend.introduced) == 1


@on_loop
async def test_a_failing_store_is_told_and_logged(caplog):
    async with fronting() as front:
        front.server._backend.history = None
        front.send("comm_open")
        front.send("comm_msg", "c1", {"op": "history"})
        await eventually(lambda: front.shell, "the answer came")
        assert "error" in front.shell[0].content["data"]
        assert "failed" in caplog.text


@on_loop
async def test_a_comm_whose_page_is_gone_is_closed_instead_of_sent_to(monkeypatch):
    monkeypatch.setattr(door, "LEASE_S", -1.0)
    async with fronting() as front:
        front.send("comm_open")
        front.send("comm_msg", "c1", {}, STEP1)
        front.push(PutMeta({"n": 1}))
        assert front.iopub[0].content["data"]["code"] == 4508
        assert front.server.open == ()


@on_loop
async def test_the_number_of_comms_is_bounded(monkeypatch):
    monkeypatch.setattr(door, "COMMS", 3)
    async with fronting() as front:
        for n in range(5):
            front.send("comm_open", f"c{n}")
        assert front.server.open == ("c2", "c3", "c4")


@on_loop
async def test_a_new_epoch_and_the_end_close_every_comm():
    async with fronting() as front:
        front.send("comm_open")
        front.server.begin_epoch()
        front.send("comm_open", "c2")
        await front.server.stop()
        assert [message.content["data"]["code"] for message in front.iopub] == [4409, 1012]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(["comm_open", "comm_msg", "comm_close", "x"]), anything, st.binary(max_size=30)),
        max_size=5,
    )
)
def test_any_content_and_buffers_are_survived(messages):
    async def run():
        async with fronting() as front:
            for kind, data, buffer in messages:
                content = {"comm_id": "c1", "data": data}
                front.server.receive_message(Message({"msg_type": kind}, {}, {}, content, (buffer,), ()))
            front.server.receive_message(Message({"msg_type": "comm_open"}, {}, {}, {"comm_id": 3}, (), ()))
            assert json.dumps(front.server.open) in ("[]", '["c1"]')

    asyncio.run(run())


@on_loop
async def test_requests_are_written_over_a_comm_and_its_name_is_the_messages():
    async with fronting() as front:
        requests = front.server._backend.requests
        front.send("comm_open", "w", {"room": "requests", "epoch": requests.epoch})
        front.send("comm_msg", "w", {}, STEP1)
        kinds = [type(yproto.read_message(buffer)) for buffer in front.shell[0].buffers]
        assert kinds == [yproto.Step2, yproto.Step1]
        assert front.shell[0].content["data"]["epoch"] == requests.epoch
        peer = Doc()
        peer.get("requests", type=Map)["r1"] = Map({"action": "restart"})
        front.send("comm_msg", "w", {}, yproto.update(peer.get_update()))
        assert front.server._backend.written == [("ada", "r1", {"action": "restart"})]
        requests.put([Request(id="r1", action="restart", by="ada")])
        front.server.push(requests.take_update(), "requests")
        front.push(PutMeta({"n": 1}))
        (message,) = front.iopub
        assert message.content == {"comm_id": "w", "data": {"seq": 1, "epoch": requests.epoch}}
        peer.apply_update(yproto.read_message(message.buffers[0]).update)
        assert peer.get("requests", type=Map)["r1"].to_py()["by"] == "ada"


@on_loop
async def test_a_comm_whose_update_cannot_be_read_is_closed():
    async with fronting() as front:
        front.send("comm_open", "w", {"room": "requests"})
        front.send("comm_msg", "w", {}, STEP1)
        front.send("comm_msg", "w", {}, yproto.update(b"\x01\x01\x01"))
        assert [message.content["data"]["code"] for message in front.iopub] == [4400]
        assert front.server.open == ()


@on_loop
async def test_a_comm_asks_for_all_that_http_has(monkeypatch):
    monkeypatch.setattr(door, "PIECE_BYTES", 8)
    backend = SmallBackend()
    printed = Output(output_type="stream", at=1.0, name="stdout", text="0123456789abcdef!")
    backend.rows = [Execution(id="e1", seq=1, state=ExecutionState.OK, outputs=(printed,))]
    backend.grown = {"e1": {0: [Step(3, 2.0)]}}
    async with fronting(backend) as front:
        front.send("comm_open")

        async def ask(**data):
            front.send("comm_msg", "c1", data)
            await eventually(lambda: front.shell, "the answer came")
            return front.shell.pop().content["data"]

        record = await ask(op="execution", id="e1")
        assert (record["outputs"][0]["text"], record["more"]) == ("01234567", [[0, 2]])
        assert await ask(op="text", id="e1", position=0, segment=2) == {"segments": ["89ab", "cdef"], "next": 4}
        assert await ask(op="text", id="e1", position=0, segment=4) == {"segments": ["!"], "next": None}
        assert await ask(op="marks", id="e1") == {"execution": "e1", "marks": [[0, 3, 2.0]]}
        assert (await ask(op="complete", code="pri", cursor_pos=3))["matches"] == ["print"]
        health = await ask(op="health")
        assert (health["role"], health["epoch"], health["schema"]) == ("run", backend.document.epoch, 1)
        for wrong in (
            {"op": "execution", "id": "no"},
            {"op": "text", "id": "e1", "position": "0"},
            {"op": "marks"},
            {"op": "complete", "code": "x", "cursor_pos": 9},
        ):
            assert set(await ask(**wrong)) == {"error", "remedy"}


@on_loop
async def test_a_large_blob_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(door, "PIECE_BYTES", 4)
    backend = SmallBackend()
    backend.blobs["sha256:00"] = (b"0123456789", "image/png")
    async with fronting(backend) as front:
        front.send("comm_open")
        got = b""
        while len(got) < 10:
            front.send("comm_msg", "c1", {"op": "blob", "digest": "sha256:00", "start": len(got)})
            await eventually(lambda: front.shell, "the answer came")
            (piece,), data = front.shell[-1].buffers, front.shell.pop().content["data"]
            assert (data["bytes"], data["start"], len(piece) <= 4) == (10, len(got), True)
            got += piece
        assert got == b"0123456789"
