"""The hallway of the agent: records in; rows to the document, the followers and the store.

One loop, one thread but the store's writer and the readers of the history. The way of a record::

    feed ─► mirror ─► changes ─► (pace) ─► document ─► update ─► every follower
                                    └────► store ─► committed ─► acknowledged to the relay

The store commits the changes together with the position of the feed and the state of the mirror. So an agent that
is killed at any moment goes on where the file ends, and the relay gives it the rest again.

There is one broad ``except Exception`` here, between a record and its rows: it notes in the store how far it had
come and ends the process. The next agent takes the records in question one by one, leaves out the one that cannot be
mirrored, and names it as a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, assert_never
from urllib.parse import urlsplit

from .. import __version__, discovery, link, rooms, schema
from ..bounds import Bounds
from ..config import RTCKernel, history_directory, load
from ..errors import MissingError, Reason, RemoteError, RTCError, SetupError
from ..link import Channel, Way
from ..moments import Growth
from ..tables import (
    END_STATES,
    Cell,
    Change,
    Execution,
    ExecutionState,
    Json,
    Kernel,
    KernelState,
    PutCells,
    PutExecution,
    PutKernel,
    PutMeta,
    PutQuery,
    Request,
    coalesce,
)
from ..wire import Codec
from . import reading
from .act import answers
from .actions import Actions
from .desk import Desk
from .document import StateDocument
from .feed import Feed
from .keep import retention
from .keep import store as stores
from .keep.files import UnavailableError
from .keep.lookup import PIECE_BYTES, Window
from .keep.rows import TRUNCATED
from .keep.upkeep import survey
from .mirror import NAMELESS, Limits, Mirror
from .pace import Pace
from .requests import RequestsDocument
from .serve import Blob, HistoryQuery, Page, PruneQuery
from .serve.access import Role, Token, Tokens
from .serve.comm import CommServer
from .serve.passage import Passage, find_passage
from .serve.publish import Publishers, Relay, Standing
from .serve.websocket import Bound, Server

log = logging.getLogger("rtc_kernel.agent")

OWNER = "owner"
"""Name of the token of the kernel's user; it is in the discovery file and nowhere else."""

RELAYS_FACT = "relays"
"""The store's note of where the kernel is published (``relays``: ``url``, ``room``, ``role``, ``name``), and where the
user has ended that (``ended``, in the life ``relay_id`` of the kernel)."""

CRASH_FACT = "crash"
"""The store's note of records that could not be mirrored: ``relay_id``, ``until`` (seq), ``skip`` (seqs)."""

REPLY_CHECK_S = 2.5
"""How often rows are looked at that went idle without a reply. Seconds."""

SETTLE_S = 0.25
"""How long a ``%rtc`` line waits for the idle of the cell before it. Seconds."""

RETAIN_S = 3600.0
"""How often the history is brought within its limits. Seconds."""

RETAIN_BYTES = 64 << 20
"""After so much was stored it is so too, or after an eighth of ``keep_bytes`` if that is less."""

ENDS_DELAY_S = 0.005
"""For how long ends of requests are gathered before they are stored. Seconds."""

END_S = 2.7
"""How long the end may take before the process goes anyway; the relay waits a little longer. Seconds."""

ORPHAN_END_S = 0.8
"""The same where the relay was killed: the next one may be on its way, and its agent to the same file. Seconds."""

NICENESS = 10
"""Where kernel, client and relay need every processor, the mirror waits: it must not slow the kernel. On a machine
that is not full this costs nothing."""

EXIT_REBUILD = 75
"""Exit code of an agent that wants to be started again (EX_TEMPFAIL)."""

DISK_TRY_S = (0.2, 10.0)
"""First and longest pause before it is tried again whether a history that could not be had can be had now; each is
twice the one before."""

EPOCH_QUIET_S = 0.5
"""How long nothing must have been written before an epoch begins that is due. Seconds."""

EPOCH_FORCED = 1.5
"""At so many times ``epoch_bytes`` it begins whatever is written."""

GROUP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def main(argv: Sequence[str]) -> None:
    """Run an agent until its relay has gone. ``argv``: ``--link`` and the settings."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    logging.basicConfig(format="rtc_kernel: %(message)s", level=logging.WARNING)
    name = argv[argv.index("--link") + 1]
    try:
        problems: list[SetupError] = []
        settings = load(argv, problems=problems)
        asyncio.run(App(name, settings, problems).run())
    except SetupError as exc:
        log.error("%s", exc)
        os._exit(exc.exit_code)
    os._exit(0)  # everything is stored and closed; the interpreter's own end would only take time


class App:
    """The agent of one kernel.

    ``run`` is the order of start and end; the rest is grouped *in*, *out*, *for the doors*, *for the desk*.
    """

    def __init__(self, link_name: str, settings: RTCKernel, problems: Sequence[SetupError] = ()) -> None:
        self.settings = settings
        self._link_name = link_name
        self._loop: asyncio.AbstractEventLoop
        self._early: list[link.Record] = []
        self._hello: asyncio.Future[Json] | None = None
        self._ended = asyncio.Event()
        self._news = asyncio.Event()  # records came
        self.info: Json = {}
        self._held: IO[str] | None = None  # says that we are at this kernel
        self.codec: Codec
        self.store: stores.Store
        self.mirror: Mirror
        self._document: StateDocument
        self._tokens: Tokens
        self.server: Server
        self.comm: CommServer
        self.publishers: Publishers
        self.feed: Feed
        self.actions: Actions
        self.desk = Desk(self)
        self._pace = Pace(settings.quiet_ms / 1000, settings.load_ms / 1000, settings.load_bytes)
        self._timer: asyncio.TimerHandle | None = None
        self._changes: list[Change] = []  # mirrored, not yet shown to the followers
        self._unkept: list[Change] = []  # mirrored, not yet given to the store
        self._unkept_requests: list[Request] = []  # that have ended with these
        self._when_kept: list[Callable[[], None]] = []
        self._news_of: list[Change] = []  # mirrored, not yet told to those who act
        self._keep_timer: asyncio.TimerHandle | None = None
        self._reply_timer: asyncio.TimerHandle | None = None
        self._epoch_timer: asyncio.TimerHandle | None = None
        self._retain_timer: asyncio.TimerHandle | None = None
        self._retain_at_bytes = 0  # stored bytes after which the history is brought within its limits
        self._seq = 0  # of the last record that the mirror has seen
        self._stored_seq = 0
        self._careful_until = 0  # up to this record, write one by one: one of them cannot be mirrored
        self._skip: frozenset[int] = frozenset()
        self._child_exited = False
        self._waits_for_disk = False  # the history is in memory until its file can be had: the relay keeps the records
        self._is_sounding = False  # the kernel was asked whether it is through with what is in doubt
        self._problems = [str(problem) for problem in problems]  # what is not as it should be for all our life
        self._kernel = Kernel(id="")
        self._secret = ""  # the owner's token
        self._ends = reading.excerpt_of(settings)
        self._health: Json = {"status": "ok", "reason": None}
        self._tasks: set[asyncio.Task[None]] = set()
        self._clearing = asyncio.Lock()
        self._unpublished: list[str] = []  # links of relays at which the user has ended it

    # --- the order of things -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, serve, end."""
        loop = self._loop = asyncio.get_running_loop()
        self._hello = loop.create_future()
        self.feed = Feed(self._receive, self._ended.set)
        self._watch_signals(loop)
        await self.feed.open(self._link_name)
        ended = loop.create_task(self._ended.wait(), name="rtc-relay-ended")
        hello: asyncio.Future[Any] = self._hello
        await asyncio.wait([hello, asyncio.ensure_future(ended)], return_when=asyncio.FIRST_COMPLETED)
        if not hello.done():
            return
        self.info = hello.result()
        self._open()
        early, self._early = self._early, []
        self._hello = None
        self.feed.say(link.Ready(str(self.info["relay_id"]), self._stored_seq))
        self._name_hole()
        self._receive(early)
        await ended
        loop.call_later(END_S if self._child_exited else ORPHAN_END_S, os._exit, 0)
        await self._end()

    def _watch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """What is sent to the group is meant for the kernel; we tell the relay that the group got it."""
        if sys.platform == "win32":
            return
        for name in GROUP_SIGNALS:
            number = int(getattr(signal, name))
            act = link.Act({"action": "signal-seen", "signal": number})
            loop.add_signal_handler(number, self.feed.say, act)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    def _open(self) -> None:
        info, settings, now = self.info, self.settings, time.time()
        kernel_id, relay_id = str(info["kernel_id"]), str(info["relay_id"])
        self.codec = Codec(str(info["key"]).encode(), str(info["signature_scheme"]))
        columns: Json = {
            "id": kernel_id,
            "name": info["kernel_name"],
            "display_name": info["display_name"],
            "language": info["language"],
            "host": info["host"],
            "started_at": info["started_at"],
        }
        if info["notebook"] is not None:  # else it is the one that cells have told of, if any
            columns["notebook"] = info["notebook"]
        if not self.is_attached:  # else who attached has seen to it
            with contextlib.suppress(OSError):
                self._held = discovery.hold(kernel_id)
        resume, window = self._open_store(relay_id, columns, now)
        self._seq = self._stored_seq = resume.feed_seq
        limits = Limits(
            inline_bytes=settings.inline_bytes,
            blob_bytes=settings.blob_bytes,
            execution_bytes=settings.execution_bytes,
            comms=settings.comms,
        )
        self.mirror = self._restore(resume, limits, kernel_id)
        crash = self.store.fact(CRASH_FACT) or {}
        if crash.get("relay_id") == relay_id:
            self._careful_until = int(crash["until"])
            self._skip = frozenset(crash["skip"])
        self._tokens = Tokens(
            Token(one.name, Role(one.role), one.hash, one.created_at, one.expires_at)
            for one in self.store.tokens
            if one.name != OWNER
        )
        secret, _ = self._tokens.mint(OWNER, Role.OWN, now=now, secret=_known_secret(kernel_id))
        self.publishers = Publishers(self, settings, kernel=kernel_id)
        self._document = self._load_document(window)
        bound = self._listen(settings.port or resume.port or _known_port(kernel_id))
        if resume.port != bound.port:
            self.store.put_fact("port", bound.port)
        self.comm = CommServer(
            self,
            kernel=kernel_id,
            codec=self.codec,
            identity=lambda: (str(self.info["session"]), str(self.info["username"])),
            emit=self.feed.say,
            executor=self.server.executor,
            limits=self.server.limits,
        )
        if self.is_attached and not resume.resumed:  # of whoever followed before us and could not say goodbye
            self.put(self.mirror.receive_child(link.Child(0, now, "detached", 0, None)))
        self.actions = Actions(self, kernel=kernel_id, settings=settings, may_restart=not self.is_attached)
        self.actions.load(same_relay=resume.resumed, catch_up_seq=int(info.get("spool_seq", 0)))
        self.actions.receive_seq(self._seq)
        self._secret = secret
        self._announce()
        self._share_from_start()
        self._publish_from_start()
        self._retain()

    def _listen(self, wanted: int) -> Bound:
        """Open the side socket; on loopback and without TLS where it cannot be had as set, so that there is one."""
        settings, kernel_id = self.settings, str(self.info["kernel_id"])
        self.server = Server(self, settings, kernel=kernel_id, passage=passage(settings))
        try:
            bound = self.server.listen(wanted)
        except SetupError as exc:
            self._problems.append(f"the side socket is on loopback only: {exc}")
            log.warning("%s", self._problems[-1])
            settings.ip, settings.certfile = "127.0.0.1", ""
            self.server = Server(self, settings, kernel=kernel_id, passage=passage(settings))
            bound = self.server.listen(wanted)
        if bound.moved:
            log.warning("port %s is taken; the side socket is on %s", wanted, bound.port)
        if self.server.is_exposed:
            log.warning("the side socket on %s speaks without TLS: tokens can be read; set certfile", settings.ip)
        return bound

    def _open_store(self, relay_id: str, kernel: Json, now: float) -> tuple[stores.Resume, Window]:
        """Open the history and begin it; in memory where its file cannot be had, so that there is one to follow. If it
        can be had later, what came meanwhile waits in the relay, and the next agent stores it."""
        directory = history_directory(self.settings)
        path = directory / f"{kernel['id']}.sqlite3" if directory else None
        try:
            return self._store_at(path, relay_id, kernel, now)
        except SetupError as exc:
            self._problems.append(f"the history is kept in memory only: {exc}")
            log.warning("%s", self._problems[-1])
            if path is not None and isinstance(exc, UnavailableError):
                self._waits_for_disk = True
                self._spawn(self._wait_for_disk(path), "rtc-disk")
            return self._store_at(None, relay_id, kernel, now)

    def _store_at(self, path: Path | None, relay_id: str, kernel: Json, now: float) -> tuple[stores.Resume, Window]:
        self.store = stores.Store.open(
            path,
            delay_s=0.0,  # what is given to it was gathered here already
            execution_bytes=self.settings.store_execution_bytes,
            journal_mode=self.settings.journal_mode,
            takes_requests=not self._waits_for_disk,
        )
        try:
            lineage = str(self.info.get("lineage", ""))
            resume = self.store.begin(relay_id=relay_id, kernel=kernel, now=now, lineage=lineage)
            return resume, self._read_window(self.store)
        except SetupError:
            self.store.close()
            raise

    async def _wait_for_disk(self, path: Path) -> None:
        pause_s, longest_s = DISK_TRY_S
        while not await asyncio.to_thread(stores.is_writable, path, self.settings.journal_mode):
            await asyncio.sleep(pause_s)
            pause_s = min(longest_s, 2 * pause_s)
        log.warning("the history can be written again: the agent starts anew")
        os._exit(EXIT_REBUILD)

    def _retain(self) -> None:
        """Let the history keep its limits: now, in an hour, and when much was written."""
        settings = self.settings
        if self._retain_timer is not None:
            self._retain_timer.cancel()
        self._retain_timer = self._loop.call_later(RETAIN_S, self._retain)
        step_bytes = min(RETAIN_BYTES, max(1 << 20, settings.keep_bytes // 8 or RETAIN_BYTES))
        self._retain_at_bytes = self.store.written_bytes + step_bytes
        self.store.retain(self._keep_limits(PruneQuery()), time.time())

    def _keep_limits(self, query: PruneQuery) -> retention.Limits:
        settings = self.settings
        return retention.Limits(
            days=settings.keep_days if query.older_than_s is None else query.older_than_s / retention.DAY_S,
            executions=settings.keep_executions if query.keep is None else query.keep,
            bytes=settings.keep_bytes if query.max_bytes is None else query.max_bytes,
        )

    def _restore(self, resume: stores.Resume, limits: Limits, kernel_id: str) -> Mirror:
        if resume.mirror_state is not None:
            with contextlib.suppress(RTCError):
                return Mirror.restore(resume.mirror_state, limits=limits, displays=resume.displays)
        notebook = self.info["notebook"]
        return Mirror(
            kernel_id,
            notebook=str(notebook) if notebook else None,
            generation=resume.generation,
            next_seq=resume.next_seq,
            limits=limits,
        )

    def _read_window(self, store: stores.Store) -> Window:
        settings = self.settings
        return store.window(
            settings.window_executions,
            settings.stream_bytes,
            outputs=settings.outputs_per_execution,
            window_bytes=settings.window_bytes,
        )

    def _load_document(self, window: Window) -> StateDocument:
        settings = self.settings
        document = StateDocument(
            str(self.info["kernel_id"]),
            window_executions=settings.window_executions,
            window_bytes=settings.window_bytes,
            comms_bytes=settings.comms_bytes,
            bounds=Bounds(
                stream_bytes=settings.stream_bytes,
                outputs=settings.outputs_per_execution,
                code_bytes=settings.code_bytes,
            ),
        )
        self._health = self._store_health()
        meta = {
            **window.meta,
            "created_at": time.time(),
            "server": {"name": "rtc_kernel", "version": __version__},
            "health": self._health,
            "coverage": self.coverage,
        }
        document.load(
            meta=meta,
            kernels=window.kernels,
            executions=window.executions,
            comms=window.comms,
            cells=window.cells,
            notebook=window.notebook,
            segments=window.parts(),
        )
        if window.kernels:
            self._kernel = window.kernels[0]
        return document

    def _announce(self) -> None:
        info = self.info
        try:
            discovery.write(
                discovery.LiveKernel(
                    kernel_id=str(info["kernel_id"]),
                    agent_pid=os.getpid(),
                    relay_pid=int(info["relay_pid"]),
                    url=self.server.url,
                    token=self._secret,
                    kernel_name=str(info["kernel_name"]),
                    display_name=str(info["display_name"]),
                    notebook=self._kernel.notebook,
                    started_at=float(info["started_at"]),
                    store=self.store_path(),
                    connection_file=str(info["connection_file"]),
                    version=__version__,
                    host=socket.gethostname(),
                    attached=self.is_attached,
                    certfile=self.settings.certfile or None,
                )
            )
        except OSError as exc:
            log.warning("`jupyter rtc list` will not see this kernel: its file cannot be written (%s)", exc)

    def _unlist(self) -> None:
        """Nobody is to find us any more; but whoever took our place."""
        kernel_id = str(self.info["kernel_id"])
        if not self.is_attached or all(kernel.agent_pid == os.getpid() for kernel in _listed(kernel_id)):
            discovery.remove(kernel_id)
        if self._held is not None:
            discovery.let_go(self._held)

    def _share_from_start(self) -> None:
        if self.settings.share and all(token.name != "from-start" for token in self._tokens):
            made = self.server.share(Role(self.settings.share), "from-start")
            print(f"rtc_kernel: {made['role']} link: {made['url']}", file=sys.stderr, flush=True)  # noqa: T201
            if made["proxied_url"]:
                print(f"rtc_kernel: through the server: {made['proxied_url']}", file=sys.stderr, flush=True)  # noqa: T201

    def _publish_from_start(self) -> None:
        """Where the settings say, and where an earlier agent was told to; not where it was told to end."""
        kept: Json = self.store.fact(RELAYS_FACT) or {"relays": [], "ended": [], "relay_id": None}
        ended = kept["ended"] if kept["relay_id"] == self.info["relay_id"] else []
        self._unpublished = list(ended)
        kernel_id, room = str(self.info["kernel_id"]), self.settings.relay_room
        for url in self.settings.relays:
            try:
                if rooms.place(url, room or kernel_id).link not in ended:
                    role = Role(self.settings.relay_role)
                    self.publishers.add(url, room=room, role=role, taken=self._names())
            except SetupError as exc:
                self._problems.append(str(exc))
                log.warning("%s", exc)
        for one in kept["relays"]:
            with contextlib.suppress(SetupError):  # the settings name it, too
                role = Role(one["role"])
                self.publishers.add(one["url"], room=one["room"], role=role, name=one["name"], taken=self._names())

    async def _end(self) -> None:
        """Everything that was seen is stored; then the ports are free."""
        if not self._child_exited:
            self._relay_vanished()
        self._flush()
        self.keep()
        self._unlist()
        unpublishing = asyncio.get_running_loop().create_task(self.publishers.stop(), name="rtc-unpublish")
        await self.comm.stop()
        stopping = asyncio.get_running_loop().create_task(self.server.stop(), name="rtc-stop")
        await asyncio.to_thread(self.store.close)
        await stopping
        await unpublishing

    def _relay_vanished(self) -> None:
        """The relay was killed. Where the system does not do it, we end the child; nobody can reach it any more. One
        that we were only attached to goes on."""
        event = "detached" if self.is_attached else "exited"
        if not self.is_attached:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):
                    os.kill(int(self.info["child_pid"]), signal.SIGKILL)
            shutil.rmtree(str(self.info["back_directory"]), ignore_errors=True)
        gone = link.Child(self._seq + 1, time.time(), event, int(self.info["child_pid"]), None)
        changes = self.mirror.receive_child(gone)
        self._changes += changes
        self._unkept += changes

    # --- in ----------------------------------------------------------------------------------------------------

    def _receive(self, records: list[link.Record]) -> None:
        """What the relay says, in order."""
        if self._hello is not None:
            for record in records:
                if isinstance(record, link.Hello) and not self._hello.done():
                    self._hello.set_result(record.info)
                else:
                    self._early.append(record)
            return
        before = len(self._changes)
        for record in records:
            match record:
                case link.Tapped() | link.Gap() | link.Child():
                    if self._mirror(record):
                        before = 0
                case link.Ask(ask_id, info):
                    self._spawn(self._answer(ask_id, info), "rtc-answer")
                case link.Taken(frames):
                    with contextlib.suppress(RemoteError):
                        self.comm.receive_message(self.codec.read(frames))
                case _:
                    log.error("the relay sent a %s", type(record).__name__)
        self._news.set()
        if self.mirror.waits_for_reply and self._reply_timer is None:
            self._reply_timer = self._loop.call_later(REPLY_CHECK_S, self._check_replies)
        self._pace.receive(self._changes[before:], time.monotonic())
        self._schedule()
        self._tell_actions()
        self._settle_doubts()

    def _settle_doubts(self) -> None:
        doubts = self.mirror.doubts
        for shell in doubts if not self._is_sounding else ():
            self.actions.sound(shell)
        self._is_sounding = bool(doubts)

    def _tell_actions(self) -> None:
        """Whoever acts learns what happened once followers have been shown it."""
        news, self._news_of = self._news_of, []
        self.actions.receive_changes(news)
        self.actions.receive_seq(self._seq)

    def _check_replies(self) -> None:
        self._reply_timer = None
        if changes := self.mirror.receive_time(time.time()):
            self.put(changes)
            self._tell_actions()
        self._settle_doubts()
        if self.mirror.waits_for_reply:
            self._reply_timer = self._loop.call_later(REPLY_CHECK_S, self._check_replies)

    def _mirror(self, record: link.Tapped | link.Gap | link.Child) -> bool:
        """One record of the history becomes changes. Returns whether they were written at once."""
        if record.seq <= self._seq:
            return False
        try:
            changes = self._changes_of(record)
        except Exception:
            log.exception("record %s cannot be mirrored", record.seq)
            self._rebuild(record.seq)
        self._changes += changes
        self._unkept += changes
        self._news_of += changes
        self._seq = record.seq
        if record.seq <= self._careful_until:
            self._flush()
            self.keep()
            return True
        return False

    def _name_hole(self) -> None:
        """What an agent before us had stored and the store has not: its file was lost, or damaged, or cannot be had."""
        acknowledged_seq, now = int(self.info.get("acknowledged_seq", 0)), time.time()
        if acknowledged_seq <= self._seq:
            return
        since = self._kernel.last_activity_at or float(self.info["started_at"])
        gap = link.Gap(acknowledged_seq, min(since, now), now, acknowledged_seq - self._seq, 0)
        self._seq = acknowledged_seq
        self.put(self.mirror.receive_gap(gap))

    def _changes_of(self, record: link.Tapped | link.Gap | link.Child) -> list[Change]:
        if record.seq in self._skip:
            self._is_sounding = False
            at = getattr(record, "at", time.time())
            return self.mirror.receive_gap(link.Gap(record.seq, at, at, 1, 0))
        match record:
            case link.Gap():
                self._is_sounding = False
                return self.mirror.receive_gap(record)
            case link.Child():
                self._child_exited = record.event == "exited"
                if record.event == "started":
                    self.info["child_pid"] = record.pid
                return self.mirror.receive_child(record)
            case link.Tapped(_, at, channel, way, frames):
                try:
                    # what comes from the child needs no proof: nobody else can send on its sockets
                    message = self.codec.read(frames, verify=way is Way.TO_CHILD)
                except RemoteError:
                    return []  # the kernel drops it too
                if way is Way.TO_FRONT and message.session:
                    self.info["session"] = message.session
                    self.info["username"] = message.username
                self.actions.receive_message(channel, way, message)
                return self.mirror.receive_message(Channel(channel), way, message, at)
            case _:
                assert_never(record)

    def _rebuild(self, seq: int) -> None:
        """Note how far we came, and end: the next agent goes on from the store. Does not return."""
        careful = seq <= self._careful_until
        skip = sorted({*self._skip, seq}) if careful else sorted(self._skip)
        fact = {"relay_id": self.info["relay_id"], "until": max(seq, self._careful_until), "skip": skip}
        try:
            self.store.put_fact(CRASH_FACT, fact)
            self.store.flush()
        finally:
            os._exit(EXIT_REBUILD)

    # --- out ---------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._pace.due
        if due is None:
            return
        if due <= time.monotonic():
            self._flush()
        else:
            self._timer = asyncio.get_running_loop().call_later(due - time.monotonic(), self._flush)

    def _flush(self) -> None:
        """Write what was gathered: to the document, to the followers, to the store."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        changes, self._changes = coalesce(self._changes), []
        try:
            self._write(changes)
        except Exception:
            log.exception("records up to %s cannot be written", self._seq)
            self._rebuild(self._seq)
        self._pace.wrote(time.monotonic())
        if self._keep_timer is None:
            self._keep_timer = asyncio.get_running_loop().call_later(self.settings.store_delay_s, self.keep)

    def keep(self) -> None:
        """Give the store what was mirrored, with the state of the mirror that belongs to it. Once for many flushes:
        the state costs more than a row."""
        if self._keep_timer is not None:
            self._keep_timer.cancel()
            self._keep_timer = None
        changes, self._unkept = coalesce(self._unkept), []
        requests, self._unkept_requests = self._unkept_requests, []
        when_kept, self._when_kept = self._when_kept, []
        seq = self._seq
        loop = asyncio.get_running_loop()

        def done(error: Exception | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._stored, seq, error)
                if error is None:
                    for call in when_kept:
                        loop.call_soon_threadsafe(call)

        relay_id, state = str(self.info["relay_id"]), self.mirror.state()
        self.store.write(
            changes, relay_id=relay_id, seq=seq, mirror_state=state, requests=requests, now=time.time(), done=done
        )

    def _write(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, PutKernel):
                self._follow_kernel(change)
        update = self._document.apply(changes) if changes else None
        if update is not None:
            self.server.push(update)
            self.comm.push(update)
            self.publishers.push(update)
            self._watch_epoch()

    def _watch_epoch(self) -> None:
        """Too much in the document is dead: begin an epoch without it, in a quiet moment if there is one."""
        if self._epoch_timer is not None:
            self._epoch_timer.cancel()
            self._epoch_timer = None
        dead, limit = self._document.dead_bytes, self.settings.epoch_bytes
        if dead > EPOCH_FORCED * limit:
            self._begin_epoch()
        elif dead > limit:
            self._epoch_timer = asyncio.get_running_loop().call_later(EPOCH_QUIET_S, self._begin_epoch)

    def _begin_epoch(self) -> None:
        self._epoch_timer = None
        self._document.begin_epoch()
        self._tell_epoch()

    def _tell_epoch(self) -> None:
        self.server.begin_epoch()
        self.comm.begin_epoch()
        self.publishers.begin_epoch()

    def _follow_kernel(self, change: PutKernel) -> None:
        known = {name: getattr(self._kernel, name) for name in Kernel.__dataclass_fields__}
        known.update({name: value for name, value in change.columns.items() if name in known})
        self._kernel = Kernel(**{**known, "id": change.kernel, "state": KernelState(known["state"])})
        if "notebook" in change.columns:
            self._announce()

    def _stored(self, seq: int, error: Exception | None) -> None:
        """The store has committed, or could not."""
        if error is None and seq > self._stored_seq:
            self._stored_seq = seq
            if not self._waits_for_disk:
                self.feed.say(link.Ack(seq))
        if self.store.written_bytes >= self._retain_at_bytes:
            self._retain()
        if truncated := self.store.take_truncated():
            self._write([PutExecution(key, {"metadata": {TRUNCATED: value}}) for key, value in truncated.items()])
        if self.store.health.replay_after is not None:
            log.error("%s", self.store.health.reason)
            os._exit(EXIT_REBUILD)  # the relay has what the store could not take
        self._tell_health()

    def _tell_health(self) -> None:
        """Followers learn it when it is different."""
        health = self._store_health()
        if health != self._health:
            self._health = health
            if health["reason"]:
                log.warning("degraded: %s", health["reason"])
            self._write([PutMeta({"health": health})])

    def _store_health(self) -> Json:
        health = self.store.health
        problems = [*self._problems, *self.publishers.problems]
        reasons = [*problems, *([health.reason] if health.reason else [])]
        return {"status": "degraded" if problems else health.status, "reason": "; ".join(reasons) or None}

    def put(self, changes: list[Change]) -> None:
        """Write changes that did not come of a record."""
        self._changes += changes
        self._unkept += changes
        self._news_of += changes
        self._flush()

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- for the doors (serve.Backend) -------------------------------------------------------------------------

    @property
    def document(self) -> StateDocument:
        """The live document, of the epoch in force."""
        return self._document

    @property
    def requests(self) -> RequestsDocument:
        """What peers ask for, in the epoch in force."""
        return self.actions.document

    def receive_update(self, update: bytes, *, by: str, role: Role) -> int:
        """A peer's update of the requests."""
        return self.actions.receive_update(update, by=by, role=role)

    @property
    def tokens(self) -> Tokens:
        """The tokens in force."""
        return self._tokens

    @property
    def kernel(self) -> Kernel:
        """The kernel's row."""
        return self._kernel

    @property
    def is_attached(self) -> bool:
        """Whether nothing passes the relay's place: somebody else started the kernel, and we follow it."""
        return bool(self.info.get("attached"))

    @property
    def coverage(self) -> str:
        """How much of the kernel we see, as ``meta.coverage`` says it."""
        return "iopub-only" if self.is_attached else "full"

    def reached(self) -> str:
        """How the relay reaches the kernel, where it is not as it was wanted; else empty."""
        why = str(self.info.get("not_ipc") or "")
        return f"over loopback TCP: {why}" if why else ""

    def health(self) -> Json:
        """``status``, ``reason``, ``coverage``, ``relays``."""
        relays = [standing.to_json() for standing in self.publishers.standings]
        return {**self._store_health(), "coverage": self.coverage, "relays": relays}

    def history(self, query: HistoryQuery) -> Page:
        """A page of the history, with all that followers have seen (any thread but the loop's)."""
        self._catch_up()
        return self.read_history(query)

    def execution(self, execution: str) -> Execution | None:
        """One execution of the history, without the text of its streams (any thread but the loop's)."""
        self._catch_up()
        return self.store.outline(execution)

    def segments(self, execution: str, position: int, segment: int) -> Sequence[str]:
        """Some segments of a stream from one on (any thread)."""
        return self.store.text_piece(execution, position, segment, PIECE_BYTES)

    def notebook(self) -> Iterator[str]:
        """The history as a notebook, in pieces (any thread but the loop's)."""
        self._catch_up()
        return self.write_notebook()

    def write_notebook(self, *, without: str = "") -> Iterator[str]:
        """The history as a notebook, in pieces (any thread).

        Args:
            without: an execution that is left out.
        """
        return reading.write_notebook(self.store, self._kernel, self.read_blob, without=without)

    async def complete(self, code: str, cursor_pos: int) -> Json:
        """What the kernel would put in there."""
        return await self.actions.complete(code, cursor_pos)

    def growth(self, execution: str) -> Growth:
        """How the streams of one execution grew (any thread but the loop's)."""
        self._catch_up()
        return self.store.growth(execution)

    def blob(self, digest: str) -> Blob | None:
        """What is kept under a digest (any thread but the loop's)."""
        self._catch_up()
        found = self.store.blob_size(digest)
        return None if found is None else Blob(*found)

    def blob_piece(self, digest: str, start: int, count: int) -> bytes:
        """Bytes of a blob from ``start`` on, at most ``count`` (any thread)."""
        return self.store.blob_piece(digest, start, count)

    def _catch_up(self) -> None:
        """Let the store have what was mirrored; where the disk fails, the reader gets what there is."""

        async def keep() -> None:
            self.keep()

        asyncio.run_coroutine_threadsafe(keep(), self._loop).result()
        with contextlib.suppress(sqlite3.Error):
            self.store.flush()

    def tokens_changed(self) -> None:
        """Tokens were minted or revoked: keep them."""
        self.store.put_tokens(token for token in self._tokens if token.name != OWNER)

    def revoked(self, name: str) -> None:
        """A link was withdrawn: what was asked for by it and was not sent is taken back."""
        self.actions.receive_revoked(name)

    def share(self, role: Role, name: str, expires_s: float | None) -> answers.Link:
        """Make a link for who asks by the kernel's own channels, as ``%rtc share`` does, where that is answered."""
        if not self.settings.magics:
            raise SetupError("links are not made from here, the setting magics is off", "`jupyter rtc share` makes one")
        return self.desk.share(role, name, expires_s)

    def links(self) -> Sequence[answers.Grant]:
        """The links in force."""
        return self.desk.links()

    def unshare(self, name: str) -> None:
        """Withdraw a link."""
        self.desk.unshare(name)

    def introduce(self, client: str, name: str) -> None:
        """The user of a frontend says what to be called."""
        if changes := self.mirror.receive_name(client, name):
            self.put(changes)

    def decide(self, action: str, request: str) -> None:
        """Release or take back what anybody asked for, as ``%rtc queue`` does, where that is answered."""
        if not self.settings.magics:
            raise SetupError("it is not decided from here, the setting magics is off", "`jupyter rtc queue` does it")
        if all(one.id != request for one in self.actions.waiting):
            raise MissingError("that request does not wait any more", "it was sent, taken back or decided by another")
        self.act(action, request)

    def put_cells(self, notebook: str, cells: tuple[Cell, ...]) -> None:
        """The cells of the notebook that a headless run works through."""
        self.put([PutCells(notebook, cells)])

    def clear(self) -> None:
        """Forget the finished executions."""
        self._spawn(self._clear(None), "rtc-clear")

    async def prune(self, query: PruneQuery) -> Json:
        """Bring the history within limits; the live document stays as it is."""
        limits, now = self._keep_limits(query), time.time()
        self.keep()
        try:
            if query.dry_run:
                await asyncio.to_thread(self.store.flush)
                pruned = await asyncio.to_thread(survey, self.store, limits, now=now, is_alive=True)
            else:
                pruned = await asyncio.wrap_future(self.store.retain(limits, now))
        except sqlite3.Error as exc:
            raise SetupError(f"the history cannot be written ({exc})", "free or repair the disk") from exc
        return {
            "executions": pruned.executions_count,
            "bytes": pruned.bytes,
            "executions_left": pruned.executions_left,
        }

    async def _clear(self, before: float | None) -> None:
        try:
            await self.clear_history(before)
        except SetupError as exc:
            log.warning("%s", exc)  # health says it too

    # --- for those who act (actions.House) ---------------------------------------------------------------------

    def say(self, record: link.Record) -> None:
        """To the relay."""
        self.feed.say(record)

    def keep_with(self, requests: Sequence[Request], stored: Callable[[], None]) -> None:
        """Store requests that have ended in one write with the ends of their executions; ``stored`` is called on the
        loop when that is done."""
        if not self._unkept_requests:  # those who asked wait for it
            if self._keep_timer is not None:
                self._keep_timer.cancel()
            delay_s = min(ENDS_DELAY_S, self.settings.store_delay_s)
            self._keep_timer = self._loop.call_later(delay_s, self.keep)
        self._unkept_requests += requests
        self._when_kept.append(stored)

    def record_unsent(self, execution: str, request: Request, state: ExecutionState) -> list[Change]:
        """The row of an execution that never went to the kernel."""
        return self.mirror.record(execution, request, state, time.time())

    def stop_asking(self) -> list[Change]:
        """The question that the kernel asked is answered."""
        return self.mirror.receive_answer()

    def open_executions(self) -> Sequence[Execution]:
        """The executions that have not ended."""
        return [row for row in schema.read_executions(self._document.doc) if row.state not in END_STATES]

    def knows_execution(self, execution: str) -> bool:
        """Whether there is such a row."""
        return self._document.has_execution(execution) or bool(self.store.execution_states([execution]))

    def push_requests(self, update: bytes) -> None:
        """Send an update of the requests to those who write them."""
        self.server.push(update, "requests")
        self.comm.push(update, "requests")
        self.publishers.push(update, "requests")

    def begin_requests_epoch(self) -> None:
        """The requests' document is another one."""
        self.server.begin_epoch("requests")
        self.comm.begin_epoch("requests")
        self.publishers.begin_epoch("requests")

    def close_writers(self, name: str, reason: Reason) -> None:
        """Close the connections over which a peer writes requests."""
        self.server.close_peers(name, reason, room="requests")
        self.comm.close_peers(name, reason)
        self.publishers.bar(name)

    def forget_before(self, before: float | None) -> None:
        """Clear the history of what finished before."""
        self._spawn(self._clear(before), "rtc-clear")

    # --- for the desk (desk.House) -----------------------------------------------------------------------------

    async def _answer(self, ask_id: int, info: Json) -> None:
        try:
            answer = await self.desk.answer(info)
        except Exception as exc:
            log.exception("a %%rtc line could not be answered")
            error = {"ename": type(exc).__name__, "evalue": str(exc), "traceback": [f"{type(exc).__name__}: {exc}"]}
            answer = {"status": "error", "outputs": [["error", error]], "reply": error}
        self.feed.say(link.Answer(ask_id, answer))

    def side_url(self) -> str:
        """Of the side socket, without a token."""
        return self.server.url

    @property
    def is_passage_sure(self) -> bool:
        """Whether the frontend's server is known to pass requests on to the side socket."""
        return self.server.passage is not None and self.server.passage.is_sure

    def store_path(self) -> str | None:
        """Of the history; null: in memory only."""
        return str(self.store.path) if self.store.path else None

    def peers(self) -> list[answers.Peer]:
        """Who follows now."""
        following = {peer.session.name for peer in self.server.peers if peer.room == "state"}
        web = [
            answers.Peer(name=peer.session.name, role=peer.session.role.value, way="websocket", since=peer.since)
            for peer in self.server.peers
            if peer.room == "state" or peer.session.name not in following  # who acts follows as well
        ]
        return web + [
            answers.Peer(
                name=self.mirror.name_of(client) if name in NAMELESS else name,
                role=Role.RUN.value,
                way="comm",
                since=since,
            )
            for client, name, since in self.comm.peers
        ]

    def mint(self, role: Role, name: str, expires_s: float | None) -> Json:
        """Mint a link."""
        return self.server.share(role, name, expires_s)

    def revoke(self, name: str) -> int | None:
        """Withdraw a link; how many peers it cut off, or null where there is none of that name."""
        following = sum(peer.session.name == name and peer.room == "state" for peer in self.server.peers)
        return following if self.server.revoke(name) else None

    def relays_changed(self) -> None:
        """It stands otherwise with a relay."""
        self._loop.call_soon(self._tell_health)

    def publish(self, url: str, room: str, name: str, role: Role) -> Relay:
        """Publish at a relay from now on."""
        relay = self.publishers.add(url, room=room, role=role, name=name, taken=self._names())
        self._unpublished = [link for link in self._unpublished if link != relay.place.link]
        self._keep_relays()
        return relay

    async def unpublish(self, name: str) -> bool:
        """Publish there no more; false: there is none of that name."""
        self._unpublished += [relay.place.link for relay in self.publishers.relays if relay.name == name]
        found = await self.publishers.remove(name)
        self._keep_relays()
        self._tell_health()
        return found

    def standings(self) -> Sequence[Standing]:
        """How it stands with each relay."""
        return self.publishers.standings

    def _keep_relays(self) -> None:
        relays = [
            {"url": one.place.url, "room": one.place.room, "role": one.role.value, "name": one.name}
            for one in self.publishers.relays
        ]
        fact = {"relays": relays, "ended": self._unpublished, "relay_id": self.info["relay_id"]}
        self.store.put_fact(RELAYS_FACT, fact)

    def _names(self) -> list[str]:
        """Of links."""
        return [token.name for token in self._tokens]

    def waiting(self) -> Sequence[Request]:
        """The requests that were not sent, in order."""
        return self.actions.waiting

    def act(self, action: str, request: str) -> None:
        """``release`` or ``cancel`` a request, as the kernel's user."""
        self.actions.write({"action": action, "request": request}, by=OWNER, role=Role.OWN)

    def mark_private(self, msg_id: str) -> None:
        """Record this execution without code and outputs."""
        self.put(self.mirror.mark_private(msg_id))

    async def settle(self, msg_id: str) -> None:
        """Wait until what happened before this execution is in the store."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self.mirror.open_before(msg_id):
                    self._news.clear()
                    await self._news.wait()
        self.keep()
        with contextlib.suppress(sqlite3.Error):  # health says it; the answer is what there is
            await asyncio.to_thread(self.store.flush)

    async def clear_history(self, before: float | None = None) -> int:
        """Forget what is finished (and finished before), and begin an epoch without it; how many executions went."""
        async with self._clearing:
            self.keep()
            try:
                count = await asyncio.wrap_future(self.store.clear(before))
                self.keep()
                await asyncio.to_thread(self.store.flush)
                # Records came meanwhile. The document is made from the store, so for a moment nothing else may happen.
                self.keep()
                self.store.flush()
            except sqlite3.Error as exc:
                raise SetupError(f"the history cannot be written ({exc})", "free or repair the disk") from exc
            self._changes.clear()  # the store has them
            queries = schema.read_queries(self._document.doc)
            self._document = self._load_document(self._read_window(self.store))
            # they are only in the document, and somebody may be waiting for one
            self._document.apply([PutQuery(query.id, query.columns()) for query in queries])
            self._tell_epoch()
            return count

    def read_history(self, query: HistoryQuery) -> Page:
        """A page of the history (any thread)."""
        return reading.read_page(self.store, query, self._ends)

    def read_execution(self, key: str) -> Execution | None:
        """One execution by id, beginning of an id, or number, with its beginning and its end (any thread)."""
        return self.store.execution(key, self._ends)

    def read_blob(self, digest: str) -> bytes | None:
        """A large value (any thread)."""
        found = self.store.blob(digest)
        return None if found is None else found[0]

    def count(self) -> int:
        """How many executions the history has (any thread)."""
        return self.store.count()

    def ids(self) -> list[str]:
        """Numbers of the newest executions, newest first, as ``%rtc show`` takes them (any thread)."""
        return [f"#{run.seq}" for run in self.store.history(limit=50, brief=True)[0]]


def passage(settings: RTCKernel) -> Passage | None:
    """The Jupyter server that may pass requests on to our port."""
    has_proxy = importlib.util.find_spec("jupyter_server_proxy") is not None
    return find_passage(settings.public_url, os.environ, has_proxy=has_proxy)


def _listed(kernel_id: str) -> list[discovery.LiveKernel]:
    return [kernel for kernel in discovery.live() if kernel.kernel_id == kernel_id]


def _known_port(kernel_id: str) -> int:
    """The port of an agent before us, where the history cannot say it; else 0."""
    try:
        return urlsplit(discovery.find(kernel_id).url).port or 0
    except (SetupError, OSError, ValueError):
        return 0


def _known_secret(kernel_id: str) -> str | None:
    """The owner's token of an agent before us, so that those who have it keep their way in."""
    try:
        found = discovery.find(kernel_id)
    except (SetupError, OSError, ValueError):
        return None
    return found.token if found.kernel_id == kernel_id else None
