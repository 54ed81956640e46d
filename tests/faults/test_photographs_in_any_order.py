"""Labelled photographs through a real network: the order in which they come does not matter."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from benchmarks.quality import ARRIVALS, Labelled, arrive, read_labelled

from support import SHARED_DATA

pytestmark = pytest.mark.faults
EACH = 40
KINDS = (
    "Faces",
    "Leopards",
    "bonsai",
    "car_side",
    "ewer",
    "ketch",
    "laptop",
    "llama",
    "sunflower",
    "watch",
)


@pytest.fixture
def photographs(tmp_path: Path, threads_given_back: None) -> Labelled:
    """Return forty photographs each of ten kinds, by EfficientNet-Lite0."""
    source = SHARED_DATA / "caltech22"
    if not source.is_dir():
        pytest.skip(f"there are no labelled photographs in {source}")
    folder = tmp_path / "labelled"
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for path in sorted((source / kind).iterdir())[:EACH]:
            shutil.copy(path, folder / kind)
    return read_labelled(folder, "efficientnet_lite0", tmp_path / "cache")


@pytest.mark.parametrize("wanted", [len(KINDS), "auto"])
def test_photographs_end_in_the_folders_of_one_fit_over_all(
    photographs: Labelled, wanted: int | str, tmp_path: Path
) -> None:
    found = {
        arrival.name: (arrival, arrive(photographs, arrival, wanted, tmp_path / str(number)))
        for number, arrival in enumerate(ARRIVALS)
    }

    at_once = found["random"][1].nmi
    for name, (arrival, outcome) in found.items():
        assert at_once - outcome.nmi <= arrival.may_lose, name
        assert outcome.review <= 0.03, name
        assert outcome.moved_again <= 0.1 or not arrival.is_at_once, name
        assert outcome.kept in (None, 1), name
