"""In which state is the kernel, and which of its lives is this?

Pure. State: the kernel's state, its generation, the pid of its process. It must not look at executions: who
calls learns from :meth:`KernelLife.receive_child` that a life ended.

Source: messaging spec, "Kernel status". Only what runs code makes a kernel *busy* here: execute requests and comm
messages of the main shell. A subshell may be idle while the main shell is not.
"""

from __future__ import annotations

from ...link import Child
from ...tables import KERNEL_TRANSITIONS, Change, Json, KernelState, PutKernel, advance
from ...wire import Message

_WORKING = frozenset({"execute_request", "comm_open", "comm_msg", "comm_close"})
_GONE = (KernelState.DEAD, KernelState.RESTARTING)


class KernelLife:
    """The row of one kernel, as far as messages and its process say.

    ``ended``: no process of this generation lives. ``renewed``: ``restarting`` was said, so the generation that is
    named is already the next one's.
    """

    def __init__(self, kernel: str, generation: int) -> None:
        self.kernel = kernel
        self.generation = generation
        self.state = KernelState.STARTING
        self._pid: int | None = None
        self._ended = False
        self._renewed = False

    def __repr__(self) -> str:
        return f"<KernelLife {self.kernel} {self.state.value}, generation {self.generation}>"

    def receive_status(self, message: Message, at: float) -> tuple[list[Change], bool]:
        """An iopub ``status``.

        Returns:
            The changes, and whether it says that a process we did not see end has been replaced: ``starting`` from
            a kernel that had started, where nobody tells us of its process (an attached one).
        """
        word = message.content.get("execution_state")
        working = message.parent_type in _WORKING and not message.parent.get("subshell_id")
        match word:
            case "starting":
                replaced = self._pid is None and self.state in (KernelState.IDLE, KernelState.BUSY)
                if replaced:
                    self.generation += 1
                return self._move(KernelState.STARTING, at, force=replaced), replaced
            case "busy" if working and self.state not in _GONE:
                return self._move(KernelState.BUSY, at), False
            case "idle" if self.state is KernelState.STARTING or (working and self.state not in _GONE):
                return self._move(KernelState.IDLE, at), False
            case _:
                return [], False

    def receive_info(self, at: float) -> list[Change]:
        """A kernel_info_reply on shell: it has started, also where its first idle was said before anybody could hear
        it. (What xeus says when it has been connected to, and before it has seen the subscription, is lost.)"""
        return self._move(KernelState.IDLE, at) if self.state is KernelState.STARTING else []

    def receive_child(self, child: Child) -> tuple[list[Change], bool]:
        """A turn in the process's life.

        Returns:
            The changes, and whether a life ended that had not been seen to end: its open rows end too.
        """
        at = child.at
        match child.event:
            case "started":
                unseen = self._pid is not None and not self._ended
                if (self._ended or unseen) and not self._renewed:
                    self.generation += 1
                self._pid, self._ended, self._renewed = child.pid, False, False
                columns = {"started_at": at, "ended_at": None, "exit_code": None}
                return self._move(KernelState.STARTING, at, columns, force=True), unseen
            case "exited":
                self._ended = True
                columns = {"ended_at": at, "exit_code": child.exit_code}
                return self._move(KernelState.DEAD, at, columns, force=True), True
            case "restarting":
                self._ended = True
                if not self._renewed:
                    self.generation += 1
                    self._renewed = True
                return self._move(KernelState.RESTARTING, at, force=True), True
            case "idle" | "busy":
                return self._find(child)
            case "detached":
                return [], True
            case _:
                return [], False

    def _find(self, child: Child) -> tuple[list[Change], bool]:
        """A kernel that we are attached to was found, idle or busy: one that we know, or another one."""
        number, unseen = child.pid, self._pid not in (None, child.pid) and not self._ended
        changes: list[Change] = []
        if self._pid not in (None, number):
            if not self._renewed:
                self.generation += 1
            columns = {"started_at": child.at, "ended_at": None, "exit_code": None}
            changes = self._move(KernelState.STARTING, child.at, columns, force=True)
        elif self._ended:  # it was only away
            changes = self._move(KernelState.STARTING, child.at, {"ended_at": None}, force=True)
        self._pid, self._ended, self._renewed = number, False, False
        return [*changes, *self._move(KernelState(child.event), child.at, force=True)], unseen

    def _move(self, to: KernelState, at: float, columns: Json | None = None, *, force: bool = False) -> list[Change]:
        """Step to a state. ``force``: write the row even where the state stays."""
        if to is not self.state and to in KERNEL_TRANSITIONS[self.state]:
            self.state = advance(self.state, to)
        elif not force:
            return []
        out = {"state": self.state, "last_activity_at": at, **(columns or {})}
        if force:
            out["generation"] = self.generation
        return [PutKernel(self.kernel, out)]

    def state_json(self) -> Json:
        """JSON-ready; the inverse is :meth:`restore`."""
        return {
            "kernel": self.kernel,
            "generation": self.generation,
            "state": self.state.value,
            "pid": self._pid,
            "ended": self._ended,
            "renewed": self._renewed,
        }

    @classmethod
    def restore(cls, state: Json) -> KernelLife:
        """The kernel as it was when ``state`` was taken."""
        life = cls(state["kernel"], state["generation"])
        life.state = KernelState(state["state"])
        life._pid, life._ended, life._renewed = state["pid"], state["ended"], state["renewed"]
        return life
