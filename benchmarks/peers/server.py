"""How does another system's Jupyter server come to run here, in an environment of its own?"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..kernels import LOG, TIMEOUT_S, Run, wait_until

INSTALL_S = 900.0
START_S = 60.0

NOTEBOOK = "notebook.ipynb"
CELL = "cell-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """How one system is driven.

    Attributes:
        name: of the system and of its package.
        packages: what is installed for it.
        source: of the notebook's cell.
        open: starts a kernel for the notebook; gives what asks for a run, and the path of the room's WebSocket.
    """

    name: str
    packages: tuple[str, ...]
    source: str
    open: Callable[[Server], tuple[Callable[[str], Any], str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Another system that runs.

    Attributes:
        version: its name and version.
        run: asks for a run of this code; returns when the system has taken it.
        url: of the notebook's WebSocket; ``token``: what opens it.
    """

    version: str
    run: Callable[[str], Run]
    url: str
    token: str


@contextlib.contextmanager
def driving(adapter: Adapter, tell: Callable[[str], None]) -> Iterator[System]:
    """The system with a notebook and a kernel, where it can be installed and started.

    Raises:
        RuntimeError: it cannot, and why.
    """
    tell(f"installing {adapter.name}")
    python = install(adapter)
    words = f"from importlib.metadata import version; print(version({adapter.name!r}))"
    version = subprocess.run([python, "-c", words], capture_output=True, text=True, check=True).stdout.strip()
    with Server(python, adapter) as server:
        ask, path = adapter.open(server)

        def run(code: str) -> Run:
            ask(code)
            return Run(server.asked_ns, time.monotonic_ns() - server.asked_ns, 0)

        url = f"ws://127.0.0.1:{server.port}{path}"
        yield System(version=f"{adapter.name} {version}", run=run, url=url, token=server.token)


def install(adapter: Adapter) -> Path:
    """An environment with the system, made the first time; its Python.

    Raises:
        RuntimeError: it cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtc-benchmarks"
    place = cache / f"{adapter.name}-{sys.version_info.major}.{sys.version_info.minor}"
    done, wanted = place / "installed", " ".join(adapter.packages)
    python = place / "bin" / "python"
    if done.exists() and done.read_text() == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", *adapter.packages],
    ):
        try:
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=INSTALL_S)
        except subprocess.CalledProcessError as exc:
            said = (exc.stderr or exc.stdout).strip().splitlines()
            raise RuntimeError(f"{adapter.name} cannot be installed: {said[-1] if said else exc}") from exc
        except subprocess.TimeoutExpired as exc:
            raise RuntimeError(f"{adapter.name} was not installed within {INSTALL_S:g} s") from exc
    done.write_text(wanted)
    return python


class Server:
    """A Jupyter server with one notebook of one code cell, and a client of its HTTP interface.

    Attributes:
        asked_ns: when the last request was about to be sent, monotonic.
    """

    def __init__(self, python: Path, adapter: Adapter) -> None:
        self.asked_ns = 0
        self.token = secrets.token_hex(16)
        self._home = Path(os.environ["JUPYTER_DATA_DIR"]).parent
        self.root = self._home / adapter.name
        self.root.mkdir(exist_ok=True)
        cell: dict[str, Any] = {"cell_type": "code", "id": CELL, "metadata": {}, "outputs": [], "execution_count": None}
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{**cell, "source": adapter.source}]}
        (self.root / NOTEBOOK).write_text(json.dumps(notebook), encoding="utf-8")
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = int(found.getsockname()[1])
        self._command = [
            *(str(python), "-m", "jupyter_server", "--no-browser", "--allow-root", "--log-level=WARN"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0"),
            *(f"--ServerApp.root_dir={self.root}", f"--IdentityProvider.token={self.token}"),
        ]

    def __enter__(self) -> Server:
        with (self._home / LOG).open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self.root, stdout=log, stderr=log)
        try:
            wait_until(self._answers, "the other system's server", START_S)
            self._line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
            for kernel in self.call("GET", "/api/kernels"):
                self.call("DELETE", f"/api/kernels/{kernel['id']}")
        self._line.close()
        self._stop()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask over one connection that is kept; the answer's JSON, or null.

        Raises:
            RuntimeError: it answered with an error.
        """
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        self.asked_ns = time.monotonic_ns()
        self._line.request(method, path, data, headers)
        answer = self._line.getresponse()
        said = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:200]!r}")
        return json.loads(said) if said else None

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended with {self._process.returncode}, see the log")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
