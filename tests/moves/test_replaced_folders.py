"""Folders that are replaced, renamed, shared or lost while the books speak of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from inboxes import Inbox, quick_cli
from libraries import (
    LIGHT,
    change,
    check_places,
    complaints,
    count,
    killed,
    names_path,
    names_pid,
    refused,
    rows,
    sorted_nine,
    standing,
    started,
    told,
    undo_all,
)
from support import paint_groups, sums, wait_until
from target.test_restored import old_library

MakeInbox = Callable[..., Inbox]


def lost(one: Inbox) -> None:
    wait_until(lambda: names_path(one.status().note, one.target), 20, "lost\n" + one.daemon.log)


def test_a_rename_while_the_target_is_away_does_not_mark_what_is_in_its_place(
    make: MakeInbox, tmp_path: Path
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    started(one)
    one.target.rename(tmp_path / "former")
    one.target.mkdir()
    lost(one)
    number = next(row[4] for row in rows(one)["files"] if row[3] == "sorted")

    quick_cli("rename", one, str(number), "holidays")

    one.drop(1)
    wait_until(lambda: one.status().note or standing(one.target), 10)
    import time

    time.sleep(8)  # hostile: what is said and done meanwhile
    assert standing(one.target) == {}
    assert count(one) == 9
    assert not (one.target / ".imgsortd-library").exists()


def test_the_daemon_lives_while_the_inbox_is_away_and_the_target_is_another_folder(
    make: MakeInbox, tmp_path: Path
) -> None:
    one = sorted_nine(make("one", rescan_s=1, **LIGHT))
    started(one)
    inbox = one.inbox.rename(tmp_path / "inbox away")
    wait_until(lambda: one.status().note, 20, "inbox lost")
    target = one.target.rename(tmp_path / "target away")
    one.target.mkdir()
    import time

    time.sleep(5)
    assert one.daemon.is_alive(), one.daemon.log[-1500:]
    one.target.rmdir()
    target.rename(one.target)
    inbox.rename(one.inbox)
    one.drop(1)
    one.wait_sorted(20)


def test_a_target_that_was_away_is_held_again_when_it_is_back(
    make: MakeInbox, tmp_path: Path
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    started(one)
    former = one.target.rename(tmp_path / "former")
    one.target.mkdir()
    lost(one)
    one.target.rmdir()
    former.rename(one.target)
    wait_until(lambda: not one.status().note, 20, "back")
    two = make("two", target=str(one.target), **LIGHT)

    said = refused(two, "--adopt")

    assert names_pid(said, one), said


@pytest.mark.parametrize("way", ["made anew", "another path", "another path, still there"])
def test_a_move_that_was_made_is_closed_though_its_inbox_is_no_more(
    make: MakeInbox, tmp_path: Path, way: str
) -> None:
    one = sorted_nine(make("one", rescan_s=1, **LIGHT))
    one.drop(1)
    killed(one, "moves_synced")  # all three stand in target, no row is closed
    assert sums(one.inbox) == {}
    assert sums(one.target) == one.dropped
    if way == "made anew":
        one.inbox.rename(tmp_path / "old")  # keeps the inode in use
        shutil.rmtree(tmp_path / "old")
        (tmp_path / "taker").mkdir()  # takes the inode
        one.inbox.mkdir()
    else:
        former = one.inbox
        folder = one.folder / "other"
        folder.mkdir()
        change(one, inbox=str(folder))
        if way == "another path":
            shutil.rmtree(former)

    started(one)
    one.drop(1)
    wait_until(lambda: count(one) >= 12, 20, "sorted\n" + one.daemon.log)
    import time

    time.sleep(3)
    one.daemon.stop()
    quick_cli("doctor", one, "--repair")
    assert count(one) == 15, told(one)
    assert complaints(one) == []


@pytest.mark.parametrize("way", ["running", "stopped"])
def test_undone_pictures_stay_undone_after_a_card_with_the_same_names(
    make: MakeInbox, tmp_path: Path, way: str
) -> None:
    one = sorted_nine(make("one", rescan_s=1, **LIGHT))
    undo_all(one)
    started(one)
    undone = standing(one.inbox)
    assert len(undone) == 9
    if way == "stopped":
        assert one.daemon.stop() == 0
    former = one.inbox.rename(tmp_path / "former")
    one.inbox.mkdir()
    other = paint_groups(one.folder / "card", 3, seed=77)
    for path, name in zip(sorted(other), sorted(undone), strict=True):
        one.bring(path, name.name)
    if way == "stopped":
        one.daemon.start()
    wait_until(lambda: not sums(one.inbox), 30, "the other card\n" + one.daemon.log)
    if way == "stopped":
        assert one.daemon.stop() == 0
    one.inbox.rename(tmp_path / "other card")
    former.rename(one.inbox)
    if way == "stopped":
        one.daemon.start()
    one.drop(1)
    wait_until(lambda: count(one) >= 12, 30, "three more\n" + one.daemon.log)
    import time

    time.sleep(3)
    assert undone.items() <= standing(one.inbox).items(), one.status().counts
    assert count(one, "undone") == 9


@pytest.mark.parametrize("way", ["away", "another library's"])
def test_pictures_planned_for_a_former_target_go_to_the_one_that_is_configured(
    make: MakeInbox, tmp_path: Path, way: str
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    one.drop(2)
    killed(one, "planned")
    assert len(sums(one.inbox)) == 6
    former = one.target
    if way == "away":
        away = one.target.rename(tmp_path / "away")
    else:
        two = make("two", target=str(one.target), **LIGHT)
        two.daemon.start("--adopt")
        two.daemon.wait_ready()
        assert two.daemon.stop() == 0
        away = former
    before = standing(away)
    (one.folder / "target 2").mkdir()
    change(one, target=str(one.folder / "target 2"))
    started(one)
    import time

    time.sleep(5)
    assert standing(away) == before
    assert len(sums(one.inbox)) == 0
    assert len(sums(one.target)) == 6


def test_an_older_library_keeps_what_it_knows_of_an_inbox_that_is_away_at_the_first_start(
    make: MakeInbox, tmp_path: Path
) -> None:
    one = make("one", refit={"growth": "off", "interval": "off"})
    old_library(one, one.config.database)
    status = os.stat(one.inbox)
    (one.config.state_dir / "inbox.json").write_text(
        json.dumps(
            {
                "path": os.fspath(one.inbox),
                "home": [os.statvfs(one.inbox).f_fsid, status.st_ino],
                "elsewhere": [],
            }
        )
    )
    undone = {path for path in standing(one.inbox) if "30000" not in path.name}
    former = one.inbox.rename(tmp_path / "former")
    one.inbox.mkdir()
    started(one)
    one.drop(1)
    wait_until(lambda: not sums(one.inbox), 30, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    one.inbox.rename(tmp_path / "empty")
    former.rename(one.inbox)
    started(one)
    import time

    time.sleep(8)
    assert count(one, "undone") == 3
    assert undone <= set(standing(one.inbox))


def test_an_inbox_that_could_not_be_noted_is_noted_at_the_next_look(tmp_path: Path) -> None:
    from imgsortd.errors import WatchError
    from imgsortd.inbox.whereabouts import Whereabouts
    from imgsortd.moves.roots import Roots
    from imgsortd.records import Root
    from imgsortd.store.database import open_for_writing
    from imgsortd.store.roots import FolderId
    from support import make_config

    config = make_config(tmp_path)
    with open_for_writing(config.database) as store:
        roots = Roots(config, store, lambda: None)
        whereabouts = Whereabouts(config.inbox, roots, lambda: None, lambda _: False)
        whereabouts.meet(config.inbox.stat())
        config.inbox.rename(tmp_path / "former")
        config.inbox.mkdir()
        with pytest.raises(WatchError):
            whereabouts.meet(config.inbox.stat())
        store.connection.execute("PRAGMA busy_timeout = 50")
        with closing(sqlite3.connect(config.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(Exception, match="lock"):
                whereabouts.meet(config.inbox.stat())
            other.execute("ROLLBACK")

        whereabouts.meet(config.inbox.stat())

        assert store.roots.current(Root.INBOX).folder == FolderId.of(config.inbox)
        assert not whereabouts.is_away


def test_a_target_whose_marker_was_removed_and_that_comes_back_is_counted_once(
    make: MakeInbox,
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    (one.target / ".imgsortd-library").unlink()
    two = make("two", target=str(one.target), **LIGHT)
    started(two)
    assert two.daemon.stop() == 0
    one.daemon.start("--adopt")
    one.daemon.wait_ready(2)
    one.drop(1)
    wait_until(lambda: not sums(one.inbox), 20, one.daemon.log)
    assert one.daemon.stop() == 0
    assert count(one) == 12, one.status().counts
    check_places(one)


def test_an_undo_into_a_former_inbox_that_is_no_more_leaves_no_open_move(
    make: MakeInbox,
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    former = one.inbox
    (one.folder / "other").mkdir()
    change(one, inbox=str(one.folder / "other"))
    shutil.rmtree(former)
    started(one)
    assert one.daemon.stop() == 0
    quick_cli("undo", one, "--batch", "1")
    assert [row for row in rows(one)["moves"] if row[3] in ("planned", "copied")] == []
    assert complaints(one) == []


def test_an_older_library_does_not_take_an_empty_folder_for_its_target(
    make: MakeInbox, tmp_path: Path
) -> None:
    one = make("one", refit={"growth": "off", "interval": "off"})
    old_library(one, one.config.database)
    former = one.target.rename(tmp_path / "former")
    one.target.mkdir()
    started(one)
    one.drop(1)
    import time

    time.sleep(12)
    one.target.rename(tmp_path / "stub")
    former.rename(one.target)
    time.sleep(4)
    assert standing(tmp_path / "stub") == {}
    assert not (tmp_path / "stub" / ".imgsortd-library").exists()


def test_an_undo_takes_nothing_out_of_a_target_that_another_library_has_taken_over(
    make: MakeInbox,
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    two = make("two", target=str(one.target), **LIGHT)
    two.daemon.start("--adopt")
    two.daemon.wait_ready()
    before = standing(two.target)
    (one.folder / "target 2").mkdir()
    change(one, target=str(one.folder / "target 2"))
    started(one)
    assert one.daemon.stop() == 0
    quick_cli("undo", one, "--batch", "1")
    assert standing(two.target) == before


def test_a_marker_that_is_deleted_while_the_daemon_runs_is_written_again(make: MakeInbox) -> None:
    one = sorted_nine(make("one", **LIGHT))
    started(one)
    (one.target / ".imgsortd-library").unlink()
    one.drop(1)
    one.wait_sorted(20)
    import time

    time.sleep(4)
    assert one.daemon.stop() == 0
    started(one)  # not even by the next start
    one.drop(1)
    one.wait_sorted(20)
    assert one.daemon.stop() == 0
    assert (one.target / ".imgsortd-library").exists()


def test_sudo_leaves_the_state_to_its_owner(make: MakeInbox) -> None:
    one = sorted_nine(make("one", **LIGHT))
    for path in (one.config.state_dir, *one.config.state_dir.rglob("*")):
        os.chown(path, 65534, 65534)
    done = quick_cli("undo", one)
    assert done.returncode == 0
    owners = {path.name: path.stat().st_uid for path in one.config.state_dir.rglob("*")}
    assert owners["imgsortd.db"] == 65534
    assert owners["library.json"] == 65534


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"id": 5}',
        '{"id": "", "batches": 5}',
        '{"id": "abc", "batches": null}',
        '{"id": "abc", "taken_over": 5}',
    ],
)
def test_a_damaged_library_file_keeps_no_daemon_from_starting(make: MakeInbox, text: str) -> None:
    one = sorted_nine(make("one", **LIGHT))
    (one.config.state_dir / "library.json").write_text(text)
    one.daemon.start()
    wait_until(lambda: not one.daemon.is_alive() or one.daemon.log.count("daemon ready") == 2, 20)
    assert one.daemon.is_alive(), one.daemon.log[-700:]
    one.drop(1)
    one.wait_sorted(20)


def test_a_target_under_another_path_is_still_missed_when_it_is_away(
    make: MakeInbox, tmp_path: Path
) -> None:
    one = sorted_nine(make("one", **LIGHT))
    new = one.folder / "mounted elsewhere now"
    one.target.rename(new)
    change(one, target=str(new))
    started(one)
    assert one.daemon.stop() == 0
    assert complaints(one) == []
    former = new.rename(tmp_path / "away")
    new.mkdir()  # the mount point without its disk
    started(one)
    one.drop(1)
    wait_until(lambda: one.status().note or not sums(one.inbox), 20, one.daemon.log)
    assert standing(one.target) == {}
    assert len(standing(former)) == 9


def test_a_fifo_in_place_of_the_marker_does_not_hang_the_start(make: MakeInbox) -> None:
    one = make("one", **LIGHT)
    os.mkfifo(one.target / ".imgsortd-library")
    one.daemon.start()
    try:
        wait_until(
            lambda: not one.daemon.is_alive() or "daemon ready" in one.daemon.log, 15, "decided"
        )
    finally:
        if one.daemon.is_alive():
            one.daemon.send(signal.SIGKILL)
            one.daemon.process.wait(10)
