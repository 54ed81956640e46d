"""The article's script, plainly: what imgsortd is measured against, and compared with.

Every step is the article's: torchvision's VGG16 with its classifier, the 1000 logits
as features, one picture at a time in float32, KMeans with seed 42, shutil.copy. Two
things differ. The list of files is sorted, because os.listdir gives any order and
KMeans depends on the order of its rows. And the number of clusters is asked for.

Run as ``python -m benchmarks.article SOURCE TARGET -k N --weights FILE`` it is a fresh
process that prints its seconds as JSON.
"""

from __future__ import annotations

import time

_STARTED = time.perf_counter()

import argparse  # noqa: E402  the imports below are part of the seconds to load
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import models, transforms  # noqa: E402

from benchmarks.pictures import picture_paths  # noqa: E402

preprocess = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


def save_random_weights(path: Path, seed: int = 0) -> Path:
    """Write a seeded random full VGG16 (528 MB), for what does not depend on the values.

    Time does not, and parity does not; quality does.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(models.vgg16(weights=None).state_dict(), path)
    return path


def load_model(weights: Path) -> nn.Module:
    """Build VGG16 and load its weights, as the article does."""
    model = models.vgg16(weights=None)
    model.load_state_dict(torch.load(weights))
    model.eval()
    return model  # type: ignore[no-any-return]


def read_picture(path: Path) -> torch.Tensor:
    """Return a picture as float32 [1, 3, 224, 224]."""
    image = Image.open(path).convert("RGB")
    return preprocess(image).unsqueeze(0)  # type: ignore[no-any-return]


def extract_features(model: nn.Module, path: Path) -> npt.NDArray[np.float32]:
    """Return the logits of one picture, float32 [1000]."""
    image = read_picture(path)
    with torch.no_grad():
        features = model(image)
    return features.numpy().flatten()  # type: ignore[no-any-return]


def extract_all(model: nn.Module, paths: list[Path]) -> tuple[list[Path], npt.NDArray[np.float32]]:
    """Return the files that could be read and their features, float32 [n, 1000].

    The article keeps the names of the others, too, and so labels come to stand beside
    the wrong pictures from the first broken one on; here they are left out.
    """
    read, features = [], []
    for path in paths:
        try:
            features.append(extract_features(model, path))
            read.append(path)
        except Exception as error:
            print(f"Error processing {path}: {error}")
    return read, np.array(features)


def fit(features: npt.NDArray[np.float32], n_clusters: int) -> npt.NDArray[np.int32]:
    """Return the label of each row."""
    kmeans = KMeans(n_clusters=n_clusters, random_state=42)
    return kmeans.fit_predict(features)  # type: ignore[no-any-return]


def copy_to_clusters(
    paths: list[Path], labels: npt.NDArray[np.int32], target: Path, n_clusters: int
) -> None:
    """Make ``cluster_0 … cluster_{N-1}`` and copy each file into its own."""
    os.makedirs(target, exist_ok=True)
    for number in range(n_clusters):
        os.makedirs(target / f"cluster_{number}", exist_ok=True)
    for path, label in zip(paths, labels, strict=True):
        shutil.copy(path, target / f"cluster_{label}" / path.name)


def sort_folder(source: Path, target: Path, model: nn.Module, n_clusters: int) -> int:
    """Do the whole job with a loaded model; return how many pictures were copied."""
    paths, features = extract_all(model, picture_paths(source))
    copy_to_clusters(paths, fit(features, n_clusters), target, n_clusters)
    return len(paths)


def main() -> None:
    """Sort a folder and print the seconds it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.article")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("-k", "--clusters", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    options = parser.parse_args()
    model = load_model(options.weights)
    loaded = time.perf_counter()
    images = sort_folder(options.source, options.target, model, options.clusters)
    work_s = time.perf_counter() - loaded
    print(json.dumps({"images": images, "load_s": loaded - _STARTED, "work_s": work_s}))


if __name__ == "__main__":
    main()
