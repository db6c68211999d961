"""How does the history look as a notebook?

Pure: records in, an nbformat 4.5 notebook (plain JSON values) out. One code cell per execution, in order; what
cannot be there (a private run, a blob that is not kept) is said in its place.
Source: nbformat, ``nbformat/v4/nbformat.v4.5.schema.json``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .tables import Cell, Execution, ExecutionState, Json, Kernel, Output

BlobOf = Callable[[str], bytes | None]
"""The bytes under ``sha256:…``; None: not kept."""

_CELL_ID = re.compile(r"[a-zA-Z0-9-_]{1,64}")
_JSON_TYPE = re.compile(r"application/(.*\+)?json")


def to_notebook(
    executions: Iterable[Execution],
    *,
    kernel: Kernel | None,
    blob: BlobOf,
    cells: Sequence[Cell] | None = None,
) -> Json:
    """The history as a notebook that nbformat validates.

    Args:
        executions: in any order; the cells stand in the order of ``seq``.
        kernel: for ``kernelspec`` and ``language_info``.
        blob: resolves references to large values.
        cells: of a headless run's notebook: its cells stand first, in order, each with the last run that points to
            it, and further runs behind them.
    """
    runs = {str(index): run for index, run in enumerate(sorted(executions, key=lambda execution: execution.seq))}
    order = [(key, run.cell) for key, run in runs.items()]
    return {**frame_of(kernel), "cells": list(cells_of(order, runs.get, blob, cells or ()))}


Finish = Callable[[Execution, list[Json]], None]
"""Given a run and its outputs as nbformat has them, in order; may change them."""


def frame_of(kernel: Kernel | None) -> Json:
    """A notebook without cells."""
    return {"cells": [], "metadata": _metadata(kernel), "nbformat": 4, "nbformat_minor": 5}


def cells_of(
    order: Sequence[tuple[str, str | None]],
    read: Callable[[str], Execution | None],
    blob: BlobOf,
    cells: Sequence[Cell] = (),
    finish: Finish | None = None,
) -> Iterator[Json]:
    """The cells of :func:`to_notebook`, one after another; of each run only as long as its cell is made.

    Args:
        order: key and cell of each run, by ``seq``.
        read: a run by its key; null: it has left the history meanwhile, and has no cell.
    """
    used: set[str] = set()
    last = {cell: run for run, cell in order if cell is not None}
    placed: set[str] = set()
    for cell in sorted(cells, key=lambda cell: cell.index):
        key = last.get(cell.id) if cell.cell_type == "code" else None
        run = read(key) if key is not None else None
        if key is not None:
            placed.add(key)
        yield _given_cell(cell, run, blob, used, finish)
    for key, _ in order:
        if key not in placed and (run := read(key)) is not None:
            yield _run_cell(run, blob, used, finish)


def _metadata(kernel: Kernel | None) -> Json:
    if kernel is None:
        return {}
    metadata: Json = {"kernelspec": {"name": kernel.name, "display_name": kernel.display_name or kernel.name}}
    if kernel.language:
        metadata["kernelspec"]["language"] = kernel.language
        metadata["language_info"] = {"name": kernel.language}
    return metadata


def _given_cell(cell: Cell, run: Execution | None, blob: BlobOf, used: set[str], finish: Finish | None) -> Json:
    kind = cell.cell_type if cell.cell_type in ("code", "markdown", "raw") else "raw"
    given: Json = {"id": _cell_id(cell.id, used), "cell_type": kind, "metadata": {}, "source": cell.source}
    if kind == "code":
        given |= {"execution_count": None, "outputs": []}
    if run is not None:
        ran = _run_cell(run, blob, set(), finish)
        given |= {name: ran[name] for name in ("metadata", "source", "execution_count", "outputs")}
    return given


def _run_cell(run: Execution, blob: BlobOf, used: set[str], finish: Finish | None) -> Json:
    source, outputs = run.code, [to_output(output, blob) for output in run.outputs]
    if finish is not None:
        finish(run, outputs)
    if run.private:
        source, outputs = "# private: run, and not recorded", []
    elif run.state is ExecutionState.LOST:
        outputs.append({"output_type": "stream", "name": "stderr", "text": "lost: the kernel ended during this run\n"})
    return {
        "id": _cell_id(run.id, used),
        "cell_type": "code",
        "execution_count": run.execution_count,
        "metadata": {
            "rtc": {
                "execution": run.id,
                "state": run.state.value,
                "submitted_by": run.submitted_by,
                "started_at": run.started_at,
                "finished_at": run.finished_at,
            }
        },
        "source": source,
        "outputs": outputs,
    }


def _cell_id(wanted: str, used: set[str]) -> str:
    """The id itself where it is a valid one and free, else one that is made of it."""
    made, tries = wanted, 0
    while not _CELL_ID.fullmatch(made) or made in used:
        made = hashlib.sha256(f"{wanted}#{tries}".encode("utf-8", "replace")).hexdigest()[:32]
        tries += 1
    used.add(made)
    return made


def to_output(output: Output, blob: BlobOf) -> Json:
    """One output as nbformat has it, with the values that were blobs."""
    value = output.to_nbformat()
    if "data" in value:
        value["data"] = {kind: _fitting(kind, item) for kind, item in resolve(value["data"], blob).items()}
    if value["output_type"] == "stream" and value["name"] not in ("stdout", "stderr"):
        value["name"] = "stdout"
    return value


def resolve(data: Mapping[str, Any], blob: BlobOf) -> Json:
    """A MIME bundle without references: text as text, JSON parsed, what is binary as base64.

    A value that is not kept any more is left out, and ``text/plain`` says so.
    """
    out: Json = {}
    missing: list[str] = []
    for media_type, value in data.items():
        if not is_reference(value):
            out[media_type] = value
            continue
        digest = value["blob"]
        raw = blob(digest) if digest else None
        if raw is not None:
            out[media_type] = _decode(media_type, raw)
        else:
            preview = value.get("preview")
            text = f"{preview}…\n" if preview and isinstance(preview, str) else ""
            missing.append(f"{text}[{describe(media_type, value)}: not kept]")
    if missing and "text/plain" not in out:
        out["text/plain"] = "\n".join(missing)
    return out


def describe(media_type: str, reference: Mapping[str, Any]) -> str:
    """A reference in words: ``image/png 640 x 480, 97.7 KiB``."""
    size, preview = size_text(int(reference.get("bytes") or 0)), reference.get("preview")
    if isinstance(preview, Mapping) and "width" in preview and "height" in preview:
        return f"{media_type} {preview['width']} x {preview['height']}, {size}"
    return f"{media_type}, {size}"


def is_reference(value: Any) -> bool:
    """Whether a value of a bundle is ``{"blob": "sha256:…" | null, "bytes": n, "preview": …}``."""
    return isinstance(value, dict) and "blob" in value and "bytes" in value and value.keys() <= _REFERENCE


_REFERENCE = frozenset({"blob", "bytes", "preview"})


def _decode(media_type: str, raw: bytes) -> Any:
    if _JSON_TYPE.fullmatch(media_type):
        try:
            return json.loads(raw)
        except ValueError:
            return raw.decode("utf-8", "replace")
    binary = media_type.startswith(("image/", "audio/", "video/")) or media_type == "application/pdf"
    if binary and not media_type.startswith("image/svg"):
        return base64.b64encode(raw).decode()
    return raw.decode("utf-8", "replace")


def _fitting(media_type: str, value: Any) -> Any:
    """nbformat: what is not JSON is text, or a list of texts."""
    if isinstance(value, str) or _JSON_TYPE.fullmatch(media_type):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return value
    return json.dumps(value, default=str)


def size_text(size_bytes: int) -> str:
    """``12 B``, ``3.4 KiB``, ``5.6 MiB``, ``7.8 GiB``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
