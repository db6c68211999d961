"""What rows do changes make? The plain reading of ``tables.Change``: an oracle for document, store and mirror.

It is strict where those are lenient: a position, a segment or a state step that cannot be fails the test.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from rtc_kernel.tables import (
    COMM_MESSAGES_KEPT,
    END_STATES,
    SEGMENT_MAX_BYTES,
    AddCommMessage,
    AddOutput,
    Cell,
    Change,
    ClearOutputs,
    Comm,
    Execution,
    Kernel,
    MergeCommState,
    Output,
    PutBlob,
    PutCells,
    PutComm,
    PutExecution,
    PutKernel,
    PutMeta,
    SetOutput,
    WriteText,
    advance,
)


@dataclass
class Rows:
    """The tables, as records by id."""

    meta: dict[str, Any] = field(default_factory=dict)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    comms: dict[str, Comm] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    cells: tuple[Cell, ...] = ()
    segments: dict[tuple[str, int], list[str]] = field(default_factory=dict, repr=False)
    coalesced: bool = False
    """Whether steps of a state may have been merged."""

    def apply(self, changes: Iterable[Change]) -> Rows:
        """Apply changes in order; returns itself."""
        for change in changes:
            self._apply(change)
        return self

    def displays(self) -> list[tuple[str, str, int]]:
        """``(display_id, execution, position)``, as the store gives them to ``Mirror.restore``."""
        return [
            (output.display_id, row.id, position)
            for row in self.executions.values()
            for position, output in enumerate(row.outputs)
            if output.display_id is not None
        ]

    def _apply(self, change: Change) -> None:
        match change:
            case PutMeta(columns):
                self.meta |= columns
            case PutKernel(kernel, columns):
                row = self.kernels.get(kernel)
                if row is not None and not self.coalesced and columns.get("state", row.state) is not row.state:
                    advance(row.state, columns["state"])
                self.kernels[kernel] = replace(row or Kernel(id=kernel), **columns)
            case PutExecution(execution, columns):
                self._put_execution(execution, columns)
            case AddOutput(execution, position, output):
                outputs = self.executions[execution].outputs
                assert position == len(outputs)
                assert output.output_type != "stream" or output.text == ""
                self._set_outputs(execution, (*outputs, output))
            case WriteText(execution, position, segment, keep, text):
                self._write(execution, position, segment, keep, text)
            case SetOutput(execution, position, output):
                outputs = self.executions[execution].outputs
                assert "stream" not in (outputs[position].output_type, output.output_type)
                self._set_outputs(execution, (*outputs[:position], output, *outputs[position + 1 :]))
            case ClearOutputs(execution):
                self.segments = {key: value for key, value in self.segments.items() if key[0] != execution}
                self._set_outputs(execution, ())
            case PutComm(comm, columns):
                self.comms[comm] = replace(self.comms.get(comm) or Comm(id=comm), **columns)
            case MergeCommState(comm, state):
                self.comms[comm] = replace(self.comms[comm], state={**self.comms[comm].state, **state})
            case AddCommMessage(comm, message):
                messages = (*self.comms[comm].messages, message)[-COMM_MESSAGES_KEPT:]
                self.comms[comm] = replace(self.comms[comm], messages=messages)
            case PutBlob(digest, data, _):
                self.blobs[digest] = data
            case PutCells(_, cells):
                self.cells = cells
            case _:
                assert_never(change)

    def _put_execution(self, execution: str, columns: dict[str, Any]) -> None:
        row = self.executions.get(execution)
        assert row is not None or columns["seq"] > 0, "a new row without seq"
        before = row or Execution(id=execution)
        if columns.get("state", before.state) is not before.state:
            if row is not None:
                advance(row.state, columns["state"])
        elif row is not None and "state" in columns:
            assert row.state not in END_STATES
        metadata = {**before.metadata, **columns.get("metadata", {})}
        self.executions[execution] = replace(before, **(columns | {"metadata": metadata}))

    def _set_outputs(self, execution: str, outputs: tuple[Output, ...]) -> None:
        self.executions[execution] = replace(self.executions[execution], outputs=outputs)

    def _write(self, execution: str, position: int, segment: int, keep: int | None, text: str) -> None:
        outputs = self.executions[execution].outputs
        assert outputs[position].output_type == "stream"
        segments = self.segments.setdefault((execution, position), [])
        assert segment <= len(segments)
        held = segments[segment] if segment < len(segments) else ""
        assert keep is None or keep <= len(held)
        written = held[:keep] + text
        assert len(written.encode()) <= SEGMENT_MAX_BYTES, "a segment above the limit"
        segments[segment:] = [written]
        output = replace(outputs[position], text="".join(segments))
        self._set_outputs(execution, (*outputs[:position], output, *outputs[position + 1 :]))


def apply(changes: Iterable[Change]) -> Rows:
    """The rows that these changes make, from nothing."""
    return Rows().apply(changes)
