"""Over ipc or over loopback TCP: how is the child reached, and was ipc tried in vain before?

Door (files). Owns a note for each kernel that did not do ipc, in Jupyter's runtime directory, so that its next start
loses no time. Must stay cheap to import: it runs before the child is started.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from .child import WINDOWS, ChildSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .connection import Connection

IPC_KERNELS = ("ipykernel_launcher", "ipykernel", "bash_kernel", "IRkernel::main()")
"""What is in the command lines of kernels that were tried over ipc, and did it: docs/kernels.md has the table."""


def wants_ipc(setting: str, front: Connection, spec: ChildSpec, known: Sequence[str]) -> bool:
    """Whether ipc is to be tried.

    A kernel's iopub keeps 1000 messages and what the socket's buffer holds, and drops the rest without a word. A
    Unix socket holds 208 KiB, TCP several MiB: over ipc a relay that gets no processor for 200 ms loses lines that a
    bare kernel's client gets. So by itself ipc is for fronts that are not plain TCP themselves.

    Args:
        setting: ``transport``.
        known: ``ipc_kernels``.
    """
    if WINDOWS or setting == "tcp":
        return False
    return setting == "ipc" or (not front.is_plain_tcp and spec.speaks_ipc(known))


def parse_words(text: str) -> list[str]:
    """A list setting as the environment and the command line give it: ``a,b,c`` or JSON.

    Raises:
        ValueError: it begins like JSON, and is no list of texts.
    """
    if text.startswith("["):
        words: list[str] = json.loads(text)
        if not all(isinstance(word, str) for word in words):
            raise ValueError("not a list of texts")
        return words
    return [word for word in text.split(",") if word]


def failed_before(spec: ChildSpec) -> bool:
    """Whether this kernel, with the program as it is now, was noted not to do ipc."""
    return _may_fail(spec) and _note(spec).exists()


def note_failure(spec: ChildSpec) -> None:
    """Note that this kernel was reached over TCP when it had not been over ipc. A note that cannot be written
    costs the next start some time."""
    if _may_fail(spec):
        with contextlib.suppress(OSError):
            path = _note(spec)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(" ".join(spec.argv) + "\n", encoding="utf-8")


def _may_fail(spec: ChildSpec) -> bool:
    """Those that are known to do ipc have failed for another reason: it is no reason to stay readable on the
    loopback for ever."""
    return not spec.speaks_ipc(IPC_KERNELS)


def _note(spec: ChildSpec) -> Path:
    import hashlib

    from ..discovery import directory

    program = shutil.which(spec.argv[0]) or spec.argv[0]
    changed = 0
    with contextlib.suppress(OSError):
        changed = Path(program).stat().st_mtime_ns  # another version may do it
    named = json.dumps([*spec.argv, changed]).encode()
    return directory() / "no-ipc" / hashlib.sha256(named).hexdigest()[:32]
