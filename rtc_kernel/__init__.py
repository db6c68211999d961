"""rtc_kernel: a transparent Jupyter proxy kernel whose every execution is in a live shared document.

The rooms, from the wire to the reader (docs/design.md has the reasons):

* ``__main__``, ``relay``   process 1: five channels, unchanged frames; the real kernel's life
* ``wire``, ``link``        Jupyter frames <-> messages; what relay and agent say to each other
* ``tables``, ``schema``    the records of the shared document; how they are laid out in Yjs types
* ``agent``                 process 2: ``mirror`` (what happened), ``act`` (what is asked for),
  ``serve`` (who follows), ``keep`` (what stays), ``document`` (the live state), ``app`` (the hallway)
* ``client``, ``run``, ``cli``  follow a document from Python, run a notebook, ``jupyter rtc …``
* ``install``, ``provisioner``  how a kernel comes to be behind the relay: a kernelspec, or none
* ``moments``, ``rerun``    how an execution was at a time; a recorded history on a fresh kernel
* ``errors``, ``config``    one error tree; every setting with its unit and its limit

Importing this package is cheap on purpose: the relay must start the kernel before anything heavy loads.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, without importing it before the kernel has started

__version__ = "0.1.0"
__all__ = ["Change", "Comm", "Document", "Execution", "Kernel", "Output", "Request", "Run", "__version__", "connect"]

if TYPE_CHECKING:
    from typing import Any

    from .client import Change, Document, Run, connect
    from .tables import Comm, Execution, Kernel, Output, Request

_ROOMS = {
    "Change": "client",
    "Document": "client",
    "Run": "client",
    "connect": "client",
    "Comm": "tables",
    "Execution": "tables",
    "Kernel": "tables",
    "Output": "tables",
    "Request": "tables",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
