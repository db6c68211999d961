"""The TypeScript side passes its own tests; the client's are against agents and kernels of this Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from relays import LACKS as RELAY_LACKS
from tools import node_lacks

UI = Path(__file__).parent.parent / "ui"
NPM = shutil.which("npm")
LACKS = node_lacks("npm", UI, "vitest")
pytestmark = [pytest.mark.node, pytest.mark.skipif(bool(LACKS), reason=LACKS or "all is there")]


@pytest.mark.timeout(400)
def test_client_and_viewer_pass_their_tests() -> None:
    environment = {**os.environ, "RTC_TEST_PYTHON": sys.executable, "NO_COLOR": "1"}
    done = subprocess.run([str(NPM), "test"], cwd=UI, env=environment, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert ("skipped" in done.stdout) is bool(RELAY_LACKS), done.stdout
