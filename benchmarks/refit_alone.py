"""One refit of a synthetic store: its seconds and its memory.

Run as ``python -m benchmarks.refit_alone CONFIG`` it prints JSON. It is what
``imgsortd refit -c CONFIG --json`` does, in this process and with torch loaded, but
without weights: the store's features are not VGG16's, and the memory is to be the fit's.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.synthetic import DIMS, EXTRACTOR
from imgsortd.adapters import features
from imgsortd.config import Config, load_config
from imgsortd.core.records import Pixels, Vectors

_KIB = 1024


class NoModel:
    """A FeatureExtractor that made the synthetic features and is asked for no others."""

    def __init__(self) -> None:
        self.id = EXTRACTOR
        self.batch_images = 16

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Return no features, float32 [0, d]."""
        if pixels:
            raise SystemExit("expected a refit to read no picture")
        return np.empty((0, DIMS), dtype=np.float32)

    def describe(self) -> str:
        """Say that there is no model."""
        return "no model"


def refit_once(config: Config) -> dict[str, Any]:
    """Refit as the command does when no daemon runs; return its summary.

    The one place that knows how a refit is called.
    """
    # Before the command's module takes the name over.
    vars(features)["build_extractor"] = lambda *_, **__: NoModel()
    from imgsortd.refitting import refit

    return refit(config, None, False, lambda _text: None, accept=True)


def main() -> None:
    """Refit and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refit_alone")
    parser.add_argument("config", type=Path)
    options = parser.parse_args()
    config = load_config(options.config)
    import sklearn.cluster  # noqa: F401  both are loaded before the fit's memory is counted

    before_bytes = psutil.Process().memory_info().rss
    started = time.perf_counter()
    summary = refit_once(config)
    refit_s = time.perf_counter() - started
    peak_bytes = _KIB * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    values = {
        "images": summary["n_images"],
        "n_clusters": summary["n_clusters"],
        "algorithm": summary["algorithm"],
        "fit_s": summary["fit_s"],
        "refit_s": refit_s,
        "before_bytes": before_bytes,
        "peak_bytes": peak_bytes,
        "fit_bytes": peak_bytes - before_bytes,
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
