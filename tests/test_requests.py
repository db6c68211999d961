"""The requests' document: what peers write is read once, attributed, and cannot be changed by others."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from rtc_kernel import yproto
from rtc_kernel.agent import requests as room
from rtc_kernel.agent.requests import RequestsDocument, is_client_id, make_client_id
from rtc_kernel.errors import Reason, RemoteError
from rtc_kernel.tables import Request, RequestState

AGENT = {"by": "ada", "state": "requested", "ordinal": 7.0, "received_at": 1.5}


class Peer:
    """A stock Yjs client that writes rows."""

    def __init__(self, document: RequestsDocument, name: str = "ada", client_id: int | None = None) -> None:
        self.document = document
        self.name = name
        self.doc = Doc() if client_id is None else Doc(client_id=client_id)
        self.rows = self.doc.get("requests", type=Map)
        self.sync()

    def sync(self) -> None:
        self.doc.apply_update(self.document.diff(self.doc.get_state()))

    def send(self):
        """What the document does not have yet."""
        return self.document.receive(self.doc.get_update(self.document.state_vector()), self.name)

    def write(self, key: str, **columns):
        self.rows[key] = Map(columns)
        return self.send()


@pytest.fixture
def document():
    return RequestsDocument("k")


def taken(key: str, state: RequestState = RequestState.REQUESTED, **columns) -> Request:
    return Request(id=key, action="execute", by="ada", columns=columns, state=state, ordinal=7, received_at=1.5)


def test_a_row_is_read_as_plain_values(document):
    received = Peer(document).write("r1", action="execute", code="é = 1", after=None)
    assert [(row.id, row.value) for row in received.rows] == [
        ("r1", {"action": "execute", "code": "é = 1", "after": None})
    ]


def test_rows_of_one_update_come_in_the_order_in_which_they_were_written(document):
    peer = Peer(document)
    names = [f"{name}-{number}" for number, name in enumerate("zqxbmalkjh")]
    with peer.doc.transaction():
        for name in names:
            peer.rows[name] = Map({"action": "execute", "code": name})
    assert [row.id for row in peer.send().rows] == names


def test_a_row_may_be_a_plain_object(document):
    peer = Peer(document)
    peer.rows["r1"] = {"action": "execute", "code": "1"}
    assert peer.send().rows[0].value == {"action": "execute", "code": "1"}


@pytest.mark.parametrize("value", [Text("x"), Array([1]), Doc(), 5, None, "x", [1]])
def test_what_is_no_map_is_a_row_without_columns(document, value):
    peer = Peer(document)
    peer.rows["r1"] = value
    (row,) = peer.send().rows
    assert not isinstance(row.value, dict)
    assert document.diff(b"\x00")


def test_an_echo_and_a_row_that_comes_twice_are_nothing(document):
    peer = Peer(document)
    peer.write("r1", action="execute", code="1")
    document.put([taken("r1", code="1")])
    assert document.receive(peer.doc.get_update(), "ada") == room.Received((), 0)
    echo = document.take_update()
    assert document.receive(echo, "bob") == room.Received((), 0)


def test_the_echo_of_a_first_sync_is_nothing_though_the_others_have_not_been_sent_it(document):
    ada, bob = Peer(document, "ada"), Peer(document, "bob")
    ada.write("r1", action="input", execution="e", value="typed")
    document.put([taken("r1")])
    bob.sync()
    assert document.receive(bob.doc.get_update(), "bob") == room.Received((), 0)
    assert document.take_update()


def test_the_agents_columns_are_shown_to_every_peer(document):
    ada, bob = Peer(document, "ada"), Peer(document, "bob")
    ada.write("r1", action="execute", code="1")
    document.put([taken("r1", code="1")])
    update = document.take_update()
    for peer in (ada, bob):
        peer.doc.apply_update(update)
        assert peer.rows["r1"].to_py() == {"action": "execute", "code": "1", **AGENT}
    assert document.take_update() is None


@pytest.mark.parametrize("name", ["ada", "bob"])
def test_a_row_that_was_taken_cannot_be_changed_or_removed(document, name):
    writer = Peer(document)
    writer.write("r1", action="execute", code="1")
    document.put([taken("r1", code="1")])
    document.take_update()
    peer = Peer(document, name)
    for change in (
        lambda: peer.rows["r1"].update({"code": "evil()"}),
        lambda: peer.rows["r1"].update({"by": "eve", "new": 1}),
        lambda: peer.rows.pop("r1"),
        lambda: peer.rows.update({"r1": Map({"action": "restart"})}),
    ):
        change()
        assert peer.send() == room.Received((), 0 if name == "ada" else 1), "who repeats its own is not blamed"
        peer.sync()
        assert peer.rows["r1"].to_py() == {"action": "execute", "code": "1", **AGENT}


def test_a_row_that_ended_may_be_tidied_away(document):
    peer = Peer(document)
    peer.write("r1", action="execute", code="1")
    document.put([taken("r1", RequestState.DONE)])
    peer.sync()
    del peer.rows["r1"]
    assert peer.send().undone_count == 0
    assert "r1" not in document.shown


def test_an_id_that_is_used_once_more_is_a_new_row_to_be_judged(document):
    peer = Peer(document)
    peer.write("r1", action="execute", code="1")
    document.put([taken("r1", RequestState.DONE)])
    peer.sync()
    assert [row.value for row in peer.write("r1", action="execute", code="2").rows] == [
        {"action": "execute", "code": "2"}
    ]
    document.put([replace(taken("r1", RequestState.REFUSED), reason="request_id: used before")])
    peer.sync()
    assert peer.rows["r1"].to_py()["state"] == "refused"


def test_the_facts_about_the_document_cannot_be_changed(document):
    peer = Peer(document)
    meta = peer.doc.get("meta", type=Map)
    meta["epoch"] = "another"
    meta["more"] = 1
    assert peer.send().undone_count == 1
    peer.sync()
    assert meta.to_py() == {"schema": 1.0, "epoch": document.epoch, "room": "k/requests"}


def test_what_was_typed_reaches_no_other_peer(document):
    peer, other = Peer(document), Peer(document, "bob")
    secret = "correct horse battery"
    peer.rows["plain"] = {"action": "input", "execution": "e", "value": secret}
    received = peer.send()
    received_too = peer.write("map", action="input", execution="e", value=secret)
    misspelled = peer.write("other", action="inptu", value=secret)
    assert [r.rows[0].value["value"] for r in (received, received_too, misspelled)] == [secret] * 3
    assert secret.encode() not in document.diff(b"\x00")
    update = document.take_update()
    assert secret.encode() not in update
    other.doc.apply_update(update)
    assert other.rows["map"].to_py() == {"action": "input", "execution": "e"}
    peer.sync()
    assert "value" not in peer.rows["map"].to_py()


def test_a_value_that_is_added_later_is_taken_out_too(document):
    peer = Peer(document)
    peer.write("r1", action="input", execution="e")
    document.put([Request(id="r1", action="input", by="ada", columns={"execution": "e"}, state=RequestState.REFUSED)])
    peer.sync()
    peer.rows["r1"]["value"] = "typed late"
    assert peer.send() == room.Received((), 0)
    assert b"typed late" not in document.take_update()
    assert b"typed late" not in document.diff(b"\x00")


def test_a_peer_cannot_write_in_the_name_of_another(document):
    ada = Peer(document, "ada", client_id=77)
    ada.write("r1", action="execute", code="1")
    eve = Peer(document, "eve", client_id=77)
    with pytest.raises(RemoteError) as error:
        eve.write("r2", action="execute", code="evil()")
    assert error.value.reason is Reason.READ_ONLY
    assert not document.worn
    assert ada.write("r3", action="execute", code="3").rows[0].id == "r3"


def test_the_agents_own_client_id_is_nobodys(document):
    eve = Peer(document, client_id=document._doc.client_id)
    with pytest.raises(RemoteError) as error:
        eve.write("r2", action="execute", code="evil()")
    assert error.value.reason is Reason.READ_ONLY


def test_a_replica_of_an_earlier_epoch_is_refused_and_one_with_rows_of_its_own_is_not(document):
    peer = Peer(document)
    peer.write("r1", action="execute", code="1")
    document.put([taken("r1", code="1")])
    peer.sync()
    next_one = RequestsDocument("k")
    with pytest.raises(RemoteError) as error:
        next_one.diff(peer.doc.get_state())
    assert error.value.reason is Reason.WRONG_EPOCH
    with pytest.raises(RemoteError):
        next_one.receive(peer.doc.get_update(), "ada")
    offline = Doc()
    offline.get("requests", type=Map)["r2"] = Map({"action": "execute", "code": "2"})
    assert next_one.diff(offline.get_state())


def test_an_update_with_a_hole_before_it_is_passed_over_and_comes_again_with_what_got_lost(document):
    peer = Peer(document)
    peer.rows["r1"] = Map({"action": "execute", "code": "1"})
    state = peer.doc.get_state()
    peer.rows["r2"] = Map({"action": "execute", "code": "2"})
    assert document.receive(peer.doc.get_update(state), "ada").rows == ()
    assert not document.worn
    assert [row.id for row in peer.send().rows] == ["r1", "r2"]


def test_an_update_that_rests_on_what_nobody_has_wears_the_document_out(document):
    other = Doc()
    row = other.get("requests", type=Map)
    row["r1"] = Map({"action": "execute"})
    peer = Doc()
    peer.apply_update(other.get_update())
    state = peer.get_state()
    peer.get("requests", type=Map)["r1"]["code"] = "1"
    with pytest.raises(RemoteError):
        document.receive(peer.get_update(state), "ada")
    assert document.worn


def test_many_client_ids_are_a_quota(document):
    for number in range(room.CLIENTS_PER_PEER):
        Peer(document).write(f"r{number}", action="execute", code="1")
    with pytest.raises(RemoteError) as error:
        Peer(document).write("one more", action="execute", code="1")
    assert error.value.reason is Reason.QUOTA


def test_a_document_that_took_in_much_wants_a_new_epoch():
    document = RequestsDocument("k", document_bytes=100_000)
    peer = Peer(document)
    peer.write("r1", action="execute", code="x" * 200_000)
    assert document.worn


def test_long_code_of_a_refused_row_is_taken_out(document):
    peer = Peer(document)
    peer.write("r1", action="execute", code="x" * 200_000)
    document.put([Request(id="r1", action="execute", by="ada", state=RequestState.REFUSED, reason="code: too long")])
    assert len(document.diff(b"\x00")) < 1000
    peer.sync()
    assert peer.rows["r1"].to_py()["reason"] == "code: too long"


def test_popped_rows_are_gone_and_leave_little_behind(document):
    peer = Peer(document)
    for number in range(200):
        peer.write(f"r{number}", action="execute", code="x" * 1000)
        document.put([taken(f"r{number}", RequestState.DONE)])
        document.drop([f"r{number}"])
    assert not document.shown
    assert len(document.diff(b"\x00")) < 10_000


def test_rows_of_an_earlier_life_are_shown_in_a_new_one(document):
    document.put([replace(taken("r1", RequestState.HELD, code="1"), reason="crash")])
    peer = Peer(document, "bob")
    columns = {"action": "execute", "code": "1", **AGENT, "state": "held", "reason": "crash"}
    assert peer.rows["r1"].to_py() == columns


def test_client_ids_of_agents_are_known_by_their_kernel_and_others_are_not():
    assert all(is_client_id("k", make_client_id("k")) and make_client_id("k") < 1 << 53 for _ in range(100))
    assert not any(is_client_id("k", make_client_id("other")) for _ in range(100))
    assert not any(is_client_id("k", Doc().client_id) for _ in range(100))
    assert not is_client_id("k", 1 << 60)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused_and_nothing_else(data):
    document = RequestsDocument("k")
    try:
        document.receive(data, "ada")
    except RemoteError:
        pass
    assert yproto.read_state_vector(document.state_vector())


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_valid_update_with_bytes_changed_is_taken_or_refused_and_nothing_else(changes):
    document = RequestsDocument("k")
    peer = Peer(document, client_id=4711)
    peer.rows["r1"] = Map({"action": "execute", "code": "é", "user_expressions": {"a": "b"}, "after": None})
    update = bytearray(peer.doc.get_update())
    for position, byte in changes:
        update[position % len(update)] = byte
    try:
        document.receive(bytes(update), "ada")
    except RemoteError:
        pass
    document.put([taken("r2", code="1")])
    assert document.take_update()
