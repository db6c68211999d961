"""How does code in the kernel answer what a peer of the document asks it?

For use inside the kernel, the real one behind the proxy or any other ipykernel. Nothing of the proxy is needed there,
nor imported: ``comm``, which every kernel with comms has, and the standard library.

::

    from rtc_kernel.answering import answer

    @answer("columns")
    def columns(name):
        return [str(column) for column in get_ipython().user_ns[name].columns]

A question is a comm of its own: ``comm_open`` with ``{"input": value}`` is answered with one ``comm_msg``,
``{"result": value}`` or ``{"error": text}``. Whoever asked closes the comm. A cell that
computes holds up the answer; while one awaits, ipykernel 7.4 and later answer (``kernelbase.Kernel.shell_main``).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import comm
from comm.base_comm import BaseComm

from .errors import SetupError

Function = TypeVar("Function", bound=Callable[[Any], Any])

_later: set[asyncio.Task[None]] = set()  # a loop keeps no task alive


def answer(target: str) -> Callable[[Function], Function]:
    """A decorator: the function answers the questions that are put to this comm target.

    The function gets the input, any JSON value (null where none was given), and returns any JSON value. What it raises
    is told to whoever asked, as ``Name: message``. It may be ``async``. It is returned as it was, and may be called as
    any other; another one for the same target takes its place.

    Raises:
        SetupError: this is no kernel, or ``target`` is no name.
    """
    if not isinstance(target, str) or not target:
        raise SetupError("answer() was given no name of a target", 'write @answer("columns")')
    if not _is_kernel():
        raise SetupError("only a kernel is asked questions", "use rtc_kernel.answering in a notebook or a console")

    def register(function: Function) -> Function:
        def opened(comm: BaseComm, message: dict[str, Any]) -> None:
            _receive_open(function, comm, message)

        comm.get_comm_manager().register_target(target, opened)
        return function

    return register


def _is_kernel() -> bool:
    # ipykernel replaces what is in ``comm`` when it is imported, other kernels when they run.
    kernelbase = sys.modules.get("ipykernel.kernelbase")
    if kernelbase is not None:
        return bool(kernelbase.Kernel.initialized())
    return getattr(comm.get_comm_manager, "__module__", None) != comm.__name__


def _receive_open(function: Callable[[Any], Any], comm: BaseComm, message: dict[str, Any]) -> None:
    data = message["content"].get("data")
    value = data.get("input") if isinstance(data, dict) else None
    try:
        result = function(value)
        if inspect.isawaitable(result):
            task = asyncio.get_running_loop().create_task(_answer_later(comm, result), name=f"rtc {comm.target_name}")
            _later.add(task)
            task.add_done_callback(_later.discard)
            return
        reply = _result(result)
    except (Exception, KeyboardInterrupt) as exc:  # whatever the user's function raises; an interrupt ends it too
        reply = _error(exc)
    comm.send(reply)


async def _answer_later(comm: BaseComm, result: Awaitable[Any]) -> None:
    try:
        reply = _result(await result)
    except Exception as exc:
        reply = _error(exc)
    comm.send(reply)


def _result(value: Any) -> dict[str, Any]:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(f"the answer is not JSON: {exc}") from exc
    return {"result": value}


def _error(exc: BaseException) -> dict[str, Any]:
    text = f"{type(exc).__name__}: {exc}"
    return {"error": text.encode(errors="replace").decode()}  # names of files may have lone surrogates, no message may
