"""Real pictures for tests of the model, decoded as imgsortd decodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imgsortd.pictures.pixels import decode
from imgsortd.records import Pixels, Vectors
from support import SHARED_DATA

# scikit-image's bundled photographs, the coloured ones first.
_BUNDLED = (
    *("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png"),
    *("hubble_deep_field.jpg", "retina.jpg", "ihc.png", "camera.png", "coins.png", "brick.png"),
    *("grass.png", "gravel.png", "moon.png", "page.png", "text.png", "cell.png", "horse.png"),
)
_CALTECH = SHARED_DATA / "caltech22"


def bundled_paths(count: int = len(_BUNDLED)) -> list[Path]:
    """Return the first ``count`` of scikit-image's bundled pictures; skip where it is not there."""
    skimage = pytest.importorskip("skimage", reason="scikit-image (the extra: demo) is needed")
    folder = Path(skimage.__file__).parent / "data"
    return [folder / name for name in _BUNDLED[:count]]


def caltech_paths(name: str, count: int) -> list[Path]:
    """Return ``count`` photographs of a class, evenly spaced; skip where they are not there."""
    if not _CALTECH.is_dir():
        pytest.skip(f"no labelled photographs at {_CALTECH}")
    paths = sorted((_CALTECH / name).glob("*.jpg"))
    return paths[:: max(1, len(paths) // count)][:count]


def look_at(paths: list[Path]) -> list[Pixels]:
    """Decode files to uint8 [224, 224, 3]."""
    return [decode(path.read_bytes()) for path in paths]


def cosines(ours: Vectors, theirs: Vectors) -> Vectors:
    """Return the cosine between the rows of one and the same rows of the other."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return np.sum(ours * theirs, axis=1) / lengths
