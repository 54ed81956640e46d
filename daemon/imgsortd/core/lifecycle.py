"""What the daemon is at, and when the clusters are fitted next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


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
        Pictures in the current fit; None before the first one.
    fit_age_s
        Seconds since the current fit; None before the first one.
    """

    n_features: int
    fitted_images: int | None = None
    fit_age_s: float | None = None


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
    if rule.interval_s is not None and (facts.fit_age_s or 0.0) >= rule.interval_s:
        return FitTrigger.INTERVAL
    return None


def growth_images(growth: float, fitted_images: int) -> int:
    """Return how many new pictures make up the share ``growth``, at least one."""
    return max(1, math.ceil(growth * fitted_images))


def describe_next_fit(rule: RefitRule, facts: FitFacts) -> str:
    """Say in words what triggers the next fit."""
    if facts.fitted_images is None:
        return f"first fit at {rule.min_images} pictures, {facts.n_features} so far"
    new = max(0, facts.n_features - facts.fitted_images)
    reasons = []
    if rule.growth is not None:
        missing = growth_images(rule.growth, facts.fitted_images) - new
        reasons.append(f"after {max(0, missing)} more new pictures")
    if rule.interval_s is not None:
        left_s = max(0.0, rule.interval_s - (facts.fit_age_s or 0.0))
        if new:
            reasons.append(f"in {duration_text(left_s)}")
        else:
            reasons.append(f"with the first new picture after {duration_text(left_s)}")
    return " or ".join(reasons) if reasons else "only on `imgsortd refit`"


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
