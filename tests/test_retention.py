"""Retention: what leaves a history, and what stays whatever the limits say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import start

from rtc_kernel.agent.keep.archive import open_readonly
from rtc_kernel.agent.keep.retention import DAY_S, NEWEST_KEPT, ROW_BYTES, Limits, Plan, Row

NOW = 1000 * DAY_S


def made(seq: int, **columns: object) -> Row:
    values = {"row": seq, "seq": seq, "finished_at": NOW - (1000 - seq) * DAY_S, "bytes": 0, "is_finished": True}
    return Row(**(values | columns))  # type: ignore[arg-type]


def chosen(rows: list[Row], limits: Limits, *, page: int = 3, used_bytes: int | None = None) -> list[int]:
    """The ``seq`` of all that go, as whoever brings the rows in pages gets them."""
    newest = sorted((row.seq for row in rows), reverse=True)[: limits.newest]
    used = sum(row.bytes + ROW_BYTES for row in rows) if used_bytes is None else used_bytes
    newest_seq = min(newest, default=None) if limits.newest else None
    plan = Plan(limits, now=NOW, executions_count=len(rows), used_bytes=used, newest_seq=newest_seq)
    out: list[Row] = []
    for is_spared in (True, False):
        if not (is_spared or plan.is_over):
            break
        left = [row for row in rows if row not in out]
        for at in range(0, len(left), page):
            out += plan.choose(left[at : at + page], is_spared=is_spared)
            if plan.is_done(left[at : at + page]):
                break
    assert plan.chosen_count == len(out)
    assert plan.executions_count == len(rows) - len(out)
    return [row.seq for row in out]


ROWS = [made(seq) for seq in range(1, 11)]


def test_without_limits_nothing_goes() -> None:
    assert chosen(ROWS, Limits(newest=0)) == []


def test_the_oldest_go_until_so_many_are_left() -> None:
    assert chosen(ROWS, Limits(executions=7, newest=0)) == [1, 2, 3]


def test_the_oldest_go_until_the_bytes_fit() -> None:
    rows = [made(seq, bytes=1000 - ROW_BYTES) for seq in range(1, 11)]
    assert chosen(rows, Limits(bytes=7500, newest=0)) == [1, 2, 3]
    assert chosen(rows, Limits(bytes=10_000, newest=0)) == []


def test_what_is_older_than_the_days_goes_wherever_it_stands() -> None:
    rows = [made(1), made(2, finished_at=NOW - 1), made(3), *(made(seq, finished_at=NOW) for seq in range(4, 9))]
    assert chosen(rows, Limits(days=900, newest=0)) == [1, 3]


def test_what_is_unfinished_and_the_newest_stay_whatever_the_limits_say() -> None:
    rows = [made(1, is_finished=False), *(made(seq) for seq in range(2, 11))]
    assert chosen(rows, Limits(days=1, executions=1, bytes=1, newest=4)) == [2, 3, 4, 5, 6]


def test_the_latest_of_a_cell_and_what_is_annotated_go_last() -> None:
    rows = [made(1, is_latest=True), made(2, is_annotated=True), *(made(seq) for seq in range(3, 8))]
    assert chosen(rows, Limits(executions=3, newest=0)) == [3, 4, 5, 6]
    assert chosen(rows, Limits(executions=1, newest=0)) == [3, 4, 5, 6, 7, 1]


def test_an_age_limit_spares_nobody_who_may_go() -> None:
    assert chosen([made(1, is_latest=True), made(2, is_annotated=True)], Limits(days=1, newest=0)) == [1, 2]


def test_an_execution_whose_end_is_not_known_has_no_age() -> None:
    assert chosen([made(1, finished_at=None)], Limits(days=1, newest=0)) == []


def test_a_plan_says_how_far_it_is() -> None:
    plan = Plan(Limits(executions=1), now=NOW, executions_count=2, used_bytes=500, newest_seq=None)
    assert (repr(plan), plan.has_limit, plan.is_over) == ("<Plan 0 go, 2 stay in 500 bytes>", True, True)
    assert not Plan(Limits(), now=NOW, executions_count=2, used_bytes=1, newest_seq=None).has_limit


FACTS = st.lists(
    st.tuples(st.floats(0, NOW) | st.none(), st.integers(0, 5000), st.booleans(), st.booleans(), st.booleans()),
    max_size=30,
)
LIMITS = st.builds(
    Limits,
    days=st.sampled_from([0.0, 1.0, 500.0]),
    executions=st.integers(0, 12),
    bytes=st.sampled_from([0, 1000, 20_000]),
    newest=st.integers(0, 8),
)


@given(FACTS, LIMITS, st.integers(1, 7))
def test_any_history_comes_within_its_limits_and_never_loses_what_must_stay(
    facts: list[tuple[float | None, int, bool, bool, bool]], limits: Limits, page: int
) -> None:
    rows = [
        Row(row=at, seq=at, finished_at=end, bytes=size, is_finished=done, is_latest=latest, is_annotated=note)
        for at, (end, size, done, latest, note) in enumerate(facts, 1)
    ]
    gone = set(chosen(rows, limits, page=page))
    left = [row for row in rows if row.seq not in gone]
    kept_anyway = {row.seq for row in rows if not row.is_finished} | {
        row.seq for row in rows[len(rows) - limits.newest :]
    }
    if limits.newest >= len(rows):
        kept_anyway = {row.seq for row in rows}
    assert not gone & (kept_anyway if limits.newest else {row.seq for row in rows if not row.is_finished})
    may_go = [row for row in left if row.is_finished and (not limits.newest or row.seq not in kept_anyway)]
    if limits.executions:
        assert len(left) <= limits.executions or not may_go
    if limits.bytes:
        assert sum(row.bytes + ROW_BYTES for row in left) <= limits.bytes or not may_go
    if not (limits.days or limits.executions or limits.bytes):
        assert not gone


def test_an_agent_keeps_the_file_within_keep_bytes_while_the_kernel_prints(
    home: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[..., object]
) -> None:
    """Far more than the limit is printed within the hour: the pass that follows what was written takes the oldest."""
    monkeypatch.setenv("RTC_KERNEL_KEEP_BYTES", str(1 << 20))
    with start("rtc-python") as kernel:
        for at in range(NEWEST_KEPT + 30):
            kernel.execute(f"print({at}, 'x' * 99_000)")
        (path,) = (home / "data" / "rtc_kernel").glob("*.sqlite3")

        def count() -> int:
            with open_readonly(path) as archive:
                return archive.count()

        until(lambda: NEWEST_KEPT <= count() <= NEWEST_KEPT + 15, "the oldest to have left", 20)
