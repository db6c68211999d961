"""spool: everything until it is stored; what does not fit is named."""

from __future__ import annotations

from rtc_kernel import link
from rtc_kernel.link import Channel, Way
from rtc_kernel.relay.spool import Spool


def tap(spool: Spool, text: bytes, at: float = 1.0, msg_type: str = "stream") -> None:
    header = b'{"msg_type": "%s"}' % msg_type.encode()
    spool.tap(at, Channel.IOPUB, Way.TO_FRONT, [b"topic", b"<IDS|MSG>", b"", header, b"{}", b"{}", text])


def read(spool: Spool) -> list[link.Record]:
    return list(link.Decoder().feed(spool.read(1 << 30)))


def test_records_are_numbered_without_holes_from_one() -> None:
    spool = Spool(1 << 20)
    spool.turn(0.5, "started", 7)
    tap(spool, b"a")
    tap(spool, b"b")
    assert [record.seq for record in read(spool)] == [1, 2, 3]  # type: ignore[union-attr]
    assert not spool.pending


def test_a_new_agent_gets_again_what_was_not_acknowledged() -> None:
    spool = Spool(1 << 20)
    for text in (b"a", b"b", b"c"):
        tap(spool, text)
    read(spool)
    spool.acknowledge(2)
    tap(spool, b"d")
    spool.rewind()
    assert [record.frames[-1] for record in read(spool)] == [b"c", b"d"]  # type: ignore[union-attr]


def test_it_is_known_what_is_not_in_the_spool_any_more() -> None:
    spool = Spool(1 << 20)
    for text in (b"a", b"b", b"c"):
        tap(spool, text)
    assert spool.acknowledged_seq == 0
    spool.acknowledge(2)
    spool.acknowledge(1)
    assert spool.acknowledged_seq == 2
    spool.acknowledge(99)
    assert spool.acknowledged_seq == 3


def test_an_acknowledgement_may_run_ahead_of_reading() -> None:
    """A new agent's store may hold more than the old one had time to say."""
    spool = Spool(1 << 20)
    for text in (b"a", b"b", b"c"):
        tap(spool, text)
    read(spool)
    spool.rewind()
    spool.acknowledge(3)
    assert not spool.pending
    assert spool.size_bytes == 0


def test_beyond_the_limit_outputs_become_one_named_gap_and_states_stay() -> None:
    spool = Spool(1000)
    tap(spool, b"x" * 1000, at=1.0)
    for at in (2.0, 3.0, 4.0):
        tap(spool, b"lost", at=at)
    tap(spool, b"idle", at=5.0, msg_type="status")
    first, gap, status = read(spool)
    assert isinstance(gap, link.Gap)
    assert (gap.since, gap.until, gap.message_count) == (2.0, 4.0, 3)
    assert gap.size_bytes == 3 * len(b"topic<IDS|MSG>" + b'{"msg_type": "stream"}{}{}lost')
    assert [first.seq, gap.seq, status.seq] == [1, 2, 3]  # type: ignore[union-attr]
    assert status.frames[-1] == b"idle"  # type: ignore[union-attr]


def test_beyond_the_limit_the_agents_own_requests_stay() -> None:
    """By their copies alone a new agent knows that they were sent: it must not send them twice."""
    spool = Spool(1000)
    tap(spool, b"x" * 3000)
    for ident in (b"front", link.AGENT_IDENT):
        spool.tap(2.0, Channel.SHELL, Way.TO_CHILD, [ident, b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"y" * 5000])
    _, gap, request = read(spool)
    assert isinstance(gap, link.Gap)
    assert gap.message_count == 1
    assert isinstance(request, link.Tapped)
    assert request.frames[0] == link.AGENT_IDENT


def test_when_there_is_room_again_the_gap_is_named_and_the_next_output_kept() -> None:
    spool = Spool(1000)
    tap(spool, b"x" * 1000)
    tap(spool, b"lost")
    read(spool)
    spool.acknowledge(1)
    tap(spool, b"kept")
    gap, kept = read(spool)
    assert isinstance(gap, link.Gap)
    assert kept.frames[-1] == b"kept"  # type: ignore[union-attr]
    assert spool.size_bytes < 1000


def test_reading_in_pieces_gives_at_least_one_record_and_all_in_order() -> None:
    spool = Spool(1 << 20)
    for number in range(50):
        tap(spool, b"%d" % number)
    decoder, got = link.Decoder(), []
    while data := spool.read(1):
        got += list(decoder.feed(data))
    assert [record.frames[-1] for record in got] == [b"%d" % number for number in range(50)]
