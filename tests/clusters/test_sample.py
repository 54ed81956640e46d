"""Clusters come from a hierarchy of smoothed features, stay over refits, and obey pins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsortd.clusters.hierarchy import cut, nearest_neighbours, pair_distances, smooth, ward
from imgsortd.clusters.number import CurvePoint, numbers_to_try, pick, silhouette
from imgsortd.clusters.routing import nearest
from imgsortd.clusters.sample import WARD, Held, choose_number, find_clusters
from imgsortd.records import KEPT, KRange, Vectors


def groups(sizes: list[int], dims: int = 16, spread: float = 0.1, seed: int = 0) -> Vectors:
    """Return unit vectors in far-off groups, one after the other."""
    rng = np.random.default_rng(seed)
    vectors = np.repeat(np.eye(len(sizes), dims), sizes, axis=0)
    vectors += rng.normal(0, spread, vectors.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def pins(rows: list[int], of_groups: list[int], former: list[int]) -> Held:
    return Held(*(np.array(values, np.intp) for values in (rows, of_groups, former)))


def together(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


@st.composite
def features_and_k(draw: st.DrawFn) -> tuple[Vectors, int]:
    """Return few vectors, equal ones and zeros among them, and a k up to their number."""
    n, dims = draw(st.integers(1, 25)), draw(st.integers(1, 4))
    values = draw(st.lists(st.integers(-3, 3), min_size=n * dims, max_size=n * dims))
    return np.array(values, np.float32).reshape(n, dims), draw(st.integers(1, n))


@given(features_and_k())
def test_any_features_give_exactly_k_finite_centers(case: tuple[Vectors, int]) -> None:
    features, k = case

    found = find_clusters(features, k)

    assert found.centers.shape == (k, features.shape[1])
    assert found.centers.dtype == np.float32
    assert np.isfinite(found.centers).all()


@settings(max_examples=50)
@given(features_and_k(), st.data())
def test_every_pinned_cluster_has_a_label_of_its_own(
    case: tuple[Vectors, int], data: st.DataObject
) -> None:
    features, k = case
    rows = data.draw(st.lists(st.integers(0, len(features) - 1), min_size=1, unique=True))
    of_rows = data.draw(
        st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)).map(
            lambda groups: [sorted(set(groups)).index(group) for group in groups]
        )
    )
    n_groups = max(of_rows) + 1
    old = features[:k]
    former = data.draw(
        st.lists(st.integers(-1, len(old) - 1), min_size=n_groups, max_size=n_groups).filter(
            lambda rows: len({row for row in rows if row >= 0}) == sum(row >= 0 for row in rows)
        )
    )
    for centers in (None, old):
        found = find_clusters(features, k, centers, pins(rows, of_rows, former))

        assert len(set(found.held_labels.tolist())) == n_groups
        assert found.held_labels.max() < len(found.centers)
        assert len(found.centers) >= min(k, len(features))


@settings(max_examples=50)
@given(features_and_k(), st.data())
def test_every_named_cluster_has_a_label_of_its_own_wherever_its_pictures_stand(
    case: tuple[Vectors, int], data: st.DataObject
) -> None:
    features, k = case
    n, n_held = len(features), data.draw(st.integers(1, 3))
    folders = data.draw(st.lists(st.integers(-1, n_held + 2), min_size=n, max_size=n))
    former = [group if group < k else -1 for group in range(n_held)]
    held = Held(*(np.array(values, np.intp) for values in ([], [], former, folders)))
    for centers in (None, features[:k]):
        found = find_clusters(features, k, centers, held)

        assert len(set(found.held_labels.tolist())) == n_held
        assert found.held_labels.min() >= 0
        assert found.held_labels.max() < len(found.centers)
        assert np.isfinite(found.centers).all()


def test_groups_that_lie_apart_are_the_clusters() -> None:
    sizes = [30, 20, 12, 5]
    features = groups(sizes)

    found = find_clusters(features, 4)

    labels, _ = nearest(features, found.centers)
    assert found.algorithm == WARD
    assert together(labels) == together(np.repeat(np.arange(4), sizes))


def test_the_number_of_groups_is_found() -> None:
    features = groups([40, 30, 30, 25, 20, 20, 15])

    assert choose_number(features, KRange(2, 60)) == 7
    assert len(find_clusters(features, KRange(2, 60)).centers) == 7
    assert len(find_clusters(features, KRange(9, 60)).centers) == 9


def test_former_clusters_stay_where_new_ones_are_hardly_better() -> None:
    features = groups([30, 30, 30])
    former = features[[45, 75, 2]]

    found = find_clusters(features, 3, former)

    assert found.algorithm == KEPT
    labels, _ = nearest(features, found.centers)
    assert labels[[45, 75, 2]].tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.centers[0], features[30:60].mean(axis=0), atol=1e-6)


def test_former_clusters_go_where_they_no_longer_part_the_pictures() -> None:
    features = groups([30, 30, 30, 30])
    former = features[[0, 1, 2, 3]]  # all in one group

    found = find_clusters(features, 4, former)

    assert found.algorithm == WARD
    assert {len(files) for files in together(nearest(features, found.centers)[0])} == {30}


def test_another_number_is_made_anew() -> None:
    features = groups([30, 30, 30])

    found = find_clusters(features, 3, features[[0, 40]])

    assert (found.algorithm, len(found.centers)) == (WARD, 3)


def test_three_pins_part_two_groups_that_lay_in_one_cluster() -> None:
    features = groups([40, 40, 60], spread=0.05)
    former = np.stack([features[:80].mean(axis=0), features[80:110].mean(axis=0)])
    former = np.concatenate([former, features[110:].mean(axis=0)[None]])
    marked = pins([0, 1, 2, 40, 41, 42, 90, 91, 120], [0, 0, 0, 1, 1, 1, 2, 2, 2], [0, -1, 1])

    found = find_clusters(features, 3, former, marked)

    labels, _ = nearest(features, found.centers)
    assert set(labels[:40].tolist()) == {found.held_labels[0]}
    assert set(labels[40:80].tolist()) == {found.held_labels[1]}


def test_one_odd_pin_does_not_carry_its_cluster_off() -> None:
    features = groups([40, 40, 40])
    former = np.stack([features[start : start + 40].mean(axis=0) for start in (0, 40, 80)])

    found = find_clusters(features, 3, former, pins([5], [0], [2]))

    labels, _ = nearest(features, found.centers)
    assert found.held_labels.tolist() == [2]
    assert set(labels[80:].tolist()) == {2}
    assert set(labels[:40].tolist()) == {0}


def test_a_folder_that_a_person_has_made_comes_on_top_and_stays() -> None:
    features = groups([40, 40, 40])
    former = np.stack([features[:80].mean(axis=0), features[80:].mean(axis=0)])

    made = find_clusters(features, 2, former, pins([40, 41, 42], [0, 0, 0], [-1]))
    again = find_clusters(features, 2, made.centers, pins([40, 41, 42], [0, 0, 0], [2]))

    assert (len(made.centers), len(again.centers)) == (3, 3)
    assert set(nearest(features, again.centers)[0][40:80].tolist()) == {2}


def test_equal_pictures_are_their_own_neighbours_and_one_alone_stays_as_it_is() -> None:
    twice = np.repeat(np.eye(2, 3, dtype=np.float32), 3, axis=0)

    found = nearest_neighbours(twice, 2)

    assert [sorted(row) for row in found.tolist()] == [
        [1, 2],
        [0, 2],
        [0, 1],
        [4, 5],
        [3, 5],
        [3, 4],
    ]
    np.testing.assert_array_equal(smooth(twice[:1]), twice[:1])


def test_smoothed_features_keep_their_lengths() -> None:
    features = 3 * groups([20, 20])

    np.testing.assert_allclose(np.linalg.norm(smooth(features), axis=1), 3, rtol=1e-5)


def test_a_hierarchy_can_be_cut_into_any_number_also_of_equal_points() -> None:
    joins = ward(pair_distances(np.ones((7, 2), np.float32)))

    assert [len(set(cut(joins, k).tolist())) for k in range(1, 8)] == list(range(1, 8))
    assert cut(ward(pair_distances(np.ones((1, 2), np.float32))), 1).tolist() == [0]


def test_a_silhouette_is_the_mean_of_how_much_nearer_the_own_cluster_is() -> None:
    from sklearn.metrics import silhouette_score

    features = groups([9, 7, 1], spread=0.4)
    labels = np.repeat([0, 2, 5], [9, 7, 1])

    found = silhouette(pair_distances(features), labels)

    assert found == pytest.approx(silhouette_score(features, labels), abs=1e-5)


def test_one_cluster_has_no_silhouette() -> None:
    assert silhouette(pair_distances(groups([5])), np.zeros(5, np.intp)) == 0.0


def test_of_equally_good_numbers_the_smaller_one_is_taken() -> None:
    points = [CurvePoint(2, 0.1, 1), CurvePoint(5, 0.4, 1), CurvePoint(7, 0.4, 1)]

    assert pick(points) == 5


@given(st.integers(1, 300), st.integers(0, 300), st.integers(1, 5000))
def test_numbers_to_try_ascend_within_the_range_and_the_pictures(
    least: int, more: int, n: int
) -> None:
    found = numbers_to_try(KRange(least, least + more), n)

    assert found == sorted(set(found))
    assert found[0] >= 1
    assert found[-1] == max(1, min(least + more, n // 3))
    assert len(found) < 120
