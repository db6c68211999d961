"""Which bytes does a ``Range`` header ask for?

Pure. One range of a blob, as RFC 9110, section 14 has it; what it is not sure of it passes over, as it may, and the
whole is sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,18})[ \t]*-[ \t]*([0-9]{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Range:
    """The bytes from ``start`` up to and without ``stop``, of ``size`` in all; none of them: it cannot be given."""

    start: int
    stop: int
    size: int

    @property
    def count(self) -> int:
        """How many bytes these are."""
        return self.stop - self.start

    @property
    def content_range(self) -> str:
        """The header ``Content-Range`` that goes with it."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}" if self.count else f"bytes */{self.size}"


def read_range(header: str | None, size: int) -> Range | None:
    """The range that a header asks for.

    Args:
        header: ``Range``, e.g. ``bytes=0-99``, ``bytes=100-`` or ``bytes=-100``.
        size: bytes of the whole.

    Returns:
        The range; one of no bytes where none of it is there (416). None: send the whole, because there is no header,
        or one that is not understood or names several ranges.
    """
    found = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        return Range(max(0, size - int(found[2])), size, size)
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return None
    stop = min(int(found[2]) + 1, size) if found[2] else size
    return Range(start, stop, size) if start < size else Range(size, size, size)
