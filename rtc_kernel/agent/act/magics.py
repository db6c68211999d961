"""What does a ``%rtc`` line ask for, and how is it written?

Pure: text in, one :data:`Command` out, or a :class:`UsageError` that names the wrong word and what is possible.
One table, :data:`COMMANDS`, has every word; parsing, help, completion and inspection are made from it.
:mod:`.answers` has what is shown.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import RTCError
from ...tables import ExecutionState

HISTORY_COUNT = 20
"""Rows of ``%rtc history`` unless told."""

HISTORY_COUNT_MAX = 500

PREFIX_SHOWN = 8
"""Characters of an id in `%rtc history`."""

EXPIRES_S_MAX = 366 * 86400.0
"""A link that ends at all ends within so many seconds."""

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class UsageError(RTCError):
    """A wrong ``%rtc`` line. ``message``: one or two short sentences for whoever wrote it."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


# --- commands -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status:
    """What is recorded, and who may follow."""


@dataclass(frozen=True, slots=True)
class Share:
    """Make a link, or publish at a relay. ``name`` None: choose a free one; ``expires_s`` None: until it is withdrawn;
    ``relay``: a WebSocket's URL, ``room`` the room there, None: the kernel's id."""

    role: str = "view"
    name: str | None = None
    expires_s: float | None = None
    relay: str | None = None
    room: str | None = None


@dataclass(frozen=True, slots=True)
class Unshare:
    """Withdraw a link by its name, or all of them. Neither: the only one there is."""

    name: str | None = None
    all: bool = False


@dataclass(frozen=True, slots=True)
class Who:
    """Who follows now, and which links there are."""


@dataclass(frozen=True, slots=True)
class History:
    """The newest executions. ``grep``: a valid regular expression."""

    limit: int = HISTORY_COUNT
    grep: str | None = None
    state: ExecutionState | None = None


@dataclass(frozen=True, slots=True)
class Show:
    """Show an execution's outputs again. ``execution``: an id, the beginning of one, or ``#seq``."""

    execution: str


@dataclass(frozen=True, slots=True)
class Private:
    """This cell runs, and is recorded without code and outputs."""


@dataclass(frozen=True, slots=True)
class Export:
    """Write the history as a notebook. ``force``: over a file that is there."""

    path: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Clear:
    """Forget the finished executions."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What peers have asked for and was not sent. ``release``, ``cancel``: an id, the beginning of one, or ``all``."""

    release: str | None = None
    cancel: str | None = None


@dataclass(frozen=True, slots=True)
class Help:
    """Say how it is used. ``command`` None: all commands."""

    command: str | None = None


Command = Status | Share | Unshare | Who | Queue | History | Show | Private | Export | Clear | Help


# --- the table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``value``: how its value is called in the help, empty for a switch; ``choices``: all it may be;
    ``read``: text to value, ValueError with what is right."""

    value: str
    help: str
    field: str
    choices: tuple[str, ...] = ()
    read: Callable[[str], Any] = str


@dataclass(frozen=True, slots=True)
class Spec:
    """One command: how it is made, its words in the help, its options, and its argument (``[X]``: may be left out)."""

    make: Callable[..., Command]
    help: str
    options: Mapping[str, Option] = field(default_factory=dict)
    argument: str = ""
    argument_field: str = ""

    @property
    def requires_argument(self) -> bool:
        """Whether the argument must be there."""
        return bool(self.argument) and not self.argument.startswith("[")


def _read_duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise ValueError("a number and a unit, such as 30s, 10m, 2h, 7d")
    seconds = float(match[1]) * _UNITS_S[match[2]]
    if not 1 <= seconds <= EXPIRES_S_MAX:
        raise ValueError("from 1s to 366d")
    return seconds


def _read_count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= HISTORY_COUNT_MAX):
        raise ValueError(f"a number from 1 to {HISTORY_COUNT_MAX}")
    return int(text)


def _read_pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as exc:
        raise ValueError(f"a regular expression ({exc})") from exc
    return text


def _read_path(text: str) -> str:
    if not text.endswith(".ipynb"):
        raise ValueError("a file name that ends in .ipynb")
    return text


_STATES = tuple(state.value for state in ExecutionState)
_ROLE = Option("view|run", "what the bearer may do (default: view)", "role", ("view", "run"))

COMMANDS: Mapping[str, Spec] = {
    "status": Spec(Status, "what is recorded here, and who may follow (also: %rtc alone)"),
    "share": Spec(
        Share,
        "make a link that others can follow this kernel with, or publish it at a relay",
        {
            "--role": _ROLE,
            "--name": Option("NAME", "name of the link (default: a free one, such as view-1)", "name"),
            "--expires": Option(
                "TIME", "how long it holds: 30s, 10m, 2h, 7d (default: until unshare)", "expires_s", (), _read_duration
            ),
            "--relay": Option("URL", "publish at this relay (ws:// or wss://) instead of making a link", "relay"),
            "--room": Option("ROOM", "the room there (default: the kernel's id)", "room"),
        },
    ),
    "unshare": Spec(
        Unshare,
        "withdraw a link, whoever follows by it is cut off; or publish at a relay no more",
        {"--all": Option("", "withdraw every link", "all")},
        "[NAME]",
        "name",
    ),
    "who": Spec(Who, "who follows now, and which links there are"),
    "queue": Spec(
        Queue,
        "what others have asked for that was not sent yet, or is held",
        {
            "--release": Option("ID|all", "let held requests run", "release"),
            "--cancel": Option("ID|all", "take requests back", "cancel"),
        },
    ),
    "history": Spec(
        History,
        "what was run here, newest last",
        {
            "-n": Option("N", f"how many (default: {HISTORY_COUNT})", "limit", (), _read_count),
            "--grep": Option(
                "RE", "only where code or output matches this regular expression", "grep", (), _read_pattern
            ),
            "--state": Option("STATE", "only in this state", "state", _STATES, ExecutionState),
        },
    ),
    "show": Spec(Show, "show an execution's outputs again", {}, "ID", "execution"),
    "private": Spec(Private, "run this cell, but record neither its code nor its outputs"),
    "export": Spec(
        Export,
        "write the history as a notebook",
        {"--force": Option("", "write over a file that is there", "force")},
        "FILE.ipynb",
        "path",
    ),
    "clear": Spec(Clear, "forget every finished execution"),
    "help": Spec(Help, "this text, or how one command is used", {}, "[COMMAND]", "command"),
}


# --- reading a line -----------------------------------------------------------------------------------------


_ASKED = re.compile(r"\?{1,2}(%rtc\b.*?)\??|(%rtc(?:\s+\w+)?)\s*\?{1,2}")
"""A line that asks how it is used; a question mark at the end of more words belongs to the last of them."""


def parse(line: str) -> Command:
    """What a line asks for.

    Args:
        line: one line that begins with ``%rtc``; ``%rtc share?`` and ``?%rtc share`` ask for help. A quoted text is
            one word, a backslash stands for itself, and what follows a bare ``#`` is a comment.

    Raises:
        UsageError: a word that is not known, is missing or does not fit.
    """
    text = line.strip()
    asked = _ASKED.fullmatch(text)
    bare = (asked[1] or asked[2]) if asked else text
    if not re.match(r"%rtc(\s|$)", bare):
        raise UsageError(f"not a %rtc line: {line!r}")
    words = [word for word, _, _ in split(bare.removeprefix("%rtc"))]
    if "#" in words:
        words = words[: words.index("#")]
    if asked:
        return Help(_known(words[0]) if words else None)
    if not words:
        return Status()
    name = _known(words[0])
    spec = COMMANDS[name]
    values = _read_words(name, spec, words[1:])
    if spec.requires_argument and spec.argument_field not in values:
        raise UsageError(f"%rtc {name} needs {spec.argument}: {synopsis(name)}")
    command = spec.make(**values)
    match command:
        case Help(str(topic)):
            _known(topic)
        case Queue(release=str(), cancel=str()):
            raise UsageError("%rtc queue takes --release or --cancel, not both")
        case Share(relay=None, room=str()):
            raise UsageError("%rtc share --room belongs to --relay URL")
        case Share(relay=str(), expires_s=float()):
            raise UsageError("%rtc share --relay has no --expires: it is published until %rtc unshare")
        case Unshare(name=str(), all=True):
            raise UsageError("%rtc unshare takes a name or --all, not both")
        case Export(path):
            try:
                _read_path(path)
            except ValueError as exc:
                raise UsageError(f"{path!r} is not {exc}") from exc
        case _:
            pass
    return command


def _read_words(name: str, spec: Spec, words: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if not flag.startswith("-") or word == "-":
            if not spec.argument:
                raise UsageError(f"%rtc {name} takes no {word!r}: {synopsis(name)}")
            if spec.argument_field in values:
                raise UsageError(f"%rtc {name} takes one {spec.argument.strip('[]')}; {word!r} is one too many")
            values[spec.argument_field] = word
            continue
        if flag not in spec.options and re.fullmatch(r"-n\d+", flag) and "-n" in spec.options:
            flag, equals, value = "-n", "=", flag[2:]
        option = spec.options.get(flag)
        if option is None:
            raise UsageError(f"%rtc {name} has no option {flag!r}. {_possible(flag, list(spec.options))}")
        if option.field in values:
            raise UsageError(f"{flag} is given twice")
        if not option.value:
            if equals:
                raise UsageError(f"{flag} takes no value")
            values[option.field] = True
            continue
        if not equals:
            value = next(rest, "")
        values[option.field] = _read_value(flag, option, value)
    return values


def _read_value(flag: str, option: Option, value: str) -> Any:
    if not value:
        raise UsageError(f"{flag} needs a value: {flag} {'|'.join(option.choices) or option.value}")
    if option.choices and value not in option.choices:
        raise UsageError(f"{flag} cannot be {value!r}. {_possible(value, option.choices)}")
    try:
        return option.read(value)
    except ValueError as exc:
        raise UsageError(f"{flag} cannot be {value!r}: give {exc}") from exc


def _known(name: str) -> str:
    if name in COMMANDS:
        return name
    raise UsageError(f"there is no %rtc {name}. {_possible(name, list(COMMANDS))}")


def _possible(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, words, 1)
    if near:
        return f"Did you mean {near[0]}?"
    return f"Possible: {', '.join(words)}" if words else "It has none."


_WORD = re.compile(r"""(?:"(?:\\"|[^"])*"|'[^']*'|\S)+""")
_QUOTED = re.compile(r""""((?:\\"|[^"])*)"|'([^']*)'""")


def split(text: str) -> list[tuple[str, int, int]]:
    """The words of a text, as ``(word without its quotes, start, end)``. A quote without its partner is a letter."""
    return [(_unquote(match[0]), match.start(), match.end()) for match in _WORD.finditer(text)]


def _unquote(word: str) -> str:
    return _QUOTED.sub(lambda match: match[2] if match[1] is None else match[1].replace('\\"', '"'), word)


# --- help ---------------------------------------------------------------------------------------------------


def synopsis(name: str) -> str:
    """One line: how a command is written."""
    spec = COMMANDS[name]
    options = [f"[{flag} {option.value}]" if option.value else f"[{flag}]" for flag, option in spec.options.items()]
    return " ".join(["%rtc", name, *([spec.argument] if spec.argument else []), *options])


def usage(command: str | None = None) -> str:
    """How ``%rtc``, or one of its commands, is used: plain text of a few lines."""
    if command is None or command not in COMMANDS:
        width = max(len(name) for name in COMMANDS)
        lines = [f"  %rtc {name:<{width}}  {spec.help}" for name, spec in COMMANDS.items()]
        head = "%rtc lines stand at the beginning of a cell and are answered beside the kernel, in any language."
        return "\n".join([head, "", *lines, "", "`%rtc COMMAND?` says more."])
    spec = COMMANDS[command]
    lines = [synopsis(command), "", f"  {spec.help}"]
    if spec.options:
        flags = {f"{flag} {option.value}".strip(): option.help for flag, option in spec.options.items()}
        for flag, option in spec.options.items():
            if option.choices and option.value not in ("|".join(option.choices),):
                flags[f"{flag} {option.value}"] += f": {', '.join(option.choices)}"
        width = max(map(len, flags))
        lines += ["", *(f"  {flag:<{width}}  {text}" for flag, text in flags.items())]
    if command == "show":
        lines += ["", "  ID is an id, the first 4 or more characters of one, or a number of %rtc history"]
    return "\n".join(lines)


# --- completion and inspection ------------------------------------------------------------------------------


def complete(
    code: str,
    cursor_pos: int,
    ids: Sequence[str] = (),
    names: Sequence[str] = (),
    requests: Sequence[str] = (),
) -> tuple[list[str], int, int]:
    """What may stand at the cursor.

    Args:
        code: the cell; ``cursor_pos``: in code points, as in complete_request.
        ids: of executions, newest first, for ``show``.
        names: of links, for ``unshare``.
        requests: that wait or are held, for ``queue``.

    Returns:
        ``(matches, cursor_start, cursor_end)``: each match replaces what is between the two.
    """
    start = code.rfind("\n", 0, cursor_pos) + 1
    line = code[start:cursor_pos]
    bare = line.lstrip(" \t?")
    at = start + len(line) - len(bare)
    if not bare.startswith("%rtc"):
        return [], cursor_pos, cursor_pos
    if bare == "%rtc":
        return ["%rtc"], at, cursor_pos
    words = split(bare.removeprefix("%rtc"))
    at += len("%rtc")
    if words and at + words[-1][2] == cursor_pos:
        *before, (_, word_start, _) = words
        word, begin = code[at + word_start : cursor_pos], at + word_start
    else:
        before, word, begin = words, "", cursor_pos
    given = [text for text, _, _ in before]
    if not given:
        return [name for name in COMMANDS if name.startswith(word)], begin, cursor_pos
    spec = COMMANDS.get(given[0])
    if spec is None:
        return [], cursor_pos, cursor_pos
    flag, equals, value = word.partition("=")
    if equals and flag in spec.options:
        choices = spec.options[flag].choices
        return [one for one in choices if one.startswith(value)], cursor_pos - len(value), cursor_pos
    if given[-1] in spec.options and spec.options[given[-1]].value:
        if given[0] == "queue":
            return [one for one in (*requests, "all") if one.startswith(word)], begin, cursor_pos
        choices = spec.options[given[-1]].choices
        return [one for one in choices if one.startswith(word)], begin, cursor_pos
    possible = [flag for flag in spec.options if flag not in {one.partition("=")[0] for one in given}]
    arguments: Sequence[str] = {"show": ids, "unshare": names, "help": list(COMMANDS)}.get(given[0], ())
    if len([one for one in given if not one.startswith("-")]) > 1:
        arguments = ()
    return [one for one in [*arguments, *possible] if one.startswith(word)], begin, cursor_pos


def inspect(code: str, cursor_pos: int) -> str | None:
    """The help for the line at the cursor; None where it is not a ``%rtc`` line."""
    start = code.rfind("\n", 0, cursor_pos) + 1
    end = code.find("\n", cursor_pos)
    line = code[start : len(code) if end < 0 else end].strip().strip("?").strip()
    if not re.match(r"%rtc(\s|$)", line):
        return None
    words = split(line.removeprefix("%rtc"))
    return usage(words[0][0] if words and words[0][0] in COMMANDS else None)
