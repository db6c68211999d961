"""The real kernel as a process: how is it started, signalled, watched, and how did it end?

Door (subprocess, signal). Owns one process. It is started from the main thread and before anything heavy is
imported; it is in our process group, so that a signal to the group reaches it as it would reach a bare kernel.

Source of the environment and of the interrupt's meaning: jupyter_client, ``launcher.py`` and ``provisioning``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from ..errors import SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

WINDOWS = sys.platform == "win32"

GROUP_SIGNALS: frozenset[signal.Signals] = frozenset(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
"""What may be sent to the whole process group and is meant for the kernel, whatever the kernel does with it."""


LOCAL_PROVISIONERS = ("local-provisioner", "rtc-provisioner")
"""Provisioners of kernels that are a process of this machine, started from the kernelspec's command line. The
second one is ours: what it would do is done already where we start the kernel."""


class ChildSpec:
    """What to start: a kernelspec, or ipykernel of this Python. Never changed.

    ``env``: what its environment has beyond ours; null where it has not what ours has.
    """

    def __init__(
        self,
        name: str,
        display_name: str,
        language: str,
        argv: tuple[str, ...],
        env: Mapping[str, str | None] | None = None,
        interrupt_mode: str = "signal",
    ) -> None:
        self.name = name
        self.display_name = display_name
        self.language = language
        self.argv = argv
        self.env = env or {}
        self.interrupt_mode = interrupt_mode

    def speaks_ipc(self, known: Sequence[str]) -> bool:
        """Whether a word of its command line is in the list of kernels known to work over ipc."""
        return not WINDOWS and any(word in known for arg in self.argv for word in (arg, Path(arg).name))


def find_spec(name: str) -> ChildSpec:
    """The kernel behind the relay.

    Args:
        name: a kernelspec's name; empty: ipykernel of the Python that runs us, which needs no look-up.

    Raises:
        SetupError: no such kernelspec, one that cannot be read, one that is a relay itself, or one that wants a
            provisioner.
    """
    if not name:
        ours = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
        return ChildSpec("python3", "Python 3 (ipykernel)", "python", ours)
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel  # 0.2 s: only when it is needed

    manager = KernelSpecManager()
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise SetupError(f"there is no kernelspec {name!r}", f"choose one of: {known}") from None
    except (OSError, ValueError) as exc:
        raise SetupError(f"kernelspec {name!r} cannot be read ({exc})", "install that kernel again") from exc
    if "rtc_kernel" in spec.argv:
        raise SetupError(f"kernelspec {name!r} is an RTC kernel itself", "wrap the kernel that is behind it")
    provisioner = spec.metadata.get("kernel_provisioner", {}).get("provisioner_name", LOCAL_PROVISIONERS[0])
    if provisioner not in LOCAL_PROVISIONERS:
        raise SetupError(
            f"kernelspec {name!r} is started by {provisioner!r}",
            "wrap a kernel that is started as a local process",
        )
    argv = list(spec.argv)
    if argv and argv[0] in {
        "python",
        f"python{sys.version_info[0]}",
        "python" + ".".join(map(str, sys.version_info[:2])),
    }:
        argv[0] = sys.executable
    argv = [arg.replace("{resource_dir}", spec.resource_dir) for arg in argv]
    env = {key: os.path.expandvars(value) for key, value in spec.env.items()}
    return ChildSpec(name, spec.display_name, spec.language, tuple(argv), env, spec.interrupt_mode or "signal")


class Child:
    """The process of the real kernel.

    Args:
        spec: what to start.
        connection_file: the child's own.
        arguments: further ones, given behind the kernelspec's.
    """

    def __init__(self, spec: ChildSpec, connection_file: Path, arguments: Sequence[str] = ()) -> None:
        self.spec = spec
        self._argv = [arg.replace("{connection_file}", str(connection_file)) for arg in spec.argv] + list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Child {self.spec.name} pid {self.pid} exit {self.exit_code}>"

    def start(self) -> None:
        """Start it; once it has ended, it may be started again.

        Raises:
            SetupError: the program of the kernelspec cannot be started.
        """
        beyond = self.spec.env.items()
        env = {**os.environ, **{key: value for key, value in beyond if value is not None}}
        for key in [key for key, value in beyond if value is None]:
            env.pop(key, None)
        options: dict[str, Any] = {}
        if WINDOWS:  # untested here: the parent is named by an inheritable handle, as jupyter_client does
            from jupyter_client.win_interrupt import create_interrupt_event

            interrupt = create_interrupt_event()
            env["JPY_INTERRUPT_EVENT"] = env["IPY_INTERRUPT_EVENT"] = str(interrupt)
            self._interrupt_event = interrupt
            env.pop("JPY_PARENT_PID", None)
            options = {"close_fds": False}
        else:
            env["JPY_PARENT_PID"] = str(os.getpid())
            options = {"preexec_fn": _die_with_parent}
        try:
            self._process = subprocess.Popen(self._argv, env=env, **options)
        except OSError as exc:
            raise SetupError(
                f"kernel {self.spec.name!r} cannot be started ({self._argv[0]}: {exc.strerror})",
                "install that kernel again",
            ) from exc

    @property
    def pid(self) -> int:
        """Its process id; 0 before it was started."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs; its exit code; minus the signal's number if a signal ended it."""
        return self._process.poll() if self._process else None

    def interrupt(self) -> None:
        """Interrupt it and, where we lead the process group, all it has started."""
        if WINDOWS:
            from jupyter_client.win_interrupt import send_interrupt

            send_interrupt(self._interrupt_event)
        elif leads_group():
            os.killpg(0, signal.SIGINT)
        else:
            self.signal(signal.SIGINT)

    def signal(self, number: int) -> None:
        """Send it a signal; nothing if it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it, with what it has started in our process group: so does a server that restarts a kernel, and a
        fork of it would keep its ports. (What it has started is found on Linux only.)"""
        if self._process is not None and self._process.poll() is None:
            started = _started_by(self._process.pid)
            self._process.kill()
            for pid in started:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def end(self, grace_s: float) -> int:
        """Make sure that it is gone: SIGTERM, and SIGKILL after ``grace_s`` seconds. Returns its exit code."""
        if self._process is None:
            return 1
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()


def leads_group() -> bool:
    """Whether we lead our process group, so that signalling the group reaches only us and our own."""
    return not WINDOWS and os.getpgrp() == os.getpid()


def _started_by(pid: int) -> list[int]:
    """The descendants of a process that are in our process group."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, parent, group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]  # behind the name
            if int(group) == os.getpgrp():
                children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:  # grows meanwhile: a generation behind the other
        found += children.get(one, ())
    return found[1:]


def _die_with_parent() -> None:
    """In the child, before exec: be killed when the relay is killed (Linux; elsewhere the agent sees to it)."""
    if _prctl is not None:
        _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _load_prctl() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        return ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return None


_prctl = _load_prctl()  # before the fork: nothing may be imported behind it


def leave_as(exit_code: int) -> None:
    """End this process as the child ended: with its exit code, or by its signal. Does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    if exit_code >= 0 or WINDOWS:
        os._exit(exit_code & 0xFFFFFFFF if WINDOWS else exit_code)
    import resource

    number = -exit_code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core, if any, is the child's
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    signal.pause()
