"""pace: at once after quiet, gathered under load."""

from __future__ import annotations

import pytest

from rtc_kernel.agent.pace import IDLE_S, Pace
from rtc_kernel.tables import AddOutput, Change, Output, PutExecution, SetOutput, WriteText

TEXT = WriteText("e", 0, 0, None, "x" * 10)
STATE = PutExecution("e", {"state": "ok"})


def first(position: int = 0) -> AddOutput:
    return AddOutput("e", position, Output(output_type="stream", at=0.0, name="stdout", text=""))


@pytest.fixture
def pace() -> Pace:
    return Pace(quiet_s=0.005, load_s=0.05, load_bytes=1000)


@pytest.mark.parametrize("changes", [[STATE], [first()], [first(), TEXT], [TEXT, STATE]])
def test_states_and_a_runs_first_output_are_written_at_once_whatever_came_before(
    pace: Pace, changes: list[Change]
) -> None:
    pace.receive([TEXT], 9.999)
    pace.wrote(9.999)
    pace.receive(changes, 10.0)
    assert pace.due == 10.0


def test_output_after_a_quiet_moment_is_written_at_once(pace: Pace) -> None:
    for at in (1.0, 1.01, 1.02):
        pace.receive([TEXT], at)
        assert pace.due == at
        pace.wrote(at)


@pytest.mark.parametrize("change", [TEXT, SetOutput("e", 0, first().output), first(position=3)])
def test_output_that_keeps_coming_is_gathered_until_the_time_since_the_last_write_is_up(
    pace: Pace, change: Change
) -> None:
    pace.receive([change], 1.0)
    pace.wrote(1.0)
    pace.receive([change], 1.001)
    assert pace.due == pytest.approx(1.05)
    pace.receive([change], 1.002)
    assert pace.due == pytest.approx(1.05)


def test_output_is_gathered_up_to_its_bytes(pace: Pace) -> None:
    pace.receive([TEXT], 1.0)
    pace.wrote(1.0)
    pace.receive([TEXT] * 99, 1.001)
    assert pace.due == pytest.approx(1.05)
    pace.receive([TEXT], 1.002)
    assert pace.due == 1.002
    pace.wrote(1.002)
    assert pace.due is None


def test_records_that_changed_nothing_wait_longest(pace: Pace) -> None:
    pace.receive([], 1.0)
    assert pace.due == 1.0 + IDLE_S
    pace.receive([], 1.3)
    assert pace.due == 1.0 + IDLE_S
