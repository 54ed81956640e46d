"""Clusters with a pin or a name go on in any fit: as the one that has most of their folder."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.clusters.sample import Held, claims, find_clusters, group_centers

Labels = npt.NDArray[np.intp]


def rows(*parts: tuple[int, int]) -> Labels:
    """Return (value, how often) one after the other."""
    return np.repeat(*(np.array(column, np.intp) for column in zip(*parts, strict=True)))


@st.composite
def folders_and_clusters(draw: st.DrawFn) -> tuple[Labels, int, Labels, int]:
    """Return labels, the number of clusters, folders (-1 for none), the number of held ones."""
    n, n_clusters = draw(st.integers(0, 40)), draw(st.integers(1, 6))
    n_groups = draw(st.integers(0, 5))
    label = st.integers(0, n_clusters - 1)
    folder = st.integers(-1, n_groups + draw(st.integers(0, 3)))
    labels = draw(st.lists(label, min_size=n, max_size=n))
    folders = draw(st.lists(folder, min_size=n, max_size=n))
    return np.array(labels, np.intp), n_clusters, np.array(folders, np.intp), n_groups


@given(folders_and_clusters())
def test_no_two_held_clusters_go_on_as_the_same_one(
    case: tuple[Labels, int, Labels, int],
) -> None:
    labels, n_clusters, folders, n_groups = case

    taken = claims(labels, n_clusters, folders, n_groups)

    found = [label for label in taken.tolist() if label >= 0]
    assert len(taken) == n_groups
    assert len(found) == len(set(found))
    assert all(label < n_clusters for label in found)


@given(folders_and_clusters())
def test_what_a_held_cluster_goes_on_as_has_half_as_much_of_its_folder_as_any_other(
    case: tuple[Labels, int, Labels, int],
) -> None:
    labels, n_clusters, folders, n_groups = case

    taken = claims(labels, n_clusters, folders, n_groups)

    for group, label in enumerate(taken.tolist()):
        sizes = np.bincount(labels[folders == group], minlength=n_clusters)
        assert label < 0 or (sizes[label] > 0 and 2 * sizes[label] >= sizes.max())


@given(folders_and_clusters())
def test_where_each_folder_is_a_cluster_each_held_one_goes_on_as_itself(
    case: tuple[Labels, int, Labels, int],
) -> None:
    labels, n_clusters, _, n_groups = case
    folders = np.minimum(labels, n_groups)  # each held one is a cluster, and others are one

    taken = claims(labels, n_clusters, folders, n_groups)

    for group in range(n_groups):
        stands = bool((folders == group).any())
        assert taken[group] == (group if stands else -1)


def test_a_held_cluster_goes_on_as_the_one_that_has_most_of_its_folder() -> None:
    folders = rows((0, 10), (1, 10))
    labels = rows((2, 8), (1, 2), (0, 10))

    assert claims(labels, 3, folders, 1).tolist() == [2]


def test_of_two_held_in_one_new_cluster_the_larger_has_it_and_the_other_is_on_top() -> None:
    folders = rows((0, 6), (1, 9))
    labels = rows((0, 15))

    assert claims(labels, 1, folders, 2).tolist() == [-1, 0]


def test_a_picture_of_a_held_folder_counts_twice() -> None:
    labels = rows((0, 30))

    assert claims(labels, 1, rows((0, 11), (1, 19)), 1).tolist() == [0]
    assert claims(labels, 1, rows((0, 9), (1, 21)), 1).tolist() == [-1]


def test_a_held_cluster_is_not_put_off_with_a_remainder_of_its_folder() -> None:
    folders = rows((0, 13), (1, 40))
    labels = rows((0, 10), (1, 3), (0, 40))

    # Most of it is in a cluster that another folder needs more: a cluster of its own, then.
    assert claims(labels, 2, folders, 1).tolist() == [-1]


def test_pictures_in_no_folder_say_nothing() -> None:
    folders = rows((-1, 50), (0, 2))
    labels = rows((0, 50), (1, 2))

    assert claims(labels, 2, folders, 1).tolist() == [1]
    assert claims(labels, 2, np.full(52, -1, np.intp), 1).tolist() == [-1]


def test_a_held_cluster_begins_at_a_mean_of_its_pins_and_thrice_the_rest_of_its_folder() -> None:
    smoothed = np.array([[4, 0], [0, 4], [0, 8], [9, 9]], np.float32)
    held = Held(*(np.array(v, np.intp) for v in ([0], [0], [-1], [0, 0, 0, 1])))

    found = group_centers(smoothed, rows((0, 3), (1, 1)), held)

    np.testing.assert_allclose(found, [[1.0, 4.5]])  # (4, 0) once, (0, 6) three times


def test_a_named_folder_without_a_pin_begins_at_what_stands_in_it() -> None:
    smoothed = np.array([[4, 0], [0, 4], [0, 8]], np.float32)
    held = Held(*(np.array(v, np.intp) for v in ([], [], [-1], [-1, 0, 0])))

    np.testing.assert_allclose(group_centers(smoothed, rows((-1, 1), (0, 2)), held), [[0.0, 6.0]])


def test_a_named_cluster_goes_on_where_fewer_are_wanted() -> None:
    rng = np.random.default_rng(0)
    features = np.repeat(np.eye(4, 16), 20, axis=0) + rng.normal(0, 0.05, (80, 16))
    folders = np.repeat(np.arange(4), 20)
    folders = np.where(folders == 3, 0, folders + 1)  # the last is held
    held = Held(*(np.array(v, np.intp) for v in ([], [], [-1], folders.tolist())))

    found = find_clusters(features.astype(np.float32), 2, None, held)

    [label] = found.held_labels.tolist()
    nearest = np.square(features[:, None] - found.centers).sum(axis=2).argmin(axis=1)
    assert len(found.centers) in (2, 3)
    assert set(nearest[60:].tolist()) == {label}
