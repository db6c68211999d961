"""What can be written behind ``jupyter rtc``? Every command with its arguments, and nothing of what they do.

Cheap to import: a command's own module is loaded when it is run (:func:`load`).
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from datetime import time as time_of_day
from importlib import import_module
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import RTCKernel
from ..tables import ExecutionState

Commands = argparse._SubParsersAction  # the only name that argparse has for it

Command = Callable[[argparse.Namespace, RTCKernel], int]

NAME_CHARS = 56
"""Of a name for a link: a number may be put behind it."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Command(argparse.ArgumentParser):
    """One command. ``intermixed``: options may stand between its arguments too. Elsewhere argparse takes the first of
    two for the second when an option follows and the first may be left out. A time such as ``-10m`` is no option."""

    intermixed = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._negative_number_matcher = re.compile(r"^-\d+(\.\d*)?[smhd]?$|^-\.\d+$")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if not self.intermixed:
            return super().parse_known_args(args, namespace)
        self.intermixed = False  # what is called here calls this again
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.intermixed = True


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="jupyter rtc",
        description="RTC kernels: every execution in one live document.",
        epilog="KERNEL is an id, the beginning of one, or a connection file; it may be left out where one lives.",
    )
    top.add_argument("--version", action="version", version=__version__)
    top.add_argument("--help-all", action="store_true", help="show every setting, and exit")
    top.set_defaults(command=None)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Command)
    for add in (
        _add_running,
        _add_kernels,
        _add_attaching,
        _add_watching,
        _add_executing,
        _add_acting,
        _add_offering,
        _add_histories,
        _add_times,
        _add_specs,
    ):
        add(commands)
    return top


def load(command: str) -> Command:
    """The function of ``module:function`` in this package."""
    module, _, name = command.partition(":")
    function: Command = getattr(import_module(f".{module}", __package__), name)
    return function


def _add_running(commands: Commands[_Command]) -> None:
    command = commands.add_parser(
        "run",
        help="run a notebook headless, with a link to watch it live",
        description="Run a notebook's cells in order. Exit code 1: a cell failed; 2: nothing could be run.",
    )
    command.add_argument("notebook", metavar="NOTEBOOK", type=Path)
    command.add_argument("-o", "--output", metavar="OUT", help="write the notebook with its outputs; - for stdout")
    command.add_argument("--kernel", metavar="NAME", help="kernelspec (default: the notebook's own)")
    command.add_argument("--timeout", metavar="S", type=_seconds, help="seconds that a cell may take (default: any)")
    command.add_argument("--allow-errors", action="store_true", help="go on behind a cell that fails")
    command.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="assign a parameter behind the cell tagged `parameters`; VALUE is JSON, or text",
    )
    command.add_argument("--share", choices=("view", "run"), default="view", help="what the live link may do")
    command.add_argument("--relay", metavar="URL", help="publish it at this relay, too (ws:// or wss://)")
    command.add_argument("--room", metavar="ROOM", help="the room at the relays (default: the kernel's id)")
    command.add_argument(
        "--linger",
        metavar="TIME",
        type=_duration,
        default=0.0,
        help="so long the link stays when all has run: 10m",
    )
    command.add_argument("--json", action="store_true", help="tell each event as a JSON object on stdout")
    command.set_defaults(command="running:run_notebook")


def _add_kernels(commands: Commands[_Command]) -> None:
    command = commands.add_parser("list", help="the RTC kernels that live on this machine")
    _add_json(command)
    command.set_defaults(command="kernels:list_kernels")
    command = commands.add_parser("status", help="how a kernel and its document are")
    _add_kernel(command)
    _add_json(command)
    command.set_defaults(command="kernels:show_status")
    command = commands.add_parser("share", help="make a link to a kernel's document")
    _add_kernel(command)
    command.add_argument("--role", choices=("view", "run"), default="view", help="what the link may do")
    command.add_argument("--name", default="", help="of the link, to withdraw it by")
    command.add_argument("--expires", metavar="TIME", type=_duration, help="such as 30m, 2h or 7d")
    _add_json(command)
    command.set_defaults(command="kernels:share")
    command = commands.add_parser("unshare", help="withdraw a link; without a NAME the only one there is")
    command.add_argument("name", nargs="?", metavar="NAME")
    command.add_argument("--all", action="store_true", help="withdraw all of them")
    command.add_argument("--kernel", metavar="KERNEL")
    _add_json(command)
    command.set_defaults(command="kernels:unshare")


def _add_attaching(commands: Commands[_Command]) -> None:
    command = commands.add_parser(
        "attach",
        help="follow a kernel that somebody else has started",
        description="Follow a kernel that runs already, whoever started it: what it publishes from now on is in a live "
        "document and a history. What it is asked by others and replies to them is not seen.",
    )
    command.add_argument(
        "kernel",
        nargs="?",
        metavar="KERNEL|FILE",
        help="its id, the beginning of one, or a connection file (default: the only kernel that runs)",
    )
    command.add_argument("--share", action="store_true", help="print a link to its document")
    command.add_argument("--role", choices=("view", "run"), default="view", help="what that link may do")
    command.add_argument("--detach", action="store_true", help="go on in the background, until `jupyter rtc detach`")
    command.add_argument("--timeout", metavar="S", type=_seconds, help="seconds that its answer may take (default: 5)")
    command.add_argument("--json", action="store_true", help="tell each event as a JSON object on stdout")
    command.set_defaults(command="attaching:attach")
    command = commands.add_parser("detach", help="follow a kernel no more that was attached to; it goes on")
    _add_kernel(command)
    _add_json(command)
    command.set_defaults(command="attaching:detach")


def _add_watching(commands: Commands[_Command]) -> None:
    command = commands.add_parser("watch", help="follow a kernel live in the terminal")
    _add_target(command)
    command.add_argument("--once", action="store_true", help="show what there is, and exit")
    command.add_argument("--json", action="store_true", help="one JSON object per change (--once: per execution)")
    command.set_defaults(command="watching:watch")
    command = commands.add_parser("view", help="open a room at a relay in a browser, with a page served from here")
    command.add_argument("target", metavar="URL", help="ws[s]://HOST/ROOM")
    command.add_argument("--token", help="instead of the URL's own, or RTC_KERNEL_RELAY_TOKEN")
    command.add_argument("--no-browser", dest="browser", action="store_false", help="print the address, open nothing")
    command.add_argument("--port", metavar="N", type=int, default=0, help="of the page on this machine (default: any)")
    _add_json(command)
    command.set_defaults(command="viewing:view")


def _add_executing(commands: Commands[_Command]) -> None:
    command = commands.add_parser(
        "exec",
        help="run code on a kernel that lives, as everybody sees it",
        description="Run code. Exit code 0: it ended ok; 1: it failed; 3: it did not run; 4: nobody knows how it "
        "ended; 124: the time was up.",
    )
    command.intermixed = True
    _add_target(command)
    command.add_argument("code", metavar="CODE", help="what to run; - reads it from stdin")
    command.add_argument("--cell", metavar="ID", help="the cell that it is a run of")
    command.add_argument("--queue", action="store_true", help="run it again where the same cell waits or runs already")
    command.add_argument("--after", metavar="ID", help="not before this request has ended")
    command.add_argument(
        "--stop-on-error", action="store_true", help="when it fails, take back what was asked for with the same link"
    )
    command.add_argument("--silent", action="store_true", help="leave no execution behind, and show no output")
    command.add_argument("--no-input", action="store_true", help="code that asks for input fails")
    command.add_argument("--timeout", metavar="S", type=_seconds, help="seconds until it is interrupted (default: any)")
    command.add_argument("--json", action="store_true", help="tell each event as a JSON object on stdout")
    command.set_defaults(command="executing:execute")


def _add_acting(commands: Commands[_Command]) -> None:
    command = commands.add_parser("interrupt", help="interrupt what a kernel runs")
    _add_target(command)
    command.add_argument("--execution", metavar="ID", help="only if this one runs: its id or number, such as 12")
    _add_json(command)
    command.set_defaults(command="acting:interrupt")
    command = commands.add_parser("restart", help="restart a kernel; what waits is held")
    _add_target(command)
    _add_json(command)
    command.set_defaults(command="acting:restart")
    command = commands.add_parser("queue", help="what runs on a kernel, waits or is held")
    _add_target(command)
    what = command.add_mutually_exclusive_group()
    what.add_argument("--release", metavar="ID|all", help="let a held request run, or all of them")
    what.add_argument("--cancel", metavar="ID|all", help="take back a request that was not sent, or all of them")
    _add_json(command)
    command.set_defaults(command="acting:queue")


def _add_offering(commands: Commands[_Command]) -> None:
    command = commands.add_parser(
        "mcp",
        help="offer kernels to an agent program (Model Context Protocol, stdio)",
        description="Offer the kernels of this machine, or one, as tools to a program that speaks the Model Context "
        "Protocol: it is started by that program, and speaks with it over stdin and stdout.",
    )
    _add_target(command)
    command.add_argument(
        "--name", metavar="NAME", type=_name, help="under which people see it (default: what the program calls itself)"
    )
    command.add_argument("--role", choices=("view", "run"), default="run", help="view: only tools that look")
    command.add_argument("--allow-restart", action="store_true", help="offer a tool that restarts a kernel, too")
    command.set_defaults(command="offering:offer")


def _add_histories(commands: Commands[_Command]) -> None:
    command = commands.add_parser("history", help="what ran, also on kernels that are dead")
    which = command.add_mutually_exclusive_group()
    which.add_argument("kernel", nargs="?", metavar="KERNEL")
    which.add_argument("--notebook", metavar="PATH", help="of all kernels of this notebook")
    which.add_argument("--all", action="store_true", help="of all kernels whose history is kept")
    command.add_argument("-n", type=_count, default=20, metavar="N", help="the last N (default: 20)")
    command.add_argument("--grep", metavar="RE", help="whose code or text matches this regular expression")
    command.add_argument("--state", choices=[state.value for state in ExecutionState])
    command.add_argument("--json", action="store_true", help="tell as JSON, with outputs")
    command.set_defaults(command="histories:show_history")
    command = commands.add_parser("show", help="one execution, with its outputs")
    command.add_argument("id", metavar="ID", help="its id, the beginning of it, or its number, such as 12")
    command.add_argument("kernel", nargs="?", metavar="KERNEL")
    command.add_argument("--json", action="store_true", help="tell as JSON")
    command.set_defaults(command="histories:show_execution")
    command = commands.add_parser(
        "prune",
        help="take the oldest executions out of histories",
        description="Bring the histories of dead kernels within limits; without any of them those of the settings. "
        "A history that is left without executions is removed.",
    )
    which = command.add_mutually_exclusive_group()
    which.add_argument("kernel", nargs="?", metavar="KERNEL", help="only this one, dead or alive")
    which.add_argument("--all", action="store_true", help="those of kernels that live too")
    command.add_argument("--dry-run", action="store_true", help="show what would go, and take nothing away")
    command.add_argument(
        "--older-than", metavar="TIME", type=_duration, help="what finished so long ago goes, such as 12h or 30d"
    )
    command.add_argument("--keep", metavar="N", type=_count, help="the newest N executions of each kernel stay")
    command.add_argument("--max-size", metavar="SIZE", type=_size, help="of each history, such as 500MB or 1GB")
    _add_json(command)
    command.set_defaults(command="pruning:prune")
    command = commands.add_parser("export", help="the history of a kernel as a notebook")
    command.add_argument("file", metavar="FILE.ipynb", help="- for stdout")
    command.add_argument("kernel", nargs="?", metavar="KERNEL")
    command.add_argument("--at", metavar="TIME", type=_moment, help="as it was then, such as 14:03, -10m or ISO 8601")
    command.add_argument("--force", action="store_true", help="replace FILE where it exists")
    command.set_defaults(command="histories:export")


def _add_times(commands: Commands[_Command]) -> None:
    command = commands.add_parser(
        "replay",
        help="show a recorded run again, as it went",
        description="Show recorded executions again in the terminal, in the time that they took. Ctrl-C ends it.",
    )
    command.add_argument("id", metavar="ID", help="an execution, by id or number; numbers such as 3-12 or 3-; all")
    command.add_argument("kernel", nargs="?", metavar="KERNEL|URL|FILE")
    command.add_argument("--speed", metavar="X", type=_speed, default=1.0, help="so many times as fast; 0: at once")
    command.add_argument("--max-pause", metavar="S", type=_seconds, help="no pause is longer than so many seconds")
    command.set_defaults(command="replaying:replay")
    command = commands.add_parser(
        "rerun",
        help="run a recorded history on a fresh kernel, and compare the outputs",
        description="Run what a history has on a fresh kernel, in the order in which it began. Exit code 0: no output "
        "differs; 1: some do, or it could not be run to its end.",
    )
    command.add_argument("kernel", nargs="?", metavar="KERNEL|URL|FILE")
    command.add_argument("--kernel", dest="spec", metavar="NAME", help="kernelspec (default: the recorded one)")
    command.add_argument("--from", dest="first", metavar="ID", help="the first execution to run, by id or number")
    command.add_argument("--to", dest="last", metavar="ID", help="the last execution to run")
    command.add_argument("--stop-on-error", action="store_true", help="end where one fails that had not failed")
    command.add_argument(
        "--timeout", metavar="S", type=_seconds, help="seconds for each (default: ten times what it took, and 60)"
    )
    _add_json(command)
    command.set_defaults(command="rerunning:rerun")


def _add_specs(commands: Commands[_Command]) -> None:
    command = commands.add_parser(
        "install",
        help="wrap an installed kernel, or install RTC Python again",
        description="Without --kernel: (re)install RTC Python. With it: wrap that kernelspec as rtc-NAME.",
    )
    command.add_argument("--kernel", metavar="NAME", help="the installed kernelspec to wrap")
    command.add_argument("--name", metavar="N", help="of the new kernelspec (default: rtc-NAME)")
    command.add_argument("--display-name", metavar="D", help="what frontends show (default: RTC and the kernel's)")
    _add_place(command)
    command.set_defaults(command="specs:install_spec")
    command = commands.add_parser("uninstall", help="remove a kernelspec of ours")
    command.add_argument("name", metavar="NAME", help="rtc-NAME, or the NAME of the wrapped kernel")
    _add_place(command)
    command.set_defaults(command="specs:uninstall_spec")


def _add_kernel(command: argparse.ArgumentParser) -> None:
    command.add_argument("kernel", nargs="?", metavar="KERNEL")


def _add_target(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", nargs="?", metavar="KERNEL|URL")
    command.add_argument("--token", help="instead of the URL's own")


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="tell as JSON")


def _add_place(command: argparse.ArgumentParser) -> None:
    places = command.add_mutually_exclusive_group()
    places.add_argument("--user", action="store_true", help="in the user's Jupyter data directory")
    places.add_argument("--sys-prefix", action="store_true", help="in this Python environment (install: default)")
    places.add_argument("--prefix", metavar="P", help="in P/share/jupyter/kernels")
    command.add_argument("--json", action="store_true", help="tell as JSON")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds above 0")
    return value


def _name(text: str) -> str:
    if not (text.strip() and text.isprintable() and len(text) <= NAME_CHARS):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: give at most {NAME_CHARS} printable characters")
    return text.strip()


def _speed(text: str) -> float:
    """A factor; infinity: at once."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no speed: give a number, such as 4 or 0.5; 0 for at once")
    return value or math.inf


def _moment(text: str) -> float:
    """A point in time as POSIX seconds."""
    found = read_moment(text, time.time())
    if found is None:
        ways = "2026-11-21T14:03:05Z, 14:03, -10m or seconds since 1970"
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give one such as {ways}")
    return found


def read_moment(text: str, now: float) -> float | None:
    """``-10m`` (ago), ``14:03[:05]`` (today), ISO 8601 (local time where no zone is given), seconds since 1970."""
    found = math.nan
    with suppress(ValueError, OverflowError, OSError):
        if match := re.fullmatch(r"-(\d+(?:\.\d+)?)([smhd])", text, re.ASCII):
            found = now - float(match[1]) * _UNITS_S[match[2]]
        elif re.fullmatch(r"\d{9,}(?:\.\d+)?", text, re.ASCII):
            found = float(text)
        elif re.match(r"\d\d?:", text, re.ASCII):
            clock = time_of_day.fromisoformat(f"0{text}" if text[1] == ":" else text)
            found = datetime.combine(datetime.fromtimestamp(now), clock).timestamp()
        else:
            found = datetime.fromisoformat(text).timestamp()
    return found if 0 <= found < _YEAR_10000 else None


_YEAR_10000 = 253_402_300_800.0


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no count: give a number from 1")
    return int(text)


def _size(text: str) -> int:
    """``500MB``, ``1.5GB``, ``2GiB``, ``4096`` as bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:([KMGT])(i?)B?|B)?", text, re.ASCII | re.IGNORECASE)
    power = "KMGT".index(match[2].upper()) + 1 if match and match[2] else 0
    size = int(float(match[1]) * (1024 if match[3] else 1000) ** power) if match else 0
    if not size:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give a number and a unit, such as 500MB or 1GB")
    return size


def _duration(text: str) -> float:
    """``30s``, ``10m``, ``2h``, ``7d`` as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give a number and a unit, such as 30m, 2h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]
