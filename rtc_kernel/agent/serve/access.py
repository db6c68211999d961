"""Whose token is this, and what may its bearer do?

Pure. Owns the tokens in force, as hashes: a secret exists in the moment of minting and at its bearer, never here.
It does not know connections; whoever revokes a token closes them.

Theory of the roles. They are ordered, ``view < run < own``: each may do what the one before it may.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ...errors import SetupError
from ..act.magics import EXPIRES_S_MAX

SECRET_BYTES = 24
"""Random bytes of a secret; as text it has 32 characters."""

SECRET_CHARS_MAX = 128
"""A longer text is no secret of ours and is not even hashed."""

NAME_CHARS_MAX = 64

TOKENS_MAX = 1000
"""How many may be in force: each secret that is shown is compared with all of them."""

RELAYED_PREFIX = "relay:"
"""Peers behind a relay have names that begin so, and no link does: a name says who may take a request back."""


class Role(StrEnum):
    """What a token is for."""

    VIEW = "view"
    RUN = "run"
    OWN = "own"

    def may(self, action: Action) -> bool:
        """Whether the role covers an action."""
        order = list(Role)
        return order.index(self) >= order.index(NEEDS[action])


class Action(StrEnum):
    """What can be asked for."""

    FOLLOW = "follow"
    READ_HISTORY = "read-history"
    READ_BLOB = "read-blob"
    SEARCH_REGEX = "search-regex"
    REQUEST = "request"
    SHARE = "share"
    LIST_PEERS = "list-peers"
    PUT_NOTEBOOK = "put-notebook"
    CLEAR = "clear"


NEEDS: Mapping[Action, Role] = {
    Action.FOLLOW: Role.VIEW,
    Action.READ_HISTORY: Role.VIEW,
    Action.READ_BLOB: Role.VIEW,
    # A regular expression can be made to run for ever; who may run code may do that anyway.
    Action.SEARCH_REGEX: Role.RUN,
    Action.REQUEST: Role.RUN,
    Action.SHARE: Role.OWN,
    Action.LIST_PEERS: Role.OWN,
    Action.PUT_NOTEBOOK: Role.OWN,
    Action.CLEAR: Role.OWN,
}


@dataclass(frozen=True, slots=True)
class Token:
    """One token in force.

    Attributes:
        name: unique; whom it was given to. It is what others see.
        hash: SHA-256 of the secret, 64 hex digits.
        created_at, expires_at: POSIX seconds; null: it does not expire.
    """

    name: str
    role: Role
    hash: str
    created_at: float
    expires_at: float | None = None


class Tokens:
    """The tokens in force, by name.

    Args:
        tokens: as the store kept them.
    """

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = {token.name: token for token in tokens}

    def __repr__(self) -> str:
        return f"<Tokens {', '.join(self._tokens) or 'none'}>"

    def __iter__(self) -> Iterator[Token]:
        return iter(tuple(self._tokens.values()))

    def mint(
        self, name: str, role: Role, *, now: float, expires_s: float | None = None, secret: str | None = None
    ) -> tuple[str, Token]:
        """A new token, as ``(secret, token)``; the secret is not kept.

        Args:
            name: an empty one is replaced by a free one.
            expires_s: seconds until it ends; null: never.
            secret: for a token that others know already (the discovery file's, after a restart).

        Raises:
            SetupError: the name is taken or cannot be one, the time is none that ``%rtc share`` takes, or there are
                too many.
        """
        self._drop_expired(now)
        name = name.strip() or self._free_name(role)
        if name in self._tokens:
            raise SetupError(f"a token named {name!r} is in force", "choose another name or unshare that one")
        if len(name) > NAME_CHARS_MAX or not name.isprintable() or name.startswith(RELAYED_PREFIX):
            raise SetupError(
                "the name cannot be used", f"give at most {NAME_CHARS_MAX} printable characters, not relay:…"
            )
        if expires_s is not None and not 0 < expires_s <= EXPIRES_S_MAX:
            raise SetupError("a token cannot expire then", "give a number of seconds, at most those of 366 days")
        if role is not Role.OWN and len(self._tokens) >= TOKENS_MAX:  # without the owner's there is no agent
            raise SetupError(f"{len(self._tokens)} tokens are in force", "withdraw some with %rtc unshare")
        secret = secret or new_secret()
        token = Token(name, role, hash_secret(secret), now, None if expires_s is None else now + expires_s)
        self._tokens[name] = token
        return secret, token

    def verify(self, secret: str, now: float) -> Token | None:
        """The token that a secret belongs to; null: none in force. Takes the same time whichever it is."""
        if not secret or len(secret) > SECRET_CHARS_MAX:
            return None
        digest, found = hash_secret(secret), None
        for token in self._tokens.values():
            if hmac.compare_digest(token.hash, digest):
                found = token
        return found if found and (found.expires_at is None or now < found.expires_at) else None

    def revoke(self, name: str) -> Token | None:
        """Take a token out of force; null: there is none of that name."""
        return self._tokens.pop(name, None)

    def _drop_expired(self, now: float) -> None:
        for token in list(self._tokens.values()):
            if token.expires_at is not None and token.expires_at <= now:
                del self._tokens[token.name]

    def _free_name(self, role: Role) -> str:
        number = 1
        while f"{role.value}-{number}" in self._tokens:
            number += 1
        return f"{role.value}-{number}"


def parse_share(arguments: Mapping[str, Any], roles: Iterable[Role] = tuple(Role)) -> tuple[Role, str, float | None]:
    """A wish for a link: ``role`` (view unless given), ``name`` (empty: a free one), ``expires_s`` (null: never).

    Args:
        arguments: as JSON has them.
        roles: that may be asked for.

    Raises:
        SetupError: the argument that does not fit. Whether the name is free, :meth:`Tokens.mint` says.
    """
    role, name, expires_s = (arguments.get(key) for key in ("role", "name", "expires_s"))
    words = [one.value for one in roles]
    if role is not None and role not in words:
        raise SetupError("there is no such role for a link", f"role is {' or '.join(words)}")
    if name is not None and not isinstance(name, str):
        raise SetupError("name is of the wrong type", "name is text")
    if expires_s is not None and (isinstance(expires_s, bool) or not isinstance(expires_s, int | float)):
        raise SetupError("expires_s is of the wrong type", "expires_s is a number of seconds, or null")
    return Role(role or Role.VIEW), name or "", expires_s


def new_secret() -> str:
    """One that a command line does not take for an option."""
    while (secret := secrets.token_urlsafe(SECRET_BYTES)).startswith("-"):
        pass
    return secret


def hash_secret(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
