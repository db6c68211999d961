"""Facts about ``jupyter rtc exec``, ``interrupt``, ``restart`` and ``queue``: what is shown, asked for and returned."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import FOREVER, Gate, Running
from serving import eventually
from standin import standin

import rtc_kernel
from rtc_kernel import cli, discovery
from rtc_kernel.cli import grammar
from rtc_kernel.cli.asking import END_OF_INPUT, read_line
from rtc_kernel.cli.executing import EXIT_CODES
from rtc_kernel.cli.printing import Piece, Printout
from rtc_kernel.excerpts import say_gap, say_missing
from rtc_kernel.tables import END_STATES, Execution, ExecutionState, Output

Capture = pytest.CaptureFixture[str]
Until = Callable[..., Any]

COMMAND = [sys.executable, "-m", "rtc_kernel.cli"]


def rtc(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """As a user would, 80 columns wide, with nobody at a terminal."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "80"},
    )


def events(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass
class Terminal:
    """A command with a pseudo-terminal for stdin, stdout and stderr."""

    process: subprocess.Popen[bytes]
    master: int
    shown: bytes = b""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> None:
        with contextlib.suppress(OSError):  # Linux says EIO when the other side is closed
            while data := os.read(self.master, 4096):
                with self.lock:
                    self.shown += data

    @property
    def text(self) -> str:
        with self.lock:
            return self.shown.decode(errors="replace")

    def has(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.text

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)


@contextlib.contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    master, slave = os.openpty()
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    process = subprocess.Popen([*COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environ)
    made = Terminal(process, master)
    reader = threading.Thread(target=made.read, name=f"read {arguments}")
    reader.start()
    try:
        yield made
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)
        os.close(slave)
        reader.join(timeout=30)
        os.close(master)


@pytest.fixture
def live(kernel: Running, until: Until) -> Running:
    """A real RTC Python whose agent is up."""
    until(discovery.live, "the agent has said where it is", 30)
    return kernel


# --- the grammar


@pytest.mark.parametrize(
    ("line", "target", "code"),
    [
        (["1"], None, "1"),
        (["k", "1"], "k", "1"),
        (["k", "--json", "1"], "k", "1"),
        (["--cell", "c", "k", "--json", "1", "--timeout", "2"], "k", "1"),
        (["k", "-"], "k", "-"),
        (["-", "--silent"], None, "-"),
        (["k", "--", "-x"], "k", "-x"),
        (["k", "-x + 1"], "k", "-x + 1"),
    ],
)
def test_the_kernel_may_be_left_out_and_options_stand_anywhere(line: list[str], target: str | None, code: str) -> None:
    args = grammar.parser().parse_args(["exec", *line])
    assert (args.target, args.code) == (target, code)


@pytest.mark.parametrize(
    "line",
    [
        ["exec"],
        ["exec", "k", "1", "2"],
        ["exec", "1", "--nope"],
        ["exec", "1", "--timeout", "-1"],
        ["queue", "--release", "a", "--cancel", "b"],
        ["restart", "--execution", "1"],
        ["interrupt", "a", "b"],
    ],
)
def test_a_wrong_line_is_told_with_the_usage(line: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(line)
    assert caught.value.code == 2
    assert "usage: jupyter rtc" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["exec", "1"], ["interrupt"], ["restart"], ["queue"]])
def test_without_a_kernel_it_is_said_what_to_do(command: list[str], capsys: Capture) -> None:
    assert cli.main(command) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"jupyter rtc: no RTC kernel lives on this machine: .*\n", told.err)


@pytest.mark.parametrize("command", [["exec", "URL", "1"], ["interrupt", "URL"], ["restart", "URL"], ["queue", "URL"]])
def test_a_link_of_the_role_view_may_not_act(command: list[str], capsys: Capture) -> None:
    async def fact() -> int:
        async with standin() as server:
            line = [f"{server.url}/?token=view-token" if word == "URL" else word for word in command]
            return await asyncio.to_thread(cli.main, line)

    assert asyncio.run(fact()) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "%rtc share --role run" in told.err


@pytest.mark.parametrize("code", ["http://127.0.0.1:1/?token=x", "https://x"])
def test_a_link_without_code_is_told(code: str, capsys: Capture) -> None:
    assert cli.main(["exec", code]) == 2
    assert "there is no code" in capsys.readouterr().err


def test_every_end_has_an_exit_code() -> None:
    assert {state.value for state in END_STATES} | {"refused"} == set(EXIT_CODES)


# --- what is written


def stream(text: str, name: str = "stdout") -> Output:
    return Output(output_type="stream", at=1.0, name=name, text=text)


def result(text: str) -> Output:
    return Output(output_type="execute_result", at=1.0, data={"text/plain": text}, metadata={})


FAILED = Output(output_type="error", at=1.0, ename="E", evalue="v", traceback=("\x1b[31mE\x1b[0m: v",))

TTY = ("stdout", "stderr")


def show(
    printout: Printout, outputs: Sequence[Output], *, ended: bool, width: int = 80, omitted: int = 0
) -> list[Piece]:
    state = ExecutionState.OK if ended else ExecutionState.RUNNING
    row = Execution(id="e", state=state, outputs=tuple(outputs), omitted_outputs=omitted or None)
    return printout.show(row, width=width)


def text_of(pieces: list[Piece]) -> str:
    return "".join(text for _, text in pieces)


def test_a_pipe_gets_whole_lines_as_they_come_and_the_rest_at_the_end() -> None:
    printout = Printout()
    assert show(printout, [stream("one\ntw")], ended=False) == [("stdout", "one\n")]
    assert show(printout, [stream("one\ntwo\nth")], ended=False) == [("stdout", "two\n")]
    assert show(printout, [stream("one\ntwo\nth")], ended=False) == []
    assert show(printout, [stream("one\ntwo\nth")], ended=True) == [("stdout", "th")]


def test_a_pipe_gets_the_last_state_of_a_progress_bar() -> None:
    printout = Printout()
    for percent in range(100):
        assert show(printout, [stream(f"{percent}%")], ended=False) == []
    assert show(printout, [stream("100%\n")], ended=False) == [("stdout", "100%\n")]


def test_a_pipe_gets_streams_and_tracebacks_apart_and_no_colours() -> None:
    printout = Printout(colours=True)
    outputs = [stream("a"), stream("\x1b[31mw\x1b[0m\n", "stderr"), stream("b"), result("5"), FAILED]
    assert show(printout, outputs, ended=True) == [
        ("stdout", "a"),
        ("stderr", "w\n"),
        ("stdout", "b"),
        ("stdout", "\n"),
        ("stdout", "5\n"),
        ("stderr", "E: v\n"),
    ]


def test_a_display_that_is_updated_is_written_again() -> None:
    printout = Printout()
    assert show(printout, [result("1")], ended=False) == [("stdout", "1\n")]
    assert show(printout, [result("2")], ended=False) == [("stdout", "2\n")]
    assert show(printout, [result("2")], ended=True) == []


def test_outputs_that_were_cleared_come_anew() -> None:
    printout = Printout()
    assert text_of(show(printout, [stream("a\n"), result("1")], ended=False)) == "a\n1\n"
    assert show(printout, [], ended=False) == []
    assert text_of(show(printout, [result("1")], ended=True)) == "1\n"
    assert text_of(show(Printout(), [stream("b\n")], ended=True)) == "b\n"


def test_a_terminal_gets_an_unfinished_line_at_once_and_over_itself() -> None:
    printout = Printout(TTY)
    assert text_of(show(printout, [stream("10%")], ended=False)) == "10%"
    assert text_of(show(printout, [stream("10% #")], ended=False)) == " #"
    assert text_of(show(printout, [stream("20% #")], ended=False)) == "\r\x1b[J20% #"
    assert text_of(show(printout, [stream("x" * 25)], ended=False, width=10)) == "\r\x1b[J" + "x" * 25
    assert text_of(show(printout, [stream("y")], ended=False, width=10)) == "\r\x1b[2A\x1b[Jy"
    assert text_of(show(printout, [stream("y")], ended=True)) == "\n"


def test_a_terminal_gets_colours_and_nothing_else() -> None:
    hostile = "\x1b[31mred\x1b[2J\x1b]0;title\x07"
    assert text_of(show(Printout(TTY, colours=True), [stream(hostile)], ended=False)) == "\x1b[31mred\x1b[0m"
    assert text_of(show(Printout(TTY), [stream(hostile)], ended=False)) == "red"
    assert text_of(show(Printout(TTY, colours=True), [FAILED], ended=True)) == "\x1b[31mE\x1b[0m: v\x1b[0m\n"


def test_a_note_begins_a_row_and_what_follows_goes_on_in_one() -> None:
    printout = Printout(TTY)
    assert text_of(show(printout, [stream("half")], ended=False)) == "half"
    assert printout.begin_row() == [("stderr", "\n")]
    assert printout.begin_row() == []
    assert text_of(show(printout, [stream("half done\n")], ended=False)) == " done\n"
    printout.move(to_start=False)
    assert text_of(show(printout, [stream("half done\nx")], ended=False)) == "\nx"
    printout.move(to_start=True)
    assert text_of(show(printout, [stream("half done\nxy")], ended=False)) == "y"
    assert text_of(show(printout, [stream("half done\nz")], ended=True)) == "\r\x1b[Jz\n"
    assert Printout(["stdout"]).begin_row("stderr") == []


class Screen:
    """A terminal of some width, as far as a printout uses it."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.rows = [""]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        for mark in re.findall(r"\x1b\[\d*[AJm]|.", text, re.DOTALL):
            if mark.endswith("m") and len(mark) > 1:
                continue
            if mark == "\n":
                self._go_down()
            elif mark == "\r":
                self.column = 0
            elif mark.endswith("A") and len(mark) > 1:
                self.row -= int(mark[2:-1])
            elif mark == "\x1b[J":
                self.rows[self.row :] = [self.rows[self.row][: self.column]]
            else:
                if self.column == self.width:
                    self._go_down()
                self.rows[self.row] = self.rows[self.row][: self.column] + mark + self.rows[self.row][self.column + 1 :]
                self.column += 1

    def _go_down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append("")


def wrapped(text: str, width: int) -> list[str]:
    rows: list[str] = []
    for line in text.split("\n"):
        rows += [line[at : at + width] for at in range(0, len(line), width)] or [""]
    return rows


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.text("ab\n", max_size=30)),
        st.tuples(st.just("append"), st.sampled_from(["\x1b[31mred\x1b[0m", "\x1b[31mred\n", "\x1b[1m", "\x1b[0m\n"])),
        st.tuples(st.just("overwrite"), st.text("cd", max_size=30)),
        st.tuples(st.just("stream"), st.sampled_from(["stdout", "stderr"])),
        st.tuples(st.just("result"), st.text("e", min_size=1, max_size=30)),
    ),
    max_size=20,
)


def grow(steps: list[tuple[str, str]]) -> Iterator[list[Output]]:
    """Outputs as they become, step by step."""
    outputs: list[Output] = []
    for step, text in steps:
        last = outputs[-1] if outputs and outputs[-1].output_type == "stream" else None
        match step:
            case "append" if last is not None:
                outputs[-1] = replace(last, text=(last.text or "") + text)
            case "overwrite" if last is not None:
                outputs[-1] = replace(last, text=(last.text or "")[: (last.text or "").rfind("\n") + 1] + text)
            case "stream" if last is None or last.name != text:
                outputs.append(stream("", text))
            case "result":
                outputs.append(result(text))
        yield list(outputs)


@given(STEPS, st.integers(3, 40))
def test_a_terminal_shows_the_outputs_whatever_came_between(steps: list[tuple[str, str]], width: int) -> None:
    screen, printout = Screen(width), Printout(TTY, colours=True)
    outputs: list[Output] = []
    for outputs in grow(steps):
        screen.write(text_of(show(printout, outputs, ended=False, width=width)))
    screen.write(text_of(show(printout, outputs, ended=True, width=width)))
    texts = [output.text or "" if output.output_type == "stream" else output.data["text/plain"] for output in outputs]
    texts = [re.sub(r"\x1b\[\d*m", "", text) for text in texts]
    whole = "".join(text if text.endswith("\n") or not text else text + "\n" for text in texts)
    assert screen.rows == wrapped(whole, width)


@given(STEPS)
def test_a_pipe_has_got_each_stream_in_the_end(steps: list[tuple[str, str]]) -> None:
    printout, pieces, outputs = Printout(), [], []
    for outputs in grow(steps):
        pieces += show(printout, outputs, ended=False)
    pieces += show(printout, outputs, ended=True)
    for target in TTY:
        whole = ""
        for output in outputs:
            if output.output_type == "stream" and output.name == target:
                whole += re.sub(r"\x1b\[\d*m", "", output.text or "")
            elif output.output_type != "stream" and target == "stdout":
                whole += ("\n" if whole and not whole.endswith("\n") else "") + output.data["text/plain"] + "\n"
        assert "".join(text for to, text in pieces if to == target) == whole


def test_text_that_the_document_let_go_of_is_a_line_that_says_how_much() -> None:
    printout = Printout()
    assert text_of(show(printout, [stream("a\nb\n")], ended=False)) == "a\nb\n"
    gapped = replace(stream("a\nb\nx\nhal"), omitted_bytes=100, omitted_segment=1, omitted_index=4)
    assert text_of(show(printout, [gapped], ended=False)) == f"{say_gap(100, 'e')}\nx\n"
    grown = replace(stream("a\nb\nhalf\n"), omitted_bytes=102, omitted_segment=1, omitted_index=4)
    assert text_of(show(printout, [grown], ended=True)) == "half\n"


def test_outputs_that_the_document_let_go_of_are_a_line_that_says_how_many() -> None:
    printout = Printout()
    first = [result("0"), result("1"), result("2"), result("3")]
    assert text_of(show(printout, first, ended=False)) == "0\n1\n2\n3\n"
    later = [result("0"), result("1"), result("8"), result("9")]
    assert text_of(show(printout, later, ended=False, omitted=6)) == f"{say_missing(4, 'e')}\n8\n9\n"
    assert show(printout, [*later[:2], result("9"), result("10")], ended=True, omitted=7) == [("stdout", "10\n")]


# --- a line from the terminal


@contextlib.contextmanager
def pair() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def test_lines_are_read_one_by_one_as_they_were_typed() -> None:
    async def fact(master: int, slave: int) -> None:
        os.write(master, "höi\nzwei\n".encode())
        assert await read_line(slave) == "höi"
        assert await read_line(slave) == "zwei"
        os.write(master, b"\n")
        assert await read_line(slave) == ""
        os.write(master, b"\x04")
        assert await read_line(slave) == END_OF_INPUT
        os.write(master, b"ab\x04c\n")
        assert await read_line(slave) == "abc"

    with pair() as ends:
        asyncio.run(fact(*ends))


def test_a_hidden_line_is_not_shown_and_the_terminal_is_left_as_it_was() -> None:
    async def fact(master: int, slave: int) -> None:
        before = termios.tcgetattr(slave)
        reading = asyncio.create_task(read_line(slave, hidden=True))
        await eventually(lambda: not termios.tcgetattr(slave)[3] & termios.ECHO, "it is hidden")
        os.write(master, b"secret\n")
        assert await reading == "secret"
        assert termios.tcgetattr(slave) == before
        os.set_blocking(master, False)
        with contextlib.suppress(BlockingIOError):
            assert b"secret" not in os.read(master, 100)

    with pair() as ends:
        asyncio.run(fact(*ends))


@pytest.mark.parametrize("hidden", [False, True])
def test_a_reading_that_is_given_up_takes_nothing_and_leaves_nothing(hidden: bool) -> None:
    async def fact(master: int, slave: int) -> None:
        before = termios.tcgetattr(slave)
        reading = asyncio.create_task(read_line(slave, hidden=hidden))
        await asyncio.sleep(0)
        os.write(master, b"half of a passw")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert termios.tcgetattr(slave) == before
        os.write(master, b"ls\n")
        assert await read_line(slave) == "ls"

    with pair() as ends:
        threads = threading.active_count()
        asyncio.run(fact(*ends))
        assert threading.active_count() == threads


# --- exec


def test_exec_shows_the_outputs_and_returns_how_the_run_ended(live: Running) -> None:
    done = rtc("exec", "import sys; print('höi'); print('warned', file=sys.stderr); 6 * 7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "höi\n42\n", "warned\n")

    done = rtc("exec", live.kernel_id[:8], "print('a', end='')\n1/0")
    assert (done.returncode, done.stdout) == (1, "a")
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "\x1b" not in done.stderr

    done = rtc("exec", live.kernel_id, "-", typed="for x in range(3):\n    print(x, end='\\r')\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2", "")

    done = rtc("exec", "print('nobody sees it')", "--silent")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    done = rtc("exec", "--no-input", "input('who? ')")
    assert done.returncode == 1
    assert "StdinNotImplementedError" in done.stderr

    done = rtc("exec", "1", "--after", "no-such-request")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("jupyter rtc: refused: after: ")
    assert done.stderr.count("\n") == 1

    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = subprocess.run([*COMMAND, "exec", "print('h\\xf6i')"], capture_output=True, env=os.environ | ascii_only)
    assert (shown.returncode, shown.stdout) == (0, b"h?i\n")

    done = rtc("exec", live.kernel_id[:8])
    assert done.returncode == 2
    assert "there is no code" in done.stderr
    ran = json.loads(rtc("history", "--json").stdout)
    assert {row["submitted_by"] for row in ran} == {"owner"}


def test_exec_tells_events_as_json(live: Running) -> None:
    done = rtc("exec", "--json", "print('a', end=''); 1/0")
    acknowledged, *rest = told = events(done)
    assert done.returncode == 1
    assert [event["event"] for event in told if event["event"] != "execution"] == [
        "acknowledged", "output", "output", "end"
    ]  # fmt: skip
    assert acknowledged["by"] == "owner"
    first, second = [event for event in rest if event["event"] == "output"]
    assert (first["position"], first["output"]["text"]) == (0, "a")
    assert (second["position"], second["output"]["ename"]) == (1, "ZeroDivisionError")
    end = told[-1]
    assert (end["state"], end["exit_code"], end["reason"]) == ("error", 1, None)
    assert end["error"]["evalue"] == "division by zero"
    (row,) = json.loads(rtc("history", "--json").stdout)
    assert (row["id"], row["request"]) == (end["execution"], acknowledged["request"])

    refused = rtc("exec", "1", "--json", "--after", "x")
    (end,) = events(refused)
    assert (refused.returncode, end["state"], end["exit_code"]) == (3, "refused", 3)
    assert end["reason"].startswith("after: ")


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("live")
def test_a_json_reader_can_follow_what_is_cleared_and_updated(tmp_path: Path) -> None:
    """Each step is taken when the one before has been shown."""
    steps = {"x\n": Gate(tmp_path / "one"), "'two'": Gate(tmp_path / "two")}
    code = "\n".join(
        [
            "from IPython.display import clear_output, display",
            "h = display('one', display_id=True); print('x', flush=True)",
            steps["x\n"].code + "h.update('two')",
            steps["'two'"].code + "clear_output(); print('last')",
        ]
    )
    outputs: dict[int, str] = {}
    seen = []
    with subprocess.Popen([*COMMAND, "exec", "--json", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for event in map(json.loads, process.stdout):
            if event["event"] == "clear":
                outputs.clear()
            elif event["event"] == "output":
                position, output = event["position"], event["output"]
                if output["output_type"] == "stream":  # what is new of it
                    outputs[position] = outputs.get(position, "") + output["text"]
                else:
                    outputs[position] = output["data"]["text/plain"]
                seen.append(outputs[position])
                if seen[-1] in steps:
                    steps[seen[-1]].open()
    assert list(outputs.values()) == ["last\n"]
    assert [shown for shown in seen if shown not in ("x", "last")] == ["'one'", "x\n", "'two'", "last\n"]


def test_the_same_cell_is_run_once_unless_it_is_queued(live: Running, gate: Gate) -> None:
    command = [*COMMAND, "exec", "--json", "--cell", "c", gate.code + "print('ran')"]
    said: list[list[dict[str, Any]]] = []
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(2):  # the second is joined to the first, which runs
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            assert process.stdout is not None
            said.append([json.loads(process.stdout.readline())])
            started.append(process)
        gate.open()
        for process, heard in zip(started, said, strict=True):
            out, _ = process.communicate(timeout=60)
            heard += map(json.loads, out.splitlines())
    first, joined = said
    assert joined[-1]["execution"] == first[-1]["execution"]
    assert "".join(event["output"]["text"] for event in joined if event["event"] == "output") == "ran\n"
    again = rtc("exec", "--json", "--cell", "c", "--queue", "print('ran')")
    assert events(again)[-1]["execution"] != joined[-1]["execution"]


def test_a_run_whose_time_is_up_is_interrupted_or_taken_back(live: Running, until: Until, gate: Gate) -> None:
    done = rtc("exec", "--timeout", "8", f"print('begun'); {FOREVER}")
    assert (done.returncode, done.stdout) == (124, "begun\n")
    assert done.stderr.splitlines()[-1] == "jupyter rtc: not done within 8 s"
    assert "KeyboardInterrupt" in done.stderr

    live.client.execute(gate.code)
    until(lambda: re.search(r"#2 +running .* import os, time", rtc("queue").stdout), "a frontend's cell runs")
    with terminal("exec", FOREVER) as waiting:
        until(waiting.has("Waiting for #2"), "it is said what it waits for", 20)
        done = rtc("exec", "--json", "--timeout", "8", "print('never')")
        end = events(done)[-1]
        assert (done.returncode, end["exit_code"], end["state"]) == (124, 124, "cancelled")
        gate.open()
        until(lambda: re.search("running .* import time;", rtc("queue").stdout), "the one that waited runs", 20)
        assert re.match(r"Interrupted #\d+ of owner: import time", rtc("interrupt").stdout)
        assert waiting.process.wait(30) == 1
    until(lambda: rtc("queue").stdout == "Nothing waits.\n", "nothing is left")


def test_a_kernel_that_goes_away_ends_it(live: Running, until: Until) -> None:
    with terminal("exec", f"print('begun'); {FOREVER}") as waiting:
        until(waiting.has("begun"), "it runs")
        os.killpg(live.pid, signal.SIGKILL)  # a manager interrupts first, and the run may get to say so
        live.manager.cleanup_connection_file()
        assert waiting.process.wait(60) == 4
        until(waiting.has("jupyter rtc: lost: "), "it is said")


# --- exec in a terminal


def test_a_progress_bar_stays_one_line_and_colours_are_kept(live: Running, until: Until) -> None:
    code = (
        "import time\n"
        "for i in range(20): print(f'\\r{i}%', end='', flush=True); time.sleep(.03)\n"
        "print('\\n\\x1b[31mred\\x1b[0m\\x1b[2J')"
    )
    with terminal("exec", code) as shown:
        assert shown.process.wait(30) == 0
        until(shown.has("red"), "all is shown")
    screen = Screen(80)
    screen.write(shown.text.replace("\r\n", "\n"))
    assert screen.rows == ["19%", "red", ""]
    assert "\x1b[31mred\x1b[0m" in shown.text
    assert "\x1b[2J" not in shown.text


def test_input_is_asked_for_in_the_terminal_and_a_password_is_not_shown(live: Running, until: Until) -> None:
    code = "import getpass\nname = input('Name: ')\np = getpass.getpass('Secret: ')\nprint(name, p[::-1])"
    with terminal("exec", code) as asked:
        until(asked.has("Name: "), "it asks", 20)
        asked.type("Ada Lövelace\n")
        until(asked.has("Secret: "), "it asks again", 20)
        until(lambda: not asked.echoes, "what is typed is hidden")
        asked.type("hunter2\n")
        assert asked.process.wait(30) == 0
        until(asked.has("Ada Lövelace 2retnuh"), "both were passed on")
        assert "hunter2" not in asked.text
        assert asked.echoes
    assert "hunter2" not in rtc("history", "--json").stdout


def answer(kernel: str, text: str) -> None:
    """As another peer."""

    def asking(doc: rtc_kernel.Document) -> list[Execution]:
        return [run for run in doc.executions.values() if run.input is not None]

    async def fact() -> None:
        async with rtc_kernel.connect(kernel) as doc:
            await doc.wait_for(asking, 60)
            await doc.answer(asking(doc)[0].id, text)

    asyncio.run(fact())


def test_when_somebody_else_answers_it_is_said_and_it_goes_on(live: Running, until: Until) -> None:
    with terminal("exec", "x = input('q1: '); y = input('q2: '); print(x, y)") as asked:
        until(asked.has("q1: "), "it asks", 20)
        asked.type("half an ans")
        answer(live.kernel_id, "theirs")
        until(asked.has("Somebody else has answered."), "it is said", 20)
        until(asked.has("q2: "), "it asks again", 20)
        asked.type("mine\n")
        assert asked.process.wait(30) == 0
        until(asked.has("theirs mine"), "both counted")


def test_where_nobody_can_type_it_is_said_and_somebody_else_may_answer(live: Running) -> None:
    process = subprocess.Popen(
        [*COMMAND, "exec", "print(input('who? '))"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "It waits for input, which cannot be given here: who?\n"
    answer(live.kernel_id, "me")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "me\n", "")


def test_ctrl_c_interrupts_the_run_also_while_it_asks(live: Running, until: Until) -> None:
    with terminal("exec", f"print('begun'); {FOREVER}") as shown:
        until(shown.has("begun"), "it runs", 20)
        shown.interrupt()
        assert shown.process.wait(30) == 130
        until(shown.has("jupyter rtc: interrupted"), "it is said")
        assert "KeyboardInterrupt" in shown.text
    with terminal("exec", "import getpass; getpass.getpass()") as asked:
        until(asked.has("Password: "), "it asks", 20)
        until(lambda: not asked.echoes, "what is typed is hidden")
        asked.type("half")
        asked.interrupt()
        assert asked.process.wait(30) == 130
        assert asked.echoes
        assert "Somebody else" not in asked.text


STUBBORN = """
import time
print('begun')
for _ in range(2400):
    try:
        time.sleep(0.05)
    except KeyboardInterrupt:
        print('no')
"""


def test_a_second_ctrl_c_leaves_the_run_to_itself(live: Running, until: Until) -> None:
    with terminal("exec", STUBBORN) as shown:
        until(shown.has("begun\r\n"), "it runs", 20)
        shown.interrupt()
        until(shown.has("no\r\n"), "it was interrupted, and goes on", 20)
        shown.interrupt()
        assert shown.process.wait(30) == 130
        until(shown.has("it is left to itself (running)"), "it is said")
    assert " running " in rtc("queue").stdout
    assert rtc("restart").returncode == 0


# --- interrupt, restart, queue


def test_an_interrupt_is_for_what_runs(live: Running, until: Until) -> None:
    assert rtc("interrupt").stdout == "Interrupted; nothing was running.\n"
    assert rtc("exec", "'first'").returncode == 0
    done = rtc("interrupt", "--execution", "1")
    assert done.returncode == 1
    assert "execution: it is not running now" in done.stderr
    done = rtc("interrupt", "--execution", "zz")
    assert done.returncode == 2
    assert "no execution 'zz'" in done.stderr
    with terminal("exec", f"print('begun'); {FOREVER}") as shown:
        until(shown.has("begun"), "it runs", 20)
        told = json.loads(rtc("interrupt", live.kernel_id[:8], "--execution", "#2", "--json").stdout)
        assert told["kernel_id"] == live.kernel_id
        assert shown.process.wait(30) == 1
    assert told["execution"] == json.loads(rtc("show", "2", "--json").stdout)["id"]


def test_what_waits_is_shown_held_by_a_restart_released_and_taken_back(live: Running, until: Until) -> None:
    assert rtc("queue").stdout == "Nothing waits.\n"
    assert rtc("queue", "--release", "all").stdout == "Nothing is held.\n"
    assert rtc("queue", "--cancel", "all").stdout == "Nothing waits.\n"
    assert rtc("queue", "--release", "x").returncode == 2
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(terminal("exec", f"print('begun'); {FOREVER}"))
        until(running.has("begun"), "it runs", 20)
        second, third = (
            stack.enter_context(terminal("exec", code)) for code in ("print('second ' * 20)\n2", "print('third')")
        )
        ids = until(lambda: (found := waiting_ids()) and len(found) == 2 and found, "two wait", 20)
        lines = rtc("queue").stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0].split() == ["ID", "STATE", "BY", "SINCE", "WHAT"]
        assert re.match(r"[0-9a-f]{8} +running +owner .* print\('begun'\)", lines[1])
        assert [line.split()[:3] for line in lines[2:]] == [[one[:8], "requested", "owner"] for one in ids]

        done = rtc("restart", "--json")
        assert done.returncode == 0
        told = json.loads(done.stdout)
        assert (told["generation"], set(told["held"])) == (1, set(ids))
        assert running.process.wait(30) == 4
        until(second.has("Held: the kernel was restarted"), "who waits is told", 30)
        until(third.has("Held: the kernel was restarted"), "and the other", 30)
        assert f"--release {waiting_ids('print(')[0][:8]}" in second.text + third.text
        lines = rtc("queue").stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0].split()[-1] == "WHY"
        names = {row["columns"]["code"][7:12]: row["id"] for row in waiting()}

        assert rtc("queue", "--cancel", names["third"][:8]).stdout == f"Cancelled: {names['third'][:8]}\n"
        assert third.process.wait(30) == 3
        until(third.has("jupyter rtc: cancelled: cancelled by owner"), "it is said why")
        assert json.loads(rtc("queue", "--release", "all", "--json").stdout) == {"released": [names["secon"]]}
        assert second.process.wait(30) == 0
        until(second.has("second second"), "it ran")
    until(lambda: rtc("queue", "--json").stdout == '{"executions": [], "requests": []}\n', "nothing is left")


def waiting() -> list[dict[str, Any]]:
    rows = json.loads(rtc("queue", "--json").stdout)["requests"]
    return [row for row in rows if row["state"] in ("requested", "held")]


def waiting_ids(code: str = "") -> list[str]:
    return [row["id"] for row in waiting() if row["columns"]["code"].startswith(code)]


def test_a_link_of_the_role_run_may_act_for_itself_only(live: Running, until: Until) -> None:
    link = json.loads(rtc("share", "--role", "run", "--name", "phone", "--json").stdout)["url"]
    done = rtc("exec", link, "'from afar'")
    assert (done.returncode, done.stdout) == (0, "'from afar'\n")
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(terminal("exec", f"print('begun'); {FOREVER}"))
        until(running.has("begun"), "it runs", 20)
        ours = stack.enter_context(terminal("exec", "1"))
        url, _, token = link.partition("/?token=")
        theirs = stack.enter_context(terminal("exec", url, "2", "--token", token))
        until(lambda: len(waiting()) == 2, "two wait", 20)
        names = {row["by"]: row["id"] for row in waiting()}
        done = rtc("queue", link, "--cancel", names["owner"])
        assert done.returncode == 1
        assert "another peer's" in done.stderr
        assert rtc("queue", link, "--cancel", "all", "--json").stdout == f'{{"cancelled": ["{names["phone"]}"]}}\n'
        assert theirs.process.wait(30) == 3
        assert rtc("interrupt", link).returncode == 0
        assert running.process.wait(30) == 1
        assert ours.process.wait(30) == 0
