"""``imgsortd explain``: where a file is and why, or where it would go."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_find import FileRow, Finder
from imgsortd.config import Config
from imgsortd.core.records import FileState, Model, Vectors
from imgsortd.core.review import ReviewRule, choose, farthest, nearest_clusters
from imgsortd.core.routing import REVIEW_FOLDER, center_distances
from imgsortd.errors import FindError
from imgsortd.finding import (
    Tell,
    extract_features,
    library_extractor,
    nearest_pictures,
    stored_features,
)
from imgsortd.overlay import Overlay
from imgsortd.subjects import (
    ClusterNames,
    Subject,
    find_subject,
    open_for_reading,
    place_of,
    stands,
)

_CLUSTERS, _PICTURES = 3, 5


def explain(config: Config, path: Path, tell: Tell) -> dict[str, Any]:
    """Report all that is known of a file, as plain values for JSON.

    Raises
    ------
    FindError
        There is no such file, or it is no picture and not of the library.
    StoreError, MixedFeaturesError
        There is no library yet, or another model made its features.
    """
    with open_for_reading(config) as store:
        subject = find_subject(config, store, path)
        report: dict[str, Any] = {
            "file": str(subject.path),
            "in_library": subject.row is not None,
            "there": subject.is_there,
            "changed": subject.changed,
            "library": None,
        }
        if subject.row is not None:
            report["library"] = _library_part(config, store, subject)
        report |= _features_part(config, store, subject, tell)
        return report


def _library_part(config: Config, store: Store, subject: Subject) -> dict[str, Any]:
    """Say what the rows say: state, place, cluster, move, fit, pin, companions."""
    row, finder, names = subject.row, Finder(store), ClusterNames(config, store)
    assert row is not None
    move, fit = finder.last_move(row.file_id), row.fit_id and finder.fit(row.fit_id)
    owner = row.companion_of and finder.by_id(row.companion_of)
    same = finder.same_bytes(row.sha256) if row.sha256 else []
    return {
        **names.file(row),
        "is_this_file": subject.is_row,
        "stands_there": stands(config, row),
        "distance": row.distance,
        "reason": row.reason,
        "moved": move
        and {"batch": move.batch, "op": move.op, "at": move.done_at, "by_undo": move.undoes},
        "fit": fit
        and {"id": row.fit_id, "trigger": fit[0], "clusters": fit[1], "created_at": fit[2]},
        "pin": _pin(finder, names, row),
        "companions": [names.file(one) for one in finder.companions(row.file_id)],
        "goes_with": names.file(owner) if owner else None,
        "same_bytes": [str(place_of(config, one)) for one in same if one.file_id != row.file_id],
    }


def _pin(finder: Finder, names: ClusterNames, row: FileRow) -> dict[str, Any] | None:
    pin = finder.pin(row.sha256) if row.sha256 else None
    if pin is None:
        return None
    if pin[0] is None:
        return {**names.cluster(None), "folder": os.fsdecode(REVIEW_FOLDER), "at": pin[1]}
    return {**names.cluster(pin[0]), "at": pin[1]}


def _features_part(config: Config, store: Store, subject: Subject, tell: Tell) -> dict[str, Any]:
    """Say what the features say: distances, limits, the decision now, the like pictures."""
    parts: dict[str, Any] = {
        "model_loaded": False,
        "clusters": [],
        "limits": None,
        "now": None,
        "similar": [],
    }
    row = subject.row
    if row is not None and row.state in (FileState.SET_ASIDE, FileState.COMPANION):
        return parts  # no picture, or one that goes where another goes
    extractor = library_extractor(store)
    features = stored_features(store, extractor, subject)
    if features is None:
        if not subject.is_there:
            raise FindError(
                f"{subject.path}: it is no longer there, and no features of it are stored"
            )
        features = extract_features(config, extractor, subject.path, tell)
        parts["model_loaded"] = True
    names = ClusterNames(config, store)
    model = Overlay().over(store.fits.current(), store)  # pins count as centers, too
    if model is not None:
        parts |= _decision(config, names, model, features)
    own = row if subject.is_row else None
    nearest = nearest_pictures(config, store, extractor, features, _PICTURES, own, tell)
    parts["similar"] = [
        {
            **names.file(one),
            "distance": distance,
            "same_bytes": row is not None and one.sha256 == row.sha256,
        }
        for one, distance in nearest.found
    ]
    return parts


def _decision(
    config: Config, names: ClusterNames, model: Model, features: Vectors
) -> dict[str, Any]:
    rule = ReviewRule(config.clusters.review_quantile, config.clusters.review_margin)
    one = features[None]
    distances = center_distances(one, model.centers)[0]
    limit, choice = farthest(model, rule), choose(one, model, rule)[0]
    return {
        "clusters": [
            {**names.cluster(cluster_id), "distance": distance}
            for cluster_id, distance in nearest_clusters(distances, model.cluster_ids, _CLUSTERS)
        ],
        "limits": {
            "farthest": limit if math.isfinite(limit) else None,
            "quantile": rule.quantile,
            "margin": rule.margin,
        },
        "now": {
            **names.cluster(choice.cluster_id),
            "review": choice.cluster_id is None,
            "distance": choice.distance,
            "reason": choice.reason,
        },
    }
