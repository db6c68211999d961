"""A process that is many peers of one document at once: the other end of :mod:`crowding`.

``python -m benchmarks.crowd URL TOKEN COUNT [DOCUMENT]``; DOCUMENT: its name, at a Hocuspocus relay. Raw sockets in one
poll loop that note when bytes came and nothing else: replicas would measure themselves. Lines of JSON in,
lines of JSON out::

    {"stalled": n}      from now on n further peers ask for the document twenty times and do not read
                        → {"stalled": n}
    {"report": n}       → {"report": n, "lags_ns": [[…], …]}: of each peer, how long after it was printed it got each
                        line ``at NS`` that came since the last report

It begins with {"ready": COUNT}, once every peer has the document.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import sys
import time
from urllib.parse import urlsplit

from .observe import short_text

STEP1 = b"\x82\x84" + bytes(4) + b"\x00\x00\x01\x00"
"""A masked frame (with the mask 0) that asks for the whole document."""

PING, PONG = b"\x89\x00", b"\x8a\x80" + bytes(4)

SYNCS = 20
"""How often a stalled peer asks: as often as it may at once."""

AT = re.compile(rb"at ([0-9]{6,20})\n")


def frame(message: bytes) -> bytes:
    """A masked frame (with the mask 0) of less than 64 KiB."""
    size = len(message)
    head = bytes((0x82, 0x80 | size)) if size < 126 else b"\x82\xfe" + size.to_bytes(2, "big")
    return head + bytes(4) + message


class Peer:
    """One connection, and what came over it, with the time. ``document``: its name as lib0 writes it, at a relay."""

    def __init__(self, url: str, token: str, document: bytes = b"", *, stalls: bool = False) -> None:
        where = urlsplit(url)
        self.socket = socket.socket()
        if stalls:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((where.hostname, where.port))
        lines = [
            f"GET {where.path} HTTP/1.1", f"Host: {where.netloc}", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            f"Authorization: Bearer {token}", "", "",
        ]  # fmt: skip
        first = STEP1 * (SYNCS if stalls else 1)
        if document:
            self.alive = frame(document + b"\x01\x01\x00")  # a relay gives up who says nothing for a minute
            first = frame(document + b"\x02\x00" + short_text(token)) + frame(document + b"\x00\x00\x01\x00")
        self.socket.sendall("\r\n".join(lines).encode() + first)
        self.came: list[tuple[int, bytes]] = []

    def lags_ns(self) -> list[int]:
        """Of each line, how long after it was printed it was here; forgets what came up to the last one."""
        came = self.came
        data, ends, at = b"".join(part for _, part in came), [], 0
        for came_ns, part in came:
            at += len(part)
            ends.append((at, came_ns))
        out, part_index, seen = [], 0, 0
        for found in AT.finditer(data):
            while ends[part_index][0] < found.end():
                part_index += 1
            out.append(ends[part_index][1] - int(found[1]))
            seen = found.end()
        if out:
            self.came = [(ends[part_index][1], data[seen : ends[part_index][0]]), *came[part_index + 1 :]]
        return out


def main(url: str, token: str, count: int, name: str = "") -> None:
    """Does not return before stdin is closed."""
    poll, peers, silent = select.epoll(), {}, set()
    document = short_text(name) if name else b""
    for _ in range(count):
        peer = Peer(url, token, document)
        peers[peer.socket.fileno()] = peer
        silent.add(peer.socket.fileno())
        poll.register(peer.socket, select.EPOLLIN)
    stalled: list[Peer] = []
    poll.register(sys.stdin, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == sys.stdin.fileno():
                line = sys.stdin.readline()
                if not line:
                    return
                command = json.loads(line)
                if "stalled" in command:
                    for peer in stalled:
                        peer.socket.close()
                    stalled = [Peer(url, token, stalls=True) for _ in range(command["stalled"])]
                    say(command)
                else:
                    for peer in peers.values() if document else ():
                        peer.socket.sendall(peer.alive)
                    say({**command, "lags_ns": [peer.lags_ns() for peer in peers.values()]})
                continue
            data = os.read(fd, 1 << 20)
            if not data:
                raise ConnectionError("a peer was closed")
            peers[fd].came.append((time.monotonic_ns(), data))
            if PING in data:  # what is read may be several frames; a pong too many does no harm
                os.write(fd, PONG)
            if document:
                has_it = fd in silent and document + b"\x00\x01" in b"".join(part for _, part in peers[fd].came)
            else:
                has_it = (fd in silent and len(data) > 2 and data[:4] != b"HTTP") or b"\r\n\r\n\x82" in data
            if has_it:
                silent.discard(fd)
                if not silent:
                    silent.add(-1)
                    say({"ready": count})


def say(value: object) -> None:
    """One line of JSON."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
