"""The side socket over real sockets: who gets in, what they are sent, how they are closed."""

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import socket
import statistics
import struct
import time
from contextlib import suppress

import nbformat
import pytest
import trustme
from pycrdt import Doc, Map, Provider
from serving import KERNEL, Follower, SmallBackend, Socket, eventually, serving
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClosedError, websocket_connect

from rtc_kernel import schema, yproto
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.agent.serve.passage import Passage
from rtc_kernel.agent.serve.websocket import Server
from rtc_kernel.client import Address, call
from rtc_kernel.config import RTCKernel
from rtc_kernel.errors import CLOSE_CODES, Reason, SetupError
from rtc_kernel.moments import Step
from rtc_kernel.tables import Execution, ExecutionState, Output, PutMeta, Request, to_json

ROOM = f"/rooms/{KERNEL}/state"


def on_loop(test):
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))

    return run


class Channel:
    """What pycrdt's Provider wants of a connection."""

    path = "state"

    def __init__(self, connection):
        self.connection = connection

    def __aiter__(self):
        return self

    async def __anext__(self):
        data = await self.connection.read_message()
        if data is None:
            raise StopAsyncIteration
        return data

    async def recv(self):
        return await self.__anext__()

    async def send(self, message):
        with contextlib.suppress(WebSocketClosedError):  # its echo of the last update may come behind the end
            await self.connection.write_message(message, binary=True)


def same(doc, server):
    return schema.read_executions(doc) == schema.read_executions(server.backend.document.doc)


# --- following


@on_loop
async def test_a_peer_gets_the_document_and_then_every_update():
    async with serving() as server:
        row = server.run_cell()
        follower = await server.follow()
        for n in range(50):
            server.print_text(row, f"é😀 {n}\n")
        await follower.until(lambda: same(follower.doc, server), "the same rows")


@on_loop
async def test_a_stock_pycrdt_provider_follows_though_it_echoes_every_update():
    async with serving() as server:
        row = server.run_cell()
        server.print_text(row, "before\n")
        connection = await server.connect("view")
        doc = Doc()
        async with Provider(doc, Channel(connection)) as provider:
            await provider.synced.wait()
            for n in range(20):
                server.print_text(row, f"{n}\n")
                await asyncio.sleep(0)
            await eventually(lambda: same(doc, server), "the provider's replica is ours")
            assert len(server.server.peers) == 1
            connection.close()
        await eventually(lambda: not server.server.peers, "the peer is gone")


@on_loop
async def test_a_peer_that_writes_is_closed_and_the_others_go_on():
    async with serving() as server:
        good, bad = await server.follow("view"), await server.follow("own")
        bad.doc.get("executions", type=Map)["mine"] = 1
        await bad.send(yproto.update(bad.doc.get_update()))
        assert await bad.closed() == 4403
        assert isinstance(bad.messages[-1], yproto.Denied)
        server.run_cell()
        await good.until(lambda: same(good.doc, server), "updates go on")
        assert "mine" not in set(server.backend.document.doc["executions"].keys())


@on_loop
async def test_awareness_reaches_the_others_and_the_sender_and_goes_with_its_peer():
    async with serving() as server:
        ada, bob = await server.follow(), await server.follow()
        here, gone = (yproto.Entry(7, 1, state) for state in ('{"name":"ada"}', "null"))
        await ada.send(yproto.awareness([here]))
        for peer in (ada, bob):
            await peer.until(lambda peer=peer: yproto.Awareness((here,)) in peer.messages, "ada is here")
        ada.connection.close()
        await bob.until(lambda: yproto.Awareness((gone,)) in bob.messages, "ada is gone")


@on_loop
async def test_a_quiet_connection_gets_a_message_every_ping_s():
    async with serving(ping_s=0.5, auth_s=0.5) as server:
        follower = await server.follow()
        await follower.until(lambda: follower.messages.count(yproto.Awareness(())) >= 2, "two signs of life")


@on_loop
async def test_an_update_is_in_the_socket_within_a_millisecond():
    async with serving() as server:
        row = server.run_cell()
        follower = await server.follow()
        took = []
        for n in range(200):
            before = time.perf_counter()
            server.print_text(row, f"{n}\n")
            took.append(time.perf_counter() - before)
            await follower.receive()
        follower.connection.close()
    assert statistics.median(took) < 0.001  # 0.1 ms on a quiet machine


# --- who gets in


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ({"token": None}, 4401),
        ({"token": "wrong"}, 4401),
        ({"token": None, "path": f"{ROOM}?token=wrong"}, 4401),
        ({"path": "/rooms/other/state"}, 4404),
        ({"path": f"/rooms/{KERNEL}/secrets"}, 4404),
        ({"path": f"{ROOM}?epoch=0123456789abcdef"}, 4409),
    ],
)
@on_loop
async def test_who_may_not_follow_is_accepted_told_and_closed_for_good(where, code):
    async with serving() as server:
        connection = await server.connect(**where)
        assert isinstance(yproto.read_message(await connection.read_message()), yproto.Denied)
        assert await connection.read_message() is None
        assert connection.close_code == code
        assert not server.server.peers


@on_loop
async def test_the_token_is_taken_from_header_subprotocol_cookie_or_query():
    async with serving() as server:
        secret, cookie = server.tokens["view"], server.server.cookie
        for headers, path in (
            ({"Authorization": f"Bearer {secret}"}, ROOM),
            ({"Sec-WebSocket-Protocol": f"other, rtc.token.{secret}"}, ROOM),
            ({"Cookie": f"{cookie}={secret}"}, ROOM),
            ({}, f"{ROOM}?token={secret}&epoch={server.backend.document.epoch}"),
        ):
            connection = await server.connect(None, path, **headers)
            await connection.write_message(yproto.step1(b"\x00"), binary=True)
            assert isinstance(yproto.read_message(await connection.read_message()), yproto.Step2)
            if "Sec-WebSocket-Protocol" in headers:
                assert connection.selected_subprotocol == f"rtc.token.{secret}"
            connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "evil.example"},
        {"Host": "evil.example:80", "Origin": "http://evil.example:80"},
    ],
)
@on_loop
async def test_a_foreign_origin_or_host_is_refused(headers):
    async with serving() as server:
        with pytest.raises(HTTPClientError) as error:
            await server.connect("own", **headers)
        assert error.value.code == 403
        answer = await server.fetch("/api/health", **headers)
        assert answer.code == 403
        assert set(json.loads(answer.body)) == {"error", "remedy"}


@on_loop
async def test_our_own_origin_and_configured_ones_may_connect():
    async with serving(allow_origins=["https://hub.example"]) as server:
        for headers in (
            {"Origin": f"http://127.0.0.1:{server.port}"},
            {"Host": "localhost:8888", "Origin": "http://localhost:8888"},
            {"Host": "hub.example", "Origin": "https://hub.example"},
        ):
            connection = await server.connect("view", **headers)
            await connection.write_message(yproto.step1(b"\x00"), binary=True)
            assert await connection.read_message()
            connection.close()
        answer = await server.fetch("/api/health", Origin="https://hub.example")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://hub.example"
        preflight = await server.fetch("/api/share", None, "OPTIONS", Origin="https://hub.example")
        assert preflight.code == 204
        assert "Access-Control-Allow-Origin" not in (await server.fetch("/api/health")).headers


@on_loop
async def test_the_server_that_passes_requests_on_is_known_by_its_name_and_no_other():
    async with serving(passage=Passage("https://hub.example/user/ada/", is_sure=True)) as server:
        shared = json.loads((await server.fetch("/api/share", "own", "POST", {})).body)
        assert shared["proxied_url"] == f"https://hub.example/user/ada/proxy/{server.port}/?token={shared['token']}"
        for headers in (
            {"Host": "hub.example"},
            {"Host": "hub.example", "Origin": "https://hub.example"},
            {"Origin": "https://HUB.example"},  # a proxy before it has changed the Host
        ):
            answer = await server.fetch("/api/health", **headers)
            assert answer.code == 200
            assert "Access-Control-Allow-Origin" not in answer.headers, "for its pages we are the same origin"
        for headers in (
            {"Host": "other.example"},
            {"Host": "hub.example.evil.example"},
            {"Host": "hub.example", "Origin": "https://other.example"},
            {"Host": "hub.example", "Origin": "https://hub.example.evil.example"},
            {"Origin": "https://hub.example:8443"},
            {"Origin": "http://hub.example"},
        ):
            assert (await server.fetch("/api/health", **headers)).code == 403, headers
    async with serving(passage=Passage("/user/ada/", is_sure=True)) as server:
        shared = json.loads((await server.fetch("/api/share", "own", "POST", {})).body)
        assert shared["proxied_url"] == f"/user/ada/proxy/{server.port}/?token={shared['token']}"
        assert (await server.fetch("/api/health", Host="hub.example")).code == 403


@on_loop
async def test_a_large_document_comes_in_messages_that_a_proxy_lets_through():
    """jupyter-server-proxy has tornado's bound of 10 MiB."""
    async with serving() as server:
        for _ in range(12):
            row = server.run_cell("ok")
            for _ in range(16):
                server.print_text(row, "x" * (1 << 16))
        for host, is_whole in ((f"127.0.0.1:{server.port}", False), ("localhost:8888", True), ("localhost", True)):
            request = HTTPRequest(
                f"ws://127.0.0.1:{server.port}/rooms/{KERNEL}/state",
                headers={"Authorization": f"Bearer {server.tokens['view']}", "Host": host},
            )
            connection = await websocket_connect(request)
            follower = Follower(connection)
            server.connections.append(connection)
            await follower.send(yproto.step1(b"\x00"))
            if not is_whole:
                assert await follower.closed() is None
                assert follower.messages == []
                continue
            while not any(isinstance(message, yproto.Step2) for message in follower.messages):
                assert await follower.receive()
            assert len(follower.messages) == 3, "two pieces and the deletions"
            assert same(follower.doc, server)


@pytest.mark.parametrize(
    ("forwarded", "is_secure"), [("https", True), ("https,http", True), ("http", False), ("http, https", False)]
)
@on_loop
async def test_the_cookie_is_for_https_where_the_browser_speaks_that(forwarded, is_secure):
    async with serving() as server:
        answer = await server.fetch(f"/?token={server.tokens['view']}", None, X_Forwarded_Proto=forwarded)
        assert ("Secure" in answer.headers["Set-Cookie"]) == is_secure


@on_loop
async def test_no_more_peers_than_the_setting():
    async with serving(peers=2) as server:
        peers = [await server.follow() for _ in range(2)]
        third = await server.connect()
        await third.read_message()
        assert await third.read_message() is None
        assert third.close_code == 4430
        for peer in peers:
            peer.connection.close()


# --- who is closed


@pytest.mark.parametrize(
    ("data", "code"), [(b"", 4400), (b"\x00\x00\x05", 4400), (b"\x09\x09", 4400), (bytes(2000), 4413), ("text", 4400)]
)
@on_loop
async def test_bad_messages_close_their_sender_only(data, code):
    async with serving(message_bytes=1024) as server:
        good, bad = await server.follow(), await server.follow()
        await bad.connection.write_message(data, binary=isinstance(data, bytes))
        assert await bad.closed() == code
        server.run_cell()
        await good.until(lambda: same(good.doc, server), "updates go on")


@on_loop
async def test_a_huge_message_is_cut_off_before_it_is_read():
    async with serving(message_bytes=1024) as server:
        bad = await server.follow()
        await bad.connection.write_message(bytes(100_000), binary=True)
        assert await bad.closed() in (1009, None)


@on_loop
async def test_a_peer_that_says_nothing_is_closed_in_time():
    async with serving(auth_s=0.2) as server:
        connection = await server.connect()
        assert await asyncio.wait_for(connection.read_message(), 30) is None
        assert connection.close_code == 4408


@on_loop
async def test_a_peer_that_answers_no_ping_is_cut_off_and_one_that_does_follows_on():
    async with serving(ping_s=0.5) as server:
        good = await server.follow()
        receiving = asyncio.create_task(good.closed(), name="good")
        raw = await slow_peer(server)
        await eventually(lambda: len(server.server.peers) == 2, "both are there")
        await eventually(lambda: len(server.server.peers) == 1, "one is cut off")
        assert not receiving.done()
        good.connection.close()
        await receiving
        raw.close()


@on_loop
async def test_no_update_falls_between_the_first_answer_and_following():
    async with serving() as server:
        row = server.run_cell()
        followers = []
        for n in range(30):
            follower = Follower(await server.connect("view"))
            await follower.send(yproto.step1(b"\x00"))
            followers.append(follower)
            while not (server.server.peers and list(server.server.peers)[-1].session.state == "following"):
                server.print_text(row, f"{n} ")  # before and behind the answer, at every turn of the loop
                await asyncio.sleep(0)
        server.print_text(row, "end")
        for follower in followers:
            await follower.until(lambda follower=follower: same(follower.doc, server), "the same rows")


@on_loop
async def test_a_half_sent_request_is_closed_in_time():
    async with serving(auth_s=0.2) as server:
        half_body = b"POST /api/share HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{"
        for start in (b"", b"GET /api/health HTTP/1.1\r\nHost: loc", half_body):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(start)
            assert b"200 OK" not in await asyncio.wait_for(reader.read(), 30)
            writer.close()
            await writer.wait_closed()


@on_loop
async def test_headers_and_bodies_before_authentication_are_bounded():
    async with serving(auth_bytes=2048) as server:
        for request in (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 4096 + b"\r\n\r\n",
            b"POST /api/share HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n" + b"x" * 4096,
            b"PUT /api/notebook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4096\r\n\r\n" + b"x" * 4096,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 30)
            assert not answer.startswith(b"HTTP/1.1 2")
            writer.close()
            await writer.wait_closed()


async def slow_peer(server: Socket) -> socket.socket:
    """A peer with small buffers that syncs and then does not read."""
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await loop.sock_connect(raw, ("127.0.0.1", server.port))
    lines = [
        f"GET {ROOM} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        f"Authorization: Bearer {server.tokens['view']}", "", "",
    ]  # fmt: skip
    await loop.sock_sendall(raw, "\r\n".join(lines).encode())
    step1 = yproto.step1(b"\x00")
    await loop.sock_sendall(raw, bytes((0x82, 0x80 | len(step1))) + bytes(4) + step1)
    return raw


async def read_close_code(raw: socket.socket) -> int:
    """Read frames until the close frame; its code."""
    loop, data = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in data:
        data += await loop.sock_recv(raw, 65536)
    data = data.partition(b"\r\n\r\n")[2]
    while True:
        while len(data) >= 10 or (len(data) >= 4 and data[1] < 126):
            size, at = data[1], 2
            if size == 126:
                size, at = struct.unpack_from("!H", data, 2)[0], 4
            elif size == 127:
                size, at = struct.unpack_from("!Q", data, 2)[0], 10
            if len(data) < at + size:
                break
            if data[0] == 0x88:
                return struct.unpack_from("!H", data, at)[0]
            data = data[at + size :]
        more = await asyncio.wait_for(loop.sock_recv(raw, 1 << 20), 60)
        assert more, "the connection was cut without a close frame"
        data += more


@pytest.mark.parametrize("limit", [{"outbox_messages": 20}, {"outbox_bytes": 64 * 1024}])
@on_loop
async def test_a_peer_that_does_not_read_is_closed_as_slow_while_another_follows(limit):
    async with serving(**limit) as server:
        row = server.run_cell()
        raw = await slow_peer(server)
        good = await server.follow()
        await eventually(lambda: len(server.server.peers) == 2, "both are there")
        slow = next(iter(server.server.peers))
        await eventually(lambda: slow.session.state.value == "following", "the slow peer follows")
        sent = 0
        while slow in server.server.peers:
            server.print_text(row, os.urandom(8192).hex())
            sent += 1
            assert sent < 5000
            assert slow.waiting_messages <= limit.get("outbox_messages", 1000) + 1
            assert slow.waiting_bytes <= limit.get("outbox_bytes", 8 << 20) + 32 * 1024
            await good.until(lambda: same(good.doc, server), "the other peer has every update")
        assert await read_close_code(raw) == 4508
        raw.close()


@on_loop
async def test_the_first_sync_may_be_larger_than_the_outbox():
    async with serving(outbox_bytes=64 * 1024) as server:
        for _ in range(16):  # more than a socket takes at once
            server.print_text(server.run_cell(), "x" * 1_000_000)
        follower = await server.follow()
        server.run_cell()
        await follower.until(lambda: same(follower.doc, server), "it follows on")


@on_loop
async def test_revoking_closes_the_connections_of_that_token_at_once():
    async with serving() as server:
        view, run = await server.follow("view"), await server.follow("run")
        answer = await server.fetch("/api/share/view", "own", "DELETE")
        assert json.loads(answer.body) == {"revoked": "view"}
        assert await view.closed() == 4431
        server.run_cell()
        await run.until(lambda: same(run.doc, server), "the other one follows on")
        assert (await server.fetch("/api/history", "view")).code == 401
        assert (await server.fetch("/api/share/view", "own", "DELETE")).code == 404


@on_loop
async def test_an_expired_token_closes_its_connection():
    async with serving() as server:
        for expires_s in (0.3, 3, 20):  # until it is there before its token ends
            shared = json.loads((await server.fetch("/api/share", "own", "POST", {"expires_s": expires_s})).body)
            with suppress(AssertionError):
                follower = await server.follow(shared["token"])
                break
        assert await follower.closed() == 4401
        assert (await server.connect(shared["token"])) is not None


@on_loop
async def test_a_new_epoch_closes_everybody():
    async with serving() as server:
        follower = await server.follow()
        server.backend.document = server.backend.new_document()
        server.server.begin_epoch()
        assert await follower.closed() == 4409
        again = await server.follow()
        server.run_cell()
        await again.until(lambda: same(again.doc, server), "the new life is followed")
        late = await server.connect()
        await late.write_message(yproto.step1(follower.doc.get_state()), binary=True)
        assert await late.read_message() is None
        assert late.close_code == 4409


@on_loop
async def test_stopping_tells_the_peers_to_come_back():
    async with serving() as server:
        follower = await server.follow()
        closed = asyncio.create_task(follower.closed(), name="closed")
        await server.server.stop()
        assert await closed == 1012


# --- HTTP


@on_loop
async def test_health_says_little_to_strangers_and_more_to_peers():
    async with serving() as server:
        assert set(json.loads((await server.fetch("/api/health", None)).body)) == {"status", "version"}
        health = json.loads((await server.fetch("/api/health", "view")).body)
        assert health["kernel"]["state"] == "idle"
        assert (health["room"], health["epoch"]) == (f"{KERNEL}/state", server.backend.document.epoch)
        assert (health["role"], health["coverage"], health["schema"], health["peers"]) == ("view", "full", 1, 0)


@on_loop
async def test_history_is_paged_and_single_records_are_found():
    backend = SmallBackend()
    backend.rows = [Execution(id=f"e{n}", seq=n, code="é", state=ExecutionState.OK) for n in range(1, 6)]
    async with serving(backend) as server:
        page = json.loads((await server.fetch("/api/history?limit=2", "view")).body)
        assert [row["seq"] for row in page["executions"]] == [5, 4]
        page = json.loads((await server.fetch(f"/api/history?limit=9&before={page['next']}")).body)
        assert ([row["seq"] for row in page["executions"]], page["next"]) == ([3, 2, 1], None)
        assert json.loads((await server.fetch("/api/executions/e3", "view")).body) == to_json(backend.rows[2])
        assert (await server.fetch("/api/executions/e9", "view")).code == 404
        backend.grown["e3"] = {1: [Step(2, 9.5)], 0: [Step(3, 7.0), Step(8, 8.5)]}
        marks = json.loads((await server.fetch("/api/executions/e3/marks", "view")).body)
        assert marks == {"execution": "e3", "marks": [[0, 3, 7.0], [0, 8, 8.5], [1, 2, 9.5]]}
        assert (await server.fetch("/api/executions/e9/marks", "view")).code == 404
        assert (await server.fetch("/api/executions/e3/marks", None)).code == 401


@pytest.mark.parametrize(
    ("query", "token", "code", "word"),
    [
        ("grep=(", "own", 400, "regular expression"),
        ("grep=a", "view", 403, "regular expression"),
        ("limit=0", "own", 400, "limit"),
        ("limit=x", "own", 400, "limit"),
        ("state=done", "own", 400, "state"),
        ("nonsense=1", "own", 400, "nonsense"),
        ("", None, 401, "token"),
    ],
)
@on_loop
async def test_a_history_query_that_cannot_be_names_what_is_wrong(query, token, code, word):
    async with serving() as server:
        answer = await server.fetch(f"/api/history?{query}", token)
        assert answer.code == code
        assert word in json.loads(answer.body)["error"]


@on_loop
async def test_numbers_that_are_no_json_are_null():
    backend = SmallBackend()
    backend.rows = [Execution(id="e", seq=1, metadata={"x": float("nan"), "t": "\ud800"})]
    async with serving(backend) as server:
        metadata = json.loads((await server.fetch("/api/executions/e")).body)["metadata"]
        assert metadata == {"x": None, "t": "?"}


@on_loop
async def test_blobs_are_immutable_private_and_sandboxed():
    backend = SmallBackend()
    backend.blobs["sha256:" + "a" * 64] = (b"<script>", "text/html")
    backend.blobs["sha256:" + "b" * 64] = (b"x", "text/html\r\nX: y")
    async with serving(backend) as server:
        answer = await server.fetch("/blobs/" + "a" * 64, "view")
        assert answer.body == b"<script>"
        assert "immutable" in answer.headers["Cache-Control"]
        assert "private" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        odd = await server.fetch("/blobs/" + "b" * 64, "view")
        assert odd.headers["Content-Type"] == "application/octet-stream"
        assert (await server.fetch("/blobs/" + "a" * 64, None)).code == 401
        assert (await server.fetch("/blobs/" + "c" * 64)).code == 404
        assert (await server.fetch("/blobs/..%2f..%2fetc")).code == 404


@pytest.mark.parametrize(
    ("media_type", "served", "saved"),
    [
        ("image/png", "image/png", False),
        ("application/vnd.plotly.v1+json", "application/vnd.plotly.v1+json", False),
        ("image/svg+xml", "image/svg+xml", True),
        ("text/html", "text/html", True),
        ("application/javascript", "text/plain", False),
        ("text/css", "text/plain", False),
    ],
)
@on_loop
async def test_no_blob_can_be_run_or_shown_as_a_page_of_ours(media_type, served, saved):
    backend = SmallBackend()
    backend.blobs["sha256:" + "a" * 64] = (b"x", media_type)
    async with serving(backend) as server:
        answer = await server.fetch("/blobs/" + "a" * 64, "view")
        assert answer.headers["Content-Type"] == served
        assert ("Content-Disposition" in answer.headers) == saved


DATA = bytes(range(256)) * 4096
BLOB = "/blobs/" + "a" * 64


def backend_with_a_blob(data=DATA):
    backend = SmallBackend()
    backend.blobs["sha256:" + "a" * 64] = (data, "image/png")
    return backend


@pytest.mark.parametrize(
    ("asked", "code", "first", "last"),
    [
        (None, 200, 0, len(DATA) - 1),
        ("bytes=0-99", 206, 0, 99),
        ("bytes=300000-", 206, 300_000, len(DATA) - 1),
        ("bytes=-5", 206, len(DATA) - 5, len(DATA) - 1),
        (f"bytes=0-{len(DATA) * 2}", 206, 0, len(DATA) - 1),
        ("bytes=0-0,5-9", 200, 0, len(DATA) - 1),
        ("lines=0-9", 200, 0, len(DATA) - 1),
    ],
)
@on_loop
async def test_a_range_of_a_blob_is_those_bytes(asked, code, first, last):
    async with serving(backend_with_a_blob()) as server:
        headers = {"Range": asked} if asked else {}
        for method in ("GET", "HEAD"):
            answer = await server.fetch(BLOB, "view", method, **headers)
            assert (answer.code, answer.headers["Accept-Ranges"]) == (code, "bytes")
            assert answer.headers["Content-Length"] == str(last + 1 - first)
            assert answer.headers.get("Content-Range") == (f"bytes {first}-{last}/{len(DATA)}" if code == 206 else None)
            assert answer.body == (DATA[first : last + 1] if method == "GET" else b"")


@on_loop
async def test_a_range_behind_the_end_of_a_blob_is_416():
    async with serving(backend_with_a_blob()) as server:
        answer = await server.fetch(BLOB, "view", Range=f"bytes={len(DATA)}-")
        assert (answer.code, answer.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")
        assert set(json.loads(answer.body)) == {"error", "remedy"}


@on_loop
async def test_a_blob_that_the_asker_has_is_not_sent_again():
    async with serving(backend_with_a_blob()) as server:
        etag = (await server.fetch(BLOB, "view")).headers["Etag"]
        assert etag == f'"{"a" * 64}"'
        again = await server.fetch(BLOB, "view", **{"If-None-Match": etag})
        assert (again.code, again.body) == (304, b"")
        assert (await server.fetch(BLOB, "view", Range="bytes=0-9", **{"If-Range": etag})).code == 206
        assert (await server.fetch(BLOB, "view", Range="bytes=0-9", **{"If-Range": '"other"'})).code == 200
        assert (await server.fetch(BLOB, None, **{"If-None-Match": etag})).code == 401


@on_loop
async def test_a_large_blob_is_read_as_fast_as_it_is_taken_and_who_stalls_is_cut_off(caplog):
    backend = backend_with_a_blob(bytes(64 << 20))
    asked = []
    read, backend.blob_piece = backend.blob_piece, lambda *args: asked.append(args) or read(*args)
    async with serving(backend, ping_s=0.5) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=4096)
        lines = [f"GET {BLOB} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.tokens['view']}", "", ""]
        writer.write("\r\n".join(lines).encode())
        assert b"200 OK" in await reader.readline()
        await eventually(lambda: asked, "a first piece")
        took = 0
        with suppress(OSError):
            await eventually(lambda: not server.server._http._connections, "nobody is waited for any more")
            while data := await reader.read(1 << 20):
                took += len(data)
        assert took < 64 << 20
        assert len(asked) < 64
        assert all(count <= 1 << 20 for _, _, count in asked)
        writer.close()
    assert "Traceback" not in caplog.text


@on_loop
async def test_only_an_owner_shares_lists_clears_and_puts():
    async with serving() as server:
        for method, path in (
            ("GET", "/api/peers"), ("GET", "/api/share"), ("POST", "/api/share"), ("DELETE", "/api/share/view"),
            ("PUT", "/api/notebook"), ("POST", "/api/clear"),
        ):  # fmt: skip
            body = None if method in ("GET", "DELETE") else {}
            assert (await server.fetch(path, "run", method, body)).code == 403
            assert (await server.fetch(path, None, method, body)).code == 401
        assert server.backend.cleared == 0


@on_loop
async def test_an_owner_shares_and_the_link_works():
    async with serving() as server:
        body = {"role": "run", "name": "ada", "expires_s": 60}
        shared = json.loads((await server.fetch("/api/share", "own", "POST", body)).body)
        assert set(shared) == {"name", "role", "token", "url", "proxied_url", "expires_at"}
        assert shared["url"] == f"http://127.0.0.1:{server.port}/?token={shared['token']}"
        assert shared["proxied_url"] is None
        await server.follow(shared["token"])
        (peer,) = json.loads((await server.fetch("/api/peers")).body)["peers"]
        assert (peer["name"], peer["role"], peer["state"]) == ("ada", "run", "following")
        tokens = json.loads((await server.fetch("/api/share")).body)["tokens"]
        assert [token["name"] for token in tokens] == ["view", "run", "own", "ada"]
        assert "hash" not in tokens[0]
        assert (await server.fetch("/api/share", "own", "POST", body)).code == 400
        for bad in ({"role": "god"}, {"name": 1}, {"expires_s": "soon"}, {"expires_s": -1}, [], {"expires_s": True}):
            answer = await server.fetch("/api/share", "own", "POST", bad)
            assert answer.code == 400, bad
            assert set(json.loads(answer.body)) == {"error", "remedy"}


@on_loop
async def test_an_owner_puts_a_notebook_and_clears():
    async with serving() as server:
        cells = [{"id": "a", "cell_type": "code", "source": "x" * 100_000}]
        answer = await server.fetch("/api/notebook", "own", "PUT", {"path": "n.ipynb", "cells": cells})
        assert json.loads(answer.body) == {"cells": 1}
        notebook, (cell,) = server.backend.cells
        assert (notebook, cell.id, cell.index, len(cell.source)) == ("n.ipynb", "a", 0, 100_000)
        for bad in ({}, {"path": "n", "cells": [1]}, {"path": "n", "cells": [{"id": "a"}]}):
            assert (await server.fetch("/api/notebook", "own", "PUT", bad)).code == 400
        await server.fetch("/api/clear", "own", "POST", {})
        assert server.backend.cleared == 1


@on_loop
async def test_a_token_in_the_first_url_becomes_a_cookie():
    async with serving() as server:
        answer = await server.fetch(f"/?token={server.tokens['view']}", None)
        assert (answer.code, answer.headers["Location"]) == (302, "./")
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith(f"{server.server.cookie}=")
        assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
        own = await server.fetch("/api/history", None, Cookie=cookie.partition(";")[0])
        assert own.code == 200
        wrong = await server.fetch("/?token=wrong", None)
        assert wrong.code == 302
        assert "Set-Cookie" not in wrong.headers


@on_loop
async def test_every_answer_has_the_safe_headers_and_the_page_its_policy():
    async with serving() as server:
        for path in ("/", "/assets/licences.txt", "/api/health", "/api/nothing", "/etc/passwd"):
            answer = await server.fetch(path, None)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "Server" not in answer.headers
        page = await server.fetch("/", None)
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        assert answer.code == 404
        assert set(json.loads(answer.body)) == {"error", "remedy"}


@on_loop
async def test_the_pages_files_have_their_types_and_policies_and_nothing_else_is_a_file():
    async with serving() as server:
        page = await server.fetch("/", None)
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "unsafe" not in page.headers["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]
        assets = re.findall(r'(?:src|href)="(?:\./)?(assets/[^"]+)"', page.body.decode())
        assert assets, "the page has scripts and styles"
        for path in assets:
            answer = await server.fetch(f"/{path}", None, Accept_Encoding="gzip")
            assert answer.code == 200
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert (await server.fetch(f"/{path}", None, Origin="null")).code == 200, "a sandboxed frame asks"
        assert (await server.fetch("/", None, Origin="null")).code == 403
        head = await server.fetch("/", None, "HEAD")
        assert (head.code, head.body) == (200, b"")
        assert head.headers["Content-Type"] == page.headers["Content-Type"]
        for name in ("frame.html", "widgets.html"):
            policy = (await server.fetch(f"/{name}", None)).headers["Content-Security-Policy"]
            assert policy.startswith("sandbox allow-scripts;")
            assert "connect-src 'none'" in policy
            assert "allow-same-origin" not in policy
        for path in (
            "/nothing.html",
            "/assets/nothing.js",
            "/assets/..",
            "/assets/../__init__.py",
            "/assets/%2e%2e/x.js",
        ):
            assert (await server.fetch(path, None)).code == 404, path


@on_loop
async def test_the_history_is_given_as_a_notebook_and_brief():
    async with serving() as server:
        server.backend.rows = [
            Execution(
                id="e1",
                seq=1,
                code="print(1)",
                state=ExecutionState.OK,
                outputs=(Output(output_type="stream", at=1.0, name="stdout", text="1\n"),),
            )
        ]
        answer = await server.fetch("/api/notebook", "view")
        notebook = nbformat.reads(answer.body.decode(), as_version=4)
        nbformat.validate(notebook)
        assert (notebook.cells[0].source, notebook.cells[0].outputs[0].text) == ("print(1)", "1\n")
        assert answer.headers["Content-Disposition"].endswith('.ipynb"')
        assert (await server.fetch("/api/notebook", None)).code == 401
        for word in ("1", "true"):
            assert (await server.fetch(f"/api/history?brief={word}", "view")).code == 200
        assert (await server.fetch("/api/history?brief=perhaps", "view")).code == 400


@on_loop
async def test_who_may_run_may_ask_how_code_goes_on():
    async with serving() as server:
        body = {"code": "pri", "cursor_pos": 3}
        answer = await server.fetch("/api/complete", "run", "POST", body)
        assert json.loads(answer.body)["matches"] == ["print"]
        assert (await server.fetch("/api/complete", "view", "POST", body)).code == 403
        for wrong in (
            {},
            {"code": "x"},
            {"code": "x", "cursor_pos": 2},
            {"code": 1, "cursor_pos": 0},
            {"code": "x", "cursor_pos": True},
        ):
            answer = await server.fetch("/api/complete", "run", "POST", wrong)
            assert answer.code == 400, wrong


@on_loop
async def test_no_token_is_in_any_log(caplog):
    caplog.set_level(logging.DEBUG)
    async with serving() as server:
        secret = server.tokens["own"]
        for path in ("/", "/api/health", "/api/nothing", "/api/history", ROOM):
            await server.fetch(f"{path}?token={secret}", None)
            await server.fetch(f"{path}?token={secret}&limit=x", None, Host="evil.example")
        server.backend.history = None  # an error of ours: the traceback is logged, the query not
        assert (await server.fetch(f"/api/history?token={secret}", None)).code == 500
        connection = await server.connect(None, f"{ROOM}?token={secret}")
        await connection.write_message(b"\x09", binary=True)
        while await connection.read_message() is not None:
            pass
        assert connection.close_code == 4400
    assert "failed" in caplog.text
    assert "closed: malformed" in caplog.text
    assert secret not in caplog.text


@on_loop
async def test_a_taken_port_is_replaced_and_the_caller_is_told():
    async with serving() as server:
        other = Server(SmallBackend(), RTCKernel(port=server.port), kernel=KERNEL)
        bound = other.listen()
        assert bound.moved
        assert bound.port not in (0, server.port)
        await other.stop()
        same_port = Server(SmallBackend(), RTCKernel(), kernel=KERNEL)
        assert not same_port.listen(bound.port).moved
        assert same_port.port == bound.port
        await same_port.stop()


@on_loop
async def test_an_address_that_is_not_ours_is_the_users_to_mend():
    with pytest.raises(SetupError):
        Server(SmallBackend(), RTCKernel(ip="192.0.2.1"), kernel=KERNEL).listen()


@pytest.mark.parametrize("ip", ["0.0.0.0", "::", ""])
@on_loop
async def test_nothing_is_bound_beyond_loopback_while_there_is_no_token(ip):
    backend = SmallBackend()
    server = Server(backend, RTCKernel(ip=ip), kernel=KERNEL)
    with pytest.raises(SetupError, match="no token"):
        server.listen()
    backend.tokens.mint("owner", Role.OWN, now=0.0)
    if ip == "0.0.0.0":
        assert server.listen().port
        assert server.is_exposed
    await server.stop()


@on_loop
async def test_peers_come_and_go_without_leaking():
    async with serving() as server:
        counts = []
        for _ in range(3):
            for _ in range(15):
                follower = await server.follow()
                server.push(PutMeta({"n": time.time()}))
                follower.connection.close()
            await eventually(lambda: not server.server.peers, "all are gone")
            await eventually(lambda: len(os.listdir("/proc/self/fd")) < 60, "sockets are closed")
            counts.append(len(os.listdir("/proc/self/fd")))
        assert counts[-1] <= counts[0] + 2


@on_loop
async def test_a_view_peer_that_opens_requests_is_refused_by_name():
    async with serving() as server:
        connection = await server.connect("view", f"/rooms/{KERNEL}/requests")
        assert yproto.read_message(await connection.read_message()) == yproto.Denied(CLOSE_CODES[Reason.FORBIDDEN][1])
        assert await connection.read_message() is None
        assert connection.close_code == 4405
        assert not server.server.peers


@on_loop
async def test_rows_of_a_run_peer_come_with_the_name_of_its_token():
    async with serving() as server:
        writer = await server.follow("run", "requests")
        writer.doc.get("requests", type=Map)["r1"] = Map({"action": "execute", "code": "1", "by": "somebody"})
        await writer.send(yproto.update(writer.doc.get_update()))
        await eventually(lambda: server.backend.written, "the row")
        assert server.backend.written == [("run", "r1", {"action": "execute", "code": "1", "by": "somebody"})]


@on_loop
async def test_updates_go_to_the_peers_of_their_room_and_to_no_other():
    async with serving() as server:
        state, requests = await server.follow("view"), await server.follow("run", "requests")
        server.backend.requests.put([Request(id="r1", action="restart", by="ada")])
        server.server.push(server.backend.requests.take_update(), "requests")
        await requests.until(lambda: "r1" in requests.doc.get("requests", type=Map), "the request")
        server.run_cell()
        await state.until(lambda: "e1" in state.doc.get("executions", type=Map), "the execution")
        assert "r1" not in state.doc.get("requests", type=Map)
        assert "e1" not in requests.doc.get("executions", type=Map)


@on_loop
async def test_a_stock_provider_can_write_requests():
    async with serving() as server:
        doc = Doc()
        rows = doc.get("requests", type=Map)
        rows["offline"] = Map({"action": "execute", "code": "1"})
        connection = await server.connect("run", f"/rooms/{KERNEL}/requests")
        async with Provider(doc, Channel(connection)):
            await eventually(lambda: len(server.backend.written) == 1, "the row from before the connection")
            rows["online"] = Map({"action": "execute", "code": "2"})
            await eventually(lambda: len(server.backend.written) == 2, "the row written now")
            server.backend.requests.put([Request(id="online", action="execute", by="run", columns={"code": "2"})])
            server.server.push(server.backend.requests.take_update(), "requests")
            await eventually(lambda: rows["online"].to_py().get("state") == "requested", "the acknowledgement")
        assert [row for _, row, _ in server.backend.written] == ["offline", "online"]


@on_loop
async def test_malformed_updates_close_the_writer_and_the_others_go_on():
    async with serving() as server:
        writer, other = await server.follow("run", "requests"), await server.follow("own", "requests")
        await writer.send(yproto.update(b"\x01\x01\x01"))
        assert await writer.closed() == 4400
        other.doc.get("requests", type=Map)["r1"] = Map({"action": "restart"})
        await other.send(yproto.update(other.doc.get_update()))
        await eventually(lambda: server.backend.written, "the row of the other")


@on_loop
async def test_ten_megabytes_of_code_arrive_so_that_they_can_be_refused_by_name():
    async with serving() as server:
        writer = await server.follow("run", "requests")
        writer.doc.get("requests", type=Map)["r1"] = Map({"action": "execute", "code": "x" * 10_000_000})
        await writer.send(yproto.update(writer.doc.get_update()))
        await eventually(lambda: server.backend.written, "the row")


@on_loop
async def test_another_epoch_of_the_requests_is_refused_at_once():
    async with serving() as server:
        path = f"/rooms/{KERNEL}/requests?epoch="
        assert (
            await (await server.connect("run", path + server.backend.requests.epoch)).write_message(b"\x03", True)
            is None
        )
        connection = await server.connect("run", path + server.backend.document.epoch)
        await connection.read_message()
        assert connection.close_code == 4409


@on_loop
async def test_a_withdrawn_link_closes_both_rooms():
    async with serving() as server:
        state, requests = await server.follow("run"), await server.follow("run", "requests")
        server.server.revoke("run")
        assert [await state.closed(), await requests.closed()] == [4431, 4431]


@on_loop
async def test_with_a_certificate_the_socket_speaks_tls(tmp_path):
    authority = trustme.CA()
    made = tmp_path / "cert.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(made)
    async with serving(certfile=str(made)) as server:
        assert server.server.url == f"https://127.0.0.1:{server.port}"
        assert not server.server.is_exposed
        owner = Address(server.server.url, server.tokens["own"], str(made))
        assert (await call(owner, "GET", "/api/health"))["role"] == "own"
        with pytest.raises(SetupError, match="certificate"):
            await call(Address(server.server.url, server.tokens["own"]), "GET", "/api/health")
        with pytest.raises(SetupError, match="nobody answers"):
            await call(Address(f"http://127.0.0.1:{server.port}", server.tokens["own"]), "GET", "/api/health")


@pytest.mark.parametrize("content", [b"", b"no certificate"])
def test_a_certificate_that_cannot_be_used_is_told_by_name(tmp_path, content):
    made = tmp_path / "cert.pem"
    made.write_bytes(content)
    server = Server(SmallBackend(), RTCKernel(certfile=str(made)), kernel=KERNEL)
    with pytest.raises(SetupError, match=r"cert\.pem cannot be used"):
        server.listen()
