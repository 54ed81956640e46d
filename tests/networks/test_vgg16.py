"""VGG16's features are torchvision's, from the file to the vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from imgsortd.config.values import Precision
from imgsortd.networks.network import Network
from imgsortd.networks.sources import AUTO, WeightsSource
from imgsortd.networks.torch_engine import Arithmetic, Kernel, TorchExtractor
from imgsortd.networks.vgg16 import DIMS, vgg16_network
from imgsortd.networks.weights import Weights
from imgsortd.records import Backbone, ExtractorId, Layer, Pixels, Vectors
from photographs import bundled_paths, cosines

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def full(vgg16: Network) -> dict[str, torch.Tensor]:
    """Return the real convolutions and a seeded random classifier, under torchvision's names."""
    with torch.device("meta"):
        names = list(torchvision.models.vgg16().features.state_dict())
    convs = [tensor for stage in vgg16.stages for tensor in stage.state_dict().values()]
    tensors = {f"features.{name}": tensor for name, tensor in zip(names, convs, strict=True)}
    generator = torch.Generator().manual_seed(0)
    sizes = {"0": (4096, 25088), "3": (4096, 4096), "6": (1000, 4096)}
    for number, (wide, deep) in sizes.items():
        bound = (6 / deep) ** 0.5
        weight = torch.empty(wide, deep).uniform_(-bound, bound, generator=generator)
        tensors[f"classifier.{number}.weight"] = weight
        tensors[f"classifier.{number}.bias"] = torch.linspace(-0.1, 0.1, wide)
    return tensors


@pytest.fixture(scope="module")
def theirs(full: dict[str, torch.Tensor]) -> torchvision.models.VGG:
    """Return torchvision's own model around the same tensors."""
    with torch.device("meta"):
        model = torchvision.models.vgg16()
    model.load_state_dict(full, assign=True)
    return model.eval()


def network_of(tensors: dict[str, torch.Tensor], layer: Layer) -> Network:
    """Build ours around tensors in memory."""
    path = Path("made for a test")
    weights = Weights(tensors, "test", WeightsSource.FILE, path, True, AUTO.mean, AUTO.std)
    return vgg16_network(weights, layer)


def preprocessed(count: int) -> torch.Tensor:
    """Read pictures as torchvision's preset for these weights does."""
    preset = torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    images = [Image.open(path).convert("RGB") for path in bundled_paths(count)]
    return torch.stack([preset(image) for image in images])


def test_pooled_features_are_those_of_torchvisions_forward_and_preprocessing(
    theirs: torchvision.models.VGG, vgg16_features: Vectors
) -> None:
    with torch.inference_mode():
        maps = theirs.features(preprocessed(len(vgg16_features)))

    assert vgg16_features.shape == (len(maps), 512)
    assert vgg16_features.dtype == np.float32
    assert cosines(vgg16_features, maps.mean(dim=(2, 3)).numpy()).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(vgg16_features, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("layer", [Layer.FC2, Layer.LOGITS])
def test_layers_of_the_classifier_are_those_of_torchvisions_forward(
    layer: Layer,
    full: dict[str, torch.Tensor],
    theirs: torchvision.models.VGG,
    photographs: list[Pixels],
) -> None:
    extractor = TorchExtractor(
        network_of(full, layer), CPU, Arithmetic(Precision.FP32, Kernel.DIRECT, 2)
    )
    cut = nn.Sequential(*theirs.classifier[:5]) if layer is Layer.FC2 else theirs.classifier

    ours = extractor.extract(photographs[:2])

    with torch.inference_mode():
        expected = cut(theirs.avgpool(theirs.features(preprocessed(2))).flatten(1)).numpy()
    if layer is Layer.FC2:  # logits alone keep their length
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert ours.shape == (2, DIMS[layer])
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())
    assert extractor.id == ExtractorId("test", layer, DIMS[layer], Backbone.VGG16)


def test_winograd_gives_the_features_of_the_plain_convolution(
    vgg16: Network, photographs: list[Pixels], vgg16_features: Vectors
) -> None:
    winograd = TorchExtractor(vgg16, CPU, Arithmetic(Precision.FP32, Kernel.WINOGRAD, 3))

    ours = winograd.extract(photographs)

    assert winograd.describe() == "vgg16 torch cpu fp32 winograd"
    assert cosines(ours, vgg16_features).min() > 0.99999
    np.testing.assert_allclose(ours, vgg16_features, atol=1e-4)


def test_two_workers_and_more_pictures_at_a_time_give_the_same_features_in_the_same_order(
    vgg16: Network, photographs: list[Pixels], vgg16_features: Vectors
) -> None:
    several = TorchExtractor(vgg16, CPU, Arithmetic(Precision.FP32, Kernel.WINOGRAD, 2, workers=2))

    ours = several.extract(photographs)

    several.unload()
    np.testing.assert_allclose(ours, vgg16_features, atol=1e-4)


def test_bf16_keeps_the_direction_of_the_features(
    vgg16: Network, photographs: list[Pixels], vgg16_features: Vectors
) -> None:
    # Two pictures: a CPU without instructions for bf16 takes seconds for each.
    bf16 = TorchExtractor(vgg16, CPU, Arithmetic(Precision.BF16, Kernel.DIRECT, 2))

    ours = bf16.extract(photographs[:2])

    assert ours.dtype == np.float32
    assert cosines(ours, vgg16_features[:2]).min() >= 0.999
    assert np.abs(ours - vgg16_features[:2]).max() > 0  # bf16 was indeed used


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch sees")
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_a_gpu_gives_the_features_of_the_cpu(
    precision: Precision, vgg16: Network, photographs: list[Pixels], vgg16_features: Vectors
) -> None:
    gpu = TorchExtractor(vgg16, torch.device("cuda"), Arithmetic(precision, step_images=2))

    ours = gpu.extract(photographs)

    assert gpu.batch_images == 128
    assert gpu.describe() == f"vgg16 torch cuda {precision}"
    assert cosines(ours, vgg16_features).min() >= 0.999
