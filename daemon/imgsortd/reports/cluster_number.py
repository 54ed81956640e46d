"""``imgsortd suggest-k``: what each number of clusters would be like, from the stored features."""

from __future__ import annotations

from dataclasses import dataclass

from imgsortd.clusters.fit import StreamedRows
from imgsortd.clusters.kmeans import check_features
from imgsortd.clusters.number import CurvePoint, pick
from imgsortd.clusters.sample import SAMPLE_IMAGES, number_curve
from imgsortd.config.model import Config
from imgsortd.errors import FitError
from imgsortd.records import KRange
from imgsortd.store.database import open_for_reading


@dataclass(frozen=True, slots=True)
class SuggestedNumber:
    """The curve, and the number that ``clusters.n_clusters: auto`` would take.

    ``n_images`` have features, ``n_sampled`` of them were looked at.
    """

    n_images: int
    n_sampled: int
    pick: int
    points: tuple[CurvePoint, ...]


def suggest_number(config: Config, wanted: KRange) -> SuggestedNumber:
    """Compare numbers of clusters; only reads, also beside a running daemon.

    Raises
    ------
    FitError
        There are too few pictures with features.
    StoreError
        There is no store, or it cannot be read.
    """
    with open_for_reading(config.database) as store:
        n_images = store.fits.count_features()
        extractor = store.lookup.newest_extractor()
        if extractor is None or n_images < 3 * wanted.least:
            raise FitError(
                f"{config.database}: {n_images} pictures have features, which is too few to "
                f"compare {wanted.least} clusters and more; wait until there are "
                f"{3 * wanted.least}, or give a lower --range"
            )
        rows = StreamedRows(store.fits, extractor, n_images, SAMPLE_IMAGES, lambda _: None)
        _, features = rows.sample(config.clusters.random_state)
    check_features(features, 1)
    points = number_curve(features, wanted)
    return SuggestedNumber(n_images, len(features), pick(points), tuple(points))
