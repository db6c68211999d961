"""How are values shown in a terminal, and how as JSON?

Nothing that a kernel sent reaches the terminal with escape sequences other than colours: an output must not move
the cursor, change the title or write to the clipboard of whoever watches.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ..excerpts import parts_of, to_text
from ..notebook import is_reference, size_text
from ..tables import Execution, Output

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x1b[\]PX^_].*?(?:\x1b\\|\x07|$)"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"  # everything else that begins with ESC
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]",
    re.DOTALL,
)


def out() -> Console:
    """What was asked for."""
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False)


def tell(line: str) -> None:
    """One line for the user, beside what was asked for."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def emit(value: Any) -> None:
    """One JSON value on one line of stdout, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def clean(text: str, *, colours: bool = False) -> str:
    """Text that does nothing to a terminal but stand there."""
    if not colours:
        return _ESCAPES.sub("", text)
    parts, at = [], 0
    for match in _COLOURS.finditer(text):
        parts += [_ESCAPES.sub("", text[at : match.start()]), match[0]]
        at = match.end()
    parts.append(_ESCAPES.sub("", text[at:]))
    return "".join(parts) + ("\x1b[0m" if len(parts) > 1 else "")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table, without lines, as wide as it needs to be."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(clean(cell) for cell in row))
    return made


def first_line(code: str) -> str:
    """The first line of a cell's code that says something."""
    return next((line.strip() for line in code.splitlines() if line.strip()), "")


def cut(text: str, width: int) -> str:
    """A text in so many columns at most."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def duration(seconds: float | None) -> str:
    """``0.12 s``, ``12.3 s``, ``4 min 5 s``, ``2 h 3 min``."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def took(execution: Execution) -> float | None:
    """Seconds from its begin to its end; null where one of them is not known."""
    if execution.started_at is None or execution.finished_at is None:
        return None
    return max(0.0, execution.finished_at - execution.started_at)


def moment(at: float | None, now: float | None = None) -> str:
    """A time of today as ``14:03:05``, an earlier one with its date; local time."""
    if at is None:
        return ""
    then, today = time.localtime(at), time.localtime(time.time() if now is None else now)
    form = "%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, then)


def output_text(output: Output, *, colours: bool = False) -> str:
    """An output as text: streams and tracebacks as they are, of a display its plain text, else what it is."""
    match output.output_type:
        case "stream":
            text = to_text(parts_of(output))
        case "error":
            text = "\n".join(output.traceback or ()) or f"{output.ename}: {output.evalue}"
        case _:
            text = _display_text(output.data or {})
    return clean(text, colours=colours)


def _display_text(data: dict[str, Any]) -> str:
    names = []
    for media_type, value in data.items():
        if is_reference(value):
            if media_type == "text/plain" and value.get("preview"):
                return f"{value['preview']}… [{size_text(int(value['bytes']))}]"
            names.append(f"{media_type} {size_text(int(value['bytes']))}")
        elif media_type != "text/plain":
            names.append(media_type)
    shown = data.get("text/plain")
    text = shown if isinstance(shown, str) else ""
    note = f"[{', '.join(names)}]" if names else ""
    return f"{text} {note}".strip() if text else note
