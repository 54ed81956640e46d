"""``imgsortd explain``: where a file is and why, or where it would go."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from imgsortd.clusters.in_force import with_pins
from imgsortd.clusters.routing import (
    ReviewRule,
    center_distances,
    choose,
    farthest,
    nearest_clusters,
)
from imgsortd.config.model import Config
from imgsortd.names import REVIEW_FOLDER
from imgsortd.records import FileState, Model, Progress, Vectors
from imgsortd.reports.similar import SimilarFile, features_of, library_extractor, like_pictures
from imgsortd.reports.subjects import (
    ClusterNames,
    ToldCluster,
    ToldFile,
    find_subject,
    place_of,
    stands,
)
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.lookup import FileRow

_CLUSTERS, _PICTURES = 3, 5


@dataclass(frozen=True, slots=True)
class MovedBy:
    """The last move of a file; ``at`` in Unix seconds, ``by_undo`` the batch that it undoes."""

    batch: int
    op: str
    at: float
    by_undo: int | None


@dataclass(frozen=True, slots=True)
class RoutedBy:
    """The fit that a file was routed by; ``created_at`` in Unix seconds."""

    id: int
    trigger: str
    clusters: int
    created_at: float


@dataclass(frozen=True, slots=True)
class PinnedTo(ToldCluster):
    """Where a person has put a picture; ``at`` in Unix seconds."""

    at: float


@dataclass(frozen=True, slots=True)
class KnownFile(ToldFile):
    """What the rows say of a file: it, or another one with its bytes; ``same_bytes`` are paths."""

    is_this_file: bool
    stands_there: bool
    distance: float | None
    reason: str
    moved: MovedBy | None
    fit: RoutedBy | None
    pin: PinnedTo | None
    companions: list[ToldFile]
    goes_with: ToldFile | None
    same_bytes: list[str]


@dataclass(frozen=True, slots=True)
class NearCluster(ToldCluster):
    """A cluster, and how far its center is."""

    distance: float


@dataclass(frozen=True, slots=True)
class ReviewLimits:
    """From where on a picture goes to review; None for a limit that is off."""

    farthest: float | None
    quantile: float | None
    margin: float | None


@dataclass(frozen=True, slots=True)
class RouteNow(ToldCluster):
    """Where a picture would go now; to review for a reason."""

    review: bool
    distance: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is known of a file.

    Attributes
    ----------
    there
        It is on disk.
    changed
        It stands there with other bytes than those that were sorted.
    library
        What the rows say; None for a file that the library does not know.
    model_loaded
        It had no stored features.
    clusters, limits, now
        The nearest clusters, and where it would go; nothing before the first fit.
    similar
        The pictures most like it.
    """

    file: str
    in_library: bool
    there: bool
    changed: bool
    library: KnownFile | None
    model_loaded: bool = False
    clusters: list[NearCluster] = field(default_factory=list)
    limits: ReviewLimits | None = None
    now: RouteNow | None = None
    similar: list[SimilarFile] = field(default_factory=list)


def explain(config: Config, path: Path, tell: Progress) -> Explanation:
    """Report all that is known of a file.

    Raises
    ------
    FindError
        There is no such file, or it is no picture and not of the library.
    StoreError, MixedFeaturesError
        There is no library yet, or another model made its features.
    """
    with open_for_reading(config.database) as store:
        subject, names = find_subject(config, store, path), ClusterNames(config, store)
        row = subject.row
        report = Explanation(
            str(subject.path),
            row is not None,
            subject.is_there,
            subject.changed,
            None if row is None else _known(config, store, names, row, subject.is_row),
        )
        if row is not None and row.state in (FileState.SET_ASIDE, FileState.COMPANION):
            return report  # no picture, or one that goes where another goes
        extractor = library_extractor(store)
        features, is_new = features_of(config, store, extractor, subject, tell)
        current = store.fits.current()
        if current is not None:  # pins count as centers, too
            model = with_pins(current, store)
            report = _with_decision(config, names, model, features, report)
        _, found = like_pictures(config, store, extractor, subject, features, _PICTURES, tell)
        return replace(report, model_loaded=is_new, similar=found)


def _known(
    config: Config, store: Store, names: ClusterNames, row: FileRow, is_this_file: bool
) -> KnownFile:
    finder = store.lookup
    move, fit = finder.last_move(row.file_id), row.fit_id and store.records.fit(row.fit_id)
    owner = row.companion_of and finder.by_id(row.companion_of)
    same = finder.same_bytes(row.sha256) if row.sha256 else []
    pin = store.pins.get(row.sha256) if row.sha256 else None
    to: tuple[int | None, str | None, str | None] = (None, os.fsdecode(REVIEW_FOLDER), None)
    if pin is not None and pin.cluster_id is not None:
        to = names.of_cluster(pin.cluster_id)
    return KnownFile(
        *names.of_file(row),
        is_this_file=is_this_file,
        stands_there=stands(config, row),
        distance=row.distance,
        reason=row.reason,
        moved=MovedBy(move.batch, move.op, move.done_at, move.undoes) if move else None,
        fit=RoutedBy(fit.fit_id, fit.trigger, fit.n_clusters, fit.created_at) if fit else None,
        pin=PinnedTo(*to, pin.pinned_at or 0.0) if pin else None,
        companions=[ToldFile(*names.of_file(one)) for one in finder.companions(row.file_id)],
        goes_with=ToldFile(*names.of_file(owner)) if owner else None,
        same_bytes=[str(place_of(config, one)) for one in same if one.file_id != row.file_id],
    )


def _with_decision(
    config: Config, names: ClusterNames, model: Model, features: Vectors, report: Explanation
) -> Explanation:
    """Say how far the nearest clusters are, and where the file would go now."""
    rule = ReviewRule(config.clusters.review_quantile, config.clusters.review_margin)
    one = features[None]
    near = nearest_clusters(center_distances(one, model.centers)[0], model.cluster_ids, _CLUSTERS)
    limit, choice = farthest(model, rule), choose(one, model, rule)[0]
    cluster_id, distance = choice.cluster_id, choice.distance
    return replace(
        report,
        clusters=[NearCluster(*names.of_cluster(number), far) for number, far in near],
        limits=ReviewLimits(limit if math.isfinite(limit) else None, rule.quantile, rule.margin),
        now=RouteNow(*names.of_cluster(cluster_id), cluster_id is None, distance, choice.reason),
    )
