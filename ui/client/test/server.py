"""A Jupyter server with our kernelspecs, for the client's tests over the comm.

::

    ← {"url": …, "token": …}                         first of all
    → {"op": "kill_agent", "kernel": kernel_id}      ← {"killed": pid}
    → {"op": "side_socket", "kernel": kernel_id}     ← {"url": …, "token": …}

It ends with its input.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from rtc_kernel import discovery

TOKEN = "test"  # noqa: S105 (of a server on loopback that lives as long as one test)


def main() -> None:
    """Do what is asked, until nothing more is."""
    with tempfile.TemporaryDirectory() as home:
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
            os.environ[name] = home
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        options = [f"--port={port}", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={home}"]
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", *options, "--no-browser", "--allow-root", "--log-level=ERROR"],
            stdout=sys.stderr,
        )
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for(url)
            tell({"url": url, "token": TOKEN})
            for line in sys.stdin:
                asked = json.loads(line)
                found = discovery.find(asked["kernel"])
                if asked["op"] == "side_socket":
                    tell({"url": found.url, "token": found.token})
                else:
                    os.kill(found.agent_pid, signal.SIGKILL)
                    tell({"killed": found.agent_pid})
        finally:
            server.terminate()
            server.wait()


def wait_for(url: str) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}api?token={TOKEN}", timeout=10):  # noqa: S310 (of our own server)
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def tell(value: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
