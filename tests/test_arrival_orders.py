"""Whatever order pictures come in, the folders at the end are those of one fit over all of them.

On made-up features, by imgsortd's own line: real files, no model (``benchmarks.shelf``).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from benchmarks.quality import ARRIVALS, Arrival, Labelled, arrive

from imgsortd.records import ExtractorId, Layer
from synthetic import mix

MIXES = {
    "even": [40] * 8,
    "uneven": [90, 12, 60, 35, 20, 70, 15, 40, 25],
}
MOST_IN_REVIEW, MOST_MOVED_AGAIN = 0.03, 0.1


def labelled(name: str) -> Labelled:
    sizes = MIXES[name]
    features = mix(sizes, seed=len(sizes))
    return Labelled(
        name,
        ExtractorId("made", Layer.POOL5, features.shape[1]),
        features,
        np.repeat(np.arange(len(sizes)), sizes),
        tuple(f"kind {number}" for number in range(len(sizes))),
    )


@cache
def one_fit_over_all(name: str, wanted: int | str) -> float:
    with TemporaryDirectory() as folder:
        return arrive(labelled(name), ARRIVALS[0], wanted, Path(folder)).nmi


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("is_auto", [False, True], ids=["k", "auto"])
@pytest.mark.parametrize("arrival", ARRIVALS, ids=lambda arrival: arrival.name)
def test_the_folders_at_the_end_are_those_of_one_fit_over_all(
    name: str, is_auto: bool, arrival: Arrival, tmp_path: Path
) -> None:
    wanted = "auto" if is_auto else len(MIXES[name])

    outcome = arrive(labelled(name), arrival, wanted, tmp_path)

    assert one_fit_over_all(name, wanted) - outcome.nmi <= arrival.may_lose
    assert outcome.review <= MOST_IN_REVIEW
    assert outcome.moved_again <= MOST_MOVED_AGAIN or not arrival.is_at_once
    assert outcome.kept in (None, 1)
