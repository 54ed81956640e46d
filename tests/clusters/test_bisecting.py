"""A giant cluster falls apart into parts below a size, or stays whole."""

from __future__ import annotations

import numpy as np
import pytest

from imgsortd.clusters.kmeans import bisect
from imgsortd.records import Vectors


def kinds(*sizes: int, spread: float = 0.05) -> Vectors:
    rng = np.random.default_rng(0)
    parts = [rng.normal(np.eye(32)[kind], spread, (n, 32)) for kind, n in enumerate(sizes)]
    return np.concatenate(parts).astype(np.float32)


def test_no_part_is_larger_than_asked_for_and_no_picture_is_lost() -> None:
    features = kinds(40, 30, 20, 10)

    parts = bisect(features, 40, random_state=1)

    assert max(len(part) for part in parts) <= 40
    rows = sorted(row.tobytes() for part in parts for row in part)
    assert rows == sorted(row.tobytes() for row in features)


def test_it_stops_as_soon_as_the_largest_part_is_small_enough() -> None:
    assert len(bisect(kinds(40, 30, 20, 10), 70, random_state=1)) == 2


@pytest.mark.parametrize(
    "features",
    [
        np.ones((50, 8), dtype=np.float32),
        kinds(50)[:7],
        np.random.default_rng(1).normal(0, 1, (500, 512)).astype(np.float32),
        np.ones((1, 8), dtype=np.float32),
    ],
    ids=["all the same", "too few", "one cloud", "one"],
)
def test_what_does_not_fall_apart_stays_one_part(features: Vectors) -> None:
    parts = bisect(features, len(features) * 0.5, random_state=1)

    assert len(parts) == 1
    assert len(parts[0]) == len(features)
