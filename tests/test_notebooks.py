"""nbclient and papermill write the same notebook with RTC Python as with ipykernel, whatever its cells do."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from kernels import joined_outputs, left_behind
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from serving import eventually
from test_cli_acting import rtc

from rtc_kernel import connect
from rtc_kernel.tables import ExecutionState, to_json

LINK = re.compile(r"^rtc_kernel: view link: (\S+)$", re.MULTILINE)
NAMES = ("rtc-python", "python3")

CELLS = [
    new_markdown_cell("# títle"),
    new_code_cell("import sys\nprint('naïve ☃')\nprint('e', file=sys.stderr)\nprint('o')"),
    new_code_cell("1 + 1"),
    new_code_cell(""),
    new_code_cell("from IPython.display import HTML, Image, JSON, clear_output, display, update_display"),
    new_code_cell("shown = display(HTML('<b>1</b>'), display_id='d')\nshown.update(HTML('<b>2</b>'))"),
    new_code_cell("update_display(HTML('<b>3</b>'), display_id='d')\ndisplay(HTML('again'), display_id='d')"),
    new_code_cell("print('gone')\nclear_output()\nprint('stays')"),
    new_code_cell("for n in range(3):\n    clear_output(wait=True)\n    print(n)\n    display(n)"),
    new_code_cell("print('last')\nclear_output(wait=True)"),
    new_code_cell("for n in range(101):\n    print(f'\\r{n:3} %', end='', flush=True)"),
    new_code_cell("for n in range(3):\n    print('x' * n + '\\b' * n, end='', file=sys.stderr, flush=True)"),
    new_code_cell("for n in range(300):\n    print(n, flush=True)"),  # it keeps 500 to 1000 for who is late
    new_code_cell("display({'application/json': {'n': 2**60, 'f': 0.1, 'é': [None, True]}}, raw=True)"),
    new_code_cell("display({'image/png': 'iVBORw0KGgo='}, raw=True, metadata={'image/png': {'width': 10}})"),
    new_code_cell("print('\\x1b[31mred\\x1b[0m \\x00 \\U0001f600')"),
    new_code_cell("import subprocess\nsubprocess.run(['echo', 'from a process'], check=True);"),
    new_code_cell("%%capture caught\nprint('captured')"),
    new_code_cell("caught.stdout"),
    new_code_cell("input('who? ')", metadata={"tags": ["raises-exception"]}),
    new_code_cell("def f():\n    raise ValueError('naïve')\nf()", metadata={"tags": ["raises-exception"]}),
    new_code_cell("import sys; sys.exit(3)", metadata={"tags": ["raises-exception"]}),
    new_code_cell("1 +", metadata={"tags": ["raises-exception"]}),
    new_code_cell("1 / 0", metadata={"tags": ["skip-execution"]}),
    new_code_cell("'the end'"),
]

NEAR_MISS = new_code_cell("print('%rtc is a word'); '''\n%rtc\n'''")
"""What looks like a line of ours and is none."""


def on_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test on a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 90))

    return run


def made(*cells: NotebookNode, kernel: str = "python3") -> NotebookNode:
    notebook = new_notebook(cells=[NotebookNode(cell) for cell in json.loads(json.dumps(cells))])
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    return notebook


def told(notebook: NotebookNode) -> list[dict[str, Any]]:
    """A notebook's cells without what two runs need not have in common: ids, times, addresses, process numbers,
    and how streams are cut into messages, which hangs on ipykernel's timer."""
    cells = json.loads(re.sub(r"ipykernel_\d+|0x[0-9a-f]+", "…", nbformat.writes(notebook)))["cells"]
    for cell in cells:
        del cell["id"]
        for name in ("execution", "papermill"):
            cell["metadata"].pop(name, None)
        cell["outputs"] = joined_outputs(cell)
    return list(cells)


def through_nbclient(kernel: str, path: Path) -> NotebookNode:
    notebook = made(*CELLS, NEAR_MISS)
    NotebookClient(notebook, kernel_name=kernel, timeout=60, iopub_timeout=60).execute(cwd=str(path))
    return notebook


def through_papermill(kernel: str, path: Path) -> NotebookNode:
    source, target = path / f"{kernel}.ipynb", path / f"{kernel}-out.ipynb"
    parameters = new_code_cell("n = 1", metadata={"tags": ["parameters"]})
    nbformat.write(made(parameters, new_code_cell("print(n)"), *CELLS[1:13]), source)
    papermill.execute_notebook(source, target, {"n": "naïve"}, kernel_name=kernel, progress_bar=False, iopub_timeout=60)
    return nbformat.read(target, 4)


@pytest.mark.parametrize("way", [through_nbclient, through_papermill])
def test_the_same_notebook_comes_out(
    way: Callable[[str, Path], NotebookNode], tmp_path: Path, home: Path, until: Callable[..., object]
) -> None:
    ours, bare = (told(way(name, tmp_path)) for name in NAMES)
    until(lambda: not left_behind(home), "nothing of it runs any more", 30)
    assert len(ours) == len(bare)
    for mine, theirs in zip(ours, bare, strict=True):
        assert mine == theirs


AGENT = new_code_cell(
    "import time; from rtc_kernel import discovery\n"
    "assert any(discovery.live() or time.sleep(0.01) for _ in range(6000)), 'no agent within a minute'"
)
"""Until the agent is there: one that comes so late that its kernel has ended gets some seconds only."""


@pytest.mark.parametrize(
    "command",
    ["papermill in.ipynb out.ipynb -k rtc-python", "nbconvert --execute --to notebook --output out.ipynb in.ipynb"],
    ids=["papermill", "nbconvert"],
)
def test_as_a_program_it_shows_a_link_and_leaves_a_history_and_nothing_else(
    command: str, tmp_path: Path, home: Path, until: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_KERNEL_SHARE", "view")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    nbformat.write(made(AGENT, *CELLS[1:3], kernel="rtc-python"), tmp_path / "in.ipynb")
    argv = [sys.executable, "-m", *command.split()]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=True)
    assert "rtc_kernel: view link: http" in done.stderr
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs[0]["data"]["text/plain"] == "2"
    until(lambda: not left_behind(home), "nothing of it runs any more", 30)
    (store,) = (home / "data" / "rtc_kernel").glob("*.sqlite3")
    rows = json.loads(rtc("history", str(store), "--json").stdout)
    assert sorted(row["code"] for row in rows) == sorted(cell.source for cell in (AGENT, *CELLS[1:3]))


def stop_nbclient(kernel: str, path: Path, cell: NotebookNode) -> tuple[NotebookNode, str]:
    notebook = made(*CELLS[1:3], cell, new_code_cell("'never'"))
    client = NotebookClient(notebook, kernel_name=kernel, timeout=60)
    with pytest.raises(CellExecutionError) as caught:
        client.execute()
    return notebook, f"{caught.value.ename}: {caught.value.evalue}"


def stop_papermill(kernel: str, path: Path, cell: NotebookNode) -> tuple[NotebookNode, str]:
    source, target = path / f"{kernel}.ipynb", path / f"{kernel}-out.ipynb"
    nbformat.write(made(*CELLS[1:3], cell, new_code_cell("'never'")), source)
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(source, target, kernel_name=kernel, progress_bar=False)
    return nbformat.read(target, 4), f"{caught.value.ename}: {caught.value.evalue}"


@pytest.mark.parametrize("way", [stop_nbclient, stop_papermill])
@pytest.mark.parametrize("code", ["print('before')\n1 / 0", "input('who? ')", "import sys; sys.exit('bye')"])
def test_the_same_notebook_is_left_behind_by_a_cell_that_fails(
    way: Callable[[str, Path, NotebookNode], tuple[NotebookNode, str]], code: str, tmp_path: Path
) -> None:
    (ours, mine), (bare, theirs) = (way(name, tmp_path, new_code_cell(code)) for name in NAMES)
    assert mine == theirs
    assert told(ours) == told(bare)


@pytest.mark.parametrize("kernel", NAMES)
def test_a_kernel_that_dies_is_told_the_same(kernel: str) -> None:
    notebook = made(new_code_cell("import os; os._exit(7)"))
    with pytest.raises(Exception, match="Kernel died"):
        NotebookClient(notebook, kernel_name=kernel, timeout=60).execute()


@on_loop
async def test_a_plain_nbclient_run_is_followed_by_the_link_on_its_kernels_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_KERNEL_SHARE", "view")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    code = f"print('waiting', flush=True)\nprint(open({str(gate)!r}).read())"
    notebook = made(new_code_cell(code), new_code_cell("6 * 7"), kernel="rtc-python")
    client = NotebookClient(notebook, timeout=60)
    log = tmp_path / "stderr"
    with log.open("w") as stderr:
        running = asyncio.create_task(client.async_execute(stderr=stderr), name="run")
        await eventually(lambda: LINK.search(log.read_text()), "the link is on stderr", 30)
        link = LINK.findall(log.read_text())[0]
        async with connect(link) as doc:
            await eventually(
                lambda: [text(run) for run in doc.executions.values()] == ["waiting\n"], "the first cell prints"
            )
            assert next(iter(doc.executions.values())).state is ExecutionState.RUNNING
            assert not running.done()
            await asyncio.to_thread(gate.write_text, "go on")
            await eventually(
                lambda: [text(run) for run in doc.executions.values()] == ["waiting\ngo on\n", "42"], "it goes on"
            )
            await running
    assert [text(cell) for cell in notebook.cells] == ["waiting\ngo on\n", "42"]


def text(cell: Any) -> str:
    """What a cell or an execution has put out so far, as plain text."""
    return "".join(output.get("text") or output["data"]["text/plain"] for output in map(plain, cell.outputs))


def plain(output: Any) -> dict[str, Any]:
    return dict(output) if isinstance(output, NotebookNode) else to_json(output)
