"""connection: the child's file is private, its name is the front's, and nothing of it stays."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from rtc_kernel.errors import SetupError
from rtc_kernel.relay import connection

FRONT = {
    "shell_port": 1,
    "ip": "127.0.0.1",
    "transport": "tcp",
    "key": "k",
    "curve_secretkey": "s",
    "jupyter_session": "/n",
}


@pytest.fixture
def front(tmp_path: Path) -> connection.Connection:
    path = tmp_path / "kernel-abc.json"
    path.write_text(json.dumps(FRONT))
    return connection.read(path)


def test_the_child_gets_the_same_key_and_name_over_ipc_in_a_private_directory(front: connection.Connection) -> None:
    child = connection.for_child(front, ipc=True)
    try:
        assert child.path.name == "kernel-abc.json"
        assert (child.key, child.info["jupyter_session"], child.curve) == (b"k", "/n", None)
        assert stat.S_IMODE(child.path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(child.path.stat().st_mode) == 0o600
        urls = {child.url(name) for name in connection.PORT_NAMES}
        assert len(urls) == 5
        assert all(url.startswith(f"ipc://{child.path.parent}/") for url in urls)
        assert max(map(len, urls)) - len("ipc://") <= connection.IPC_PATH_MAX_BYTES
    finally:
        connection.discard(child)
    assert not child.path.parent.exists()


def test_the_kernel_id_is_the_files_stem_without_kernel(front: connection.Connection) -> None:
    assert front.kernel_id == "abc"
    assert connection.Connection(Path("/r/tmpx.json"), {}).kernel_id == "tmpx"


def test_a_front_may_be_ipc_too() -> None:
    ipc = connection.Connection(Path("k.json"), {"transport": "ipc", "ip": "/tmp/x", "hb_port": 5})
    assert ipc.url("hb_port") == "ipc:///tmp/x-5"


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff"])
def test_what_is_no_connection_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kernel-x.json"
    path.write_text(text)
    with pytest.raises(SetupError, match=r"kernel-x\.json"):
        connection.read(path)
    with pytest.raises(SetupError, match="cannot be read"):
        connection.read(tmp_path / "none.json")
