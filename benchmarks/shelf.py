"""A library in a folder of its own that is filled with features, and fitted as imgsortd does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.running import write_config
from imgsortd.adapters.store import open_store
from imgsortd.adoption import FitSummary, adopt_fit
from imgsortd.config import load_config
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import ExtractorId, KRange, Pixels, Vectors
from imgsortd.core.routing import nearest
from imgsortd.fits import compute_fit, fit_source
from imgsortd.library import open_library

Labels = npt.NDArray[np.intp]


class _NoModel:
    """A FeatureExtractor that has made the features and is asked for no others."""

    def __init__(self, extractor: ExtractorId) -> None:
        self.id = extractor
        self.batch_images = 16
        self.on_cpu = True

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Return no features, float32 [0, d]."""
        return np.empty((len(pixels), self.id.dims), dtype=np.float32)

    def describe(self) -> str:
        """Say that there is no model."""
        return "no model"

    def unload(self) -> None:
        """Free nothing."""


class Shelf:
    """Pictures by number, of which only the features exist."""

    def __init__(self, folder: Path, extractor: ExtractorId, random_state: int = 42) -> None:
        config = load_config(write_config(folder))
        self._seed = random_state
        self._store = open_store(config.database)
        self._library = open_library(config, self._store, _NoModel(extractor))

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def add(self, numbers: Sequence[int], features: Vectors) -> None:
        """Let pictures arrive, as if they stood in a cluster's folder."""
        hashes = [_sha256(number) for number in numbers]
        with self._store.atomic():
            self._store.connection.executemany(
                "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, cluster_id, "
                "dst, seen_at) VALUES (?, 1, 1, 1, ?, 'sorted', 0, ?, 0)",
                [
                    (b"%07d.jpg" % number, sha256, b"cluster_0/%07d.jpg" % number)
                    for number, sha256 in zip(numbers, hashes, strict=True)
                ],
            )
            self._store.fits.put_features(self._library.extractor.id, hashes, features)

    def fit(self, wanted: int | KRange) -> FitSummary:
        """Fit, and put the fit in force."""
        fitted = compute_fit(fit_source(self._library), wanted, self._seed)
        return adopt_fit(self._library, fitted, FitTrigger.REQUEST)

    def clusters_of(self, features: Vectors) -> Labels:
        """Return the cluster id that each picture is routed to now, pins heeded."""
        model = self._library.routing
        assert model is not None
        return np.asarray(model.cluster_ids, dtype=np.intp)[nearest(features, model.centers)[0]]

    def new_cluster(self) -> int:
        """Return the number of a folder that a person makes."""
        number = self._store.fits.next_cluster_id()
        with self._store.atomic():
            self._store.connection.execute(
                "INSERT INTO clusters(id, first_fit) VALUES (?, (SELECT max(id) FROM fits))",
                (number,),
            )
        return number

    def pin(self, number: int, cluster_id: int) -> None:
        """Put a picture into a cluster, as a person does."""
        with self._store.atomic():
            self._store.pins.put(_sha256(number), cluster_id)


def _sha256(number: int) -> bytes:
    return hashlib.sha256(b"%07d" % number).digest()
