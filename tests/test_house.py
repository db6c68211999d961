"""The house holds: imports point one way, pure rooms are pure, the relay stays small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rtc_kernel

ROOT = Path(rtc_kernel.__file__).parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))

GROUND = {
    *("errors", "wire", "link", "tables", "bounds", "excerpts"),
    *("schema", "notebook", "moments", "pieces", "yproto", ""),
}
"""What pure rooms may import of ours ('' is the package itself, for ``__version__``)."""

PURE = {
    "errors",
    "wire",
    "link",
    "tables",
    "bounds",
    "excerpts",
    "schema",
    "notebook",
    "moments",
    "pieces",
    "comparing",
    "yproto",
    "cli/telling",
    "hocuspocus",
    "rooms",
    "agent/pace",
    "relay/intercept",
    "relay/spool",
    "relay/cutting",
    "relay/pulse",
    *(f"agent/keep/{name}" for name in ("retention", "rows", "edit", "lookup", "records", "upkeep")),
    "agent/serve/access",
    "agent/serve/ranges",
    "agent/serve/session",
    "agent/serve/outward",
    "agent/serve/passage",
    *(file.removesuffix(".py") for file in FILES if file.startswith(("agent/mirror/", "agent/act/"))),
}
IMPURE_MODULES = {
    "asyncio", "zmq", "sqlite3", "tornado", "threading", "socket", "subprocess", "time", "jupyter_client", "selectors",
}  # fmt: skip
YJS_ROOMS = {
    "schema",
    "agent/document",
    "agent/requests",
    "agent/serve/session",
    "agent/serve/publish",
    "client",
    "requesting",
    "relayed",
}
MCP_ROOMS = {"cli/tools", "cli/reporting", "cli/offering"}
HALLWAYS = {"agent/app", "relay/app", "cli", "run", "__main__", "agent/__main__", "__init__"}


def room(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__") if file != "__init__.py" else "__init__"


def imports(file: str, *, all_levels: bool = True) -> set[str]:
    """Absolute dotted names of what a file imports; ours as ``rtc_kernel.…``."""
    tree = ast.parse((ROOT / file).read_text())
    package = ["rtc_kernel", *Path(file).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return names


def own(file: str) -> set[str]:
    """Rooms of ours that a file imports, as paths without ``.py``."""
    rooms = {room(other) for other in FILES}
    found = set()
    for name in imports(file):
        path = name.removeprefix("rtc_kernel").strip(".").replace(".", "/")
        if name.startswith("rtc_kernel") and path in rooms:
            found.add(path)
    return found


@pytest.mark.parametrize("file", FILES)
def test_pure_rooms_do_no_io_and_read_no_clock(file: str) -> None:
    if room(file) not in PURE:
        return
    outside = {name.partition(".")[0] for name in imports(file)} & IMPURE_MODULES
    assert not outside, f"{file} is pure and imports {outside}"
    prefix = room(file).rpartition("/")[0]
    for other in own(file):
        beside = other == prefix or other.startswith(f"{prefix}/")
        assert other in GROUND or other in PURE or beside, f"{file} imports {other}"


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("relay/")])
def test_the_relay_never_imports_agent_yjs_or_web(file: str) -> None:
    assert not {other for other in own(file) if other.startswith(("agent", "client", "cli", "schema"))}
    assert not {name.partition(".")[0] for name in imports(file)} & {"pycrdt", "tornado", "sqlite3", "rich", "asyncio"}


@pytest.mark.parametrize("file", FILES)
def test_yjs_is_known_in_few_rooms(file: str) -> None:
    if room(file) not in YJS_ROOMS:
        assert "pycrdt" not in {name.partition(".")[0] for name in imports(file)}


@pytest.mark.parametrize("file", FILES)
def test_the_optional_package_is_known_in_few_rooms_and_loaded_by_its_command_alone(file: str) -> None:
    if room(file) not in MCP_ROOMS:
        assert not {name.partition(".")[0] for name in imports(file)} & {"mcp", "mcp_types", "pydantic"}
        assert not own(file) & {"cli/tools", "cli/reporting"}


@pytest.mark.parametrize("file", FILES)
def test_nothing_but_a_hallway_imports_a_hallway(file: str) -> None:
    if room(file).partition("/")[0] not in {"cli", "__main__"} and room(file) not in HALLWAYS:
        assert not own(file) & {"agent/app", "relay/app", "cli"}


def test_starting_the_relay_imports_nothing_heavy() -> None:
    """The child is started before zmq and traitlets are loaded, and pycrdt and tornado never are."""
    code = "import sys, rtc_kernel.__main__; print(*sorted(m.partition('.')[0] for m in sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {
        "zmq",
        "traitlets",
        "tornado",
        "pycrdt",
        "asyncio",
        "jupyter_client",
        "jupyter_core",
        "rich",
        "typing",
        "dataclasses",
    }
