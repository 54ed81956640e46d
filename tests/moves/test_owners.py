"""Whose is it? A target has one library, and no library touches what another one has begun."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import warm
from inboxes import Inbox, quick_cli
from libraries import (
    STEADY,
    WITHOUT_TMPFILE,
    claims,
    complaints,
    killed,
    names_path,
    names_pid,
    refused,
    rows,
    sort,
    sorted_nine,
    standing,
    states,
)
from support import paint_groups, sums, wait_until

MakeInbox = Callable[..., Inbox]


def known_in(database: Path) -> list[tuple[object, ...]]:
    """Return what a database of a sort knows of the files."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT id, src, state, dst FROM files ORDER BY id").fetchall()


def new_pictures(folder: Path, each: int = 2, seed: int = 900_000) -> Path:
    """Write pictures that no daemon of these tests has dropped."""
    paint_groups(folder, each, seed=seed)
    return folder


# --- a target has one library -------------------------------------------------------------------


@pytest.mark.parametrize("way", ["by its path", "by a symlink"])
def test_a_second_daemon_on_a_target_is_refused_while_the_first_is_alive(
    make: MakeInbox, tmp_path: Path, way: str
) -> None:
    one = make("one", **STEADY)
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    target = one.target
    if way == "by a symlink":
        target = tmp_path / "link"
        target.symlink_to(one.target)
    two = make("two", target=str(target), **STEADY)
    new_pictures(two.inbox, 3)
    before = standing(one.inbox, one.target, two.inbox)

    said = refused(two)

    assert names_pid(said, one), said
    assert standing(one.inbox, one.target, two.inbox) == before
    one.drop(1)
    one.wait_sorted()
    one.check()


def test_of_two_that_start_on_one_target_at_once_one_is_refused(make: MakeInbox) -> None:
    one = make("one", **STEADY)
    two = make("two", target=str(one.target), **STEADY)
    both = (one, two)
    for library in both:
        library.daemon.start()

    def is_decided() -> bool:
        return all(not each.daemon.is_alive() or "daemon ready" in each.daemon.log for each in both)

    wait_until(is_decided, 30, "each ready or refused")
    alive = [library for library in both if library.daemon.is_alive()]

    assert len(alive) == 1
    (ended,) = (library for library in both if library is not alive[0])
    assert names_pid(ended.daemon.log, alive[0]), ended.daemon.log
    alive[0].drop(3)
    alive[0].wait_sorted()
    alive[0].check()


@pytest.mark.parametrize("op", ["copy", "move"])
def test_sort_into_the_target_of_a_daemon_that_runs_is_refused(
    make: MakeInbox, tmp_path: Path, op: str
) -> None:
    one = make("one", **STEADY)
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    source = new_pictures(tmp_path / "source")
    before = standing(one.target, source)

    done = sort(source, one.target, "--op", op)

    assert done.returncode not in (0, 2), done.stderr
    assert names_pid(done.stderr, one), done.stderr
    assert standing(one.target, source) == before
    one.drop(1)
    one.wait_sorted()
    one.check()


def test_a_second_daemon_is_refused_after_the_first_has_ended_and_is_told_whose_the_target_is(
    make: MakeInbox,
) -> None:
    one = sorted_nine(make("one", **STEADY))
    two = make("two", target=str(one.target), **STEADY)
    new_pictures(two.inbox, 3)
    before = standing(one.target, two.inbox)

    said = refused(two)

    assert names_path(said, one.config.state_dir), said
    assert standing(one.target, two.inbox) == before
    assert two.status().counts["seen"] == 0
    one.daemon.start()
    one.drop(1)
    one.wait_sorted()
    one.check()
    assert complaints(one) == []


@pytest.mark.parametrize("state", ["in target", "elsewhere"])
@pytest.mark.parametrize("op", ["copy", "move"])
def test_sort_into_a_target_whose_daemon_has_ended_is_refused(
    make: MakeInbox, tmp_path: Path, op: str, state: str
) -> None:
    one = sorted_nine(make("one", **STEADY))
    source = new_pictures(tmp_path / "source")
    before = standing(one.target, source)
    chosen = () if state == "in target" else ("--state", str(tmp_path / "sort's"))

    done = sort(source, one.target, "--op", op, *chosen)

    assert done.returncode not in (0, 2), done.stderr
    assert names_path(done.stderr, one.config.state_dir), done.stderr
    assert standing(one.target, source) == before
    one.daemon.start()
    one.drop(1)
    one.wait_sorted()
    one.check()
    assert complaints(one) == []


def test_a_daemon_is_refused_on_the_target_of_a_sort(make: MakeInbox, tmp_path: Path) -> None:
    source = new_pictures(tmp_path / "source", 3)
    two = make("two", **STEADY)
    assert sort(source, two.target).returncode == 0
    two.drop(3)
    before = standing(two.target, two.inbox)

    said = refused(two)

    assert names_path(said, two.target / ".imgsortd"), said
    assert standing(two.target, two.inbox) == before
    again = sort(source, two.target)
    assert again.returncode == 0, again.stderr
    assert standing(two.target, two.inbox) == before


def test_two_sorts_with_states_of_their_own_do_not_share_a_target(tmp_path: Path) -> None:
    first, second = new_pictures(tmp_path / "first"), new_pictures(tmp_path / "second", seed=7)
    target, state = tmp_path / "target", tmp_path / "state"
    assert sort(first, target, "--state", str(state)).returncode == 0
    before = standing(target, second)

    done = sort(second, target, "--state", str(tmp_path / "another"), "--op", "move")

    assert done.returncode not in (0, 2), done.stderr
    assert names_path(done.stderr, state), done.stderr
    assert standing(target, second) == before


def test_repair_takes_nothing_of_another_librarys_target_in(make: MakeInbox) -> None:
    one = sorted_nine(make("one", **STEADY))
    two = make("two", target=str(one.target), **STEADY)
    before = standing(one.target)

    done = quick_cli("doctor", two, "--repair")

    assert done.returncode == 78, done.stdout
    assert names_path(done.stdout + done.stderr, one.config.state_dir), done.stdout + done.stderr
    assert "taken in" not in done.stdout
    assert two.status().counts["seen"] == 0
    assert standing(one.target) == before


@pytest.mark.parametrize("way", ["run", "doctor"])
def test_a_target_is_adopted_as_it_stands_and_then_refused_to_its_former_library(
    make: MakeInbox, way: str
) -> None:
    one = sorted_nine(make("one", **STEADY))
    two = make("two", target=str(one.target), **STEADY)
    before = standing(one.target)

    if way == "doctor":
        done = quick_cli("doctor", two, "--repair", "--adopt")
        assert done.returncode != 2, done.stderr
        two.daemon.start()
    else:
        two.daemon.start("--adopt")
    two.daemon.wait_ready()
    wait_until(lambda: two.status().counts["sorted"] == 9, 20, "taken in\n" + two.daemon.log)
    assert standing(one.target) == before
    new_pictures(two.inbox, 1)
    wait_until(lambda: two.status().counts["sorted"] == 12, 20, "sorted\n" + two.daemon.log)

    for colour in ("red", "green", "blue"):
        assert len({path.parent for path in one.target.rglob(f"*{colour}*")}) == 1, colour
    assert before.items() <= standing(one.target).items()
    assert two.daemon.stop() == 0
    after, known = standing(one.target), rows(one)
    one.drop(1)
    said = refused(one)
    assert names_path(said, two.config.state_dir), said
    assert standing(one.target) == after
    assert rows(one) == known
    two.daemon.start()  # without --adopt: it is its own
    two.daemon.wait_ready(2)
    assert complaints(two) == []


# --- copies on the way have names of their own where files without a name are not to be had ------


def test_a_strangers_file_that_is_called_like_a_part_of_ours_stays_as_it_is(
    make: MakeInbox,
) -> None:
    one = make("one", program=WITHOUT_TMPFILE, op="copy", **STEADY)
    one.drop(3)
    one.daemon.start()
    wait_until(lambda: one.status().counts["sorted"] == 9, 30, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    folders = sorted(one.target.glob("cluster_*"))
    parts = [f".imgsortd-{mark}.part" for mark in (*range(1, 40), "try", "a1-7")]
    for folder in folders:
        for part in parts:
            (folder / part).write_text(f"a stranger's {folder}/{part}")
    before = standing(one.target)

    one.daemon.start()
    one.drop(2)
    wait_until(lambda: one.status().counts["sorted"] == 15, 30, "sorted\n" + one.daemon.log)

    after = standing(one.target)
    assert [path for path in before if after.get(path) != before[path]] == []
    assert len(after) == len(before) + 6
    assert dict.fromkeys(one.dropped, 1).items() <= sums(one.target).items()


@pytest.mark.parametrize("command", ["doctor", "run"])
def test_a_strangers_file_that_is_called_like_a_try_of_ours_stays_as_it_is(
    make: MakeInbox, command: str
) -> None:
    one = make("one", program=WITHOUT_TMPFILE, **STEADY)
    strangers = [folder / ".imgsortd-try.part" for folder in (one.inbox, one.target)]
    for stranger in strangers:
        stranger.write_text(f"a stranger's {stranger}")
    before = standing(*(stranger.parent for stranger in strangers))

    options = ["--once"] if command == "run" else []
    words = [*WITHOUT_TMPFILE, command, "-c", str(one.folder / "config.yaml"), *options]
    done = warm.run(words, {"COLUMNS": "120"}, timeout_s=60)

    assert done.returncode in (0, 1), done.stderr
    assert standing(*(stranger.parent for stranger in strangers)) == before


def test_libraries_that_are_forced_onto_one_target_never_publish_anothers_part(
    make: MakeInbox,
) -> None:
    one = make("one", program=WITHOUT_TMPFILE, op="copy", **STEADY)
    one.drop(3)
    one.daemon.start()
    wait_until(lambda: one.status().counts["sorted"] == 9, 30, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    one.drop(1)
    killed(one, "staged")
    parts = {path: path.read_bytes() for path in one.target.rglob(".imgsortd-*.part")}
    assert parts
    stranger = next(one.target.glob("cluster_*")) / ".imgsortd-3.part"
    stranger.write_text("a stranger's")
    two = make("two", program=WITHOUT_TMPFILE, op="copy", target=str(one.target), **STEADY)
    new_pictures(two.inbox, 5)  # so many that some move of it has the number of the one killed
    contents = {**sums(one.inbox), **sums(two.inbox)}

    two.daemon.start("--adopt")
    two.daemon.wait_ready()
    wait_until(lambda: two.status().counts["sorted"] == 24, 30, "sorted\n" + two.daemon.log)
    assert two.daemon.stop() == 0

    assert {path: path.read_bytes() for path in parts} == parts
    one.daemon.start("--adopt")
    one.daemon.wait_ready(2)
    wait_until(lambda: one.status().counts["sorted"] == 27, 30, "sorted\n" + one.daemon.log)
    assert stranger.read_text() == "a stranger's"
    placed = [path for path in standing(one.target) if not path.name.startswith(".")]
    found = [standing(one.target)[path] for path in placed]
    assert sorted(found) == sorted(contents)


# --- claims in an inbox that two libraries take turns with ----------------------------------------


@pytest.mark.parametrize("point", ["claimed", "copied"])
def test_a_claim_is_not_given_back_by_another_library_and_its_own_finishes_it(
    disk: Path, make: MakeInbox, point: str
) -> None:
    (disk / "target").mkdir()
    one = sorted_nine(make("one", target=str(disk / "target"), **STEADY))
    one.drop(1)
    killed(one, point)
    before = standing(one.inbox)
    assert len(claims(one.inbox)) == 1
    two = make("two", inbox=str(one.inbox), **STEADY)

    two.daemon.start("--once")  # two pictures are too few for its first fit
    assert two.daemon.process is not None
    two.daemon.process.wait(60)

    assert standing(one.inbox) == before, two.daemon.log
    assert sums(two.target) == {}
    one.daemon.start()
    one.wait_sorted(20)
    one.check()
    assert claims(one.inbox) == []
    assert complaints(one) == []


@pytest.mark.parametrize("point", ["claimed", "copied"])
def test_each_file_of_an_inbox_that_two_libraries_take_turns_with_is_in_one_place(
    disk: Path, make: MakeInbox, point: str
) -> None:
    (disk / "target").mkdir()
    one = sorted_nine(make("one", target=str(disk / "target"), **STEADY))
    one.drop(1)
    killed(one, point)
    (claim,) = claims(one.inbox)
    content = standing(one.inbox)[claim]
    two = make("two", inbox=str(one.inbox), **STEADY)
    new_pictures(one.inbox, 3)
    everything = {**one.dropped, **sums(one.inbox)}

    two.daemon.start()
    wait_until(lambda: two.status().counts["sorted"] >= 11, 30, "sorted\n" + two.daemon.log)
    assert two.daemon.stop() == 0
    one.daemon.start()
    one.daemon.wait_ready(3)
    wait_until(lambda: not claims(one.inbox), 20, "no claim left")
    one.bring(new_pictures(one.folder / "late", 1, seed=5) / "red-0.png", "late.png")
    wait_until(lambda: states(one).get("late.png") == "sorted", 20, "the late one")
    assert one.daemon.stop() == 0

    everything |= one.dropped
    assert sums(one.inbox, one.target, two.target) == dict.fromkeys(everything, 1)
    assert content in standing(one.target).values()
    assert complaints(one) == []
    assert complaints(two) == []


# --- a sort that is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "is_killed", "where"),
    [("copy", False, "another"), ("move", True, "another"), ("move", True, "its own")],
)
def test_a_sort_that_is_refused_has_changed_no_row_and_no_file(
    make: MakeInbox, tmp_path: Path, op: str, is_killed: bool, where: str
) -> None:
    one = make("one", op=op, **STEADY)
    one.drop(3)
    one.daemon.start()
    wait_until(lambda: one.status().counts["sorted"] == 9, 30, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    if is_killed:
        one.drop(1)
        killed(one, "planned")
    source = new_pictures(tmp_path / "source", 3)
    target = one.target if where == "its own" else tmp_path / "sorted"
    known, before = rows(one), standing(one.inbox, one.target, source)
    assert {row[3] for row in known["moves"]} == ({"done", "planned"} if is_killed else {"done"})

    done = sort(source, target, "-k", "5", "--op", op, "--state", str(one.config.state_dir))

    assert done.returncode not in (0, 2), done.stderr
    assert rows(one) == known
    assert standing(one.inbox, one.target, source) == before
    assert not list(tmp_path.glob("sorted/*/*.png"))
    one.daemon.start()
    one.drop(1)
    total = sum(one.dropped.values())
    wait_until(lambda: one.status().counts["sorted"] == total, 20, "sorted\n" + one.daemon.log)
    assert sums(one.target) == one.dropped
    assert not re.search(r"files=\d+ first=", one.daemon.log), "taken away by nobody"
    assert complaints(one) == []


def test_a_sort_that_is_refused_leaves_the_copies_of_an_earlier_one_as_they_are(
    tmp_path: Path,
) -> None:
    source, target = new_pictures(tmp_path / "source"), tmp_path / "target"
    assert sort(source, target).returncode == 0
    next(target.glob("cluster_*/*.png")).unlink()
    state = target / ".imgsortd" / "imgsortd.db"
    kept = tmp_path / "kept.db"
    shutil.copy(state, kept)
    before = standing(target)

    done = sort(source, target, "-k", "2")

    assert done.returncode == 1, done.stderr
    assert standing(target) == before
    assert known_in(state) == known_in(kept)
