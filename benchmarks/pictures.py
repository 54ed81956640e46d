"""The pictures that are measured on: a person's own, or made from scikit-image's.

Pictures are always copied into a work folder: flat, evenly chosen over the given folder,
and no two with the same bytes, because imgsortd computes the same bytes only once.
"""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from imgsortd.sort import PICTURES_A_CLUSTER

SUFFIXES = (".jpg", ".jpeg", ".png")
_BUNDLED = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "brick.png")
_PHOTO_SIZE, _CAMERA_SIZE = (500, 375), (3840, 2592)


class Kind(StrEnum):
    """The two kinds of pictures that the whole job is measured on."""

    PHOTOS = "500-px photographs"
    CAMERAS = "camera JPEGs"


@dataclass(frozen=True, slots=True)
class PictureSet:
    """A flat folder of pictures, how many they are, and where they come from."""

    folder: Path
    images: int
    origin: str

    @property
    def n_clusters(self) -> int:
        """One for every ten pictures, as ``imgsortd sort`` takes by itself."""
        return max(2, self.images // PICTURES_A_CLUSTER)


def picture_paths(folder: Path) -> list[Path]:
    """List the pictures of one folder as the article's script does, but by name."""
    return [folder / name for name in sorted(os.listdir(folder)) if name.lower().endswith(SUFFIXES)]


def find_pictures(source: Path) -> list[Path]:
    """List the pictures anywhere below a folder."""
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)


def both_kinds(options: Namespace, work: Path) -> dict[Kind, PictureSet]:
    """Gather the pictures of each kind that is asked for."""
    found: dict[Kind, PictureSet] = {}
    if Kind.PHOTOS in options.kinds:
        found[Kind.PHOTOS] = photographs(options.photos, options.images, work / "photos")
    if Kind.CAMERAS in options.kinds:
        found[Kind.CAMERAS] = camera_files(options.cameras, options.images // 2, work / "cameras")
    return found


def gather(source: Path, images: int, folder: Path) -> PictureSet:
    """Copy ``images`` pictures from anywhere below ``source``, evenly chosen.

    Where there are fewer, they come again with other bytes behind the end marker: the
    work is the same, the content is not.
    """
    found = find_pictures(source)
    if not found:
        raise SystemExit(f"{source}: expected {', '.join(SUFFIXES)} files, found none")
    folder.mkdir(parents=True)
    few = images > len(found)
    for number in range(images):
        path = found[number % len(found) if few else number * len(found) // images]
        tail = number.to_bytes(4, "big") if number >= len(found) else b""
        copy = folder / f"{number:05}{path.suffix.lower()}"
        copy.write_bytes(path.read_bytes() + tail)
    again = f", {len(found)} files repeated with other trailing bytes" if few else ""
    return PictureSet(folder, images, f"{source}{again}")


def photographs(source: Path | None, images: int, folder: Path) -> PictureSet:
    """Gather photographs, or make 500-px JPEGs."""
    return gather(source, images, folder) if source else _make(images, folder, _PHOTO_SIZE, 0)


def camera_files(source: Path | None, images: int, folder: Path) -> PictureSet:
    """Gather camera files, or make 10-megapixel JPEGs with sensor noise."""
    return gather(source, images, folder) if source else _make(images, folder, _CAMERA_SIZE, 6)


def _make(images: int, folder: Path, size: tuple[int, int], noise: float) -> PictureSet:
    """Write crops of scikit-image's bundled pictures: 4:3 parts of random place and size."""
    import skimage

    folder.mkdir(parents=True)
    for number in range(images):
        rng = np.random.default_rng(number)
        name = _BUNDLED[number % len(_BUNDLED)]
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        scale = min(image.width / 4, image.height / 3) * rng.uniform(0.5, 1.0)
        width, height = int(4 * scale), int(3 * scale)
        x = int(rng.integers(0, image.width - width + 1))
        y = int(rng.integers(0, image.height - height + 1))
        crop = image.crop((x, y, x + width, y + height)).resize(size)
        grain = noise * rng.standard_normal((*size[::-1], 1), dtype=np.float32)
        pixels = np.clip(np.asarray(crop) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=90)
    return PictureSet(folder, images, "made from scikit-image's bundled pictures")
