"""How soon does somebody see it, in a browser? Needs Chromium, and Playwright (``.[browser]``).

Times in the page are those of its own clock (``performance.timeOrigin`` and ``now``), taken behind the frame that
showed it; lines carry the time at which the cell printed them.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from .executing import FLOOD
from .figures import Compare, Line, Plan, Rounds, p95
from .kernels import ARMS, BARE, RTC, TICK, TIMEOUT_S, Kernel, both, running, settle
from .observers import subscriber

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
SIZE = {"width": 1280, "height": 900}

POLL_S = 0.02

TICKS = f"import time\nfor _ in range({{}}): {TICK}; time.sleep(0.05)"

WATCH = """
window.seen = { at: {}, tasks: [], wanted: null, found: null };
const look = () => {
  const cards = document.querySelectorAll("article"); // the newest is the last one
  const text = cards.length ? cards[cards.length - 1].textContent : "";
  const now = performance.timeOrigin + performance.now();
  for (const [, stamp] of text.matchAll(/at (\\d{9,})/g)) window.seen.at[stamp] ??= now;
  if (window.seen.wanted && window.seen.found === null && text.includes(window.seen.wanted)) window.seen.found = now;
};
const channel = new MessageChannel();
channel.port1.onmessage = look;
let due = false;
new MutationObserver(() => {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    channel.port2.postMessage(null); // behind the frame
  });
}).observe(document, { subtree: true, childList: true, characterData: true });
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.seen.tasks.push([entry.startTime, entry.duration]);
}).observe({ type: "longtask", buffered: true });
"""


def paint(plan: Plan) -> list[Line]:
    """From the address until the newest of 500 executions is shown; and how large the page is."""
    painted, size = Rounds(), Rounds()
    count = plan.size(500)
    with running(RTC) as kernel, browser() as chromium:
        for number in range(count):
            kernel.execute(f"print('number {number} of many')")
        for index in range(plan.rounds_or(10)):
            plan.tell(f"round {index + 1}")
            with page(chromium, kernel, f"window.seen.wanted = 'number {count - 1} of many'") as shown:
                wait(shown, "window.seen.found !== null")
                painted.add(RTC, index, shown.evaluate("window.seen.found - performance.timeOrigin"))
            size.add(RTC, index, page_bytes(kernel) / 1024)
    value = Compare.VALUE
    return [
        Line(name=f"the page shows {count} executions", unit="ms", rtc=painted.each(RTC), compare=value, target=1000.0),
        Line(name="… compressed", unit="KiB", rtc=size.each(RTC), compare=value, target=300.0),
    ]


def pixels(plan: Plan) -> list[Line]:
    """A cell that prints every 50 ms: how old each line is when the page shows it, and when a plain subscriber of a
    bare kernel has it."""
    lags = Rounds()
    ticks = plan.size(100)
    with (
        both() as kernels,
        subscriber(kernels[BARE]) as bare,
        browser() as chromium,
        page(chromium, kernels[RTC]) as shown,
    ):
        for index, arm in plan.turns("pixels", 4, ARMS):
            plan.tell(f"round {index + 1}, {arm}")
            settle()
            if arm == BARE:
                _, report = bare.watch(TICKS.format(ticks))
                lags.add(arm, index, *(lag / 1e6 for lag in report.lags_ns))
            else:
                shown.evaluate("window.seen.at = {}")
                kernels[RTC].execute(TICKS.format(ticks))
                wait(shown, f"Object.keys(window.seen.at).length >= {ticks}")
                lags.add(arm, index, *lags_ms(shown.evaluate("window.seen.at")))
    each = {arm: lags.each(arm, p95) for arm in ARMS}
    return [
        Line(
            name="a line every 50 ms → pixels, p95",
            unit="ms",
            bare=each[BARE],
            rtc=each[RTC],
            compare=Compare.DIFFERENCE,
            target=50.0,
            note="bare: a plain subscriber has it",
        )
    ]


def responsive(plan: Plan) -> list[Line]:
    """The longest task of the page while a cell prints 20 000 lines, and until it shows the last of them. Beside it, in
    the same browser, a page that does next to nothing: what its longest task takes, it takes because the processors are
    busy with other things."""
    longest, complete = Rounds(), Rounds()
    count = plan.size(20_000)
    with running(RTC) as kernel, browser() as chromium, page(chromium, kernel) as shown, idle_page(chromium) as idle:
        for index in range(plan.rounds_or(5)):
            plan.tell(f"round {index + 1}")
            settle()
            shown.evaluate(f"window.seen.wanted = 'flood {index} is over'; window.seen.found = null")
            pages = {RTC: shown, BARE: idle}
            began = {arm: one.evaluate("performance.now()") for arm, one in pages.items()}
            run = kernel.execute(f"{FLOOD.format(count)}\nprint('flood', {index}, 'is over', flush=True)")
            wait(shown, "window.seen.found !== null")
            for arm, one in pages.items():
                tasks = one.evaluate("window.seen.tasks")
                longest.add(arm, index, max((took for at, took in tasks if at >= began[arm]), default=0.0))
            took_ms = shown.evaluate("window.seen.found") - wall_ms(run.submitted_ns)
            complete.add(RTC, index, took_ms / 1e3)
            complete.add(BARE, index, run.took_ms / 1e3)
    return [
        Line(
            name=f"{count} lines, the page's longest task",
            unit="ms",
            bare=longest.each(BARE, max),
            rtc=longest.each(RTC, max),
            compare=Compare.VALUE,
            target=100.0,
            note="0: none above 50; bare: of a page that does nothing",
        ),
        Line(
            name="… shown to the end",
            unit="s",
            bare=complete.each(BARE),
            rtc=complete.each(RTC),
            note="against the kernel's client",
        ),
    ]


def lags_ms(seen: dict[str, float]) -> list[float]:
    """Of each line, by the monotonic time that it carries, how old it was when it was seen."""
    return [at - wall_ms(int(stamp)) for stamp, at in seen.items()]


def wall_ms(monotonic_ns: int) -> float:
    """A monotonic time as the page's clock has it: milliseconds since 1970."""
    return (time.time_ns() - time.monotonic_ns() + monotonic_ns) / 1e6


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium.

    Raises:
        RuntimeError: Playwright or Chromium is missing.
    """
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as exc:
        raise RuntimeError("Playwright is not installed: pip install '.[browser]'") from exc
    if found is None:
        raise RuntimeError("Chromium is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        try:
            yield chromium
        finally:
            chromium.close()


@contextlib.contextmanager
def page(chromium: Any, kernel: Kernel, script: str = "") -> Iterator[Any]:
    """The page of a kernel, in a context of its own; ``script`` runs before all of the page's."""
    live = kernel.live()
    context = chromium.new_context(viewport=SIZE)
    context.set_default_timeout(TIMEOUT_S * 1000)
    context.add_init_script(WATCH + script)
    try:
        shown = context.new_page()
        shown.goto(f"{live.url}/?token={live.token}")
        yield shown
    finally:
        context.close()


@contextlib.contextmanager
def idle_page(chromium: Any) -> Iterator[Any]:
    """A page, in a process of its own, that draws one letter a frame."""
    context = chromium.new_context(viewport=SIZE)
    context.add_init_script(WATCH)
    try:
        blank = context.new_page()
        blank.goto("data:text/html,<p>")
        blank.evaluate(
            "const draw = (n) => { document.body.textContent = n % 10; requestAnimationFrame(() => draw(n + 1)); };"
            "draw(0)"
        )
        yield blank
    finally:
        context.close()


def wait(shown: Any, condition: str) -> None:
    """Until a condition holds in the page; its own ``wait_for_function`` needs an ``eval``, which the page forbids.

    Raises:
        TimeoutError: it did not.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while not shown.evaluate(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in the page: {condition}")
        time.sleep(POLL_S)


def page_bytes(kernel: Kernel) -> int:
    """What the page loads before anything else is asked for, compressed."""
    live = kernel.live()

    def fetch(path: str) -> bytes:
        request = urllib.request.Request(f"{live.url}/{path}", headers={"Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read()
            return data if answer.headers["Content-Encoding"] == "gzip" else gzip.compress(data)

    html = fetch("")
    paths = set(re.findall(r'(?:src|href)="(?:\./)?(assets/[^"]+)"', gzip.decompress(html).decode()))
    return len(html) + sum(len(fetch(path)) for path in paths)
