"""What does each address of the side socket answer?

Door (tornado). One handler per address; the table is in ``websocket``. Who asks is found here, what they may do is in
``access``, and all data come from the :class:`~rtc_kernel.agent.serve.Backend`. It owns nothing.

A token is taken from, in this order: ``Authorization: Bearer``, the subprotocol ``rtc.token.<token>``, the cookie
``rtc-token-<port>``, ``?token=``. None is ever logged.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import PurePath
from types import TracebackType
from typing import Any, Protocol, TypeVar

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

from ... import __version__, page, schema
from ...errors import SetupError
from ...pieces import dumps, execution_json, gather, write_json
from ...tables import Cell, Json, to_json
from . import Backend, PruneQuery, describe, marks_of, parse_history, read_completion, read_text
from .access import Action, Role, Token, parse_share
from .ranges import Range, read_range

NOTEBOOK_BYTES = 64 << 20
"""How large the cells of a headless run may be."""

BLOB_CSP = "sandbox; default-src 'none'"
PIECE_BYTES = 256 << 10
"""So much of a blob is in memory for one who asks for it."""

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,100}", re.ASCII)
_RUNS = re.compile(r"(java|ecma|j|live)script|/css", re.IGNORECASE)
"""As text they cannot be loaded into a page: its policy lets it run what comes from here."""
_INERT = re.compile(
    r"(image/(png|jpeg|gif|webp|avif|bmp)|(audio|video|font)/.*|text/(plain|csv|markdown)|.*[/+]json)$", re.IGNORECASE
)
"""Anything else that is opened as a page is saved instead of shown."""

log = logging.getLogger("rtc_kernel.serve")
T = TypeVar("T")


class Listed(Protocol):
    """A peer, as ``/api/peers`` needs it."""

    def to_json(self) -> Json:
        """What is told of it."""


class Site(Protocol):
    """What handlers need of the server: see :class:`rtc_kernel.agent.serve.websocket.Server`."""

    backend: Backend
    kernel: str

    @property
    def executor(self) -> Executor:
        """For reads of the history."""

    @property
    def peers(self) -> Iterable[Listed]:
        """Who is connected."""

    @property
    def cookie(self) -> str:
        """The name of our cookie."""

    @property
    def stall_s(self) -> float:
        """How long one who asks may take no byte of an answer. Seconds."""

    def allows_host(self, host: str) -> bool:
        """Whether a ``Host`` header is one of ours."""

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this ``Origin`` may ask."""

    def names_origin(self, origin: str) -> bool:
        """Whether the settings name this ``Origin``."""

    def verify(self, secret: str | None) -> Token | None:
        """The token in force that a secret belongs to."""

    def share(self, role: Role, name: str = "", expires_s: float | None = None) -> Json:
        """Mint a token."""

    def revoke(self, name: str) -> bool:
        """Take a token out of force."""


class ProblemError(HTTPError):
    """An answer that is not what was asked for: a status, what happened, and what to do."""

    def __init__(self, status: int, error: str, remedy: str) -> None:
        super().__init__(status, reason=None)
        self.error = error
        self.remedy = remedy


class Handler(RequestHandler):
    """What all handlers have in common: headers, who asks, how errors are told."""

    server: Site
    csp = "default-src 'none'; frame-ancestors 'none'"

    def initialize(self, server: Site) -> None:
        """Called by tornado."""
        self.server = server

    def set_default_headers(self) -> None:
        """Called by tornado for every response."""
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", self.csp)

    def prepare(self) -> None:
        """Called by tornado before every method."""
        host, origin = self.request.headers.get("Host", ""), self.request.headers.get("Origin")
        if not self.server.allows_host(host):
            raise ProblemError(403, "this Host is not ours", "use the address of the link, or set public_url")
        if origin is not None and not self.is_public:
            if not self.server.allows_origin(origin, host):
                raise ProblemError(403, "this Origin may not connect", "name it in the setting allow_origins")
            if self.server.names_origin(origin):
                self.set_header("Access-Control-Allow-Origin", origin)
                self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
                self.set_header("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE")
                self.set_header("Vary", "Origin")

    @property
    def is_public(self) -> bool:
        """Whether pages of any Origin may have this: it says nothing of the kernel."""
        return False

    def options(self, *_: str) -> None:
        """A browser asks whether a page of another Origin may ask."""
        self.set_status(204)

    def token(self) -> Token | None:
        """Who asks; null: nobody in force."""
        kind, _, secret = self.request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and secret:
            return self.server.verify(secret.strip())
        for protocol in self.request.headers.get("Sec-WebSocket-Protocol", "").split(","):
            if protocol.strip().startswith("rtc.token."):
                return self.server.verify(protocol.strip().removeprefix("rtc.token."))
        return self.server.verify(self.get_cookie(self.server.cookie)) or self.server.verify(
            self.get_query_argument("token", None)
        )

    def need(self, action: Action) -> Token:
        """Who asks, when that may be done.

        Raises:
            ProblemError: 401 without a token in force, 403 when its role does not cover it.
        """
        token = self.token()
        if token is None:
            raise ProblemError(401, "the token is missing, wrong or expired", "ask for a new link with %rtc share")
        if not token.role.may(action):
            raise ProblemError(403, f"the role {token.role.value} may not {action.value}", "ask for another link")
        return token

    def body(self) -> Json:
        """The body as a JSON object."""
        try:
            value = json.loads(self.request.body or b"{}")
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise ProblemError(400, "the body is not a JSON object", "send one")
        return value

    def answer(self, value: Json) -> None:
        """Answer with JSON."""
        self.answer_text(dumps(value))

    def answer_text(self, text: str) -> None:
        """Answer with JSON that is text already."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(text.encode("utf-8", "replace"))

    async def answer_pieces(self, pieces: Iterator[str]) -> None:
        """Answer with JSON text that is read in a thread, piece by piece, as fast as the asker takes it."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        large = gather(pieces, PIECE_BYTES)
        while (piece := await self.read(lambda: next(large, None))) is not None:
            if not await self.send(piece.encode("utf-8", "replace")):
                self.cut()
                return

    async def send(self, piece: bytes) -> bool:
        """Write a piece and wait until the socket has taken it; false: it did not in time."""
        self.write(piece)
        try:
            async with asyncio.timeout(self.server.stall_s):
                await self.flush()
        except (TimeoutError, StreamClosedError):
            return False
        return True

    def cut(self) -> None:
        """End in the middle: the asker sees that this is not all."""
        connection: Any = self.request.connection
        connection.close()

    async def read(self, call: Callable[[], T]) -> T:
        """Read from the backend in a thread, so that the loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self.server.executor, call)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Called by tornado for every error."""
        _, problem, _ = kwargs.get("exc_info", (None, None, None))
        if isinstance(problem, ProblemError):
            self.answer({"error": problem.error, "remedy": problem.remedy})
        else:
            self.answer({"error": self._reason, "remedy": "docs/protocol.md lists what can be asked for"})

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Called by tornado. The path is logged, the query never: it may hold a token."""
        if not isinstance(value, HTTPError) and typ is not None and value is not None:
            log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))


class PageHandler(Handler):
    """The viewer's files. They hold no data; what the page shows it asks for with the cookie."""

    csp = page.PAGE_CSP

    @property
    def is_public(self) -> bool:
        """Sandboxed frames have an Origin of their own and load their scripts from here."""
        return self.path_args[0].startswith("assets/")

    def head(self, name: str) -> None:
        """What :meth:`get` would answer, without the bytes."""
        self.get(name)

    def get(self, name: str) -> None:
        """Serve a file, or turn ``?token=`` into a cookie."""
        secret = self.get_query_argument("token", None)
        if secret is not None:
            if self.server.verify(secret) is not None:
                # of a chain of proxies the first was spoken to by the browser
                forwarded = self.request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
                secure = "https" in (self.request.protocol, forwarded)
                self.set_cookie(self.server.cookie, secret, path="", httponly=True, samesite="Strict", secure=secure)
            self.redirect("./")
            return
        name = name or "index.html"
        found = page.find(name, shrink="gzip" in self.request.headers.get("Accept-Encoding", ""))
        if found is None:
            raise ProblemError(404, "there is nothing here", "docs/protocol.md lists what can be asked for")
        for header, value in found.headers.items():
            self.set_header(header, value)
        self.finish(found.data)


class HealthHandler(Handler):
    """Is all well?"""

    def get(self) -> None:
        """Status and version; the rest for those who have a token."""
        token = self.token()
        if token is None:
            health = self.server.backend.health()
            self.answer({"status": health.get("status", "ok"), "version": __version__})
            return
        own = {"peers": len(list(self.server.peers)), "tasks": len(asyncio.all_tasks())}
        known = describe(self.server.backend, self.server.kernel)
        self.answer({**known, **own, "name": token.name, "role": token.role.value})


class HistoryHandler(Handler):
    """What ran?"""

    async def get(self) -> None:
        """A page of executions."""
        token = self.need(Action.READ_HISTORY)
        arguments = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        arguments.pop("token", None)
        try:
            query = parse_history(arguments)
        except SetupError as exc:
            raise ProblemError(400, exc.what, exc.remedy) from exc
        if query.grep is not None and not token.role.may(Action.SEARCH_REGEX):
            raise ProblemError(403, f"the role {token.role.value} may not search by regular expression", "use text=")

        def read() -> str:
            page = self.server.backend.history(query)
            return dumps({"executions": [to_json(row) for row in page.executions], "next": page.next})

        self.answer_text(await self.read(read))


class ExecutionHandler(Handler):
    """What was that execution? Its record is read and sent in pieces: it may have a GiB of text."""

    async def get(self, execution: str) -> None:
        """One record."""
        self.need(Action.READ_HISTORY)
        backend = self.server.backend
        row = await self.read(lambda: backend.execution(execution))
        if row is None:
            raise ProblemError(404, "there is no such execution", "/api/history lists those that are kept")
        await self.answer_pieces(write_json(execution_json(row, lambda position: read_text(backend, row.id, position))))


class MarksHandler(Handler):
    """When had the streams of that execution grown to where?"""

    async def get(self, execution: str) -> None:
        """``marks``: position, code points, time."""
        self.need(Action.READ_HISTORY)

        def read() -> str | None:
            row = self.server.backend.execution(execution)
            if row is None:
                return None
            return dumps({"execution": row.id, "marks": marks_of(self.server.backend, row.id)})

        text = await self.read(read)
        if text is None:
            raise ProblemError(404, "there is no such execution", "/api/history lists those that are kept")
        self.answer_text(text)


class BlobHandler(Handler):
    """What are these bytes? They never change, and are read and sent in pieces, as fast as the asker takes them."""

    csp = BLOB_CSP

    async def head(self, digest: str) -> None:
        """What :meth:`get` would answer, without the bytes."""
        await self.get(digest)

    async def get(self, digest: str) -> None:
        """Bytes by their digest, or one ``Range`` of them."""
        self.need(Action.READ_BLOB)
        name, backend = f"sha256:{digest}", self.server.backend
        blob = await self.read(lambda: backend.blob(name))
        if blob is None:
            raise ProblemError(404, "there is no such blob", "it may have left the history with its execution")
        self._describe(blob.media_type, digest)
        if self.check_etag_header():
            self.set_status(304)
            return
        asked = self._range(blob.size_bytes)
        if asked is not None:
            self.set_header("Content-Range", asked.content_range)
            self.set_status(206 if asked.count else 416)
            if not asked.count:
                self.answer({"error": "there are no such bytes", "remedy": f"it has {blob.size_bytes}"})
                return
        found = asked or Range(0, blob.size_bytes, blob.size_bytes)
        self.set_header("Content-Length", str(found.count))
        if self.request.method == "HEAD":
            return
        at = found.start
        while at < found.stop:
            start, count = at, min(PIECE_BYTES, found.stop - at)
            piece = await self.read(lambda start=start, count=count: backend.blob_piece(name, start, count))  # type: ignore[misc]
            if not piece or not await self.send(piece):
                self.cut()
                return
            at += len(piece)

    def compute_etag(self) -> str | None:
        """Called by tornado."""
        return f'"{self.path_args[0]}"' if self.path_args else None

    def _describe(self, media_type: str, digest: str) -> None:
        self.set_etag_header()
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("Cache-Control", "private, max-age=31536000, immutable")
        plain = _MEDIA_TYPE.fullmatch(media_type)
        self.set_header("Content-Type", media_type if plain else "application/octet-stream")
        if _RUNS.search(media_type):
            self.set_header("Content-Type", "text/plain")
        elif not _INERT.match(media_type):
            self.set_header("Content-Disposition", f'attachment; filename="{digest[:12]}"')

    def _range(self, size: int) -> Range | None:
        only_if = self.request.headers.get("If-Range")
        if only_if is not None and only_if.strip() != self.compute_etag():
            return None
        return read_range(self.request.headers.get("Range"), size)


class PeersHandler(Handler):
    """Who is connected?"""

    def get(self) -> None:
        """All peers."""
        self.need(Action.LIST_PEERS)
        self.answer({"peers": [peer.to_json() for peer in self.server.peers]})


class ShareHandler(Handler):
    """Who has a link?"""

    def get(self) -> None:
        """The tokens in force, without their hashes."""
        self.need(Action.SHARE)
        now = time.time()
        tokens = [
            {name: value for name, value in asdict(token).items() if name != "hash"}
            for token in self.server.backend.tokens
            if token.expires_at is None or token.expires_at > now
        ]
        self.answer({"tokens": tokens})

    def post(self) -> None:
        """Mint one: ``{"role": "view"|"run"|"own", "name": "", "expires_s": null}``."""
        self.need(Action.SHARE)
        try:
            self.answer(self.server.share(*parse_share(self.body())))
        except SetupError as exc:
            raise ProblemError(400, exc.what, exc.remedy) from exc


class ShareNameHandler(Handler):
    """One link."""

    def delete(self, name: str) -> None:
        """Withdraw it; its connections are closed at once."""
        self.need(Action.SHARE)
        if not self.server.revoke(name):
            raise ProblemError(404, "there is no token of that name", "/api/share lists those in force")
        self.answer({"revoked": name})


@stream_request_body
class NotebookHandler(Handler):
    """What will run, and what ran? The body is read only after the token was seen."""

    def prepare(self) -> None:
        """Called by tornado before the body."""
        super().prepare()
        self._chunks: list[bytes] = []
        if self.request.method == "PUT":
            self.need(Action.PUT_NOTEBOOK)
            connection: Any = self.request.connection
            connection.set_max_body_size(NOTEBOOK_BYTES)

    def data_received(self, chunk: bytes) -> None:
        """Called by tornado."""
        self._chunks.append(chunk)

    async def get(self) -> None:
        """The history as a notebook."""
        self.need(Action.READ_HISTORY)
        row = next((one for one in schema.read_kernels(self.server.backend.document.doc)), None)
        name = PurePath((row.notebook if row else None) or "history").stem
        plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:100]
        self.set_header("Content-Disposition", f'attachment; filename="{plain}.ipynb"')
        await self.answer_pieces(await self.read(self.server.backend.notebook))

    def put(self) -> None:
        """``{"path": …, "cells": [{"id", "cell_type", "source"}]}``."""
        self.request.body = b"".join(self._chunks)
        body = self.body()
        path, cells = body.get("path"), body.get("cells")
        if not isinstance(path, str) or not isinstance(cells, list):
            raise ProblemError(400, "path or cells is missing", "send {path, cells: [{id, cell_type, source}]}")
        rows = []
        for index, cell in enumerate(cells):
            given = cell if isinstance(cell, dict) else {}
            columns = {name: given[name] for name in _CELL_COLUMNS if isinstance(given.get(name), str)}
            if len(columns) != len(_CELL_COLUMNS):
                raise ProblemError(400, f"cell {index} is not complete", "each has id, cell_type and source as text")
            rows.append(Cell(index=index, **columns))
        self.server.backend.put_cells(path, tuple(rows))
        self.answer({"cells": len(rows)})


_CELL_COLUMNS = ("id", "cell_type", "source")


class CompleteHandler(Handler):
    """What would the kernel put in there?"""

    async def post(self) -> None:
        """``{"code", "cursor_pos"}`` (code points), up to 1 MiB → ``matches``, ``cursor_start``, ``cursor_end``."""
        self.need(Action.REQUEST)
        try:
            self.answer(await read_completion(self.server.backend, self.body()))
        except SetupError as exc:
            raise ProblemError(400, exc.what, exc.remedy) from exc


class ClearHandler(Handler):
    """Forget what is finished."""

    def post(self) -> None:
        """Clear the history."""
        self.need(Action.CLEAR)
        self.server.backend.clear()
        self.answer({"cleared": True})


class PruneHandler(Handler):
    """Bring the history within limits."""

    async def post(self) -> None:
        """``{"older_than_s": null, "keep": null, "max_bytes": null, "dry_run": false}``."""
        self.need(Action.CLEAR)
        body = self.body()
        for name, value in body.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            fits = {
                "older_than_s": value is None or (is_number and math.isfinite(value) and value >= 0),
                "keep": value is None or (is_number and isinstance(value, int) and value >= 0),
                "max_bytes": value is None or (is_number and isinstance(value, int) and value >= 0),
                "dry_run": isinstance(value, bool),
            }
            if not fits.get(name, False):
                raise ProblemError(400, f"{name} does not fit", "numbers from 0 or null, and dry_run true or false")
        try:
            self.answer(await self.server.backend.prune(PruneQuery(**body)))
        except SetupError as exc:
            raise ProblemError(503, exc.what, exc.remedy) from exc


class LostHandler(Handler):
    """Everything else."""

    def prepare(self) -> None:
        """Called by tornado before every method."""
        super().prepare()
        raise ProblemError(404, "there is nothing here", "docs/protocol.md lists what can be asked for")


ROUTES: list[tuple[str, type[RequestHandler]]] = [
    (r"/(|[\w-]+\.(?:html|js|css)|assets/[\w-][\w.-]{0,127})", PageHandler),
    (r"/api/health", HealthHandler),
    (r"/api/history", HistoryHandler),
    (r"/api/executions/([^/]{1,256})", ExecutionHandler),
    (r"/api/executions/([^/]{1,256})/marks", MarksHandler),
    (r"/blobs/([0-9a-f]{64})", BlobHandler),
    (r"/api/peers", PeersHandler),
    (r"/api/share", ShareHandler),
    (r"/api/share/([^/]{1,256})", ShareNameHandler),
    (r"/api/notebook", NotebookHandler),
    (r"/api/complete", CompleteHandler),
    (r"/api/clear", ClearHandler),
    (r"/api/prune", PruneHandler),
]
