"""The pictures in review, each with the clusters that it would likeliest belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from imgsortd.clusters.in_force import with_pins
from imgsortd.clusters.routing import center_distances, nearest_clusters
from imgsortd.records import Model
from imgsortd.store.database import Store
from imgsortd.store.shown import ShownPicture
from imgsortd.web.clusters import Overview
from imgsortd.web.shown import Picture, ShownNames, Thumb, head_of

DEFAULT_PICTURES, MOST_PICTURES = 50, 200
LIKELIEST = 3


@dataclass(frozen=True, slots=True)
class Likely:
    """A cluster that a picture may belong to."""

    cluster: int
    folder: str
    name: str | None
    distance: float
    mosaic: tuple[Thumb, ...]


@dataclass(frozen=True, slots=True)
class ReviewPicture(Picture):
    """A picture in review, and the clusters nearest to it."""

    reason: str
    likeliest: list[Likely]


@dataclass(frozen=True, slots=True)
class ReviewChunk:
    """So many of ``total`` pictures; ``next`` is what is to be asked for after them."""

    total: int
    pictures: list[ReviewPicture]
    next: int | None


class ReviewQueue:
    """Keeps the model that pictures are routed by until the fit or the pins are others.

    It may be used by several threads. The mosaics of clusters are told by ``overview``.
    """

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._lock = Lock()
        self._of: tuple[object, ...] | None = None
        self._model: Model | None = None

    def read(self, store: Store, after: int = 0, limit: int = DEFAULT_PICTURES) -> ReviewChunk:
        """Return the next pictures in review, at most 200: after an id, the oldest first."""
        limit = max(1, min(limit, MOST_PICTURES))
        found = store.files.undecided(after, limit + 1)
        ids = found[:limit]
        known = store.shown.pictures(ids)
        pictures = [known[file_id] for file_id in ids if file_id in known]
        likeliest = self._likeliest(store, pictures)
        clusters = {number for near in likeliest.values() for number, _ in near}
        mosaics = self._overview.mosaics(store, clusters) if clusters else {}
        names = ShownNames(store)
        return ReviewChunk(
            count_to_review(store),
            [
                ReviewPicture(
                    *head_of(picture),
                    picture.reason,
                    [
                        Likely(
                            number,
                            names.folder(number),
                            names.name(number),
                            round(distance, 4),
                            mosaics[number],
                        )
                        for number, distance in likeliest.get(picture.file_id, [])
                    ],
                )
                for picture in pictures
            ],
            ids[-1] if len(found) > limit else None,
        )

    def _likeliest(
        self, store: Store, pictures: Sequence[ShownPicture]
    ) -> dict[int, list[tuple[int, float]]]:
        """Return (cluster, distance) of the nearest clusters of each picture with features."""
        model = self._routing_model(store)
        hashes = {one.sha256 for one in pictures if one.sha256 is not None}
        if model is None or not hashes:
            return {}
        features = store.fits.get_features(model.extractor, sorted(hashes))
        found = {}
        for picture in pictures:
            vector = features.get(picture.sha256 or b"")
            if vector is not None:
                distances = center_distances(vector[None], model.centers)[0]
                found[picture.file_id] = nearest_clusters(distances, model.cluster_ids, LIKELIEST)
        return found

    def _routing_model(self, store: Store) -> Model | None:
        """Return the fit in force with its pins; None before the first one."""
        of = (store.shown.fit_in_force(), store.shown.pins_state())
        with self._lock:
            if of != self._of:
                model = store.fits.current()
                self._model = None if model is None else with_pins(model, store)
                self._of = of
            return self._model


def count_to_review(store: Store) -> int:
    """Count the pictures in review that wait for a person's word."""
    return store.files.counts().review - store.files.count_kept_in_review()
