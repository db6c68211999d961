"""Where can something listen that is told its port before it starts?"""

from __future__ import annotations

import contextlib
import random
import socket

PORTS = range(20_000, 32_000)
"""Below the ports that systems give out by themselves (Linux: from 32768 on; IANA: from 49152 on): nobody gets one of
these by chance before the program that it is for."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback, side by side, where nobody listens."""
    while True:
        first = random.randrange(PORTS.start, PORTS.stop - count)
        ports = list(range(first, first + count))
        with contextlib.suppress(OSError), contextlib.ExitStack() as taken:
            for port in ports:
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return ports
