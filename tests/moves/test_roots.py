"""Folders that become others: what is known of files belongs to the folder they stand in."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inboxes import Inbox, quick_cli
from libraries import (
    LIGHT,
    change,
    check_places,
    claims,
    complaints,
    count,
    killed,
    looked,
    names_path,
    places,
    reload,
    rows,
    sort,
    sorted_nine,
    standing,
    started,
    told,
    undo_all,
)
from support import paint_groups, sums, wait_until

MakeInbox = Callable[..., Inbox]
OPEN = ("planned", "copied")


def interrupted(make: MakeInbox, disk: Path) -> Inbox:
    """Let a daemon die with one picture claimed, and others planned to be moved."""
    (disk / "target").mkdir()
    one = sorted_nine(make("one", target=str(disk / "target"), **LIGHT))
    one.drop(2)
    killed(one, "claimed")
    assert len(claims(one.inbox)) == 1
    assert len(open_moves(one)) >= 3
    return one


def open_moves(one: Inbox) -> set[int]:
    """Return the files of the moves that are still to be made."""
    return {row[1] for row in rows(one)["moves"] if row[3] in OPEN}


def other_inbox(one: Inbox) -> Path:
    """Let the configuration name another inbox, an empty one; return the former."""
    former, folder = one.inbox, one.folder / "other inbox"
    folder.mkdir()
    change(one, inbox=str(folder))
    return former


def is_told_or_given_back(one: Inbox, former: Path) -> bool:
    """Tell whether what is hidden in a former inbox is no secret."""
    said = [text for what, text in complaints(one) if what == "claims"]
    return any(names_path(text, former) for text in said) or not claims(former)


def bring_namesakes(one: Inbox, same: Path, other: Path) -> None:
    """Bring a twin of one picture under its name, and a stranger under that of another."""
    made = one.folder / "namesakes"
    stranger, *_ = paint_groups(made, 1, seed=7)
    one.bring(Path(shutil.copy(same, made)), same.name)
    one.bring(stranger, other.name)


def repair(one: Inbox) -> None:
    done = quick_cli("doctor", one, "--repair")
    assert done.returncode in (0, 1), done.stderr


# --- another inbox: claims and open moves ---------------------------------------------------------


def test_a_claim_in_a_former_inbox_does_not_stay_hidden(disk: Path, make: MakeInbox) -> None:
    one = interrupted(make, disk)
    former = other_inbox(one)

    started(one)
    assert is_told_or_given_back(one, former)
    assert one.daemon.stop() == 0
    assert is_told_or_given_back(one, former)
    repair(one)

    assert claims(former) == []
    assert sums(former, one.inbox, one.target) == one.dropped
    change(one, inbox=str(former))
    started(one)
    one.wait_sorted(20)
    one.check()
    check_places(one)
    assert complaints(one) == []


def test_repair_gives_back_what_is_hidden_in_a_former_inbox(disk: Path, make: MakeInbox) -> None:
    one = interrupted(make, disk)
    former = other_inbox(one)
    (hidden,) = claims(former)
    content = standing(former)[hidden]

    assert is_told_or_given_back(one, former)
    repair(one)

    assert claims(former) == []
    assert content in standing(former, one.target).values()
    assert sums(former, one.inbox, one.target) == one.dropped
    assert "claims" not in [what for what, _ in complaints(one)]


def test_a_claim_of_a_sort_does_not_stay_hidden_when_another_folder_is_sorted(
    disk: Path, make: MakeInbox, tmp_path: Path
) -> None:
    first, second, target = tmp_path / "first", tmp_path / "second", disk / "target"
    paint_groups(first, 2)
    paint_groups(second, 2, seed=500)
    everything = sums(first, second)
    assert sort(first, target, "--op", "move", fault="claimed").returncode == -9
    assert len(claims(first)) == 1
    state = str(target / ".imgsortd")
    one = make("one", inbox=str(second), target=str(target), state_dir=state)

    sort(second, target, "--op", "move")

    assert is_told_or_given_back(one, first)
    repair(one)
    assert claims(first) == []
    assert sums(first, second, target) == everything
    again = [sort(folder, target, "--op", "move") for folder in (first, second)]
    assert [done.returncode for done in again] == [0, 0], again
    assert sums(target) == everything
    check_places(one)
    assert complaints(one) == []


def test_what_is_open_in_a_former_inbox_that_is_away_waits_for_it(
    disk: Path, make: MakeInbox, tmp_path: Path
) -> None:
    one = interrupted(make, disk)
    waiting = open_moves(one)
    planned = [row[1].decode() for row in rows(one)["files"] if row[0] in waiting]
    former = other_inbox(one)
    away = former.rename(tmp_path / "away")
    before, logged = standing(away), len(one.daemon.log)
    same, other = sorted(away / src for src in planned if (away / src).exists())[:2]
    bring_namesakes(one, same, other)

    started(one)
    wait_until(lambda: not sums(one.inbox), 20, "both are sorted\n" + one.daemon.log)

    wait_until(lambda: open_moves(one) == waiting, 20, "their books are closed")
    assert standing(away) == before
    assert names_path(told(one) + one.daemon.log[logged:], former)
    assert count(one) + count(one, "duplicates") == 11
    assert one.daemon.stop() == 0
    repair(one)
    assert open_moves(one) == waiting
    assert standing(away) == before
    assert names_path(told(one), former)
    away.rename(former)
    change(one, inbox=str(former))
    started(one)
    wait_until(lambda: not sums(one.inbox), 20, "all sorted\n" + one.daemon.log)
    one.wait_sorted(20)
    one.check()
    check_places(one)
    assert complaints(one) == []


def test_what_a_sort_has_left_open_in_a_folder_that_is_away_waits_for_it(
    disk: Path, make: MakeInbox, tmp_path: Path
) -> None:
    first, second, target = tmp_path / "first", tmp_path / "second", disk / "target"
    paint_groups(first, 2)
    paint_groups(second, 2, seed=500)
    everything = sums(first, second)
    assert sort(first, target, "--op", "move", fault="claimed").returncode == -9
    state = str(target / ".imgsortd")
    one = make("one", inbox=str(second), target=str(target), state_dir=state)
    waiting = open_moves(one)
    away = first.rename(tmp_path / "away")
    before = standing(away)

    done = sort(second, target, "--op", "move")

    assert open_moves(one) == waiting
    assert standing(away) == before
    assert names_path(told(one) + done.stdout + done.stderr, first)
    assert sums(second) == {}
    away.rename(first)
    again = sort(first, target, "--op", "move")
    assert again.returncode == 0, again.stderr
    assert sums(target) == everything
    check_places(one)
    assert complaints(one) == []


def test_a_picture_that_waits_in_a_former_inbox_is_not_taken_for_one_of_its_name(
    make: MakeInbox,
) -> None:
    one = make("one", clusters={"min_images": 8}, **LIGHT)
    one.drop(1)
    started(one)
    wait_until(lambda: count(one, "pending") == 3, 20, "three wait")
    assert one.daemon.stop() == 0
    former = other_inbox(one)
    waiting = standing(former)
    bring_namesakes(one, *sorted(waiting)[:2])
    one.drop(2)

    started(one)
    wait_until(lambda: not sums(one.inbox), 20, "all of the new inbox\n" + one.daemon.log)

    assert standing(former) == waiting
    assert sum(sums(one.target).values()) == 8
    assert one.daemon.stop() == 0
    change(one, inbox=str(former))
    started(one)
    wait_until(lambda: not sums(one.inbox), 20, "all of the former\n" + one.daemon.log)
    one.wait_sorted(20)
    one.check()
    check_places(one)
    assert complaints(one) == []


# --- another op: links stay known -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "new"), [("symlink", "copy"), ("hardlink", "copy"), ("symlink", "move")]
)
def test_links_stay_known_when_another_op_is_set(make: MakeInbox, op: str, new: str) -> None:
    one = make("one", op=op, **LIGHT)
    one.drop(3)
    started(one)
    wait_until(lambda: count(one) == 9, 30, "sorted\n" + one.daemon.log)
    links = {path: path.lstat().st_ino for path in standing(one.target)}
    known, batches = places(one), {row[2] for row in rows(one)["moves"]}
    sources = standing(one.inbox)

    change(one, op=new)
    reload(one)
    looked(one)

    assert count(one) == 11
    assert known == [row for row in places(one) if row in known]
    assert {path: path.lstat().st_ino for path in links} == links
    assert sources.items() <= standing(one.inbox).items()
    assert complaints(one) == []
    assert complaints(one, "--deep") == []
    assert one.daemon.stop() == 0
    after, rows_after = standing(one.inbox, one.target), rows(one)["files"]
    started(one)
    assert standing(one.inbox, one.target) == after
    assert rows(one)["files"] == rows_after
    looked(one)
    assert count(one) == 13
    undone = [quick_cli("undo", one, "--batch", str(batch)) for batch in sorted(batches)]
    assert [done.returncode for done in undone] == [0] * len(batches), undone
    assert count(one, "undone") == 9
    assert [path for path in links if os.path.lexists(path)] == []
    assert sources.items() <= standing(one.inbox).items()
    assert one.daemon.stop() == 0
    assert complaints(one) == []


@pytest.mark.parametrize(("op", "new"), [("symlink", "copy"), ("symlink", "move")])
def test_links_stay_known_when_another_op_is_set_while_the_daemon_is_stopped(
    make: MakeInbox, op: str, new: str
) -> None:
    one = make("one", op=op, **LIGHT)
    one.drop(3)
    started(one)
    wait_until(lambda: count(one) == 9, 30, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    before, known = standing(one.inbox, one.target), places(one)
    change(one, op=new)

    assert complaints(one) == []
    assert complaints(one, "--deep") == []
    repair(one)
    assert places(one) == known
    started(one)
    looked(one)

    assert count(one) == 11
    assert known == [row for row in places(one) if row in known]
    assert before.items() <= standing(one.inbox, one.target).items()
    assert one.daemon.stop() == 0
    assert complaints(one) == []


# --- another target: what stands in the former is not gone ----------------------------------------


def other_target(one: Inbox, folder: Path, way: str) -> None:
    """Let the daemon sort into another folder from now on."""
    if way == "stopped":
        assert one.daemon.stop() == 0
    folder.mkdir(exist_ok=True)
    change(one, target=str(folder))
    if way == "stopped":
        started(one)
    else:
        reload(one)


@pytest.mark.parametrize("way", ["reloaded", "stopped"])
def test_pictures_in_a_former_target_are_not_gone(
    make: MakeInbox, tmp_path: Path, way: str
) -> None:
    one = make("one", **LIGHT)
    one.drop(3)
    started(one)
    one.wait_sorted()
    former, known, before = one.target, places(one), standing(one.target)

    other_target(one, tmp_path / "new target", way)
    (late,) = paint_groups(tmp_path / "made", 1, seed=7)[:1]
    one.bring(late, "10000-red-0.png")
    wait_until(lambda: len(standing(one.target)) == 1, 20, "sorted\n" + one.daemon.log)
    looked(one)

    assert count(one) == 12
    assert [path.name for path in one.target.rglob("10000-*")] == ["10000-red-0.png"]
    assert known == [row for row in places(one) if row in known]
    assert standing(former) == before
    assert sums(former, one.target) == one.dropped
    assert complaints(one) == []
    new = one.target
    other_target(one, former, way)
    looked(one)
    assert count(one) == 14
    assert known == [row for row in places(one) if row in known]
    assert sums(former, new) == one.dropped
    assert complaints(one) == []
    other_target(one, new, way)
    looked(one)
    assert count(one) == 16
    assert sums(former, new) == one.dropped
    assert one.daemon.stop() == 0
    repair(one)
    assert count(one) == 16
    assert complaints(one) == []


def test_an_undo_of_pictures_in_a_former_target_touches_nothing_in_the_new_one(
    make: MakeInbox, tmp_path: Path
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    former, batches = one.target, {row[2] for row in rows(one)["moves"]}
    (tmp_path / "new target").mkdir()
    change(one, target=str(tmp_path / "new target"))
    started(one)
    one.drop(3)
    wait_until(lambda: count(one) == 18, 20, "sorted\n" + one.daemon.log)
    looked(one)
    assert count(one) == 20
    new = standing(one.target)

    for batch in sorted(batches):
        quick_cli("undo", one, "--batch", str(batch))

    assert standing(one.target) == new
    assert one.daemon.stop() == 0
    assert sums(one.inbox, former, one.target) == one.dropped
    assert count(one, "sorted") + count(one, "undone") == 20
    assert complaints(one) == []


# --- the target is away ---------------------------------------------------------------------------


def sorted_by(make: MakeInbox, op: str, **changes: Any) -> Inbox:
    """Let a daemon sort nine pictures, and go on."""
    one = make("one", **{**LIGHT, "op": op, **changes})
    one.drop(3)
    started(one)
    wait_until(lambda: count(one) == 9, 30, "sorted\n" + one.daemon.log)
    return one


def take_away(one: Inbox, instead: str) -> Path:
    """Rename target, with an empty folder or nothing in its place; return where it is."""
    former = one.target.rename(one.folder / "former target")
    if instead == "an empty folder":
        one.target.mkdir()
    return former


def put_back(one: Inbox, former: Path) -> None:
    if one.target.exists():
        one.target.rename(one.folder / "empty")
    former.rename(one.target)


@pytest.mark.parametrize("then", ["repair", "start"])
@pytest.mark.parametrize("instead", ["an empty folder", "nothing"])
@pytest.mark.parametrize("op", ["move", "copy"])
def test_repair_forgets_nothing_of_a_target_that_is_away(
    make: MakeInbox, op: str, instead: str, then: str
) -> None:
    one = sorted_by(make, op, model={"weights": "auto"})  # or it has a complaint in any case
    assert one.daemon.stop() == 0
    placed = places(one)
    known, before = rows(one), standing(one.inbox, one.target)
    former = take_away(one, instead)

    done = quick_cli("doctor", one, "--repair")

    wanted = (1,) if instead == "an empty folder" else (1, 78)  # the configuration names no folder
    assert done.returncode in wanted, done.stdout + done.stderr
    assert names_path(done.stdout + done.stderr, one.target)
    assert rows(one) == known
    put_back(one, former)
    if then == "repair":
        repair(one)
    started(one)
    looked(one)
    assert placed == [row for row in places(one) if row in placed]
    assert len(rows(one)["files"]) == 12
    assert before.items() <= standing(one.inbox, one.target).items()
    check_places(one)
    assert one.daemon.stop() == 0
    assert complaints(one) == []


@pytest.mark.parametrize(
    ("way", "instead"),
    # Without any folder a start is refused, as the configuration names none.
    [("running", "an empty folder"), ("stopped", "an empty folder"), ("running", "nothing")],
)
@pytest.mark.parametrize("op", ["move", "copy"])
def test_a_daemon_whose_target_is_away_says_so_and_waits_for_it(
    make: MakeInbox, op: str, way: str, instead: str
) -> None:
    one = sorted_by(make, op)
    if way == "stopped":
        assert one.daemon.stop() == 0
    known, before = places(one), sums(one.target)
    former = take_away(one, instead)

    if way == "stopped":
        one.daemon.start()
    one.drop(1)
    wait_until(
        lambda: names_path(one.status().note, one.target) or standing(one.target),
        20,
        "paused\n" + one.daemon.log,
    )

    assert standing(one.target) == {}
    said = quick_cli("status", one, "--json")
    assert names_path(said.stdout + said.stderr, one.target)
    assert places(one) == known
    assert sums(former) == before
    put_back(one, former)
    wait_until(lambda: count(one) == 12, 20, "it goes on by itself\n" + one.daemon.log)
    looked(one)
    assert sums(one.target) == one.dropped
    assert known == [row for row in places(one) if row in known]
    check_places(one)
    assert one.daemon.stop() == 0
    assert complaints(one) == []


# --- the inbox is away ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["running", "stopped"])
def test_pictures_put_back_stay_undone_while_an_empty_folder_is_in_the_place_of_the_inbox(
    make: MakeInbox, tmp_path: Path, way: str
) -> None:
    one = sorted_nine(make("one", rescan_s=1, **LIGHT))
    undo_all(one)
    undone = standing(one.inbox)
    started(one)
    wait_until(lambda: count(one, "undone") == 9, 20, "undone")
    if way == "stopped":
        assert one.daemon.stop() == 0

    former = one.inbox.rename(tmp_path / "former")
    one.inbox.mkdir()
    if way == "stopped":
        one.daemon.start()
    one.drop(1)
    wait_until(lambda: count(one) == 3, 30, "sorted from the empty one\n" + one.daemon.log)
    assert count(one, "undone") == 9
    if way == "stopped":
        assert one.daemon.stop() == 0
    one.inbox.rename(tmp_path / "empty")
    former.rename(one.inbox)
    if way == "stopped":
        one.daemon.start()
    one.drop(1)
    wait_until(lambda: count(one) == 6, 30, "sorted from the former one\n" + one.daemon.log)

    assert count(one, "undone") == 9
    assert undone.items() <= standing(one.inbox).items()
    assert one.daemon.stop() == 0
    assert sums(one.inbox, one.target) == one.dropped
    repair(one)
    assert count(one, "undone") == 9
    assert complaints(one) == []


@pytest.mark.parametrize("way", ["reloaded", "stopped"])
def test_pictures_put_back_stay_undone_while_another_folder_is_the_inbox(
    make: MakeInbox, way: str
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    undo_all(one)
    undone = standing(one.inbox)
    started(one)

    def move_to(inbox: Path) -> None:
        if way == "stopped":
            assert one.daemon.stop() == 0
        inbox.mkdir(exist_ok=True)
        change(one, inbox=str(inbox))
        if way == "stopped":
            started(one)
        else:
            reload(one)

    former = one.inbox
    move_to(one.folder / "other")
    one.drop(1)
    wait_until(lambda: count(one) == 3, 30, "sorted from the other one\n" + one.daemon.log)
    assert count(one, "undone") == 9
    move_to(former)
    one.drop(1)
    wait_until(lambda: count(one) == 6, 30, "sorted from the former one\n" + one.daemon.log)

    assert count(one, "undone") == 9
    assert undone.items() <= standing(one.inbox).items()
    assert one.daemon.stop() == 0
    assert sums(one.inbox, one.target) == one.dropped
    assert complaints(one) == []


@pytest.mark.parametrize("way", ["running", "stopped"])
def test_sources_of_copies_are_not_copied_again_after_an_empty_folder_was_in_place_of_the_inbox(
    make: MakeInbox, tmp_path: Path, way: str
) -> None:
    one = sorted_by(make, "copy")
    if way == "stopped":
        assert one.daemon.stop() == 0
    former = one.inbox.rename(tmp_path / "former")
    one.inbox.mkdir()

    if way == "stopped":
        one.daemon.start()
    one.drop(1)
    wait_until(lambda: count(one) == 12, 30, "sorted from the empty one\n" + one.daemon.log)
    if way == "stopped":
        assert one.daemon.stop() == 0
    one.inbox.rename(tmp_path / "empty")
    former.rename(one.inbox)
    if way == "stopped":
        one.daemon.start()
    one.drop(1)
    wait_until(lambda: count(one) == 15, 30, "sorted from the former one\n" + one.daemon.log)

    assert sums(one.target) == one.dropped
    assert Counter(one.status().counts)["seen"] == 15
    check_places(one)
    assert complaints(one) == []
