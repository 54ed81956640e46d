"""Matrix products in int8 on a CPU, by OpenVINO: torch has none that is fast without VNNI.

On AVX2 ``torch._int_mm`` reaches 1.5 GOP/s, a fiftieth of this, and would make a ceiling
that says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.roofline import product_gflop, shape_text

_SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (784, 4608, 512))


class Int8Products:
    """Products of float32 rows, rounded to int8 on the way, with int8 weights; made once."""

    def __init__(self, cpus: int, shapes: Sequence[tuple[int, int, int]] = _SHAPES) -> None:
        self._requests = {shape: _request(shape, cpus) for shape in shapes}

    def rates(self) -> dict[str, float]:
        """Compute each product once; return 10⁹ operations a second by shape."""
        rates = {}
        for shape, (request, rows) in self._requests.items():
            started = time.perf_counter()
            request.infer({0: rows}, share_inputs=True)
            rates[shape_text(shape)] = product_gflop(shape) / (time.perf_counter() - started)
        return rates


def _request(shape: tuple[int, int, int], cpus: int) -> tuple[Any, Any]:
    # It also keeps both packages from telling others that they are used.
    import imgsortd.adapters.openvino_engine  # noqa: F401  # isort: skip
    import nncf
    import openvino
    import torch

    m, k, n = shape
    rows = np.random.default_rng(0).random((m, k), dtype=np.float32)
    layer = torch.nn.Linear(k, n, bias=False).eval()
    example = torch.from_numpy(rows)
    model = openvino.convert_model(
        layer, example_input=example, input=[openvino.PartialShape([m, k])]
    )
    quantised = nncf.quantize(model, nncf.Dataset([rows]), subset_size=1)
    settings = {"INFERENCE_NUM_THREADS": cpus, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(quantised, "CPU", settings)
    return compiled.create_infer_request(), rows
