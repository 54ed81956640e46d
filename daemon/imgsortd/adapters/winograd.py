"""3x3 convolution with a quarter of the multiplications, for CPUs without bf16.

Winograd's minimal filtering F(4x4, 3x3), as Lavin and Gray (2016, "Fast Algorithms
for Convolutional Neural Networks") give it: each 4x4 tile of the output comes from
a 6x6 tile of the input by 36 products instead of 144. Here the products are 36
matrix products over channels, which is what a CPU does best. In float32 the result
differs from the plain sum by about 1e-5 of its range.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_TILE = 4
_WINDOW = 6
# A chunk of images whose tiles stay in a usual CPU's cache; measured on 2 cores
# (docs/performance.md): 2 images of 56x56, 8 of 28x28, 32 of 14x14.
_CHUNK_PIXELS = 2 * 56 * 56

_B = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_G = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_A = torch.tensor(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    dtype=torch.float64,
)


class WinogradConv(nn.Module):
    """A 3x3 convolution, stride 1, padding 1, followed by ReLU.

    Parameters
    ----------
    conv
        The convolution whose weights [k, c, 3, 3] and bias [k] are taken over.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    into: torch.Tensor
    back: torch.Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.kernel_size != (3, 3) or conv.stride != (1, 1) or conv.padding != (1, 1):
            raise ValueError(f"expected a 3x3 convolution, stride 1, padding 1, got {conv}")
        assert conv.bias is not None
        weight = torch.einsum("ia,kcab,jb->ijck", _G, conv.weight.detach().double(), _G)
        self.register_buffer("weight", weight.reshape(36, *weight.shape[2:]).float().contiguous())
        self.register_buffer("bias", conv.bias.detach().float())
        # Both dimensions of a tile at once: the Kronecker product of the transform with itself.
        self.register_buffer("into", torch.kron(_B, _B).float())
        self.register_buffer("back", torch.kron(_A, _A).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 [n, c, h, w] (channels last) to [n, k, h, w] (channels last)."""
        chunk = max(1, _CHUNK_PIXELS // (images.shape[2] * images.shape[3]))
        if len(images) <= chunk:
            return self._convolve(images)
        return torch.cat([self._convolve(part) for part in torch.split(images, chunk)])

    def _convolve(self, images: torch.Tensor) -> torch.Tensor:
        n, c, h, w = images.shape
        rows, columns = -(-h // _TILE), -(-w // _TILE)
        padded = F.pad(
            images.permute(0, 2, 3, 1),
            (0, 0, 1, columns * _TILE + 1 - w, 1, rows * _TILE + 1 - h),
        )
        across_n, down, across, _ = padded.stride()
        tiles = padded.as_strided(
            (_WINDOW, _WINDOW, n, rows, columns, c),
            (down, across, across_n, _TILE * down, _TILE * across, 1),
        )
        spectrum = (self.into @ tiles.reshape(36, -1)).view(36, n * rows * columns, c)
        products = torch.bmm(spectrum, self.weight)
        outputs = (self.back @ products.view(36, -1)).view(_TILE, _TILE, n, rows, columns, -1)
        pixels = outputs.permute(2, 3, 0, 4, 1, 5).reshape(n, rows * _TILE, columns * _TILE, -1)
        return (pixels[:, :h, :w] + self.bias).relu_().permute(0, 3, 1, 2)


def use_winograd(features: nn.Sequential) -> nn.Sequential:
    """Return the layers with Winograd in the place of each Conv+ReLU where it is faster.

    That is from 128 input channels and 56x56 pixels on (VGG16's conv3_1): before,
    moving the tiles costs more than the products save.
    """
    layers: list[nn.Module] = []
    pools = 0
    for layer in features:
        pools += isinstance(layer, nn.MaxPool2d)
        if isinstance(layer, nn.Conv2d) and pools >= 2:
            layers.append(WinogradConv(layer))
        elif not (isinstance(layer, nn.ReLU) and layers and isinstance(layers[-1], WinogradConv)):
            layers.append(layer)
    return nn.Sequential(*layers)
