"""Jupyter's own suite for kernels, on a machine that may be busy."""

from __future__ import annotations

from typing import Any

import jupyter_kernel_test
from jupyter_kernel_test.msgspec_v5 import validate_message
from kernels import Message, finish


class KernelTests(jupyter_kernel_test.KernelTests):
    """The suite itself gives each message 0.1 s once the reply is there."""

    __test__ = False

    def execute_helper(
        self,
        code: str,
        timeout: int = 60,
        silent: bool = False,
        store_history: bool = True,
        stop_on_error: bool = True,
    ) -> tuple[Message, list[Message]]:
        options: dict[str, Any] = {"silent": silent, "store_history": store_history, "stop_on_error": stop_on_error}
        msg_id = self.kc.execute(code=code, **options)
        run = finish(self.kc, msg_id, timeout)
        for message in (run.reply, *run.iopub):
            validate_message(message, message["msg_type"], msg_id)
        busy, *others = run.iopub
        assert busy["content"] == {"execution_state": "busy"}
        outputs = []
        for message in others:
            if message["msg_type"] == "execute_input":
                assert message["content"]["code"] == code
            elif message["msg_type"] != "status":
                outputs.append(message)
        return run.reply, outputs
