"""A fused convolution gives what convolution and activation give one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from imgsortd.networks.torch_engine import FusedConv, can_fuse, fuse_activations, has_fast_bf16

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch is built without oneDNN"
)


def pair(activation: nn.Module, **options: int) -> nn.Sequential:
    """Make a seeded convolution whose outputs reach below 0 and above 6."""
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3, **options)
    nn.init.normal_(conv.weight, std=2)
    return nn.Sequential(conv, activation).eval()


def test_torch_still_has_the_operators_that_it_has_no_public_name_for() -> None:
    # Without them all works, slower, and nobody would hear of it.
    assert hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    assert hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    assert can_fuse(torch.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"stride": 2, "padding": 1},
        {"groups": 8},
        {"dilation": 2, "padding": 2},
        {"bias": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.ReLU6()], ids=["relu", "relu6"])
@torch.inference_mode()
def test_it_equals_convolution_and_activation(
    activation: nn.Module, options: dict[str, int]
) -> None:
    plain = pair(activation, **options)
    images = torch.randn(2, 8, 17, 12).contiguous(memory_format=torch.channels_last)
    expected = plain(images)
    fused = copy.deepcopy(plain)
    fuse_activations(fused)

    ours = fused(images)

    assert isinstance(fused[0], FusedConv)
    assert isinstance(fused[1], nn.Identity)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert expected.min() == 0
    assert expected.max() == 6 if isinstance(activation, nn.ReLU6) else expected.max() > 6


def test_nested_layers_are_fused_too_and_only_direct_neighbours() -> None:
    def conv() -> nn.Conv2d:
        return nn.Conv2d(4, 4, 1)

    layers = nn.Sequential(
        conv(), nn.MaxPool2d(1), nn.ReLU(), nn.Sequential(conv(), nn.ReLU6()), conv(), nn.Sigmoid()
    )

    fuse_activations(layers)

    kinds = [type(layer).__name__ for layer in layers.modules()]
    assert kinds == [
        *("Sequential", "Conv2d", "MaxPool2d", "ReLU"),
        *("Sequential", "FusedConv", "Identity", "Conv2d", "Sigmoid"),
    ]


def test_a_convolution_that_pads_as_tensorflow_does_is_left_alone() -> None:
    layers = pytest.importorskip("timm.layers", reason="the extra lite is not installed")
    plain = nn.Sequential(layers.Conv2dSame(3, 4, 3, stride=2), nn.ReLU6()).eval()
    images = torch.rand(1, 3, 8, 8)
    expected = plain(images)

    fuse_activations(plain)

    assert isinstance(plain[0], layers.Conv2dSame)
    assert isinstance(plain[1], nn.ReLU6)
    assert torch.equal(plain(images), expected)


def test_bf16_is_fused_only_where_the_cpu_computes_it_and_fp16_never() -> None:
    assert can_fuse(torch.bfloat16) == has_fast_bf16()
    assert not can_fuse(torch.float16)


def test_nothing_is_fused_where_torch_has_no_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)

    assert not can_fuse(torch.float32)
