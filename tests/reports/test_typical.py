"""The few pictures that stand for a cluster are the same, however the features come in parts."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.reports.typical import Extremes, MeanFeatures

PICTURES = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0, 2, width=32)), min_size=0, max_size=40
)
CUTS = st.lists(st.integers(0, 40), max_size=4)


def parts(count: int, cuts: list[int]) -> list[slice]:
    edges = sorted({0, count, *(cut for cut in cuts if cut < count)})
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


@given(PICTURES, CUTS)
def test_the_extremes_are_those_of_sorting_all_pictures_at_once(
    pictures: list[tuple[int, float]], cuts: list[int]
) -> None:
    rows = np.array([row for row, _ in pictures], dtype=np.int64)
    distances = np.array([distance for _, distance in pictures], dtype=np.float32)
    extremes = Extremes(nearest=3, farthest=2)

    for part in parts(len(pictures), cuts):
        extremes.add(rows[part], np.arange(len(pictures))[part], distances[part])

    found = extremes.of_clusters()
    assert set(found) == set(rows.tolist())
    for row in found:
        ids = np.flatnonzero(rows == row).tolist()
        nearest = sorted(ids, key=lambda i: (distances[i], i))[:3]
        farthest = sorted(ids, key=lambda i: (-distances[i], i))[:2]
        assert [i for i, _ in found[row].nearest] == nearest
        assert [i for i, _ in found[row].farthest] == farthest
        assert [d for _, d in found[row].farthest] == [distances[i] for i in farthest]


@given(PICTURES, CUTS)
def test_the_mean_of_parts_is_the_mean_of_all(
    pictures: list[tuple[int, float]], cuts: list[int]
) -> None:
    rows = np.array([row for row, _ in pictures], dtype=np.int64)
    features = np.array([[value, -value] for _, value in pictures], dtype=np.float32)
    features = features.reshape(len(pictures), 2)
    means = MeanFeatures(5, 2)

    for part in parts(len(pictures), cuts):
        means.add(rows[part], features[part])

    for row in range(5):
        of_row = features[rows == row]
        expected = of_row.mean(axis=0, dtype=np.float64) if len(of_row) else np.zeros(2)
        np.testing.assert_allclose(means.means()[row], expected, atol=1e-6)
