"""KMeans as the article calls it, and what it is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from imgsortd.clusters.kmeans import fit_kmeans
from imgsortd.clusters.routing import nearest
from imgsortd.errors import FitError
from imgsortd.records import Vectors


def blobs(each: int, dims: int = 8, seed: int = 0) -> Vectors:
    """Return three far-off groups of vectors."""
    rng = np.random.default_rng(seed)
    centers = 10 * np.eye(3, dims)
    return np.repeat(centers, each, axis=0).astype(np.float32) + rng.normal(
        0, 0.1, (3 * each, dims)
    ).astype(np.float32)


def test_it_is_the_articles_kmeans() -> None:
    features = blobs(20)

    fit = fit_kmeans(features, 3, 42)

    expected = KMeans(3, random_state=42).fit(features)
    np.testing.assert_array_equal(fit.labels, expected.labels_)
    np.testing.assert_allclose(fit.centers, expected.cluster_centers_, rtol=1e-6)
    assert (fit.algorithm, fit.centers.dtype) == ("KMeans", np.float32)


def test_the_same_features_and_seed_give_the_same_clusters() -> None:
    first, second = fit_kmeans(blobs(20), 5, 7), fit_kmeans(blobs(20), 5, 7)

    np.testing.assert_array_equal(first.centers, second.centers)


def test_its_labels_are_those_of_the_nearest_center() -> None:
    features = blobs(50)

    fit = fit_kmeans(features, 5, 0)

    np.testing.assert_array_equal(nearest(features, fit.centers)[0], fit.labels)


@pytest.mark.filterwarnings("error")
def test_fewer_different_pictures_than_clusters_leave_clusters_empty_without_a_warning() -> None:
    fit = fit_kmeans(np.ones((6, 4), np.float32), 3, 0)

    assert fit.centers.shape == (3, 4)
    assert set(fit.labels.tolist()) <= {0, 1, 2}


def test_fewer_pictures_than_clusters_are_refused() -> None:
    with pytest.raises(
        FitError,
        match=r"cannot make 7 clusters of 6 pictures; ask for at most 6 "
        r"\(-k, or clusters.n_clusters\), or add pictures",
    ):
        fit_kmeans(blobs(2), 7, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused(value: float) -> None:
    features = blobs(2)
    features[3, 1] = value

    with pytest.raises(FitError, match="not a finite number; extract anew in a new state_dir"):
        fit_kmeans(features, 2, 0)
