"""3x3 convolution with a quarter of the multiplications, for CPUs without bf16.

Winograd's minimal filtering F(4x4, 3x3), as Lavin and Gray (2016, "Fast Algorithms
for Convolutional Neural Networks") give it: each 4x4 tile of the output comes from
a 6x6 tile of the input by 36 products instead of 144. Here the products are 36
matrix products over channels, which is what a CPU does best. In float32 the result
differs from the plain sum by about 1e-5 of its range.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import nn

_TILE = 4
_WINDOW = 6
# Tiles worked on at a time: their 36 products for 256 channels are a few MB, which
# stay in cache from the first step to the last (docs/performance.md).
_BAND_TILES = 448
# Images are padded together as long as they are no larger than one of the first block.
_GROUP_FLOATS = 224 * 224 * 64

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
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64,
)

_B32, _A32 = _B.float(), _A.float()


class Workspace(threading.local):
    """Pieces of memory that grow to what is needed and are kept: two for bands, one for images.

    Each thread has its own.
    """

    def __init__(self) -> None:
        self._slots = [torch.empty(0) for _ in range(3)]

    def get(self, slot: int, *shape: int) -> torch.Tensor:
        """Return uninitialised float32 of a shape; what the slot held is lost."""
        size = math.prod(shape)
        if self._slots[slot].numel() < size:
            self._slots[slot] = torch.empty(size)
        return self._slots[slot][:size].view(shape)


class WinogradConv(nn.Module):
    """A 3x3 convolution, stride 1, padding 1, followed by ReLU.

    Works through the image in bands of tiles, in buffers that are kept: with fresh
    memory for every step, page faults cost more than the products save.

    Parameters
    ----------
    conv
        The convolution whose weights [k, c, 3, 3] and bias [k] are taken over.
    workspace
        Shared by all layers of a network: one that is used again is in cache.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, conv: nn.Conv2d, workspace: Workspace) -> None:
        super().__init__()
        kind = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups
        if kind != ((3, 3), (1, 1), (1, 1), (1, 1), 1):
            raise ValueError(f"expected a 3x3 convolution, stride 1, padding 1, got {conv}")
        assert conv.bias is not None
        weight = torch.kron(_G, _G) @ conv.weight.detach().double().permute(2, 3, 1, 0).reshape(
            9, -1
        )
        self.register_buffer("weight", weight.float().view(36, conv.in_channels, conv.out_channels))
        self.register_buffer("bias", conv.bias.detach().float())
        self._workspace = workspace

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 [n, c, h, w] (channels last) to [n, k, h, w] (channels last)."""
        n, c, h, w = images.shape
        group = max(1, _GROUP_FLOATS // (c * h * w))
        parts = [self._convolve(part) for part in torch.split(images, group)]
        return parts[0] if n <= group else torch.cat(parts)

    def _convolve(self, images: torch.Tensor) -> torch.Tensor:
        n, _, h, w = images.shape
        rows, columns = -(-h // _TILE), -(-w // _TILE)
        padded = self._padded(images.permute(0, 2, 3, 1), rows * _TILE + 2, columns * _TILE + 2)
        pixels = padded.new_empty(n, rows, _TILE, columns, _TILE, self.weight.shape[2])
        if rows * columns <= _BAND_TILES:
            band, step = rows, max(1, _BAND_TILES // (rows * columns))
        else:
            band, step = max(1, _BAND_TILES // columns), 1
        for image in range(0, n, step):
            for row in range(0, rows, band):
                part = padded[image : image + step, row * _TILE :]
                out = pixels[image : image + step, row : row + band]
                self._band(part, out)
        whole = pixels.view(n, rows * _TILE, columns * _TILE, -1)
        return whole[:, :h, :w].permute(0, 3, 1, 2)

    def _padded(self, images: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Copy [n, h, w, c] into zeros [n, height, width, c], one row and column in."""
        n, h, w, c = images.shape
        padded = self._workspace.get(2, n, height, width, c)
        for border in (padded[:, 0], padded[:, h + 1 :], padded[:, :, 0], padded[:, :, w + 1 :]):
            border.zero_()
        padded[:, 1 : h + 1, 1 : w + 1].copy_(images)
        return padded

    def _band(self, padded: torch.Tensor, out: torch.Tensor) -> None:
        """Fill ``out`` [n, rows, 4, columns, 4, k] from the padded rows it needs."""
        n, rows, _, columns, _, k = out.shape
        c = padded.shape[3]
        tiles = n * rows * columns
        a, b = (self._workspace.get(slot, 36, tiles, c) for slot in (0, 1))
        across_n, down, across, _ = padded.stride()
        windows = padded.as_strided(
            (_WINDOW, _WINDOW, n, rows, columns, c),
            (down, across, across_n, _TILE * down, _TILE * across, 1),
        )
        a.view(windows.shape).copy_(windows)
        torch.mm(_B32, a.view(6, -1), out=b.view(6, -1))
        torch.matmul(_B32, b.view(6, 6, -1), out=a.view(6, 6, -1))
        products = self._workspace.get(1, 36, tiles, k)
        torch.bmm(a, self.weight, out=products)
        half = self._workspace.get(0, 24, tiles, k)
        torch.mm(_A32, products.view(6, -1), out=half.view(4, -1))
        spatial = self._workspace.get(1, 16, tiles, k)
        torch.matmul(_A32, half.view(4, 6, -1), out=spatial.view(4, 4, -1))
        spatial.add_(self.bias).relu_()
        out.copy_(spatial.view(_TILE, _TILE, n, rows, columns, k).permute(2, 3, 0, 4, 1, 5))


def use_winograd(features: nn.Sequential) -> nn.Sequential:
    """Return the layers with Winograd in the place of every Conv+ReLU but the first.

    The first has 3 channels: moving its tiles costs more than the products save.
    """
    layers: list[nn.Module] = []
    workspace = Workspace()
    for layer in features:
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 3:
            layers.append(WinogradConv(layer, workspace))
        elif not (isinstance(layer, nn.ReLU) and isinstance(layers[-1], WinogradConv)):
            layers.append(layer)
    return nn.Sequential(*layers)
