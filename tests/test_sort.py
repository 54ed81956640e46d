"""``imgsortd sort``: the article's job, with the quick extractor in VGG16's place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from imgsortd.config.model import Config
from imgsortd.errors import ConfigError, FitError
from imgsortd.records import Op
from imgsortd.sort import SortJob, SortReport, StoppedError, sort_folder
from support import RED, ColourExtractor, paint, paint_groups, sums, tree


def no_progress(_stage: str, _done: int, _total: int) -> None:
    """Take progress and do nothing."""


def sort(
    folder: Path,
    *,
    extractor: ColourExtractor | None = None,
    progress: Any = no_progress,
    **changes: Any,
) -> SortReport:
    """Sort ``folder/in`` into ``folder/out``, three clusters unless told otherwise."""
    job = SortJob(
        **{
            "source": folder / "in",
            "target": folder / "out",
            "n_clusters": 3,
            "op": Op.COPY,
            "state_dir": None,
            "recursive": False,
            "random_state": 42,
            "dry_run": False,
            **changes,
        }
    )
    config = Config.model_validate(
        {
            "inbox": job.source,
            "target": job.target,
            "state_dir": job.target,
            "recursive": job.recursive,
            "op": job.op,
            "clusters": {"random_state": job.random_state},
            "batch": {"max_images": 4},
        }
    )
    return sort_folder(job, config, extractor or ColourExtractor(), progress)


def clusters_of(target: Path) -> set[frozenset[str]]:
    """Return the partition: the file names that stand together."""
    folders = tree(target)
    return {frozenset(names) for name, names in folders.items() if name.startswith("cluster_")}


COLOURS = {
    frozenset(f"{colour}-{number}.png" for number in range(4))
    for colour in ("red", "green", "blue")
}


@pytest.mark.parametrize("op", list(Op))
def test_each_op_puts_every_picture_into_its_cluster(tmp_path: Path, op: Op) -> None:
    paint_groups(tmp_path / "in", each=4)
    before = sums(tmp_path / "in")

    report = sort(tmp_path, op=op)

    assert report.sorted == 12
    assert clusters_of(tmp_path / "out") == COLOURS
    assert len(os.listdir(tmp_path / "in")) == (0 if op is Op.MOVE else 12)
    placed = list((tmp_path / "out").glob("cluster_*/*"))
    assert sums(tmp_path / "in", tmp_path / "out").keys() == before.keys()
    if op is Op.SYMLINK:
        assert all(path.is_symlink() and path.exists() for path in placed)
    if op is Op.HARDLINK:
        assert all(path.stat().st_nlink == 2 for path in placed)


def test_all_folders_are_made_also_those_that_stay_empty(tmp_path: Path) -> None:
    for number in range(6):
        paint(tmp_path / "in" / f"{number}.png", RED, seed=1)

    sort(tmp_path, n_clusters=4)

    names = [name for name in tree(tmp_path / "out") if name.startswith("cluster_")]
    assert names == ["cluster_0", "cluster_1", "cluster_2", "cluster_3"]


def test_a_second_run_copies_and_extracts_nothing_again(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    sort(tmp_path)
    before = tree(tmp_path / "out")
    extractor = ColourExtractor()

    report = sort(tmp_path, extractor=extractor)

    assert (report.sorted, extractor.extracted) == (0, 0)
    assert tree(tmp_path / "out") == before


def test_a_stopped_run_is_carried_on_with_the_features_it_has(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)

    stored: list[int] = []

    def stop_midway(stage: str, done: int, total: int) -> None:
        if stage == "features" and 0 < done < total:
            stored.append(done)
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        sort(tmp_path, progress=stop_midway)
    extractor = ColourExtractor()

    report = sort(tmp_path, extractor=extractor)

    assert [report.known_before] == stored
    assert extractor.extracted == 12 - report.known_before
    assert clusters_of(tmp_path / "out") == COLOURS


def test_a_claim_whose_move_is_closed_is_sorted_by_the_next_run(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    claims = tmp_path / "in" / ".imgsortd-claim"
    claims.mkdir()
    (tmp_path / "in" / "red-0.png").rename(claims / "7-red-0.png")

    report = sort(tmp_path, op=Op.MOVE)

    assert report.sorted == 12
    assert clusters_of(tmp_path / "out") == COLOURS
    assert not claims.exists()


def test_a_run_stopped_between_copies_leaves_no_double(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)

    def stop_at_folders(stage: str, done: int, _total: int) -> None:
        if stage == "folders" and done:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        sort(tmp_path, progress=stop_at_folders)

    sort(tmp_path)

    assert clusters_of(tmp_path / "out") == COLOURS


def test_new_pictures_join_the_clusters_that_are_there(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    sort(tmp_path)
    paint(tmp_path / "in" / "late.png", RED, seed=99)

    sort(tmp_path)

    assert any({"late.png", "red-0.png"} <= names for names in clusters_of(tmp_path / "out"))


def test_a_copy_that_was_deleted_from_the_target_is_made_again(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    sort(tmp_path)
    for path in (tmp_path / "out").glob("cluster_*/red-*"):
        path.unlink()

    sort(tmp_path)

    assert clusters_of(tmp_path / "out") == COLOURS


def test_a_dry_run_leaves_nothing_behind(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    (tmp_path / "in" / "bad.jpg").write_text("no picture")

    report = sort(tmp_path, dry_run=True)

    assert sorted(report.clusters.values()) == [4, 4, 4]
    assert [item["file"] for item in report.set_aside] == ["bad.jpg"]
    assert os.listdir(tmp_path) == ["in"]
    assert len(os.listdir(tmp_path / "in")) == 13


def test_subfolders_are_sorted_only_when_asked(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    paint(tmp_path / "in" / "below" / "deep.png", RED, seed=7)

    flat = sort(tmp_path)
    deep = sort(tmp_path, recursive=True)

    assert (flat.sorted, deep.sorted) == (12, 1)


def test_unreadable_files_are_set_aside_with_the_reason(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    (tmp_path / "in" / "bad.jpg").write_text("no picture")

    report = sort(tmp_path)

    assert tree(tmp_path / "out")["_set_aside"] == ["bad.jpg"]
    assert "not a picture" in report.set_aside[0]["reason"]


def test_by_default_there_is_a_cluster_for_every_ten_pictures(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=10)

    report = sort(tmp_path, n_clusters=None)

    assert report.n_clusters == 3


def test_another_number_of_clusters_for_a_sorted_target_is_refused(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    sort(tmp_path)

    with pytest.raises(FitError, match=r"sorted before with -k 3 .* now asked for -k 2"):
        sort(tmp_path, n_clusters=2)


def test_more_clusters_than_pictures_is_refused(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=1)

    with pytest.raises(FitError, match="cannot make 9 clusters of 3 pictures"):
        sort(tmp_path, n_clusters=9)


def test_a_target_inside_the_source_is_refused(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=1)

    with pytest.raises(ConfigError, match="TARGET must not be SOURCE or inside it"):
        sort(tmp_path, target=tmp_path / "in" / "out")


def test_two_pictures_of_one_name_both_find_their_place(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    paint(tmp_path / "in" / "a" / "red-0.png", RED, seed=500)

    sort(tmp_path, recursive=True)

    names = [path.name for path in (tmp_path / "out").glob("cluster_*/red-0*")]
    assert sorted(names) == ["red-0-1.png", "red-0.png"]
