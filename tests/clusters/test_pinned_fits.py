"""What a person has put into a cluster is there after any refit, and so is the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from imgsortd.clusters.fit import Fitted, compute_fit
from imgsortd.records import FitTrigger, Layer, Start, Vectors
from imgsortd.refits.adopting import FitSummary
from imgsortd.store.folders import NewName
from support import ColourExtractor, adoption_of, make_config, make_library, source_of
from synthetic import fill, groups, name_of, stand_by

EACH, GROUPS, DIMS = 40, 4, 8


class Shelf:
    """A library of four made-up groups of forty, each of which stands in a folder."""

    def __init__(self, folder: Path, layer: Layer = Layer.POOL5) -> None:
        extractor = ColourExtractor(layer=layer)
        extractor.id = replace(extractor.id, dims=DIMS)
        self.library, self.store = make_library(make_config(folder), extractor)
        vectors = groups(EACH, GROUPS, DIMS)
        fill(self.store, extractor.id, vectors, range(EACH * GROUPS), waiting=True)
        self.adopt(fitted := self.fit())
        self.follow(fitted)

    def fit(
        self, n_clusters: int = GROUPS, *, streamed: bool = False, start: Start = Start.FORMER
    ) -> Fitted:
        source = source_of(self.library, start)
        return compute_fit(replace(source, whole_up_to=60) if streamed else source, n_clusters, 0)

    def adopt(self, fitted: Fitted) -> FitSummary:
        return adoption_of(self.library).adopt(fitted, FitTrigger.REQUEST)

    def follow(self, fitted: Fitted) -> None:
        """Let all files stand where the fit in force puts them."""
        assert self.library.in_force.model is not None
        stand_by(self.store, self.library.in_force.model, fitted)

    def pin(self, cluster_id: int, *numbers: int) -> None:
        with self.store.atomic():
            self.store.connection.execute(
                "INSERT OR IGNORE INTO clusters(id, first_fit) VALUES (?, 1)", (cluster_id,)
            )
            for number in numbers:
                self.store.connection.execute(
                    "INSERT INTO pins SELECT sha256, ?, 0 FROM files WHERE src = ?",
                    (cluster_id, name_of(number)),
                )
                self.store.connection.execute(
                    "UPDATE files SET cluster_id = ?, dst = ? WHERE src = ?",
                    (cluster_id, b"cluster_%d/" % cluster_id + name_of(number), name_of(number)),
                )

    def name(self, cluster_id: int) -> None:
        with self.store.atomic():
            name = f"named {cluster_id}"
            self.store.hands.name_clusters([NewName(cluster_id, name.encode(), 7 + cluster_id)])

    def clusters(self, fitted: Fitted) -> list[int]:
        """Return the cluster id of each picture, by its number."""
        assert self.library.in_force.model is not None
        ids = np.asarray(self.library.in_force.model.cluster_ids)[fitted.fit.labels]
        names = dict(self.store.connection.execute("SELECT id, src FROM files").fetchall())
        numbers = [int(names[file_id][:6]) for file_id in fitted.file_ids.tolist()]
        return [int(ids[row]) for row in np.argsort(numbers)]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.store.close()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_pinned_picture_is_in_its_cluster_and_no_other_follows_an_odd_one(
    shelf: Shelf, streamed: bool
) -> None:
    before = shelf.clusters(shelf.fit())
    shelf.pin(before[-1], 0)

    fitted = shelf.fit(streamed=streamed)
    shelf.adopt(fitted)

    after = shelf.clusters(fitted)
    assert after[0] == before[-1]
    assert after[1:] == before[1:]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_folder_that_a_person_made_becomes_a_cluster_on_top_with_its_number(
    shelf: Shelf, streamed: bool
) -> None:
    shelf.pin(9, 0, 1, 2)

    summary = shelf.adopt(fitted := shelf.fit(streamed=streamed))

    assert (summary.n_clusters, summary.new_ids, summary.retired_ids) == (GROUPS + 1, [9], [])
    assert shelf.clusters(fitted)[:3] == [9, 9, 9]


def test_a_cluster_with_a_pin_does_not_vanish_when_fewer_are_wanted(shelf: Shelf) -> None:
    before = shelf.clusters(shelf.fit())
    shelf.pin(before[0], 0)
    shelf.pin(before[EACH], EACH)

    summary = shelf.adopt(fitted := shelf.fit(1))

    assert {before[0], before[EACH]} <= set(summary.sizes)
    assert shelf.clusters(fitted)[0] == before[0]
    assert shelf.clusters(fitted)[EACH] == before[EACH]


@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("streamed", [False, True])
def test_clusters_with_a_name_go_on_with_their_pictures_when_fewer_are_wanted(
    shelf: Shelf, streamed: bool, start: Start
) -> None:
    before = shelf.clusters(shelf.fit())
    shelf.name(before[0])
    shelf.name(before[EACH])

    summary = shelf.adopt(fitted := shelf.fit(1, streamed=streamed, start=start))

    assert {before[0], before[EACH]} == set(summary.sizes)
    after = shelf.clusters(fitted)
    assert set(after[:EACH]) == {before[0]}
    assert set(after[EACH : 2 * EACH]) == {before[EACH]}


@pytest.mark.parametrize("start", Start)
def test_no_picture_of_a_library_that_is_well_sorted_changes_folder(
    shelf: Shelf, start: Start
) -> None:
    before = shelf.clusters(shelf.fit())

    summary = shelf.adopt(fitted := shelf.fit(start=start))

    assert (summary.churn, summary.new_ids, summary.retired_ids) == (0.0, [], [])
    assert shelf.clusters(fitted) == before


def test_logits_honour_pins_too(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Layer.LOGITS)
    before = shelf.clusters(shelf.fit())
    shelf.pin(before[-1], 0, 1)

    fitted = shelf.fit()
    shelf.adopt(fitted)

    assert fitted.fit.algorithm == "KMeans"
    assert shelf.clusters(fitted)[:2] == [before[-1]] * 2
    shelf.store.close()


def test_a_former_cluster_is_moved_on_and_no_picture_changes_folder(shelf: Shelf) -> None:
    rest: Vectors = groups(10, GROUPS, DIMS, seed=3)
    fill(shelf.store, shelf.library.extractor.id, rest, range(500, 540), waiting=True)

    summary = shelf.adopt(shelf.fit())

    assert (summary.algorithm, summary.churn, summary.new_ids) == ("Ward, kept", 0.0, [])
