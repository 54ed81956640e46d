"""Chromium comes by the tests' own set-up: once, where that can work, and else with a reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ASK = "from debian_packages import install_chromium; print(install_chromium('this run'))"
# It notes how it is called, and puts a browser beside itself where it is told to install.
APT = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$@" in *" install "*) {install};; esac
"""
WORKS = "/bin/sleep 0.2; : > {folder}/chromium; /bin/chmod +x {folder}/chromium"
FAILS = "echo 'E: Unable to locate package chromium'; exit 100"

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root installs a package")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the only folder in which programs are looked for."""
    return tmp_path


def put_apt(folder: Path, install: str) -> None:
    script = folder / "apt-get"
    script.write_text(APT.format(folder=folder, install=install.format(folder=folder)))
    script.chmod(0o755)


def ask(folder: Path, times: int = 1, **environ: str) -> list[str]:
    """Ask for Chromium in so many processes at once; return what each was told."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("IMGSORTD")},
        "PATH": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
        **environ,
    }
    asked = [
        subprocess.Popen([sys.executable, "-c", ASK], env=environment, stdout=subprocess.PIPE)
        for _ in range(times)
    ]
    return [process.communicate(timeout=60)[0].decode().strip() for process in asked]


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


@needs_root
def test_three_processes_that_need_it_at_once_install_it_once(folder: Path) -> None:
    put_apt(folder, WORKS)

    told = ask(folder, times=3)

    assert told == ["None"] * 3
    [call] = calls(folder)
    assert call.endswith("install --no-install-recommends chromium fonts-dejavu-core")
    assert "--yes" in call


@needs_root
def test_what_failed_is_said_with_what_to_do_and_not_tried_again_in_the_same_run(
    folder: Path,
) -> None:
    put_apt(folder, FAILS)

    told = [*ask(folder), *ask(folder)]

    assert told[0] == told[1]
    assert "installing it failed (E: Unable to locate package chromium)" in told[0]
    assert "apt-get install chromium" in told[0]
    assert [call.split()[-1] for call in calls(folder)] == [
        "fonts-dejavu-core",
        "update",
        "fonts-dejavu-core",
    ]


@needs_root
def test_nothing_is_installed_where_that_is_forbidden(folder: Path) -> None:
    put_apt(folder, WORKS)

    [told] = ask(folder, IMGSORTD_NO_INSTALL="1")

    assert "IMGSORTD_NO_INSTALL is set" in told
    assert not (folder / "calls").exists()


@needs_root
def test_a_machine_without_apt_is_told_so(folder: Path) -> None:
    [told] = ask(folder)

    assert "there is no apt-get" in told


def test_a_chromium_that_is_there_is_taken(folder: Path) -> None:
    (folder / "google-chrome").touch(0o755)

    assert ask(folder) == ["None"]
