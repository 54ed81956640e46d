"""The article's script, plainly: what imgsortd is measured against, and compared with.

Every step is the article's: torchvision's VGG16 with its classifier, the 1000 logits
as features, one picture at a time in float32, KMeans with seed 42, shutil.copy. Two
things differ. The list of files is sorted, because os.listdir gives any order and
KMeans depends on the order of its rows. And the number of clusters is asked for.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.cluster import KMeans
from torch import nn
from torchvision import models, transforms

from benchmarks.pictures import picture_paths

preprocess = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


def save_random_weights(path: str | Path) -> dict[str, Any]:
    """Write a seeded random full VGG16 (528 MB): enough for time and parity, not for quality."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(models.vgg16(weights=None).state_dict(), path)
    return {}


def load_model(weights: Path) -> nn.Module:
    """Build VGG16 and load its weights, as the article does."""
    model = models.vgg16(weights=None)
    model.load_state_dict(torch.load(weights))
    model.eval()
    return model  # type: ignore[no-any-return]


def extract_all(model: nn.Module, paths: list[Path]) -> tuple[list[Path], npt.NDArray[np.float32]]:
    """Return the files that could be read and their features, float32 [n, 1000].

    The article keeps the names of the others, too, and so labels come to stand beside
    the wrong pictures from the first broken one on; here they are left out.
    """
    read, features = [], []
    for path in paths:
        try:
            picture = preprocess(Image.open(path).convert("RGB")).unsqueeze(0)
            with torch.no_grad():
                features.append(model(picture).numpy().flatten())
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
    for number in range(n_clusters):
        os.makedirs(target / f"cluster_{number}", exist_ok=True)
    for path, label in zip(paths, labels, strict=True):
        shutil.copy(path, target / f"cluster_{label}" / path.name)


def sort_folder(source: str, target: str, weights: str, n_clusters: int) -> dict[str, Any]:
    """Do the whole job; return how many pictures were copied, and the seconds with the model."""
    model = load_model(Path(weights))
    started = time.perf_counter()
    paths, features = extract_all(model, picture_paths(Path(source)))
    copy_to_clusters(paths, fit(features, n_clusters), Path(target), n_clusters)
    return {"images": len(paths), "work_s": time.perf_counter() - started}
