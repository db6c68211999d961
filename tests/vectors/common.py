"""What is the same in all vectors: ids, times, and how records are said.

Owns what chance decides elsewhere (:func:`fixed`): client ids, epochs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from pycrdt import Doc, Map

from rtc_kernel import schema, yproto
from rtc_kernel.agent import document as documents
from rtc_kernel.agent import requests as requests_documents
from rtc_kernel.tables import Json, to_json
from rtc_kernel.wire import finite

KERNEL = "5f0c2f1e-6d1c-4b0c-9d52-000000000001"
AGENT, FRONT, OTHER = 1001, 2002, 3003
"""Yjs client ids: of the agent in the first epoch (one more in each later one), of two peers."""
NOW = 1_700_000_000.0
META = {
    "created_at": NOW,
    "server": {"name": "rtc_kernel", "version": "0.1.0"},
    "health": {"status": "ok", "reason": None},
    "coverage": "full",
}
STEP1 = yproto.step1(b"\x00")
"""Of a client that has nothing."""
META_COLUMNS = frozenset({"schema", "epoch", "room", "created_at", "server", "health", "coverage", "gap"})
REQUEST_COLUMNS = ("action", "by", "state", "ordinal", "received_at", "execution", "query", "reason")


@contextmanager
def fixed() -> Iterator[None]:
    """Epochs and the agent's client ids, counted up from the same beginning."""
    numbers = {"epoch": 0, "client": AGENT - 1, "salt": 0}

    def count(name: str) -> int:
        numbers[name] += 1
        return numbers[name]

    def new_doc(*args: Any, **kwargs: Any) -> Doc[Any]:
        return Doc(*args, **{"client_id": count("client"), **kwargs})

    def new_epoch(nbytes: int) -> str:
        return f"{count('epoch'):0{2 * nbytes}x}"

    def new_salt(bits: int) -> int:
        return count("salt")

    with (
        mock.patch.object(documents, "Doc", new_doc),
        mock.patch.object(documents.secrets, "token_hex", new_epoch),
        mock.patch.object(requests_documents.secrets, "randbits", new_salt),
    ):
        yield


def replica(updates: Iterable[bytes]) -> Doc[Any]:
    """A document to which these were applied, in order."""
    doc: Doc[Any] = Doc(client_id=1)
    for update in updates:
        doc.apply_update(update)
    return doc


def read_state(doc: Doc[Any]) -> Json:
    """The records of a ``state`` document."""
    notebooks = {key: row.get("notebook") for key, row in (doc.get("cells", type=Map).to_py() or {}).items()}
    records: Json = finite(
        {
            "meta": {name: value for name, value in schema.read_meta(doc).items() if name in META_COLUMNS},
            "kernels": [to_json(row) for row in schema.read_kernels(doc)],
            "executions": [to_json(row) for row in schema.read_executions(doc)],
            "comms": [to_json(row) for row in schema.read_comms(doc)],
            "cells": [{**to_json(row), "notebook": notebooks[row.id]} for row in schema.read_cells(doc)],
            "queries": [to_json(row) for row in schema.read_queries(doc)],
        }
    )
    return records


def read_requests(doc: Doc[Any]) -> Json:
    """The records of a ``requests`` document."""
    rows = []
    for key, plain in (doc.get("requests", type=Map).to_py() or {}).items():
        request = schema.read_request(key, plain)
        columns = {name: value for name, value in request.columns.items() if name != "query"}
        said = {name: plain.get(name) for name in REQUEST_COLUMNS}
        rows.append({"id": key, **said, "action": request.action, "execution": request.execution, "columns": columns})
    rows.sort(key=lambda row: (row["ordinal"] is None, row["ordinal"] or 0, row["id"]))
    return {"meta": schema.read_meta(doc), "requests": rows}


READERS: Mapping[str, Callable[[Doc[Any]], Json]] = {"state": read_state, "requests": read_requests}


def vector(doc: Doc[Any]) -> list[list[int]]:
    """The state vector, by client."""
    return [[client, clock] for client, clock in sorted(yproto.read_state_vector(doc.get_state()).items())]


def entry(client: int, clock: int, state: Any) -> yproto.Entry:
    return yproto.Entry(client, clock, json.dumps(state, ensure_ascii=False, separators=(",", ":")))


def say_message(message: yproto.Message) -> Json:
    """What a message says, as ``frames.json`` has it."""
    match message:
        case yproto.Step1(clocks):
            return {"type": "step1", "clocks": [[client, clock] for client, clock in clocks.items()]}
        case yproto.Step2(update):
            return {"type": "step2", "update": update.hex()}
        case yproto.Update(update):
            return {"type": "update", "update": update.hex()}
        case yproto.Awareness(entries):
            return {"type": "awareness", "entries": [[e.client, e.clock, e.state] for e in entries]}
        case yproto.Denied(reason):
            return {"type": "denied", "reason": reason}
        case yproto.Query():
            return {"type": "query"}
