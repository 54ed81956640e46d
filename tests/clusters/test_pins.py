"""Pins add centers for routing, at most one a cluster, and leave the fit as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imgsortd.clusters.routing import ReviewRule, choose, pin_centers, routing_model
from imgsortd.records import ExtractorId, Layer, Model, Vectors

CENTERS = np.array([[0, 0], [10, 0], [0, 10]], dtype=np.float32)
MODEL = Model(1, ExtractorId("x", Layer.POOL5, 2), CENTERS, (4, 7, 9))


def points(*rows: tuple[float, float]) -> Vectors:
    return np.array(rows, dtype=np.float32)


def test_a_picture_like_a_pinned_one_goes_where_that_was_put() -> None:
    pinned, alike = points((9, 1)), points((8.9, 1.2))

    routing = routing_model(MODEL, pinned, [9])

    assert choose(alike, MODEL, ReviewRule())[0].cluster_id == 7
    assert choose(alike, routing, ReviewRule())[0].cluster_id == 9


def test_two_centers_of_one_cluster_are_no_doubt_between_two_clusters() -> None:
    routing = routing_model(MODEL, points((9, 1)), [7])
    between = routing_model(MODEL, points((4, 5)), [9])

    assert routing is MODEL  # it lay nearest to its own cluster anyway
    assert choose(points((3, 6)), between, ReviewRule(margin=0.9))[0].cluster_id is None


def test_several_pins_of_a_cluster_are_one_center_on_the_way_to_their_mean() -> None:
    routing = routing_model(MODEL, points((9, 1), (7, 3), (1, 9)), [4, 4, 7])

    assert routing.cluster_ids == (4, 7, 9, 4, 7)
    np.testing.assert_allclose(routing.centers[3:], [[10 - 2 / 3, 2 / 3], [0.5, 9.5]], rtol=1e-6)


def test_pins_of_a_cluster_that_is_no_more_add_nothing() -> None:
    assert routing_model(MODEL, points((9, 1)), [5]) is MODEL
    assert routing_model(MODEL, np.empty((0, 2), dtype=np.float32), []) is MODEL


@given(
    arrays(np.float32, (12, 2), elements=st.floats(-20, 20, width=32)),
    st.lists(st.sampled_from([4, 7, 9, 11]), min_size=12, max_size=12),
)
def test_the_fit_stays_and_centers_at_most_double(features: Vectors, ids: list[int]) -> None:
    routing = routing_model(MODEL, features, ids)

    np.testing.assert_array_equal(routing.centers[:3], CENTERS)
    assert routing.cluster_ids[:3] == MODEL.cluster_ids
    added = routing.cluster_ids[3:]
    assert len(set(added)) == len(added) == len(routing.centers) - 3
    assert set(added) <= set(MODEL.cluster_ids)


def test_each_cluster_gets_a_center_of_its_own_pins_in_whatever_order_they_come() -> None:
    features = points((4, 0), (0, 8), (6, 0), (0, 6), (5, 0))

    found, clusters = pin_centers(CENTERS, features, np.array([9, 4, 9, 4, 9]))

    assert clusters.tolist() == [4, 9]
    # A third of the way from (0, 10) to (0, 7), a quarter of that from (0, 0) to (5, 0).
    np.testing.assert_allclose(found, [(0, 9), (1.25, 0)], rtol=1e-5)


def test_no_pins_are_no_centers() -> None:
    found, clusters = pin_centers(
        np.eye(2, 3, dtype=np.float32), np.empty((0, 3), np.float32), np.empty(0, np.intp)
    )

    assert (found.shape, len(clusters)) == ((0, 3), 0)


@pytest.mark.parametrize(("pins", "share"), [(1, 1 / 2), (2, 1 / 3), (3, 1 / 4), (9, 1 / 4)])
def test_a_center_of_pins_lies_between_their_mean_and_the_center_nearest_to_it(
    pins: int, share: float
) -> None:
    centers = np.eye(2, 3, dtype=np.float32)
    features = np.repeat([[0.9, 0.1, 0.4]], pins, axis=0).astype(np.float32)

    found, clusters = pin_centers(centers, features, np.full(pins, 7))

    np.testing.assert_allclose(found[0], (1 - share) * centers[0] + share * features[0], rtol=1e-5)
    assert clusters.tolist() == [7]
