"""Which comms are open, what is the state of each widget, and which ``Output`` widget captures what?

Pure. State: the open comms (id, target), and of each ``Output`` widget its outputs and the ``msg_id`` it captures.
The merged state of a widget is not kept: an update replaces keys, and goes out as a change. A comm of our own
(``rtc.sync.v1``) is never recorded, nor is one whose opening we did not see.

Source: messaging spec, "Custom messages"; ipywidgets, ``packages/schema/messages.md`` (``state``, ``buffer_paths``
relative to ``state``, ``update``, ``echo_update``); for the capture, nbclient ``output_widget.py``: the latest
widget with a ``msg_id`` gets the outputs of that parent, the one before it when it lets go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...link import QUERY_COMM_PREFIX
from ...tables import AddCommMessage, Change, Json, MergeCommState, PutComm
from ...wire import Message
from .outputs import Capture
from .values import (
    PREVIEW_BYTES,
    Limits,
    bound,
    clean,
    clean_text,
    cut,
    dump,
    get_list,
    get_object,
    get_text,
    read_bundle,
    refer,
    size_of,
)

OWN_TARGET = "rtc.sync.v1"
WIDGET_TARGET = "jupyter.widget"
COMM_TYPES = frozenset({"comm_open", "comm_msg", "comm_close"})


@dataclass(slots=True)
class _Open:
    target: str
    capture: Capture | None = None
    msg_id: str = ""


class Comms:
    """The open comms of one kernel."""

    def __init__(self, kernel: str, limits: Limits) -> None:
        self.kernel = kernel
        self._limits = limits
        self._open: dict[str, _Open] = {}
        self._capturing: dict[str, list[str]] = {}

    def __repr__(self) -> str:
        return f"<Comms {len(self._open)} open, {len(self._capturing)} parents captured>"

    def receive(self, message: Message, at: float, way: str, execution: str | None) -> list[Change]:
        """One of ``COMM_TYPES``.

        Args:
            way: who sent it: ``kernel`` | ``front``.
            execution: the execution that it came from, where one did.
        """
        comm_id = get_text(message.content, "comm_id")
        if comm_id in self._open:
            self._open[comm_id] = self._open.pop(comm_id)  # the one that was silent for longest is the first
        match message.type:
            case "comm_open" if comm_id and not comm_id.startswith(QUERY_COMM_PREFIX):
                return self._receive_open(comm_id, message, at, way, execution)
            case "comm_msg" if comm_id in self._open:
                return self._receive_data(comm_id, message, at, way)
            case "comm_close" if comm_id in self._open:
                changes = self._receive_data(comm_id, message, at, way) if message.content.get("data") else []
                return [*changes, self._close(comm_id, at)]
            case _:
                return []

    def close_all(self, at: float) -> list[Change]:
        """The kernel's life is over, and with it every comm."""
        return [self._close(comm_id, at) for comm_id in list(self._open)]

    # --- the outputs that a widget captures

    def capturing(self, parent_id: str) -> str | None:
        """The comm that gets the outputs of this parent; null where none does."""
        comms = self._capturing.get(parent_id)
        return comms[-1] if comms else None

    def write(self, comm_id: str, name: str, text: str) -> list[Change]:
        """Text for a stream of a capturing widget."""
        capture = self._capture(comm_id)
        capture.write(name, text)
        return [MergeCommState(comm_id, {"outputs": capture.outputs()})]

    def add(self, comm_id: str, output: Json) -> list[Change]:
        """Another output, in nbformat's shape, for a capturing widget."""
        capture = self._capture(comm_id)
        capture.add(output)
        return [MergeCommState(comm_id, {"outputs": capture.outputs()})]

    def clear(self, comm_id: str, wait: bool) -> list[Change]:
        """A ``clear_output`` for a capturing widget."""
        capture = self._capture(comm_id)
        capture.clear(wait)
        return [] if wait else [MergeCommState(comm_id, {"outputs": []})]

    def _capture(self, comm_id: str) -> Capture:
        comm = self._open[comm_id]
        if comm.capture is None:
            comm.capture = Capture(self._limits)
        return comm.capture

    # --- in

    def _receive_open(self, comm_id: str, message: Message, at: float, way: str, execution: str | None) -> list[Change]:
        target = get_text(message.content, "target_name")
        if target == OWN_TARGET:
            return []
        if comm_id in self._open:
            self._set_msg_id(comm_id, "")
        comm = self._open[comm_id] = _Open(target)
        columns: Json = {"target": target, "kernel": self.kernel, "opened_by": way, "opened_at": at}
        if execution is not None:
            columns["execution"] = execution
        changes: list[Change] = [PutComm(comm_id, columns)]
        while len(self._open) > self._limits.comms:
            changes.append(self._close(next(iter(self._open)), at))
        data = get_object(message.content, "data")
        if target == WIDGET_TARGET:
            if get_object(data, "state").get("_model_name") == "OutputModel":
                comm.capture = Capture(self._limits)
            changes += self._merge(comm_id, data, message.buffers, way, echo=False)
        elif data:
            changes += self._receive_data(comm_id, message, at, way)
        return changes

    def _receive_data(self, comm_id: str, message: Message, at: float, way: str) -> list[Change]:
        data = message.content.get("data")
        if self._open[comm_id].target != WIDGET_TARGET:
            return [AddCommMessage(comm_id, {"way": way, "at": at, "data": bound(data, self._limits)})]
        if isinstance(data, dict) and data.get("method") in ("update", "echo_update"):
            return self._merge(comm_id, data, message.buffers, way, echo=data["method"] == "echo_update")
        return []

    def _merge(self, comm_id: str, data: Json, buffers: Sequence[bytes], way: str, *, echo: bool) -> list[Change]:
        """Set keys of a widget's state.

        What a frontend says of ``outputs``, and the kernel's echo of it, is left out: it is what the mirror has
        found already, only later.
        """
        comm = self._open[comm_id]
        changes: list[Change] = []
        state: Json = clean(get_object(data, "state"))
        if comm.capture is not None:
            if way == "front" or echo:
                state.pop("outputs", None)
            elif "outputs" in state:
                comm.capture.set(self._read_outputs(get_list(state, "outputs"), changes))
                state["outputs"] = comm.capture.outputs()
            if "msg_id" in state and not echo:
                self._set_msg_id(comm_id, get_text(state, "msg_id"))
        held = self._put_buffers(state, get_list(data, "buffer_paths"), buffers, changes)
        for key, value in state.items():
            if key not in held and not (comm.capture is not None and key == "outputs"):
                state[key] = self._read_value(value, changes)
        if state:
            changes.append(MergeCommState(comm_id, state))
        return changes

    def _read_outputs(self, outputs: list[Any], changes: list[Change]) -> list[Json]:
        read: list[Json] = []
        for output in outputs:
            if not isinstance(output, dict):
                continue
            if isinstance(output.get("data"), dict):
                output["data"] = read_bundle(output["data"], self._limits, changes)
            if isinstance(output.get("text"), str):
                output["text"] = cut(output["text"], self._limits.inline_bytes)
            read.append(output)
        return read

    def _read_value(self, value: Any, changes: list[Change]) -> Any:
        if not isinstance(value, str | list | dict):
            return value
        text = dump(value)
        if size_of(text) <= self._limits.inline_bytes:
            return value
        preview = cut(text, PREVIEW_BYTES)
        reference = refer(text.encode(), "application/json", preview, self._limits, changes)
        return reference | {"media_type": "application/json"}

    def _put_buffers(self, state: Json, paths: list[Any], buffers: Sequence[bytes], changes: list[Change]) -> set[str]:
        """Put the buffers at their paths in ``state``; returns the keys of ``state`` that hold one now."""
        held: set[str] = set()
        for path, buffer in zip(paths, buffers, strict=False):
            if not isinstance(path, list) or not path:
                continue
            value: Any = bytes(buffer)
            if len(value) > self._limits.inline_bytes:
                value = refer(value, "application/octet-stream", None, self._limits, changes)
                value["media_type"] = "application/octet-stream"
            if _put(state, path, value):
                held.add(clean_text(path[0]))
        return held

    def _set_msg_id(self, comm_id: str, msg_id: str) -> None:
        comm = self._open[comm_id]
        if comms := self._capturing.get(comm.msg_id):
            comms.remove(comm_id)
            if not comms:
                del self._capturing[comm.msg_id]
        comm.msg_id = msg_id
        if msg_id:
            self._capturing.setdefault(msg_id, []).append(comm_id)

    def _close(self, comm_id: str, at: float) -> Change:
        self._set_msg_id(comm_id, "")
        del self._open[comm_id]
        return PutComm(comm_id, {"closed_at": at})

    # --- state

    def state(self) -> Json:
        """JSON-ready; the inverse is :meth:`restore`."""
        return {
            "kernel": self.kernel,
            "open": {comm_id: comm.target for comm_id, comm in self._open.items()},
            "outputs": {
                comm_id: {"msg_id": comm.msg_id, "capture": comm.capture.state()}
                for comm_id, comm in self._open.items()
                if comm.capture is not None
            },
            "capturing": {msg_id: list(comms) for msg_id, comms in self._capturing.items()},
        }

    @classmethod
    def restore(cls, state: Json, limits: Limits) -> Comms:
        """The comms as they were when ``state`` was taken."""
        comms = cls(state["kernel"], limits)
        comms._open = {comm_id: _Open(target) for comm_id, target in state["open"].items()}
        for comm_id, output in state["outputs"].items():
            comms._open[comm_id].msg_id = output["msg_id"]
            comms._open[comm_id].capture = Capture.restore(output["capture"], limits)
        comms._capturing = {msg_id: list(found) for msg_id, found in state["capturing"].items()}
        return comms


def _put(state: Json, path: list[Any], value: Any) -> bool:
    """Put a value at a path of keys and indexes; whether that place is there."""
    place: Any = state
    for index, step in enumerate(path):
        last = index == len(path) - 1
        match place, step:
            case dict(), str():
                key: Any = clean_text(step)
                if not last and key not in place:
                    return False
            case list(), int() if not isinstance(step, bool) and 0 <= step < len(place):
                key = step
            case _:
                return False
        if last:
            place[key] = value
        else:
            place = place[key]
    return True
