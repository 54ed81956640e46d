"""``python -m benchmarks.quality`` measures with imgsortd's own fits, which see no label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.quality import (
    Labelled,
    clusters_of_classes,
    grow,
    measure_pins,
    measure_ways,
    parse,
    sorted_shelf,
)

from imgsortd.records import ExtractorId, Layer
from synthetic import groups

EACH, GROUPS, DIMS = 20, 4, 8


@pytest.fixture
def labelled() -> Labelled:
    features = groups(EACH, GROUPS, DIMS)
    return Labelled(
        "made",
        ExtractorId("made", Layer.POOL5, DIMS),
        features,
        np.repeat(np.arange(GROUPS), EACH),
        ("a", "b", "c", "d"),
    )


def test_groups_that_lie_apart_are_found_in_every_way(labelled: Labelled, tmp_path: Path) -> None:
    part = measure_ways(labelled, tmp_path)

    found = {figure.name: figure.value for figure in part.figures if "NMI" in figure.name}
    assert found["k given: NMI"] == pytest.approx(1)
    assert found["k auto: NMI"] == pytest.approx(1)
    assert "k auto took 4" in part.notes


def test_a_library_that_grows_ends_like_one_that_was_whole(
    labelled: Labelled, tmp_path: Path
) -> None:
    grown = grow(labelled, tmp_path, 0)

    nmi, churns, changed = grown
    assert nmi == pytest.approx(1, abs=0.03)  # some of the farthest are in review
    assert max(churns) <= 0.03
    assert changed <= 0.03
    assert len(churns) == 5  # 24 → 30 → 38 → 48 → 60 → 75, and 80 is no quarter more


def test_pins_are_measured_on_what_is_not_pinned(labelled: Labelled, tmp_path: Path) -> None:
    part = measure_pins(labelled, tmp_path, 1)

    assert [figure.value for figure in part.figures] == pytest.approx([1.0] * 18)


def test_a_class_that_is_the_commonest_of_no_cluster_gets_a_folder_of_its_own(
    labelled: Labelled, tmp_path: Path
) -> None:
    shelf = sorted_shelf(labelled, tmp_path, 3)
    clusters = np.array([7] * 5 + [9] * 3)

    own = clusters_of_classes(np.array([0, 0, 0, 1, 1, 2, 2, 2]), clusters, shelf)

    assert own == [7, 3, 9]
    shelf.close()


def test_a_folder_that_is_not_there_is_a_wrong_option(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        parse([str(tmp_path / "none")])

    assert caught.value.code == 2
