"""%rtc lines: what they ask for, what is wrong with them, what completes them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtc_kernel.agent.act.magics import (
    COMMANDS,
    Clear,
    Export,
    Help,
    History,
    Private,
    Share,
    Show,
    Status,
    Unshare,
    UsageError,
    Who,
    complete,
    inspect,
    parse,
    split,
    usage,
)
from rtc_kernel.tables import ExecutionState


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("%rtc", Status()),
        ("  %rtc  ", Status()),
        ("%rtc status # how are we", Status()),
        ("%rtc share", Share()),
        ("%rtc share --role run --name ann --expires 2h", Share("run", "ann", 7200.0)),
        ("%rtc share --expires=30s --role=view", Share("view", None, 30.0)),
        ("%rtc share --name 'Ann and Bob'", Share(name="Ann and Bob")),
        ('%rtc share --name="a \\"b\\""', Share(name='a "b"')),
        ("%rtc share --expires 1.5d", Share(expires_s=129600.0)),
        ("%rtc share --relay wss://h --room r", Share(relay="wss://h", room="r")),
        ("%rtc unshare", Unshare()),
        ("%rtc unshare link-1", Unshare("link-1")),
        ("%rtc unshare --all", Unshare(all=True)),
        ("%rtc who", Who()),
        ("%rtc history", History()),
        ("%rtc history -n5", History(5)),
        ("%rtc history --grep \\d+ -n 5 --state error", History(5, r"\d+", ExecutionState.ERROR)),
        ("%rtc history --grep colou?r?", History(grep="colou?r?")),
        ("%rtc history --grep=a=b", History(grep="a=b")),
        ("%rtc show #12", Show("#12")),
        ("%rtc show 3f2a", Show("3f2a")),
        ("%rtc private", Private()),
        ("%rtc export out.ipynb", Export("out.ipynb")),
        ("%rtc export --force 'my runs.ipynb'", Export("my runs.ipynb", force=True)),
        ("%rtc export C:\\runs\\a.ipynb", Export("C:\\runs\\a.ipynb")),
        ("%rtc clear", Clear()),
        ("%rtc help", Help()),
        ("%rtc help share", Help("share")),
        ("%rtc?", Help()),
        ("?%rtc", Help()),
        ("%rtc share?", Help("share")),
        ("%rtc share ??", Help("share")),
    ],
)
def test_a_line_asks_for_a_command(line: str, command: object) -> None:
    assert parse(line) == command


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%rtc shre", "there is no %rtc shre. Did you mean share?"),
        ("%rtc xyz", "there is no %rtc xyz. Possible: status, share, unshare,"),
        ("%rtc help shre", "Did you mean share?"),
        ("%rtc share --rol run", "%rtc share has no option '--rol'. Did you mean --role?"),
        ("%rtc who --all", "%rtc who has no option '--all'. It has none."),
        ("%rtc share --role", "--role needs a value: --role view|run"),
        ("%rtc share --role own", "--role cannot be 'own'. Possible: view, run"),
        ("%rtc share --role rum", "Did you mean run?"),
        ("%rtc share --role run --role view", "--role is given twice"),
        ("%rtc share --expires 2", "--expires cannot be '2': give a number and a unit, such as 30s, 10m, 2h, 7d"),
        ("%rtc share --expires 999d", "from 1s to 366d"),
        ("%rtc share --room r", "--room belongs to --relay URL"),
        ("%rtc share --relay ws://h --expires 2h", "has no --expires"),
        ("%rtc share me", "%rtc share takes no 'me': %rtc share [--role view|run] [--name NAME] [--expires TIME]"),
        ("%rtc unshare a b", "%rtc unshare takes one NAME; 'b' is one too many"),
        ("%rtc unshare a --all", "not both"),
        ("%rtc unshare --all=yes", "--all takes no value"),
        ("%rtc history -n 0", "-n cannot be '0': give a number from 1 to 500"),
        ("%rtc history --grep (", "--grep cannot be '(': give a regular expression"),
        ("%rtc history --state done", "--state cannot be 'done'. Possible: queued, running,"),
        ("%rtc show", "%rtc show needs ID: %rtc show ID"),
        ("%rtc export", "%rtc export needs FILE.ipynb"),
        ("%rtc export a.txt", "'a.txt' is not a file name that ends in .ipynb"),
        ("%rtcx", "not a %rtc line"),
    ],
)
def test_a_wrong_line_gets_a_short_exact_message(line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line)
    assert message in caught.value.message
    assert len(caught.value.message) < 300


@given(st.text(max_size=80))
def test_any_line_is_a_command_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert parse("%rtc " + text) is not None


@given(st.text(max_size=60), st.integers(-1, 70))
def test_completion_and_inspection_take_any_text(text: str, at: int) -> None:
    code = "%rtc " + text
    cursor = max(0, min(at, len(code)))
    matches, start, end = complete(code, cursor, ["abcd"], ["link-1"])
    assert 0 <= start <= end == cursor or not matches
    inspect(code, cursor)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a 'b c' d", ["a", "b c", "d"]), ("it's", ["it's"]), ('--x="a b"c', ["--x=a bc"]), ("a\\b", ["a\\b"]), ("", [])],
)
def test_words_are_split_as_in_a_shell_but_never_refused(text: str, words: list[str]) -> None:
    assert [word for word, _, _ in split(text)] == words


@pytest.mark.parametrize(
    ("code", "completed"),
    [
        ("%rtc", ["%rtc"]),
        ("%rtc sh|", ["%rtc share", "%rtc show"]),
        ("%rtc share --ro|", ["%rtc share --role", "%rtc share --room"]),
        ("%rtc share --role |", ["%rtc share --role view", "%rtc share --role run"]),
        ("%rtc share --role=r|", ["%rtc share --role=run"]),
        (
            "%rtc share --role run --|",
            [f"%rtc share --role run --{one}" for one in ("name", "expires", "relay", "room")],
        ),
        ("%rtc share --name |", []),
        ("%rtc history --state a|", ["%rtc history --state aborted"]),
        ("%rtc show ab|", ["%rtc show abcd"]),
        ("%rtc unshare |", ["%rtc unshare link-1", "%rtc unshare --all"]),
        ("%rtc help wh|", ["%rtc help who"]),
        ("%rtc nothing |", []),
        ("print(1)\n%rtc wh|\nx = 1", ["print(1)\n%rtc who\nx = 1"]),
        ("print('é')\nx = sh|", []),
    ],
)
def test_completion_knows_commands_options_values_and_ids(code: str, completed: list[str]) -> None:
    cursor = code.find("|") if "|" in code else len(code)
    code = code.replace("|", "")
    matches, start, end = complete(code, cursor, ["abcd", "xyz1"], ["link-1"])
    assert [code[:start] + match + code[end:] for match in matches] == completed


def test_inspection_gives_the_help_of_the_line_at_the_cursor() -> None:
    code = "%rtc share --role run\nx = 1"
    assert inspect(code, 3) == usage("share")
    assert inspect("%rtc?", 5) == usage()
    assert inspect(code, len(code)) is None
    assert inspect("%rtcx", 3) is None


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_every_command_and_option_is_in_the_help(command: str | None) -> None:
    text = usage(command)
    words = COMMANDS if command is None else [command, *COMMANDS[command].options]
    assert all(word in text for word in words)
    assert max(map(len, text.splitlines())) <= 110
