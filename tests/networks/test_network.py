"""The layer that a network ends in."""

from __future__ import annotations

import torch

from imgsortd.networks.network import MeanOfMaps


def test_the_mean_of_bf16_maps_is_not_rounded_to_bf16() -> None:
    maps = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16).view(1, 1, 1, 2)  # neighbours

    mean = MeanOfMaps()(maps)

    assert mean.dtype == torch.float32
    assert mean.item() == 1.00390625
