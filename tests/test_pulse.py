"""Facts about the life of a kernel that we are attached to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.errors import LocalError
from rtc_kernel.relay.pulse import (
    ANSWER_S,
    DEAD_S,
    GIVE_UP_S,
    TRANSITIONS,
    Ask,
    Died,
    Found,
    Life,
    Missed,
    Pulse,
    number_of,
)

ONE, TWO = number_of("one"), number_of("two")


def life() -> Life:
    return Life(ONE, told=True)


def test_a_kernel_that_is_restarted_is_another_one() -> None:
    one = life()
    one.receive_lost(10.0)
    assert one.holds
    assert one.receive_time(11.0, awaited=True) == []
    assert one.receive_back(12.0) == [Ask()]
    assert one.holds
    assert one.receive_answer("two", 12.5, busy=False) == [Died(ONE, 10.0), Found(TWO, False)]
    assert (one.pulse, one.number, one.holds, one.deadline) == (Pulse.LIVE, TWO, False, None)


def test_a_connection_that_breaks_for_a_moment_costs_what_was_said_meanwhile() -> None:
    one = life()
    one.receive_lost(10.0)
    one.receive_back(10.5)
    one.receive_lost(10.6)  # a tunnel whose other end is not there yet
    one.receive_back(11.0)
    assert one.receive_answer("one", 11.1, busy=True) == [Missed(10.0, 11.1)]
    assert one.pulse is Pulse.LIVE


def test_a_kernel_that_does_not_come_back_is_dead_and_given_up_some_time() -> None:
    one = life()
    one.receive_lost(10.0)
    assert one.receive_time(10.0 + DEAD_S, awaited=True) == [Died(ONE, 10.0)]
    assert one.receive_time(10.0 + GIVE_UP_S - 1, awaited=True) == []
    assert one.pulse is Pulse.DEAD
    assert one.receive_time(10.0 + GIVE_UP_S, awaited=True) == []
    assert (one.pulse, one.deadline) == (Pulse.GONE, None)


def test_a_kernel_whose_connection_file_is_gone_is_not_awaited() -> None:
    one = life()
    one.receive_lost(10.0)
    assert one.receive_time(10.1, awaited=False) == [Died(ONE, 10.0)]
    assert one.receive_time(10.2, awaited=False) == []
    assert one.pulse is Pulse.GONE


def test_a_dead_kernel_is_told_of_once_and_found_when_it_comes_back() -> None:
    one = life()
    one.receive_lost(10.0)
    one.receive_time(20.0, awaited=True)
    assert one.receive_back(21.0) == [Ask()]
    one.receive_lost(21.1)
    assert one.receive_time(30.0, awaited=True) == []
    one.receive_back(31.0)
    assert one.receive_answer("two", 31.5, busy=True) == [Found(TWO, True)]


def test_a_kernel_that_was_only_unreachable_for_long_is_found_again_with_a_gap() -> None:
    one = life()
    one.receive_lost(10.0)
    one.receive_time(20.0, awaited=True)
    one.receive_back(21.0)
    assert one.receive_answer("one", 21.5, busy=False) == [Missed(10.0, 21.5), Found(ONE, False)]


def test_a_kernel_that_does_not_say_who_it_is_is_another_one_behind_a_lost_connection() -> None:
    one = Life(7, told=False)
    one.receive_lost(10.0)
    one.receive_back(11.0)
    assert one.receive_answer("", 11.5, busy=False) == [Died(7, 10.0), Found(8, False)]


def test_who_does_not_answer_behind_a_lost_connection_is_another_process_if_it_has_the_key() -> None:
    one = life()
    one.receive_lost(10.0)
    one.receive_back(11.0)
    assert one.receive_time(10.0 + DEAD_S, awaited=True) == [Died(ONE, 10.0)]
    assert one.receive_time(11.0 + ANSWER_S, awaited=True, heard=True) == [Found(ONE + 1, False)]


def test_who_does_not_answer_behind_a_lost_connection_is_a_stranger_if_it_has_another_key() -> None:
    one = life()
    one.receive_lost(10.0)
    one.receive_back(11.0)
    assert one.receive_time(11.0 + ANSWER_S, awaited=True) == [Died(ONE, 10.0)]
    assert one.holds
    assert one.receive_back(42.0) == [Ask()]  # it may be gone, and ours be there
    assert one.receive_time(42.0 + ANSWER_S, awaited=True) == []
    assert one.receive_time(42.0 + ANSWER_S, awaited=True) == []
    assert one.pulse is Pulse.GONE


def test_a_kernel_that_says_much_before_it_answers_is_another_one_that_is_busy() -> None:
    one = life()
    assert one.receive_much(1.0) == []
    one.receive_lost(10.0)
    one.receive_back(11.0)
    assert one.receive_much(12.0) == [Died(ONE, 10.0), Found(ONE + 1, True)]


def test_a_kernel_that_says_starting_is_asked_and_nothing_was_missed() -> None:
    one = life()
    assert one.receive_starting(10.0) == [Ask()]
    assert one.holds
    assert one.receive_answer("one", 10.1, busy=False) == []
    assert one.receive_starting(20.0) == [Ask()]
    assert one.receive_answer("two", 20.1, busy=False) == [Died(ONE, 20.0), Found(TWO, False)]


def test_what_comes_unasked_changes_nothing() -> None:
    one = life()
    assert one.receive_back(1.0) == []
    assert one.receive_answer("two", 1.0, busy=False) == []
    assert one.receive_time(1000.0, awaited=False) == []
    assert (one.pulse, one.number) == (Pulse.LIVE, ONE)


def test_an_illegal_step_raises_and_changes_nothing() -> None:
    one = life()
    with pytest.raises(LocalError):
        one._step(Pulse.GONE, 1.0)
    assert one.pulse is Pulse.LIVE
    assert set(TRANSITIONS) == set(Pulse)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["lost", "back", "starting", "one", "two", "", "time", "heard", "gone", "much"]),
            st.floats(0, 9),
        )
    )
)
def test_whatever_happens_deaths_and_finds_alternate(events: list[tuple[str, float]]) -> None:
    """A process is found after it was told dead or as a new one, and no process dies twice."""
    one, now, alive = life(), 0.0, {ONE}
    for event, wait_s in events:
        now += wait_s
        match event:
            case "lost":
                one.receive_lost(now)
                said = []
            case "back":
                said = one.receive_back(now)
            case "starting":
                said = one.receive_starting(now)
            case "much":
                said = one.receive_much(now)
            case "time" | "heard" | "gone":
                said = one.receive_time(now, awaited=event != "gone", heard=event == "heard")
            case session:
                said = one.receive_answer(session, now, busy=False)
        for command in said:
            match command:
                case Died(number, at):
                    assert at <= now
                    alive.remove(number)
                case Found(number):
                    assert not alive
                    alive.add(number)
                case Missed(since, until):
                    assert since <= until == now
        assert one.holds == (one.pulse is not Pulse.LIVE)
        assert (one.deadline is None) == (one.pulse in (Pulse.LIVE, Pulse.GONE))
        if one.pulse is Pulse.LIVE:
            assert alive == {one.number}
