"""``jupyter rtc prune``: what it shows, what it takes away, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import recorded
from kernels import Running, start

from rtc_kernel import cli, discovery
from rtc_kernel.agent.keep.archive import open_readonly
from rtc_kernel.agent.keep.retention import NEWEST_KEPT
from rtc_kernel.agent.keep.store import Store
from rtc_kernel.cli import grammar
from rtc_kernel.cli.kernels import address_of
from rtc_kernel.client import call, connect
from rtc_kernel.errors import SetupError
from rtc_kernel.tables import AddOutput, Output, PutExecution, PutKernel, WriteText

Capture = pytest.CaptureFixture[str]
DAY_S = 86400.0


def leave(home: Path, kernel: str, count: int, *, age_days: float = 39.5, **columns: Any) -> Path:
    """The history of a dead kernel: ``count`` executions of 10 kB, the first one ``age_days`` ago, then one a day."""
    path = home / "data" / "rtc_kernel" / f"{kernel}.sqlite3"
    first = time.time() - age_days * DAY_S
    row = {"id": kernel, "display_name": "RTC Python", "host": socket.gethostname(), **columns}
    with closing(Store.open(path)) as store:
        store.begin(relay_id="r", kernel=row, now=first)
        for seq in range(1, count + 1):
            key, at = f"{kernel}-{seq:04}", first + (seq - 1) * DAY_S
            stream = Output(output_type="stream", at=at, name="stdout", text="")
            values = {"seq": seq, "state": "ok", "finished_at": at, "code": f"step({seq})"}
            changes = [PutExecution(key, values), AddOutput(key, 0, stream), WriteText(key, 0, 0, None, "x" * 10_000)]
            store.write(changes, relay_id="r", seq=seq, mirror_state=None)
    return path


def seqs(path: Path) -> list[int]:
    with open_readonly(path) as archive:
        return [row.seq for row in archive.history(after=0, limit=1000)[0]]


def told(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    assert cli.main(["prune", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_dry_run_shows_what_would_go_and_takes_nothing_away(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    old = leave(home, "5f0c1111", 30, notebook="/home/ada/train.ipynb")
    none = leave(home, "9b0b1111", 0)
    before = {path: path.read_bytes() for path in (old, none)}
    assert cli.main(["prune", "--older-than", "30d", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    head, *rows, last = shown.splitlines()
    assert head.split() == ["KERNEL", "NOTEBOOK", "EXECUTIONS", "LEFT", "FREES"]
    assert sorted(row.split()[:4] for row in rows) == [
        ["5f0c1111", "train.ipynb", "10", "20"],
        ["9b0b1111", "-", "0", "removed"],
    ]
    assert last.startswith("Would go: 10 executions of 2 histories, ")
    assert last.endswith(" KiB. Nothing was taken away.")
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert {path: path.read_bytes() for path in before} == before


def test_what_is_too_old_goes_and_empty_histories_are_removed(home: Path, capsys: Capture) -> None:
    old, none = leave(home, "5f0c1111", 30), leave(home, "9b0b1111", 0)
    young = leave(home, "77aa1111", 5, age_days=5)
    before = old.stat().st_size
    assert cli.main(["prune", "--older-than", "30d"]) == 0
    assert "Gone: 10 executions of 2 histories, " in capsys.readouterr().out
    assert (seqs(old), seqs(young), none.exists()) == ([*range(11, 31)], [1, 2, 3, 4, 5], False)
    assert old.stat().st_size < before
    assert cli.main(["prune", "--older-than", "30d"]) == 0
    assert capsys.readouterr().out == "Nothing to take away: 2 histories within the limits.\n"


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--keep", "3"], range(3, 4)),
        (["--keep", "300"], range(30, 31)),
        (["--max-size", "400KB"], range(8, 24)),
        (["--older-than", "12h"], range(1)),
    ],
)
def test_a_dry_run_says_the_same_as_the_run(home: Path, capsys: Capture, arguments: list[str], left: range) -> None:
    path = leave(home, "5f0c1111", 30)
    (would,) = told(capsys, *arguments, "--dry-run")
    (done,) = told(capsys, *arguments)
    assert {**would, "bytes": 0} == {**done, "bytes": 0}
    assert (done["executions"] + done["executions_left"], done["removed"]) == (30, left == range(1))
    assert done["executions_left"] in left
    assert would["bytes"] == pytest.approx(done["bytes"], rel=0.5)
    if done["removed"]:
        assert not path.exists()
    elif "--max-size" in arguments:
        assert path.stat().st_size <= 400_000


def test_without_limits_of_its_own_the_settings_count(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = leave(home, "5f0c1111", 30)
    assert told(capsys)[0]["executions"] == 0
    monkeypatch.setenv("RTC_KERNEL_KEEP_EXECUTIONS", "20")
    monkeypatch.setenv("RTC_KERNEL_KEEP_DAYS", "30")
    assert told(capsys, "--keep", "25")[0]["executions_left"] == 25
    assert told(capsys)[0]["executions_left"] == 20
    assert seqs(path) == [*range(11, 31)]


def test_one_kernel_is_named_by_the_beginning_of_its_id(home: Path, capsys: Capture) -> None:
    one, other = leave(home, "5f0c1111", 5), leave(home, "5f0d1111", 5)
    assert told(capsys, "5f0c", "--keep", "1")[0]["path"] == str(one)
    assert (seqs(one), seqs(other)) == ([5], [1, 2, 3, 4, 5])
    for name, says in (("5f0", "begins the ids of 2 kernels"), ("none", "no kernel 'none'")):
        assert cli.main(["prune", name]) == 2
        assert says in capsys.readouterr().err


def test_what_cannot_be_pruned_is_named_and_costs_the_others_nothing(home: Path, capsys: Capture) -> None:
    path = leave(home, "5f0c1111", 5)
    held = leave(home, "77aa1111", 5)
    (path.parent / "d.sqlite3").write_bytes(b"no database" * 100)
    with closing(Store.open(held)) as store:
        store.flush()
        assert cli.main(["prune", "--keep", "1"]) == 1
    said = capsys.readouterr().err
    assert "77aa1111.sqlite3 is open in another process" in said
    assert "d.sqlite3 is damaged" in said
    assert (seqs(path), seqs(held)) == ([5], [1, 2, 3, 4, 5])


def test_a_kernel_that_may_live_on_another_machine_is_left_alone_unless_it_is_named(
    home: Path, capsys: Capture
) -> None:
    path = leave(home, "5f0c1111", 5, host="elsewhere")
    assert cli.main(["prune", "--keep", "1"]) == 0
    assert "5f0c1111 may live on elsewhere" in capsys.readouterr().err
    assert len(seqs(path)) == 5
    with closing(Store.open(path)) as store:
        store.write([PutKernel("5f0c1111", {"ended_at": 9.0})], relay_id="r", seq=99, mirror_state=None)
    assert told(capsys, "--keep", "3")[0]["executions"] == 2
    other = leave(home, "77aa1111", 5, host="elsewhere")
    assert told(capsys, "77aa", "--keep", "1")[0]["executions"] == 4
    assert seqs(other) == [5]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("1kB", 1000),
        ("500MB", 500 * 10**6),
        ("1.5GB", 1_500_000_000),
        ("2GiB", 2 << 30),
        ("1t", 10**12),
    ],
)
def test_a_size_has_a_unit(text: str, size: int) -> None:
    assert grammar._size(text) == size


@pytest.mark.parametrize(
    "arguments",
    [["--max-size", "0"], ["--max-size", "big"], ["--max-size", "-1MB"], ["--keep", "0"], ["--older-than", "soon"],
     ["5f0c", "--all"]],
)  # fmt: skip
def test_a_wrong_limit_is_told_with_the_usage(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["prune", *arguments])
    assert caught.value.code == 2
    assert "usage: jupyter rtc prune" in capsys.readouterr().err


@pytest.fixture
def kernel(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A real RTC Python with limits of its own."""
    for name, value in {"KEEP_EXECUTIONS": 55, "KEEP_DAYS": 9, "KEEP_BYTES": 0, "STORE_EXECUTION_BYTES": 65536}.items():
        monkeypatch.setenv(f"RTC_KERNEL_{name}", str(value))
    with start("rtc-python") as running:
        yield running


def test_text_beyond_store_execution_bytes_is_left_out_and_the_live_row_says_so(
    kernel: Running, until: Callable[..., object]
) -> None:
    until(discovery.live, "the agent has said where it is", 30)
    (alive,) = discovery.live()
    printed = kernel.execute("for n in range(4000): print('x' * 49)").text
    assert len(printed) == 200_000

    async def follow() -> dict[str, Any]:
        async with asyncio.timeout(30), connect(f"{alive.url}/?token={alive.token}") as doc:
            await doc.wait_for(lambda doc: any("rtc_truncated" in row.metadata for row in doc.executions.values()))
            await doc.wait_for(lambda doc: all(row.finished_at for row in doc.executions.values()))
            (row,) = (row for row in doc.executions.values() if "rtc_truncated" in row.metadata)
            return dict(row.metadata["rtc_truncated"])

    assert 0 < asyncio.run(follow())["bytes"] <= 200_000
    (row,) = asyncio.run(call(address_of(alive), "GET", "/api/history"))["executions"]
    text = row["outputs"][0]["text"]
    assert printed.startswith(text)
    assert len(text) + len(row["code"]) <= 65536
    assert row["metadata"]["rtc_truncated"]["bytes"] == len(printed) - len(text)


def test_a_live_kernels_agent_prunes_its_own_history(
    kernel: Running, home: Path, capsys: Capture, until: Callable[..., object]
) -> None:
    """Its document goes on as it was; what has left the history is 404, with what to do."""
    until(discovery.live, "the agent has said where it is", 30)
    (alive,) = discovery.live()
    dead = leave(home, "5f0c1111", 5)
    for at in range(NEWEST_KEPT + 8):
        kernel.execute(f"print({at})")
    address = address_of(alive)

    def ask(method: str, path: str, body: Any = None) -> Any:
        return asyncio.run(call(address, method, path, body))

    def history() -> list[Any]:
        return list(ask("GET", "/api/history?limit=1000")["executions"])

    newest = recorded(alive.kernel_id, *["ok"] * (NEWEST_KEPT + 8))[::-1]
    epoch = ask("GET", "/api/health")["epoch"]
    assert [row["alive"] for row in told(capsys, "--keep", "1")] == [False]
    (would,) = told(capsys, alive.kernel_id[:8], "--keep", "1", "--dry-run")
    assert (would["executions"], would["executions_left"], would["alive"]) == (
        len(newest) - NEWEST_KEPT,
        NEWEST_KEPT,
        True,
    )
    assert len(history()) == len(newest)
    assert ask("POST", "/api/prune", {})["executions_left"] == 55  # its settings
    would |= {"executions": 55 - NEWEST_KEPT}
    rows = told(capsys, "--all", "--keep", "1")
    would["bytes"] = rows[0]["bytes"]
    assert rows == [would, {**rows[1], "path": str(dead), "executions": 0}]
    assert history() == newest[:NEWEST_KEPT]
    assert ask("GET", "/api/health")["epoch"] == epoch
    with pytest.raises(SetupError, match="no such execution") as caught:
        ask("GET", f"/api/executions/{newest[-1]['id']}")
    assert caught.value.remedy
    for body in (
        {"keep": -1},
        {"keep": 1.5},
        {"older_than_s": "1"},
        {"dry_run": 1},
        {"nonsense": 1},
        {"max_bytes": True},
    ):
        with pytest.raises(SetupError):
            ask("POST", "/api/prune", body)
    kernel.execute("print('on')")
    until(lambda: ask("GET", "/api/history?limit=1")["executions"][0]["code"] == "print('on')", "it to be stored")
