"""The pictures in review, each with the clusters that it would likeliest belong to."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_review import ReviewRows
from imgsortd.adapters.store_web import PictureRow, WebRows
from imgsortd.core.records import Model
from imgsortd.core.review import nearest_clusters
from imgsortd.core.routing import center_distances
from imgsortd.overlay import with_pins
from imgsortd.web.names import ShownNames
from imgsortd.web.overview import Overview
from imgsortd.web.plain import key_of, shown, shown_text

DEFAULT_PICTURES, MOST_PICTURES = 50, 200
LIKELIEST = 3


class ReviewQueue:
    """Keeps the model that pictures are routed by until the fit or the pins are others.

    It may be used by several threads.

    Parameters
    ----------
    overview
        Tells the mosaics of the clusters; None for one of its own.
    """

    def __init__(self, overview: Overview | None = None) -> None:
        self._overview = overview or Overview()
        self._lock = Lock()
        self._of: tuple[object, ...] | None = None
        self._model: Model | None = None

    def read(
        self, store: Store | None, after: int | None = None, limit: int = DEFAULT_PICTURES
    ) -> dict[str, Any]:
        """Return the next pictures in review, the oldest first, as plain values for JSON.

        Parameters
        ----------
        store
            None where there is no database yet.
        after
            The last id that was seen; None for the first pictures.
        limit
            Pictures in the answer; at most 200.
        """
        if store is None:
            return {"total": 0, "pictures": [], "next": None}
        limit = max(1, min(limit, MOST_PICTURES))
        rows = WebRows(store.connection)
        found = ReviewRows(store.connection).undecided(after or 0, limit + 1)
        ids = found[:limit]
        pictures = rows.pictures(ids)
        shown_now = [pictures[file_id] for file_id in ids if file_id in pictures]
        return {
            "total": count_to_review(store),
            "pictures": self._with_likeliest(store, shown_now),
            "next": ids[-1] if len(found) > limit else None,
        }

    def _with_likeliest(self, store: Store, pictures: Sequence[PictureRow]) -> list[dict[str, Any]]:
        likeliest = self._likeliest(store, pictures)
        names = ShownNames(store)
        clusters = {number for near in likeliest.values() for number, _ in near}
        mosaics = self._overview.mosaics(store, clusters) if clusters else {}
        return [
            {
                "id": picture.file_id,
                "key": key_of(picture.sha256),
                "w": picture.width_px,
                "h": picture.height_px,
                "name": shown(picture.name),
                "reason": shown_text(picture.reason),
                "likeliest": [
                    {
                        **names.place(number),
                        "name": names.name(number),
                        "distance": round(distance, 4),
                        "mosaic": mosaics[number],
                    }
                    for number, distance in likeliest.get(picture.file_id, [])
                ],
            }
            for picture in pictures
        ]

    def _likeliest(
        self, store: Store, pictures: Sequence[PictureRow]
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
        rows = WebRows(store.connection)
        of = (rows.fit_in_force(), rows.pins_state())
        with self._lock:
            if of != self._of:
                model = store.fits.current()
                self._model = None if model is None else with_pins(model, store)
                self._of = of
            return self._model


def count_to_review(store: Store) -> int:
    """Count the pictures in review that wait for a person's word."""
    return store.files.counts().review - ReviewRows(store.connection).count_kept()
