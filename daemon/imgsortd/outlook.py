"""When the clusters are fitted next, what waits for a person's word, and what is out of shape."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_records import FitRecord
from imgsortd.config import Config
from imgsortd.core.lifecycle import (
    Age,
    FitFacts,
    FitTrigger,
    RefitRule,
    describe_age,
    describe_next_fit,
    next_fit,
)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What ``status`` shows of fits to come.

    Attributes
    ----------
    text
        When the next fit is, in words.
    next_refit
        The same trigger by trigger, None for one that is off: ``growth_missing`` pictures,
        ``interval_left_s``, and for ``drift`` the share now and the share that triggers.
    proposal
        The one that waits.
    giants
        Clusters above ``clusters.max_share``: id, pictures at the fit, share.
    age
        Whether the library is young or grown; None before the first fit.
    age_text
        The same in a sentence: why, and what comes of it.
    """

    text: str
    next_refit: dict[str, Any]
    proposal: dict[str, Any] | None
    giants: list[dict[str, Any]]
    age: Age | None = None
    age_text: str = ""


def look_ahead(config: Config, store: Store | None, record: FitRecord | None) -> Outlook:
    """Tell what is to come; ``store`` is None where no daemon has ever run."""
    clusters, refit = config.clusters, config.refit
    rule = config.refit_rule
    facts = FitFacts(0) if store is None else _facts(store, record, refit.drift)
    maturity = None if store is None else store.records.maturity(refit.max_churn)
    proposal = None if store is None else _proposal(store)
    return Outlook(
        describe_next_fit(rule, facts),
        _next_refit(rule, facts),
        proposal,
        [] if store is None or record is None else _giants(store, record, clusters.max_share),
        None if maturity is None else maturity.age,
        "" if maturity is None else describe_age(maturity, refit.max_churn),
    )


def _facts(store: Store, record: FitRecord | None, window: int | None) -> FitFacts:
    if record is None or record.trigger is FitTrigger.REBUILD:
        return FitFacts(store.records.count_features(), unread=store.records.count_unread())
    facts = store.records.facts()
    return facts if window is None else replace(facts, drift=store.proposals.drift(window))


def _next_refit(rule: RefitRule, facts: FitFacts) -> dict[str, Any]:
    following = next_fit(rule, facts)
    drift = following.drift
    return {
        "growth_missing": following.growth_missing,
        "interval_left_s": following.interval_left_s,
        "drift": None
        if drift is None
        else {
            "window": drift.window,
            "arrivals": drift.arrivals,
            "share": drift.share,
            "share_that_triggers": drift.share_that_triggers,
        },
    }


def _proposal(store: Store) -> dict[str, Any] | None:
    fit = store.proposals.waiting()
    return None if fit is None else asdict(fit)


def _giants(store: Store, record: FitRecord, max_share: float | None) -> list[dict[str, Any]]:
    return [
        {"id": cluster_id, "fitted": images, "share": images / max(1, record.n_images)}
        for cluster_id, images in store.records.giants(record.fit_id, max_share)
    ]


def proposal_line(proposal: dict[str, Any]) -> str:
    """Say that a proposal waits, what it changes, and what to do."""
    number, images = proposal["fit_id"], f"{proposal['n_images']:,}"
    what = {
        FitTrigger.SPLIT: f"split of cluster_{proposal['about_id']}, ",
        FitTrigger.REVIEW: "new cluster of pictures in review, ",
    }.get(FitTrigger(proposal["trigger"]), "")
    change = f"{100 * (proposal['churn'] or 0):.0f} % of {images} pictures would change cluster"
    return f"proposal {number} waits: {what}{change}; imgsortd refits show {number}"


def giant_line(giant: dict[str, Any]) -> str:
    """Say that a cluster is too large."""
    return (
        f"cluster_{giant['id']} has {100 * giant['share']:.0f} % of all pictures, "
        f"above clusters.max_share"
    )
