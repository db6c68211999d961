"""How is a WebSocket opened and closed, and a question asked, by who may lose interest at any time?

Door (tornado), the same for those who follow a document and those who publish it. What tornado leaves open: a
connection whose making is cancelled is made all the same, a request goes on, and ``close`` waits for the other end.
Where the loop ends meanwhile, the socket stays open until Python finds it: a ``ResourceWarning`` at any later place.
"""

from __future__ import annotations

import asyncio

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect

PARTING_S = 0.2
"""How long who is cancelled waits for what is under way, so that it is closed: on one machine it takes milliseconds."""


async def dial(
    request: HTTPRequest, *, max_message_bytes: int, ping_s: float, ping_timeout_s: float | None = None
) -> WebSocketClientConnection:
    """A connection; one that is made after this was cancelled is closed at once. Errors are tornado's."""
    connecting = asyncio.ensure_future(
        websocket_connect(
            request, max_message_size=max_message_bytes, ping_interval=ping_s, ping_timeout=ping_timeout_s
        )
    )
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_hang_up_late)
        await asyncio.wait((connecting,), timeout=PARTING_S)
        raise


async def answer_of(asked: asyncio.Future[HTTPResponse]) -> HTTPResponse:
    """The answer to a request; who is cancelled leaves when it is there, or after :data:`PARTING_S`."""
    try:
        return await asyncio.shield(asked)
    except asyncio.CancelledError:
        asked.add_done_callback(_look_at)
        await asyncio.wait((asked,), timeout=PARTING_S)
        raise


def hang_up(socket: WebSocketClientConnection) -> None:
    """Say goodbye and close, now.

    tornado would wait for the other's answer: our loop may end before it, and what waits to be sent stays in memory.
    """
    stream = getattr(socket.protocol, "stream", None)  # close() forgets the protocol
    socket.close()
    if stream is not None:
        stream.close()


def _look_at(asked: asyncio.Future[HTTPResponse]) -> None:
    """Nobody wants to know any more, and asyncio would complain."""
    if not asked.cancelled():
        asked.exception()


def _hang_up_late(connecting: asyncio.Future[WebSocketClientConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        hang_up(connecting.result())
