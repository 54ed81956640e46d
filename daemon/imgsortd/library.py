"""A library: configuration, store, mover, model and clusters that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from imgsortd.adapters.mover import Mover
from imgsortd.adapters.store import CommittedJournal, Store
from imgsortd.cluster_folders import ClusterFolders
from imgsortd.companions import Companions, companion_rule
from imgsortd.config import Config
from imgsortd.core.lifecycle import Maturity, Start, start_of
from imgsortd.core.records import REBUILT, ExtractorId, Model, Pixels, Vectors
from imgsortd.core.review import ReviewRule
from imgsortd.errors import MixedFeaturesError
from imgsortd.overlay import Overlay


class FeatureExtractor(Protocol):
    """Whatever turns pixels into features."""

    id: ExtractorId
    batch_images: int
    """Pictures in one batch that suit the device."""
    on_cpu: bool
    """Whether it needs the CPUs that also decode."""

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Map uint8 [224, 224, 3] pictures to float32 [n, d] features."""

    def describe(self) -> str:
        """Say on what and how it runs, in a few words."""

    def unload(self) -> None:
        """Free its memory until it is needed again."""


@dataclass(slots=True)
class Library:
    """What the pipeline works with.

    Attributes
    ----------
    model
        The fit in force; None before the first one.
    former
        After a change of backbone, or the loss of the database, the fit that was in
        force: its clusters keep their numbers in the next one, and until then files
        wait. None otherwise.
    companions
        The files in the inbox that go with a picture.
    """

    config: Config
    store: Store
    mover: Mover
    extractor: FeatureExtractor
    model: Model | None = None
    former: Model | None = None
    _folders: ClusterFolders | None = None
    _overlay: Overlay = field(default_factory=Overlay)
    companions: Companions = field(init=False)

    def __post_init__(self) -> None:
        rule = companion_rule(self.config)
        self.companions = Companions(rule, self.store, self.mover.exists)

    @property
    def routing(self) -> Model | None:
        """The model that new pictures are routed by: the fit, and centers for a person's pins."""
        return self._overlay.over(self.model, self.store)

    def maturity(self) -> Maturity | None:
        """Tell whether its clusters have settled; None before the first fit."""
        return self.store.records.maturity(self.config.refit.max_churn)

    def start(self) -> Start:
        """Tell where a fit begins now."""
        records = self.store.records
        adopted = self.store.proposals.adopted()
        return start_of(self.maturity(), adopted, records.count_features())

    @property
    def folders(self) -> ClusterFolders:
        """The folders of the clusters, by whatever name."""
        if self._folders is None:
            self._folders = ClusterFolders(self.store, self.config)
        return self._folders

    @property
    def max_images(self) -> int:
        """Pictures in one batch: as configured, or what suits the device."""
        configured = self.config.batch.max_images
        return self.extractor.batch_images if configured == "auto" else configured

    @property
    def review_rule(self) -> ReviewRule:
        """When a picture goes to review, as configured."""
        return review_rule(self.config)


def review_rule(config: Config) -> ReviewRule:
    """Return when a picture goes to review, as configured."""
    return ReviewRule(config.clusters.review_quantile, config.clusters.review_margin)


def open_library(
    config: Config, store: Store, extractor: FeatureExtractor, *, may_reextract: bool = False
) -> Library:
    """Put the parts together; refuse features that another extractor made.

    Parameters
    ----------
    may_reextract
        Whether clusters of another backbone, or those that a rebuild has read off the
        folders, become the library's ``former`` ones.

    Raises
    ------
    MixedFeaturesError
        The current fit was made with other weights, another layer or backbone.
    """
    model, former = store.fits.current(), None
    if model is not None and model.extractor != extractor.id:
        is_lost = model.extractor.weights_digest == REBUILT
        by_daemon = is_lost or model.extractor.backbone is not extractor.id.backbone
        if not (may_reextract and by_daemon):
            raise MixedFeaturesError(_mixed(store, model, extractor, by_daemon))
        model, former = None, model
    with store.atomic():  # hashed, but not extracted by this extractor: read again
        store.files.restart(store.fits.lacking(extractor.id))
    mover = Mover(config.inbox, config.target, CommittedJournal(store))
    return Library(config, store, mover, extractor, model, former)


def _mixed(store: Store, model: Model, extractor: FeatureExtractor, by_daemon: bool) -> str:
    remedy = (
        "Start the daemon, which extracts the features anew and keeps the clusters' numbers, "
        "or set model.backbone back"
        if by_daemon
        else "Set model.weights and model.layer back, or give a new state_dir and extract again"
    )
    return (
        f"{store.path}: the clusters were fitted on {_describe(model.extractor)}, but the "
        f"configuration now gives {_describe(extractor.id)}; distances between the two mean "
        f"nothing. {remedy}"
    )


def _describe(extractor: ExtractorId) -> str:
    if extractor.weights_digest == REBUILT:
        return "no features, but read off the folders after the database was lost"
    return (
        f"{extractor.layer} features of weights {extractor.weights_digest[:12]} "
        f"({extractor.backbone})"
    )
