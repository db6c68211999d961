"""One peer's protocol, by transcript: bytes and the time in, commands out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Map

from rtc_kernel import schema, yproto
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve import session as room
from rtc_kernel.agent.serve.access import Role
from rtc_kernel.agent.serve.session import Board, Close, Limits, PeerState, Relay, Send, Session
from rtc_kernel.errors import LocalError, Reason
from rtc_kernel.tables import PutExecution, PutMeta

STEP1 = yproto.step1(b"\x00")


@pytest.fixture
def document():
    document = StateDocument("k")
    document.load()
    document.apply([PutExecution("e1", {"seq": 1, "code": "é", "state": "running"})])
    return document


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def peer(document, board):
    return Session(document, board, name="ada", role=Role.VIEW, now=0.0)


def closing(commands):
    assert isinstance(commands[-1], Close)
    return commands[-1].reason


def entry(client, clock, state):
    return yproto.Entry(client, clock, json.dumps(state))


def test_step_1_is_answered_with_the_document_and_the_peer_follows_from_then_on(peer, document):
    assert peer.push_update(b"before") is None
    assert peer.state is PeerState.SILENT
    (answer,) = peer.receive_bytes(STEP1, 1.0)
    assert not answer.counted
    replica = Doc()
    replica.apply_update(yproto.read_message(answer.data).update)
    assert schema.read_executions(replica) == schema.read_executions(document.doc)
    assert peer.push_update(b"frame") == Send(b"frame")


def test_the_server_never_asks_for_the_replica_of_a_peer(peer):
    sent = peer.receive_bytes(STEP1, 1.0) + peer.receive_time(25.0)
    assert not any(isinstance(yproto.read_message(command.data), yproto.Step1) for command in sent)


def test_a_second_step_1_is_answered_and_counted(peer):
    peer.receive_bytes(STEP1, 1.0)
    assert [command.counted for command in peer.receive_bytes(STEP1, 2.0)] == [True]


def test_asking_again_and_again_is_a_quota(peer):
    for _ in range(room.SYNCS_BURST):
        assert peer.receive_bytes(STEP1, 1.0)
    assert closing(peer.receive_bytes(STEP1, 1.0)) is Reason.QUOTA


def test_too_many_messages_are_a_quota_and_time_refills_it(peer):
    for _ in range(room.MESSAGES_BURST):
        peer.receive_bytes(b"\x03", 1.0)
    peer.receive_bytes(b"\x03", 2.0)
    assert peer.state is PeerState.HEARD
    for _ in range(int(room.MESSAGES_PER_S)):
        commands = peer.receive_bytes(b"\x03", 2.0)
    assert closing(commands) is Reason.QUOTA


@pytest.mark.parametrize("role", list(Role))
def test_an_update_with_content_is_refused_whoever_sends_it_and_changes_nothing(document, board, role):
    peer = Session(document, board, name="eve", role=role, now=0.0)
    peer.receive_bytes(STEP1, 0.0)
    replica, before = Doc(), document.diff(b"\x00")
    replica.apply_update(before)
    replica.get("executions", type=Map)["mine"] = 1
    refusal, close = peer.receive_bytes(yproto.update(replica.get_update()), 1.0)
    assert isinstance(yproto.read_message(refusal.data), yproto.Denied)
    assert (close.reason, close.code) == (Reason.READ_ONLY, 4403)
    assert document.diff(b"\x00") == before
    assert peer.receive_bytes(STEP1, 2.0) == []
    assert peer.push_update(b"x") is None


def test_an_empty_step_2_or_update_is_tolerated(peer):
    assert peer.receive_bytes(yproto.step2(b"\x00\x00"), 1.0) == []
    assert peer.receive_bytes(yproto.update(b"\x00\x00"), 1.0) == []
    assert peer.state is PeerState.HEARD


def test_the_echo_of_our_own_updates_is_tolerated(peer, document):
    (answer,) = peer.receive_bytes(STEP1, 1.0)
    echoes, replica = [], Doc()
    subscription = replica.observe(lambda event: echoes.append(event.update))
    replica.apply_update(yproto.read_message(answer.data).update)
    for n in range(300):
        replica.apply_update(document.apply([PutMeta({"n": n})]))
    assert [peer.receive_bytes(yproto.update(echo), 1.0 + n) for n, echo in enumerate(echoes)] == [[]] * 301
    replica.unobserve(subscription)


def test_echoes_that_must_be_read_are_bounded(peer, document):
    peer.receive_bytes(STEP1, 1.0)
    everything = yproto.update(document.diff(b"\x00"))
    for _ in range(room.ECHOES_BURST):
        assert peer.receive_bytes(everything, 1.0) == []
    assert closing(peer.receive_bytes(everything, 1.0)) is Reason.READ_ONLY


def test_a_replica_of_another_epoch_is_closed(peer):
    assert closing(peer.receive_bytes(yproto.step1(b"\x01\x05\x07"), 1.0)) is Reason.WRONG_EPOCH


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x09", b"\x00\x00\x05", STEP1 + b"\x00", yproto.denied("you")])
def test_what_is_no_message_closes_the_peer(peer, data):
    assert closing(peer.receive_bytes(data, 1.0)) is Reason.MALFORMED


def test_an_oversized_message_closes_the_peer(document, board):
    peer = Session(document, board, name="a", role=Role.VIEW, now=0.0, limits=Limits(message_bytes=100))
    assert closing(peer.receive_bytes(bytes(101), 1.0)) is Reason.TOO_LARGE


def test_a_peer_that_asks_for_nothing_valid_in_time_is_closed(peer):
    assert peer.due == 5.0
    assert peer.receive_time(4.9) == []
    assert peer.receive_time(5.0) == [Close(Reason.HANDSHAKE_TIMEOUT)]


def test_a_sign_of_life_is_a_message_every_ping_s(peer):
    peer.receive_bytes(STEP1, 1.0)
    assert peer.due == 20.0
    assert peer.receive_time(20.0) == [Send(b"\x01\x01\x00")]
    assert peer.due == 40.0


def test_a_token_that_expires_closes_its_connection(document, board):
    peer = Session(document, board, name="a", role=Role.VIEW, now=0.0, expires=7.0)
    peer.receive_bytes(STEP1, 1.0)
    assert peer.due == 7.0
    assert closing(peer.receive_time(7.0)) is Reason.UNAUTHORIZED


def test_awareness_is_relayed_and_a_newcomer_is_told(document, board, peer):
    (relay,) = peer.receive_bytes(yproto.awareness([entry(7, 1, {"user": "ä"})]), 1.0)
    assert relay == Relay(yproto.awareness([entry(7, 1, {"user": "ä"})]))
    newcomer = Session(document, board, name="b", role=Role.VIEW, now=0.0)
    assert newcomer.receive_bytes(STEP1, 1.0)[1] == Send(relay.data)
    assert newcomer.receive_bytes(b"\x03", 1.0) == [Send(relay.data)]


def test_what_a_peer_announced_goes_with_it_and_late_repetitions_do_not_bring_it_back(document, board, peer):
    announced = yproto.awareness([entry(7, 4, {}), entry(8, 1, {})])
    peer.receive_bytes(announced, 1.0)
    other = Session(document, board, name="b", role=Role.VIEW, now=0.0)
    assert peer.leave() == [Relay(yproto.awareness([entry(7, 4, None), entry(8, 1, None)]))]
    assert peer.leave() == []
    assert other.receive_bytes(announced, 2.0) == []
    assert other.receive_bytes(yproto.awareness([entry(7, 5, {})]), 2.0)


def test_nobody_changes_or_removes_the_awareness_of_another(document, board, peer):
    peer.receive_bytes(yproto.awareness([entry(7, 1, {})]), 1.0)
    other = Session(document, board, name="b", role=Role.VIEW, now=0.0)
    for state in ({"user": "not me"}, None):
        assert other.receive_bytes(yproto.awareness([entry(7, 9, state)]), 1.0) == []
    assert board.entries == (entry(7, 1, {}),)
    assert peer.receive_bytes(yproto.awareness([entry(7, 2, None)]), 2.0)
    assert board.entries == ()


def test_awareness_is_bounded_in_clients_and_length(peer, board):
    many = [entry(client, 1, {}) for client in range(room.AWARENESS_CLIENTS + 5)]
    peer.receive_bytes(yproto.awareness(many), 1.0)
    assert len(board.entries) == room.AWARENESS_CLIENTS
    long = yproto.awareness([entry(1, 2, "x" * room.AWARENESS_STATE_CHARS)])
    commands = peer.receive_bytes(long, 1.0)
    assert closing(commands) is Reason.TOO_LARGE
    assert isinstance(commands[0], Relay)  # what it had announced is taken back
    assert board.entries == ()


def test_the_memory_of_those_who_went_is_bounded(document, board):
    for client in range(room.GONE_KEPT + 5):
        peer = Session(document, board, name="a", role=Role.VIEW, now=0.0)
        peer.receive_bytes(yproto.awareness([entry(client, 1, {})]), 1.0)
        peer.leave()
    assert len(board._gone) == room.GONE_KEPT


@pytest.mark.parametrize("state", ["{", "NaN", "[" * 100_000, ""])
def test_awareness_that_a_browser_could_not_parse_closes_its_sender(peer, state):
    reason = closing(peer.receive_bytes(yproto.awareness([yproto.Entry(1, 1, state)]), 1.0))
    assert reason in (Reason.MALFORMED, Reason.TOO_LARGE)


def test_a_revoked_peer_is_told_and_closed_once(peer):
    peer.receive_bytes(STEP1, 1.0)
    denied, close = peer.close(Reason.REVOKED)
    assert isinstance(yproto.read_message(denied.data), yproto.Denied)
    assert close.code == 4431
    assert len(close.sentence.encode()) <= 123
    assert peer.close(Reason.REVOKED) == []


def test_an_illegal_step_raises_and_changes_nothing(peer):
    with pytest.raises(LocalError):
        peer._step(PeerState.FOLLOWING)
    assert peer.state is PeerState.SILENT


@given(st.lists(st.binary(max_size=40) | st.sampled_from([STEP1, b"\x03", yproto.update(b"\x00\x00")]), max_size=8))
def test_any_bytes_give_commands_and_never_change_the_document(messages):
    document = StateDocument("k")
    document.load()
    before = document.diff(b"\x00")
    peer = Session(document, Board(), name="eve", role=Role.OWN, now=0.0)
    for message in messages:
        assert all(isinstance(command, Send | Relay | Close) for command in peer.receive_bytes(message, 1.0))
    assert document.diff(b"\x00") == before


@pytest.fixture
def requests():
    return RequestsDocument("k")


@pytest.fixture
def writer(requests, board):
    return Session(requests, board, name="ada", role=Role.RUN, now=0.0)


def test_a_writer_is_asked_for_what_it_has_when_it_is_answered(writer, requests):
    answer, question = writer.receive_bytes(STEP1, 1.0)
    assert isinstance(yproto.read_message(answer.data), yproto.Step2)
    assert yproto.read_message(question.data) == yproto.Step1(yproto.read_state_vector(requests.state_vector()))


def test_an_update_of_a_writer_is_handed_on(writer):
    writer.receive_bytes(STEP1, 1.0)
    peer = Doc()
    peer.get("requests", type=Map)["r1"] = Map({"action": "restart"})
    update = peer.get_update()
    assert writer.receive_bytes(yproto.update(update), 2.0) == [room.Write(update)]
    assert writer.receive_bytes(yproto.step2(yproto.EMPTY_UPDATE), 2.0) == []


def test_a_writer_may_send_larger_messages_than_a_follower_and_no_larger_ones(requests, board):
    limits = Limits(message_bytes=1000, written_bytes=5000)
    writer = Session(requests, board, name="ada", role=Role.RUN, now=0.0, limits=limits)
    assert isinstance(writer.receive_bytes(yproto.update(b"x" * 4000), 1.0)[0], room.Write)
    assert closing(writer.receive_bytes(yproto.update(b"x" * 6000), 1.0)) is Reason.TOO_LARGE


def test_a_writer_that_goes_on_changing_what_is_not_its_own_is_closed(writer):
    writer.receive_bytes(STEP1, 1.0)
    assert writer.receive_undone(room.UNDONE_BURST, 1.0) == []
    assert closing(writer.receive_undone(1, 1.0)) is Reason.READ_ONLY


def test_a_writer_that_changes_very_much_at_once_is_closed(writer):
    writer.receive_bytes(STEP1, 1.0)
    assert closing(writer.receive_undone(1_000_000, 1.0)) is Reason.READ_ONLY


def test_updates_of_a_writer_have_a_quota_too(writer):
    for _ in range(room.UPDATES_BURST):
        writer.receive_bytes(yproto.update(b"x"), 1.0)
    assert closing(writer.receive_bytes(yproto.update(b"x"), 1.0)) is Reason.QUOTA
