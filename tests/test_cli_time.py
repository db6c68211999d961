"""``jupyter rtc replay``, ``export --at`` and ``rerun``: what they show, of kernels that live and of files."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from kernels import FOREVER, Gate, Running, finish

from rtc_kernel import cli, discovery
from rtc_kernel.agent.keep.edit import PAUSE_S
from rtc_kernel.agent.keep.store import Store
from rtc_kernel.cli.grammar import parser, read_moment
from rtc_kernel.cli.replaying import Event, Screen, paced
from rtc_kernel.moments import UNKNOWN, Piece
from rtc_kernel.tables import AddOutput, Change, Execution, Output, PutExecution, WriteText

Capture = pytest.CaptureFixture[str]
KERNEL = "5f0c1111"
T = 1_795_262_400.0  # 2026-11-21T12:00:00Z


def stream(at: float, name: str = "stdout") -> Output:
    return Output(output_type="stream", at=T + at, name=name, text="")


def shown(text: str, at: float, kind: str = "display_data", **columns: Any) -> Output:
    return Output(output_type=kind, at=T + at, data={"text/plain": text}, metadata={}, **columns)


def leave(home: Path, *runs: tuple[Execution, tuple[tuple[float, str], ...]], kernel: str = "python3") -> Path:
    """The history of a dead kernel. Each execution with the pieces of the stream that is its first output."""
    path = home / "data" / "rtc_kernel" / f"{KERNEL}.sqlite3"
    with closing(Store.open(path)) as store:
        store.begin(relay_id="r", kernel={"id": KERNEL, "name": kernel}, now=T)
        for number, (run, texts) in enumerate(runs, 1):
            columns = {"seq": number} | {
                name: getattr(run, name)
                for name in (
                    "code",
                    "state",
                    "queued_at",
                    "started_at",
                    "finished_at",
                    "generation",
                    "private",
                    "error",
                )
            }
            changes: list[Change] = [PutExecution(f"run{number}", columns)]
            if texts:
                changes.append(AddOutput(f"run{number}", 0, stream(texts[0][0])))
            changes += [WriteText(f"run{number}", 0, at, None, text, T + when) for at, (when, text) in enumerate(texts)]
            first = 1 if texts else 0
            changes += [AddOutput(f"run{number}", at, output) for at, output in enumerate(run.outputs, first)]
            store.write(changes, relay_id="r", seq=number, mirror_state=None)
    return path


def ran(code: str, start: float, end: float, *outputs: Output, state: str = "ok", **columns: Any) -> Execution:
    times = {"queued_at": T + start, "started_at": T + start, "finished_at": T + end}
    return Execution(id="", code=code, state=state, outputs=outputs, **(times | columns))  # type: ignore[arg-type]


COUNTING = (ran("count()", 0, 10, shown("'new'", 9, display_id="d")), ((1.0, "one\n"), (4.0, "two\n"), (8.0, "three")))
FAILING = (
    ran(
        "fail(\n)",
        3600,
        3601,
        Output(output_type="error", at=T + 3600.5, ename="E", evalue="no", traceback=("tb",)),
        state="error",
        error={"ename": "E", "evalue": "no"},
    ),
    (),
)

# --- when


def moment(text: str, now: float = T) -> float | None:
    return read_moment(text, now)


def test_a_time_is_iso_8601_of_today_relative_or_in_seconds() -> None:
    local = datetime.fromtimestamp(T)
    assert moment("2026-11-21T12:00:00Z") == moment("2026-11-21T13:00:00+01:00") == moment("1795262400") == T
    assert moment("1795262400.25") == T + 0.25
    assert moment(local.isoformat()) == moment(local.isoformat(" ")) == T
    assert moment(f"{local:%H:%M}") == moment(f"{local:%H:%M:%S}") == T
    assert moment("9:05") == local.replace(hour=9, minute=5).timestamp()
    assert moment("2026-11-21") == local.replace(hour=0).timestamp()
    assert [moment(f"-{text}") for text in ("90s", "10m", "1.5h", "2d")] == [T - 90, T - 600, T - 5400, T - 172_800]
    wrong = ("", "soon", "25:00", "14:3", "-10", "10m", "-999999d", "2026-13-01", "1e9", "14", "1:", "9" * 40)
    assert [moment(text) for text in wrong] == [None] * len(wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "x.ipynb", "--at", "soon"],
        ["replay", "1", "--speed", "-1"],
        ["replay", "1", "--speed", "nan"],
        ["replay", "1", "--max-pause", "0"],
        ["rerun", "--timeout", "x"],
    ],
)
def test_what_is_no_time_or_speed_is_told_with_the_usage(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: jupyter rtc" in capsys.readouterr().err


def test_a_relative_time_is_no_option() -> None:
    args = parser().parse_args(["export", "--at", "-10m", "x.ipynb"])
    assert time.time() - args.at == pytest.approx(600, abs=60)


# --- replay


class Clock:
    """A time that only waiting moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("speed", "max_pause_s", "at"),
    [
        (1.0, None, [0, 2, 12, 13, 14]),
        (4.0, None, [0, 0.5, 3, 4, 4.25]),
        (1.0, 3.0, [0, 2, 5, 6, 7]),
        (2.0, 0.25, [0, 0.25, 0.5, 0.75, 1.0]),
        (math.inf, None, [0, 0, 0, 0, 0]),
    ],
)
def test_events_come_in_their_time_and_nothing_runs_for_a_second(
    speed: float, max_pause_s: float | None, at: list[float]
) -> None:
    one, other = Execution(id="1"), Execution(id="2")
    piece = Piece(2.0, 0)
    events = [
        Event(0.0, one, "begin"), Event(2.0, one, "output", piece), Event(12.0, one, "end"),
        Event(5000.0, other, "begin"), Event(5001.0, other, "end"),
    ]  # fmt: skip
    clock = Clock()
    came = [
        clock.now - 100.0
        for _ in paced(events, speed=speed, max_pause_s=max_pause_s, clock=lambda: clock.now, wait=clock.wait)
    ]
    assert came == pytest.approx(at)


def play(*texts: tuple[int, str], names: tuple[str, ...] = ("stdout",), colours: bool = False) -> str:
    """What a screen shows of pieces of streams, ``(position, text)``."""
    whole = ["".join(text for position, text in texts if position == at) for at in range(len(names))]
    outputs = tuple(
        Output(output_type="stream", at=1.0, name=name, text=text) for name, text in zip(names, whole, strict=True)
    )
    run, starts, target = Execution(id="e", outputs=outputs), [0] * len(names), io.StringIO()
    screen = Screen(target, colours=colours)
    for position, text in texts:
        end = starts[position] + len(text)
        screen.show(Event(1.0, run, "output", Piece(1.0, position, starts[position], end)))
        starts[position] = end
    screen.close()
    return target.getvalue()


def test_a_stream_goes_on_in_its_row_and_another_begins_in_its_own() -> None:
    assert play((0, "a"), (0, "b\n"), (0, "c")) == "ab\nc\n"
    assert play((0, "a"), (1, "b"), (1, "c\n"), names=("stdout", "stderr")) == "a\nbc\n"
    assert play() == ""


def test_an_escape_sequence_in_two_pieces_does_nothing_and_colours_stay_in_force() -> None:
    assert play((0, "a\x1b"), (0, "[2"), (0, "Jb\n")) == "ab\n"
    assert play((0, "\x1b[3"), (0, "1mred"), (0, " still\x1b[0m"), (0, " no"), colours=True) == (
        "\x1b[31mred\x1b[0m\x1b[31m still\x1b[0m\x1b[0m no\n"
    )
    assert play((0, "\x1b[31mred"), (0, " still\x1b[0m")) == "red still\n"


def test_a_run_of_a_dead_kernel_is_shown_as_it_went(home: Path, capsys: Capture) -> None:
    path = leave(home, COUNTING, FAILING)
    assert cli.main(["replay", "all", "--speed", "0"]) == 0
    first, second = capsys.readouterr().out.split("#2 · ", 1)
    head, *lines = first.splitlines()
    assert head.startswith("#1 · ")
    assert lines == ["▶ count()", "one", "two", "three", "'new'", "#1 ok · 10.0 s"]
    assert second.splitlines()[1:] == ["▶ fail(", "  )", "tb", "#2 error · 1.00 s · E: no"]
    for key, kernel in (("run2", KERNEL[:4]), ("#2", str(path)), ("2-2", KERNEL), ("2-", KERNEL)):
        assert cli.main(["replay", key, kernel, "--speed", "inf"]) == 0
        assert capsys.readouterr().out == f"#2 · {second}"
    for key in ("9", "3-", "nothing"):
        assert cli.main(["replay", key, KERNEL]) == 2
        assert f"no execution '{key}'" in capsys.readouterr().err


def test_what_nobody_ended_is_shown_and_named(home: Path, capsys: Capture) -> None:
    path = leave(home, (ran("f()", 0, 0, state="running", finished_at=None), ((1.0, "so far"),)))
    assert cli.main(["replay", "1", str(path), "--speed", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["▶ f()", "so far", "#1 lost"]


def test_ctrl_c_ends_a_replay_at_the_start_of_a_row(home: Path, tmp_path: Path, until: Callable[..., Any]) -> None:
    leave(home, (ran("slow()", 0, 9000), ((1.0, "one"), (8000.0, "two"))))
    told = tmp_path / "told"
    with told.open("w") as file:
        command = [sys.executable, "-m", "rtc_kernel.cli", "replay", "1"]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: told.read_text().endswith("one"), "the first text is shown", 30)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "")
    assert told.read_text().endswith("one\n")


# --- export --at


def exported(capsys: Capture, at: str) -> Any:
    assert cli.main(["export", "-", "--at", at]) == 0
    value = json.loads(capsys.readouterr().out)
    nbformat.validate(value)
    return value


def test_an_export_of_a_time_has_what_there_was_then(home: Path, capsys: Capture) -> None:
    leave(home, COUNTING, FAILING)
    assert exported(capsys, f"{T - 1:.0f}")["cells"] == []
    then = exported(capsys, f"{T + 4.5}")
    (cell,) = then["cells"]
    assert [output["text"] for output in cell["outputs"]] == ["one\ntwo\n"]
    assert (cell["metadata"]["rtc"]["state"], cell["metadata"]["rtc"]["finished_at"]) == ("running", None)
    assert then["metadata"]["rtc"]["at"] == "2026-11-21T12:00:04.500Z"
    iso = datetime.fromtimestamp(T + 3600.2).isoformat()
    first, second = exported(capsys, iso)["cells"]
    assert [output["output_type"] for output in first["outputs"]] == ["stream", "display_data"]
    assert (second["outputs"], second["metadata"]["rtc"]["state"]) == ([], "running")


def test_a_display_that_was_updated_later_is_named(home: Path, capsys: Capture, tmp_path: Path) -> None:
    leave(home, (ran("show()", 0, 10, shown("'new'", 50, display_id="d")), ()))
    then = exported(capsys, f"{T + 20:.0f}")
    assert then["cells"][0]["outputs"][0]["data"] == {"text/plain": UNKNOWN}
    assert then["metadata"]["rtc"]["unknown_outputs"] == 1
    path = tmp_path / "then.ipynb"
    assert cli.main(["export", str(path), "--at", f"{T + 20:.0f}"]) == 0
    told = capsys.readouterr().err
    assert "1 execution of 5f0c1111 at 2026-11-21T12:00:20.000Z" in told
    assert "1 of their displays was updated later" in told
    assert exported(capsys, f"{T + 50:.0f}")["cells"][0]["outputs"][0]["data"] == {"text/plain": "'new'"}


# --- a kernel that lives


def test_a_live_kernel_is_replayed_exported_and_run_again(
    kernel: Running, until: Callable[..., Any], capsys: Capture, gate: Gate
) -> None:
    """Over its file and over a link alike; and run again it says the same."""
    (live,) = until(discovery.live, "the agent has said where it is", 30)
    begun = kernel.client.execute(f"print('one', flush=True)\n{gate.code}print('two')")

    def recorded() -> Any:
        assert cli.main(["history", "--json"]) == 0
        runs = json.loads(capsys.readouterr().out)
        return runs and runs[-1]["outputs"]

    until(recorded, "'one' is recorded", 30)
    between = datetime.now()
    until(lambda: datetime.now() - between > timedelta(seconds=2 * PAUSE_S), "that would be told apart", 30)
    gate.open()
    finish(kernel.client, begun)
    kernel.execute("class A: pass\nA()")
    kernel.execute("1/0")

    def replayed(name: str) -> str:
        assert cli.main(["replay", "all", name, "--speed", "0"]) == 0
        return capsys.readouterr().out

    until(lambda: "#3 error" in replayed(kernel.kernel_id), "all is stored", 30)
    assert cli.main(["share", "--json"]) == 0
    link = json.loads(capsys.readouterr().out)["url"]
    text = replayed(link)
    assert text == replayed(str(live.store)) == replayed(kernel.kernel_id)
    assert "\none\ntwo\n#1 ok" in text

    value = exported(capsys, between.isoformat())
    assert [cell["outputs"] for cell in value["cells"]] == [
        [{"name": "stdout", "output_type": "stream", "text": "one\n"}]
    ]
    assert cli.main(["replay", "1", "http://127.0.0.1:9/?token=x"]) == 1

    capsys.readouterr()
    assert cli.main(["rerun", kernel.kernel_id]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 executions: 3 same."
    assert len(discovery.live()) == 1
    files = list(Path(str(live.store)).parent.glob("*.sqlite3"))
    assert files == [Path(str(live.store))], "what was run again has left a history"


# --- rerun


def said(capsys: Capture, *arguments: str, code: int) -> dict[str, Any]:
    assert cli.main(["rerun", KERNEL, "--json", *arguments]) == code
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def verdicts(value: dict[str, Any]) -> list[tuple[int, str]]:
    return [(row["number"], row["verdict"]) for row in value["executions"]]


def test_a_history_is_run_again_in_the_order_in_which_it_began(home: Path, capsys: Capture) -> None:
    """What never ran or is private is left out; a restart is a restart; nobody is asked."""
    line = lambda text, start: ((start, text),)  # noqa: E731
    leave(
        home,
        (ran("print(x)", 20, 21), line("5\n", 20)),
        (ran("x = 5", 10, 11), ()),
        (ran("secret", 22, 23, private=True), ()),
        (ran("never", 23, 23, state="aborted", started_at=None), ()),
        (ran("import random; random.random()", 30, 31, shown("0.5", 30, "execute_result")), ()),
        (ran("input('name? ')", 40, 41, shown("'ada'", 41, "execute_result")), ()),
        (ran("print(1)", 60, 61, state="lost"), line("1\n", 60)),
        (ran("print('x' in globals())", 70, 71, generation=1), line("False\n", 70)),
    )
    value = said(capsys, code=1)
    assert value["left_out"] == {"never ran": 1, "private": 1}
    assert verdicts(value) == [
        (2, "same"), (1, "same"), (5, "differs"), (6, "differs"), (7, "not compared"), (8, "same"),
    ]  # fmt: skip
    rows = {row["number"]: row for row in value["executions"]}
    assert rows[5]["diff"][1] == "-execute_result text/plain: 0.5"
    assert rows[6]["notes"] == ["it ended error, was ok", "it asks for input, and nobody is there to answer"]
    assert rows[7]["notes"] == ["it is recorded as lost: how it ended is not known"]


def test_what_takes_too_long_is_interrupted_and_what_came_behind_is_run(home: Path, capsys: Capture) -> None:
    leave(home, (ran("while True: pass", 0, 1), ()), (ran("print(1)", 10, 11), ((10.0, "1\n"),)))
    value = said(capsys, "--timeout", "8", code=1)
    assert verdicts(value) == [(1, "differs"), (2, "same")]
    assert value["executions"][0]["notes"] == ["it ended error, was ok", "interrupted after 8 s"]


def test_a_kernel_that_dies_and_a_failure_end_a_rerun(home: Path, capsys: Capture) -> None:
    leave(
        home,
        (ran("1/0", 0, 1), ()),
        (ran("import os; os._exit(1)", 10, 11), ()),
        (ran("2", 20, 21, shown("2", 20, "execute_result")), ()),
    )
    value = said(capsys, "--from", "2", "--kernel", "python3", code=1)
    assert verdicts(value) == [(2, "differs"), (3, "not run")]
    assert value["executions"][0]["notes"] == ["it ended lost, was ok", "the kernel died"]
    assert value["executions"][1]["notes"] == ["not run: the kernel died"]
    assert cli.main(["rerun", KERNEL, "--to", "2", "--stop-on-error"]) == 1
    told = capsys.readouterr().out
    assert "ZeroDivisionError" in told
    assert told.splitlines()[-1] == "2 executions: 1 differs, 1 not run."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "2"], "has nothing to run"),
        (["--from", "99"], "no execution '99'"),
        (["--kernel", "nope"], "no kernelspec 'nope' is installed"),
        ([], "it is not recorded which kernel"),
    ],
)
def test_what_cannot_be_run_again_is_told(home: Path, capsys: Capture, arguments: list[str], says: str) -> None:
    leave(home, (ran("1", 0, 1), ()), (ran("never", 2, 2, state="cancelled", started_at=None), ()), kernel="")
    assert cli.main(["rerun", KERNEL, *arguments]) == 2
    assert says in capsys.readouterr().err


def test_ctrl_c_ends_a_rerun_and_its_kernel(home: Path, tmp_path: Path, until: Callable[..., Any]) -> None:
    sign = tmp_path / "pid"
    code = f"import os, pathlib\npathlib.Path({str(sign)!r}).write_text(f'{{os.getpid()}}.')\n" + FOREVER
    leave(home, (ran(code, 0, 1), ()))
    process = subprocess.Popen(
        [sys.executable, "-m", "rtc_kernel.cli", "rerun"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    )
    try:
        until(lambda: sign.exists() and sign.read_text().endswith("."), "the code runs", 60)
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=30)[0]
    finally:
        process.kill()
    assert (process.returncode, told) == (130, "")
    pid = int(sign.read_text().removesuffix("."))
    until(lambda: not psutil.pid_exists(pid), "the kernel is gone", 30)
