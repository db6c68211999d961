"""Facts about ``jupyter rtc …``: what is printed, what a program reads, and how errors end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import Gate, Running, printed
from nbformat.v4 import new_code_cell, new_notebook
from standin import KERNEL, StandIn, standin

from rtc_kernel import __version__, cli, discovery
from rtc_kernel.cli import grammar, terminal
from rtc_kernel.cli.watching import Printer
from rtc_kernel.config import trait_names
from rtc_kernel.tables import (
    AddOutput,
    Execution,
    ExecutionState,
    Output,
    PutExecution,
    WriteText,
)

Capture = pytest.CaptureFixture[str]


def jupyter_rtc(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """As a user would, in a process of its own, 80 columns wide."""
    return subprocess.run(
        [sys.executable, "-m", "rtc_kernel.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"COLUMNS": "80"},
    )


def recorded() -> list[str]:
    """The states of what is in the history, the newest first."""
    return [row["state"] for row in json.loads(jupyter_rtc("history", "--json").stdout or "[]")]


@pytest.fixture
def live(kernel: Running, until: Callable[..., object]) -> Running:
    """A real RTC Python that ran something and whose agent is up."""
    until(lambda: discovery.live(), "the agent has said where it is", 30)
    kernel.execute("print('höi')")
    kernel.execute("1/0")
    until(lambda: recorded() == ["error", "ok"], "both are stored", 30)
    return kernel


# --- the grammar


def test_help_version_and_settings_are_told(capsys: Capture) -> None:
    for arguments in (["--help"], ["--version"], ["run", "--help"], ["watch", "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0
    told = capsys.readouterr().out
    assert __version__ in told
    for command in ("run", "list", "watch", "history", "show", "export", "share", "unshare", "status", "install"):
        assert f"\n    {command} " in told
    assert cli.main(["--help-all"]) == 0
    told = capsys.readouterr().out
    assert all(f"--RTCKernel.{name}=" in told for name in trait_names())


def test_every_command_is_there_and_takes_its_arguments() -> None:
    actions = grammar.parser()._subparsers
    assert actions is not None
    for choice in actions._group_actions[0].choices.values():  # type: ignore[union-attr, attr-defined]
        assert callable(grammar.load(choice.get_default("command")))


def test_it_is_a_subcommand_of_jupyter() -> None:
    command = Path(sys.executable).with_name("jupyter")
    done = subprocess.run([command, "rtc", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "x.ipynb", "--timeout", "0"],
        ["run", "x.ipynb", "--timeout", "soon"],
        ["run", "x.ipynb", "-p", "x"],
        ["share", "--expires", "2 weeks"],
        ["history", "-n", "0"],
        ["history", "--all", "--notebook", "x"],
        ["install", "--user", "--prefix", "x"],
        ["nonsense"],
    ],
)
def test_a_wrong_line_is_told_with_the_usage(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: jupyter rtc" in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(capsys: Capture) -> None:
    assert cli.main([]) == 2
    assert "usage: jupyter rtc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "none.ipynb"], 2, "there is no notebook none.ipynb: look at the path"),
        (["run", "none.ipynb", "--json", "-o", "-"], 2, "--json and -o - both want stdout: give -o a file"),
        (["watch"], 2, "no RTC kernel lives on this machine"),
        (["watch", "abc"], 2, "no live RTC kernel 'abc'"),
        (["watch", "http://127.0.0.1:9/?token=s3cret"], 1, "no document within"),
        (["status"], 2, "no RTC kernel lives"),
        (["share"], 2, "no RTC kernel lives"),
        (["unshare", "x"], 2, "no RTC kernel lives"),
        (["history"], 2, "no kernel has left a history"),
        (["history", "abc"], 2, "no kernel 'abc' lives or has left a history"),
        (["show", "abcd"], 2, "no execution 'abcd'"),
        (["export", "x.ipynb"], 2, "no kernel has left a history"),
        (["install", "--kernel", "nope"], 2, "no kernelspec 'nope' is installed: known are:"),
        (["uninstall", "python3"], 2, "not ours"),
        (["list", "--RTCKernel.port=x"], 1, "port"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, says: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert told.err.startswith("jupyter rtc: ")
    assert says in told.err
    assert "s3cret" not in told.err


def test_nobody_lives_where_nobody_lives(capsys: Capture) -> None:
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == "No RTC kernel lives on this machine.\n"
    assert cli.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


# --- kernelspecs


def test_install_and_uninstall(home: Path, capsys: Capture) -> None:
    directory = home / "data" / "kernels" / "other"
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text('{"argv": ["x"], "display_name": "other", "language": "o"}')
    assert cli.main(["install", "--kernel", "other", "--user"]) == 0
    assert "Installed RTC Other as rtc-other in" in capsys.readouterr().out
    assert cli.main(["install", "--kernel", "other", "--user", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "rtc-other"
    assert cli.main(["uninstall", "rtc-other"]) == 0
    assert not (directory.parent / "rtc-other").exists()


# --- a kernel that lives


def test_a_live_kernel_is_listed_described_shared_and_unshared(live: Running, until: Callable[..., Any]) -> None:
    def answering() -> list[dict[str, Any]]:  # one that does not within 2 s is listed without its state
        return [row for row in json.loads(jupyter_rtc("list", "--json").stdout) if row["state"] == "idle"]

    until(lambda: re.search(rf"{live.kernel_id[:8]}.* idle ", jupyter_rtc("list").stdout), "it is listed as idle")
    (row,) = until(answering, "it is listed for programs")
    assert row["kernel_id"] == live.kernel_id
    assert "token" not in row

    done = jupyter_rtc("status")
    assert done.returncode == 0
    assert live.kernel_id in done.stdout
    assert json.loads(jupyter_rtc("status", live.kernel_id[:8], "--json").stdout)["role"] == "own"

    done = jupyter_rtc("share", "--name", "team", "--expires", "2h")
    url = done.stdout.splitlines()[0]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S+", url)
    assert "jupyter rtc unshare team" in done.stdout
    link = json.loads(jupyter_rtc("share", "--role", "run", "--json").stdout)
    assert (link["role"], link["expires_at"]) == ("run", None)

    assert jupyter_rtc("watch", url, "--once").returncode == 0
    assert jupyter_rtc("unshare", "team").stdout == "Withdrawn: team\n"
    done = jupyter_rtc("watch", url, "--once")
    assert done.returncode == 1
    assert "%rtc share" in done.stderr
    assert link["name"] in jupyter_rtc("unshare").stdout
    assert jupyter_rtc("unshare").stdout == "There was no link to withdraw.\n"
    assert "there is no token of that name" in jupyter_rtc("unshare", "nobody").stderr


def test_the_history_is_there_while_the_kernel_lives_and_afterwards(
    live: Running, until: Callable[..., object], tmp_path: Path
) -> None:
    def facts(*kernel: str) -> None:
        done = jupyter_rtc("history", *kernel)
        lines = done.stdout.splitlines()
        assert re.match(r"#1 +ok .*print\('höi'\)", lines[1])
        assert re.match(r"#2 +error .*1/0", lines[2])
        assert max(map(len, lines)) <= 80
        newest, oldest = json.loads(jupyter_rtc("history", *kernel, "--json").stdout)
        assert (newest["seq"], oldest["seq"]) == (2, 1)
        assert oldest["outputs"][0]["text"] == "höi\n"
        (found,) = json.loads(jupyter_rtc("history", *kernel, "--grep", "h.i", "--json").stdout)
        assert found["seq"] == 1
        (found,) = json.loads(jupyter_rtc("history", *kernel, "--state", "error", "--json").stdout)
        assert found["seq"] == 2
        (found,) = json.loads(jupyter_rtc("history", *kernel, "-n", "1", "--json").stdout)
        assert found["seq"] == 2
        assert live.kernel_id[:8] in jupyter_rtc("history", "--all").stdout
        for name in ("1", "#1", oldest["id"]):
            assert "höi" in jupyter_rtc("show", name).stdout
        assert json.loads(jupyter_rtc("show", newest["id"], "--json").stdout) == newest
        assert "ZeroDivisionError" in jupyter_rtc("show", "2").stdout

    facts()
    file = tmp_path / "history.ipynb"
    assert jupyter_rtc("export", str(file)).returncode == 0
    made = nbformat.read(file, 4)
    nbformat.validate(made)
    assert [cell.source for cell in made.cells] == ["print('höi')", "1/0"]
    done = jupyter_rtc("export", str(file))
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert json.loads(jupyter_rtc("export", "-", live.kernel_id).stdout)["nbformat"] == 4

    live.manager.shutdown_kernel()
    until(lambda: not discovery.live(), "the kernel is gone")
    facts()
    facts(live.kernel_id[:8])


def test_a_history_that_is_in_memory_only_is_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch, until: Callable[..., object], request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("RTC_KERNEL_HISTORY", "memory")
    kernel: Running = request.getfixturevalue("kernel")
    until(discovery.live, "the agent has said where it is", 30)
    kernel.execute("print('höi')")
    until(lambda: recorded() == ["ok"], "it is known", 30)
    assert "höi" in jupyter_rtc("show", "1").stdout
    assert json.loads(jupyter_rtc("export", "-").stdout)["cells"][0]["source"] == "print('höi')"
    assert list(home.rglob("*.sqlite3")) == []


class Reader:
    """The lines of a process that goes on, as they come."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rtc_kernel.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"COLUMNS": "80"},
        )
        self._thread = threading.Thread(target=self._read, name=f"read {arguments}")
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
        self.process.stdout.close()

    def has(self, text: str) -> Callable[[], bool]:
        return lambda: any(text in line for line in self.lines)

    def end(self) -> int:
        code = self.process.wait(timeout=60)
        self._thread.join(timeout=30)
        return code


@contextlib.contextmanager
def reading(*arguments: str) -> Iterator[Reader]:
    reader = Reader(*arguments)
    try:
        yield reader
    finally:
        if reader.process.poll() is None:
            reader.process.kill()
        reader.end()


def test_watch_prints_what_others_run_as_it_happens_and_ends_with_ctrl_c(
    live: Running, until: Callable[..., object], gate: Gate
) -> None:
    with reading("watch") as seen, reading("watch", "--json") as read:
        until(seen.has(live.kernel_id[:8]), "the headline stands there", 30)
        until(lambda: json.loads(jupyter_rtc("status", "--json").stdout)["peers"] == 2, "both follow", 30)
        live.client.execute("print('begun', flush=True)\n" + gate.code + "print('☃ ended')")
        until(seen.has("begun"), "the output came while the cell runs", 30)
        assert not seen.has("☃ ended")()
        gate.open()
        until(seen.has("#3 ok"), "the end is told", 30)
        for reader in (seen, read):
            until(lambda reader=reader: reader.has("ended")(), "both have it", 30)
            reader.process.send_signal(signal.SIGINT)
        assert (seen.end(), read.end()) == (0, 0)
    text = "\n".join(seen.lines)
    assert text.index("▶ print('begun'") < text.index("begun") < text.index("☃ ended") < text.index("#3 ok")
    assert "Traceback" not in text
    changes = [json.loads(line) for line in read.lines]
    assert {change["kind"] for change in changes} <= {"added", "updated"}
    assert changes[-1]["record"] is not None


def test_watch_survives_a_restart_and_ends_when_the_kernel_is_gone(live: Running, until: Callable[..., object]) -> None:
    with reading("watch", live.kernel_id) as seen:
        until(seen.has(live.kernel_id[:8]), "the headline stands there", 30)
        live.manager.restart_kernel()
        live.client.wait_for_ready(timeout=60)
        live.execute("print('after the restart')")
        until(seen.has("after the restart"), lambda: f"the new life is followed in {seen.lines}", 90)
        live.manager.shutdown_kernel()
        assert seen.end() == 0
    assert seen.lines[-1] == f"The kernel {live.kernel_id} is gone."


def test_with_two_kernels_a_name_must_be_given(live: Running, capsys: Capture) -> None:
    (entry,) = discovery.live()
    columns = {name: getattr(entry, name) for name in discovery.LiveKernel.__dataclass_fields__}
    discovery.write(discovery.LiveKernel(**columns | {"kernel_id": "another-one"}))
    for command in ("status", "share", "watch", "history"):
        assert cli.main([command]) == 2
        told = capsys.readouterr().err
        assert "2 RTC kernels live on this machine" in told
        assert "another-one" in told
        assert live.kernel_id in told


# --- run


def notebook(path: Path, *sources: str) -> Path:
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def test_run_gives_the_link_first_and_writes_the_notebook(tmp_path: Path) -> None:
    path, out = notebook(tmp_path / "n.ipynb", "print('höi')", "1/0"), tmp_path / "out.ipynb"
    done = jupyter_rtc("run", str(path), "-o", str(out))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    live = next(at for at, line in enumerate(lines) if re.match(r"Live: http://127\.0\.0\.1:\d+/\?token=", line))
    assert live < next(at for at, line in enumerate(lines) if line.startswith("[1/2] running"))
    assert "Traceback (most recent call last)" in done.stderr  # of the cell
    assert "\x1b" not in done.stderr
    assert "jupyter rtc: cell 2 of 2: ZeroDivisionError: division by zero" in lines
    assert printed(nbformat.read(out, 4))[0] == "höi\n"
    assert done.stdout == ""
    assert "1/0" in jupyter_rtc("history").stdout


def test_run_writes_to_stdout_and_tells_events_as_json(tmp_path: Path) -> None:
    path = notebook(tmp_path / "n.ipynb", "print(x)")
    done = jupyter_rtc("run", str(path), "-o", "-", "-p", "x", "[1, 2]")
    assert done.returncode == 0
    assert printed(nbformat.reads(done.stdout, 4))[1] == "[1, 2]\n"
    done = jupyter_rtc("run", str(path), "--json", "--allow-errors")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["link", "cell", "cell", "end"]
    assert [event["state"] for event in events[1:]] == ["running", "error", "ok"]
    assert events[1]["line"] == "print(x)"
    assert events[-1]["exit_code"] == done.returncode == 0


def test_a_setting_on_the_command_line_reaches_the_kernel(tmp_path: Path, home: Path) -> None:
    path = notebook(tmp_path / "n.ipynb", "1")
    done = jupyter_rtc("run", str(path), f"--RTCKernel.history_dir={tmp_path / 'kept'}")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "kept").glob("*.sqlite3"))) == 1
    done = jupyter_rtc("run", str(path), "--RTCKernel.agent=False")
    assert "No live link: the agent is switched off" in done.stderr
    assert done.returncode == 0


# --- what is printed


def row(text: str = "", *, state: str = "running", **columns: Any) -> Execution:
    outputs = (Output(output_type="stream", at=1.0, name="stdout", text=text),) if text else ()
    return Execution(id="e", seq=3, code="\nfor x in y:\n  z", state=ExecutionState(state), outputs=outputs, **columns)


def test_lines_are_printed_once_when_they_are_finished() -> None:
    printer = Printer()
    assert list(printer.lines(row(state="queued"))) == []
    assert list(printer.lines(row())) == ["#3 ▶ for x in y:"]
    assert list(printer.lines(row("one\ntw"))) == ["one"]
    assert printer.rest(row("one\ntw")) == "tw"
    assert list(printer.lines(row("one\ntwo\nth"))) == ["two"]
    assert list(printer.lines(row("one\ntwo\nthree", state="ok", started_at=1.0, finished_at=2.5))) == [
        "three",
        "#3 ok · 1.50 s",
    ]
    assert list(printer.lines(row("one\ntwo\nthree", state="ok"))) == []


def test_a_progress_bar_is_printed_when_its_line_is_finished() -> None:
    printer = Printer()
    list(printer.lines(row()))
    for percent in range(100):
        assert list(printer.lines(row(f"{percent}%"))) == []
    assert list(printer.lines(row("100%\n"))) == ["100%"]


def test_outputs_that_are_cleared_or_rewritten_are_said_so() -> None:
    printer = Printer()
    assert list(printer.lines(row("a\nb\n")))[1:] == ["a", "b"]
    assert list(printer.lines(row("a\nB\nc\n"))) == ["B", "c"]
    assert list(printer.lines(row())) == ["(output cleared)"]
    assert list(printer.lines(row("new\n"))) == ["new"]


def test_what_the_document_left_out_is_named_where_it_would_have_been_printed() -> None:
    printer = Printer()
    assert list(printer.lines(row("a\nb\n")))[1:] == ["a", "b"]
    tail = Output(
        output_type="stream",
        at=1.0,
        name="stdout",
        text="a\nb\nlast\n",
        omitted_bytes=50,
        omitted_segment=1,
        omitted_index=4,
    )
    flooded = Execution(id="e", seq=3, state=ExecutionState.RUNNING, outputs=(tail,))
    assert list(printer.lines(flooded)) == ["… 50 bytes left out here; `jupyter rtc show #3` has them", "last"]
    assert list(printer.lines(flooded)) == []


def test_an_error_is_printed_with_its_name() -> None:
    printer = Printer()
    failed = row(state="error", error={"ename": "E", "evalue": "why"})
    assert list(printer.lines(failed)) == ["#3 ▶ for x in y:", "#3 error · E: why"]


@pytest.mark.parametrize(
    ("text", "plain", "coloured"),
    [
        ("a\x1b[31mred\x1b[0m", "ared", "a\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b[2J\x1b[Hx", "x", "x"),
        ("\x1b]0;title\x07x", "x", "x"),
        ("\x1b]52;c;aGk=\x1b\\x", "x", "x"),
        ("\x1bPq#0\x1b\\x", "x", "x"),
        ("a\tb\nc\x00\x08\x9b31m", "a\tb\nc31m", "a\tb\nc31m"),
        ("\x1b]0;never ended", "", ""),
    ],
)
def test_an_output_does_nothing_to_a_terminal_but_stand_there(text: str, plain: str, coloured: str) -> None:
    assert terminal.clean(text) == plain
    assert terminal.clean(text, colours=True) == coloured


def test_an_output_that_is_no_text_is_named() -> None:
    picture = {"blob": "sha256:0", "bytes": 2048}
    both = Output(output_type="display_data", at=0.0, data={"text/plain": "<Figure>", "image/png": picture})
    assert terminal.output_text(both) == "<Figure> [image/png 2.0 KiB]"
    alone = Output(output_type="display_data", at=0.0, data={"text/html": "<b>"})
    assert terminal.output_text(alone) == "[text/html]"
    failed = Output(output_type="error", at=0.0, ename="E", evalue="v", traceback=())
    assert terminal.output_text(failed) == "E: v"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.123, "0.12 s"), (12.34, "12.3 s"), (65, "1 min 5 s"), (7380, "2 h 3 min")]
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_a_time_of_another_day_has_its_date() -> None:
    now = time.mktime((2026, 5, 2, 12, 0, 0, 0, 0, -1))
    assert terminal.moment(now - 60, now) == "11:59:00"
    assert terminal.moment(now - 86400, now) == "2026-05-01 12:00:00"


# --- without a kernel


def test_watch_once_shows_what_there_is(capsys: Capture) -> None:
    def fill(server: StandIn) -> None:
        server.apply(
            PutExecution("e", {"seq": 1, "kernel": KERNEL, "code": "print(1)", "state": "running"}),
            AddOutput("e", 0, Output(output_type="stream", at=1.0, name="stdout", text="")),
            WriteText("e", 0, 0, None, "whole\nhalf"),
        )

    async def fact() -> None:
        async with standin() as server:
            fill(server)
            url = f"{server.url}/?token=view-token"
            assert await asyncio.to_thread(cli.main, ["watch", url, "--once"]) == 0
            assert await asyncio.to_thread(cli.main, ["watch", url, "--once", "--json"]) == 0

    asyncio.run(fact())
    *lines, last = capsys.readouterr().out.splitlines()
    assert KERNEL[:8] in lines[0]
    assert lines[1:] == ["#1 ▶ print(1)", "whole", "half"]
    assert json.loads(last)["outputs"][0]["text"] == "whole\nhalf"
