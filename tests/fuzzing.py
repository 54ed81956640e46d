"""How many examples are drawn, and which: the same few in `make test`, others in `make faults`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings

FEW = 150
MANY = int(os.environ.get("IMGSORTD_FUZZ_EXAMPLES", "1000"))
SEED = int(os.environ.get("IMGSORTD_FUZZ_SEED", random.SystemRandom().randrange(2**32)))

few_and_many = pytest.mark.parametrize(
    "examples", [FEW, pytest.param(MANY, marks=pytest.mark.faults)], ids=["few", "many"]
)


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """Return a decorator for a test by hypothesis; the seed of many is printed."""
    number = 0 if examples == FEW else SEED
    print(f"IMGSORTD_FUZZ_SEED={number}")
    how = settings(
        max_examples=examples,
        database=None,  # nothing of another run: the seed alone decides
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    return lambda test: seed(number)(how(test))
