"""The measurement behind docs/duplicates.md counts what it says it counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.near_duplicates import (
    BITS,
    COPIES,
    COSINES,
    Pictures,
    count_different,
    pair_counts,
    photographs,
    read,
    worst_pairs,
)
from PIL import Image

from imgsortd.adapters.images import decode
from support import ColourExtractor, paint


@pytest.mark.parametrize("name", COPIES)
def test_each_copy_is_a_picture_that_looks_like_its_original(name: str, tmp_path: Path) -> None:
    patches = np.random.default_rng(0).integers(40, 200, (6, 8, 3)).astype(np.uint8)
    image = Image.fromarray(patches).resize((400, 300), Image.Resampling.BICUBIC)
    image.save(tmp_path / "original.png")

    copy = decode(COPIES[name](image)).astype(int)

    original = decode((tmp_path / "original.png").read_bytes()).astype(int)
    assert np.abs(copy - original).mean() < 25


def test_pictures_are_read_in_batches_to_hashes_and_features_of_length_1(tmp_path: Path) -> None:
    for number in range(70):
        paint(tmp_path / f"{number:02}.png", (200, 100, 2 * number), number, size=32)
    paths = photographs(tmp_path)

    found = read((path.read_bytes() for path in paths), len(paths), ColourExtractor().extract)

    assert (found.hashes.shape, found.features.shape) == ((70,), (70, 3))
    assert np.linalg.norm(found.features, axis=1) == pytest.approx(1)


def test_each_pair_of_different_photographs_is_counted_once() -> None:
    hashes = np.array([0, 0, 0b11, 2**64 - 1], dtype=np.uint64)
    features = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    library = Pictures(hashes, features)

    all_pairs = count_different(library, np.arange(4), library, pair_counts, once=True)
    of_copies = count_different(
        library, np.array([0]), Pictures(hashes[:1], features[:1]), pair_counts, once=False
    )

    table = all_pairs[:-1].reshape(len(BITS), len(COSINES))
    assert (table[-1, 0], table[BITS.index(0), -1], table[BITS.index(2), 0]) == (6, 1, 3)
    assert all_pairs[-1] == 1  # 2 bits need a cosine of 0.81
    assert of_copies[:-1].reshape(table.shape)[-1, 0] == 3
    assert worst_pairs(library, [Path(name) for name in "abcd"]) == ["a  b  0 bits, cosine 1.000"]
