"""How is a value written as JSON without having all of it at once?

Pure. A record may hold texts of a GiB, and an agent beside a training job has no GiB to spare: in the place of such a
text stands a :class:`Text`, which is read while it is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .tables import Execution, Json, to_json
from .wire import finite


class Text:
    """A text that is read piece by piece, as often as it is written.

    Args:
        read: gives the pieces; joined they are the text.
    """

    __slots__ = ("read",)

    def __init__(self, read: Callable[[], Iterable[str]]) -> None:
        self.read = read


def write_json(value: Any, *, indent: int = 0, depth: int = 0) -> Iterator[str]:
    """A JSON value, in which a :class:`Text` may stand for a text and an iterator for a list, as pieces of JSON text.
    What is no number in JSON (NaN, the infinities) is null.

    Args:
        indent: spaces of each level; 0: all in one line.
        depth: levels around the value.
    """
    items: Iterator[tuple[str, Any]]
    if isinstance(value, Text):
        yield '"'
        for piece in value.read():
            yield dumps(piece)[1:-1]
        yield '"'
        return
    if isinstance(value, Mapping):
        ends, colon = "{}", ": " if indent else ":"
        items = ((dumps(str(key)) + colon, item) for key, item in value.items())
    elif isinstance(value, list | tuple | Iterator):
        ends = "[]"
        items = (("", item) for item in value)
    else:
        yield dumps(value)
        return
    line = "\n" + " " * (indent * (depth + 1)) if indent else ""
    before = ends[0]
    for name, item in items:
        yield f"{before}{line}{name}"
        yield from write_json(item, indent=indent, depth=depth + 1)
        before = ","
    if before == ",":
        yield line[: len(line) - indent] + ends[1]
    else:
        yield ends


def dumps(value: Any) -> str:
    """A JSON value as text, as short as can be."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:  # NaN and Infinity are no JSON
        return json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))


def gather(pieces: Iterable[str], chars: int) -> Iterator[str]:
    """The same text in pieces of at least so many characters, but for the last."""
    waiting: list[str] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece)
        if count >= chars:
            yield "".join(waiting)
            waiting, count = [], 0
    if waiting:
        yield "".join(waiting)


def execution_json(outline: Execution, text: Callable[[int], Iterable[str]]) -> Json:
    """An execution whose streams have no text as :func:`~rtc_kernel.tables.to_json` would give it with them.

    Args:
        text: the pieces of the stream at a position.
    """
    value = to_json(outline)
    put_texts(outline, value["outputs"], text)
    return value


def put_texts(outline: Execution, outputs: list[Json], text: Callable[[int], Iterable[str]]) -> None:
    """Let the streams in ``outputs``, made of those of an outline one by one, have their texts."""
    for position, output in enumerate(outputs[: len(outline.outputs)]):
        if output["output_type"] == "stream":
            output["text"] = Text(lambda position=position: text(position))  # type: ignore[misc]
