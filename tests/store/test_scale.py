"""What keeps a store of a million pictures quick: counts, pages, and steps up to them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from imgsortd.records import ExtractorId, FileState, Layer, Stamp
from imgsortd.store.database import Store, open_for_reading, open_for_writing
from imgsortd.store.files import Counts, file_groups
from imgsortd.store.schema import migrations
from synthetic import fill, groups

EXTRACTOR = ExtractorId("synthetic", Layer.POOL5, 512)
STATES = [state for state in FileState if state is not FileState.PENDING]


def counted(connection: sqlite3.Connection) -> Counter[tuple[str, int | None, bool]]:
    """Count the files one by one."""
    rows = connection.execute("SELECT state, cluster_id, sha256 IS NOT NULL FROM files")
    return Counter((state, cluster, bool(read)) for state, cluster, read in rows)


def kept(connection: sqlite3.Connection) -> Counter[tuple[str, int | None, bool]]:
    """Return the counts that are kept."""
    return Counter(
        {
            (group.state, group.cluster_id, group.is_read): group.files
            for group in file_groups(connection)
        }
    )


def old_database(path: Path) -> None:
    """Make a database as it was before the counts, in small pages, with twelve pictures."""
    path.parent.mkdir(parents=True)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA page_size=4096")
    migrations.apply(Database(connection), stop_before="m003_counts")
    store = Store(connection, path)
    fill(store, EXTRACTOR, groups(3, 4, 512), range(12))
    connection.execute("UPDATE files SET state = 'pending', cluster_id = NULL WHERE id < 3")
    connection.execute("UPDATE files SET state = 'duplicate', cluster_id = 7 WHERE id = 3")
    connection.execute("UPDATE files SET state = 'gone' WHERE id = 4")
    connection.execute("UPDATE files SET state = 'pending', sha256 = NULL WHERE id = 5")
    connection.commit()
    store.close()


@given(
    st.lists(
        st.tuples(st.sampled_from(["arrive", "read", "end", "restart", "forget"]), st.integers(0)),
        max_size=30,
    )
)
def test_the_counts_that_are_kept_are_those_of_the_rows(steps: list[tuple[str, int]]) -> None:
    connection = sqlite3.connect(":memory:")
    migrations.apply(Database(connection))
    files = Store(connection, Path(":memory:")).files
    for what, number in steps:
        ids = [row[0] for row in connection.execute("SELECT id FROM files ORDER BY id")]
        one = ids[number % len(ids)] if ids else 0
        if what == "arrive":
            files.arrive([(b"%d" % (number % 3), Stamp(number % 2, 1, 1))])
        elif what == "read":
            connection.execute("UPDATE files SET sha256 = x'00' WHERE id = ?", (one,))
        elif what == "end":
            connection.execute(
                "UPDATE files SET state = ?, cluster_id = ? WHERE id = ?",
                (STATES[number % len(STATES)], number % 3, one),
            )
        elif what == "restart" and len(files.pending_names()) == 0:
            files.restart([one])
        elif what == "forget":
            files.forget(one, Stamp(1, 1, 1), one)

    assert kept(connection) == counted(connection)
    connection.close()


def test_an_older_database_is_counted_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "state" / "imgsortd.db"
    old_database(path)
    before = open_for_reading(path, any_schema=True)
    expected = Counts(seen=11, sorted=7, duplicates=1, pending=3)
    assert before.files.counts() == expected  # `status` after an update, before the restart
    before.close()

    store = open_for_writing(path)

    assert store.files.counts() == expected
    assert store.files.cluster_sizes() == {0: 7, 7: 1}
    assert store.fits.count_features() == 10 == len(store.fits.load_features(EXTRACTOR)[0])
    assert kept(store.connection) == counted(store.connection)
    assert len(store.files.waiting(10)) == 2
    store.close()


def test_a_row_of_features_fits_into_a_page(tmp_path: Path) -> None:
    store = open_for_writing(tmp_path / "imgsortd.db")
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    fill(store, EXTRACTOR, groups(100, 4, 512), range(400))

    (page_bytes,) = store.connection.execute("PRAGMA page_size").fetchone()
    grown = store.connection.execute("PRAGMA page_count").fetchone()[0] - pages

    assert grown * page_bytes / 400 < 2048  # the file's own row included
    store.close()


def test_an_older_database_is_written_anew_in_larger_pages_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "imgsortd.db"
    old_database(path)
    old_bytes = path.stat().st_size

    store = open_for_writing(path)

    _, vectors = store.fits.load_features(EXTRACTOR)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert store.connection.execute("PRAGMA page_size").fetchone() == (8192,)
    store.close()
    assert path.stat().st_size != old_bytes


def test_an_older_database_that_someone_reads_keeps_its_pages_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state" / "imgsortd.db"
    old_database(path)
    monkeypatch.setattr("imgsortd.store.database._set_durability", lambda _: None)
    monkeypatch.setattr("imgsortd.store.database._migrate", lambda _: None)
    monkeypatch.setattr("imgsortd.store.database.BUSY_TIMEOUT_S", 0.0)
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM files").fetchone()

    store = open_for_writing(path)

    assert store.connection.execute("PRAGMA page_size").fetchone() == (4096,)
    assert store.files.counts().seen == 11
    reader.close()
    store.close()


def test_what_waits_is_found_without_looking_at_what_does_not(tmp_path: Path) -> None:
    store = open_for_writing(tmp_path / "imgsortd.db")
    seen: list[str] = []
    store.connection.set_trace_callback(seen.append)
    store.files.waiting(64)
    store.connection.set_trace_callback(None)

    plan = store.connection.execute("EXPLAIN QUERY PLAN " + seen[0]).fetchall()

    assert plan[0][3] == "SCAN files USING INDEX files_waiting"
    assert not any("TEMP B-TREE" in row[3] for row in plan)
    store.close()
