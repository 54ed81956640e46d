"""The clusters with their names, and what a classifier would call them. Nothing is renamed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from imgsortd.adapters.decode_limits import decode_limits
from imgsortd.adapters.decoding import Decoder
from imgsortd.adapters.picture_pool import PicturePool, Place, is_there
from imgsortd.adapters.store import Store, open_read_only
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.adapters.store_sheets import SheetRows
from imgsortd.config import Config
from imgsortd.contact_sheet import SPARE, places_of, rank_members
from imgsortd.core.naming import Suggestion, likely_classes
from imgsortd.core.records import Pixels, Vectors
from imgsortd.core.routing import cluster_folder

LOOKED_AT = 9
SUGGESTED = 3
LEAST_SHARE = 0.1
"""Of what the classifier sees; below, a class is no name to offer."""
_AHEAD = 2  # clusters whose pictures are being read while one is computed

OnProgress = Callable[[str, int, int], None]
"""Told (stage, done, of how many)."""


class Classifier(Protocol):
    """Whatever turns pixels into logits."""

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Map uint8 [224, 224, 3] pictures to float32 [n, classes]."""


@dataclass(frozen=True, slots=True)
class NamedCluster:
    """A cluster as it is listed.

    Attributes
    ----------
    name
        What a person called it, or "".
    files
        In its folder.
    looked_at
        Pictures that the suggestions are from.
    """

    cluster_id: int
    name: str
    folder: str
    files: int
    looked_at: int = 0
    suggestions: tuple[Suggestion, ...] = ()

    @property
    def is_named(self) -> bool:
        """Tell whether a person gave it a name, here or in a file manager."""
        return bool(self.name) or self.folder != os.fsdecode(cluster_folder(self.cluster_id))

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "id": self.cluster_id,
            "name": self.name,
            "folder": self.folder,
            "files": self.files,
            "looked_at": self.looked_at,
            "suggestions": [{"name": s.name, "share": s.share} for s in self.suggestions],
        }


def read_names(config: Config) -> list[NamedCluster]:
    """Return the clusters of a library, the largest first.

    Raises
    ------
    StoreError
        The database cannot be read.
    """
    store = open_read_only(config.database)
    try:
        with foreign_errors(store.path):
            sizes = store.files.cluster_sizes()
            rows = SheetRows(store.connection).clusters(sizes)
    finally:
        store.close()
    named = [
        NamedCluster(
            row.cluster_id, row.name, os.fsdecode(row.folder), sizes.get(row.cluster_id, 0)
        )
        for row in rows
    ]
    return sorted(named, key=lambda cluster: -cluster.files)


def suggest_names(
    config: Config,
    clusters: Sequence[NamedCluster],
    classifier: Classifier,
    class_names: Sequence[str],
    on_progress: OnProgress = lambda *_: None,
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
    store = open_read_only(config.database)
    try:
        with foreign_errors(store.path):
            places = _nearest_places(
                config, store, clusters, lambda *now: on_progress("features", *now)
            )
    finally:
        store.close()
    done: list[NamedCluster] = []
    rest = deque(clusters)
    begun: deque[tuple[NamedCluster, list[Future[Pixels | str]]]] = deque()
    on_progress("clusters", 0, len(clusters))
    with PicturePool(decode_limits(config.pictures)) as pool:
        while rest or begun:
            while rest and len(begun) < _AHEAD:
                cluster = rest.popleft()
                of_cluster = places[cluster.cluster_id]
                begun.append((cluster, [pool.submit(Decoder.decode, of) for of in of_cluster]))
            cluster, futures = begun.popleft()
            pixels = [read for future in futures if not isinstance(read := future.result(), str)]
            found = (
                likely_classes(classifier.extract(pixels), class_names, SUGGESTED) if pixels else ()
            )
            done.append(replace(cluster, looked_at=len(pixels), suggestions=found))
            on_progress("clusters", len(done), len(clusters))
    return done


def _nearest_places(
    config: Config,
    store: Store,
    clusters: Sequence[NamedCluster],
    on_pictures: Callable[[int, int], None],
) -> dict[int, list[tuple[Place, ...]]]:
    """Return where the pictures nearest to the middle of each cluster stand."""
    ids = [cluster.cluster_id for cluster in clusters]
    ranked = rank_members(store, ids, LOOKED_AT + SPARE, 1, on_pictures)
    rows, found = SheetRows(store.connection), {}
    for number in ids:
        nearest = [i for i, _ in ranked[number].nearest] if number in ranked else []
        files = rows.files(nearest)
        places = [places_of(config, files[i]) for i in nearest if i in files]
        found[number] = [of for of in places if is_there(of)][:LOOKED_AT]
    return found


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
            chosen.append((cluster.cluster_id, name))
    return chosen
