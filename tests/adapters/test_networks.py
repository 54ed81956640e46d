"""The work that a network says it is, is the work that its layers do."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from imgsortd.adapters.networks import MeanOfMaps, Network
from imgsortd.adapters.vgg16 import vgg16_network
from imgsortd.adapters.weight_sources import AUTO, WeightsSource
from imgsortd.adapters.weights import Weights
from imgsortd.core.records import Layer


def counted_gflop(network: Network) -> float:
    """Count multiplications and additions of one picture, layer by layer, without computing."""
    count = 0

    def add(layer: nn.Module, _inputs: object, out: torch.Tensor) -> None:
        nonlocal count
        products = math.prod(layer.weight.shape[1:])  # that make one number of the output
        count += 2 * products * out.numel()

    images = torch.empty(1, 3, 224, 224, device="meta")
    for stage in network.stages:
        layers = copy.deepcopy(stage).to("meta")
        for layer in layers.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(add)
        images = layers(images)
    assert images.shape == (1, network.id.dims)
    return count / 1e9


@pytest.mark.parametrize("layer", list(Layer))
def test_the_work_of_vgg16_is_that_of_its_layers(layer: Layer) -> None:
    with torch.device("meta"):
        tensors = torchvision.models.vgg16().state_dict()
    path = Path("nowhere")
    weights = Weights(tensors, "meta", WeightsSource.FILE, path, True, AUTO.mean, AUTO.std)

    network = vgg16_network(weights, layer)

    assert network.gflop_per_image == pytest.approx(counted_gflop(network), rel=0.02)


def test_the_work_of_efficientnet_lite0_is_that_of_its_layers(lite0: Network) -> None:
    assert lite0.gflop_per_image == pytest.approx(counted_gflop(lite0), rel=0.02)


def test_the_mean_of_bf16_maps_is_not_rounded_to_bf16() -> None:
    maps = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16).view(1, 1, 1, 2)  # neighbours

    mean = MeanOfMaps()(maps)

    assert mean.dtype == torch.float32
    assert mean.item() == 1.00390625
