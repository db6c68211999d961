"""What does JupyterLab's page feel of us? Needs JupyterLab, Chromium, and Playwright (``.[browser]``).

A real server with this checkout's extension, and headless browsers. Times are those of the pages' clocks; ``bare`` is
what JupyterLab does itself: the page that has run the cell, or JupyterLab with the extension disabled.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

import rtc_kernel

from .figures import Compare, Line, Plan, Rounds, p95
from .kernels import ARMS, BARE, RTC, SPECS, TIMEOUT_S, settle, wait_until
from .viewing import SIZE, browser, wait

EXTENSION = Path(rtc_kernel.__file__).parent / "labextension"
NEWS = "@jupyterlab/apputils-extension:announcements"

WATCH = """
window.seen = { connected: null, filled: null, tasks: [], at: {}, last: null };
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
  constructor(...options) {
    super(...options);
    if (!String(options[0]).includes("/channels")) return;
    this.addEventListener("open", () => { window.seen.connected ??= performance.now(); });
  }
};
new PerformanceObserver((list) => {
  const [mark] = list.getEntriesByName("rtc_kernel:filled");
  if (mark) window.seen.filled ??= mark.startTime;
}).observe({ type: "mark", buffered: true });
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.seen.tasks.push([entry.startTime, entry.duration]);
}).observe({ type: "longtask", buffered: true });
new MutationObserver(() => {
  for (const node of document.querySelectorAll(".jp-OutputArea-output")) {
    const text = node.textContent.trim();
    if (/^at \\w+$/.test(text)) window.seen.at[text] ??= performance.timeOrigin + performance.now();
  }
}).observe(document, { subtree: true, childList: true, characterData: true });
window.cells = () => {
  const { currentWidget } = window.jupyterapp.shell;
  return currentWidget?.content?.widgets?.map(({ model }) => model).filter(({ type }) => type === "code") ?? [];
};
"""
"""Whatever a page is asked for later. ``cells()``: the models of the notebook in front, also of cells that are not
drawn because nobody has scrolled to them."""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    root: Path

    def write(self, *sources: str, arm: str = RTC) -> str:
        """A notebook with these cells, for this kernel; its name."""
        notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
        notebook.metadata["kernelspec"] = {"name": SPECS[arm], "display_name": SPECS[arm], "language": "python"}
        name = f"{uuid.uuid4().hex}.ipynb"
        nbformat.write(notebook, self.root / name)
        return name


@contextlib.contextmanager
def serving(*, disabled: bool = False) -> Iterator[Lab]:
    """A server in the private home, with the extension of this checkout, or with it disabled.

    Raises:
        RuntimeError: JupyterLab is not installed, or did not start.
    """
    home = Path(os.environ["JUPYTER_DATA_DIR"]).parent / uuid.uuid4().hex[:8]
    root, config, extensions = home / "notebooks", home / "config", home / "labextensions"
    for directory in (root, config / "labconfig", extensions / "@rtc-kernel"):
        directory.mkdir(parents=True)
    (extensions / "@rtc-kernel" / "lab").symlink_to(EXTENSION)
    off = {NEWS: True} | ({"@rtc-kernel/lab": True} if disabled else {})
    (config / "labconfig" / "page_config.json").write_text(json.dumps({"disabledExtensions": off}))
    environ = os.environ | {"JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_CONFIG_DIR": str(config)}
    token = uuid.uuid4().hex
    argv = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"]
    argv += [f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={token}", "--expose-app-in-browser"]
    argv += [f"--LabApp.labextensions_path={extensions}", "--LabApp.news_url=", "--LabApp.extension_manager=readonly"]
    if os.name == "posix" and os.geteuid() == 0:
        argv.append("--allow-root")
    log = home / "server.log"
    with log.open("w") as output, subprocess.Popen(argv, env=environ, stdout=output, stderr=output) as process:

        def found() -> str | None:
            if process.poll() is not None:
                raise RuntimeError(f"JupyterLab has not started: {log.read_text()[-500:]}")
            started = re.search(r"(http://127\.0\.0\.1:\d+/)lab", log.read_text())
            return started and started[1]

        try:
            yield Lab(wait_until(found, "JupyterLab has started", TIMEOUT_S), token, root)
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def opened(chromium: Any, lab: Lab, name: str) -> Iterator[Any]:
    """A notebook in a browser of its own, its kernel connected."""
    context = chromium.new_context(viewport=SIZE)
    context.set_default_timeout(TIMEOUT_S * 1000)
    context.add_init_script(WATCH)
    try:
        page = context.new_page()
        open_in(page, lab, name)
        yield page
    finally:
        context.close()


def open_in(page: Any, lab: Lab, name: str) -> None:
    """Open the notebook in this page, and wait for its kernel."""
    page.goto(f"{lab.url}lab/tree/{name}?token={lab.token}&reset")
    wait(page, "window.seen.connected !== null && window.jupyterapp !== undefined && window.cells().length > 0")
    wait(page, "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.connectionStatus === 'connected'")


def run(page: Any, index: int) -> None:
    """Run the cell of the notebook as a keystroke does."""
    page.evaluate(
        "(index) => { const { content } = window.jupyterapp.shell.currentWidget; content.activeCellIndex = index;"
        " void window.jupyterapp.commands.execute('notebook:run-cell'); }",
        index,
    )


def run_all(page: Any) -> None:
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")


def longest_task(page: Any, since: float) -> float:
    """Milliseconds; 0: none was longer than 50."""
    return max((took for at, took in page.evaluate("window.seen.tasks") if at >= since), default=0.0)


def attach(plan: Plan) -> list[Line]:
    """A notebook of 200 cells with outputs, one of them still running, opened anew: from the kernel's connection until
    every cell has its outputs."""
    filled, longest = Rounds(), Rounds()
    count = plan.size(200)
    with serving() as lab, browser() as chromium:
        go = lab.root / "go"
        running = (
            f"print('begun')\nimport pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)"
        )
        name = lab.write(*(f"for i in range(20): print('cell {n}', i)" for n in range(count - 1)), running)
        with opened(chromium, lab, name) as page:
            run_all(page)
            wait(page, "window.cells().at(-1).outputs.length === 1")
        for index in range(plan.rounds_or(8)):
            plan.tell(f"round {index + 1}")
            settle()
            with opened(chromium, lab, name) as page:
                wait(page, "window.seen.filled !== null")
                outputs = page.evaluate("window.cells().filter(({ outputs }) => outputs.length > 0).length")
                if outputs != count:
                    raise RuntimeError(f"{outputs} of {count} cells have outputs")
                connected, done = page.evaluate("[window.seen.connected, window.seen.filled]")
                filled.add(RTC, index, done - connected)
                longest.add(RTC, index, longest_task(page, connected))
        go.touch()
    value = Compare.VALUE
    return [
        Line(
            name=f"a notebook of {count} cells, one running, has its outputs",
            unit="ms",
            rtc=filled.each(RTC),
            compare=value,
            target=500.0,
            note="after the kernel's WebSocket is open",
        ),
        Line(
            name="… longest task", unit="ms", rtc=longest.each(RTC), compare=value, note="JupyterLab draws cells then"
        ),
    ]


def others(plan: Plan) -> list[Line]:
    """Two browsers at one notebook: how much later than in the page that runs it a ``print`` is in the other one."""
    lags = Rounds()
    with serving() as lab, browser() as chromium:
        name = lab.write("import uuid\nprint('at', uuid.uuid4().hex)")
        with opened(chromium, lab, name) as mine, opened(chromium, lab, name) as theirs:
            for index in range(plan.rounds_or(5)):
                plan.tell(f"round {index + 1}")
                for _ in range(plan.size(40)):
                    settle()
                    known = set(mine.evaluate("Object.keys(window.seen.at)"))
                    run(theirs, 0)
                    wait(mine, f"Object.keys(window.seen.at).length > {len(known)}")
                    wait(theirs, f"Object.keys(window.seen.at).length >= {len(known)}")
                    mine_at, theirs_at = (one.evaluate("window.seen.at") for one in (mine, theirs))
                    (line,) = set(mine_at) - known
                    wait(theirs, f"{json.dumps(line)} in window.seen.at")
                    theirs_at = theirs.evaluate("window.seen.at")
                    lags.add(RTC, index, mine_at[line] - theirs_at[line])
    return [
        Line(
            name="another browser's print is in my cell, p95",
            unit="ms",
            rtc=lags.each(RTC, p95),
            compare=Compare.VALUE,
            target=60.0,
            note="later than in its own",
        )
    ]


def flood(plan: Plan) -> list[Line]:
    """20 000 lines that another browser's cell prints, and 50 cells that it runs one after another: the longest task of
    the page that looks on; bare: of the page that runs them, drawn by JupyterLab itself."""
    lines, cells = Rounds(), Rounds()
    count, many = plan.size(20_000), plan.size(50)
    with serving() as lab, browser() as chromium:
        long = lab.write(f"for i in range({count}): print('line', i)\nprint('over')")
        short = lab.write(*(f"for i in range(20): print('cell {n}', i)" for n in range(many)))
        for name, rounds in ((long, lines), (short, cells)):
            with opened(chromium, lab, name) as mine, opened(chromium, lab, name) as theirs:
                for index in range(plan.rounds_or(5)):
                    plan.tell(f"round {index + 1}")
                    settle()
                    pages = {RTC: mine, BARE: theirs}
                    began = {arm: page.evaluate("performance.now()") for arm, page in pages.items()}
                    numbered = many if name == short else 1
                    run_all(theirs)
                    for page in pages.values():
                        wait(page, f"window.cells().at(-1).executionCount === {numbered * (index + 1)}")
                    for page in pages.values():
                        page.evaluate("() => new Promise((end) => requestIdleCallback(end))")
                    for arm, page in pages.items():
                        rounds.add(arm, index, longest_task(page, began[arm]))
    note = "0: none above 50; bare: of the page that runs it"
    return [
        Line(
            name=name,
            unit="ms",
            bare=rounds.each(BARE, max),
            rtc=rounds.each(RTC, max),
            compare=Compare.VALUE,
            target=100.0,
            note=note,
        )
        for name, rounds in (
            (f"{count} lines in another browser, my page's longest task", lines),
            (f"{many} cells in another browser, my page's longest task", cells),
        )
    ]


def start(plan: Plan) -> list[Line]:
    """From the address until JupyterLab is restored, with the extension and without; and how large it is."""
    restored = Rounds()
    with serving() as ours, serving(disabled=True) as bare, browser() as chromium:
        labs = {RTC: ours, BARE: bare}
        contexts = {arm: chromium.new_context(viewport=SIZE) for arm in ARMS}  # each with its cache, as a user's
        for arm, index in [(arm, index) for index, arm in plan.turns("start", 12, ARMS)]:
            plan.tell(f"round {index + 1}, {arm}")
            settle()
            page = contexts[arm].new_page()
            page.add_init_script(WATCH)
            page.goto(f"{labs[arm].url}lab?token={labs[arm].token}&reset")
            wait(page, "window.jupyterapp !== undefined")
            took = page.evaluate("() => window.jupyterapp.restored.then(() => performance.now())")
            if index > 0:  # the first one fills the cache
                restored.add(arm, index - 1, took)
            page.close()
        entry = json.loads((EXTENSION / "package.json").read_text())["jupyterlab"]["_build"]["load"]
        with urlopen(f"{ours.url}lab/extensions/@rtc-kernel/lab/{entry}?token={ours.token}") as answer:
            size = len(gzip.compress(answer.read())) / 1024
    return [
        Line(
            name="JupyterLab is restored",
            unit="ms",
            bare=restored.each(BARE),
            rtc=restored.each(RTC),
            compare=Compare.DIFFERENCE,
            target=20.0,
            note="bare: without the extension",
        ),
        Line(name="the extension at start, compressed", unit="KiB", rtc=(size,), compare=Compare.VALUE, target=150.0),
    ]
