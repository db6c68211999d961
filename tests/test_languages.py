"""Other languages' kernels behind the relay: the same messages as without it, and all of it in the document.

One visit per kernel: each step is taken with the kernel alone and with the kernel behind the relay, and what a client
sees of both must be the same. ``docs/kernels.md`` has the table that this file is the proof of.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from conftest import wait_until
from jupyter_client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from kernel_suite import KernelTests
from kernels import FOREVER, Running, reply_to, start
from test_agent import replica

import rtc_kernel
from rtc_kernel import discovery
from rtc_kernel.cli import main
from rtc_kernel.tables import Execution

Until = Callable[..., Any]

# bash_kernel's kernel.json has a key that jupyter_client does not know
pytestmark = pytest.mark.filterwarnings("ignore:Passing unrecognized arguments to super.KernelSpec:DeprecationWarning")

DENO = Path(__file__).parent / "node" / "node_modules" / "@deno" / "linux-x64-glibc" / "deno"


@dataclass(frozen=True)
class Language:
    """A kernel, and what is to be tried with it. What it cannot do, it cannot do without us either, and is empty.

    Attributes:
        install: brings it, where it is missing.
        hello: prints "hello, wörld" and a line end.
        error: raises ``ename``.
        display: shows something of the type ``mime``.
        result: its value is shown as ``text/plain`` in a message of this type.
        question: asks for a line and prints "got " and the line.
        completion: what is typed, and what is offered.
        closes: it answers a comm of a target that it does not know by closing it.
        endless: prints "on", and goes on until it is interrupted.
        interrupted: how an execution ends that is interrupted: its state in the document; ``dies``: with the kernel.
    """

    kernel: str
    name: str
    install: str
    hello: str
    error: str
    ename: str
    completion: tuple[str, str]
    endless: str
    interrupted: str
    display: str = ""
    mime: str = "text/html"
    result: tuple[str, str, str] | None = None
    question: str = ""
    closes: bool = True

    def __str__(self) -> str:
        return self.kernel

    @property
    def lacks(self) -> str:
        """What there is to do before it can be tested; empty where all is there."""
        if self.kernel == "deno":
            return "" if DENO.exists() else self.install
        if self.kernel == "bash":
            return ""
        try:
            argv = KernelSpecManager().get_kernel_spec(self.kernel).argv
        except NoSuchKernel:
            return self.install
        return "" if shutil.which(argv[0]) else self.install


_PYTHON: dict[str, Any] = {
    "name": "python",
    "hello": "print('hello, wörld')",
    "error": "raise ValueError('no')",
    "completion": ("pri", "print"),
    "display": "from IPython.display import HTML, display; display(HTML('<b>t</b>'))",
    "result": ("6*7", "execute_result", "42"),
    "question": "print('got', input('who? '))",
    "endless": f"print('on', flush=True)\n{FOREVER}",
}

LANGUAGES = (
    Language("python3", ename="ValueError", install="", interrupted="error", **_PYTHON),
    Language(
        "xpython",
        ename="<class 'ValueError'>",
        install="pip install '.[kernels]'",
        interrupted="dies",
        **_PYTHON,
    ),
    Language(
        "bash",
        name="bash",
        install="",
        hello="echo 'hello, wörld'",
        error="false",
        ename="",
        completion=("ech", "echo"),
        display="echo -n '<b>t</b>' | displayHTML",
        endless="echo on; sleep 1000",
        closes=False,
        interrupted="aborted",
    ),
    Language(
        "ir",
        name="R",
        install="apt-get install --no-install-recommends r-cran-irkernel",
        hello="cat('hello, wörld\\n')",
        error="stop('no')",
        ename="ERROR",
        completion=("prin", "print"),
        display="IRdisplay::display_html('<b>t</b>')",
        result=("6*7", "display_data", "[1] 42"),
        question="cat('got', readline('who? '))",
        endless="cat('on\\n'); flush.console(); while (TRUE) Sys.sleep(0.05)",
        interrupted="aborted",
    ),
    Language(
        "deno",
        name="typescript",
        install="npm ci in tests/node",
        hello="console.log('hello, wörld')",
        error="throw new TypeError('no')",
        ename="TypeError",
        completion=("consol", "console"),
        display="await Deno.jupyter.broadcast('display_data',"
        " {data: {'text/html': '<b>t</b>'}, metadata: {}, transient: {}})",
        result=("const six: number = 6; six * 7", "execute_result", "42"),
        question="console.log('got', prompt('who? '))",
        endless="console.log('on'); while (true) {}",
        interrupted="dies",
    ),
)


@pytest.fixture
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Jupyter home where kernels' own installers find it."""
    set_home(home, monkeypatch)
    return home


def set_home(home: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("XDG_DATA_HOME", str(home))  # Deno looks at nothing else
    patch.setenv("JUPYTER_DATA_DIR", str(home / "jupyter"))
    patch.setenv("JUPYTER_RUNTIME_DIR", str(home / "runtime"))
    patch.setenv("DENO_DIR", str(home / "deno"))
    patch.setenv("NO_COLOR", "1")


def install(language: Language) -> None:
    """The kernel, in the home of now, and its wrapper."""
    if language.lacks:
        pytest.skip(f"{language.kernel}: {language.lacks}")
    if language.kernel == "bash":
        subprocess.run([sys.executable, "-m", "bash_kernel.install", "--user"], check=True, capture_output=True)
    elif language.kernel == "deno":
        subprocess.run([DENO, "jupyter", "--install"], check=True, capture_output=True)
    assert main(["install", "--kernel", language.kernel, "--user"]) == 0


# --- what a client sees ---------------------------------------------------------------------------------------


OUTPUTS = ("display_data", "execute_result", "error")

ALWAYS_NEW = {"banner", "engine_info"}
"""Of replies: IPython says another tip each time, and who it is."""


@dataclass
class Seen:
    """What a client saw of one request, without what differs from run to run, as the order of what comes on different
    sockets does; and Deno shows something now and then when it has said that it is idle."""

    reply: dict[str, Any] = field(default_factory=dict)
    published: list[tuple[str, Any]] = field(default_factory=list)
    outputs: list[tuple[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    streams: dict[str, str] = field(default_factory=dict)

    def take(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":  # in how many pieces is a matter of time
            self.streams[content["name"]] = self.streams.get(content["name"], "") + content["text"]
        elif kind.endswith("_reply"):
            self.reply = {key: value for key, value in content.items() if key not in ALWAYS_NEW}
        elif kind in OUTPUTS:
            self.outputs.append((kind, content))
        elif kind in ("input_request", "comm_close"):  # Deno closes on shell
            self.asked.append(content)
        elif kind != "iopub_welcome":
            self.published.append((kind, content))

    def contents(self, kind: str) -> list[Any]:
        return [content for name, content in self.outputs if name == kind]

    @property
    def is_idle(self) -> bool:
        return ("status", {"execution_state": "idle"}) in self.published


@dataclass(eq=False)
class Client:
    """One client of one kernel."""

    running: Running

    @property
    def kernel(self) -> BlockingKernelClient:
        return self.running.client

    def ask(self, msg_type: str, content: dict[str, Any]) -> Seen:
        message = self.kernel.session.msg(msg_type, content)
        self.kernel.shell_channel.send(message)
        return self.see(message["header"]["msg_id"])

    def open_comm(self, closes: bool) -> Seen:
        """A comm of a target that no kernel knows."""
        message = self.kernel.session.msg("comm_open", {"comm_id": "c1", "target_name": "nobody", "data": {}})
        self.kernel.shell_channel.send(message)
        return self.see(message["header"]["msg_id"], reply=False, closes=closes)

    def run(self, code: str, *, answer: str | None = None, **expected: str) -> Seen:
        msg_id = self.kernel.execute(code, allow_stdin=answer is not None)
        return self.see(msg_id, answer=answer, **expected)

    def see(
        self,
        msg_id: str,
        prints: str = "",
        shows: str = "",
        *,
        answer: str | None = None,
        whole: bool = True,
        reply: bool = True,
        closes: bool = False,
    ) -> Seen:
        """What comes of a request until what it is to print, what it is to show (a message type), and, if the
        ``whole`` is wanted, idle and the reply, or where there is none what ``closes`` it."""
        seen = Seen()

        def has_come() -> bool:
            for message in self._arrived():
                if (message["parent_header"] or {}).get("msg_id") == msg_id:  # xeus says null
                    seen.take(message)
                    if message["msg_type"] == "input_request":
                        self.kernel.input(answer)
            said = prints in "".join(seen.streams.values()) and (not shows or bool(seen.contents(shows)))
            answered = bool(seen.reply if reply else seen.asked or not closes)
            return said and (not whole or (seen.is_idle and answered))

        wait_until(has_come, lambda: f"all of {seen}", 60)
        return seen

    def _arrived(self) -> Iterator[dict[str, Any]]:
        for receive in (self.kernel.get_iopub_msg, self.kernel.get_shell_msg, self.kernel.get_stdin_msg):
            with contextlib.suppress(Empty):
                while True:
                    yield receive(timeout=0)

    def begin(self, code: str) -> str:
        """Begin an execution that prints "on" and goes on; its id."""
        msg_id = self.kernel.execute(code)
        self.see(msg_id, "on\n", whole=False)
        return msg_id

    def restart(self) -> None:
        self.running.manager.restart_kernel()
        self.kernel.wait_for_ready(timeout=60)


def both(alone: Client, ours: Client, step: Callable[[Client], Seen], what: str) -> Seen:
    """Take a step with both; what is seen must be the same."""
    seen, expected = step(ours), step(alone)
    assert seen == expected, what
    return seen


# --- the visit -------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", LANGUAGES, ids=str)
def test_a_kernel_is_the_same_behind_us_and_its_history_is_in_the_document(
    language: Language, own_home: Path, until: Until
) -> None:
    install(language)
    with start(language.kernel, ready=False) as bare, start(f"rtc-{language.kernel}", ready=False) as running:
        for one in (bare, running):
            one.client.wait_for_ready(timeout=60)
        until(lambda: discovery.live(), "the agent serves", 30)
        alone, ours = Client(bare), Client(running)
        runs = visit(language, alone, ours)
        rows = list(replica(running, lambda doc: len(finished(doc)) >= len(runs) and printed(doc)).values())
        compare(runs, rows)
        restarts(language, ours, len(rows), until)
        interrupts(language, alone, ours, len(rows) + 2, until)


def visit(language: Language, alone: Client, ours: Client) -> list[tuple[str, Seen]]:
    """Start, questions and executions; the executions of ours, in order."""
    info = both(alone, ours, lambda one: one.ask("kernel_info_request", {}), "kernel_info")
    assert info.reply["language_info"]["name"] == language.name
    runs = []

    def run(code: str, what: str, **options: Any) -> Seen:
        seen = both(alone, ours, lambda one: one.run(code, **options), what)
        runs.append((code, seen))
        return seen

    seen = run(language.hello, "run", prints="hello, wörld\n")
    assert seen.reply["status"] == "ok"
    seen = run(language.error, "error", shows="error")
    assert seen.reply["status"] == "error"
    assert seen.contents("error")[0]["ename"] == language.ename
    if language.result:
        code, kind, text = language.result
        assert run(code, "result", shows=kind).contents(kind)[0]["data"]["text/plain"] == text
    if language.display:
        assert (
            run(language.display, "display", shows="display_data").contents("display_data")[0]["data"][language.mime]
            == "<b>t</b>"
        )
    if language.question:
        asked = run(language.question, "input", prints="got ada", answer="ada")
        assert asked.asked == [{"prompt": "who? ", "password": False}]
    typed, offered = language.completion
    at = {"code": typed, "cursor_pos": len(typed)}
    assert offered in both(alone, ours, lambda one: one.ask("complete_request", at), "completion").reply["matches"]
    both(alone, ours, lambda one: one.ask("inspect_request", at | {"detail_level": 0}), "inspection")
    both(alone, ours, lambda one: one.ask("is_complete_request", {"code": typed}), "is_complete")
    both(alone, ours, lambda one: one.ask("comm_info_request", {}), "comm_info")
    both(alone, ours, lambda one: one.open_comm(language.closes), "comm")
    # and what is ours alone
    code = f"%rtc status\n{language.hello}"
    seen = ours.run(code, prints="hello, wörld\n")
    assert seen.reply["status"] == "ok"
    assert "health   ok" in seen.contents("display_data")[0]["data"]["text/plain"]
    runs.append((code, seen))
    return runs


def finished(doc: rtc_kernel.Document) -> list[Execution]:
    return [row for row in doc.executions.values() if row.finished_at is not None]


def printed(doc: rtc_kernel.Document) -> bool:
    """Whether what the last one printed is there; Deno may say it when all else has been said."""
    return any("hello" in (output.text or "") for output in list(doc.executions.values())[-1].outputs)


def compare(runs: list[tuple[str, Seen]], rows: list[Execution]) -> None:
    """The rows say what the client saw."""
    assert [row.code for row in rows] == [code for code, _ in runs]
    for (code, seen), row in zip(runs, rows, strict=True):
        assert row.state.value == seen.reply["status"], code
        assert row.execution_count == seen.reply["execution_count"], code
        assert row.queued_at is not None
        assert row.started_at is not None
        assert row.finished_at is not None
        assert row.queued_at <= row.started_at <= row.finished_at
        for name, text in seen.streams.items():
            assert "".join(one.text or "" for one in row.outputs if one.name == name) == text, code
        shown = seen.contents("display_data") + seen.contents("execute_result")
        assert [one.data for one in row.outputs if one.data] == [one["data"] for one in shown], code
        for content in seen.contents("error"):
            assert row.error == {"ename": content["ename"], "evalue": content["evalue"]}
            assert [list(one.traceback or ()) for one in row.outputs if one.ename is not None] == [content["traceback"]]


def restarts(language: Language, ours: Client, count: int, until: Until) -> None:
    """As a frontend restarts it, and as one who follows does: the history goes on in the next generation."""
    ours.restart()
    assert ours.run(language.hello, prints="hello, wörld\n").reply["execution_count"] == 1
    until(lambda: discovery.live(), "the agent serves", 30)
    asyncio.run(restart_by_document(ours.running.kernel_id))
    assert ours.run(language.hello, prints="hello, wörld\n").reply["execution_count"] == 1
    rows = list(replica(ours.running, lambda doc: len(finished(doc)) >= count + 2).values())
    assert [row.generation for row in rows] == [0] * count + [1, 2]


async def restart_by_document(kernel_id: str) -> None:
    async with rtc_kernel.connect(kernel_id) as doc:
        await doc.restart()
        await doc.wait_for(lambda doc: doc.kernel.generation == 2 and doc.kernel.state.value == "idle", timeout_s=60)


def interrupts(language: Language, alone: Client, ours: Client, count: int, until: Until) -> None:
    """A cell that would go on for ever is interrupted, by whoever does it as the kernelspec says."""
    begun = {one: one.begin(language.endless) for one in (alone, ours)}
    for one in (alone, ours):
        one.running.manager.interrupt_kernel()
    if language.interrupted == "dies":  # of the signal, as it says nothing else of itself
        for one in (alone, ours):
            until(lambda one=one: not one.running.manager.is_alive(), "it has died of the signal", 30)
        ours.restart()
        until(lambda: discovery.live(), "the agent serves", 30)
        state = "lost"
    else:
        seen = {one: one.see(msg_id) for one, msg_id in begun.items()}
        assert ending(seen[ours]) == ending(seen[alone])
        state = language.interrupted
    assert ours.run(language.hello, prints="hello, wörld\n").reply["status"] == "ok"
    rows = list(replica(ours.running, lambda doc: len(finished(doc)) >= count + 2).values())
    assert [row.state.value for row in rows[-2:]] == [state, "ok"]


def ending(seen: Seen) -> list[Any]:
    """How it ended: without its number, which is another one in a kernel that was restarted, and in its traceback."""
    named = [(kind, content["ename"], content["evalue"]) for kind, content in seen.outputs]
    return [seen.reply["status"], named, [kind for kind, _ in seen.published], seen.streams]


def test_deno_is_interrupted_by_message_where_its_spec_says_so(own_home: Path, until: Until) -> None:
    """As it would be without us: by frontends through their manager, and by who follows through us."""
    language = of("deno")
    install(language)
    file = own_home / "jupyter" / "kernels" / "deno" / "kernel.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"interrupt_mode": "message"}))
    assert main(["install", "--kernel", "deno", "--user"]) == 0
    with start("rtc-deno") as running:
        until(discovery.live, "the agent serves", 30)
        ours = Client(running)
        for interrupt in (running.manager.interrupt_kernel, lambda: asyncio.run(interrupt_by_document(running))):
            msg_id = ours.begin(language.endless)
            interrupt()
            assert ours.see(msg_id).reply["status"] == "error"
            assert ours.run(language.hello, prints="hello, wörld\n").reply["status"] == "ok"
        rows = replica(running, lambda doc: len(finished(doc)) == 4).values()
        assert [row.state.value for row in rows] == ["error", "ok", "error", "ok"]


async def interrupt_by_document(running: Running) -> None:
    async with rtc_kernel.connect(running.kernel_id) as doc:
        await doc.interrupt()


@pytest.mark.parametrize(
    ("kernel", "waits", "answered"),
    [
        (
            "xpython",
            (
                "import os, time\nprint('on')\n"
                "any(os.path.exists({!r}) or time.sleep(0.02) for _ in range(6000))\nprint('end')"
            ),
            True,
        ),
        (
            "ir",
            (
                "cat('on\\n'); flush.console(); "
                "for (i in 1:6000) if (file.exists({!r})) break else Sys.sleep(0.02); cat('end\\n')"
            ),
            False,
        ),
    ],
)
def test_an_interrupt_request_is_without_effect_where_it_is_alone(
    kernel: str, waits: str, answered: bool, own_home: Path, tmp_path: Path
) -> None:
    """It is the kernel's to deal with it, unless it is one of ipykernel's."""
    install(of(kernel))
    with start(kernel, ready=False) as bare, start(f"rtc-{kernel}", ready=False) as running:
        for one in (Client(bare), Client(running)):
            one.kernel.wait_for_ready(timeout=60)
            gate = tmp_path / f"gate-{one.running.kernel_id}"
            msg_id = one.begin(waits.format(str(gate)))
            request = one.kernel.session.msg("interrupt_request", {})
            one.kernel.control_channel.send(request)
            if answered:
                assert reply_to(one.kernel, request["header"]["msg_id"], channel="control")["content"]["status"] == "ok"
            gate.touch()
            assert one.see(msg_id, "end\n").reply["status"] == "ok"
            with pytest.raises(Empty):
                one.kernel.get_control_msg(timeout=0)


# --- over ipc --------------------------------------------------------------------------------------------------


def transport(running: Running) -> str:
    """How the relay speaks to the real kernel, as its connection file says."""
    file = next(word for word in running.child().cmdline() if word.endswith(".json"))
    return str(json.loads(Path(file).read_text())["transport"])


def of(kernel: str) -> Language:
    return next(language for language in LANGUAGES if language.kernel == kernel)


def test_r_is_spoken_to_over_ipc_where_its_front_is(own_home: Path) -> None:
    """As ipykernel (test_relay.py) and bash_kernel (test_relay_agent.py) are."""
    language = of("ir")
    install(language)
    with start("rtc-ir", manager={"transport": "ipc"}) as running:
        assert transport(running) == "ipc"
        ours = Client(running)
        assert ours.run(language.hello, prints="hello, wörld\n").reply["status"] == "ok"
        ours.restart()
        assert transport(running) == "ipc"
        assert ours.run(language.hello, prints="hello, wörld\n").reply["execution_count"] == 1


@pytest.mark.parametrize("kernel", ["deno", "xpython"])
def test_a_kernel_that_fails_on_ipc_is_there_over_tcp_says_so_and_is_remembered(
    kernel: str, own_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Deno listens to host names only; xeus-python ends where the socket's path is longer than 23 characters."""
    language = of(kernel)
    install(language)
    word = "deno" if kernel == "deno" else "xpython_launcher"
    monkeypatch.setenv("RTC_KERNEL_IPC_KERNELS", f"ipykernel,{word}")  # somebody thinks that it does
    log = tmp_path / "log"
    with log.open("w") as stderr, start(f"rtc-{kernel}", manager={"transport": "ipc"}, stderr=stderr) as running:
        assert transport(running) == "tcp"
        ours = Client(running)
        assert ours.run(language.hello, prints="hello, wörld\n").reply["execution_count"] == 1
        assert "over loopback TCP: it ended" in str(ours.run("%rtc status").outputs)
        assert tcp_lines(log) == 1
        ours.restart()
        assert transport(running) == "tcp"
        assert "over loopback TCP: it did not do ipc" in str(ours.run("%rtc status").outputs)
        assert tcp_lines(log) == 1, "it is told once"
        assert [row.generation for row in replica(running, lambda doc: len(finished(doc)) == 3).values()] == [0, 0, 1]


def tcp_lines(log: Path) -> int:
    return sum("it is started again over loopback TCP" in line for line in log.read_text().splitlines())


# --- what Jupyter's own suite for kernels asks ------------------------------------------------------------------


class OtherLanguage(KernelTests):
    """What the suite asks of a kernel, behind the relay. A test that is None is what the kernel does not do alone."""

    __test__ = False
    language: Language

    @classmethod
    def setUpClass(cls) -> None:
        cls.language = next(one for one in LANGUAGES if f"rtc-{one.kernel}" == cls.kernel_name)
        # The agent ends a little after its kernel
        home = cls.enterClassContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        with pytest.MonkeyPatch.context() as patch:
            set_home(Path(home), patch)
            patch.setenv("RTC_KERNEL_HISTORY", "memory")
            install(cls.language)
            super().setUpClass()


class TestRTCBash(OtherLanguage):
    __test__ = True
    kernel_name = "rtc-bash"
    language_name = "bash"
    file_extension = ".sh"
    code_hello_world = "echo 'hello, world'"
    completion_samples = [{"text": "ech", "matches": {"echo"}}]
    test_clear_output = test_display_data = test_error = test_execute_result = test_execute_stderr = None
    test_history = test_inspect = test_is_complete = test_pager = None


class TestRTCR(OtherLanguage):
    __test__ = True
    kernel_name = "rtc-ir"
    language_name = "R"
    file_extension = ".r"
    code_hello_world = "cat('hello, world\\n')"
    code_stderr = "message('oops')"
    code_display_data = [{"code": "IRdisplay::display_html('<b>t</b>')", "mime": "text/html"}]
    code_generate_error = "stop('no')"
    code_inspect_sample = "print"
    code_clear_output = "IRdisplay::clear_output()"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples = ["1", "print('hello, world')", "f <- function(x) {\n  x * 2\n}"]
    incomplete_code_samples = ["print('hello", "f <- function(x) {\n  x * 2"]
    invalid_code_samples = ["1 +* 2"]
    test_execute_result = test_history = test_pager = None  # it shows results as display_data, and keeps no history


class TestRTCDeno(OtherLanguage):
    __test__ = True
    kernel_name = "rtc-deno"
    language_name = "typescript"
    file_extension = ".ts"
    code_hello_world = "console.log('hello, world')"
    code_stderr = "console.error('oops')"
    code_execute_result = [{"code": "6 * 7", "result": "42"}]
    code_generate_error = "throw new Error('no')"
    completion_samples = [{"text": "consol", "matches": {"console"}}]
    complete_code_samples = ["1", "function f(x: number) { return x * 2 }"]
    incomplete_code_samples = ["function f(x: number) {"]
    invalid_code_samples = ["f)"]
    test_clear_output = test_display_data = test_history = test_inspect = test_pager = None

    def execute_helper(self, code: str, **options: Any) -> tuple[Any, list[Any]]:
        """Also what it says behind its idle, as alone where the machine is busy: every cell here says something."""
        reply, outputs = super().execute_helper(code, **options)
        if not outputs:
            outputs.append(self.kc.get_iopub_msg(timeout=30))
        return reply, outputs


class TestRTCXPython(OtherLanguage):
    __test__ = True
    kernel_name = "rtc-xpython"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    code_execute_result = [{"code": "6*7", "result": "42"}]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>t</b>'))", "mime": "text/html"}
    ]
    code_generate_error = "raise ValueError('x')"
    code_inspect_sample = "print"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    completion_samples = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples = ["1", "print('hello, world')"]
    incomplete_code_samples = ["print('''hello"]
    invalid_code_samples = ["import = 7q"]
    test_history = test_pager = None
