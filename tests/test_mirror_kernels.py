"""The kernel's row."""

from __future__ import annotations

from mirrored import Mirrored, begun, header, request, status

from rtc_kernel.link import Channel, Way
from rtc_kernel.tables import ExecutionState
from rtc_kernel.tables import KernelState as State
from rtc_kernel.wire import Message

INFO = header("kernel_info_request", "i")


def test_a_new_child_starts_and_is_idle_at_its_first_idle_of_any_parent() -> None:
    m = Mirrored()
    m.child("started", pid=7)
    assert (m.kernel.state, m.kernel.started_at, m.kernel.generation) == (State.STARTING, 1.0, 0)
    m.feed(status({}, "starting"), status(INFO, "busy"))
    assert m.kernel.state is State.STARTING
    m.feed(status(INFO, "idle"))
    assert (m.kernel.state, m.kernel.last_activity_at) == (State.IDLE, 4.0)


def test_a_child_whose_first_idle_nobody_could_hear_has_started_when_it_answers() -> None:
    m = Mirrored()
    m.child("started", pid=7)
    m.feed((Channel.SHELL, Way.TO_FRONT, Message(header("kernel_info_reply", "r"), INFO, {}, {"status": "ok"})))
    assert m.kernel.state is State.IDLE
    m.feed(status("a", "busy"))
    assert m.feed((Channel.SHELL, Way.TO_FRONT, Message(header("kernel_info_reply", "r"), INFO, {}, {}))) == []


def test_only_execute_requests_and_comms_of_the_main_shell_make_it_busy() -> None:
    m = Mirrored()
    m.child("started")
    m.feed(status(INFO, "idle"))
    assert m.feed(status(INFO, "busy"), status(INFO, "idle")) == []
    for kind in ("execute_request", "comm_open", "comm_msg", "comm_close"):
        m.feed(status(header(kind, "x"), "busy"))
        assert m.kernel.state is State.BUSY
        in_subshell = header(kind, "y", subshell_id="s")
        assert m.feed(status(in_subshell, "idle"), status(in_subshell, "busy")) == []
        m.feed(status(header(kind, "x"), "idle"))
        assert m.kernel.state is State.IDLE


def test_an_unchanged_state_is_no_change() -> None:
    m = Mirrored()
    m.feed(status("a", "busy"))
    assert m.feed(status("b", "busy")) == []


def test_an_exit_says_how_and_when() -> None:
    m = Mirrored()
    m.child("started")
    m.child("exited", exit_code=-9)
    assert (m.kernel.state, m.kernel.exit_code, m.kernel.ended_at) == (State.DEAD, -9, 2.0)
    assert m.feed(status("a", "busy"), status("a", "idle")) == [], "a late word of a dead kernel"
    m.child("started", pid=2)
    assert (m.kernel.state, m.kernel.exit_code, m.kernel.ended_at) == (State.STARTING, None, None)
    assert m.kernel.generation == m.mirror.generation == 1


def test_a_restart_is_one_generation_whatever_is_said_of_it() -> None:
    m = Mirrored()
    m.child("started")
    m.child("restarting")
    assert (m.kernel.state, m.kernel.generation) == (State.RESTARTING, 1)
    m.child("restarting")
    m.child("exited", exit_code=0)
    m.child("started", pid=2)
    assert (m.kernel.state, m.kernel.generation) == (State.STARTING, 1)


def test_a_start_without_an_end_ends_the_rows_as_lost() -> None:
    m = Mirrored()
    m.child("started")
    m.feed(request("a"))
    m.crash()
    m.child("started", pid=2)
    assert (m.row("a").state, m.kernel.generation) == (ExecutionState.LOST, 1)


def test_a_request_on_its_way_to_the_next_child_is_not_ended_by_its_start() -> None:
    m = Mirrored()
    m.child("started")
    m.child("exited", exit_code=0)
    m.feed(request("a"))
    m.child("started", pid=2)
    assert m.row("a").state is ExecutionState.QUEUED


def test_an_attached_kernel_that_says_starting_again_was_restarted() -> None:
    """Nobody tells us of its process: the status is all there is."""
    m = Mirrored()
    m.feed(status(INFO, "idle"), begun("a"), status({}, "starting"))
    assert (m.kernel.state, m.kernel.generation) == (State.STARTING, 1)
    assert m.row("a").state is ExecutionState.LOST


def test_a_kernel_that_is_found_is_as_it_was_found() -> None:
    m = Mirrored()
    m.child("busy", pid=7)
    assert (m.kernel.state, m.kernel.generation, m.kernel.started_at) == (State.BUSY, 0, None)
    m.feed(begun("a"))
    m.child("idle", pid=7)
    assert (m.kernel.state, m.kernel.generation, m.row("a").state) == (State.IDLE, 0, ExecutionState.RUNNING)


def test_a_kernel_that_is_found_to_be_another_process_was_restarted_meanwhile() -> None:
    m = Mirrored()
    m.child("idle", pid=7)
    m.feed(begun("a"))
    m.crash()
    m.child("busy", pid=8)
    assert (m.kernel.state, m.kernel.generation, m.row("a").state) == (State.BUSY, 1, ExecutionState.LOST)
    m.child("exited", pid=8)
    assert (m.kernel.state, m.kernel.ended_at, m.kernel.exit_code) == (State.DEAD, 4.0, None)
    m.child("idle", pid=9)
    assert (m.kernel.state, m.kernel.generation, m.kernel.started_at, m.kernel.ended_at) == (State.IDLE, 2, 5.0, None)


def test_a_kernel_that_was_only_away_is_the_same_life() -> None:
    m = Mirrored()
    m.child("idle", pid=7)
    m.child("exited", pid=7)
    m.child("idle", pid=7)
    assert (m.kernel.state, m.kernel.generation, m.kernel.ended_at) == (State.IDLE, 0, None)


def test_who_follows_a_kernel_no_more_does_not_know_how_it_goes_on() -> None:
    m = Mirrored()
    m.child("idle", pid=7)
    m.feed(status("a", "busy"), begun("a"))
    m.child("detached", pid=0)
    assert (m.kernel.state, m.kernel.generation, m.row("a").state) == (State.BUSY, 0, ExecutionState.LOST)
    m.child("idle", pid=7)
    assert (m.kernel.state, m.kernel.generation) == (State.IDLE, 0)


def test_an_unknown_event_changes_nothing() -> None:
    m = Mirrored()
    assert m.child("paused") == []
