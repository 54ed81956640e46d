"""The state of the daemon, read from its store alone, running or not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from imgsortd.cli.status import render
from imgsortd.errors import StoreError
from imgsortd.reports.status import LoggedError, OpenMove, StatusReport, read_status
from imgsortd.store.control import Heartbeat
from imgsortd.system.locks import Locks
from line import Line
from support import make_config, paint_groups


def rendered(report: StatusReport) -> str:
    """Return the text as it comes out of a UTF-8 terminal that understands colours."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    Console(file=out, width=100, soft_wrap=True, color_system=None).print(render(report))
    out.seek(0)
    return out.read()


def beat(line: Line, phase: str = "idle", pid: int | None = None, age_s: float = 0.0) -> None:
    now = time.time()
    with line.store.atomic():
        line.store.control.beat(
            Heartbeat(
                pid=pid or os.getpid(),
                phase=phase,
                started_at=now - 7200,
                beat_at=now - age_s,
                queue=3,
                images_per_s=21.5,
                watching="inotify",
                note="",
            )
        )


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield line
    line.close()


@pytest.mark.parametrize("database", ["none", "empty"])
def test_a_daemon_that_never_ran_is_told_with_how_to_start_it(
    tmp_path: Path, database: str
) -> None:
    config = make_config(tmp_path)
    if database == "empty":
        config.database.touch()

    report = read_status(config)

    assert (report.daemon, report.phase, report.pid) == ("not running", "never started", None)
    assert "it has never been started: imgsortd run -c …" in rendered(report)
    assert "no fit yet: first fit at 6 pictures, 0 so far" in rendered(report)


def test_a_stopped_daemon_leaves_its_numbers(line: Line) -> None:
    paint_groups(line.config.inbox, 4)
    line.put("broken.jpg", b"no picture")
    line.run()
    beat(line, "sorting", age_s=7200)

    report = read_status(line.config)

    assert (report.daemon, report.phase, report.uptime_s) == ("not running", "stopped", None)
    assert report.counts == {
        "seen": 13,
        "sorted": 12,
        "review": 0,
        "set_aside": 1,
        "duplicates": 0,
        "companions": 0,
        "pending": 0,
        "undone": 0,
    }
    assert sorted(cluster.files for cluster in report.clusters) == [4, 4, 4]
    assert report.last_fit is not None
    assert report.last_fit.n_images == 12
    text = rendered(report)
    assert "imgsortd not running  heartbeat 2 h ago" in text
    assert "broken.jpg: not a picture: it begins like text" in text


def test_a_running_daemon_is_shown_with_what_it_is_at(line: Line) -> None:
    beat(line)
    with Locks(line.config.state_dir):
        report = read_status(line.config)

    assert (report.daemon, report.phase, report.pid) == ("running", "idle", os.getpid())
    assert (report.queue, report.watching) == (3, "inotify")
    assert f"running  idle · pid {os.getpid()} · up 2 h" in rendered(report)
    assert "inotify · 21.5 images/s" in rendered(report)


def test_a_daemon_whose_heartbeat_is_old_does_not_respond(line: Line) -> None:
    beat(line, age_s=61)
    with Locks(line.config.state_dir):
        report = read_status(line.config)

    assert report.daemon == "not responding"
    assert report.uptime_s is None
    assert "not responding" in rendered(report)


def test_a_daemon_that_has_just_started_shows_nothing_of_the_run_before(line: Line) -> None:
    beat(line, "paused", pid=os.getpid() + 1, age_s=3600)
    with Locks(line.config.state_dir):
        report = read_status(line.config)

    assert (report.daemon, report.phase) == ("running", "starting")
    assert (report.uptime_s, report.heartbeat_age_s, report.queue) == (None, None, 0)


def test_a_daemon_in_another_pid_namespace_is_known_by_its_fresh_heartbeat(line: Line) -> None:
    beat(line, "sorting", pid=os.getpid() + 1)
    with Locks(line.config.state_dir):
        report = read_status(line.config)

    assert (report.daemon, report.phase, report.queue) == ("running", "sorting", 3)


@pytest.mark.parametrize(
    "duplicates", ["keep", "set_aside", "skip"], ids=lambda policy: f"duplicates {policy}"
)
def test_the_numbers_add_up(tmp_path: Path, duplicates: str) -> None:
    line = Line(tmp_path, duplicates=duplicates)
    paint_groups(line.config.inbox, 3)
    line.put("twin.png", (line.config.inbox / "red-0.png").read_bytes())
    line.put("broken.jpg", b"")
    line.run()
    (line.config.target / "_set_aside").mkdir(exist_ok=True)

    report = read_status(line.config)
    line.close()

    counts = dict(report.counts)
    in_clusters = sum(cluster.files for cluster in report.clusters)
    assert counts.pop("seen") == sum(counts.values()) == 11
    assert in_clusters == counts["sorted"] + (counts["duplicates"] if duplicates == "keep" else 0)
    assert "11" in rendered(report)


def test_what_is_shown_holds_no_control_characters_nor_halves_of_characters(line: Line) -> None:
    nasty = b"\x1b[31m\x07\xff\n.jpg"
    line.put(nasty, b"no picture")
    line.put(b"open-" + nasty, b"no picture neither")
    line.run()
    text = os.fsdecode(b"cannot move " + nasty)
    report = read_status(line.config)
    report = replace(
        report,
        pid=7,
        note=text,
        open_moves=[OpenMove(text, text)],
        errors=[LoggedError(0.0, "file not sorted", text)],
    )

    shown = rendered(report)

    assert all(char == "\n" or char.isprintable() for char in shown)
    assert shown.count("\\x1b[31m\\x07\\udcff\\n.jpg") == 6
    assert json.loads(json.dumps(asdict(report)))["note"] == text


def test_a_database_that_cannot_be_read_is_an_error_with_its_path(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    config.database.write_text("no database")

    with pytest.raises(StoreError, match=r"imgsortd\.db: is damaged or not an imgsortd database"):
        read_status(config)


def test_status_loads_nothing_heavy(line: Line) -> None:
    code = (
        "import sys; from imgsortd.cli.app import app; "
        "app(['status', '-c', sys.argv[1]], standalone_mode=False); "
        "print(sorted(set(sys.modules) & set(sys.argv[2:])))"
    )
    heavy = ["numpy", "scipy", "sklearn", "torch", "torchvision", "PIL", "sqlite_utils"]

    shown = subprocess.run(
        [sys.executable, "-c", code, line.config.inbox.with_name("config.yaml"), *heavy],
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.splitlines()[-1] == "[]"
