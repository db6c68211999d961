"""Facts about discovery: who lives on this machine, and what becomes of the files of the dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rtc_kernel import discovery
from rtc_kernel.discovery import LiveKernel
from rtc_kernel.errors import SetupError


def kernel(name: str = "aaaa-1", **columns: object) -> LiveKernel:
    return LiveKernel(
        **{  # type: ignore[arg-type]
            "kernel_id": name,
            "agent_pid": os.getpid(),
            "relay_pid": os.getpid(),
            "url": "http://127.0.0.1:1",
            "token": "s3cret",
            "started_at": 1.0,
        }
        | columns
    )


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_what_is_written_is_found_and_is_the_owner_s_alone() -> None:
    told = kernel(notebook="/n/b.ipynb", store="/s", connection_file="/c/kernel-aaaa-1.json")
    path = discovery.write(told)
    assert path.parent == discovery.directory()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert discovery.live() == [told]
    discovery.remove("aaaa-1")
    discovery.remove("aaaa-1")
    assert discovery.live() == []


def test_a_token_is_not_in_what_is_printed() -> None:
    assert "s3cret" not in repr(kernel())


def test_there_is_nobody_where_there_is_no_directory() -> None:
    assert discovery.live() == []


def test_the_file_of_a_dead_relay_is_removed(sleeper: subprocess.Popen[bytes], until: Callable[..., object]) -> None:
    discovery.write(kernel("live"))
    path = discovery.write(kernel("dead", relay_pid=sleeper.pid))
    assert [found.kernel_id for found in discovery.live()] == ["dead", "live"]
    sleeper.kill()  # a zombie until it is waited for
    until(lambda: not discovery.is_alive(sleeper.pid), "the process is a zombie")
    assert [found.kernel_id for found in discovery.live()] == ["live"]
    assert not path.exists()


def test_a_file_that_a_restart_wrote_anew_stays(sleeper: subprocess.Popen[bytes]) -> None:
    path = discovery.write(kernel())
    seen = path.stat()
    discovery.write(kernel())
    discovery._remove_unchanged(path, seen)
    assert path.exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to know when a process began")
def test_a_number_that_was_given_to_another_process_is_no_sign_of_life(sleeper: subprocess.Popen[bytes]) -> None:
    path = discovery.write(kernel(relay_pid=sleeper.pid))
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    assert discovery.live() == []
    assert not path.exists()


def test_the_file_of_another_machine_is_not_listed_and_stays() -> None:
    path = discovery.write(kernel(host="elsewhere.example", relay_pid=2**22 + 1))
    assert discovery.live() == []
    assert path.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"kernel_id": 1}', '{"relay_pid": "x", "kernel_id": "k"}', "\x00"]
)
def test_what_is_no_discovery_file_is_passed_over_and_left_alone(text: str) -> None:
    discovery.write(kernel())
    path = discovery.directory() / "other.json"
    path.write_text(text)
    assert [found.kernel_id for found in discovery.live()] == ["aaaa-1"]
    assert path.exists()


def test_unknown_columns_of_a_later_version_are_ignored() -> None:
    path = discovery.write(kernel())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"more": 1}))
    assert discovery.live() == [kernel()]


def test_a_kernel_is_found_by_id_prefix_and_connection_file(tmp_path: Path) -> None:
    file = tmp_path / "kernel-aaaa-1.json"
    kernels = [kernel("aaaa-1", connection_file=str(file)), kernel("aaab-2"), kernel("aaab-2-more")]
    assert discovery.find("aaaa", kernels) is kernels[0]
    assert discovery.find("aaab-2", kernels) is kernels[1]  # an id is itself, whatever else begins with it
    assert discovery.find(str(file), kernels) is kernels[0]
    assert discovery.find(str(tmp_path / "x" / ".." / file.name), kernels) is kernels[0]
    for name, says in {"aa": "give one of: aaaa-1", "zz": "live are: aaaa-1", "x.json": "no live RTC kernel"}.items():
        with pytest.raises(SetupError, match=says) as caught:
            discovery.find(name, kernels)
        assert caught.value.exit_code == 2


def test_the_only_kernel_needs_no_name() -> None:
    one, two = kernel("a", notebook="/x/n.ipynb"), kernel("b")
    assert discovery.only([one]) is one
    with pytest.raises(SetupError, match=r"a \(n\.ipynb\), b"):
        discovery.only([one, two])
    with pytest.raises(SetupError, match="jupyter rtc run"):
        discovery.only([])
