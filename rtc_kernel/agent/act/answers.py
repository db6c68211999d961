"""What does a ``%rtc`` line show?

Pure: facts and the time in, messages out, as ``(msg_type, content)`` ready to be published on iopub in order.
Each answer is text first; what has links or a table is HTML as well. Everything that is not ours is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from ...errors import RTCError, SetupError
from ...excerpts import parts_of, say_missing, to_text
from ...notebook import BlobOf, resolve, size_text
from ...tables import Execution, ExecutionState, Json, Kernel, Output, Request
from .magics import PREFIX_SHOWN, UsageError, usage

Published = tuple[str, Json]
"""``(msg_type, content)`` of one iopub message."""

_CODE_CHARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A link that was just made.

    Attributes:
        url: of the side socket itself; with the token, as ``proxied_url`` is.
        proxied_url: through a Jupyter server, an address, or a path there where its name is not known; null: no such
            server is known.
        is_proxy_sure: that server is known to pass requests on.
        expires_at: POSIX seconds; null: until it is withdrawn.
    """

    name: str
    role: str
    url: str
    proxied_url: str | None = None
    is_proxy_sure: bool = True
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A link in force, without its token."""

    name: str
    role: str
    created_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Somebody who follows.

    Attributes:
        name: of the link; over a comm what it says of itself.
        way: ``websocket`` | ``comm``.
        since: POSIX seconds.
    """

    name: str
    role: str
    way: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayFacts:
    """A relay at which the kernel is published. ``state``, ``trouble`` and the rest as in
    :class:`rtc_kernel.agent.serve.publish.Standing`."""

    name: str
    link: str
    role: str
    state: str
    since: float | None
    behind_messages: int
    behind_bytes: int
    behind_s: float
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFacts:
    """What ``%rtc status`` says.

    Attributes:
        health: ``ok`` | ``degraded``, with its ``reason``.
        url: of the side socket, without a token.
        store: path of the history; null: in memory only.
        reached: how the relay reaches the kernel, where it is not as it was wanted.
    """

    kernel: Kernel
    version: str
    health: str
    reason: str
    url: str
    store: str | None
    executions_count: int
    running_count: int
    queued_count: int
    peers_count: int
    links_count: int
    relays: Sequence[RelayFacts] = ()
    reached: str = ""


# --- answers ------------------------------------------------------------------------------------------------


def render_status(facts: StatusFacts, now: float) -> list[Published]:
    """What is recorded here, and who may follow."""
    kernel = facts.kernel
    since = f", for {duration_text(now - kernel.started_at)}" if kernel.started_at is not None else ""
    restarts = f", restarted {_times(kernel.generation)}" if kernel.generation else ""
    recorded = f"{_count(facts.executions_count, 'execution')}, {facts.running_count} running"
    recorded += f", {facts.queued_count} queued"
    rows = [
        ("kernel", f"{kernel.display_name or kernel.name or kernel.id}: {kernel.state.value}{since}{restarts}"),
        *([("reached", facts.reached)] if facts.reached else []),
        ("health", facts.health if facts.health == "ok" else f"{facts.health}: {facts.reason}"),
        ("history", f"{recorded}; {facts.store or 'kept in memory only'}"),
        ("sharing", f"{_count(facts.links_count, 'link')}, {_count(facts.peers_count, 'peer')}; {facts.url}"),
        *(("relay" if not at else "", _relay_text(relay, now)) for at, relay in enumerate(facts.relays)),
        ("version", f"rtc_kernel {facts.version}"),
    ]
    if not facts.links_count:
        rows.append(("", "`%rtc share` makes a link, `%rtc help` lists all commands"))
    text = "\n".join(f"{name:<8} {value}".rstrip() for name, value in rows)
    return [_display(text, _table([], [[escape(name), escape(value)] for name, value in rows]))]


def _relay_text(relay: RelayFacts, now: float) -> str:
    connected = "" if relay.since is None else f", connected for {duration_text(now - relay.since)}"
    behind = ""
    if relay.behind_messages:
        behind = f", behind by {_count(relay.behind_messages, 'update')} ({size_text(relay.behind_bytes)})"
        behind += f", {duration_text(relay.behind_s)}"
    why = f" ({relay.trouble})" if relay.trouble else ""
    role = "" if relay.role == "view" else f" ({relay.role})"
    return f"{relay.name}{role}: {relay.state}{connected}{behind}{why}; {relay.link}"


def render_publish(relay: RelayFacts) -> list[Published]:
    """Where the kernel is published now, how one follows it there, and how that is ended."""
    who = "Who may follow it there, and run code in it, the relay says."
    if relay.role == "view":
        who = "Who may follow it there, the relay says."
    what = f"This kernel is published at {relay.link} as long as it lives. {who}"
    follow, end = f"jupyter rtc watch {relay.link}", f"%rtc unshare {_quote(relay.name)}"
    text = f"{what}\nfollow it: {follow}\nend it: {end}"
    html = (
        f"<p>{escape(what)}</p><p>follow it: <code>{escape(follow)}</code></p><p>end it: <code>{escape(end)}</code></p>"
    )
    return [_display(text, html)]


def render_share(link: Link, now: float) -> list[Published]:
    """A link, to click and to copy, and how to withdraw it."""
    may = {"view": "can watch", "run": "can watch, run code, interrupt and restart"}.get(link.role, link.role)
    until = "until it is withdrawn" if link.expires_at is None else f"for {duration_text(link.expires_at - now)}"
    proxied = link.proxied_url or ""
    reaches_far = link.is_proxy_sure and proxied.startswith(("http://", "https://"))
    who = "Whoever has this link and may use this server" if reaches_far else "Whoever has this link"
    what = f"{who} {may}, {until}."
    withdraw = f"%rtc unshare {_quote(link.name)}"
    ways = [("", link.url)]
    if reaches_far:
        ways = [("", proxied), ("directly: ", link.url)]
    elif proxied:
        where = "through the server" if link.is_proxy_sure else "through the server, if it has jupyter-server-proxy"
        ways.append((f"{where}: ", proxied))
    text = "\n".join([what, *(f"{name}{url}" for name, url in ways), ""])
    html = f"<p>{escape(what)}</p>" + "".join(f"<p>{name}{_anchor(url)}</p>" for name, url in ways)
    text += f"withdraw it: {withdraw}"
    html += f"<p>withdraw it: <code>{escape(withdraw)}</code></p>"
    return [_display(text, html)]


def render_unshare(names: Sequence[str], closed_count: int, relays: Sequence[str] = ()) -> list[Published]:
    """Which links were withdrawn, how many peers were cut off by it, and at which relays it is published no more."""
    if not names and not relays:
        return _stream("No link is in force.")
    lines = [f"Withdrawn: {', '.join(names)}. {_count(closed_count, 'peer')} cut off."] if names else []
    lines += [f"Published no more: {', '.join(relays)}. Whoever has a copy keeps it."] if relays else []
    return _stream("\n".join(lines))


def render_who(
    peers: Sequence[Peer], links: Sequence[Grant], now: float, relays: Sequence[RelayFacts] = ()
) -> list[Published]:
    """Who follows now, which links there are, and the relays: who follows there, they know."""
    followers = [[peer.name, peer.role, peer.way, f"for {duration_text(now - peer.since)}"] for peer in peers]
    grants = [
        [
            link.name,
            link.role,
            "never ends" if link.expires_at is None else f"ends in {duration_text(link.expires_at - now)}",
            # over a comm a name is what somebody says of himself
            _count(sum(peer.name == link.name and peer.way != "comm" for peer in peers), "peer"),
        ]
        for link in links
    ]
    parts = [("Following now:", followers, "nobody"), ("Links:", grants, "none")]
    if relays:
        parts.append(("Published at:", [[relay.name, relay.role, relay.state, relay.link] for relay in relays], ""))
    text = "\n".join(line for title, rows, none in parts for line in _section(title, rows, none))
    html = "".join(
        f"<p>{title}</p>{_table([], [[escape(value) for value in row] for row in rows]) if rows else f'<p>{none}</p>'}"
        for title, rows, none in parts
    )
    return [_display(text, html)]


_QUEUE_HEAD = ["id", "state", "by", "since", "what", "why"]


def render_queue(requests: Sequence[Request], now: float) -> list[Published]:
    """What was asked for and not sent, in order; and what may be done about it."""
    if not requests:
        return _stream("Nothing waits and nothing is held.")
    rows = [
        [
            one.id[:PREFIX_SHOWN],
            one.state.value,
            one.by,
            when_text(one.received_at, now),
            first_line(str(one.columns.get("code", ""))) if one.action == "execute" else one.action,
            one.reason or "",
        ]
        for one in requests
    ]
    note = "%rtc queue --release ID lets a held one run, --cancel ID takes one back; all for all"
    html = _table(_QUEUE_HEAD, [[escape(value) for value in row] for row in rows])
    return [_display("\n".join([*_align([_QUEUE_HEAD, *rows]), note]), f"{html}<p>{escape(note)}</p>")]


def render_queued(done: str, requests_count: int) -> list[Published]:
    """How many requests were released or taken back. ``done``: the word for it."""
    return _stream(f"{done}: {_count(requests_count, 'request')}.")


_HISTORY_HEAD = ["seq", "id", "count", "state", "when", "took", "by", "code"]


def render_history(executions: Sequence[Execution], now: float, *, more: bool = False) -> list[Published]:
    """A table of executions, the newest last.

    Args:
        executions: in any order.
        more: there are older ones that match.
    """
    if not executions:
        return _stream("No execution matches.")
    rows = [_history_row(run, now) for run in sorted(executions, key=lambda run: run.seq)]
    shown = Counter(row[1] for row in rows)
    for row in rows:  # one client's ids may all begin alike; then only the number tells them apart
        row[1] = row[1] if shown[row[1]] == 1 else ""
    lines = _align([_HISTORY_HEAD, *rows])
    note = "older ones: -n N shows more" if more else "%rtc show ID shows outputs again"
    html = _table(_HISTORY_HEAD, [[*map(escape, row[:-1]), f"<code>{escape(row[-1])}</code>"] for row in rows])
    return [_display("\n".join([*lines, note]), f"{html}<p>{escape(note)}</p>")]


def _history_row(run: Execution, now: float) -> list[str]:
    took = ""
    if run.started_at is not None:
        took = duration_text((now if run.finished_at is None else run.finished_at) - run.started_at)
    count = "" if run.execution_count is None else f"[{run.execution_count}]"
    when = run.started_at if run.started_at is not None else run.queued_at
    code = "(private)" if run.private else first_line(run.code)
    shown = run.id[:PREFIX_SHOWN]
    return [f"#{run.seq}", shown, count, run.state.value, when_text(when, now), took, run.submitted_by, code]


def render_show(
    execution: Execution | None, blob: BlobOf, now: float, *, key: str = "", header: bool = True
) -> list[Published]:
    """An execution's recorded outputs, in order, as the messages that made them.

    Args:
        execution: None: nothing, or more than one, has the name ``key``.
        blob: resolves references to large values.
        header: begin with a line that says which execution it is.
    """
    if execution is None:
        return render_error(
            UsageError(
                f"no one execution is called {key!r}; %rtc history lists them, more characters may tell them apart"
            )
        )
    out: list[Published] = []
    if header:
        seq, _, count, state, when, took, by, code = _history_row(execution, now)
        parts = [seq, count, state, when, f"took {took}" if took else "", f"by {by}" if by else "", code]
        line = "  ".join(part for part in parts if part)
        out.append(_display(line, f"<p><code>{escape(line)}</code></p>"))
    shown = [_message(output, blob, execution.id) for output in execution.outputs]
    if execution.omitted_outputs:
        shown[len(shown) // 2 : len(shown) // 2] = _stream(say_missing(execution.omitted_outputs, execution.id) + "\n")
    if execution.input is not None:
        shown.append(_display(f"(waiting for input: {execution.input.get('prompt', '')})"))
    if not shown:
        why = "was private" if execution.private else "has no outputs"
        yet = " yet" if execution.state in (ExecutionState.QUEUED, ExecutionState.RUNNING) else ""
        shown = _stream(f"(this execution {why}{yet})")
    return out + shown


def _message(output: Output, blob: BlobOf, execution: str) -> Published:
    match output.output_type:
        case "stream":
            return "stream", {"name": output.name or "stdout", "text": to_text(parts_of(output), execution)}
        case "error":
            return "error", {
                "ename": output.ename or "",
                "evalue": output.evalue or "",
                "traceback": list(output.traceback or ()),
            }
        case _:  # a result is shown as a display: its count is another cell's
            content = {
                "data": resolve(output.data or {}, blob),
                "metadata": dict(output.metadata or {}),
                "transient": {},
            }
            return "display_data", content


def render_private() -> list[Published]:
    """Nothing: the cell's own outputs follow, and saying so would be an output of its own."""
    return []


def render_export(path: str, executions_count: int, size_bytes: int) -> list[Published]:
    """What was written, and where."""
    return _stream(f"Wrote {path}: {_count(executions_count, 'execution')}, {size_text(size_bytes)}.")


def render_clear(executions_count: int) -> list[Published]:
    """How many executions were forgotten."""
    return _stream(f"Forgot {_count(executions_count, 'finished execution')}. What runs or waits stays.")


def render_help(command: str | None = None) -> list[Published]:
    """How ``%rtc``, or one of its commands, is used."""
    return _stream(usage(command))


def render_error(error: RTCError) -> list[Published]:
    """An error as the cell shows it: one line, no stack."""
    content = error_content(error)
    return [("error", content)]


def error_content(error: RTCError) -> Json:
    """``ename``, ``evalue`` and ``traceback`` of an error, for the message and the reply."""
    name = "SetupError" if isinstance(error, SetupError) else type(error).__name__
    text = str(error)
    return {"ename": name, "evalue": text, "traceback": [f"%rtc: {text}"]}


# --- words --------------------------------------------------------------------------------------------------


def duration_text(seconds: float) -> str:
    """``0.12 s``, ``3.4 s``, ``5 min 6 s``, ``7 h 8 min``, ``9 d 10 h``; nothing is shorter than 0."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, below_s, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // below_s
            return f"{whole // unit_s} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def when_text(at: float | None, now: float) -> str:
    """``12 s ago`` within a minute, ``5 min ago``, ``3 h ago`` within a day, else the date (UTC)."""
    if at is None:
        return ""
    ago = max(0.0, now - at)
    if ago < 60:
        return f"{ago:.0f} s ago"
    if ago < 3600:
        return f"{ago // 60:.0f} min ago"
    if ago < 86400:
        return f"{ago // 3600:.0f} h ago"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def first_line(code: str, chars: int = _CODE_CHARS) -> str:
    """The first line of code that says something, cut to ``chars``; ``…`` where there is more."""
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    if not lines:
        return ""
    line = "".join(char if char.isprintable() else " " for char in lines[0])
    cut = line[: chars - 1]
    return cut + "…" if len(line) > chars else line + (" …" if len(lines) > 1 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _quote(name: str) -> str:
    return f'"{name}"' if not name or any(char.isspace() or char in "'#" for char in name) else name


def _section(title: str, rows: Sequence[Sequence[str]], none: str) -> list[str]:
    return [title, *(f"  {line}" for line in (_align(rows) or [none]))]


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pad: Callable[[str, int], str] = str.ljust
    return ["  ".join(pad(value, width) for value, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """``rows``: escaped HTML."""
    style = ' style="text-align:left"'
    names = "".join(f"<th{style}>{escape(name)}</th>" for name in head)
    top = f"<thead><tr>{names}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td{style}>{value}</td>' for value in row)}</tr>" for row in rows)
    return f"<table>{top}<tbody>{body}</tbody></table>"


def _anchor(url: str) -> str:
    safe = escape(url)
    if not url.startswith(("http://", "https://")):
        return safe
    return f'<a href="{safe}" target="_blank" rel="noopener noreferrer">{safe}</a>'


def _display(text: str, html: str | None = None) -> Published:
    data = {"text/plain": text} if html is None else {"text/plain": text, "text/html": html}
    return "display_data", {"data": data, "metadata": {}, "transient": {}}


def _stream(text: str) -> list[Published]:
    return [("stream", {"name": "stdout", "text": text + "\n"})]
