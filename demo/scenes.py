"""The sample: crops of the photographs that come inside scikit-image's wheel.

The files are read from the installed package by their path. scikit-image's own
loaders are not called, because some of them download.
"""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageEnhance

from imgsortd.errors import ImgsortdError

# Photographs only: no drawings, phantoms, colour wheels or micrographs, and of the
# stereo pair one half. All are in the public domain or free to use with their source named.
SCENES = {
    "astronaut": "astronaut.png",
    "bricks": "brick.png",
    "cameraman": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "galaxies": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
CROPS_A_SCENE = 26  # of 12 scenes: more than clusters.min_images
_SEED = 16
_LONG_SIDE_PX = (260, 500)
_LEAST_SCENES = 4


def find_scenes() -> dict[str, Path]:
    """Return the scenes that the installed scikit-image has, by name.

    Raises
    ------
    ImgsortdError
        scikit-image, or most of its pictures, are not installed.
    """
    package = importlib.util.find_spec("skimage")
    folders = package.submodule_search_locations if package else None
    data = Path(folders[0], "data") if folders else Path("skimage/data")
    found = {scene: data / file for scene, file in SCENES.items() if (data / file).is_file()}
    if len(found) < _LEAST_SCENES:
        raise ImgsortdError(
            f"the demo's photographs are not in {data}: expected {len(SCENES)} of scikit-image's, "
            f"got {len(found)}; pip install 'scikit-image>=0.25', or make demo PHOTOS=FOLDER"
        )
    return found


def crops(scenes: dict[str, Path], each: int = CROPS_A_SCENE) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, JPEG bytes) of ``each`` crops a scene, always the same ones.

    They come scene after scene, as the folders of an old archive do: what comes first says
    nothing of what follows. The scene is in the name for the comparison afterwards
    (:func:`scene_of`) and for whoever looks into the folders; imgsortd does not read names.
    """
    for scene, path in sorted(scenes.items()):
        picture = _load(path)
        for number in range(1, each + 1):
            chance = random.Random(f"{_SEED} {scene} {number}")
            yield f"{scene}-{number:02d}.jpg", _crop(picture, chance)


def crop_of(path: Path) -> bytes:
    """Return the JPEG bytes of one crop of a picture, always the same one."""
    return _crop(_load(path), random.Random(f"{_SEED} {path.name}"))


def scene_of(name: str) -> str:
    """Return the scene in a crop's file name: ``cat-07.jpg`` is of ``cat``."""
    return name.rpartition("-")[0]


def _load(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _crop(picture: Image.Image, chance: random.Random) -> bytes:
    """Cut out 45 to 95 % of each side, then vary size, brightness and JPEG quality."""
    width, height = (round(side * chance.uniform(0.45, 0.95)) for side in picture.size)
    left = chance.randint(0, picture.width - width)
    top = chance.randint(0, picture.height - height)
    part = picture.crop((left, top, left + width, top + height))
    scale = chance.randint(*_LONG_SIDE_PX) / max(part.size)
    part = part.resize((round(part.width * scale), round(part.height * scale)))
    part = ImageEnhance.Brightness(part).enhance(chance.uniform(0.75, 1.25))
    file = io.BytesIO()
    part.save(file, "JPEG", quality=chance.randint(60, 95))
    return file.getvalue()
