"""Real Jupyter servers for tests, started from the command line in a private home."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from conftest import wait_until

from benchmarks.ports import free_ports

STARTED_S = 120.0
"""Until a server must be there; a busy machine takes its time."""


@dataclass(frozen=True)
class JupyterServer:
    """A running server. ``url``: with its slash, without the token; ``root``: the directory that it shows."""

    command: str
    url: str
    token: str
    root: Path
    log: Path
    process: psutil.Process


def environment_of(python: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """For ``python -m jupyter <command>``: jupyter looks for its commands in PATH, where another Python's
    may come first."""
    return {**environ, "PATH": f"{python.parent}{os.pathsep}{environ.get('PATH', os.defpath)}"}


@contextlib.contextmanager
def jupyter_server(
    command: str, home: Path, environ: Mapping[str, str], *options: str, python: Path = Path(sys.executable)
) -> Iterator[JupyterServer]:
    """``jupyter <command> --no-browser``, with the token that it makes up.

    Args:
        home: gets the directory ``notebooks`` and the log.
        environ: names the directories of a private Jupyter home.
        python: of the environment that the server runs in.
    """
    root, log = home / "notebooks", home / "server.log"
    root.mkdir(exist_ok=True)
    argv = [str(python), "-m", "jupyter", command, "--no-browser", "--ServerApp.ip=127.0.0.1"]
    argv += [f"--ServerApp.root_dir={root}", *options]
    if not any(option.startswith("--ServerApp.port=") for option in options):
        argv.append(f"--ServerApp.port={free_ports(1)[0]}")  # by itself it takes what another one is about to take, too
    if os.name == "posix" and os.geteuid() == 0:  # in a container
        argv.append("--allow-root")
    environ = environment_of(python, environ)
    with log.open("w") as output, subprocess.Popen(argv, env=environ, stdout=output, stderr=output) as process:

        def found() -> tuple[str, str] | None:
            assert process.poll() is None, log.read_text()
            for path in Path(environ["JUPYTER_RUNTIME_DIR"]).glob("jpserver-*.json"):
                with contextlib.suppress(ValueError, OSError):  # it is being written; it does not listen yet
                    info = json.loads(path.read_text())
                    socket.create_connection(("127.0.0.1", info["port"]), 1).close()
                    return info["url"], info["token"]
            return None

        try:
            url, token = wait_until(found, "the server has started", STARTED_S)
            yield JupyterServer(command, url, token, root, log, psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
