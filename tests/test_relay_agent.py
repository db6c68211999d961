"""What the agent may have the relay do to a real kernel: submit, answer, interrupt, restart."""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import wait_until
from driven import Driven, drive, write_spec
from jupyter_client import BlockingKernelClient
from kernels import FOREVER, Gate, Run, finish, gone, joined, reply_to

from rtc_kernel import link
from rtc_kernel.link import Channel, Way
from rtc_kernel.relay.app import SIGNAL_GRACE_S

Until = Callable[..., Any]

FRONTS: dict[str, dict[str, Any]] = {
    "tcp": {},
    "ipc": {"manager": {"transport": "ipc"}},
    "curve": {"manager": {"transport_encryption": "required"}},
}
"""How frontends may be connected; all but plain TCP have ipc behind the relay."""

SLEEP = f"print('on', flush=True); {FOREVER}"
LOOP = "print('on', flush=True)\nwhile True: pass"
DEAF = "import signal\nfor n in (signal.SIGTERM, signal.SIGINT): signal.signal(n, signal.SIG_IGN)\n" + LOOP
FLOOD = "i = 0\nwhile True: print('on', i, flush=True); i += 1"


@pytest.fixture
def driven(home: Path) -> Iterator[Driven]:
    with drive(home) as driven:
        yield driven


def submitted(driven: Driven, code: str) -> list[str]:
    """Ids of the requests with this code that have passed."""
    requests = driven.agent_side.messages(Channel.SHELL, Way.TO_CHILD)
    return [m["header"]["msg_id"] for m in requests if m["content"].get("code") == code]


def runs(client: BlockingKernelClient, code: str) -> str:
    """Begin an execution that prints something, and wait for its first line."""
    msg_id, printed = client.execute(code), ""
    while "\n" not in printed:
        message = client.get_iopub_msg(timeout=30)
        if message["parent_header"].get("msg_id") == msg_id and message["msg_type"] == "stream":
            printed += message["content"]["text"]
    return str(msg_id)


def restarted(driven: Driven, lives: int = 2, timeout_s: float = 20.0) -> psutil.Process:
    """Wait until so many lives have begun; the new child."""
    agent = driven.agent_side
    agent.wait(lambda: [e for e, _, _ in agent.turns()].count("started") >= lives, "started again", timeout_s)
    return driven.child()


# --- submit --------------------------------------------------------------------------------------------------


def test_what_the_agent_submits_and_what_frontends_send_run_in_one_order(driven: Driven, gate: Gate) -> None:
    agent, client = driven.agent_side, driven.client
    first = client.execute(gate.code + "log = ['front']")
    agent.wait(lambda: submitted(driven, gate.code + "log = ['front']"), "the first passed")
    second = agent.submit("log.append('agent'); print(*log)")
    agent.wait(lambda: submitted(driven, "log.append('agent'); print(*log)"), "the second passed")
    third = client.execute("log.append('front'); print(*log)")
    gate.open()
    finish(client, first)
    assert finish(client, third).text == "front agent front\n"
    assert agent.finish(second).text == "front agent\n"
    assert agent.finish(third).reply["content"]["execution_count"] == 3


def test_every_frontend_sees_a_run_of_the_agents(driven: Driven) -> None:
    other = driven.connect()
    try:
        run = driven.agent_side.submit("print('for all')")
        for client in (driven.client, other):
            seen = []
            while not seen or seen[-1]["content"].get("execution_state") != "idle":
                message = client.get_iopub_msg(timeout=30)
                if message["parent_header"].get("msg_id") == run:
                    seen.append(message)
            kinds = [kind for kind, _ in joined((message["msg_type"], message["content"]) for message in seen)]
            assert kinds == ["status", "execute_input", "stream", "status"]
            with pytest.raises(queue.Empty):
                reply_to(client, run, timeout=0)  # of its kernel_info there may be another one
    finally:
        other.stop_channels()


def test_many_submitted_at_once_keep_their_order(driven: Driven) -> None:
    agent = driven.agent_side
    agent.finish(agent.submit("log = []"))
    for number in range(500):
        agent.submit(f"log.append({number})")
    assert agent.finish(agent.submit("print(log == list(range(500)))")).text == "True\n"


def test_a_submitted_rtc_line_waits_its_turn_and_is_answered(driven: Driven, gate: Gate) -> None:
    agent = driven.agent_side
    slow = driven.client.execute(gate.code + "x = 1")
    agent.wait(lambda: submitted(driven, gate.code + "x = 1"), "the first passed")
    magic, behind = agent.submit("%rtc who\nx += 1"), agent.submit("print(x)")
    gate.open()
    ask = agent.wait(lambda: [r for r in agent.heard if isinstance(r, link.Ask)], "asked")[0]
    assert ask.info["lines"] == ["%rtc who"]
    assert ask.info["msg_id"] == magic
    assert finish(driven.client, slow).reply["content"]["status"] == "ok"
    agent.say(link.Answer(ask.ask_id, {"status": "ok", "outputs": [["stream", {"name": "stdout", "text": "me"}]]}))
    assert agent.finish(magic).text == "me"
    assert agent.finish(behind).text == "2\n"


def test_a_control_request_is_answered_while_a_cell_runs(driven: Driven) -> None:
    agent = driven.agent_side
    runs(driven.client, SLEEP)
    request = agent.request("kernel_info_request", {}, Channel.CONTROL)
    reply = agent.wait(lambda: agent.reply(request, Channel.CONTROL), "answered")
    assert reply["content"]["implementation"] == "ipython"
    agent.act("interrupt")


def test_the_hello_of_a_new_agent_says_what_the_one_before_has_sent(driven: Driven) -> None:
    agent = driven.agent_side
    run = agent.submit("x = 1")
    agent.finish(run)
    driven.execute("x")
    last = max(r.seq for r in agent.heard if isinstance(r, (link.Tapped, link.Child)))
    psutil.Process(agent.pid).kill()
    agent.meet()
    assert agent.hello["spool_seq"] >= last
    agent.wait(lambda: submitted(driven, "x = 1") == [run], "the request is in the spool")
    seq = next(r.seq for r in agent.heard if isinstance(r, link.Tapped) and r.frames[0] == link.AGENT_IDENT)
    assert seq <= agent.hello["spool_seq"]


# --- answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", FRONTS)
def test_the_agent_answers_what_its_own_run_asks_and_what_a_frontends_run_asks(front: str, home: Path) -> None:
    with drive(home, **FRONTS[front]) as driven:
        agent, client = driven.agent_side, driven.client
        for number in range(3):
            run = agent.submit("print(input('own? ').upper())")
            assert agent.question(run)["content"] == {"prompt": "own? ", "password": False}
            agent.answer(f"own {number}")
            assert agent.finish(run).text == f"OWN {number}\n"

            run = client.execute("print(input('front? ').upper())", allow_stdin=True)
            assert client.get_stdin_msg(timeout=30)["content"]["prompt"] == "front? "
            agent.question(run)
            agent.answer(f"agent {number}")
            assert finish(client, run).text == f"AGENT {number}\n"

            run = client.execute("print(input('front? ').upper())", allow_stdin=True)
            client.get_stdin_msg(timeout=30)
            client.input(f"front {number}")
            assert finish(client, run).text == f"FRONT {number}\n"


def test_of_two_answers_the_second_answers_no_later_question(driven: Driven) -> None:
    """The kernel drops what is there before it asks."""
    agent, client = driven.agent_side, driven.client
    second = "assert get_ipython().kernel.stdin_socket.poll(30_000)"
    run = client.execute(f"a = input()\n{second}\nb = input()\nprint(a, b)", allow_stdin=True)
    client.get_stdin_msg(timeout=30)
    agent.question(run)
    agent.answer("one")
    client.input("late")
    client.get_stdin_msg(timeout=30)
    agent.answer("two")
    assert finish(client, run).text in ("one two\n", "late two\n")


def test_what_is_typed_is_not_tapped(driven: Driven) -> None:
    agent = driven.agent_side
    run = agent.submit("import getpass; secret = getpass.getpass('pass? ')")
    assert agent.question(run)["content"] == {"prompt": "pass? ", "password": True}
    agent.answer("hunter2")
    assert agent.finish(run).reply["content"]["status"] == "ok"
    assert agent.finish(agent.submit("print(len(secret))")).text == "7\n"
    assert not any(b"hunter2" in f for r in agent.heard if isinstance(r, link.Tapped) for f in r.frames)


def test_an_answer_to_nothing_is_lost_and_nothing_breaks(driven: Driven) -> None:
    agent = driven.agent_side
    agent.answer("nobody asked")
    come = driven.execute("assert get_ipython().kernel.stdin_socket.poll(30_000)")
    assert come.reply["content"]["status"] == "ok", "else it may come behind the question"
    run = agent.submit("print(input())")
    agent.question(run)
    agent.answer("now")
    assert agent.finish(run).text == "now\n"


# --- interrupt -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["signal", "message"])
def test_an_interrupt_of_the_agents_reaches_the_running_cell(mode: str, home: Path) -> None:
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    write_spec(home, "other", argv, interrupt_mode=mode)
    with drive(home, kernel="other") as driven:
        for code in (SLEEP, FLOOD):
            run = runs(driven.client, code)
            driven.agent_side.act("interrupt")
            assert finish(driven.client, run).reply["content"]["ename"] == "KeyboardInterrupt"
        assert driven.execute("print(1)").text == "1\n"


def test_an_interrupt_comes_once_even_if_the_agent_is_too_busy_to_say_that_it_felt_it(driven: Driven) -> None:
    run = runs(driven.client, SLEEP)
    driven.agent_side.act("interrupt")
    psutil.Process(driven.agent_side.pid).suspend()
    try:
        finish(driven.client, run)
        longer = f"import time; time.sleep({2 * SIGNAL_GRACE_S})"  # than the relay waits for the agent's word
        assert driven.execute(longer).reply["content"]["status"] == "ok"
    finally:
        psutil.Process(driven.agent_side.pid).resume()


# --- restart -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", FRONTS)
def test_after_a_restart_the_variables_are_gone_and_every_client_goes_on(front: str, home: Path) -> None:
    with drive(home, **FRONTS[front]) as driven:
        agent, client, other = driven.agent_side, driven.client, driven.connect()
        try:
            for life in (2, 3):
                assert driven.execute("x = 1").reply["content"]["status"] == "ok"
                before = driven.child()
                agent.act("restart")
                for one in (client, other):
                    assert statuses(one, "restarting")
                child = restarted(driven, life)
                assert child.pid != before.pid
                assert not before.is_running()
                run = driven.execute("x")
                assert run.reply["content"]["ename"] == "NameError"
                assert run.reply["content"]["execution_count"] == 1
                assert driven.execute("print('one')").text == "one\n"
                assert driven.execute("print('two')", client=other).text == "two\n"
                assert agent.finish(agent.submit("print('three')")).text == "three\n"
                beats(client)
            late = driven.connect()
            assert driven.execute("print('late')", client=late).text == "late\n"
            late.stop_channels()
        finally:
            other.stop_channels()
        events = [(event, pid) for event, pid, _ in agent.turns()]
        assert [event for event, _ in events] == ["started", *["restarting", "started"] * 2]
        assert events[0][1] == events[1][1]
        assert events[2][1] == events[3][1]


def statuses(client: BlockingKernelClient, state: str) -> dict[str, Any]:
    """Wait for a state that is told to everybody."""
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["content"].get("execution_state") == state:
            assert message["parent_header"] == {}
            return dict(message)


def beats(client: BlockingKernelClient) -> None:
    client.hb_channel.unpause()
    wait_until(client.hb_channel.is_beating, "the heart beats")
    client.hb_channel.pause()


@pytest.mark.parametrize("code", [SLEEP, LOOP, DEAF, FLOOD], ids=["sleep", "loop", "deaf", "flood"])
def test_a_busy_kernel_restarts_and_what_it_has_not_answered_is_answered_aborted(code: str, driven: Driven) -> None:
    agent, client, other = driven.agent_side, driven.client, driven.connect()
    try:
        running = runs(client, code)
        behind = other.execute("print('never')")
        own = agent.submit("print('never')")
        agent.wait(lambda: {behind, own} <= set(submitted(driven, "print('never')")), "all have passed")
        magic, held = client.execute("%rtc who"), other.execute("print('held')")
        agent.wait(lambda: submitted(driven, "%rtc who") and submitted(driven, "print('held')"), "all are held")
        agent.act("restart")
        for one, msg_id in ((client, running), (other, behind), (client, magic), (other, held)):
            reply = reply_to(one, msg_id)
            assert reply["content"]["status"] == "aborted"
        restarted(driven)
        assert agent.finish(own).reply["content"]["status"] == "aborted"
        assert idles(other, held)
        assert driven.execute("print('lives')").text == "lives\n"
        for one in (client, other):
            with pytest.raises(queue.Empty):
                one.get_shell_msg(timeout=0)
        agent.wait(lambda: agent.published(held), "the tap shows it too")
        for msg_id in (running, behind, own, magic, held):
            replies = [m for m in agent.messages(Channel.SHELL) if m["parent_header"].get("msg_id") == msg_id]
            assert len(replies) == 1
        assert not [r for r in agent.heard if isinstance(r, link.Ask)]
    finally:
        other.stop_channels()


def idles(client: BlockingKernelClient, msg_id: str) -> bool:
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["parent_header"].get("msg_id") == msg_id and message["content"].get("execution_state") == "idle":
            return True


def test_what_a_kernel_says_on_its_way_out_passes_and_belongs_to_its_old_life(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RTC_TEST_GRACE_S", "60")  # else a kernel that the machine lets wait is killed
    with drive(home) as driven:
        say_last_words(driven)


def say_last_words(driven: Driven) -> None:
    agent = driven.agent_side
    # What ipykernel sets when it is told to end.
    asked = "any(get_ipython().exit_now or time.sleep(0.01) for _ in range(12_000))"
    run = runs(driven.client, f"import time; print('on', flush=True)\n{asked}\nprint('last words')")
    agent.act("restart")
    ended = finish(driven.client, run)
    assert ended.text == "last words\n"
    restarted(driven)

    def said(channel: Channel, word: str) -> int:
        tapped = [r for r in agent.heard if isinstance(r, link.Tapped) and r.channel is channel]
        return max(r.seq for r in tapped if run.encode() in r.frames[-3] and word.encode() in r.frames[-1])

    status = ended.reply["content"]["status"]
    last, answered = said(Channel.IOPUB, "last words"), said(Channel.SHELL, f'"{status}"')
    turn, again = (r.seq for r in agent.heard if isinstance(r, link.Child) and r.event != "exited" and r.seq > 1)
    assert last < turn
    if status == "ok":  # it was given the time to say that, too
        assert answered < turn
    else:
        assert status == "aborted"
        assert turn < answered < again
    idle = max(r.seq for r in agent.heard if isinstance(r, link.Tapped) and run.encode() in r.frames[-3])
    assert idle < again, "what is answered in its place belongs to it, too"
    with pytest.raises(queue.Empty):
        driven.client.get_shell_msg(timeout=0.1)


def test_a_block_that_the_agent_is_asked_for_is_aborted_and_its_late_answer_dropped(driven: Driven) -> None:
    agent = driven.agent_side
    magic = driven.client.execute("%rtc who")
    ask = agent.wait(lambda: [r for r in agent.heard if isinstance(r, link.Ask)], "asked")[0]
    agent.act("restart")
    assert finish(driven.client, magic).reply["content"]["status"] == "aborted"
    agent.say(link.Answer(ask.ask_id, {"status": "ok", "outputs": [["stream", {"name": "stdout", "text": "late"}]]}))
    run = driven.execute("print('next')")
    assert run.text == "next\n"
    agent.wait(lambda: submitted(driven, "print('next')"), "what came later is tapped")
    assert agent.published(magic)[-1]["content"] == {"execution_state": "idle"}


def test_what_comes_while_the_kernel_restarts_runs_in_the_new_one_in_order(driven: Driven) -> None:
    agent, client = driven.agent_side, driven.client
    runs(client, LOOP)
    agent.act("restart")
    statuses(client, "restarting")
    agent.submit("log = ['a']")
    last = agent.submit("log.append('b'); print(*log)")
    agent.answer("to nobody")
    agent.act("interrupt")  # would end what is starting
    mine = client.execute("print('front')")
    assert agent.finish(last).text == "a b\n"
    assert finish(client, mine).text == "front\n"
    turn = next(r.seq for r in agent.heard if isinstance(r, link.Child) and r.event == "restarting")
    assert all(r.seq > turn for r in agent.heard if isinstance(r, link.Tapped) and b"log" in b"".join(r.frames))


def test_what_a_dead_agent_had_submitted_while_the_kernel_restarted_never_runs(driven: Driven) -> None:
    """Its hello tells the new agent that it was not sent: it will send it itself."""
    agent = driven.agent_side
    runs(driven.client, LOOP)
    agent.act("restart")
    statuses(driven.client, "restarting")
    agent.submit("twice = True")
    psutil.Process(agent.pid).kill()
    agent.meet()
    restarted(driven)
    assert driven.execute("twice").reply["content"]["ename"] == "NameError"
    assert not submitted(driven, "twice = True")


def test_a_line_that_no_agent_could_get_waits_for_the_next_one(driven: Driven) -> None:
    agent, client = driven.agent_side, driven.client
    agent.die()
    line = client.execute("%rtc who")
    agent.meet()
    ask = agent.wait(lambda: next((r for r in agent.heard if isinstance(r, link.Ask)), None), "asked")
    assert (ask.info["lines"], ask.info["msg_id"]) == (["%rtc who"], line)
    agent.say(link.Answer(ask.ask_id, {"status": "ok", "outputs": [["stream", {"name": "stdout", "text": "me"}]]}))
    assert finish(client, line).text == "me"


def test_a_line_that_an_agent_had_when_it_died_goes_to_no_other(driven: Driven) -> None:
    """It may have done what was asked."""
    agent, client = driven.agent_side, driven.client
    line = client.execute("%rtc restart")
    agent.wait(lambda: next((r for r in agent.heard if isinstance(r, link.Ask)), None), "asked")
    agent.die()
    agent.meet()
    agent.act("restart")
    assert finish(client, line).reply["content"]["status"] == "aborted"
    restarted(driven)
    assert driven.execute("print(1)").text == "1\n"
    agent.listen()
    assert not [r for r in agent.heard if isinstance(r, link.Ask)]


def test_a_restart_while_one_is_under_way_is_ignored(driven: Driven) -> None:
    agent = driven.agent_side
    runs(driven.client, LOOP)
    for _ in range(3):
        agent.act("restart")
    restarted(driven)
    assert driven.execute("print(1)").text == "1\n"
    agent.listen()
    assert [event for event, _, _ in agent.turns()] == ["started", "restarting", "started"]


def test_a_new_agent_is_told_of_the_new_child(driven: Driven, until: Until) -> None:
    agent = driven.agent_side
    session = agent.hello["session"]
    agent.act("restart")
    child = restarted(driven)
    assert driven.execute("print(1)").text == "1\n"
    psutil.Process(agent.pid).kill()
    agent.meet()
    assert agent.hello["child_pid"] == child.pid
    assert agent.hello["session"] not in ("", session)


def test_forks_of_a_busy_kernel_go_with_it_and_free_its_ports(driven: Driven, until: Until) -> None:
    """A fork holds the sockets of the kernel: a new one could not bind them, and we would stay connected to it."""
    running = runs(driven.client, "import os, time\nif not os.fork(): time.sleep(1000)\n" + LOOP)
    old = driven.processes()
    fork = next(p for p in old if p.ppid() == driven.child().pid)
    driven.agent_side.act("restart")
    assert reply_to(driven.client, running)["content"]["status"] == "aborted"
    until(gone([fork]), "the fork is gone")
    restarted(driven)
    assert driven.execute("print(1)").text == "1\n"


def test_what_a_kernel_has_started_in_a_group_of_its_own_survives_a_restart_as_it_does_without_us(
    driven: Driven, until: Until
) -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)\n"
    client = driven.client
    pid = int(driven.execute(code).text)
    runs(client, LOOP)
    driven.agent_side.act("restart")
    restarted(driven)
    assert psutil.pid_exists(pid)
    os.kill(pid, signal.SIGKILL)


def test_restarts_leak_nothing(driven: Driven, until: Until) -> None:
    agent = driven.agent_side
    relay = psutil.Process(driven.pid)

    def held() -> tuple[int, int, int]:
        assert driven.execute("print(1)").text == "1\n"
        return relay.num_fds(), relay.num_threads(), len(relay.children(recursive=True))

    agent.act("restart")
    restarted(driven)
    before = held()
    for life in range(3, 23):
        agent.act("restart")
        restarted(driven, life)
        assert driven.execute("1").reply["content"]["status"] == "ok"
    until(lambda: held() == before, "nothing of a life is left")


@pytest.mark.parametrize(
    ("code", "exit_code"), [("import os; os._exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", -9)]
)
def test_after_a_restart_we_end_as_the_new_child_ends(code: str, exit_code: int, driven: Driven, until: Until) -> None:
    driven.agent_side.act("restart")
    restarted(driven)
    assert driven.execute("1").reply["content"]["status"] == "ok"
    processes = driven.processes()
    driven.client.execute(code)
    until(lambda: driven.manager.provisioner.process.poll() is not None, "the relay ended", 20)
    assert driven.manager.provisioner.process.returncode == exit_code
    until(gone(processes), "all processes ended")
    driven.agent_side.listen()
    assert driven.agent_side.turns()[-1][0::2] == ("exited", exit_code)


@pytest.mark.parametrize("whom", ["relay", "group"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("when", ["restarting", "starting", "after"])
def test_dying_while_or_after_a_restart_leaves_no_process(
    when: str, number: int, whom: str, driven: Driven, until: Until
) -> None:
    if when == "restarting":
        runs(driven.client, LOOP)
    processes = driven.processes()
    driven.agent_side.act("restart")
    if when == "restarting":
        statuses(driven.client, "restarting")
    else:
        restarted(driven)
    if when == "after":
        assert driven.execute("1").reply["content"]["status"] == "ok"
    processes += driven.processes()
    (os.kill if whom == "relay" else os.killpg)(driven.pid, number)
    until(lambda: driven.manager.provisioner.process.poll() is not None, "the relay ended", 20)
    ends = {-number} | ({-signal.SIGKILL} if (when, whom) == ("restarting", "relay") else set())
    assert driven.manager.provisioner.process.returncode in ends  # a child that does not listen has 2 s in all
    until(gone(processes), "all processes ended")


def test_a_kernel_that_cannot_be_started_again_is_one_line_and_an_end(home: Path, tmp_path: Path, until: Until) -> None:
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    write_spec(home, "fleeting", [str(program), "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    told = tmp_path / "stderr"
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with told.open("w") as stderr, drive(home, kernel="fleeting", stderr=stderr, env=env) as driven:
        processes = driven.processes()
        program.unlink()
        driven.agent_side.act("restart")
        until(lambda: driven.manager.provisioner.process.poll() is not None, "the relay ended", 20)
        assert driven.manager.provisioner.process.returncode == 1
        until(gone(processes), "all processes ended")
        driven.agent_side.listen()
        assert [event for event, _, _ in driven.agent_side.turns()] == ["started", "restarting", "exited"]
    lines = [line for line in told.read_text().splitlines() if line.startswith("rtc_kernel:")]
    assert len(lines) == 1
    assert "cannot be started" in lines[0]


def test_without_rtc_lines_what_is_not_answered_is_aborted_all_the_same(home: Path) -> None:
    with drive(home, env={"RTC_KERNEL_MAGICS": "0"}) as driven:
        running = runs(driven.client, LOOP)
        driven.agent_side.act("restart")
        assert reply_to(driven.client, running)["content"]["status"] == "aborted"
        assert driven.execute("print(1)").text == "1\n"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_another_languages_kernel_restarts(transport: str, home: Path) -> None:
    argv = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]
    write_spec(home, "bash", argv, language="bash")
    with drive(home, kernel="bash", env={"RTC_KERNEL_TRANSPORT": transport}) as driven:
        assert driven.execute("x=5; echo $x").text == "5\n"
        driven.agent_side.act("restart")
        restarted(driven)
        assert driven.execute("echo [$x]").text == "[]\n"
        running: Run = driven.execute("echo again")
        assert running.text == "again\n"
