"""``interrupt``, ``restart``, ``queue``: act on a kernel through its document.

What is asked for goes the way of everybody's requests: it is checked against the role of the link, and others see it.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from .. import discovery
from ..client import Document, connect
from ..config import RTCKernel
from ..errors import RefusedError, SetupError
from ..tables import (
    END_STATES,
    REQUEST_END_STATES,
    Execution,
    ExecutionState,
    Json,
    KernelState,
    Request,
    RequestState,
    to_json,
)
from .terminal import clean, cut, emit, first_line, moment, out, table, tell

RESTART_S = 60.0
"""How long ``restart`` waits for the kernel to be back. Seconds."""

ALL = "all"
"""Instead of an id."""

ID_CHARS = 8
"""How much of an id is shown; the beginning of one is enough to name it."""

CODE_CHARS = 40
"""How much of a line of code is shown."""


def target_of(args: argparse.Namespace) -> str:
    """The kernel or link that was named, or the only kernel.

    Raises:
        SetupError: none was named, and none or several live.
    """
    return args.target or discovery.only().kernel_id


def find_running(doc: Document) -> Execution | None:
    """The execution that runs now."""
    return next((run for run in doc.executions.values() if run.state is ExecutionState.RUNNING), None)


def run_line(run: Execution) -> str:
    """An execution in a few words."""
    code = "(private)" if run.private else cut(first_line(run.code), CODE_CHARS)
    return clean(f"#{run.seq}{f' of {run.submitted_by}' if run.submitted_by else ''}: {code}")


# --- interrupt, restart


def interrupt(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc interrupt``."""
    kernel_id, running = asyncio.run(_interrupt(target_of(args), args))
    if args.json:
        emit({"kernel_id": kernel_id, "execution": running.id if running is not None else None})
    else:
        out().print(f"Interrupted {run_line(running)}" if running is not None else "Interrupted; nothing was running.")
    return 0


async def _interrupt(target: str, args: argparse.Namespace) -> tuple[str, Execution | None]:
    async with connect(target, args.token) as doc:
        wanted = _find_execution(doc, args.execution) if args.execution else None
        running = wanted or find_running(doc)
        await doc.interrupt(wanted.id if wanted is not None else None)
        return doc.kernel.id, running


def _find_execution(doc: Document, key: str) -> Execution:
    number = key.removeprefix("#")
    runs = doc.executions
    found = [run for run in runs.values() if run.id.startswith(key) or str(run.seq) == number]
    if key in runs or len(found) == 1:
        return runs.get(key) or found[0]
    raise SetupError(f"no execution {key!r}, or more than one", "`jupyter rtc queue --json` has the ids", 2)


def restart(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc restart``."""
    return asyncio.run(_restart(target_of(args), args))


async def _restart(target: str, args: argparse.Namespace) -> int:
    async with connect(target, args.token) as doc:
        before = doc.kernel.generation
        await doc.restart()
        try:
            await doc.wait_for(lambda now: _is_back(now, before), RESTART_S)
        except TimeoutError:
            raise SetupError(
                f"the kernel is not back after {RESTART_S:g} s", "`jupyter rtc status` shows how it is"
            ) from None
        held = [request.id for request in (await doc.requests()).values() if request.state is RequestState.HELD]
        if args.json:
            emit({"kernel_id": doc.kernel.id, "generation": doc.kernel.generation, "held": held})
        else:
            out().print(f"Restarted (number {doc.kernel.generation} since it was started).")
            if held:
                tell(f"{len(held)} held: `jupyter rtc queue` shows what, and --release lets it run.")
    return 0


def _is_back(doc: Document, generation: int) -> bool:
    return doc.kernel.generation > generation and doc.kernel.state in (KernelState.IDLE, KernelState.BUSY)


# --- queue


def queue(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc queue``."""
    return asyncio.run(_queue(target_of(args), args))


async def _queue(target: str, args: argparse.Namespace) -> int:
    async with connect(target, args.token) as doc:
        requests = _open(await doc.requests())
        if args.release is not None:
            _tell_done(args, "released", await _release(doc, requests, args.release), "Nothing is held.")
        elif args.cancel is not None:
            _tell_done(args, "cancelled", await _cancel(doc, requests, args.cancel), "Nothing waits.")
        else:
            runs = [run for run in doc.executions.values() if run.state not in END_STATES]
            _show_queue(args, runs, requests)
    return 0


def _open(requests: Mapping[str, Request]) -> list[Request]:
    return [request for request in requests.values() if request.state not in REQUEST_END_STATES]


async def _release(doc: Document, requests: list[Request], key: str) -> list[str]:
    if key != ALL:
        wanted = _choose(requests, key)
        await doc.release(wanted)
        return [wanted]
    held = [request.id for request in requests if request.state is RequestState.HELD]
    if held:
        await doc.release()
    now = await doc.requests()
    return [one for one in held if one not in now or now[one].state is not RequestState.HELD]


async def _cancel(doc: Document, requests: list[Request], key: str) -> list[str]:
    if key != ALL:
        wanted = _choose(requests, key)
        await doc.cancel(wanted)
        return [wanted]
    cancelled = []
    for request in reversed(requests):  # or the next one would be sent meanwhile
        if request.state in (RequestState.REQUESTED, RequestState.HELD):
            with suppress(RefusedError):  # it was sent just now, or is another peer's
                await doc.cancel(request.id)
                cancelled.append(request.id)
    return cancelled[::-1]


def _choose(requests: Iterable[Request], key: str) -> str:
    """The id of the open request that was named."""
    found = [request.id for request in requests if request.id.startswith(key)]
    if key in found or len(found) == 1:
        return key if key in found else found[0]
    raise SetupError(f"no open request {key!r}, or more than one", "`jupyter rtc queue --json` has the ids", 2)


def _tell_done(args: argparse.Namespace, done: str, ids: list[str], none: str) -> None:
    if args.json:
        emit({done: ids})
    else:
        out().print(f"{done.capitalize()}: {', '.join(one[:ID_CHARS] for one in ids)}" if ids else none)


def _show_queue(args: argparse.Namespace, runs: list[Execution], requests: list[Request]) -> None:
    if args.json:
        emit(
            {
                "executions": [_without_outputs(run) for run in runs],
                "requests": [to_json(request) for request in requests],
            }
        )
        return
    rows = [*_run_rows(runs, requests), *_request_rows(runs, requests)]
    if not rows:
        out().print("Nothing waits.")
        return
    if not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    out().print(table(("ID", "STATE", "BY", "SINCE", "WHAT", "WHY")[: len(rows[0])], rows))


def _without_outputs(run: Execution) -> Json:
    value = to_json(run)
    del value["outputs"]
    return value


def _run_rows(runs: list[Execution], requests: list[Request]) -> Iterator[list[str]]:
    """What the kernel has: its own, and what frontends have sent."""
    for run in runs:
        request = next((one for one in requests if one.execution == run.id), None)
        name = request.id[:ID_CHARS] if request is not None else f"#{run.seq}"
        asks = "asks for input" if run.input is not None else ""
        code = "(private)" if run.private else first_line(run.code)
        since = moment(run.started_at or run.queued_at)
        yield [name, run.state.value, run.submitted_by, since, cut(clean(code), CODE_CHARS), asks]


def _request_rows(runs: list[Execution], requests: list[Request]) -> Iterator[list[str]]:
    """What was asked for and is not with the kernel, held ones last."""
    known = {run.id for run in runs}
    for request in sorted(requests, key=lambda one: (one.state is RequestState.HELD, one.ordinal)):
        if request.execution in known and request.action == "execute":
            continue
        code = first_line(str(request.columns.get("code", ""))) if request.action == "execute" else request.action
        since = moment(request.received_at)
        what = cut(clean(code), CODE_CHARS)
        yield [request.id[:ID_CHARS], request.state.value, request.by, since, what, request.reason or ""]
