r"""What has to be written so that a terminal, or a pipe, shows the outputs of an execution?

Pure: outputs in, pieces of text out. State: of each output what was written of it, and what stands in the row of the
terminal in which the cursor is.

A terminal shows a stream as it is: its unfinished last line is written at once, and written again over itself where
it was changed (the document has ``\r`` applied, so a progress bar is a line that changes). What is written to a pipe is
never taken back, so there an unfinished line waits until it is finished, or nothing can follow it. Where two streams go
to the same terminal each begins in a row of its own; a pipe gets a stream's text and nothing else, but for a line where
the document has let go of something before it was written.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from rich.cells import cell_len

from ..excerpts import Reading, say_missing, to_text
from ..tables import END_STATES, Execution, Output
from .terminal import clean, output_text

Target = Literal["stdout", "stderr"]

Piece = tuple[Target, str]
"""Where to write, and what."""


@dataclass(slots=True, eq=False)
class _Written:
    """What was written of one output.

    Attributes:
        whole: nothing can follow it any more.
        reading: of a stream: its text up to the last line end that was written (pipe: up to what was written).
        line: of a stream in a terminal: what was written of the line behind it.
    """

    output: Output
    whole: bool = False
    reading: Reading = field(default_factory=Reading)
    line: str = ""


class Printout:
    """One execution's outputs on their way out.

    Args:
        terminals: which of the two are terminals.
        colours: whether terminals get colours.
    """

    def __init__(self, terminals: Collection[Target] = (), *, colours: bool = False) -> None:
        self._terminals = frozenset(terminals)
        self._colours = colours
        self._outputs: dict[int, _Written] = {}
        self._count = 0  # of outputs that came
        self._execution = "ID"
        self._row = ""  # since the row began in which the cursor is; empty: the cursor is at its start
        self._row_of: _Written | None = None  # whose unfinished line that is, alone
        self._midline: dict[Target, bool] = {"stdout": False, "stderr": False}  # of pipes
        self._pieces: list[Piece] = []

    def __repr__(self) -> str:
        return f"<Printout {len(self._outputs)} outputs, {len(self._row)} characters in the row>"

    def show(self, execution: Execution, *, width: int = 80) -> list[Piece]:
        """What to write, given how the execution is now.

        Args:
            width: of the terminal, in columns.
        """
        self._execution = execution.id
        ended = execution.state in END_STATES
        if execution.output_count < self._count:  # they were cleared
            self._outputs.clear()
            self._count = 0
        for position, output in zip(execution.positions(), execution.outputs, strict=True):
            whole, is_stream = ended or position < execution.output_count - 1, output.output_type == "stream"
            written = self._outputs.get(position)
            if written is None:
                self._finish_left_out(position)
                written = self._outputs[position] = _Written(output)
            elif written.output.output_type != output.output_type:  # cleared, and others came
                written = self._outputs[position] = _Written(output)
            elif written.output == output and (written.whole == whole or not is_stream):
                continue
            written.output, written.whole = output, whole
            if is_stream:
                self._show_stream(written, width)
            else:
                self._show_block(output_text(output, colours=self._colours_of(output)), _target_of(output))
        self._forget(execution)
        if ended:
            self._leave_row("stdout" if "stdout" in self._terminals else "stderr")
        return self._take()

    def _finish_left_out(self, position: int) -> None:
        """Outputs may have come and gone since the last that was seen: say so."""
        if position > self._count:
            self._show_block(say_missing(position - self._count, self._execution), "stdout")
        self._count = max(self._count, position + 1)

    def _forget(self, execution: Execution) -> None:
        """What the document has let go of comes no more."""
        if execution.omitted_outputs:
            here = set(execution.positions())
            self._outputs = {position: written for position, written in self._outputs.items() if position in here}

    def begin_row(self, target: Target = "stderr") -> list[Piece]:
        """What to write before a line that is no output."""
        if target in self._terminals:
            self._leave_row(target)
        return self._take()

    def move(self, *, to_start: bool) -> None:
        """Somebody else has written on the terminal. ``to_start``: and ended the line."""
        self._row, self._row_of = ("" if to_start else "?"), None

    # ---

    def _show_stream(self, written: _Written, width: int) -> None:
        target: Target = "stderr" if written.output.name == "stderr" else "stdout"
        parts, changed = written.reading.read(written.output)
        if changed:
            written.line = ""
            if written is self._row_of:
                self._row_of = None
        rest = to_text(parts, self._execution)
        finished = rest[: rest.rfind("\n") + 1]
        if target not in self._terminals:
            piece = rest if written.whole else finished
            written.reading.settle(rest[len(piece) :])
            self._write(target, clean(piece))
            return
        self._show_line(target, written, clean(rest, colours=self._colours), width)
        written.reading.settle(rest[len(finished) :])
        written.line = clean(rest[len(finished) :], colours=self._colours)

    def _show_line(self, target: Target, written: _Written, new: str, width: int) -> None:
        """Bring the terminal from the line that was written of this stream to ``new``, which may have several."""
        if new == written.line:
            return
        if written is self._row_of and not new.startswith(written.line):
            self._write(target, _rewind(self._row, width))
            self._row = ""
        else:
            new = new[len(written.line) :] if new.startswith(written.line) else new
            if written is not self._row_of:
                self._leave_row(target)
        self._write(target, new)
        line = new.rpartition("\n")[2]
        row = line if "\n" in new else self._row + line
        self._row = row if clean(row) else ""  # colours take no room
        self._row_of = written if self._row else None

    def _colours_of(self, output: Output) -> bool:
        return self._colours and _target_of(output) in self._terminals

    def _show_block(self, text: str, target: Target) -> None:
        """An output that is no stream stands in rows of its own."""
        if not text:
            return
        if target in self._terminals:
            self._leave_row(target)
        elif self._midline[target]:
            self._write(target, "\n")
        self._write(target, text if text.endswith("\n") else text + "\n")

    def _leave_row(self, target: Target) -> None:
        if self._row:
            self._write(target, "\n")
        self._row, self._row_of = "", None

    def _write(self, target: Target, text: str) -> None:
        if text:
            self._pieces.append((target, text))
            self._midline[target] = not text.endswith("\n")

    def _take(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces


def _rewind(row: str, width: int) -> str:
    """Back to where this text began, however many rows of the terminal it takes, and nothing behind it."""
    rows_above = max(0, cell_len(clean(row).expandtabs()) - 1) // max(1, width)
    return "\r" + (f"\x1b[{rows_above}A" if rows_above else "") + "\x1b[J"


def _target_of(output: Output) -> Target:
    """Where an output that is no stream goes."""
    return "stderr" if output.output_type == "error" else "stdout"
