"""The agent's end of the link: records in, records out.

Door (asyncio). Owns one socket. Records are handed on in the order and in the batches in which they came, so that
a flood is dealt with in few steps and a single message at once.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

from .. import link
from ..errors import RemoteError

CHUNK_BYTES = 1 << 18
"""How much is read in one go."""

READ_BYTES = 1 << 20
"""Size of the socket's buffers: how much of a flood may wait in the kernel before the relay's spool fills."""

Receive = Callable[[list[link.Record]], None]


class Feed(asyncio.BufferedProtocol):
    """The link to the relay.

    Args:
        receive: called on the loop with what came, in order.
        ended: called once when the relay has closed or gone.
    """

    def __init__(self, receive: Receive, ended: Callable[[], None]) -> None:
        self._receive = receive
        self._ended = ended
        self._decoder = link.Decoder()
        self._buffer = bytearray(CHUNK_BYTES)  # one for all reads: a fresh one each time costs more than reading
        self._transport: asyncio.WriteTransport | None = None

    def __repr__(self) -> str:
        return f"<Feed {'open' if self._transport else 'closed'} {self._decoder!r}>"

    async def open(self, name: str) -> None:
        """Take over the socket that the relay gave: a file descriptor's number, or ``-`` for Windows' share."""
        end = open_socket(name)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            end.setsockopt(socket.SOL_SOCKET, option, READ_BYTES)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=end)

    def say(self, record: link.Record) -> None:
        """Send a record; dropped when the relay is gone."""
        if self._transport is not None:
            self._transport.write(link.encode(record))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 - for the type checker
        self._transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        """Called by asyncio: where to put what arrives."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by asyncio: so much has arrived."""
        try:
            records = list(self._decoder.feed(memoryview(self._buffer)[:nbytes]))
        except RemoteError:
            if self._transport is not None:
                self._transport.abort()
            return
        if records:
            self._receive(records)

    def eof_received(self) -> bool:
        """Called by asyncio: the relay says no more."""
        self._ended()
        return True  # our end stays open until we have said everything

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        self._ended()


def open_socket(name: str) -> socket.socket:
    """The socket behind ``--link``."""
    if sys.platform == "win32":  # untested here
        return socket.fromshare(sys.stdin.buffer.read())
    end = socket.socket(fileno=int(name))
    end.setblocking(False)
    return end
