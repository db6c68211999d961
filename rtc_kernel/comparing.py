"""Does code that was run again show the same?

Pure: outputs as nbformat has them, of two runs. What two runs of the same code cannot have in common is taken out of
both before they are compared, and nothing else:

* numbers of executions (``execution_count``; ``In [3]`` in tracebacks), display ids and ids of widget models
* memory addresses (``0x7f…`` becomes ``0x…``)
* names of the temporary files that stand for cells (``/tmp/ipykernel_123/456.py``, ``<ipython-input-3-…>``)
* in tracebacks: colours, and the directories of files
* where stdout and stderr were written in turns, the turns: each is compared as a whole up to the next display or error
* how base64 is broken into lines
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from .tables import Json

DIFF_CONTEXT = 1
"""Lines around a difference that are shown."""

LINE_CHARS = 10_000
"""A longer line is not searched for names of files: the time for that grows with its square."""

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")
_CELL_FILE = re.compile(r"[^\s\"'<(]*ipykernel_\d+[/\\]\d+\.py|<ipython-input-\d+-[0-9a-f]+>")
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_CELL_NUMBER = re.compile(r"\bIn ?\[\d+\]")
_DIRECTORY = re.compile(r"(?:(?<![\w.])~|(?<![\w.])[A-Za-z]:|(?<![\w.~:]))[/\\](?:[^\s/\\\"'<>:]+[/\\])+")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def comparable(outputs: Iterable[Json]) -> list[Json]:
    """What of the outputs of a run is compared.

    Args:
        outputs: nbformat's, with large values in place.
    """
    found: list[Json] = []
    for is_stream, group in groupby(outputs, key=lambda output: output["output_type"] == "stream"):
        if not is_stream:
            found += map(_one, group)
            continue
        texts: dict[str, str] = {}
        for output in group:
            texts[output["name"]] = texts.get(output["name"], "") + output["text"]
        found += [
            {"output_type": "stream", "name": name, "text": _plain(text)}
            for name, text in sorted(texts.items(), reverse=True)  # stdout first
            if text
        ]
    return found


def differences(recorded: Sequence[Json], rerun: Sequence[Json]) -> list[str]:
    """What differs, as the lines of a unified diff without its heading; none: nothing does.

    Args:
        recorded, rerun: from :func:`comparable`.
    """
    if recorded == rerun:
        return []
    before, after = _lines(recorded), _lines(rerun)
    return list(difflib.unified_diff(before, after, n=DIFF_CONTEXT, lineterm=""))[2:]


def _one(output: Json) -> Json:
    if output["output_type"] == "error":
        return {
            "output_type": "error",
            "ename": output["ename"],
            "evalue": _plain(output["evalue"]),
            "traceback": _plain_traceback(output["traceback"]),
        }
    data = {media_type: _value(media_type, value) for media_type, value in sorted(output["data"].items())}
    return {"output_type": output["output_type"], "data": data, "metadata": output["metadata"]}


def _value(media_type: str, value: Any) -> Any:
    if media_type == _WIDGET and isinstance(value, dict):
        return {key: item for key, item in value.items() if key != "model_id"}
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "".join(value)
    if not isinstance(value, str):
        return value
    if media_type.startswith(("text/", "image/svg")):
        return _plain(value)
    return "".join(value.split())


def _plain(text: str) -> str:
    if "ipykernel_" in text or "<ipython-input-" in text:
        text = "\n".join(
            _CELL_FILE.sub("<cell>", line) if len(line) < LINE_CHARS else line for line in text.split("\n")
        )
    return _ADDRESS.sub("0x…", text)


def _plain_traceback(lines: Iterable[str]) -> list[str]:
    text = _plain(_ESCAPE.sub("", "\n".join(lines)))
    return _DIRECTORY.sub("…/", _CELL_NUMBER.sub("In [#]", text)).split("\n")


def _lines(outputs: Iterable[Json]) -> list[str]:
    """Outputs as lines that say everything that is compared."""
    found: list[str] = []
    for output in outputs:
        match output["output_type"]:
            case "stream":
                *lines, rest = output["text"].split("\n")
                found += [f"{output['name']}: {line}" for line in lines]
                found += [f"{output['name']}: {rest}", f"{output['name']}: (no line end)"] if rest else []
            case "error":
                found += [
                    f"error: {output['ename']}: {output['evalue']}",
                    *(f"  {line}" for line in output["traceback"]),
                ]
            case kind:
                for media_type, value in output["data"].items():
                    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
                    found += [f"{kind} {media_type}: {line}" for line in text.split("\n")]
                if output["metadata"]:
                    found.append(f"{kind} metadata: {json.dumps(output['metadata'], sort_keys=True, default=str)}")
    return found
