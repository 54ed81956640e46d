"""What imgsortd reaches on this machine, as ratios of one run: ``python -m benchmarks``."""
