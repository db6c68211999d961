"""Follow a kernel from Python: print each output as it comes.

    python examples/follow.py [LINK | KERNEL]

LINK is what `%rtc share` or `jupyter rtc run` printed; KERNEL is the id (or its beginning) of an RTC kernel that
lives on this machine. Without either: the only one there is.
"""

import asyncio
import sys

import rtc_kernel
from rtc_kernel import discovery
from rtc_kernel.errors import SetupError


async def follow(target: str) -> None:
    printed: dict[str, list[str]] = {}
    async with rtc_kernel.connect(target) as doc:
        print(f"following {doc.kernel.display_name} {doc.kernel.id}", flush=True)
        async for change in doc.changes():
            if change.kind == "reset":  # the document began a new life: everything may be different
                printed.clear()
            if not isinstance(change.record, rtc_kernel.Execution):
                continue
            run = change.record
            seen = printed.setdefault(run.id, [])
            for position, output in enumerate(run.outputs):
                text = output.text or str((output.data or {}).get("text/plain", output.evalue or ""))
                before = seen[position] if position < len(seen) else ""
                if text != before:
                    new = text.removeprefix(before) if text.startswith(before) else text
                    print(new, end="" if output.text else "\n", flush=True)
                seen[position : position + 1] = [text]
            if run.state in ("ok", "error", "aborted", "lost"):
                print(f"--- #{run.seq} {run.state.value}", flush=True)
                printed.pop(run.id, None)


if __name__ == "__main__":
    try:
        asyncio.run(follow(sys.argv[1] if len(sys.argv) > 1 else discovery.only().kernel_id))
    except KeyboardInterrupt:
        pass
    except SetupError as exc:
        sys.exit(str(exc))
