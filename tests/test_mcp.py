"""Facts about ``jupyter rtc mcp``: a person and a program at one kernel, through the protocol's official client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import FOREVER, SHOWS, Gate, Running, ask, post, start
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from serving import eventually
from standin import standin

import rtc_kernel
from rtc_kernel import cli, discovery
from rtc_kernel.cli import linking, telling
from rtc_kernel.cli.linking import Kernels
from rtc_kernel.errors import SetupError
from rtc_kernel.tables import Execution, ExecutionState, Output

Until = Callable[..., Any]
Capture = pytest.CaptureFixture[str]

COMMAND = [sys.executable, "-m", "rtc_kernel.cli", "mcp"]
LOOKING = {"list_kernels", "kernel_status", "history", "execution", "read_blob", "wait"}
ACTING = {"run_code", "interrupt", "cancel", "answer_input"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(1000)).decode()


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One Jupyter home for all of this module, in which one kernel lives that all may use."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("runtime", "data", "config"):
            (home / name).mkdir()
            patch.setenv(f"JUPYTER_{name.upper()}_DIR", str(home / name))
        patch.setenv("IPYTHONDIR", str(home / "ipython"))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        yield home


@pytest.fixture(scope="module")
def shared(home: Path) -> Iterator[Running]:
    with started() as running:
        yield running


@contextlib.contextmanager
def started() -> Iterator[Running]:
    with start("rtc-python") as running:
        from conftest import wait_until

        wait_until(lambda: running.kernel_id in {one.kernel_id for one in discovery.live()}, "its agent is up", 30)
        yield running


class Agent:
    """A program that uses the tools."""

    def __init__(self, client: Client, log: Path) -> None:
        self.client = client
        self.log = log
        self.told: list[str] = []

    async def call(self, tool: str, **arguments: Any) -> mcp_types.CallToolResult:
        async def note(_progress: float, _total: float | None, message: str | None) -> None:
            self.told.append(message or "")

        return await self.client.call_tool(tool, arguments, 60, note)

    async def text(self, tool: str, **arguments: Any) -> str:
        """What a tool answers that could do it."""
        result = await self.call(tool, **arguments)
        assert not result.is_error, result
        return result.content[0].text

    async def value(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.call(tool, **arguments)
        assert not result.is_error, result
        assert json.loads(result.content[0].text) == result.structured_content
        return result.structured_content

    async def error(self, tool: str, **arguments: Any) -> str:
        result = await self.call(tool, **arguments)
        assert result.is_error, result
        return result.content[0].text

    async def begin(self, code: str) -> str:
        """Run code that does not end by itself; what is told of it once it runs."""
        text = await self.text("run_code", code=code, timeout_s=0)
        while value_of(text, "state") != "running":
            text = await self.text("wait", execution=value_of(text, "request"), timeout_s=0.5)
        return text

    async def tools(self) -> dict[str, mcp_types.Tool]:
        return {tool.name: tool for tool in (await self.client.list_tools()).tools}


@contextlib.asynccontextmanager
async def agent(*arguments: str, log: Path, mode: str = "auto", name: str = "assistant") -> AsyncIterator[Agent]:
    server = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], *arguments], env=dict(os.environ))
    with log.open("a") as errlog:
        async with Client(
            stdio_client(server, errlog), client_info=mcp_types.Implementation(name=name, version="1"), mode=mode
        ) as client:
            yield Agent(client, log)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """What the servers say on stderr: nothing, or the test says what."""
    path = tmp_path / "stderr"
    yield path
    assert not path.exists() or path.read_text() == ""


def links(kernel: Running) -> dict[str, str]:
    """Name and role of those that somebody has."""
    tokens = ask(kernel.kernel_id, "/api/share")["tokens"]
    return {token["name"]: token["role"] for token in tokens if token["role"] != "own"}


def value_of(text: str, fact: str) -> str:
    """A line such as ``state: ok``."""
    found = re.search(rf"^{fact}: (.*)$", text, re.MULTILINE)
    assert found, text
    return found[1]


# --- a person and a program


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_person_and_an_agent_see_each_other_under_their_names(
    mode: str, shared: Running, log: Path, until: Until
) -> None:
    """In both protocols that clients speak: of the handshake, and of 2026."""
    shared.execute("person = 'ada'")
    shared.execute("1 / 0")
    until(lambda: [row["state"] for row in history(shared)[:2]] == ["error", "ok"], "both are recorded", 30)

    async def fact() -> str:
        async with agent(log=log, mode=mode) as assistant, rtc_kernel.connect(shared.kernel_id) as person:
            assert links(shared) == {}, "no link is made before a kernel is used"

            async def is_listed() -> bool:  # one that does not answer within 2 s is listed without its state
                (row,) = (await assistant.value("list_kernels"))["kernels"]
                return (row["kernel"], row["name"], row["state"]) == (shared.kernel_id, "RTC Python", "idle")

            await eventually(is_listed, "the kernel is listed", 60)

            failed, before, *_ = (await assistant.value("history"))["executions"]
            assert (before["code"], before["state"], before["error"]) == ("person = 'ada'", "ok", None)
            assert (failed["state"], failed["error"]) == ("error", "ZeroDivisionError: division by zero")
            assert "\x1b" not in failed["output"]

            text = await assistant.text("run_code", code="print('hi', person); 6 * 7")
            assert "[output 0: stdout]\nhi ada\n[output 1: result]\n42\n" in text
            assert value_of(text, "state") == "ok"
            assert value_of(text, "by") == "assistant"
            key, number = value_of(text, "execution").split(" ")
            await person.wait_for(lambda doc: key in doc.executions, 60)
            seen = person.executions[key]
            assert (seen.submitted_by, f"(#{seen.seq})") == ("assistant", number)
            assert seen.request == value_of(text, "request")
            assert links(shared) == {"assistant": "run"}
            status = await assistant.value("kernel_status", kernel=shared.kernel_id)
            assert (status["you"], status["role"], status["state"]) == ("assistant", "run", "idle")
            assert status["executions"] == seen.seq
            assert shared.execute("_").contents("execute_result")[0]["data"]["text/plain"] == "42"

            async with agent("--name", "second", log=log) as other:
                assert "by: second" in await other.text("run_code", code="'again'")
                assert links(shared) == {"assistant": "run", "second": "run"}
            await eventually(lambda: links(shared) == {"assistant": "run"}, "the second one's has ended", 60)
            return key

    asyncio.run(fact())
    assert links(shared) == {}, "a link ends with its server"


def test_asked_twice_under_one_id_nothing_runs_twice(shared: Running, log: Path) -> None:
    async def fact() -> None:
        async with agent(log=log) as first:
            await first.text("run_code", code="n = 0")
            same = {"code": "n += 1; n", "request_id": "r-1"}
            one, two = await asyncio.gather(first.text("run_code", **same), first.text("run_code", **same))
            assert value_of(one, "execution") == value_of(two, "execution")
            assert value_of(one, "request") == "r-1"
            refused = await first.error("run_code", code="n += 2", request_id="r-1")
            assert refused.startswith("the request was refused: request_id: used before")
        async with agent(log=log) as after:  # another process, which has to ask the agent beside the kernel
            three = await after.text("run_code", **same)
            assert value_of(three, "execution") == value_of(one, "execution")
            assert "[output 0: result]\n1\n" in three
            assert "\n2\n" in await after.text("run_code", code="n += 1; n", request_id="r-2")
            refused = await after.error("run_code", code="n += 2", request_id="r-1")
            assert refused.startswith("the request was refused: request_id: used before")

    asyncio.run(fact())


def test_every_answer_is_bounded_and_says_what_it_left_out(shared: Running, log: Path) -> None:
    shown = (
        "from IPython.display import HTML, Markdown, display\nimport base64, os\n"
        f"display({{'text/plain': 'small', 'image/png': {PNG!r}}}, raw=True)\n"
        "display({'text/plain': 'large', 'image/png': base64.b64encode(os.urandom(2 << 20)).decode()}, raw=True)\n"
        "display({'text/plain': 'z' * 100_000}, raw=True)\n"
        "display({'application/x-own': 'b' * 70_000}, raw=True)\n"
        "display(HTML('<b>bold</b>'))"
    )

    async def fact() -> None:
        async with agent(log=log) as assistant:
            text = await assistant.text(
                "run_code", code="for i in range(40_000): print(i)", max_chars=400, timeout_s=60
            )
            assert "[output 0: stdout]\n0\n1\n" in text
            assert text.endswith("\n39999\n")
            assert len(text) < 1000
            start_ = re.search(r"characters left out here: `execution` with `output` 0 and `start` (\d+)", text)
            assert start_, text
            key = value_of(text, "execution").split(" ")[0]
            more = await assistant.text("execution", execution=key, output=0, start=int(start_[1]), max_chars=100)
            whole = "".join(f"{i}\n" for i in range(40_000))
            assert more.startswith(whole[int(start_[1]) :][:100])
            assert f"`start` {int(start_[1]) + 100}]" in more
            assert "has 1 outputs" in await assistant.error("execution", execution=key, output=1)

            result = await assistant.call("run_code", code=shown)
            text, *images = result.content
            assert [(image.type, image.mime_type, image.data) for image in images] == [("image", "image/png", PNG)]
            assert "small\n[image/png 1008 B]" in text.text
            assert "<b>bold</b>" in text.text
            digests = re.findall(r"\[(\S+) (\S+ \S+): `read_blob` with digest (\S+)\]", text.text)
            assert [(kind, size) for kind, size, _ in digests] == [
                ("image/png", "2.0 MiB"), ("text/plain", "97.7 KiB"), ("application/x-own", "68.4 KiB")
            ]  # fmt: skip
            read = await assistant.text("read_blob", digest=digests[1][2], start=50, max_bytes=100)
            assert read == "text/plain, bytes 50 to 150 of 100000 (97.7 KiB); `start` 150 gives more\n\n" + "z" * 100
            read = await assistant.text("read_blob", digest=digests[2][2], start=69_990)
            assert read.startswith("application/x-own, bytes 69990 to 70000 of 70000")
            assert read.endswith(base64.b64encode(b"b" * 10).decode())
            assert "there is no such blob" in await assistant.error("read_blob", digest=f"sha256:{'0' * 64}")
            assert "there are no such bytes" in await assistant.error("read_blob", digest=digests[1][2], start=100_000)

            once = f"display(*[{{'image/png': {PNG!r}}}] * 6, raw=True)"
            *_, last = images = (await assistant.call("run_code", code=once)).content
            assert len(images) == 1 + telling.IMAGES
            assert "the first 4 of 6 images are shown" in images[0].text
            one = await assistant.call(
                "execution", execution=value_of(images[0].text, "execution").split()[0], output=5
            )
            assert [block.type for block in one.content] == ["text", "image"]
            assert one.content[1] == last

            await assistant.text("run_code", code=f"print('p' * 9000) #{'c' * 9000}")
            await assistant.text("run_code", code="\n".join(f"print({i})" for i in range(200)) + "\n'\\n' * 1000")
            page = await assistant.call("history", limit=100)
            assert len(page.content[0].text) < 30_000
            entry = page.structured_content["executions"][1]
            assert len(entry["code"]) <= 400
            assert len(entry["output"]) <= 400

    asyncio.run(fact())


def test_a_history_is_read_page_by_page_and_searched(shared: Running, log: Path, until: Until) -> None:
    shared.execute("'needle-1'")
    shared.execute("raise ValueError('needle-2')")
    shared.execute("'other'")
    until(lambda: [row["state"] for row in history(shared)] == ["ok", "error", "ok"], "all are recorded", 30)

    async def fact() -> None:
        async with agent("--role", "view", log=log) as assistant:
            found = await assistant.value("history", text="needle-")
            assert [entry["code"] for entry in found["executions"]] == ["raise ValueError('needle-2')", "'needle-1'"]
            found = await assistant.value("history", text="needle-", state="error")
            assert [entry["error"] for entry in found["executions"]] == ["ValueError: needle-2"]
            seen, before = [], None
            while True:
                page = await assistant.value("history", limit=2, **({} if before is None else {"before": before}))
                seen += [entry["number"] for entry in page["executions"]]
                before = page["before"]
                if before is None:
                    break
            assert seen == list(range(seen[0], 0, -1))
            number = found["executions"][0]["number"]
            for name in (number, f"#{number}", str(number), found["executions"][0]["execution"]):
                text = await assistant.text("execution", execution=name)
                assert "code:\nraise ValueError('needle-2')\n" in text
                assert "ValueError: needle-2\n" in text.partition("code:")[2]
            assert await assistant.error("execution", execution="#999999") == (
                "there is no execution '#999999', or more than one: `history` has those there are"
            )
            assert "nope" in await assistant.error("history", state="nope")
            assert "limit" in await assistant.error("history", limit=0)
            assert "no live RTC kernel 'nope'" in await assistant.error("history", kernel="nope")

    asyncio.run(fact())


# --- while something runs


def test_what_takes_longer_goes_on_and_is_waited_for_or_stopped(shared: Running, log: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")

    async def fact() -> None:
        async with agent(log=log) as assistant:
            text = await assistant.begin("print('begun', flush=True)\n" + gate.code)
            assert "It goes on: `wait` tells more, `interrupt` stops it." in text
            first = value_of(text, "execution").split(" ")[0]

            shared.client.execute("'a person waits, too'")
            waits = await assistant.text("run_code", code="'never'", timeout_s=0.5)
            assert value_of(waits, "state") == "requested"
            assert "It waits behind #" in waits
            assert "of assistant: print('begun', flush=True)" in waits
            request = value_of(waits, "request")
            status = await assistant.value("kernel_status")
            assert [(row["execution"], row["by"]) for row in status["running"]][:1] == [(first, "assistant")]
            assert [(row["request"], row["code"]) for row in status["waiting"]] == [(request, "'never'")]
            assert "not run yet" in await assistant.error("interrupt", execution=request)
            assert request in (await assistant.value("cancel", request=request))["done"]
            assert value_of(await assistant.error("wait", execution=request), "state") == "cancelled"
            assert "was sent" in await assistant.error("cancel", request=value_of(text, "request"))

            waiting = asyncio.create_task(assistant.text("wait", execution=first, timeout_s=60))
            await eventually(lambda: "begun" in assistant.told, "the client is told how far it is", 20)
            gate.open()
            assert value_of(await waiting, "state") == "ok"

            text = await assistant.begin(SHOWS)
            key = value_of(text, "execution").split(" ")[0]
            while "\non\n" not in await assistant.text("wait", execution=key, timeout_s=0.5):
                pass  # before, an interrupt may find ipykernel between two things
            stopped = await assistant.text("interrupt", execution=key)
            if value_of(stopped, "state") == "running":  # it is waited for for 5 s
                stopped = await assistant.error("wait", execution=key, timeout_s=60)
            assert value_of(stopped, "state") == "error"
            assert "KeyboardInterrupt" in stopped
            refused = await assistant.error("interrupt", execution=key)
            assert refused.startswith("nothing was interrupted (execution: it is not running now")

    asyncio.run(fact())


def test_a_call_that_is_cancelled_leaves_the_run_alone(shared: Running, log: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")

    async def fact() -> None:
        async with agent(log=log) as assistant, rtc_kernel.connect(shared.kernel_id) as person:
            asked = {"code": gate.code + "'done'", "request_id": "r-cancelled", "timeout_s": 60}
            calling = asyncio.create_task(assistant.call("run_code", **asked))
            runs = lambda doc: any(run.request == "r-cancelled" and run.started_at for run in doc.executions.values())  # noqa: E731
            await person.wait_for(runs, 60)
            calling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await calling

            async def goes_on() -> bool:
                return [row["by"] for row in (await assistant.value("kernel_status"))["running"]] == ["assistant"]

            try:
                await eventually(goes_on, "the run goes on", 20)
            finally:
                gate.open()
            assert "[output 0: result]\n'done'\n" in await assistant.text("run_code", **asked)

    asyncio.run(fact())


def test_input_is_refused_or_answered(shared: Running, log: Path) -> None:
    async def fact() -> None:
        async with agent(log=log) as assistant:
            assert "StdinNotImplementedError" in await assistant.error("run_code", code="input('who? ')")
            text = await assistant.text("run_code", code="'hello ' + input('who? ')", allow_input=True)
            assert (value_of(text, "state"), value_of(text, "asks for input")) == ("running", "who?")
            key = value_of(text, "execution").split(" ")[0]
            assert value_of(await assistant.text("wait", execution=key, timeout_s=60), "asks for input") == "who?"
            assert (await assistant.value("kernel_status"))["running"][0]["asks_for_input"] == "who?"
            await assistant.value("answer_input", execution=key, text='["ada"]')
            assert 'hello ["ada"]' in await assistant.text("wait", execution=key)
            assert "refused" in await assistant.error("answer_input", execution=key, text="late")

    asyncio.run(fact())


# --- who may


def test_a_viewer_is_offered_no_tool_that_acts(shared: Running, log: Path) -> None:
    async def fact() -> None:
        url = post(shared.kernel_id, "/api/share", {"role": "view", "name": "looks"})["url"]
        async with agent("--role", "view", log=log) as first, agent(url, log=log) as second:
            for viewer, name in ((first, "assistant"), (second, "looks")):
                tools = await viewer.tools()
                assert set(tools) == LOOKING
                assert all(tool.annotations.read_only_hint for tool in tools.values())
                assert all(tool.description for tool in tools.values())
                assert "Unknown tool" in await viewer.error("run_code", code="1")
                status = await viewer.value("kernel_status", kernel=shared.kernel_id[:8])
                assert (status["you"], status["role"]) == (name, "view")
            assert {name: role for name, role in links(shared).items() if name != "looks"} == {"assistant": "view"}
            assert len((await second.value("list_kernels"))["kernels"]) == 1

    asyncio.run(fact())
    ask_delete(shared, "looks")


def ask_delete(kernel: Running, name: str) -> None:
    assert subprocess.run([*COMMAND[:-1], "unshare", name, "--kernel", kernel.kernel_id], check=True)


def test_a_link_that_people_withdraw_is_not_made_again(shared: Running, log: Path) -> None:
    async def fact() -> None:
        async with agent("--name", "guest", log=log) as guest:
            await guest.text("run_code", code="1")
            await asyncio.to_thread(ask_delete, shared, "guest")
            for tool, arguments in (("run_code", {"code": "2"}), ("history", {})):
                told = await guest.error(tool, **arguments)
                assert told.startswith(f"the link to kernel {shared.kernel_id} is not in force any more")
                assert "\n" not in told
            assert "guest" not in links(shared)

    asyncio.run(fact())


def test_a_link_of_which_the_time_is_up_is_made_again(shared: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "LINK_S", 8.0)

    async def fact() -> None:
        kernels = Kernels(shared.kernel_id, None, role="run", name=None)
        try:
            async with kernels.use(None, "one") as linked:
                first = linked.link
                await eventually(lambda: linked.is_expired and not linked.doc.connected, "its time is up", 60)
            monkeypatch.setattr(linking, "LINK_S", 600.0)

            again = None
            for _ in range(100):  # the kernel's clock and ours are one, but not read at once
                with contextlib.suppress(SetupError):
                    async with kernels.use(None, "one") as linked:
                        again = linked.link
                        break
            assert again is not None
            assert again.name == first.name == "one"
            assert again.token != first.token
        finally:
            await kernels.close()
        assert links(shared) == {}

    asyncio.run(fact())


def test_a_name_in_force_gets_a_number_and_one_kernel_may_be_all_there_is(shared: Running) -> None:
    async def fact() -> None:
        found = discovery.find(shared.kernel_id)
        made = [await linking.make_link(found, "twin", "run") for _ in range(3)]
        assert [link.name for link in made] == ["twin", "twin-2", "twin-3"]
        with pytest.raises(SetupError, match=r"only kernel .* may be used here"):
            async with Kernels(shared.kernel_id, None, role="run", name=None).use("other", "one"):
                pass
        for link in made:
            await linking.withdraw_link(shared.kernel_id, link)
        assert links(shared) == {}

    asyncio.run(fact())


# --- what dies


def test_a_kernel_that_is_restarted_or_dies_is_told(log: Path) -> None:
    async def fact(kernel: Running) -> None:
        name = kernel.kernel_id
        async with agent(name, "--allow-restart", log=log) as assistant:
            assert [row["kernel"] for row in (await assistant.value("list_kernels"))["kernels"]] == [name]
            tools = await assistant.tools()
            assert set(tools) == LOOKING | ACTING | {"restart"}
            hints = {name for name, tool in tools.items() if tool.annotations.destructive_hint}
            assert hints == {"run_code", "interrupt", "restart"}
            await assistant.text("run_code", code="kept = 1")
            sleeping = {"code": f"print('begun', flush=True); {FOREVER}", "timeout_s": 60}
            running = asyncio.create_task(assistant.error("run_code", **sleeping))
            await eventually(lambda: "begun" in assistant.told, "it runs", 20)
            assert "restarted, 1 times" in (await assistant.value("restart"))["done"]
            assert value_of(await running, "state") == "lost"
            assert "NameError" in await assistant.error("run_code", code="kept")

            assistant.told.clear()
            running = asyncio.create_task(assistant.error("run_code", **sleeping))
            await eventually(lambda: "begun" in assistant.told, "it runs again", 20)
            os.killpg(kernel.pid, signal.SIGKILL)  # a manager interrupts first, and the run may get to say so
            kernel.manager.cleanup_connection_file()
            told = await running
            assert "The kernel is gone" in told or value_of(told, "state") == "lost"
            assert f"no live RTC kernel {name!r}" in await assistant.error("history")
            assert f"no live RTC kernel {name!r}" in await assistant.error("list_kernels")

    with started() as kernel:
        asyncio.run(fact(kernel))


# --- the process


def lines(*messages: dict[str, Any]) -> str:
    return "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages)


HELLO = lines(
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "raw\n  \x1b[31mone", "version": "1"},
        },
    },
    {"method": "notifications/initialized"},
)


def run_call(number: int, **arguments: Any) -> str:
    return lines({"id": number, "method": "tools/call", "params": {"name": "run_code", "arguments": arguments}})


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[str], number: int) -> dict[str, Any]:
    """The answer to a request; every line before it is JSON-RPC, too."""
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        if message.get("id") == number:
            return message["result"]
    raise AssertionError(process.stderr.read() if process.stderr else "")


def test_stdout_has_the_protocol_alone_and_the_end_of_stdin_is_the_end(shared: Running, until: Until) -> None:
    with server() as process:
        process.stdin.write(HELLO + "no JSON at all\n" + run_call(2, code="print('x'); import sys; 1 / 0"))
        process.stdin.flush()
        assert read(process, 1)["serverInfo"]["name"] == "rtc_kernel"
        result = read(process, 2)
        assert result["isError"]
        assert "by: raw [31mone" in result["content"][0]["text"]
        assert links(shared) == {"raw [31mone": "run"}
        process.stdin.write(run_call(3, code=FOREVER, request_id="r-left", timeout_s=600))
        process.stdin.flush()
        running = lambda: [run for run in history(shared) if run["request"] == "r-left" and run["state"] == "running"]  # noqa: E731
        (run,) = until(running, "it runs", 20)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in out.splitlines())
    assert links(shared) == {}
    assert running(), "what runs, runs on"
    subprocess.run([*COMMAND[:-1], "interrupt", shared.kernel_id, "--execution", run["id"]], check=True)


def history(kernel: Running) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ask(kernel.kernel_id, "/api/history?limit=3")["executions"]
    return rows


def test_a_signal_ends_it_and_its_link(shared: Running) -> None:
    with server("--name", "ended") as process:
        process.stdin.write(HELLO + run_call(2, code="1"))
        process.stdin.flush()
        assert not read(process, 2).get("isError")
        assert "ended" in links(shared)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert process.stderr.read() == ""
    assert "ended" not in links(shared)


# --- what is written


def test_every_tool_is_in_the_paper() -> None:
    paper = (Path(__file__).parents[1] / "docs" / "agents.md").read_text(encoding="utf-8")
    table = paper.partition("## Tools")[2].partition("The first six")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert set(named) == LOOKING | ACTING | {"restart"}
    assert set(named[:6]) == LOOKING


def test_without_the_package_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['mcp'] = None; from rtc_kernel.cli import main; sys.exit(main(['mcp']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "jupyter rtc: `jupyter rtc mcp` needs the package mcp, 2.1 or later: "
        "`pip install 'mcp>=2.1'` into this environment\n"
    )


@pytest.mark.parametrize(
    "line", [["--role", "own"], ["--name", ""], ["--name", "a\nb"], ["--name", "x" * 57], ["--token"]]
)
def test_a_wrong_line_is_told_with_the_usage(line: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["mcp", *line])
    assert caught.value.code == 2
    assert "usage: jupyter rtc mcp" in capsys.readouterr().err


def test_a_link_that_is_not_in_force_is_told_at_once(capsys: Capture) -> None:
    async def fact() -> int:
        async with standin() as socket:
            return await asyncio.to_thread(cli.main, ["mcp", f"{socket.url}/?token=wrong"])

    assert asyncio.run(fact()) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"jupyter rtc: the link to \S+ is not in force: .*\n", told.err)


def stream(text: str, **columns: Any) -> Output:
    return Output(output_type="stream", at=1.0, name="stdout", text=text, **columns)


texts = st.lists(st.builds(str.__mul__, st.text(max_size=5), st.integers(0, 300)), max_size=8)


@given(texts, st.integers(100, 1000))
def test_what_is_told_of_outputs_is_bounded_and_its_parts_are_the_whole(said: list[str], chars: int) -> None:
    run = Execution(id="e", seq=1, state=ExecutionState.OK, outputs=tuple(map(stream, said)))
    told = telling.tell_outputs(run, chars)
    assert len(told.text) <= chars + 200
    for position, output in enumerate(run.outputs):
        whole, parts, start = telling.output_text(output), "", 0
        while True:
            part = telling.tell_outputs(run, 100, only=position, start=start)
            parts += part.text[:100] if part.left_out else part.text
            start += 100
            if not part.left_out:
                break
        assert parts == whole
        if not told.left_out:
            assert whole in told.text


def test_what_the_document_left_out_is_named_in_its_place() -> None:
    gapped = stream("head\ntail\n", omitted_bytes=500, omitted_index=5, omitted_segment=1)
    run = Execution(id="e", seq=1, outputs=(stream("a"), gapped), omitted_outputs=7)
    told = telling.tell_outputs(run, 10_000)
    assert told.text == (
        "[output 0: stdout]\na\n"
        "[… outputs 1 to 7 left out here: `execution` with `output` gives them]\n"
        "[output 8: stdout]\nhead\n"
        "[… 500 bytes left out here: `execution` with `output` and `start` gives them]\ntail\n"
    )


@given(st.text(max_size=3000), st.integers(0, 500))
def test_a_short_text_has_the_beginning_and_the_end(text: str, chars: int) -> None:
    short = telling.shorten(text, chars)
    assert len(short) <= max(chars, 40)
    if len(text) <= chars:
        assert short == text
    elif chars > 100:
        assert short[:20] == text[:20]
        assert short[-20:] == text[-20:]
