"""Who asks with a ``%rtc`` line, and what is the answer?

The desk reads a line (``act.magics``), does what it says with the store, the document and the side socket, and has
the answer written (``act.answers``). A line that fails fails its cell with one line; nothing else is touched.
Who asks for links over a comm has them by the same methods: :meth:`Desk.share`, :meth:`Desk.links`,
:meth:`Desk.unshare`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, assert_never

from .. import __version__
from ..errors import MissingError, RTCError, SetupError
from ..tables import END_STATES, Execution, ExecutionState, Json, Kernel, Request, RequestState
from .act import answers, magics
from .act.answers import Published
from .mirror import UNRECORDED
from .serve import HISTORY_LIMIT, HistoryQuery, Page
from .serve.access import Role, Tokens
from .serve.publish import Relay, Standing


class House(Protocol):
    """What the desk needs of the agent."""

    @property
    def kernel(self) -> Kernel:
        """The kernel's row."""

    @property
    def tokens(self) -> Tokens:
        """The links in force."""

    def health(self) -> Json:
        """``status`` and ``reason``."""

    def reached(self) -> str:
        """How the relay reaches the kernel, where it is not as it was wanted; else empty."""

    def side_url(self) -> str:
        """Of the side socket, without a token."""

    @property
    def is_passage_sure(self) -> bool:
        """Whether the frontend's server is known to pass requests on to the side socket."""

    def store_path(self) -> str | None:
        """Of the history; null: in memory only."""

    def peers(self) -> Sequence[answers.Peer]:
        """Who follows now."""

    def mint(self, role: Role, name: str, expires_s: float | None) -> Json:
        """Mint a link: ``name``, ``role``, ``url``, ``proxied_url``, ``expires_at``."""

    def revoke(self, name: str) -> int | None:
        """Withdraw a link; how many peers it cut off, or null where there is none of that name."""

    def publish(self, url: str, room: str, name: str, role: Role) -> Relay:
        """Publish at a relay from now on."""

    async def unpublish(self, name: str) -> bool:
        """Publish there no more; false: there is none of that name."""

    def standings(self) -> Sequence[Standing]:
        """How it stands with each relay."""

    def waiting(self) -> Sequence[Request]:
        """The requests that were not sent, in order."""

    def act(self, action: str, request: str) -> None:
        """``release`` or ``cancel`` a request, as the kernel's user."""

    def mark_private(self, msg_id: str) -> None:
        """Record this execution without code and outputs."""

    async def settle(self, msg_id: str) -> None:
        """Wait until what happened before this execution is in the store."""

    async def clear_history(self) -> int:
        """Forget what is finished; how many executions that were."""

    def read_history(self, query: HistoryQuery) -> Page:
        """A page of the history (any thread)."""

    def write_notebook(self, *, without: str = "") -> Iterator[str]:
        """The history but for one execution as a notebook: JSON text in pieces (any thread)."""

    def read_execution(self, key: str) -> Execution | None:
        """One execution, of a long one the ends (any thread)."""

    def read_blob(self, digest: str) -> bytes | None:
        """A large value (any thread)."""

    def count(self) -> int:
        """How many executions the history has (any thread)."""

    def ids(self) -> Sequence[str]:
        """Numbers of the newest executions, newest first, as ``%rtc show`` takes them (any thread)."""


class Desk:
    """Answers what the relay asks. ``house``: the agent."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def answer(self, info: Json) -> Json:
        """The ``info`` of an :class:`link.Answer` to the ``info`` of an :class:`link.Ask`."""
        match info.get("kind"):
            case "execute":
                return await self._execute(info)
            case "complete":
                return {"status": "ok", "reply": await self._complete(str(info["code"]), int(info["cursor_pos"]))}
            case "inspect":
                return {"status": "ok", "reply": _inspect(str(info["code"]), int(info["cursor_pos"]))}
            case kind:
                return {"status": "error", "outputs": [], "reply": {"ename": "RTCError", "evalue": f"no {kind}"}}

    async def _execute(self, info: Json) -> Json:
        outputs: list[Published] = []
        payload: list[Json] = []
        try:
            for line in info["lines"]:
                command = magics.parse(line)
                if isinstance(command, magics.Help) and "?" in line:
                    page = {"text/plain": magics.usage(command.command)}
                    payload.append({"source": "page", "data": page, "start": 0})
                else:
                    outputs += await self._do(command, str(info.get("msg_id")))
        except RTCError as exc:
            error = answers.error_content(exc)
            return {"status": "error", "outputs": [*outputs, *answers.render_error(exc)], "reply": error}
        return {"status": "ok", "outputs": outputs, "reply": {"payload": payload}}

    async def _do(self, command: magics.Command, msg_id: str) -> list[Published]:
        house, now = self._house, time.time()
        match command:
            case magics.Status():
                await house.settle(msg_id)
                return answers.render_status(await self._facts(), now)
            case magics.Share(role, name, _, str(url), room):
                relay = house.publish(url, room or "", name or "", Role(role))
                return answers.render_publish(next(one for one in self._relays() if one.name == relay.name))
            case magics.Share(role, name, expires_s):
                shown = answers.render_share(self.share(Role(role), name or "", expires_s), now)
                return [(kind, {**content, "transient": {UNRECORDED: True}}) for kind, content in shown]
            case magics.Unshare(name, every):
                return await self._unshare(name, every)
            case magics.Who():
                return answers.render_who(house.peers(), self.links(), now, self._relays())
            case magics.Queue(release, cancel):
                return self._queue(release, cancel)
            case magics.History(limit, grep, state):
                await house.settle(msg_id)
                query = HistoryQuery(limit=limit, grep=grep, state=state.value if state else None)
                page = await asyncio.to_thread(house.read_history, query)
                return answers.render_history(page.executions, now, more=page.next is not None)
            case magics.Show(key):
                await house.settle(msg_id)
                execution = await asyncio.to_thread(house.read_execution, key)
                return await asyncio.to_thread(answers.render_show, execution, house.read_blob, now, key=key)
            case magics.Private():
                house.mark_private(msg_id)
                return answers.render_private()
            case magics.Export(path, force):
                await house.settle(msg_id)
                return await asyncio.to_thread(self._export, path, force, msg_id)
            case magics.Clear():
                await house.settle(msg_id)
                return answers.render_clear(await house.clear_history())
            case magics.Help(name):
                return answers.render_help(name)
            case _:
                assert_never(command)

    async def _facts(self) -> answers.StatusFacts:
        house = self._house
        open_rows: dict[ExecutionState, int] = {}
        for state in ExecutionState:
            if state not in END_STATES:
                query = HistoryQuery(limit=HISTORY_LIMIT, state=state.value, brief=True)
                page = await asyncio.to_thread(house.read_history, query)
                open_rows[state] = len(page.executions)
        health = house.health()
        return answers.StatusFacts(
            kernel=house.kernel,
            version=__version__,
            health=str(health["status"]),
            reason=str(health["reason"] or ""),
            reached=house.reached(),
            url=house.side_url(),
            store=house.store_path(),
            executions_count=await asyncio.to_thread(house.count),
            running_count=open_rows[ExecutionState.RUNNING],
            queued_count=open_rows[ExecutionState.QUEUED],
            peers_count=len(house.peers()),
            links_count=len(self.links()),
            relays=self._relays(),
        )

    # --- relays

    def _relays(self) -> list[answers.RelayFacts]:
        return [
            answers.RelayFacts(
                name=one.name,
                link=f"{one.url}/{one.room}",
                role=one.role,
                state=one.state,
                since=one.since,
                behind_messages=one.behind_messages,
                behind_bytes=one.behind_bytes,
                behind_s=one.behind_s,
                trouble=one.trouble,
            )
            for one in self._house.standings()
        ]

    async def _unshare(self, name: str | None, every: bool) -> list[Published]:
        """Withdraw links, and publish at relays no more: those of a name, or all."""
        relays = [one.name for one in self._house.standings()]
        if not relays:
            return answers.render_unshare(*self.unshare(name, every=every))
        known = [*(link.name for link in self.links()), *relays]
        if name is None and not every and len(known) > 1:
            raise SetupError(f"more than one link is in force ({', '.join(known)})", "name one, or give --all")
        left = [one for one in relays if name in (None, one)]
        for one in left:
            await self._house.unpublish(one)
        if name in left:
            return answers.render_unshare([], 0, left)
        return answers.render_unshare(*self.unshare(name, every=True), left)

    # --- links

    def share(self, role: Role, name: str, expires_s: float | None) -> answers.Link:
        """Make a link.

        Args:
            name: an empty one is replaced by a free one.
            expires_s: seconds until it ends; null: never.

        Raises:
            SetupError: the name is taken or cannot be one, or the time cannot be.
        """
        made = self._house.mint(role, name, expires_s)
        return answers.Link(
            name=made["name"],
            role=made["role"],
            url=made["url"],
            proxied_url=made["proxied_url"],
            is_proxy_sure=self._house.is_passage_sure,
            expires_at=made["expires_at"],
        )

    def links(self) -> list[answers.Grant]:
        """The links that were given to somebody and are in force: all tokens but the owner's own."""
        now = time.time()
        return [
            answers.Grant(name=one.name, role=one.role.value, created_at=one.created_at, expires_at=one.expires_at)
            for one in self._house.tokens
            if one.role is not Role.OWN and (one.expires_at is None or one.expires_at > now)
        ]

    def unshare(self, name: str | None, *, every: bool = False) -> tuple[list[str], int]:
        """Withdraw a link, the only one there is, or every one; which, and how many peers that cut off.

        Raises:
            SetupError: there is no such link, or more than one to choose from.
        """
        links = [link.name for link in self.links()]
        if name is None and not every and len(links) > 1:
            raise SetupError(f"more than one link is in force ({', '.join(links)})", "name one, or give --all")
        if name is not None and name not in links:
            known = f"there are {', '.join(links)}" if links else "no link is in force"
            raise MissingError(f"there is no link named {name!r}", known)
        chosen = [name] if name is not None else links
        return chosen, sum(self._house.revoke(one) or 0 for one in chosen)

    # ---

    def _queue(self, release: str | None, cancel: str | None) -> list[Published]:
        """Show what waits, or act on it as the kernel's user."""
        waiting = self._house.waiting()
        key = release or cancel
        if key is None:
            return answers.render_queue(waiting, time.time())
        chosen = [one for one in waiting if key == "all" or one.id.startswith(key)]
        if release is not None:
            chosen = [one for one in chosen if one.state is RequestState.HELD]
        if key != "all" and len(chosen) != 1:
            raise magics.UsageError(f"no one {'held ' if release else ''}request begins with {key!r}: %rtc queue")
        for one in chosen:
            self._house.act("release" if release else "cancel", one.id)
        return answers.render_queued("Released" if release else "Taken back", len(chosen))

    def _export(self, text: str, force: bool, msg_id: str) -> list[Published]:
        path = Path(text).expanduser()
        if path.exists() and not force:
            raise SetupError(f"{path} exists", "give another name, or --force to replace it")
        partial = path.with_name(path.name + ".partial")
        try:
            with partial.open("wb") as file:
                for piece in self._house.write_notebook(without=msg_id):
                    file.write(piece.encode("utf-8", "replace"))
                size = file.tell()
            partial.replace(path)
        except OSError as exc:
            partial.unlink(missing_ok=True)
            raise SetupError(f"{path} cannot be written ({exc.strerror})", "give another file name") from exc
        return answers.render_export(str(path.resolve()), max(0, self._house.count() - 1), size)

    async def _complete(self, code: str, cursor_pos: int) -> Json:
        ids = await asyncio.to_thread(self._house.ids)
        names = [link.name for link in self.links()]
        names += [one.name for one in self._house.standings()]
        requests = [one.id for one in self._house.waiting()]
        matches, start, end = magics.complete(code, cursor_pos, ids, names, requests)
        return {"status": "ok", "matches": matches, "cursor_start": start, "cursor_end": end, "metadata": {}}


def _inspect(code: str, cursor_pos: int) -> Json:
    text = magics.inspect(code, cursor_pos)
    data = {} if text is None else {"text/plain": text}
    return {"status": "ok", "found": text is not None, "data": data, "metadata": {}}
