"""Where are the documents of a room, at a relay engine?

Pure: names in, names out. A *room* is what one publishes to and follows; in it are the documents of one kernel or of
many. Its **index** lists them, because a document of a kernel has another name in each of its lives: an engine keeps
a document as long as anybody has it open, so a new life cannot take the name of the one before.

::

    <room>/index                              kernels: kernel id -> an Entry; written by the agents
    <room>/<kernel id>/state/<life>           written by that kernel's agent alone
    <room>/<kernel id>/requests/<life>        written by peers, where they may

Parts are percent-encoded, so that "/" separates and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .errors import SetupError
from .tables import SCHEMA_VERSION, Json

INDEX_ROOT = "kernels"
"""The root map of an index document."""

INDEX_BYTES = 1 << 20
"""A room's index may have so many bytes; one with more is dropped, and the relay tried again later."""

ROOM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a room may be called: a kernel id may, too."""


@dataclass(frozen=True, slots=True)
class Place:
    """A room at a relay. ``url``: of the engine's WebSocket, without a slash at its end."""

    url: str
    room: str

    @property
    def link(self) -> str:
        """What a follower is given; it has no token."""
        return f"{self.url}/{self.room}"

    @property
    def host(self) -> str:
        """Of the relay, with the port where the URL names one."""
        return urlsplit(self.url).netloc

    @property
    def is_open(self) -> bool:
        """Whether what is sent can be read on its way: beyond this machine, and without TLS."""
        parts = urlsplit(self.url)
        return parts.scheme == "ws" and (parts.hostname or "") not in ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A kernel in an index.

    Attributes:
        kernel: its id.
        state, requests: the names of its documents now; ``requests`` is null where nothing can be asked for there.
        client: the Yjs client id of the one writer of ``state``.
        schema: of the tables; who does not know it cannot read the documents.
        started_at: of the kernel; POSIX seconds.
    """

    kernel: str
    state: str
    requests: str | None
    client: int
    name: str = ""
    display_name: str = ""
    language: str = ""
    notebook: str | None = None
    host: str = ""
    started_at: float | None = None
    schema: int = SCHEMA_VERSION

    def to_json(self) -> Json:
        """The value in the index."""
        value = asdict(self)
        del value["kernel"]
        return value

    @classmethod
    def read(cls, kernel: str, value: Any) -> Entry | None:
        """An entry from what stands in an index; null: it is none. What is not known is passed over."""
        if not isinstance(value, Mapping):
            return None
        texts = {key: value.get(key) for key in ("state", "requests", "name", "display_name", "language", "host")}
        numbers = {key: value.get(key) for key in ("client", "started_at", "schema")}
        if not isinstance(texts["state"], str) or not isinstance(numbers["client"], int | float):
            return None
        started = numbers["started_at"]
        notebook = value.get("notebook")
        return cls(
            kernel=kernel,
            state=texts["state"],
            requests=texts["requests"] if isinstance(texts["requests"], str) else None,
            client=int(numbers["client"]),
            notebook=notebook if isinstance(notebook, str) else None,
            started_at=float(started) if isinstance(started, int | float) else None,
            schema=int(numbers["schema"] or 0) if isinstance(numbers["schema"], int | float) else 0,
            **{key: str(texts[key] or "") for key in ("name", "display_name", "language", "host")},
        )


def index_name(room: str) -> str:
    """The name of a room's index."""
    return f"{room}/index"


def document_name(room: str, kernel: str, kind: str, life: str) -> str:
    """The name of a kernel's document. ``kind``: ``state`` | ``requests``."""
    return f"{room}/{quote(kernel, safe='')}/{kind}/{quote(life, safe='')}"


def place(url: str, room: str) -> Place:
    """Where to publish.

    Args:
        url: of the relay's WebSocket, ``ws://`` or ``wss://``.
        room: its name.

    Raises:
        SetupError: one of them cannot be used.
    """
    parts = _split(url)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise SetupError(f"{parts.scheme}://{parts.hostname} has more than a host and a path", "leave it out")
    if not ROOM.fullmatch(room):
        raise SetupError(f"a room cannot be called {room!r}", "give letters, digits, '.', '_' and '-'")
    return Place(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", room)


@dataclass(frozen=True, slots=True)
class Target:
    """What is followed: a kernel of a room; ``kernel`` null: the only one. ``token``: for the relay."""

    place: Place
    kernel: str | None = None
    token: str | None = None


def is_link(target: str) -> bool:
    """Whether this is a link to a room at a relay."""
    return target.startswith(("ws://", "wss://"))


def parse_link(target: str) -> Target:
    """``ws[s]://HOST[:PORT][/PATH]/ROOM[?kernel=ID][&token=TOKEN]``.

    Raises:
        SetupError: it is no such link.
    """
    parts = _split(target)
    base, _, room = parts.path.rstrip("/").rpartition("/")
    if not room:
        raise SetupError(f"{parts.scheme}://{parts.netloc} names no room", "put its name behind the last slash")
    query = parse_qs(parts.query)
    found = place(f"{parts.scheme}://{parts.netloc}{base}", unquote(room))
    return Target(found, query.get("kernel", [None])[0], query.get("token", [None])[0])


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise SetupError("this is no address of a relay", "give ws://HOST:PORT or wss://HOST")
    return parts
