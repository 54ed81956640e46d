"""``imgsortd`` with quick stand-ins for VGG16 and scikit-learn: a start takes a second, not ten."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from imgsortd.clusters.routing import nearest
from imgsortd.config.model import ModelConfig
from imgsortd.pictures import decoder, reading
from imgsortd.records import Vectors
from killed_line import DecoderInProcess
from pace import hurry
from support import ColourExtractor
from warm import IN_PROCESS


def build_extractor(config: ModelConfig, folder: Path | None = None) -> ColourExtractor:
    """Take the weights' name for their digest, so that other weights give other features."""
    return ColourExtractor(digest=str(config.weights), backbone=config.backbone)


class KMeans:
    """Each center is the picture farthest from those before it: enough for three colours."""

    def __init__(self, n_clusters: int, random_state: int) -> None:
        self.n_clusters = n_clusters

    def fit(self, features: Vectors) -> None:
        centers = features[:1]
        while len(centers) < self.n_clusters:
            far = nearest(features, centers)[1].argmax()
            centers = np.concatenate([centers, features[far : far + 1]])
        self.cluster_centers_ = centers
        self.labels_, distances = nearest(features, centers)
        self.inertia_ = float((distances**2).sum())


def stand_in(name: str, **contents: object) -> None:
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(contents)


def obey(environ: Mapping[str, str]) -> None:
    """Do what a test asks by the environment."""
    if clock := environ.get("IMGSORTD_TEST_CLOCK"):
        # A file with the seconds by which the wall clock is wrong; it may change at any time.
        real_time = time.time
        time.time = lambda: real_time() + float(Path(clock).read_text())
    if worker := environ.get("IMGSORTD_TEST_DECODER"):
        decoder.PROGRAM = (worker,)
    if environ.get(IN_PROCESS):
        reading.Decoder = DecoderInProcess  # type: ignore[misc,assignment]


stand_in("imgsortd.networks.building", build_extractor=build_extractor)
stand_in("sklearn.cluster", KMeans=KMeans, MiniBatchKMeans=KMeans)
stand_in("sklearn.exceptions", ConvergenceWarning=Warning)
hurry()

if __name__ == "__main__":
    from imgsortd.cli.app import main

    obey(os.environ)
    main()
