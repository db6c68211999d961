"""Publishing at a relay: real Hocuspocus, real Redis, and small relays that behave badly."""

import asyncio
import functools
import json
import logging
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import nbformat
import pytest
from kernels import ask, start
from pycrdt import Doc, Map
from relays import BOB, LACKS, LACKS_REDIS, OTHER, PUBLISH, RUN, VIEW, behave, hocuspocus_relay, redis, small_relay
from serving import KERNEL, SmallBackend, eventually
from tornado.websocket import websocket_connect

import rtc_kernel
from rtc_kernel import dialing, hocuspocus, relayed, rooms, yproto
from rtc_kernel.agent.serve import outward, publish
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.agent.serve.publish import Publishers
from rtc_kernel.client import Replica
from rtc_kernel.config import RTCKernel
from rtc_kernel.errors import RefusedError, SetupError
from rtc_kernel.tables import AddOutput, ExecutionState, Kernel, Output, PutExecution, Request, WriteText

real = pytest.mark.skipif(bool(LACKS), reason=LACKS or "all is there")
with_redis = pytest.mark.skipif(bool(LACKS_REDIS), reason=LACKS_REDIS or "all is there")


def on_loop(test):
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 100))

    return run


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    with hocuspocus_relay(tmp_path_factory.mktemp("relay")) as found:
        yield found


class House(SmallBackend):
    """The agent's part, in memory."""

    def __init__(self):
        super().__init__()
        self.changed_count = 0
        self.asked = []
        self.waiting = lambda: self.asked
        self.revoked_names = []
        self.kernel = Kernel(id=KERNEL, name="python3", display_name="Python 3", language="python")
        self._seq = 0
        self._segments = {}

    def relays_changed(self):
        self.changed_count += 1

    def revoked(self, name):
        self.revoked_names.append(name)


class Published:
    """A document that is published, and changes."""

    def __init__(self, **settings):
        self.house = House()
        self.publishers = Publishers(self.house, RTCKernel(**settings), kernel=KERNEL)
        self._seq = 0
        self._segments = {}

    @property
    def standing(self):
        (standing,) = self.publishers.standings
        return standing

    def put(self, *changes):
        update = self.house.document.apply(list(changes))
        if update is not None:
            self.publishers.push(update)

    def run_cell(self):
        self._seq += 1
        row = f"e{self._seq}"
        self.put(
            PutExecution(row, {"seq": self._seq, "state": ExecutionState.RUNNING, "code": "f()"}),
            AddOutput(row, 0, Output(output_type="stream", at=1.0, name="stdout", text="")),
        )
        return row

    def print_text(self, row, text):
        segment = self._segments[row] = self._segments.get(row, -1) + 1
        self.put(WriteText(row, 0, segment, None, text))

    def begin_epoch(self):
        self.house.document.begin_epoch()
        self.publishers.begin_epoch()

    def requests_name(self, room):
        return rooms.document_name(room, KERNEL, "requests", self.house.requests.epoch)

    async def live(self):
        await eventually(lambda: self.standing.state == "live", "the relay has all", 30)


@asynccontextmanager
async def publishing(url, room="team", token=PUBLISH, role=Role.VIEW, **settings):
    published = Published(relay_token=token, **settings)
    published.publishers.add(url, room=room, role=role, taken=())
    try:
        yield published
    finally:
        await published.publishers.stop()


def text_of(doc, row):
    execution = doc.executions.get(row)
    return "".join(output.text or "" for output in execution.outputs) if execution else None


# --- one relay, as it should be


@real
@on_loop
async def test_a_follower_at_the_relay_has_what_was_there_and_gets_what_comes(relay):
    async with publishing(relay.url) as published:
        row = published.run_cell()
        published.print_text(row, "é 1\n")
        async with rtc_kernel.connect(f"{relay.url}/team", VIEW) as doc:
            assert (doc.kernel.id, doc.kernel.display_name, doc.role) == (KERNEL, "Python 3", "view")
            assert text_of(doc, row) == "é 1\n"
            published.print_text(row, "2\n")
            await doc.wait_for(lambda doc: text_of(doc, row) == "é 1\n2\n", 60)
            await eventually(lambda: published.standing.behind_messages == 0, "all is acknowledged")
            standing = published.standing
            assert (standing.state, standing.trouble, standing.tampered_count, standing.ignored_count) == (
                ("live", "", 0, 0)
            )
            assert published.publishers.problems == []


@real
@on_loop
async def test_a_follower_follows_a_new_epoch_and_the_end(relay):
    async with publishing(relay.url, "epochs") as published:
        row = published.run_cell()
        async with rtc_kernel.connect(f"{relay.url}/epochs", VIEW) as doc:
            first, changes = doc.epoch, doc.changes()
            published.begin_epoch()
            published.print_text(row, "later\n")
            await doc.wait_for(lambda doc: doc.epoch != first and text_of(doc, row) == "later\n", 60)
            assert (await anext(changes)).kind == "reset"
            name = published.standing.name
            assert await published.publishers.remove(name)
            await doc.wait_for(lambda doc: not doc.connected, 60)
            assert "no kernel is published" in doc.trouble
            assert text_of(doc, row) == "later\n"  # who has a copy keeps it
            published.publishers.add(relay.url, room="epochs", taken=())
            await doc.wait_for(lambda doc: doc.connected, 60)


@real
@on_loop
async def test_several_kernels_are_in_one_room(relay):
    async with publishing(relay.url, "class") as one, publishing(relay.url, "class") as published:
        await published.publishers.stop()
        other = Publishers(published.house, RTCKernel(relay_token=PUBLISH), kernel="k-2")
        other.add(relay.url, room="class", taken=())
        try:
            await one.live()
            await eventually(lambda: other.standings[0].state == "live", "the other one is there", 20)
            async with rtc_kernel.connect(f"{relay.url}/class?kernel=k-1", VIEW) as doc:
                assert doc.kernel.id == KERNEL
            with pytest.raises(SetupError, match=r"2 kernels in the room: .*k-2"):
                async with rtc_kernel.connect(f"{relay.url}/class", VIEW):
                    pass
        finally:
            await other.stop()


async def news_until(room, kind, kernel):
    """What happened in a room, up to this; told in a word each."""
    seen = []
    while not seen or seen[-1] != (kind, kernel):
        news = await asyncio.wait_for(room.news(), 60)
        seen.append((news.change.kind if news.change else news.kind, news.member.entry.kernel))
    return seen


@real
@on_loop
async def test_all_kernels_of_a_room_are_followed_wherever_their_documents_go(relay):
    async with publishing(relay.url, "both") as one:
        row = one.run_cell()
        await one.live()
        other = Publishers(one.house, RTCKernel(relay_token=PUBLISH), kernel="k-2")
        async with relayed.follow_room(f"{relay.url}/both", VIEW) as room:
            await news_until(room, "came", "k-1")
            other.add(relay.url, room="both", taken=())
            await news_until(room, "came", "k-2")
            member = room.members["k-1"]
            name = member.entry.state
            await write_to(relay.url, name, PUBLISH)  # one of them is spoiled there, and goes on under another name
            one.print_text(row, "clean\n")
            await member.wait_for(lambda doc: text_of(doc, row) == "clean\n" and doc.connected, 60)
            assert member.entry.state == f"{name}.1"
            one.begin_epoch()
            await news_until(room, "reset", "k-1")
            assert set(room.members) == {"k-1", "k-2"}
            await other.stop()
            await news_until(room, "left", "k-2")
            assert set(room.members) == {"k-1"}


@on_loop
async def test_a_room_of_hundreds_is_followed_over_one_connection_and_no_more_than_some_are_asked_for_at_a_time():
    index = publish.Index()
    for number in range(250):
        name = rooms.document_name("crowd", f"k-{number}", "state", "e")
        index.put(f"k-{number}", rooms.Entry(kernel="", state=name, requests=None, client=5).to_json())
    waiting, most = [], 0

    def take_time(line, name, message):
        nonlocal most
        match message:
            case hocuspocus.Asked():
                waiting.append(name)
                most = max(most, len(waiting))
                asyncio.get_running_loop().call_later(0.01, answer, line, name)
            case yproto.Step1():
                line.say(name, yproto.step1(b"\x00"))
                line.say(name, yproto.step2(index.diff({}) if name == "crowd/index" else yproto.EMPTY_UPDATE))
            case _:
                pass

    def answer(line, name):
        waiting.remove(name)
        line.grant(name, "readonly")

    async with small_relay(take_time) as relay:
        async with relayed.follow_room(f"{relay.url}/crowd", VIEW, timeout_s=40) as room:
            assert len(room.members) == 250
            assert all(member.connected for member in room.members.values())
        assert len(relay.lines) == 1
        assert 1 < most <= relayed.ASKING < 100  # Hocuspocus closes on who waits for a hundred
        async with rtc_kernel.connect(f"{relay.url}/crowd?kernel=k-1", VIEW) as doc:
            assert doc.kernel.id == "k-1"  # and none of k-10, k-11, …


@real
@on_loop
async def test_who_may_only_view_cannot_write_and_nobody_notices(relay):
    async with publishing(relay.url, "readers") as published:
        row = published.run_cell()
        await published.live()
        name = rooms.document_name("readers", KERNEL, "state", published.house.document.epoch)
        await write_to(relay.url, name, VIEW)
        published.print_text(row, "on\n")
        async with rtc_kernel.connect(f"{relay.url}/readers", VIEW) as doc:
            await doc.wait_for(lambda doc: text_of(doc, row) == "on\n", 60)
        assert published.standing.tampered_count == 0


@real
@on_loop
async def test_what_others_write_into_the_state_is_never_taken_and_the_followers_get_a_clean_copy(relay):
    async with publishing(relay.url, "tampered") as published:
        row = published.run_cell()
        await published.live()
        async with rtc_kernel.connect(f"{relay.url}/tampered", VIEW) as doc:
            name = rooms.document_name("tampered", KERNEL, "state", published.house.document.epoch)
            clocks = published.house.document.clocks()
            await write_to(relay.url, name, PUBLISH)
            await eventually(lambda: published.standing.tampered_count == 1, "it was noticed", 20)
            assert published.house.document.clocks() == clocks
            assert "authentication hook must refuse" in published.publishers.problems[0]
            published.print_text(row, "clean\n")
            await doc.wait_for(lambda doc: text_of(doc, row) == "clean\n" and doc.connected, 30)
            assert doc.epoch == f"{name}.1"
            assert "stranger" not in doc.executions


async def write_to(url, name, token):
    """Write into a document that is not ours; returns when the relay has said what it makes of it."""
    replica = Replica(KERNEL, "x")
    with replica._doc.transaction():
        replica._roots["executions"]["stranger"] = {"seq": 0.0, "state": "ok"}
    socket = await websocket_connect(url)
    await socket.write_message(hocuspocus.token(name, token), binary=True)
    await socket.write_message(hocuspocus.frame(name, yproto.update(replica._doc.get_update())), binary=True)
    while not isinstance(hocuspocus.read_frame(await socket.read_message())[1], hocuspocus.Status):
        pass
    dialing.hang_up(socket)


@real
@on_loop
async def test_a_relay_that_dies_and_comes_back_has_everything_again(tmp_path):
    with hocuspocus_relay(tmp_path) as relay:
        async with publishing(relay.url) as published:
            row = published.run_cell()
            await published.live()
            async with rtc_kernel.connect(f"{relay.url}/team", VIEW) as doc:
                relay.kill()
                published.print_text(row, "while it was away\n")
                await eventually(lambda: published.standing.state != "live", "it is missed", 20)
                assert published.standing.since is None
                await asyncio.to_thread(relay.start)
                await doc.wait_for(lambda doc: text_of(doc, row) == "while it was away\n", 60)
                await published.live()


@real
@on_loop
async def test_a_token_that_is_refused_is_a_problem_that_is_told_and_the_token_is_not(relay, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(publish, "PATIENCE_S", 0.0)
    for token in ("wrong-0123456789abcdef", VIEW, OTHER):
        async with publishing(relay.url, "mine", token=token) as published:
            await eventually(lambda p=published: "does not let us publish" in p.standing.trouble, "it was refused", 20)
            await eventually(lambda p=published: p.publishers.problems, "it is a problem", 20)
            (problem,) = published.publishers.problems
            assert "does not get what happens here" in problem
            assert token not in problem + repr(published.publishers) + str(published.standing.to_json()) + caplog.text


@real
@on_loop
async def test_a_follower_without_a_token_for_the_room_is_told(relay):
    with pytest.raises(SetupError, match="the relay refuses"):
        async with rtc_kernel.connect(f"{relay.url}/team", "wrong-0123456789abcdef"):
            pass
    assert "no kernel is published in this room" in await refusal(f"{relay.url}/nobody")


async def refusal(link):
    """Why there is nothing to follow there; a relay that has not answered within 2 s is asked again."""
    for timeout_s in (2, 30):
        with pytest.raises(SetupError) as told:
            async with rtc_kernel.connect(link, VIEW, timeout_s=timeout_s):
                pass
        if "no answer" not in str(told.value):
            break
    return str(told.value)


# --- relays that behave badly


def refuse(line, name, message):
    line.say(name, b"\x02\x01" + yproto.write_string("no"))


def babble(line, name, message):
    line.say_bytes(b"\xff\xff\xff garbage")


def speak_text(line, name, message):
    line._handler.write_message("hello")


def hang_up(line, name, message):
    line.close(4401, "go away")


def flood(line, name, message):
    behave(line, name, message)
    if isinstance(message, yproto.Step1):
        for _ in range(600):
            line.say(name, yproto.awareness(()))


def write_state(line, name, message):
    behave(line, name, message)
    if isinstance(message, yproto.Step1) and "/state/" in name:
        line.say(name, yproto.update(yproto_stranger()))


def yproto_stranger():
    doc = Replica(KERNEL, "x")
    with doc._doc.transaction():
        doc._roots["executions"]["stranger"] = {"seq": 0.0}
    return doc._doc.get_update()


@pytest.mark.parametrize(
    ("behaviour", "trouble"),
    [
        (refuse, "does not let us publish"),
        (babble, "cannot be read"),
        (speak_text, "cannot be read"),
        (hang_up, "closed the connection (4401, go away)"),
        (flood, "floods"),
        (write_state, "somebody else wrote"),
    ],
)
@on_loop
async def test_a_relay_that_behaves_badly_is_left_and_tried_again_and_the_document_is_as_it_was(
    behaviour, trouble, monkeypatch
):
    monkeypatch.setattr(outward, "MESSAGES_BURST", 500)
    monkeypatch.setattr(outward, "MESSAGES_PER_S", 100.0)
    async with small_relay(behaviour) as relay, publishing(relay.url) as published:
        seen = set()

        def tried_again():
            seen.add(published.standing.trouble)
            return any(trouble in one for one in seen) and (len(relay.lines) > 1 or behaviour is refuse)

        published.run_cell()
        await eventually(tried_again, f"the trouble is known ({seen})", 30)
        clients = {*published.house.document.clocks()}
        assert clients == {published.house.document.doc.client_id}
        relay.behaviour = behave
        if behaviour is not refuse:  # which is given time to change its mind
            await published.live()
            assert published.standing.trouble == ""


@on_loop
async def test_a_relay_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("rtc_kernel.agent.serve.outward.ANSWER_S", 0.2)
    async with small_relay(lambda *_: None) as relay, publishing(relay.url) as published:
        await eventually(lambda: len(relay.lines) > 1, "it was tried again", 20)
        assert published.standing.trouble == "it does not answer"


@on_loop
async def test_who_is_no_relay_is_told():
    async def no_http(reader, writer):
        await reader.readline()
        writer.write(b"SSH-2.0-nothing\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(no_http, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, publishing(f"ws://127.0.0.1:{port}") as published:
        await eventually(lambda: published.standing.trouble, "it is told", 20)
    async with small_relay() as relay, publishing(f"{relay.url}/elsewhere") as published:
        await eventually(lambda: "404" in published.standing.trouble, "it is told", 20)
    async with publishing("ws://127.0.0.1:1") as published:
        await eventually(lambda: "no connection" in published.standing.trouble, "it is told", 20)


@on_loop
async def test_a_relay_that_acknowledges_nothing_costs_bounded_memory_and_no_time():
    def take_all(line, name, message):
        if not isinstance(message, yproto.Update):
            behave(line, name, message)

    async with small_relay(take_all) as relay, publishing(relay.url, outbox_bytes=64 << 10) as published:

        def got():
            return [message for _, message in relay.heard if isinstance(message, yproto.Update)]

        await published.live()
        await eventually(lambda: got() and published.standing.behind_messages == 1, "only the index's entry waits")
        row = published.run_cell()
        for _ in range(2000):
            published.print_text(row, "x" * 200)
        standing = published.standing
        assert standing.state == "behind"
        assert standing.behind_bytes <= (64 << 10) + 4096  # of which the index's entry has its own count
        await eventually(lambda: published.standing.behind_s > 0.01, "it is behind")
        waiting = standing.behind_messages
        await eventually(lambda: len(got()) == waiting, "it got those")
        assert waiting < 2000
        relay.behaviour = behave
        state = next(name for name, _ in relay.heard if "/state/" in name)
        for _ in range(waiting):  # it wakes up
            relay.lines[0].say(state, b"\x08\x01")
        relay.lines[0].say("team/index", b"\x08\x01")  # its entry has waited since the beginning
        await published.live()
        last = [message for name, message in relay.heard if name == state][-1]
        replica = Replica(KERNEL, "x")
        await eventually(
            lambda: isinstance([m for n, m in relay.heard if n == state][-1], yproto.Step2), "one sync stands for all"
        )
        last = [message for name, message in relay.heard if name == state][-1]
        replica.receive_bytes(yproto.step2(last.update))
        assert len(replica.executions.get(row).outputs[0].text) == 2000 * 200


@on_loop
async def test_health_names_a_relay_that_does_not_get_it_and_says_nothing_of_what_heals_soon(monkeypatch):
    monkeypatch.setattr(publish, "PATIENCE_S", 0.3)
    async with small_relay() as relay, publishing(relay.url) as published:
        await published.live()
        assert published.publishers.problems == []
        relay.behaviour = hang_up
        relay.lines[-1].close()
        await eventually(lambda: published.publishers.problems, "it is a problem", 20)
        assert published.house.changed_count > 0
        relay.behaviour = behave
        await published.live()
        assert published.publishers.problems == []


@on_loop
async def test_a_relay_in_the_clear_is_a_problem_that_is_named(monkeypatch):
    published = Published(relay_token="t")
    published.publishers.add("ws://192.0.2.1:1", taken=())
    assert "without TLS" in published.publishers.problems[0]
    with pytest.raises(SetupError, match="already"):
        published.publishers.add("ws://192.0.2.1:1/", taken=())
    await published.publishers.stop()


@on_loop
async def test_two_rooms_at_one_relay_have_two_names():
    async with small_relay() as relay, publishing(relay.url, "one") as published:
        second = published.publishers.add(relay.url, room="two", taken=())
        assert second.name.endswith("/two")
        with pytest.raises(SetupError, match="taken"):
            published.publishers.add(relay.url, room="three", name=second.name, taken=())
        await eventually(lambda: [one.state for one in published.publishers.standings] == ["live"] * 2, "both are live")


@on_loop
async def test_a_follower_that_has_nothing_to_say_shows_the_relay_that_it_is_there(monkeypatch):
    monkeypatch.setattr("rtc_kernel.relayed.KEEP_S", 0.05)
    async with small_relay() as relay:
        document = relayed.RelayedDocument(f"{relay.url}/team", VIEW)
        following = asyncio.create_task(document.follow())
        await eventually(lambda: sum(isinstance(one, yproto.Step1) for _, one in relay.heard) > 3, "it asks on")
        await eventually(lambda: document.trouble == "no kernel is published in this room", "it is told")
        following.cancel()


@on_loop
async def test_a_follower_shows_nothing_of_a_document_in_which_anybody_but_the_agent_wrote():
    entry = rooms.Entry(kernel=KERNEL, state="team/k-1/state/e", requests=None, client=5)
    index = publish.Index()
    index.put(KERNEL, entry.to_json())
    shown = Doc(client_id=5)
    shown.get("executions", type=Map)["e1"] = Map({"seq": 1.0, "state": "ok", "code": "honest"})
    forged = Doc(client_id=6)
    forged.apply_update(shown.get_update())
    forged.get("executions", type=Map)["e2"] = Map({"seq": 2.0, "state": "ok", "code": "forged"})

    def lie(line, name, message):
        match message:
            case hocuspocus.Asked():
                line.grant(name, "readonly")
            case yproto.Step1():
                line.say(name, yproto.step1(b"\x00"))
                line.say(name, yproto.step2(copies[name].get_update() if name == entry.state else index.diff({})))
            case _:
                pass

    copies = {entry.state: forged}
    async with small_relay(lie) as relay:
        assert "somebody else wrote" in await refusal(f"{relay.url}/team")
        copies[entry.state] = shown
        async with rtc_kernel.connect(f"{relay.url}/team", VIEW) as doc:
            assert [row.code for row in doc.executions.values()] == ["honest"]
            seen = []
            changes = doc.changes()
            relay.lines[-1].say(entry.state, yproto.update(forged.get_update()))
            await doc.wait_for(lambda doc: not doc.connected, 60)
            assert "somebody else wrote" in doc.trouble
            await doc.wait_for(lambda doc: doc.connected, 60)
            assert [row.code for row in doc.executions.values()] == ["honest"]
            seen = [await anext(changes)]
            assert seen[0].kind == "reset"


@on_loop
async def test_what_was_asked_for_at_a_relay_is_taken_back_when_it_is_published_there_no_more():
    async with small_relay() as relay, publishing(relay.url, role=Role.RUN) as published:
        here, house = f"relay:{published.standing.name}", published.house
        house.asked = [Request(id=by, by=by, action="execute") for by in (here, f"{here}/ada", f"{here}2/ada", "ada")]
        assert await published.publishers.remove(published.standing.name)
        assert not await published.publishers.remove("nothing")
        assert sorted(house.revoked_names) == [here, f"{here}/ada"]
        published.publishers.add(relay.url, taken=())


# --- a kernel


@real
def test_a_kernel_is_published_by_a_line_says_how_it_stands_and_ends_it(relay, until, monkeypatch):
    monkeypatch.setenv("RTC_KERNEL_RELAY_TOKEN", PUBLISH)
    with start("rtc-python") as kernel:
        shown = kernel.execute(f"%rtc share --relay {relay.url} --room line").contents("display_data")[0]["data"]
        link = f"{relay.url}/line"
        assert f"jupyter rtc watch {link}" in shown["text/plain"]
        assert PUBLISH not in str(shown)

        async def follow():
            async with rtc_kernel.connect(link, VIEW, timeout_s=30) as doc:
                await asyncio.to_thread(kernel.execute, "print('seen far away')")
                await doc.wait_for(
                    lambda doc: any(text_of(doc, row) == "seen far away\n" for row in doc.executions), 30
                )
                with pytest.raises(SetupError, match="only the live document"):
                    await doc.history()
                kernel.agent().kill()
                await asyncio.to_thread(kernel.execute, "print('by the next agent')")
                await doc.wait_for(
                    lambda doc: any(text_of(doc, row) == "by the next agent\n" for row in doc.executions), 60
                )

        asyncio.run(follow())
        (standing,) = until(lambda: ask(kernel.kernel_id, "/api/health")["relays"], "health has it")
        assert (standing["room"], standing["state"], standing["tampered_count"]) == ("line", "live", 0)
        status = kernel.execute("%rtc status").contents("display_data")[0]["data"]["text/plain"]
        assert "live, connected for" in status
        assert link in status
        assert link in kernel.execute("%rtc who").contents("display_data")[0]["data"]["text/plain"]
        error = kernel.execute(f"%rtc share --relay {relay.url} --room line").reply["content"]["evalue"]
        assert "already" in error
        assert "Published no more" in kernel.execute("%rtc unshare").text
        assert ask(kernel.kernel_id, "/api/health")["relays"] == []
        assert PUBLISH not in str(ask(kernel.kernel_id, "/api/history"))


def test_a_dead_relay_is_not_noticed_by_the_kernel(monkeypatch):
    monkeypatch.setenv("RTC_KERNEL_RELAYS", "ws://127.0.0.1:1,nonsense")
    with start("rtc-python") as kernel:
        assert kernel.execute("%rtc status\n1 + 1").reply["content"]["status"] == "ok"
        health = ask(kernel.kernel_id, "/api/health")
        assert [one["state"] in ("connecting", "waiting") for one in health["relays"]] == [True]
        assert "no address of a relay" in health["reason"]


# --- two instances


@with_redis
@on_loop
async def test_instances_that_are_killed_in_mid_run_lose_nothing(tmp_path):
    """The publisher at one instance, followers at both; first the one dies and comes back, then the other."""
    with redis(tmp_path) as port, hocuspocus_relay(tmp_path, port) as here, hocuspocus_relay(tmp_path, port) as there:
        async with publishing(here.url, "pair") as published:
            row = published.run_cell()
            async with (
                rtc_kernel.connect(f"{there.url}/pair", VIEW, timeout_s=30) as far,
                rtc_kernel.connect(f"{here.url}/pair", VIEW, timeout_s=30) as near,
            ):
                said = ""

                async def say(count, pause_s=0.005):
                    nonlocal said
                    for _ in range(count):
                        line = f"{len(said)}\n"
                        said += line
                        published.print_text(row, line)
                        await asyncio.sleep(pause_s)

                async def all_have_it():
                    for doc in (far, near):
                        await doc.wait_for(lambda doc: text_of(doc, row) == said, 60)

                await say(50)
                await all_have_it()
                for victim in (here, there):
                    victim.kill()
                    await say(50)
                    await asyncio.to_thread(victim.start)
                    await say(50)
                    await all_have_it()
                await published.live()
                assert published.standing.tampered_count == 0


# --- asking through a relay


@real
def test_code_is_run_through_a_relay_in_the_name_that_the_relay_knows(relay, monkeypatch):
    monkeypatch.setenv("RTC_KERNEL_RELAY_TOKEN", PUBLISH)
    with start("rtc-python") as kernel:
        link = f"{relay.url}/asking"
        kernel.execute(f"%rtc share --relay {relay.url} --room asking --role run --name far")

        async def act():
            async with (
                rtc_kernel.connect(link, RUN, timeout_s=30) as ada,
                rtc_kernel.connect(link, BOB, timeout_s=30) as bob,
            ):
                assert (ada.role, bob.role) == ("run", "run")
                first = await (await ada.run("x = 20")).result()
                second = await (await bob.run("x + 22")).result()
                assert [first.submitted_by, second.submitted_by] == ["relay:far/ada", "relay:far/bob"]
                assert second.outputs[0].data["text/plain"] == "42"
                asked = await ada.run("input('name? ')")
                await ada.wait_for(lambda doc: any(row.input for row in doc.executions.values()), 30)
                await ada.answer(await asked.execution(), "s3cret")
                assert (await asked.result()).outputs[-1].data["text/plain"] == "'s3cret'"
                with pytest.raises(RefusedError, match="not running"):
                    await bob.interrupt("nobody")
                kernel.agent().kill()  # a new epoch of both documents
                third = await (await ada.run("x + 1")).result()
                assert third.outputs[0].data["text/plain"] == "21"
                async with rtc_kernel.connect(link, VIEW, timeout_s=30) as viewer:
                    with pytest.raises(SetupError, match="the relay refuses"):
                        await asyncio.wait_for(viewer.run("1"), 30)

        asyncio.run(act())
        command = [sys.executable, "-m", "rtc_kernel.cli", "exec", link, "print(x, 'from', 'the', 'terminal')"]
        monkeypatch.setenv("RTC_KERNEL_RELAY_TOKEN", RUN)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout == "20 from the terminal\n", done.stderr
        assert done.returncode == 0
        assert "far (run): live" in kernel.execute("%rtc status").contents("display_data")[0]["data"]["text/plain"]
        assert "Published no more: far" in kernel.execute("%rtc unshare far").text


@real
@on_loop
async def test_nothing_can_be_asked_for_at_a_relay_that_is_for_watching(relay):
    async with publishing(relay.url, "watching") as published:
        async with rtc_kernel.connect(f"{relay.url}/watching", RUN) as doc:
            assert doc.role == "view"
            with pytest.raises(SetupError, match="nothing can be asked for"):
                await asyncio.wait_for(doc.run("1"), 60)
        assert published.house.written == []


@with_redis
@on_loop
async def test_nobody_writes_in_the_name_of_another_at_whatever_instance(tmp_path):
    with redis(tmp_path) as port, hocuspocus_relay(tmp_path, port) as here, hocuspocus_relay(tmp_path, port) as there:
        async with publishing(here.url, "names", role=Role.RUN) as published:
            written = published.house.written
            await published.live()
            name = published.requests_name("names")
            ada, bob = Doc(client_id=5), Doc(client_id=5)
            said = await write_rows(there.url, name, RUN, ada, "r1", until=lambda: written)
            assert said == hocuspocus.Status(True)
            assert isinstance(await write_rows(here.url, name, BOB, bob, "r1", "r2"), hocuspocus.Closed)
            other = Doc(client_id=6)
            said = await write_rows(here.url, name, BOB, other, "r3", until=lambda: len(written) == 2)
            assert said == hocuspocus.Status(True)
            assert await write_rows(there.url, name, VIEW, Doc(), "r4") is None
            assert [(by, row) for by, row, _ in written] == [
                (f"relay:{published.standing.name}/ada", "r1"),
                (f"relay:{published.standing.name}/bob", "r3"),
            ]


async def write_rows(url, name, token, doc, *rows, until=lambda: True):
    """Write rows of requests; what the relay says to that, null: it does not let us in. Who leaves before ``until``
    perhaps leaves nothing behind: an instance forgets a document that nobody has open there."""
    before = doc.get_state()
    for row in rows:
        doc.get("requests", type=Map)[row] = Map({"action": "execute", "code": row})
    socket = await websocket_connect(url)
    await socket.write_message(hocuspocus.token(name, token), binary=True)
    await socket.write_message(hocuspocus.frame(name, yproto.update(doc.get_update(before))), binary=True)
    while True:
        message = hocuspocus.read_frame(await socket.read_message())[1]
        if isinstance(message, hocuspocus.Status | hocuspocus.Closed | hocuspocus.Refused):
            await eventually(until, "what was written is there", 30)
            dialing.hang_up(socket)
            return None if isinstance(message, hocuspocus.Refused) else message


def rows_of(client, *rows):
    doc = Doc(client_id=client)
    for row in rows:
        doc.get("requests", type=Map)[row] = Map({"action": "execute"})
    return doc.get_update()


@on_loop
async def test_a_relay_that_knows_nobody_gives_everybody_one_name_and_two_claims_give_none():
    async with small_relay() as relay, publishing(relay.url, role=Role.RUN) as published:
        written, line = published.house.written, relay.lines
        await published.live()
        name = published.requests_name("team")
        await eventually(lambda: any(heard == name for heard, _ in relay.heard), "requests are open")

        def tell(**writers):
            text = json.dumps({"rtc_kernel": {"writers": writers}})
            line[0].say(name, b"\x05" + yproto.write_string(text))

        line[0].say(name, yproto.update(rows_of(5, "a")))
        tell(**{"6": "ada", "7": "ada"})
        line[0].say(name, yproto.update(rows_of(6, "b")))
        tell(**{"7": "bob"})  # two claim it
        line[0].say(name, yproto.update(rows_of(7, "c")))
        line[0].say(name, b"\x05" + yproto.write_string("{"))
        line[0].say(name, yproto.update(rows_of(8, "d")))
        here = f"relay:{published.standing.name}"
        await eventually(lambda: len(written) == 3, "three rows are there")
        assert [(by, row) for by, row, _ in written] == [(here, "a"), (f"{here}/ada", "b"), (here, "d")]
        assert published.standing.ignored_count == 1


@on_loop
async def test_who_changes_what_is_not_its_own_is_not_listened_to_any_more():
    async with small_relay() as relay, publishing(relay.url, role=Role.RUN) as published:
        await published.live()
        name = published.requests_name("team")
        await eventually(lambda: any(heard == name for heard, _ in relay.heard), "requests are open")
        document = published.house.requests
        for at in range(30):
            bad = Doc(client_id=100 + at)
            bad.apply_update(document.diff({}))
            bad.get("meta", type=Map)["room"] = "mine"
            relay.lines[0].say(name, yproto.update(bad.get_update()))
        relay.lines[0].say(name, yproto.update(rows_of(9, "late")))
        relay.lines[0].say(name, b"\x63")
        await eventually(lambda: published.standing.ignored_count == 1, "all was read")
        assert published.house.written == []
        assert published.standing.state == "live"


# --- from the command line


@real
def test_a_headless_run_is_published_and_watched_at_the_relay(relay, tmp_path, monkeypatch, until):
    cells = [nbformat.v4.new_code_cell("print('far ' + 'away')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "run.ipynb")
    command = [sys.executable, "-m", "rtc_kernel.cli"]
    monkeypatch.setenv("RTC_KERNEL_RELAY_TOKEN", PUBLISH)
    run = [*command, "run", "run.ipynb", "--relay", relay.url, "--room", "headless", "--linger", "60s", "--json"]
    with subprocess.Popen(run, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as running:
        try:
            link = json.loads(running.stdout.readline())
            assert link["relays"] == [f"{relay.url}/headless"]
            monkeypatch.setenv("RTC_KERNEL_RELAY_TOKEN", VIEW)
            for _ in iter(lambda: json.loads(running.stdout.readline())["event"] != "linger", False):
                pass
            until(lambda: ask(link["kernel_id"], "/api/health")["relays"][0]["state"] == "live", "the relay has it", 60)
            watch = [*command, "watch", *link["relays"], "--once"]
            seen = subprocess.run(watch, capture_output=True, text=True, timeout=60, check=True).stdout
            assert "far away" in seen
            assert f"{relay.url}/headless" in seen
        finally:
            running.send_signal(signal.SIGINT)
            assert running.wait(30) == 0
