"""What does the scheduler want done?

Pure values. Whoever gets a list of them commits the requests of all its :class:`Put` first, then does it in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...tables import ExecutionState, Request


@dataclass(frozen=True, slots=True)
class Put:
    """Show this version of a row, once it is stored. ``stored``: false for what is shown to one peer and not kept,
    because the id belongs to another row, or cannot be kept, or the peer asked for too much."""

    request: Request
    stored: bool = True


@dataclass(frozen=True, slots=True)
class Submit:
    """Send the kernel an ``execute_request`` with this ``msg_id``, and ``stop_on_error`` false: the kernel would abort
    everybody's, the scheduler aborts this peer's."""

    request: Request
    execution: str


@dataclass(frozen=True, slots=True)
class Record:
    """Write the row of an execution that never went to the kernel, or of which nobody knows: ``cancelled``, ``aborted``
    or ``lost``."""

    execution: str
    request: Request
    state: ExecutionState


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Interrupt the kernel."""

    request: Request


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart the kernel."""

    request: Request


@dataclass(frozen=True, slots=True)
class Answer:
    """Send the kernel an ``input_reply``. ``secret``: what was typed; it is nowhere else."""

    request: Request
    execution: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ask:
    """Put a question to the kernel; ``Scheduler.receive_query`` says how it ended."""

    request: Request


@dataclass(frozen=True, slots=True)
class Annotate:
    """Set a key of an execution's metadata."""

    request: Request


@dataclass(frozen=True, slots=True)
class Clear:
    """Clear the history."""

    request: Request


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connections of a peer that asked for more than its quota."""

    by: str


Command = Put | Submit | Record | Interrupt | Restart | Answer | Ask | Annotate | Clear | Close
