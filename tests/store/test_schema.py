"""A database of the first version is brought up to date with its rows, counts and checks."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from imgsortd.records import Look
from imgsortd.store.database import open_for_reading, open_for_writing
from imgsortd.store.pins import Pin
from imgsortd.store.schema import migrations


def old_database(path: Path) -> None:
    """Make a database as it was before undo: three steps, a file and its move."""
    from sqlite_utils import Database

    db = Database(sqlite3.connect(path))
    migrations.apply(db, stop_before="m004_undo")
    db.conn.execute(
        "INSERT INTO files(src, inode, size_bytes, mtime_ns, state, cluster_id, dst, seen_at) "
        "VALUES (x'61', 1, 1, 1, 'sorted', 7, x'62', 0)"
    )
    db.conn.execute(
        "INSERT INTO moves(file_id, op, src_root, src, inode, size_bytes, mtime_ns, sha256, dst, "
        "phase, state_after, planned_at) "
        "VALUES (1, 'move', 'inbox', x'61', 1, 1, 1, x'00', x'62', 'done', 'sorted', 0)"
    )
    db.conn.commit()
    db.close()


def test_a_file_may_be_undone_in_an_older_database_and_nothing_else_is_looser(
    tmp_path: Path,
) -> None:
    old_database(tmp_path / "imgsortd.db")

    store = open_for_writing(tmp_path / "imgsortd.db")

    with store.atomic():
        store.connection.execute("UPDATE files SET state = 'undone'")
    with pytest.raises(sqlite3.IntegrityError):
        store.connection.execute("UPDATE files SET state = 'lost'")
    assert store.files.counts().undone == store.files.counts().seen == 1
    assert store.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert store.connection.execute("PRAGMA foreign_key_check").fetchall() == []
    (move,) = store.connection.execute("SELECT batch, dst_root FROM moves").fetchall()
    assert move == (0, "target")
    assert store.journal.next_batch() == 1
    store.close()
    open_for_writing(tmp_path / "imgsortd.db").close()


def test_an_older_picture_is_given_its_size_once_it_is_known(tmp_path: Path) -> None:
    from sqlite_utils import Database

    db = Database(sqlite3.connect(tmp_path / "imgsortd.db"))
    migrations.apply(db, stop_before="m007_pictures")
    db.conn.execute("INSERT INTO picture_hashes VALUES (x'0a', x'0000000000000007')")
    db.conn.commit()
    db.close()
    store = open_for_writing(tmp_path / "imgsortd.db")

    with store.atomic():
        store.hashes.put({b"\x0a": Look(9), b"\x0b": Look(8)})
        store.hashes.put({b"\x0a": Look(9, (40, 30)), b"\x0b": Look(8, (4, 3))})
        store.hashes.put({b"\x0a": Look(9, (1, 1)), b"\x0b": Look(8)})

    rows = store.connection.execute("SELECT * FROM picture_hashes ORDER BY sha256").fetchall()
    assert rows == [
        (b"\x0a", b"\0\0\0\0\0\0\0\x07", 40, 30),
        (b"\x0b", b"\0\0\0\0\0\0\0\x08", 4, 3),
    ]
    store.close()


def test_a_database_before_companions_takes_them_and_keeps_its_files(tmp_path: Path) -> None:
    old_database(tmp_path / "imgsortd.db")

    store = open_for_writing(tmp_path / "imgsortd.db")

    with store.atomic():
        store.connection.execute(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, state, companion_of, seen_at) "
            "VALUES (x'63', 2, 1, 1, 'companion', 1, 0)"
        )
    counts = store.files.counts()
    assert (counts.seen, counts.sorted, counts.companions) == (2, 1, 1)
    assert store.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()


def test_a_placing_from_before_pins_had_times_can_still_be_read(tmp_path: Path) -> None:
    from sqlite_utils import Database

    db = Database(sqlite3.connect(tmp_path / "imgsortd.db"))
    migrations.apply(db, stop_before="m009_pin_times")
    db.conn.executescript(
        "INSERT INTO files(src, inode, size_bytes, mtime_ns, state, dst, seen_at) "
        "VALUES (x'61', 1, 1, 1, 'sorted', x'62', 0);"
        "INSERT INTO moves(file_id, op, src_root, src, inode, size_bytes, mtime_ns, sha256, dst, "
        "phase, state_after, planned_at) "
        "VALUES (1, 'move', 'target', x'61', 1, 1, 1, x'00', x'62', 'done', 'sorted', 0);"
        "INSERT INTO placings VALUES (1, 'sorted', NULL, NULL, NULL, '', 1, NULL, 1, NULL);"
    )
    db.close()

    store = open_for_writing(tmp_path / "imgsortd.db")

    former = store.pins.before_placing(1)
    assert former is not None
    assert (former.pin, former.pin and former.pin.pinned_at) == (Pin(None), None)
    store.close()


def test_of_a_fit_from_before_files_followed_it_is_said_that_none_did(tmp_path: Path) -> None:
    from sqlite_utils import Database

    path = tmp_path / "imgsortd.db"
    db = Database(sqlite3.connect(path))
    migrations.apply(db, stop_before="m010_files_that_follow")
    db.conn.executescript(
        "INSERT INTO extractors(id, weights_digest, layer, dims) VALUES (1, 'x', 'pool5', 2);"
        "INSERT INTO fits(id, extractor_id, is_current, fit_trigger, algorithm, n_clusters, "
        "n_images, random_state, inertia, fit_s, created_at, state, decision, decided_at, "
        "decided_images) VALUES (1, 1, 1, 'bootstrap', 'Ward', 2, 9, 0, 1, 1, 1, 'adopted', 1, 1, "
        "9);"
    )
    db.close()
    older = open_for_reading(path, any_schema=True)
    read = ([fit.n_images for fit in older.records.adopted()], older.records.batches_of(1))
    older.close()

    store = open_for_writing(path)

    assert read == ([9], [])
    assert [fit.n_images for fit in store.records.adopted()] == [9]
    assert (store.records.batches_of(1), store.records.switch_in(1)) == ([], None)
    store.close()


def test_the_schema_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError("the machine stops here")

    monkeypatch.setattr(migrations._migrations[-1], "fn", fail)
    with pytest.raises(OSError, match="stops here"):
        open_for_writing(tmp_path / "imgsortd.db")
    monkeypatch.undo()

    with sqlite3.connect(tmp_path / "imgsortd.db") as beside:
        tables = beside.execute("SELECT name FROM sqlite_master WHERE name = 'files'").fetchall()
    beside.close()
    store = open_for_writing(tmp_path / "imgsortd.db")

    assert tables == []
    assert store.files.counts().seen == 0
    store.close()


def test_what_three_columns_told_together_has_a_column_each(tmp_path: Path) -> None:
    from sqlite_utils import Database

    db = Database(sqlite3.connect(tmp_path / "imgsortd.db"))
    migrations.apply(db, stop_before="m011_roots")
    db.conn.executescript(
        "INSERT INTO files(id, src, inode, size_bytes, mtime_ns, state, stays, dst, seen_at) "
        "VALUES "
        "(1, 'moved', 1, 1, 1, 'sorted', 0, 'c/1', 0),"
        "(2, 'copied', 1, 1, 1, 'sorted', 1, 'c/2', 0),"
        "(3, 'waits', 1, 1, 1, 'pending', 0, NULL, 0),"
        "(4, 'undone', 1, 1, 1, 'undone', 1, NULL, 0),"
        "(5, 'unwanted', 1, 1, 1, 'gone', 1, 'c/5', 0),"
        "(6, 'away', 1, 1, 1, 'gone', 0, NULL, 0),"
        "(7, 'adopted', 1, 1, 1, 'sorted', 0, 'c/7', 0);"
        "INSERT INTO moves(file_id, op, src_root, src, inode, size_bytes, mtime_ns, sha256, dst, "
        "phase, state_after, planned_at, batch) VALUES "
        "(1, 'move', 'inbox', 'moved', 1, 1, 1, x'00', 'c/1', 'done', 'sorted', 0, 4),"
        "(2, 'copy', 'inbox', 'copied', 1, 1, 1, x'00', 'c/2', 'done', 'sorted', 0, 5),"
        "(3, 'move', 'inbox', 'waits', 1, 1, 1, x'00', 'c/3', 'planned', 'sorted', 0, 6);"
    )
    db.close()

    store = open_for_writing(tmp_path / "imgsortd.db")

    rows = store.connection.execute(
        "SELECT src, inbox_id, in_inbox, target_id, in_target, op FROM files ORDER BY id"
    ).fetchall()
    assert rows == [
        ("moved", 1, 0, 2, 1, "move"),
        ("copied", 1, 1, 2, 1, "copy"),
        ("waits", 1, 1, None, 0, None),
        ("undone", 1, 1, None, 0, None),
        ("unwanted", 1, 1, 2, 0, None),
        ("away", 1, 0, None, 0, None),
        ("adopted", None, 0, 2, 1, None),
    ]
    (move,) = store.journal.unfinished()
    assert (move.src_id, move.dst_id, move.mark) == (1, 2, "3")  # its claim is called so
    with store.atomic():
        assert store.journal.next_batch() == 7
    store.close()


def test_batches_that_a_copy_of_the_database_does_not_know_are_not_numbered_again(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "imgsortd.db", tmp_path / "copy.db"

    def number(times: int) -> list[int]:
        with open_for_writing(path) as store, store.atomic():
            return [store.journal.next_batch() for _ in range(times)]

    before = number(3)
    with open_for_writing(path) as store:
        with store.atomic():
            before.append(store.journal.next_batch())
        copy.write_bytes(path.read_bytes())
        store.library.copied()  # as the daemon says after its daily copy
        with store.atomic():
            since = [store.journal.next_batch() for _ in range(2)]
    copy.replace(path)

    after = number(2)

    assert before == [1, 2, 3, 4]
    assert since == [5, 6]
    assert min(after) > 6
    assert number(1) == [after[-1] + 1]
