"""The pictures that are measured on: a person's own, or made from scikit-image's.

Pictures are always copied into a work folder: flat, evenly chosen over the given folder,
and no two with the same bytes, because imgsortd computes the same bytes only once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png")
_PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "ihc.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "moon.png",
)
PHOTO_SIZE = (500, 375)
CAMERA_SIZE = (3840, 2592)
_DISTINCT_CAMERAS = 8
_MAKE, _MODEL, _DATE_TIME = 271, 272, 306


@dataclass(frozen=True, slots=True)
class PictureSet:
    """A flat folder of pictures, how many they are, and where they come from."""

    folder: Path
    images: int
    origin: str


def picture_paths(folder: Path) -> list[Path]:
    """List the pictures of one folder as the article's script does, but by name."""
    return [folder / name for name in sorted(os.listdir(folder)) if name.lower().endswith(SUFFIXES)]


def find_pictures(source: Path) -> list[Path]:
    """List the pictures anywhere below a folder."""
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)


def gather(source: Path, images: int, folder: Path) -> PictureSet:
    """Copy ``images`` pictures from anywhere below ``source``, evenly chosen.

    Where there are fewer, they come again with other bytes behind the end marker: the
    work is the same, the content is not.
    """
    found = find_pictures(source)
    if not found:
        raise SystemExit(f"{source}: expected {', '.join(SUFFIXES)} files, found none")
    folder.mkdir(parents=True)
    for number in range(images):
        few = images > len(found)
        path = found[number % len(found) if few else number * len(found) // images]
        tail = number.to_bytes(4, "big") if number >= len(found) else b""
        copy = folder / f"{number:05}{path.suffix.lower()}"
        copy.write_bytes(path.read_bytes() + tail)
    again = f", {len(found)} files repeated with other trailing bytes" if few else ""
    return PictureSet(folder, images, f"{source}{again}")


def make_photographs(images: int, folder: Path) -> PictureSet:
    """Write 500-px JPEGs: crops of scikit-image's bundled pictures."""
    folder.mkdir(parents=True)
    sources = _bundled()
    for number in range(images):
        rng = np.random.default_rng(number)
        crop = _crop(sources[number % len(sources)], rng).resize(PHOTO_SIZE)
        crop.save(folder / f"{number:05}.jpg", quality=90)
    return PictureSet(folder, images, "made from scikit-image's bundled pictures")


def make_camera_files(images: int, folder: Path) -> PictureSet:
    """Write 10-megapixel JPEGs with sensor noise and EXIF."""
    folder.mkdir(parents=True)
    sources = _bundled()
    distinct = folder.with_name(folder.name + "-distinct")
    distinct.mkdir()
    for number in range(min(images, _DISTINCT_CAMERAS)):
        rng = np.random.default_rng(number)
        large = _crop(sources[number % len(sources)], rng).resize(CAMERA_SIZE)
        noise = rng.normal(0, 6, (CAMERA_SIZE[1], CAMERA_SIZE[0], 1)).astype(np.float32)
        pixels = np.clip(np.asarray(large) + noise, 0, 255).astype(np.uint8)
        path = distinct / f"{number:05}.jpg"
        Image.fromarray(pixels).save(path, quality=92, exif=_exif(number))
    folder.rmdir()
    made = gather(distinct, images, folder)
    return PictureSet(made.folder, made.images, "made: upscaled to 10 megapixels, noise, EXIF")


def _bundled() -> list[Image.Image]:
    import skimage

    data = Path(skimage.__file__).parent / "data"
    paths = [data / name for name in _PHOTOGRAPHS if (data / name).exists()]
    if not paths:
        raise SystemExit(f"{data}: expected {', '.join(_PHOTOGRAPHS)}, found none; give --photos")
    return [Image.open(path).convert("RGB") for path in paths]


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut out a 4:3 part of random place and size, mirrored half of the time."""
    whole = min(image.width / 4, image.height / 3)
    scale = whole * rng.uniform(0.5, 1.0)
    width, height = int(4 * scale), int(3 * scale)
    x = int(rng.integers(0, image.width - width + 1))
    y = int(rng.integers(0, image.height - height + 1))
    crop = image.crop((x, y, x + width, y + height))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _exif(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_MAKE], exif[_MODEL] = "imgsortd", "benchmark"
    exif[_DATE_TIME] = f"2024:01:01 00:00:{number % 60:02}"
    return exif
