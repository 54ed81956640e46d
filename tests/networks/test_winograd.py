"""Winograd's convolution gives what the plain one gives, for any size of picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from imgsortd.networks.winograd import WinogradConv, Workspace, use_winograd


def conv(channels: int, out: int, **options: int) -> nn.Conv2d:
    """Make a seeded convolution with values as a trained one has."""
    torch.manual_seed(channels)
    layer = nn.Conv2d(channels, out, **{"kernel_size": 3, "padding": 1, **options})
    nn.init.kaiming_normal_(layer.weight)
    return layer


def assert_same(ours: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare within 1e-5 of the range, which is what float32 allows here."""
    torch.testing.assert_close(ours, expected, atol=1e-5 * expected.max().item(), rtol=0)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 8, 4, 4),
        (1, 8, 1, 1),
        (3, 8, 5, 3),  # neither side a multiple of a tile
        (2, 8, 14, 14),
        (1, 8, 112, 112),  # 784 tiles: several bands
        (1, 4, 90, 130),  # bands of which the last is shorter
        (40, 8, 14, 14),  # several images a band, and a rest
        (5, 64, 112, 112),  # several groups
    ],
    ids=str,
)
@torch.inference_mode()
def test_it_equals_the_plain_convolution_with_relu(shape: tuple[int, int, int, int]) -> None:
    plain = conv(shape[1], 16)
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    expected = plain(images).relu()

    ours = WinogradConv(plain, Workspace())(images)

    assert ours.shape == expected.shape
    assert_same(ours, expected)
    assert (expected == 0).any()


@torch.inference_mode()
def test_memory_that_is_used_again_holds_nothing_of_the_picture_before() -> None:
    plain = conv(8, 8)
    ours = WinogradConv(plain, Workspace())
    images = [torch.randn(n, 8, h, w) for n, h, w in ((2, 30, 30), (1, 7, 9), (3, 13, 5))]

    first = [ours(part.contiguous(memory_format=torch.channels_last)) for part in images]

    for found, part in zip(first, images, strict=True):
        assert_same(found, plain(part).relu())


def test_threads_that_share_the_layers_do_not_disturb_one_another() -> None:
    plain = nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 16), nn.ReLU(), conv(16, 8), nn.ReLU())
    ours = use_winograd(plain)
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(1, 3, 40, 40, generator=generator) for _ in range(24)]

    def compute(part: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return ours(part.contiguous(memory_format=torch.channels_last))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(compute, images))

    for one, part in zip(found, images, strict=True):
        assert_same(one, plain(part).detach())


def test_every_convolution_but_that_of_the_pixels_is_replaced_with_its_relu() -> None:
    layers = nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 4), nn.ReLU()
    )

    ours = use_winograd(layers)

    names = [type(layer).__name__ for layer in ours]
    assert names == ["Conv2d", "ReLU", "WinogradConv", "MaxPool2d", "WinogradConv"]
    assert len(layers) == 7


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2},
        {"groups": 2},
    ],
    ids=str,
)
def test_another_kind_of_convolution_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected a 3x3 convolution, stride 1, padding 1, got"):
        WinogradConv(conv(8, 8, **options), Workspace())
