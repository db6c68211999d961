"""A process that watches a kernel and says when it saw what: the other end of :mod:`observers`.

``subscriber URL``: a plain zmq SUB on a kernel's iopub. ``peer URL TOKEN``: a pycrdt replica of the document at a
WebSocket, without code of ours but the two bytes in front of an update; it sees a text when its replica has it.
With a third argument it is at a Hocuspocus relay, where that is the document's name.
``notebook URL TOKEN``: the same for a notebook that another system shares (the layout of jupyter_ydoc).

All read the lines that cells print: ``line N`` is counted (in order), ``at NS`` gives a lag against the clock of
the cell (CLOCK_MONOTONIC is one for all processes of a machine), ``end TOKEN`` writes a report to stdout, and so does
an error, with its name as the token::

    {"token", "at_ns", "lines", "lags_ns": […], "wire_bytes", "ended_rows", "ended_at_ns"}

``at_ns`` is when the observer had the text, ``ended_rows`` how many executions of request rows have ended, and
``ended_at_ns`` when the last of them did. Nothing is written before ``end``, so that writing disturbs nobody.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

OPEN_STATES = ("queued", "running")


class Reader:
    """Lines in, reports out."""

    def __init__(self) -> None:
        self.wire_bytes = 0
        self._rest = ""
        self._lines = 0
        self._lags: list[int] = []
        self._ended_rows = self._ended_at_ns = 0

    def feed(self, text: str, at_ns: int) -> None:
        """The text that came, in order."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            word, _, value = line.partition(" ")
            if word == "line":
                self._lines += value == str(self._lines)
            elif word == "at":
                self._lags.append(at_ns - int(value))
            elif word == "end":
                self._report(value, at_ns)

    def end_rows(self, count: int, at_ns: int) -> None:
        """Executions of request rows have ended."""
        self._ended_rows += count
        self._ended_at_ns = at_ns

    def _report(self, token: str, at_ns: int) -> None:
        report = {
            "token": token,
            "at_ns": at_ns,
            "lines": self._lines,
            "lags_ns": self._lags,
            "wire_bytes": self.wire_bytes,
            "ended_rows": self._ended_rows,
            "ended_at_ns": self._ended_at_ns,
        }
        print(json.dumps(report), flush=True)
        self._lines, self._lags, self.wire_bytes = 0, [], 0
        self._ended_rows = self._ended_at_ns = 0


def subscribe(url: str) -> None:
    """Watch iopub. Does not return."""
    import zmq

    reader = Reader()
    socket = zmq.Context().socket(zmq.SUB)
    socket.set_hwm(0)
    socket.subscribe(b"")
    socket.connect(url)
    while True:
        frames = socket.recv_multipart()
        reader.wire_bytes += sum(map(len, frames))
        at = frames.index(b"<IDS|MSG>")
        if b'"stream"' in frames[at + 2]:
            text = json.loads(frames[at + 5])["text"]
            reader.feed(text, time.monotonic_ns())
        elif b'"error"' in frames[at + 2]:
            reader.feed(error_line(json.loads(frames[at + 5])["ename"]), time.monotonic_ns())


async def follow(url: str, token: str, root: str, name: str = "") -> None:
    """Watch a document. Does not return.

    Args:
        root: ``executions``, of our documents, or ``cells``, of a notebook.
        name: of the document, at a relay, where it stands before each message.
    """
    from pycrdt import Array, Doc, Map
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    reader = Reader()
    doc: Doc[Any] = Doc()
    rows: Any = doc.get(root, type=Map if root == "executions" else Array)
    texts: list[str] = []
    ends: list[str] = []

    def note(events: list[Any]) -> None:
        texts.extend(new_texts(events))
        ends.extend(new_ends(events))

    subscription = rows.observe_deep(note)
    ended = asyncio.Event()

    head = short_text(name) if name else b""

    def receive(data: bytes | str | None) -> None:
        if isinstance(data, bytes):
            data = data.removeprefix(head)
        if data is None:
            ended.set()
        elif isinstance(data, bytes) and (update := update_of(data)):
            reader.wire_bytes += frame_bytes(len(data))
            doc.apply_update(update)
            at_ns = time.monotonic_ns()
            if count := sum(key in rows and "request" in rows[key] for key in ends):
                reader.end_rows(count, at_ns)
            for text in texts:
                reader.feed(text, at_ns)
            texts.clear()
            ends.clear()
        elif data[:2] == b"\x00\x00":  # its step 1: some servers wait until they know that we have nothing for them
            answer = socket.write_message(head + b"\x00\x01\x02\x00\x00", binary=True)
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())

    request = HTTPRequest(url, headers={"Authorization": f"Bearer {token}"})
    socket = await websocket_connect(request, on_message_callback=receive, max_message_size=1 << 30)
    if head:
        await socket.write_message(head + b"\x02\x00" + short_text(token), binary=True)
    await socket.write_message(head + b"\x00\x00\x01\x00", binary=True)  # step 1 with an empty state vector
    await ended.wait()
    rows.unobserve(subscription)


def short_text(text: str) -> bytes:
    """A text of less than 16 KiB as lib0 writes it."""
    size = len(text.encode())
    return bytes((size & 127 | 128, size >> 7) if size > 127 else (size,)) + text.encode()


def update_of(data: bytes) -> bytes | None:
    """The update in a message of y-protocols (a step 2 or an update); null for any other message."""
    if data[:1] != b"\x00" or data[1] not in (1, 2):
        return None
    at, shift, length = 2, 0, 0
    while True:
        length |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return data[at : at + length]


def frame_bytes(size: int) -> int:
    """The size of a message from a WebSocket server with its frame's header (RFC 6455, section 5.2)."""
    return size + (2 if size < 126 else 4 if size < 1 << 16 else 10)


def new_texts(events: list[Any]) -> Iterator[str]:
    """The stream text that an update added, in order: into a segment, behind it, in a new output, in a new row."""
    from pycrdt import MapEvent, TextEvent

    rank = {TextEvent: 0, MapEvent: 2}
    for event in sorted(events, key=lambda event: rank.get(type(event), 1)):
        if isinstance(event, MapEvent):
            for change in event.keys.values():
                if not isinstance(value := change.get("newValue"), dict):  # the row's word on what its outputs say
                    yield from stream_texts(value)
            continue
        for part in event.delta:
            added = part.get("insert", ())
            if isinstance(added, str):
                yield added
            else:
                for value in added:
                    yield from stream_texts(value)


def new_ends(events: list[Any]) -> Iterator[str]:
    """The executions that an update says have ended: of a row it knew, or of a new one."""
    from pycrdt import Map, MapEvent

    for event in events:
        if not isinstance(event, MapEvent) or len(path := event.path) > 1:
            continue
        for key, change in event.keys.items():
            value = change.get("newValue")
            if path:
                if key == "state" and value not in OPEN_STATES:
                    yield path[0]
            elif isinstance(value, Map) and value.get("state") not in (None, *OPEN_STATES):
                yield key


def stream_texts(value: Any) -> Iterator[str]:
    """The text of a new segment, or of the streams in a new output or row; of an error that it has ended."""
    from pycrdt import Array, Map, Text

    if isinstance(value, Text):
        yield str(value)
    elif isinstance(value, Array):
        for item in value:
            yield from stream_texts(item)
    elif isinstance(value, Map | dict):
        for name in ("outputs", "text"):
            if name in value:
                found = value[name]
                yield from (found,) if isinstance(found, str) else stream_texts(found)
        if "ename" in value:
            yield error_line(value["ename"])


def error_line(name: str) -> str:
    """What an error is read as, wherever in a line it came."""
    return f"\nend {name}\n"


def end_with_parent() -> None:
    """Nobody waits for what we see once our stdin is closed."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    match sys.argv[1:]:
        case ["subscriber", url]:
            subscribe(url)
        case ["peer", url, token, *name]:
            asyncio.run(follow(url, token, "executions", *name))
        case ["notebook", url, token]:
            asyncio.run(follow(url, token, "cells"))
        case _:
            sys.exit("usage: subscriber URL | peer URL TOKEN [DOCUMENT] | notebook URL TOKEN")
