"""Documents as the agent writes them, and their records: ``python/documents.json``."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pycrdt import Doc, Map

from rtc_kernel import schema
from rtc_kernel.agent.act.rows import RowLimits, read_row
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.mirror import values
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.bounds import Bounds
from rtc_kernel.tables import (
    AddCommMessage,
    AddOutput,
    Cell,
    Change,
    ClearOutputs,
    DropQuery,
    ExecutionState,
    Json,
    Kernel,
    KernelState,
    MergeCommState,
    Output,
    PutCells,
    PutComm,
    PutExecution,
    PutKernel,
    PutMeta,
    PutQuery,
    QueryState,
    Request,
    RequestState,
    SetOutput,
    WriteText,
)

from .common import FRONT, KERNEL, META, NOW, OTHER, READERS, fixed, replica, vector

NO_SUCH_CHARACTER = "lone \ud83d and NUL \0, then 😀"
"""As a kernel may print it, and no Yjs peer or database can hold it."""


def stream(name: str = "stdout", at: float = NOW + 2) -> Output:
    return Output(output_type="stream", at=at, name=name, text="")


def display(data: Json, at: float = NOW + 3, **columns: Any) -> Output:
    return Output(output_type="display_data", at=at, data=data, metadata={}, **columns)


def execution(key: str, seq: int, **columns: Any) -> PutExecution:
    base = {
        "seq": seq,
        "kernel": KERNEL,
        "code": "1",
        "submitted_by": "ada",
        "client": "session-1",
        "queued_at": NOW + seq,
        "started_at": NOW + seq + 0.25,
        "state": ExecutionState.RUNNING,
    }
    return PutExecution(key, {**base, **columns})


def ended(key: str, state: ExecutionState = ExecutionState.OK, **columns: Any) -> PutExecution:
    return PutExecution(key, {"state": state, "finished_at": NOW + 9, "execution_count": 1, **columns})


def new_state(bounds: Bounds | None = None, **how: Any) -> tuple[StateDocument, list[bytes]]:
    """A document of an agent that has just started, and its first update."""
    document = StateDocument(KERNEL, bounds=bounds, **how)
    document.load(
        meta=META,
        kernels=[
            Kernel(
                id=KERNEL,
                name="rtc-python",
                display_name="RTC Python",
                language="python",
                state=KernelState.IDLE,
                host="machine",
                started_at=NOW,
                last_activity_at=NOW,
            )
        ],
    )
    return document, [document.diff(b"\x00")]


def state_case(name: str, *batches: Sequence[Change], bounds: Bounds | None = None, **how: Any) -> Json:
    """Changes as the agent writes them, an update for each batch."""
    document, updates = new_state(bounds, **how)
    updates += [update for batch in batches if (update := document.apply(batch)) is not None]
    return document_case(name, updates)


def document_case(name: str, updates: Sequence[bytes], room: str = "state") -> Json:
    doc = replica(updates)
    return {
        "name": name,
        "room": room,
        "updates": [update.hex() for update in updates],
        "vector": vector(doc),
        "records": READERS[room](doc),
    }


def make_documents() -> list[Json]:
    """``python/documents.json``."""
    with fixed():
        return [*_small_cases(), *_output_cases(), *_table_cases(), *_life_cases(), *_request_cases()]


def _small_cases() -> Iterator[Json]:
    yield state_case("a kernel that has just started")
    yield state_case(
        "one execution from its request to its end",
        [execution("e1", 1, state=ExecutionState.QUEUED, started_at=None, code="print('é😀')", cell="c-1")],
        [PutKernel(KERNEL, {"state": KernelState.BUSY, "last_activity_at": NOW + 1})],
        [PutExecution("e1", {"state": ExecutionState.RUNNING, "started_at": NOW + 1.5})],
        [AddOutput("e1", 0, stream()), WriteText("e1", 0, 0, None, "é😀\n")],
        [ended("e1"), PutKernel(KERNEL, {"state": KernelState.IDLE, "last_activity_at": NOW + 9})],
    )
    yield state_case(
        "numbers",
        [
            execution("e1", 1),
            AddOutput(
                "e1",
                0,
                display(
                    {
                        "application/json": {
                            "small": [0, 1, -1, 63, 64, 127, 128, 2**31, -(2**31)],
                            "exact": [2**53 - 1, -(2**53) + 1],
                            "larger": [2**53 + 2, 2**63, 2**70, -(2**64)],
                            "fractions": [0.5, -0.25, 1e-300, 1.7e308, 0.1],
                            "others": [True, False, None, "", [], {}],
                        }
                    }
                ),
            ),
            ended("e1", execution_count=2**31),
        ],
    )
    wide = "a\u0301 ÿ ﷽ 漢 👩‍👩‍👧‍👦 \U0010ffff \ufeff\u2028"
    dirty = values.clean_text(NO_SUCH_CHARACTER)
    yield state_case(
        "text of every plane, and what cannot be text",
        [
            execution("e-ü😀", 1, code=wide + dirty, cell="Zelle ä/😀", metadata={wide: wide}),
            AddOutput("e-ü😀", 0, stream("stderr")),
            WriteText("e-ü😀", 0, 0, None, dirty),
            WriteText("e-ü😀", 0, 0, None, wide),
            AddOutput("e-ü😀", 1, display(values.clean({"text/plain": NO_SUCH_CHARACTER, wide: [wide]}))),
        ],
        [WriteText("e-ü😀", 0, 0, 6, "cut behind six code points 😀")],
    )


def _output_cases() -> Iterator[Json]:
    yield state_case(
        "every type of output",
        [
            execution("e1", 1),
            AddOutput("e1", 0, stream("stdout")),
            WriteText("e1", 0, 0, None, "out\n"),
            AddOutput("e1", 1, stream("stderr")),
            WriteText("e1", 1, 0, None, "err\n"),
            AddOutput(
                "e1",
                2,
                Output(
                    output_type="display_data",
                    at=NOW + 3,
                    data={"text/html": "<b>ü</b>", "text/plain": "ü", "application/json": {"a": [1, None]}},
                    metadata={"text/html": {"isolated": True}},
                    display_id="d-1",
                ),
            ),
            AddOutput(
                "e1",
                3,
                Output(
                    output_type="execute_result",
                    at=NOW + 4,
                    data={"text/plain": "42"},
                    metadata={},
                    execution_count=7,
                ),
            ),
            AddOutput(
                "e1",
                4,
                Output(
                    output_type="error",
                    at=NOW + 5,
                    ename="ZeroDivisionError",
                    evalue="division by zero",
                    traceback=("\x1b[31mTraceback\x1b[0m", "1/0", ""),
                ),
            ),
            AddOutput("e1", 5, stream("stdout", NOW + 6)),
            ended(
                "e1",
                ExecutionState.ERROR,
                execution_count=7,
                error={"ename": "ZeroDivisionError", "evalue": "division by zero"},
            ),
        ],
    )
    lines = "".join(f"{n:04} ─ 😀\n" for n in range(400))
    yield state_case(
        "a stream of several segments, written to again at its end",
        [execution("e1", 1), AddOutput("e1", 0, stream())],
        [WriteText("e1", 0, 0, None, lines[:3000])],
        [WriteText("e1", 0, 1, None, lines[3000:5000]), WriteText("e1", 0, 2, None, "0 %")],
        *[[WriteText("e1", 0, 2, 0, f"{n} %")] for n in (20, 40, 60)],
        [WriteText("e1", 0, 1, 7, "all behind seven characters is gone")],
        [WriteText("e1", 0, 2, None, "\nlast")],
    )
    yield state_case(
        "displays that are updated, outputs that are cleared",
        [
            execution("e1", 1),
            AddOutput("e1", 0, display({"text/plain": "1", "text/html": "<i>1</i>"}, display_id="d")),
            execution("e2", 2),
            AddOutput("e2", 0, display({"text/plain": "1"}, display_id="d")),
            AddOutput("e2", 1, stream()),
            WriteText("e2", 1, 0, None, "stays"),
        ],
        [
            SetOutput("e1", 0, display({"text/plain": "2"}, NOW + 7, display_id="d")),
            SetOutput("e2", 0, display({"text/plain": "2"}, NOW + 7, display_id="d")),
        ],
        [ClearOutputs("e1")],
        [AddOutput("e1", 0, Output(output_type="stream", at=NOW + 8, name="stdout", text="anew\n"))],
    )
    bounds = Bounds(stream_bytes=40, outputs=4, code_bytes=10)
    flood: list[list[Change]] = [
        [WriteText("e1", 0, n, None, f"{n:02} é😀\n")]  # 10 bytes each
        for n in range(12)
    ]
    yield state_case(
        "what is beyond the bounds is left out: code, text of a stream, outputs",
        [execution("e1", 1, code="é" * 7), AddOutput("e1", 0, stream())],
        *flood,
        [ended("e1"), execution("e2", 2)],
        *[[AddOutput("e2", n, display({"text/plain": str(n)}, NOW + n, display_id=f"d{n}"))] for n in range(9)],
        [SetOutput("e2", 3, display({"text/plain": "is not here"}, display_id="d3"))],
        [SetOutput("e2", 8, display({"text/plain": "is here"}, display_id="d8"))],
        [AddOutput("e2", 9, stream()), WriteText("e2", 9, 0, None, "behind the gap")],
        bounds=bounds,
    )
    yield state_case(
        "a bound that was passed by several streams",
        [execution("e1", 1), AddOutput("e1", 0, stream()), AddOutput("e1", 1, stream("stderr"))],
        [WriteText("e1", 0, 0, None, "first, stays"), WriteText("e1", 0, 1, None, "x" * 30)],
        [WriteText("e1", 1, 0, None, "y" * 30), WriteText("e1", 1, 1, None, "last, stays")],
        bounds=bounds,
    )
    limits = values.Limits(inline_bytes=64, blob_bytes=300)
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 32, 16) + bytes(60)).decode()
    bundle = values.read_bundle(
        {"text/plain": "é" * 90, "image/png": png, "text/html": "<p>" + "x" * 400, "text/latex": "$1$"}, limits, []
    )
    yield state_case("large values are references", [execution("e1", 1), AddOutput("e1", 0, display(bundle))])


def _table_cases() -> Iterator[Json]:
    question = {"prompt": "Name? ", "password": False, "since": NOW + 2}
    yield state_case(
        "executions in every state",
        [
            execution("queued", 1, state=ExecutionState.QUEUED, started_at=None),
            execution("running", 2, request="r1", notebook="a/ü.ipynb", input=question),
            execution("ok", 3),
            execution("error", 4),
            execution("aborted", 5, started_at=None),
            execution("lost", 6),
            execution("cancelled", 7, state=ExecutionState.CANCELLED, started_at=None, request="r2"),
            execution("private", 8, private=True, code=""),
        ],
        [
            ended("ok", metadata={"user_expressions": {"x": {"status": "ok", "data": {"text/plain": "1"}}}}),
            ended("error", ExecutionState.ERROR, error={"ename": "E", "evalue": ""}),
            ended("aborted", ExecutionState.ABORTED, execution_count=None),
            ended("lost", ExecutionState.LOST, execution_count=None, metadata={"rtc_gap": True}),
        ],
        [
            PutExecution("ok", {"metadata": {"stars": 5, "note": {"by": "ada"}}}),
            PutExecution("running", {"input": None}),
        ],
    )
    model = {
        "_model_name": "ImageModel",
        "value": b"\x89PNG\x00\xff",
        "nested": {"buffers": [b"", {"b": bytes(range(8))}], "children": ["IPY_MODEL_w2"]},
        "n": 1,
        "f": 0.5,
        "null": None,
    }
    yield state_case(
        "comms: a widget with buffers, another target, one that is closed",
        [
            PutComm("w1", {"target": "jupyter.widget", "kernel": KERNEL, "execution": "e1", "opened_at": NOW}),
            MergeCommState("w1", model),
            PutComm("t1", {"target": "my.target", "kernel": KERNEL, "opened_by": "front", "opened_at": NOW + 1}),
            PutComm("w2", {"target": "jupyter.widget", "kernel": KERNEL, "opened_at": NOW + 2}),
        ],
        [MergeCommState("w1", {"n": 2, "value": b"\x01", "ü": "😀"})],
        *[
            [AddCommMessage("t1", {"way": ("kernel", "front")[n % 2], "at": NOW + n, "data": {"n": n, "é": [n]}})]
            for n in range(22)
        ],
        [PutComm("w2", {"closed_at": NOW + 30})],
    )
    yield state_case(
        "cells and questions",
        [
            PutCells(
                "nb/ü.ipynb",
                (
                    Cell(id="a", index=0, cell_type="markdown", source="# Ü"),
                    Cell(id="b", index=1, cell_type="code", source="1"),
                    Cell(id="c", index=2, cell_type="raw", source=""),
                ),
            ),
            PutQuery("q1", {"target": "columns", "input": "df", "asked_by": "ada", "state": QueryState.TO_PROCESS}),
            PutQuery("q2", {"target": "columns", "asked_by": "bob", "state": QueryState.TO_PROCESS}),
            PutQuery("q3", {"target": "gone", "input": [1], "asked_by": "bob", "state": QueryState.TO_PROCESS}),
        ],
        [
            PutQuery("q1", {"state": QueryState.IN_PROGRESS, "asked_at": NOW + 1, "comm": "k1"}),
            PutQuery("q2", {"state": QueryState.IN_PROGRESS, "asked_at": NOW + 2, "comm": "k2"}),
            DropQuery("q3"),
        ],
        [
            PutQuery("q1", {"state": QueryState.DONE, "answered_at": NOW + 3, "result": ["a", {"b": None}, 1]}),
            PutQuery("q2", {"state": QueryState.FAILED, "answered_at": NOW + 4, "error": "no such target"}),
            PutCells("nb/ü.ipynb", (Cell(id="b", index=0, cell_type="code", source="2"),)),
        ],
    )
    yield state_case(
        "a kernel that is restarted, dies and lost messages on the way",
        [PutKernel(KERNEL, {"state": KernelState.RESTARTING, "notebook": "a.ipynb"})],
        [PutKernel(KERNEL, {"state": KernelState.STARTING, "generation": 1, "started_at": NOW + 5})],
        [
            PutKernel(KERNEL, {"state": KernelState.DEAD, "ended_at": NOW + 6, "exit_code": -9}),
            PutMeta(
                {
                    "health": {"status": "degraded", "reason": "the disk is full"},
                    "gap": [{"since": NOW, "until": NOW + 1, "message_count": 3, "size_bytes": 2**33}],
                }
            ),
        ],
    )


def _life_cases() -> Iterator[Json]:
    yield state_case(
        "rows that leave the window",
        *[
            [execution(f"e{n}", n, cell=f"c{n % 2}"), AddOutput(f"e{n}", 0, stream()), ended(f"e{n}")]
            for n in range(1, 6)
        ],
        window_executions=2,
    )
    before, _ = new_state()
    before.apply([execution("e1", 1), AddOutput("e1", 0, stream()), WriteText("e1", 0, 0, None, "é"), ended("e1")])
    before.apply([execution("e2", 2), AddOutput("e2", 0, display({"text/plain": "x"})), ClearOutputs("e2")])
    document = StateDocument(KERNEL)
    document.load(meta=META, kernels=schema.read_kernels(before.doc), executions=schema.read_executions(before.doc))
    updates = [document.diff(b"\x00")]
    for change in (WriteText("e1", 0, 0, None, "späte Ausgabe"), ended("e2")):
        update = document.apply([change])
        assert update is not None
        updates.append(update)
    yield document_case("a second life has all that the first one had, under another epoch", updates)
    document, updates = new_state()
    for n in range(6):
        update = document.apply(
            [execution(f"e{n}", n + 1), AddOutput(f"e{n}", 0, stream()), WriteText(f"e{n}", 0, 0, None, f"{n}\n")]
        )
        assert update is not None
        updates.append(update)
    order = (3, 0, 6, 2, 2, 1, 5, 4, 0, 3)
    yield document_case("updates that come twice and out of order", [updates[n] for n in order])
    yield document_case("updates that come before those that they rest on", updates[::-1])
    document, updates = new_state()
    update = document.apply([execution("e1", 1), AddOutput("e1", 0, display({"text/plain": "1"}))])
    assert update is not None
    updates.append(update)
    later = replica(updates)
    later_updates: list[bytes] = []
    writer: Doc[Any] = Doc(client_id=OTHER)
    writer.apply_update(later.get_update())
    subscription = writer.observe(lambda event: later_updates.append(event.update))
    with writer.transaction():
        writer.get("meta", type=Map)["clock"] = "atomic"
        writer.get("kernels", type=Map)[KERNEL]["temperature"] = 21.5
        row = writer.get("executions", type=Map)["e1"]
        row["mood"] = {"good": True}
        row["outputs"][0]["weight"] = Map({"grams": 5})
        writer.get("galaxies", type=Map)["milky way"] = Map({"stars": 1e11})
    writer.unobserve(subscription)
    yield document_case("columns, and a root map, of a later version", [*updates, *later_updates])


def _request_cases() -> Iterator[Json]:
    document = RequestsDocument(KERNEL)
    updates = [document.diff(b"\x00")]

    def take() -> None:
        if (update := document.take_update()) is not None:
            updates.append(update)

    take()
    front: Doc[Any] = Doc(client_id=FRONT)
    front.apply_update(updates[0])
    rows = front.get("requests", type=Map)
    written: dict[str, Json] = {
        "r1": {"action": "execute", "code": "print('é😀')", "cell": "c-1", "created_at": NOW + 1},
        "r2": {"action": "execute", "code": "1", "after": "r1", "user_expressions": {"x": "x", "ü": "ü"}},
        "r3": {"action": "interrupt", "execution": "e0"},
        "r4": {"action": "query", "target": "columns", "input": {"name": "df", "n": [1, None]}},
        "r5": {"action": "annotate", "execution": "e0", "key": "stars", "value": {"n": 5}},
        "r6": {"action": "execute", "code": 5},
        "r7": {"action": "restart"},
    }
    before = front.get_state()
    with front.transaction():
        for key, columns in written.items():
            rows[key] = Map(columns)
    sent = front.get_update(before)
    taken: dict[str, Request] = {}
    for number, row in enumerate(document.receive(sent, "ada").rows, 1):
        if row.id != "r7":  # stays a wish: nobody has taken it yet
            reading = read_row(row.id, row.value, by="ada", role="run", ordinal=number, now=NOW + 2, limits=RowLimits())
            taken[row.id] = reading.request
    take()
    document.put(taken.values())
    take()
    yield document_case("rows, some of them acknowledged", updates[:], "requests")
    document.name_query("r4", "q1")
    document.put(
        [
            replace(taken["r1"], state=RequestState.ACCEPTED, execution="e1"),
            replace(taken["r2"], state=RequestState.HELD, reason="the kernel was restarted"),
            replace(taken["r3"], state=RequestState.REFUSED, reason="execution: it does not run"),
            replace(taken["r5"], state=RequestState.DONE),
        ]
    )
    take()
    document.drop(["r3", "r6"])
    take()
    document.put([replace(taken["r1"], state=RequestState.DONE, execution="e1")])
    take()
    yield document_case("rows as they go on, end and are popped", updates, "requests")
