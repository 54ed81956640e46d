"""A picture goes to its nearest center, or to review where that says too little."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.clusters.routing import (
    ReviewRule,
    center_distances,
    choose,
    distance_quantiles,
    farthest,
    nearest,
    nearest_clusters,
)
from imgsortd.records import Choice, ExtractorId, Layer, Model, Vectors


def model_of(
    centers: list[list[float]], ids: tuple[int, ...], distances: Vectors | None = None
) -> Model:
    """Return a model of these centers."""
    extractor = ExtractorId("digest", Layer.POOL5, len(centers[0]))
    return Model(1, extractor, np.array(centers, dtype=np.float32), ids, distances)


def features_of(*rows: list[float]) -> Vectors:
    return np.array(rows, dtype=np.float32)


def quantiles_up_to(largest: float) -> Vectors:
    return np.linspace(0, largest, 1001, dtype=np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 8))
def test_without_a_rule_every_picture_goes_to_its_nearest_center(
    seed: int, images: int, clusters: int
) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, 4)).astype(np.float32)
    centers = rng.normal(size=(clusters, 4)).astype(np.float32)
    model = model_of(centers.tolist(), tuple(range(10, 10 + clusters)))

    chosen = choose(features, model, ReviewRule())

    labels, distances = nearest(features, centers)
    assert [choice.cluster_id for choice in chosen] == [10 + label for label in labels]
    assert np.allclose([choice.distance for choice in chosen], distances, atol=1e-5)


def test_a_picture_farther_than_the_quantile_goes_to_review_and_says_so() -> None:
    model = model_of([[0, 0], [10, 0]], (3, 5), quantiles_up_to(2.0))
    rule = ReviewRule(quantile=0.5)

    near, far = choose(features_of([0, 0.9], [0, 1.1]), model, rule)

    assert near.cluster_id == 3
    assert far.cluster_id is None
    assert far.reason == "far from every cluster: 1.100, 50 % of the fit were within 1.000"


def test_a_picture_between_two_clusters_goes_to_review_and_names_both() -> None:
    model = model_of([[0, 0], [10, 0]], (3, 5))
    rule = ReviewRule(margin=0.1)

    clear, between = choose(features_of([4, 0], [5.1, 0]), model, rule)

    assert clear == Choice(3, 4.0)
    assert between.cluster_id is None
    assert between.reason == "between cluster 5 (4.900) and cluster 3 (5.100)"


def test_two_centers_of_one_cluster_are_no_reason_for_review() -> None:
    model = model_of([[0, 0], [0, 1], [10, 0]], (3, 3, 5))

    [choice] = choose(features_of([0, 0.5]), model, ReviewRule(margin=0.1))

    assert choice.cluster_id == 3


def test_one_cluster_alone_has_nothing_between() -> None:
    model = model_of([[0, 0]], (3,))

    [choice] = choose(features_of([5, 5]), model, ReviewRule(margin=0.5))

    assert choice.cluster_id == 3


def test_a_fit_that_kept_no_distances_sends_nothing_far_to_review() -> None:
    assert farthest(model_of([[0, 0]], (3,)), ReviewRule(quantile=0.99)) == math.inf


def test_the_fits_distances_are_those_to_the_mean_of_the_others() -> None:
    vectors = features_of([0, 0], [2, 0], [50, 50])
    labels = np.array([0, 0, 1])
    centers = features_of([1, 0], [50, 50])

    quantiles = distance_quantiles(np.linalg.norm(vectors - centers[labels], axis=1), labels)

    assert quantiles is not None
    assert quantiles.shape == (1001,)
    assert np.all(quantiles == 2.0)  # each to the other one; the third is alone


def test_pictures_that_are_all_alone_have_no_quantiles() -> None:
    assert distance_quantiles(np.zeros(3, dtype=np.float32), np.arange(3)) is None


def test_the_nearest_clusters_are_each_named_once() -> None:
    distances = features_of([3, 1, 2, 5])[0]

    assert nearest_clusters(distances, (7, 8, 8, 9), 3) == [(8, 1.0), (7, 3.0), (9, 5.0)]


def test_distances_to_all_centers_are_euclidean() -> None:
    distances = center_distances(features_of([0, 3], [4, 0]), features_of([0, 0], [4, 3]))

    assert np.allclose(distances, [[3, 4], [4, 3]])
