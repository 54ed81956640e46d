"""When the clusters are fitted next, why, and from where; and the same in words."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from imgsortd.records import AdoptedFit, Arrivals, FitTrigger, Start
from imgsortd.words import counted, duration_text

QUANTILE = 0.9
_EXPECTED = 1 - QUANTILE
_LEAST_RATIO = 2.0
_CHANCE = 0.001
_MOST_IN_REVIEW = 0.2
"""Share of the latest arrivals that may go to review."""


@dataclass(frozen=True, slots=True)
class RefitRule:
    """The configured reasons for a fit.

    Attributes
    ----------
    quiet_s
        Seconds without an arrival after which a fit that is due is begun.
    wait_most_s
        Seconds after which it is begun all the same, with what there is.
    """

    min_images: int
    interval_s: float | None
    growth: float | None
    quiet_s: float = 0.0
    wait_most_s: float = math.inf


def sees_all(rule: RefitRule, arrivals: Arrivals) -> bool:
    """Tell whether a fit would see all pictures: each is read, and no others come."""
    waits = arrivals.unread + arrivals.settling
    return not waits and arrivals.quiet_s >= rule.quiet_s


@dataclass(frozen=True, slots=True)
class FitFacts:
    """What the decision needs to know.

    Attributes
    ----------
    n_features
        Pictures with stored features now.
    fitted_images
        Pictures at the last fit or decision on one; None before the first.
    fit_age_s
        Seconds since then; None before the first.
    drift
        The latest arrivals against those of the fit; None where it is off or not known.
    unread
        Pictures in the inbox that are known and have no features yet.
    """

    n_features: int
    fitted_images: int | None = None
    fit_age_s: float | None = None
    drift: Drift | None = None
    unread: int = 0


def fit_age_s(created_at: float, now: float) -> float:
    """Return how far a fit is from now (Unix seconds), also when it is dated in the future.

    It is when the clock was set back since; counted as new, it would put the next fit
    off until the clock has caught up, in years perhaps.
    """
    return abs(now - created_at)


def fit_due(rule: RefitRule, facts: FitFacts) -> FitTrigger | None:
    """Tell whether a fit is due, and why."""
    if facts.fitted_images is None:
        return FitTrigger.BOOTSTRAP if facts.n_features >= rule.min_images else None
    new = facts.n_features - facts.fitted_images
    if new <= 0:
        return None
    if rule.growth is not None and new >= growth_images(rule.growth, facts.fitted_images):
        return FitTrigger.GROWTH
    if facts.drift is not None and facts.drift.has_drifted:
        return FitTrigger.DRIFT
    if rule.interval_s is not None and (facts.fit_age_s or 0.0) >= rule.interval_s:
        return FitTrigger.INTERVAL
    return None


STEP = 0.25
"""From one refit to the next that counts for :func:`age_of`, a library grows by this share."""
_CALM_STEPS = 2


class Age(StrEnum):
    """Whether the clusters of a library have settled."""

    YOUNG = "young"
    GROWN = "grown"


@dataclass(frozen=True, slots=True)
class Maturity:
    """The age of a library, and why, in a sentence."""

    age: Age
    why: str

    @property
    def is_young(self) -> bool:
        """Whether it is not held to its first guess."""
        return self.age is Age.YOUNG


def age_of(
    adopted: Sequence[AdoptedFit], fitted_images: int, n_features: int, max_churn: float | None
) -> Maturity:
    """Tell whether a library is young: a refit then begins from nothing and is not asked about.

    It is while the fit in force was made of fewer than half of the pictures, and while no two
    refits in a row, each after growth of a quarter, have changed less than ``max_churn``.
    Refits after less growth count together. One of more than twice the pictures begins anew.
    With a ``max_churn`` of 0 a person has asked to be asked, so there it is grown.

    Parameters
    ----------
    adopted
        The whole fits that were put in force and not rolled back, the oldest first.
    fitted_images
        Pictures at the fit in force.
    n_features
        Pictures with stored features now.
    """
    if max_churn == 0:
        return Maturity(Age.GROWN, "refit.max_churn is 0")
    if 2 * fitted_images < n_features:
        made = f"its clusters were made of {fitted_images:,} of {n_features:,} pictures"
        return Maturity(Age.YOUNG, made)
    limit = math.inf if max_churn is None else max_churn
    base, changed, calm, last = 0, 0.0, 0, 0
    for fit in adopted:
        changed += fit.churn or 0.0
        if fit.churn is None or fit.n_images > 2 * last:
            base, changed, calm = fit.n_images, 0.0, 0
        elif fit.n_images >= (1 + STEP) * base and calm < _CALM_STEPS:
            calm = calm + 1 if changed < limit else 0
            base, changed = fit.n_images, 0.0
        last = fit.n_images
    less = "been made" if max_churn is None else f"changed less than {100 * limit:g} % of it"
    if calm == _CALM_STEPS:
        return Maturity(Age.GROWN, f"two refits in a row have {less}")
    if calm:
        return Maturity(Age.YOUNG, f"only one refit so far has {less}, and two in a row are needed")
    return Maturity(Age.YOUNG, f"no two refits in a row have {less} yet")


def growth_images(growth: float, fitted_images: int) -> int:
    """Return how many new pictures make up the share ``growth``, at least one."""
    return max(1, math.ceil(growth * fitted_images))


@dataclass(frozen=True, slots=True)
class NextFit:
    """How far each trigger is from the next fit; None where it is off, or no fit was made yet.

    Attributes
    ----------
    growth_missing
        New pictures until growth triggers.
    interval_left_s
        Seconds until the interval does; at 0, with the first new picture.
    has_new
        Whether pictures came since, without which nothing triggers.
    drift
        The latest arrivals against those of the fit.
    """

    growth_missing: int | None = None
    interval_left_s: float | None = None
    has_new: bool = False
    drift: Drift | None = None


def next_fit(rule: RefitRule, facts: FitFacts) -> NextFit:
    """Tell how far each trigger is."""
    if facts.fitted_images is None:
        return NextFit()
    new = max(0, facts.n_features - facts.fitted_images)
    missing = left_s = None
    if rule.growth is not None:
        missing = max(0, growth_images(rule.growth, facts.fitted_images) - new)
    if rule.interval_s is not None:
        left_s = max(0.0, rule.interval_s - (facts.fit_age_s or 0.0))
    return NextFit(missing, left_s, new > 0, facts.drift)


def describe_next_fit(rule: RefitRule, facts: FitFacts) -> str:
    """Say in words what triggers the next fit."""
    if facts.fitted_images is None:
        return _describe_first_fit(rule, facts)
    if fit_due(rule, facts) is not None:
        return f"when {_nothing_comes(rule)}"
    following, reasons = next_fit(rule, facts), []
    if following.growth_missing is not None:
        missing = following.growth_missing
        reasons.append(f"after {counted(missing, 'more new picture')}")
    if following.interval_left_s is not None:
        left = duration_text(following.interval_left_s)
        reasons.append(
            f"in {left}" if following.has_new else f"with the first new picture after {left}"
        )
    if following.drift is not None:
        reasons.append(_describe_drift(following.drift))
    return " or ".join(reasons) if reasons else "only on `imgsortd refit`"


def _describe_first_fit(rule: RefitRule, facts: FitFacts) -> str:
    known = facts.n_features + facts.unread
    if known < rule.min_images:
        return f"first fit at {rule.min_images:,} pictures, {known:,} so far"
    if facts.unread:
        return f"looking at {facts.n_features:,} of {known:,} pictures; sorted when all are seen"
    return f"all {known:,} pictures are looked at; sorted when {_nothing_comes(rule)}"


def _nothing_comes(rule: RefitRule) -> str:
    return f"none has come for {duration_text(rule.quiet_s)}" if rule.quiet_s else "all are seen"


def start_of(maturity: Maturity | None, adopted: Sequence[AdoptedFit], n_features: int) -> Start:
    """Tell where a fit begins now: no library is held to what less than half of it have shown."""
    formed = next((fit.n_images for fit in reversed(adopted) if not fit.is_kept), 0)
    is_held = maturity is not None and not maturity.is_young and n_features < 2 * formed
    return Start.FORMER if is_held else Start.NOTHING


def describe_age(maturity: Maturity, max_churn: float | None) -> str:
    """Say in a sentence whether a library is young or grown, why, and what comes of it."""
    if maturity.is_young:
        then = "the next refit that comes by itself begins from nothing and is not asked about"
    elif max_churn is None:
        then = "a refit begins from the clusters in force"
    else:
        more = f"more than {100 * max_churn:g} %" if max_churn else "anything"
        then = f"a refit that changes {more} waits for your word"
    return f"{maturity.age}: {maturity.why}; {then}"


def _describe_drift(drift: Drift) -> str:
    limit = f"when {100 * drift.share_that_triggers:.0f} %"
    if drift.arrivals < drift.window:
        missing = drift.window - drift.arrivals
        return f"{limit} of {drift.window:,} arrivals lie far out ({missing:,} still to come)"
    return f"{limit} of the last {drift.window:,} lie far out ({100 * (drift.share or 0):.0f} % do)"


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the latest arrivals lie: are they still like the pictures of the fit?

    The test is on distances alone. Of the pictures of the fit, a tenth lay farther from their
    center than its 90 % quantile; were the arrivals like them, so would a tenth of these. With
    refit.drift = 200, the latest 200 arrivals have drifted when so many of them lie beyond it
    that chance would give as many in less than one of 1,000 such samples (binomial test, exact,
    one-sided), and at least twice the share. The second condition is what keeps the test quiet
    where it is made anew with each arrival, and where pictures that were not in a fit lie a
    little farther than those in it, which centers of small clusters cause.

    More than a fifth of them in review is drift without a test: whoever finds every fifth picture
    there does not ask how far it lies.

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
        return self.arrivals >= self.window and self.in_review > _MOST_IN_REVIEW * self.window

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
        (:func:`imgsortd.clusters.routing.distance_quantiles`).
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

    def exactly(count: int) -> float:
        choices = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
        return math.exp(choices + count * math.log(p) + (n - count) * math.log1p(-p))

    return math.fsum(map(exactly, range(least, n + 1)))
