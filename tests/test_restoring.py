"""A database that was damaged or lost: nothing of the pictures is, and sorting goes on."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imgsortd.adapters.store import open_read_only
from inboxes import Inbox
from support import sums, tree, wait_until


def sorted_inbox(make: Callable[..., Inbox], **changes: object) -> Inbox:
    """Return an inbox whose daemon has sorted nine pictures, made a backup, and ended."""
    one = make(**changes)
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    wait_until(lambda: one.status().backup, what="a backup")
    assert one.daemon.stop() == 0
    return one


def without_backups(one: Inbox) -> None:
    shutil.rmtree(one.config.state_dir / "backups")


def truncated(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def text(database: Path) -> None:
    database.write_text("this is no database, though it is longer than its header" * 10)


def random_page(database: Path) -> None:
    with open(database, "r+b") as file:
        file.seek(8192)
        file.write(os.urandom(8192))


def removed(database: Path) -> None:
    database.unlink()


DAMAGES = [truncated, text, random_page, removed]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("has_backup", [True, False])
def test_a_lost_database_is_restored_or_rebuilt_and_sorting_goes_on(
    make: Callable[..., Inbox], damage: Callable[[Path], None], has_backup: bool
) -> None:
    one = sorted_inbox(make)
    if not has_backup:
        without_backups(one)
    before = tree(one.target)
    damage(one.config.database)
    damaged = one.config.database.read_bytes() if one.config.database.exists() else None
    one.drop(1)

    one.daemon.start()

    one.wait_sorted()
    one.check()
    after = tree(one.target)
    assert {name: set(files) - set(before[name]) for name, files in after.items()}.keys() == (
        before.keys()
    )
    assert all(set(before[name]) < set(after[name]) and len(after[name]) == 4 for name in before)
    error = one.status().errors[0]
    assert error["event"] == "database lost"
    assert ("restored from" in error["detail"]) == has_backup
    asides = list(one.config.state_dir.glob("*.damaged-*[0-9]"))
    assert [path.read_bytes() for path in asides] == ([damaged] if damaged else [])


def test_what_was_sorted_after_the_backup_is_found_in_target(make: Callable[..., Inbox]) -> None:
    one = sorted_inbox(make)
    one.daemon.start()
    one.drop(2)
    one.wait_sorted()
    assert one.daemon.stop() == 0
    before = tree(one.target)
    truncated(one.config.database)

    one.daemon.start()
    one.daemon.wait_ready(3)
    one.drop(1)
    one.wait_sorted()

    one.check()
    assert all(set(files) < set(tree(one.target)[name]) for name, files in before.items())
    assert "files found in target that it did not know: 6" in one.status().errors[0]["detail"]


def test_killed_while_it_rebuilds_it_begins_anew(make: Callable[..., Inbox]) -> None:
    one = sorted_inbox(make)
    without_backups(one)
    text(one.config.database)
    for point in ("database_aside", "database_remade"):
        one.daemon.start(IMGSORTD_FAULT_POINT=point)
        assert one.daemon.process is not None
        assert one.daemon.process.wait(60) == -9
        assert sums(one.target) == one.dropped

    one.daemon.start()
    one.drop(1)
    one.wait_sorted()

    one.check()
    assert not list(one.config.state_dir.glob("*.new*"))
    assert len(list(one.config.state_dir.glob("*.damaged-*[0-9]"))) == 1


def test_damage_met_later_ends_the_daemon_and_the_next_start_mends_it(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make)
    one.daemon.start()
    one.daemon.wait_ready(2)
    connection = sqlite3.connect(one.config.database)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET rootpage = 1 WHERE name = 'files_src'")
    connection.execute("PRAGMA schema_version = 4711")
    connection.commit()
    connection.close()

    one.drop(1)

    assert one.daemon.process is not None
    assert one.daemon.process.wait(60) == 1
    one.daemon.start()
    one.wait_sorted()
    one.check()


def test_a_database_taken_away_under_the_daemon_stops_it_before_anything_moves(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make)
    one.daemon.start()
    one.daemon.wait_ready(2)
    before = sums(one.target)
    one.config.database.rename(one.folder / "taken.db")

    one.drop(1)

    assert one.daemon.process is not None
    assert one.daemon.process.wait(60) == 1
    assert "while it was in use; nothing more is sorted" in one.daemon.log
    assert sums(one.target) == before
    one.daemon.start()
    one.wait_sorted()
    one.check()


HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
connection.execute("BEGIN " + sys.argv[2])
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_lock_of_another_program_pauses_sorting_until_it_is_gone(
    make: Callable[..., Inbox], kind: str
) -> None:
    one = sorted_inbox(make)
    one.daemon.start()
    one.daemon.wait_ready(2)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(one.config.database), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    before = sums(one.target)

    one.drop(2)
    wait_until(lambda: "sorting paused" in one.daemon.log, what="paused")

    assert "locked by another program for over 10 s" in one.daemon.log
    assert sums(one.target) == before
    holder.communicate(b"")
    one.wait_sorted()
    one.check()
    assert one.daemon.is_alive()


def test_a_locked_or_read_only_or_newer_database_is_no_reason_to_make_another(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make)
    connection = sqlite3.connect(one.config.database)
    connection.execute(
        "INSERT INTO _sqlite_migrations(migration_set, name, applied_at) "
        "VALUES ('imgsortd', 'm999_future', '2030')"
    )
    connection.commit()
    connection.close()
    before = one.config.database.read_bytes()

    one.daemon.start()

    assert one.daemon.process is not None
    assert one.daemon.process.wait(60) == 1
    assert "was written by a newer imgsortd" in one.daemon.log
    assert one.config.database.read_bytes() == before
    assert not list(one.config.state_dir.glob("*.damaged-*[0-9]"))


def test_cluster_folders_made_before_imgsortd_keep_their_numbers(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make)
    before = tree(one.target)
    shutil.rmtree(one.config.state_dir)

    one.daemon.start()
    one.drop(1)
    one.wait_sorted()

    one.check()
    store = open_read_only(one.config.database)
    assert store.records.next_cluster_id() == 3
    store.close()
    assert all(set(files) < set(tree(one.target)[name]) for name, files in before.items())


def test_a_backup_is_made_by_the_day_and_no_more_are_kept_than_asked(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make, backups=2)
    folder = one.config.state_dir / "backups"
    (today,) = folder.iterdir()
    for day in ("2020-01-01", "2020-01-02", "2099-01-01"):
        today.rename(folder / f"imgsortd-{day}.db")
        shutil.copy(folder / f"imgsortd-{day}.db", today)
    today.unlink()

    one.daemon.start()

    wait_until(lambda: today.exists() and len(list(folder.iterdir())) == 2, what="pruned")
    assert sorted(path.name for path in folder.iterdir()) == [
        "imgsortd-2020-01-02.db",
        today.name,
    ]
    assert one.daemon.stop(signal.SIGTERM, timeout_s=10) == 0
