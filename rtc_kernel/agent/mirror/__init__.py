"""What happened? Messages that passed the relay, in order, become changes of rows.

Pure: no clock, no I/O. :class:`Mirror` is the hallway of this room:

* ``executions``  the row of each execution, from request to end
* ``kernels``     the kernel's row: idle, busy, its lives
* ``outputs``     what an execution or an ``Output`` widget has shown; ``streams``: the text of a stream
* ``comms``       comms, widget state, which widget captures whose outputs
* ``values``      what of a decoded message may enter a row, and what becomes a blob

What is not recorded: ``silent`` requests with their outputs; code, outputs, errors, prompts and comm messages of
a private execution; what a user types into a prompt; outputs whose parent is no execution (a comm message's, or
``{}``), or is one that is forgotten: ended, and longer ago than the last 50 that ended or had an output.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from ...errors import LocalError
from ...link import Channel, Child, Gap, Way
from ...tables import Change, ExecutionState, Json, PutExecution, PutMeta, Request
from ...wire import Message
from .comms import COMM_TYPES, Comms
from .executions import NAMELESS, Executions, Run, read_error
from .kernels import KernelLife
from .outputs import OUTPUT_TYPES, Displays, read_display_id, read_output, read_stream, to_display
from .values import Limits, clean_text, get_text

__all__ = ["GAPS_KEPT", "NAMELESS", "UNRECORDED", "Limits", "Mirror"]

GAPS_KEPT = 20
"""Gaps that ``meta.gap`` names; the oldest go."""

UNRECORDED = "rtc_unrecorded"
"""Key of ``transient`` that marks a display as not to be recorded: a link that was just made carries a token, and
whoever follows the document must not find it there."""

STATE_VERSION = 1
"""Shape of :meth:`Mirror.state`."""


class Mirror:
    """The rows of one kernel, as they follow from what passed the relay.

    Args:
        kernel: the kernel's id, key of its row.
        notebook: path of the notebook that the kernel was started for; null where there is none.
        generation: how often the kernel had been restarted before.
        next_seq: ``seq`` of the next execution.
    """

    def __init__(self, kernel: str, *, notebook: str | None, generation: int, next_seq: int, limits: Limits) -> None:
        self._limits = limits
        self._life = KernelLife(kernel, generation)
        self._executions = Executions(kernel, notebook, next_seq)
        self._displays = Displays()
        self._comms = Comms(kernel, limits)
        self._gaps: list[Json] = []

    def __repr__(self) -> str:
        return f"<Mirror {self._life} {self._executions} {self._displays} {self._comms}>"

    @property
    def generation(self) -> int:
        """How often the kernel has been restarted."""
        return self._life.generation

    @property
    def next_seq(self) -> int:
        """``seq`` of the next execution."""
        return self._executions.next_seq

    # --- in

    def receive_message(self, channel: Channel, way: Way, message: Message, at: float) -> list[Change]:
        """One message that passed.

        Args:
            message: its four objects may hold anything; what is not as the spec says is taken as absent.
            at: when it passed, POSIX seconds.

        Returns:
            Changes, in order; the end state of a row is the last change of its columns.
        """
        match channel:
            case Channel.IOPUB:
                return self._receive_iopub(message, at)
            case Channel.SHELL:
                return self._receive_shell(way, message, at)
            case Channel.STDIN:
                if way is Way.TO_FRONT and message.type == "input_request":
                    return self._executions.receive_question(message, at)
                if way is Way.TO_CHILD and message.type == "input_reply":
                    return self._executions.receive_answer()
                return []
            case Channel.CONTROL:
                return []
            case _:
                assert_never(channel)

    def receive_child(self, child: Child) -> list[Change]:
        """A turn in the life of the kernel's process (:class:`~rtc_kernel.link.Child`)."""
        changes, ended = self._life.receive_child(child)
        if not ended:
            return changes
        killed = child.exit_code is None or child.exit_code < 0
        seen = child.event in ("exited", "restarting")
        return [*self._end_life(child.at, seen=seen, killed=killed), *changes]

    def receive_gap(self, gap: Gap) -> list[Change]:
        """Messages that passed and cannot be mirrored: named in ``meta.gap`` and in each open row."""
        named = {
            "since": gap.since,
            "until": gap.until,
            "message_count": gap.message_count,
            "size_bytes": gap.size_bytes,
        }
        self._gaps = [*self._gaps, named][-GAPS_KEPT:]
        return [PutMeta({"gap": list(self._gaps)}), *self._executions.receive_gap(gap.since, gap.until)]

    def record(self, msg_id: str, request: Request, state: ExecutionState, at: float) -> list[Change]:
        """An execution that never went to the kernel: taken back, aborted behind another, or lost."""
        return self._executions.record(msg_id, request, state, at, self._life.generation)

    def receive_name(self, session: str, name: str) -> list[Change]:
        """The user of a session (``header.session``) says what to be called; an empty name takes it back."""
        return self._executions.receive_name(clean_text(session), clean_text(name))

    def name_of(self, session: str) -> str:
        """What the user of a session is called; empty where nobody said."""
        return self._executions.name_of(clean_text(session))

    def receive_answer(self) -> list[Change]:
        """The question that the kernel asked was answered by us."""
        return self._executions.receive_answer()

    def mark_private(self, msg_id: str) -> list[Change]:
        """Keep this execution without code and outputs, whether its request has passed already or will."""
        run, changes = self._executions.receive_mark(clean_text(msg_id))
        if run is not None:
            changes = [*run.outputs.clear(wait=False, displays=self._displays), *changes]
        return changes

    @property
    def waits_for_reply(self) -> bool:
        """Whether :meth:`receive_time` is to be called some time."""
        return self._executions.waits_for_reply

    def receive_time(self, at: float) -> list[Change]:
        """Time has passed: rows whose reply should be there are in doubt."""
        return self._executions.receive_time(at)

    @property
    def doubts(self) -> frozenset[str]:
        """The shells (the main one is empty) with an open row of which messages were lost, its end perhaps among
        them, or whose reply should be there: something that is asked of such a shell settles it."""
        return self._executions.doubts

    def _receive_shell(self, way: Way, message: Message, at: float) -> list[Change]:
        kind = message.type
        if way is Way.TO_FRONT:
            if kind == "execute_reply":
                return self._executions.receive_reply(message, at, self._limits)
            changes = self._life.receive_info(at) if kind == "kernel_info_reply" else []
            return [*changes, *self._executions.receive_sound(message.parent_id, at, is_reply=True)]
        if kind == "execute_request":
            return self._executions.receive_request(message, at, self._life.generation)
        if kind in COMM_TYPES:
            return self._comms.receive(message, at, "front", None)
        self._executions.send_sound(message)
        return []

    def _receive_iopub(self, message: Message, at: float) -> list[Change]:
        kind, parent_id = message.type, clean_text(message.parent_id)
        run = self._executions.get(parent_id)
        # The relay publishes the running request's "busy" again, whatever that waits for.
        if run is None or run.asked is None or message.content.get("execution_state") == "busy":
            return self._receive_published(kind, message, parent_id, run, at)
        columns = self._executions.stop_asking(run, get_text(message.header, "date"))
        answered: list[Change] = [PutExecution(run.id, columns)] if columns else []
        return [*answered, *self._receive_published(kind, message, parent_id, run, at)]

    def _receive_published(
        self, kind: str, message: Message, parent_id: str, run: Run | None, at: float
    ) -> list[Change]:
        if kind in OUTPUT_TYPES or kind == "clear_output":
            return self._receive_output(kind, message, parent_id, run, at)
        if kind == "status":
            changes, replaced = self._life.receive_status(message, at)
            if message.content.get("execution_state") == "idle":
                sound = self._executions.receive_sound(parent_id, at, is_reply=False)
                changes = [*self._executions.receive_idle(parent_id, at), *sound, *changes]
            return [*self._end_life(at, seen=False, killed=True), *changes] if replaced else changes
        if kind == "execute_input":
            return self._executions.receive_input(message, at, self._life.generation)
        private = run is not None and run.private
        if kind == "update_display_data" and not private:
            return self._receive_update(message, at)
        if kind in COMM_TYPES and (kind == "comm_close" or not private):
            return self._comms.receive(message, at, "kernel", run.id if run else None)
        return []

    def _receive_output(self, kind: str, message: Message, parent_id: str, run: Run | None, at: float) -> list[Change]:
        comm = self._comms.capturing(parent_id)
        if run is not None:
            changes = self._executions.begin(run, at)
            self._executions.touch(run)
            if run.private:
                return changes
            if comm is not None:
                return changes + self._capture(comm, kind, message, at)
        elif comm is not None:
            return self._capture(comm, kind, message, at)
        elif self._executions.is_strange(message):
            run, changes = self._executions.adopt(message, at, self._life.generation)
        else:
            return []
        outputs = run.outputs
        if _is_unrecorded(message):
            hidden = {"data": {"text/plain": "(shown where it was asked for, and not recorded)"}, "metadata": {}}
            changes += outputs.add(read_output(kind, hidden, at, self._limits, changes), self._displays)
        elif kind == "stream":
            name, text = read_stream(message.content)
            changes += outputs.write(name, text, at, self._displays)
        elif kind == "clear_output":
            changes += outputs.clear(message.content.get("wait") is True, self._displays)
        else:
            limits = outputs.limits(self._limits, self._displays)
            output = read_output(kind, message.content, at, limits, changes)
            if kind == "error":
                run.failure = read_error(message.content)
            changes += outputs.add(output, self._displays)
        return changes

    def _capture(self, comm: str, kind: str, message: Message, at: float) -> list[Change]:
        if kind == "stream":
            return self._comms.write(comm, *read_stream(message.content))
        if kind == "clear_output":
            return self._comms.clear(comm, message.content.get("wait") is True)
        changes: list[Change] = []
        output = read_output(kind, message.content, at, self._limits, changes)
        return changes + self._comms.add(comm, output.to_nbformat())

    def _receive_update(self, message: Message, at: float) -> list[Change]:
        display_id = read_display_id(message.content)
        if display_id is None or display_id not in self._displays:
            return []
        changes: list[Change] = []
        limits = self._limits.within(self._displays.used_beside(display_id))
        output = read_output("display_data", message.content, at, limits, changes)
        return changes + self._displays.update(display_id, to_display(output))

    def _end_life(self, at: float, *, seen: bool, killed: bool) -> list[Change]:
        return [*self._executions.end_all(at, seen=seen, killed=killed), *self._comms.close_all(at)]

    def open_before(self, msg_id: str) -> bool:
        """Whether an execution whose request came before this one's has not ended yet."""
        return self._executions.has_open_before(clean_text(msg_id))

    # --- state

    def state(self) -> Json:
        """What it takes to go on after a crash, JSON-ready and small: open rows, the last rows that outputs may
        still reach (of a stream its last line only), open comms. Display ids are not in it, the store has them."""
        return {
            "version": STATE_VERSION,
            "life": self._life.state_json(),
            "executions": self._executions.state(),
            "comms": self._comms.state(),
            "gaps": list(self._gaps),
        }

    @classmethod
    def restore(cls, state: Json, *, limits: Limits, displays: Iterable[tuple[str, str, int]]) -> Mirror:
        """The mirror as it was when ``state`` was taken: the messages that follow give the same rows.

        Args:
            displays: ``(display_id, execution, position)`` of every output in the store that has a display id,
                oldest first.

        Raises:
            LocalError: the state has another version's shape: begin a new mirror, and end the open rows as lost.
        """
        if state.get("version") != STATE_VERSION:
            raise LocalError(f"a mirror's state of version {state.get('version')!r}, not {STATE_VERSION}")
        life = KernelLife.restore(state["life"])
        mirror = cls(life.kernel, notebook=None, generation=life.generation, next_seq=1, limits=limits)
        mirror._life = life
        mirror._executions = Executions.restore(state["executions"])
        mirror._comms = Comms.restore(state["comms"], limits)
        mirror._gaps = list(state["gaps"])
        for display_id, execution, position in displays:
            mirror._displays.add(display_id, execution, position)
        return mirror


def _is_unrecorded(message: Message) -> bool:
    transient = message.content.get("transient")
    return isinstance(transient, dict) and transient.get(UNRECORDED) is True
