"""Names at a relay: what is made is read back, and what cannot be used is told in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel import rooms
from rtc_kernel.errors import SetupError

ENTRY = rooms.Entry(kernel="k", state="r/k/state/e", requests=None, client=5, host="h", started_at=1.5)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("ws://h:1/", "ws://h:1"),
        ("wss://relay.example/collab/", "wss://relay.example/collab"),
        ("ws://[::1]:8900", "ws://[::1]:8900"),
    ],
)
def test_a_place_is_an_address_and_a_room(url, found):
    place = rooms.place(url, "team")
    assert (place.url, place.link) == (found, f"{found}/team")
    assert rooms.parse_link(place.link).place == place


@pytest.mark.parametrize(
    "url",
    ["http://h", "ws://", "ws://h:0", "ws://h:99999", "ws://[", "ws://u:secret@h", "ws://h?token=secret", "x", ""],
)
def test_what_is_no_address_is_told_without_its_secrets(url):
    with pytest.raises(SetupError) as caught:
        rooms.place(url, "team")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("room", ["", "a/b", "-a", "ä", "a b", "x" * 129])
def test_what_is_no_room_is_told(room):
    with pytest.raises(SetupError, match="room"):
        rooms.place("ws://h", room)


def test_a_link_may_name_a_kernel_and_bring_a_token():
    target = rooms.parse_link("wss://h/collab/team?kernel=k-1&token=t")
    assert target == rooms.Target(rooms.Place("wss://h/collab", "team"), "k-1", "t")
    with pytest.raises(SetupError, match="names no room"):
        rooms.parse_link("ws://h/")


def test_who_can_be_read_on_the_way_is_known():
    assert rooms.place("ws://relay.example", "r").is_open
    assert not rooms.place("ws://localhost:1", "r").is_open
    assert not rooms.place("wss://relay.example", "r").is_open


@given(st.text(min_size=1))
def test_a_documents_name_has_four_parts_whatever_the_kernel_is_called(kernel):
    kernel = kernel.encode("utf-8", "replace").decode()
    assert rooms.document_name("room", kernel, "state", "e.1").count("/") == 3


def test_an_entry_is_read_back_and_bears_what_is_not_known():
    value = {**ENTRY.to_json(), "later": 1, "client": 5.0}
    assert rooms.Entry.read("k", value) == ENTRY


@pytest.mark.parametrize("value", [None, 1, {}, {"state": 1, "client": 1}, {"state": "s", "client": "x"}])
def test_what_is_no_entry_is_none(value):
    assert rooms.Entry.read("k", value) is None
