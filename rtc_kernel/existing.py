"""Which kernels run on this machine, whoever started them?

What there is to know of them are connection files: those in Jupyter's runtime directory, or one that is named. A file
may outlive its kernel, so one only counts where somebody listens. Reads files and knocks at ports, and says nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from .errors import SetupError
from .relay import connection as connections
from .relay.connection import PORT_NAMES, Connection

KNOCK_S = 0.5
"""How long it may take to be let in. Seconds."""


def read(path: Path) -> Connection:
    """A connection file that one may connect with.

    Raises:
        SetupError: it is none.
    """
    remedy = "give a kernel's connection file"
    try:
        connection = connections.read(path)
    except SetupError as exc:
        raise SetupError(exc.what, remedy, 2) from exc
    info = connection.info
    ports = [info.get(name) for name in PORT_NAMES]
    if not all(isinstance(port, int) and not isinstance(port, bool) and 0 < port < 1 << 16 for port in ports):
        raise SetupError(f"{path} has no five ports, so it is no connection file", remedy, 2)
    if not isinstance(info.get("key"), str):
        raise SetupError(f"{path} has no key, so it is no connection file", remedy, 2)
    if info.get("transport", "tcp") not in ("tcp", "ipc"):
        raise SetupError(f"{path} is for the transport {info['transport']!r}", "attach where it is tcp or ipc", 2)
    return connection


def listens(connection: Connection) -> bool:
    """Whether somebody does, at its shell port."""
    info = connection.info
    host, port = str(info.get("ip") or "127.0.0.1"), int(info["shell_port"])
    try:
        if info.get("transport") == "ipc":
            with socket.socket(socket.AF_UNIX) as knock:
                knock.settimeout(KNOCK_S)
                knock.connect(f"{host}-{port}")
        else:
            socket.create_connection((host, port), KNOCK_S).close()
    except (OSError, UnicodeError):
        return False
    return True


def running(directory: Path | None = None) -> list[Connection]:
    """The kernels of Jupyter's runtime directory at which somebody listens, newest first."""
    found = []
    for path in sorted((directory or _directory()).glob("kernel-*.json"), key=_written_at, reverse=True):
        with contextlib.suppress(SetupError):
            connection = read(path)
            if listens(connection):
                found.append(connection)
    return found


def find(name: str | None, without: Sequence[str] = ()) -> Connection:
    """The connection file of a kernel.

    Args:
        name: its path; or the kernel's id, or the beginning of it. None: the only kernel that runs.
        without: ids of kernels that do not count where none is named.

    Raises:
        SetupError: none, or several: the message lists them.
    """
    if name is None:
        kernels = [kernel for kernel in running() if kernel.kernel_id not in without]
        if len(kernels) == 1:
            return kernels[0]
        if kernels:
            raise SetupError(f"{len(kernels)} kernels run on this machine", f"give one of: {_names(kernels)}", 2)
        others = " that is not followed already" if without else ""
        raise SetupError(f"no kernel runs on this machine{others}", "give the path of a connection file", 2)
    path = Path(name).expanduser()
    if path.is_file():
        return read(path.resolve())
    if path.suffix == ".json" and path.name != name:
        raise SetupError(f"there is no file {name}", "give a kernel's connection file", 2)
    stem = name.removesuffix(".json").removeprefix("kernel-")
    files = [file for file in _directory().glob("*.json") if file.stem.removeprefix("kernel-") == stem]
    files = files or [file for file in _directory().glob("kernel-*.json") if file.stem[7:].startswith(stem)]
    if len(files) == 1:
        return read(files[0])
    if files:
        ids = ", ".join(sorted(file.stem[7:] for file in files))
        raise SetupError(f"{name!r} begins the ids of {len(files)} kernels", f"give one of: {ids}", 2)
    raise SetupError(f"there is no connection file of a kernel {name!r}", _remedy(running()), 2)


def _remedy(kernels: Sequence[Connection]) -> str:
    return f"there are: {_names(kernels)}" if kernels else "give the path of a connection file"


def _names(kernels: Sequence[Connection]) -> str:
    return ", ".join(kernel.kernel_id + _note(kernel) for kernel in kernels)


def _note(kernel: Connection) -> str:
    notebook, name = kernel.info.get("jupyter_session"), kernel.info.get("kernel_name")
    note = Path(str(notebook)).name if notebook else name
    return f" ({note})" if note else ""


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _directory() -> Path:
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir())
