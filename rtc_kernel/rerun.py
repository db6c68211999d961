"""What does a recorded history show when it is run again?

Door. A fresh kernel is started through ``jupyter_client`` and given the recorded code, one execution after the other;
what it says goes through the same mirror and into the same tables (in memory) as what was recorded, so the two are
reduced alike. Where the recorded kernel was restarted this one is restarted too. It owns that kernel: however this
ends, the kernel is gone. Nobody can be asked: code that wants input fails, and is told apart.
"""

from __future__ import annotations

import logging
import queue
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from subprocess import DEVNULL
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import KernelManager

from . import config, install
from .agent.keep.rows import TRUNCATED
from .agent.keep.store import Store
from .agent.mirror import Limits, Mirror
from .config import RTCKernel
from .errors import SetupError
from .link import Channel, Way
from .notebook import to_output
from .provisioner import is_default
from .tables import END_STATES, Execution, ExecutionState, Json
from .wire import Message

START_S = 60.0
"""Seconds that the kernel may take to come up."""

PATIENCE_S = 60.0
PATIENCE_FACTOR = 10.0
"""An execution may take so many times what it took when it was recorded, and ``PATIENCE_S`` more."""

INTERRUPT_S = 10.0
"""Seconds that an interrupted execution may take to end."""

_LOOK_S = 0.5
_AT_ONCE = 1000  # messages of one channel, before the time is looked at
_NO_STDIN = "StdinNotImplementedError"
_NEVER_RAN = frozenset({ExecutionState.QUEUED, ExecutionState.ABORTED, ExecutionState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run again, and how.

    Attributes:
        kernel: a kernelspec's name.
        directory: in which the kernel starts; null: this one.
        timeout_s: seconds that each execution may take; null: by what it took (``PATIENCE_FACTOR``).
        stop_on_error: end behind the first one that fails and had not failed.
    """

    runs: Sequence[Execution]
    kernel: str
    directory: str | None = None
    timeout_s: float | None = None
    stop_on_error: bool = False
    settings: RTCKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """One execution that was run again.

    Attributes:
        state: how it ended; null: it was not run.
        outputs: nbformat's, with large values in place.
        note: what is to be said of it; empty: nothing.
    """

    recorded: Execution
    state: ExecutionState | None = None
    outputs: tuple[Json, ...] = ()
    duration_s: float | None = None
    note: str = ""


def choose(runs: Sequence[Execution]) -> tuple[list[Execution], Mapping[str, int]]:
    """Those that can be run again, in the order in which they began; and how many others there are, by why not."""
    found, left_out = [], dict.fromkeys(("never ran", "private"), 0)
    for run in runs:
        if run.started_at is None or run.state in _NEVER_RAN:
            left_out["never ran"] += 1
        elif run.private:
            left_out["private"] += 1
        else:
            found.append(run)
    found.sort(key=lambda run: (run.started_at or 0.0, run.seq))
    return found, left_out


def incomplete(run: Execution) -> str:
    """Why the record of an execution cannot be compared; empty: it can."""
    if run.state not in END_STATES or run.state is ExecutionState.LOST:
        return f"it is recorded as {run.state.value}: how it ended is not known"
    if "rtc_gap" in run.metadata:
        return "messages were lost when it was recorded"
    return "not all of its text was recorded" if TRUNCATED in run.metadata else ""


def rerun(plan: Plan, report: Callable[[int, Execution], None]) -> list[Rerun]:
    """Run it all again.

    Args:
        report: called with the place, from 0, of each execution as it begins.

    Returns:
        One for each of ``plan.runs``, in their order.

    Raises:
        SetupError: there is no such kernelspec, or the kernel does not start.
    """
    limit = plan.settings.store_execution_bytes
    with (
        _Interrupts() as interrupts,
        closing(Store.open(None, execution_bytes=limit)) as store,
        _kernel(plan, interrupts) as (manager, client),
    ):
        return _Session(plan, manager, client, store, interrupts).execute(report)


class _Interrupts:
    """Lets Ctrl-C through only where it is :meth:`allowed`: elsewhere it could leave a lock of the store taken."""

    def __init__(self) -> None:
        self._waits = self._allowed = False
        self._before: Any = None

    def __enter__(self) -> _Interrupts:
        with suppress(ValueError):  # not on the main thread: nobody interrupts there
            self._before = signal.signal(signal.SIGINT, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _receive(self, _number: int, _frame: object) -> None:
        self._waits = True
        if self._allowed:
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Raises KeyboardInterrupt, now or while this lasts."""
        self._allowed = True
        try:
            if self._waits:
                raise KeyboardInterrupt
            yield
        finally:
            self._allowed = False


@contextmanager
def _kernel(plan: Plan, interrupts: _Interrupts) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    log = logging.getLogger("rtc_kernel.rerun.quiet")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    try:
        spec = KernelSpecManager().get_kernel_spec(plan.kernel)
    except NoSuchKernel:
        known = ", ".join(sorted(KernelSpecManager().find_kernel_specs()))
        what = f"no kernelspec {plan.kernel!r} is installed"
        raise SetupError(what, f"--kernel NAME, one of: {known}", 2) from None
    extra = ["--HistoryManager.hist_file=:memory:"] if plan.kernel in ("python3", install.NATIVE) else []
    if install.is_ours(spec.argv) or is_default():  # what is run again leaves no history of its own
        extra += [*config.to_argv(plan.settings), f"{config.ARG_PREFIX}history=memory"]
    manager = KernelManager(kernel_name=plan.kernel, log=log)
    client: BlockingKernelClient | None = None
    done = False
    try:
        try:
            with interrupts.allowed():
                manager.start_kernel(extra_arguments=extra, cwd=plan.directory, stdout=DEVNULL, stderr=DEVNULL)
                client = manager.blocking_client()
                client.start_channels()
                client.wait_for_ready(timeout=START_S)
        except (OSError, RuntimeError) as exc:
            why = str(exc).partition("\n")[0]
            raise SetupError(f"the kernel {plan.kernel} does not start ({why})", "look at its kernelspec") from exc
        yield manager, client
        done = True
    finally:
        if client is not None:
            client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel(now=not done)
        manager.cleanup_resources()
        manager.context.destroy(linger=0)


class _Session:
    """One rerun: how far it is, and what the kernel said."""

    def __init__(
        self,
        plan: Plan,
        manager: KernelManager,
        client: BlockingKernelClient,
        store: Store,
        interrupts: _Interrupts,
    ) -> None:
        self.interrupts = interrupts
        self.plan = plan
        self.manager = manager
        self.client = client
        self.store = store
        limits = Limits(
            inline_bytes=plan.settings.inline_bytes,
            blob_bytes=plan.settings.blob_bytes,
            execution_bytes=plan.settings.execution_bytes,
        )
        self.mirror = Mirror("rerun", notebook=None, generation=0, next_seq=1, limits=limits)
        self.written = 0
        self.asked: set[str] = set()
        self.ids: list[str] = []
        self.notes: dict[str, str] = {}
        self.dead = False
        store.begin(relay_id="rerun", kernel={"id": "rerun"}, now=time.time())

    def __repr__(self) -> str:
        return f"<_Session {len(self.ids)} of {len(self.plan.runs)}>"

    def execute(self, report: Callable[[int, Execution], None]) -> list[Rerun]:
        """Run all, then read what they have shown: later ones may have changed the outputs of earlier ones."""
        generation, why = None, ""
        for place, run in enumerate(self.plan.runs):
            if generation not in (None, run.generation) and not self._restart():
                why = "the kernel did not come back from a restart"
                break
            generation = run.generation
            report(place, run)
            msg_id = self._run(run)
            if self.dead:
                why = "the kernel died" if msg_id not in self.notes else "the kernel was killed"
                self._end(msg_id)
                break
            if self.plan.stop_on_error and self._failed(msg_id) and run.state is ExecutionState.OK:
                why = f"#{run.seq} failed"
                break
        self.store.flush()
        ran = [self._read(run, msg_id) for run, msg_id in zip(self.plan.runs, self.ids, strict=False)]
        return ran + [Rerun(recorded=run, note=f"not run: {why}") for run in self.plan.runs[len(ran) :]]

    def _run(self, run: Execution) -> str:
        content: Json = {
            "code": run.code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        metadata = {} if run.cell is None else {"cellId": run.cell}
        request = self.client.session.msg("execute_request", content, metadata=metadata)
        msg_id = str(request["header"]["msg_id"])
        self.ids.append(msg_id)
        self._receive(Channel.SHELL, Way.TO_CHILD, request)
        self.client.shell_channel.send(request)
        timeout_s = self.plan.timeout_s or _patience_s(run)
        if not self._until_end(msg_id, timeout_s) and not self.dead:
            self.notes[msg_id] = f"interrupted after {timeout_s:.3g} s"
            self.manager.interrupt_kernel()
            if not self._until_end(msg_id, INTERRUPT_S) and not self.dead:
                self.notes[msg_id] = f"killed after {timeout_s:.3g} s: an interrupt did not end it"
                self.manager.shutdown_kernel(now=True)
                self.dead = True
        return msg_id

    def _until_end(self, msg_id: str, timeout_s: float) -> bool:
        """Take what the kernel says until this execution has ended; false: it has not."""
        deadline = time.monotonic() + timeout_s
        ended: set[str] = set()
        while len(ended) < 2:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            said = self._listen(min(left_s, _LOOK_S))
            for message in said:
                if message["parent_header"].get("msg_id") != msg_id:
                    continue
                kind, told = message["msg_type"], message["content"]
                if kind == "execute_reply" or (kind == "status" and told.get("execution_state") == "idle"):
                    ended.add(kind)
                elif kind == "input_request" and msg_id not in self.asked:
                    self.asked.add(msg_id)
                    self.manager.interrupt_kernel()
            if not said and not self.manager.is_alive():
                self.dead = True
                return False
        return True

    def _listen(self, timeout_s: float) -> list[Json]:
        """What the kernel said, within this time."""
        client = self.client
        ways = {Channel.IOPUB: client.iopub_channel, Channel.SHELL: client.shell_channel}
        ways[Channel.STDIN] = client.stdin_channel
        poller = zmq.Poller()
        for channel in ways.values():
            poller.register(channel.socket, zmq.POLLIN)
        said: list[Json] = []
        with self.interrupts.allowed():
            ready = poller.poll(max(1, int(timeout_s * 1000)))
        if ready:
            for name, channel in ways.items():
                with suppress(queue.Empty):
                    for _ in range(_AT_ONCE):
                        message = channel.get_msg(timeout=0)
                        self._receive(name, Way.TO_FRONT, message)
                        said.append(message)
        return said

    def _receive(self, channel: Channel, way: Way, message: Mapping[str, Any]) -> None:
        header, parent = _plain(message["header"]), _plain(message["parent_header"])
        buffers = tuple(bytes(buffer) for buffer in message.get("buffers") or ())
        decoded = Message(header, parent, dict(message["metadata"]), dict(message["content"]), buffers)
        self._write(self.mirror.receive_message(channel, way, decoded, time.time()))

    def _write(self, changes: Sequence[Any]) -> None:
        self.written += 1
        if changes:
            self.store.write(changes, relay_id="rerun", seq=self.written, mirror_state=None)

    def _end(self, msg_id: str) -> None:
        """Nobody will say any more how it ends."""
        self.notes.setdefault(msg_id, "the kernel died")

    def _failed(self, msg_id: str) -> bool:
        self.store.flush()
        return self.store.execution_states([msg_id]).get(msg_id) is not ExecutionState.OK

    def _restart(self) -> bool:
        try:
            with self.interrupts.allowed():
                self.manager.restart_kernel(now=False)
                self.client.wait_for_ready(timeout=START_S)
        except (OSError, RuntimeError):
            return False
        return True

    def _read(self, recorded: Execution, msg_id: str) -> Rerun:
        run, note = self.store.execution(msg_id), self.notes.get(msg_id, "")
        if run is None:
            return Rerun(recorded=recorded, note=note or "it left no record")
        ended = run.state in END_STATES
        if msg_id in self.asked or (run.error or {}).get("ename") == _NO_STDIN:
            note = "it asks for input, and nobody is there to answer"
        duration_s = None
        if run.started_at is not None and run.finished_at is not None:
            duration_s = run.finished_at - run.started_at
        return Rerun(
            recorded=recorded,
            state=run.state if ended else ExecutionState.LOST,
            outputs=tuple(to_output(output, self._blob) for output in run.outputs),
            duration_s=duration_s,
            note=note,
        )

    def _blob(self, digest: str) -> bytes | None:
        found = self.store.blob(digest)
        return None if found is None else found[0]


def _patience_s(run: Execution) -> float:
    took_s = (run.finished_at or 0.0) - (run.started_at or 0.0) if run.finished_at is not None else 0.0
    return PATIENCE_S + PATIENCE_FACTOR * max(0.0, took_s)


def _plain(header: Mapping[str, Any]) -> Json:
    """A header as it is on the wire: ``jupyter_client`` makes its date a datetime."""
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in header.items()}
