"""How does a kernel come to be behind the relay without another kernelspec?

A kernel provisioner (jupyter_client, "Kernel provisioning"): whatever starts the kernel of a kernelspec through
jupyter_client starts the relay with that kernel's own command line instead, and the kernel's name stays what it is
in notebooks. Everything else is :class:`LocalProvisioner`'s: the relay leads the process group, ends as the kernel
ends and passes signals on, so what holds for a local process holds for it.

What the relay has to start is handed to it in one variable of its environment (:class:`.relay.launch.Handed`):
everybody on the machine reads a command line, and a kernelspec's ``env`` may hold secrets. That ``env`` is for the
kernel alone: a ``PYTHONPATH`` of another Python would break ours.

Promise 1 comes first: whatever keeps the relay from starting, the kernel starts as it would without us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from .config import split_argv
from .install import is_ours
from .relay.launch import HANDED, STARTED

NAME = "rtc-provisioner"
"""Of the entry point, for ``JUPYTER_DEFAULT_PROVISIONER_NAME`` and kernelspecs."""

STARTED_S = 15.0
"""How long the relay may take to start the kernel. One that says nothing for longer, and lives, is slow. Seconds."""

LOOK_S = 0.005
"""How often we look whether it has. Seconds."""

ENDED_S = 2.0
"""How long a relay that could not start the kernel may take to be gone, before it is killed. Seconds."""


def is_default() -> bool:
    """Whether this process starts kernels through us, whose kernelspecs say nothing else."""
    return os.environ.get(KernelProvisionerFactory.default_provisioner_name_env) == NAME


class RTCProvisioner(LocalProvisioner):
    """Starts the kernel of any kernelspec behind the relay; a kernelspec of ours as it is."""

    _front_env: dict[str, str] | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """As :class:`LocalProvisioner`; remembers the environment without the kernelspec's."""
        self._front_env = dict(kwargs.get("env") or os.environ)
        prepared: dict[str, Any] = await super().pre_launch(**kwargs)
        return prepared

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the relay, which starts ``cmd``; or ``cmd`` alone, with a line in the log that says why."""
        if is_ours(cmd):
            return await super().launch_kernel(cmd, **kwargs)
        settings, bare = split_argv(cmd)
        problem = await self._launch_relay(bare, settings, kwargs)
        if problem is None:
            return self.connection_info
        self.log.warning("Kernel %r starts without rtc_kernel: %s", self._kernel_name, problem)
        return await super().launch_kernel(bare, **kwargs)

    @property
    def _kernel_name(self) -> str:
        return str(getattr(self.parent, "kernel_name", "") or self.kernel_spec.display_name)

    @property
    def _connection_file(self) -> str:
        """As ``format_kernel_cmd`` writes it into a command line."""
        return os.path.realpath(getattr(self.parent, "connection_file", ""))

    async def _launch_relay(self, bare: list[str], settings: list[str], kwargs: dict[str, Any]) -> str | None:
        """Start the relay; null when the kernel was started, else why it was not."""
        file = self._connection_file
        argv = [arg.replace(file, "{connection_file}") for arg in bare]
        if argv == bare:
            return "its command line names no connection file"
        ours = {**(self._front_env or os.environ)}
        told, tell = os.pipe() if os.name == "posix" else (-1, -1)
        ours[HANDED] = json.dumps(self._hand(argv, kwargs.get("env") or ours, ours) | {"tell": tell})
        # -P: what lies in the notebook's directory is not ours
        command = [sys.executable, "-P", "-m", "rtc_kernel", "-f", file, *settings]
        options: dict[str, Any] = {**kwargs, "env": ours}
        if tell >= 0:
            options["pass_fds"] = (*kwargs.get("pass_fds", ()), tell)
        try:
            try:
                await super().launch_kernel(command, **options)
            except (OSError, ValueError) as exc:
                return f"the relay cannot be started ({exc})"
            finally:
                if tell >= 0:
                    os.close(tell)
            return await self._problem(told) if told >= 0 else None
        finally:
            if told >= 0:
                os.close(told)

    def _hand(self, argv: list[str], env: dict[str, str], ours: dict[str, str]) -> dict[str, Any]:
        """The child, as the relay reads it."""
        return {
            "name": self._kernel_name,
            "display_name": self.kernel_spec.display_name,
            "language": self.kernel_spec.language,
            "interrupt_mode": self.kernel_spec.interrupt_mode or "signal",
            "argv": argv,
            "env": {name: env.get(name) for name in {*env, *ours} if env.get(name) != ours.get(name)},
        }

    async def _problem(self, told: int) -> str | None:
        """What the relay says once it has started the kernel: nothing is wrong; else, when it is gone, what was."""
        os.set_blocking(told, False)
        deadline = time.monotonic() + STARTED_S
        said = None
        while said is None:
            with contextlib.suppress(BlockingIOError):
                said = os.read(told, 4096).decode("utf-8", "replace")
            if said == STARTED or time.monotonic() > deadline:
                return None
            await asyncio.sleep(LOOK_S)
        try:
            async with asyncio.timeout(ENDED_S):
                exit_code = await self.wait()
        except TimeoutError:
            await self.kill()
            exit_code = await self.wait()
        return f"the relay could not be started ({said or f'exit code {exit_code}; its own messages say why'})"
