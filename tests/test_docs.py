"""The paper tells the truth: links resolve, tables are the code's, commands exist, snippets run."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kernels import Running
from pycrdt import Doc, Map

from rtc_kernel import config, discovery, errors, schema, tables, yproto
from rtc_kernel.agent import document, requests
from rtc_kernel.agent.act import magics, rows
from rtc_kernel.agent.document import StateDocument
from rtc_kernel.agent.requests import RequestsDocument
from rtc_kernel.agent.serve import access, comm, session, websocket
from rtc_kernel.cli import grammar

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAPERS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

NOT_OURS = {
    ".frontends",
    ".git",
    ".venv",
    "venv",
    "build",
    "dist",
    "node_modules",
    "__pycache__",
    "htmlcov",
    ".hypothesis",
}
each_paper = pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.name)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load_generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project_files() -> Iterator[Path]:
    """What is in the repository; where git cannot say it, what a clean copy holds."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [
            str(path)
            for path in (found.relative_to(ROOT) for found in ROOT.rglob("*"))
            if not any(part in NOT_OURS or part.endswith(("_cache", ".egg-info")) for part in path.parts)
        ]
    yield from (ROOT / name for name in listed if name and (ROOT / name).is_file())


def without_code(text: str) -> str:
    return re.sub(r"^(\s*)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def section(text: str, heading: str) -> str:
    """A section by its heading, up to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found, f"there is no section {heading!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", without_code_kept_in_length(rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def without_code_kept_in_length(text: str) -> str:
    blank: Callable[[re.Match[str]], str] = lambda found: re.sub(r"[^\n]", ".", found[0])  # noqa: E731
    return re.sub(r"^```.*?^```$", blank, text, flags=re.DOTALL | re.MULTILINE)


def block_behind(marker: str, text: str) -> str:
    """The fenced code behind ``<!-- marker -->``."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)\n```", text, re.DOTALL)
    assert found, f"there is no block marked {marker!r}"
    return found[1]


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (action for action in grammar.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands.choices)


COMMANDS = subcommands()


# --- links, tables, words ------------------------------------------------------------------------------------


@each_paper
def test_relative_links_resolve(paper: Path) -> None:
    text = without_code(paper.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (paper.parent / path).resolve() if path else paper
        assert target.exists(), f"{paper.name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{paper.name}: {link}"


@each_paper
def test_what_is_generated_is_what_the_code_gives(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    assert load_generate().generate(text) == text, "run `python docs/generate.py`"


def test_every_diagram_and_table_is_in_some_document() -> None:
    text = "".join(paper.read_text(encoding="utf-8") for paper in PAPERS)
    assert set(re.findall(r"<!-- generated: ([a-z-]+) -->", text)) == set(load_generate().BLOCKS)


def test_every_setting_is_documented_with_default_and_limit() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", read("docs/settings.md"), re.MULTILINE))
    assert list(rows) == config.trait_names()
    for name in config.trait_names():
        trait = config.RTCKernel.class_own_traits()[name]
        kind, default, limit, text = re.split(r" \| ", rows[name])
        assert all((kind, default, text)), name
        bounded = hasattr(trait, "values") or config.trait_bound(trait, "min") is not None
        assert bool(limit.strip()) == bounded, name


def test_settings_named_anywhere_exist() -> None:
    variables = {config.ENV_PREFIX + name.upper() for name in config.trait_names()}
    for paper in PAPERS:
        text = paper.read_text(encoding="utf-8")
        assert set(re.findall(r"\bRTC_KERNEL_(?!NAME)\w+", text)) <= variables, paper.name
        named = set(re.findall(r"RTCKernel\.(?!NAME)(\w+)", text))
        assert named <= set(config.trait_names()), paper.name


def test_close_codes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\d{4}) \| `([\w-]+)` \| (.+) \|$", read("docs/protocol.md"), re.MULTILINE)
    told = {errors.Reason(reason): (int(code), text) for code, reason, text in rows}
    assert told == errors.CLOSE_CODES


@pytest.mark.parametrize(
    ("heading", "record"),
    [
        ("kernels", tables.Kernel),
        ("executions", tables.Execution),
        ("outputs", tables.Output),
        ("comms", tables.Comm),
        ("cells", tables.Cell),
        ("queries", tables.Query),
    ],
)
def test_every_column_is_documented(heading: str, record: Any) -> None:
    table = section(read("docs/document.md"), heading)
    told = {name for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}
    beyond = {"notebook"} if heading == "cells" else set()
    assert told == set(record.__dataclass_fields__) - {"id"} | beyond


def test_every_column_of_a_request_is_documented() -> None:
    peers, _, agents = section(read("docs/requests.md"), "Columns").partition("What the agent adds")
    _, *table = re.findall(r"^\| `(\w+)` \| (.*?) \|", peers, re.MULTILINE)
    told = dict(table)
    assert told.keys() == rows.COLUMNS.keys()
    for action, columns in rows.COLUMNS.items():
        assert set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", told[action]))) == set(columns), action
    assert set(re.findall(r"^\| `(\w+)` \|", agents, re.MULTILINE)) == rows.AGENT_COLUMNS | {"query"}


def test_every_table_role_and_request_is_documented() -> None:
    for root in schema.ROOTS:
        section(read("docs/document.md"), root)
    text = read("docs/protocol.md")
    for role in access.Role:
        assert f"| `{role.value}` |" in section(text, "Roles")
    requests = re.findall(r"``(?:GET|POST|PUT|DELETE|WS) +([^`?]+)``", websocket.__doc__ or "")
    assert len(requests) > 9
    for path in requests:
        assert path.replace("<kernel>", "<kernel_id>") in text, path
    for op in comm.OPS.split(", "):
        assert f'{{"op": "{op}"' in section(text, "Comm"), op


def test_numbers_of_the_protocol_are_those_of_the_code() -> None:
    text = read("docs/protocol.md")
    assert f"Target `{comm.TARGET}`" in text
    assert f"was not heard for {comm.LEASE_S:g} s" in text
    assert f"At most {comm.COMMS} comms" in text
    assert f"most {comm.READS} reads" in text
    assert f"at most {1 / comm.FLUSH_S:g} times a" in text
    limits = section(text, "Limits")
    assert f"{session.MESSAGES_PER_S:g} messages a second for long ({session.MESSAGES_BURST} at once)" in limits
    assert f"{session.UPDATES_PER_S:g} messages a second for long ({session.UPDATES_BURST} at once)" in limits
    assert f"one sync every {1 / session.SYNCS_PER_S:g} s ({session.SYNCS_BURST} at once)" in limits
    assert f"{session.AWARENESS_CLIENTS} client ids per connection; {session.AWARENESS_STATE_CHARS} char" in limits
    assert f"{session.UNDONE_BURST} at once, then one in {1 / session.UNDONE_PER_S:g} s" in section(text, "Conflicts")
    life = section(text, "A connection")
    assert f"most {session.AWARENESS_CLIENTS} per connection, {session.AWARENESS_STATE_CHARS} characters" in life
    assert f"last {document.RECENT_UPDATES} updates" in life
    assert f"once in {1 / session.ECHOES_PER_S:g} s ({session.ECHOES_BURST} at once)" in life
    assert f"may use {requests.CLIENTS_PER_PEER} in an" in life
    assert f"nested {yproto.MAX_DEPTH} deep" in section(text, "Updates")
    assert f"2^{yproto.MAX_UINT.bit_length()} - 1" in section(text, "Messages")
    assert f"`schema` ({tables.SCHEMA_VERSION}, " in section(text, "Versions")
    assert f"`{yproto.PROTOCOL}`" in section(text, "Versions")
    assert f"the last {tables.COMM_MESSAGES_KEPT}," in read("docs/document.md")


def frames(heading: str) -> Iterator[tuple[str, bytes]]:
    """The session that a section shows: who, and the bytes of the message in front of what they say."""
    (shown,) = re.findall(r"```text\n(.*?)```", section(read("docs/protocol.md"), heading), re.DOTALL)
    for frame in re.split(r"^(?=\w)", shown, flags=re.MULTILINE)[1:]:
        first, *lines = frame.splitlines()
        yield first.partition(":")[0], bytes.fromhex("".join(re.split(r" {2,}", line.strip())[0] for line in lines))


@pytest.mark.parametrize(("heading", "room"), [("Following", "state"), ("Asking", "requests")])
def test_the_sessions_of_the_protocol_are_what_an_agent_says_to_such_a_client(heading: str, room: str) -> None:
    """The client's bytes, as they are printed, into a real session: its answers are of the kinds that are printed."""
    served: Any = StateDocument("k1") if room == "state" else RequestsDocument("k1")
    peer = session.Session(served, session.Board(), name="ada", role=access.Role.RUN, now=0.0)
    shown = list(frames(heading))
    for index, (who, data) in enumerate(shown):
        message = yproto.read_message(data)
        if who == "agent":
            continue
        answers = itertools.takewhile(lambda frame: frame[0] == "agent", shown[index + 1 :])
        printed = [type(yproto.read_message(answer)) for _, answer in answers]
        commands = peer.receive_bytes(data, 1.0)
        if isinstance(message, yproto.Update):
            (write,) = commands
            assert isinstance(write, session.Write)
            (row,) = served.receive(write.update, "ada").rows
            assert row.value == {"action": "execute", "code": "1"}
        else:
            said = [command.data for command in commands if isinstance(command, session.Send | session.Relay)]
            assert [type(yproto.read_message(one)) for one in said] == printed[: len(said)]


def test_the_updates_of_the_session_of_a_follower_give_what_is_said_of_them() -> None:
    replica: Doc[Any] = Doc()
    states = []
    for who, data in frames("Following"):
        message = yproto.read_message(data)
        if who == "agent" and isinstance(message, yproto.Step2 | yproto.Update):
            replica.apply_update(message.update)
            states += [run.state.value for run in schema.read_executions(replica)]
    assert states == ["running"] * 3 + ["ok"]
    (run,) = schema.read_executions(replica)
    text = section(read("docs/protocol.md"), "Following")
    told = re.search(r"`\{\"e1\": (\{.*?), …\}\}`", text, re.DOTALL)
    assert told
    value = json.loads(told[1] + "}")
    (output,) = value.pop("outputs")
    assert {**tables.to_json(run), **value, "id": "e1"} == tables.to_json(run)
    assert {**tables.to_json(run.outputs[0]), **output} == tables.to_json(run.outputs[0])
    assert schema.read_meta(replica)["room"] == "k1/state"


def test_the_rows_of_the_session_of_one_that_asks_go_as_is_said() -> None:
    replica: Doc[Any] = Doc()
    told: list[Any] = []
    for _, data in frames("Asking"):
        message = yproto.read_message(data)
        if isinstance(message, yproto.Step2 | yproto.Update):
            replica.apply_update(message.update)
            row = (replica.get("requests", type=Map).to_py() or {}).get("r1", {})
            told.append(row.get("state"))
    assert list(dict.fromkeys(told)) == [None, "requested", "accepted", "done"]
    assert replica.get("requests", type=Map).to_py() == {}, "it is popped"


@pytest.mark.parametrize("name", magics.COMMANDS)
def test_every_rtc_line_is_documented(name: str) -> None:
    headings = re.findall(r"^## (.+)$", read("docs/magics.md"), re.MULTILINE)
    assert any(f"`%rtc {name}`" in heading for heading in headings)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_its_options_and_an_example(name: str) -> None:
    text = section(read("docs/cli.md"), f"`jupyter rtc {name}`")
    assert f"jupyter rtc {name}" in text
    for action in COMMANDS[name]._actions:
        for option in action.option_strings:
            if option not in ("-h", "--help"):
                assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{name} {option}"


def test_dependencies_are_each_given_a_reason() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["test"], *extras["browser"]]
    text = section(read("docs/design.md"), "Dependencies")
    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)
        assert name is not None
        assert f"`{name[0]}`" in text, requirement


# --- what is named exists --------------------------------------------------------------------------------------


def spoken() -> Iterator[tuple[str, str]]:
    """Every text that a user or a developer may read: the paper, and the package with its messages."""
    for path in project_files():
        if path.suffix in (".md", ".py", ".html", ".ts", ".ipynb") and "tests" not in path.relative_to(ROOT).parts:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_commands_and_options_that_are_named_exist() -> None:
    for name, text in spoken():
        for line in re.findall(r"jupyter rtc ([a-z][^`'\"<\n#|(]*)", text):
            command, *words = line.split()
            assert command in COMMANDS, f"{name}: jupyter rtc {line}"
            options = {option for action in COMMANDS[command]._actions for option in action.option_strings}
            for word in words:
                flag = word.partition("=")[0].rstrip(".,;:)]")
                if flag.startswith("--") and not flag.startswith(config.ARG_PREFIX):
                    assert flag in options, f"{name}: jupyter rtc {line}"


def test_documents_and_tests_that_are_named_exist() -> None:
    for name, text in spoken():
        for path in re.findall(r"(?<![\w/.])((?:docs|tests|examples)/[\w/]+\.(?:md|py|ipynb))", text):
            assert (ROOT / path).exists(), f"{name} names {path}"


def test_no_file_knows_a_machine() -> None:
    foreign = re.compile("|".join(["/" + "work/", "/tmp/" + "venv", "/" + "root/", "\\.\\./" + "shared"]))
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = foreign.search(text)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"


# --- the README ------------------------------------------------------------------------------------------------


FAULTS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in section(read("README.md"), "When something fails").splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| What fails"))
]


@pytest.mark.parametrize("row", FAULTS, ids=lambda row: str(row[0]))
def test_each_fault_says_what_is_seen_and_kept_and_names_a_test_that_exists(row: list[str]) -> None:
    fault, seen, _, words = row
    assert fault
    assert seen
    tests = re.findall(r"def (test_\w+)", "".join(path.read_text() for path in sorted((ROOT / "tests").glob("*.py"))))
    assert [name for name in tests if words.strip("`") in name], f"no test has {words} in its name"


def test_the_failure_table_has_rows() -> None:
    assert len(FAULTS) > 20


@pytest.mark.parametrize("marker", ["try", "ci-test"])
def test_each_of_the_two_lines_is_one_line_of_commands_that_exist(marker: str) -> None:
    line = block_behind(marker, read("README.md"))
    assert "\n" not in line
    make, install, last = (shlex.split(command) for command in line.split(" && "))
    assert make == ["python3", "-m", "venv", ".venv"]
    assert install[:2] == [".venv/bin/pip", "install"]
    (what,) = install[2:]
    path, _, extras = what.rstrip("]").partition("[")
    assert (ROOT / path).samefile(ROOT)
    assert {extra for extra in extras.split(",") if extra} <= set(PROJECT["optional-dependencies"])
    if last[0] == ".venv/bin/jupyter":
        assert last[1] == "rtc"
        assert "jupyter-rtc" in PROJECT["scripts"]
        args = grammar.parser().parse_args(last[2:])
        assert (ROOT / args.notebook).is_file()
    else:
        assert last == [".venv/bin/python", "-m", "pytest", "-n", "2", "--dist", "loadfile"]


def test_ci_runs_the_line_of_the_readme() -> None:
    assert "<!-- ci-test -->" in read(".ci/run")


SNIPPETS = re.findall(r"<!-- test -->\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_snippets_of_the_readme_run(
    kernel: Running, until: Callable[..., Any], tmp_path: Path, snippet: str
) -> None:
    until(discovery.live, "the agent has said where it is", 30)
    kernel.execute("x = 41")
    script, told = tmp_path / "snippet.py", tmp_path / "told"
    script.write_text(snippet, encoding="utf-8")
    command = [sys.executable, "-u", str(script), kernel.kernel_id]
    with told.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            until(lambda: "x = 41" in told.read_text(), "it shows what ran before", 30)
            kernel.execute("print(x + 1)")
            until(lambda: process.poll() is not None, "it ends", 30)
        finally:
            process.kill()
    assert process.returncode == 0, told.read_text()
    assert told.read_text().splitlines() == ["RTC Python is idle", "#1 ok: x = 41", "#2 is done: 42", ""]


def test_the_readme_has_a_snippet() -> None:
    assert SNIPPETS
