"""A library: configuration, store, clusters, moves and extractor that belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imgsortd.clusters.in_force import InForce, review_rule
from imgsortd.config.model import Config
from imgsortd.errors import MixedFeaturesError
from imgsortd.inbox.companions import Companions
from imgsortd.moves.folders import ClusterFolders
from imgsortd.moves.making import Moves
from imgsortd.moves.mover import Mover
from imgsortd.moves.roots import Roots
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.records import REBUILT, Model
from imgsortd.store.database import CommittedJournal, Store


@dataclass(frozen=True, slots=True)
class Library:
    """The parts, put together; whoever needs some of them is given those.

    Attributes
    ----------
    in_force
        The clusters that pictures are routed by.
    folders
        The folders of the clusters, by whatever name.
    companions
        The files in the inbox that go with a picture.
    roots
        Which folders inbox and target are.
    """

    config: Config
    store: Store
    extractor: FeatureExtractor
    in_force: InForce
    folders: ClusterFolders
    companions: Companions
    roots: Roots
    mover: Mover
    moves: Moves


def open_library(
    config: Config,
    store: Store,
    extractor: FeatureExtractor,
    roots: Roots,
    *,
    may_reextract: bool = False,
    after_each: Callable[[], None] = lambda: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Library:
    """Put the parts together; refuse features that another extractor made.

    Parameters
    ----------
    may_reextract
        Whether clusters of another backbone, or those that a rebuild has read off the
        folders, become the library's ``former`` ones.
    after_each, stopping
        What moves call and ask (:class:`~imgsortd.moves.mover.Mover`).

    Raises
    ------
    MixedFeaturesError
        The current fit was made with other weights, another layer or backbone.
    """
    in_force = clusters_in_force(config, store, extractor, may_reextract=may_reextract)
    with store.atomic():  # hashed, but not extracted by this extractor: read again
        store.files.restart(store.fits.lacking(extractor.id))
    mover = Mover(
        config.inbox,
        config.target,
        CommittedJournal(store),
        roots,
        after_each=after_each,
        stopping=stopping,
    )
    folders = ClusterFolders(store, config, roots)
    companions = Companions(config, store)
    moves = Moves(config, store, mover, folders, companions)
    return Library(config, store, extractor, in_force, folders, companions, roots, mover, moves)


def clusters_in_force(
    config: Config, store: Store, extractor: FeatureExtractor, *, may_reextract: bool = False
) -> InForce:
    """Return the clusters in force, if they go with an extractor; nothing is changed.

    Raises
    ------
    MixedFeaturesError
        As :func:`open_library`.
    """
    rule, model = review_rule(config), store.fits.current()
    if model is None or model.extractor == extractor.id:
        return InForce(store, rule, model)
    is_lost = model.extractor.weights_digest == REBUILT
    by_daemon = is_lost or model.extractor.backbone is not extractor.id.backbone
    if not (may_reextract and by_daemon):
        raise MixedFeaturesError(_mixed(store, model, extractor, by_daemon))
    return InForce(store, rule, None, former=model)


def _mixed(store: Store, model: Model, extractor: FeatureExtractor, by_daemon: bool) -> str:
    remedy = (
        "Start the daemon, which extracts the features anew and keeps the clusters' numbers, "
        "or set model.backbone back"
        if by_daemon
        else "Set model.weights and model.layer back, or give a new state_dir and extract again"
    )
    return (
        f"{store.path}: the clusters were fitted on {model.extractor}, but the "
        f"configuration now gives {extractor.id}; distances between the two mean "
        f"nothing. {remedy}"
    )
