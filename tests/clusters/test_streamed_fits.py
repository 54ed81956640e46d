"""Fits of more pictures than are to be in memory at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imgsortd.clusters.fit import Fitted, compute_fit, nearest_sizes
from imgsortd.errors import FitError
from imgsortd.library import Library
from imgsortd.records import FitTrigger, Vectors
from imgsortd.refits.adopting import FitSummary
from imgsortd.store import features
from support import ColourExtractor, adoption_of, make_config, make_library, source_of
from synthetic import fill, groups, stand_by

EACH, GROUPS, DIMS = 60, 4, 8
SAMPLE = 100
PASSES = 2  # for the means, and to label


class Shelf:
    """A library of made-up features: four groups of sixty, read in parts of twenty-five."""

    def __init__(self, folder: Path, order: list[int] | None = None) -> None:
        self.extractor = ColourExtractor()
        self.extractor.id = replace(self.extractor.id, dims=DIMS)
        self.config = make_config(folder)
        self.library, self.store = make_library(self.config, self.extractor)
        vectors = groups(EACH, GROUPS, DIMS)
        numbers = order or list(range(len(vectors)))
        fill(self.store, self.extractor.id, vectors[numbers], numbers, waiting=True)

    def fit(self, n_clusters: int = GROUPS, random_state: int = 42) -> Fitted:
        source = replace(source_of(self.library), whole_up_to=SAMPLE)
        return compute_fit(source, n_clusters, random_state)

    def adopt(self, fitted: Fitted) -> FitSummary:
        return adoption_of(self.library).adopt(fitted, FitTrigger.REQUEST)

    def ids(self) -> set[int]:
        return {row[0] for row in self.store.connection.execute("SELECT id FROM files")}

    def partition(self, fitted: Fitted) -> set[frozenset[bytes]]:
        """Return which files lie together."""
        names = dict(self.store.connection.execute("SELECT id, src FROM files").fetchall())
        together: dict[int, set[bytes]] = {}
        for file_id, label in zip(
            fitted.file_ids.tolist(), fitted.fit.labels.tolist(), strict=True
        ):
            together.setdefault(label, set()).add(names[file_id])
        return {frozenset(files) for files in together.values()}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a part hold 25 pictures."""
    monkeypatch.setattr(features, "_STREAM_BYTES", 25 * 4 * DIMS)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.store.close()


def stream(library: Library) -> tuple[list[int], Vectors]:
    """Return all ids and features in the order in which they are streamed."""
    parts = list(library.store.fits.stream_features(library.extractor.id))
    assert len(parts) > 2
    return [int(number) for ids, _ in parts for number in ids], np.concatenate(
        [vectors for _, vectors in parts]
    )


def test_the_stream_is_what_a_fit_in_memory_would_have_in_an_order_that_stays(shelf: Shelf) -> None:
    ids, vectors = stream(shelf.library)

    again, _ = stream(shelf.library)
    whole_ids, whole = shelf.store.fits.load_features(shelf.extractor.id)
    assert ids == again
    assert sorted(ids) == sorted(whole_ids.tolist())
    assert ids != whole_ids.tolist()
    np.testing.assert_array_equal(vectors[np.argsort(ids)], whole[np.argsort(whole_ids)])


def test_kept_duplicates_are_rows_of_the_stream_also_where_a_part_ends_between_them(
    shelf: Shelf,
) -> None:
    with shelf.store.atomic():
        for state, cluster in (("duplicate", 0), ("duplicate", None), ("gone", 0), ("review", 0)):
            for _ in range(20):
                shelf.store.connection.execute(
                    "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, "
                    "cluster_id, seen_at) SELECT 'x', 1, 1, 1, sha256, ?, ?, 0 FROM features "
                    "LIMIT 2",
                    (state, cluster),
                )

    ids, _ = stream(shelf.library)

    whole_ids, _ = shelf.store.fits.load_features(shelf.extractor.id)
    assert len(ids) == EACH * GROUPS + 80 == shelf.store.fits.count_features()
    assert sorted(ids) == sorted(whole_ids.tolist())


@pytest.mark.parametrize("where", [features._USED, features._IN_CLUSTERS])
def test_the_stream_walks_the_primary_key_of_the_features(shelf: Shelf, where: str) -> None:
    streamed = features._STREAM.format(columns="cluster_id, ", where=where)

    plan = shelf.store.connection.execute(
        f"EXPLAIN QUERY PLAN {streamed}", (1, b"", b"", 0, 10)
    ).fetchall()

    steps = [row[3] for row in plan]
    assert steps[0].startswith("SEARCH features USING PRIMARY KEY (sha256>")
    assert steps[1].startswith("SEARCH files USING INDEX files_sha256 (sha256=")
    # What is sorted is the files of one hash, not the million rows.
    assert steps[2:] in ([], ["USE TEMP B-TREE FOR RIGHT PART OF ORDER BY"])


def test_well_parted_groups_become_the_clusters_that_a_fit_in_memory_finds(shelf: Shelf) -> None:
    whole = compute_fit(source_of(shelf.library), GROUPS, 42)

    streamed = shelf.fit()

    assert (whole.fit.algorithm, streamed.fit.algorithm) == ("Ward", "Ward")
    assert shelf.partition(streamed) == shelf.partition(whole)
    assert {len(files) for files in shelf.partition(streamed)} == {EACH}
    assert streamed.fit.inertia == pytest.approx(whole.fit.inertia, rel=0.01)
    assert set(streamed.file_ids.tolist()) == shelf.ids()


def test_the_order_in_which_files_came_does_not_change_a_streamed_fit(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(EACH * GROUPS).tolist()
    first, second = Shelf(tmp_path / "first"), Shelf(tmp_path / "second", order)

    fits = first.fit(7), second.fit(7)

    np.testing.assert_array_equal(fits[0].fit.centers, fits[1].fit.centers)
    np.testing.assert_array_equal(fits[0].fit.labels, fits[1].fit.labels)
    assert first.partition(fits[0]) == second.partition(fits[1])
    first.store.close()
    second.store.close()


def test_clusters_keep_their_numbers_over_a_streamed_refit(shelf: Shelf) -> None:
    shelf.adopt(fitted := shelf.fit(random_state=1))
    before = shelf.store.fits.current()
    assert before is not None
    stand_by(shelf.store, before, fitted)

    summary = shelf.adopt(shelf.fit(random_state=2))

    assert (summary.kept_ids, summary.new_ids, summary.churn) == (GROUPS, [], 0.0)
    after = shelf.library.in_force.model
    assert after is not None
    for number in before.cluster_ids:
        old = before.centers[before.cluster_ids.index(number)]
        new = after.centers[after.cluster_ids.index(number)]
        np.testing.assert_allclose(old, new, atol=0.05)


def test_files_that_come_while_it_streams_do_not_part_ids_from_labels(shelf: Shelf) -> None:
    rest = groups(10, GROUPS, DIMS, seed=5)
    new = list(range(1000, 1040))

    def come(_: str) -> None:
        if new:
            number = new.pop()
            one = rest[number - 1000 :][:1]
            fill(shelf.store, shelf.extractor.id, one, [number], waiting=True)

    source = replace(source_of(shelf.library), whole_up_to=SAMPLE)

    fitted = compute_fit(source, GROUPS, 42, come)

    assert len(fitted.file_ids) == len(set(fitted.file_ids.tolist())) == len(fitted.fit.labels)
    assert len(fitted.file_ids) > EACH * GROUPS
    group = {
        file_id: int(name[:6]) // EACH if int(name[:6]) < 1000 else (int(name[:6]) - 1000) // 10
        for file_id, name in shelf.store.connection.execute("SELECT id, src FROM files")
    }
    found = {
        (group[file_id], label)
        for file_id, label in zip(fitted.file_ids.tolist(), fitted.fit.labels.tolist(), strict=True)
    }
    assert len(found) == GROUPS


def test_a_writer_commits_while_a_fit_streams(shelf: Shelf) -> None:
    shelf.store.connection.execute("PRAGMA busy_timeout = 0")
    told: list[str] = []

    def write(text: str) -> None:
        told.append(text)
        with shelf.store.atomic():  # an error at once, were a reader in the way
            shelf.store.control.add_error("a commit", text)

    source = replace(source_of(shelf.library), whole_up_to=SAMPLE)
    compute_fit(source, GROUPS, 42, write)

    assert told[0] == "first clusters of 100 of 240 pictures"
    assert told[1] == f"pass 1 of {PASSES}, 25 of 240 pictures"
    assert told[-1] == f"pass {PASSES} of {PASSES}, 240 of 240 pictures"
    assert len(shelf.store.control.last_errors(1000)) == min(200, len(told))


def test_only_files_that_are_to_stand_elsewhere_are_looked_at(shelf: Shelf) -> None:
    shelf.adopt(first := shelf.fit())
    assert shelf.library.in_force.model is not None
    stand_by(shelf.store, shelf.library.in_force.model, first)
    others = sorted(shelf.ids())[: EACH // 2]
    with shelf.store.atomic():
        shelf.store.connection.execute(
            "UPDATE files SET cluster_id = (cluster_id + 1) % 4 WHERE id <= ?", (others[-1],)
        )
    looked_at: list[int] = []
    real = shelf.store.hands.file
    shelf.store.hands.file = lambda number: looked_at.append(number) or real(number)  # type: ignore

    basis = shelf.library.in_force.model
    adoption = adoption_of(shelf.library)
    settled = adoption.settle(shelf.fit(), FitTrigger.REQUEST, basis=basis, accept=True)
    report = adoption.follow(settled.following)

    assert sorted(looked_at) == others
    assert report.images == 0  # none of these files is there to be moved


def test_sizes_by_the_nearest_center_are_counted_from_the_stream(shelf: Shelf) -> None:
    shelf.adopt(shelf.fit())
    assert shelf.library.in_force.model is not None

    assert nearest_sizes(shelf.library.store, shelf.library.in_force.model) == dict.fromkeys(
        range(GROUPS), EACH
    )


def test_a_feature_that_is_no_number_is_refused_in_a_stream_too(shelf: Shelf) -> None:
    broken = np.full(DIMS, np.nan, np.float16).tobytes()
    with shelf.store.atomic():
        shelf.store.connection.execute(
            "UPDATE features SET vector = ? WHERE sha256 = (SELECT max(sha256) FROM features)",
            (broken,),
        )

    with pytest.raises(FitError, match="not a finite number"):
        shelf.fit()


def test_pictures_that_are_all_taken_away_meanwhile_make_no_fit(shelf: Shelf) -> None:
    def take_away(text: str) -> None:
        if text.startswith("pass 1"):
            with shelf.store.atomic():
                for file_id in shelf.ids():
                    shelf.store.files.end(file_id, "taken away")

    source = replace(source_of(shelf.library), whole_up_to=SAMPLE)

    with pytest.raises(FitError, match="all pictures were taken away while they were fitted"):
        compute_fit(source, GROUPS, 42, take_away)


@pytest.mark.faults
def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    n_images, whole_mb = 40_000, 40_000 * 512 * 4 / 2**20
    program = Path(__file__).parents[1] / "memory_of_a_fit.py"

    grown = subprocess.run(
        [sys.executable, program, tmp_path, str(n_images)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert float(grown.stdout) < whole_mb / 2
