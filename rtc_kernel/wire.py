"""What does a Jupyter message look like as frames, and is it signed by who holds the key?

Pure: bytes in, values out. No state but the key. The raw frames are kept beside the parsed parts, so that
whoever forwards a message forwards what was received and not what was understood.

Source: jupyter_client, docs/messaging.rst, "The wire protocol" (version 5.5):
``[ident*, b"<IDS|MSG>", signature, header, parent_header, metadata, content, buffer*]``.
The signature is the hex HMAC of the four JSON frames; buffers are not signed; an empty key means unsigned.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .errors import Reason, RemoteError

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.5"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One Jupyter message, decoded.

    Attributes:
        header, parent, metadata, content: the four JSON objects, parsed.
        buffers: raw binary buffers, in order.
        idents: routing frames in front of the delimiter (iopub: the topic).
    """

    header: Json
    parent: Json
    metadata: Json
    content: Json
    buffers: tuple[bytes, ...] = ()
    idents: tuple[bytes, ...] = ()

    @property
    def type(self) -> str:
        """``header.msg_type``, or the empty string."""
        return _text(self.header, "msg_type")

    @property
    def id(self) -> str:
        """``header.msg_id``, or the empty string."""
        return _text(self.header, "msg_id")

    @property
    def session(self) -> str:
        """``header.session``, or the empty string."""
        return _text(self.header, "session")

    @property
    def username(self) -> str:
        """``header.username``, or the empty string."""
        return _text(self.header, "username")

    @property
    def parent_id(self) -> str:
        """``parent_header.msg_id``, or the empty string."""
        return _text(self.parent, "msg_id")

    @property
    def parent_type(self) -> str:
        """``parent_header.msg_type``, or the empty string."""
        return _text(self.parent, "msg_type")


def _text(obj: Json, key: str) -> str:
    value = obj.get(key)
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class Parts:
    """The frames of one message, split but not parsed: what a relay needs to decide without paying for JSON."""

    idents: tuple[bytes, ...]
    signature: bytes
    header: bytes
    parent: bytes
    metadata: bytes
    content: bytes
    buffers: tuple[bytes, ...]


def split(frames: Sequence[bytes]) -> Parts:
    """Split frames at the delimiter.

    Args:
        frames: ``[ident*, DELIMITER, signature, header, parent, metadata, content, buffer*]``.

    Raises:
        RemoteError: no delimiter, or fewer than five frames behind it (drop the message as a kernel does).
    """
    try:
        at = frames.index(DELIMITER)
    except ValueError:
        raise RemoteError(Reason.MALFORMED, "no <IDS|MSG> delimiter") from None
    if len(frames) < at + 6:
        raise RemoteError(Reason.MALFORMED, f"{len(frames) - at - 1} frames behind the delimiter, not 5")
    signature, header, parent, metadata, content = frames[at + 1 : at + 6]
    return Parts(tuple(frames[:at]), signature, header, parent, metadata, content, tuple(frames[at + 6 :]))


def parse(raw: bytes) -> Json:
    """One JSON frame as an object; null, which kernels of xeus write for an empty one, is empty.

    Raises:
        RemoteError: not JSON, not UTF-8, nested too deeply, or not an object.
    """
    if raw in (b"{}", b"null"):
        return {}
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise RemoteError(Reason.MALFORMED, f"not JSON: {type(exc).__name__}") from exc
    if not isinstance(value, dict):
        raise RemoteError(Reason.MALFORMED, f"a JSON {type(value).__name__}, not an object")
    return value


def pack(value: Mapping[str, Any]) -> bytes:
    """One JSON object as a frame, UTF-8, as jupyter_client writes it. What JSON does not have becomes null."""
    try:
        text = _dumps(value)
    except ValueError:
        text = _dumps(finite(value))
    return text.encode("utf-8", "backslashreplace")


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)


def finite(value: Any) -> Any:
    """The same value without NaN and infinities, which JSON does not have but Python reads: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(slots=True)
class Codec:
    """Reads and writes messages of one kernel, with that kernel's key.

    Args:
        key: the connection file's ``key``; empty means that messages are not signed.
        scheme: ``hmac-`` and a hashlib name, e.g. ``hmac-sha256``.
    """

    key: bytes
    scheme: str = "hmac-sha256"
    _auth: hmac.HMAC | None = field(init=False, repr=False, default=None)
    _last_parent: tuple[bytes, Json] = field(init=False, repr=False, default=(b"{}", {}))

    def __post_init__(self) -> None:
        name = self.scheme.removeprefix("hmac-")
        if name not in hashlib.algorithms_available:
            raise RemoteError(Reason.MALFORMED, f"unknown signature scheme {self.scheme!r}")
        if self.key:
            self._auth = hmac.new(self.key, digestmod=name)

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """The signature of the four JSON frames, in order; empty where there is no key."""
        if self._auth is None:
            return b""
        auth = self._auth.copy()
        for part in parts:
            auth.update(part)
        return auth.hexdigest().encode()

    def verify(self, parts: Parts) -> bool:
        """Whether the signature is the right one (constant time)."""
        if self._auth is None:
            return True
        right = self.sign((parts.header, parts.parent, parts.metadata, parts.content))
        return hmac.compare_digest(right, parts.signature)

    def read(self, frames: Sequence[bytes], *, verify: bool = True) -> Message:
        """Decode one message.

        Args:
            frames: as received, routing frames included.
            verify: check the signature (messages of the child need none: it holds the key's only other copy).

        Raises:
            RemoteError: split, signature or JSON is wrong.
        """
        parts = split(frames)
        if verify and not self.verify(parts):
            raise RemoteError(Reason.MALFORMED, "bad signature")
        if parts.parent != self._last_parent[0]:  # a run's messages all have the same parent
            self._last_parent = (parts.parent, parse(parts.parent))
        return Message(
            parse(parts.header),
            self._last_parent[1],
            parse(parts.metadata),
            parse(parts.content),
            parts.buffers,
            parts.idents,
        )

    def write(
        self,
        header: Mapping[str, Any],
        content: Mapping[str, Any],
        *,
        parent: bytes | Mapping[str, Any] = b"{}",
        metadata: Mapping[str, Any] | None = None,
        idents: Sequence[bytes] = (),
        buffers: Sequence[bytes] = (),
    ) -> list[bytes]:
        """Encode and sign one message.

        Args:
            parent: the raw header frame of the request (bytes are passed through unparsed), or an object.
        """
        parts = [
            pack(header),
            parent if isinstance(parent, bytes) else pack(parent),
            pack(metadata or {}),
            pack(content),
        ]
        return [*idents, DELIMITER, self.sign(parts), *parts, *buffers]


def new_header(msg_type: str, *, session: str, username: str, date: datetime | None = None) -> Json:
    """A fresh header.

    Args:
        session: what we emit toward frontends must carry the child's session id: JupyterLab cancels the
            handling of queued messages when the session changes between two messages.
        date: the time to write (UTC); now when not given.
    """
    return {
        "msg_id": uuid.uuid4().hex,
        "msg_type": msg_type,
        "username": username,
        "session": session,
        "date": (date or datetime.now(UTC)).isoformat().replace("+00:00", "Z"),
        "version": PROTOCOL_VERSION,
    }
