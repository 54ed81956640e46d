"""The SQLite file: durable, private, refused when it cannot be trusted; its counts add up."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.clusters.fit import StandingFiles
from imgsortd.errors import NoSpaceError, StoreError
from imgsortd.records import (
    BY_HAND,
    IN_REVIEW,
    NOWHERE,
    Candidate,
    ExtractorId,
    FileState,
    FitTrigger,
    Layer,
    Move,
    MovePhase,
    MoveResult,
    Op,
    Root,
    Route,
    Stamp,
)
from imgsortd.refits.facts import fit_facts
from imgsortd.store.control import Heartbeat
from imgsortd.store.database import Store, open_for_reading, open_for_writing, wal_is_safe
from imgsortd.store.features import stored_dtype
from imgsortd.store.fits import FitRecord
from imgsortd.store.health import BUSY_TIMEOUT_S
from imgsortd.words import storable
from synthetic import note_places

STAMP = Stamp(inode=1, size_bytes=2, mtime_ns=3)
DAMAGED = "is damaged or not an imgsortd database.*; starting the daemon keeps it aside"
STRANGE_NAMES = [b"plain.jpg", b"\xff\xfe.jpg", "grüße.jpg".encode(), b"new\nline.jpg", b"'; --"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "imgsortd.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = open_for_writing(path)
    yield store
    store.close()


def arrive(store: Store, name: bytes, stamp: Stamp = STAMP) -> Candidate:
    [arrival] = store.files.arrive([(name, stamp)])
    return arrival.candidate


def move_of(candidate: Candidate, dst: bytes, op: Op) -> Move:
    """Return the move of a file from the inbox, as it is to be planned."""
    src, stamp = candidate.name, candidate.stamp
    return Move(0, candidate.file_id, op, Root.INBOX, src, stamp, bytes(32), dst)


def sort_one(store: Store, name: bytes, state: FileState, op: Op = Op.MOVE) -> None:
    """Take a file from its arrival to its end."""
    with store.atomic():
        candidate = arrive(store, name)
        store.files.set_read(candidate, bytes(32))
        route = Route(candidate.file_id, state, b"cluster_1", cluster_id=1)
        move = store.journal.plan(move_of(candidate, b"cluster_1/" + name, op), route, batch=1)
        store.journal.close([MoveResult(move, MovePhase.DONE, move.dst)])


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
    ],
)
def test_wal_is_used_only_where_its_bug_is_fixed(version: tuple[int, int, int], safe: bool) -> None:
    assert wal_is_safe(version) is safe


def test_the_writing_connection_is_durable(store: Store) -> None:
    pragma = {
        name: store.db.conn.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "foreign_keys")
    }

    wal = wal_is_safe(sqlite3.sqlite_version_info)
    full, extra = 2, 3
    assert store.journal_mode() == ("wal" if wal else "truncate")
    assert pragma == {"synchronous": full if wal else extra, "foreign_keys": 1}


def test_a_new_database_and_its_folder_are_for_their_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        open_for_writing(path).close()
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_database_of_a_newer_version_is_refused(path: Path) -> None:
    store = open_for_writing(path)
    with store.atomic():
        store.db["_sqlite_migrations"].insert(
            {"migration_set": "imgsortd", "name": "m999_future", "applied_at": "2099"}
        )
    store.close()

    with pytest.raises(StoreError, match=r"newer imgsortd \(schema step m999_future\); install"):
        open_for_writing(path)


def test_a_text_file_in_its_place_is_refused_and_not_touched(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("not a database\n" * 100)

    for opener in (open_for_writing, open_for_reading):
        with pytest.raises(StoreError, match=DAMAGED):
            opener(path)

    assert path.read_text() == "not a database\n" * 100


@pytest.mark.parametrize(
    ("offset", "damage"),
    [(4096, os.urandom(40_000)), (36, b"\0\0\0\7")],
    ids=["overwritten pages", "wrong number of free pages"],
)
def test_a_damaged_database_is_refused(path: Path, offset: int, damage: bytes) -> None:
    store = open_for_writing(path)
    with store.atomic():
        for number in range(500):
            arrive(store, b"%d.jpg" % number)
    store.close()
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(damage)

    with pytest.raises(StoreError, match=DAMAGED):
        open_for_writing(path)


def test_a_symlink_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere.db")

    with pytest.raises(StoreError, match="cannot be opened for writing"):
        open_for_writing(path)

    assert not (tmp_path / "elsewhere.db").exists()


def test_a_lock_that_another_program_holds_is_told_with_how_to_find_it(
    store: Store, path: Path
) -> None:
    impatient = Store(sqlite3.connect(path, timeout=0), path)
    store.db.conn.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StoreError, match=r"locked by another program.*fuser"), impatient.atomic():
        arrive(impatient, b"a.jpg")

    impatient.close()


def test_a_full_disk_is_told_apart_and_keeps_nothing_of_the_block(store: Store) -> None:
    pages = store.db.conn.execute("PRAGMA page_count").fetchone()[0]
    store.db.conn.execute(f"PRAGMA max_page_count = {pages}")

    many = [(b"%d.jpg" % number, STAMP) for number in range(10_000)]

    with pytest.raises(NoSpaceError, match="the disk of state_dir is full"), store.atomic():
        store.files.arrive(many)

    assert store.files.counts().seen == 0


def test_a_reader_sees_what_is_committed_and_cannot_write(store: Store, path: Path) -> None:
    sort_one(store, b"a.jpg", FileState.SORTED)
    reader = open_for_reading(path)

    assert reader.files.counts() == store.files.counts()
    with pytest.raises(StoreError, match="cannot be written"), reader.atomic():
        arrive(reader, b"b.jpg")

    reader.close()


def test_a_path_with_signs_that_mean_something_in_a_uri_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "50%41 ?mode=rwc #1" / "imgsortd.db"
    open_for_writing(path).close()

    open_for_reading(path).close()

    assert [file.name for file in tmp_path.iterdir()] == ["50%41 ?mode=rwc #1"]


def test_no_database_yet_is_told_with_what_makes_it(path: Path) -> None:
    with pytest.raises(StoreError, match="no such database; the daemon makes it"):
        open_for_reading(path)


@given(st.lists(st.sampled_from(list(FileState)), max_size=20))
def test_the_counts_add_up(states: list[FileState]) -> None:
    store = Store(sqlite3.connect(":memory:"), Path(":memory:"))
    WITH_TABLES.backup(store.connection)
    for number, state in enumerate(states):
        candidate = arrive(store, b"%d.jpg" % number)
        store.connection.execute(
            "UPDATE files SET state = ? WHERE id = ?", (state, candidate.file_id)
        )

    counts = store.files.counts()

    parts = (
        counts.sorted,
        counts.review,
        counts.set_aside,
        counts.duplicates,
        counts.undone,
        counts.companions,
        counts.pending,
    )
    assert counts.seen == sum(parts) == sum(state is not FileState.GONE for state in states)
    store.close()


def open_memory() -> sqlite3.Connection:
    from sqlite_utils import Database

    from imgsortd.store.schema import migrations

    connection = sqlite3.connect(":memory:")
    migrations.apply(Database(connection))
    return connection


WITH_TABLES = open_memory()


@pytest.mark.parametrize("name", STRANGE_NAMES)
def test_names_that_are_no_text_come_back_as_they_were(store: Store, name: bytes) -> None:
    sort_one(store, name, FileState.SORTED, Op.COPY)

    assert [row[0] for row in store.files.handled()] == [name]
    assert [dst for _, dst in store.files.placed()] == [b"cluster_1/" + name]


def test_texts_with_halves_of_characters_are_kept_escaped(store: Store) -> None:
    text = os.fsdecode(b"cannot move \xff.jpg")
    with store.atomic():
        store.control.add_error("file not sorted", text)
        store.control.beat(Heartbeat(1, "paused", 0.0, 0.0, 0, None, "inotify", text))

    beat = store.control.last_beat()
    assert beat is not None
    assert beat.note == "cannot move \\udcff.jpg" == store.control.last_errors(1)[0][2]
    assert storable("grüße\n") == "grüße\n"


def test_a_pending_file_keeps_its_hash_only_while_its_stamp_is_the_same(store: Store) -> None:
    with store.atomic():
        store.files.set_read(arrive(store, b"a.jpg"), bytes(32))
        [same] = store.files.arrive([(b"a.jpg", STAMP)])
        [other] = store.files.arrive([(b"a.jpg", Stamp(1, 2, 4))])

    assert same.sha256 == bytes(32)
    assert other.sha256 is None
    assert store.files.counts().seen == 1


def test_touched_files_that_were_planned_before_can_be_forgotten(store: Store) -> None:
    sort_one(store, b"a.jpg", FileState.SORTED, Op.COPY)
    with store.atomic():
        candidate = arrive(store, b"a.jpg", Stamp(1, 2, 99))
        route = Route(candidate.file_id, FileState.SORTED, b"cluster_1", cluster_id=1)
        planned = move_of(candidate, b"cluster_1/a-1.jpg", Op.COPY)
        move = store.journal.plan(planned, route, batch=1)
        store.journal.close([MoveResult(move, MovePhase.CHANGED, move.dst)])

    with store.atomic():
        store.files.forget(candidate.file_id, Stamp(1, 2, 99), same_as=1)

    assert store.files.counts().seen == 1
    assert dict(store.files.handled()) == {b"a.jpg": Stamp(1, 2, 99)}


@pytest.mark.parametrize(
    ("layer", "dtype", "tolerance"),
    [(Layer.POOL5, "<f2", 2**-11), (Layer.FC2, "<f2", 2**-11), (Layer.LOGITS, "<f4", 0.0)],
)
def test_features_come_back_as_float32_within_what_their_layer_is_stored_in(
    store: Store, layer: Layer, dtype: str, tolerance: float
) -> None:
    extractor = ExtractorId("digest", layer, 4)
    vectors = np.array([[0.5, 0.1, 0.7, 0.3], [1, 0, 0, 0]], np.float32)
    hashes = [bytes([number]) * 32 for number in range(2)]
    with store.atomic():
        store.fits.put_features(extractor, hashes, vectors)

    found = store.fits.get_features(extractor, [*hashes, b"unknown"])

    assert stored_dtype(layer) == np.dtype(dtype)
    assert list(found) == hashes
    for sha256, vector in zip(hashes, vectors, strict=True):
        assert found[sha256].dtype == np.float32
        np.testing.assert_allclose(found[sha256], vector, rtol=tolerance)


def test_features_of_two_extractors_are_kept_apart(store: Store) -> None:
    ours, other = ExtractorId("ours", Layer.POOL5, 2), ExtractorId("other", Layer.POOL5, 2)
    with store.atomic():
        store.fits.put_features(ours, [bytes(32)], np.ones((1, 2), np.float32))

    assert store.fits.has_features(ours, bytes(32))
    assert not store.fits.has_features(other, bytes(32))
    assert store.fits.get_features(other, [bytes(32)]) == {}


def test_a_fit_comes_back_whole_and_replaces_the_one_before(store: Store) -> None:
    extractor = ExtractorId("digest", Layer.POOL5, 2)
    record = FitRecord(FitTrigger.GROWTH, "KMeans", 9, 42, 1.5, 0.25, 0.1)
    centers = np.array([[1, 2], [3, 4]], np.float32)
    with store.atomic():
        store.fits.save(extractor, centers + 1, (0, 1), (4, 5), record)
        saved = store.fits.save(extractor, centers, (7, 1), (4, 5), record)

    current, kept = store.fits.current(), store.fits.current_record()

    assert current is not None
    assert kept is not None
    assert (current.fit_id, current.cluster_ids) == (saved.fit_id, (7, 1))
    np.testing.assert_array_equal(current.centers, centers)
    assert (kept.trigger, kept.n_clusters, kept.churn) == (FitTrigger.GROWTH, 2, 0.25)
    assert store.fits.fitted_sizes(current.fit_id) == [(1, 5), (7, 4)]
    assert store.fits.next_cluster_id() == 8


def test_it_is_known_which_files_stand_in_a_cluster_and_which_in_review(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsortd.store.files._AT_ONCE", 2)
    rows = [
        ("sorted", 7, b"cluster_7/a", b"a"),
        ("duplicate", 8, b"cluster_8/b", b"a"),
        ("review", None, b"_review/c", b"c"),
        ("review", None, b"_review/d", b"pinned there"),
        ("sorted", None, b"Mine/e", b"e"),  # in a folder that is no cluster
        ("duplicate", None, None, b"a"),
        ("pending", None, None, b"g"),
        ("gone", 7, None, b"h"),
        ("set_aside", None, b"_unreadable/i", None),
        ("sorted", 9, b"cluster_9/j", b"j"),
    ]
    with store.atomic():
        store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, seen_at, state, cluster_id, dst, "
            "sha256) VALUES (x'00', 1, 1, 1, 0, ?, ?, ?, ?)",
            rows,
        )
        note_places(store.connection)
        store.pins.put(b"pinned there", None)

    standing = list(store.files.standing())

    assert standing == [(1, 7), (2, 8), (3, IN_REVIEW), (4, BY_HAND), (10, 9)]
    found = StandingFiles.read(store).of(np.array([10, 4, 99, 5, 1]))
    assert found.tolist() == [9, BY_HAND, NOWHERE, NOWHERE, 7]


def test_in_an_empty_store_nothing_stands_anywhere(store: Store) -> None:
    found = StandingFiles.read(store).of(np.array([1, 2]))

    assert found.tolist() == [NOWHERE, NOWHERE]


def test_features_of_some_files_come_in_the_order_of_their_ids(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsortd.store.queries.IDS_AT_ONCE", 2)
    extractor = ExtractorId("digest", Layer.LOGITS, 2)
    hashes = [bytes([number]) * 32 for number in range(5)]
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    with store.atomic():
        for number, sha256 in enumerate(hashes):
            candidate = arrive(store, b"%d.jpg" % number)
            store.files.set_read(candidate, sha256)
        store.fits.put_features(extractor, hashes[:4], vectors[:4])

    ids, found = store.fits.features_of(extractor, [5, 4, 1, 3, 77])
    none = store.fits.features_of(extractor, [])

    assert ids.tolist() == [1, 3, 4]  # the fifth has none
    np.testing.assert_array_equal(found, vectors[[0, 2, 3]])
    assert (none[0].tolist(), none[1].shape) == ([], (0, 2))


def test_files_that_wait_to_be_read_are_counted_until_they_are(store: Store) -> None:
    with store.atomic():
        candidates = [arrive(store, b"%d.jpg" % number) for number in range(3)]
    before = store.records.count_unread()

    with store.atomic():
        store.files.set_read(candidates[0], bytes(32))

    assert (before, store.records.count_unread()) == (3, 2)
    assert fit_facts(store).unread == 2


def test_a_request_is_taken_once_and_answered_or_failed(store: Store) -> None:
    with store.atomic():
        first = store.control.ask("refit", {"n_clusters": 5})
        second = store.control.ask("refit", {})
        taken = store.control.take("refit")
        store.control.answer(first, "done", {"churn": 0.5})
        store.control.take("refit")
        store.control.fail_abandoned()

    assert taken is not None
    assert (taken.request_id, taken.params) == (first, {"n_clusters": 5})
    assert store.control.request(first).result == {"churn": 0.5}
    assert store.control.request(second).state == "failed"
    assert store.control.next_verb() is None


def test_only_the_newest_errors_are_kept(store: Store) -> None:
    with store.atomic():
        for number in range(250):
            store.control.add_error("event", str(number))

    kept = store.control.last_errors(1000)

    assert len(kept) == 200
    assert kept[0][2] == "249"


def test_who_has_read_may_write_though_another_one_would_commit_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "imgsortd.db"
    open_for_writing(path).close()

    def ask(verb: str) -> None:
        other = Store(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S), path)
        with other.atomic():
            other.control.ask(verb, {})
        other.close()

    store = open_for_writing(path)
    other = Thread(target=ask, args=("undo",))
    with store.atomic():
        first = store.control.next_verb()
        other.start()
        other.join(0.5)  # as far as it comes
        store.control.ask("refit", {})
    other.join()

    verbs = store.connection.execute("SELECT verb FROM requests ORDER BY id").fetchall()
    assert (first, verbs) == (None, [("refit",), ("undo",)])
    store.close()
