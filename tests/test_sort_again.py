"""``imgsortd sort`` run again, after a source was replaced, copies deleted, or the state lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from imgsortd.config.model import Config
from imgsortd.records import Op
from imgsortd.sort import STATE_FOLDER, SortJob, SortReport, sort_folder
from support import BLUE, GREEN, ColourExtractor, paint, paint_groups, sums, tree


def sort(folder: Path, op: Op = Op.COPY) -> SortReport:
    """Sort ``folder/in`` into the three clusters of ``folder/out``."""
    job = SortJob(folder / "in", folder / "out", 3, op, None, False, 42, dry_run=False)
    config = Config.model_validate(
        {
            "inbox": job.source,
            "target": job.target,
            "state_dir": job.target,
            "recursive": job.recursive,
            "op": op,
            "clusters": {"random_state": job.random_state},
            "batch": {"max_images": 4},
        }
    )
    return sort_folder(job, config, ColourExtractor(), lambda *_: None)


def sorted_files(folder: Path) -> list[Path]:
    return sorted((folder / "out").glob("cluster_*/*"))


def sums_in_clusters(folder: Path) -> dict[str, int]:
    return sums(*(folder / "out").glob("cluster_*"))


def clusters_of(folder: Path) -> set[frozenset[str]]:
    """Return the names of the files that stand together."""
    folders = tree(folder / "out")
    return {frozenset(names) for name, names in folders.items() if name.startswith("cluster_")}


def test_a_source_that_was_replaced_and_whose_copies_were_deleted_is_copied_once(
    tmp_path: Path,
) -> None:
    paint_groups(tmp_path / "in", each=4)
    sort(tmp_path)
    (tmp_path / "in" / "red-0.png").unlink()
    paint(tmp_path / "in" / "red-0.png", BLUE, 77)
    sort(tmp_path)
    copies = [path for path in sorted_files(tmp_path) if path.name.startswith("red-0")]
    for path in copies:
        path.unlink()

    reports = [sort(tmp_path) for _ in range(2)]

    assert len(copies) == 2
    assert [report.errors for report in reports] == [[], []]
    assert [report.sorted for report in reports] == [1, 0]
    assert sums_in_clusters(tmp_path) == sums(tmp_path / "in")


@pytest.mark.parametrize("op", [Op.COPY, Op.HARDLINK, Op.SYMLINK])
def test_sorted_again_after_the_state_was_lost_no_file_is_there_twice(
    tmp_path: Path, op: Op
) -> None:
    paint_groups(tmp_path / "in", each=4)
    sort(tmp_path, op)
    before, together = sorted_files(tmp_path), clusters_of(tmp_path)
    shutil.rmtree(tmp_path / "out" / STATE_FOLDER)

    report = sort(tmp_path, op)

    assert sorted_files(tmp_path) == before
    assert clusters_of(tmp_path) == together
    assert (report.sorted, report.errors) == (0, [])


@pytest.mark.parametrize("op", list(Op))
def test_a_new_picture_joins_its_like_after_the_state_was_lost(tmp_path: Path, op: Op) -> None:
    paint_groups(tmp_path / "in", each=4)
    sort(tmp_path, op)
    before = sorted_files(tmp_path)
    shutil.rmtree(tmp_path / "out" / STATE_FOLDER)
    paint(tmp_path / "in" / "late.png", GREEN, 99)
    wanted = sums(tmp_path / "in") | (sums_in_clusters(tmp_path) if op is Op.MOVE else {})

    sort(tmp_path, op)

    (late,) = set(sorted_files(tmp_path)) - set(before)
    assert set(before) < set(sorted_files(tmp_path))
    assert (late.parent / "green-0.png").exists()
    if op is not Op.SYMLINK:  # links have no bytes of their own
        assert sums_in_clusters(tmp_path) == wanted
    assert len(os.listdir(tmp_path / "in")) == (0 if op is Op.MOVE else 13)


def test_moved_pictures_stay_as_they_are_where_the_state_was_lost_and_nothing_is_new(
    tmp_path: Path,
) -> None:
    paint_groups(tmp_path / "in", each=4)
    sort(tmp_path, Op.MOVE)
    before = sorted_files(tmp_path)
    shutil.rmtree(tmp_path / "out" / STATE_FOLDER)

    report = sort(tmp_path, Op.MOVE)

    assert sorted_files(tmp_path) == before
    assert sum(report.clusters.values()) == 12
