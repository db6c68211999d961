"""Where do frontends find the relay, and where does the relay find the child?

Owns nothing: reads and writes connection files (jupyter_client, docs/kernels.rst, "Connection files").
Must stay cheap to import: it runs before the child is started.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PORT_NAMES = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
IPC_PATH_MAX_BYTES = 100
"""sun_path holds 104 bytes on macOS and 108 on Linux, with the final NUL; less for the ``-N`` behind the path."""


class Connection:
    """One connection file. Never changed. (No dataclass: that would import more than all else here.)

    Args:
        path: the file; its name carries the kernel id.
        info: its whole content, unknown keys included.
    """

    __slots__ = ("info", "path")

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info

    def __repr__(self) -> str:
        return f"<Connection {self.path}>"

    @property
    def kernel_id(self) -> str:
        """The file's stem without ``kernel-``: the server's kernel id, where a server wrote the file."""
        return self.path.stem.removeprefix("kernel-")

    @property
    def key(self) -> bytes:
        """The HMAC key; empty: unsigned."""
        return str(self.info.get("key", "")).encode()

    @property
    def scheme(self) -> str:
        """The signature scheme, e.g. ``hmac-sha256``."""
        return str(self.info.get("signature_scheme") or "hmac-sha256")

    @property
    def curve(self) -> tuple[bytes, bytes] | None:
        """CurveZMQ ``(public key, secret key)``, Z85, where the front is to be encrypted."""
        public, secret = self.info.get("curve_publickey"), self.info.get("curve_secretkey")
        return (str(public).encode(), str(secret).encode()) if public and secret else None

    @property
    def is_plain_tcp(self) -> bool:
        """Whether what passes can be read on the loopback anyway: TCP without CurveZMQ."""
        return self.info.get("transport", "tcp") == "tcp" and self.curve is None

    def url(self, name: str) -> str:
        """The endpoint of a channel (``shell_port`` …), to bind or to connect to."""
        ip, port = self.info.get("ip") or "127.0.0.1", self.info.get(name) or 0
        if self.info.get("transport") == "ipc":
            return f"ipc://{ip}-{port}"
        return f"tcp://{ip}:{port}"

    def with_ports(self, ports: dict[str, int]) -> Connection:
        """The same connection with other ports."""
        return Connection(self.path, {**self.info, **ports})

    def write(self) -> None:
        """Write the file, readable by its owner only; whole, because who waits for it reads it at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(self.info, file, indent=2)
        fresh.replace(self.path)


def read(path: Path) -> Connection:
    """Read a connection file.

    Raises:
        SetupError: not there, not readable, not a connection file.
    """
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SetupError(f"connection file {path} cannot be read ({exc.strerror})", "give -f FILE") from exc
    except ValueError as exc:
        raise SetupError(f"connection file {path} is not JSON", "let the Jupyter server write a new one") from exc
    if not isinstance(info, dict):
        raise SetupError(f"connection file {path} is not an object", "let the Jupyter server write a new one")
    return Connection(path, info)


def for_child(front: Connection, *, ipc: bool, ports: dict[str, int] | None = None) -> Connection:
    """The child's connection: same key, same file name (much code takes the kernel id from it), own endpoints.

    The file stands in a private directory that also holds the ipc sockets; :func:`discard` removes both.

    Args:
        ipc: ipc endpoints; otherwise loopback TCP on ``ports``.
    """
    directory = _private_directory()
    drop = {"curve_publickey", "curve_secretkey"}
    info = {key: value for key, value in front.info.items() if key not in drop}
    if ipc:
        info |= {"transport": "ipc", "ip": str(directory / "k")}
        info |= {name: number for number, name in enumerate(PORT_NAMES, 1)}
    else:
        info |= {"transport": "tcp", "ip": "127.0.0.1", **(ports or {})}
    child = Connection(directory / front.path.name, info)
    child.write()
    return child


def over_tcp(child: Connection, ports: dict[str, int]) -> Connection:
    """The child's connection, which was ipc, in the same file over loopback TCP. Nobody listens at it any more."""
    for file in child.path.parent.glob("k-*"):
        file.unlink(missing_ok=True)
    other = Connection(child.path, {**child.info, "transport": "tcp", "ip": "127.0.0.1", **ports})
    other.write()
    return other


def _private_directory() -> Path:
    names = [os.environ.get(name) for name in ("XDG_RUNTIME_DIR", "TMPDIR", "TEMP", "TMP")]
    for parent in (*names, "/tmp", "/var/tmp"):  # noqa: S108 - ours in it is 0700 and new
        if parent and len(parent.encode()) + len("/rtc-1234567890abcdef/k-1") < IPC_PATH_MAX_BYTES:
            directory = Path(parent) / f"rtc-{os.urandom(8).hex()}"
            try:
                directory.mkdir(mode=0o700)
            except OSError:
                continue
            return directory
    raise SetupError("there is no directory for the kernel's sockets", "set TMPDIR to a short path you may write to")


def discard(child: Connection) -> None:
    """Remove the child's private directory with what is in it."""
    for file in child.path.parent.glob("*"):
        file.unlink(missing_ok=True)
    child.path.parent.rmdir()
