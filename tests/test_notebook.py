"""The history as a notebook that nbformat validates, whatever was run."""

from __future__ import annotations

from typing import Any

import nbformat
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.notebook import resolve, size_text, to_notebook
from rtc_kernel.tables import Cell, Execution, ExecutionState, Json, Kernel, Output

KERNEL = Kernel(id="k", name="rtc-python", display_name="RTC Python", language="python")
DIGEST = "sha256:" + "a" * 64


def no_blob(digest: str) -> None:
    return None


def valid(notebook: Json) -> Json:
    nbformat.validate(nbformat.from_dict(notebook))  # type: ignore[no-untyped-call]
    return notebook


def test_each_execution_is_a_cell_in_order() -> None:
    outputs = (Output(output_type="execute_result", at=1.0, data={"text/plain": "2"}, metadata={}, execution_count=5),)
    runs = [
        Execution(id="b", seq=2, code="1 + 1", execution_count=5, state=ExecutionState.OK, started_at=1.0,
                  finished_at=2.0, submitted_by="ann", outputs=outputs),
        Execution(id="a", seq=1, code="x", state=ExecutionState.ABORTED),
    ]  # fmt: skip
    notebook = valid(to_notebook(runs, kernel=KERNEL, blob=no_blob))
    assert [cell["source"] for cell in notebook["cells"]] == ["x", "1 + 1"]
    assert notebook["cells"][1] == {
        "id": "b",
        "cell_type": "code",
        "execution_count": 5,
        "source": "1 + 1",
        "metadata": {
            "rtc": {"execution": "b", "state": "ok", "submitted_by": "ann", "started_at": 1.0, "finished_at": 2.0}
        },
        "outputs": [
            {"output_type": "execute_result", "execution_count": 5, "data": {"text/plain": "2"}, "metadata": {}}
        ],
    }
    assert notebook["metadata"]["kernelspec"] == {
        "name": "rtc-python", "display_name": "RTC Python", "language": "python",
    }  # fmt: skip
    assert valid(to_notebook([], kernel=None, blob=no_blob))["cells"] == []


def test_private_and_lost_runs_are_marked() -> None:
    runs = [
        Execution(id="p", seq=1, private=True, state=ExecutionState.OK),
        Execution(id="l", seq=2, code="train()", state=ExecutionState.LOST),
    ]
    private, lost = valid(to_notebook(runs, kernel=KERNEL, blob=no_blob))["cells"]
    assert private["source"].startswith("# private")
    assert lost["outputs"][-1]["text"].startswith("lost: ")


def test_ids_that_nbformat_refuses_are_replaced_and_stay_unique() -> None:
    names = ["vscode-notebook-cell:/a b.ipynb#W0", "x" * 65, "", "é", "ok-id_1"]
    runs = [Execution(id=name, seq=at) for at, name in enumerate(names)]
    cells = valid(to_notebook(runs, kernel=KERNEL, blob=no_blob))["cells"]
    assert len({cell["id"] for cell in cells}) == len(names)
    assert cells[-1]["id"] == "ok-id_1"
    assert [cell["metadata"]["rtc"]["execution"] for cell in cells] == names


def test_the_cells_of_a_headless_run_stand_first_with_their_last_run() -> None:
    cells = [
        Cell(id="c2", index=1, cell_type="code", source="a = 1"),
        Cell(id="c1", index=0, cell_type="markdown", source="# Title"),
        Cell(id="c3", index=2, cell_type="code", source="never()"),
    ]
    runs = [
        Execution(id=f"r{seq}", seq=seq, cell=cell, code=f"run {seq}")
        for seq, cell in ((1, "c2"), (2, "c2"), (3, None))
    ]
    notebook = valid(to_notebook(runs, kernel=KERNEL, blob=no_blob, cells=cells))
    assert [(cell["id"], cell["source"]) for cell in notebook["cells"]] == [
        ("c1", "# Title"), ("c2", "run 2"), ("c3", "never()"), ("r1", "run 1"), ("r3", "run 3"),
    ]  # fmt: skip


def test_blobs_come_back_as_the_bundle_had_them() -> None:
    def blob(digest: str) -> bytes | None:
        return {"png": b"\x00\x01\x02", "json": b'{"a": 1}', "svg": b"<svg/>", "txt": "é".encode()}.get(digest)

    def ref(digest: str | None) -> Json:
        return {"blob": digest, "bytes": 2048, "preview": "beg"}

    data = {
        "image/png": ref("png"),
        "application/vnd.x+json": ref("json"),
        "image/svg+xml": ref("svg"),
        "text/html": ref("txt"),
    }
    assert resolve(data, blob) == {
        "image/png": "AAEC", "application/vnd.x+json": {"a": 1}, "image/svg+xml": "<svg/>", "text/html": "é",
    }  # fmt: skip
    assert resolve({"image/png": ref(None)}, blob) == {"text/plain": "beg…\n[image/png, 2.0 KiB: not kept]"}
    image = {**ref(None), "preview": {"width": 640, "height": 480}}
    assert resolve({"image/png": image}, blob) == {"text/plain": "[image/png 640 x 480, 2.0 KiB: not kept]"}
    assert resolve({"image/png": ref("gone"), "text/plain": "fig"}, blob) == {"text/plain": "fig"}
    plot = {"application/json": {"blob": 1, "bytes": 2, "more": 3}}
    assert resolve(plot, blob) == plot


def test_sizes_have_a_unit() -> None:
    assert [size_text(n) for n in (5, 2048, 5 << 20, 3 << 30)] == ["5 B", "2.0 KiB", "5.0 MiB", "3.0 GiB"]


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
BUNDLES = st.dictionaries(
    st.sampled_from(["text/plain", "text/html", "image/png", "application/json", "application/x+json", "text/x.json"]),
    VALUES | st.just({"blob": DIGEST, "bytes": 9, "preview": None}),
    max_size=3,
)
OUTPUTS = st.builds(
    Output,
    output_type=st.sampled_from(["stream", "display_data", "execute_result", "error"]),
    at=st.just(1.0),
    name=st.sampled_from(["stdout", "stderr", "other", None]),
    text=st.text(max_size=5) | st.none(),
    data=BUNDLES | st.none(),
    metadata=st.dictionaries(st.text(max_size=3), VALUES, max_size=2) | st.none(),
    execution_count=st.none() | st.integers(0, 9),
    ename=st.text(max_size=3) | st.none(),
    evalue=st.text(max_size=3) | st.none(),
    traceback=st.lists(st.text(max_size=3), max_size=2).map(tuple) | st.none(),
)
EXECUTIONS = st.builds(
    Execution,
    id=st.text(max_size=70),
    seq=st.integers(0, 9),
    code=st.text(max_size=9),
    execution_count=st.none() | st.integers(0, 99),
    state=st.sampled_from(ExecutionState),
    private=st.booleans(),
    outputs=st.lists(OUTPUTS, max_size=3).map(tuple),
)


@given(st.lists(EXECUTIONS, max_size=4), st.sampled_from([None, b"abc", b"\xff"]))
def test_any_history_validates(runs: list[Execution], raw: bytes | None) -> None:
    notebook = valid(to_notebook(runs, kernel=KERNEL, blob=lambda digest: raw))
    assert len(notebook["cells"]) == len(runs)
