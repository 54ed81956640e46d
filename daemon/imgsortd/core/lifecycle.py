"""What the daemon is at, and when the clusters are fitted next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from imgsortd.core.drift import Drift


class Phase(StrEnum):
    """What the daemon is doing, as ``status`` shows it."""

    STARTING = "starting"
    WAITING = "waiting"  # too few pictures for the first fit
    IDLE = "idle"
    SORTING = "sorting"
    REEXTRACTING = "re-extracting"  # after a change of backbone
    PAUSED = "paused"  # a disk is full, or the target refuses files
    INBOX_LOST = "inbox_lost"
    STOPPED = "stopped"


def current_phase(
    *,
    inbox_is_lost: bool,
    is_paused: bool,
    is_reextracting: bool,
    is_sorting: bool,
    is_fitted: bool,
) -> Phase:
    """Tell the phase: the trouble first, then the work, then the rest."""
    if inbox_is_lost:
        return Phase.INBOX_LOST
    if is_paused:
        return Phase.PAUSED
    if is_reextracting:
        return Phase.REEXTRACTING
    if is_sorting:
        return Phase.SORTING
    return Phase.IDLE if is_fitted else Phase.WAITING


class FitTrigger(StrEnum):
    """Why a fit was made."""

    BOOTSTRAP = "bootstrap"
    GROWTH = "growth"
    INTERVAL = "interval"
    REQUEST = "request"
    SORT = "sort"
    BACKBONE = "backbone"
    REBUILD = "rebuild"
    DRIFT = "drift"  # arrivals lie farther from the centers than pictures did at the fit
    SPLIT = "split"  # a cluster above clusters.max_share
    REVIEW = "review"  # pictures in review that belong together
    FOLDER = "folder"  # a person made a folder


PARTIAL = (FitTrigger.SPLIT, FitTrigger.REVIEW, FitTrigger.FOLDER)
"""Changes of a few clusters only: when the next whole fit is due goes on from the last one."""


class Start(StrEnum):
    """Where a fit begins."""

    FORMER = "former"  # the clusters in force, which stay unless new ones are clearly better
    NOTHING = "nothing"


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


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What the inbox is at.

    Attributes
    ----------
    unread
        Files that are finished and not read yet.
    settling
        Files that may still be written; not those that could not be read as they stand.
    quiet_s
        Seconds since the last one arrived.
    """

    unread: int = 0
    settling: int = 0
    quiet_s: float = math.inf


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
class Adopted:
    """A whole fit that was put in force, as far as it tells of a library's age.

    ``churn`` is the share (0 to 1) of the pictures that changed cluster; None for the first.
    ``is_kept`` tells that the clusters before it went on.
    """

    fit_id: int
    n_images: int
    churn: float | None
    is_kept: bool = False


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
    adopted: Sequence[Adopted], fitted_images: int, n_features: int, max_churn: float | None
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
    following = next_fit(rule, facts)
    if fit_due(rule, facts) is not None:
        return f"when {_nothing_comes(rule)}"
    reasons = []
    if following.growth_missing is not None:
        missing = following.growth_missing
        reasons.append(f"after {missing:,} more new picture{'s' * (missing != 1)}")
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


def start_of(maturity: Maturity | None, adopted: Sequence[Adopted], n_features: int) -> Start:
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


def duration_text(seconds: float) -> str:
    """Write a duration with two units at most: ``6 d 23 h``, ``4 min``, ``12 s``."""
    parts: list[str] = []
    left = round(seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts) or "0 s"
