"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
        "torch_build": torch_build(),
        "load_average": os.getloadavg(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def torch_build() -> str:
    """Say what torch was built for; the libraries of CUDA count in a process' RSS."""
    import torch

    if torch.version.cuda:
        seen = "GPU seen" if torch.cuda.is_available() else "no GPU seen"
        return f"CUDA {torch.version.cuda} build, {seen}"
    return "CPU build"
