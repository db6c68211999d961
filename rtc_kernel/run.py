"""How is a notebook run headless, so that others can watch?

nbclient runs the cells, on an RTC kernel; this room chooses that kernel, tells the kernel's document which cells
there are and which of them each execution is, and gets the live link. What happens on the way is told as values
(:data:`Progress`) to whoever shows it. docs/cli.md, "jupyter rtc run".
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from jupyter_core.utils import ensure_async
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from . import config, discovery, install, parameters, rooms
from .client import Address, call
from .errors import LocalError, SetupError

LINK_S = 30.0
"""Seconds to wait for the agent, which may be late on a busy machine; then the run goes on without a live link."""

LOOK_S = 1.0
"""How often a kernel that lingers is looked at: whether it lives."""

NATIVE_KERNELS = frozenset({"", "python", "python3"})
"""Kernelspec names that mean ipykernel of the Python that runs us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is to be run.

    Attributes:
        notebook: path of the notebook; its directory is the kernel's working directory.
        kernel: a kernelspec's name; null: the notebook's own.
        timeout_s: for each cell; null: none.
        share: role of the live link, ``view`` | ``run``.
        linger_s: so long the kernel, and with it the live link, stay when all has run; 0: not at all.
        settings: given to the kernel.
    """

    notebook: Path
    kernel: str | None = None
    timeout_s: float | None = None
    allow_errors: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    share: str = "view"
    linger_s: float = 0.0
    settings: config.RTCKernel = field(default_factory=config.load)


# --- what is told on the way


@dataclass(frozen=True, slots=True)
class Linked:
    """The document can be followed. ``store``: path of the history; null when it is kept in memory only; ``relays``:
    links to where it is published."""

    kernel_id: str
    url: str
    proxied_url: str | None
    store: str | None
    relays: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unlinked:
    """It cannot; the run goes on."""

    why: str


@dataclass(frozen=True, slots=True)
class CellStarted:
    """``number``: from 1, of ``count`` cells that are run. ``cell``: its id."""

    number: int
    count: int
    cell: str
    code: str


@dataclass(frozen=True, slots=True)
class CellEnded:
    """``state``: ``ok`` | ``error`` | ``timeout`` | ``lost`` | ``interrupted``."""

    number: int
    count: int
    cell: str
    code: str
    state: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: ``ok`` | ``error`` | ``timeout`` | ``lost`` | ``interrupted``.
        message: one line; empty when ok.
        traceback: of the failing cell, with its terminal colours; empty otherwise.
        notebook: with the outputs, also those of a run that failed.
    """

    state: str
    message: str
    traceback: str
    notebook: nbformat.NotebookNode
    kernel_id: str
    duration_s: float

    @property
    def exit_code(self) -> int:
        """0, 1, or 130 as a shell says it of an interrupted program."""
        return {"ok": 0, "interrupted": 130}.get(self.state, 1)


@dataclass(frozen=True, slots=True)
class Lingering:
    """All has run, or a cell has failed; the live link stays for ``seconds``. ``outcome``: what will be returned."""

    outcome: Outcome
    seconds: float


Progress = Linked | Unlinked | CellStarted | CellEnded | Lingering


# --- the notebook


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook, as nbformat 4.

    Raises:
        SetupError: missing, unreadable, or no notebook.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SetupError(f"there is no notebook {path}", "look at the path", 2) from None
    except (OSError, UnicodeDecodeError) as exc:
        raise SetupError(f"{path} cannot be read ({exc})", "look at the path", 2) from exc
    wrong: dict[str, Exception] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cells without an id get one
            notebook: nbformat.NotebookNode = nbformat.reads(  # type: ignore[no-untyped-call]
                text, as_version=4, capture_validation_error=wrong
            )
    except Exception as exc:  # whatever a damaged file makes nbformat's converters raise
        wrong = {"": exc}
    for error in wrong.values():
        why = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise SetupError(f"{path} is not a notebook ({why})", "mend the file, or give another", 2) from error
    return notebook


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook whole or not at all.

    Raises:
        SetupError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                nbformat.write(notebook, file)  # type: ignore[no-untyped-call]
            umask = os.umask(0)
            os.umask(umask)
            Path(temporary).chmod(0o666 & ~umask)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise SetupError(f"{path} cannot be written ({exc.strerror or exc})", "give another -o") from exc


def cell_id(notebook: nbformat.NotebookNode, index: int) -> str:
    """nbformat's id of a cell; a notebook older than 4.5 has none, then by its place."""
    return str(notebook.cells[index].get("id") or f"cell-{index}")


def choose_kernel(asked: str | None, notebook: nbformat.NotebookNode) -> str:
    """The kernelspec of ours to run a notebook on.

    Args:
        asked: what the user said; null: what the notebook says.

    Raises:
        SetupError: no such kernelspec, or none of ours wraps it yet.
    """
    name = asked or str(notebook.metadata.get("kernelspec", {}).get("name", ""))
    try:
        spec = KernelSpecManager().get_kernel_spec(name or "python3")
    except NoSuchKernel:
        if asked is None and _is_python(notebook):
            name, spec = "", None  # a name of another machine, for the Python that we have
        elif (wrapper := install.wrapper_for(name)) is not None:
            return wrapper
        else:
            known = ", ".join(sorted(KernelSpecManager().find_kernel_specs()))
            raise SetupError(f"no kernelspec {name!r} is installed", f"--kernel NAME, one of: {known}", 2) from None
    if spec is not None and install.is_ours(spec.argv):
        return name
    if name in NATIVE_KERNELS and install.NATIVE in KernelSpecManager().find_kernel_specs():
        return install.NATIVE
    if name in NATIVE_KERNELS:
        raise SetupError("the kernelspec rtc-python is not installed", "`jupyter rtc install`", 2)
    if (wrapper := install.wrapper_for(name)) is not None:
        return wrapper
    raise SetupError(f"no RTC kernel wraps {name!r}", f"`jupyter rtc install --kernel {name}`", 2)


def _is_python(notebook: nbformat.NotebookNode) -> bool:
    told = notebook.metadata.get("kernelspec", {}).get("language") or notebook.metadata.get("language_info", {}).get(
        "name"
    )
    return str(told or "python").lower() in ("python", "ipython")


# --- the run


class _CellClient(AsyncKernelClient):
    """Says in each request which cell it is, as JupyterLab does (``metadata.cellId``)."""

    cell: str | None = None

    def execute(self, code: str, **options: Any) -> str:  # type: ignore[override]
        """Send an ``execute_request``; returns its ``msg_id``."""
        content = {
            "code": code,
            "silent": options.get("silent", False),
            "store_history": options.get("store_history", True),
            "user_expressions": options.get("user_expressions") or {},
            "allow_stdin": False,  # nobody sits there
            "stop_on_error": options.get("stop_on_error", True),
        }
        metadata = {} if self.cell is None else {"cellId": self.cell}
        message = self.session.msg("execute_request", content, metadata=metadata)
        self.shell_channel.send(message)
        return str(message["header"]["msg_id"])


async def run_notebook(run: Run, report: Callable[[Progress], None]) -> Outcome:
    """Run a notebook.

    Args:
        report: called with each :data:`Progress` as it happens.

    Raises:
        SetupError: notebook, kernel or parameters are not as they must be; nothing was run.
    """
    notebook = read(run.notebook)
    name = choose_kernel(run.kernel, notebook)
    spec = KernelSpecManager().get_kernel_spec(name)
    if run.parameters:
        child = install.child_of(spec.argv) or "python3"
        parameters.inject(notebook, run.parameters, language=spec.language, kernel=child)
    return await _Session(run, notebook, name, report).execute()


class _Session:
    """One run: the notebook, its kernel and how far it is."""

    def __init__(
        self, run: Run, notebook: nbformat.NotebookNode, kernel: str, report: Callable[[Progress], None]
    ) -> None:
        self.run = run
        self.notebook = notebook
        self.report = report
        self.kernel_id = str(uuid.uuid4())
        self.codes = [at for at, cell in enumerate(notebook.cells) if _runs(cell)]
        self.number = self.ended = 0
        self.began_at = self.cell_began_at = time.monotonic()
        log = logging.getLogger("rtc_kernel.run.quiet")
        log.addHandler(logging.NullHandler())
        log.propagate = False
        self.manager = AsyncKernelManager(
            kernel_name=kernel,
            connection_file=str(Path(jupyter_runtime_dir()) / f"kernel-{self.kernel_id}.json"),
            client_class="rtc_kernel.run._CellClient",
            log=log,
        )
        self.runner = NotebookClient(
            notebook,
            km=self.manager,
            timeout_func=lambda cell: run.timeout_s,
            allow_errors=run.allow_errors,
            log=log,
        )
        self.signals = 0
        self.exit_code: int | None = None
        self.executing = self.closing = False
        self.leaving: asyncio.Event | None = None  # while the kernel lingers: set to end that
        self.task: asyncio.Task[Any] | None = None
        self.interrupting: asyncio.Future[Any] | None = None

    async def execute(self) -> Outcome:
        """Run it all, and say how it ended."""
        try:
            await self._execute()
        except (CellTimeoutError, CellExecutionError, RuntimeError, asyncio.CancelledError) as exc:
            if self.signals:  # nbclient says of a cancelled run that the kernel died
                if self.task is not None:
                    self.task.uncancel()
                return self._outcome("interrupted")
            return self._failed(exc)
        return self._outcome("interrupted" if self.signals else "ok")

    def _failed(self, exc: BaseException) -> Outcome:
        match exc:
            case CellTimeoutError():
                return self._outcome("timeout", f"did not finish within {self.run.timeout_s:g} s")
            case CellExecutionError():
                return self._outcome("error", f"{exc.ename}: {exc.evalue}", _traceback(self._cell()) or str(exc))
            case DeadKernelError():
                return self._outcome("lost", f"the kernel died{self._how()}")
            case RuntimeError():  # what jupyter_client raises for a kernel that does not come up
                why = str(exc).partition("\n")[0]
                return self._outcome("lost", f"the kernel did not start{self._how()}: {why}")
            case _:
                raise exc

    async def _execute(self) -> None:
        path = self.run.notebook.resolve()
        self.runner.reset_execution_trackers()
        async with self._kernel(path) as client:
            info = await self.runner.async_wait_for_reply(client.kernel_info())
            if info is not None and "language_info" in info["content"]:
                self.notebook.metadata["language_info"] = info["content"]["language_info"]
            link = await self._link(path)
            self.report(link)
            try:
                for index in self.codes:
                    if self.signals:
                        return
                    await self._execute_cell(index, client)
            except (CellTimeoutError, CellExecutionError) as exc:
                await self._linger(link, exc)
                raise
            self.runner.set_widgets_metadata()
            await self._linger(link, None)

    async def _linger(self, link: Linked | Unlinked, error: Exception | None) -> None:
        """Stay as long as is wanted, a signal does not come and the kernel lives."""
        if not self.run.linger_s or self.signals or isinstance(link, Unlinked):
            return
        self.leaving = asyncio.Event()
        self.report(Lingering(self._outcome("ok") if error is None else self._failed(error), self.run.linger_s))
        until = time.monotonic() + self.run.linger_s
        while (left := until - time.monotonic()) > 0 and await ensure_async(self.manager.is_alive()):
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_S, left)):
                    await self.leaving.wait()
                return

    @asynccontextmanager
    async def _kernel(self, path: Path) -> AsyncIterator[_CellClient]:
        """The kernel's life, and the signals' way to it. It is shut down properly, so that all is stored."""
        manager, loop = self.manager, asyncio.get_running_loop()
        client: _CellClient | None = None
        self.task = asyncio.current_task()
        # As nbclient does it for ipykernel: a headless run is not part of the user's own IPython history.
        extra = ["--HistoryManager.hist_file=:memory:"] if manager.kernel_name == install.NATIVE else []
        extra += config.to_argv(self.run.settings)
        env = {**os.environ, "JPY_SESSION_NAME": str(path)}
        with _signals(loop, self.receive_signal):
            try:
                Path(manager.connection_file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                await ensure_async(manager.start_kernel(extra_arguments=extra, cwd=str(path.parent), env=env))
                made = manager.client()
                if not isinstance(made, _CellClient):
                    raise LocalError("a run with a client that is not its own")
                client = made
                client.start_channels()
                await client.wait_for_ready(timeout=self.runner.startup_timeout)
                client.allow_stdin = False
                self.runner.kc = client
                yield client
            finally:
                self.closing = True
                if manager.has_kernel and manager.provisioner is not None:
                    self.exit_code = await manager.provisioner.poll()  # null while it lives
                if client is not None:
                    client.stop_channels()
                if manager.has_kernel:
                    await ensure_async(manager.shutdown_kernel())
                    await ensure_async(manager.cleanup_resources())

    def receive_signal(self, number: int) -> None:
        """Interrupt the running cell; where none runs, or at the second signal, end the run."""
        if self.leaving is not None and not self.leaving.is_set():
            self.leaving.set()
            return
        self.signals += 1
        if self.executing and self.signals == 1 and number == signal.SIGINT:
            self.interrupting = asyncio.ensure_future(ensure_async(self.manager.interrupt_kernel()))
        elif self.task is not None and not self.closing:
            self.task.cancel()

    async def _execute_cell(self, index: int, client: _CellClient) -> None:
        self.number += 1
        runner, cell = self.runner, self.notebook.cells[index]
        client.cell = cell_id(self.notebook, index)
        self.cell_began_at = time.monotonic()
        self.report(CellStarted(self.number, len(self.codes), client.cell, cell.source))
        self.executing = True
        try:
            await runner.async_execute_cell(cell, index, execution_count=runner.code_cells_executed + 1)
        finally:
            self.executing = False
        failed = any(output.output_type == "error" for output in cell.get("outputs", []))
        self._report_end("interrupted" if self.signals else "error" if failed else "ok")

    def _report_end(self, state: str) -> None:
        if self.ended == self.number:
            return
        self.ended = self.number
        index = self.codes[self.number - 1]
        duration_s = time.monotonic() - self.cell_began_at
        code, cell = self.notebook.cells[index].source, cell_id(self.notebook, index)
        self.report(CellEnded(self.number, len(self.codes), cell, code, state, duration_s))

    def _cell(self) -> nbformat.NotebookNode:
        cell: nbformat.NotebookNode = self.notebook.cells[self.codes[self.number - 1]]
        return cell

    def _outcome(self, state: str, message: str = "", traceback: str = "") -> Outcome:
        if self.number and state != "ok":
            self._report_end(state)
            message = f"cell {self.number} of {len(self.codes)}: {message or 'interrupted'}"
        duration_s = time.monotonic() - self.began_at
        return Outcome(
            state, message or ("" if state == "ok" else state), traceback, self.notebook, self.kernel_id, duration_s
        )

    def _how(self) -> str:
        if self.exit_code is None:
            return ""
        with suppress(ValueError):
            return f" by {signal.Signals(-self.exit_code).name}"
        return f" with exit code {self.exit_code}"

    async def _link(self, path: Path) -> Linked | Unlinked:
        """Tell the document its cells, and get a link to it."""
        if not self.run.settings.agent:
            return Unlinked("the agent is switched off (setting agent)")
        live = await self._discover()
        if live is None:
            return Unlinked(f"no agent within {LINK_S:g} s")
        cells = [
            {"id": cell_id(self.notebook, at), "cell_type": cell.cell_type, "source": cell.source}
            for at, cell in enumerate(self.notebook.cells)
        ]
        address = Address.of(live)
        try:
            async with asyncio.timeout(LINK_S):
                await call(address, "PUT", "/api/notebook", {"path": str(path), "cells": cells})
                link = await call(address, "POST", "/api/share", {"role": self.run.share, "name": "run"})
        except (SetupError, OSError, ValueError, TimeoutError) as exc:
            return Unlinked(str(exc) or "the agent did not answer")
        settings = self.run.settings
        relays = tuple(rooms.place(url, settings.relay_room or live.kernel_id).link for url in settings.relays)
        return Linked(live.kernel_id, str(link["url"]), link.get("proxied_url"), live.store, relays)

    async def _discover(self) -> discovery.LiveKernel | None:
        deadline = time.monotonic() + LINK_S
        path = discovery.directory() / f"{self.kernel_id}.json"
        while time.monotonic() < deadline:
            if path.exists():
                with suppress(SetupError):
                    return discovery.find(self.kernel_id)
            await asyncio.sleep(0.02)  # between two looks for a file that another process writes
        return None


@contextmanager
def _signals(loop: asyncio.AbstractEventLoop, receive: Callable[[int], None]) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    try:
        for number in numbers:
            loop.add_signal_handler(number, receive, number)
    except (RuntimeError, ValueError, NotImplementedError):  # not on the main thread, or not on this system
        numbers = []
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _runs(cell: nbformat.NotebookNode) -> bool:
    tags = cell.get("metadata", {}).get("tags", [])
    return cell.cell_type == "code" and bool(cell.source.strip()) and "skip-execution" not in tags


def _traceback(cell: nbformat.NotebookNode) -> str:
    return next(
        ("\n".join(output.traceback) for output in cell.get("outputs", []) if output.output_type == "error"), ""
    )
