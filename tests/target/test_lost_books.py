"""What a hostile reading of restored, rebuilt and repaired books has found."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from imgsortd.config.model import Config
from imgsortd.records import Op
from imgsortd.sort import SortJob, SortReport, sort_folder
from inboxes import Inbox, quick_cli
from libraries import (
    LIGHT,
    change,
    check_places,
    complaints,
    count,
    damage,
    looked,
    sorted_nine,
    standing,
    started,
)
from support import RED, ColourExtractor, paint, paint_groups, sums, wait_until


def run(
    source: Path,
    target: Path,
    op: Op = Op.COPY,
    k: int | None = 3,
    state: Path | None = None,
    dry: bool = False,
    adopt: bool = False,
    seed: int = 42,
) -> SortReport:
    job = SortJob(source, target, k, op, state, False, seed, dry_run=dry, adopt=adopt)
    config = Config.model_validate(
        {
            "inbox": source,
            "target": target,
            "state_dir": state or target,
            "recursive": False,
            "op": op,
            "clusters": {"random_state": seed},
            "batch": {"max_images": 4},
        }
    )
    return sort_folder(job, config, ColourExtractor(), lambda *_: None)


def test_sort_dry_run_after_the_database_was_lost_then_sort(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    run(tmp_path / "in", tmp_path / "out")
    before = standing(tmp_path / "out")
    (tmp_path / "out" / ".imgsortd" / "imgsortd.db").unlink()
    run(tmp_path / "in", tmp_path / "out", dry=True)
    run(tmp_path / "in", tmp_path / "out")
    assert standing(tmp_path / "out") == before


def test_sort_into_another_target_with_the_same_state(tmp_path: Path) -> None:
    paint_groups(tmp_path / "in", each=4)
    state = tmp_path / "state"
    run(tmp_path / "in", tmp_path / "one", state=state)
    run(tmp_path / "in", tmp_path / "two", state=state)
    assert sums(tmp_path / "two") == sums(tmp_path / "in")


def keep_backup(one: Inbox) -> Inbox:
    folder = one.config.state_dir / "backups"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(0o700)
    with (
        closing(sqlite3.connect(one.config.database)) as database,
        closing(sqlite3.connect(folder / "imgsortd-2026-11-30.db")) as copy,
    ):
        database.backup(copy)
    os.chmod(folder / "imgsortd-2026-11-30.db", 0o600)
    shutil.rmtree(one.folder / "kept backups", ignore_errors=True)
    shutil.copytree(folder, one.folder / "kept backups")
    return one


def folder_of(one: Inbox, colour: str) -> Path:
    parents = [path.parent for path in one.target.rglob(f"*{colour}*")]
    return max(parents, key=parents.count)


def number_of(one: Inbox, colour: str) -> int:
    folder = folder_of(one, colour).name
    (number,) = [c.id for c in one.status().clusters if c.folder == folder]
    return number


def check_right(one: Inbox) -> None:
    if one.daemon.is_alive():
        assert one.daemon.stop() == 0
    check_places(one)
    assert sums(one.inbox, one.target) == one.dropped
    assert complaints(one) == []
    assert complaints(one, "--deep") == []


def clusters(one: Inbox) -> dict[str, int]:
    return {c.folder: c.id for c in one.status().clusters}


@pytest.mark.parametrize("way", ["run", "repair"])
@pytest.mark.parametrize("what", ["one", "chain", "swap", "cycle"])
def test_renames_since_the_backup(make: Callable[..., Inbox], what: str, way: str) -> None:
    one = sorted_nine(make("one", **LIGHT))
    numbers = {c: number_of(one, c) for c in ("red", "green", "blue")}
    if what != "one":
        for colour, name in (("red", "A"), ("green", "B"), ("blue", "C")):
            assert quick_cli("rename", one, str(numbers[colour]), name).returncode == 0
    keep_backup(one)
    steps = {
        "one": [("red", "A")],
        "chain": [("red", "D"), ("green", "A")],
        "swap": [("red", "X"), ("green", "A"), ("red", "B")],
        "cycle": [("red", "X"), ("green", "A"), ("blue", "B"), ("red", "C")],
    }[what]
    for colour, name in steps:
        done = quick_cli("rename", one, str(numbers[colour]), name)
        assert done.returncode == 0, done.stderr
    wanted = clusters(one)
    before = standing(one.target)
    damage(one)
    if way == "repair":
        done = quick_cli("doctor", one, "--repair")
        quick_cli("doctor", one, "--repair")
    started(one)
    looked(one)
    assert clusters(one) == wanted
    assert before.items() <= standing(one.target).items()
    one.drop(1)
    one.wait_sorted(20)
    for colour in ("red", "green", "blue"):
        assert len({p.parent for p in one.target.rglob(f"*{colour}*")}) == 1, colour
    check_right(one)


@pytest.mark.parametrize("op", ["copy", "hardlink", "symlink", "move"])
def test_pending_in_the_backup_sorted_since(make: Callable[..., Inbox], op: str) -> None:
    one = make("one", op=op, **{**LIGHT, "clusters": {"min_images": 50}})
    one.drop(3)
    one.daemon.start()
    wait_until(lambda: count(one, "pending") == 9, 20, "pending\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    keep_backup(one)
    change(one, clusters={"min_images": 6})
    started(one)
    wait_until(lambda: count(one) == 9, 20, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    before = sorted(str(p) for p in one.target.rglob("*.png"))
    assert len(before) == 9
    damage(one)
    started(one)
    one.drop(1)
    settled12(one)
    assert one.daemon.stop() == 0
    after = sorted(str(p) for p in one.target.rglob("*.png"))
    assert len(after) == 12
    assert set(before) <= set(after)
    assert one.status().counts["seen"] == 12
    assert complaints(one) == []


def test_an_edited_copy_is_repaired_and_its_source_not_copied_again(
    make: Callable[..., Inbox],
) -> None:
    one = make("one", op="copy", **LIGHT)
    one.drop(3)
    one.daemon.start()
    wait_until(lambda: count(one) == 9, 20, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    (path,) = one.target.rglob("10000-red-0.png")
    paint(path, RED, seed=99)
    standing(one.target)
    quick_cli("doctor", one, "--repair")
    started(one)
    one.drop(1)
    wait_until(lambda: count(one) >= 12, 20, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    assert len(list(one.target.rglob("*.png"))) == 12


def test_deep_reads_files_in_a_persons_own_folder(make: Callable[..., Inbox]) -> None:
    one = sorted_nine(make("one", **LIGHT))
    started(one)
    mine = one.target / "Mine"
    mine.mkdir()
    (path,) = one.target.rglob("10000-red-0.png")
    path = path.rename(mine / path.name)
    wait_until(lambda: json.loads(quick_cli("pins", one, "--json").stdout), 20, "pinned")
    assert one.daemon.stop() == 0
    path.write_bytes(b"garbage" * 100)
    assert complaints(one, "--deep") != []


def settled12(one: Inbox) -> None:
    wait_until(lambda: count(one) >= 12 and count(one, "pending") == 0, 12, "sorted")


def as_of_an_older_imgsortd(one: Inbox) -> None:
    """Leave of the roots what a migration of an older library makes of them."""
    with closing(sqlite3.connect(one.config.database)) as db:
        db.execute("UPDATE roots SET path=x'', filesystem=NULL, inode=NULL, mark=NULL")
        db.commit()
    (one.target / ".imgsortd-library").unlink()
    (one.config.state_dir / "library.json").unlink()


@pytest.mark.parametrize("op", ["move", "copy"])
def test_repair_of_an_older_library_whose_target_is_not_mounted_forgets_nothing(
    make, op: str
) -> None:
    one = make("one", op=op, **LIGHT)
    one.drop(3)
    started(one)
    wait_until(lambda: count(one) == 9, 20, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    as_of_an_older_imgsortd(one)
    away = one.target.rename(one.folder / "away")
    one.target.mkdir()
    quick_cli("doctor", one, "--repair")
    assert count(one) == 9
    one.target.rename(one.folder / "empty")
    away.rename(one.target)
    quick_cli("doctor", one, "--repair")
    assert count(one) == 9


@pytest.mark.parametrize("op", ["move", "copy"])
@pytest.mark.parametrize("lost", ["damaged", "deleted"])
def test_a_lost_database_without_backup_is_not_made_anew_of_an_empty_mount_point(
    make, op: str, lost: str
) -> None:
    one = make("one", op=op, **LIGHT)
    one.drop(3)
    started(one)
    wait_until(lambda: count(one) == 9, 20, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    shutil.rmtree(one.config.state_dir / "backups", ignore_errors=True)
    if lost == "damaged":
        one.config.database.write_bytes(b"this is no database any more" * 1000)
    else:
        one.config.database.unlink()
    away = one.target.rename(one.folder / "away")
    one.target.mkdir()
    before = len(one.daemon.log)
    one.daemon.start()
    wait_until(
        lambda: not one.daemon.is_alive() or "daemon ready" in one.daemon.log[before:],
        20,
        "decided",
    )
    if one.daemon.is_alive():
        import time

        time.sleep(3)
        one.daemon.stop()
    one.target.rename(one.folder / "empty")
    away.rename(one.target)
    started(one)
    one.drop(1)
    import time

    time.sleep(5)
    assert one.daemon.stop() == 0
    assert count(one) == 12
    check_places(one)


def test_unknown_dangling_link_of_ours_repair_converges(make: Callable[..., Inbox]) -> None:
    one = make("one", op="symlink", **LIGHT)
    started(one)
    one.drop(3)
    wait_until(lambda: count(one) == 9, 20, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    keep_backup(one)
    started(one)
    one.drop(1)
    wait_until(lambda: count(one) == 12, 20, "sorted\n" + one.daemon.log)
    assert one.daemon.stop() == 0
    (one.inbox / "20000-red-0.png").unlink()
    damage(one)
    said = [json.loads(quick_cli("doctor", one, "--repair", "--json").stdout) for _ in range(3)]
    assert said[1]["repaired"] == []
    assert not any("--repair takes in" in f["text"] for f in said[1]["findings"])
