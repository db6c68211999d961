"""Answers from inside a real ipykernel, asked as the agent asks: by comm messages of one more client."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kernels import FOREVER, Running, reply_to, start

import rtc_kernel
from rtc_kernel.agent.act.queries import Answered, CloseComm, Command, OpenComm, Queries
from rtc_kernel.link import QUERY_COMM_PREFIX
from rtc_kernel.tables import PutQuery

COLUMNS = """
from rtc_kernel.answering import answer

class Frame:
    columns = ["name", "höhe"]

df = Frame()

@answer("columns")
def columns(name):
    return [str(column) for column in get_ipython().user_ns[name].columns]
"""


@pytest.fixture
def bare(home: Path) -> Iterator[Running]:
    """An ipykernel without a proxy."""
    with start("python3") as running:
        yield running


def send(kernel: Running, msg_type: str, comm: str, **content: Any) -> None:
    message = kernel.client.session.msg(msg_type, {"comm_id": comm, "data": {}} | content)
    kernel.client.shell_channel.send(message)


def said(kernel: Running, comm: str, timeout_s: float = 20.0) -> tuple[str, Any]:
    """The kernel's next word over a comm: its type and its data."""
    deadline = time.monotonic() + timeout_s
    while True:
        message = kernel.client.get_iopub_msg(timeout=max(0.01, deadline - time.monotonic()))
        if message["content"].get("comm_id") == comm:
            return message["msg_type"], message["content"]["data"]


def ask(kernel: Running, target: str, data: Any, comm: str = "c") -> Any:
    """What one question is answered with."""
    send(kernel, "comm_open", comm, target_name=target, data=data)
    kind, answer = said(kernel, comm)
    send(kernel, "comm_close", comm)
    assert kind == "comm_msg"
    return answer


def define(kernel: Running, code: str) -> None:
    assert kernel.execute(code).reply["content"]["status"] == "ok"


def test_a_function_answers_and_stays_a_function(bare: Running) -> None:
    define(bare, COLUMNS)
    assert ask(bare, "columns", {"input": "df"}) == {"result": ["name", "höhe"]}
    assert bare.execute("print(columns('df'))").text == "['name', 'höhe']\n"
    assert ask(bare, "columns", {"input": "dg"}) == {"error": "KeyError: 'dg'"}


RETURNS = """
from rtc_kernel.answering import answer
import asyncio

@answer("echo")
def echo(value): return value

@answer("code")
def code(text): return eval(text)

@answer("awaited")
async def awaited(value):
    await asyncio.sleep(0)
    return {"value": 1 / value}
"""


def test_any_json_is_an_answer_and_whatever_is_none_is_an_error_that_says_so(bare: Running) -> None:
    define(bare, RETURNS)
    for value in (None, True, 0, 2.5, "é", ["a", {"b": []}]):
        assert ask(bare, "echo", {"input": value}) == {"result": value}
    for data in ({}, {"other": 1}):
        assert ask(bare, "echo", data) == {"result": None}
    for code, reason in {
        "{1, 2}": "Object of type set is not JSON serializable",
        "b'1'": "Object of type bytes is not JSON serializable",
        "[float('nan')]": "Out of range float values are not JSON compliant",
        "'\\ud800'": "'utf-8' codec can't encode character",
        "(lambda x: x.append(x) or x)([])": "Circular reference detected",
    }.items():
        error = ask(bare, "code", {"input": code})["error"]
        assert error.startswith(f"TypeError: the answer is not JSON: {reason}"), code
    error = ask(bare, "code", {"input": "open('\\udc80')"})["error"]
    assert error.startswith("FileNotFoundError: ")


def test_an_async_function_answers_when_it_is_done(bare: Running) -> None:
    define(bare, RETURNS)
    assert ask(bare, "awaited", {"input": 2}) == {"result": {"value": 0.5}}
    assert ask(bare, "awaited", {"input": 0}) == {"error": "ZeroDivisionError: division by zero"}


def test_the_last_function_for_a_target_is_the_one_that_answers(bare: Running) -> None:
    for value in (1, 2):
        define(bare, f"from rtc_kernel.answering import answer\n@answer('n')\ndef n(_): return {value}")
    assert ask(bare, "n", {}) == {"result": 2}


def test_an_interrupt_is_an_answer(bare: Running) -> None:
    define(
        bare,
        "from rtc_kernel.answering import answer\n@answer('slow')\ndef slow(_):\n"
        f"    print('begun', flush=True)\n    {FOREVER}",
    )
    send(bare, "comm_open", "c", target_name="slow")
    while bare.client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
        pass
    bare.manager.interrupt_kernel()
    assert said(bare, "c") == ("comm_msg", {"error": "KeyboardInterrupt: "})
    define(bare, "1 + 1")


# --- with the agent's side -----------------------------------------------------------------------------------

BY_HAND = """
from comm import get_comm_manager

def stranger(comm, message):
    comm.send({"seen": message["content"]["data"]})
    comm.send("and more")

def broken(comm, message): 1 / 0

get_comm_manager().register_target("stranger", stranger)
get_comm_manager().register_target("broken", broken)
"""


def test_the_agents_questions_meet_the_kernels_answers(bare: Running) -> None:
    """Ours, one that somebody registered by hand, one that fails, one that is not there; no comm stays open."""
    define(bare, COLUMNS + BY_HAND)
    queries = Queries()
    rows: dict[str, dict[str, Any]] = {}
    told: list[Answered] = []

    def do(commands: list[Command]) -> None:
        for command in commands:
            match command:
                case OpenComm(comm, target, data):
                    send(bare, "comm_open", comm, target_name=target, data=data)
                case CloseComm(comm):
                    send(bare, "comm_close", comm)
                case PutQuery(query, columns):
                    rows.setdefault(query, {}).update(columns)
                case Answered():
                    told.append(command)

    for target in ("columns", "stranger", "broken", "nobody"):
        comm = f"{QUERY_COMM_PREFIX}{target}"
        do(queries.ask(target, target, "df", by="ada", fresh=False, now=1.0, comm=comm))
        kind, data = said(bare, comm)
        do(queries.receive_comm(comm, "comm_msg" if kind == "comm_msg" else "comm_close", data, 2.0))
    assert [(row["target"], row.get("result") or row["error"]) for row in rows.values()] == [
        ("columns", ["name", "höhe"]),
        ("stranger", {"seen": {"input": "df"}}),
        ("broken", "the kernel has no target broken, or its handler failed"),
        ("nobody", "the kernel has no target nobody, or its handler failed"),
    ]
    assert [(*answered.request_ids, answered.ok) for answered in told] == [
        ("columns", True),
        ("stranger", True),
        ("broken", False),
        ("nobody", False),
    ]
    assert reply_to(bare.client, bare.client.comm_info())["content"]["comms"] == {}


def test_it_answers_behind_the_proxy_too(kernel: Running) -> None:
    define(kernel, COLUMNS)
    assert ask(kernel, "columns", {"input": "df"}) == {"result": ["name", "höhe"]}


# --- where it is imported ------------------------------------------------------------------------------------


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("before", ["", "import ipykernel.ipkernel"], ids=["plain", "with ipykernel imported"])
def test_in_a_plain_interpreter_it_says_that_it_is_for_kernels(before: str) -> None:
    told = python(
        f"{before}\nfrom rtc_kernel.answering import answer\nfrom rtc_kernel.errors import SetupError\n"
        "try: answer('columns')\nexcept SetupError as exc: print(exc)"
    )
    assert told == "only a kernel is asked questions: use rtc_kernel.answering in a notebook or a console\n"


def test_a_decorator_without_a_name_says_how_it_is_written() -> None:
    told = python(
        "from rtc_kernel.answering import answer\nfrom rtc_kernel.errors import SetupError\n"
        "try:\n    @answer\n    def columns(name): pass\nexcept SetupError as exc: print(exc)"
    )
    assert told == 'answer() was given no name of a target: write @answer("columns")\n'


def test_importing_it_brings_only_comm_and_the_standard_library() -> None:
    loaded = set(json.loads(python("import sys, json, rtc_kernel.answering; print(json.dumps(list(sys.modules)))")))
    ours = {name for name in loaded if name.startswith("rtc_kernel")}
    assert ours == {rtc_kernel.__name__, "rtc_kernel.answering", "rtc_kernel.errors"}
    plain = set(json.loads(python("import sys, json; print(json.dumps(list(sys.modules)))")))  # what .pth files load
    roots = {name.partition(".")[0] for name in loaded - plain}
    assert roots - sys.stdlib_module_names == {"rtc_kernel", "comm"}
