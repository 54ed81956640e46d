"""The clusters with their names, and what a classifier would call them. Nothing is renamed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from imgsortd.config.model import Config
from imgsortd.names import cluster_folder
from imgsortd.pictures.decoder import Decoder, decode_limits
from imgsortd.pictures.reading import PicturePool, RootedName, is_there
from imgsortd.records import Pixels, StageProgress, Vectors
from imgsortd.reports.subjects import places_of
from imgsortd.reports.typical import SPARE, Ranked, rank_members
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.folders import in_use

LOOKED_AT, SUGGESTED = 9, 3
LEAST_SHARE = 0.1  # of what the classifier sees; below, a class is no name to offer
_AHEAD = 2  # clusters whose pictures are being read while one is computed


class Classifier(Protocol):
    """Whatever turns pixels into logits."""

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Map uint8 [224, 224, 3] pictures to float32 [n, classes]."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A class, and its share (0 to 1) of what the classifier sees."""

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class NamedCluster:
    """A cluster: its name or "", files in its folder, and pictures looked at for suggestions."""

    id: int
    name: str
    folder: str
    files: int
    looked_at: int = 0
    suggestions: tuple[Suggestion, ...] = ()

    @property
    def is_named(self) -> bool:
        """Tell whether a person gave it a name, here or in a file manager."""
        return bool(self.name) or self.folder != os.fsdecode(cluster_folder(self.id))


def read_names(config: Config) -> list[NamedCluster]:
    """Return the clusters of a library, the largest first.

    Raises
    ------
    StoreError
        The database cannot be read.
    """
    with open_for_reading(config.database) as store:
        sizes = store.files.cluster_sizes()
        rows = in_use(store.hands.cluster_folders(), sizes)
    files_of = {row.cluster_id: sizes.get(row.cluster_id, 0) for row in rows}
    return [
        NamedCluster(row.cluster_id, row.name, os.fsdecode(row.folder), files_of[row.cluster_id])
        for row in sorted(rows, key=lambda row: -files_of[row.cluster_id])
    ]


def suggest_names(
    config: Config,
    clusters: Sequence[NamedCluster],
    classifier: Classifier,
    class_names: Sequence[str],
    on_progress: StageProgress = lambda *_: None,
) -> list[NamedCluster]:
    """Return the clusters with the classes that their most typical pictures are likely of.

    Up to nine pictures of each are looked at, those nearest to the middle of the cluster;
    a cluster that has none to look at gets no suggestion.

    Raises
    ------
    StoreError
        The database cannot be read.
    NoDecoderError
        A decoding process cannot be started.
    """
    with open_for_reading(config.database) as store:
        places = _nearest_places(
            config, store, clusters, lambda *now: on_progress("features", *now)
        )
    done: list[NamedCluster] = []
    begun: deque[list[Future[Pixels | str]]] = deque()
    on_progress("clusters", 0, len(clusters))
    with PicturePool(decode_limits(config.pictures)) as pool:
        for at, cluster in enumerate(clusters):
            for ahead in clusters[at + len(begun) : at + _AHEAD]:
                begun.append([pool.submit(Decoder.decode, of) for of in places[ahead.id]])
            read = [future.result() for future in begun.popleft()]
            pixels = [one for one in read if not isinstance(one, str)]
            logits = classifier.extract(pixels) if pixels else np.empty((0, 0), dtype=np.float32)
            found = likely_classes(logits, class_names, SUGGESTED)
            done.append(replace(cluster, looked_at=len(pixels), suggestions=found))
            on_progress("clusters", len(done), len(clusters))
    return done


def _nearest_places(
    config: Config,
    store: Store,
    clusters: Sequence[NamedCluster],
    on_pictures: Callable[[int, int], None],
) -> dict[int, list[tuple[RootedName, ...]]]:
    """Return where the pictures nearest to the middle of each cluster stand."""
    ids = [cluster.id for cluster in clusters]
    ranked = rank_members(store, ids, LOOKED_AT + SPARE, 1, on_pictures)
    found = {}
    for number in ids:
        nearest = [i for i, _ in ranked.get(number, Ranked()).nearest]
        files = store.lookup.by_ids(nearest)
        places = [places_of(config, files[i]) for i in nearest if i in files]
        found[number] = [of for of in places if is_there(of)][:LOOKED_AT]
    return found


def likely_classes(
    logits: Vectors, class_names: Sequence[str], count: int
) -> tuple[Suggestion, ...]:
    """Return the classes that the pictures are most likely of, the likeliest first.

    Parameters
    ----------
    logits
        float32 [n, classes]. Each picture's are made probabilities (softmax), and these are
        averaged: nine pictures have nine votes, whatever the length of their logits.
    class_names
        One for each column.
    """
    if not len(logits):
        return ()
    exact = logits.astype(np.float64)
    powers = np.exp(exact - exact.max(axis=1, keepdims=True))
    shares = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
    best = np.argsort(-shares, kind="stable")[:count]
    return tuple(Suggestion(class_names[index], float(shares[index])) for index in best)


def commands(clusters: Sequence[NamedCluster]) -> list[tuple[int, str]]:
    """Return (number, name) for each cluster without a name: its likeliest class not taken yet.

    Two folders cannot have one name, so that the larger cluster takes it.
    """
    taken = {text.casefold() for cluster in clusters for text in (cluster.name, cluster.folder)}
    chosen = []
    for cluster in clusters:
        likely = [s.name for s in cluster.suggestions if s.share >= LEAST_SHARE]
        free = (name for name in likely if name.casefold() not in taken)
        name = None if cluster.is_named else next(free, None)
        if name is not None:
            taken.add(name.casefold())
            chosen.append((cluster.id, name))
    return chosen
