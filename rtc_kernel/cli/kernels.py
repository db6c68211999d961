"""``list``, ``status``, ``share``, ``unshare``: the kernels that live on this machine."""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import discovery
from ..client import Address, call
from ..config import RTCKernel
from ..errors import SetupError
from ..tables import Json
from .terminal import clean, duration, emit, moment, out, table

HEALTH_S = 2.0
"""How long ``list`` waits for one kernel's answer."""


def choose(name: str | None) -> discovery.LiveKernel:
    """The live kernel that was named, or the only one.

    Raises:
        SetupError: none or several; lists them.
    """
    return discovery.find(name) if name else discovery.only()


def address_of(kernel: discovery.LiveKernel) -> Address:
    """Where an own kernel's document is."""
    return Address.of(kernel)


# --- list


def list_kernels(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc list``."""
    found = discovery.live()
    rows = asyncio.run(ask_all(found))
    if args.json:
        emit(rows)
    elif not rows:
        out().print("No RTC kernel lives on this machine.")
    else:
        cells = [
            (
                row["kernel_id"][:8],
                row["display_name"] or row["kernel_name"],
                Path(row["notebook"]).name if row["notebook"] else "-",
                row["state"],
                "?" if row["peers"] is None else str(row["peers"]),
                row["url"],
            )
            for row in rows
        ]
        out().print(table(("ID", "KERNEL", "NOTEBOOK", "STATE", "PEERS", "URL"), cells))
    return 0


async def ask_all(kernels: list[discovery.LiveKernel]) -> list[Json]:
    """What is known of each of these kernels, with what its agent says now: its file's fields but the token, ``state``
    and ``peers``."""
    return list(await asyncio.gather(*(_ask(kernel) for kernel in kernels)))


async def _ask(kernel: discovery.LiveKernel) -> Json:
    row: Json = {name: value for name, value in asdict(kernel).items() if name != "token"}
    row |= {"state": "no answer", "peers": None}
    try:
        async with asyncio.timeout(HEALTH_S):
            health = await call(address_of(kernel), "GET", "/api/health")
    except (SetupError, OSError, ValueError, TimeoutError):
        return row
    told = health.get("kernel") or {}
    notebook = told.get("notebook") or row["notebook"]
    return row | {"state": told.get("state", "?"), "peers": health.get("peers"), "notebook": notebook}


# --- status


def show_status(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc status``: exit code 0 when all is well, 1 when the agent says that something is not."""
    kernel = choose(args.kernel)
    health = asyncio.run(call(address_of(kernel), "GET", "/api/health"))
    if args.json:
        emit(health | {"url": kernel.url, "store": kernel.store})
    else:
        console = out()
        for name, value in _status_lines(kernel, health):
            if value:
                console.print(f"{name:<10} {clean(str(value))}")
    return 0 if health.get("status") == "ok" else 1


def _status_lines(kernel: discovery.LiveKernel, health: Json) -> list[tuple[str, Any]]:
    row = health.get("kernel") or {}
    started_at = row.get("started_at") or kernel.started_at
    since = f"{moment(started_at)} ({duration(time.time() - started_at)})" if started_at else ""
    reason = health.get("reason")
    return [
        ("kernel", f"{row.get('display_name') or kernel.display_name} {kernel.kernel_id}"),
        ("state", row.get("state")),
        ("notebook", row.get("notebook") or kernel.notebook),
        ("started", since),
        ("restarts", row.get("generation")),
        ("health", f"{health.get('status')}: {reason}" if reason else health.get("status")),
        ("coverage", health.get("coverage")),
        ("document", kernel.url),
        ("peers", str(health.get("peers", "?"))),
        ("history", kernel.store or "in memory only"),
    ]


# --- share, unshare


def share(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc share``."""
    link = asyncio.run(make_link(choose(args.kernel), args.role, args.name, args.expires))
    if args.json:
        emit(link)
    else:
        show_link(link)
    return 0


async def make_link(kernel: discovery.LiveKernel, role: str, name: str = "", expires_s: float | None = None) -> Json:
    """A new link to a kernel's document."""
    body = {"role": role, "name": name, "expires_s": expires_s}
    link: Json = await call(address_of(kernel), "POST", "/api/share", body)
    return link


def show_link(link: Json) -> None:
    """A link, and what it is good for."""
    console = out()
    console.print(link["url"])
    if link.get("proxied_url"):
        console.print(f"behind this machine's Jupyter server: {link['proxied_url']}")
    until = f", until {moment(link['expires_at'])}" if link.get("expires_at") else ""
    console.print(
        f"Whoever has this link may {link['role']}{until}. `jupyter rtc unshare {link['name']}` withdraws it."
    )


def unshare(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc unshare``."""
    names = asyncio.run(_unshare(address_of(choose(args.kernel)), args.name, args.all))
    if args.json:
        emit({"revoked": names})
    else:
        out().print(f"Withdrawn: {', '.join(names)}" if names else "There was no link to withdraw.")
    return 0


async def _unshare(address: Address, name: str | None, every: bool) -> list[str]:
    if name is not None:
        names = [name]
    else:
        tokens = (await call(address, "GET", "/api/share"))["tokens"]
        names = [str(token["name"]) for token in tokens if token["role"] != "own"]
        if len(names) > 1 and not every:
            raise SetupError(f"{len(names)} links are in force", f"give one of {', '.join(names)}, or --all", 2)
    for each in names:
        await call(address, "DELETE", f"/api/share/{quote(each, safe='')}")
    return names
