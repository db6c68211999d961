"""Which files there are, and when two of them say the same.

pycrdt encodes the keys of a plain object in an order of chance, so a case stays as it is while it only differs in that
(:func:`same`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rtc_kernel.tables import Json

from .documents import make_documents
from .frames import make_frames
from .histories import make_moments
from .sessions import make_sessions

HERE = Path(__file__).parent

FILES: Mapping[str, Callable[[], list[Json]]] = {
    "frames.json": make_frames,
    "python/documents.json": make_documents,
    "python/sessions.json": make_sessions,
    "python/moments.json": make_moments,
}


def same(one: Any, other: Any) -> bool:
    """Whether two files say the same, with the bytes of each hex in any order."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        case list(), list():
            return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
        case str(), str() if one != other:
            return shuffled(one) == shuffled(other) is not None
        case _:
            return bool(one == other)


def shuffled(text: str) -> bytes | None:
    """The bytes of hex, in order of size; null where it is none."""
    try:
        return bytes(sorted(bytes.fromhex(text)))
    except ValueError:
        return None


def dump(cases: list[Json]) -> str:
    """A file: one case a line, so that a change is seen where it is."""
    lines = (json.dumps(case, ensure_ascii=True, allow_nan=False, sort_keys=False) for case in cases)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def write() -> None:
    """Write what is not current; cases that are stay as they are."""
    for name, make in FILES.items():
        path, made = HERE / name, json.loads(dump(make()))
        committed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        known = {case["name"]: case for case in committed}
        kept = [known[case["name"]] if same(known.get(case["name"]), case) else case for case in made]
        if kept != committed:
            path.write_text(dump(kept), encoding="utf-8")
            print(f"wrote {name}: {len(kept)} cases, {sum(case not in committed for case in kept)} of them anew")
