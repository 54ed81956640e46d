"""A database that was damaged or lost: nothing of the pictures is, and sorting goes on."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgsortd.errors import StoreError
from imgsortd.store.backups import is_whole
from imgsortd.store.database import open_for_reading
from imgsortd.target.rebuild import open_or_restore
from inboxes import Inbox
from mounts import remount, tmpfs
from pace import PACE
from support import make_config, sums, tree, wait_until

LOCKED_S = PACE["store.health.BUSY_TIMEOUT_S"]


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


def empty(database: Path) -> None:
    os.truncate(database, 0)


def removed(database: Path) -> None:
    database.unlink()


def removed_but_for_its_journal(database: Path) -> None:
    """Leave what SQLite would play back into whatever has this name next."""
    die_writing = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
        "db.execute('PRAGMA cache_size = 1'); db.execute('DELETE FROM files'); "
        "db.executemany('INSERT INTO errors(at, event, detail) VALUES (0, 0, ?)', "
        "[('x' * 4000,)] * 50); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", die_writing, str(database)], check=False)
    assert any(Path(f"{database}{end}").exists() for end in ("-journal", "-wal"))
    database.unlink()


DAMAGES = [truncated, text, random_page, empty, removed, removed_but_for_its_journal]


@pytest.mark.parametrize(
    ("damage", "has_backup"),
    [
        # Each damage once, half of them with a backup; the other halves in the laboratory.
        pytest.param(
            damage,
            has_backup,
            marks=[] if has_backup == (number % 2 == 0) else [pytest.mark.faults],
        )
        for number, damage in enumerate(DAMAGES)
        for has_backup in (True, False)
    ],
)
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
    assert error.event == "database lost"
    assert ("restored from" in error.detail) == has_backup
    asides = list(one.config.state_dir.glob("*.damaged-*[0-9]"))
    assert [path.read_bytes() for path in asides] == ([] if damaged is None else [damaged])
    assert is_whole(one.config.database)


def test_what_was_sorted_after_the_backup_is_found_in_target(make: Callable[..., Inbox]) -> None:
    one = sorted_inbox(make)
    (backup,) = (one.config.state_dir / "backups").iterdir()
    store = open_for_reading(backup)
    known = store.files.counts().sorted  # it may have been made when not all were
    store.close()
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
    assert f": {15 - known} files of target taken in" in one.status().errors[0].detail


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


@contextmanager
def held(one: Inbox, kind: str) -> Iterator[None]:
    """Let another process hold a lock on the database."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(one.config.database), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        holder.communicate(b"")


@pytest.mark.parametrize("kind", [pytest.param("IMMEDIATE", marks=pytest.mark.faults), "EXCLUSIVE"])
def test_a_lock_of_another_program_pauses_sorting_until_it_is_gone(
    make: Callable[..., Inbox], kind: str
) -> None:
    one = sorted_inbox(make)
    one.daemon.start()
    one.daemon.wait_ready(2)
    before = sums(one.target)

    with held(one, kind):
        one.drop(2)
        wait_until(lambda: "sorting paused" in one.daemon.log, what="paused")

        assert f"locked by another program for over {LOCKED_S:g} s" in one.daemon.log
        assert sums(one.target) == before

    one.wait_sorted()
    one.check()
    assert one.daemon.is_alive()


def of_a_newer_version(database: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute(
        "INSERT INTO _sqlite_migrations(migration_set, name, applied_at) "
        "VALUES ('imgsortd', 'm999_future', '2030')"
    )
    connection.commit()
    connection.close()


def check_refused(one: Inbox, why: str) -> None:
    """Start the daemon; see that it ends and has made nothing in the database's place."""
    before = one.config.database.read_bytes()

    one.daemon.start()

    assert one.daemon.process is not None
    assert one.daemon.process.wait(60) == 1
    assert why in one.daemon.log
    assert one.config.database.read_bytes() == before
    assert not list(one.config.state_dir.glob("*.damaged-*"))
    assert not list(one.config.state_dir.glob("*.new"))


def test_a_newer_database_is_no_reason_to_make_another(make: Callable[..., Inbox]) -> None:
    one = sorted_inbox(make)
    of_a_newer_version(one.config.database)

    check_refused(one, "was written by a newer imgsortd")


def test_a_locked_database_is_no_reason_to_make_another(make: Callable[..., Inbox]) -> None:
    one = sorted_inbox(make)

    with held(one, "EXCLUSIVE"):
        check_refused(one, f"locked by another program for over {LOCKED_S:g} s")

    one.daemon.start()
    one.drop(1)
    one.wait_sorted()
    one.check()


def test_a_read_only_database_is_no_reason_to_make_another(make: Callable[..., Inbox]) -> None:
    one = sorted_inbox(make)
    kept = one.config.state_dir.rename(one.folder / "kept")

    with tmpfs(one.config.state_dir):
        shutil.copytree(kept, one.config.state_dir, dirs_exist_ok=True)
        remount(one.config.state_dir, "ro")
        check_refused(one, "Read-only file system")


def test_what_hinders_the_rebuild_is_told_and_the_next_start_goes_on(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    (config.target / "cluster_4").mkdir()
    (config.target / "cluster_4" / "a.png").write_bytes(b"a")
    obstacle = config.state_dir / "imgsortd.db.new"
    obstacle.mkdir()

    with pytest.raises(StoreError, match=r"could not be made anew \(.*db.new: Is a directory"):
        open_or_restore(config)

    assert not config.database.exists()
    obstacle.rmdir()
    store = open_or_restore(config)
    assert store.records.next_cluster_id() == 5
    store.close()


def test_a_new_state_folder_at_a_reload_knows_the_clusters_in_target(
    make: Callable[..., Inbox],
) -> None:
    one = sorted_inbox(make)
    one.daemon.start()
    one.daemon.wait_ready(2)
    before = tree(one.target)

    one.config = make_config(one.folder, settle_s=0.1, state_dir=str(one.folder / "other"))
    one.daemon.send(signal.SIGHUP)
    wait_until(lambda: "configuration reloaded" in one.daemon.log, what="reloaded")
    one.drop(1)
    one.wait_sorted()

    one.check()
    assert all(set(files) < set(tree(one.target)[name]) for name, files in before.items())


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
    store = open_for_reading(one.config.database)
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
