"""OpenVINO: the same network compiled for this CPU, in float32, bf16 or int8.

OpenVINO's tools and NNCF report their use over the network where the package
openvino-telemetry is found, without asking. It is hidden from them here: nothing is
sent anywhere.
"""

from __future__ import annotations

import hashlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from imgsortd.config.values import Precision
from imgsortd.errors import ConfigError
from imgsortd.networks.network import Network
from imgsortd.records import Pixels, Vectors
from imgsortd.system.filesystem import write_atomically

log = logging.getLogger(__name__)

# None makes `import openvino_telemetry` fail, which both packages take for "not installed".
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_STEP_IMAGES = 4
_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16"}


class OpenVinoExtractor:
    """A network compiled by OpenVINO.

    Parameters
    ----------
    precision
        ``auto`` and ``int8``: bf16 where the CPU computes it, else float32. int8 is
        switched on when a checked model is in ``folder``, or later by :meth:`use_int8`.
    folder
        Where a checked int8 model is kept (:meth:`int8_file`).

    Raises
    ------
    ConfigError
        The CPU has no bf16 and it was asked for.
    """

    def __init__(
        self, network: Network, precision: Precision, cpus: int, folder: Path | None = None
    ) -> None:
        self._core = _load_openvino().Core()
        self.id = network.id
        self.on_cpu = True
        self.batch_images = network.batch_images
        self._unit_length = network.unit_length
        self._cpus = cpus
        self.precision = self._choose(precision)
        self._model = _convert(network)
        self._request = self._compile(self._model, self.precision)
        if precision is Precision.INT8 and folder is not None:
            path = self.int8_file(folder)
            try:
                if path.exists():
                    self.use_int8(path)
            except (OSError, RuntimeError) as error:
                log.warning("int8 model not used path=%s reason=%s", path, error)

    @property
    def engine_name(self) -> str:
        """OpenVINO's version and what it found in the CPU: an int8 model is checked for these."""
        version = _load_openvino().__version__.partition("-")[0]
        return f"openvino {version} {' '.join(self._capabilities())}"

    def describe(self) -> str:
        """Say on what and how the model runs, in a few words."""
        return f"{self.id.backbone} openvino cpu {self.precision}"

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Map uint8 [224, 224, 3] pictures to float32 [n, d] features, length 1 except logits."""
        return self._features(self._request, pixels)

    def extract_exactly(self, pixels: Sequence[Pixels]) -> Vectors:
        """Do the same in float32, compiled for this one call."""
        return self._features(self._compile(self._model, Precision.FP32), pixels)

    def make_int8(self, pixels: Sequence[Pixels], path: Path) -> None:
        """Quantise the network on pictures and write the int8 model to ``path`` (.xml and .bin).

        Source: NNCF's post-training quantisation, ``nncf.quantize``. Ranges are from the
        least to the greatest value seen: with NNCF's default, a mean of both, VGG16's
        worst picture kept a cosine of 0.992 to its float32 features, so 0.999.
        """
        with _quiet():
            import nncf

            data = nncf.Dataset([picture[None] for picture in pixels])
            ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
            options = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges)
            model = nncf.quantize(
                self._model, data, subset_size=len(pixels), advanced_parameters=options
            )
        part = path.with_name(f".{path.stem}-new.xml")
        try:
            _load_openvino().save_model(model, part, compress_to_fp16=False)
            path.unlink(missing_ok=True)  # never beside the other file of another model
            write_atomically(
                path.with_suffix(".bin"), [part.with_suffix(".bin").read_bytes()], shared=True
            )
            write_atomically(path, [part.read_bytes()], shared=True)
        finally:
            part.unlink(missing_ok=True)
            part.with_suffix(".bin").unlink(missing_ok=True)

    def int8_file(self, folder: Path) -> Path:
        """Name the int8 model for these weights on this OpenVINO and CPU, there or not."""
        what = f"{self.id.weights_digest} {self.engine_name}"
        digest = hashlib.sha256(what.encode()).hexdigest()[:16]
        return folder / f"int8-{self.id.backbone}-{digest}.xml"

    def extract_int8(self, path: Path, pixels: Sequence[Pixels]) -> Vectors:
        """Compute features with an int8 model that is not in use yet."""
        return self._features(self._int8_request(path), pixels)

    def use_int8(self, path: Path) -> None:
        """Compute with the int8 model at ``path`` from now on.

        Raises
        ------
        OSError, RuntimeError
            The files are not there or not what they were; the model in use stays.
        """
        self._request = self._int8_request(path)
        self.precision = Precision.INT8

    def unload(self) -> None:
        """Nothing to end: memory and threads are OpenVINO's and go with the object."""

    def _int8_request(self, path: Path) -> Any:
        if not path.is_file():
            raise FileNotFoundError(path)
        return self._compile(self._core.read_model(path), None)

    def _features(self, request: Any, pixels: Sequence[Pixels]) -> Vectors:
        features = np.empty((len(pixels), self.id.dims), dtype=np.float32)
        for start in range(0, len(pixels), _STEP_IMAGES):
            part = np.stack(pixels[start : start + _STEP_IMAGES])
            features[start : start + len(part)] = request.infer({0: part})[0]
        if self._unit_length:
            features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return features

    def _choose(self, precision: Precision) -> Precision:
        has_bf16 = "BF16" in self._capabilities()
        if precision is Precision.BF16 and not has_bf16:
            raise ConfigError(
                "model.precision must be auto, fp32 or int8 with model.engine: openvino on this "
                "CPU, got bf16; it has no instructions for bf16, take auto"
            )
        if precision in (Precision.AUTO, Precision.INT8):
            return Precision.BF16 if has_bf16 else Precision.FP32
        return precision

    def _capabilities(self) -> list[str]:
        return sorted(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))

    def _compile(self, model: Any, precision: Precision | None) -> Any:
        settings = {"INFERENCE_NUM_THREADS": self._cpus, "PERFORMANCE_HINT": "LATENCY"}
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
        return self._core.compile_model(model, "CPU", settings).create_infer_request()


class _Whole(nn.Module):
    """Pixels to features before they are brought to length 1: int8 would round that too."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.stages = nn.ModuleList(network.stages)
        self.register_buffer("mean", torch.tensor(network.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(network.std).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 [n, 224, 224, 3] to float32 [n, d]."""
        maps = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        for stage in self.stages:
            maps = stage(maps)
        return maps


def _convert(network: Network) -> Any:
    openvino = _load_openvino()
    example = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    shape = openvino.PartialShape([-1, 224, 224, 3])
    with _quiet():
        return openvino.convert_model(_Whole(network).eval(), example_input=example, input=[shape])


def _load_openvino() -> Any:
    import openvino

    return openvino


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars and remarks of these tools out of the daemon's log."""
    for name in ("nncf", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
