"""Whatever is killed and whatever the disk does: what a frontend got is in the history, or inside a named gap.

A round is a few random cells of two frontends, one fault at a random moment, and a look at everything: what the
frontends got, the history, the document, and the file. Many rounds share a kernel. All is real: kernel, processes,
disk.

A seed gives the same cells and the same faults but not the same timing, so a failure may need more than one run to
show again; the last rounds are printed with it. ``RTC_TEST_SEED=N`` plays one seed, ``RTC_TEST_ROUNDS=N`` so many
rounds of each kind (the default is what CI has time for).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until
from faults import (
    AWAY,
    CAN_MOUNT,
    ENDED,
    PATIENCE_S,
    PREPARE,
    Author,
    Cell,
    Json,
    Seen,
    Shown,
    Tape,
    Victim,
    digest_of,
    small_disk,
    victim,
)
from kernels import Gate
from peers import TROUBLE, Journal, fetch_replica
from pycrdt import Doc

import rtc_kernel
from rtc_kernel import schema
from rtc_kernel.agent.keep.archive import open_readonly
from rtc_kernel.agent.keep.rows import FILE_VERSION, load
from rtc_kernel.client import Address
from rtc_kernel.tables import COMM_MESSAGES_KEPT, Execution

SEED = int(os.environ.get("RTC_TEST_SEED", "1"))
ROUNDS = {
    kind: int(os.environ.get("RTC_TEST_ROUNDS", rounds))
    for kind, rounds in {
        "agent": 50,
        "wal": 60,
        "delete": 20,
        "small": 10,
        "away": 30,
        "store": 25,
        "kernel": 10,
        "relay": 6,
    }.items()
}

Choice = Callable[[], None]


class Play:
    """Rounds on one kernel.

    ``lost``: what the fault of a round may cost. *nothing*; *kernel*: what the kernel had not said; *tail*: what was on
    its way; *gap*: what a gap names.
    """

    def __init__(self, victim: Victim, kind: str, seed: int) -> None:
        self.victim = victim
        self.dice = random.Random(f"{kind} {seed}")
        self.tape = Tape(victim.frontends)
        self.author = Author(self.dice)
        self.notes: list[str] = []
        self.seq = 0  # the newest execution that was looked at
        self.ids: set[str] = set()  # of the executions that were looked at
        self.gaps: list[Json] = []
        self.subshells: list[str | None] = [None]
        self._began = time.monotonic()

    def note(self, text: str) -> None:
        self.notes.append(f"{time.monotonic() - self._began:8.3f} {text}")

    def prepare(self) -> None:
        """What cells need, in a new life of the kernel."""
        self.author.displays.clear()
        self.tape.forget_displays()
        subshell = self.victim.frontends[0].ask("control", "create_subshell_request")["subshell_id"]
        self.subshells = [None, subshell]
        first = self.send(Cell(PREPARE), 0)
        self.finish({first: Cell(PREPARE)})
        self.settle({first: Cell(PREPARE)}, "nothing")

    def send(self, cell: Cell, frontend: int, subshell: str | None = None) -> str:
        msg_id = self.victim.frontends[frontend].execute(cell.code, subshell)
        self.tape.expect(msg_id, cell.code)
        return msg_id

    def round(self, strike: Callable[[], None], heal: Callable[[], None], lost: str, *, dies: bool = False) -> None:
        """Cells, a fault in their midst, and a look at what is left."""
        dice = self.dice
        cells = {}
        subshells = self.subshells if dice.random() < 0.3 else [None]
        written = [
            # of two shells at once IPython does not tell whose error it is, nor who asks
            (self.author.write(alone=len(subshells) == 1), dice.randrange(2), dice.choice(subshells))
            for _ in range(dice.randint(1, 3))
        ]
        at, pauses = dice.randrange(len(written) + 1), [dice.choice([0, 0, 0.01, 0.05]) for _ in written]
        for index in range(len(written) + 1):
            if index == at:
                time.sleep(dice.uniform(0, 0.08))  # the moment of the fault
                self.note("strikes")
                strike()
            if index < len(written):
                cells[self.send(*written[index])] = written[index][0]
                time.sleep(pauses[index])
        if dies:
            self.victim.restart()
        else:
            time.sleep(dice.uniform(0, 0.1))  # how long it lasts
        heal()
        self.note("healed")
        self.finish(cells, dies=dies)
        self.settle(cells, lost)
        if dies:
            self.prepare()

    def finish(self, cells: dict[str, Cell], *, dies: bool = False) -> None:
        """Wait until the frontends have seen the ends; they must have seen all."""
        runs = self.tape.runs
        if not dies:
            wait_until(lambda: self.tape.read() or all(runs[key].is_done for key in cells), "all cells end", PATIENCE_S)
        self.tape.read()
        for key, cell in cells.items():
            run = runs[key]
            assert len(run.replies) <= 1, run
            if not run.is_done:
                continue
            status = run.replies[0]["status"]
            if status == "aborted":
                assert run.raw == {"stdout": "", "stderr": ""}
            else:
                assert status == ("error" if cell.fails else "ok"), run.replies
                assert run.raw == {"stdout": cell.stdout, "stderr": cell.stderr}

    def settle(self, cells: dict[str, Cell], lost: str) -> None:
        """Wait until all that is recorded has ended, and compare."""
        rows: list[Json] = []

        def settled() -> bool:
            nonlocal rows
            with contextlib.suppress(*AWAY):
                before, rows = rows, self.victim.history(0 if lost == "gap" else self.seq)
                if rows != before:
                    return False  # it is read in pages: a later one may know more than the first
                known = {row["id"] for row in rows}
                if lost == "nothing" and not known >= cells.keys():
                    return False
                is_well = lost == "gap" or self.victim.health()["status"] == "ok"
                return is_well and all(row["state"] in ENDED for row in rows)
            return False

        try:
            wait_until(settled, "all has ended, and is recorded", PATIENCE_S)
        except BaseException:
            with contextlib.suppress(*AWAY):
                print("health:", self.victim.health())
            print("rows:", *((row["seq"], row["id"], row["state"], row["metadata"]) for row in rows), sep="\n  ")
            raise
        self.tape.read()
        Comparison(self, cells, rows, lost).run()
        if rows:
            self.seq = max(row["seq"] for row in rows)


class Comparison:
    """The record of the frontends against what is recorded, after one round."""

    def __init__(self, play: Play, cells: dict[str, Cell], rows: list[Json], lost: str) -> None:
        self.play = play
        self.cells = cells
        self.rows = rows
        self.lost = lost
        self.digests: dict[str, bytes] = {}
        self.gaps: list[Json] = []

    def run(self) -> None:
        play, rows = self.play, self.rows
        ids = [row["id"] for row in rows]
        assert len(set(ids)) == len(ids), "an execution is there twice"
        assert self.lost == "gap" or not play.ids & set(ids), "an execution is there again"
        play.ids |= set(ids)
        seqs = [row["seq"] for row in rows]
        assert seqs == sorted(set(seqs))
        strangers = set(ids) - play.tape.runs.keys()
        assert not strangers, f"nobody asked for {strangers}"
        recorded = {row["id"]: row for row in rows}
        doc = self.fetch_document()
        self.gaps = schema.read_meta(doc).get("gap") or []
        if self.lost != "gap":
            assert self.gaps == play.gaps, "something was lost"
        play.gaps = self.gaps
        for key in self.cells:
            run, row = play.tape.runs[key], recorded.get(key)
            if row is None:
                assert self.is_excused(run), f"{key} is not recorded: {run}"
            else:
                self.compare(run, row)
        self.look_at(doc, recorded)
        with open_readonly(play.victim.path) as archive:
            for digest, data in self.digests.items():
                found = archive.blob(digest)
                assert found is not None
                assert found[0] == data
        with play.victim.file() as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            self.compare_comms(connection)

    def is_excused(self, run: Seen) -> bool:
        """Whether it need not be recorded."""
        return run.is_unseen or self.lost == "tail" or (self.lost == "gap" and self.is_in_gap(run))

    def is_in_gap(self, run: Seen) -> bool:
        return any(run.sent_at <= gap["until"] and run.done_at >= gap["since"] for gap in self.gaps)

    def compare(self, run: Seen, row: Json) -> None:
        told = f"{row['id']} is {row['state']} {row['metadata']}"
        shown = [self.shown(output) for output in row["outputs"]]
        told += f"\n  recorded: {brief(shown)}\n  seen: {brief(run.outputs)}\n  code: {run.code}"
        status = run.replies[0]["status"] if run.is_done else ""
        if self.lost == "gap" and self.is_in_gap(run):
            assert row["state"] in (status, "lost", "aborted"), told
            if row["state"] != "lost" and not row["metadata"] and row["code"]:
                assert any(self.alike(shown, version) for version in [[], *run.versions]), told
            return
        assert row["code"] == run.code, told
        if status and not (self.lost == "tail" and row["state"] == "lost"):
            assert row["state"] == status, told
            assert row["metadata"] == {}, told
            if status != "aborted":
                assert row["execution_count"] == run.replies[0]["execution_count"], told
            assert self.alike(shown, run.outputs), told
            return
        assert self.lost in ("kernel", "tail"), told
        assert row["state"] in ("lost", "aborted"), told
        versions = [run.outputs] if self.lost == "kernel" else [[], *run.versions]
        assert self.goes_beyond(shown, run) or any(self.alike(shown, version) for version in versions), told

    def goes_beyond(self, shown: list[Shown], run: Seen) -> bool:
        """Whether something was recorded that died on its way to the frontend."""
        if "clear_output" in run.code or "update_display" in run.code or not run.outputs:
            return True
        *before, last = run.outputs
        if len(shown) < len(run.outputs) or not self.alike(shown[: len(before)], before):
            return False
        here = shown[len(before)]
        return self.is_same(here, last) or (
            here[:2] == last[:2] and here[0] == "stream" and here[2].startswith(last[2])
        )

    def alike(self, shown: list[Shown], seen: list[Shown]) -> bool:
        if len(shown) != len(seen):
            return False
        return all(self.is_same(one, two) for one, two in zip(shown, seen, strict=True))

    def is_same(self, recorded: Shown, seen: Shown) -> bool:
        if recorded[0] not in ("display_data", "execute_result"):
            return recorded == seen
        if (recorded[0], recorded[2:], recorded[1].keys()) != (seen[0], seen[2:], seen[1].keys()):
            return False
        for kind, value in recorded[1].items():
            if isinstance(value, dict) and "blob" in value:
                digest, data = digest_of(kind, seen[1][kind])
                self.digests[digest] = data
                if (value["blob"], value["bytes"]) != (digest, len(data)):
                    return False
            elif value != seen[1][kind]:
                return False
        return True

    def shown(self, output: Json) -> Shown:
        """An output of the history as the tape has it."""
        match kind := output["output_type"]:
            case "stream":
                return (kind, output["name"], output["text"])
            case "error":
                return (kind, output["ename"], output["evalue"], tuple(output["traceback"]))
            case "execute_result":
                return (kind, output["data"], output["execution_count"])
            case _:
                return (kind, output["data"], output["display_id"])

    def fetch_document(self) -> Doc[Any]:
        kernel_id = self.play.victim.kernel.kernel_id

        def fetched() -> Doc[Any] | None:
            with contextlib.suppress(*TROUBLE):
                return asyncio.run(fetch_replica(Address.resolve(kernel_id), f"{kernel_id}/state"))
            return None

        doc = wait_until(fetched, "the document can be read", PATIENCE_S)
        assert isinstance(doc, Doc)
        return doc

    def look_at(self, doc: Doc[Any], recorded: dict[str, Json]) -> None:
        """Who follows sees what is in the history."""
        rows: dict[str, Execution] = {row.id: row for row in schema.read_executions(doc)}
        for key, row in recorded.items():
            assert rows[key].state.value == row["state"]
            outputs = [output.to_nbformat() for output in rows[key].outputs]
            mine = [{name: one[name] for name in other} for one, other in zip(row["outputs"], outputs, strict=True)]
            assert outputs == mine
        assert all(row.state.value in ENDED for row in rows.values())

    def compare_comms(self, connection: sqlite3.Connection) -> None:
        tape = self.play.tape
        for key in tape.news & tape.comms.keys():
            row = connection.execute("SELECT closed_at FROM comms WHERE id = ?", (key,)).fetchone()
            if row is None:
                assert self.lost in ("tail", "gap"), f"the comm {key} is not recorded"
                continue
            found = connection.execute("SELECT value FROM comm_messages WHERE comm = ? ORDER BY row", (key,))
            said = [load(value)["data"] for (value,) in found]
            if self.lost in ("nothing", "kernel"):
                assert said == tape.comms[key][-COMM_MESSAGES_KEPT:]
                assert row[0] is not None or key not in tape.closed
        tape.news.clear()


def brief(outputs: list[Shown]) -> str:
    """A list of outputs, each cut."""
    texts = [str(output) for output in outputs]
    return str([text[:200] + (f"… ({len(text)})" if len(text) > 200 else "") for text in texts])


def nothing() -> None:
    pass


def void(value: object) -> None:
    del value


def play_rounds(kind: str, home: Path, store: Path, rounds: Callable[[Play], list[Choice]], **settings: str) -> None:
    """Play so many rounds, each of a kind that the dice choose."""
    with victim(home, store, **settings) as made:
        play = Play(made, kind, SEED)
        try:
            play.prepare()
            choices = rounds(play)
            for number in range(ROUNDS[kind]):
                choice = play.dice.choice(choices)
                play.note(f"round {number}: {choice.__name__}")
                choice()
        except BaseException:
            print(f"RTC_TEST_SEED={SEED}, {kind}:", *play.notes[-40:], sep="\n  ")
            raise
        print(f"{kind}: {ROUNDS[kind]} rounds, {len(play.ids)} executions, {time.monotonic() - play._began:.1f} s")


@pytest.mark.timeout(20 * PATIENCE_S)
def test_an_agent_that_is_killed_at_any_moment_costs_nothing(home: Path, tmp_path: Path) -> None:
    def rounds(play: Play) -> list[Choice]:
        victim = play.victim

        def killed() -> None:
            play.round(victim.kill_agent, nothing, "nothing")

        def killed_again_while_it_starts() -> None:
            play.round(victim.kill_agent, victim.kill_agent, "nothing")

        def stopped() -> None:
            play.round(victim.stop_agent, victim.go_on, "nothing")

        return [killed, killed, killed_again_while_it_starts, stopped]

    play_rounds("agent", home, tmp_path, rounds)


def disk_rounds(play: Play, fill: Callable[[], None], room: Callable[[], None]) -> list[Choice]:
    """The disk is full for a while; the agent may die while it is, or as soon as there is room again."""
    victim = play.victim

    def fill_and_kill() -> None:
        fill()
        victim.kill_agent()

    def kill_and_room() -> None:
        victim.kill_agent()
        room()

    def full() -> None:
        play.round(fill, room, "nothing")

    def full_and_killed() -> None:
        play.round(fill_and_kill, room, "nothing")

    def full_and_killed_later() -> None:
        play.round(fill, kill_and_room, "nothing")

    return [full, full, full, full_and_killed, full_and_killed_later]


@pytest.mark.timeout(20 * PATIENCE_S)
@pytest.mark.parametrize("kind", ["wal", "delete", *(["small"] if CAN_MOUNT else [])])
def test_a_disk_that_is_full_for_a_while_costs_nothing(kind: str, home: Path, tmp_path: Path) -> None:
    """In both journal modes, where full is a limit on the size of files, which any user may set: SQLite finds out at
    some write or other. And with a small disk that is really full, where a test may mount one."""

    def limited(play: Play) -> list[Choice]:
        victim, dice = play.victim, play.dice

        def fill() -> None:
            size = victim.path.stat().st_size  # of the journal beside it one cannot ask: it comes and goes
            victim.limit_files(dice.choice([0, dice.randrange(65536), dice.randrange(size + 65536)]))

        return disk_rounds(play, fill, lambda: victim.limit_files(None))

    def small(play: Play) -> list[Choice]:
        victim, dice = play.victim, play.dice
        ballast = victim.directory / "ballast"

        def fill() -> None:
            with ballast.open("wb", buffering=0) as file:
                with contextlib.suppress(OSError):
                    while file.write(bytes(1 << 16)):
                        pass
                file.truncate(max(0, file.tell() - dice.choice([0, 0, 8192, 65536])))

        return disk_rounds(play, fill, lambda: ballast.unlink(missing_ok=True))

    if kind != "small":
        play_rounds(kind, home, tmp_path, limited, JOURNAL_MODE=kind)
        return
    with small_disk("48m") as place:
        assert place is not None
        play_rounds(kind, home, place, small)


@pytest.mark.timeout(20 * PATIENCE_S)
def test_a_directory_that_is_away_for_a_while_costs_nothing(home: Path, tmp_path: Path) -> None:
    def rounds(play: Play) -> list[Choice]:
        victim = play.victim
        elsewhere = tmp_path / "elsewhere"

        def take() -> None:
            victim.directory.rename(elsewhere)

        def give_back() -> None:
            elsewhere.rename(victim.directory)

        def away() -> None:
            play.round(take, give_back, "nothing")

        return [away]

    play_rounds("away", home, tmp_path / "store", rounds)


@pytest.mark.timeout(20 * PATIENCE_S)
def test_a_history_that_is_damaged_or_gone_is_a_named_gap(home: Path, tmp_path: Path) -> None:
    def rounds(play: Play) -> list[Choice]:
        victim, dice = play.victim, play.dice

        def cut(path: Path) -> None:
            with contextlib.suppress(FileNotFoundError):
                os.truncate(path, dice.randrange(path.stat().st_size + 1))

        def strike_with(damage: Callable[[], None]) -> Callable[[], None]:
            def strike() -> None:
                with victim.without_agent():
                    damage()

            return strike

        def wal() -> Path:
            return victim.path.with_name(victim.path.name + "-wal")

        def spoil() -> None:
            size = victim.path.stat().st_size
            with victim.path.open("r+b") as file:
                for _ in range(3):
                    file.seek(dice.randrange(size))
                    file.write(dice.randbytes(5000))

        def set_version(version: int) -> None:
            with victim.file() as connection:
                connection.execute(f"PRAGMA user_version = {version}")

        def wal_is_cut() -> None:
            play.round(strike_with(lambda: cut(wal())), nothing, "gap")

        def file_is_cut() -> None:
            play.round(strike_with(lambda: cut(victim.path)), nothing, "gap")

        def file_is_spoilt() -> None:
            play.round(strike_with(spoil), nothing, "gap")

        def file_is_garbage() -> None:
            play.round(strike_with(lambda: void(victim.path.write_bytes(dice.randbytes(50_000)))), nothing, "gap")

        def directory_is_gone() -> None:
            play.round(strike_with(lambda: shutil.rmtree(victim.directory)), nothing, "gap")

        def directory_is_gone_and_the_disk_full() -> None:
            def damage() -> None:
                shutil.rmtree(victim.directory)
                victim.limit_files(0)

            play.round(strike_with(damage), lambda: victim.limit_files(None), "gap")

        def file_is_of_a_newer_version() -> None:
            back = strike_with(lambda: set_version(FILE_VERSION))
            play.round(strike_with(lambda: set_version(FILE_VERSION + 1)), back, "gap")

        def value_is_spoilt() -> None:
            def write(sql: str) -> None:
                with victim.file() as connection:
                    connection.execute(sql)

            back = strike_with(lambda: write("DELETE FROM meta WHERE key = 'spoilt'"))
            play.round(strike_with(lambda: write("INSERT INTO meta VALUES ('spoilt', '{')")), back, "gap")

        return [
            wal_is_cut,
            wal_is_cut,
            value_is_spoilt,
            file_is_cut,
            file_is_spoilt,
            file_is_garbage,
            directory_is_gone,
            directory_is_gone_and_the_disk_full,
            file_is_of_a_newer_version,
        ]

    play_rounds("store", home, tmp_path / "store", rounds)


@pytest.mark.timeout(20 * PATIENCE_S)
def test_a_kernel_that_dies_costs_what_it_had_not_said(home: Path, tmp_path: Path) -> None:
    def rounds(play: Play) -> list[Choice]:
        victim = play.victim

        def killed() -> None:
            play.round(victim.kill_child, nothing, "kernel", dies=True)

        def killed_behind_a_killed_agent() -> None:
            def strike() -> None:
                victim.kill_agent()
                victim.kill_child()

            play.round(strike, nothing, "kernel", dies=True)

        return [killed, killed, killed_behind_a_killed_agent]

    play_rounds("kernel", home, tmp_path, rounds)


@pytest.mark.timeout(20 * PATIENCE_S)
def test_a_relay_or_a_machine_that_dies_costs_what_was_on_its_way(home: Path, tmp_path: Path) -> None:
    def rounds(play: Play) -> list[Choice]:
        victim = play.victim

        def relay_killed() -> None:
            play.round(victim.kill_relay, nothing, "tail", dies=True)

        def machine_killed() -> None:
            play.round(victim.kill_machine, nothing, "tail", dies=True)

        return [relay_killed, machine_killed]

    play_rounds("relay", home, tmp_path, rounds)


# --- one fault at a time --------------------------------------------------------------------------------------


def play(home: Path, store: Path, scene: Callable[[Victim, rtc_kernel.client.Document], Awaitable[None]]) -> None:
    async def run(made: Victim) -> None:
        async with rtc_kernel.connect(made.kernel.kernel_id) as doc:
            await scene(made, doc)

    with victim(home, store) as made:
        asyncio.run(asyncio.wait_for(run(made), 4 * PATIENCE_S))


def degraded(doc: rtc_kernel.client.Document) -> bool:
    return bool(doc.meta["health"]["status"] == "degraded")


@pytest.mark.parametrize("dies", [False, True], ids=["agent-lives", "agent-dies"])
def test_while_the_disk_is_full_followers_see_all_and_requests_wait_and_run_once(
    dies: bool, home: Path, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")

    async def scene(victim: Victim, doc: rtc_kernel.client.Document) -> None:
        before = await doc.run("print('before')")
        assert (await before.result()).state == "ok"
        epoch = doc.epoch
        victim.limit_files(0)
        if dies:
            victim.kill_agent()
            await doc.wait_for(lambda doc: doc.epoch != epoch, PATIENCE_S)
        ann = victim.frontends[0]
        shown = ann.execute("print('while it is full')")
        await doc.wait_for(lambda doc: shown in doc.executions and degraded(doc), PATIENCE_S)
        assert "the history" in doc.meta["health"]["reason"]
        asked = asyncio.create_task(doc.run(journal.code("once")))
        later = ann.execute("print('later')")
        await doc.wait_for(lambda doc: later in doc.executions and doc.executions[later].state == "ok", PATIENCE_S)
        assert doc.executions[later].outputs[0].text == "later\n"
        assert not asked.done()
        assert journal.read() == []
        victim.limit_files(None)
        assert (await (await asked).result()).state == "ok"
        await doc.wait_for(lambda doc: not degraded(doc), PATIENCE_S)
        assert journal.read() == ["once"]
        rows = await asyncio.to_thread(victim.history, 0)
        assert [row["code"] for row in rows[:3]] == ["print('before')", "print('while it is full')", "print('later')"]
        assert len(rows) == 4
        assert doc.meta.get("gap") is None

    play(home, tmp_path / "store", scene)


def test_a_history_that_is_gone_is_named_as_a_gap_and_what_it_knew_as_running_ends(
    home: Path, tmp_path: Path, gate: Gate
) -> None:
    """Nothing follows in the kernel that would tell: the agent asks."""

    async def scene(victim: Victim, doc: rtc_kernel.client.Document) -> None:
        ann = victim.frontends[0]
        key = ann.execute("print(1, flush=True)\n" + gate.code)
        await doc.wait_for(lambda doc: key in doc.executions and bool(doc.executions[key].outputs), PATIENCE_S)
        while_it_ran = tmp_path / "copy"
        await asyncio.to_thread(victim.ask, "/api/history?limit=1")  # all is in the file
        with victim.file() as connection, contextlib.closing(sqlite3.connect(while_it_ran)) as copy:
            connection.backup(copy)
        gate.open()
        await doc.wait_for(lambda doc: doc.executions[key].state == "ok", PATIENCE_S)
        await asyncio.to_thread(victim.ask, "/api/history?limit=1")
        with victim.without_agent():
            victim.path.with_name(victim.path.name + "-wal").unlink(missing_ok=True)
            shutil.copy(while_it_ran, victim.path)
        await doc.wait_for(lambda doc: doc.executions[key].state == "lost", PATIENCE_S)
        assert "rtc_gap" in doc.executions[key].metadata
        assert doc.meta["gap"][-1]["message_count"] > 0

    play(home, tmp_path / "store", scene)
