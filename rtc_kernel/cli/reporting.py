"""What does a tool answer about an execution, while it runs and when it has ended?

Follows a run as long as its client has patience: to its end, to a question that it asks, or until the time is up; and
tells the client on the way how far it is. How much is told is bounded in ``telling``. This room owns nothing.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from typing import Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from ..client import Document, Run
from ..errors import MissingError, SetupError
from ..notebook import size_text
from ..tables import END_STATES, Execution, ExecutionState, RequestState
from . import telling
from .acting import find_running, run_line
from .linking import Linked
from .watching import patience_s

LOOK_S = 0.25
"""How often a run is looked at for a question, and for whether its kernel is still there. Seconds."""

PROGRESS_S = 1.0
"""How often a client is told how far a run is. Seconds."""

WHOLE_BYTES = 64 << 20
"""A record of which more is left out in the document is not read as a whole."""


async def attend(
    ctx: Context[Any, Any], linked: Linked, run: Run | str, timeout_s: float, max_chars: int
) -> CallToolResult:
    """Follow a run until there is something to say of it.

    Args:
        run: one of ours, whose failure is an error of the tool; or the id of an execution, whoever asked for it.
    """
    doc, loop = linked.doc, asyncio.get_running_loop()
    began = said_at = loop.time()
    away_since: float | None = None
    ended = asyncio.ensure_future(_end_of(doc, run))
    try:
        while True:
            left = began + timeout_s - loop.time()
            await asyncio.wait({ended}, timeout=max(0.0, min(LOOK_S, left)))
            if ended.done():
                end = ended.result()
                is_error = isinstance(run, Run) and telling.has_failed(end.state)
                return await tell(doc, end, telling.head_lines(end), max_chars, is_error=is_error)
            now = record_of(doc, run.request.execution if isinstance(run, Run) else run)
            away_since = None if doc.connected else away_since or loop.time()
            if away_since is not None and loop.time() - away_since > patience_s(doc, linked.target):
                return await _tell_lost(doc, now, max_chars)
            if now is not None and now.input is not None:
                return await _tell_open(doc, run, now, max_chars, "`answer_input` answers, or a person does.")
            if left <= 0:
                note = "It goes on: `wait` tells more, `interrupt` stops it." if now is not None else _waits(doc, run)
                return await _tell_open(doc, run, now, max_chars, note)
            if loop.time() - said_at >= PROGRESS_S:
                said_at = loop.time()
                await ctx.report_progress(round(said_at - began, 1), None, _progress(doc, run, now))
    finally:
        ended.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await ended


async def _end_of(doc: Document, run: Run | str) -> Execution:
    if isinstance(run, Run):
        return await run.result()
    await doc.wait_for(lambda now: (found := record_of(now, run)) is None or found.state in END_STATES)
    return record_of(doc, run) or await doc.execution(run)


def _waits(doc: Document, run: Run | str) -> str:
    """What a request waits for."""
    if not isinstance(run, Run):
        return "It is not in the document any more."
    takes_back = f"`wait` and `cancel` take its request, {run.id}."
    if run.request.state is RequestState.HELD:
        reason = telling.name(run.request.reason)
        return f"It is held ({reason}), until somebody at the kernel releases it. {takes_back}"
    running = find_running(doc)
    behind = f" behind {run_line(running)}" if running is not None else ""
    return f"It waits{behind}. {takes_back}"


def _progress(doc: Document, run: Run | str, now: Execution | None) -> str:
    if now is None or now.state is ExecutionState.QUEUED:
        return _waits(doc, run)
    said = telling.output_text(now.outputs[-1]).rstrip() if now.outputs else ""
    return telling.name(said.rpartition("\n")[2]) or "running"


async def _tell_lost(doc: Document, now: Execution | None, max_chars: int) -> CallToolResult:
    note = "The kernel is gone; how it ended is not known."
    if now is None:
        return fail(note)
    return await tell(doc, now, [*telling.head_lines(now), note], max_chars, is_error=True)


async def _tell_open(doc: Document, run: Run | str, now: Execution | None, max_chars: int, note: str) -> CallToolResult:
    if now is not None:
        return await tell(doc, now, [*telling.head_lines(now), note], max_chars, is_error=False)
    state = run.request.state.value if isinstance(run, Run) else "unknown"
    request = run.id if isinstance(run, Run) else run
    return answer(f"state: {state}\nrequest: {request}\n{note}")


# --- answers


def answer(text: str, *blocks: ContentBlock, is_error: bool = False) -> CallToolResult:
    """A tool's answer: text, and what stands beside it."""
    return CallToolResult(content=[TextContent(type="text", text=text), *blocks], is_error=is_error)


def fail(text: str) -> CallToolResult:
    """The answer of a tool that could not do it."""
    return answer(text, is_error=True)


async def tell(doc: Document, run: Execution, heads: list[str], max_chars: int, *, is_error: bool) -> CallToolResult:
    """An execution, with its small images."""
    told = telling.tell_outputs(run, max_chars)
    text = "\n".join([*heads, "", told.text or "(no output)"])
    return answer(text, *await images_of(doc, told), is_error=is_error)


async def images_of(doc: Document, told: telling.Told) -> list[ContentBlock]:
    """The images to show."""
    images: list[ContentBlock] = []
    for picture in told.pictures:
        data = picture.data
        if picture.digest is not None:
            with suppress(SetupError):  # it has left the history; its line in the text names it
                data = base64.b64encode(await doc.blob(picture.digest)).decode()
        if data is not None:
            images.append(image(picture.media_type, data))
    return images


def image(media_type: str, data: str) -> ImageContent:
    """An image, of base64."""
    return ImageContent(type="image", data=data, mime_type=media_type)


# --- what is where


def record_of(doc: Document, key: str | None) -> Execution | None:
    """An execution of the document by its whole id."""
    record = doc.record("executions", key) if key else None
    return record if isinstance(record, Execution) else None


def find(doc: Document, key: str) -> Execution | None:
    """An execution of the document by id, the beginning of its id, or number."""
    if (found := record_of(doc, key)) is not None:
        return found
    runs, number = doc.executions.values(), key.removeprefix("#")
    if number.isdecimal() and len(number) < 10:
        return next((run for run in runs if run.seq == int(number)), None)
    begun = [run for run in runs if len(key) >= 4 and run.id.startswith(key)]
    return begun[0] if len(begun) == 1 else None


async def find_anywhere(doc: Document, key: str) -> Execution:
    """The same, also of those that have left the document.

    Raises:
        MissingError: there is none.
    """
    try:
        return find(doc, key) or await doc.execution(key)
    except MissingError as exc:
        raise MissingError(f"there is no execution {key!r}, or more than one", "`history` has those there are") from exc


async def whole(doc: Document, run: Execution, output: int) -> Execution:
    """The execution with all of one of its outputs.

    Raises:
        SetupError: it is too large.
    """
    here = dict(zip(run.positions(), run.outputs, strict=True)).get(output)
    if here is not None and not here.omitted_bytes:
        return run
    left_out = sum(one.omitted_bytes or 0 for one in run.outputs)
    if left_out > WHOLE_BYTES:
        raise SetupError(
            f"execution #{run.seq} has {size_text(left_out)} more text than can be read here",
            f"`jupyter rtc show {run.id}` has it",
        )
    return await doc.execution(run.id)
