"""The model alone, in turns on the same pixels: the article's passes, imgsortd's, and the ceiling.

Run as ``python -m benchmarks.model_alone FOLDER …`` it prints the seconds of each round
and, by round, the rates of matrix products in the precision that imgsortd's model runs in.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import article, roofline
from benchmarks.int8_products import Int8Products
from benchmarks.pictures import picture_paths
from benchmarks.subject import add_subject, model_config
from imgsortd.adapters.cpus import usable_cpus
from imgsortd.adapters.features import build_extractor
from imgsortd.adapters.images import decode
from imgsortd.adapters.weight_sources import default_cache_dir

ARTICLE_IMAGES = 16


def main() -> None:
    """Time all of them and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_alone")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--article-weights", type=Path, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    add_subject(parser)
    options = parser.parse_args()
    paths = picture_paths(options.folder)
    model = article.load_model(options.article_weights)
    tensors = [article.read_picture(path) for path in paths[:ARTICLE_IMAGES]]
    extractor = build_extractor(model_config(options), default_cache_dir())
    # Whole batches, as a GPU wants: the same pictures again where there are too few.
    count = max(ARTICLE_IMAGES, extractor.batch_images)
    pixels = [decode(path.read_bytes()) for path in paths[:count]]
    pixels = [pixels[number % len(pixels)] for number in range(count)]
    device, precision = roofline.arithmetic(extractor.describe())
    products = _products(device, precision)

    def forward_one_by_one() -> None:
        with torch.no_grad():
            for tensor in tensors:
                model(tensor)

    ways: dict[str, Callable[[], Any]] = {
        "article_s": lambda: _seconds(forward_one_by_one) / len(tensors),
        "imgsortd_s": lambda: _seconds(lambda: extractor.extract(pixels)) / len(pixels),
        "products_gflop_s": products.rates,
    }
    rounds: dict[str, list[Any]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name in ways if number % 2 else reversed(ways):
            value = ways[name]()
            if number:  # the first round only warms up
                rounds[name].append(value)
    values = {
        "runs_on": extractor.describe(),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "batch_images": extractor.batch_images,
        "gflop_per_image": roofline.gflop_per_image(extractor, options.backbone),
    }
    print(json.dumps({**values, **rounds}))


def _products(device: str, precision: str) -> roofline.Products | Int8Products:
    if (device, precision) == ("cpu", "int8"):
        return Int8Products(usable_cpus())
    return roofline.Products(device, precision)


def _seconds(way: Callable[[], object]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
