"""One connection to a relay, by transcript: what it says, and what follows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Map

from rtc_kernel import hocuspocus, yproto
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.serve.outward import (
    ANSWER_S,
    Bounds,
    Denied,
    Foreign,
    Hang,
    LaneState,
    Live,
    Outward,
    Send,
    Take,
    Tell,
)
from rtc_kernel.tables import ExecutionState, PutExecution

NAME = "room/k/state/e"


def granted(scope="read-write"):
    return hocuspocus.frame(NAME, b"\x02\x02" + yproto.write_string(scope))


def acknowledged(applied=True):
    return hocuspocus.frame(NAME, bytes((8, applied)))


def has(clocks):
    return hocuspocus.frame(NAME, yproto.step1(yproto.write_state_vector(clocks)))


class Open:
    """A document that others may write."""

    def clocks(self):
        return {}

    def diff(self, state_vector):
        return yproto.EMPTY_UPDATE


class Transcript:
    """A connection with one document, and what it did so far."""

    def __init__(self, document=None, **bounds):
        self.document = document or StateDocument("k")
        self.out = Outward(secret="s3cret", now=0.0, bounds=Bounds(**bounds))
        self.said = self.out.open(NAME, self.document, 0.0)
        self.seq = 0

    @property
    def state(self):
        return self.out.lanes[NAME].state

    def live(self):
        self.hear(granted())
        self.hear(has({}))
        self.hear(acknowledged())
        assert self.state is LaneState.LIVE
        return self

    def hear(self, data, now=0.0):
        return self.out.receive_bytes(data, now)

    def run_cell(self, now=0.0, code="f()"):
        """The document changes; what is sent of it."""
        self.seq += 1
        columns = {"seq": self.seq, "state": ExecutionState.RUNNING, "code": code}
        update = self.document.apply([PutExecution(f"e{self.seq}", columns)])
        return self.out.push_update(NAME, update, now)


def messages(commands):
    return [hocuspocus.read_frame(one.data)[1] for one in commands if isinstance(one, Send)]


def stranger(document=None):
    """An update of somebody else."""
    doc = Doc()
    with doc.transaction():
        doc.get("executions", type=Map)["x"] = 1.0
    return doc.get_update()


def test_we_ask_to_be_let_in_then_for_what_there_is_then_send_what_is_missing_and_every_update():
    one = Transcript()
    assert one.said == [Send(hocuspocus.token(NAME, "s3cret"))]
    assert one.run_cell() == []
    (asked,) = messages(one.hear(granted()))
    assert asked == yproto.Step1(one.document.clocks())
    sent, live = one.hear(has({}))
    (first,) = messages([sent])
    assert isinstance(first, yproto.Step2)
    assert live == Live(NAME)
    (update,) = messages(one.run_cell())
    replica = Doc()
    for each in (first, update):
        replica.apply_update(each.update)
    assert yproto.read_state_vector(replica.get_state()) == one.document.clocks()


def test_the_token_is_in_no_repr_and_is_said_again_when_asked_for():
    one = Transcript()
    assert "s3cret" not in repr(one.out)
    assert one.hear(hocuspocus.frame(NAME, b"\x02\x00")) == [Send(hocuspocus.token(NAME, "s3cret"))]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (hocuspocus.frame(NAME, b"\x02\x01" + yproto.write_string("no such token")), "no such token"),
        (granted("readonly"), "the token may only read"),
    ],
)
def test_who_may_not_publish_is_told_why(data, why):
    assert Transcript().hear(data) == [Denied(NAME, why)]


def test_an_update_that_is_not_taken_ends_it():
    one = Transcript().live()
    one.run_cell()
    assert one.hear(acknowledged(False)) == [Denied(NAME, "it takes no updates of ours")]


def test_nothing_that_comes_is_applied_and_an_echo_is_no_offence():
    one = Transcript().live()
    (sent,) = messages(one.run_cell())
    assert one.hear(hocuspocus.frame(NAME, yproto.update(sent.update))) == []
    merged = one.document.diff({})  # as a relay that gathers echoes
    assert one.hear(hocuspocus.frame(NAME, yproto.update(merged))) == []
    clocks = one.document.clocks()
    assert one.hear(hocuspocus.frame(NAME, yproto.update(stranger()))) == [Foreign(NAME)]
    assert one.document.clocks() == clocks


def test_a_copy_with_somebody_elses_writing_is_known_by_its_state_vector():
    one = Transcript()
    one.hear(granted())
    assert one.hear(has({4711: 3})) == [Foreign(NAME)]


def test_a_copy_that_is_ahead_of_its_only_writer_is_foreign():
    one = Transcript()
    one.hear(granted())
    (own,) = one.document.clocks() or {one.document.doc.client_id: 0}
    assert one.hear(has({own: 1000})) == [Foreign(NAME)]


def test_others_may_write_where_the_document_is_not_ours_alone():
    one = Transcript(Open())
    one.hear(granted())
    assert one.hear(hocuspocus.frame(NAME, yproto.update(stranger())))[0].name == NAME
    assert isinstance(one.hear(hocuspocus.frame(NAME, yproto.step2(stranger())))[0], Take)
    assert one.hear(hocuspocus.frame(NAME, b"\x05" + yproto.write_string("hi"))) == [Tell(NAME, "hi")]


def test_too_much_that_is_not_acknowledged_is_left_out_and_one_sync_stands_for_it():
    one = Transcript(outbox_messages=3).live()
    for _ in range(3):
        assert len(one.run_cell()) == 1
    for _ in range(100):
        assert one.run_cell() == []
    assert one.state is LaneState.BEHIND
    assert one.out.backlog.messages == 3
    assert one.hear(acknowledged()) == []
    one.hear(acknowledged())
    (asked,) = messages(one.hear(acknowledged()))
    assert isinstance(asked, yproto.Step1)
    (sync,) = messages(one.hear(has({})))
    replica = Doc()
    replica.apply_update(sync.update)
    assert len(replica.get("executions", type=Map)) == 103
    assert one.state is LaneState.LIVE


def test_an_update_that_is_larger_than_the_outbox_comes_with_a_sync():
    one = Transcript(outbox_bytes=1 << 16).live()
    (asked,) = messages(one.run_cell(code="x" * (1 << 17)))
    assert isinstance(asked, yproto.Step1)
    assert isinstance(messages(one.hear(has({})))[0], yproto.Step2)


def test_it_asks_now_and_then_what_the_relay_has_and_mends_it():
    one = Transcript(ping_s=20.0).live()
    one.run_cell()
    one.hear(acknowledged())
    assert one.out.receive_time(19.0) == []
    assert one.out.due == 20.0
    assert isinstance(messages(one.out.receive_time(20.0))[0], yproto.Step1)
    assert one.hear(has(one.document.clocks()), 20.0) == []
    one.out.receive_time(40.0)
    (healed,) = messages(one.hear(has({}), 40.0))  # it has lost what it had
    assert isinstance(healed, yproto.Step2)


def test_a_relay_that_does_not_answer_or_acknowledges_nothing_is_given_up():
    one = Transcript()
    assert one.out.receive_time(ANSWER_S - 0.1) == []
    assert one.out.receive_time(ANSWER_S) == [Hang("it does not answer")]
    one = Transcript(ping_s=20.0).live()
    one.run_cell(now=1.0)
    assert one.out.backlog.since == 1.0
    one.out.receive_time(20.0)
    assert one.out.receive_time(42.0) == [Hang("it acknowledges nothing")]


def test_a_large_sync_has_the_time_of_a_slow_line():
    one = Transcript(ping_s=20.0)
    one.run_cell(code="x" * (1 << 20))
    one.hear(granted())
    one.hear(has({}))
    assert one.out.receive_time(60.0) == []
    assert one.out.receive_time(80.0) == [Hang("it acknowledges nothing")]


def test_what_is_unknown_is_counted_and_passed_over_and_what_cannot_be_read_ends_it():
    one = Transcript().live()
    assert one.hear(hocuspocus.frame(NAME, b"\x63\x01")) == []
    assert one.hear(hocuspocus.frame("elsewhere", yproto.update(stranger()))) == []
    assert one.hear(acknowledged()) == []  # of nothing
    assert one.out.ignored_count == 3
    (hang,) = one.hear(b"\xff")
    assert isinstance(hang, Hang)


def test_a_document_that_the_relay_closes_ends_the_connection():
    (hang,) = Transcript().live().hear(hocuspocus.frame(NAME, b"\x07" + yproto.write_string("bye")))
    assert hang == Hang(f"it closed {NAME} (bye)")


def test_a_document_that_we_leave_is_not_missed():
    one = Transcript().live()
    (left,) = messages(one.out.close(NAME))
    assert left == hocuspocus.Closed("done")
    assert one.hear(hocuspocus.frame(NAME, b"\x07" + yproto.write_string("bye"))) == []
    assert one.out.ignored_count == 0
    assert one.out.push_update(NAME, b"\0\0", 0.0) == []


def test_a_flood_ends_the_connection():
    one = Transcript().live()
    data = hocuspocus.frame(NAME, yproto.awareness(()))
    commands = [command for _ in range(30_000) for command in one.hear(data)]
    assert Hang("it floods us") in commands


@settings(max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"\x00", b"\x01", b"\x02", b"\x04"])), max_size=8))
def test_any_bytes_give_commands(tails):
    one = Transcript()
    for tail in tails:
        for data in (tail, hocuspocus.frame(NAME, tail)):
            for command in one.hear(data):
                assert repr(command)
