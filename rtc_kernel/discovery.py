"""Which RTC kernels live on this machine?

Each agent keeps one file, ``jupyter_runtime_dir()/rtc_kernel/<kernel_id>.json``, mode 0600 in a directory of
mode 0700: it holds the owner's token, so whoever can read the file may do what the kernel's user may do. A file
whose relay is gone says nothing any more: it is not listed, and taken away by whoever notices.

This room reads and writes these files, and nothing else: it connects to nobody.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from .errors import SetupError

Json = dict[str, Any]

PID_SLACK_S = 5.0
"""A process that began this long after the file was written is another one with the same number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKernel:
    """One discovery file.

    Attributes:
        url: of the side socket, without a token.
        token: the owner's; never printed.
        notebook: path, or null where the frontend did not say.
        started_at: POSIX seconds.
        store: path of the history, or null when it is kept in memory only.
        connection_file: the one the frontend made for the relay.
        host: the machine's name: a home directory may be shared by several, and a process number says nothing
            about another machine's.
        attached: somebody else started the kernel, and the relay's place is taken by what follows it.
        certfile: the side socket's certificate, where it speaks TLS: clients of this machine trust this one.
    """

    kernel_id: str
    agent_pid: int
    relay_pid: int
    url: str
    token: str = field(repr=False)
    kernel_name: str = ""
    display_name: str = ""
    notebook: str | None = None
    started_at: float | None = None
    store: str | None = None
    connection_file: str = ""
    version: str = ""
    host: str = ""
    attached: bool = False
    certfile: str | None = None


def directory() -> Path:
    """Where the files are: ``jupyter_runtime_dir()/rtc_kernel``."""
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir()) / "rtc_kernel"


def write(kernel: LiveKernel, where: Path | None = None) -> Path:
    """Say that this kernel lives; replaces an earlier file whole, so that a reader never sees half of one.

    Returns:
        The file, mode 0600.
    """
    where = where or directory()
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=where, prefix=".", suffix=".tmp")  # mkstemp: mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(kernel), file)
        path = where / f"{kernel.kernel_id}.json"
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def remove(kernel_id: str, where: Path | None = None) -> None:
    """Take a kernel's file away; nothing happens where there is none."""
    ((where or directory()) / f"{kernel_id}.json").unlink(missing_ok=True)


def hold(kernel_id: str, where: Path | None = None) -> IO[str] | None:
    """Say that this process is at this kernel, until the file that is returned is closed or the process ends; null
    where another one is. For those who must not be two: whoever is attached to a kernel, and the agent of an RTC
    kernel, whose file may not be there yet."""
    if sys.platform == "win32":  # untested here
        return Path(os.devnull).open("w")
    import fcntl

    where = where or directory()
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = where / f"{kernel_id}.lock"
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # else of one that has just ended
            return file
    except OSError:
        pass
    file.close()
    return None


def let_go(held: IO[str]) -> None:
    """End a :func:`hold`; without this its file stays, and means nothing."""
    Path(held.name).unlink(missing_ok=True)
    held.close()


def live(where: Path | None = None) -> list[LiveKernel]:
    """The kernels that live, oldest first. Files of dead ones are removed; what is no such file is left alone."""
    found = []
    for path in sorted((where or directory()).glob("*.json")):
        try:
            stat = path.stat()
            kernel = _read(path)
        except (OSError, ValueError, TypeError):
            continue
        if kernel.host not in ("", socket.gethostname()):
            continue
        if is_alive(kernel.relay_pid, before=stat.st_mtime):
            found.append(kernel)
        else:
            _remove_unchanged(path, stat)
    return sorted(found, key=lambda kernel: kernel.started_at or 0.0)


def _read(path: Path) -> LiveKernel:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    kernel = LiveKernel(**{name: value[name] for name in LiveKernel.__dataclass_fields__ if name in value})
    if not (isinstance(kernel.relay_pid, int) and isinstance(kernel.kernel_id, str)):
        raise ValueError("not a discovery file")
    return kernel


def _remove_unchanged(path: Path, seen: os.stat_result) -> None:
    """A restart may have written the file anew since it was read: then it stays."""
    try:
        now = path.stat()
        if (now.st_ino, now.st_mtime_ns) == (seen.st_ino, seen.st_mtime_ns):
            path.unlink()
    except OSError:
        pass  # gone already, or not ours to remove


def is_alive(pid: int, before: float | None = None) -> bool:
    """Whether this process of ours runs: not a zombie, and (on Linux) not one that was started after ``before``
    (POSIX seconds) and only got the same number."""
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):  # gone; or somebody else's, so the number was given away
        return False
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True  # no /proc on this system
    if fields[0] in ("Z", "X"):
        return False
    return before is None or _started_at(int(fields[19])) <= before + PID_SLACK_S


def _started_at(ticks: int) -> float:
    boot = next(
        (float(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line[:5] == "btime"),
        0.0,
    )
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def find(name: str, kernels: Sequence[LiveKernel] | None = None) -> LiveKernel:
    """The live kernel of this name.

    Args:
        name: a kernel id, a prefix that only one of them has, or the path of a connection file.

    Raises:
        SetupError: none or several; the message lists the ones there are.
    """
    kernels = live() if kernels is None else kernels
    for kernel in kernels:
        if name in (kernel.kernel_id, kernel.connection_file):
            return kernel
    path = Path(name).expanduser()
    if path.suffix == ".json":
        real = path.resolve()
        matches = [
            kernel
            for kernel in kernels
            if Path(kernel.connection_file).resolve() == real or f"kernel-{kernel.kernel_id}" == path.stem
        ]
    else:
        matches = [kernel for kernel in kernels if kernel.kernel_id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise SetupError(f"{name!r} begins the ids of {len(matches)} kernels", f"give one of: {_names(matches)}", 2)
    raise SetupError(f"no live RTC kernel {name!r} on this machine", _remedy(kernels), 2)


def only(kernels: Sequence[LiveKernel] | None = None) -> LiveKernel:
    """The one live kernel, where there is exactly one.

    Raises:
        SetupError: none or several; the message lists them.
    """
    kernels = live() if kernels is None else kernels
    if len(kernels) == 1:
        return kernels[0]
    if kernels:
        raise SetupError(f"{len(kernels)} RTC kernels live on this machine", f"give one of: {_names(kernels)}", 2)
    raise SetupError("no RTC kernel lives on this machine", _remedy(kernels), 2)


def _remedy(kernels: Sequence[LiveKernel]) -> str:
    if kernels:
        return f"live are: {_names(kernels)}"
    return "start one by choosing RTC Python in a frontend, or with `jupyter rtc run NOTEBOOK`"


def _names(kernels: Sequence[LiveKernel]) -> str:
    return ", ".join(
        kernel.kernel_id + (f" ({Path(kernel.notebook).name})" if kernel.notebook else "") for kernel in kernels
    )
