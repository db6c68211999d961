"""What do those who ask get of the history, and how much of it at a time?

Over a :class:`~rtc_kernel.agent.keep.lookup.Lookup`; it owns nothing. One execution may have a GiB of text, and a page
of them many: a page has excerpts, as the live document has, and ends where it is large; what is given whole is
given in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config import RTCKernel
from ..notebook import BlobOf, cells_of, frame_of
from ..pieces import put_texts, write_json
from ..tables import Execution, Json, Kernel
from .keep.lookup import PAGE_EXECUTIONS, Lookup
from .keep.records import Ends
from .serve import HistoryQuery, Page

PAGE_BYTES = 16 << 20
"""About so much text has a page of the history; its first execution may have more by itself."""


def excerpt_of(settings: RTCKernel) -> Ends:
    """How much of an execution a page has: as much as the live document."""
    return Ends(
        stream_bytes=settings.stream_bytes,
        together=True,
        outputs=settings.outputs_per_execution,
        code_bytes=settings.code_bytes,
    )


def read_page(history: Lookup, query: HistoryQuery, ends: Ends) -> Page:
    """A page of the history. SetupError: ``grep`` is no regular expression."""
    return Page(
        *history.history(
            before=query.before,
            after=query.after,
            limit=query.limit,
            grep=query.grep,
            text=query.text,
            state=query.state,
            cell=query.cell,
            kernel=query.kernel,
            brief=query.brief,
            ends=ends,
            page_bytes=PAGE_BYTES,
        )
    )


def write_notebook(history: Lookup, kernel: Kernel, blob: BlobOf, *, without: str = "") -> Iterator[str]:
    """The history as a notebook: JSON text in pieces. Of the cells one is in memory at a time, without what it printed.

    Args:
        blob: resolves references to large values.
        without: an execution that is left out.
    """
    order = [(run.id, run.cell) for run in outlines(history) if run.id != without]

    def finish(run: Execution, outputs: list[Json]) -> None:
        put_texts(run, outputs, lambda position: history.text(run.id, position))

    cells = cells_of(order, history.outline, blob, history.cells(), finish)
    return write_json({**frame_of(kernel), "cells": cells}, indent=1)


def outlines(history: Lookup) -> Iterator[Execution]:
    """All executions by ``seq``, without outputs and with the beginning of their code."""
    after: int | None = 0
    while after is not None:
        page, after = history.history(after=after, limit=PAGE_EXECUTIONS, brief=True)
        yield from page
