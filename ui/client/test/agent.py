"""A real kernel with its agent, for the client's tests: started here, told what to do by lines of JSON.

::

    → {"op": "execute", "code": "…"}   ← {"id": msg_id}             as a frontend would, without waiting
    → {"op": "kill_agent"}             ← {"killed": pid}
    ← {"url": …, "token": …, "kernel": …}                          first of all

It ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile

from jupyter_client import KernelManager

from rtc_kernel import discovery


def main() -> None:
    """Do what is asked, until nothing more is."""
    with tempfile.TemporaryDirectory() as home, contextlib.ExitStack() as stack:
        os.environ["RTC_KERNEL_MAGIC_TIMEOUT_S"] = "60"  # the agent may be late
        os.environ["JUPYTER_DATA_DIR"] = os.environ["JUPYTER_RUNTIME_DIR"] = home
        manager = KernelManager(kernel_name=sys.argv[1])
        manager.start_kernel()
        stack.callback(manager.shutdown_kernel, now=True)
        client = manager.blocking_client()
        client.start_channels()
        stack.callback(client.stop_channels)
        client.wait_for_ready(timeout=60)
        client.execute_interactive("%rtc status", timeout=60, output_hook=lambda _: None)
        found = discovery.find(manager.connection_file)
        tell({"url": found.url, "token": found.token, "kernel": found.kernel_id})
        for line in sys.stdin:
            asked = json.loads(line)
            if asked["op"] == "execute":
                tell({"id": client.execute(asked["code"], allow_stdin=asked.get("allow_stdin", False))})
            else:
                pid = discovery.find(manager.connection_file).agent_pid
                os.kill(pid, signal.SIGKILL)
                tell({"killed": pid})


def tell(value: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
