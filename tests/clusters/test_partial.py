"""Pictures in review that lie near each other are found; strangers are no group."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.clusters.partial import coherent_group, mutual_limit
from imgsortd.clusters.routing import distance_quantiles


def around(center: float, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.zeros((n, 8), dtype=np.float32)
    points[:, 0] = center
    return points + rng.normal(0, 0.05, points.shape).astype(np.float32)


def test_the_largest_group_of_near_pictures_is_found_among_strangers() -> None:
    strangers = np.eye(8, dtype=np.float32) * 5
    features = np.concatenate([strangers, around(1, 6, 0), around(9, 9, 1)])

    group = coherent_group(features, limit=0.5)

    assert group.tolist() == list(range(14, 23))


@pytest.mark.parametrize("n", [0, 1, 4])
def test_fewer_than_five_are_no_group(n: int) -> None:
    assert len(coherent_group(around(1, n, 0), limit=9)) == 0


@given(st.integers(0, 40), st.floats(0.01, 10), st.integers(0, 1000))
def test_a_group_has_five_pictures_and_no_farther_ones_than_the_limit(
    n: int, limit: float, seed: int
) -> None:
    features = np.random.default_rng(seed).normal(0, 1, (n, 3)).astype(np.float32)

    group = coherent_group(features, limit)

    if len(group):
        assert len(group) >= 5
        members = features[group]
        pairs = np.linalg.norm(members[:, None] - members, axis=2)
        assert pairs.sum() / (len(group) * (len(group) - 1)) <= limit * 1.001


def test_pictures_of_a_middling_cluster_lie_as_far_apart_as_the_limit_says() -> None:
    features = np.random.default_rng(3).normal(0, 0.1, (400, 64)).astype(np.float32)
    own = np.linalg.norm(features - features.mean(axis=0), axis=1)
    quantiles = distance_quantiles(own, np.zeros(400, dtype=np.intp))
    assert quantiles is not None

    limit = mutual_limit(quantiles)

    pairs = np.linalg.norm(features[:, None] - features, axis=2)
    assert limit == pytest.approx(pairs.sum() / (400 * 399), rel=0.02)
