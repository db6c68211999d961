"""Which kernels does a program work with for as long as it runs, and under which name does everybody see it?

Owns one followed document per kernel that was used. A kernel of this user is not followed with the owner's token: it
gets a link of its own, by whose name people see what is asked for with it, with no more than the role that is needed,
and which they can withdraw. It is made when the kernel is used first, and withdrawn at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from urllib.parse import quote

from .. import discovery
from ..client import Address, Document, call, connect
from ..errors import SetupError
from ..tables import Json
from .kernels import ask_all

LINK_S = 7 * 86400.0
"""How long a link is in force at most: nobody withdraws that of a program that was killed. Seconds."""

CONNECTED_S = 10.0
"""How long a document that lost its connection may take to have another one. Seconds."""

WITHDRAWN_S = 1.0
"""How long the end may take: programs that start us kill us 2 s after they have closed our stdin. Seconds."""

ATTEMPTS = 3
"""How often a free name is looked for, where another program takes it first."""

URL = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Link:
    """A link that we made. ``expires_at``: POSIX seconds."""

    name: str
    token: str
    expires_at: float


@dataclass(slots=True, eq=False)
class Linked:
    """A kernel that is followed.

    Attributes:
        target: what it was connected with: a kernel's id, or a URL.
        link: ours; null where somebody gave us one.
        users: how many use it now.
    """

    doc: Document
    target: str
    link: Link | None
    stack: AsyncExitStack
    users: int = 0

    @property
    def is_expired(self) -> bool:
        """Whether the time of our link is up: then another one may be made. One that was withdrawn was meant."""
        return self.link is not None and time.time() >= self.link.expires_at


class Kernels:
    """The kernels that one program may use.

    Args:
        target: the only one, as a link or a kernel's name; null: all that live on this machine.
        token: of that link; null: its own, or the owner's, with which a link is made.
        role: of links that are made.
        name: of links that are made; null: what the program calls itself.
    """

    def __init__(self, target: str | None, token: str | None, *, role: str, name: str | None) -> None:
        self._target = target
        self._token = token
        self._role = role
        self._name = name
        self._opened: dict[str, asyncio.Task[Linked]] = {}

    def __repr__(self) -> str:
        return f"<Kernels {(self._target or 'all').partition('?')[0]}: {len(self._opened)} followed>"

    async def found(self) -> list[Json]:
        """The kernels that may be used: what :func:`kernels.ask_all` says of them; of one behind a URL what it says
        itself."""
        if self._target is not None and self._target.startswith(URL):
            address = Address.resolve(self._target, self._token)
            health = await call(address, "GET", "/api/health")
            row = health.get("kernel") or {}
            told = {name: row.get(name) for name in ("state", "display_name", "notebook")}
            return [{**told, "kernel_id": row.get("id") or "", "peers": health.get("peers")}]
        live = discovery.live()
        return await ask_all(live if self._target is None else [discovery.find(self._target, live)])

    @asynccontextmanager
    async def use(self, name: str | None, known_as: str) -> AsyncIterator[Linked]:
        """A kernel's document, connected.

        Args:
            name: as :func:`discovery.find` takes it; null: the only one.
            known_as: what the program calls itself.

        Raises:
            SetupError: none or several of that name, it does not answer, or our link was withdrawn.
        """
        key = self._resolve(name)
        linked = await self._open(key, known_as)
        linked.users += 1
        try:
            try:
                await linked.doc.wait_for(lambda doc: doc.connected, CONNECTED_S)
            except TimeoutError:
                raise SetupError(
                    f"kernel {key.partition('?')[0]} does not answer ({linked.doc.trouble or 'no connection'})",
                    "try again, or look whether it lives",
                ) from None
            yield linked
        finally:
            linked.users -= 1

    async def close(self) -> None:
        """Withdraw our links, and follow nobody any more."""
        opened, self._opened = self._opened, {}
        for task in opened.values():
            if not task.done():
                task.cancel()
        await asyncio.gather(*(_end(task) for task in opened.values()))

    # ---

    def _resolve(self, name: str | None) -> str:
        """What to connect with."""
        if self._target is not None and self._target.startswith(URL):
            return self._target
        live = discovery.live()
        self._drop_gone({kernel.kernel_id for kernel in live})
        if self._target is None:
            return (discovery.find(name, live) if name else discovery.only(live)).kernel_id
        kernel = discovery.find(self._target, live)
        if name and not kernel.kernel_id.startswith(name):
            raise SetupError(f"only kernel {kernel.kernel_id} may be used here", "leave `kernel` out", 2)
        return kernel.kernel_id

    def _drop_gone(self, live: set[str]) -> None:
        for key, task in list(self._opened.items()):
            if key not in live and task.done() and not (_failed(task) or task.result().users):
                del self._opened[key]
                asyncio.create_task(_end(task), name=f"rtc-drop {key}").add_done_callback(_look_at)

    async def _open(self, key: str, known_as: str) -> Linked:
        """By a task of its own: whoever is cancelled while it waits leaves no half of a link."""
        task = self._opened.get(key)
        if task is not None and task.done():
            if _failed(task):
                task = None
            elif (problem := _problem(task.result().doc)) is not None:
                if not task.result().is_expired:
                    raise SetupError(
                        f"the link to kernel {key.partition('?')[0]} is not in force any more ({problem.what})",
                        "ask the people at the kernel; they withdrew it, or it was started anew. Starting this server "
                        "again makes another one",
                    )
                await _end(task)
                task = None
        if task is None:
            task = self._opened[key] = asyncio.create_task(self._connect(key, known_as), name=f"rtc-link {key[:40]}")
            task.add_done_callback(_look_at)
        return await asyncio.shield(task)

    async def _connect(self, key: str, known_as: str) -> Linked:
        async with AsyncExitStack() as stack:
            link, token = None, self._token
            if token is None and not key.startswith(URL):
                link = await make_link(discovery.find(key), self._name or known_as, self._role)
                stack.push_async_callback(withdraw_link, key, link)
                token = link.token
            doc = await stack.enter_async_context(connect(key, token))
            return Linked(doc, key, link, stack.pop_all())


async def make_link(kernel: discovery.LiveKernel, name: str, role: str) -> Link:
    """A link of this name, or of the next free one: ``agent``, ``agent-2``, …

    Raises:
        SetupError: the kernel does not answer.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(SetupError):
            return await _try_link(kernel, name, role)
    return await _try_link(kernel, name, role)


async def _try_link(kernel: discovery.LiveKernel, name: str, role: str) -> Link:
    address = Address.of(kernel)
    taken = {str(token["name"]) for token in (await call(address, "GET", "/api/share"))["tokens"]}
    free = next(one for one in _names(name) if one not in taken)
    made = await call(address, "POST", "/api/share", {"role": role, "name": free, "expires_s": LINK_S})
    return Link(str(made["name"]), str(made["token"]), float(made["expires_at"]))


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in count(2))


async def withdraw_link(kernel_id: str, link: Link) -> None:
    """Take a link out of force, if its kernel still lives. A name whose time is up may be somebody else's."""
    if time.time() >= link.expires_at:
        return
    with suppress(SetupError, TimeoutError):
        async with asyncio.timeout(WITHDRAWN_S):
            address = Address.of(discovery.find(kernel_id))
            await call(address, "DELETE", f"/api/share/{quote(link.name, safe='')}")


async def _end(task: asyncio.Task[Linked]) -> None:
    await asyncio.wait({task})
    if not _failed(task):
        await task.result().stack.aclose()


def _failed(task: asyncio.Task[Linked]) -> bool:
    return task.cancelled() or task.exception() is not None


def _problem(doc: Document) -> SetupError | None:
    try:
        doc.raise_if_refused()
    except SetupError as exc:
        return exc
    return None


def _look_at(task: asyncio.Task[Linked] | asyncio.Task[None]) -> None:
    """Whoever waits for it is told; if nobody does any more, nobody need be."""
    if not task.cancelled():
        task.exception()
