"""VGG16, resident: pixels in, features out.

Preprocessing is torchvision's ``ImageClassification`` preset of the weights: resize
to 256, centre crop 224 (in :mod:`imgsortd.adapters.images`, uint8 [224, 224, 3]),
then here ``(x / 255 - mean) / std`` per channel, float32 [n, 3, 224, 224].
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np
import torch
from torch import nn
from torchvision.models import vgg16

from imgsortd.adapters.weights import Progress, Weights, load_weights
from imgsortd.adapters.winograd import WinogradConv, Workspace, use_winograd
from imgsortd.config import Device, ModelConfig, Precision
from imgsortd.core.records import ExtractorId, Layer, Pixels, Vectors
from imgsortd.errors import ConfigError

log = logging.getLogger(__name__)

DIMS = {Layer.POOL5: 512, Layer.FC2: 4096, Layer.LOGITS: 1000}
_DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
# On a CPU the first two blocks take one image at a time: its activations (13 MB) stay
# in cache. The others take many: their weights (59 MB and more) are then read once.
_POOLS_OF_SHALLOW_BLOCKS = 2
_CPU_IMAGES = 16
_GPU_IMAGES = 128
_CALIBRATION_ROUNDS = 5


class Kernel(StrEnum):
    """How the convolutions are computed."""

    DIRECT = "direct"
    WINOGRAD = "winograd"


class VggExtractor:
    """A VGG16 that stays in memory.

    Parameters
    ----------
    weights
        As loaded by :func:`imgsortd.adapters.weights.load_weights` for this layer.
    layer
        ``pool5``: mean of the last pooling layer over its 7x7 places, length 1.
        ``fc2``: the second 4096-wide layer after ReLU, length 1. ``logits``: the
        1000 outputs as they are, as the article uses them.
    device, precision
        ``auto`` takes a GPU with fp16 if there is one. On a CPU, ``auto`` measures
        bf16, Winograd and the plain convolution for a moment and takes the fastest;
        ``fp32`` is always the plain convolution.

    Attributes
    ----------
    id
        What rows made by this extractor are marked with.
    batch_images
        Pictures computed at a time.
    """

    def __init__(
        self, weights: Weights, layer: Layer, device: Device, precision: Precision
    ) -> None:
        self.id = ExtractorId(weights.digest, layer, DIMS[layer])
        self._layer = layer
        self._device = torch.device(choose_device(device))
        self._mean = torch.tensor(weights.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(weights.std, device=self._device).view(1, 3, 1, 1)
        self.batch_images = _CPU_IMAGES if self._device.type == "cpu" else _GPU_IMAGES
        features, head = _network(weights, layer)
        self.precision, self.kernel = choose_arithmetic(self._device, precision)
        self._dtype = _DTYPES[self.precision]
        if self.kernel is Kernel.WINOGRAD:
            features = use_winograd(features)
        blocks = _split_at_pool(features, _POOLS_OF_SHALLOW_BLOCKS)
        self._shallow = _placed(blocks[0], self._device, self._dtype).eval()
        self._deep = _placed(nn.Sequential(blocks[1], head), self._device, self._dtype).eval()

    def describe(self) -> str:
        """Say on what and how the model runs, in a few words."""
        return f"{self._device.type} {self.precision} {self.kernel}"

    @torch.inference_mode()
    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Return the features of pictures.

        Parameters
        ----------
        pixels
            uint8 [224, 224, 3] each, RGB.

        Returns
        -------
        float32 [n, d]
            d is 512, 4096 or 1000; rows have length 1 except for logits.
        """
        step = self.batch_images
        parts = [
            self._forward(np.stack(pixels[start : start + step]))
            for start in range(0, len(pixels), step)
        ]
        if not parts:
            return np.empty((0, self.id.dims), dtype=np.float32)
        return torch.cat(parts).cpu().numpy()

    def _forward(self, pixels: Pixels) -> torch.Tensor:
        images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)  # channels last
        images = (images.float().div_(255) - self._mean) / self._std
        images = images.to(self._dtype)
        if self._device.type == "cpu":
            images = torch.cat([self._shallow(image) for image in torch.split(images, 1)])
        else:
            images = self._shallow(images)
        features = self._deep(images).float()
        if self._layer is Layer.LOGITS:
            return features  # type: ignore[no-any-return]
        return nn.functional.normalize(features)


def build_extractor(model: ModelConfig, on_progress: Progress | None = None) -> VggExtractor:
    """Load the configured weights and put VGG16 on its device.

    Raises
    ------
    WeightsError
        The weights cannot be had or do not fit the layer.
    ConfigError
        The configured device is not there.
    """
    started = time.perf_counter()
    weights = load_weights(model.weights, model.layer, on_progress=on_progress)
    extractor = VggExtractor(weights, model.layer, model.device, model.precision)
    log.info(
        "model ready weights=%s digest=%s layer=%s runs_on=%r load_s=%.1f",
        weights.source,
        weights.digest[:12],
        model.layer,
        extractor.describe(),
        time.perf_counter() - started,
    )
    return extractor


class _Pool5(nn.Module):
    """Mean over the 7x7 places of the last pooling layer."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [n, 512, 7, 7] to [n, 512]."""
        return maps.mean(dim=(2, 3), dtype=torch.float32)


def _network(weights: Weights, layer: Layer) -> tuple[nn.Sequential, nn.Module]:
    """Build VGG16 up to a layer around the loaded tensors, without initialising it first."""
    with torch.device("meta"):
        model = vgg16()
    if layer is Layer.POOL5:
        head: nn.Module = _Pool5()
        model.classifier = nn.Sequential()
    else:
        model.classifier = model.classifier[: 5 if layer is Layer.FC2 else None]
        head = nn.Sequential(model.avgpool, nn.Flatten(), model.classifier)
    model.load_state_dict(_used(weights.tensors, model), assign=True)
    return model.features, head


def _split_at_pool(layers: nn.Sequential, pools: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Split the layers behind the pooling layer of that number."""
    ends = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return layers[: ends[pools - 1]], layers[ends[pools - 1] :]


def _placed(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    return module.to(device, dtype).to(memory_format=torch.channels_last)


def _used(tensors: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensors[name] for name in model.state_dict()}


def choose_device(device: Device) -> str:
    """Return torch's name of the device to use.

    Raises
    ------
    ConfigError
        The configured GPU is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device is Device.AUTO:
        return next((name for name, is_there in there.items() if is_there), "cpu")
    if not there.get(device.value, True):
        raise ConfigError(
            f"model.device must be a device that torch {torch.__version__} sees here, "
            f"got {device.value}; use auto or cpu, or install its driver and a torch built for it"
        )
    return device.value


def choose_arithmetic(device: torch.device, precision: Precision) -> tuple[Precision, Kernel]:
    """Return the precision and the kernel to compute with; ``auto`` is decided here."""
    if precision is not Precision.AUTO:
        return precision, Kernel.DIRECT
    if device.type != "cpu":
        return Precision.FP16, Kernel.DIRECT
    return _fastest_on_cpu()


def _fastest_on_cpu() -> tuple[Precision, Kernel]:
    """Time one layer of VGG16's widest block, a second or two in all."""
    conv = nn.Conv2d(512, 512, 3, padding=1).eval().to(memory_format=torch.channels_last)
    images = torch.rand(4, 512, 28, 28).contiguous(memory_format=torch.channels_last)
    winograd = WinogradConv(conv, Workspace())
    ways: dict[tuple[Precision, Kernel], Callable[[], object]] = {
        (Precision.FP32, Kernel.WINOGRAD): lambda: winograd(images),
        (Precision.FP32, Kernel.DIRECT): lambda: conv(images).relu_(),
    }
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        conv16 = _placed(nn.Conv2d(512, 512, 3, padding=1), images.device, torch.bfloat16)
        images16 = images.bfloat16()
        ways[Precision.BF16, Kernel.DIRECT] = lambda: conv16(images16).relu_()
    best_s = dict.fromkeys(ways, float("inf"))
    with torch.inference_mode():
        # In turns, so that a moment in which others use the CPU does not decide.
        for _ in range(_CALIBRATION_ROUNDS):
            for way, compute in ways.items():
                best_s[way] = min(best_s[way], _seconds(compute))
    return min(best_s, key=lambda way: best_s[way])


def _seconds(compute: Callable[[], object]) -> float:
    started = time.perf_counter()
    compute()
    return time.perf_counter() - started
