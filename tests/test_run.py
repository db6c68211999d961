"""Facts about headless runs: which kernel, what is written, what is told, and what others see meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import recorded
from kernels import FOREVER, Gate, joined_outputs, printed
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rtc_kernel import connect, discovery, install, run
from rtc_kernel.errors import SetupError
from rtc_kernel.run import CellEnded, CellStarted, Linked, Outcome, Progress, Run, Unlinked
from rtc_kernel.tables import END_STATES


def notebook(path: Path, *sources: Any, kernel: str | None = "python3", language: str = "python") -> Path:
    made = new_notebook(cells=[new_code_cell(cell) if isinstance(cell, str) else cell for cell in sources])
    if kernel is not None:
        made.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": language}
    nbformat.write(made, path)
    return path


def go(path: Path, **options: Any) -> tuple[Outcome, list[Progress]]:
    told: list[Progress] = []
    outcome = asyncio.run(run.run_notebook(Run(notebook=path, **options), told.append))
    return outcome, told


@pytest.fixture
def bash(home: Path) -> str:
    """bash_kernel, installed and wrapped."""
    directory = home / "data" / "kernels" / "bash"
    directory.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"],
        "display_name": "Bash",
        "language": "bash",
        "env": {"PS1": "$"},
    }
    (directory / "kernel.json").write_text(json.dumps(spec))
    return install.install("bash", place=install.Place(user=True)).name


# --- before anything runs


def test_a_notebook_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no notebook") as caught:
        go(tmp_path / "none.ipynb")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"nbformat": 4}',
        '{"nbformat": 99, "cells": []}',
        '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}',
        "\udcff",
    ],
)
def test_a_file_that_is_no_notebook_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.ipynb"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SetupError, match=r"is not a notebook|cannot be read") as caught:
        run.read(path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_directory_is_no_notebook(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        run.read(tmp_path)


@pytest.mark.parametrize(
    ("asked", "own", "language", "chosen"),
    [
        (None, "python3", "python", "rtc-python"),
        (None, None, "", "rtc-python"),
        (None, "rtc-python", "python", "rtc-python"),
        (None, "someone-s-env", "python", "rtc-python"),
        (None, "bash", "bash", "rtc-bash"),
        (None, "rtc-bash", "bash", "rtc-bash"),
        ("bash", "python3", "python", "rtc-bash"),
        ("python3", "bash", "bash", "rtc-python"),
    ],
)
def test_the_kernel_is_the_notebook_s_own_behind_a_relay(
    bash: str, asked: str | None, own: str | None, language: str, chosen: str
) -> None:
    made = new_notebook()
    if own is not None:
        made.metadata["kernelspec"] = {"name": own, "display_name": own, "language": language}
    assert run.choose_kernel(asked, made) == chosen


def test_a_kernel_that_is_not_wrapped_yet_is_told_with_the_command_that_does_it(bash: str) -> None:
    install.uninstall("bash")
    made = new_notebook(metadata={"kernelspec": {"name": "bash", "display_name": "Bash"}})
    with pytest.raises(SetupError, match="jupyter rtc install --kernel bash") as caught:
        run.choose_kernel(None, made)
    assert caught.value.exit_code == 2
    with pytest.raises(SetupError, match="no kernelspec 'nope' is installed"):
        run.choose_kernel("nope", made)


# --- what runs


def test_a_run_gives_the_notebook_that_nbclient_gives_on_the_bare_kernel(tmp_path: Path) -> None:
    cells = [
        new_markdown_cell("# title"),
        "import sys\nprint('naïve ☃')\nprint('e', file=sys.stderr)",
        "from IPython.display import HTML, display",
        "d = display(HTML('<b>1</b>'), display_id=True)\nd.update(HTML('<b>2</b>'))",
        "1 + 1",
        "",
        new_code_cell("raise ValueError('x')", metadata={"tags": ["raises-exception"]}),
        new_code_cell("1/0", metadata={"tags": ["skip-execution"]}),
    ]
    path = notebook(tmp_path / "n.ipynb", *cells)
    outcome, told = go(path)
    assert outcome.state == "ok"
    assert outcome.exit_code == 0
    bare = nbformat.read(path, 4)
    NotebookClient(bare, kernel_name="python3").execute()
    for made in (bare, outcome.notebook):
        nbformat.validate(made)
        for cell in made.cells:
            cell.metadata.pop("execution", None)  # times
            cell.outputs = joined_outputs(cell)
    assert outcome.notebook == bare
    ended = [progress for progress in told if isinstance(progress, CellEnded)]
    assert [(cell.number, cell.count, cell.state) for cell in ended] == [
        (1, 5, "ok"),
        (2, 5, "ok"),
        (3, 5, "ok"),
        (4, 5, "ok"),
        (5, 5, "error"),
    ]


def test_the_kernel_works_in_the_notebook_s_directory_and_knows_its_path(tmp_path: Path) -> None:
    path = notebook(tmp_path / "my notebook.ipynb", "import os; print(os.getcwd(), os.environ['JPY_SESSION_NAME'])")
    outcome, _ = go(path)
    assert printed(outcome.notebook) == [f"{tmp_path} {path}\n"]


def test_parameters_are_assigned_behind_the_tagged_cell(tmp_path: Path) -> None:
    path = notebook(tmp_path / "n.ipynb", new_code_cell("x = 1", metadata={"tags": ["parameters"]}), "print(x)")
    outcome, _ = go(path, parameters={"x": ["é", None]})
    assert printed(outcome.notebook) == ["", "", "['é', None]\n"]


def test_an_error_ends_the_run_with_the_cell_s_traceback(tmp_path: Path) -> None:
    outcome, told = go(notebook(tmp_path / "n.ipynb", "print(1)", "1/0", "print(3)"))
    assert (outcome.state, outcome.exit_code) == ("error", 1)
    assert outcome.message == "cell 2 of 3: ZeroDivisionError: division by zero"
    assert "ZeroDivisionError" in outcome.traceback
    assert [progress.state for progress in told if isinstance(progress, CellEnded)] == ["ok", "error"]
    assert outcome.notebook.cells[1].outputs[0].output_type == "error"


def test_errors_may_be_allowed(tmp_path: Path) -> None:
    outcome, _ = go(notebook(tmp_path / "n.ipynb", "1/0", "print(3)"), allow_errors=True)
    assert (outcome.state, printed(outcome.notebook)[1]) == ("ok", "3\n")


def test_a_cell_that_takes_too_long_ends_the_run(tmp_path: Path) -> None:
    outcome, told = go(notebook(tmp_path / "n.ipynb", FOREVER), timeout_s=0.5)
    assert (outcome.state, outcome.exit_code) == ("timeout", 1)
    assert outcome.message == "cell 1 of 1: did not finish within 0.5 s"
    assert isinstance(told[-1], CellEnded)
    assert told[-1].state == "timeout"


@pytest.mark.parametrize(
    ("code", "says"),
    [("import os; os._exit(7)", "exit code 7"), ("import os; os.kill(os.getpid(), 9)", "SIGKILL")],
)
def test_a_kernel_that_dies_ends_the_run_and_says_how(tmp_path: Path, code: str, says: str) -> None:
    outcome, _ = go(notebook(tmp_path / "n.ipynb", "print(1)", code))
    assert (outcome.state, outcome.exit_code) == ("lost", 1)
    assert "cell 2 of 2: the kernel died" in outcome.message
    assert says in outcome.message
    assert printed(outcome.notebook)[0] == "1\n"


def test_a_kernel_that_does_not_start_is_told(tmp_path: Path, home: Path) -> None:
    directory = home / "data" / "kernels" / "rtc-broken"
    directory.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "rtc_kernel", "--kernel", "no-such-kernel", "-f", "{connection_file}"],
        "display_name": "Broken",
        "language": "x",
    }
    (directory / "kernel.json").write_text(json.dumps(spec))
    outcome, told = go(notebook(tmp_path / "n.ipynb", "1", kernel="rtc-broken"))
    assert (outcome.state, outcome.exit_code, told) == ("lost", 1, [])
    assert "did not start" in outcome.message


def test_another_language_runs_with_its_wrapper(bash: str, tmp_path: Path) -> None:
    cells = (new_code_cell("N=1", metadata={"tags": ["parameters"]}), 'echo "n is $N"')
    outcome, _ = go(notebook(tmp_path / "n.ipynb", *cells, kernel="bash", language="bash"), parameters={"N": 42})
    assert outcome.state == "ok"
    assert printed(outcome.notebook)[-1] == "n is 42\n"


def test_a_notebook_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    made = new_notebook(cells=[new_code_cell("é")])
    run.write(made, tmp_path / "deep" / "n.ipynb")
    assert nbformat.read(tmp_path / "deep" / "n.ipynb", 4) == made
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["n.ipynb"]
    with pytest.raises(SetupError, match="cannot be written"):
        run.write(made, tmp_path / "deep" / "n.ipynb" / "x.ipynb")


# --- what others see


def test_without_an_agent_the_run_goes_on_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTC_KERNEL_AGENT", "0")
    outcome, told = go(notebook(tmp_path / "n.ipynb", "print(1)"))
    assert outcome.state == "ok"
    assert isinstance(told[0], Unlinked)
    assert "switched off" in told[0].why


def test_the_live_document_has_the_cells_and_each_execution_points_to_its_own(tmp_path: Path, gate: Gate) -> None:
    """Followed by the link that the run gave, while the run is held by a cell that waits for a file."""
    wait = "print('waiting', flush=True)\n" + gate.code
    path = notebook(tmp_path / "n.ipynb", new_markdown_cell("# title"), "print('first')", wait, "print('last')")

    async def fact() -> None:
        linked: asyncio.Future[Linked] = asyncio.get_running_loop().create_future()

        def report(progress: Progress) -> None:
            if isinstance(progress, Linked | Unlinked):
                assert isinstance(progress, Linked), progress
                linked.set_result(progress)

        going = asyncio.create_task(run.run_notebook(Run(notebook=path), report))
        done, _ = await asyncio.wait([going, linked], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert linked in done, going
        link = linked.result()
        async with connect(link.url) as doc:
            assert doc.role == "view"
            assert doc.kernel.id == link.kernel_id
            assert doc.kernel.notebook == str(path)
            assert [cell.source for cell in doc.cells.values()] == ["# title", "print('first')", wait, "print('last')"]
            ids = list(doc.cells)

            def waits(d: Any) -> bool:
                rows = list(d.executions.values())
                return len(rows) == 2 and bool(rows[1].outputs) and "waiting" in (rows[1].outputs[0].text or "")

            await doc.wait_for(waits, 30)
            assert not going.done()
            gate.open()
            await doc.wait_for(lambda d: len(d.executions) == 3 and _all_ended(d), 30)
            rows = list(doc.executions.values())
            assert [row.cell for row in rows] == ids[1:]
            assert [row.code for row in rows] == ["print('first')", wait, "print('last')"]
            assert [row.state.value for row in rows] == ["ok", "ok", "ok"]
            assert [row.outputs[0].text for row in rows] == ["first\n", "waiting\n", "last\n"]
            assert (await going).state == "ok"
            await doc.wait_for(lambda d: not d.connected, 30)
        assert discovery.live() == []

    asyncio.run(fact())


def _all_ended(doc: Any) -> bool:
    return all(row.state in END_STATES for row in doc.executions.values())


# --- signals


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rtc_kernel.cli", "run", str(path), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


SLEEPS = f"import pathlib; pathlib.Path('started').touch(); {FOREVER}"


def interrupt(process: subprocess.Popen[str], path: Path, until: Callable[..., object]) -> None:
    until((path / "started").exists, "the cell runs", 60)
    (path / "started").unlink()
    process.send_signal(signal.SIGINT)


def test_ctrl_c_interrupts_the_cell_and_writes_what_there_is(tmp_path: Path, until: Callable[..., object]) -> None:
    path = notebook(tmp_path / "n.ipynb", "print('before')", SLEEPS, "print('never')")
    out = tmp_path / "out.ipynb"
    with start(path, "-o", str(out)) as process:
        interrupt(process, tmp_path, until)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "rtc_kernel/run.py" not in err, "no traceback of ours; the kernel may log that it was interrupted"
    assert "cell 2 of 3: interrupted" in err
    made = nbformat.read(out, 4)
    assert printed(made)[0] == "before\n"
    assert made.cells[1].outputs[0].ename == "KeyboardInterrupt"
    assert made.cells[2].outputs == []
    assert discovery.live() == []


def test_a_second_ctrl_c_ends_a_run_whose_cell_does_not_listen(tmp_path: Path, until: Callable[..., object]) -> None:
    deaf = f"while True:\n    try:\n        {SLEEPS}\n    except KeyboardInterrupt: pass"
    path = notebook(tmp_path / "n.ipynb", "print('before')", deaf)
    with start(path, "-o", str(tmp_path / "out.ipynb")) as process:
        interrupt(process, tmp_path, until)
        interrupt(process, tmp_path, until)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed(nbformat.read(tmp_path / "out.ipynb", 4))[0] == "before\n"
    until(lambda: not discovery.live(), "no kernel is left")


def test_no_process_and_no_connection_file_is_left(tmp_path: Path, home: Path) -> None:
    began = time.time()
    outcome, _ = go(notebook(tmp_path / "n.ipynb", "import os; print(os.getpid())"))
    assert not discovery.is_alive(int(printed(outcome.notebook)[0]), before=time.time())
    assert list((home / "runtime").glob("kernel-*.json")) == []
    assert time.time() - began < 60
    assert os.getpid()


def test_progress_says_which_cell_runs(tmp_path: Path) -> None:
    path = notebook(tmp_path / "n.ipynb", "# comment\nprint(1)")
    _, told = go(path)
    (started,) = [progress for progress in told if isinstance(progress, CellStarted)]
    assert started.code == "# comment\nprint(1)"
    assert started.cell == nbformat.read(path, 4).cells[0].id


def test_a_run_that_lingers_has_written_its_notebook_and_can_be_followed_until_it_is_told_to_go(
    tmp_path: Path, until: Callable[..., object]
) -> None:
    source, out = notebook(tmp_path / "n.ipynb", "print('here')", "1 / 0"), tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "rtc_kernel.cli", "run", str(source), "-o", str(out), "--linger", "1h"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(child.stderr or ()))
    reader.start()
    until(lambda: any("The link stays for 1 h" in line for line in said), "it lingers", 60)
    cells = nbformat.read(out, as_version=4).cells
    assert [output["output_type"] for cell in cells for output in joined_outputs(cell)] == ["stream", "error"]
    (live,) = discovery.live()
    recorded(live.kernel_id, "ok", "error")
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 1, "the cell's failure, not an interrupt"
    reader.join(30)
    assert child.stderr is not None
    child.stderr.close()
    assert not discovery.live()
    assert sum("ZeroDivisionError: " in line for line in said if line.startswith("jupyter rtc:")) == 1
