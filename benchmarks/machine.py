"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import run_module

_FLAGS = {"avx2": "avx2", "avx512": "avx512f", "avx512_bf16": "avx512_bf16", "amx": "amx_bf16"}
_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow", "imgsortd")


def describe_machine() -> dict[str, Any]:
    """Return CPU, its flags, memory, versions, the load and the date."""
    cpu = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = re.search(r"model name\s*:\s*(.+)", cpu)
    flags = set((re.search(r"flags\s*:\s*(.+)", cpu) or ["", ""])[1].split())
    return {
        "cpu_model": model[1] if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_flags": {name: flag in flags for name, flag in _FLAGS.items()},
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "torch_build": torch_facts()["build"],
        "torch_threads": torch_facts()["threads"],
        "torch_cpu_capability": torch_facts()["cpu_capability"],
        "load_average": os.getloadavg(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


@cache
def torch_facts() -> dict[str, Any]:
    """Return torch's build, threads and the instructions it uses."""
    return run_module("benchmarks.torch_facts").values
