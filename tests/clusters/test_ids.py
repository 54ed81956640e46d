"""A cluster keeps its number over refits; a number that was given is never given again."""

from random import Random
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.clusters.ids import churn, match_ids

Labels: TypeAlias = npt.NDArray[np.intp]
Labellings: TypeAlias = tuple[Labels, Labels, tuple[int, ...], int, int]


@st.composite
def two_labellings(draw: st.DrawFn) -> Labellings:
    """Return old labels, new labels, old ids, number of new labels, next free id."""
    n_old, n_new, n = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(0, 40))
    old = draw(st.lists(st.integers(0, n_old - 1), min_size=n, max_size=n))
    new = draw(st.lists(st.integers(0, n_new - 1), min_size=n, max_size=n))
    ids = draw(st.lists(st.integers(0, 50), min_size=n_old, max_size=n_old, unique=True))
    next_id = max(ids) + 1 + draw(st.integers(0, 3))
    return np.array(old, np.intp), np.array(new, np.intp), tuple(ids), n_new, next_id


@given(two_labellings(), st.randoms(use_true_random=False))
def test_ids_survive_permuted_centers(labellings: Labellings, random: Random) -> None:
    old, _, ids, _, next_id = labellings
    order = list(range(len(ids)))
    random.shuffle(order)  # old label -> its row among the new centers
    new = np.array([order[label] for label in old], np.intp)

    found = match_ids(old, new, ids, len(ids), next_id)

    for label in set(old.tolist()):
        assert found[order[label]] == ids[label]
    assert churn(np.array(ids)[old], np.array(found)[new]) == 0.0


@given(two_labellings())
def test_ids_are_all_different_and_a_new_one_was_never_used(labellings: Labellings) -> None:
    old, new, ids, n_new, next_id = labellings

    found = match_ids(old, new, ids, n_new, next_id)

    assert len(found) == len(set(found)) == n_new
    assert all(number in ids or number >= next_id for number in found)
    shared = set(zip(new.tolist(), old.tolist(), strict=True))
    for label, number in enumerate(found):
        if number in ids:  # an old number goes only to a cluster that shares a picture with it
            assert (label, ids.index(number)) in shared


def test_when_a_cluster_splits_the_larger_part_keeps_the_number() -> None:
    old = np.zeros(10, np.intp)
    new = np.array([0] * 3 + [1] * 7, np.intp)

    found = match_ids(old, new, (4,), 2, 9)

    assert found == (9, 4)
    assert churn(np.array([4])[old], np.array(found)[new]) == 0.3


def test_no_pictures_have_not_moved() -> None:
    none = np.empty(0, np.int64)

    assert churn(none, none) == 0.0


def test_a_cluster_with_pins_has_the_number_that_the_person_gave() -> None:
    old = np.array([0] * 6 + [1] * 4, np.intp)
    new = np.array([0] * 6 + [1] * 4, np.intp)

    found = match_ids(old, new, (4, 5), 3, 9, {0: 5, 2: 11})

    assert found == (5, 12, 11)  # 4 has no pins, and shares nothing with what is left


def test_what_a_person_has_put_into_a_folder_outweighs_as_many_others() -> None:
    old = np.array([0] * 6 + [1] * 4, np.intp)
    new = np.zeros(10, np.intp)
    weights = np.array([1] * 6 + [2] * 4, np.int64)

    assert match_ids(old, new, (4, 5), 1, 9) == (4,)
    assert match_ids(old, new, (4, 5), 1, 9, weights=weights) == (5,)


@given(two_labellings())
def test_weights_that_are_all_the_same_change_nothing(labellings: Labellings) -> None:
    old, new, ids, n_new, next_id = labellings
    threes = np.full(len(old), 3, np.int64)

    weighed = match_ids(old, new, ids, n_new, next_id, weights=threes)

    plain = match_ids(old, new, ids, n_new, next_id)
    stay = [np.sum(np.array(found)[new] == np.array(ids)[old]) for found in (weighed, plain)]
    assert stay[0] == stay[1]
