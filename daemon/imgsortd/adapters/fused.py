"""Convolution and activation in one pass over the memory, where torch's CPU build has it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

# oneDNN's names of the activations that may follow a convolution, with their numbers.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


def can_fuse(dtype: torch.dtype) -> bool:
    """Tell whether this torch has oneDNN's fused convolution (no public name for it) for a dtype.

    torch's own convolution computes bf16 on any CPU, the fused one only where the CPU
    has instructions for it.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    has_op = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return has_op and (dtype is torch.float32 or (dtype is torch.bfloat16 and has_fast_bf16()))


def has_fast_bf16() -> bool:
    """Tell whether this CPU has instructions for bf16 that oneDNN uses."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class FusedConv(nn.Module):
    """A convolution followed by ReLU or ReLU6.

    Parameters
    ----------
    conv, activation
        The layers whose work it does; weights are taken over.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._padding, self._stride = conv.padding, conv.stride
        self._dilation, self._groups = conv.dilation, conv.groups
        self._activation, self._numbers = _ACTIVATIONS[type(activation)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map [n, c, h, w] to [n, k, h', w'], dtype and memory format as they come."""
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]
            images,
            self.weight,
            self.bias,
            self._padding,
            self._stride,
            self._dilation,
            self._groups,
            self._activation,
            self._numbers,
            "",
        )


def fuse_activations(module: nn.Module) -> None:
    """Put FusedConv in the place of each convolution with an activation right behind it.

    Only where children are called in their order, as in VGG16 and EfficientNet. A
    subclass of Conv2d, such as timm's with TensorFlow's padding, is left as it is.
    """
    children = list(module.named_children())
    for (name, conv), (next_name, activation) in pairwise(children):
        if type(conv) is nn.Conv2d and type(activation) in _ACTIVATIONS:
            setattr(module, name, FusedConv(conv, activation))
            setattr(module, next_name, nn.Identity())
    for child in module.children():
        fuse_activations(child)
