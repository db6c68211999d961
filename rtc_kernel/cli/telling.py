"""How is an execution told to a program that has room for so many characters, and no more?

Pure: records in, plain text and pictures out. Everything is bounded, and what is left out is named in its place, with
how to get it. Nothing of an output is passed on but text: no colours, no control characters.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..excerpts import parts_of
from ..notebook import is_reference, size_text
from ..tables import Execution, ExecutionState, Json, Output
from .terminal import clean, cut, first_line, took

IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What programs that show pictures can show."""

IMAGE_BYTES = 512 << 10
"""A larger picture is only named."""

IMAGES = 4
"""So many pictures of an execution are shown; further ones are only named."""

ENTRY_CHARS = 400
"""How much of code, and how much of outputs, is in one entry of a history."""

NAME_CHARS = 200
"""How much of a name that somebody chose is shown: of a person, a notebook, an exception."""

_READ = "`read_blob`"
_SHOW = "`execution`"


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to show.

    Attributes:
        data: base64; null where it is a blob.
        digest: of the blob; null where ``data`` is there.
    """

    media_type: str
    data: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """What an execution gave. ``left_out``: so many characters of its text are not in ``text``."""

    text: str
    pictures: tuple[Picture, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An execution in short.

    Attributes:
        number: its place in the order of the kernel's executions, from 1.
        by: who asked for it.
        at: when it began, or was asked for; ISO 8601, UTC.
        seconds: how long it ran; null while it does.
        code, output: at most :data:`ENTRY_CHARS` of each, the beginning and the end.
        outputs: how many outputs it has.
    """

    number: int
    execution: str
    state: str
    by: str
    at: str | None
    seconds: float | None
    cell: str | None
    code: str
    output: str
    outputs: int
    error: str | None


# --- text


def shorten(text: str, chars: int) -> str:
    """The beginning and the end of a text, with a mark between, in so many characters."""
    if len(text) <= chars:
        return text
    mark = f" … {len(text) - chars} characters … "
    kept = max(0, chars - len(mark))
    return text[: kept - kept // 2] + mark + (text[-(kept // 2) :] if kept // 2 else "")


def name(text: str | None) -> str:
    """A name that somebody chose, on one line."""
    return cut(" ".join(clean(text or "").split()), NAME_CHARS)


def moment(at: float | None) -> str | None:
    """POSIX seconds as ISO 8601, UTC."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def error_text(run: Execution) -> str | None:
    """``ZeroDivisionError: division by zero``; null where it did not fail, or does not say how."""
    error = run.error or {}
    return name(f"{error.get('ename')}: {error.get('evalue')}") if error else None


def code_line(run: Execution) -> str:
    """The first line of what ran."""
    return "(private)" if run.private else cut(clean(first_line(run.code)), 80)


def output_text(output: Output) -> str:
    """All text of an output."""
    match output.output_type:
        case "stream":
            return _stream_text(output)
        case "error":
            return clean("\n".join(output.traceback or ()) or f"{output.ename}: {output.evalue}")
        case _:
            return _display_text(output.data or {})


def _stream_text(output: Output) -> str:
    text = ""
    for part in parts_of(output):
        if isinstance(part, str):
            text += clean(part)
        else:
            line_end = "\n" if text and not text.endswith("\n") else ""
            text += f"{line_end}[… {part} bytes left out here: {_SHOW} with `output` and `start` gives them]\n"
    return text


def _display_text(data: Mapping[str, Any]) -> str:
    """What a display says as text, and what else it has. Objects such as ``HTML`` say nothing of what they show but in
    their own type."""
    lines: list[str] = []
    plain = data.get("text/plain")
    is_telling = isinstance(plain, str) and not plain.startswith("<IPython.core.display.")
    shown = "text/plain" if is_telling else next((kind for kind in _TEXTS if isinstance(data.get(kind), str)), None)
    if shown is not None:
        lines.append(clean(data[shown]))
    for kind, value in data.items():
        if is_reference(value):
            lines.append(_reference_text(kind, value))
            if kind == "text/plain" and isinstance(value.get("preview"), str):
                lines.append(clean(value["preview"]) + "…")
        elif kind not in (shown, "text/plain"):
            lines.append(f"[{kind} {size_text(_size_of(kind, value))}]")
    return "\n".join(lines)


_TEXTS = ("text/markdown", "text/latex", "text/html", "application/javascript", "text/plain")


def _reference_text(kind: str, value: Json) -> str:
    size = size_text(int(value["bytes"]))
    if value["blob"] is None:
        return f"[{kind} {size}, too large: it was not kept]"
    return f"[{kind} {size}: {_READ} with digest {value['blob']}]"


def _size_of(kind: str, value: Any) -> int:
    if isinstance(value, str):
        return _decoded_size(value) if kind in IMAGE_TYPES else len(value.encode("utf-8", "replace"))
    return len(str(value))


def _decoded_size(text: str) -> int:
    return len(text) * 3 // 4


# --- outputs


def tell_outputs(run: Execution, chars: int, *, only: int | None = None, start: int = 0) -> Told:
    """What an execution gave.

    Args:
        chars: of text at most, the lines that say what is left out not counted.
        only: this output alone, by its position from 0.
        start: where its text begins that is wanted; what is before it is passed over.
    """
    outputs = list(zip(run.positions(), run.outputs, strict=True))
    if only is not None:
        outputs = [(position, output) for position, output in outputs if position == only]
        text = "".join(output_text(output) for _, output in outputs)
        shown = text[start : start + chars]
        rest = len(text) - start - len(shown)
        if rest > 0:
            shown += f"\n[… {rest} characters more: `start` {start + len(shown)}]"
        return Told(shown, tuple(_pictures(outputs)) if start == 0 else (), max(0, rest))
    text, left_out = _fit(list(_pieces(run, outputs)), chars)
    pictures = tuple(_pictures(outputs))
    if len(pictures) > IMAGES:
        text += f"[the first {IMAGES} of {len(pictures)} images are shown: {_SHOW} with `output` shows another]\n"
    return Told(text, pictures[:IMAGES], left_out)


@dataclass(frozen=True, slots=True)
class _Piece:
    """The text of an output. ``exact``: so far its characters are counted as in the whole text; null: to its end."""

    text: str
    position: int
    head: str = ""
    exact: int | None = None


def _pieces(run: Execution, outputs: Iterable[tuple[int, Output]]) -> Iterator[_Piece]:
    before = -1
    for position, output in outputs:
        head = f"[output {position}: {_kind_of(output)}]\n"
        if position > before + 1:
            head = f"[… outputs {before + 1} to {position - 1} left out here: {_SHOW} with `output` gives them]\n{head}"
        text = output_text(output)
        exact = (output.omitted_index or 0) if output.omitted_bytes else None
        yield _Piece(text if text.endswith("\n") else f"{text}\n", position, head, exact)
        before = position
    if run.omitted_outputs and not run.outputs:
        yield _Piece(f"[… {run.omitted_outputs} outputs left out here]\n", 0)


def _kind_of(output: Output) -> str:
    kinds = {"display_data": "display", "execute_result": "result"}
    return name(output.name) if output.output_type == "stream" else kinds.get(output.output_type, output.output_type)


def _fit(pieces: list[_Piece], chars: int) -> tuple[str, int]:
    """The front and the end of all pieces, together so many characters; and how many are left out."""
    whole = "".join(piece.head + piece.text for piece in pieces)
    if len(whole) <= chars:
        return whole, 0
    front, behind = chars - chars // 2, len(whole) - chars // 2
    where = _place_of(pieces, front)
    line = f"\n[… {behind - front} characters left out here{where}]\n"
    return whole[:front] + line + whole[behind:], behind - front


def _place_of(pieces: Iterable[_Piece], at: int) -> str:
    """Which output stands at this character of all, and where in it."""
    for piece in pieces:
        length = len(piece.head) + len(piece.text)
        if at < length:
            start = max(0, at - len(piece.head))
            is_exact = piece.exact is None or start <= piece.exact
            return f": {_SHOW} with `output` {piece.position}{f' and `start` {start}' if is_exact else ''} gives them"
        at -= length
    return ""


def _pictures(outputs: Iterable[tuple[int, Output]]) -> Iterator[Picture]:
    for _, output in outputs:
        if (picture := _picture_of(output.data or {})) is not None:
            yield picture


def _picture_of(data: Mapping[str, Any]) -> Picture | None:
    """The first picture of a display that may be shown."""
    for kind in IMAGE_TYPES:
        value = data.get(kind)
        if isinstance(value, dict) and is_reference(value):
            if value["blob"] is not None and value["bytes"] <= IMAGE_BYTES:
                return Picture(kind, None, str(value["blob"]))
        elif isinstance(value, str) and _decoded_size(value) <= IMAGE_BYTES and (text := _base64(value)):
            return Picture(kind, text, None)
    return None


def _base64(text: str) -> str | None:
    """Base64 as everybody reads it, without line ends; null where it is none."""
    try:
        return base64.b64encode(base64.b64decode("".join(text.split()), validate=True)).decode()
    except (ValueError, binascii.Error):
        return None


# --- one execution, and a page of them


def head_lines(run: Execution) -> list[str]:
    """What there is to know of an execution beside code and outputs, a fact per line."""
    lines = [f"state: {run.state.value}", f"execution: {run.id} (#{run.seq})"]
    if run.request:
        lines.append(f"request: {run.request}")
    if run.submitted_by:
        lines.append(f"by: {name(run.submitted_by)}")
    if (at := moment(run.started_at or run.queued_at)) is not None:
        lines.append(f"at: {at}")
    if (seconds := took(run)) is not None:
        lines.append(f"seconds: {seconds:.3f}")
    if (error := error_text(run)) is not None:
        lines.append(f"error: {error}")
    if run.input is not None:
        lines.append(f"asks for input: {question_text(run.input)}")
    if run.metadata.get("rtc_gap"):
        lines.append("note: messages were lost while it was open; outputs may be missing")
    return lines


def question_text(question: Json) -> str:
    """What is asked, and whether what is typed is secret."""
    prompt = name(str(question.get("prompt") or "")) or "(no prompt)"
    return f"{prompt} (a password)" if question.get("password") else prompt


def entry_of(run: Execution) -> Entry:
    """An execution in short."""
    text = "\n".join(filter(None, (output_text(output).strip("\n") for output in run.outputs)))
    seconds = took(run)
    return Entry(
        number=run.seq,
        execution=run.id,
        state=run.state.value,
        by=name(run.submitted_by),
        at=moment(run.started_at or run.queued_at),
        seconds=None if seconds is None else round(seconds, 3),
        cell=name(run.cell) or None,
        code="(private)" if run.private else shorten(clean(run.code), ENTRY_CHARS),
        output=shorten(text, ENTRY_CHARS),
        outputs=run.output_count,
        error=error_text(run),
    )


def has_failed(state: ExecutionState) -> bool:
    """Whether a run has ended otherwise than well."""
    return state in (ExecutionState.ERROR, ExecutionState.ABORTED, ExecutionState.LOST, ExecutionState.CANCELLED)
