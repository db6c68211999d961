"""Whatever bytes come over a border, the sentence of its fuzz target holds: the seeds, and a moment of changed ones.

``python -m fuzz NAME`` goes on for as long as one likes.
"""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import weakref
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Map, XmlFragment

from fuzz.__main__ import TARGETS, changed, load
from fuzz.rows import PANICS
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.errors import Reason, RemoteError

ROOT = Path(__file__).parent.parent
RUNS = {"wire": 10_000, "messages": 3000, "rows": 5000, "urls": 3000, "stores": 200, "relays": 3000}
EXAMPLES = {"wire": 100, "messages": 60, "rows": 100, "urls": 60, "stores": 10, "relays": 60}

NO_PARENT = bytes.fromhex(
    "0106070021010872657175657374730272310100052701087265717565737473"
    "027232012300070601610008000707017c3f800000870708010107010006"
)
"""An update whose parent is none: pycrdt 0.14 raises RuntimeError where it raises ValueError for other faults."""


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_target_says_holds_for_its_seeds_and_what_comes_of_them(name: str) -> None:
    target = load(name)
    assert target.__doc__
    for data in islice(changed(target.SEEDS, random.Random(name)), len(target.SEEDS) + RUNS[name]):
        target.run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_target_says_holds_for_any_bytes(name: str) -> None:
    @settings(max_examples=EXAMPLES[name], suppress_health_check=list(HealthCheck), database=None)
    @given(st.binary(max_size=200))
    def holds(data: bytes) -> None:
        load(name).run(data)

    holds()


@pytest.mark.parametrize("update", [PANICS, NO_PARENT])
def test_what_pycrdt_cannot_take_is_its_senders_fault_and_another_epoch_is_due(update: bytes) -> None:
    document = RequestsDocument("k")
    with pytest.raises(RemoteError) as error:
        document.receive(update, "ada")
    assert error.value.reason is Reason.MALFORMED
    assert document.worn


def test_a_row_that_holds_an_xml_type_is_read_as_an_empty_one() -> None:
    document, doc = RequestsDocument("k"), Doc()
    doc.get("requests", type=Map)["r1"] = Map({"action": "execute", "code": XmlFragment()})
    (row,) = document.receive(doc.get_update(), "ada").rows
    assert (row.id, row.value) == ("r1", None)


def test_the_loop_without_atheris_runs_a_target() -> None:
    command = [sys.executable, "-m", "fuzz", "wire", "--plain", "--seconds", "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "nothing broke" in done.stdout


def test_a_document_of_requests_that_is_replaced_leaves_the_memory() -> None:
    document = RequestsDocument("k")
    gone = weakref.ref(document)
    del document
    gc.collect()
    assert gone() is None
