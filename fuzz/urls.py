"""Any URL, with any Range, gets an answer of the real handlers, and none of them is an error of ours."""

from __future__ import annotations

import asyncio
import atexit
import json
from concurrent.futures import Executor, Future
from functools import cache
from typing import Any

from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine, ResponseStartLine
from tornado.web import Application

from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.keep.store import Store
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve import Blob, HistoryQuery, Page
from rtc_kernel.agent.serve.access import Role, Tokens
from rtc_kernel.agent.serve.websocket import Server, routes
from rtc_kernel.config import RTCKernel
from rtc_kernel.tables import AddOutput, ExecutionState, Output, PutBlob, PutExecution

DIGEST = "0123456789abcdef" * 4
DATA = bytes(range(256)) * 20
METHODS = ("GET", "HEAD", "OPTIONS", "POST")

SEEDS = [
    b"\0\nbytes=0-99\n" + f"/blobs/{DIGEST}".encode(),
    b"\1\nbytes=-7\n" + f"/blobs/{DIGEST}".encode(),
    b"\0\nbytes=0-0,5-\n" + f"/blobs/{'0' * 64}".encode(),
    b"\0\n\n/api/history?limit=2&before=9&after=1&state=ok&cell=c&kernel=k",
    b"\0\n\n/api/history?text=%C3%A9&limit=1000",
    b"\0\n\n/api/history?grep=(a",
    b"\0\n\n/api/executions/e1",
    b"\0\n\n/api/executions/%231",
    b"\0\n\n/api/health",
    b"\0\n\n/?token=x",
]


class Inline(Executor):
    """Calls at once, in this thread."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:
            future.set_exception(exc)
        return future


class House:
    """The part of the agent that is asked, over a real history in memory."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        self.document = StateDocument("k")
        self.document.load()
        self.requests = RequestsDocument("k")
        self.store = Store.open(None)
        self.store.begin(relay_id="r", kernel={"id": "k"}, now=1.0)
        changes: list[Any] = [PutBlob(f"sha256:{DIGEST}", DATA, "image/png")]
        for seq in range(1, 4):
            columns = {"seq": seq, "code": "é = 1", "cell": "c", "state": ExecutionState.OK, "kernel": "k"}
            shown = Output(output_type="display_data", at=1.0, data={"text/plain": "é😀"}, metadata={"x": float("nan")})
            changes += [PutExecution(f"e{seq}", columns), AddOutput(f"e{seq}", 0, shown)]
        self.store.write(changes, relay_id="r", seq=1, mirror_state=None)
        self.store.flush()

    def health(self) -> dict[str, Any]:
        """All is well."""
        return {"status": "ok"}

    def history(self, query: HistoryQuery) -> Page:
        """As the agent does."""
        wanted = {name: getattr(query, name) for name in HistoryQuery.__dataclass_fields__}
        return Page(*self.store.history(**wanted))

    def execution(self, execution: str) -> Any:
        """As the agent does."""
        return self.store.execution(execution)

    def blob(self, digest: str) -> Blob | None:
        """As the agent does."""
        found = self.store.blob_size(digest)
        return None if found is None else Blob(*found)

    def blob_piece(self, digest: str, start: int, count: int) -> bytes:
        """As the agent does."""
        return self.store.blob_piece(digest, start, count)

    def tokens_changed(self) -> None:
        """Nothing is kept."""


class Connection:
    """What a handler writes to."""

    def __init__(self) -> None:
        self.code = 0
        self.headers = HTTPHeaders()
        self.body = b""
        self.ended = asyncio.Event()

    def set_close_callback(self, callback: object) -> None:
        """It is never closed."""

    def write_headers(
        self, start_line: ResponseStartLine, headers: HTTPHeaders, chunk: bytes = b""
    ) -> asyncio.Future[None]:
        """The answer begins."""
        self.code, self.headers = start_line.code, headers
        return self.write(chunk)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """More of it."""
        self.body += chunk or b""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def finish(self) -> None:
        """Its end."""
        self.ended.set()

    def close(self) -> None:
        """It was cut off."""


@cache
def _site() -> tuple[asyncio.AbstractEventLoop, Application, str]:
    loop = asyncio.new_event_loop()
    house = House()
    server = Server(house, RTCKernel(), kernel="k")  # type: ignore[arg-type]
    server.executor.shutdown()
    server.executor = Inline()  # type: ignore[assignment]
    atexit.register(house.store.close)
    atexit.register(loop.close)
    secret = server.share(Role.VIEW, "view")["token"]
    return loop, Application(routes(server), log_function=lambda handler: None), secret  # type: ignore[arg-type]


def run(data: bytes) -> None:
    """Ask for an address: a byte for the method, and in lines behind it ``Range`` and the URL."""
    loop, application, secret = _site()
    method, _, rest = data.partition(b"\n")
    asked, _, where = rest.partition(b"\n")
    uri = "".join(char for char in where.decode("latin-1") if char > " " and char != "\x7f")
    if not uri.startswith("/") or uri.startswith("/rooms/"):
        return
    headers = HTTPHeaders({"Host": "localhost", "Authorization": f"Bearer {secret}"})
    if text := "".join(char for char in asked.decode("latin-1") if char.isprintable()):
        headers["Range"] = text
    connection = Connection()

    async def ask() -> None:
        name = METHODS[(method or b"\0")[0] % len(METHODS)]
        line = RequestStartLine(name, uri, "HTTP/1.1")
        request = HTTPServerRequest(start_line=line, headers=headers, body=b"", connection=connection)  # type: ignore[arg-type]
        application(request)
        async with asyncio.timeout(5):
            await connection.ended.wait()

    loop.run_until_complete(ask())
    assert 200 <= connection.code < 500, (connection.code, uri)
    if connection.code == 206 and connection.body:
        first, _, last = connection.headers["Content-Range"].removeprefix("bytes ").partition("/")[0].partition("-")
        assert connection.body == DATA[int(first) : int(last) + 1]
    elif connection.code >= 400 and connection.body:
        assert set(json.loads(connection.body)) == {"error", "remedy"}
