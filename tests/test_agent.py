"""The agent beside a real kernel: what ran is in the document, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kernels
import nbformat
import pytest
from conftest import recorded
from jupyter_client import BlockingKernelClient
from kernels import FOREVER, Gate, Running, finish, reply_to, start
from peers import fetch_replica
from pycrdt import Map

import rtc_kernel
from rtc_kernel import discovery
from rtc_kernel.agent.keep.archive import open_readonly
from rtc_kernel.errors import SetupError
from rtc_kernel.tables import Execution, ExecutionState

Until = Callable[..., Any]


def live(kernel: Running) -> discovery.LiveKernel:
    return discovery.find(kernel.kernel_id)


def ask(kernel: Running, path: str, token: str | None = None) -> Any:
    return kernels.ask(kernel.kernel_id, path, token)


def rows(kernel: Running, **query: object) -> list[dict[str, Any]]:
    """The history as the side socket gives it, oldest first."""
    text = "&".join(f"{key}={value}" for key, value in {"limit": 1000, **query}.items())
    return list(reversed(ask(kernel, f"/api/history?{text}")["executions"]))


def text(row: dict[str, Any]) -> str:
    return "".join(output["text"] for output in row["outputs"] if output["output_type"] == "stream")


def replica(kernel: Running, predicate: Callable[[rtc_kernel.Document], bool]) -> dict[str, Execution]:
    """The executions of a follower's replica once the predicate holds, in order."""

    async def follow() -> dict[str, Execution]:
        async with rtc_kernel.connect(kernel.kernel_id) as doc:
            await doc.wait_for(predicate, timeout_s=20)
            return dict(doc.executions)

    return asyncio.run(follow())


def columns(kernel: Running) -> list[dict[str, Any]]:
    """The rows of the document as any Yjs client has them, in order."""
    address = rtc_kernel.client.Address.resolve(kernel.kernel_id)
    doc = asyncio.run(fetch_replica(address, f"{kernel.kernel_id}/state"))
    table = doc.get("executions", type=Map)
    return sorted((table[key].to_py() for key in list(table)), key=lambda row: row["seq"])


def ended(count: int) -> Callable[[rtc_kernel.Document], bool]:
    return lambda doc: sum(run.finished_at is not None for run in doc.executions.values()) >= count


@pytest.fixture
def ready(kernel: Running, until: Until) -> Running:
    """A kernel whose agent serves."""
    until(lambda: any(one.kernel_id == kernel.kernel_id for one in discovery.live()), "the agent serves", 20)
    return kernel


# --- what is recorded ----------------------------------------------------------------------------------------


def test_a_run_is_in_the_document_as_it_was(ready: Running) -> None:
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7"
    run = ready.execute(code)
    (row,) = replica(ready, ended(1)).values()
    assert row.id == run.reply["parent_header"]["msg_id"]
    assert (row.code, row.execution_count, row.state, row.seq) == (code, 1, ExecutionState.OK, 1)
    assert row.client == ready.client.session.session
    assert row.submitted_by == ready.client.session.username
    assert [(o.output_type, o.name, o.text) for o in row.outputs[:2]] == [
        ("stream", "stdout", "out\n"),
        ("stream", "stderr", "err\n"),
    ]
    assert row.outputs[2].data == {"text/plain": "42"}
    assert row.queued_at is not None
    assert row.started_at is not None
    assert row.finished_at is not None
    assert time.time() - 30 < row.queued_at <= row.started_at <= row.finished_at


def test_errors_aborted_ones_and_what_was_not_silent(ready: Running, gate: Gate) -> None:
    client = ready.client
    ids = [client.execute(code) for code in (gate.code + "1/0", "print('never')")]
    replica(ready, lambda doc: len(doc.executions) == 2)
    gate.open()
    for msg_id in ids:
        finish(client, msg_id)
    ready.execute("hidden = 1", silent=True)
    ready.execute("hidden")
    first, second, third = replica(ready, ended(3)).values()
    assert (first.state, first.error) == (
        ExecutionState.ERROR,
        {"ename": "ZeroDivisionError", "evalue": "division by zero"},
    )
    assert first.outputs[0].traceback
    assert (second.state, second.outputs) == (ExecutionState.ABORTED, ())
    assert third.code == "hidden"


def test_a_progress_bar_stays_one_line_and_a_display_is_updated_from_another_cell(ready: Running) -> None:
    ready.execute("for i in range(1001): print(f'\\r{i}/1000', end='', flush=True)")
    ready.execute("from IPython.display import display, update_display; display('old', display_id='d')")
    ready.execute("update_display('new', display_id='d')")
    ready.execute("from IPython.display import clear_output\nprint('gone')\nclear_output(wait=True)\nprint('here')")
    bar, shown, _, cleared = replica(ready, ended(4)).values()
    assert bar.outputs[0].text == "\r1000/1000" or bar.outputs[0].text == "1000/1000"
    assert shown.outputs[0].data == {"text/plain": "'new'"}
    assert [output.text for output in cleared.outputs] == ["here\n"]


def test_the_cell_and_the_notebook_are_known_when_the_frontend_says_so(home: Path, until: Until) -> None:
    env = {**os.environ, "JPY_SESSION_NAME": str(home / "work.ipynb")}
    with start("rtc-python", env=env) as kernel:
        until(lambda: discovery.live(), "the agent serves", 20)
        message = kernel.client.session.msg("execute_request", {"code": "1", "silent": False})
        message["metadata"] = {"cellId": "cell-7"}
        kernel.client.shell_channel.send(message)
        finish(kernel.client, message["header"]["msg_id"])
        (row,) = replica(kernel, ended(1)).values()
        assert (row.cell, row.notebook) == ("cell-7", str(home / "work.ipynb"))
        assert live(kernel).notebook == str(home / "work.ipynb")


def test_a_client_that_goes_around_us_is_recorded_from_iopub(ready: Running) -> None:
    """%connect_info and %qtconsole name the child's own endpoints."""
    from jupyter_client import BlockingKernelClient

    child = ready.execute("import ipykernel; print(ipykernel.get_connection_file())").text.strip()
    other = BlockingKernelClient()
    other.load_connection_file(child)
    other.start_channels(hb=False)
    try:
        other.wait_for_ready(timeout=30)
        finish(other, other.execute("print('around')"))
    finally:
        other.stop_channels()
    around = list(replica(ready, ended(2)).values())[1]
    assert (around.code, around.state, around.outputs[0].text) == ("print('around')", ExecutionState.OK, "around\n")


def test_input_shows_that_somebody_is_asked_and_never_what_is_typed(ready: Running, home: Path, until: Until) -> None:
    client = ready.client
    msg_id = client.execute("import getpass; len(getpass.getpass('secret? '))", allow_stdin=True)
    assert client.get_stdin_msg(timeout=30)["content"]["password"] is True
    row = until(lambda: [row for row in rows(ready) if row["input"]], "the question is shown")[0]
    assert (row["input"]["prompt"], row["input"]["password"]) == ("secret? ", True)
    client.input("correct horse battery staple")
    finish(client, msg_id)
    (done,) = replica(ready, ended(1)).values()
    assert done.input is None
    store = Path(str(live(ready).store))
    ready.manager.shutdown_kernel()
    for file in store.parent.glob(store.name + "*"):
        assert b"battery" not in file.read_bytes()


# --- what survives -------------------------------------------------------------------------------------------


def test_an_agent_that_is_killed_is_back_with_the_whole_history(
    ready: Running, until: Until, gate: Gate, tmp_path: Path
) -> None:
    ready.execute("print('before')")
    again = Gate(tmp_path / "again")
    counts = [f"for i in range({first}, {first + 100}): print(i, flush=True)\n" for first in (0, 100, 200)]
    msg_id = ready.client.execute(gate.code.join(counts[:2]) + again.code + counts[2])
    until(lambda: len(rows(ready)) == 2 and "20\n" in text(rows(ready)[1]), "the run is under way")
    agent, url = ready.agent(), live(ready).url
    agent.kill()
    gate.open()

    def back() -> bool:
        try:
            return live(ready).agent_pid != agent.pid and len(rows(ready)) == 2
        except (OSError, rtc_kernel.errors.SetupError):
            return False

    until(back, "the agent is back", 10)  # the promise is 2 s; a busy test machine gets more
    again.open()
    assert live(ready).url == url
    run = finish(ready.client, msg_id)
    assert run.text == "".join(f"{i}\n" for i in range(300)), "the frontend noticed nothing"
    before, during = replica(ready, ended(2)).values()
    assert before.outputs[0].text == "before\n"
    assert "".join(output.text or "" for output in during.outputs) == run.text, "nothing lost, nothing twice"
    assert during.state is ExecutionState.OK


def test_a_record_that_cannot_be_mirrored_is_a_named_gap_and_the_rest_is_there(
    home: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broad except between feed and mirror rebuilds; it never goes on as if nothing had happened."""
    plugin = home / "plugin"
    plugin.mkdir()
    (plugin / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'rtc_kernel.agent' in ' '.join(sys.orig_argv):\n"
        "    from rtc_kernel.agent.mirror import Mirror\n"
        "    real = Mirror.receive_message\n"
        "    def broken(self, channel, way, message, at):\n"
        "        if message.content.get('text') == 'poison\\n': raise RuntimeError('a bug')\n"
        "        return real(self, channel, way, message, at)\n"
        "    Mirror.receive_message = broken\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(plugin))
    with start("rtc-python") as kernel:
        until(lambda: discovery.live(), "the agent serves", 20)
        run = kernel.execute("import sys\nfor t in ('a', 'poison', 'b'):\n    print(t); sys.stdout.flush()")
        assert run.text == "a\npoison\nb\n"

        def whole() -> bool:
            try:
                return bool(rows(kernel)) and rows(kernel)[0]["state"] == "ok"
            except (OSError, rtc_kernel.errors.SetupError):
                return False

        until(whole, "the run is recorded", 20)
        assert text(rows(kernel)[0]) == "a\nb\n"

        async def gaps() -> object:
            async with rtc_kernel.connect(kernel.kernel_id) as doc:
                return doc.meta.get("gap")

        assert asyncio.run(gaps()), "what is missing is named"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_new_life_of_the_kernel_keeps_history_port_and_links(ready: Running, until: Until, how: str) -> None:
    ready.execute("print('first life')")
    ready.execute("%rtc share --name phone")
    ready.client.execute(FOREVER)
    until(lambda: (rows(ready)[-1]["code"], rows(ready)[-1]["state"]) == (FOREVER, "running"), "the last cell runs")
    before = live(ready)
    tokens = {row["name"] for row in ask(ready, "/api/share")["tokens"]}
    if how == "kill":
        stored = Path(str(before.store))
        with open_readonly(stored) as archive:
            until(lambda: archive.history()[0][0].state == "running", "what runs is stored")
        os.killpg(ready.pid, signal.SIGKILL)
        until(lambda: not ready.manager.is_alive(), "the kernel is dead")
        with open_readonly(stored) as archive:
            assert archive.history()[0][-1].outputs[0].text == "first life\n"
    ready.manager.restart_kernel(now=how == "kill")
    ready.client.wait_for_ready(timeout=60)
    until(lambda: any(one.agent_pid != before.agent_pid for one in discovery.live()), "the agent serves", 20)
    assert live(ready).url == before.url
    assert {row["name"] for row in ask(ready, "/api/share")["tokens"]} == tokens == {"owner", "phone"}
    ready.execute("print('second life')")
    until(lambda: rows(ready)[-1]["state"] == "ok", "the run has ended")
    states = [(row["generation"], row["state"]) for row in rows(ready)]
    assert states[2] == (0, "lost") or (how, states[2]) == ("restart", (0, "error"))  # a manager interrupts first
    assert [*states[:2], states[3]] == [(0, "ok"), (0, "ok"), (1, "ok")]
    assert [row["seq"] for row in rows(ready)] == [1, 2, 3, 4]


def test_a_dead_kernels_history_can_be_read_and_no_row_runs(ready: Running, until: Until, gate: Gate) -> None:
    ready.execute("print('kept')")
    ready.client.execute(gate.code + "os._exit(3)")
    store = Path(str(live(ready).store))
    until(lambda: rows(ready)[-1]["state"] == "running", "it runs")
    gate.open()
    until(lambda: ready.manager.provisioner.process.poll() is not None, "the kernel died", 20)
    with open_readonly(store) as archive:
        newest, oldest = archive.history()[0]
        assert (oldest.state, newest.state) == (ExecutionState.OK, ExecutionState.LOST)
        (kernel,) = archive.kernels()
        assert (kernel.state.value, kernel.exit_code) == ("dead", 3)
    assert discovery.live() == []
    assert stat.S_IMODE(store.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.parent.stat().st_mode) == 0o700


def test_history_in_memory_leaves_no_file(home: Path, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTC_KERNEL_HISTORY", "memory")
    with start("rtc-python") as kernel:
        until(lambda: discovery.live(), "the agent serves", 20)
        kernel.execute("print(1)")
        assert [text(row) for row in until(lambda: [r for r in rows(kernel) if r["state"] == "ok"], "the run")] == [
            "1\n"
        ]
        assert live(kernel).store is None
    assert not list(home.rglob("*.sqlite3*"))


def test_without_a_place_for_the_history_the_kernel_runs_and_health_says_so(
    home: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("not a directory")
    monkeypatch.setenv("RTC_KERNEL_HISTORY_DIR", str(home / "file"))
    with start("rtc-python") as kernel:
        until(lambda: discovery.live(), "the agent serves", 20)
        assert kernel.execute("print(1)").text == "1\n"
        health = ask(kernel, "/api/health")
        assert health["status"] == "degraded"
        assert "in memory only" in health["reason"]
        assert "degraded" in kernel.execute("%rtc").contents("display_data")[0]["data"]["text/plain"]


def test_a_broken_setting_is_named_and_the_kernel_runs_with_the_others(
    home: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_KERNEL_PORT", "no-port")
    monkeypatch.setenv("RTC_KERNEL_HISTORY", "memory")
    with start("rtc-python") as kernel:
        until(discovery.live, "the agent serves", 20)
        assert kernel.execute("print(1)").text == "1\n"
        health = ask(kernel, "/api/health")
        assert health["status"] == "degraded"
        assert "RTC_KERNEL_PORT" in health["reason"]
        assert live(kernel).store is None


# --- %rtc ----------------------------------------------------------------------------------------------------


def test_rtc_lines_in_order_with_the_cells_around_them(ready: Running, gate: Gate) -> None:
    client = ready.client
    ids = [client.execute(code) for code in ("x = 5\n" + gate.code, "%rtc history", "print(x)")]
    gate.open()
    runs = [finish(client, msg_id) for msg_id in ids]
    listed = runs[1].contents("display_data")[0]["data"]["text/plain"]
    assert "x = 5" in listed
    assert "queued" not in listed.split("%rtc history")[0].splitlines()[1]
    recorded(ready.kernel_id, "ok", "ok", "ok")  # the line does not overtake the cell's idle
    assert runs[2].text == "5\n"


def test_a_line_sees_what_ran_before_it_also_while_the_agent_is_being_started(home: Path) -> None:
    with start("rtc-python", ready=False) as kernel:
        ids = [kernel.client.execute(code) for code in ("'first'", "%rtc history")]
        runs = [finish(kernel.client, msg_id) for msg_id in ids]
        listed = runs[1].contents("display_data")[0]["data"]["text/plain"].splitlines()
    assert [line.split("  ")[-1] for line in listed if line.startswith("#")] == ["'first'", "%rtc history"]


def test_rtc_share_gives_a_link_that_works_and_is_not_recorded(ready: Running, until: Until) -> None:
    shown = ready.execute("%rtc share --role view --name phone").contents("display_data")[0]["data"]
    url = next(word for word in shown["text/plain"].split() if word.startswith("http"))
    assert f'href="{url}"' in shown["text/html"]
    token = url.partition("?token=")[2]
    assert ask(ready, "/api/health", token)["role"] == "view"
    assert "phone" in ready.execute("%rtc who").contents("display_data")[0]["data"]["text/plain"]
    until(lambda: rows(ready)[-1]["state"] == "ok", "recorded")
    assert token not in json.dumps(rows(ready))
    store = Path(str(live(ready).store))
    for file in store.parent.glob("*"):
        assert token.encode() not in file.read_bytes()
    ready.execute("%rtc unshare phone")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(ready, "/api/history", token)


def test_rtc_show_gives_an_earlier_executions_outputs_again(ready: Running) -> None:
    ready.execute("from IPython.display import HTML\nprint('text')\nHTML('<b>x</b>')")
    run = ready.execute("%rtc show 1")
    assert "text\n" in run.text
    assert {"text/html": "<b>x</b>"}.items() <= run.contents("display_data")[-1]["data"].items()


def test_rtc_private_runs_and_is_recorded_without_code_and_outputs(ready: Running) -> None:
    assert ready.execute("%rtc private\nprint('my ' + 'secret')").text == "my secret\n"
    (row,) = replica(ready, ended(1)).values()
    assert (row.private, row.code, row.outputs, row.state) == (True, "", (), ExecutionState.OK)
    assert b"my ' + 'secret" not in Path(str(live(ready).store)).read_bytes()


def test_rtc_export_writes_a_notebook_that_validates(ready: Running, tmp_path: Path) -> None:
    ready.execute("print('exported')")
    ready.execute("1/0")
    file = tmp_path / "history.ipynb"
    assert "Wrote" in ready.execute(f"%rtc export {file}").text
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells] == ["print('exported')", "1/0"]
    assert notebook.cells[0].outputs[0].text == "exported\n"
    again = ready.execute(f"%rtc export {file}")
    assert "exists" in again.reply["content"]["evalue"]


def test_rtc_clear_forgets_what_is_finished(ready: Running, until: Until) -> None:
    ready.execute("print('to be forgotten')")
    ready.execute("%rtc clear")
    until(lambda: [row["code"] for row in rows(ready)] == ["%rtc clear"], "only the clearing is left")
    assert "to be forgotten" not in str(replica(ready, ended(1)))
    assert ready.execute("print('on')").text == "on\n"
    assert len(replica(ready, ended(2))) == 2


def post(kernel: Running, path: str) -> Any:
    found = live(kernel)
    request = urllib.request.Request(
        found.url + path, b"{}", {"Authorization": f"Bearer {found.token}", "Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_a_clear_in_the_midst_of_a_flood_takes_what_was_before_and_nothing_else(
    ready: Running, until: Until, gate: Gate
) -> None:
    ready.execute("print('to be forgotten')")
    cell = "import time\nfor i in range(40_000):\n  print('line', i)\n  if i % 200 == 0: time.sleep(0.01)\n"
    cell += gate.code  # one that has ended is forgotten, too
    msg_id = ready.client.execute(cell)
    until(lambda: any(row["code"] == cell and text(row) for row in rows(ready)), "the flood is under way")
    epochs = {ask(ready, "/api/health")["epoch"]}
    for _ in range(4):
        post(ready, "/api/clear")
        until(lambda: ask(ready, "/api/health")["epoch"] not in epochs, "the document is another one")
        epochs.add(ask(ready, "/api/health")["epoch"])
    gate.open()
    agent = ready.agent().pid
    finish(ready.client, msg_id)
    whole = "".join(f"line {i}\n" for i in range(40_000))
    (flood,) = replica(ready, ended(1)).values()
    assert "to be forgotten" not in str(rows(ready))
    assert ready.agent().pid == agent
    assert text(rows(ready)[0]) == whole
    assert flood.outputs[0].text == whole


def test_who_waits_for_an_answer_gets_it_although_the_history_is_cleared(ready: Running, gate: Gate) -> None:
    ready.execute(
        f"from rtc_kernel import answering\ndef slowly(value):\n    exec({gate.code!r}, {{}})\n    return value\n"
        "answering.answer('slow')(slowly)"
    )

    async def act() -> Any:
        async with rtc_kernel.connect(ready.kernel_id) as doc:
            asking = asyncio.create_task(doc.query("slow", 41))
            await doc.wait_for(lambda seen: bool(seen.queries), timeout_s=20)
            epoch = doc.epoch
            await asyncio.to_thread(post, ready, "/api/clear")
            await doc.wait_for(lambda seen: seen.epoch != epoch, timeout_s=20)
            gate.open()
            async with asyncio.timeout(30):
                return await asking, [query.target for query in doc.queries.values()]

    assert asyncio.run(act()) == (41, ["slow"])


def test_a_wrong_line_fails_its_cell_with_one_exact_line_and_the_next_cell_is_aborted(
    ready: Running, gate: Gate
) -> None:
    client = ready.client
    ids = [client.execute(code) for code in (gate.code, "%rtc shara", "print('never')")]
    replica(ready, lambda doc: len(doc.executions) == 3)
    gate.open()
    assert [reply_to(client, msg_id)["content"]["status"] for msg_id in ids] == ["ok", "error", "aborted"]
    while (message := client.get_iopub_msg(timeout=30))["msg_type"] != "error":
        pass
    assert message["parent_header"]["msg_id"] == ids[1]
    assert message["content"]["traceback"] == ["%rtc: there is no %rtc shara. Did you mean share?"]
    _, first, second = replica(ready, ended(3)).values()
    assert (first.state, second.state) == (ExecutionState.ERROR, ExecutionState.ABORTED)


def test_the_rest_of_a_cell_keeps_its_line_numbers(ready: Running) -> None:
    run = ready.execute("%rtc who\n\n1/0")
    assert re.search(r"line 3\b", re.sub(r"\x1b\[\d+m", "", "".join(run.contents("error")[0]["traceback"])))


def test_completion_and_help(ready: Running) -> None:
    client = ready.client
    assert reply_to(client, client.complete("%rtc sha", 8))["content"]["matches"] == ["share"]
    assert "--role" in reply_to(client, client.inspect("%rtc share", 7))["content"]["data"]["text/plain"]
    payload = ready.execute("%rtc?").reply["content"]["payload"]
    assert payload[0]["source"] == "page"
    assert "%rtc history" in payload[0]["data"]["text/plain"]


def test_an_agent_that_hangs_costs_a_magic_one_line_and_is_replaced(
    home: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_KERNEL_MAGIC_TIMEOUT_S", "6")
    with start("rtc-python") as kernel:
        until(discovery.live, "the agent serves", 20)
        hanging = kernel.agent()
        hanging.suspend()
        run = kernel.execute("%rtc who")
        assert "did not answer within 6 s" in run.contents("error")[0]["evalue"]
        assert kernel.execute("print(1)").text == "1\n"
        until(lambda: not hanging.is_running(), "the agent that hung is gone")
        until(lambda: any(one.agent_pid != hanging.pid for one in discovery.live()), "another one serves", 20)
        assert "Following now" in kernel.execute("%rtc who").contents("display_data")[0]["data"]["text/plain"]


def test_sharing_from_the_start_needs_no_magic(home: Path, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTC_KERNEL_SHARE", "view")
    log = home / "log"
    with log.open("wb") as stderr, start("rtc-python", stderr=stderr):
        line = until(
            lambda: [one for one in log.read_text().splitlines() if "view link" in one], "the link is printed", 20
        )
        with urllib.request.urlopen(line[0].split()[-1], timeout=30) as page:
            assert page.status == 200


# --- the comm --------------------------------------------------------------------------------------------------


def test_the_comm_gives_the_document_while_a_cell_runs(ready: Running, until: Until, gate: Gate) -> None:
    from pycrdt import Doc

    from rtc_kernel import schema

    client = ready.client
    ready.execute("print('seen')")
    until(lambda: rows(ready)[-1]["state"] == "ok", "recorded")
    running = client.execute(gate.code + "print('later')")
    opened = client.session.msg("comm_open", {"comm_id": "c1", "target_name": "rtc.sync.v1", "data": {}})
    client.shell_channel.send(opened)
    doc: Any = Doc()
    step1 = client.session.msg("comm_msg", {"comm_id": "c1", "data": {}})
    client.session.send(client.shell_channel.socket, step1, buffers=[b"\x00\x00\x01\x00"])
    while True:  # the cell does not end before
        reply = client.get_shell_msg(timeout=30)
        assert reply["parent_header"].get("msg_id") != running
        if reply["msg_type"] == "comm_msg_reply":
            break
    gate.open()
    apply(doc, reply["buffers"])
    assert schema.read_executions(doc)[0].outputs[0].text == "seen\n"
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["msg_type"] == "comm_msg":
            assert message["parent_header"] == {}
            apply(doc, message["buffers"])
        runs = schema.read_executions(doc)
        if runs[-1].id == running and runs[-1].state is ExecutionState.OK:
            break
    assert runs[-1].outputs[0].text == "later\n"


def ask_comm(client: BlockingKernelClient, comm: str, **data: object) -> Any:
    """The answer to an op."""
    return reply_to(client, send_comm(client, "comm_msg", comm, data=data))["content"]["data"]


def send_comm(client: BlockingKernelClient, kind: str, comm: str, **content: object) -> str:
    message = client.session.msg(kind, {"comm_id": comm, "data": {}, **content})
    client.shell_channel.send(message)
    return str(message["header"]["msg_id"])


def test_links_are_made_and_withdrawn_over_the_comm_as_by_rtc_lines(ready: Running, gate: Gate, until: Until) -> None:
    client = ready.client
    client.session.username = "ada"
    ready.execute("%rtc share --name desk")
    running = client.execute(gate.code)
    send_comm(client, "comm_open", "c1", target_name="rtc.sync.v1")
    made = ask_comm(client, "c1", op="share", role="view", name="phone", expires_s=3600)
    gate.open()
    finish(client, running)
    token = made["url"].partition("?token=")[2]
    assert made["url"] == f"{live(ready).url}/?token={token}"
    assert ask(ready, "/api/health", token)["role"] == "view"
    assert "phone" in ready.execute("%rtc who").contents("display_data")[0]["data"]["text/plain"]

    async def follow() -> None:
        async with rtc_kernel.connect(made["url"]) as doc:
            seen = await asyncio.to_thread(ask_comm, client, "c1", op="links")
            assert ("phone", "view", "websocket") in [
                (peer["name"], peer["role"], peer["way"]) for peer in seen["peers"]
            ]
            await asyncio.to_thread(ask_comm, client, "c1", op="unshare", name="phone")
            await doc.wait_for(lambda _: False, timeout_s=20)

    with pytest.raises(SetupError, match="withdrawn"):
        asyncio.run(follow())
    until(lambda: rows(ready)[-1]["state"] == "ok", "recorded")
    links = ask_comm(client, "c1", op="links")
    assert [link["name"] for link in links["links"]] == ["desk"]
    assert [(peer["name"], peer["way"]) for peer in links["peers"]] == [("ada", "comm")]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(ready, "/api/history", token)
    refused = ask_comm(client, "c1", op="unshare", name="owner")
    assert refused == {"error": "there is no link named 'owner'", "remedy": "there are desk"}
    assert token not in json.dumps([links, rows(ready), columns(ready)])
    for file in Path(str(live(ready).store)).parent.glob("*"):
        assert token.encode() not in file.read_bytes()


def test_a_frontend_that_has_no_username_is_known_by_the_name_it_was_introduced_as(
    ready: Running, until: Until
) -> None:
    client = ready.client
    client.session.username = "username"
    with contextlib.ExitStack() as stack:
        other = ready.connect()
        stack.callback(other.stop_channels)
        other.session.username = ""
        first = ready.execute("1").reply["parent_header"]["msg_id"]
        ready.execute("2", client=other)
        send_comm(client, "comm_open", "c1", target_name="rtc.sync.v1")
        assert ask_comm(client, "c1", op="introduce", name="Ada") == {}
        seen = replica(ready, lambda doc: doc.executions[first].submitted_by == "Ada")
        assert [run.submitted_by for run in seen.values()] == ["Ada", ""]
        ready.execute("3")
        until(lambda: [row["submitted_by"] for row in rows(ready)] == ["Ada", "", "Ada"], "so has the new run her name")
        assert [peer["name"] for peer in ask_comm(client, "c1", op="links")["peers"]] == ["Ada"]
        assert "Ada" in ready.execute("%rtc who").contents("display_data")[0]["data"]["text/plain"]
        os.kill(ready.agent().pid, signal.SIGKILL)
        ready.execute("4")
        seen = replica(ready, lambda doc: len(doc.executions) == 5 and ended(5)(doc))
        assert [run.submitted_by for run in seen.values()] == ["Ada", "", "Ada", "Ada", "Ada"]


def test_where_rtc_lines_are_not_answered_no_link_is_made_over_the_comm(
    home: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_KERNEL_MAGICS", "0")
    with start("rtc-python") as kernel:
        until(discovery.live, "the agent serves", 20)
        send_comm(kernel.client, "comm_open", "c1", target_name="rtc.sync.v1")
        assert "magics is off" in ask_comm(kernel.client, "c1", op="share")["error"]
        assert ask_comm(kernel.client, "c1", op="links")["links"] == []


def apply(doc: Any, buffers: list[memoryview]) -> None:
    from rtc_kernel import yproto

    for buffer in buffers:
        message = yproto.read_message(bytes(buffer))
        assert isinstance(message, yproto.Step2 | yproto.Update)
        doc.apply_update(message.update)


# --- limits --------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(home: Path, until: Until, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A kernel whose document has the least of everything."""
    for name, value in {"STREAM_BYTES": 1 << 16, "OUTPUTS_PER_EXECUTION": 4, "EXECUTION_BYTES": 4096}.items():
        monkeypatch.setenv(f"RTC_KERNEL_{name}", str(value))
    monkeypatch.setenv("RTC_KERNEL_WINDOW_BYTES", str(1 << 20))
    monkeypatch.setenv("RTC_KERNEL_EPOCH_BYTES", str(1 << 16))
    with start("rtc-python") as kernel:
        until(discovery.live, "the agent serves", 20)
        yield kernel


def test_a_long_text_has_head_and_tail_in_the_document_and_is_whole_in_the_history(limited: Running) -> None:
    code = "for i in range(50_000): print(f'{i:09}')"
    whole = "".join(f"{i:09}\n" for i in range(50_000))
    assert limited.execute(code).text == whole
    (row,) = replica(limited, ended(1)).values()
    output = row.outputs[0]
    assert output.text is not None
    assert len(output.text) <= 1 << 16
    (shown,) = columns(limited)
    assert len(output.text) + shown["outputs"][0]["omitted_bytes"] == len(whole)
    assert (output.text[:10], output.text[-10:]) == (whole[:10], whole[-10:])
    assert text(ask(limited, f"/api/executions/{row.id}")) == whole
    (paged,) = rows(limited)
    (excerpt,) = paged["outputs"]
    assert len(excerpt["text"]) + excerpt["omitted_bytes"] == len(whole)
    assert len(excerpt["text"]) < (1 << 16) + 2 * (16 << 10), "a page has excerpts, of whole segments"
    at = excerpt["omitted_index"]
    assert (excerpt["text"][:at], excerpt["text"][at:]) == (whole[:at], whole[at - len(excerpt["text"]) :])
    (cell,) = ask(limited, "/api/notebook")["cells"]
    assert (cell["source"], cell["outputs"][0]["text"]) == (code, whole)


def test_a_record_of_many_megabytes_does_not_pass_through_memory_as_a_whole(ready: Running) -> None:
    ready.execute("for i in range(600): print('x' * 99_999)", timeout=60)
    (row,) = recorded(ready.kernel_id, "ok")
    ask(ready, "/api/history?limit=1&text=nothing")  # a search has what it needs
    before = ready.agent().memory_info().rss
    assert len(text(ask(ready, f"/api/executions/{row['id']}"))) == 60_000_000
    assert ready.agent().memory_info().rss - before < 30e6


def test_completions_come_from_the_kernel_and_none_while_it_is_busy(ready: Running, until: Until, gate: Gate) -> None:
    ready.execute("unmistakable = 1")

    def complete(code: str) -> list[str]:
        answer = kernels.post(ready.kernel_id, "/api/complete", {"code": code, "cursor_pos": len(code)})
        return list(answer["matches"])

    until(lambda: complete("x = unmis") == ["unmistakable"], "the agent knows that the kernel is idle", 20)
    msg_id = ready.client.execute(f"print('on'); {gate.code}")
    while ready.client.get_iopub_msg(timeout=30)["msg_type"] != "stream":
        pass
    assert complete("x = unmis") == []
    gate.open()
    finish(ready.client, msg_id)


def test_a_new_agent_has_the_same_head_and_tail(limited: Running, until: Until) -> None:
    limited.execute("import sys, time\nfor i in range(50_000): print(f'{i:09}')")
    msg_id = limited.client.execute(
        "print('x' * 200_000)\nprint('here', end='', flush=True)\ninput()\nprint('\\rThere')"
    )
    limited.client.get_stdin_msg(timeout=30)
    before = replica(limited, lambda doc: len(doc.executions) == 2 and bool(doc.executions[msg_id].input))
    agent = limited.agent()
    agent.kill()
    until(lambda: live(limited).agent_pid != agent.pid, "a new agent serves", 20)
    after = replica(limited, lambda doc: len(doc.executions) == 2 and bool(doc.executions[msg_id].input))
    assert [row.outputs for row in after.values()] == [row.outputs for row in before.values()]
    limited.client.input("")
    finish(limited.client, msg_id)
    *_, last = replica(limited, ended(2)).values()
    assert (last.outputs[0].text or "").endswith("xxx\nThere\n")


def test_a_new_agent_reads_only_the_ends_of_what_was_long(home: Path, until: Until) -> None:
    with start("rtc-python") as kernel:
        until(discovery.live, "the agent serves", 20)
        kernel.execute("pass")
        agent = kernel.agent()
        agent.kill()
        until(lambda: live(kernel).agent_pid != agent.pid, "a new agent serves", 20)
        replica(kernel, ended(1))
        small_bytes = kernel.agent().memory_info().rss
        kernel.execute("for i in range(300): print('x' * 99_999)", timeout=60)
        kernel.execute("from IPython.display import display\nfor i in range(3000): display(i)", timeout=60)
        before = replica(kernel, ended(3))
        ask(kernel, "/api/history?limit=1")  # all of it is stored
        agent = kernel.agent()
        agent.kill()
        until(lambda: live(kernel).agent_pid != agent.pid, "a new agent serves", 20)
        after = replica(kernel, ended(3))
        assert after == before
        flood, displays = list(after.values())[1:]
        assert (flood.outputs[0].omitted_bytes or 0) > 27 << 20
        assert displays.omitted_outputs == 2000
        assert kernel.agent().memory_info().rss - small_bytes < 24 << 20


def test_a_message_that_is_too_large_is_recorded_with_both_ends(
    home: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_KERNEL_RECORDED_BYTES", str(1 << 16))
    monkeypatch.setenv("RTC_KERNEL_BLOB_BYTES", "1024")
    with start("rtc-python") as kernel:
        until(discovery.live, "the agent serves", 20)
        run = kernel.execute("print('a' * 500_000 + 'ö' * 500_000)")
        assert len(run.text) == 1_000_001
        kernel.execute("from IPython.display import display\ndisplay({'text/html': 'x' * 3_000_000}, raw=True)")
        printed, shown = recorded(kernel.kernel_id, "ok", "ok")
        whole = text(printed)
        assert (whole[:9], whole[-3:]) == ("aaaaaaaaa", "öö\n")
        assert "bytes of one message are left out here" in whole
        assert len(whole.encode()) < 70_000
        value = shown["outputs"][0]["data"]["text/html"]
        assert value["blob"] is None
        assert value["bytes"] > 3_000_000


def test_many_outputs_have_head_and_tail_and_an_update_still_finds_its_own(limited: Running) -> None:
    limited.execute(
        "from IPython.display import display\n"
        "handles = [display(i, display_id=True) for i in range(20)]\n"
        "for i in (1, 10, 19): handles[i].update(-i)"
    )
    (row,) = replica(limited, ended(1)).values()
    assert columns(limited)[0]["omitted_outputs"] == 16
    assert [(output.data or {})["text/plain"] for output in row.outputs] == ["0", "-1", "18", "-19"]
    whole = ask(limited, f"/api/executions/{row.id}")["outputs"]
    assert [int(output["data"]["text/plain"]) for output in whole] == [
        *(0, -1),
        *range(2, 10),
        -10,
        *range(11, 19),
        -19,
    ]


def test_values_beyond_those_of_an_execution_are_blobs(limited: Running) -> None:
    limited.execute(
        "from IPython.display import display\nfor i in range(4): display({'text/plain': 'x' * 2000}, raw=True)"
    )
    (row,) = replica(limited, ended(1)).values()
    kinds = [type((output.data or {})["text/plain"]) for output in row.outputs]
    assert kinds == [str, str, str, dict]
    reference = (row.outputs[3].data or {})["text/plain"]
    assert (reference["bytes"], reference["preview"]) == (2000, "x" * 1024)


def test_followers_of_many_epochs_lose_nothing_and_see_nothing_twice(limited: Running, until: Until) -> None:
    """What is dead begins an epoch in a quiet moment."""
    counts = (6000, 7000)

    def play() -> None:
        for count in counts:
            epoch = ask(limited, "/api/health")["epoch"]
            limited.execute(f"from IPython.display import display\nfor i in range({count}): display(i)", timeout=60)
            until(lambda epoch=epoch: ask(limited, "/api/health")["epoch"] != epoch, "an epoch begins", 60)
        limited.execute("'end'")

    async def follow() -> tuple[int, list[Execution]]:
        resets = 0
        added: set[str] = set()
        async with rtc_kernel.connect(limited.kernel_id) as doc, asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(play))
            async for change in doc.changes():
                if change.kind == "reset":
                    resets += 1
                    added = set(doc.executions)
                elif change.kind == "added" and change.table == "executions":
                    assert change.id not in added
                    added.add(change.id)
                if any(run.code == "'end'" and run.finished_at for run in doc.executions.values()):
                    break  # seen in a change, or with a new epoch
            found = list(doc.executions.values())
        return resets, found

    resets, found = asyncio.run(follow())
    assert resets >= 2
    assert [row.get("omitted_outputs") for row in columns(limited)] == [*(count - 4 for count in counts), None]
    shown = [[(output.data or {})["text/plain"] for output in run.outputs] for run in found]
    assert shown == [*(["0", "1", str(count - 2), str(count - 1)] for count in counts), ["'end'"]]


def test_where_no_moment_is_quiet_an_epoch_begins_all_the_same(limited: Running, tmp_path: Path, until: Until) -> None:
    told = tmp_path / "told"
    cell = f"import os\nfrom IPython.display import display\nwhile not os.path.exists({str(told)!r}): display(1)"
    epoch = ask(limited, "/api/health")["epoch"]
    msg_id = limited.client.execute(cell)
    until(lambda: ask(limited, "/api/health")["epoch"] != epoch, "an epoch begins while it runs", 60)
    told.touch()
    assert finish(limited.client, msg_id, 60).reply["content"]["status"] == "ok"


def test_the_least_window_keeps_the_newest_and_the_history_all(limited: Running) -> None:
    for at in range(6):
        limited.execute(f"x = {'y' * 300_000!r}\n{at}")
    limited.execute("1")
    newest = replica(
        limited, lambda doc: [run.code for run in doc.executions.values() if run.finished_at][-1:] == ["1"]
    )
    (first, *_) = newest.values()
    assert first.code.endswith("\n3")
    assert len(rows(limited)) == 7
