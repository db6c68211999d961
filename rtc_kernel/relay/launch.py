"""The first thing that happens: the child is started, before anything that it does not need is imported.

Door (processes, signals, files). A bare kernel's start is its own imports; whatever we import before them is added to
it, whatever we import after them runs beside them. So this room and what it imports stay light: no zmq, no
traitlets, not even dataclasses or typing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from ..errors import SetupError
from . import connection as connections
from . import transport as transports
from .child import GROUP_SIGNALS, WINDOWS, Child, ChildSpec, find_spec
from .connection import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from typing import Any

    from ..config import RTCKernel


HANDED = "RTC_KERNEL_CHILD"
"""The variable of the environment in which a provisioner hands us the child (:class:`Handed`). It is no setting, and
what we start does not get it."""

STARTED = "started"
"""What a provisioner is told once the child has been started; else it is told why it was not."""


class Options:
    """The command line: ``-f FILE``, ``--kernel NAME``, ``--RTCKernel.…``; the rest is the child's."""

    def __init__(self) -> None:
        self.connection_file = ""
        self.kernel = ""
        self.help_all = False
        self.settings: list[str] = []
        self.child_arguments: list[str] = []


def parse_argv(argv: Iterable[str]) -> Options:
    """Read the command line. Unknown arguments are the child's, in their order."""
    options = Options()
    rest = iter(argv)
    for arg in rest:
        name, equals, value = arg.partition("=")
        match name:
            case "-f" | "--f" | "--connection-file" | "--kernel":
                if not equals:
                    value = next(rest, "")
                if name == "--kernel":
                    options.kernel = value
                else:
                    options.connection_file = value
            case "--help-all":
                options.help_all = True
            case _ if arg.startswith("--RTCKernel."):
                options.settings.append(arg)
            case _:
                options.child_arguments.append(arg)
    return options


class Handed:
    """A child that a provisioner hands us, in place of a kernelspec's name.

    Args:
        text: JSON: ``name``, ``display_name``, ``language``, ``interrupt_mode``; ``argv`` with ``{connection_file}``
            where the child's is to stand; ``env``: what the child's environment has beyond ours, null where it has
            not what ours has; ``tell``: a file descriptor that learns how the start went, or -1.

    Raises:
        SetupError: it is nothing of the kind.
    """

    def __init__(self, text: str) -> None:
        try:
            value = json.loads(text)
            self.spec = ChildSpec(
                value["name"],
                value["display_name"],
                value["language"],
                tuple(value["argv"]),
                value["env"],
                value["interrupt_mode"],
            )
            self._tell = int(value["tell"])
        except (ValueError, KeyError, TypeError) as exc:
            raise SetupError(f"{HANDED} names no kernel ({exc})", "leave it to rtc-provisioner") from exc

    def tell(self, what: str) -> None:
        """Tell who handed us the child how its start went; once."""
        if self._tell >= 0:
            with contextlib.suppress(OSError):
                os.write(self._tell, what.encode())
                os.close(self._tell)
            self._tell = -1


def take_handed() -> Handed | None:
    """What a provisioner hands us, out of the environment; null where a kernelspec of ours started us."""
    text = os.environ.pop(HANDED, "")
    return Handed(text) if text else None


def _quick_setting(options: Options, name: str) -> str | None:
    """A setting that the start of the child needs, from where it can be read without importing traitlets."""
    for arg in reversed(options.settings):
        if arg.startswith(f"--RTCKernel.{name}="):
            return arg.partition("=")[2]
    return os.environ.get(f"RTC_KERNEL_{name.upper()}")


class Launch:
    """A child that runs, and what was needed to start it.

    Args:
        handed: the child, where a provisioner says which.

    Attributes:
        front, back: where frontends find us, and where we find the child.
        display_name: under which a frontend shows us.
        configured: the settings, where a configuration file made us read them already.
        wakeup: becomes readable when a signal came; each byte is a signal's number.
        ipc: the child is spoken to over ipc, and not over loopback TCP.
        instead: why it is TCP, where ipc was wanted.
        held_ports: keep the child's ports from others, as long as we live: it may be started again.
    """

    def __init__(self, options: Options, handed: Handed | None = None) -> None:
        self.options = options
        self.started_at = time.time()
        self.front: Connection = _front(options)
        self.configured: RTCKernel | None = load_settings(options) if _config_file_exists() else None
        configured = self.configured.kernel if self.configured else ""
        named = options.kernel or _quick_setting(options, "kernel") or configured
        self.spec: ChildSpec = handed.spec if handed else find_spec(named)
        self.display_name = f"RTC {self.spec.display_name}" if named else "RTC Python"
        if handed:  # the kernelspec that was chosen is the child's own
            self.display_name = self.spec.display_name
        self.held_ports: list[socket.socket] = []
        self.ipc, self.instead = False, ""
        self.back, self.child = self._prepare()
        self.wakeup, self._wakeup_writer = socket.socketpair()

    def _prepare(self) -> tuple[Connection, Child]:
        transport = _quick_setting(self.options, "transport") or "auto"
        known, words = list(transports.IPC_KERNELS), _quick_setting(self.options, "ipc_kernels")
        if words is not None:
            with contextlib.suppress(ValueError):  # whoever reads all settings says that this one is broken
                known = transports.parse_words(words)
        if self.configured is not None:
            transport, known = self.configured.transport, list(self.configured.ipc_kernels)
        self.ipc = transports.wants_ipc(transport.lower(), self.front, self.spec, known)
        if self.ipc and transports.failed_before(self.spec):
            self.ipc, self.instead = False, "it did not do ipc when it was tried"
        back = connections.for_child(self.front, ipc=self.ipc, ports={} if self.ipc else self._hold_ports())
        return back, Child(self.spec, back.path, self.options.child_arguments)

    def _hold_ports(self) -> dict[str, int]:
        taken = {self.front.info.get(name) for name in connections.PORT_NAMES}
        self.held_ports, ports = _free_ports(taken)
        return ports

    def fall_back(self, why: str) -> None:
        """The child is gone, and was not there over ipc: in its connection file there is loopback TCP from now on.

        Args:
            why: what was seen of it, to go on behind the kernel's name.
        """
        print(
            f"rtc_kernel: kernel {self.spec.name!r} {why}; it is started again over loopback TCP"
            " (docs/settings.md, transport)",
            file=sys.stderr,
        )
        self.ipc, self.instead = False, f"it {why}"
        self.back = connections.over_tcp(self.back, self._hold_ports())

    def note_fallen_back(self) -> None:
        """The child is there, over TCP: its next start need not try ipc."""
        transports.note_failure(self.spec)

    def start(self) -> None:
        """Start the child.

        Raises:
            SetupError: its program cannot be started; nothing stays behind.
        """
        for end in (self.wakeup, self._wakeup_writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False)
        for number in GROUP_SIGNALS if WINDOWS else GROUP_SIGNALS | {signal.SIGCHLD}:
            signal.signal(number, lambda *_: None)  # a handler, not SIG_IGN: the child must not inherit it
        try:
            self.child.start()
        except SetupError:
            connections.discard(self.back)
            raise


def load_settings(options: Options) -> RTCKernel:
    """The settings in force; what does not fit is told on stderr and left out."""
    from ..config import load

    problems: list[SetupError] = []
    settings = load(options.settings, problems=problems)
    for problem in problems:
        print(f"rtc_kernel: {problem}", file=sys.stderr)
    return settings


def _front(options: Options) -> Connection:
    """The connection file of the front; one is made where none was given, as ipykernel does."""
    if options.connection_file and Path(options.connection_file).exists():
        return connections.read(Path(options.connection_file))
    from jupyter_core.paths import jupyter_runtime_dir

    given = options.connection_file or f"kernel-{os.getpid()}.json"
    path = Path(given) if Path(given).is_absolute() else Path(jupyter_runtime_dir()) / given
    if path.exists():
        return connections.read(path)
    info: dict[str, Any] = dict.fromkeys(connections.PORT_NAMES, 0)
    info |= {"transport": "tcp", "ip": "127.0.0.1", "key": os.urandom(16).hex(), "signature_scheme": "hmac-sha256"}
    print(f"To connect another client to this kernel, use:\n    --existing {path.name}")
    return Connection(path, info)


def _config_file_exists() -> bool:
    """Whether a configuration file may change how the child is to be started; looks, without reading."""
    places = [os.environ.get("JUPYTER_CONFIG_DIR"), *os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep)]
    places += [
        str(Path.home() / ".jupyter"),
        str(Path(sys.prefix) / "etc" / "jupyter"),
        "/usr/local/etc/jupyter",
        "/etc/jupyter",
        str(Path.home() / ".config" / "jupyter"),
        str(Path.home() / ".local" / "etc" / "jupyter"),
    ]
    return any(
        (Path(place) / f"jupyter_rtc_kernel_config{suffix}").is_file()
        for place in places
        if place
        for suffix in (".py", ".json")
    )


def _free_ports(taken: Container[object]) -> tuple[list[socket.socket], dict[str, int]]:
    """A loopback port for each channel of a child that does not speak ipc, and what keeps others from them.

    Whoever asks the system for a port gets one that nobody has bound, and of those it gives every second one only: of
    600 kernels one was given a port that a frontend's manager had chosen, and not bound yet. So the ports stay
    bound here, whether the child is there or not. Linux lets it bind them all the same, because both say
    SO_REUSEADDR (libzmq does) and we do not listen; elsewhere they have to be free again at once.

    Args:
        taken: ports that somebody else has chosen already.
    """
    holders: list[socket.socket] = []
    rejected: list[socket.socket] = []
    while len(holders) < len(connections.PORT_NAMES):
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        (rejected if holder.getsockname()[1] in taken else holders).append(holder)
    ports = {name: holder.getsockname()[1] for name, holder in zip(connections.PORT_NAMES, holders, strict=True)}
    if not sys.platform.startswith("linux"):
        rejected, holders = rejected + holders, []
    for holder in rejected:
        holder.close()
    return holders, ports
