"""What torch is on this machine. ``python -m benchmarks.torch_facts`` prints it as JSON.

A process of its own, because the one that measures must not load torch: pages of
libraries that two processes have mapped are not given back to the system by either,
so the daemon's RSS would be measured with hundreds of megabytes too many.
"""

from __future__ import annotations

import json

import torch


def main() -> None:
    """Print JSON."""
    build = "CPU build"
    if torch.version.cuda:
        seen = "GPU seen" if torch.cuda.is_available() else "no GPU seen"
        build = f"CUDA {torch.version.cuda} build, {seen}"
    facts = {
        "build": build,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
