"""Ask a kernel for the columns of a data frame, without running any cell.

    python examples/ask_columns.py [LINK | KERNEL]

LINK is what `%rtc share --role run` printed; KERNEL is the id (or its beginning) of an RTC kernel that lives on this
machine. Without either: the only one there is.

In the kernel, a function says what it answers. A frontend asks by its name; what it asks is no execution, and it is in
nobody's history. The kernel is asked once: for a while the same question is answered from the document, to everybody,
unless the asker wants it fresh.
"""

import asyncio
import sys

import rtc_kernel
from rtc_kernel import discovery
from rtc_kernel.errors import SetupError

IN_THE_KERNEL = """
from rtc_kernel.answering import answer

@answer("columns")
def columns(name):
    return [str(column) for column in get_ipython().user_ns[name].columns]

try:
    from pandas import DataFrame
except ModuleNotFoundError:
    class DataFrame(dict):  # as much of one as is needed here
        columns = property(list)

cities = DataFrame({"name": ["Bern", "Zürich"], "canton": ["BE", "ZH"]})
"""


async def ask(target: str) -> None:
    async with rtc_kernel.connect(target) as doc:
        run = await doc.run(IN_THE_KERNEL)  # a notebook would have this in a cell
        await run.result()
        print("columns:", ", ".join(await doc.query("columns", "cities")))

        run = await doc.run("cities['people'] = [134_506, 427_721]")
        await run.result()
        print("known:  ", ", ".join(await doc.query("columns", "cities")))
        print("fresh:  ", ", ".join(await doc.query("columns", "cities", fresh=True)))


if __name__ == "__main__":
    try:
        asyncio.run(ask(sys.argv[1] if len(sys.argv) > 1 else discovery.only().kernel_id))
    except SetupError as exc:
        sys.exit(str(exc))
