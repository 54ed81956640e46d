"""What the daemon is at, and when the clusters are fitted next."""

from __future__ import annotations

import math
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


@dataclass(frozen=True, slots=True)
class RefitRule:
    """The configured reasons for a fit."""

    min_images: int
    interval_s: float | None
    growth: float | None


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
    """

    n_features: int
    fitted_images: int | None = None
    fit_age_s: float | None = None
    drift: Drift | None = None


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
        return f"first fit at {rule.min_images} pictures, {facts.n_features} so far"
    following = next_fit(rule, facts)
    reasons = []
    if following.growth_missing is not None:
        reasons.append(f"after {following.growth_missing} more new pictures")
    if following.interval_left_s is not None:
        left = duration_text(following.interval_left_s)
        reasons.append(
            f"in {left}" if following.has_new else f"with the first new picture after {left}"
        )
    if following.drift is not None:
        reasons.append(_describe_drift(following.drift))
    return " or ".join(reasons) if reasons else "only on `imgsortd refit`"


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
