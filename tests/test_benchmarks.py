"""The benchmarks run. What they measure is nobody's business here: a test proves no speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.figures import Compare, Line, percentile
from benchmarks.observe import frame_bytes, update_of

ROOT = Path(__file__).parent.parent


def test_the_command_measures_prints_and_writes_a_line(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = ["-m", "benchmarks", "execute", "--rounds", "1", "--scale", "0.05", "--json", str(out)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "execute round trip, p50" in done.stdout
    assert "load before" in done.stdout
    value = json.loads(out.read_text())
    assert [line["compare"] for line in value["lines"]] == ["ratio", "difference", "ratio"]
    assert all(line["value"] for line in value["lines"])
    assert not value["failures"]


def test_an_unknown_name_is_told_which_there_are() -> None:
    command = [sys.executable, "-m", "benchmarks", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there are: execute flood" in done.stderr


@pytest.mark.parametrize(("compare", "value"), [(Compare.RATIO, 1.5), (Compare.DIFFERENCE, 1.0), (Compare.VALUE, 3.0)])
def test_a_line_compares_the_medians_of_its_rounds(compare: Compare, value: float) -> None:
    line = Line(name="x", unit="ms", bare=(1.0, 2.0, 9.0), rtc=(3.0, 2.0, 4.0), compare=compare, target=value)
    assert line.value == value
    assert line.met


def test_a_line_without_a_target_is_neither_met_nor_missed() -> None:
    assert Line(name="x", unit="ms", rtc=(1.0,), compare=Compare.VALUE).met is None


def test_a_percentile_lies_between_the_two_nearest_values() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([7.0], 95) == 7.0


def test_an_observer_finds_the_update_in_a_message_and_counts_its_frame() -> None:
    long = bytes(range(200))
    assert update_of(b"\x00\x02\xc8\x01" + long) == long
    assert update_of(b"\x00\x00\x01\x00") is None
    assert update_of(b"\x01\x00") is None
    assert [frame_bytes(size) for size in (125, 126, 65535, 65536)] == [127, 130, 65539, 65546]
