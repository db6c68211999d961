"""How is a WebSocket opened and closed by who may lose interest at any time?

Door (tornado), the same for those who follow a document and those who publish it. What tornado leaves open: a
connection whose making is cancelled is made all the same, and ``close`` waits for the other end.
"""

from __future__ import annotations

import asyncio

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect


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
        raise


def hang_up(socket: WebSocketClientConnection) -> None:
    """Say goodbye and close, now.

    tornado would wait for the other's answer: our loop may end before it, and what waits to be sent stays in memory.
    """
    stream = getattr(socket.protocol, "stream", None)  # close() forgets the protocol
    socket.close()
    if stream is not None:
        stream.close()


def _hang_up_late(connecting: asyncio.Future[WebSocketClientConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        hang_up(connecting.result())
