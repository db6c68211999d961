"""``mcp``: offer kernels to a program that speaks the Model Context Protocol, over stdin and stdout.

The package ``mcp`` is asked for here and nowhere earlier: it is optional, and takes longer to load than all of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from ..client import Address, call
from ..config import RTCKernel
from ..errors import SetupError
from .linking import URL, Kernels
from .terminal import tell

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

ROLE_S = 5.0
"""How long a URL may take to say what it is good for. Seconds."""

LOWEST = (2, 1)
"""The lowest version of ``mcp``: in 2.0 a tool with a schema cannot answer with an error."""

ENDS = (signal.SIGINT, signal.SIGTERM)


def offer(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc mcp``."""
    problem = SetupError(
        f"`jupyter rtc mcp` needs the package mcp, {LOWEST[0]}.{LOWEST[1]} or later",
        f"`pip install 'mcp>={LOWEST[0]}.{LOWEST[1]}'` into this environment",
        2,
    )
    if not _is_installed():
        raise problem
    try:
        from . import tools
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise problem from exc
    if sys.stdin.isatty():
        tell("Programs that speak the Model Context Protocol start this themselves (docs/agents.md). Ctrl-C ends it.")

    async def main() -> int:
        kernels = Kernels(args.target, args.token, role=args.role, name=args.name)
        role = await _role_of(args.target, args.token, args.role)
        return await _serve(tools.make_server(kernels, role=role, may_restart=args.allow_restart), kernels)

    return asyncio.run(main())


def _is_installed() -> bool:
    """Whether there is a package that the tools are written for."""
    try:
        found = re.match(r"(\d+)\.(\d+)", version("mcp"))
    except PackageNotFoundError:
        return False
    return found is not None and (int(found[1]), int(found[2])) >= LOWEST


async def _role_of(target: str | None, token: str | None, wanted: Literal["view", "run"]) -> Literal["view", "run"]:
    """What may be offered: no acting with a link that may only look. One that does not answer yet is asked when it is
    used.

    Raises:
        SetupError: the link is not in force.
    """
    if target is None or not target.startswith(URL):
        return wanted
    address = Address.resolve(target, token)
    try:
        async with asyncio.timeout(ROLE_S):
            health = await call(address, "GET", "/api/health")
    except (SetupError, TimeoutError):
        return wanted
    if "role" not in health:
        raise SetupError(f"the link to {address.url} is not in force", "ask for a new one with `%rtc share`")
    return "view" if health["role"] == "view" else wanted


async def _serve(server: MCPServer[Any], kernels: Kernels) -> int:
    """Until stdin ends, or somebody ends us; then our links are withdrawn."""
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []

    def end(number: int) -> None:
        if not ending:
            ending.append(asyncio.create_task(_leave(kernels, 128 + number), name="rtc-mcp-end"))

    for number in ENDS:
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, end, number)
    try:
        await server.run_stdio_async()
    except* BrokenPipeError:  # whoever read our answers has gone
        pass
    finally:
        await kernels.close()
    return 0


async def _leave(kernels: Kernels, exit_code: int) -> None:
    """End now: a thread waits for the next line of stdin, and Python would wait for that thread."""
    try:
        await kernels.close()
    finally:
        os._exit(exit_code)
