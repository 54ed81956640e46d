"""A copy of the database is whole before it has its name, and a wrong clock loses none."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from imgsortd.records import Stamp
from imgsortd.store import backups
from imgsortd.store.database import Store, open_for_writing
from mounts import tmpfs

TODAY = "2026-11-24"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_for_writing(tmp_path / "state" / "imgsortd.db")
    with store.atomic():
        store.files.arrive((b"%d.jpg" % n, Stamp(n, 1, 1)) for n in range(2000))
    return store


def make(store: Store, day: str = TODAY) -> Path | None:
    return backups.make_backup(store.connection, store.path.parent, day, lambda: False)


def test_a_backup_is_a_whole_database_for_its_owner_alone(store: Store) -> None:
    path = make(store)

    assert path == store.path.parent / "backups" / "imgsortd-2026-11-24.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert backups.is_whole(path)
    copy = open_for_writing(path)
    assert copy.files.counts() == store.files.counts()


def test_a_second_one_of_a_day_replaces_the_first(store: Store) -> None:
    make(store)
    with store.atomic():
        store.files.arrive([(b"new.jpg", Stamp(9999, 1, 1))])

    path = make(store)

    assert path is not None
    assert open_for_writing(path).files.counts().seen == 2001
    assert os.listdir(path.parent) == [path.name]


def test_one_that_is_stopped_leaves_nothing(store: Store) -> None:
    asked = []

    path = backups.make_backup(
        store.connection, store.path.parent, TODAY, lambda: bool(asked.append(1)) or True
    )

    assert asked
    assert path is None
    assert os.listdir(store.path.parent / "backups") == []
    with store.atomic():  # and the connection works on
        store.files.arrive([(b"new.jpg", Stamp(9999, 1, 1))])


def test_on_a_full_disk_nothing_is_left(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", size="1m"):
        store = open_for_writing(tmp_path / "small" / "imgsortd.db")
        with store.atomic():
            store.files.arrive((b"%d.jpg" % n, Stamp(n, 1, 1)) for n in range(3000))

        with pytest.raises((OSError, sqlite3.Error)):
            make(store)

        assert os.listdir(tmp_path / "small" / "backups") == []
        assert backups.is_whole(store.path)
        store.close()


def test_the_newest_are_kept_and_one_of_the_future_counts_as_the_oldest(store: Store) -> None:
    for day in ("2026-11-20", "2026-11-22", "2026-11-23", TODAY, "2099-01-01"):
        make(store, day)

    backups.prune(store.path.parent, TODAY, 3)

    kept = [path.name[9:19] for path in backups.backups(store.path.parent, TODAY)]
    assert kept == [TODAY, "2026-11-23", "2026-11-22"]


def test_a_damaged_backup_is_told(store: Store) -> None:
    path = make(store)
    assert path is not None
    with open(path, "r+b") as file:
        file.seek(8192 * 3)
        file.write(os.urandom(8192))

    assert not backups.is_whole(path)


def test_a_database_is_put_aside_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    database = tmp_path / "imgsortd.db"
    for end in ("", "-journal", "-wal", "-shm"):
        Path(f"{database}{end}").write_text(end)

    aside = backups.set_aside(database, "x")

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{aside.name}{end}": end for end in ("", "-journal", "-wal", "-shm")
    }
