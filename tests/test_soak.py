"""The soak runs, in its short form: whatever comes and goes, nothing that relay and agent hold goes on growing.

How flat memory is within 10 % only the long form shows (``python -m benchmarks.soak --minutes 60``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak import ALLOWED, Sample, grown, thirds

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_grows_while_everything_happens() -> None:
    command = ["-m", "benchmarks.soak", "--minutes", "0.4", "--rss-factor", "1.5", "--lag-ms", "1000"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("relay rss", "agent fds", "agent tasks", "lag"):
        assert name in done.stdout


@pytest.mark.parametrize("name", ["agent rss", "relay fds", "agent threads", "agent tasks", "lag"])
def test_what_goes_on_growing_is_named(name: str) -> None:
    samples = [Sample({name: 2.0 + 3 * number}) for number in range(30)]
    assert thirds(samples)[name] == (45.5, 75.5)
    assert list(grown(samples)) == [name]


@pytest.mark.parametrize("name", ["agent rss", "relay fds", "agent threads", "agent tasks", "lag"])
def test_what_grows_while_it_warms_up_or_no_more_than_is_allowed_is_flat(name: str) -> None:
    factor, more = ALLOWED[name.rpartition(" ")[2]]
    figures = [1.0] * 10 + [50.0] * 10 + [50.0 * factor + more] * 10
    assert not grown([Sample({name: figure}) for figure in figures])
