"""Which arithmetic and how many images at a time are fastest here: measured once, then kept."""

from __future__ import annotations

import json
import logging
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from imgsortd.config.values import Precision
from imgsortd.networks.network import Network
from imgsortd.networks.torch_engine import (
    DTYPES,
    Arithmetic,
    Kernel,
    Workers,
    has_fast_bf16,
    place_stage,
)
from imgsortd.system.filesystem import write_atomically

log = logging.getLogger(__name__)

FILE_NAME = "calibration.json"
_ROUNDS = 3
_ROUNDS_OF_MANY = 2
_STEPS = (2, 4, 8, 16, 32)
# On a busy machine all takes longer, and the measured differences mean less.
_BUDGET_S = 6.0
# A larger step costs memory and the first picture's patience: it has to pay.
_WORTH = 0.97
_CPU = torch.device("cpu")

_Way = TypeVar("_Way")


def calibrate(network: Network, precision: Precision, cpus: int) -> Arithmetic:
    """Measure on this CPU how the network is computed fastest, a few seconds in all.

    ``auto`` measures float32 by the plain and by Winograd's convolution, and bf16 where the
    CPU has instructions for it; any other precision is taken as it is, with the plain
    convolution. All CPUs work on the same pictures, or each on pictures of its own.
    """
    deadline_s = time.perf_counter() + _BUDGET_S
    with torch.inference_mode():
        maps = torch.rand(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        for stage in network.stages[:-1]:
            maps = place_stage(stage, _CPU, Arithmetic(Precision.FP32))(maps)
        way = _fastest_way(network) if precision is Precision.AUTO else (precision, Kernel.DIRECT)
        deep = place_stage(network.stages[-1], _CPU, Arithmetic(*way))
        maps = maps.to(DTYPES[way[0]])
        ways = {count: _deep_run(deep, maps, _STEPS[0], count) for count in {1, cpus}}
        workers = _quickest(ways, _ROUNDS_OF_MANY)
        return Arithmetic(*way, _fastest_step(deep, maps, workers, deadline_s), workers)


def _fastest_way(network: Network) -> tuple[Precision, Kernel]:
    """Time what a network is mostly made of: VGG16's widest layer, or the whole of a small one.

    In CPU seconds of one thread, which are the same while others use the machine.
    """
    precisions = [Precision.FP32, *([Precision.BF16] if has_fast_bf16() else [])]
    if network.shallow_stages:
        part = nn.Sequential(nn.Conv2d(512, 512, 3, padding=1), nn.ReLU()).eval()
        images = torch.rand(4, 512, 28, 28)
        kernels = [Kernel.WINOGRAD, Kernel.DIRECT]
    else:
        part, images, kernels = network.stages[-1], torch.rand(4, 3, 224, 224), [Kernel.DIRECT]
    ways = {}
    for precision in precisions:
        for kernel in kernels if precision is Precision.FP32 else [Kernel.DIRECT]:
            placed = place_stage(part, _CPU, Arithmetic(precision, kernel))
            ours = images.to(DTYPES[precision], memory_format=torch.channels_last)
            ways[precision, kernel] = partial(_seconds, partial(placed, ours), time.thread_time)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _quickest(ways, _ROUNDS)
    finally:
        torch.set_num_threads(threads)


def _fastest_step(deep: nn.Sequential, maps: torch.Tensor, workers: int, deadline_s: float) -> int:
    """Time more and more images at a time, until that no longer pays or took long enough."""
    best, best_s = _STEPS[0], float("inf")
    for step in _STEPS:
        if time.perf_counter() > deadline_s:
            break
        run = _deep_run(deep, maps, step, workers)
        seconds = min(run() for _ in range(_ROUNDS_OF_MANY))
        if seconds > best_s * _WORTH:
            break
        best, best_s = step, seconds
    return best


def _deep_run(
    deep: nn.Sequential, maps: torch.Tensor, step: int, workers: int
) -> Callable[[], float]:
    """Return a call that computes ``step`` images for each worker and tells the seconds of one."""
    threads = Workers(workers)
    images = list(range(step * workers))

    @torch.inference_mode()
    def compute(part: Sequence[int]) -> torch.Tensor:
        several = maps.expand(len(part), -1, -1, -1)
        return deep(several.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]

    return lambda: _seconds(lambda: threads.map(compute, images, step)) / len(images)


def _quickest(ways: Mapping[_Way, Callable[[], float]], rounds: int) -> _Way:
    """Return the way whose call tells the fewest seconds."""
    best_s = dict.fromkeys(ways, float("inf"))
    # In turns, so that a moment in which others use the CPU does not decide.
    for _ in range(rounds):
        for way, run in ways.items():
            best_s[way] = min(best_s[way], run())
    return min(best_s, key=lambda way: best_s[way])


def _seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    started = clock()
    run()
    return clock() - started


@dataclass(frozen=True, slots=True)
class CalibrationFile:
    """Results by machine, torch version and what was measured; a JSON file in a folder that stays.

    The folder must exist to be written to.
    """

    folder: Path

    def recall(self, key: str) -> Arithmetic | None:
        """Return what was measured before under the same conditions."""
        try:
            row = self._read()[key]
            way = Precision(row["precision"]), Kernel(row["kernel"])
            step_images, workers = int(row["step_images"]), int(row["workers"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        return Arithmetic(*way, step_images, workers) if min(step_images, workers) > 0 else None

    def keep(self, key: str, arithmetic: Arithmetic) -> None:
        """Write a result down; without it all works, only slower at the next start."""
        try:
            rows = {**self._read(), key: asdict(arithmetic)}
            text = json.dumps(rows, indent=1, sort_keys=True) + "\n"
            write_atomically(self.folder / FILE_NAME, [text.encode()], shared=True)
        except OSError as error:
            log.warning("calibration not kept folder=%s reason=%s", self.folder, error)

    def _read(self) -> dict[str, Any]:
        try:
            rows = json.loads((self.folder / FILE_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return rows if isinstance(rows, dict) else {}


def calibration_key(network: Network, precision: Precision, cpus: int) -> str:
    """Name the conditions: processor, CPUs that may be used, torch, network, precision."""
    return (
        f"{_processor()}, {cpus} cpus, torch {torch.__version__}, "
        f"{network.id.backbone} {network.id.layer} {precision}"
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"model name\s*:\s*(.+)", text)
    # A virtual machine may hide the model; the instructions decide what is fast.
    instructions = f"{torch.backends.cpu.get_cpu_capability()}{' bf16' if has_fast_bf16() else ''}"
    return f"{model[1] if model else platform.machine()} {instructions}"
