"""Peers take turns, and each one's rows stay in order."""

from __future__ import annotations

from scheduled import waiting_row as row

from rtc_kernel.agent.act.turns import Row, Turns


def enter(turns: Turns, *rows: Row) -> None:
    for one in rows:
        turns.enter(one)


def test_rows_wait_in_the_order_in_which_they_were_taken() -> None:
    turns = Turns()
    rows = [row("a", 1), row("a", 2), row("a", 3)]
    enter(turns, *rows)
    turns.wait([rows[2]])
    turns.wait([rows[1], rows[0]])
    peer = turns.get("a")
    assert peer is not None
    assert peer.first is rows[0]
    assert turns.take_all("a") == rows
    assert (peer.first, turns.take_all("a"), turns.take_all("b")) == (None, [], [])


def test_a_peer_keeps_its_place_in_the_ring_and_goes_to_the_end_once_served() -> None:
    turns = Turns()
    a1, a2, b1 = row("a", 1), row("a", 2), row("b", 3)
    enter(turns, a1, a2, b1)
    turns.offer(a1)
    turns.offer(b1)
    turns.offer(a2)
    assert turns.serve() is a2
    turns.offer(a1)
    assert [turns.serve(), turns.serve(), turns.serve()] == [b1, a1, None]


def test_first_rows_that_would_join_a_run_are_found_by_its_key() -> None:
    turns = Turns()
    a, b, c = row("a", 1, cell="1"), row("b", 2, cell="1"), row("c", 3, cell="1", on_duplicate="queue")
    enter(turns, a, b, c)
    for one in (a, b, c):
        turns.offer(one)
    assert turns.find_joining(("1", "x")) == ["a", "b"]
    turns.withdraw("b")
    assert turns.serve() is a
    assert turns.find_joining(("1", "x")) == []


def test_a_row_that_is_silent_or_of_no_cell_has_no_key() -> None:
    assert row("a", 1, cell="1").key == ("1", "x")
    assert row("a", 1).key is None
    assert row("a", 1, cell="1", silent=True).key is None
    expressions = row("a", 1, cell="1", user_expressions={"y": "y"})
    assert (expressions.key, expressions.joins) == (("1", "x"), None), "others may join it"


def test_a_peer_counts_its_runs_and_is_forgotten_with_its_last_row() -> None:
    turns = Turns()
    a1, a2 = row("a", 1), row("a", 2, stop_on_error=False)
    enter(turns, a1, a2)
    turns.wait([a1, a2])
    turns.start(a1, "e1")
    turns.start(a2, "e2")
    peer = turns.get("a")
    assert peer is not None
    assert (peer.runs, peer.stoppers, peer.open_count, peer.first) == ({"a1": "e1", "a2": "e2"}, 1, 2, None)
    turns.stop(a1)
    turns.leave(a1)
    assert (peer.stoppers, turns.peers) == (0, ["a"])
    turns.stop(a2)
    turns.leave(a2)
    assert (turns.peers, repr(turns)) == ([], "<Turns 0 peers, 0 may be served>")
