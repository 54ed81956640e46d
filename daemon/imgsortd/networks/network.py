"""What an engine runs: a network as far as its features, and how its pixels are scaled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from imgsortd.networks.sources import Rgb
from imgsortd.records import ExtractorId, Layer


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network in float32, in evaluation mode, as plain layers.

    Attributes
    ----------
    id
        What rows made with it are marked with.
    stages
        Modules one behind the other: float32 [n, 3, 224, 224] in, [n, d] out.
    shallow_stages
        How many of the first stages take one image at a time on a CPU, where the
        activations of one stay in cache and those of many do not.
    mean, std
        Of RGB in 0..1: pixels are scaled to ``(x / 255 - mean) / std``.
    batch_images
        Pictures that the pipeline stores and moves together on a CPU: enough that
        a transaction costs little beside them.
    source
        Where its weights came from, for the log.
    """

    id: ExtractorId
    stages: tuple[nn.Sequential, ...]
    shallow_stages: int
    mean: Rgb
    std: Rgb
    batch_images: int
    source: str

    @property
    def unit_length(self) -> bool:
        """Whether features are brought to length 1; only logits are not."""
        return self.id.layer is not Layer.LOGITS


class MeanOfMaps(nn.Module):
    """Mean over the places of the last maps, summed in float32."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [n, c, h, w] to [n, c]."""
        return maps.mean(dim=(2, 3), dtype=torch.float32)
