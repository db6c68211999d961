"""Work at the kernel of somebody else's notebook (`together.ipynb`): wait until something runs there, and act.

    python examples/together.py [LINK | KERNEL]

LINK is what `%rtc share --role run` printed; KERNEL is the id (or its beginning) of an RTC kernel that lives on this
machine. Without either: the only one there is.
"""

import asyncio
import sys

import rtc_kernel
from rtc_kernel import discovery
from rtc_kernel.errors import RefusedError, SetupError


async def work(target: str) -> None:
    async with rtc_kernel.connect(target) as doc:
        print(f"at {doc.kernel.display_name} {doc.kernel.id}", flush=True)
        theirs = await something_runs(doc)
        print(f"{theirs.submitted_by} runs: {theirs.code.splitlines()[0]}")

        # It is stored once this returns: whatever dies now, it runs at most once, and is not forgotten.
        run = await doc.run("learning_rate /= 10\nprint('learning rate is now', learning_rate)")
        async for output in run.outputs():
            print(output.text or output.data, end="")

        mine = await run.result()
        print(f"that was #{mine.seq}, behind #{theirs.seq}, as {mine.submitted_by}: {mine.state.value}")
        try:
            await doc.interrupt(theirs.id)
        except RefusedError as exc:
            print(f"too late to interrupt theirs: {exc.reason}")


async def something_runs(doc: rtc_kernel.Document) -> rtc_kernel.Execution:
    def running() -> list[rtc_kernel.Execution]:
        return [run for run in doc.executions.values() if run.state == "running"]

    await doc.wait_for(lambda _: bool(running()))
    return running()[0]


if __name__ == "__main__":
    try:
        asyncio.run(work(sys.argv[1] if len(sys.argv) > 1 else discovery.only().kernel_id))
    except SetupError as exc:
        sys.exit(str(exc))
