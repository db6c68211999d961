"""A room's kernels in one terminal: labels, who comes and goes, and `jupyter rtc watch` as a process at Hocuspocus."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from conftest import wait_until
from relays import LACKS, VIEW, HeadlessRun, hocuspocus_relay

from rtc_kernel import cli, rooms
from rtc_kernel.cli import gathering
from rtc_kernel.tables import Kernel, KernelState

real = pytest.mark.skipif(bool(LACKS), reason=LACKS or "all is there")

ENTRY = rooms.Entry(kernel="5f0c21aa-1", state="s", requests=None, client=1, host="lab", display_name="Python 3")


def test_a_label_is_a_name_and_as_much_of_the_id_as_tells_it_from_others():
    labels = gathering.Labels()
    first = labels.of(replace(ENTRY, notebook="/home/ada/train.ipynb"))
    assert first == "train            5f0c"
    assert labels.of(replace(ENTRY, kernel="5f0c99")) == "Python 3         5f0c9"
    assert labels.of(replace(ENTRY, notebook="renamed.ipynb")) == first
    assert len(labels.of(replace(ENTRY, kernel="8", notebook="x" * 99 + ".ipynb"))) == len(first)


def test_who_it_is_is_said_in_a_line_that_does_nothing_to_the_terminal():
    kernel = Kernel(id="k", display_name="R\x1b[2J", state=KernelState.BUSY, notebook="a/b.ipynb")
    assert gathering.describe(ENTRY, kernel) == "R · busy · b.ipynb on lab"


class Watch:
    """``jupyter rtc watch`` of a room, and its lines so far."""

    def __init__(self, *arguments):
        argv = [sys.executable, "-m", "rtc_kernel.cli", "watch", *arguments]
        env = {**os.environ, "RTC_KERNEL_RELAY_TOKEN": VIEW}
        self.process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def has(self, *texts):
        return lambda: any(all(text in line for text in texts) for line in list(self.lines))

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self._thread.join(30)
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def watching(*arguments):
    watch = Watch(*arguments)
    try:
        yield watch
    finally:
        watch.end()


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    with hocuspocus_relay(tmp_path_factory.mktemp("relay")) as found:
        yield found


@real
def test_watch_of_a_room_shows_all_its_kernels_and_who_comes_and_goes(relay, tmp_path):
    link = f"{relay.url}/pipeline"
    runs = []
    with watching(link) as seen, watching(link, "--json") as read:
        try:
            wait_until(seen.has("pipeline", "no kernel yet"), "a room without kernels is waited for", 30)
            runs += [HeadlessRun(tmp_path, name, link, f"print('this is ' + {name!r})") for name in ("one", "two")]
            for name in ("one", "two"):
                wait_until(seen.has(f"{name} ", f"| this is {name}"), f"the run {name} is followed", 60)
                wait_until(read.has('"kind": "came"', f"{name}.ipynb"), f"{name} came to the reader of JSON, too", 60)
            assert seen.has("one ", "RTC Python", "one.ipynb on ")()
            runs[0].finish()
            wait_until(seen.has("one ", "| one ends"), "its last line is there", 30)
            wait_until(seen.has("one ", "| the kernel has ended"), "its end is said", 30)
            runs.append(HeadlessRun(tmp_path, "three", link))
            wait_until(seen.has("three ", "RTC Python"), "who comes later is said", 60)
            wait_until(read.has('"kind": "came"', "three.ipynb"), "to the reader of JSON, too", 60)
            kernel = next(line for line in seen.lines if line.startswith("two"))[17:21]
            once = subprocess.run(
                [sys.executable, "-m", "rtc_kernel.cli", "watch", f"{link}?kernel={kernel}", "--once"],
                env={**os.environ, "RTC_KERNEL_RELAY_TOKEN": VIEW},
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            ).stdout
            assert "this is two" in once
            assert " | " not in once
            runs[1].finish()
            runs[2].finish()
            for name in ("two", "three"):
                wait_until(seen.has(f"{name} ", "| the kernel has ended"), f"the end of {name} is said", 30)
            left = lambda: sum('"kind": "left"' in line for line in list(read.lines))  # noqa: E731 - asked again and again
            wait_until(lambda: left() == 3, "the reader of JSON heard that all three left", 30)
        finally:
            for run in runs:
                run.end()
        assert (seen.end(), read.end()) == (0, 0)
    changes = [json.loads(line) for line in read.lines]
    came = {change["record"]["notebook"]: change["kernel"] for change in changes if change["kind"] == "came"}
    assert {path.rpartition("/")[2] for path in came} == {"one.ipynb", "two.ipynb", "three.ipynb"}
    assert {change["kernel"] for change in changes} == set(came.values())
    text = "\n".join(seen.lines)
    assert "Traceback" not in text
    assert "not published" not in text  # that it ended is enough


@real
def test_a_token_that_the_relay_does_not_know_is_told_in_a_line(relay):
    with watching(f"{relay.url}/pipeline", "--token", "nobody-0123456789") as seen:
        wait_until(lambda: seen.process.poll() is not None, "it ends", 30)
    assert seen.process.returncode == 1
    assert "the relay refuses" in "".join(seen.lines)


@real
def test_what_cannot_be_opened_is_told(capsys, relay):
    assert cli.main(["view", "http://127.0.0.1:1"]) == 2
    assert "jupyter rtc share" in capsys.readouterr().err
    assert cli.main(["view", f"{relay.url}/empty"]) == 2
    assert "RTC_KERNEL_RELAY_TOKEN" in capsys.readouterr().err
    assert cli.main(["view", f"{relay.url}/empty", "--token", "wrong-0123456789abcdef"]) == 1
    assert "the relay refuses" in capsys.readouterr().err
