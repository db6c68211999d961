"""The bytes of y-protocols: our decoder reads what pycrdt writes, and anything else is a RemoteError."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from rtc_kernel import yproto
from rtc_kernel.errors import Reason, RemoteError

uints = st.integers(0, yproto.MAX_UINT)


@given(uints)
def test_numbers_round_trip(number):
    reader = yproto.Reader(yproto.write_uint(number))
    assert reader.uint() == number
    assert reader.left == 0


@given(st.text())
def test_strings_round_trip_because_lengths_count_bytes(text):
    assert yproto.Reader(yproto.write_string(text)).string() == text


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_remote_error(data):
    for read in (yproto.read_message, yproto.read_state_vector, yproto.read_awareness, yproto.read_coverage):
        with suppress(RemoteError):
            read(data)


@given(st.binary(max_size=60), st.integers(0, 3), st.integers(0, 3))
def test_any_body_of_a_known_type_is_a_message_or_a_remote_error(body, kind, sub):
    for data in (bytes([kind]) + yproto.write_bytes(body), bytes([kind, sub]) + yproto.write_bytes(body)):
        with suppress(RemoteError):
            yproto.read_message(data)


@given(st.lists(st.tuples(uints, uints, st.text())))
def test_awareness_round_trips(entries):
    entries = tuple(yproto.Entry(*entry) for entry in entries)
    assert yproto.read_message(yproto.awareness(entries)) == yproto.Awareness(entries)


def test_messages_are_read_as_what_they_are():
    assert yproto.read_message(yproto.step1(b"\x01\x05\x07")) == yproto.Step1({5: 7})
    assert yproto.read_message(yproto.step2(b"ab")) == yproto.Step2(b"ab")
    assert yproto.read_message(yproto.update(b"ab")) == yproto.Update(b"ab")
    assert yproto.read_message(yproto.denied("nö")) == yproto.Denied("nö")
    assert yproto.read_message(b"\x03") == yproto.Query()
    assert yproto.awareness(()) == b"\x01\x01\x00"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x04", b"\x00", b"\x00\x00", b"\x00\x03\x00", b"\x00\x02\x05ab", b"\x03\x00", b"\x80" * 20, b"\x02\x01\x00",
     b"\x00\x00\x03\x02\x05\x07", b"\x00\x00\x05\x02\x05\x07\x05\x08", b"\x00\x00\x04\x01\x05\x07\x00"],
)  # fmt: skip
def test_half_messages_unknown_types_and_trailing_bytes_are_malformed(data):
    with pytest.raises(RemoteError) as error:
        yproto.read_message(data)
    assert error.value.reason is Reason.MALFORMED


def test_the_coverage_of_every_content_that_a_document_can_hold():
    doc = Doc()
    root = doc.get("m", type=Map)
    xml = doc.get("x", type=XmlFragment)
    text = Text("é😀")
    with doc.transaction():
        root["plain"] = {"a": [1, 2.5, None, True, False, "ü", -7, 2**40], "b": b"\x00"}
        root["text"] = text
        root["array"] = Array([1, "two", Map({"k": Array()})])
        root["sub"] = Doc()
        xml.children.append(XmlElement("p", {"a": "b"}, [XmlText("t")]))
        text.format(0, 2, {"bold": True})
        text.insert_embed(0, {"image": 1})
    text.insert(0, "more")
    del root["plain"]
    coverage = yproto.read_coverage(doc.get_update())
    clock = yproto.read_state_vector(doc.get_state())[doc.client_id]
    assert coverage.structs == ((doc.client_id, 0, clock),)
    assert [client for client, _, _ in coverage.deletes] == [doc.client_id] * len(coverage.deletes)
    assert coverage.deletes


def test_a_value_nested_without_end_is_malformed():
    item = b"\x08" + b"\x01\x01m" + b"\x01"  # plain values in the root "m", one of them
    update = b"\x01\x01\x05\x00" + item + b"\x75\x01" * 5000 + b"\x7e\x00"
    with pytest.raises(RemoteError):
        yproto.read_coverage(update)


def written_by(*clients):
    """Documents of these clients, of which each has what those before it wrote and writes on."""
    docs = []
    for client in clients:
        doc = Doc(client_id=client)
        for earlier in docs:
            doc.apply_update(earlier.get_update())
        rows = doc.get("requests", type=Map)
        with doc.transaction():
            rows[f"r{client}"] = Map({"action": "execute", "code": "é" * client})
            if docs:
                rows[f"r{clients[0]}"]["state"] = "mine"
        docs.append(doc)
    return docs


def test_an_update_of_many_is_split_by_who_wrote_it_and_joined_again_in_the_order_of_its_needs():
    *_, last = written_by(5, 6, 7)
    pieces = {piece.client: piece for piece in yproto.split_update(last.get_update())}
    assert set(pieces) == {5, 6, 7}
    assert pieces[5].needs == {}
    assert set(pieces[6].needs) == {5}
    assert set(pieces[7].needs) == {6}  # which wrote the column that it writes anew
    joined = Doc()
    for client in (5, 6, 7):
        assert {run[0] for run in yproto.read_coverage(pieces[client].update).structs} == {client}
        assert yproto.read_coverage(pieces[client].update).deletes == ()
        joined.apply_update(pieces[client].update)
    assert joined.get("requests", type=Map).to_py() == last.get("requests", type=Map).to_py()


@given(st.binary(max_size=200))
def test_any_bytes_are_split_or_a_remote_error(data):
    with suppress(RemoteError):
        yproto.split_update(data)
    with suppress(RemoteError):
        yproto.cut_update(data, 10)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=30) | uints | st.none()), max_size=30),
    st.integers(0, 200),
)
def test_an_update_that_is_cut_says_the_same_in_pieces_of_that_size(steps, most_bytes):
    docs = [Doc(), Doc()]
    for at, (key, value) in enumerate(steps):
        doc, other = docs[at % 2], docs[1 - at % 2]
        rows = doc.get("rows", type=Map)
        if value is None and key in rows:
            del rows[key]
        elif isinstance(value, str):
            rows[key] = Array([value, {"é😀": [1.5, value]}])
            rows[key].append("more")
            doc.get("text", type=Text).insert(0, value)
        else:
            rows[key] = value
        other.apply_update(doc.get_update(other.get_state()))
    update = docs[0].get_update()
    pieces = yproto.cut_update(update, most_bytes)
    joined = Doc()
    for piece in pieces:
        coverage = yproto.read_coverage(piece)
        assert (coverage.structs == ()) == (piece is pieces[-1]), "the last has the deletions"
        joined.apply_update(piece)
    assert yproto.read_state_vector(joined.get_state()) == yproto.read_state_vector(docs[0].get_state())
    assert joined.get("rows", type=Map).to_py() == docs[0].get("rows", type=Map).to_py()
    assert str(joined.get("text", type=Text)) == str(docs[0].get("text", type=Text))
    assert len(yproto.cut_update(update, 1 << 30)) <= 1 + len(docs), "one of each client"
    for piece in pieces[:-1]:  # client, clock and counts are no structs
        assert piece[1] == 1 or len(piece) <= most_bytes + 20
