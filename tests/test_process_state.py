"""A test that leaves its process changed fails, and says what it has changed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CONFTEST = """
from collections.abc import Iterator

import pytest
import imgsortd.clusters.routing, imgsortd.inbox.intake
from conftest_of_the_tests import _given_back

test_gives_back = pytest.fixture(autouse=True)(_given_back)
module_gives_back = pytest.fixture(autouse=True, scope="module")(_given_back)
"""
HEAD = """
import fcntl, logging, os, resource, signal, sys, types
import pytest
import imgsortd.clusters.routing, imgsortd.inbox.intake
"""
# What is left changed, and how the complaint names it
LEFT = {
    "signal.signal(signal.SIGIO, signal.SIG_IGN)": "signal SIGIO|signal 29",
    "signal.signal(signal.SIGTERM, lambda *_: None)": "signal SIGTERM|signal 15",
    "os.environ['IMGSORTD_CACHE_DIR'] = '/nowhere'": "environment IMGSORTD_CACHE_DIR: not there",
    "os.environ.pop('HOME')": "environment HOME: .* now not there",
    "os.umask(0o077)": "umask",
    "os.chdir('/')": "working folder",
    "sys.path.insert(0, '/nowhere')": "sys path",
    "sys.argv.append('status')": "sys argv",
    "sys.modules['sklearn'] = types.ModuleType('sklearn')": "module sklearn: ",
    "sys.modules['torch'] = None": "module torch: not there, now None",
    "imgsortd.clusters.routing.nearest = None": "attribute of imgsortd.clusters.routing nearest",
    "imgsortd.clusters.routing.more = 1": "attribute of imgsortd.clusters.routing more",
    "imgsortd.inbox.intake.Intake.settle = None": (
        "attribute of imgsortd.inbox.intake.Intake settle"
    ),
    "os.link = os.rename": "attribute of os link",
    "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))": "limit RLIMIT_CORE",
    "logging.getLogger('imgsortd').setLevel(1)": "logger imgsortd",
    "from watchdog.observers import Observer; watch = Observer(); "
    "watch.schedule(None, '.'); watch.start()": "watching thread",
    "del sys.modules['imgsortd.clusters.routing']": "module imgsortd.clusters.routing",
    "globals().setdefault('kept', open(__file__)); "
    "signal.signal(signal.SIGIO, signal.SIG_IGN); "
    "fcntl.fcntl(kept, fcntl.F_SETLEASE, fcntl.F_RDLCK)": "lease",
}


def run_tests(folder: Path, text: str) -> str:
    """Run a file of tests under this project's fixture, in the order of the file."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "conftest_of_the_tests.py").symlink_to(Path(__file__).with_name("conftest.py"))
    (folder / "test_it.py").write_text(HEAD + text)
    options = ("-p", "no:randomly", "-p", "no:cacheprovider", "-q", "-rA", "--rootdir", folder)
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, folder / "test_it.py"],
        cwd=folder,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", "HOME": "/root", "CI": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    ).stdout


def test_each_thing_left_changed_fails_the_test_that_did_it_and_no_other(tmp_path: Path) -> None:
    tests = [
        f"def test_{number}():\n    {change}\ndef test_{number}_innocent():\n    pass\n"
        for number, change in enumerate(LEFT)
    ]

    said = run_tests(tmp_path, "\n".join(tests) + "\ndef test_last():\n    pass\n")

    complaints = dict(re.findall(r"^ERROR test_it.py::test_(\w+) - (.*)$", said, re.M))
    assert complaints.pop("last").count("; ") >= len(LEFT) - 1  # said of the module again
    assert set(complaints) == {str(number) for number in range(len(LEFT))}, said
    for number, named in enumerate(LEFT.values()):
        assert re.search(named, complaints[str(number)]), complaints[str(number)]


def test_what_a_fixture_gives_back_and_what_is_only_imported_is_no_change(tmp_path: Path) -> None:
    said = run_tests(
        tmp_path,
        """
def test_gives_back(monkeypatch, tmp_path):
    monkeypatch.setenv("IMGSORTD_CACHE_DIR", "/nowhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(imgsortd.clusters.routing, "nearest", None)
def test_imports():
    import sqlite3.dump, wave, imgsortd.daemon.pausing
""",
    )

    assert "2 passed" in said, said


def test_a_fixture_of_a_module_has_to_give_back_too(tmp_path: Path) -> None:
    said = run_tests(
        tmp_path,
        """
@pytest.fixture(scope="module")
def forgetful():
    os.environ["LEFT"] = "1"
def test_it(forgetful):
    pass
""",
    )

    assert "1 passed, 1 error" in said, said
    assert "environment LEFT: not there, now '1'" in said
