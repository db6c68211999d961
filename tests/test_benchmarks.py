"""The benchmarks run. What they measure is nobody's business here: a test proves no speed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import publishing
from benchmarks.acting import RATE
from benchmarks.figures import Compare, Line, percentile
from benchmarks.observe import Reader, error_line, frame_bytes, update_of
from benchmarks.peers import ADAPTERS
from benchmarks.peers.documents import murmur2
from benchmarks.viewing import CHROMIUM
from benchmarks.write import Batch

ROOT = Path(__file__).parent.parent
PATIENCE_S = 280
"""A busy machine takes its time."""

pytestmark = pytest.mark.timeout(PATIENCE_S + 20)


def test_the_command_measures_prints_and_writes_a_line(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = ["-m", "benchmarks", "execute", "--rounds", "1", "--scale", "0.05", "--json", str(out)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert "execute round trip, p50" in done.stdout
    assert "load before" in done.stdout
    value = json.loads(out.read_text())
    assert [line["compare"] for line in value["lines"]] == ["ratio", "difference", "ratio"]
    assert all(line["value"] for line in value["lines"])
    assert not value["failures"]


def test_what_peers_ask_for_is_measured_against_the_targets_of_the_issue(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = ["-m", "benchmarks", "act", "rows", "interrupt", "--rounds", "1", "--scale", "0.02", "--json", str(out)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    value = json.loads(out.read_text())
    assert not value["failures"]
    lines = {line["name"]: line for line in value["lines"]}
    assert all(line["value"] for line in lines.values())
    targets = [(line["compare"], line["target"]) for line in value["lines"] if line["target"] is not None]
    rate = ("ratio", round(1 / RATE, 3))
    assert targets == [("difference", 3.0), ("difference", 8.0), rate, rate, ("value", 150.0), ("value", 150.0)]
    assert "20 rows of pass from 10 peers" in lines


def test_a_kernel_that_is_attached_to_is_measured_against_the_targets_of_the_issue(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = ["-m", "benchmarks", "attach", "--rounds", "1", "--scale", "0.05", "--json", str(out)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    value = json.loads(out.read_text())
    assert not value["failures"]
    assert all(line["value"] for line in value["lines"])
    assert [(line["compare"], line["target"]) for line in value["lines"]] == [
        ("value", 500.0),
        ("value", None),
        ("ratio", 1.02),
    ]


def test_many_peers_and_a_full_window_are_measured_against_the_targets_of_the_issue(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = ["-m", "benchmarks", "peers", "join-full", "--rounds", "1", "--scale", "0.02", "--json", str(out)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    value = json.loads(out.read_text())
    assert all(line["value"] for line in value["lines"] if line["unit"] != "%")
    targets = [(line["compare"], line["target"]) for line in value["lines"] if line["target"] is not None]
    assert targets == [("value", 100.0), ("value", 60.0), ("ratio", 1.1), ("value", 1000.0)]


def test_what_a_flood_costs_is_measured_against_the_targets_of_the_issue(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = ["-m", "benchmarks", "bounds", "--rounds", "1", "--scale", "0.002", "--json", str(out)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    value = json.loads(out.read_text())
    assert not value["failures"]
    shown = [1.1, 64.0]
    targets = [line["target"] for line in value["lines"] if line["target"] is not None]
    assert targets == [*shown, 2.0, *shown, 2.0, *shown, 5.0, 4.0, 1.0, 1.3, 33.0, 2.0]


@pytest.mark.skipif(bool(publishing.lacks()), reason=publishing.lacks() or "all is there")
def test_what_a_relay_costs_is_measured_against_the_targets_of_the_issue(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = ["-m", "benchmarks", "relay", "relay-flood", "--rounds", "1", "--scale", "0.05", "--json", str(out)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    value = json.loads(out.read_text())
    assert not value["failures"]
    targets = [(line["compare"], line["target"]) for line in value["lines"] if line["target"] is not None]
    assert targets == [("difference", 15.0), ("difference", 50.0), ("ratio", 1.5), ("value", 0)]


@pytest.mark.browser
@pytest.mark.skipif(not any(map(shutil.which, CHROMIUM)), reason="Chromium is not installed")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="not installed: playwright")
def test_what_somebody_sees_is_measured_against_the_targets_of_the_issue(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [
        "-m",
        "benchmarks",
        "paint",
        "pixels",
        "page-flood",
        "--rounds",
        "1",
        "--scale",
        "0.05",
        "--json",
        str(out),
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    value = json.loads(out.read_text())
    assert not value["failures"]
    targets = [(line["compare"], line["target"]) for line in value["lines"] if line["target"] is not None]
    assert targets == [("value", 1000.0), ("value", 300.0), ("difference", 50.0), ("value", 100.0)]


def test_a_system_that_cannot_be_had_is_a_note_and_no_failure(tmp_path: Path) -> None:
    name = ADAPTERS[0].name
    out = tmp_path / "figures.json"
    command = ["-m", "benchmarks", name, "--rounds", "1", "--scale", "0.02", "--json", str(out)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    run = [sys.executable, *command]
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert f"{name}: not measured:" in done.stdout
    value = json.loads(out.read_text())
    assert "cannot be installed" in value["notes"][name]
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


def test_an_error_ends_what_an_observer_gathers_wherever_in_a_line_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    reader = Reader()
    reader.feed("line 0\nline", 1)
    reader.end_rows(2, 2)
    reader.feed(error_line("KeyboardInterrupt"), 3)
    report = json.loads(capsys.readouterr().out)
    assert (report["token"], report["at_ns"], report["lines"]) == ("KeyboardInterrupt", 3, 1)
    assert (report["ended_rows"], report["ended_at_ns"]) == (2, 2)


def test_a_batch_says_when_its_last_row_was_taken_and_when_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    batch = Batch(7, written_ns=1, fresh={"a", "b"}, waiting={"a", "b"})
    batch.see("a", {}, 2)
    batch.see("a", {"state": "accepted"}, 3)
    batch.see("b", {"state": "refused", "reason": "code: missing"}, 4)
    assert not capsys.readouterr().out
    batch.see("a", {"state": "done"}, 5)
    assert json.loads(capsys.readouterr().out) == {
        "batch": 7,
        "written_ns": 1,
        "taken_ns": 4,
        "ended_ns": 5,
        "refused": ["code: missing"],
    }


def test_a_source_is_hashed_as_the_other_system_does() -> None:
    assert [murmur2(source) for source in (b"", b"abc", b"print(1)")] == [0, 324500635, 3626970123]
