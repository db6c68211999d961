"""``view``: a room at a relay in a browser, with the page served from here.

A relay need not serve the page itself, and its token is nothing for a command line or an address that is kept: the
browser is sent to an address that works once, and is told relay and token behind the "#" of the next, which browsers
send to nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import secrets
import signal
import sys
import webbrowser
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from .. import page, rooms
from ..config import RTCKernel
from ..errors import SetupError
from ..relayed import follow_room
from .terminal import emit, tell

ADDRESS = "127.0.0.1"


def view(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc view``."""
    if not rooms.is_link(args.target):
        raise SetupError(
            f"{args.target} is no room at a relay",
            "a kernel has a page of its own: `jupyter rtc share` gives its link",
            2,
        )
    target = rooms.parse_link(args.target)
    if not args.token:
        raise SetupError("a relay asks for a token", "set RTC_KERNEL_RELAY_TOKEN, or give --token", 2)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(target, args))
    return 0


async def _serve(target: rooms.Target, args: argparse.Namespace) -> None:
    async with follow_room(target.place.link, args.token):
        pass  # what is wrong with relay or token is told here, and not in a page
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, RuntimeError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
    sockets = bind_sockets(args.port, ADDRESS)
    door = Door(target, args.token, sockets[0].getsockname()[1])
    server = HTTPServer(Application([(r"/(.*)", PageHandler, {"door": door})], log_function=lambda _: None))
    server.add_sockets(sockets)
    try:
        if args.json:
            emit({"event": "link", "url": door.link})
        else:
            sys.stdout.write(f"{door.link}\n")
            sys.stdout.flush()
            tell("This address works once; Ctrl-C ends it.")
        if args.browser:
            await asyncio.to_thread(webbrowser.open, door.link)
        await ended.wait()
    finally:
        server.stop()
        await server.close_all_connections()


class Door:
    """Who is let in: whoever brings the key, once; then there is another one."""

    def __init__(self, target: rooms.Target, token: str, port: int) -> None:
        self.host = f"{ADDRESS}:{port}"
        self.room = target.place.room
        parts = urlsplit(target.place.url)
        self.csp = page.PAGE_CSP.replace("connect-src 'self'", f"connect-src {parts.scheme}://{parts.netloc}")
        kernel = {"kernel": target.kernel} if target.kernel else {}
        self._inside = f"/{self.room}#" + urlencode({"relay": target.place.link, "token": token, **kernel})
        self._key = secrets.token_urlsafe(24)

    def __repr__(self) -> str:
        return f"<Door {self.host} {self.room}>"

    @property
    def link(self) -> str:
        """Where a browser is sent to."""
        return f"http://{self.host}/?once={self._key}"

    def enter(self, key: str) -> str | None:
        """Where to go on; null: this is not the key, or was used."""
        if not hmac.compare_digest(key.encode(), self._key.encode()):
            return None
        self._key = secrets.token_urlsafe(24)
        return self._inside


class PageHandler(RequestHandler):
    """The page's files, and the way in."""

    def initialize(self, door: Door) -> None:
        """Called by tornado."""
        self._door = door

    def set_default_headers(self) -> None:
        """Called by tornado for every response."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")

    def get(self, name: str) -> None:
        """A file, or the way in."""
        if self.request.headers.get("Host") != self._door.host:
            raise HTTPError(403, reason="this Host is not ours")
        if name == "":
            inside = self._door.enter(self.get_query_argument("once", ""))
            if inside is None:
                raise HTTPError(403, reason="this address worked once: run jupyter rtc view again")
            self.redirect(inside)
            return
        is_room = name == self._door.room
        found = page.find(
            "room.html" if is_room else name, shrink="gzip" in self.request.headers.get("Accept-Encoding", "")
        )
        if found is None:
            raise HTTPError(404)
        for header, value in found.headers.items():
            self.set_header(header, value)
        if is_room:
            self.set_header("Content-Security-Policy", self._door.csp)
        self.finish(found.data)

    def write_error(self, status_code: int, **_: Any) -> None:
        """Called by tornado for every error."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"status": status_code, "error": self._reason}))
