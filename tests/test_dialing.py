"""Who loses interest in a question or a connection leaves no socket behind, even if the loop ends right then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psutil
import pytest
from serving import eventually
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from rtc_kernel.client import Address, call
from rtc_kernel.dialing import dial


class Slow(RequestHandler):
    """Says when it was asked, and answers when it may."""

    asked: asyncio.Event
    may: asyncio.Event

    async def prepare(self) -> None:
        type(self).asked.set()
        await type(self).may.wait()

    def get(self) -> None:
        self.write("{}")


class SlowSocket(Slow, WebSocketHandler):
    get = WebSocketHandler.get  # type: ignore[assignment]


def question(port: int) -> Awaitable[object]:
    return call(Address(f"http://127.0.0.1:{port}"), "GET", "/question")


def socket(port: int) -> Awaitable[object]:
    return dial(HTTPRequest(f"ws://127.0.0.1:{port}/socket"), max_message_bytes=1000, ping_s=20)


@pytest.mark.parametrize("ask", [question, socket])
@pytest.mark.parametrize("is_answered", [True, False])
def test_who_is_cancelled_leaves_no_socket(ask: Callable[[int], Awaitable[object]], is_answered: bool) -> None:
    async def fact() -> None:
        Slow.asked, Slow.may = asyncio.Event(), asyncio.Event()
        listening, port = bind_unused_port()
        server = HTTPServer(Application([("/question", Slow), ("/socket", SlowSocket)]))
        server.add_socket(listening)

        def left() -> list[object]:
            return [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port]

        asking = asyncio.ensure_future(ask(port))
        await asyncio.wait_for(Slow.asked.wait(), 30)
        assert left()
        asking.cancel()
        if is_answered:
            asyncio.get_running_loop().call_soon(Slow.may.set)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asking, 30)  # though it may never be answered
        assert bool(left()) is not is_answered
        Slow.may.set()
        server.stop()
        await server.close_all_connections()
        await eventually(lambda: not left(), "what nobody waited for is closed, too", 30)

    asyncio.run(asyncio.wait_for(fact(), 60))
