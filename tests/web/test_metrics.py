"""Prometheus reads the state of daemon and library, also where there is none."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from imgsortd import __version__
from imgsortd.config.model import Config
from imgsortd.store.control import Heartbeat
from imgsortd.system.locks import Locks
from imgsortd.web.health import metrics_text
from line import Line
from support import make_config, paint_groups


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line that has sorted nine pictures of three colours."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 3)
    line.put("broken.jpg", b"no picture")
    line.run()
    yield line
    line.close()


def read(config: Config) -> dict[tuple[str, str], float]:
    """Return each value by its name and the value of its one label."""
    text = metrics_text(config)[0].decode()
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_running_daemon_tells_what_it_is_at(line: Line) -> None:
    now = time.time()
    with line.store.atomic():
        line.store.control.beat(
            Heartbeat(os.getpid(), "sorting", now - 60, now - 5, 7, 21.5, "inotify", "")
        )
        line.store.control.add_error("paused", "no room")
        line.store.connection.execute(
            "UPDATE moves SET phase = 'planned' WHERE id = (SELECT max(id) FROM moves)"
        )
    with Locks(line.config.state_dir):
        found = read(line.config)

    assert found["imgsortd_up", ""] == 1
    assert found["imgsortd_build_info", __version__] == 1
    assert (found["imgsortd_queue_images", ""], found["imgsortd_images_per_second", ""]) == (
        7,
        21.5,
    )
    assert found["imgsortd_heartbeat_age_seconds", ""] >= 5
    assert (found["imgsortd_open_moves", ""], found["imgsortd_errors_kept", ""]) == (1, 1)


def test_the_library_is_told_by_states_and_clusters(line: Line) -> None:
    found = read(line.config)

    states = {label: n for (name, label), n in found.items() if name == "imgsortd_files"}
    clusters = {label: n for (name, label), n in found.items() if name == "imgsortd_cluster_files"}
    assert {state: count for state, count in states.items() if count} == {
        "sorted": 9,
        "set_aside": 1,
    }
    assert clusters == {"0": 3, "1": 3, "2": 3}
    assert found["imgsortd_last_fit_timestamp_seconds", ""] == pytest.approx(time.time(), abs=300)
    assert found["imgsortd_proposal_waiting", ""] == 0


def test_a_proposal_that_waits_is_told(line: Line) -> None:
    with line.store.atomic():
        line.store.connection.execute("UPDATE fits SET state = 'proposed'")

    assert read(line.config)["imgsortd_proposal_waiting", ""] == 1


def test_a_daemon_that_is_down_leaves_what_is_not_known_out(line: Line) -> None:
    found = read(line.config)

    assert found["imgsortd_up", ""] == 0
    names = {name for name, _ in found}
    assert names.isdisjoint({"imgsortd_images_per_second", "imgsortd_heartbeat_age_seconds"})


@pytest.mark.parametrize("database", ["none", "without tables"])
def test_before_the_first_start_there_are_zeros(tmp_path: Path, database: str) -> None:
    config = make_config(tmp_path)
    if database != "none":
        config.database.touch()

    found = read(config)

    assert (found["imgsortd_up", ""], found["imgsortd_files", "sorted"]) == (0, 0)
    assert ("imgsortd_last_fit_timestamp_seconds", "") not in found


def test_a_database_that_cannot_be_read_gives_no_numbers(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    config.database.write_bytes(b"no database at all, but long enough to be looked at" * 100)

    assert {name for name, _ in read(config)} == {"imgsortd_up", "imgsortd_build_info"}


def test_names_have_the_prefix_and_no_process_is_told_of(line: Line) -> None:
    body, content_type = metrics_text(line.config)

    names = {name for name, _ in read(line.config)}
    assert {name for name in names if not name.startswith("imgsortd_")} == set()
    assert content_type.startswith("text/plain; version=")
    types = {line.split()[-1] for line in body.decode().splitlines() if line.startswith("# TYPE")}
    assert types == {"gauge"}
