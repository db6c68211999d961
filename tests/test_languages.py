"""Another language's kernel behind the relay: the same frames, the same document, the same %rtc."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jupyter_kernel_test
import pytest
from kernels import Running, start
from test_agent import ended, replica

from rtc_kernel import discovery
from rtc_kernel.cli import main

Until = Callable[..., Any]

# bash_kernel's kernel.json has a key that jupyter_client does not know
pytestmark = pytest.mark.filterwarnings("ignore:Passing unrecognized arguments to super.KernelSpec:DeprecationWarning")


@pytest.fixture
def bash(home: Path, until: Until) -> Iterator[Running]:
    install_bash()
    with start("rtc-bash") as running:
        until(discovery.live, "the agent serves", 20)
        yield running


def install_bash() -> None:
    subprocess.run([sys.executable, "-m", "bash_kernel.install", "--user"], check=True, capture_output=True)
    assert main(["install", "--kernel", "bash", "--user"]) == 0


def test_bash_runs_and_its_history_is_in_the_document(bash: Running) -> None:
    assert bash.execute("echo hello; x=5").text == "hello\n"
    assert bash.execute("%rtc who\necho $x").text.endswith("5\n")
    assert "echo hello" in bash.execute("%rtc history").contents("display_data")[0]["data"]["text/plain"]
    rows = list(replica(bash, ended(3)).values())
    assert [row.code for row in rows] == ["echo hello; x=5", "%rtc who\necho $x", "%rtc history"]
    assert rows[0].outputs[0].text == "hello\n"
    assert discovery.live()[0].display_name == "RTC Bash"


class TestRTCBash(jupyter_kernel_test.KernelTests):
    """What the suite asks of bash_kernel, behind the relay."""

    kernel_name = "rtc-bash"
    language_name = "bash"
    file_extension = ".sh"
    code_hello_world = "echo 'hello, world'"
    completion_samples = [{"text": "ech", "matches": {"echo"}}]
    # what bash_kernel does not do, with or without us
    test_clear_output = test_display_data = test_error = test_execute_result = test_execute_stderr = None
    test_history = test_inspect = test_is_complete = test_pager = None

    @classmethod
    def setUpClass(cls) -> None:
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as home:
            patch.setenv("JUPYTER_DATA_DIR", f"{home}/data")
            patch.setenv("JUPYTER_RUNTIME_DIR", f"{home}/runtime")
            patch.setenv("RTC_KERNEL_HISTORY", "memory")
            install_bash()
            super().setUpClass()
