"""What becomes of what peers ask for?

Part of the agent's hallway: wires the requests' document, the scheduler, the questions to the kernel, the store and the
link. What is decided stands in ``act``; here it is committed first, then shown, then done. So what a peer sees as
acknowledged is on the disk, and nothing is sent to the kernel of which the store does not know.

::

    peer's update ─► document.receive ─► act.rows ─► act.scheduler ─► store ─► document.put ─► every peer
    mirror's changes ────────────────────────────────►│                 └────► Submit, interrupt, answer …
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Protocol, assert_never

from .. import link
from ..config import RTCKernel
from ..errors import Reason, SetupError
from ..link import Channel, Way
from ..tables import (
    REQUEST_END_STATES,
    Change,
    Execution,
    ExecutionState,
    Json,
    Kernel,
    KernelState,
    PutExecution,
    PutKernel,
    Request,
    RequestState,
)
from ..wire import Codec, Message, new_header
from .act import queries, rows, scheduler
from .keep.store import Store
from .mirror.executions import REPLY_S
from .requests import Received, RequestsDocument
from .serve.access import Role

log = logging.getLogger("rtc_kernel.agent")

LINGER_S = 10.0
"""How long an ended request stays, so that whoever asked can read how it ended. Seconds."""

ENDED_SHOWN = 1000
"""How many ended requests stay at most; the oldest leave first."""

COMPLETIONS = 16
"""How many completions the kernel is asked for at a time."""

COMPLETE_S = 5.0
"""How long it has for each. Seconds."""

_OF_A_RUN = ("seq", "state", "cell", "notebook", "code", "private", "input")

_NOTHING: Mapping[str, link.Submit] = {}

_COMM_KINDS: dict[str, Literal["comm_msg", "comm_close"]] = {"comm_msg": "comm_msg", "comm_close": "comm_close"}


class House(Protocol):
    """What is needed of the agent."""

    @property
    def store(self) -> Store:
        """The history."""

    @property
    def codec(self) -> Codec:
        """Signs with the kernel's key."""

    @property
    def kernel(self) -> Kernel:
        """The kernel's row."""

    def say(self, record: link.Record) -> None:
        """To the relay."""

    def put(self, changes: list[Change]) -> None:
        """Write changes that did not come of a record."""

    def keep(self) -> None:
        """Give the store what was mirrored."""

    def keep_with(self, requests: Sequence[Request], stored: Callable[[], None]) -> None:
        """Store requests that have ended in one write with the ends of their executions; ``stored`` is called on the
        loop when that is done."""

    def record_unsent(self, execution: str, request: Request, state: ExecutionState) -> list[Change]:
        """The row of an execution that never went to the kernel."""

    def stop_asking(self) -> list[Change]:
        """The question that the kernel asked is answered."""

    def open_executions(self) -> Sequence[Execution]:
        """The executions that have not ended."""

    def knows_execution(self, execution: str) -> bool:
        """Whether there is such a row."""

    def push_requests(self, update: bytes) -> None:
        """Send an update of the requests' document to its peers."""

    def begin_requests_epoch(self) -> None:
        """The requests' document is another one."""

    def close_writers(self, name: str, reason: Reason) -> None:
        """Close the connections over which a peer writes requests."""

    def forget_before(self, before: float | None) -> None:
        """Clear the history."""


class Actions:
    """The requests of one kernel's peers, from the row to the deed.

    Args:
        may_restart: whether whoever is at the other end of the link can.

    The state: the document of the epoch, the scheduler, the queries, what waits for a commit, and when ended rows go.
    """

    def __init__(self, house: House, *, kernel: str, settings: RTCKernel, may_restart: bool = True) -> None:
        self.kernel = kernel
        self._may_restart = may_restart
        self.document = RequestsDocument(kernel)
        self.session = uuid.uuid4().hex
        self._house = house
        self._settings = settings
        self._limits = rows.RowLimits(code_bytes=settings.code_bytes)
        self._scheduler = scheduler.Scheduler(
            make_id=lambda: uuid.uuid4().hex, rows_per_peer=settings.requests_per_peer
        )
        self._queries = queries.Queries(queries.QueryLimits())
        self._ordinal = 0
        self._silent: set[str] = set()  # executions that were sent and have no row
        self._doubted: dict[str, str] = {}  # one whose reply should be there, by the question that tells
        self._leaving: deque[tuple[float, str]] = deque()
        self._leave_timer: asyncio.TimerHandle | None = None
        self._query_timer: asyncio.TimerHandle | None = None
        self._catch_up_seq: int | None = None
        self._completions: dict[str, asyncio.Future[Json]] = {}
        self._restarting = False
        self._push_is_due = False

    def __repr__(self) -> str:
        return f"<Actions {self.document!r} {self._scheduler!r}>"

    def load(self, *, same_relay: bool, catch_up_seq: int) -> None:
        """Go on with what an earlier agent left.

        Args:
            catch_up_seq: the relay's record behind which nothing stands that an earlier agent has sent.
        """
        store = self._house.store
        self._ordinal = store.last_ordinal()
        kept = store.requests(open_only=True)
        states = store.execution_states([request.execution for request in kept if request.execution])
        self._catch_up_seq = catch_up_seq
        now = time.time()
        commands = self._scheduler.load(
            kept, states, after_crash=self._settings.requests_after_crash, same_relay=same_relay, now=now
        )
        for row in self._house.open_executions():  # of anybody: to interrupt, to answer, to join
            columns = {name: getattr(row, name) for name in _OF_A_RUN}
            commands += self._scheduler.receive_execution(row.id, columns, now)
        self.document.put(kept)
        self.document.take_update()
        self._do(commands)

    @property
    def waiting(self) -> tuple[Request, ...]:
        """The requests that were not sent yet, in order; those that are held are among them."""
        return (*self._scheduler.waiting, *self._scheduler.held)

    # --- in ----------------------------------------------------------------------------------------------------

    def receive_update(self, update: bytes, *, by: str, role: Role) -> int:
        """A peer's update of the document; how many changes of what is not its own were taken back.

        Raises:
            RemoteError: close that peer.
        """
        try:
            received = self.document.receive(update, by)
        finally:
            if self.document.worn:
                self._begin_epoch()
        self._read(received, by, role)
        self._push_soon()  # also what was put back
        return received.undone_count

    def write(self, row: Json, *, by: str, role: Role) -> str:
        """A row of the agent's own user (a ``%rtc`` line), as if a peer had written it. Returns its id."""
        request_id = uuid.uuid4().hex
        self._do(self._receive_row(request_id, row, by, role))
        return request_id

    def receive_changes(self, changes: Iterable[Change]) -> None:
        """What the mirror has seen, in order."""
        changes, now = list(changes), time.time()
        for change in changes:
            if isinstance(change, PutKernel) and "state" in change.columns:
                self._follow_kernel(KernelState(change.columns["state"]), now)
        self._do(self._scheduler.receive_changes(changes, now))

    def _follow_kernel(self, state: KernelState, now: float) -> None:
        if state in (KernelState.RESTARTING, KernelState.DEAD):
            self._doubted.clear()
            self._ask(self._queries.receive_restart(now))
        if state is KernelState.STARTING and self._restarting:
            # A kernel says that it is idle only after a request, and no frontend may be there to send one.
            self._send(Channel.SHELL, "kernel_info_request", {}, "rtc")
        self._restarting = state is KernelState.RESTARTING

    def sound(self, shell: str) -> str:
        """Ask a shell (the main one is empty) something small: its answer says that it is through with all that came
        before. Returns the id of the question."""
        header = new_header("kernel_info_request", session=self.session, username="rtc")
        if shell:
            header["subshell_id"] = shell
        frames = self._house.codec.write(header, {}, idents=[link.AGENT_IDENT])
        self._house.say(link.Submit(Channel.SHELL, tuple(frames)))
        return str(header["msg_id"])

    async def complete(self, code: str, cursor_pos: int) -> Json:
        """The ``content`` of the kernel's ``complete_reply``; without matches while code runs, because a kernel answers
        in order, and where too many ask at a time."""
        here: Json = {"cursor_start": cursor_pos, "cursor_end": cursor_pos}
        none: Json = {"status": "ok", "matches": [], **here, "metadata": {}}
        if self._house.kernel.state is not KernelState.IDLE or len(self._completions) >= COMPLETIONS:
            return none
        key, reply = uuid.uuid4().hex, asyncio.get_running_loop().create_future()
        self._completions[key] = reply
        content: Json = {"code": code, "cursor_pos": cursor_pos}
        self._house.say(self._message(Channel.SHELL, "complete_request", content, "rtc", msg_id=key))
        try:
            async with asyncio.timeout(COMPLETE_S):
                found: Json = await reply
        except TimeoutError:
            return none
        finally:
            del self._completions[key]
        return found

    def receive_seq(self, seq: int) -> None:
        """Every record of the relay up to this one has been mirrored."""
        if self._catch_up_seq is not None and seq >= self._catch_up_seq:
            self._catch_up_seq = None
            self._do(self._scheduler.receive_caught_up(time.time()))

    def receive_message(self, channel: Channel, way: Way, message: Message) -> None:
        """What the mirror has no row for: replies to silent runs, and answers to our questions."""
        if way is not Way.TO_FRONT:
            return
        if channel is Channel.SHELL and message.type == "complete_reply":
            reply = self._completions.get(message.parent_id)
            if reply is not None and not reply.done():
                reply.set_result(message.content)
        elif channel is Channel.SHELL and message.type == "execute_reply" and message.parent_id in self._silent:
            self._silent.discard(message.parent_id)
            status = str(message.content.get("status"))
            self._do(self._scheduler.receive_reply(message.parent_id, status, time.time()))
        elif channel is Channel.IOPUB and message.type == "status" and message.parent_id in self._silent:
            if message.content.get("execution_state") == "idle":
                asyncio.get_running_loop().call_later(REPLY_S, self._doubt, message.parent_id)
        elif channel is Channel.SHELL and message.parent_id in self._doubted:
            self._give_up(self._doubted.pop(message.parent_id))
        elif channel is Channel.IOPUB and (kind := _COMM_KINDS.get(message.type)):
            comm = message.content.get("comm_id")
            if isinstance(comm, str) and comm.startswith(link.QUERY_COMM_PREFIX):
                self._ask(self._queries.receive_comm(comm, kind, message.content.get("data"), time.time()))

    def _doubt(self, execution: str) -> None:
        """A silent run whose reply should be there by now: the kernel is asked whether it is through with it."""
        if execution in self._silent:
            self._doubted[self.sound("")] = execution

    def _give_up(self, execution: str) -> None:
        """A silent run that gets no reply: it was interrupted before its code began."""
        if execution in self._silent:
            self._silent.discard(execution)
            lost = PutExecution(execution, {"state": ExecutionState.LOST})
            self._do(self._scheduler.receive_changes([lost], time.time()))

    def receive_revoked(self, name: str) -> None:
        """A link was withdrawn: what its peers asked for and was not sent is taken back."""
        self._do(self._scheduler.receive_revoked(name, time.time()))

    def _read(self, received: Received, by: str, role: Role) -> None:
        """What a peer wrote at once is kept at once: after a crash all of it is there or nothing, and none of it can
        run before what stood above it. What stops the kernel does not wait for the disk with the others."""
        commands: list[scheduler.Command] = []
        for row in received.rows:
            added = self._receive_row(row.id, row.value, by, role)
            if _stops_kernel(added):
                self._do(commands)
                self._do(added)
                commands = []
            else:
                commands += added
        self._do(commands)

    def _receive_row(self, request_id: str, value: Any, by: str, role: Role) -> list[scheduler.Command]:
        now = time.time()
        reading = rows.read_row(
            request_id, value, by=by, role=role, ordinal=self._ordinal + 1, now=now, limits=self._limits
        )
        request = reading.request
        try:
            known = self._known(request_id)
            after = self._after(request)
            refusal = self._refusal(request)
        except SetupError as exc:  # without the store nobody knows what has run already
            known, after, refusal = None, None, f"state: {exc}"
        if refusal is not None:
            request = replace(request, state=RequestState.REFUSED, reason=refusal)
        if known is None:
            self._ordinal += 1
        return self._scheduler.receive_row(
            request, role=role.value, secret=reading.secret, now=now, known=known, after=after
        )

    def _known(self, request_id: str) -> Request | None:
        return self._scheduler.known(request_id) or self._house.store.request(request_id)

    def _after(self, request: Request) -> tuple[Request, ExecutionState | None] | None:
        """The request that this one is to run after, where only the store remembers it."""
        key = request.columns.get("after")
        if key is None or self._scheduler.known(key) is not None:
            return None
        earlier = self._house.store.request(key)
        if earlier is None:
            return None
        states = self._house.store.execution_states([earlier.execution] if earlier.execution else [])
        return earlier, states.get(earlier.execution or "")

    def _refusal(self, request: Request) -> str | None:
        """What is wrong with a row that only the history can tell, or who started the kernel."""
        if request.action == "restart" and not self._may_restart:
            return "action: this kernel was started by somebody else, restart it there"
        if request.action != "annotate" or request.state is RequestState.REFUSED:
            return None
        known = self._house.knows_execution(str(request.columns["execution"]))
        return None if known else "execution: there is none of this id"

    # --- act ---------------------------------------------------------------------------------------------------

    def _do(self, commands: Sequence[scheduler.Command]) -> None:
        """Commit what is to be kept; then show it, and do the rest, in order."""
        unsent = {command.execution for command in commands if isinstance(command, scheduler.Record)}
        ends: list[Request] = []
        rest: list[scheduler.Command] = []
        kept: list[Request] = []
        for command in commands:
            match command:
                case scheduler.Record(execution, request, state):
                    self._house.put(self._house.record_unsent(execution, request, state))
                case scheduler.Put(request, True) if _has_run(request) and request.execution not in unsent:
                    ends.append(request)
                    continue
                case scheduler.Put(request, True):
                    kept.append(request)
                case _:
                    pass
            rest.append(command)
        if unsent:  # the executions' rows come into the file before the requests that name them
            self._house.keep()
        if ends:  # the disk need not be synced for them: what the mirror saw it sees again after a crash
            self._house.keep_with(ends, partial(self._show, ends))
        if kept:
            self._commit(kept, rest)
        elif rest:
            self._done(rest)

    def _commit(self, kept: Sequence[Request], commands: Sequence[scheduler.Command]) -> None:
        loop = asyncio.get_running_loop()
        pending: list[Sequence[scheduler.Command]] = [commands]
        submits: dict[str, link.Submit] = {}

        def finish() -> None:
            while pending:
                self._done(pending.pop(), submits)

        def committed(error: Exception | None) -> None:
            # A disk that fails holds a run back until it is stored, or it might run twice; what stops the kernel
            # must work all the same.
            if error is None or _stops_kernel(commands):
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(finish)
            else:
                log.warning("requests cannot be stored (%s): what they ask for waits", error)

        self._house.store.put_requests(kept, now=time.time(), done=committed)
        # made while the disk works, sent when it is done
        for one in commands:
            if isinstance(one, scheduler.Submit):
                submits[one.execution] = self._submit(one.request, one.execution)

    def _done(self, commands: Sequence[scheduler.Command], submits: Mapping[str, link.Submit] = _NOTHING) -> None:
        """What was committed: first what goes to the kernel, which works while the rows are shown. ``submits``: the
        messages of the runs that are sent, by execution."""
        for command in commands:
            self._tell_kernel(command, submits)
        if puts := [command.request for command in commands if isinstance(command, scheduler.Put)]:
            self._show(puts)
        for command in commands:
            self._do_here(command)

    def _tell_kernel(self, command: scheduler.Command, submits: Mapping[str, link.Submit]) -> None:
        match command:
            case scheduler.Submit(_, execution):
                self._house.say(submits[execution])
            case scheduler.Interrupt():
                self._house.say(link.Act({"action": "interrupt"}))
            case scheduler.Restart():
                self._house.say(link.Act({"action": "restart"}))
            case scheduler.Answer(request, _, secret):
                self._send(Channel.STDIN, "input_reply", {"status": "ok", "value": secret}, request.by)
            case _:
                pass

    def _do_here(self, command: scheduler.Command) -> None:
        match command:
            case scheduler.Answer():
                self._house.put(self._house.stop_asking())
            case scheduler.Ask(request):
                columns = request.columns
                self._ask(
                    self._queries.ask(
                        request.id,
                        columns["target"],
                        columns["input"],
                        by=request.by,
                        fresh=columns["fresh"],
                        now=time.time(),
                        comm=link.QUERY_COMM_PREFIX + uuid.uuid4().hex,
                    )
                )
            case scheduler.Annotate(request):
                metadata = {request.columns["key"]: request.columns["value"]}
                self._house.put([PutExecution(request.columns["execution"], {"metadata": metadata})])
            case scheduler.Clear(request):
                self._house.forget_before(request.columns["before"])
            case scheduler.Close(by):
                self._push()  # the reason first
                self._house.close_writers(by, Reason.QUOTA)
            case (
                scheduler.Put() | scheduler.Record() | scheduler.Submit() | scheduler.Interrupt() | scheduler.Restart()
            ):
                pass
            case _:
                assert_never(command)

    def _submit(self, request: Request, execution: str) -> link.Submit:
        columns = request.columns
        metadata = {"rtc_request": request.id, "cellId": columns["cell"], "rtc_notebook": columns["notebook"]}
        if columns["silent"]:
            self._silent.add(execution)
        content = {
            "code": columns["code"],
            "silent": columns["silent"],
            "store_history": not columns["silent"],
            "user_expressions": columns["user_expressions"],
            "allow_stdin": columns["allow_stdin"],
            "stop_on_error": False,  # the kernel would abort everybody's; the scheduler aborts this peer's
        }
        given = {name: value for name, value in metadata.items() if value is not None}
        return self._message(Channel.SHELL, "execute_request", content, request.by, msg_id=execution, metadata=given)

    def _send(self, channel: Channel, kind: str, content: Json, by: str) -> None:
        self._house.say(self._message(channel, kind, content, by))

    def _message(
        self,
        channel: Channel,
        kind: str,
        content: Json,
        by: str,
        *,
        msg_id: str | None = None,
        metadata: Json | None = None,
    ) -> link.Submit:
        header = new_header(kind, session=self.session, username=by)
        if msg_id is not None:
            header["msg_id"] = msg_id
        frames = self._house.codec.write(header, content, metadata=metadata, idents=[link.AGENT_IDENT])
        return link.Submit(channel, tuple(frames))

    # --- questions to the kernel

    def _ask(self, commands: Sequence[queries.Command]) -> None:
        changes: list[Change] = []
        for command in commands:
            match command:
                case queries.OpenComm(comm, target, data):
                    content = {"comm_id": comm, "target_name": target, "data": data}
                    self._send(Channel.SHELL, "comm_open", content, "rtc")
                case queries.CloseComm(comm):
                    self._send(Channel.SHELL, "comm_close", {"comm_id": comm, "data": {}}, "rtc")
                case queries.Answered(requests, query, ok, reason):
                    for request_id in requests:
                        self.document.name_query(request_id, query)
                        self._do(self._scheduler.receive_query(request_id, ok, reason, time.time()))
                case _:
                    changes.append(command)
        if changes:
            self._house.put(changes)
        self._watch_queries()

    def _watch_queries(self) -> None:
        if self._query_timer is not None:
            self._query_timer.cancel()
            self._query_timer = None
        if (due := self._queries.due) is not None:
            wait_s = max(0.0, due - time.time())
            self._query_timer = asyncio.get_running_loop().call_later(wait_s, self._check_queries)

    def _check_queries(self) -> None:
        self._query_timer = None
        self._ask(self._queries.receive_time(time.time()))

    # --- the document

    def _show(self, requests: list[Request]) -> None:
        self.document.put(requests)
        self._push_soon()
        now = time.monotonic()
        self._leaving.extend((now + LINGER_S, one.id) for one in requests if one.state in REQUEST_END_STATES)
        if self._leave_timer is None or len(self._leaving) > ENDED_SHOWN:
            self._let_go()

    def _let_go(self) -> None:
        """Pop what ended some time ago."""
        if self._leave_timer is not None:
            self._leave_timer.cancel()
            self._leave_timer = None
        now = time.monotonic()
        gone: list[str] = []
        while self._leaving and (self._leaving[0][0] <= now or len(self._leaving) > ENDED_SHOWN):
            gone.append(self._leaving.popleft()[1])
        if gone:
            self.document.drop(gone)
            self._push_soon()
        if self._leaving:
            wait_s = self._leaving[0][0] - now
            self._leave_timer = asyncio.get_running_loop().call_later(wait_s, self._let_go)

    def _push_soon(self) -> None:
        """What is shown in one turn of the loop goes in one update."""
        if not self._push_is_due:
            self._push_is_due = True
            asyncio.get_running_loop().call_soon(self._push)

    def _push(self) -> None:
        self._push_is_due = False
        if (update := self.document.take_update()) is not None:
            self._house.push_requests(update)

    def _begin_epoch(self) -> None:
        """Go on in a new document: the old one is full, or holds what does not fit together."""
        shown = list(self.document.shown.values())
        self.document = RequestsDocument(self.kernel)
        self.document.put(shown)
        self.document.take_update()
        self._house.begin_requests_epoch()


def _has_run(request: Request) -> bool:
    """Whether it stands for an execution that has ended."""
    return request.state is RequestState.DONE and request.action == "execute" and request.execution is not None


def _stops_kernel(commands: Iterable[scheduler.Command]) -> bool:
    """Whether the kernel is to be interrupted or restarted."""
    return any(isinstance(command, scheduler.Interrupt | scheduler.Restart) for command in commands)
