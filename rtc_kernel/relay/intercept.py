"""A message on shell or control: pass it, take it, hold it, or rewrite it?

Pure: frames and the time in, :data:`Command` values out. Owns what the decision needs: which execute_requests the
child has not answered, which messages wait behind a ``%rtc`` line, what the child said of itself, and which of our
comms are open.

What is of no interest costs one look at the header and goes on as the same frames. Five things are of interest:

* an execute_request that begins with ``%rtc`` lines. The lines are asked of the agent, in order with the cells
  around them: everything behind them on the main shell is held until they are answered, and they wait until the
  child has answered all before them. What follows in the cell is sent on with blank lines in their place, so line
  numbers stay. An error aborts what was held, as a kernel aborts its queue (jupyter_client, docs/messaging.rst,
  ``stop_on_error``);
* completion, inspection and is_complete on such a line;
* messages of the comm target ``rtc.sync.v1``, whatever their subshell;
* kernel_info_request on the main shell while code runs there, which is what every frontend asks when it attaches: it
  is answered with what the child said last, because the child would answer behind the code. The agent's own goes
  on: it asks in order to learn that the child is through with all before it;
* interrupt_request, where the child's own way (a kernel of ipykernel's signals its process group only if it leads
  one) would not reach the processes that a cell has started. Other kernels do with it what they do without us.

A frontend sees ``busy`` and ``idle`` around each of them, as from any kernel; and because an idle would make it
believe that the kernel is free, the running request's ``busy`` is published again behind it.

A child that is replaced by another one takes with it what it has not answered: those execute_requests are answered
``aborted`` in its place, so that no client waits for what cannot come.

Some kernels (Deno's is one) answer the connection and leave away the routing frames that they were sent, which name
the client. Alone they can: each client has a connection. Here all have one, so what they leave away is put in front
again, by the request that is answered.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import RemoteError
from ..link import AGENT_IDENT, Channel, Way
from ..wire import DELIMITER, Codec, Json, Parts, new_header, pack, parse, split

COMM_TARGET = "rtc.sync.v1"

COMMENTS: dict[str, str] = dict.fromkeys(
    ("python", "bash", "r", "julia", "ruby", "perl", "sage", "elixir", "coconut", "xonsh"), "#"
) | dict.fromkeys(
    ("javascript", "typescript", "java", "scala", "kotlin", "go", "rust", "c", "c++", "c#", "f#", "swift"), "//"
)
"""What a comment begins with, by the kernelspec's language in lower case."""

REPLY_GRACE_S = 1.0
"""How long after idle a reply may still come, and after a reply its idle: they travel on different sockets. Seconds."""

ENVELOPES_COUNT = 10_000
"""Of so many requests at most it is kept in mind who sent them, until the child shows that it says so itself."""

_MAGIC_LINE = re.compile(r"^[ \t]*\?{0,2}%rtc(?=[\s?]|$)")
_MAGIC_HINT = b"%rtc"
_INFO_REQUEST, _INFO_REPLY = b"kernel_info_request", b"kernel_info_reply"
_OF_IPYKERNEL = re.compile(rb"kernel\.[0-9a-f-]+\.status")
"""The topic of a status of each kernel that is made with ipykernel, in whatever language."""


# --- commands ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToChild:
    """Send these frames to the child."""

    channel: Channel
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class ToFront:
    """Send these frames (``[ident*, …]``) to the client that they name."""

    channel: Channel
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish these frames (``[topic, …]``) on iopub, to every frontend."""

    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Tap:
    """Give the mirror a copy of a message that passed, or that we answered in the child's place."""

    channel: Channel
    way: Way
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class AskAgent:
    """Ask the agent; :meth:`Intercept.receive_answer` brings the answer. Behind ``deadline`` nobody waits for it."""

    ask_id: int
    info: Json
    deadline: float


@dataclass(frozen=True, slots=True)
class TakeComm:
    """A message of our own comm, for the agent."""

    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Interrupt the child by signal, with everything it has started."""


Command = ToChild | ToFront | Publish | Tap | AskAgent | TakeComm | Interrupt


# --- what a cell is ------------------------------------------------------------------------------------------


def split_cell(code: str, comment: str = "") -> tuple[list[str], str]:
    """Split a cell into the ``%rtc`` lines it begins with and the rest.

    Args:
        comment: what a comment begins with in the kernel's language; empty where we do not know.

    Returns:
        ``(lines, rest)``: the lines, stripped; and the rest with a line of its own for each line taken away, so that
        line numbers stay: a comment, because IPython drops empty lines at the top of a cell, or an empty line where
        a cell magic follows, which must be the first that stands there. ``rest`` is empty when only blank lines
        follow.
    """
    lines = code.split("\n")
    magics: list[str] = []
    taken = 0
    for number, line in enumerate(lines):
        if _MAGIC_LINE.match(line):
            magics.append(line.strip())
            taken = number + 1
        elif line.strip():
            break
    first = next((line for line in lines[taken:] if line.strip()), "")
    rest = "\n".join([("" if first.startswith("%%") else comment)] * taken + lines[taken:])
    return magics, rest if first else ""


@dataclass(slots=True)
class _Asking:
    """A ``%rtc`` block that the agent is answering."""

    ask_id: int
    frames: list[bytes]
    parts: Parts
    content: Json
    rest: str
    deadline: float


@dataclass(slots=True)
class _Aside:
    """A completion or inspection that the agent is answering; it holds nobody up."""

    parts: Parts
    reply_type: str
    deadline: float


class Intercept:
    """The decisions of one kernel's relay.

    Args:
        codec: the kernel's key.
        agent: there is one: it may answer ``%rtc`` lines, and have the child restarted.
        magics: answer ``%rtc`` lines, where there is an agent.
        take_interrupt: answer interrupt_request by :class:`Interrupt`, if the child is one of ipykernel's.
        magic_timeout_s: how long the agent may take.
        language: the kernelspec's.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        agent: bool = True,
        magics: bool,
        take_interrupt: bool,
        magic_timeout_s: float,
        language: str = "",
    ) -> None:
        self.codec = codec
        self.comment = COMMENTS.get(language.lower(), "")
        self.agent = agent
        self.magics = magics and agent
        self.is_ipykernel: bool | None = None  # made with ipykernel; null: it has not said a status yet
        self._take_interrupt = take_interrupt
        self.magic_timeout_s = magic_timeout_s
        self.session = ""  # the child's; what we emit must carry it
        self.username = "username"
        self.execution_count = 0  # the last one the child named
        self.comms: set[str] = set()  # ids of our comms that frontends hold open
        self._info = b""  # content of the child's last kernel_info_reply
        self._outstanding: dict[str, Parts] = {}  # by msg_id; main shell, in order
        self._silent_since: dict[str, float] = {}  # outstanding ones that went idle without a reply, and when
        self._busy_since: dict[str, float] = {}  # answered ones that did not go idle yet, and when
        self._held: deque[list[bytes]] = deque()
        self._doomed_count = 0  # the first so many of the held are answered "aborted" if they are execute_requests
        self._asking: _Asking | None = None
        self._asides: dict[int, _Aside] = {}
        self._ask_id = 0
        self._envelopes: dict[Channel, dict[str, tuple[bytes, ...]]] = {Channel.SHELL: {}, Channel.CONTROL: {}}
        # by msg_id, who sent it; no more of a channel on which the child has shown that it gives that back

    def __repr__(self) -> str:
        return (
            f"<Intercept {len(self._outstanding)} outstanding, {len(self._held)} held,"
            f" {'asking' if self._asking else 'not asking'}, {len(self.comms)} comms>"
        )

    # --- in ---------------------------------------------------------------------------------------------------

    def passes(self, channel: Channel, frames: list[bytes]) -> bool:
        """Whether a message from a frontend goes on unchanged and at once, told without reading it. Then send it,
        and give it to :meth:`receive_front` with ``sent=True``. What this does not know goes the longer way."""
        if channel is Channel.CONTROL:
            return not self.takes_interrupt or not any(b"interrupt_request" in frame for frame in frames)
        if self._held or self._asking is not None:
            return False
        if self._knows_info and any(_INFO_REQUEST in frame for frame in frames):
            return False
        return not any(_MAGIC_HINT in frame or b"comm_" in frame for frame in frames)

    def receive_front(self, channel: Channel, frames: list[bytes], now: float, *, sent: bool = False) -> list[Command]:
        """A message from a frontend, on shell or control.

        Args:
            now: monotonic seconds.
            sent: it has gone to the child already, because :meth:`passes` said so.
        """
        to_child: list[Command] = [] if sent else [ToChild(channel, frames)]
        passed: list[Command] = [*to_child, Tap(channel, Way.TO_CHILD, frames)]
        try:
            parts = split(frames)
            header = parse(parts.header)
        except RemoteError:
            return to_child  # the child drops it, as it does without us
        msg_type = header.get("msg_type")
        self._note_envelope(channel, header, parts.idents)
        if channel is Channel.CONTROL:
            if msg_type == "interrupt_request" and self.takes_interrupt and self.codec.verify(parts):
                return self._answer_interrupt(parts)
            return passed
        if msg_type in ("comm_open", "comm_msg", "comm_close"):
            if self._is_ours(str(msg_type), parts):
                return [*self._around(parts, [TakeComm(frames)])]
        elif self.magics and msg_type in ("complete_request", "inspect_request", "is_complete_request"):
            taken = self._take_aside(str(msg_type), parts, frames, now)
            if taken is not None:
                return taken
        if header.get("subshell_id"):
            return passed
        if msg_type == "kernel_info_request":
            answers = self._knows_info and not sent and AGENT_IDENT not in parts.idents and self.codec.verify(parts)
            return self._answer_info(parts) if answers else passed
        if self._asking is not None or self._held:
            self._held.append(frames)
            return [Tap(channel, Way.TO_CHILD, frames)]
        if msg_type != "execute_request":
            return passed
        if not self.agent or not self.codec.verify(parts):
            return passed
        block = self._magic_block(parts)
        if block is None:
            self._outstanding[str(header.get("msg_id"))] = parts
            return passed
        tap = Tap(channel, Way.TO_CHILD, frames)
        if self._outstanding or not self.session:
            self._held.append(frames)
            return [tap]
        return [tap, *self._ask(frames, parts, block, now)]

    def receive_child(self, channel: Channel, frames: list[bytes], now: float) -> list[Command]:
        """A message from the child, on shell or control. It always passes, so it is sent before it is given here."""
        commands: list[Command] = [Tap(channel, Way.TO_FRONT, frames)]
        try:
            parts = split(frames)
            if not self.session:  # a reply may be quicker than iopub: what waits for the session goes on now
                commands += self.receive_session(parse(parts.header), now)
            if _INFO_REPLY in parts.header:
                self._learn_info(parts)
            elif channel is Channel.SHELL and self._outstanding:
                commands += self._answered(parts, now)
        except RemoteError:
            return []
        return commands

    def address(self, channel: Channel, frames: list[bytes]) -> list[bytes]:
        """What the child says on shell, control or stdin, addressed to the client that it is for: these frames, unless
        the child leaves that away. Of stdin another thread may ask."""
        noted = self._envelopes.get(Channel.SHELL if channel is Channel.STDIN else channel)
        if noted is None:
            return frames
        if frames[0] != DELIMITER:
            if channel is not Channel.STDIN:
                del self._envelopes[channel]
            return frames
        try:
            msg_id = str(parse(split(frames).parent).get("msg_id"))
        except RemoteError:
            return frames
        take = noted.get if channel is Channel.STDIN else noted.pop  # an execution asks, and is answered later
        return [*take(msg_id, ()), *frames]

    def receive_status_topic(self, topic: bytes) -> None:
        """The topic of a status that was published: the child's tells what it is made with."""
        if self.is_ipykernel is None and not topic.startswith(b"rtc."):
            self.is_ipykernel = _OF_IPYKERNEL.fullmatch(topic) is not None

    @property
    def takes_interrupt(self) -> bool:
        """Whether an interrupt_request is ours to answer."""
        return self._take_interrupt and self.is_ipykernel is not False

    def receive_answer(self, ask_id: int, info: Json, now: float) -> list[Command]:
        """The agent's :class:`link.Answer`. One that comes too late is dropped."""
        aside = self._asides.pop(ask_id, None)
        if aside is not None:
            return self._answer_aside(aside, info)
        if self._asking is None or self._asking.ask_id != ask_id:
            return []
        return self._finish(self._asking, info, now)

    def receive_time(self, now: float) -> list[Command]:
        """Time has passed: answer in the agent's place what it did not answer."""
        commands: list[Command] = []
        for msg_id in [msg_id for msg_id, since in self._silent_since.items() if since + REPLY_GRACE_S <= now]:
            del self._silent_since[msg_id]
            self._outstanding.pop(msg_id, None)
            commands += self._release(now)
        for msg_id in [msg_id for msg_id, since in self._busy_since.items() if since + REPLY_GRACE_S <= now]:
            del self._busy_since[msg_id]
            commands += self._release(now)
        for ask_id in [ask_id for ask_id, aside in self._asides.items() if aside.deadline <= now]:
            commands += self._answer_aside(self._asides.pop(ask_id), {})
        asking = self._asking
        if asking is not None and asking.deadline <= now:
            commands += self._finish(asking, _no_answer(self.magic_timeout_s), now)
        return commands

    def receive_session(self, header: Json, now: float) -> list[Command]:
        """The child's first message on iopub: from now on we can speak with its session."""
        self.learn(header)
        return self._release(now)

    @property
    def holding(self) -> bool:
        """Whether something waits for the child, so that :meth:`receive_idle` wants to be told."""
        return bool(self._held)

    def receive_idle(self, msg_id: str, now: float) -> list[Command]:
        """The child went idle after this request, and that has been passed on. A kernel that found the request
        malformed never replies: what waits behind it must not wait for ever."""
        if msg_id in self._outstanding:
            self._silent_since[msg_id] = now
        if self._busy_since.pop(msg_id, None) is None:
            return []
        return self._release(now)

    def receive_restart(self) -> list[Command]:
        """The child is to be replaced: tell everybody (as a server does for its clients), and ask it to go."""
        return [self._status("restarting", b"{}"), self.request("shutdown_request", {"restart": True})]

    def receive_exit(self) -> list[Command]:
        """The child is gone, and another one will come: answer the execute_requests that it has not answered, and
        forget whose session it was. Our comms stay open: the agent is still there."""
        asking = [self._asking.parts] if self._asking else []
        held = [parts for parts in map(split, self._held) if parse(parts.header).get("msg_type") == "execute_request"]
        commands: list[Command] = []
        for parts in (*self._outstanding.values(), *asking, *held):
            commands += self._abort(parts)
        self._outstanding.clear()
        self._silent_since.clear()
        self._busy_since.clear()
        self._held.clear()
        self._doomed_count = 0
        self._asking = None
        for aside in self._asides.values():
            commands += self._answer_aside(aside, {})
        self._asides.clear()
        for noted in self._envelopes.values():
            noted.clear()
        self.session = ""
        self.execution_count = 0
        self._info = b""
        return commands

    def receive_comms_lost(self) -> list[Command]:
        """A new agent knows none of our comms: close them, so that their frontends open new ones."""
        commands: list[Command] = [
            Publish(self._message("comm_close", {"comm_id": comm, "data": {"reason": "stopping"}}, b"{}"))
            for comm in sorted(self.comms)
        ]
        self.comms.clear()
        return commands

    @property
    def deadline(self) -> float | None:
        """When :meth:`receive_time` wants to be called next (monotonic seconds)."""
        times = [aside.deadline for aside in self._asides.values()]
        times += [since + REPLY_GRACE_S for since in (*self._silent_since.values(), *self._busy_since.values())]
        if self._asking is not None:
            times.append(self._asking.deadline)
        return min(times, default=None)

    def request(self, msg_type: str, content: Json) -> ToChild:
        """A request of our own to the child, on control. Its reply reaches nobody but the tap."""
        header = new_header(msg_type, session=AGENT_IDENT.decode(), username=self.username)
        self._note_envelope(Channel.CONTROL, header, (AGENT_IDENT,))
        return ToChild(Channel.CONTROL, self.codec.write(header, content, idents=[AGENT_IDENT]))

    def learn(self, header: Json) -> None:
        """Take over the child's session and user name from one of its headers."""
        self.session = str(header.get("session") or self.session)
        self.username = str(header.get("username") or self.username)

    # --- %rtc -------------------------------------------------------------------------------------------------

    def _magic_block(self, parts: Parts) -> tuple[Json, list[str], str] | None:
        if not self.magics or _MAGIC_HINT not in parts.content:
            return None
        content = parse(parts.content)
        code = content.get("code")
        if not isinstance(code, str):
            return None
        lines, rest = split_cell(code, self.comment)
        return (content, lines, rest) if lines else None

    def _ask(self, frames: list[bytes], parts: Parts, block: tuple[Json, list[str], str], now: float) -> list[Command]:
        content, lines, rest = block
        self._ask_id += 1
        self._asking = _Asking(self._ask_id, frames, parts, content, rest, now + self.magic_timeout_s)
        header = parse(parts.header)
        info = {
            "kind": "execute",
            "lines": lines,
            "rest": bool(rest),
            "msg_id": header.get("msg_id"),
            "username": header.get("username"),
            "session": header.get("session"),
        }
        commands: list[Command] = [self._status("busy", parts.header)]
        if not rest and not content.get("silent"):
            entered = {"code": content["code"], "execution_count": max(1, self.execution_count)}
            commands.append(Publish(self._message("execute_input", entered, parts.header)))
        return [*commands, AskAgent(self._ask_id, info, self._asking.deadline)]

    def _finish(self, asking: _Asking, info: Json, now: float) -> list[Command]:
        """Publish a block's outputs; then run the rest of its cell, or answer for it."""
        self._asking = None
        parts, failed = asking.parts, info.get("status") != "ok"
        commands: list[Command] = []
        if not asking.content.get("silent"):
            commands += [
                Publish(self._message(str(msg_type), content, parts.header))
                for msg_type, content in info.get("outputs", ())
            ]
        if asking.rest and not failed:
            return [*commands, *self._send_rest(asking, now)]
        reply: Json = {"status": "error" if failed else "ok", "execution_count": max(1, self.execution_count)}
        reply |= {"user_expressions": {}, "payload": []} if not failed else {}
        reply |= info.get("reply") or {}
        commands += [*self._reply("execute_reply", reply, parts), self._status("idle", parts.header)]
        if failed and asking.content.get("stop_on_error", True):
            self._doomed_count = len(self._held)
        return [*commands, *self._release(now)]

    def _send_rest(self, asking: _Asking, now: float) -> list[Command]:
        parts = asking.parts
        frames = self._rewritten(parts, {**asking.content, "code": asking.rest})
        # what is behind goes on behind it: the child keeps the order from here
        self._outstanding[str(parse(parts.header).get("msg_id"))] = parts
        return [ToChild(Channel.SHELL, frames), *self._release(now)]

    def _rewritten(self, parts: Parts, content: Json) -> list[bytes]:
        body = [parts.header, parts.parent, parts.metadata, pack(content)]
        return [*parts.idents, DELIMITER, self.codec.sign(body), *body, *parts.buffers]

    def _answered(self, parts: Parts, now: float) -> list[Command]:
        """The child answered on shell: note it, and let go what waited for it."""
        msg_id = str(parse(parts.parent).get("msg_id"))
        entry = self._outstanding.pop(msg_id, None)
        if entry is None:
            return []
        if self._silent_since.pop(msg_id, None) is None and self._held:
            self._busy_since[msg_id] = now
        content = parse(parts.content)
        count = content.get("execution_count")
        if isinstance(count, int):
            self.execution_count = count
        if content.get("status") == "error" and self._held and parse(entry.content).get("stop_on_error", True):
            self._doomed_count = len(self._held)
        return self._release(now)

    def _release(self, now: float) -> list[Command]:
        """Send on what is held, up to the next block that must wait."""
        commands: list[Command] = []
        while self._held and self._asking is None and self.session:
            frames = self._held[0]
            parts = split(frames)
            header = parse(parts.header)
            run = header.get("msg_type") == "execute_request"
            block = self._magic_block(parts) if run else None
            doomed = run and self._doomed_count > 0
            if (self._outstanding or self._busy_since) and (doomed or block is not None):
                break  # answers keep the order of the requests, and come behind the idle of the one before
            self._held.popleft()
            self._doomed_count = max(0, self._doomed_count - 1)
            if doomed:
                commands += self._abort(parts)
            elif block is not None:
                commands += self._ask(frames, parts, block, now)
            else:
                if run:
                    self._outstanding[str(header.get("msg_id"))] = parts
                commands.append(ToChild(Channel.SHELL, frames))
        return commands

    def _abort(self, parts: Parts) -> list[Command]:
        """Answer an execute_request ``aborted``, as the kernel does with its queue."""
        return [
            self._status("busy", parts.header),
            *self._reply("execute_reply", {"status": "aborted"}, parts),
            self._status("idle", parts.header),
        ]

    # --- beside the order: completion, inspection, interrupt, our comm -----------------------------------------

    def _take_aside(self, msg_type: str, parts: Parts, frames: list[bytes], now: float) -> list[Command] | None:
        if _MAGIC_HINT not in parts.content or not self.session or not self.codec.verify(parts):
            return None
        content = parse(parts.content)
        code, cursor = content.get("code"), content.get("cursor_pos")
        if not isinstance(code, str):
            return None
        lines, rest = split_cell(code, self.comment)
        if msg_type == "is_complete_request":
            if not lines:
                return None
            if rest:
                return [ToChild(Channel.SHELL, self._rewritten(parts, {**content, "code": rest}))]
            return self._around(parts, self._reply("is_complete_reply", {"status": "complete"}, parts))
        at = cursor if isinstance(cursor, int) else len(code)
        line = code[:at].rpartition("\n")[2] + code[at:].partition("\n")[0]
        if not lines or code[:at].count("\n") >= len(code.split("\n")) or not _MAGIC_LINE.match(line):
            return None
        self._ask_id += 1
        kind = msg_type.removesuffix("_request")
        deadline = now + self.magic_timeout_s
        self._asides[self._ask_id] = _Aside(parts, f"{kind}_reply", deadline)
        return [AskAgent(self._ask_id, {"kind": kind, "code": code, "cursor_pos": at}, deadline)]

    def _answer_aside(self, aside: _Aside, info: Json) -> list[Command]:
        empty: dict[str, Any] = {
            "complete_reply": {"matches": [], "cursor_start": 0, "cursor_end": 0, "metadata": {}, "status": "ok"},
            "inspect_reply": {"status": "ok", "found": False, "data": {}, "metadata": {}},
        }
        reply = info.get("reply") or empty[aside.reply_type]
        return self._around(aside.parts, self._reply(aside.reply_type, reply, aside.parts))

    def _answer_interrupt(self, parts: Parts) -> list[Command]:
        reply = self._reply("interrupt_reply", {"status": "ok"}, parts, Channel.CONTROL)
        return [
            Interrupt(),
            self._status("busy", parts.header),
            *reply,
            self._status("idle", parts.header),
        ]

    @property
    def _knows_info(self) -> bool:
        """Whether a kernel_info_request is ours to answer: code runs, and the child has once answered one."""
        return bool(self._outstanding and self._info and self.session)

    def _learn_info(self, parts: Parts) -> None:
        if parse(parts.header).get("msg_type") == "kernel_info_reply" and parse(parts.content).get("status") == "ok":
            self._info = parts.content

    def _answer_info(self, parts: Parts) -> list[Command]:
        """Nothing of this is tapped: the mirror takes an answer on shell for a sign that what came before has ended."""
        header = new_header("kernel_info_reply", session=self.session, username=self.username)
        frames = self.codec.write(header, parse(self._info), parent=parts.header, idents=parts.idents)
        return self._around(parts, [ToFront(Channel.SHELL, frames)])

    def _is_ours(self, msg_type: str, parts: Parts) -> bool:
        if msg_type == "comm_open":
            if COMM_TARGET.encode() not in parts.content:
                return False
        elif not any(comm.encode() in parts.content for comm in self.comms):
            return False
        if not self.session or not self.codec.verify(parts):
            return False
        content = parse(parts.content)
        comm = str(content.get("comm_id"))
        if msg_type == "comm_open":
            if content.get("target_name") != COMM_TARGET:
                return False
            self.comms.add(comm)
            return True
        if comm not in self.comms:
            return False
        if msg_type == "comm_close":
            self.comms.discard(comm)
        return True

    def _note_envelope(self, channel: Channel, header: Json, idents: tuple[bytes, ...]) -> None:
        noted = self._envelopes.get(channel)
        if noted is None:
            return
        noted.setdefault(str(header.get("msg_id")), idents)
        if len(noted) > ENVELOPES_COUNT:
            del noted[next(iter(noted))]

    # --- messages ---------------------------------------------------------------------------------------------

    def _around(self, parts: Parts, inner: Iterable[Command]) -> list[Command]:
        """Busy, ``inner``, idle; and the running request's busy again, if there is one."""
        commands = [self._status("busy", parts.header), *inner, self._status("idle", parts.header)]
        running = self._asking.parts if self._asking else next(iter(self._outstanding.values()), None)
        if running:
            commands.append(self._status("busy", running.header))
        return commands

    def _status(self, state: str, parent: bytes) -> Publish:
        return Publish(self._message("status", {"execution_state": state}, parent))

    def _message(self, msg_type: str, content: Json, parent: bytes) -> list[bytes]:
        header = new_header(msg_type, session=self.session, username=self.username)
        return self.codec.write(header, content, parent=parent, idents=[b"rtc." + msg_type.encode()])

    def _reply(
        self, msg_type: str, content: Json, parts: Parts, channel: Channel = Channel.SHELL
    ) -> list[ToFront | Tap]:
        header = new_header(msg_type, session=self.session, username=self.username)
        frames = self.codec.write(header, content, parent=parts.header, idents=parts.idents)
        return [ToFront(channel, frames), Tap(channel, Way.TO_FRONT, frames)]


def _no_answer(timeout_s: float) -> Json:
    message = f"the agent did not answer within {timeout_s:g} s; it restarts by itself: run the cell again"
    return error_answer("RTCError", message)


def error_answer(ename: str, message: str) -> Json:
    """The ``info`` of an :class:`link.Answer` that fails the cell with one line."""
    error = {"ename": ename, "evalue": message, "traceback": [f"{ename}: {message}"]}
    return {"status": "error", "outputs": [["error", error]], "reply": error}
