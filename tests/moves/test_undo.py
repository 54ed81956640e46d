"""Undo returns files to where they came from, overwrites nothing, and can be undone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import warm
from imgsortd.daemon.here import undo
from imgsortd.errors import WatchError
from imgsortd.moves.undo import UndoChoice
from inboxes import Inbox, quick_cli
from line import Line, files_below
from mounts import tmpfs
from support import BLUE, RED, leftovers, paint, paint_groups, sums, wait_until


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[Callable[..., Line]]:
    """Return what makes a line that has sorted nine pictures of three colours."""
    lines: list[Line] = []

    def make_line(**changes: Any) -> Line:
        line = Line(tmp_path, **changes)
        lines.append(line)
        paint_groups(line.config.inbox, 3)
        line.run()
        return line

    yield make_line
    for line in lines:
        line.close()


def undo_by(line: Line, choice: UndoChoice | None = None, *, dry_run: bool = False) -> Any:
    """Undo as the command does where no daemon runs, then let the line start again."""
    line.close()
    try:
        return undo(line.config, choice or UndoChoice(), dry_run=dry_run)
    finally:
        line._open()


def test_files_return_and_stay_through_scans_restarts_and_touches(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    before = sums(line.config.target)

    report = undo_by(line)
    line.run()
    for path in line.config.inbox.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o640)
    line.run()
    line.restart()
    line.run()

    assert (report["returned"], report["left"]) == (9, [])
    assert line.files() == {}
    assert sums(line.config.inbox) == before
    assert line.counts() == {"seen": 9, "undone": 9}


def test_the_names_are_those_that_the_files_had_folders_included(tmp_path: Path) -> None:
    line = Line(tmp_path)
    for folder in ("", "a/b", "a/c"):
        paint_groups(line.config.inbox / folder, 2)
    before = files_below(line.config.inbox)
    line.run()
    shutil.rmtree(line.config.inbox / "a")

    undo_by(line)

    assert files_below(line.config.inbox) == before
    line.close()


def test_an_undo_is_undone_by_the_next_one(make_line: Callable[..., Line]) -> None:
    line = make_line()
    before = line.files()

    first = undo_by(line)
    second = undo_by(line)
    line.run()

    assert (first["returned"], second["placed"]) == (9, 9)
    assert line.files() == before
    assert line.counts() == {"seen": 9, "sorted": 9}
    third = undo_by(line)
    assert (third["returned"], line.files()) == (9, {})


def test_a_dry_run_says_the_same_and_does_nothing(make_line: Callable[..., Line]) -> None:
    line = make_line()
    before = line.files()

    report = undo_by(line, dry_run=True)

    assert (report["returned"], report["dry_run"], report["made"]) == (9, True, [])
    assert line.files() == before
    assert line.counts() == {"seen": 9, "sorted": 9}


def test_a_name_that_is_taken_is_not_overwritten(make_line: Callable[..., Line]) -> None:
    line = make_line()
    name = next(iter(sorted(line.files())))
    stranger = line.config.inbox / Path(name).name
    stranger.write_bytes(b"stranger")

    report = undo_by(line)

    assert report["left"] == [{"file": name, "reason": "its old name in the inbox is taken"}]
    assert report["returned"] == 8
    assert stranger.read_bytes() == b"stranger"
    assert list(line.files()) == [name]


def test_what_was_edited_or_taken_away_is_left(make_line: Callable[..., Line]) -> None:
    line = make_line()
    edited, taken, *_ = sorted(line.files())
    (line.config.target / edited).write_bytes(b"edited")
    (line.config.target / taken).unlink()

    report = undo_by(line)

    assert {file["file"]: file["reason"] for file in report["left"]} == {
        edited: "it is no longer what was put there",
        taken: "it is no longer there",
    }
    assert line.files() == {edited: b"edited"}


def test_a_file_that_comes_again_after_an_undo_is_sorted(make_line: Callable[..., Line]) -> None:
    line = make_line()
    before = line.files()
    undo_by(line)
    away = line.config.inbox.parent / "away"
    away.mkdir()
    for path in line.config.inbox.iterdir():
        path.rename(away / path.name)
    line.restart()
    line.run()
    assert line.counts() == {}

    for path in away.iterdir():
        path.rename(line.config.inbox / path.name)
    line.run()

    assert line.files() == before


def test_a_file_that_is_edited_after_an_undo_is_sorted(make_line: Callable[..., Line]) -> None:
    line = make_line()
    undo_by(line)
    path = next(iter(sorted(line.config.inbox.iterdir())))
    paint(path, RED, 77)

    line.run()

    assert [Path(name).name for name in line.files()] == [path.name]


@pytest.mark.parametrize("op", ["copy", "hardlink", "symlink"])
def test_copies_and_links_are_removed_and_made_again(
    make_line: Callable[..., Line], op: str
) -> None:
    line = make_line(op=op)
    source, before = files_below(line.config.inbox), line.files()

    first = undo_by(line)
    line.run()

    assert (first["taken_back"], first["left"]) == (9, [])
    assert (files_below(line.config.inbox), line.files()) == (source, {})
    assert line.counts() == {"seen": 9, "undone": 9}
    second = undo_by(line)
    line.run()
    assert second["placed"] == 9
    assert (files_below(line.config.inbox), line.files()) == (source, before)
    assert line.counts() == {"seen": 9, "sorted": 9}


def test_a_copy_whose_source_is_gone_is_moved_back(make_line: Callable[..., Line]) -> None:
    line = make_line(op="copy")
    source = files_below(line.config.inbox)
    first, second, *_ = sorted(source)
    (line.config.inbox / first).unlink()
    (line.config.inbox / second).write_bytes(b"edited")

    report = undo_by(line)

    assert (report["taken_back"], report["returned"]) == (7, 1)
    assert [file["reason"] for file in report["left"]] == ["its old name in the inbox is taken"]
    assert files_below(line.config.inbox) == {**source, second: b"edited"}
    assert list(line.files().values()) == [source[second]]


def test_a_stranger_under_a_copys_name_is_not_removed(make_line: Callable[..., Line]) -> None:
    line = make_line(op="copy")
    name = next(iter(sorted(line.files())))
    (line.config.target / name).unlink()
    (line.config.target / name).write_bytes(b"stranger")

    report = undo_by(line)

    assert report["left"] == [{"file": name, "reason": "it is no longer what was put there"}]
    assert line.files() == {name: b"stranger"}


def test_set_aside_files_and_duplicates_return_too(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 2)
    shutil.copy(next(line.config.inbox.glob("*.png")), line.config.inbox / "twin.png")
    line.put("broken.jpg", b"\xff\xd8\xff broken")
    before = files_below(line.config.inbox)
    line.run()

    undo_by(line, UndoChoice(since_s=3600))
    line.run()

    assert files_below(line.config.inbox) == before
    assert line.counts() == {"seen": 8, "undone": 8}
    line.close()


def test_one_batch_is_undone_and_the_others_stay(make_line: Callable[..., Line]) -> None:
    line = make_line()
    kept = line.files()
    line.put("late.png", paint(line.config.inbox.parent / "made.png", BLUE, 9).read_bytes())
    line.run()

    report = undo_by(line)

    assert (report["returned"], line.files()) == (1, kept)
    with pytest.raises(Exception, match="batch 4711 is not known"):
        undo_by(line, UndoChoice(batch=4711))
    first = undo_by(line, UndoChoice(batch=1))
    assert first["returned"] == 9


def test_a_batch_that_was_undone_is_not_undone_again(make_line: Callable[..., Line]) -> None:
    line = make_line()
    undo_by(line)

    report = undo_by(line, UndoChoice(batch=1))

    assert {file["reason"] for file in report["left"]} == {"it is undone already"}


def test_all_of_the_last_hour_brings_back_what_was_an_hour_ago(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    before = sums(line.config.target)
    undo_by(line)
    undo_by(line)

    report = undo_by(line, UndoChoice(since_s=3600))

    assert len(report["batches"]) == 3
    assert line.files() == {}
    assert sums(line.config.inbox) == before


def test_across_filesystems_files_return_by_copy_and_check(
    tmp_path: Path, make_line: Callable[..., Line]
) -> None:
    with tmpfs(tmp_path / "target"):
        line = make_line()
        before = sums(line.config.target)

        undo_by(line)
        line.run()

        assert sums(line.config.inbox) == before
        assert line.files() == {}
        undo_by(line)
        assert sums(line.config.target) == before
        assert files_below(line.config.inbox) == {}
        line.close()
        line._open = lambda: None  # type: ignore[method-assign]


UNDO_POINTS = {
    "move": ("planned", "opened", "renamed", "verified", "moves_synced", "closed"),
    "copy": ("planned", "claimed", "claim_dropped", "moves_synced", "closed"),
    "cross": ("claimed", "claim_synced", "staged", "published", "copied", "claim_dropped"),
}


@pytest.mark.parametrize("how", UNDO_POINTS)
def test_killed_anywhere_an_undo_loses_and_doubles_nothing(
    tmp_path: Path, make_line: Callable[..., Line], how: str
) -> None:
    if how == "cross":
        with tmpfs(tmp_path / "target"):
            _kill_undos(make_line(), how)
    else:
        _kill_undos(make_line(op=how), how)


def _kill_undos(line: Line, how: str) -> None:
    contents = set(sums(line.config.target))
    copies = {"copy": 2}.get(how, 1)
    line.close()
    kills = 0
    for point in UNDO_POINTS[how]:
        for count in (1, 4):
            killed = _undo_process(line, f"{point}:{count}")
            assert killed.returncode in (-9, 0), (point, killed.stderr)
            kills += killed.returncode == -9
            assert set(sums(line.config.inbox, line.config.target)) == contents, point

            line._open()  # recovers
            line.run()
            counts = line.counts()
            there = sums(line.config.inbox, line.config.target)
            assert counts["seen"] == sum(counts[s] for s in counts if s != "seen") == 9
            for state, copied in (("undone", 1), ("sorted", copies)):
                assert counts.get(state, 0) * copied <= sum(there.values())
            expected = counts.get("undone", 0) + copies * counts.get("sorted", 0)
            assert sum(there.values()) == expected, point
            assert leftovers(line.config.target) == []
            line.close()
    assert kills >= len(UNDO_POINTS[how]), "too few were killed for this to show anything"
    line._open()


def _undo_process(line: Line, fault: str) -> subprocess.CompletedProcess[str]:
    by_hand = partial(undo, choice=UndoChoice(), dry_run=False)
    return warm.call(by_hand, line.config, environ={"IMGSORTD_FAULT_POINT": fault})


# --- with the daemon --------------------------------------------------------------------


def cli(one: Inbox, *options: str) -> subprocess.CompletedProcess[str]:
    return quick_cli("undo", one, *options)


def test_a_running_daemon_undoes_and_leaves_the_files_alone(make: Callable[..., Inbox]) -> None:
    one = make()
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()

    done = cli(one, "--last", "--json")
    report = json.loads(done.stdout)
    one.drop(1)
    wait_until(lambda: one.status().counts["sorted"] == 3, what="the new ones sorted")

    assert (done.returncode, report["returned"]) == (0, 9)
    assert one.status().counts["undone"] == 9
    assert sums(one.inbox, one.target) == one.dropped
    assert len(list(one.inbox.glob("*.png"))) == 9
    assert one.daemon.stop() == 0
    one.daemon.start()
    one.daemon.wait_ready(2)
    again = cli(one, "--batch", str(report["made"][0]))
    assert "9 brought to their folders in target" in again.stdout
    one.wait_sorted()
    one.check()


def test_the_command_tells_what_it_did_and_how_to_undo_it(make: Callable[..., Inbox]) -> None:
    one = make()
    one.drop(2)
    one.daemon.start()
    one.wait_sorted()
    assert one.daemon.stop() == 0

    dry, done, wrong = cli(one, "--dry-run"), cli(one), cli(one, "--last", "--batch", "1")

    assert dry.stdout == ("batch 1 would be undone\n  6 back in the inbox, where they stay\n")
    assert done.stdout == (
        "batch 1 undone\n  6 back in the inbox, where they stay\n"
        "to undo this: imgsortd undo --batch 2\n"
    )
    assert wrong.returncode == 2
    assert cli(one, "--since", "yesterday").returncode == 2
    nothing = cli(one, "--since", "0.001s")
    assert (nothing.returncode, "there is nothing to undo" in nothing.stderr) == (1, True)


# --- several steps ----------------------------------------------------------------------


def moved_on(line: Line) -> dict[str, bytes]:
    """Move the sorted files on by a refit with other clusters; return where they stand."""
    assert line.refit(1).sorted == 6
    return line.files()


def test_steps_are_undone_one_by_one_and_all_at_once(make_line: Callable[..., Line]) -> None:
    line = make_line()
    first = line.files()
    second = moved_on(line)

    refused = undo_by(line, UndoChoice(batch=1))
    undo_by(line, UndoChoice(batch=3))
    one_step = undo_by(line, UndoChoice(batch=2))
    assert (one_step["placed"], line.files()) == (6, first)
    again = undo_by(line, UndoChoice(batch=one_step["made"][0]))
    assert (again["placed"], line.files()) == (6, second)
    back = undo_by(line, UndoChoice(batch=2))
    rest = undo_by(line, UndoChoice(batch=1))

    assert {file["reason"] for file in refused["left"]} == {"moved again since: undo batch 2 first"}
    assert refused["returned"] == 3
    assert (back["placed"], rest["returned"], line.files()) == (6, 9, {})
    line.run()
    assert line.counts() == {"seen": 9, "undone": 9}


def test_two_steps_since_an_hour_ago_end_in_the_inbox(make_line: Callable[..., Line]) -> None:
    line = make_line()
    moved_on(line)

    preview = undo_by(line, UndoChoice(since_s=3600), dry_run=True)
    report = undo_by(line, UndoChoice(since_s=3600))

    assert preview["left"] == report["left"] == []
    assert line.files() == {}
    assert line.counts() == {"seen": 9, "undone": 9}


def test_an_adopted_file_returns_to_the_folder_it_was_found_in(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    with line.store.atomic():
        line.store.connection.execute("DELETE FROM moves")
    first = line.files()
    moved_on(line)

    undo_by(line)
    line.run()

    assert line.files() == first
    assert line.counts() == {"seen": 9, "sorted": 9}
    assert line.store.files.cluster_sizes() == {0: 3, 1: 3, 2: 3}


def test_an_edit_without_a_trace_in_the_stamp_is_seen(make_line: Callable[..., Line]) -> None:
    line = make_line()
    name = next(iter(sorted(line.files())))
    path = line.config.target / name
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-30] ^= 1
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    report = undo_by(line)

    assert [file["file"] for file in report["left"]] == [name]
    assert line.files() == {name: bytes(data)}


@pytest.mark.parametrize("op", ["move", "copy"])
def test_a_file_edited_after_an_undo_is_counted_once(
    make_line: Callable[..., Line], op: str
) -> None:
    line = make_line(op=op)
    undo_by(line)
    paint(next(iter(sorted(line.config.inbox.iterdir()))), RED, 77)

    line.run()

    assert line.counts() == {"seen": 9, "sorted": 1, "undone": 8}


def test_a_folder_of_the_inbox_that_is_a_file_now_ends_no_other_undo(tmp_path: Path) -> None:
    line = Line(tmp_path)
    for folder in ("", "a"):
        paint_groups(line.config.inbox / folder, 2, seed=len(folder) * 100)
    line.run()
    shutil.rmtree(line.config.inbox / "a")
    (line.config.inbox / "a").write_text("in the way")

    first = undo_by(line)
    second = undo_by(line, UndoChoice(batch=1))

    assert (first["returned"], len(first["left"])) == (6, 6)
    assert {file["reason"] for file in second["left"]} == {
        "it is undone already",
        "a move of it is under way; try again when it is done",
    }
    (line.config.inbox / "a").unlink()
    line.run()
    assert line.counts() == {"seen": 12, "undone": 12}
    line.close()


def test_nothing_is_put_back_into_another_folder_than_it_came_from(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    inbox = line.config.inbox
    inbox.rename(inbox.with_name("unmounted"))
    inbox.mkdir()
    before = sums(line.config.target)

    with pytest.raises(WatchError, match="another folder is there than before"):
        undo_by(line)

    assert sums(line.config.target) == before
    assert list(inbox.iterdir()) == []


def test_a_claim_in_target_without_a_row_is_given_back(make: Callable[..., Inbox]) -> None:
    one = make()
    folder = one.target / "cluster_4" / ".imgsortd-claim"
    folder.mkdir(parents=True)
    paint(folder / "12-red.png", RED, 1)
    before = sums(one.target)

    one.daemon.start()
    one.daemon.wait_ready()

    assert (one.target / "cluster_4" / "red.png").exists()
    assert not folder.exists()
    assert sums(one.target) == before
