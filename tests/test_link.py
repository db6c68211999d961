"""link: what relay and agent say to each other survives any cutting of the stream, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel import link
from rtc_kernel.errors import RemoteError
from rtc_kernel.link import Channel, Way

frames = st.lists(st.binary(max_size=40), max_size=9).map(tuple)
seqs = st.integers(0, 2**63)
times = st.floats(allow_nan=False)
infos = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))
records = st.one_of(
    st.builds(link.Tapped, seqs, times, st.sampled_from(Channel), st.sampled_from(Way), frames),
    st.builds(link.Gap, seqs, times, times, seqs, seqs),
    st.builds(link.Child, seqs, times, st.text(), st.integers(0, 2**31), st.none() | st.integers(-64, 255)),
    st.builds(link.Ask, seqs, infos),
    st.builds(link.Taken, frames),
    st.builds(link.Hello, infos),
    st.builds(link.Ready, st.text(), seqs),
    st.builds(link.Ack, seqs),
    st.builds(link.Emit, st.sampled_from(Channel), frames),
    st.builds(link.Answer, seqs, infos),
    st.builds(link.Act, infos),
)


@given(st.lists(records, max_size=12), st.integers(1, 50))
def test_records_survive_any_cutting_of_the_stream(sent: list[link.Record], piece: int) -> None:
    data = b"".join(map(link.encode, sent))
    decoder = link.Decoder()
    got = [record for at in range(0, len(data), piece) for record in decoder.feed(data[at : at + piece])]
    assert got == sent
    assert repr(decoder) == "<link.Decoder 0 bytes waiting>"


@given(st.binary(max_size=300))
def test_any_bytes_give_records_or_a_remote_error(data: bytes) -> None:
    decoder = link.Decoder()
    try:
        list(decoder.feed(data))
    except RemoteError:
        pass


@given(st.integers(0, 20), st.binary(max_size=80))
def test_any_body_gives_a_record_or_a_remote_error(kind: int, body: bytes) -> None:
    try:
        link.decode(kind, memoryview(body))
    except RemoteError:
        pass


def test_a_frame_that_runs_past_its_record_is_refused() -> None:
    record = bytearray(link.encode(link.Taken((b"abc",))))
    record[7] = 200  # the frame's length
    with pytest.raises(RemoteError, match="runs past"):
        list(link.Decoder().feed(bytes(record)))
