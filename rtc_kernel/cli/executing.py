"""``exec``: run code on a kernel as one of its peers, and show what comes of it.

The code goes the way of everybody's requests: others see it, and it waits where theirs wait. The run is followed until
it ends, and the exit code is how it ended; whoever leaves before leaves the run to itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TextIO

from .. import discovery
from ..client import Document, Run, connect
from ..config import RTCKernel
from ..errors import RefusedError, SetupError
from ..excerpts import new_outputs
from ..tables import (
    END_STATES,
    Execution,
    ExecutionState,
    Json,
    Request,
    RequestState,
    to_json,
)
from .acting import ID_CHARS, find_running, run_line, target_of
from .asking import can_ask, read_line
from .printing import Piece, Printout, Target
from .terminal import clean, emit, first_line, tell, took
from .watching import patience_s

EXIT_CODES: Mapping[str, int] = {
    "ok": 0,
    "error": 1,
    "aborted": 3,
    "cancelled": 3,
    "refused": 3,
    "lost": 4,
}
"""By the state of the execution (or of the request) at its end."""

TIMEOUT_EXIT_CODE = 124
INTERRUPTED_EXIT_CODE = 130
TERMINATED_EXIT_CODE = 143

GRACE_S = 10.0
"""How long a run that was interrupted because its time was up may take to end; then it is left to itself. Seconds."""

REASON_S = 10.0
"""How long the word of why a run did not end by itself may come behind its end: it waits for the disk. Seconds."""

ATTEMPTS = 5
"""How often an interrupt is tried: a run that was sent only just now is not known to run yet."""

LOOK_S = 0.2
"""How often a request that waits is looked at. Seconds."""

PATIENCE_S = 2.0
"""After so long it is said what a request waits for. Seconds."""

SETTLE_S = 0.1
"""A question is shown so much later: what was printed before it comes over another channel. Seconds."""


def execute(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc exec``."""
    _refuse_name_as_code(args)
    target = target_of(args)
    asks = args.code != "-" and not args.json and not args.no_input and can_ask()
    code = sys.stdin.read() if args.code == "-" else args.code
    return asyncio.run(_execute(target, code, args, asks=asks))


def _refuse_name_as_code(args: argparse.Namespace) -> None:
    """A kernel's name alone is not what anybody wants to run."""
    word = args.code
    is_name = len(word) >= 8 and any(kernel.kernel_id.startswith(word) for kernel in discovery.live())
    if args.target is None and (is_name or word.startswith(("http://", "https://"))):
        raise SetupError("there is no code", "give it behind the kernel, as one argument", 2)


async def _execute(target: str, code: str, args: argparse.Namespace, *, asks: bool) -> int:
    async with connect(target, args.token) as doc:
        view: View = JsonView() if args.json else TextView("URL" if "://" in target else doc.kernel.id[:ID_CHARS])
        wanted: Json = {
            "cell": args.cell,
            "after": args.after and await _name_earlier(doc, args.after),
            "on_duplicate": "queue" if args.queue else "coalesce",
            "stop_on_error": args.stop_on_error,
            "allow_stdin": not args.no_input,
            "silent": args.silent,
        }
        return await Attendant(doc, target, view, asks=asks).attend(code, wanted, args.timeout)


async def _name_earlier(doc: Document, key: str) -> str:
    """The request that was named by the beginning of its id; the agent knows also those that are not shown any more,
    by their whole id."""
    found = [one for one in await doc.requests() if one.startswith(key)]
    return found[0] if len(found) == 1 else key


@dataclass(frozen=True, slots=True)
class Ending:
    """How ``exec`` ends.

    Attributes:
        state: of the execution; of the request where there is none; ``unknown`` where there is neither.
        exit_code: of the command.
        reason: why it did not run, or why it was not waited for.
    """

    state: str
    exit_code: int
    reason: str | None = None
    execution: Execution | None = None


class View(Protocol):
    """How one run is shown."""

    def acknowledge(self, request: Request) -> None:
        """The request is stored: it will run, once."""

    def wait(self, request: Request, running: Execution | None) -> None:
        """It is held, or has waited for a while; ``running``: for that one."""

    def show(self, before: Execution | None, now: Execution) -> None:
        """The execution is different."""

    def ask(self, question: Json, *, here: bool) -> None:
        """The execution asks for input. ``here``: what is typed here will be the answer."""

    def move(self, *, to_start: bool) -> None:
        """Something was typed. ``to_start``: and the line was ended."""

    def note(self, text: str) -> None:
        """A line for the user."""

    def end(self, ending: Ending) -> None:
        """It has ended, or is left to itself."""


class TextView:
    """Outputs as a terminal or a pipe shows them, everything else on stderr."""

    def __init__(self, kernel: str) -> None:
        self._kernel = kernel
        self._streams: dict[Target, TextIO] = {"stdout": sys.stdout, "stderr": sys.stderr}
        is_dumb = os.environ.get("TERM") == "dumb"  # it cannot go back in a line
        terminals = [name for name, stream in self._streams.items() if stream.isatty() and not is_dumb]
        self._printout = Printout(terminals, colours="NO_COLOR" not in os.environ)
        self._has_shown_error = False

    def acknowledge(self, request: Request) -> None:
        """See :class:`View`."""

    def wait(self, request: Request, running: Execution | None) -> None:
        """See :class:`View`."""
        if request.state is RequestState.HELD:
            release = f"jupyter rtc queue {self._kernel} --release {request.id[:ID_CHARS]}"
            self.note(f"Held: {request.reason}. `{release}` lets it run; waiting.")
        elif running is not None:
            self.note(f"Waiting for {run_line(running)}")

    def show(self, before: Execution | None, now: Execution) -> None:
        """See :class:`View`."""
        self._has_shown_error = any(output.output_type == "error" for output in now.outputs)
        width = shutil.get_terminal_size().columns
        self._write(self._printout.show(now, width=width))

    def ask(self, question: Json, *, here: bool) -> None:
        """See :class:`View`."""
        prompt = clean(str(question.get("prompt") or ("Password: " if question.get("password") else "")))
        if here:
            self._write([("stderr", prompt)])
            self.move(to_start=False)
        else:
            self.note(f"It waits for input, which cannot be given here: {first_line(prompt) or '(no prompt)'}")

    def move(self, *, to_start: bool) -> None:
        """See :class:`View`."""
        self._printout.move(to_start=to_start)

    def note(self, text: str) -> None:
        """See :class:`View`."""
        self._write(self._printout.begin_row())
        tell(clean(text))

    def end(self, ending: Ending) -> None:
        """See :class:`View`."""
        if ending.reason is not None:
            has_not_run = ending.exit_code in (EXIT_CODES["aborted"], EXIT_CODES["lost"])
            self.note(f"jupyter rtc: {f'{ending.state}: ' if has_not_run else ''}{ending.reason}")
        elif ending.exit_code == EXIT_CODES["error"] and not self._has_shown_error:
            error = (ending.execution and ending.execution.error) or {}
            self.note(f"{error.get('ename', 'error')}: {error.get('evalue', 'the kernel does not say which')}")

    def _write(self, pieces: Iterable[Piece]) -> None:
        for target, text in pieces:
            self._streams[target].write(text)
            self._streams[target].flush()


class JsonView:
    """One JSON object per event."""

    def acknowledge(self, request: Request) -> None:
        """See :class:`View`."""
        emit({"event": "acknowledged", "request": request.id, "by": request.by, "state": request.state.value})

    def wait(self, request: Request, running: Execution | None) -> None:
        """See :class:`View`."""
        execution = running.id if running is not None else None
        emit({"event": "waits", "state": request.state.value, "reason": request.reason, "for": execution})

    def show(self, before: Execution | None, now: Execution) -> None:
        """See :class:`View`."""
        if now.seq and (before is None or before.state is not now.state) and now.state not in END_STATES:
            emit({"event": "execution", "execution": now.id, "number": now.seq, "state": now.state.value})
        if before is not None and now.output_count < before.output_count:
            before = None
            emit({"event": "clear"})
        for position, output in new_outputs(before, now):
            emit({"event": "output", "position": position, "output": to_json(output)})

    def ask(self, question: Json, *, here: bool) -> None:
        """See :class:`View`."""
        emit({"event": "input", "prompt": question.get("prompt"), "password": question.get("password")})

    def move(self, *, to_start: bool) -> None:
        """See :class:`View`."""

    def note(self, text: str) -> None:
        """See :class:`View`."""
        tell(clean(text))

    def end(self, ending: Ending) -> None:
        """See :class:`View`."""
        run = ending.execution
        emit(
            {
                "event": "end",
                "state": ending.state,
                "exit_code": ending.exit_code,
                "reason": ending.reason,
                "execution": run.id if run is not None else None,
                "execution_count": run.execution_count if run is not None else None,
                "error": run.error if run is not None else None,
                "duration_s": took(run) if run is not None else None,
            }
        )


@dataclass(slots=True)
class Cut:
    """Why a run is cut short. ``done``: the kernel was told to stop it, or it was taken back."""

    exit_code: int
    reason: str
    done: bool = False


class Attendant:
    """Attends one run: shows it, passes on what is typed, cuts it short when its user or its time says so.

    The state: the run, its execution as it was last seen, the question that is open, and why it is cut short.
    """

    def __init__(self, doc: Document, target: str, view: View, *, asks: bool) -> None:
        self._doc = doc
        self._target = target
        self._view = view
        self._asks = asks
        self._run: Run | None = None
        self._seen: Execution | None = None
        self._question_since: object = None
        self._asking: asyncio.Task[None] | None = None
        self._cut: Cut | None = None
        self._cutting: asyncio.Task[None] | None = None
        self._work: asyncio.Task[Ending] | None = None

    def __repr__(self) -> str:
        return f"<Attendant {self._run!r} {self._cut!r}>"

    async def attend(self, code: str, wanted: Json, timeout_s: float | None) -> int:
        """From the request to the end; the exit code.

        Args:
            wanted: further arguments of :meth:`Document.run`.
        """
        loop = asyncio.get_running_loop()
        self._work = asyncio.create_task(self._follow(code, wanted), name="rtc-exec")
        watching = asyncio.create_task(self._watch_connection(), name="rtc-exec-watch")
        timer = loop.call_later(timeout_s, self._time_is_up, timeout_s) if timeout_s is not None else None
        try:
            with _signals(loop, {signal.SIGINT: self._interrupt, signal.SIGTERM: self._terminate}):
                ending = await self._work
        except asyncio.CancelledError:
            if self._cut is None:
                raise
            ending = self._left(self._cut)
        except RefusedError as exc:
            ending = Ending("refused", EXIT_CODES["refused"], exc.reason)
        finally:
            if timer is not None:
                timer.cancel()
            await _stop(watching)
            await _stop(self._cutting)
        self._view.end(ending)
        return ending.exit_code

    async def _follow(self, code: str, wanted: Json) -> Ending:
        self._run = run = await self._doc.run(code, **wanted)
        self._view.acknowledge(run.request)
        waiting = asyncio.create_task(self._tell_waiting(run), name="rtc-exec-waits")
        try:
            async for now in run.changes():
                before, self._seen = self._seen, now
                await self._look_at_question(now)
                self._view.show(before, now)
        finally:
            await _stop(waiting)
            await self._stop_asking()
        now = self._seen or await run.result()
        if self._cut is not None and self._cut.done:
            return Ending(now.state.value, self._cut.exit_code, self._cut.reason, now)
        if now.state in (ExecutionState.OK, ExecutionState.ERROR):
            return Ending(now.state.value, EXIT_CODES[now.state.value], None, now)
        with suppress(TimeoutError):  # why, stands in the other document
            await asyncio.wait_for(run.ended(), REASON_S)
        return Ending(now.state.value, EXIT_CODES[now.state.value], run.request.reason or "it is not known why", now)

    def _left(self, cut: Cut) -> Ending:
        if cut.exit_code == EXIT_CODES["lost"]:
            return Ending("lost", cut.exit_code, cut.reason, self._seen)
        if self._run is None:
            return Ending("unknown", cut.exit_code, f"{cut.reason}; it was not acknowledged, but may still run")
        state = self._seen.state.value if self._seen is not None else self._run.request.state.value
        return Ending(state, cut.exit_code, f"{cut.reason}; it is left to itself ({state})", self._seen)

    async def _tell_waiting(self, run: Run) -> None:
        told: RequestState | None = None
        loop = asyncio.get_running_loop()
        since = loop.time()
        while self._seen is None or self._seen.state is ExecutionState.QUEUED:
            request, running = run.request, find_running(self._doc)
            if told is RequestState.HELD and request.state is not told:
                told, since = None, loop.time()
            if request.state is RequestState.HELD and told is not RequestState.HELD:
                told = request.state
                self._view.wait(request, None)
            elif told is None and loop.time() - since > PATIENCE_S and running and running.id != request.execution:
                told = request.state
                self._view.wait(request, running)
            await asyncio.sleep(LOOK_S)

    async def _watch_connection(self) -> None:
        loop = asyncio.get_running_loop()
        away_since: float | None = None
        while True:
            away_since = None if self._doc.connected else away_since or loop.time()
            if away_since is not None and loop.time() - away_since > patience_s(self._doc, self._target):
                self._leave(Cut(EXIT_CODES["lost"], "the kernel is gone"))
            await asyncio.sleep(LOOK_S)

    # --- questions

    async def _look_at_question(self, now: Execution) -> None:
        since = now.input["since"] if now.input else None
        if since == self._question_since:
            return
        self._question_since = since
        was_open = await self._stop_asking()
        if was_open and now.state not in END_STATES and self._cut is None:
            self._view.note("Somebody else has answered.")
        if now.input is not None:
            self._asking = asyncio.create_task(self._ask(now.id, now.input), name="rtc-exec-asks")

    async def _ask(self, execution: str, question: Json) -> None:
        await asyncio.sleep(SETTLE_S)
        hidden = question.get("password") is True
        while True:
            self._view.ask(question, here=self._asks)
            if not self._asks:
                return
            text = await read_line(sys.stdin.fileno(), hidden=hidden)
            self._view.move(to_start=not hidden)
            try:
                await self._doc.answer(execution, text, since=question.get("since"))
                return
            except RefusedError as exc:
                self._view.note(f"Your answer was not taken ({exc.reason}).")
                if not exc.reason.startswith("value:"):
                    return

    async def _stop_asking(self) -> bool:
        """Nobody need answer any more; whether somebody here was still asked."""
        asking, self._asking = self._asking, None
        was_open = self._asks and asking is not None and not asking.done()
        await _stop(asking)
        return was_open

    # --- cutting it short

    def _interrupt(self) -> None:
        """Ctrl-C: once for the run, twice for us."""
        self._view.move(to_start=False)  # the terminal shows ^C
        if self._cut is None and self._run is not None:
            self._view.note("Interrupting it; Ctrl-C again leaves it to itself.")
            self._cut_short(Cut(INTERRUPTED_EXIT_CODE, "interrupted"))
        else:
            self._leave(Cut(INTERRUPTED_EXIT_CODE, "interrupted"))

    def _terminate(self) -> None:
        self._leave(Cut(TERMINATED_EXIT_CODE, "terminated"))

    def _time_is_up(self, timeout_s: float) -> None:
        cut = Cut(TIMEOUT_EXIT_CODE, f"not done within {timeout_s:g} s")
        if self._run is None:
            self._leave(cut)
        elif self._cut is None:
            self._cut_short(cut)
            asyncio.get_running_loop().call_later(GRACE_S, self._leave, cut)

    def _leave(self, cut: Cut) -> None:
        if self._work is not None and not self._work.done():
            self._cut = cut
            self._work.cancel()

    def _cut_short(self, cut: Cut) -> None:
        self._cut = cut
        if self._run is not None:
            self._cutting = asyncio.create_task(self._try_to_end(self._run, cut), name="rtc-exec-cuts")

    async def _try_to_end(self, run: Run, cut: Cut) -> None:
        """Interrupt it, or take it back where it was not sent; refused is also what has ended meanwhile, and what was
        sent and does not run yet."""
        for _ in range(ATTEMPTS):
            try:
                await (run.cancel() if run.request.execution is None else run.interrupt())
                cut.done = True
                return
            except RefusedError:
                await asyncio.sleep(LOOK_S)
        if cut.exit_code == TIMEOUT_EXIT_CODE:
            self._leave(cut)
        else:
            self._view.note("It was sent, and waits for the kernel: it cannot be taken back.")


@contextmanager
def _signals(loop: asyncio.AbstractEventLoop, handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    installed = []
    for number, handler in handlers.items():
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            loop.add_signal_handler(number, handler)
            installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)


async def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
