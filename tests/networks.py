"""A network for tests of what does not depend on the weights."""

from __future__ import annotations

import torch
from torch import nn

from imgsortd.networks.network import MeanOfMaps, Network
from imgsortd.records import ExtractorId, Layer


def small_network() -> Network:
    """Return a network of two seeded random stages: the shape of a real one, in no time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shallow = nn.Sequential(nn.Conv2d(3, 8, 3, 8, 1), nn.ReLU(), nn.MaxPool2d(2))
        deep = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), MeanOfMaps())
    return Network(
        id=ExtractorId("small", Layer.POOL5, 16),
        stages=(shallow.eval(), deep.eval()),
        shallow_stages=1,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        batch_images=16,
        source="made for a test",
    )
