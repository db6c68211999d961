"""Facts about rtc-provisioner: a kernel under its own name is behind the relay, and else as LocalProvisioner has it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import recorded
from jupyter_client import AsyncMultiKernelManager
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from kernels import FOREVER, SHOWS, Running, ask, finish, gone, start
from servers import jupyter_server
from serving import eventually
from test_cli_acting import rtc
from test_server import call, discovered, front_of, history, on_loop

from rtc_kernel import discovery
from rtc_kernel.errors import SetupError
from rtc_kernel.provisioner import NAME, RTCProvisioner
from rtc_kernel.relay.launch import HANDED, Handed

Until = Callable[..., Any]
Warnings = pytest.LogCaptureFixture

ENVIRONMENT = "JUPYTER_DEFAULT_PROVISIONER_NAME"


@pytest.fixture(autouse=True)
def provisioned(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process, and what it starts, starts every kernel behind the relay."""
    monkeypatch.setenv(ENVIRONMENT, NAME)
    KernelProvisionerFactory.clear_instance()  # reads it once
    yield
    KernelProvisionerFactory.clear_instance()


def write_spec(home: Path, name: str, argv: list[str], **more: Any) -> None:
    directory = home / "data" / "kernels" / name
    directory.mkdir(parents=True)
    spec = {"argv": argv, "display_name": f"The {name}", "language": "python", **more}
    (directory / "kernel.json").write_text(json.dumps(spec))


def command_lines(running: Running) -> list[str]:
    """Of the process that was started, and of all that it has started."""
    return [" ".join(process.cmdline()) for process in running.processes()]


def is_bare(running: Running) -> bool:
    return not any("rtc_kernel" in line for line in command_lines(running))


def live(running: Running, until: Until) -> discovery.LiveKernel:
    def found() -> discovery.LiveKernel | None:
        return next((kernel for kernel in discovery.live() if kernel.kernel_id == running.kernel_id), None)

    kernel = until(found, "the agent serves", 30)
    assert isinstance(kernel, discovery.LiveKernel)
    return kernel


def rows(running: Running) -> list[dict[str, Any]]:
    """The history, oldest first; nothing while no agent serves it."""
    try:
        return list(reversed(ask(running.kernel_id, "/api/history")["executions"]))
    except (SetupError, OSError):
        return []


def test_a_kernel_under_its_own_name_is_behind_the_relay(until: Until, tmp_path: Path) -> None:
    with start("python3", cwd=str(tmp_path), env={**os.environ, "MINE": "1"}) as running:
        assert isinstance(running.manager.provisioner, RTCProvisioner)
        assert running.manager.kernel_name == "python3"
        kernel = live(running, until)
        assert (kernel.kernel_name, kernel.display_name) == ("python3", "Python 3 (ipykernel)")
        assert kernel.relay_pid == running.pid == running.manager.provisioner.pid
        code = f"import os; print(os.getcwd(), os.environ['MINE'], {HANDED!r} in os.environ)"
        assert running.execute(code).text == f"{tmp_path} 1 False\n"
        assert HANDED.encode() not in Path(f"/proc/{running.agent().pid}/environ").read_bytes()
        (row,) = recorded(running.kernel_id, "ok")
        assert row["code"] == code
        (listed,) = json.loads(rtc("list", "--json").stdout)
        assert listed["kernel_id"] == running.kernel_id
        processes = running.processes()
        assert len(processes) == 3
        running.manager.shutdown_kernel()
        until(gone(processes), "nothing of it runs any more")
    assert not Path(running.manager.connection_file).exists()


def test_it_is_restarted_interrupted_and_ends_as_a_local_process(until: Until) -> None:
    with start("python3", manager={"cache_ports": True}) as running:
        ports = running.manager.ports
        sleeping = running.client.execute("import subprocess; subprocess.run(['sleep', '1000'])")
        until(lambda: any(p.name() == "sleep" for p in running.processes()), "the cell runs", 30)
        running.manager.interrupt_kernel()
        assert finish(running.client, sleeping).reply["content"]["status"] == "error"
        until(lambda: [row["state"] for row in rows(running)] == ["error"], "it is in the history", 30)
        running.manager.restart_kernel()
        running.client.wait_for_ready(timeout=60)
        assert running.manager.ports == ports
        again = running.client.execute("1")
        until(lambda: [row["id"] for row in rows(running)] == [sleeping, again], "the history goes on", 30)
        assert [row["generation"] for row in rows(running)] == [0, 1]
        running.client.execute("import os; os._exit(7)")
        process = running.manager.provisioner.process
        assert process.wait(30) == 7
        running.manager.restart_kernel(now=True)  # as a server does it for one that died
        running.client.wait_for_ready(timeout=60)
        running.child().kill()
        assert running.manager.provisioner.process.wait(30) == -signal.SIGKILL
        assert not running.manager.is_alive()


def test_a_kernelspec_has_its_environment_and_says_how_it_is_interrupted(
    home: Path, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ``env`` is the kernel's alone: it may name the modules of a Python that is not ours."""
    (tmp_path / "json.py").write_text("raise RuntimeError('of another Python')")
    argv = ["python", "-E", "-m", "ipykernel_launcher", "-f", "{connection_file}", "--dir={resource_dir}"]
    env = {"PYTHONPATH": str(tmp_path), "SAID": "${GREETING} $UNKNOWN", "PYTHONEXECUTABLE": "/none"}
    write_spec(home, "odd", argv, env=env, interrupt_mode="message")
    monkeypatch.setenv("GREETING", "hello $HOME")
    code = "import os; print(*(os.environ.get(name) for name in ('PYTHONPATH', 'SAID', 'PYTHONEXECUTABLE')))"
    with start("odd") as running:
        assert running.execute(code).text == f"{tmp_path} hello $HOME $UNKNOWN None\n"
        assert f"--dir={home / 'data' / 'kernels' / 'odd'}" in running.child().cmdline()
        msg_id = running.client.execute(SHOWS)
        until(lambda: any(row["id"] == msg_id and row["outputs"] for row in rows(running)), "it runs", 30)
        running.manager.interrupt_kernel()
        until(lambda: [row["state"] for row in rows(running)] == ["ok", "error"], "it was interrupted", 30)


def test_arguments_of_a_caller_are_the_kernels_and_settings_are_ours(until: Until) -> None:
    extra = ["--HistoryManager.hist_file=:memory:", "--RTCKernel.history=memory"]
    with start("python3", extra_arguments=extra) as running:
        assert extra[0] in running.child().cmdline()
        assert extra[1] not in running.child().cmdline()
        assert live(running, until).store is None


def test_two_kernels_of_one_manager(until: Until) -> None:
    async def run() -> list[str]:
        managers = AsyncMultiKernelManager()
        ids = [await managers.start_kernel(kernel_name="python3") for _ in range(2)]
        clients = [managers.get_kernel(kernel).client() for kernel in ids]
        for client in clients:
            client.start_channels()
            await client.wait_for_ready(timeout=60)
        for kernel, client in zip(ids, clients, strict=True):
            reply = await client.execute(f"print({kernel!r})", reply=True, timeout=60)
            assert reply["content"]["status"] == "ok"
        await eventually(lambda: {kernel.kernel_id for kernel in discovery.live()} == set(ids), "both are there", 30)
        for kernel in ids:
            (row,) = await asyncio.to_thread(recorded, kernel, "ok")
            assert row["code"] == f"print({kernel!r})"
        for client in clients:
            client.stop_channels()
        await managers.shutdown_all()
        return ids

    assert len(set(asyncio.run(run()))) == 2
    assert discovery.live() == []


@pytest.mark.filterwarnings("ignore:Passing unrecognized arguments to super.KernelSpec:DeprecationWarning")
def test_a_kernel_of_another_language(until: Until) -> None:
    subprocess.run([sys.executable, "-m", "bash_kernel.install", "--user"], check=True, capture_output=True)
    with start("bash") as running:
        assert running.execute("echo $((6 * 7))").text == "42\n"
        assert live(running, until).display_name == "Bash"
        (row,) = recorded(running.kernel_id, "ok")
        assert row["code"] == "echo $((6 * 7))"


def test_a_kernelspec_that_needs_no_relay_is_started_as_it_is(home: Path, caplog: Warnings) -> None:
    """One of ours is not wrapped twice, and one that names its provisioner stays with it."""
    local = {"kernel_provisioner": {"provisioner_name": "local-provisioner"}}
    argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_spec(home, "its-own", argv, metadata=local)
    write_spec(home, "named", argv, metadata={"kernel_provisioner": {"provisioner_name": NAME}})
    with caplog.at_level(logging.WARNING):
        with start("rtc-python") as running:
            assert sum("-m rtc_kernel " in line for line in command_lines(running)) == 1
        with start("its-own") as running:
            assert type(running.manager.provisioner) is LocalProvisioner
            assert is_bare(running)
        with start("named") as running:
            assert not is_bare(running)
    assert not caplog.records


def test_a_kernelspec_that_names_us_is_wrapped_by_install(home: Path, until: Until) -> None:
    argv = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_spec(home, "named", argv, metadata={"kernel_provisioner": {"provisioner_name": NAME}})
    assert rtc("install", "--kernel", "named", "--user").returncode == 0
    with start("rtc-named") as running:
        assert sum("-m rtc_kernel --kernel" in line for line in command_lines(running)) == 1


def test_a_front_is_encrypted_where_the_kernelspec_allows_it() -> None:
    with start("python3", manager={"transport_encryption": "required"}) as running:
        assert not is_bare(running)
        assert "curve_publickey" in json.loads(Path(running.manager.connection_file).read_text())
        assert running.execute("print(1)").text == "1\n"


def test_a_relay_that_cannot_start_costs_the_kernel_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Warnings
) -> None:
    broken = tmp_path / "rtc_kernel"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('half an installation')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with start("python3", extra_arguments=["--RTCKernel.history=memory"]) as running:
        assert is_bare(running)
        assert running.execute("print(1)").text == "1\n"
        running.manager.restart_kernel()
        running.client.wait_for_ready(timeout=60)
        assert is_bare(running)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 2
    assert "Kernel 'python3' starts without rtc_kernel: the relay could not be started (exit code 1" in lines[0]


def test_a_kernel_that_cannot_start_fails_as_it_does_without_us(home: Path, caplog: Warnings) -> None:
    write_spec(home, "gone", ["/nowhere/python", "-f", "{connection_file}"])
    write_spec(home, "mute", [sys.executable, "-c", FOREVER])
    with pytest.raises(FileNotFoundError), start("gone"):
        pass
    assert "kernel 'gone' cannot be started" in caplog.text
    with start("mute", ready=False) as running:
        assert is_bare(running)
    assert "Kernel 'mute' starts without rtc_kernel: its command line names no connection file" in caplog.text


def test_what_is_run_again_leaves_no_history_of_its_own(home: Path, until: Until) -> None:
    with start("python3") as running:
        running.execute("print(6 * 7)")
        until(discovery.live, "its agent is there", 30)
        recorded(running.kernel_id, "ok")
        running.manager.shutdown_kernel()
    (history,) = (home / "data" / "rtc_kernel").glob("*.sqlite3")
    done = rtc("rerun", str(history), "--kernel", "python3")
    assert done.returncode == 0, done.stderr
    assert list((home / "data" / "rtc_kernel").glob("*.sqlite3")) == [history]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1}', "no json"])
def test_what_is_handed_over_is_a_kernel_or_an_error(text: str) -> None:
    with pytest.raises(SetupError, match="names no kernel"):
        Handed(text)


@on_loop
async def test_every_kernel_of_a_server_is_behind_the_relay(home: Path) -> None:
    with jupyter_server("server", home, os.environ) as server:
        body = {"path": "a.ipynb", "type": "notebook", "name": "a.ipynb", "kernel": {"name": "python3"}}
        session = await call(server, "POST", "api/sessions", body)
        kernel = str(session["kernel"]["id"])
        assert session["kernel"]["name"] == "python3"
        async with front_of(server, kernel) as front:
            assert (await front.execute("print(1)"))[1] == "1\n"
            sleeping = await front.begin(SHOWS)
            await call(server, "POST", f"api/kernels/{kernel}/interrupt")
            assert (await front.finish(sleeping))["ename"] == "KeyboardInterrupt"
            assert (await front.execute("%rtc who"))[0]["status"] == "ok"
        before = await discovered(kernel)
        assert before.notebook == str(server.root / "a.ipynb")
        await call(server, "POST", f"api/kernels/{kernel}/restart")
        async with front_of(server, kernel) as front:
            assert (await front.execute("print(2)"))[1] == "2\n"
        again = await discovered(kernel)
        assert (again.kernel_name, again.url) == ("python3", before.url)
        wanted = ["print(1)", SHOWS, "%rtc who", "print(2)"]
        rows = await history(again, "ok", "error", "ok", "ok")  # its agent has only just come
        assert [row["code"] for row in rows] == wanted
        processes = psutil.Process(again.relay_pid).children(recursive=True)
        await call(server, "DELETE", f"api/sessions/{session['id']}")
        await eventually(gone(processes), "nothing of it runs any more", 30)
