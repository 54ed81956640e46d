"""torch: the network resident on a CPU or GPU, pixels in, features out.

Preprocessing is torchvision's ``ImageClassification`` preset: resize to 256, centre
crop 224 (in :mod:`imgsortd.pictures.pixels`, uint8 [224, 224, 3]), then here
``(x / 255 - mean) / std`` per channel, float32 [n, 3, 224, 224].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from imgsortd.config.values import Device, Precision
from imgsortd.errors import ConfigError
from imgsortd.networks.network import Network
from imgsortd.networks.winograd import use_winograd
from imgsortd.records import Pixels, Vectors

DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
GPU_IMAGES = 128

_Item = TypeVar("_Item")

# oneDNN's names of the activations that may follow a convolution, with their numbers.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


class Kernel(StrEnum):
    """How the convolutions are computed."""

    DIRECT = "direct"
    WINOGRAD = "winograd"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a network is computed.

    Attributes
    ----------
    step_images
        Pictures that go through the deep stages at a time; on a CPU as many as leave
        the activations in cache.
    workers
        1: all threads work on the same pictures. More: so many work side by side, each
        on pictures of its own, and none waits for another after every layer.
    """

    precision: Precision
    kernel: Kernel = Kernel.DIRECT
    step_images: int = 1
    workers: int = 1


class Workers:
    """Threads that compute side by side with one torch thread each; none where ``count`` is 1."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            self._pool = ThreadPoolExecutor(
                count, thread_name_prefix="model", initializer=lambda: torch.set_num_threads(1)
            )

    def map(
        self, function: Callable[[Sequence[_Item]], torch.Tensor], items: Sequence[_Item], step: int
    ) -> list[torch.Tensor]:
        """Call ``function`` on parts of ``items`` of at most ``step``, results in order.

        A single item is computed by the calling thread, with all its torch threads.
        """
        if self._pool is None or len(items) < 2:
            return [function(part) for part in _parts(items, step, 1)]
        return list(self._pool.map(function, _parts(items, step, self.count)))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


def _parts(items: Sequence[_Item], step: int, workers: int) -> list[Sequence[_Item]]:
    """Cut in parts of nearly equal length, as many for each worker."""
    rounds = -(-len(items) // (step * workers))
    count = min(rounds * workers, len(items))
    edges = [len(items) * number // count for number in range(count + 1)] if count else [0]
    return [items[start:end] for start, end in pairwise(edges)]


class TorchExtractor:
    """A network that torch computes on its device."""

    def __init__(self, network: Network, device: torch.device, arithmetic: Arithmetic) -> None:
        self.id = network.id
        self.arithmetic = arithmetic
        self._device, self.on_cpu = device, device.type == "cpu"
        self.batch_images = network.batch_images if self.on_cpu else GPU_IMAGES
        self._mean = torch.tensor(network.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(network.std, device=device).view(1, 3, 1, 1)
        self._unit_length = network.unit_length
        self._shallow_stages = network.shallow_stages if self.on_cpu else 0
        self._stages = [place_stage(stage, device, arithmetic) for stage in network.stages]
        self._workers = Workers(arithmetic.workers)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # every batch has the same shape

    def describe(self) -> str:
        """Say on what and how the model runs, in a few words."""
        words = [self.id.backbone, "torch", self._device.type, self.arithmetic.precision]
        if self.on_cpu:
            words.append(self.arithmetic.kernel)
        return " ".join(words)

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Map uint8 [224, 224, 3] pictures to float32 [n, d] features, length 1 except logits."""
        if not pixels:
            return np.empty((0, self.id.dims), dtype=np.float32)
        # On a GPU all of this only queues work: while one part computes, the next is copied.
        parts = self._workers.map(self._forward, pixels, self.arithmetic.step_images)
        return torch.cat(parts).cpu().numpy()

    def unload(self) -> None:
        """End the threads; the memory goes with the object."""
        self._workers.close()

    @torch.inference_mode()
    def _forward(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        images = self._on_device(pixels).permute(0, 3, 1, 2)  # channels last
        images = (images.float().div_(255) - self._mean) / self._std
        images = images.to(DTYPES[self.arithmetic.precision])
        for number, stage in enumerate(self._stages):
            if number < self._shallow_stages:
                images = torch.cat([stage(image) for image in torch.split(images, 1)])
            else:
                images = stage(images)
        features = images.float()
        return nn.functional.normalize(features) if self._unit_length else features

    def _on_device(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        if self._device.type != "cuda":
            return torch.from_numpy(np.stack(pixels)).to(self._device)
        # Pinned memory is copied by the GPU itself, beside its computing; torch gives a
        # buffer out again only when its copy has ended.
        pinned = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8, pin_memory=True)
        np.stack(pixels, out=pinned.numpy())
        return pinned.to(self._device, non_blocking=True)


def place_stage(
    stage: nn.Sequential, device: torch.device, arithmetic: Arithmetic
) -> nn.Sequential:
    """Return a stage ready to run: on its device, in its arithmetic, layers fused.

    The stage that is given stays as it is. In float32 on a CPU the memory of its tensors
    is shared where it is channels last already.
    """
    dtype = DTYPES[arithmetic.precision]
    # Tensors of their own around the same memory: another memory format given to the
    # very tensors of the stage would be given to the stage, too.
    shared = {
        id(t): nn.Parameter(t.detach(), False) for t in stage.parameters() if t.dtype is dtype
    }
    placed = copy.deepcopy(stage, shared if device.type == "cpu" else None).to(device, dtype)
    if arithmetic.kernel is Kernel.WINOGRAD:
        placed = use_winograd(placed)
    if device.type == "cpu" and can_fuse(dtype):
        fuse_activations(placed)
    return placed.to(memory_format=torch.channels_last)


def choose_device(device: Device) -> torch.device:
    """Return torch's device to use.

    Raises
    ------
    ConfigError
        The configured GPU is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device is Device.AUTO:
        return torch.device(next((name for name, is_there in there.items() if is_there), "cpu"))
    if not there.get(device.value, True):
        raise ConfigError(
            f"model.device must be a device that torch {torch.__version__} sees here, "
            f"got {device.value}; use auto or cpu, or install its driver and a torch built for it"
        )
    return torch.device(device.value)


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
    """A convolution followed by ReLU or ReLU6; weights are those of the layers it stands for."""

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
