"""Facts about examples/: each does what it promises."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from kernels import Gate, Running
from relays import LACKS_REDIS, RELAY

from benchmarks.ports import free_ports
from rtc_kernel import discovery, install

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, out: Path) -> nbformat.NotebookNode:
    command = [sys.executable, "-m", "rtc_kernel.cli", "run", str(EXAMPLES / name), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "Live: http://127.0.0.1:" in done.stderr
    made = nbformat.read(out, 4)
    nbformat.validate(made)
    return made


def text(cell: nbformat.NotebookNode) -> str:
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", [])
    )


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_an_example_is_a_clean_notebook(path: Path) -> None:
    made = nbformat.read(path, 4)
    nbformat.validate(made)
    assert made.metadata.kernelspec.name.startswith("rtc-")
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in made.cells)


def test_quickstart(tmp_path: Path) -> None:
    made = run("quickstart.ipynb", tmp_path / "out.ipynb")
    _, printed, bar, table, picture, _, status, history = made.cells
    assert "one live document" in text(printed)
    assert "100 %" in text(bar)
    assert "text/html" in table.outputs[0].data
    assert "image/svg+xml" in picture.outputs[0].data
    assert text(status)
    assert "print(" in text(history)


def test_share(tmp_path: Path) -> None:
    made = run("share.ipynb", tmp_path / "out.ipynb")
    assert "http://127.0.0.1:" in text(made.cells[1])
    assert text(made.cells[4])
    assert text(made.cells[5])


def test_bash(tmp_path: Path, home: Path) -> None:
    directory = home / "data" / "kernels" / "bash"
    directory.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"],
        "display_name": "Bash",
        "language": "bash",
        "env": {"PS1": "$"},
    }
    (directory / "kernel.json").write_text(json.dumps(spec))
    assert install.install("bash", place=install.Place(user=True)).display_name == "RTC Bash"
    made = run("bash.ipynb", tmp_path / "out.ipynb")
    assert text(made.cells[1]) == "line 1\nline 2\nline 3\n"
    assert "uname" in text(made.cells[4])


def test_follow(kernel: Running, until: Callable[..., object], tmp_path: Path) -> None:
    until(discovery.live, "the agent has said where it is", 30)
    told = tmp_path / "told"
    command = [sys.executable, str(EXAMPLES / "follow.py"), kernel.kernel_id]
    with told.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=os.environ) as process:
        try:
            until(lambda: "following" in told.read_text(), "it follows", 30)
            kernel.execute("print('höi')\n1 + 1")
            until(lambda: "--- #1 ok" in told.read_text(), "the run is told", 30)
            assert told.read_text().splitlines()[1:] == ["höi", "2", "--- #1 ok"]
        finally:
            process.kill()


def test_together(kernel: Running, until: Callable[..., object], tmp_path: Path) -> None:
    """The notebook's cells, and the script at the same kernel."""
    cells = [cell.source for cell in nbformat.read(EXAMPLES / "together.ipynb", 4).cells if cell.cell_type == "code"]
    share, train, look, history, unshare = cells
    shown = kernel.execute(share).contents("display_data")[0]["data"]["text/plain"]
    link = next(line for line in shown.splitlines() if line.startswith("http://"))
    told = tmp_path / "told"
    with told.open("w") as file:
        process = subprocess.Popen([sys.executable, str(EXAMPLES / "together.py"), link], stdout=file, stderr=file)
        try:
            until(lambda: "at RTC Python" in told.read_text(), "the script is there", 30)
            kernel.execute(train)
            assert process.wait(30) == 0
            assert kernel.execute(look).text == "0.01\n"
        finally:
            process.kill()
            process.wait()
    first, *rest = told.read_text().splitlines()[1:]
    assert first == "username runs: import time"
    assert rest[0] == "learning rate is now 0.01"
    assert rest[1].endswith("as script: ok")
    assert rest[2].startswith("too late to interrupt theirs: execution: ")
    assert "script" in kernel.execute(history).contents("display_data")[0]["data"]["text/plain"]
    assert "Withdrawn: script" in kernel.execute(unshare).text


def test_ask_columns(kernel: Running, until: Callable[..., object]) -> None:
    until(discovery.live, "the agent has said where it is", 30)
    command = [sys.executable, str(EXAMPLES / "ask_columns.py"), kernel.kernel_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "columns: name, canton",
        "known:   name, canton",
        "fresh:   name, canton, people",
    ], done.stderr


# --- the relay


@pytest.mark.skipif(bool(LACKS_REDIS), reason=LACKS_REDIS or "all is there")
def test_a_relay_from_one_command_and_a_run_that_is_watched_at_its_other_end(home: Path, tmp_path: Path) -> None:
    notebook, gate = tmp_path / "greeting.ipynb", Gate(tmp_path / "gate")
    cell = nbformat.v4.new_code_cell(f"{gate.code}print('hello', 'from afar')")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    cli = [sys.executable, "-m", "rtc_kernel.cli"]
    first, second = free_ports(2)
    with said_by("npm", "start", "--prefix", RELAY, "--", "--port", first, "--tokens", home / "tokens.json") as relay:
        tokens = dict(line.split() for line in read_to(relay, "  view ")[-3:])
        assert sorted(read_to(relay, "relay ") + read_to(relay, "relay ")) == [
            f"relay ws://127.0.0.1:{port}" for port in (first, second)
        ]
        run = [*cli, "run", notebook, "--kernel", "rtc-python", "--linger", "10m"]
        run += ["--relay", f"ws://127.0.0.1:{first}", "--room", "team"]
        watch = [*cli, "watch", f"ws://127.0.0.1:{second}/team"]
        with (
            said_by(*run, RTC_KERNEL_RELAY_TOKEN=tokens["publish"]),
            said_by(*watch, RTC_KERNEL_RELAY_TOKEN=tokens["view"]) as lines,
        ):
            read_to(lines, "RTC Python")
            gate.open()
            read_to(lines, "hello from afar")


@contextmanager
def said_by(*command: object, **environment: str) -> Iterator[Iterator[str]]:
    """The lines that a program prints, while it runs."""
    argv = [str(one) for one in command]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    with subprocess.Popen(argv, env={**os.environ, **environment}, **settings) as process:
        try:
            yield iter(process.stdout)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            for _ in process.stdout:  # it ends when all of its processes have
                pass


def read_to(lines: Iterator[str], end: str) -> list[str]:
    """Lines up to one that holds ``end``."""
    read = []
    for line in lines:
        read.append(line.rstrip("\n"))
        if end in line:
            return read
    raise AssertionError(f"it ended without {end!r}: {read}")
