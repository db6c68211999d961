"""Facts about the kernels that run on this machine: what is a connection file, and which one was meant."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtc_kernel import existing
from rtc_kernel.errors import SetupError
from rtc_kernel.relay.connection import PORT_NAMES

INFO = {name: 4000 + number for number, name in enumerate(PORT_NAMES)} | {
    "ip": "127.0.0.1",
    "transport": "tcp",
    "key": "secret",
    "signature_scheme": "hmac-sha256",
}


@pytest.fixture
def door() -> Iterator[int]:
    """A port at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def write(home: Path, name: str, **more: Any) -> Path:
    path = home / "runtime" / name
    path.write_text(json.dumps(INFO | more))
    return path


BAD = {
    "no JSON": "nothing",
    "a list": "[]",
    "an object of something else": '{"name": "x"}',
    "a port that is none": json.dumps(INFO | {"hb_port": 0}),
    "a port that is true": json.dumps(INFO | {"hb_port": True}),
    "a port that is text": json.dumps(INFO | {"shell_port": "4000"}),
    "a large port": json.dumps(INFO | {"shell_port": 1 << 16}),
    "no key": json.dumps({key: value for key, value in INFO.items() if key != "key"}),
    "a key that is a number": json.dumps(INFO | {"key": 1}),
    "another transport": json.dumps(INFO | {"transport": "inproc"}),
    "not UTF-8": "\udcff",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_connection_file_is_named_in_one_line(home: Path, text: str) -> None:
    path = home / "runtime" / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SetupError) as raised:
        existing.find(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2
    assert existing.running() == []


def test_a_kernel_is_named_by_its_path_its_id_or_the_beginning_of_it(home: Path, tmp_path: Path) -> None:
    first, second = write(home, "kernel-abc1.json"), write(home, "kernel-abd2.json")
    elsewhere = tmp_path / "mine.json"
    elsewhere.write_text(json.dumps(INFO))
    for name, path in {
        "abc1": first,
        "abc": first,
        "abd2": second,
        "kernel-abd2.json": second,
        "kernel-abd": second,
        str(first): first,
        str(elsewhere): elsewhere,
        os.path.relpath(elsewhere): elsewhere,
    }.items():
        assert existing.find(name).path == path.resolve(), name
    with pytest.raises(SetupError, match="'ab' begins the ids of 2 kernels: give one of: abc1, abd2"):
        existing.find("ab")
    for name in ("xyz", "/nowhere/kernel.json", "*"):
        with pytest.raises(SetupError) as raised:
            existing.find(name)
        assert raised.value.exit_code == 2


def test_without_a_name_it_is_the_only_one_that_listens(home: Path, door: int) -> None:
    write(home, "kernel-dead.json", shell_port=1)
    write(home, "jpserver-1.json", shell_port=door)
    (home / "runtime" / "kernel-bad.json").write_text("{")
    with pytest.raises(SetupError, match="no kernel runs on this machine: "):
        existing.find(None)
    write(home, "kernel-live.json", shell_port=door, kernel_name="python3")
    assert existing.find(None).kernel_id == "live"
    write(home, "kernel-other.json", shell_port=door, jupyter_session="/home/ann/train.ipynb")
    with pytest.raises(SetupError) as raised:
        existing.find(None)
    assert "2 kernels run" in raised.value.what
    assert "live (python3)" in raised.value.remedy
    assert "other (train.ipynb)" in raised.value.remedy
    assert existing.find(None, ["other"]).kernel_id == "live"
    with pytest.raises(SetupError, match="that is not followed already"):
        existing.find(None, ["other", "live"])


def test_a_kernel_over_ipc_listens_at_a_socket_file(home: Path, tmp_path: Path) -> None:
    connection = existing.read(write(home, "kernel-a.json", transport="ipc", ip=str(tmp_path / "k"), shell_port=1))
    assert not existing.listens(connection)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(tmp_path / "k-1"))
        listening.listen()
        assert existing.listens(connection)


@pytest.mark.parametrize("ip", ["256.256.256.256", "x" * 300, "a..b", "\0"])
def test_an_address_that_is_none_is_nobodys(home: Path, ip: str) -> None:
    for transport in ("tcp", "ipc"):
        assert not existing.listens(existing.read(write(home, "kernel-a.json", ip=ip, transport=transport)))
