"""``imgsortd doctor`` says what is wrong and what to do, and mends without touching a picture."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import warm
from imgsortd.doctor import (
    Verdict,
    check_clock,
    check_decoder,
    check_inotify,
    check_model,
    check_mounts,
    check_rights,
    check_room,
    examine,
    repair,
)
from imgsortd.errors import LockedError
from inboxes import Inbox
from killed_line import sort_all
from line import Line
from mounts import tmpfs
from support import make_config, nest, paint_groups, run_cli, sums, tree


@pytest.fixture
def line(tmp_path: Path, conv_weights: Path, hurried: None) -> Line:
    """Return a line that has sorted nine pictures and is closed."""
    line = Line(tmp_path, model={"weights": str(conv_weights)})
    paint_groups(line.config.inbox, 3)
    line.run()
    line.close()
    line.config.state_dir.chmod(0o700)
    return line


def said(line: Line, what: str) -> list[tuple[str, str]]:
    return [(f.verdict.value, f.text) for f in examine(line.config) if f.what == what]


def verdicts(line: Line) -> dict[str, str]:
    """Return what is not fine, but for the weights: the line's features are made without."""
    return {
        f.what: f.verdict.value
        for f in examine(line.config)
        if f.verdict is not Verdict.FINE and f.what != "weights"
    }


def test_where_all_is_well_every_line_is_fine(line: Line) -> None:
    assert verdicts(line) == {}
    assert said(line, "target") == [("fine", "every file is known, and every known file is there")]
    assert said(line, "database")[0][1].startswith("whole, 9 files known")


def test_what_is_missing_foreign_and_changed_is_told_and_taken_over(line: Line) -> None:
    first, second, third, *_ = sorted(line.files())
    (line.config.target / first).unlink()
    (line.config.target / second).write_bytes(b"changed")
    shutil.copy(line.config.target / third, line.config.target / "cluster_2" / "mine.png")
    before = sums(line.config.target)

    texts = [text for _, text in said(line, "target")]
    done = repair(line.config)

    assert [text.split(";")[0] for text in texts] == [
        "1 file known but not there, moved or deleted by someone",
        "1 file in its folders but not known",
        "1 file changed since it was sorted",
    ]
    assert [text.split(";")[0] for text in done] == [
        "1 file no longer in target and forgotten",
        "1 file changed and known as it is now",
        "1 file of target taken in",
    ]
    assert sums(line.config.target) == before
    assert verdicts(line) == {}


def test_files_hidden_by_a_lost_move_are_told_and_given_back(line: Line) -> None:
    claims = line.config.inbox / "sub" / ".imgsortd-claim"
    claims.mkdir(parents=True)
    (claims / "77-lost.png").write_bytes(b"claimed")

    found = said(line, "claims")
    repair(line.config)

    assert found == [
        (
            "bad",
            "1 file hidden by a move that nobody knows: sub/.imgsortd-claim/77-lost.png; "
            "the daemon's next start gives them back (or --repair)",
        )
    ]
    assert (line.config.inbox / "sub" / "lost.png").read_bytes() == b"claimed"
    assert said(line, "claims") == []


def test_a_claim_folder_that_cannot_be_read_is_told(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line.config.inbox / ".imgsortd-claim").mkdir()
    real = os.listdir

    def listdir(path: bytes) -> list[bytes]:  # root may read everything
        if path.endswith(b"claim"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)

    assert said(line, "claims") == [
        ("note", ".imgsortd-claim cannot be read; if it is nobody's, remove it")
    ]


def test_folders_nested_without_end_are_counted_as_far_as_paths_reach(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    nest(config.inbox, 1500)

    (finding,) = check_inotify(config)

    subprocess.run(["rm", "-rf", config.inbox], check=True)  # pytest's clean-up would recurse
    assert finding.text.startswith("1,501 folders to watch")


def test_a_deep_look_finds_what_the_disk_has_changed_unseen(line: Line) -> None:
    config = line.config.inbox.parent / "config.yaml"
    first, *_ = sorted(line.files())
    path = line.config.target / first
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=times)
    with sqlite3.connect(line.config.database) as connection:
        connection.execute("UPDATE files SET done_at = done_at + 3600")
        connection.execute("UPDATE moves SET done_at = done_at + 3600")

    shallow = run_cli("doctor", "-c", config)
    deep = run_cli("doctor", "-c", config, "--deep")

    assert "1 file changed since it was sorted" not in shallow.stdout
    assert f"1 file changed since it was sorted; --repair takes as it is now: {first}" in (
        " ".join(deep.stdout.split())
    )


def test_rights_that_let_others_read_the_state_are_told_and_mended(line: Line) -> None:
    line.config.state_dir.chmod(0o755)
    line.config.database.chmod(0o644)

    texts = [text for verdict, text in said(line, "permissions") if verdict == "bad"]
    repair(line.config)

    assert [text.split(" has mode ")[1].split(";")[0] for text in texts] == ["0755", "0644"]
    assert verdicts(line) == {}


def test_unfinished_moves_are_told_and_finished(line: Line) -> None:
    config = line.config
    paint_groups(config.inbox, 1, seed=99)
    killed = warm.call(sort_all, config, environ={"IMGSORTD_FAULT_POINT": "renamed:2"})
    assert killed.returncode == -9

    assert verdicts(line) == {"moves": "note"}
    done = repair(config)

    assert "unfinished moves were finished" in done[0]
    assert verdicts(line) == {}


def test_a_damaged_database_is_told_and_restored(line: Line) -> None:
    with open(line.config.database, "r+b") as file:
        file.truncate(10_000)
    before = tree(line.config.target)

    assert verdicts(line) == {"database": "bad"}
    done = repair(line.config)

    assert done == ["the database was restored; the errors in `imgsortd status` say from what"]
    assert verdicts(line) == {}
    assert tree(line.config.target) == before


def test_a_lost_database_with_backups_is_told(line: Line) -> None:
    folder = line.config.state_dir / "backups"
    folder.mkdir()
    line.config.database.rename(folder / "imgsortd-2026-01-01.db")

    (finding,) = said(line, "database")

    assert finding[1].startswith("gone, though there are backups")
    repair(line.config)
    assert verdicts(line) == {}


def test_a_repair_waits_for_the_daemon_to_stop(make: Callable[..., Inbox]) -> None:
    one = make()
    one.daemon.start()
    one.daemon.wait_ready()

    with pytest.raises(LockedError, match=r"another imgsortd is at work there \(pid \d+\)"):
        repair(one.config)


def test_other_weights_than_the_stored_ones_are_told(line: Line) -> None:
    ((verdict, text),) = said(line, "weights")

    assert (verdict, "but the clusters were fitted with colour" in text) == ("bad", True)
    digest = text.split("digest ")[1].split(",")[0]
    (fine,) = check_model(line.config, None)
    assert (fine.verdict, digest in fine.text) == (Verdict.FINE, True)


def test_truncated_weights_are_told(tmp_path: Path, conv_weights: Path) -> None:
    half = tmp_path / conv_weights.name
    half.write_bytes(conv_weights.read_bytes()[:1_000_000])
    config = make_config(tmp_path, model={"weights": str(half)})

    (finding,) = check_model(config, None)

    assert finding.verdict is Verdict.BAD
    assert str(half) in finding.text


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "target", size="2m"):
        config = make_config(tmp_path)
        (config.target / "filler").write_bytes(bytes(1_900_000))

        findings = list(check_room(config))

        assert findings[0].verdict is Verdict.BAD
        assert "free some, sorting will pause" in findings[0].text
        (mounts,) = check_mounts(config)
        assert "each move is a checked copy" in mounts.text


def test_a_clock_that_was_set_back_is_told(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    config.state_dir.mkdir(exist_ok=True)

    findings = list(check_clock(config, 32_503_680_000.0))

    assert findings[0].verdict is Verdict.NOTE
    assert "in the future: the clock was set back" in findings[0].text


def test_a_target_that_takes_no_files_is_told(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "target"):
        config = make_config(tmp_path)
        subprocess.run(["mount", "-o", "remount,ro", str(config.target)], check=True)

        texts = [finding.text for finding in check_rights(config)]

        assert any("takes no files (Read-only file system)" in text for text in texts)


def test_more_folders_than_may_be_watched_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, recursive=True)
    for number in range(9):
        (config.inbox / str(number)).mkdir()
    limits = tmp_path / "inotify"
    limits.mkdir()
    (limits / "max_user_watches").write_text("5\n")
    (limits / "max_queued_events").write_text("16384\n")
    monkeypatch.setattr("imgsortd.doctor._INOTIFY", limits)

    (finding,) = check_inotify(config)

    assert finding.verdict is Verdict.BAD
    assert "sysctl fs.inotify.max_user_watches=20" in finding.text


def test_the_decoder_says_how_it_is_confined(tmp_path: Path) -> None:
    (finding,) = check_decoder(make_config(tmp_path))

    assert "2,048 MB and 30 s a picture, confined by rlimits" in finding.text


def test_the_command_prints_a_line_each_and_its_code_says_whether_all_is_fine(
    line: Line,
) -> None:
    config = line.config.inbox.parent / "config.yaml"
    odd = line.config.target / "cluster_0" / "odd\x1b[2J.png"
    odd.write_bytes(b"odd")

    text, machine = run_cli("doctor", "-c", config), run_cli("doctor", "-c", config, "--json")

    assert text.returncode == machine.returncode == 1
    assert r"odd\x1b[2J.png" in text.stdout
    assert "\x1b[2J" not in text.stdout
    findings: list[dict[str, Any]] = json.loads(machine.stdout)["findings"]
    assert {"what", "verdict", "text"} == set(findings[0])
    assert len(text.stdout.splitlines()) == len(findings)


def test_a_database_that_someone_holds_is_told_not_replaced(line: Line) -> None:
    holder = sqlite3.connect(line.config.database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")

    assert verdicts(line) == {"database": "bad"}
    holder.execute("ROLLBACK")
    holder.close()
