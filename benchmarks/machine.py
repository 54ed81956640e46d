"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.processes import run_module

_FLAGS = {"avx2": "avx2", "avx512": "avx512f", "avx512_bf16": "avx512_bf16", "amx": "amx_bf16"}
_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "imgsortd")
_EXTRAS = ("openvino", "nncf", "timm")


def describe_machine() -> dict[str, Any]:
    """Return CPU, its flags, memory, versions, the load and the date."""
    flags = set((re.search(r"flags\s*:\s*(.+)", _cpu_info()) or ["", ""])[1].split())
    return {
        "cpu_model": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_flags": {name: flag in flags for name, flag in _FLAGS.items()},
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in (*_PACKAGES, *filter(find_spec, _EXTRAS))},
        "torch_build": torch_facts()["build"],
        "torch_threads": torch_facts()["threads"],
        "torch_cpu_capability": torch_facts()["cpu_capability"],
        "load_average": os.getloadavg(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def cpu_model() -> str:
    """Return the processor's name."""
    model = re.search(r"model name\s*:\s*(.+)", _cpu_info())
    return model[1] if model else platform.processor() or platform.machine()


def _cpu_info() -> str:
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else ""


@cache
def torch_facts() -> dict[str, Any]:
    """Return torch's build, threads and the instructions it uses."""
    return run_module("benchmarks.torch_facts").values
