"""``imgsortd suggest-k``: what each number of clusters would be like, from the stored features."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from imgsortd.adapters.kmeans import check_features
from imgsortd.adapters.store import open_read_only
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.config import Config
from imgsortd.core.choosing_k import CurvePoint, pick
from imgsortd.core.clustering import SAMPLE_IMAGES, number_curve
from imgsortd.core.records import KRange
from imgsortd.errors import FitError
from imgsortd.fit_rows import StreamedRows


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The curve, and the number that ``clusters.n_clusters: auto`` would take.

    Attributes
    ----------
    n_images
        Pictures with features.
    n_sampled
        Those that were looked at.
    """

    n_images: int
    n_sampled: int
    pick: int
    points: tuple[CurvePoint, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def suggest_number(config: Config, wanted: KRange) -> Suggestion:
    """Compare numbers of clusters; only reads, also beside a running daemon.

    Raises
    ------
    FitError
        There are too few pictures with features.
    StoreError
        There is no store, or it cannot be read.
    """
    store = open_read_only(config.database)
    try:
        with foreign_errors(config.database):
            n_images = store.fits.count_features()
            extractor = store.fits.latest_extractor()
            if extractor is None or n_images < 3 * wanted.least:
                raise FitError(
                    f"{config.database}: {n_images} pictures have features, which is too few to "
                    f"compare {wanted.least} clusters and more; wait until there are "
                    f"{3 * wanted.least}, or give a lower --range"
                )
            rows = StreamedRows(store.fits, extractor, n_images, SAMPLE_IMAGES, lambda _: None)
            _, features = rows.sample(config.clusters.random_state)
    finally:
        store.close()
    check_features(features, 1)
    points = number_curve(features, wanted)
    return Suggestion(n_images, len(features), pick(points), tuple(points))
