"""Are the pictures that arrive now still like those of the fit?

The test is on distances alone. Of the pictures of the fit, a tenth lay farther from their
center than its 90 % quantile; were the arrivals like them, so would a tenth of these. With
refit.drift = 200, the latest 200 arrivals have drifted when so many of them lie beyond it
that chance would give as many in less than one of 1,000 such samples (binomial test, exact,
one-sided), and at least twice the share. The second condition is what keeps the test quiet
where it is made anew with each arrival, and where pictures that were not in a fit lie a
little farther than those in it, which centers of small clusters cause.

More than a fifth of them in review is drift without a test: whoever finds every fifth picture
there does not ask how far it lies.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

QUANTILE = 0.9
_EXPECTED = 1 - QUANTILE
_LEAST_RATIO = 2.0
_CHANCE = 0.001
MOST_IN_REVIEW = 0.2
"""Share of the latest arrivals that may go to review."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the latest arrivals lie, against those of the fit.

    Attributes
    ----------
    window
        Arrivals that the test is made of.
    arrivals
        Those there are since the fit, at most ``window``.
    beyond
        Those of them that lie beyond the fit's 90 % quantile.
    in_review
        Those of them that went to review.
    """

    window: int
    arrivals: int
    beyond: int
    in_review: int = 0

    @property
    def has_drifted(self) -> bool:
        """Tell whether they have; never before there are enough arrivals."""
        if self.arrivals < self.window:
            return False
        return self.drowns or self.beyond >= drift_limit(self.window)

    @property
    def drowns(self) -> bool:
        """Tell whether more than a fifth of them went to review."""
        return self.arrivals >= self.window and self.in_review > MOST_IN_REVIEW * self.window

    @property
    def share(self) -> float | None:
        """Return the share (0 to 1) beyond the quantile; None before the first arrival."""
        return self.beyond / self.arrivals if self.arrivals else None

    @property
    def share_that_triggers(self) -> float:
        """Return the share (0 to 1) of a full window at which it has drifted."""
        return drift_limit(self.window) / self.window


def measure_drift(
    window: int, distances: Collection[float], quantile: float, in_review: int = 0
) -> Drift:
    """Count the arrivals that lie beyond the fit's 90 % quantile.

    Parameters
    ----------
    distances
        Of the latest arrivals, ``window`` at most, each to its nearest center.
    quantile
        The distance beyond which a tenth of the fit's own pictures lay, leave-one-out
        (:func:`imgsortd.core.review.distance_quantiles`).
    in_review
        How many of these arrivals went to review.
    """
    beyond = sum(distance > quantile for distance in distances)
    return Drift(window, len(distances), beyond, in_review)


@lru_cache(maxsize=16)
def drift_limit(window: int) -> int:
    """Return how many of so many arrivals must lie beyond the quantile."""
    limit = math.ceil(_LEAST_RATIO * _EXPECTED * window - 1e-9)
    while binomial_tail(window, _EXPECTED, limit) >= _CHANCE:
        limit += 1
    return limit


def binomial_tail(n: int, p: float, least: int) -> float:
    """Return the probability of at least so many of ``n``, each with the probability ``p``."""
    return math.fsum(_binomial(n, p, count) for count in range(least, n + 1))


def _binomial(n: int, p: float, count: int) -> float:
    choices = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    return math.exp(choices + count * math.log(p) + (n - count) * math.log1p(-p))
