"""How near the model comes to the best matrix product of the same machine.

``achieved = GFLOP an image x images/s``, with the operations of the network as plainly
computed; ``share = achieved / best matrix product`` in the same precision, on the same
number of threads, in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

VGG16_GFLOP = 30.7
"""VGG16's convolutions, 15.35 billion multiplications and as many additions."""

SQUARES = (1024, 2048, 4096)
# A 3x3 convolution of VGG16's 512 channels as one product, over 28x28 places and more.
CONVOLUTIONS = tuple((512, 4608, places) for places in (784, 3136, 12_544))
SHAPES = (*((side, side, side) for side in SQUARES), *CONVOLUTIONS)
# A GPU needs more work to be full, and its products are too short to time one by one.
GPU_SHAPES = (*SHAPES, (8192, 8192, 8192))
_GPU_REPEATS = 20

DEVICES = ("cpu", "cuda", "mps")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")

PLAIN_NOTE = "the operations are those of the plain computation"
WINOGRAD_NOTE = (
    f"{PLAIN_NOTE}; Winograd's method does fewer "
    "multiplications than it is credited for, so its share may exceed 100 %"
)


@dataclass(frozen=True, slots=True)
class Roofline:
    """The two rates, in GFLOP/s."""

    achieved: float
    best: float

    @property
    def share(self) -> float:
        """Achieved rate over the best matrix product."""
        return self.achieved / self.best

    def line(self, precision: str, threads: int) -> str:
        """Say both rates and the share in one line."""
        return (
            f"roofline: model {self.achieved:.1f} GFLOP/s ÷ best matrix product "
            f"{self.best:.1f} GFLOP/s ({precision}, {threads} threads) = {100 * self.share:.1f} %"
        )


def product_gflop(shape: tuple[int, int, int]) -> float:
    """Return the operations of an [m, k] x [k, n] product, in 10⁹."""
    m, k, n = shape
    return 2 * m * k * n / 1e9


def shape_text(shape: tuple[int, int, int]) -> str:
    """Return ``512x4608x784``."""
    return "x".join(map(str, shape))


def gflop_per_image(extractor: object, backbone: str) -> float | None:
    """Return what the extractor says; else VGG16's own number; else None: not known."""
    told = getattr(extractor, "gflop_per_image", None)
    if told is not None:
        return float(told)
    return VGG16_GFLOP if backbone == "vgg16" else None


def arithmetic(described: str) -> tuple[str, str]:
    """Read device and precision out of an extractor's own few words about itself.

    What is not named is a CPU and fp32: ``openvino int8`` gives cpu and int8.
    """
    words = described.replace(",", " ").lower().split()
    device = next((word for word in words if word in DEVICES), DEVICES[0])
    return device, next((word for word in words if word in PRECISIONS), PRECISIONS[0])


class Products:
    """Matrix products of several shapes, made ready once and timed again and again."""

    def __init__(
        self, device: str, precision: str, shapes: Sequence[tuple[int, int, int]] | None = None
    ) -> None:
        self._device = device
        self._repeats = 1 if device == "cpu" else _GPU_REPEATS
        shapes = shapes or (SHAPES if device == "cpu" else GPU_SHAPES)
        self._pairs = {shape: _operands(shape, device, precision) for shape in shapes}

    def rates(self) -> dict[str, float]:
        """Compute each product once; return GFLOP/s by shape."""
        return {shape_text(shape): self._rate(shape) for shape in self._pairs}

    def _rate(self, shape: tuple[int, int, int]) -> float:
        import torch

        multiply: Any = torch.mm
        a, b = self._pairs[shape]
        if a.dtype is torch.int8:
            multiply = torch._int_mm
        started = time.perf_counter()
        for _ in range(self._repeats):
            multiply(a, b)
        if self._device == "cuda":
            torch.cuda.synchronize()
        elif self._device == "mps":
            torch.mps.synchronize()
        return self._repeats * product_gflop(shape) / (time.perf_counter() - started)


def _operands(
    shape: tuple[int, int, int], device: str, precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    m, k, n = shape
    if precision == "int8":
        return tuple(  # type: ignore[return-value]
            torch.randint(-64, 64, size, dtype=torch.int8, device=device)
            for size in ((m, k), (k, n))
        )
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = names[precision]
    return torch.rand(m, k, device=device).to(dtype), torch.rand(k, n, device=device).to(dtype)
