"""Which executions are there, and in which state is each?

Pure. State: a :class:`Run` per open execution and per ended one that outputs may still reach. It must not look
into outputs: who calls hands them to ``run.outputs``.

Theory. An end needs two signs, the ``execute_reply`` on shell and ``idle`` on iopub, and either may come first
(messaging spec, "Request-Reply" and "Kernel status"). Each of the two channels keeps the kernel's order, and a shell
(the main one, or one subshell) works through its requests one by one. So a sign that is missing is known to be lost,
and the row to be ``lost``, once the same channel has shown the same sign of a later request: that is all
:meth:`Executions.begin` and :meth:`Executions.receive_reply` need to end rows whose signs fell into a gap; where no
execution follows, a request of any other kind does (:meth:`Executions.receive_sound`). Time alone ends nothing: what
seems late (:data:`REPLY_S`) is a reason to ask.
A request that did not pass us (a client that is connected to the kernel itself, or an attached kernel) has no
reply here either: its row begins with ``execute_input`` and ends with ``idle``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote

from ...tables import END_STATES, Change, ExecutionState, Json, PutExecution, PutKernel, Request, advance
from ...wire import Message
from .outputs import Outputs
from .values import Limits, bound, clean_text, cut, get_count, get_text

REPLY_S = 2.0
"""How long after idle a reply may be on its way before the kernel is asked whether there is one. Seconds."""

ENDED_KEPT = 50
"""Ended executions that late outputs still reach: those that ended, or had an output, last."""

CLIENTS_KEPT = 64
"""Sessions of clients that are known to have sent requests; the oldest are forgotten."""

NAMES_KEPT = 64
"""Sessions whose users have said their names; those that said or ran nothing for longest are forgotten."""

NAMELESS = frozenset(["", "username"])
"""``header.username`` of clients that were told no name: JupyterLab's, and jupyter_client's where there is no user."""

MARKS_KEPT = 100
"""Silent requests without idle, private ones without request, and nameless ones, that are remembered."""

COLUMN_BYTES = 4096
"""How much of a prompt, or of an error's name and value, stands in the row; the error output has more."""

_CELL_URI = "vscode-notebook-cell:"
_PRIVATE = re.compile(r"\s*%rtc[ \t]+private[ \t\r]*(?:\n|\Z)")
_Value = TypeVar("_Value")
_QUEUED, _RUNNING = ExecutionState.QUEUED, ExecutionState.RUNNING


def is_private(code: str) -> bool:
    """Whether the first line that is not blank is ``%rtc private``."""
    return _PRIVATE.match(code) is not None


def notebook_of(cell: str) -> str | None:
    """The path in a VS Code cell's URI (``vscode-notebook-cell:/path/nb.ipynb#W0…``, with or without an
    authority); null for any other cell id."""
    if not cell.startswith(_CELL_URI):
        return None
    path = cell.removeprefix(_CELL_URI).partition("#")[0].partition("?")[0]
    if path.startswith("//"):
        path = "/" + path[2:].partition("/")[2]
    return clean_text(unquote(path)) or None


def read_error(content: Json) -> Json:
    """The column ``error``, from a reply or an ``error`` output."""
    return {name: cut(get_text(content, name), COLUMN_BYTES) for name in ("ename", "evalue")}


@dataclass(slots=True)
class Run:
    """What has been seen of one execution.

    Attributes:
        shell: its subshell, empty for the main shell.
        seen: its request passed us, so there will be a reply.
        of_row: it was sent for a row of ``requests``.
        reply: the reply's ``status``, empty before it came; ``reply_error`` is what it says of the error.
        failure: what an ``error`` output said, for rows without a reply.
        idle, idle_at: the kernel is through with it, and since when.
        gap: messages were lost while it was open.
        overdue: it is idle, and its reply has not come for :data:`REPLY_S`. Not kept: that shows again.
        asked: the date of the ``input_request`` that waits for an answer (empty: undated), else null.
    """

    id: str
    outputs: Outputs
    seq: int
    shell: str = ""
    seen: bool = True
    of_row: bool = False
    private: bool = False
    state: ExecutionState = _QUEUED
    execution_count: int | None = None
    reply: str = ""
    reply_error: Json | None = None
    failure: Json | None = None
    idle: bool = False
    idle_at: float = 0.0
    gap: bool = False
    overdue: bool = False
    asked: str | None = None

    def state_json(self) -> Json:
        """JSON-ready, without what is at its default; the inverse is :func:`restore_run`."""
        out: Json = {"id": self.id, "seq": self.seq, "state": self.state.value, "outputs": self.outputs.state()}
        for name in _PLAIN:
            value = getattr(self, name)
            if value != Run.__dataclass_fields__[name].default:
                out[name] = value
        return out


_PLAIN = (
    "shell",
    "seen",
    "of_row",
    "private",
    "execution_count",
    "reply",
    "reply_error",
    "failure",
    "idle",
    "idle_at",
    "gap",
    "asked",
)


def restore_run(state: Json) -> Run:
    """The run as it was when ``state`` was taken."""
    plain = {name: state[name] for name in _PLAIN if name in state}
    outputs = Outputs.restore(state["id"], state["outputs"])
    return Run(state["id"], outputs, state["seq"], state=ExecutionState(state["state"]), **plain)


class Executions:
    """The runs of one kernel, open and lately ended."""

    def __init__(self, kernel: str, notebook: str | None, next_seq: int) -> None:
        self.kernel = kernel
        self._given = notebook
        self._told: str | None = None  # by a cell, where nobody has given one
        self.next_seq = next_seq
        self._open: dict[str, Run] = {}
        self._ended: dict[str, Run] = {}
        self._clients: dict[str, None] = {}
        self._silent: dict[str, None] = {}
        self._marked: dict[str, None] = {}
        self._names: dict[str, str] = {}  # what the user of a session is called
        self._nameless: dict[str, str] = {}  # the sessions of requests that nobody's name is at yet
        self._sounds: dict[str, tuple[str, int]] = {}  # requests of another kind behind a gap: shell, the next seq

    def __repr__(self) -> str:
        return f"<Executions {len(self._open)} open, {len(self._ended)} ended, next seq {self.next_seq}>"

    @property
    def notebook(self) -> str | None:
        """The path of the notebook that the kernel was started for, or else that its cells say they are of."""
        return self._given or self._told

    def has_open_before(self, msg_id: str) -> bool:
        """Whether a run with a smaller ``seq`` than this one is open; of a run that is not open: whether any is."""
        run = self._open.get(msg_id)
        return any(run is None or other.seq < run.seq for other in self._open.values())

    def get(self, msg_id: str) -> Run | None:
        """The run of this request, open or lately ended."""
        return self._open.get(msg_id) or self._ended.get(msg_id)

    def touch(self, run: Run) -> None:
        """An output came for it: if it has ended, it is the last to be forgotten."""
        if run.id in self._ended:
            self._ended[run.id] = self._ended.pop(run.id)

    # --- in

    def receive_request(self, message: Message, at: float, generation: int) -> list[Change]:
        """An ``execute_request`` on its way to the kernel."""
        msg_id = clean_text(message.id)
        _remember(self._clients, message.session, CLIENTS_KEPT, None)
        if not msg_id:
            return []
        if message.content.get("silent") is True:
            _remember(self._silent, msg_id, MARKS_KEPT, None)
            return []
        run = self.get(msg_id)
        if run is not None and run.seen:
            return []
        learned = self._learn_notebook(message)
        code = get_text(message.content, "code")
        if run is None:
            run = self._add(msg_id, get_text(message.header, "subshell_id"), code)
            columns = self._identify(run, generation) | {"state": run.state, "queued_at": at}
        else:
            run.private = run.private or is_private(code)
            columns = {"queued_at": at} | _given(private=run.private)
        run.seen = True
        cell, request = (get_text(message.metadata, name) for name in ("cellId", "rtc_request"))
        run.of_row = request != ""
        columns |= _given(
            cell=cell,
            notebook=get_text(message.metadata, "rtc_notebook") or notebook_of(cell) or self.notebook,
            request=request,
            code="" if run.private else code,
            submitted_by=get_text(message.header, "username") if run.of_row else self._name(msg_id, message.header),
            client=get_text(message.header, "session"),
        )
        return [*learned, PutExecution(msg_id, columns)]

    def _learn_notebook(self, message: Message) -> list[Change]:
        """VS Code does not say at the start of a kernel which notebook it is for; the cells do, under another name
        once it was saved under one."""
        path = notebook_of(get_text(message.metadata, "cellId"))
        if self._given is not None or path is None or path == self._told or message.metadata.get("rtc_request"):
            return []
        self._told = path
        return [PutKernel(self.kernel, {"notebook": path})]

    def record(self, msg_id: str, request: Request, state: ExecutionState, at: float, generation: int) -> list[Change]:
        """A row for a request that never went to the kernel: it ends where it begins."""
        code = get_text(request.columns, "code")
        private = is_private(code)
        columns: Json = {"seq": self.next_seq, "kernel": self.kernel, "state": state}
        columns |= {"queued_at": request.received_at, "finished_at": at}
        self.next_seq += 1
        return [
            PutExecution(
                msg_id,
                columns
                | _given(
                    generation=generation,
                    private=private,
                    cell=get_text(request.columns, "cell"),
                    notebook=get_text(request.columns, "notebook") or self.notebook,
                    request=request.id,
                    code="" if private else code,
                    submitted_by=request.by,
                ),
            )
        ]

    def receive_input(self, message: Message, at: float, generation: int) -> list[Change]:
        """An ``execute_input``: the kernel begins, or a client that bypassed us is seen for the first time."""
        msg_id = clean_text(message.parent_id)
        if not msg_id or msg_id in self._silent:
            return []
        run = self._open.get(msg_id)
        count = get_count(message.content, "execution_count")
        if run is None:
            if msg_id in self._ended:
                return []
            run, changes = self.adopt(message, at, generation)
        else:
            changes = self.begin(run, at)
        if count is not None and not run.reply and count != run.execution_count:
            run.execution_count = count
            changes.append(PutExecution(msg_id, {"execution_count": count}))
        return changes

    def adopt(self, message: Message, at: float, generation: int) -> tuple[Run, list[Change]]:
        """A row from an iopub message of an execution whose request was never seen."""
        msg_id = clean_text(message.parent_id)
        _remember(self._clients, get_text(message.parent, "session"), CLIENTS_KEPT, None)
        code = get_text(message.content, "code") if message.type == "execute_input" else ""
        run = self._add(msg_id, get_text(message.parent, "subshell_id"), code)
        run.seen, run.state = False, _RUNNING
        changes = self._end_overtaken(run, at) if message.type == "execute_input" else []
        columns = self._identify(run, generation) | {"state": run.state, "started_at": at}
        columns |= _given(
            notebook=self.notebook,
            code="" if run.private else code,
            submitted_by=self._name(msg_id, message.parent),
            client=get_text(message.parent, "session"),
        )
        return run, [*changes, PutExecution(msg_id, columns)]

    def receive_name(self, session: str, name: str) -> list[Change]:
        """What the user of a session is called, from now on and at what lately ran without a name; empty: nothing."""
        self._names.pop(session, None)
        if not name:
            return []
        _remember(self._names, session, NAMES_KEPT, name)
        asked = [msg_id for msg_id, client in self._nameless.items() if client == session]
        for msg_id in asked:
            del self._nameless[msg_id]
        return [PutExecution(msg_id, {"submitted_by": name}) for msg_id in asked]

    def name_of(self, session: str) -> str:
        """What the user of a session is called; empty where nobody said."""
        return self._names.get(session, "")

    def _name(self, msg_id: str, header: Json) -> str:
        """Who ran it, as far as its client says. Not asked of a row: that has the name of its link."""
        name, session = get_text(header, "username"), get_text(header, "session")
        if name not in NAMELESS or not session:
            return name
        if session in self._names:
            _remember(self._names, session, NAMES_KEPT, self._names[session])
            return self._names[session]
        _remember(self._nameless, msg_id, MARKS_KEPT, session)
        return name

    def is_strange(self, message: Message) -> bool:
        """Whether an output's unknown parent is an execution of a client that never was heard of. (Outputs of a
        known client are of a run that is forgotten: its row stands, and must not be begun anew.)"""
        return (
            message.parent_type == "execute_request"
            and message.parent_id != ""
            and clean_text(message.parent_id) not in self._silent
            and get_text(message.parent, "session") not in self._clients
        )

    def receive_reply(self, message: Message, at: float, limits: Limits) -> list[Change]:
        """An ``execute_reply`` on its way to the front."""
        run = self._open.get(clean_text(message.parent_id))
        if run is None or run.reply:
            return []
        content = message.content
        run.seen = True
        run.reply = get_text(content, "status") or "unknown"
        if run.reply == "error":
            run.reply_error = read_error(content)
        changes: list[Change] = []
        columns = self.stop_asking(run)
        count = get_count(content, "execution_count")
        if count is not None and count != run.execution_count:
            run.execution_count = columns["execution_count"] = count
        expressions = content.get("user_expressions")
        if isinstance(expressions, dict) and expressions and not run.private:
            columns["metadata"] = {"user_expressions": bound(expressions, limits)}
        if columns:
            changes.append(PutExecution(run.id, columns))
        for other in list(self._open.values()):
            passed_over = other.shell == run.shell and other.seq < run.seq and other.seen and not other.reply
            if passed_over and (other.idle or other.gap):
                changes += self._end(other, ExecutionState.LOST, at)
        return changes + self._end_if_done(run, at)

    def receive_idle(self, parent_id: str, at: float) -> list[Change]:
        """``status: idle``: every output of this request that the kernel waits for has been published."""
        self._silent.pop(parent_id, None)
        run = self._open.get(parent_id)
        if run is None:
            return []
        run.idle, run.idle_at = True, at
        run.outputs.clear_waits = False
        return self._end_if_done(run, at)

    @property
    def waits_for_reply(self) -> bool:
        """Whether a run is idle and its reply has not come yet."""
        return any(run.idle for run in self._open.values())

    def receive_time(self, at: float) -> list[Change]:
        """Doubt what went idle and got no reply within :data:`REPLY_S`. A kernel whose handler was interrupted before
        the code began (or that found a request malformed) sends none; a machine that stood still sends it yet. So it
        ends only where the same shell has begun another, else when that has answered something later."""
        changes: list[Change] = []
        for run in [run for run in self._open.values() if run.idle and at - run.idle_at >= REPLY_S]:
            run.overdue = True
            if any(
                other.shell == run.shell and other.seq > run.seq and other.state is not _QUEUED
                for other in self._open.values()
            ):
                changes += self._end_unanswered(run, at)
        return changes

    @property
    def doubts(self) -> frozenset[str]:
        """The shells with an open run of which messages were lost, or whose reply should be there."""
        return frozenset(run.shell for run in self._open.values() if run.gap or run.overdue)

    def send_sound(self, message: Message) -> None:
        """A request of another kind, on its way to the kernel."""
        shell = get_text(message.header, "subshell_id")
        if shell in self.doubts:
            self._sounds[clean_text(message.id)] = shell, self.next_seq
            if len(self._sounds) > MARKS_KEPT:
                del self._sounds[next(iter(self._sounds))]

    def receive_sound(self, parent_id: str, at: float, *, is_reply: bool) -> list[Change]:
        """Its reply, or its idle: what came before it and has not shown the same sign never will."""
        if parent_id not in self._sounds:
            return []
        shell, seq = self._sounds[parent_id]
        changes: list[Change] = []
        for run in list(self._open.values()):
            lacks = not run.reply if is_reply else not run.idle
            if not ((run.gap or run.overdue) and run.seq < seq and run.shell == shell and lacks):
                continue
            if run.idle:
                changes += self._end_unanswered(run, at)
            else:
                aborted = run.reply in ("aborted", "abort") and run.state is _QUEUED
                changes += self._end(run, ExecutionState.ABORTED if aborted else ExecutionState.LOST, at)
        return changes

    def begin(self, run: Run, at: float) -> list[Change]:
        """The kernel runs it: ``execute_input`` came, or an output from a kernel that sends none."""
        if run.state is not _QUEUED:
            return []
        changes = self._end_overtaken(run, at)
        run.state = advance(run.state, _RUNNING)
        return [*changes, PutExecution(run.id, {"state": run.state, "started_at": at})]

    def receive_question(self, message: Message, at: float) -> list[Change]:
        """An ``input_request`` on its way to the front."""
        run = self._open.get(clean_text(message.parent_id))
        if run is None or run.private:
            return []
        run.asked = get_text(message.header, "date")
        question = {
            "prompt": cut(get_text(message.content, "prompt"), COLUMN_BYTES),
            "password": message.content.get("password") is True,
            "since": at,
        }
        return [PutExecution(run.id, {"input": question})]

    def receive_answer(self) -> list[Change]:
        """An ``input_reply`` on its way to the kernel. It names no execution (a kernel asks one question at a
        time), and what was typed is not looked at."""
        return [PutExecution(run.id, columns) for run in self._open.values() if (columns := self.stop_asking(run))]

    def stop_asking(self, run: Run, date: str | None = None) -> Json:
        """Columns that take the question back; none where nobody is asked, or where ``date`` (of a message on
        iopub, ISO 8601) is before the question's: that one was on its way when the question came."""
        if run.asked is None or (date and run.asked and date < run.asked):
            return {}
        run.asked = None
        return {"input": None}

    def receive_gap(self, since: float, until: float) -> list[Change]:
        """Messages were lost: every open row says so."""
        changes: list[Change] = []
        for run in self._open.values():
            run.gap = True
            changes.append(PutExecution(run.id, {"metadata": {"rtc_gap": {"since": since, "until": until}}}))
        return changes

    def receive_mark(self, msg_id: str) -> tuple[Run | None, list[Change]]:
        """This execution is private, whatever its code says."""
        run = self.get(msg_id)
        if run is None:
            _remember(self._marked, msg_id, MARKS_KEPT, None)
            return None, []
        if run.private:
            return run, []
        run.private, run.failure, run.asked = True, None, None
        return run, [PutExecution(msg_id, {"private": True, "code": "", "error": None, "input": None})]

    def end_all(self, at: float, *, seen: bool, killed: bool) -> list[Change]:
        """The kernel's life is over.

        Args:
            seen: we saw all of it, so what had not begun never did.
            killed: but for the last moments, which a process that is killed takes with it. So of the next in line
                nobody knows, nor of what was sent for rows: those are quick, or would not have been sent yet.
        """
        changes: list[Change] = []
        lines: set[str] = set()  # the shells whose next in line was met
        for run in list(self._open.values()):
            begun = run.state is _RUNNING or run.reply not in ("", "aborted", "abort") or run.gap
            unknown = killed and (run.of_row or run.shell not in lines)
            if not begun:
                lines.add(run.shell)
            state = ExecutionState.LOST if begun or unknown or not seen else ExecutionState.ABORTED
            changes += self._end(run, state, at)
        self._silent.clear()
        return changes

    # --- act

    def _add(self, msg_id: str, shell: str, code: str) -> Run:
        private = msg_id in self._marked or is_private(code)
        self._marked.pop(msg_id, None)
        run = Run(msg_id, Outputs(msg_id), self.next_seq, shell=shell, private=private)
        self.next_seq += 1
        self._open[msg_id] = run
        return run

    def _identify(self, run: Run, generation: int) -> Json:
        return {"seq": run.seq, "kernel": self.kernel} | _given(generation=generation, private=run.private)

    def _end_overtaken(self, run: Run, at: float) -> list[Change]:
        """End the rows of the same shell that must have been through before ``run`` could begin, whose idle did
        not come, and which cannot end otherwise."""
        changes: list[Change] = []
        for other in list(self._open.values()):
            if other is run or other.idle or other.shell != run.shell:
                continue
            before = other.state is _RUNNING or (other.seen and run.seen and other.seq < run.seq)
            if before and (other.reply or other.gap or not other.seen):
                aborted = other.reply in ("aborted", "abort")
                changes += self._end(other, ExecutionState.ABORTED if aborted else ExecutionState.LOST, at)
        return changes

    def _end_if_done(self, run: Run, at: float) -> list[Change]:
        if not run.idle or (run.seen and not run.reply):
            return []
        error: Json | None = None
        match run.reply:
            case "aborted" if run.state is _RUNNING:
                state = ExecutionState.LOST  # said in the place of a kernel that went while it ran
            case "aborted" | "abort":
                state = ExecutionState.ABORTED
            case "ok":
                state = ExecutionState.OK
            case "error":
                state, error = ExecutionState.ERROR, run.reply_error
            case _:
                error = run.failure
                state = ExecutionState.OK if error is None else ExecutionState.ERROR
        return self._end(run, state, at, None if run.private else error)

    def _end_unanswered(self, run: Run, at: float) -> list[Change]:
        """It is idle and will get no reply: what is known of it are its outputs."""
        state = ExecutionState.LOST if run.failure is None else ExecutionState.ERROR
        return self._end(run, state, at, None if run.private else run.failure)

    def _end(self, run: Run, state: ExecutionState, at: float, error: Json | None = None) -> list[Change]:
        run.state = advance(run.state, state)
        columns = self.stop_asking(run) | {"finished_at": at}
        if error is not None:
            columns["error"] = error
        self._ended[run.id] = self._open.pop(run.id)
        for msg_id in list(self._ended)[:-ENDED_KEPT]:
            del self._ended[msg_id]
        return [PutExecution(run.id, columns | {"state": run.state})]

    # --- state

    def state(self) -> Json:
        """JSON-ready; the inverse is :meth:`restore`."""
        return {
            "kernel": self.kernel,
            "notebook": self._given,
            "told": self._told,
            "next_seq": self.next_seq,
            "runs": [run.state_json() for run in (*self._open.values(), *self._ended.values())],
            "clients": list(self._clients),
            "silent": list(self._silent),
            "marked": list(self._marked),
            "names": dict(self._names),
        }

    @classmethod
    def restore(cls, state: Json) -> Executions:
        """The executions as they were when ``state`` was taken."""
        executions = cls(state["kernel"], state["notebook"], state["next_seq"])
        for run in map(restore_run, state["runs"]):
            (executions._ended if run.state in END_STATES else executions._open)[run.id] = run
        executions._clients = dict.fromkeys(state["clients"])
        executions._silent = dict.fromkeys(state["silent"])
        executions._marked = dict.fromkeys(state["marked"])
        executions._told = state.get("told")
        executions._names = dict(state.get("names", {}))  # an agent before it had none
        return executions


def _given(**columns: str | int | bool | None) -> Json:
    """The columns that are not at their default."""
    return {name: value for name, value in columns.items() if value}


def _remember(table: dict[str, _Value], key: str, kept: int, value: _Value) -> None:
    """Put a key last; the first goes where there are too many."""
    key = clean_text(key)
    table.pop(key, None)
    table[key] = value
    if len(table) > kept:
        del table[next(iter(table))]
