"""How is a line read from the terminal while other things happen?

Owns nothing but the terminal's settings, for as long as it reads. The terminal is read when it has a whole line, and by
no thread: so a reading that is given up (somebody else has answered, the run was interrupted) has taken nothing, and
nothing holds up the end of the program. What was typed is returned, and kept nowhere.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

END_OF_INPUT = "\x04"
"""What a kernel is answered when Ctrl-D is pressed: ipykernel and jupyter_console make an ``EOFError`` of it."""


def can_ask() -> bool:
    """Whether there is somebody at a terminal: one that we read, and one on which the question is seen."""
    if sys.platform == "win32":  # its terminals cannot be waited for
        return False
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


async def read_line(terminal: int, *, hidden: bool = False) -> str:
    """A line that is typed, without its end; :data:`END_OF_INPUT` for Ctrl-D.

    When it is cancelled, a line that was begun is dropped: half of an answer (or of a password) is not for whoever
    reads the terminal next.

    Args:
        terminal: its file descriptor.
        hidden: what is typed is not shown; what was typed before is dropped, as ``getpass`` does it.

    Raises:
        OSError: the terminal is gone.
    """
    import termios  # there is none on Windows

    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()
    parts: list[bytes] = []

    def receive() -> None:
        try:
            parts.append(os.read(terminal, 1 << 16))
        except OSError as exc:
            loop.remove_reader(terminal)
            line.set_exception(exc)
            return
        if not parts[-1] or parts[-1].endswith(b"\n"):  # what follows is the next reader's
            loop.remove_reader(terminal)
            line.set_result(b"".join(parts))

    with _hidden(terminal) if hidden else nullcontext():
        loop.add_reader(terminal, receive)
        try:
            typed = await line
        except asyncio.CancelledError:
            termios.tcflush(terminal, termios.TCIFLUSH)
            raise
        finally:
            loop.remove_reader(terminal)
    return typed.decode("utf-8", "replace").rstrip("\r\n") if typed else END_OF_INPUT


@contextmanager
def _hidden(terminal: int) -> Iterator[None]:
    import termios

    before = termios.tcgetattr(terminal)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
