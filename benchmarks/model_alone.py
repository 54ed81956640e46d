"""The model alone: the article's forward passes and imgsortd's on the same pixels, in turns.

Run as ``python -m benchmarks.model_alone FOLDER …`` it prints the seconds of each round.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import article
from benchmarks.pictures import picture_paths
from imgsortd.adapters.features import build_extractor
from imgsortd.adapters.images import decode
from imgsortd.config import ModelConfig

IMAGES = 16


def main() -> None:
    """Time both and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_alone")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--article-weights", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    paths = picture_paths(options.folder)[:IMAGES]
    model = article.load_model(options.article_weights)
    tensors = [article.read_picture(path) for path in paths]
    extractor = build_extractor(ModelConfig(weights=options.weights))
    pixels = [decode(path.read_bytes()) for path in paths]

    def forward_one_by_one() -> None:
        with torch.no_grad():
            for tensor in tensors:
                model(tensor)

    ways: dict[str, Callable[[], object]] = {
        "article_s": forward_one_by_one,
        "imgsortd_s": lambda: extractor.extract(pixels),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:  # the first one only warms up
                seconds[name].append(time.perf_counter() - started)
    print(json.dumps({"images": len(paths), "runs_on": extractor.describe(), **seconds}))


if __name__ == "__main__":
    main()
