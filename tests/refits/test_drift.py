"""Drift: arrivals like those of the fit rarely trigger a refit, a new kind of pictures does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from imgsortd.clusters.kmeans import fit_kmeans
from imgsortd.clusters.routing import distance_quantiles, nearest
from imgsortd.records import Vectors
from imgsortd.refits.due import Drift, binomial_tail, drift_limit, measure_drift


@given(st.integers(1, 2000), st.floats(0.01, 0.99), st.integers(0, 2000))
def test_the_tail_is_that_of_the_binomial_distribution(n: int, p: float, least: int) -> None:
    assert binomial_tail(n, p, least) == pytest.approx(binom.sf(least - 1, n, p), abs=1e-9)


@given(st.integers(50, 5000))
def test_the_limit_is_twice_the_share_and_beyond_chance(window: int) -> None:
    limit = drift_limit(window)

    assert limit >= 0.2 * window - 1e-9
    assert binom.sf(limit - 1, window, 0.1) < 0.001
    least = np.ceil(0.2 * window - 1e-9)
    assert limit == least or binom.sf(limit - 2, window, 0.1) >= 0.001


def test_before_the_window_is_full_nothing_has_drifted() -> None:
    early, full = Drift(200, 199, 199), Drift(200, 200, 40)

    assert (early.has_drifted, full.has_drifted) == (False, True)
    assert (full.share, full.share_that_triggers) == (0.2, 0.2)
    assert Drift(200, 0, 0).share is None


def test_more_than_a_fifth_of_the_latest_arrivals_in_review_is_drift_also_of_near_ones() -> None:
    fifth, more = Drift(200, 200, 0, in_review=40), Drift(200, 200, 0, in_review=41)

    assert (fifth.drowns, fifth.has_drifted) == (False, False)
    assert (more.drowns, more.has_drifted) == (True, True)


def test_review_is_no_drift_before_the_window_is_full() -> None:
    early = Drift(200, 199, 0, in_review=199)

    assert (early.drowns, early.has_drifted) == (False, False)


def test_arrivals_that_lie_far_out_are_drift_though_none_is_in_review() -> None:
    far = measure_drift(10, [2.0] * 6 + [0.5] * 4, 1.0, in_review=0)

    assert (far.drowns, far.has_drifted) == (False, True)
    assert measure_drift(10, [0.5] * 10, 1.0, in_review=3).drowns


def photographs(rng: np.random.Generator, n: int, kinds: Vectors, spread: float) -> Vectors:
    """Make features of some kinds of pictures, 64 numbers of length 1."""
    noise = rng.normal(0, spread, (n, kinds.shape[1]))
    vectors = kinds[rng.integers(0, len(kinds), n)] + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def share_of_windows_that_drift(n_fit: int, k: int, seeds: int, new_kind: float) -> float:
    """Fit, let 600 pictures arrive, and look at the latest 200 after every 20 of them."""
    drifted = 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        kinds = rng.normal(0, 1, (12, 64)).astype(np.float32)
        others = rng.normal(0, 1, (3, 64)).astype(np.float32)
        fitted = photographs(rng, n_fit, kinds, 0.7)
        fit = fit_kmeans(fitted, k, seed)
        own = np.linalg.norm(fitted - fit.centers[fit.labels], axis=1)
        quantiles = distance_quantiles(own, fit.labels)
        assert quantiles is not None
        alike = photographs(rng, 600, kinds, 0.7)
        new = photographs(rng, 600, others, 0.7)
        arrivals = np.where(rng.random(600)[:, None] < new_kind, new, alike)
        distances = nearest(arrivals, fit.centers)[1]
        drifted += any(
            measure_drift(200, distances[end - 200 : end].tolist(), quantiles[900]).has_drifted
            for end in range(200, 601, 20)
        )
    return drifted / seeds


@pytest.mark.parametrize(("n_fit", "k"), [(300, 12), (2000, 12), (2000, 30)])
def test_arrivals_like_those_of_the_fit_rarely_trigger(n_fit: int, k: int) -> None:
    assert share_of_windows_that_drift(n_fit, k, seeds=20, new_kind=0) <= 0.05


@pytest.mark.parametrize(("n_fit", "k"), [(300, 12), (2000, 12), (2000, 30)])
def test_a_new_kind_of_pictures_triggers(n_fit: int, k: int) -> None:
    assert share_of_windows_that_drift(n_fit, k, seeds=5, new_kind=0.4) == 1
