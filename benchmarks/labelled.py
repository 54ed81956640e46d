"""Labelled pictures: class folders read by the real model, their features kept for the next time.

The labels are for measuring alone; nothing that is measured sees them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.pictures import picture_paths
from imgsortd.config_model import ModelConfig
from imgsortd.core.records import Backbone, ExtractorId, Layer, Pixels, Vectors

_BATCH = 16

# Classes of Caltech-101 that the features hardly part, beside one that is two kinds of picture.
CLOSE = ("airplanes", "butterfly", "kangaroo", "llama", "umbrella")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled set.

    Attributes
    ----------
    extractor
        What made the features.
    features
        float32 [n, d], as imgsortd stores them.
    maps
        float16 [n, 25088], VGG16's last maps flattened; no columns for another backbone.
    classes
        Class of each picture, intp [n], a row of ``names``.
    """

    name: str
    extractor: ExtractorId
    features: Vectors
    maps: npt.NDArray[np.float16]
    classes: npt.NDArray[np.intp]
    names: tuple[str, ...]

    def only(self, names: Sequence[str]) -> Labelled:
        """Return the pictures of some classes."""
        rows = np.flatnonzero(np.isin(self.names, names)[self.classes])
        kept = tuple(name for name in self.names if name in names)
        places = np.searchsorted(kept, [self.names[label] for label in self.classes[rows]])
        return Labelled(
            f"{self.name}, {len(kept)} classes",
            self.extractor,
            self.features[rows],
            self.maps[rows],
            places.astype(np.intp),
            kept,
        )


def read_labelled(
    folder: Path, backbone: str, cache: Path | None, say: Callable[[str], None]
) -> Labelled:
    """Read a folder of class folders; what was read before comes from the cache."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    paths = [path for one in classes for path in sorted(picture_paths(one))]
    names = tuple(path.name for path in classes if any(found.parent == path for found in paths))
    listing = "\n".join(f"{path}:{path.stat().st_size}" for path in paths)
    key = hashlib.sha256(f"{backbone}\n{listing}".encode()).hexdigest()[:16]
    file = cache / f"labelled-{key}.npz" if cache else None
    if file is None or not file.exists():
        say(f"{folder}: {len(paths)} pictures through {backbone}")
        identity, features, maps = _extract(paths, backbone)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, digest=identity.weights_digest, features=features, maps=maps)
    else:
        with np.load(file) as kept:
            features, maps = kept["features"], kept["maps"]
            digest = str(kept["digest"])
        identity = ExtractorId(digest, Layer.POOL5, features.shape[1], Backbone(backbone))
    labels = np.array([names.index(path.parent.name) for path in paths], dtype=np.intp)
    return Labelled(folder.name, identity, features, maps, labels, names)


def _extract(
    paths: Sequence[Path], backbone: str
) -> tuple[ExtractorId, Vectors, npt.NDArray[np.float16]]:
    from imgsortd.adapters.features import build_extractor
    from imgsortd.adapters.images import decode

    extractor = build_extractor(ModelConfig(backbone=Backbone(backbone)))
    look = _maps_of_vgg16() if backbone == Backbone.VGG16 else None
    features, maps = [], []
    for start in range(0, len(paths), _BATCH):
        pixels = [decode(path.read_bytes()) for path in paths[start : start + _BATCH]]
        features.append(extractor.extract(pixels))
        maps.append(look(pixels) if look else np.empty((len(pixels), 0), dtype=np.float16))
    return extractor.id, np.concatenate(features), np.concatenate(maps)


def _maps_of_vgg16() -> Callable[[Sequence[Pixels]], npt.NDArray[np.float16]]:
    """Return what maps pictures to VGG16's last maps, one behind the other, as an article does."""
    import torch
    from torch import nn

    from imgsortd.adapters.vgg16 import vgg16_network
    from imgsortd.adapters.weights import load_weights

    network = vgg16_network(load_weights("auto", Layer.POOL5), Layer.POOL5)
    layers = nn.Sequential(*network.stages[0], *list(network.stages[1])[:-1])
    mean, std = (torch.tensor(rgb).view(3, 1, 1) for rgb in (network.mean, network.std))

    def look(pixels: Sequence[Pixels]) -> npt.NDArray[np.float16]:
        batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            found = layers(((batch - mean) / std).contiguous(memory_format=torch.channels_last))
        flat: npt.NDArray[np.float16] = found.flatten(1).half().numpy()
        return flat

    return look
