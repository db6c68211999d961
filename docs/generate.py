"""Writes what the docs say of the code's own tables, and of the test vectors: ``python docs/generate.py``.

Each block of a document stands between ``<!-- generated: NAME -->`` and ``<!-- end -->`` and is replaced.
``tests/test_docs.py`` fails when a block is not what this makes of the code.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rtc_kernel import config, errors, tables
from rtc_kernel.agent.act import magics
from rtc_kernel.agent.serve import session

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # a test loads this file from elsewhere
from annotate import annotate  # noqa: E402

SESSIONS = DOCS.parent / "tests" / "vectors" / "python" / "sessions.json"
BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
UNITS = {"_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes"}


def diagram(transitions: Mapping[Any, frozenset[Any]], *first: str) -> str:
    """A ``TRANSITIONS`` table as a Mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", *(f"    [*] --> {state}" for state in first)]
    order = list(transitions)
    for state, after in transitions.items():
        lines += [f"    {state.value} --> {to.value}" for to in sorted(after, key=order.index)]
        lines += [] if after else [f"    {state.value} --> [*]"]
    return "\n".join([*lines, "```"])


KINDS = {
    "Unicode": "text",
    "Address": "address",
    "Bool": "true or false",
    "List": "list of texts",
    "CaselessStrEnum": "word",
}
"""What a setting is, by its trait; numbers by their unit."""


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def close_codes() -> str:
    """Every reason for which a peer is closed."""
    rows = [[str(code), f"`{reason.value}`", text] for reason, (code, text) in errors.CLOSE_CODES.items()]
    return table(["Code", "Reason", "What it says"], rows)


def settings() -> str:
    """Every setting, in the groups of the class."""
    known = config.RTCKernel.class_own_traits(config=True)
    out = []
    groups = re.split(r"^    # --- (.+)\n", inspect.getsource(config.RTCKernel), flags=re.MULTILINE)[1:]
    for title, source in zip(groups[::2], groups[1::2], strict=True):
        names = [name for name in re.findall(r"^    (\w+) = ", source, re.MULTILINE) if name in known]
        out += [f"### {title[:1].upper()}{title[1:]}", ""]
        out += [table(["Setting", "Type", "Default", "Limit", "What it is"], [setting(name) for name in names]), ""]
    return "\n".join(out).rstrip()


def setting(name: str) -> list[str]:
    """One row."""
    trait: Any = config.RTCKernel.class_own_traits()[name]
    unit = next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")
    kind = KINDS.get(type(trait).__name__, unit or "number")
    low, high = (config.trait_bound(trait, which) for which in ("min", "max"))
    limit = "" if low is None else f"{amount(low, unit)} to {amount(high, unit)}"
    if words := getattr(trait, "values", None):
        limit = ", ".join(f"`{word}`" if word else "empty" for word in words)
    return [f"`{name}`", kind, amount(trait.default(None), unit), limit, trait.help]


def amount(value: Any, unit: str = "") -> str:
    """A value as the docs show it."""
    if unit == "bytes":
        for name, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
            if value >= size and value % size == 0:
                return f"{value // size} {name}"
    match value:
        case bool():
            return str(value).lower()
        case "" | []:
            return "empty"
        case str():
            return f"`{value}`"
        case list():
            return ", ".join(f"`{one}`" for one in value)
        case _:
            return f"{value:g}" if value < 1_000_000 else str(value)


def magic(name: str | None) -> str:
    """How a ``%rtc`` command is used, as ``%rtc NAME?`` says it."""
    return f"```text\n{magics.usage(name)}\n```"


def transcript(name: str) -> str:
    """A session of the test vectors, byte by byte."""
    (found,) = [case for case in json.loads(SESSIONS.read_text(encoding="utf-8")) if case["name"] == name]
    lines = ["```text"]
    for step in found["steps"]:
        lines += [f"{'client' if step['from'] == 'client' else 'agent'}: {step['note']}"]
        lines += [f"  {line}" for line in annotate(bytes.fromhex(step["hex"]))]
    return "\n".join([*lines, "```"])


BLOCKS: dict[str, Callable[[], str]] = {
    "execution-states": lambda: diagram(tables.EXECUTION_TRANSITIONS, "queued", "running"),
    "kernel-states": lambda: diagram(tables.KERNEL_TRANSITIONS, "starting"),
    "request-states": lambda: diagram(tables.REQUEST_TRANSITIONS, "requested", "refused"),
    "query-states": lambda: diagram(tables.QUERY_TRANSITIONS, "to_process"),
    "peer-states": lambda: diagram(session.PEER_TRANSITIONS, "silent"),
    "close-codes": close_codes,
    "session-state": lambda: transcript("short: following one execution"),
    "session-requests": lambda: transcript("short: asking for a run"),
    "settings": settings,
    "magics": lambda: magic(None),
    **{f"magic-{name}": lambda name=name: magic(name) for name in magics.COMMANDS},
}


def generate(text: str) -> str:
    """A document with its blocks made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(generate(path.read_text(encoding="utf-8")), encoding="utf-8")
