"""What do the measured numbers say?

Pure. A :class:`Line` is one row of the table: what was measured of the bare kernel and of ours, round by round, and
how the issue compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any


class Compare(StrEnum):
    """How a line is judged: ours over bare, ours minus bare, or ours alone."""

    RATIO = "ratio"
    DIFFERENCE = "difference"
    VALUE = "value"


def percentile(values: Sequence[float], percent: float) -> float:
    """By linear interpolation between the two nearest ranks; ``values`` in any order, at least one."""
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of the table.

    Attributes:
        unit: of ``bare`` and ``rtc``.
        bare: one value per round; empty where nothing is compared.
        rtc: one value per round, at least one.
        target: the most that is allowed; null: only for information.
        note: what ``bare`` is, where it is not the bare kernel.
    """

    name: str
    unit: str
    rtc: tuple[float, ...]
    bare: tuple[float, ...] = ()
    compare: Compare = Compare.RATIO
    target: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """What is held against the target: from the medians of the rounds."""
        return self._compared(median(self.bare) if self.bare else 0.0, median(self.rtc))

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest of the rounds, each compared for itself."""
        bare = self.bare or (0.0,) * len(self.rtc)
        each = [self._compared(one, other) for one, other in zip(bare, self.rtc, strict=True)]
        return min(each), max(each)

    @property
    def met(self) -> bool | None:
        """Null where there is no target."""
        return None if self.target is None else self.value <= self.target

    def _compared(self, bare: float, rtc: float) -> float:
        match self.compare:
            case Compare.RATIO:
                return rtc / bare if bare else float("inf")
            case Compare.DIFFERENCE:
                return rtc - bare
            case Compare.VALUE:
                return rtc

    def to_json(self) -> dict[str, Any]:
        """Everything, with the rounds."""
        return {
            "name": self.name,
            "unit": self.unit,
            "compare": self.compare.value,
            "bare": list(self.bare),
            "rtc": list(self.rtc),
            "value": self.value,
            "target": self.target,
            "met": self.met,
            "note": self.note,
        }

    def cells(self) -> list[str]:
        """The row as text: name, bare, rtc, compared, the rounds' spread, target, met."""
        low, high = self.spread
        return [
            self.name + (f" ({self.note})" if self.note else ""),
            f"{_digits(median(self.bare))} {self.unit}" if self.bare else "",
            f"{_digits(median(self.rtc))} {self.unit}",
            self._say(self.value),
            f"{self._say(low)} … {self._say(high)}" if len(self.rtc) > 1 else "",
            "" if self.target is None else f"≤ {self._say(self.target)}",
            {None: "", True: "met", False: "NOT MET"}[self.met],
        ]

    def _say(self, value: float) -> str:
        match self.compare:
            case Compare.RATIO:
                return f"{value:.3f}"
            case Compare.DIFFERENCE:
                return f"{value:+.2f} {self.unit}"
            case Compare.VALUE:
                return f"{_digits(value)} {self.unit}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


@dataclass(slots=True)
class Rounds:
    """Samples of two or more arms while they are gathered: ``rounds[arm][round]`` is a list of samples."""

    samples: dict[str, list[list[float]]] = field(default_factory=dict)

    def add(self, arm: str, index: int, *values: float) -> None:
        """Samples of one arm in one round (0, 1, …)."""
        rounds = self.samples.setdefault(arm, [])
        while len(rounds) <= index:
            rounds.append([])
        rounds[index].extend(values)

    def each(self, arm: str, summary: Callable[[Sequence[float]], float] = median) -> tuple[float, ...]:
        """One number per round."""
        return tuple(summary(values) for values in self.samples[arm])


def p95(values: Sequence[float]) -> float:
    """The 95th percentile."""
    return percentile(values, 95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: instead of each benchmark's own number.
        scale: all sizes are multiplied by this; 1 is what the issue asks for.
        tell: called with a few words on what is going on.
    """

    rounds: int | None = None
    scale: float = 1.0
    tell: Callable[[str], None] = lambda words: None

    def rounds_or(self, count: int) -> int:
        """The number of rounds."""
        return self.rounds or count

    def size(self, count: int) -> int:
        """A size, scaled."""
        return max(2, round(count * self.scale))

    def turns(self, name: str, count: int, arms: Sequence[str]) -> list[tuple[int, str]]:
        """``(round, arm)`` in interleaved order: A B, B A, A B, …"""
        rounds = self.rounds_or(count)
        return [(index, arm) for index in range(rounds) for arm in (arms if index % 2 == 0 else arms[::-1])]
