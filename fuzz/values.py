"""How do bytes become whatever a Yjs map can hold? Owns nothing."""

from __future__ import annotations

from typing import Any

WORDS = (
    "action", "execute", "interrupt", "restart", "cancel", "release", "input", "query", "clear", "annotate", "code",
    "cell", "notebook", "after", "on_duplicate", "coalesce", "queue", "stop_on_error", "allow_stdin", "silent",
    "user_expressions", "execution", "request", "value", "since", "target", "fresh", "before", "key", "created_at",
    "by", "state", "ordinal", "received_at", "reason", "rtc_x", "r1", "r2", "r3", "", "é😀", "\ud800", "\0", "x" * 5000,
)  # fmt: skip


class Bytes:
    """A cursor over bytes; behind the end there are zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at

    def byte(self) -> int:
        """One byte."""
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def take(self, count: int) -> bytes:
        """So many bytes, or what is left."""
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self) -> int:
        """Two bytes."""
        return self.byte() << 8 | self.byte()

    def text(self) -> str:
        """A word that means something, or any text."""
        which = self.byte()
        if which < 224:
            return WORDS[which % len(WORDS)]
        return self.take(self.byte() % 32).decode("utf-8", "surrogateescape")

    def value(self, depth: int = 0) -> Any:
        """Anything that comes out of a Yjs map, or was in a JSON object."""
        match self.byte() % 12:
            case 0:
                return None
            case 1:
                return bool(self.byte() & 1)
            case 2:
                return float(self.number()) / (self.byte() or 1)
            case 3:
                return float(["nan", "inf", "-inf", "1e308", "9007199254740993", "-0.0"][self.byte() % 6])
            case 4:
                return (-1) ** self.byte() * (1 << self.byte())
            case 5:
                return bytearray(self.take(self.byte() % 8))
            case 6 | 7 if depth < 60:
                return [self.value(depth + 1) for _ in range(self.byte() % 4)]
            case 8 | 9 if depth < 60:
                return self.mapping(depth)
            case _:
                return self.text()

    def mapping(self, depth: int = 0) -> dict[str, Any]:
        """A map."""
        return {self.text(): self.value(depth + 1) for _ in range(self.byte() % 6)}
