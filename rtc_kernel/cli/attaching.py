"""``attach``, ``detach``: follow a kernel that somebody else has started.

What follows it is a process of its own (:mod:`rtc_kernel.relay.attached`), with its agent. We start it, say what came
of it, and stay until it ends, or leave it alone (``--detach``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from .. import discovery, existing
from ..config import RTCKernel, to_argv
from ..discovery import LiveKernel
from ..errors import SetupError
from ..relay.connection import Connection
from ..tables import Json
from .terminal import clean, emit, tell

PROGRAM = (sys.executable, "-P", "-m", "rtc_kernel.relay.attached")
"""How what follows a kernel is started."""

NEW_S = 15.0
"""The kernel of a connection file that is not older may still be starting. Seconds."""

END_S = 8.0
"""How long what follows a kernel may take to store what it has, and to go. Seconds."""


def attach(args: argparse.Namespace, settings: RTCKernel) -> int:
    """``jupyter rtc attach``: exit code 0 when it was attached to, or is followed already."""
    connection = _choose(args.kernel)
    if isinstance(connection, LiveKernel):
        return _tell_already(connection, args)
    if (live := _followed(connection)) is not None:
        return _tell_already(live, args)
    if not existing.listens(connection) and not _is_new(connection):
        what = f"nobody answers at {connection.url('shell_port')} of {connection.path}"
        raise SetupError(what, "the kernel has ended, or is on another machine")
    event: Json | None = None
    process = _start(connection, args, settings)
    try:
        event = _next_event(process)
        if event is None or event["event"] != "attached":
            raise _failure(event, process)
        _tell_attached(discovery.find(connection.kernel_id), args)
        if args.detach:
            return 0
        return _tell_end(_next_event(process), args)
    except KeyboardInterrupt:
        _end(process)
        if event is None:
            raise
        return _tell_end({"event": "ended", "reason": "stopped"}, args)
    except BaseException:
        _end(process)
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def detach(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc detach``."""
    attached = [kernel for kernel in discovery.live() if kernel.attached]
    kernel = discovery.find(args.kernel) if args.kernel else discovery.only(attached)
    if not kernel.attached:
        raise SetupError(
            f"{kernel.kernel_id} is an RTC kernel: what follows it ends with it", "shut the kernel down", 2
        )
    os.kill(kernel.relay_pid, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while discovery.is_alive(kernel.relay_pid):
        if time.monotonic() > deadline:
            raise SetupError(f"process {kernel.relay_pid} does not end", "kill it: the history is stored")
        time.sleep(0.02)
    if args.json:
        emit({"detached": kernel.kernel_id})
    else:
        tell(f"{kernel.kernel_id} is not followed any more. The kernel goes on.")
    return 0


# --- which kernel


def _choose(name: str | None) -> Connection | LiveKernel:
    """The kernel that was named, or the only one; as a live one where it is known to be followed already.

    Raises:
        SetupError: none, or several: the message lists them.
    """
    followed = discovery.live()
    if name is None:
        kernels = [kernel.kernel_id for kernel in followed]
        if len(followed) == 1 and not any(one.kernel_id not in kernels for one in existing.running()):
            return followed[0]
        return existing.find(None, kernels)
    if not Path(name).expanduser().is_file():
        with contextlib.suppress(SetupError):
            return discovery.find(name, followed)
    return existing.find(name)


def _followed(connection: Connection) -> LiveKernel | None:
    """Who follows this kernel already: its connection file may be another one than the one we know.

    Raises:
        SetupError: another kernel of the same name is followed.
    """
    live = next((kernel for kernel in discovery.live() if kernel.kernel_id == connection.kernel_id), None)
    if live is None or Path(live.connection_file).resolve() == connection.path.resolve():
        return live
    with contextlib.suppress(SetupError):
        if existing.read(Path(live.connection_file)).key != connection.key:
            what = f"another kernel of the name {connection.kernel_id!r} is followed already"
            raise SetupError(what, f"give {connection.path} another name, in a copy", 2) from None
    return live


def _is_new(connection: Connection) -> bool:
    """Whether its kernel may only be on its way."""
    return time.time() - connection.path.stat().st_mtime < NEW_S


# --- the process


def _start(connection: Connection, args: argparse.Namespace, settings: RTCKernel) -> subprocess.Popen[bytes]:
    argv = [*PROGRAM, "-f", str(connection.path), *to_argv(settings)]
    display_name, language = _look_up(str(connection.info.get("kernel_name") or ""))
    argv += ["--display-name", display_name, "--language", language]
    argv += ["--timeout", str(args.timeout)] if args.timeout else []
    if not args.detach:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    return subprocess.Popen(
        [*argv, "--detached"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _look_up(kernel_name: str) -> tuple[str, str]:
    """``(display_name, language)`` of a kernelspec; empty where nothing of this name is installed here.

    Looks by itself: jupyter_client takes longer to load than the kernel to answer.
    """
    from jupyter_core.paths import jupyter_path

    for directory in jupyter_path("kernels") if kernel_name else ():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            spec = json.loads((Path(directory) / kernel_name / "kernel.json").read_text(encoding="utf-8"))
            return str(spec["display_name"]), str(spec["language"])
    return "", ""


def _next_event(process: subprocess.Popen[bytes]) -> Json | None:
    """What it says next; null when it says no more."""
    stdout: IO[bytes] | None = process.stdout
    line = stdout.readline() if stdout is not None else b""
    return dict(json.loads(line)) if line else None


def _failure(event: Json | None, process: subprocess.Popen[bytes]) -> SetupError:
    if event is not None and event["event"] == "failed":
        return SetupError(str(event["what"]), str(event["remedy"]), int(event["exit_code"]))
    reason = event["reason"] if event is not None else f"exit code {process.wait()}"
    return SetupError(f"it could not be attached to ({reason})", "try again")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it store what it has."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- what is said


def _tell_attached(kernel: LiveKernel, args: argparse.Namespace) -> None:
    link = _make_link(kernel, args.role) if args.share else None
    if args.json:
        told = {"kernel_id": kernel.kernel_id, "display_name": kernel.display_name, "url": kernel.url}
        emit({"event": "attached", **told, "store": kernel.store, "link": link})
        return
    how = "`jupyter rtc detach` ends that" if args.detach else "Ctrl-C ends that"
    tell(f"{clean(kernel.display_name)} {kernel.kernel_id} is followed from here on. {how}, and not the kernel.")
    if link is not None:
        _show_link(link)


def _tell_already(kernel: LiveKernel, args: argparse.Namespace) -> int:
    link = _make_link(kernel, args.role)
    if args.json:
        emit({"event": "already", "kernel_id": kernel.kernel_id, "attached": kernel.attached, "link": link})
        return 0
    how = f"is attached to already, by process {kernel.relay_pid}" if kernel.attached else "is an RTC kernel already"
    tell(f"{clean(kernel.display_name)} {kernel.kernel_id} {how}; here is a link to it.")
    _show_link(link)
    return 0


def _make_link(kernel: LiveKernel, role: str) -> Json:
    import asyncio  # loaded while what follows the kernel is on its way already, as the client is

    from .kernels import make_link

    return asyncio.run(make_link(kernel, role))


def _show_link(link: Json) -> None:
    from .kernels import show_link

    show_link(link)


def _tell_end(event: Json | None, args: argparse.Namespace) -> int:
    """Say why it has ended; the exit code."""
    reason = str(event["reason"]) if event is not None and "reason" in event else "what followed it has died"
    if args.json:
        emit({"event": "ended", "reason": reason})
    elif reason == "stopped":
        tell("Ended. The kernel goes on.")
    else:
        tell(f"Ended: {reason}.")
    return 1 if event is None else 0
