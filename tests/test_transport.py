"""transport: over ipc or over TCP; and a kernel that hangs where it is told to listen at a path."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from driven import write_spec
from kernels import finish, gone, start
from test_languages import Until, tcp_lines, transport

from rtc_kernel import config, discovery
from rtc_kernel.errors import SetupError
from rtc_kernel.relay import transport as room
from rtc_kernel.relay.child import ChildSpec
from rtc_kernel.relay.connection import Connection

TCP = Connection(Path("k.json"), {"transport": "tcp"})
IPC = Connection(Path("k.json"), {"transport": "ipc"})
CURVE = Connection(Path("k.json"), {"transport": "tcp", "curve_publickey": "p", "curve_secretkey": "s"})

HANGS = """
import json, os, sys, time
path = sys.argv[sys.argv.index("-f") + 1]
if json.load(open(path))["transport"] == "ipc":
    time.sleep(1000)
os.execv(sys.executable, [sys.executable, "-m", "ipykernel", "-f", path])
"""


def spec(*argv: str) -> ChildSpec:
    return ChildSpec("k", "K", "k", argv)


@pytest.mark.parametrize(
    ("setting", "front", "known", "wanted"),
    [
        ("auto", TCP, ["mine"], False),
        ("auto", IPC, ["mine"], True),
        ("auto", CURVE, ["mine"], True),
        ("auto", IPC, ["other"], False),
        ("ipc", TCP, [], True),
        ("tcp", IPC, ["mine"], False),
    ],
)
def test_ipc_is_for_kernels_that_do_it_behind_a_front_that_cannot_be_read(
    setting: str, front: Connection, known: list[str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert room.wants_ipc(setting, front, spec("/usr/bin/mine", "-f"), known) is wanted
    monkeypatch.setattr(room, "WINDOWS", True)
    assert not room.wants_ipc(setting, front, spec("/usr/bin/mine", "-f"), known)


@pytest.mark.parametrize("text", ["a,b", '["a", "b"]'])
def test_the_list_is_read_as_every_list_setting(text: str) -> None:
    assert room.parse_words(text) == ["a", "b"] == config.load([f"--RTCKernel.ipc_kernels={text}"], {}, []).ipc_kernels


@pytest.mark.parametrize("text", ['["a"', "[1]"])
def test_of_a_list_that_is_none_the_kernel_starts_as_without_it(
    text: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[SetupError] = []
    settings = config.load([f"--RTCKernel.ipc_kernels={text}"], {}, problems=problems)
    assert settings.ipc_kernels == list(room.IPC_KERNELS)
    assert [problem.remedy.startswith("give ipc_kernels as: ") for problem in problems] == [True]
    write_spec(home, "rtc-listed", [sys.executable, "-m", "rtc_kernel", "-f", "{connection_file}"])
    monkeypatch.setenv("RTC_KERNEL_IPC_KERNELS", text)
    with start("rtc-listed") as running:
        assert running.execute("print(1)").text == "1\n"


def test_what_failed_is_remembered_until_its_program_is_another_one(home: Path, tmp_path: Path) -> None:
    program = tmp_path / "kernel"
    program.write_text("one")
    kernel, other = spec(str(program), "-f", "{connection_file}"), spec(str(program), "--other")
    assert not room.failed_before(kernel)
    room.note_failure(kernel)
    assert room.failed_before(kernel)
    assert not room.failed_before(other)
    os.utime(program, (1, 1))
    assert not room.failed_before(kernel)


def test_of_a_kernel_that_is_known_to_do_ipc_no_failure_is_remembered(home: Path) -> None:
    kernel = spec(sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
    room.note_failure(kernel)
    assert not room.failed_before(kernel)


def test_a_note_that_cannot_be_written_is_left_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(home / "file"))
    room.note_failure(spec("x"))
    assert not room.failed_before(spec("x"))


@pytest.fixture
def hangs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that starts and never listens, if it is to listen at a path."""
    script = tmp_path / "hangs.py"
    script.write_text(HANGS)
    write_spec(home, "hangs", [sys.executable, str(script), "-f", "{connection_file}"])
    write_spec(home, "rtc-hangs", [sys.executable, "-m", "rtc_kernel", "--kernel", "hangs", "-f", "{connection_file}"])
    monkeypatch.setenv("RTC_KERNEL_TRANSPORT", "ipc")


@pytest.mark.usefixtures("hangs")
def test_a_kernel_that_hangs_on_ipc_is_started_over_tcp_and_nothing_sent_meanwhile_is_lost(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setenv("RTC_KERNEL_IPC_WAIT_S", "1")
    log = tmp_path / "log"
    options: dict[str, Any] = {"ready": False}
    with log.open("w") as stderr, start("rtc-hangs", stderr=stderr, **options) as running:
        run = finish(running.client, running.client.execute("print('sent before')"), 60)
        assert run.text == "sent before\n"
        assert run.reply["content"]["execution_count"] == 1
        assert transport(running) == "tcp"
        assert "did not open its ipc sockets within 1 s" in log.read_text()
        until(discovery.live, "the agent serves", 20)
        text = str(running.execute("%rtc status").contents("display_data"))
        assert "over loopback TCP: it did not open its ipc sockets within 1 s" in text
    assert tcp_lines(log) == 1
    with log.open("w") as stderr, start("rtc-hangs", stderr=stderr) as running:
        assert running.execute("print(1)").text == "1\n"
    assert tcp_lines(log) == 0, "it was not tried again"


@pytest.mark.usefixtures("hangs")
def test_a_kernel_that_is_ended_before_it_listens_stays_ended(until: Until) -> None:
    with start("rtc-hangs", ready=False) as running:
        until(lambda: len(running.processes()) > 1, "the kernel is started", 20)
        processes = running.processes()
        running.manager.signal_kernel(15)
        until(gone(processes), "all have ended", 20)
